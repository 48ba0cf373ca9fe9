//! Every way to change a running host gives a verdict, and the last good generation outlives whatever
//! becomes of the document.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::{Mark, Process, component};
use e2e::product::{Host, Product, Site};
use e2e::visitor::{Answer, Speaks, Visitor, bare, get, to, with_text};
use e2e::within;
use http::Response;
use http_body_util::BodyExt;
use serde_json::Value;

/// How often the process is killed, unless `ADIT_KILLS` says otherwise.
const KILLS: usize = 12;
/// The moments at which it is: so many, so far from each other. 37 has no divisor in common with them.
const MOMENTS: usize = 64;
const MOMENT: Duration = Duration::from_micros(1200);

/// A host with a state folder whose answers carry `mark`.
fn document(mark: &str) -> HostDocument {
    marked(mark, &component("headers"))
}

fn marked(mark: &str, component: &Path) -> HostDocument {
    let config = format!("[plugin.config]\nresponse.set = {{ x-mark = \"{mark}\" }}");
    HostDocument::new()
        .keys("state-dir = \"state\"")
        .plugin("marks", component, &config)
        .rule("service = \"hello_world\"\nplugins = [\"marks\"]")
}

async fn start(document: HostDocument) -> Product {
    Product::start(EdgeDocument::new(&["west"], 1), document).await
}

async fn mark(product: &Product) -> String {
    product.get("/").await.header("x-mark").to_owned()
}

async fn applied(process: &Process, after: Mark) -> Value {
    process.event_after(after, "configuration applied", |_| true).await
}

async fn send(host: &Host, request: http::Request<e2e::visitor::Body>) -> Answer {
    Visitor::new(host.admin, Speaks::Http1, None).send(request).await
}

/// A request to the admin API, with the Host header that its own clients send.
fn ask(method: &str, path: &str) -> http::request::Builder {
    to(method, path).header("host", "localhost")
}

async fn put(host: &Host, tag: &str, text: &str) -> Answer {
    send(host, with_text(ask("PUT", "/config").header("if-match", tag), text)).await
}

async fn history(host: &Host) -> Value {
    send(host, bare(ask("GET", "/config/history"))).await.json()
}

#[tokio::test]
async fn a_document_that_is_replaced_is_applied_by_itself() {
    let product = start(document("0")).await;
    let (site, process) = (&product.site, &product.host.process);
    let text = |mark: &str| document(mark).to_toml(&product.edge.servers);

    // Renamed over, as editors and configuration tools do it.
    let after = process.mark();
    std::fs::rename(site.write("new.toml", text("renamed")), site.path("host.toml")).unwrap();
    assert_eq!(applied(process, after).await["source"], "File");
    assert_eq!(mark(&product).await, "renamed");

    // Written in place.
    let after = process.mark();
    site.write("host.toml", text("written"));
    applied(process, after).await;
    assert_eq!(mark(&product).await, "written");

    // Behind two links, as Kubernetes mounts a ConfigMap.
    for (folder, mark) in [("..1", "linked"), ("..2", "swapped")] {
        std::fs::create_dir(site.path(folder)).unwrap();
        site.write(&format!("{folder}/host.toml"), text(mark));
    }
    symlink("..1", site.path("..data")).unwrap();
    symlink("..data/host.toml", site.path("link")).unwrap();
    let after = process.mark();
    std::fs::rename(site.path("link"), site.path("host.toml")).unwrap();
    applied(process, after).await;
    assert_eq!(mark(&product).await, "linked");
    symlink("..2", site.path("..next")).unwrap();
    let after = process.mark();
    std::fs::rename(site.path("..next"), site.path("..data")).unwrap();
    applied(process, after).await;
    assert_eq!(mark(&product).await, "swapped");
}

