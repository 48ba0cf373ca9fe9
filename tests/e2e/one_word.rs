//! Whoever comes from the reference changes one word: the name of the program. Its start lines, its flags and
//! its config.yml mean here what they mean there.

use std::path::Path;
use std::process::Command;

use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::Origin;
use e2e::process::{Process, adit};
use e2e::product::{Edge, Site};
use e2e::visitor::{Speaks, Visitor, get, to, with_text};
use e2e::within;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

/// An edge, and a folder that is the home of whoever uses it.
struct Home {
    site: Site,
    edge: Edge,
}

impl Home {
    async fn new() -> Self {
        let site = Site::new();
        let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
        std::fs::create_dir(site.path(".cloudflared")).expect("a folder");
        site.write("token", site.credentials.to_token());
        Self { site, edge }
    }

    /// The config.yml of this tunnel, with more lines.
    fn config(&self, name: &str, more: &str) -> String {
        let Site { credentials, .. } = &self.site;
        let text = format!(
            "tunnel: {}\ncredentials-file: ~/demo.json\nno-autoupdate: true\nmetrics: localhost:0\nha-connections: 1\n{more}",
            credentials.tunnel_id
        );
        self.site.write(name, text).display().to_string()
    }

    /// Runs the program as it stands in a unit or a manifest; what is this edge's own is in the environment.
    fn start(&self, line: &str, environment: &[(&str, &str)]) -> Process {
        let mut command = Command::new(adit());
        // As often as the reference has to be told it for its connections.
        let servers = vec![self.edge.servers[0].to_string(); 4].join(",");
        command.env_clear().env("HOME", self.site.folder()).env("TUNNEL_EDGE", servers);
        command.env("TUNNEL_CACERT", self.site.path("edge-data/ca.pem")).envs(environment.iter().copied());
        command.current_dir(self.site.folder()).args(line.split_whitespace());
        Process::start(line, command)
    }

    async fn status(&self) -> u16 {
        self.edge.visitor(Speaks::Http1).send(get("/")).await.status
    }
}

/// What is in a file once something is.
async fn written(path: &Path) -> String {
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if !text.is_empty() => return text,
            Ok(_) | Err(_) => tokio::task::yield_now().await,
        }
    }
}

async fn registered(host: &Process) {
    host.said("registered", |line| line.contains("registered") && !line.contains("unregistered")).await;
}

/// Where its admin API listens, of a text log.
async fn admin(host: &Process) -> Visitor {
    let line = host.said("listening", |line| line.contains("listening") && line.contains("admin")).await;
    let address =
        line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address");
    Visitor::new(address.parse().expect("an address"), Speaks::Http1, None)
}

#[tokio::test]
async fn start_lines_of_containers_units_and_manifests_start_unchanged() {
    let home = Home::new().await;
    let token = home.site.credentials.to_token();
    let id = home.site.credentials.tunnel_id.to_string();
    let config = home.config("config.yml", "ingress:\n- service: hello_world\n");
    home.config(".cloudflared/config.yml", "ingress:\n- service: hello_world\n");
    let (as_token, as_hello) = (("TUNNEL_TOKEN", token.as_str()), ("TUNNEL_HELLO_WORLD", "true"));
    let here = ("TUNNEL_METRICS", "127.0.0.1:0");
    let lines: &[(&str, &[(&str, &str)])] = &[
        // The image: its entry point, and what compose files, Docker and Kubernetes put behind it.
        ("--no-autoupdate tunnel run", &[as_token, here]),
        ("--no-autoupdate tunnel --no-autoupdate run --token {token}", &[here]),
        ("tunnel --no-autoupdate run --token {token}", &[here]),
        ("tunnel --no-autoupdate --loglevel info --metrics 127.0.0.1:0 run", &[as_token]),
        ("tunnel --config {config} run", &[]),
        ("--protocol auto --no-autoupdate tunnel --metrics 127.0.0.1:0 run --token {token}", &[]),
        // Units that `cloudflared service install` writes: systemd, by a file and by a token, and SysV.
        ("--no-autoupdate --config {config} tunnel run", &[]),
        ("--no-autoupdate tunnel run --token-file {home}/token", &[here]),
        ("--pidfile {home}/a.pid --autoupdate-freq 24h0m0s --config {config} tunnel run", &[]),
        // An add-on of a home server, with one dash and with two.
        (
            "--no-autoupdate --metrics=127.0.0.1:0 --loglevel=info --origincert={home}/cert.pem --config={config} tunnel run {id}",
            &[],
        ),
        (
            "tunnel -config {config} -loglevel warn -metrics localhost:0 run",
            &[("TUNNEL_PROTO_LOGLEVEL", "info")],
        ),
        // One service, by hand.
        ("tunnel --credentials-file {home}/demo.json --url hello_world run {id}", &[here]),
        (
            "tunnel --metrics localhost:0 run --hello-world --credentials-file {home}/demo.json --retries 5 --grace-period 5s",
            &[],
        ),
        ("tunnel --edge-ip-version auto --protocol http2 --no-prechecks run", &[as_token, as_hello, here]),
        ("tunnel --config {config} --region us --ha-connections 2 run", &[]),
    ];
    for (line, environment) in lines {
        let line = line
            .replace("{token}", &token)
            .replace("{config}", &config)
            .replace("{home}", &home.site.folder().display().to_string())
            .replace("{id}", &id);
        let host = home.start(&line, environment);
        registered(&host).await;
        assert_eq!(home.status().await, 200, "{line}\n{}", host.tail());
        if line.contains("--pidfile") {
            let number = within("the pid file", written(&home.site.path("a.pid"))).await;
            assert_eq!(number, host.id().to_string());
        }
        host.terminate();
        assert!(host.exit().await.success(), "{line}\n{}", host.tail());
    }
}

