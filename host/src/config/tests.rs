//! What somebody sees who configures a host: the plan of a good document, and every kind of mistake.

mod broken;

use std::path::Path;
use std::time::Duration;

use adit_protocol::credentials::Credentials;

use super::plan::{HostPattern, Limits, OnError, Service};
use super::*;
use crate::config::settings::{DnsServer, EdgeSource, Edges, IpVersion};
use crate::tunnel::state::Protocol;

const GOOD: &str = r#"
[tunnel]
credentials-file = "demo.json"
edges = ["127.0.0.1:7844", "edge.example.com:7845", "[::1]:7844"]
edge-ip-version = "auto"
dns-servers = ["system", "192.0.2.53:53", "tls://[2001:db8::53]:853#dns.example.com"]
edge-ca = "ca.pem"
protocol = "http2"
connections = 3
shards = 2
grace-period = "1m 30s"

[admin]
listen = "127.0.0.1:0"

[ready]
connections = 2

[[plugin]]
name = "auth"
component = "plugins/basic_auth.wasm"
on-error = "deny"
timeout = "20ms"
memory = "16MiB"
concurrency = 8
[plugin.config]
realm = "demo"
users = { eve = "…", adam = "…" }

[[plugin]]
name = "headers"
component = "/usr/share/adit/headers.wasm"
on-error = "skip"

[[ingress]]
hostname = "App.Example.com"
path = "^/private"
service = "https://127.0.0.1:8443"
plugins = ["headers", "auth"]
[ingress.origin]
connect-timeout = "5s"
tls-timeout = "6s"
response-timeout = "7s"
keep-alive-timeout = "8s"
keep-alive-connections = 9
tls-verify = true
ca-file = "origin.pem"
server-name = "app.internal"
host-header = "app.internal:8443"
http2 = true
server-name-from-host = true
chunked = false
tcp-keep-alive = "10s"
happy-eyeballs = false
header-case = "title"

[[ingress]]
name = "everything else of the app"
hostname = "*.example.com"
service = "unix:app.sock"

[[ingress]]
service = "http_status:404"
"#;

/// The settings of a document that has none worth mentioning.
pub(crate) const TUNNEL: &str = "[tunnel]\ncredentials-file = \"demo.json\"\nedges = [\"127.0.0.1:7844\", \"127.0.0.1:7845\", \"127.0.0.1:7846\", \"127.0.0.1:7847\"]\n";

/// A folder with credentials as the documents of these tests name them.
pub(crate) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "demo.json",
        r#"{"AccountTag":"account","TunnelSecret":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMw==","TunnelID":"6b2a4c1e-8f0d-4a3b-9c5e-1d2f3a4b5c6d"}"#,
    );
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    write("ca.pem", &authority.self_signed(&key).unwrap().pem());
    write("empty.pem", "");
    write("broken.json", "{\"AccountTag\":\"hunter2\",");
    write("huge.json", &" ".repeat(1 << 20));
    write("broken.token", "hunter2!");
    folder
}

fn parse_in(folder: &Path, text: &str) -> Result<(Settings, Plan), Mistakes> {
    parse("host.toml", text, folder).map_err(|error| match error {
        ConfigError::Mistakes(mistakes) => mistakes,
        other @ (ConfigError::Source(_) | ConfigError::Flags(_)) => panic!("{other}"),
    })
}

/// The plan of these plugins and rules.
pub(crate) fn plan(text: &str) -> Plan {
    let folder = folder();
    parse_in(folder.path(), &format!("{TUNNEL}{text}")).unwrap().1
}

