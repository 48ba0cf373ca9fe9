//! A visitor's request as every transport hands it over.

use http::request;

use crate::origin::Body;

/// One request. The head's URI is absolute, its Host header is what the visitor asked for.
pub struct Request {
    pub kind: Kind,
    pub head: request::Parts,
    /// For a WebSocket: what the visitor sends after the handshake.
    pub body: Body,
    /// Whether the edge takes trailers behind the body of the answer.
    pub takes_trailers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Http,
    WebSocket,
}
