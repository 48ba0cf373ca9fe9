//! A broken document is refused with the place of every mistake, before anything starts.

use e2e::process::{Outcome, Process, component};
use e2e::product::Site;

/// A host's document without its mistakes.
const GOOD: &str = r#"[tunnel]
credentials-file = "demo.json"
edges = ["127.0.0.1:7844"]
connections = 1
[admin]
listen = "127.0.0.1:0"
[[plugin]]
name = "marks"
component = "headers.wasm"
[[ingress]]
hostname = "app.example.com"
path = "^/a"
service = "http://127.0.0.1:8080"
plugins = ["marks"]
[[ingress]]
service = "http_status:404"
"#;

/// What is replaced, by what, on which line the mistake is, and what the report says besides.
const HOST_MISTAKES: &[(&str, &str, usize, &[&str])] = &[
    ("[admin]", "[admin", 5, &[]),
    ("hostname =", "hostnam =", 11, &["hostnam", "did you mean `hostname`?"]),
    ("[admin]", "[admim]", 5, &["admim", "did you mean `admin`?"]),
    ("connections = 1", "connections = \"1\"", 4, &["connections"]),
    ("connections = 1", "connections = 0", 4, &["1 to 4"]),
    ("connections = 1", "connections = 5", 4, &["1 to 4"]),
    ("connections = 1", "connections = 1\nconnections = 2", 5, &[]),
    ("connections = 1", "grace-period = 30", 4, &["30s"]),
    ("connections = 1", "grace-period = \"an hour\"", 4, &["duration", "30s"]),
    ("connections = 1", "grace-period = \"9h\"", 4, &["3m"]),
    ("connections = 1", "edge-domain = \"example.com\"", 4, &["edges", "two ways"]),
    ("edges = [\"127.0.0.1:7844\"]", "edge-domain = \"a b\"", 3, &["host name", "SRV"]),
    ("edges = [\"127.0.0.1:7844\"]", "edge-ip-version = \"7\"", 3, &["auto"]),
    ("edges = [\"127.0.0.1:7844\"]", "edges = []", 3, &["no edge server"]),
    ("\"127.0.0.1:7844\"", "\"edge.example.com\"", 3, &["port", "edge.example.com:7844"]),
    ("\"127.0.0.1:7844\"", "\"https://edge.example.com\"", 3, &["URL"]),
    ("\"127.0.0.1:7844\"", "\"127.0.0.1:7844\", \"127.0.0.1:7844\"", 3, &["twice"]),
    ("\"demo.json\"", "\"absent.json\"", 2, &["absent.json", "No such file"]),
    ("\"demo.json\"", "\"broken.json\"", 2, &["credentials"]),
    ("credentials-file = \"demo.json\"", "", 1, &["credentials-file"]),
    ("listen = \"127.0.0.1:0\"", "listen = \"localhost\"", 6, &["127.0.0.1:20241"]),
    ("name = \"marks\"", "name = \"two words\"", 8, &["name"]),
    ("component = \"headers.wasm\"", "", 7, &["component"]),
    (
        "component = \"headers.wasm\"",
        "component = \"headers.wasm\"\non-error = \"ignore\"",
        10,
        &["deny", "skip"],
    ),
    ("component = \"headers.wasm\"", "component = \"headers.wasm\"\nmemory = \"64\"", 10, &["64MiB"]),
    ("component = \"headers.wasm\"", "component = \"headers.wasm\"\ntimeout = \"1h\"", 10, &["1ms to 1m"]),
    (
        "[[ingress]]\nhostname",
        "[[plugin]]\nname = \"marks\"\ncomponent = \"a\"\n[[ingress]]\nhostname",
        11,
        &["marks", "taken"],
    ),
    ("\"app.example.com\"", "\"https://app.example.com/x\"", 11, &["URL", "app.example.com"]),
    ("\"app.example.com\"", "\"app.*.com\"", 11, &["*.example.com"]),
    ("\"app.example.com\"", "\"app.example.com:443\"", 11, &["port"]),
    ("\"^/a\"", "\"^/(a\"", 12, &["regular expression"]),
    ("\"http://127.0.0.1:8080\"", "\"htp://127.0.0.1:8080\"", 13, &["htp", "http://"]),
    ("\"http://127.0.0.1:8080\"", "\"http://127.0.0.1:8080/base\"", 13, &["path"]),
    ("\"http://127.0.0.1:8080\"", "\"http://ada:hunter2@127.0.0.1\"", 13, &["user name"]),
    ("\"http://127.0.0.1:8080\"", "\"gopher://127.0.0.1\"", 13, &["`gopher` needs a port"]),
    ("\"http_status:404\"", "\"http_status:9\"", 16, &["200 to 999"]),
    ("[\"marks\"]", "[\"mark\"]", 14, &["did you mean `marks`?"]),
    ("[\"marks\"]", "[\"marks\", \"marks\"]", 14, &["twice"]),
    ("[[ingress]]\nservice = \"http_status:404\"\n", "", 10, &["last rule"]),
    ("hostname = \"app.example.com\"\npath = \"^/a\"", "", 10, &["never reached"]),
    ("path = \"^/a\"", "origin = { connect-timout = \"3s\" }", 12, &["connect-timeout"]),
];

