//! A plugin that breaks in the way it is told to, so that tests can show what else breaks: nothing.
//!
//! ```json
//! {"on": "request", "do": "trap"}
//! ```
//!
//! `on` is `request` (default), `response` or `configure`; `do` is one of the names in
//! [`act::Act`] (default `ok`). A request's header `x-misbehave` overrules the configuration for
//! the request phase of that one request, `x-misbehave-response` for its response phase.
//!
//! Whatever else happens, `count` and `carry` on `response` report: `x-count`, the calls of
//! on-request and on-response that this instance has seen, this one included; `x-carry`, the value
//! of the request header `x-carry`, brought across by the host.

pub mod act;
pub mod filter;
