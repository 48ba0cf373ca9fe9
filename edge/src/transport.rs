//! Streams to hosts, whichever transport carries them: `connection` is an open connection, `stream` one request's
//! two directions on it, `exchange` a whole request of the edge's own, `http2` the transport where h2 does what quinn does for QUIC, `peer` the connections to another node of a fleet. Knows bytes and heads of
//! requests; does not know who registered, tunnels or visitors.

pub(crate) mod connection;
pub(crate) mod exchange;
pub(crate) mod http2;
pub(crate) mod peer;
pub(crate) mod signs;
pub(crate) mod stream;
