//! What plugins put into buckets that are kept outlives the host; without a place for them it is not begun.

use std::time::Duration;

use e2e::document::{EdgeDocument, HostDocument};
use e2e::process::{Process, component};
use e2e::product::{Edge, Host, Site};
use e2e::visitor::{Speaks, bare, to};
use e2e::within;

fn document(kept: &str, state: &str) -> HostDocument {
    let grants = format!(
        "[plugin.grants]\nhttp = [\"http://127.0.0.1:9\"]\nsecrets = {{ key = {{ file = \"key.txt\" }} }}\n\
         buckets = {{ b = \"64KiB\", seen = \"64KiB\" }}\nkept-buckets = [{kept}]"
    );
    HostDocument::new()
        .keys(state)
        .plugin("toolbox", &component("test/toolbox"), &grants)
        .rule("service = \"hello_world\"\nplugins = [\"toolbox\"]")
}

async fn host(site: &Site, edge: &Edge, name: &str) -> Host {
    let document = document("\"b\"", "state-dir = \"state\"");
    Host::connected(site.spawn_host_named(name, &edge.servers, &document), 1).await
}

/// Has the plugin do something with a bucket.
async fn told(edge: &Edge, what: &str) -> String {
    let request = bare(to("GET", "/").header("x-do", what));
    let answer = edge.visitor(Speaks::Http1).send(request).await;
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    answer.text().trim().to_owned()
}

#[tokio::test]
async fn what_a_plugin_keeps_is_there_again_after_a_stop_and_after_a_kill() {
    let site = Site::new();
    site.write("key.txt", "s3cret");
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    let first = host(&site, &edge, "first").await;
    assert_eq!(told(&edge, "add b n 5").await, "5");
    assert_eq!(told(&edge, "add seen n 5").await, "5");
    first.process.terminate();
    first.process.exit().await;

    let second = host(&site, &edge, "second").await;
    assert_eq!(told(&edge, "add b n 2").await, "7", "it goes on");
    assert_eq!(told(&edge, "add seen n 2").await, "2", "what is not kept begins anew");
    // It is written within a second or so: the file says when.
    let file = site.path("state/buckets/toolbox/b");
    let entry = b"\0\0\0\x01n\0\0\0\x017";
    let is_written =
        || std::fs::read(&file).is_ok_and(|bytes| bytes.windows(entry.len()).any(|part| part == entry));
    let written = async {
        while !is_written() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the bucket is written", written).await;
    second.process.kill();
    second.process.exit().await;

    let third = host(&site, &edge, "third").await;
    assert_eq!(told(&edge, "add b n 1").await, "8");
    third.process.terminate();
    third.process.exit().await;

    let mut damaged = std::fs::read(&file).unwrap();
    damaged.truncate(damaged.len() - 1);
    std::fs::write(&file, damaged).unwrap();
    assert_refused(&site, &edge, &document("\"b\"", "state-dir = \"state\""), "it is damaged").await;
}

#[tokio::test]
async fn without_a_place_for_it_a_bucket_that_is_to_be_kept_is_refused() {
    let site = Site::new();
    site.write("key.txt", "s3cret");
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    assert_refused(&site, &edge, &document("\"b\"", ""), "set `state-dir`").await;
    assert_refused(&site, &edge, &document("\"c\"", "state-dir = \"state\""), "is not among `buckets`").await;
}

async fn assert_refused(site: &Site, edge: &Edge, document: &HostDocument, why: &str) {
    let refused: Process = site.spawn_host_named("refused", &edge.servers, document);
    let status = refused.exit().await;
    assert!(!status.success());
    assert!(refused.log().contains(why), "{}", refused.log());
    let checked = Process::run(&["config", "check", "refused.toml"], site.folder(), "").await;
    assert_eq!(checked.code, Some(2), "{checked:?}");
    assert!(checked.log.contains(why), "{checked:?}");
}
