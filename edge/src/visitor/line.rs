//! The line of an HTTP/1.1 visitor, as the HTTP library sees it: how long it may be silent within a head,
//! what its end means, and a page where the library would answer what it cannot read with nothing. Knows
//! when requests are under way; does not know what they say.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::forward::ray::Rays;
use crate::limits::in_flight::Activity;
use crate::metrics::{Counters, Speaks};
use crate::visitor::error_page::{self, Problem, Wanted};

/// What a timer of a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// The rest of a head.
    Head,
    /// The beginning of a request whose head may be there.
    Request,
    /// More of a body than there will be, unless somebody is about to see what there is.
    Body,
    /// Something of an answer that can be sent.
    Answer,
}

/// A visitor's connection over HTTP/1.1.
pub(super) struct Line<T> {
    stream: T,
    activity: Arc<Activity>,
    rays: Arc<Rays>,
    counters: Arc<Counters>,
    /// How long a visitor that has ended its direction may wait without a byte.
    half_closed: Duration,
    /// How long a head may take.
    patience: Duration,
    /// Requests that had begun when the head that is arriving did, and when that was.
    head: Option<(usize, Instant)>,
    /// The visitor sends nothing more.
    has_ended: bool,
    /// What was decided about an end that is kept back, or about a head that is late, and what it is that is
    /// waited for.
    timer: Option<(Awaited, Pin<Box<Sleep>>)>,
    /// Something was sent since the timer began.
    has_moved: bool,
    /// The first of two last looks is over.
    has_looked: bool,
    /// To be told once an end needs to be kept back no longer.
    reader: Option<Waker>,
    /// A page in the place of an answer of the library.
    page: Bytes,
}

impl<T> Line<T> {
    pub(super) fn new(
        stream: T,
        activity: Arc<Activity>,
        rays: Arc<Rays>,
        counters: Arc<Counters>,
        half_closed: Duration,
    ) -> Self {
        Self {
            stream,
            activity,
            rays,
            counters,
            half_closed,
            patience: HEAD,
            // A first head is on its way from the beginning.
            head: Some((0, Instant::now())),
            has_ended: false,
            timer: None,
            has_moved: false,
            has_looked: false,
            reader: None,
            page: Bytes::new(),
        }
    }

    /// When the head began that is arriving, if one is.
    fn head_began(&self) -> Option<Instant> {
        let (total, began) = self.head?;
        (total == self.activity.total()).then_some(began)
    }

    /// Whether the timer for this is over, which begins with this call if there is none; one for something else
    /// says nothing any more. Boxed, because few connections ever need it.
    fn poll_timer(
        &mut self,
        awaited: Awaited,
        until: impl FnOnce() -> Instant,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.timer.as_ref().is_some_and(|(other, _)| *other != awaited) {
            (self.timer, self.has_looked) = (None, false);
        }
        let (_, timer) = self.timer.get_or_insert_with(|| {
            self.has_moved = false;
            (awaited, Box::pin(sleep_until(until())))
        });
        ready!(timer.as_mut().poll(cx));
        self.timer = None;
        Poll::Ready(())
    }

