//! Origins that break off within their answers.

use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::RawOrigin;
use e2e::product::Product;
use e2e::visitor::{Speaks, get};
use http_body_util::BodyExt;

/// The head and the beginning of a body that never ends, and the end of the connection right behind them.
const TORN: &[&[u8]] = &[
    b"HTTP/1.1 203 Non-Authoritative Information\r\nX-Mark: torn\r\nContent-Length: 100\r\n\r\n",
    b"HTTP/1.1 203 Non-Authoritative Information\r\nX-Mark: torn\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
];

#[tokio::test]
async fn the_head_arrives_though_the_origin_breaks_off_right_behind_it_and_is_asked_once() {
    for torn in TORN {
        let origin = RawOrigin::start(torn);
        let host = HostDocument::new().over(super::PROTOCOL).otherwise(&origin.service());
        let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
        let mut asked = 0;
        for _ in 0..10 {
            asked += 1;
            let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
            let answer = product.edge.visitor(Speaks::Http1).raw(request.as_bytes()).await;
            let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
            assert!(text.starts_with("http/1.1 203 ") && text.contains("x-mark: torn"), "{text:?}");
            assert!(!text.ends_with("0\r\n\r\n"), "it must not look complete: {text:?}");
            let visitor = product.edge.visitor(Speaks::Http2).connect().await;
            let response = visitor.try_send(get("/")).await.expect("the head arrives");
            asked += 1;
            assert_eq!(response.status(), 203);
            assert!(response.into_body().collect().await.is_err());
            assert_eq!(origin.asked(), asked, "a request is not sent again");
        }
    }
}
