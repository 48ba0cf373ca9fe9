//! Generated from `schema/*.capnp`; `tests/schema.rs` proves that it is fresh and can write it anew.

pub mod quic_metadata_protocol_capnp;
pub mod tunnelrpc_capnp;
