//! Asking a host about itself for whoever has a token for that: the `token`, which this edge signs and looks at, and
//! the `relay` to the host. The API is where people ask (`api/management.rs`); visitors never get there.

pub(crate) mod relay;
pub(crate) mod token;
