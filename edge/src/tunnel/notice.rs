//! What the edge itself asks a host that understands it (`adit_protocol::extensions`): whether its origins are
//! there, again and again, and to move its slot when the edge is about to go away. Knows one connection;
//! does not know visitors, and nothing that a visitor sends comes by here.

use std::time::{Duration, SystemTime};

use adit_protocol::extensions;
use adit_protocol::stream::Connect;
use http::Request;
use http::header::{HOST, HeaderValue};
use serde::Deserialize;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use crate::registry::{Connection, Move, Origin, Probe};
use crate::shutdown::Phase;
use crate::transport::connection::Transport;
use crate::transport::exchange::{ExchangeError, Reply, exchange};

/// Probes the host for as long as the connection serves, and tells it when the edge is about to go. Never
/// done; may be dropped at any point.
pub(super) async fn attend(live: &Connection, going: &Phase) {
    if live.features.notices {
        tokio::select! {
            () = probe(live) => {}
            () = going.wait() => Box::pin(drain(live)).await,
        }
    }
    std::future::pending().await
}

async fn probe(live: &Connection) {
    // Not all connections of a host at once, nor all hosts after a restart of the edge.
    sleep(FIRST_PROBE.mul_f64(fastrand::f64())).await;
    loop {
        // Boxed, so that it takes no memory between two probes.
        live.set_probe(Box::pin(look(live)).await);
        sleep(EVERY.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
    }
}

/// Whether a host that understands notices reaches its origins.
pub(crate) async fn look(live: &Connection) -> Probe {
    let began = Instant::now();
    let (is_ready, origins, error) = match timeout(PROBE, ask(&live.link, extensions::PROBE, LONGEST_PROBE))
        .await
    {
        Ok(Ok(Reply { head, body, .. })) => match serde_json::from_slice::<Report>(&body) {
            Ok(report) => (head.status().is_success() && report.ready, origins(report), None),
            Err(_) => (false, Vec::new(), Some(format!("it answered {} without a report", head.status()))),
        },
        Ok(Err(error)) => (false, Vec::new(), Some(cut(error.to_string()))),
        Err(_) => (false, Vec::new(), Some(format!("no answer within {} s", PROBE.as_secs()))),
    };
    if let Some(error) = &error {
        debug!(connector = %live.connector, index = live.index, error, "probe failed");
    }
    Probe { at: SystemTime::now(), took: began.elapsed(), is_ready, origins, error }
}

async fn drain(live: &Connection) {
    let moves = match timeout(DRAIN, ask(&live.link, extensions::DRAIN, LONGEST_WORD)).await {
        Ok(Ok(reply)) if reply.head.status().is_success() => Move::Moving,
        Ok(Ok(reply)) => {
            info!(connector = %live.connector, index = live.index, status = %reply.head.status(), "the host stays");
            Move::Staying
        }
        Ok(Err(error)) => {
            info!(connector = %live.connector, index = live.index, %error, "the host was not told to move");
            Move::Staying
        }
        Err(_) => Move::Staying,
    };
    live.set_move(moves);
}

/// Why a host did not answer as it should.
#[derive(Debug, Error)]
enum NoticeError {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Asks once; the answer may have `most` bytes of body. Dropped midway it cancels.
async fn ask(link: &Transport, word: HeaderValue, most: usize) -> Result<Reply, NoticeError> {
    let mut request = Request::new(());
    *request.uri_mut() = http::Uri::from_static(extensions::NOTICE_URI);
    let host = request.uri().host().and_then(|host| HeaderValue::from_str(host).ok());
    request.headers_mut().extend(host.map(|host| (HOST, host)));
    request.headers_mut().insert(extensions::NOTICE, word);
    let reply = exchange(link, &Connect::Http(request), most).await?;
    if reply.is_cut { Err(NoticeError::TooLong(most)) } else { Ok(reply) }
}

/// What a host says about its origins.
#[derive(Deserialize)]
struct Report {
    ready: bool,
    #[serde(default)]
    origins: Vec<ReportedOrigin>,
}

#[derive(Deserialize)]
struct ReportedOrigin {
    rule: String,
    origin: String,
    ok: bool,
    error: Option<String>,
}

fn origins(report: Report) -> Vec<Origin> {
    let origins = report.origins.into_iter().take(MOST_ORIGINS);
    origins
        .map(|ReportedOrigin { rule, origin, ok, error }| Origin {
            rule: cut(rule),
            origin: cut(origin),
            is_ok: ok,
            error: error.map(cut),
        })
        .collect()
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

const FIRST_PROBE: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(10);
/// A host looks at its origins for up to 16 s.
const PROBE: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(2);
/// Bytes of a report; a host looks at up to 256 origins.
const LONGEST_PROBE: usize = 256 << 10;
/// Bytes of an answer of which nobody reads more than the status.
const LONGEST_WORD: usize = 4 << 10;
/// What is kept of a report.
const MOST_ORIGINS: usize = 256;
/// Characters of each text in it.
const LONGEST_TEXT: usize = 256;
