//! A plugin that cannot be loaded is refused before anything serves, with its name and the reason.

use e2e::document::HostDocument;
use e2e::process::{Outcome, Process, component};
use e2e::product::Site;

/// What `config check` and `tunnel run` say; both must say the same.
async fn refused(site: &Site, host: HostDocument) -> Outcome {
    let edges = ["127.0.0.1:1".parse().unwrap()];
    // A check of a configuration needs no edge, nor its CA.
    site.write("edge-ca.pem", e2e::certificate::Certificate::new(&["quic.cftunnel.com"]).ca_pem);
    let host = HostDocument { edge_ca: "edge-ca.pem".into(), ..host };
    site.write("host.toml", host.to_toml(&edges));
    let checked = Process::run(&["config", "check", "host.toml"], site.folder(), "").await;
    let run = Process::run(&["tunnel", "run", "--config", "host.toml"], site.folder(), "").await;
    assert_eq!(checked.code, Some(2), "{checked:?}");
    assert_eq!(run.code, Some(2), "{run:?}");
    let last = |outcome: &Outcome| {
        outcome.log.lines().filter(|line| !line.contains("WARN")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(last(&checked), last(&run));
    checked
}

fn with(component: &std::path::Path, more: &str) -> HostDocument {
    HostDocument::new()
        .plugin("suspect", component, more)
        .rule("service = \"hello_world\"\nplugins = [\"suspect\"]")
}

#[tokio::test]
async fn a_file_that_is_no_component_is_refused_by_name() {
    let site = Site::new();
    let headers = std::fs::read(component("headers")).unwrap();
    let (half, rest) = headers.split_at(headers.len() / 2);
    let mut flipped = headers.clone();
    flipped[headers.len() / 3..headers.len() / 3 + 64].fill(0xa5);
    let files: [(&str, &[u8]); 7] = [
        ("empty.wasm", b""),
        ("text.wasm", b"this is a text, and not a component\n"),
        ("core.wasm", b"\0asm\x01\0\0\0"),
        ("nothing.wasm", b"\0asm\x0d\0\x01\0"),
        ("half.wasm", half),
        ("rest.wasm", rest),
        ("flipped.wasm", &flipped),
    ];
    for (name, bytes) in files {
        let path = site.write(name, bytes);
        let outcome = refused(&site, with(&path, "")).await;
        assert!(outcome.log.contains("suspect") && outcome.log.contains(name), "{name}: {}", outcome.log);
        assert!(!outcome.log.contains("panicked"), "{name}: {}", outcome.log);
    }
    let core = refused(&site, with(&site.path("core.wasm"), "")).await;
    assert!(core.log.contains("not a component"), "{}", core.log);
}

#[tokio::test]
async fn a_component_that_is_not_there_is_refused_by_name() {
    let site = Site::new();
    let outcome = refused(&site, with(&site.path("absent.wasm"), "")).await;
    assert!(outcome.log.contains("suspect") && outcome.log.contains("absent.wasm"), "{}", outcome.log);
    assert!(outcome.log.contains("No such file"), "{}", outcome.log);
}

#[tokio::test]
async fn every_fault_of_a_plugins_configuration_is_shown_with_its_pointer() {
    let site = Site::new();
    let config = "[plugin.config]\nrequests = {}\nrequest.set = { \"bad name\" = \"x\" }\nresponse.remove = [\"fine\", 7]";
    let outcome = refused(&site, with(&component("headers"), config)).await;
    for pointer in ["/requests", "/request/set/bad name", "/response/remove/1"] {
        assert!(outcome.log.contains(pointer), "{pointer}: {}", outcome.log);
    }
    assert!(outcome.log.contains("suspect"), "{}", outcome.log);
}

#[tokio::test]
async fn a_password_in_clear_is_refused_without_being_repeated() {
    let site = Site::new();
    let config = "[plugin.config]\nrealm = \"r\"\nusers = [{ name = \"ada\", password = \"hunter2\" }]";
    let outcome = refused(&site, with(&component("basic_auth"), config)).await;
    assert!(outcome.log.contains("/users/0/password"), "{}", outcome.log);
    assert!(!outcome.log.contains("hunter2"), "{}", outcome.log);
}

#[tokio::test]
async fn a_plugin_that_breaks_while_it_is_configured_is_refused_by_name() {
    let site = Site::new();
    for act in ["trap", "panic", "loop", "eat-memory", "recurse", "fault"] {
        let config = format!("memory = \"16MiB\"\n[plugin.config]\non = \"configure\"\ndo = \"{act}\"");
        let outcome = refused(&site, with(&component("test/misbehave"), &config)).await;
        assert!(outcome.log.contains("suspect"), "{act}: {}", outcome.log);
        assert!(!outcome.log.contains("panicked at"), "{act}: {}", outcome.log);
    }
    let config = "[plugin.config]\non = \"configure\"\ndo = \"fault\"";
    let outcome = refused(&site, with(&component("test/misbehave"), config)).await;
    for pointer in ["/on", "/do"] {
        assert!(outcome.log.contains(pointer), "{}", outcome.log);
    }
}
