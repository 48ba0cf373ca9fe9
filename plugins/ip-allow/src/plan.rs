//! Who may pass.

use settings::network::{Networks, address};
use settings::{Fault, Faults, Place};

#[derive(Clone, Debug)]
pub struct Plan {
    /// Empty: everybody who is not denied.
    allow: Networks,
    /// Goes before `allow`.
    deny: Networks,
    /// Whether a visitor passes whose address nobody knows.
    unknown: bool,
    /// Of the refusal: 403 or 404.
    pub status: u16,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["allow", "deny", "unknown", "status"], faults)?;
            let mut list = |key| match object.optional(key) {
                None => Some(Networks::default()),
                Some(place) => filled(&place, faults),
            };
            let (allow, deny) = (list("allow"), list("deny"));
            if object.optional("allow").or(object.optional("deny")).is_none() {
                place.fault(faults, "neither \"allow\" nor \"deny\" is there: nothing would be decided");
            }
            let words = [("deny", false), ("allow", true)];
            let unknown = object.optional("unknown").map_or(Some(false), |place| place.word(&words, faults));
            let status = object.optional("status").map_or(Some(403), |place| status(&place, faults));
            Some(Self { allow: allow?, deny: deny?, unknown: unknown?, status: status? })
        })
    }

    /// Whether whoever has this address may pass; the text is empty where nobody knows it.
    pub fn admits(&self, client: &str) -> bool {
        let Some(address) = address(client) else { return self.unknown };
        !self.deny.contains(address) && (self.allow.is_empty() || self.allow.contains(address))
    }
}

/// An empty list would mean everybody, and is more likely a mistake.
fn filled(place: &Place<'_>, faults: &mut Faults) -> Option<Networks> {
    let networks = Networks::read(place, faults)?;
    if networks.is_empty() {
        place.fault(faults, "this list is empty; leave it out if it is to mean nothing");
        return None;
    }
    Some(networks)
}

fn status(place: &Place<'_>, faults: &mut Faults) -> Option<u16> {
    match place.number(400..=499, faults)? {
        404 => Some(404),
        403 => Some(403),
        _ => {
            place.fault(faults, "expected 403 or 404");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted<'a>(config: &str, clients: &[&'a str]) -> Vec<&'a str> {
        let plan = Plan::read(config).unwrap();
        clients.iter().copied().filter(|client| plan.admits(client)).collect()
    }

    const CLIENTS: [&str; 6] = ["10.1.0.1", "10.9.0.1", "::ffff:10.9.0.1", "192.0.2.1", "2001:db8::1", ""];

    #[test]
    fn deny_goes_before_allow_and_the_rest_depends_on_whether_somebody_is_allowed() {
        assert_eq!(admitted(r#"{"allow": ["10.0.0.0/8"]}"#, &CLIENTS), CLIENTS[..3]);
        assert_eq!(admitted(r#"{"allow": ["10.0.0.0/8"], "deny": ["10.9.0.0/16"]}"#, &CLIENTS), ["10.1.0.1"]);
        assert_eq!(
            admitted(r#"{"deny": ["10.9.0.0/16"]}"#, &CLIENTS),
            ["10.1.0.1", "192.0.2.1", "2001:db8::1"]
        );
        assert_eq!(
            admitted(r#"{"allow": ["2001:db8::/32"], "unknown": "allow"}"#, &CLIENTS),
            ["2001:db8::1", ""]
        );
    }

    #[test]
    fn what_is_no_address_is_unknown() {
        assert!(admitted(r#"{"deny": ["10.0.0.0/8"]}"#, &["x", "10.0.0.1, 192.0.2.1", "*"]).is_empty());
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let found: Vec<_> = Plan::read(
            r#"{"alow": [], "allow": [], "deny": ["x", "10.0.0.1/8"], "unknown": "maybe", "status": 418}"#,
        )
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.pointer)
        .collect();
        assert_eq!(found, ["/alow", "/allow", "/deny/0", "/deny/1", "/unknown", "/status"]);
        assert_eq!(Plan::read("{}").unwrap_err()[0].pointer, "");
    }
}
