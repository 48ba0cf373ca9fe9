//! A request as a trace tells it: from its head to the end of its answer, with every attempt. Made only where traces
//! are on. Knows heads and times; does not know streams.

use std::time::{Duration, Instant};

use adit_protocol::stream::Answer;
use adit_traces::{Kind, Span, SpanId, Tracer, Trail};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use uuid::Uuid;

use super::Failure;
use crate::registry::Connection;

/// Told when it is dropped, which may be midway.
pub(crate) struct Traced {
    tracer: Tracer,
    trail: Trail,
    begun: Instant,
    method: Method,
    version: Version,
    is_secure: bool,
    host: String,
    path: String,
    ray: String,
    tunnel: Option<Uuid>,
    status: Option<StatusCode>,
    /// What the edge says in the place of an answer.
    page: Option<&'static str>,
    attempts: Vec<Attempt>,
    /// What a connector of the reference says of its part.
    theirs: Option<(String, HeaderValue)>,
}

struct Attempt {
    span: SpanId,
    begun: Instant,
    /// Until there was an answer, or none.
    took: Option<Duration>,
    failure: Option<String>,
    connector: Uuid,
    protocol: &'static str,
    server: String,
}

impl Traced {
    pub(crate) fn begin<B>(
        tracer: &Tracer,
        request: &http::Request<B>,
        ray: &str,
        is_secure: bool,
    ) -> Box<Self> {
        Box::new(Self {
            trail: tracer.enter(&Self::of_visitor(request.headers())),
            tracer: tracer.clone(),
            begun: Instant::now(),
            method: request.method().clone(),
            version: request.version(),
            is_secure,
            host: String::new(),
            path: short(request.uri().path()),
            ray: ray.to_owned(),
            tunnel: None,
            status: None,
            page: None,
            attempts: Vec::new(),
            theirs: None,
        })
    }

    /// Of a request that another node hands on, whose word for the trace counts.
    pub(crate) fn hand_on(tracer: &Tracer, parts: &Parts, tunnel: &Uuid) -> Box<Self> {
        let said =
            |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Box::new(Self {
            trail: tracer.enter(&parts.headers),
            tracer: tracer.clone(),
            begun: Instant::now(),
            method: parts.method.clone(),
            version: parts.version,
            is_secure: parts.uri.scheme_str() == Some("https"),
            host: short(parts.uri.host().unwrap_or_default()),
            path: short(parts.uri.path()),
            ray: said("cf-ray").to_owned(),
            tunnel: Some(*tunnel),
            status: None,
            page: None,
            attempts: Vec::new(),
            theirs: None,
        })
    }

    /// Nobody outside says what edges say.
    fn of_visitor(headers: &HeaderMap) -> HeaderMap {
        headers
            .iter()
            .filter(|(name, _)| ["traceparent", "tracestate"].contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    pub(crate) fn asks_for(&mut self, host: &str) {
        self.host = short(host);
    }

    pub(crate) fn answered(&mut self, status: StatusCode, tunnel: Option<Uuid>) {
        (self.status, self.tunnel) = (Some(status), tunnel);
    }

    pub(crate) fn page(&mut self, word: &'static str) {
        self.page = Some(word);
    }

    /// An attempt begins; its context goes into the head that it sends.
    pub(super) fn attempt(&mut self, live: &Connection, headers: &mut HeaderMap) {
        let span = SpanId::random();
        let (context, state) = self.trail.context(span);
        context.put_for_host(headers, &state);
        self.attempts.push(Attempt {
            span,
            begun: Instant::now(),
            took: None,
            failure: None,
            connector: live.connector,
            protocol: live.link.protocol(),
            server: live.server.name.clone(),
        });
    }

    /// What became of the last attempt.
    pub(super) fn attempted(&mut self, outcome: Result<&Answer, &Failure>) {
        if let Some(last) = self.attempts.last_mut() {
            if let Ok(Answer::Http(response)) = outcome {
                let theirs = Trail::theirs(response.headers());
                self.theirs = theirs.map(|theirs| (last.connector.to_string(), theirs));
            }
            last.took = Some(last.begun.elapsed());
            last.failure = outcome.err().map(ToString::to_string);
        }
    }

    fn spans(&mut self, took: Duration) -> Vec<Span> {
        let Trail { span, parent, link, .. } = self.trail;
        let status = self.status.map_or(0, |status| i64::from(status.as_u16()));
        let is_error = status >= 500;
        let method = self.method.to_string();
        let protocol = if self.version < Version::HTTP_2 { "1.1" } else { "2" };
        let mut root = Span::new(span, parent, Kind::Server, method.clone(), (self.begun, took))
            .with("http.request.method", method)
            .with("url.scheme", if self.is_secure { "https" } else { "http" })
            .with("server.address", std::mem::take(&mut self.host))
            .with("url.path", std::mem::take(&mut self.path))
            .with("network.protocol.version", protocol)
            .with("adit.ray", std::mem::take(&mut self.ray))
            .failed(is_error);
        if let Some(tunnel) = self.tunnel {
            root = root.with("adit.tunnel", tunnel.to_string());
        }
        root = match (status, self.page) {
            (0, _) => root.with("error.type", "left"),
            (_, Some(page)) => root.with("http.response.status_code", status).with("error.type", page),
            (_, None) => root.with("http.response.status_code", status),
        };
        root.link = link;
        let mut spans = vec![root];
        for (number, attempt) in self.attempts.drain(..).enumerate() {
            let Attempt { span: id, begun, took, failure, connector, protocol, server } = attempt;
            let took = took.unwrap_or_else(|| begun.elapsed());
            let mut client = Span::new(id, Some(span), Kind::Client, "tunnel", (begun, took))
                .with("adit.try", i64::try_from(number + 1).unwrap_or(i64::MAX))
                .with("adit.connector", connector.to_string())
                .with("adit.server", server)
                .with("network.transport", protocol)
                .failed(failure.is_some());
            if let Some(failure) = failure {
                client = client.with("error.type", failure);
            }
            spans.push(client);
        }
        spans
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        let is_error = self.status.is_some_and(|status| status.is_server_error());
        if self.tracer.keeps(&self.trail, is_error, took) {
            let spans = self.spans(took);
            self.tracer.tell(&self.trail, spans, self.theirs.take());
        }
    }
}

/// Enough of it to be recognised.
fn short(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

const LONGEST: usize = 256;
