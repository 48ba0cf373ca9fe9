//! Rows 4, 5 and 11: etcd is away, its leader is killed again and again, or what it has cannot be read.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::load::Load;
use e2e::nodes::Nodes;
use e2e::origin::Origin;
use e2e::visitor::{Speaks, Visitor, to, with_text};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{SOON, UNKNOWN_FATE, alone, figure, figure_of, hosts, lasts, seed};

const REGIONS: [&str; 3] = ["west", "east", "west"];

/// Up to where a node serves by the records.
async fn revision(nodes: &Nodes, number: usize) -> u64 {
    let page = nodes.fleet.edges[number].edge().admin("/nodes").await.json();
    page["revision"].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn without_etcd_everything_is_served_also_by_nodes_that_start_and_changes_are_refused() {
    let _turn = alone().await;
    let Some(mut nodes) = Nodes::start(&REGIONS, 1, seed()).await else { return };
    let origin = Origin::start();
    hosts(&mut nodes, &[1, 2], 1, &origin, "quic").await;
    hosts(&mut nodes, &[0, 1], 1, &origin, "http2").await;
    let mut load = Load::steady(&nodes.fleet.visitors()).await;
    nodes.etcd.freeze();
    let away = Instant::now();
    load.passes(100).await;
    // Each starts anew while it is away.
    let mut restarts = 0;
    for number in 0..lasts(1, REGIONS.len()) {
        nodes.fleet.edges[number].kill().await;
        nodes.start_again(number).await;
        nodes.acquainted().await;
        restarts += 1;
        load.passes(100).await;
    }
    let refused = nodes.call(1, "POST", "cfd_tunnel", &json!({ "name": "late" }).to_string()).await.unwrap();
    while away.elapsed() < Duration::from_secs(lasts(0, 600)) {
        load.passes(200).await;
    }
    let lasted = away.elapsed();
    nodes.etcd.go_on();
    let back = Instant::now();
    let mut made = None;
    while made.is_none() {
        assert!(back.elapsed() < e2e::DEADLINE, "no change is taken");
        let body = json!({ "name": format!("after-{}", back.elapsed().as_millis()) }).to_string();
        made = nodes.call(0, "POST", "cfd_tunnel", &body).await.filter(|answer| answer.status == 200);
    }
    let wanted = made.unwrap().json()["result"]["id"].as_str().unwrap().to_owned();
    for number in 0..REGIONS.len() {
        nodes.fleet.edges[number]
            .until("that it has caught up", async || {
                let path = format!("cfd_tunnel/{wanted}");
                nodes.call(number, "GET", &path, "").await.is_some_and(|answer| answer.status == 200)
            })
            .await;
    }
    let caught_up = back.elapsed();
    let report = load.finish("etcd away").await;
    figure_of(&report);
    figure(&format!(
        "etcd away {lasted:.0?}, {restarts} nodes killed and started meanwhile; a change: {}; all caught up after {caught_up:.1?}",
        refused.status
    ));
    report.assert_idempotent_spotless(restarts * UNKNOWN_FATE, restarts);
    assert_eq!(origin.repeated(), [""; 0], "{report}");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(caught_up < SOON * lasts(4, 1), "{caught_up:?}");
}

#[tokio::test]
#[ignore = "a row of chaos: cargo xtask chaos"]
async fn what_was_acknowledged_while_leaders_die_is_served_by_all() {
    let _turn = alone().await;
    let Some(mut nodes) = Nodes::start(&REGIONS, 3, seed()).await else { return };
    let every = Duration::from_millis(lasts(50, 20));
    let ends = Instant::now() + Duration::from_secs(lasts(16, 120));
    let (mut acknowledged, mut refused, mut kills, mut lags) = (Vec::new(), 0, 0, Vec::new());
    let mut next_kill = Instant::now() + Duration::from_secs(3);
    let mut number = 0;
    while Instant::now() < ends {
        if Instant::now() > next_kill {
            let leader = nodes.etcd.leader().await;
            nodes.etcd.kill(leader);
            kills += 1;
            next_kill = Instant::now() + Duration::from_secs(5);
            // The one before it comes back before the next one goes.
            nodes.etcd.start_again(leader).await;
        }
        let (began, at) = (Instant::now(), number % REGIONS.len());
        let body = json!({ "name": format!("made-{number}") }).to_string();
        match nodes.call(at, "POST", "cfd_tunnel", &body).await.filter(|answer| answer.status == 200) {
            Some(answer) => {
                let id = answer.json()["result"]["id"].as_str().unwrap().to_owned();
                // Until another node serves by it.
                let other = (at + 1) % REGIONS.len();
                let path = format!("cfd_tunnel/{id}");
                let acknowledged_at = Instant::now();
                while nodes.call(other, "GET", &path, "").await.is_none_or(|answer| answer.status != 200) {
                    assert!(
                        acknowledged_at.elapsed() < e2e::DEADLINE,
                        "made-{number} is not known to {other}"
                    );
                    sleep(Duration::from_millis(5)).await;
                }
                lags.push(acknowledged_at.elapsed());
                acknowledged.push(id);
            }
            None => refused += 1,
        }
        number += 1;
        sleep(every.saturating_sub(began.elapsed())).await;
    }
    let leading = revision(&nodes, 0).await;
    for at in 0..REGIONS.len() {
        nodes.fleet.edges[at]
            .until("that it serves by the last change", async || revision(&nodes, at).await >= leading)
            .await;
        let mut known = Vec::new();
        for page in 1.. {
            let answer =
                nodes.call(at, "GET", &format!("cfd_tunnel?per_page=100&page={page}"), "").await.unwrap();
            let list = answer.json()["result"].as_array().cloned().unwrap_or_default();
            if list.is_empty() {
                break;
            }
            known.extend(list.into_iter().map(|one: Value| one["id"].as_str().unwrap().to_owned()));
        }
        let missing: Vec<_> = acknowledged.iter().filter(|id| !known.contains(id)).collect();
        assert!(missing.is_empty(), "{missing:?} of {} at node {at}", acknowledged.len());
    }
    lags.sort_unstable();
    let p99 = lags[lags.len() * 99 / 100];
    figure(&format!(
        "{kills} leaders killed; {} changes acknowledged and at all nodes, {refused} refused; known elsewhere after: median {:.0?}, p99 {p99:.0?}",
        acknowledged.len(),
        lags[lags.len() / 2]
    ));
    assert!(p99 < Duration::from_secs(3), "{p99:?}");
}

/// All records of a fleet, by their keys.
async fn records(etcd: SocketAddr) -> Vec<(String, String)> {
    let (from, to) = (STANDARD.encode("/adit/main/"), STANDARD.encode("/adit/main0"));
    let page = asked(etcd, "/v3/kv/range", &json!({ "key": from, "range_end": to })).await;
    let text = |value: &Value| {
        let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    page["kvs"].as_array().unwrap().iter().map(|one| (text(&one["key"]), text(&one["value"]))).collect()
}

async fn asked(etcd: SocketAddr, path: &str, body: &Value) -> Value {
    let request = with_text(to("POST", path).header("host", "etcd"), &body.to_string());
    Visitor::new(etcd, Speaks::Http1, None).send(request).await.json()
}

#[tokio::test]
#[ignore = "a row of chaos: cargo xtask chaos"]
async fn records_that_nobody_can_read_stop_nobody_and_all_say_so() {
    let _turn = alone().await;
    let Some(mut nodes) = Nodes::start(&REGIONS, 1, seed()).await else { return };
    let origin = Origin::start();
    hosts(&mut nodes, &[1, 2], 1, &origin, "quic").await;
    let made = nodes.call(0, "POST", "cfd_tunnel", &json!({ "name": "kept" }).to_string()).await.unwrap();
    let id = made.json()["result"]["id"].as_str().unwrap().to_owned();
    let mut load = Load::steady(&nodes.fleet.visitors()).await;
    let etcd = nodes.etcd.clients()[0];
    let kinds = ["/account/", "/tunnel/", "/token/", "/zone/", "/node/", "/alive/"];
    let mut spoilt = 0;
    for (number, (key, _)) in records(etcd).await.into_iter().enumerate() {
        if kinds.iter().any(|kind| key.contains(kind)) {
            let poison = ["", "{", "[1]", "{\"newer\": true}", "\u{0}\u{1}", "null"][number % 6];
            let put = json!({ "key": STANDARD.encode(&key), "value": STANDARD.encode(poison) });
            asked(etcd, "/v3/kv/put", &put).await;
            spoilt += 1;
        }
    }
    assert!(spoilt > 8, "{spoilt}");
    // All say so, and go on with what they knew.
    for number in 0..REGIONS.len() {
        let edge = &nodes.fleet.edges[number];
        edge.edge().process.event("a record of the state cannot be read", |_| true).await;
        let known = nodes.call(number, "GET", &format!("cfd_tunnel/{id}"), "").await.unwrap();
        assert_eq!(known.status, 200, "{}", known.text());
    }
    load.passes(100).await;
    nodes.acquainted().await;
    let report = load.finish("records that nobody can read").await;
    figure_of(&report);
    figure(&format!(
        "{spoilt} records spoilt; every node serves, knows what it knew, and says which it cannot read"
    ));
    report.assert_spotless();
    for edge in &nodes.fleet.edges {
        assert!(edge.edge().process.is_running());
    }
}
