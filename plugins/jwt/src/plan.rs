//! What the configuration means.

use std::ops::RangeInclusive;
use std::time::Duration;

use settings::{Fault, Faults, Place, header};

#[derive(Clone, Debug)]
pub struct Plan {
    pub issuer: String,
    /// Where the keys are.
    pub jwks: String,
    /// At least one; a token must be for one of them.
    pub audience: Vec<String>,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// Where a token may be, in this order. At least one.
    pub from: Vec<From>,
    /// Headers that tell the origin what a token claims: name and claim.
    pub headers: Vec<(String, String)>,
    /// Whether the token itself goes on.
    pub forward: bool,
    /// Of a refusal: 401 or 403.
    pub status: u16,
    /// How often the keys are asked for.
    pub refresh: Duration,
    /// How long keys are good when they cannot be asked for.
    pub stale: Duration,
    /// Where the keys are kept for all instances.
    pub bucket: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// `Authorization: Bearer`.
    Bearer,
    Header(String),
    Cookie(String),
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(
                &[
                    "team", "issuer", "jwks", "audience", "leeway", "from", "headers", "forward", "status",
                    "refresh", "stale", "bucket",
                ],
                faults,
            )?;
            let access = object.optional("team").map(|place| team(&place, faults));
            let (issuer, jwks) = match &access {
                Some(domain) => {
                    for key in ["issuer", "jwks"] {
                        if let Some(place) = object.optional(key) {
                            place.fault(faults, "\"team\" says this already");
                        }
                    }
                    let issuer = domain.as_ref().map(|domain| format!("https://{domain}"));
                    let jwks = issuer.as_ref().map(|issuer| format!("{issuer}/cdn-cgi/access/certs"));
                    (issuer, jwks)
                }
                None => {
                    let issuer = object.required("issuer", faults).and_then(|place| filled(&place, faults));
                    (issuer, object.required("jwks", faults).and_then(|place| jwks(&place, faults)))
                }
            };
            let audience = object.required("audience", faults).and_then(|place| audience(&place, faults));
            let time = |key, otherwise, range, faults: &mut Faults| {
                object.optional(key).map_or(Some(otherwise), |place| place.duration(range, faults))
            };
            let leeway = time("leeway", Duration::from_secs(30), LEEWAY, faults);
            let from = match object.optional("from") {
                Some(place) => from(&place, faults),
                None if access.is_some() => Some(vec![
                    From::Header("cf-access-jwt-assertion".to_owned()),
                    From::Cookie("CF_Authorization".to_owned()),
                ]),
                None => Some(vec![From::Bearer]),
            };
            let headers =
                object.optional("headers").map_or_else(|| Some(Vec::new()), |place| headers(&place, faults));
            let forward = object.optional("forward").map_or(Some(true), |place| place.flag(faults));
            let refused = if access.is_some() { 403 } else { 401 };
            let status = object.optional("status").map_or(Some(refused), |place| status(&place, faults));
            let refresh = time("refresh", Duration::from_secs(15 * 60), REFRESH, faults);
            let stale = time("stale", Duration::from_secs(24 * 3600), STALE, faults);
            let bucket = object
                .optional("bucket")
                .map_or_else(|| Some("jwks".to_owned()), |place| filled(&place, faults));
            Some(Self {
                issuer: issuer?,
                jwks: jwks?,
                audience: audience?,
                leeway: leeway?,
                from: from?,
                headers: headers?,
                forward: forward?,
                status: status?,
                refresh: refresh?,
                stale: stale?,
                bucket: bucket?,
            })
        })
    }
}

/// The domain of a team, which is written alone or in full.
fn team(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    let team = text.strip_suffix(".cloudflareaccess.com").unwrap_or(text);
    if team.is_empty() || !team.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        place.fault(faults, "expected the name of a team, such as \"acme\" of acme.cloudflareaccess.com");
        return None;
    }
    Some(format!("{}.cloudflareaccess.com", team.to_ascii_lowercase()))
}

fn filled(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    if text.is_empty() {
        place.fault(faults, "this cannot be empty");
        return None;
    }
    Some(text.to_owned())
}

