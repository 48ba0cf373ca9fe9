use super::*;

fn given() -> Given {
    Given {
        proof: Proof::CredentialsFile("/c.json".into()),
        single: Single::default(),
        admin: "127.0.0.1:20241".to_owned(),
    }
}

fn translated(yaml: &str) -> Result<Translation, String> {
    let legacy =
        Legacy::parse("/etc/cloudflared/config.yml".into(), yaml).map_err(|error| error.to_string())?;
    translate(Some(&legacy), &given())
}

/// Without remarks.
fn plain(toml: &str) -> String {
    toml.lines().skip(1).map(|line| format!("{}\n", line.split("  #@ ").next().unwrap_or_default())).collect()
}

#[test]
fn a_config_yml_becomes_a_document_and_what_does_not_is_a_warning() {
    let yaml = r#"
tunnel: demo
credentials-file: /root/.cloudflared/demo.json
paths: checked
pathHeaders: as-sent
edge: ["127.0.0.1:7844", "127.0.0.1:7844"]
protocol: http2
ha-connections: 2
grace-period: 1m30s
metrics: localhost:2000
loglevel: debug
no-autoupdate: yes
compression-quality: 1
originRequest:
  connectTimeout: 10s
  noTLSVerify: on
ingress:
  - hostname: "*.example.com"
    path: ^/api/{id}
    paths: as-sent
    pathHeaders: as-sent
    service: WSS://127.0.0.1:8443
    originRequest: { connectTimeout: 1500ms, httpHostHeader: inner, caPool: ca.pem, tcpKeepAlive: 5s, proxyType: socks,
      http2Origin: true, matchSNItoHost: true, noHappyEyeballs: true, disableChunkedEncoding: true,
      tlsTimeout: 0s, keepAliveTimeout: 2h }
  - hostname: ssh.example.com
    service: ssh://127.0.0.1:22
    noTLSVerify: true
  - originRequest:
      bastionMode: true
      ipRules:
        - {prefix: 10.0.0.0/8, ports: [22, 5432], allow: true}
        - prefix: "::/0"
    hostname: jump.example.com
  - service: http_status:404
"#;
    let translation = translated(yaml).unwrap();
    let wanted = r#"paths = "checked"
path-headers = "as-sent"
[tunnel]
credentials-file = "/c.json"
edges = ["127.0.0.1:7844"]
protocol = "http2"
connections = 2
grace-period = "90000ms"
[admin]
listen = "127.0.0.1:2000"
[[ingress]]
hostname = "*.example.com"
path = "^/api/\\{id}"
paths = "as-sent"
path-headers = "as-sent"
service = "https://127.0.0.1:8443"
[ingress.origin]
header-case = "title"
connect-timeout = "1500ms"
host-header = "inner"
ca-file = "/etc/cloudflared/ca.pem"
tcp-keep-alive = "5000ms"
http2 = "if-offered"
server-name-from-host = true
happy-eyeballs = false
chunked = false
tls-timeout = "3600000ms"
keep-alive-timeout = "3600000ms"
tls-verify = false
[[ingress]]
hostname = "ssh.example.com"
service = "ssh://127.0.0.1:22"
[ingress.origin]
connect-timeout = "10000ms"
[[ingress]]
hostname = "jump.example.com"
service = "bastion"
[ingress.origin]
ip-rules = [{ prefix = "10.0.0.0/8", ports = [22, 5432], allow = true }, { prefix = "::/0", allow = false }]
connect-timeout = "10000ms"
[[ingress]]
service = "http_status:404"
"#;
    assert_eq!(plain(&translation.toml), wanted);
    let warnings = translation.warnings.join("\n");
    for wanted in [
        "13:1: `compression-quality` has no effect: bodies pass as they are",
        "`ingress[0].originRequest.proxyType` is not supported here yet",
        "`ingress[0].originRequest.keepAliveTimeout` is an hour",
        "`ingress[1].noTLSVerify` has no effect here: `noTLSVerify` stands in originRequest",
    ] {
        assert!(warnings.contains(wanted), "{wanted}: {warnings}");
    }
    assert_eq!(translation.warnings.len(), 4, "{warnings}");
}

