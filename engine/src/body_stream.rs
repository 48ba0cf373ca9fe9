//! What a plugin does with bodies that pass by: whether it wants to see one, and the calls for its pieces and its end.
//! Does not know chains, nor where pieces come from.

use std::sync::{Arc, OnceLock};
use std::task::Context;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, StatusCode, request, response};

use crate::bindings::exports::adit::plugin::request_stream_filter::RequestStreamAction;
use crate::bindings::exports::adit::plugin::response_stream_filter::ResponseStreamAction;
use crate::bodies::{self, BodyRoom, BodySource};
use crate::body_filter;
use crate::chain::Facts;
use crate::decode::{Coding, Decoder};
use crate::edit::{self, Reply};
use crate::failure::{CallError, Failure, FailureKind};
use crate::filter::{Plugin, RequestStep, ResponseStep};
use crate::head::{self, Declared};
use crate::member::LoadedPlugin;
use crate::pool::BodyPlace;
use crate::store::{Instance, Side};

/// An instance that sees one body, from its first piece to its end.
pub struct BodyFilter {
    member: Arc<LoadedPlugin>,
    shard: usize,
    id: Box<str>,
    side: Side,
    changes: bool,
    coding: Option<Coding>,
    /// How long its message says that it is.
    length: Option<u64>,
    /// Has the instance while no call runs.
    place: BodyPlace,
    failure: BodyFailure,
}

/// Why a body broke off, if a plugin is why.
#[derive(Debug, Clone, Default)]
pub struct BodyFailure(Arc<OnceLock<Failure>>);

impl BodyFailure {
    pub fn get(&self) -> Option<&Failure> {
        self.0.get()
    }
}

/// What goes on behind a body.
#[derive(Debug, Default)]
pub(crate) struct BodyEnd {
    pub(crate) rest: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl BodyFilter {
    /// Whether it may change the body.
    pub(crate) fn changes(&self) -> bool {
        self.changes
    }

    /// What has to be undone before it sees the body.
    pub(crate) fn decoder(&self) -> Option<Decoder> {
        self.coding.map(Decoder::new)
    }

    /// How long the body is that it sees, where its message says that.
    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Where it will be found why it broke a body off.
    pub fn failure(&self) -> BodyFailure {
        self.failure.clone()
    }

    /// Room for what it gives, which is limited for all of them together.
    pub(crate) fn room(&self) -> BodyRoom {
        BodyRoom::of(self.member.engine.gathered())
    }

    /// Whether another source was given the place, so that no call follows; the task of `context` is woken if that
    /// changes.
    pub(crate) fn is_lost(&self, context: &Context<'_>) -> bool {
        self.place.is_lost(context)
    }

    /// Why nothing follows once the place is lost.
    pub(crate) fn lost(&self) -> Failure {
        self.failed(FailureKind::Busy.into())
    }

    /// Shows it the next piece: what goes on in its place.
    pub(crate) async fn piece(self, piece: Bytes) -> Result<(Self, Bytes), Failure> {
        let Some(mut instance) = self.place.take() else { return Err(self.lost()) };
        let running = self.member.engine.clock().running(self.shard);
        let answer = instance.on_piece(self.side, self.member.budget, &self.id, &piece).await;
        drop(running);
        if let Ok(Ok(_)) = &answer {
            self.place.put(instance);
        }
        match answer {
            Ok(Ok(None)) => Ok((self, piece)),
            Ok(Ok(Some(given))) if self.changes => Ok((self, given.into())),
            Ok(Ok(Some(_))) => Err(self.failed(FailureKind::invalid(CHANGES).into())),
            Ok(Err(fault)) => Err(self.failed(FailureKind::fault(&fault.code, &fault.message).into())),
            Err(trouble) => Err(self.failed(trouble)),
        }
    }

    /// Shows it the end, and lets the instance rest.
    pub(crate) async fn end(self, trailers: HeaderMap) -> Result<BodyEnd, Failure> {
        let Some(mut instance) = self.place.take() else { return Err(self.lost()) };
        let answer = {
            let mut repaired = Vec::new();
            let pairs = Declared::All.pairs(&trailers, &mut repaired);
            let _running = self.member.engine.clock().running(self.shard);
            instance.on_end(self.side, self.member.budget, &self.id, &pairs).await
        };
        let end = match answer {
            Ok(Ok(end)) => end,
            Ok(Err(fault)) => return Err(self.failed(FailureKind::fault(&fault.code, &fault.message).into())),
            Err(trouble) => return Err(self.failed(trouble)),
        };
        if !end.rest.is_empty() && !self.changes {
            return Err(self.failed(FailureKind::invalid(CHANGES).into()));
        }
        let mut trailers = trailers;
        if let Err(kind) = edit::trailers(&mut trailers, end.trailers) {
            return Err(self.failed(kind.into()));
        }
        self.member.returned();
        self.member.rest(self.shard, instance);
        Ok(BodyEnd { rest: end.rest.into(), trailers })
    }

    pub(crate) fn failed(&self, trouble: CallError) -> Failure {
        let failure = self.member.report(self.shard, &self.id, trouble);
        let _ = self.failure.0.set(failure.clone());
        failure
    }
}

const CHANGES: &str = "it gives something in place of a body that it said it would only read";

/// What a plugin said at the beginning of a body.
enum Begun {
    Untouched,
    Shown { changes: bool },
}

impl Plugin {
    /// Whether it looks at the bodies of requests as they pass.
    pub(crate) fn streams_requests(&self) -> bool {
        self.member.linked_component.phases.as_ref().is_some_and(|phases| phases.request_stream.is_some())
    }

