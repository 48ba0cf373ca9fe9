//! What scripts rely on: exit codes, which stream says what, files and their modes.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

fn adit(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // A program that does not read its input closes it, which is no failure here.
    let _ = child.stdin.take().expect("standard input is a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("the program ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn bad_usage_exits_2_and_says_what_was_wrong_on_standard_error() {
    for (arguments, said) in [
        (&["--bogus"][..], "--bogus"),
        (&["tunnel", "run"], "--config"),
        (&["tunnel", "run", "--config", "no-such-file.toml"], "no-such-file.toml"),
        (&["tunnel", "run", "--config", "x.toml", "--protocol", "h3"], "possible values: auto, quic, http2"),
        (&["edge", "run", "--config", "no-such-file.toml"], "no-such-file.toml"),
        (&["config", "check", "no-such-file.toml"], "no-such-file.toml"),
        (&["edge", "run", "--bogus"], "--bogus"),
        (&["bogus"], "bogus"),
        (&["--log", "loud=loudest", "hash-password"], "--log"),
        (&["demo", "--plugins", "no-such-folder"], "no-such-folder"),
    ] {
        let output = adit(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

#[test]
fn a_flag_takes_the_place_of_a_key_and_keeps_to_its_rules() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("a path in UTF-8").to_owned();
    assert_eq!(adit(&["edge", "credentials", "--output", &at("demo.json")], "").status.code(), Some(0));
    let document = "[tunnel]\ncredentials-file = \"demo.json\"\nedges = [\"127.0.0.1:1\"]\n\
                    grace-period = \"1s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                    [[ingress]]\nservice = \"hello_world\"\n";
    std::fs::write(at("host.toml"), document).expect("the folder can be written to");
    let document = at("host.toml");
    for (flags, said) in [
        (&["--edge", "edge.example.com"][..], "--edge: the port of this edge server is missing"),
        (&["--edge", "a:1,A:1,a"], "--edge: the port of this edge server is missing"),
        (
            &["--edge", "a:1", "--region", "us", "--edge-ip-version", "5"],
            "--region has no effect beside --edge",
        ),
        (&["--edge-ip-version", "5"], "--edge-ip-version: this is not an IP version"),
        (&["--edge-bind-address", "here"], "--edge-bind-address: this is not an IP address"),
        (&["--grace-period", "4m"], "--grace-period: 4m is out of range, expected 0s to 3m"),
        (&["--grace-period", "soon"], "--grace-period: this is not a duration"),
        (&["--exit-after-unconnected", "0s"], "--exit-after-unconnected: 0s is out of range"),
    ] {
        let arguments = [&["tunnel", "run", "--config", document.as_str()], flags].concat();
        let output = adit(&arguments, "");
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(text(&output.stderr).contains(said), "{flags:?}: {}", text(&output.stderr));
    }
}

#[test]
fn what_a_check_calls_good_a_host_can_begin_with_and_no_file_holds_either_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("a path in UTF-8").to_owned();
    assert_eq!(adit(&["edge", "credentials", "--output", &at("demo.json")], "").status.code(), Some(0));
    assert!(Command::new("mkfifo").arg(at("pipe")).status().expect("mkfifo runs").success());
    std::fs::write(at("file"), "").expect("the folder can be written to");
    for (change, instead, said) in [
        ("edges", "edge-ca = \"absent.pem\"\nedges", "tunnel.edge-ca: the edge's CA certificates: reading"),
        ("edges", "edge-ca = \"file\"\nedges", "tunnel.edge-ca: "),
        ("edges", "edge-ca = \"/dev/zero\"\nedges", "not a regular file"),
        ("demo.json", "pipe", "not a regular file"),
        ("demo.json", "/dev/zero", "not a regular file"),
        ("[tunnel]", "state-dir = \"file\"\n[tunnel]", "the state folder"),
    ] {
        let document = "[tunnel]\ncredentials-file = \"demo.json\"\nedges = [\"127.0.0.1:1\"]\n\
                        [admin]\nlisten = \"127.0.0.1:0\"\n[[ingress]]\nservice = \"hello_world\"\n";
        std::fs::write(at("host.toml"), document.replacen(change, instead, 1)).expect("it can be written");
        for arguments in [&["config", "check"][..], &["tunnel", "run", "--config"]] {
            let output = adit(&[arguments, &[at("host.toml").as_str()]].concat(), "");
            assert_eq!(output.status.code(), Some(2), "{arguments:?} {instead}");
            assert!(text(&output.stderr).contains(said), "{arguments:?} {instead}: {}", text(&output.stderr));
        }
    }
    // Nor does the document itself, in any of its forms.
    for name in ["host.toml", "config.yml", "edge.toml"] {
        for device in [at("pipe"), "/dev/zero".to_owned()] {
            let _ = std::fs::remove_file(at(name));
            std::os::unix::fs::symlink(&device, at(name)).expect("the folder can be written to");
            let commands: &[&[&str]] = match name {
                "edge.toml" => &[&["edge", "run", "--config"]],
                _ => &[&["config", "check"], &["tunnel", "run", "--config"]],
            };
            for arguments in commands {
                let output = adit(&[*arguments, &[at(name).as_str()][..]].concat(), "");
                assert_eq!(output.status.code(), Some(2), "{arguments:?} {name}");
                let said = text(&output.stderr);
                assert!(
                    said.contains(name) && said.contains("not a regular file"),
                    "{arguments:?} {name}: {said}"
                );
            }
        }
    }
}

#[test]
fn a_host_that_finds_no_edge_for_long_enough_gives_up_if_it_was_told_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("a path in UTF-8").to_owned();
    assert_eq!(adit(&["edge", "credentials", "--output", &at("demo.json")], "").status.code(), Some(0));
    let document = "[tunnel]\ncredentials-file = \"demo.json\"\nedges = [\"127.0.0.1:1\"]\n\
                    [admin]\nlisten = \"127.0.0.1:0\"\n[[ingress]]\nservice = \"hello_world\"\n";
    std::fs::write(at("host.toml"), document).expect("the folder can be written to");
    let document = at("host.toml");
    let output = adit(&["tunnel", "run", "--config", &document, "--exit-after-unconnected", "1s"], "");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("adit: no connection to the edge for 1s"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn help_and_version_go_to_standard_output_and_exit_0() {
    for (arguments, said) in [
        (&["--help"][..], "demo"),
        (&["tunnel", "run", "--help"], "--config"),
        (&["tunnel", "run", "--help"], "TUNNEL_TRANSPORT_PROTOCOL"),
        (&["edge", "--help"], "credentials"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = adit(arguments, "");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains(said), "{arguments:?}");
    }
}

#[test]
fn credentials_are_for_their_owner_only_and_never_overwritten() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("demo.json");
    let arguments = ["edge", "credentials", "--output", file.to_str().expect("a path in UTF-8")];
    let output = adit(&arguments, "");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mode = std::fs::metadata(&file).expect("the file is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o400);
    let before = std::fs::read_to_string(&file).expect("the file can be read");
    let json: serde_json::Value = serde_json::from_str(&before).expect("the file is JSON");
    let id = json["TunnelID"].as_str().expect("it has a tunnel id");
    assert!(text(&output.stdout).contains(id));
    assert!(!text(&output.stdout).contains(json["TunnelSecret"].as_str().expect("it has a secret")));

    let again = adit(&arguments, "");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("demo.json"));
    assert_eq!(std::fs::read_to_string(&file).expect("the file can be read"), before);
}

#[test]
fn a_password_is_read_from_standard_input_and_hashed_with_a_salt_of_its_own() {
    let hash = || text(&adit(&["hash-password"], "correct horse\n").stdout);
    let (one, other) = (hash(), hash());
    assert!(one.starts_with("$pbkdf2-sha256$i="), "{one}");
    assert!(!one.contains("correct horse"));
    assert_ne!(one, other);
    let empty = adit(&["hash-password"], "\n");
    assert_eq!(empty.status.code(), Some(1));
    assert!(text(&empty.stderr).contains("empty"));
}
