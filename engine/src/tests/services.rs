//! What the host does for plugins, shown with a guest that uses all of it.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A guest that does what the header `x-do` says; see `tests/guests/toolbox`.
const TOOLBOX: &str = "test/toolbox.wasm";

const ALL: &str = "http = [\"http://127.0.0.1:9\"]\nsecrets = { key = { env = \"X\" } }\nbuckets = { seen = \"64KiB\", tiny = \"1KiB\", large = \"2MiB\" }";

fn secrets() -> Secrets {
    Secrets(BTreeMap::from([("key".to_owned(), b"hunter2".to_vec())]))
}

async fn toolbox(name: &str, keys: &str) -> Result<Arc<Plugin>, LoadError> {
    let mut plan = plan("{}");
    plan.name = name.to_owned();
    plan.grants = grants(keys);
    Plugin::load(engine(), &Arc::new(plan), &component(TOOLBOX), &secrets(), 2).await.map(Arc::new)
}

async fn outcome(chain: &Chain, command: &str) -> String {
    match ask(chain, &[("x-do", command)]).await {
        RequestOutcome::Respond(reply, _) => String::from_utf8_lossy(&reply.body).into_owned(),
        RequestOutcome::Continue(_) => panic!("{command}: no reply"),
        RequestOutcome::Failed(failure) => panic!("{command}: {failure}"),
    }
}

#[tokio::test]
async fn what_imports_ask_for_and_is_not_granted_refuses_the_load_before_any_code_runs() {
    let error = toolbox("ungranted", "").await.expect_err("nothing is granted");
    let LoadError::NotGranted { imports } = &error else { panic!("{error}") };
    assert_eq!(imports.len(), 4, "{error}");
    for (import, grant) in [
        ("secret", "`secrets`"),
        ("keyed", "`secrets`"),
        ("key-value", "`buckets`"),
        ("http-client", "`http`"),
    ] {
        let named = format!("adit:plugin/{import}@0.1.0");
        assert!(error.to_string().contains(&named) && error.to_string().contains(grant), "{error}");
    }
    let some = ALL.lines().skip(1).collect::<Vec<_>>().join("\n");
    let error = toolbox("ungranted", &some).await.expect_err("one is missing");
    assert!(matches!(&error, LoadError::NotGranted { imports } if imports.len() == 1), "{error}");

    let granted = toolbox("granted", ALL).await.expect("all is granted");
    let mut plan = plan("{}");
    plan.name = "granted".to_owned();
    let error = granted.load_again(&Arc::new(plan), &secrets()).await.expect_err("no longer granted");
    assert!(matches!(error, LoadError::NotGranted { .. }), "{error}");
}

#[tokio::test]
async fn a_plugin_reads_granted_secrets_and_no_others() {
    let plugin = toolbox("secretive", ALL).await.expect("a good plugin");
    let chain = Chain::new(vec![plugin.clone()]);
    assert_eq!(outcome(&chain, "secret key").await, "hunter2");
    assert_eq!(outcome(&chain, "secret other").await, "none");
    assert_eq!(plugin.counters().denied, 1);
    assert!(!format!("{plugin:?} {:?}", secrets()).contains("hunter2"));
}

#[tokio::test]
async fn a_guest_has_cryptography_and_secrets_by_name_that_it_does_not_see() {
    let plugin = toolbox("sealed", ALL).await.expect("a good plugin");
    let chain = Chain::new(vec![plugin.clone()]);
    // FIPS 180-4.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(outcome(&chain, "digest abc").await, abc);
    let tag = outcome(&chain, "hmac hunter2 said").await;
    assert_eq!(outcome(&chain, "keyed key said").await, format!("{tag} Ok(true) Ok(false)"));
    assert_eq!(outcome(&chain, "is-secret key hunter2").await, "Ok(true)");
    assert_eq!(outcome(&chain, "is-secret key hunter").await, "Ok(false)");
    assert_eq!(outcome(&chain, "equal same same").await, "true");
    assert_eq!(outcome(&chain, "equal same sam").await, "false");
    assert_eq!(outcome(&chain, "keyed other said").await, "no-such-secret");
    assert!(outcome(&chain, "is-secret other x").await.contains("no-such-secret"));
    assert_eq!(plugin.counters().denied, 2);

    // RFC 8037, appendix A: the key, and its signature of this text.
    let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let said = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "860c98d2297f3060a33f42739672d61b53cf3adefed3d3c672f320dc021b411e\
                     9d59b8628dc351e248b88b29468e0e41855b0fb7d83bb15be902bfccb8cd0a02";
    assert_eq!(outcome(&chain, &format!("verify {key} {said} {signature}")).await, "Ok(true)");
    assert_eq!(outcome(&chain, &format!("verify {key} {said}. {signature}")).await, "Ok(false)");
    assert!(outcome(&chain, &format!("verify {{}} {said} {signature}")).await.contains("bad-key"));

    let (one, other) = (outcome(&chain, "random 16").await, outcome(&chain, "random 16").await);
    assert!(one.len() == 32 && one != other, "{one} {other}");
    assert_eq!(outcome(&chain, "random 65537").await, "too-many");
}

