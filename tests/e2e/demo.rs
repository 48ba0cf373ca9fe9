//! `adit demo` shows the product at work with one command, and leaves nothing behind.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::process::{Process, adit};
use e2e::visitor::{Speaks, Visitor, bare};
use http::Request;
use std::os::unix::process::CommandExt;
use std::process::Command;
use tempfile::TempDir;

fn demo(folder: &TempDir) -> Process {
    let mut command = Command::new(adit());
    // A group of its own, as a shell gives it: Ctrl-C goes to all of it.
    command.args(["demo", "--listen", "127.0.0.1:0"]);
    command.current_dir(folder.path()).process_group(0);
    Process::start("demo", command)
}

/// What is behind the URL that it prints.
async fn url(demo: &Process) -> Visitor {
    let line = demo.printed("Open  http://").await;
    let url = line.trim().trim_start_matches("Open").trim();
    let port = url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    Visitor::new(([127, 0, 0, 1], port).into(), Speaks::Http1, None)
}

fn page(path: &str) -> http::request::Builder {
    Request::get(format!("http://demo.localhost{path}"))
}

#[tokio::test]
async fn the_demo_serves_what_it_prints_and_stops_on_ctrl_c() {
    let folder = TempDir::new().unwrap();
    let demo = demo(&folder);
    let visitor = url(&demo).await;
    let answer = visitor.send(bare(page("/"))).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.header("x-adit-demo").is_empty(), "the plugin's header");
    assert_eq!(visitor.send(bare(page("/private"))).await.status, 401);
    let credentials = format!("Basic {}", STANDARD.encode("demo:adit"));
    assert_eq!(visitor.send(bare(page("/private").header("authorization", credentials))).await.status, 200);

    let ready = demo.printed("/ready").await;
    let admin = ready.trim().trim_start_matches("curl http://").trim_end_matches("/ready").parse().unwrap();
    let ready = Visitor::new(admin, Speaks::Http1, None).send(bare(page("/ready"))).await.json();
    assert_eq!(ready["readyConnections"], 4, "{ready}");

    let children = demo.children();
    assert_eq!(children.len(), 2, "an edge and a host");
    demo.interrupt_group();
    assert_eq!(demo.exit().await.code(), Some(0), "{}", demo.tail());
    for child in children {
        assert!(!std::path::Path::new(&format!("/proc/{child}")).exists(), "{child} is still there");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it left files where it was started");
}

#[tokio::test]
async fn a_terminated_demo_takes_its_children_with_it() {
    let folder = TempDir::new().unwrap();
    let demo = demo(&folder);
    url(&demo).await;
    let children = demo.children();
    demo.terminate();
    assert_eq!(demo.exit().await.code(), Some(0), "{}", demo.tail());
    for child in children {
        assert!(!std::path::Path::new(&format!("/proc/{child}")).exists(), "{child} is still there");
    }
}

#[tokio::test]
async fn a_folder_without_its_plugins_is_named_and_so_is_the_way_to_do_without() {
    let folder = TempDir::new().unwrap();
    let outcome = Process::run(&["demo", "--plugins", "nowhere"], folder.path(), "").await;
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.log.contains("nowhere") && outcome.log.contains("inside of this program"), "{outcome:?}");
}
