//! The rules.

use regex_lite::{Regex, RegexBuilder};
use settings::{Fault, Faults, Place, path};

#[derive(Clone, Debug)]
pub struct Plan {
    /// At least one; the first that holds is the one.
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub struct Rule {
    /// "http" or "https".
    pub scheme: Option<&'static str>,
    pub host: Option<Host>,
    pub path: Path,
    pub to: Change,
    /// Of the redirect; none means that the request goes on with the change.
    pub status: Option<u16>,
    pub keeps_query: bool,
}

/// A host name in lower case, without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Is(String),
    /// Ends with this, which begins with a dot.
    Below(String),
}

/// Which paths a rule is about.
#[derive(Clone, Debug)]
pub enum Path {
    Any,
    /// This path and what is below it.
    Prefix(String),
    /// Of the path without its query; not anchored.
    Regex(Regex),
}

/// What becomes of a request; none leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub scheme: Option<&'static str>,
    /// With a port where one is wanted.
    pub host: Option<String>,
    /// In place of the prefix or of all that the pattern matched, which `$1` refers to; else the whole path.
    pub path: Option<String>,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["rules"], faults)?;
            let list = object.required("rules", faults)?;
            let places = list.list(faults)?;
            if places.is_empty() || places.len() > MOST_RULES {
                list.fault(faults, format!("expected 1 to {MOST_RULES} rules"));
            }
            Some(Self { rules: places.iter().filter_map(|place| rule(place, faults)).collect() })
        })
    }
}

fn rule(place: &Place<'_>, faults: &mut Faults) -> Option<Rule> {
    let keys = ["scheme", "host", "prefix", "regex", "to-scheme", "to-host", "to-path", "status", "query"];
    let object = place.object(&keys, faults)?;
    let schemes = [("http", "http"), ("https", "https")];
    let scheme = object.optional("scheme").map(|place| place.word(&schemes, faults));
    let host = object.optional("host").map(|place| host(&place, faults));
    let prefix = object.optional("prefix").map(|place| path::prefix(&place, faults));
    let regex = object.optional("regex").map(|place| regex(&place, faults));
    let to_scheme = object.optional("to-scheme").map(|place| place.word(&schemes, faults));
    let to_host = object.optional("to-host").map(|place| authority(&place, faults));
    let to_path = object.optional("to-path").map(|place| to_path(&place, faults));
    let status = object.optional("status").map(|place| status(&place, faults));
    let queries = [("keep", true), ("drop", false)];
    let keeps_query = object.optional("query").map_or(Some(true), |place| place.word(&queries, faults));

    if prefix.is_some() && regex.is_some() {
        place.fault(faults, "\"prefix\" and \"regex\" exclude each other");
    }
    if to_scheme.is_none() && to_host.is_none() && to_path.is_none() {
        place.fault(faults, "nothing changes: say \"to-path\", \"to-host\" or \"to-scheme\"");
    }
    if to_scheme.is_some() && status.is_none() {
        place.fault(faults, "\"to-scheme\" takes a redirect: say \"status\", such as 308");
    }
    let path = match (prefix, regex) {
        (Some(prefix), _) => Path::Prefix(prefix?.to_owned()),
        (None, Some(regex)) => Path::Regex(regex?),
        (None, None) => Path::Any,
    };
    let rule = Rule {
        scheme: told(scheme)?,
        host: told(host)?,
        path,
        to: Change { scheme: told(to_scheme)?, host: told(to_host)?, path: told(to_path)? },
        status: told(status)?,
        keeps_query: keeps_query?,
    };
    if rule.leads_to_itself() {
        place.fault(faults, "this redirect leads to itself: add a condition, or change what it asks for");
    }
    Some(rule)
}

impl Rule {
    /// Whether whoever follows the redirect is sure to meet it again. Not every loop can be seen here.
    fn leads_to_itself(&self) -> bool {
        let scheme = match (self.scheme, self.to.scheme) {
            (Some(from), Some(to)) => from == to,
            _ => true,
        };
        let host = match (&self.host, &self.to.host) {
            (Some(host), Some(to)) => host.holds(to),
            _ => true,
        };
        let path = match (&self.path, &self.to.path) {
            (Path::Prefix(prefix), Some(to)) => path::is_below(to, prefix),
            (Path::Regex(_), Some(_)) => false,
            _ => true,
        };
        self.status.is_some() && scheme && host && path
    }
}

impl Host {
    pub fn holds(&self, authority: &str) -> bool {
        let host = settings::host(authority);
        match self {
            Self::Is(name) => host == *name,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        }
    }
}

/// The host of an authority; an IPv6 address keeps its brackets.
pub fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(at) if !authority[at..].contains(']') => &authority[..at],
        _ => authority,
    }
}

