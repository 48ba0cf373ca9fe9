//! What the product promises, as a visitor or an operator sees it: one module per promise, one test
//! per sentence. Real processes, real sockets, free ports.

// Every line here is part of a test.
#![allow(clippy::unwrap_used)]

mod bodies;
mod cancel;
mod components;
mod configuration;
mod demo;
mod discovery;
mod garbage;
mod identity;
mod pages;
mod path;
mod plugins;
mod ready;
mod reload;
mod stop;
mod websocket;
mod wire;
