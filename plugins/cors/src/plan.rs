//! Which origins may ask, and for what.

use std::ops::RangeInclusive;
use std::time::Duration;

use settings::{Fault, Faults, Place};

#[derive(Clone, Debug)]
pub struct Plan {
    origins: Origins,
    /// As the headers have them, ready.
    pub methods: String,
    pub headers: Headers,
    pub expose: String,
    pub credentials: bool,
    pub max_age: Duration,
}

#[derive(Clone, Debug)]
enum Origins {
    Any,
    These(Vec<Origin>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Exactly(String),
    /// Scheme with `://`, and what the host ends with, which begins with a dot.
    Below(String, String),
}

/// Which headers of requests a script may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Headers {
    /// Whatever it asks for.
    Any,
    /// As the header has them.
    These(String),
}

/// What an origin is told of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'a> {
    /// That any may.
    Any,
    This(&'a str),
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let keys = ["origins", "methods", "headers", "expose", "credentials", "max-age"];
            let object = place.object(&keys, faults)?;
            let credentials = object.optional("credentials").map_or(Some(false), |place| place.flag(faults));
            let origins = object.required("origins", faults).and_then(|place| {
                let origins = origins(&place, faults)?;
                if credentials == Some(true) && matches!(origins, Origins::Any) {
                    place.fault(faults, "with \"credentials\" every page of the web could act as its visitor: name the origins");
                }
                Some(origins)
            });
            let methods = object
                .optional("methods")
                .map_or_else(|| Some(METHODS.to_owned()), |place| names(&place, false, faults));
            let headers = match object.optional("headers") {
                None => Some(Headers::These(String::new())),
                Some(place) if place.word_is("*") => Some(Headers::Any),
                Some(place) => names(&place, true, faults).map(Headers::These),
            };
            let expose = object
                .optional("expose")
                .map_or_else(|| Some(String::new()), |place| names(&place, true, faults));
            let max_age = object
                .optional("max-age")
                .map_or(Some(Duration::from_secs(600)), |place| place.duration(MAX_AGE, faults));
            Some(Self {
                origins: origins?,
                methods: methods?,
                headers: headers?,
                expose: expose?,
                credentials: credentials?,
                max_age: max_age?,
            })
        })
    }

    /// What this origin is told, if it may ask.
    pub fn admits<'a>(&self, origin: &'a str) -> Option<Told<'a>> {
        match &self.origins {
            Origins::Any => Some(Told::Any),
            Origins::These(origins) => {
                let fits = origins.iter().any(|known| known.is(origin));
                fits.then_some(Told::This(origin))
            }
        }
    }

    /// Whether answers depend on who asks.
    pub fn varies(&self) -> bool {
        matches!(self.origins, Origins::These(_))
    }
}