#[tokio::test]
async fn a_config_yml_whose_list_of_rules_is_empty_is_ready_with_that() {
    let home = Home::new().await;
    let config = home.config("config.yml", "ingress: []\n");
    let host = home.start(&format!("tunnel --config {config} run"), &[]);
    registered(&host).await;
    let admin = admin(&host).await;
    assert_eq!(home.status().await, 503);
    let ready = admin.send(get("/ready")).await;
    assert_eq!((ready.status, &ready.json()["readyConnections"]), (200, &1.into()));
    host.terminate();
    assert!(host.exit().await.success(), "{}", host.tail());
}

#[tokio::test]
async fn a_host_that_goes_by_a_config_yml_reads_it_again() {
    let home = Home::new().await;
    let status = |status: u16| format!("ingress:\n- service: http_status:{status}\n");
    let config = home.config("config.yml", &status(418));
    let host = home.start(&format!("--log-format json tunnel --config {config} run"), &[]);
    host.event("registered", |_| true).await;
    assert_eq!(home.status().await, 418);

    // By itself.
    home.config("config.yml", &status(451));
    host.event("configuration applied", |event| event["generation"] == 2).await;
    assert_eq!(home.status().await, 451);

    // By a signal; what is wrong is placed in the file, and changes nothing.
    home.config("config.yml", "ingress:\n- service: localhost:8080\n");
    host.hang_up();
    let refused = host.event("configuration refused; what runs goes on", |_| true).await;
    let reasons = refused["reasons"].as_str().unwrap_or_default();
    assert!(
        reasons.contains("config.yml:7:3: ingress[0].service: ") && !reasons.contains("toml"),
        "{reasons}"
    );
    assert_eq!(home.status().await, 451);

    // By the command, which says what needs a start.
    home.config("config.yml", &format!("label: other\n{}", status(503)));
    let listening = host.event("listening", |event| event["kind"] == "admin").await;
    let at = listening["address"].as_str().unwrap_or_default().to_owned();
    let outcome = Process::run(&["reload", "--admin", &at], home.site.folder(), "").await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.output.contains("`label` has changed, and takes effect at the next start"),
        "{outcome:?}"
    );
    assert_eq!(home.status().await, 503);

    // Nothing takes the place of the file itself.
    home.site.write("other.toml", "[[ingress]]\nservice = \"http_status:404\"\n");
    let outcome =
        Process::run(&["config", "put", "other.toml", "--admin", &at], home.site.folder(), "").await;
    assert!(outcome.code == Some(2) && outcome.log.contains("save=false"), "{outcome:?}");
    let text = std::fs::read_to_string(&config).expect("the file is as it was");
    assert!(text.contains("label: other"), "{text}");
}

