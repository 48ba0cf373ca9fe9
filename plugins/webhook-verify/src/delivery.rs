//! What a service signs of a delivery, and how it writes that. Computes nothing.

use base64ct::{Base64, Encoding};
use serde_json::Value;

use crate::plan::Kind;

/// What a delivery says of itself. Nothing of it is true before one of the tags is found to be the content's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What was signed.
    pub content: Vec<u8>,
    /// HMACs of it, with SHA-256; one of them has to hold.
    pub tags: Vec<Vec<u8>>,
    /// Seconds since 1970.
    pub time: Option<u64>,
    /// By which it is known again; without one its content is.
    pub id: Option<String>,
}

/// The headers that any of the services sends.
pub const HEADERS: [&str; 8] = [
    "stripe-signature",
    "webhook-id",
    "webhook-signature",
    "webhook-timestamp",
    "x-github-delivery",
    "x-hub-signature-256",
    "x-slack-request-timestamp",
    "x-slack-signature",
];

/// Reads a delivery; none if it is not one of this service's.
pub fn read(kind: Kind, headers: &[(String, String)], body: &[u8]) -> Option<Delivery> {
    match kind {
        Kind::Github => {
            let tag = unhex(one(headers, "x-hub-signature-256")?.strip_prefix("sha256=")?)?;
            let id = one(headers, "x-github-delivery").map(str::to_owned);
            Some(Delivery { content: body.to_vec(), tags: vec![tag], time: None, id })
        }
        Kind::Stripe => {
            let pairs = one(headers, "stripe-signature")?.split(',');
            let pairs: Vec<_> = pairs.filter_map(|pair| pair.trim().split_once('=')).collect();
            let time = pairs.iter().find(|(key, _)| *key == "t").map(|(_, value)| *value)?;
            let tags = pairs.iter().filter(|(key, _)| *key == "v1").take(MOST_TAGS);
            let tags = tags.filter_map(|(_, value)| unhex(value)).collect();
            let content = [time.as_bytes(), b".", body].concat();
            Some(Delivery { content, tags, time: Some(seconds(time)?), id: member(body, "id") })
        }
        Kind::Slack => {
            let time = one(headers, "x-slack-request-timestamp")?;
            let tag = unhex(one(headers, "x-slack-signature")?.strip_prefix("v0=")?)?;
            let content = [b"v0:", time.as_bytes(), b":", body].concat();
            let id = member(body, "event_id");
            Some(Delivery { content, tags: vec![tag], time: Some(seconds(time)?), id })
        }
        Kind::Standard => {
            let (id, time) = (one(headers, "webhook-id")?, one(headers, "webhook-timestamp")?);
            // A dot in it could move the border to the time.
            if id.is_empty() || id.contains('.') {
                return None;
            }
            let signatures = one(headers, "webhook-signature")?.split(' ').take(MOST_TAGS);
            let tags = signatures.filter_map(|one| one.strip_prefix("v1,"));
            let tags = tags.filter_map(|tag| Base64::decode_vec(tag).ok()).collect();
            let content = [id.as_bytes(), b".", time.as_bytes(), b".", body].concat();
            Some(Delivery { content, tags, time: Some(seconds(time)?), id: Some(id.to_owned()) })
        }
    }
}

/// The bytes that a service makes its HMACs with, of a secret as people copy it. None if it cannot be one.
pub fn key(kind: Kind, secret: &[u8]) -> Option<Vec<u8>> {
    let key = match kind {
        Kind::Standard => {
            let text = std::str::from_utf8(secret).ok()?.trim();
            Base64::decode_vec(text.strip_prefix("whsec_").unwrap_or(text)).ok()?
        }
        Kind::Github | Kind::Stripe | Kind::Slack => secret.to_vec(),
    };
    (!key.is_empty()).then_some(key)
}

/// The value of a header that is there once.
fn one<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut values = headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.trim());
    values.next().filter(|_| values.next().is_none())
}

/// A text at the top of a JSON object.
fn member(body: &[u8], name: &str) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body.get(name)?.as_str().filter(|id| !id.is_empty()).map(str::to_owned)
}

fn seconds(text: &str) -> Option<u64> {
    // Neither a sign nor a space: what was signed is the text.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Signatures of one delivery that are looked at.
const MOST_TAGS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_service_signs_something_else() {
        let github = [("x-hub-signature-256", "sha256=0aff"), ("x-github-delivery", "d-1")];
        let read = |kind, list: &[(&str, &str)], body: &[u8]| read(kind, &headers(list), body);
        let found = read(Kind::Github, &github, b"body").unwrap();
        assert_eq!((&found.content[..], &found.tags[..]), (&b"body"[..], &[vec![0x0a, 0xff]][..]));
        assert_eq!((found.time, found.id.as_deref()), (None, Some("d-1")));

        let stripe = [("stripe-signature", "t=12,v1=0a,v0=ff,v1=0b")];
        let found = read(Kind::Stripe, &stripe, br#"{"id": "evt_1"}"#).unwrap();
        assert_eq!(found.content, br#"12.{"id": "evt_1"}"#);
        assert_eq!((found.tags, found.time), (vec![vec![0x0a], vec![0x0b]], Some(12)));
        assert_eq!(found.id.as_deref(), Some("evt_1"));

        let slack = [("x-slack-signature", "v0=0a"), ("x-slack-request-timestamp", "12")];
        let found = read(Kind::Slack, &slack, b"a=b").unwrap();
        assert_eq!((&found.content[..], found.time, found.id), (&b"v0:12:a=b"[..], Some(12), None));

        let standard = [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", "12"),
            ("webhook-signature", "v1,Cg== v1a,abc v1,Cw=="),
        ];
        let found = read(Kind::Standard, &standard, b"{}").unwrap();
        assert_eq!((&found.content[..], found.tags), (&b"msg_1.12.{}"[..], vec![vec![0x0a], vec![0x0b]]));
    }

    #[test]
    fn what_says_it_twice_or_not_at_all_is_no_delivery() {
        let good = ("x-hub-signature-256", "sha256=0aff");
        for (kind, list) in [
            (Kind::Github, &[][..]),
            (Kind::Github, &[good, good]),
            (Kind::Github, &[("x-hub-signature-256", "0aff")]),
            (Kind::Github, &[("x-hub-signature-256", "sha256=0af")]),
            (Kind::Github, &[("x-hub-signature-256", "sha256=+f")]),
            (Kind::Stripe, &[("stripe-signature", "v1=0a")]),
            (Kind::Stripe, &[("stripe-signature", "t=+12,v1=0a")]),
            (Kind::Slack, &[("x-slack-signature", "v0=0a")]),
            (
                Kind::Standard,
                &[("webhook-id", "msg_1.12"), ("webhook-timestamp", "12"), ("webhook-signature", "v1,Cg==")],
            ),
        ] {
            assert_eq!(read(kind, &headers(list), b"{}"), None, "{list:?}");
        }
    }

    #[test]
    fn a_secret_is_taken_as_people_copy_it() {
        assert_eq!(key(Kind::Standard, b"whsec_Cgs="), Some(vec![0x0a, 0x0b]));
        assert_eq!(key(Kind::Standard, b"Cgs="), Some(vec![0x0a, 0x0b]));
        assert_eq!(key(Kind::Standard, b"whsec_%"), None);
        assert_eq!(key(Kind::Stripe, b"whsec_Cgs="), Some(b"whsec_Cgs=".to_vec()));
        assert_eq!(key(Kind::Github, b""), None);
    }
}
