//! Connections over QUIC: dialling, and turning the streams that the edge opens into requests
//! (wire.md, sections 2 and 4).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_net::crumbs::Gathered;
use adit_net::give_way::give_way;
use adit_protocol::extensions::{self, FrameReader, Piece};
use adit_protocol::stream::{self, Connect, Opening};
use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyDataStream, BodyExt};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{EndpointConfig, RecvStream, SendStream, VarInt};
use tokio::io::AsyncWrite;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::io::StreamReader;
use tokio_util::task::TaskTracker;
use tracing::{debug, trace};

pub use quinn::Endpoint;

use super::control;
use super::handler::{Handler, SETTLING, Trailers};
use super::pace::{Flows, STREAM_WINDOW};
use super::status::QuicPath;
use super::suspicion::{Ended, Traffic};
use crate::origin::{Body, BoxError, Unread, empty};
use crate::proxy::{Answer, Kind};

/// The name in every edge server's certificate.
const SERVER_NAME: &str = "quic.cftunnel.com";
const ALPN: &[u8] = b"argotunnel";
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// What the way to an edge is taken for before it is known: a third of QUIC's own guess, because a dial
/// whose first packet is lost must not cost a second.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(100);
/// How long the head of a request may take to arrive once its stream is open.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Requests at once on one connection, at first and at most. Every permitted stream costs memory at once, and
/// its buffers stay with it, so that more are permitted only when they are wanted.
const FIRST_REQUESTS: u32 = 256;
const MOST_REQUESTS: u32 = 8192;
/// Bytes of answers that may wait here unacknowledged, per connection. The edge acknowledges what it has received,
/// read or not, so that a stream which its window stops holds nothing of this.
const SEND_WINDOW: u64 = 8 * 1024 * 1024;
/// Socket buffers, bytes; the system may grant less.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// Largest piece of a body handed over at once, bytes.
const CHUNK: usize = 64 * 1024;

const NO_ERROR: VarInt = VarInt::from_u32(0);
const REFUSED: VarInt = VarInt::from_u32(extensions::REFUSED);
const BROKEN_OFF: VarInt = VarInt::from_u32(extensions::BROKEN_OFF);

/// How this host speaks QUIC: one per process.
#[derive(Clone)]
pub struct Dialer {
    tls: Arc<QuicClientConfig>,
    /// Where connections come from; `None` leaves it to the system.
    source: Option<IpAddr>,
    /// What an edge may send on one connection before it is read.
    window: u32,
}

impl Dialer {
    /// `tls` must know which roots to trust; protocol and name are set here.
    pub fn new(mut tls: rustls::ClientConfig, source: Option<IpAddr>, window: u32) -> anyhow::Result<Self> {
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let tls = QuicClientConfig::try_from(tls).context("TLS for QUIC")?;
        Ok(Self { tls: Arc::new(tls), source, window })
    }

    /// A UDP endpoint for one slot; each has its own so that connections spread over the edge's shards.
    /// Its connections ask for a sign of life when nothing came for `keep_alive`.
    pub fn endpoint(&self, edge: SocketAddr, keep_alive: Duration) -> io::Result<Endpoint> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(edge),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        // Larger buffers only spare retransmissions: a system that grants less still works.
        let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
        let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
        socket.bind(&self.local(edge).into())?;
        let mut endpoint =
            Endpoint::new(EndpointConfig::default(), None, socket.into(), Arc::new(quinn::TokioRuntime))?;
        let mut config = quinn::ClientConfig::new(self.tls.clone());
        config.transport_config(Arc::new(transport(keep_alive, self.window)));
        endpoint.set_default_client_config(config);
        Ok(endpoint)
    }

    /// Done when the machine of this edge says that nobody listens on the port. A socket of QUIC is not told:
    /// it belongs to no one address. What is sent here is too short to mean anything.
    pub async fn refusal(&self, edge: SocketAddr) {
        let refused = async {
            let socket = UdpSocket::bind(self.local(edge)).await?;
            socket.connect(edge).await?;
            socket.send(&[0]).await?;
            socket.recv(&mut [0; 1]).await
        };
        if !refused.await.is_err_and(|error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused) {
            std::future::pending::<()>().await;
        }
    }

    /// Any port of the address that connections to this edge come from.
    fn local(&self, edge: SocketAddr) -> SocketAddr {
        let any: IpAddr =
            if edge.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        SocketAddr::new(self.source.unwrap_or(any), 0)
    }
}

