//! Our host over HTTP/2 towards an edge that knows only the description of the wire: what our own edge would
//! say or understand besides must not be needed.

use bytes::Bytes;
use e2e::document::HostDocument;
use e2e::grpc::{Grpc, message};
use e2e::origin::{Origin, RawOrigin};
use e2e::process::Process;
use e2e::product::Site;
use e2e::stand_in::StandInHttp2;
use e2e::within;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, request};

const WRAPPED: &str = "cf-cloudflared-response-headers";

struct Lab {
    // In the order in which they go: the host first.
    _host: Process,
    requests: SendRequest<Bytes>,
    _edge: StandInHttp2,
    _site: Site,
}

async fn lab(rules: impl FnOnce(HostDocument) -> HostDocument) -> Lab {
    let (mut edge, site) = (StandInHttp2::start(), Site::new());
    site.write("stand-in.pem", &edge.ca_pem);
    let document = HostDocument { edge_ca: "stand-in.pem".into(), ..HostDocument::new() }.over("http2");
    let host = site.spawn_host(&[edge.address], &rules(document));
    let requests = edge.registered().await;
    Lab { _host: host, requests, _edge: edge, _site: site }
}

impl Lab {
    async fn open(&self, request: request::Builder, is_whole: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut requests = within("room", self.requests.clone().ready()).await.expect("the host is there");
        requests.send_request(request.body(()).unwrap(), is_whole).expect("it is sent")
    }

    async fn answer(&self, request: request::Builder) -> Response<RecvStream> {
        let (response, _) = self.open(request, true).await;
        within("an answer", response).await.expect("an answer")
    }
}

fn call(path: &str) -> request::Builder {
    Request::post(format!("https://app.localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

async fn body(stream: &mut RecvStream) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(data) = within("the body", stream.data()).await {
        let data = data.expect("the body is whole");
        let _ = stream.flow_control().release_capacity(data.len());
        whole.extend_from_slice(&data);
    }
    whole
}

#[tokio::test]
async fn trailers_cross_to_and_from_an_edge_that_is_not_ours() {
    let grpc = Grpc::start();
    let lab = lab(|host| host.rule(&grpc.rule())).await;
    let (response, mut up) = lab.open(call("/Unary"), false).await;
    up.send_data(message(b"hello"), false).unwrap();
    let mut end = HeaderMap::new();
    end.insert("x-end", HeaderValue::from_static("goodbye"));
    end.insert("adit-not-here", HeaderValue::from_static("1"));
    up.send_trailers(end).unwrap();
    let response = within("an answer", response).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut stream = response.into_body();
    assert_eq!(body(&mut stream).await, message(b"hello"));
    let trailers = within("trailers", stream.trailers()).await.unwrap().expect("trailers");
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-count"]),
        (&HeaderValue::from_static("0"), &HeaderValue::from_static("1"))
    );
    assert_eq!(trailers["x-end"], "goodbye");
    assert!(!trailers.contains_key("adit-not-here"));
}

#[tokio::test]
async fn trailers_of_an_origin_cross_to_an_edge_that_did_not_ask_too() {
    let origin = RawOrigin::start(
        b"HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\nx-sum: 9\r\n\r\n",
    );
    let lab = lab(|host| host.otherwise(&origin.service())).await;
    for te in [None, Some("trailers")] {
        let request = Request::get("https://app.localhost/");
        let response = lab.answer(te.into_iter().fold(request, |request, te| request.header("te", te))).await;
        let mut stream = response.into_body();
        assert_eq!(body(&mut stream).await, b"data");
        // What hyper's client keeps of them depends on what was asked for.
        if te.is_some() {
            let trailers = within("trailers", stream.trailers()).await.unwrap().expect("trailers");
            assert_eq!(trailers["x-sum"], "9");
        }
    }
}

#[tokio::test]
async fn a_host_says_where_a_rule_has_answered_and_not_where_a_service_has() {
    let origin = RawOrigin::start(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nAdit-Instead: host\r\n\r\n");
    let lab = lab(|host| {
        host.rule("path = \"^/closed\"\nservice = \"http_status:503\"").otherwise(&origin.service())
    })
    .await;
    // As the wire wraps it: base64 of `adit-instead`, and of `host`.
    for (path, is_said) in [("closed", true), ("open", false)] {
        let answer = lab.answer(Request::get(format!("https://app.localhost/{path}"))).await;
        assert_eq!(answer.status(), 503);
        let wrapped = answer.headers()[WRAPPED].to_str().unwrap();
        assert_eq!(wrapped.contains("YWRpdC1pbnN0ZWFk:aG9zdA"), is_said, "{path}: {wrapped}");
        assert_eq!(wrapped.contains("YWRpdC1pbnN0ZWFk"), is_said, "{path}: {wrapped}");
    }
}

#[tokio::test]
async fn a_call_that_fails_at_once_ends_with_its_head() {
    let grpc = Grpc::start();
    let lab = lab(|host| host.rule(&grpc.rule())).await;
    let (response, _up) = lab.open(call("/Refuse"), false).await;
    let response = within("an answer", response).await.unwrap();
    assert!(response.headers()[WRAPPED].to_str().unwrap().contains("Z3JwYy1zdGF0dXM"), "grpc-status");
    assert!(response.body().is_end_stream());
}

#[tokio::test]
async fn cookies_that_the_edge_has_split_reach_the_origin_as_one() {
    let origin = Origin::start();
    let mut watched = origin.watch("/cookies");
    let lab = lab(|host| host.otherwise(&origin.service())).await;
    let request =
        Request::get("https://app.localhost/cookies").header("cookie", "a=1").header("cookie", "b=2");
    let (_answer, head) = tokio::join!(lab.answer(request), async {
        let head = watched.arrived().await;
        watched.answer(Response::new(()));
        watched.end();
        head
    });
    assert_eq!(head.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
}

#[tokio::test]
async fn what_is_no_request_is_400_and_others_go_on() {
    let origin = Origin::start();
    let lab = lab(|host| host.otherwise(&origin.service())).await;
    let short = || Request::post("https://app.localhost/short").header("content-length", "9");
    let (response, mut up) = lab.open(short(), false).await;
    up.send_data(Bytes::from_static(b"abc"), true).unwrap();
    let response = within("an answer", response).await.expect("no reset");
    assert_eq!(response.status(), 400);
    // The end comes with the head already.
    let (response, _) = lab.open(short(), true).await;
    assert_eq!(within("an answer", response).await.expect("no reset").status(), 400);
    // No host at all.
    assert_eq!(lab.answer(Request::get("/bytes/3")).await.status(), 400);
    assert_eq!(lab.answer(Request::get("https://app.localhost/bytes/3")).await.status(), 200);
}

#[tokio::test]
async fn an_unasked_change_of_protocol_is_502_and_so_is_a_coding_that_is_not_undone() {
    for answer in [
        &b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ] {
        let origin = RawOrigin::start(answer);
        let lab = lab(|host| host.otherwise(&origin.service())).await;
        let response = lab.answer(Request::get("https://app.localhost/")).await;
        assert_eq!(response.status(), 502, "{}", String::from_utf8_lossy(answer));
        assert_eq!(response.headers()["cf-cloudflared-response-meta"], r#"{"src":"cloudflared"}"#);
    }
}
