//! Every flag of the reference as a key at the top of its config.yml: what works takes effect from there too, and
//! what has no effect is said in one line, there and on the command line.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Parser;

use super::legacy::{Given, Legacy, Proof, translate};
use super::reference::{Fate, WORDS, Word};
use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    tunnel: Arguments,
}

/// What came of a config.yml.
struct Seen {
    tunnel: Arguments,
    toml: String,
    /// What is in the file that says who the tunnel is.
    proof: Option<String>,
    warnings: Vec<String>,
}

impl Seen {
    fn options(&self) -> &Options {
        &self.tunnel.options
    }

    /// A line of the document.
    fn says(&self, line: &str) -> bool {
        self.toml.lines().any(|said| said.split("  #@ ").next() == Some(line))
    }
}

/// As `adit tunnel --config FILE run` reads it.
fn read(folder: &Path, yaml: &str) -> Seen {
    let path = folder.join("config.yml");
    std::fs::write(&path, yaml).unwrap();
    let words = ["adit", "--config", path.to_str().unwrap(), "run"];
    let mut tunnel = Line::try_parse_from(words).map_err(|error| error.to_string()).unwrap().tunnel;
    tunnel.prepare().unwrap_or_else(|_| panic!("{yaml}"));
    let file = tunnel.file.as_ref().unwrap();
    let given = Given {
        proof: Proof::CredentialsFile("/c.json".into()),
        single: tunnel.options.single.clone(),
        admin: "127.0.0.1:1".to_owned(),
    };
    let translation = translate(Some(file), &given).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    let proof = run::proof(&run::Run::default(), &tunnel.options, Some(file));
    let proof = proof.ok().and_then(|(proof, _kept)| {
        let (Proof::CredentialsFile(path) | Proof::TokenFile(path)) = proof;
        std::fs::read_to_string(path).ok()
    });
    Seen { toml: translation.toml, proof, warnings: translation.warnings, tunnel }
}

/// A key, what it says, and whether that was understood.
type Row = (&'static str, &'static str, fn(&Seen) -> bool);

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const ID: &str = "f0b1d4d0-1111-4222-8333-444455556666";

