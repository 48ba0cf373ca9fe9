//! What only our own two ends say to each other, said to a host by a stand-in: trailers, notices of the edge,
//! and what a host that leaves turns away.

use adit_protocol::extensions;
use adit_protocol::stream::Connect;
use bytes::Bytes;
use e2e::document::HostDocument;
use e2e::origin::{Origin, RawOrigin, Upload};
use e2e::process::Process;
use e2e::product::Site;
use e2e::stand_in::{Event, Registered, StandIn};
use e2e::within;
use http::{HeaderMap, HeaderValue, Request, Response};
use quinn::{ReadError, ReadToEndError};

/// An answer with trailers, as an origin of HTTP/1.1 sends it.
const WITH_TRAILERS: &[u8] = b"HTTP/1.1 200 OK\r\nTrailer: grpc-status\r\nTransfer-Encoding: chunked\r\n\r\n\
    5\r\nhello\r\n6\r\n world\r\n0\r\ngrpc-status: 7\r\ncontent-length: 99\r\n\r\n";

struct Lab {
    // In the order in which they go: the host first.
    host: Process,
    edges: Vec<StandIn>,
    _site: Site,
}

fn lab(edges: usize, service: &str) -> Lab {
    let site = Site::new();
    let edges: Vec<StandIn> = (0..edges).map(|_| StandIn::start()).collect();
    site.write("stand-in.pem", edges.iter().map(|edge| edge.ca_pem.as_str()).collect::<String>());
    let document = HostDocument { edge_ca: "stand-in.pem".into(), ..HostDocument::new() };
    let addresses: Vec<_> = edges.iter().map(|edge| edge.address).collect();
    let host = site.spawn_host(&addresses, &document.connections(1).otherwise(service));
    Lab { host, edges, _site: site }
}

fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Bytes {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Connect::Http(request.body(()).unwrap()).encode().unwrap()
}

const APP: &str = "http://app.example.com/";

/// The parts of a framed body.
fn unframed(body: Vec<u8>) -> (Vec<u8>, Option<HeaderMap>) {
    let (mut reader, mut rest) = (extensions::FrameReader::default(), Bytes::from(body));
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(piece) = reader.next(&mut rest).unwrap() {
        match piece {
            extensions::Piece::Data(bytes) => data.extend_from_slice(&bytes),
            extensions::Piece::Trailers(found) => trailers = Some(found),
        }
    }
    assert!(reader.is_whole());
    (data, trailers)
}

#[tokio::test]
async fn trailers_cross_for_an_edge_that_takes_them_and_for_no_other() {
    let origin = RawOrigin::start(WITH_TRAILERS);
    let mut lab = lab(1, &origin.service());
    let registered = lab.edges[0].registered().await;
    for feature in [extensions::FEATURE_TRAILERS, extensions::FEATURE_NOTICES] {
        assert!(registered.call.features.iter().any(|offered| offered == feature), "{feature}");
    }
    let welcome = head("GET", APP, &[("host", "app.example.com"), ("adit-trailers", "1")]);
    let reply = registered.ask(&welcome, b"").await.unwrap();
    assert_eq!(reply.values("HttpHeader:adit-trailers"), ["framed"]);
    let (data, trailers) = unframed(reply.body);
    assert_eq!(data, b"hello world");
    let mut wanted = HeaderMap::new();
    // The other would contradict the head, and an origin may not say it here.
    wanted.insert("grpc-status", HeaderValue::from_static("7"));
    assert_eq!(trailers, Some(wanted));

    let reply = registered.ask(&head("GET", APP, &[("host", "app.example.com")]), b"").await.unwrap();
    assert_eq!(reply.values("HttpHeader:adit-trailers"), [""; 0]);
    assert_eq!(reply.body, b"hello world");
}

#[tokio::test]
async fn a_framed_request_reaches_the_origin_as_a_plain_one() {
    let origin = Origin::start();
    let mut lab = lab(1, &origin.service());
    let registered = lab.edges[0].registered().await;
    let mut watched = origin.watch("/upload");
    let framed = head(
        "POST",
        "http://app.example.com/upload",
        &[("host", "app.example.com"), ("adit-trailers", "framed"), ("transfer-encoding", "chunked")],
    );
    let mut body = Vec::new();
    for part in [&b"first "[..], b"", b"second"] {
        body.extend_from_slice(&extensions::data_head(part.len()));
        body.extend_from_slice(part);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("12"));
    body.extend_from_slice(&extensions::encode_trailers(&trailers).unwrap());
    let directed = async {
        let arrived = watched.arrived().await;
        assert!(!arrived.headers.keys().any(extensions::is_internal), "{:?}", arrived.headers);
        assert_eq!(watched.uploaded().await, Upload::Complete { bytes: 12 });
        watched.answer(Response::new(()));
        watched.say("thanks");
        watched.end();
    };
    let (reply, ()) = tokio::join!(registered.ask(&framed, &body), directed);
    assert_eq!(unframed(reply.unwrap().body).0, b"thanks");

    // One that ends within a frame is broken, and must not look whole.
    let framed = head(
        "POST",
        "http://app.example.com/sink",
        &[("host", "app.example.com"), ("adit-trailers", "framed"), ("transfer-encoding", "chunked")],
    );
    let reply = registered.ask(&framed, b"\0\0\0\x09half").await.unwrap();
    assert!(reply.error.contains("within a frame"), "{}", reply.error);
}