    /// The same of answers.
    pub(crate) fn streams_responses(&self) -> bool {
        self.member.linked_component.phases.as_ref().is_some_and(|phases| phases.response_stream.is_some())
    }

    pub(crate) async fn begin_request<B: BodySource>(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut request::Parts,
        source: &mut B,
    ) -> Result<RequestStep, Failure> {
        let report = |trouble| self.member.report(shard, facts.id, trouble);
        let (place, mut instance) = self.member.stay(shard, facts).await.map_err(report)?;
        let undone = if self.decodes_requests { body_filter::undone(&head.headers, true) } else { Ok(None) };
        let coding = undone.unwrap_or_default();
        let answer = {
            let mut repaired = Vec::new();
            let mut headers = self.request_headers.pairs(&head.headers, &mut repaired);
            body_filter::hide(coding, &mut headers);
            let shown = head::of_request(facts, head, &headers);
            let _running = self.member.engine.clock().running(shard);
            instance.begin_request(self.member.budget, shown).await.map_err(report)?
        };
        self.member.returned();
        let (edits, begun) = match answer {
            Ok(RequestStreamAction::Next) => (None, Begun::Untouched),
            Ok(RequestStreamAction::Edit(edits)) => (Some(edits), Begun::Untouched),
            Ok(RequestStreamAction::Read(edits)) => (Some(edits), Begun::Shown { changes: false }),
            Ok(RequestStreamAction::Rewrite(edits)) => (Some(edits), Begun::Shown { changes: true }),
            Ok(RequestStreamAction::Respond(reply)) => {
                self.member.rest(shard, instance);
                return Ok(RequestStep::Respond(Reply::check(reply).map_err(|kind| report(kind.into()))?));
            }
            Err(fault) => {
                self.member.rest(shard, instance);
                return Err(report(FailureKind::fault(&fault.code, &fault.message).into()));
            }
        };
        if undone.is_err() && matches!(begun, Begun::Shown { .. }) {
            self.member.rest(shard, instance);
            return Ok(RequestStep::Respond(body_filter::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE)));
        }
        let step = match edits {
            None => RequestStep::Next,
            Some(edits) => {
                let carry = edit::request(head, edits, facts.scheme).map_err(|kind| report(kind.into()))?;
                RequestStep::Edited { carry }
            }
        };
        match begun {
            Begun::Untouched => self.member.rest(shard, instance),
            Begun::Shown { changes } => {
                let filter = self.filter_of(shard, facts, Side::Request, changes, coding, (place, instance));
                filter.show(&mut head.headers, source).await?;
            }
        }
        Ok(step)
    }

