//! The two halves of a stream over HTTP/2, each with an end that no path forgets: RST_STREAM unless it
//! was finished or read to its end. And the same as plain bytes for the control stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use adit_net::unread::{Bodies, Body, SMALL};
use adit_net::unsent::OfStream;
use adit_protocol::stream::Answer;
use bytes::{Buf, Bytes};
use h2::client::ResponseFuture;
use h2::{Reason, SendStream};
use http::{HeaderMap, StatusCode};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Channel;
use super::head::{self, AnswerError};
use crate::transport::connection::{Lost, WriteError};
use crate::transport::peer::Outcome;

/// Towards the host. Dropping it cancels the whole request, unless [`Sending::finish`] was called.
pub(crate) struct Sending {
    stream: SendStream<Bytes>,
    /// What is to be sent next.
    pending: Bytes,
    unsent: OfStream,
    is_finished: bool,
    channel: Arc<Channel>,
}

/// From the host. When both halves are dropped before the end was seen, the request is cancelled.
pub(crate) struct Receiving {
    coming: Coming,
    /// What was read to see whether anything comes.
    first: Bytes,
    is_websocket: bool,
    channel: Arc<Channel>,
}

enum Coming {
    Head(ResponseFuture),
    Body(Body),
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum NoAnswer {
    /// The host has processed nothing of the request: it says so, or its goodbye does (RFC 9113 6.8, 8.7).
    #[error("the host takes no new requests")]
    Refused,
    #[error("{0}")]
    Broken(h2::Error),
    #[error("{0}")]
    Malformed(#[from] AnswerError),
    /// What became of the attempt of another node.
    #[error("at another node: {}", .0.word())]
    AtNode(Outcome),
}

impl Sending {
    pub(crate) fn new(stream: SendStream<Bytes>, is_finished: bool, channel: Arc<Channel>) -> Self {
        let unsent = channel.bodies().unsent().of(stream.stream_id().as_u32());
        Self { stream, pending: Bytes::new(), unsent, is_finished, channel }
    }

    /// Takes bytes to be sent by [`Sending::flush`], when everything before them was.
    pub(crate) fn load(&mut self, bytes: Bytes) {
        self.pending = bytes;
    }

    /// Hands over what was loaded without copying it; waits for the host's flow control. May be dropped
    /// midway and called again.
    pub(crate) async fn flush(&mut self) -> Result<(), WriteError> {
        if let Some(place) = self.channel.place()
            && (1..SMALL).contains(&self.pending.len())
        {
            place.small_frame().await;
        }
        while self.pending.has_remaining() {
            let wanted = self.pending.len();
            let room = std::future::poll_fn(|cx| {
                ready!(poll_written(&mut self.stream, &self.unsent, cx))?;
                poll_room(&mut self.stream, wanted, cx)
            });
            let part = self.pending.split_to(room.await?.min(wanted));
            self.unsent.handed(part.len());
            self.stream.send_data(part, false).map_err(lost)?;
        }
        Ok(())
    }

    /// The body is whole.
    pub(crate) fn finish(&mut self, trailers: Option<HeaderMap>) {
        if !self.is_finished {
            // An error means that the host wants no more, which is no error here.
            let _ = match trailers {
                Some(trailers) => self.stream.send_trailers(trailers),
                None => self.stream.send_data(Bytes::new(), true),
            };
            self.is_finished = true;
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.is_finished {
            self.stream.send_reset(Reason::CANCEL);
        }
    }
}

impl Receiving {
    pub(crate) fn new(response: ResponseFuture, is_websocket: bool, channel: Arc<Channel>) -> Self {
        Self { coming: Coming::Head(response), first: Bytes::new(), is_websocket, channel }
    }

    /// Waits for the head of the answer. To be called once.
    pub(crate) async fn answer(&mut self) -> Result<Answer, NoAnswer> {
        let Coming::Head(response) = &mut self.coming else {
            return Err(NoAnswer::Broken(Reason::INTERNAL_ERROR.into()));
        };
        let answered = response.await;
        if let Some(tally) = self.channel.tally().filter(|_| answered.is_err()) {
            tally.lost();
        }
        let (head, body) = answered.map_err(no_answer)?.into_parts();
        self.coming = Coming::Body(self.channel.bodies().watch(body));
        if let Some(tally) = self.channel.tally() {
            let answer = head::of_peer(head, self.is_websocket);
            tally.told(answer.as_ref().err().copied());
            return answer.map_err(NoAnswer::AtNode);
        }
        Ok(head::answer(&head, self.is_websocket)?)
    }

    /// The next bytes of the body, `None` at its end. What is taken is room for the host to send more.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.first.has_remaining() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.first))));
        }
        match &mut self.coming {
            Coming::Head(_) => Poll::Ready(Err(io::Error::other("the head was not asked for"))),
            Coming::Body(body) => poll_data(body, cx),
        }
    }

    /// Whether nothing follows the head, no trailers either. A broken stream is not over.
    pub(crate) fn poll_is_over(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Coming::Body(body) = &self.coming else { return Poll::Ready(false) };
        while !self.first.has_remaining() && !body.is_end_stream() {
            match ready!(poll_data(body, cx)) {
                Ok(Some(data)) => self.first = data,
                Ok(None) => return Poll::Ready(body.is_end_stream()),
                Err(_) => return Poll::Ready(false),
            }
        }
        Poll::Ready(!self.first.has_remaining())
    }

    /// What follows the body, after its end was seen.
    pub(crate) fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<HeaderMap>>> {
        match &mut self.coming {
            Coming::Head(_) => Poll::Ready(Ok(None)),
            Coming::Body(body) => body.poll_trailers(cx).map_err(io::Error::other),
        }
    }
}

fn poll_data(body: &Body, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
    body.poll_data(cx).map(|data| data.transpose().map_err(io::Error::other))
}

/// Until not too many small frames of the stream wait to be written. Those of one that was reset never are.
fn poll_written(
    stream: &mut SendStream<Bytes>,
    unsent: &OfStream,
    cx: &mut Context<'_>,
) -> Poll<Result<(), WriteError>> {
    if unsent.poll_room(cx).is_ready() {
        return Poll::Ready(Ok(()));
    }
    stream.poll_reset(cx).map(|reset| Err(reset_as(reset)))
}

/// How many of `wanted` bytes may be sent now, at least one.
fn poll_room(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, WriteError>> {
    stream.reserve_capacity(wanted.min(LARGEST_PIECE));
    loop {
        let room = stream.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(lost(error))),
            None => {
                return Poll::Ready(Err(match stream.poll_reset(cx) {
                    Poll::Ready(reset) => reset_as(reset),
                    Poll::Pending => WriteError::Lost(Lost { reason: "the stream is closed".to_owned() }),
                }));
            }
        }
    }
}

