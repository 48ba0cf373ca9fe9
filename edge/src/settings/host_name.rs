//! Which host name belongs to which tunnel. Knows exact names and leading wildcards; does not know
//! what a tunnel is.

use std::collections::HashMap;
use std::str::FromStr;

use thiserror::Error;

/// A public host name as an operator writes it, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum HostName {
    Exact(String),
    /// What stands behind the `*`, dot included: `.example.com`.
    Wildcard(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum HostNameError {
    #[error("it is longer than {LONGEST_NAME} characters")]
    TooLong,
    #[error("a wildcard stands alone at the beginning, as in `*.example.com`")]
    Wildcard,
    #[error("a host name has no port")]
    Port,
    #[error("a part between dots is empty or longer than {LONGEST_LABEL} characters")]
    Label,
    #[error("only letters, digits, `-` and `_` may stand between dots (other letters in their `xn--` form)")]
    Letter,
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<Self, HostNameError> {
        let folded = text.to_ascii_lowercase();
        let (name, wildcard) = match folded.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (folded.as_str(), false),
        };
        if name.len() > LONGEST_NAME {
            return Err(HostNameError::TooLong);
        }
        if name.contains('*') {
            return Err(HostNameError::Wildcard);
        }
        if name.contains(':') {
            return Err(HostNameError::Port);
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > LONGEST_LABEL {
                return Err(HostNameError::Label);
            }
            if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
                return Err(HostNameError::Letter);
            }
        }
        Ok(if wildcard { Self::Wildcard(format!(".{name}")) } else { Self::Exact(name.to_owned()) })
    }
}

impl HostName {
    /// The name as a certificate writes it.
    pub(crate) fn for_certificate(&self) -> String {
        match self {
            Self::Exact(name) => name.clone(),
            Self::Wildcard(suffix) => format!("*{suffix}"),
        }
    }
}

/// All configured host names with what they lead to.
pub(crate) struct HostNames<T> {
    exact: HashMap<String, T>,
    wildcards: HashMap<String, T>,
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

    /// What the host of an authority leads to: an exact name first, then the longest wildcard. Case,
    /// port and a final dot make no difference. A wildcard stands for one or more labels.
    pub(crate) fn find(&self, authority: &str) -> Option<&T> {
        let host = adit_address::host(authority).ok()?;
        let host = &*host;
        if let Some(target) = self.exact.get(host) {
            return Some(target);
        }
        if self.wildcards.is_empty() {
            return None;
        }
        // From the left, so that the longest suffix comes first; `find` from 1 because a wildcard
        // needs something in front of its dot.
        let dots = host.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        dots.map(|(at, _)| &host[at..]).find_map(|suffix| self.wildcards.get(suffix))
    }
}

const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_exact_or_has_one_leading_wildcard() {
        assert_eq!("App.Example.COM".parse(), Ok(HostName::Exact("app.example.com".into())));
        assert_eq!("*.Example.com".parse(), Ok(HostName::Wildcard(".example.com".into())));
        assert_eq!("localhost".parse(), Ok(HostName::Exact("localhost".into())));
        let label = "a".repeat(64);
        let long = ["a"; 130].join(".");
        for (text, error) in [
            ("", HostNameError::Label),
            (".example.com", HostNameError::Label),
            ("example..com", HostNameError::Label),
            ("example.com.", HostNameError::Label),
            (label.as_str(), HostNameError::Label),
            (long.as_str(), HostNameError::TooLong),
            ("*", HostNameError::Wildcard),
            ("a.*.com", HostNameError::Wildcard),
            ("*.*.com", HostNameError::Wildcard),
            ("*a.com", HostNameError::Wildcard),
            ("example.com:80", HostNameError::Port),
            ("http://example.com", HostNameError::Port),
            ("exa mple.com", HostNameError::Letter),
            ("bücher.example", HostNameError::Letter),
            ("example.com/path", HostNameError::Letter),
        ] {
            assert_eq!(text.parse::<HostName>(), Err(error), "{text}");
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
        }
    }
}
