//! Names that want certificates of their visitors: who is let in over which connection, and what origins are told.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use adit_protocol::stream::Connect;
use http::{Request, Response, Version};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

use crate::connector::{Connector, Habits};
use crate::harness::{Fixture, HOST, LocalSet, Page, empty, read, start_in};
use crate::shown_certificates::anybody;

const SECTION: &str = "
    [[name]]
    hostnames = [\"demo.localhost\"]
    client-certificate = \"required\"
    client-ca = \"visitors.pem\"
    [[name]]
    hostnames = [\"maybe.demo.localhost\"]
    client-certificate = \"optional\"
    client-ca = \"visitors.pem\"
    [[name]]
    hostnames = [\"others.demo.localhost\"]
    client-certificate = \"required\"
    client-ca = \"others.pem\"
";
const MAYBE: &str = "maybe.demo.localhost";
const OTHERS: &str = "others.demo.localhost";
const OPEN: &str = "open.demo.localhost";

/// An authority of visitors.
struct Visitors(Issuer<'static, KeyPair>);

/// Who a visitor says it is.
#[derive(Clone)]
struct Papers(CertificateDer<'static>, Vec<u8>);

impl Visitors {
    fn new(folder: &Path, file: &str) -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        fs::write(folder.join(file), params.self_signed(&key).unwrap().pem()).unwrap();
        Self(Issuer::new(params, key))
    }

    fn papers(&self, name: &str, until: i32) -> Papers {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::default());
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(vec![0x11, 0x22].into());
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Papers(certificate.der().clone(), key.serialize_der())
    }
}

struct Stage {
    edge: Fixture,
    connector: Connector,
    own: Visitors,
    others: Visitors,
}

impl Stage {
    async fn open() -> Self {
        let folder: Arc<TempDir> = Arc::new(tempfile::tempdir().unwrap());
        let [own, others] = ["visitors.pem", "others.pem"].map(|file| Visitors::new(folder.path(), file));
        let edge = start_in(folder, SECTION);
        let server = edge.servers[0];
        let connector = Connector::registered_as(&edge, server, Habits::own(), Uuid::new_v4(), 0).await;
        Self { edge, connector, own, others }
    }

    async fn shake(&self, name: &str, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.edge.https).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// What comes of a request for `host` over a connection that was made for `name`; an origin answers what arrives.
    async fn visit(
        &self,
        name: &str,
        host: &str,
        papers: Option<&Papers>,
        alpn: &str,
    ) -> io::Result<(Page, Seen)> {
        let stream = self.shake(name, client(papers, alpn, &[&version::TLS13, &version::TLS12])).await?;
        let mut request =
            Request::get("/").header("cf-cert-verified", "true").header("client-cert", ":Zm9yZ2Vk:");
        request = request.header("CF-Cert-Subject-DN", "CN=forged").header("client_cert", "forged");
        let io = TokioIo::new(stream);
        let failed = io::Error::other::<hyper::Error>;
        let answer = async {
            let response = if alpn == "h2" {
                let request = request.version(Version::HTTP_2).uri(format!("https://{host}/"));
                let (mut sender, connection) =
                    http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
                tokio::spawn(connection);
                sender.send_request(request.body(empty()).unwrap()).await.map_err(failed)?
            } else {
                let (mut sender, connection) = http1::handshake(io).await.map_err(failed)?;
                tokio::spawn(connection);
                sender
                    .send_request(request.header("host", host).body(empty()).unwrap())
                    .await
                    .map_err(failed)?
            };
            Ok::<_, io::Error>(read(response).await)
        };
        let mut seen = Seen::default();
        let arriving = async {
            let opened = self.connector.accept().await;
            seen = Seen(Some(opened.request().headers().clone()));
            opened.ok(b"from the origin").await;
            std::future::pending::<()>().await;
        };
        let page = tokio::select! {
            page = answer => page,
            () = arriving => unreachable!("an origin that waits for ever"),
        }?;
        Ok((page, seen))
    }
}

/// The headers of a request that has arrived.
#[derive(Default, Debug)]
struct Seen(Option<http::HeaderMap>);

impl Seen {
    fn value(&self, name: &str) -> &str {
        let mut all = self.0.as_ref().unwrap().get_all(name).iter();
        let value = all.next().map_or("", |value| value.to_str().unwrap());
        assert!(all.next().is_none(), "{name} twice");
        value
    }
}

fn client(
    papers: Option<&Papers>,
    alpn: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(anybody());
    let mut config = match papers {
        None => config.with_no_client_auth(),
        Some(Papers(certificate, key)) => {
            let key = PrivateKeyDer::Pkcs8(key.clone().into());
            config.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config
}

#[tokio::test]
async fn who_has_a_certificate_is_let_in_and_the_origin_is_told_what_it_says() {
    LocalSet::new()
        .run_until(async {
            let stage = Stage::open().await;
            let alice = stage.own.papers("alice, of \"a\"", 2090);
            for alpn in ["http/1.1", "h2"] {
                for name in [HOST, MAYBE] {
                    let (page, seen) = stage.visit(name, name, Some(&alice), alpn).await.unwrap();
                    assert_eq!(
                        (page.status.as_u16(), page.text.as_str()),
                        (200, "from the origin"),
                        "{name} {alpn}"
                    );
                    for (header, value) in [
                        ("cf-cert-presented", "true"),
                        ("cf-cert-verified", "true"),
                        ("cf-cert-subject-dn", "CN=alice\\, of \\\"a\\\""),
                        ("cf-cert-serial", "1122"),
                        ("cf-cert-not-after", "2090-01-01T00:00:00.000000Z"),
                        ("client_cert", ""),
                    ] {
                        assert_eq!(seen.value(header), value, "{header} {name} {alpn}");
                    }
                    let encoded =
                        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &alice.0);
                    assert_eq!(seen.value("client-cert"), format!(":{encoded}:"));
                    assert_eq!(seen.value("cf-cert-fingerprint-sha256").len(), 64);
                }
                // A name that says nothing of certificates tells nothing of them, whatever the visitor says.
                let (page, seen) = stage.visit(OPEN, OPEN, Some(&alice), alpn).await.unwrap();
                assert_eq!(page.status, 200);
                for header in [
                    "cf-cert-presented",
                    "cf-cert-verified",
                    "cf-cert-subject-dn",
                    "client-cert",
                    "client_cert",
                ] {
                    assert_eq!(seen.value(header), "", "{header} {alpn}");
                }
                let (page, seen) = stage.visit(MAYBE, MAYBE, None, alpn).await.unwrap();
                assert_eq!(page.status, 200);
                assert_eq!((seen.value("cf-cert-presented"), seen.value("client-cert")), ("false", ""));
                assert_eq!((seen.value("cf-cert-verified"), seen.value("cf-cert-subject-dn")), ("false", ""));
            }
        })
        .await;
}

#[tokio::test]
async fn who_has_none_or_another_authoritys_or_an_old_one_is_not_let_in() {
    LocalSet::new()
        .run_until(async {
            let stage = Stage::open().await;
            let (foreign, old) = (stage.others.papers("alice", 2090), stage.own.papers("alice", 2020));
            for alpn in ["http/1.1", "h2"] {
                assert!(stage.visit(HOST, HOST, None, alpn).await.is_err(), "{alpn}");
                for papers in [&foreign, &old] {
                    for name in [HOST, MAYBE] {
                        assert!(stage.visit(name, name, Some(papers), alpn).await.is_err(), "{name} {alpn}");
                    }
                }
                let (page, _) = stage.visit(OTHERS, OTHERS, Some(&foreign), alpn).await.unwrap();
                assert_eq!(page.status, 200);
            }
            // In the clear nobody can say who it is.
            let request = |host: &str| Request::get("/").header("host", host).body(empty()).unwrap();
            let page = stage.edge.page(request(HOST)).await;
            assert_eq!(page.status, 403, "{}", page.text);
            let refused =
                stage.edge.send_h2c(Request::get(format!("http://{HOST}/")).body(empty()).unwrap()).await;
            assert_eq!(refused.status(), 403);
            let (page, ()) = tokio::join!(stage.edge.page(request(MAYBE)), async {
                let opened = stage.connector.accept().await;
                assert!(opened.request().headers().get("cf-cert-verified").is_none());
                opened.ok(b"").await;
            });
            assert_eq!(page.status, 200);
        })
        .await;
}

#[tokio::test]
async fn a_connection_that_was_made_for_one_name_is_of_no_use_for_another_that_wants_a_certificate() {
    LocalSet::new()
        .run_until(async {
            let stage = Stage::open().await;
            let alice = stage.own.papers("alice", 2090);
            for alpn in ["http/1.1", "h2"] {
                for (name, host, papers) in [
                    (OPEN, HOST, None),
                    (OPEN, HOST, Some(&alice)),
                    (OPEN, MAYBE, Some(&alice)),
                    (MAYBE, HOST, None),
                    (MAYBE, HOST, Some(&alice)),
                    (HOST, OTHERS, Some(&alice)),
                    // No name at all.
                    ("127.0.0.1", HOST, Some(&alice)),
                ] {
                    for host in
                        [host.to_owned(), host.to_uppercase(), format!("{host}."), format!("{host}:443")]
                    {
                        let (page, seen) = stage.visit(name, &host, papers, alpn).await.unwrap();
                        assert_eq!(page.status, 421, "{name} {host} {alpn}: {}", page.text);
                        assert!(seen.0.is_none());
                    }
                }
                // The other way round nothing is asked for.
                let (page, seen) = stage.visit(HOST, OPEN, Some(&alice), alpn).await.unwrap();
                assert_eq!((page.status.as_u16(), seen.value("cf-cert-verified")), (200, ""));
                // Written otherwise it is the same name.
                let (page, _) =
                    stage.visit("DEMO.localhost", "demo.LOCALHOST.:443", Some(&alice), alpn).await.unwrap();
                assert_eq!(page.status, 200);
            }
        })
        .await;
}

#[tokio::test]
async fn a_websocket_is_asked_for_a_certificate_as_any_request_is() {
    LocalSet::new()
        .run_until(async {
            let stage = Stage::open().await;
            let alice = stage.own.papers("alice", 2090);
            let ask = |host: &str| {
                format!("GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\nCf-Cert-Verified: true\r\n\r\n")
            };
            let config = || client(Some(&alice), "http/1.1", &[&version::TLS13]);
            let mut stream = stage.shake(OPEN, config()).await.unwrap();
            stream.write_all(ask(HOST).as_bytes()).await.unwrap();
            let mut answer = vec![0; 4096];
            let length = stream.read(&mut answer).await.unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 421"));
            let mut stream = stage.shake(HOST, config()).await.unwrap();
            stream.write_all(ask(HOST).as_bytes()).await.unwrap();
            let mut opened = stage.connector.accept().await;
            assert!(matches!(opened.connect, Connect::WebSocket(_)));
            assert_eq!(opened.request().headers()["cf-cert-subject-dn"], "CN=alice");
            opened.head(Response::builder().status(101).header("sec-websocket-accept", "YWNjZXB0")).await;
            let length = stream.read(&mut answer).await.unwrap();
            assert!(answer[..length].starts_with(b"HTTP/1.1 101"));
        })
        .await;
}

#[tokio::test]
async fn each_connection_shows_its_certificate_anew() {
    LocalSet::new()
        .run_until(async {
            let stage = Stage::open().await;
            let alice = stage.own.papers("alice", 2090);
            for versions in [&[&version::TLS13][..], &[&version::TLS12]] {
                for (name, papers, kind) in [
                    (HOST, Some(&alice), HandshakeKind::Full),
                    (MAYBE, None, HandshakeKind::Full),
                    // Elsewhere sessions go on, so that this test would see it.
                    (OPEN, None, HandshakeKind::Resumed),
                ] {
                    let config = client(papers, "http/1.1", versions);
                    for turn in 0..2 {
                        let mut stream = stage.shake(name, config.clone()).await.unwrap();
                        // What may be taken up later comes behind the handshake.
                        stream.write_all(b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n").await.unwrap();
                        let mut answer = vec![0; 4096];
                        assert!(stream.read(&mut answer).await.unwrap() > 0);
                        if turn == 1 {
                            assert_eq!(
                                stream.get_ref().1.handshake_kind(),
                                Some(kind),
                                "{name} {versions:?}"
                            );
                        }
                    }
                }
            }
        })
        .await;
}
