//! The public side: `listener` accepts visitors, `connection` speaks HTTP with one of them, `service`
//! answers one request, `line` says what silence and the end of a visitor mean, `socket` notices what a
//! visitor does not take, `identified` what its certificate says, `proxies` says whom a request comes from, `geography` from where, `host_table` which
//! tunnel a host name leads to, `guide` puts these together (and `explain` says what they come to), and `error_page` makes every answer that the edge makes itself.

mod connection;
pub(crate) mod error_page;
mod explain;
mod geography;
mod guide;
mod host_table;
mod identified;
mod line;
mod listener;
mod preface;
mod proxies;
mod secure;
mod service;
mod socket;

pub(crate) use explain::{Explainer, Question};
pub(crate) use geography::database::watch as watch_countries;
pub(crate) use geography::{Codes, Database, Geography, Headers, LONGEST_CODE, Networks};
pub(crate) use guide::Guide;
pub(crate) use host_table::{Destination, HostTable, Table};
pub(crate) use identified::CertificateWish;
pub(crate) use listener::{Hosts, Listener};
pub(crate) use proxies::Proxies;
pub(crate) use secure::{Secure, Wish};
pub(crate) use service::Service;
pub(crate) use socket::Socket;
