//! Traces: one from the visitor to the service, through edge, host and plugins, told to a collector that reads it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use e2e::collector::{Collector, Span};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::Product;
use e2e::visitor::{Speaks, bare, get, to};

const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Who is asked whether requests may pass: keeps every head and says yes.
fn authority() -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Arc::new(Mutex::new(String::new()));
    let hears = heard.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 8192];
            let length = stream.read(&mut head).unwrap_or_default();
            hears.lock().unwrap().push_str(&String::from_utf8_lossy(&head[..length]).to_lowercase());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (address, heard)
}

fn find<'s>(spans: &'s [Span], service: &str, kind: u64, name: &str) -> &'s Span {
    let found =
        spans.iter().find(|span| span.service == service && span.kind == kind && span.name.starts_with(name));
    found.unwrap_or_else(|| panic!("no {name} of {service} in {spans:#?}"))
}

/// Each tells a trace in one go.
fn are_both_told(spans: &[Span]) -> bool {
    ["adit-edge", "adit-host"]
        .iter()
        .all(|service| spans.iter().any(|span| span.service == *service && span.kind == 2))
}

/// A header that the service was sent; empty if it was not.
fn heard(echo: &serde_json::Value, name: &str) -> String {
    let pairs = echo["headers"].as_array().into_iter().flatten();
    let values = pairs.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap_or_default());
    values.collect::<Vec<_>>().join("|")
}

fn is_within(inner: &Span, outer: &Span) -> bool {
    // Two processes, and two clocks that are set alike but read apart.
    let slack = 20_000_000;
    inner.begun + slack >= outer.begun && inner.ended <= outer.ended + slack
}

async fn product(protocol: &'static str, edge: &str, mut host: HostDocument, more: &str) -> Product {
    let mut document = EdgeDocument::new(&["west"], 1);
    document.more = edge.to_owned();
    host.rules.push_str(more);
    Product::start(document, host.over(protocol)).await
}

