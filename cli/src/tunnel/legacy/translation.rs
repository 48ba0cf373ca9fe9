//! The document of ours that a config.yml and flags come to, but for how its services are spoken to.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use adit_config_reader::{Place, TRANSLATED, remark};

use super::duration::duration;
use super::keys::{self, Fate};
use super::service::{not_yet, service, url};
use super::yaml::{Entry, Map, Node, Value};
use super::{Legacy, absolute, located};
use crate::tunnel::Single;

/// A document of ours.
#[derive(Debug)]
pub(in crate::tunnel) struct Translation {
    pub(in crate::tunnel) toml: String,
    pub(in crate::tunnel) warnings: Vec<String>,
    /// Whether a rule shows the built-in page.
    pub(in crate::tunnel) says_hello: bool,
    /// Why the one service that stands in place of rules is served by nobody, if it is not.
    pub(in crate::tunnel) unserved: Option<String>,
    pub(super) mistakes: Vec<String>,
    pub(super) file: Option<PathBuf>,
}

/// What the command line has of a document.
#[derive(Clone)]
pub(in crate::tunnel) struct Given {
    pub(in crate::tunnel) proof: Proof,
    /// Stands in for rules if there are none.
    pub(in crate::tunnel) single: Single,
    /// Where the admin API listens if the file does not say it.
    pub(in crate::tunnel) admin: String,
}

/// Who the host is, as a line of the document.
#[derive(Clone)]
pub(in crate::tunnel) enum Proof {
    CredentialsFile(PathBuf),
    TokenFile(PathBuf),
}

/// Where something is written: its place in the file, if it is in one, and its name.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) place: Option<Place>,
    pub(super) name: &'a str,
}

/// The document that serves what `legacy` and the flags ask for.
///
/// # Errors
/// Everything that is wrong with the file, each at its place.
pub(in crate::tunnel) fn translate(legacy: Option<&Legacy>, given: &Given) -> Result<Translation, String> {
    let mut translation = Translation {
        toml: TRANSLATED.to_owned(),
        warnings: Vec::new(),
        says_hello: false,
        unserved: None,
        mistakes: Vec::new(),
        file: legacy.map(|legacy| legacy.path.clone()),
    };
    translation.document(legacy, given);
    if translation.toml.len() as u64 > adit_host::config::source::LARGEST_DOCUMENT {
        translation.mistakes.push("too many rules: as a document of ours they are too long".to_owned());
    }
    if translation.mistakes.is_empty() { Ok(translation) } else { Err(translation.mistakes.join("\n")) }
}

impl Translation {
    fn document(&mut self, legacy: Option<&Legacy>, given: &Given) {
        let mut single = given.single.clone();
        if let Some(legacy) = legacy {
            self.check_keys(legacy);
            if legacy.has_rules() && given.single.is_origin() {
                self.warnings
                    .push("what the command line serves has no effect: the file has rules".to_owned());
            }
            let wrong = legacy.fill_single(&mut single);
            self.mistakes.extend(wrong);
        }
        let flags = At { place: None, name: "" };
        let global = legacy.and_then(|legacy| legacy.get("originRequest"));
        let global = global.and_then(|entry| self.map(&entry.value, "originRequest"));
        let rules = legacy.filter(|legacy| legacy.has_rules()).and_then(|legacy| legacy.get("ingress"));
        let has_origin = rules.is_some() || single.is_origin();
        if !has_origin {
            let warning = "there are no rules and no --url: every request gets 503 until the edge gives this tunnel a configuration";
            self.warnings.push(warning.to_owned());
            self.line(flags, "config-source = \"remote\"");
        }
        if let Some(legacy) = legacy {
            self.paths("", |key| legacy.get(key));
        }
        self.tunnel(legacy, given);
        if let Some(empty) = legacy.filter(|_| !has_origin).and_then(|legacy| legacy.get("ingress")) {
            // It says that there are none, and is as ready with that as the reference; what the edge has goes before it.
            let at = At { place: Some(empty.place), name: "ingress" };
            self.line(at, "[[ingress]]");
            self.key(at, "service", "http_status:503");
        }
        match rules {
            Some(Entry { value, place, .. }) => match &value.value {
                Value::List(rules) => {
                    for (index, rule) in rules.iter().enumerate() {
                        self.rule(&format!("ingress[{index}]"), rule, global.as_ref(), legacy);
                        if self.mistakes.len() > MOST_MISTAKES || self.toml.len() > LONGEST {
                            return;
                        }
                    }
                }
                Value::Scalar { .. } | Value::Map(_) => {
                    self.wrong(At { place: Some(*place), name: "ingress" }, "not a list of rules");
                }
            },
            None if has_origin => self.single(&single, global.as_ref(), legacy),
            None => {
                if let Some(global) = &global {
                    // Served by no rule of this file, and checked all the same.
                    self.origin("originRequest", global, legacy);
                }
            }
        }
    }

