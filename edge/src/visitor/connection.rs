//! One visitor's connection: speaks HTTP/1 or HTTP/2 on it within limits, and ends it when it is idle
//! or when the edge stops, so that no request is lost that was sent in good faith. Knows hyper; does not
//! know what a request means.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adit_net::unread::Counting;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tracing::debug;

use super::line::Line;
use super::preface::Protocol;
use super::service::{Handler, Service};
use crate::limits::in_flight::{Activity, SEND_BUFFER};
use crate::shutdown::Shutdown;

/// Serves requests on `stream` until either side ends it, or the edge stops.
pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    protocol: Protocol,
    handler: Handler,
    activity: &Arc<Activity>,
    stop: &Shutdown,
) {
    let Service { rays, counters, half_closed, .. } = &*handler.service;
    let (rays, counters, half_closed) = (rays.clone(), counters.clone(), *half_closed);
    let service = hyper::service::service_fn(move |request| Service::answer(handler.clone(), request));
    let over = farewell(protocol, activity, stop);
    match protocol {
        Protocol::Http1 => {
            let line = TokioIo::new(Line::new(stream, activity.clone(), rays, counters, half_closed));
            let connection = Box::pin(http1().serve_connection(line, service).with_upgrades());
            drive(connection, |connection| connection.graceful_shutdown(), over, activity, stop).await;
        }
        Protocol::Http2 => {
            let crumbs = activity.clone();
            let counted = Counting::new(stream, move |came| crumbs.crumbs_came(came));
            let connection = Box::pin(http2().serve_connection(TokioIo::new(counted), service));
            drive(connection, |connection| connection.graceful_shutdown(), over, activity, stop).await;
        }
    }
}

/// Drives a connection of either kind to its end; `finish` tells it to begin no more requests, which it is
/// told when it is `over` or idle. One whose visitor takes nothing any more is dropped. Boxed, because one of HTTP/1 is much smaller and there are thousands.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<Box<C>>,
    finish: impl FnOnce(Pin<&mut C>),
    over: impl Future<Output = ()>,
    activity: &Activity,
    stop: &Shutdown,
) {
    let ended = tokio::select! {
        // First, so that a request that is there counts.
        biased;
        result = connection.as_mut() => Some(result),
        () = over => None,
        () = activity.quiet(IDLE) => None,
        () = activity.cut() => return debug!("visitor cut off: it takes too little"),
        () = activity.dismissed() => return debug!("made room for another visitor"),
    };
    let result = match ended {
        Some(result) => result,
        None => {
            finish(connection.as_mut());
            // Requests under way may take as long as whoever stops us allows; half a head may not.
            tokio::select! {
                result = connection => result,
                () = activity.quiet(FAREWELL) => Ok(()),
                () = stop.cut.wait() => Ok(()),
                () = activity.cut() => Ok(()),
                () = activity.dismissed() => Ok(()),
            }
        }
    };
    if let Err(error) = result {
        debug!(%error, "visitor's connection broke off");
    }
}

/// Done when a stopping edge should begin no more requests on a connection.
async fn farewell(protocol: Protocol, activity: &Activity, stop: &Shutdown) {
    match protocol {
        // Closing is the only goodbye that an idle connection knows, and would hit a request that is on its
        // way. Until then the answers say it (`service`), and whoever asks meanwhile has heard it in time.
        Protocol::Http1 => stop.visitors.wait().await,
        // GOAWAY says which requests count (RFC 9113 6.8), so it cannot come too early. Who comes after it all
        // the same may stay as long as others.
        Protocol::Http2 if stop.draining.is_fired() => stop.visitors.wait().await,
        Protocol::Http2 => stop.draining.wait().await,
    }
    // Whoever has just come is not sent away before the first answer.
    tokio::select! {
        () = activity.begun() => {}
        () = async { stop.visitors.wait().await; sleep(FAREWELL).await } => {}
    }
    // What has arrived in this moment is seen before the connection is told.
    sleep(LAST_LOOK).await;
}

fn http1() -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        // `Line` tells a head that is late from a connection that is idle.
        .header_read_timeout(None)
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
        .initial_stream_window_size(HTTP2_WINDOW)
        // One upload that nobody takes must not stop the others of the same visitor.
        .initial_connection_window_size((HTTP2_STREAMS + 1) * HTTP2_WINDOW)
        .max_header_list_size(LONGEST_HEAD as u32)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_ERROR_RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PONG);
    http2
}

const MOST_HEADERS: usize = 128;
const LONGEST_HEAD: usize = 64 << 10;
pub(super) const HTTP1_BUFFER: usize = 128 << 10;
const HTTP2_STREAMS: u32 = 256;
/// Bytes of one upload that may wait here unread.
pub(super) const HTTP2_WINDOW: u32 = 1 << 20;
/// Streams that were reset before we looked at them ("rapid reset", CVE-2023-44487).
const HTTP2_PENDING_RESETS: usize = 20;
const HTTP2_ERROR_RESETS: usize = 256;
const HTTP2_PING: Duration = Duration::from_secs(30);
const HTTP2_PONG: Duration = Duration::from_secs(10);
/// A connection without requests is ended after this.
const IDLE: Duration = Duration::from_secs(75);
/// How long a connection without requests may take to end.
const FAREWELL: Duration = Duration::from_secs(1);
const LAST_LOOK: Duration = Duration::from_millis(10);
