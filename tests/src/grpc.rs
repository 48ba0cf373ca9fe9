//! A service that speaks gRPC as it is on the wire: HTTP/2 with prior knowledge, messages with a length in
//! front, and a status in trailers. No more of it than what a tunnel could break.
//!
//! | path | answer |
//! |---|---|
//! | `/Unary` | the one message that came |
//! | `/Count` | as many messages as the first byte of the message says |
//! | `/Bidi` | every message, as soon as it is there |
//! | `/Refuse` | no message: the status is in the head of the answer |
//! | `/BreakOff` | the first message; at the second the stream breaks |
//!
//! Trailers say the status, how many messages came, and the trailer `x-end` of the request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::visitor::BoxError;
use crate::within;

type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A running service, on a thread of its own.
pub struct Grpc {
    address: SocketAddr,
    /// How many calls are under way.
    calls: watch::Receiver<usize>,
    _stop: DropGuard,
}

/// Takes messages out of a body, however it was cut.
#[derive(Default)]
pub struct Messages {
    bytes: BytesMut,
    /// What stood behind the body.
    pub trailers: Option<HeaderMap>,
}

impl Grpc {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (count, calls) = watch::channel(0);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(stopped.run_until_cancelled(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                let count = Arc::new(count);
                while let Ok((stream, _)) = listener.accept().await {
                    let _ = stream.set_nodelay(true);
                    let count = count.clone();
                    let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(
                        TokioIo::new(stream),
                        service_fn(move |request| std::future::ready(serve(request, &count))),
                    );
                    tokio::spawn(connection);
                }
            }));
        });
        Self { address, calls, _stop: stop.drop_guard() }
    }

    /// Done when so many calls are under way.
    pub async fn calls(&self, wanted: usize) {
        let mut calls = self.calls.clone();
        let _ = within("the calls", calls.wait_for(|calls| *calls == wanted)).await;
    }

    /// As a rule's keys.
    pub fn rule(&self) -> String {
        format!("service = \"http://{}\"\n[ingress.origin]\nhttp2 = true", self.address)
    }
}

/// A message as it stands in a body.
pub fn message(content: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + content.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(content.len()).expect("a short message"));
    bytes.put_slice(content);
    bytes.freeze()
}

impl Messages {
    /// The next one; `None` at the end of the body.
    pub async fn next(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, hyper::Error> {
        loop {
            if let Some((head, rest)) = self.bytes.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if rest.len() >= length {
                    return Ok(Some(self.bytes.split_to(5 + length).freeze().slice(5..)));
                }
            }
            match body.frame().await.transpose()? {
                None => {
                    assert!(self.bytes.is_empty(), "the body ends within a message");
                    return Ok(None);
                }
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.bytes.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }
}

fn serve(request: Request<Incoming>, count: &Arc<watch::Sender<usize>>) -> Result<Response<Body>, BoxError> {
    let path = request.uri().path().to_owned();
    let answer = Response::builder().header("content-type", "application/grpc");
    // What reached this side is shown to whoever asked.
    let te = request.headers().get("te").cloned();
    let answer = answer.header("x-te", te.unwrap_or(HeaderValue::from_static("-")));
    let internal = request.headers().keys().filter(|name| name.as_str().starts_with("adit-")).count();
    let answer = answer.header("x-internal", internal);
    if path == "/Refuse" {
        let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
        return Ok(answer.header("grpc-status", "5").body(empty)?);
    }
    let (sender, body) = Channel::new(1);
    count.send_modify(|calls| *calls += 1);
    let count = count.clone();
    tokio::spawn(async move {
        converse(path, request.into_body(), sender).await;
        count.send_modify(|calls| *calls -= 1);
    });
    Ok(answer.body(body.boxed_unsync())?)
}

/// Whoever asked may leave at any time.
async fn converse(path: String, mut body: Incoming, mut sender: Sender<Bytes, BoxError>) {
    let mut messages = Messages::default();
    let mut count = 0_usize;
    while let Ok(Some(asked)) = messages.next(&mut body).await {
        count += 1;
        if path == "/BreakOff" && count == 2 {
            return sender.abort("as it was asked for".into());
        }
        let times = if path == "/Count" { usize::from(asked[0]) } else { 1 };
        for _ in 0..times {
            if sender.send_data(message(&asked)).await.is_err() {
                return;
            }
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-count", HeaderValue::from(count));
    if let Some(end) = messages.trailers.as_ref().and_then(|trailers| trailers.get("x-end")) {
        trailers.insert("x-end", end.clone());
    }
    // Nobody else may say it.
    trailers.insert("adit-not-here", HeaderValue::from_static("1"));
    let _ = sender.send_trailers(trailers).await;
}
