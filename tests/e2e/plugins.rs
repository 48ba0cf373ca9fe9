//! A plugin that misbehaves costs the request that it misbehaved at, and nothing else.

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::{Lent, Product, Site, Stage};
use e2e::visitor::{Answer, Speaks, bare, to};
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Lent {
    STAGE.get_or_init(|| build(None)).await.lend()
}

/// With so many threads; `None` as the host chooses.
async fn build(shards: Option<usize>) -> Stage {
    let origin = Origin::start();
    let misbehave = component("test/misbehave");
    let service = origin.service();
    let rule = |path: &str, plugins: &str| {
        format!("path = \"{path}\"\nservice = \"{service}\"\nplugins = [{plugins}]")
    };
    let host = HostDocument { shards, ..HostDocument::new() }
        .plugin("strict", &misbehave, "on-error = \"deny\"\nmemory = \"16MiB\"")
        .plugin("lenient", &misbehave, "on-error = \"skip\"\nmemory = \"16MiB\"")
        .plugin("fragile", &misbehave, "")
        .plugin("wild", &misbehave, "memory = \"16MiB\"")
        .plugin("patient", &misbehave, "timeout = \"5s\"")
        .plugin("carrier", &misbehave, "[plugin.config]\ndo = \"carry\"")
        .plugin(
            "marks",
            &component("headers"),
            "[plugin.config]\nresponse.set = { x-mark = \"yes\" }\nrequest.set = { x-mark = \"yes\" }",
        )
        .plugin("first", &component("test/request_only"), "")
        .rule(&rule("^/echo/strict", "\"strict\""))
        .rule(&rule("^/echo/lenient", "\"lenient\", \"marks\""))
        .rule(&rule("^/echo/patient", "\"patient\""))
        .rule(&rule("^/echo/fragile", "\"fragile\""))
        .rule(&rule("^/echo/wild", "\"wild\""))
        .rule(&rule("^/echo/carrier", "\"carrier\""))
        .rule(&rule("^/echo/chain", "\"first\", \"marks\", \"strict\""))
        .otherwise(&service);
    Stage::new(Product::start(EdgeDocument::new(&["west"], 1), host).await, origin)
}

const FAILURES: [&str; 12] = [
    "trap",
    "panic",
    "loop",
    "eat-memory",
    "recurse",
    "fault",
    "invalid-header",
    "invalid-reply",
    "inject",
    "many-headers",
    "long-header",
    "long-log",
];

async fn ask(stage: &Stage, path: &str, header: &str, act: &str) -> Answer {
    let request = bare(to("GET", path).header(header, act).header("accept", "application/json"));
    stage.product.visitor(Speaks::Http1).send(request).await
}

#[tokio::test]
async fn each_failure_costs_one_request_and_the_next_one_is_served() {
    let stage = stage().await;
    for header in ["x-misbehave", "x-misbehave-response"] {
        for act in FAILURES {
            let answer = ask(&stage, "/echo/strict", header, act).await;
            assert_eq!(answer.status, 500, "{header}: {act}: {}", answer.text());
            let id = answer.json()["error_id"].as_str().unwrap().to_owned();
            assert_eq!(id, answer.header("cf-ray"), "{act}");
            assert!(!id.is_empty());
            for secret in ["asked to fail", "wasm", "unreachable", "smuggled", "misbehave"] {
                assert!(!answer.text().contains(secret), "{act}: {}", answer.text());
            }
            let next = ask(&stage, "/echo/strict", header, "ok").await;
            assert_eq!(next.status, 200, "after {act}: {}", next.text());
        }
    }
}

