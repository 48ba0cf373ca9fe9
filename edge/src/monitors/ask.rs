//! One question of a monitor to one replica, and what became of it. Knows connections; does not know what follows.

use std::time::Duration;

use adit_protocol::stream::Connect;
use http::header::LOCATION;
use http::uri::{Authority, PathAndQuery, Uri};
use http::{HeaderMap, Request};
use tokio::time::{Instant, timeout};

use super::terms::{Http, Question, Terms};
use crate::forward::headers::{self, Facts, Upload};
use crate::forward::ray::{Ray, Rays};
use crate::registry::{Connection, Origin, Probe};
use crate::transport::exchange::{Reply, exchange};
use crate::tunnel::notice;

/// What became of a question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What is wrong; `None` if nothing is.
    pub(crate) fault: Option<String>,
    /// Of an answer over HTTP.
    pub(crate) status: Option<u16>,
    pub(crate) took: Duration,
}

/// Asks, and again at once where there is no answer in time.
pub(super) async fn ask(terms: &Terms, host: &Authority, live: &Connection, rays: &Rays) -> Outcome {
    let mut outcome = Outcome::default();
    for _ in 0..=terms.retries {
        let began = Instant::now();
        let asked = async {
            match &terms.question {
                Question::Http(http) => ask_http(http, host, live, &rays.next()).await,
                Question::Tcp(port) => (ask_tcp(*port, live).await, None),
            }
        };
        // Boxed, so that it takes no memory between two questions.
        match timeout(terms.timeout, Box::pin(asked)).await {
            Ok((fault, status)) => return Outcome { fault: fault.map(cut), status, took: began.elapsed() },
            Err(_) => {
                let fault = format!("no answer within {} s", terms.timeout.as_secs());
                outcome = Outcome { fault: Some(fault), status: None, took: began.elapsed() };
            }
        }
    }
    outcome
}

/// What is wrong, and the status.
async fn ask_http(
    http: &Http,
    host: &Authority,
    live: &Connection,
    ray: &Ray,
) -> (Option<String>, Option<u16>) {
    let mut path = http.path.clone();
    for _ in 0..=MOST_REDIRECTS {
        let request = match request(http, host, path, live, ray) {
            Ok(request) => request,
            Err(error) => return (Some(error.to_string()), None),
        };
        let Reply { head, body, .. } = match exchange(&live.link, &Connect::Http(request), LONGEST_BODY).await
        {
            Ok(reply) => reply,
            Err(error) => return (Some(error.to_string()), None),
        };
        let status = head.status();
        if !(http.follows && status.is_redirection() && head.headers().contains_key(LOCATION)) {
            return (http.fault(status, &body), Some(status.as_u16()));
        }
        match redirected(head.headers(), host) {
            Some(next) => path = next,
            None => return (Some("it redirects to another host".to_owned()), Some(status.as_u16())),
        }
    }
    (Some(format!("it redirects more than {MOST_REDIRECTS} times")), None)
}

/// As a visitor's request that comes from the edge itself.
fn request(
    http: &Http,
    host: &Authority,
    path: PathAndQuery,
    live: &Connection,
    ray: &Ray,
) -> Result<Request<()>, headers::Unacceptable> {
    let mut request = Request::new(());
    *request.method_mut() = http.method.clone();
    *request.uri_mut() = Uri::from(path);
    *request.headers_mut() = http.headers.clone();
    let (parts, ()) = request.into_parts();
    let facts = Facts {
        visitor: live.server.listen.ip(),
        chain: None,
        is_secure: http.is_secure,
        certificate: &[],
        country: None,
        ray,
    };
    headers::for_origin(parts, host.clone(), Upload::None, &facts)
}

/// Where a redirection leads to, if that is the same host.
fn redirected(headers: &HeaderMap, host: &Authority) -> Option<PathAndQuery> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    if location.starts_with('/') {
        // Two of them begin with the name of a host.
        return location.parse().ok().filter(|_| !location.starts_with("//"));
    }
    let uri: Uri = location.parse().ok()?;
    let is_here = uri.scheme().is_some()
        && uri.authority().is_some_and(|named| named.as_str().eq_ignore_ascii_case(host.as_str()));
    is_here.then(|| uri.path_and_query().cloned()).flatten()
}

/// A host that understands it tries to connect to its origins and says what came of it.
async fn ask_tcp(port: u16, live: &Connection) -> Option<String> {
    if !live.features.notices {
        return Some(
            "the connector cannot be asked for connections; a monitor of the type http can ask it".to_owned(),
        );
    }
    let Probe { origins, error, .. } = notice::look(live).await;
    if error.is_some() {
        return error;
    }
    let at_port: Vec<&Origin> =
        origins.iter().filter(|origin| port_of(&origin.origin) == Some(port)).collect();
    if at_port.is_empty() {
        return Some(format!("no service of the host is at port {port}"));
    }
    let lost = at_port.into_iter().find(|origin| !origin.is_ok)?;
    Some(lost.error.clone().unwrap_or_else(|| "no connection".to_owned()))
}

/// The port in the address of an origin, as a host writes it.
fn port_of(origin: &str) -> Option<u16> {
    let (scheme, rest) = origin.split_once("://")?;
    let authority: Authority = rest.split('/').next()?.parse().ok()?;
    authority.port_u16().or(match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    })
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LONGEST_FAULT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Bytes of a body that are looked at.
const LONGEST_BODY: usize = 10 << 10;
const MOST_REDIRECTS: usize = 5;
/// Characters.
const LONGEST_FAULT: usize = 256;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_redirection_is_followed_to_the_same_host_alone() {
        let host: Authority = "a.test:8080".parse().unwrap();
        for (location, wanted) in [
            ("/next?x", Some("/next?x")),
            ("https://A.test:8080/next", Some("/next")),
            ("http://a.test:8080/", Some("/")),
            ("http://b.test/next", None),
            ("//b.test/next", None),
            ("next", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_static(location));
            let path = redirected(&headers, &host);
            assert_eq!(path.as_ref().map(PathAndQuery::as_str), wanted, "{location}");
        }
    }

    #[test]
    fn an_origin_is_at_its_port() {
        for (origin, wanted) in [
            ("http://127.0.0.1:8080", Some(8080)),
            ("https://[::1]", Some(443)),
            ("tcp://db.test:5432/x", Some(5432)),
            ("ssh://a.test", None),
            ("unix:/run/app.sock", None),
            ("http_status:404", None),
        ] {
            assert_eq!(port_of(origin), wanted, "{origin}");
        }
    }
}
