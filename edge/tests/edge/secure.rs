//! Names whose visitors are to come over TLS, and how old that may be.

use std::sync::Arc;

use tokio::net::TcpStream;

use crate::harness::{HOST, LocalSet, empty, get, start_for_visitors, start_with};

const STRICT: &str = "
    [[name]]
    hostnames = [\"demo.localhost\"]
    redirect = true
    hsts-days = 365
";

#[tokio::test]
async fn a_name_that_wants_tls_sends_others_there_and_has_visitors_remember_it() {
    LocalSet::new()
        .run_until(async {
            let edge = start_with(STRICT);
            let page = edge.page(get("/a?b=c")).await;
            let location = format!("https://{HOST}/a?b=c");
            assert_eq!(page.status, 308);
            assert_eq!(page.headers["location"], location.as_str());
            assert!(!page.headers.contains_key("strict-transport-security"));
            let answer = edge.send_tls(&["h2"], get("/")).await;
            assert_eq!(answer.status(), 530, "nobody is connected");
            assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
            // Names of which nothing is said.
            let request = http::Request::get("/").header("host", "x.demo.localhost").body(empty()).unwrap();
            assert_eq!(edge.page(request).await.status, 530);
        })
        .await;
}

#[tokio::test]
async fn an_old_client_is_served_unless_the_operator_wants_none() {
    LocalSet::new()
        .run_until(async {
            for (keys, is_served) in [("", true), ("tls = \"modern\"", false)] {
                let edge = start_for_visitors(keys);
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let config = rustls::ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[&rustls::version::TLS12])
                    .unwrap()
                    .dangerous()
                    .with_custom_certificate_verifier(crate::shown_certificates::anybody())
                    .with_no_client_auth();
                let stream = TcpStream::connect(edge.https).await.unwrap();
                let name = rustls_pki_types::ServerName::try_from(HOST).unwrap();
                let shaken = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
                assert_eq!(shaken.is_ok(), is_served, "{keys}");
            }
        })
        .await;
}