fn transport(keep_alive: Duration, window: u32) -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(IDLE_LIMIT.try_into().expect("the limit fits into 62 bits of milliseconds")))
        .keep_alive_interval(Some(keep_alive))
        .initial_rtt(FIRST_ROUND_TRIP)
        .max_concurrent_bidi_streams(FIRST_REQUESTS.into())
        .max_concurrent_uni_streams(NO_ERROR)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(window.into())
        .send_window(SEND_WINDOW);
    transport
}

/// An open connection to an edge server.
pub struct Connection(quinn::Connection);

/// How many streams the edge may have open.
struct Permitted(u32);

impl Connection {
    /// Waits as long as QUIC does; may be dropped midway.
    pub async fn dial(endpoint: &Endpoint, edge: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self(endpoint.connect(edge, SERVER_NAME)?.await.context("QUIC handshake")?))
    }

    /// The first stream that this side opens (wire.md, 3.1).
    pub async fn control_stream(&self) -> anyhow::Result<control::Stream> {
        let (send, recv) = self.0.open_bi().await?;
        Ok(control::Stream { read: Box::pin(recv), write: Box::pin(send) })
    }

    /// Hands every stream that the edge opens to the handler, until the connection ends. Requests run in
    /// `requests`, which outlives this call so that they can finish.
    pub async fn serve(&self, handler: &Rc<Handler>, requests: &TaskTracker) -> Ended {
        let mut permitted = Permitted(FIRST_REQUESTS);
        loop {
            match self.0.accept_bi().await {
                Ok((send, recv)) if handler.is_refusing() => refuse(send, recv),
                Ok((send, recv)) => {
                    if let Some(more) = permitted.raise(requests.len()) {
                        self.0.set_max_concurrent_bi_streams(more);
                    }
                    requests.spawn_local(exchange(AnswerStream::new(send), recv, handler.clone()));
                }
                Err(error) => {
                    let is_reset = matches!(error, quinn::ConnectionError::Reset);
                    return Ended { reason: error.to_string(), is_reset };
                }
            }
        }
    }

    pub fn traffic(&self) -> Traffic {
        let stats = self.0.stats();
        let sent = &stats.frame_tx;
        // What the edge must acknowledge; it may be silent about acknowledgements.
        let asked = sent.ping
            + sent.stream
            + sent.max_data
            + sent.max_stream_data
            + sent.reset_stream
            + sent.stop_sending;
        Traffic { asked, heard: stats.udp_rx.datagrams, round_trip: stats.path.rtt }
    }

    pub fn path(&self) -> QuicPath {
        let stats = self.0.stats();
        QuicPath {
            round_trip: stats.path.rtt,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            lost_packets: stats.path.lost_packets,
            congestion_window: stats.path.cwnd,
            mtu: stats.path.current_mtu,
        }
    }

    /// Closes at once; streams that are still open are cut.
    pub fn close(&self) {
        self.0.close(NO_ERROR, b"");
    }
}

impl Permitted {
    /// The next number, when most of those that are permitted are `open`.
    fn raise(&mut self, open: usize) -> Option<VarInt> {
        let is_short = open >= self.0 as usize / 4 * 3;
        (is_short && self.0 < MOST_REQUESTS).then(|| {
            self.0 *= 2;
            self.0.into()
        })
    }
}

/// Turns a stream away unread: nothing of it was processed, so the edge may send it elsewhere.
fn refuse(mut send: SendStream, mut recv: RecvStream) {
    // An error says that the edge has given it up itself.
    let _ = recv.stop(REFUSED);
    let _ = send.reset(REFUSED);
}

