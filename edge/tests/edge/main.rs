//! The edge over real sockets, towards a connector made here from the wire specification alone and
//! towards visitors: one promise per test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed, also in what tests share")]

mod authority;
mod connector;
mod etcd;
mod harness;
mod office;
mod relay;

mod admin;
mod alerts;
mod api;
mod api_attacks;
mod api_scale;
mod arrivals;
mod balancing;
mod balancing_routes;
mod bodies;
mod drain;
mod ecosystem;
mod ejection;
mod explain;
mod fleet;
mod hold;
mod hostile;
mod http2;
mod identified;
mod issuance;
mod killed;
mod leaving;
mod letter;
mod limits;
mod lists;
mod monitors;
mod names;
mod nodes;
mod notices;
mod peers;
mod peers_shares;
mod proxies;
mod records;
mod reference;
mod registration;
mod replicas;
mod requests;
mod retries;
mod schemathesis;
mod sdk;
mod sealed;
mod secure;
mod seen;
mod sessions;
mod shares;
mod shown;
mod shown_certificates;
mod silence;
mod stale;
mod steering;
mod steering_rules;
mod strangers;
mod testssl;
mod trailers;
mod warm_up;
mod websocket;
mod whole_fleet;
