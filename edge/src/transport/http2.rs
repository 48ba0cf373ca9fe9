//! Connections of connectors over HTTP/2: a host dials TCP and TLS, and then it is the edge that is the
//! client and opens every stream (wire.md section 6). Knows h2; how heads are written is in `head`. Does not know
//! who dials, nor what happens between a connection's start and its end.

mod configuration;
mod head;
mod pulse;
mod stream;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use adit_net::unread::{Bodies, Gathering};
use adit_protocol::headers::serialized::UPGRADE;
use adit_protocol::stream::Connect;
use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::{Builder, SendRequest};
use h2::{Ping, PingPong};
use http::{HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::transport::connection::{self, ControlStream, Lost};
use crate::transport::peer::room::Place;
use crate::transport::peer::{Tally, ToPeer};
use crate::transport::signs::{POLL, STANDSTILL, Traffic, Volume};
use pulse::MeteredIo;

pub(crate) use stream::{NoAnswer, Receiving, Sending};

/// Begins HTTP/2 on a connection that a host has dialled. The task moves its bytes; it ends some time after
/// [`Link::close`]. `window` is what the host may send before it is read
/// ([`adit_pace::Limits::connection_window`]).
pub(crate) async fn begin<T>(
    io: T,
    address: SocketAddr,
    window: u32,
) -> Result<(Link, AbortOnDropHandle<()>), h2::Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    begin_counted(io, address, window, None).await
}

/// The same where the bytes of several connections are counted together.
pub(crate) async fn begin_counted<T>(
    io: T,
    address: SocketAddr,
    window: u32,
    volume: Option<Arc<Volume>>,
) -> Result<(Link, AbortOnDropHandle<()>), h2::Error>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = MeteredIo::new(io, volume);
    let (beat, bodies) = (io.beat(), Bodies::default());
    let io = Gathering::new(io, bodies.clone(), false);
    let (requests, mut connection) = builder(window).handshake(io).await?;
    let pings = connection.ping_pong();
    let link = Link::new(address, requests, beat.clone(), bodies);
    let driver = AbortOnDropHandle::new(tokio::spawn(drive(connection, pings, beat, link.clone())));
    Ok((link, driver))
}

/// Moves the bytes of one connection until it ends, and says why it did.
async fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    connection: h2::client::Connection<T, Bytes>,
    pings: Option<PingPong>,
    beat: pulse::IoActivity,
    link: Link,
) {
    let reason = tokio::select! {
        ended = connection => match ended {
            Ok(()) => "closed".to_owned(),
            Err(error) => error.to_string(),
        },
        () = silence(pings, beat) => format!("nothing heard for {} s", SILENCE.as_secs()),
    };
    link.end(reason);
}

/// Done when the peer is dead: it says nothing, not even when it is asked. Whatever it sends counts as a
/// sign of life, because on a slow line an answer to a ping may have to wait for a long time.
async fn silence(pings: Option<PingPong>, beat: pulse::IoActivity) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    let mut said = beat.signs().sent;
    let mut is_doubted = false;
    loop {
        let asleep = Instant::now();
        sleep(POLL).await;
        if asleep.elapsed() >= STANDSTILL {
            // It was this process that heard nothing. What has come in meanwhile is read first.
            beat.excuse();
            is_doubted = true;
            continue;
        }
        let (quiet, signs) = (beat.quiet(), beat.signs());
        if quiet >= SILENCE {
            return;
        }
        // Takes the answer to an earlier ping off; until there is one, no other can be sent.
        let _ = std::future::poll_fn(|cx| pings.poll_pong(cx)).now_or_never();
        // A host that has just been asked for something shows sooner whether it still hears.
        let patience = if signs.sent == said { PING_EVERY } else { PING_WHEN_ASKED };
        if quiet >= patience || is_doubted {
            // Where one is under way already, that one asks.
            let _ = pings.send_ping(Ping::opaque());
            beat.ask();
            is_doubted = false;
        }
        if quiet < POLL {
            said = signs.sent;
        }
    }
}