    /// `replaced` is the answer that another plugin has put in place of the origin's: it becomes the body.
    pub(crate) async fn begin_response<B: BodySource>(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut response::Parts,
        carry: &[u8],
        source: &mut B,
        replaced: &mut Option<Bytes>,
    ) -> Result<ResponseStep, Failure> {
        let report = |trouble| self.member.report(shard, facts.id, trouble);
        let (place, mut instance) = self.member.stay(shard, facts).await.map_err(report)?;
        let undone = if self.decodes_responses { body_filter::undone(&head.headers, true) } else { Ok(None) };
        let coding = undone.unwrap_or_default();
        let answer = {
            let mut repaired = Vec::new();
            let mut headers = self.response_headers.pairs(&head.headers, &mut repaired);
            body_filter::hide(coding, &mut headers);
            let shown = head::of_response(facts, head, &headers, carry);
            let _running = self.member.engine.clock().running(shard);
            instance.begin_response(self.member.budget, shown).await.map_err(report)?
        };
        self.member.returned();
        let (edits, begun) = match answer {
            Ok(ResponseStreamAction::Next) => (None, Begun::Untouched),
            Ok(ResponseStreamAction::Edit(edits)) => (Some(edits), Begun::Untouched),
            Ok(ResponseStreamAction::Read(edits)) => (Some(edits), Begun::Shown { changes: false }),
            Ok(ResponseStreamAction::Rewrite(edits)) => (Some(edits), Begun::Shown { changes: true }),
            Ok(ResponseStreamAction::Respond(reply)) => {
                self.member.rest(shard, instance);
                return Ok(ResponseStep::Respond(Reply::check(reply).map_err(|kind| report(kind.into()))?));
            }
            Err(fault) => {
                self.member.rest(shard, instance);
                return Err(report(FailureKind::fault(&fault.code, &fault.message).into()));
            }
        };
        if matches!(begun, Begun::Shown { changes: true }) && head.status == StatusCode::PARTIAL_CONTENT {
            self.member.rest(shard, instance);
            return Err(report(
                FailureKind::invalid("it changes the body of a part of an answer (206)").into(),
            ));
        }
        if undone.is_err() && matches!(begun, Begun::Shown { .. }) {
            self.member.rest(shard, instance);
            return Err(report(FailureKind::invalid("it cannot be shown the body of this answer").into()));
        }
        let step = match edits {
            None => ResponseStep::Next,
            Some(edits) => {
                edit::response(head, edits).map_err(|kind| report(kind.into()))?;
                ResponseStep::Edited
            }
        };
        match begun {
            Begun::Untouched => self.member.rest(shard, instance),
            Begun::Shown { changes } => {
                if let Some(body) = replaced.take() {
                    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                    source.replace(body);
                }
                let filter = self.filter_of(shard, facts, Side::Response, changes, coding, (place, instance));
                filter.show(&mut head.headers, source).await?;
            }
        }
        Ok(step)
    }

    fn filter_of(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        side: Side,
        changes: bool,
        coding: Option<Coding>,
        (place, instance): (BodyPlace, Instance),
    ) -> BodyFilter {
        place.put(instance);
        BodyFilter {
            member: self.member.clone(),
            shard,
            id: facts.id.into(),
            side,
            changes,
            coding,
            length: None,
            place,
            failure: BodyFailure::default(),
        }
    }
}

impl BodyFilter {
    /// Has it see the body. One that is not there has its end at once, before the head goes on.
    async fn show<B: BodySource>(mut self, headers: &mut HeaderMap, source: &mut B) -> Result<(), Failure> {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        self.length = length.and_then(|length| length.parse().ok());
        // Of one without bytes nobody would wait for the end.
        if !source.is_empty() && self.length != Some(0) {
            if self.changes {
                body_filter::reveal(self.coding, headers);
                bodies::rewritten(headers);
            }
            source.filter(self);
            return Ok(());
        }
        let (member, shard, id, coding) = (self.member.clone(), self.shard, self.id.clone(), self.coding);
        let BodyEnd { rest, .. } = self.end(HeaderMap::new()).await?;
        if rest.is_empty() {
            return Ok(());
        }
        if !source.may_have_one() {
            let kind = FailureKind::invalid("it gives a body to an upgrade");
            return Err(member.report(shard, &id, kind.into()));
        }
        body_filter::reveal(coding, headers);
        bodies::replaced(headers, rest.len());
        source.replace(rest);
        Ok(())
    }
}
