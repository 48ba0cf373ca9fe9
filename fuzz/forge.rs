//! What the targets share: components by hand, and what they are loaded with.

#![cfg(feature = "host")]

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use adit_host::config::grants::Grants;
use adit_host::config::plan::{Limits, OnError, PluginPlan};
use adit_host::plugin::{Engine, EngineSettings};
use tokio::runtime::Runtime;

/// A component of the oldest published version; `MODULE` stands for the fields of its core module.
const PUBLISHED: &str = include_str!("../tests/guests/published/request-filter-0.1.0.wat");

/// A good filter of requests whose decision lies at address 2048, where `image` is.
pub fn filter(image: &[u8]) -> Vec<u8> {
    let image: String = image.iter().map(|byte| format!("\\{byte:02x}")).collect();
    // Address 1024 is all zeroes: an empty manifest, and a good configuration.
    let module = format!(
        r#"
        (memory (export "memory") 1)
        (data (i32.const 2048) "{image}")
        (global $end (mut i32) (i32.const 16384))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (global.get $end))
            (global.set $end
                (i32.and (i32.add (i32.add (global.get $end) (local.get 3)) (i32.const 7)) (i32.const -8)))
            (local.get $at))
        (func (export "adit:plugin/lifecycle@0.1.0#describe") (result i32) (i32.const 1024))
        (func (export "adit:plugin/lifecycle@0.1.0#configure") (param i32 i32) (result i32) (i32.const 1024))
        (func (export "adit:plugin/request-filter@0.1.0#on-request")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (i32.const 2048))"#
    );
    wat::parse_str(PUBLISHED.replacen("MODULE)", &format!("{module})"), 1)).expect("good text")
}

/// One engine for all, as a process has one.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| Engine::new(EngineSettings { instances: 10 }).expect("the engine starts"))
}

pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("the runtime starts")
    })
}

/// Small limits, nothing granted.
pub fn plan() -> PluginPlan {
    PluginPlan {
        name: "fuzzed".to_owned(),
        component: PathBuf::from("not read here"),
        config: "{}".to_owned(),
        on_error: OnError::Deny,
        limits: Limits { memory: 16 << 20, timeout: Some(Duration::from_millis(50)), concurrency: 1 },
        grants: Grants::default(),
        reuse: None,
        experimental: true,
        tick: Duration::from_secs(3600),
    }
}
