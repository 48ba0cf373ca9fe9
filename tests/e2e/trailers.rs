//! gRPC crosses the tunnel: trailers in both directions, and messages both ways at once.

use bytes::Bytes;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::grpc::{Grpc, Messages, message};
use e2e::origin::RawOrigin;
use e2e::product::Product;
use e2e::visitor::{BoxError, Speaks, to, with_body};
use e2e::within;
use http::{HeaderMap, HeaderValue, Response, request};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Body as _, Incoming};
use tokio::sync::OnceCell;

/// What visitors of gRPC speak.
const SPEAKS: [Speaks; 2] = [Speaks::Http2, Speaks::Tls2];

static STAGE: OnceCell<(Grpc, Product)> = OnceCell::const_new();

async fn product() -> &'static Product {
    let (_, product) = STAGE
        .get_or_init(async || {
            let grpc = Grpc::start();
            let host = HostDocument::new().over(super::PROTOCOL).rule(&grpc.rule());
            (grpc, Product::start(EdgeDocument::new(&["west"], 1).with_https(), host).await)
        })
        .await;
    product
}

fn call(path: &str) -> request::Builder {
    to("POST", path).header("content-type", "application/grpc").header("te", "trailers")
}

fn body() -> (Sender<Bytes, BoxError>, Channel<Bytes, BoxError>) {
    Channel::new(1)
}

/// The messages that are left, and what stands behind them.
async fn rest(response: Response<Incoming>) -> (Vec<Bytes>, HeaderMap) {
    let (mut messages, mut found, mut body) = (Messages::default(), Vec::new(), response.into_body());
    while let Some(message) = within("a message", messages.next(&mut body)).await.unwrap() {
        found.push(message);
    }
    (found, messages.trailers.expect("trailers"))
}

fn assert_status(trailers: &HeaderMap, messages: &str) {
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-count"]),
        (&HeaderValue::from_static("0"), &messages.parse().unwrap())
    );
    assert!(!trailers.contains_key("adit-not-here"), "{trailers:?}");
}

#[tokio::test]
async fn a_unary_call_gets_its_answer_and_its_status() {
    for speaks in SPEAKS {
        let connection = product().await.visitor(speaks).connect().await;
        let (mut sender, body) = body();
        let asked = connection.send(with_body(call("/Unary"), body));
        let said = async {
            sender.send_data(message(b"hello")).await.unwrap();
            drop(sender);
        };
        let (response, ()) = tokio::join!(asked, said);
        assert_eq!(response.status(), 200);
        assert_eq!(
            (&response.headers()["x-te"], &response.headers()["x-internal"]),
            (&HeaderValue::from_static("trailers"), &HeaderValue::from_static("0"))
        );
        assert!(!response.headers().keys().any(|name| name.as_str().starts_with("adit-")), "{response:?}");
        let (messages, trailers) = rest(response).await;
        assert_eq!(messages, ["hello"], "{speaks:?}");
        assert_status(&trailers, "1");
    }
}

#[tokio::test]
async fn a_stream_of_messages_ends_with_its_status() {
    for speaks in SPEAKS {
        let connection = product().await.visitor(speaks).connect().await;
        let (mut sender, body) = body();
        let asked = connection.send(with_body(call("/Count"), body));
        let said = async {
            sender.send_data(message(&[200; 1000])).await.unwrap();
            drop(sender);
        };
        let (response, ()) = tokio::join!(asked, said);
        let (messages, trailers) = rest(response).await;
        assert_eq!(messages.len(), 200, "{speaks:?}");
        assert!(messages.iter().all(|message| *message == [200; 1000][..]));
        assert_status(&trailers, "1");
    }
}

