//! Whether and as what a request is traced. Costs a request that is not kept its ids and one header; spans are made
//! at the end, of those that are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tokio::sync::mpsc;

use crate::context::{Context, SpanId, TraceId, TraceState};
use crate::span::Span;

/// What an operator says about traces.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// Where the collector takes them, with the path.
    pub endpoint: Uri,
    /// What it wants to be told, such as who we are to it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What this program is called there.
    pub service: String,
    /// What else is said of it.
    pub attributes: Vec<(String, String)>,
    /// Of those that begin here, how many are kept.
    pub share: f64,
    pub trust: Trust,
    /// Kept in any case, if it takes so long or longer.
    pub slow: Option<Duration>,
    /// Kept in any case, if it fails.
    pub errors: bool,
    /// Bodies are sent as they are, and not compressed.
    pub is_plain: bool,
    /// How long the collector may take to answer, if not as long as usual.
    pub answer: Option<Duration>,
    /// To be said when it begins.
    pub warnings: Vec<String>,
}

// A share that is no number is refused where it is read.
impl Eq for Terms {}

/// What the context is worth that somebody sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// A trace of its own, which says where it was said to come from.
    #[default]
    Link,
    /// The same trace goes on here, and is kept if it says so.
    Accept,
    Ignore,
}

/// Why terms cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    #[error("this is not a URL of HTTP: {0}")]
    Endpoint(String),
    #[error("a collector is told by `name: value`, and not this header of HTTP's own: {0}")]
    Header(String),
}

impl Terms {
    /// Where a collector listens; where only it is named, at the usual path.
    ///
    /// # Errors
    /// It is no URL that can be asked.
    pub fn endpoint(text: &str) -> Result<Uri, TermsError> {
        let wrong = |why: String| TermsError::Endpoint(why);
        let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
        adit_net::outbound::Target::of(&uri).map_err(|error| wrong(error.to_string()))?;
        if uri.path() != "/" {
            return Ok(uri);
        }
        format!("{}{PATH}", text.trim_end_matches('/')).parse().map_err(|_| wrong(text.to_owned()))
    }

    /// Headers out of the lines of a file: `authorization: Bearer …`. Their values are never printed.
    ///
    /// # Errors
    /// A line is no header, or one that the client writes itself.
    pub fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, TermsError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .enumerate()
            .map(|(number, line)| {
                let wrong = || TermsError::Header(format!("line {}", number + 1));
                let (name, value) = line.split_once(':').ok_or_else(wrong)?;
                Self::header(name, value).ok_or_else(wrong)
            })
            .collect()
    }

    /// One header, whose value is never printed; `None` of what is none, or one that the client writes itself.
    pub(crate) fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
        let name: HeaderName = name.trim().parse().ok()?;
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(true);
        let is_own = [HOST, CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING].contains(&name);
        (!is_own).then_some((name, value))
    }
}

/// Where shards hand in what is over.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    /// Of 2^64 numbers those below are kept.
    below: u64,
    trust: Trust,
    slow: Option<Duration>,
    errors: bool,
    queue: mpsc::Sender<Finished>,
    counts: Arc<Counts>,
}

/// What became of traces.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// What became of spans so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    pub sent: u64,
    /// For lack of room, or because nobody took them in time.
    pub dropped: u64,
}

/// A trace as far as this program has to do with it.
pub(crate) struct Finished {
    pub(crate) trace: TraceId,
    pub(crate) state: String,
    pub(crate) spans: Vec<Span>,
    /// Who has spans of its own, and them as it says them.
    pub(crate) theirs: Option<(String, HeaderValue)>,
}

/// The way of one request.
#[derive(Debug, Clone)]
pub struct Trail {
    pub trace: TraceId,
    /// The first span here.
    pub span: SpanId,
    pub parent: Option<SpanId>,
    pub link: Option<Context>,
    pub is_sampled: bool,
    is_random: bool,
    state: TraceState,
}

