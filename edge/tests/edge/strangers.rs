//! Who has not proved anything yet takes nothing from those who will: at every address of the edge where
//! somebody registers, asks or is asked.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_protocol::credentials::{Credentials, TunnelSecret};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::Request;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use uuid::Uuid;

use crate::connector::{Connector, Habits, client, client_config, dial, registration};
use crate::harness::{Fixture, HOST, LocalSet, empty, get, http1, start};
use crate::http2;
use crate::office::Office;

/// How long anybody may be kept waiting.
const AT_MOST: Duration = Duration::from_secs(1);
/// More than any room of strangers, and than what waits in the system's queue.
const MANY: usize = 5_000;

/// Both ends are this process, and many systems let one have 1024 files by itself.
pub(crate) fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// So many connections on which nothing more is ever said.
async fn idle(address: SocketAddr, head: &[u8], many: usize) -> Vec<TcpStream> {
    allow_files();
    let mut sockets = Vec::new();
    for _ in 0..many {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // It may have had to go already.
        let _ = socket.write_all(head).await;
        sockets.push(socket);
    }
    sockets
}

async fn registers_at_once(edge: &Fixture) {
    let over_tcp = timeout(AT_MOST, http2::Connector::registered(edge, 4)).await;
    assert!(over_tcp.is_ok(), "a host over TCP was kept waiting");
    let over_quic = timeout(AT_MOST, Connector::registered(edge, 0, Uuid::new_v4(), 0)).await;
    assert!(over_quic.is_ok(), "a host over QUIC was kept waiting");
}

#[tokio::test]
async fn idle_sockets_at_the_connectors_port_stop_no_registration() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            // Nothing at all, and a TLS handshake that does not go on.
            for head in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
                let sockets = idle(edge.servers[0], head, MANY).await;
                registers_at_once(&edge).await;
                drop(sockets);
            }
        })
        .await;
}

#[tokio::test]
async fn connections_over_quic_that_never_register_stop_no_registration() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let strangers = client(&edge.ca, Habits::default());
            let mut dialling = FuturesUnordered::new();
            let mut connected = Vec::new();
            for _ in 0..1_100 {
                dialling.push(strangers.connect(edge.servers[0], "quic.cftunnel.com").unwrap());
                if dialling.len() == 64 {
                    connected.push(dialling.next().await);
                }
            }
            while let Some(connection) = dialling.next().await {
                connected.push(Some(connection));
            }
            registers_at_once(&edge).await;
            drop(connected);
        })
        .await;
}

/// Each is a connection to come, as long as nothing more is known of it.
#[tokio::test]
async fn first_packets_over_quic_that_nothing_follows_stop_no_registration() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let config = client_config(&edge.ca, Habits::default());
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut endpoint = quinn_proto::Endpoint::new(Arc::default(), None, false, None);
            for _ in 0..MANY {
                let now = std::time::Instant::now();
                let dialled = endpoint.connect(now, config.clone(), edge.servers[0], "quic.cftunnel.com");
                let (_, mut connection) = dialled.unwrap();
                let mut packet = Vec::new();
                while let Some(sent) = connection.poll_transmit(now, 1, &mut packet) {
                    socket.send_to(&packet[..sent.size], edge.servers[0]).await.unwrap();
                    packet.clear();
                }
            }
            registers_at_once(&edge).await;
        })
        .await;
}

#[tokio::test]
async fn half_open_requests_keep_nobody_from_the_small_listeners() {
    let office = Office::open().await;
    let (admin, api) = (office.edge.admin, office.edge.api.unwrap());
    for head in [&b""[..], b"GET /ready HTTP/1.1\r\nHost: localhost\r\n"] {
        let sockets = [idle(admin, head, 1_000).await, idle(api, head, 1_000).await];
        for (address, path) in [(admin, "/ready"), (admin, "/status"), (api, "/openapi.json")] {
            let request = Request::get(path).header("host", "localhost").body(empty()).unwrap();
            let answer = timeout(AT_MOST, http1(address, request)).await;
            assert_eq!(answer.expect("nobody is kept waiting").status().as_u16(), 200, "{path}");
        }
        drop(sockets);
    }
    // Nor do bodies that never come.
    let head = b"PUT /tunnels/demo/config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n";
    let sockets = idle(admin, head, 1_000).await;
    let answer = timeout(AT_MOST, office.edge.admin("/status")).await;
    assert_eq!(answer.expect("nobody is kept waiting").0.as_u16(), 200);
    drop(sockets);
}

#[tokio::test]
async fn idle_visitors_keep_no_visitor_waiting() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let sockets =
                idle(edge.http, format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n").as_bytes(), MANY).await;
            let asked = async {
                tokio::join!(edge.page(get("/")), async { connector.accept().await.ok(b"well").await })
            };
            let (page, ()) = timeout(AT_MOST, asked).await.expect("nobody is kept waiting");
            assert_eq!(page.text, "well");
            drop(sockets);
        })
        .await;
}

#[tokio::test]
async fn a_stranger_that_announces_a_long_message_is_not_waited_for() {
    let edge = start();
    let (_endpoint, connection) = dial(&edge.ca, edge.servers[0], Habits::default()).await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    // One segment of almost 2 MiB, of which next to nothing comes.
    let head = [0u32.to_le_bytes(), 250_000u32.to_le_bytes()].concat();
    send.write_all(&[&head[..], &[0; 100]].concat()).await.unwrap();
    // Long before the time for a registration is over.
    assert!(timeout(Duration::from_secs(5), connection.closed()).await.is_ok(), "it is held");
}

#[tokio::test]
async fn refusals_that_strangers_cause_fill_no_log() {
    LocalSet::new()
        .run_until(async {
            let lines: &Lines = Box::leak(Box::default());
            tracing::subscriber::set_global_default(lines).unwrap();
            let edge = start();
            let secret = TunnelSecret::new(&[8; 32]).unwrap();
            let wrong = Credentials { tunnel_secret: secret, ..edge.credentials.clone() };
            let began = std::time::Instant::now();
            for _ in 0..60 {
                let connector = Connector::connect(&edge.ca, edge.servers[0], Habits::default()).await;
                lines.watched().push(connector.local_address());
                connector.expect_refusal(&registration(&wrong, Uuid::new_v4(), 0)).await;
            }
            let seconds = began.elapsed().as_secs() as usize + 2;
            let written = lines.written.load(Ordering::Relaxed);
            assert!((1..=5 * seconds).contains(&written), "{written} lines in {seconds} s");
        })
        .await;
}

/// Counts the lines that the edge would write about some addresses.
#[derive(Default)]
struct Lines {
    watched: Mutex<Vec<SocketAddr>>,
    written: AtomicUsize,
}

impl Lines {
    fn watched(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for &'static Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target() == "adit_edge::tunnel::registrar"
    }

    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                let _ = write!(self.0, "{}={value:?} ", field.name());
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let is_watched = |address: &SocketAddr| text.0.contains(&format!("address={address} "));
        if text.0.contains("refused") && self.watched().iter().any(is_watched) {
            self.written.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