#[tokio::test]
async fn one_trace_leads_from_the_visitor_through_edge_host_and_plugins_to_the_service() {
    for protocol in ["quic", "http2"] {
        let (origin, collector) = (Origin::start(), Collector::start());
        let (authority, asked) = authority();
        let config = format!(
            "[plugin.config]\nurl = \"http://{authority}/\"\n[plugin.grants]\nhttp = [\"http://{authority}\"]\nprivate-networks = [\"127.0.0.1\"]"
        );
        let host = HostDocument::new()
            .plugin("asks", &component("forward_auth"), &config)
            .plugin("headers", &component("headers"), "[plugin.config.response.set]\nx-seen = \"yes\"")
            .rule(&format!("service = \"{}\"\nplugins = [\"asks\", \"headers\"]", origin.service()));
        let keys = collector.section("context = \"accept\"");
        let product = product(protocol, &keys, host, &collector.section("share = 0.0")).await;
        let request =
            to("GET", "/echo").header("traceparent", THEIRS).header("tracestate", "vendor=1, other=2");
        let answer = product.visitor(Speaks::Http1).send(bare(request)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let spans = collector.until("both have told", are_both_told).await;

        let edge = find(&spans, "adit-edge", 2, "GET");
        let attempt = find(&spans, "adit-edge", 3, "tunnel");
        let host = find(&spans, "adit-host", 2, "GET");
        let service = find(&spans, "adit-host", 3, "origin");
        let plugins: Vec<&Span> = spans.iter().filter(|span| span.kind == 1).collect();
        assert!(spans.iter().all(|span| span.trace == "4bf92f3577b34da6a3ce929d0e0e4736"), "{spans:#?}");
        let parents = [edge, attempt, host, service].map(|span| span.parent.as_str());
        assert_eq!(parents, ["00f067aa0ba902b7", &edge.id, &attempt.id, &host.id], "{protocol}");
        for name in ["plugin asks", "plugin headers"] {
            let is_there = plugins.iter().any(|plugin| plugin.name == name && plugin.parent == host.id);
            assert!(is_there, "no {name} in {plugins:#?}");
        }
        for (inner, outer) in [(attempt, edge), (host, edge), (service, host)] {
            assert!(is_within(inner, outer), "{inner:#?} is not within {outer:#?}");
        }
        for plugin in &plugins {
            assert!(is_within(plugin, host), "{plugin:#?} is not within {host:#?}");
        }
        assert_eq!(edge.attributes["http.response.status_code"], "200");
        assert_eq!(attempt.attributes["network.transport"], protocol);
        assert_eq!(edge.attributes["adit.ray"], host.attributes["adit.ray"]);
        assert_eq!(edge.attributes["url.path"], "/echo");

        // Who is asked hears it too: the service by the span that asks, others by the host's own.
        let told = answer.json();
        let header = |name: &str| heard(&told, name);
        assert_eq!(header("traceparent"), format!("00-{}-{}-01", service.trace, service.id));
        assert_eq!(header("tracestate"), format!("adit={},vendor=1,other=2", service.id));
        assert_eq!(header("cf-trace-id"), "");
        let asked = asked.lock().unwrap().clone();
        assert!(asked.contains(&format!("traceparent: 00-{}-{}-01", host.trace, host.id)), "{asked}");
    }
}

#[tokio::test]
async fn a_visitor_decides_nothing_and_what_is_no_context_breaks_nothing() {
    let (origin, collector) = (Origin::start(), Collector::start());
    let host = HostDocument::new().otherwise(&origin.service());
    let keys = collector.section("share = 0.0\nerrors = false");
    let product =
        product(super::PROTOCOL, &keys, host, &collector.section("share = 0.0\nerrors = false")).await;
    let long = "x".repeat(8_000);
    let many: Vec<String> = (0..200).map(|number| format!("k{number}=v")).collect();
    for (context, state) in [
        (THEIRS, "vendor=1"),
        (THEIRS, &many.join(",")),
        (THEIRS, &long),
        (&long, "a=1"),
        ("00-00000000000000000000000000000000-0000000000000000-01", "a=1"),
        ("\u{1}", ""),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "=,=,,"),
    ] {
        let head = format!(
            "GET /echo HTTP/1.1\r\nHost: app.localhost\r\ntraceparent: {context}\r\ntracestate: {state}\r\ncf-trace-id: 1:2:0:1\r\nConnection: close\r\n\r\n"
        );
        let answer = product.visitor(Speaks::Http1).raw(head.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        if context.starts_with('\u{1}') {
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            continue;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // It is another trace, which says nothing of theirs.
        let told = answer.split("[\"traceparent\",\"").nth(1).unwrap_or_else(|| panic!("{answer}"));
        assert!(!told.starts_with("00-4bf92f") && &told[52..55] == "-02", "{told}");
        assert!(
            !answer.contains("vendor") && !answer.contains("k0=v") && answer.contains("adit="),
            "{answer}"
        );
    }
    // Nothing of it was kept, and something that is would be.
    let numbers = product.edge.admin("/metrics").await;
    assert!(numbers.text().contains("adit_edge_trace_spans_total{outcome=\"sent\"} 0"), "{}", numbers.text());
    assert_eq!(collector.spans(), []);
}

#[tokio::test]
async fn what_fails_is_told_though_no_share_is_and_a_visitors_trace_is_linked() {
    let (origin, collector) = (Origin::start(), Collector::start());
    let host = HostDocument::new().otherwise(&origin.service());
    let keys = collector.section("share = 0.0");
    let product = product(super::PROTOCOL, &keys, host, &collector.section("share = 0.0")).await;
    product.visitor(Speaks::Http2).send(get("/echo")).await;
    let request = to("GET", "/status/503").header("traceparent", THEIRS);
    assert_eq!(product.visitor(Speaks::Http2).send(bare(request)).await.status, 503);
    let spans = collector.until("the failure is told", are_both_told).await;
    let (edge, host) = (find(&spans, "adit-edge", 2, "GET"), find(&spans, "adit-host", 2, "GET"));
    assert!(edge.is_error && host.is_error && edge.parent.is_empty() && edge.trace == host.trace);
    let link = ("4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), "00f067aa0ba902b7".to_owned());
    assert_eq!(edge.links, [link]);
    assert!(spans.iter().all(|span| span.trace == edge.trace), "one was told that went well: {spans:#?}");
}

#[tokio::test]
async fn a_collector_that_refuses_is_asked_again_and_one_that_is_not_there_is_nothing_to_visitors() {
    let (origin, collector) = (Origin::start(), Collector::start());
    let site = e2e::product::Site::new();
    site.write("headers", "authorization: Bearer for-the-collector\n");
    collector.refuse(&[503, 429]);
    let mut edge = EdgeDocument::new(&["west"], 1);
    edge.more = collector.section("headers-file = \"headers\"\nservice = \"front\"");
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut host = HostDocument::new().over(super::PROTOCOL).otherwise(&origin.service());
    host.rules.push_str(&format!("[traces]\ncollector = \"http://{gone}\"\n"));
    let product = Product::start_at(site, edge, host).await;
    assert_eq!(product.visitor(Speaks::Http1).send(get("/echo")).await.status, 200);
    let spans = collector.until("it is told in the end", |spans| spans.len() == 2).await;
    find(&spans, "front", 2, "GET");
    let heads = collector.heads();
    assert_eq!(heads.len(), 3, "{heads:?}");
    assert!(heads.iter().all(|head| head.contains("authorization: bearer for-the-collector")), "{heads:?}");
    let numbers = product.edge.admin("/metrics").await;
    assert!(numbers.text().contains("adit_edge_trace_spans_total{outcome=\"sent\"} 2"), "{}", numbers.text());
    let log = format!("{:?}{:?}", product.edge.process.log(), product.host.process.log());
    assert!(!log.contains("for-the-collector"), "{log}");
    // What waits does not keep a host from stopping.
    product.host.process.terminate();
    product.host.process.exit().await;
}

#[tokio::test]
async fn both_ends_say_what_is_wrong_with_traces_before_they_start() {
    use e2e::process::Process;
    let site = e2e::product::Site::new();
    site.write("headers", "no header\n");
    let host = HostDocument::new().otherwise("hello_world").to_toml(&["127.0.0.1:1".parse().unwrap()]);
    let edge = EdgeDocument::new(&["west"], 1).to_toml();
    let _ = std::fs::create_dir_all(site.path("edge-data"));
    for (keys, said) in [
        ("share = 0.5", "collector"),
        ("collector = \"127.0.0.1:4318\"", "not a URL of HTTP"),
        ("collector = \"http://127.0.0.1:4318\"\nshare = 1.5", "0 to 1"),
        ("collector = \"http://127.0.0.1:4318\"\ncontext = \"always\"", "accept"),
        ("collector = \"http://127.0.0.1:4318\"\nheaders-file = \"headers\"", "line 1"),
        ("collector = \"http://127.0.0.1:4318\"\nslow = \"0s\"", "out of range"),
        ("collector = \"http://127.0.0.1:4318\"\nsample = 1", "sample"),
    ] {
        for (document, command) in [(&host, ["config", "check"].as_slice()), (&edge, &["edge", "check"])] {
            site.write("checked.toml", format!("{document}\n[traces]\n{keys}\n"));
            let arguments = [command, &["checked.toml"]].concat();
            let told = Process::run(&arguments, site.folder(), "").await;
            let words = format!("{}{}", told.output, told.log);
            assert_eq!(told.code, Some(2), "{keys}: {words}");
            assert!(words.contains(said), "{keys}: {words}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_tried_again_stays_one_trace_with_a_span_for_each_attempt() {
    for protocol in ["quic", "http2"] {
        let (origin, collector) = (Origin::start(), Collector::start());
        // Nobody listens there, so this replica has nothing to ask.
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let empty = HostDocument::new().otherwise(&format!("http://{gone}"));
        let product = product(protocol, &collector.section(""), empty, &collector.section("")).await;
        let mut other = HostDocument::new().over(protocol).otherwise(&origin.service());
        other.rules.push_str(&collector.section("service = \"second\""));
        let process = product.site.spawn_host_named("second", &product.edge.servers, &other);
        let _second = e2e::product::Host::connected(process, 1).await;
        let answer = e2e::within("one is tried again", async {
            loop {
                let answer = product.visitor(Speaks::Http1).send(get("/echo")).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                if answer.header("adit-tries") == "2" {
                    return answer;
                }
            }
        })
        .await;
        let trace = heard(&answer.json(), "traceparent")[3..35].to_owned();
        let is_told = |spans: &[Span]| {
            let services = ["adit-edge", "adit-host", "second"];
            services
                .iter()
                .all(|service| spans.iter().any(|span| span.service == *service && span.trace == trace))
        };
        let spans = collector.until("all three have told", is_told).await;
        let spans: Vec<Span> = spans.into_iter().filter(|span| span.trace == trace).collect();
        let edge = find(&spans, "adit-edge", 2, "GET");
        let mut attempts: Vec<&Span> = spans.iter().filter(|span| span.name == "tunnel").collect();
        attempts.sort_by_key(|attempt| attempt.attributes["adit.try"].clone());
        let [first, second] = attempts[..] else { panic!("{attempts:#?}") };
        assert!(first.is_error && !first.attributes["error.type"].is_empty() && !second.is_error);
        assert_eq!((&first.parent, &second.parent), (&edge.id, &edge.id));
        assert_eq!(find(&spans, "adit-host", 2, "GET").parent, first.id, "{protocol}");
        assert_eq!(find(&spans, "second", 2, "GET").parent, second.id, "{protocol}");
        assert!(!edge.is_error);
    }
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn a_connector_of_the_reference_is_in_the_same_trace() {
    for protocol in ["quic", "http2"] {
        reference_is_traced(protocol).await;
    }
}

async fn reference_is_traced(protocol: &'static str) {
    let (origin, collector) = (Origin::start(), Collector::start());
    let site = e2e::product::Site::new();
    let mut document = EdgeDocument::new(&["west"], 1);
    document.more = collector.section("");
    let edge = site.edge(&document).await;
    let host = HostDocument::new().over(protocol).otherwise(&origin.service());
    let program = e2e::reference::program();
    let _host = e2e::reference::host(program, &site, &edge.servers, &host).await;
    let visitor = e2e::visitor::Visitor::new(edge.http, Speaks::Http1, None);
    let answer = visitor.send(get("/echo")).await;
    assert_eq!((answer.status, answer.header("cf-int-cloudflared-tracing")), (200, ""));
    let is_told = |spans: &[Span]| spans.iter().any(|span| span.service == "cloudflared");
    let spans = collector.until("the connector is in it", is_told).await;
    let attempt = find(&spans, "adit-edge", 3, "tunnel");
    let theirs: Vec<&Span> = spans.iter().filter(|span| span.service == "cloudflared").collect();
    assert!(theirs.iter().all(|span| span.trace == attempt.trace), "{spans:#?}");
    assert!(theirs.iter().any(|span| span.parent == attempt.id), "{protocol}: {spans:#?}");
}

/// As the specification of OpenTelemetry has it, with no section of a document; and compressed, unless the collector
/// does not read that.
#[tokio::test]
async fn the_environment_names_a_collector_and_what_it_is_told() {
    let (origin, collector) = (Origin::start(), Collector::start());
    let site = e2e::product::Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    site.write("host.toml", HostDocument::new().otherwise(&origin.service()).to_toml(&edge.servers));
    let start = |more: &[(&str, &str)]| {
        let mut command = std::process::Command::new(e2e::process::adit());
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address()));
        command.envs(more.iter().copied());
        e2e::process::Process::adit_by(
            command,
            "host",
            &["tunnel", "run", "--config", "host.toml"],
            site.folder(),
        )
    };
    let host = start(&[
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=a%20b"),
        ("OTEL_SERVICE_NAME", "by-name"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
    ]);
    host.event("OTEL_TRACES_SAMPLER: `jaeger_remote` is not known", |_| true).await;
    host.event("registered", |_| true).await;
    let visitor = e2e::visitor::Visitor::new(edge.http, Speaks::Http1, None);
    collector.refuse(&[415]);
    // Enough of them to be worth less room.
    let ask = async || {
        for _ in 0..10 {
            assert_eq!(visitor.send(get("/echo")).await.status, 200);
        }
    };
    ask().await;
    collector.until("it is told", |spans| spans.iter().any(|span| span.service == "by-name")).await;
    let heads = collector.heads();
    assert!(heads[0].contains("content-encoding: gzip") && heads[0].contains("x-team: a b"), "{heads:#?}");
    assert!(!heads[1].contains("content-encoding"), "it said that it reads no gzip: {heads:#?}");
    host.terminate();
    host.exit().await;

    let host = start(&[("OTEL_SERVICE_NAME", "compressed")]);
    host.event("registered", |_| true).await;
    ask().await;
    let told = |spans: &[Span]| spans.iter().filter(|span| span.service == "compressed").count() >= 20;
    collector.until("it is told in less room", told).await;
    assert!(collector.heads().last().unwrap().contains("content-encoding: gzip"));
    host.terminate();
    host.exit().await;
    // Turned off, and a share of none.
    for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_SAMPLER", "always_off")] {
        let before = collector.heads().len();
        let host = start(&[(name, value), ("OTEL_SERVICE_NAME", "silent")]);
        host.event("registered", |_| true).await;
        ask().await;
        host.terminate();
        // What waits is told before it ends.
        assert!(host.exit().await.success());
        assert_eq!(collector.heads().len(), before, "{name}");
    }
}
