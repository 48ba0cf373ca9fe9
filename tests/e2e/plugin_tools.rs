//! The commands for people who write plugins say what they found, what is missing, and how to get it.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::process::{Outcome, Process, adit, component};
use serde_json::Value;
use tempfile::TempDir;

async fn run(arguments: &[&str], folder: &TempDir) -> Outcome {
    Process::run(&[&["--log", "error", "plugin"], arguments].concat(), folder.path(), "").await
}

#[tokio::test]
async fn a_new_plugin_never_overwrites_anything() {
    let folder = TempDir::new().unwrap();
    let outcome = run(&["new", "--lang", "c", "mine"], &folder).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.output.contains("adit plugin build") && outcome.output.contains("adit plugin test"));
    let again = run(&["new", "--lang", "rust", "mine"], &folder).await;
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(!folder.path().join("mine/Cargo.toml").exists());
    let named = run(&["new", "--lang", "rust", "../mine"], &folder).await;
    assert_eq!(named.code, Some(2), "{named:?}");
}

#[tokio::test]
async fn a_missing_tool_is_named_with_the_way_to_get_it() {
    let folder = TempDir::new().unwrap();
    for (language, tool, way_out) in [
        ("rust", "cargo", "rustup.rs"),
        ("js", "componentize-qjs", "npm install"),
        ("ts", "tsc", "npm install"),
        ("python", "componentize-py", "pip install"),
        ("c", "C compiler", "wasi-libc"),
        ("go", "go", "go.dev"),
    ] {
        let made = run(&["new", "--lang", language, language], &folder).await;
        assert_eq!(made.code, Some(0), "{made:?}");
        let mut command = Command::new(adit());
        command.args(["plugin", "build", language]).current_dir(folder.path());
        command.env("PATH", folder.path()).env_remove("WASI_SDK_PATH");
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{language}: {said}");
        assert!(said.contains(tool) && said.contains(way_out), "{language}: {said}");
    }
    let nothing = run(&["build", "."], &folder).await;
    assert!(nothing.log.contains("adit plugin new"), "{nothing:?}");
    let unbuilt = run(&["test", "c"], &folder).await;
    assert_eq!(unbuilt.code, Some(2), "{unbuilt:?}");
    assert!(unbuilt.log.contains("adit plugin build c"), "{unbuilt:?}");
}

async fn test(folder: &TempDir, component: &Path, cases: &str) -> Outcome {
    std::fs::write(folder.path().join("tests.toml"), cases).unwrap();
    run(&["test", "--component", component.to_str().unwrap()], folder).await
}

const TOOLBOX: &str = r#"
secrets = { hmac = "s3cret" }
buckets = ["b"]

[[case]]
name = "the clock is the test's"
time = 2030-01-02T03:04:05Z
request = { headers = { x-do = "clock" } }
expect = { decision = "respond", body = "1893553445000 true" }
[[case.then]]
after = "90s"
request = { headers = { x-do = "clock" } }
expect = { decision = "respond", body = "1893553535000 true" }

[[case]]
name = "secrets and buckets are the test's, and of this case alone"
key-value = { b = { n = "41" } }
request = { headers = { x-do = "secret hmac" } }
expect = { decision = "respond", body = "s3cret" }
[[case.then]]
request = { headers = { x-do = "add b n 1" } }
expect = { decision = "respond", body = "42" }
expect-key-value = { b = { n = "42", other = false } }

[[case]]
name = "a bucket begins empty"
request = { headers = { x-do = "get b n" } }
expect = { decision = "respond", body = "none" }

[[case]]
name = "what is elsewhere is the test's"
http = [
  { url = "https://api.example.com/old", status = 302, headers = { location = "/new" } },
  { url = "https://api.example.com/new", body = "there" },
  { url = "https://api.example.com/slow", error = "timeout" },
]
request = { headers = { x-do = "fetch https://api.example.com/old 1" } }
expect = { decision = "respond", body = "200 there" }
expect-http = ["GET https://api.example.com/old", "GET https://api.example.com/new"]
[[case.then]]
request = { headers = { x-do = "fetch https://api.example.com/slow 0" } }
expect = { decision = "respond", body = "Error::Timeout" }
[[case.then]]
request = { headers = { x-do = "fetch https://other.example.com/ 0" } }
expect = { decision = "respond" }
expect-http = []
[[case.then]]
request = {}
expect = { decision = "next", absent = ["x-do"] }
response = { status = 404 }
expect-response = { decision = "next", status = 404 }
"#;

#[tokio::test]
async fn a_test_has_the_clock_the_secrets_the_buckets_and_the_network_in_its_hands() {
    let folder = TempDir::new().unwrap();
    let outcome = test(&folder, &component("test/toolbox"), TOOLBOX).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.output.ends_with("4 passed, 0 failed"), "{outcome:?}");
}

