//! Nodes of a fleet that hand requests to each other: over real sockets, with a store that they share. A host is
//! connected to one node, and its visitors come to another.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_edge::{FleetNodes, Provisioned, Provisioning, Settings, TokenRequest};
use adit_protocol::credentials::Credentials;
use adit_protocol::rpc::RegistrationAnswer;
use adit_protocol::stream::Connect;
use http::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::connector::{Connector, Habits, Opened, registration};
use crate::etcd::Server;
use crate::harness::{Fixture, LocalSet, Page, credentials, empty, full, start_told};
use crate::killed::Killable;
use crate::office::{API, Office};
use crate::steering::{Does, Host, tries};

/// A node of the fleet, in a folder of its own.
pub(crate) async fn node(server: &Server, name: &str, region: &str) -> Office {
    let (folder, ledger, founding, more) = joined(server, name, region).await;
    let (_, token) = ledger.create_token(TokenRequest::default()).await.unwrap();
    Office {
        edge: start_told(folder, "", &more),
        ledger,
        account: founding.account,
        zone: founding.zones[0].1.clone(),
        token: token.as_str().to_owned(),
    }
}

/// A node in a process of its own. What it knows of itself is in the folder, so it can be started again.
async fn killable(server: &Server, name: &str, region: &str) -> (Killable, Office) {
    let (folder, ledger, founding, _) = joined(server, name, region).await;
    let process = Killable::start(folder.path()).await;
    let (stop, credentials) = (CancellationToken::new(), credentials());
    let [http, at] = Killable::addresses(folder.path());
    let edge = Fixture {
        http,
        https: http,
        admin: http,
        probes: None,
        api: None,
        dns: None,
        servers: vec![at],
        ca: folder.path().join("edge-data/ca.pem"),
        credentials,
        running: tokio::spawn(async { Ok(()) }),
        stop,
        folder,
    };
    let account = founding.account;
    (process, Office { edge, ledger, account, zone: founding.zones[0].1.clone(), token: String::new() })
}

/// What makes a node: a folder with its document and its key, and what its section says besides.
async fn joined(
    server: &Server,
    name: &str,
    region: &str,
) -> (Arc<TempDir>, Provisioning, Provisioned, String) {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let more = format!(
        "{API}[store]\nurl = {:?}\nallow-old = true\n[node]\nname = {name:?}\nregion = {region:?}\nlisten = \"127.0.0.1:0\"\n",
        server.address("main")
    );
    let document = format!(
        "data-dir = \"edge-data\"\n[visitors]\nhttp = \"127.0.0.1:0\"\n[[server]]\nregion = {region:?}\nlisten = \"127.0.0.1:0\"\n{more}"
    );
    // What seals secrets is the same at all of them.
    let data = folder.path().join("edge-data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("seal.key"), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    let path = folder.path().join("edge.toml");
    fs::write(&path, document).unwrap();
    let settings = Settings::load(&path).unwrap_or_else(|error| panic!("{error}"));
    let zones = ["example.com".to_owned()];
    let (ledger, founding) = Provisioning::found_for(&settings, "main", &zones).await.unwrap();
    (folder, ledger, founding, more)
}

pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(50);
    while !is_so().await {
        assert!(Instant::now() < end, "after a while: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) const NAME: &str = "app.example.com";

/// Two nodes, and a tunnel with a name and no host yet: its id and its token.
pub(crate) async fn two(server: &Server) -> (Office, Office, (String, String)) {
    let (one, other) = (node(server, "one", "west").await, node(server, "other", "east").await);
    let (tunnel, token) = one.tunnel_named("app").await;
    one.route(&tunnel, NAME, false).await.result();
    until("the other node has heard of the tunnel", async || knows(&other.edge, &token).await).await;
    (one, other, (tunnel, token))
}

/// The visitors of a node find the host that another one has.
pub(crate) async fn found(node: &Office) {
    until("the node knows of the host", async || node.visit(NAME).await == StatusCode::OK).await;
}

async fn post(node: &Office, body: Vec<u8>) -> Page {
    node.edge.page(Request::post("/").header("host", NAME).body(full(body)).unwrap()).await
}

#[tokio::test]
async fn a_visitor_of_one_node_gets_the_page_of_a_host_that_is_connected_to_another() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, mut other, (tunnel, token)) = two(&server).await;
            let host = Host::join(&mut other, (&tunnel, &token), "there", Does::Serve).await;
            found(&one).await;
            let page = one.ask_host(Method::GET, NAME).await;
            assert_eq!((page.status, page.text.as_str()), (StatusCode::OK, "there app.example.com"));
            assert_eq!(tries(&page), "1");
            let internal = |name: &str| name.starts_with("adit-") || name.starts_with("cf-cloudflared");
            assert!(page.headers.keys().all(|name| !internal(name.as_str())), "{:?}", page.headers);
            // Its end is known at once, as it would be here.
            host.kill();
            until("the host is gone", async || one.visit(NAME).await == StatusCode::from_u16(530).unwrap())
                .await;
            // So is another one that takes its place.
            let _back = Host::join(&mut other, (&tunnel, &token), "back", Does::Serve).await;
            found(&one).await;
        })
        .await;
}

