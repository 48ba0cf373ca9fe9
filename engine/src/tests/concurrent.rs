//! Components of `wasi:http` 0.3, which know nothing of this project: `tests/guests/service3` as an origin,
//! and `tests/guests/middleware`.

use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};

use super::served::{ask_for, converse, loaded, room, text, written};
use super::*;
use crate::{MiddlewareOutcome, NextRequest};

const SERVICE: &str = "test/service3.wasm";
const MIDDLEWARE: &str = "test/middleware.wasm";

#[tokio::test]
async fn what_is_experimental_must_be_asked_for_by_name() {
    for (component, role) in [(SERVICE, "a service"), (MIDDLEWARE, "middleware")] {
        let mut plan = plan("{}");
        plan.experimental = false;
        let error = try_load(component, plan).await.expect_err("nobody asked for it");
        let said = error.to_string();
        assert!(said.contains(role) && said.contains("experimental = true"), "{said}");
    }
}

#[tokio::test]
async fn a_service_answers_with_a_fresh_instance_for_each_request() {
    let plugin = loaded(SERVICE, |plan| plan.reuse = Some(true)).await;
    assert!(plugin.serves() && !plugin.filters() && !plugin.mediates());
    for count in 1..=3 {
        let response = ask_for(&plugin, "/").await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-service"]),
            (200, &"wasi3".parse().unwrap())
        );
        assert_eq!(text(response).await, "hello from wasi:http 0.3\n");
        assert_eq!(plugin.counters().instantiations, count);
    }
    let response = ask_for(&plugin, "/about?a=b").await.expect("an answer");
    assert_eq!(text(response).await, "Method::Get a.example a=b\n");
}

#[tokio::test]
async fn both_bodies_stream_and_trailers_come_behind_them() {
    let plugin = loaded(SERVICE, |_| {}).await;
    let (sender, body) = written();
    let request = Request::post("http://a.example/shout").body(body).expect("a good request");
    let response = plugin.serve(0, "id", true, request).await.expect("an answer");
    converse(sender, response.into_body(), str::to_uppercase).await;

    let response = ask_for(&plugin, "/big?8").await.expect("an answer");
    assert_eq!(text(response).await.len(), 8 << 20);

    let response = ask_for(&plugin, "/trailers").await.expect("an answer");
    let whole = response.into_body().collect().await.expect("a whole body");
    assert_eq!(whole.trailers().expect("trailers")["x-sum"], "42");
    let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-end"), "7".parse().unwrap())]);
    let body = futures_util::stream::iter([
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"body"))),
        Ok(Frame::trailers(trailers)),
    ]);
    let request = Request::post("http://a.example/echo").body(StreamBody::new(body)).expect("a good request");
    let response = plugin.serve(0, "id", true, request).await.expect("an answer");
    let whole = response.into_body().collect().await.expect("a whole body");
    assert_eq!(whole.trailers().expect("trailers")["x-end"], "7");
}

#[tokio::test]
async fn whatever_a_service_does_hits_one_request_and_an_answer_torn_off_does_not_look_complete() {
    let plugin = loaded(SERVICE, |plan| plan.limits.timeout = Some(Duration::from_millis(300))).await;
    for (path, word) in [("/trap", "trap"), ("/eat", "trap"), ("/loop", "timeout"), ("/error", "fault")] {
        let failure = ask_for(&plugin, path).await.err().expect("it fails");
        assert_eq!(failure.kind.word(), word, "{path}: {failure}");
        assert_eq!(text(ask_for(&plugin, "/").await.expect("an answer")).await, "hello from wasi:http 0.3\n");
    }
    let torn = ask_for(&plugin, "/torn").await.expect("a head");
    assert!(torn.into_body().collect().await.is_err(), "half an answer looked whole");
    let counters = plugin.counters();
    assert_eq!((counters.traps, counters.timeouts, counters.faults), (3, 1, 1), "{counters:?}");
}