/// Whoever can change the keys on their way can sign tokens: only HTTPS, but for this machine.
fn jwks(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    let is_local = ["http://127.0.0.1", "http://[::1]", "http://localhost"]
        .iter()
        .any(|local| text.strip_prefix(local).is_some_and(|rest| rest.starts_with([':', '/'])));
    if !text.starts_with("https://") && !is_local {
        place.fault(faults, "expected a URL that begins with https://");
        return None;
    }
    Some(text.to_owned())
}

fn audience(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let places = place.one_or_many(faults)?;
    if places.is_empty() {
        place.fault(faults, "no audience: tokens that are meant for others would pass");
        return None;
    }
    places.iter().map(|place| filled(place, faults)).collect()
}

fn from(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<From>> {
    let places = place.list(faults)?;
    if places.is_empty() {
        place.fault(faults, "this list is empty: no token could be found");
        return None;
    }
    places.iter().map(|place| one_from(place, faults)).collect()
}

fn one_from(place: &Place<'_>, faults: &mut Faults) -> Option<From> {
    if !place.is_table() {
        place.word(&[("bearer", ())], faults)?;
        return Some(From::Bearer);
    }
    let object = place.object(&["header", "cookie"], faults)?;
    match (object.optional("header"), object.optional("cookie")) {
        (Some(place), None) => name(place.text(faults)?, &place, faults).map(From::Header),
        (None, Some(place)) => filled(&place, faults).map(From::Cookie),
        _ => {
            place.fault(faults, "expected \"header\" or \"cookie\"");
            None
        }
    }
}

fn headers(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<(String, String)>> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for (key, place) in place.entries(faults)? {
        let (header, claim) = (name(key, &place, faults), filled(&place, faults));
        let (Some(header), Some(claim)) = (header, claim) else { continue };
        if headers.iter().any(|(known, _)| *known == header) {
            place.fault(faults, "this header stands here twice (case does not matter)");
        }
        headers.push((header, claim));
    }
    Some(headers)
}

fn name(text: &str, place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    header::name(text).map_err(|unfit| place.fault(faults, unfit.to_string())).ok()
}

fn status(place: &Place<'_>, faults: &mut Faults) -> Option<u16> {
    let number = place.number(401..=403, faults)?;
    if number == 402 {
        place.fault(faults, "expected 401 or 403");
        return None;
    }
    u16::try_from(number).ok()
}

const LEEWAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const REFRESH: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(86_400);
const STALE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_stands_for_the_tokens_of_access() {
        for team in ["acme", "acme.cloudflareaccess.com", "ACME"] {
            let plan = Plan::read(&format!(r#"{{"team": "{team}", "audience": "tag"}}"#)).unwrap();
            assert_eq!(plan.issuer, "https://acme.cloudflareaccess.com");
            assert_eq!(plan.jwks, "https://acme.cloudflareaccess.com/cdn-cgi/access/certs");
            assert_eq!(plan.from[0], From::Header("cf-access-jwt-assertion".to_owned()));
            assert_eq!((plan.status, plan.audience), (403, vec!["tag".to_owned()]));
        }
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let pointers = |config: &str| -> Vec<String> {
            Plan::read(config).unwrap_err().into_iter().map(|fault| fault.pointer).collect()
        };
        assert_eq!(pointers("{}"), ["", "", ""]);
        assert_eq!(
            pointers(
                r#"{"issuers": "", "issuer": "", "jwks": "http://id.example.com/keys", "audience": [], "leeway": "1h",
                    "from": ["basic"], "headers": {"host": "sub", "x-a": ""}, "forward": 1, "status": 402, "refresh": "1s",
                    "stale": "1s", "bucket": ""}"#
            ),
            [
                "/issuers",
                "/issuer",
                "/jwks",
                "/audience",
                "/leeway",
                "/from/0",
                "/headers/host",
                "/headers/x-a",
                "/forward",
                "/status",
                "/refresh",
                "/stale",
                "/bucket",
            ]
        );
        assert_eq!(
            pointers(r#"{"team": "a.b", "issuer": "x", "audience": ["a", ""], "from": [{}]}"#),
            ["/team", "/issuer", "/audience/1", "/from/0"]
        );
        for near in ["http://127.0.0.1.example.com/", "http://localhost.example.com/"] {
            assert_eq!(
                pointers(&format!(r#"{{"issuer": "i", "audience": "a", "jwks": "{near}"}}"#)),
                ["/jwks"]
            );
        }
    }
}
