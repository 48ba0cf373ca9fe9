//! Every flag of the reference's `tunnel`: its other names, its names in the environment, and what becomes of
//! it here. Each may stand before or behind any command, and is a key at the top of its config.yml. Knows
//! words; does nothing.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

/// One flag.
pub(crate) struct Word {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// The first counts.
    pub(crate) environment: &'static [&'static str],
    pub(crate) takes_value: bool,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It means the same here: our own arguments have it.
    Works,
    /// What it asks for is so anyway.
    IsSo,
    /// It has no effect, and why.
    HasNone(&'static str),
}

use Fate::{HasNone, IsSo, Works};

const fn value(name: &'static str, environment: &'static [&'static str], fate: Fate) -> Word {
    Word { name, aliases: &[], environment, takes_value: true, fate }
}

const fn switch(name: &'static str, environment: &'static [&'static str], fate: Fate) -> Word {
    Word { name, aliases: &[], environment, takes_value: false, fate }
}

const fn also(aliases: &'static [&'static str], word: Word) -> Word {
    Word { aliases, ..word }
}

/// All of them, those that the reference hides too.
pub(crate) const WORDS: &[Word] = &[
    value("config", &[], Works),
    value("origincert", &["TUNNEL_ORIGIN_CERT"], Works),
    value("api-url", &["TUNNEL_API_URL"], Works),
    value("autoupdate-freq", &[], IsSo),
    switch("no-autoupdate", &["NO_AUTOUPDATE"], IsSo),
    switch("is-autoupdated", &[], IsSo),
    switch("no-prechecks", &["TUNNEL_NO_PRECHECKS"], IsSo),
    value("metrics", &["TUNNEL_METRICS"], Works),
    value("metrics-update-freq", &["TUNNEL_METRICS_UPDATE_FREQ"], IsSo),
    value("pidfile", &["TUNNEL_PIDFILE"], Works),
    value("loglevel", &["TUNNEL_LOGLEVEL"], Works),
    also(
        &["proto-loglevel"],
        value("transport-loglevel", &["TUNNEL_TRANSPORT_LOGLEVEL", "TUNNEL_PROTO_LOGLEVEL"], Works),
    ),
    value("logfile", &["TUNNEL_LOGFILE"], Works),
    value("log-directory", &["TUNNEL_LOGDIRECTORY"], Works),
    value("output", &["TUNNEL_LOG_OUTPUT", "TUNNEL_MANAGEMENT_OUTPUT"], Works),
    value(
        "trace-output",
        &["TUNNEL_TRACE_OUTPUT"],
        HasNone("there are no traces of the program's own runtime"),
    ),
    value("edge", &["TUNNEL_EDGE"], Works),
    value("region", &["TUNNEL_REGION"], Works),
    value("edge-ip-version", &["TUNNEL_EDGE_IP_VERSION"], Works),
    value("edge-bind-address", &["TUNNEL_EDGE_BIND_ADDRESS"], Works),
    value("cacert", &["TUNNEL_CACERT"], Works),
    also(&["p"], value("protocol", &["TUNNEL_TRANSPORT_PROTOCOL"], Works)),
    value("ha-connections", &[], Works),
    value("grace-period", &["TUNNEL_GRACE_PERIOD"], Works),
    value("retries", &["TUNNEL_RETRIES"], Works),
    value("max-edge-addr-retries", &[], IsSo),
    value("rpc-timeout", &[], HasNone(TIMES)),
    value("write-stream-timeout", &["TUNNEL_STREAM_WRITE_TIMEOUT"], HasNone(TIMES)),
    value("dial-edge-timeout", &["DIAL_EDGE_TIMEOUT"], HasNone(TIMES)),
    value("heartbeat-interval", &[], HasNone(TIMES)),
    value("heartbeat-count", &[], HasNone(TIMES)),
    switch("quic-disable-pmtu-discovery", &["TUNNEL_DISABLE_QUIC_PMTU"], HasNone(QUIC)),
    value(
        "quic-connection-level-flow-control-limit",
        &["TUNNEL_QUIC_CONN_LEVEL_FLOW_CONTROL_LIMIT"],
        HasNone(QUIC),
    ),
    value(
        "quic-stream-level-flow-control-limit",
        &["TUNNEL_QUIC_STREAM_LEVEL_FLOW_CONTROL_LIMIT"],
        HasNone(QUIC),
    ),
    also(&["pq"], switch("post-quantum", &["TUNNEL_POST_QUANTUM"], Works)),
    also(&["F"], value("features", &[], HasNone("what an edge is offered is what this host can do"))),
    value("label", &[], Works),
    value("tag", &["TUNNEL_TAG"], Works),
    value("id", &["TUNNEL_ID"], HasNone("the connector's id is made at each start")),
    also(&["n"], value("name", &["TUNNEL_NAME"], Works)),
    value("hostname", &["TUNNEL_HOSTNAME"], Works),
    value("lb-pool", &["TUNNEL_LB_POOL"], HasNone("edges of Adit balance between hosts by themselves")),
    also(&["f"], switch("overwrite-dns", &["TUNNEL_FORCE_PROVISIONING_DNS"], Works)),
    also(&["cred-file"], value("credentials-file", &["TUNNEL_CRED_FILE"], Works)),
    value("credentials-contents", &["TUNNEL_CRED_CONTENTS"], Works),
    value("token", &["TUNNEL_TOKEN"], Works),
    value("token-file", &["TUNNEL_TOKEN_FILE"], Works),
    value("quick-service", &[], Works),
    value("max-fetch-size", &["TUNNEL_MAX_FETCH_SIZE"], IsSo),
    switch("stdin-control", &["STDIN_CONTROL"], Works),
    switch("use-reconnect-token", &["TUNNEL_USE_RECONNECT_TOKEN"], IsSo),
    value("compression-quality", &["TUNNEL_COMPRESSION_LEVEL"], HasNone("bodies pass as they are")),
    switch("management-diagnostics", &["TUNNEL_MANAGEMENT_DIAGNOSTICS"], HasNone(MANAGEMENT)),
    value("management-hostname", &["TUNNEL_MANAGEMENT_HOSTNAME"], HasNone(MANAGEMENT)),
    value("service-op-ip", &["TUNNEL_SERVICE_OP_IP"], HasNone(MANAGEMENT)),
    value("icmpv4-src", &["TUNNEL_ICMPV4_SRC"], HasNone(PRIVATE)),
    value("icmpv6-src", &["TUNNEL_ICMPV6_SRC"], HasNone(PRIVATE)),
    value("max-active-flows", &["TUNNEL_MAX_ACTIVE_FLOWS"], Works),
    value("dns-resolver-addrs", &["TUNNEL_DNS_RESOLVER_ADDRS"], HasNone(PRIVATE)),
    // One origin in place of rules.
    value("url", &["TUNNEL_URL"], Works),
    switch("hello-world", &["TUNNEL_HELLO_WORLD"], Works),
    value("unix-socket", &["TUNNEL_UNIX_SOCKET"], Works),
    switch("socks5", &["TUNNEL_SOCKS"], Works),
    switch("bastion", &["TUNNEL_BASTION"], Works),
    switch("ssh-server", &["TUNNEL_SSH_SERVER"], Works),
    value("http-host-header", &["TUNNEL_HTTP_HOST_HEADER"], Works),
    value("origin-server-name", &["TUNNEL_ORIGIN_SERVER_NAME"], Works),
    value("origin-ca-pool", &["TUNNEL_ORIGIN_CA_POOL"], Works),
    switch("no-tls-verify", &["NO_TLS_VERIFY"], Works),
    switch("no-chunked-encoding", &["TUNNEL_NO_CHUNKED_ENCODING"], Works),
    switch("http2-origin", &["TUNNEL_ORIGIN_ENABLE_HTTP2"], Works),
    value("proxy-connect-timeout", &[], Works),
    value("proxy-tls-timeout", &[], Works),
    value("proxy-tcp-keepalive", &[], Works),
    switch("proxy-no-happy-eyeballs", &[], Works),
    value("proxy-keepalive-connections", &[], Works),
    value("proxy-keepalive-timeout", &[], Works),
    value("proxy-connection-timeout", &[], HasNone(DEPRECATED)),
    value("proxy-expect-continue-timeout", &[], HasNone(DEPRECATED)),
    value("proxy-address", &["TUNNEL_PROXY_ADDRESS"], HasNone(NO_PROXY)),
    value("proxy-port", &["TUNNEL_PROXY_PORT"], HasNone(NO_PROXY)),
    // Long without an effect there too.
    switch("ui", &[], HasNone(DEPRECATED)),
    value("api-key", &["TUNNEL_API_KEY"], HasNone(DEPRECATED)),
    value("api-email", &["TUNNEL_API_EMAIL"], HasNone(DEPRECATED)),
    value("api-ca-key", &["TUNNEL_API_CA_KEY"], HasNone(DEPRECATED)),
    switch("proxy-dns", &["TUNNEL_DNS"], HasNone(NO_DNS)),
    value("proxy-dns-port", &["TUNNEL_DNS_PORT"], HasNone(NO_DNS)),
    value("proxy-dns-address", &["TUNNEL_DNS_ADDRESS"], HasNone(NO_DNS)),
    value("proxy-dns-upstream", &["TUNNEL_DNS_UPSTREAM"], HasNone(NO_DNS)),
    value("proxy-dns-max-upstream-conns", &["TUNNEL_DNS_MAX_UPSTREAM_CONNS"], HasNone(NO_DNS)),
    value("proxy-dns-bootstrap", &["TUNNEL_DNS_BOOTSTRAP"], HasNone(NO_DNS)),
    // Of a server that was never finished. Their names in the environment are anybody's.
    value("local-ssh-port", &[], HasNone(NO_SSH)),
    value("ssh-idle-timeout", &[], HasNone(NO_SSH)),
    value("ssh-max-timeout", &[], HasNone(NO_SSH)),
    value("bucket-name", &[], HasNone(NO_SSH)),
    value("region-name", &[], HasNone(NO_SSH)),
    value("secret-id", &[], HasNone(NO_SSH)),
    value("access-key-id", &[], HasNone(NO_SSH)),
    value("session-token", &[], HasNone(NO_SSH)),
    value("s3-url-host", &[], HasNone(NO_SSH)),
    value("host-key-path", &[], HasNone(NO_SSH)),
];

const TIMES: &str = "how long the edge is waited for is fixed here";
const QUIC: &str = "QUIC finds its packet size and its windows by itself";
const MANAGEMENT: &str =
    "a host is managed at its own admin address, and tells its edge about itself by the usual name";
const PRIVATE: &str = "private networks are not carried yet";
const DEPRECATED: &str = "it has none in cloudflared either";
const NO_PROXY: &str = "a SOCKS proxy is reached through its tunnel, and listens nowhere";
const NO_DNS: &str = "the DNS proxy was removed from cloudflared too";
const NO_SSH: &str = "there is no SSH server in this program";

/// The word that is written so, with or without its dashes.
pub(crate) fn find(name: &str) -> Option<&'static Word> {
    WORDS.iter().find(|word| word.name == name || word.aliases.contains(&name))
}

