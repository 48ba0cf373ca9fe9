//! A tunnel has up to a hundred connections.

use std::collections::BTreeMap;
use std::time::Instant;

use e2e::document::{EdgeDocument, HostDocument};
use e2e::process::Process;
use e2e::product::{Host, Site};
use e2e::visitor::{Speaks, get};

use crate::alone;

const MOST_REPLICAS: usize = 25;
/// Enough that a replica which takes its part is not missed by bad luck.
const REQUESTS: usize = 2_000;

#[tokio::test]
async fn twenty_five_replicas_serve_one_tunnel_and_the_next_is_refused_clearly() {
    let _turn = alone().await;
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west", "east"], 2)).await;
    // Each answers with a status of its own.
    let document = |number: usize| {
        let document = HostDocument { shards: Some(1), ..HostDocument::new() };
        document.connections(4).otherwise(&format!("http_status:{}", 410 + number))
    };
    let began = Instant::now();
    let spawn = |number| site.spawn_host_named(&format!("host-{number}"), &edge.servers, &document(number));
    let processes: Vec<Process> = (0..MOST_REPLICAS).map(spawn).collect();
    let mut hosts = Vec::new();
    for process in processes {
        hosts.push(Host::connected(process, 4).await);
    }
    eprintln!("100 connections after {:.3?}", began.elapsed());
    let ready = edge.admin("/ready").await.json();
    assert_eq!(ready["connections"], 100, "{ready}");

    let connection = edge.visitor(Speaks::Http1).connect().await;
    let mut served = BTreeMap::new();
    for _ in 0..REQUESTS {
        *served.entry(connection.ask(get("/")).await.status).or_insert(0) += 1;
    }
    let shares: Vec<usize> =
        (0..MOST_REPLICAS).map(|number| served.get(&(410 + number as u16)).copied().unwrap_or(0)).collect();
    eprintln!("{REQUESTS} requests over {MOST_REPLICAS} replicas: {shares:?}");
    assert_eq!(shares.iter().sum::<usize>(), REQUESTS, "{served:?}");
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    let memory: u64 = hosts.iter().map(|host| host.process.memory()).sum();
    eprintln!("{MOST_REPLICAS} hosts: {} MiB; the edge: {} MiB", memory >> 20, edge.process.memory() >> 20);

    // No room for one more, until one goes.
    let extra = spawn(MOST_REPLICAS);
    let refused = extra.event("registration failed", |_| true).await;
    let reason = refused["error"].as_str().unwrap();
    for said in ["the tunnel has 100 connections", "that is the most", "stop a replica"] {
        assert!(reason.contains(said), "{refused}");
    }
    assert!(extra.is_running());
    assert_eq!(edge.admin("/ready").await.json()["connections"], 100);
}
