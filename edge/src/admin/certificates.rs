//! `GET /certificates`: what is shown, to whom and until when, and why something else is not.

use std::path::Path;

use serde::Serialize;

use crate::certificates::Certificates;
use crate::certificates::place::{Place, moment};
use crate::store::timestamp::Timestamp;

#[derive(Serialize)]
pub(super) struct Shown {
    certificates: Vec<One>,
}

#[derive(Serialize)]
struct One {
    #[serde(rename = "use")]
    usage: &'static str,
    names: Vec<String>,
    source: &'static str,
    not_before: Timestamp,
    not_after: Timestamp,
    serial: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// How often it was exchanged since the start.
    exchanged: u64,
    /// Why what is in its files now is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Shown {
    pub(super) fn of(certificates: &Certificates) -> Self {
        Self { certificates: certificates.places().iter().map(|place| One::of(place)).collect() }
    }
}

impl One {
    fn of(place: &Place) -> Self {
        let (shown, files) = (place.shown(), place.files());
        Self {
            usage: place.usage().word(),
            names: shown.leaf.names.clone(),
            source: if files.is_some() { "files" } else { "development" },
            not_before: moment(shown.leaf.not_before),
            not_after: moment(shown.not_after),
            serial: shown.leaf.serial.iter().map(|byte| format!("{byte:02x}")).collect(),
            file: files.map(|files| Path::display(&files.chain).to_string()),
            exchanged: place.exchanged(),
            error: place.trouble(),
        }
    }
}