    pub(super) fn line(&mut self, at: At<'_>, line: &str) {
        self.toml.push_str(line);
        self.toml.push_str(&remark(at.place, at.name));
        self.toml.push('\n');
    }

    pub(super) fn key(&mut self, at: At<'_>, key: &str, value: &str) {
        // A JSON text is a TOML text, but for one character that neither form shows.
        let text = serde_json::Value::String(value.to_owned()).to_string().replace('\u{7f}', "\\u007f");
        self.line(at, &format!("{key} = {text}"));
    }

    pub(super) fn path(&mut self, at: At<'_>, key: &str, path: &Path) {
        match absolute(path) {
            Ok(path) => self.key(at, key, &path),
            Err(error) => self.wrong(at, &format!("{error:#}")),
        }
    }

    pub(super) fn wrong(&mut self, at: At<'_>, message: &str) {
        let message = format!("{}: {message}", at.name);
        self.mistakes.push(match (&self.file, at.place) {
            (Some(file), Some(_)) => format!("{}{message}", located(file, at.place)),
            _ => message,
        });
    }

    pub(super) fn warn(&mut self, at: At<'_>, message: &str) {
        let place = at.place.map(|Place { line, column }| format!("{line}:{column}: ")).unwrap_or_default();
        self.warnings.push(format!("{place}`{}` {message}", at.name));
    }

    /// The keys of a node, if it has any.
    pub(super) fn map(&mut self, node: &Rc<Node>, name: &str) -> Option<Map> {
        match &node.value {
            Value::Map(Map(entries)) => Some(Map(entries.clone())),
            _ if node.is_null() => None,
            Value::Scalar { .. } | Value::List(_) => {
                self.wrong(At { place: Some(node.place), name }, "not a list of keys with values");
                None
            }
        }
    }

