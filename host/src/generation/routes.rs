//! Which rule serves a request: the first in the document that matches. Knows host names and paths of
//! rules; nothing of services, plugins or HTTP.

use std::collections::HashMap;

use adit_address::Readings;
use regex::Regex;

use crate::config::plan::{HostPattern, Paths, Rule};

/// The rules of a plan, arranged so that finding one does not walk past those of other hosts.
///
/// Every pattern is a node that lists its rules; each node points to the next wider pattern, the
/// last of which is "any host". The patterns that match a host are then one node and all that it
/// points to, and the answer is the lowest rule of theirs whose path matches.
#[derive(Debug)]
pub struct Routes {
    paths: Vec<Option<Regex>>,
    /// By rule: whether its service wants paths that others read otherwise.
    as_sent: Vec<bool>,
    nodes: Vec<Node>,
    exact: HashMap<Box<str>, usize>,
    /// By suffix, with its leading dot.
    wildcards: HashMap<Box<str>, usize>,
    /// Most dots of a wildcard's suffix: longer ones of a visitor's host need no look-up.
    deepest: usize,
}

/// A path that is one rule's as rules read it, and another's as servers may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclear {
    pub rule: Option<usize>,
    /// `None` if the path has too many readings to ask.
    pub other: Option<Option<usize>>,
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
            as_sent: rules.iter().map(|rule| rule.paths == Paths::AsSent).collect(),
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

    /// The index of the first rule that matches. `host` is a name as [`adit_address::host`] gives it; `path`
    /// is the path of the request without its query, as it was sent. Rules see it with its escapes undone.
    ///
    /// # Errors
    /// Where servers may read the path in a way for which there is another rule: whatever stands before that
    /// one would be passed by.
    pub fn find(&self, host: &str, path: &str) -> Result<Option<usize>, Unclear> {
        let start = self.narrowest(host);
        let Some(first) = self.lowest(start, 0) else { return Ok(None) };
        if self.paths[first].is_none() {
            return Ok(Some(first));
        }
        let readings = Readings::of(path);
        let rule = self.choose(start, readings.first());
        if rule.is_some_and(|rule| self.as_sent[rule]) {
            return Ok(rule);
        }
        let mut others = readings.others().map(|reading| self.choose(start, reading));
        match others.find(|other| *other != rule) {
            Some(other) => Err(Unclear { rule, other: Some(other) }),
            None if readings.is_complete() => Ok(rule),
            None => Err(Unclear { rule, other: None }),
        }
    }

    /// The first rule for a host of this node and a path that reads so.
    fn choose(&self, start: usize, path: &str) -> Option<usize> {
        let mut least = 0;
        loop {
            let rule = self.lowest(start, least)?;
            match &self.paths[rule] {
                Some(regex) if !regex.is_match(path) => least = rule + 1,
                Some(_) | None => return Some(rule),
            }
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
            path: (path != "-").then(|| Regex::new(path.trim_end_matches(" as-sent")).unwrap()),
            paths: if path.ends_with(" as-sent") { Paths::AsSent } else { Paths::Checked },
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
            assert_eq!(routes.find(host, path), Ok(Some(rule)), "{host}{path}");
        }
    }

    #[test]
    fn a_wildcard_covers_every_depth_but_not_the_name_itself() {
        let routes = routes(&[("*.example.com", "-")]);
        assert_eq!(routes.find("a.example.com", "/"), Ok(Some(0)));
        assert_eq!(routes.find("a.b.c.example.com", "/"), Ok(Some(0)));
        for host in ["example.com", ".example.com", "badexample.com", "a.example.com.org", "com", "."] {
            assert_eq!(routes.find(host, "/"), Ok(None), "{host}");
        }
    }

    #[test]
    fn a_path_is_searched_anywhere_and_with_its_encoding_undone() {
        let routes = routes(&[("*", "private"), ("*", "^/grün$"), ("*", "^/100%$"), ("*", "-")]);
        for (path, rule) in [
            ("/x/private/y", 0),
            ("/%70rivate", 0),
            ("/%70%72%69%76%61%74%65", 0),
            ("/%2570", 3),
            ("/gr%C3%BCn", 1),
            ("/gr%c3%bcn", 1),
            ("/100%", 2),
            ("/100%25", 2),
            ("/100%2", 3),
            ("/%ff%", 3),
            ("*", 3),
        ] {
            assert_eq!(routes.find("any", path), Ok(Some(rule)), "{path}");
        }
    }

    /// The rules of the README: a guarded path, and the rest of the same host.
    const GUARDED: &[(&str, &str)] = &[("app.test", "^/private"), ("app.test", "-"), ("*", "-")];

    #[test]
    fn a_path_that_may_be_anothers_is_nobodys() {
        let routes = routes(GUARDED);
        for path in ["/private/x", "/%70rivate/x", "/private%2fx", "/private;v=1/x", "/private"] {
            assert_eq!(routes.find("app.test", path), Ok(Some(0)), "{path}");
        }
        for path in [
            "/",
            "/x/private",
            "/x//y",
            "/x;v=1/y",
            "/a/../b",
            "/100%25",
            "/a%2fb",
            "/.well-known/x",
            "/x%20y",
        ] {
            assert_eq!(routes.find("app.test", path), Ok(Some(1)), "{path}");
        }
        for path in [
            "//private/x",
            "/./private/x",
            "/x/../private/x",
            "/%2fprivate/x",
            "/x/..%2fprivate/x",
            "/%2570rivate",
            "/x/%252e%252e/private",
            "/x\\..\\private",
            "/x/..;a/private",
            "/;a/private",
            "/private/../x",
            "/private%2f..%2fx",
            // The other one is found only where some steps are left out.
            "//private/y/../x",
            "/y/../private//../x",
            "/y%2fz/../private/x",
        ] {
            let unclear = routes.find("app.test", path).unwrap_err();
            assert_eq!([unclear.rule, unclear.other.unwrap()].iter().flatten().sum::<usize>(), 1, "{path}");
        }
        let endless = "/a;%3b%252f//..%5c\\%2e%2e%255c;/%253b%2f".repeat(40);
        assert_eq!(routes.find("app.test", &endless), Err(Unclear { rule: Some(1), other: None }));
        // Where all paths are one rule's, nothing is to be guarded.
        assert_eq!(routes.find("other.test", &endless), Ok(Some(2)));
        assert_eq!(routes.find("other.test", "//private"), Ok(Some(2)));
    }

    #[test]
    fn a_rule_can_take_paths_as_they_are_sent() {
        let open = routes(&[("app.test", "^/private"), ("app.test", "as-sent as-sent"), ("app.test", "-")]);
        assert_eq!(open.find("app.test", "/as-sent/../private"), Ok(Some(1)));
        assert!(open.find("app.test", "//private").is_err());
    }

    #[test]
    fn a_line_break_in_a_path_is_a_letter_of_it() {
        let plan = config::tests::plan(
            "[[ingress]]\npath = \"^/.*/admin\"\nservice = \"hello_world\"\n[[ingress]]\nservice = \"http_status:404\"\n",
        );
        // Behind a server that ends texts there it would be another's, so it is nobody's.
        let unclear = Unclear { rule: Some(0), other: Some(Some(1)) };
        assert_eq!(Routes::new(&plan.rules).find("", "/a%0ab/admin"), Err(unclear));
    }

    #[test]
    fn without_a_rule_for_a_host_there_is_no_route() {
        assert_eq!(routes(&[]).find("a", "/"), Ok(None));
        assert_eq!(routes(&[("a", "^/x")]).find("a", "/y"), Ok(None));
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
                prop_assert_eq!(routes.find(host, path), Ok(expected), "{}{}", host, path);
                let disguised = format!("{}.:8080", host.to_uppercase());
                prop_assert_eq!(routes.find(&adit_address::host(&disguised).unwrap(), path), Ok(expected));
            }
        }

        #[test]
        fn no_host_and_no_path_can_make_it_panic(host in ".{0,40}", path in ".{0,40}") {
            let routes = routes(&[("*.a.b", "x"), ("a", "-"), ("*", "%")]);
            let _ = routes.find(&host, &path);
        }
    }
}
