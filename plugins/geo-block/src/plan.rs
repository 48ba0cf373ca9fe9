//! From where a request may come.

use settings::{Fault, Faults, Place, path};

#[derive(Clone, Debug)]
pub struct Plan {
    /// Empty: every country that is not denied.
    allow: Vec<String>,
    /// Goes before `allow`.
    deny: Vec<String>,
    /// Whether a visitor passes of whom no country is known.
    unknown: bool,
    /// What this is about; empty: everything.
    paths: Vec<String>,
    /// Of the refusal.
    pub status: u16,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["allow", "deny", "unknown", "paths", "status"], faults)?;
            let mut list = |key| match object.optional(key) {
                None => Some(Vec::new()),
                Some(place) => countries(&place, faults),
            };
            let (allow, deny) = (list("allow"), list("deny"));
            if object.optional("allow").or(object.optional("deny")).is_none() {
                place.fault(faults, "neither \"allow\" nor \"deny\" is there: nothing would be decided");
            }
            let words = [("deny", false), ("allow", true)];
            let unknown = object.optional("unknown").map_or(Some(false), |place| place.word(&words, faults));
            let paths = object
                .optional("paths")
                .map_or_else(|| Some(Vec::new()), |place| path::prefixes(&place, faults));
            let status = object.optional("status").map_or(Some(403), |place| status(&place, faults));
            Some(Self { allow: allow?, deny: deny?, unknown: unknown?, paths: paths?, status: status? })
        })
    }

    /// Whether a request passes from this country, which is what the edge says, if it says something.
    pub fn admits(&self, country: Option<&str>, path_with_query: &str) -> bool {
        if !self.paths.is_empty() && !path::may_be_below(path_with_query, &self.paths) {
            return true;
        }
        let has =
            |list: &[String], country: &str| list.iter().any(|known| known.eq_ignore_ascii_case(country));
        match country.filter(|country| is_known(country)) {
            None => self.unknown,
            Some(country) => {
                !has(&self.deny, country) && (self.allow.is_empty() || has(&self.allow, country))
            }
        }
    }
}

/// Whether it is a country at all: XX is for one that is not known.
fn is_known(country: &str) -> bool {
    country.len() == 2 && !country.eq_ignore_ascii_case("xx")
}

fn countries(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let places = place.list(faults)?;
    if places.is_empty() {
        place.fault(faults, "this list is empty; leave it out if it is to mean nothing");
        return None;
    }
    let mut countries = Vec::new();
    for place in &places {
        match place.text(faults) {
            // T1 is what some call Tor.
            Some(text)
                if text.len() == 2
                    && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
                    && is_known(text) =>
            {
                countries.push(text.to_ascii_uppercase());
            }
            Some(_) => {
                place.fault(faults, "expected the two letters of a country, such as \"DE\" (ISO 3166-1)")
            }
            None => {}
        }
    }
    (countries.len() == places.len()).then_some(countries)
}

fn status(place: &Place<'_>, faults: &mut Faults) -> Option<u16> {
    match place.number(400..=499, faults)? {
        403 => Some(403),
        404 => Some(404),
        451 => Some(451),
        _ => {
            place.fault(faults, "expected 403, 404 or 451");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_country_decides_and_deny_goes_before_allow() {
        let admits = |config: &str, country: Option<&str>| Plan::read(config).unwrap().admits(country, "/");
        let only = r#"{"allow": ["de", "FR"]}"#;
        for (country, passes) in [
            (Some("DE"), true),
            (Some("fr"), true),
            (Some("US"), false),
            (None, false),
            (Some("XX"), false),
            (Some(""), false),
        ] {
            assert_eq!(admits(only, country), passes, "{country:?}");
        }
        let but = r#"{"deny": ["US"], "unknown": "allow"}"#;
        for (country, passes) in [(Some("DE"), true), (Some("US"), false), (None, true), (Some("XX"), true)] {
            assert_eq!(admits(but, country), passes, "{country:?}");
        }
        assert!(!admits(r#"{"allow": ["DE"], "deny": ["DE"]}"#, Some("DE")));
    }

    #[test]
    fn only_what_lies_below_the_paths_is_closed() {
        let plan = Plan::read(r#"{"allow": ["DE"], "paths": ["/shop"]}"#).unwrap();
        for (path, passes) in
            [("/", true), ("/shop", false), ("/shop/a", false), ("/x/..%2fshop", false), ("/shopping", true)]
        {
            assert_eq!(plan.admits(Some("US"), path), passes, "{path}");
        }
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let pointers = |config: &str| -> Vec<_> {
            Plan::read(config).unwrap_err().into_iter().map(|fault| fault.pointer).collect()
        };
        assert_eq!(
            pointers(
                r#"{"allow": ["Germany", "XX", 1], "deny": [], "unknown": "x", "paths": ["a"], "status": 418, "more": 1}"#
            ),
            ["/more", "/allow/0", "/allow/1", "/allow/2", "/deny", "/unknown", "/paths/0", "/status"]
        );
        assert_eq!(pointers("{}"), [""]);
    }
}
