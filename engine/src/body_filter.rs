//! What a plugin does with whole bodies: when it is shown one, and what becomes of a message whose body it cannot be
//! shown. Does not know chains.

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue, StatusCode, request, response};

use crate::bindings::exports::adit::plugin::request_body_filter::RequestBodyAction;
use crate::bindings::exports::adit::plugin::response_body_filter::ResponseBodyAction;
use crate::bodies::{self, BodyLimits, BodyRoom, BodySource, Gathered};
use crate::chain::Facts;
use crate::decode::{Coded, Coding, Decoder};
use crate::edit::{self, Reply};
use crate::failure::{CallError, Failure, FailureKind};
use crate::filter::{Plugin, RequestStep, ResponseStep};
use crate::head;

impl Plugin {
    /// What it wants to see of the bodies of requests, if anything.
    pub(crate) fn request_bodies(&self) -> Option<BodyLimits> {
        self.request_bodies
    }

    /// The same of answers.
    pub(crate) fn response_bodies(&self) -> Option<BodyLimits> {
        self.response_bodies
    }

    pub(crate) async fn on_request_body<B: BodySource>(
        &self,
        limits: BodyLimits,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut request::Parts,
        source: &mut B,
    ) -> Result<RequestStep, Failure> {
        let coding = undone(&head.headers, self.decodes_requests);
        let refused = match coding {
            Err(NotUndone) => Some(StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Ok(_) if bodies::is_endless(&head.headers) => Some(StatusCode::PAYLOAD_TOO_LARGE),
            Ok(_) => None,
        };
        let gathered = match refused {
            Some(_) => Gathered::Beyond,
            None => source.gather(limits.most, self.room()).await,
        };
        let coding = coding.unwrap_or_default();
        let mut room = self.room();
        let gathered = self.undo(coding, gathered, limits, &mut room).await;
        let body = match gathered {
            Gathered::Whole(body) => body,
            Gathered::Beyond if limits.passes => return Ok(RequestStep::Next),
            Gathered::Beyond => {
                return Ok(RequestStep::Respond(refusal(refused.unwrap_or(StatusCode::PAYLOAD_TOO_LARGE))));
            }
            Gathered::Broken => return Ok(RequestStep::Respond(refusal(StatusCode::BAD_REQUEST))),
            Gathered::Slow => return Ok(RequestStep::Respond(refusal(StatusCode::REQUEST_TIMEOUT))),
            Gathered::NoRoom => return Err(self.member.report(shard, facts.id, FailureKind::Busy.into())),
        };
        let step = self.ask_request_body(shard, facts, head, coding, &body, source).await;
        step.map_err(|trouble| self.member.report(shard, facts.id, trouble))
    }

    async fn ask_request_body<B: BodySource>(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut request::Parts,
        coding: Option<Coding>,
        body: &Bytes,
        source: &mut B,
    ) -> Result<RequestStep, CallError> {
        let (_place, mut instance) = self.member.enter(shard, facts).await?;
        let answer = {
            let mut repaired = Vec::new();
            let mut headers = self.request_headers.pairs(&head.headers, &mut repaired);
            hide(coding, &mut headers);
            let shown = head::of_request(facts, head, &headers);
            let _running = self.member.engine.clock().running(shard);
            instance.on_request_body(self.member.budget, shown, body).await?
        };
        self.member.returned();
        self.member.rest(shard, instance);
        match answer {
            Ok(RequestBodyAction::Next) => Ok(RequestStep::Next),
            Ok(RequestBodyAction::Edit(edits)) => {
                if edits.body.is_some() && !source.may_have_one() {
                    return Err(FailureKind::invalid("it gives a body to an upgrade").into());
                }
                let carry = edit::request(head, edits.head, facts.scheme)?;
                if let Some(body) = edits.body {
                    reveal(coding, &mut head.headers);
                    bodies::replaced(&mut head.headers, body.len());
                    source.replace(body.into());
                }
                Ok(RequestStep::Edited { carry })
            }
            Ok(RequestBodyAction::Respond(reply)) => Ok(RequestStep::Respond(Reply::check(reply)?)),
            Err(fault) => Err(FailureKind::fault(&fault.code, &fault.message).into()),
        }
    }

    /// `replaced` is the answer that another plugin has put in place of the origin's.
    #[expect(clippy::too_many_arguments, reason = "two of them are the body")]
    pub(crate) async fn on_response_body<B: BodySource>(
        &self,
        limits: BodyLimits,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut response::Parts,
        carry: &[u8],
        source: &mut B,
        replaced: &mut Option<Bytes>,
    ) -> Result<ResponseStep, Failure> {
        let failed = |kind: FailureKind| self.member.report(shard, facts.id, kind.into());
        let coding = undone(&head.headers, self.decodes_responses);
        let is_shown = coding.is_ok()
            && !bodies::is_endless(&head.headers)
            && head.status != StatusCode::PARTIAL_CONTENT;
        let gathered = match &*replaced {
            Some(body) if body.len() <= limits.most && is_shown => Gathered::Whole(body.clone()),
            Some(_) => Gathered::Beyond,
            None if is_shown => source.gather(limits.most, self.room()).await,
            None => Gathered::Beyond,
        };
        let coding = coding.unwrap_or_default();
        let mut room = self.room();
        let gathered = self.undo(coding, gathered, limits, &mut room).await;
        let body = match gathered {
            Gathered::Whole(body) => body,
            Gathered::Beyond if limits.passes => return Ok(ResponseStep::Next),
            Gathered::Beyond => {
                return Err(failed(FailureKind::invalid("it cannot be shown the body of this answer")));
            }
            Gathered::Broken => return Err(failed(FailureKind::invalid("the body of the answer broke off"))),
            Gathered::Slow => return Err(failed(FailureKind::Timeout)),
            Gathered::NoRoom => return Err(failed(FailureKind::Busy)),
        };
        let (step, body) = match self.ask_response_body(shard, facts, head, carry, coding, &body).await {
            Ok(answer) => answer,
            Err(trouble) => return Err(self.member.report(shard, facts.id, trouble)),
        };
        if let Some(body) = body {
            reveal(coding, &mut head.headers);
            bodies::replaced(&mut head.headers, body.len());
            match replaced {
                Some(replaced) => *replaced = body,
                None => source.replace(body),
            }
        }
        Ok(step)
    }

    async fn ask_response_body(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut response::Parts,
        carry: &[u8],
        coding: Option<Coding>,
        body: &Bytes,
    ) -> Result<(ResponseStep, Option<Bytes>), CallError> {
        let (_place, mut instance) = self.member.enter(shard, facts).await?;
        let answer = {
            let mut repaired = Vec::new();
            let mut headers = self.response_headers.pairs(&head.headers, &mut repaired);
            hide(coding, &mut headers);
            let shown = head::of_response(facts, head, &headers, carry);
            let _running = self.member.engine.clock().running(shard);
            instance.on_response_body(self.member.budget, shown, body).await?
        };
        self.member.returned();
        self.member.rest(shard, instance);
        match answer {
            Ok(ResponseBodyAction::Next) => Ok((ResponseStep::Next, None)),
            Ok(ResponseBodyAction::Edit(edits)) => {
                edit::response(head, edits.head)?;
                Ok((ResponseStep::Edited, edits.body.map(Bytes::from)))
            }
            Ok(ResponseBodyAction::Respond(reply)) => Ok((ResponseStep::Respond(Reply::check(reply)?), None)),
            Err(fault) => Err(FailureKind::fault(&fault.code, &fault.message).into()),
        }
    }

    /// What it becomes takes `room`, as long as the plugin has it.
    async fn undo(
        &self,
        coding: Option<Coding>,
        gathered: Gathered,
        limits: BodyLimits,
        room: &mut BodyRoom,
    ) -> Gathered {
        match (coding, gathered) {
            (Some(coding), Gathered::Whole(body)) => decoded(coding, body, limits.most, room).await,
            (_, gathered) => gathered,
        }
    }

    fn room(&self) -> BodyRoom {
        BodyRoom::of(self.member.engine.gathered())
    }
}

/// Undoes a body that has come whole, if it has at most `most` bytes then. Others have their turns meanwhile.
async fn decoded(coding: Coding, body: Bytes, most: usize, room: &mut BodyRoom) -> Gathered {
    let mut decoder = Decoder::new(coding);
    let mut whole = BytesMut::new();
    let mut steps = 0_u32;
    decoder.push(body);
    loop {
        let step = match decoder.step() {
            Ok(Some(step)) => step,
            Ok(None) => break,
            Err(_) => return Gathered::Broken,
        };
        if whole.len() + step.len() > most {
            return Gathered::Beyond;
        }
        if !room.grow(step.len()) {
            return Gathered::NoRoom;
        }
        whole.extend_from_slice(&step);
        steps += 1;
        // What becomes nothing is work all the same.
        if step.is_empty() || steps.is_multiple_of(STEPS) {
            tokio::task::yield_now().await;
        }
    }
    match decoder.finish() {
        Ok(rest) if whole.len() + rest.len() <= most => {
            whole.extend_from_slice(&rest);
            Gathered::Whole(whole.freeze())
        }
        Ok(_) => Gathered::Beyond,
        Err(_) => Gathered::Broken,
    }
}

/// A body in a coding that is not undone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotUndone;

/// The coding that is undone for a plugin that wants it, if there is one.
pub(crate) fn undone(headers: &HeaderMap, decodes: bool) -> Result<Option<Coding>, NotUndone> {
    match Coded::of(headers) {
        Coded::Plain => Ok(None),
        Coded::Known(coding) if decodes => Ok(Some(coding)),
        Coded::Known(_) | Coded::Unknown => Err(NotUndone),
    }
}

/// A plugin is not shown the name of a coding that was undone for it.
pub(crate) fn hide(coding: Option<Coding>, headers: &mut Vec<(&str, &str)>) {
    if coding.is_some() {
        headers.retain(|(name, _)| *name != CONTENT_ENCODING.as_str());
    }
}

/// What a plugin made of a body whose coding was undone has none.
pub(crate) fn reveal(coding: Option<Coding>, headers: &mut HeaderMap) {
    if coding.is_some() {
        headers.remove(CONTENT_ENCODING);
    }
}

/// The answer for a request whose body a plugin must see and cannot.
pub(crate) fn refusal(status: StatusCode) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        headers.insert("accept-encoding", HeaderValue::from_static("identity"));
    }
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    Reply { status: status.as_u16(), headers, body: text.into() }
}

/// Steps of a decoder between two turns of others.
const STEPS: u32 = 32;
