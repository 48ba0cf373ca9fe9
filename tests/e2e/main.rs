//! What the product promises, as a visitor or an operator sees it: one module per promise, one test
//! per sentence. Real processes, real sockets, free ports.

// Every line here is part of a test.
#![allow(clippy::unwrap_used)]
// `transports` runs some modules over the other transport.
#![allow(clippy::duplicate_mod)]

/// What the modules here run over that `transports` runs over HTTP/2 too.
const PROTOCOL: &str = "quic";

mod access;
mod admin;
mod alerts;
mod balancing;
mod bastion;
mod bodies;
mod broken;
mod browser;
mod cancel;
mod certificates;
mod commands;
mod components;
mod compress;
mod configuration;
mod demo;
mod differential_tcp;
mod discovery;
mod disks;
mod exchange;
mod fleet;
mod garbage;
mod grpc;
mod guards;
mod headers;
mod identity;
mod kept_buckets;
mod languages;
mod letter;
mod many_circuits;
mod metrics;
mod middleware;
mod nodes;
mod one_word;
mod own;
mod packages;
mod pages;
mod path;
mod plugin_tools;
mod plugins;
mod probes;
mod programs;
mod proxies;
mod readiness;
mod ready;
mod reload;
mod revisions;
mod seeing;
mod services;
mod shared_buckets;
mod shelf;
mod shelf_guards;
mod shipping;
mod sign_in;
mod slow;
mod sources;
mod stop;
mod streamed_bodies;
mod swaps;
mod tail;
mod tcp;
mod tokens;
mod traces;
mod trailers;
mod transports;
mod tunnels;
mod upgrade;
mod websocket;
mod whole_bodies;
mod wire;
mod wire_http2;
mod wire_tcp;
