//! How a connection becomes live: `quic` and `http2` accept it, `reception` follows it to its end,
//! `control` serves its control stream, `registrar` decides. `notice` is what
//! the edge asks a host itself. `link` is what others see of it. Knows
//! connectors; does not know visitors.

pub(crate) mod control;
pub(crate) mod http2;
pub(crate) mod link;
mod notice;
pub(crate) mod quic;
pub(crate) mod reception;
mod registrar;
