//! `GET /certificates`: what is shown, to whom and until when, and why something else is not.

use std::cmp::Reverse;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;

use crate::certificates::Certificates;
use crate::certificates::place::{Place, moment};
use crate::issuance::wanted::renew_at;
use crate::state::State;
use crate::state::snapshot::Snapshot;
use crate::store::records::certificates::Order;
use crate::store::timestamp::Timestamp;
use crate::tls::leaf::Leaf;

#[derive(Serialize)]
pub(super) struct Shown {
    pub(super) certificates: Vec<One>,
    /// By an authority, for names that lead somewhere.
    pub(super) issued: Vec<Issued>,
    /// Names that are ordered, or wait to be.
    pub(super) orders: Vec<Waiting>,
    /// How many of either are not listed.
    pub(super) more: usize,
}

#[derive(Serialize)]
pub(super) struct Issued {
    pub(super) name: String,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) renew_at: Timestamp,
    pub(super) serial: String,
    pub(super) directory: String,
}

#[derive(Serialize)]
pub(super) struct Waiting {
    pub(super) name: String,
    pub(super) is_under_way: bool,
    pub(super) failures: u32,
    /// From here on it is tried again.
    pub(super) next: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

#[derive(Serialize)]
pub(super) struct One {
    #[serde(rename = "use")]
    pub(super) usage: &'static str,
    pub(super) names: Vec<String>,
    pub(super) source: &'static str,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) serial: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<String>,
    /// How often it was exchanged since the start.
    pub(super) exchanged: u64,
    /// Why what is in its files now is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Shown {
    pub(super) fn of(certificates: &Certificates, state: Option<&State>) -> Self {
        let certificates = certificates.places().iter().map(|place| One::of(place)).collect();
        let (issued, orders, more) = state.map(|state| state.read(in_state)).unwrap_or_default();
        Self { certificates, issued, orders, more }
    }
}

/// Those that end first, and those that failed most often.
fn in_state(snapshot: &Snapshot) -> (Vec<Issued>, Vec<Waiting>, usize) {
    let mut issued: Vec<_> = snapshot.certificates.iter().collect();
    issued.sort_by_key(|(name, kept)| (kept.record.not_after, *name));
    let mut orders: Vec<_> = snapshot.orders.iter().collect();
    orders.sort_by_key(|(name, kept)| (Reverse(kept.record.failures), *name));
    let more = issued.len().saturating_sub(MOST_LISTED) + orders.len().saturating_sub(MOST_LISTED);
    let issued = issued.into_iter().take(MOST_LISTED).map(|(name, kept)| {
        let record = &kept.record;
        let leaf = CertificateDer::from_pem_slice(record.chain.as_bytes()).ok();
        let leaf = leaf.and_then(|leaf| Leaf::of(&leaf)).unwrap_or_default();
        Issued {
            name: name.clone(),
            not_before: record.not_before,
            not_after: record.not_after,
            renew_at: renew_at(name, record),
            serial: hex(&leaf.serial),
            directory: record.directory.clone(),
        }
    });
    let orders = orders.into_iter().take(MOST_LISTED).map(|(name, kept)| {
        let Order { holder, next, failures, error } = kept.record.clone();
        Waiting { name: name.clone(), is_under_way: holder.is_some(), failures, next, error }
    });
    (issued.collect(), orders.collect(), more)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of each list.
const MOST_LISTED: usize = 1000;

impl One {
    fn of(place: &Place) -> Self {
        let (shown, files) = (place.shown(), place.files());
        Self {
            usage: place.usage().word(),
            names: shown.leaf.names.clone(),
            source: if files.is_some() { "files" } else { "development" },
            not_before: moment(shown.leaf.not_before),
            not_after: moment(shown.not_after),
            serial: hex(&shown.leaf.serial),
            file: files.map(|files| Path::display(&files.chain).to_string()),
            exchanged: place.exchanged(),
            error: place.trouble(),
        }
    }
}
