//! Components of `wasi:http` 0.3: one that answers a rule, and one through which whole exchanges pass, in
//! front of an origin, of services of either version, and of another like it.

use bytes::Bytes;
use e2e::bulk::{Bulk, Digest};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::{Origin, Upload};
use e2e::process::component;
use e2e::product::{Lent, Product, Stage};
use e2e::visitor::{Speaks, bare, get, to, with_body, with_text};
use e2e::within;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{OnceCell, mpsc};

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Lent {
    STAGE.get_or_init(build).await.lend()
}

async fn build() -> Stage {
    let origin = Origin::start();
    let rule = |path: &str, service: &str, plugins: &str| {
        format!("path = \"{path}\"\nservice = \"{service}\"\nplugins = [{plugins}]")
    };
    let new = "experimental = true\ntimeout = \"2s\"";
    let marks =
        "[plugin.config]\nrequest.append = { x-asked = \"behind\" }\nresponse.append = { x-mark = \"yes\" }";
    let host = HostDocument::new()
        .plugin("older", &component("test/service"), "timeout = \"2s\"")
        .plugin("newer", &component("test/service3"), new)
        .plugin("outer", &component("test/middleware"), new)
        .plugin("inner", &component("test/middleware"), new)
        // What it does with a large body may take its time on a busy machine.
        .plugin("bulk", &component("test/middleware"), "experimental = true\ntimeout = \"60s\"")
        .plugin("marks", &component("headers"), marks)
        .rule(&rule("^/headers", "wasm:older", r#""outer", "marks""#))
        .rule(&rule("^/three", "wasm:newer", ""))
        .rule(&rule("^/twice", "wasm:newer", r#""marks", "outer", "inner""#))
        .rule(&rule("^/nobody", "http://127.0.0.1:1", r#""outer""#))
        .rule(&rule("^/(bytes|sink)", &origin.service(), r#""bulk""#))
        .rule(&rule("^/plain", &origin.service(), ""))
        .rule(&format!("service = {:?}\nplugins = [\"outer\"]", origin.service()));
    let edge = EdgeDocument::new(&["west"], 1);
    Stage::new(Product::start(edge, host).await, origin)
}

#[tokio::test]
async fn a_service_of_the_newer_version_answers_like_any_origin() {
    let stage = stage().await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let answer = stage.product.visitor(speaks).send(get("/three")).await;
        assert_eq!((answer.status, answer.text()), (200, "hello from wasi:http 0.3\n"), "{speaks:?}");
    }
}

#[tokio::test]
async fn middleware_edits_what_an_origin_gets_and_what_it_answers() {
    let stage = stage().await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let request = with_text(to("POST", "/echo/one?two").header("x-mine", "1"), "a body");
        let answer = stage.product.visitor(speaks).send(request).await;
        assert_eq!((answer.status, answer.header("x-passed")), (200, "middleware"), "{speaks:?}");
        let seen = answer.text().to_lowercase();
        for part in ["x-through", "x-mine", "/echo/one?two", "post", "a body", "app.localhost"] {
            assert!(seen.contains(part), "{speaks:?} {part}: {seen}");
        }
        let denied =
            stage.product.visitor(speaks).send(bare(to("GET", "/echo").header("x-do", "deny"))).await;
        assert_eq!(denied.status, 403, "{speaks:?}");
    }
    let head = stage.product.visitor(Speaks::Http1).send(bare(to("HEAD", "/bytes/1000"))).await;
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (200, 0, "1000"));
}

#[tokio::test]
async fn middleware_stands_in_front_of_components_and_filters_and_other_middleware() {
    let stage = stage().await;
    let answer = stage.product.get("/headers").await;
    assert_eq!((answer.header("x-passed"), answer.header("x-mark")), ("middleware", "yes"));
    for line in ["x-through: middleware\n", "x-asked: behind\n"] {
        assert!(answer.text().contains(line), "{line}: {}", answer.text());
    }
    let answer = stage.product.get("/twice").await;
    assert_eq!(answer.headers.get_all("x-passed").iter().count(), 2, "{answer:?}");
    assert_eq!(answer.text(), "hello from wasi:http 0.3\n");
}

#[tokio::test]
async fn bodies_stream_through_middleware_both_ways() {
    let stage = stage().await;
    for (path, told) in [("/streamed", ""), ("/shouted", "shout")] {
        let mut watched = stage.origin.watch(path);
        let connection = stage.product.visitor(Speaks::Http2).connect().await;
        let (feed, mut fed) = mpsc::channel::<Bytes>(1);
        let frames = futures_util::stream::poll_fn(move |context| {
            let frame = |data| Ok::<_, std::convert::Infallible>(Frame::data(data));
            fed.poll_recv(context).map(|data| data.map(frame))
        });
        let request = with_body(to("POST", path).header("x-do", told), StreamBody::new(frames));
        let directed = async {
            watched.arrived().await;
            feed.send(Bytes::from_static(b"first")).await.unwrap();
            watched.received(5).await;
            // The answer begins, and is read, before the upload ends.
            watched.answer(Response::new(()));
            watched.say("one");
        };
        let (response, ()) = tokio::join!(connection.send(request), directed);
        let mut body = response.into_body();
        let expected = |text: &str| if told == "shout" { text.to_uppercase() } else { text.to_owned() };
        let first = within("the first bytes", body.frame()).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), expected("one"), "{path}");
        feed.send(Bytes::from_static(b"second")).await.unwrap();
        watched.received(11).await;
        watched.say("two");
        let second = within("the next bytes", body.frame()).await.unwrap().unwrap();
        assert_eq!(second.into_data().unwrap(), expected("two"), "{path}");
        drop(feed);
        assert!(matches!(watched.uploaded().await, Upload::Complete { bytes: 11 }), "{path}");
        watched.end();
        let rest =
            within("the end", body.collect()).await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        assert!(rest.to_bytes().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn large_bodies_pass_middleware_whole_and_in_flat_memory() {
    const LENGTH: u64 = 64 << 20;
    let Stage { product, origin: _origin, .. } = build().await;
    let visitor = product.visitor(Speaks::Http1);
    visitor.send(get("/bytes/1")).await;
    let watch = product.host.process.watch_memory();
    for told in ["", "shout"] {
        let connection = visitor.connect().await;
        let response =
            connection.send(bare(to("GET", &format!("/bytes/{LENGTH}")).header("x-do", told))).await;
        let (mut body, mut length) = (response.into_body(), 0);
        while let Some(frame) = within("more of it", body.frame()).await {
            length += frame.unwrap().data_ref().map_or(0, |data| data.len() as u64);
        }
        assert_eq!(length, LENGTH);
    }
    let sunk = visitor.send(with_body(to("POST", "/sink"), Bulk::new(LENGTH))).await;
    assert!(sunk.text().contains(&Digest::of_bulk(LENGTH).bytes.to_string()), "{}", sunk.text());
    assert!(watch.growth() < 32 << 20, "the host grew by {} MiB", watch.growth() >> 20);
}

#[tokio::test]
async fn a_visitor_who_leaves_ends_the_guest_and_what_stands_behind_it() {
    let stage = stage().await;
    for told in ["", "shout"] {
        let path = format!("/left/{told}");
        let mut watched = stage.origin.watch(&path);
        let connection = stage.product.visitor(Speaks::Http2).connect().await;
        let request = bare(to("GET", &path).header("x-do", told));
        let directed = async {
            watched.arrived().await;
            watched.answer(Response::new(()));
            watched.say("first");
        };
        let (response, ()) = tokio::join!(connection.send(request), directed);
        drop(response);
        watched.gone().await;
    }
    let mut watched = stage.origin.watch("/left-hanging");
    let connection = stage.product.visitor(Speaks::Http2).connect().await;
    {
        let mut asked = std::pin::pin!(connection.send(get("/left-hanging")));
        tokio::select! {
            _ = watched.arrived() => {}
            answer = &mut asked => panic!("an answer out of nothing: {answer:?}"),
        }
    }
    drop(connection);
    watched.gone().await;
}

#[tokio::test]
async fn middleware_that_breaks_costs_one_request_and_is_counted() {
    let stage = stage().await;
    for told in ["trap", "loop", "late"] {
        let breaking = stage.product.visitor(Speaks::Http1);
        let breaking = breaking.send(bare(to("GET", "/echo").header("x-do", told)));
        let others = async {
            for path in ["/plain", "/echo/other", "/three"] {
                assert_ne!(stage.product.get(path).await.status, 500, "{path} beside {told}");
            }
        };
        let (answer, ()) = tokio::join!(breaking, others);
        assert_eq!(answer.status, 500, "{told}: {}", answer.text());
        assert!(answer.text().contains(answer.header("cf-ray")), "{told}: {}", answer.text());
    }
    let status = stage.product.host.admin("/status").await.json();
    let plugins = status["plugins"].as_array().unwrap();
    let outer = plugins.iter().find(|plugin| plugin["name"] == "outer").unwrap();
    assert!(outer["traps"].as_u64() >= Some(2) && outer["timeouts"].as_u64() >= Some(1), "{outer}");
}

#[tokio::test]
async fn an_origin_that_is_not_there_is_not_there_behind_middleware_either() {
    let stage = stage().await;
    let answer = stage.product.get("/nobody").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
}
