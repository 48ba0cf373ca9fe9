//! What cannot change without a restart: addresses, certificates, tunnels and their host names.
//! Knows every rule of the edge's document; does not bind, listen or make certificates.

mod alerts;
mod api;
mod bodies;
mod certificates;
mod dns;
mod document;
mod geography;
pub(crate) mod host_name;
mod issuance;
mod limits;
pub(crate) mod node;
mod seal;
mod secure;
mod store;
mod traces;
mod tunnels;

use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_config_reader::{Mistakes, Spanned};
use adit_net::guard::Token;
use adit_protocol::credentials::Credentials;
use thiserror::Error;

use crate::alerts::Terms;
use crate::api::share::Share;
use crate::balancer::affinity::Stickiness;
use crate::certificates::Owned;
use crate::certificates::place::Use;
use crate::forward::Patience;
use crate::limits::per_address::Limits;
use crate::settings::host_name::HostName;
use crate::store::seal::Keys;
use crate::tls::{CONNECTOR_NAMES, TlsPolicy};
use crate::visitor::{Geography, Proxies, Secure};
use document::{CertificateFiles, Document};
use issuance::Around;

/// What an edge is told to be. Only [`Settings::load`] makes one, so it keeps every rule.
#[derive(Debug)]
pub struct Settings {
    pub(crate) data_dir: PathBuf,
    pub(crate) http: Option<SocketAddr>,
    pub(crate) https: Option<Https>,
    /// The certificate shown to connectors; without one the development CA makes it.
    pub(crate) connectors: Option<Owned>,
    /// For visitors who ask for their names.
    pub(crate) certificates: Vec<Owned>,
    /// What secrets of the state are sealed with.
    pub(crate) seal: Keys,
    /// Who issues certificates for names that have none of these.
    pub(crate) acme: Option<crate::issuance::Terms>,
    /// What names want of their visitors, and how old their TLS may be.
    pub(crate) secure: Secure,
    pub(crate) policy: TlsPolicy,
    /// The name server.
    pub(crate) dns: Option<crate::dns::Terms>,
    pub(crate) servers: Vec<Server>,
    pub(crate) tunnels: Vec<Tunnel>,
    pub(crate) admin: Admin,
    pub(crate) drain: Drain,
    /// What tunnels get that the document does not name.
    pub(crate) hold: Duration,
    /// How long an edge that was started waits, before it is ready, for the hosts that it had.
    pub(crate) warm_up: Duration,
    pub(crate) patience: Patience,
    /// How long a visitor that has ended its direction may wait without a byte.
    pub(crate) half_closed: Duration,
    /// What each source of visitors may have open.
    pub(crate) sources: Limits,
    /// Proxies in front, and what they say.
    pub(crate) proxies: Proxies,
    /// What peers have to take of what is sent to them.
    pub(crate) bodies: adit_pace::Limits,
    pub(crate) api: Option<Api>,
    /// Where the state is kept; `None`: in the data folder.
    pub(crate) store: Option<crate::store::etcd::Terms>,
    /// What this edge is to a fleet.
    pub(crate) node: Option<crate::nodes::Terms>,
    pub(crate) alerts: Terms,
    /// Where the edge and its visitors are.
    pub(crate) geography: Geography,
    /// Whom traces are told.
    pub(crate) traces: Option<adit_traces::Terms>,
}

/// Where administrators ask, and who may.
#[derive(Debug, Default)]
pub(crate) struct Admin {
    pub(crate) listen: Option<SocketAddr>,
    /// Where there are only probes and metrics.
    pub(crate) probes: Option<SocketAddr>,
    /// What a caller needs for anything but probes and metrics.
    pub(crate) token: Option<Token>,
}

/// The control API, and with it the state that it changes.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) listen: SocketAddr,
    /// Without one it is spoken in the clear.
    pub(crate) identity: Option<Owned>,
    /// An authority issues its certificate, for this name.
    pub(crate) hostname: Option<String>,
    /// Every tunnel is reached as `ID.` and this.
    pub(crate) tunnel_domain: Option<String>,
    /// Tunnels for everybody get names below this; without one there are none.
    pub(crate) quick_domain: Option<String>,
    /// What each account may have.
    pub(crate) share: Share,
}

/// How long each part of a stop may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    /// From the order to stop to the moment from which no visitor is taken in any more.
    pub(crate) linger: Duration,
    /// From the moment at which hosts are told to the end of their connections.
    pub(crate) hosts: Duration,
    /// From the order to stop to the moment at which visitors are cut.
    pub(crate) grace_period: Duration,
}

#[derive(Debug)]
pub(crate) struct Https {
    pub(crate) listen: SocketAddr,
    /// The certificate shown to visitors; without one the development CA makes it.
    pub(crate) identity: Option<Owned>,
}

