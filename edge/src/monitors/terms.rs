//! What a monitor asks, what it wants to hear, and how often: read from what is kept of it. It was looked at when it
//! was kept, so what cannot be read counts as not said.

use std::ops::RangeInclusive;
use std::time::Duration;

use adit_balance::health::Thresholds;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::store::records::objects::Object;

pub(super) struct Terms {
    pub(super) question: Question,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    /// Further attempts at once where there is no answer in time.
    pub(super) retries: u32,
    pub(super) thresholds: Thresholds,
}

pub(super) enum Question {
    Http(Box<Http>),
    /// Whether the host reaches what is at this port.
    Tcp(u16),
}

pub(super) struct Http {
    pub(super) method: Method,
    pub(super) is_secure: bool,
    pub(super) path: PathAndQuery,
    /// Without the host.
    pub(super) headers: HeaderMap,
    host: Option<Authority>,
    codes: Vec<RangeInclusive<u16>>,
    /// In lower case.
    body: String,
    pub(super) follows: bool,
}

impl Terms {
    /// `None` if it is of a kind that asks nothing here.
    pub(super) fn of(monitor: &Object) -> Option<Self> {
        let said = |name: &str| monitor.said.get(name);
        let number = |name: &str, usual| said(name).and_then(Value::as_u64).unwrap_or(usual);
        let count = |name: &str, usual| u32::try_from(number(name, usual)).unwrap_or(u32::MAX);
        let question = match monitor.text("type").unwrap_or("http") {
            kind @ ("http" | "https") => Question::Http(Box::new(Http::of(monitor, kind == "https"))),
            "tcp" => Question::Tcp(u16::try_from(number("port", 0)).ok()?),
            _ => return None,
        };
        Some(Self {
            question,
            interval: Duration::from_secs(number("interval", 60).max(1)),
            timeout: Duration::from_secs(number("timeout", 5).max(1)),
            retries: count("retries", 2),
            thresholds: Thresholds {
                consecutive_up: count("consecutive_up", 0),
                consecutive_down: count("consecutive_down", 0),
            },
        })
    }

    /// As which host it asks where the endpoint says nothing about it.
    pub(super) fn host(&self) -> Option<&Authority> {
        match &self.question {
            Question::Http(http) => http.host.as_ref(),
            Question::Tcp(_) => None,
        }
    }
}

impl Http {
    fn of(monitor: &Object, is_secure: bool) -> Self {
        let mut headers = HeaderMap::new();
        let named = monitor.said.get("header").and_then(Value::as_object).into_iter().flatten();
        for (name, values) in named {
            let Ok(name) = HeaderName::try_from(name.as_str()) else { continue };
            let values = values.as_array().into_iter().flatten().filter_map(Value::as_str);
            for value in values.filter_map(|value| HeaderValue::from_str(value).ok()) {
                headers.append(name.clone(), value);
            }
        }
        let host = headers.remove(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
        headers.insert(USER_AGENT, AGENT);
        let path = monitor.text("path").and_then(|path| path.parse().ok());
        Self {
            method: if monitor.text("method") == Some("HEAD") { Method::HEAD } else { Method::GET },
            is_secure,
            path: path.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers,
            host,
            codes: codes(monitor.text("expected_codes").unwrap_or_default()),
            body: monitor.text("expected_body").unwrap_or_default().to_lowercase(),
            follows: monitor.said.get("follow_redirects") == Some(&Value::Bool(true)),
        }
    }

    /// What is wrong with an answer, if anything is.
    pub(super) fn fault(&self, status: StatusCode, body: &[u8]) -> Option<String> {
        if !self.codes.iter().any(|codes| codes.contains(&status.as_u16())) {
            return Some(format!("the status {} is not expected", status.as_u16()));
        }
        let is_wanted = !self.body.is_empty() && self.method != Method::HEAD;
        let is_there = || String::from_utf8_lossy(body).to_lowercase().contains(&self.body);
        (is_wanted && !is_there()).then(|| "the body does not have the expected text".to_owned())
    }
}

/// `200`, `2xx` or `200-204`, with commas between them; all that say success where nothing is said.
fn codes(text: &str) -> Vec<RangeInclusive<u16>> {
    let one = |text: &str| {
        if let Some(class) = text.strip_suffix("xx") {
            let class: u16 = class.parse().ok()?;
            return Some(class * 100..=class * 100 + 99);
        }
        match text.split_once('-') {
            Some((from, to)) => Some(from.parse().ok()?..=to.parse().ok()?),
            None => text.parse().ok().map(|code| code..=code),
        }
    };
    let codes: Vec<_> = text.split(',').filter_map(|part| one(part.trim())).collect();
    if codes.is_empty() { vec![200..=299] } else { codes }
}

/// As it begins at the reference, whose connectors and tools know monitors by it.
const AGENT: HeaderValue =
    HeaderValue::from_static("Mozilla/5.0 (compatible; Cloudflare-Traffic-Manager/1.0; Adit)");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::timestamp::Timestamp;

