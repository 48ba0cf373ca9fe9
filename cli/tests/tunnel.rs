//! `adit tunnel` and `adit edge` as scripts meet them: every command, how it fails, and with which exit code.
//! 0 done, 1 meant well and failed, 2 what was given is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

const ID: &str = "f0b1d4d0-1111-4222-8333-444455556666";
/// Of that tunnel, in no account.
const TOKEN: &str = "eyJhIjoiMCIsInMiOiJBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBPSIsInQiOiJmMGIxZDRkMC0xMTExLTQyMjItODMzMy00NDQ0NTU1NTY2NjYifQ==";

struct Ran {
    code: i32,
    output: String,
    log: String,
}

/// Runs the program where nothing of this machine's own set-up matters.
fn adit(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let ended = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(arguments)
        .env_clear()
        .env("HOME", folder)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        code: ended.status.code().expect("it ends by itself"),
        output: text(ended.stdout),
        log: text(ended.stderr),
    }
}

/// A folder with a cert.pem of an edge, and configurations to fail with.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("a file");
    let made = adit(folder.path(), &["edge", "init", "--zone", "example.com"], &[]);
    assert_eq!(made.code, 0, "{}", made.log);
    write(
        "good.yml",
        "ingress:\n - {hostname: a.example.com, service: 'http://127.0.0.1:1'}\n - service: http_status:404\n",
    );
    write("odd.yml", "x-mine: 1\ntrace-output: t\nurl: http://127.0.0.1:1\n");
    write("typo.yml", "ingres: []\nurl: http://127.0.0.1:1\n");
    write(
        "merged.yml",
        "x: &p {access: {required: true}}\noriginRequest: {<<: *p}\nurl: http://127.0.0.1:1\n",
    );
    write("bad.yml", "ingress: [{hostname: a.example.com, service: 'http://127.0.0.1:1'}]\n");
    write("access.yml", "originRequest: {access: {required: true}}\nurl: http://127.0.0.1:1\n");
    write("broken.yml", "a: [");
    write("host.toml", "[tunnel]\n");
    folder
}