#[tokio::test]
async fn flags_go_before_what_a_document_says_or_are_refused() {
    let home = Home::new().await;
    let document = HostDocument::new().connections(4).otherwise("hello_world");
    let text = document.to_toml(&["127.0.0.1:1".parse().expect("an address")]);
    let text = text.replace(&format!("\"{}\"", document.edge_ca), "\"nowhere.pem\"");
    home.site.write("host.toml", text);
    let line = "--log-format json tunnel --ha-connections 1 --metrics 127.0.0.1:0 run --config host.toml";
    let host = home.start(line, &[]);
    host.event("registered", |event| event["slot"] == 0).await;
    let listening = host.event("listening", |event| event["kind"] == "admin").await;
    let at = listening["address"].as_str().unwrap_or_default();
    let admin = Visitor::new(at.parse().expect("an address"), Speaks::Http1, None);
    let status: Value = admin.send(get("/ready")).await.json();
    assert_eq!(status["connections"].as_array().map(Vec::len), Some(1), "{status}");
    assert!(!host.log().contains("has no effect"), "{}", host.log());
    // A domain takes the place of a list, and is looked for.
    let searching = home.start(
        "--log-format json tunnel --edge-domain edges.invalid --metrics 127.0.0.1:0 run --config host.toml",
        &[("TUNNEL_EDGE", "")],
    );
    let failed = searching.event("dialling the edge failed", |_| true).await;
    assert!(failed["error"].as_str().unwrap_or_default().contains("edges.invalid"), "{failed}");
    for (line, wanted) in [
        ("tunnel --ha-connections 9 run --config host.toml", "--ha-connections: "),
        ("tunnel --metrics nowhere run --config host.toml", "--metrics: "),
        ("tunnel --cacert none.pem run --config host.toml", "none.pem"),
        ("tunnel --edge-domain a..b run --config host.toml", "--edge-domain: "),
        ("tunnel --hello-world run --config host.toml", "says itself"),
    ] {
        let host =
            home.start(line, &[("TUNNEL_EDGE", if line.contains("domain") { "" } else { "127.0.0.1:1" })]);
        assert_eq!(host.exit().await.code(), Some(2), "{line}\n{}", host.tail());
        assert!(host.log().contains(wanted), "{line}\n{}", host.tail());
    }
}

/// The head of the next request for this service, which gets an empty answer.
async fn head(service: &TcpListener) -> String {
    loop {
        let (mut stream, _) = within("a request", service.accept()).await.expect("a connection");
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
                break;
            }
        }
        // Somebody who only looks whether the service is there says nothing.
        if !head.is_empty() {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).await.expect("the head is answered");
            return String::from_utf8_lossy(&head).into_owned();
        }
    }
}

#[tokio::test]
async fn header_names_are_written_as_there_by_a_config_yml_a_flag_and_a_push() {
    let home = Home::new().await;
    let token = home.site.credentials.to_token();
    let service = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", service.local_addr().expect("an address"));
    let config = home.config("config.yml", &format!("ingress:\n- service: {url}\n"));
    let by_file = format!("tunnel --config {config} run");
    let by_flag = format!("tunnel --metrics localhost:0 run --url {url}");
    let by_push = "tunnel --metrics localhost:0 run".to_owned();
    for line in [by_file, by_flag, by_push] {
        let host = home.start(&line, &[("TUNNEL_TOKEN", &token)]);
        registered(&host).await;
        if !line.contains("config.yml") && !line.contains("--url") {
            let rules = format!("{{\"ingress\": [{{\"service\": \"{url}\"}}]}}");
            let push = to("PUT", "/tunnels/demo/config").header("host", "localhost");
            let edge = Visitor::new(home.edge.admin, Speaks::Http1, None);
            assert_eq!(edge.send(with_text(push, &rules)).await.status, 200);
        }
        let (head, status) = tokio::join!(head(&service), home.status());
        assert_eq!(status, 200, "{line}: {head}");
        for name in ["\r\nHost: ", "\r\nCf-Ray: ", "\r\nX-Forwarded-For: "] {
            assert!(head.contains(name), "{line}: {head}");
        }
        host.terminate();
        assert!(host.exit().await.success(), "{line}\n{}", host.tail());
    }
}

#[tokio::test]
async fn the_built_in_page_has_what_the_reference_has_there() {
    let home = Home::new().await;
    let token = home.site.credentials.to_token();
    let host = home.start("tunnel --metrics localhost:0 run --hello-world", &[("TUNNEL_TOKEN", &token)]);
    host.said("Starting Hello World", |line| line.contains("Starting Hello World")).await;
    registered(&host).await;
    let visitor = home.edge.visitor(Speaks::Http1);
    assert_eq!(visitor.send(get("/_health")).await.text(), "ok");
    let uptime = visitor.send(get("/uptime")).await.json();
    assert!(uptime["startTime"].is_string() && uptime["uptime"].is_string(), "{uptime}");
    let events = visitor.connect().await;
    let mut answer = events.send(get("/sse?freq=20ms")).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut seen = String::new();
    while !seen.contains("2\n\n") {
        use http_body_util::BodyExt;
        let frame = within("an event", answer.frame()).await.expect("it goes on").expect("a frame");
        seen.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
    }
    assert!(seen.starts_with("0\n\n1\n\n"), "{seen}");
    let tcp = visitor.dial().await;
    let (mut socket, _) =
        within("a handshake", client_async(format!("ws://{HOST}/ws"), tcp)).await.expect("a socket");
    for text in ["one", &"x".repeat(70_000)] {
        socket.send(Message::text(text)).await.expect("it is taken");
        let back = within("a message", socket.next()).await.expect("it goes on").expect("a message");
        assert_eq!(back, Message::text(text));
    }
    socket.close(None).await.expect("it closes");
}

