//! The admin API's part for the configuration: what serves, what was tried, and handing over another.
//!
//! | request | answer |
//! |---|---|
//! | `GET /config` | what serves, in the reference's form; its ETag is the document's |
//! | `GET /config/document` | the document that serves, with its ETag |
//! | `PUT /config`, `PUT /config/document` | serves the document in the body; If-Match says what it was made from |
//! | `POST /reload` | reads the document's file again |
//! | `GET /config/history` | every revision with its verdict |
//! | `GET /config/generations/N` | the document of generation N |
//! | `POST /config/rollback?to=N` | serves generation N again |
//!
//! Every change is answered with its verdict: 200 applied, 422 refused with every reason, 412 made from
//! something else than what serves, 503 too many at once.

use std::time::Duration;

use adit_net::admission::Guest;
use adit_rules::reference_json;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ETAG, IF_MATCH};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::timeout;

use super::{Admin, problem, text};
use crate::config::source::LARGEST_DOCUMENT;
use crate::revision::history::Source;
use crate::revision::{Put, Verdict, remote_version};

/// How long a client may take to send a document.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// Whether this module answers it.
pub(super) fn is_about<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    path == "/config"
        || path.starts_with("/config/")
        || (path == "/reload" && request.method() == Method::POST)
}

pub(super) async fn answer(
    admin: &Admin,
    request: Request<Incoming>,
    guest: &Guest,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    if request.method() == Method::PUT && ["/config", "/config/document"].contains(&path.as_str()) {
        return put(admin, request, guest).await;
    }
    let _busy = guest.busy();
    let history = admin.reload.history();
    match (request.method().as_str(), path.as_str()) {
        ("POST", "/reload") => verdict(admin.reload.reread(Source::Api).await),
        ("GET" | "HEAD", "/config") => {
            let page = reference_json::whole(&admin.current.load().report, remote_version(history));
            let page = super::json(StatusCode::OK, &page);
            match history.serving() {
                Some(serving) => tagged(page, &serving.tag()),
                None => page,
            }
        }
        ("GET" | "HEAD", "/config/document") => match history.serving() {
            Some(serving) => tagged(document(&serving.revision.text), &serving.tag()),
            None => missing("no configuration serves yet"),
        },
        ("GET" | "HEAD", "/config/history") => {
            let serving = history.serving();
            let page = json!({
                "serving": serving.as_ref().map(|serving| serving.generation),
                "etag": serving.as_ref().map(|serving| serving.tag()),
                "degraded": history.degraded(),
                "revisions": history.entries(),
            });
            super::json(StatusCode::OK, &page)
        }
        ("POST", "/config/rollback") => rollback(admin, &request).await,
        ("GET" | "HEAD", path) => {
            let number = path.strip_prefix("/config/generations/").and_then(|number| number.parse().ok());
            match number.and_then(|number| history.text(number)) {
                Some(text) => document(&text),
                None => missing("there is no such generation, or its document is not kept any more"),
            }
        }
        _ => {
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    }
}

async fn put(admin: &Admin, request: Request<Incoming>, guest: &Guest) -> Response<Full<Bytes>> {
    let Some(expected) = expected(&request) else {
        let help = "say with If-Match what the document was made from: the ETag of GET /config/document, or * for anything";
        return problem(StatusCode::PRECONDITION_REQUIRED, help);
    };
    let save = query(&request, "save").is_none_or(|save| save != "false");
    let limit = usize::try_from(LARGEST_DOCUMENT).unwrap_or(usize::MAX);
    let body = match timeout(BODY_LIMIT, Limited::new(request.into_body(), limit).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let why = format!("a document has at most {LARGEST_DOCUMENT} bytes");
            return problem(StatusCode::PAYLOAD_TOO_LARGE, &why);
        }
        Ok(Err(_)) => return problem(StatusCode::BAD_REQUEST, "the document did not arrive whole"),
        Err(_) => return problem(StatusCode::REQUEST_TIMEOUT, "the document did not arrive in time"),
    };
    let _busy = guest.busy();
    let Ok(text) = String::from_utf8(body.into()) else {
        let reasons = vec!["the document is not UTF-8 text".to_owned()];
        return verdict(Verdict::Refused { serving: admin.current.load().number, reasons });
    };
    let put = Put { text, copies: Default::default(), expected, save, source: Source::Api };
    verdict(admin.reload.put(put).await)
}

async fn rollback(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let Some(to) = query(request, "to").and_then(|to| to.parse().ok()) else {
        return problem(StatusCode::BAD_REQUEST, "say which generation: POST /config/rollback?to=7");
    };
    let Some(revision) = admin.reload.history().revive(to) else {
        return missing("there is no such generation, or its document is not kept any more");
    };
    let expected = expected(request).unwrap_or(None);
    let save = query(request, "save").is_none_or(|save| save != "false");
    let put = Put {
        text: revision.text.as_ref().to_owned(),
        copies: revision.copies,
        expected,
        save,
        source: Source::Rollback,
    };
    verdict(admin.reload.put(put).await)
}

/// The tags in If-Match, `Some(None)` for `*`, and `None` without the header.
fn expected<B>(request: &Request<B>) -> Option<Option<Vec<String>>> {
    let mut tags = Vec::new();
    for value in request.headers().get_all(IF_MATCH) {
        tags.extend(value.to_str().unwrap_or_default().split(',').map(|tag| tag.trim().to_owned()));
    }
    if tags.is_empty() {
        return None;
    }
    Some((tags != ["*"]).then_some(tags))
}

pub(super) fn query<'a, B>(request: &'a Request<B>, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

fn verdict(verdict: Verdict) -> Response<Full<Bytes>> {
    match verdict {
        Verdict::Applied { generation, tag, warnings } => {
            let page =
                json!({ "verdict": "applied", "generation": generation, "etag": tag, "warnings": warnings });
            tagged(super::json(StatusCode::OK, &page), &tag)
        }
        Verdict::Refused { serving, reasons } => {
            let page = json!({ "verdict": "refused", "serving": serving, "reasons": reasons });
            super::json(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
        Verdict::Stale { serving, tag } => {
            let reasons = ["it was made from something else than what serves; look at that first"];
            let page = json!({ "verdict": "stale", "serving": serving, "etag": tag, "reasons": reasons });
            tagged(super::json(StatusCode::PRECONDITION_FAILED, &page), &tag)
        }
        Verdict::Busy { serving } => {
            let reasons = ["too many revisions at once, or the host is stopping"];
            let page = json!({ "verdict": "busy", "serving": serving, "reasons": reasons });
            super::json(StatusCode::SERVICE_UNAVAILABLE, &page)
        }
    }
}

fn document(toml: &str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, toml);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/toml"));
    response
}

fn tagged(mut response: Response<Full<Bytes>>, tag: &str) -> Response<Full<Bytes>> {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

fn missing(what: &str) -> Response<Full<Bytes>> {
    problem(StatusCode::NOT_FOUND, what)
}
