//! Who may change something through the admin API: nobody is asked for a password, so that whatever a
//! browser on the same machine can be talked into must not be enough.

use http::header::{HOST, ORIGIN};
use http::{HeaderName, Request};

/// Browsers send it with every request; nobody else does.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request may have been sent by a page of somebody else; `None` if it cannot have been.
///
/// A page of another site cannot hide its `Origin` where it may change something. One that has made its own
/// name lead to this machine (DNS rebinding) is of the same site for the browser, but the name is in `Host`.
pub(super) fn refusal<B>(request: &Request<B>) -> Option<&'static str> {
    let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    if request.headers().contains_key(ORIGIN) {
        return Some("requests of web pages are not answered here: there is an Origin header");
    }
    if text(FETCH_SITE).is_some_and(|site| site != "none") {
        return Some("requests of web pages are not answered here: there is a Sec-Fetch-Site header");
    }
    let hosts = request.headers().get_all(HOST).iter().count();
    match text(HOST) {
        Some(host) if hosts == 1 && is_own_name(host) => None,
        _ => Some("the Host header must be localhost or an IP address, so that no other name leads here"),
    }
}

/// No page comes from `localhost` or a bare address unless somebody of this machine serves it.
fn is_own_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        refusal(&request.body(()).unwrap()).is_none()
    }

    #[test]
    fn only_what_no_web_page_can_send_is_answered() {
        for host in [
            "localhost",
            "LOCALHOST:20241",
            "127.0.0.1",
            "127.0.0.1:20241",
            "[::1]:20241",
            "[::1]",
            "10.1.2.3:80",
        ] {
            assert!(judge(&[("host", host)]), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[evil]", "2130706433"]
        {
            assert!(!judge(&[("host", host)]), "{host}");
        }
        let host = ("host", "localhost:20241");
        assert!(!judge(&[]));
        assert!(!judge(&[host, ("host", "evil.example")]));
        assert!(!judge(&[host, ("origin", "https://evil.example")]));
        // A sandboxed frame, a redirect, a file.
        assert!(!judge(&[host, ("origin", "null")]));
        assert!(!judge(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(!judge(&[host, ("sec-fetch-site", "same-site")]));
        assert!(judge(&[host, ("sec-fetch-site", "none")]));
    }
}