impl Tracer {
    pub(crate) fn new(terms: &Terms, queue: mpsc::Sender<Finished>, counts: Arc<Counts>) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share from 0 to 1, and casts of floats saturate"
        )]
        let below = (terms.share.clamp(0.0, 1.0) * u64::MAX as f64) as u64;
        Self(Arc::new(Inner {
            below,
            trust: terms.trust,
            slow: terms.slow,
            errors: terms.errors,
            queue,
            counts,
        }))
    }

    /// A request with this head has come. What an edge says counts, before anything that visitors say.
    #[must_use]
    pub fn enter(&self, headers: &HeaderMap) -> Trail {
        let said = Context::of(headers);
        if let Some(edge) = Context::of_edge(headers) {
            let said = said.filter(|(said, _)| said.trace == edge.trace);
            let is_random = said.as_ref().is_some_and(|(said, _)| said.is_random);
            return self
                .goes_on(Context { is_random, ..edge }, said.map(|(_, state)| state).unwrap_or_default());
        }
        match (self.0.trust, said) {
            (Trust::Accept, Some((context, state))) => self.goes_on(context, state),
            (Trust::Link, Some((context, _))) => Trail { link: Some(context), ..self.begins() },
            (_, None) | (Trust::Ignore, _) => self.begins(),
        }
    }

    fn goes_on(&self, context: Context, state: TraceState) -> Trail {
        let Context { trace, span, is_sampled, is_random } = context;
        Trail { trace, span: SpanId::random(), parent: Some(span), link: None, is_sampled, is_random, state }
    }

    fn begins(&self) -> Trail {
        let trace = TraceId::random();
        // By the id, so that whoever sees it decides alike.
        let mut last = [0; 8];
        last.copy_from_slice(&trace.0[8..]);
        let is_sampled = self.0.below == u64::MAX || u64::from_be_bytes(last) < self.0.below;
        Trail {
            trace,
            span: SpanId::random(),
            parent: None,
            link: None,
            is_sampled,
            is_random: true,
            state: TraceState::default(),
        }
    }

    /// Whether a trace that has ended so is told.
    #[must_use]
    pub fn keeps(&self, trail: &Trail, is_error: bool, took: Duration) -> bool {
        trail.is_sampled || (is_error && self.0.errors) || self.0.slow.is_some_and(|slow| took >= slow)
    }

    /// What became of spans so far.
    #[must_use]
    pub fn told(&self) -> Told {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Told { sent: read(&self.0.counts.sent), dropped: read(&self.0.counts.dropped) }
    }

    /// Hands in what is to be told. Where there is no room it is counted and forgotten.
    pub fn tell(&self, trail: &Trail, spans: Vec<Span>, theirs: Option<(String, HeaderValue)>) {
        let state = trail.state.text().to_owned();
        let finished = Finished { trace: trail.trace, state, spans, theirs };
        if let Err(error) = self.0.queue.try_send(finished) {
            let (mpsc::error::TrySendError::Full(finished) | mpsc::error::TrySendError::Closed(finished)) =
                error;
            self.0.counts.dropped.fetch_add(finished.spans.len() as u64, Ordering::Relaxed);
        }
    }
}

impl Trail {
    /// What a connector of the reference says of its part, with its answer. Looked at by whoever tells it.
    #[must_use]
    pub fn theirs(headers: &HeaderMap) -> Option<HeaderValue> {
        headers.get(THEIRS).filter(|said| said.len() <= LONGEST_THEIRS).cloned()
    }

    /// What the next program is told that is asked by this span.
    #[must_use]
    pub fn context(&self, span: SpanId) -> (Context, TraceState) {
        let Self { trace, is_sampled, is_random, .. } = *self;
        (Context { trace, span, is_sampled, is_random }, self.state.led_by(span))
    }
}

