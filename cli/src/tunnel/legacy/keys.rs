//! Which keys a config.yml may have, and what becomes of the others. One that could carry protection and is not
//! understood refuses the file: without it something would be served that was meant to be closed.

use adit_config_reader::closest;

use super::yaml::{Node, Value};
use crate::tunnel::reference;

/// Of a rule.
/// `paths` and `pathHeaders` are ours: cloudflared ignores them.
pub(super) const RULE: &[&str] = &["hostname", "path", "paths", "pathHeaders", "service", "originRequest"];
/// Of `originRequest`.
pub(super) const ORIGIN: &[&str] = &[
    "connectTimeout",
    "tlsTimeout",
    "tcpKeepAlive",
    "noHappyEyeballs",
    "keepAliveConnections",
    "keepAliveTimeout",
    "httpHostHeader",
    "originServerName",
    "matchSNItoHost",
    "caPool",
    "noTLSVerify",
    "disableChunkedEncoding",
    "bastionMode",
    "proxyAddress",
    "proxyPort",
    "proxyType",
    "ipRules",
    "http2Origin",
    "access",
];
/// Of `originRequest.access`.
pub(super) const ACCESS: &[&str] = &["required", "teamName", "audTag", "environment"];
/// At the top, besides flags.
const TOP: &[&str] = &[
    "tunnel",
    "ingress",
    "originRequest",
    "paths",
    "pathHeaders",
    "warp-routing",
    "forwarders",
    "resolver",
    "edge-domain",
];
/// At the top, and not carried here yet.
const NOT_YET: &[&str] = &["forwarders", "resolver"];
/// What closes something, or holds what does.
const PROTECTS: &[&str] = &[
    "access",
    "ipRules",
    "originRequest",
    "ingress",
    "required",
    "audTag",
    "teamName",
    "paths",
    "pathHeaders",
];

/// What becomes of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Understood,
    /// Said, and without an effect.
    Idle(String),
    /// The file is not served.
    Refused(String),
}

/// Of a key at the top.
pub(super) fn top(key: &str, value: &Node) -> Fate {
    if key == "warp-routing" {
        return Fate::Idle("is not supported here yet: of it only `maxActiveFlows` has an effect".to_owned());
    }
    if NOT_YET.contains(&key) {
        return Fate::Idle("is not supported here yet and has no effect".to_owned());
    }
    if TOP.contains(&key) {
        return Fate::Understood;
    }
    if key == "config" {
        return Fate::Idle("has no effect: this file is the configuration already".to_owned());
    }
    if reference::find(key).is_some() {
        return match reference::idle(key) {
            Some(why) => Fate::Idle(format!("has no effect: {why}")),
            None => Fate::Understood,
        };
    }
    if let Some(meant) = spelled(key, PROTECTS).filter(|meant| !TOP.contains(meant)) {
        return Fate::Refused(format!("not known here; `{meant}` stands in `originRequest`"));
    }
    let flags = reference::WORDS.iter().map(|word| word.name);
    match closest(key, TOP.iter().copied().chain(flags)) {
        // What is there to be referred to may be called as one likes.
        Some(meant) if !value.is_anchor || meant.len().abs_diff(key.len()) <= 1 => {
            Fate::Refused(format!("not known; did you mean `{meant}`?"))
        }
        _ if !value.is_anchor && protects(value) => {
            Fate::Refused("not known, and in it stands what protects rules".to_owned())
        }
        _ => Fate::Idle("is not known and has no effect".to_owned()),
    }
}

/// Of a key in a rule.
pub(super) fn in_rule(key: &str) -> Fate {
    inner(key, RULE, ORIGIN, "originRequest")
}

/// Of a key in `originRequest`.
pub(super) fn in_origin(key: &str) -> Fate {
    inner(key, ORIGIN, RULE, "the rule")
}

/// `others` are understood in `elsewhere`.
fn inner(key: &str, own: &[&str], others: &[&str], elsewhere: &str) -> Fate {
    if own.contains(&key) {
        return Fate::Understood;
    }
    match (spelled(key, own), spelled(key, others)) {
        (Some(meant), _) if PROTECTS.contains(&meant) => {
            Fate::Refused(format!("not known; did you mean `{meant}`?"))
        }
        (Some(meant), _) => Fate::Idle(format!("has no effect: `{meant}` is how it is written")),
        (None, Some(meant)) if PROTECTS.contains(&meant) => {
            Fate::Refused(format!("`{meant}` stands in {elsewhere}"))
        }
        (None, Some(meant)) => Fate::Idle(format!("has no effect here: `{meant}` stands in {elsewhere}")),
        (None, None) => Fate::Refused(match closest(key, own.iter().copied()) {
            Some(meant) => format!("not known; did you mean `{meant}`?"),
            None => "not known, and it may be what protects this".to_owned(),
        }),
    }
}

/// Which of these is meant but for letter case and dashes.
fn spelled<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |word: &str| {
        word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect::<String>()
    };
    known.iter().copied().find(|word| plain(word) == plain(key))
}

fn protects(value: &Node) -> bool {
    match &value.value {
        Value::Scalar { .. } => false,
        Value::List(list) => list.iter().any(|node| protects(node)),
        Value::Map(map) => map.0.iter().any(|entry| {
            spelled(&entry.key, PROTECTS).is_some() || (!entry.value.is_anchor && protects(&entry.value))
        }),
    }
}