/// One edge server: a place that connectors dial.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) region: String,
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    /// Its hosts also come in over TCP where visitors come in over TLS.
    pub(crate) is_at_visitors: bool,
}

#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) name: String,
    pub(crate) credentials: Credentials,
    pub(crate) hostnames: Vec<HostName>,
    pub(crate) stickiness: Stickiness,
    /// How long a request waits for a tunnel that has just lost its connections.
    pub(crate) hold: Duration,
}

/// Why there are no settings. Printing it prints every mistake of the document.
#[derive(Debug, Error)]
pub enum SettingsError {
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Mistakes(#[from] Mistakes),
}

impl Settings {
    /// Reads the TOML document at `path`. Paths in it are relative to its folder; credentials and
    /// certificates that it names are read too, so that every mistake is known before anything starts.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = adit_files::read_text(path, LARGEST_DOCUMENT)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self::parse(&path.display().to_string(), &text, folder)?)
    }

    /// Where the edge keeps what it makes itself.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The URL of the control API, as far as it can be known from here.
    pub fn api_url(&self) -> Option<String> {
        let api = self.api.as_ref()?;
        let port = Some(api.listen.port()).filter(|port| *port != 0)?;
        if let Some(name) = &api.hostname {
            return Some(format!("https://{name}:{port}"));
        }
        let scheme = if api.identity.is_some() { "https" } else { "http" };
        (!api.listen.ip().is_unspecified()).then(|| format!("{scheme}://{}", api.listen))
    }

    /// Makes what secrets of the state are sealed with, if the document names no file and it is not there yet.
    ///
    /// # Errors
    /// It cannot be made, or what is there is none.
    pub fn make_seal(&self) -> anyhow::Result<()> {
        Ok(self.seal.take(false).map(drop)?)
    }

    /// The same for a text at hand; `file` is the name that mistakes carry.
    fn parse(file: &str, text: &str, folder: &Path) -> Result<Self, Mistakes> {
        let (document, mistakes) = adit_config_reader::read::<Document>(file, text)?;
        let mut rules = Rules { folder, mistakes, listens: HashMap::new() };
        let settings = rules.settings(document);
        rules.mistakes.into_result(settings)
    }
}

/// The rules over one document: what each part means, or a mistake with its place. A part that is
/// wrong gets a stand-in, so that reading goes on; the mistake keeps the stand-in from being used.
struct Rules<'a> {
    folder: &'a Path,
    mistakes: Mistakes,
    listens: HashMap<(Transport, SocketAddr), String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Transport {
    Tcp,
    Udp,
}