/// One stream: read the head, handle the request, write the answer. Stops as soon as the edge does, and
/// lasts until the edge has all of the answer: a connection that finishes must not close before.
async fn exchange(mut answer: AnswerStream, recv: RecvStream, handler: Rc<Handler>) {
    let _under_way = handler.begin();
    let mut stopped = pin!(answer.send.stopped());
    let handler = &handler;
    let work = async move {
        match timeout(HEAD_LIMIT, read_head(recv)).await {
            Ok(Ok((Opening::Data(connect), body))) => answer_to(&mut answer, connect, body, handler).await,
            Ok(Ok((Opening::Rpc, body))) => {
                let read = StreamReader::new(BodyDataStream::new(body).map_err(io::Error::other));
                let stream = control::Stream { read: Box::pin(read), write: Box::pin(answer) };
                control::serve_configuration(stream, handler.proxy.pushes.clone()).await
            }
            Ok(Err(error)) => Err(error),
            Err(_) => anyhow::bail!("the head of a request did not arrive in time"),
        }
    };
    tokio::select! {
        biased;
        result = work => match result {
            Ok(()) => drop(stopped.await),
            Err(error) => debug!(error = format!("{error:#}"), "stream failed"),
        },
        _ = &mut stopped => trace!("the edge cancelled a request"),
    }
}

async fn answer_to(
    answer: &mut AnswerStream,
    connect: Connect,
    body: StreamBody,
    handler: &Handler,
) -> anyhow::Result<()> {
    let (kind, head) = match connect {
        Connect::Http(head) => (Kind::Http, head),
        Connect::WebSocket(head) => (Kind::WebSocket, head),
        Connect::Tcp { .. } => {
            let reason = "this host serves no TCP destinations".to_owned();
            return answer.refuse(reason).await;
        }
    };
    let (head, ()) = head.into_parts();
    let trailers = match kind {
        Kind::Http => handler.trailers(&head.headers),
        Kind::WebSocket => Trailers::Unwelcome,
    };
    let mut flows = handler.flows(&head.headers);
    let body: Body = match (kind, trailers) {
        (_, Trailers::Framed) => Box::pin(flows.watch(Gathered::new(FramedBody::new(body)), &head.headers)),
        (Kind::Http, _) if !has_body(&head.headers) => empty(),
        (Kind::Http | Kind::WebSocket, _) => Box::pin(flows.watch(Gathered::new(body), &head.headers)),
    };
    let work = async {
        // Some kilobytes, which are needed no longer than until the head of the answer is there.
        let handled = Box::pin(handler.handle(kind, head, body, trailers)).await;
        match handled {
            Answer::Response(response)
                if trailers == Trailers::Unwelcome || response.body().is_end_stream() =>
            {
                answer.send(response, &flows).await
            }
            Answer::Response(response) => answer.send_framed(response, &flows).await,
            Answer::Unreachable { reason, not_here: true } => {
                answer.refuse(format!("{}{reason}", extensions::NOT_HERE_REASON)).await
            }
            Answer::Unreachable { reason, not_here: false } => answer.refuse(reason).await,
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        reason = flows.cut() => anyhow::bail!(reason),
    }
}

/// A request has a body only if its head says so (wire.md, 4.3).
fn has_body(headers: &http::HeaderMap) -> bool {
    headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
        || headers.get(TRANSFER_ENCODING).is_some_and(|coding| {
            coding.as_bytes().to_ascii_lowercase().windows(7).any(|word| word == b"chunked")
        })
}

async fn read_head(mut recv: RecvStream) -> anyhow::Result<(Opening, StreamBody)> {
    let mut buffered = BytesMut::new();
    loop {
        if let Some(opening) = Opening::decode(&mut buffered)? {
            return Ok((opening, StreamBody { first: buffered.freeze(), recv }));
        }
        let chunk =
            recv.read_chunk(CHUNK, true).await?.context("the stream ended inside the head of a request")?;
        buffered.extend_from_slice(&chunk.bytes);
    }
}

/// The body of a request: what came with its head, then what follows.
struct StreamBody {
    first: Bytes,
    recv: RecvStream,
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        // Holds no state of its own between polls.
        let chunk = ready!(std::pin::pin!(self.recv.read_chunk(CHUNK, true)).poll(cx));
        Poll::Ready(match chunk {
            Ok(Some(chunk)) => Some(Ok(Frame::data(chunk.bytes))),
            Ok(None) => None,
            Err(error) => Some(Err(error.into())),
        })
    }
}