#[tokio::test]
async fn messages_go_both_ways_at_once_and_each_side_ends_its_own_direction() {
    for speaks in SPEAKS {
        let connection = product().await.visitor(speaks).connect().await;
        let (mut sender, body) = body();
        let asked = connection.send(with_body(call("/Bidi"), body));
        // The head of the answer comes before anything was said.
        let response = within("the head of the answer", asked).await;
        let (mut messages, mut answers) = (Messages::default(), response.into_body());
        for number in 0..20 {
            let said = format!("message {number}");
            sender.send_data(message(said.as_bytes())).await.unwrap();
            // The next one does not exist before the answer to this one.
            let answer = within("an answer", messages.next(&mut answers)).await.unwrap();
            assert_eq!(answer.unwrap(), said, "{speaks:?}");
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", HeaderValue::from_static("goodbye"));
        sender.send_trailers(trailers).await.unwrap();
        drop(sender);
        assert_eq!(within("the end", messages.next(&mut answers)).await.unwrap(), None);
        let trailers = messages.trailers.unwrap();
        assert_status(&trailers, "20");
        assert_eq!(trailers["x-end"], "goodbye", "{speaks:?}");
    }
}

#[tokio::test]
async fn a_status_without_messages_is_in_the_head() {
    for speaks in SPEAKS {
        let connection = product().await.visitor(speaks).connect().await;
        let (sender, body) = body();
        drop(sender);
        let response = connection.send(with_body(call("/Refuse"), body)).await;
        assert_eq!(response.headers()["grpc-status"], "5", "{speaks:?}");
        // Clients look for it there only if nothing follows.
        assert!(response.body().is_end_stream(), "{speaks:?}");
        let body = within("the end", response.into_body().collect()).await.unwrap();
        assert!(body.to_bytes().is_empty());
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_does_not_look_whole() {
    for speaks in SPEAKS {
        let connection = product().await.visitor(speaks).connect().await;
        let (mut sender, body) = body();
        let asked = connection.send(with_body(call("/BreakOff"), body));
        let response = within("the head of the answer", asked).await;
        let (mut messages, mut answers) = (Messages::default(), response.into_body());
        sender.send_data(message(b"one")).await.unwrap();
        assert_eq!(within("an answer", messages.next(&mut answers)).await.unwrap().unwrap(), "one");
        sender.send_data(message(b"two")).await.unwrap();
        let end = within("the break", messages.next(&mut answers)).await;
        assert!(end.is_err(), "{speaks:?}: {end:?}");
        assert!(messages.trailers.is_none(), "{speaks:?}");
    }
}

#[tokio::test]
async fn trailers_of_an_http1_origin_reach_those_who_asked_for_them() {
    let origin = RawOrigin::start(
        b"HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\nx-sum: 9\r\n\r\n",
    );
    let host = HostDocument::new().over(super::PROTOCOL).otherwise(&origin.service());
    let product = Product::start(EdgeDocument::new(&["west"], 1).with_https(), host).await;
    for speaks in Speaks::ALL {
        let connection = product.visitor(speaks).connect().await;
        let request = to("GET", "/").header("te", "trailers");
        // HTTP/1.1 names what concerns one connection only.
        let request = match speaks {
            Speaks::Http1 | Speaks::Tls1 => request.header("connection", "te"),
            Speaks::Http2 | Speaks::Tls2 => request,
        };
        let response = connection.send(e2e::visitor::bare(request)).await;
        let body = within("the body", response.into_body().collect()).await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        assert_eq!(body.to_bytes(), "data", "{speaks:?}");
        assert_eq!(trailers.get("x-sum"), Some(&HeaderValue::from_static("9")), "{speaks:?}");
    }
}

#[tokio::test]
async fn a_visitor_that_leaves_ends_the_call_at_the_service() {
    let grpc = Grpc::start();
    let host = HostDocument::new().over(super::PROTOCOL).rule(&grpc.rule());
    let product = Product::start(EdgeDocument::new(&["west"], 1).with_https(), host).await;
    for speaks in SPEAKS {
        let connection = product.visitor(speaks).connect().await;
        let (sender, body) = body();
        let asked = connection.send(with_body(call("/Bidi"), body));
        let response = within("the head of the answer", asked).await;
        grpc.calls(1).await;
        drop((response, connection));
        // The stream lives for as long as one of its directions does.
        sender.abort("the visitor leaves".into());
        grpc.calls(0).await;
    }
}
