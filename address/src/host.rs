//! The host of an authority, in the one form that names are compared in.

use std::borrow::Cow;

/// An authority that servers may take for different hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OddHost;

/// The host of `host` or `host:port`: lower case, without port and final dot; brackets of an IPv6 address
/// stay. Nothing is allocated for a name in lower case.
///
/// # Errors
/// What is neither a name nor an address with a port or without: to one server `a:b` is the host `a`, to the
/// next it is no host at all, and each then serves what it serves to such.
pub fn host(authority: &str) -> Result<Cow<'_, str>, OddHost> {
    let (host, port) = if authority.starts_with('[') {
        let end = authority.find(']').ok_or(OddHost)? + 1;
        let (host, rest) = authority.split_at(end);
        if !host[1..end - 1].bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.') {
            return Err(OddHost);
        }
        (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")).ok_or(OddHost)?)
    } else {
        let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_name = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if !name.split('.').all(is_name) {
            return Err(OddHost);
        }
        (name, port)
    };
    // RFC 3986 3.2.3 lets the port be empty.
    let is_number = || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if !port.is_empty() && !is_number() {
        return Err(OddHost);
    }
    Ok(if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_case_and_final_dot_make_no_difference() {
        for authority in ["app.test", "APP.test", "app.test.", "app.test:80", "App.Test.:65535", "app.test:"]
        {
            assert_eq!(host(authority).as_deref(), Ok("app.test"), "{authority}");
        }
        for (authority, wanted) in [
            ("[::1]", "[::1]"),
            ("[FE80::1]:80", "[fe80::1]"),
            ("127.0.0.1:8080", "127.0.0.1"),
            ("_x.my-app", "_x.my-app"),
        ] {
            assert_eq!(host(authority).as_deref(), Ok(wanted), "{authority}");
        }
    }

    #[test]
    fn what_servers_take_for_different_hosts_is_none() {
        for authority in [
            "",
            ".",
            "..",
            ":80",
            "app.test..",
            "app..test",
            ".app.test",
            "app.test:abc",
            "app.test:80:80",
            "app.test:65536",
            "app.test:-1",
            "app.test:+1",
            "app.test: 80",
            "a@app.test",
            "a:b@app.test",
            "app.test/x",
            "app test",
            "app%2etest",
            "app.test\\x",
            "app.test,b.test",
            "b\u{fc}cher.test",
            "*.test",
            "::1",
            "[",
            "[::1",
            "[::1]x",
            "[::1]80",
            "[a.b/c]",
            "app.test#x",
            "app.test?x",
            "app.test\0",
        ] {
            assert_eq!(host(authority), Err(OddHost), "{authority}");
        }
    }
}
