//! The interoperability cases of gRPC itself, by the implementation of gRPC that most languages use, through
//! the tunnel. `cargo xtask test` fetches it; `ADIT_GRPC` names another Python that has it. A machine without
//! it [skips](e2e::skip) what is here.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::certificate::Certificate;
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::process::{Process, target};
use e2e::product::Product;
use e2e::reference;

#[tokio::test]
async fn the_interoperability_cases_of_grpc_pass_through_the_tunnel() {
    let Some(python) = python() else { return };
    for scheme in ["http", "https"] {
        pass(&python, scheme, super::PROTOCOL).await;
    }
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn the_interoperability_cases_of_grpc_pass_through_the_reference_connector_over_http2() {
    // It stands in for our host wherever it is named. Over QUIC it has no place for trailers.
    reference::program();
    let python = python().expect("a Python that has gRPC");
    pass(&python, "https", "http2").await;
}

fn python() -> Option<PathBuf> {
    let named = std::env::var_os("ADIT_GRPC").map(PathBuf::from);
    let python = named.unwrap_or_else(|| target().join("tools/grpc/bin/python"));
    if python.is_file() {
        return Some(python);
    }
    e2e::skip(&format!("there is no {}; `cargo xtask test` fetches it", python.display()));
    None
}

/// Every case, with a server of this scheme.
async fn pass(python: &Path, scheme: &str, protocol: &'static str) {
    let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("grpc/interop.py");
    let run = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(python);
        command.arg(&interop).args(arguments);
        Process::start(name, command)
    };
    let folder = tempfile::tempdir().expect("a folder");
    let files = ["server.pem", "server.key"].map(|name| folder.path().join(name).display().to_string());
    let mut serve = vec!["serve"];
    if scheme == "https" {
        for (file, pem) in files.iter().zip(Certificate::new(&["localhost"]).pem()) {
            std::fs::write(file, pem).expect("the folder can be written to");
            serve.push(file);
        }
    }
    let server = run("gRPC server", &serve);
    let port = server.printed("port ").await;
    let port = port.trim_start_matches("port ");
    let rule = format!(
        "service = \"{scheme}://127.0.0.1:{port}\"\n[ingress.origin]\nhttp2 = true\ntls-verify = false"
    );
    let host = HostDocument::new().over(protocol).rule(&rule);
    let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
    let client = run("gRPC client", &["ask", &product.edge.http.to_string(), HOST]);
    let status = client.exit().await;
    assert!(status.success(), "{scheme}: {}\n{}", client.output(), client.log());
    assert_eq!(client.output().lines().filter(|line| line.starts_with("ok ")).count(), CASES);
}

/// All that the program knows.
const CASES: usize = 16;
