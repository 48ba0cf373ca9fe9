//! The thread that tells a collector. It has a runtime of its own, so that whatever becomes of the collector is
//! nothing to those that serve: what they hand in waits in a queue with an end.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use adit_net::outbound::{Client, OutboundError, Target};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use crate::otlp;
use crate::tracer::{Counts, Finished, Terms, Tracer};

/// Tells until it is dropped, and then what still waits.
pub struct Exporter {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// # Errors
    /// The system gives no thread, or has no roots that TLS could begin with.
    pub fn start(terms: Terms, instance: String) -> Result<(Tracer, Self), std::io::Error> {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let counts = Arc::<Counts>::default();
        let tracer = Tracer::new(&terms, queue, counts.clone());
        let client = Client::new(1).map_err(std::io::Error::other)?;
        let target = Target::of(&terms.endpoint).map_err(std::io::Error::other)?;
        for warning in &terms.warnings {
            warn!("{warning}");
        }
        let own = [
            ("service.name", terms.service.clone()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", instance),
            ("telemetry.sdk.name", "adit".to_owned()),
        ];
        let mut service: Vec<_> = own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        // What this program knows of itself goes first.
        let others =
            terms.attributes.iter().filter(|(name, _)| !service.iter().any(|(known, _)| known == name));
        let others: Vec<_> = others.cloned().collect();
        service.extend(others);
        let is_plain = terms.is_plain;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let work = Work { terms, client, target, service, counts, is_silent: false, is_plain };
        let thread = std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || runtime.block_on(work.run(waiting, stopped)))?;
        Ok((tracer, Self { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Work {
    terms: Terms,
    client: Client,
    target: Target,
    service: Vec<(String, String)>,
    counts: Arc<Counts>,
    /// That nobody takes them was said.
    is_silent: bool,
    /// Nothing is compressed: as it was said, or because the collector does not read it.
    is_plain: bool,
}

impl Work {
    async fn run(mut self, mut waiting: mpsc::Receiver<Finished>, mut stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                count = waiting.recv_many(&mut batch, MOST_AT_ONCE) => if count == 0 { return },
            }
            // What comes in a moment goes with it.
            let until = Instant::now() + GATHER;
            while batch.len() < MOST_AT_ONCE {
                let room = MOST_AT_ONCE - batch.len();
                match timeout_at(until, waiting.recv_many(&mut batch, room)).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            tokio::select! {
                _ = &mut stopped => break,
                () = self.send(&batch, PATIENCE) => {}
            }
            batch.clear();
        }
        // The process ends: what waits is tried once, and not for long.
        let all = async {
            waiting.close();
            while waiting.recv_many(&mut batch, MOST_AT_ONCE).await > 0 {}
            for part in batch.chunks(MOST_AT_ONCE) {
                self.send(part, Duration::ZERO).await;
            }
        };
        let _ = timeout(FAREWELL, all).await;
    }

    /// Until the collector has it, or for so long.
    async fn send(&mut self, batch: &[Finished], patience: Duration) {
        let count: u64 = batch.iter().map(|finished| finished.spans.len() as u64).sum();
        if count == 0 {
            return;
        }
        let body = Bytes::from(otlp::request(&self.service, batch));
        let (end, mut pause) = (Instant::now() + patience, PAUSE);
        let why = loop {
            let (why, is_final) = match self.attempt(body.clone()).await {
                Ok(refused) => {
                    let refused = refused.min(count);
                    self.counts.sent.fetch_add(count - refused, Ordering::Relaxed);
                    self.counts.dropped.fetch_add(refused, Ordering::Relaxed);
                    if std::mem::take(&mut self.is_silent) {
                        info!(endpoint = %self.terms.endpoint, "the collector takes traces again");
                    }
                    return;
                }
                // RFC 9110 15.5.16: it may be the coding that it does not take.
                Err(Refusal::Coding) if !self.is_plain => {
                    self.is_plain = true;
                    continue;
                }
                Err(Refusal::Coding) => (format!("it answers {}", StatusCode::UNSUPPORTED_MEDIA_TYPE), true),
                Err(Refusal::Never(why)) => (why, true),
                Err(Refusal::NotNow(why)) => (why, false),
            };
            if is_final || Instant::now() + pause >= end {
                break why;
            }
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        };
        self.counts.dropped.fetch_add(count, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_silent, true) {
            warn!(endpoint = %self.terms.endpoint, why, "the collector takes no traces; they are counted and forgotten");
        }
    }

    /// How many spans were refused of those that it took.
    async fn attempt(&self, body: Bytes) -> Result<u64, Refusal> {
        let small = (!self.is_plain).then(|| compressed(&body)).flatten();
        let is_small = small.is_some();
        let mut request = Request::post(self.terms.endpoint.clone())
            .body(Full::new(small.unwrap_or(body)))
            .map_err(|error| Refusal::Never(error.to_string()))?;
        if is_small {
            request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        request.headers_mut().extend(self.terms.headers.iter().cloned());
        // The operator has named it, wherever it is.
        let patience = self.terms.answer.unwrap_or(ANSWER);
        let exchange = self.client.exchange(&self.target, request, |_| true, patience).await;
        let exchange = exchange.map_err(|error| match error {
            OutboundError::Denied(_) | OutboundError::Invalid(_) => Refusal::Never(error.to_string()),
            OutboundError::Timeout | OutboundError::TooLarge | OutboundError::Failed(_) => {
                Refusal::NotNow(error.to_string())
            }
        })?;
        let status = exchange.response.status();
        let body =
            timeout(patience, Limited::new(exchange.response.into_body(), LARGEST_ANSWER).collect()).await;
        match status {
            StatusCode::OK => {
                let answer = body.ok().and_then(Result::ok).map(|body| body.to_bytes());
                Ok(answer.map_or(0, |answer| otlp::refused(&answer)))
            }
            status if status.is_success() => Ok(0),
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Refusal::NotNow(format!("it answers {status}"))),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Err(Refusal::Coding),
            status => Err(Refusal::Never(format!("it answers {status}"))),
        }
    }
}

/// In less room; what has no use of it stays as it is.
fn compressed(body: &[u8]) -> Option<Bytes> {
    if body.len() < WORTH_IT {
        return None;
    }
    let mut gzip = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    gzip.write_all(body).ok()?;
    gzip.finish().ok().map(Bytes::from)
}

enum Refusal {
    /// It does not read what it was sent.
    Coding,
    Never(String),
    NotNow(String),
}

/// Traces that wait to be told; further ones are counted and forgotten.
const MOST_WAITING: usize = 2048;
/// Traces of one request to the collector.
const MOST_AT_ONCE: usize = 512;
/// Bytes of a body, below which it is not compressed.
const WORTH_IT: usize = 1024;
/// How long the first waits for others.
const GATHER: Duration = Duration::from_millis(500);
/// How long the collector may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a batch is tried again.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How long the end of the process waits for the collector.
const FAREWELL: Duration = Duration::from_secs(3);
/// Bytes of its answer that are read.
const LARGEST_ANSWER: usize = 64 << 10;
