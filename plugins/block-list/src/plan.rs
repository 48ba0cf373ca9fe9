//! Where the list is, and what becomes of whoever is on it.

use settings::network::{Networks, address};
use settings::{Fault, Faults, Place};

use crate::list::List;

#[derive(Clone, Debug)]
pub struct Plan {
    pub url: String,
    /// Who passes although on the list.
    exempt: Networks,
    /// Whether a visitor passes whose address nobody knows.
    unknown: bool,
    /// Of the refusal: 403 or 404.
    pub status: u16,
    pub bucket: String,
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["url", "exempt", "unknown", "status", "bucket"], faults)?;
            let url = object.required("url", faults).and_then(|place| url(&place, faults));
            let exempt = object
                .optional("exempt")
                .map_or_else(|| Some(Networks::default()), |place| Networks::read(&place, faults));
            let words = [("deny", false), ("allow", true)];
            let unknown = object.optional("unknown").map_or(Some(false), |place| place.word(&words, faults));
            let status = object.optional("status").map_or(Some(403), |place| status(&place, faults));
            let bucket = object
                .optional("bucket")
                .map_or_else(|| Some("list".to_owned()), |place| place.text(faults).map(str::to_owned));
            Some(Self { url: url?, exempt: exempt?, unknown: unknown?, status: status?, bucket: bucket? })
        })
    }

    /// Whether whoever has this address may pass; the text is empty where nobody knows it.
    pub fn admits(&self, client: &str, list: &List) -> bool {
        let Some(address) = address(client) else { return self.unknown };
        self.exempt.contains(address) || !list.contains(address)
    }
}

fn url(place: &Place<'_>, faults: &mut Faults) -> Option<String> {
    let text = place.text(faults)?;
    if !(text.starts_with("https://") || text.starts_with("http://")) {
        place.fault(faults, "expected an address such as \"https://lists.example.com/bad.txt\"");
        return None;
    }
    Some(text.to_owned())
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

    #[test]
    fn who_is_on_the_list_is_kept_out_but_for_those_who_are_exempt() {
        let list = List::read("10.0.0.0/8").unwrap();
        let plan = Plan::read(r#"{"url": "https://a.example/", "exempt": ["10.9.0.0/16"]}"#).unwrap();
        for (client, passes) in
            [("10.1.0.1", false), ("10.9.0.1", true), ("192.0.2.1", true), ("", false), ("x", false)]
        {
            assert_eq!(plan.admits(client, &list), passes, "{client}");
        }
        let open = Plan::read(r#"{"url": "https://a.example/", "unknown": "allow"}"#).unwrap();
        assert!(open.admits("", &list));
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let found: Vec<_> = Plan::read(
            r#"{"url": "lists.example.com", "exempt": ["x"], "unknown": "no", "status": 418, "bucket": 1, "more": 1}"#,
        )
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.pointer)
        .collect();
        assert_eq!(found, ["/more", "/url", "/exempt/0", "/unknown", "/status", "/bucket"]);
        assert_eq!(Plan::read("{}").unwrap_err()[0].pointer, "");
    }
}
