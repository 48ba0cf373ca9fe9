//! `originRequest`: how a service is spoken to.

use std::time::Duration;

use super::duration::{HOUR, in_form, whole_time};
use super::keys::{self, ACCESS, Fate};
use super::translation::{At, Translation};
use super::yaml::{Entry, Map, Node, Value};
use super::{Legacy, at_home};

impl Translation {
    /// The lines of `[ingress.origin]`, as far as it is one of an HTTP service.
    pub(super) fn origin(&mut self, place: &str, keys: &Map, legacy: Option<&Legacy>) -> String {
        let before = std::mem::take(&mut self.toml);
        for entry in &keys.0 {
            let name = format!("{place}.{}", entry.key);
            let at = At { place: (entry.place.line > 0).then_some(entry.place), name: &name };
            match keys::in_origin(&entry.key) {
                Fate::Idle(why) => self.warn(at, &why),
                Fate::Refused(why) => self.wrong(at, &why),
                // Nothing there is as if it were not.
                Fate::Understood if entry.value.is_null() => {}
                Fate::Understood => self.option(at, entry, legacy),
            }
        }
        std::mem::replace(&mut self.toml, before)
    }

    fn option(&mut self, at: At<'_>, entry: &Entry, legacy: Option<&Legacy>) {
        let (key, value) = (entry.key.as_str(), &entry.value);
        match key {
            "connectTimeout" => self.time(at, value, "connect-timeout", HOUR),
            "tlsTimeout" => self.time(at, value, "tls-timeout", HOUR),
            "keepAliveTimeout" => self.time(at, value, "keep-alive-timeout", HOUR),
            "tcpKeepAlive" => self.time(at, value, "tcp-keep-alive", GO_KEEP_ALIVE),
            // As in a pushed configuration: a negative number keeps none.
            "keepAliveConnections" => match value.text().and_then(|text| text.parse::<i64>().ok()) {
                Some(count) => self.line(at, &format!("keep-alive-connections = {}", count.max(0))),
                None => self.wrong(at, "not a number"),
            },
            "noTLSVerify"
            | "noHappyEyeballs"
            | "disableChunkedEncoding"
            | "matchSNItoHost"
            | "http2Origin"
            | "bastionMode" => match value.flag() {
                None => self.wrong(at, "neither true nor false"),
                Some(is_set) => match key {
                    "noTLSVerify" => self.line(at, &format!("tls-verify = {}", !is_set)),
                    "noHappyEyeballs" => self.line(at, &format!("happy-eyeballs = {}", !is_set)),
                    "disableChunkedEncoding" => self.line(at, &format!("chunked = {}", !is_set)),
                    "matchSNItoHost" => self.line(at, &format!("server-name-from-host = {is_set}")),
                    "http2Origin" if is_set => self.key(at, "http2", "if-offered"),
                    // A rule says it of its service.
                    _ => {}
                },
            },
            "caPool" | "originServerName" | "httpHostHeader" | "proxyType" | "proxyAddress" => {
                match (key, value.text()) {
                    (_, None) => self.wrong(at, "not a text"),
                    (_, Some("")) => {}
                    ("caPool", Some(file)) => {
                        let path = legacy.map_or_else(|| at_home(file), |legacy| legacy.beside(file));
                        self.path(at, "ca-file", &path);
                    }
                    ("originServerName", Some(text)) => self.key(at, "server-name", text),
                    ("httpHostHeader", Some(text)) => self.key(at, "host-header", text),
                    ("proxyType", Some(_)) => self.warn(at, NOT_YET),
                    _ => {}
                }
            }
            "ipRules" => self.ip_rules(at, value),
            "access" => self.access(at, value),
            _ => {}
        }
    }

