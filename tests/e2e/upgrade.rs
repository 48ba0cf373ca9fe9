//! A new binary takes over from the old one without a moment in which nobody serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use e2e::bulk::{Bulk, Digest};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::Process;
use e2e::product::Product;
use e2e::visitor::{Speaks, get, to, with_body};

#[tokio::test]
async fn a_new_process_registers_its_own_connections_and_the_old_one_drains() {
    let origin = Origin::start();
    let document =
        HostDocument::new().connections(2).keys("state-dir = \"state\"").otherwise(&origin.service());
    let product = Product::start(EdgeDocument::new(&["west"], 2), document).await;
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let mut visitors = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (visitor, stop, served) = (product.visitor(Speaks::Http1), stop.clone(), served.clone());
        visitors.spawn(async move {
            const SIZE: u64 = 512 * 1024;
            while !stop.load(Ordering::Relaxed) {
                match number {
                    0 => {
                        let answer = visitor.send(with_body(to("POST", "/sink"), Bulk::new(SIZE))).await;
                        assert_eq!(answer.json()["bytes"], SIZE);
                    }
                    1 => {
                        let answer = visitor.send(get(&format!("/chunks/{SIZE}"))).await;
                        let mut digest = Digest::new();
                        digest.add(&answer.body);
                        assert_eq!(digest, Digest::of_bulk(SIZE));
                    }
                    _ => assert_eq!(visitor.send(get("/echo")).await.status, 200),
                }
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let more = async || {
        let before = served.load(Ordering::Relaxed);
        while served.load(Ordering::Relaxed) < before + 20 {
            tokio::task::yield_now().await;
        }
    };
    let mut old: Vec<Process> = Vec::new();
    let mut serving = product.host.process;
    for _ in 0..2 {
        more().await;
        let next = Process::adit("host", &["tunnel", "run", "--config", "host.toml"], product.site.folder());
        for slot in 0..2 {
            next.event("registered", |event| event["slot"] == slot).await;
        }
        more().await;
        serving.terminate();
        assert!(serving.exit().await.success());
        more().await;
        old.push(std::mem::replace(&mut serving, next));
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = visitors.join_next().await {
        ended.expect("no visitor fails");
    }
    eprintln!("{} requests over {} take-overs, none failed", served.load(Ordering::Relaxed), old.len());
}
