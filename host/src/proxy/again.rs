//! Requests that are sent once more because somebody looks at them: through the rules and the chain as they are now,
//! on the thread of a shard like any other. Only so many a second, and to nowhere but where the rules lead.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, request};
use http_body_util::BodyExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::info;
use uuid::Uuid;

use super::respond::Answer;
use super::{Kind, Proxy, Request};
use crate::origin::{empty, full};

/// Hands requests to a shard. Can be cloned and used from any thread.
#[derive(Clone)]
pub struct Replays {
    asks: mpsc::Sender<Ask>,
    /// How many there were in the second that began then.
    pace: Arc<Mutex<(Instant, u32)>>,
}

/// Where a shard takes them from.
pub struct Replayed(mpsc::Receiver<Ask>);

struct Ask {
    head: request::Parts,
    body: Bytes,
    done: oneshot::Sender<Outcome>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The id under which logs have it.
    pub id: String,
    pub status: u16,
    /// Whether the answer came to its end.
    pub is_whole: bool,
}

/// Why it was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayed {
    #[error("at most {MOST_A_SECOND} requests a second are sent again")]
    TooMany,
    #[error("the host is stopping, or there was no answer within {PATIENCE:?}")]
    Unanswered,
}

impl Replays {
    pub fn new() -> (Self, Replayed) {
        let (asks, inbox) = mpsc::channel(MOST_A_SECOND as usize);
        (Self { asks, pace: Arc::new(Mutex::new((Instant::now(), 0))) }, Replayed(inbox))
    }

    /// Sends it, with a new id and a mark that says what it is; waits for the whole answer.
    ///
    /// # Errors
    /// It was not sent, or nobody knows what came of it.
    pub async fn send(&self, mut head: request::Parts, body: Bytes) -> Result<Outcome, NotReplayed> {
        if !self.has_room(Instant::now()) {
            return Err(NotReplayed::TooMany);
        }
        let id = Uuid::new_v4().simple().to_string();
        head.headers.insert(RAY, HeaderValue::from_str(&id).expect("an id is hexadecimal"));
        head.headers.insert(REPLAY, HeaderValue::from_static("1"));
        let (done, outcome) = oneshot::channel();
        self.asks.try_send(Ask { head, body, done }).map_err(|_| NotReplayed::TooMany)?;
        match timeout(PATIENCE, outcome).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(_)) | Err(_) => Err(NotReplayed::Unanswered),
        }
    }

    fn has_room(&self, now: Instant) -> bool {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(pace.0) >= Duration::from_secs(1) {
            *pace = (now, 0);
        }
        pace.1 += 1;
        pace.1 <= MOST_A_SECOND
    }
}

impl Replayed {
    /// Serves them until the last who could ask is gone.
    pub async fn serve(mut self, proxy: Rc<Proxy>) {
        while let Some(Ask { head, body, mut done }) = self.0.recv().await {
            let proxy = proxy.clone();
            tokio::task::spawn_local(async move {
                tokio::select! {
                    // Whoever asked waits no more: it ends as that of a visitor who has left.
                    () = done.closed() => {}
                    outcome = exchange(proxy, head, body) => {
                        let _ = done.send(outcome);
                    }
                }
            });
        }
    }
}

async fn exchange(proxy: Rc<Proxy>, head: request::Parts, body: Bytes) -> Outcome {
    let id = head.headers.get(RAY).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    info!(id, method = %head.method, path = head.uri.path(), "a request is sent again");
    let body = if body.is_empty() { empty() } else { full(body) };
    let answer = proxy.handle(Request { kind: Kind::Http, head, body, takes_trailers: false }).await;
    let status = answer.status().as_u16();
    let mut is_whole = true;
    if let Answer::Response(response) = answer {
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            is_whole &= frame.is_ok();
            if !is_whole {
                break;
            }
        }
    }
    Outcome { id, status, is_whole }
}

/// Where the edge puts the id of a request.
const RAY: HeaderName = HeaderName::from_static("cf-ray");
/// Says to plugins and services that nobody has asked.
const REPLAY: HeaderName = HeaderName::from_static("adit-replay");
const MOST_A_SECOND: u32 = 10;
/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_sent_in_a_second() {
        let (replays, _inbox) = Replays::new();
        let now = Instant::now();
        let sent = (0..100).filter(|_| replays.has_room(now)).count();
        assert_eq!(sent, MOST_A_SECOND as usize);
        assert!(replays.has_room(now + Duration::from_millis(1001)));
    }
}
