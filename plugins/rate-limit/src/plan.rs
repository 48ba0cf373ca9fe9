//! What is limited, and who is counted together.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use settings::network::{Networks, address};
use settings::{Fault, Faults, Place, header, path};
use sha2::{Digest, Sha256};

#[derive(Clone, Debug)]
pub struct Plan {
    /// The name of the policy in the answer's headers.
    pub name: String,
    /// Requests in a window.
    pub limit: u64,
    pub window: Duration,
    pub kind: Kind,
    /// At least one.
    by: Vec<Part>,
    /// Empty: every path.
    only: Vec<String>,
    exempt: Networks,
    /// Where the counts are kept.
    pub bucket: String,
    /// Whether answers tell what is left.
    pub headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each window counts by itself.
    Fixed,
    /// The window that ends now; what came in the one before is taken as spread evenly.
    Sliding,
}

/// What two requests must have in common to be counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// The visitor's address as the host states it; an IPv6 network of /64 is one visitor.
    Address,
    /// The host that the visitor asked for, without its port.
    Host,
    Method,
    /// The value of a header, in lower case; absent is a value of its own.
    Header(String),
    /// So many segments of the path in its plain form.
    Path(usize),
}

/// A request, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub client: &'a str,
    pub authority: &'a str,
    pub method: &'a str,
    pub path_with_query: &'a str,
    pub headers: &'a [(String, String)],
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let keys = ["name", "limit", "window", "kind", "by", "only", "exempt", "bucket", "headers"];
            let object = place.object(&keys, faults)?;
            let text = |key, otherwise: &str, faults: &mut Faults| match object.optional(key) {
                None => Some(otherwise.to_owned()),
                Some(place) => name(&place, faults),
            };
            let policy = text("name", "default", faults);
            let limit = object.required("limit", faults).and_then(|place| place.number(LIMIT, faults));
            let window = object.required("window", faults).and_then(|place| place.duration(WINDOW, faults));
            let kinds = [("fixed", Kind::Fixed), ("sliding", Kind::Sliding)];
            let kind =
                object.optional("kind").map_or(Some(Kind::Sliding), |place| place.word(&kinds, faults));
            let by = object
                .optional("by")
                .map_or_else(|| Some(vec![Part::Address]), |place| parts(&place, faults));
            let only = object
                .optional("only")
                .map_or_else(|| Some(Vec::new()), |place| path::prefixes(&place, faults));
            let exempt = object
                .optional("exempt")
                .map_or_else(|| Some(Networks::default()), |place| Networks::read(&place, faults));
            let bucket = text("bucket", "limits", faults);
            let headers = object.optional("headers").map_or(Some(true), |place| place.flag(faults));
            Some(Self {
                name: policy?,
                limit: limit?,
                window: window?,
                kind: kind?,
                by: by?,
                only: only?,
                exempt: exempt?,
                bucket: bucket?,
                headers: headers?,
            })
        })
    }

    /// Who a request is counted with; `None` if it is not limited. Short, whatever visitors send, and not
    /// to be guessed from: headers may be keys.
    pub fn key(&self, asked: &Asked<'_>) -> Option<String> {
        let client = address(asked.client);
        if client.is_some_and(|client| self.exempt.contains(client)) {
            return None;
        }
        if !self.only.is_empty() && !path::may_be_below(asked.path_with_query, &self.only) {
            return None;
        }
        let mut digest = Sha256::new();
        // Each part with its length, so that no two lists of parts are the same bytes.
        let mut add = |text: &str| {
            digest.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(text);
        };
        for part in &self.by {
            match part {
                Part::Address => add(&client.map(block).map(|block| block.to_string()).unwrap_or_default()),
                Part::Host => add(&settings::host(asked.authority)),
                Part::Method => add(asked.method),
                Part::Header(name) => {
                    let values = || asked.headers.iter().filter(|(known, _)| known == name);
                    add(&values().count().to_string());
                    values().for_each(|(_, value)| add(value));
                }
                Part::Path(segments) => {
                    let path = path::plain(asked.path_with_query);
                    let first: Vec<&str> = path.split('/').skip(1).take(*segments).collect();
                    add(&first.join("/"));
                }
            }
        }
        Some(digest.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The network that one visitor is sure to have for itself.
fn block(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(whole) => IpAddr::V6((whole.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

fn parts(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<Part>> {
    let places = place.list(faults)?;
    if places.is_empty() {
        place.fault(faults, "this list is empty; leave it out to limit each address");
        return None;
    }
    places.iter().map(|place| part(place, faults)).collect()
}

fn part(place: &Place<'_>, faults: &mut Faults) -> Option<Part> {
    if !place.is_table() {
        let words = [("address", 0), ("host", 1), ("method", 2)];
        return match place.word(&words, faults)? {
            0 => Some(Part::Address),
            1 => Some(Part::Host),
            _ => Some(Part::Method),
        };
    }
    let object = place.object(&["header", "path"], faults)?;
    match (object.optional("header"), object.optional("path")) {
        (Some(place), None) => {
            let name = header::name(place.text(faults)?);
            name.map_err(|unfit| place.fault(faults, unfit.to_string())).ok().map(Part::Header)
        }
        (None, Some(place)) => {
            let segments = place.number(1..=32, faults)?;
            Some(Part::Path(usize::try_from(segments).unwrap_or(usize::MAX)))
        }
        _ => {
            place.fault(faults, "expected \"header\" or \"path\"");
            None
        }
    }
}

fn name(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > 64 || !text.bytes().all(is_plain) {
        place.fault(faults, "expected 1 to 64 letters, digits, `-`, `_` and `.`");
        return None;
    }
    Some(text.to_owned())
}

const LIMIT: RangeInclusive<u64> = 1..=1_000_000_000;
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(client: &'a str, path_with_query: &'a str, headers: &'a [(String, String)]) -> Asked<'a> {
        Asked { client, authority: "A.example:80", method: "GET", path_with_query, headers }
    }

    fn plan(more: &str) -> Plan {
        Plan::read(&format!(r#"{{"limit": 5, "window": "1s"{more}}}"#)).unwrap()
    }

    #[test]
    fn an_address_is_counted_by_itself_and_an_ipv6_network_of_a_visitor_as_one() {
        let plan = plan("");
        let key = |client| plan.key(&asked(client, "/", &[]));
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        // Whoever is unknown is counted too, and together.
        assert!(key("").is_some() && key("") == key("nobody"));
        assert_eq!(key("").map(|key| key.len()), Some(32));
    }

    #[test]
    fn parts_that_differ_are_counted_apart() {
        let plan = plan(r#", "by": [{"header": "X-Key"}, {"path": 1}, "host", "method"]"#);
        let header = |value: &str| vec![("x-key".to_owned(), value.to_owned())];
        let key = |path, headers: &[(String, String)]| plan.key(&asked("", path, headers)).unwrap();
        assert_eq!(key("/a/b?c", &header("k")), key("/%61/x", &header("k")));
        let host = |authority| plan.key(&Asked { authority, ..asked("", "/a", &[]) });
        assert_eq!(host("app.example"), host("APP.example.:80"));
        let mut keys = vec![
            key("/a", &header("k")),
            key("/b", &header("k")),
            key("/a", &header("K")),
            key("/a", &[]),
            key("/a", &header("")),
            key("/a", &[header("k"), header("")].concat()),
        ];
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn some_paths_and_addresses_are_not_limited() {
        let plan = plan(r#", "only": ["/api"], "exempt": ["10.0.0.0/8"]"#);
        let limited = |client, path| plan.key(&asked(client, path, &[])).is_some();
        assert!(limited("192.0.2.1", "/api/x") && limited("192.0.2.1", "/x/..//%61pi"));
        for disguised in ["/%2561pi", "/api;v=1/x", "/x/..\\api", "/x/..;/api", "//api"] {
            assert!(limited("192.0.2.1", disguised), "{disguised}");
        }
        assert!(!limited("192.0.2.1", "/apix") && !limited("10.1.1.1", "/api"));
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let found: Vec<_> = Plan::read(
            r#"{"limits": 1, "limit": 0, "window": "0s", "kind": "leaky", "by": ["adress", {"header": "a b"}, {"path": 0}, {}],
                "only": ["api"], "exempt": ["x"], "bucket": "", "name": "a b"}"#,
        )
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.pointer)
        .collect();
        // A list of parts ends at its first fault.
        assert_eq!(
            found,
            ["/limits", "/name", "/limit", "/window", "/kind", "/by/0", "/only/0", "/exempt/0", "/bucket"]
        );
        for part in [r#"{"header": "a b"}"#, r#"{"path": 0}"#, "{}", r#"{"header": "a", "path": 1}"#] {
            assert!(
                Plan::read(&format!(r#"{{"limit": 1, "window": "1s", "by": [{part}]}}"#)).is_err(),
                "{part}"
            );
        }
        assert!(Plan::read(r#"{"limit": 1, "window": "1s", "by": []}"#).is_err());
    }
}
