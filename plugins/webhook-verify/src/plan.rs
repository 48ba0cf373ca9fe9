//! Whose deliveries these are, and which of them are looked at.

use std::ops::RangeInclusive;
use std::time::Duration;

use settings::{Fault, Faults, Place, path};

#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: Kind,
    /// Names of the secrets, at least one: while one takes the place of another, both are good.
    pub secrets: Vec<String>,
    /// Where deliveries come in; empty: everywhere.
    paths: Vec<String>,
    /// How far the time of a delivery may be off, where it says one.
    pub tolerance: Duration,
    /// How long a delivery is known again.
    pub remember: Duration,
    /// The longest body, bytes.
    pub most: u32,
    pub bucket: String,
}

/// How a service signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Github,
    Stripe,
    Slack,
    /// <https://www.standardwebhooks.com>.
    Standard,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let keys = ["kind", "secret", "paths", "tolerance", "remember", "most", "bucket"];
            let object = place.object(&keys, faults)?;
            let kind = object.required("kind", faults).and_then(|place| place.word(&KINDS, faults));
            let secrets = object
                .optional("secret")
                .map_or_else(|| Some(vec!["webhook".to_owned()]), |place| secrets(&place, faults));
            let paths = object
                .optional("paths")
                .map_or_else(|| Some(Vec::new()), |place| path::prefixes(&place, faults));
            let time = |key, otherwise, range, faults: &mut Faults| {
                object.optional(key).map_or(Some(otherwise), |place| place.duration(range, faults))
            };
            let tolerance = time("tolerance", Duration::from_secs(5 * 60), TOLERANCE, faults);
            let remember = time("remember", Duration::from_secs(24 * 3600), REMEMBER, faults);
            let most = object.optional("most").map_or(Some(MOST), |place| place.number(SIZES, faults));
            let bucket = object
                .optional("bucket")
                .map_or_else(|| Some("deliveries".to_owned()), |place| filled(&place, faults));
            let plan = Self {
                kind: kind?,
                secrets: secrets?,
                paths: paths?,
                tolerance: tolerance?,
                remember: remember?,
                most: u32::try_from(most?).ok()?,
                bucket: bucket?,
            };
            if plan.remember < plan.tolerance {
                place
                    .fault(faults, "\"remember\" is shorter than \"tolerance\": a delivery could come twice");
            }
            Some(plan)
        })
    }

    /// Whether what comes in here has to be a delivery, however the servers behind read the path.
    pub fn is_about(&self, path_with_query: &str) -> bool {
        self.paths.is_empty() || path::may_be_below(path_with_query, &self.paths)
    }
}

fn secrets(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let places = place.one_or_many(faults)?;
    if places.is_empty() {
        place.fault(faults, "at least one secret is needed");
        return None;
    }
    places.iter().map(|place| filled(place, faults)).collect()
}

fn filled(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    if text.is_empty() {
        place.fault(faults, "this is empty");
        return None;
    }
    Some(text.to_owned())
}

const KINDS: [(&str, Kind); 4] = [
    ("github", Kind::Github),
    ("stripe", Kind::Stripe),
    ("slack", Kind::Slack),
    ("standard", Kind::Standard),
];
const TOLERANCE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const REMEMBER: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);
const MOST: u64 = 1024 * 1024;
/// What the host shows of a body.
const SIZES: RangeInclusive<u64> = 1..=16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_enough_and_every_fault_is_reported_at_once() {
        let plan = Plan::read(r#"{"kind": "slack"}"#).unwrap();
        assert_eq!((plan.kind, &plan.secrets[..]), (Kind::Slack, &["webhook".to_owned()][..]));
        assert!(plan.is_about("/anything"));
        let found: Vec<_> = Plan::read(
            r#"{"kind": "gitlab", "secret": [], "paths": ["x"], "tolerance": "0s", "most": 0, "bucket": "", "more": 1}"#,
        )
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.pointer)
        .collect();
        assert_eq!(found, ["/more", "/kind", "/secret", "/paths/0", "/tolerance", "/most", "/bucket"]);
        assert_eq!(Plan::read("{}").unwrap_err()[0].pointer, "");
        let short = r#"{"kind": "stripe", "tolerance": "10m", "remember": "2m"}"#;
        assert!(Plan::read(short).unwrap_err()[0].message.contains("twice"));
    }

    #[test]
    fn a_path_in_disguise_is_looked_at_too() {
        let plan = Plan::read(r#"{"kind": "github", "paths": ["/hooks"]}"#).unwrap();
        for (path, is_about) in [
            ("/hooks", true),
            ("/hooks/a?b", true),
            ("/x/..%2fhooks", true),
            ("//hooks", true),
            ("/hook", false),
        ] {
            assert_eq!(plan.is_about(path), is_about, "{path}");
        }
    }
}
