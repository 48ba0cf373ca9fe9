//! Bytes that mean nothing cost whoever sent them, and disturb nobody else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::certificate::Certificate;
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::Origin;
use e2e::product::{Product, Site};
use e2e::stand_in::StandIn;
use e2e::visitor::{Speaks, Visitor, get};
use e2e::within;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Asks for the same page again and again until it is stopped; every answer must be good.
struct Others {
    answered: watch::Receiver<usize>,
    _asking: AbortOnDropHandle<()>,
}

impl Others {
    /// Hands back when the first answer is there.
    async fn start(product: &Product) -> Self {
        let (count, answered) = watch::channel(0);
        let visitor = product.visitor(Speaks::Http1);
        let asking = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                assert_eq!(visitor.send(get("/bytes/100")).await.status, 200);
                count.send_modify(|count| *count += 1);
            }
        }));
        let mut others = Self { answered, _asking: asking };
        others.are_answered(1).await;
        others
    }

    /// So many more.
    async fn are_answered(&mut self, more: usize) {
        let goal = *self.answered.borrow() + more;
        let answered = within("answers to others", self.answered.wait_for(|count| *count >= goal)).await;
        assert!(answered.is_ok(), "a request of somebody else failed");
    }

    /// They were served before, and one that began after all of this was too: the first may have begun
    /// before.
    async fn stop(mut self) {
        self.are_answered(3).await;
    }
}

async fn product() -> (Product, Origin) {
    let origin = Origin::start();
    let edge = EdgeDocument::new(&["west"], 1).with_https();
    (Product::start(edge, HostDocument::new().otherwise(&origin.service())).await, origin)
}

fn still_the_same(product: &Product) {
    assert!(product.edge.process.is_running() && product.host.process.is_running());
    for process in [&product.edge.process, &product.host.process] {
        assert!(!process.log().contains("panicked"), "{}", process.tail());
        assert!(process.events("connection lost").is_empty(), "{}", process.tail());
    }
}

/// Numbers that look random and are the same every time (an LCG with Knuth's constants).
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }
}

fn tcp_garbage() -> Vec<Vec<u8>> {
    let mut noise = Noise(7);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut garbage: Vec<Vec<u8>> = vec![
        b"\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: -1\r\n\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\nHost : {HOST}\r\n\r\n").into_bytes(),
        format!("GET /\0 HTTP/1.1\r\nHost: {HOST}\r\n\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {}\r\n\r\n", "y".repeat(2_000_000)).into_bytes(),
        format!("GET /{} HTTP/1.1\r\nHost: {HOST}\r\n\r\n", "y".repeat(2_000_000)).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", "X: y\r\n".repeat(20_000)).into_bytes(),
        format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n"
        )
        .into_bytes(),
        [preface.as_slice(), &noise.bytes(4096)].concat(),
        [preface.as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0xff, 0xff, 0xff, 1, 5, 0, 0, 0, 1]].concat(),
        // A TLS hello that promises more than there is.
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &noise.bytes(500)].concat(),
        b"\x16\x03\x01\xff\xff".repeat(100),
        b"SSH-2.0-scanner\r\n".to_vec(),
    ];
    garbage.extend((1..20).map(|number| noise.bytes(number * 150)));
    garbage
}

/// Sends every piece on a connection of its own, and closes our direction behind it.
async fn pelt(visitor: &Visitor) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for piece in tcp_garbage() {
        let mut tcp = visitor.dial().await;
        let _ = tcp.write_all(&piece).await;
        let _ = tcp.shutdown().await;
        let mut answer = Vec::new();
        let _ = within("the end of garbage", tcp.read_to_end(&mut answer)).await;
        let shown = String::from_utf8_lossy(&piece[..piece.len().min(60)]).into_owned();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{shown:?} was taken for a request");
    }
}

#[tokio::test]
async fn garbage_on_the_visitors_listeners_disturbs_nobody() {
    let (product, _origin) = product().await;
    let others = Others::start(&product).await;
    pelt(&product.visitor(Speaks::Http1)).await;
    pelt(&Visitor::new(product.edge.https.unwrap(), Speaks::Http1, None)).await;
    others.stop().await;
    still_the_same(&product);
    for speaks in Speaks::ALL {
        assert_eq!(product.visitor(speaks).send(get("/bytes/1")).await.status, 200);
    }
}

#[tokio::test]
async fn garbage_on_the_admin_listeners_disturbs_nobody() {
    let (product, _origin) = product().await;
    let others = Others::start(&product).await;
    for admin in [product.edge.admin, product.host.admin] {
        let visitor = Visitor::new(admin, Speaks::Http1, None);
        for piece in tcp_garbage() {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut tcp = visitor.dial().await;
            let _ = tcp.write_all(&piece).await;
            let _ = tcp.shutdown().await;
            let _ = within("the end of garbage", tcp.read_to_end(&mut Vec::new())).await;
        }
        assert_eq!(visitor.send(get("/ready")).await.status, 200);
    }
    others.stop().await;
    still_the_same(&product);
}

#[tokio::test]
async fn garbage_on_a_servers_udp_port_disturbs_nobody() {
    let (product, _origin) = product().await;
    let others = Others::start(&product).await;
    let server = product.edge.servers[0];
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut noise = Noise(11);
    for number in 0..2000 {
        let mut datagram = noise.bytes(number % 1400);
        // Many look like the first packet of a QUIC connection.
        if let (true, Some(head)) = (number % 2 == 0, datagram.first_chunk_mut::<6>()) {
            *head = [0xc3, 0, 0, 0, 1, 8];
        }
        socket.send_to(&datagram, server).await.unwrap();
    }
    others.stop().await;
    still_the_same(&product);
}

