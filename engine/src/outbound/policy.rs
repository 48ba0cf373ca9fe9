//! Which requests may go where. Decides from what is granted and known; does no I/O.

use std::net::IpAddr;

use adit_net::judge;
use adit_net::outbound::{OutboundError, Target};
use adit_rules::grants::Grants;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, LOCATION, PROXY_AUTHORIZATION};
use http::{Method, Response, StatusCode, Uri, request};

/// Whether plugins may ask this one.
pub(super) fn check(target: &Target, grants: &Grants) -> Result<(), OutboundError> {
    if grants.http.iter().any(|granted| granted.matches(target.tls, &target.host, target.port)) {
        return Ok(());
    }
    let scheme = if target.tls { "https" } else { "http" };
    Err(OutboundError::Denied(format!("{scheme}://{}:{} is not granted", target.host, target.port)))
}

/// Whether a granted target may be reached at this address. A grant that names an address means it, private or not.
pub(super) fn may_connect(target: &Target, address: IpAddr, grants: &Grants) -> bool {
    let address = address.to_canonical();
    !judge::is_private(address)
        || target.host.parse::<IpAddr>().is_ok()
        || grants.networks.iter().any(|network| network.contains(address))
}

/// The request that a redirect asks for.
pub(super) struct Next {
    pub(super) head: request::Parts,
    pub(super) keeps_body: bool,
}

/// What follows an answer, if it is a redirect that can be followed (RFC 9110, 15.4).
pub(super) fn redirect<B>(head: &request::Parts, answer: &Response<B>) -> Option<Next> {
    let keeps_body = match answer.status() {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => false,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        _ => return None,
    };
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    let uri = resolve(&head.uri, location)?;
    let mut next = head.clone();
    if !keeps_body && !matches!(head.method, Method::GET | Method::HEAD) {
        next.method = Method::GET;
    }
    if !keeps_body {
        next.headers.remove(CONTENT_TYPE);
        next.headers.remove(CONTENT_LENGTH);
    }
    let origin = |uri: &Uri| Target::of(uri).ok();
    if origin(&uri) != origin(&head.uri) {
        for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
            next.headers.remove(name);
        }
    }
    next.uri = uri;
    Some(Next { head: next, keeps_body })
}

/// An absolute reference, or one that begins with `//`, `/` or `?`; a relative path is replaced from
/// its last slash. Dot segments are left to the server.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    if location.contains("://") {
        return location.parse().ok();
    }
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let path = match location {
        _ if location.starts_with("//") => return format!("{scheme}:{location}").parse().ok(),
        _ if location.starts_with('/') => location.to_owned(),
        _ if location.starts_with('?') => format!("{}{location}", base.path()),
        _ => format!("{}{location}", &base.path()[..=base.path().rfind('/')?]),
    };
    format!("{scheme}://{authority}{path}").parse().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn follow(method: Method, status: u16, location: &'static str) -> Option<(Method, String, bool, bool)> {
        let request = Request::builder()
            .method(method)
            .uri("http://a.example/one/two?three")
            .header(AUTHORIZATION, "secret")
            .body(())
            .unwrap();
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer.headers_mut().insert(LOCATION, HeaderValue::from_static(location));
        let next = redirect(&request.into_parts().0, &answer)?;
        let keeps_secret = next.head.headers.contains_key(AUTHORIZATION);
        Some((next.head.method, next.head.uri.to_string(), next.keeps_body, keeps_secret))
    }

    #[test]
    fn a_redirect_takes_credentials_to_the_same_origin_only() {
        let (get, post) = (Method::GET, Method::POST);
        let to =
            |method: &Method, uri: &str, body, secret| Some((method.clone(), uri.to_owned(), body, secret));
        assert_eq!(follow(post.clone(), 302, "/x"), to(&get, "http://a.example/x", false, true));
        assert_eq!(follow(post.clone(), 307, "/x"), to(&post, "http://a.example/x", true, true));
        assert_eq!(
            follow(get.clone(), 301, "http://b.example/"),
            to(&get, "http://b.example/", false, false)
        );
        assert_eq!(
            follow(get.clone(), 301, "//a.example:81/y"),
            to(&get, "http://a.example:81/y", false, false)
        );
        assert_eq!(follow(get.clone(), 308, "four#f"), to(&get, "http://a.example/one/four", true, true));
        assert_eq!(follow(get.clone(), 303, "?q"), to(&get, "http://a.example/one/two?q", false, true));
        assert_eq!(follow(get.clone(), 200, "/x"), None);
        assert_eq!(follow(get, 304, "/x"), None);
    }
}
