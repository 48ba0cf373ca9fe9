//! Every answer that the edge makes itself instead of an origin; nothing else in the crate builds
//! an error answer. Knows statuses, words and the two forms; does not know what went wrong in detail,
//! because details are for the log.

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
    RETRY_AFTER, VARY,
};
use http::{Method, Response, StatusCode, Uri};
use serde::Serialize;

use crate::forward::headers::{CF_RAY, Unacceptable};
use crate::forward::ray::Ray;
use crate::steering::FixedResponse;

/// What a visitor is told. Statuses are those that the visitors of Cloudflare Tunnel see, where it
/// has one for the case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// 400: the request contradicts itself.
    BadRequest(Unacceptable),
    /// 400: what was sent is no request.
    Unreadable,
    /// 501: the body has a transfer coding that is not undone here.
    Coding,
    /// 404: no tunnel is configured for the host name. (Cloudflare would not resolve the name.)
    UnknownHost,
    /// 403: the name wants a certificate of its visitors, which comes over TLS.
    NoCertificate,
    /// 421: the connection was made for another name, and this one wants a certificate.
    Misdirected,
    /// 405: CONNECT and TRACE go through no tunnel.
    Method,
    /// 429: whoever asks has too many requests under way.
    TooMany,
    /// 431: the head is longer than the wire allows.
    HeadTooLong,
    /// 400: the body of the request broke off.
    BrokenBody,
    /// 502: the host or its origin failed before there was an answer.
    OriginFailed,
    /// 502: the connection to the host was lost before there was an answer, and whether the origin has seen
    /// the request is not known (docs/retries.md).
    Lost,
    /// 503: no host took the request, and it cannot be sent once more from here (docs/retries.md).
    NotTaken,
    /// 504: no head of an answer in time.
    OriginTimeout,
    /// 530, error 1033: no host of this tunnel is connected.
    NoConnection,
    /// 530, error 1016: no endpoint of this load balancer may serve.
    NoEndpoint,
    /// 508: it has come through this fleet too often.
    Looping,
}

/// In which form the visitor wants to hear about problems.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    json: bool,
    head: bool,
}

impl Wanted {
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        Self { json: prefers_json(headers), head: method == Method::HEAD }
    }
}

/// The answer to a request that has this problem.
pub(crate) fn page(problem: Problem, wanted: Wanted, ray: &Ray) -> Response<Bytes> {
    let status = problem.status();
    let message = problem.message();
    let (text, content_type) = if wanted.json {
        let page = JsonPage {
            status: status.as_u16(),
            code: problem.code(),
            error: problem.word(),
            message: &message,
            ray: ray.as_str(),
        };
        let text = serde_json::to_string(&page).expect("numbers and texts have a JSON form");
        (text, "application/json")
    } else {
        (html(problem, status, &message, ray), "text/html; charset=utf-8")
    };
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(if wanted.head { Bytes::new() } else { Bytes::from(text) });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(CF_RAY, ray.header());
    if matches!(problem, Problem::NotTaken | Problem::TooMany) {
        headers.insert(RETRY_AFTER, HeaderValue::from(1));
    }
    if problem == Problem::Method {
        headers.insert(ALLOW, METHODS);
    }
    response
}

/// What this edge answers where a request is about the server as a whole.
pub(crate) fn capabilities(ray: &Ray) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, METHODS);
    response.headers_mut().insert(CF_RAY, ray.header());
    response
}

/// Where the same is over TLS.
pub(crate) fn to_tls(host: &str, uri: &Uri, ray: &Ray) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    // 308 keeps the method and the body.
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("https://{host}{path}")) {
        headers.insert(LOCATION, location);
    }
    headers.insert(CF_RAY, ray.header());
    response
}

/// What an authority finds that looks whether a name leads here.
pub(crate) fn plain(text: String, ray: &Ray) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CF_RAY, ray.header());
    response
}

