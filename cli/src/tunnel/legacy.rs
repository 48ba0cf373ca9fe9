//! The config.yml of cloudflared, and its flags, as a document of ours. What cannot be meant by ours is said
//! as a warning; what would be served less safely is refused. Knows both forms; serves nothing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::{Map, Value};

use super::{Options, places};
use crate::Failure;

/// A config.yml that was read.
pub(super) struct Legacy {
    pub(super) path: PathBuf,
    keys: Map<String, Value>,
}

/// A document of ours.
#[derive(Debug)]
pub(super) struct Translation {
    pub(super) toml: String,
    pub(super) warnings: Vec<String>,
}

/// Who the host is, as a line of the document.
pub(super) enum Proof {
    CredentialsFile(PathBuf),
    TokenFile(PathBuf),
}

/// The config.yml that is meant, if one is: the named one, or the first where cloudflared looks for it. Its
/// top-level flags fill in what neither command line nor environment said.
pub(super) fn find(options: &mut Options) -> Result<Option<Legacy>, Failure> {
    let path = match &options.config {
        Some(path) if is_yaml(path) => path.clone(),
        Some(_) => return Ok(None),
        None => match places::find(&["config.yml", "config.yaml"]) {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    let legacy = Legacy::read(path).map_err(Failure::Configuration)?;
    legacy.fill(options).map_err(Failure::Configuration)?;
    Ok(Some(legacy))
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yml", "yaml", "json"].iter().any(|known| extension == *known))
}

impl Legacy {
    pub(super) fn read(path: PathBuf) -> anyhow::Result<Self> {
        let size = std::fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
        anyhow::ensure!(size <= LONGEST_FILE, "{} is longer than {LONGEST_FILE} bytes", path.display());
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: PathBuf, text: &str) -> anyhow::Result<Self> {
        let value: Option<Value> =
            serde_norway::from_str(text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        match value {
            None | Some(Value::Null) => Ok(Self { path, keys: Map::new() }),
            Some(Value::Object(keys)) => Ok(Self { path, keys }),
            Some(_) => bail!("{} is not a list of keys with values", path.display()),
        }
    }

    /// The tunnel that it is about, by id or name.
    pub(super) fn tunnel(&self) -> Option<String> {
        self.text("tunnel")
    }

    pub(super) fn credentials_file(&self) -> Option<PathBuf> {
        self.text("credentials-file").map(|file| self.beside(&file))
    }

    pub(super) fn url(&self) -> Option<String> {
        self.text("url")
    }

    fn text(&self, key: &str) -> Option<String> {
        match self.keys.get(key)? {
            Value::String(text) => Some(text.clone()),
            other @ (Value::Number(_) | Value::Bool(_)) => Some(other.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn beside(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    fn fill(&self, options: &mut Options) -> anyhow::Result<()> {
        let fill = |option: &mut Option<String>, key: &str| {
            if option.is_none() {
                *option = self.text(key);
            }
        };
        fill(&mut options.api_url, "api-url");
        if options.origin_cert.is_none() {
            options.origin_cert = self.text("origincert").map(|file| self.beside(&file));
        }
        let edge = &mut options.edge;
        for (option, key) in [
            (&mut edge.protocol, "protocol"),
            (&mut edge.region, "region"),
            (&mut edge.edge_ip_version, "edge-ip-version"),
            (&mut edge.edge_bind_address, "edge-bind-address"),
            (&mut edge.grace_period, "grace-period"),
            (&mut edge.metrics, "metrics"),
            (&mut edge.edge_domain, "edge-domain"),
        ] {
            fill(option, key);
        }
        if edge.edge_ca.is_none() {
            edge.edge_ca = self.text("cacert").map(|file| self.beside(&file));
        }
        if edge.connections.is_none()
            && let Some(count) = self.text("ha-connections")
        {
            edge.connections =
                Some(count.parse().with_context(|| format!("`ha-connections: {count}` is no number"))?);
        }
        if edge.edge.is_empty() {
            edge.edge = match self.keys.get("edge") {
                Some(Value::Array(list)) => {
                    list.iter().filter_map(|edge| edge.as_str().map(str::to_owned)).collect()
                }
                Some(Value::String(text)) => text.split(',').map(|edge| edge.trim().to_owned()).collect(),
                _ => Vec::new(),
            };
        }
        Ok(())
    }
}

/// The document that serves what `legacy` and the flags ask for. `url` stands in for rules if there are none.
pub(super) fn translate(
    legacy: Option<&Legacy>,
    proof: &Proof,
    options: &Options,
    url: Option<&str>,
) -> anyhow::Result<Translation> {
    let mut translation = Translation { toml: String::new(), warnings: Vec::new() };
    translation.tunnel(proof, options)?;
    if let Some(legacy) = legacy {
        translation.check_keys(legacy);
    }
    let none = Map::new();
    let keys = legacy.map_or(&none, |legacy| &legacy.keys);
    let global = object(keys.get("originRequest"), "originRequest")?;
    match keys.get("ingress") {
        Some(Value::Array(rules)) if !rules.is_empty() => {
            for (at, rule) in rules.iter().enumerate() {
                let rule = object(Some(rule), &format!("ingress[{at}]"))?.context("a rule has keys")?;
                translation.rule(at, rule, global, legacy)?;
            }
        }
        Some(Value::Null) | None => match url {
            Some(url) => translation.single(url, global, legacy)?,
            None => {
                let warning = "there are no rules and no --url: every request gets 503 until the edge gives this tunnel a configuration";
                translation.warnings.push(warning.to_owned());
                translation.toml.insert_str(0, "config-source = \"remote\"\n");
            }
        },
        Some(_) => bail!("`ingress` is not a list of rules"),
    }
    Ok(translation)
}

impl Translation {
    fn line(&mut self, line: &str) {
        self.toml.push_str(line);
        self.toml.push('\n');
    }

    fn key(&mut self, key: &str, value: &str) {
        // A JSON text is a TOML text, but for one character that neither form shows.
        let text = Value::String(value.to_owned()).to_string().replace('\u{7f}', "\\u007f");
        let _ = writeln!(self.toml, "{key} = {text}");
    }

    fn path(&mut self, key: &str, path: &Path) -> anyhow::Result<()> {
        let absolute = std::path::absolute(path).with_context(|| path.display().to_string())?;
        self.key(key, absolute.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?);
        Ok(())
    }

    fn tunnel(&mut self, proof: &Proof, options: &Options) -> anyhow::Result<()> {
        let edge = &options.edge;
        self.line("[tunnel]");
        match proof {
            Proof::CredentialsFile(path) => self.path("credentials-file", path)?,
            Proof::TokenFile(path) => self.path("token-file", path)?,
        }
        if !edge.edge.is_empty() {
            let mut edges = edge.edge.clone();
            // Repeated for the reference's sake, which wants an entry for each connection.
            let mut seen = std::collections::HashSet::new();
            edges.retain(|edge| seen.insert(edge.clone()));
            let _ = writeln!(self.toml, "edges = {}", serde_json::json!(edges));
        }
        for (key, value) in [
            ("edge-domain", &edge.edge_domain),
            ("edge-region", &edge.region),
            ("edge-ip-version", &edge.edge_ip_version),
            ("edge-bind-address", &edge.edge_bind_address),
            ("protocol", &edge.protocol),
        ] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                self.key(key, value);
            }
        }
        if let Some(ca) = &edge.edge_ca {
            self.path("edge-ca", ca)?;
        }
        if let Some(connections) = edge.connections {
            let _ = writeln!(self.toml, "connections = {connections}");
        }
        if let Some(grace) = &edge.grace_period {
            let grace =
                duration(&Value::String(grace.clone())).with_context(|| format!("`{grace}` is no time"))?;
            self.key("grace-period", &grace);
        }
        self.line("\n[admin]");
        let listen = match &edge.metrics {
            Some(listen) => listen.replace("localhost", "127.0.0.1"),
            None => free_admin_address(),
        };
        self.key("listen", &listen);
        Ok(())
    }

    fn check_keys(&mut self, legacy: &Legacy) {
        for key in legacy.keys.keys() {
            if UNDERSTOOD.contains(&key.as_str()) || MEANINGLESS.contains(&key.as_str()) {
                continue;
            }
            let warning = if NOT_YET.contains(&key.as_str()) {
                format!("`{key}` is not supported here yet and has no effect")
            } else {
                format!("`{key}` is not known and has no effect")
            };
            self.warnings.push(warning);
        }
    }

    fn single(
        &mut self,
        url: &str,
        global: Option<&Map<String, Value>>,
        legacy: Option<&Legacy>,
    ) -> anyhow::Result<()> {
        let mut rule = Map::new();
        // `localhost:8080` is what people write.
        let is_whole = url.contains("://")
            || ["unix:", "http_status:", "hello"].iter().any(|known| url.starts_with(known));
        let url = if is_whole { url.to_owned() } else { format!("http://{url}") };
        rule.insert("service".to_owned(), Value::String(url));
        self.rule(0, &rule, global, legacy)
    }

    fn rule(
        &mut self,
        at: usize,
        rule: &Map<String, Value>,
        global: Option<&Map<String, Value>>,
        legacy: Option<&Legacy>,
    ) -> anyhow::Result<()> {
        let place = format!("ingress[{at}]");
        for key in rule
            .keys()
            .filter(|key| !["hostname", "path", "service", "originRequest"].contains(&key.as_str()))
        {
            self.warnings.push(format!("`{place}.{key}` is not known and has no effect"));
        }
        self.line("\n[[ingress]]");
        for key in ["hostname", "path"] {
            match rule.get(key) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) if text.is_empty() || (key == "hostname" && text == "*") => {}
                Some(Value::String(text)) => self.key(key, text),
                Some(_) => bail!("`{place}.{key}` is no text"),
            }
        }
        let service = rule
            .get("service")
            .and_then(Value::as_str)
            .with_context(|| format!("`{place}.service` is missing"))?;
        let service = self.service(&place, service);
        self.key("service", &service);
        let own = object(rule.get("originRequest"), &format!("{place}.originRequest"))?;
        // A rule's own keys go before those for all.
        let mut merged = global.cloned().unwrap_or_default();
        merged.extend(own.cloned().unwrap_or_default());
        self.origin(
            &place,
            &merged,
            legacy,
            service.starts_with("http:") || service.starts_with("https:") || service.starts_with("unix:"),
        )
    }

    fn service(&mut self, place: &str, service: &str) -> String {
        let scheme = service.split(':').next().unwrap_or_default();
        match (scheme, service) {
            (_, "hello-world" | "hello_world") => "hello_world".to_owned(),
            ("ws", _) => service.replacen("ws:", "http:", 1),
            ("wss", _) => service.replacen("wss:", "https:", 1),
            ("http" | "https" | "unix" | "http_status", _) => service.to_owned(),
            _ => {
                let scheme = scheme.escape_debug();
                self.warnings.push(format!(
                    "`{place}.service`: `{scheme}` services are not supported here yet; its requests get 501"
                ));
                "http_status:501".to_owned()
            }
        }
    }

    fn origin(
        &mut self,
        place: &str,
        keys: &Map<String, Value>,
        legacy: Option<&Legacy>,
        is_http: bool,
    ) -> anyhow::Result<()> {
        let mut lines = Self { toml: String::new(), warnings: Vec::new() };
        for (key, value) in keys {
            let whole = || format!("{place}.originRequest.{key}");
            let time = || duration(value).with_context(|| format!("`{}` is no time", whole()));
            let text = || value.as_str().with_context(|| format!("`{}` is no text", whole()));
            let flag = || value.as_bool().with_context(|| format!("`{}` is neither true nor false", whole()));
            match key.as_str() {
                "connectTimeout" => lines.key("connect-timeout", &time()?),
                "tlsTimeout" => lines.key("tls-timeout", &time()?),
                "keepAliveTimeout" => lines.key("keep-alive-timeout", &time()?),
                "keepAliveConnections" => {
                    let count = value.as_u64().with_context(|| format!("`{}` is no number", whole()))?;
                    let _ = writeln!(lines.toml, "keep-alive-connections = {count}");
                }
                "noTLSVerify" => {
                    let _ = writeln!(lines.toml, "tls-verify = {}", !flag()?);
                }
                "caPool" if !text()?.is_empty() => {
                    let path = legacy.map_or_else(
                        || PathBuf::from(text().unwrap_or_default()),
                        |legacy| legacy.beside(text().unwrap_or_default()),
                    );
                    lines.path("ca-file", &path)?;
                }
                "originServerName" if !text()?.is_empty() => lines.key("server-name", text()?),
                "httpHostHeader" if !text()?.is_empty() => lines.key("host-header", text()?),
                "access" => {
                    let required = value.get("required").and_then(Value::as_bool);
                    if value.is_object() && required != Some(false) {
                        bail!(
                            "`{}`: this host cannot check Access tokens yet, so it refuses to serve what they protect",
                            whole()
                        );
                    }
                }
                "caPool" | "originServerName" | "httpHostHeader" => {}
                "bastionMode"
                | "noHappyEyeballs"
                | "disableChunkedEncoding"
                | "http2Origin"
                | "matchSNItoHost"
                    if !flag()? => {}
                "proxyType" if text()?.is_empty() => {}
                "proxyPort" | "proxyAddress" => {}
                known if ORIGIN_NOT_YET.contains(&known) => {
                    self.warnings.push(format!("`{}` is not supported here yet and has no effect", whole()));
                }
                _ => self.warnings.push(format!("`{}` is not known and has no effect", whole())),
            }
        }
        if is_http && !lines.toml.is_empty() {
            self.line("[ingress.origin]");
            self.toml.push_str(&lines.toml);
        }
        Ok(())
    }
}

fn object<'v>(value: Option<&'v Value>, place: &str) -> anyhow::Result<Option<&'v Map<String, Value>>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(keys)) => Ok(Some(keys)),
        Some(_) => bail!("`{place}` is not a list of keys with values"),
    }
}