/// Those without an effect that were given.
#[derive(Debug, Clone, Default)]
pub(super) struct Idle(BTreeSet<&'static str>);

impl Idle {
    /// One sentence each.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|name| idle(name).map(|why| format!("--{name} has no effect: {why}")))
    }
}

/// Why a word has no effect, if that is to be said.
pub(super) fn idle(name: &str) -> Option<&'static str> {
    match find(name)?.fate {
        HasNone(why) => Some(why),
        Works | IsSo => None,
    }
}

impl FromArgMatches for Idle {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut idle = Self::default();
        idle.update_from_arg_matches(matches)?;
        Ok(idle)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.extend(declared().map(|word| word.name).filter(|name| matches.contains_id(name)));
        Ok(())
    }
}

impl Args for Idle {
    fn augment_args(command: Command) -> Command {
        declared().fold(command, |command, word| {
            let mut argument = Arg::new(word.name)
                .long(word.name)
                .global(word.name != ELSEWHERE)
                .hide(true)
                .action(ArgAction::Append);
            argument = if word.takes_value {
                // A number below zero is no flag.
                argument.allow_hyphen_values(true)
            } else {
                argument.num_args(0..=1).require_equals(true).default_missing_value("true")
            };
            for alias in word.aliases {
                let mut letters = alias.chars();
                argument = match (letters.next(), letters.next()) {
                    (Some(letter), None) => argument.short_alias(letter),
                    _ => argument.alias(*alias),
                };
            }
            match word.environment.first() {
                Some(name) => command.arg(argument.env(*name)),
                None => command.arg(argument),
            }
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// What another command has too, and means something else by.
const ELSEWHERE: &str = "id";

fn declared() -> impl Iterator<Item = &'static Word> {
    WORDS.iter().filter(|word| word.fate != Works)
}