fn reset_as(reset: Result<Reason, h2::Error>) -> WriteError {
    match reset {
        Ok(Reason::REFUSED_STREAM) => WriteError::Refused,
        Ok(_) => WriteError::Unwanted,
        Err(error) => lost(error),
    }
}

fn lost(error: h2::Error) -> WriteError {
    if is_refusal(&error) {
        WriteError::Refused
    } else if error.is_reset() {
        WriteError::Unwanted
    } else {
        WriteError::Lost(Lost { reason: error.to_string() })
    }
}

fn no_answer(error: h2::Error) -> NoAnswer {
    if is_refusal(&error) { NoAnswer::Refused } else { NoAnswer::Broken(error) }
}

/// h2 gives the error of a goodbye only to the streams above its last id.
fn is_refusal(error: &h2::Error) -> bool {
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (is_refused || error.is_go_away())
}

/// What the host says on its control stream.
pub(crate) struct ControlReader {
    coming: Coming,
    rest: Bytes,
    bodies: Bodies,
}

impl ControlReader {
    pub(crate) fn new(response: ResponseFuture, bodies: Bodies) -> Self {
        Self { coming: Coming::Head(response), rest: Bytes::new(), bodies }
    }
}

impl AsyncRead for ControlReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.rest.has_remaining() {
                let part = this.rest.split_to(this.rest.len().min(into.remaining()));
                into.put_slice(&part);
                return Poll::Ready(Ok(()));
            }
            match &mut this.coming {
                Coming::Head(response) => {
                    let response = ready!(Pin::new(response).poll(cx)).map_err(io::Error::other)?;
                    if response.status() != StatusCode::OK {
                        let problem = format!("the host answered {}", response.status());
                        return Poll::Ready(Err(io::Error::other(problem)));
                    }
                    this.coming = Coming::Body(this.bodies.watch(response.into_body()));
                }
                Coming::Body(body) => match ready!(poll_data(body, cx))? {
                    Some(data) => this.rest = data,
                    None => return Poll::Ready(Ok(())),
                },
            }
        }
    }
}

