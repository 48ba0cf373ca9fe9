//! A plugin that cannot be loaded is refused before anything serves, with its name and the reason.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use e2e::document::HostDocument;
use e2e::process::{Outcome, Process, adit, component};
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

fn with(component: &Path, more: &str) -> HostDocument {
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

#[tokio::test]
async fn what_a_component_asks_for_and_is_not_granted_refuses_it_with_the_list() {
    let site = Site::new();
    let outcome = refused(&site, with(&component("test/toolbox"), "")).await;
    for asked in ["adit:plugin/secret", "adit:plugin/key-value", "adit:plugin/http-client", "[plugin.grants]"]
    {
        assert!(outcome.log.contains(asked), "{asked}: {}", outcome.log);
    }
    let grants = "[plugin.grants]\nhttp = [\"http://127.0.0.1:9\"]\nsecrets = { key = { file = \"absent.txt\" } }\nbuckets = { seen = \"1MiB\" }";
    let outcome = refused(&site, with(&component("test/toolbox"), grants)).await;
    assert!(outcome.log.contains("absent.txt") && outcome.log.contains("suspect"), "{}", outcome.log);
}

#[tokio::test]
async fn a_component_in_a_role_that_it_does_not_have_is_refused_with_the_way_out() {
    let site = Site::new();
    let outcome = refused(&site, with(&component("test/service"), "")).await;
    assert!(outcome.log.contains("wasm:suspect"), "{}", outcome.log);
    let host =
        HostDocument::new().plugin("suspect", &component("headers"), "").rule("service = \"wasm:suspect\"");
    let outcome = refused(&site, host).await;
    assert!(outcome.log.contains("is a filter") && outcome.log.contains("plugins = "), "{}", outcome.log);
    let middleware = component("test/middleware");
    let outcome = refused(&site, with(&middleware, "")).await;
    assert!(outcome.log.contains("experimental = true"), "{}", outcome.log);
    let host = HostDocument::new()
        .plugin("suspect", &middleware, "experimental = true")
        .rule("service = \"wasm:suspect\"");
    let outcome = refused(&site, host).await;
    assert!(outcome.log.contains("is middleware") && outcome.log.contains("plugins = "), "{}", outcome.log);
    let outcome = refused(&site, with(&middleware, "experimental = true\non-error = \"skip\"")).await;
    assert!(outcome.log.contains("leave on-error"), "{}", outcome.log);
    let host =
        HostDocument::new().plugin("suspect", &component("headers"), "").rule("service = \"wasm:suspekt\"");
    let outcome = refused(&site, host).await;
    assert!(outcome.log.contains("did you mean `suspect`"), "{}", outcome.log);
}

/// What `config check` says of a good plugin, at every level of detail, with a cache in this folder.
async fn checked(site: &Site, cache: &Path) -> String {
    let mut command = Command::new(adit());
    command.args(["--log", "debug", "config", "check", "host.toml"]);
    command.current_dir(site.folder()).env("XDG_CACHE_HOME", cache);
    let process = Process::start("adit", command);
    assert!(process.exit().await.success(), "{}", process.log());
    process.log()
}

#[tokio::test]
async fn a_child_compiles_and_what_it_made_is_kept_for_this_user_and_used_again() {
    let site = Site::new();
    site.write("edge-ca.pem", e2e::certificate::Certificate::new(&["quic.cftunnel.com"]).ca_pem);
    let host = HostDocument { edge_ca: "edge-ca.pem".into(), ..with(&component("headers"), "") };
    site.write("host.toml", host.to_toml(&["127.0.0.1:1".parse().unwrap()]));
    let cache = site.path("cache");
    let (fresh, kept) = ("is ready plugin=\"suspect\" kept=false", "is ready plugin=\"suspect\" kept=true");
    let log = checked(&site, &cache).await;
    assert!(log.contains(fresh), "{log}");
    let log = checked(&site, &cache).await;
    assert!(log.contains(kept), "{log}");

    let folder = cache.join("adit/plugins");
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    let mut code = std::fs::read(file).unwrap();
    let middle = code.len() / 2;
    code[middle] ^= 1;
    std::fs::write(file, code).unwrap();
    let log = checked(&site, &cache).await;
    assert!(log.contains("this machine code is not used") && log.contains(fresh), "{log}");
    let log = checked(&site, &cache).await;
    assert!(log.contains(kept), "{log}");

    // What others could write to is no place for code.
    std::fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let log = checked(&site, &cache).await;
    assert!(log.contains("compiled plugins are not kept") && log.contains(fresh), "{log}");
}

#[tokio::test]
async fn a_component_can_be_looked_at_and_tried_without_a_configuration() {
    let site = Site::new();
    let check = async |name: &str| {
        let path = component(name).display().to_string();
        Process::run(&["plugin", "check", &path], site.folder(), "").await
    };
    let toolbox = check("test/toolbox").await;
    assert_eq!(toolbox.code, Some(0), "{toolbox:?}");
    for said in [
        ": filter\n",
        "toolbox 0.1.0",
        "x-do",
        "\"probe\"",
        "secrets (for adit:plugin/secret",
        "adit:plugin/ticker@0.1.0",
        "compiled in",
        "KiB",
    ] {
        assert!(toolbox.output.contains(said), "{said}: {}", toolbox.output);
    }
    let service = check("test/service").await;
    assert!(service.output.contains(": service\n"), "{service:?}");
    assert!(service.output.contains("wasi:http/incoming-handler@0.2"), "{service:?}");
    for (name, role) in [("test/service3", ": service\n"), ("test/middleware", ": middleware\n")] {
        let newer = check(name).await;
        assert!(newer.output.contains(role) && newer.output.contains("experimental = true"), "{newer:?}");
    }
    let text = site.write("text.wasm", "this is a text");
    let refused = Process::run(&["plugin", "check", &text.display().to_string()], site.folder(), "").await;
    assert!(refused.code == Some(2) && refused.log.contains("text.wasm"), "{refused:?}");

    let run = async |name: &str, more: &[&str]| {
        let path = component(name).display().to_string();
        let arguments: Vec<&str> = ["plugin", "run", &path].iter().chain(more).copied().collect();
        Process::run(&arguments, site.folder(), "").await
    };
    let headers = run("headers", &["--config", r#"{"request": {"set": {"x-mark": "yes"}}}"#]).await;
    assert!(headers.code == Some(0) && headers.output.contains("x-mark: yes"), "{headers:?}");
    let replied = run("test/misbehave", &["--header", "x-misbehave: respond"]).await;
    assert!(replied.output.contains("answers itself") && replied.output.contains("418"), "{replied:?}");
    let trapped = run("test/misbehave", &["--header", "x-misbehave: trap"]).await;
    assert!(trapped.code == Some(1) && trapped.log.contains("trap"), "{trapped:?}");
    let served = run("test/service", &["--url", "http://a.example/teapot"]).await;
    assert!(served.code == Some(0) && served.output.contains("418"), "{served:?}");
}
