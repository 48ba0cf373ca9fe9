//! Origins that speak HTTP/2: many requests at once on one connection, or on a few.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, Shared};
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri, Version, request};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::AbortOnDropHandle;

use super::connect::{Stream, Target};
use super::pool::{Key, Pool};
use super::replay::{Attempt, Source};
use super::{Body, OriginError};

/// Connections of one shard to one origin. A further one is opened when all others are full.
const MOST_CONNECTIONS: usize = 4;
/// How often a request is sent that origins turn away unseen.
const MOST_ATTEMPTS: usize = 4;
/// Bytes of one answer that may wait here unread.
pub(super) const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// The same for all answers of a connection together: as much as there can be, so that answers which nobody
/// takes never stop others. How much of them is held in all is not decided here (`adit-pace`).
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const LARGEST_FRAME: u32 = 64 * 1024;
/// Bytes of one request that may wait here, besides what the origin's window allows.
const SEND_BUFFER: usize = 256 * 1024;
/// Requests at once on a new connection until the origin says how many it takes.
const FIRST_STREAMS: usize = 100;
/// An origin that says nothing while requests wait is asked, and given up if it does not answer in time.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(20);

/// How requests reach one origin.
pub(super) struct Http2 {
    pub(super) target: Arc<Target>,
    pub(super) key: Key,
    pub(super) scheme: Scheme,
    /// For requests without a usable host name of their own.
    pub(super) authority: Authority,
    /// How long a connection stays open without requests.
    pub(super) keep: Duration,
    /// Whether it may choose HTTP/1.1.
    pub(super) is_optional: bool,
}

/// The connections of one shard to one origin.
#[derive(Default)]
pub(super) struct Connections {
    open: Vec<Rc<Connection>>,
    opening: Option<Opening>,
}

/// Any number of requests wait for one connection.
type Opening = Shared<LocalBoxFuture<'static, Result<Rc<Connection>, OriginError>>>;

struct Connection {
    sender: SendRequest<Attempt>,
    /// Gone once it has nothing more to do: what still waits in it is handed back then.
    driver: Rc<RefCell<Option<Driver>>>,
    _drive: AbortOnDropHandle<()>,
    requests: Cell<usize>,
    /// Whether an answer has come on it.
    has_served: Cell<bool>,
    /// When the last request ended.
    idle: Cell<Instant>,
    keep: Duration,
}

type Driver = http2::Connection<TokioIo<Stream>, Attempt, Local>;

/// A request's place on a connection.
struct Place(Rc<Connection>);

/// What the body of an answer holds on to.
pub(super) struct Exchange {
    source: Source,
    _place: Place,
}