#[tokio::test]
async fn logs_tags_and_commands_are_those_of_the_reference() {
    let home = Home::new().await;
    let origin = Origin::start();
    let config = home.config(
        "config.yml",
        &format!("stdin-control: true\nlabel: one\ningress:\n- service: {}\n", origin.service()),
    );
    let line = format!(
        "--loglevel debug --logfile a.log --output json tunnel --config {config} --tag a=b,c=d --post-quantum run"
    );
    let host = home.start(&line, &[]);
    host.said("its label", |line| line.contains("host starts") && line.contains("\"label\":\"one\"")).await;
    registered(&host).await;
    let seen = home.edge.visitor(Speaks::Http1).send(get("/echo/x")).await.json();
    let headers = seen["headers"].as_array().expect("headers").clone();
    for (name, value) in [("cf-warp-tag-a", "b"), ("cf-warp-tag-c", "d")] {
        assert!(headers.iter().any(|header| header[0] == name && header[1] == value), "{seen}");
    }
    host.said("the request", |line| line.contains("/echo/x") && line.contains("\"level\":\"debug\"")).await;
    host.terminate();
    assert!(host.exit().await.success());
    // Scripts compare it.
    for (words, wanted) in [(&["version", "--short"][..], ""), (&["version", "-s"], ""), (&["-v"], "adit ")] {
        let said = Process::run(words, home.site.folder(), "").await;
        assert_eq!(said.output.trim(), format!("{wanted}{}", env!("CARGO_PKG_VERSION")), "{said:?}");
    }
    let log = std::fs::read_to_string(home.site.path("a.log")).expect("a log file");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            line["level"].is_string() && line["time"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
    assert!(log.contains("/echo/x") && log.contains("host ended"), "{log}");
}

#[tokio::test]
async fn a_connection_is_given_up_and_comes_back_when_standard_input_says_so() {
    let home = Home::new().await;
    let token = home.site.credentials.to_token();
    let line = "tunnel --metrics localhost:0 --ha-connections 1 --stdin-control run --hello-world";
    let mut host = home.start(line, &[("TUNNEL_TOKEN", &token)]);
    registered(&host).await;
    let admin = admin(&host).await;
    host.tell("nonsense\nreconnect 1s\n");
    host.said("reconnecting", |line| line.contains("reconnecting")).await;
    let ready = admin.send(get("/ready")).await;
    assert_eq!((ready.status, &ready.json()["readyConnections"]), (503, &0.into()));
    let times = std::cell::Cell::new(0);
    let again = |line: &str| {
        times.set(times.get() + usize::from(line.contains(" registered")));
        times.get() > 1
    };
    host.said("registered again", again).await;
    assert_eq!(home.status().await, 200);
}

#[tokio::test]
async fn a_container_is_well_while_it_lives_and_serves_whatever_its_origins_do() {
    let home = Home::new().await;
    // Nobody listens there.
    let rules =
        "ingress:\n- {hostname: down.app.localhost, service: 'http://127.0.0.1:9'}\n- service: hello_world\n";
    let config = home.config("config.yml", rules);
    let host = home.start(&format!("--log-format json tunnel --config {config} run"), &[]);
    host.event("registered", |_| true).await;
    let listening = host.event("listening", |event| event["kind"] == "admin").await;
    let at = listening["address"].as_str().unwrap_or_default().to_owned();
    let asked = async |flags: &[&str]| {
        let words = [&["tunnel", "ready", "--admin", &at], flags].concat();
        Process::run(&words, home.site.folder(), "").await
    };
    let well = asked(&["--no-origins"]).await;
    assert!(well.code == Some(0) && well.output.contains("1 of its connections serve"), "{well:?}");
    let waiting = within("the edge's first probe", async {
        loop {
            let page = asked(&["--json"]).await;
            if page.output.contains("\"edgeProbes\":true") {
                return;
            }
        }
    });
    waiting.await;
    let ready = asked(&[]).await;
    assert_eq!(ready.code, Some(1), "{ready:?}");
    assert!(ready.output.starts_with("not ready: origin http://127.0.0.1:9 of rule "), "{ready:?}");
    home.edge.process.terminate();
    host.event("connection lost", |_| true).await;
    let ill = asked(&["--no-origins"]).await;
    assert!(ill.code == Some(1) && ill.log.contains("0 of its connections serve"), "{ill:?}");
    assert!(Path::new(&config).is_file());
}
