//! What the targets share: components by hand, and what they are loaded with.

#![cfg(feature = "host")]

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use adit_engine::{Engine, EngineSettings};
use adit_rules::grants::Grants;
use adit_rules::plan::{Limits, OnError, PluginPlan};
use tokio::runtime::Runtime;

/// A component of the oldest published version; `MODULE` stands for the fields of its core module.
const PUBLISHED: &str = include_str!("../tests/guests/published/request-filter-0.1.0.wat");

/// Where a guest's decision lies, and its image with it.
pub const DECISION: u32 = 2048;
/// Most bytes of an image: before what the guest is given.
pub const LARGEST_IMAGE: usize = 8192;

/// A good filter of requests whose decision lies at [`DECISION`], where what [`configuration`] says is put.
/// Always the same component, which an engine compiles once.
pub fn filter() -> Vec<u8> {
    // Address 1024 is all zeroes: an empty manifest, and a good configuration.
    let module = r#"
        (memory (export "memory") 1)
        (global $end (mut i32) (i32.const 16384))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (global.get $end))
            (global.set $end
                (i32.and (i32.add (i32.add (global.get $end) (local.get 3)) (i32.const 7)) (i32.const -8)))
            (local.get $at))
        (func (export "adit:plugin/lifecycle@0.1.0#describe") (result i32) (i32.const 1024))
        (func (export "adit:plugin/lifecycle@0.1.0#configure") (param $at i32) (param $end i32) (result i32)
            (local $to i32)
            (local.set $to (i32.const 2048))
            ;; Between {"i":" and "} are two letters for each byte.
            (local.set $end (i32.sub (i32.add (local.get $at) (local.get $end)) (i32.const 2)))
            (local.set $at (i32.add (local.get $at) (i32.const 6)))
            (block $whole (loop $byte
                (br_if $whole (i32.ge_s (local.get $at) (local.get $end)))
                (i32.store8 (local.get $to) (i32.or
                    (i32.shl (i32.sub (i32.load8_u (local.get $at)) (i32.const 97)) (i32.const 4))
                    (i32.sub (i32.load8_u offset=1 (local.get $at)) (i32.const 97))))
                (local.set $at (i32.add (local.get $at) (i32.const 2)))
                (local.set $to (i32.add (local.get $to) (i32.const 1)))
                (br $byte)))
            (i32.const 1024))
        (func (export "adit:plugin/request-filter@0.1.0#on-request")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (i32.const 2048))"#;
    wat::parse_str(PUBLISHED.replacen("MODULE)", &format!("{module})"), 1)).expect("good text")
}

/// What makes [`filter`] put `image` where its decision lies.
pub fn configuration(image: &[u8]) -> String {
    let letter = |half: u8| char::from(b'a' + half);
    let letters: String = image.iter().flat_map(|byte| [letter(byte >> 4), letter(byte & 15)]).collect();
    format!(r#"{{"i":"{letters}"}}"#)
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
        on_away: OnError::Deny,
        limits: Limits { memory: 16 << 20, timeout: Some(Duration::from_millis(50)), concurrency: 1 },
        grants: Grants::default(),
        reuse: None,
        experimental: true,
        tick: Duration::from_secs(3600),
    }
}
