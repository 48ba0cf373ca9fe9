//! A visitor's body on its way to the host. Knows when to stop and how to be polite to a visitor
//! that is still sending; does not know answers.

use std::time::Duration;

use adit_protocol::extensions::Piece;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::forward::headers;
use crate::forward::replay::ReplayBody;
use crate::transport::connection::WriteError;
use crate::transport::stream::Upstream;

/// How an upload came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadEnd {
    Finished,
    /// The host has its answer and wants no more (wire.md 4.3), which is no failure.
    NotWanted,
    /// The host turns the request away and has processed nothing of it.
    Refused,
    /// The visitor's body broke off; the request cannot succeed.
    VisitorFailed,
    /// The connection is lost.
    Lost,
    /// The host took too little for too long.
    Stalled,
}

/// Why an upload has to stop although both sides could go on. If the sender is dropped without a
/// word, the request was cancelled.
pub(super) enum Brake {
    AnswerIsWhole,
}

/// A body on its way. Dropped before its end it resets the stream.
pub(super) struct Upload {
    pub(super) up: Upstream,
    pub(super) source: ReplayBody,
    /// How long the host may take no byte of it.
    pub(super) patience: Duration,
}

impl Upload {
    /// Sends the body chunk by chunk. May be dropped midway and called again.
    pub(super) async fn pump(&mut self) -> UploadEnd {
        loop {
            match timeout(self.patience, self.up.flush()).await {
                Ok(Ok(())) => {}
                Ok(Err(WriteError::Unwanted)) => return UploadEnd::NotWanted,
                Ok(Err(WriteError::Refused)) => return UploadEnd::Refused,
                Ok(Err(WriteError::Lost(_))) => return UploadEnd::Lost,
                Err(_) => return UploadEnd::Stalled,
            }
            let trailers = match self.source.next().await {
                Some(Ok(Piece::Data(bytes))) => {
                    self.up.load(bytes);
                    continue;
                }
                Some(Ok(Piece::Trailers(mut trailers))) => {
                    headers::trailers_for_origin(&mut trailers);
                    Some(trailers)
                }
                Some(Err(_)) => return UploadEnd::VisitorFailed,
                None => None,
            };
            // A body whose end cannot be said must not look whole.
            return match self.up.finish_with(trailers).await {
                Ok(()) => UploadEnd::Finished,
                Err(_) => UploadEnd::VisitorFailed,
            };
        }
    }

    /// Sends the rest of the body beside the answer.
    pub(super) async fn run(mut self, mut brake: oneshot::Receiver<Brake>, tasks: TaskTracker) -> UploadEnd {
        let flow = self.source.flow();
        let end = tokio::select! {
            end = self.pump() => end,
            _ = flow.cut() => UploadEnd::Stalled,
            cause = &mut brake => match cause {
                Ok(Brake::AnswerIsWhole) => UploadEnd::NotWanted,
                Err(_) => UploadEnd::VisitorFailed,
            },
        };
        let Self { up, source, patience: _ } = self;
        drop(up);
        if end == UploadEnd::NotWanted {
            linger(source, &tasks);
        }
        end
    }
}

/// Reads what a visitor still sends and throws it away. Most clients read an early answer only when
/// they have sent everything, and closing with unread bytes would take the answer from them. A source that
/// does it too often at once loses the answers beyond its share.
pub(super) fn linger(source: ReplayBody, tasks: &TaskTracker) {
    if !source.is_over()
        && let Some(lingering) = source.linger()
    {
        tasks.spawn(timeout(LINGER, async move {
            source.exhaust().await;
            drop(lingering);
        }));
    }
}

const LINGER: Duration = Duration::from_secs(10);
