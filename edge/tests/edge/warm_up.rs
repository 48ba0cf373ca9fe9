//! docs/configuration.md, "How the edge starts": an edge that was started again is not ready before the hosts
//! are back that it had.

use std::fs;
use std::sync::Arc;

use tempfile::TempDir;
use uuid::Uuid;

use crate::connector::Connector;
use crate::harness::{LocalSet, start, start_again};

/// The folder of an edge that had so many hosts when it went.
async fn after(hosts: usize) -> Arc<TempDir> {
    let edge = start();
    let folder = edge.folder.clone();
    let file = folder.path().join("edge-data/hosts.json");
    let mut connected = Vec::new();
    for _ in 0..hosts {
        connected.push(Connector::registered(&edge, 0, Uuid::new_v4(), 0).await);
    }
    let kept = format!("{{\"{}\":{hosts}}}", edge.credentials.tunnel_id);
    while fs::read_to_string(&file).ok().as_ref() != Some(&kept) {
        tokio::task::yield_now().await;
    }
    // Its hosts leave with it, which changes nothing.
    edge.stop.cancel();
    let mut edge = edge;
    (&mut edge.running).await.unwrap().unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), kept);
    folder
}

#[tokio::test]
async fn an_edge_that_was_started_again_is_ready_when_its_hosts_are_back() {
    LocalSet::new()
        .run_until(async {
            let edge = start_again(after(2).await, "warm-up = \"1m\"");
            let mut back = Vec::new();
            for (missing, host) in [(2, Uuid::new_v4()), (1, Uuid::new_v4())] {
                let (status, ready) = edge.admin("/ready").await;
                assert_eq!((status.as_u16(), &ready["waits_for"]), (503, &missing.into()), "{ready}");
                // Others than those that were there: hosts may have been restarted too.
                back.push(Connector::registered(&edge, 0, host, 0).await);
                // A second connection is no second host.
                back.push(Connector::registered(&edge, 1, host, 1).await);
            }
            assert_eq!(edge.admin("/ready").await.0.as_u16(), 200);
            for connection in back {
                connection.unregister().await.unwrap();
            }
            while edge.admin("/ready").await.1["connections"] != 0 {}
            assert_eq!(edge.admin("/ready").await.0.as_u16(), 200, "once ready it stays so");
        })
        .await;
}

#[tokio::test]
async fn an_edge_waits_for_its_hosts_only_so_long() {
    LocalSet::new()
        .run_until(async {
            let folder = after(1).await;
            let edge = start_again(folder.clone(), "warm-up = \"300ms\"");
            while edge.admin("/ready").await.0.as_u16() != 200 {}
            drop(edge);
            let edge = start_again(folder, "warm-up = \"0s\"");
            assert_eq!(edge.admin("/ready").await.0.as_u16(), 200);
        })
        .await;
}

#[tokio::test]
async fn an_edge_that_never_had_a_host_is_ready_at_once() {
    let edge = start();
    assert_eq!(edge.admin("/ready").await.0.as_u16(), 200);
}
