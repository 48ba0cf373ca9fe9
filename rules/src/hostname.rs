//! Host names as rules write them. Knows names; does not know what a rule is.

use crate::plan::HostPattern;
use crate::value::Invalid;

impl HostPattern {
    /// Reads `*`, `app.example.com` or `*.example.com`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.is_empty() {
            return Err(Invalid::with_help(
                "this host name is empty",
                "leave `hostname` out to match every host",
            ));
        }
        if let Some((_, rest)) = text.split_once("://") {
            let name = rest.split(['/', '?', '#', ':']).next().unwrap_or_default();
            return Err(Invalid::with_help("this is a URL, not a host name", format!("write \"{name}\"")));
        }
        if let Some((name, _)) = text.split_once('/') {
            let help = format!("write \"{name}\", and the rest as a regular expression in `path`");
            return Err(Invalid::with_help("a host name has no path", help));
        }
        if let Some((name, _)) = text.split_once(':') {
            return Err(Invalid::with_help("a host name has no port", format!("write \"{name}\"")));
        }
        let (is_wildcard, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if name.contains('*') {
            let message = "`*` can only be the whole first label of a host name";
            return Err(Invalid::with_help(
                message,
                "write \"*.example.com\", or use `path` for finer rules",
            ));
        }
        let name = self::name(name)?;
        Ok(if is_wildcard { Self::Wildcard(format!(".{name}")) } else { Self::Exact(name) })
    }
}

/// Reads one whole name, without wildcard: lower case, without a trailing dot, in punycode.
pub fn name(text: &str) -> Result<String, Invalid> {
    let name = ascii(text)?;
    check_labels(&name)?;
    Ok(name)
}

/// Lower case, without a trailing dot, in punycode: the form in which visitors ask for it.
fn ascii(name: &str) -> Result<String, Invalid> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_ascii() {
        return Ok(name.to_ascii_lowercase());
    }
    idna::domain_to_ascii(name).map_err(|_| Invalid::new("this is not an international host name"))
}

fn check_labels(name: &str) -> Result<(), Invalid> {
    if name.len() > LONGEST_NAME {
        return Err(Invalid::new(format!("a host name has at most {LONGEST_NAME} characters")));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(Invalid::new("this host name has an empty label"));
        }
        if label.len() > LONGEST_LABEL {
            return Err(Invalid::new(format!(
                "a label of a host name has at most {LONGEST_LABEL} characters"
            )));
        }
        if let Some(odd) = label.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
            return Err(Invalid::new(format!("{odd:?} cannot be in a host name")));
        }
    }
    Ok(())
}

/// RFC 1035, section 2.3.4, less the length bytes at both ends.
const LONGEST_NAME: usize = 253;

/// RFC 1035, section 2.3.4.
const LONGEST_LABEL: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read_in_lower_case() {
        let exact = |name: &str| HostPattern::Exact(name.into());
        for (text, pattern) in [
            ("*", HostPattern::Any),
            ("App.Example.COM", exact("app.example.com")),
            ("app.example.com.", exact("app.example.com")),
            ("localhost", exact("localhost")),
            ("_svc.my-app.example", exact("_svc.my-app.example")),
            ("127.0.0.1", exact("127.0.0.1")),
            ("Bücher.example", exact("xn--bcher-kva.example")),
            ("*.Example.com", HostPattern::Wildcard(".example.com".into())),
            ("*.bücher.example", HostPattern::Wildcard(".xn--bcher-kva.example".into())),
        ] {
            assert_eq!(HostPattern::parse(text), Ok(pattern), "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused_with_the_reason() {
        let long_label = "a".repeat(64);
        let long_name = "a.".repeat(127) + "a";
        for (text, message) in [
            ("", "is empty"),
            ("app.example.com:443", "no port"),
            ("app.example.com/x", "no path"),
            ("https://app.example.com/", "a URL"),
            ("a.*.example.com", "first label"),
            ("*app.example.com", "first label"),
            ("**", "first label"),
            ("*.*.com", "first label"),
            ("*.", "empty label"),
            (".", "empty label"),
            ("a..b", "empty label"),
            (".example.com", "empty label"),
            ("app example.com", "' ' cannot be"),
            ("a\n.com", "'\\n' cannot be"),
            (&long_label, "at most 63"),
            (&long_name, "at most 253"),
        ] {
            let wrong = HostPattern::parse(text).unwrap_err();
            assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
        }
    }
}
