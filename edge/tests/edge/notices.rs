//! What the edge asks hosts itself: whether their origins are there, and to move when it goes.

use std::time::Duration;

use adit_protocol::extensions;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::connector::{Connector, Habits, Opened};
use crate::harness::{Fixture, HOST, LocalSet, empty, start, start_with};
use crate::http2;

const REPORT: &str = r#"{"ready":false,"origins":[
    {"rule":"app","origin":"http://127.0.0.1:1","ok":false,"error":"connection refused"},
    {"rule":"*","origin":"hello_world","ok":true,"error":null}]}"#;

/// A host with the feature, over QUIC.
async fn told(edge: &Fixture) -> Connector {
    let habits = Habits { features: vec![extensions::FEATURE_NOTICES], ..Habits::default() };
    Connector::registered_as(edge, edge.servers[0], habits, Uuid::new_v4(), 0).await
}

/// The next notice with this word; probes that come before it are answered.
async fn notice(connector: &Connector, word: &str) -> Opened {
    loop {
        let opened = connector.accept().await;
        let request = opened.request();
        assert_eq!(
            (request.method().as_str(), request.uri().to_string().as_str()),
            ("GET", extensions::NOTICE_URI)
        );
        if request.headers()[extensions::NOTICE] == word {
            return opened;
        }
        opened.answer(Response::builder(), b"{\"ready\":true}").await;
    }
}

/// What the admin API says about the last probe of the only connection.
async fn probe(edge: &Fixture) -> Value {
    loop {
        let (_, all) = edge.admin("/tunnels/demo/replicas").await;
        let probe = &all["replicas"][0]["connections"][0]["probe"];
        if !probe.is_null() {
            return probe.clone();
        }
    }
}

fn check(probe: &Value) {
    assert_eq!(probe["ready"], false);
    let origins = json!([
        {"rule": "app", "origin": "http://127.0.0.1:1", "ok": false, "error": "connection refused"},
        {"rule": "*", "origin": "hello_world", "ok": true},
    ]);
    assert_eq!((&probe["origins"], &probe["error"]), (&origins, &Value::Null));
}

#[tokio::test]
async fn a_host_is_asked_for_its_origins_and_the_admin_api_shows_what_it_said() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = told(&edge).await;
            notice(&connector, "probe")
                .await
                .answer(Response::builder().status(503), REPORT.as_bytes())
                .await;
            check(&probe(&edge).await);
        })
        .await;
}

#[tokio::test]
async fn it_is_asked_over_http2_as_well() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let features = [extensions::FEATURE_NOTICES];
            let mut connector = http2::Connector::registered_as(&edge, edge.servers[0], 100, &features).await;
            let (request, mut respond) = connector.accept().await;
            assert_eq!(
                (request.uri().to_string().as_str(), &request.headers()[extensions::NOTICE]),
                (extensions::NOTICE_URI, &extensions::PROBE)
            );
            http2::answer(&mut respond, 503, "", REPORT);
            check(&probe(&edge).await);
        })
        .await;
}

#[tokio::test]
async fn an_answer_that_is_no_report_says_so_and_fills_no_memory() {
    LocalSet::new()
        .run_until(async {
            for (body, says) in [(vec![b'x'; 10], "without a report"), (vec![b' '; 1 << 20], "longer than")] {
                let edge = start();
                let connector = told(&edge).await;
                let mut opened = notice(&connector, "probe").await;
                opened.head(Response::builder()).await;
                let _ = opened.send.write_all(&body).await;
                let _ = opened.send.finish();
                let probe = probe(&edge).await;
                assert!(probe["error"].as_str().unwrap().contains(says), "{probe}");
                assert_eq!(probe["ready"], false);
            }
        })
        .await;
}

#[tokio::test]
async fn no_visitor_makes_a_notice() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let request = Request::get("/").header("host", HOST).header("adit-notice", "drain");
            let (page, ()) = tokio::join!(edge.page(request.body(empty()).unwrap()), async {
                let opened = connector.accept().await;
                assert!(!opened.request().headers().contains_key(extensions::NOTICE));
                opened.ok(b"").await;
            });
            assert_eq!(page.status.as_u16(), 200);
        })
        .await;
}

#[tokio::test]
async fn a_stopping_edge_lets_hosts_move_and_goes_when_they_have() {
    LocalSet::new()
        .run_until(async {
            let mut edge = start_with("[drain]\nlinger = \"100ms\"\nhosts = \"30s\"");
            let connector = told(&edge).await;
            edge.stop.cancel();
            let began = Instant::now();
            let opened = notice(&connector, "drain").await;
            // Whoever has moved takes no new requests, so there must be no new visitors by now.
            assert!(TcpStream::connect(edge.http).await.is_err());
            opened.answer(Response::builder().status(204), b"").await;
            assert!(connector.connection.close_reason().is_none());
            connector.unregister().await.unwrap();
            assert_eq!(connector.closed().await, Some(0));
            (&mut edge.running).await.unwrap().unwrap();
            assert!(began.elapsed() < Duration::from_secs(15));
        })
        .await;
}

#[tokio::test]
async fn a_stopping_edge_does_not_wait_for_hosts_that_stay() {
    LocalSet::new()
        .run_until(async {
            for (hosts, status) in [("30s", 503), ("300ms", 204)] {
                let mut edge = start_with(&format!("[drain]\nlinger = \"0s\"\nhosts = \"{hosts}\""));
                let connector = told(&edge).await;
                edge.stop.cancel();
                notice(&connector, "drain").await.answer(Response::builder().status(status), b"").await;
                assert_eq!(connector.closed().await, Some(0));
                timeout(Duration::from_secs(15), &mut edge.running).await.unwrap().unwrap().unwrap();
            }
        })
        .await;
}
