//! One exchange with a plugin, whichever role it has: what it hands on, what it makes of the answer that stands
//! behind it, or its own answer. Prints nothing and expects nothing.

use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use adit_engine::{
    BodyFilter, BodyRoom, BodySource, Chain, Facts, Failure, FailureKind, FilteredBody, Gathered, Link,
    MiddlewareOutcome, Plugin, RequestOutcome, ResponseOutcome, ServiceBody,
};
use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};

/// What became of a request, and of the answer to it if it was handed on.
pub(super) struct Exchange {
    pub(super) request: Onward,
    /// Of one that was handed on and answered.
    pub(super) response: Option<Answered>,
}

/// What became of a request.
pub(super) enum Onward {
    HandedOn(request::Parts, Bytes),
    Answered(Response<Bytes>),
    Failed(FailureKind),
}

/// What became of an answer.
pub(super) enum Answered {
    Passed(Response<Bytes>),
    /// The plugin took its own in place of it.
    Replaced(Response<Bytes>),
    Failed(FailureKind),
}

/// What a plugin does first with an exchange, in a word; none if it takes no part in any.
pub(super) fn role(plugin: &Plugin) -> Option<&'static str> {
    if plugin.mediates() {
        Some("middleware")
    } else if plugin.looks_at_requests() || plugin.looks_at_responses() {
        Some("filter")
    } else if plugin.serves() {
        Some("service")
    } else {
        None
    }
}

