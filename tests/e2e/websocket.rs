//! WebSockets pass through, message by message, until either side closes.

use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::{Origin, RawOrigin};
use e2e::product::{Lent, Product, Stage};
use e2e::visitor::{Speaks, to};
use e2e::within;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

static STAGE: OnceCell<Stage> = OnceCell::const_new();

async fn stage() -> Lent {
    STAGE.get_or_init(build).await.lend()
}

async fn build() -> Stage {
    let origin = Origin::start();
    // Says what it got after the handshake once the other side has closed its direction.
    let early = RawOrigin::start(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05early",
    );
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .rule(&format!("hostname = \"early.app.localhost\"\nservice = \"{}\"", early.service()))
        .otherwise(&origin.service());
    Stage::new(Product::start(EdgeDocument::new(&["west"], 1), host).await, origin)
}

type Socket = WebSocketStream<TcpStream>;

async fn open(stage: &Stage, path: &str) -> Result<Socket, tungstenite::Error> {
    let tcp = stage.product.visitor(Speaks::Http1).dial().await;
    let limits = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    let url = format!("ws://{HOST}{path}");
    within("a WebSocket handshake", client_async_with_config(url, tcp, Some(limits)))
        .await
        .map(|(socket, _)| socket)
}

async fn next(socket: &mut Socket) -> Message {
    within("a message", socket.next()).await.expect("the socket goes on").expect("a message")
}

#[tokio::test]
async fn messages_come_back_one_by_one_and_in_order() {
    let stage = stage().await;
    let mut socket = open(&stage, "/websocket/echo?x=1").await.unwrap();
    for number in 0..50 {
        socket.send(Message::text(format!("message {number}"))).await.unwrap();
        assert_eq!(next(&mut socket).await, Message::text(format!("message {number}")));
    }
    for number in 0..50 {
        socket.feed(Message::binary(vec![number; usize::from(number) * 100])).await.unwrap();
    }
    socket.flush().await.unwrap();
    for number in 0..50 {
        assert_eq!(next(&mut socket).await, Message::binary(vec![number; usize::from(number) * 100]));
    }
    socket.send(Message::Ping(vec![1, 2, 3].into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong(vec![1, 2, 3].into()));
}

#[tokio::test]
async fn five_hundred_sockets_are_open_at_once_on_one_connection() {
    let stage = stage().await;
    let mut sockets = Vec::new();
    for _ in 0..500 {
        sockets.push(open(&stage, "/websocket").await.unwrap());
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        socket.send(Message::text(format!("{number}"))).await.unwrap();
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        assert_eq!(next(socket).await, Message::text(format!("{number}")));
    }
}

#[tokio::test]
async fn a_frame_of_twenty_mebibytes_comes_back_whole() {
    let stage = stage().await;
    let socket = open(&stage, "/websocket").await.unwrap();
    let large: Vec<u8> = (0..20 * 1024 * 1024_u32).map(|at| (at % 251) as u8).collect();
    let (mut sink, mut stream) = socket.split();
    let (sent, back) = tokio::join!(
        within("sending a large frame", sink.send(Message::binary(large.clone()))),
        within("a large frame", stream.next()),
    );
    sent.unwrap();
    assert!(back.unwrap().unwrap() == Message::binary(large), "the frame came back changed");
}

#[tokio::test]
async fn a_close_by_the_visitor_is_answered_by_the_origin() {
    let stage = stage().await;
    let mut socket = open(&stage, "/websocket").await.unwrap();
    let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    socket.close(Some(frame.clone())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Close(Some(frame)));
    assert!(within("the end", socket.next()).await.is_none());
}

#[tokio::test]
async fn a_close_by_the_origin_reaches_the_visitor() {
    let stage = stage().await;
    let mut socket = open(&stage, "/websocket").await.unwrap();
    socket.send(Message::text("bye")).await.unwrap();
    let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
    assert_eq!(next(&mut socket).await, Message::Close(Some(frame)));
    assert!(within("the end", socket.next()).await.is_none());
}

#[tokio::test]
async fn an_answer_other_than_101_passes_as_it_is() {
    let stage = stage().await;
    for (path, status) in [("/status/403", 403), ("/status/503", 503), ("/status/200", 200)] {
        match open(&stage, path).await {
            Err(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), status),
            Err(other) => panic!("{path}: {other}"),
            Ok(_) => panic!("{path}: accepted"),
        }
    }
}

#[tokio::test]
async fn what_the_origin_sends_with_its_acceptance_is_not_lost_nor_is_its_early_end() {
    let stage = stage().await;
    let mut tcp = stage.product.visitor(Speaks::Http1).dial().await;
    tcp.write_all(handshake("early.app.localhost").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("the end of an early origin", tcp.read_to_end(&mut answer)).await.unwrap();
    let text = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(text.starts_with("http/1.1 101 "), "{text}");
    assert!(text.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{text}");
    assert!(answer.ends_with(b"\r\n\r\n\x81\x05early"), "{text}");
}

#[tokio::test]
async fn what_comes_right_behind_the_handshake_is_not_lost() {
    let stage = stage().await;
    let mut tcp = stage.product.visitor(Speaks::Http1).dial().await;
    let mut bytes = handshake(HOST).into_bytes();
    // A masked text frame `hi` with an empty mask, in the same packet as the head.
    bytes.extend_from_slice(b"\x81\x82\0\0\0\0hi");
    tcp.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"\x81\x02hi") {
            assert_ne!(tcp.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
        }
    };
    within("the echo of an early frame", read).await;
}

#[tokio::test]
async fn a_visitor_that_has_said_all_still_hears_the_answer() {
    let stage = stage().await;
    let mut tcp = stage.product.visitor(Speaks::Http1).dial().await;
    tcp.write_all(handshake(HOST).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let head = async {
        while !answer.ends_with(b"\r\n\r\n") {
            assert_ne!(tcp.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
        }
    };
    within("the head of an acceptance", head).await;
    // A frame, and the end of this direction: there is an answer on its way all the same.
    tcp.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    tcp.shutdown().await.unwrap();
    answer.clear();
    let read = async {
        while !answer.starts_with(b"\x81\x02hi") {
            assert_ne!(tcp.read_buf(&mut answer).await.unwrap(), 0, "the answer was cut off: {answer:?}");
        }
    };
    within("the echo of a last frame", read).await;
}

#[tokio::test]
async fn a_visitor_that_vanishes_ends_the_socket_at_the_origin() {
    let stage = stage().await;
    let mut watched = stage.origin.watch("/hanging-websocket");
    let tcp = stage.product.visitor(Speaks::Http1).dial().await;
    let url = format!("ws://{HOST}/hanging-websocket");
    {
        let mut opened = std::pin::pin!(client_async_with_config(url, tcp, None));
        tokio::select! {
            head = watched.arrived() => {
                assert_eq!(head.headers["upgrade"], "websocket");
                assert_eq!(head.headers["sec-websocket-version"], "13");
            }
            outcome = &mut opened => panic!("an answer out of nothing: {:?}", outcome.map(|_| ())),
        }
    }
    watched.gone().await;
}

#[tokio::test]
async fn a_plain_request_to_a_websocket_service_is_a_plain_request() {
    let stage = stage().await;
    let request = e2e::visitor::bare(to("GET", "/websocket"));
    assert_eq!(stage.product.visitor(Speaks::Http1).send(request).await.status, 426);
}

fn handshake(host: &str) -> String {
    format!(
        "GET /websocket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
