//! A component as an origin: `tests/guests/service`, which knows nothing of this project.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};

use super::served::{ask_for, converse, loaded, room, text, written};
use super::*;

const SERVICE: &str = "test/service.wasm";
/// A service whose instances break at their second request.
const ONCE: &str = "test/once.wasm";

#[tokio::test]
async fn a_standard_service_answers_with_a_fresh_instance_for_each_request() {
    let plugin = loaded(SERVICE, |_| {}).await;
    assert!(plugin.serves() && !plugin.filters());
    for count in 1..=3 {
        let response = ask_for(&plugin, "/").await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-service"]),
            (200, &"wasi".parse().unwrap())
        );
        assert_eq!(text(response).await, "hello from wasi:http\n");
        assert_eq!(plugin.counters().instantiations, count);
    }
    // No environment, no folders; authority and query as they were asked for.
    let response = ask_for(&plugin, "/about?a=b").await.expect("an answer");
    assert_eq!(text(response).await, "0 0 a.example a=b\n");
}

#[tokio::test]
async fn a_service_that_survives_a_probe_is_used_again_if_the_document_says_so() {
    let plugin = loaded(SERVICE, |plan| plan.reuse = Some(true)).await;
    for _ in 0..5 {
        assert_eq!(text(ask_for(&plugin, "/").await.expect("an answer")).await, "hello from wasi:http\n");
        rested(&plugin).await;
    }
    assert_eq!(plugin.counters().instantiations, 1);
    // What broke is never used again, and neither is what was left midway.
    assert_eq!(ask_for(&plugin, "/trap").await.err().expect("it fails").kind.word(), "trap");
    drop(ask_for(&plugin, "/steps").await.expect("an answer"));
    rested(&plugin).await;
    assert_eq!(text(ask_for(&plugin, "/").await.expect("an answer")).await, "hello from wasi:http\n");
    assert_eq!(plugin.counters().instantiations, 3);
    rested(&plugin).await;
    for _ in 0..500 {
        text(ask_for(&plugin, "/").await.expect("an answer")).await;
        rested(&plugin).await;
    }
    let made = plugin.counters().instantiations;
    assert!((4..=12).contains(&made), "{made} instances for 500 requests");
}

/// It was ended with its answer, and whether it had returned by then was chance.
#[tokio::test]
async fn a_service_that_returns_a_while_after_its_answer_is_used_again_all_the_same() {
    let plugin = loaded(SERVICE, |plan| plan.reuse = Some(true)).await;
    for _ in 0..5 {
        assert_eq!(text(ask_for(&plugin, "/late").await.expect("an answer")).await, "not done yet\n");
        rested(&plugin).await;
    }
    assert_eq!(plugin.counters().instantiations, 1);
}

