//! Every fenced example of a page is taken by what it is for.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use clap::Parser;
use serde_json::Value;

use super::pages::{self, Fence, root};
use crate::{Arguments, Command, Failure, line};

/// Examples that nothing reads, by their first words, and why.
const UNREAD: &[(&str, &str)] = &[
    ("_v2-origintunneld._tcp", "records of a name server"),
    ("client = Cloudflare(", "for an SDK, which the tests of the control API run"),
    ("provider \"cloudflare\" {", "for Terraform, which was not run"),
    ("FAILED  it answers at /hello itself", "what a tool of another chapter prints"),
];

/// Programs of others, and of the shell.
const OTHERS: &[&str] = &[
    ".venv/bin/pip",
    "base64",
    "cd",
    "curl",
    "dpkg",
    "export",
    "helm",
    "jq",
    "kill",
    "kubectl",
    "npm",
    "npx",
    "openssl",
    "podman",
    "printf",
    "python3",
    "rustup",
    "sha256sum",
    "skopeo",
    "ssh",
    "systemctl",
    "target/aarch64-unknown-linux-gnu/release/adit-release",
];

#[test]
fn every_example_of_a_page_is_taken() {
    let bench = Bench::new();
    let mut wrong = Vec::new();
    let mut unread: Vec<&str> = UNREAD.iter().map(|(beginning, _)| *beginning).collect();
    let mut seen = 0;
    for fence in pages::fences() {
        seen += 1;
        let before = unread.len();
        unread.retain(|beginning| !fence.text.starts_with(beginning));
        let outcome = match fence.kind.as_str() {
            _ if unread.len() < before => Ok(()),
            "console" => console(&fence),
            "toml" => bench.toml(&fence),
            "yaml" => bench.yaml(&fence),
            "ini" => unit(&fence),
            "json" => serde_json::from_str(&fence.text).map(|_: Value| ()).map_err(|error| error.to_string()),
            kind => Err(format!("nothing reads an example of the kind {kind:?}")),
        };
        if let Err(why) = outcome {
            wrong.push(format!("{}: {why}", fence.place));
        }
    }
    assert!(seen > 40, "{seen} examples");
    assert!(unread.is_empty(), "these need no exception any more: {unread:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each line behind a `$`, or `#` of an administrator: ours as the command line reads it, those of others by their name.
fn console(fence: &Fence) -> Result<(), String> {
    let tasks = fs::read_to_string(root().join("xtask/src/main.rs")).expect("xtask has a help");
    let text = fence.text.replace("\\\n", " ");
    for line in text.lines().filter_map(|line| line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "))) {
        for words in commands(line) {
            let is_setting = |word: &&str| word.split_once('=').is_some_and(|(name, _)| name == "RUSTFLAGS");
            let words: Vec<&str> = words.iter().map(String::as_str).skip_while(is_setting).collect();
            match words[..] {
                ["adit" | "cloudflared", ref words @ ..] => {
                    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
                    let arranged = line::arranged(words, |_| None);
                    Arguments::try_parse_from(std::iter::once("adit".into()).chain(arranged))
                        .map_err(|error| format!("{line}\n{error}"))?;
                }
                ["cargo", "xtask", task, ..] => {
                    if !tasks.contains(&format!("\n  {task} ")) {
                        return Err(format!("{line}: there is no such task"));
                    }
                }
                ["cargo", "build", ..] => {}
                [program, ..] if OTHERS.contains(&program) => {}
                _ => return Err(format!("{line}: whose program is this?")),
            }
        }
    }
    Ok(())
}

/// The commands of a line of a shell, each as its words.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    for part in words.split(|word| ["&&", "|", "&", ";"].contains(&word.as_str())) {
        let command: Vec<String> = part.iter().take_while(|word| *word != ">").cloned().collect();
        if !command.is_empty() {
            commands.push(command);
        }
    }
    commands
}

#[test]
fn an_edge_that_is_set_up_with_an_authority_can_start_with_what_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (config, cert) = (path("edge.toml"), path("cert.pem"));
    let told = ["edge", "init", "--zone", "example.com", "--config", &config, "--cert", &cert, "--acme"];
    run(&[&told[..], &["you@example.com"]].concat());
    let text = fs::read_to_string(&config).expect("it was written");
    for part in ["https = \"0.0.0.0:443\"", "[acme]\nemail = \"you@example.com\"", "\"0.0.0.0:7844\""] {
        assert!(text.contains(part), "{text}");
    }
    run(&["edge", "check", &config]);
}

