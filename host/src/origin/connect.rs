//! Opens connections to origins: TCP or a Unix socket, then TLS where asked for.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dial::Dial;
use super::{OriginError, tls};

/// How HTTP/2 is called in a TLS handshake.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Where an origin listens and how to speak to it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) tls: Option<Tls>,
    pub(super) connect_timeout: Duration,
    pub(super) tls_timeout: Duration,
    /// From the request to the head of its answer.
    pub(super) response_timeout: Option<Duration>,
    /// Whether the other side must speak HTTP/2.
    pub(super) is_http2: bool,
    /// For messages, such as `http://127.0.0.1:8080`.
    pub(super) name: String,
}

#[derive(Clone)]
pub(super) enum Address {
    Tcp { host: String, port: u16, dial: Dial },
    Unix(PathBuf),
}

#[derive(Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<rustls::ClientConfig>,
    pub(super) server_name: ServerName<'static>,
}

/// An open byte stream to an origin.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    TlsUnix(Box<TlsStream<UnixStream>>),
}

impl Target {
    /// The same origin, to be spoken to in HTTP/2 only. It may be offered HTTP/1.1 too, so that one that does
    /// not know HTTP/2 says so and does not break off.
    pub(super) fn over_http2(&self, offers_both: bool) -> Self {
        let protocols: &[&[u8]] = if offers_both { &[HTTP2, HTTP1] } else { &[HTTP2] };
        let tls = self.tls.as_ref().map(|tls| Tls {
            config: tls::speaking(&tls.config, protocols),
            server_name: tls.server_name.clone(),
        });
        Self { tls, is_http2: true, ..self.clone() }
    }

    /// The same origin under another name in TLS.
    pub(super) fn named(&self, server_name: &ServerName<'static>) -> Self {
        let tls =
            self.tls.as_ref().map(|tls| Tls { config: tls.config.clone(), server_name: server_name.clone() });
        Self { tls, ..self.clone() }
    }

    pub(super) async fn connect(&self) -> Result<Stream, OriginError> {
        let seconds = self.connect_timeout.as_secs();
        let stream = timeout(self.connect_timeout, self.address.open())
            .await
            .map_err(|_| OriginError::ConnectTimeout { target: self.name.clone(), seconds })?
            .map_err(|source| OriginError::Connect { target: self.name.clone(), source: source.into() })?;
        match (&self.tls, stream) {
            (Some(tls), Stream::Tcp(tcp)) => Ok(Stream::Tls(self.secure(tls, tcp).await?)),
            (Some(tls), Stream::Unix(unix)) => Ok(Stream::TlsUnix(self.secure(tls, unix).await?)),
            (_, stream) => Ok(stream),
        }
    }

    async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        tls: &Tls,
        stream: S,
    ) -> Result<Box<TlsStream<S>>, OriginError> {
        let seconds = self.tls_timeout.as_secs();
        let shaken = TlsConnector::from(tls.config.clone()).connect(tls.server_name.clone(), stream);
        let stream = timeout(self.tls_timeout, shaken)
            .await
            .map_err(|_| OriginError::ConnectTimeout { target: self.name.clone(), seconds })?
            .map_err(|source| OriginError::Tls { target: self.name.clone(), source: source.into() })?;
        if self.is_http2 && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(OriginError::NotHttp2 { target: self.name.clone() });
        }
        Ok(Box::new(stream))
    }

    /// Waits for the head of an answer.
    pub(super) async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<T, OriginError> {
        let Some(limit) = self.response_timeout else { return Ok(answer.await) };
        timeout(limit, answer)
            .await
            .map_err(|_| OriginError::ResponseTimeout { target: self.name.clone(), seconds: limit.as_secs() })
    }

    pub(super) fn exchange(&self, source: hyper::Error) -> OriginError {
        // Of all that may be wrong on this side, only a body has a cause.
        if source.is_user() && std::error::Error::source(&source).is_some() {
            return OriginError::Request { source: Arc::new(source) };
        }
        OriginError::Exchange { target: self.name.clone(), source: source.into() }
    }

    pub(super) fn closed(&self) -> OriginError {
        OriginError::Closed { target: self.name.clone() }
    }
}

impl Address {
    async fn open(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp { host, port, dial } => Ok(Stream::Tcp(dial.open(host, *port).await?)),
            Self::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        }
    }
}

impl Stream {
    /// Nothing of what the origin has not taken is kept when this is closed: the system would go on trying for
    /// minutes, and what it keeps for those who take nothing it has not for others.
    pub(super) fn forget(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.set_zero_linger(),
            Self::Tls(stream) => stream.get_ref().0.set_zero_linger(),
            // What waits there is the reader's, and goes with it.
            Self::Unix(_) | Self::TlsUnix(_) => Ok(()),
        };
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::TlsUnix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::TlsUnix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::TlsUnix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::TlsUnix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::TlsUnix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::TlsUnix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
