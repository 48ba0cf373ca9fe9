//! The plugins of a rule in their order: in for the request, back out for the response. Middleware ends a
//! chain, and what comes after it is a chain of its own.

use std::sync::Arc;

use adit_rules::plan::OnError;
use http::{HeaderMap, StatusCode, request, response};

use super::edit::Reply;
use super::failure::Failure;
use crate::background::Served;
use crate::filter::{Plugin, RequestStep, ResponseStep};

/// What is known about a request besides its head.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Names the request in every log.
    pub id: &'a str,
    /// The visitor's address; empty if unknown.
    pub client_ip: &'a str,
    /// "http" or "https".
    pub scheme: &'a str,
}

/// Plugins in the order in which they see a request.
#[derive(Debug, Default)]
pub struct Chain {
    plugins: Vec<Arc<Plugin>>,
    observers: Option<Observers>,
    link: Option<Box<Link>>,
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
}

#[derive(Debug)]
enum Left {
    Carry(Vec<u8>),
    /// It failed and was skipped: it does not see the response either, since it could not have
    /// prepared for it.
    Skipped,
}

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
        Self { plugins, observers: None, link }
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
        let mut left = Vec::new();
        for (index, plugin) in self.plugins.iter().enumerate() {
            if !plugin.filters_requests() {
                continue;
            }
            match plugin.on_request(shard, facts, head).await {
                Ok(RequestStep::Next) => {}
                Ok(RequestStep::Edited { carry }) if carry.is_empty() => {}
                Ok(RequestStep::Edited { carry }) => left.push((index, Left::Carry(carry))),
                Ok(RequestStep::Respond(reply)) => {
                    return RequestOutcome::Respond(reply, ChainProgress { entered: index, left });
                }
                Err(failure) => match plugin.on_error() {
                    OnError::Deny => return RequestOutcome::Failed(failure),
                    OnError::Skip => left.push((index, Left::Skipped)),
                },
            }
        }
        RequestOutcome::Continue(ChainProgress { entered: self.plugins.len(), left })
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
        let ChainProgress { entered, mut left } = progress;
        let mut body = None;
        for (index, plugin) in self.plugins.iter().enumerate().take(entered).rev() {
            let carry = match left.pop_if(|(of, _)| *of == index) {
                None => Vec::new(),
                Some((_, Left::Carry(carry))) => carry,
                Some((_, Left::Skipped)) => continue,
            };
            if !plugin.filters_responses() {
                continue;
            }
            match plugin.on_response(shard, facts, head, &carry).await {
                Ok(ResponseStep::Next | ResponseStep::Edited) => {}
                Ok(ResponseStep::Respond(reply)) => {
                    head.status = StatusCode::from_u16(reply.status).expect("checked with the reply");
                    head.headers = reply.headers;
                    body = Some(reply.body);
                }
                Err(failure) => match plugin.on_error() {
                    OnError::Deny => return ResponseOutcome::Failed(failure),
                    OnError::Skip => {}
                },
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
