//! Filters that ask for bodies see them whole, of requests and of answers, and what they make of them holds together;
//! whatever cannot be shown whole stops a guard and passes by others.

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::{Origin, RawOrigin, nobody};
use e2e::process::component;
use e2e::product::{Host, Lent, Product, Site, Stage};
use e2e::visitor::{Answer, Speaks, bare, to, with_body, with_text};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::Value;
use tokio::sync::{OnceCell, mpsc};

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Lent {
    STAGE.get_or_init(build).await.lend()
}

/// What the origin says under each of these paths, whatever it is asked.
const ANSWERS: [(&str, &[u8]); 5] = [
    (
        "plain",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\netag: \"one\"\r\naccept-ranges: bytes\r\n\
          content-digest: sha-256=:x:\r\n\r\nquiet",
    ),
    ("chunks", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nqui\r\n2\r\net\r\n0\r\n\r\n"),
    ("coded", b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nquiet"),
    ("part", b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-4/9\r\ncontent-length: 5\r\n\r\nquiet"),
    ("same", b"HTTP/1.1 304 Not Modified\r\netag: \"one\"\r\n\r\n"),
];

/// An answer that is compressed though nobody asked for that.
fn compressed(text: &[u8]) -> &'static [u8] {
    let body = gzip(text);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
    Box::leak([head.as_bytes(), &body].concat().into_boxed_slice())
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

async fn build() -> Stage {
    let origin = Origin::start();
    let bodies = component("test/bodies");
    let mut host = HostDocument::new()
        // The page of the origin's echo fits.
        .plugin("guard", &bodies, "[plugin.config]\nmost = 2000")
        .plugin("looks", &bodies, "[plugin.config]\nmost = 100\npass = true")
        .plugin("shouts", &bodies, "[plugin.config]\nmost = 100\npass = true\nresponse = \"shout\"")
        .plugin("strict", &bodies, "[plugin.config]\nmost = 100\nresponse = \"shout\"")
        .plugin("undoes", &bodies, "[plugin.config]\nmost = 2000\ndecode = true\nresponse = \"shout\"")
        .plugin("undoes-all", &bodies, "[plugin.config]\nmost = 2000\ndecode = true\nresponse = \"look\"")
        .plugin("after", &component("test/request_only"), "");
    for (path, answer) in ANSWERS {
        let service = RawOrigin::start(answer).service();
        for plugin in ["shouts", "strict"] {
            host = host.rule(&format!(
                "path = \"^/{plugin}/{path}$\"\nservice = \"{service}\"\nplugins = [\"{plugin}\"]"
            ));
        }
    }
    for (path, service) in [
        ("gzip", RawOrigin::start(compressed(b"quiet")).service()),
        ("bomb", RawOrigin::start(compressed(&vec![b'a'; 8 << 20])).service()),
        (
            "br",
            RawOrigin::start(b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\nxx")
                .service(),
        ),
    ] {
        for plugin in ["undoes", "undoes-all"] {
            host = host.rule(&format!(
                "path = \"^/{plugin}/{path}$\"\nservice = \"{service}\"\nplugins = [\"{plugin}\"]"
            ));
        }
    }
    let rule = |path: &str, plugins: &str| {
        format!("path = \"{path}\"\nservice = \"{}\"\nplugins = [{plugins}]", origin.service())
    };
    let host = host
        .rule(&rule("^/echo/guard", "\"guard\", \"after\""))
        .rule(&rule("^/sink/undoes", "\"undoes-all\""))
        .rule(&rule("^/echo/looks", "\"looks\""))
        .rule(&rule("^/sink/looks", "\"looks\""))
        .rule(&rule("^/events", "\"shouts\""))
        .rule(&rule("^/websocket", "\"shouts\""))
        .otherwise(&origin.service());
    Stage::new(Product::start(EdgeDocument::new(&["west"], 1), host).await, origin)
}

async fn send(request: http::Request<e2e::visitor::Body>) -> Answer {
    stage().await.product.visitor(Speaks::Http1).send(request).await
}

/// A header that the origin was sent.
fn header(seen: &Value, name: &str) -> Option<String> {
    let headers = seen["headers"].as_array().unwrap();
    let found = headers.iter().find(|header| header[0] == name)?;
    found[1].as_str().map(str::to_owned)
}

/// A body in pieces, without a word of how long it is.
fn pieces(
    pieces: &[&'static str],
) -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, std::io::Error>>> {
    let frames: Vec<_> =
        pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).collect();
    StreamBody::new(stream::iter(frames))
}

#[tokio::test]
async fn a_request_filter_sees_the_body_whole_and_what_it_puts_in_place_goes_on() {
    for (told, text, body, length) in [
        ("look", "one and two", "one and two", "11"),
        ("shout", "one and two", "ONE AND TWO", "11"),
        ("double", "abc", "abcabc", "3"),
        ("drop", "abc", "", "3"),
        ("shout", "", "", "0"),
    ] {
        let echoed = send(with_text(to("POST", "/echo/guard").header("x-do", told), text)).await;
        assert_eq!(echoed.status, 200, "{told}: {}", echoed.text());
        let seen = echoed.json();
        assert_eq!(seen["body"], body, "{told}: {seen}");
        assert_eq!(header(&seen, "x-shown").as_deref(), Some(length), "{told}: {seen}");
        assert_eq!(header(&seen, "content-length"), Some(body.len().to_string()), "{told}: {seen}");
        assert_eq!(
            header(&seen, "x-request-only").as_deref(),
            Some("seen"),
            "the plugins that follow are asked too"
        );
    }
    let streamed =
        send(with_body(to("POST", "/echo/guard").header("x-do", "shout"), pieces(&["one ", "two"]))).await;
    assert_eq!(streamed.json()["body"], "ONE TWO");
    let bodiless = send(bare(to("GET", "/echo/guard"))).await;
    assert_eq!(
        header(&bodiless.json(), "x-shown").as_deref(),
        Some("0"),
        "a guard is asked about those without a body too"
    );
}

#[tokio::test]
async fn a_reply_and_a_fault_at_a_body_end_the_request() {
    let replied = send(with_text(to("POST", "/echo/guard").header("x-do", "reply"), "tea")).await;
    assert_eq!((replied.status, replied.text()), (418, "tea"));
    let failed = send(with_text(to("POST", "/echo/guard").header("x-do", "fault"), "tea")).await;
    assert_eq!(failed.status, 500);
}

#[tokio::test]
async fn what_a_guard_cannot_see_whole_is_refused_and_passes_by_others_byte_for_byte() {
    let long = "0123456789".repeat(300);
    let stated = || with_text(to("POST", "/echo/guard"), &long);
    let unstated = with_body(to("POST", "/echo/guard"), pieces(&["0123456789"; 300]));
    let coded = with_text(to("POST", "/echo/guard").header("content-encoding", "gzip"), "x");
    let endless = with_text(to("POST", "/echo/guard").header("content-type", "application/grpc"), "x");
    for (request, status) in [(stated(), 413), (unstated, 413), (coded, 415), (endless, 413)] {
        assert_eq!(send(request).await.status, status);
    }
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let visitor = stage().await;
        let visitor = visitor.product.visitor(speaks);
        let passed = visitor.send(with_body(to("POST", "/sink/looks"), pieces(&["0123456789"; 100]))).await;
        assert_eq!(passed.json()["bytes"], 1000, "{}", passed.text());
    }
    let seen = send(with_text(to("POST", "/echo/looks"), &long)).await.json();
    assert_eq!((seen["body"].as_str(), header(&seen, "x-shown")), (Some(&*long), None));
    let coded = send(with_text(to("POST", "/echo/looks").header("content-encoding", "br"), "x")).await;
    assert_eq!(coded.json()["body"], "x");
}

#[tokio::test]
async fn an_answer_whose_body_was_replaced_says_nothing_that_does_not_hold_any_more() {
    let plain = send(bare(to("GET", "/shouts/plain"))).await;
    assert_eq!((plain.status, plain.text()), (200, "QUIET"));
    assert_eq!((plain.header("x-shown"), plain.header("content-length")), ("5", "5"));
    assert_eq!(plain.header("etag"), "W/\"one\"");
    for gone in ["content-digest", "accept-ranges"] {
        assert!(!plain.headers.contains_key(gone), "{gone}");
    }
    let chunks = send(bare(to("GET", "/shouts/chunks"))).await;
    assert_eq!((chunks.text(), chunks.header("content-length")), ("QUIET", "5"));
    let head = send(bare(to("HEAD", "/shouts/plain"))).await;
    assert_eq!((head.status, head.text()), (200, ""));
    assert!(!head.headers.contains_key("content-length") && !head.headers.contains_key("x-shown"));
    let same = send(bare(to("GET", "/shouts/same"))).await;
    assert_eq!((same.status, same.text()), (304, ""));
}

#[tokio::test]
async fn an_answer_that_cannot_be_shown_whole_passes_by_or_fails_as_the_plugin_says() {
    for path in ["coded", "part"] {
        let passed = send(bare(to("GET", &format!("/shouts/{path}")))).await;
        assert_eq!(passed.text(), "quiet", "{path}");
        let refused = send(bare(to("GET", &format!("/strict/{path}")))).await;
        assert_eq!(refused.status, 500, "{path}");
    }
}

#[tokio::test]
async fn a_plugin_that_wants_it_sees_what_a_compressed_body_says() {
    let sent = |told: &str, coding: &str, body: Vec<u8>| {
        let request = to("POST", "/sink/undoes").header("x-do", told).header("content-encoding", coding);
        send(with_body(request, http_body_util::Full::new(Bytes::from(body))))
    };
    // What is left as it is goes on as it came, what is changed without compression.
    let coded = gzip(b"one and two");
    let length = coded.len() as u64;
    assert_eq!(sent("look", "gzip", coded.clone()).await.json()["bytes"], length);
    assert_eq!(sent("double", "gzip", coded.clone()).await.json()["bytes"], 22);
    assert_eq!(sent("reply", "gzip", coded.clone()).await.text(), "one and two");
    for (coding, body, status) in [
        ("gzip", gzip(&[0; 8 << 20]), 413),
        ("gzip", coded[..length as usize - 1].to_vec(), 400),
        ("gzip", b"no gzip".to_vec(), 400),
        ("br", coded.clone(), 415),
        ("gzip, gzip", coded, 415),
    ] {
        assert_eq!(sent("look", coding, body).await.status, status, "{coding}");
    }
    let shouted = send(bare(to("GET", "/undoes/gzip"))).await;
    assert_eq!(
        (shouted.text(), shouted.header("x-shown"), shouted.header("content-length")),
        ("QUIET", "5", "5")
    );
    assert!(!shouted.headers.contains_key("content-encoding"));
    let looked = send(bare(to("GET", "/undoes-all/gzip"))).await;
    assert_eq!((looked.header("content-encoding"), looked.header("x-shown")), ("gzip", "5"));
    assert_eq!(&looked.body[..], &gzip(b"quiet")[..]);
    for path in ["bomb", "br"] {
        assert_eq!(send(bare(to("GET", &format!("/undoes/{path}")))).await.status, 500, "{path}");
    }
}

#[tokio::test]
async fn an_origin_is_asked_neither_for_a_coded_answer_nor_for_a_part_where_answers_are_looked_at() {
    let asked = to("GET", "/echo/looks").header("accept-encoding", "gzip").header("range", "bytes=0-1");
    let seen = send(bare(asked)).await.json();
    for name in ["accept-encoding", "range"] {
        assert_eq!(header(&seen, name), None, "{seen}");
    }
}

#[tokio::test]
async fn events_and_upgrades_are_held_up_by_nobody() {
    let stage = stage().await;
    let connection = stage.product.visitor(Speaks::Http1).connect().await;
    let mut events = connection.send(bare(to("GET", "/events"))).await;
    let first = e2e::within("the first event", http_body_util::BodyExt::frame(events.body_mut())).await;
    assert!(first.expect("a frame").is_ok());
    let tcp = stage.product.visitor(Speaks::Http1).dial().await;
    let url = format!("ws://{}/websocket", e2e::document::HOST);
    let (mut socket, _) =
        e2e::within("a handshake", tokio_tungstenite::client_async(url, tcp)).await.unwrap();
    let message = tokio_tungstenite::tungstenite::Message::text("hello");
    futures_util::SinkExt::send(&mut socket, message.clone()).await.unwrap();
    let echoed = e2e::within("an echo", futures_util::StreamExt::next(&mut socket)).await;
    assert_eq!(echoed.expect("a message").unwrap(), message);
}

#[tokio::test]
async fn an_origin_that_is_not_there_is_found_out_before_the_body_has_come() {
    let (origin, site) = (Origin::start(), Site::new());
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    let document = |service: &str| {
        // Each request is seen to connect.
        let origin = "origin = { keep-alive-connections = 0 }";
        let rule = format!("service = \"{service}\"\nplugins = [\"guard\"]\n{origin}");
        HostDocument::new()
            .over(super::PROTOCOL)
            .plugin("guard", &component("test/bodies"), "[plugin.config]\nmost = 4000000")
            .rule(&rule)
    };
    let gone = document(&format!("http://{}", nobody()));
    let gone = Host::connected(site.spawn_host_named("gone", &edge.servers, &gone), 1).await;
    let well = document(&origin.service());
    let _well = Host::connected(site.spawn_host_named("well", &edge.servers, &well), 1).await;
    let visitor = edge.visitor(Speaks::Http1);
    let (beginning, rest) = (vec![b'a'; 1000], vec![b'b'; 999_000]);
    for number in 0..20 {
        let (feed, mut fed) = mpsc::channel::<Bytes>(1);
        let frames = stream::poll_fn(move |context| {
            let frame = |data| Ok::<_, Infallible>(Frame::data(data));
            fed.poll_recv(context).map(|data| data.map(frame))
        });
        let request = with_body(to("POST", &format!("/sink/{number}")), StreamBody::new(frames));
        let before = origin.connections();
        let directed = async {
            feed.send(beginning.clone().into()).await.unwrap();
            // Whoever is asked first, the host whose origin is there connects to it while there is no more than that.
            while origin.connections() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            feed.send(rest.clone().into()).await.unwrap();
            drop(feed);
        };
        let (sunk, ()) = tokio::join!(visitor.send(request), e2e::within("a connection", directed));
        assert_eq!(sunk.status, 200, "{}", sunk.text());
        assert_eq!(sunk.json()["bytes"], 1_000_000);
    }
    assert!(!gone.process.events("origin gave no answer").is_empty(), "all went to the other one");
}
