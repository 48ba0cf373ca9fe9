//! The variants, and who gets which.

use settings::{Fault, Faults, Place, header};
use sha2::{Digest, Sha256};

#[derive(Clone, Debug)]
pub struct Plan {
    /// At least one; their weights are at most 100 together. What is left over goes on as it came.
    pub variants: Vec<Variant>,
    /// What a visitor is known by.
    pub by: By,
    /// Another one draws other visitors.
    salt: String,
    /// Tells the origin the variant's name, in lower case; a visitor's own is always removed.
    pub header: Option<String>,
    /// Whether answers tell it too.
    pub echo: bool,
    /// A header in which a visitor may name its variant.
    pub force: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    pub name: String,
    /// Percent of the visitors.
    weight: f64,
    /// Set on the request.
    pub headers: Vec<(String, String)>,
    /// What the origin sees as Host.
    pub authority: Option<String>,
    /// Goes before the path.
    pub path_prefix: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    Address,
    Header(String),
    /// Given to whoever has none.
    Cookie(String),
}

/// What a visitor is drawn by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub text: String,
    /// Whether it is new and should be given to the visitor.
    pub is_new: bool,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let keys = ["variants", "by", "salt", "header", "echo", "force"];
            let object = place.object(&keys, faults)?;
            let variants = object.required("variants", faults).and_then(|place| variants(&place, faults));
            let by = object.optional("by").map_or(Some(By::Address), |place| by(&place, faults));
            let salt = object.optional("salt").map_or(Some(""), |place| place.text(faults));
            let header = match object.optional("header") {
                None => Some(Some("x-variant".to_owned())),
                Some(place) => match place.text(faults) {
                    Some("") => Some(None),
                    text => text.and_then(|text| name(text, &place, faults)).map(Some),
                },
            };
            let echo = object.optional("echo").map_or(Some(false), |place| place.flag(faults));
            let force = match object.optional("force") {
                None => Some(None),
                Some(place) => place.text(faults).and_then(|text| name(text, &place, faults)).map(Some),
            };
            Some(Self {
                variants: variants?,
                by: by?,
                salt: salt?.to_owned(),
                header: header?,
                echo: echo?,
                force: force?,
            })
        })
    }

    /// The variant of whoever has this ticket; `None` goes on as it came.
    pub fn draw(&self, ticket: &str) -> Option<&Variant> {
        let digest = Sha256::new().chain_update(&self.salt).chain_update([0]).chain_update(ticket).finalize();
        let number = digest[..4].iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        let mut point = f64::from(number) / (f64::from(u32::MAX) + 1.0) * 100.0;
        self.variants.iter().find(|variant| {
            let is_here = point < variant.weight;
            point -= variant.weight;
            is_here
        })
    }

    /// The variant that a visitor asks for by name, and whether it asks for any: a name that is not there
    /// goes on as it came.
    pub fn forced(&self, headers: &[(String, String)]) -> Option<Option<&Variant>> {
        let force = self.force.as_ref()?;
        let (_, wanted) = headers.iter().find(|(name, _)| name == force)?;
        Some(self.variants.iter().find(|variant| variant.name == *wanted))
    }

    /// What a request is drawn by. `id` is one that no other request has.
    pub fn ticket(&self, client: &str, headers: &[(String, String)], id: &str) -> Ticket {
        let old = |text: &str| Ticket { text: text.to_owned(), is_new: false };
        match &self.by {
            By::Address => old(client),
            By::Header(name) => {
                old(headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value))
            }
            By::Cookie(name) => {
                let lines = headers.iter().filter(|(known, _)| known == "cookie");
                let mut pairs = lines
                    .flat_map(|(_, line)| line.split(';'))
                    .filter_map(|pair| pair.trim().split_once('='));
                match pairs.find(|(known, value)| known == name && is_ours(value)) {
                    Some((_, value)) => old(value),
                    None => {
                        let digest = Sha256::digest(id);
                        let text = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
                        Ticket { text, is_new: true }
                    }
                }
            }
        }
    }
}