#[test]
fn a_document_with_everything_means_what_it_says() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (settings, plan) = parse_in(folder.path(), GOOD).unwrap();

    assert_eq!(settings.credentials.account_tag, "account");
    assert_eq!(
        settings.edges,
        Edges {
            source: EdgeSource::Listed(
                ["127.0.0.1:7844", "edge.example.com:7845", "[::1]:7844"].map(str::to_owned).to_vec()
            ),
            ip_version: IpVersion::Auto,
            bind_address: None,
            dns_servers: vec![
                DnsServer::System,
                DnsServer::Plain("192.0.2.53:53".parse().unwrap()),
                DnsServer::Tls {
                    address: "[2001:db8::53]:853".parse().unwrap(),
                    name: "dns.example.com".into()
                },
            ],
        }
    );
    assert_eq!(settings.edge_ca, Some(at("ca.pem")));
    assert_eq!((settings.connections, settings.shards), (3, 2));
    assert_eq!(settings.ready_connections, 2);
    assert_eq!(settings.protocol, Protocol::Http2);
    assert_eq!(settings.grace_period, Duration::from_secs(90));
    assert_eq!(settings.admin.to_string(), "127.0.0.1:0");
    assert_eq!(settings.warnings, [""; 0]);

    assert_eq!(plan.warnings, [""; 0]);
    let [auth, headers] = plan.plugins.as_slice() else { panic!("two plugins") };
    assert_eq!((auth.name.as_str(), &auth.component), ("auth", &at("plugins/basic_auth.wasm")));
    assert_eq!(auth.config, r#"{"realm":"demo","users":{"adam":"…","eve":"…"}}"#);
    assert_eq!(auth.on_error, OnError::Deny);
    let limits = Limits { memory: 16 << 20, timeout: Some(Duration::from_millis(20)), concurrency: 8 };
    assert_eq!(auth.limits, limits);
    assert_eq!(headers.component, Path::new("/usr/share/adit/headers.wasm"));
    assert_eq!((headers.on_error, headers.config.as_str()), (OnError::Skip, "{}"));
    let limits = Limits { memory: 64 << 20, timeout: None, concurrency: 64 };
    assert_eq!(headers.limits, limits);

    let [private, rest, last] = plan.rules.as_slice() else { panic!("three rules") };
    assert_eq!(private.name, "app.example.com ^/private");
    assert_eq!(private.hostname, HostPattern::Exact("app.example.com".into()));
    assert!(private.path.as_ref().unwrap().is_match("/private/x"));
    assert_eq!(private.service, Service::Https { authority: "127.0.0.1:8443".parse().unwrap() });
    assert_eq!(private.plugins, [1, 0]);
    assert_eq!(
        private.origin,
        plan::OriginPlan {
            connect_timeout: Duration::from_secs(5),
            tls_timeout: Duration::from_secs(6),
            response_timeout: Some(Duration::from_secs(7)),
            keep_alive_timeout: Duration::from_secs(8),
            keep_alive_connections: 9,
            tls_verify: true,
            ca_file: Some(at("origin.pem")),
            server_name: Some("app.internal".into()),
            host_header: Some("app.internal:8443".into()),
            server_name_from_host: true,
            http2: plan::Http2::Only,
            chunked: false,
            tcp_keep_alive: Some(Duration::from_secs(10)),
            happy_eyeballs: false,
            header_case: plan::HeaderCase::Title,
            idle_timeout: None,
            reach: plan::Reach::default(),
        }
    );
    assert_eq!(rest.name, "everything else of the app");
    assert_eq!(rest.hostname, HostPattern::Wildcard(".example.com".into()));
    assert_eq!(rest.service, Service::Unix { path: at("app.sock"), tls: false });
    assert_eq!(
        rest.origin,
        plan::OriginPlan {
            connect_timeout: Duration::from_secs(30),
            tls_timeout: Duration::from_secs(10),
            response_timeout: None,
            keep_alive_timeout: Duration::from_secs(90),
            keep_alive_connections: 100,
            tls_verify: true,
            ca_file: None,
            server_name: None,
            host_header: None,
            server_name_from_host: false,
            http2: plan::Http2::Never,
            chunked: true,
            tcp_keep_alive: Some(Duration::from_secs(30)),
            happy_eyeballs: true,
            header_case: plan::HeaderCase::Lower,
            idle_timeout: None,
            reach: plan::Reach::default(),
        }
    );
    assert_eq!((last.name.as_str(), &last.hostname), ("*", &HostPattern::Any));
    assert_eq!(last.service, Service::Status(http::StatusCode::NOT_FOUND));
    assert!(last.path.is_none() && last.plugins.is_empty());
}

