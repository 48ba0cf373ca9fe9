//! `originRequest`: how a service is spoken to.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Map, Value};

use super::Legacy;
use super::duration::{HOUR, in_form, whole_time};
use super::translation::Translation;

impl Translation {
    /// Takes what has a meaning for HTTP services into the rule, if its service is one.
    pub(super) fn origin(
        &mut self,
        place: &str,
        keys: &Map<String, Value>,
        legacy: Option<&Legacy>,
        is_http: bool,
    ) -> anyhow::Result<()> {
        let mut lines = Self { toml: String::new(), warnings: Vec::new() };
        for (key, value) in keys {
            let whole = || format!("{place}.originRequest.{key}");
            let time = || whole_time(value).with_context(|| format!("`{}` is no time", whole()));
            let text = || value.as_str().with_context(|| format!("`{}` is no text", whole()));
            let flag = || value.as_bool().with_context(|| format!("`{}` is neither true nor false", whole()));
            let is_time =
                matches!(key.as_str(), "connectTimeout" | "tlsTimeout" | "keepAliveTimeout" | "tcpKeepAlive");
            if is_time && whole_time(value).is_some_and(|time| time > HOUR) {
                self.warnings.push(format!("`{}` is more than 1h, the longest, and counts as that", whole()));
            }
            match key.as_str() {
                "connectTimeout" => lines.key("connect-timeout", &in_form(time()?, HOUR)),
                "tlsTimeout" => lines.key("tls-timeout", &in_form(time()?, HOUR)),
                "keepAliveTimeout" => lines.key("keep-alive-timeout", &in_form(time()?, HOUR)),
                "tcpKeepAlive" => lines.key("tcp-keep-alive", &in_form(time()?, GO_KEEP_ALIVE)),
                "keepAliveConnections" => {
                    let count = value.as_u64().with_context(|| format!("`{}` is no number", whole()))?;
                    let _ = writeln!(lines.toml, "keep-alive-connections = {count}");
                }
                "noTLSVerify" => {
                    let _ = writeln!(lines.toml, "tls-verify = {}", !flag()?);
                }
                "noHappyEyeballs" => {
                    let _ = writeln!(lines.toml, "happy-eyeballs = {}", !flag()?);
                }
                "disableChunkedEncoding" => {
                    let _ = writeln!(lines.toml, "chunked = {}", !flag()?);
                }
                "matchSNItoHost" => {
                    let _ = writeln!(lines.toml, "server-name-from-host = {}", flag()?);
                }
                "http2Origin" if flag()? => lines.key("http2", "if-offered"),
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
                        bail!("`{}`: {}", whole(), guarded(value));
                    }
                }
                "caPool" | "originServerName" | "httpHostHeader" => {}
                "bastionMode" | "http2Origin" if !flag()? => {}
                "proxyType" if text()?.is_empty() => {}
                "proxyPort" | "proxyAddress" => {}
                "bastionMode" | "proxyType" | "ipRules" => {
                    self.warnings.push(format!("`{}` is not supported here yet and has no effect", whole()));
                }
                _ => self.warnings.push(format!("`{}` is not known and has no effect", whole())),
            }
        }
        if is_http {
            self.line("[ingress.origin]");
            // As the reference writes them.
            self.line("header-case = \"title\"");
            self.toml.push_str(&lines.toml);
        }
        Ok(())
    }
}

/// Why rules that Access protects are not served, and the lines that serve them.
fn guarded(access: &Value) -> String {
    let team =
        access.get("teamName").and_then(Value::as_str).filter(|team| !team.is_empty()).unwrap_or("TEAM");
    let tags = access.get("audTag").and_then(Value::as_array).filter(|tags| !tags.is_empty());
    let tags = tags.map_or_else(|| "[\"AUD-TAG\"]".to_owned(), |tags| Value::Array(tags.clone()).to_string());
    format!(
        "Access tokens are checked by the plugin jwt, which a config.yml cannot name, and what they protect is \
         not served without\n  way out: a host.toml with these rules, `plugins = [\"access\"]` in each that Access \
         protects, and\n\n    \
         [[plugin]]\n    \
         name = \"access\"\n    \
         component = \"plugins/jwt.wasm\"\n    \
         timeout = \"500ms\"\n\n    \
         [plugin.config]\n    \
         team = {}\n    \
         audience = {tags}\n\n    \
         [plugin.grants]\n    \
         http = [{}]\n    \
         buckets = {{ jwks = \"1MiB\" }}\n\n  \
         the whole of it: plugins/jwt/README.md, Cloudflare Access",
        Value::from(team),
        Value::from(format!("https://{team}.cloudflareaccess.com")),
    )
}

/// What a time of zero is to Go here; elsewhere it is no limit.
const GO_KEEP_ALIVE: Duration = Duration::from_secs(15);
