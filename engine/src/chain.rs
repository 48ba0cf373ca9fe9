//! The plugins of a rule in their order: in for the request, back out for the response. Middleware ends a
//! chain, and what comes after it is a chain of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use adit_net::network::source;
use adit_rules::plan::OnError;
use http::{HeaderMap, Method, StatusCode, request, response};

use super::edit::Reply;
use super::failure::Failure;
use crate::background::Served;
use crate::bodies::{self, BodySource, NoBody};
use crate::exchange::Exchange;
use crate::filter::{Plugin, RequestStep, ResponseStep};
use crate::stopwatch::Stopwatch;

/// What is known about a request besides its head.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Names the request in every log.
    pub id: &'a str,
    /// The visitor's address; empty if unknown.
    pub client_ip: &'a str,
    /// "http" or "https".
    pub scheme: &'a str,
    /// Somebody wants to know how long each plugin takes.
    pub stopwatch: Option<&'a Stopwatch>,
    /// What else is known, of a chain that [asks for it](Chain::sees_exchanges).
    pub exchange: Option<&'a Arc<Exchange>>,
}

impl Facts<'_> {
    /// What counts as one visitor.
    pub(crate) fn source(&self) -> IpAddr {
        self.client_ip.parse().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), source)
    }

    fn clock(&self) -> Option<(&Stopwatch, Instant)> {
        self.stopwatch.map(|stopwatch| (stopwatch, Instant::now()))
    }
}

fn lap(clock: Option<(&Stopwatch, Instant)>, plugin: &Plugin) {
    if let Some((stopwatch, begun)) = clock {
        stopwatch.lap(plugin.name(), begun, begun.elapsed());
    }
}

/// Plugins in the order in which they see a request.
#[derive(Debug, Default)]
pub struct Chain {
    plugins: Vec<Arc<Plugin>>,
    observers: Option<Observers>,
    link: Option<Box<Link>>,
    /// Whether one of its filters looks at bodies of requests, and at those of answers.
    gathers_requests: bool,
    gathers_responses: bool,
    /// Whether one of its filters, or of those behind a link, asks what is known of an exchange.
    sees_exchanges: bool,
}

/// Where a chain of filters ends in a plugin through which the whole exchange passes.
#[derive(Debug)]
pub struct Link {
    pub middleware: Arc<Plugin>,
    /// What comes after it.
    pub rest: Chain,
}

/// The plugins of a chain that want to know what was served.
#[derive(Debug, Clone)]
pub struct Observers(Arc<[Arc<Plugin>]>);

impl Observers {
    /// Tells them; they are called later, in batches.
    pub fn tell(&self, shard: usize, served: Served) {
        let Some((last, others)) = self.0.split_last() else { return };
        for plugin in others {
            plugin.observe(shard, served.clone());
        }
        last.observe(shard, served);
    }
}

/// How far a request went in, and what each plugin left for its own response phase.
#[derive(Debug, Default)]
pub struct ChainProgress {
    /// The response phases of the plugins before this index run.
    entered: usize,
    /// By index, ascending; only plugins that left anything.
    left: Vec<(usize, Left)>,
    /// Whether only the head of an answer is asked for.
    is_head: bool,
}

#[derive(Debug)]
enum Left {
    Carry(Vec<u8>),
    /// It failed and was skipped: it does not see the response either, since it could not have
    /// prepared for it.
    Skipped,
}

/// What a plugin is called for, in this order.
#[derive(Clone, Copy)]
enum Phase {
    Head,
    Body,
    Stream,
}

const PHASES: [Phase; 3] = [Phase::Head, Phase::Body, Phase::Stream];

/// What becomes of a request.
#[derive(Debug)]
pub enum RequestOutcome {
    Continue(ChainProgress),
    /// A plugin answers. The answer still goes through [`Chain::on_response`] with the progress,
    /// for the plugins before that one.
    Respond(Reply, ChainProgress),
    Failed(Failure),
}

/// What becomes of a response.
#[derive(Debug)]
pub enum ResponseOutcome {
    Continue,
    /// Drop the response and its body and answer with this. It is complete: all phases have run.
    Respond(Reply),
    Failed(Failure),
}

