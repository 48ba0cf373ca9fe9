//! Whatever stops, by request or by accident: what can be finished is finished, and the other side
//! notices.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::adit;
use e2e::product::{Product, Site};
use e2e::visitor::{Speaks, get};
use e2e::{DEADLINE, within};
use http::Response;
use http_body_util::BodyExt;
use rustix::process::{Pid, Signal, kill_process};

/// How soon the loss of the other side must be known; QUIC's idle limit is 5 s.
const NOTICED: Duration = Duration::from_secs(10);

/// The smallest product, with an edge that says at once that nobody is there.
async fn unheld(service: &str) -> Product {
    let edge = EdgeDocument::new(&["west"], 1).without_hold();
    Product::start(edge, HostDocument::new().otherwise(service)).await
}

#[tokio::test]
async fn a_host_that_is_asked_to_stop_finishes_what_it_has_and_takes_nothing_new() {
    let origin = Origin::start();
    let product = unheld(&origin.service()).await;
    let mut thinking = origin.watch("/thinking");
    let mut streaming = origin.watch("/streaming");
    let connection = product.visitor(Speaks::Http2).connect().await;
    let directed = async {
        thinking.arrived().await;
        streaming.arrived().await;
        streaming.answer(Response::new(()));
        streaming.say("first");
        product.host.process.terminate();
        product.host.process.event("stopping; once more ends it at once", |_| true).await;
        // From its first moment on none of its connections counts.
        let ready = product.host.admin("/ready").await;
        assert_eq!((ready.status, &ready.json()["readyConnections"]), (503, &0.into()));
        product.edge.process.event("unregistered", |_| true).await;
        // New ones find nobody; the old ones are not disturbed.
        assert_eq!(product.get("/new").await.status, 530);
        assert!(product.host.process.is_running());
        assert_eq!(product.host.admin("/ready").await.status, 503);
        thinking.answer(Response::new(()));
        thinking.say("a late answer");
        thinking.end();
        streaming.say(", second");
        streaming.end();
    };
    let (late, streamed, ()) = tokio::join!(
        connection.ask(get("/thinking")),
        async { connection.send(get("/streaming")).await.into_body().collect().await },
        directed
    );
    assert_eq!((late.status, late.text()), (200, "a late answer"));
    assert_eq!(streamed.unwrap().to_bytes(), "first, second");
    let started = Instant::now();
    assert_eq!(product.host.process.exit().await.code(), Some(0), "{}", product.host.process.tail());
    // The grace period is a limit, not a duration.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(product.get("/after").await.status, 530);
}

#[tokio::test]
async fn an_idle_host_stops_at_once() {
    let product = unheld("hello_world").await;
    assert_eq!(product.get("/").await.status, 200);
    let started = Instant::now();
    product.host.process.terminate();
    assert_eq!(product.host.process.exit().await.code(), Some(0), "{}", product.host.process.tail());
    // Half of the grace period.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(product.get("/").await.status, 530);
}

#[tokio::test]
async fn requests_are_cut_off_at_the_end_of_the_grace_period() {
    let origin = Origin::start();
    let host = HostDocument { grace: "1s", ..HostDocument::new() }.otherwise(&origin.service());
    let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
    let mut endless = origin.watch("/endless");
    let connection = product.visitor(Speaks::Http1).connect().await;
    let directed = async {
        endless.arrived().await;
        endless.answer(Response::new(()));
        endless.say("first");
    };
    let (response, ()) = tokio::join!(connection.send(get("/endless")), directed);
    product.host.process.terminate();
    let body = within("the end of a cut answer", response.into_body().collect()).await;
    assert!(body.is_err(), "a cut answer looked complete");
    assert_eq!(product.host.process.exit().await.code(), Some(0), "{}", product.host.process.tail());
    endless.gone().await;
}

