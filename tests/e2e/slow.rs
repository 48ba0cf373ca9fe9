//! Who does not take what is sent to it takes nothing from others, and does not stay for ever.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::bulk::{Bulk, Digest};
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::Origin;
use e2e::process::Process;
use e2e::product::{Product, Site, Stage};
use e2e::stalled::{CrumbOrigin, DeafOrigin, Http1, Http2, Upload, crumbs};
use e2e::visitor::{Speaks, Visitor, get, to, with_body};
use e2e::within;
use futures_util::{SinkExt, StreamExt};
use http::Response;
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

const MIB: u64 = 1 << 20;
/// More than any visitor reads.
const ENDLESS: &str = "/bytes/1099511627776";
/// Another visitor's whole exchange of a few MiB, which takes a fraction of a second where nothing is in its
/// way. Before, it took as long as those who did not read liked.
const PROMPT: Duration = Duration::from_secs(20);
/// The host of a rule whose origin never reads.
const DEAF: &str = "deaf.app.localhost";

struct Keys {
    edge: &'static str,
    host: &'static str,
}

async fn start(keys: Keys) -> (Stage, DeafOrigin) {
    let (origin, deaf) = (Origin::start(), DeafOrigin::start());
    let mut edge = EdgeDocument::new(&["west"], 1);
    edge.more = format!("[bodies]\n{}\n", keys.edge);
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .rule(&format!("hostname = {DEAF:?}\nservice = {:?}", deaf.service()))
        .otherwise(&origin.service());
    let host = HostDocument { plugins: format!("[bodies]\n{}\n", keys.host), ..host };
    (Stage::new(Product::start(edge, host).await, origin), deaf)
}

async fn down_and_up(visitor: &Visitor) {
    let both = async {
        let connection = visitor.connect().await;
        let mut body = connection.send(get(&format!("/bytes/{}", 4 * MIB))).await.into_body();
        let mut digest = Digest::new();
        while let Some(frame) = body.frame().await {
            digest.add(frame.unwrap().data_ref().unwrap());
        }
        assert_eq!(digest, Digest::of_bulk(4 * MIB));
        let sunk = visitor.send(with_body(to("POST", "/sink"), Bulk::new(4 * MIB))).await;
        assert_eq!(sunk.json()["bytes"], 4 * MIB);
    };
    if timeout(PROMPT, both).await.is_err() {
        panic!("others waited for those who take nothing");
    }
}

