//! One exchange while it is under way and somebody wants to look at it afterwards: heads without secrets, the
//! beginnings of bodies, and where its time went. Made only while the inspector is on; keeps nothing itself.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_engine::Stopwatch;
use adit_inspector::{Body as KeptBody, BodyHeaders, Exchange, Keeper, Message, Setting, Stage};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{request, response};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::request::Before;
use crate::origin::{Body, BoxError};

/// What is known so far.
pub(super) struct Capture {
    keeper: Arc<Keeper>,
    setting: Arc<Setting>,
    begun: Instant,
    started: SystemTime,
    head: Head,
    request: Message,
    answer: Message,
    request_body: Option<Arc<Mutex<Tap>>>,
    request_kind: BodyHeaders,
    /// Of the request's body, as its head says.
    stated: Option<u64>,
    answer_body: Option<(Tap, BodyHeaders)>,
    stopwatch: Arc<Stopwatch>,
    stages: Vec<Stage>,
    /// When the answer's head was on its way.
    answered: Option<Instant>,
}

/// Of the request, what is no header.
struct Head {
    method: String,
    scheme: &'static str,
    host: String,
    target: String,
    visitor: String,
}

/// The beginning of a body that passes, and how long it was.
#[derive(Default)]
struct Tap {
    begin: Vec<Bytes>,
    kept: usize,
    most: usize,
    length: u64,
    /// As the head says, if it does; whoever has read so much asks for no more.
    stated: Option<u64>,
    /// It was seen to its end.
    is_over: bool,
}

/// What the log knows of how it ended.
pub(super) struct End<'a> {
    pub(super) id: &'a str,
    pub(super) generation: u64,
    pub(super) rule: &'a str,
    pub(super) status: u16,
    pub(super) outcome: &'a str,
    pub(super) plugins: String,
    pub(super) took: Duration,
}

impl Capture {
    /// Of an exchange that begins; `None` while nobody wants one.
    #[inline]
    pub(super) fn begin(keeper: &Arc<Keeper>, head: &request::Parts, visitor: &str) -> Option<Box<Self>> {
        let setting = keeper.begin()?;
        Some(Box::new(Self::of(keeper.clone(), setting, head, visitor)))
    }

    fn of(keeper: Arc<Keeper>, setting: Arc<Setting>, head: &request::Parts, visitor: &str) -> Self {
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let mut request = keeper.message(&head.headers);
        let target = keeper.target(head.uri.path_and_query().map_or("/", |target| target.as_str()));
        request.redacted += target.marks;
        Self {
            head: Head {
                method: head.method.to_string(),
                scheme: super::scheme(head),
                host: keeper.text(host),
                target: target.text,
                visitor: visitor.to_owned(),
            },
            request,
            request_kind: BodyHeaders::of(&head.headers),
            stated: head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()),
            answer: Message::default(),
            request_body: None,
            answer_body: None,
            stopwatch: Arc::default(),
            stages: head.extensions.get::<Before>().map(before).unwrap_or_default(),
            answered: None,
            begun: Instant::now(),
            started: SystemTime::now(),
            keeper,
            setting,
        }
    }

    /// Whether exchanges of this rule are wanted.
    pub(super) fn wants(&self, rule: &str) -> bool {
        self.setting.rule.as_deref().is_none_or(|wanted| wanted == rule)
    }

    /// What the plugins of its chain are measured with: what somebody else looks at too, if there is one.
    pub(super) fn watched_by(&mut self, other: Option<Arc<Stopwatch>>) -> Arc<Stopwatch> {
        if let Some(other) = other {
            self.stopwatch = other;
        }
        self.stopwatch.clone()
    }

    /// The body of the request, looked at while it passes.
    pub(super) fn tap(&mut self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let tap = Tap { stated: self.stated, ..Tap::new(self.setting.bodies) };
        let tap = Arc::new(Mutex::new(tap));
        self.request_body = Some(tap.clone());
        Box::pin(Tapped { body, tap })
    }

    /// Something took so long, from `begun` on.
    pub(super) fn stage(&mut self, name: &str, begun: Instant, took: Duration) {
        if self.stages.len() < MOST_STAGES {
            let at = begun.saturating_duration_since(self.begun);
            self.stages.push(Stage { name: name.to_owned(), at: micros(at) as i64, took: micros(took) });
        }
    }

    /// The head of the answer is on its way.
    pub(super) fn answered(&mut self, head: &response::Parts) {
        self.answered = Some(Instant::now());
        self.answer = self.keeper.message(&head.headers);
        // How far it came is said beside it.
        let tap = Tap { is_over: true, ..Tap::new(self.setting.bodies) };
        self.answer_body = Some((tap, BodyHeaders::of(&head.headers)));
    }

    /// A piece of the answer's body is on its way.
    pub(super) fn sent(&mut self, piece: &Bytes) {
        if let Some((tap, _)) = &mut self.answer_body {
            tap.take(piece);
        }
    }

    /// Hands it to the keeper.
    pub(super) fn end(mut self, shard: usize, end: End<'_>) {
        if let Some(answered) = self.answered {
            let body = end.took.saturating_sub(answered.saturating_duration_since(self.begun));
            self.stage("body", answered, body);
        }
        for lap in self.stopwatch.laps() {
            self.stage(&format!("plugin {}", lap.plugin), lap.begun, lap.took);
        }
        self.stages.sort_by_key(|stage| stage.at);
        let keeper = &self.keeper;
        if let Some(tap) = &self.request_body {
            let tap = tap.lock().unwrap_or_else(PoisonError::into_inner);
            tap.put(keeper, &mut self.request, &self.request_kind);
        }
        if let Some((tap, kind)) = &self.answer_body {
            tap.put(keeper, &mut self.answer, kind);
        }
        let Head { method, scheme, host, target, visitor } = self.head;
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let exchange = Exchange {
            number: keeper.next_number(),
            id: end.id.to_owned(),
            started: u64::try_from(started.as_millis()).unwrap_or_default(),
            generation: end.generation,
            rule: end.rule.to_owned(),
            method,
            scheme: scheme.to_owned(),
            host,
            target,
            status: end.status,
            outcome: end.outcome.to_owned(),
            plugins: end.plugins,
            total: micros(end.took),
            stages: self.stages,
            request: self.request,
            answer: self.answer,
            visitor,
        };
        let source = exchange.visitor.clone();
        keeper.keep(shard, &source, exchange);
    }
}

