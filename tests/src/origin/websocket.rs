//! A WebSocket that sends every message back, and closes when it is told `bye`.

use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::{Body, Error, empty};

pub(super) fn accept(mut request: Request<Incoming>) -> Result<Response<Body>, Error> {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return Ok(Response::builder().status(StatusCode::UPGRADE_REQUIRED).body(empty())?);
    };
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        echo(upgraded).await;
    });
    Ok(Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept)
        .body(empty())?)
}

async fn echo(upgraded: Upgraded) {
    let limits = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    let mut socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await;
    while let Some(Ok(message)) = socket.next().await {
        if matches!(&message, Message::Text(text) if text.as_str() == "bye") {
            let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
            let _ = socket.close(Some(frame)).await;
        } else if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}
