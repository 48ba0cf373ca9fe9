//! Which rule serves a request: the first in the document that matches. Knows host names and paths of
//! rules; nothing of services, plugins or HTTP.

use std::borrow::Cow;
use std::collections::HashMap;

use regex::Regex;

use crate::config::plan::{HostPattern, Rule};

/// The rules of a plan, arranged so that finding one does not walk past those of other hosts.
///
/// Every pattern is a node that lists its rules; each node points to the next wider pattern, the
/// last of which is "any host". The patterns that match a host are then one node and all that it
/// points to, and the answer is the lowest rule of theirs whose path matches.
#[derive(Debug)]
pub struct Routes {
    paths: Vec<Option<Regex>>,
    nodes: Vec<Node>,
    exact: HashMap<Box<str>, usize>,
    /// By suffix, with its leading dot.
    wildcards: HashMap<Box<str>, usize>,
    /// Most dots of a wildcard's suffix: longer ones of a visitor's host need no look-up.
    deepest: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// Rules of this pattern, lowest first.
    rules: Vec<usize>,
    /// The next wider pattern; "any host" has none.
    wider: Option<usize>,
}

impl Routes {
    /// Arranges the rules of a plan.
    pub fn new(rules: &[Rule]) -> Self {
        let mut routes = Self {
            paths: rules.iter().map(|rule| rule.path.clone()).collect(),
            nodes: vec![Node::default()],
            exact: HashMap::new(),
            wildcards: HashMap::new(),
            deepest: 0,
        };
        for (index, rule) in rules.iter().enumerate() {
            let node = routes.node(&rule.hostname);
            routes.nodes[node].rules.push(index);
        }
        routes.link();
        routes
    }

    /// The index of the first rule that matches. `host` is a Host header or authority: a port, upper
    /// case and a trailing dot do not matter. `path` is the path of the request without its query; as
    /// origins do, rules see it with its percent-encoding undone.
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        let host = fold(host);
        let start = self.narrowest(&host);
        let mut decoded = None;
        let mut least = 0;
        loop {
            let rule = self.lowest(start, least)?;
            let Some(regex) = &self.paths[rule] else { return Some(rule) };
            if regex.is_match(decoded.get_or_insert_with(|| decode(path))) {
                return Some(rule);
            }
            least = rule + 1;
        }
    }

    /// The lowest rule from `least` on, of this node and all wider ones.
    fn lowest(&self, start: usize, least: usize) -> Option<usize> {
        let mut lowest = None;
        let mut at = Some(start);
        while let Some(node) = at.map(|at| &self.nodes[at]) {
            let first = node.rules.partition_point(|rule| *rule < least);
            lowest = lowest.into_iter().chain(node.rules.get(first).copied()).min();
            at = node.wider;
        }
        lowest
    }

    /// The node of the narrowest pattern that matches this host.
    fn narrowest(&self, host: &str) -> usize {
        if let Some(node) = self.exact.get(host) {
            return *node;
        }
        let dots = host.rmatch_indices('.').take(self.deepest).filter(|(dot, _)| *dot > 0);
        dots.filter_map(|(dot, _)| self.wildcards.get(&host[dot..])).last().copied().unwrap_or(ANY)
    }

    /// The node of a pattern; a new one if it has none yet.
    fn node(&mut self, pattern: &HostPattern) -> usize {
        let new = self.nodes.len();
        let node = match pattern {
            HostPattern::Any => ANY,
            HostPattern::Exact(name) => *self.exact.entry(name.as_str().into()).or_insert(new),
            HostPattern::Wildcard(suffix) => {
                self.deepest = self.deepest.max(suffix.matches('.').count());
                *self.wildcards.entry(suffix.as_str().into()).or_insert(new)
            }
        };
        if node == new {
            self.nodes.push(Node { rules: Vec::new(), wider: Some(ANY) });
        }
        node
    }

    /// Points each node to the next wider one.
    fn link(&mut self) {
        for (name, node) in self.exact.iter().chain(&self.wildcards) {
            let suffixes = name.match_indices('.').filter(|(dot, _)| *dot > 0);
            let wider = suffixes.filter_map(|(dot, _)| self.wildcards.get(&name[dot..])).next();
            self.nodes[*node].wider = Some(wider.copied().unwrap_or(ANY));
        }
    }
}