/// A time of Go ("1m30s"), or a number of seconds, in our form.
fn duration(value: &Value) -> Option<String> {
    let time = match value {
        Value::Number(seconds) => Duration::from_secs(seconds.as_u64()?),
        Value::String(text) => go_duration(text)?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(format!("{}ms", time.as_millis()))
}

fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    (!text.is_empty() && total < LONGEST_TIME).then(|| Duration::from_secs_f64(total))
}

/// The first of cloudflared's own addresses that is free, so that two hosts run on one machine.
fn free_admin_address() -> String {
    let mut ports = 20241..=20245;
    let free = ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    format!("127.0.0.1:{}", free.unwrap_or(0))
}

/// Keys that are read somewhere here.
const UNDERSTOOD: &[&str] = &[
    "tunnel",
    "credentials-file",
    "ingress",
    "originRequest",
    "url",
    "api-url",
    "origincert",
    "edge",
    "edge-domain",
    "cacert",
    "protocol",
    "region",
    "edge-ip-version",
    "edge-bind-address",
    "ha-connections",
    "grace-period",
    "metrics",
];
/// Keys that say what is so anyway: this program never updates itself, and asks nobody before it starts.
const MEANINGLESS: &[&str] = &["no-autoupdate", "autoupdate-freq", "no-prechecks", "retries"];
const NOT_YET: &[&str] = &[
    "warp-routing",
    "loglevel",
    "logfile",
    "log-directory",
    "transport-loglevel",
    "output",
    "pidfile",
    "tag",
    "label",
    "post-quantum",
    "hello-world",
    "hostname",
    "lb-pool",
    "name",
    "max-active-flows",
    "dns-resolver-addrs",
    "features",
    "trace-output",
    "metrics-update-freq",
    "forwarders",
    "quick-service",
    "management-hostname",
    "rpc-timeout",
    "write-stream-timeout",
    "compression-quality",
    "http-host-header",
    "no-tls-verify",
    "origin-server-name",
    "origin-ca-pool",
    "unix-socket",
    "no-chunked-encoding",
    "http2-origin",
    "bastion",
    "socks5",
    "token",
    "token-file",
];
const ORIGIN_NOT_YET: &[&str] = &[
    "tcpKeepAlive",
    "noHappyEyeballs",
    "disableChunkedEncoding",
    "bastionMode",
    "proxyType",
    "ipRules",
    "http2Origin",
    "matchSNItoHost",
];
const LONGEST_FILE: u64 = 4 << 20;
/// A hundred years, in seconds.
const LONGEST_TIME: f64 = 3.2e9;

