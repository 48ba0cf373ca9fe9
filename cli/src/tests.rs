//! The whole command line of the reference, as it may be written; and what pages say of ours.

mod commands;
mod examples;
mod pages;
mod ranges;

use std::ffi::OsString;

use clap::Parser;

use super::{Arguments, line};

/// Every flag of the reference's `tunnel` with a value that it takes, `""` for a switch; and its names in the
/// environment.
const FLAGS: &[(&str, &str, &[&str])] = &[
    ("--config", "c.yml", &[]),
    ("--origincert", "c.pem", &["TUNNEL_ORIGIN_CERT"]),
    ("--autoupdate-freq", "24h", &[]),
    ("--no-autoupdate", "", &["NO_AUTOUPDATE"]),
    ("--no-prechecks", "", &["TUNNEL_NO_PRECHECKS"]),
    ("--metrics", "localhost:0", &["TUNNEL_METRICS"]),
    ("--pidfile", "/run/a.pid", &["TUNNEL_PIDFILE"]),
    ("--loglevel", "debug", &["TUNNEL_LOGLEVEL"]),
    ("--transport-loglevel", "warn", &["TUNNEL_TRANSPORT_LOGLEVEL", "TUNNEL_PROTO_LOGLEVEL"]),
    ("--proto-loglevel", "warn", &[]),
    ("--logfile", "a.log", &["TUNNEL_LOGFILE"]),
    ("--log-directory", "logs", &["TUNNEL_LOGDIRECTORY"]),
    ("--output", "json", &["TUNNEL_LOG_OUTPUT", "TUNNEL_MANAGEMENT_OUTPUT"]),
    ("--trace-output", "t", &["TUNNEL_TRACE_OUTPUT"]),
    ("--region", "us", &["TUNNEL_REGION"]),
    ("--edge-ip-version", "auto", &["TUNNEL_EDGE_IP_VERSION"]),
    ("--edge-bind-address", "127.0.0.1", &["TUNNEL_EDGE_BIND_ADDRESS"]),
    ("--hostname", "a.example.com", &["TUNNEL_HOSTNAME"]),
    ("--lb-pool", "p", &["TUNNEL_LB_POOL"]),
    ("--metrics-update-freq", "5s", &["TUNNEL_METRICS_UPDATE_FREQ"]),
    ("--retries", "5", &["TUNNEL_RETRIES"]),
    ("--grace-period", "30s", &["TUNNEL_GRACE_PERIOD"]),
    ("--label", "l", &[]),
    ("--compression-quality", "0", &["TUNNEL_COMPRESSION_LEVEL"]),
    ("--name", "n", &["TUNNEL_NAME"]),
    ("-n", "n", &[]),
    ("--post-quantum", "", &["TUNNEL_POST_QUANTUM"]),
    ("--pq", "", &[]),
    ("--management-diagnostics", "", &["TUNNEL_MANAGEMENT_DIAGNOSTICS"]),
    ("--overwrite-dns", "", &["TUNNEL_FORCE_PROVISIONING_DNS"]),
    ("-f", "", &[]),
    ("--protocol", "auto", &["TUNNEL_TRANSPORT_PROTOCOL"]),
    ("-p", "quic", &[]),
    ("--edge", "a:7844", &["TUNNEL_EDGE"]),
    ("--cacert", "ca.pem", &["TUNNEL_CACERT"]),
    ("--api-url", "http://127.0.0.1:1", &["TUNNEL_API_URL"]),
    ("--ha-connections", "4", &[]),
    ("--rpc-timeout", "5s", &[]),
    ("--write-stream-timeout", "0s", &["TUNNEL_STREAM_WRITE_TIMEOUT"]),
    ("--quic-disable-pmtu-discovery", "", &["TUNNEL_DISABLE_QUIC_PMTU"]),
    (
        "--quic-connection-level-flow-control-limit",
        "31457280",
        &["TUNNEL_QUIC_CONN_LEVEL_FLOW_CONTROL_LIMIT"],
    ),
    ("--quic-stream-level-flow-control-limit", "6291456", &["TUNNEL_QUIC_STREAM_LEVEL_FLOW_CONTROL_LIMIT"]),
    ("--max-edge-addr-retries", "8", &[]),
    ("--heartbeat-interval", "5s", &[]),
    ("--heartbeat-count", "5", &[]),
    ("--dial-edge-timeout", "15s", &["DIAL_EDGE_TIMEOUT"]),
    ("--stdin-control", "", &["STDIN_CONTROL"]),
    ("--tag", "a=b", &["TUNNEL_TAG"]),
    ("--quick-service", "http://127.0.0.1:1", &[]),
    ("--max-fetch-size", "10", &["TUNNEL_MAX_FETCH_SIZE"]),
    ("--management-hostname", "m.example.com", &["TUNNEL_MANAGEMENT_HOSTNAME"]),
    ("--service-op-ip", "198.41.200.113:80", &["TUNNEL_SERVICE_OP_IP"]),
    ("--use-reconnect-token", "", &["TUNNEL_USE_RECONNECT_TOKEN"]),
    ("--is-autoupdated", "", &[]),
    ("--id", "i", &["TUNNEL_ID"]),
    ("--url", "http://localhost:8080", &["TUNNEL_URL"]),
    ("--hello-world", "", &["TUNNEL_HELLO_WORLD"]),
    ("--socks5", "", &["TUNNEL_SOCKS"]),
    ("--proxy-connect-timeout", "30s", &[]),
    ("--proxy-tls-timeout", "10s", &[]),
    ("--proxy-tcp-keepalive", "30s", &[]),
    ("--proxy-no-happy-eyeballs", "", &[]),
    ("--proxy-keepalive-connections", "100", &[]),
    ("--proxy-keepalive-timeout", "90s", &[]),
    ("--http-host-header", "h", &["TUNNEL_HTTP_HOST_HEADER"]),
    ("--origin-server-name", "n", &["TUNNEL_ORIGIN_SERVER_NAME"]),
    ("--unix-socket", "/s", &["TUNNEL_UNIX_SOCKET"]),
    ("--origin-ca-pool", "ca.pem", &["TUNNEL_ORIGIN_CA_POOL"]),
    ("--no-tls-verify", "", &["NO_TLS_VERIFY"]),
    ("--no-chunked-encoding", "", &["TUNNEL_NO_CHUNKED_ENCODING"]),
    ("--http2-origin", "", &["TUNNEL_ORIGIN_ENABLE_HTTP2"]),
    ("--bastion", "", &["TUNNEL_BASTION"]),
    ("--proxy-address", "127.0.0.1", &["TUNNEL_PROXY_ADDRESS"]),
    ("--proxy-port", "0", &["TUNNEL_PROXY_PORT"]),
    ("--credentials-file", "c.json", &["TUNNEL_CRED_FILE"]),
    ("--cred-file", "c.json", &[]),
    ("--credentials-contents", "{}", &["TUNNEL_CRED_CONTENTS"]),
    ("--token", "t", &["TUNNEL_TOKEN"]),
    ("--token-file", "t", &["TUNNEL_TOKEN_FILE"]),
    ("--features", "f", &[]),
    ("-F", "f", &[]),
    ("--icmpv4-src", "1.1.1.1", &["TUNNEL_ICMPV4_SRC"]),
    ("--icmpv6-src", "::1", &["TUNNEL_ICMPV6_SRC"]),
    ("--max-active-flows", "1", &["TUNNEL_MAX_ACTIVE_FLOWS"]),
    ("--dns-resolver-addrs", "1.1.1.1:53", &["TUNNEL_DNS_RESOLVER_ADDRS"]),
    ("--ssh-server", "", &["TUNNEL_SSH_SERVER"]),
    ("--proxy-dns", "", &["TUNNEL_DNS"]),
    ("--api-key", "k", &["TUNNEL_API_KEY"]),
];
/// What stands before `run` only.
const BEFORE_RUN: &[&str] = &["--hostname", "--name", "-n", "--overwrite-dns", "-f", "--quick-service"];