#[test]
fn what_is_not_written_has_a_default() {
    let folder = folder();
    let text = format!("{TUNNEL}[[ingress]]\nservice = \"hello_world\"\n");
    let (settings, plan) = parse_in(folder.path(), &text).unwrap();
    assert_eq!((settings.connections, settings.ready_connections), (4, 1));
    assert_eq!(settings.protocol, Protocol::Auto);
    assert!((1..=4).contains(&settings.shards));
    assert_eq!(settings.grace_period, Duration::from_secs(30));
    assert_eq!(settings.admin.to_string(), "127.0.0.1:20241");
    assert_eq!(settings.edge_ca, None);
    assert!(settings.warnings.is_empty() && plan.warnings.is_empty() && plan.plugins.is_empty());
}

/// How edge servers are found by a document with these keys in `[tunnel]`.
fn edges(keys: &str) -> Result<Edges, Mistakes> {
    let folder = folder();
    let bound = Credentials {
        endpoint: Some("US".into()),
        ..Credentials::from_json(&std::fs::read(folder.path().join("demo.json")).unwrap()).unwrap()
    };
    std::fs::write(folder.path().join("bound.json"), bound.to_json()).unwrap();
    let credentials =
        if keys.contains("credentials-file") { "" } else { "credentials-file = \"demo.json\"\n" };
    let text = format!("[tunnel]\n{credentials}{keys}\n[[ingress]]\nservice = \"hello_world\"\n");
    parse_in(folder.path(), &text).map(|(settings, _)| settings.edges)
}

#[test]
fn without_a_list_the_servers_of_the_public_edge_are_used() {
    let tls = DnsServer::Tls { address: "1.1.1.1:853".parse().unwrap(), name: "cloudflare-dns.com".into() };
    assert_eq!(
        edges("").unwrap(),
        Edges {
            source: EdgeSource::Domain { name: "argotunnel.com".into(), region: None },
            ip_version: IpVersion::Auto,
            bind_address: None,
            dns_servers: vec![DnsServer::System, tls],
        }
    );
}

#[test]
fn a_domain_of_ones_own_is_told_to_the_systems_dns_only() {
    let keys = "edge-domain = \"Edge.Example.com.\"\nedge-region = \"US\"\nedge-ip-version = \"6\"";
    assert_eq!(
        edges(keys).unwrap(),
        Edges {
            source: EdgeSource::Domain { name: "edge.example.com".into(), region: Some("us".into()) },
            ip_version: IpVersion::V6,
            bind_address: None,
            dns_servers: vec![DnsServer::System],
        }
    );
}

#[test]
fn the_source_address_decides_the_family() {
    for (keys, version) in [
        ("edge-bind-address = \"192.0.2.1\"", IpVersion::V4),
        ("edge-bind-address = \"::1\"\nedge-ip-version = \"6\"", IpVersion::V6),
    ] {
        let edges = edges(keys).unwrap();
        assert_eq!(edges.ip_version, version);
        assert!(edges.bind_address.is_some_and(|address| version.admits(address)));
    }
}

#[test]
fn credentials_that_are_bound_to_a_region_choose_it() {
    let bound = "credentials-file = \"bound.json\"\n";
    let EdgeSource::Domain { region, .. } = edges(bound).unwrap().source else { panic!("a domain") };
    assert_eq!(region.as_deref(), Some("us"));
    let twice = edges(&format!("{bound}edge-region = \"eu\"")).unwrap_err().to_string();
    assert!(twice.contains(":3:15: tunnel.edge-region: the credentials say already"), "{twice}");
    // A list says it all.
    assert!(matches!(
        edges(&format!("{bound}edges = [\"127.0.0.1:7844\"]")).unwrap().source,
        EdgeSource::Listed(_)
    ));
}

