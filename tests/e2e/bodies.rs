//! Bodies stream both ways, whatever their size, and nobody keeps them.

use e2e::bulk::{Bulk, Digest};
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::Origin;
use e2e::product::{Lent, Product, Site, Stage};
use e2e::visitor::{Speaks, Visitor, get, to, with_body};
use e2e::within;
use futures_util::future::join_all;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

const MIB: u64 = 1024 * 1024;
const LARGE: u64 = 200 * MIB;
const MOST_GROWTH: u64 = 32 * MIB;

async fn stage() -> Lent {
    STAGE.get_or_init(build).await.lend()
}

async fn build() -> Stage {
    let origin = Origin::start();
    let host = HostDocument::new().over(super::PROTOCOL).otherwise(&origin.service());
    let (site, edge) = (Site::new().giving_back_at_once(), EdgeDocument::new(&["west"], 1).with_https());
    Stage::new(Product::start_at(site, edge, host).await, origin)
}

#[tokio::test]
async fn two_hundred_mebibytes_come_down_in_flat_memory() {
    let Stage { product, origin: _origin, .. } = build().await;
    let visitor = product.visitor(Speaks::Http1);
    assert_eq!(visitor.send(get("/bytes/1")).await.status, 200);
    let watches = [product.edge.process.watch_memory(), product.host.process.watch_memory()];
    let response = visitor.connect().await;
    let response = response.send(get(&format!("/bytes/{LARGE}"))).await;
    assert_eq!(digest(response).await, Digest::of_bulk(LARGE));
    for (name, watch) in ["edge", "host"].iter().zip(&watches) {
        assert!(watch.growth() < MOST_GROWTH, "the {name} grew by {} MiB", watch.growth() / MIB);
        eprintln!("the {name} grew by {} KiB", watch.growth() / 1024);
    }
}

#[tokio::test]
async fn two_hundred_mebibytes_go_up_in_flat_memory() {
    let Stage { product, origin: _origin, .. } = build().await;
    let visitor = product.visitor(Speaks::Http1);
    assert_eq!(visitor.send(get("/bytes/1")).await.status, 200);
    let watches = [product.edge.process.watch_memory(), product.host.process.watch_memory()];
    let sunk = visitor.send(with_body(to("POST", "/sink"), Bulk::new(LARGE))).await;
    assert_eq!(sunk_digest(&sunk.json()), Digest::of_bulk(LARGE));
    for (name, watch) in ["edge", "host"].iter().zip(&watches) {
        assert!(watch.growth() < MOST_GROWTH, "the {name} grew by {} MiB", watch.growth() / MIB);
        eprintln!("the {name} grew by {} KiB", watch.growth() / 1024);
    }
}

#[tokio::test]
async fn a_visitor_that_does_not_read_stops_the_origin_instead_of_filling_memory() {
    let Stage { product, origin, .. } = build().await;
    let mut watched = origin.watch("/flood");
    let connection = product.visitor(Speaks::Http1).connect().await;
    let watches = [product.edge.process.watch_memory(), product.host.process.watch_memory()];
    let asked = connection.send(get("/flood"));
    let directed = async {
        watched.arrived().await;
        watched.answer(Response::new(()));
        watched.flood(vec![7; 64 * 1024]);
    };
    let (response, ()) = tokio::join!(asked, directed);
    // While this visitor reads nothing, others read as much as would have filled the memory.
    let other = product.visitor(Speaks::Http1).connect().await;
    let length = 100 * MIB;
    assert_eq!(digest(other.send(get(&format!("/bytes/{length}"))).await).await, Digest::of_bulk(length));
    for (name, watch) in ["edge", "host"].iter().zip(&watches) {
        assert!(watch.growth() < MOST_GROWTH, "the {name} grew by {} MiB", watch.growth() / MIB);
        eprintln!("the {name} grew by {} KiB", watch.growth() / 1024);
    }
    drop((response, connection));
    watched.gone().await;
}

#[tokio::test]
async fn bodies_of_odd_sizes_arrive_whole_in_every_version_of_http() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        for length in [0, 1, 1023, 65_536, 1_000_003] {
            let visitor = stage.product.visitor(speaks);
            let sunk = visitor.send(with_body(to("POST", "/sink"), Bulk::new(length))).await.json();
            assert_eq!(sunk_digest(&sunk), Digest::of_bulk(length), "{speaks:?} {sunk}");
            let connection = visitor.connect().await;
            for path in ["bytes", "chunks"] {
                let response = connection.send(get(&format!("/{path}/{length}"))).await;
                assert_eq!(digest(response).await, Digest::of_bulk(length), "{speaks:?} {path}");
            }
        }
    }
}

