//! One plugin: what breaks when it breaks, and what does not.

use std::future::poll_fn;
use std::net::TcpListener;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::net::TcpStream;

use super::*;

/// Which kind of failure each way to break is.
const BREAKS: [(&str, &str); 12] = [
    ("trap", "trap"),
    ("panic", "trap"),
    ("recurse", "trap"),
    ("eat-memory", "trap"),
    ("big-reply", "trap"),
    ("loop", "timeout"),
    ("fault", "fault"),
    ("many-headers", "trap"),
    ("long-header", "invalid"),
    ("inject", "invalid"),
    ("invalid-header", "invalid"),
    ("invalid-reply", "invalid"),
];

/// Lets a call run for one turn.
async fn is_pending(mut call: Pin<&mut impl Future>) -> bool {
    poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_pending())).await
}

#[tokio::test]
async fn whatever_a_plugin_does_hits_one_call_and_the_next_one_works() {
    let (chain, plugin) = counting(|_| {}).await;
    for (act, word) in BREAKS {
        let kind = request_failure(&chain, act).await;
        assert_eq!(kind.word(), word, "{act} in a request: {kind}");
        assert!(exchange(&chain, &[]).await.contains_key("x-count"), "after {act} in a request");

        let kind = response_failure(&chain, act).await;
        assert_eq!(kind.word(), word, "{act} in a response: {kind}");
        assert!(exchange(&chain, &[]).await.contains_key("x-count"), "after {act} in a response");
    }
    let counters = plugin.counters();
    assert_eq!((counters.traps, counters.timeouts), (12, 2), "{counters:?}");
    assert_eq!((counters.faults, counters.invalid, counters.busy), (2, 8, 0), "{counters:?}");
    // Each pair of acts takes a failing request, a good request before a failing response, and
    // two exchanges.
    assert_eq!(counters.calls, 12 * (1 + 2 + 4), "{counters:?}");
}

#[tokio::test]
async fn an_instance_is_used_again_and_a_broken_one_is_not() {
    let (chain, plugin) = counting(|_| {}).await;
    let count = async || values(&exchange(&chain, &[]).await, "x-count").concat();
    assert_eq!(count().await, "2");
    assert_eq!(count().await, "4");
    request_failure(&chain, "fault").await;
    assert_eq!(count().await, "7", "an error of its own does not break an instance");
    assert_eq!(plugin.counters().instantiations, 1);
    for (act, made) in [("trap", 2), ("loop", 3), ("eat-memory", 4)] {
        request_failure(&chain, act).await;
        assert_eq!(count().await, "2", "a fresh instance after {act}");
        assert_eq!(count().await, "4", "which is used again after {act}");
        assert_eq!(plugin.counters().instantiations, made);
    }
}

#[tokio::test]
async fn an_instance_whose_call_was_dropped_midway_is_not_used_again() {
    let (chain, plugin) = counting(|_| {}).await;
    assert_eq!(values(&exchange(&chain, &[]).await, "x-count"), ["2"]);
    {
        let mut abandoned = pin!(ask(&chain, &[("x-misbehave", "loop")]));
        assert!(is_pending(abandoned.as_mut()).await, "it loops");
    }
    assert_eq!(values(&exchange(&chain, &[]).await, "x-count"), ["2"]);
    assert_eq!(plugin.counters().instantiations, 2);
}

