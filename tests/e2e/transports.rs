//! QUIC where it works, HTTP/2 where it does not, and the same promises over both.

use std::time::{Duration, Instant};

use e2e::document::{EdgeDocument, HostDocument};
use e2e::gate::Gate;
use e2e::origin::Origin;
use e2e::process::Mark;
use e2e::product::{Edge, Host, Product, Site};
use e2e::visitor::{Speaks, get};
use e2e::within;
use http::Response;
use http_body_util::BodyExt;

/// What the modules below run over; those of the crate's root run over QUIC.
const PROTOCOL: &str = "http2";

#[path = "bastion.rs"]
mod bastion;
#[path = "bodies.rs"]
mod bodies;
#[path = "broken.rs"]
mod broken;
#[path = "cancel.rs"]
mod cancel;
#[path = "exchange.rs"]
mod exchange;
#[path = "grpc.rs"]
mod grpc;
#[path = "headers.rs"]
mod headers;
#[path = "letter.rs"]
mod letter;
#[path = "path.rs"]
mod path;
#[path = "proxies.rs"]
mod proxies;
#[path = "slow.rs"]
mod slow;
#[path = "streamed_bodies.rs"]
mod streamed_bodies;
#[path = "tcp.rs"]
mod tcp;
#[path = "trailers.rs"]
mod trailers;
#[path = "websocket.rs"]
mod websocket;
#[path = "whole_bodies.rs"]
mod whole_bodies;

/// An edge whose servers are behind gates, and a host in front of them.
struct Gated {
    host: Host,
    edge: Edge,
    gates: Vec<Gate>,
    _site: Site,
}

async fn gated(gate: fn(std::net::SocketAddr) -> Gate, servers: usize, host: HostDocument) -> Gated {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], servers)).await;
    let gates: Vec<Gate> = edge.servers.iter().map(|server| gate(*server)).collect();
    let addresses: Vec<_> = gates.iter().map(|gate| gate.address).collect();
    let host = site.host_at(&addresses, &host.connections(servers)).await;
    Gated { host, edge, gates, _site: site }
}

impl Gated {
    async fn registered(&self, mark: Mark, slot: usize, protocol: &str) {
        let fits = |event: &serde_json::Value| event["slot"] == slot && event["protocol"] == protocol;
        self.host.process.event_after(mark, "registered", fits).await;
    }
}

#[tokio::test]
async fn without_udp_all_four_slots_are_on_http2_within_ten_seconds() {
    let began = Instant::now();
    let gated = gated(Gate::without_udp, 4, HostDocument::new().otherwise("hello_world")).await;
    for slot in 0..4 {
        gated.registered(Mark::START, slot, "http2").await;
    }
    let took = began.elapsed();
    eprintln!("all on HTTP/2 after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    for connection in gated.host.ready().await["connections"].as_array().unwrap() {
        assert_eq!(connection["protocol"], "http2");
    }
    assert_eq!(gated.edge.visitor(Speaks::Http1).send(get("/")).await.status, 200);
}

