//! What the head of an HTTP/1.1 answer says about its body and its connection. Reads no body.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Body as _;
use hyper::body::Incoming;

use super::OriginError;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
/// An origin's clock began before ours, by the way of the answer to us; so much earlier we stop.
const MARGIN: Duration = Duration::from_secs(1);

/// Leaves one word on how long the body is. Chunks win over any length (RFC 9112, 6.3).
pub(super) fn settle(
    mut response: Response<Incoming>,
    target: &str,
) -> Result<Response<Incoming>, OriginError> {
    if response.headers().contains_key(TRANSFER_ENCODING) {
        let has_body = !response.body().is_end_stream();
        if has_body && let Some(coding) = unreadable(response.headers()) {
            return Err(OriginError::Coding { target: target.to_owned(), coding });
        }
        response.headers_mut().remove(CONTENT_LENGTH);
    } else {
        one_length(response.headers_mut());
    }
    Ok(response)
}

/// A transfer coding besides chunks: nobody was told that it would be understood, and what it has made of the
/// body would pass for the body.
fn unreadable(headers: &HeaderMap) -> Option<String> {
    let codings = headers.get_all(TRANSFER_ENCODING);
    let mut codings = codings.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    // One that is none ends with the connection. Beside a length its origin means the length, and that is not read.
    let is_long_as_said = headers.contains_key(CONTENT_LENGTH);
    let is_readable = |coding: &&[u8]| {
        let coding = coding.trim_ascii();
        coding.is_empty()
            || coding.eq_ignore_ascii_case(b"chunked")
            || (coding.eq_ignore_ascii_case(b"identity") && !is_long_as_said)
    };
    let coding = codings.find(|coding| !is_readable(coding))?;
    Some(String::from_utf8_lossy(coding.trim_ascii()).into_owned())
}

/// Several lengths that agree, in as many lines or in one, become one (RFC 9110, 8.6); those that do not can only
/// stand above no body at all.
fn one_length(headers: &mut HeaderMap) {
    let lines = headers.get_all(CONTENT_LENGTH);
    let mut lengths =
        lines.iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let Some(first) = lengths.next() else { return };
    let Some(second) = lengths.next() else { return };
    let agree = first == second && lengths.all(|length| length == first);
    let one = HeaderValue::from_bytes(first).ok().filter(|_| agree);
    headers.remove(CONTENT_LENGTH);
    if let Some(one) = one {
        headers.insert(CONTENT_LENGTH, one);
    }
}

/// How long the connection may be idle afterwards: as long as the origin says (`Keep-Alive: timeout=5`), and
/// no longer than this side wants.
pub(super) fn kept(headers: &HeaderMap, wanted: Duration) -> Duration {
    let Some(seconds) = headers.get_all(KEEP_ALIVE).iter().find_map(timeout) else { return wanted };
    let limit = Duration::from_secs(seconds);
    wanted.min(limit - MARGIN.min(limit / 2))
}

fn timeout(line: &HeaderValue) -> Option<u64> {
    line.to_str().ok()?.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_timeout = name.trim().eq_ignore_ascii_case("timeout");
        is_timeout.then(|| value.trim().trim_matches('"').parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_kept_for_less_than_the_origin_says() {
        for (line, kept_millis) in [
            ("timeout=5, max=100", 4000),
            ("max=100, Timeout = \"3\"", 2000),
            ("timeout=1", 500),
            ("timeout=0", 0),
            ("timeout=600", 90_000),
            ("timeout=99999999999999999999", 90_000),
            ("max=3", 90_000),
            ("timeout", 90_000),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(KEEP_ALIVE, HeaderValue::from_static(line));
            let wanted = Duration::from_secs(90);
            assert_eq!(kept(&headers, wanted), Duration::from_millis(kept_millis), "{line}");
        }
    }

    #[test]
    fn lengths_that_agree_become_one() {
        for (lines, left) in [
            (&["5"][..], Some("5")),
            (&["5", "5"], Some("5")),
            (&["5, 5 ,5"], Some("5")),
            (&["5", "6"], None),
            (&["5, 6"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_LENGTH, HeaderValue::from_static(line));
            }
            one_length(&mut headers);
            assert_eq!(headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes), left.map(str::as_bytes));
        }
    }
}