#[test]
fn what_would_be_served_without_its_protection_is_refused() {
    for yaml in [
        "ingress:\n - service: http://a\n   originRequest: {access: {required: true, teamName: t}}",
        "originRequest: {access: {required: true}}\ningress:\n - service: http://a",
        "originRequest: {access: {teamName: t}}\nurl: http://a",
        "originRequest: {access: {required: true}}",
        // Protection that is brought from elsewhere.
        "x: &p {access: {required: true}}\ningress:\n - service: http://a\n   originRequest: {<<: *p}",
        "x: &p {access: {required: true}}\ningress:\n - service: http://a\n   originRequest:\n    <<: [*p]\n    noTLSVerify: true",
        "x: &r {originRequest: {access: {required: true}}}\ningress:\n - <<: *r\n   service: http://a",
        "x: &a {required: true}\ningress:\n - service: http://a\n   originRequest: {access: {<<: *a, teamName: t}}",
        "x: &all\n  originRequest: {access: {required: true}}\n<<: *all\nurl: http://a",
    ] {
        let error = translated(yaml).unwrap_err();
        assert!(error.contains("access: Access tokens are checked by the plugin jwt"), "{yaml}: {error}");
    }
    // Or that may be meant.
    for (yaml, wanted) in [
        (
            "ingress:\n - service: http://a\n   originRequest: {acess: {required: true}}",
            "did you mean `access`",
        ),
        (
            "ingress:\n - service: http://a\n   originRequest: {Access: {required: true}}",
            "did you mean `access`",
        ),
        (
            "ingress:\n - service: http://a\n   originrequest: {access: {required: true}}",
            "did you mean `originRequest`",
        ),
        ("ingress:\n - service: http://a\n   access: {required: true}", "`access` stands in originRequest"),
        ("ingress:\n - service: http://a\n   originRequest: {mtls: {ca: x}}", "may be what protects"),
        ("ingress:\n - service: http://a\n   requireLogin: true", "may be what protects"),
        (
            "ingress:\n - service: http://a\n   originRequest: {access: {Required: true, required: false}}",
            "may be what protects",
        ),
        ("ingress:\n - service: http://a\n   originRequest: {access: true}", "not a list of keys"),
        (
            "ingress:\n - service: http://a\n   originRequest: {access: [{required: true}]}",
            "not a list of keys",
        ),
        ("ingress:\n - service: http://a\n   originRequest: [access]", "not a list of keys"),
        ("url: http://a\noriginrequest: {access: {required: true}}", "did you mean `originRequest`"),
        ("url: http://a\naccess: {required: true}", "stands in `originRequest`"),
        ("url: http://a\ndefaults: {originRequest: {access: {required: true}}}", "what protects rules"),
        (
            "url: http://a\noriginRequest: {access: {required: false}, access: {required: true}}",
            "stands here twice",
        ),
        ("url: http://a\noriginRequest: {a: 1}\noriginRequest: {}", "stands here twice"),
        ("ingres: []\nurl: http://a", "did you mean `ingress`"),
    ] {
        let error = translated(yaml).unwrap_err();
        assert!(error.contains(wanted), "{yaml}: {error}");
    }
    let access = "{required: true, teamName: acme, audTag: [f1d2, a9b8]}";
    let error = translated(&format!("url: http://a\noriginRequest: {{access: {access}}}")).unwrap_err();
    let lines: Vec<_> = error.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let document: toml::Table = toml::from_str(&lines.join("\n")).unwrap();
    let plugin = &document["plugin"][0];
    assert_eq!(plugin["component"].as_str(), Some("shelf:jwt"));
    assert_eq!(plugin["config"]["team"].as_str(), Some("acme"));
    assert_eq!(plugin["config"]["audience"], toml::Value::from(vec!["f1d2", "a9b8"]));
    assert_eq!(plugin["grants"]["http"][0].as_str(), Some("https://acme.cloudflareaccess.com"));
    for yaml in [
        "originRequest: {access: {required: false}}\nurl: http://a",
        "originRequest: {access: }\nurl: http://a",
        "x: &p {noTLSVerify: true}\nurl: https://a\noriginRequest: {<<: *p}",
    ] {
        assert!(translated(yaml).is_ok(), "{yaml}");
    }
}