    /// Twice the timer: where the process stood still, the first is over before anybody else had a turn.
    fn poll_last_look(&mut self, awaited: Awaited, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.poll_timer(awaited, || Instant::now() + LAST_LOOK, cx));
            if std::mem::replace(&mut self.has_looked, true) {
                self.has_looked = false;
                return Poll::Ready(());
            }
        }
    }

    /// The end of what the visitor sends. It may be there all the same, and wait for its answer: whoever leaves
    /// looks like that too. So the end is kept back while there is an answer to come, until for a while nothing
    /// could be sent.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.half_closed.is_zero() {
            return Poll::Ready(Ok(()));
        }
        self.reader = Some(cx.waker().clone());
        if !self.activity.is_busy() {
            // What came right before may be a whole request that is only about to begin.
            if self.head_began().is_some() {
                ready!(self.poll_last_look(Awaited::Request, cx));
            }
            return Poll::Ready(Ok(()));
        }
        loop {
            // Somebody waits for more of a body than there will be, unless that is only about to be seen.
            let is_short = self.activity.wants_body();
            if is_short {
                ready!(self.poll_last_look(Awaited::Body, cx));
            } else {
                let patience = self.half_closed;
                ready!(self.poll_timer(Awaited::Answer, || Instant::now() + patience, cx));
            }
            if !self.has_moved && is_short == self.activity.wants_body() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// A request that the library has not handed on. Rare, so that all shards count on one.
    fn count(&self, problem: Problem, status: StatusCode) {
        let none = self.counters.series.none();
        none.page(0, problem.word());
        none.answered(0, Speaks::Http1, status.as_u16(), Duration::ZERO);
    }

    /// The page for an answer of the library itself: to what it could not read, without a request that began
    /// and without anything of ours in it.
    fn page(&self, answer: &[u8]) -> Option<Bytes> {
        self.head_began()?;
        let status = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let status = StatusCode::from_bytes(status).ok().filter(StatusCode::is_client_error)?;
        let text = std::str::from_utf8(answer).ok()?.to_ascii_lowercase();
        if !text.ends_with("\r\n\r\n")
            || !text.contains("\r\ncontent-length: 0\r\n")
            || text.contains("\r\ncf-ray:")
        {
            return None;
        }
        let wanted = Wanted::of(&Method::GET, &HeaderMap::new());
        let problem = error_page::unreadable(status);
        let page = error_page::page(problem, wanted, &self.rays.next());
        self.count(problem, page.status());
        let (parts, body) = page.into_parts();
        let mut said =
            format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason()?).into_bytes();
        for (name, value) in &parts.headers {
            said.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        said.extend_from_slice(b"connection: close\r\n\r\n");
        said.extend_from_slice(&body);
        Some(said.into())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Line<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.activity.has_switched() {
            return Pin::new(&mut this.stream).poll_read(cx, into);
        }
        if this.has_ended {
            return this.poll_end(cx);
        }
        let before = into.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, into) {
            Poll::Ready(Ok(())) if into.filled().len() > before => {
                if !this.activity.is_busy() && this.head_began().is_none() {
                    this.head = Some((this.activity.total(), Instant::now()));
                    this.timer = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) => {
                this.has_ended = into.remaining() > 0;
                this.timer = None;
                this.poll_end(cx)
            }
            Poll::Pending => {
                let Some(began) = this.head_began() else { return Poll::Pending };
                let late = began + this.patience;
                ready!(this.poll_timer(Awaited::Head, || late, cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }
}

impl<T: AsyncWrite + Unpin> Line<T> {
    fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.page.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.page))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.page.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Line<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_page(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // The library does not ask again by itself what it was told to wait for.
        if !self.activity.is_busy()
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_page(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let [answer] = slices
            && let Some(page) = this.page(answer)
        {
            this.page = page;
            // The library thinks that its own has gone.
            let _ = this.poll_page(cx)?;
            return Poll::Ready(Ok(answer.len()));
        }
        ready!(this.poll_page(cx))?;
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices));
        this.has_moved = true;
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// From the first byte of a head, or the beginning of the connection, to the end of the head.
const HEAD: Duration = Duration::from_secs(30);
/// What has arrived of a body is seen by those who wait for it.
const LAST_LOOK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use adit_net::admission::Admission;
    use adit_pace::Account;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::timeout;

    use super::*;
    use crate::limits::pace::Share;
    use crate::limits::per_address::{AddressLimits, Limits};

    fn line() -> (Line<DuplexStream>, DuplexStream, Arc<Activity>) {
        let limits = Limits { connections: 0, requests: 0, unlimited: Vec::new() };
        let address = [127, 0, 0, 1].into();
        let source = AddressLimits::new(limits).admit(address).unwrap();
        let account = Account::new(adit_pace::Limits::default(), 1);
        let place = Admission::shared(2).admit(address);
        let activity = Activity::new(place, source, &Share::new(&account, 0, address));
        let (ours, theirs) = tokio::io::duplex(4096);
        let mut line =
            Line::new(ours, activity.clone(), Arc::new(Rays::new("test")), Counters::new(1), SHORT);
        line.patience = SHORT;
        (line, theirs, activity)
    }

    #[tokio::test]
    async fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
        let (mut line, mut visitor, activity) = line();
        let mut buffer = [0; 64];
        visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(line.read(&mut buffer).await.unwrap(), 18);
        drop(activity.begin());
        // Nothing of a head is there.
        assert!(timeout(3 * SHORT, line.read(&mut buffer)).await.is_err());
        visitor.write_all(b"GET").await.unwrap();
        assert_eq!(line.read(&mut buffer).await.unwrap(), 3);
        let began = Instant::now();
        assert_eq!(line.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() > SHORT / 2);
    }

    #[tokio::test]
    async fn the_first_head_is_waited_for_from_the_beginning() {
        let (mut line, _visitor, _activity) = line();
        assert_eq!(line.read(&mut [0; 64]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_end_is_kept_back_while_something_can_be_sent() {
        let (mut line, mut visitor, activity) = line();
        let busy = activity.begin();
        visitor.shutdown().await.unwrap();
        let began = Instant::now();
        assert!(timeout(SHORT / 2, line.read(&mut [0; 64])).await.is_err());
        line.write_all(b"something").await.unwrap();
        assert_eq!(line.read(&mut [0; 64]).await.unwrap(), 0);
        assert!(began.elapsed() >= 2 * SHORT, "{:?}", began.elapsed());
        drop(busy);

        // Nobody waits for an answer, or more of a body than there will be.
        line.half_closed = 1000 * HEAD;
        assert_eq!(line.read(&mut [0; 64]).await.unwrap(), 0);
        let _busy = activity.begin();
        let _wanted = activity.want_body();
        assert_eq!(line.read(&mut [0; 64]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_look_at_a_body_says_nothing_about_the_answer_that_is_awaited_behind_it() {
        let (mut line, mut visitor, activity) = line();
        line.half_closed = 1000 * HEAD;
        visitor.shutdown().await.unwrap();
        let _busy = activity.begin();
        let mut end = [0; 64];
        {
            let _wanted = activity.want_body();
            let mut end = std::pin::pin!(line.read(&mut end));
            let is_kept_back = std::future::poll_fn(|cx| Poll::Ready(end.as_mut().poll(cx).is_pending()));
            assert!(is_kept_back.await);
        }
        // Whoever waited has seen the end of the body before the look was over.
        assert!(timeout(6 * LAST_LOOK, line.read(&mut end)).await.is_err());
    }

    #[tokio::test]
    async fn an_end_right_behind_a_head_waits_for_its_request_to_begin() {
        let (mut line, mut visitor, activity) = line();
        line.half_closed = 1000 * HEAD;
        visitor.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        visitor.shutdown().await.unwrap();
        let mut buffer = [0; 64];
        assert_eq!(line.read(&mut buffer).await.unwrap(), 18);
        let mut end = std::pin::pin!(line.read(&mut buffer));
        let is_kept_back = std::future::poll_fn(|cx| Poll::Ready(end.as_mut().poll(cx).is_pending())).await;
        assert!(is_kept_back, "its request is taken for one whose visitor has left");
        let _busy = activity.begin();
        assert!(timeout(4 * LAST_LOOK, end).await.is_err());
    }

    const SHORT: Duration = Duration::from_millis(200);
}
