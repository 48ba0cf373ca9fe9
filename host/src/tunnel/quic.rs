//! Connections over QUIC: dialling, and turning the streams that the edge opens into requests
//! (wire.md, sections 2 and 4).

mod answer;
mod request;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use adit_net::crumbs::Gathered;
use adit_protocol::extensions;
use adit_protocol::stream::{Connect, Opening};
use anyhow::Context as _;
use futures_util::TryStreamExt;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http_body::Body as _;
use http_body_util::BodyDataStream;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{EndpointConfig, RecvStream, SendStream, VarInt};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::io::StreamReader;
use tokio_util::task::TaskTracker;
use tracing::{debug, trace};

pub use quinn::Endpoint;

use super::control;
use super::handler::{Handler, Trailers};
use super::pace::STREAM_WINDOW;
use super::status::QuicPath;
use super::suspicion::{Ended, Traffic};
use crate::origin::{Body, empty};
use crate::proxy::{Answer, Kind, Refused};
use answer::AnswerStream;
use request::{FramedBody, StreamBody, read_head};

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

const NO_ERROR: VarInt = VarInt::from_u32(0);
const REFUSED: VarInt = VarInt::from_u32(extensions::REFUSED);

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
        Connect::Tcp { destination } => return carry(answer, destination, body, handler).await,
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

/// A stream without a request: bytes both ways.
async fn carry(
    answer: &mut AnswerStream,
    to: SocketAddr,
    body: StreamBody,
    handler: &Handler,
) -> anyhow::Result<()> {
    let nothing = http::HeaderMap::new();
    let mut flows = handler.flows(&nothing);
    let body: Body = Box::pin(flows.watch(Gathered::new(body), &nothing));
    let work = async {
        match Box::pin(handler.carry(to, body)).await {
            Ok(circuit) => answer.accept(circuit, &flows).await,
            Err(Refused { reason, is_full }) => answer.refuse_with(reason, is_full).await,
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
