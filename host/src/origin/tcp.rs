//! Services of bytes: a circuit for each request that asks for a WebSocket, whose frames carry what goes both ways.
//! Knows how such a service is reached; does not know who asks.

mod circuit;
mod counts;
mod frames;
mod shared;

use std::time::Duration;

use adit_protocol::websocket;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Response, StatusCode, request};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dial::Dial;
use super::{Body, OriginError};
use crate::config::plan::OriginPlan;
use circuit::Circuit;
use frames::Framing;

pub use counts::{CircuitEnd, CircuitTotals, Circuits, Trace};

/// A service whose bytes mean nothing here.
pub struct TcpOrigin {
    host: String,
    port: u16,
    dial: Dial,
    connect_timeout: Duration,
    idle_timeout: Option<Duration>,
    /// For messages, such as `ssh://127.0.0.1:22`.
    name: String,
}

/// Where a circuit counts, and how many there may be.
#[derive(Clone, Copy)]
pub struct Room<'c> {
    pub circuits: &'c Circuits,
    pub shard: usize,
    pub most: usize,
}

impl TcpOrigin {
    pub(super) fn new(scheme: &str, authority: &Authority, wanted: &OriginPlan) -> Self {
        Self {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or_default(),
            dial: Dial { keep_alive: wanted.tcp_keep_alive, side_by_side: wanted.happy_eyeballs },
            connect_timeout: wanted.connect_timeout,
            idle_timeout: wanted.idle_timeout,
            name: format!("{scheme}://{authority}"),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) async fn probe(&self) -> Result<(), OriginError> {
        self.connect().await.map(drop)
    }

    /// Opens a circuit for a visitor who asks for a WebSocket. The service is connected before it is accepted.
    pub(super) async fn accept(
        &self,
        room: Room<'_>,
        head: &request::Parts,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        let target = || self.name.clone();
        let seat = room
            .circuits
            .take(room)
            .ok_or_else(|| OriginError::Full { target: target(), most: room.most })?;
        let stream = self.connect().await?;
        let takes_half_close = offers_half_close(&head.headers);
        let framing = Framing::WebSocket { half_close: takes_half_close };
        let trace = seat.trace().clone();
        let circuit = Circuit::begin(stream, body, framing, seat, self.idle_timeout);
        let mut response = Response::new(Box::pin(circuit) as Body);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.extensions_mut().insert(trace);
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Some(accept) = head.headers.get(SEC_WEBSOCKET_KEY).and_then(accepting) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if takes_half_close {
            headers.insert(websocket::PROTOCOL, HeaderValue::from_static(websocket::HALF_CLOSE));
        }
        Ok(response)
    }

    async fn connect(&self) -> Result<TcpStream, OriginError> {
        let target = || self.name.clone();
        timeout(self.connect_timeout, self.dial.open(&self.host, self.port))
            .await
            .map_err(|_| OriginError::ConnectTimeout {
                target: target(),
                seconds: self.connect_timeout.as_secs(),
            })?
            .map_err(|source| OriginError::Connect { target: target(), source: source.into() })
    }
}

impl std::fmt::Debug for TcpOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// The proof that the key of a request was read (RFC 6455, 4.2.2).
pub(super) fn accepting(key: &HeaderValue) -> Option<HeaderValue> {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), websocket::ACCEPT_SUFFIX].concat());
    HeaderValue::from_str(&BASE64_STANDARD.encode(hash)).ok()
}

fn offers_half_close(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(websocket::PROTOCOL);
    let mut words = offered.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.any(|word| word.trim_ascii() == websocket::HALF_CLOSE.as_bytes())
}
