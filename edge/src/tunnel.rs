//! How a connection becomes live: `accept_quic` and `accept_http2` accept it, `session` follows it to its end,
//! `control` serves its control stream, `registrar` decides. `notice` is what
//! the edge asks a host itself. Knows connectors; does not know visitors.

pub(crate) mod accept_http2;
pub(crate) mod accept_quic;
pub(crate) mod control;
pub(crate) mod notice;
pub(crate) mod push;
mod registrar;
pub(crate) mod session;