const PIECES: &str = r#"
[[case]]
name = "a body that comes in pieces is shown in pieces"
request = { method = "POST", headers = { x-do = "break" }, body = "one and two", pieces = 4 }
expect = { decision = "fault" }

[[case]]
name = "and otherwise at once"
request = { method = "POST", headers = { x-do = "break" }, body = "one and two" }
expect = { decision = "edit", body = "one and two" }

[[case]]
name = "what was made of a body is in front of the service"
request = { method = "POST", headers = { x-do = "shout" }, body = "one and two", pieces = 4 }
expect = { decision = "edit", body = "ONE AND TWO" }

[[case]]
name = "and what was made of an answer in front of the visitor"
config = { response = "shout" }
request = {}
expect = { decision = "next" }
response = { body = "quiet", pieces = 2 }
expect-response = { decision = "edit", body = "QUIET" }
"#;

const DEFAULT: &str = r#"
buckets = ["seen"]

[[case]]
name = "the only bucket that is granted is the default one"
key-value = { seen = { name = "this" } }
request = { headers = { x-do = "open" } }
expect = { decision = "respond", body = "this" }
"#;

/// It ended the tests, with those that came after it.
const TORN: &str = r#"
[[case]]
name = "an answer that breaks off is a failure of the service"
request = { path = "/torn" }
expect = { decision = "break" }

[[case]]
name = "and the next case is asked"
request = { path = "/about" }
expect = { decision = "respond", status = 200 }
"#;

#[tokio::test]
async fn a_test_has_a_default_bucket_and_goes_on_behind_an_answer_that_breaks_off() {
    let folder = TempDir::new().unwrap();
    let default = test(&folder, &component("test/toolbox"), DEFAULT).await;
    assert!(default.output.ends_with("1 passed, 0 failed"), "{default:?}");
    let torn = test(&folder, &component("test/service"), TORN).await;
    assert!(torn.output.ends_with("2 passed, 0 failed"), "{torn:?}");
}

const EXCHANGE: &str = r#"
secrets = { key = "s3cret" }
buckets = ["b", "seen"]

[[case]]
name = "what is known of an exchange is the test's"
request = { path = "/a?b", headers = { x-do = "leave word" }, exchange = { rule = "shop", service = "http://here", country = "DE", client-port = 4711, http-version = "2", tls-version = "1.3", attempt = 2 } }
expect = { decision = "next" }
response = { body = "quiet" }
expect-response = { decision = "edit", headers = { x-exchange = "shop; http://here; DE; 4711; 2; 1.3; 2; GET https://app.example.com/a?b; leave word; none; word" } }
"#;

#[tokio::test]
async fn a_test_has_the_pieces_of_bodies_and_the_facts_of_the_exchange_in_its_hands() {
    let folder = TempDir::new().unwrap();
    let pieces = test(&folder, &component("test/streams"), PIECES).await;
    assert!(pieces.output.ends_with("4 passed, 0 failed"), "{pieces:?}");
    let exchange = test(&folder, &component("test/toolbox"), EXCHANGE).await;
    assert!(exchange.output.ends_with("1 passed, 0 failed"), "{exchange:?}");
}

