//! The answer on its way to the edge, on the stream that its request came on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use adit_net::crumbs::Gathered;
use adit_net::give_way::give_way;
use adit_protocol::{extensions, stream};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use quinn::{SendStream, VarInt};
use tokio::io::AsyncWrite;

use super::NO_ERROR;
use crate::origin::{Body, Unread};
use crate::tunnel::handler::SETTLING;
use crate::tunnel::pace::Flows;

/// Our side of a request's stream. Unless the answer was sent to its end, the edge is told that it
/// is broken: a plain drop would look like a complete body.
pub(super) struct AnswerStream {
    pub(super) send: SendStream,
    /// Bytes of the body so far.
    sent: u64,
    complete: bool,
    /// Why, if it is not complete.
    code: VarInt,
}

impl AnswerStream {
    pub(super) fn new(send: SendStream) -> Self {
        Self { send, sent: 0, complete: false, code: NO_ERROR }
    }

    /// The next frame of an answer whose head was written. `code` says that the origin broke off.
    async fn frame(
        &mut self,
        body: &mut Gathered<Body>,
        code: VarInt,
    ) -> anyhow::Result<Option<Frame<Bytes>>> {
        match body.frame().await.transpose() {
            Ok(frame) => Ok(frame),
            Err(error) => {
                self.code = code;
                tokio::time::sleep(SETTLING).await;
                Err(anyhow::anyhow!(error).context("the origin broke off"))
            }
        }
    }

    /// The answer as it is; trailers have no place.
    pub(super) async fn send(&mut self, response: http::Response<Body>, flows: &Flows) -> anyhow::Result<()> {
        let (head, body) = response.into_parts();
        let unread = Unread::of(&head.extensions);
        self.head(head).await?;
        self.body(body, unread, flows).await
    }

    /// A circuit: the word that it is there, and what it carries.
    pub(super) async fn accept(
        &mut self,
        circuit: http::Response<Body>,
        flows: &Flows,
    ) -> anyhow::Result<()> {
        let (head, body) = circuit.into_parts();
        self.send.write_chunk(stream::Answer::Accepted.encode()?).await?;
        self.body(body, Unread::of(&head.extensions), flows).await
    }

    async fn body(&mut self, body: Body, unread: Unread, flows: &Flows) -> anyhow::Result<()> {
        let mut body = Gathered::new(body);
        while let Some(frame) = self.frame(&mut body, NO_ERROR).await? {
            if let Ok(data) = frame.into_data() {
                flows.send(data.len(), &body.size_hint(), unread);
                let length = data.len() as u64;
                give_way(self.sent, self.send.write_chunk(data)).await?;
                self.sent += length;
                flows.down.asked();
            }
        }
        self.finish();
        Ok(())
    }

    /// The answer with its trailers, if there are any (`adit_protocol::extensions`).
    pub(super) async fn send_framed(
        &mut self,
        response: http::Response<Body>,
        flows: &Flows,
    ) -> anyhow::Result<()> {
        let (mut head, body) = response.into_parts();
        let mut body = Gathered::new(body);
        let unread = Unread::of(&head.extensions);
        head.headers.insert(extensions::TRAILERS, extensions::FRAMED);
        self.head(head).await?;
        while let Some(frame) = self.frame(&mut body, BROKEN_OFF).await? {
            match frame.into_data() {
                Ok(data) => {
                    let head = Bytes::copy_from_slice(&extensions::data_head(data.len()));
                    flows.send(data.len(), &body.size_hint(), unread);
                    let length = data.len() as u64;
                    give_way(self.sent, self.send.write_all_chunks(&mut [head, data])).await?;
                    self.sent += length;
                    flows.down.asked();
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.send.write_chunk(extensions::encode_trailers(&trailers)?).await?;
                        // Nothing may follow.
                        break;
                    }
                }
            }
        }
        self.finish();
        Ok(())
    }

    async fn head(&mut self, head: http::response::Parts) -> anyhow::Result<()> {
        let head = stream::Answer::Http(http::Response::from_parts(head, ())).encode()?;
        Ok(self.send.write_chunk(head).await?)
    }

    pub(super) async fn refuse(&mut self, reason: String) -> anyhow::Result<()> {
        self.refuse_with(reason, false).await
    }

    pub(super) async fn refuse_with(
        &mut self,
        reason: String,
        flow_rate_limited: bool,
    ) -> anyhow::Result<()> {
        let head = stream::Answer::Refused { reason, flow_rate_limited }.encode()?;
        self.send.write_chunk(head).await?;
        self.finish();
        Ok(())
    }

    fn finish(&mut self) {
        // An error here says that the edge has stopped the stream itself.
        let _ = self.send.finish();
        self.complete = true;
    }
}

/// For RPC streams, whose answers are no HTTP.
impl AsyncWrite for AnswerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        if !self.complete {
            let _ = self.send.reset(self.code);
        }
    }
}

const BROKEN_OFF: VarInt = VarInt::from_u32(extensions::BROKEN_OFF);
