//! One stream over HTTP/2: a request and its answer, or the bytes of the control stream.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_net::crumbs::Gathered;
use adit_net::unread;
use adit_net::unsent::OfStream;
use adit_protocol::extensions;
use adit_protocol::rpc::MAX_CONFIGURATION;
use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{sleep, timeout};
use tracing::{debug, trace};

use super::Arrived;
use super::head::{self, Purpose};
use crate::origin::{Body, BoxError, Unread, empty};
use crate::proxy::{Answer, Kind, Proxy, PushVerdict};
use crate::tunnel::control;
use crate::tunnel::handler::{Handler, SETTLING, Trailers};
use crate::tunnel::pace::Flows;

/// Room that one write asks for at a time, so that no stream takes all of the connection's.
const LARGEST_PIECE: usize = 64 * 1024;
/// Largest request that pushes a configuration, bytes.
const LARGEST_PUSH: usize = MAX_CONFIGURATION + 4096;
/// How long it may take to arrive.
const PUSH_LIMIT: Duration = Duration::from_secs(30);

/// One stream: handle the request, write the answer. Stops as soon as the edge cancels.
pub(super) async fn exchange((request, respond): Arrived, handler: Rc<Handler>) {
    let _under_way = handler.begin();
    let broken_off =
        if handler.speaks_own { Reason::from(extensions::BROKEN_OFF) } else { Reason::INTERNAL_ERROR };
    let mut answer = AnswerStream {
        unsent: request.body().unsent().of(respond.stream_id().as_u32()),
        way: Way::Head(respond),
        complete: false,
        reason: Reason::INTERNAL_ERROR,
        broken_off,
    };
    if let Err(error) = answer_to(&mut answer, request, &handler).await {
        match error {
            Broken::Cancelled => trace!("the edge cancelled a request"),
            Broken::Origin(error) => debug!(%error, "the origin broke off"),
            Broken::Stream(error) => debug!(%error, "stream failed"),
            Broken::TooSlow(error) => debug!(error, "stream failed"),
        }
    }
}