#[test]
fn a_token_file_says_the_same_as_a_credentials_file() {
    let folder = folder();
    let (settings, _) = parse_in(folder.path(), GOOD).unwrap();
    std::fs::write(folder.path().join("demo.token"), settings.credentials.to_token() + "\n").unwrap();
    let by_token = GOOD.replace("credentials-file = \"demo.json\"", "token-file = \"demo.token\"");
    assert_eq!(parse_in(folder.path(), &by_token).unwrap().0.credentials, settings.credentials);
}

#[test]
fn doubtful_documents_are_accepted_with_warnings() {
    let folder = folder();
    let text = r#"
[tunnel]
credentials-file = "demo.json"
edges = ["127.0.0.1:7844"]
dns-servers = ["192.0.2.53:53"]
[admin]
listen = "0.0.0.0:20241"
[[plugin]]
name = "idle"
component = "a.wasm"
[[ingress]]
hostname = "*.example.com"
service = "http://a"
origin = { tls-verify = false, server-name = "x" }
[[ingress]]
hostname = "b.example.com"
path = "^/x"
service = "https://b"
origin = { tls-verify = false }
[[ingress]]
path = "^/x"
service = "http_status:404"
origin = { connect-timeout = "1s" }
[[ingress]]
path = "^/x"
service = "http://a"
[[ingress]]
service = "http_status:404"
"#;
    let (settings, plan) = parse_in(folder.path(), text).unwrap();
    assert_eq!(
        settings.warnings,
        [
            "admin.listen = 0.0.0.0:20241 can be reached from other machines: without `token-file` it answers probes and metrics and nothing else",
            "tunnel.dns-servers has no effect: `edges` lists no name",
            "tunnel.edges lists one server: nothing serves while it is away",
        ]
    );
    assert_eq!(
        plan.warnings,
        [
            "ingress[0].origin.tls-verify has no effect on an http:// service",
            "ingress[0].origin.server-name has no effect on an http:// service",
            "ingress[1].origin.tls-verify = false: whoever answers in the service's place is believed; \
             what knows only TLS 1.0 or 1.1, CBC ciphers or RSA key exchange is out of reach even so",
            "ingress[1] is never reached: ingress[0] takes all that it matches",
            "ingress[2].origin has no effect on a built-in service",
            "ingress[3] is never reached: ingress[2] takes all that it matches",
            "plugin[0] (idle) is in no rule",
        ]
    );
}

#[test]
fn every_kind_of_mistake_is_reported_once_with_its_place_and_a_way_out() {
    let folder = folder();
    for [name, written, instead, place, path, message, help] in broken::BROKEN {
        let text = GOOD.replacen(written, instead, 1);
        assert_ne!(text, GOOD, "{name}: nothing is changed");
        let mistakes = parse_in(folder.path(), &text).err().unwrap_or_else(|| panic!("{name}: accepted"));
        let [mistake] = mistakes.iter().collect::<Vec<_>>()[..] else {
            panic!("{name}: not one mistake:\n{mistakes}")
        };
        let before =
            &text[..text.find(place).unwrap_or_else(|| panic!("{name}: {place:?} is not in the text"))];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let shown = mistake.place.map(|place| (place.line, place.column));
        assert_eq!(shown, Some((line, column)), "{name}:\n{mistakes}");
        assert_eq!(mistake.path.as_deref().unwrap_or_default(), path, "{name}");
        assert!(mistake.message.contains(message), "{name}:\n{mistakes}");
        assert!(mistake.help.as_deref().unwrap_or_default().contains(help), "{name}:\n{mistakes}");
        assert!(!mistakes.to_string().contains("hunter2"), "{name}: shows a secret");
    }
}

#[test]
fn an_empty_document_is_told_what_it_lacks() {
    let folder = folder();
    let mistakes = parse_in(folder.path(), "").err().unwrap();
    assert_eq!(
        mistakes.to_string(),
        "\
host.toml: `ingress` is missing
  help: say where requests go; the shortest is [[ingress]] with service = \"http_status:404\"
host.toml: `tunnel` is missing
  help: add [tunnel] with credentials-file = \"demo.json\" and edges = [\"edge.example.com:7844\"]"
    );
}

