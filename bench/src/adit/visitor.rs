//! One visitor of a scenario.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use e2e::bulk::Bulk;
use e2e::grpc::message;
use futures_util::{SinkExt, StreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST as HOST_HEADER, TE};
use http::{Method, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::AbortOnDropHandle;

use crate::circuits;
use crate::scenario::{Kind, Load, Scenario};

type Body = BoxBody<Bytes, Infallible>;

/// Where visitors come in, and the host that they ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) host: &'static str,
}

struct Open {
    sender: SendRequest<Body>,
    host: &'static str,
    _driver: AbortOnDropHandle<()>,
}

/// Visits until then, as the `number`th of its kind.
pub(crate) async fn visit(scenario: Scenario, number: usize, door: Door, until: Instant) -> Result<Load> {
    match scenario.kind {
        Kind::Events => listen(door, until).await,
        Kind::Messages => chat(door, until).await,
        Kind::Call => call(door, until).await,
        Kind::Paced(rate) => pace(scenario.visitors, number, rate, door, until).await,
        Kind::CircuitDown(bytes) => carry(circuits::DOWN, bytes, door, until).await,
        Kind::CircuitUp(bytes) => carry(circuits::UP, bytes, door, until).await,
        kind @ (Kind::Get | Kind::Browser | Kind::Fresh | Kind::Post | Kind::Down(_) | Kind::Up(_)) => {
            ask(kind, door, until).await
        }
    }
}

/// A single small GET.
pub(crate) async fn once(door: Door) -> Result<()> {
    exchange(&mut open(door).await?, Kind::Get).await.map(drop)
}

async fn open(door: Door) -> Result<Open> {
    let (sender, connection) = handshake(TokioIo::new(dial(door).await?)).await?;
    let driver = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    Ok(Open { sender, host: door.host, _driver: driver })
}

pub(crate) async fn dial(door: Door) -> Result<TcpStream> {
    let stream = TcpStream::connect(door.address).await.context("connecting as a visitor")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn ask(kind: Kind, door: Door, until: Instant) -> Result<Load> {
    let mut load = Load::default();
    let mut kept: Option<Open> = None;
    while Instant::now() < until || load.latencies.is_empty() {
        let start = Instant::now();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => open(door).await?,
        };
        connection.sender.ready().await?;
        load.bytes += exchange(&mut connection, kind).await?;
        load.took(start);
        if kind != Kind::Fresh {
            kept = Some(connection);
        }
    }
    Ok(load)
}

async fn carry(word: u8, bytes: u64, door: Door, until: Instant) -> Result<Load> {
    let mut load = Load::default();
    while Instant::now() < until || load.latencies.is_empty() {
        let start = Instant::now();
        load.bytes += circuits::exchange(word, bytes, door).await?;
        load.took(start);
    }
    Ok(load)
}

/// Asks when it is time, not when the answer before is there: a stall costs every request that it delays.
async fn pace(visitors: usize, number: usize, rate: u32, door: Door, until: Instant) -> Result<Load> {
    let mut connection = open(door).await?;
    let every = Duration::from_secs(1).mul_f64(visitors as f64 / f64::from(rate));
    let mut due = Instant::now() + every.mul_f64(number as f64 / visitors as f64);
    let mut load = Load::default();
    while due < until || load.latencies.is_empty() {
        tokio::time::sleep_until(due.into()).await;
        connection.sender.ready().await?;
        load.bytes += exchange(&mut connection, Kind::Get).await?;
        load.took(due);
        due += every;
    }
    Ok(load)
}

async fn listen(door: Door, until: Instant) -> Result<Load> {
    let mut connection = open(door).await?;
    let request = Request::builder().header(HOST_HEADER, door.host).uri("/events");
    let response = connection.sender.send_request(request.body(empty())?).await?;
    ensure!(response.status().is_success(), "status {}", response.status());
    let mut body = response.into_body();
    let mut load = Load::default();
    let mut last = Instant::now();
    while last < until || load.latencies.is_empty() {
        let frame = body.frame().await.context("the events ended")??;
        load.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        load.took(last);
        last = Instant::now();
    }
    Ok(load)
}

async fn chat(door: Door, until: Instant) -> Result<Load> {
    let (mut socket, _) = client_async(format!("ws://{}/websocket", door.host), dial(door).await?).await?;
    let message = Message::text("x".repeat(64));
    let mut load = Load::default();
    while Instant::now() < until || load.latencies.is_empty() {
        let start = Instant::now();
        socket.send(message.clone()).await?;
        let back = socket.next().await.context("the socket was closed")??;
        ensure!(back == message, "another message came back");
        load.took(start);
        load.bytes += 2 * message.len() as u64;
    }
    socket.close(None).await?;
    Ok(load)
}

async fn call(door: Door, until: Instant) -> Result<Load> {
    let io = TokioIo::new(dial(door).await?);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    let question = message(&[b'x'; 100]);
    let mut load = Load::default();
    while Instant::now() < until || load.latencies.is_empty() {
        let start = Instant::now();
        let request = Request::post(format!("http://{}/Unary", door.host))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(Full::new(question.clone()))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        ensure!(response.status().is_success(), "status {}", response.status());
        load.bytes += question.len() as u64 + read(response.into_body()).await?;
        load.took(start);
    }
    Ok(load)
}

/// One request and its answer; the bytes of both bodies.
async fn exchange(open: &mut Open, kind: Kind) -> Result<u64> {
    let request = Request::builder().header(HOST_HEADER, open.host);
    let (request, body, sent) = match kind {
        Kind::Get | Kind::Fresh => (request.uri("/status/200"), empty(), 0),
        Kind::Browser => {
            let request =
                BROWSER.iter().fold(request.uri("/status/200"), |it, (name, value)| it.header(*name, *value));
            (request, empty(), 0)
        }
        Kind::Post => {
            let body = Bytes::from_static(&JSON);
            let request = request.method(Method::POST).uri("/sink");
            (request.header("content-type", "application/json"), Full::new(body).boxed(), JSON.len() as u64)
        }
        Kind::Down(bytes) => (request.uri(format!("/bytes/{bytes}")), empty(), 0),
        Kind::Up(bytes) => {
            let request = request.method(Method::POST).uri("/sink").header(CONTENT_LENGTH, bytes);
            (request, Bulk::new(bytes).boxed(), bytes)
        }
        Kind::Paced(_)
        | Kind::Events
        | Kind::Messages
        | Kind::Call
        | Kind::CircuitDown(_)
        | Kind::CircuitUp(_) => bail!("has a way of its own"),
    };
    let response = open.sender.send_request(request.body(body)?).await?;
    ensure!(response.status().is_success(), "status {}", response.status());
    let received = read(response.into_body()).await?;
    if let Kind::Down(bytes) = kind {
        ensure!(received == bytes, "{received} of {bytes} bytes came");
    }
    Ok(sent + received)
}

/// The length of a body.
async fn read(mut body: Incoming) -> Result<u64> {
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(received)
}

fn empty() -> Body {
    Empty::new().boxed()
}

/// Looks like JSON to whoever looks.
static JSON: [u8; 16 << 10] = {
    let mut json = [b'0'; 16 << 10];
    json[0] = b'[';
    json[(16 << 10) - 1] = b']';
    json
};

/// What a browser sends with a page's requests.
const BROWSER: [(&str, &str); 14] = [
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://app.localhost/overview/of/things"),
    ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark; consent=none"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-user", "?1"),
    ("upgrade-insecure-requests", "1"),
    ("dnt", "1"),
    ("priority", "u=0, i"),
    ("cache-control", "max-age=0"),
];
