//! How a browser is told to keep something, and what it sends back (RFC 6265).

/// Cookies of one address.
#[derive(Clone, Copy, Debug)]
pub struct Jar<'a> {
    pub name: &'a str,
    /// Whether the visitor came by HTTPS.
    pub is_secure: bool,
}

impl Jar<'_> {
    /// What the cookie is called. Under the prefix no other address, of a subdomain or without HTTPS, can set one.
    fn full(&self, suffix: &str) -> String {
        let prefix = if self.is_secure { SECURE } else { "" };
        format!("{prefix}{}{suffix}", self.name)
    }

    /// `Set-Cookie` for a value that is kept so many seconds; 0 removes it.
    pub fn keep(&self, suffix: &str, value: &str, seconds: u64) -> (String, String) {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let name = self.full(suffix);
        let line = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        ("set-cookie".to_owned(), line)
    }

    /// The values of this name that a visitor sent.
    pub fn values<'a>(&self, suffix: &str, headers: &'a [(String, String)]) -> impl Iterator<Item = &'a str> {
        let name = self.full(suffix);
        pairs(headers)
            .filter_map(move |pair| pair.split_once('=').filter(|(known, _)| *known == name))
            .map(|(_, value)| value)
    }
}

/// The `Cookie` that the service gets: without those of this name, from wherever they were set. `None` if nothing changes,
/// and empty if nothing is left.
pub fn without(name: &str, headers: &[(String, String)]) -> Option<String> {
    let is_ours = |pair: &&str| {
        let known = pair.split_once('=').map_or(*pair, |(known, _)| known);
        let known = known.strip_prefix(SECURE).unwrap_or(known);
        known.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(LOGIN))
    };
    pairs(headers)
        .any(|pair| is_ours(&pair))
        .then(|| pairs(headers).filter(|pair| !is_ours(pair)).collect::<Vec<_>>().join("; "))
}

fn pairs(headers: &[(String, String)]) -> impl Iterator<Item = &str> {
    let lines = headers.iter().filter(|(name, _)| name == "cookie").flat_map(|(_, line)| line.split(';'));
    lines.map(str::trim).filter(|pair| !pair.is_empty())
}

/// Before a name that only this address, over HTTPS, can set.
const SECURE: &str = "__Host-";
/// Behind the name, of what is kept while somebody signs in.
pub const LOGIN: &str = "-login";

#[cfg(test)]
mod tests {
    use super::*;

    const JAR: Jar<'_> = Jar { name: "adit", is_secure: true };

    fn sent(lines: &[&str]) -> Vec<(String, String)> {
        lines.iter().map(|line| ("cookie".to_owned(), (*line).to_owned())).collect()
    }

    #[test]
    fn a_cookie_is_for_this_address_and_not_for_scripts() {
        let line = "__Host-adit=x; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(JAR.keep("", "x", 60), ("set-cookie".to_owned(), line.to_owned()));
        let plain = Jar { is_secure: false, ..JAR };
        assert_eq!(plain.keep("-login1", "", 0).1, "adit-login1=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn ours_are_found_and_do_not_go_on() {
        let headers = sent(&["a=1; __Host-adit=x", "__Host-adit-login2=y; adit=z; b"]);
        assert_eq!(JAR.values("", &headers).collect::<Vec<_>>(), ["x"]);
        assert_eq!(JAR.values("-login2", &headers).collect::<Vec<_>>(), ["y"]);
        // Whatever the visitor has of our name, by HTTPS or not.
        assert_eq!(without("adit", &headers).as_deref(), Some("a=1; b"));
        assert_eq!(without("adit", &sent(&["__Host-adit=x"])).as_deref(), Some(""));
        assert_eq!(without("adit", &sent(&["__Host-adits=x; aadit=y"])), None);
    }
}
