//! What cannot change without a restart: who this host is, where it connects to, how it is laid out.
//! Knows the settings' rules and reads the credentials and the edge's certificate authority, so that nothing is
//! taken for good that could not run; connects to nothing.

mod edges;
mod traces;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_config_reader::Spanned;
use adit_net::guard::{Guard, Token};
use adit_pace::Limits;
use adit_protocol::credentials::{Credentials, MAX_CREDENTIALS};
pub use adit_rules::flags::{FlagMistakes, Flags};
use adit_rules::value::{Invalid, Reader};

use crate::config::document::{self, Admin, ConfigSource, Document, Tunnel};
use crate::revision::history::History;
use crate::tunnel::state::Protocol;
use crate::tunnel::trust;
pub use edges::{DnsServer, EdgeSource, Edges, IpVersion};

/// What a host is told to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub credentials: Credentials,
    /// Where the edge servers are.
    pub edges: Edges,
    /// PEM file of the certificate authority that edge servers answer to; without one, those of the system.
    pub edge_ca: Option<PathBuf>,
    /// Slots, 1 to 4.
    pub connections: usize,
    /// Over what edges are reached.
    pub protocol: Protocol,
    /// Threads that serve requests, 1 to `connections`.
    pub shards: usize,
    /// How long requests may go on once the host was told to end; at most 3 minutes.
    pub grace_period: Duration,
    /// How long no connection may serve before the host gives up; without it, for ever.
    pub exit_after_unconnected: Option<Duration>,
    /// Where the admin API listens.
    pub admin: SocketAddr,
    /// Where there are only probes and metrics.
    pub admin_probes: Option<SocketAddr>,
    /// What a caller needs for anything but probes and metrics.
    pub admin_token: Option<Token>,
    /// Where generations are kept; without one they are forgotten with the process.
    pub state_dir: Option<PathBuf>,
    /// Whose rules are served.
    pub config_source: ConfigSource,
    /// A document that changes, or a file that it names, is read again by itself.
    pub watch: bool,
    /// Connections that must serve for this host to be ready, 1 to `connections`.
    pub ready_connections: usize,
    /// What peers have to take of what is sent to them.
    pub bodies: Limits,
    /// Whom traces are told.
    pub traces: Option<adit_traces::Terms>,
    /// What the command line said in place of the document; a reload says it again.
    pub flags: Flags,
    /// What is allowed but hardly meant, one sentence each.
    pub warnings: Vec<String>,
}