#[tokio::test]
async fn a_component_that_is_replaced_is_applied_by_itself_and_a_broken_one_is_not() {
    let site = Site::new();
    std::fs::copy(component("headers"), site.path("plugin.wasm")).unwrap();
    let document = marked("0", &site.path("plugin.wasm"));
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), document).await;
    let process = &product.host.process;
    let after = process.mark();
    product.site.write("plugin.wasm", "not a component");
    let refused = |_: &Value| true;
    let event = process.event_after(after, "configuration refused; what runs goes on", refused).await;
    assert!(event["reasons"].as_str().unwrap().contains("not a WebAssembly file"), "{event}");
    assert_eq!(mark(&product).await, "0");
    let after = process.mark();
    std::fs::copy(component("headers"), product.site.path("new.wasm")).unwrap();
    let mut wasm = std::fs::read(component("headers")).unwrap();
    // A custom section makes it another component that does the same.
    wasm.extend_from_slice(&[0, 2, 1, b'x']);
    product.site.write("new.wasm", wasm);
    std::fs::rename(product.site.path("new.wasm"), product.site.path("plugin.wasm")).unwrap();
    applied(process, after).await;
    assert_eq!(mark(&product).await, "0");
    let revisions = history(&product.host).await["revisions"].clone();
    let verdicts: Vec<&str> =
        revisions.as_array().unwrap().iter().map(|entry| entry["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["applied", "refused", "applied"], "{revisions}");
}

#[tokio::test]
async fn a_document_that_is_put_serves_if_it_was_made_from_what_serves() {
    let product = start(document("0")).await;
    let host = &product.host;
    let text = |mark: &str| document(mark).to_toml(&product.edge.servers);
    let serving = send(host, bare(ask("GET", "/config/document"))).await;
    assert_eq!(serving.text(), text("0"));
    let tag = serving.header("etag").to_owned();

    let without = send(host, with_text(ask("PUT", "/config"), &text("1"))).await;
    assert_eq!(without.status, 428);
    let answer = put(host, &tag, &text("1")).await;
    assert_eq!((answer.status, &answer.json()["verdict"]), (200, &"applied".into()), "{answer:?}");
    assert_eq!(mark(&product).await, "1");
    // The next start finds it.
    assert_eq!(std::fs::read_to_string(product.site.path("host.toml")).unwrap(), text("1"));

    let stale = put(host, &tag, &text("2")).await;
    assert_eq!((stale.status, stale.header("etag")), (412, answer.header("etag")));
    assert_eq!(mark(&product).await, "1");

    let bad = format!("{}\n[[ingress]]\nservise = 1\nhostname = \"a b\"\n", text("3"));
    let refused = put(host, "*", &bad).await;
    assert_eq!(refused.status, 422);
    let reasons = refused.json()["reasons"].clone();
    for place in ["servise", "hostname", "never reached"] {
        let said = reasons.as_array().unwrap().iter().any(|reason| reason.as_str().unwrap().contains(place));
        assert!(said, "{place} is not in {reasons}");
    }
    assert_eq!(put(host, "*", &"#".repeat(4 * 1024 * 1024 + 1)).await.status, 413);
    assert_eq!(std::fs::read_to_string(product.site.path("host.toml")).unwrap(), text("1"));

    let unsaved = ask("PUT", "/config?save=false").header("if-match", "*");
    assert_eq!(send(host, with_text(unsaved, &text("4"))).await.status, 200);
    assert_eq!(mark(&product).await, "4");
    assert_eq!(std::fs::read_to_string(product.site.path("host.toml")).unwrap(), text("1"));
}

#[tokio::test]
async fn no_web_page_changes_or_reads_a_configuration() {
    let product = start(document("0")).await;
    let host = &product.host;
    let requests = || {
        [("POST", "/reload"), ("PUT", "/config"), ("GET", "/config"), ("POST", "/config/rollback?to=1")]
            .map(|(method, path)| (method, path))
    };
    for (method, path) in requests() {
        for (name, value) in
            [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
        {
            let request = ask(method, path).header("if-match", "*").header(name, value);
            assert_eq!(send(host, with_text(request, "")).await.status, 403, "{method} {path} {name}");
        }
        let rebound = to(method, path).header("host", "evil.example").header("if-match", "*");
        assert_eq!(send(host, with_text(rebound, "")).await.status, 403, "{method} {path}");
    }
    assert_eq!(history(host).await["revisions"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_generation_of_the_history_serves_again_with_its_own_component() {
    let site = Site::new();
    std::fs::copy(component("headers"), site.path("plugin.wasm")).unwrap();
    let document = |mark: &str, site: &Site| marked(mark, &site.path("plugin.wasm"));
    let first = document("first", &site);
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), first).await;
    let host = &product.host;
    let second = document("second", &product.site).to_toml(&product.edge.servers);
    assert_eq!(put(host, "*", &second).await.status, 200);
    let third = HostDocument::new().otherwise("hello_world").keys("state-dir = \"state\"");
    assert_eq!(put(host, "*", &third.to_toml(&product.edge.servers)).await.status, 200);
    std::fs::remove_file(product.site.path("plugin.wasm")).unwrap();

    let back = send(host, bare(ask("POST", "/config/rollback?to=1"))).await;
    assert_eq!(back.json()["generation"], 4, "{back:?}");
    assert_eq!(mark(&product).await, "first");
    let document = send(host, bare(ask("GET", "/config/generations/2"))).await;
    assert_eq!(document.text(), second);
    assert_eq!(send(host, bare(ask("POST", "/config/rollback?to=99"))).await.status, 404);
    let revisions = history(host).await["revisions"].clone();
    let last = revisions.as_array().unwrap().last().unwrap();
    assert_eq!((&last["source"], &last["generation"]), (&"rollback".into(), &4.into()), "{revisions}");
}

#[tokio::test]
async fn the_last_good_generation_serves_when_nothing_else_is_left() {
    let site = Site::new();
    std::fs::copy(component("headers"), site.path("plugin.wasm")).unwrap();
    let document = marked("kept", &site.path("plugin.wasm"));
    let Product { host, edge, site } =
        Product::start_at(site, EdgeDocument::new(&["west"], 1), document).await;
    host.process.terminate();
    assert!(host.process.exit().await.success());
    let servers = edge.servers.clone();
    let good = std::fs::read_to_string(site.path("host.toml")).unwrap();

    // The document is broken, its component and its credentials are gone.
    std::fs::write(site.path("host.toml"), good.replace("[[ingress]]", "[[ingres]]")).unwrap();
    std::fs::remove_file(site.path("plugin.wasm")).unwrap();
    std::fs::rename(site.path("demo.json"), site.path("gone.json")).unwrap();
    let begun = async || {
        let process = Process::adit("host", &["tunnel", "run", "--config", "host.toml"], site.folder());
        let host = Host { admin: admin(&process).await, process };
        host.process.event("registered", |_| true).await;
        host
    };
    let host = begun().await;
    let loud = |event: &Value| event["reasons"].as_str().is_some_and(|reasons| reasons.contains("ingres"));
    let message = "the document cannot be used: the last good generation serves in its place";
    host.process.event(message, loud).await;
    let product = Product { host, edge, site };
    assert_eq!(mark(&product).await, "kept");
    let status = product.host.admin("/status").await.json();
    assert!(status["degraded"].as_str().unwrap().contains("ingres"), "{status}");

    // It heals by itself.
    let after = product.host.process.mark();
    std::fs::rename(product.site.path("gone.json"), product.site.path("demo.json")).unwrap();
    let healed = document_of("healed").to_toml(&servers);
    product.site.write("host.toml", healed);
    applied(&product.host.process, after).await;
    assert_eq!(mark(&product).await, "healed");
    assert_eq!(product.host.admin("/status").await.json()["degraded"], Value::Null);
}

fn document_of(mark: &str) -> HostDocument {
    document(mark)
}

async fn admin(process: &Process) -> std::net::SocketAddr {
    let event = process.event("listening", |event| event["kind"] == "admin").await;
    event["address"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn without_any_document_the_state_folder_of_the_command_line_is_enough() {
    let Product { host, edge, site } = start(document("kept")).await;
    host.process.terminate();
    assert!(host.process.exit().await.success());
    std::fs::remove_file(site.path("host.toml")).unwrap();
    let arguments = ["tunnel", "run", "--config", "host.toml", "--state-dir", "state"];
    let process = Process::adit("host", &arguments, site.folder());
    let host = Host { admin: admin(&process).await, process };
    host.process.event("registered", |_| true).await;
    let product = Product { host, edge, site };
    assert_eq!(mark(&product).await, "kept");
}

#[tokio::test]
async fn whatever_moment_a_process_is_killed_at_the_last_good_generation_serves() {
    let rounds: usize = std::env::var("ADIT_KILLS").map_or(KILLS, |rounds| rounds.parse().unwrap());
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    let text = |mark: &str| document(mark).to_toml(&edge.servers);
    site.write("host.toml", text("0"));
    let mut acknowledged = text("0");
    let mut generation = 0;
    for round in 0..rounds {
        let process = Process::adit("host", &["tunnel", "run", "--config", "host.toml"], site.folder());
        let host = Host { admin: admin(&process).await, process };
        let serving = send(&host, bare(ask("GET", "/config/document"))).await;
        let status = host.admin("/status").await.json();
        let number = status["generation"].as_u64().unwrap();
        assert!(number > generation, "the number went from {generation} to {number}");
        assert_eq!(status["degraded"].is_null(), round == 0, "{status}");
        let in_flight = [text(&format!("{round}-a")), text(&format!("{round}-b"))];
        let before = text(&format!("{}-a", round.wrapping_sub(1)));
        let after = text(&format!("{}-b", round.wrapping_sub(1)));
        let is_good = [&acknowledged, &before, &after].contains(&&serving.text().to_owned());
        assert!(is_good, "round {round}: {}", serving.text());
        // What was kept without an answer is the last good one all the same.
        acknowledged = serving.text().to_owned();
        generation = number;

        // Two swaps, and the end somewhere in them: at another moment in each round.
        let address = host.admin;
        let swaps = tokio::spawn(async move {
            let host = Visitor::new(address, Speaks::Http1, None);
            let mut done = None;
            for text in in_flight {
                let request = with_text(ask("PUT", "/config").header("if-match", "*"), &text);
                let Ok(answer) = host.connect().await.try_send(request).await else { return done };
                if answer.status() != 200 {
                    return done;
                }
                done = Some(text);
            }
            done
        });
        let delay = MOMENT * u32::try_from(round * 37 % MOMENTS).unwrap();
        tokio::time::sleep(delay).await;
        host.process.kill();
        host.process.exit().await;
        acknowledged = within("the swaps", swaps).await.unwrap_or_default().unwrap_or(acknowledged);
        // Only what was kept can serve at the next start.
        site.write("host.toml", "this is = not [a document\nstate-dir = \"state\"");
        let broken = format!("state-dir = \"state\"\n[[ingres]]\n# {round}\n");
        site.write("host.toml", broken);
    }
}

#[tokio::test]
async fn a_stream_outlives_its_generation_until_the_deadline_of_its_retirement() {
    let origin = Origin::start();
    let rule = |name: &str| format!("name = \"{name}\"\nservice = \"{}\"", origin.service());
    let one = HostDocument::new().rule(&rule("one"));
    let product = start(one).await;
    let mut watched = origin.watch("/events");
    let connection = product.visitor(Speaks::Http1).connect().await;
    let stream = async {
        let response = connection.send(get("/events")).await;
        assert_eq!(response.status(), 200);
        response.into_body()
    };
    let answering = async {
        watched.arrived().await;
        watched.answer(Response::builder().header("content-type", "text/event-stream").body(()).unwrap());
        watched.say("data: before\n\n");
    };
    let (mut body, ()) = tokio::join!(stream, answering);
    let next = async |body: &mut hyper::body::Incoming| within("the stream", body.frame()).await;
    assert_eq!(next(&mut body).await.unwrap().unwrap().into_data().unwrap(), "data: before\n\n");

    // A swap does not touch it.
    let two = HostDocument::new().rule(&rule("two")).to_toml(&product.edge.servers);
    assert_eq!(put(&product.host, "*", &two).await.status, 200);
    watched.say("data: after\n\n");
    assert_eq!(next(&mut body).await.unwrap().unwrap().into_data().unwrap(), "data: after\n\n");
    let metrics = product.host.admin("/status").await.json();
    assert_eq!(metrics["retired"][0]["open"], 1, "{metrics}");
    // The first word about its deadline counts, which was an hour; one of the next generation gets a second.
    let mut short = origin.watch("/short");
    let connection = product.visitor(Speaks::Http1).connect().await;
    let stream = async { connection.send(get("/short")).await.into_body() };
    let answering = async {
        short.arrived().await;
        short.answer(Response::builder().header("content-type", "text/event-stream").body(()).unwrap());
        short.say("data: before\n\n");
    };
    let (mut brief, ()) = tokio::join!(stream, answering);
    assert!(next(&mut brief).await.unwrap().is_ok());
    let three = HostDocument::new().keys("retire-after = \"1s\"").rule(&rule("three"));
    assert_eq!(put(&product.host, "*", &three.to_toml(&product.edge.servers)).await.status, 200);
    // Cut, which is not an end that looks whole; and the origin learns of it.
    assert!(next(&mut brief).await.is_some_and(|frame| frame.is_err()), "the stream was not cut");
    short.gone().await;
    watched.say("data: still\n\n");
    assert_eq!(next(&mut body).await.unwrap().unwrap().into_data().unwrap(), "data: still\n\n");
}

#[tokio::test]
async fn everyone_who_asks_at_once_gets_a_verdict() {
    let product = start(document("0")).await;
    let host = &product.host;
    let texts: Vec<String> =
        (0..20).map(|number| document(&number.to_string()).to_toml(&product.edge.servers)).collect();
    let puts = futures_util::future::join_all(texts.iter().map(|text| put(host, "*", text)));
    let reloads = futures_util::future::join_all((0..20).map(|_| send(host, bare(ask("POST", "/reload")))));
    let (puts, reloads) = tokio::join!(puts, reloads);
    let mut generations: Vec<u64> = Vec::new();
    for answer in &puts {
        assert_eq!(answer.status, 200, "{answer:?}");
        generations.push(answer.json()["generation"].as_u64().unwrap());
    }
    assert!(reloads.iter().all(|answer| answer.status == 200));
    generations.sort_unstable();
    generations.dedup();
    assert_eq!(generations.len(), 20, "every document that was put became a generation of its own");
}