#[tokio::test]
async fn heads_bodies_and_trailers_cross_a_second_node_as_they_cross_one() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, mut other, (_, token)) = two(&server).await;
            other.edge.credentials = Credentials::from_token(&token).unwrap();
            let at = other.edge.servers[0];
            let connector =
                Connector::registered_as(&other.edge, at, Habits::own(), uuid::Uuid::new_v4(), 0).await;
            let echo = async {
                loop {
                    let mut opened = connector.accept().await;
                    let head = opened.request().clone();
                    let body = opened.read().await;
                    let said =
                        |name: &str| head.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                    let answer = Response::builder()
                        .status(201)
                        .header("x-method", head.method().as_str())
                        .header("x-uri", head.uri().to_string())
                        .header("x-visitor", said("cf-connecting-ip").unwrap_or_default())
                        .header("x-length", said("content-length").unwrap_or_default())
                        .header("x-came", said("adit-visitor").unwrap_or_default())
                        .header("x-fleet", said("adit-fleet").is_some().to_string());
                    opened.answer(answer, &body).await;
                }
            };
            let ask = async {
                until("the node knows of the host", async || {
                    post(&one, Vec::new()).await.status == StatusCode::CREATED
                })
                .await;
                for length in [0_usize, 1, 70_000, 3_000_000] {
                    let body: Vec<u8> = (0..length).map(|at| b'a' + (at % 26) as u8).collect();
                    let request =
                        Request::post("/a?b=c").header("host", NAME).header("adit-fleet", "1 request");
                    let request = request.header("adit-visitor", "attempt=9;port=1;http=2;tls=1.3");
                    let page = one.edge.page(request.body(full(body.clone())).unwrap()).await;
                    assert_eq!(page.status, StatusCode::CREATED, "{length}");
                    assert!(page.text.as_bytes() == body, "{length}: {} bytes came back", page.text.len());
                    let header = |name: &str| page.headers[name].to_str().unwrap();
                    assert_eq!(header("x-method"), "POST");
                    assert_eq!(header("x-uri"), "http://app.example.com/a?b=c");
                    assert_eq!(header("x-visitor"), "127.0.0.1");
                    let came = header("x-came");
                    let port =
                        came.strip_prefix("attempt=1;port=").and_then(|it| it.strip_suffix(";http=1.1"));
                    let port = port.and_then(|port| port.parse::<u16>().ok());
                    assert!(port.is_some_and(|port| port > 1), "what the first node knows: {came}");
                    let said = if length == 0 { String::new() } else { length.to_string() };
                    assert_eq!(header("x-length"), said);
                    assert_eq!(header("x-fleet"), "false", "what nodes say to each other stays between them");
                }
            };
            tokio::select! {
                () = echo => {}
                () = ask => {}
            }
        })
        .await;
}

