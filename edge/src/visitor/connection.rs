//! One visitor's connection: speaks HTTP/1 or HTTP/2 on it within limits, and ends it when it is idle
//! or when the edge stops. Knows hyper; does not know what a request means.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::preface::Protocol;
use super::service::{Handler, Service};

/// What all requests of one connection share.
pub(crate) struct Activity {
    requests: AtomicUsize,
    began: Instant,
    /// Milliseconds from `began` to the end of the last request.
    ended: AtomicU64,
    /// Held as long as anything of the connection lives, a WebSocket made of it included.
    _permit: OwnedSemaphorePermit,
}

/// A request under way: as long as it lives, its connection is not idle.
pub(crate) struct Busy(Arc<Activity>);

impl Activity {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Arc<Self> {
        Arc::new(Self {
            requests: AtomicUsize::new(0),
            began: Instant::now(),
            ended: AtomicU64::new(0),
            _permit: permit,
        })
    }

    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Waits until there was no request for the whole of [`IDLE`].
    async fn idle(&self) {
        loop {
            let ended = self.ended.load(Ordering::Relaxed);
            let is_busy = self.requests.load(Ordering::Relaxed) > 0;
            let from = if is_busy { Instant::now() } else { self.began + Duration::from_millis(ended) };
            if !is_busy && from.elapsed() >= IDLE {
                return;
            }
            sleep_until(from + IDLE).await;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let ended = u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.ended.store(ended, Ordering::Relaxed);
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves requests on `stream` until either side ends it. After `stop` the requests under way are
/// finished and no others begin.
pub(super) async fn serve(
    stream: impl Read + Write + Unpin + Send + 'static,
    protocol: Protocol,
    handler: Handler,
    activity: &Activity,
    stop: &CancellationToken,
) {
    let service = hyper::service::service_fn(move |request| Service::answer(handler.clone(), request));
    match protocol {
        Protocol::Http1 => {
            let connection = http1().serve_connection(stream, service).with_upgrades();
            drive(connection, |connection| connection.graceful_shutdown(), activity, stop).await;
        }
        Protocol::Http2 => {
            let connection = http2().serve_connection(stream, service);
            drive(connection, |connection| connection.graceful_shutdown(), activity, stop).await;
        }
    }
}

/// Drives a connection of either kind to its end; `finish` tells it to begin no more requests.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    finish: impl FnOnce(Pin<&mut C>),
    activity: &Activity,
    stop: &CancellationToken,
) {
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            finish(connection.as_mut());
            // Who stops us also says how long this may take.
            connection.await
        }
        () = activity.idle() => {
            finish(connection.as_mut());
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        debug!(%error, "visitor's connection broke off");
    }
}

fn http1() -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MOST_HEADERS)
        .max_header_size(LONGEST_HEAD)
        .max_buf_size(HTTP1_BUFFER);
    http1
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(LONGEST_HEAD as u32)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_ERROR_RESETS)
        .max_send_buf_size(HTTP2_SEND_BUFFER)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PONG);
    http2
}

/// From a connection, or from the last answer, to the end of the next head.
const HEAD: Duration = Duration::from_secs(30);
const MOST_HEADERS: usize = 128;
const LONGEST_HEAD: usize = 64 << 10;
const HTTP1_BUFFER: usize = 128 << 10;
const HTTP2_STREAMS: u32 = 256;
/// Streams that were reset before we looked at them ("rapid reset", CVE-2023-44487).
const HTTP2_PENDING_RESETS: usize = 20;
const HTTP2_ERROR_RESETS: usize = 256;
const HTTP2_SEND_BUFFER: usize = 128 << 10;
const HTTP2_PING: Duration = Duration::from_secs(30);
const HTTP2_PONG: Duration = Duration::from_secs(10);
/// A connection without requests is ended after this.
const IDLE: Duration = Duration::from_secs(75);
const FAREWELL: Duration = Duration::from_secs(5);
