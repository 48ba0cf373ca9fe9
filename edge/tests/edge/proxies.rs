//! Behind a proxy: whose word about the visitor counts.

use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::connector::Connector;
use crate::harness::{Fixture, HOST, LocalSet, empty, start_for_visitors};

const TRUSTED: &str = "trusted-proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";

/// What the origin gets to see of a request.
async fn seen(edge: &Fixture, connector: &Connector, headers: &[(&str, &str)]) -> HeaderMap {
    let mut request = Request::get("/").header("host", HOST);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (_, headers) = tokio::join!(edge.page(request.body(empty()).unwrap()), async {
        let opened = connector.accept().await;
        let headers = opened.request().headers().clone();
        opened.ok(b"").await;
        headers
    });
    headers
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_visitor_is_and_nobody_else() {
    LocalSet::new()
        .run_until(async {
            let said =
                [("x-forwarded-for", "6.6.6.6, 198.51.100.7, 10.1.2.3"), ("x-forwarded-proto", "https")];
            let edge = start_for_visitors(TRUSTED);
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let headers = seen(&edge, &connector, &said).await;
            assert_eq!(headers["cf-connecting-ip"], "198.51.100.7");
            assert_eq!(headers["x-forwarded-for"], "198.51.100.7, 10.1.2.3");
            assert_eq!(headers["x-forwarded-proto"], "https");
            assert_eq!(headers["cf-visitor"], "{\"scheme\":\"https\"}");

            let edge = start_for_visitors("");
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let headers = seen(&edge, &connector, &said).await;
            assert_eq!(headers["cf-connecting-ip"], "127.0.0.1");
            assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
            assert_eq!(headers["x-forwarded-proto"], "http");
        })
        .await;
}

#[tokio::test]
async fn the_proxy_protocol_is_taken_before_anything_else_and_from_trusted_proxies_only() {
    const V1: &[u8] = b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 80\r\n";
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[198, 51, 100, 7, 192, 0, 2, 1, 0xdc, 4, 0, 80]]
        .concat();
    LocalSet::new()
        .run_until(async {
            let ask = format!(
                "GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\nx-forwarded-for: 6.6.6.6\r\n\r\n"
            );
            let answer = async |edge: &Fixture, bytes: &[u8]| {
                let mut stream = TcpStream::connect(edge.http).await.unwrap();
                stream.write_all(bytes).await.unwrap();
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer).await;
                String::from_utf8_lossy(&answer).into_owned()
            };
            let edge = start_for_visitors(&format!("{TRUSTED}\nproxy-protocol = true"));
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            for header in [V1, &v2] {
                let bytes = [header, ask.as_bytes()].concat();
                let (answer, ()) = tokio::join!(answer(&edge, &bytes), async {
                    let opened = connector.accept().await;
                    let headers = opened.request().headers();
                    assert_eq!(headers["cf-connecting-ip"], "198.51.100.7");
                    assert_eq!(headers["x-forwarded-for"], "198.51.100.7", "the visitor is no trusted proxy");
                    opened.ok(b"well").await;
                });
                assert!(answer.contains("well"), "{answer}");
            }
            assert_eq!(answer(&edge, ask.as_bytes()).await, "", "a trusted proxy that does not speak it");

            let tls = edge.send_tls_after(V1, Request::get("/").header("host", HOST).body(empty()).unwrap());
            let (response, ()) = tokio::join!(tls, async {
                let opened = connector.accept().await;
                assert_eq!(opened.request().headers()["cf-connecting-ip"], "198.51.100.7");
                assert_eq!(opened.request().headers()["x-forwarded-proto"], "https");
                opened.ok(b"").await;
            });
            assert_eq!(response.status().as_u16(), 200);

            let keys = "trusted-proxies = [\"10.0.0.0/8\"]\nproxy-protocol = true";
            let strange = start_for_visitors(keys);
            let told = answer(&strange, &[V1, ask.as_bytes()].concat()).await;
            assert!(told.starts_with("HTTP/1.1 400"), "from anybody else it is no protocol: {told}");
        })
        .await;
}
