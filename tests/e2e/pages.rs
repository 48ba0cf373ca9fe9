//! What a visitor sees when there is no answer of the origin's own.

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::{RawOrigin, nobody};
use e2e::product::{Product, Site};
use e2e::visitor::{Answer, Speaks, bare, get, to};
use http::Request;

fn wants_json(path: &str) -> Request<e2e::visitor::Body> {
    bare(to("GET", path).header("accept", "application/json"))
}

#[tokio::test]
async fn without_a_connection_the_edge_says_530_and_error_1033() {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], 1).with_https().without_hold()).await;
    for speaks in Speaks::ALL {
        let visitor = edge.visitor(speaks);
        let page = visitor.send(get("/any")).await;
        assert_eq!(page.status, 530);
        assert!(page.header("content-type").starts_with("text/html"), "{:?}", page.headers);
        assert!(page.text().contains("1033"), "{}", page.text());
        assert!(page.text().contains(page.header("cf-ray")) && !page.header("cf-ray").is_empty());

        let page = visitor.send(wants_json("/any")).await;
        assert_eq!(page.status, 530);
        assert_eq!(page.header("content-type"), "application/json");
        assert_eq!(page.json()["code"], 1033);
        assert_eq!(page.json()["ray"], page.header("cf-ray"));

        let head = visitor.send(bare(to("HEAD", "/any"))).await;
        assert_eq!((head.status, head.body.len()), (530, 0));
    }
}

#[tokio::test]
async fn an_origin_that_refuses_is_a_bad_gateway() {
    let product = Product::simple(&format!("http://{}", nobody())).await;
    bad_gateway(&product.get("/").await);
    let json = product.visitor(Speaks::Http1).send(wants_json("/")).await;
    assert_eq!((json.status, &json.json()["status"]), (502, &502.into()));
    // The operator learns why, the visitor does not.
    product
        .host
        .process
        .event("origin gave no answer", |event| event["reason"].as_str().unwrap().contains("refused"))
        .await;
    assert!(!json.text().contains("refused"), "{}", json.text());
}

#[tokio::test]
async fn an_origin_that_answers_garbage_is_a_bad_gateway() {
    let endless =
        Box::leak(format!("HTTP/1.1 200 OK\r\nX-Endless: {}", "x".repeat(2_000_000)).into_boxed_str());
    let answers: [&'static [u8]; 8] = [
        b"",
        b"garbage\r\n\r\n",
        b"\x00\xff\x00\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 99999 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: minus\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        endless.as_bytes(),
    ];
    let origins = answers.map(RawOrigin::start);
    let mut host = HostDocument::new();
    for (number, origin) in origins.iter().enumerate() {
        host = host.rule(&format!("path = \"^/{number}$\"\nservice = \"{}\"", origin.service()));
    }
    let product = Product::start(EdgeDocument::new(&["west"], 1), host.otherwise("hello_world")).await;
    for number in 0..origins.len() {
        let answer = product.get(&format!("/{number}")).await;
        assert_eq!(
            answer.status,
            502,
            "{:?}: {}",
            String::from_utf8_lossy(&answers[number][..answers[number].len().min(60)]),
            answer.text()
        );
        bad_gateway(&answer);
    }
    assert_eq!(product.get("/fine").await.status, 200);
}

#[tokio::test]
async fn an_origin_that_is_too_slow_is_a_gateway_timeout() {
    // Takes the connection from the kernel's queue never: nobody accepts.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = HostDocument::new().rule(&format!(
        "service = \"http://{}\"\n[ingress.origin]\nresponse-timeout = \"200ms\"",
        silent.local_addr().unwrap()
    ));
    let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
    assert_eq!(product.get("/").await.status, 504);
}

fn bad_gateway(answer: &Answer) {
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(answer.header("content-type").starts_with("text/html"), "{:?}", answer.headers);
    assert!(answer.text().contains(answer.header("cf-ray")) && !answer.header("cf-ray").is_empty());
}
