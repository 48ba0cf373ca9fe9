//! What both ends count is what docs/metrics.md lists, what Prometheus takes, and what boards and alerts ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use adit_protocol::credentials::{Credentials, TunnelSecret};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::load::Load;
use e2e::metrics::{Scraped, metrics_of};
use e2e::origin::{Origin, nobody};
use e2e::process::component;
use e2e::product::{Edge, Host, Product, Site};
use e2e::promtool::Promtool;
use e2e::visitor::{Speaks, Visitor, bare, get, to};
use e2e::within;
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::sleep;
use uuid::Uuid;

const TUNNEL: &str = "tunnel";

/// Both ends after some of everything.
struct Seen {
    edge: String,
    host: String,
    tunnel: String,
    account: String,
}

impl Seen {
    fn edge(&self) -> Scraped {
        Scraped::parse(&self.edge)
    }

    fn host(&self) -> Scraped {
        Scraped::parse(&self.host)
    }
}

async fn seen() -> &'static Seen {
    static SEEN: OnceCell<Seen> = OnceCell::const_new();
    SEEN.get_or_init(look).await
}

async fn look() -> Seen {
    let mut edge = EdgeDocument::new(&["west", "east"], 1).with_https().without_hold();
    edge.more = "probes = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
                 [[certificate]]\ncertificate = \"named.pem\"\nprivate-key = \"named.key\"\n"
        .to_owned();
    let site = Site::new();
    let named = rcgen::generate_simple_self_signed(["named.example".to_owned()]).unwrap();
    site.write("named.pem", named.cert.pem());
    site.write("named.key", named.signing_key.serialize_pem());
    let host = HostDocument::new()
        .connections(2)
        .plugin("headers", &component("headers"), "[plugin.config.response]\nset = { \"x-seen\" = \"1\" }")
        .rule("name = \"nobody\"\npath = \"/nobody\"\nservice = \"http://127.0.0.1:1\"")
        .rule("name = \"page\"\nplugins = [\"headers\"]\nservice = \"hello_world\"");
    let product = Product::start_at(site, edge, host).await;
    for speaks in [Speaks::Http1, Speaks::Http2, Speaks::Tls1, Speaks::Tls2] {
        let visitor = product.visitor(speaks);
        assert_eq!(visitor.send(get("/")).await.status, 200);
    }
    let visitor = product.visitor(Speaks::Http1);
    assert_eq!(visitor.send(get("/nobody")).await.status, 502);
    assert_eq!(visitor.send(bare(to("GET", "/").header("host", "nobody.example"))).await.status, 404);
    let unreadable =
        product.visitor(Speaks::Http1).raw(b"GET /< HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert!(unreadable.starts_with(b"HTTP/1.1 400"));
    let api = listening(&product.edge, "api").await;
    assert_eq!(Visitor::new(api, Speaks::Http1, None).send(get("/accounts/a/cfd_tunnel")).await.status, 401);
    // An address that is not spoken to in TLS.
    let _ =
        Visitor::new(product.edge.https.unwrap(), Speaks::Http1, None).raw(b"GET / HTTP/1.1\r\n\r\n").await;

    let edge = scrape_edge(&product.edge).await;
    // The host looks at its connections from time to time.
    let host = within("a look at the connections", async {
        loop {
            let page = product.host.admin("/metrics").await;
            if page.text().contains("\nquic_client_congestion_window{") {
                break page;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(host.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let credentials = &product.site.credentials;
    Seen {
        edge,
        host: host.text().to_owned(),
        tunnel: credentials.tunnel_id.to_string(),
        account: credentials.account_tag.clone(),
    }
}

async fn scrape_edge(edge: &Edge) -> String {
    let page = edge.admin("/metrics").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    page.text().to_owned()
}

async fn listening(edge: &Edge, kind: &str) -> SocketAddr {
    let event = edge.process.event("listening", |event| event["kind"] == kind).await;
    event["address"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_edge_counts_what_becomes_of_requests_connections_and_calls() {
    let seen = seen().await;
    let (edge, tunnel) = (seen.edge(), seen.tunnel.as_str());
    let own = |name: &str, labels: &[(&str, &str)]| edge.sum(name, &[labels, &[(TUNNEL, tunnel)]].concat());
    for protocol in ["http1", "http2"] {
        let labels = [("protocol", protocol), ("status", "2xx")];
        assert_eq!(own("adit_edge_requests_total", &labels), 2.0, "{protocol}");
    }
    assert_eq!(own("adit_edge_requests_total", &[("status", "5xx")]), 1.0);
    assert_eq!(own("adit_edge_errors_total", &[("page", "origin-failed")]), 1.0);
    assert_eq!(own("adit_edge_head_duration_seconds_count", &[]), 5.0);
    assert_eq!(own("adit_edge_head_duration_seconds_bucket", &[("le", "+Inf")]), 5.0);
    assert!(own("adit_edge_head_duration_seconds_sum", &[]) > 0.0);
    assert_eq!(own("adit_edge_tunnel_connections", &[]), 2.0);
    assert_eq!(own("adit_edge_tunnel_info", &[("name", "demo"), ("account", &seen.account)]), 1.0);
    let none = |page| edge.sum("adit_edge_errors_total", &[(TUNNEL, "(none)"), ("page", page)]);
    assert_eq!([none("unknown-host"), none("bad-request")], [1.0, 1.0]);
    assert_eq!(edge.sum("adit_edge_requests_total", &[(TUNNEL, "(none)"), ("status", "4xx")]), 2.0);
    assert_eq!(edge.sum("adit_edge_tunnels", &[("state", "connected")]), 1.0);
    assert_eq!(edge.sum("adit_edge_connections", &[("protocol", "quic")]), 2.0);
    assert_eq!(edge.sum("adit_edge_registrations_total", &[("outcome", "registered")]), 2.0);
    let shaken = |listener, outcome| {
        edge.sum("adit_edge_handshakes_total", &[("listener", listener), ("outcome", outcome)])
    };
    assert_eq!([shaken("visitors-https", "done"), shaken("visitors-https", "failed")], [2.0, 1.0]);
    assert!(shaken("connectors-quic", "done") >= 2.0);
    assert!(edge.sum("adit_edge_visitor_connections_total", &[("listener", "visitors-http")]) >= 4.0);
    assert_eq!(edge.sum("adit_edge_api_requests_total", &[("code", "401")]), 1.0);
    assert_eq!(edge.sum("adit_edge_store_writable", &[]), 1.0);
    assert_eq!([edge.sum("adit_edge_ready", &[]), edge.sum("adit_edge_draining", &[])], [1.0, 0.0]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    for purpose in ["visitors", "connectors", "authority"] {
        let until = edge.sum("adit_edge_certificate_expiry_timestamp_seconds", &[("use", purpose)]);
        assert!(until > now + 396.0 * 86_400.0, "{purpose}: {until}");
    }
}

#[tokio::test]
async fn what_waits_and_what_is_tried_again_is_counted_with_its_tunnel() {
    let site = Site::new();
    let mut document = EdgeDocument::new(&["west"], 1);
    document.hold = Some("200ms");
    let edge = site.edge(&document).await;
    // The edge has only just started, so a host may come.
    assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.status, 530);
    let scraped = Scraped::parse(&scrape_edge(&edge).await);
    let tunnel = site.credentials.tunnel_id.to_string();
    let own = |scraped: &Scraped, name: &str, labels: &[(&str, &str)]| {
        scraped.sum(name, &[labels, &[(TUNNEL, tunnel.as_str())]].concat())
    };
    assert_eq!(own(&scraped, "adit_edge_holds_total", &[]), 1.0);
    assert_eq!(own(&scraped, "adit_edge_holds_failed_total", &[("reason", "in-vain")]), 1.0);
    assert_eq!(own(&scraped, "adit_edge_errors_total", &[("page", "no-connection")]), 1.0);
    assert_eq!(own(&scraped, "adit_edge_tunnel_connections", &[]), 0.0);

    // The host cannot reach the origin, and says so: each further replica is asked.
    let nowhere = HostDocument::new().otherwise(&format!("http://{}", nobody()));
    let _hosts = [site.host(&edge, &nowhere).await, {
        let process = site.spawn_host_named("second", &edge.servers, &nowhere);
        Host::connected(process, 1).await
    }];
    assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.status, 502);
    let scraped = Scraped::parse(&scrape_edge(&edge).await);
    assert_eq!(own(&scraped, "adit_edge_retries_total", &[("reason", "not-here")]), 1.0);
    assert_eq!(own(&scraped, "adit_edge_retries_denied_total", &[]), 0.0);
}

/// Name, type and labels of every metric in the sections of a page whose titles are these.
fn listed(sections: &[&str]) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let mut listed = BTreeMap::new();
    let mut section = String::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.to_owned();
        } else if sections.contains(&section.as_str())
            && let Some(row) = line.strip_prefix("| `")
        {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let labels = cells[2].split(", ").filter(|label| !label.is_empty());
            let labels = labels.map(|label| label.trim_matches('`').to_owned()).collect();
            let known = listed.insert(cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels));
            assert!(known.is_none(), "{line} stands there twice");
            assert!(cells[3].len() > 3, "{line} has no meaning");
        }
    }
    listed
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[tokio::test]
async fn the_page_lists_every_metric_of_both_ends_and_nothing_else() {
    let seen = seen().await;
    let without_samples = [
        // Only a quick tunnel has it.
        "cloudflared_tunnel_user_hostnames_counts",
        // Only what an authority has issued has it.
        "adit_edge_issued_certificate_expiry_timestamp_seconds",
        // Only load balancers and pools have these, at which `edge/tests/edge/seen.rs` looks.
        "adit_edge_balancer_failovers_total",
        "adit_edge_balancer_fallbacks_total",
        "adit_edge_balancer_info",
        "adit_edge_balancer_requests_total",
        "adit_edge_balancer_retries_total",
        "adit_edge_balancer_sessions_total",
        "adit_edge_endpoint_attempts_total",
        "adit_edge_endpoint_up",
        "adit_edge_pool_info",
        "adit_edge_pool_may_serve",
        "adit_edge_pool_requests_open",
        // Only a node of a fleet has these, at which `edge/tests/edge/whole_fleet.rs` looks.
        "adit_edge_peer_bytes_total",
        "adit_edge_peer_connected",
        "adit_edge_peer_requests_total",
        "adit_edge_peer_silent_seconds",
    ];
    for (section, scraped) in [("The edge", seen.edge()), ("The host", seen.host())] {
        let listed = listed(&[section, "Both"]);
        let shown: BTreeMap<_, _> = scraped.families.iter().cloned().collect();
        assert_eq!(shown.len(), scraped.families.len(), "{section}: a family begins twice");
        let names = |names: BTreeSet<&String>| names.into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(names(listed.keys().collect()), names(shown.keys().collect()), "{section}");
        for (name, (kind, labels)) in &listed {
            assert_eq!(kind, &shown[name], "{name}");
            match scraped.labels(name) {
                Some(found) => assert_eq!(found, labels.iter().map(String::as_str).collect(), "{name}"),
                None => assert!(without_samples.contains(&name.as_str()), "{name} has no sample to look at"),
            }
        }
    }
}

#[tokio::test]
async fn prometheus_has_nothing_to_say_against_the_metrics() {
    let Some(promtool) = Promtool::find() else { return };
    let seen = seen().await;
    let edge = promtool.run(&["check", "metrics"], &seen.edge);
    assert_eq!((edge.code, edge.said.as_str()), (Some(0), ""));
    // Names of the reference break its habits there too.
    let host = promtool.run(&["check", "metrics"], &seen.host);
    let is_of_reference = |line: &str| {
        ["cloudflared_", "quic_client_", "tunnel_ids", "build_info"].iter().any(|name| line.starts_with(name))
    };
    let ours: Vec<&str> = host.said.lines().filter(|line| !is_of_reference(line)).collect();
    assert!(ours.is_empty() && host.code != Some(1), "{host:?}");
}

fn monitoring(file: &str) -> String {
    std::fs::read_to_string(root().join("examples/monitoring").join(file)).unwrap()
}

/// Every expression of the boards, with what stands in for Grafana's own variables.
fn of_boards() -> Vec<(String, String)> {
    fn gather(value: &Value, file: &str, into: &mut Vec<(String, String)>) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    match (key.as_str(), value) {
                        ("expr", Value::String(text)) => {
                            let text = text.replace("$__rate_interval", "5m").replace("$instance", ".*");
                            into.push((
                                file.to_owned(),
                                text.replace("$tunnel", ".*").replace("$rule", ".*"),
                            ));
                        }
                        // What a variable of a board lists.
                        ("query", Value::String(text)) if text.starts_with("label_values(") => {
                            let metric = text.trim_start_matches("label_values(").split([',', '{']).next();
                            into.push((file.to_owned(), metric.unwrap_or_default().to_owned()));
                        }
                        _ => gather(value, file, into),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| gather(value, file, into)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = Vec::new();
    for file in ["edge.json", "host.json"] {
        gather(&serde_json::from_str(&monitoring(file)).unwrap(), file, &mut found);
    }
    found
}

/// Every expression of the alerts, each on the line of its key or folded below it.
fn of_alerts() -> Vec<(String, String)> {
    let text = monitoring("alerts.yaml");
    let mut found: Vec<(String, String)> = Vec::new();
    let mut folded = None;
    for line in text.lines() {
        let (indent, trimmed) = (line.len() - line.trim_start().len(), line.trim_start());
        match (folded, trimmed.strip_prefix("expr: ")) {
            (_, Some(">-")) => {
                folded = Some(indent);
                found.push(("alerts.yaml".to_owned(), String::new()));
            }
            (_, Some(expression)) => found.push(("alerts.yaml".to_owned(), expression.to_owned())),
            (Some(outer), None) if indent > outer => {
                let (_, expression) = found.last_mut().unwrap();
                *expression += trimmed;
                expression.push(' ');
            }
            (_, None) => folded = None,
        }
    }
    assert_eq!(found.len(), text.matches("- alert: ").count());
    found
}

#[tokio::test]
async fn boards_and_alerts_ask_only_for_metrics_that_exist() {
    let seen = seen().await;
    let mut names: BTreeSet<String> = seen.edge().names();
    names.extend(seen.host().names());
    // Prometheus' own, of each target.
    names.insert("up".to_owned());
    let expressions = [of_boards(), of_alerts()].concat();
    assert!(expressions.len() > 50, "{}", expressions.len());
    for (file, expression) in &expressions {
        let asked = metrics_of(expression);
        assert!(!asked.is_empty(), "{file}: {expression} asks for nothing");
        for name in asked {
            assert!(names.contains(&name), "{file}: {expression} asks for {name}, which neither end has");
        }
    }
}

#[test]
fn prometheus_takes_every_expression_and_alerts_speak_when_they_should() {
    let Some(promtool) = Promtool::find() else { return };
    let folder = root().join("examples/monitoring");
    let path = |file: &str| folder.join(file).display().to_string();
    for arguments in [["check", "rules", &path("alerts.yaml")], ["test", "rules", &path("alerts.test.yaml")]]
    {
        let verdict = promtool.run(&arguments, "");
        assert_eq!(verdict.code, Some(0), "{arguments:?}: {}", verdict.said);
    }
    // Each alert has a case in which it speaks.
    let cases = monitoring("alerts.test.yaml");
    for alert in monitoring("alerts.yaml").lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let speaks = format!("alertname: {alert}\n        exp_alerts:\n");
        assert!(cases.contains(&speaks), "{alert} never speaks in alerts.test.yaml");
    }
    let mut rules = "groups:\n  - name: boards\n    rules:\n".to_owned();
    for (number, (_, expression)) in of_boards().iter().enumerate() {
        rules +=
            &format!("      - record: board_{number}\n        expr: {}\n", Value::from(expression.as_str()));
    }
    let site = Site::new();
    let file = site.write("boards.yaml", &rules).display().to_string();
    let verdict = promtool.run(&["check", "rules", &file], "");
    assert_eq!(verdict.code, Some(0), "{}\n{rules}", verdict.said);
}

#[tokio::test]
async fn a_thousand_tunnels_under_load_have_so_many_series_and_the_cost_of_a_scrape_is_printed() {
    let (site, origin) = (Site::new(), Origin::start());
    let mut document = EdgeDocument::new(&["west"], 1).without_hold();
    for number in 0..TUNNELS {
        let credentials = Credentials {
            account_tag: format!("account-{}", number % 7),
            tunnel_secret: TunnelSecret::new(&[number as u8; 32]).unwrap(),
            tunnel_id: Uuid::from_u128(number),
            endpoint: None,
        };
        site.write(&format!("{number}.json"), credentials.to_json());
        document.more += &format!(
            "\n[[tunnel]]\nname = \"t{number}\"\ncredentials-file = \"{number}.json\"\nhostnames = [\"t{number}.example\"]\n"
        );
    }
    let edge = site.edge(&document).await;
    let _host = site.host(&edge, &HostDocument::new().otherwise(&origin.service())).await;
    let mut load = Load::steady(&[edge.http]).await;
    let visitor = edge.visitor(Speaks::Http1);
    for number in 0..TUNNELS {
        let request = bare(to("GET", "/").header("host", format!("t{number}.example")));
        assert_eq!(visitor.send(request).await.status, 530);
    }
    let text = scrape_edge(&edge).await;
    let scraped = Scraped::parse(&text);
    let rows: BTreeSet<&String> =
        scraped.samples.iter().filter_map(|sample| sample.labels.get(TUNNEL)).collect();
    assert_eq!(rows.len(), 202, "200 of their own, the others, and what leads nowhere");
    let accounts: BTreeMap<&str, usize> = scraped
        .samples
        .iter()
        .filter(|sample| sample.name == "adit_edge_tunnel_info")
        .fold(BTreeMap::new(), |mut counts, sample| {
            *counts.entry(sample.labels["account"].as_str()).or_default() += 1;
            counts
        });
    assert!(accounts.len() == 8 && accounts.values().all(|count| *count <= 30), "{accounts:?}");
    let errors = scraped.sum("adit_edge_errors_total", &[("page", "no-connection")]);
    assert_eq!(errors, TUNNELS as f64, "nothing is lost in the sum");
    if let Some(promtool) = Promtool::find() {
        let verdict = promtool.run(&["check", "metrics"], &text);
        assert_eq!((verdict.code, verdict.said.as_str()), (Some(0), ""));
    }

    let (began, before) = (Instant::now(), administrators_time(&edge));
    for _ in 0..SCRAPES {
        scrape_edge(&edge).await;
        load.passes(1).await;
    }
    let cost = (administrators_time(&edge) - before) / SCRAPES;
    eprintln!(
        "a scrape of {} bytes, {} series, with {TUNNELS} tunnels under load: {cost:?} of a core ({SCRAPES} in {:?})",
        text.len(),
        scraped.samples.len(),
        began.elapsed(),
    );
    load.finish("scraped").await;
}

/// What the edge's thread for administrators has had of processors.
fn administrators_time(edge: &Edge) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", edge.process.id())).unwrap();
    let is_admin =
        |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "admin");
    let task = tasks.flatten().map(|task| task.path()).find(is_admin).expect("it has a thread of its own");
    let times = std::fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(times.split_whitespace().next().unwrap().parse().unwrap())
}

const TUNNELS: u128 = 1000;
const SCRAPES: u32 = 20;