#[tokio::test]
async fn calls_over_the_limit_of_a_shard_are_refused_at_once() {
    let (chain, plugin) = counting(|plan| plan.limits.concurrency = 1).await;
    {
        let mut looping = pin!(ask(&chain, &[("x-misbehave", "loop")]));
        assert!(is_pending(looping.as_mut()).await, "it loops");
        assert_eq!(request_failure(&chain, "ok").await, FailureKind::Busy);
    }
    exchange(&chain, &[]).await;
    assert_eq!(plugin.counters().busy, 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_looping_plugin_lets_the_other_tasks_of_its_thread_do_their_input_and_output() {
    const CONNECTIONS: usize = 20;
    let (chain, _) = counting(|plan| plan.limits.timeout = Some(Duration::from_millis(500))).await;
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback binds");
    let address = listener.local_addr().expect("bound");
    // A task, as requests are: one that wakes itself again and again is what starves a scheduler.
    let guest = tokio::spawn(async move { request_failure(&chain, "loop").await });
    for count in 0..CONNECTIONS {
        // Needs an event from the operating system, however fast the other side is.
        TcpStream::connect(address).await.expect("the backlog has room");
        assert!(!guest.is_finished(), "connection {count} had to wait for the end of the loop");
    }
    let kind = guest.await.expect("no panic");
    assert_eq!(kind, FailureKind::Timeout);
}

#[tokio::test]
async fn a_plugin_that_eats_memory_is_told_so_in_the_reason() {
    let (chain, _) = counting(|_| {}).await;
    let kind = request_failure(&chain, "eat-memory").await;
    let FailureKind::Trap { reason } = &kind else { panic!("{kind}") };
    assert!(reason.contains("memory limit of 4194304 bytes"), "{reason}");
    let kind = request_failure(&chain, "trap").await;
    let FailureKind::Trap { reason } = &kind else { panic!("{kind}") };
    assert!(reason.contains("unreachable") && !reason.contains("memory limit"), "{reason}");
}

#[tokio::test]
async fn an_answer_too_large_to_copy_is_refused_before_it_is_copied() {
    let (chain, _) = counting(|plan| plan.limits.memory = 64 << 20).await;
    let kind = request_failure(&chain, "big-reply").await;
    let FailureKind::Trap { reason } = &kind else { panic!("{kind}") };
    assert!(reason.starts_with("too much data for one call, which may hand over 1 MiB"), "{reason}");
    exchange(&chain, &[]).await;
}

#[tokio::test]
async fn a_forbidden_edit_is_named_and_leaves_the_head_as_it_was() {
    let (chain, _) = counting(|_| {}).await;
    for (act, named) in [
        ("invalid-header", "\"x bad\""),
        ("invalid-edit", "\"no-slash\""),
        ("invalid-reply", "99 is not a status"),
    ] {
        let mut head = request(&[("x-misbehave", act)]);
        let RequestOutcome::Failed(failure) = chain.on_request(0, &FACTS, &mut head).await else {
            panic!("{act} did no harm");
        };
        assert!(failure.to_string().contains(named), "{failure}");
        let before = request(&[("x-misbehave", act)]);
        assert_eq!((head.uri, head.headers), (before.uri, before.headers));
    }
}

#[tokio::test]
async fn what_the_request_phase_leaves_reaches_the_response_phase_of_the_same_request() {
    let chain = Chain::new(vec![load(MISBEHAVE, r#"{"do": "carry"}"#).await]);
    let first = progress(&chain, &[("x-carry", "one")]).await;
    let second = progress(&chain, &[("x-carry", "two")]).await;
    for (progress, expected) in [(second, "two"), (first, "one")] {
        let mut head = response();
        chain.on_response(progress, 0, &FACTS, &mut head).await;
        assert_eq!(values(&head.headers, "x-carry"), [expected]);
    }
}

#[tokio::test]
async fn a_value_that_is_not_utf_8_is_shown_repaired_and_goes_on_as_it_was() {
    let chain = Chain::new(vec![load(MISBEHAVE, r#"{"do": "carry"}"#).await]);
    let mut head = request(&[]);
    let value = http::HeaderValue::from_bytes(b"caf\xe9").expect("obsolete text is allowed");
    head.headers.insert("x-carry", value.clone());
    let RequestOutcome::Continue(progress) = chain.on_request(0, &FACTS, &mut head).await else {
        panic!("it carries");
    };
    assert_eq!(head.headers["x-carry"], value);
    let mut head = response();
    chain.on_response(progress, 0, &FACTS, &mut head).await;
    assert_eq!(head.headers["x-carry"], "caf\u{fffd}".as_bytes());
}

#[tokio::test]
async fn an_instance_that_has_served_its_time_is_followed_by_one_that_no_request_waits_for() {
    let plugin = load(HEADERS, "{}").await;
    let chain = Chain::new(vec![plugin.clone()]);
    let first = plugin.counters().instantiations;
    // It serves between 10,000 and 30,000 calls.
    for _ in 0..30_001 {
        let before = plugin.counters().instantiations;
        assert!(matches!(ask(&chain, &[]).await, RequestOutcome::Continue(_)));
        assert_eq!(plugin.counters().instantiations, before, "a request waited for an instance");
        // The follower is made beside the requests, which takes several turns where code is slow.
        let followed = async {
            while plugin.member.pool.at_rest() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), followed).await.expect("it is followed");
    }
    let made = plugin.counters().instantiations - first;
    assert!((1..=3).contains(&made), "{made} instances followed");
}