    fn tunnel(&mut self, legacy: Option<&Legacy>, given: &Given) {
        let none = At { place: None, name: "" };
        self.line(none, "[tunnel]");
        match &given.proof {
            Proof::CredentialsFile(path) => self.path(none, "credentials-file", path),
            Proof::TokenFile(path) => self.path(none, "token-file", path),
        }
        let entry = |key: &'static str| {
            let entry = legacy?.get(key)?;
            Some((At { place: Some(entry.place), name: key }, entry))
        };
        let mut is_listed = false;
        if let Some((at, _)) = entry("edge") {
            let mut edges = legacy.map(|legacy| legacy.list("edge")).unwrap_or_default();
            // Repeated for the reference's sake, which wants an entry for each connection.
            let mut seen = HashSet::new();
            edges.retain(|edge| !edge.is_empty() && seen.insert(edge.to_ascii_lowercase()));
            is_listed = !edges.is_empty();
            if is_listed {
                self.line(at, &format!("edges = {}", serde_json::json!(edges)));
            }
        }
        for (key, ours) in [
            ("edge-domain", "edge-domain"),
            ("region", "edge-region"),
            ("edge-ip-version", "edge-ip-version"),
            ("edge-bind-address", "edge-bind-address"),
            ("protocol", "protocol"),
        ] {
            if let Some((at, entry)) = entry(key)
                && let Some(text) = entry.value.text().filter(|text| !text.is_empty())
            {
                if key == "region" && is_listed {
                    self.warn(at, "has no effect beside `edge`, which says where the edge is");
                } else {
                    self.key(at, ours, text);
                }
            }
        }
        if let (Some((at, _)), Some(ca)) = (entry("cacert"), legacy.and_then(|legacy| legacy.file("cacert")))
        {
            self.path(at, "edge-ca", &ca);
        }
        if let Some((at, entry)) = entry("ha-connections") {
            match entry.value.number() {
                Some(count) => self.line(at, &format!("connections = {count}")),
                None => self.wrong(at, "not a number"),
            }
        }
        if let Some((at, entry)) = entry("grace-period") {
            match entry.value.text().and_then(duration) {
                Some(grace) => self.key(at, "grace-period", &grace),
                None => self.wrong(at, "not a time such as 30s"),
            }
        }
        let flows =
            entry("max-active-flows").map(|(at, entry)| (at, "max-active-flows", entry.value.clone()));
        let flows = flows.or_else(|| {
            let (at, warp) = entry("warp-routing")?;
            let Value::Map(keys) = &warp.value.value else { return None };
            let most = keys.get("maxActiveFlows").filter(|most| !most.value.is_null())?;
            Some((at, "maxActiveFlows", most.value.clone()))
        });
        if let Some((at, key, most)) = flows {
            match most.number() {
                // No limit there.
                Some(0) => {}
                Some(most) => {
                    self.line(none, "[tcp]");
                    self.line(at, &format!("most-circuits = {}", most.min(MOST_CIRCUITS)));
                }
                None => self.wrong(at, &format!("`{key}` is not a number")),
            }
        }
        let metrics = entry("metrics").and_then(|(at, entry)| Some((at, entry.value.text()?)));
        self.line(none, "[admin]");
        match metrics {
            Some((at, listen)) => self.key(at, "listen", &super::super::listen(listen)),
            None => self.key(none, "listen", &given.admin),
        }
    }

    fn check_keys(&mut self, legacy: &Legacy) {
        for entry in legacy.entries() {
            let at = At { place: Some(entry.place), name: &entry.key };
            match keys::top(&entry.key, &entry.value) {
                Fate::Understood => {}
                Fate::Idle(why) => self.warn(at, &why),
                Fate::Refused(why) => self.wrong(at, &why),
            }
        }
    }

    fn single(&mut self, single: &Single, global: Option<&Map>, legacy: Option<&Legacy>) {
        let (name, service) = match single {
            Single { hello_world: Some(true), .. } => ("--hello-world", service("hello_world")),
            Single { bastion: Some(true), .. } => ("--bastion", service("bastion")),
            Single { socks5: Some(true), .. } => ("--socks5", service("socks-proxy")),
            Single { ssh_server: Some(true), .. } => ("--ssh-server", Ok(not_yet("ssh"))),
            Single { unix_socket: Some(path), .. } => (
                "--unix-socket",
                absolute(path).map(|path| (format!("unix:{path}"), None)).map_err(|e| e.to_string()),
            ),
            Single { url: text, .. } => ("--url", url(text.as_deref().unwrap_or_default())),
        };
        let at = At { place: None, name };
        let (service, warning) = match service {
            Ok(service) => service,
            Err(error) => return self.wrong(at, &error),
        };
        if let Some(warning) = warning {
            self.warn(at, &format!("is served by nobody: {warning}"));
            let reason = warning.split(';').next().unwrap_or_default();
            self.unserved = Some(format!("{name}: {reason}"));
        }
        self.line(at, "[[ingress]]");
        self.says_hello |= service == "hello_world";
        self.key(at, "service", &service);
        let mut merged = entries(single);
        let own: HashSet<String> = merged.iter().map(|entry| entry.key.clone()).collect();
        let global = global.map(|global| global.0.as_slice()).unwrap_or_default();
        merged.extend(global.iter().filter(|entry| !own.contains(&entry.key)).cloned());
        let lines = self.origin("originRequest", &Map(merged), legacy);
        self.spoken(&service, at, lines);
    }

    /// What is said of paths, for a rule or for all of them.
    fn paths<'k>(&mut self, before: &str, entry: impl Fn(&str) -> Option<&'k Entry>) {
        for (key, default, ours) in [("paths", "checked", "paths"), ("pathHeaders", "cut", "path-headers")] {
            let Some(entry) = entry(key).filter(|entry| !entry.value.is_null()) else { continue };
            let name = format!("{before}{key}");
            let at = At { place: Some(entry.place), name: &name };
            match entry.value.text() {
                Some(word) if word == "as-sent" || word == default => self.key(at, ours, word),
                _ => self.wrong(at, &format!("neither `{default}` nor `as-sent`")),
            }
        }
    }

    fn rule(&mut self, name: &str, rule: &Rc<Node>, global: Option<&Map>, legacy: Option<&Legacy>) {
        let at = At { place: Some(rule.place), name };
        let Value::Map(keys) = &rule.value else {
            return self.wrong(at, "a rule is a list of keys with values");
        };
        for entry in &keys.0 {
            let name = format!("{name}.{}", entry.key);
            let at = At { place: Some(entry.place), name: &name };
            match keys::in_rule(&entry.key) {
                Fate::Understood => {}
                Fate::Idle(why) => self.warn(at, &why),
                Fate::Refused(why) => self.wrong(at, &why),
            }
        }
        self.line(at, "[[ingress]]");
        for key in ["hostname", "path"] {
            let Some(entry) = keys.get(key).filter(|entry| !entry.value.is_null()) else { continue };
            let name = format!("{name}.{key}");
            let at = At { place: Some(entry.place), name: &name };
            match entry.value.text() {
                Some("") => {}
                Some("*") if key == "hostname" => {}
                Some(text) if key == "path" => self.key(at, key, &as_go_reads(text)),
                Some(text) => self.key(at, key, text),
                None => self.wrong(at, "not a text"),
            }
        }
        self.paths(&format!("{name}."), |key| keys.get(key));
        let own = keys
            .get("originRequest")
            .and_then(|entry| self.map(&entry.value, &format!("{name}.originRequest")));
        // A rule's own keys go before those for all.
        let mut merged = own.unwrap_or_default();
        let known: HashSet<String> = merged.0.iter().map(|entry| entry.key.clone()).collect();
        let global = global.map(|global| global.0.as_slice()).unwrap_or_default();
        // Those for all rules are none there, and here somebody who wrote them would be led further by them.
        let is_for_all = |entry: &&Entry| !known.contains(&entry.key) && entry.key != "ipRules";
        merged.0.extend(global.iter().filter(is_for_all).cloned());
        let origin = format!("{name}.originRequest");
        let lines = self.origin(&origin, &merged, legacy);
        let is_bastion = merged.get("bastionMode").is_some_and(|entry| entry.value.flag() == Some(true));
        let written = keys.get("service");
        let name = format!("{name}.service");
        let at = At { place: Some(written.map_or(rule.place, |entry| entry.place)), name: &name };
        let text = written.and_then(|entry| entry.value.text()).filter(|text| !text.is_empty());
        // There it is the bastion, whatever HTTP service is written beside it.
        let is_fixed = |text: &str| {
            ["unix", "http_status:", "hello", "socks-proxy"].iter().any(|form| text.starts_with(form))
        };
        let service = match text {
            None if is_bastion => service("bastion"),
            Some(text) if is_bastion && !is_fixed(text) => service("bastion"),
            Some(text) => service(text),
            None => Err("is missing".to_owned()),
        };
        match service {
            Err(wrong) => self.wrong(at, &wrong),
            Ok((service, warning)) => {
                if let Some(warning) = warning {
                    self.warn(at, &format!("is served by nobody: {warning}"));
                }
                self.says_hello |= service == "hello_world";
                self.key(at, "service", &service);
                self.spoken(&service, at, lines);
            }
        }
    }

    /// How a service is spoken to, if it is one that is.
    fn spoken(&mut self, service: &str, at: At<'_>, lines: String) {
        let is_http =
            ["http:", "https:", "unix:", "unix+tls:"].iter().any(|scheme| service.starts_with(scheme));
        if is_http {
            self.line(at, "[ingress.origin]");
            // As the reference writes them.
            self.line(at, "header-case = \"title\"");
            self.toml.push_str(&lines);
        } else if service.contains("://") || matches!(service, "bastion" | "socks-proxy") {
            // What is said for all rules is said of HTTP too, and means nothing here.
            self.line(at, "[ingress.origin]");
            let is_open = !service.contains("://");
            let is_meant = |line: &&str| {
                OF_BYTES.iter().any(|key| line.starts_with(key)) || (is_open && line.starts_with("ip-rules "))
            };
            lines.split_inclusive('\n').filter(is_meant).for_each(|line| self.toml.push_str(line));
        }
    }
}