/// A folder with the files that examples name.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().expect("a folder") };
        let path = |name: &str| bench.folder.path().join(name).display().to_string();
        let (edge, cert) = (path("made.toml"), path("cert.pem"));
        run(&["edge", "init", "--zone", "example.com", "--config", &edge, "--cert", &cert]);
        run(&["edge", "credentials", "--output", &path("demo.json")]);
        let made = |name: &str| bench.folder.path().join("edge-data").join(name);
        for name in ["ca.pem", "api.pem", "staff-ca.pem"] {
            fs::copy(made("ca.pem"), path(name)).expect("an authority was made");
        }
        fs::copy(made("seal.key"), path("seal.key")).expect("what seals the state was made");
        fs::copy(made("ca.key"), path("api.key")).expect("an authority was made");
        for name in ["example.com", "shop", "wildcard"] {
            let key = rcgen::KeyPair::generate().expect("a key is made");
            let names = vec![format!("{name}.example.com")];
            let params = rcgen::CertificateParams::new(names).expect("a name is a name");
            let certificate = params.self_signed(&key).expect("a certificate is made");
            bench.write(&format!("{name}.pem"), &certificate.pem());
            bench.write(&format!("{name}.key"), &key.serialize_pem());
        }
        bench
    }

    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file can be written");
        path
    }

    fn toml(&self, fence: &Fence) -> Result<(), String> {
        const OF_AN_EDGE: [&str; 15] = [
            "data-dir",
            "visitors",
            "server",
            "api",
            "drain",
            "connectors",
            "bodies",
            "alerts",
            "geography",
            "certificate",
            "acme",
            "dns",
            "name",
            "node",
            "store",
        ];
        let table: toml::Table = fence.text.parse().map_err(|error| format!("{error}"))?;
        if table.contains_key("case") {
            let path = self.write("tests.toml", &fence.text);
            return crate::plugin::check_cases(&path).map_err(|error| format!("{error:#}"));
        }
        if OF_AN_EDGE.iter().any(|key| table.contains_key(*key)) {
            let mut text = String::new();
            if !table.contains_key("data-dir") {
                text.push_str("data-dir = \"edge-data\"\n");
            }
            text.push_str(&fence.text);
            if !table.contains_key("visitors") {
                text.push_str("\n[visitors]\nhttp = \"127.0.0.1:8080\"\n");
            }
            if !table.contains_key("server") {
                text.push_str("\n[[server]]\nregion = \"west\"\nlisten = \"127.0.0.1:7844\"\n");
            }
            if !table.contains_key("api") && !table.contains_key("tunnel") {
                text.push_str("\n[api]\nlisten = \"127.0.0.1:8787\"\n");
            }
            if table.contains_key("node") && !table.contains_key("store") {
                text.push_str("\n[store]\nurl = \"etcd://localhost:2379/main\"\n");
            }
            let path = self.write("edge.toml", &text);
            return adit_edge::Settings::load(&path).map(|_| ()).map_err(|error| error.to_string());
        }
        let mut text = String::new();
        // Grants are a plugin's.
        if table.contains_key("plugin") && !fence.text.contains("[[plugin]]") {
            text.push_str("[[plugin]]\nname = \"it\"\ncomponent = \"it.wasm\"\n");
        }
        text.push_str(&fence.text.replace("/etc/cloudflared/6f6c2d1e-….json", "demo.json"));
        if !table.contains_key("tunnel") {
            text.push_str("\n[tunnel]\ncredentials-file = \"demo.json\"\nedges = [\"127.0.0.1:7844\"]\n");
        }
        // Chains of an example name plugins of another.
        for name in table.get("ingress").and_then(toml::Value::as_array).into_iter().flatten() {
            for name in name.get("plugins").and_then(toml::Value::as_array).into_iter().flatten() {
                let name = name.as_str().unwrap_or_default();
                if !text.contains(&format!("name = \"{name}\"")) {
                    text.push_str(&format!("\n[[plugin]]\nname = \"{name}\"\ncomponent = \"it.wasm\"\n"));
                }
            }
        }
        let is_catching = |rule: &toml::Value| rule.get("hostname").is_none() && rule.get("path").is_none();
        let rules = table.get("ingress").and_then(toml::Value::as_array);
        if !rules.is_some_and(|rules| rules.last().is_some_and(is_catching)) {
            text.push_str("\n[[ingress]]\nservice = \"http_status:404\"\n");
        }
        self.write("cosign.pub", KEY);
        let path = self.write("host.toml", &text);
        adit_host::config::load(&path).map(|_| ()).map_err(|error| error.to_string())
    }

    fn yaml(&self, fence: &Fence) -> Result<(), String> {
        let value: Value = serde_norway::from_str(&fence.text).map_err(|error| error.to_string())?;
        if fence.place.starts_with("docs/kubernetes.md") {
            let schema = root().join("charts/adit-host/values.schema.json");
            let schema = fs::read_to_string(schema).expect("the chart has a schema");
            let schema: Value = serde_json::from_str(&schema).expect("a schema is JSON");
            return unknown(&value, &schema, &schema, "").map_or(Ok(()), Err);
        }
        let id = "6f6c2d1e-0000-4000-8000-000000000000";
        let text = fence.text.replace("/etc/cloudflared/6f6c2d1e-….json", "demo.json");
        let path = self.write("config.yml", &text.replace("6f6c2d1e-…", id));
        let refused = outcome(&["tunnel", "--config", &path.display().to_string(), "ingress", "validate"]);
        match (refused, fence.text.contains("required: true")) {
            // What the page is about: the refusal says what to write.
            (Err(why), true) if why.contains("jwt") => Ok(()),
            (Ok(()), false) => Ok(()),
            (outcome, _) => Err(format!("{outcome:?}")),
        }
    }
}