#[tokio::test]
async fn a_notice_is_for_the_host_alone_and_only_at_its_own_address() {
    let origin = Origin::start();
    let mut lab = lab(1, &origin.service());
    let registered = lab.edges[0].registered().await;
    let probe = head("GET", extensions::NOTICE_URI, &[("host", "adit.internal"), ("adit-notice", "probe")]);
    let reply = registered.ask(&probe, b"").await.unwrap();
    assert_eq!(reply.values("HttpStatus"), ["200"]);
    let page: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((&page["ready"], &page["origins"][0]["ok"]), (&true.into(), &true.into()), "{page}");

    // Whatever a visitor says, it is a request.
    let mut watched = origin.watch("/");
    let said = head("GET", APP, &[("host", "app.example.com"), ("adit-notice", "drain")]);
    let directed = async {
        let arrived = watched.arrived().await;
        assert!(!arrived.headers.contains_key("adit-notice"));
        watched.answer(Response::new(()));
        watched.end();
    };
    let (reply, ()) = tokio::join!(registered.ask(&said, b""), directed);
    assert_eq!(reply.unwrap().values("HttpStatus"), ["200"]);
    assert!(lab.host.events("the edge server goes away").is_empty());
}

#[tokio::test]
async fn an_edge_server_that_goes_away_is_left_before_it_does() {
    let origin = Origin::start();
    let mut lab = lab(2, &origin.service());
    let (mut second, mut first) = (lab.edges.pop().unwrap(), lab.edges.pop().unwrap());
    let old = first.registered().await;
    assert!(matches!(first.next().await, Event::LocalConfiguration(_)));
    let mut watched = origin.watch("/lasting");
    let lasting = head("GET", "http://app.example.com/lasting", &[("host", "app.example.com")]);
    let (_send, mut answer) = old.open(&lasting).await;
    watched.arrived().await;

    let drain = head("GET", extensions::NOTICE_URI, &[("host", "adit.internal"), ("adit-notice", "drain")]);
    assert_eq!(old.ask(&drain, b"").await.unwrap().values("HttpStatus"), ["204"]);
    let new = second.registered().await;
    // The edge may know this slot from before.
    assert_eq!(new.call.options_data[0] & 1, 1);
    assert!(matches!(first.next().await, Event::Unregistered));
    // What the old one has goes on; then it is closed.
    watched.answer(Response::new(()));
    watched.say("to the end");
    watched.end();
    let answer = within("the lasting answer", answer.read_to_end(1 << 20)).await.unwrap();
    assert!(answer.ends_with(b"to the end"));
    let closed = within("the close", old.connection.closed()).await;
    assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed}");
    assert!(lab.host.events("connection lost").is_empty());
}

#[tokio::test]
async fn a_host_that_leaves_turns_late_requests_away_unread() {
    let origin = Origin::start();
    let mut lab = lab(1, &origin.service());
    let registered = lab.edges[0].registered().await;
    assert!(matches!(lab.edges[0].next().await, Event::LocalConfiguration(_)));
    let mut watched = origin.watch("/lasting");
    let lasting = head("GET", "http://app.example.com/lasting", &[("host", "app.example.com")]);
    let (_send, mut answer) = registered.open(&lasting).await;
    watched.arrived().await;
    lab.host.terminate();
    assert!(matches!(lab.edges[0].next().await, Event::Unregistered));
    // Until it knows that the edge knows, it serves.
    let code = loop {
        if let Err(error) = ask(&registered, "/bytes/10").await {
            break error;
        }
    };
    assert_eq!(code, extensions::REFUSED);
    watched.answer(Response::new(()));
    watched.say("to the end");
    watched.end();
    let answer = within("the lasting answer", answer.read_to_end(1 << 20)).await.unwrap();
    assert!(answer.ends_with(b"to the end"));
    assert_eq!(lab.host.exit().await.code(), Some(0), "{}", lab.host.tail());
}

/// Nothing, or the code with which the request was turned away.
async fn ask(registered: &Registered, path: &str) -> Result<(), u32> {
    let request = head("GET", &format!("http://app.example.com{path}"), &[("host", "app.example.com")]);
    match registered.ask(&request, b"").await {
        Ok(reply) => {
            assert_eq!(reply.values("HttpStatus"), ["200"]);
            Ok(())
        }
        Err(ReadToEndError::Read(ReadError::Reset(code))) => Err(u32::try_from(code.into_inner()).unwrap()),
        Err(error) => panic!("{error}"),
    }
}