/// What was written, if it could be read.
fn told<T>(written: Option<Option<T>>) -> Option<Option<T>> {
    match written {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn host(place: &Place<'_>, faults: &mut Faults) -> Option<Host> {
    let text = place.text(faults)?.to_ascii_lowercase();
    let (name, host) = match text.strip_prefix('*') {
        Some(suffix) => (suffix.strip_prefix('.').unwrap_or_default(), Host::Below(suffix.to_owned())),
        None => (text.as_str(), Host::Is(text.clone())),
    };
    if name.is_empty() || !name.bytes().all(is_of_a_host) || name.contains(':') {
        place.fault(
            faults,
            "expected a host name such as \"www.example.com\" or \"*.example.com\", without a port",
        );
        return None;
    }
    Some(host)
}

fn authority(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?.to_ascii_lowercase();
    let port = &text[without_port(&text).len()..];
    let port_is_good = port.is_empty() || port[1..].parse::<u16>().is_ok_and(|port| port > 0);
    if without_port(&text).is_empty()
        || !text.bytes().all(|byte| is_of_a_host(byte) || b":[]".contains(&byte))
        || !port_is_good
    {
        place.fault(faults, "expected a host name, with a port or without");
        return None;
    }
    Some(text)
}

fn is_of_a_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

fn regex(place: &Place<'_>, faults: &mut Faults) -> Option<Regex> {
    let text = place.text(faults)?;
    match RegexBuilder::new(text).size_limit(LARGEST_REGEX).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            place.fault(faults, format!("not a regular expression: {error}"));
            None
        }
    }
}

fn to_path(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    if !text.starts_with('/')
        || text.contains(['#', '\\'])
        || text.chars().any(|c| c.is_control() || c == ' ')
    {
        place.fault(faults, "expected a path that begins with \"/\", without `#`, `\\` and spaces");
        return None;
    }
    Some(text.to_owned())
}

fn status(place: &Place<'_>, faults: &mut Faults) -> Option<u16> {
    let number = place.number(300..=399, faults)?;
    let status = u16::try_from(number).ok().filter(|status| [301, 302, 303, 307, 308].contains(status));
    if status.is_none() {
        place.fault(faults, "expected 301, 302, 303, 307 or 308");
    }
    status
}

const MOST_RULES: usize = 256;
/// Of a compiled expression, bytes.
const LARGEST_REGEX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(config: &str) -> Vec<String> {
        Plan::read(config).unwrap_err().into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let found = pointers(
            r#"{"rules": [
                {"to-paths": "/x", "prefix": "/a", "regex": "b", "to-path": "/c"},
                {"scheme": "ftp", "host": "a:80", "to-host": "b/c", "status": 404},
                {"prefix": "a", "to-path": "c"},
                {"regex": "(", "to-path": "/c d"},
                {"prefix": "/a"},
                {"to-scheme": "https"},
                {"to-path": "/x", "status": 304, "query": "maybe"},
                7
            ]}"#,
        );
        assert_eq!(
            found,
            [
                "/rules/0/to-paths",
                "/rules/0",
                "/rules/1/scheme",
                "/rules/1/host",
                "/rules/1/to-host",
                "/rules/1/status",
                "/rules/2/prefix",
                "/rules/2/to-path",
                "/rules/3/regex",
                "/rules/3/to-path",
                "/rules/4",
                "/rules/5",
                "/rules/6/status",
                "/rules/6/query",
                "/rules/7",
            ]
        );
        assert_eq!(pointers("{}"), [""]);
        assert_eq!(pointers(r#"{"rules": []}"#), ["/rules"]);
    }

    #[test]
    fn a_redirect_that_is_sure_to_lead_to_itself_is_a_fault() {
        for (rule, is_loop) in [
            (r#"{"to-scheme": "https", "status": 308}"#, true),
            (r#"{"scheme": "http", "to-scheme": "https", "status": 308}"#, false),
            (r#"{"to-host": "a.example", "status": 301}"#, true),
            (r#"{"host": "*.example.com", "to-host": "www.example.com", "status": 301}"#, true),
            (r#"{"host": "www.example.com", "to-host": "example.com", "status": 301}"#, false),
            (r#"{"prefix": "/a", "to-path": "/a/b", "status": 301}"#, true),
            (r#"{"prefix": "/a", "to-path": "/b", "status": 301}"#, false),
            (r#"{"prefix": "/a", "to-path": "/a/b"}"#, false),
        ] {
            let read = Plan::read(&format!(r#"{{"rules": [{rule}]}}"#));
            assert_eq!(read.is_err(), is_loop, "{rule}: {read:?}");
        }
    }

    #[test]
    fn a_host_is_compared_without_its_port_and_case() {
        let below = Host::Below(".example.com".to_owned());
        assert!(
            below.holds("A.Example.COM:8080")
                && below.holds("a.example.com.:80")
                && !below.holds("example.com")
                && !below.holds(".example.com")
        );
        let is = Host::Is("example.com".to_owned());
        assert!(is.holds("EXAMPLE.com:80") && !is.holds("a.example.com"));
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
