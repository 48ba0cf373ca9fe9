//! A registry that components are pushed to: Debian's docker-registry, which `cargo xtask test` fetches. A
//! machine without it [skips](crate::skip) what needs it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Process, target};

/// A running registry with a folder of its own.
pub struct Registry {
    pub process: Process,
    pub address: SocketAddr,
    /// Where it keeps what is pushed.
    pub folder: PathBuf,
}

impl Registry {
    /// On a free port, with its files below `folder`. With a line of an htpasswd file it asks everybody who they
    /// are. `None` where there is no such program.
    pub async fn start(folder: &Path, htpasswd: Option<&str>) -> Option<Self> {
        let named = std::env::var_os("ADIT_DOCKER_REGISTRY").map(PathBuf::from);
        let program = named.unwrap_or_else(|| target().join("tools/docker-registry/usr/bin/docker-registry"));
        if !program.is_file() {
            crate::skip(&format!("there is no {}; `cargo xtask setup` fetches it", program.display()));
            return None;
        }
        let storage = folder.join("registry");
        let mut config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {storage:?}\nhttp:\n  addr: 127.0.0.1:0\n"
        );
        if let Some(line) = htpasswd {
            let path = folder.join("htpasswd");
            std::fs::write(&path, format!("{line}\n")).expect("the folder can be written");
            let _ = write!(config, "auth:\n  htpasswd:\n    realm: test\n    path: {path:?}\n");
        }
        let path = folder.join("registry.yml");
        std::fs::write(&path, config).expect("the folder can be written");
        let mut command = Command::new(program);
        command.arg("serve").arg(&path).env("OTEL_TRACES_EXPORTER", "none");
        let process = Process::start("registry", command);
        let said = process.said("where it listens", |line| line.contains("listening on 127.0.0.1:")).await;
        let port = said.split("listening on ").nth(1).and_then(|rest| {
            rest.split(|c: char| c == '"' || c.is_whitespace()).next()?.trim_end_matches('"').parse().ok()
        });
        let address = port.unwrap_or_else(|| panic!("no address in {said}"));
        Some(Self { process, address, folder: storage })
    }

    /// A reference to what lies there.
    pub fn reference(&self, name: &str) -> String {
        format!("oci://{}/{name}", self.address)
    }
}