#[tokio::test]
async fn a_websocket_crosses_a_second_node_and_each_direction_ends_for_itself() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, mut other, (_, token)) = two(&server).await;
            other.edge.credentials = Credentials::from_token(&token).unwrap();
            let connector = Connector::registered(&other.edge, 0, uuid::Uuid::new_v4(), 0).await;
            let ask = format!(
                "GET /ws HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n\r\n"
            );
            let visit = async {
                loop {
                    let mut visitor = TcpStream::connect(one.edge.http).await.unwrap();
                    visitor.write_all(ask.as_bytes()).await.unwrap();
                    let mut answer = vec![0; 12];
                    visitor.read_exact(&mut answer).await.unwrap();
                    if answer == b"HTTP/1.1 101" {
                        return (visitor, answer);
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            };
            let serve = async {
                let mut opened: Opened = connector.accept().await;
                assert!(matches!(opened.connect, Connect::WebSocket(_)));
                let head = opened.request();
                assert_eq!((head.method(), head.uri().path()), (&Method::GET, "/ws"));
                assert_eq!(head.headers()["sec-websocket-key"], "a2V5");
                opened.head(Response::builder().status(101).header("sec-websocket-accept", "YWNjZXB0")).await;
                opened
            };
            let ((mut visitor, mut answer), mut opened) = tokio::join!(visit, serve);
            while !answer.ends_with(b"\r\n\r\n") {
                assert!(visitor.read_buf(&mut answer).await.unwrap() > 0);
            }
            let text = String::from_utf8(answer).unwrap().to_ascii_lowercase();
            for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-accept: ywnjzxb0"] {
                assert!(text.contains(line), "{line}: {text}");
            }
            for turn in 0..3_u8 {
                visitor.write_all(&[turn; 50_000]).await.unwrap();
                let mut there = vec![0; 50_000];
                opened.recv.read_exact(&mut there).await.unwrap();
                opened.send.write_all(&there).await.unwrap();
                let mut back = vec![9; 50_000];
                visitor.read_exact(&mut back).await.unwrap();
                assert_eq!(back, [turn; 50_000]);
            }
            visitor.write_all(b"last words").await.unwrap();
            visitor.shutdown().await.unwrap();
            assert_eq!(opened.recv.read_to_end(100).await.unwrap(), b"last words");
            opened.send.write_all(b"answer").await.unwrap();
            opened.send.finish().unwrap();
            let mut rest = Vec::new();
            visitor.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"answer");
        })
        .await;
}

#[tokio::test]
async fn the_first_node_owns_the_attempts_and_the_second_makes_one() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (mut one, mut other, (tunnel, token)) = two(&server).await;
            let there = Host::join(&mut other, (&tunnel, &token), "there", Does::Serve).await;
            found(&one).await;
            // Alone it is asked once, whatever it does; the visitor is told as if it were connected here.
            for (does, method, status, error) in [
                (Does::BreakOff, Method::POST, 502, "connection-lost"),
                (Does::Refuse, Method::GET, 502, "origin-failed"),
                (Does::BeNotHere, Method::POST, 502, "origin-failed"),
                (Does::BeLate, Method::GET, 504, ""),
                (Does::AnswerInstead, Method::GET, 503, ""),
            ] {
                there.does.set(does);
                let before = there.asked.get();
                let page = one.ask_host(method.clone(), NAME).await;
                assert_eq!(page.status.as_u16(), status, "{page:?}");
                assert!(page.text.contains(error), "{page:?}");
                // The ways to it are two, so that one that breaks is not the only one.
                assert!(there.asked.get() - before <= 2, "{method} {}", there.asked.get() - before);
            }
            // With a host of its own, the node asks that one next where the other one has done nothing.
            let here = Host::join(&mut one, (&tunnel, &token), "here", Does::TurnAway).await;
            there.does.set(Does::Serve);
            let (before_here, before_there) = (here.asked.get(), there.asked.get());
            let page = post(&one, b"body".to_vec()).await;
            assert_eq!((page.status, page.text.as_str()), (StatusCode::OK, "there app.example.com"));
            assert_eq!(tries(&page), "2");
            assert_eq!((here.asked.get() - before_here, there.asked.get() - before_there), (1, 1));
            // The nearest is asked first.
            here.does.set(Does::Serve);
            let before = there.asked.get();
            one.only(NAME, "here").await;
            assert_eq!(there.asked.get(), before);
        })
        .await;
}

