//! A node that says of itself what is not so: by its key and its certificate it is one of the fleet, and the tunnels that
//! it claims to have are not there. What a neighbour believes too long must cost nothing but an attempt.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame as BodyFrame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::time::sleep;
use uuid::Uuid;

use crate::etcd::Server;
use crate::harness::{LocalSet, full};
use crate::peers::{NAME, address, found, node, two, until};
use crate::steering::{Does, Host, tries};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Whoever shows the certificate of a node that has ended, and claims to have replicas of a tunnel.
struct Liar {
    /// Requests for them that it got.
    asked: Rc<Cell<usize>>,
}

impl Liar {
    /// In the place of a node, by what is in its folder.
    async fn start(at: SocketAddr, folder: &Path, tunnel: Uuid, claims: Vec<Uuid>) -> Self {
        let chain = CertificateDer::pem_file_iter(folder.join("node.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("node.key")).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.collect::<Result<_, _>>().unwrap(), key)
            .unwrap();
        config.alpn_protocols = vec![b"adit-edge/1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = loop {
            match TcpListener::bind(at).await {
                Ok(listener) => break listener,
                // The node that was there is about to end.
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        tokio::task::spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, count, claims) = (acceptor.clone(), count.clone(), claims.clone());
                tokio::task::spawn_local(async move {
                    let Ok(io) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(|request: Request<Incoming>| {
                        let answer = answer(&request, tunnel, &claims, &count);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
                    builder.enable_connect_protocol();
                    let _ = builder.serve_connection(TokioIo::new(io), service).await;
                });
            }
        });
        Self { asked }
    }
}

#[derive(Clone)]
struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

fn answer(request: &Request<Incoming>, tunnel: Uuid, claims: &[Uuid], count: &Cell<usize>) -> Response<Body> {
    let about = request.headers()["adit-fleet"].to_str().unwrap();
    if about.starts_with("1 presence") {
        let said = entry(tunnel, claims);
        let digest = adit_balance::Key::of(&said).0;
        let words = stream::unfold((0_u64, said), move |(turn, said)| async move {
            if turn > 0 {
                sleep(Duration::from_millis(5)).await;
            }
            let mut words = Vec::new();
            if turn == 0 {
                frame(&mut words, 1, &[&u64::MAX.to_be_bytes(), &[0; 8]]);
            }
            // It says so again and again, whatever became of it.
            let upto = turn + 1;
            frame(&mut words, 2, &[&upto.to_be_bytes(), &said]);
            frame(&mut words, 3, &[&upto.to_be_bytes(), &digest.to_be_bytes(), &[0; 13]]);
            Some((Ok(BodyFrame::data(Bytes::from(words))), (turn + 1, said)))
        });
        return Response::new(StreamBody::new(words).boxed_unsync());
    }
    count.set(count.get() + 1);
    let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    let mut headers = HeaderMap::new();
    headers.insert("adit-outcome", http::HeaderValue::from_static("absent"));
    *response.headers_mut() = headers;
    response
}

/// A tunnel with these replicas, one connection each.
fn entry(tunnel: Uuid, replicas: &[Uuid]) -> Vec<u8> {
    let mut entry = tunnel.as_bytes().to_vec();
    entry.push(replicas.len() as u8);
    for replica in replicas {
        entry.extend_from_slice(replica.as_bytes());
        entry.extend_from_slice(&[1, 0]);
    }
    entry
}

fn frame(into: &mut Vec<u8>, kind: u8, content: &[&[u8]]) {
    let content = content.concat();
    into.push(kind);
    into.extend_from_slice(&(content.len() as u32).to_be_bytes());
    into.extend_from_slice(&content);
}

#[tokio::test]
async fn what_a_node_claims_and_does_not_have_costs_an_attempt_and_no_request_is_lost_or_done_twice() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, mut other, (tunnel, token)) = two(&server).await;
            // Nearer than the one that has the tunnel.
            let third = node(&server, "third", "west").await;
            let at = address(&third, "third").await;
            let there = Host::join(&mut other, (&tunnel, &token), "there", Does::Serve).await;
            found(&one).await;
            let (_, page) = one.edge.admin(&format!("/tunnels/{tunnel}/replicas")).await;
            let real: Uuid = page["elsewhere"][0]["connector"].as_str().unwrap().parse().unwrap();
            let folder = third.edge.folder.clone();
            third.edge.running.abort();
            // The replica that is there, and one that is nowhere.
            let claims = vec![real, Uuid::new_v4()];
            let liar = Liar::start(at, &folder.path().join("edge-data"), tunnel.parse().unwrap(), claims).await;
            until("it is believed", async || {
                one.ask_host(http::Method::GET, NAME).await;
                liar.asked.get() > 0
            })
            .await;
            let (before, lies) = (there.asked.get(), liar.asked.get());
            let (mut count, mut most) = (0, 0);
            // Until it was believed often enough.
            while liar.asked.get() - lies < 100 {
                let body = full(format!("{count}"));
                let page = one.edge.page(Request::post("/").header("host", NAME).body(body).unwrap()).await;
                assert_eq!(page.status, StatusCode::OK, "{count}: {page:?}");
                most = most.max(tries(&page).parse::<usize>().unwrap());
                count += 1;
                assert!(count < 20_000, "it is not believed");
            }
            let done = there.asked.get() - before;
            eprintln!(
                "figure: {count} POST beside a node that claims what it has not: {done} at the service; {} attempts at that node; at most {most} attempts each",
                liar.asked.get() - lies
            );
            assert_eq!(done, count, "none lost, none twice");
            assert!(most <= 4, "{most}");
        })
        .await;
}
