//! A visitor's body, and the memory of its beginning: as long as no answer has begun and all of it was
//! kept, it can be sent once more from the start. Knows bodies; does not know where they go.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use adit_net::crumbs::Gathered;
use adit_pace::Flow;
use adit_protocol::extensions::Piece;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, sleep_until};

use crate::limits::in_flight::{Activity, Upload};
use crate::limits::per_address::Lingering;

/// See [`ReplayBody::next`].
pub(crate) struct ReplayBody {
    body: Gathered<Counted>,
    activity: Arc<Activity>,
    /// What waits for the host.
    flow: Arc<Flow>,
    /// The most that waits.
    window: u64,
    is_over: bool,
    trailers: Option<HeaderMap>,
    kept: Kept,
    /// What of the kept pieces was given out since the last rewind.
    given: usize,
    is_end_given: bool,
}

/// A body as it comes, each of whose frames is counted as taken.
struct Counted {
    body: Incoming,
    upload: Upload,
}

/// Pieces of a body that were given out before, without a copy of their bytes.
#[derive(Default)]
struct Kept {
    pieces: Vec<Bytes>,
    bytes: usize,
    is_lost: bool,
}

impl ReplayBody {
    /// `flow` is to begin with waiting, and at most `window` bytes wait.
    pub(crate) fn new(
        body: Incoming,
        activity: Arc<Activity>,
        flow: impl FnOnce(u64) -> Flow,
        window: u64,
    ) -> Self {
        let body = Gathered::new(Counted { body, upload: activity.upload() });
        let is_over = body.is_end_stream();
        let flow = Arc::new(flow(holds(&body, window)));
        Self {
            body,
            activity,
            flow,
            window,
            is_over,
            trailers: None,
            kept: Kept::default(),
            given: 0,
            is_end_given: false,
        }
    }

    /// The next piece, from memory or from the visitor; `None` at the end. May be dropped midway.
    pub(crate) async fn next(&mut self) -> Option<Result<Piece, hyper::Error>> {
        self.flow.asked();
        loop {
            if let Some(piece) = self.kept.pieces.get(self.given) {
                self.given += 1;
                self.flow.gave(piece.len());
                return Some(Ok(Piece::Data(piece.clone())));
            }
            if self.is_over {
                let trailers = if self.is_end_given { None } else { self.trailers.clone() };
                self.is_end_given = true;
                return Some(Ok(Piece::Trailers(trailers?)));
            }
            let wanted = self.activity.want_body();
            let frame = self.body.frame().await;
            drop(wanted);
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.is_over = true;
                    continue;
                }
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.kept.keep(&data);
                    self.given = self.kept.pieces.len();
                    self.flow.hold(holds(&self.body, self.window));
                    self.flow.gave(data.len());
                    return Some(Ok(Piece::Data(data)));
                }
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// Says when the upload has to end: the host takes too little of it.
    pub(crate) fn flow(&self) -> Arc<Flow> {
        self.flow.clone()
    }

    /// Whether [`ReplayBody::rewind`] would give the whole body again.
    pub(crate) fn is_replayable(&self) -> bool {
        !self.kept.is_lost
    }

    /// Begins anew. Only while the source [is replayable](ReplayBody::is_replayable).
    pub(crate) fn rewind(&mut self) {
        self.given = 0;
        self.is_end_given = false;
    }

    /// Keeps nothing any more: the body will not be needed again.
    pub(crate) fn forget(&mut self) {
        // What is still to be given from memory is the rest of it.
        self.kept.pieces.drain(..self.given);
        self.given = 0;
        self.kept.is_lost = true;
        if self.kept.pieces.is_empty() {
            self.kept.pieces = Vec::new();
        }
    }

    /// Whether the visitor has sent everything.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    /// A place to [exhaust](Self::exhaust) this body, unless its source has enough of them.
    pub(crate) fn linger(&self) -> Option<Lingering> {
        self.activity.linger()
    }

    /// Reads on and throws away, but no faster than it has to: it is work for nothing.
    pub(crate) async fn exhaust(mut self) {
        self.flow.asked();
        let _wanted = self.activity.want_body();
        let begun = Instant::now();
        let mut beyond = 0.0;
        while let Some(Ok(frame)) = self.body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            beyond += bytes as f64;
            let due = begun + Duration::from_secs_f64((beyond - AT_ONCE).max(0.0) / EACH_SECOND);
            if due > Instant::now() {
                sleep_until(due).await;
            }
        }
    }
}

/// What this edge holds of a body at most while its host takes nothing.
fn holds(body: &Gathered<Counted>, window: u64) -> u64 {
    MOST_KEPT as u64 + body.size_hint().exact().unwrap_or(u64::MAX).min(window)
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.upload.took(data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Counted {
    /// What has come and nobody wants does not count any more.
    fn drop(&mut self) {
        if !self.upload.has_crumbs() {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut body = Pin::new(self);
        while let Poll::Ready(Some(Ok(_))) = body.as_mut().poll_frame(&mut cx) {}
    }
}

impl Kept {
    fn keep(&mut self, piece: &Bytes) {
        if self.is_lost {
            return;
        }
        self.bytes += piece.len();
        if self.bytes > MOST_KEPT || self.pieces.len() == MOST_PIECES {
            // Half a body is of no use.
            *self = Self { is_lost: true, ..Self::default() };
        } else {
            self.pieces.push(piece.clone());
        }
    }
}

/// Bytes of a body of no use that are read as fast as they come, and those of each second after that.
const AT_ONCE: f64 = (8 << 20) as f64;
const EACH_SECOND: f64 = (2 << 20) as f64;
/// Bytes of a body that are kept for another attempt.
pub(crate) const MOST_KEPT: usize = 64 << 10;
/// Each piece may hold on to a whole read buffer of the visitor's connection.
const MOST_PIECES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_kept_up_to_its_limit_and_then_not_at_all() {
        let mut kept = Kept::default();
        for _ in 0..4 {
            kept.keep(&Bytes::from(vec![0; MOST_KEPT / 4]));
        }
        assert_eq!((kept.pieces.len(), kept.is_lost), (4, false));
        kept.keep(&Bytes::from_static(b"x"));
        assert_eq!((kept.pieces.capacity(), kept.is_lost), (0, true));
        kept.keep(&Bytes::from_static(b"x"));
        assert!(kept.pieces.is_empty());
    }

    #[test]
    fn many_small_pieces_are_not_kept_either() {
        let mut kept = Kept::default();
        for _ in 0..MOST_PIECES {
            kept.keep(&Bytes::from_static(b"x"));
        }
        assert!(!kept.is_lost);
        kept.keep(&Bytes::from_static(b"x"));
        assert!(kept.is_lost && kept.pieces.is_empty());
    }
}
