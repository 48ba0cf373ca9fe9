//! Buckets that plugins of several hosts share at a server of Redis's protocol, and what becomes of requests while that
//! is away.

use e2e::certificate::Certificate;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::process::{Process, component};
use e2e::product::{Edge, Host, Site};
use e2e::redis::Redis;
use e2e::visitor::{Answer, Speaks, bare, get, to};
use e2e::within;

const GRANTS: &str = "[plugin.grants]\nhttp = [\"http://127.0.0.1:9\"]\nsecrets = { key = { file = \"key.txt\" } }\n\
                      buckets = { b = \"64KiB\", own = \"64KiB\", seen = \"64KiB\" }\nshared-buckets = [\"b\"]";

fn server(url: &str, more: &str) -> String {
    format!("[bucket-server]\nurl = {url:?}\n{more}")
}

/// One whose plugins do what a request says with buckets at this server: `/closed` and `/open` differ in what becomes of
/// a request without the server.
fn document(server: &str) -> HostDocument {
    let toolbox = component("test/toolbox");
    let limit = "[plugin.config]\nlimit = 6\nwindow = \"24h\"\nkind = \"fixed\"\nby = [\"address\"]\n[plugin.grants]\n\
                 buckets = { limits = \"1MiB\" }\nshared-buckets = [\"limits\"]";
    HostDocument::new()
        .over(super::PROTOCOL)
        .plugin("closed", &toolbox, GRANTS)
        .plugin("open", &toolbox, &format!("on-away = \"skip\"\n{GRANTS}"))
        .plugin("limit", &component("rate_limit"), limit)
        .rule("path = \"^/closed\"\nservice = \"http_status:204\"\nplugins = [\"closed\"]")
        .rule("path = \"^/open\"\nservice = \"http_status:204\"\nplugins = [\"open\"]")
        .rule("path = \"^/limited\"\nservice = \"http_status:204\"\nplugins = [\"limit\"]")
        .rule(&format!("service = \"http_status:404\"\n{server}"))
}

/// A host of its own with an edge of its own, so that it is known which host is asked.
struct Side {
    edge: Edge,
    host: Host,
    _site: Site,
}

impl Side {
    async fn start(server: &str) -> Self {
        let site = Site::new();
        site.write("key.txt", "s3cret");
        site.write("password.txt", "open sesame\n");
        let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
        let host = site.host(&edge, &document(server)).await;
        Self { edge, host, _site: site }
    }

    async fn asked(&self, path: &str, what: &str) -> Answer {
        self.edge.visitor(Speaks::Http1).send(bare(to("GET", path).header("x-do", what))).await
    }

    async fn told(&self, what: &str) -> String {
        let answer = self.asked("/closed", what).await;
        assert_eq!(answer.status, 200, "{what}: {}\n{}", answer.text(), self.host.process.tail());
        answer.text().trim().to_owned()
    }

    async fn status(&self, path: &str) -> u16 {
        self.asked(path, "add b n 1").await.status
    }
}

#[tokio::test]
async fn two_hosts_count_together_what_a_visitor_asks_of_either() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let server = server(&redis.url(), "");
    let (one, other) = tokio::join!(Side::start(&server), Side::start(&server));
    assert_eq!(one.told("add b n 5").await, "5");
    assert_eq!(other.told("add b n 2").await, "7");
    assert_eq!(one.told("add own n 1").await, "1");
    assert_eq!(other.told("add own n 1").await, "1", "what is not shared is each host's own");

    let mut statuses = Vec::new();
    for side in [&one, &other, &one, &other, &one, &other, &one, &other] {
        statuses.push(side.edge.visitor(Speaks::Http1).send(get("/limited")).await.status);
    }
    assert_eq!(statuses, [204, 204, 204, 204, 204, 204, 429, 429], "six of both");
}

