//! Which provider, who may come in, and what the service is told of them.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::json;
use settings::{Fault, Faults, Place, header, path};

use crate::url;

#[derive(Clone, Debug)]
pub struct Plan {
    pub issuer: String,
    pub client_id: String,
    /// The name of the secret; a client without one proves itself by PKCE alone.
    pub client_secret: Option<String>,
    /// Names of secrets: the first seals, all open.
    pub cookie_secrets: Vec<String>,
    /// What the provider is asked for, with spaces between.
    pub scope: String,
    /// Claims, and which of them must have one of which values.
    pub require: Vec<(String, Vec<String>)>,
    /// Headers of the request, each with the claim that it is set to.
    pub headers: Vec<(String, String)>,
    /// Whether claims that the token has not are asked for.
    pub userinfo: bool,
    open: Vec<String>,
    pub callback: String,
    pub logout: String,
    /// Where a visitor goes who has signed out.
    pub after_logout: Option<String>,
    /// How visitors reach this, where that is not what the edge says.
    pub public_url: Option<String>,
    pub cookie: String,
    pub session: Duration,
    pub leeway: Duration,
    pub refresh: Duration,
    pub stale: Duration,
    pub bucket: String,
    /// All that decides who may come in and what is said of them.
    pub terms: String,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&KEYS, faults)?;
            let issuer = object.required("issuer", faults).and_then(|place| address(&place, faults));
            let client_id = object.required("client-id", faults).and_then(|place| filled(&place, faults));
            let client_secret = object.optional("client-secret").map(|place| filled(&place, faults));
            let cookie_secrets = object
                .optional("cookie-secret")
                .map_or_else(|| Some(vec!["cookie".to_owned()]), |place| some(&place, faults));
            let scopes = object.optional("scopes").map_or_else(
                || Some(["profile", "email"].map(str::to_owned).to_vec()),
                |place| scopes(&place, faults),
            );
            let require =
                object.optional("require").map_or_else(|| Some(Vec::new()), |place| require(&place, faults));
            let headers = object.optional("headers").map_or_else(
                || Some(vec![("x-user".to_owned(), "sub".to_owned())]),
                |place| headers(&place, faults),
            );
            let userinfo = object.optional("userinfo").map_or(Some(false), |place| place.flag(faults));
            let open = object
                .optional("open")
                .map_or_else(|| Some(Vec::new()), |place| path::prefixes(&place, faults));
            let mut own = |key, otherwise: &str| {
                object.optional(key).map_or_else(
                    || Some(otherwise.to_owned()),
                    |place| path::prefix(&place, faults).map(str::to_owned),
                )
            };
            let (callback, logout) = (own("callback", "/.oidc/callback"), own("logout", "/.oidc/logout"));
            let after_logout = object.optional("after-logout").map(|place| address(&place, faults));
            let public_url = object.optional("public-url").map(|place| origin(&place, faults));
            let cookie = object
                .optional("cookie")
                .map_or_else(|| Some("adit-oidc".to_owned()), |place| token(&place, faults));
            let time = |key, otherwise, range, faults: &mut Faults| {
                object.optional(key).map_or(Some(otherwise), |place| place.duration(range, faults))
            };
            let session = time("session", Duration::from_secs(8 * 3600), SESSION, faults);
            let leeway = time("leeway", Duration::from_secs(30), LEEWAY, faults);
            let refresh = time("refresh", Duration::from_secs(15 * 60), REFRESH, faults);
            let stale = time("stale", Duration::from_secs(24 * 3600), STALE, faults);
            let bucket = object
                .optional("bucket")
                .map_or_else(|| Some("oidc".to_owned()), |place| filled(&place, faults));
            let mut plan = Self {
                issuer: issuer?,
                client_id: client_id?,
                client_secret: whole(client_secret)?,
                cookie_secrets: cookie_secrets?,
                scope: [vec!["openid".to_owned()], scopes?].concat().join(" "),
                require: require?,
                headers: headers?,
                userinfo: userinfo?,
                open: open?,
                callback: callback?,
                logout: logout?,
                after_logout: whole(after_logout)?,
                public_url: whole(public_url)?,
                cookie: cookie?,
                session: session?,
                leeway: leeway?,
                refresh: refresh?,
                stale: stale?,
                bucket: bucket?,
                terms: String::new(),
            };
            if plan.callback == plan.logout {
                place.fault(faults, "\"callback\" and \"logout\" are the same path");
            }
            plan.terms =
                json!([plan.issuer, plan.client_id, plan.require, plan.headers, plan.userinfo]).to_string();
            Some(plan)
        })
    }

    /// Whether a request goes on without a session.
    pub fn is_open(&self, path_with_query: &str) -> bool {
        !self.open.is_empty() && path::is_surely_below(path_with_query, &self.open)
    }
}

/// What is there must have been read.
fn whole<T>(found: Option<Option<T>>) -> Option<Option<T>> {
    match found {
        None => Some(None),
        Some(read) => read.map(Some),
    }
}

fn address(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    if !url::is_safe(text) {
        place.fault(faults, "expected an address that begins with https://");
        return None;
    }
    Some(text.to_owned())
}

