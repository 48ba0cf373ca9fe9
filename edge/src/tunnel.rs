//! How a connection becomes live: `quic` accepts it, `control` serves its control stream,
//! `registrar` decides. Knows connectors; does not know visitors.

pub(crate) mod control;
pub(crate) mod quic;
mod registrar;
