//! etcd for tests: Debian's, which `cargo xtask test` fetches; on loopback, one member, ended by its id. Without it a
//! test is skipped, unless `ADIT_SKIP_NOTHING=1`. Its version is below the floor, so edges are told `allow-old`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::sleep;

/// A member with records of its own. Dropping it stops it.
pub(crate) struct Server {
    program: PathBuf,
    child: Child,
    port: u16,
    peer: u16,
    folder: tempfile::TempDir,
    options: Vec<String>,
    scheme: &'static str,
}

impl Server {
    /// `None` where there is no such program.
    pub(crate) async fn start() -> Option<Self> {
        Self::with(&[], "http").await
    }

    /// The same with more options; `scheme` is what clients speak.
    pub(crate) async fn with(options: &[&str], scheme: &'static str) -> Option<Self> {
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
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        for _ in 0..5 {
            let (port, peer, folder) = (free_port(), free_port(), tempfile::tempdir().unwrap());
            let child = spawn(&program, folder.path(), port, peer, &options, scheme);
            let (program, options) = (program.clone(), options.clone());
            let mut server = Self { program, child, port, peer, folder, options, scheme };
            if server.is_up().await {
                return Some(server);
            }
            // Somebody else has taken one of the ports meanwhile.
            eprintln!("etcd ended: {}", server.log());
        }
        panic!("etcd does not start");
    }

    /// As an edge's document has it.
    pub(crate) fn address(&self, fleet: &str) -> String {
        format!("etcd://127.0.0.1:{}/{fleet}", self.port)
    }

    #[allow(dead_code, reason = "for tests of the store by itself")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its records are.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// With the records that are there now.
    pub(crate) async fn start_again(&mut self) {
        self.stop();
        self.child =
            spawn(&self.program, self.folder.path(), self.port, self.peer, &self.options, self.scheme);
        assert!(self.is_up().await, "etcd does not start again: {}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    async fn is_up(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return true;
            }
            assert!(Instant::now() < end, "etcd is not up after 30 s: {}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(program: &Path, folder: &Path, port: u16, peer: u16, options: &[String], scheme: &str) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    let (clients, peers) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new(program);
    command
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--name", "one", "--initial-cluster", &format!("one={peers}")])
        .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(options)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    command.spawn().unwrap()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
