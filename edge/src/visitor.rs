//! The public side: `listener` accepts visitors, `connection` speaks HTTP with one of them, `service`
//! answers one request, `line` what silence and the end of a visitor mean, `socket` notices what a visitor does not take, `proxies` says whom it comes from, `sources` counts what each address has open, `names`
//! says which tunnel a host name leads to, `directory` holds the names of now.

mod connection;
mod directory;
mod line;
mod listener;
mod names;
mod preface;
mod proxies;
mod service;
mod socket;
mod sources;

pub(crate) use directory::{Directory, Table};
pub(crate) use listener::Listener;
pub(crate) use names::{HostName, HostNames};
pub(crate) use proxies::Proxies;
pub(crate) use service::Service;
pub(crate) use sources::{Limits, Source, Sources};
