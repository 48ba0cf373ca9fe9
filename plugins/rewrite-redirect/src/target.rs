//! What becomes of a request.

use std::fmt::Write as _;

use settings::path;

use crate::plan::{Path, Plan, Rule, without_port};

/// A request, as far as rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub scheme: &'a str,
    pub authority: &'a str,
    pub path_with_query: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Stays,
    /// It goes on; none means unchanged.
    Goes {
        authority: Option<String>,
        path_with_query: Option<String>,
    },
    Redirect {
        status: u16,
        location: String,
    },
}

impl Plan {
    pub fn apply(&self, asked: Asked<'_>) -> Outcome {
        self.rules.iter().find_map(|rule| rule.apply(asked)).unwrap_or(Outcome::Stays)
    }
}

impl Rule {
    /// `None` if its conditions do not hold.
    fn apply(&self, asked: Asked<'_>) -> Option<Outcome> {
        if self.scheme.is_some_and(|scheme| scheme != asked.scheme)
            || self.host.as_ref().is_some_and(|host| !host.holds(asked.authority))
        {
            return None;
        }
        let path_with_query = self.path(asked.path_with_query)?;
        let Some(status) = self.status else {
            return Some(Outcome::Goes { authority: self.to.host.clone(), path_with_query });
        };
        let scheme = self.to.scheme.unwrap_or(asked.scheme);
        let authority = match &self.to.host {
            Some(host) => host,
            // A port belongs to one scheme.
            None if scheme != asked.scheme => without_port(asked.authority),
            None => asked.authority,
        };
        let path = path_with_query.unwrap_or_else(|| safe(asked.path_with_query));
        Some(Outcome::Redirect { status, location: format!("{scheme}://{authority}{path}") })
    }

    /// The new path with its query; inside, `None` if it stays. `None` if the path is not one of this rule.
    fn path(&self, asked: &str) -> Option<Option<String>> {
        let (path, query) = match asked.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (asked, None),
        };
        let mut changed = match (&self.path, &self.to.path) {
            (Path::Any, None) => None,
            (Path::Any, Some(to)) => Some(to.clone()),
            (Path::Prefix(prefix), to) => {
                let plain = path::plain(path);
                if !path::is_below(&plain, prefix) {
                    return None;
                }
                to.as_ref().map(|to| match below(path, prefix) {
                    Some(below) => joined(to, below),
                    // What goes on is then the plain form.
                    None => joined(to, &escaped(&plain[prefix.len()..])),
                })
            }
            (Path::Regex(regex), to) => {
                let found = regex.captures(path)?;
                to.as_ref().map(|to| {
                    let mut text = path[..found.get(0).map_or(0, |all| all.start())].to_owned();
                    found.expand(to, &mut text);
                    text.push_str(&path[found.get(0).map_or(path.len(), |all| all.end())..]);
                    text
                })
            }
        };
        if !self.keeps_query && changed.is_none() {
            changed = Some(path.to_owned());
        }
        let Some(mut changed) = changed else { return Some(None) };
        if let Some(query) = query.filter(|_| self.keeps_query) {
            changed.push(if changed.contains('?') { '&' } else { '?' });
            changed.push_str(query);
        }
        Some(Some(safe(&changed)))
    }
}

/// What follows the prefix in a path that is below it, letter for letter. `None` where it cannot be cut off
/// there, because what follows leads out of the prefix again.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let is_cut = |below: &&str| below.is_empty() || below.starts_with('/') || prefix.ends_with('/');
    if let Some(below) = path.strip_prefix(prefix).filter(is_cut).filter(|below| !leads_out(below)) {
        return Some(below);
    }
    // The prefix may be written in disguise, and end at any separator.
    let ends = path.char_indices().filter_map(|(at, letter)| {
        let length = match letter {
            '/' | '\\' => 1,
            '%' if path[at..]
                .get(..3)
                .is_some_and(|escape| ["%2f", "%2F", "%5c", "%5C"].contains(&escape)) =>
            {
                3
            }
            _ => return None,
        };
        Some((at, at + length))
    });
    let ends: Vec<_> = ends.skip(1).take(MOST_SEPARATORS).chain([(path.len(), path.len())]).collect();
    let is_end = |(end, next): &&(usize, usize)| {
        path::plain(&path[..*end]).trim_end_matches('/') == prefix.trim_end_matches('/')
            && !leads_out(&path[*next..])
    };
    ends.iter().rev().find(is_end).map(|(_, next)| &path[*next..])
}

/// Whether the dots of a relative path lead above where it begins.
fn leads_out(below: &str) -> bool {
    let inside = format!("{INSIDE}/{below}");
    !path::is_surely_below(&inside, &[INSIDE.to_owned()])
}

/// A prefix with what was below another one; exactly one slash between them.
fn joined(prefix: &str, below: &str) -> String {
    let (path, query) = prefix.split_once('?').map_or((prefix, None), |(path, query)| (path, Some(query)));
    let below = below.trim_start_matches('/');
    let mut joined = path.to_owned();
    if !below.is_empty() {
        if !joined.ends_with('/') {
            joined.push('/');
        }
        joined.push_str(below);
    }
    if let Some(query) = query {
        joined.push('?');
        joined.push_str(query);
    }
    joined
}

