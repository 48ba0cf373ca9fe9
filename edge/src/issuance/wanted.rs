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

/// Every name that leads somewhere, wildcards only if `with_wildcards`, which an authority gives by DNS alone.
///
/// Quick tunnels are made by strangers: none of their names is ordered, only the wildcard of `quick`, their domain.
pub(crate) fn wanted(
    snapshot: &Snapshot,
    fixed: &StaticTunnels,
    quick: Option<&str>,
    with_wildcards: bool,
) -> Vec<Wanted> {
    let mut all = Vec::new();
    let mut add = |name: &str, share: Share| {
        let is_public = can_be_public(name) && (with_wildcards || !name.starts_with("*."));
        if is_public {
            all.push(Wanted { name: name.to_owned(), share });
        }
    };
    let operator = || Share { account: String::new(), zone: String::new() };
    for (name, _) in &fixed.names {
        add(&name.to_string(), operator());
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
    use super::*;

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
}
