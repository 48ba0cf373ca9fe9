//! What the edge itself asks a host that understands it (`adit_protocol::own`): whether its origins are
//! there, again and again, and to move its slot when the edge is about to go away. Knows one connection;
//! does not know visitors, and nothing that a visitor sends comes by here.

use std::time::{Duration, SystemTime};

use adit_protocol::own;
use adit_protocol::stream::{Answer, Connect, DecodeError, EncodeError};
use bytes::{Bytes, BytesMut};
use http::header::{HOST, HeaderValue};
use http::{Request, StatusCode};
use serde::Deserialize;
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use crate::registry::{Live, Move, Origin, Probe};
use crate::shutdown::Moment;
use crate::transport::connection::{Channel, Link, Lost};
use crate::transport::http2;

/// Probes the host for as long as the connection serves, and tells it when the edge is about to go. Never
/// done; may be dropped at any point.
pub(super) async fn attend(live: &Live, going: &Moment) {
    if live.features.notices {
        tokio::select! {
            () = probe(live) => {}
            () = going.wait() => Box::pin(drain(live)).await,
        }
    }
    std::future::pending().await
}

async fn probe(live: &Live) {
    // Not all connections of a host at once, nor all hosts after a restart of the edge.
    sleep(FIRST_PROBE.mul_f64(fastrand::f64())).await;
    loop {
        let began = Instant::now();
        // Boxed, so that it takes no memory between two probes.
        let asked = Box::pin(ask(&live.link, own::PROBE, LONGEST_PROBE));
        let (is_ready, origins, error) = match timeout(PROBE, asked).await {
            Ok(Ok(reply)) => match serde_json::from_slice::<Report>(&reply.body) {
                Ok(report) => (reply.status.is_success() && report.ready, origins(report), None),
                Err(_) => (false, Vec::new(), Some(format!("it answered {} without a report", reply.status))),
            },
            Ok(Err(error)) => (false, Vec::new(), Some(cut(error.to_string()))),
            Err(_) => (false, Vec::new(), Some(format!("no answer within {} s", PROBE.as_secs()))),
        };
        if let Some(error) = &error {
            debug!(connector = %live.connector, index = live.index, error, "probe failed");
        }
        live.set_probe(Probe { at: SystemTime::now(), took: began.elapsed(), is_ready, origins, error });
        sleep(EVERY.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
    }
}

async fn drain(live: &Live) {
    let moves = match timeout(DRAIN, ask(&live.link, own::DRAIN, LONGEST_WORD)).await {
        Ok(Ok(reply)) if reply.status.is_success() => Move::Moving,
        Ok(Ok(reply)) => {
            info!(connector = %live.connector, index = live.index, status = %reply.status, "the host stays");
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

struct Reply {
    status: StatusCode,
    body: Bytes,
}

/// Why a host did not answer.
#[derive(Debug, Error)]
enum NoticeError {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("the notice cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("the host took nothing: {0}")]
    Write(#[from] quinn::WriteError),
    #[error("the host broke off: {0}")]
    Read(#[from] quinn::ReadError),
    #[error("the host broke off: {0}")]
    Body(#[from] std::io::Error),
    #[error("no answer: {0}")]
    NoAnswer(#[from] http2::NoAnswer),
    #[error("the host ended the stream without an answer")]
    Ended,
    #[error("the answer is not readable: {0}")]
    Decode(#[from] DecodeError),
    #[error("the host refused: {0}")]
    Refused(String),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Asks once; the answer may have `most` bytes of body. Dropped midway it cancels.
async fn ask(link: &Link, word: HeaderValue, most: usize) -> Result<Reply, NoticeError> {
    let mut request = Request::new(());
    *request.uri_mut() = http::Uri::from_static(own::NOTICE_URI);
    let host = request.uri().host().and_then(|host| HeaderValue::from_str(host).ok());
    request.headers_mut().extend(host.map(|host| (HOST, host)));
    request.headers_mut().insert(own::NOTICE, word);
    let connect = Connect::Http(request);
    match link.channel().await? {
        Channel::Quic(mut send, mut recv) => {
            send.write_chunk(connect.encode()?).await?;
            let _ = send.finish();
            let mut buffered = BytesMut::new();
            let answer = loop {
                let chunk = recv.read_chunk(LARGEST_CHUNK, true).await?.ok_or(NoticeError::Ended)?;
                buffered.extend_from_slice(&chunk.bytes);
                // The decoder refuses a head that is longer than the protocol allows.
                if let Some(answer) = Answer::decode(&mut buffered)? {
                    break answer;
                }
            };
            let status = status(answer)?;
            while let Some(chunk) = recv.read_chunk(LARGEST_CHUNK, true).await? {
                buffered.extend_from_slice(&chunk.bytes);
                if buffered.len() > most {
                    return Err(NoticeError::TooLong(most));
                }
            }
            Ok(Reply { status, body: buffered.freeze() })
        }
        Channel::Http2(channel) => {
            let (_up, mut down) = channel.send(&connect, true)?;
            let status = status(down.answer().await?)?;
            let mut body = BytesMut::new();
            while let Some(data) = std::future::poll_fn(|cx| down.poll_read(cx)).await? {
                body.extend_from_slice(&data);
                if body.len() > most {
                    return Err(NoticeError::TooLong(most));
                }
            }
            Ok(Reply { status, body: body.freeze() })
        }
    }
}

fn status(answer: Answer) -> Result<StatusCode, NoticeError> {
    match answer {
        Answer::Http(response) => Ok(response.status()),
        Answer::Accepted => Err(NoticeError::Ended),
        Answer::Refused { reason, .. } => Err(NoticeError::Refused(cut(reason))),
    }
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
const LARGEST_CHUNK: usize = 64 << 10;
/// What is kept of a report.
const MOST_ORIGINS: usize = 256;
/// Characters of each text in it.
const LONGEST_TEXT: usize = 256;
