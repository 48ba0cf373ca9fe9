//! `/livez` and `/readyz` tell the truth: about the process, about the connections, about the origins.

use e2e::document::{EdgeDocument, HostDocument};
use e2e::product::Product;
use e2e::visitor::Answer;
use e2e::within;

/// Asks again until the answer has this status.
async fn until(product: &Product, path: &str, status: u16) -> Answer {
    within("another readiness", async {
        loop {
            let answer = product.host.admin(path).await;
            if answer.status == status {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
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
    let lost = until(&product, "/readyz", 503).await.json();
    let reasons = lost["reasons"].as_array().unwrap();
    assert!(reasons[0].as_str().unwrap().contains("connections serve, 2 are needed"), "{lost}");
    // Nothing is wrong with the process: whoever restarts it would make it worse.
    assert_eq!(product.host.admin("/livez").await.status, 200);
}

#[tokio::test]
async fn a_host_that_was_told_to_stop_is_alive_but_not_ready() {
    let origin = e2e::origin::Origin::start();
    let product = Product::simple(&origin.service()).await;
    let mut watched = origin.watch("/slow");
    let asked = product.get("/slow");
    let directed = async {
        watched.arrived().await;
        product.host.process.terminate();
        let answer = until(&product, "/readyz", 503).await.json();
        assert_eq!(answer["reasons"][0], "the host is stopping", "{answer}");
        assert_eq!(product.host.admin("/livez").await.status, 200);
        watched.answer(http::Response::new(()));
        watched.end();
    };
    let (answer, ()) = tokio::join!(asked, directed);
    assert_eq!(answer.status, 200);
}
