//! Our host speaks the wire as it is described, not only as our own edge understands it: a stand-in
//! made from the description registers it and sends it bytes that were captured elsewhere.

use std::path::Path;

use e2e::document::HostDocument;
use e2e::origin::{Origin, RawOrigin};
use e2e::process::{Process, component};
use e2e::product::Site;
use e2e::stand_in::{Event, Registered, Reply, StandIn};
use e2e::within;
use http::Response;
use quinn::{ReadError, ReadToEndError};

const DATA_SIGNATURE: [u8; 6] = [0x0a, 0x36, 0xcd, 0x12, 0xa1, 0x3e];
/// interfaceId of RegistrationServer, as it lies in a message.
const REGISTRATION_SERVER: [u8; 8] = 0xf716_95ec_7fe8_5497_u64.to_le_bytes();

struct Lab {
    // In the order in which they go: the host first.
    host: Process,
    registered: Registered,
    edge: StandIn,
    origin: Origin,
    site: Site,
}

async fn lab(rules: impl FnOnce(HostDocument) -> HostDocument) -> Lab {
    let (origin, mut edge, site) = (Origin::start(), StandIn::start(), Site::new());
    site.write("stand-in.pem", &edge.ca_pem);
    let document = HostDocument { edge_ca: "stand-in.pem".into(), ..HostDocument::new() };
    let host = site.spawn_host(&[edge.address], &rules(document).otherwise(&origin.service()));
    let registered = edge.registered().await;
    Lab { host, registered, edge, origin, site }
}