/// The host as patterns are written: no port, no trailing dot, lower case.
fn fold(host: &str) -> Cow<'_, str> {
    let name = match host.split_once(':') {
        // An IPv6 address is in brackets; a colon outside of them is before the port.
        Some(_) if host.starts_with('[') => host.find(']').map_or(host, |end| &host[..=end]),
        Some((name, port)) if !port.contains(':') => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// Undoes percent-encoding, as the reference connector does before it matches: otherwise
/// `/%70rivate` would pass by a rule for `/private` and still reach it at the origin. What is not
/// UTF-8 afterwards becomes U+FFFD.
fn decode(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let byte = match after {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        decoded.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The node of "any host".
const ANY: usize = 0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config;
    use crate::config::plan::Service;

    /// Rules in the notation `host path`; either may be `-`.
    fn rules(written: &[(String, String)]) -> Vec<Rule> {
        let mut plan = config::tests::plan("[[ingress]]\nservice = \"hello_world\"\n");
        let rule = plan.rules.remove(0);
        assert_eq!(rule.service, Service::HelloWorld);
        let rules = written.iter().map(|(host, path)| Rule {
            hostname: HostPattern::parse(host).unwrap(),
            path: (path != "-").then(|| Regex::new(path).unwrap()),
            ..rule.clone()
        });
        rules.collect()
    }

    fn routes(written: &[(&str, &str)]) -> Routes {
        let written: Vec<_> =
            written.iter().map(|(host, path)| (host.to_string(), path.to_string())).collect();
        Routes::new(&rules(&written))
    }

    /// The same question answered by walking all rules.
    fn naive(rules: &[Rule], host: &str, path: &str) -> Option<usize> {
        rules.iter().position(|rule| {
            let is_host = match &rule.hostname {
                HostPattern::Any => true,
                HostPattern::Exact(name) => name == host,
                HostPattern::Wildcard(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            };
            is_host && rule.path.as_ref().is_none_or(|regex| regex.is_match(path))
        })
    }

    #[test]
    fn the_first_rule_in_the_document_wins_whatever_its_kind() {
        let routes = routes(&[
            ("a.example.com", "^/one"),
            ("*", "^/two"),
            ("*.example.com", "^/three"),
            ("a.example.com", "-"),
            ("*.com", "-"),
            ("*.example.com", "-"),
            ("*", "-"),
        ]);
        for (host, path, rule) in [
            ("a.example.com", "/one", 0),
            ("a.example.com", "/two", 1),
            ("a.example.com", "/three", 2),
            ("a.example.com", "/four", 3),
            ("b.example.com", "/one", 4),
            ("b.example.com", "/three", 2),
            ("example.com", "/", 4),
            ("com", "/", 6),
            ("other.org", "/two", 1),
            ("other.org", "/", 6),
            ("", "/", 6),
        ] {
            assert_eq!(routes.find(host, path), Some(rule), "{host}{path}");
        }
    }

    #[test]
    fn a_wildcard_covers_every_depth_but_not_the_name_itself() {
        let routes = routes(&[("*.example.com", "-")]);
        assert_eq!(routes.find("a.example.com", "/"), Some(0));
        assert_eq!(routes.find("a.b.c.example.com", "/"), Some(0));
        for host in ["example.com", ".example.com", "badexample.com", "a.example.com.org", "com", "."] {
            assert_eq!(routes.find(host, "/"), None, "{host}");
        }
    }

    #[test]
    fn port_case_and_trailing_dot_of_the_host_do_not_matter() {
        let routes = routes(&[("app.example.com", "-"), ("*.Example.org", "-")]);
        for host in ["APP.example.com", "app.example.com.", "app.example.com:8443", "App.Example.Com.:80"] {
            assert_eq!(routes.find(host, "/"), Some(0), "{host}");
        }
        assert_eq!(routes.find("x.EXAMPLE.org:1", "/"), Some(1));
        for host in ["[::1]", "[::1]:80", "::1", ":80", "app.example.com..", "[", "app.example.com:80:80"] {
            assert_eq!(routes.find(host, "/"), None, "{host}");
        }
    }

    #[test]
    fn a_path_is_searched_anywhere_and_with_its_encoding_undone() {
        let routes = routes(&[("*", "private"), ("*", "^/grün$"), ("*", "^/100%$"), ("*", "-")]);
        for (path, rule) in [
            ("/x/private/y", 0),
            ("/%70rivate", 0),
            ("/%70%72%69%76%61%74%65", 0),
            ("/%2570rivate", 3),
            ("/gr%C3%BCn", 1),
            ("/gr%c3%bcn", 1),
            ("/100%", 2),
            ("/100%25", 2),
            ("/100%2", 3),
            ("/%ff%", 3),
            ("*", 3),
        ] {
            assert_eq!(routes.find("any", path), Some(rule), "{path}");
        }
    }

    #[test]
    fn without_a_rule_for_a_host_there_is_no_route() {
        assert_eq!(routes(&[]).find("a", "/"), None);
        assert_eq!(routes(&[("a", "^/x")]).find("a", "/y"), None);
    }

    fn label() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b"])
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec(label(), 1..5).prop_map(|labels| labels.join("."))
    }

    fn pattern() -> impl Strategy<Value = String> {
        prop_oneof![1 => Just("*".to_owned()), 4 => name(), 4 => name().prop_map(|name| format!("*.{name}"))]
    }

    proptest! {
        #[test]
        fn finding_a_rule_agrees_with_walking_all_of_them(
            written in prop::collection::vec(
                (pattern(), prop::sample::select(vec!["-", "^/a", "b", "c$"]).prop_map(str::to_owned)),
                0..24,
            ),
            visits in prop::collection::vec((name(), "/[abc]{0,3}"), 1..24),
        ) {
            let rules = rules(&written);
            let routes = Routes::new(&rules);
            for (host, path) in &visits {
                let expected = naive(&rules, host, path);
                prop_assert_eq!(routes.find(host, path), expected, "{}{}", host, path);
                let disguised = format!("{}.:8080", host.to_uppercase());
                prop_assert_eq!(routes.find(&disguised, path), expected);
            }
        }

        #[test]
        fn no_host_and_no_path_can_make_it_panic(host in ".{0,40}", path in ".{0,40}") {
            let routes = routes(&[("*.a.b", "x"), ("a", "-"), ("*", "%")]);
            routes.find(&host, &path);
        }
    }
}