#[tokio::test]
async fn with_on_error_skip_the_request_goes_on_as_if_the_plugin_were_not_there() {
    let stage = stage().await;
    for header in ["x-misbehave", "x-misbehave-response"] {
        for act in FAILURES {
            let answer = ask(&stage, "/echo/lenient", header, act).await;
            assert_eq!(answer.status, 200, "{header}: {act}: {}", answer.text());
            // The others of its chain are.
            assert_eq!(answer.header("x-mark"), "yes", "{act}");
            assert!(!answer.text().contains("x-smuggled"), "{act}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn other_requests_are_served_while_a_plugin_loops() {
    let stage = stage().await;
    let visitor = stage.product.visitor(Speaks::Http1);
    let looping = tokio::spawn(async move {
        let request = bare(to("GET", "/echo/patient").header("x-misbehave", "loop"));
        visitor.send(request).await
    });
    let process = &stage.product.host.process;
    process.event("misbehaving: loop", |event| event["plugin"] == "patient").await;
    for _ in 0..10 {
        assert_eq!(stage.product.get("/echo/other").await.status, 200);
        // Also through the same plugin.
        assert_eq!(stage.product.get("/echo/patient").await.status, 200);
    }
    assert!(!looping.is_finished(), "it was to loop for five seconds");
    assert_eq!(looping.await.unwrap().status, 500);
}

#[tokio::test]
async fn many_failures_at_once_leave_the_others_alone() {
    let stage = stage().await;
    let failing = futures_util::future::join_all((0..40).map(|number| {
        let act = FAILURES[number % FAILURES.len()];
        let lent = &stage;
        async move { ask(lent, "/echo/wild", "x-misbehave", act).await.status }
    }));
    let serving = futures_util::future::join_all((0..40).map(|_| stage.product.get("/echo/other")));
    let (failed, served) = tokio::join!(failing, serving);
    assert!(failed.iter().all(|status| matches!(status, 500 | 503)), "{failed:?}");
    assert!(served.iter().all(|answer| answer.status == 200));
    recovered(&stage, "/echo/wild").await;
}

/// Waits until a plugin that may rest after many failures serves again.
async fn recovered(stage: &Stage, path: &str) {
    let again = async {
        while ask(stage, path, "x-misbehave", "ok").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), again).await.expect("it serves again");
}

#[tokio::test]
async fn a_plugin_that_breaks_again_and_again_rests_and_comes_back() {
    let stage = stage().await;
    let mut statuses = Vec::new();
    let resting = loop {
        let answer = ask(&stage, "/echo/fragile", "x-misbehave", "trap").await;
        statuses.push(answer.status);
        if answer.status == 503 {
            break answer;
        }
        assert!(answer.status == 500 && statuses.len() < 100, "{statuses:?}");
    };
    assert!(!resting.header("retry-after").is_empty() && !resting.json()["error_id"].is_null());
    // Whoever does not pass it is served.
    assert_eq!(stage.product.get("/echo/other").await.status, 200);
    recovered(&stage, "/echo/fragile").await;
    let status = stage.product.host.admin("/status").await.json();
    let plugins = status["plugins"].as_array().unwrap();
    let fragile = plugins.iter().find(|plugin| plugin["name"] == "fragile").unwrap();
    assert!(fragile["resting"].as_u64().unwrap() >= 1 && fragile["traps"] == 10, "{fragile}");
}

#[tokio::test]
async fn other_routes_go_on_while_plugins_misbehave() {
    // One thread: whoever is served shares it with the plugin that loops.
    static ALONE: OnceCell<Stage> = OnceCell::const_new();
    let stage = ALONE.get_or_init(|| build(Some(1))).await.lend();
    let times = async || {
        let mut times = Vec::new();
        for _ in 0..20 {
            let begun = std::time::Instant::now();
            assert_eq!(stage.product.get("/echo/other").await.status, 200);
            times.push(begun.elapsed());
        }
        times
    };
    // In turns, so that whatever else this machine does is in both.
    let (mut alone, mut looping, mut together) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        alone.extend(times().await);
        let process = &stage.product.host.process;
        let before = process.mark();
        let begins = process.event_after(before, "misbehaving: loop", |event| event["plugin"] == "patient");
        // It would loop for five seconds, and ends with its visitor.
        looping.extend(tokio::select! {
            times = async { begins.await; times().await } => times,
            _ = ask(&stage, "/echo/patient", "x-misbehave", "loop") => panic!("it ended"),
        });
    }
    let storm = async {
        for act in ["loop", "ok", "eat-memory", "ok", "recurse", "flood-log"].into_iter().cycle() {
            ask(&stage, "/echo/wild", "x-misbehave", act).await;
        }
    };
    tokio::select! {
        () = async { for _ in 0..5 { together.extend(times().await); } } => {}
        () = storm => unreachable!("it goes on for ever"),
    }
    let median = |times: &mut Vec<std::time::Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (alone, looping, together) = (median(&mut alone), median(&mut looping), median(&mut together));
    let ratio = |times: std::time::Duration| times.as_secs_f64() / alone.as_secs_f64();
    println!(
        "median of other routes: alone {alone:?}, beside a plugin that loops {looping:?} (ratio {:.2}), beside \
         plugins that do all they can {together:?} (ratio {:.2})",
        ratio(looping),
        ratio(together)
    );
    recovered(&stage, "/echo/wild").await;
}

#[tokio::test]
async fn the_memory_of_the_host_survives_plugins_that_eat_it() {
    let stage = stage().await;
    recovered(&stage, "/echo/wild").await;
    let eat = async || {
        let status = ask(&stage, "/echo/wild", "x-misbehave", "eat-memory").await.status;
        // It may rest after what another test does to it.
        assert!(matches!(status, 500 | 503), "{status}");
        recovered(&stage, "/echo/wild").await;
    };
    for _ in 0..3 {
        eat().await;
    }
    let watch = stage.product.host.process.watch_memory();
    for _ in 0..20 {
        eat().await;
    }
    let limit = 64 * 1024 * 1024;
    assert!(watch.growth() < limit, "grew by {} MiB", watch.growth() / 1024 / 1024);
}

#[tokio::test]
async fn what_one_plugin_carries_comes_back_to_it_in_its_own_response_phase() {
    let stage = stage().await;
    let request = bare(to("GET", "/echo/carrier").header("x-carry", "luggage"));
    let answer = stage.product.visitor(Speaks::Http1).send(request).await;
    assert_eq!((answer.status, answer.header("x-carry")), (200, "luggage"));
    // An instance serves many: nothing of the last request is left.
    let answer = stage.product.get("/echo/carrier").await;
    assert_eq!((answer.status, answer.header("x-carry")), (200, ""));
}

#[tokio::test]
async fn a_reply_of_the_last_plugin_passes_those_before_it() {
    let stage = stage().await;
    let answer = ask(&stage, "/echo/chain", "x-misbehave", "respond").await;
    assert_eq!((answer.status, answer.text()), (418, "short and stout\n"));
    assert_eq!(answer.header("x-mark"), "yes");
    let answer = ask(&stage, "/echo/chain", "x-misbehave", "ok").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("x-request-only"), "{}", answer.text());
}