/// Three nodes: one with visitors, and two in processes of their own, each with a host of the tunnel.
async fn three(server: &Server) -> (Office, [(Killable, Office, Host); 2]) {
    let one = node(server, "one", "west").await;
    let (first, mut first_office) = killable(server, "first", "west").await;
    let (second, mut second_office) = killable(server, "second", "west").await;
    let (tunnel, token) = one.tunnel_named("app").await;
    one.route(&tunnel, NAME, false).await.result();
    // They hear of the tunnel by the store.
    let ask = async |office: &mut Office, name| {
        until("the node has heard of the tunnel", async || knows(&office.edge, &token).await).await;
        Host::join(office, (&tunnel, &token), name, Does::Serve).await
    };
    let first_host = ask(&mut first_office, "first").await;
    let second_host = ask(&mut second_office, "second").await;
    until("both are asked", async || {
        let shares = (one.ask_host(Method::GET, NAME).await.text, one.ask_host(Method::GET, NAME).await.text);
        [shares.0, shares.1].iter().all(|text| text.ends_with(NAME)) && both_asked(&first_host, &second_host)
    })
    .await;
    (one, [(first, first_office, first_host), (second, second_office, second_host)])
}

fn both_asked(one: &Host, other: &Host) -> bool {
    one.asked.get() > 0 && other.asked.get() > 0
}

/// Whether a host may register at a node.
pub(crate) async fn knows(edge: &Fixture, token: &str) -> bool {
    let connector = Connector::connect(&edge.ca, edge.servers[0], Habits::default()).await;
    let credentials = Credentials::from_token(token).unwrap();
    let answer = connector.register(&registration(&credentials, uuid::Uuid::new_v4(), 0)).await;
    connector.connection.close(0u32.into(), b"");
    matches!(answer, RegistrationAnswer::Registered(_))
}

#[tokio::test]
async fn a_node_that_is_killed_costs_no_request_that_may_be_asked_twice() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, [(mut first, _first_office, _first_host), (_second, _second_office, second_host)]) =
                three(&server).await;
            for round in 0..40 {
                if round == 10 {
                    first.kill();
                }
                let begun = Instant::now();
                let pages =
                    futures_util::future::join_all((0..4).map(|_| one.ask_host(Method::GET, NAME))).await;
                for page in pages {
                    assert_eq!(page.status, StatusCode::OK, "round {round}: {page:?}");
                }
                assert!(begun.elapsed() < Duration::from_secs(20), "round {round}: {:?}", begun.elapsed());
            }
            let before = second_host.asked.get();
            assert_eq!(post(&one, b"once".to_vec()).await.status, StatusCode::OK);
            assert_eq!(second_host.asked.get(), before + 1);
        })
        .await;
}

#[tokio::test]
async fn a_node_that_freezes_is_left_until_it_is_heard_again() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, [(first, _first_office, _first_host), _second]) = three(&server).await;
            let process = rustix::process::Pid::from_raw(first.id().cast_signed()).unwrap();
            let signal = |signal| rustix::process::kill_process(process, signal).unwrap();
            signal(rustix::process::Signal::STOP);
            for round in 0..30 {
                let page = one.ask_host(Method::GET, NAME).await;
                assert_eq!(page.status, StatusCode::OK, "round {round}: {page:?}");
            }
            // By now it is known, and no request waits for it.
            for _ in 0..10 {
                let page = post(&one, b"once".to_vec()).await;
                assert_eq!((page.status, tries(&page)), (StatusCode::OK, "1"), "{page:?}");
                assert!(page.text.starts_with("second"), "{page:?}");
            }
            signal(rustix::process::Signal::CONT);
            until("it is asked again", async || {
                one.ask_host(Method::GET, NAME).await.text.starts_with("first")
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn a_node_that_ends_is_left_at_once_and_what_it_had_is_found_where_it_comes_back() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, mut other, (tunnel, token)) = two(&server).await;
            let mut third = node(&server, "third", "east").await;
            until("the third node has heard of the tunnel", async || knows(&third.edge, &token).await).await;
            let _first = Host::join(&mut other, (&tunnel, &token), "first", Does::Serve).await;
            found(&one).await;
            let _second = Host::join(&mut third, (&tunnel, &token), "second", Does::Serve).await;
            until("both are asked", async || {
                one.ask_host(Method::GET, NAME).await.text.starts_with("second")
            })
            .await;
            // Dropped with its threads, as a process that is killed leaves its sockets.
            other.edge.running.abort();
            let _ = (&mut other.edge.running).await;
            for _ in 0..50 {
                let page = one.ask_host(Method::GET, NAME).await;
                assert_eq!(
                    (page.status, page.text.as_str()),
                    (StatusCode::OK, "second app.example.com"),
                    "{page:?}"
                );
            }
        })
        .await;
}

