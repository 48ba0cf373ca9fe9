//! The name server of an edge: what it says about its zones, and what it does not do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::authority::Planned;
use crate::harness::LocalSet;
use crate::issuance::is_shown;
use crate::office::Office;
use crate::shown_certificates::until;

pub(crate) fn section(nodes: &str) -> String {
    format!(
        "[dns]\nlisten = \"127.0.0.1:0\"\nzones = [\"example.com\"]\nname-servers = [\"ns1.example.net\"]\n{nodes}\n"
    )
}

pub(crate) const HERE: &str =
    "[[dns.node]]\nregion = \"west\"\naddresses = [\"127.0.0.1\"]\nports = [7844]\n";

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    message
}

/// Asks until there is an answer: what travels over UDP may be lost.
async fn over_udp(server: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = [0; 4096];
    loop {
        socket.send_to(&message.to_vec().unwrap(), server).await.unwrap();
        if let Ok(received) = timeout(Duration::from_secs(1), socket.recv_from(&mut answer)).await {
            let (length, _) = received.unwrap();
            return Message::from_vec(&answer[..length]).unwrap();
        }
    }
}

async fn over_tcp(server: SocketAddr, message: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let bytes = message.to_vec().unwrap();
    stream.write_u16(bytes.len() as u16).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

pub(crate) async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
    let message = question(name, kind);
    let mut udp = over_udp(server, &message).await;
    loop {
        let (tcp, again) = (over_tcp(server, &message).await, over_udp(server, &message).await);
        // What is known may have changed in between.
        if again == udp {
            assert_eq!(udp, tcp, "{name}");
            break;
        }
        udp = again;
    }
    assert_eq!(udp.metadata.id, message.metadata.id);
    assert!(!udp.metadata.recursion_available);
    let records = udp.answers.iter().map(|record| record.data.to_string());
    (udp.metadata.response_code, records.collect())
}

#[tokio::test]
async fn a_name_that_leads_somewhere_has_addresses_and_any_other_has_none() {
    LocalSet::new()
        .run_until(async {
            let office = Office::open_with(&section(HERE)).await;
            let server = office.edge.dns.unwrap();
            let tunnel = office.create("one").await["id"].as_str().unwrap().to_owned();
            let app = "app.example.com";
            assert_eq!(ask(server, app, RecordType::A).await, (ResponseCode::NXDomain, vec![]));
            office.route(&tunnel, app, false).await.result();
            let here = vec!["127.0.0.1".to_owned()];
            assert_eq!(ask(server, app, RecordType::A).await, (ResponseCode::NoError, here.clone()));
            assert_eq!(ask(server, "APP.Example.com", RecordType::A).await.1, here);
            assert_eq!(ask(server, app, RecordType::AAAA).await, (ResponseCode::NoError, vec![]));
            let (_, targets) = ask(server, "_v2-origintunneld._tcp.example.com", RecordType::SRV).await;
            assert_eq!(targets, ["1 1 7844 west.edge.example.com."]);
            assert_eq!(ask(server, "west.edge.example.com", RecordType::A).await.1, here);
            let (_, servers) = ask(server, "example.com", RecordType::NS).await;
            assert_eq!(servers, ["ns1.example.net."]);
            // Nobody else's names, no copies of the zone, no changes to it.
            for (name, kind) in [("example.org", RecordType::A), ("google.com", RecordType::A)] {
                assert_eq!(ask(server, name, kind).await, (ResponseCode::Refused, vec![]), "{name}");
            }
            assert_eq!(ask(server, "example.com", RecordType::AXFR).await, (ResponseCode::NoError, vec![]));
            let mut update = question("example.com", RecordType::SOA);
            update.metadata.op_code = OpCode::Update;
            assert_eq!(over_tcp(server, &update).await.metadata.response_code, ResponseCode::NotImp);
            // Gone with its route.
            let path = format!("/zones/{}/tunnels/routes/{app}", office.zone);
            let gone = office.ask(http::Method::DELETE, &path, None).await;
            assert_eq!(gone.status, 200);
            assert_eq!(ask(server, app, RecordType::A).await.0, ResponseCode::NXDomain);
        })
        .await;
}

