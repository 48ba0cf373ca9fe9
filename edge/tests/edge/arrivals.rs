//! What a host is told of how a visitor came: for each attempt, by the edge alone, and only where the host asks for it.

use adit_protocol::extensions::{self, HttpVersion, TlsVersion, VisitorFacts};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::connector::{Connector, Habits, Opened};
use crate::harness::{Fixture, HOST, LocalSet, empty, start, start_for_visitors};
use crate::http2;

const ASKS: [&str; 1] = [extensions::FEATURE_VISITOR];

fn asks() -> Habits {
    Habits { features: ASKS.to_vec(), ..Habits::default() }
}

async fn registered(edge: &Fixture, server: usize, habits: Habits) -> Connector {
    Connector::registered_as(edge, edge.servers[server], habits, Uuid::new_v4(), 0).await
}

fn told(headers: &HeaderMap) -> Option<VisitorFacts> {
    headers.get(extensions::VISITOR).map(VisitorFacts::of)
}

/// What a visitor says who would like to be taken for another one.
fn forged(uri: &str, version: Version) -> Request<crate::harness::AnyBody> {
    let request = Request::get(uri).version(version).header("adit_visitor", "port=1");
    let request =
        request.header("adit-visitor", "attempt=9;port=1;http=2;tls=1.3").header("Adit.Visitor", "tls=1.3");
    let request = if version < Version::HTTP_2 { request.header("host", HOST) } else { request };
    let request =
        if version < Version::HTTP_2 { request.header("connection", "adit-visitor") } else { request };
    request.body(empty()).unwrap()
}

async fn asked(edge: &Fixture, way: &str) -> Response<Incoming> {
    let (in_clear, secure) = (format!("http://{HOST}/"), format!("https://{HOST}/"));
    match way {
        "h1" => edge.send(forged("/", Version::HTTP_11)).await,
        "h2c" => edge.send_h2c(forged(&in_clear, Version::HTTP_2)).await,
        "tls" => edge.send_tls(&["http/1.1"], forged("/", Version::HTTP_11)).await,
        _ => edge.send_tls(&["h2"], forged(&secure, Version::HTTP_2)).await,
    }
}

const WAYS: [(&str, HttpVersion, Option<TlsVersion>); 4] = [
    ("h1", HttpVersion::Http11, None),
    ("h2c", HttpVersion::Http2, None),
    ("tls", HttpVersion::Http11, Some(TlsVersion::Tls13)),
    ("tls-h2", HttpVersion::Http2, Some(TlsVersion::Tls13)),
];

fn assert_true(told: Option<VisitorFacts>, (way, http, tls): (&str, HttpVersion, Option<TlsVersion>)) {
    let told = told.unwrap_or_else(|| panic!("{way}: nothing is said"));
    assert!(told.port.is_some_and(|port| port > 1), "{way}: {told}");
    assert_eq!(told, VisitorFacts { attempt: Some(1), port: told.port, http: Some(http), tls }, "{way}");
}

#[tokio::test]
async fn a_host_that_asks_is_told_how_each_visitor_came_whatever_the_visitor_says() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = registered(&edge, 0, asks()).await;
            for way in WAYS {
                let (_, headers) = tokio::join!(asked(&edge, way.0), async {
                    let opened = connector.accept().await;
                    let headers = opened.request().headers().clone();
                    opened.ok(b"").await;
                    headers
                });
                assert_true(told(&headers), way);
                let internal = headers.keys().filter(|name| name.as_str().starts_with("adit"));
                assert_eq!(internal.count(), 1, "{headers:?}");
            }
            drop(connector);

            let edge = start();
            let mut connector = http2::Connector::registered_as(&edge, edge.servers[0], 100, &ASKS).await;
            for way in WAYS {
                let (_, headers) = tokio::join!(asked(&edge, way.0), async {
                    let (request, mut respond) = connector.accept().await;
                    let mut sent = respond.send_response(Response::new(()), false).unwrap();
                    sent.send_data(Bytes::new(), true).unwrap();
                    request.headers().clone()
                });
                assert_true(told(&headers), way);
            }
        })
        .await;
}