#[tokio::test]
async fn calls_over_the_limit_are_refused_and_a_visitor_who_leaves_makes_room() {
    let plugin = loaded(SERVICE, |plan| plan.limits.concurrency = 1).await;
    let first = ask_for(&plugin, "/endless").await.expect("an answer");
    assert_eq!(ask_for(&plugin, "/").await.err().expect("full").kind, FailureKind::Busy);
    drop(first);
    room(&plugin).await;
    // One who leaves before there is an answer.
    let waits = async {
        // The last one may not have left its place yet.
        while let Ok(answer) =
            tokio::time::timeout(Duration::from_millis(20), ask_for(&plugin, "/wait")).await
        {
            assert_eq!(answer.err().expect("it waits for an hour").kind, FailureKind::Busy);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waits).await.expect("there is room for one");
    room(&plugin).await;
}

#[tokio::test]
async fn what_a_service_sends_passes_the_same_gate_as_a_filters_requests() {
    let plugin = loaded(SERVICE, |_| {}).await;
    let response = ask_for(&plugin, "/fetch?http://127.0.0.1:9/").await.expect("an answer");
    assert_eq!(response.status().as_u16(), 502);
    assert!(text(response).await.contains("HttpRequestDenied"));
    assert_eq!(plugin.counters().denied, 1);
}

/// Gives middleware a request, and what it hands on to `behind`.
async fn through<B>(
    plugin: &Plugin,
    told: &str,
    body: B,
    mut behind: impl AsyncFnMut(NextRequest),
) -> Result<MiddlewareOutcome, Failure>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
{
    let request = Request::post("http://a.example/one?two").header("host", "a.example").header("x-do", told);
    let request = request.body(body).expect("a good request");
    let (mediation, mut next_requests) = plugin.mediate(0, "id", false, request);
    let mut mediation = std::pin::pin!(mediation);
    loop {
        tokio::select! {
            outcome = &mut mediation => return outcome,
            Some(next_request) = next_requests.recv() => behind(next_request).await,
        }
    }
}

fn answered(outcome: Result<MiddlewareOutcome, Failure>) -> Response<ServiceBody> {
    match outcome {
        Ok(MiddlewareOutcome::Response(response)) => response,
        Ok(MiddlewareOutcome::Unreachable) => panic!("nobody answered"),
        Err(failure) => panic!("{failure}"),
    }
}

/// Sends back what it got.
async fn echo(next_request: NextRequest) {
    let (request, answering) = next_request.split();
    let (head, body) = request.into_parts();
    let mut response = Response::new(body);
    response.headers_mut().insert("x-asked", format!("{} {}", head.method, head.uri).parse().unwrap());
    let through = head.headers.get("x-through").cloned();
    response.headers_mut().insert("x-saw", through.unwrap_or_else(|| "nothing".parse().unwrap()));
    response.headers_mut().insert("x-host", head.headers["host"].clone());
    answering.answer(response);
}

#[tokio::test]
async fn middleware_sees_the_request_on_its_way_in_and_the_answer_on_its_way_out() {
    let plugin = loaded(MIDDLEWARE, |_| {}).await;
    assert!(plugin.mediates() && !plugin.serves() && !plugin.filters());
    let response = answered(through(&plugin, "", Full::new(Bytes::from_static(b"body")), echo).await);
    let header = |name: &str| response.headers()[name].to_str().expect("ASCII").to_owned();
    assert_eq!(header("x-asked"), "POST http://a.example/one?two");
    assert_eq!((header("x-saw"), header("x-passed")), ("middleware".into(), "middleware".into()));
    assert_eq!(header("x-host"), "a.example");
    assert_eq!(text(response).await, "body");
}

#[tokio::test]
async fn bodies_stream_through_middleware_both_ways() {
    let plugin = loaded(MIDDLEWARE, |_| {}).await;
    let (sender, body) = written();
    let response = answered(through(&plugin, "shout", body, echo).await);
    converse(sender, response.into_body(), str::to_uppercase).await;
}

#[tokio::test]
async fn middleware_may_answer_itself_or_ask_again() {
    let plugin = loaded(MIDDLEWARE, |_| {}).await;
    let mut asked = 0;
    let nothing = || Full::new(Bytes::new());
    let response = answered(through(&plugin, "deny", nothing(), async |_| asked += 1).await);
    assert_eq!((response.status().as_u16(), asked), (403, 0));
    let counting = async |next_request| {
        asked += 1;
        echo(next_request).await;
    };
    let response = answered(through(&plugin, "twice", nothing(), counting).await);
    assert_eq!((response.status().as_u16(), asked), (200, 2));
}

#[tokio::test]
async fn middleware_that_breaks_is_at_fault_and_an_origin_that_is_not_there_is_not_its_fault() {
    let plugin = loaded(MIDDLEWARE, |plan| plan.limits.timeout = Some(Duration::from_millis(300))).await;
    for (told, word) in [("trap", "trap"), ("loop", "timeout"), ("late", "trap")] {
        let failure = through(&plugin, told, Full::new(Bytes::new()), echo).await.err().expect("it fails");
        assert_eq!(failure.kind.word(), word, "{told}: {failure}");
    }
    let outcome =
        through(&plugin, "", Full::new(Bytes::new()), async |next_request| drop(next_request)).await;
    assert!(matches!(outcome, Ok(MiddlewareOutcome::Unreachable)));
    let counters = plugin.counters();
    assert_eq!((counters.traps, counters.timeouts, counters.faults), (2, 1, 0), "{counters:?}");
}