#[test]
fn mistakes_name_their_place_in_the_file_that_people_wrote() {
    for (yaml, wanted) in [
        ("- a", "not a list of keys"),
        ("ingress: all", "config.yml:1:1: ingress: not a list"),
        ("ingress: [{hostname: a}]", "config.yml:1:11: ingress[0].service: is missing"),
        ("ingress:\n- hostname: [7]\n  service: http://a", "config.yml:2:3: ingress[0].hostname: not a text"),
        (
            "url: http://a\noriginRequest: {connectTimeout: soon}",
            "2:17: originRequest.connectTimeout: not a time",
        ),
        ("url: http://a\noriginRequest:\n  noTLSVerify: 7", "3:3: originRequest.noTLSVerify: neither"),
        (
            "ingress:\n- service: localhost:8080",
            "2:3: ingress[0].service: a service has a scheme and a host; did you mean `http://localhost:8080`",
        ),
        ("ha-connections: many", "1:1: ha-connections: not a number"),
        ("paths: raw\ningress: [{service: http://a}]", "paths: neither `checked` nor `as-sent`"),
        ("ingress: [{paths: raw, service: http://a}]", "ingress[0].paths: neither `checked` nor `as-sent`"),
        ("ingress: [{pathHeaders: true, service: http://a}]", "ingress[0].pathHeaders: neither `cut` nor"),
        ("a: [", "config.yml:"),
        ("a: 1\na: 2", "config.yml:2:1: `a` stands here twice"),
    ] {
        let error = translated(yaml).unwrap_err();
        assert!(error.contains(wanted), "{yaml}: {error}");
    }
    let empty = translated("").unwrap();
    assert!(empty.toml.contains("config-source = \"remote\"") && empty.warnings[0].contains("503"));
    // Two at once.
    let error =
        translated("ha-connections: many\nurl: http://a\noriginRequest: {noTLSVerify: 7}").unwrap_err();
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn what_a_document_may_not_say_is_placed_in_the_file_too() {
    for (yaml, wanted) in [
        ("ha-connections: 9\nurl: http://a", "config.yml:1:1: ha-connections: "),
        ("url: http://a\nprotocol: h3", "config.yml:2:1: protocol: "),
        (
            "ingress:\n- path: (\n  service: http://a\n- service: http://b",
            "config.yml:2:3: ingress[0].path: not a regular",
        ),
        (
            "ingress:\n- hostname: a*b\n  service: http://a\n- service: http://b",
            "config.yml:2:3: ingress[0].hostname: ",
        ),
        ("ingress:\n- hostname: a\n  service: http://a", "the last rule"),
        ("ingress:\n- service: http://a/path", "config.yml:2:3: ingress[0].service: a service has no path"),
    ] {
        let translation = translated(yaml).unwrap();
        let error = adit_host::config::parse("config.yml", &translation.toml, Path::new("/"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted) && !error.contains("[["), "{yaml}: {error}");
    }
}

#[test]
fn a_list_without_rules_is_served_as_one_and_a_list_that_is_missing_is_waited_for() {
    let of = |yaml: &str| plain(&translated(yaml).unwrap().toml);
    let empty = of("ingress: []");
    assert!(
        empty.starts_with("config-source = \"remote\"\n")
            && empty.ends_with("service = \"http_status:503\"\n")
    );
    let missing = of("loglevel: info");
    assert!(missing.starts_with("config-source = \"remote\"\n") && !missing.contains("[[ingress]]"));
    assert!(!of("ingress: []\nurl: http://a").contains("503"));
}

#[test]
fn a_region_beside_edge_servers_is_said_to_have_no_effect() {
    let translation = translated("edge: a:1\nregion: us\nurl: http://a").unwrap();
    assert!(!translation.toml.contains("edge-region"), "{}", translation.toml);
    assert!(
        translation.warnings[0].contains("2:1: `region` has no effect beside `edge`"),
        "{:?}",
        translation.warnings
    );
}
