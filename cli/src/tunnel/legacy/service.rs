//! What a rule of the reference leads to, as a service of ours. Knows its forms; reaches nothing.

use super::at_home;

/// A service of ours, and what is to be said about it.
pub(super) type Service = (String, Option<String>);

/// # Errors
/// What is wrong with it, as the reference would refuse it too.
pub(super) fn service(text: &str) -> Result<Service, String> {
    match text {
        "hello-world" | "hello_world" => return Ok(("hello_world".to_owned(), None)),
        "bastion" | "socks-proxy" => return Ok((text.to_owned(), None)),
        _ => {}
    }
    if let Some(socket) = text.strip_prefix("unix:") {
        return Ok((format!("unix:{}", at_home(socket).display()), None));
    }
    if text.starts_with("http_status:") {
        return Ok((text.to_owned(), None));
    }
    if let Some(socket) = text.strip_prefix("unix+tls:") {
        return Ok((format!("unix+tls:{}", at_home(socket).display()), None));
    }
    let Some((scheme, rest)) = text.split_once("://").filter(|(_, rest)| !rest.is_empty()) else {
        // What stands in a URL may be a password.
        let help = match text.split_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => {
                format!("; did you mean `http://{host}:{port}`?")
            }
            _ => String::new(),
        };
        return Err(format!("a service has a scheme and a host{help}"));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" => Ok((format!("http://{rest}"), None)),
        "https" | "wss" => Ok((format!("https://{rest}"), None)),
        scheme @ ("tcp" | "ssh" | "rdp" | "smb") => Ok((format!("{scheme}://{rest}"), None)),
        // Of any other scheme it is its bytes that count.
        _ if rest.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            Ok((format!("tcp://{rest}"), None))
        }
        scheme => Err(format!("a service of the scheme `{}` needs a port", scheme.escape_debug())),
    }
}

/// What `--url` says: `localhost:8080` is what people write.
pub(super) fn url(text: &str) -> Result<Service, String> {
    let is_whole = text.contains("://")
        || ["unix:", "unix+tls:", "http_status:", "hello", "bastion", "socks-proxy"]
            .iter()
            .any(|known| text.starts_with(known));
    if is_whole { service(text) } else { service(&format!("http://{text}")) }
}

/// Served by nobody, and closed.
pub(super) fn not_yet(what: &str) -> Service {
    let what = what.escape_debug();
    let warning = format!("`{what}` services are not supported here yet; its requests get 501");
    ("http_status:501".to_owned(), Some(warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_as_the_reference_reads_them() {
        for (text, wanted) in [
            ("http://localhost:8080", "http://localhost:8080"),
            ("HTTP://Localhost:8080", "http://Localhost:8080"),
            ("WSS://a", "https://a"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("hello-world", "hello_world"),
            ("http_status:404", "http_status:404"),
            ("SSH://a", "ssh://a"),
            ("redis://a:6379", "tcp://a:6379"),
            ("bastion", "bastion"),
            ("socks-proxy", "socks-proxy"),
            ("unix+tls:/a", "unix+tls:/a"),
        ] {
            assert_eq!(service(text).unwrap().0, wanted, "{text}");
        }
        for (text, wanted) in [
            ("localhost:8080", "did you mean `http://localhost:8080`"),
            ("127.0.0.1:80", "did you mean"),
            ("localhost", "a scheme and a host"),
            ("http://", "a scheme and a host"),
            ("", "a scheme and a host"),
            ("redis://a", "needs a port"),
        ] {
            assert!(service(text).unwrap_err().contains(wanted), "{text}");
        }
        assert_eq!(url("localhost:8080").unwrap().0, "http://localhost:8080");
        assert_eq!(url("hello_world").unwrap().0, "hello_world");
    }
}
