//! Imports: which version of which interface a component finds served, and what one that is not costs.

use super::forge::{NEXT, filter_that_imports};
use super::*;

/// A filter that imports a clock in this version, and functions in an interface that no host has.
fn with_an_unserved_import(act: &str, version: &str) -> Vec<u8> {
    let module = r#"
        (type $now (func (result i64)))
        (type $do (func (result i32)))
        (table (export "host") 2 funcref)"#;
    let behind = format!(
        r#"
        (import "wasi:clocks/monotonic-clock@{version}" (instance $clock (export "now" (func (result u64)))))
        (import "wasi:io/poll@{version}" (instance $poll (export "pollable" (type (sub resource)))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:made-up/things@0.2.0-rc.1" (instance $things
            (alias outer 1 $pollable (type $used))
            (export "pollable" (type $own (eq $used)))
            (export "thing" (type $thing (sub resource)))
            (export "ready" (func (param "of" (own $own)) (result (own $thing))))
            (export "do" (func (result u32)))))
        (core func $now (canon lower (func $clock "now")))
        (core func $do (canon lower (func $things "do")))
        (core module $fill
            (import "" "host" (table 2 funcref))
            (import "" "now" (func $now (result i64)))
            (import "" "do" (func $do (result i32)))
            (elem (i32.const 0) func $now $do))
        (core instance (instantiate $fill (with "" (instance
            (export "host" (table $main "host"))
            (export "now" (func $now))
            (export "do" (func $do))))))"#
    );
    filter_that_imports(module, act, &behind)
}

async fn decided(act: &str, version: &str) -> RequestOutcome {
    let wasm = with_an_unserved_import(act, version);
    let plugin = Plugin::load(engine(), &Arc::new(plan("{}")), &wasm, &Secrets::default(), 1).await;
    let plugin = plugin.unwrap_or_else(|error| panic!("{version}: {error}"));
    ask(&Chain::new(vec![Arc::new(plugin)]), &[]).await
}

/// All of WASI trapped, or the load was refused, by the version of what was served.
#[tokio::test]
async fn an_import_of_wasi_that_is_not_served_breaks_nothing_but_its_own_calls() {
    let clock = format!("(drop (call_indirect (type $now) (i32.const 0))) {NEXT}");
    let other = format!("(drop (call_indirect (type $do) (i32.const 1))) {NEXT}");
    for version in ["0.2.0", "0.2.6", "0.2.12"] {
        let outcome = decided(&clock, version).await;
        assert!(matches!(outcome, RequestOutcome::Continue(_)), "{version}: {outcome:?}");
        let RequestOutcome::Failed(failure) = decided(&other, version).await else {
            panic!("it did something")
        };
        let FailureKind::Trap { reason } = failure.kind else { panic!("{failure}") };
        assert_eq!(reason, "wasi:made-up/things@0.2.0-rc.1#do is not served here");
    }
}