/// Whether a cookie has the form of those that are given here.
fn is_ours(value: &str) -> bool {
    value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn variants(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<Variant>> {
    let places = place.list(faults)?;
    if places.is_empty() || places.len() > MOST_VARIANTS {
        place.fault(faults, format!("expected 1 to {MOST_VARIANTS} variants"));
    }
    let mut variants: Vec<Variant> = Vec::new();
    for place in &places {
        let Some(variant) = variant(place, faults) else { continue };
        if variants.iter().any(|known| known.name == variant.name) {
            place.fault(faults, "a variant of this name stands further up");
        }
        variants.push(variant);
    }
    let sum: f64 = variants.iter().map(|variant| variant.weight).sum();
    if sum > 100.000_001 {
        place.fault(faults, format!("the weights are {sum} percent together"));
    }
    Some(variants)
}

fn variant(place: &Place<'_>, faults: &mut Faults) -> Option<Variant> {
    let object = place.object(&["name", "weight", "headers", "authority", "path-prefix"], faults)?;
    let label = object.required("name", faults).and_then(|place| {
        let text = place.text(faults)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if text.is_empty() || text.len() > 64 || !text.bytes().all(is_plain) {
            place.fault(faults, "expected 1 to 64 letters, digits, `-`, `_` and `.`");
            return None;
        }
        Some(text.to_owned())
    });
    let weight = object.required("weight", faults).and_then(|place| place.real(0.0..=100.0, faults));
    let headers = object.optional("headers").map_or_else(|| Some(Vec::new()), |place| lines(&place, faults));
    let authority = match object.optional("authority") {
        None => Some(None),
        Some(place) => authority(&place, faults).map(Some),
    };
    let prefix = match object.optional("path-prefix") {
        None => Some(None),
        Some(place) => {
            settings::path::prefix(&place, faults).map(|prefix| Some(prefix.trim_end_matches('/').to_owned()))
        }
    };
    Some(Variant {
        name: label?,
        weight: weight?,
        headers: headers?,
        authority: authority?,
        path_prefix: prefix?,
    })
}

fn lines(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<(String, String)>> {
    let mut lines = Vec::new();
    for (key, place) in place.entries(faults)? {
        let Some(value) = place.text(faults) else { continue };
        if let Err(unfit) = header::value(value) {
            place.fault(faults, unfit.to_string());
        }
        lines.extend(name(key, &place, faults).map(|name| (name, value.to_owned())));
    }
    Some(lines)
}

fn authority(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
    {
        place.fault(faults, "expected a host name, with a port or without");
        return None;
    }
    Some(text.to_owned())
}

fn by(place: &Place<'_>, faults: &mut Faults) -> Option<By> {
    if !place.is_table() {
        place.word(&[("address", ())], faults)?;
        return Some(By::Address);
    }
    let object = place.object(&["header", "cookie"], faults)?;
    match (object.optional("header"), object.optional("cookie")) {
        (Some(place), None) => name(place.text(faults)?, &place, faults).map(By::Header),
        // A cookie's name is a token as a header's is (RFC 6265 section 4.1.1).
        (None, Some(place)) => {
            let text = place.text(faults)?;
            name(text, &place, faults).map(|_| By::Cookie(text.to_owned()))
        }
        _ => {
            place.fault(faults, "expected \"header\" or \"cookie\"");
            None
        }
    }
}

fn name(text: &str, place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    header::name(text).map_err(|unfit| place.fault(faults, unfit.to_string())).ok()
}

const MOST_VARIANTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_variant_gets_its_share_and_a_visitor_always_the_same() {
        let plan = Plan::read(
            r#"{"variants": [{"name": "a", "weight": 10}, {"name": "b", "weight": 0.5}, {"name": "none", "weight": 0}]}"#,
        )
        .unwrap();
        let mut counts = [0u32; 4];
        for number in 0..40_000 {
            let ticket = format!("192.0.2.{number}");
            let drawn = plan.draw(&ticket).map(|variant| variant.name.as_str());
            assert_eq!(drawn, plan.draw(&ticket).map(|variant| variant.name.as_str()));
            counts[match drawn {
                Some("a") => 0,
                Some("b") => 1,
                Some(_) => 2,
                None => 3,
            }] += 1;
        }
        assert!((3_600..4_400).contains(&counts[0]) && (120..280).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn more_weight_keeps_those_who_are_there_and_another_salt_draws_others() {
        let plan = |weight: u32, salt: &str| {
            Plan::read(&format!(r#"{{"salt": "{salt}", "variants": [{{"name": "a", "weight": {weight}}}]}}"#))
                .unwrap()
        };
        let drawn =
            |plan: &Plan| (0..1000).filter(|n| plan.draw(&n.to_string()).is_some()).collect::<Vec<_>>();
        let (few, more, others) = (drawn(&plan(10, "")), drawn(&plan(20, "")), drawn(&plan(10, "x")));
        assert!(few.iter().all(|number| more.contains(number)) && more.len() > few.len());
        assert_ne!(few, others);
        assert_eq!((drawn(&plan(0, "")).len(), drawn(&plan(100, "")).len()), (0, 1000));
    }

    #[test]
    fn a_visitor_is_known_by_what_was_asked_for() {
        let plan = |by: &str| {
            Plan::read(&format!(r#"{{"by": {by}, "variants": [{{"name": "a", "weight": 1}}]}}"#)).unwrap()
        };
        let ticket = "0123456789abcdef0123456789abcdef";
        let sent = headers(&[("x-user", "ada"), ("cookie", &format!("a=1; Split={ticket}"))]);
        let old = |text: &str| Ticket { text: text.to_owned(), is_new: false };
        assert_eq!(plan(r#""address""#).ticket("192.0.2.1", &sent, "1"), old("192.0.2.1"));
        assert_eq!(plan(r#"{"header": "X-User"}"#).ticket("", &sent, "1"), old("ada"));
        assert_eq!(plan(r#"{"cookie": "Split"}"#).ticket("", &sent, "1"), old(ticket));
        // Whoever has none, or one that was not given here, gets one.
        let chosen = headers(&[("cookie", "Split=choose-me")]);
        for sent in [&[][..], &chosen] {
            let given = plan(r#"{"cookie": "Split"}"#).ticket("", sent, "1");
            assert!(given.is_new && is_ours(&given.text));
            assert_ne!(given, plan(r#"{"cookie": "Split"}"#).ticket("", sent, "2"));
        }
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let found: Vec<_> = Plan::read(
            r#"{"variant": [], "by": {}, "salt": 1, "header": "a b", "echo": 1, "force": "host", "variants": [
                {"name": "a", "weight": 60, "headers": {"host": "x", "x-a": "a\nb"}, "authority": "a/b", "path-prefix": "v2"},
                {"name": "b", "weight": 101}, {"name": "", "weight": 1}, {"weight": 1},
                {"name": "c", "weight": 60}, {"name": "c", "weight": 60}]}"#,
        )
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.pointer)
        .collect();
        assert_eq!(
            found,
            [
                "/variant",
                "/variants/0/headers/host",
                "/variants/0/headers/x-a",
                "/variants/0/authority",
                "/variants/0/path-prefix",
                "/variants/1/weight",
                "/variants/2/name",
                "/variants/3",
                "/variants/5",
                "/variants",
                "/by",
                "/salt",
                "/header",
                "/echo",
                "/force",
            ]
        );
    }
}
