//! Ten thousand circuits at once: what one costs the host, and that nothing of them stays.

use std::net::SocketAddr;
use std::sync::Arc;

use e2e::document::{EdgeDocument, HostDocument};
use e2e::metrics::Scraped;
use e2e::product::{Product, Site};
use e2e::tcp::Frames;
use e2e::visitor::Speaks;
use e2e::within;
use futures_util::StreamExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CIRCUITS: usize = 10_000;
const BYTES: &str = "bytes.app.localhost";
/// What one may cost the host while nothing moves.
const MOST_EACH: u64 = 24 * 1024;

/// Sends back what it gets, on as many connections as there are.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 256];
                while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
#[ignore = "needs 40,000 files and a minute: cargo test -p e2e --test e2e -- --ignored many_circuits --nocapture"]
async fn ten_thousand_circuits_cost_little_and_leave_nothing() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    for protocol in ["quic", "http2"] {
        let service = echo().await;
        let edge = EdgeDocument::new(&["west"], 4)
            .for_visitors("connections-per-address = 0\nrequests-per-address = 0");
        let host = HostDocument::new()
            .connections(4)
            .over(protocol)
            .rule(&format!("hostname = \"{BYTES}\"\nservice = \"tcp://{service}\""))
            .otherwise("http_status:404");
        let product = Product::start_at(Site::new().giving_back_at_once(), edge, host).await;
        let visitor = Arc::new(product.visitor(Speaks::Http1));
        let open = async |visitor: Arc<e2e::visitor::Visitor>| -> Frames<TcpStream> {
            let mut circuit = Frames::ask(visitor.dial().await, BYTES, "").await;
            assert_eq!(circuit.status(), "101", "{}", circuit.head);
            assert!(circuit.echoes(b"x").await);
            circuit
        };
        // What is made once for all is there.
        drop(open(visitor.clone()).await);
        let before = product.host.process.memory();
        let circuits: Vec<_> = futures_util::stream::iter((0..CIRCUITS).map(|_| open(visitor.clone())))
            .buffer_unordered(64)
            .collect()
            .await;
        let metric = async || {
            Scraped::parse(product.host.admin("/metrics").await.text()).sum("adit_tcp_circuits", &[]) as usize
        };
        assert!(metric().await >= CIRCUITS);
        let each = (product.host.process.memory() - before) / CIRCUITS as u64;
        println!("{protocol}: {each} bytes of the host for each of {CIRCUITS} circuits");
        assert!(each <= MOST_EACH, "{protocol}: {each} bytes for one");
        drop(circuits);
        let gone = async {
            while metric().await > 0 {
                tokio::task::yield_now().await;
            }
        };
        within("no circuit is left", gone).await;
    }
}