/// What flags say about the one service, as a rule would say it.
fn entries(single: &Single) -> Vec<Entry> {
    let path = |path: &PathBuf| absolute(path).unwrap_or_else(|_| path.display().to_string());
    let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string());
    let said = [
        ("connectTimeout", single.proxy_connect_timeout.clone()),
        ("tlsTimeout", single.proxy_tls_timeout.clone()),
        ("tcpKeepAlive", single.proxy_tcp_keepalive.clone()),
        ("noHappyEyeballs", flag(single.proxy_no_happy_eyeballs)),
        ("keepAliveConnections", single.proxy_keepalive_connections.clone()),
        ("keepAliveTimeout", single.proxy_keepalive_timeout.clone()),
        ("httpHostHeader", single.http_host_header.clone()),
        ("originServerName", single.origin_server_name.clone()),
        ("caPool", single.origin_ca_pool.as_ref().map(path)),
        ("noTLSVerify", flag(single.no_tls_verify)),
        ("disableChunkedEncoding", flag(single.no_chunked_encoding)),
        ("http2Origin", flag(single.http2_origin)),
    ];
    let entry = |(key, text): (&str, Option<String>)| {
        Some(Entry { key: key.to_owned(), place: NOWHERE, value: Rc::new(Node::word(text?, NOWHERE)) })
    };
    said.into_iter().filter_map(entry).collect()
}

