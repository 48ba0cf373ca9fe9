//! The interoperability cases of gRPC itself, by the implementation of gRPC that most languages use, through
//! the tunnel. `cargo xtask test` fetches it; `ADIT_GRPC` names another Python that has it. A machine without
//! it [skips](e2e::skip) what is here.

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::process::{Process, target};
use e2e::product::Product;

#[tokio::test]
async fn the_interoperability_cases_of_grpc_pass_through_the_tunnel() {
    let named = std::env::var_os("ADIT_GRPC").map(PathBuf::from);
    let python = named.unwrap_or_else(|| target().join("tools/grpc/bin/python"));
    if !python.is_file() {
        return e2e::skip(&format!("there is no {}; `cargo xtask test` fetches it", python.display()));
    }
    let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("grpc/interop.py");
    let run = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.arg(&interop).args(arguments);
        Process::start(name, command)
    };
    let server = run("gRPC server", &["serve"]);
    let port = server.printed("port ").await;
    let port = port.trim_start_matches("port ");
    let rule = format!("service = \"http://127.0.0.1:{port}\"\n[ingress.origin]\nhttp2 = true");
    let host = HostDocument::new().over(super::PROTOCOL).rule(&rule);
    let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
    let client = run("gRPC client", &["ask", &product.edge.http.to_string(), HOST]);
    let status = client.exit().await;
    assert!(status.success(), "{}\n{}", client.output(), client.log());
    assert_eq!(client.output().lines().filter(|line| line.starts_with("ok ")).count(), CASES);
}

/// All that the program knows.
const CASES: usize = 16;
