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

/// From nothing to where the time of the first request went, by what it prints alone. Told, not judged: a busy machine
/// is late, and a release is faster than what tests run.
#[tokio::test]
async fn the_demo_shows_where_the_time_of_the_first_request_went() {
    let began = std::time::Instant::now();
    let folder = TempDir::new().unwrap();
    let demo = demo(&folder);
    let watch = demo.printed("Watch  http://").await;
    let visitor = url(&demo).await;
    let (pages, code) = watch.trim().trim_start_matches("Watch  http://").split_once("/ui/enter#").unwrap();
    let admin = Visitor::new(
        ([127, 0, 0, 1], pages.rsplit(':').next().unwrap().parse().unwrap()).into(),
        Speaks::Http1,
        None,
    );
    let ask = |method: &str, path: &str| e2e::visitor::to(method, path).header("host", pages);
    let entered =
        admin.send(e2e::visitor::with_text(ask("POST", "/ui/enter"), &format!("code={code}"))).await;
    assert_eq!(entered.status, 303, "{}", entered.text());
    let cookie = entered.header("set-cookie").split(';').next().unwrap().to_owned();
    assert_eq!(visitor.send(bare(page("/"))).await.status, 200);
    let shown = e2e::within("the request is kept", async {
        loop {
            let live =
                admin.send(bare(ask("GET", "/ui/requests.json?since=0").header("cookie", &cookie))).await;
            if let Some(number) = live.json()["exchanges"][0]["number"].as_u64() {
                let path = format!("/ui/requests/{number}");
                return admin.send(bare(ask("GET", &path).header("cookie", &cookie))).await;
            }
        }
    })
    .await;
    assert!(shown.text().contains("class=\"waterfall\"") && shown.text().contains("plugin headers"));
    println!("from the start of the demo to the first waterfall: {:.1?}", began.elapsed());
    demo.terminate();
    demo.exit().await;
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
