//! A token as a visitor sent it (RFC 7515 section 3.1). Nothing of it is believed here.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::Value;

use crate::plan::From;

/// What was found where a token may be.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    Nothing,
    One(&'a str),
    /// The origin might believe another one than this plugin.
    Several,
}

/// The first place that holds anything decides.
pub fn find<'a>(from: &[From], headers: &'a [(String, String)]) -> Found<'a> {
    for place in from {
        let values = |wanted: &'static str| values(headers, wanted);
        let mut found: Vec<&str> = match place {
            From::Header(name) => values_of(headers, name).collect(),
            From::Bearer => values("authorization").filter_map(bearer).collect(),
            From::Cookie(name) => values("cookie").flat_map(|line| cookies(line, name)).collect(),
        };
        match found.len() {
            0 => {}
            1 => return found.pop().map_or(Found::Nothing, Found::One),
            _ => return Found::Several,
        }
    }
    Found::Nothing
}

fn values<'a>(headers: &'a [(String, String)], wanted: &'static str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

fn values_of<'a>(headers: &'a [(String, String)], wanted: &str) -> impl Iterator<Item = &'a str> {
    headers.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str())
}

/// RFC 6750 section 2.1.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// The values of this cookie in one Cookie header (RFC 6265 section 4.2).
fn cookies<'a>(line: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    line.split(';').filter_map(move |pair| {
        let (known, value) = pair.trim().split_once('=')?;
        (known == name).then_some(value)
    })
}

/// The parts of a token.
#[derive(Debug)]
pub struct Token<'a> {
    pub algorithm: String,
    pub key_id: Option<String>,
    /// What the signature is of.
    pub signed: &'a [u8],
    pub signature: Vec<u8>,
    /// The claims, not decoded: nobody looks at them before the signature is verified.
    payload: &'a str,
}

impl<'a> Token<'a> {
    /// `None` for anything that is not a signed token in its compact form.
    pub fn read(text: &'a str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        let header = json(header)?;
        // Extensions that must be understood (RFC 7515 section 4.1.11): none is.
        if header.get("crit").is_some() {
            return None;
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(id) => Some(id.as_str()?.to_owned()),
        };
        Some(Self {
            algorithm: header.get("alg")?.as_str()?.to_owned(),
            key_id,
            signed: signed.as_bytes(),
            signature: decode(signature)?,
            payload,
        })
    }

    /// The claims; only for whoever has verified the signature.
    pub fn claims(&self) -> Option<Value> {
        json(self.payload)
    }
}

fn json(encoded: &str) -> Option<Value> {
    let value: Value = serde_json::from_slice(&decode(encoded)?).ok()?;
    value.is_object().then_some(value)
}

pub fn decode(encoded: &str) -> Option<Vec<u8>> {
    Base64UrlUnpadded::decode_vec(encoded).ok()
}

/// Bytes of a token that are worth decoding.
const LONGEST: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_first_place_that_holds_a_token_is_the_one() {
        let from = [From::Header("x-token".to_owned()), From::Bearer, From::Cookie("session".to_owned())];
        for (sent, found) in [
            (&[("x-token", "a"), ("authorization", "Bearer b")][..], Found::One("a")),
            (&[("authorization", "bearer  b ")], Found::One("b")),
            (&[("authorization", "Basic b"), ("cookie", "x=1; session=c; y=2")], Found::One("c")),
            (&[("cookie", "sessions=c; xsession=d"), ("cookie", "session=e")], Found::One("e")),
            (&[("x-token", "a"), ("x-token", "a")], Found::Several),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer b")], Found::Several),
            (&[("cookie", "session=a; session=b")], Found::Several),
            (&[("cookie", "session=a"), ("cookie", "session=b")], Found::Several),
            (&[("authorization", "Bearer"), ("cookie", "")], Found::Nothing),
        ] {
            assert_eq!(find(&from, &headers(sent)), found, "{sent:?}");
        }
    }

    #[test]
    fn only_a_signed_token_in_compact_form_is_read() {
        let encode = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
        let token = |header: &str| format!("{}.{}.c2ln", encode(header), encode("{}"));
        let text = token(r#"{"alg":"ES256","kid":"1","typ":"JWT"}"#);
        let read = Token::read(&text).unwrap();
        assert_eq!((read.algorithm.as_str(), read.key_id.as_deref()), ("ES256", Some("1")));
        assert_eq!((read.signed, &read.signature[..]), (&text.as_bytes()[..text.len() - 5], &b"sig"[..]));
        for bad in [
            String::new(),
            "a.b".to_owned(),
            "...".to_owned(),
            text.replace("c2ln", "c2ln=="),
            format!("{text}.x"),
            format!("{text} "),
            token("[]"),
            token(r#"{"kid":"1"}"#),
            token(r#"{"alg":1}"#),
            token(r#"{"alg":"ES256","kid":1}"#),
            token(r#"{"alg":"ES256","crit":["b64"],"b64":false}"#),
            format!("{}{text}", "x".repeat(LONGEST)),
        ] {
            assert!(Token::read(&bad).is_none(), "{bad}");
        }
    }
}