impl Rules<'_> {
    fn settings(&mut self, document: Document) -> Settings {
        let data_dir = document.data_dir.map_or_else(|| DATA_DIR.into(), Spanned::into_inner);
        let hold = document.visitors.as_ref().and_then(|section| section.get_ref().hold.clone());
        let hold = self.duration(hold, HOLD, Duration::ZERO..=LONGEST_HOLD);
        let warm_up = document.visitors.as_ref().and_then(|section| section.get_ref().warm_up.clone());
        let warm_up = self.duration(warm_up, WARM_UP, Duration::ZERO..=LONGEST_WARM_UP);
        let proxies = self.proxies(document.visitors.as_ref().map(Spanned::get_ref));
        let sources = self.sources(document.visitors.as_ref().map(Spanned::get_ref), &proxies);
        let (patience, half_closed) = self.patience(document.visitors.as_ref().map(Spanned::get_ref));
        let at_visitors = document.visitors.as_ref().and_then(|section| section.get_ref().server.clone());
        let policy = document.visitors.as_ref().and_then(|section| section.get_ref().tls.clone());
        let policy = self.policy(policy);
        let (http, https) = self.visitors(document.visitors);
        let mut servers = self.servers(document.server.unwrap_or_default());
        self.at_visitors(at_visitors, https.is_some(), &mut servers);
        let connectors = document.connectors.and_then(|section| {
            let span = section.span();
            let owned = self.identity(&span, "[connectors]", section.into_inner())?;
            if let Err(message) = Use::Connectors.judge(&owned.identity) {
                let help = format!("it needs the names {}", CONNECTOR_NAMES.join(", "));
                self.mistakes.add_with_help(span, message, help);
            }
            Some(owned)
        });
        let certificates = self.certificates(document.certificate.unwrap_or_default(), https.is_some());
        let has_api = document.api.is_some();
        let has_https = https.is_some();
        let data_dir = self.folder.join(data_dir);
        let around = Around {
            has_api,
            has_http: http.is_some(),
            has_https: https.is_some(),
            has_dns: document.dns.is_some(),
        };
        let seal = self.seal(document.api.as_ref(), document.acme.as_ref(), &data_dir);
        let has_acme = document.acme.is_some();
        let acme = self.acme(document.acme, around);
        let dns = self.dns(document.dns);
        let zones = dns.as_ref().map(|terms| terms.zones.clone()).unwrap_or_default();
        let nodes = dns.iter().flat_map(|terms| &terms.nodes).flat_map(|node| &node.addresses).copied();
        let acme = acme.map(|terms| {
            let addresses = if terms.addresses.is_empty() { nodes.collect() } else { terms.addresses };
            crate::issuance::Terms { zones, addresses, ..terms }
        });
        Settings {
            data_dir,
            http,
            https,
            connectors,
            certificates,
            seal,
            acme,
            secure: self.secure(document.name.unwrap_or_default(), has_https),
            policy,
            dns,
            servers,
            tunnels: self.tunnels(document.tunnel.unwrap_or_default(), has_api, hold),
            admin: self.admin(document.admin),
            drain: self.drain(document.drain),
            hold,
            warm_up,
            patience,
            half_closed,
            sources,
            proxies,
            bodies: self.bodies(document.bodies),
            alerts: self.alerts(document.alerts, has_api),
            geography: self.geography(document.geography),
            node: self.node_of_fleet(document.node, document.store.is_some()),
            traces: self.traces(document.traces),
            store: self.store(document.store, has_api),
            api: document.api.and_then(|section| self.api(section, has_acme)),
        }
    }

    fn patience(&mut self, section: Option<&document::Visitors>) -> (Patience, Duration) {
        let written = |key: fn(&document::Visitors) -> &Option<Spanned<String>>| key(section?).clone();
        let mut duration =
            |key, default, shortest| self.duration(written(key), default, shortest..=LONGEST_WAIT);
        let patience = Patience {
            answer: duration(|keys| &keys.answer_timeout, WAIT, SHORTEST_WAIT),
            upload: duration(|keys| &keys.upload_timeout, WAIT, SHORTEST_WAIT),
        };
        (patience, duration(|keys| &keys.half_closed_timeout, HALF_CLOSED, Duration::ZERO))
    }

    fn visitors(
        &mut self,
        section: Option<Spanned<document::Visitors>>,
    ) -> (Option<SocketAddr>, Option<Https>) {
        let Some(section) = section else {
            if !self.mistakes.speaks_for(&(0..0), "visitors") {
                let help = "add [visitors] with http = \"0.0.0.0:8080\" or https = \"0.0.0.0:8443\"";
                self.mistakes.add_with_help(0..0, "there is no [visitors] section", help);
            }
            return (None, None);
        };
        let span = section.span();
        let document::Visitors { http, https, certificate, private_key, .. } = section.into_inner();
        if http.is_none() && https.is_none() && !self.mistakes.speaks_for(&span, "http") {
            let help = "give it http = \"0.0.0.0:8080\", https = \"0.0.0.0:8443\" or both";
            self.mistakes.add_with_help(span.clone(), "no address for visitors", help);
        }
        let identity = self.identity(&span, "[visitors]", CertificateFiles { certificate, private_key });
        let http = http.and_then(|address| self.address(&address, Transport::Tcp, "visitors.http"));
        match https {
            Some(address) => {
                let listen = self.address(&address, Transport::Tcp, "visitors.https");
                (http, listen.map(|listen| Https { listen, identity }))
            }
            None if identity.is_some() => {
                let help = "add https = \"0.0.0.0:8443\", or take the certificate away";
                self.mistakes.add_with_help(span, "a certificate for visitors but no https address", help);
                (http, None)
            }
            None => (http, None),
        }
    }

    fn admin(&mut self, section: Option<Spanned<document::Admin>>) -> Admin {
        let Some(section) = section else { return Admin::default() };
        let span = section.span();
        let document::Admin { listen, probes, token_file } = section.into_inner();
        if listen.is_none() && probes.is_none() {
            self.required(&span, "listen", None::<Spanned<String>>, "like \"127.0.0.1:20240\"");
        }
        let token = token_file.and_then(|file| {
            let help = "make one with: openssl rand -hex 32 > admin-token";
            let token = Token::read(&self.folder.join(file.get_ref()));
            token.map_err(|error| self.mistakes.add_with_help(file.span(), error.to_string(), help)).ok()
        });
        let mut address = |written: Option<Spanned<String>>, what: &str| {
            written.and_then(|written| self.address(&written, Transport::Tcp, what))
        };
        Admin { listen: address(listen, "admin.listen"), probes: address(probes, "admin.probes"), token }
    }

    /// A host name without a wildcard, below which names are given out.
    fn domain(&mut self, domain: Spanned<String>) -> Option<String> {
        match domain.get_ref().parse::<HostName>() {
            Ok(HostName::Exact(name)) => Some(name),
            Ok(HostName::Wildcard(_)) | Err(_) => {
                let message = format!("`{}` is no domain", domain.get_ref().escape_debug());
                self.mistakes.add_with_help(domain.span(), message, "write it like \"tunnels.example.com\"");
                None
            }
        }
    }

    fn drain(&mut self, section: Option<Spanned<document::Drain>>) -> Drain {
        let section = section.map(Spanned::into_inner).unwrap_or_default();
        Drain {
            linger: self.duration(section.linger, LINGER, Duration::ZERO..=LONGEST_STOP),
            hosts: self.duration(section.hosts, HOSTS, Duration::ZERO..=LONGEST_STOP),
            grace_period: self.duration(section.grace_period, GRACE_PERIOD, Duration::ZERO..=LONGEST_STOP),
        }
    }

    /// A duration such as "3s"; `default` where none is written or it is wrong.
    fn duration(
        &mut self,
        written: Option<Spanned<String>>,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(written) = written else { return default };
        match humantime::parse_duration(written.get_ref()) {
            Ok(duration) if bounds.contains(&duration) => return duration,
            Ok(duration) => {
                let [value, lowest, highest] =
                    [duration, *bounds.start(), *bounds.end()].map(humantime::format_duration);
                let message = format!("{value} is out of range, expected {lowest} to {highest}");
                self.mistakes.add(written.span(), message);
            }
            Err(_) => {
                let help = "write a number with its unit, such as \"500ms\", \"30s\" or \"3m\"";
                self.mistakes.add_with_help(written.span(), "this is not a duration", help);
            }
        }
        default
    }

    fn required<T>(
        &mut self,
        table: &Range<usize>,
        key: &str,
        value: Option<Spanned<T>>,
        help: &str,
    ) -> Option<Spanned<T>> {
        if value.is_none() {
            self.mistakes.add_missing(table.clone(), key, help);
        }
        value
    }

    /// A name that appears in logs and status pages: short, and without anything to escape.
    fn word(&mut self, word: Spanned<String>) -> Option<String> {
        let span = word.span();
        let word = word.into_inner();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !word.is_empty() && word.len() <= LONGEST_WORD && word.bytes().all(fits) {
            return Some(word);
        }
        let help = format!("use 1 to {LONGEST_WORD} letters, digits, `-`, `_` and `.`");
        self.mistakes.add_with_help(span, format!("`{}` cannot be a name here", word.escape_debug()), help);
        None
    }

    fn address(&mut self, address: &Spanned<String>, transport: Transport, what: &str) -> Option<SocketAddr> {
        let Ok(parsed) = address.get_ref().parse::<SocketAddr>() else {
            let message = format!("`{}` is not an address", address.get_ref().escape_debug());
            let help = "write IP and port, like \"0.0.0.0:8080\" or \"[::1]:8080\"";
            self.mistakes.add_with_help(address.span(), message, help);
            return None;
        };
        // Port 0 means "any free one" and never collides.
        if parsed.port() != 0
            && let Some(other) = self.listens.insert((transport, parsed), what.to_owned())
        {
            let message = format!("{parsed} is already taken by {other}");
            self.mistakes.add(address.span(), message);
        }
        Some(parsed)
    }

    fn unique<T: Eq + Hash>(
        &mut self,
        known: &mut HashMap<T, usize>,
        value: T,
        span: Range<usize>,
        what: &str,
    ) {
        if known.insert(value, span.start).is_some() {
            self.mistakes.add(span, format!("this {what} is used twice"));
        }
    }
}

/// In bytes.
const LARGEST_DOCUMENT: usize = 4 << 20;
/// Where the development CA lives when the document does not say.
const DATA_DIR: &str = "edge-data";
const LONGEST_WORD: usize = 64;
const HOLD: Duration = Duration::from_secs(10);
/// As long as Cloudflare waits, about.
const WAIT: Duration = Duration::from_secs(100);
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// Most visitors that look so have left, and their requests are still under way.
const HALF_CLOSED: Duration = Duration::from_secs(5);
const LONGEST_HOLD: Duration = Duration::from_secs(60);
/// As long as an edge that was started holds requests of tunnels without hosts.
const WARM_UP: Duration = Duration::from_secs(15);
const LONGEST_WARM_UP: Duration = Duration::from_secs(5 * 60);
/// Long enough for whoever balances load to see that this edge is not ready any more.
const LINGER: Duration = Duration::from_secs(3);
/// A host that can move has done so long before.
const HOSTS: Duration = Duration::from_secs(5);
const GRACE_PERIOD: Duration = Duration::from_secs(30);
const LONGEST_STOP: Duration = Duration::from_secs(60 * 60);
const STAND_IN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[cfg(test)]
mod tests;
