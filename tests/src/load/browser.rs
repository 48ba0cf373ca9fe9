//! One visitor: which address it stays with, what it sends again and where. Checks every answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant as Moment, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::report::{Failure, Report, lock};
use crate::bulk::{Bulk, Digest};
use crate::document;
use crate::origin::{DIGEST, INTERNAL, LEAKED, MARK};

pub(super) struct Browser {
    number: usize,
    addresses: Arc<[SocketAddr]>,
    /// Which of them it stays with.
    at: usize,
    /// HTTP/2 in clear; else HTTP/1.1 with keep-alive.
    speaks_http2: bool,
    open: Option<Open>,
    last_good: Instant,
    report: Arc<Mutex<Report>>,
    passed: watch::Sender<u64>,
}

struct Open {
    sender: Sender,
    _driver: AbortOnDropHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

type Body = BoxBody<Bytes, std::convert::Infallible>;

/// One request, again and again the same.
struct Ask {
    method: Method,
    mark: String,
    /// Bytes of the request's body.
    sends: u64,
    /// Bytes of the answer's body.
    wants: u64,
    /// Milliseconds that the origin takes.
    takes: u64,
}

/// Why an exchange did not come to a good end.
enum Trouble {
    /// Not a byte of it was read by anybody who matters: any method may be sent elsewhere.
    Unsent(String),
    /// The connection broke before the answer began.
    Broken(String),
    /// The connection broke within the answer.
    Cut(String),
    /// An answer, or no answer, that no browser would mend.
    Final(String),
}

impl Browser {
    pub(super) fn new(
        number: usize,
        addresses: Arc<[SocketAddr]>,
        report: Arc<Mutex<Report>>,
        passed: watch::Sender<u64>,
    ) -> Self {
        let at = number % addresses.len();
        let speaks_http2 = (number / addresses.len()) % 3 == 2;
        let last_good = Instant::now();
        Self { number, addresses, at, speaks_http2, open: None, last_good, report, passed }
    }

    pub(super) async fn run(mut self, phase: Duration, every: Duration, stop: CancellationToken) {
        let mut ticks = interval_at(Moment::now() + phase, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for count in 0.. {
            if stop.run_until_cancelled(ticks.tick()).await.is_none() {
                return;
            }
            if count % NEW_CONNECTION_EVERY == NEW_CONNECTION_EVERY - 1 {
                // A page opened anew: another address of the name may come first.
                self.leave();
            }
            self.perform(&Ask::numbered(self.number, count)).await;
        }
    }

    async fn perform(&mut self, ask: &Ask) {
        let began = Instant::now();
        lock(&self.report).sent += 1;
        let (mut resent, mut moves) = (false, 0);
        let trouble = loop {
            let outcome = match self.connected().await {
                Ok(open) => open.exchange(ask).await,
                Err(error) => Err(Trouble::Unsent(error)),
            };
            match outcome {
                Ok(tries) => {
                    let gap = self.last_good.elapsed();
                    self.last_good = Instant::now();
                    lock(&self.report).passed(began.elapsed(), gap, tries > 1);
                    self.passed.send_modify(|passed| *passed += 1);
                    return;
                }
                // As many as there are addresses, and the connection that it had.
                Err(Trouble::Unsent(_)) if moves <= self.addresses.len() => {
                    moves += 1;
                    lock(&self.report).moved += 1;
                }
                Err(Trouble::Broken(_)) if ask.method.is_idempotent() && !resent => {
                    resent = true;
                    lock(&self.report).retried += 1;
                }
                Err(trouble) => break trouble,
            }
            self.leave();
        };
        let (reason, was_cut) = match trouble {
            Trouble::Unsent(reason) => (format!("nowhere to send it: {reason}"), false),
            Trouble::Broken(reason) => (format!("the connection broke: {reason}"), false),
            Trouble::Cut(reason) => (format!("the answer was cut: {reason}"), true),
            Trouble::Final(reason) => (reason, false),
        };
        let failure = Failure {
            method: ask.method.clone(),
            mark: ask.mark.clone(),
            reason,
            was_cut,
            address: self.address(),
            at: SystemTime::now() - began.elapsed(),
            took: began.elapsed(),
        };
        lock(&self.report).failures.push(failure);
        self.leave();
    }

    fn address(&self) -> SocketAddr {
        self.addresses[self.at]
    }

    /// Gives the connection up; the next one is to the next address.
    fn leave(&mut self) {
        self.open = None;
        self.at = (self.at + 1) % self.addresses.len();
    }

    async fn connected(&mut self) -> Result<&mut Open, String> {
        if self.open.is_none() {
            let address = self.address();
            let opening = Open::at(address, self.speaks_http2);
            let open = timeout(CONNECT_LIMIT, opening)
                .await
                .map_err(|_| format!("{address} does not answer"))?
                .map_err(|error| format!("connecting to {address}: {error}"))?;
            self.open = Some(open);
        }
        Ok(self.open.as_mut().expect("it was just opened"))
    }
}

impl Open {
    async fn at(address: SocketAddr, speaks_http2: bool) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        let broken = std::io::Error::other::<hyper::Error>;
        let (sender, driver) = if speaks_http2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), stream).await.map_err(broken)?;
            let driver = tokio::spawn(async move { drop(driver.await) });
            (Sender::Http2(sender), driver)
        } else {
            let (sender, driver) = http1::handshake(stream).await.map_err(broken)?;
            let driver = tokio::spawn(async move { drop(driver.await) });
            (Sender::Http1(sender), driver)
        };
        Ok(Self { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    /// How many tries the edge needed.
    async fn exchange(&mut self, ask: &Ask) -> Result<u32, Trouble> {
        let Ok(response) = timeout(HEAD_LIMIT, self.send(ask)).await else {
            return Err(Trouble::Final(format!("no answer within {HEAD_LIMIT:?}")));
        };
        let (head, body) = response?.into_parts();
        let body = match timeout(BODY_LIMIT, body.collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return Err(Trouble::Cut(chain(&error))),
            Err(_) => return Err(Trouble::Cut(format!("no more of it within {BODY_LIMIT:?}"))),
        };
        ask.check(head.status.as_u16(), &head.headers, &body).map_err(Trouble::Final)
    }

    async fn send(&mut self, ask: &Ask) -> Result<Response<Incoming>, Trouble> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(|error| Trouble::Unsent(chain(&error)))?;
                sender.try_send_request(ask.request(false)).await.map_err(|mut error| {
                    let was_sent = error.take_message().is_none();
                    trouble(was_sent, &error.into_error())
                })
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(|error| Trouble::Unsent(chain(&error)))?;
                sender.try_send_request(ask.request(true)).await.map_err(|mut error| {
                    let was_sent = error.take_message().is_none();
                    trouble(was_sent, &error.into_error())
                })
            }
        }
    }
}