fn parsed(words: &[&str]) -> Result<Arguments, String> {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    let line = std::iter::once("adit".into()).chain(line::arranged(words, |_| None));
    Arguments::try_parse_from(line).map_err(|error| error.to_string())
}

#[test]
fn every_flag_of_the_reference_is_taken_wherever_it_stands() {
    for (flag, value, _) in FLAGS {
        let given: Vec<&str> = [*flag, *value].into_iter().filter(|word| !word.is_empty()).collect();
        let joined = format!("{flag}={}", if value.is_empty() { "true" } else { value });
        let mut lines =
            vec![[&given[..], &["tunnel", "run"]].concat(), [&["tunnel"][..], &given, &["run"]].concat()];
        if !BEFORE_RUN.contains(flag) {
            lines.push([&["tunnel", "run"][..], &given].concat());
            lines.push([&["tunnel", "run", "demo"][..], &given].concat());
        }
        if flag.starts_with("--") {
            lines.push(vec![&joined, "tunnel", "run"]);
            lines.push(vec!["tunnel", &joined, "run"]);
            lines.push([&[&flag[1..]][..], &given[1..], &["tunnel", "run"]].concat());
        }
        for line in lines {
            if let Err(error) = parsed(&line) {
                panic!("{line:?}: {error}");
            }
        }
    }
    for line in
        ["tunnel --bogus run", "--bogus tunnel run", "tunnel run --bogus", "tunnel --no-autoupdates run"]
    {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(parsed(&words).is_err_and(|error| error.contains("unexpected argument")), "{line}");
    }
}

#[test]
fn a_command_of_the_reference_that_is_none_here_is_said_to_be_none_in_one_line() {
    for line in [
        "access login",
        "tunnel diag",
        "tunnel route ip show",
        "tunnel vnet list",
        "update",
        "proxy-dns",
        "db-connect",
        "--no-autoupdate update",
    ] {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let words = std::iter::once("adit".into()).chain(line::arranged(words, |_| None));
        let error = Arguments::try_parse_from(words).err().unwrap_or_else(|| panic!("{line} is taken"));
        let why = line::absent(&error).unwrap_or_else(|| panic!("{line}: {error}"));
        assert!(why.starts_with("there is no `") && why.lines().count() == 1, "{why}");
    }
    let error = Arguments::try_parse_from(["adit", "tunnel", "bogus"]).err().expect("no command");
    assert_eq!(line::absent(&error), None);
}

#[test]
fn every_name_in_the_environment_is_known() {
    for (flag, _, names) in FLAGS {
        let name = flag.trim_start_matches('-');
        let word = crate::tunnel::reference::find(name).unwrap_or_else(|| panic!("{flag} is in no table"));
        assert!(names.is_empty() || word.environment == *names, "{flag}: {:?}", word.environment);
    }
    // And each that is said to work is one of our own arguments.
    let command = <Arguments as clap::CommandFactory>::command();
    let tunnel = command.find_subcommand("tunnel").expect("a command");
    for word in crate::tunnel::reference::WORDS {
        let argument = tunnel.get_arguments().find(|argument| {
            argument.get_long() == Some(word.name)
                || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&word.name))
        });
        let argument = argument.unwrap_or_else(|| panic!("--{} is taken nowhere", word.name));
        let environment = argument.get_env().and_then(|name| name.to_str());
        // The reference has no name for it.
        if word.name != "quick-service" {
            assert_eq!(environment, word.environment.first().copied(), "--{}", word.name);
        }
    }
}
