//! A visitor's body on its way to the host. Knows when to stop and how to be polite to a visitor
//! that is still sending; does not know answers.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::stream::Upstream;
use crate::tunnel::link::WriteError;

/// How an upload came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadEnd {
    Finished,
    /// The host has its answer and wants no more (wire.md 4.3), which is no failure.
    NotWanted,
    /// The visitor's body broke off; the request cannot succeed.
    VisitorFailed,
    /// The connection is lost, or the host took nothing for too long.
    HostFailed,
}

/// Why an upload has to stop although both sides could go on. If the sender is dropped without a
/// word, the request was cancelled.
pub(super) enum Brake {
    AnswerIsWhole,
}

/// Sends the body chunk by chunk. Dropped midway it resets the stream.
pub(super) async fn run(
    mut up: Upstream,
    mut body: Incoming,
    mut brake: oneshot::Receiver<Brake>,
    tasks: TaskTracker,
) -> UploadEnd {
    let end = tokio::select! {
        end = pump(&mut up, &mut body) => end,
        cause = &mut brake => match cause {
            Ok(Brake::AnswerIsWhole) => UploadEnd::NotWanted,
            Err(_) => UploadEnd::VisitorFailed,
        },
    };
    drop(up);
    if end == UploadEnd::NotWanted {
        tasks.spawn(linger(body));
    }
    end
}

async fn pump(up: &mut Upstream, body: &mut Incoming) -> UploadEnd {
    loop {
        match body.frame().await {
            None => {
                up.finish();
                return UploadEnd::Finished;
            }
            Some(Err(_)) => return UploadEnd::VisitorFailed,
            // Trailers do not cross (wire.md 4.3).
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data()
                    && !bytes.is_empty()
                    && let Err(end) = write(up, bytes).await
                {
                    return end;
                }
            }
        }
    }
}

async fn write(up: &mut Upstream, bytes: Bytes) -> Result<(), UploadEnd> {
    match timeout(STALLED, up.write(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(WriteError::Unwanted)) => Err(UploadEnd::NotWanted),
        Ok(Err(WriteError::Lost(_))) | Err(_) => Err(UploadEnd::HostFailed),
    }
}

/// Reads what a visitor still sends and throws it away. Most clients read an early answer only when
/// they have sent everything, and closing with unread bytes would take the answer from them.
pub(super) async fn linger(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    let _ = timeout(LINGER, async { while let Some(Ok(_)) = body.frame().await {} }).await;
}

/// How long a host may take no byte of an upload.
const STALLED: Duration = Duration::from_secs(100);
const LINGER: Duration = Duration::from_secs(10);
