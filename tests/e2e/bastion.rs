//! Circuits whose destination the visitor names: they lead where the host's own document allows, and nowhere else.

use std::net::SocketAddr;

use adit_protocol::websocket::{NORMAL, Piece};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::nobody;
use e2e::product::Product;
use e2e::tcp::{Frames, Habit, TcpService};
use e2e::visitor::{Speaks, Visitor, bare, to, with_text};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const JUMP: &str = "jump.app.localhost";
const SOCKS: &str = "socks.app.localhost";

fn allowing(service: &str, host: &str, port: u16) -> String {
    format!(
        "hostname = \"{host}\"\nservice = \"{service}\"\n[ingress.origin]\n\
         ip-rules = [{{ prefix = \"127.0.0.1\", ports = [{port}], allow = true }}]"
    )
}

async fn start(host: HostDocument) -> Product {
    Product::start(EdgeDocument::new(&["west"], 1), host.over(super::PROTOCOL).otherwise("http_status:404"))
        .await
}

async fn jump(product: &Product, host: &str, destination: &str) -> Frames<TcpStream> {
    let header = format!("Cf-Access-Jump-Destination: {destination}\r\n");
    Frames::ask(product.visitor(Speaks::Http1).dial().await, host, &header).await
}

/// A SOCKS5 request for an address, with the greeting in front.
fn request(address: SocketAddr) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 5, 1, 0];
    match address {
        SocketAddr::V4(address) => {
            bytes.push(1);
            bytes.extend_from_slice(&address.ip().octets());
        }
        SocketAddr::V6(address) => {
            bytes.push(4);
            bytes.extend_from_slice(&address.ip().octets());
        }
    }
    bytes.extend_from_slice(&address.port().to_be_bytes());
    bytes
}

fn by_name(name: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

/// A circuit on which this was asked, and the reply.
async fn socks(product: &Product, bytes: &[u8]) -> (Frames<TcpStream>, u8) {
    let mut circuit = Frames::ask(product.visitor(Speaks::Http1).dial().await, SOCKS, "").await;
    assert_eq!(circuit.status(), "101", "{}", circuit.head);
    circuit.send(bytes).await;
    assert_eq!(circuit.read(2).await, [5, 0]);
    let reply = circuit.read(10).await;
    assert_eq!(reply[0], 5);
    (circuit, reply[1])
}

#[tokio::test]
async fn a_bastion_leads_where_its_rules_allow_and_nowhere_else() {
    let (service, other) = (TcpService::start(Habit::Echo), TcpService::start(Habit::Echo));
    let port = service.address.port();
    let product = start(
        HostDocument::new()
            .rule(&allowing("bastion", JUMP, port))
            .rule("hostname = \"closed.app.localhost\"\nservice = \"bastion\""),
    )
    .await;
    for destination in [format!("127.0.0.1:{port}"), format!("ssh://localhost:{port}/x")] {
        let mut circuit = jump(&product, JUMP, &destination).await;
        assert_eq!(circuit.status(), "101", "{destination}: {}", circuit.head);
        assert!(circuit.echoes(b"there").await);
    }
    for (host, destination, status) in [
        (JUMP, other.address.to_string(), "403"),
        (JUMP, format!("127.0.0.2:{port}"), "403"),
        (JUMP, format!("[::ffff:127.0.0.2]:{port}"), "403"),
        (JUMP, format!("169.254.169.254:{port}"), "403"),
        (JUMP, "127.0.0.1".to_owned(), "400"),
        ("closed.app.localhost", service.address.to_string(), "403"),
    ] {
        let refused = jump(&product, host, &destination).await;
        assert_eq!(refused.status(), status, "{host} {destination}: {}", refused.head);
    }
    let silent = Frames::ask(product.visitor(Speaks::Http1).dial().await, JUMP, "").await;
    assert_eq!(silent.status(), "400", "{}", silent.head);
}

#[tokio::test]
async fn socks_leads_where_its_rules_allow_by_address_and_by_name() {
    let (service, other) = (TcpService::start(Habit::Echo), TcpService::start(Habit::Echo));
    let port = service.address.port();
    let gone = nobody();
    let rule = format!(
        "hostname = \"{SOCKS}\"\nservice = \"socks-proxy\"\n[ingress.origin]\nip-rules = [\
         {{ prefix = \"127.0.0.1\", ports = [{port}, {}], allow = true }}, {{ prefix = \"::/0\", allow = true }}]",
        gone.port()
    );
    let product = start(HostDocument::new().rule(&rule)).await;
    for bytes in [request(service.address), by_name("localhost", port)] {
        let (mut circuit, reply) = socks(&product, &bytes).await;
        assert_eq!(reply, 0);
        assert!(circuit.echoes(b"there").await);
        circuit.close(NORMAL).await;
        assert_eq!(circuit.next().await, Some(Piece::Close(Some(NORMAL))));
    }
    for (bytes, reply) in [
        (request(other.address), 2),
        (by_name("localhost", other.address.port()), 2),
        // A rule about everything is not one about this machine.
        (request(format!("[::1]:{port}").parse().unwrap()), 2),
        (request(gone), 5),
        (by_name("no-such-name.invalid", port), 4),
    ] {
        let (mut circuit, said) = socks(&product, &bytes).await;
        assert_eq!(said, reply, "{bytes:?}");
        assert_eq!(circuit.next().await, Some(Piece::Close(Some(NORMAL))));
    }
}

/// Has the edge push this, which the host serves by when the edge answers.
async fn push(product: &Product, config: Value) {
    let request = to("PUT", "/tunnels/demo/config").header("host", "localhost");
    let asked = Visitor::new(product.edge.admin, Speaks::Http1, None);
    let answer = asked.send(with_text(request, &config.to_string())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["applied"], 1, "{}", answer.text());
}

#[tokio::test]
async fn a_pushed_configuration_leads_no_further_than_the_hosts_document() {
    let (service, other) = (TcpService::start(Habit::Echo), TcpService::start(Habit::Echo));
    let keys = "config-source = \"remote\"";
    let tcp = format!(
        "[tcp]\nip-rules = [{{ prefix = \"127.0.0.0/8\", ports = [{}], allow = true }}]\n",
        service.address.port()
    );
    let mut host = HostDocument::new().keys(keys);
    host.rules.push_str(&tcp);
    let product = start(host).await;
    let wide = json!([{ "prefix": "127.0.0.0/8", "allow": true }]);
    push(
        &product,
        json!({ "ingress": [
            { "hostname": JUMP, "service": "bastion", "originRequest": { "ipRules": wide } },
            { "hostname": "socket.app.localhost", "service": "unix:/run/x" },
            { "hostname": "bytes.app.localhost", "service": format!("tcp://{}", other.address) },
            { "service": "http_status:404" },
        ]}),
    )
    .await;
    let mut circuit = jump(&product, JUMP, &service.address.to_string()).await;
    assert_eq!(circuit.status(), "101", "{}", circuit.head);
    assert!(circuit.echoes(b"there").await);
    assert_eq!(jump(&product, JUMP, &other.address.to_string()).await.status(), "403");
    let asked = bare(to("GET", "/").header("host", "socket.app.localhost"));
    assert_eq!(product.visitor(Speaks::Http1).send(asked).await.status, 501);
    let mut circuit =
        Frames::ask(product.visitor(Speaks::Http1).dial().await, "bytes.app.localhost", "").await;
    assert!(circuit.echoes(b"as a rule says").await);
}
