use super::translation::Translation;
use super::*;

fn translated(yaml: &str) -> anyhow::Result<Translation> {
    let legacy = Legacy::parse("/etc/cloudflared/config.yml".into(), yaml)?;
    let mut options = Options::default();
    options.edge.metrics = Some("localhost:2000".to_owned());
    legacy.fill(&mut options)?;
    translate(Some(&legacy), &Proof::CredentialsFile("/c.json".into()), &options, legacy.url().as_deref())
}

#[test]
fn a_config_yml_becomes_a_document_and_what_does_not_is_a_warning() {
    let yaml = r#"
tunnel: demo
credentials-file: /root/.cloudflared/demo.json
edge: ["127.0.0.1:7844", "127.0.0.1:7844"]
protocol: http2
ha-connections: 2
grace-period: 1m30s
loglevel: debug
no-autoupdate: true
ingres: []
originRequest:
  connectTimeout: 10s
  noTLSVerify: true
ingress:
  - hostname: "*.example.com"
    path: ^/api
    paths: as-sent
    pathHeaders: as-sent
    service: wss://127.0.0.1:8443
    originRequest: { connectTimeout: 1500ms, httpHostHeader: inner, caPool: ca.pem, tcpKeepAlive: 5s, proxyType: socks,
      http2Origin: true, matchSNItoHost: true, noHappyEyeballs: true, disableChunkedEncoding: true,
      tlsTimeout: 0s, keepAliveTimeout: 2h }
  - hostname: ssh.example.com
    service: ssh://127.0.0.1:22
  - service: http_status:404
"#;
    let translation = translated(yaml).unwrap();
    let wanted = r#"[tunnel]
credentials-file = "/c.json"
edges = ["127.0.0.1:7844"]
protocol = "http2"
connections = 2
grace-period = "90000ms"

[admin]
listen = "127.0.0.1:2000"

[[ingress]]
hostname = "*.example.com"
path = "^/api"
paths = "as-sent"
path-headers = "as-sent"
service = "https://127.0.0.1:8443"
[ingress.origin]
header-case = "title"
ca-file = "/etc/cloudflared/ca.pem"
connect-timeout = "1500ms"
chunked = false
http2 = "if-offered"
host-header = "inner"
keep-alive-timeout = "3600000ms"
server-name-from-host = true
happy-eyeballs = false
tls-verify = false
tcp-keep-alive = "5000ms"
tls-timeout = "3600000ms"

[[ingress]]
hostname = "ssh.example.com"
service = "http_status:501"

[[ingress]]
service = "http_status:404"
"#;
    assert_eq!(translation.toml, wanted);
    let warnings = translation.warnings.join("\n");
    for wanted in [
        "`ingres` is not known",
        "`loglevel` is not supported here yet",
        "`ingress[0].originRequest.keepAliveTimeout` is more than 1h",
        "`ingress[0].originRequest.proxyType` is not supported here yet",
        "`ssh` services are not supported",
    ] {
        assert!(warnings.contains(wanted), "{wanted}: {warnings}");
    }
    assert_eq!(translation.warnings.len(), 5, "{warnings}");
}

#[test]
fn what_would_be_served_without_its_protection_is_refused() {
    for yaml in [
        "ingress:\n - service: http://a\n   originRequest: {access: {required: true, teamName: t}}",
        "originRequest: {access: {required: true}}\ningress:\n - service: http://a",
        "originRequest: {access: {teamName: t}}\nurl: http://a",
    ] {
        let error = translated(yaml).unwrap_err().to_string();
        assert!(error.contains("access`: Access tokens are checked by the plugin jwt"), "{error}");
    }
    let access = "{required: true, teamName: acme, audTag: [f1d2, a9b8]}";
    let error =
        translated(&format!("url: http://a\noriginRequest: {{access: {access}}}")).unwrap_err().to_string();
    let lines: Vec<_> = error.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let document: toml::Table = toml::from_str(&lines.join("\n")).unwrap();
    let plugin = &document["plugin"][0];
    assert_eq!(plugin["config"]["team"].as_str(), Some("acme"));
    assert_eq!(plugin["config"]["audience"], toml::Value::from(vec!["f1d2", "a9b8"]));
    assert_eq!(plugin["grants"]["http"][0].as_str(), Some("https://acme.cloudflareaccess.com"));
    assert!(translated("originRequest: {access: {required: false}}\nurl: http://a").is_ok());
}

#[test]
fn a_time_beyond_the_longest_counts_as_that_and_is_said() {
    let keys = "{connectTimeout: 2h, tlsTimeout: 1h, keepAliveTimeout: 5400}";
    let translation = translated(&format!("url: http://a\noriginRequest: {keys}")).unwrap();
    assert!(translation.toml.contains("connect-timeout = \"3600000ms\""), "{}", translation.toml);
    let [first, second] = &translation.warnings[..] else { panic!("{:?}", translation.warnings) };
    assert!(
        first.contains("connectTimeout` is more than 1h") && second.contains("keepAliveTimeout` is"),
        "{first}"
    );
}

#[test]
fn mistakes_name_their_place() {
    for (yaml, wanted) in [
        ("- a", "not a list of keys"),
        ("ingress: all", "`ingress` is not a list"),
        ("ingress: [{hostname: a}]", "`ingress[0].service` is missing"),
        ("ingress: [{hostname: 7, service: http://a}]", "`ingress[0].hostname` is no text"),
        (
            "ingress: [{paths: raw, service: http://a}]",
            "`ingress[0].paths` is neither `checked` nor `as-sent`",
        ),
        ("ingress: [{pathHeaders: true, service: http://a}]", "`ingress[0].pathHeaders` is neither"),
        ("url: http://a\noriginRequest: {connectTimeout: soon}", "connectTimeout` is no time"),
        ("url: http://a\noriginRequest: {noTLSVerify: 1}", "noTLSVerify` is neither"),
        ("ha-connections: many", "is no number"),
        ("a: [", "config.yml"),
    ] {
        let error = format!("{:#}", translated(yaml).unwrap_err());
        assert!(error.contains(wanted), "{yaml}: {error}");
    }
    let empty = translated("").unwrap();
    assert!(empty.toml.contains("config-source = \"remote\"") && empty.warnings[0].contains("503"));
}