const ROWS: &[Row] = &[
    ("origincert", "c.pem", |seen| ends(&seen.options().origin_cert, "c.pem")),
    ("api-url", "http://a:1", |seen| seen.options().api_url.as_deref() == Some("http://a:1")),
    ("metrics", "localhost:2000", |seen| seen.says("listen = \"127.0.0.1:2000\"")),
    ("pidfile", "a.pid", |seen| ends(&seen.options().process.pidfile, "a.pid")),
    ("loglevel", "debug", |seen| seen.options().log.loglevel.as_deref() == Some("debug")),
    ("transport-loglevel", "warn", |seen| seen.options().log.transport_loglevel.as_deref() == Some("warn")),
    ("logfile", "a.log", |seen| ends(&seen.options().log.logfile, "a.log")),
    ("log-directory", "logs", |seen| ends(&seen.options().log.log_directory, "logs")),
    ("output", "json", |seen| seen.options().log.output.as_deref() == Some("json")),
    ("edge", "[a:7844, 'b:7844', a:7844]", |seen| seen.says("edges = [\"a:7844\",\"b:7844\"]")),
    ("region", "us", |seen| seen.says("edge-region = \"us\"")),
    ("edge-ip-version", "6", |seen| seen.says("edge-ip-version = \"6\"")),
    ("edge-bind-address", "::1", |seen| seen.says("edge-bind-address = \"::1\"")),
    ("cacert", "/ca.pem", |seen| seen.says("edge-ca = \"/ca.pem\"")),
    ("protocol", "http2", |seen| seen.says("protocol = \"http2\"")),
    ("ha-connections", "2", |seen| seen.says("connections = 2")),
    ("max-active-flows", "7", |seen| seen.says("most-circuits = 7")),
    ("grace-period", "1m30s", |seen| seen.says("grace-period = \"90000ms\"")),
    ("retries", "7", |seen| seen.options().process.retries == Some(7)),
    ("post-quantum", "true", |seen| seen.options().process.post_quantum == Some(true)),
    ("label", "one", |seen| seen.options().process.label.as_deref() == Some("one")),
    ("tag", "[a=b, c=d]", |seen| seen.options().process.tag == ["a=b", "c=d"]),
    ("name", "demo", |seen| seen.tunnel.name.as_deref() == Some("demo")),
    ("hostname", "a.example.com", |seen| seen.tunnel.hostname.as_deref() == Some("a.example.com")),
    ("overwrite-dns", "yes", |seen| seen.tunnel.overwrite_dns == Some(true)),
    ("credentials-file", "given.json", |seen| proves(seen, "\"AccountTag\":\"given\"")),
    (
        "credentials-contents",
        "'{\"AccountTag\":\"said\",\"TunnelSecret\":\"SECRET\",\"TunnelID\":\"UUID\"}'",
        |seen| proves(seen, "\"AccountTag\":\"said\""),
    ),
    ("token", "TOKEN", |seen| proves(seen, "eyJ")),
    ("token-file", "token", |seen| proves(seen, "eyJ")),
    ("quick-service", "http://q:1", |seen| seen.tunnel.quick_service.as_deref() == Some("http://q:1")),
    ("stdin-control", "on", |seen| seen.options().process.stdin_control == Some(true)),
    ("url", "http://a:1", |seen| seen.says("service = \"http://a:1\"")),
    ("hello-world", "true", |seen| seen.says("service = \"hello_world\"")),
    ("unix-socket", "/a.sock", |seen| seen.says("service = \"unix:/a.sock\"")),
    ("socks5", "true", |seen| seen.says("service = \"socks-proxy\"")),
    ("bastion", "true", |seen| seen.says("service = \"bastion\"")),
    ("ssh-server", "true", |seen| seen.says("service = \"http_status:501\"")),
    ("http-host-header", "inner", |seen| seen.says("host-header = \"inner\"")),
    ("origin-server-name", "inner", |seen| seen.says("server-name = \"inner\"")),
    ("origin-ca-pool", "/ca.pem", |seen| seen.says("ca-file = \"/ca.pem\"")),
    ("no-tls-verify", "true", |seen| seen.says("tls-verify = false")),
    ("no-chunked-encoding", "true", |seen| seen.says("chunked = false")),
    ("http2-origin", "true", |seen| seen.says("http2 = \"if-offered\"")),
    ("proxy-connect-timeout", "7s", |seen| seen.says("connect-timeout = \"7000ms\"")),
    ("proxy-tls-timeout", "7s", |seen| seen.says("tls-timeout = \"7000ms\"")),
    ("proxy-tcp-keepalive", "7s", |seen| seen.says("tcp-keep-alive = \"7000ms\"")),
    ("proxy-no-happy-eyeballs", "true", |seen| seen.says("happy-eyeballs = false")),
    ("proxy-keepalive-connections", "7", |seen| seen.says("keep-alive-connections = 7")),
    ("proxy-keepalive-timeout", "7s", |seen| seen.says("keep-alive-timeout = \"7000ms\"")),
    // No flags.
    ("edge-domain", "example.com", |seen| seen.says("edge-domain = \"example.com\"")),
    ("tunnel", "demo", |seen| seen.tunnel.file.as_ref().and_then(Legacy::tunnel).as_deref() == Some("demo")),
    ("originRequest", "{httpHostHeader: inner}", |seen| seen.says("host-header = \"inner\"")),
    ("ingress", "[{service: 'http://a:1'}]", |seen| seen.says("service = \"http://a:1\"")),
    ("paths", "as-sent", |seen| seen.says("paths = \"as-sent\"")),
    ("pathHeaders", "as-sent", |seen| seen.says("path-headers = \"as-sent\"")),
];

fn ends(path: &Option<PathBuf>, end: &str) -> bool {
    path.as_ref().is_some_and(|path| path.ends_with(end))
}

fn proves(seen: &Seen, beginning: &str) -> bool {
    seen.proof.as_ref().is_some_and(|proof| proof.contains(beginning))
}

/// Their requests get 501, which is said.
const UNSERVED: &[&str] = &["ssh-server"];