#[tokio::test]
async fn what_plugins_do_with_a_shared_bucket_is_what_they_do_with_their_own() {
    let Some(redis) = Redis::start(&[]).await else { return };
    let side = Side::start(&server(&redis.url(), "")).await;
    let fill = |key: &str| format!("set BUCKET {key} {}", "x".repeat(20_000));
    let (first, second, third, fourth) = (fill("l1"), fill("l2"), fill("l3"), fill("l4"));
    for what in [
        "get BUCKET k",
        "set BUCKET k one",
        "get BUCKET k",
        "set BUCKET k two",
        "get BUCKET k",
        "delete BUCKET k",
        "get BUCKET k",
        "delete BUCKET k",
        "add BUCKET n 5",
        "add BUCKET n -9",
        "get BUCKET n",
        "set BUCKET n x",
        "add BUCKET n 1",
        "set BUCKET n 9223372036854775806",
        "add BUCKET n 1",
        "add BUCKET n 1",
        "get BUCKET n",
        "swap BUCKET s - one",
        "swap BUCKET s - two",
        "swap BUCKET s other three",
        "get BUCKET s",
        "keys BUCKET",
        &first,
        &second,
        &third,
        &fourth,
        "get BUCKET l4",
        "delete BUCKET l1",
        &fourth,
        "get BUCKET l1",
        "keys BUCKET",
    ] {
        let there = side.told(&what.replace("BUCKET", "b")).await;
        let here = side.told(&what.replace("BUCKET", "own")).await;
        assert_eq!(there, here, "{}", &what[..what.len().min(40)]);
    }
    assert_eq!(side.told("get b n").await, "9223372036854775807", "numbers are exact");

    let gone = async |key: &str| {
        let gone = async {
            while side.told(&format!("get b {key}")).await != "none" {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        within("its time is over", gone).await;
    };
    assert_eq!(side.told("set b short-lived 1 300").await, "done");
    assert_eq!(side.told("add b counted 5 300").await, "5");
    assert_eq!(side.told("add b counted 5 99999999").await, "10");
    gone("short-lived").await;
    gone("counted").await;
    assert_eq!(side.told("add b counted 5").await, "5", "it keeps the time to live that it had at first");
    assert!(!side.told("keys b").await.contains("short-lived"));
}

#[tokio::test]
async fn while_the_server_is_away_a_guard_does_what_its_document_says_and_afterwards_it_counts_again() {
    let Some(mut redis) = Redis::start(&[]).await else { return };
    let url = redis.url();
    redis.kill();
    // Before it has ever answered.
    let side = Side::start(&server(&url, "")).await;
    for _ in 0..2 {
        let refused = side.asked("/closed", "add b n 1").await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"), "{}", refused.text());
        assert_eq!(side.status("/open").await, 204);
        assert_eq!(side.status("/limited").await, 503);
    }
    side.host
        .process
        .event("the server of shared buckets is away; it is asked again and again", |_| true)
        .await;
    let back = async |redis: &mut Redis, before: u16| {
        redis.again().await;
        let asked = async {
            while side.status("/closed").await == before {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        within("it is back", asked).await;
    };
    back(&mut redis, 503).await;
    assert_eq!(side.told("get b n").await, "1");
    assert_eq!(side.status("/open").await, 200);
    assert_eq!(side.status("/limited").await, 204);

    // And in the middle of the work.
    let mark = side.host.process.mark();
    redis.kill();
    assert_eq!(side.status("/closed").await, 503);
    assert_eq!(side.status("/open").await, 204);
    assert_eq!(side.told("get own n").await, "none", "what is in the host goes on");
    back(&mut redis, 503).await;
    assert_eq!(side.told("add b n 1").await, "2", "it has begun anew, with nothing kept");
    side.host.process.event_after(mark, "the server of shared buckets is back", |_| true).await;
    let counted = side.host.admin("/status").await.json();
    let plugins = counted["plugins"].as_array().unwrap();
    assert!(plugins.iter().any(|plugin| plugin["away"].as_u64().is_some_and(|away| away > 0)), "{counted}");
}

#[tokio::test]
async fn a_server_lets_in_who_has_the_password_and_the_log_says_who_has_not() {
    let Some(redis) = Redis::start(&["--requirepass", "open sesame"]).await else { return };
    let right = "password = { file = \"password.txt\" }";
    let side = Side::start(&server(&format!("{}/3", redis.url()), right)).await;
    assert_eq!(side.told("add b n 1").await, "1");
    for (password, said) in [("password = { file = \"key.txt\" }", "WRONGPASS"), ("", "NOAUTH")] {
        let side = Side::start(&server(&redis.url(), password)).await;
        assert_eq!(side.status("/closed").await, 503);
        assert_eq!(side.status("/open").await, 204);
        let fits = |event: &serde_json::Value| event["reason"].as_str().is_some_and(|it| it.contains(said));
        side.host
            .process
            .event("the server of shared buckets is away; it is asked again and again", fits)
            .await;
        assert!(!side.host.process.log().contains("sesame") && !side.host.process.log().contains("s3cret"));
    }
}

#[tokio::test]
async fn over_tls_it_is_the_server_that_the_document_trusts_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let made = Certificate::new(&["localhost"]);
    let [ca, certificate, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let [chain_pem, key_pem] = made.pem();
    for (file, text) in [(&ca, made.ca_pem), (&certificate, chain_pem), (&key, key_pem)] {
        std::fs::write(file, text).unwrap();
    }
    let Some(redis) = Redis::start_over_tls(&certificate, &key).await else { return };
    let trusting = Side::start(&server(&redis.url(), &format!("ca = {ca:?}"))).await;
    assert_eq!(trusting.told("add b n 1").await, "1");
    let other = Side::start(&server(&redis.url(), "")).await;
    assert_eq!(other.status("/closed").await, 503);
}

#[tokio::test]
async fn a_check_finds_what_is_missing_and_asks_no_server() {
    let site = Site::new();
    site.write("key.txt", "s3cret");
    site.write("ca.pem", Certificate::new(&["edge.example.com"]).ca_pem);
    let check = async |url: &str, more: &str| {
        let document = HostDocument { edge_ca: "ca.pem".into(), ..document(&server(url, more)) };
        site.write("host.toml", document.to_toml(&["127.0.0.1:1".parse().unwrap()]));
        Process::run(&["config", "check", "host.toml"], site.folder(), "").await
    };
    for (more, said) in [
        ("password = { file = \"nothing-there.txt\" }", "nothing-there.txt"),
        ("password = { env = \"ADIT_TEST_NO_SUCH_VARIABLE\" }", "ADIT_TEST_NO_SUCH_VARIABLE"),
        ("ca = \"nothing-there.pem\"", "without TLS"),
    ] {
        let checked = check("redis://127.0.0.1:1", more).await;
        assert!(checked.code != Some(0) && format!("{checked:?}").contains(said), "{checked:?}");
    }
    let checked = check("redis://127.0.0.1:1", "").await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
}
