//! `adit access`: programs that speak no HTTP reach what is behind a tunnel.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::process::Process;
use e2e::product::{Product, Site};
use e2e::reference;
use e2e::tcp::{Ended, GREETING, Habit, TcpService};
use e2e::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn start(service: &TcpService) -> Product {
    let host = HostDocument::new()
        .rule(&format!("hostname = \"{HOST}\"\nservice = \"tcp://{}\"", service.address))
        .otherwise("http_status:404");
    Product::start(EdgeDocument::new(&["west"], 1).with_https(), host).await
}

/// What is said to it, and asks this edge over TLS.
fn arguments<'a>(name: &'a str, edge: &'a str) -> Vec<&'a str> {
    vec!["access", name, "--hostname", HOST, "--connect-to", edge, "--cacert", "edge-data/ca.pem"]
}

fn secure(product: &Product) -> String {
    product.edge.https.expect("this edge has TLS").to_string()
}

async fn listener(product: &Product) -> (Process, SocketAddr) {
    let edge = secure(product);
    let mut arguments = arguments("tcp", &edge);
    arguments.extend(["--url", "tcp://127.0.0.1:0"]);
    let access = Process::adit("access", &arguments, product.site.folder());
    let event = access.event("listening", |event| event["kind"] == "access").await;
    let address = event["address"].as_str().unwrap().parse().unwrap();
    (access, address)
}

/// So many bytes come back as they were sent.
async fn echo(client: &mut TcpStream, length: u32) {
    let data: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let (mut read, mut write) = client.split();
    let mut back = vec![0; data.len()];
    let (sent, received) =
        tokio::join!(write.write_all(&data), within("the echo", read.read_exact(&mut back)));
    sent.unwrap();
    received.unwrap();
    assert!(back == data, "bytes came back changed");
}

#[tokio::test]
async fn each_connection_to_a_listener_is_one_to_the_service() {
    let service = TcpService::start(Habit::Echo);
    let product = start(&service).await;
    let (access, address) = listener(&product).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(within("a connection", TcpStream::connect(address)).await.unwrap());
    }
    for client in &mut clients {
        echo(client, 1 << 20).await;
    }
    drop(clients);
    for _ in 0..3 {
        assert_eq!(service.ended().await, Ended::Well(1 << 20));
    }
    access.terminate();
    assert_eq!(access.exit().await.code(), Some(0), "{}", access.tail());
}

#[tokio::test]
async fn a_program_that_has_said_all_still_hears_the_service() {
    let service = TcpService::start(Habit::WaitsForAll);
    let product = start(&service).await;
    let (_access, address) = listener(&product).await;
    let mut client = within("a connection", TcpStream::connect(address)).await.unwrap();
    client.write_all(b"all of it").await.unwrap();
    client.shutdown().await.unwrap();
    let mut back = Vec::new();
    within("the answer", client.read_to_end(&mut back)).await.unwrap();
    assert_eq!(back, b"all of it");
    // By standard input and output the same.
    let edge = secure(&product);
    let outcome = Process::run(&arguments("ssh", &edge), product.site.folder(), "all of it").await;
    assert_eq!((outcome.code, outcome.output.as_str()), (Some(0), "all of it"), "{}", outcome.log);
}

#[tokio::test]
async fn a_service_that_leaves_ends_the_program_well() {
    let service = TcpService::start(Habit::Leaves);
    let product = start(&service).await;
    let edge = secure(&product);
    let outcome = Process::run(&arguments("ssh", &edge), product.site.folder(), "").await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.log);
    assert_eq!(outcome.output.trim_end().as_bytes(), GREETING.trim_ascii_end());
}

/// Answers one request with these bytes, and says what its head was.
fn answers(answer: &'static str) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(head).unwrap()
    });
    (address, asked)
}

#[tokio::test]
async fn a_service_token_is_sent_and_never_shown_and_a_refusal_is_said() {
    let site = Site::new();
    site.write("secret", "hunter2\n");
    for (answer, said) in [
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "answered 403: whoever asks may not"),
        (
            "HTTP/1.1 302 Found\r\nlocation: https://team.example/cdn-cgi/access/login/x\r\ncontent-length: 0\r\n\r\n",
            "give it a service token",
        ),
        ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n", "did not reach the service"),
    ] {
        let (address, asked) = answers(answer);
        let edge = address.to_string();
        let name = format!("http://{HOST}");
        let outcome = Process::run(
            &[
                "--log",
                "debug",
                "access",
                "tcp",
                "--hostname",
                &name,
                "--connect-to",
                &edge,
                "--id",
                "my-id",
                "--service-token-secret-file",
                "secret",
                "--destination",
                "db.internal:5432",
                "-H",
                "X-More: 1",
            ],
            site.folder(),
            "",
        )
        .await;
        assert_eq!(outcome.code, Some(1), "{}", outcome.log);
        assert!(outcome.log.contains(said), "{}", outcome.log);
        assert!(!outcome.log.contains("hunter2") && !outcome.output.contains("hunter2"), "{}", outcome.log);
        let head = asked.join().unwrap().to_ascii_lowercase();
        for line in [
            "get / http/1.1",
            "host: app.localhost",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "cf-access-client-id: my-id",
            "cf-access-client-secret: hunter2",
            "cf-access-jump-destination: db.internal:5432",
            "x-more: 1",
        ] {
            assert!(head.contains(&format!("{line}\r\n")), "{line}: {head}");
        }
    }
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn the_references_client_and_host_and_ours_carry_the_same_bytes() {
    for (protocol, is_ours) in [("quic", true), ("http2", true), ("quic", false), ("http2", false)] {
        let service = TcpService::start(Habit::Echo);
        let mut host = HostDocument::new().over(protocol).otherwise(&format!("tcp://{}", service.address));
        if is_ours {
            // What has a section for plugins is never served by another program.
            host.plugins = "# a host of ours\n".to_owned();
        }
        let mut edge = EdgeDocument::new(&["west"], 1).with_https();
        edge.hostnames.push("localhost".to_owned());
        let product = Product::start(edge, host).await;
        let name = format!("localhost:{}", product.edge.https.unwrap().port());
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(reference::program());
        command.current_dir(product.site.folder()).env("SSL_CERT_FILE", "edge-data/ca.pem").args([
            "access",
            "tcp",
            "--hostname",
            &name,
            "--url",
            &free.to_string(),
        ]);
        let theirs = Process::start("the reference's access", command);
        theirs.said("its listener", |line| line.contains("Start Websocket listener")).await;
        let arguments =
            ["access", "tcp", "--hostname", &name, "--cacert", "edge-data/ca.pem", "--url", "127.0.0.1:0"];
        let ours = Process::adit("access", &arguments, product.site.folder());
        let event = ours.event("listening", |event| event["kind"] == "access").await;
        for address in [free, event["address"].as_str().unwrap().parse().unwrap()] {
            for length in [1, 16 << 10, (16 << 10) + 1, 256 << 10, 4 << 20] {
                let mut client = within("a connection", TcpStream::connect(address)).await.unwrap();
                echo(&mut client, length).await;
            }
        }
    }
}
