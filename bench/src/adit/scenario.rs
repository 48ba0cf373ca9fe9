//! What the visitors do: closed loop, each asks again as soon as it has its answer.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use e2e::bulk::Bulk;
use e2e::document::HOST;
use http::header::{CONTENT_LENGTH, HOST as HOST_HEADER};
use http::{Method, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::options::Options;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A small GET with a Host header only.
    Get,
    /// The same with the headers of a browser.
    Browser,
    /// A connection for every request.
    Fresh,
    /// 16 KiB of JSON.
    Post,
    /// One body to the visitor.
    Down(u64),
    /// One body from the visitor.
    Up(u64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    pub(crate) visitors: usize,
}

/// What the visitors saw.
#[derive(Default)]
pub(crate) struct Load {
    /// Of every request, microseconds.
    pub(crate) latencies: Vec<u32>,
    /// Bytes of bodies, both ways.
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

pub(crate) fn all(options: &Options) -> Vec<Scenario> {
    let small = [Kind::Get, Kind::Browser, Kind::Fresh, Kind::Post];
    let small = small
        .into_iter()
        .flat_map(|kind| options.visitors.iter().map(move |visitors| Scenario { kind, visitors: *visitors }));
    let bulk = [Kind::Down(options.bulk), Kind::Up(options.bulk)];
    let bulk = bulk.into_iter().map(|kind| Scenario { kind, visitors: 1 });
    let all: Vec<Scenario> = small.chain(bulk).collect();
    let names: Vec<String> = all.iter().map(Scenario::to_string).collect();
    all.into_iter().filter(|scenario| options.wants(&scenario.to_string(), &names)).collect()
}

impl Scenario {
    pub(crate) fn is_bulk(&self) -> bool {
        matches!(self.kind, Kind::Down(_) | Kind::Up(_))
    }

    /// Every visitor begins requests until `time` is over; those under way are finished and counted.
    pub(crate) async fn run(&self, address: SocketAddr, time: Duration) -> Result<Load> {
        let start = Instant::now();
        let mut visitors = JoinSet::new();
        for _ in 0..self.visitors {
            visitors.spawn(visit(self.kind, address, start + time));
        }
        let mut load = Load::default();
        while let Some(visited) = visitors.join_next().await {
            let one = visited.context("a visitor panicked")??;
            load.latencies.extend(one.latencies);
            load.bytes += one.bytes;
        }
        load.time = start.elapsed();
        Ok(load)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let visitors = self.visitors;
        match self.kind {
            Kind::Get => write!(f, "get x{visitors}"),
            Kind::Browser => write!(f, "get with browser headers x{visitors}"),
            Kind::Fresh => write!(f, "get on new connections x{visitors}"),
            Kind::Post => write!(f, "post 16 KiB x{visitors}"),
            Kind::Down(bytes) => write!(f, "down {} MiB", bytes >> 20),
            Kind::Up(bytes) => write!(f, "up {} MiB", bytes >> 20),
        }
    }
}

type Body = BoxBody<Bytes, Infallible>;

struct Open {
    sender: SendRequest<Body>,
    _driver: AbortOnDropHandle<()>,
}

async fn open(address: SocketAddr) -> Result<Open> {
    let stream = TcpStream::connect(address).await.context("connecting as a visitor")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    let driver = AbortOnDropHandle::new(tokio::spawn(async move {
        let _ = connection.await;
    }));
    Ok(Open { sender, _driver: driver })
}

async fn visit(kind: Kind, address: SocketAddr, until: Instant) -> Result<Load> {
    let mut load = Load::default();
    let mut kept: Option<Open> = None;
    while Instant::now() < until || load.latencies.is_empty() {
        let start = Instant::now();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => open(address).await?,
        };
        connection.sender.ready().await?;
        load.bytes += exchange(&mut connection.sender, kind).await?;
        load.latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
        if kind != Kind::Fresh {
            kept = Some(connection);
        }
    }
    Ok(load)
}

/// One request and its answer; the bytes of both bodies.
async fn exchange(sender: &mut SendRequest<Body>, kind: Kind) -> Result<u64> {
    let request = Request::builder().header(HOST_HEADER, HOST);
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
    };
    let response = sender.send_request(request.body(body)?).await?;
    ensure!(response.status().is_success(), "status {}", response.status());
    let mut body = response.into_body();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    if let Kind::Down(bytes) = kind {
        ensure!(received == bytes, "{received} of {bytes} bytes came");
    }
    Ok(sent + received)
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
