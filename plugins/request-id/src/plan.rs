//! Whose id a request gets.

use settings::{Fault, Faults, Place, header};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Carries the id, in lower case.
    pub header: String,
    /// Whether a visitor may bring one.
    pub accept: bool,
    pub form: Form,
    /// Whether the visitor is told.
    pub echo: bool,
}

/// What an id that is made here looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The id that the edge gave the request, as in `Cf-Ray` and in every log.
    Ray,
    /// A random UUID, version 4 (RFC 9562 section 5.4).
    Uuid,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["header", "accept", "form", "echo"], faults)?;
            let name = object
                .optional("header")
                .map_or_else(|| Some(HEADER.to_owned()), |place| name(&place, faults));
            let accept = object.optional("accept").map_or(Some(false), |place| place.flag(faults));
            let forms = [("ray", Form::Ray), ("uuid", Form::Uuid)];
            let form = object.optional("form").map_or(Some(Form::Ray), |place| place.word(&forms, faults));
            let echo = object.optional("echo").map_or(Some(true), |place| place.flag(faults));
            Some(Self { header: name?, accept: accept?, form: form?, echo: echo? })
        })
    }

    /// The visitor's own id, if it may bring one and brought exactly one that is fit for logs.
    pub fn accepted<'a>(&self, mut brought: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let (Some(id), None) = (brought.next(), brought.next()) else { return None };
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(&byte);
        (self.accept && (1..=LONGEST).contains(&id.len()) && id.bytes().all(is_fit)).then_some(id)
    }
}

fn name(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    header::name(place.text(faults)?).map_err(|unfit| place.fault(faults, unfit.to_string())).ok()
}

/// A UUID of these random bytes.
pub fn uuid(mut random: [u8; 16]) -> String {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in random.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 0x0f] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}

const HEADER: &str = "x-request-id";
/// Of an id that a visitor brings, bytes.
const LONGEST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitors_id_is_taken_only_where_it_may_bring_one_that_is_fit_for_logs() {
        let accepting = Plan::read(r#"{"accept": true}"#).unwrap();
        let long = "x".repeat(LONGEST + 1);
        let good = "b0a1:c.d_e-F/g+h=";
        assert_eq!(accepting.accepted([good].into_iter()), Some(good));
        for bad in [&[][..], &[good, good], &[""], &[&long], &["a b"], &["a\"b"], &["ä"], &["a,b"]] {
            assert_eq!(accepting.accepted(bad.iter().copied()), None, "{bad:?}");
        }
        assert_eq!(Plan::read("{}").unwrap().accepted([good].into_iter()), None);
    }

    #[test]
    fn a_uuid_says_its_version_and_variant() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid([0; 16]), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let faults = Plan::read(r#"{"header": "content-length", "accept": 1, "form": "v7", "echos": true}"#);
        let found: Vec<_> = faults.unwrap_err().into_iter().map(|fault| fault.pointer).collect();
        assert_eq!(found, ["/echos", "/header", "/accept", "/form"]);
    }
}
