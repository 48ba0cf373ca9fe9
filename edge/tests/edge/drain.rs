//! How an edge stops: requests first, connections next, itself last.

use http::Response;
use http_body_util::BodyExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::connector::Connector;
use crate::harness::{LocalSet, get, start};

#[tokio::test]
async fn a_stopping_edge_finishes_its_requests_and_closes_connections_with_code_0() {
    LocalSet::new()
        .run_until(async {
            let mut edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let (response, mut opened) = tokio::join!(edge.send(get("/")), async {
                let mut opened = connector.accept().await;
                opened.head(Response::builder()).await;
                opened
            });
            edge.stop.cancel();
            // Draining shows before it ends: not ready, and nobody new is let in.
            while edge.admin("/ready").await.0.as_u16() != 503 {}
            while TcpStream::connect(edge.http).await.is_ok() {}
            assert!(connector.connection.close_reason().is_none());
            opened.send.write_all(b"whole").await.unwrap();
            opened.send.finish().unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "whole");
            assert_eq!(connector.closed().await, Some(0));
            (&mut edge.running).await.unwrap().unwrap();
        })
        .await;
}

#[tokio::test]
async fn an_edge_without_work_stops_at_once() {
    let mut edge = start();
    edge.stop.cancel();
    (&mut edge.running).await.unwrap().unwrap();
}
