//! A component answers a rule: standard `wasi:http`, built by somebody who never heard of Adit.

use bytes::Bytes;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::component;
use e2e::product::{Lent, Product, Stage};
use e2e::visitor::{Speaks, bare, to, with_body};
use http_body_util::{BodyExt, Full};
use tokio::sync::OnceCell;

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Lent {
    STAGE.get_or_init(build).await.lend()
}

async fn build() -> Stage {
    let origin = Origin::start();
    let rule = |path: &str, service: &str, plugins: &str| {
        format!("path = \"{path}\"\nservice = \"{service}\"\nplugins = [{plugins}]")
    };
    let host = HostDocument::new()
        .plugin("app", &component("test/service"), "timeout = \"2s\"")
        .plugin("marks", &component("headers"), "[plugin.config]\nresponse.set = { x-mark = \"yes\" }")
        .rule(&rule("^/headers", "wasm:app", "\"marks\""))
        .rule(&rule("^/echo/other", &origin.service(), ""))
        .otherwise("wasm:app");
    let edge = EdgeDocument::new(&["west"], 1);
    Stage::new(Product::start(edge, host).await, origin)
}

#[tokio::test]
async fn a_standard_component_answers_like_any_origin() {
    let stage = stage().await;
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let visitor = stage.product.visitor(speaks);
        let answer = visitor.send(bare(to("GET", "/"))).await;
        assert_eq!((answer.status, answer.text()), (200, "hello from wasi:http\n"), "{speaks:?}");
        assert_eq!(answer.header("x-service"), "wasi");
        assert_eq!(visitor.send(bare(to("GET", "/teapot"))).await.status, 418);
        let answer = visitor.send(bare(to("HEAD", "/"))).await;
        assert_eq!((answer.status, answer.text()), (200, ""), "{speaks:?}");
    }
}

#[tokio::test]
async fn plugins_stand_in_front_of_a_component_as_of_any_service() {
    let stage = stage().await;
    let request = bare(to("GET", "/headers").header("x-asked", "for"));
    let answer = stage.product.visitor(Speaks::Http1).send(request).await;
    assert_eq!((answer.status, answer.header("x-mark")), (200, "yes"));
    assert!(answer.text().contains("x-asked: for\n"), "{}", answer.text());
}

#[tokio::test]
async fn an_upload_comes_back_byte_for_byte() {
    let stage = stage().await;
    let sent: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let request = with_body(to("POST", "/echo"), Full::new(Bytes::from(sent.clone())));
        let answer = stage.product.visitor(speaks).send(request).await;
        assert_eq!(answer.status, 200, "{speaks:?}");
        assert!(answer.body == sent, "{speaks:?}: {} of {} bytes", answer.body.len(), sent.len());
    }
    let answer = stage.product.get("/big?20").await;
    assert_eq!((answer.status, answer.body.len()), (200, 20 << 20));
}

#[tokio::test]
async fn what_a_component_does_hits_one_request() {
    let stage = stage().await;
    for (path, status) in [("/trap", 500), ("/silent", 500), ("/loop", 504)] {
        let looping = stage.product.get(path);
        let others = async {
            for _ in 0..5 {
                assert_eq!(stage.product.get("/echo/other").await.status, 200);
                assert_eq!(stage.product.get("/").await.status, 200);
            }
        };
        let (answer, ()) = tokio::join!(looping, others);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert!(answer.text().contains(answer.header("cf-ray")), "{path}: {}", answer.text());
        assert!(!answer.text().contains("wasm"), "{path}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_answer_that_is_torn_off_does_not_look_complete() {
    let stage = stage().await;
    let connection = stage.product.visitor(Speaks::Http2).connect().await;
    let response = connection.send(bare(to("GET", "/torn"))).await;
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err(), "half an answer looked whole");
}