impl Http2 {
    /// Whether requests go this way: always, or if the origin agrees. Opens a connection to find out, which
    /// they then use.
    pub(super) async fn is_spoken(&self, pool: &Pool) -> Result<bool, OriginError> {
        if !self.is_optional {
            return Ok(true);
        }
        if pool.is_older(&self.key) {
            return Ok(false);
        }
        match self.place(pool).await {
            Ok(_) => Ok(true),
            Err(OriginError::NotHttp2 { .. }) => {
                pool.remember_older(&self.key);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether requests go this way, and a connection is there for the next.
    pub(super) async fn reach(&self, pool: &Pool) -> Result<bool, OriginError> {
        if self.is_optional {
            return self.is_spoken(pool).await;
        }
        self.place(pool).await.map(|_| true)
    }

    pub(super) async fn send(
        &self,
        pool: &Pool,
        head: request::Parts,
        body: Body,
    ) -> Result<(Response<Incoming>, Exchange), OriginError> {
        let head = self.address_head(head);
        let is_idempotent = head.method.is_idempotent();
        let source = Source::new(body);
        let mut last = None;
        let mut was_cut = false;
        for _ in 0..MOST_ATTEMPTS {
            let place = match self.place(pool).await {
                Ok(place) => place,
                // Whoever is told that there is no connection must be able to rely on nothing having been sent.
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let Some(attempt) = source.attempt() else { break };
            let request = Request::from_parts(head.clone(), attempt);
            let mut sender = place.0.sender.clone();
            let was_reused = place.0.has_served.get();
            match self.target.in_time(sender.try_send_request(request)).await? {
                Ok(response) => {
                    source.forget();
                    place.0.has_served.set(true);
                    return Ok((response, Exchange { source, _place: place }));
                }
                Err(mut error) => {
                    let was_sent = error.take_message().is_none();
                    let error = error.into_error();
                    // The origin's goodbye, which it did not say, may have crossed the request. Once: what ends
                    // a connection may be the request itself.
                    let is_cut = was_reused && is_idempotent && !was_cut && is_cut(&error);
                    let may_repeat = !was_sent || is_unseen(&error) || is_cut;
                    was_cut |= is_cut;
                    if is_abandoned(&error) {
                        return Err(OriginError::Request { source: Arc::new(error) });
                    }
                    let error = self.target.exchange(error);
                    if !may_repeat {
                        return Err(error);
                    }
                    last = Some(error).filter(|_| was_sent).or(last);
                    if is_cut {
                        // The others may have ended with it: their drivers look first.
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| self.target.closed()))
    }

    /// A place on the connection that has the fewest requests; opens one if all are full.
    async fn place(&self, pool: &Pool) -> Result<Place, OriginError> {
        loop {
            let (opening, best) = {
                let mut all = pool.multiplexed.borrow_mut();
                let connections = all.entry(self.key.clone()).or_default();
                connections.open.retain(|connection| connection.is_open());
                let best = connections.open.iter().min_by_key(|connection| connection.requests.get());
                let best = best.cloned();
                match best {
                    Some(best) if best.has_room() || connections.open.len() >= MOST_CONNECTIONS => {
                        return Ok(Place::on(&best));
                    }
                    best => (connections.opening.get_or_insert_with(|| self.open(pool)).clone(), best),
                }
            };
            match (opening.await, best) {
                (Ok(opened), _) if opened.is_open() => {}
                // It waits until there is room on another.
                (_, Some(best)) if best.is_open() => return Ok(Place::on(&best)),
                (Ok(_), _) => return Err(self.target.closed()),
                (Err(error), _) => return Err(error),
            }
        }
    }

    /// Opens a connection in a task of its own, so that it comes about whoever stops waiting.
    fn open(&self, pool: &Pool) -> Opening {
        let (target, key, keep, pool) = (self.target.clone(), self.key.clone(), self.keep, pool.clone());
        let task = AbortOnDropHandle::new(tokio::task::spawn_local(async move {
            let opened = open(&target, keep).await;
            let mut all = pool.multiplexed.borrow_mut();
            if let Some(connections) = all.get_mut(&key) {
                connections.opening = None;
                connections.open.extend(opened.clone());
            }
            opened
        }));
        let gone = self.target.closed();
        task.map(|opened| opened.unwrap_or(Err(gone))).boxed_local().shared()
    }

    /// Points a head at this origin: the address is absolute, and the host stands in it alone.
    fn address_head(&self, mut head: request::Parts) -> request::Parts {
        head.version = Version::HTTP_2;
        let asked = head.headers.remove(HOST);
        let asked = asked.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(self.scheme.clone());
        uri.authority = Some(asked.unwrap_or_else(|| self.authority.clone()));
        uri.path_and_query =
            Some(head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(uri).unwrap_or_default();
        head
    }
}

async fn open(target: &Target, keep: Duration) -> Result<Rc<Connection>, OriginError> {
    let stream = target.connect().await?;
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(FIRST_STREAMS)
        .max_frame_size(LARGEST_FRAME)
        .max_header_list_size(super::LARGEST_HEAD)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT);
    let (sender, driver) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| target.exchange(error))?;
    let driver = Rc::new(RefCell::new(Some(driver)));
    let driven = driver.clone();
    let drive = AbortOnDropHandle::new(tokio::task::spawn_local(async move {
        // Whoever waits for an answer on this connection is told the reason.
        let ended = poll_fn(|cx| match &mut *driven.borrow_mut() {
            Some(driver) => Pin::new(driver).poll(cx),
            None => Poll::Ready(Ok(())),
        });
        let _ = ended.await;
        drop(driven.take());
    }));
    Ok(Rc::new(Connection {
        sender,
        driver,
        _drive: drive,
        requests: Cell::new(0),
        has_served: Cell::new(false),
        idle: Cell::new(Instant::now()),
        keep,
    }))
}

impl Connections {
    /// Closes what has had no request for too long; whether there is anything left.
    pub(super) fn sweep(&mut self) -> bool {
        let is_idle = |connection: &Connection| {
            connection.requests.get() == 0 && connection.idle.get().elapsed() >= connection.keep
        };
        self.open.retain(|connection| connection.is_open() && !is_idle(connection));
        !self.open.is_empty() || self.opening.is_some()
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    fn has_room(&self) -> bool {
        let most = self.driver.borrow().as_ref().map_or(0, Driver::current_max_send_streams);
        self.requests.get() < most
    }
}

impl Place {
    fn on(connection: &Rc<Connection>) -> Self {
        connection.requests.set(connection.requests.get() + 1);
        Self(connection.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
        self.0.idle.set(Instant::now());
    }
}

impl Exchange {
    /// The answer is complete.
    pub(super) fn finish(self) {
        self.source.finish();
    }
}

/// Whether the origin says that it has not looked at a request, so that it may be sent once more (RFC 9113,
/// 8.7). Only those behind the last that it works on fail with GOAWAY; the others go on, and fail with the
/// connection if it ends.
fn is_unseen(error: &hyper::Error) -> bool {
    of_stream(error).is_some_and(|error| {
        let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let is_behind = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        error.is_remote() && (is_refused || is_behind)
    })
}

/// Whether the connection ended without a word about its streams.
fn is_cut(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error);
    cause.is_some_and(|cause| cause.is::<std::io::Error>()) || of_stream(error).is_some_and(h2::Error::is_io)
}

/// Whether this side has given the stream up, as it does when a request breaks off.
fn is_abandoned(error: &hyper::Error) -> bool {
    of_stream(error).is_some_and(|error| error.is_reset() && !error.is_remote() && !error.is_library())
}

fn of_stream(error: &hyper::Error) -> Option<&h2::Error> {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<h2::Error>() {
            return Some(error);
        }
        next = cause.source();
    }
    None
}

/// Starts tasks on the shard's own thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}