/// An open HTTP/2 connection to a host.
#[derive(Clone)]
pub(crate) struct Link(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    beat: pulse::IoActivity,
    /// Taken out to close the connection: when its last handle is gone, h2 says goodbye.
    requests: Mutex<Option<SendRequest<Bytes>>>,
    bodies: Bodies,
    /// Streams that we hold, the control stream included.
    open: AtomicUsize,
    freed: Notify,
    /// No new request can begin any more, though others may be under way.
    spent: CancellationToken,
    ended: CancellationToken,
    reason: OnceLock<String>,
}

/// A place under the host's limit of concurrent streams; given back when dropped.
pub(crate) struct Channel {
    link: Link,
    /// Of a connection to another node.
    to_peer: Option<ToPeer>,
}

impl Link {
    fn new(
        address: SocketAddr,
        requests: SendRequest<Bytes>,
        beat: pulse::IoActivity,
        bodies: Bodies,
    ) -> Self {
        Self(Arc::new(Shared {
            address,
            beat,
            requests: Mutex::new(Some(requests)),
            bodies,
            open: AtomicUsize::new(1),
            freed: Notify::new(),
            spent: CancellationToken::new(),
            ended: CancellationToken::new(),
            reason: OnceLock::new(),
        }))
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        self.0.address
    }

    pub(crate) fn signs(&self) -> Traffic {
        self.0.beat.signs()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.ended.is_cancelled() || self.0.spent.is_cancelled()
    }

    /// Waits for the end of the connection and says its reason.
    pub(crate) async fn closed(&self) -> &str {
        self.0.ended.cancelled().await;
        self.0.reason.get().map_or("closed", String::as_str)
    }

    /// Waits until the connection takes no new requests, although it is not closed.
    pub(crate) async fn spent(&self) {
        self.0.spent.cancelled().await;
    }

    /// Says goodbye as soon as no stream is left.
    pub(crate) fn close(&self) {
        self.requests().take();
    }

    fn end(&self, reason: String) {
        let _ = self.0.reason.set(reason);
        self.close();
        self.0.ended.cancel();
    }

    /// See [`connection::Transport::channel`].
    pub(crate) async fn channel(&self) -> Result<Channel, Lost> {
        loop {
            let mut freed = std::pin::pin!(self.0.freed.notified());
            // From here on no place that becomes free is missed.
            freed.as_mut().enable();
            if let Some(channel) = self.try_channel()? {
                return Ok(channel);
            }
            tokio::select! {
                () = freed => {}
                () = self.0.ended.cancelled() => {}
            }
        }
    }

    /// The same, if there is room now.
    pub(super) fn try_channel(&self) -> Result<Option<Channel>, Lost> {
        let limit = match &*self.requests() {
            Some(requests) if !self.is_closed() => requests.current_max_send_streams(),
            Some(_) | None => return Err(self.lost()),
        };
        let more = |open| (open < limit).then_some(open + 1);
        let is_free = self.0.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        Ok(is_free.then(|| Channel { link: self.clone(), to_peer: None }))
    }

    /// The stream that everything begins with (wire.md 3.1).
    pub(crate) fn control_stream(&self) -> Result<ControlStream, Lost> {
        let mut request = Request::new(());
        *request.uri_mut() = http::Uri::from_static("https://h2.cftunnel.com/");
        request.headers_mut().insert(UPGRADE, HeaderValue::from_static("control-stream"));
        let (response, stream) = self.send(request, false)?;
        Ok(ControlStream {
            read: Box::new(stream::ControlReader::new(response, self.0.bodies.clone())),
            write: Box::new(stream::ControlWriter::new(stream)),
        })
    }

