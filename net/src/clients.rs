//! How clients of the small listeners are let in and served over HTTP/1.1: so many at once, each by a task
//! of its own, and whoever only holds a connection makes room for whoever asks. Knows sockets and the limits
//! of a conversation; does not know what is answered. Visitors and connectors have listeners of their own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::accept;
use crate::admission::{Admission, Guest};

/// Who is let in, for messages, and how many of them.
#[derive(Debug, Clone, Copy)]
pub struct Clients {
    pub whose: &'static str,
    /// Connections at once on which nothing is being done; as many may be busy besides.
    pub most: usize,
    /// How long the last answers may take once there are to be no more.
    pub farewell: Duration,
}

impl Clients {
    /// Where the clients of one listener are, to be handed to [`Clients::serve`].
    #[must_use]
    pub fn room(&self) -> Arc<Admission> {
        Admission::new(self.most)
    }

    /// Hands every client to `converse` until `stop`. Dropped midway, all conversations end.
    pub async fn serve<F>(
        self,
        listener: TcpListener,
        room: &Arc<Admission>,
        stop: CancellationToken,
        converse: impl Fn(TcpStream, SocketAddr, Guest) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { whose, farewell, most: _ } = self;
        let mut conversations = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = conversations.join_next() => {}
                (stream, address) = accept::next(&listener, whose, Some(room)) => {
                    let guest = room.admit(address.ip());
                    conversations.spawn(converse(stream, address, guest));
                }
            }
        }
        drop(listener);
        // The last answer may be on its way; a connection that only waits is no reason to wait.
        let last = async { while conversations.join_next().await.is_some() {} };
        let _ = timeout(farewell, last).await;
    }
}

/// Answers the requests on one connection until either side ends it, `guest` has to go or `stop` comes.
/// `answer` says with [`Guest::busy`] when a request is one. What has switched to another protocol is a client no more.
pub async fn converse<F>(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    guest: &Guest,
    stop: &CancellationToken,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Response<Full<Bytes>>>,
{
    let service = hyper::service::service_fn(|request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LONGEST_HEAD);
    let mut connection =
        std::pin::pin!(http1.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = guest.dismissed() => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a client's connection broke off");
    }
}

/// From a connection, or the last answer, to the end of the next head.
pub const HEAD: Duration = Duration::from_secs(10);
const MOST_HEADERS: usize = 64;
/// What one client can make us hold before it has proved anything, in bytes.
const LONGEST_HEAD: usize = 32 << 10;