#[tokio::test]
async fn a_failed_test_shows_both_sides_and_ends_with_1() {
    let folder = TempDir::new().unwrap();
    let cases =
        TOOLBOX.replace("body = \"42\"", "body = \"43\"").replace("\"next\", absent", "\"edit\", absent");
    let outcome = test(&folder, &component("test/toolbox"), &cases).await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let has = |text: &str| outcome.output.contains(text);
    assert!(has("    - \"43\"\n    + \"42\""), "{outcome:?}");
    assert!(has("request 4:\n  request decision:\n    - \"edit\"\n    + \"next\""), "{outcome:?}");
    assert!(has("2 passed, 2 failed"), "{outcome:?}");
    let wrong = test(&folder, &component("test/toolbox"), "[[case]]\nname = \"a\"\nexpcet = {}\n").await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

const BESIDE_REQUESTS: &str = r#"
buckets = ["seen"]

[[case]]
name = "regular work happens when the test says so"
tick = true
expect-key-value = { seen = { ticks = "1", entries = false } }
[[case.then]]
after = "10s"
tick = true
expect = { decision = "next" }
expect-key-value = { seen = { ticks = "2" } }

[[case]]
name = "the access log is told what the test says was served"
log = [{}, { rule = "shop", method = "POST", path = "/buy?1", status = 500, sent = 7, complete = false }]
expect-key-value = { seen = { entries = "2", batches = "1", dropped = "0", last = "shop POST /buy?1 500 7 false", ticks = false } }
[[case.then]]
request = { headers = { x-do = "count bought 3" } }
expect = { decision = "respond" }
expect-metrics = { bought = 3 }
"#;

#[tokio::test]
async fn a_test_drives_what_a_plugin_does_beside_requests() {
    let folder = TempDir::new().unwrap();
    let outcome = test(&folder, &component("test/toolbox"), BESIDE_REQUESTS).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let wrong = BESIDE_REQUESTS.replace("ticks = \"2\"", "ticks = \"3\"").replace("bought = 3", "bought = 4");
    let outcome = test(&folder, &component("test/toolbox"), &wrong).await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let has = |text: &str| outcome.output.contains(text);
    assert!(has("tick 2:\n  key-value seen/ticks:\n    - \"3\"\n    + \"2\""), "{outcome:?}");
    assert!(has("metric bought:\n    - \"4\"\n    + \"3\""), "{outcome:?}");
    let none = test(&folder, &component("headers"), "[[case]]\nname = \"a\"\ntick = true\n").await;
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(none.log.contains("exports no ticker"), "{none:?}");
}

/// `jwt` has asked for its keys when it was loaded, and asks again later.
const KEYS: &str = r#"
buckets = ["jwks"]
config = { issuer = "https://id.example.com", jwks = "https://id.example.com/keys", audience = ["app"] }

[[case]]
name = "it says that it has no keys, and goes on asking"
http = [{ url = "https://id.example.com/keys", status = 503 }]
tick = true
expect-http = []
expect-log = []
[[case.then]]
after = "15m"
tick = true
expect-http = ["GET https://id.example.com/keys"]
expect-log = ["warn: the keys at https://id.example.com/keys: status 503"]
"#;

#[tokio::test]
async fn a_test_sees_what_regular_work_asks_for_and_says() {
    let folder = TempDir::new().unwrap();
    let outcome = test(&folder, &component("jwt"), KEYS).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

const MIDDLEWARE: &str = r#"
[[case]]
name = "what it lets pass is marked on its way in, and its body is turned on its way out"
request = { method = "POST", body = "hello", headers = { x-do = "shout" } }
expect = { decision = "edit", method = "POST", headers = { x-through = "middleware" }, body = "HELLO" }
response = { status = 201, body = "quiet" }
expect-response = { decision = "edit", status = 201, headers = { x-passed = "middleware" }, body = "QUIET" }

[[case]]
name = "what it answers itself reaches nobody"
request = { headers = { x-do = "deny" } }
expect = { decision = "respond", status = 403 }

[[case]]
name = "what breaks says so"
request = { headers = { x-do = "trap" } }
expect = { decision = "break" }
"#;

/// Middleware was never called, and each of its cases passed.
#[tokio::test]
async fn middleware_is_tested_by_what_it_hands_on_and_what_it_makes_of_the_answer() {
    let folder = TempDir::new().unwrap();
    let outcome = test(&folder, &component("test/middleware"), MIDDLEWARE).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.output.ends_with("3 passed, 0 failed"), "{outcome:?}");
    let wrong = MIDDLEWARE.replace("status = 403", "status = 404").replace("\"HELLO\"", "\"hello\"");
    let outcome = test(&folder, &component("test/middleware"), &wrong).await;
    assert!(outcome.code == Some(1) && outcome.output.ends_with("1 passed, 2 failed"), "{outcome:?}");
}

/// A plugin without any phase of requests: what a toolchain made of one, with a ticker in place of its filter.
fn observer(folder: &TempDir) -> PathBuf {
    let frame = include_str!("../guests/published/request-filter-0.1.0.wat");
    let module = r#"
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
        (func (export "tick"))
        (func (export "adit:plugin/lifecycle@0.1.0#describe") (result i32) (i32.const 1024))
        (func (export "adit:plugin/lifecycle@0.1.0#configure") (param i32 i32) (result i32) (i32.const 1024))
        (func (export "adit:plugin/request-filter@0.1.0#on-request")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 1024)))"#;
    let ticker = r#"
        (alias core export $main "tick" (core func $tick))
        (func $on-tick (canon lift (core func $tick)))
        (instance $ticker (export "on-tick" (func $on-tick)))
        (export "adit:plugin/ticker@0.1.0" (instance $ticker)))"#;
    let (frame, _filter) = frame.rsplit_once("(export ").unwrap();
    let text = format!("{}{ticker}", frame.replacen("MODULE)", module, 1));
    let file = folder.path().join("observer.wasm");
    std::fs::write(&file, wat::parse_str(text).unwrap()).unwrap();
    file
}