#[tokio::test]
async fn buckets_are_shared_by_all_instances_survive_a_swap_and_belong_to_one_plugin() {
    let plugin = toolbox("keeper", ALL).await.expect("a good plugin");
    let chain = Chain::new(vec![plugin.clone()]);
    assert_eq!(outcome(&chain, "set seen colour blue").await, "done");
    let mut head = request(&[("x-do", "get seen colour")]);
    let RequestOutcome::Respond(reply, _) = chain.on_request(1, &FACTS, &mut head).await else {
        panic!("it replies");
    };
    assert_eq!(&*reply.body, b"blue", "the other shard's instance");

    let mut changed = plan(r#"{"other": 1}"#);
    (changed.name, changed.grants) = ("keeper".to_owned(), grants(ALL));
    let next = plugin.load_again(&Arc::new(changed), &secrets()).await.expect("a good plugin");
    let next = Chain::new(vec![Arc::new(next)]);
    drop((chain, plugin));
    assert_eq!(outcome(&next, "get seen colour").await, "blue", "after a swap");
    assert_eq!(outcome(&next, "delete seen colour").await, "done");
    assert_eq!(outcome(&next, "get seen colour").await, "none");
    assert_eq!(outcome(&next, "add seen n 5").await, "5");
    assert_eq!(outcome(&next, "add seen n -7").await, "-2");

    let other = Chain::new(vec![toolbox("another", ALL).await.expect("a good plugin")]);
    assert_eq!(outcome(&other, "get seen n").await, "none", "another plugin's bucket of this name");
}

#[tokio::test]
async fn a_value_is_swapped_only_where_it_is_what_was_seen() {
    let chain = Chain::new(vec![toolbox("swapper", ALL).await.expect("a good plugin")]);
    assert_eq!(outcome(&chain, "swap seen n - one").await, "swapped", "nothing was there, and is seen");
    assert_eq!(outcome(&chain, "swap seen n - two").await, "swapped");
    assert_eq!(outcome(&chain, "get seen n").await, "two");
    let told = outcome(&chain, "swap seen n three four").await;
    assert_eq!(told, "three was there, swapped: true", "what is there is handed back, to try again with");
    assert_eq!(outcome(&chain, "get seen n").await, "four");
    assert_eq!(outcome(&chain, "swap absent n - one").await, "no bucket");
    assert!(outcome(&chain, &format!("swap tiny n - {}", "x".repeat(2000))).await.contains("Other"), "full");
}

#[tokio::test]
async fn many_values_are_put_read_and_removed_at_once() {
    let chain = Chain::new(vec![toolbox("batches", ALL).await.expect("a good plugin")]);
    assert_eq!(outcome(&chain, "batch seen blue a b c").await, "a=blue, b=blue, c is not there");
    assert_eq!(outcome(&chain, "get seen a").await, "none");
    assert_eq!(outcome(&chain, "get seen b").await, "blue", "only what was named is removed");
    let large = "x".repeat(600);
    assert!(outcome(&chain, &format!("batch tiny {large} a b c")).await.contains("Other"), "full");
    assert_eq!(outcome(&chain, "get tiny a").await, large, "what was put before the bucket was full stays");
    assert!(outcome(&chain, "batch absent blue a b").await.contains("AccessDenied"));
}

#[tokio::test]
async fn what_is_read_at_once_has_a_limit() {
    let mut plan = plan("{}");
    (plan.name, plan.grants, plan.limits.memory) = ("reads".to_owned(), grants(ALL), 64 << 20);
    let plugin = Plugin::load(engine(), &Arc::new(plan), &component(TOOLBOX), &secrets(), 1).await;
    let chain = Chain::new(vec![Arc::new(plugin.expect("a good plugin"))]);
    assert_eq!(outcome(&chain, "fill large 1000000").await, "done");
    assert_eq!(outcome(&chain, "read large filled 16").await, "16");
    assert!(outcome(&chain, "read large filled 17").await.contains("16 MiB"));
}

/// As examples of other hosts do it.
#[tokio::test]
async fn who_names_no_bucket_gets_the_only_one_or_the_default_one() {
    let some = ALL.lines().take(2).collect::<Vec<_>>().join("\n");
    for (buckets, name) in [(&["seen"][..], "seen"), (&["default", "seen"], "default")] {
        let granted: Vec<_> = buckets.iter().map(|name| format!("{name} = \"1KiB\"")).collect();
        let keys = format!("{some}\nbuckets = {{ {} }}", granted.join(", "));
        let plugin = toolbox(&format!("opens-{name}"), &keys).await.expect("a good plugin");
        let chain = Chain::new(vec![plugin]);
        assert_eq!(outcome(&chain, &format!("set {name} name {name}")).await, "done");
        assert_eq!(outcome(&chain, "open").await, name, "of {buckets:?}");
    }
    let chain = Chain::new(vec![toolbox("opens-none", ALL).await.expect("a good plugin")]);
    assert!(outcome(&chain, "open").await.contains("AccessDenied"), "several, and none is the default");
}

#[tokio::test]
async fn a_bucket_keeps_to_its_quota_and_one_not_granted_is_refused() {
    let plugin = toolbox("hoarder", ALL).await.expect("a good plugin");
    let chain = Chain::new(vec![plugin.clone()]);
    assert_eq!(outcome(&chain, "fill tiny 500").await, "done");
    assert_eq!(outcome(&chain, "fill tiny 2000").await, "full");
    assert_eq!(outcome(&chain, "fill large 1100000").await, "too-large");
    let answer = crate::outbound::LARGEST_ANSWER;
    assert_eq!(outcome(&chain, &format!("fill large {answer}")).await, "done", "a whole answer fits");
    assert_eq!(outcome(&chain, "set absent a b").await, "no-such-bucket");
    assert_eq!(plugin.counters().denied, 1);
}

#[tokio::test]
async fn a_plugins_own_numbers_are_there_for_the_operator() {
    let plugin = toolbox("counter", ALL).await.expect("a good plugin");
    let chain = Chain::new(vec![plugin.clone()]);
    for command in ["count hits 2", "count hits 3", "gauge depth 1.5", "count Bad-Name 1"] {
        outcome(&chain, command).await;
    }
    let expected = [("depth".to_owned(), Number::Gauge(1.5)), ("hits".to_owned(), Number::Counter(5))];
    assert_eq!(plugin.metrics(), expected);
    assert_eq!(plugin.counters().denied, 1);
    let clock = outcome(&chain, "clock").await;
    let (now, monotonic) = clock.split_once(' ').expect("two");
    assert!(now.parse::<u64>().expect("milliseconds") > 1_700_000_000_000 && monotonic == "true", "{clock}");
}

/// A server that answers every connection with this.
async fn server(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback binds");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn requests_go_where_they_are_granted_and_every_other_is_counted() {
    let port = server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
    let keys = ALL.replace("127.0.0.1:9\"", &format!("127.0.0.1:{port}\", \"http://localhost:{port}\""));
    let plugin = toolbox("caller", &keys).await.expect("a good plugin");
    let chain = Chain::new(vec![plugin.clone()]);
    assert_eq!(outcome(&chain, &format!("fetch http://127.0.0.1:{port}/x 0")).await, "200 hello");
    for (url, refused) in [
        ("http://127.0.0.1:1/".to_owned(), "not granted"),
        ("https://api.example.com/".to_owned(), "not granted"),
        (format!("http://localhost:{port}/"), "private"),
    ] {
        let said = outcome(&chain, &format!("fetch {url} 0")).await;
        assert!(said.contains("Denied") && said.contains(refused), "{url}: {said}");
    }
    assert_eq!(plugin.counters().denied, 3);
    let said = outcome(&chain, "fetch not-a-url 0").await;
    assert!(said.contains("Invalid"), "{said}");
}

#[tokio::test]
async fn a_plugin_that_waits_for_an_answer_holds_nobody_up_and_is_told_when_there_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback binds");
    let port = listener.local_addr().expect("bound").port();
    let keys = ALL.replace("127.0.0.1:9", &format!("127.0.0.1:{port}"));
    let plugin = toolbox("waiter", &keys).await.expect("a good plugin");
    let chain = Arc::new(Chain::new(vec![plugin]));
    let waiting = {
        let (chain, command) = (chain.clone(), format!("wait http://127.0.0.1:{port}/ 400"));
        tokio::spawn(async move { outcome(&chain, &command).await })
    };
    // The guest has connected, so that it waits now.
    let (_stream, _) = listener.accept().await.expect("it connects");
    for _ in 0..10 {
        outcome(&chain, "clock").await;
    }
    assert!(!waiting.is_finished());
    assert_eq!(waiting.await.expect("no panic"), "Error::Timeout");
}

