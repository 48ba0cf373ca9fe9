//! Which request reaches the origin as what, and which is refused.

use adit_protocol::stream::Connect;
use http::{Request, Response, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::connector::{Connector, Habits};
use crate::harness::{HOST, LocalSet, empty, get, one, read, start};

#[tokio::test]
async fn no_connection_is_530_in_html_and_in_json() {
    let edge = start();
    let page = edge.page(get("/")).await;
    assert_eq!(page.status.as_u16(), 530);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(page.text.contains("error 1033"), "{}", page.text);
    assert!(page.text.contains(page.headers["cf-ray"].to_str().unwrap()));

    let request = Request::get("/").header("host", HOST).header("accept", "application/json");
    let page = edge.page(request.body(empty()).unwrap()).await;
    let json: serde_json::Value = serde_json::from_str(&page.text).unwrap();
    assert_eq!((&json["status"], &json["code"]), (&530.into(), &1033.into()));

    let page = edge.page(Request::head("/").header("host", HOST).body(empty()).unwrap()).await;
    assert_eq!((page.status.as_u16(), page.text.as_str()), (530, ""));
    assert_ne!(page.headers["content-length"], "0");
}

#[tokio::test]
async fn a_host_name_leads_to_its_tunnel_and_an_unknown_one_nowhere() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            for host in ["demo.localhost", "DEMO.localhost:8080", "a.demo.localhost", "a.b.demo.localhost."] {
                let request = Request::get("/x?y").header("host", host).body(empty()).unwrap();
                let (page, ()) = tokio::join!(edge.page(request), async {
                    let opened = connector.accept().await;
                    assert_eq!(opened.request().headers()["host"], host);
                    assert_eq!(opened.request().uri().to_string(), format!("http://{host}/x?y"));
                    opened.ok(b"").await;
                });
                assert_eq!(page.status.as_u16(), 200, "{host}");
            }
            for host in ["localhost", "example.com", "demo.localhost.example.com", "xdemo.localhost"] {
                let request = Request::get("/").header("host", host).body(empty()).unwrap();
                assert_eq!(edge.page(request).await.status.as_u16(), 404, "{host}");
            }
        })
        .await;
}

#[tokio::test]
async fn every_way_to_ask_reaches_the_origin() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let uri = format!("http://{HOST}/path");
            let secure = format!("https://{HOST}/path");
            let h2 = |uri: &str| Request::get(uri).version(Version::HTTP_2).body(empty()).unwrap();
            for (way, proto) in [("h1", "http"), ("h2c", "http"), ("tls", "https"), ("tls-h2", "https")] {
                let (response, ()) = tokio::join!(
                    async {
                        match way {
                            "h1" => edge.send(get("/path")).await,
                            "h2c" => edge.send_h2c(h2(&uri)).await,
                            "tls" => edge.send_tls(&["http/1.1"], get("/path")).await,
                            _ => edge.send_tls(&["h2", "http/1.1"], h2(&secure)).await,
                        }
                    },
                    async {
                        let mut opened = connector.accept().await;
                        let request = opened.request();
                        assert_eq!(request.uri().to_string(), format!("{proto}://{HOST}/path"), "{way}");
                        assert_eq!(request.headers()["host"], HOST);
                        assert_eq!(request.headers()["x-forwarded-proto"], proto);
                        assert_eq!(request.headers()["x-forwarded-for"], "127.0.0.1");
                        assert_eq!(request.headers()["cf-visitor"], format!("{{\"scheme\":\"{proto}\"}}"));
                        assert!(!request.headers().contains_key("transfer-encoding"));
                        // No body means an end at once, before the answer.
                        assert!(opened.read().await.is_empty());
                        opened
                            .answer(Response::builder().status(201).header("content-length", 2), b"ok")
                            .await;
                    },
                );
                assert_eq!(response.status().as_u16(), 201, "{way}");
                let page = read(response).await;
                assert_eq!(page.text, "ok");
                assert!(page.headers.contains_key("cf-ray"));
            }
        })
        .await;
}