/// Why an answer was not sent to its end.
enum Broken {
    Cancelled,
    Origin(BoxError),
    Stream(h2::Error),
    TooSlow(&'static str),
}

impl From<h2::Error> for Broken {
    fn from(error: h2::Error) -> Self {
        Self::Stream(error)
    }
}

async fn answer_to(
    answer: &mut AnswerStream,
    request: http::Request<unread::Body>,
    handler: &Handler,
) -> Result<(), Broken> {
    let (mut head, body) = request.into_parts();
    let kind = match head::read(&mut head) {
        Purpose::Request(kind) => kind,
        Purpose::Tcp => return carry(answer, &head, body, handler).await,
        Purpose::UpdateConfiguration => {
            let verdict = configure(body, &handler.proxy).await;
            answer.head(Response::new(()), false)?;
            return answer.write(verdict, true).await;
        }
    };
    if !head.headers.contains_key(HOST) {
        // Neither is there a rule for it, nor may an origin be asked without one (RFC 9112 3.2).
        return answer.head(head::bad_request(), true);
    }
    let has_body = !body.is_end_stream() && (kind == Kind::WebSocket || !says_empty(&head.headers));
    // HTTP/2 has a place for trailers, so that every edge may send and be sent some. What the visitor says
    // about them decides only what an origin hears of it.
    let trailers = match (kind, handler.trailers(&head.headers)) {
        (Kind::WebSocket, _) => Trailers::Unwelcome,
        (Kind::Http, Trailers::Unwelcome) if head::asks_for_trailers(&head.headers) => Trailers::Welcome,
        (Kind::Http, said) => said,
    };
    let takes_trailers = kind == Kind::Http;
    let mut flows = handler.flows(&head.headers);
    let body: Body = if has_body {
        let body = Gathered::new(RequestBody { stream: body, takes_trailers });
        Box::pin(flows.watch(body, &head.headers))
    } else {
        empty()
    };
    let handled = tokio::select! {
        // Some kilobytes, which are needed no longer than until the head of the answer is there.
        handled = Box::pin(handler.handle(kind, head, body, trailers)) => handled,
        () = answer.cancelled() => return Err(Broken::Cancelled),
        reason = flows.cut() => return Err(Broken::TooSlow(reason)),
    };
    match handled {
        Answer::Response(response) => tokio::select! {
            biased;
            sent = answer.send(response, takes_trailers, &flows) => sent,
            reason = flows.cut() => Err(Broken::TooSlow(reason)),
        },
        Answer::Unreachable { not_here, .. } => answer.refuse(not_here && handler.speaks_own),
    }
}

/// A stream without a request: bytes both ways.
async fn carry(
    answer: &mut AnswerStream,
    head: &http::request::Parts,
    body: unread::Body,
    handler: &Handler,
) -> Result<(), Broken> {
    let to = head.uri.authority().and_then(|authority| authority.as_str().parse().ok());
    let Some(to) = to else {
        debug!("a stream to what is no address with a port");
        return answer.head(head::bad_request(), true);
    };
    let nothing = HeaderMap::new();
    let mut flows = handler.flows(&nothing);
    let body = Gathered::new(RequestBody { stream: body, takes_trailers: false });
    let body: Body = Box::pin(flows.watch(body, &nothing));
    let carried = tokio::select! {
        carried = Box::pin(handler.carry(to, body)) => carried,
        () = answer.cancelled() => return Err(Broken::Cancelled),
    };
    match carried {
        Ok(circuit) => tokio::select! {
            biased;
            sent = answer.send(circuit, false, &flows) => sent,
            reason = flows.cut() => Err(Broken::TooSlow(reason)),
        },
        Err(refused) => answer.head(head::refused_stream(refused.is_full), true),
    }
}

/// A configuration that the edge pushes (wire.md, section 6).
#[derive(Deserialize)]
struct Pushed {
    version: i32,
    config: serde_json::Value,
}

/// The verdict on a pushed configuration as the answer says it.
async fn configure(body: unread::Body, proxy: &Proxy) -> Bytes {
    let body = Limited::new(RequestBody { stream: body, takes_trailers: false }, LARGEST_PUSH).collect();
    let verdict = match timeout(PUSH_LIMIT, body).await {
        Ok(Ok(body)) => match serde_json::from_slice::<Pushed>(&body.to_bytes()) {
            Ok(Pushed { version, config }) => proxy.pushes.push(version, config.to_string().into()).await,
            Err(error) => PushVerdict { version: -1, error: Some(error.to_string()) },
        },
        Ok(Err(error)) => PushVerdict { version: -1, error: Some(error.to_string()) },
        Err(_) => PushVerdict { version: -1, error: Some("it did not arrive in time".to_owned()) },
    };
    let answer = serde_json::json!({ "lastAppliedVersion": verdict.version, "err": verdict.error });
    answer.to_string().into()
}

/// Nothing will come, though the end is not here yet.
fn says_empty(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0")
}

/// The body of a request.
struct RequestBody {
    stream: unread::Body,
    /// Whether what stands behind the data is passed on.
    takes_trailers: bool,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(data) = ready!(self.stream.poll_data(cx)) {
            return Poll::Ready(Some(data.map(Frame::data).map_err(Into::into)));
        }
        if !self.takes_trailers {
            return Poll::Ready(None);
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(trailers.transpose().map(|trailers| {
            let mut trailers = trailers?;
            extensions::strip(&mut trailers);
            Ok(Frame::trailers(trailers))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// Our side of a request's stream. Unless the answer was sent to its end, the edge is told that it is
/// broken.
struct AnswerStream {
    way: Way,
    unsent: OfStream,
    complete: bool,
    /// Why, if it is not complete.
    reason: Reason,
    /// Why, if the origin broke off.
    broken_off: Reason,
}

enum Way {
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
}

impl AnswerStream {
    /// Resolves when the edge no longer wants the answer, or the connection is gone.
    async fn cancelled(&mut self) {
        let _ = std::future::poll_fn(|cx| match &mut self.way {
            Way::Head(respond) => respond.poll_reset(cx),
            Way::Body(stream) => stream.poll_reset(cx),
        })
        .await;
    }

    fn head(&mut self, head: Response<()>, is_whole: bool) -> Result<(), Broken> {
        let Way::Head(respond) = &mut self.way else { return Ok(()) };
        let stream = respond.send_response(head, is_whole)?;
        self.way = Way::Body(stream);
        self.complete = is_whole;
        Ok(())
    }

    async fn send(
        &mut self,
        response: Response<Body>,
        takes_trailers: bool,
        flows: &Flows,
    ) -> Result<(), Broken> {
        let (head, body) = response.into_parts();
        let mut body = Gathered::new(body);
        let unread = Unread::of(&head.extensions);
        self.head(head::answer(&head), body.is_end_stream())?;
        while !self.complete {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = self.cancelled() => return Err(Broken::Cancelled),
            };
            match frame {
                None => self.write(Bytes::new(), true).await?,
                Some(Err(error)) => {
                    self.reason = self.broken_off;
                    tokio::select! {
                        () = sleep(SETTLING) => return Err(Broken::Origin(error)),
                        () = self.cancelled() => return Err(Broken::Cancelled),
                    }
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        flows.send(data.len(), &body.size_hint(), unread);
                        self.write(data, body.is_end_stream()).await?;
                        flows.down.asked();
                    }
                    Err(frame) => {
                        if let (Ok(trailers), Way::Body(stream), true) =
                            (frame.into_trailers(), &mut self.way, takes_trailers)
                        {
                            // None at all would be taken for the head of another answer by some.
                            if trailers.is_empty() {
                                stream.send_data(Bytes::new(), true)?;
                            } else {
                                stream.send_trailers(trailers)?;
                            }
                            self.complete = true;
                        }
                    }
                },
            }
        }
        Ok(())
    }

    /// `not_here`: no byte of the request reached an origin, so the edge may ask elsewhere.
    fn refuse(&mut self, not_here: bool) -> Result<(), Broken> {
        let mut head = head::refusal();
        if not_here {
            head.headers_mut().insert(extensions::NOT_HERE, HeaderValue::from_static("1"));
        }
        self.head(head, true)
    }

    /// Waits for the edge's flow control.
    async fn write(&mut self, mut bytes: Bytes, is_last: bool) -> Result<(), Broken> {
        let Way::Body(stream) = &mut self.way else { return Ok(()) };
        while bytes.has_remaining() {
            let room = std::future::poll_fn(|cx| {
                ready!(poll_written(stream, &self.unsent, cx))?;
                poll_room(stream, bytes.len(), cx)
            });
            let part = bytes.split_to(room.await?.min(bytes.len()));
            let ends = is_last && bytes.is_empty();
            self.unsent.handed(part.len());
            stream.send_data(part, ends)?;
            self.complete = ends;
        }
        if is_last && !self.complete {
            stream.send_data(Bytes::new(), true)?;
            self.complete = true;
        }
        Ok(())
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        if !self.complete {
            match &mut self.way {
                Way::Head(respond) => respond.send_reset(self.reason),
                Way::Body(stream) => stream.send_reset(self.reason),
            }
        }
    }
}

/// Until not too many small frames of the stream wait to be written. Those of one that was reset never are.
fn poll_written(
    stream: &mut SendStream<Bytes>,
    unsent: &OfStream,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Broken>> {
    if unsent.poll_room(cx).is_ready() {
        return Poll::Ready(Ok(()));
    }
    stream.poll_reset(cx).map(|_| Err(Broken::Cancelled))
}

/// How many of `wanted` bytes may be sent now, at least one.
fn poll_room(
    stream: &mut SendStream<Bytes>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Broken>> {
    stream.reserve_capacity(wanted.min(LARGEST_PIECE));
    loop {
        let room = stream.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(Broken::Stream(error))),
            None => return Poll::Ready(Err(Broken::Cancelled)),
        }
    }
}

/// Opens this side's direction of the control stream and makes plain bytes of both.
pub(super) fn control(
    body: unread::Body,
    mut respond: SendResponse<Bytes>,
) -> anyhow::Result<control::Stream> {
    let stream = respond.send_response(head::control(), false)?;
    Ok(control::Stream {
        read: Box::pin(ControlReader { body, rest: Bytes::new() }),
        write: Box::pin(ControlWriter(stream)),
    })
}

/// What the edge says on the control stream.
struct ControlReader {
    body: unread::Body,
    rest: Bytes,
}

impl AsyncRead for ControlReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.rest.has_remaining() {
            match ready!(self.body.poll_data(cx)) {
                Some(data) => self.rest = data.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// What this host says on it. Ends its direction when dropped.
struct ControlWriter(SendStream<Bytes>);

impl AsyncWrite for ControlWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = match ready!(poll_room(&mut self.0, bytes.len(), cx)) {
            Ok(room) => room.min(bytes.len()),
            Err(_) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        self.0.send_data(Bytes::copy_from_slice(&bytes[..room]), false).map_err(io::Error::other)?;
        Poll::Ready(Ok(room))
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
