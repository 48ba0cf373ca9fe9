//! What a connector and an edge say to each other, as plain values on the one side and bytes on the other.
//!
//! Pure: no I/O, no clock, no tasks, no logging. Whoever holds a transport calls in here with bytes and gets
//! values, or the other way round.
//!
//! Reading order: [`stream`] (the head of every data stream), with [`headers`] (how HTTP headers cross) and
//! [`framing`] (limits of one message) below it; then [`rpc`] (the control stream) and [`credentials`]
//! (who a tunnel is). [`extensions`] is what only our two ends say, [`management`] what
//! those say who watch a host through its edge, over a [`websocket`]. [`schema`] is generated.

pub mod credentials;
pub mod extensions;
pub mod framing;
pub mod headers;
pub mod management;
pub mod rpc;
pub mod stream;
pub mod websocket;

// rustfmt and clippy leave generated code alone; its text must stay what the generator wrote.
#[rustfmt::skip]
#[allow(clippy::all, clippy::unwrap_used, clippy::use_self, clippy::wildcard_enum_match_arm)]
#[allow(elided_lifetimes_in_paths, unreachable_pub, unused_qualifications)]
pub mod schema;