/// Has a plugin handle a request, in front of a service that answers with `behind`. One that is a filter and a service
/// is taken for the filter.
pub(super) async fn pass(
    plugin: &Arc<Plugin>,
    facts: &Facts<'_>,
    request: Request<Bytes>,
    behind: Option<&Response<Bytes>>,
) -> Result<Exchange> {
    let (mut head, body) = request.into_parts();
    let role = role(plugin);
    ensure!(
        role.is_some(),
        "it handles no requests: it exports no request-filter, no response-filter and no service"
    );
    if role == Some("service") {
        let request = Request::from_parts(head, Full::new(body));
        let answer = plugin.serve(0, facts.id, facts.scheme == "https", request).await;
        let request = match answer {
            Ok(answer) => match whole(answer).await {
                Ok(answer) => Onward::Answered(answer),
                Err(kind) => Onward::Failed(kind),
            },
            Err(failure) => Onward::Failed(failure.kind),
        };
        return Ok(Exchange { request, response: None });
    }
    let chain = Chain::new(vec![plugin.clone()]);
    let mut at_hand = AtHand::in_pieces(body, head.extensions.get());
    let progress = match chain.on_whole_request(0, facts, &mut head, &mut at_hand).await {
        RequestOutcome::Failed(failure) => {
            return Ok(Exchange { request: Onward::Failed(failure.kind), response: None });
        }
        RequestOutcome::Respond(reply, _) => {
            return Ok(Exchange { request: Onward::Answered(replied(reply)?), response: None });
        }
        RequestOutcome::Continue(progress) => progress,
    };
    let body = match at_hand.whole().await {
        Ok(body) => body,
        Err(error) => return Ok(Exchange { request: Onward::Failed(broken_by(error)?), response: None }),
    };
    let (request, answer) = match chain.link() {
        None => (Onward::HandedOn(head, body), behind.cloned()),
        Some(link) => match mediate(link, facts, Request::from_parts(head, body), behind).await? {
            (Some((head, body)), Ok(answer)) => (Onward::HandedOn(head, body), answer),
            (None, Ok(Some(answer))) => {
                return Ok(Exchange { request: Onward::Answered(answer), response: None });
            }
            (None, Ok(None)) => {
                let what = "it gave up without an answer".to_owned();
                return Ok(Exchange {
                    request: Onward::Failed(FailureKind::Invalid { what }),
                    response: None,
                });
            }
            (Some((head, body)), Err(kind)) => {
                let response = Some(Answered::Failed(kind));
                return Ok(Exchange { request: Onward::HandedOn(head, body), response });
            }
            (None, Err(kind)) => return Ok(Exchange { request: Onward::Failed(kind), response: None }),
        },
    };
    let Some(answer) = answer else { return Ok(Exchange { request, response: None }) };
    let (mut head, body) = answer.into_parts();
    let mut at_hand = AtHand::in_pieces(body, head.extensions.get());
    let response = match chain.on_whole_response(progress, 0, facts, &mut head, &mut at_hand).await {
        ResponseOutcome::Failed(failure) => Answered::Failed(failure.kind),
        ResponseOutcome::Respond(reply) => Answered::Replaced(replied(reply)?),
        ResponseOutcome::Continue => match at_hand.whole().await {
            Ok(body) => Answered::Passed(Response::from_parts(head, body)),
            Err(error) => Answered::Failed(broken_by(error)?),
        },
    };
    Ok(Exchange { request, response: Some(response) })
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body that is all there, with the plugins that see it pass.
struct AtHand(Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>);

/// How long the pieces are that a body comes in, an extension of its head; all at once where it does not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pieces(pub(super) Option<NonZeroUsize>);

impl AtHand {
    fn in_pieces(body: Bytes, pieces: Option<&Pieces>) -> Self {
        match pieces {
            Some(&Pieces(Some(length))) => Self(Box::pin(Cut { rest: body, length: length.get() })),
            Some(Pieces(None)) | None => Self::new(body),
        }
    }

    fn new(body: Bytes) -> Self {
        Self(Box::pin(Full::new(body).map_err(|never| match never {})))
    }

    async fn whole(self) -> Result<Bytes, BoxError> {
        Ok(self.0.collect().await?.to_bytes())
    }
}

impl BodySource for AtHand {
    async fn gather(&mut self, most: usize, _room: BodyRoom) -> Gathered {
        let Ok(body) = std::mem::replace(self, Self::new(Bytes::new())).whole().await else {
            return Gathered::Broken;
        };
        *self = Self::new(body.clone());
        if body.len() <= most { Gathered::Whole(body) } else { Gathered::Beyond }
    }

    fn may_have_one(&self) -> bool {
        true
    }

    fn is_empty(&self) -> bool {
        self.0.is_end_stream()
    }

    fn replace(&mut self, body: Bytes) {
        *self = Self::new(body);
    }

    fn filter(&mut self, filter: BodyFilter) {
        let Self(body) = std::mem::replace(self, Self::new(Bytes::new()));
        self.0 = Box::pin(FilteredBody::new(body, filter));
    }
}

/// A body that comes in pieces of one length.
struct Cut {
    rest: Bytes,
    length: usize,
}

impl Body for Cut {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let length = self.length.min(self.rest.len());
        let piece = self.rest.split_to(length);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// How the plugin failed that broke a body off.
fn broken_by(error: BoxError) -> Result<FailureKind> {
    match error.downcast::<Failure>() {
        Ok(failure) => Ok(failure.kind),
        Err(error) => Err(anyhow!("a body broke off: {error}")),
    }
}

/// What middleware handed on first, and its answer.
async fn mediate(
    link: &Link,
    facts: &Facts<'_>,
    request: Request<Bytes>,
    behind: Option<&Response<Bytes>>,
) -> Result<(Option<(request::Parts, Bytes)>, Result<Option<Response<Bytes>>, FailureKind>)> {
    let is_secure = facts.scheme == "https";
    let (mediation, mut onwards) = link.middleware.mediate(0, facts.id, is_secure, request.map(Full::new));
    let answering = async {
        match mediation.await {
            Ok(MiddlewareOutcome::Response(response)) => whole(response).await.map(Some),
            Ok(MiddlewareOutcome::Unreachable) => Ok(None),
            Err(failure) => Err(failure.kind),
        }
    };
    let mut answering = pin!(answering);
    let mut first = None;
    let answer = loop {
        let onward = tokio::select! {
            biased;
            answer = &mut answering => break answer,
            Some(onward) = onwards.recv() => onward,
        };
        let (handed_on, responder) = onward.split();
        let (head, mut body) = handed_on.into_parts();
        match behind {
            Some(behind) => responder.answer(behind.clone().map(Full::new)),
            None => drop(responder),
        }
        // Its body may come with what it reads of the answer, and the answer with what is read of the body.
        let mut gathered = Vec::new();
        let mut answer = None;
        loop {
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                ended = &mut answering, if answer.is_none() => {
                    answer = Some(ended);
                    continue;
                }
            };
            match frame {
                Some(Ok(frame)) => gathered.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Some(Err(_)) | None => break,
            }
        }
        first.get_or_insert((head, Bytes::from(gathered)));
        if let Some(answer) = answer {
            break answer;
        }
    };
    Ok((first, answer))
}

/// An answer with its body; how the plugin failed if that breaks off.
async fn whole(answer: Response<ServiceBody>) -> Result<Response<Bytes>, FailureKind> {
    let (head, body) = answer.into_parts();
    match body.collect().await {
        Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
        Err(error) => Err(FailureKind::Invalid { what: format!("its answer broke off: {error}") }),
    }
}

fn replied(reply: adit_engine::Reply) -> Result<Response<Bytes>> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = StatusCode::from_u16(reply.status)?;
    *response.headers_mut() = reply.headers;
    Ok(response)
}