#[tokio::test]
async fn an_edge_that_is_not_ready_leaves_the_answers_and_comes_back() {
    LocalSet::new()
        .run_until(async {
            // Stands for the probes of another edge.
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let probe = listener.local_addr().unwrap();
            let status = Arc::new(std::sync::atomic::AtomicU16::new(200));
            let says = status.clone();
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut head = [0; 1024];
                    let _ = stream.read(&mut head).await;
                    let code = says.load(std::sync::atomic::Ordering::Relaxed);
                    let answer = format!("HTTP/1.1 {code} It\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
            let other = format!(
                "[[dns.node]]\nregion = \"east\"\naddresses = [\"127.0.0.2\"]\nports = [7844]\nprobe = \"http://{probe}/ready\"\n"
            );
            let office = Office::open_with(&section(&format!("{HERE}{other}"))).await;
            let server = office.edge.dns.unwrap();
            let addresses = async || {
                let mut all = ask(server, "example.com", RecordType::A).await.1;
                all.sort();
                all
            };
            assert_eq!(addresses().await, ["127.0.0.1", "127.0.0.2"]);
            for (code, wanted) in [(503, &["127.0.0.1"][..]), (200, &["127.0.0.1", "127.0.0.2"])] {
                status.store(code, std::sync::atomic::Ordering::Relaxed);
                until(async || (addresses().await == wanted).then_some(())).await;
            }
        })
        .await;
}

#[tokio::test]
async fn hostile_questions_are_answered_briefly_or_not_at_all() {
    LocalSet::new()
        .run_until(async {
            let office = Office::open_with(&section(HERE)).await;
            let server = office.edge.dns.unwrap();
            let good = question("example.com", RecordType::SOA).to_vec().unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            for at in 0..good.len() {
                let _ = socket.send_to(&good[..at], server).await;
                let mut other = good.clone();
                other[at] ^= 0xff;
                let _ = socket.send_to(&other, server).await;
            }
            // An answer is not answered, or two servers would never end.
            let mut answer = good.clone();
            answer[2] |= 0x80;
            let _ = socket.send_to(&answer, server).await;
            let mut cut = TcpStream::connect(server).await.unwrap();
            cut.write_all(&[0xff, 0xff, 1, 2, 3]).await.unwrap();
            assert_eq!(ask(server, "example.com", RecordType::SOA).await.0, ResponseCode::NoError);
        })
        .await;
}

#[tokio::test]
async fn a_network_that_asks_too_much_is_sent_to_tcp() {
    LocalSet::new()
        .run_until(async {
            let office = Office::open_with(&section(HERE)).await;
            let server = office.edge.dns.unwrap();
            let bytes = question("example.com", RecordType::SOA).to_vec().unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut answer = [0; 4096];
            let cut = async {
                loop {
                    for _ in 0..50 {
                        socket.send_to(&bytes, server).await.unwrap();
                    }
                    while let Ok((length, _)) = socket.try_recv_from(&mut answer) {
                        if Message::from_vec(&answer[..length]).unwrap().metadata.truncation {
                            return;
                        }
                    }
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(30), cut).await.expect("it is told to come over TCP");
            let whole = over_tcp(server, &question("example.com", RecordType::SOA)).await;
            assert!(matches!(whole.answers[0].data, RData::SOA(_)));
        })
        .await;
}

#[tokio::test]
async fn a_wildcard_is_certified_by_what_the_edge_says_about_its_own_names() {
    LocalSet::new()
        .run_until(async {
            let Some(planned) = Planned::new() else { return };
            let acme = planned.section("challenges = [\"dns-01\"]");
            let office = Office::open_with(&format!("{acme}{}", section(HERE))).await;
            let (http, https) = (office.edge.http, office.edge.https);
            let authority = planned.start_asking(http, https, 86_400, office.edge.dns.unwrap()).await;
            let tunnel = office.create("one").await["id"].as_str().unwrap().to_owned();
            office.route(&tunnel, "*.example.com", false).await.result();
            until(async || is_shown(&office.edge, "*.example.com", "any.example.com").await).await;
            assert_eq!(authority.orders(), 1, "no wildcard of a domain that this edge does not answer for");
        })
        .await;
}

/// `cargo test -p adit-edge --test edge -- --ignored --nocapture names::answers_a_second`
#[ignore = "measures, and wants a machine for itself"]
#[tokio::test(flavor = "multi_thread")]
async fn answers_a_second() {
    const NETWORKS: u32 = 1024;
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let office = Office::open_with(&section(HERE)).await;
            let server = office.edge.dns.unwrap();
            let bytes = question("example.com", RecordType::A).to_vec().unwrap();
            let time = Duration::from_secs(10);
            // Each network has a ration of its own; every address that begins with 127 is this machine.
            let asking = (0..4_u32).map(|part| {
                let bytes = bytes.clone();
                std::thread::spawn(move || {
                    let sockets: Vec<_> = (0..NETWORKS / 4)
                        .map(|number| {
                            let network = part * (NETWORKS / 4) + number;
                            let from = std::net::Ipv4Addr::from((127 << 24) + ((network + 256) << 8) + 1);
                            let socket = std::net::UdpSocket::bind((from, 0)).unwrap();
                            socket.set_nonblocking(true).unwrap();
                            socket
                        })
                        .collect();
                    let (began, mut answered, mut answer) = (std::time::Instant::now(), 0_u64, [0; 512]);
                    while began.elapsed() < time {
                        for socket in &sockets {
                            let _ = socket.send_to(&bytes, server);
                            while let Ok(length) = socket.recv(&mut answer) {
                                // Not the word that there is more over TCP.
                                answered += u64::from(length > 12 && answer[2] & 2 == 0);
                            }
                        }
                    }
                    answered
                })
            });
            let asking: Vec<_> = asking.collect();
            let answered = tokio::task::spawn_blocking(|| {
                asking.into_iter().map(|one| one.join().unwrap()).sum::<u64>()
            });
            let answered = answered.await.unwrap();
            println!("{} answers a second, asked by {NETWORKS} networks", answered / time.as_secs());
            assert!(answered > 0);
        })
        .await;
}