/// What the edge says on a control stream. Ends its direction when dropped.
pub(crate) struct ControlWriter(SendStream<Bytes>);

impl ControlWriter {
    pub(crate) fn new(stream: SendStream<Bytes>) -> Self {
        Self(stream)
    }
}

impl AsyncWrite for ControlWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(poll_room(&mut self.0, bytes.len(), cx)).map_err(io::Error::other)?;
        let part = Bytes::copy_from_slice(&bytes[..room.min(bytes.len())]);
        let written = part.len();
        self.0.send_data(part, false).map_err(io::Error::other)?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let _ = self.0.send_data(Bytes::new(), true);
        Poll::Ready(Ok(()))
    }
}

impl Drop for ControlWriter {
    fn drop(&mut self) {
        let _ = self.0.send_data(Bytes::new(), true);
    }
}

/// Room that one write asks for at a time, so that no stream takes all of the connection's.
const LARGEST_PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// What the host says about streams 1 and 3, in frames, after its settings.
    async fn said(frames: &[&[u8]]) -> [NoAnswer; 2] {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let (mut requests, connection) = h2::client::handshake(ours).await.unwrap();
        tokio::spawn(connection);
        let mut ask = || {
            let request = Request::get("http://demo.example/").body(()).unwrap();
            let (response, _) = requests.send_request(request, true).unwrap();
            async { no_answer(response.await.unwrap_err()) }
        };
        let answers = [ask(), ask()];
        both_asked(&mut theirs).await;
        theirs.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        for frame in frames {
            theirs.write_all(frame).await.unwrap();
        }
        theirs.shutdown().await.unwrap();
        futures_util::future::join_all(answers).await.try_into().unwrap()
    }

    /// Reads until both requests are on their way.
    async fn both_asked(theirs: &mut DuplexStream) {
        const HEADERS: u8 = 1;
        theirs.read_exact(&mut [0; 24]).await.expect("the preface");
        let mut asked = 0;
        while asked < 2 {
            let mut head = [0; 9];
            theirs.read_exact(&mut head).await.expect("the head of a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            theirs.read_exact(&mut vec![0; length]).await.expect("its payload");
            asked += usize::from(head[3] == HEADERS);
        }
    }

    const REFUSED: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07";
    const CANCELLED: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08";
    /// The last stream that counts is 1.
    const GOODBYE: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0";

    #[tokio::test]
    async fn only_what_the_host_says_it_has_not_seen_is_refused() {
        for (frames, wanted) in [
            (&[][..], [false, false]),
            (&[REFUSED], [true, false]),
            (&[CANCELLED], [false, false]),
            (&[GOODBYE], [false, true]),
            (&[REFUSED, GOODBYE], [true, true]),
        ] {
            let answers = said(frames).await;
            let refused = answers.each_ref().map(|answer| matches!(answer, NoAnswer::Refused));
            assert_eq!(refused, wanted, "{answers:?}");
        }
    }
}
