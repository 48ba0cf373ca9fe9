//! What an operator asks a running host, by command line and by metrics, is what it really does.

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::{Outcome, Process, component};
use e2e::product::Product;
use e2e::visitor::{Speaks, Visitor, bare, get, to, with_text};
use serde_json::json;

fn document(origin: &Origin, mark: &str) -> HostDocument {
    let config = format!("[plugin.config]\nrequest.set = {{ x-mark = \"{mark}\" }}");
    HostDocument::new()
        .keys("access-log = true")
        .plugin("marks", &component("headers"), &config)
        .plugin("wild", &component("test/misbehave"), "")
        .rule(&format!(
            "name = \"marked\"\npath = \"^/echo\"\nservice = \"{}\"\nplugins = [\"marks\"]\n\
             [ingress.origin]\nhost-header = \"app.internal\"",
            origin.service()
        ))
        .rule("name = \"wild\"\npath = \"^/wild\"\nservice = \"hello_world\"\nplugins = [\"wild\"]")
        .otherwise("http_status:404")
}

async fn start(origin: &Origin) -> Product {
    Product::start(EdgeDocument::new(&["west"], 1), document(origin, "first")).await
}

/// Runs a command against the product's host.
async fn adit(product: &Product, arguments: &[&str]) -> Outcome {
    let admin = product.host.admin.to_string();
    let arguments = [arguments, &["--admin", &admin]].concat();
    Process::run(&arguments, product.site.folder(), "").await
}

#[tokio::test]
async fn the_commands_of_the_configuration_say_and_do_what_the_host_does() {
    let origin = Origin::start();
    let product = start(&origin).await;
    let text = |mark: &str| document(&origin, mark).to_toml(&product.edge.servers);

    product.site.write("host.toml", text("second"));
    let outcome = adit(&product, &["reload"]).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.output.contains("applied: generation 2 serves"), "{outcome:?}");

    product.site.write("bad.toml", text("bad").replace("[[ingress]]", "[[ingres]]"));
    let outcome = adit(&product, &["config", "put", "bad.toml"]).await;
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(
        outcome.log.contains("did you mean `ingress`") && outcome.log.contains("generation 2"),
        "{outcome:?}"
    );
    let outcome = adit(&product, &["config", "put", "bad.toml", "--if-match", "\"7-0\""]).await;
    assert_eq!(outcome.code, Some(1), "{outcome:?}");

    let outcome = adit(&product, &["config", "diff", "1", "2"]).await;
    let has = |part: &str| outcome.output.contains(part);
    assert!(
        has("-request.set = { x-mark = \"first\" }") && has("+request.set = { x-mark = \"second\" }"),
        "{outcome:?}"
    );
    assert_eq!(adit(&product, &["config", "show", "1"]).await.output, text("first").trim_end());

    let outcome = adit(&product, &["config", "rollback", "1"]).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let outcome = adit(&product, &["config", "diff", "1"]).await;
    assert_eq!((outcome.code, outcome.output.as_str()), (Some(0), ""), "{outcome:?}");
    let outcome = adit(&product, &["config", "history"]).await;
    for part in ["*    3", "rollback", "refused", "reason: ", "did you mean `ingress`"] {
        assert!(outcome.output.contains(part), "{part} is not in {}", outcome.output);
    }
    let nobody = ["reload", "--admin", "127.0.0.1:1"];
    let outcome = Process::run(&nobody, product.site.folder(), "").await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.log.contains("--admin"), "{outcome:?}");
}

