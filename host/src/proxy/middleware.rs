//! An exchange that passes through middleware: the guest gets the request, and each time it hands one on,
//! the rest of the chain and the service answer it.

use std::pin::pin;

use adit_engine::{Facts, Link, MiddlewareOutcome};
use adit_protocol::extensions::Instead;
use http::{Method, Response};

use super::respond::{Answer, RequestContext};
use super::{Kind, Proxy, Request, remove_hop_by_hop, since};
use crate::generation::Rule;
use crate::origin::Body;
use crate::proxy::request_log::{Plugins, RequestLog};
use crate::proxy::service::{incoming, outgoing, sendable};

/// The answer of the middleware, or how the exchange ends without one.
///
/// What it hands on is answered one at a time, until its own answer begins. May be dropped midway, which
/// ends the guest and what is asked for it.
pub(super) async fn pass(
    proxy: &Proxy,
    rule: &Rule,
    link: &Link,
    facts: &Facts<'_>,
    asked: &RequestContext,
    request: Request,
    note: &mut RequestLog,
) -> Result<Response<Body>, Answer> {
    let Link { middleware, rest } = link;
    let Request { kind, head, body, takes_trailers } = request;
    let is_head = head.method == Method::HEAD;
    let (begun, before) = (note.clock(), note.origin_time + note.plugin_time);
    let request = incoming(kind, head, body);
    let (mediation, mut onwards) =
        middleware.mediate(proxy.shard, facts.id, facts.scheme == "https", request);
    let mut mediation = pin!(mediation);
    let (mut is_passed, mut unreachable) = (false, None);
    // Who has answered what it handed on last; nobody where it has handed nothing on.
    let mut instead = Some(Instead::Host);
    let outcome = loop {
        let onward = tokio::select! {
            biased;
            outcome = &mut mediation => break outcome,
            Some(onward) = onwards.recv() => onward,
        };
        is_passed = true;
        let (handed_on, answering) = onward.split();
        let (mut head, body) = handed_on.into_parts();
        remove_hop_by_hop(&mut head.headers);
        let handed_on = Request { kind: Kind::Http, head, body: Box::pin(body), takes_trailers };
        // Boxed: behind it may be another.
        let behind = Box::pin(proxy.pass(rule, rest, facts, asked, handed_on, note));
        let answer = tokio::select! {
            biased;
            outcome = &mut mediation => break outcome,
            answer = behind => answer,
        };
        match answer {
            Answer::Response(response) => {
                instead = response.extensions().get().copied();
                answering.answer(response.map(sendable));
            }
            // Its call is answered by nobody, and if it gives up then, so do we.
            nobody @ Answer::Unreachable { .. } => unreachable = Some(nobody),
        }
    };
    let others = (note.origin_time + note.plugin_time).saturating_sub(before);
    let took = since(begun).saturating_sub(others);
    note.plugin_time += took;
    if let (Some(stopwatch), Some(begun)) = (facts.stopwatch, begun) {
        stopwatch.lap(middleware.name(), begun, took);
    }
    match (outcome, unreachable) {
        (Ok(MiddlewareOutcome::Response(response)), _) => {
            if !is_passed {
                note.plugins = Plugins::Answered;
            }
            let mut response = outgoing(is_head, response);
            if let Some(instead) = instead {
                response.extensions_mut().insert(instead);
            }
            Ok(response)
        }
        (Ok(MiddlewareOutcome::Unreachable), unreachable) => Err(unreachable.unwrap_or_else(|| {
            let reason = "middleware was not answered".to_owned();
            Answer::Unreachable { reason, not_here: false }
        })),
        (Err(failure), _) => {
            note.plugins = Plugins::Failed(failure.plugin.clone());
            Err(asked.refuse(failure.into()))
        }
    }
}