/// What a rule of a load balancer answers.
pub(crate) fn fixed(fixed: &FixedResponse, is_head: bool, ray: &Ray) -> Response<Bytes> {
    let FixedResponse { status, content_type, location, body } = fixed;
    let is_bodiless = matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut response = Response::new(if is_head || is_bodiless { Bytes::new() } else { body.clone() });
    *response.status_mut() = *status;
    let headers = response.headers_mut();
    if !is_bodiless {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    for (name, value) in [(CONTENT_TYPE, content_type), (LOCATION, location)] {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(CF_RAY, ray.header());
    response
}

/// Which problem is behind an answer that the HTTP library makes itself.
pub(crate) fn unreadable(status: StatusCode) -> Problem {
    match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Problem::HeadTooLong,
        _ => Problem::Unreadable,
    }
}

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

impl Problem {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BrokenBody | Self::Unreadable => StatusCode::BAD_REQUEST,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::UnknownHost => StatusCode::NOT_FOUND,
            Self::NoCertificate => StatusCode::FORBIDDEN,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::HeadTooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::OriginFailed | Self::Lost => StatusCode::BAD_GATEWAY,
            Self::NotTaken => StatusCode::SERVICE_UNAVAILABLE,
            Self::OriginTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Looping => StatusCode::LOOP_DETECTED,
            Self::NoConnection | Self::NoEndpoint => StatusCode::from_u16(530).expect("530 is a status"),
        }
    }

    /// The number by which Cloudflare's documentation knows the problem.
    fn code(self) -> Option<u16> {
        match self {
            Self::NoConnection => Some(1033),
            Self::NoEndpoint => Some(1016),
            Self::BadRequest(_)
            | Self::Unreadable
            | Self::Coding
            | Self::UnknownHost
            | Self::NoCertificate
            | Self::Misdirected
            | Self::Method
            | Self::TooMany
            | Self::HeadTooLong
            | Self::BrokenBody
            | Self::OriginFailed
            | Self::Lost
            | Self::NotTaken
            | Self::OriginTimeout
            | Self::Looping => None,
        }
    }

    /// For programs: one word that stays the same, of [`PAGES`](crate::metrics::PAGES).
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::BadRequest(_) | Self::BrokenBody | Self::Unreadable => "bad-request",
            Self::Coding => "transfer-coding",
            Self::UnknownHost => "unknown-host",
            Self::NoCertificate => "no-certificate",
            Self::Misdirected => "misdirected",
            Self::Method => "method-not-allowed",
            Self::TooMany => "too-many-requests",
            Self::HeadTooLong => "head-too-long",
            Self::OriginFailed => "origin-failed",
            Self::Lost => "connection-lost",
            Self::NotTaken => "not-taken",
            Self::OriginTimeout => "origin-timeout",
            Self::NoConnection => "no-connection",
            Self::NoEndpoint => "no-endpoint",
            Self::Looping => "loop",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::BadRequest(_) | Self::BrokenBody | Self::Unreadable => "Bad request",
            Self::Coding => "Transfer coding not supported",
            Self::UnknownHost => "Unknown host name",
            Self::NoCertificate => "Certificate required",
            Self::Misdirected => "Misdirected request",
            Self::Method => "Method not allowed",
            Self::TooMany => "Too many requests",
            Self::HeadTooLong => "Request head too long",
            Self::OriginFailed | Self::Lost => "Bad gateway",
            Self::NotTaken => "Request not taken",
            Self::OriginTimeout => "Gateway timeout",
            Self::NoConnection => "Tunnel not connected",
            Self::NoEndpoint => "No endpoint",
            Self::Looping => "Loop detected",
        }
    }

    pub(super) fn message(self) -> String {
        match self {
            Self::BadRequest(reason) => return reason.to_string(),
            Self::Unreadable => {
                "what was sent is not an HTTP request; in an address, letters such as < > and blanks are written \
                 as %3C %3E %20"
            }
            Self::Coding => "the body has a transfer coding besides chunked, which does not go through a tunnel",
            Self::NoCertificate => "this host name wants a certificate of its visitors, over TLS",
            Self::Misdirected => {
                "this host name wants a certificate of its visitors, and the connection was made for another one"
            }
            Self::UnknownHost => "no tunnel is configured for this host name",
            Self::Method => "this method does not go through a tunnel",
            Self::TooMany => "too many requests from your address are under way",
            Self::HeadTooLong => "the headers of the request are longer than the tunnel carries",
            Self::BrokenBody => "the body of the request broke off",
            Self::OriginFailed => "the service behind the tunnel could not be reached or broke off",
            Self::Lost => {
                "the connection to the host of the tunnel was lost before its answer came; whether the request \
                 took effect is not known"
            }
            Self::NotTaken => {
                "no host of the tunnel took the request, and its body is too long or too late to be offered \
                 once more from here; nothing of it was processed, so it can be sent again"
            }
            Self::OriginTimeout => "the service behind the tunnel did not answer in time",
            Self::NoConnection => "error 1033: no host of this tunnel is connected",
            Self::Looping => "the request leads back to where it came from, again and again",
            Self::NoEndpoint => "error 1016: no endpoint behind this load balancer is connected",
        }
        .to_owned()
    }
}

#[derive(Serialize)]
struct JsonPage<'a> {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    error: &'static str,
    message: &'a str,
    ray: &'a str,
}

