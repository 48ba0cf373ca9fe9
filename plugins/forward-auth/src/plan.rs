//! Whom to ask, what it is told, and what of its answer goes on.

use std::ops::RangeInclusive;
use std::time::Duration;

use settings::{Fault, Faults, Place, header, path};

#[derive(Clone, Debug)]
pub struct Plan {
    pub url: String,
    /// Headers of the request that it is told, besides where it is from and what it is for.
    pub send: Vec<String>,
    /// Headers of its answer that take the place of the request's.
    pub take: Vec<String>,
    /// What goes on without a question.
    open: Vec<String>,
    pub timeout: Duration,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["url", "send", "take", "open", "timeout"], faults)?;
            let url = object.required("url", faults).and_then(|place| url(&place, faults));
            let send = object
                .optional("send")
                .map_or_else(|| Some(SENT.map(str::to_owned).to_vec()), |place| names(&place, faults));
            let take =
                object.optional("take").map_or_else(|| Some(Vec::new()), |place| names(&place, faults));
            let open = object
                .optional("open")
                .map_or_else(|| Some(Vec::new()), |place| path::prefixes(&place, faults));
            let timeout = object
                .optional("timeout")
                .map_or(Some(Duration::from_secs(5)), |place| place.duration(TIMEOUT, faults));
            Some(Self { url: url?, send: send?, take: take?, open: open?, timeout: timeout? })
        })
    }

    /// Whether a request goes on without a question.
    pub fn is_open(&self, path_with_query: &str) -> bool {
        !self.open.is_empty() && path::is_surely_below(path_with_query, &self.open)
    }
}

fn url(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    if rest.is_none_or(|rest| rest.is_empty() || text.contains(['#', ' '])) {
        place.fault(faults, "expected an address such as \"https://auth.example.com/verify\"");
        return None;
    }
    Some(text.to_owned())
}

fn names(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let places = place.list(faults)?;
    let mut names = Vec::new();
    for place in &places {
        match place.text(faults).map(header::name) {
            Some(Ok(name)) => names.push(name),
            Some(Err(unfit)) => place.fault(faults, unfit.to_string()),
            None => {}
        }
    }
    (names.len() == places.len()).then_some(names)
}

const SENT: [&str; 2] = ["authorization", "cookie"];
/// The host waits no longer.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_reported_at_once() {
        let found: Vec<_> = Plan::read(
            r#"{"url": "auth.example.com", "send": ["a b"], "take": ["Host", 1], "open": ["x"], "timeout": "1h", "more": 1}"#,
        )
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.pointer)
        .collect();
        assert_eq!(found, ["/more", "/url", "/send/0", "/take/0", "/take/1", "/open/0", "/timeout"]);
        assert_eq!(Plan::read("{}").unwrap_err()[0].pointer, "");
    }

    #[test]
    fn only_what_surely_lies_below_is_open() {
        let plan = Plan::read(r#"{"url": "https://a.example/", "open": ["/public"]}"#).unwrap();
        for (path, open) in
            [("/public/a", true), ("/public/..%2fadmin", false), ("/publicity", false), ("/", false)]
        {
            assert_eq!(plan.is_open(path), open, "{path}");
        }
        assert!(!Plan::read(r#"{"url": "https://a.example/"}"#).unwrap().is_open("/"));
    }
}
