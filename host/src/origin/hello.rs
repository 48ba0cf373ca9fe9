//! The built-in origin `hello_world`: a page that shows what arrived, for trying a tunnel or a
//! plugin without any service of one's own. `/uptime`, `/sse`, `/ws` and `/_health` are as the reference has
//! them, for those who try tunnels with its tools.

mod ticks;
mod websocket;

use std::fmt::Write;
use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode, request};

use super::{Body, full};

pub(super) use websocket::echo;

/// Answers with the request's own head, as JSON when that is asked for, or with what the path stands for.
pub(super) fn respond(head: &request::Parts) -> Response<Body> {
    match head.uri.path() {
        "/uptime" => return whole(head, "application/json", uptime()),
        "/_health" => return whole(head, "text/plain; charset=utf-8", "ok".to_owned()),
        "/sse" => return ticks::respond(head),
        // Whoever asks for it without an upgrade.
        "/ws" => return super::status_only(StatusCode::UPGRADE_REQUIRED),
        _ => {}
    }
    let wants_json = head
        .headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    let (kind, page) =
        if wants_json { ("application/json", json(head)) } else { ("text/html; charset=utf-8", html(head)) };
    whole(head, kind, page)
}

/// When this process was first asked to say hello.
static BEGUN: LazyLock<(SystemTime, Instant)> = LazyLock::new(|| (SystemTime::now(), Instant::now()));

/// Lets the clock of `/uptime` begin.
pub(super) fn begin() {
    LazyLock::force(&BEGUN);
}

fn uptime() -> String {
    let (begun, clock) = *BEGUN;
    let uptime = clock.elapsed();
    let (minutes, seconds) = (uptime.as_secs() / 60, uptime.as_secs_f64() % 60.0);
    let shown = if minutes == 0 { format!("{seconds}s") } else { format!("{minutes}m{seconds}s") };
    let start = humantime::format_rfc3339_nanos(begun).to_string();
    serde_json::json!({ "startTime": start, "uptime": shown }).to_string()
}

fn whole(head: &request::Parts, kind: &'static str, page: String) -> Response<Body> {
    let length = page.len();
    let page = if head.method == Method::HEAD { String::new() } else { page };
    let mut response = Response::new(full(Bytes::from(page)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn html(head: &request::Parts) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>Hello from Adit</title>\
         <style>body{font:16px/1.5 system-ui;max-width:48rem;margin:3rem auto;padding:0 1rem}\
         td{vertical-align:top;padding:.15rem 1rem .15rem 0;word-break:break-all}</style>\
         <h1>Hello from Adit</h1><p>This request came through the tunnel and its plugins:</p>",
    );
    let _ = write!(
        page,
        "<p><code>{} {}</code></p><table>",
        escape(head.method.as_str()),
        escape(&head.uri.to_string())
    );
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let _ = write!(page, "<tr><td><code>{name}</code><td><code>{}</code>", escape(&value));
    }
    page.push_str("</table>\n");
    page
}

fn json(head: &request::Parts) -> String {
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| serde_json::json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let mut page = serde_json::json!({
        "method": head.method.as_str(),
        "path": head.uri.to_string(),
        "headers": headers,
    })
    .to_string();
    page.push('\n');
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
