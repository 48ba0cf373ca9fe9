//! A JSON Web Token in its compact form (RFC 7515 section 3.1), and its claims as values. Verifies nothing.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::Value;

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

/// A claim as a header value; `None` if it is not there or cannot be one.
pub fn text(claims: &Value, name: &str) -> Option<String> {
    let text = match claims.get(name)? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    settings::header::value(&text).is_ok().then_some(text)
}

/// Seconds since 1970, whole or not.
pub fn date(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| (0.0..9e15).contains(seconds))?;
        // Within the range of u64, as just seen.
        Some(seconds as u64)
    })
}

/// Bytes of a token that are worth decoding.
const LONGEST: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

    #[test]
    fn a_claim_becomes_a_header_only_if_it_can_be_one() {
        let claims = json!({"a": "x", "b": 7, "c": true, "d": "x\r\ny", "e": ["x"], "f": null});
        let texts: Vec<_> =
            ["a", "b", "c", "d", "e", "f", "g"].iter().map(|name| text(&claims, name)).collect();
        assert_eq!(
            texts,
            [Some("x".to_owned()), Some("7".to_owned()), Some("true".to_owned()), None, None, None, None]
        );
    }
}
