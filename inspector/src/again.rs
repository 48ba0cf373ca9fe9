//! The request of an exchange, to be sent once more: as it was, or not at all.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, request};

use crate::exchange::{Body, Exchange};
use crate::redact::MARK;

/// Why a request cannot be sent again as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotRepeat {
    /// It is a handshake, and what followed is not here.
    Upgrade,
    /// Not all of its body was kept.
    Body,
    /// Not all of its headers were kept.
    Headers,
    /// A secret was taken out of where it cannot be put back.
    Secret,
    /// What was kept is no request, or what was given is no value.
    Malformed,
}

impl fmt::Display for CannotRepeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upgrade => "it opened a connection whose bytes were not kept",
            Self::Body => "its body was not kept whole; watch with bodies",
            Self::Headers => "not all of its headers were kept",
            Self::Secret => "a secret was taken out of its address or its body",
            Self::Malformed => "a value is not one that a header can have",
        })
    }
}

impl std::error::Error for CannotRepeat {}

/// The names of headers whose values were taken out, each once; to be given again.
#[must_use]
pub fn wanted(exchange: &Exchange) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in &exchange.request.headers {
        if value.contains(MARK) && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

/// The request, with `given` for headers of which something was taken out: one that gets nothing is left out.
///
/// # Errors
/// It would not be the same.
pub fn repeat(
    exchange: &Exchange,
    given: impl Fn(&str) -> Option<String>,
) -> Result<(request::Parts, Bytes), CannotRepeat> {
    let message = &exchange.request;
    if message.header("upgrade").is_some() || exchange.status == 101 || exchange.method == "CONNECT" {
        return Err(CannotRepeat::Upgrade);
    }
    if message.left_out > 0 || exchange.target.ends_with('…') {
        return Err(CannotRepeat::Headers);
    }
    let body = match &message.body {
        Body::Empty => Bytes::new(),
        Body::Text { text, is_whole: true, .. } => Bytes::copy_from_slice(text.as_bytes()),
        Body::Text { .. } | Body::LeftOut { .. } => return Err(CannotRepeat::Body),
    };
    if exchange.target.contains(MARK)
        || exchange.host.contains(MARK)
        || body.windows(MARK.len()).any(|part| part == MARK.as_bytes())
    {
        return Err(CannotRepeat::Secret);
    }
    let malformed = |_| CannotRepeat::Malformed;
    let uri = format!("{}://{}{}", exchange.scheme, exchange.host, exchange.target);
    let uri: Uri = uri.parse().map_err(|_| CannotRepeat::Malformed)?;
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::from_bytes(exchange.method.as_bytes()).map_err(|_| CannotRepeat::Malformed)?;
    head.uri = uri;
    let mut is_given: Vec<&str> = Vec::new();
    for (name, value) in &message.headers {
        let header: HeaderName = name.parse().map_err(|_| CannotRepeat::Malformed)?;
        if !value.contains(MARK) {
            head.headers.append(header, HeaderValue::from_str(value).map_err(malformed)?);
        } else if !is_given.contains(&name.as_str()) {
            is_given.push(name);
            if let Some(value) = given(name).filter(|value| !value.is_empty()) {
                let mut value = HeaderValue::from_str(&value).map_err(malformed)?;
                value.set_sensitive(true);
                head.headers.append(header, value);
            }
        }
    }
    Ok((head, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::tests::exchange;

    #[test]
    fn a_request_is_repeated_as_it_was_or_not_at_all() {
        let once = exchange();
        assert_eq!(wanted(&once), ["authorization"]);
        let (head, body) = repeat(&once, |_| Some("Bearer new".to_owned())).unwrap();
        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/orders"));
        assert_eq!(head.headers["authorization"], "Bearer new");
        assert_eq!(head.headers.get_all("x-two").iter().count(), 2);
        assert_eq!(body, "{\"a\":\"\u{1b}[2J\"}\n");
        assert!(!repeat(&once, |_| None).unwrap().0.headers.contains_key("authorization"));
        assert_eq!(repeat(&once, |_| Some("a\nb: c".to_owned())).unwrap_err(), CannotRepeat::Malformed);

        let mut other = once.clone();
        other.request.body = Body::Text { text: "a".to_owned(), bytes: 9, is_whole: false };
        assert_eq!(repeat(&other, |_| None).unwrap_err(), CannotRepeat::Body);
        other.request.body = Body::Text { text: format!("a={MARK}9 bytes›"), bytes: 9, is_whole: true };
        assert_eq!(repeat(&other, |_| None).unwrap_err(), CannotRepeat::Secret);
        other = Exchange { target: format!("/?a={MARK}"), ..once.clone() };
        assert_eq!(repeat(&other, |_| None).unwrap_err(), CannotRepeat::Secret);
        other = once.clone();
        other.request.left_out = 1;
        assert_eq!(repeat(&other, |_| None).unwrap_err(), CannotRepeat::Headers);
        other = once;
        other.request.headers.push(("upgrade".to_owned(), "websocket".to_owned()));
        assert_eq!(repeat(&other, |_| None).unwrap_err(), CannotRepeat::Upgrade);
    }
}
