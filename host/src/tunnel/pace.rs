//! What an exchange holds for a peer who does not take it: of the request's body for the origin, of the answer's
//! for the edge. Knows bodies; does not know transports. The rules are `adit-pace`.

use std::net::{IpAddr, Ipv4Addr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use adit_pace::{Account, Cut, Flow, Swept};
use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use crate::origin::{BoxError, Unread};

/// Where the edge puts the visitor's address.
const CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
/// Bytes of one request body that may wait here unread, over either transport.
pub const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// What belongs to an exchange besides the bytes of its bodies.
const OF_EACH: u64 = 16 * 1024;
/// Announced bodies of no more bytes than this may wait for their origin for as long as it likes.
const SMALL: u64 = 64 * 1024;
/// A warning says how it is, not how often.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Looks after all exchanges of the process. Runs until dropped.
pub async fn keep(account: Arc<Account>) {
    let mut clock = interval(Account::EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned: Option<Instant> = None;
    loop {
        clock.tick().await;
        let now = Instant::now();
        let Swept { held, too_slow, shed } = account.sweep(now);
        if too_slow + shed > 0 {
            debug!(held, too_slow, shed, "cut off peers that take too little");
        }
        if shed > 0 && warned.is_none_or(|last| now - last >= WARN_EVERY) {
            warned = Some(now);
            let limit = account.limits().held;
            warn!(held, limit, shed, "more is held for slow peers than bodies.held; the slowest are cut off");
        }
    }
}

/// Both directions of one exchange.
pub struct Flows {
    /// Of a request with a body.
    up: Option<Rc<Flow>>,
    /// Towards the edge.
    pub down: Flow,
}

/// A request's body that says what the origin takes of it.
pub struct Watched<B> {
    body: B,
    flow: Rc<Flow>,
    /// What is still missing of the announced length.
    left: u64,
}

impl Flows {
    /// For a request with such headers.
    pub fn new(account: &Arc<Account>, shard: usize, headers: &HeaderMap) -> Self {
        let text = headers.get(&CONNECTING_IP).and_then(|address| address.to_str().ok());
        let source: IpAddr =
            text.and_then(|text| text.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self { up: None, down: Flow::idle(account, shard, source, None) }
    }

    /// From here on the body waits for the origin.
    pub fn watch<B: HttpBody<Data = Bytes>>(&mut self, body: B, headers: &HeaderMap) -> Watched<B> {
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        let left = length.and_then(|length| length.parse().ok()).unwrap_or(u64::MAX);
        let flow = self.up.insert(Rc::new(self.down.beside()));
        if left <= SMALL {
            // A service may answer for hours without a look at a body that costs nothing.
            flow.be_patient();
        }
        flow.hold(OF_EACH + left.min(STREAM_WINDOW.into()));
        flow.gave(0);
        Watched { body, flow: flow.clone(), left }
    }

    /// `bytes` of an answer are to be sent, of which `rest` is still to come.
    pub fn send(&self, bytes: usize, rest: &SizeHint, unread: Unread) {
        let held = rest.exact().unwrap_or(u64::MAX).min(unread.0);
        self.down.hold(OF_EACH + held + bytes as u64);
        self.down.gave(bytes);
    }

    /// Waits until the exchange has to end.
    pub async fn cut(&self) -> &'static str {
        let up = async {
            match &self.up {
                Some(flow) => flow.cut().await,
                None => std::future::pending().await,
            }
        };
        match select(pin!(up), pin!(self.down.cut())).await {
            Either::Left((Cut::TooSlow, _)) => "the origin takes too little of the request",
            Either::Right((Cut::TooSlow, _)) => "the edge takes too little of the answer",
            Either::Left((Cut::Shed, _)) | Either::Right((Cut::Shed, _)) => "too much is held for slow peers",
        }
    }
}

impl<B: HttpBody<Data = Bytes, Error = BoxError> + Unpin> HttpBody for Watched<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        this.flow.asked();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.left = this.left.saturating_sub(data.len() as u64);
            this.flow.hold(OF_EACH + this.left.min(STREAM_WINDOW.into()));
            this.flow.gave(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        // Nothing of it is held any more.
        self.flow.asked();
    }
}
