//! The self-hostable edge: accepts connectors, serves visitors.
//!
//! It knows who may connect, which host name belongs to which tunnel and how a visitor's request
//! becomes a stream on a connection. It does not know what stands behind a host, and contains no
//! plugin engine.
//!
//! Read in this order: [`Settings`] (what an operator writes), `app` (build, run, drain), `shard`
//! (one thread: runtime, visitor listeners, QUIC endpoints), then along a request: `visitor`
//! (listeners, host name to tunnel), `forward` (request to stream and back), `registry` (live
//! connections), `tunnel` (how a connection becomes live). What changes while it runs comes from `store`
//! (records on disk) through `state` (all of them in memory) and `serving` (what requests see), and is changed
//! by `api` and `ledger`. `headers` and `pages` are the only places
//! that decide what a visitor may say about itself and what an error looks like.

mod activity;
mod admin;
mod api;
mod app;
mod certificates;
mod fleet;
mod forward;
mod headers;
mod hold;
mod ledger;
mod liveness;
mod pace;
mod pages;
mod presence;
mod ray;
mod registry;
mod retry;
mod serving;
mod settings;
mod shard;
mod sockets;
mod state;
mod stickiness;
mod stop;
mod store;
mod threads;
mod tunnel;
mod visitor;
mod warm_up;

pub use app::{Edge, ServerAddress};
pub use ledger::{AuditLine, Founding, Ledger, TokenLine, TokenWish};
pub use settings::{Settings, SettingsError};