#[tokio::test]
async fn the_operator_finds_each_failure_by_its_error_id_and_all_of_them_counted() {
    let origin = Origin::start();
    let host = HostDocument::new()
        .plugin("counted", &component("test/misbehave"), "")
        .rule(&format!("service = \"{}\"\nplugins = [\"counted\"]", origin.service()));
    let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
    let visitor = product.visitor(Speaks::Http1);
    for act in ["trap", "trap", "loop", "fault", "invalid-header"] {
        let answer = visitor.send(bare(to("GET", "/echo").header("x-misbehave", act))).await;
        let id = answer.header("cf-ray").to_owned();
        let warns = |line: &str| line.contains("\"WARN\"") && line.contains("counted") && line.contains(&id);
        product.host.process.said("a warning with the error id", warns).await;
    }
    let status = product.host.admin("/status").await.json();
    let counts = &status["plugins"][0];
    assert_eq!(counts["name"], "counted");
    for (kind, count) in [("traps", 2), ("timeouts", 1), ("faults", 1), ("invalid", 1)] {
        assert_eq!(counts[kind], count, "{kind} in {status}");
    }
}

#[tokio::test]
async fn granted_secrets_buckets_and_numbers_work_and_survive_a_reload() {
    let origin = Origin::start();
    let host = HostDocument::new()
        .plugin(
            "tools",
            &component("test/toolbox"),
            "[plugin.grants]\nhttp = [\"http://127.0.0.1:9\"]\nsecrets = { key = { file = \"key.txt\" } }\nbuckets = { seen = \"1MiB\" }",
        )
        .rule(&format!("name = \"observed\"\nservice = \"{}\"\nplugins = [\"tools\"]", origin.service()));
    let site = Site::new();
    site.write("key.txt", "hunter2\n");
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    let visitor = product.visitor(Speaks::Http1);
    let tell = async |command: &str| {
        visitor.send(bare(to("GET", "/").header("x-do", command))).await.text().to_owned()
    };
    assert_eq!(tell("secret key").await, "hunter2");
    assert_eq!(tell("set seen colour blue").await, "done");
    assert_eq!(tell("count hits 3").await, "done");
    assert!(tell("fetch http://127.0.0.1:1/ 0").await.contains("Denied"));

    // Another secret is a revision, and the plugin is loaded anew; its bucket stays.
    product.site.write("key.txt", "correct horse");
    product.host.process.event("configuration applied", |event| event["generation"] == 2).await;
    assert_eq!(tell("secret key").await, "correct horse");
    assert_eq!(tell("get seen colour").await, "blue");
    let status = product.host.admin("/status").await.json();
    assert_eq!(status["plugins"][0]["metrics"]["hits"], 3, "{status}");
    for secret in ["hunter2", "correct horse"] {
        assert!(!product.host.process.log().contains(secret));
    }

    // The access log tells what was served, after the fact.
    assert_eq!(visitor.send(bare(to("GET", "/echo/seen?x"))).await.status, 200);
    let arrived = async {
        loop {
            let last = tell("get seen last").await;
            if last.starts_with("observed GET /echo/seen?x 200 ") && last.ends_with(" true") {
                return;
            }
            // Each of these questions is itself logged; ask for the other in the same batch.
            visitor.send(bare(to("GET", "/echo/seen?x"))).await;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), arrived).await.expect("it is told");
}

