//! Whoever leaves in the middle is missed on the other side, and half a body is never a whole one.

use e2e::bulk::Bulk;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::{Origin, RawOrigin, Upload};
use e2e::product::{Lent, Product, Stage};
use e2e::visitor::{Speaks, bare, get, to, with_body};
use e2e::within;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use tokio::sync::{OnceCell, mpsc};

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Lent {
    STAGE.get_or_init(build).await.lend()
}

async fn build() -> Stage {
    let origin = Origin::start();
    let short = RawOrigin::start(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial");
    let cut = RawOrigin::start(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\npartial\r\n");
    let cut_in_chunk =
        RawOrigin::start(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\npartial");
    let rule = |host: &str, origin: &RawOrigin| {
        format!("hostname = \"{host}.app.localhost\"\nservice = \"{}\"", origin.service())
    };
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .rule(&rule("short", &short))
        .rule(&rule("cut", &cut))
        .rule(&rule("cut-in-chunk", &cut_in_chunk))
        .otherwise(&origin.service());
    Stage::new(Product::start(EdgeDocument::new(&["west"], 1).with_https(), host).await, origin)
}

#[tokio::test]
async fn the_origin_learns_that_a_visitor_left_in_the_middle_of_a_download() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        let path = format!("/left-download/{speaks:?}");
        let mut watched = stage.origin.watch(&path);
        let connection = stage.product.visitor(speaks).connect().await;
        let directed = async {
            watched.arrived().await;
            watched.answer(Response::new(()));
            watched.flood(vec![b'x'; 16 * 1024]);
        };
        let (response, ()) = tokio::join!(connection.send(get(&path)), directed);
        let mut body = response.into_body();
        within("the first bytes", body.frame()).await.unwrap().unwrap();
        drop((body, connection));
        watched.gone().await;
    }
}

#[tokio::test]
async fn a_single_cancelled_stream_of_an_http2_visitor_ends_at_the_origin_and_no_other_does() {
    let stage = stage().await;
    let connection = stage.product.visitor(Speaks::Http2).connect().await;
    let mut left = stage.origin.watch("/stream/left");
    let mut kept = stage.origin.watch("/stream/kept");
    let directed = async {
        left.arrived().await;
        kept.arrived().await;
        for watched in [&left, &kept] {
            watched.answer(Response::new(()));
            watched.say("first");
        }
    };
    let (leaving, staying, ()) =
        tokio::join!(connection.send(get("/stream/left")), connection.send(get("/stream/kept")), directed);
    drop(leaving);
    left.gone().await;
    kept.say(", second");
    kept.end();
    let body = within("the other body", staying.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "first, second");
}

#[tokio::test]
async fn the_origin_learns_that_a_visitor_left_while_it_was_thinking() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        let path = format!("/left-hanging/{speaks:?}");
        let mut watched = stage.origin.watch(&path);
        let connection = stage.product.visitor(speaks).connect().await;
        {
            let mut asked = std::pin::pin!(connection.send(get(&path)));
            tokio::select! {
                _ = watched.arrived() => {}
                answer = &mut asked => panic!("an answer out of nothing: {answer:?}"),
            }
        }
        drop(connection);
        watched.gone().await;
    }
}

#[tokio::test]
async fn an_upload_that_was_abandoned_never_looks_complete_to_the_origin() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        for says_length in [true, false] {
            let path = format!("/left-upload/{speaks:?}/{says_length}");
            let mut watched = stage.origin.watch(&path);
            let connection = stage.product.visitor(speaks).connect().await;
            let (feed, mut fed) = mpsc::channel::<Bytes>(4);
            let frames = futures_util::stream::poll_fn(move |cx| {
                fed.poll_recv(cx)
                    .map(|data| data.map(|data| Ok::<_, std::convert::Infallible>(Frame::data(data))))
            });
            let mut head = to("POST", &path);
            if says_length {
                head = head.header("content-length", "1000000");
            }
            let request = with_body(head, StreamBody::new(frames));
            let exchange = tokio::spawn(async move {
                // Kept alive with the exchange: aborting it closes the connection.
                let connection = connection;
                let _ = connection.try_send(request).await;
            });
            watched.arrived().await;
            feed.send(vec![b'x'; 20_000].into()).await.unwrap();
            watched.received(20_000).await;
            exchange.abort();
            let _ = exchange.await;
            drop(feed);
            assert_eq!(
                watched.uploaded().await,
                Upload::Broken { bytes: 20_000 },
                "{speaks:?} {says_length}"
            );
        }
    }
}

#[tokio::test]
async fn half_an_answer_of_a_dying_origin_is_a_broken_one_for_the_visitor() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        for host in ["short", "cut", "cut-in-chunk"] {
            let request = bare(Request::get(format!("http://{host}.app.localhost/")));
            let connection = stage.product.visitor(speaks).connect().await;
            let broken = match connection.try_send(request).await {
                // The connection broke before the head could be told from the break.
                Err(_) => true,
                // The break overtook the head: a reset of a QUIC stream drops what is on its way.
                Ok(response) if response.status() == 502 => true,
                Ok(response) => {
                    assert_eq!(response.status(), 200, "{speaks:?} {host}");
                    within("the end of half a body", response.into_body().collect()).await.is_err()
                }
            };
            assert!(broken, "{speaks:?} {host}: looked complete");
        }
        // Only that exchange is lost.
        assert_eq!(stage.product.visitor(speaks).send(get("/bytes/10")).await.body.len(), 10, "{speaks:?}");
    }
}

