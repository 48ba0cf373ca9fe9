//! What the command line says in place of the document. Each value is read as if it stood there, by the same
//! rules; only its mistakes carry the name of the flag. Knows names; no rule, no default.

use std::fmt;
use std::path::PathBuf;

use adit_config_reader::Spanned;

use crate::document::{Document, Protocol, Quantity};
use crate::value::Invalid;

/// What was given; what was not is left to the document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `host:port` each. Takes the place of `edges`, `edge-domain` and `edge-region`.
    pub edges: Vec<String>,
    /// Takes the place of `edges` and `edge-domain`.
    pub edge_domain: Option<String>,
    pub region: Option<String>,
    pub edge_ip_version: Option<String>,
    pub edge_bind_address: Option<String>,
    pub protocol: Option<Protocol>,
    pub grace_period: Option<String>,
    pub exit_after_unconnected: Option<String>,
    /// Absolute: the folder of the document has nothing to do with it.
    pub edge_ca: Option<PathBuf>,
    pub connections: Option<i64>,
    /// Circuits at once.
    pub most_circuits: Option<i64>,
    /// Where the admin API listens.
    pub admin: Option<String>,
    /// Only what withstands quantum computers is agreed on with edges, by QUIC.
    pub post_quantum: bool,
    /// How often the waits between failed attempts to connect double at most.
    pub retries: Option<u32>,
    /// What people call this host.
    pub label: Option<String>,
    /// Names and values that origins are told with every request.
    pub tags: Vec<(String, String)>,
}

/// What is wrong with flags, in the order in which it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagMistakes(Vec<(&'static str, Invalid)>);

/// Where values of flags stand: behind the end of any document.
const BEHIND: usize = usize::MAX / 2;
const NAMES: [&str; 12] = [
    "--edge",
    "--region",
    "--edge-ip-version",
    "--edge-bind-address",
    "--protocol",
    "--grace-period",
    "--exit-after-unconnected",
    "--edge-domain",
    "--cacert",
    "--ha-connections",
    "--metrics",
    "--max-active-flows",
];

impl Flags {
    /// Puts what was given in the place of what the document says.
    pub fn put_into(&self, document: &mut Document) {
        put(&mut document.admin.listen, 10, self.admin.clone());
        put(&mut document.tcp.most_circuits, 11, self.most_circuits);
        let Some(tunnel) = &mut document.tunnel else { return };
        let tunnel = tunnel.get_mut();
        if !self.edges.is_empty() {
            let edges = self.edges.iter().map(|edge| at(0, edge.clone())).collect();
            tunnel.edges = Some(at(0, edges));
            (tunnel.edge_domain, tunnel.edge_region) = (None, None);
        }
        if self.edge_domain.is_some() && self.edges.is_empty() {
            tunnel.edges = None;
        }
        put(&mut tunnel.edge_domain, 7, self.edge_domain.clone());
        put(&mut tunnel.edge_ca, 8, self.edge_ca.clone());
        put(&mut tunnel.connections, 9, self.connections);
        put(&mut tunnel.edge_region, 1, self.region.clone());
        put(&mut tunnel.edge_ip_version, 2, self.edge_ip_version.clone());
        put(&mut tunnel.edge_bind_address, 3, self.edge_bind_address.clone());
        put(&mut tunnel.protocol, 4, self.protocol);
        put(&mut tunnel.grace_period, 5, self.grace_period.clone().map(Quantity));
        put(&mut tunnel.exit_after_unconnected, 6, self.exit_after_unconnected.clone().map(Quantity));
    }
}

impl FlagMistakes {
    /// Takes a mistake if it is about a flag, else gives it back.
    pub(crate) fn take<T>(&mut self, at: &Spanned<T>, wrong: Invalid) -> Option<Invalid> {
        let name = at.span().start.checked_sub(BEHIND).and_then(|index| NAMES.get(index));
        match name {
            Some(name) => {
                self.0.push((name, wrong));
                None
            }
            None => Some(wrong),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for FlagMistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, wrong)) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{name}: {}", wrong.message)?;
            if let Some(help) = &wrong.help {
                write!(f, "\n  help: {help}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for FlagMistakes {}

fn put<T>(place: &mut Option<Spanned<T>>, flag: usize, value: Option<T>) {
    if let Some(value) = value {
        *place = Some(at(flag, value));
    }
}

fn at<T>(flag: usize, value: T) -> Spanned<T> {
    Spanned::new(BEHIND + flag..BEHIND + flag + 1, value)
}
