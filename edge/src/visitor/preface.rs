//! Tells HTTP/1 from HTTP/2 with prior knowledge on a cleartext connection, by its first bytes
//! (RFC 9113 3.3 and 3.4), and gives those bytes back.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// A connection of which some bytes were read ahead; reading begins with them.
pub(super) struct Prefaced<T> {
    ahead: BytesMut,
    stream: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads until the first difference to the preface of HTTP/2, or its end. Nothing is lost if the
/// stream ends before: then it is HTTP/1 with an unfinished head.
pub(super) async fn detect<T: AsyncRead + Unpin>(mut stream: T) -> io::Result<(Protocol, Prefaced<T>)> {
    let mut ahead = BytesMut::with_capacity(READ_AHEAD);
    loop {
        let count = stream.read_buf(&mut ahead).await?;
        let known = ahead.len().min(PREFACE.len());
        if ahead[..known] != PREFACE[..known] || count == 0 {
            return Ok((Protocol::Http1, Prefaced { ahead, stream }));
        }
        if known == PREFACE.len() {
            return Ok((Protocol::Http2, Prefaced { ahead, stream }));
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefaced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let count = self.ahead.len().min(into.remaining());
        into.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefaced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// RFC 9113 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const READ_AHEAD: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn detected(pieces: &[&[u8]]) -> (Protocol, Vec<u8>) {
        let (mut visitor, edge) = tokio::io::duplex(4096);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let sending = async move {
            for piece in pieces {
                visitor.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let detecting = async {
            let (protocol, mut stream) = detect(edge).await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            (protocol, all)
        };
        tokio::join!(sending, detecting).1
    }

    #[tokio::test]
    async fn the_first_bytes_decide_and_are_given_back() {
        let long = [b"GET / HTTP/1.1\r\n".as_slice(), &[b'x'; 3000]].concat();
        let cases: [(&[&[u8]], Protocol); 8] = [
            (&[PREFACE, b"settings"], Protocol::Http2),
            (&[b"PRI * HT", b"TP/2.0\r\n\r\nSM", b"\r\n\r\nsettings"], Protocol::Http2),
            (&[b"GET / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"P", b"OST / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"PRI * HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"PRI * HTTP/2.0\r\n"], Protocol::Http1),
            (&[&long], Protocol::Http1),
            (&[], Protocol::Http1),
        ];
        for (pieces, protocol) in cases {
            let (found, all) = detected(pieces).await;
            assert_eq!((found, all), (protocol, pieces.concat()));
        }
    }
}
