//! Services of bytes behind a tunnel: what goes in comes out, both ways, and each end hears what became of the
//! other.

use adit_protocol::websocket::{END_OF_DIRECTION, HALF_CLOSE, NORMAL, PROTOCOL_ERROR, Piece};
use bytes::Bytes;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::metrics::Scraped;
use e2e::origin::{Origin, nobody};
use e2e::process::Process;
use e2e::product::{Product, Site};
use e2e::tcp::{Ended, Frames, GREETING, Habit, TcpService};
use e2e::visitor::{Speaks, Visitor, bare, get, to};
use e2e::within;
use http::header::HOST as HOST_HEADER;
use serde_json::Value;
use tokio::net::TcpStream;

const BYTES: &str = "bytes.app.localhost";

fn document(service: &TcpService) -> HostDocument {
    HostDocument::new().over(super::PROTOCOL).rule(&rule("tcp", service))
}

fn rule(scheme: &str, service: &TcpService) -> String {
    format!("name = \"bytes\"\nhostname = \"{BYTES}\"\nservice = \"{scheme}://{}\"", service.address)
}

async fn start(host: HostDocument) -> Product {
    Product::start(EdgeDocument::new(&["west"], 1), host.otherwise("http_status:404")).await
}

async fn ask(product: &Product, more: &str) -> Frames<TcpStream> {
    Frames::ask(product.visitor(Speaks::Http1).dial().await, BYTES, more).await
}

async fn open(product: &Product) -> Frames<TcpStream> {
    let circuit = ask(product, "").await;
    assert_eq!(circuit.status(), "101", "{}", circuit.head);
    circuit
}

fn half_close() -> String {
    format!("Sec-WebSocket-Protocol: other, {HALF_CLOSE}\r\n")
}

async fn metric(product: &Product, name: &str, labels: &[(&str, &str)]) -> f64 {
    Scraped::parse(product.host.admin("/metrics").await.text()).sum(name, labels)
}