    /// Where circuits may lead whose destination the visitor names.
    fn ip_rules(&mut self, at: At<'_>, value: &Node) {
        let Value::List(rules) = &value.value else { return self.wrong(at, "not a list of rules") };
        let mut written = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let name = format!("{}[{index}]", at.name);
            let at = At { place: Some(rule.place), name: &name };
            let Value::Map(keys) = &rule.value else {
                return self.wrong(at, "not a list of keys with values");
            };
            if let Some(entry) =
                keys.0.iter().find(|entry| !["prefix", "ports", "allow"].contains(&entry.key.as_str()))
            {
                return self
                    .wrong(at, &format!("`{}` is not known, and it may be what closes it", entry.key));
            }
            let Some(prefix) = keys.get("prefix").and_then(|entry| entry.value.text()) else {
                return self.wrong(at, "says no network: `prefix`");
            };
            let ports = match keys.get("ports").map(|entry| &entry.value) {
                None => None,
                Some(node) if node.is_null() => None,
                Some(node) => match &node.value {
                    Value::List(ports) => {
                        Some(ports.iter().map(|port| port.number()).collect::<Option<Vec<_>>>())
                    }
                    Value::Scalar { .. } | Value::Map(_) => Some(None),
                },
            };
            let ports = match ports {
                Some(None) => return self.wrong(at, "`ports` is not a list of numbers"),
                Some(Some(ports)) if ports.is_empty() => String::new(),
                Some(Some(ports)) => format!(", ports = {ports:?}"),
                None => String::new(),
            };
            let allow = match keys.get("allow").map(|entry| entry.value.flag()) {
                None => false,
                Some(Some(allow)) => allow,
                Some(None) => return self.wrong(at, "`allow` is neither true nor false"),
            };
            written.push(format!("{{ prefix = {}{ports}, allow = {allow} }}", serde_json::json!(prefix)));
        }
        self.line(at, &format!("ip-rules = [{}]", written.join(", ")));
    }

    fn time(&mut self, at: At<'_>, value: &Node, key: &str, nothing: Duration) {
        match value.text().and_then(whole_time) {
            None => self.wrong(at, "not a time such as 30s"),
            Some(time) => {
                if time > HOUR {
                    self.warn(at, "is an hour, which is the longest that a service is waited for");
                }
                self.key(at, key, &in_form(time, nothing));
            }
        }
    }

    /// What Access protects is not served without it.
    fn access(&mut self, at: At<'_>, value: &Node) {
        let Value::Map(keys) = &value.value else {
            return self.wrong(at, "not a list of keys with values");
        };
        for entry in &keys.0 {
            if !ACCESS.contains(&entry.key.as_str()) {
                let name = format!("{}.{}", at.name, entry.key);
                self.wrong(
                    At { place: Some(entry.place), name: &name },
                    "not known, and it may be what protects this",
                );
            }
        }
        let is_open = keys.get("required").and_then(|entry| entry.value.flag()) == Some(false);
        if !is_open {
            self.wrong(at, &guarded(keys));
        }
    }
}

/// Why rules that Access protects are not served, and the lines that serve them.
fn guarded(access: &Map) -> String {
    let text = |node: &Node| node.text().filter(|text| !text.is_empty()).map(str::to_owned);
    let team =
        access.get("teamName").and_then(|entry| text(&entry.value)).unwrap_or_else(|| "TEAM".to_owned());
    let tags: Vec<String> = match access.get("audTag").map(|entry| &entry.value.value) {
        Some(Value::List(list)) => list.iter().filter_map(|tag| text(tag)).collect(),
        Some(Value::Scalar { .. } | Value::Map(_)) | None => Vec::new(),
    };
    let tags = if tags.is_empty() { vec!["AUD-TAG".to_owned()] } else { tags };
    format!(
        "Access tokens are checked by the plugin jwt, which a config.yml cannot name, and what they protect is \
         not served without\n  way out: a host.toml with these rules, `plugins = [\"access\"]` in each that Access \
         protects, and\n\n    \
         [[plugin]]\n    \
         name = \"access\"\n    \
         component = \"shelf:jwt\"\n    \
         timeout = \"500ms\"\n\n    \
         [plugin.config]\n    \
         team = {}\n    \
         audience = {}\n\n    \
         [plugin.grants]\n    \
         http = [{}]\n    \
         buckets = {{ jwks = \"1MiB\" }}\n\n  \
         the whole of it: plugins/jwt/README.md, Cloudflare Access",
        serde_json::json!(team),
        serde_json::json!(tags),
        serde_json::json!(format!("https://{team}.cloudflareaccess.com")),
    )
}

const NOT_YET: &str = "is not supported here yet and has no effect";
/// What a time of zero is to Go here; elsewhere it is no limit.
const GO_KEEP_ALIVE: Duration = Duration::from_secs(15);
