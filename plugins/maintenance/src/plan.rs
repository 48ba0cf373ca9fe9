//! Who is let through while work is done, and what the others see.

use std::ops::RangeInclusive;
use std::time::Duration;

use settings::network::{Networks, address};
use settings::{Fault, Faults, Place, header, path};

#[derive(Clone, Debug)]
pub struct Plan {
    pub on: bool,
    pub page: String,
    /// Its media type.
    pub kind: String,
    /// When to come again.
    pub retry_after: Option<Duration>,
    allow: Networks,
    paths: Vec<String>,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let keys = ["on", "page", "type", "retry-after", "allow", "paths"];
            let object = place.object(&keys, faults)?;
            let on = object.optional("on").map_or(Some(true), |place| place.flag(faults));
            let page =
                object.optional("page").map_or_else(|| Some(PAGE.to_owned()), |place| page(&place, faults));
            let kind =
                object.optional("type").map_or_else(|| Some(KIND.to_owned()), |place| kind(&place, faults));
            let retry_after = match object.optional("retry-after") {
                None => Some(None),
                Some(place) => place.duration(RETRY_AFTER, faults).map(Some),
            };
            let allow = object
                .optional("allow")
                .map_or_else(|| Some(Networks::default()), |place| Networks::read(&place, faults));
            let paths = object
                .optional("paths")
                .map_or_else(|| Some(Vec::new()), |place| path::prefixes(&place, faults));
            Some(Self {
                on: on?,
                page: page?,
                kind: kind?,
                retry_after: retry_after?,
                allow: allow?,
                paths: paths?,
            })
        })
    }

    /// Whether a request goes on.
    pub fn admits(&self, client: &str, path_with_query: &str) -> bool {
        if !self.on || address(client).is_some_and(|address| self.allow.contains(address)) {
            return true;
        }
        !self.paths.is_empty() && path::is_surely_below(path_with_query, &self.paths)
    }
}

fn page(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    if text.len() > LARGEST_PAGE {
        place.fault(faults, format!("a page has at most {LARGEST_PAGE} bytes"));
        return None;
    }
    Some(text.to_owned())
}

fn kind(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    header::value(text).map_err(|unfit| place.fault(faults, unfit.to_string())).ok()?;
    Some(text.to_owned())
}

const PAGE: &str = "<!doctype html>\n<title>Back soon</title>\n<h1>Back soon</h1>\n<p>This service is being worked on.</p>\n";
const KIND: &str = "text/html; charset=utf-8";
const LARGEST_PAGE: usize = 256 * 1024;
const RETRY_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_addresses_and_paths_pass_while_work_is_done() {
        let plan =
            Plan::read(r#"{"allow": ["192.0.2.0/24"], "paths": ["/health", "/.well-known/"]}"#).unwrap();
        for (client, path, passes) in [
            ("192.0.2.1", "/", true),
            ("198.51.100.1", "/", false),
            ("", "/", false),
            ("198.51.100.1", "/health?full", true),
            ("198.51.100.1", "/health/db", true),
            ("198.51.100.1", "/healthy", false),
            ("198.51.100.1", "/.well-known/acme", true),
            ("198.51.100.1", "/health/..%2fadmin", false),
            ("198.51.100.1", "/health/%2e%2e/admin", false),
            ("198.51.100.1", "/health/%252e%252e/admin", false),
            ("198.51.100.1", "/health/..;/admin", false),
            ("198.51.100.1", "//health", false),
        ] {
            assert_eq!(plan.admits(client, path), passes, "{client} {path}");
        }
    }

    #[test]
    fn everybody_passes_where_it_is_off() {
        assert!(Plan::read(r#"{"on": false}"#).unwrap().admits("", "/"));
        assert!(!Plan::read("{}").unwrap().admits("", "/"));
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let found: Vec<_> = Plan::read(
            r#"{"off": true, "on": "yes", "page": 1, "type": "a\nb", "retry-after": "0s", "allow": ["x"], "paths": ["health", "/a/../b"]}"#,
        )
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.pointer)
        .collect();
        assert_eq!(
            found,
            ["/off", "/on", "/page", "/type", "/retry-after", "/allow/0", "/paths/0", "/paths/1"]
        );
    }
}
