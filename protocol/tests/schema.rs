//! The Rust code under `src/schema/` is what the compiler makes of `schema/*.capnp` today.
//!
//! After a change of a schema, write it anew with
//! `ADIT_REGENERATE=1 cargo test -p adit-protocol --test schema`.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SCHEMAS: [&str; 2] = ["tunnelrpc", "quic_metadata_protocol"];

#[test]
fn the_committed_schema_code_is_fresh() {
    let installed = Command::new("capnp").arg("--version").stdout(Stdio::null()).status();
    if !installed.is_ok_and(|status| status.success()) {
        println!("skipped: `capnp` is not installed, so the committed code cannot be compared");
        return;
    }

    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = crate_root.join("src/schema");
    let generated = tempfile::tempdir().unwrap();
    let mut compiler = capnpc::CompilerCommand::new();
    compiler
        .src_prefix(crate_root.join("schema"))
        .no_standard_import()
        .default_parent_module(vec!["schema".into()])
        .output_path(generated.path());
    for schema in SCHEMAS {
        compiler.file(crate_root.join("schema").join(schema).with_extension("capnp"));
    }
    compiler.run().unwrap();

    let regenerate = std::env::var_os("ADIT_REGENERATE").is_some();
    for schema in SCHEMAS {
        let file = PathBuf::from(format!("{schema}_capnp.rs"));
        let fresh = std::fs::read_to_string(generated.path().join(&file)).unwrap();
        if regenerate {
            std::fs::write(committed.join(&file), &fresh).unwrap();
        }
        let ours = std::fs::read_to_string(committed.join(&file)).unwrap();
        assert!(
            content(&ours).eq(content(&fresh)),
            "{} is not what the schema says: run this test with ADIT_REGENERATE=1",
            file.display()
        );
    }
}

/// Everything but the line that names the version of the installed compiler.
fn content(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter(|line| !line.starts_with("// capnp binary version:"))
}