/// What a value has that a schema of a chart does not know.
fn unknown(value: &Value, schema: &Value, whole: &Value, at: &str) -> Option<String> {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => whole.pointer(reference.trim_start_matches('#'))?,
        None => schema,
    };
    match value {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let at = format!("{at}/{name}");
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(below), _) => unknown(value, below, whole, &at),
                (None, Value::Bool(false)) => Some(format!("the chart has no value {at}")),
                (None, _) => None,
            }
        }),
        Value::Array(all) => all.iter().find_map(|value| unknown(value, &schema["items"], whole, at)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Lines of a unit are those that `service install` writes.
fn unit(fence: &Fence) -> Result<(), String> {
    let command = "tunnel run --config /etc/adit/host.toml";
    let written = crate::service::unit(crate::service::End::Tunnel, Path::new("/usr/bin/adit"), command, "")
        .map_err(|error| error.to_string())?
        .replace('"', "");
    let strange = fence
        .text
        .lines()
        .find(|line| !line.starts_with('#') && !written.lines().any(|known| known == *line));
    strange.map_or(Ok(()), |line| Err(format!("no unit of ours has this line: {line}")))
}

fn run(words: &[&str]) {
    outcome(words).unwrap_or_else(|why| panic!("{words:?}: {why}"));
}

/// What a command of ours comes to.
// Examples run four of many.
#[allow(clippy::wildcard_enum_match_arm)]
fn outcome(words: &[&str]) -> Result<(), String> {
    let arguments =
        Arguments::try_parse_from([&["adit"], words].concat()).map_err(|error| error.to_string())?;
    let outcome = match arguments.command {
        Command::Tunnel(mut tunnel) => tunnel.prepare().and_then(|()| crate::tunnel::run(*tunnel, false)),
        Command::Edge(crate::Edge::Init(init)) => crate::office::init(init),
        Command::Edge(crate::Edge::Check { config }) => crate::edge::check(&config),
        Command::Edge(crate::Edge::Credentials { output }) => crate::credentials::create(&output),
        _ => return Err("no example runs this".to_owned()),
    };
    outcome.map_err(|failure| match failure {
        Failure::Configuration(error) | Failure::Running(error) => format!("{error:#}"),
    })
}

/// A public key as cosign writes it (an example of RFC 6979, A.2.5).
const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYP7UuiVanTHJYet0xjVtaMBJuJI7
Yfps5mliLmDyn7Z5A/4QCLi8maQa6elWKLxk8vGyDC1+n1F3o8KU1EYimQ==
-----END PUBLIC KEY-----
";