impl Chain {
    pub fn new(plugins: Vec<Arc<Plugin>>) -> Self {
        let observers: Arc<[_]> = plugins.iter().filter(|plugin| plugin.logs()).cloned().collect();
        let observers = (!observers.is_empty()).then(|| Observers(observers));
        Self { observers, ..Self::linked(plugins) }
    }

    fn linked(mut plugins: Vec<Arc<Plugin>>) -> Self {
        let link = plugins.iter().position(|plugin| plugin.mediates()).map(|at| {
            let rest = plugins.split_off(at + 1);
            let middleware = plugins[at].clone();
            // One that has phases too is a filter in front of itself.
            if !middleware.filters() {
                plugins.truncate(at);
            }
            Box::new(Link { middleware, rest: Self::linked(rest) })
        });
        let gathers_requests =
            plugins.iter().any(|plugin| plugin.request_bodies().is_some() || plugin.streams_requests());
        let gathers_responses =
            plugins.iter().any(|plugin| plugin.response_bodies().is_some() || plugin.streams_responses());
        let sees_exchanges = plugins.iter().any(|plugin| plugin.sees_exchanges())
            || link.as_ref().is_some_and(|link| link.rest.sees_exchanges);
        Self { plugins, observers: None, link, gathers_requests, gathers_responses, sees_exchanges }
    }

    /// Whether [`Self::on_whole_request`] would look at the body, up to where it ends or a [`Link`] begins.
    pub fn gathers_requests(&self) -> bool {
        self.gathers_requests
    }

    /// The same of [`Self::on_whole_response`].
    pub fn gathers_responses(&self) -> bool {
        self.gathers_responses
    }

    /// Whether [`Facts::exchange`] is of use to it.
    pub fn sees_exchanges(&self) -> bool {
        self.sees_exchanges
    }

    /// What follows its filters, if that is not the service itself.
    pub fn link(&self) -> Option<&Link> {
        self.link.as_deref()
    }

    /// Who wants to know what was served; usually nobody.
    pub fn observers(&self) -> Option<&Observers> {
        self.observers.as_ref()
    }

    pub fn is_empty(&self) -> bool {
        self.plugins.is_empty() && self.link.is_none()
    }

