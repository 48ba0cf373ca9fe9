//! A server of Redis's protocol for tests: Debian's `redis-server`, which `cargo xtask test` fetches, ended with the test.
//! A machine without it [skips](crate::skip) what needs it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::DEADLINE;
use crate::process::target;

/// One server with a port of its own, which it has again when it is started once more.
pub struct Redis {
    folder: PathBuf,
    data: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
    more: Vec<String>,
    has_tls: bool,
}

impl Redis {
    /// With more arguments, such as `--requirepass WORD`. `None` where there is no such program.
    pub async fn start(more: &[&str]) -> Option<Self> {
        Self::start_as(more, false).await
    }

    /// Over TLS alone: `certificate` and `key` are PEM files.
    pub async fn start_over_tls(certificate: &Path, key: &Path) -> Option<Self> {
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key, "--tls-auth-clients", "no"];
        Self::start_as(&files, true).await
    }

    async fn start_as(more: &[&str], has_tls: bool) -> Option<Self> {
        let named = std::env::var_os("ADIT_REDIS").map(PathBuf::from);
        let folder = named.unwrap_or_else(|| target().join("tools/redis-server"));
        let program = folder.join("usr/bin/redis-server");
        if !program.is_file() {
            crate::skip(&format!("there is no {}; `cargo xtask setup` fetches it", program.display()));
            return None;
        }
        let more = more.iter().map(|&argument| argument.to_owned()).collect();
        let data = tempfile::tempdir().expect("a folder");
        let mut server = Self { folder, data, child: None, port: 0, more, has_tls };
        for _ in 0..5 {
            let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
            server.port = socket.local_addr().expect("it is bound").port();
            drop(socket);
            if server.spawn().await {
                return Some(server);
            }
            // Another program has taken the port meanwhile.
        }
        panic!("redis-server does not start");
    }

    /// Starts it again, with nothing in it.
    pub async fn again(&mut self) {
        assert!(self.spawn().await, "redis-server does not start again");
    }

    async fn spawn(&mut self) -> bool {
        let libraries = self.folder.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        let port = self.port.to_string();
        let ports = if self.has_tls {
            ["--port", "0", "--tls-port", &port]
        } else {
            ["--port", &port, "--tls-port", "0"]
        };
        let child = Command::new(self.folder.join("usr/bin/redis-server"))
            .args(ports)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(self.data.path())
            .args(&self.more)
            .env("LD_LIBRARY_PATH", libraries)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("starting redis-server: {error}"));
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if child.try_wait().ok().flatten().is_some() {
                return false;
            }
            assert!(Instant::now() < end, "redis-server is not up within {DEADLINE:?}");
            sleep(Duration::from_millis(20)).await;
        }
        self.child = Some(child);
        true
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// As a host's document has it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.has_tls { "rediss" } else { "redis" };
        format!("{scheme}://localhost:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