fn site() -> Site {
    let site = Site::new();
    std::fs::copy(component("headers"), site.path("headers.wasm")).unwrap();
    site.write("broken.json", "{\"AccountTag\": \"a\", \"TunnelID\": 7}");
    site
}

async fn check(site: &Site, text: &str) -> Outcome {
    site.write("host.toml", text);
    Process::run(&["config", "check", "host.toml"], site.folder(), "").await
}

#[tokio::test]
async fn a_good_document_passes() {
    let outcome = check(&site(), GOOD).await;
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.output.contains("host.toml"), "{outcome:?}");
}

#[tokio::test]
async fn every_mistake_of_a_host_is_shown_with_its_place_and_the_way_out() {
    let site = site();
    for &(good, bad, line, wanted) in HOST_MISTAKES {
        assert!(GOOD.contains(good), "{good}");
        let outcome = check(&site, &GOOD.replacen(good, bad, 1)).await;
        assert_eq!(outcome.code, Some(2), "{bad}: {outcome:?}");
        assert!(outcome.log.contains(&format!("host.toml:{line}:")), "{bad}, line {line}: {}", outcome.log);
        for part in wanted {
            assert!(outcome.log.contains(part), "{bad}: {part} is not in {}", outcome.log);
        }
        assert!(!outcome.log.contains("hunter2") && !outcome.log.contains("panicked"), "{}", outcome.log);
        assert!(outcome.output.is_empty(), "errors go to standard error: {outcome:?}");
    }
}

#[tokio::test]
async fn all_mistakes_are_shown_at_once() {
    let site = site();
    let text = GOOD
        .replace("connections = 1", "connections = 9")
        .replace("\"^/a\"", "\"[\"")
        .replace("hostname =", "hostnam =")
        .replace("[\"marks\"]", "[\"mark\"]")
        .replace("listen = \"127.0.0.1:0\"", "listen = 7");
    let outcome = check(&site, &text).await;
    assert_eq!(outcome.code, Some(2));
    for line in [4, 6, 11, 12, 14] {
        assert!(outcome.log.contains(&format!("host.toml:{line}:")), "{line}: {}", outcome.log);
    }
    assert_eq!(outcome.log.matches("host.toml:").count(), 5, "{}", outcome.log);
}

#[tokio::test]
async fn a_host_with_a_mistake_does_not_start_and_says_the_same() {
    let site = site();
    for (good, bad) in
        [("hostname =", "hostnam ="), ("connections = 1", "connections = 9"), ("[tunnel]", "[tunel]")]
    {
        let checked = check(&site, &GOOD.replacen(good, bad, 1)).await;
        let run = Process::run(&["tunnel", "run", "--config", "host.toml"], site.folder(), "").await;
        assert_eq!((run.code, run.log), (Some(2), checked.log));
    }
}

#[tokio::test]
async fn a_document_that_is_no_document_is_refused_with_the_reason() {
    let site = site();
    std::fs::create_dir(site.path("folder.toml")).unwrap();
    site.write("binary.toml", [0xff, 0xfe, 0x00, 0x01]);
    site.write("empty.toml", "");
    site.write("json.toml", site.credentials.to_json());
    for command in [&["config", "check"][..], &["tunnel", "run", "--config"], &["edge", "run", "--config"]] {
        for (file, wanted) in [
            ("absent.toml", "No such file"),
            ("folder.toml", "directory"),
            ("binary.toml", "UTF-8"),
            ("empty.toml", "empty.toml"),
            ("json.toml", "json.toml:1:"),
        ] {
            let outcome = Process::run(&[command, &[file]].concat(), site.folder(), "").await;
            assert_eq!(outcome.code, Some(2), "{command:?} {file}: {outcome:?}");
            assert!(
                outcome.log.contains(file) && outcome.log.contains(wanted),
                "{command:?}: {}",
                outcome.log
            );
        }
    }
}