#[test]
fn every_flag_works_as_a_key_too() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = |account: &str| {
        format!(r#"{{"AccountTag":"{account}","TunnelSecret":"{SECRET}","TunnelID":"{ID}"}}"#)
    };
    let token = adit_protocol::credentials::Credentials::from_json(credentials("token").as_bytes());
    let token = token.unwrap().to_token();
    for (name, text) in [("given.json", credentials("given")), ("token", token.clone())] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    for (key, value, is_understood) in ROWS {
        let value = value.replace("SECRET", SECRET).replace("UUID", ID).replace("TOKEN", &token);
        let says_what = ["url", "hello-world", "unix-socket", "ingress", "socks5", "bastion"].contains(key)
            || UNSERVED.contains(key);
        let url = if says_what { "" } else { "url: https://127.0.0.1:1\n" };
        let aliases = reference::find(key).map(|word| word.aliases).unwrap_or_default();
        for name in [&[*key], aliases].concat() {
            let seen = read(folder.path(), &format!("{url}{name}: {value}\n"));
            assert!(is_understood(&seen), "{name}: {value}\n{}", seen.toml);
            let said = usize::from(UNSERVED.contains(key));
            assert_eq!(seen.warnings.len(), said, "{name}: {:?}", seen.warnings);
        }
    }
    let known: BTreeSet<&str> = ROWS.iter().map(|(key, ..)| *key).collect();
    let works = WORDS.iter().filter(|word| word.fate == Fate::Works && word.name != "config");
    let missing: Vec<&str> = works.map(|word| word.name).filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_has_no_effect_is_said_in_one_line_and_what_is_so_anyway_in_none() {
    let folder = tempfile::tempdir().unwrap();
    for Word { name, aliases, takes_value, fate, .. } in WORDS {
        let why = match fate {
            Fate::HasNone(why) => *why,
            Fate::IsSo => "",
            Fate::Works => continue,
        };
        let value = if *takes_value { "1" } else { "true" };
        let seen = read(folder.path(), &format!("url: http://a\n{name}: {value}\n"));
        // As people write it, with its other names.
        for written in [&[*name], *aliases].concat() {
            let flag = match written.len() {
                1 => vec![format!("-{written}"), value.to_owned()],
                _ => vec![format!("--{written}={value}")],
            };
            let words = [&["adit".to_owned()], &flag[..], &["run".to_owned()]].concat();
            let line = Line::try_parse_from(&words).map_err(|error| error.to_string()).unwrap();
            let said: Vec<String> = line.tunnel.options.idle.warnings().collect();
            let wanted = format!("--{name} has no effect: {why}");
            // One command has a flag of this name, and says it there.
            let is_elsewhere = *name == "id";
            match why {
                "" => assert!(said.is_empty(), "{words:?}: {said:?}"),
                _ if is_elsewhere => {}
                _ => assert_eq!(said, [wanted], "{words:?}"),
            }
        }
        let wanted = format!("2:1: `{name}` has no effect: {why}");
        match why {
            "" => assert!(seen.warnings.is_empty(), "{name}: {:?}", seen.warnings),
            _ => assert_eq!(seen.warnings, [wanted]),
        }
        assert!(!why.contains('\n'), "{name}");
    }
    for (key, value) in
        [("warp-routing", "{enabled: true}"), ("forwarders", "[]"), ("resolver", "{}"), ("config", "a.yml")]
    {
        let seen = read(folder.path(), &format!("url: http://a\n{key}: {value}\n"));
        assert!(
            seen.warnings.len() == 1 && seen.warnings[0].starts_with(&format!("2:1: `{key}` ")),
            "{:?}",
            seen.warnings
        );
    }
}

#[test]
fn without_a_command_the_file_says_what_is_to_be_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yml");
    for (yaml, is_quick, name) in [
        ("url: http://a\nquick-service: http://q\n", true, None),
        ("hello-world: true\n", true, None),
        ("url: http://a\nname: demo\nhostname: a.example.com\n", false, Some("demo")),
        // That is for `run`.
        ("tunnel: demo\nname: other\nurl: http://a\n", false, None),
        ("ingress: [{service: 'http://a'}]\nurl: http://b\n", false, None),
    ] {
        std::fs::write(&path, yaml).unwrap();
        let mut tunnel = Line::parse_from(["adit", "--config", path.to_str().unwrap()]).tunnel;
        assert!(tunnel.prepare().is_ok(), "{yaml}");
        assert_eq!((tunnel.is_quick(), tunnel.name.as_deref()), (is_quick, name), "{yaml}");
    }
    std::fs::write(&path, "overwrite-dns: perhaps\n").unwrap();
    let mut tunnel = Line::parse_from(["adit", "--config", path.to_str().unwrap()]).tunnel;
    let Err(Failure::Configuration(error)) = tunnel.prepare() else { panic!("it is no switch") };
    assert!(error.to_string().contains("config.yml:1:16: overwrite-dns: neither"), "{error:#}");
}