#[tokio::test]
async fn a_case_that_would_call_nothing_is_no_case_that_passes() {
    let folder = TempDir::new().unwrap();
    let nothing = "[[case]]\nname = \"a\"\nexpect = { decision = \"next\" }\n";
    let observer = test(&folder, &observer(&folder), nothing).await;
    assert!(observer.code == Some(2) && observer.log.contains("handles no requests"), "{observer:?}");
}

#[tokio::test]
async fn every_role_can_be_run_and_measured_and_says_what_it_says() {
    let folder = TempDir::new().unwrap();
    for (name, role, said) in [
        ("test/middleware", "middleware", "request: goes on: GET https://app.example.com/"),
        ("test/service", "service", "request: answers itself: 200 OK"),
        ("observer", "ticker", "tick: returned"),
    ] {
        let file = if name == "observer" { observer(&folder) } else { component(name) };
        let file = file.to_str().unwrap();
        let ran = run(&["run", file], &folder).await;
        assert!(ran.code == Some(0) && ran.output.contains(said), "{name}: {ran:?}");
        let benched = run(&["bench", file, "--time", "20ms", "--output", "json"], &folder).await;
        let value: Value = serde_json::from_str(&benched.output).unwrap_or_else(|_| panic!("{benched:?}"));
        assert_eq!(value[0]["role"], role, "{value}");
        assert!(value[0]["reused_us"].as_f64().unwrap() > 0.0, "{value}");
    }
    let toolbox = component("test/toolbox");
    std::fs::write(folder.path().join("key"), "hunter2\n").unwrap();
    let grants = [
        "secrets = { key = { file = \"key\" } }",
        "buckets = { seen = \"1MiB\" }",
        "http = [\"https://a.example\"]",
    ];
    let grants: Vec<&str> = grants.iter().flat_map(|grant| ["--grant", grant]).collect();
    let asked = |command| [&["run", toolbox.to_str().unwrap(), "--header", command], &grants[..]].concat();
    let secret = run(&asked("x-do: secret key"), &folder).await;
    assert!(secret.output.contains("    hunter2\n"), "{secret:?}");
}

/// By the levels that the page names, nothing was seen of what a guest prints.
#[tokio::test]
async fn what_a_plugin_says_is_printed_and_is_in_the_log_by_the_levels_that_the_page_names() {
    let folder = TempDir::new().unwrap();
    let file = component("test/misbehave");
    let asked = ["plugin", "run", file.to_str().unwrap(), "--header", "x-misbehave: panic"];
    let levels = [&["--log", "info,adit_engine=debug"], &asked[..]].concat();
    let outcome = Process::run(&levels, folder.path(), "").await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let said = |line: &str| line.contains("panicked");
    assert!(
        outcome.output.lines().any(|line| line.starts_with("it said debug: ") && said(line)),
        "{outcome:?}"
    );
    assert!(outcome.log.lines().any(|line| said(line) && line.contains("id=\"run\"")), "{outcome:?}");
}

#[tokio::test]
async fn a_request_comes_from_a_file_too() {
    let folder = TempDir::new().unwrap();
    let request = "GET /a?b HTTP/1.1\nHost: shop.example.com\nX-Do: clock\n\n";
    std::fs::write(folder.path().join("request.http"), request).unwrap();
    let file = component("headers");
    let config = r#"{"request": {"set": {"x-team": "blue"}}}"#;
    let arguments = ["run", file.to_str().unwrap(), "--config", config, "--request"];
    let outcome = run(&[&arguments[..], &["request.http"]].concat(), &folder).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for said in ["GET https://shop.example.com/a?b\n", "  x-do: clock\n", "  x-team: blue\n"] {
        assert!(outcome.output.contains(said), "{said}: {outcome:?}");
    }
    let both = run(&[&arguments[..], &["request.http", "--url", "https://a/"]].concat(), &folder).await;
    assert_eq!(both.code, Some(2), "{both:?}");
}

#[tokio::test]
async fn programs_can_read_what_a_component_is_and_what_it_costs() {
    let folder = TempDir::new().unwrap();
    let file = component("headers");
    let file = file.to_str().unwrap();
    let inspected = run(&["inspect", file, "--output", "json"], &folder).await;
    let value: Value = serde_json::from_str(&inspected.output).unwrap();
    assert_eq!((&value["filter"], &value["service"]), (&true.into(), &false.into()), "{value}");
    assert_eq!(value["describes"]["name"], "headers");
    assert!(value["exports"].as_array().unwrap().iter().any(|name| name == "adit:plugin/lifecycle@0.1.0"));

    let benched = run(&["bench", file, "--time", "20ms", "--output", "json"], &folder).await;
    let value: Value = serde_json::from_str(&benched.output).unwrap();
    for figure in ["size_bytes", "start_us", "fresh_us", "reused_us"] {
        assert!(value[0][figure].as_f64().unwrap() > 0.0, "{value}");
    }
}