fn trouble(was_sent: bool, error: &hyper::Error) -> Trouble {
    let reason = chain(error);
    // RFC 9113 8.7: these two say that the request was not processed.
    let unread = reason.contains("refused stream") || reason.contains("not a result of an error");
    if was_sent && !unread { Trouble::Broken(reason) } else { Trouble::Unsent(reason) }
}

impl Ask {
    fn numbered(visitor: usize, count: u64) -> Self {
        // Neighbours differ in everything, and visitors are not in step.
        let turn = count + 7 * visitor as u64;
        let method = match turn % 8 {
            0 | 2 | 4 | 6 => Method::GET,
            7 => Method::PUT,
            _ => Method::POST,
        };
        let sends = if method == Method::GET { 0 } else { [100, 3_000, 20_000][turn as usize % 3] };
        let wants = [0, 600, 9_000][turn as usize % 3];
        let takes = if turn.is_multiple_of(5) { 80 } else { 0 };
        Self { method, mark: format!("{visitor}-{count}"), sends, wants, takes }
    }

    fn request(&self, is_http2: bool) -> Request<Body> {
        let Self { method, mark, sends, wants, takes } = self;
        let path = format!("/load/{wants}/{takes}");
        let request = Request::builder().method(method).header(MARK, mark);
        let request = if is_http2 {
            request.uri(format!("http://{}{path}", document::HOST))
        } else {
            request.uri(path).header(HOST, document::HOST)
        };
        let body = if *sends == 0 { Empty::new().boxed() } else { Bulk::new(*sends).boxed() };
        request.body(body).expect("a request")
    }

    /// How many tries the edge needed for this answer, if it is the right one.
    fn check(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Result<u32, String> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if status != 200 {
            let page = String::from_utf8_lossy(body);
            let title = page.split_once("<title>").and_then(|(_, rest)| rest.split_once("</title>"));
            let title = title.map_or("", |(title, _)| title);
            return Err(format!("status {status}: {title} {}", header(TRIES)));
        }
        if header(MARK) != self.mark {
            return Err(format!("the answer to {} instead", header(MARK)));
        }
        if header(DIGEST) != Digest::of_bulk(self.sends).to_string() {
            return Err(format!("the origin got {} and not {} bytes", header(DIGEST), self.sends));
        }
        let mut digest = Digest::new();
        digest.add(body);
        if digest != Digest::of_bulk(self.wants) {
            let said = header(CONTENT_LENGTH.as_str());
            return Err(format!("a body of {} bytes ({said}) and not of {}", digest.bytes, self.wants));
        }
        if headers.contains_key(LEAKED) {
            return Err(format!("the origin was sent {}", header(LEAKED)));
        }
        let mut internal = headers.keys().filter(|name| name.as_str().starts_with(INTERNAL));
        if let Some(name) = internal.find(|name| *name != TRIES) {
            return Err(format!("the visitor was sent {name}"));
        }
        Ok(header(TRIES).parse().unwrap_or(1))
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// How often the edge tried, if more than once (docs/retries.md).
const TRIES: &str = "adit-tries";
const NEW_CONNECTION_EVERY: u64 = 12;
/// What a visitor grants an address before it tries the next.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Longer than the product may hold a request back.
const HEAD_LIMIT: Duration = Duration::from_secs(25);
const BODY_LIMIT: Duration = Duration::from_secs(15);
