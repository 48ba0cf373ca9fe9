//! Which host name belongs to which tunnel. Knows exact names and leading wildcards; does not know
//! what a tunnel is.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use adit_rules::plan::HostPattern;
use thiserror::Error;

/// A public host name as an operator writes it, in the form in which visitors ask for it: in lower case and in
/// punycode, without a final dot. The same names as in the rules of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum HostName {
    Exact(String),
    /// What stands behind the `*`, dot included: `.example.com`.
    Wildcard(String),
}

/// Why a text is no host name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub(crate) struct NoHostName(String);

impl FromStr for HostName {
    type Err = NoHostName;

    fn from_str(text: &str) -> Result<Self, NoHostName> {
        match HostPattern::parse(text).map_err(|wrong| NoHostName(wrong.message))? {
            HostPattern::Exact(name) => Ok(Self::Exact(name)),
            HostPattern::Wildcard(suffix) => Ok(Self::Wildcard(suffix)),
            HostPattern::Any => Err(NoHostName("`*` stands before a name, as in `*.example.com`".to_owned())),
        }
    }
}

impl fmt::Display for HostName {
    /// As certificates, rules and the API write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// All configured host names with what they lead to.
pub(crate) struct HostNames<T> {
    exact: HashMap<String, T>,
    wildcards: HashMap<String, T>,
}

impl<T> Default for HostNames<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcards: HashMap::new() }
    }
}

impl<T> HostNames<T> {
    pub(crate) fn new(names: impl IntoIterator<Item = (HostName, T)>) -> Self {
        let mut table = Self { exact: HashMap::new(), wildcards: HashMap::new() };
        for (name, target) in names {
            match name {
                HostName::Exact(name) => table.exact.insert(name, target),
                HostName::Wildcard(suffix) => table.wildcards.insert(suffix, target),
            };
        }
        table
    }

    /// Every name with what it leads to, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (HostName, &T)> {
        let exact = self.exact.iter().map(|(name, target)| (HostName::Exact(name.clone()), target));
        exact.chain(self.wildcards.iter().map(|(name, target)| (HostName::Wildcard(name.clone()), target)))
    }

    /// What the host of an authority leads to: an exact name first, then the longest wildcard. Case,
    /// port and a final dot make no difference. A wildcard stands for one or more labels.
    pub(crate) fn find(&self, authority: &str) -> Option<&T> {
        let (_, target) = self.entry(&adit_address::host(authority).ok()?)?;
        Some(target)
    }

    /// By which of the names [`HostNames::find`] finds it.
    pub(crate) fn name_of(&self, authority: &str) -> Option<HostName> {
        let host = adit_address::host(authority).ok()?;
        let (name, _) = self.entry(&host)?;
        let is_exact = !name.starts_with('.');
        Some(if is_exact { HostName::Exact(name.clone()) } else { HostName::Wildcard(name.clone()) })
    }

    fn entry(&self, host: &str) -> Option<(&String, &T)> {
        if let Some(entry) = self.exact.get_key_value(host) {
            return Some(entry);
        }
        if self.wildcards.is_empty() {
            return None;
        }
        // From the left, so that the longest suffix comes first; `find` from 1 because a wildcard
        // needs something in front of its dot.
        let dots = host.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        dots.map(|(at, _)| &host[at..]).find_map(|suffix| self.wildcards.get_key_value(suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_exact_or_has_one_leading_wildcard() {
        assert_eq!("App.Example.COM".parse(), Ok(HostName::Exact("app.example.com".into())));
        assert_eq!("*.Example.com".parse(), Ok(HostName::Wildcard(".example.com".into())));
        assert_eq!("localhost".parse(), Ok(HostName::Exact("localhost".into())));
        assert_eq!("B\u{fc}cher.example.".parse(), Ok(HostName::Exact("xn--bcher-kva.example".into())));
        let wildcard: HostName = "*.b\u{fc}cher.example".parse().unwrap();
        assert_eq!(wildcard.to_string(), "*.xn--bcher-kva.example");
        for (text, error) in [
            ("", "is empty"),
            (".example.com", "an empty label"),
            ("*", "before a name"),
            ("a.*.com", "first label"),
            ("example.com:80", "no port"),
            ("http://example.com", "a URL"),
            ("exa mple.com", "' ' cannot be"),
        ] {
            let refused = text.parse::<HostName>().unwrap_err().to_string();
            assert!(refused.contains(error), "{text}: {refused}");
        }
    }

    #[test]
    fn an_exact_name_wins_then_the_longest_wildcard() {
        let names = ["app.example.com", "*.example.com", "*.deep.example.com", "*.com", "*.localhost"];
        let table = HostNames::new(names.map(|name| (name.parse().unwrap(), name)));
        for (authority, wanted) in [
            ("app.example.com", Some("app.example.com")),
            ("APP.Example.Com:8443", Some("app.example.com")),
            ("app.example.com.", Some("app.example.com")),
            ("app.example.com.:80", Some("app.example.com")),
            ("other.example.com", Some("*.example.com")),
            ("a.b.example.com", Some("*.example.com")),
            ("a.deep.example.com", Some("*.deep.example.com")),
            ("deep.example.com", Some("*.example.com")),
            ("example.com", Some("*.com")),
            ("com", None),
            (".com", None),
            ("a.localhost:8080", Some("*.localhost")),
            ("localhost", None),
            ("", None),
            (".", None),
            ("..", None),
            (":80", None),
            ("[::1]:80", None),
            ("[::1", None),
        ] {
            assert_eq!(table.find(authority).copied(), wanted, "{authority}");
            assert_eq!(
                table.name_of(authority).map(|name| name.to_string()).as_deref(),
                wanted,
                "{authority}"
            );
        }
    }
}