/// Of what stands in no file.
const NOWHERE: Place = Place { line: 0, column: 0 };

/// A brace that counts nothing stands for itself there.
fn as_go_reads(pattern: &str) -> String {
    let mut read = String::with_capacity(pattern.len());
    let (mut rest, mut in_class) = (pattern, false);
    while let Some(letter) = rest.chars().next() {
        let mut length = letter.len_utf8();
        match letter {
            '\\' => length += rest[length..].chars().next().map_or(0, char::len_utf8),
            '[' => in_class = true,
            ']' => in_class = false,
            // Names of classes stand in braces: `\p{Greek}`.
            '{' if !in_class && !read.ends_with("\\p") && !read.ends_with("\\P") && !counts(rest) => {
                read.push('\\')
            }
            _ => {}
        }
        let _ = write!(read, "{}", &rest[..length]);
        rest = &rest[length..];
    }
    read
}

fn counts(rest: &str) -> bool {
    let Some((inside, _)) = rest[1..].split_once('}') else { return false };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    let is_number = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    !least.is_empty() && is_number(least) && is_number(most)
}

/// As many as a document may ask for.
pub(in crate::tunnel) const MOST_CIRCUITS: u64 = 1_000_000;
/// What of `[ingress.origin]` there is to say about services of bytes.
const OF_BYTES: [&str; 3] = ["connect-timeout ", "tcp-keep-alive ", "happy-eyeballs "];
const MOST_MISTAKES: usize = 100;
/// Bytes, with what one more rule may add still a document that is read.
const LONGEST: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_that_count_nothing_stand_for_themselves() {
        for (written, wanted) in [
            ("^/{id}", "^/\\{id}"),
            ("^/a{2,3}", "^/a{2,3}"),
            ("a{2}b{x", "a{2}b\\{x"),
            ("[{]\\{", "[{]\\{"),
            ("\\p{Greek}", "\\p{Greek}"),
            ("é{", "é\\{"),
        ] {
            assert_eq!(as_go_reads(written), wanted);
            assert!(regex_of(&as_go_reads(written)), "{written}");
        }
    }

    fn regex_of(pattern: &str) -> bool {
        let document = format!(
            "[tunnel]\ncredentials-file = \"/none\"\n[[ingress]]\npath = '{pattern}'\nservice = \"hello_world\"\n"
        );
        let error = adit_host::config::parse("a", &document, Path::new("/")).unwrap_err().to_string();
        !error.contains("regular expression")
    }
}
