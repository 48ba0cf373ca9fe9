//! Connections over HTTP/2: dialling TCP and TLS, and turning the streams that the edge opens into
//! requests (wire.md, section 6). This side dials, but it is the edge that is the client.

mod head;
mod malformed;
mod pulse;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use adit_net::unread::{Bodies, Body, Gathering};
use adit_protocol::headers::serialized::UPGRADE;
use anyhow::Context as _;
use bytes::Bytes;
use h2::server::{self, Builder, SendResponse};
use h2::{Ping, PingPong, Reason};
use http::Request;
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::control;
use super::handler::Handler;
use super::pace::STREAM_WINDOW;
use super::suspicion::{Ended, Traffic};
use malformed::Answering;
use pulse::{Activity, MeteredIo};

/// The name in every edge server's certificate.
const SERVER_NAME: &str = "h2.cftunnel.com";
/// How long the edge may take to open the control stream.
const CONTROL_LIMIT: Duration = Duration::from_secs(5);
/// How long the last bytes of a connection that is closed may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// The same where streams are cut, for the word that it closes.
const GOODBYE: Duration = Duration::from_millis(100);
/// An edge that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(5);
/// Requests at once on one connection.
const MOST_REQUESTS: u32 = 4096;
const LARGEST_FRAME: u32 = 64 * 1024;
/// Largest head of a request, bytes; an edge lets less through.
const LONGEST_HEAD: u32 = 512 * 1024;
/// Bytes of one answer that may wait here, besides what the edge's window allows.
const SEND_BUFFER: usize = 256 * 1024;
/// Unread frames smaller than 256 bytes weigh 256 bytes; more than this ends the connection. Much more than is
/// there before they are [gathered](adit_net::unread).
const SMALL_FRAMES: usize = 16 * 1024 * 1024;
const REMEMBERED_RESETS: usize = 1024;

/// A request as it arrives, and the way back.
type Arrived = (Request<Body>, SendResponse<Bytes>);

/// How this host speaks HTTP/2 with edges: one per process.
#[derive(Clone)]
pub struct Dialer {
    tls: TlsConnector,
    /// Where connections come from; `None` leaves it to the system.
    source: Option<IpAddr>,
    /// What an edge may send on one connection before it is read.
    window: u32,
}

impl Dialer {
    /// `tls` must know which roots to trust. No protocol is offered in it (wire.md, section 6).
    pub fn new(mut tls: rustls::ClientConfig, source: Option<IpAddr>, window: u32) -> Self {
        tls.alpn_protocols.clear();
        Self { tls: TlsConnector::from(Arc::new(tls)), source, window }
    }

    /// Waits as long as the system does; may be dropped midway. The connection asks for a sign of life when
    /// nothing came for `keep_alive`.
    pub async fn dial(&self, edge: SocketAddr, keep_alive: Duration) -> anyhow::Result<Connection> {
        let socket = if edge.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let tcp = socket.connect(edge).await.context("TCP connection")?;
        // Small frames must not wait for an acknowledgement; a refusal costs only time.
        let _ = tcp.set_nodelay(true);
        let local = tcp.local_addr()?.ip();
        let name = ServerName::try_from(SERVER_NAME).expect("the name is a host name");
        let io = MeteredIo::new(self.tls.connect(name, tcp).await.context("TLS handshake")?);
        let beat = io.beat();
        let bodies = Bodies::default();
        let io = Gathering::new(Answering::new(io), bodies.clone(), true);
        let connection = builder(self.window).handshake(io).await.context("HTTP/2 handshake")?;
        Ok(Connection::new(local, connection, bodies, beat, keep_alive))
    }
}

/// An open connection to an edge server.
pub struct Connection {
    local: IpAddr,
    control: Mutex<Option<oneshot::Receiver<Arrived>>>,
    arrived: Mutex<mpsc::Receiver<Arrived>>,
    beat: Activity,
    leave: CancellationToken,
    close: CancellationToken,
    cut: CancellationToken,
    ended: Mutex<Driver>,
}

/// Moves the bytes; its outcome is why the connection ended.
enum Driver {
    Running(AbortOnDropHandle<String>),
    Ended(String),
}

impl Connection {
    fn new(
        local: IpAddr,
        connection: ServerConnection,
        bodies: Bodies,
        beat: Activity,
        keep_alive: Duration,
    ) -> Self {
        let (control, controlled) = oneshot::channel();
        let (hand_over, arrived) = mpsc::channel(MOST_REQUESTS as usize);
        let [leave, close, cut] = std::array::from_fn(|_| CancellationToken::new());
        let driver = Drive {
            bodies,
            control: Some(control),
            requests: hand_over,
            leave: leave.clone(),
            close: close.clone(),
            cut: cut.clone(),
        };
        let driver = tokio::task::spawn_local(driver.run(connection, beat.clone(), keep_alive));
        Self {
            local,
            control: Mutex::new(Some(controlled)),
            arrived: Mutex::new(arrived),
            beat,
            leave,
            close,
            cut,
            ended: Mutex::new(Driver::Running(AbortOnDropHandle::new(driver))),
        }
    }

    /// This end's address.
    pub fn local_ip(&self) -> IpAddr {
        self.local
    }

    /// The control stream, which the edge opens before anything else (wire.md, 3.1).
    pub async fn control_stream(&self) -> anyhow::Result<control::Stream> {
        let waiting = self.control.lock().await.take().context("the control stream was opened before")?;
        let arrived = timeout(CONTROL_LIMIT, waiting).await.context("the edge opened no control stream")?;
        let (request, respond) = arrived.context("the connection ended before its control stream")?;
        stream::control(request.into_body(), respond)
    }