    /// Whether the other side takes what becomes another protocol (RFC 8441). Known once its settings are here.
    pub(crate) fn takes_websockets(&self) -> bool {
        self.requests().as_ref().is_some_and(SendRequest::is_extended_connect_protocol_enabled)
    }

    /// Asks another node for what it says as long as the connection lives, and reads it.
    pub(crate) fn listen(&self, request: Request<()>) -> Result<impl AsyncRead + use<>, Lost> {
        let (response, _) = self.send(request, true)?;
        Ok(stream::ControlReader::new(response, self.0.bodies.clone()))
    }

    fn send(
        &self,
        request: Request<()>,
        is_whole: bool,
    ) -> Result<(h2::client::ResponseFuture, h2::SendStream<Bytes>), Lost> {
        // A handle of its own: a shared one takes one stream at a time beyond the host's limit.
        let Some(mut requests) = self.requests().clone() else { return Err(self.lost()) };
        requests.send_request(request, is_whole).map_err(|error| {
            // Either the host has said goodbye, or the numbers for streams are used up.
            self.0.spent.cancel();
            Lost { reason: error.to_string() }
        })
    }

    fn requests(&self) -> MutexGuard<'_, Option<SendRequest<Bytes>>> {
        // No code panics while it holds the lock.
        self.0.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> Lost {
        let reason = self.0.reason.get().map_or("the connection is closing", String::as_str);
        Lost { reason: reason.to_owned() }
    }
}

impl Channel {
    /// Sends the head of a request. `is_whole` says that no body follows.
    pub(crate) fn send(self, connect: &Connect, is_whole: bool) -> Result<(Sending, Receiving), Lost> {
        let request = match &self.to_peer {
            None => head::request(connect),
            Some(to) => head::to_peer(connect, &to.errand),
        };
        let is_websocket = matches!(connect, Connect::WebSocket(_));
        let (response, stream) = self.link.send(request, is_whole)?;
        let channel = Arc::new(self);
        Ok((Sending::new(stream, is_whole, channel.clone()), Receiving::new(response, is_websocket, channel)))
    }
}

impl Channel {
    /// The same on a connection to another node.
    pub(super) fn for_peer(mut self, to_peer: ToPeer) -> Self {
        self.to_peer = Some(to_peer);
        self
    }

    /// Of one to another node.
    fn tally(&self) -> Option<&Tally> {
        self.to_peer.as_ref().map(|to| &*to.tally)
    }

    /// Its place among the requests of its tunnel there.
    fn place(&self) -> Option<&Place> {
        self.to_peer.as_ref().map(|to| &to.place)
    }

    /// Those of its connection.
    fn bodies(&self) -> &Bodies {
        &self.link.0.bodies
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.link.0.open.fetch_sub(1, Ordering::Relaxed);
        self.link.0.freed.notify_one();
    }
}

fn builder(window: u32) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(connection::STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_frame_size(LARGEST_FRAME)
        .max_header_list_size(LONGEST_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        // Frames of streams that were cancelled may still be on their way, for as long as the connection
        // lives: counting them would end it one day.
        .max_local_error_reset_streams(None);
    builder
}

/// Without a request, after so long a silence.
const PING_EVERY: Duration = Duration::from_secs(1);
/// The same for a host that something was said to since it was heard.
const PING_WHEN_ASKED: Duration = Duration::from_millis(250);
/// A host that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(7);
const LARGEST_FRAME: u32 = 64 << 10;
/// The wrapped headers of an answer and what stands around them.
const LONGEST_HEAD: u32 = 1 << 20;
/// What may wait here of one upload, besides what the host's window allows.
const SEND_BUFFER: usize = 256 << 10;
/// Unread frames smaller than 256 bytes weigh 256 bytes; more than this ends the connection. Much more than is
/// there before they are [gathered](adit_net::unread), bodies included that are not watched yet.
const SMALL_FRAMES: usize = 16 << 20;
const REMEMBERED_RESETS: usize = 1024;