#[tokio::test]
async fn a_host_that_does_not_ask_hears_nothing_of_it() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = registered(&edge, 0, Habits::default()).await;
            for (way, ..) in WAYS {
                let (_, headers) = tokio::join!(asked(&edge, way), async {
                    let opened = connector.accept().await;
                    let headers = opened.request().headers().clone();
                    opened.ok(b"").await;
                    headers
                });
                assert!(!headers.keys().any(|name| name.as_str().starts_with("adit")), "{way}: {headers:?}");
            }
        })
        .await;
}

#[tokio::test]
async fn the_port_is_the_visitors_and_each_attempt_has_its_number() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let first = registered(&edge, 0, asks()).await;
            let mut stream = TcpStream::connect(edge.http).await.unwrap();
            let port = stream.local_addr().unwrap().port();
            let ask = format!("GET / HTTP/1.0\r\nhost: {HOST}\r\nadit-visitor: port=1\r\n\r\n");
            let asking = async {
                stream.write_all(ask.as_bytes()).await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                answer
            };
            let seen = |opened: &Opened| told(opened.request().headers());
            let (answer, ()) = tokio::join!(asking, async {
                let opened = first.accept().await;
                let mut facts = VisitorFacts {
                    attempt: Some(1),
                    port: Some(port),
                    http: Some(HttpVersion::Http10),
                    tls: None,
                };
                assert_eq!(seen(&opened), Some(facts));
                // The next is asked in its place: one that does not listen to it, and then one that does.
                let deaf = registered(&edge, 1, Habits::default()).await;
                opened.turn_away();
                let opened = deaf.accept().await;
                assert_eq!(seen(&opened), None);
                let third = registered(&edge, 1, asks()).await;
                first.connection.close(0u32.into(), b"");
                opened.turn_away();
                let opened = third.accept().await;
                facts.attempt = Some(3);
                assert_eq!(seen(&opened), Some(facts));
                opened.ok(b"served").await;
            });
            assert!(answer.contains("adit-tries: 3") && answer.ends_with("served"), "{answer}");
        })
        .await;
}

#[tokio::test]
async fn of_a_visitor_behind_a_proxy_nothing_is_said_that_is_the_proxys() {
    LocalSet::new()
        .run_until(async {
            const TRUSTED: &str = "trusted-proxies = [\"127.0.0.0/8\"]";
            let only_counted = VisitorFacts { attempt: Some(1), ..VisitorFacts::default() };
            let edge = start_for_visitors(TRUSTED);
            let connector = registered(&edge, 0, asks()).await;
            for (name, value) in [("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")] {
                let request = Request::get("/").header("host", HOST).header(name, value);
                let (_, ()) = tokio::join!(edge.page(request.body(empty()).unwrap()), async {
                    let opened = connector.accept().await;
                    assert_eq!(told(opened.request().headers()), Some(only_counted), "{name}");
                    opened.ok(b"").await;
                });
            }
            drop(connector);

            let edge = start_for_visitors(&format!("{TRUSTED}\nproxy-protocol = true"));
            let connector = registered(&edge, 0, asks()).await;
            for (announced, port) in [
                (&b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 80\r\n"[..], Some(56324)),
                (b"PROXY UNKNOWN\r\n", None),
            ] {
                let request = Request::get("/").header("host", HOST).body(empty()).unwrap();
                let (_, ()) = tokio::join!(edge.send_tls_after(announced, request), async {
                    let opened = connector.accept().await;
                    let facts = told(opened.request().headers()).unwrap();
                    assert_eq!((facts.port, facts.tls), (port, Some(TlsVersion::Tls13)));
                    opened.ok(b"").await;
                });
            }
        })
        .await;
}