#[test]
fn all_mistakes_of_a_document_come_in_one_report() {
    let folder = folder();
    let text = r#"[tunnel]
credential-file = "demo.json"
edges = ["localhost"]
connections = 9
grace-period = 30

[[plugin]]
name = "auth"
component = 5
memory = "lots"

[[ingress]]
hostnam = "app.example.com"
service = "http://app:8080/base"

[[ingress]]
service = "banana"
plugins = ["auht"]

[[ingress]]
hostname = "*.*"
path = "("
"#;
    let mistakes = parse_in(folder.path(), text).err().unwrap();
    assert_eq!(
        mistakes.to_string(),
        "\
host.toml:2:1: tunnel.credential-file: unknown key `credential-file`
  help: did you mean `credentials-file`?
host.toml:3:10: tunnel.edges[0]: the port of this edge server is missing
  help: write \"localhost:7844\"
host.toml:4:15: tunnel.connections: 9 is out of range, expected a whole number from 1 to 4
host.toml:5:16: tunnel.grace-period: expected a number with a unit in quotes, such as \"30s\" or \"64MiB\", found an integer
host.toml:9:13: plugin[0].component: expected a string, found an integer
host.toml:10:10: plugin[0].memory: this is not a size
  help: write a whole number with its unit, such as \"512KiB\" or \"64MiB\"
host.toml:13:1: ingress[0].hostnam: unknown key `hostnam`
  help: did you mean `hostname`?
host.toml:14:11: ingress[0].service: a service has no path
  help: end it after the host and port; the path of a request reaches the service unchanged
host.toml:16:1: ingress[1]: this rule matches every request, so those after it are never reached
  help: give it a `hostname` or a `path`, or move it to the end
host.toml:17:11: ingress[1].service: this is not a service
  help: a service is http://host:port, https://host:port, unix:/path, unix+tls:/path, ssh://host, rdp://host, smb://host, tcp://host:port, bastion, socks-proxy, http_status:404, hello_world or wasm:PLUGIN
host.toml:18:12: ingress[1].plugins[0]: there is no plugin `auht`
  help: did you mean `auth`?
host.toml:20:1: ingress[2]: `service` is missing
  help: say where requests go: service = \"http://127.0.0.1:8080\"
host.toml:21:12: ingress[2].hostname: `*` can only be the whole first label of a host name
  help: write \"*.example.com\", or use `path` for finer rules
host.toml:22:8: ingress[2].path: not a regular expression: unclosed group
  help: the syntax is described at https://docs.rs/regex/#syntax"
    );
}

#[test]
fn a_document_on_disk_is_loaded_with_paths_relative_to_its_folder() {
    let folder = folder();
    let path = folder.path().join("host.toml");
    let failure = load(&path).err().unwrap().to_string();
    assert!(failure.starts_with(&format!("reading {}: ", path.display())), "{failure}");
    std::fs::write(&path, GOOD).unwrap();
    let (settings, plan) = load(&path).unwrap();
    assert_eq!(settings.edge_ca, Some(folder.path().join("ca.pem")));
    assert_eq!(plan.plugins[0].component, folder.path().join("plugins/basic_auth.wasm"));
    std::fs::write(&path, GOOD.replace("[admin]", "[adm]")).unwrap();
    let failure = load(&path).err().unwrap().to_string();
    assert!(failure.starts_with(&format!("{}:13:2: adm: unknown key", path.display())), "{failure}");
}

#[test]
fn plans_do_not_print_the_configuration_of_plugins() {
    let plan = plan(
        "[[plugin]]\nname = \"a\"\ncomponent = \"a\"\nconfig = { key = \"hunter2\" }\n[[ingress]]\nservice = \"hello_world\"\nplugins = [\"a\"]\n",
    );
    assert_eq!(plan.plugins[0].config, r#"{"key":"hunter2"}"#);
    assert!(!format!("{plan:?}").contains("hunter2"));
}
