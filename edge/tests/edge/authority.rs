//! An authority that speaks ACME: Debian's pebble, which `cargo xtask test` fetches, and which asks a name server of
//! this file. Without it a test is skipped, unless `ADIT_SKIP_NOTHING=1`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

use crate::shown_certificates::until;

/// An authority that was not started yet: an edge is told of it first.
pub(crate) struct Planned {
    program: PathBuf,
    port: u16,
    folder: tempfile::TempDir,
    names: std::net::UdpSocket,
    /// How long the name server of this file takes.
    delay: Duration,
    /// Whom it takes orders from: an id and a key in base64url.
    customer: Option<(&'static str, &'static str)>,
}

/// A running one. Dropping it stops it.
pub(crate) struct Authority {
    child: Child,
    folder: tempfile::TempDir,
    _names: AbortOnDropHandle<()>,
}

impl Planned {
    /// `None` where there is no such program.
    pub(crate) fn new() -> Option<Self> {
        let named = std::env::var_os("ADIT_PEBBLE").map(PathBuf::from);
        let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/pebble/usr/bin/pebble");
        let program = named.unwrap_or(usual);
        if !program.is_file() {
            let reason = format!("there is no {}; `cargo xtask setup` fetches it", program.display());
            let must_not = std::env::var_os("ADIT_SKIP_NOTHING").is_some_and(|set| set == "1");
            assert!(!must_not, "{reason}, and ADIT_SKIP_NOTHING is set");
            eprintln!("SKIPPED: {reason}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        for (file, text) in
            [("root.pem", root.pem()), ("own.pem", leaf.pem()), ("own.key", key.serialize_pem())]
        {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let names = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        names.set_nonblocking(true).unwrap();
        Some(Self { program, port: free_port(), folder, names, delay: Duration::ZERO, customer: None })
    }

    /// One that asks a name server which takes so long.
    pub(crate) fn slow(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// One that takes orders from nobody else.
    pub(crate) fn of_customer(self, id: &'static str, key: &'static str) -> Self {
        Self { customer: Some((id, key)), ..self }
    }

    /// What an edge's document says about it, with more keys.
    pub(crate) fn section(&self, keys: &str) -> String {
        let ca = self.folder.path().join("root.pem");
        let (port, resolver) = (self.port, self.names.local_addr().unwrap());
        format!(
            "[acme]\nemail = \"ops@example.com\"\ndirectory = \"https://127.0.0.1:{port}/dir\"\ndirectory-ca = {ca:?}\nresolver = \"{resolver}\"\norders-per-minute = 1000\n{keys}\n"
        )
    }

    /// Starts it: it looks at names at these addresses of an edge, and issues for so many seconds.
    pub(crate) async fn start(self, http: SocketAddr, https: SocketAddr, seconds: u64) -> Authority {
        let server = self.names.local_addr().unwrap();
        self.start_asking(http, https, seconds, server).await
    }

    /// The same, which asks this name server.
    pub(crate) async fn start_asking(
        self,
        http: SocketAddr,
        https: SocketAddr,
        seconds: u64,
        server: SocketAddr,
    ) -> Authority {
        let Self { program, port, folder, names, delay, customer } = self;
        let names = UdpSocket::from_std(names).unwrap();
        let names = AbortOnDropHandle::new(tokio::spawn(everything_is_here(names, delay)));
        let customers: serde_json::Map<String, serde_json::Value> =
            customer.iter().map(|(id, key)| ((*id).to_owned(), (*key).into())).collect();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": "127.0.0.1:0",
            "certificate": folder.path().join("own.pem"),
            "privateKey": folder.path().join("own.key"),
            "httpPort": http.port(),
            "tlsPort": https.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": customer.is_some(),
            "externalAccountMACKeys": customers,
            "certificateValidityPeriod": seconds,
        }});
        let path = folder.path().join("pebble.json");
        fs::write(&path, config.to_string()).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command.arg("-config").arg(&path).arg("-dnsserver").arg(server.to_string());
        // No pauses between what it is asked and what it does; bad nonces it still sends.
        command.env("PEBBLE_VA_NOSLEEP", "1").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        until(async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        Authority { child, folder, _names: names }
    }
}

impl Authority {
    /// How many orders it has seen.
    pub(crate) fn orders(&self) -> usize {
        self.log().matches("Added order").count()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A name server for which every name has the address of this machine, and nothing else; but for `nowhere.`, which is
/// none.
async fn everything_is_here(socket: UdpSocket, delay: Duration) {
    let socket = Arc::new(socket);
    let mut question = [0; 512];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut question).await else { continue };
        // Behind the head: labels, an empty one, type and class.
        let mut end = 12;
        while end < length && question[end] != 0 {
            end += 1 + usize::from(question[end]);
        }
        let end = end + 5;
        if end > length {
            continue;
        }
        let is_none = question[12..end].starts_with(b"\x07nowhere");
        let is_address = question[end - 4..end - 2] == [0, 1] && !is_none;
        let mut answer = question[..end].to_vec();
        answer[2..4].copy_from_slice(&[0x84, if is_none { 3 } else { 0 }]);
        answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
        if is_address {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
        }
        let socket = socket.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = socket.send_to(&answer, from).await;
        });
    }
}