impl Origin {
    fn is(&self, origin: &str) -> bool {
        match self {
            Self::Exactly(known) => known == origin,
            Self::Below(scheme, end) => {
                // What stands before it is a name, and nothing that could be another host.
                let rest =
                    origin.strip_prefix(scheme.as_str()).and_then(|rest| rest.strip_suffix(end.as_str()));
                rest.is_some_and(|name| !name.is_empty() && name.split('.').all(is_label))
            }
        }
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn origins(place: &Place<'_>, faults: &mut Faults) -> Option<Origins> {
    if place.word_is("*") {
        return Some(Origins::Any);
    }
    let places = place.list(faults)?;
    if places.is_empty() {
        place.fault(faults, "this list is empty");
        return None;
    }
    let origins: Vec<_> = places.iter().map(|place| origin(place, faults)).collect();
    origins.into_iter().collect::<Option<_>>().map(Origins::These)
}

fn origin(place: &Place<'_>, faults: &mut Faults) -> Option<Origin> {
    let text = place.text(faults)?;
    let parsed = text.split_once("://").and_then(|(scheme, host)| {
        let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
        let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        let (below, name) = name.strip_prefix("*.").map_or((false, name), |name| (true, name));
        let good = matches!(scheme, "https" | "http") && good_port && name.split('.').all(is_label);
        good.then(|| match below {
            false => Origin::Exactly(text.to_owned()),
            true => Origin::Below(format!("{scheme}://"), host[1..].to_owned()),
        })
    });
    if parsed.is_none() {
        place.fault(
            faults,
            "expected an origin as browsers write it, such as \"https://app.example.com\", \"http://localhost:3000\" or \"https://*.example.com\"",
        );
    }
    parsed
}

/// Names of methods or headers, in the form of a header's list.
fn names(place: &Place<'_>, are_headers: bool, faults: &mut Faults) -> Option<String> {
    let mut names = Vec::new();
    let mut whole = true;
    for place in place.list(faults)? {
        let text = place.text(faults);
        let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token);
        match text {
            Some(text) if is_token(text) && are_headers => names.push(text.to_ascii_lowercase()),
            Some(text) if is_token(text) => names.push(text.to_owned()),
            Some(_) => {
                place.fault(faults, "expected a name");
                whole = false;
            }
            None => whole = false,
        }
    }
    whole.then(|| names.join(", "))
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What a script asks for, if it is a list of names.
pub fn asked(list: &str) -> Option<&str> {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_token);
    (list.len() <= LONGEST && list.split(',').all(|name| is_name(name.trim()))).then_some(list)
}

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
/// Browsers keep an answer for two hours at most.
const MAX_AGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(86_400);
/// Of what a script asks for, bytes.
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_one_of_the_list_to_the_letter() {
        let plan = Plan::read(
            r#"{"origins": ["https://app.example.com", "http://localhost:3000", "https://*.example.net"]}"#,
        )
        .unwrap();
        for origin in [
            "https://app.example.com",
            "http://localhost:3000",
            "https://a.example.net",
            "https://a.b.example.net",
        ] {
            assert_eq!(plan.admits(origin), Some(Told::This(origin)), "{origin}");
        }
        for origin in [
            "",
            "null",
            "http://app.example.com",
            "https://app.example.com:444",
            "https://app.example.com.evil.example",
            "https://evil.example/.example.net",
            "https://evil.example?.example.net",
            "https://user@a.example.net",
            "https://example.net",
            "https://.example.net",
            "https://evilexample.net",
            "http://a.example.net",
            "https://a.example.net:8443",
        ] {
            assert_eq!(plan.admits(origin), None, "{origin}");
        }
        let any = Plan::read(r#"{"origins": "*"}"#).unwrap();
        assert_eq!(any.admits("https://anyone.example"), Some(Told::Any));
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let pointers = |config: &str| -> Vec<_> {
            Plan::read(config).unwrap_err().into_iter().map(|fault| fault.pointer).collect()
        };
        assert_eq!(
            pointers(
                r#"{"origins": ["app.example.com", "https://a/", "ftp://a", "https://A.example", "https://a:0"], "methods": ["GET POST"], "headers": ["x y"], "expose": [7], "credentials": 1, "max-age": "48h", "more": 1}"#
            ),
            [
                "/more",
                "/credentials",
                "/origins/0",
                "/origins/1",
                "/origins/2",
                "/origins/3",
                "/origins/4",
                "/methods/0",
                "/headers/0",
                "/expose/0",
                "/max-age"
            ]
        );
        assert_eq!(pointers(r#"{"origins": "*", "credentials": true}"#), ["/origins"]);
        assert_eq!(pointers(r#"{"origins": []}"#), ["/origins"]);
        assert_eq!(pointers("{}"), [""]);
    }

    #[test]
    fn a_script_asks_for_names_and_for_nothing_else() {
        assert_eq!(asked("content-type, x-a"), Some("content-type, x-a"));
        for bad in ["", "a,,b", "a b", "a\r\nb", "a:b"] {
            assert_eq!(asked(bad), None, "{bad:?}");
        }
    }
}
