//! Where other nodes come in, on one shard: an address of its own, on which nobody else is listened to. Knows sockets
//! and who may speak; what is asked is `asked` and `telling`.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_net::accept;
use adit_net::admission::{Admission, Guest};
use adit_net::log_limiter::LogLimiter;
use adit_pace::Account;
use adit_traces::Tracer;
use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Peers;
use super::asked::{self, Answer};
use super::elsewhere::Question;
use super::telling::{self, Listening};
use super::trust::ALPN;
use crate::forward::Patience;
use crate::limits::in_flight::{Activity, SEND_BUFFER};
use crate::limits::pace::Share;
use crate::limits::per_address::{AddressLimits, Limits};
use crate::transport::peer::{Errand, FLEET, Outcome};

/// The address for other nodes, on one shard.
pub(crate) struct Door {
    pub(crate) peers: Arc<Peers>,
    pub(crate) shard: usize,
    pub(crate) patience: Patience,
    /// Owns what outlives the head of an answer; counts what is under way for other nodes with what is for visitors.
    pub(crate) tasks: TaskTracker,
    pub(crate) account: Arc<Account>,
    /// Where traces are on.
    pub(crate) tracer: Option<Tracer>,
}

impl Door {
    /// Lets nodes in until the edge closes its connections.
    pub(crate) async fn run(self, listener: TcpListener) {
        let (door, connections) = (Arc::new(self), TaskTracker::new());
        let room = Admission::new(MOST_STRANGERS);
        // Of visitors these are the limits, and they are kept where visitors come in.
        let sources = AddressLimits::new(Limits { connections: 0, requests: 0, unlimited: Vec::new() });
        loop {
            tokio::select! {
                () = door.peers.stop.connections.wait() => break,
                (tcp, address) = accept::next(&listener, "nodes", Some(&room)) => {
                    let (door, guest, sources) = (door.clone(), room.admit(address.ip()), sources.clone());
                    connections.spawn(async move {
                        if let Err(error) = door.serve(tcp, address, guest, &sources).await {
                            debug!(%address, error = format!("{error:#}"), "no node of this fleet");
                        }
                    });
                }
            }
        }
        drop(listener);
        connections.close();
        let _ = timeout(FAREWELL, connections.wait()).await;
    }

    async fn serve(
        self: &Arc<Self>,
        tcp: TcpStream,
        address: SocketAddr,
        guest: Guest,
        sources: &Arc<AddressLimits>,
    ) -> anyhow::Result<()> {
        let tls = TlsAcceptor::from(self.peers.trust.server()?);
        let handshake = guest.unless_dismissed(timeout(HANDSHAKE, tls.accept(tcp))).await;
        let handshake =
            handshake.context("it made room for another one")?.context("its handshake takes too long")?;
        let io = handshake.inspect_err(|error| note_refusal(address, error))?;
        let session = io.get_ref().1;
        ensure!(session.alpn_protocol() == Some(ALPN), "it does not speak as nodes do");
        let chain: Option<Vec<CertificateDer<'static>>> = session
            .peer_certificates()
            .map(|chain| chain.iter().map(|link| link.clone().into_owned()).collect());
        let judged = self.peers.trust.judge(chain.as_deref());
        let (name, _) = judged.inspect_err(|error| {
            warn!(%address, error = format!("{error:#}"), "refused: it has a certificate of this fleet and is no node of it");
        })?;
        guest.vouch();
        let source = sources.admit(address.ip()).context("too many connections")?;
        self.speak(io, (guest, source), address, (&name, chain)).await;
        Ok(())
    }

    /// Answers what a node asks, as long as it is one.
    async fn speak(
        self: &Arc<Self>,
        io: TlsStream<TcpStream>,
        (guest, source): (Guest, crate::limits::per_address::Source),
        address: SocketAddr,
        (name, chain): (&str, Option<Vec<CertificateDer<'static>>>),
    ) {
        let share = Share::new(&self.account, self.shard, address.ip());
        let activity = Activity::new(guest, source, &share);
        let share = share.within(activity.group());
        // It is no guest who may have to go for another one: it is a node.
        let _stays = activity.begin();
        let counting = activity.clone();
        let door = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (door, share, busy) = (door.clone(), share.clone(), counting.begin());
            async move { Ok::<_, Infallible>(door.answer(request, &share, busy).await) }
        });
        let mut connection = std::pin::pin!(builder().serve_connection(TokioIo::new(io), service));
        let still = async {
            let mut changes = self.peers.node.changes();
            while changes.changed().await.is_ok() {
                if let Err(error) = self.peers.trust.judge(chain.as_deref()) {
                    return warn!(
                        node = name,
                        error = format!("{error:#}"),
                        "a node is none any more; hanging up"
                    );
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(node = name, %error, "a node's connection broke off");
                }
                return;
            }
            () = still => return,
            () = activity.cut() => return debug!(node = name, "a node's connection is cut off: it takes too little"),
            () = self.peers.stop.connections.wait() => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        share: &Share,
        busy: crate::limits::in_flight::InFlight,
    ) -> Response<Either<Answer, UnsyncBoxBody<Bytes, std::io::Error>>> {
        let about = request.headers().get(FLEET);
        if let Some(errand) = about.and_then(Errand::of) {
            return asked::carry(self, errand, request, share, busy).await.map(Either::Left);
        }
        if let Some(listening) = about.and_then(Listening::of) {
            let words = telling::tell(self.peers.clone(), listening);
            let words = words.map_err(|never| match never {}).boxed_unsync();
            return Response::new(Either::Right(words));
        }
        if let Some(question) = about.and_then(Question::of) {
            let answer = http_body_util::Full::from(question.answer(&self.peers.registry));
            let answer = answer.map_err(|never| match never {}).boxed_unsync();
            return Response::new(Either::Right(answer));
        }
        debug!(?about, "a node asks for what is not understood here");
        let mut response = asked::told(Outcome::Failed).map(Either::Left);
        *response.status_mut() = StatusCode::BAD_REQUEST;
        ready(response).await
    }
}

/// Who shows a certificate that vouches for nobody is said: it may be a node whose clock or certificate is wrong.
fn note_refusal(address: SocketAddr, error: &std::io::Error) {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(why)) = error
        && let Some(unsaid) = REFUSALS.take()
    {
        warn!(%address, ?why, unsaid, "refused: its certificate is none of this fleet's, or does not hold now");
    }
}

fn builder() -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        // One upload that no host takes must not stop the others. What small frames cost that are not read yet is limited
        // by half of it.
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(LONGEST_HEAD)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(None)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    http2
}

/// Anybody can cause it.
static REFUSALS: LogLimiter = LogLimiter::new(5);
/// Connections that have not proved to be a node's.
const MOST_STRANGERS: usize = 64;
/// For the handshake of one.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Requests at once on one connection of another node, which has one for each of its shards.
const STREAMS: u32 = 1024;
/// Bytes of one upload that may wait here unread.
pub(super) const WINDOW: u32 = 1 << 20;
/// The same of all of one connection; what more waits, waits at the other node. Two million frames of one byte are half
/// of it, and the other node paces those that it sends.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// What visitors may send, and what their edge adds.
const LONGEST_HEAD: u32 = 128 << 10;
/// Requests that were cancelled before they were looked at: as many as there may be.
const PENDING_RESETS: usize = STREAMS as usize;
const PING: Duration = Duration::from_secs(5);
const PONG: Duration = Duration::from_secs(5);
/// For the last words when the edge ends.
const FAREWELL: Duration = Duration::from_secs(1);