#[test]
fn every_command_fails_with_its_own_exit_code_and_says_why() {
    let folder = folder();
    // Nobody listens there.
    let api = ("TUNNEL_API_URL", "http://127.0.0.1:1");
    let cert = ("TUNNEL_ORIGIN_CERT", "cert.pem");
    let both = &[api, cert][..];
    for (arguments, environment, code, wanted) in [
        (&["bogus"][..], both, 2, "unrecognized subcommand"),
        (&["tunnel"], both, 2, "adit tunnel"),
        (&["tunnel", "bogus"], both, 2, "unrecognized subcommand"),
        (&["tunnel", "--bogus"], both, 2, "unexpected argument"),
        (&["tunnel", "ready", "--bogus"], both, 2, "unexpected argument"),
        (&["tunnel", "create"], both, 2, "required"),
        (&["tunnel", "create", "a", "b"], both, 2, "unexpected argument"),
        (&["tunnel", "create", ID], both, 2, "must not look like"),
        (&["tunnel", "create", "a", "--secret", "%"], both, 2, "not base64"),
        (&["tunnel", "create", "a", "--secret", "c2hvcnQ="], both, 2, "at least 32 bytes"),
        (&["tunnel", "create", "a"], &[cert], 2, "--api-url"),
        (&["tunnel", "create", "a"], &[api], 2, "no cert.pem"),
        (&["tunnel", "create", "a"], both, 1, "creating the tunnel"),
        (&["tunnel", "--origincert", "none.pem", "list"], both, 2, "none.pem"),
        (&["tunnel", "--origincert", "edge.toml", "list"], both, 2, "edge.toml"),
        (&["tunnel", "--api-url", "ftp://a", "list"], both, 2, "http://"),
        (&["tunnel", "list"], both, 1, "listing tunnels"),
        (&["tunnel", "list", "--when", "garbage"], both, 2, "2026-01-31T12:00:00Z"),
        (&["tunnel", "list", "--when", "2026-01-31T12:00:00+01:00"], both, 1, "listing tunnels"),
        (&["tunnel", "--url", "http://127.0.0.1:1/path"], both, 2, "--url: a service has no path"),
        (
            &["tunnel", "--url", "ftp://127.0.0.1"],
            both,
            2,
            "--url: a service of the scheme `ftp` needs a port",
        ),
        (&["tunnel", "list", "--sort-by", "bad"], both, 2, "invalid value"),
        (&["tunnel", "list", "--output", "xml"], both, 2, "invalid value"),
        (&["tunnel", "info"], both, 2, "required"),
        (&["tunnel", "info", "a"], both, 1, "listing tunnels"),
        (&["tunnel", "delete"], both, 2, "required"),
        (&["tunnel", "delete", ID], both, 1, "looking at the tunnel"),
        (&["tunnel", "cleanup", ID], both, 1, "cleaning up"),
        (&["tunnel", "cleanup", ID, "--connector-id", "x"], both, 2, "invalid value"),
        (&["tunnel", "token", ID], both, 1, "fetching the token"),
        (&["tunnel", "route"], both, 2, "dns"),
        (&["tunnel", "route", "dns", "a"], both, 2, "required"),
        (&["tunnel", "route", "dns", ID, "a.example.com"], both, 1, "adding the route"),
        (&["tunnel", "login"], both, 1, "there already"),
        (&["tunnel", "--origincert", "new.pem", "login"], both, 1, "no API token"),
        (&["tunnel", "run"], both, 2, "say which tunnel"),
        (&["tunnel", "run", ID], both, 2, "--credentials-file says where it is"),
        (&["tunnel", "run", "a"], both, 1, "listing tunnels"),
        (&["tunnel", "run", "--token", "%"], both, 2, "--token"),
        (&["tunnel", "run", "--credentials-contents", "{}"], both, 2, "--credentials-contents"),
        (&["tunnel", "run", "--credentials-file", "none.json"], both, 2, "none.json"),
        (&["tunnel", "run", "--config", "none.toml"], both, 2, "none.toml"),
        (&["tunnel", "run", "--config", "host.toml"], both, 2, "credentials-file"),
        (&["tunnel", "run", "--config", "host.toml", "a"], both, 2, "leave the tunnel"),
        (&["tunnel", "--config", "broken.yml", "run", "a"], both, 2, "broken.yml"),
        (&["tunnel", "--url", "http://127.0.0.1:1"], &[cert], 2, "--api-url"),
        (&["tunnel", "--url", "http://127.0.0.1:1"], both, 1, "making a quick tunnel"),
        (&["tunnel", "ready", "--admin", "127.0.0.1:1"], both, 2, "asking http://127.0.0.1:1/readyz"),
        (&["tunnel", "ready", "--metrics", "127.0.0.1:1"], both, 2, "asking http://127.0.0.1:1/readyz"),
        (&["tunnel", "ingress", "validate"], both, 2, "--config says where it is"),
        (&["tunnel", "--config", "none.yml", "ingress", "validate"], both, 2, "none.yml"),
        (&["tunnel", "--config", "bad.yml", "ingress", "validate"], both, 2, "last rule"),
        (
            &["tunnel", "--config", "access.yml", "ingress", "validate"],
            both,
            2,
            "access.yml:1:17: originRequest.access: ",
        ),
        (
            &["tunnel", "--config", "merged.yml", "ingress", "validate"],
            both,
            2,
            "merged.yml:1:8: originRequest.access: ",
        ),
        (
            &["tunnel", "--config", "typo.yml", "ingress", "validate"],
            both,
            2,
            "typo.yml:1:1: ingres: not known; did you mean `ingress`",
        ),
        (
            &["tunnel", "ingress", "validate", "--json", "{\"ingress\": 7}"],
            both,
            2,
            "--json:1:2: ingress: not a list",
        ),
        (&["tunnel", "--hostname", "a.example.com"], both, 2, "--hostname needs --name"),
        (
            &["tunnel", "--post-quantum", "--protocol", "http2", "run", "--token", TOKEN],
            both,
            2,
            "by QUIC only",
        ),
        (&["tunnel", "--loglevel", "loud", "run"], both, 2, "is no level"),
        (&["tunnel", "--no-tls-verify=maybe", "run"], both, 2, "neither true nor false"),
        (&["--no-autoupdate", "tunnel", "run", "--token", "%"], both, 2, "--token"),
        (&["--url", "http://127.0.0.1:1"], &[cert], 2, "--api-url"),
        (&["tunnel", "--config", "good.yml", "ingress", "rule", "x y"], both, 2, "is no URL"),
        (&["edge", "init"], both, 2, "required"),
        (&["edge", "init", "--zone", "example.com"], both, 1, "cert.pem is there already"),
        (&["edge", "init", "--zone", "*.x", "--cert", "new.pem"], both, 1, "is no domain"),
        (&["edge", "token", "list", "--config", "none.toml"], both, 2, "none.toml"),
        (&["edge", "token", "revoke", "none"], both, 1, "there is no token"),
        (&["edge", "token", "create", "--zone", "none.org"], both, 1, "is no zone"),
        (&["edge", "token", "create", "--valid-for", "soon"], both, 2, "number with its unit"),
        (&["edge", "backup", "edge.toml"], both, 1, "edge.toml"),
        (&["edge", "accounts", "create", "main"], both, 1, "an account `main` already"),
        (&["edge", "records", "list", "--zone", "none.org"], both, 1, "no zone `none.org`"),
        (&["edge", "records", "delete", "none.example.com"], both, 1, "no record"),
        (&["service", "install", "--config", "none.toml", "--print"], both, 2, "none.toml"),
        (&["completions", "tcsh"], both, 2, "invalid value"),
    ] {
        let ran = adit(folder.path(), arguments, environment);
        assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.output, ran.log);
        assert!(ran.log.contains(wanted), "{arguments:?}: {wanted:?} is not in: {}", ran.log);
        assert!(!ran.log.contains("adit_"), "{arguments:?} shows a token: {}", ran.log);
    }
}

