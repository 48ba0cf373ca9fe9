//! `POST /explain`: what would become of a request. Not a GET, since plugins run and may do something.

use std::time::Duration;

use adit_net::admission::Guest;
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout;

use super::{Admin, problem};
use crate::proxy;

/// Largest question, bytes.
const LARGEST: usize = 64 * 1024;
/// How long a client may take to send it.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// What somebody asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    url: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default = "yes")]
    plugins: bool,
}

fn get() -> String {
    "GET".to_owned()
}

fn yes() -> bool {
    true
}

pub(super) async fn answer(
    admin: &Admin,
    request: Request<Incoming>,
    guest: &Guest,
) -> Response<Full<Bytes>> {
    let body = match timeout(BODY_LIMIT, Limited::new(request.into_body(), LARGEST).collect()).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "the question is too large");
        }
        Ok(Err(_)) => return problem(StatusCode::BAD_REQUEST, "the question did not arrive whole"),
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the question did not arrive in time"),
    };
    let _busy = guest.busy();
    let request = serde_json::from_slice::<Question>(&body.to_bytes())
        .map_err(|error| error.to_string())
        .and_then(|question| Ok((head(&question)?, question.plugins)));
    let (head, plugins) = match request {
        Ok(request) => request,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &error),
    };
    let generation = admin.current.load_full();
    let page = proxy::explain(&generation, head, &admin.tags, plugins).await;
    super::json(StatusCode::OK, &page)
}

/// The head as a transport would hand it over.
fn head(question: &Question) -> Result<http::request::Parts, String> {
    let uri: Uri = question.url.parse().map_err(|error| format!("{}: {error}", question.url))?;
    let Some(authority) = uri.authority().cloned() else {
        return Err(format!("{}: write the whole address: https://app.example.com/path", question.url));
    };
    let method: Method = question.method.parse().map_err(|_| format!("{}: not a method", question.method))?;
    let scheme = uri.scheme_str().unwrap_or("http").to_owned();
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = method;
    head.uri = uri;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| format!("{text:?}: {error}"));
    head.headers.insert(HOST, value(authority.as_str())?);
    head.headers.insert(HeaderName::from_static("x-forwarded-proto"), value(&scheme)?);
    for (name, text) in &question.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?}: not the name of a header"))?;
        // A request has one host.
        if name == HOST {
            head.headers.insert(name, value(text)?);
        } else {
            head.headers.append(name, value(text)?);
        }
    }
    Ok(head)
}
