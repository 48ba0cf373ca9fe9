//! The probes of a container turn red and green as docs/kubernetes.md says, through failures of all that a host
//! has around it: a restart is asked for where it helps and nowhere else.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::Process;
use e2e::product::Product;
use e2e::visitor::{Speaks, Visitor, get};
use e2e::within;
use tokio::time::{sleep, timeout};

/// What Kubernetes asks: liveness, which restarts a pod, and readiness, which takes it out of rotation.
struct Probes(SocketAddr);

impl Probes {
    /// However busy this machine is.
    async fn ask(&self, path: &str) -> u16 {
        let visitor = Visitor::new(self.0, Speaks::Http1, None);
        // Boxed, like all that this long test waits for: its future lies on the stack of a thread.
        within(path, Box::pin(visitor.send(get(path)))).await.status
    }

    async fn is_silent(&self, path: &str) -> bool {
        timeout(PROBE_WAITS, Box::pin(self.ask(path))).await.is_err()
    }

    /// Waits until readiness says this, and holds liveness against what it has to say all the while.
    async fn become_ready(&self, ready: u16, why: &str) {
        let settled = async {
            loop {
                assert_eq!(self.ask("/livez").await, 200, "{why}: a restart would mend nothing");
                if self.ask("/ready").await == ready {
                    return;
                }
                // Each question takes a port, and one that an edge had is to be free for it again.
                sleep(Duration::from_millis(20)).await;
            }
        };
        within(why, Box::pin(settled)).await;
    }
}

#[tokio::test]
async fn six_failures_turn_readiness_red_where_it_helps_and_liveness_only_for_a_process_that_hangs() {
    let origin = Origin::start();
    let document = HostDocument { admin_keys: "probes = \"127.0.0.1:0\"".into(), ..HostDocument::new() }
        .rule(&format!("path = \"^/gone\"\nservice = \"http://{}\"", nobody()))
        .otherwise(&origin.service());
    let mut product = Box::pin(Product::start(EdgeDocument::new(&["west"], 1), document)).await;
    let listens = product.host.process.event("listening", |event| event["kind"] == "probes").await;
    let probes = Probes(listens["address"].as_str().unwrap().parse().unwrap());
    let (id, admin) = (product.host.process.id(), product.host.admin.to_string());
    let health = async |product: &Product| {
        let arguments = ["tunnel", "ready", "--no-origins", "--admin", &*admin];
        Box::pin(Process::run(&arguments, product.site.folder(), "")).await.code
    };

    // 1. A service that is away (it is from the start): the host serves what it can.
    probes.become_ready(200, "a service is away").await;
    assert_eq!((product.get("/gone").await.status, health(&product).await), (502, Some(0)));

    // 2. A broken document: what served serves on.
    let good = std::fs::read_to_string(product.site.path("host.toml")).unwrap();
    for broken in ["nonsense", &format!("{good}\n[[plugin]]\nname = \"a\"\ncomponent = \"missing.wasm\"\n")] {
        let mark = product.host.process.mark();
        product.site.write("host.toml", broken);
        product.host.process.hang_up();
        product.host.process.event_after(mark, REFUSED, |_| true).await;
        probes.become_ready(200, "a document is broken").await;
    }
    // 3. A document that is gone altogether.
    let mark = product.host.process.mark();
    std::fs::remove_file(product.site.path("host.toml")).unwrap();
    product.host.process.hang_up();
    product.host.process.event_after(mark, REFUSED, |_| true).await;
    probes.become_ready(200, "there is no document").await;
    product.site.write("host.toml", &good);

    // 4. An edge that is away, and comes back.
    product.edge.process.kill();
    probes.become_ready(503, "the edge is away").await;
    assert_eq!(health(&product).await, Some(1));
    product.edge = Box::pin(product.site.edge(&product.edge.pinned())).await;
    probes.become_ready(200, "the edge is back").await;

    // 5. A process that stands still: no probe is answered, and this is what a restart is for.
    product.host.process.freeze();
    // A thread of it that runs on another core stops a moment after the signal.
    within("it stands still", Box::pin(async { while !probes.is_silent("/livez").await {} })).await;
    assert!(probes.is_silent("/ready").await);
    product.host.process.go_on();
    within("it answers", Box::pin(async { while probes.ask("/livez").await != 200 {} })).await;
    probes.become_ready(200, "it goes on").await;

    // 6. A host that was told to stop takes nothing new, and finishes what it has.
    let mut watched = origin.watch("/slow");
    let asked = product.get("/slow");
    let directed = async {
        watched.arrived().await;
        product.host.process.terminate();
        probes.become_ready(503, "it stops").await;
        assert_eq!(health(&product).await, Some(1));
        watched.answer(http::Response::new(()));
        watched.end();
    };
    let (answer, ()) = tokio::join!(Box::pin(asked), Box::pin(directed));
    assert_eq!(answer.status, 200);
    assert_eq!(product.host.process.id(), id, "nothing had to be restarted");
}

/// Where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

const REFUSED: &str = "configuration refused; what runs goes on";

/// As long as Kubernetes does, where nothing else is written.
const PROBE_WAITS: Duration = Duration::from_secs(1);