    /// Hands every request that the edge sends to the handler, until the connection ends, and says why it
    /// did. Requests run in `requests`, which outlives this call so that they can finish.
    pub async fn serve(&self, handler: &Rc<Handler>, requests: &TaskTracker) -> Ended {
        let mut arrived = self.arrived.lock().await;
        while let Some(request) = arrived.recv().await {
            // Boxed, its kilobytes are not copied whenever the task is moved.
            requests.spawn_local(stream::exchange(request, handler.clone()));
        }
        Ended { reason: self.ended().await, is_reset: false }
    }

    pub fn traffic(&self) -> Traffic {
        self.beat.traffic()
    }

    /// Tells the edge that nothing new is served here (GOAWAY), and turns away what comes all the same. What
    /// has arrived is served, and the connection ends when that is done and the control stream has ended.
    pub fn leave(&self) {
        self.leave.cancel();
    }

    /// Says goodbye, sends what is under way if that is quick, and closes. With `is_cut` nothing under way is
    /// waited for.
    pub async fn close(&self, is_cut: bool) {
        if is_cut {
            self.cut.cancel();
        }
        self.close.cancel();
        self.ended().await;
    }

    async fn ended(&self) -> String {
        let mut ended = self.ended.lock().await;
        if let Driver::Running(driver) = &mut *ended {
            let reason = driver.await.unwrap_or_else(|_| "the connection's task failed".to_owned());
            *ended = Driver::Ended(reason);
        }
        match &*ended {
            Driver::Ended(reason) => reason.clone(),
            Driver::Running(_) => String::new(),
        }
    }
}

type ServerConnection = server::Connection<Gathering<Answering<MeteredIo<TlsStream<TcpStream>>>>, Bytes>;

/// What moves the bytes of one connection and hands over what arrives.
struct Drive {
    bodies: Bodies,
    control: Option<oneshot::Sender<Arrived>>,
    requests: mpsc::Sender<Arrived>,
    leave: CancellationToken,
    close: CancellationToken,
    cut: CancellationToken,
}

impl Drive {
    /// Until the connection ends; says why it did.
    async fn run(mut self, mut connection: ServerConnection, beat: Activity, keep_alive: Duration) -> String {
        let mut silent = pin!(silence(connection.ping_pong(), beat, keep_alive));
        let (leave, close, cut) = (self.leave.clone(), self.close.clone(), self.cut.clone());
        let mut is_leaving = false;
        loop {
            let arrived = tokio::select! {
                arrived = connection.accept() => arrived,
                () = &mut silent => return format!("nothing heard for {} s", SILENCE.as_secs()),
                () = leave.cancelled(), if !is_leaving => {
                    is_leaving = true;
                    connection.graceful_shutdown();
                    continue;
                }
                () = close.cancelled() => break,
            };
            match arrived {
                Some(Ok((request, respond))) => {
                    let request = request.map(|body| self.bodies.watch(body));
                    self.hand_over((request, respond), is_leaving);
                }
                Some(Err(error)) => return error.to_string(),
                None if is_leaving => return "closed by this host".to_owned(),
                None => return "closed by the edge".to_owned(),
            }
        }
        connection.graceful_shutdown();
        // A stream that is cut would keep it open.
        let patience = if cut.is_cancelled() { GOODBYE } else { FAREWELL };
        let _ = timeout(patience, std::future::poll_fn(|cx| connection.poll_closed(cx))).await;
        "closed by this host".to_owned()
    }

    fn hand_over(&mut self, (request, mut respond): Arrived, is_leaving: bool) {
        let is_control = request.headers().get(UPGRADE).is_some_and(|purpose| purpose == "control-stream");
        match self.control.take_if(|_| is_control) {
            Some(control) => drop(control.send((request, respond))),
            None if is_control || is_leaving => respond.send_reset(Reason::REFUSED_STREAM),
            None => {
                if let Err(error) = self.requests.try_send((request, respond)) {
                    // Nothing of it was looked at: the edge may send it elsewhere.
                    error.into_inner().1.send_reset(Reason::REFUSED_STREAM);
                }
            }
        }
    }
}

/// Done when the edge is dead: it says nothing, not even when it is asked. Whatever it sends counts as a
/// sign of life, because on a slow line an answer to a ping may have to wait for a long time.
async fn silence(pings: Option<PingPong>, beat: Activity, keep_alive: Duration) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(keep_alive).await;
        if beat.quiet() < keep_alive || pings.send_ping(Ping::opaque()).is_err() {
            continue;
        }
        beat.ask();
        let asked = Instant::now();
        // No other can be sent before the answer is here.
        loop {
            tokio::select! {
                _ = std::future::poll_fn(|cx| pings.poll_pong(cx)) => {
                    beat.answered(asked.elapsed());
                    break;
                }
                () = sleep(keep_alive) => {
                    if beat.quiet() >= SILENCE {
                        return;
                    }
                    beat.ask();
                }
            }
        }
    }
}

fn builder(window: u32) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_concurrent_streams(MOST_REQUESTS)
        .max_frame_size(LARGEST_FRAME)
        .max_header_list_size(LONGEST_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        // Visitors leave all the time, and edges are those that this host has chosen: cancelled requests
        // are no attack and must not end the connection one day.
        .max_pending_accept_reset_streams(MOST_REQUESTS as usize)
        .max_local_error_reset_streams(None);
    builder
}
