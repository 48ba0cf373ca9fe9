//! `POST /explain`: where a request would go, and why. Reads the question; the answer is made by what serves.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use adit_net::admission::Guest;
use bytes::Bytes;
use http::header::{ALLOW, HOST, HeaderValue};
use http::{HeaderName, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout;

use super::{Admin, json as page, problem};
use crate::visitor::Question;

/// What somebody asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    url: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    /// Who opens the connection: the visitor, or the proxy in front.
    #[serde(default = "nobody")]
    from: IpAddr,
}

fn get() -> String {
    "GET".to_owned()
}

fn nobody() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

pub(super) async fn answer(
    admin: &Admin,
    request: Request<Incoming>,
    guest: &Guest,
) -> Response<Full<Bytes>> {
    if request.method() != Method::POST {
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; try POST");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let body = match timeout(BODY, Limited::new(request.into_body(), LARGEST_QUESTION).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "the question is too large");
        }
        Ok(Err(_)) => return problem(StatusCode::BAD_REQUEST, "the question did not arrive whole"),
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the question did not arrive in time"),
    };
    let _busy = guest.busy();
    let asked = serde_json::from_slice::<Asked>(&body).map_err(|error| error.to_string());
    match asked.and_then(|asked| question(&asked)) {
        Ok(question) => page(StatusCode::OK, &admin.explainer.explain(question)),
        Err(wrong) => problem(StatusCode::BAD_REQUEST, &wrong),
    }
}

/// The head as a visitor would send it over HTTP/1.1.
fn question(asked: &Asked) -> Result<Question, String> {
    let uri: Uri = asked.url.parse().map_err(|error| format!("{}: {error}", asked.url))?;
    let (Some(authority), Some(scheme @ ("http" | "https"))) = (uri.authority(), uri.scheme_str()) else {
        return Err(format!("{}: write the whole address: https://app.example.com/path", asked.url));
    };
    let is_secure = scheme == "https";
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| format!("{text:?}: {error}"));
    let (mut head, ()) = Request::new(()).into_parts();
    head.version = Version::HTTP_11;
    head.method = asked.method.parse().map_err(|_| format!("{}: not a method", asked.method))?;
    head.headers.insert(HOST, value(authority.as_str())?);
    head.uri = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| path.clone().into());
    for (name, text) in &asked.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?}: not the name of a header"))?;
        // A request has one host.
        if name == HOST {
            head.headers.insert(name, value(text)?);
        } else {
            head.headers.append(name, value(text)?);
        }
    }
    Ok(Question { head, from: asked.from.to_canonical(), is_secure })
}

/// Largest question, bytes.
const LARGEST_QUESTION: usize = 64 * 1024;
/// How long a client may take to send it.
const BODY: Duration = Duration::from_secs(10);
