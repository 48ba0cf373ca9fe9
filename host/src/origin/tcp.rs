//! Services of bytes: a circuit for each request that asks for a WebSocket, whose frames carry what goes both ways.
//! Knows how such a service is reached; does not know who asks.

mod circuit;
mod counts;
mod destination;
mod frames;
mod incoming;
mod negotiation;
mod shared;
mod socks;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
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
use crate::config::plan::{IpRule, OriginPlan, Reach};
use circuit::Circuit;
use counts::Seat;
use destination::{Outlet, Unreached};
use frames::Framing;
use incoming::Incoming;
use negotiation::Negotiation;

pub use counts::{CircuitEnd, CircuitTotals, Circuits, Trace};

/// A service whose bytes mean nothing here.
#[derive(Clone)]
pub struct TcpOrigin {
    leads: Leads,
    dial: Dial,
    connect_timeout: Duration,
    idle_timeout: Option<Duration>,
    /// Where it may lead whose destination the visitor names.
    reach: Reach,
    /// For messages, such as `ssh://127.0.0.1:22`.
    name: String,
}

/// Where circuits lead.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leads {
    To {
        host: String,
        port: u16,
    },
    /// Wherever the head of the request says.
    Bastion,
    /// Wherever the visitor says within the circuit.
    Socks,
    /// To whatever address the edge asks for.
    Asked,
}

/// How long a connection to an address may take that an edge asks for (wire.md, 4.3).
const ASKED_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a circuit counts, and how many there may be.
#[derive(Clone, Copy)]
pub struct Room<'c> {
    pub circuits: &'c Circuits,
    pub shard: usize,
    /// Who asks; all that are unknown are one.
    pub source: IpAddr,
    pub most: usize,
}

impl TcpOrigin {
    fn new(leads: Leads, name: String, wanted: &OriginPlan) -> Self {
        Self {
            leads,
            dial: Dial { keep_alive: wanted.tcp_keep_alive, side_by_side: wanted.happy_eyeballs },
            connect_timeout: wanted.connect_timeout,
            idle_timeout: wanted.idle_timeout,
            reach: wanted.reach.clone(),
            name,
        }
    }

    pub(super) fn to(scheme: &str, authority: &Authority, wanted: &OriginPlan) -> Self {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let leads = Leads::To { host, port: authority.port_u16().unwrap_or_default() };
        Self::new(leads, format!("{scheme}://{authority}"), wanted)
    }

    pub(super) fn bastion(wanted: &OriginPlan) -> Self {
        Self::new(Leads::Bastion, "bastion".to_owned(), wanted)
    }

    pub(super) fn socks(wanted: &OriginPlan) -> Self {
        Self::new(Leads::Socks, "socks-proxy".to_owned(), wanted)
    }

    /// What an edge may ask for by address.
    pub(super) fn asked(ip_rules: &[IpRule]) -> Self {
        let reach = Reach::of(ip_rules.to_vec());
        let wanted = OriginPlan { connect_timeout: ASKED_TIMEOUT, reach, ..OriginPlan::default() };
        Self::new(Leads::Asked, "an address that the edge asks for".to_owned(), &wanted)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The address that it leads to, if it is written as one.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match &self.leads {
            Leads::To { host, port } => Some(SocketAddr::new(host.parse().ok()?, *port)),
            Leads::Bastion | Leads::Socks | Leads::Asked => None,
        }
    }

    pub(super) async fn probe(&self) -> Result<(), OriginError> {
        match &self.leads {
            Leads::To { host, port } => self.connect(host, *port).await.map(drop),
            // Where it leads is not known before somebody says it.
            Leads::Bastion | Leads::Socks | Leads::Asked => Ok(()),
        }
    }

    /// What a request with these headers would be connected to; for whoever asks what would become of it.
    pub(super) fn explained(&self, headers: &HeaderMap) -> String {
        match (&self.leads, destination::named(headers)) {
            (Leads::Bastion, Some((host, port))) => format!("bastion to {host} at port {port}"),
            (Leads::Bastion, None) => "bastion to nowhere: the request names no destination".to_owned(),
            (Leads::To { .. } | Leads::Socks | Leads::Asked, _) => self.name.clone(),
        }
    }

    /// Opens a circuit for a visitor who asks for a WebSocket. The service is connected before it is accepted, but
    /// where it is named within the circuit.
    pub(super) async fn accept(
        &self,
        room: Room<'_>,
        head: &request::Parts,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        let seat = self.seat(room)?;
        let takes_half_close = offers_half_close(&head.headers);
        let framing = Framing::WebSocket { half_close: takes_half_close };
        let trace = seat.trace().clone();
        let incoming = Incoming::new(body, framing);
        let circuit: Body = match &self.leads {
            Leads::Socks => Box::pin(Negotiation::begin(Rc::new(self.clone()), incoming, framing, seat)),
            Leads::To { host, port } => {
                let stream = self.connect(host, *port).await?;
                Box::pin(Circuit::begin(stream, incoming, framing, seat, self.idle_timeout))
            }
            Leads::Bastion => {
                let (host, port) = destination::named(&head.headers).ok_or(OriginError::NoDestination)?;
                let stream = self.reach(&host, port).await?;
                Box::pin(Circuit::begin(stream, incoming, framing, seat, self.idle_timeout))
            }
            // Not by a request.
            Leads::Asked => return Err(OriginError::NotAllowed { target: self.name.clone() }),
        };
        let mut response = Response::new(circuit);
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

    /// Opens a circuit for a stream that the edge opens by itself, which carries bytes as they are.
    pub(super) async fn carry(
        &self,
        room: Room<'_>,
        to: SocketAddr,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        let seat = self.seat(room)?;
        let stream = match &self.leads {
            Leads::To { host, port } => self.connect(host, *port).await?,
            Leads::Asked => self.reach(&to.ip().to_string(), to.port()).await?,
            Leads::Bastion | Leads::Socks => {
                return Err(OriginError::NotAllowed { target: self.name.clone() });
            }
        };
        let trace = seat.trace().clone();
        let incoming = Incoming::new(body, Framing::Raw);
        let circuit = Circuit::begin(stream, incoming, Framing::Raw, seat, self.idle_timeout);
        let mut response = Response::new(Box::pin(circuit) as Body);
        response.extensions_mut().insert(trace);
        Ok(response)
    }

    fn seat(&self, room: Room<'_>) -> Result<Seat, OriginError> {
        let full = || OriginError::Full { target: self.name.clone(), most: room.most };
        room.circuits.take(room).ok_or_else(full)
    }

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, OriginError> {
        let target = || self.name.clone();
        let seconds = self.connect_timeout.as_secs();
        timeout(self.connect_timeout, self.dial.open(host, port))
            .await
            .map_err(|_| OriginError::ConnectTimeout { target: target(), seconds })?
            .map_err(|source| OriginError::Connect { target: target(), source: source.into() })
    }

    /// To where somebody else says.
    async fn reach(&self, host: &str, port: u16) -> Result<TcpStream, OriginError> {
        let outlet = Outlet { reach: &self.reach, dial: self.dial, patience: self.connect_timeout };
        let target = format!("{host} at port {port}");
        outlet.open(host, port).await.map_err(|unreached| match unreached {
            Unreached::NotAllowed => OriginError::NotAllowed { target },
            Unreached::NoAddress(source) | Unreached::Connect(source) => {
                OriginError::Connect { target, source: source.into() }
            }
            Unreached::Timeout(limit) => OriginError::ConnectTimeout { target, seconds: limit.as_secs() },
        })
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