#[tokio::test]
async fn no_command_reads_a_pipe_a_device_or_more_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let huge = std::fs::File::create(at("huge")).unwrap();
    // Takes no room on the disk.
    huge.set_len(1 << 40).unwrap();
    let component = component("headers").to_str().unwrap().to_owned();
    let (pipe, huge, zero) = (at("pipe"), at("huge"), "/dev/zero".to_owned());
    for before in [
        &["config", "put"][..],
        &["config", "diff", "--file"],
        &["plugin", "check"],
        &["plugin", "run"],
        &["plugin", "run", &component, "--request"],
        &["plugin", "bench"],
        &["plugin", "test", "--component", &component, "--cases"],
        &["plugin", "push"],
    ] {
        for (file, wanted) in [(&pipe, "not a regular file"), (&zero, "not a regular file"), (&huge, "")] {
            let mut arguments = [before, &[file.as_str()]].concat();
            if before.ends_with(&["push"]) {
                arguments.push("oci://127.0.0.1:1/a:b");
            }
            let outcome = Process::run(&arguments, folder.path(), "").await;
            assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
            assert!(outcome.log.contains(wanted), "{arguments:?}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn an_explanation_is_what_the_request_would_meet() {
    let origin = Origin::start();
    let product = start(&origin).await;
    let url = "https://app.localhost/echo/x?y=1";
    let outcome = adit(&product, &["explain", url, "-H", "x-mine: 1", "-H", "connection: close"]).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let page: serde_json::Value = serde_json::from_str(&outcome.output).unwrap();
    assert_eq!((&page["generation"], &page["rule"]["name"]), (&1.into(), &"marked".into()), "{page}");
    assert_eq!((&page["plugins"][0], &page["outcome"]), (&"marks".into(), &"passed".into()), "{page}");
    assert_eq!(page["origin"], origin.service());
    assert_eq!(page["request"]["target"], "/echo/x?y=1");
    let explained: Vec<(String, String)> =
        serde_json::from_value(page["request"]["headers"].clone()).unwrap();
    let has = |name: &str, value: &str| explained.iter().any(|header| header.0 == name && header.1 == value);
    assert!(has("x-mark", "first") && has("x-mine", "1") && has("host", "app.internal"), "{page}");
    assert!(has("x-forwarded-host", "app.localhost") && !has("connection", "close"), "{page}");

    // The origin saw the same of a real one.
    let seen = product.visitor(Speaks::Http1).send(get("/echo/x?y=1")).await.json();
    for (name, value) in [("x-mark", "first"), ("host", "app.internal")] {
        let headers = seen["headers"].as_array().unwrap();
        assert!(headers.iter().any(|header| header[0] == name && header[1] == value), "{seen}");
    }
    let outcome =
        adit(&product, &["explain", "https://app.localhost/wild", "-H", "x-misbehave: respond"]).await;
    let page: serde_json::Value = serde_json::from_str(&outcome.output).unwrap();
    assert_eq!((&page["outcome"], &page["reply"]["status"]), (&"answered".into(), &418.into()), "{page}");
    let outcome = adit(&product, &["explain", "/no-host"]).await;
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}

#[tokio::test]
async fn an_edge_says_in_words_and_in_json_where_a_request_would_go() {
    let origin = Origin::start();
    let product = start(&origin).await;
    let admin = product.edge.admin.to_string();
    let edge = async |arguments: &[&str]| {
        let arguments = [&["edge", "explain", "--admin", &admin], arguments].concat();
        Process::run(&arguments, product.site.folder(), "").await
    };
    let outcome = edge(&["https://app.localhost/echo?x", "--from", "192.0.2.7"]).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for part in
        ["app.localhost leads to the tunnel ", "from 192.0.2.7 over TLS", "goes to tunnel ", " over quic "]
    {
        assert!(outcome.output.contains(part), "{part} is not in {}", outcome.output);
    }
    let outcome = edge(&["https://app.localhost/", "--output", "json"]).await;
    let page: serde_json::Value = serde_json::from_str(&outcome.output).unwrap();
    assert_eq!(
        (&page["offers"][0]["protocol"], &page["offers"][0]["silent"]),
        (&"quic".into(), &false.into())
    );
    let outcome = edge(&["https://else.test/"]).await;
    assert!(outcome.output.contains("the edge answers 404 (unknown-host)"), "{outcome:?}");
    assert_eq!(edge(&["/no-host"]).await.code, Some(2));
}

#[tokio::test]
async fn every_request_has_its_line_in_the_access_log_with_its_generation() {
    let origin = Origin::start();
    let product = start(&origin).await;
    let log = async |path: &str| product.host.process.event("access", |event| event["path"] == path).await;
    let answer = product.get("/echo/one?secret=hunter2").await;
    let line = log("/echo/one").await;
    assert_eq!((&line["generation"], &line["rule"]), (&1.into(), &"marked".into()), "{line}");
    assert_eq!(
        (&line["status"], &line["method"], &line["plugins"]),
        (&200.into(), &"GET".into(), &"passed".into())
    );
    assert_eq!(line["bytes"], answer.body.len());
    assert_eq!((line["id"].as_str().unwrap(), &line["whole"]), (answer.header("cf-ray"), &true.into()));
    assert!(line["milliseconds"].as_f64().unwrap() > 0.0);
    assert!(!product.host.process.log().contains("hunter2"));

    let wild = |path: &str, act: &str| to("GET", path).header("x-misbehave", act);
    let visitor = product.visitor(Speaks::Http1);
    visitor.send(with_text(wild("/wild/a", "respond"), "")).await;
    visitor.send(with_text(wild("/wild/b", "trap"), "")).await;
    assert_eq!(log("/wild/a").await["plugins"], "answered");
    let line = log("/wild/b").await;
    assert_eq!(
        (&line["plugins"], &line["failed"], &line["status"]),
        (&"failed".into(), &"wild".into(), &500.into())
    );

    // Cut in the middle: the line says so.
    let mut watched = origin.watch("/echo/cut");
    let connection = visitor.connect().await;
    let answering = async {
        watched.arrived().await;
        watched.answer(http::Response::new(()));
        watched.say("half");
    };
    let (response, ()) = tokio::join!(connection.send(get("/echo/cut")), answering);
    drop((response, connection));
    let line = log("/echo/cut").await;
    assert_eq!((&line["whole"], &line["outcome"]), (&false.into(), &"cancelled".into()), "{line}");

    product.site.write("host.toml", document(&origin, "second").to_toml(&product.edge.servers));
    assert_eq!(adit(&product, &["reload"]).await.code, Some(0));
    product.get("/echo/two").await;
    assert_eq!(log("/echo/two").await["generation"], 2);
}

#[tokio::test]
async fn metrics_count_by_generation_rule_and_plugin() {
    let origin = Origin::start();
    let product = start(&origin).await;
    for _ in 0..3 {
        assert_eq!(product.get("/echo").await.status, 200);
    }
    assert_eq!(product.get("/nothing").await.status, 404);
    product.site.write("host.toml", document(&origin, "second").to_toml(&product.edge.servers));
    assert_eq!(adit(&product, &["reload"]).await.code, Some(0));
    assert_eq!(product.get("/echo").await.status, 200);
    // What is counted at the end of an answer may come a little after the answer.
    let page = loop {
        let page = product.host.admin("/metrics").await;
        assert!(page.header("content-type").starts_with("text/plain; version=0.0.4"), "{page:?}");
        if page.text().contains("adit_rule_requests_total{rule=\"marked\",status=\"2xx\"} 4\n") {
            break page;
        }
        tokio::task::yield_now().await;
    };
    for line in [
        "adit_generation 2",
        "adit_generation_requests_total{generation=\"1\"} 4",
        "adit_generation_requests_total{generation=\"2\"} 1",
        "adit_rule_requests_total{rule=\"*\",status=\"4xx\"} 1",
        "adit_rule_duration_seconds_count{rule=\"marked\"} 4",
        "adit_config_revisions_total{verdict=\"applied\"} 2",
        "cloudflared_tunnel_total_requests 5",
        "cloudflared_tunnel_ha_connections 1",
        "cloudflared_tunnel_server_locations{connection_id=\"0\",edge_location=\"west-0\"} 1",
        "adit_plugin_failures_total{plugin=\"wild\",kind=\"trap\"} 0",
    ] {
        assert!(page.text().contains(&format!("\n{line}\n")), "{line} is not in\n{}", page.text());
    }
    // Every line is a comment or a sample, and every sample's family was announced.
    for line in page.text().lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let family = name.split('{').next().unwrap();
        let family =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| family.strip_suffix(end)).unwrap_or(family);
        assert!(page.text().contains(&format!("# TYPE {family} ")), "{line}");
        value.parse::<f64>().unwrap();
    }
}

