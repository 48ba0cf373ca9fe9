//! `/livez` and `/readyz` tell the truth: about the process, about the connections, about the origins.

use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use adit_protocol::extensions;
use adit_protocol::stream::Connect;
use e2e::certificate::Certificate;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::{Outcome, Process, adit};
use e2e::product::{Product, Site};
use e2e::stand_in::StandIn;
use e2e::visitor::{Answer, Speaks, Visitor, get, to, with_text};
use e2e::within;
use http::Request;
use serde_json::Value;

/// Asks again until the answer is as wanted.
async fn until(admin: SocketAddr, path: &str, fits: impl Fn(&Answer) -> bool) -> Answer {
    within("another readiness", async {
        loop {
            let answer = Visitor::new(admin, Speaks::Http1, None).send(get(path)).await;
            if fits(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Until it says that the host is not ready.
async fn unready(admin: SocketAddr) -> Value {
    until(admin, "/readyz", |answer| answer.status == 503).await.json()
}

#[tokio::test]
async fn a_host_is_alive_and_ready_while_enough_connections_serve() {
    let host = HostDocument::new().connections(2).ready_connections(2).otherwise("hello_world");
    let product = Product::start(EdgeDocument::new(&["west", "east"], 1), host).await;
    let alive = product.host.admin("/livez").await;
    assert_eq!(alive.status, 200);
    let alive = alive.json();
    assert!(alive["shards"].as_array().unwrap().iter().all(|shard| shard == "alive"), "{alive}");

    let ready = product.host.admin("/readyz").await;
    assert_eq!(ready.status, 200, "{ready:?}");
    let ready = ready.json();
    assert_eq!((&ready["ready"], &ready["readyConnections"]), (&true.into(), &2.into()), "{ready}");
    assert_eq!(ready["connections"].as_array().unwrap().len(), 2, "{ready}");
    assert_eq!(ready["origins"][0]["origin"], "hello_world", "{ready}");
    assert_eq!(ready["origins"][0]["ok"], true, "{ready}");

    product.edge.process.kill();
    let lost = unready(product.host.admin).await;
    let reasons = lost["reasons"].as_array().unwrap();
    assert!(reasons[0].as_str().unwrap().contains("connections serve, 2 are needed"), "{lost}");
    // Nothing is wrong with the process: whoever restarts it would make it worse.
    assert_eq!(product.host.admin("/livez").await.status, 200);
}

#[tokio::test]
async fn a_host_that_was_told_to_stop_is_alive_but_not_ready() {
    let origin = Origin::start();
    let product = Product::simple(&origin.service()).await;
    let mut watched = origin.watch("/slow");
    let asked = product.get("/slow");
    let directed = async {
        watched.arrived().await;
        product.host.process.terminate();
        let answer = unready(product.host.admin).await;
        assert_eq!(answer["reasons"][0], "the host is stopping", "{answer}");
        assert_eq!(product.host.admin("/livez").await.status, 200);
        watched.answer(http::Response::new(()));
        watched.end();
    };
    let (answer, ()) = tokio::join!(asked, directed);
    assert_eq!(answer.status, 200);
}

async fn ready(folder: &Path, arguments: &[&str]) -> Outcome {
    Process::run(&[&["tunnel", "ready"], arguments].concat(), folder, "").await
}

#[tokio::test]
async fn the_command_line_asks_a_host_whether_it_is_ready() {
    let origin = Origin::start();
    let product = Product::simple(&origin.service()).await;
    let (folder, admin) = (product.site.folder(), product.host.admin.to_string());

    let good = ready(folder, &["--admin", &admin]).await;
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(good.output.starts_with("ready: 1 of 1 connections serve"), "{good:?}");
    assert!(good.output.contains("west-0") && good.output.contains(&origin.service()), "{good:?}");
    let text = format!("[admin]\nlisten = \"0.0.0.0:{}\"\n", product.host.admin.port());
    product.site.write("admin.toml", text);
    let json = ready(folder, &["--config", "admin.toml", "--json"]).await;
    assert_eq!(json.code, Some(0), "{json:?}");
    let page: Value = serde_json::from_str(&json.output).unwrap();
    assert_eq!(page["readyConnections"], 1, "{page}");

    product.edge.process.kill();
    unready(product.host.admin).await;
    let bad = ready(folder, &["--admin", &admin]).await;
    assert_eq!(bad.code, Some(1), "{bad:?}");
    assert!(bad.output.starts_with("not ready: 0 of 1") && bad.log.contains("1 are needed"), "{bad:?}");

    let edge = product.site.edge(&product.edge.pinned()).await;
    let waited = ready(folder, &["--admin", &admin, "--wait", "60s"]).await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    drop(edge);

    // An edge is nobody to ask about a host, and a dead port is nobody at all.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for nobody in [gone, origin.address().to_string()] {
        let outcome = ready(folder, &["--admin", &nobody]).await;
        assert_eq!((outcome.code, outcome.output.as_str()), (Some(2), ""), "{outcome:?}");
        assert!(outcome.log.contains(&format!("asking http://{nobody}/readyz")), "{outcome:?}");
    }
}

/// What systemd hears.
struct Systemd(UnixDatagram);

impl Systemd {
    /// The first message that contains a line beginning like this.
    fn heard(&self, begin: &str) -> Vec<String> {
        let mut buffer = [0; 4096];
        loop {
            let length = self.0.recv(&mut buffer).unwrap_or_else(|error| panic!("no {begin}: {error}"));
            let message = std::str::from_utf8(&buffer[..length]).unwrap();
            let lines: Vec<String> = message.lines().map(str::to_owned).collect();
            if lines.iter().any(|line| line.starts_with(begin)) {
                return lines;
            }
        }
    }
}

impl Systemd {
    /// How often it heard a line that begins like this until the watchdog was fed so often.
    fn count(&self, begin: &str, beats: usize) -> usize {
        let (mut buffer, mut fed, mut count) = ([0; 4096], 0, 0);
        while fed < beats {
            let length = self.0.recv(&mut buffer).unwrap();
            for line in std::str::from_utf8(&buffer[..length]).unwrap().lines() {
                fed += usize::from(line == "WATCHDOG=1");
                count += usize::from(line.starts_with(begin));
            }
        }
        count
    }
}

/// Starts a host that is told to talk to `socket`, as `address` names it.
async fn under_systemd(
    socket: UnixDatagram,
    address: &str,
    site: Site,
    document: HostDocument,
) -> (Systemd, Product) {
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    site.write("host.toml", document.to_toml(&edge.servers));
    let mut command = Command::new(adit());
    let arguments = ["--log-format", "json", "--stop-with-stdin", "tunnel", "run", "--config", "host.toml"];
    command.args(arguments).current_dir(site.folder());
    command.env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    let process = Process::start("host", command);
    let listens = process.event("listening", |event| event["kind"] == "admin").await;
    let admin = listens["address"].as_str().unwrap().parse().unwrap();
    (Systemd(socket), Product { host: e2e::product::Host { process, admin }, edge, site })
}

#[tokio::test]
async fn systemd_hears_when_the_host_is_ready_reloads_lives_and_stops() {
    let site = Site::new();
    let path = site.path("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    let document = HostDocument::new().otherwise("hello_world");
    let (systemd, product) = under_systemd(socket, path.to_str().unwrap(), site, document).await;
    let ready = systemd.heard("READY=1");
    assert!(ready.contains(&"STATUS=1 of 1 connections to the edge serve".to_owned()), "{ready:?}");
    assert_eq!(systemd.heard("WATCHDOG"), ["WATCHDOG=1"]);
    assert_eq!(systemd.heard("WATCHDOG"), ["WATCHDOG=1"]);

    for is_good in [true, false] {
        if !is_good {
            product.site.write("host.toml", "nonsense");
        }
        product.host.process.hang_up();
        let reloading = systemd.heard("RELOADING=1");
        let micros = reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0, "{reloading:?}");
        // A reload that changed nothing is over too, or systemd would wait for it for ever.
        assert_eq!(systemd.heard("READY"), ["READY=1"]);
    }

    product.edge.process.kill();
    assert_eq!(systemd.heard("STATUS=0"), ["STATUS=0 of 1 connections to the edge serve"]);
    product.host.process.terminate();
    assert!(systemd.heard("STOPPING").contains(&"STOPPING=1".to_owned()));
}

#[tokio::test]
async fn systemd_hears_of_each_change_once_in_whatever_order_files_are_named() {
    let site = Site::new();
    let path = site.path("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut document = HostDocument::new();
    for name in ["z", "a", "m"] {
        site.write(&format!("{name}.pem"), Certificate::new(&["localhost"]).ca_pem);
        document = document.rule(&format!(
            "hostname = \"{name}.app.localhost\"\nservice = \"https://localhost:9\"\n[ingress.origin]\nca-file = \"{name}.pem\""
        ));
    }
    let document = document.otherwise("hello_world");
    let (systemd, product) = under_systemd(socket, path.to_str().unwrap(), site, document.clone()).await;
    systemd.heard("READY=1");
    // Files are looked at every half second, and the watchdog is fed every tenth.
    assert_eq!(systemd.count("RELOADING", 30), 0, "nothing has changed");
    let edges = &product.edge.servers;
    for name in ["m.pem", "host.toml", "a.pem"] {
        match name {
            "host.toml" => {
                product.site.write(name, document.clone().keys("access-log = true").to_toml(edges))
            }
            _ => product.site.write(name, Certificate::new(&["localhost"]).ca_pem),
        };
        assert_eq!(systemd.heard("RELOADING").len(), 2, "{name}");
        assert_eq!(systemd.heard("READY"), ["READY=1"], "{name}");
        assert_eq!(systemd.count("RELOADING", 30), 0, "{name} has changed once");
    }
    let history = product.host.admin("/config/history").await.json();
    let applied = history.to_string().matches("\"applied\"").count();
    assert_eq!(applied, 4, "the start and three changes: {history}");
    // What the host writes itself is no change of the file, and what is served without being saved stays.
    let put = async |path: &str, status: u16| {
        let document = HostDocument::new().otherwise(&format!("http_status:{status}"));
        let request = to("PUT", path).header("host", "localhost").header("if-match", "*");
        let request = with_text(request, &document.to_toml(edges));
        assert_eq!(Visitor::new(product.host.admin, Speaks::Http1, None).send(request).await.status, 200);
    };
    put("/config", 418).await;
    put("/config?save=false", 451).await;
    assert_eq!(systemd.count("RELOADING", 30), 2);
    assert_eq!(product.get("/").await.status, 451);
}

#[tokio::test]
async fn systemd_hears_when_an_edge_serves_lives_and_stops() {
    let site = Site::new();
    let path = site.path("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    site.write("edge.toml", EdgeDocument::new(&["west"], 1).to_toml());
    let mut command = Command::new(adit());
    command.args(["--stop-with-stdin", "edge", "run", "--config", "edge.toml"]).current_dir(site.folder());
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    let edge = Process::start("edge", command);
    let systemd = Systemd(socket);
    assert_eq!(systemd.heard("READY"), ["READY=1", "STATUS=serving"]);
    assert_eq!(systemd.heard("WATCHDOG"), ["WATCHDOG=1"]);
    assert_eq!(systemd.heard("WATCHDOG"), ["WATCHDOG=1"]);
    // Nothing is read again, which is said and what the unit promises.
    edge.hang_up();
    edge.said("why nothing is read", |line| line.contains("SIGHUP changes nothing")).await;
    assert_eq!(systemd.count("RELOADING", 5), 0);
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd/adit-edge.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    assert!(unit.contains("\nType=notify\n") && !unit.contains("ExecReload"), "{unit}");
    edge.terminate();
    assert!(systemd.heard("STOPPING").contains(&"STOPPING=1".to_owned()));
}

#[tokio::test]
async fn systemd_is_told_through_an_abstract_socket_too() {
    let name = format!("adit-e2e-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&unix::net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let document = HostDocument::new().otherwise("hello_world");
    let (systemd, _product) = under_systemd(socket, &format!("@{name}"), Site::new(), document).await;
    assert!(systemd.heard("READY").contains(&"READY=1".to_owned()));
}

#[tokio::test]
async fn once_the_edge_probes_an_origin_that_is_gone_makes_the_host_not_ready() {
    let (mut edge, site) = (StandIn::start(), Site::new());
    site.write("stand-in.pem", &edge.ca_pem);
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = origin.local_addr().unwrap();
    let document = HostDocument { edge_ca: "stand-in.pem".into(), ..HostDocument::new() };
    let host = site.spawn_host(&[edge.address], &document.otherwise(&format!("http://{address}")));
    let listens = host.event("listening", |event| event["kind"] == "admin").await;
    let admin: SocketAddr = listens["address"].as_str().unwrap().parse().unwrap();
    let registered = edge.registered().await;
    let probe = Request::get(extensions::NOTICE_URI)
        .header("host", "adit.internal")
        .header(extensions::NOTICE, extensions::PROBE);
    let probe = Connect::Http(probe.body(()).unwrap()).encode().unwrap();

    let page = until(admin, "/readyz", |answer| answer.status == 200).await.json();
    assert_eq!((&page["edgeProbes"], &page["origins"][0]["ok"]), (&false.into(), &true.into()), "{page}");
    drop(origin);
    // Without a probe of the edge this is said, and does not count.
    let is_seen = |answer: &Answer| answer.json()["origins"][0]["ok"] == false;
    assert_eq!(until(admin, "/readyz", is_seen).await.status, 200);

    let told = registered.ask(&probe, b"").await.unwrap();
    assert_eq!(told.values("HttpStatus"), ["503"]);
    let page = unready(admin).await;
    assert_eq!(page["edgeProbes"], true, "{page}");
    assert!(page["connections"][0]["probedSecondsAgo"].is_u64(), "{page}");
    let reason = page["reasons"][0].as_str().unwrap();
    assert!(reason.contains(&address.to_string()) && reason.contains("refused"), "{page}");

    let _origin = TcpListener::bind(address).unwrap();
    until(admin, "/readyz", |answer| answer.status == 200).await;
    let told = registered.ask(&probe, b"").await.unwrap();
    assert_eq!(told.values("HttpStatus"), ["200"]);
}