/// Bytes of a header with spans.
const LONGEST_THEIRS: usize = 32 << 10;
/// Where connectors of the reference put their spans, base64 of `ExportTraceServiceRequest`.
const THEIRS: HeaderName = HeaderName::from_static("cf-int-cloudflared-tracing");
const PATH: &str = "/v1/traces";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn terms(share: f64, trust: Trust) -> Terms {
        let endpoint = Terms::endpoint("http://127.0.0.1:4318").unwrap();
        let said = crate::Environment { endpoint: Some(endpoint), ..Default::default() };
        Terms { share, trust, errors: false, ..said.terms("test").unwrap() }
    }

    fn tracer(share: f64, trust: Trust) -> (Tracer, mpsc::Receiver<Finished>) {
        let (queue, receiver) = mpsc::channel(2);
        (Tracer::new(&terms(share, trust), queue, Arc::default()), receiver)
    }

    fn head(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    const THEIRS: (&str, &str) = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");

    #[test]
    fn a_stranger_does_not_decide_whether_a_trace_is_kept_unless_it_is_trusted() {
        let theirs = head(&[THEIRS, ("tracestate", "vendor=1")]);
        let trail = tracer(0.0, Trust::Link).0.enter(&theirs);
        assert!(!trail.is_sampled && trail.parent.is_none() && trail.link.is_some());
        let (context, state) = trail.context(trail.span);
        assert!(context.trace != trail.link.unwrap().trace && !state.text().contains("vendor"), "{state:?}");
        let trail = tracer(0.0, Trust::Ignore).0.enter(&theirs);
        assert!(!trail.is_sampled && trail.link.is_none());
        let trail = tracer(0.0, Trust::Accept).0.enter(&theirs);
        assert!(trail.is_sampled && trail.parent.is_some());
        let (context, state) = trail.context(trail.span);
        assert_eq!(context.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(state.text(), format!("adit={},vendor=1", trail.span));
    }

    #[test]
    fn what_an_edge_has_decided_holds_at_its_hosts() {
        let edge = tracer(1.0, Trust::Link).0.enter(&head(&[]));
        for share in [0.0, 1.0] {
            let mut headers = HeaderMap::new();
            let (context, state) = edge.context(edge.span);
            context.put_for_host(&mut headers, &state);
            let host = tracer(share, Trust::Ignore).0.enter(&headers);
            assert_eq!((host.trace, host.parent, host.is_sampled), (edge.trace, Some(edge.span), true));
            assert_eq!(host.context(host.span).1.text(), format!("adit={}", host.span));
        }
    }

    #[test]
    fn a_share_is_a_share_and_errors_and_slow_ones_are_kept_besides() {
        let count = |share| {
            let tracer = tracer(share, Trust::Link).0;
            (0..10_000).filter(|_| tracer.enter(&HeaderMap::new()).is_sampled).count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 10_000));
        let tenth = count(0.1);
        assert!((800..1_200).contains(&tenth), "{tenth}");
        let (queue, _receiver) = mpsc::channel(1);
        let terms = Terms { slow: Some(Duration::from_secs(1)), errors: true, ..terms(0.0, Trust::Link) };
        let tracer = Tracer::new(&terms, queue, Arc::default());
        let trail = tracer.enter(&HeaderMap::new());
        assert!(!tracer.keeps(&trail, false, Duration::from_millis(999)));
        assert!(
            tracer.keeps(&trail, true, Duration::ZERO) && tracer.keeps(&trail, false, Duration::from_secs(1))
        );
    }

    #[test]
    fn a_queue_that_is_full_takes_nothing_and_says_how_much_that_was() {
        let (tracer, _receiver) = tracer(1.0, Trust::Link);
        for _ in 0..5 {
            let trail = tracer.enter(&HeaderMap::new());
            let now = (std::time::Instant::now(), Duration::ZERO);
            let span = Span::new(trail.span, None, crate::Kind::Server, "GET", now);
            tracer.tell(&trail, vec![span], None);
        }
        assert_eq!(tracer.0.counts.dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_collector_is_named_with_or_without_its_path_and_told_what_it_wants() {
        let at = |text| Terms::endpoint(text).map(|uri| uri.to_string());
        assert_eq!(at("http://127.0.0.1:4318").unwrap(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(
            at("https://c.example.com/otlp/v1/traces").unwrap(),
            "https://c.example.com/otlp/v1/traces"
        );
        for wrong in ["", "127.0.0.1:4318", "ftp://a", "http://u:p@a", "/v1/traces"] {
            assert!(at(wrong).is_err(), "{wrong}");
        }
        let headers = Terms::headers("# who we are\nauthorization: Bearer abc\n\n x-team : a:b \n").unwrap();
        assert_eq!(headers[1].1, "a:b");
        assert!(!format!("{headers:?}").contains("abc"));
        for wrong in ["nothing", "host: a", ": b", "a b: c"] {
            assert!(Terms::headers(wrong).is_err(), "{wrong}");
        }
    }
}
