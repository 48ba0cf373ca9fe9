//! The edge over real sockets, towards a connector made here from the wire specification alone and
//! towards visitors: one promise per test.

mod connector;
mod harness;

mod drain;
mod hostile;
mod registration;
mod requests;
mod websocket;
