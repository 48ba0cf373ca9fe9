//! Disks that are read-only or full: what is acknowledged is kept, what cannot be kept is said.

use std::net::SocketAddr;

use e2e::disk::Disk;
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::process::{Process, adit};
use e2e::product::{Host, Site};
use e2e::visitor::{Answer, Speaks, Visitor, bare, get, to, with_text};

/// An edge whose state is on this disk, and its addresses for visitors and for the control API.
async fn edge(site: &Site, disk: &Disk) -> (Process, SocketAddr, SocketAddr) {
    let run = ["edge", "run", "--config", "edge.toml"];
    let process = Process::adit_by(disk.command(adit()), "edge", &run, site.folder());
    let listens = async |kind: &str| {
        let event = process.event("listening", |event| event["kind"] == kind).await;
        event["address"].as_str().unwrap().parse().unwrap()
    };
    let (http, api) = (listens("visitors-http").await, listens("api").await);
    (process, http, api)
}

async fn make(api: SocketAddr) -> Answer {
    Visitor::new(api, Speaks::Http1, None).send(bare(to("POST", "/tunnel").header("host", "api"))).await
}

/// What visitors of a tunnel are told: 530 where there is one without a host.
async fn visit(http: SocketAddr, hostname: &str) -> u16 {
    let request = to("GET", "/").header("host", hostname);
    Visitor::new(http, Speaks::Http1, None).send(bare(request)).await.status
}

#[tokio::test]
async fn an_edge_on_a_read_only_or_full_disk_refuses_changes_serves_on_and_loses_nothing() {
    let site = Site::new();
    let Some(disk) = Disk::at(&site.path("edge-data"), 2048).await else { return };
    let mut document = EdgeDocument::new(&["west"], 1).without_hold();
    document.more = "[api]\nlisten = \"127.0.0.1:0\"\nquick-domain = \"try.test\"\n".to_owned();
    site.write("edge.toml", document.to_toml());
    let (process, http, api) = edge(&site, &disk).await;
    let mut made = Vec::new();
    let mut keep = async |answer: Answer| {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let hostname = answer.json()["result"]["hostname"].as_str().unwrap().to_owned();
        assert_eq!(visit(http, &hostname).await, 530);
        made.push(hostname);
        made.clone()
    };
    keep(make(api).await).await;
    type Change = fn(&Disk);
    let changes: [(Change, Change); 2] =
        [(|disk| disk.set_writable(false), |disk| disk.set_writable(true)), (Disk::fill, Disk::empty)];
    for (spoil, mend) in changes {
        spoil(&disk);
        let refused = make(api).await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        let known = keep(make_again(&disk, mend, api).await).await;
        for hostname in known {
            assert_eq!(visit(http, &hostname).await, 530, "it serves on");
        }
    }
    let known = keep(make(api).await).await;
    process.kill();
    process.exit().await;
    let (_process, http, _) = edge(&site, &disk).await;
    for hostname in known {
        assert_eq!(visit(http, &hostname).await, 530, "what was acknowledged is there");
    }
}

async fn make_again(disk: &Disk, mend: fn(&Disk), api: SocketAddr) -> Answer {
    mend(disk);
    make(api).await
}

#[tokio::test]
async fn a_host_on_a_read_only_or_full_disk_serves_what_it_is_given_and_says_that_it_is_not_kept() {
    let site = Site::new();
    let Some(disk) = Disk::at(&site.path("state"), 2048).await else { return };
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    let document = |status: u16| {
        let host = HostDocument::new().keys("state-dir = \"state\"");
        host.otherwise(&format!("http_status:{status}")).to_toml(&edge.servers)
    };
    let folder = site.folder().to_owned();
    let run = ["tunnel", "run", "--config", "host.toml"];
    let start = async || {
        let process = Process::adit_by(disk.command(adit()), "host", &run, &folder);
        Host::connected(process, 1).await
    };
    site.write("host.toml", document(200));
    let host = start().await;
    let put = async |status: u16| {
        let request = to("PUT", "/config?save=false").header("host", "localhost").header("if-match", "*");
        let answer =
            Visitor::new(host.admin, Speaks::Http1, None).send(with_text(request, &document(status))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.status, status);
        answer.text().to_owned()
    };
    let kept = put(201).await;
    assert!(!kept.contains("not kept"), "{kept}");
    disk.set_writable(false);
    let not_kept = put(202).await;
    assert!(not_kept.contains("not kept") && not_kept.contains("ead-only"), "{not_kept}");
    disk.set_writable(true);
    disk.fill();
    let not_kept = put(203).await;
    assert!(not_kept.contains("not kept") && not_kept.contains("space"), "{not_kept}");
    host.process.kill();
    host.process.exit().await;
    // Where the file is no good, the last one that was kept is served, whole.
    site.write("host.toml", "[");
    let host = start().await;
    assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.status, 201, "{HOST}");
    disk.empty();
    drop(host);
}