fn html(problem: Problem, status: StatusCode, message: &str, ray: &Ray) -> String {
    let status = status.as_u16();
    let (title, message, ray) = (escape(problem.title()), escape(message), escape(ray.as_str()));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{status} {title}</title>\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem}}\
         small{{color:#666}}</style>\n</head>\n<body>\n<h1>{status} {title}</h1>\n<p>{message}</p>\n\
         <p><small>Ray {ray}</small></p>\n</body>\n</html>\n"
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// JSON only for those who name it, and HTML for those who like both the same: browsers name HTML,
/// programs name JSON beside `*/*`.
fn prefers_json(headers: &HeaderMap) -> bool {
    let (mut json, mut html) = (0, 0);
    for value in headers.get_all(ACCEPT) {
        for range in value.as_bytes().split(|byte| *byte == b',') {
            let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(weight).unwrap_or(1000);
            if name.eq_ignore_ascii_case(b"application/json")
                || name.eq_ignore_ascii_case(b"application/problem+json")
            {
                json = json.max(weight);
            } else if name.eq_ignore_ascii_case(b"text/html") {
                html = html.max(weight);
            }
        }
    }
    json > html
}

/// `q=0.5` in thousandths (RFC 9110 12.4.2).
fn weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))?;
    let value: f32 = std::str::from_utf8(value).ok()?.parse().ok()?;
    Some((value.clamp(0.0, 1.0) * 1000.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::ray::Rays;
    use crate::metrics::PAGES;

    const ALL: [Problem; 14] = [
        Problem::BadRequest(Unacceptable::NoHost),
        Problem::Unreadable,
        Problem::Coding,
        Problem::UnknownHost,
        Problem::Method,
        Problem::TooMany,
        Problem::HeadTooLong,
        Problem::BrokenBody,
        Problem::OriginFailed,
        Problem::Lost,
        Problem::NotTaken,
        Problem::OriginTimeout,
        Problem::NoConnection,
        Problem::NoEndpoint,
    ];

    fn wanted(method: Method, accept: &str) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
        Wanted::of(&method, &headers)
    }

    fn text(response: Response<Bytes>) -> String {
        String::from_utf8(response.into_body().to_vec()).unwrap()
    }

    #[test]
    fn every_page_names_its_status_and_ray_and_is_not_kept() {
        let ray = Rays::new("west").next();
        for problem in ALL {
            assert!(PAGES.contains(&problem.word()), "{problem:?} is not counted");
            for accept in ["text/html", "application/json"] {
                let response = page(problem, wanted(Method::GET, accept), &ray);
                let status = response.status().as_u16();
                assert_eq!(response.headers()["cache-control"], "no-store");
                assert_eq!(response.headers()["cf-ray"], ray.as_str());
                assert!(response.headers()["content-type"].to_str().unwrap().starts_with(accept));
                let length = response.headers()["content-length"].clone();
                let text = text(response);
                assert_eq!(length, text.len().to_string());
                assert!(text.contains(&status.to_string()) && text.contains(ray.as_str()), "{text}");
            }
        }
    }

    #[test]
    fn no_connection_is_530_and_says_error_1033() {
        let ray = Rays::new("west").next();
        let response = page(Problem::NoConnection, wanted(Method::GET, "*/*"), &ray);
        assert_eq!(response.status().as_u16(), 530);
        assert!(text(response).contains("error 1033"));
        let json = text(page(Problem::NoConnection, wanted(Method::GET, "application/json"), &ray));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["code"], 1033);
        assert_eq!(json["error"], "no-connection");
    }

    #[test]
    fn head_gets_the_length_without_the_page() {
        let ray = Rays::new("west").next();
        let get = page(Problem::UnknownHost, wanted(Method::GET, "*/*"), &ray);
        let head = page(Problem::UnknownHost, wanted(Method::HEAD, "*/*"), &ray);
        assert_eq!(get.headers()["content-length"], head.headers()["content-length"]);
        assert_eq!(text(head), "");
    }

    #[test]
    fn json_is_for_those_who_name_it() {
        for (accept, json) in [
            ("", false),
            ("*/*", false),
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json, text/plain, */*", true),
            ("text/html,application/xhtml+xml,application/json;q=0.9", false),
            ("text/html;q=0.5, application/json", true),
            ("text/html, application/json", false),
            ("application/json;q=0", false),
            ("application/json;q=nonsense", true),
            (",;,;q=", false),
        ] {
            assert_eq!(wanted(Method::GET, accept).json, json, "{accept}");
        }
    }

    #[test]
    fn nothing_on_a_page_is_markup_of_somebody_else() {
        assert_eq!(escape("<a href='\"'>&"), "&lt;a href=&#39;&quot;&#39;&gt;&amp;");
    }
}