#[tokio::test]
async fn a_stranger_on_quic_who_talks_nonsense_disturbs_nobody() {
    let (product, _origin) = product().await;
    let others = Others::start(&product).await;
    let server = product.edge.servers[0];
    let ca = std::fs::read(product.site.path("edge-data/ca.pem")).unwrap();
    let endpoint = quinn::Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();

    // Another protocol is refused in the handshake.
    let other = endpoint.connect_with(client(&ca, b"h3"), server, "quic.cftunnel.com").unwrap();
    assert!(within("a refusal", other).await.is_err());

    let mut noise = Noise(13);
    for length in [0, 1, 8, 100, 5000, 300_000] {
        let connecting =
            endpoint.connect_with(client(&ca, b"argotunnel"), server, "quic.cftunnel.com").unwrap();
        let connection = within("a handshake", connecting).await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        let _ = send.write_all(&noise.bytes(length)).await;
        let _ = send.finish();
        // It is shown the door; a stranger who says nothing is too, later.
        within("the end of a stranger", connection.closed()).await;
    }
    others.stop().await;
    still_the_same(&product);
}

#[tokio::test]
async fn nonsense_of_an_edge_costs_the_host_one_stream() {
    let origin = Origin::start();
    let mut edge = StandIn::start();
    let site = Site::new();
    site.write("stand-in.pem", &edge.ca_pem);
    let document =
        HostDocument { edge_ca: "stand-in.pem".into(), ..HostDocument::new() }.otherwise(&origin.service());
    let host = site.spawn_host(&[edge.address], &document);
    let registered = edge.registered().await;
    let mut noise = Noise(17);
    let signature = [0x0a, 0x36, 0xcd, 0x12, 0xa1, 0x3e];
    for piece in [
        vec![0],
        noise.bytes(6),
        noise.bytes(600),
        [&signature[..], b"01", &noise.bytes(600)].concat(),
        // A message of four billion segments, one of four gigabytes.
        [&signature[..], b"01", &[0xff; 16]].concat(),
        [&signature[..], b"01", &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0x1f]].concat(),
        // Half a signature and no more, though the stream goes on.
        signature[..3].to_vec(),
    ] {
        let (mut send, mut recv) = registered.open(&piece).await;
        let _ = send.finish();
        let answer = within("the end of nonsense", recv.read_to_end(10_000)).await;
        if let Ok(answer) = answer {
            assert!(answer.is_empty() || !e2e::stand_in::Reply::read(&answer).error.is_empty(), "{piece:?}");
        }
    }
    let good = include_bytes!("../vectors/live-q-get-request.bin");
    assert_eq!(registered.ask(good, b"").await.unwrap().values("HttpStatus"), ["404"]);
    assert!(host.is_running() && !host.log().contains("panicked"), "{}", host.tail());
}

#[tokio::test]
async fn a_host_with_an_edge_that_only_echoes_keeps_trying_calmly_and_says_why() {
    let echo = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = echo.local_addr().unwrap();
    let datagrams = Arc::new(AtomicUsize::new(0));
    let count = datagrams.clone();
    let _echoing = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = echo.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = echo.send_to(&buffer[..length], from).await;
        }
    }));
    let site = Site::new();
    site.write("ca.pem", Certificate::new(&["quic.cftunnel.com"]).ca_pem);
    let document = HostDocument { edge_ca: "ca.pem".into(), ..HostDocument::new() }.otherwise("hello_world");
    let host = site.spawn_host(&[address], &document);
    calm(&host, 2, Duration::from_millis(400)).await;
    assert!(datagrams.load(Ordering::Relaxed) < 200, "{datagrams:?} datagrams");
    host.terminate();
    assert_eq!(host.exit().await.code(), Some(0), "{}", host.tail());
}

#[tokio::test]
async fn a_host_does_not_believe_an_edge_of_another_ca_and_keeps_trying_calmly() {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    site.write("other-ca.pem", Certificate::new(&["quic.cftunnel.com"]).ca_pem);
    let document =
        HostDocument { edge_ca: "other-ca.pem".into(), ..HostDocument::new() }.otherwise("hello_world");
    let host = site.spawn_host(&edge.servers, &document);
    let reason = calm(&host, 3, Duration::from_millis(800)).await;
    assert!(reason.to_lowercase().contains("certificate"), "{reason}");
    assert!(edge.process.events("registered").is_empty());
    host.terminate();
    assert_eq!(host.exit().await.code(), Some(0), "{}", host.tail());
}

/// Waits for so many failed dials, which must take at least so long; hands back the last reason.
async fn calm(host: &e2e::process::Process, attempts: usize, least: Duration) -> String {
    let mut mark = host.mark();
    let mut first = None;
    let mut reason = String::new();
    for _ in 0..attempts {
        let event = host.event_after(mark, "dialling the edge failed", |_| true).await;
        reason = event["error"].as_str().unwrap_or_default().to_owned();
        first.get_or_insert_with(Instant::now);
        mark = host.mark();
    }
    assert!(first.unwrap().elapsed() > least, "{attempts} attempts in {:?}", first.unwrap().elapsed());
    assert!(!reason.is_empty(), "{}", host.tail());
    assert!(host.is_running());
    reason
}

fn client(ca_pem: &[u8], protocol: &[u8]) -> quinn::ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![protocol.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}
