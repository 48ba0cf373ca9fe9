//! Filters see bodies pass by, of requests and of answers, a piece at a time: what they make of them goes on as soon as
//! it is there, nothing more is held, and a filter that fails midway leaves nobody with something that looks whole.

use std::io::Write;

use bytes::Bytes;
use e2e::bulk::{Bulk, Digest};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::{Origin, RawOrigin};
use e2e::process::component;
use e2e::product::{Lent, Product, Site, Stage};
use e2e::visitor::{Answer, Speaks, bare, get, to, with_body, with_text};
use e2e::within;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::Value;
use tokio::sync::{OnceCell, mpsc};

static STAGE: OnceCell<Stage> = OnceCell::const_new();

const MIB: u64 = 1024 * 1024;

async fn stage() -> Lent {
    STAGE.get_or_init(build).await.lend()
}

/// What the origin says under each of these paths, whatever it is asked.
const ANSWERS: [(&str, &[u8]); 6] = [
    (
        "plain",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\netag: \"one\"\r\naccept-ranges: bytes\r\n\
          content-digest: sha-256=:x:\r\n\r\nquiet",
    ),
    ("chunks", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nqui\r\n2\r\net\r\n0\r\nx-sum: 9\r\n\r\n"),
    ("part", b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-4/9\r\ncontent-length: 5\r\n\r\nquiet"),
    ("same", b"HTTP/1.1 304 Not Modified\r\netag: \"one\"\r\n\r\n"),
    ("nothing", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ("empty", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
];

async fn build() -> Stage {
    build_at(Site::new()).await
}

async fn build_at(site: Site) -> Stage {
    let origin = Origin::start();
    let streams = component("test/streams");
    let told = [
        "read", "shout", "swell", "hold", "swallow", "break", "lie", "loop", "keep", "flood", "reply", "fail",
    ];
    let mut host = HostDocument::new().over(super::PROTOCOL);
    for told in told {
        host = host.plugin(told, &streams, &format!("[plugin.config]\nresponse = \"{told}\""));
    }
    host = host
        .plugin("asks", &streams, "")
        .plugin("undoes", &streams, "[plugin.config]\ndecode = true")
        .plugin(
            "whole",
            &component("test/bodies"),
            "[plugin.config]\nmost = 100\npass = true\nresponse = \"double\"",
        )
        .plugin("after", &component("test/request_only"), "");
    for (path, answer) in ANSWERS {
        let service = RawOrigin::start(answer).service();
        for plugin in told {
            host = host.rule(&format!(
                "path = \"^/{plugin}/{path}$\"\nservice = \"{service}\"\nplugins = [\"{plugin}\"]"
            ));
        }
        host = host.rule(&format!(
            "path = \"^/both/{path}$\"\nservice = \"{service}\"\nplugins = [\"shout\", \"whole\", \"swallow\"]"
        ));
        host = host.rule(&format!(
            "path = \"^/loud/{path}$\"\nservice = \"{service}\"\nplugins = [\"shout\", \"reply\"]"
        ));
    }
    let rule = |path: &str, plugins: &str| {
        format!("path = \"{path}\"\nservice = \"{}\"\nplugins = [{plugins}]", origin.service())
    };
    let host = host
        .rule(&rule("^/echo/asks", "\"asks\", \"after\""))
        .rule(&rule("^/sink/asks", "\"asks\""))
        .rule(&rule("^/sink/undoes", "\"undoes\""))
        .rule(&rule("^/echo/undoes", "\"undoes\""))
        .rule(&rule("^/bytes/", "\"read\", \"shout\""))
        .rule(&rule("^/flood/swell", "\"swell\""))
        .rule(&rule("^/events/", "\"shout\""))
        .rule(&rule("^/websocket", "\"shout\""))
        .rule(&rule("^/echo/held", "\"asks\", \"whole\""))
        .otherwise(&origin.service());
    Stage::new(Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await, origin)
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
async fn a_request_filter_sees_the_body_pass_and_what_it_makes_of_it_goes_on() {
    for (told, body, begun, length) in [
        ("none", "one and two", None, Some("11")),
        ("read", "one and two", Some("1"), Some("11")),
        ("shout", "ONE AND TWO", Some("1"), None),
        ("hold", "one and two", Some("1"), None),
        ("swallow", "ends", Some("1"), None),
    ] {
        let echoed = send(with_text(to("POST", "/echo/asks").header("x-do", told), "one and two")).await;
        assert_eq!(echoed.status, 200, "{told}: {}", echoed.text());
        let seen = echoed.json();
        assert_eq!(seen["body"], body, "{told}: {seen}");
        assert_eq!(header(&seen, "x-begun").as_deref(), begun, "{told}: {seen}");
        assert_eq!(header(&seen, "content-length").as_deref(), length, "{told}: {seen}");
        assert_eq!(
            header(&seen, "x-request-only").as_deref(),
            Some("seen"),
            "those that follow are asked too"
        );
    }
    let streamed =
        send(with_body(to("POST", "/echo/asks").header("x-do", "shout"), pieces(&["one ", "two"]))).await;
    assert_eq!(streamed.json()["body"], "ONE TWO");
}

#[tokio::test]
async fn a_request_without_a_body_has_its_end_too_and_stays_one_without_a_body() {
    for told in ["read", "shout", "hold"] {
        let seen = send(bare(to("GET", "/echo/asks").header("x-do", told))).await.json();
        assert_eq!(
            (&seen["body"], header(&seen, "x-begun").as_deref()),
            (&Value::from(""), Some("1")),
            "{seen}"
        );
        assert_eq!(header(&seen, "transfer-encoding"), None, "{seen}");
    }
    let made = send(bare(to("GET", "/echo/asks").header("x-do", "swallow"))).await.json();
    assert_eq!(
        (made["body"].as_str(), header(&made, "content-length").as_deref()),
        (Some("ends"), Some("4"))
    );
}

#[tokio::test]
async fn a_guard_that_finds_something_at_the_end_leaves_the_origin_without_that_end() {
    let stage = stage().await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let visitor = stage.product.visitor(speaks);
        let fine = with_text(to("POST", "/echo/asks").header("x-do", "refuse"), "a story");
        assert_eq!(visitor.send(fine).await.json()["body"], "a story");
        // With its length and without one.
        let stated = with_text(to("POST", "/echo/asks").header("x-do", "refuse"), "a secret");
        let unstated =
            with_body(to("POST", "/echo/asks").header("x-do", "refuse"), pieces(&["a sec", "ret"]));
        for request in [stated, unstated] {
            let refused = visitor.send(request).await;
            assert_eq!(refused.status, 500, "{speaks:?}: {}", refused.text());
        }
    }
    for told in ["fail", "lie", "break", "loop", "keep", "flood"] {
        // More than one piece.
        let request = with_body(to("POST", "/echo/asks").header("x-do", told), Bulk::without_length(100_000));
        let connection = stage.product.visitor(Speaks::Http1).connect().await;
        assert_eq!(connection.ask(request).await.status, 500, "{told}");
    }
    let replied = send(with_text(to("POST", "/echo/asks").header("x-do", "reply"), "x")).await;
    assert_eq!((replied.status, replied.text()), (418, "tea"));
}

#[tokio::test]
async fn an_answer_that_is_rewritten_says_nothing_that_does_not_hold_any_more() {
    let shouted = send(get("/shout/plain")).await;
    assert_eq!((shouted.status, shouted.text(), shouted.header("x-begun")), (200, "QUIET", "1"));
    assert_eq!(shouted.header("etag"), "W/\"one\"");
    for gone in ["content-digest", "accept-ranges", "content-length"] {
        assert!(!shouted.headers.contains_key(gone), "{gone}");
    }
    let read = send(get("/read/plain")).await;
    assert_eq!((read.text(), read.header("content-length"), read.header("etag")), ("quiet", "5", "\"one\""));
    assert_eq!(read.header("content-digest"), "sha-256=:x:");
    for (told, length) in [("swell", 40), ("hold", 5), ("swallow", 4)] {
        assert_eq!(send(get(&format!("/{told}/chunks"))).await.text().len(), length, "{told}");
    }
    assert_eq!(send(get("/reply/plain")).await.text(), "tea");
    assert_eq!(send(get("/fail/plain")).await.status, 500);
    let empty = send(get("/swallow/empty")).await;
    assert_eq!((empty.text(), empty.header("content-length")), ("ends", "4"));
    let both = send(get("/both/plain")).await;
    assert_eq!(both.text(), "ENDSENDS", "backwards: ends, twice, and loud");
    assert_eq!(send(get("/loud/plain")).await.text(), "TEA", "what another plugin answers passes by as well");
}

#[tokio::test]
async fn answers_without_a_body_are_not_shown_and_parts_are_not_rewritten() {
    let head = send(bare(to("HEAD", "/shout/plain"))).await;
    assert_eq!((head.status, head.text()), (200, ""));
    assert!(!head.headers.contains_key("content-length") && !head.headers.contains_key("x-begun"));
    for (path, status) in [("same", 304), ("nothing", 204)] {
        let answer = send(get(&format!("/swallow/{path}"))).await;
        assert_eq!((answer.status, answer.text()), (status, ""), "{path}");
        assert!(!answer.headers.contains_key("x-begun"), "{path}");
    }
    assert_eq!(send(get("/shout/part")).await.status, 500);
    let read = send(get("/read/part")).await;
    assert_eq!((read.status, read.text()), (206, "quiet"));
}

#[tokio::test]
async fn trailers_are_shown_and_may_be_added() {
    let stage = stage().await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let mut request = to("GET", "/read/chunks").header("te", "trailers");
        if speaks == Speaks::Http1 {
            request = request.header("connection", "te");
        }
        let connection = stage.product.visitor(speaks).connect().await;
        let response = connection.send(bare(request)).await;
        let body = within("the body", response.into_body().collect()).await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        assert_eq!(body.to_bytes(), "quiet");
        assert_eq!(trailers["x-sum"], "9", "{speaks:?}");
        if speaks == Speaks::Http1 {
            // What the head does not announce has no place there.
            assert_eq!(trailers.len(), 1, "{trailers:?}");
            continue;
        }
        let read = trailers["x-read"].to_str().unwrap();
        assert!(read.starts_with("5 in ") && read.ends_with("; x-sum"), "{read}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_midway_does_not_look_whole() {
    let stage = stage().await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        for told in ["break", "lie", "loop", "keep", "flood"] {
            let connection = stage.product.visitor(speaks).connect().await;
            // Where nothing has gone ahead the edge may make a page of it.
            match connection.try_send(get(&format!("/{told}/chunks"))).await {
                Err(_) => {}
                Ok(response) if response.status() != 200 => {}
                Ok(response) => {
                    let end = within("the break", response.into_body().collect()).await;
                    assert!(end.is_err(), "{speaks:?} {told}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_plugin_that_wants_it_sees_what_a_compressed_body_says() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let text = b"quiet ".repeat(1 << 20);
    encoder.write_all(&text).unwrap();
    let coded = encoder.finish().unwrap();
    let sent = |path: &str, told: &str, coding: &str, body: &[u8]| {
        let request = to("POST", path).header("x-do", told).header("content-encoding", coding);
        send(with_body(request, http_body_util::Full::new(Bytes::copy_from_slice(body))))
    };
    // What is read goes on as it came, what is rewritten without compression.
    let read = sent("/sink/undoes", "read", "gzip", &coded).await.json();
    assert_eq!(
        (&read["bytes"], &read["content-length"]),
        (&Value::from(coded.len()), &Value::from(coded.len().to_string()))
    );
    let shouted = sent("/sink/undoes", "shout", "gzip", &coded).await.json();
    let mut digest = Digest::new();
    digest.add(&text.to_ascii_uppercase());
    assert_eq!((&shouted["bytes"], &shouted["hash"]), (&Value::from(text.len()), &Value::from(digest.hash)));
    let small = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(b"a secret").unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(sent("/echo/undoes", "refuse", "gzip", &small).await.status, 500, "it sees what is in it");
    let seen = sent("/echo/undoes", "shout", "gzip", &small).await.json();
    assert_eq!((seen["body"].as_str(), header(&seen, "content-encoding")), (Some("A SECRET"), None));
    assert_eq!(header(&seen, "x-coding"), None, "it is not told of what was undone");
    assert_eq!(sent("/echo/undoes", "read", "br", &small).await.status, 415);
    assert_eq!(sent("/sink/undoes", "none", "br", &small).await.status, 200, "it did not ask for this one");
    for broken in [&small[..small.len() - 1], b"no gzip"] {
        assert_ne!(sent("/echo/undoes", "read", "gzip", broken).await.status, 200);
    }
}

#[tokio::test]
async fn events_pass_one_by_one_and_upgrades_untouched() {
    let stage = stage().await;
    let mut watched = stage.origin.watch("/events/one");
    let connection = stage.product.visitor(Speaks::Http1).connect().await;
    let directed = async {
        watched.arrived().await;
        watched.answer(Response::builder().header("content-type", "text/event-stream").body(()).unwrap());
    };
    let (response, ()) = tokio::join!(connection.send(get("/events/one")), directed);
    let mut body = response.into_body();
    for number in 0..5 {
        // The next one does not exist before this one has arrived.
        let event = format!("data: event {number}\n\n");
        watched.say(event.clone());
        let mut arrived = Vec::new();
        while arrived.len() < event.len() {
            let frame = within("an event", body.frame()).await.expect("the stream goes on").unwrap();
            arrived.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(arrived, event.to_ascii_uppercase().as_bytes());
    }
    drop((body, connection));
    watched.gone().await;
    let tcp = stage.product.visitor(Speaks::Http1).dial().await;
    let url = format!("ws://{}/websocket", e2e::document::HOST);
    let (mut socket, _) = within("a handshake", tokio_tungstenite::client_async(url, tcp)).await.unwrap();
    let message = tokio_tungstenite::tungstenite::Message::text("hello");
    futures_util::SinkExt::send(&mut socket, message.clone()).await.unwrap();
    let echoed = within("an echo", futures_util::StreamExt::next(&mut socket)).await;
    assert_eq!(echoed.expect("a message").unwrap(), message);
}

#[tokio::test]
async fn a_whole_body_may_be_asked_for_behind_one_that_streams() {
    let asked = to("POST", "/echo/held").header("x-do", "shout");
    let seen = send(with_body(asked, pieces(&["one ", "two"]))).await.json();
    // The filter of whole bodies is told the same, and says how long what it saw was.
    assert_eq!((seen["body"].as_str(), header(&seen, "x-shown").as_deref()), (Some("ONE TWO"), Some("7")));
    assert_eq!(header(&seen, "content-length").as_deref(), Some("7"));
    let refused = send(with_text(to("POST", "/echo/held").header("x-do", "refuse"), "a secret")).await;
    assert_eq!(refused.status, 500, "the first is why: {}", refused.text());
}

#[tokio::test]
async fn large_bodies_pass_a_plugin_in_flat_memory_both_ways() {
    let stage = build_at(Site::new().giving_back_at_once()).await;
    let visitor = stage.product.visitor(Speaks::Http1);
    let length = 32 * MIB;
    let up = |length| with_body(to("POST", "/sink/asks").header("x-do", "read"), Bulk::new(length));
    // The plugin's instances are there before the memory is looked at.
    assert_eq!(visitor.send(up(100_000)).await.status, 200);
    assert_eq!(visitor.send(get("/bytes/100000")).await.status, 200);
    let watch = stage.product.host.process.watch_memory();
    let sunk = visitor.send(up(length)).await.json();
    let digest = Digest::of_bulk(length);
    assert_eq!(
        (&sunk["bytes"], &sunk["hash"]),
        (&Value::from(digest.bytes), &Value::from(digest.hash)),
        "{sunk}"
    );
    let down = visitor.send(get(&format!("/bytes/{length}"))).await;
    assert_eq!(down.body.len() as u64, length);
    let mut bulk = Bulk::new(length);
    let mut rest = &down.body[..];
    while let Some(frame) = bulk.frame().await {
        let block = frame.unwrap().into_data().unwrap().to_ascii_uppercase();
        rest = rest.strip_prefix(&block[..]).expect("it is as it was, but loud");
    }
    assert!(watch.growth() < 24 * MIB, "the host grew by {} KiB", watch.growth() / 1024);
}

#[tokio::test]
async fn a_visitor_that_does_not_read_stops_a_plugin_that_makes_much_of_little() {
    let stage = build_at(Site::new().giving_back_at_once()).await;
    let mut watched = stage.origin.watch("/flood/swell");
    let connection = stage.product.visitor(Speaks::Http1).connect().await;
    let asked = connection.send(get("/flood/swell"));
    let directed = async {
        watched.arrived().await;
        watched.answer(Response::new(()));
        watched.flood(vec![7; 64 * 1024]);
    };
    let (response, ()) = tokio::join!(asked, directed);
    let watch = stage.product.host.process.watch_memory();
    // While this visitor reads nothing, others read as much as would have filled the memory.
    let length = 32 * MIB;
    let other = stage.product.visitor(Speaks::Http1).send(get(&format!("/bytes/{length}"))).await;
    assert_eq!(other.body.len() as u64, length);
    assert!(watch.growth() < 32 * MIB, "the host grew by {} KiB", watch.growth() / 1024);
    drop((response, connection));
    watched.gone().await;
}

/// A body of a request that goes on and on, a piece whenever it is told.
fn endless() -> (mpsc::UnboundedSender<Bytes>, e2e::visitor::Body) {
    let (send, pieces) = mpsc::unbounded_channel();
    let pieces = stream::unfold(pieces, |mut pieces: mpsc::UnboundedReceiver<Bytes>| async move {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), pieces))
    });
    (send, StreamBody::new(Box::pin(pieces)).map_err(Into::into).boxed_unsync())
}

#[tokio::test]
async fn slow_bodies_of_one_visitor_leave_others_their_share_of_a_plugin() {
    let origin = Origin::start();
    let service = origin.service();
    let streams = component("test/streams");
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .plugin("asks", &streams, "concurrency = 4")
        .plugin("answers", &streams, "concurrency = 4\n[plugin.config]\nresponse = \"read\"")
        .rule(&format!("path = \"^/(echo|sink)\"\nservice = \"{service}\"\nplugins = [\"asks\"]"))
        .rule(&format!("path = \"^/bytes/\"\nservice = \"{service}\"\nplugins = [\"answers\"]"))
        .otherwise(&service);
    let edge = EdgeDocument::new(&["west"], 1).for_visitors("trusted-proxies = [\"127.0.0.0/8\"]");
    let product = Product::start(edge, host).await;
    let from = |method: &str, path: &str, address: &str| {
        to(method, path).header("x-do", "read").header("x-forwarded-for", address)
    };
    let (greedy, other) = ("198.51.100.1", "203.0.113.7");

    // Uploads of which no byte comes any more.
    let mut uploads = Vec::new();
    let visitor = product.visitor(Speaks::Http1);
    for number in 0..4 {
        let (more, body) = endless();
        more.send(Bytes::from_static(b"some")).unwrap();
        let connection = visitor.connect().await;
        let mut watched = origin.watch(&format!("/sink/{number}"));
        let request = with_body(from("POST", &format!("/sink/{number}"), greedy), body);
        let asking =
            tokio::spawn(async move { connection.try_send(request).await.map(|answer| answer.status()) });
        watched.arrived().await;
        uploads.push((more, asking, watched));
    }
    let refused = visitor.send(with_text(from("POST", "/echo/x", greedy), "five")).await;
    assert_eq!(refused.status, 503, "all that there are: {}", refused.text());
    for _ in 0..2 {
        let served = visitor.send(with_text(from("POST", "/echo/x", other), "fair")).await;
        assert_eq!((served.status, &served.json()["body"]), (200, &"fair".into()));
    }
    let mut ended = 0;
    for (_, asking, _) in &mut uploads {
        if let Ok(status) = tokio::time::timeout(std::time::Duration::from_millis(500), asking).await {
            ended += 1;
            let status = status.unwrap();
            assert!(status.as_ref().map_or(true, |status| *status == 503), "{status:?}");
        }
    }
    assert_eq!(ended, 1, "one gave its place to the other visitor, and no more");
    drop(uploads);

    // Answers that nobody takes. What is under way is kept small by what is not read.
    let mut downloads = Vec::new();
    for _ in 0..4 {
        let connection = visitor.connect().await;
        let answer = connection.send(bare(from("GET", "/bytes/1000000000", greedy))).await;
        assert_eq!(answer.status(), 200);
        downloads.push((connection, answer));
    }
    for _ in 0..3 {
        let served = visitor.send(bare(from("GET", "/bytes/100000", other))).await;
        assert_eq!((served.status, served.body.len()), (200, 100_000), "{}", served.text());
    }
}
