//! etcd for tests with real processes: the one that the edge's own tests use, ended with the test. Without it a test is
//! skipped, unless `ADIT_SKIP_NOTHING=1`. Its version is below the floor, so edges are told `allow-old`.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::DEADLINE;
use crate::visitor::{Speaks, Visitor, to, with_text};

/// The program, if it is there.
pub fn program() -> Option<PathBuf> {
    let named = std::env::var_os("ADIT_ETCD").map(PathBuf::from);
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/etcd-server/usr/bin/etcd");
    let program = named.unwrap_or(usual);
    if program.is_file() {
        return Some(program);
    }
    crate::skip(&format!("there is no {}; `cargo xtask setup` fetches it", program.display()));
    None
}

/// One member or several, with records of their own.
pub struct Etcd {
    members: Vec<Member>,
    program: PathBuf,
    folder: tempfile::TempDir,
}

struct Member {
    child: Option<Child>,
    port: u16,
    peer: u16,
}

impl Etcd {
    /// `None` where there is no such program.
    pub async fn start() -> Option<Self> {
        Self::of(1).await
    }

    /// The same with so many members.
    pub async fn of(members: usize) -> Option<Self> {
        let program = program()?;
        for _ in 0..5 {
            let member = || Member { child: None, port: free_port(), peer: free_port() };
            let members = (0..members).map(|_| member()).collect();
            let folder = tempfile::tempdir().expect("a folder");
            let mut all = Self { members, program: program.clone(), folder };
            (0..all.members.len()).for_each(|at| all.spawn(at));
            if all.are_up().await {
                return Some(all);
            }
            // Another program has taken one of the ports meanwhile.
        }
        panic!("etcd does not start");
    }

    fn spawn(&mut self, at: usize) {
        let all: Vec<String> = self
            .members
            .iter()
            .enumerate()
            .map(|(at, one)| format!("m{at}=http://127.0.0.1:{}", one.peer))
            .collect();
        let Member { child, port, peer } = &mut self.members[at];
        let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let started = Command::new(&self.program)
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("m{at}")))
            .args(["--name", &format!("m{at}"), "--initial-cluster", &all.join(",")])
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        *child = Some(started.unwrap_or_else(|error| panic!("starting {}: {error}", self.program.display())));
    }

    /// False: one of them has ended by itself.
    async fn are_up(&mut self) -> bool {
        let end = Instant::now() + DEADLINE;
        for Member { child, port, .. } in &mut self.members {
            while TcpStream::connect(("127.0.0.1", *port)).await.is_err() {
                if child.as_mut().is_none_or(|child| child.try_wait().ok().flatten().is_some()) {
                    return false;
                }
                assert!(Instant::now() < end, "etcd is not up within {DEADLINE:?}");
                sleep(Duration::from_millis(20)).await;
            }
        }
        true
    }

    /// As an edge's document has it.
    #[must_use]
    pub fn address(&self, fleet: &str) -> String {
        let members: Vec<String> = self.clients().iter().map(ToString::to_string).collect();
        format!("etcd://{}/{fleet}", members.join(","))
    }

    /// Where its members take requests.
    pub fn clients(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| SocketAddr::from(([127, 0, 0, 1], member.port))).collect()
    }

    /// Ends a member at once; nothing if it has ended.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a member again, with what it had.
    pub async fn start_again(&mut self, at: usize) {
        self.spawn(at);
        assert!(self.are_up().await, "etcd ends by itself");
    }

    /// Nothing is answered any more, and nobody is told.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let children = self.members.iter().filter_map(|member| member.child.as_ref());
        for child in children {
            let process = Pid::from_raw(child.id().cast_signed()).expect("a process");
            kill_process(process, signal).expect("a child of ours");
        }
    }

    /// Which member leads.
    pub async fn leader(&self) -> usize {
        let end = Instant::now() + DEADLINE;
        loop {
            for (at, member) in self.members.iter().enumerate().filter(|(_, member)| member.child.is_some()) {
                let address = SocketAddr::from(([127, 0, 0, 1], member.port));
                let request = with_text(to("POST", "/v3/maintenance/status").header("host", "etcd"), "{}");
                let Ok(status) = tokio::time::timeout(
                    Duration::from_secs(2),
                    Visitor::new(address, Speaks::Http1, None).send(request),
                )
                .await
                else {
                    continue;
                };
                let status: Value = status.json();
                let (own, leader) = (&status["header"]["member_id"], &status["leader"]);
                if own.is_string() && own == leader {
                    return at;
                }
            }
            assert!(Instant::now() < end, "nobody leads within {DEADLINE:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The processes of its members.
    pub fn processes(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| Some(member.child.as_ref()?.id())).collect()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|at| self.kill(at));
    }
}

fn free_port() -> u16 {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    socket.local_addr().expect("it is bound").port()
}
