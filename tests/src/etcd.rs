//! etcd for tests with real processes: the one that the edge's own tests use, ended with the test. Without it a test is
//! skipped, unless `ADIT_SKIP_NOTHING=1`. Its version is below the floor, so edges are told `allow-old`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::DEADLINE;

/// A member with records of its own.
pub struct Etcd {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Etcd {
    /// `None` where there is no such program.
    pub async fn start() -> Option<Self> {
        let named = std::env::var_os("ADIT_ETCD").map(PathBuf::from);
        let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/etcd-server/usr/bin/etcd");
        let program = named.unwrap_or(usual);
        if !program.is_file() {
            let reason = format!("there is no {}; `cargo xtask setup` fetches it", program.display());
            let must_not = std::env::var_os("ADIT_SKIP_NOTHING").is_some_and(|set| set == "1");
            assert!(!must_not, "{reason}, and ADIT_SKIP_NOTHING is set");
            eprintln!("SKIPPED: {reason}");
            return None;
        }
        for _ in 0..5 {
            if let Some(member) = Self::spawn(&program).await {
                return Some(member);
            }
            // Another program has taken one of the ports meanwhile.
        }
        panic!("etcd does not start");
    }

    async fn spawn(program: &Path) -> Option<Self> {
        let (port, peer) = (free_port(), free_port());
        let folder = tempfile::tempdir().expect("a folder");
        let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let child = Command::new(program)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(["--name", "one", "--initial-cluster", &format!("one={peers}")])
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("starting {}: {error}", program.display()));
        let mut member = Self { child, port, _folder: folder };
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if member.child.try_wait().ok().flatten().is_some() {
                return None;
            }
            assert!(Instant::now() < end, "etcd is not up within {DEADLINE:?}");
            sleep(Duration::from_millis(20)).await;
        }
        Some(member)
    }

    /// As an edge's document has it.
    #[must_use]
    pub fn address(&self, fleet: &str) -> String {
        format!("etcd://127.0.0.1:{}/{fleet}", self.port)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("it is bound").port()
}