#[tokio::test]
async fn an_origin_that_breaks_off_after_the_visitor_has_some_of_it_breaks_the_visitors_body() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        for length in [None, Some("1000")] {
            let path = format!("/break/{speaks:?}/{}", length.is_some());
            let mut watched = stage.origin.watch(&path);
            let connection = stage.product.visitor(speaks).connect().await;
            let directed = async {
                watched.arrived().await;
                let head = Response::builder();
                let head =
                    length.into_iter().fold(head, |head, length| head.header("content-length", length));
                watched.answer(head.body(()).unwrap());
                watched.say("some of it");
            };
            let (response, ()) = tokio::join!(connection.send(get(&path)), directed);
            let mut body = response.into_body();
            let first = within("the first bytes", body.frame()).await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), "some of it");
            watched.break_off();
            let end = within("the end of a broken body", body.collect()).await;
            assert!(end.is_err(), "{speaks:?} {length:?}: looked complete");
        }
    }
}

#[tokio::test]
async fn an_origin_that_answers_before_the_upload_ends_is_heard() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        let path = format!("/early/{speaks:?}");
        let mut watched = stage.origin.watch(&path);
        let connection = stage.product.visitor(speaks).connect().await;
        let directed = async {
            watched.arrived().await;
            watched.received(1).await;
            watched.answer(Response::builder().status(413).body(()).unwrap());
            watched.end();
        };
        let request = with_body(to("POST", &path), Bulk::new(8 * 1024 * 1024));
        let (answer, ()) = tokio::join!(connection.try_send(request), directed);
        // Over HTTP/1.1 the connection may go before the visitor has written all and looked.
        if speaks == Speaks::Http2 || speaks == Speaks::Tls2 {
            assert_eq!(answer.expect("an answer").status(), 413, "{speaks:?}");
        } else if let Ok(answer) = answer {
            assert_eq!(answer.status(), 413, "{speaks:?}");
        }
        assert_eq!(stage.product.visitor(speaks).send(get("/bytes/10")).await.status, 200);
    }
}

/// Lines of a log that somebody would be woken by, without those that are one for each request.
fn alarming(log: &str) -> Vec<&str> {
    let is_calm = |line: &&str| {
        line.is_empty()
            || ["\"TRACE\"", "\"DEBUG\"", "adit_host::access"].iter().any(|calm| line.contains(calm))
    };
    log.lines().filter(|line| !is_calm(line)).collect()
}

#[tokio::test]
async fn a_visitor_who_leaves_is_a_line_in_the_access_log_and_nothing_else() {
    let origin = Origin::start();
    let host =
        HostDocument::new().over(super::PROTOCOL).keys("access-log = true").otherwise(&origin.service());
    let product = Product::start(EdgeDocument::new(&["west"], 1).with_https(), host).await;
    assert_eq!(product.get("/bytes/10").await.status, 200);
    let outcome = async |path: &str| {
        let line = product.host.process.event("access", |event| event["path"] == path).await;
        (line["outcome"].as_str().unwrap().to_owned(), line["status"].as_u64().unwrap())
    };
    assert_eq!(outcome("/bytes/10").await, ("whole".to_owned(), 200));
    // A request may be served before this line is there.
    product.edge.process.event("registered", |_| true).await;
    let before = (product.host.process.log(), product.edge.process.log());
    for speaks in Speaks::ALL {
        for when in ["thinking", "downloading", "uploading"] {
            let path = format!("/left/{speaks:?}/{when}");
            let mut watched = origin.watch(&path);
            let connection = product.visitor(speaks).connect().await;
            match when {
                "thinking" => {
                    let mut asked = std::pin::pin!(connection.send(get(&path)));
                    tokio::select! {
                        _ = watched.arrived() => {}
                        answer = &mut asked => panic!("an answer out of nothing: {answer:?}"),
                    }
                }
                "downloading" => {
                    let directed = async {
                        watched.arrived().await;
                        watched.answer(Response::new(()));
                        watched.say("some of it");
                    };
                    let (response, ()) = tokio::join!(connection.send(get(&path)), directed);
                    let mut body = response.into_body();
                    within("the first bytes", body.frame()).await.unwrap().unwrap();
                }
                _ => {
                    let request = with_body(to("POST", &path).header("content-length", "1000000"), forever());
                    let mut asked = std::pin::pin!(connection.try_send(request));
                    tokio::select! {
                        () = async { watched.arrived().await; watched.received(5).await } => {}
                        answer = &mut asked => panic!("an answer out of nothing: {answer:?}"),
                    }
                }
            }
            drop(connection);
            let status = if when == "downloading" { 200 } else { 0 };
            let (outcome, seen) = outcome(&path).await;
            // Of an upload the break may be heard before the word that nobody waits for the answer.
            assert_eq!(outcome, "cancelled", "{path}");
            assert!(seen == status || (when == "uploading" && seen == 502), "{path}: {seen}");
        }
    }
    let (host, edge) = (product.host.process.log(), product.edge.process.log());
    assert_eq!(alarming(&host[before.0.len()..]), Vec::<&str>::new());
    assert_eq!(alarming(&edge[before.1.len()..]), Vec::<&str>::new());
}

/// A body that begins and never goes on.
fn forever() -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>>> {
    let mut first = Some(Bytes::from_static(b"begun"));
    StreamBody::new(futures_util::stream::poll_fn(move |_| match first.take() {
        Some(first) => std::task::Poll::Ready(Some(Ok(Frame::data(first)))),
        None => std::task::Poll::Pending,
    }))
}
