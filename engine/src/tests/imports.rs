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

/// What a guest says that speaks `wasi:config`, `wasi:keyvalue` and `wasi:logging` in these versions.
async fn said_by_standard_imports(config: &str, keyvalue: &str, cursor: &str, logging: &str) -> Vec<String> {
    let module = r#"
        (type $say (func (param i32 i32 i32 i32 i32)))
        (type $ask (func (param i32 i32 i32)))
        (type $set (func (param i32 i32 i32 i32 i32 i32)))
        (type $get (func (param i32 i32 i32 i32)))
        (table (export "host") 5 funcref)
        (data (i32.const 2048) "seencolourbluelookstext")
        (func $tell (param $at i32)
            (call_indirect (type $say) (i32.const 3) (i32.const 2062) (i32.const 5)
                (i32.load (i32.add (local.get $at) (i32.const 8)))
                (i32.load (i32.add (local.get $at) (i32.const 12)))
                (i32.const 0)))"#;
    let act = format!(
        r#"
        (call_indirect (type $ask) (i32.const 2067) (i32.const 4) (i32.const 3000) (i32.const 1))
        (call $tell (i32.const 3000))
        (call_indirect (type $ask) (i32.const 2048) (i32.const 4) (i32.const 3100) (i32.const 2))
        (call_indirect (type $set) (i32.load (i32.const 3104)) (i32.const 2052) (i32.const 6)
            (i32.const 2058) (i32.const 4) (i32.const 3200) (i32.const 3))
        (call_indirect (type $get) (i32.load (i32.const 3104)) (i32.const 2052) (i32.const 6)
            (i32.const 3300) (i32.const 4))
        (call $tell (i32.const 3300))
        {NEXT}"#
    );
    let behind = format!(
        r#"
        (import "wasi:config/store@{config}" (instance $config
            (type $error (variant (case "upstream" string) (case "io" string)))
            (export "error" (type $named (eq $error)))
            (type $maybe (option string))
            (type $answer (result $maybe (error $named)))
            (export "get" (func (param "key" string) (result $answer)))))
        (import "wasi:keyvalue/store@{keyvalue}" (instance $store
            (type $error (variant (case "no-such-store") (case "access-denied") (case "other" string)))
            (export "error" (type $named (eq $error)))
            (type $keys (record (field "keys" (list string)) (field "cursor" (option {cursor}))))
            (export "key-response" (type (eq $keys)))
            (export "bucket" (type $bucket (sub resource)))
            (type $opened (result (own $bucket) (error $named)))
            (export "open" (func (param "identifier" string) (result $opened)))
            (type $done (result (error $named)))
            (export "[method]bucket.set" (func
                (param "self" (borrow $bucket)) (param "key" string) (param "value" (list u8)) (result $done)))
            (type $maybe (option (list u8)))
            (type $value (result $maybe (error $named)))
            (export "[method]bucket.get" (func
                (param "self" (borrow $bucket)) (param "key" string) (result $value)))))
        (import "{logging}" (instance $logging
            (type $levels (enum "trace" "debug" "info" "warn" "error" "critical"))
            (export "level" (type $level (eq $levels)))
            (export "log" (func
                (param "level" $level) (param "context" string) (param "message" string)))))
        (core func $log (canon lower (func $logging "log") (memory $memory)))
        (core func $ask (canon lower (func $config "get") (memory $memory) (realloc $cabi_realloc)))
        (core func $open (canon lower (func $store "open") (memory $memory) (realloc $cabi_realloc)))
        (core func $set
            (canon lower (func $store "[method]bucket.set") (memory $memory) (realloc $cabi_realloc)))
        (core func $get
            (canon lower (func $store "[method]bucket.get") (memory $memory) (realloc $cabi_realloc)))
        (core module $fill
            (import "" "host" (table 5 funcref))
            (import "" "log" (func $log (param i32 i32 i32 i32 i32)))
            (import "" "ask" (func $ask (param i32 i32 i32)))
            (import "" "open" (func $open (param i32 i32 i32)))
            (import "" "set" (func $set (param i32 i32 i32 i32 i32 i32)))
            (import "" "get" (func $get (param i32 i32 i32 i32)))
            (elem (i32.const 0) func $log $ask $open $set $get))
        (core instance (instantiate $fill (with "" (instance
            (export "host" (table $main "host"))
            (export "log" (func $log))
            (export "ask" (func $ask))
            (export "open" (func $open))
            (export "set" (func $set))
            (export "get" (func $get))))))"#
    );
    let wasm = filter_that_imports(module, &act, &behind);
    let compiled = Compiled::new(engine(), "tested", &wasm).await.unwrap_or_else(|error| panic!("{error}"));
    let mut plan = plan(r#"{"text": "from the document"}"#);
    plan.grants = grants("buckets = { seen = \"1KiB\" }");
    let test_host = TestHost::default();
    let plugin = compiled.plugin(&Arc::new(plan), &Secrets::default(), &test_host).await;
    let chain = Chain::new(vec![Arc::new(plugin.unwrap_or_else(|error| panic!("{error}")))]);
    progress(&chain, &[]).await;
    let heard = test_host.heard.lock().expect("nobody panics").clone();
    heard.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn standard_imports_for_configuration_values_and_logs_are_what_a_plugin_has_here() {
    for (config, keyvalue, cursor, logging) in [
        ("0.2.0-rc.1", "0.2.0-draft", "u64", "wasi:logging/logging"),
        ("0.2.0-draft-2024-09-27", "0.2.0-draft2", "string", "wasi:logging/logging@0.1.0-draft"),
    ] {
        let said = said_by_standard_imports(config, keyvalue, cursor, logging).await;
        assert_eq!(said, ["warn: looks: from the document", "warn: looks: blue"], "{keyvalue}");
    }
}
