//! What is remembered of one request from its head to the end of its answer: for the counters, for the
//! access log, and so that an answer ends when the time of its generation is over.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Response, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tracing::{Level, debug, enabled, info};

use super::capture::{Capture, End};
use super::respond::Answer;
use super::streams::{Place, Streams, Tenure};
use super::traced::{self, Traced};
use crate::generation::lifetime::{GenerationLifetime, RequestEnd, RuleMetrics};
use crate::generation::{Generation, Rule};
use crate::origin::{Body, BoxError, CircuitEnd, Origin, Trace};

/// Counts and logs one request when it is dropped, which may be midway.
pub(crate) struct RequestLog {
    lifetime: Arc<GenerationLifetime>,
    metrics: Option<Arc<RuleMetrics>>,
    shard: usize,
    begun: Instant,
    status: u16,
    bytes: u64,
    is_whole: bool,
    is_reached: bool,
    /// It was this side, or the origin, that ended it before its end.
    is_broken: bool,
    /// Whoever asked has left before the request was whole.
    pub(crate) is_cancelled: bool,
    /// If it is one: what it carries, and the service that it leads to, which may outlive its generation.
    pub(crate) circuit: Option<(Arc<Trace>, Weak<Origin>)>,
    /// What the plugins made of the request.
    pub(crate) plugins: Plugins,
    /// Of it all, what the plugins of the chain took, both ways.
    pub(crate) plugin_time: Duration,
    /// Of it all, what the origin took until the head of its answer was there.
    pub(crate) origin_time: Duration,
    /// Of an exchange that somebody will look at.
    pub(super) capture: Option<Box<Capture>>,
    /// Where traces are on.
    pub(super) traced: Option<Box<Traced>>,
    id: Arc<str>,
    /// Absent if nobody will read it.
    line: Option<Box<Line>>,
}

/// What a chain made of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plugins {
    /// The rule has none, or the request did not come so far.
    None,
    Passed,
    /// One of them answered.
    Answered,
    /// This one failed, and the request was refused.
    Failed(String),
}

/// What only the access log says. No query, no visitor: they are nobody's business.
struct Line {
    method: Method,
    /// The host, and behind it the path.
    place: String,
    host_length: usize,
    is_asked_for: bool,
}

impl RequestLog {
    pub(super) fn begin(
        generation: &Generation,
        shard: usize,
        id: &Arc<str>,
        head: &request::Parts,
        (capture, traced): (Option<Box<Capture>>, Option<Box<Traced>>),
    ) -> Self {
        let is_asked_for = generation.access_log;
        generation.lifetime.begin(shard);
        let line = (is_asked_for || enabled!(Level::DEBUG)).then(|| {
            let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            Box::new(Line {
                method: head.method.clone(),
                place: [host, head.uri.path()].concat(),
                host_length: host.len(),
                is_asked_for,
            })
        });
        Self {
            lifetime: generation.lifetime.clone(),
            metrics: None,
            shard,
            begun: Instant::now(),
            status: 0,
            bytes: 0,
            is_whole: false,
            is_reached: true,
            is_broken: false,
            is_cancelled: false,
            circuit: None,
            plugins: Plugins::None,
            plugin_time: Duration::ZERO,
            origin_time: Duration::ZERO,
            capture,
            traced,
            id: id.clone(),
            line,
        }
    }

    /// The time, if somebody will read how long something took.
    pub(crate) fn clock(&self) -> Option<Instant> {
        (self.line.is_some() || self.capture.is_some() || self.traced.is_some()).then(Instant::now)
    }

    pub(crate) fn routed(&mut self, rule: &Rule) {
        self.metrics = Some(rule.metrics.clone());
        if !rule.chain.is_empty() {
            self.plugins = Plugins::Passed;
        }
        self.capture.take_if(|capture| !capture.wants(&rule.name));
    }

    /// The origin was asked at `begun`, and there is an answer, or none.
    pub(crate) fn origin_answered(&mut self, begun: Option<Instant>) {
        let Some(begun) = begun else { return };
        self.origin_time = begun.elapsed();
        if let Some(traced) = &mut self.traced {
            traced.has_asked(self.origin_time);
        }
        if let Some(capture) = &mut self.capture {
            capture.stage("origin", begun, self.origin_time);
        }
    }