/// The reference's metrics that mean something here, with their labels (product.md, A4.2).
const OF_THE_REFERENCE: &[(&str, &[&str], &str)] = &[
    ("build_info", &["version"], "gauge"),
    ("cloudflared_config_local_config_pushes", &[], "counter"),
    ("cloudflared_config_local_config_pushes_errors", &[], "counter"),
    ("cloudflared_orchestration_config_version", &[], "gauge"),
    ("cloudflared_tunnel_total_requests", &[], "counter"),
    ("cloudflared_tunnel_concurrent_requests_per_tunnel", &[], "gauge"),
    ("cloudflared_tunnel_max_concurrent_requests_per_tunnel", &["connection_id"], "gauge"),
    ("cloudflared_tunnel_response_by_code", &["status_code"], "counter"),
    ("cloudflared_tunnel_request_errors", &[], "counter"),
    ("cloudflared_tunnel_ha_connections", &[], "gauge"),
    ("cloudflared_tunnel_server_locations", &["connection_id", "edge_location"], "gauge"),
    ("cloudflared_tunnel_tunnel_register_success", &["rpcName"], "counter"),
    ("cloudflared_tunnel_tunnel_register_fail", &["error", "rpcName"], "counter"),
    ("cloudflared_tunnel_tunnel_rpc_fail", &["error", "rpcName"], "counter"),
    ("tunnel_ids", &["tunnel_id", "ha_conn_id"], "gauge"),
    ("quic_client_total_connections", &[], "counter"),
    ("quic_client_smoothed_rtt", &["conn_index"], "gauge"),
    ("quic_client_mtu", &["conn_index"], "gauge"),
    ("quic_client_congestion_window", &["conn_index"], "gauge"),
    ("quic_client_sent_bytes", &["conn_index"], "counter"),
    ("quic_client_receive_bytes", &["conn_index"], "counter"),
    ("quic_client_lost_packets", &["conn_index", "reason"], "counter"),
    ("process_resident_memory_bytes", &[], "gauge"),
    ("process_virtual_memory_bytes", &[], "gauge"),
    ("process_cpu_seconds_total", &[], "counter"),
    ("process_open_fds", &[], "gauge"),
    ("process_max_fds", &[], "gauge"),
    ("process_start_time_seconds", &[], "gauge"),
];