/// A path segment text that was resolved may hold what would end the path.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '?' | '#' | '%') {
            let _ = write!(escaped, "%{:02X}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Fit for a request line and a Location header: begins with one slash, and what is neither visible ASCII
/// nor harmless is escaped. Two slashes at the beginning would name another host (RFC 3986 section 4.2).
fn safe(path_with_query: &str) -> String {
    let mut safe = String::with_capacity(path_with_query.len() + 1);
    safe.push('/');
    for byte in path_with_query.trim_start_matches(['/', '\\']).bytes() {
        if byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

/// A path that no visitor writes.
const INSIDE: &str = "/\u{1f573}";
/// Of a path, that are looked at: who disguises a prefix among more of them gets the plain form.
const MOST_SEPARATORS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rules: &str, scheme: &str, authority: &str, path_with_query: &str) -> Outcome {
        let plan = Plan::read(&format!(r#"{{"rules": {rules}}}"#)).unwrap();
        plan.apply(Asked { scheme, authority, path_with_query })
    }

    fn path(rules: &str, asked: &str) -> Option<String> {
        match outcome(rules, "https", "a.example", asked) {
            Outcome::Stays => None,
            Outcome::Goes { path_with_query, .. } => path_with_query,
            Outcome::Redirect { location, .. } => Some(location),
        }
    }

    #[test]
    fn http_becomes_https_and_keeps_path_and_query() {
        let rules = r#"[{"scheme": "http", "to-scheme": "https", "status": 308}]"#;
        assert_eq!(
            outcome(rules, "http", "a.example:8080", "/x?y=1"),
            Outcome::Redirect { status: 308, location: "https://a.example/x?y=1".to_owned() }
        );
        assert_eq!(outcome(rules, "https", "a.example", "/x"), Outcome::Stays);
    }

    #[test]
    fn one_host_leads_to_another() {
        let rules = r#"[{"host": "www.a.example", "to-host": "a.example", "status": 301}]"#;
        let Outcome::Redirect { location, .. } = outcome(rules, "https", "WWW.a.example:443", "/x?y") else {
            panic!("it leads on");
        };
        assert_eq!(location, "https://a.example/x?y");
        // Without a status the origin is asked under another name.
        let rules = r#"[{"to-host": "inner.example:81"}]"#;
        assert_eq!(
            outcome(rules, "https", "a.example", "/x"),
            Outcome::Goes { authority: Some("inner.example:81".to_owned()), path_with_query: None }
        );
    }

    #[test]
    fn a_prefix_is_replaced_and_what_is_below_stays() {
        let rules = r#"[{"prefix": "/old", "to-path": "/new"}]"#;
        for (asked, becomes) in [
            ("/old", Some("/new")),
            ("/old/", Some("/new")),
            ("/old/a/b?c=d", Some("/new/a/b?c=d")),
            ("/older", None),
            ("/%6fld/a", Some("/new/a")),
            ("/old/%3fa", Some("/new/%3fa")),
            ("/old/a%20b", Some("/new/a%20b")),
            ("/old/%c3%bc", Some("/new/%c3%bc")),
            ("/old/%ff", Some("/new/%ff")),
            ("/old/a/../b%3f", Some("/new/a/../b%3f")),
            ("/old/a%2fb", Some("/new/a%2fb")),
            ("/%6fld/a%2Fb%20c", Some("/new/a%2Fb%20c")),
            ("/old%2fa%2fb", Some("/new/a%2fb")),
            ("/x/..%2fold/a%5Cb", Some("/new/a%5Cb")),
            ("//old//a%2e", Some("/new/a%2e")),
            ("/old/a;v=1/b", Some("/new/a;v=1/b")),
            ("/old/100%25", Some("/new/100%25")),
            ("/old/a%2f..%2f..%2f..%2fold%2fb", Some("/new/b")),
            ("/old/../old/x", Some("/new/x")),
            ("/old/../../old/x", Some("/new/x")),
            ("/old/../x", None),
        ] {
            assert_eq!(path(rules, asked).as_deref(), becomes, "{asked}");
        }
        assert_eq!(path(r#"[{"prefix": "/api/", "to-path": "/"}]"#, "/api/x").as_deref(), Some("/x"));
        assert_eq!(
            path(r#"[{"prefix": "/a", "to-path": "/b?v=1"}]"#, "/a/x?y").as_deref(),
            Some("/b/x?v=1&y")
        );
    }

    #[test]
    fn a_pattern_gives_its_groups() {
        let rules = r#"[{"regex": "^/u/([0-9]+)$", "to-path": "/users/$1/${1}x"}]"#;
        assert_eq!(path(rules, "/u/12?q").as_deref(), Some("/users/12/12x?q"));
        assert_eq!(path(rules, "/u/ab"), None);
        // What the pattern did not match stays.
        assert_eq!(
            path(r#"[{"regex": "/v1/", "to-path": "/v2/"}]"#, "/api/v1/x").as_deref(),
            Some("/api/v2/x")
        );
        assert_eq!(path(r#"[{"to-path": "/x", "query": "drop"}]"#, "/a?b").as_deref(), Some("/x"));
    }

    #[test]
    fn no_path_leads_to_a_host_of_the_visitors_choice() {
        let rules = r#"[{"regex": "^/go(.*)$", "to-path": "/$1", "status": 302}]"#;
        for asked in ["/go//evil.example", "/go/\\evil.example", "/go\\\\evil.example", "/go/%0d%0ax"] {
            let location = path(rules, asked).unwrap();
            let rest = location.strip_prefix("https://a.example/").unwrap_or_else(|| panic!("{location}"));
            assert!(!rest.starts_with(['/', '\\']), "{location}");
            assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{location}");
        }
    }

    #[test]
    fn the_first_rule_that_holds_is_the_one() {
        let rules = r#"[{"prefix": "/a/b", "to-path": "/1"}, {"prefix": "/a", "to-path": "/2"}]"#;
        assert_eq!(path(rules, "/a/b").as_deref(), Some("/1"));
        assert_eq!(path(rules, "/a/c").as_deref(), Some("/2/c"));
    }
}