/// The same where it is framed (`adit_protocol::extensions`): data, and trailers behind it.
struct FramedBody {
    body: StreamBody,
    /// What has arrived and is not read yet.
    rest: Bytes,
    frames: FrameReader,
}

impl FramedBody {
    fn new(body: StreamBody) -> Self {
        Self { body, rest: Bytes::new(), frames: FrameReader::default() }
    }
}

impl HttpBody for FramedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            match this.frames.next(&mut this.rest) {
                Ok(Some(Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Piece::Trailers(trailers))) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(frame) => this.rest = frame?.into_data().unwrap_or_default(),
                None if this.frames.is_whole() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err("the body ended within a frame".into()))),
            }
        }
    }
}

/// Our side of a request's stream. Unless the answer was sent to its end, the edge is told that it
/// is broken: a plain drop would look like a complete body.
struct AnswerStream {
    send: SendStream,
    /// Bytes of the body so far.
    sent: u64,
    complete: bool,
    /// Why, if it is not complete.
    code: VarInt,
}

impl AnswerStream {
    fn new(send: SendStream) -> Self {
        Self { send, sent: 0, complete: false, code: NO_ERROR }
    }

    /// The next frame of an answer whose head was written. `code` says that the origin broke off.
    async fn frame(
        &mut self,
        body: &mut Gathered<Body>,
        code: VarInt,
    ) -> anyhow::Result<Option<Frame<Bytes>>> {
        match body.frame().await.transpose() {
            Ok(frame) => Ok(frame),
            Err(error) => {
                self.code = code;
                tokio::time::sleep(SETTLING).await;
                Err(anyhow::anyhow!(error).context("the origin broke off"))
            }
        }
    }

    /// The answer as it is; trailers have no place.
    async fn send(&mut self, response: http::Response<Body>, flows: &Flows) -> anyhow::Result<()> {
        let (head, body) = response.into_parts();
        let mut body = Gathered::new(body);
        let unread = Unread::of(&head.extensions);
        self.head(head).await?;
        while let Some(frame) = self.frame(&mut body, NO_ERROR).await? {
            if let Ok(data) = frame.into_data() {
                flows.send(data.len(), &body.size_hint(), unread);
                let length = data.len() as u64;
                give_way(self.sent, self.send.write_chunk(data)).await?;
                self.sent += length;
                flows.down.asked();
            }
        }
        self.finish();
        Ok(())
    }

    /// The answer with its trailers, if there are any (`adit_protocol::extensions`).
    async fn send_framed(&mut self, response: http::Response<Body>, flows: &Flows) -> anyhow::Result<()> {
        let (mut head, body) = response.into_parts();
        let mut body = Gathered::new(body);
        let unread = Unread::of(&head.extensions);
        head.headers.insert(extensions::TRAILERS, extensions::FRAMED);
        self.head(head).await?;
        while let Some(frame) = self.frame(&mut body, BROKEN_OFF).await? {
            match frame.into_data() {
                Ok(data) => {
                    let head = Bytes::copy_from_slice(&extensions::data_head(data.len()));
                    flows.send(data.len(), &body.size_hint(), unread);
                    let length = data.len() as u64;
                    give_way(self.sent, self.send.write_all_chunks(&mut [head, data])).await?;
                    self.sent += length;
                    flows.down.asked();
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.send.write_chunk(extensions::encode_trailers(&trailers)?).await?;
                        // Nothing may follow.
                        break;
                    }
                }
            }
        }
        self.finish();
        Ok(())
    }

    async fn head(&mut self, head: http::response::Parts) -> anyhow::Result<()> {
        let head = stream::Answer::Http(http::Response::from_parts(head, ())).encode()?;
        Ok(self.send.write_chunk(head).await?)
    }

    async fn refuse(&mut self, reason: String) -> anyhow::Result<()> {
        let head = stream::Answer::Refused { reason, flow_rate_limited: false }.encode()?;
        self.send.write_chunk(head).await?;
        self.finish();
        Ok(())
    }

    fn finish(&mut self) {
        // An error here says that the edge has stopped the stream itself.
        let _ = self.send.finish();
        self.complete = true;
    }
}

/// For RPC streams, whose answers are no HTTP.
impl AsyncWrite for AnswerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        if !self.complete {
            let _ = self.send.reset(self.code);
        }
    }
}