#[tokio::test]
async fn an_upload_without_a_length_arrives_in_chunks() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        let length = 3 * MIB + 1;
        let request = with_body(to("POST", "/sink"), Bulk::without_length(length));
        let sunk = stage.product.visitor(speaks).send(request).await.json();
        assert_eq!(sunk_digest(&sunk), Digest::of_bulk(length), "{speaks:?} {sunk}");
        assert_eq!(sunk["content-length"], Value::Null, "{speaks:?}");
    }
}

#[tokio::test]
async fn server_sent_events_arrive_one_by_one() {
    let stage = stage().await;
    for speaks in Speaks::ALL {
        let path = format!("/events/{speaks:?}");
        let mut watched = stage.origin.watch(&path);
        let connection = stage.product.visitor(speaks).connect().await;
        let directed = async {
            watched.arrived().await;
            watched.answer(Response::builder().header("content-type", "text/event-stream").body(()).unwrap());
        };
        let (response, ()) = tokio::join!(connection.send(get(&path)), directed);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body();
        for number in 0..5 {
            // The next one does not exist before this one has arrived.
            let event = format!("data: {number}\n\n");
            watched.say(event.clone());
            let mut arrived = Vec::new();
            while arrived.len() < event.len() {
                let frame = within("an event", body.frame()).await.expect("the stream goes on").unwrap();
                arrived.extend_from_slice(&frame.into_data().unwrap());
            }
            assert_eq!(arrived, event.as_bytes(), "{speaks:?}");
        }
        watched.end();
        let rest = within("the end of the events", body.collect()).await.unwrap().to_bytes();
        assert!(rest.is_empty(), "{speaks:?}");
    }
}

#[tokio::test]
async fn a_hundred_requests_run_at_once_on_one_connection() {
    let stage = stage().await;
    assert_eq!(stage.product.host.ready().await["connections"].as_array().unwrap().len(), 1);
    let paths: Vec<_> = (0..100).map(|number| format!("/at-once/{number}")).collect();
    let mut watched: Vec<_> = paths.iter().map(|path| stage.origin.watch(path)).collect();
    let connection = stage.product.visitor(Speaks::Http2).connect().await;
    let directed = async {
        // Nobody is answered before all have arrived.
        for request in &mut watched {
            request.arrived().await;
        }
        for (number, request) in watched.iter().enumerate().rev() {
            request.answer(Response::new(()));
            request.say(format!("answer {number}"));
            request.end();
        }
    };
    let (answers, ()) = tokio::join!(join_all(paths.iter().map(|path| connection.ask(get(path)))), directed);
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!((answer.status, answer.text()), (200, format!("answer {number}").as_str()));
    }
}

#[tokio::test]
async fn a_hundred_visitors_are_served_at_once() {
    let stage = stage().await;
    let visitor = stage.product.visitor(Speaks::Http1);
    let ask = async |visitor: Visitor| {
        let sunk = visitor.send(with_body(to("POST", "/sink"), Bulk::new(100_000))).await;
        assert_eq!(sunk_digest(&sunk.json()), Digest::of_bulk(100_000));
    };
    join_all((0..100).map(|_| ask(visitor.clone()))).await;
}

#[tokio::test]
async fn a_visitor_that_asks_before_it_uploads_is_told_to_go_on() {
    let stage = stage().await;
    let mut tcp = stage.product.visitor(Speaks::Http1).dial().await;
    let head = format!(
        "POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 6\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 25];
    within("100 Continue", tcp.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    tcp.write_all(b"a body").await.unwrap();
    let mut answer = String::new();
    within("the answer", tcp.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"body\":\"a body\""), "{answer}");
}

/// What came, without keeping it.
async fn digest(response: Response<Incoming>) -> Digest {
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut digest = Digest::new();
    let read = async {
        while let Some(frame) = body.frame().await {
            digest.add(&frame.expect("a whole body").into_data().unwrap_or_default());
        }
    };
    within("a download", read).await;
    digest
}

fn sunk_digest(sunk: &Value) -> Digest {
    Digest { bytes: sunk["bytes"].as_u64().unwrap(), hash: sunk["hash"].as_u64().unwrap() }
}
