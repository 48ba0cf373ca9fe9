//! Requests to a plugin that is a service. Bodies of a shard stay on its thread, and those of a guest
//! may travel: this joins the two.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Empty};
use tokio_util::task::AbortOnDropHandle;

use super::Kind;
use crate::origin::{Body, BoxError, empty};
use crate::plugin::{Facts, Failure, Plugin, ServiceBody};

/// Pieces of a request's body that wait for the guest.
const WAITING: usize = 1;

/// Has the plugin answer. May be dropped midway, which ends the guest.
pub(super) async fn send(
    plugin: &Plugin,
    shard: usize,
    facts: &Facts<'_>,
    kind: Kind,
    mut head: request::Parts,
    body: Body,
) -> Result<Response<Body>, Failure> {
    // Nothing in wasi:http 0.2 upgrades: the guest sees a plain request, and what the visitor would
    // send after the handshake is none of its business.
    let (body, pump) = match kind {
        Kind::WebSocket => (Empty::new().map_err(BoxError::from).boxed_unsync(), None),
        Kind::Http if body.is_end_stream() => (Empty::new().map_err(BoxError::from).boxed_unsync(), None),
        Kind::Http => {
            if let (Some(length), false) =
                (body.size_hint().exact(), head.headers.contains_key(header::CONTENT_LENGTH))
            {
                head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            let (sender, channel) = Channel::<Bytes, BoxError>::new(WAITING);
            let pump = AbortOnDropHandle::new(tokio::task::spawn_local(feed(body, sender)));
            (channel.boxed_unsync(), Some(pump))
        }
    };
    let head_only = head.method == Method::HEAD;
    let request = Request::from_parts(head, body);
    let response = plugin.serve(shard, facts.id, facts.scheme == "https", request).await?;
    let bodiless = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(response.map(|body| {
        if head_only || bodiless { empty() } else { Box::pin(Joined { body, _pump: pump }) as Body }
    }))
}

/// Hands a request's body to the guest as fast as it takes it; ends when it takes no more.
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

/// A guest's answer, with the task that feeds the guest.
struct Joined {
    body: ServiceBody,
    _pump: Option<AbortOnDropHandle<()>>,
}

impl HttpBody for Joined {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