/// An address without a path.
fn origin(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = address(place, faults)?;
    let text = text.strip_suffix('/').unwrap_or(&text);
    if text.splitn(3, '/').nth(2).is_none_or(|authority| authority.contains(['/', '?'])) {
        place.fault(faults, "expected an address without a path, such as \"https://app.example.com\"");
        return None;
    }
    Some(text.to_owned())
}

fn filled(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    if text.is_empty() {
        place.fault(faults, "this cannot be empty");
        return None;
    }
    Some(text.to_owned())
}

/// A text that a cookie may be called.
fn token(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = filled(place, faults)?;
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        place.fault(faults, "a cookie's name here has letters, digits, \"-\", \"_\" and \".\"");
        return None;
    }
    Some(text)
}

fn some(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let places = place.one_or_many(faults)?;
    if places.is_empty() {
        place.fault(faults, "at least one is needed");
        return None;
    }
    let read: Vec<_> = places.iter().filter_map(|place| filled(place, faults)).collect();
    (read.len() == places.len()).then_some(read)
}

fn scopes(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let places = place.list(faults)?;
    let mut scopes = Vec::new();
    for place in &places {
        let Some(text) = filled(place, faults) else { continue };
        if text.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'"' || byte == b'\\') {
            place.fault(faults, "a scope is one word");
        }
        // It always is.
        if text != "openid" {
            scopes.push(text);
        }
    }
    Some(scopes)
}

fn require(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<(String, Vec<String>)>> {
    let mut require = Vec::new();
    for (claim, place) in place.entries(faults)? {
        require.extend(some(&place, faults).map(|values| (claim.to_owned(), values)));
    }
    Some(require)
}

fn headers(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<(String, String)>> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for (key, place) in place.entries(faults)? {
        let name = header::name(key).map_err(|unfit| place.fault(faults, unfit.to_string())).ok();
        let (Some(name), Some(claim)) = (name, filled(&place, faults)) else { continue };
        if name == "cookie" || headers.iter().any(|(known, _)| *known == name) {
            place.fault(faults, "this header stands here twice (case does not matter), or is `cookie`");
        }
        headers.push((name, claim));
    }
    Some(headers)
}

const KEYS: [&str; 19] = [
    "issuer",
    "client-id",
    "client-secret",
    "cookie-secret",
    "scopes",
    "require",
    "headers",
    "userinfo",
    "open",
    "callback",
    "logout",
    "after-logout",
    "public-url",
    "cookie",
    "session",
    "leeway",
    "refresh",
    "stale",
    "bucket",
];
const SESSION: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);
const LEEWAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const REFRESH: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(86_400);
const STALE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan() -> Plan {
        plan_with(r#""leeway": "30s""#)
    }

    /// With one more key, which takes the place of the one that is there.
    pub(crate) fn plan_with(more: &str) -> Plan {
        let config = format!(
            r#"{{"issuer": "https://id.example.com", "client-id": "app", "client-secret": "client",
                "require": {{"groups": ["staff", "friends"]}},
                "headers": {{"x-user": "sub", "x-mail": "email"}}, "open": ["/health"], {more}}}"#
        );
        Plan::read(&config).unwrap()
    }

    #[test]
    fn a_provider_and_a_name_are_enough() {
        let plan = Plan::read(r#"{"issuer": "http://localhost:80", "client-id": "app"}"#).unwrap();
        assert_eq!((plan.scope.as_str(), plan.client_secret), ("openid profile email", None));
        assert_eq!(plan.headers, [("x-user".to_owned(), "sub".to_owned())]);
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let pointers = |config: &str| -> Vec<String> {
            Plan::read(config).unwrap_err().into_iter().map(|fault| fault.pointer).collect()
        };
        assert_eq!(pointers("{}"), ["", ""]);
        assert_eq!(
            pointers(
                r#"{"issuers": "", "issuer": "http://id.example.com", "client-id": "", "client-secret": "",
                    "cookie-secret": [], "scopes": ["a b"], "require": {"groups": []},
                    "headers": {"host": "sub", "cookie": "sub", "x-a": ""}, "userinfo": 1, "open": ["x"],
                    "callback": "x", "logout": "/a?b", "after-logout": "/", "public-url": "https://a.example/b",
                    "cookie": "a b", "session": "1s", "leeway": "1h", "refresh": "1s", "stale": "1s", "bucket": ""}"#
            ),
            [
                "/issuers",
                "/issuer",
                "/client-id",
                "/client-secret",
                "/cookie-secret",
                "/scopes/0",
                "/require/groups",
                "/headers/cookie",
                "/headers/host",
                "/headers/x-a",
                "/userinfo",
                "/open/0",
                "/callback",
                "/logout",
                "/after-logout",
                "/public-url",
                "/cookie",
                "/session",
                "/leeway",
                "/refresh",
                "/stale",
                "/bucket",
            ]
        );
        let same = r#"{"issuer": "https://i", "client-id": "a", "callback": "/x", "logout": "/x"}"#;
        assert_eq!(pointers(same), [""]);
    }

    #[test]
    fn only_what_surely_lies_below_is_open() {
        let plan = plan();
        for (path, open) in
            [("/health/a", true), ("/health/..%2fadmin", false), ("/healthy", false), ("/", false)]
        {
            assert_eq!(plan.is_open(path), open, "{path}");
        }
    }
}
