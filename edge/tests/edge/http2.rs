//! Connectors over HTTP/2, made from the wire specification (section 6): they dial, the edge asks.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use adit_protocol::credentials::{Credentials, TunnelSecret};
use adit_protocol::rpc::{Registration, RegistrationAnswer};
use adit_protocol::schema::tunnelrpc_capnp::registration_server;
use bytes::Bytes;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures_util::future::join_all;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::connector::{self, registration};
use crate::harness::{Fixture, LocalSet, get, start, start_for_visitors};

const WRAPPED: &str = "cf-cloudflared-response-headers";
const META: &str = "cf-cloudflared-response-meta";
const UPGRADE: &str = "cf-cloudflared-proxy-connection-upgrade";
/// Bytes before the first frame (RFC 9113 3.4).
const PREFACE: usize = 24;

pub(crate) struct Connector {
    control: registration_server::Client,
    requests: mpsc::UnboundedReceiver<(Request<RecvStream>, SendResponse<Bytes>)>,
    /// Says GOAWAY.
    goodbye: CancellationToken,
    /// Done when the edge has closed the connection, and whether it said goodbye.
    pub(crate) closed: JoinHandle<bool>,
}

async fn dial(ca: &Path, server: SocketAddr, name: &'static str) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(server).await.unwrap();
    TlsConnector::from(Arc::new(tls)).connect(ServerName::try_from(name).unwrap(), tcp).await.unwrap()
}

impl Connector {
    /// Connects and waits for the control stream. Needs a [`LocalSet`] around it.
    async fn connect(edge: &Fixture, server: usize, streams: u32) -> Self {
        Self::connect_at(edge, edge.servers[server], streams).await
    }

    async fn connect_at(edge: &Fixture, server: SocketAddr, streams: u32) -> Self {
        let has_ended = Rc::new(Cell::new(false));
        let io = dial(&edge.ca, server, "h2.cftunnel.com").await;
        let io = Tap { io, head: Vec::new(), skip: PREFACE, has_ended: has_ended.clone() };
        let mut connection =
            Builder::new().max_concurrent_streams(streams).handshake::<_, Bytes>(io).await.unwrap();
        let (arrived, mut requests) = mpsc::unbounded_channel();
        let goodbye = CancellationToken::new();
        let said = goodbye.clone();
        let closed = tokio::task::spawn_local(async move {
            let mut said = Some(said);
            loop {
                let goodbye = async {
                    match &said {
                        Some(said) => said.cancelled().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    request = connection.accept() => match request {
                        Some(Ok(request)) => drop(arrived.send(request)),
                        Some(Err(_)) | None => return has_ended.get(),
                    },
                    () = goodbye => {
                        said = None;
                        connection.graceful_shutdown();
                    }
                }
            }
        });
        let (request, mut respond) = requests.recv().await.unwrap();
        assert_eq!(request.headers()[UPGRADE], "control-stream");
        let stream = respond.send_response(Response::new(()), false).unwrap();
        let (read, write) = tokio::io::split(bytes_of(request.into_body(), stream));
        let network =
            twoparty::VatNetwork::new(read.compat(), write.compat_write(), Side::Client, Default::default());
        let mut rpc = RpcSystem::new(Box::new(network), None);
        let control = rpc.bootstrap(Side::Server);
        tokio::task::spawn_local(async move {
            let _ = rpc.await;
        });
        Self { control, requests, goodbye, closed }
    }

    pub(crate) async fn registered(edge: &Fixture, streams: u32) -> Self {
        Self::registered_as(edge, edge.servers[0], streams, &[]).await
    }

    /// At an address that leads to a server of the edge, with more features than the reference.
    pub(crate) async fn registered_as(
        edge: &Fixture,
        server: SocketAddr,
        streams: u32,
        features: &[&str],
    ) -> Self {
        let connector = Self::connect_at(edge, server, streams).await;
        let mut registration = registration(&edge.credentials, Uuid::new_v4(), 0);
        registration.options.client.features.extend(features.iter().map(|word| (*word).to_owned()));
        let answer = connector.register(&registration).await;
        assert!(matches!(answer, RegistrationAnswer::Registered(_)));
        connector
    }

    async fn register(&self, registration: &Registration) -> RegistrationAnswer {
        let mut request = self.control.register_connection_request();
        registration.write(request.get());
        let answer = request.send().promise.await.unwrap();
        RegistrationAnswer::read(answer.get().unwrap().get_result().unwrap()).unwrap()
    }

    pub(crate) async fn accept(&mut self) -> (Request<RecvStream>, SendResponse<Bytes>) {
        self.requests.recv().await.expect("the edge asks")
    }
}

/// Looks for GOAWAY (RFC 9113 6.8) among the frames of the edge.
struct Tap<T> {
    io: T,
    head: Vec<u8>,
    skip: usize,
    has_ended: Rc<Cell<bool>>,
}

impl<T> Tap<T> {
    fn see(&mut self, byte: u8) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        self.head.push(byte);
        if let [a, b, c, kind, _, _, _, _, _] = self.head[..] {
            self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
            self.has_ended.set(self.has_ended.get() || kind == 7);
            self.head.clear();
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tap<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, into);
        into.filled()[before..].iter().for_each(|byte| self.see(*byte));
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tap<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A request's two bodies as one stream of bytes.
fn bytes_of(mut body: RecvStream, mut stream: SendStream<Bytes>) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (mut read, mut write) = tokio::io::split(theirs);
    tokio::task::spawn_local(async move {
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            let _ = write.write_all(&data).await;
        }
        let _ = write.shutdown().await;
    });
    tokio::task::spawn_local(async move {
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            let _ = stream.send_data(Bytes::copy_from_slice(&buffer[..length]), false);
        }
        let _ = stream.send_data(Bytes::new(), true);
    });
    ours
}

