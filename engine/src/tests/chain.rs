//! Several plugins: their order, who answers, who is skipped.

use super::*;

/// Appends `mark` to `x-order` in both phases.
async fn marking(mark: &str) -> Arc<Plugin> {
    let append = format!(r#"{{"append": {{"x-order": "{mark}"}}}}"#);
    load(HEADERS, &format!(r#"{{"request": {append}, "response": {append}}}"#)).await
}

#[tokio::test]
async fn requests_pass_the_chain_in_order_and_responses_in_reverse() {
    let chain = Chain::new(vec![marking("a").await, marking("b").await, marking("c").await]);
    let mut head = request(&[]);
    let RequestOutcome::Continue(progress) = chain.on_request(0, &FACTS, &mut head).await else {
        panic!("all go on");
    };
    assert_eq!(values(&head.headers, "x-order"), ["a", "b", "c"]);
    let mut head = response();
    let outcome = chain.on_response(progress, 0, &FACTS, &mut head).await;
    assert!(matches!(outcome, ResponseOutcome::Continue));
    assert_eq!(values(&head.headers, "x-order"), ["c", "b", "a"]);
}

#[tokio::test]
async fn a_reply_in_the_middle_passes_the_response_phases_before_it_only() {
    let middle = load(MISBEHAVE, r#"{"do": "respond"}"#).await;
    let chain = Chain::new(vec![marking("a").await, marking("b").await, middle, marking("c").await]);
    let mut head = request(&[]);
    let RequestOutcome::Respond(reply, progress) = chain.on_request(0, &FACTS, &mut head).await else {
        panic!("the third answers");
    };
    assert_eq!(values(&head.headers, "x-order"), ["a", "b"], "the fourth never saw it");
    assert_eq!((reply.status, &*reply.body), (418, &b"short and stout\n"[..]));

    let mut head = response();
    head.headers = reply.headers;
    let outcome = chain.on_response(progress, 0, &FACTS, &mut head).await;
    assert!(matches!(outcome, ResponseOutcome::Continue));
    assert_eq!(values(&head.headers, "x-order"), ["b", "a"]);
    assert_eq!(values(&head.headers, "content-type"), ["text/plain"]);
}

#[tokio::test]
async fn a_reply_to_a_response_takes_its_place_for_the_plugins_before() {
    let replying = load(MISBEHAVE, r#"{"on": "response", "do": "respond"}"#).await;
    let chain = Chain::new(vec![marking("a").await, replying, marking("c").await]);
    let progress = progress(&chain, &[]).await;
    let mut head = response();
    head.headers.insert("x-from-origin", http::HeaderValue::from_static("1"));
    let ResponseOutcome::Respond(reply) = chain.on_response(progress, 0, &FACTS, &mut head).await else {
        panic!("the second answers");
    };
    assert_eq!((reply.status, &*reply.body), (418, &b"short and stout\n"[..]));
    assert_eq!(values(&reply.headers, "x-order"), ["a"]);
    assert!(!reply.headers.contains_key("x-from-origin"));
}

#[tokio::test]
async fn a_failing_plugin_that_may_be_skipped_changes_nothing_and_sees_no_response() {
    let skippable = |plan: &mut PluginPlan| plan.on_error = OnError::Skip;
    let (_, failing) = counting(skippable).await;
    let chain = Chain::new(vec![marking("a").await, failing.clone(), marking("c").await]);
    assert!(exchange(&chain, &[]).await.contains_key("x-count"), "it works until it fails");
    for act in ["trap", "loop", "fault", "invalid-header", "big-reply"] {
        let headers = exchange(&chain, &[("x-misbehave", act)]).await;
        assert_eq!(values(&headers, "x-order"), ["c", "a"], "{act}");
        assert!(!headers.contains_key("x-count"), "{act}: its response phase ran");
    }
    // A failure in the response phase alone skips that.
    let headers = exchange(&chain, &[("x-misbehave-response", "trap")]).await;
    assert_eq!(values(&headers, "x-order"), ["c", "a"]);
    let counters = failing.counters();
    assert_eq!((counters.traps, counters.timeouts), (3, 1), "{counters:?}");
}

#[tokio::test]
async fn a_failing_plugin_that_may_not_be_skipped_ends_the_request() {
    let (_, failing) = counting(|_| {}).await;
    let last = marking("c").await;
    let chain = Chain::new(vec![failing, last.clone()]);
    request_failure(&chain, "trap").await;
    assert_eq!(last.counters().calls, 0);
}

#[tokio::test]
async fn a_phase_that_a_component_does_not_export_is_never_called() {
    let plugin = load(REQUEST_ONLY, "{}").await;
    let chain = Chain::new(vec![plugin.clone()]);
    let mut head = request(&[]);
    let RequestOutcome::Continue(progress) = chain.on_request(0, &FACTS, &mut head).await else {
        panic!("it goes on");
    };
    assert_eq!(values(&head.headers, "x-request-only"), ["seen"]);
    chain.on_response(progress, 0, &FACTS, &mut response()).await;
    assert_eq!(plugin.counters().calls, 1);
}

#[tokio::test]
async fn a_chain_without_plugins_changes_nothing() {
    let chain = Chain::new(Vec::new());
    assert!(chain.is_empty());
    assert!(exchange(&chain, &[]).await.is_empty());
}