#[test]
fn what_needs_no_edge_is_done() {
    let folder = folder();
    let done = |arguments: &[&str]| {
        let ran = adit(folder.path(), arguments, &[]);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.log);
        ran.output
    };
    assert!(done(&["tunnel", "--config", "good.yml", "ingress", "validate"]).ends_with("OK\n"));
    let before = fs::read(folder.path().join("cert.pem")).unwrap();
    assert!(done(&["edge", "init", "--zone", "example.com", "--if-missing"]).contains("nothing was changed"));
    assert_eq!(fs::read(folder.path().join("cert.pem")).unwrap(), before);
    let odd = done(&["tunnel", "ingress", "validate", "--config", "odd.yml"]);
    assert!(odd.contains("warning: 1:1: `x-mine` is not known") && odd.ends_with("OK\n"), "{odd}");
    assert!(odd.contains("warning: 2:1: `trace-output` has no effect: "), "{odd}");
    let json = r#"{"ingress": [{"service": "http_status:404"}]}"#;
    assert!(done(&["tunnel", "ingress", "validate", "--json", json]).ends_with("OK\n"));
    for line in [&["version"][..], &["-v"]] {
        assert!(done(line).starts_with("adit "), "{line:?}");
    }
    let number = done(&["--no-autoupdate", "version", "--short"]);
    assert_eq!(number.trim_end(), env!("CARGO_PKG_VERSION"));
    for (url, wanted) in [
        (
            "https://A.Example.com/x",
            "Matched rule #0\n\thostname: a.example.com\n\tservice: http://127.0.0.1:1",
        ),
        ("https://b.example.com/", "Matched rule #1\n\thostname: *\n\tservice: http_status:404"),
    ] {
        let rule = done(&["tunnel", "--config", "good.yml", "ingress", "rule", url]);
        assert!(rule.contains(wanted), "{rule}");
    }
    let token = done(&["edge", "token", "create", "--name", "ci", "--read-only", "--valid-for", "30d"]);
    assert!(token.starts_with("adit_"), "{token}");
    let list = done(&["edge", "token", "list"]);
    assert!(list.contains("account, read only") && !list.contains(token.trim()), "{list}");
    let tokens: serde_json::Value =
        serde_json::from_str(&done(&["edge", "token", "list", "-o", "json"])).expect("JSON");
    done(&["edge", "token", "revoke", tokens[1]["id"].as_str().expect("an id")]);
    assert!(done(&["edge", "token", "list"]).contains("revoked"));
    done(&["edge", "add-zone", "more.example.org"]);
    let json = |arguments: &[&str]| -> serde_json::Value {
        let text = done(&[&["edge"], arguments, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    };
    let account = json(&["accounts", "create", "other"]);
    assert_eq!(json(&["add-zone", "other.example.org", "--account", "other"])["account"], account["id"]);
    let accounts = json(&["accounts", "list"]);
    assert_eq!(accounts[1]["zones"], serde_json::json!(["other.example.org"]));
    assert!(done(&["edge", "accounts", "list"]).contains("example.com, more.example.org"));
    assert_eq!(json(&["records", "list", "--zone", "example.com"]), serde_json::json!([]));
    assert!(done(&["edge", "records", "list"]).starts_with("NAME"));
    let made = json(&["token", "create", "--account", "other"]);
    assert!(made["token"].as_str().expect("a text").starts_with("adit_"));
    assert_eq!(json(&["token", "revoke", made["id"].as_str().expect("an id")])["status"], "revoked");
    assert_eq!(json(&["init", "--zone", "example.com", "--if-missing"])["changed"], false);
    assert_eq!(json(&["backup", "other.db"])["file"], "other.db");
    assert!(json(&["audit", "-n", "1"])[0]["revision"].is_number());
    done(&["edge", "backup", "copy.db"]);
    let audit = done(&["edge", "audit"]);
    assert!(audit.contains("token.revoke") && audit.contains("zone.create"), "{audit}");
    for secret in ["cert.pem", "copy.db", "edge-data/state.db"] {
        let mode = fs::metadata(folder.path().join(secret)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{secret} is for its owner only");
    }
    let unit = done(&["service", "install", "edge", "--config", "edge.toml", "--print"]);
    assert!(unit.contains("edge run --config") && unit.contains("RestartPreventExitStatus=2"), "{unit}");
    assert!(done(&["completions", "bash"]).contains("tunnel"));
    done(&["man", "man"]);
    assert!(folder.path().join("man/adit-tunnel-create.1").exists());
}