pub(crate) fn answer(respond: &mut SendResponse<Bytes>, status: u16, wrapped: &str, body: &'static str) {
    let head = Response::builder()
        .status(status)
        .header("date", "not the origin's")
        .header("content-type", "text/guessed")
        .header(META, r#"{"src":"origin"}"#)
        .header(WRAPPED, wrapped);
    let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
}

#[tokio::test]
async fn a_request_is_plain_headers_and_its_answer_is_what_was_wrapped() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut connector = Connector::registered(&edge, 100).await;
            let (page, ()) = tokio::join!(edge.page(get("/path?query")), async {
                let (request, mut respond) = connector.accept().await;
                assert_eq!(request.method(), "GET");
                assert_eq!(request.uri().authority().unwrap(), "demo.localhost");
                assert_eq!(request.uri().path_and_query().unwrap(), "/path?query");
                assert!(request.headers().contains_key("cf-connecting-ip"));
                assert!(!request.headers().contains_key(UPGRADE));
                // Otherwise the reference would make an upload of it.
                assert!(request.body().is_end_stream());
                // `x-a: 1`, twice with different values.
                answer(&mut respond, 404, "eC1h:MQ;eC1h:Mg", "gone");
            });
            assert_eq!((page.status.as_u16(), page.text.as_str()), (404, "gone"));
            assert_eq!(page.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
            assert!(!page.headers.contains_key("content-type") && page.headers["date"] != "not the origin's");
        })
        .await;
}