#[tokio::test]
async fn a_visitor_cannot_forge_headers_of_the_edge() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let request = Request::get("/")
                .header("host", HOST)
                .header("connection", "x-forwarded-for, cf-connecting-ip, x-mine")
                .header("x-forwarded-for", "6.6.6.6")
                .header("x-forwarded-proto", "https")
                .header("cf-connecting-ip", "6.6.6.6")
                .header("cf-ray", "forged")
                .header("forwarded", "for=6.6.6.6")
                .header("client-ip", "6.6.6.6")
                .header("x-cluster-client-ip", "6.6.6.6")
                .header("X.Forwarded.For", "6.6.6.6")
                .header("x_real!ip", "6.6.6.6")
                .header("x-mine", "1")
                .header("x-own", "kept")
                .body(empty())
                .unwrap();
            let (page, ray) = tokio::join!(edge.page(request), async {
                let opened = connector.accept().await;
                let headers = opened.request().headers().clone();
                let all = |name: &str| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
                assert_eq!(all("x-forwarded-for"), ["127.0.0.1"]);
                assert_eq!(all("x-forwarded-proto"), ["http"]);
                assert_eq!(all("cf-connecting-ip"), ["127.0.0.1"]);
                assert_eq!(all("x-own"), ["kept"]);
                let forged =
                    headers.values().any(|value| value.as_bytes().windows(7).any(|it| it == b"6.6.6.6"));
                assert!(!forged, "{headers:?}");
                assert!(
                    all("forwarded").is_empty() && all("x-mine").is_empty() && all("connection").is_empty()
                );
                opened.answer(Response::builder().header("cf-ray", "from-origin"), b"").await;
                headers["cf-ray"].clone()
            });
            assert_eq!(page.headers.get_all("cf-ray").iter().collect::<Vec<_>>(), [&ray]);
        })
        .await;
}

#[tokio::test]
async fn a_request_that_contradicts_itself_is_refused() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            for (request, status) in [
                ("GET / HTTP/1.1\r\n\r\n", "400"),
                ("GET / HTTP/1.1\r\nHost: demo.localhost\r\nHost: demo.localhost\r\n\r\n", "400"),
                ("GET http://other.localhost/ HTTP/1.1\r\nHost: demo.localhost\r\n\r\n", "400"),
                ("GET / HTTP/1.1\r\nHost: a@demo.localhost\r\n\r\n", "400"),
                ("CONNECT demo.localhost:80 HTTP/1.1\r\nHost: demo.localhost:80\r\n\r\n", "405"),
                ("TRACE / HTTP/1.1\r\nHost: demo.localhost\r\n\r\n", "405"),
                ("GET * HTTP/1.1\r\nHost: demo.localhost\r\n\r\n", "400"),
                ("GET http://demo.localhost:81/ HTTP/1.1\r\nHost: demo.localhost\r\n\r\n", "400"),
                ("GET http://demo.localhost:x/ HTTP/1.1\r\nHost: demo.localhost\r\n\r\n", "400"),
            ] {
                let mut stream = TcpStream::connect(edge.http).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = [0; 12];
                stream.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer[9..], status.as_bytes(), "{request}");
            }
            // The absolute form is no contradiction.
            for address in ["demo.localhost", "DEMO.localhost:80"] {
                let request = format!(
                    "GET http://{address}/abs HTTP/1.1\r\nHost: demo.localhost\r\nConnection: close\r\n\r\n"
                );
                let mut stream = TcpStream::connect(edge.http).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = String::new();
                let (_, ()) = tokio::join!(stream.read_to_string(&mut answer), async {
                    let opened = connector.accept().await;
                    assert_eq!(opened.request().uri().path(), "/abs");
                    opened.ok(b"").await;
                });
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        })
        .await;
}

