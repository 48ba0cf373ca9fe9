//! Which names are to have a certificate from the authority: those that a route leads somewhere, and no others; and
//! when one is due. Pure, told what time it is.

use std::time::Duration;

use crate::issuance::budget::Share;
use crate::settings::host_name::HostName;
use crate::state::publish::StaticTunnels;
use crate::state::snapshot::Snapshot;
use crate::store::records::certificates::Certificate;
use crate::store::records::objects::Kind;
use crate::store::timestamp::Timestamp;

/// A name, and whose share its order is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    pub(crate) share: Share,
}

/// Why a name is ordered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    New,
    Renewal,
}

/// Every name that leads somewhere; wildcards only in `zones` that this edge answers for itself, because an authority
/// gives them by DNS alone.
///
/// Quick tunnels are made by strangers: none of their names is ordered, only the wildcard of `quick`, their domain.
pub(crate) fn wanted(
    snapshot: &Snapshot,
    fixed: &StaticTunnels,
    quick: Option<&str>,
    own: Option<&str>,
    zones: &[String],
) -> Vec<Wanted> {
    let mut all = Vec::new();
    let mut add = |name: &str, share: Share| {
        let is_ours = |bare: &str| zones.iter().any(|zone| is_within(bare, zone));
        if can_be_public(name) && name.strip_prefix("*.").is_none_or(is_ours) {
            all.push(Wanted { name: name.to_owned(), share });
        }
    };
    let operator = || Share { account: String::new(), zone: String::new() };
    for (name, _) in &fixed.names {
        add(&name.to_string(), operator());
    }
    // The control API's.
    if let Some(name) = own {
        add(name, operator());
    }
    for domain in fixed.domain.as_deref().into_iter().chain(quick) {
        add(&format!("*.{domain}"), operator());
    }
    for (name, route) in &snapshot.routes {
        let zone = &route.record.zone;
        let Some(kept) = snapshot.zones.get(zone) else { continue };
        add(name, Share { account: kept.record.account.clone(), zone: zone.clone() });
    }
    for kept in snapshot.objects.of(Kind::Balancer).values() {
        let (account, name) = (kept.record.account.clone(), kept.record.text("name").unwrap_or_default());
        if let Some((zone, _)) = snapshot.zone_of(name) {
            add(name, Share { account, zone: zone.clone() });
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all.dedup_by(|one, other| one.name == other.name);
    all
}

fn is_within(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether an authority would look at such a name at all: no address, and no name of this machine alone.
fn can_be_public(name: &str) -> bool {
    let bare = name.strip_prefix("*.").unwrap_or(name);
    let Some((_, top)) = bare.rsplit_once('.') else { return false };
    let is_local = matches!(top, "localhost" | "local" | "internal" | "onion" | "invalid" | "example");
    !is_local
        && !top.bytes().all(|byte| byte.is_ascii_digit())
        && matches!(bare.parse(), Ok(HostName::Exact(_)))
}

/// Whether an order is due, and which.
pub(crate) fn due(name: &str, known: Option<&Certificate>, now: Timestamp) -> Option<Due> {
    match known {
        None => Some(Due::New),
        Some(certificate) if renew_at(name, certificate) <= now => Some(Due::Renewal),
        Some(_) => None,
    }
}

/// When a certificate is renewed: when its authority says, else at two thirds of its life, or at the half of a short
/// one. Spread, so that what was ordered together is not renewed together.
pub(crate) fn renew_at(name: &str, certificate: &Certificate) -> Timestamp {
    let Certificate { not_before, not_after, renew_at, .. } = certificate;
    if let Some(at) = renew_at {
        return *at;
    }
    let life = not_after.since(*not_before);
    let share = if life < SHORT { 1.0 / 2.0 } else { 2.0 / 3.0 };
    not_before.after(life.mul_f64(share - SPREAD * fraction(name)))
}

/// Where in a span a name's moment is: always the same for a name, anywhere for many.
pub(crate) fn fraction(name: &str) -> f64 {
    // FNV-1a, 32 bits.
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    f64::from(hash) / f64::from(u32::MAX)
}

/// A certificate whose life is below this is renewed at its half.
const SHORT: Duration = Duration::from_secs(10 * 24 * 60 * 60);
/// Of a life.
const SPREAD: f64 = 0.05;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::state::snapshot::Kept;
    use crate::store::StoreRevision;
    use crate::store::records::{Route, Zone};

    fn certificate(from: Timestamp, days: u64) -> Certificate {
        let life = Duration::from_secs(days * 24 * 60 * 60);
        Certificate {
            chain: String::new(),
            key: String::new(),
            not_before: from,
            not_after: from.after(life),
            directory: String::new(),
            renew_at: None,
            ask_at: None,
        }
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_or_when_its_authority_says() {
        let from = Timestamp::now();
        let day = |days: f64| from.after(Duration::from_secs(24 * 60 * 60).mul_f64(days));
        for (days, earliest, latest) in [(90, 55.0, 60.1), (45, 27.0, 30.1), (6, 2.6, 3.1)] {
            let kept = certificate(from, days);
            for name in ["a.test", "b.test", "another.test"] {
                let at = renew_at(name, &kept);
                assert!(at >= day(earliest) && at <= day(latest), "{name} {days}: {at}");
                assert_eq!(due(name, Some(&kept), day(earliest - 0.1)), None);
                assert_eq!(due(name, Some(&kept), day(latest)), Some(Due::Renewal));
            }
        }
        let told = Certificate { renew_at: Some(day(1.0)), ..certificate(from, 90) };
        assert_eq!(due("a.test", Some(&told), day(1.0)), Some(Due::Renewal));
        assert_eq!(due("a.test", None, from), Some(Due::New));
        assert_ne!(renew_at("a.test", &certificate(from, 90)), renew_at("b.test", &certificate(from, 90)));
    }

    #[test]
    fn no_authority_is_asked_for_what_is_no_public_name() {
        for (name, is_public) in [
            ("a.example.com", true),
            ("*.example.com", true),
            ("localhost", false),
            ("demo.localhost", false),
            ("nas.local", false),
            ("10.0.0.1", false),
            ("com", false),
            ("*.com", false),
        ] {
            assert_eq!(can_be_public(name), is_public, "{name}");
        }
    }

    #[test]
    fn no_name_of_strangers_is_ordered_and_no_wildcard_that_the_edge_does_not_answer_for() {
        let mut snapshot = Snapshot::default();
        let (revision, bytes) = (StoreRevision(1), 0);
        let zone =
            Zone { account: "a".to_owned(), name: "example.com".to_owned(), created_at: Timestamp::now() };
        snapshot.zones.insert("z".to_owned(), Kept { record: zone, revision, bytes });
        // A quick tunnel's is in no zone.
        for (name, zone) in [("app.example.com", "z"), ("*.example.com", "z"), ("amber.try.example.com", "")]
        {
            let record = Route::new(zone, Uuid::nil());
            snapshot.routes.insert(name.to_owned(), Kept { record, revision, bytes });
        }
        let fixed = StaticTunnels { tunnels: Vec::new(), names: Vec::new(), domain: None };
        let names = |own: Option<&str>, zones: &[String]| -> Vec<String> {
            let all = wanted(&snapshot, &fixed, Some("try.example.com"), own, zones);
            all.into_iter().map(|wanted| wanted.name).collect()
        };
        assert_eq!(names(None, &[]), ["app.example.com"]);
        assert_eq!(names(Some("api.example.com"), &[]), ["api.example.com", "app.example.com"]);
        assert_eq!(names(None, &["other.example".to_owned()]), ["app.example.com"]);
        let ours = names(None, &["example.com".to_owned()]);
        assert_eq!(ours, ["*.example.com", "*.try.example.com", "app.example.com"]);
    }
}