#[tokio::test]
async fn a_second_signal_ends_a_host_at_once() {
    let origin = Origin::start();
    let product = Product::simple(&origin.service()).await;
    let mut watched = origin.watch("/thinking");
    let connection = product.visitor(Speaks::Http1).connect().await;
    {
        let mut asked = std::pin::pin!(connection.try_send(get("/thinking")));
        tokio::select! {
            _ = watched.arrived() => {}
            answer = &mut asked => panic!("an answer out of nothing: {answer:?}"),
        }
        product.host.process.terminate();
        product.edge.process.event("unregistered", |_| true).await;
        product.host.process.terminate();
        assert_eq!(product.host.process.exit().await.code(), Some(130), "{}", product.host.process.tail());
    }
    watched.gone().await;
}

#[tokio::test]
async fn a_killed_host_is_noticed_and_visitors_get_530() {
    let product = unheld("hello_world").await;
    assert_eq!(product.get("/").await.status, 200);
    let killed = Instant::now();
    product.host.process.kill();
    product.edge.process.event("connection lost", |_| true).await;
    let status = product.get("/").await.status;
    assert!(killed.elapsed() < NOTICED, "{:?}", killed.elapsed());
    assert_eq!(status, 530);
}

#[tokio::test]
async fn a_request_to_a_killed_host_gets_an_error_and_not_silence() {
    let product = unheld("hello_world").await;
    assert_eq!(product.get("/").await.status, 200);
    let killed = Instant::now();
    product.host.process.kill();
    // The edge does not know yet, so it tries the dead connection.
    let answer = product.get("/").await;
    assert!(killed.elapsed() < NOTICED, "{:?}", killed.elapsed());
    assert!(matches!(answer.status, 502 | 530), "{answer:?}");
}

#[tokio::test]
async fn a_host_finds_a_killed_edge_again_when_it_comes_back() {
    let edge = EdgeDocument::new(&["west", "east"], 1);
    let Product { host, edge, site } =
        Product::start(edge, HostDocument::new().connections(2).otherwise("hello_world")).await;
    let mark = host.process.mark();
    let pinned = edge.pinned();
    edge.process.kill();
    edge.process.exit().await;
    host.process.event_after(mark, "connection lost", |_| true).await;
    assert_eq!(host.admin("/healthcheck").await.status, 200);
    let edge = site.edge(&pinned).await;
    for slot in 0..2 {
        host.process.event_after(mark, "registered", |event| event["slot"] == slot).await;
    }
    assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.status, 200);
    assert_eq!(host.ready().await["readyConnections"], 2);
}

#[tokio::test]
async fn an_edge_that_is_asked_to_stop_finishes_what_it_has() {
    let origin = Origin::start();
    let product = Product::simple(&origin.service()).await;
    let mut watched = origin.watch("/thinking");
    let connection = product.visitor(Speaks::Http1).connect().await;
    let directed = async {
        watched.arrived().await;
        product.edge.process.terminate();
        product.edge.process.event("stopping; once more ends it at once", |_| true).await;
        watched.answer(Response::new(()));
        watched.say("a late answer");
        watched.end();
    };
    let (answer, ()) = tokio::join!(connection.ask(get("/thinking")), directed);
    assert_eq!((answer.status, answer.text()), (200, "a late answer"));
    drop(connection);
    assert_eq!(product.edge.process.exit().await.code(), Some(0), "{}", product.edge.process.tail());
    // The host outlives it and goes on trying.
    product.host.process.event("connection lost", |_| true).await;
    assert!(product.host.process.is_running());
}

#[tokio::test]
async fn a_program_whose_log_nobody_reads_still_stops() {
    let site = Site::new();
    site.write("edge.toml", EdgeDocument::new(&["west"], 1).to_toml());
    let mut command = Command::new(adit());
    command.args(["edge", "run", "--config", "edge.toml"]).current_dir(site.folder());
    let mut edge = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(edge.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("server") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended");
    }
    drop(log);
    let id = Pid::from_child(&edge);
    kill_process(id, Signal::TERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || edge.wait().unwrap());
    match tokio::time::timeout(DEADLINE, ended).await {
        Ok(status) => assert_eq!(status.unwrap().code(), Some(0)),
        Err(_) => {
            // It was not waited for, so the id is still its own.
            kill_process(id, Signal::KILL).unwrap();
            panic!("it did not stop");
        }
    }
}