#[cfg(test)]
mod tests {
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
    service: wss://127.0.0.1:8443
    originRequest: { connectTimeout: 1500ms, httpHostHeader: inner, caPool: ca.pem, tcpKeepAlive: 5s }
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
service = "https://127.0.0.1:8443"
[ingress.origin]
ca-file = "/etc/cloudflared/ca.pem"
connect-timeout = "1500ms"
host-header = "inner"
tls-verify = false

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
            "`ingress[0].originRequest.tcpKeepAlive` is not supported here yet",
            "`ssh` services are not supported",
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
        ] {
            let error = translated(yaml).unwrap_err().to_string();
            assert!(error.contains("cannot check Access tokens"), "{error}");
        }
        assert!(translated("originRequest: {access: {required: false}}\nurl: http://a").is_ok());
    }

    #[test]
    fn mistakes_name_their_place() {
        for (yaml, wanted) in [
            ("- a", "not a list of keys"),
            ("ingress: all", "`ingress` is not a list"),
            ("ingress: [{hostname: a}]", "`ingress[0].service` is missing"),
            ("ingress: [{hostname: 7, service: http://a}]", "`ingress[0].hostname` is no text"),
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

    #[test]
    fn durations_of_go_are_read() {
        for (text, wanted) in [
            ("30s", Some(30_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("250ms", Some(250)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("-5s", None),
            ("5 s", None),
            ("9999999h", None),
        ] {
            assert_eq!(go_duration(text).map(|time| time.as_millis()), wanted, "{text}");
        }
    }
}
