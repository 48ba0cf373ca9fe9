//! How pages are sent: under a policy in which nothing runs or shows that is not ours, in no frame, kept by no
//! cache.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::assets::{script, style};
use crate::door::COOKIE;
use crate::html::Html;

/// What goes back to a browser.
pub type Answer = Response<Full<Bytes>>;

/// A whole page. `places`: path and name of each page that can be gone to; `here` is the path of this one. `out` is
/// the sign of the session, if there is one.
#[must_use]
pub fn page(
    status: StatusCode,
    title: &str,
    places: &[(&'static str, &'static str)],
    here: &str,
    out: Option<&str>,
    content: &Html,
) -> Answer {
    let mut page = Html::new();
    page.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\"><title>");
    page.text(title)
        .raw(" · adit</title><link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"")
        .text(style());
    page.raw("\"><script src=\"").text(script()).raw("\" defer></script></head><body><a class=\"skip\" href=\"#content\">to the content</a><header><span class=\"name\">adit</span><nav aria-label=\"pages\">");
    for (path, name) in places {
        let is_here = *path == here;
        page.raw("<a href=\"").text(path).raw(if is_here { "\" aria-current=\"page\">" } else { "\">" });
        page.text(name).raw("</a>");
    }
    page.raw("</nav>");
    if let Some(sign) = out {
        page.raw("<form method=\"post\" action=\"/ui/leave\">").add(&crate::door::hidden(sign));
        page.raw("<button class=\"quiet\">sign out</button></form>");
    }
    page.raw("</header><main id=\"content\" tabindex=\"-1\"><h1>").text(title).raw("</h1>");
    page.add(content).raw("</main></body></html>\n");
    let mut answer = Response::new(Bytes::from(page.into_string()).into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    protect(&mut answer);
    answer
}

/// Go there, with GET. `to` is a path of these pages.
#[must_use]
pub fn redirect(to: &str) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(to) = HeaderValue::from_str(to) {
        answer.headers_mut().insert(LOCATION, to);
    }
    protect(&mut answer);
    answer
}

/// The same, with a session from now on.
#[must_use]
pub fn signed_in(to: &str, cookie: &str) -> Answer {
    with_cookie(to, &format!("{COOKIE}={cookie}; Path=/ui; HttpOnly; SameSite=Strict; Max-Age=28800"))
}

/// The same, without one.
#[must_use]
pub fn signed_out(to: &str) -> Answer {
    with_cookie(to, &format!("{COOKIE}=; Path=/ui; HttpOnly; SameSite=Strict; Max-Age=0"))
}

fn with_cookie(to: &str, cookie: &str) -> Answer {
    let mut answer = redirect(to);
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}

/// A file to be kept: it is never shown as a page.
#[must_use]
pub fn download(name: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Bytes::from(text).into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Ok(kept) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        answer.headers_mut().insert(CONTENT_DISPOSITION, kept);
    }
    protect(&mut answer);
    answer
}

/// Why a page is not shown, in a few words.
#[must_use]
pub fn forbidden(status: StatusCode, why: &str) -> Answer {
    let mut answer = Response::new(Bytes::from(format!("{why}\n")).into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    protect(&mut answer);
    answer
}

/// Puts the policy to an answer.
pub(crate) fn protect(answer: &mut Answer) {
    for (name, value) in POLICY {
        answer.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// `same-origin`: without a referrer a browser says `Origin: null` with our own forms.
const POLICY: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
];
