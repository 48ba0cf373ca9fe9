//! Guests that want to hurt: what becomes of each, and that nothing else does.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use super::forge::{NEXT, filter};
use super::*;

async fn forged(more: &str, act: &str) -> Result<Arc<Plugin>, LoadError> {
    let wasm = filter(more, act);
    Plugin::load(engine(), &Arc::new(plan("{}")), &wasm, &Secrets::default(), 1).await.map(Arc::new)
}

/// What a guest printed was nobody's: its lines bore no id.
#[tokio::test]
async fn what_a_guest_prints_bears_the_id_of_the_request() {
    let compiled = Compiled::new(engine(), "tested", &component(MISBEHAVE)).await.expect("a good component");
    let test_host = TestHost::default();
    let plugin = compiled.plugin(&Arc::new(plan("{}")), &Secrets::default(), &test_host).await;
    let chain = Chain::new(vec![Arc::new(plugin.expect("a good plugin"))]);
    request_failure(&chain, "panic").await;
    let heard = test_host.heard.lock().expect("nobody panics").clone();
    let printed = heard.iter().find(|line| line.message.contains("panicked"));
    let line = printed.unwrap_or_else(|| panic!("it prints: {heard:?}"));
    assert_eq!((line.level, line.request.as_str()), (tracing::Level::DEBUG, FACTS.id));
}

#[tokio::test]
async fn a_component_of_the_oldest_published_version_loads_and_is_called() {
    let plugin = forged("", NEXT).await.expect("a good plugin");
    let chain = Chain::new(vec![plugin.clone()]);
    for _ in 0..100 {
        progress(&chain, &[]).await;
    }
    assert_eq!(plugin.counters().calls, 100);
}

#[tokio::test]
async fn instances_of_a_filter_are_used_again_for_a_long_time_and_not_for_ever() {
    let plugin = forged("", NEXT).await.expect("a good plugin");
    let chain = Chain::new(vec![plugin.clone()]);
    for _ in 0..9_000 {
        progress(&chain, &[]).await;
    }
    assert_eq!(plugin.counters().instantiations, 1);
    for _ in 0..52_000 {
        progress(&chain, &[]).await;
    }
    let made = plugin.counters().instantiations;
    assert!((3..=7).contains(&made), "{made} instances for 61,000 calls");
}

#[tokio::test]
async fn a_filter_gets_a_fresh_instance_for_each_call_if_the_document_says_so() {
    let (chain, plugin) = counting(|plan| plan.reuse = Some(false)).await;
    for _ in 0..5 {
        exchange(&chain, &[]).await;
    }
    // Two calls each; the first used what the load had made.
    assert_eq!(plugin.counters().instantiations, 10);
}

#[tokio::test]
async fn a_start_function_that_never_ends_is_stopped_and_refuses_the_load() {
    let loops = "(func $for-ever (loop $again (br $again))) (start $for-ever)";
    // It runs on this thread.
    let worked = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a time");
    let before = worked();
    let error = forged(loops, NEXT).await.expect_err("it never starts");
    assert!(worked() - before < Duration::from_secs(4), "{:?}", worked() - before);
    let LoadError::Broken { during, kind, .. } = &error else { panic!("{error}") };
    assert_eq!((*during, kind.word()), ("instantiation", "timeout"));
    let said = error.to_string();
    assert!(said.contains("run for 2s"), "{said}");
    let traps = "(func $trap (unreachable)) (start $trap)";
    let error = forged(traps, NEXT).await.expect_err("it never starts");
    assert!(matches!(error, LoadError::Broken { during: "instantiation", .. }), "{error}");
}

#[tokio::test]
async fn a_component_that_wants_too_much_at_once_is_refused_by_the_limit() {
    for (more, named) in [
        ("(table 1000000 funcref)", "table"),
        ("(table 20001 funcref)", "table"),
        ("(memory $second 65536)", "memories"),
    ] {
        let error = forged(more, NEXT).await.expect_err(more);
        assert!(error.to_string().contains(named), "{more}: {error}");
    }
}

#[tokio::test]
async fn a_table_and_a_memory_that_grow_for_ever_stop_at_their_limits() {
    // Grows by a thousand elements or a page until the host says no, then goes on as if nothing
    // had happened if at most as many fitted as are allowed, and traps if there were more.
    let table = format!(
        "(loop $again (br_if $again (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000)))))
         (if (i32.gt_u (table.size $t) (i32.const 20000)) (then (unreachable))) {NEXT}"
    );
    let plugin = forged("(table $t 1 funcref)", &table).await.expect("it starts small");
    progress(&Chain::new(vec![plugin]), &[]).await;
    let memory = format!(
        "(loop $again (br_if $again (i32.ne (i32.const -1) (memory.grow (i32.const 1)))))
         (if (i32.gt_u (memory.size) (i32.const 64)) (then (unreachable))) {NEXT}"
    );
    let plugin = forged("", &memory).await.expect("it starts small");
    progress(&Chain::new(vec![plugin]), &[]).await;
}