    fn terms(said: Value) -> Option<Terms> {
        let Value::Object(said) = said else { panic!("an object") };
        Terms::of(&Object {
            account: "a".to_owned(),
            zone: None,
            name: None,
            said,
            created_at: Timestamp::now(),
            modified_at: Timestamp::now(),
            modified_by: String::new(),
            disabled_at: std::collections::BTreeMap::new(),
            secrets: Vec::new(),
        })
    }

    fn http(said: Value) -> Box<Http> {
        match terms(said).unwrap().question {
            Question::Http(http) => http,
            Question::Tcp(_) => panic!("http"),
        }
    }

    #[test]
    fn an_answer_is_good_by_its_status_and_its_body() {
        for (codes, good, bad) in [
            ("", &[200, 204, 299][..], &[199, 300, 404, 502][..]),
            ("200", &[200], &[201]),
            ("2xx, 301", &[200, 301], &[302, 500]),
            ("200-204,4xx", &[204, 404], &[205, 500]),
        ] {
            let http = http(json!({ "expected_codes": codes }));
            let fault = |code: &u16| http.fault(StatusCode::from_u16(*code).unwrap(), b"");
            assert!(good.iter().all(|code| fault(code).is_none()), "{codes}");
            assert!(bad.iter().all(|code| fault(code).is_some()), "{codes}");
        }
        let http = http(json!({ "expected_body": "All FINE" }));
        assert_eq!(http.fault(StatusCode::OK, b"yes: all fine."), None);
        assert!(http.fault(StatusCode::OK, b"all is fine").is_some());
    }

    #[test]
    fn what_is_not_said_goes_without_saying_and_some_kinds_ask_nothing() {
        let usual = terms(json!({})).unwrap();
        assert_eq!((usual.interval.as_secs(), usual.timeout.as_secs(), usual.retries), (60, 5, 2));
        assert!(usual.host().is_none());
        let headers = json!({ "host": ["inner.test"], "x-key": ["a", "b"], "User-Agent": ["mine"] });
        let asks = http(json!({ "type": "https", "method": "HEAD", "path": "/up?deep", "header": headers }));
        assert_eq!((asks.is_secure, &asks.method, asks.path.as_str()), (true, &Method::HEAD, "/up?deep"));
        assert_eq!(asks.host.as_ref().map(Authority::as_str), Some("inner.test"));
        assert_eq!(asks.headers.get_all("x-key").iter().count(), 2);
        assert_eq!(asks.headers.get_all(USER_AGENT).iter().collect::<Vec<_>>(), [&AGENT]);
        assert!(matches!(terms(json!({ "type": "tcp", "port": 22 })).unwrap().question, Question::Tcp(22)));
        assert!(terms(json!({ "type": "icmp_ping" })).is_none());
    }
}
