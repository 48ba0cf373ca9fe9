//! A body whose small pieces go on as one where they are there at once: a frame of its own for each byte would cost
//! whoever sends and whoever takes it a hundred times the byte. What comes alone goes on alone, at once.
//!
//! Knows bodies; does not know who reads them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use crate::unread::{PIECE, SMALL};

/// Pieces that are smaller than [`SMALL`] are gathered, to at most [`PIECE`].
pub struct Gathered<B: Body> {
    body: B,
    /// What came behind the pieces that were gathered.
    behind: Option<Behind<B>>,
    /// The end was handed out.
    has_ended: bool,
}

type Behind<B> = Option<Result<Frame<Bytes>, <B as Body>::Error>>;

impl<B: Body<Data = Bytes> + Unpin> Gathered<B> {
    pub fn new(body: B) -> Self {
        Self { body, behind: None, has_ended: false }
    }

    pub fn get_ref(&self) -> &B {
        &self.body
    }

    /// The next frame, gathered of what is there to at most so many bytes.
    pub fn poll_within(
        &mut self,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let frame = match self.behind.take() {
            Some(frame) => frame,
            None => ready!(Pin::new(&mut self.body).poll_frame(cx)),
        };
        Poll::Ready(match frame {
            Some(Ok(frame)) if is_small(&frame) => {
                let first = frame.into_data().unwrap_or_default();
                Some(Ok(Frame::data(self.gather(first, most.min(PIECE), cx))))
            }
            None => {
                self.has_ended = true;
                None
            }
            frame => frame,
        })
    }

    /// Everything that is small and there. What ends it is kept for the next time.
    fn gather(&mut self, first: Bytes, most: usize, cx: &mut Context<'_>) -> Bytes {
        let mut all = BytesMut::new();
        // A body may have any number of pieces with nothing in them.
        for _ in 0..PIECE {
            if self.body.is_end_stream() {
                break;
            }
            let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(cx) else { break };
            let length = if all.is_empty() { first.len() } else { all.len() };
            match next {
                Some(Ok(frame)) if is_small(&frame) && length + data(&frame).len() <= most => {
                    if all.is_empty() {
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(data(&frame));
                }
                next => {
                    self.behind = Some(next);
                    break;
                }
            }
        }
        if all.is_empty() { first } else { all.freeze() }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Gathered<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.poll_within(PIECE, cx)
    }

    fn is_end_stream(&self) -> bool {
        // An end that waits behind what was gathered is no promise: whoever is told that nothing follows does not
        // look whether that was all there should be, and a body that broke off would pass for a whole one.
        self.has_ended || (!matches!(self.behind, Some(Some(_))) && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(Some(Ok(frame))) = &self.behind
            && let Some(data) = frame.data_ref()
        {
            let length = data.len() as u64;
            if let Some(most) = hint.upper() {
                hint.set_upper(most.saturating_add(length));
            }
            hint.set_lower(hint.lower().saturating_add(length));
        }
        hint
    }
}

fn is_small(frame: &Frame<Bytes>) -> bool {
    frame.is_data() && data(frame).len() < SMALL
}

fn data(frame: &Frame<Bytes>) -> &[u8] {
    frame.data_ref().map_or(&[], Bytes::as_ref)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http::HeaderMap;
    use http_body_util::BodyExt;

    use super::*;

    /// What a body brings, one a poll; `None`: nothing is there yet.
    struct Written(VecDeque<Option<Result<Frame<Bytes>, &'static str>>>);

    impl Body for Written {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            match self.0.pop_front() {
                Some(Some(frame)) => Poll::Ready(Some(frame)),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(None),
            }
        }
    }

    fn piece(length: usize) -> Option<Result<Frame<Bytes>, &'static str>> {
        Some(Ok(Frame::data(Bytes::from(vec![b'x'; length]))))
    }

    /// The lengths of what goes on, and how it ends.
    async fn read(
        frames: impl IntoIterator<Item = Option<Result<Frame<Bytes>, &'static str>>>,
    ) -> (Vec<usize>, &'static str) {
        let mut body = Gathered::new(Written(frames.into_iter().collect()));
        let mut lengths = Vec::new();
        loop {
            match body.frame().await {
                Some(Ok(frame)) if frame.is_trailers() => return (lengths, "trailers"),
                Some(Ok(frame)) => {
                    lengths.push(frame.into_data().expect("data").len());
                    assert!(!body.is_end_stream(), "the body has not said so");
                }
                Some(Err(error)) => return (lengths, error),
                None => {
                    assert!(body.is_end_stream() && body.frame().await.is_none());
                    return (lengths, "end");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_small_and_there_is_one_piece_and_all_else_goes_on_as_it_came() {
        for (frames, wanted) in [
            (vec![], (vec![], "end")),
            (vec![piece(1)], (vec![1], "end")),
            (vec![piece(1), piece(0), piece(2)], (vec![3], "end")),
            (vec![piece(1), None, piece(2)], (vec![1, 2], "end")),
            (vec![piece(1), piece(2), piece(SMALL), piece(3), piece(4)], (vec![3, SMALL, 7], "end")),
            (vec![piece(SMALL), piece(SMALL)], (vec![SMALL, SMALL], "end")),
            (vec![piece(1), piece(2), Some(Err("broken"))], (vec![3], "broken")),
            (vec![piece(1), Some(Ok(Frame::trailers(HeaderMap::new())))], (vec![1], "trailers")),
        ] {
            assert_eq!(read(frames).await, wanted);
        }
        let (lengths, _) = read((0..100_000).map(|_| piece(1))).await;
        assert!(lengths.len() <= 100_000 / PIECE + 1, "{lengths:?}");
        assert_eq!(lengths.iter().sum::<usize>(), 100_000);
    }

    #[tokio::test]
    async fn nothing_is_gathered_beyond_what_the_reader_takes() {
        let mut body = Gathered::new(Written([piece(2), piece(2), piece(2)].into_iter().collect()));
        for (most, wanted) in [(5, 4), (5, 2)] {
            let frame = std::future::poll_fn(|cx| body.poll_within(most, cx)).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap().len(), wanted);
        }
    }
}
