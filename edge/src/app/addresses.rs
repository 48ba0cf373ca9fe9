//! Where the edge listens, with the ports that were really bound.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tracing::info;

use super::Edge;

/// Where one server of the edge listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    pub region: String,
    pub name: String,
    /// The address that connectors dial over UDP and TCP, with the port that was really bound.
    pub address: SocketAddr,
}

#[derive(Default)]
pub(super) struct Addresses {
    pub(super) http: Option<SocketAddr>,
    pub(super) https: Option<SocketAddr>,
    pub(super) servers: Vec<ServerAddress>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) probes: Option<SocketAddr>,
    pub(super) api: Option<SocketAddr>,
    pub(super) dns: Option<SocketAddr>,
    pub(super) nodes: Option<SocketAddr>,
    pub(super) ca: Option<PathBuf>,
}

impl Edge {
    /// Address of the cleartext listener for visitors, with the port that was really bound.
    pub fn visitors_http(&self) -> Option<SocketAddr> {
        self.addresses.http
    }

    /// Address of the TLS listener for visitors.
    pub fn visitors_https(&self) -> Option<SocketAddr> {
        self.addresses.https
    }

    /// Addresses that connectors dial, in the order of the document.
    pub fn servers(&self) -> &[ServerAddress] {
        &self.addresses.servers
    }

    /// Address of the admin listener.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.addresses.admin
    }

    /// Address where there are only probes and metrics.
    pub fn probes(&self) -> Option<SocketAddr> {
        self.addresses.probes
    }

    /// Address of the control API.
    pub fn api(&self) -> Option<SocketAddr> {
        self.addresses.api
    }

    /// Address of the name server, over UDP and TCP.
    pub fn dns(&self) -> Option<SocketAddr> {
        self.addresses.dns
    }

    /// Address for other nodes of the fleet.
    pub fn nodes(&self) -> Option<SocketAddr> {
        self.addresses.nodes
    }

    /// The certificate of the development CA, if any certificate of this edge was made by it.
    pub fn ca_path(&self) -> Option<&Path> {
        self.addresses.ca.as_deref()
    }
}

impl Addresses {
    pub(super) fn log(&self) {
        for (kind, address) in [
            ("visitors-http", self.http),
            ("visitors-https", self.https),
            ("admin", self.admin),
            ("probes", self.probes),
            ("api", self.api),
            ("dns", self.dns),
            ("nodes", self.nodes),
        ] {
            if let Some(address) = address {
                info!(kind, %address, "listening");
            }
        }
        for ServerAddress { region, name, address } in &self.servers {
            info!(kind = "server", %address, region, name, "listening");
        }
    }
}
