//! The configurations that tests write. Knows the keys; what they mean is the product's business.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// A host name that every edge here serves.
pub const HOST: &str = "app.localhost";
/// Any free port of this machine.
pub const ANY_PORT: &str = "127.0.0.1:0";

/// An edge's document.
#[derive(Clone)]
pub struct EdgeDocument {
    /// Where the edge keeps what it makes; relative to the document.
    pub data_dir: String,
    /// PEM files for the side of the hosts: the chain and its key. `None`: of the edge's own making.
    pub connectors: Option<[String; 2]>,
    pub http: String,
    pub https: Option<String>,
    /// How long requests of a tunnel wait that has just lost its connections; `None`: as the edge does.
    pub hold: Option<&'static str>,
    /// Further keys of `[visitors]`.
    pub visitor_keys: String,
    pub servers: Vec<Server>,
    pub admin: String,
    pub hostnames: Vec<String>,
    /// Further tables, as TOML.
    pub more: String,
}

#[derive(Clone)]
pub struct Server {
    pub region: String,
    pub name: String,
    pub listen: String,
}

impl EdgeDocument {
    /// Some servers in each of the named regions, everything on free ports.
    pub fn new(regions: &[&str], servers_each: usize) -> Self {
        let servers = regions.iter().flat_map(|region| std::iter::repeat_n(*region, servers_each));
        let servers = servers.enumerate().map(|(number, region)| Server {
            region: region.into(),
            name: format!("{region}-{number}"),
            listen: ANY_PORT.into(),
        });
        Self {
            data_dir: "edge-data".into(),
            connectors: None,
            http: ANY_PORT.into(),
            https: None,
            hold: None,
            visitor_keys: String::new(),
            servers: servers.collect(),
            admin: ANY_PORT.into(),
            hostnames: [HOST, "*.app.localhost"].map(str::to_owned).to_vec(),
            more: String::new(),
        }
    }

    pub fn with_https(mut self) -> Self {
        self.https = Some(ANY_PORT.into());
        self
    }

    /// Who asks a tunnel without a connection is told so at once.
    pub fn without_hold(mut self) -> Self {
        self.hold = Some("0s");
        self
    }

    /// Further keys of `[visitors]`, as TOML.
    pub fn for_visitors(mut self, keys: &str) -> Self {
        self.visitor_keys = format!("{keys}\n");
        self
    }

    pub fn to_toml(&self) -> String {
        let https = self.https.as_ref().map(|address| format!("https = \"{address}\"\n")).unwrap_or_default();
        let hold = self.hold.map(|hold| format!("hold = \"{hold}\"\n")).unwrap_or_default();
        // Many tests wait until it is seen that a visitor has left.
        let half_closed = "half-closed-timeout = \"1s\"\n";
        let mut text = format!(
            "data-dir = {:?}\n[visitors]\nhttp = \"{}\"\n{https}{hold}{half_closed}{}",
            self.data_dir, self.http, self.visitor_keys
        );
        if let Some([certificate, key]) = &self.connectors {
            let _ = write!(text, "[connectors]\ncertificate = {certificate:?}\nprivate-key = {key:?}\n");
        }
        for Server { region, name, listen } in &self.servers {
            let _ =
                write!(text, "[[server]]\nregion = \"{region}\"\nname = \"{name}\"\nlisten = \"{listen}\"\n");
        }
        let _ = write!(
            text,
            "[[tunnel]]\nname = \"demo\"\ncredentials-file = \"demo.json\"\nhostnames = {:?}\n[admin]\nlisten = \"{}\"\n",
            self.hostnames, self.admin
        );
        text.push_str(&self.more);
        text
    }
}

/// A host's document, but for the edges' addresses, which are known only when an edge runs.
#[derive(Clone)]
pub struct HostDocument {
    pub connections: usize,
    /// Threads that serve; `None`: as many as the product thinks fit.
    pub shards: Option<usize>,
    pub ready_connections: usize,
    pub protocol: &'static str,
    pub grace: &'static str,
    pub edge_ca: String,
    /// Keys before the first table.
    pub keys: String,
    pub admin: String,
    /// Further keys of `[admin]`.
    pub admin_keys: String,
    pub plugins: String,
    pub rules: String,
}

impl HostDocument {
    /// One connection and no rule yet.
    pub fn new() -> Self {
        Self {
            connections: 1,
            shards: None,
            ready_connections: 1,
            protocol: "auto",
            grace: "20s",
            edge_ca: "edge-data/ca.pem".into(),
            keys: String::new(),
            admin: ANY_PORT.into(),
            admin_keys: String::new(),
            plugins: String::new(),
            rules: String::new(),
        }
    }

    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// How many of them must serve for the host to be ready.
    pub fn ready_connections(mut self, count: usize) -> Self {
        self.ready_connections = count;
        self
    }

    pub fn over(mut self, protocol: &'static str) -> Self {
        self.protocol = protocol;
        self
    }

    /// Keys that belong to no table, as TOML.
    pub fn keys(mut self, keys: &str) -> Self {
        self.keys = format!("{keys}\n");
        self
    }

    /// A plugin; `more` is TOML: its other keys, then `[plugin.config]`.
    pub fn plugin(mut self, name: &str, component: &Path, more: &str) -> Self {
        let _ = write!(self.plugins, "[[plugin]]\nname = {name:?}\ncomponent = {component:?}\n{more}\n");
        self
    }

    /// A rule, as the TOML of its keys.
    pub fn rule(mut self, keys: &str) -> Self {
        let _ = write!(self.rules, "[[ingress]]\n{keys}\n");
        self
    }

    /// The usual last rule.
    pub fn otherwise(self, service: &str) -> Self {
        self.rule(&format!("service = {service:?}"))
    }

    pub fn to_toml(&self, edges: &[SocketAddr]) -> String {
        let edges: Vec<String> = edges.iter().map(SocketAddr::to_string).collect();
        let Self {
            connections,
            ready_connections,
            shards,
            protocol,
            grace,
            edge_ca,
            keys,
            admin,
            admin_keys,
            plugins,
            rules,
        } = self;
        let shards = shards.map(|count| format!("shards = {count}\n")).unwrap_or_default();
        format!(
            "{keys}[tunnel]\ncredentials-file = \"demo.json\"\nedges = {edges:?}\nedge-ca = {edge_ca:?}\n\
             connections = {connections}\n{shards}protocol = {protocol:?}\ngrace-period = {grace:?}\n[admin]\nlisten = {admin:?}\n{admin_keys}\n\
             [ready]\nconnections = {ready_connections}\n{plugins}{rules}"
        )
    }
}

impl Default for HostDocument {
    fn default() -> Self {
        Self::new()
    }
}