#[tokio::test]
async fn when_udp_is_back_the_slot_moves_to_quic_and_nobody_notices() {
    let origin = Origin::start();
    let gated = gated(Gate::without_udp, 1, HostDocument::new().otherwise(&origin.service())).await;
    gated.registered(Mark::START, 0, "http2").await;

    // Something that lasts goes on over the old connection.
    let mut watched = origin.watch("/lasting");
    let connection = gated.edge.visitor(Speaks::Http1).connect().await;
    let directed = async {
        watched.arrived().await;
        watched.answer(Response::new(()));
        watched.say("before");
    };
    let (lasting, ()) = tokio::join!(connection.send(get("/lasting")), directed);

    let began = Instant::now();
    gated.gates[0].let_udp_pass(true);
    let asking = async {
        loop {
            let answer = gated.edge.visitor(Speaks::Http1).send(get("/bytes/1000")).await;
            assert_eq!((answer.status, answer.body.len()), (200, 1000));
        }
    };
    tokio::select! {
        () = gated.registered(Mark::START, 0, "quic") => {}
        () = asking => {}
    }
    eprintln!("on QUIC again after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(60));

    watched.say(", after");
    watched.end();
    let body = within("the lasting answer", lasting.into_body().collect()).await.unwrap().to_bytes();
    assert_eq!(body, "before, after");
    let answer = gated.edge.visitor(Speaks::Http1).send(get("/bytes/3")).await;
    assert_eq!(answer.status, 200);
    assert!(gated.host.process.events("connection lost").is_empty());
    assert_eq!(gated.host.ready().await["connections"][0]["protocol"], "quic");
}

#[tokio::test]
async fn a_slot_that_loses_udp_falls_back_alone() {
    let gated = gated(Gate::open, 2, HostDocument::new().otherwise("hello_world")).await;
    gated.registered(Mark::START, 0, "quic").await;
    gated.registered(Mark::START, 1, "quic").await;
    let (mark, began) = (gated.host.process.mark(), Instant::now());
    gated.gates[0].let_udp_pass(false);
    gated.registered(mark, 0, "http2").await;
    eprintln!("fallen back after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(gated.host.ready().await["connections"][1]["protocol"], "quic");
    assert_eq!(gated.edge.visitor(Speaks::Http1).send(get("/")).await.status, 200);
}

#[tokio::test]
async fn a_tcp_connection_that_died_silently_is_missed_by_both_ends_within_ten_seconds() {
    let host = HostDocument::new().over("http2").otherwise("hello_world");
    let gated = gated(Gate::open, 1, host).await;
    gated.registered(Mark::START, 0, "http2").await;
    let (mark, began) = (gated.host.process.mark(), Instant::now());
    gated.gates[0].let_tcp_pass(false);
    gated.host.process.event_after(mark, "connection lost", |event| event["protocol"] == "http2").await;
    gated.edge.process.event("connection lost", |event| event["protocol"] == "http2").await;
    // With a little patience for a loaded machine.
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    gated.gates[0].let_tcp_pass(true);
    gated.registered(mark, 0, "http2").await;
    assert_eq!(gated.edge.visitor(Speaks::Http1).send(get("/")).await.status, 200);
}

#[tokio::test]
async fn over_http2_too_a_host_and_an_edge_that_are_asked_to_stop_finish_what_they_have() {
    for stops in ["host", "edge"] {
        let origin = Origin::start();
        let document = HostDocument::new().over("http2").otherwise(&origin.service());
        let product = Product::start(EdgeDocument::new(&["west"], 1), document).await;
        let mut watched = origin.watch("/thinking");
        let connection = product.visitor(Speaks::Http1).connect().await;
        let process = if stops == "host" { &product.host.process } else { &product.edge.process };
        let directed = async {
            watched.arrived().await;
            process.terminate();
            process.event("stopping; once more ends it at once", |_| true).await;
            watched.answer(Response::new(()));
            watched.say("a late answer");
            watched.end();
        };
        let (answer, ()) = tokio::join!(connection.ask(get("/thinking")), directed);
        assert_eq!((answer.status, answer.text()), (200, "a late answer"), "{stops}");
        drop(connection);
        let began = Instant::now();
        assert_eq!(process.exit().await.code(), Some(0), "{}", process.tail());
        // An edge gives its visitors 3 s to notice and its hosts 5 s to move; this host has nowhere to go.
        let limit = Duration::from_secs(if stops == "host" { 5 } else { 10 });
        assert!(began.elapsed() < limit, "the {stops} took {:?}", began.elapsed());
        if stops == "host" {
            assert!(
                product.edge.process.events("connection lost").is_empty(),
                "{}",
                product.edge.process.tail()
            );
        } else {
            product.host.process.event("connection lost", |_| true).await;
        }
    }
}

#[tokio::test]
async fn over_http2_too_a_stop_that_cuts_a_stream_ends_with_the_grace_period() {
    // Once is enough: a loaded machine may take longer, and nothing makes it quicker.
    let mut took = Vec::new();
    for _ in 0..3 {
        let origin = Origin::start();
        let document = HostDocument { grace: "1s", ..HostDocument::new() };
        let document = document.over("http2").otherwise(&origin.service());
        let product = Product::start(EdgeDocument::new(&["west"], 1), document).await;
        let mut watched = origin.watch("/endless");
        let connection = product.visitor(Speaks::Http1).connect().await;
        let cut = async {
            watched.arrived().await;
            let began = Instant::now();
            product.host.process.terminate();
            product.host.process.exit().await;
            began.elapsed()
        };
        let (_, elapsed) = tokio::join!(connection.try_send(get("/endless")), cut);
        took.push(elapsed);
        if elapsed < Duration::from_millis(1800) {
            return;
        }
    }
    panic!("{took:?}");
}

#[tokio::test]
async fn over_http2_too_a_host_finds_a_killed_edge_again_when_it_comes_back() {
    let document = HostDocument::new().over("http2").connections(2).otherwise("hello_world");
    let Product { host, edge, site } =
        Product::start(EdgeDocument::new(&["west", "east"], 1), document).await;
    let (mark, pinned) = (host.process.mark(), edge.pinned());
    edge.process.kill();
    edge.process.exit().await;
    host.process.event_after(mark, "connection lost", |_| true).await;
    let edge = site.edge(&pinned).await;
    for slot in 0..2 {
        host.process.event_after(mark, "registered", |event| event["slot"] == slot).await;
    }
    assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.status, 200);
}