#[tokio::test]
async fn dashboards_made_for_the_reference_find_its_names_and_labels() {
    let origin = Origin::start();
    let product = start(&origin).await;
    assert_eq!(product.get("/echo").await.status, 200);
    // How a connection is shows when it was looked at.
    let page = loop {
        let page = product.host.admin("/metrics").await;
        let is_looked_at = page.text().contains("quic_client_mtu{");
        if is_looked_at
            && page.text().contains("cloudflared_tunnel_response_by_code{status_code=\"200\"} 1\n")
        {
            break page;
        }
        tokio::task::yield_now().await;
    };
    for (name, labels, kind) in OF_THE_REFERENCE {
        assert!(
            page.text().contains(&format!("\n# TYPE {name} {kind}\n")) || *name == "build_info",
            "{name}"
        );
        let sample = page.text().lines().find(|line| line.split(['{', ' ']).next() == Some(name));
        let sample = sample.unwrap_or_else(|| panic!("{name} has no sample in\n{}", page.text()));
        let found: Vec<&str> = match sample.split_once('{') {
            Some((_, rest)) => {
                let (labels, _) = rest.rsplit_once('}').unwrap();
                labels.split("\",").map(|label| label.split('=').next().unwrap()).collect()
            }
            None => Vec::new(),
        };
        assert_eq!(found, *labels, "{sample}");
    }
    let value = |name: &str| -> f64 {
        let line = page.text().lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    };
    assert!(value("cloudflared_tunnel_max_concurrent_requests_per_tunnel{connection_id=\"0\"}") >= 1.0);
    // Only a quick tunnel has one of its own: see the test of those.
    assert!(page.text().contains("\n# TYPE cloudflared_tunnel_user_hostnames_counts counter\n"));
    assert!((1200.0..9000.0).contains(&value("quic_client_mtu{")));
    assert!(value("quic_client_sent_bytes{") > 1000.0 && value("process_resident_memory_bytes") > 1e6);
    assert_eq!(value("cloudflared_tunnel_tunnel_register_success{"), 1.0);
    assert_eq!(value("cloudflared_config_local_config_pushes "), 1.0);
}

