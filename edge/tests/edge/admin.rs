//! Who may ask the edge's admin addresses, and what: the same rule as on the host.

use http::{Method, Request};
use serde_json::Value;

use crate::harness::{Page, empty, full, http1, read, start, start_for_administrators};

async fn ask(address: std::net::SocketAddr, method: Method, path: &str, headers: &[(&str, &str)]) -> Page {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    read(http1(address, request.body(empty()).unwrap()).await).await
}

/// Everything that is neither a probe nor a number.
const SECRETS: [(Method, &str); 6] = [
    (Method::GET, "/status"),
    (Method::GET, "/tunnels"),
    (Method::GET, "/tunnels/demo/config"),
    (Method::PUT, "/tunnels/demo/config"),
    (Method::POST, "/explain"),
    (Method::GET, "/nothing"),
];

#[tokio::test]
async fn no_web_page_reads_anything_whatever_name_it_uses() {
    let edge = start();
    let own = ("host", "localhost:20240");
    for (method, path) in SECRETS.into_iter().chain([(Method::GET, "/metrics")]) {
        for headers in [
            &[("host", "evil.example")][..],
            &[("host", "evil.localhost")],
            &[own, ("origin", "null")],
            &[own, ("sec-fetch-site", "same-origin")],
            &[own, ("sec-fetch-site", "cross-site")],
        ] {
            let page = ask(edge.admin, method.clone(), path, headers).await;
            assert_eq!(page.status.as_u16(), 403, "{method} {path} {headers:?}");
            let error: Value = serde_json::from_str(&page.text).unwrap();
            assert!(error["error"].is_string(), "{}", page.text);
        }
    }
    assert_eq!(ask(edge.admin, Method::GET, "/status", &[own]).await.status.as_u16(), 200);
    // Whoever balances load may know the edge by any name.
    for path in ["/ready", "/healthcheck"] {
        assert_eq!(ask(edge.admin, Method::GET, path, &[("host", "lb.example")]).await.status.as_u16(), 200);
    }
}

#[tokio::test]
async fn beyond_loopback_only_probes_and_metrics_are_answered_without_a_token() {
    let token = "Bearer 0123456789abcdef0123456789abcdef";
    let closed = start_for_administrators("listen = \"0.0.0.0:0\"\nprobes = \"0.0.0.0:0\"");
    let open = start_for_administrators("listen = \"0.0.0.0:0\"\ntoken-file = \"admin-token\"");
    let local = ([127, 0, 0, 1], closed.admin.port()).into();
    let probes = ([127, 0, 0, 1], closed.probes.unwrap().port()).into();
    let guarded = ([127, 0, 0, 1], open.admin.port()).into();
    let host = ("host", "127.0.0.1");
    for address in [local, probes, guarded] {
        for path in ["/ready", "/healthcheck", "/metrics"] {
            assert_eq!(ask(address, Method::GET, path, &[host]).await.status.as_u16(), 200, "{path}");
        }
    }
    for (method, path) in SECRETS {
        let proof = [host, ("authorization", token)];
        let status =
            async |address, headers: &[_]| ask(address, method.clone(), path, headers).await.status.as_u16();
        assert_eq!(status(local, &proof).await, 403, "{method} {path}");
        assert_eq!(status(probes, &proof).await, 404, "{method} {path}");
        assert_eq!(status(guarded, &[host]).await, 401, "{method} {path}");
        assert_eq!(status(guarded, &[host, ("authorization", "Bearer wrong")]).await, 401, "{method} {path}");
        let right = status(guarded, &proof).await;
        assert!(right != 401 && right != 403, "{method} {path}: {right}");
    }
}

#[tokio::test]
async fn every_refusal_is_json_as_the_page_says() {
    let edge = start();
    let large = vec![b' '; (1 << 20) + 1];
    for (method, path, body, wanted) in [
        (Method::PUT, "/tunnels/demo/config", large, 413),
        (Method::PUT, "/tunnels/demo/config", b"[]".to_vec(), 400),
        (Method::DELETE, "/tunnels/demo/config", Vec::new(), 405),
        (Method::PUT, "/tunnels/none/config", b"{}".to_vec(), 404),
        (Method::GET, "/nothing", Vec::new(), 404),
        (Method::DELETE, "/status", Vec::new(), 405),
        (Method::POST, "/metrics", Vec::new(), 405),
    ] {
        let request = Request::builder().method(&method).uri(path).body(full(body)).unwrap();
        let (status, error) = edge.ask_admin(request).await;
        assert_eq!(status.as_u16(), wanted, "{method} {path}");
        assert!(error["error"].is_string(), "{method} {path}: {error}");
    }
}
