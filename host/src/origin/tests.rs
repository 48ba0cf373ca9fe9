//! Origins as requests meet them: what the tests of both versions of HTTP stand on.

mod certificates;
mod frames;
mod older;
mod streams;
mod versions;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Body, BoxError, Origin, OriginError, Pool, empty};
use crate::config;

/// No test takes anywhere near as long.
const DEADLINE: Duration = Duration::from_secs(20);

/// As a shard runs it.
fn on_a_shard(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { timeout(DEADLINE, test).await.expect("the test ends in time") });
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn origin(service: &str, keys: &str) -> Origin {
    let rule = format!("[[ingress]]\nservice = {service:?}\n[ingress.origin]\n{keys}\n");
    let rule = config::tests::plan(&rule).rules.remove(0);
    let ca = rule.origin.ca_file.as_ref().map(|file| std::fs::read(file).unwrap());
    Origin::new(&rule.service, &rule.origin, ca.as_deref()).unwrap()
}

fn over_http2(address: SocketAddr) -> Origin {
    origin(&format!("http://{address}"), "http2 = true")
}

fn head(method: &str, path: &str) -> http::request::Parts {
    let uri = format!("https://app.example.com{path}");
    Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "app.example.com")
        .body(())
        .unwrap()
        .into_parts()
        .0
}

/// A body of these pieces, and this trailer behind it.
fn body(pieces: &[&'static str], trailer: Option<&'static str>) -> Body {
    let data = pieces.iter().map(|piece| Frame::data(Bytes::from_static(piece.as_bytes())));
    let trailers = trailer.map(|value| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", HeaderValue::from_static(value));
        Frame::trailers(trailers)
    });
    let frames: Vec<Result<_, BoxError>> = data.chain(trailers).map(Ok).collect();
    Box::pin(StreamBody::new(stream::iter(frames)))
}

/// A body that goes on for as long as the test wants.
fn open_body() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = stream::unfold(receiver, async |mut receiver| {
        let data = receiver.recv().await?;
        Some((Ok(Frame::data(data)), receiver))
    });
    (sender, Box::pin(StreamBody::new(frames)))
}

async fn text(response: Response<Body>) -> (String, Option<HeaderMap>) {
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned();
    (String::from_utf8(body.to_bytes().to_vec()).unwrap(), trailers)
}

/// Serves HTTP/2; every request goes to `serve` with the number of its connection.
fn serve<F>(
    listener: TcpListener,
    builder: server::Builder,
    serve: impl Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let (builder, serve) = (builder.clone(), serve.clone());
            tokio::task::spawn_local(async move {
                let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::task::spawn_local(serve(number, request, respond));
                }
            });
        }
    });
}

fn answer(mut respond: SendResponse<Bytes>, text: &str) {
    // Whoever asked may be gone.
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(Bytes::copy_from_slice(text.as_bytes()), true);
    }
}

async fn whole(mut body: RecvStream) -> String {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let Ok(data) = data else { break };
        let _ = body.flow_control().release_capacity(data.len());
        text.extend_from_slice(&data);
    }
    String::from_utf8(text).unwrap()
}