impl Tap {
    fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    fn take(&mut self, piece: &Bytes) {
        self.length += piece.len() as u64;
        let room = (self.most - self.kept).min(piece.len());
        if room > 0 {
            // A copy: what passes may be part of something far larger.
            self.begin.push(Bytes::copy_from_slice(&piece[..room]));
            self.kept += room;
        }
    }

    fn put(&self, keeper: &Keeper, message: &mut Message, kind: &BodyHeaders) {
        if !self.is_over && self.stated != Some(self.length) {
            // A part that looks like the whole would be sent again as such.
            message.body = KeptBody::LeftOut { bytes: self.length, why: "nobody read it to its end" };
        } else if self.most == 0 && self.length > 0 {
            message.body = KeptBody::LeftOut { bytes: self.length, why: "bodies are not kept" };
        } else {
            keeper.put_body(message, kind, &self.begin, self.length);
        }
    }
}

struct Tapped {
    body: Body,
    tap: Arc<Mutex<Tap>>,
}

impl HttpBody for Tapped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.body.as_mut().poll_frame(context));
        let is_end = self.body.is_end_stream();
        let mut tap = self.tap.lock().unwrap_or_else(PoisonError::into_inner);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    tap.take(piece);
                }
                tap.is_over = is_end;
            }
            Some(Err(_)) => {}
            None => tap.is_over = true,
        }
        drop(tap);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The stages of a request that were over when it came here.
fn before(before: &Before) -> Vec<Stage> {
    let (mut at, mut stages) = (0_i64, Vec::new());
    for (name, took) in [("tunnel", before.tunnel), ("edge", before.edge)] {
        let Some(took) = took.map(micros) else { continue };
        at = at.saturating_sub_unsigned(took);
        stages.push(Stage { name: name.to_owned(), at, took });
    }
    stages
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Of one exchange: middleware may ask for the same again and again.
const MOST_STAGES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_is_there_only_as_far_as_it_is_known() {
        let time = |micros| Some(Duration::from_micros(micros));
        let stages = |edge, tunnel| {
            let stages = before(&Before { edge, tunnel }).into_iter();
            stages.map(|stage| (stage.name, stage.at, stage.took)).collect::<Vec<_>>()
        };
        let (edge, tunnel) = (|at| ("edge".to_owned(), at, 700), ("tunnel".to_owned(), -200, 200));
        assert_eq!(stages(time(700), time(200)), [tunnel.clone(), edge(-900)]);
        assert_eq!(stages(None, time(200)), [tunnel], "an edge of others says nothing");
        assert_eq!(stages(time(700), None), [edge(-700)]);
        assert_eq!(stages(None, None), []);
    }
}
