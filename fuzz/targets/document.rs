//! A document that somebody wrote, and JSON that an edge has pushed: every mistake of it is reported, and none is
//! a panic.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use adit_host::config::document::ConfigSource;
use adit_host::config::plan::Plan;
use adit_host::config::{parse, reasons, remote};
use libfuzzer_sys::fuzz_target;

/// Nothing of what a document names is there.
const FOLDER: &str = "/nowhere";

fuzz_target!(|text: &str| {
    // No document begins so.
    if text.starts_with('{') {
        for policy in [ConfigSource::Remote, ConfigSource::Layered] {
            match remote::overlay(&mut local().clone(), policy, text.as_bytes(), Path::new(FOLDER)) {
                Ok(()) => {}
                Err(reasons) => assert!(!reasons.is_empty()),
            }
        }
    } else if let Err(mistakes) = parse("host.toml", text, Path::new(FOLDER)) {
        assert!(!reasons(&mistakes).is_empty());
    }
});

/// What is pushed over: a plan with a rule and a plugin.
fn local() -> &'static Plan {
    static LOCAL: OnceLock<Plan> = OnceLock::new();
    LOCAL.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("adit-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for credentials");
        std::fs::write(folder.join("demo.json"), CREDENTIALS).expect("credentials are written");
        let plan = parse("host.toml", DOCUMENT, &folder).expect("a good document").1;
        let _ = std::fs::remove_dir_all(&folder);
        plan
    })
}

const CREDENTIALS: &str = r#"{"AccountTag":"account","TunnelSecret":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMw==","TunnelID":"6b2a4c1e-8f0d-4a3b-9c5e-1d2f3a4b5c6d"}"#;
const DOCUMENT: &str = r#"
[tunnel]
credentials-file = "demo.json"
edges = ["127.0.0.1:7844"]

[[plugin]]
name = "auth"
component = "a.wasm"

[[ingress]]
name = "mine"
hostname = "mine.example.com"
service = "hello_world"
plugins = ["auth"]

[[ingress]]
name = "last"
service = "http_status:404"
"#;