#[tokio::test]
async fn what_a_connector_answers_itself_or_wrongly_is_502() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut connector = Connector::registered(&edge, 100).await;
            for (meta, wrapped) in [
                (Some(r#"{"src":"cloudflared"}"#), Some("")),
                (Some(r#"{"src":"origin"}"#), None),
                (Some(r#"{"src":"origin"}"#), Some("not base64")),
                (Some("rubbish"), Some("")),
                (None, Some("")),
            ] {
                let (page, ()) = tokio::join!(edge.page(get("/")), async {
                    let (_, mut respond) = connector.accept().await;
                    let mut head = Response::builder().status(200);
                    for (name, value) in [(META, meta), (WRAPPED, wrapped)] {
                        if let Some(value) = value {
                            head = head.header(name, value);
                        }
                    }
                    respond.send_response(head.body(()).unwrap(), true).unwrap();
                });
                assert_eq!(page.status.as_u16(), 502, "{meta:?} {wrapped:?}");
            }
        })
        .await;
}

#[tokio::test]
async fn after_a_refusal_the_edge_closes_the_connection() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let wrong = Credentials {
                tunnel_secret: TunnelSecret::new(&[8; 32]).unwrap(),
                ..edge.credentials.clone()
            };
            let connector = Connector::connect(&edge, 1, 100).await;
            let answer = connector.register(&registration(&wrong, Uuid::new_v4(), 0)).await;
            let RegistrationAnswer::Refused(error) = answer else { panic!("registered") };
            assert!(error.cause.starts_with("Unauthorized"), "{error:?}");
            // Finding 6: a connector that waits for this would wait for ever.
            connector.closed.await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn a_connector_that_has_unregistered_is_closed_when_its_requests_are_done() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut connector = Connector::registered(&edge, 100).await;
            let (page, respond) = tokio::join!(edge.page(get("/slow")), async {
                let (_, mut respond) = connector.accept().await;
                connector.control.unregister_connection_request().send().promise.await.unwrap();
                assert_eq!(edge.page(get("/new")).await.status.as_u16(), 530);
                assert!(!connector.closed.is_finished());
                answer(&mut respond, 200, "", "late");
                respond
            });
            assert_eq!(page.text, "late");
            drop(respond);
            connector.closed.await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn requests_beyond_the_connectors_limit_of_streams_wait_for_their_turn() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            // One is the control stream.
            let mut connector = Connector::registered(&edge, 3).await;
            let asking = join_all((0..20).map(|_| edge.page(get("/"))));
            let serving = async {
                for _ in 0..20 {
                    let (_, mut respond) = connector.accept().await;
                    answer(&mut respond, 200, "", "served");
                }
            };
            let (pages, ()) = tokio::join!(asking, serving);
            for page in pages {
                assert_eq!((page.status.as_u16(), page.text.as_str()), (200, "served"));
            }
        })
        .await;
}

#[tokio::test]
async fn a_connector_that_says_goodbye_gets_nothing_new() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let leaving = Connector::registered(&edge, 100).await;
            let other = connector::Connector::registered(&edge, 1, Uuid::new_v4(), 0).await;
            leaving.goodbye.cancel();
            let mut requests = leaving.requests;
            for _ in 0..10 {
                let (page, ()) = tokio::join!(edge.page(get("/")), async {
                    tokio::select! {
                        opened = other.accept() => opened.ok(b"other").await,
                        // The goodbye may still be on its way.
                        Some((_, mut respond)) = requests.recv() => answer(&mut respond, 200, "", "leaving"),
                    }
                });
                assert_eq!(page.status.as_u16(), 200);
            }
            leaving.closed.await.unwrap();
            let (page, ()) =
                tokio::join!(edge.page(get("/")), async { other.accept().await.ok(b"other").await });
            assert_eq!(page.text, "other");
        })
        .await;
}

#[tokio::test]
async fn a_probe_over_tcp_is_let_go_quietly() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut probe = dial(&edge.ca, edge.servers[0], "probe.cftunnel.com").await;
            probe.shutdown().await.unwrap();
            let mut rest = Vec::new();
            // Nothing was opened on it.
            assert_eq!(probe.read_to_end(&mut rest).await.unwrap_or(0), 0);
        })
        .await;
}

#[tokio::test]
async fn a_host_that_gets_out_on_one_port_alone_registers_where_visitors_come_in() {
    LocalSet::new()
        .run_until(async {
            let edge = start_for_visitors("server = \"east-1\"");
            let mut connector = Connector::registered_as(&edge, edge.https, 100, &[]).await;
            // The same address is the visitors', whatever they speak.
            for protocol in ["h2", "http/1.1"] {
                let offered = [protocol];
                let asking = edge.send_tls(&offered, get("/"));
                let answering = async {
                    let (_, mut respond) = connector.accept().await;
                    answer(&mut respond, 404, "", "gone");
                };
                let (page, ()) = tokio::join!(asking, answering);
                assert_eq!(page.status(), 404, "{protocol}");
            }
            let (_, page) = edge.admin("/tunnels/demo/replicas").await;
            let live = &page["replicas"][0]["connections"][0];
            assert_eq!((&live["server"], &live["protocol"]), (&"east-1".into(), &"http2".into()), "{page}");
            // One that only tries whether it gets here.
            drop(dial(&edge.ca, edge.https, "probe.cftunnel.com").await);
            edge.stop.cancel();
            assert!(connector.closed.await.unwrap(), "it is told to go");
        })
        .await;
}