#[tokio::test]
async fn an_origin_that_fails_before_its_answer_is_502() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let failures =
                ["refused", "reset", "ended", "nonsense", "early status", "two lengths", "odd length"];
            for failure in failures {
                let (page, ()) = tokio::join!(edge.page(get("/")), async {
                    let mut opened = connector.accept().await;
                    match failure {
                        "refused" => opened.refuse("dial tcp: connection refused").await,
                        "reset" => opened.send.reset(0u32.into()).unwrap(),
                        "ended" => opened.send.finish().unwrap(),
                        "nonsense" => opened.send.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap(),
                        "early status" => opened.answer(Response::builder().status(101), b"").await,
                        "two lengths" => {
                            let response = Response::builder();
                            let response = response.header("content-length", 1).header("content-length", 2);
                            opened.answer(response, b"x").await;
                        }
                        _ => opened.answer(Response::builder().header("content-length", "+1"), b"x").await,
                    }
                });
                assert_eq!(page.status.as_u16(), 502, "{failure}");
                // What exactly failed is for the log, not for visitors.
                assert!(!page.text.contains("dial tcp"));
            }
        })
        .await;
}

#[tokio::test]
async fn a_hundred_requests_at_once_share_one_connection() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let serving = async {
                for _ in 0..100 {
                    let opened = connector.accept().await;
                    tokio::task::spawn_local(async move {
                        let path = opened.request().uri().path().to_owned();
                        opened.ok(path.as_bytes()).await;
                    });
                }
            };
            let asking = futures_util::future::join_all((0..100).map(|number| {
                let path = format!("/{number}");
                let edge = &edge;
                async move {
                    let page = edge.page(get(&path)).await;
                    assert_eq!(page.text, path);
                }
            }));
            tokio::join!(serving, asking);
        })
        .await;
}

#[tokio::test]
async fn a_connection_at_its_limit_of_streams_leaves_the_request_to_another() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let narrow = Habits { streams: 1, ..Habits::default() };
            let first = Connector::connect(&edge.ca, edge.servers[0], narrow).await;
            first.expect_registration(&edge, Uuid::new_v4(), 0).await;
            let narrow = Habits { streams: 1, ..Habits::default() };
            let second = Connector::connect(&edge.ca, edge.servers[1], narrow).await;
            second.expect_registration(&edge, Uuid::new_v4(), 0).await;
            let serving = async {
                let (one, two) = (first.accept().await, second.accept().await);
                // Both are full; the third request waits for the first stream that is free again.
                let third = async {
                    tokio::select! { opened = first.accept() => opened, opened = second.accept() => opened }
                };
                let (third, (), ()) = tokio::join!(third, one.ok(b"1"), two.ok(b"2"));
                third.ok(b"3").await;
            };
            let (one, two, three, ()) =
                tokio::join!(edge.page(get("/")), edge.page(get("/")), edge.page(get("/")), serving);
            let mut texts = [one.text, two.text, three.text];
            texts.sort();
            assert_eq!(texts, ["1", "2", "3"]);
        })
        .await;
}

#[tokio::test]
async fn a_head_that_the_wire_cannot_carry_is_431_and_disturbs_nobody() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let long = "x".repeat(70_000);
            let request =
                Request::get("/").header("host", HOST).header("x-long", &long).body(empty()).unwrap();
            assert_eq!(edge.page(request).await.status.as_u16(), 431);
            let many = (0..200).fold(Request::get("/").header("host", HOST), |request, number| {
                request.header(format!("x-{number}"), "1")
            });
            assert_eq!(edge.page(many.body(empty()).unwrap()).await.status.as_u16(), 431);
            let (page, ()) =
                tokio::join!(edge.page(get("/")), async { connector.accept().await.ok(b"").await });
            assert_eq!(page.status.as_u16(), 200);
        })
        .await;
}

#[tokio::test]
async fn a_plain_request_is_no_websocket() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let request = Request::get("/").header("host", HOST).header("upgrade", "websocket");
            let (_, ()) = tokio::join!(edge.page(request.body(empty()).unwrap()), async {
                let opened = connector.accept().await;
                assert!(matches!(opened.connect, Connect::Http(_)));
                assert!(!opened.request().headers().contains_key("upgrade"));
                opened.ok(b"").await;
            });
        })
        .await;
}
