//! What visitors are shown over TLS: by the name that they ask for, and exchanged while the edge runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;

use crate::harness::{Fixture, LocalSet, get, start_in};

/// Believes whoever has the key of what it shows.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

pub(crate) fn anybody() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anybody(Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// A client that believes anybody.
pub(crate) fn client(alpn: &[&str]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// What whoever asks for `name` is shown: the first certificate.
pub(crate) async fn shown(
    address: SocketAddr,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<CertificateDer<'static>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut config = client(alpn);
    // An address is no name that could be asked for.
    config.enable_sni = name.parse::<std::net::IpAddr>().is_err();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
}

/// Writes a certificate for these names, which holds until the end of `year`, and says what it is.
pub(crate) fn write(folder: &Path, file: &str, names: &[&str], year: i32) -> CertificateDer<'static> {
    let (certificate, key) = made(names, year);
    fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
    certificate.der().clone()
}

fn made(names: &[&str], year: i32) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 12, 31);
    (params.self_signed(&key).unwrap(), key)
}

const OWN: &str = "
    [[certificate]]
    certificate = \"a.pem\"
    private-key = \"a.key\"
    [[certificate]]
    certificate = \"b.pem\"
    private-key = \"b.key\"
";

/// Waits for a condition; the test's own limit ends it.
pub(crate) async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
}

async fn listed(edge: &Fixture, name: &str) -> serde_json::Value {
    let (_, page) = edge.admin("/certificates").await;
    let all = page["certificates"].as_array().unwrap();
    let has_name = |one: &&serde_json::Value| one["names"].as_array().unwrap().iter().any(|own| own == name);
    all.iter().find(has_name).unwrap_or_else(|| panic!("{name} is not in {page}")).clone()
}

#[tokio::test]
async fn a_visitor_is_shown_the_certificate_of_the_name_it_asks_for() {
    LocalSet::new()
        .run_until(async {
            let folder = Arc::new(tempfile::tempdir().unwrap());
            let a = write(folder.path(), "a", &["a.example", "*.wide.example"], 2090);
            let b = write(folder.path(), "b", &["b.example", "one.wide.example"], 2091);
            let edge = start_in(folder, OWN);
            let of = async |name| shown(edge.https, name, &["h2"]).await.unwrap();
            assert_eq!(of("a.example").await, a);
            assert_eq!(of("b.example").await, b);
            assert_eq!(of("any.wide.example").await, a);
            assert_eq!(of("one.wide.example").await, b, "a whole name goes before a wildcard");
            for other in ["wide.example", "two.labels.wide.example", "made.up.example", "127.0.0.1"] {
                let shown = of(other).await;
                assert!(shown != a && shown != b, "{other}");
            }
        })
        .await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_restart_and_a_bad_one_is_not() {
    LocalSet::new()
        .run_until(async {
            let folder = Arc::new(tempfile::tempdir().unwrap());
            let first = write(folder.path(), "a", &["a.example"], 2090);
            write(folder.path(), "b", &["b.example"], 2090);
            let edge = start_in(folder.clone(), OWN);
            let of = async |name| shown(edge.https, name, &[]).await.unwrap();
            assert_eq!(of("a.example").await, first);
            let second = write(folder.path(), "a", &["a.example", "more.example"], 2091);
            until(async || (of("a.example").await == second).then_some(())).await;
            assert_eq!(of("more.example").await, second);
            let one = listed(&edge, "more.example").await;
            assert_eq!((&one["use"], &one["exchanged"]), (&"name".into(), &1.into()), "{one}");
            assert!(one["not_after"].as_str().unwrap().starts_with("2091-12-31"), "{one}");

            // What is no certificate, one whose key is another's, and one that has ended.
            let trouble = async |part: &str| {
                until(async || {
                    let one = listed(&edge, "more.example").await;
                    one["error"].as_str().is_some_and(|error| error.contains(part)).then_some(())
                })
                .await;
                assert_eq!(of("a.example").await, second, "{part}");
            };
            fs::write(folder.path().join("a.pem"), "rubbish").unwrap();
            trouble("holds no certificate").await;
            let (other, _) = made(&["a.example"], 2092);
            fs::write(folder.path().join("a.pem"), other.pem()).unwrap();
            trouble("do not fit together").await;
            write(folder.path(), "a", &["a.example"], 2020);
            trouble("has ended on 2020-12-31").await;
            let page = edge.page(get("/")).await;
            assert_eq!(page.status, 530, "visitors notice nothing of it");
            let metrics = metrics(&edge).await;
            let line = "adit_edge_certificate_refused{use=\"name\",name=\"a.example\"} 1";
            assert!(metrics.contains(line), "{metrics}");
            let third = write(folder.path(), "a", &["a.example"], 2093);
            until(async || (of("a.example").await == third).then_some(())).await;
            assert!(listed(&edge, "a.example").await["error"].is_null());
        })
        .await;
}

pub(crate) async fn metrics(edge: &Fixture) -> String {
    let mut request = get("/metrics");
    request.headers_mut().insert("host", http::HeaderValue::from_static("localhost"));
    crate::harness::read(crate::harness::http1(edge.admin, request).await).await.text
}