    /// The plugins' names, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.plugins.iter().map(|plugin| plugin.name()).collect();
        if let Some(Link { middleware, rest }) = self.link() {
            if names.last() != Some(&middleware.name()) {
                names.push(middleware.name());
            }
            names.extend(rest.names());
        }
        names
    }

    /// Runs the request phases in order and applies their edits to `head`. `shard` is the index
    /// of the calling thread's shard.
    ///
    /// A plugin that fails ends the request, or is skipped as if it had answered `next`, as its
    /// policy says. May be dropped midway; an instance that is in a call is then dropped as well.
    pub async fn on_request(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut request::Parts,
    ) -> RequestOutcome {
        self.on_whole_request(shard, facts, head, &mut NoBody).await
    }

    /// The same with the body, for filters that look at it.
    pub async fn on_whole_request<B: BodySource>(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut request::Parts,
        body: &mut B,
    ) -> RequestOutcome {
        let mut left = Vec::new();
        'plugins: for (index, plugin) in self.plugins.iter().enumerate() {
            for phase in PHASES {
                let clock = facts.clock();
                let step = match (phase, plugin.request_bodies()) {
                    (Phase::Head, _) if plugin.filters_requests() => {
                        plugin.on_request(shard, facts, head).await
                    }
                    (Phase::Head, _) | (Phase::Body, None) => continue,
                    // Boxed: most chains have no such plugin.
                    (Phase::Body, Some(limits)) => {
                        Box::pin(plugin.on_request_body(limits, shard, facts, head, body)).await
                    }
                    (Phase::Stream, _) if plugin.streams_requests() => {
                        Box::pin(plugin.begin_request(shard, facts, head, body)).await
                    }
                    (Phase::Stream, _) => continue,
                };
                lap(clock, plugin);
                match step {
                    Ok(RequestStep::Next) => {}
                    Ok(RequestStep::Edited { carry }) if carry.is_empty() => {}
                    Ok(RequestStep::Edited { carry }) => {
                        left.pop_if(|(of, _)| *of == index);
                        left.push((index, Left::Carry(carry)));
                    }
                    Ok(RequestStep::Respond(reply)) => {
                        if let Some(exchange) = facts.exchange {
                            exchange.sent(head);
                            exchange.answered(plugin.name());
                        }
                        let is_head = head.method == Method::HEAD;
                        return RequestOutcome::Respond(
                            reply,
                            ChainProgress { entered: index, left, is_head },
                        );
                    }
                    Err(failure) => match plugin.on_failure(&failure.kind) {
                        OnError::Deny => return RequestOutcome::Failed(failure),
                        OnError::Skip => {
                            left.pop_if(|(of, _)| *of == index);
                            left.push((index, Left::Skipped));
                            continue 'plugins;
                        }
                    },
                }
            }
        }
        if let Some(exchange) = facts.exchange {
            exchange.sent(head);
        }
        if self.gathers_responses {
            bodies::ask_for_all(&mut head.headers);
        }
        let is_head = head.method == Method::HEAD;
        RequestOutcome::Continue(ChainProgress { entered: self.plugins.len(), left, is_head })
    }

    /// Runs the response phases in reverse order, for the plugins that the request went through,
    /// and applies their edits to `head`. A plugin's reply takes the place of the response for
    /// those that follow; where this is the end of it, `head` is of no use any more.
    ///
    /// May be dropped midway, as [`Self::on_request`].
    pub async fn on_response(
        &self,
        progress: ChainProgress,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut response::Parts,
    ) -> ResponseOutcome {
        self.on_whole_response(progress, shard, facts, head, &mut NoBody).await
    }

    /// The same with the body, for filters that look at it.
    pub async fn on_whole_response<B: BodySource>(
        &self,
        progress: ChainProgress,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut response::Parts,
        source: &mut B,
    ) -> ResponseOutcome {
        let ChainProgress { entered, mut left, is_head } = progress;
        let mut body = None;
        for (index, plugin) in self.plugins.iter().enumerate().take(entered).rev() {
            let carry = match left.pop_if(|(of, _)| *of == index) {
                None => Vec::new(),
                Some((_, Left::Carry(carry))) => carry,
                Some((_, Left::Skipped)) => continue,
            };
            for phase in PHASES {
                let clock = facts.clock();
                let step = match (phase, plugin.response_bodies()) {
                    (Phase::Head, _) if plugin.filters_responses() => {
                        plugin.on_response(shard, facts, head, &carry).await
                    }
                    (Phase::Head, _) | (Phase::Body, None) => continue,
                    (Phase::Body, Some(_)) if !bodies::has_body(is_head, head.status) => {
                        if is_head {
                            bodies::forget_length(head);
                        }
                        continue;
                    }
                    // Boxed: most chains have no such plugin.
                    (Phase::Body, Some(limits)) => {
                        let call =
                            plugin.on_response_body(limits, shard, facts, head, &carry, source, &mut body);
                        Box::pin(call).await
                    }
                    (Phase::Stream, _) if !plugin.streams_responses() => continue,
                    (Phase::Stream, _) if !bodies::has_body(is_head, head.status) => {
                        if is_head {
                            bodies::forget_length(head);
                        }
                        continue;
                    }
                    (Phase::Stream, _) => {
                        let call = plugin.begin_response(shard, facts, head, &carry, source, &mut body);
                        Box::pin(call).await
                    }
                };
                lap(clock, plugin);
                match step {
                    Ok(ResponseStep::Next | ResponseStep::Edited) => {}
                    Ok(ResponseStep::Respond(reply)) => {
                        if let Some(exchange) = facts.exchange {
                            exchange.answered(plugin.name());
                        }
                        head.status = StatusCode::from_u16(reply.status).expect("checked with the reply");
                        head.headers = reply.headers;
                        body = Some(reply.body);
                        // Its own body is of no interest to it.
                        break;
                    }
                    Err(failure) => match plugin.on_failure(&failure.kind) {
                        OnError::Deny => return ResponseOutcome::Failed(failure),
                        OnError::Skip => break,
                    },
                }
            }
        }
        match body {
            None => ResponseOutcome::Continue,
            Some(body) => {
                let headers: HeaderMap = std::mem::take(&mut head.headers);
                ResponseOutcome::Respond(Reply { status: head.status.as_u16(), headers, body })
            }
        }
    }
}