fn vector(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(format!("{name}.bin"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test]
async fn the_registration_is_what_the_description_says_byte_for_byte() {
    let lab = lab(|host| host).await;
    let Registered { protocol, server_name, call, .. } = &lab.registered;
    assert_eq!((protocol.as_slice(), server_name.as_str()), (&b"argotunnel"[..], "quic.cftunnel.com"));

    let credentials: serde_json::Value = serde_json::from_str(&lab.site.credentials.to_json()).unwrap();
    assert_eq!(call.account_tag, credentials["AccountTag"].as_str().unwrap().as_bytes());
    assert_eq!(call.secret, lab.site.credentials.tunnel_secret.as_bytes());
    assert_eq!(call.secret.len(), 32);
    assert_eq!(call.tunnel_id, lab.site.credentials.tunnel_id.as_bytes());
    // D1: connIndex in bits 0 to 8.
    assert_eq!(call.data, [0; 8]);
    // D1: replaceExisting bit 0, compressionQuality bits 8 to 16, numPreviousAttempts bits 16 to 24.
    assert_eq!(call.options_data, [0; 8]);
    // 16 bytes, IPv4 as ::ffff:a.b.c.d; on loopback both ends have the same.
    assert_eq!(call.origin_local_ip, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1]);
    // D0: pointers only.
    assert!(call.client_data.is_empty());
    let client_id = uuid::Uuid::from_slice(&call.client_id).unwrap();
    assert_eq!(client_id.get_version_num(), 4);
    assert!(!call.version.is_empty());
    assert_eq!(
        call.arch,
        format!("{}_{}", std::env::consts::OS, if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" })
    );
    let known = [
        "allow_remote_config",
        "serialized_headers",
        "support_datagram_v2",
        "support_quic_eof",
        "management_logs",
        "support_datagram_v3_2",
        "postquantum",
        // Words of our own, which no other edge knows.
        adit_protocol::extensions::FEATURE_INSTEAD,
        adit_protocol::extensions::FEATURE_NOTICES,
        adit_protocol::extensions::FEATURE_TRAILERS,
        adit_protocol::extensions::FEATURE_VISITOR,
        adit_protocol::extensions::FEATURE_WAITED,
    ];
    for feature in &call.features {
        assert!(known.contains(&feature.as_str()), "{feature} is not a word of this wire");
    }
    assert!(call.features.iter().any(|feature| feature == "support_quic_eof"), "{:?}", call.features);

    // Bootstrap first, without a signature in front: one segment, then a Call on RegistrationServer.
    let control = lab.registered.control_bytes();
    assert_eq!(&control[..4], [0; 4], "a message of one segment, from byte 0");
    let words = u32::from_le_bytes(control[4..8].try_into().unwrap()) as usize;
    let bootstrap = &control[8..8 + words * 8];
    // Root pointer, then Message: the tag of its union is bootstrap = 8.
    assert_eq!(&bootstrap[8..10], 8_u16.to_le_bytes());
    assert!(control[8 + words * 8..].windows(8).any(|bytes| bytes == REGISTRATION_SERVER));
}

#[tokio::test]
async fn a_host_says_that_it_takes_pushed_rules_where_it_does_and_nowhere_else() {
    for (source, takes) in [("local", false), ("remote", true), ("layered", true)] {
        let lab = lab(|host| host.keys(&format!("config-source = \"{source}\""))).await;
        let features = &lab.registered.call.features;
        assert_eq!(
            features.iter().any(|word| word == "allow_remote_config"),
            takes,
            "{source}: {features:?}"
        );
    }
}

#[tokio::test]
async fn connection_0_reports_its_configuration_and_a_stop_unregisters() {
    let mut lab =
        lab(|host| host.rule("hostname = \"a.example\"\npath = \"^/x\"\nservice = \"http_status:418\""))
            .await;
    let Event::LocalConfiguration(json) = lab.edge.next().await else {
        panic!("a report comes after the registration")
    };
    let report: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert!(report["__configuration_flags"].is_object() && report["warp-routing"].is_object(), "{report}");
    assert_eq!(report["ingress"][0]["hostname"], "a.example");
    assert_eq!(report["ingress"][0]["path"], "^/x");
    assert_eq!(report["ingress"][0]["service"], "http_status:418");
    assert_eq!(report["ingress"][1]["service"], lab.origin.service());
    assert!(!report.to_string().contains("TunnelSecret"));

    lab.host.terminate();
    let Event::Unregistered = lab.edge.next().await else {
        panic!("a stop begins with unregisterConnection")
    };
    let closed = within("the close", lab.registered.connection.closed()).await;
    let quinn::ConnectionError::ApplicationClosed(close) = &closed else { panic!("{closed}") };
    assert_eq!((close.error_code.into_inner(), &close.reason[..]), (0, &b""[..]));
    assert_eq!(lab.host.exit().await.code(), Some(0), "{}", lab.host.tail());
}

#[tokio::test]
async fn captured_requests_are_served_and_answered_in_the_captured_shape() {
    let lab = lab(|host| host).await;
    let mut hello = lab.origin.watch("/hello");
    let directed = async {
        let head = hello.arrived().await;
        assert_eq!(head.method, "GET");
        assert_eq!(head.uri, "/hello?x=1");
        assert_eq!(head.headers["host"], "app.example.test");
        assert_eq!(head.headers["user-agent"], "spec-probe");
        assert_eq!(head.headers.get_all("x-twice").iter().count(), 2);
        assert_eq!(head.headers["cf-ray"], "deadbeef-LAB");
        // wire.md 4.3: what a connector adds.
        assert!(head.headers.contains_key("cf-warp-tag-id"));
        let answer =
            Response::builder().header("x-multi", "1").header("x-multi", "2").header("content-length", "16");
        hello.answer(answer.body(()).unwrap());
        hello.say("hello GET len=0 ");
        hello.end();
    };
    let get = vector("live-q-get-request");
    let (reply, ()) = tokio::join!(lab.registered.ask(&get, b""), directed);
    let (reply, captured) = (reply.unwrap(), Reply::read(&vector("live-q-get-response")));
    assert_eq!((reply.signature, reply.version), (DATA_SIGNATURE, *b"01"));
    assert_eq!((captured.signature, captured.version), (reply.signature, reply.version));
    assert_eq!(reply.error, captured.error);
    assert_eq!(reply.body.len(), captured.body.len());
    for key in ["HttpStatus", "HttpHeader:Content-Length"] {
        assert_eq!(reply.values(key), captured.values(key), "{key}");
    }
    assert_eq!(reply.values("HttpHeader:X-Multi"), ["1", "2"]);
    assert!(
        reply.metadata.iter().all(|(key, _)| key == "HttpStatus" || key.matches(':').count() == 1),
        "{reply:?}"
    );
    assert!(reply.metadata.iter().any(|(key, _)| key == "HttpStatus"), "keys are case-sensitive: {reply:?}");
}

#[tokio::test]
async fn captured_uploads_arrive_with_and_without_a_length() {
    let lab = lab(|host| host).await;
    for (name, body, length) in [
        ("live-q-post-cl-request", "0123456789", Some("10")),
        ("live-q-post-chunked-request", "aaaabbbb", None),
    ] {
        let mut post = lab.origin.watch("/post");
        let directed = async {
            let head = post.arrived().await;
            assert_eq!(head.method, "POST");
            let seen = head.headers.get("content-length").map(|length| length.to_str().unwrap().to_owned());
            assert_eq!(seen.as_deref(), length, "{name}");
            let upload = post.uploaded().await;
            assert_eq!(upload, e2e::origin::Upload::Complete { bytes: body.len() as u64 });
            post.answer(Response::builder().status(201).body(()).unwrap());
            post.end();
        };
        let head = vector(name);
        let (reply, ()) = tokio::join!(lab.registered.ask(&head, body.as_bytes()), directed);
        assert_eq!(reply.unwrap().values("HttpStatus"), ["201"], "{name}");
    }
}

#[tokio::test]
async fn an_upload_shorter_than_its_length_is_not_taken_for_whole() {
    let lab = lab(|host| host).await;
    let mut post = lab.origin.watch("/post");
    let head = vector("live-q-post-cl-request");
    // The origin may see half of it or, if the host holds back its head for so long, nothing.
    let reply = lab.registered.ask(&head, b"01234").await;
    assert!(!post.is_uploaded(), "the origin took half a body for a whole one");
    assert!(reply.is_err() || !reply.as_ref().unwrap().error.is_empty(), "{reply:?}");
}

#[tokio::test]
async fn a_captured_head_request_has_a_length_and_no_body() {
    let lab = lab(|host| host).await;
    let mut watched = lab.origin.watch("/head");
    let head = vector("live-q-head-request");
    let (reply, ()) = tokio::join!(lab.registered.ask(&head, b""), async {
        assert_eq!(watched.arrived().await.method, "HEAD");
        watched.answer(Response::builder().header("content-length", "16").body(()).unwrap());
        watched.end();
    });
    let (reply, captured) = (reply.unwrap(), Reply::read(&vector("live-q-head-response")));
    assert_eq!((reply.body.len(), captured.body.len()), (0, 0));
    assert_eq!(reply.values("HttpHeader:Content-Length"), ["16"]);
    assert_eq!(reply.values("HttpStatus"), captured.values("HttpStatus"));
}

#[tokio::test]
async fn an_origin_that_dies_in_the_middle_resets_the_stream() {
    let short = RawOrigin::start(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial");
    let lab = lab(|host| host.rule(&format!("path = \"^/abort\"\nservice = \"{}\"", short.service()))).await;
    match lab.registered.ask(&vector("live-q-abort-request"), b"").await {
        Err(ReadToEndError::Read(ReadError::Reset(code))) => assert_eq!(code.into_inner(), 0),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_host_says_where_a_plugin_or_a_rule_has_answered_and_a_service_cannot_say_so() {
    let forging = RawOrigin::start(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nAdit-Instead: host\r\n\r\n");
    let slow = Origin::start();
    let _unanswered = slow.watch("/post");
    let lab = lab(|host| {
        let patience = "[ingress.origin]\nresponse-timeout = \"300ms\"";
        host.plugin("closed", &component("maintenance"), "[plugin.config]\npage = \"later\"")
            .rule("path = \"^/hello\"\nservice = \"http_status:503\"")
            .rule("path = \"^/head\"\nservice = \"hello_world\"\nplugins = [\"closed\"]")
            .rule(&format!("path = \"^/abort\"\nservice = \"{}\"", forging.service()))
            .rule(&format!("path = \"^/post\"\nservice = \"{}\"\n{patience}", slow.service()))
    })
    .await;
    for (name, status, said) in [
        ("live-q-get-request", "503", &["host"][..]),
        ("live-q-head-request", "503", &["host"]),
        ("live-q-abort-request", "503", &[]),
        ("live-q-post-cl-request", "504", &["late"]),
    ] {
        let body: &[u8] = if name.contains("post") { b"0123456789" } else { b"" };
        let reply = lab.registered.ask(&vector(name), body).await.unwrap();
        assert_eq!(reply.values("HttpStatus"), [status], "{name}: {reply:?}");
        assert_eq!(reply.values("HttpHeader:Adit-Instead"), said, "{name}: {reply:?}");
    }
}

#[tokio::test]
async fn an_origin_that_cannot_be_reached_is_an_error_answer_and_an_ordinary_end() {
    let nobody = e2e::origin::nobody();
    let lab = lab(|host| host.rule(&format!("path = \"^/hello\"\nservice = \"http://{nobody}\""))).await;
    let reply = lab.registered.ask(&vector("live-q-get-request"), b"").await.unwrap();
    assert_eq!((reply.signature, reply.version), (DATA_SIGNATURE, *b"01"));
    assert!(
        !reply.error.is_empty() && reply.values("HttpStatus").is_empty() && reply.body.is_empty(),
        "{reply:?}"
    );
}

#[tokio::test]
async fn stop_sending_cancels_the_request_at_the_origin() {
    let lab = lab(|host| host).await;
    let mut watched = lab.origin.watch("/stream");
    let (_send, mut recv) = lab.registered.open(&vector("live-q-sse-request")).await;
    watched.arrived().await;
    watched.answer(Response::new(()));
    watched.say("data: 0\n\n");
    within("the first bytes", recv.read_chunk(10_000, true)).await.unwrap().unwrap();
    recv.stop(0_u32.into()).unwrap();
    watched.gone().await;
}

#[tokio::test]
async fn a_captured_websocket_request_is_upgraded_and_carries_raw_frames() {
    let echo = RawOrigin::start(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\necho:ws-frame-bytes",
    );
    let lab = lab(|host| host.rule(&format!("path = \"^/ws\"\nservice = \"{}\"", echo.service()))).await;
    let (_send, mut recv) = lab.registered.open(&vector("live-q-ws-request")).await;
    let bytes = within("a reply", recv.read_to_end(10_000)).await.unwrap();
    let (reply, captured) = (Reply::read(&bytes), Reply::read(&vector("live-q-ws-response")));
    for key in ["HttpStatus", "HttpHeader:Sec-Websocket-Accept"] {
        assert_eq!(reply.values(key), captured.values(key), "{key}");
    }
    assert_eq!(reply.body, captured.body);
    assert_eq!(reply.body, b"echo:ws-frame-bytes");
}

#[tokio::test]
async fn what_this_host_does_not_serve_is_refused_on_its_stream_only() {
    let lab = lab(|host| host).await;
    for name in ["live-q-tcp-request", "live-q-badheader-request"] {
        let reply = lab.registered.ask(&vector(name), b"").await;
        // Either an error answer or a reset; never an answer, never the connection.
        if let Ok(reply) = reply {
            assert!(!reply.error.is_empty(), "{name}: {reply:?}");
        }
    }
    let reply = lab.registered.ask(&vector("live-q-get-request"), b"").await.unwrap();
    assert_eq!(reply.values("HttpStatus"), ["404"]);
}
