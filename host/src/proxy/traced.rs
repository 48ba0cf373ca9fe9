//! A request as a trace tells it: from its head to the end of its answer, with what plugins and services took. Made
//! only where traces are on; the times are those of the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_engine::Stopwatch;
use adit_traces::{Context, Kind, Span, SpanId, Tracer, Trail};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, request};

/// What is known so far.
pub(super) struct Traced {
    tracer: Tracer,
    trail: Trail,
    method: String,
    scheme: &'static str,
    host: String,
    path: String,
    stopwatch: Arc<Stopwatch>,
    asked: Vec<Asked>,
}

/// A service that was asked.
struct Asked {
    span: SpanId,
    begun: Instant,
    /// Until the head of its answer was there, or none.
    took: Option<Duration>,
}

/// What the log knows of how it ended.
pub(super) struct End<'a> {
    pub(super) id: &'a str,
    pub(super) generation: u64,
    pub(super) rule: &'a str,
    pub(super) status: u16,
    pub(super) outcome: &'static str,
    /// The plugin that failed, if one did.
    pub(super) failed: &'a str,
    pub(super) time: (Instant, Duration),
}

impl Traced {
    /// Of a request that begins. What only edges say goes no further.
    pub(super) fn begin(tracer: &Tracer, head: &mut request::Parts) -> Box<Self> {
        let trail = tracer.enter(&head.headers);
        Context::cut(&mut head.headers);
        let (context, state) = trail.context(trail.span);
        context.put(&mut head.headers, &state);
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        Box::new(Self {
            trail,
            tracer: tracer.clone(),
            method: head.method.to_string(),
            scheme: super::scheme(head),
            host: short(host),
            path: short(head.uri.path()),
            stopwatch: Arc::default(),
            asked: Vec::new(),
        })
    }

    pub(super) fn stopwatch(&self) -> Arc<Stopwatch> {
        self.stopwatch.clone()
    }

    /// What plugins say to whom they ask.
    pub(super) fn of_plugins(&self) -> HeaderValue {
        self.trail.context(self.trail.span).0.header()
    }

    /// A service is asked; it is told by which span.
    pub(super) fn asks(&mut self, headers: &mut HeaderMap) {
        if self.asked.len() >= MOST_ASKED {
            return;
        }
        let span = SpanId::random();
        let (context, state) = self.trail.context(span);
        context.put(headers, &state);
        self.asked.push(Asked { span, begun: Instant::now(), took: None });
    }

    /// It has answered, or has not.
    pub(super) fn has_asked(&mut self, took: Duration) {
        if let Some(last) = self.asked.last_mut() {
            last.took = last.took.or(Some(took));
        }
    }

    /// Tells it, if it is to be told.
    pub(super) fn end(self, end: &End<'_>) {
        let is_error = end.status >= 500;
        if self.tracer.keeps(&self.trail, is_error, end.time.1) {
            let (tracer, trail) = (self.tracer.clone(), self.trail.clone());
            tracer.tell(&trail, self.spans(end, is_error), None);
        }
    }

    fn spans(self, end: &End<'_>, is_error: bool) -> Vec<Span> {
        let Trail { span, parent, link, .. } = self.trail;
        let name = [self.method.as_str(), end.rule].join(" ");
        let mut root = Span::new(span, parent, Kind::Server, name.trim_end().to_owned(), end.time)
            .with("http.request.method", self.method)
            .with("url.scheme", self.scheme)
            .with("server.address", self.host)
            .with("url.path", self.path)
            .with("http.route", end.rule.to_owned())
            .with("http.response.status_code", i64::from(end.status))
            .with("adit.ray", end.id.to_owned())
            .with("adit.generation", i64::try_from(end.generation).unwrap_or(i64::MAX))
            .failed(is_error);
        root = match (end.outcome, end.failed) {
            (_, plugin) if !plugin.is_empty() => root.with("error.type", format!("plugin {plugin}")),
            ("whole", _) => root,
            (outcome, _) => root.with("error.type", outcome),
        };
        root.link = link;
        let mut spans = vec![root];
        for lap in self.stopwatch.laps() {
            let name = format!("plugin {}", lap.plugin);
            let plugin = Span::new(SpanId::random(), Some(span), Kind::Internal, name, (lap.begun, lap.took));
            spans.push(plugin.with("adit.plugin", lap.plugin));
        }
        for Asked { span: id, begun, took } in self.asked {
            let took = took.unwrap_or_else(|| begun.elapsed());
            spans.push(Span::new(id, Some(span), Kind::Client, "origin", (begun, took)));
        }
        spans
    }
}

/// Enough of it to be recognised.
fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

const LONGEST: usize = 256;
/// Of one request: middleware may hand it on again and again.
const MOST_ASKED: usize = 16;