/// Believes any server: who is asked is no matter here.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Where a node listens to others, as its record says.
pub(crate) async fn address(office: &Office, name: &str) -> SocketAddr {
    let mut found = None;
    until("the record has an address", async || {
        let (_, page) = office.edge.admin("/nodes").await;
        let nodes = page["nodes"].as_array().cloned().unwrap_or_default();
        let node = nodes.into_iter().find(|node| node["name"] == name);
        found = node.and_then(|node| node["addresses"][0].as_str()?.parse().ok());
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// What a node answers to somebody who shows this certificate and says this; `None`: it hangs up.
pub(crate) async fn said(
    at: SocketAddr,
    shown: Option<&Path>,
    alpn: &str,
    about: &str,
) -> Option<(u16, String)> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(folder) => {
            let chain = CertificateDer::pem_file_iter(folder.join("node.pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(folder.join("node.key")).unwrap();
            builder.with_client_auth_cert(chain.collect::<Result<_, _>>().unwrap(), key).unwrap()
        }
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let tcp = TcpStream::connect(at).await.unwrap();
    let name = ServerName::try_from("node").unwrap();
    let io = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get("https://node/").header("adit-fleet", about).body(empty()).unwrap();
    let answer = sender.send_request(request).await.ok()?;
    let outcome = answer.headers().get("adit-outcome").map_or("", |value| value.to_str().unwrap());
    Some((answer.status().as_u16(), outcome.to_owned()))
}

#[tokio::test]
async fn a_node_listens_to_nodes_of_its_fleet_alone_and_hands_nothing_on_for_them() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (mut one, mut other, (tunnel, token)) = two(&server).await;
            let host = Host::join(&mut one, (&tunnel, &token), "here", Does::Serve).await;
            found(&other).await;
            let at = address(&one, "one").await;
            let leaf = other.edge.folder.path().join("edge-data");
            let nobody = uuid::Uuid::new_v4();
            let (nothing, speech) = (format!("1 request {tunnel} {nobody} 0"), "adit-edge/1");
            let absent = Some((502, "absent".to_owned()));
            assert_eq!(said(at, Some(&leaf), speech, &nothing).await, absent, "a node is answered");
            let failed = |status| Some((status, "failed".to_owned()));
            let far = format!("1 request {tunnel} {nobody} 255");
            assert_eq!(said(at, Some(&leaf), speech, &far).await, failed(502));
            for about in ["", "2 request", &nothing.replacen('1', "9", 1), "1 presence x y"] {
                assert_eq!(said(at, Some(&leaf), speech, about).await, failed(400), "{about}");
            }
            // Without a certificate, with another protocol, or with a certificate of nobody.
            assert_eq!(said(at, None, speech, &nothing).await, None);
            assert_eq!(said(at, Some(&leaf), "h2", &nothing).await, None);
            // This node has hosts of the other one's tunnel, and does not ask it for them in its turn.
            host.kill();
            let there = Host::join(&mut other, (&tunnel, &token), "there", Does::Serve).await;
            found(&one).await;
            let (_, page) = one.edge.admin(&format!("/tunnels/{tunnel}/replicas")).await;
            let connector = page["elsewhere"][0]["connector"].as_str().unwrap();
            let (before, back) = (there.asked.get(), format!("1 request {tunnel} {connector} 0"));
            assert_eq!(said(at, Some(&leaf), speech, &back).await, absent);
            assert_eq!(there.asked.get(), before);
        })
        .await;
}

#[tokio::test]
async fn a_node_that_has_left_is_refused_with_the_certificate_that_it_still_has() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, other, (tunnel, _)) = two(&server).await;
            let at = address(&one, "one").await;
            let leaf = other.edge.folder.path().join("edge-data");
            let about = format!("1 request {tunnel} {} 0", uuid::Uuid::new_v4());
            until("the node is known", async || said(at, Some(&leaf), "adit-edge/1", &about).await.is_some())
                .await;
            let settings = Settings::load(&one.edge.folder.path().join("edge.toml")).unwrap();
            FleetNodes::open(&settings).unwrap().remove("other").await.unwrap();
            until("it is refused", async || said(at, Some(&leaf), "adit-edge/1", &about).await.is_none())
                .await;
            let (_, page) = one.edge.admin("/nodes/peers").await;
            assert_eq!(page["peers"], serde_json::json!([]), "and asked for nothing");
        })
        .await;
}
