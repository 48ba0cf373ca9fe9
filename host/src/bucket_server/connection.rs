//! One connection to the server: opened, over TLS where the document says so, with its password and its database, and
//! used by one at a time. Knows the protocol's beginnings; does not know buckets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use adit_rules::bucket_server::BucketServerPlan;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::resp::{self, Reply};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) struct Connection(BufReader<Box<dyn Stream>>);

/// What a connection begins with.
pub(super) struct Beginning {
    pub(super) plan: BucketServerPlan,
    pub(super) password: Option<Vec<u8>>,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Connection {
    /// # Errors
    /// There is none, or the server does not let us in.
    pub(super) async fn open(beginning: &Beginning) -> io::Result<Self> {
        let Beginning { plan, password, tls } = beginning;
        let tcp = TcpStream::connect((plan.host.as_str(), plan.port)).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match tls {
            None => Box::new(tcp),
            Some(tls) => {
                let name = ServerName::try_from(plan.host.clone()).map_err(io::Error::other)?;
                Box::new(TlsConnector::from(tls.clone()).connect(name, tcp).await?)
            }
        };
        let mut connection = Self(BufReader::new(stream));
        if let Some(password) = password {
            let mut parts: Vec<&[u8]> = vec![b"AUTH"];
            parts.extend(plan.username.as_ref().map(|username| username.as_bytes()));
            parts.push(password);
            connection.expect_ok(&resp::command(&parts)).await?;
        }
        if plan.database > 0 {
            let database = plan.database.to_string();
            connection.expect_ok(&resp::command(&[b"SELECT", database.as_bytes()])).await?;
        }
        Ok(connection)
    }

    pub(super) async fn ask(&mut self, command: &[u8]) -> io::Result<Reply> {
        self.0.write_all(command).await?;
        self.0.flush().await?;
        resp::read(&mut self.0).await
    }

    async fn expect_ok(&mut self, command: &[u8]) -> io::Result<()> {
        match self.ask(command).await? {
            Reply::Status(_) => Ok(()),
            Reply::Error(reason) => Err(io::Error::new(io::ErrorKind::PermissionDenied, reason)),
            Reply::Integer(_) | Reply::Bytes(_) | Reply::List(_) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "it is no server of Redis's protocol"))
            }
        }
    }

    /// Whether the server has ended it, or said something that nobody asked for, while nobody used it.
    pub(super) async fn is_stale(&mut self) -> bool {
        let mut byte = [0];
        std::future::poll_fn(|context| {
            let read = Pin::new(&mut self.0).poll_read(context, &mut ReadBuf::new(&mut byte));
            Poll::Ready(read.is_ready())
        })
        .await
    }
}
