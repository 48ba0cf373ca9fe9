//! The document of ours that a config.yml and flags come to, but for how its services are spoken to.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use super::duration::duration;
use super::keys::{MEANINGLESS, NOT_YET, UNDERSTOOD};
use super::{Legacy, Options};

/// A document of ours.
#[derive(Debug)]
pub(in crate::tunnel) struct Translation {
    pub(in crate::tunnel) toml: String,
    pub(in crate::tunnel) warnings: Vec<String>,
}

/// Who the host is, as a line of the document.
pub(in crate::tunnel) enum Proof {
    CredentialsFile(PathBuf),
    TokenFile(PathBuf),
}

/// The document that serves what `legacy` and the flags ask for. `url` stands in for rules if there are none.
pub(in crate::tunnel) fn translate(
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
    pub(super) fn line(&mut self, line: &str) {
        self.toml.push_str(line);
        self.toml.push('\n');
    }

    pub(super) fn key(&mut self, key: &str, value: &str) {
        // A JSON text is a TOML text, but for one character that neither form shows.
        let text = Value::String(value.to_owned()).to_string().replace('\u{7f}', "\\u007f");
        let _ = writeln!(self.toml, "{key} = {text}");
    }

    pub(super) fn path(&mut self, key: &str, path: &Path) -> anyhow::Result<()> {
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
            let mut seen = HashSet::new();
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
        for key in rule.keys().filter(|key| !RULE_KEYS.contains(&key.as_str())) {
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
        // Of ours: cloudflared ignores them.
        for (key, default, ours) in [("paths", "checked", "paths"), ("pathHeaders", "cut", "path-headers")] {
            match rule.get(key) {
                None | Some(Value::Null) => {}
                Some(Value::String(word)) if word == "as-sent" || word == default => self.key(ours, word),
                Some(_) => bail!("`{place}.{key}` is neither `{default}` nor `as-sent`"),
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
}

const RULE_KEYS: [&str; 6] = ["hostname", "path", "paths", "pathHeaders", "service", "originRequest"];

fn object<'v>(value: Option<&'v Value>, place: &str) -> anyhow::Result<Option<&'v Map<String, Value>>> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(keys)) => Ok(Some(keys)),
        Some(_) => bail!("`{place}` is not a list of keys with values"),
    }
}

/// The first of cloudflared's own addresses that is free, so that two hosts run on one machine.
fn free_admin_address() -> String {
    let mut ports = 20241..=20245;
    let free = ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    format!("127.0.0.1:{}", free.unwrap_or(0))
}