/// An edge's document without its mistakes.
const GOOD_EDGE: &str = r#"data-dir = "edge-data"
[visitors]
http = "127.0.0.1:0"
[[server]]
region = "west"
listen = "127.0.0.1:0"
[[tunnel]]
name = "demo"
credentials-file = "demo.json"
hostnames = ["app.localhost"]
"#;

const EDGE_MISTAKES: &[(&str, &str, usize, &[&str])] = &[
    ("[visitors]", "[visitor]", 2, &["visitor", "did you mean `visitors`?"]),
    ("http =", "htttp =", 3, &["did you mean `http`?"]),
    ("http = \"127.0.0.1:0\"", "http = \"localhost:80\"", 3, &["not an address"]),
    ("http = \"127.0.0.1:0\"", "http = 80", 3, &["http"]),
    ("http = \"127.0.0.1:0\"", "http = \"127.0.0.1:0\"\ncertificate = \"absent.pem\"", 4, &["certificate"]),
    ("region = \"west\"", "", 4, &["region"]),
    ("region = \"west\"", "region = \"west side\"", 5, &["cannot be a name"]),
    ("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:99999\"", 6, &["not an address"]),
    (
        "[[tunnel]]",
        "[[server]]\nregion = \"a\"\nlisten = \"127.0.0.1:7\"\n[[server]]\nregion = \"a\"\nlisten = \"127.0.0.1:7\"\n[[tunnel]]",
        12,
        &["taken"],
    ),
    ("\"demo.json\"", "\"absent.json\"", 9, &["absent.json"]),
    ("\"demo.json\"", "\"broken.json\"", 9, &["broken.json"]),
    ("[\"app.localhost\"]", "[\"http://app.localhost\"]", 10, &["app.localhost"]),
    ("[\"app.localhost\"]", "[\"app.localhost\", \"app.localhost\"]", 10, &["twice"]),
    ("[\"app.localhost\"]", "\"app.localhost\"", 10, &["hostnames"]),
];

#[tokio::test]
async fn every_mistake_of_an_edge_is_shown_with_its_place() {
    let site = site();
    for &(good, bad, line, wanted) in EDGE_MISTAKES {
        assert!(GOOD_EDGE.contains(good), "{good}");
        site.write("edge.toml", GOOD_EDGE.replacen(good, bad, 1));
        let outcome = Process::run(&["edge", "run", "--config", "edge.toml"], site.folder(), "").await;
        assert_eq!(outcome.code, Some(2), "{bad}: {outcome:?}");
        assert!(outcome.log.contains(&format!("edge.toml:{line}:")), "{bad}, line {line}: {}", outcome.log);
        for part in wanted {
            assert!(outcome.log.contains(part), "{bad}: {part} is not in {}", outcome.log);
        }
        assert!(!outcome.log.contains("panicked"), "{}", outcome.log);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let site = site();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    site.write("edge.toml", GOOD_EDGE.replacen("127.0.0.1:0", &address, 1));
    let outcome = Process::run(&["edge", "run", "--config", "edge.toml"], site.folder(), "").await;
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    assert!(outcome.log.contains(&address), "{}", outcome.log);

    std::fs::write(site.path("ca.pem"), e2e::certificate::Certificate::new(&["quic.cftunnel.com"]).ca_pem)
        .unwrap();
    let text =
        GOOD.replacen("127.0.0.1:0", &address, 1).replacen("[admin]", "edge-ca = \"ca.pem\"\n[admin]", 1);
    site.write("host.toml", text);
    let outcome = Process::run(&["tunnel", "run", "--config", "host.toml"], site.folder(), "").await;
    assert!(matches!(outcome.code, Some(1 | 2)), "{outcome:?}");
    assert!(outcome.log.contains(&address), "{}", outcome.log);
}

#[tokio::test]
async fn new_credentials_are_for_their_owner_only_and_never_overwrite() {
    use std::os::unix::fs::PermissionsExt;
    let site = site();
    let make = ["edge", "credentials", "--output", "new.json"];
    let made = Process::run(&make, site.folder(), "").await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let path = site.path("new.json");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
    let text = std::fs::read(&path).unwrap();
    adit_protocol::credentials::Credentials::from_json(&text).expect("credentials that can be read");

    let again = Process::run(&make, site.folder(), "").await;
    assert_ne!(again.code, Some(0));
    assert!(again.log.contains("new.json"), "{again:?}");
    assert_eq!(std::fs::read(&path).unwrap(), text);
}