#[tokio::test]
async fn ten_filters_of_different_kinds_stand_in_one_chain() {
    let origin = Origin::start();
    let marks = |number: usize| {
        format!(
            "[plugin.config]\nrequest.append = {{ x-order = \"{number}\" }}\nresponse.append = {{ x-order = \"{number}\" }}"
        )
    };
    let grants = "[plugin.grants]\nhttp = [\"http://127.0.0.1:9\"]\nsecrets = { key = { file = \"key.txt\" } }\nbuckets = { seen = \"1MiB\" }";
    let users = "[plugin.config]\nrealm = \"r\"\nusers = [{ name = \"ada\", password = \"$pbkdf2-sha256$i=1000,l=32$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\" }]";
    let host = HostDocument::new()
        .plugin("p0", &component("headers"), &marks(0))
        .plugin("p1", &component("test/misbehave"), "[plugin.config]\non = \"response\"\ndo = \"count\"")
        .plugin("p2", &component("headers"), &marks(2))
        .plugin("p3", &component("test/request_only"), "")
        .plugin("p4", &component("headers"), &marks(4))
        .plugin("p5", &component("test/toolbox"), grants)
        .plugin("p6", &component("headers"), &marks(6))
        .plugin("p7", &component("test/misbehave"), "[plugin.config]\ndo = \"carry\"")
        .plugin("p8", &component("headers"), &marks(8))
        .plugin("p9", &component("basic_auth"), users);
    let names: Vec<String> = (0..10).map(|number| format!("\"p{number}\"")).collect();
    let host = host.rule(&format!("service = \"{}\"\nplugins = [{}]", origin.service(), names.join(", ")));
    let site = Site::new();
    site.write("key.txt", "k");
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    // The last of them asks for a password: its reply passes the nine before it, backwards.
    let request = bare(to("GET", "/echo").header("x-carry", "luggage"));
    let answer = product.visitor(Speaks::Http1).send(request).await;
    assert_eq!((answer.status, answer.header("x-count"), answer.header("x-carry")), (401, "2", "luggage"));
    let order: Vec<_> =
        answer.headers.get_all("x-order").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(order, ["8", "6", "4", "2", "0"]);
}