#[tokio::test]
async fn visitors_who_never_read_stop_no_others_and_end_when_their_grace_is_over() {
    let (stage, _deaf) = start(Keys { edge: "grace = \"4s\"", host: "" }).await;
    let edge = stage.product.edge.http;
    // More than a connection to a host ever had room for.
    let mut over_http2 = Vec::new();
    for _ in 0..2 {
        over_http2.push(Http2::get(edge, ENDLESS, 50).await.unwrap());
    }
    let mut over_http1 = Vec::new();
    for _ in 0..40 {
        over_http1.push(Http1::get(edge, ENDLESS).await.unwrap());
    }
    for speaks in [Speaks::Http1, Speaks::Http2] {
        down_and_up(&stage.product.visitor(speaks)).await;
    }
    for connection in &over_http2 {
        within("the end of a visitor who never reads", connection.ended()).await;
    }
    within("the end of visitors who never read", async {
        while !over_http1.iter().all(Http1::is_over) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    down_and_up(&stage.product.visitor(Speaks::Http1)).await;
}

#[tokio::test]
async fn an_origin_that_never_reads_stops_no_other_upload_and_is_given_up() {
    let (stage, deaf_origin) = start(Keys { edge: "", host: "grace = \"4s\"" }).await;
    let product = &stage.product;
    let mut uploads = Vec::new();
    for _ in 0..12 {
        uploads.push(Upload::post(product.edge.http, DEAF, "/", 100 * MIB).await.unwrap());
    }
    // Three more on the connection that another visitor uses.
    let shared = product.visitor(Speaks::Http2).connect().await;
    let deaf = || http::Request::post(format!("http://{DEAF}/"));
    let stuck = async {
        let requests = (0..3).map(|_| shared.try_send(with_body(deaf(), Bulk::new(100 * MIB))));
        futures_util::future::join_all(requests).await
    };
    let others = async {
        for speaks in [Speaks::Http1, Speaks::Http2] {
            down_and_up(&product.visitor(speaks)).await;
        }
        let sunk = shared.ask(with_body(to("POST", "/sink"), Bulk::new(4 * MIB)));
        let sunk = timeout(PROMPT, sunk).await.expect("a connection with stuck uploads takes others");
        assert_eq!(sunk.json()["bytes"], 4 * MIB);
    };
    let (stuck, ()) = tokio::join!(stuck, others);
    for answer in stuck.into_iter().flatten() {
        assert!(answer.status().is_server_error(), "{}", answer.status());
    }
    for upload in &uploads {
        within("the end of an upload that is not read", upload.ended()).await;
    }
    within("the system to keep nothing of what the origin did not take", async {
        while left_behind(deaf_origin.address()) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Whether the system still has something for that address, of a socket that its process has closed.
fn left_behind(address: SocketAddr) -> bool {
    const FIN_WAIT: [&str; 3] = ["04", "05", "0B"];
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let wanted = format!(":{:04X}", address.port());
    table.lines().skip(1).any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[2].ends_with(&wanted) && FIN_WAIT.contains(&fields[3]) && !fields[4].starts_with("00000000")
    })
}

#[tokio::test]
async fn beyond_the_cap_the_slowest_go_at_once_and_those_that_move_stay() {
    let (stage, _deaf) = start(Keys { edge: "held = \"16MiB\"", host: "" }).await;
    let edge = stage.product.edge.http;
    let moving = async {
        let connection = stage.product.visitor(Speaks::Http1).connect().await;
        let mut body = connection.send(get(&format!("/bytes/{}", 8 * MIB))).await.into_body();
        let mut digest = Digest::new();
        while let Some(frame) = body.frame().await {
            digest.add(frame.expect("who reads is not cut off").data_ref().unwrap());
            sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(digest, Digest::of_bulk(8 * MIB));
    };
    let stalled = async {
        let mut stalled = Vec::new();
        for _ in 0..40 {
            stalled.push(Http1::get(edge, ENDLESS).await.unwrap());
        }
        let over = || stalled.iter().filter(|visitor| visitor.is_over()).count();
        // Each holds a window of one MiB and what stands around it, up to three in all.
        within("the end of those that are too much", async {
            while over() < 24 {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let held = stalled.len() - over();
        assert!(held >= 4, "only {held} are left");
    };
    within("both", async { tokio::join!(moving, stalled) }).await;
    stage.product.edge.process.said("why", |line| line.contains("bodies.held")).await;
}

/// One byte in a frame of its own costs a connection between edge and host some hundred, as long as it is unread.
#[tokio::test]
async fn crumbs_that_are_not_taken_end_nothing_that_others_have_under_way() {
    const CRUMBS: usize = 200_000;
    const HOST_OF_CRUMBS: &str = "crumbs.app.localhost";
    let (origin, slow) = (Origin::start(), CrumbOrigin::start(CRUMBS));
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .rule(&format!("hostname = {HOST_OF_CRUMBS:?}\nservice = {:?}", slow.service()))
        .otherwise(&origin.service());
    let stage = Stage::new(Product::start(EdgeDocument::new(&["west"], 1), host).await, origin);
    let product = &stage.product;
    let tcp = product.visitor(Speaks::Http1).dial().await;
    let (mut socket, _) = client_async(format!("ws://{HOST}/websocket"), tcp).await.unwrap();

    let mut down = Http1::get_from(product.edge.http, HOST_OF_CRUMBS, "/").await.unwrap();
    let body = crumbs(CRUMBS);
    let up = Http1::post_chunks(product.edge.http, HOST_OF_CRUMBS, &body);
    let mut up = within("all of an upload", up).await.unwrap();
    for speaks in [Speaks::Http1, Speaks::Http2] {
        down_and_up(&product.visitor(speaks)).await;
    }
    socket.send(Message::text("still here")).await.unwrap();
    let message = within("an echo", socket.next()).await.expect("it goes on").unwrap();
    assert_eq!(message, Message::text("still here"));

    // Both get there in the end.
    slow.read();
    let text = async |visitor: &mut Http1, end: &str| {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let piece = visitor.read(64 << 10).await.unwrap();
            assert!(!piece.is_empty(), "it broke off after {} bytes", text.len());
            text.extend_from_slice(&piece);
        }
        String::from_utf8(text).unwrap()
    };
    let answer = within("the whole of an answer", text(&mut down, "\r\n0\r\n\r\n")).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.matches('x').count(), CRUMBS);
    let answer = within("an answer", text(&mut up, &CRUMBS.to_string())).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// What an end has to send in frames of one byte would cost it some hundred each while the other one stands still.
#[tokio::test]
async fn crumbs_for_an_end_that_stands_still_are_kept_in_few_pieces() {
    const CRUMBS: usize = 400_000;
    const FEW: u64 = 24 * MIB;
    let slow = CrumbOrigin::start(CRUMBS);
    let host = HostDocument::new().over(super::PROTOCOL).otherwise(&slow.service());
    let site = Site::new().giving_back_at_once();
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    let (edge, host) = (&product.edge.process, &product.host.process);
    let lost = async |process: &Process| process.event("connection lost", |_| true).await;

    let mut down = Http1::get_from(product.edge.http, HOST, "/later").await.unwrap();
    within("the head of an answer", down.read(1024)).await.unwrap();
    let memory = host.watch_memory();
    edge.freeze();
    slow.read();
    lost(host).await;
    edge.go_on();
    assert!(memory.growth() < FEW, "the host has taken {} bytes", memory.growth());

    within("the way back", async {
        while product.host.ready().await["status"] != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let memory = edge.watch_memory();
    host.freeze();
    let body = crumbs(CRUMBS);
    let up = Http1::post_chunks(product.edge.http, HOST, &body);
    let (lost, _) = tokio::join!(lost(edge), timeout(Duration::from_secs(60), up));
    host.go_on();
    assert!(memory.growth() < FEW, "the edge has taken {} bytes: {lost}", memory.growth());
}

#[tokio::test]
async fn slow_readers_and_those_who_wait_for_something_outlive_the_grace() {
    let keys = "grace = \"1s\"\nminimum-rate = \"16KiB\"";
    let (stage, _deaf) = start(Keys { edge: keys, host: keys }).await;
    let product = &stage.product;
    let mut watched = stage.origin.watch("/poll");
    let (response, ()) = tokio::join!(
        async { product.visitor(Speaks::Http2).connect().await.send(get("/poll")).await },
        async {
            watched.arrived().await;
            watched.answer(Response::new(()));
        }
    );
    let tcp = product.visitor(Speaks::Http1).dial().await;
    let (mut socket, _) = client_async(format!("ws://{HOST}/websocket"), tcp).await.unwrap();
    let stalled = Http2::get(product.edge.http, ENDLESS, 1).await.unwrap();

    // Several times as slow as those who are never in anybody's way, and several times as fast as it must be.
    let mut slow = Http1::get(product.edge.http, &format!("/bytes/{MIB}")).await.unwrap();
    let mut read = 0;
    while read < MIB {
        let piece = within("a piece", slow.read(16 << 10)).await.expect("a slow reader is not cut off");
        assert!(!piece.is_empty(), "the answer ended after {read} bytes");
        read += piece.len() as u64;
        sleep(Duration::from_millis(60)).await;
    }
    within("the end of one who never reads", stalled.ended()).await;
    watched.say("news");
    let frame = within("what the poll waits for", response.into_body().frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "news");
    socket.send(Message::text("still here")).await.unwrap();
    let message = within("an echo", socket.next()).await.unwrap().unwrap();
    assert_eq!(message, Message::text("still here"));
}