    /// Follows the answer to its end.
    pub(crate) fn follow(mut self, answer: Answer, streams: &Streams) -> Answer {
        match answer {
            Answer::Response(response) => {
                let (head, body) = response.into_parts();
                self.status = head.status.as_u16();
                if let Some(capture) = &mut self.capture {
                    capture.answered(&head);
                }
                if body.is_end_stream() {
                    self.is_whole = true;
                    return Answer::Response(Response::from_parts(head, body));
                }
                let service = self.circuit.as_ref().map(|(_, service)| service.clone());
                let place = streams.enter(Tenure { lifetime: self.lifetime.clone(), service });
                let body: Body = Box::pin(LoggedBody { body, note: self, place });
                Answer::Response(Response::from_parts(head, body))
            }
            unreachable @ Answer::Unreachable { .. } => {
                self.status = UNREACHABLE;
                self.is_reached = false;
                self.is_whole = true;
                unreachable
            }
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        let Self { status, bytes, is_whole, is_reached, .. } = *self;
        let duration = self.begun.elapsed();
        self.lifetime.end(self.shard, status);
        if let Some(metrics) = &self.metrics {
            metrics.count(self.shard, RequestEnd { status, bytes, duration, is_whole, is_reached });
        }
        if self.line.is_none() && self.capture.is_none() && self.traced.is_none() {
            return;
        }
        let id = &*self.id;
        let rule = self.metrics.as_ref().map_or("", |metrics| &metrics.name);
        let generation = self.lifetime.number;
        let outcome = match (is_whole && !self.is_cancelled, self.is_broken) {
            (true, _) => "whole",
            (false, true) => "broken off",
            // Nothing was wrong, and yet nobody wanted more.
            (false, false) => "cancelled",
        };
        let (plugins, failed) = match &self.plugins {
            Plugins::None => ("none", ""),
            Plugins::Passed => ("passed", ""),
            Plugins::Answered => ("answered", ""),
            Plugins::Failed(plugin) => ("failed", plugin.as_str()),
        };
        if let Some(traced) = self.traced.take() {
            let time = (self.begun, duration);
            traced.end(&traced::End { id, generation, rule, status, outcome, failed, time });
        }
        if let Some(capture) = self.capture.take() {
            let plugins = [plugins, failed].join(" ").trim_end().to_owned();
            capture.end(self.shard, End { id, generation, rule, status, outcome, plugins, took: duration });
        }
        let Some(line) = &self.line else { return };
        let Line { method, place, host_length, is_asked_for } = &**line;
        let (method, (host, path)) = (method.as_str(), place.split_at(*host_length));
        let (milliseconds, plugin_ms, origin_ms) =
            (milliseconds(duration), milliseconds(self.plugin_time), milliseconds(self.origin_time));
        if let Some((trace, _)) = &self.circuit {
            let (received, sent) = trace.bytes();
            let ended = trace.end().map_or("dropped", CircuitEnd::word);
            if *is_asked_for {
                info!(target: ACCESS, id, generation, rule, host, path, status, received, sent, milliseconds, plugin_ms, origin_ms, plugins, ended, "circuit");
            } else {
                debug!(target: ACCESS, id, generation, rule, host, path, status, received, sent, milliseconds, plugin_ms, origin_ms, plugins, ended, "circuit");
            }
            return;
        }
        // The level of an event is fixed where it is written.
        if *is_asked_for {
            info!(target: ACCESS, id, generation, rule, method, host, path, status, bytes, milliseconds, plugin_ms, origin_ms, plugins, failed, outcome, whole = is_whole, "access");
        } else {
            debug!(target: ACCESS, id, generation, rule, method, host, path, status, bytes, milliseconds, plugin_ms, origin_ms, plugins, failed, outcome, whole = is_whole, "access");
        }
    }
}

/// The body of an answer, counted, and cut when the time of its generation is over.
struct LoggedBody {
    body: Body,
    note: RequestLog,
    place: Place,
}

/// Another configuration took the place of the one that this answer began with, long ago.
#[derive(Debug, thiserror::Error)]
#[error("generation {0} was retired and its time is over")]
struct Over(u64);

impl HttpBody for LoggedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.place.is_over() {
            this.note.is_broken = true;
            return Poll::Ready(Some(Err(Over(this.note.lifetime.number).into())));
        }
        let frame = match this.body.as_mut().poll_frame(cx) {
            Poll::Pending => {
                this.place.wait(cx.waker());
                return Poll::Pending;
            }
            Poll::Ready(frame) => frame,
        };
        match &frame {
            Some(Ok(piece)) => {
                if let Some(data) = piece.data_ref() {
                    this.note.bytes += data.len() as u64;
                    if let Some(capture) = &mut this.note.capture {
                        capture.sent(data);
                    }
                }
                this.note.is_whole = this.body.is_end_stream();
            }
            Some(Err(_)) => this.note.is_broken = true,
            None => this.note.is_whole = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// As people read it: microseconds are enough, and no digit is an artefact.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// What a filter of the log is given to have this alone, or all but this.
const ACCESS: &str = "adit_host::access";

/// What the edge makes of an origin that was not reached.
const UNREACHABLE: u16 = 502;
