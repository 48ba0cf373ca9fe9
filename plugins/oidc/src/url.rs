//! Addresses and the fields of forms, as far as signing in needs them.

/// `name=value&…` (the URL standard's application/x-www-form-urlencoded).
pub fn form(fields: &[(&str, &str)]) -> String {
    let field = |(name, value): &(&str, &str)| format!("{}={}", encoded(name), encoded(value));
    fields.iter().map(field).collect::<Vec<_>>().join("&")
}

/// One value of a form.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// An address with more fields in its query.
pub fn with_query(address: &str, fields: &[(&str, &str)]) -> String {
    let separator = if address.contains('?') { '&' } else { '?' };
    format!("{address}{separator}{}", form(fields))
}

/// The fields of a query; `None` if one is there twice or is not UTF-8.
pub fn fields(path_with_query: &str) -> Option<Vec<(String, String)>> {
    let query = path_with_query.split_once('?').map_or("", |(_, query)| query);
    let mut fields: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        if fields.iter().any(|(known, _)| *known == name) {
            return None;
        }
        fields.push((name, value));
    }
    Some(fields)
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(rest.next()?)? << 4 | digit(rest.next()?)?
            }
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Whether what is sent there cannot be read or changed on its way: HTTPS, or an address of this machine.
pub fn is_safe(address: &str) -> bool {
    let rest = address.strip_prefix("https://").filter(|rest| !rest.is_empty() && !rest.starts_with('/'));
    let clean =
        address.bytes().all(|byte| byte.is_ascii_graphic()) && !address.contains(['#', '\\', '@', '"']);
    clean && (rest.is_some() || address.strip_prefix("http://").is_some_and(is_local))
}

/// Whether an authority, and whatever is behind it, names this machine.
pub fn is_local(authority: &str) -> bool {
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "127.0.0.1" || host == "::1" || host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back_and_twice_is_not_at_all() {
        let value = "a b&c=d/ü+%";
        let text = with_query("https://id.example/auth", &[("one", value), ("two", "")]);
        assert_eq!(text, "https://id.example/auth?one=a%20b%26c%3Dd%2F%C3%BC%2B%25&two=");
        let expected = vec![("one".to_owned(), value.to_owned()), ("two".to_owned(), String::new())];
        assert_eq!(fields(&text), Some(expected));
        assert_eq!(fields("/a?b=c+d"), Some(vec![("b".to_owned(), "c d".to_owned())]));
        assert_eq!(
            with_query("https://id.example/auth?p=1", &[("a", "b")]),
            "https://id.example/auth?p=1&a=b"
        );
        for bad in ["/?a=1&a=2", "/?a=%", "/?a=%f", "/?a=%gg", "/?a=%ff", "/?%61=1&a=2"] {
            assert_eq!(fields(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_https_is_safe_but_on_this_machine() {
        for good in
            ["https://id.example.com/a?b", "http://127.0.0.1:80/", "http://localhost", "http://[::1]:1/"]
        {
            assert!(is_safe(good), "{good}");
        }
        for bad in [
            "http://id.example.com/",
            "https://",
            "https:///a",
            "http://127.0.0.1.example.com/",
            "http://127.0.0.1@example.com/",
            "http://localhost.example.com/",
            "https://id.example.com/ a",
            "https://id.example.com/\r\n",
            "javascript:1",
            "//id.example.com",
            "",
        ] {
            assert!(!is_safe(bad), "{bad}");
        }
    }
}