#[tokio::test]
async fn diagnostics_have_the_references_form() {
    let origin = Origin::start();
    let product = start(&origin).await;
    let tunnel = product.host.admin("/diag/tunnel").await.json();
    let status = product.host.admin("/status").await.json();
    assert_eq!((&tunnel["tunnelID"], &tunnel["connectorID"]), (&status["tunnelId"], &status["connectorId"]));
    let connection = &tunnel["connections"][0];
    assert_eq!((&connection["isConnected"], &connection["protocol"]), (&json!(true), &json!(1)), "{tunnel}");
    assert_eq!(
        (&connection["edgeAddress"], connection.get("index")),
        (&json!("127.0.0.1"), None),
        "{tunnel}"
    );
    let system = product.host.admin("/diag/system").await.json();
    assert!(system["info"]["memoryMaximum"].as_u64() > system["info"]["memoryCurrent"].as_u64(), "{system}");
    assert_eq!((&system["info"]["osSystem"], &system["errors"]), (&json!("linux"), &json!([])));
    let settings = product.host.admin("/diag/configuration").await.json();
    assert_eq!((&settings["ha-connections"], &settings["config-source"]), (&json!("1"), &json!("local")));
    assert_eq!(product.host.admin("/quicktunnel").await.json(), json!({ "hostname": "" }));
    let admin = Visitor::new(product.host.admin, Speaks::Http1, None);
    let shown = async |path: &str| admin.send(bare(to("GET", path).header("host", "localhost"))).await;
    let page = shown("/config").await;
    assert_eq!(page.header("content-type"), "application/json");
    let document = shown("/config/document").await;
    assert_eq!(page.header("etag"), document.header("etag"));
    let page = page.json();
    let rules = page["config"]["ingress"].as_array().unwrap();
    assert_eq!((&page["version"], rules.len()), (&json!(-1), 3), "{page}");
    assert_eq!((&rules[0]["path"], &rules[0]["service"]), (&json!("^/echo"), &json!(origin.service())));
    assert_eq!(rules[0]["originRequest"]["httpHostHeader"], "app.internal");
    assert_eq!(page["config"]["originRequest"]["connectTimeout"], 30);
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn the_references_own_diagnosis_finds_all_that_it_looks_for() {
    let program = e2e::reference::program();
    let origin = Origin::start();
    let product = start(&origin).await;
    let mut command = std::process::Command::new(program);
    command.current_dir(product.site.folder()).args(["tunnel", "diag", "--metrics"]);
    command.arg(product.host.admin.to_string());
    // Nothing about this machine and the world, and no profiles of Go.
    command.args(["--no-diag-network", "--no-diag-logs", "--no-diag-runtime"]);
    let diagnosis = Process::start("diagnosis", command);
    diagnosis.said("that it is done", |line| line.contains("Diagnostic completed")).await;
    for what in ["tunnel state", "system information", "metrics", "cli configuration", "configuration"] {
        assert!(diagnosis.log().contains(&format!("Collected {what}.")), "{}", diagnosis.log());
    }
}
