//! Requests to a plugin that is a service. Bodies of a shard stay on its thread, and those of a guest
//! may travel: this joins the two.

use std::pin::Pin;
use std::task::{Context, Poll};

use adit_engine::{Facts, Failure, Plugin, ServiceBody};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use tokio_util::task::AbortOnDropHandle;

use super::Kind;
use crate::origin::{Body, BoxError, empty};

/// Pieces of a body that wait for the guest.
const WAITING: usize = 1;

/// A body that may leave the thread of its shard.
pub(crate) type Sendable = UnsyncBoxBody<Bytes, BoxError>;

/// Has the plugin answer. May be dropped midway, which ends the guest.
pub(crate) async fn send(
    plugin: &Plugin,
    shard: usize,
    facts: &Facts<'_>,
    kind: Kind,
    head: request::Parts,
    body: Body,
) -> Result<Response<Body>, Failure> {
    let is_head = head.method == Method::HEAD;
    let request = incoming(kind, head, body);
    let response = plugin.serve(shard, facts.id, facts.scheme == "https", request).await?;
    Ok(outgoing(is_head, response))
}

/// A request as a guest is given it.
pub(crate) fn incoming(kind: Kind, mut head: request::Parts, body: Body) -> Request<Sendable> {
    // Nothing in wasi:http upgrades: the guest sees a plain request, and what the visitor would send after
    // the handshake is none of its business.
    if kind == Kind::WebSocket {
        return Request::from_parts(head, nothing());
    }
    if let (Some(length), false, false) =
        (body.size_hint().exact(), body.is_end_stream(), head.headers.contains_key(header::CONTENT_LENGTH))
    {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Request::from_parts(head, sendable(body))
}

/// A guest's answer as a visitor is given it. `is_head` says whether the request's method was HEAD.
pub(crate) fn outgoing(is_head: bool, response: Response<ServiceBody>) -> Response<Body> {
    let bodiless = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    response.map(|body| if is_head || bodiless { empty() } else { Box::pin(body) as Body })
}

/// A body that can be read on any thread, and is read on this one meanwhile. It ends with its reader.
pub(crate) fn sendable(body: Body) -> Sendable {
    if body.is_end_stream() {
        return nothing();
    }
    let (sender, channel) = Channel::<Bytes, BoxError>::new(WAITING);
    let pump = AbortOnDropHandle::new(tokio::task::spawn_local(feed(body, sender)));
    SendBody { channel, _pump: pump }.boxed_unsync()
}

fn nothing() -> Sendable {
    Empty::new().map_err(BoxError::from).boxed_unsync()
}

/// Hands a body to the guest as fast as it takes it; ends when it takes no more.
async fn feed(mut body: Body, mut sender: Sender<Bytes, BoxError>) {
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // What breaks off must not look complete.
                sender.abort(error);
                return;
            }
        }
    }
}

/// A body on its way to a guest, with the task that feeds it.
struct SendBody {
    channel: Channel<Bytes, BoxError>,
    _pump: AbortOnDropHandle<()>,
}

impl HttpBody for SendBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.channel).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.channel.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.channel.size_hint()
    }
}