/// Waits until a metric is what it has to become.
async fn becomes(product: &Product, name: &str, labels: &[(&str, &str)], wanted: f64) {
    let reached = async {
        while metric(product, name, labels).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    within(&format!("{name} {labels:?} is {wanted}"), reached).await;
}

#[tokio::test]
async fn frames_of_any_length_arrive_whole() {
    let service = TcpService::start(Habit::Echo);
    let product = start(document(&service)).await;
    let mut circuit = open(&product).await;
    // Of the sample key of RFC 6455.
    assert!(circuit.head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{}", circuit.head);
    assert!(!circuit.head.contains("sec-websocket-protocol"), "{}", circuit.head);
    for length in [1, 125, 126, 16 << 10, 64 << 10, 256 << 10, 1 << 20] {
        let data: Vec<u8> = (0..length as u32).map(|at| (at % 251) as u8).collect();
        assert!(circuit.echoes(&data).await, "a frame of {length} bytes came back changed");
    }
    // One message in three parts, the middle one empty, with a ping among them.
    circuit.raw(&[0x02, 0x82, 0, 0, 0, 0, b'a', b'b', 0x00, 0x80, 0, 0, 0, 0]).await;
    circuit.raw(&[0x89, 0x82, 0, 0, 0, 0, b'h', b'i', 0x80, 0x81, 0, 0, 0, 0, b'c']).await;
    let (mut back, mut pong) = (Vec::new(), false);
    while back != b"abc" || !pong {
        match circuit.next().await {
            Some(Piece::Data(data)) => back.extend_from_slice(&data),
            Some(Piece::Pong) => pong = true,
            other => panic!("{other:?} after {back:?}"),
        }
    }
    circuit.close(NORMAL).await;
    assert_eq!(circuit.next().await, Some(Piece::Close(Some(NORMAL))));
    assert_eq!(circuit.next().await, None);
    let sent = (1 + 125 + 126 + (16 << 10) + (64 << 10) + (256 << 10) + (1 << 20) + 3) as f64;
    assert_eq!(service.ended().await, Ended::Well(sent as usize));
    becomes(&product, "adit_tcp_circuits", &[], 0.0).await;
    for (name, labels, wanted) in [
        ("adit_tcp_bytes_total", ("from", "visitor"), sent),
        ("adit_tcp_bytes_total", ("from", "service"), sent),
        ("adit_tcp_circuits_ended_total", ("reason", "visitor"), 1.0),
    ] {
        assert_eq!(metric(&product, name, &[labels]).await, wanted, "{name} {labels:?}");
    }
}

#[tokio::test]
async fn a_circuit_is_accepted_when_its_service_is_connected_and_refused_where_it_is_not() {
    let service = TcpService::start(Habit::Leaves);
    let host = document(&service)
        .rule(&format!("hostname = \"gone.app.localhost\"\nservice = \"ssh://{}\"", nobody()));
    let product = start(host).await;
    let refused = Frames::ask(product.visitor(Speaks::Http1).dial().await, "gone.app.localhost", "").await;
    assert_eq!(refused.status(), "502", "{}", refused.head);
    // Without an upgrade there is nothing that bytes could come back on.
    let plain = product.visitor(Speaks::Http1).send(bare(to("GET", "/").header(HOST_HEADER, BYTES))).await;
    assert_eq!(plain.status, 426);
    // A service that speaks first and leaves has said all of it.
    let mut circuit = open(&product).await;
    assert_eq!(circuit.read(GREETING.len()).await, GREETING);
    assert_eq!(circuit.next().await, Some(Piece::Close(Some(NORMAL))));
    assert_eq!(circuit.next().await, None);
}

#[tokio::test]
async fn each_direction_ends_for_itself_where_both_ends_know_how() {
    let waits = TcpService::start(Habit::WaitsForAll);
    let product = start(document(&waits)).await;
    let mut circuit = ask(&product, &half_close()).await;
    assert!(circuit.head.contains(&format!("sec-websocket-protocol: {HALF_CLOSE}")), "{}", circuit.head);
    circuit.send(b"all that there is").await;
    circuit.close(END_OF_DIRECTION).await;
    assert_eq!(circuit.read(17).await, b"all that there is");
    assert_eq!(circuit.next().await, Some(Piece::Close(Some(NORMAL))));
    assert_eq!(waits.ended().await, Ended::Well(17));

    let greets = TcpService::start(Habit::Greets);
    let product = start(document(&greets)).await;
    let mut circuit = ask(&product, &half_close()).await;
    assert_eq!(circuit.read(GREETING.len()).await, GREETING);
    assert_eq!(circuit.next().await, Some(Piece::Close(Some(END_OF_DIRECTION))));
    circuit.send(b"heard all the same").await;
    circuit.close(END_OF_DIRECTION).await;
    assert_eq!(greets.ended().await, Ended::Well(18));
    assert_eq!(circuit.next().await, None);
}

#[tokio::test]
async fn whoever_ends_its_connection_still_hears_the_service() {
    let service = TcpService::start(Habit::WaitsForAll);
    let product = start(document(&service)).await;
    let mut circuit = open(&product).await;
    circuit.send(b"and that is all").await;
    circuit.shutdown().await;
    assert_eq!(circuit.read(15).await, b"and that is all");
}

#[tokio::test]
async fn a_service_hears_that_a_visitor_is_gone_and_not_that_it_has_said_all() {
    let service = TcpService::start(Habit::WaitsForAll);
    let product = start(document(&service)).await;
    let mut circuit = open(&product).await;
    circuit.send(b"the first half of").await;
    becomes(&product, "adit_tcp_bytes_total", &[("from", "visitor")], 17.0).await;
    // What is no frame says nothing about where the rest is.
    circuit.raw(&[0xff; 32]).await;
    assert_eq!(circuit.next().await, Some(Piece::Close(Some(PROTOCOL_ERROR))));
    assert_eq!(service.ended().await, Ended::Reset);
    becomes(&product, "adit_tcp_circuits_ended_total", &[("reason", "protocol")], 1.0).await;
}

#[tokio::test]
async fn a_swap_leaves_circuits_alone_as_long_as_a_rule_leads_to_their_service() {
    let service = TcpService::start(Habit::Echo);
    let host = document(&service).keys("access-log = true\nretire-after = \"1s\"");
    let product = start(host.clone()).await;
    let mut circuit = open(&product).await;
    assert!(circuit.echoes(b"before").await);
    let reload = async |host: HostDocument| {
        let host = host.otherwise("http_status:418");
        product.site.write("host.toml", host.to_toml(&product.edge.servers));
        let asked = bare(to("POST", "/reload").header("host", "localhost"));
        let verdict = Visitor::new(product.host.admin, Speaks::Http1, None).send(asked).await.json();
        assert_eq!(verdict["verdict"], "applied", "{verdict}");
    };
    let origin = Origin::start();
    let mut watched = origin.watch("/endless");
    let streaming =
        HostDocument::new().over(super::PROTOCOL).keys("access-log = true\nretire-after = \"1s\"");
    reload(host.clone().rule(&format!("hostname = \"app.localhost\"\nservice = \"{}\"", origin.service())))
        .await;
    // An answer that ends because its generation's time is over shows that this time has come for circuits too.
    let connection = product.visitor(Speaks::Http1).connect().await;
    let directed = async {
        watched.arrived().await;
        watched.answer(http::Response::new(()));
        watched.say("first");
    };
    let (answer, ()) = tokio::join!(connection.send(get("/endless")), directed);
    reload(host).await;
    let cut =
        within("the end of a generation's time", http_body_util::BodyExt::collect(answer.into_body())).await;
    assert!(cut.is_err());
    assert!(circuit.echoes(b"after").await);
    // No rule leads there any more.
    reload(streaming).await;
    assert_eq!(circuit.next().await, None);
    assert_eq!(service.ended().await, Ended::Reset);
    let line = product.host.process.event("circuit", |_| true).await;
    for (field, wanted) in [("rule", Value::from("bytes")), ("received", 11.into()), ("sent", 11.into())] {
        assert_eq!(line[field], wanted, "{line}");
    }
    assert_eq!(line["ended"], "dropped", "{line}");
}

#[tokio::test]
async fn a_host_that_stops_lets_circuits_end_by_themselves() {
    let service = TcpService::start(Habit::Echo);
    let product = start(document(&service)).await;
    let mut circuit = open(&product).await;
    product.host.process.terminate();
    product.edge.process.event("unregistered", |_| true).await;
    assert!(circuit.echoes(b"still there").await);
    circuit.close(NORMAL).await;
    assert_eq!(circuit.next().await, Some(Piece::Close(Some(NORMAL))));
    assert_eq!(product.host.process.exit().await.code(), Some(0), "{}", product.host.process.tail());
}

#[tokio::test]
async fn circuits_beyond_the_limit_are_refused_before_their_service_hears_of_them() {
    let service = TcpService::start(Habit::Echo);
    let mut host = document(&service);
    host.rules.push_str("[tcp]\nmost-circuits = 1\n");
    host.rules.push_str("[[ingress]]\nhostname = \"other.app.localhost\"\nservice = \"hello_world\"\n");
    let product = start(host).await;
    let mut first = open(&product).await;
    assert_eq!(ask(&product, "").await.status(), "502");
    assert_eq!(metric(&product, "adit_tcp_circuits_refused_total", &[]).await, 1.0);
    first.close(NORMAL).await;
    becomes(&product, "adit_tcp_circuits", &[], 0.0).await;
    assert!(open(&product).await.echoes(b"now").await);
}

#[tokio::test]
async fn where_places_run_out_a_visitor_who_has_fewer_gets_the_newest_of_who_has_most() {
    let service = TcpService::start(Habit::Echo);
    let mut host = document(&service);
    host.rules.push_str("[tcp]\nmost-circuits = 3\n");
    let edge = EdgeDocument::new(&["west"], 1).for_visitors("trusted-proxies = [\"127.0.0.0/8\"]");
    let product = Product::start(edge, host.otherwise("http_status:404")).await;
    let from = async |address: &str| ask(&product, &format!("X-Forwarded-For: {address}\r\n")).await;
    let mut greedy = [from("192.0.2.1").await, from("192.0.2.1").await, from("192.0.2.1").await];
    assert_eq!(from("192.0.2.1").await.status(), "502", "it has as many as anybody");
    let mut other = from("192.0.2.2").await;
    assert!(other.echoes(b"let in").await, "{}", other.head);
    let [oldest, older, newest] = &mut greedy;
    assert_eq!(newest.next().await, Some(Piece::Close(Some(1001))));
    assert!(oldest.echoes(b"still there").await && older.echoes(b"still there").await);
    becomes(&product, "adit_tcp_circuits_ended_total", &[("reason", "displaced")], 1.0).await;
    assert_eq!(from("192.0.2.2").await.status(), "502", "it would have more than the first one then");
    assert_eq!(metric(&product, "adit_tcp_circuits", &[]).await, 3.0);
}

#[tokio::test]
async fn nothing_moves_for_longer_than_a_rule_allows() {
    let service = TcpService::start(Habit::Echo);
    let mut host = document(&service);
    host.rules.push_str("[ingress.origin]\nidle-timeout = \"1s\"\n");
    let product = start(host).await;
    let mut circuit = open(&product).await;
    assert!(circuit.echoes(b"moves").await);
    assert_eq!(circuit.next().await, Some(Piece::Close(Some(1001))));
    assert_eq!(service.ended().await, Ended::Reset);
    becomes(&product, "adit_tcp_circuits_ended_total", &[("reason", "idle")], 1.0).await;
}

#[tokio::test]
async fn a_plugin_in_front_guards_a_service_of_bytes() {
    let service = TcpService::start(Habit::Echo);
    let site = Site::new();
    let password = Process::run(&["hash-password"], site.folder(), "open sesame\n").await.output;
    let config = format!(
        "[plugin.config]\nrealm = \"e2e\"\nusers = [{{ name = \"ada\", password = \"{}\" }}]",
        password.trim()
    );
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .plugin("auth", std::path::Path::new("shelf:basic-auth"), &config)
        .rule(&format!("{}\nplugins = [\"auth\"]", rule("ssh", &service)))
        .otherwise("http_status:404");
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    assert_eq!(ask(&product, "").await.status(), "401");
    let mut circuit = ask(&product, "Authorization: Basic YWRhOm9wZW4gc2VzYW1l\r\n").await;
    assert_eq!(circuit.status(), "101", "{}", circuit.head);
    assert!(circuit.echoes(&Bytes::from_static(b"let in")).await);
}
