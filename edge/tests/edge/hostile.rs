//! Rubbish on every listener: it ends where it came in, and the next request is served.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use uuid::Uuid;

use crate::connector::{Connector, Habits, dial};
use crate::harness::{Fixture, LocalSet, get, raw, start};

async fn still_serves(edge: &Fixture, connector: &Connector) {
    let (page, ()) = tokio::join!(edge.page(get("/")), async { connector.accept().await.ok(b"still").await });
    assert_eq!(page.text, "still");
}

fn rubbish() -> Vec<Vec<u8>> {
    let noise = |seed: u32, length: u32| {
        (0..length).map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 24) as u8).collect()
    };
    vec![
        Vec::new(),
        vec![0],
        vec![0; 5000],
        vec![0xff; 5000],
        noise(1, 3),
        noise(2, 1200),
        noise(3, 70_000),
        b"GET".to_vec(),
        b"GET / HTTP/1.1\r\nHost: demo.localhost\r\nContent-Length: x\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nzz"
            .to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), vec![0xff; 100]].concat(),
        // A TLS handshake record that promises more than it holds.
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        b"\r\n\r\n\r\n".to_vec(),
    ]
}

#[tokio::test]
async fn rubbish_on_tcp_disturbs_nobody() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            for address in [edge.http, edge.https, edge.admin, edge.servers[0]] {
                for bytes in rubbish() {
                    raw(address, &bytes).await;
                }
            }
            still_serves(&edge, &connector).await;
            assert_eq!(edge.admin("/ready").await.0.as_u16(), 200);
            assert!(!edge.running.is_finished());
        })
        .await;
}

#[tokio::test]
async fn rubbish_on_udp_disturbs_nobody() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            for server in &edge.servers {
                for bytes in rubbish() {
                    socket.send_to(&bytes[..bytes.len().min(1400)], server).await.unwrap();
                }
                // Long headers of QUIC: version 1 with rubbish behind it, version 0, an unknown version.
                for version in [1u32, 0, 0xfafa_fafa] {
                    let mut initial = vec![0xc0];
                    initial.extend(version.to_be_bytes());
                    initial.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
                    initial.resize(1200, 0x5a);
                    socket.send_to(&initial, server).await.unwrap();
                }
            }
            still_serves(&edge, &connector).await;
        })
        .await;
}

#[tokio::test]
async fn rubbish_on_a_control_stream_ends_that_connection_only() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let huge = [&0u32.to_le_bytes()[..], &u32::MAX.to_le_bytes()[..]].concat();
            let segments = 600u32.to_le_bytes().to_vec();
            let big = [&0u32.to_le_bytes()[..], &100_000u32.to_le_bytes()[..], &[0; 200_000]].concat();
            for bytes in rubbish().into_iter().chain([huge, segments, big]) {
                let (_endpoint, connection) =
                    dial(&edge.ca, edge.servers[0], Habits::default()).await.unwrap();
                let (mut send, _recv) = connection.open_bi().await.unwrap();
                let _ = send.write_all(&bytes).await;
                let _ = send.finish();
                if !bytes.is_empty() {
                    connection.closed().await;
                }
            }
            still_serves(&edge, &connector).await;
        })
        .await;
}

#[tokio::test]
async fn streams_that_no_host_opens_are_turned_away() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            for _ in 0..20 {
                let (mut send, mut recv) = connector.connection.open_bi().await.unwrap();
                let _ = send.write_all(b"hello").await;
                assert!(recv.read_to_end(100).await.is_err());
            }
            connector.connection.send_datagram(vec![1, 2, 3].into()).unwrap();
            still_serves(&edge, &connector).await;
        })
        .await;
}

#[tokio::test]
async fn a_pre_check_probe_is_let_in_and_out() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let habits = Habits { server_name: "probe.cftunnel.com", ..Habits::default() };
            let (_endpoint, probe) = dial(&edge.ca, edge.servers[0], habits).await.unwrap();
            assert!(probe.close_reason().is_none());
            probe.close(0u32.into(), b"precheck complete");
            still_serves(&edge, &connector).await;
        })
        .await;
}

#[tokio::test]
async fn a_visitor_that_sends_slowly_or_stays_silent_holds_up_nobody() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let mut idlers: Vec<TcpStream> = Vec::new();
            for address in [edge.http, edge.https, edge.admin] {
                for head in [&b""[..], b"G", b"GET / HTTP/1.1\r\nHost:"] {
                    idlers.push(idle(address, head).await);
                }
            }
            still_serves(&edge, &connector).await;
            assert_eq!(edge.admin("/ready").await.0.as_u16(), 200);
            // And none of them keeps the edge from stopping.
            edge.stop.cancel();
            assert_eq!(connector.closed().await, Some(0));
            for mut idler in idlers {
                let _ = idler.read(&mut [0]).await;
            }
        })
        .await;
}

async fn idle(address: SocketAddr, head: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head).await.unwrap();
    stream
}