#[tokio::test]
async fn pointers_out_of_memory_and_lists_without_end_are_traps() {
    for act in [
        // An answer that lies outside of the memory, or is not aligned.
        "(i32.const 0x7ffffff0)",
        "(i32.const 1025)",
        // `ok(edit)` whose list of headers has 2^31 entries, and one that overlaps the end.
        "(i32.store (i32.const 2048) (i32.const 0)) (i32.store (i32.const 2052) (i32.const 1))
         (i32.store (i32.const 2092) (i32.const 8)) (i32.store (i32.const 2096) (i32.const 0x7fffffff))
         (i32.const 2048)",
        // A case that there is not.
        "(i32.store (i32.const 2048) (i32.const 0)) (i32.store (i32.const 2052) (i32.const 77)) (i32.const 2048)",
    ] {
        let plugin = forged("", act).await.expect("it loads");
        let chain = Chain::new(vec![plugin]);
        let RequestOutcome::Failed(failure) = ask(&chain, &[]).await else { panic!("{act} did no harm") };
        assert_eq!(failure.kind.word(), "trap", "{act}: {failure}");
    }
}

#[tokio::test]
async fn a_plugin_that_breaks_again_and_again_rests_and_costs_nothing_meanwhile() {
    let (chain, plugin) = counting(|_| {}).await;
    for _ in 0..10 {
        assert_eq!(request_failure(&chain, "trap").await.word(), "trap");
    }
    let made = plugin.counters().instantiations;
    for _ in 0..100 {
        // Also calls that would do no harm.
        assert_eq!(request_failure(&chain, "ok").await, FailureKind::Resting);
    }
    let counters = plugin.counters();
    assert_eq!((counters.traps, counters.resting, counters.instantiations), (10, 100, made));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    exchange(&chain, &[]).await;
    exchange(&chain, &[]).await;
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_and_the_call_goes_on() {
    let (chain, plugin) = counting(|plan| plan.limits.timeout = Some(Duration::from_secs(5))).await;
    progress(&chain, &[("x-misbehave", "flood-log")]).await;
    assert_eq!(plugin.counters().traps, 0);
    assert_eq!(request_failure(&chain, "long-log").await.word(), "trap");
    exchange(&chain, &[]).await;
}

#[tokio::test]
async fn a_guest_that_sleeps_in_the_host_is_ended_by_the_clock_on_the_wall() {
    let (chain, _) = counting(|plan| plan.limits.timeout = Some(Duration::from_millis(1))).await;
    let begun = Instant::now();
    assert_eq!(request_failure(&chain, "sleep").await, FailureKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(60), "it wanted to sleep for an hour");
}

#[tokio::test]
async fn whatever_bytes_come_as_a_component_the_loader_survives_them() {
    let good = filter("", NEXT);
    let mut random = fastrand::Rng::with_seed(0x0ad17);
    for round in 0..300 {
        let mut bytes = good.clone();
        for _ in 0..=round % 8 {
            let at = random.usize(8..bytes.len());
            bytes[at] = random.u8(..);
        }
        if round % 5 == 0 {
            bytes.truncate(random.usize(8..bytes.len()));
        }
        // Whether it is still a plugin is chance; that nothing panics is not.
        let _ = Plugin::load(engine(), &Arc::new(plan("{}")), &bytes, &Secrets::default(), 1).await;
    }
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}

#[tokio::test]
#[ignore = "measures the whole process, so that it runs alone: cargo test --workspace --lib -- --ignored --test-threads 1 flat"]
async fn memory_stays_flat_over_a_thousand_loads() {
    let wasm = component(HEADERS);
    let load = async || Plugin::load(engine(), &Arc::new(plan("{}")), &wasm, &Secrets::default(), 2).await;
    for _ in 0..100 {
        drop(load().await.expect("a good plugin"));
    }
    let before = resident();
    for _ in 0..1000 {
        drop(load().await.expect("a good plugin"));
    }
    let after = resident();
    println!("resident memory before {before}, after 1,000 loads {after}");
    assert!(after < before + before / 20, "{before} -> {after}");
}

#[tokio::test]
#[ignore = "measures the whole process, so that it runs alone: cargo test --workspace --lib -- --ignored --test-threads 1 flat"]
async fn memory_stays_flat_over_a_hundred_thousand_traps() {
    let wasm = filter("", "(unreachable)");
    let load = async || {
        let loaded = Plugin::load(engine(), &Arc::new(plan("{}")), &wasm, &Secrets::default(), 1).await;
        Chain::new(vec![Arc::new(loaded.expect("a good plugin"))])
    };
    // Each plugin traps until it rests; loading it anew wakes it.
    let round = async || {
        let chain = load().await;
        for _ in 0..10 {
            assert!(matches!(ask(&chain, &[]).await, RequestOutcome::Failed(_)));
        }
    };
    for _ in 0..500 {
        round().await;
    }
    let before = resident();
    for _ in 0..10_000 {
        round().await;
    }
    let after = resident();
    println!("resident memory before {before}, after 100,000 traps {after}");
    assert!(after < before + before / 20, "{before} -> {after}");
}