/// Draws the settings of a document, and reads the credentials that it names. `None` only if there is
/// a mistake that says why; a stand-in takes the place of anything else that is wrong.
pub(crate) fn lower(document: &Document, flags: &Flags, reading: &mut Reader<'_>) -> Option<Settings> {
    let mut warnings = Vec::new();
    let admin = lower_admin(document, reading);
    let (admin_probes, admin_token) = guard(&document.admin, admin, reading, &mut warnings);
    let Some(section) = &document.tunnel else {
        let help =
            "add [tunnel] with credentials-file = \"demo.json\" and edges = [\"edge.example.com:7844\"]";
        reading.mistakes.add_missing(0..0, "tunnel", help);
        return None;
    };
    let tunnel = section.get_ref();
    let connections = reading.count(tunnel.connections.as_ref(), MOST_CONNECTIONS, 1..=MOST_CONNECTIONS);
    let credentials = credentials(section, reading);
    let edges = edges::lower(section, credentials.as_ref(), reading, &mut warnings);
    if let EdgeSource::Listed(list) = &edges.source
        && list.len() == 1
        && connections > 1
    {
        warnings.push("tunnel.edges lists one server: nothing serves while it is away".to_owned());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = reading.count(tunnel.shards.as_ref(), cores.min(connections), 1..=connections);
    let ready_connections =
        reading.count(document.ready.connections.as_ref(), READY_CONNECTIONS, 1..=connections);
    let grace_period =
        reading.duration(tunnel.grace_period.as_ref(), GRACE_PERIOD, LEAST_GRACE..=LONGEST_GRACE);
    let exit_after_unconnected = tunnel.exit_after_unconnected.as_ref().map(|written| {
        reading.duration(Some(written), LEAST_UNCONNECTED, LEAST_UNCONNECTED..=LONGEST_UNCONNECTED)
    });
    let bodies = bodies(&document.bodies, reading);
    let traces = traces::lower(document.traces.as_ref(), reading);
    let protocol = match tunnel.protocol.as_ref().map(Spanned::get_ref) {
        None | Some(document::Protocol::Auto) => Protocol::Auto,
        Some(document::Protocol::Quic) => Protocol::Quic,
        Some(document::Protocol::Http2) => Protocol::Http2,
    };
    let edge_ca = tunnel.edge_ca.as_ref().and_then(|written| {
        let path = reading.path(Some(written))?;
        let outcome = trust::roots_of(&path).map(|_| path);
        reading.take(written, outcome.map_err(|error| Invalid::new(format!("{error:#}"))))
    });
    let state_dir = document.state_dir.as_ref().and_then(|written| {
        let path = reading.folder.join(written.get_ref());
        let outcome = History::check(&path).map(|()| path);
        reading.take(written, outcome.map_err(|error| Invalid::new(error.to_string())))
    });
    let config_source =
        document.config_source.as_ref().map_or(ConfigSource::Local, |source| *source.get_ref());
    let watch = document.watch.as_ref().is_none_or(|watch| *watch.get_ref());
    Some(Settings {
        credentials: credentials?,
        edges,
        edge_ca,
        connections,
        protocol,
        shards,
        grace_period,
        exit_after_unconnected,
        admin,
        admin_probes,
        admin_token,
        state_dir,
        config_source,
        watch,
        ready_connections,
        bodies,
        traces,
        flags: flags.clone(),
        warnings,
    })
}

/// Where the admin API of a host with this document listens; says nothing of other mistakes in it.
pub(crate) fn lower_admin(document: &Document, reading: &mut Reader<'_>) -> SocketAddr {
    let listen = document.admin.listen.as_ref();
    listen.and_then(|listen| address(listen, reading)).unwrap_or(ADMIN)
}

/// Who may ask the admin API, and where there are only probes and metrics.
fn guard(
    section: &Admin,
    admin: SocketAddr,
    reading: &mut Reader<'_>,
    warnings: &mut Vec<String>,
) -> (Option<SocketAddr>, Option<Token>) {
    let probes = section.probes.as_ref().and_then(|probes| {
        let address = address(probes, reading)?;
        if address == admin && address.port() != 0 {
            reading.refuse(probes, Invalid::new("the admin API listens on this address already"));
        }
        Some(address)
    });
    let token = section.token_file.as_ref().and_then(|file| {
        let outcome = Token::read(&reading.file(file.get_ref()));
        let help = "make one with: openssl rand -hex 32 > admin-token";
        reading.take(file, outcome.map_err(|error| Invalid::with_help(error.to_string(), help)))
    });
    if section.token_file.is_none() && Guard::new(admin.ip(), None).is_closed() {
        warnings.push(format!(
            "admin.listen = {admin} can be reached from other machines: without `token-file` it answers \
             probes and metrics and nothing else"
        ));
    }
    (probes, token)
}

fn address(written: &Spanned<String>, reading: &mut Reader<'_>) -> Option<SocketAddr> {
    let address = written.get_ref().parse::<SocketAddr>().map_err(|_| {
        Invalid::with_help(
            "this is not an address to listen on",
            "write an IP address and a port: \"127.0.0.1:20241\"",
        )
    });
    reading.take(written, address)
}

fn bodies(section: &document::Bodies, reading: &mut Reader<'_>) -> Limits {
    let usual = Limits::default();
    let mut size = |written: &Option<Spanned<document::Quantity>>, default: u64, bounds| {
        let default = usize::try_from(default).unwrap_or(usize::MAX);
        reading.size(written.as_ref(), default, bounds) as u64
    };
    let held = size(&section.held, usual.held, Limits::HELD);
    let rate = size(&section.minimum_rate, usual.rate, Limits::RATE);
    let grace = reading.duration(section.grace.as_ref(), usual.grace, Limits::GRACE);
    Limits { held, grace, rate }
}

fn credentials(section: &Spanned<Tunnel>, reading: &mut Reader<'_>) -> Option<Credentials> {
    let Tunnel { credentials_file, token_file, .. } = section.get_ref();
    match (credentials_file, token_file) {
        (Some(file), None) => {
            let outcome = read(&reading.file(file.get_ref())).and_then(|bytes| {
                Credentials::from_json(&bytes).map_err(|error| Invalid::new(error.to_string()))
            });
            reading.take(file, outcome)
        }
        (None, Some(file)) => {
            let outcome = read(&reading.file(file.get_ref())).and_then(|bytes| {
                Credentials::from_token(&String::from_utf8_lossy(&bytes))
                    .map_err(|error| Invalid::new(error.to_string()))
            });
            reading.take(file, outcome)
        }
        (Some(_), Some(token)) => {
            let wrong = Invalid::with_help(
                "`credentials-file` and `token-file` say who the tunnel is twice",
                "keep one of them",
            );
            reading.refuse(token, wrong);
            None
        }
        (None, None) => {
            if !reading.mistakes.speaks_for(&section.span(), "token-file") {
                let help = "write the path of the tunnel's credentials: credentials-file = \"demo.json\"";
                reading.mistakes.add_missing(section.span(), "credentials-file", help);
            }
            None
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Invalid> {
    adit_files::read(path, MAX_CREDENTIALS)
        .map_err(|error| Invalid::new(format!("reading {}: {error}", path.display())))
}

const MOST_CONNECTIONS: usize = 4;
const GRACE_PERIOD: Duration = Duration::from_secs(30);
const LEAST_GRACE: Duration = Duration::ZERO;
const LONGEST_GRACE: Duration = Duration::from_secs(180);
/// Less than the first dials may take would end hosts that only start slowly.
const LEAST_UNCONNECTED: Duration = Duration::from_secs(1);
const LONGEST_UNCONNECTED: Duration = Duration::from_secs(24 * 60 * 60);
const READY_CONNECTIONS: usize = 1;
/// Where the admin API listens if nothing is written.
pub const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 20241);
