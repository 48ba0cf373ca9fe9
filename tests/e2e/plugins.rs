//! A plugin that misbehaves costs the request that it misbehaved at, and nothing else.

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::{Lent, Product, Stage};
use e2e::visitor::{Answer, Speaks, bare, to};
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Lent {
    STAGE.get_or_init(build).await.lend()
}

async fn build() -> Stage {
    let origin = Origin::start();
    let misbehave = component("test/misbehave");
    let service = origin.service();
    let rule = |path: &str, plugins: &str| {
        format!("path = \"{path}\"\nservice = \"{service}\"\nplugins = [{plugins}]")
    };
    let host = HostDocument::new()
        .plugin("strict", &misbehave, "on-error = \"deny\"\nmemory = \"16MiB\"")
        .plugin("lenient", &misbehave, "on-error = \"skip\"\nmemory = \"16MiB\"")
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
        .rule(&rule("^/echo/carrier", "\"carrier\""))
        .rule(&rule("^/echo/chain", "\"first\", \"marks\", \"strict\""))
        .otherwise(&service);
    Stage::new(Product::start(EdgeDocument::new(&["west"], 1), host).await, origin)
}

const FAILURES: [&str; 8] =
    ["trap", "panic", "loop", "eat-memory", "recurse", "fault", "invalid-header", "invalid-reply"];

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
        async move { ask(lent, "/echo/strict", "x-misbehave", act).await.status }
    }));
    let serving = futures_util::future::join_all((0..40).map(|_| stage.product.get("/echo/other")));
    let (failed, served) = tokio::join!(failing, serving);
    assert!(failed.iter().all(|status| matches!(status, 500 | 503)), "{failed:?}");
    assert!(served.iter().all(|answer| answer.status == 200));
    assert_eq!(ask(&stage, "/echo/strict", "x-misbehave", "ok").await.status, 200);
}

#[tokio::test]
async fn the_memory_of_the_host_survives_plugins_that_eat_it() {
    let stage = stage().await;
    for _ in 0..3 {
        assert_eq!(ask(&stage, "/echo/strict", "x-misbehave", "eat-memory").await.status, 500);
    }
    let watch = stage.product.host.process.watch_memory();
    for _ in 0..20 {
        assert_eq!(ask(&stage, "/echo/strict", "x-misbehave", "eat-memory").await.status, 500);
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