/// Until the guests' tasks, which end just after their answers, have put them to rest.
async fn rested(plugin: &Plugin) {
    let ended = async {
        while plugin.member.pool.running() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the guests end");
}

#[tokio::test]
async fn a_service_that_fails_the_probe_gets_fresh_instances_and_serves_all_the_same() {
    let plugin = loaded(ONCE, |plan| plan.reuse = Some(true)).await;
    let probed = plugin.counters().instantiations;
    for count in 1..=3 {
        assert_eq!(text(ask_for(&plugin, "/").await.expect("an answer")).await, "once\n");
        rested(&plugin).await;
        assert_eq!(plugin.counters().instantiations, probed + count);
    }
    assert_eq!(plugin.counters().traps, 0, "the probe is not a visitor's request");
}

#[tokio::test]
async fn both_bodies_stream() {
    let plugin = loaded(SERVICE, |_| {}).await;
    let (sender, body) = written();
    let request = Request::post("http://a.example/echo").body(body).expect("a good request");
    let response = plugin.serve(0, "id", true, request).await.expect("an answer");
    converse(sender, response.into_body(), str::to_owned).await;
    let response = ask_for(&plugin, "/big?8").await.expect("an answer");
    assert_eq!(text(response).await.len(), 8 << 20);
}

#[tokio::test]
async fn whatever_a_service_does_hits_one_request_and_an_answer_torn_off_does_not_look_complete() {
    let plugin = loaded(SERVICE, |plan| plan.limits.timeout = Some(Duration::from_millis(300))).await;
    for (path, word) in [("/trap", "trap"), ("/loop", "timeout"), ("/silent", "invalid")] {
        let failure = ask_for(&plugin, path).await.err().expect("it fails");
        assert_eq!(failure.kind.word(), word, "{path}: {failure}");
        assert_eq!(ask_for(&plugin, "/teapot").await.expect("an answer").status().as_u16(), 418);
    }
    let torn = ask_for(&plugin, "/torn").await.expect("a head");
    assert!(torn.into_body().collect().await.is_err(), "half an answer looked whole");
    let counters = plugin.counters();
    assert_eq!((counters.traps, counters.timeouts, counters.invalid), (2, 1, 1), "{counters:?}");
}

#[tokio::test]
async fn calls_over_the_limit_are_refused_and_a_visitor_who_leaves_makes_room() {
    let plugin = loaded(SERVICE, |plan| plan.limits.concurrency = 1).await;
    let first = ask_for(&plugin, "/steps").await.expect("an answer");
    assert_eq!(ask_for(&plugin, "/").await.err().expect("full").kind, FailureKind::Busy);
    drop(first);
    room(&plugin).await;
}

#[tokio::test]
async fn what_a_service_sends_passes_the_same_gate_as_a_filters_requests() {
    let plugin = loaded(SERVICE, |_| {}).await;
    let response = ask_for(&plugin, "/fetch?http://127.0.0.1:9/").await.expect("an answer");
    assert_eq!(response.status().as_u16(), 502);
    assert!(text(response).await.contains("HttpRequestDenied"));
    assert_eq!(plugin.counters().denied, 1);
}

#[tokio::test]
async fn a_service_without_a_lifecycle_takes_no_configuration() {
    let error = try_load(SERVICE, plan(r#"{"a": 1}"#)).await.expect_err("nowhere to put it");
    assert!(matches!(error, LoadError::NoConfiguration), "{error}");
}

#[tokio::test]
#[ignore = "needs components of others: ADIT_COMPONENTS=FOLDER cargo test --workspace --lib -- --ignored --nocapture others"]
async fn components_of_others_answer_unmodified() {
    let folder =
        std::env::var_os("ADIT_COMPONENTS").expect("ADIT_COMPONENTS names a folder with .wasm files");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "wasm") {
            continue;
        }
        let wasm = std::fs::read(&path).expect("a file");
        let mut plan = plan("{}");
        (plan.limits.timeout, plan.limits.memory) = (None, 256 << 20);
        let begun = std::time::Instant::now();
        let plugin = Plugin::load(engine(), &Arc::new(plan), &wasm, &Secrets::default(), 1).await;
        let plugin = plugin.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let loaded = begun.elapsed();
        for (method, asked) in [("GET", "/"), ("POST", "/echo")] {
            let request = Request::builder().method(method).uri(format!("http://a.example{asked}"));
            let request = request.header("host", "a.example").header("content-type", "text/plain");
            let request =
                request.body(Full::new(Bytes::from_static(b"twas brillig"))).expect("a good request");
            let begun = std::time::Instant::now();
            let response = plugin.serve(0, "id", false, request).await;
            let response = response.unwrap_or_else(|failure| panic!("{}: {failure}", path.display()));
            let status = response.status();
            let body = text(response).await;
            println!(
                "{} ({} KiB, loaded in {loaded:?}): {method} {asked} -> {status} in {:?}: {:?}",
                path.file_name().unwrap_or_default().to_string_lossy(),
                wasm.len() / 1024,
                begun.elapsed(),
                body.chars().take(80).collect::<String>()
            );
        }
    }
}
