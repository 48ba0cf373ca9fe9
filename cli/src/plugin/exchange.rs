//! One exchange with a plugin, whichever role it has: what it hands on, what it makes of the answer that stands
//! behind it, or its own answer. Prints nothing and expects nothing.

use std::pin::pin;
use std::sync::Arc;

use adit_engine::{
    BodyRoom, BodySource, Chain, Facts, FailureKind, Gathered, Link, MiddlewareOutcome, Plugin,
    RequestOutcome, ResponseOutcome, ServiceBody,
};
use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use http::{Request, Response, StatusCode, request};
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
            Ok(answer) => Onward::Answered(whole(answer).await?),
            Err(failure) => Onward::Failed(failure.kind),
        };
        return Ok(Exchange { request, response: None });
    }
    let chain = Chain::new(vec![plugin.clone()]);
    let mut at_hand = AtHand(body);
    let progress = match chain.on_whole_request(0, facts, &mut head, &mut at_hand).await {
        RequestOutcome::Failed(failure) => {
            return Ok(Exchange { request: Onward::Failed(failure.kind), response: None });
        }
        RequestOutcome::Respond(reply, _) => {
            return Ok(Exchange { request: Onward::Answered(replied(reply)?), response: None });
        }
        RequestOutcome::Continue(progress) => progress,
    };
    let AtHand(body) = at_hand;
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
    let mut at_hand = AtHand(body);
    let response = match chain.on_whole_response(progress, 0, facts, &mut head, &mut at_hand).await {
        ResponseOutcome::Failed(failure) => Answered::Failed(failure.kind),
        ResponseOutcome::Respond(reply) => Answered::Replaced(replied(reply)?),
        ResponseOutcome::Continue => Answered::Passed(Response::from_parts(head, at_hand.0)),
    };
    Ok(Exchange { request, response: Some(response) })
}

/// A body that need not be gathered.
struct AtHand(Bytes);

impl BodySource for AtHand {
    async fn gather(&mut self, most: usize, _room: BodyRoom) -> Gathered {
        if self.0.len() <= most { Gathered::Whole(self.0.clone()) } else { Gathered::Beyond }
    }

    fn may_have_one(&self) -> bool {
        true
    }

    fn replace(&mut self, body: Bytes) {
        self.0 = body;
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
            Ok(MiddlewareOutcome::Response(response)) => whole(response).await.map(|answer| Ok(Some(answer))),
            Ok(MiddlewareOutcome::Unreachable) => Ok(Ok(None)),
            Err(failure) => Ok(Err(failure.kind)),
        }
    };
    let mut answering = pin!(answering);
    let mut first = None;
    let answer = loop {
        let onward = tokio::select! {
            biased;
            answer = &mut answering => break answer?,
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
                    answer = Some(ended?);
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

async fn whole(answer: Response<ServiceBody>) -> Result<Response<Bytes>> {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| anyhow!("its answer broke off: {error}"))?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

fn replied(reply: adit_engine::Reply) -> Result<Response<Bytes>> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = StatusCode::from_u16(reply.status)?;
    *response.headers_mut() = reply.headers;
    Ok(response)
}