#[tokio::test]
async fn what_was_served_comes_in_batches_and_regular_work_is_called() {
    let mut plan = plan("{}");
    (plan.name, plan.grants, plan.tick) = ("observer".to_owned(), grants(ALL), Duration::from_millis(20));
    let wasm = component(TOOLBOX);
    let plugin = Plugin::load(engine(), &Arc::new(plan), &wasm, &secrets(), 2).await.map(Arc::new);
    let chain = Chain::new(vec![plugin.expect("a good plugin")]);
    let observers = chain.observers().expect("it exports the access log");
    for number in 0..300 {
        let served = Served {
            id: number.to_string(),
            rule: "rule".to_owned(),
            method: "GET".to_owned(),
            authority: "a.example".to_owned(),
            path_with_query: format!("/{number}"),
            client_ip: String::new(),
            status: 200,
            started: std::time::SystemTime::now(),
            head_after: Duration::from_millis(1),
            done_after: Duration::from_millis(2),
            sent: 7,
            complete: true,
        };
        observers.tell(number % 2, served);
    }
    let seen = async |key: &str| outcome(&chain, &format!("get seen {key}")).await;
    let wait = async {
        while seen("entries").await != "300" || seen("ticks").await.parse::<u64>().unwrap_or(0) < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("all of it arrives");
    assert_eq!(seen("last").await, "rule GET /299 200 7 true");
    assert_eq!(seen("dropped").await, "0");
    assert!(seen("batches").await.parse::<u64>().expect("a number") < 10);
}

/// A guard that its regular work feeds was open until the end of its first call.
#[tokio::test]
async fn a_plugin_serves_after_its_first_tick_and_not_at_all_if_that_breaks() {
    let chain = Chain::new(vec![toolbox("fed", ALL).await.expect("a good plugin")]);
    assert_eq!(outcome(&chain, "get seen ticks").await, "1");
    let ticker = r#"
        (alias core export $main "tick" (core func $tick))
        (func $on-tick (canon lift (core func $tick)))
        (instance $ticker (export "on-tick" (func $on-tick)))
        (export "adit:plugin/ticker@0.1.0" (instance $ticker))"#;
    let breaks = r#"(func (export "tick") unreachable)"#;
    let wasm = forge::filter_that_imports(breaks, forge::NEXT, ticker);
    let error = Plugin::load(engine(), &Arc::new(plan("{}")), &wasm, &Secrets::default(), 1).await;
    let LoadError::Broken { during, kind, .. } = error.expect_err("it breaks") else {
        panic!("it is refused")
    };
    assert_eq!((during, kind.word()), ("its first on-tick", "trap"));
}

#[tokio::test]
async fn work_that_fails_refuses_the_load_at_first_and_is_counted_later() {
    let error = try_load("test/feeder.wasm", plan(r#"{"refresh": "fail"}"#)).await.expect_err("it fails");
    let LoadError::Broken { during, kind, .. } = &error else { panic!("{error}") };
    assert_eq!((*during, kind.word()), ("its first on-tick", "fault"));
    assert!(error.to_string().contains("nobody has the list"), "{error}");

    let mut later = plan(r#"{"refresh": "later"}"#);
    later.tick = Duration::from_millis(20);
    let plugin = load_with("test/feeder.wasm", later).await;
    let counted = async {
        while plugin.counters().faults == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), counted).await.expect("it is counted");
    // What was there before goes on.
    let outcome = ask(&Chain::new(vec![plugin]), &[]).await;
    assert!(matches!(outcome, RequestOutcome::Continue(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_plugin_that_fails_its_own_probe_is_refused() {
    let mut plan = plan(r#"{"probe": "fail"}"#);
    plan.grants = grants(ALL);
    let loaded = Plugin::load(engine(), &Arc::new(plan), &component(TOOLBOX), &secrets(), 1).await;
    let error = loaded.expect_err("it fails");
    assert!(
        matches!(&error, LoadError::Probe { .. }) && error.to_string().contains("told to fail"),
        "{error}"
    );
}

#[tokio::test]
async fn a_chain_without_observers_has_none() {
    let chain = Chain::new(vec![load(HEADERS, "{}").await]);
    assert!(chain.observers().is_none());
}
