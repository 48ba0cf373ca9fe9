//! What an object of load balancing, or of alerts, may say: fields, bounds and what goes without saying. Everything that is wrong
//! is said at once. Knows fields; where one names another object it asks [`Known`] whether there is such a one.

mod alerts;
mod balancers;
mod monitors;
mod pools;

use serde_json::{Map, Value};

use super::fields::Fields;
use crate::store::records::objects::{Kind, Object};

pub(super) use balancers::{default_pools, mentions};

/// What an object may name.
pub(super) trait Known {
    /// Whether the account has such an object.
    fn has(&self, kind: Kind, id: &str) -> bool;

    /// Whether the address of an endpoint may be in this pool: `Err` says why it may not.
    fn address(&mut self, address: &str) -> Result<(), &'static str>;

    /// Whether a host name is in a zone of the account.
    fn owns(&self, host: &str) -> bool;

    /// The zone that the name of a load balancer has to be in, see [`super::draft`].
    fn balancer_name(&mut self, name: &str) -> Result<(), String>;
}

/// What of an object is kept.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn read(
    kind: Kind,
    said: &Map<String, Value>,
    known: &mut dyn Known,
) -> Result<Map<String, Value>, Vec<String>> {
    let mut faults = Vec::new();
    let mut fields = Fields::of(said, &mut faults);
    match kind {
        Kind::Monitor => monitors::monitor(&mut fields),
        Kind::MonitorGroup => monitors::group(&mut fields, known),
        Kind::Pool => pools::pool(&mut fields, known),
        Kind::Balancer => balancers::balancer(&mut fields, known),
        Kind::Webhook => alerts::webhook(&mut fields),
        Kind::Policy => alerts::policy(&mut fields, known),
    }
    let kept = fields.kept();
    if faults.is_empty() { Ok(kept) } else { Err(faults) }
}

/// What of it has no effect on visitors, in a line each.
pub(super) fn without_effect(kind: Kind, object: &Object, own_domain: Option<&str>) -> Vec<String> {
    match kind {
        Kind::Monitor => monitors::without_effect(object),
        Kind::MonitorGroup | Kind::Webhook | Kind::Policy => Vec::new(),
        Kind::Pool => pools::without_effect(object, own_domain),
        Kind::Balancer => balancers::without_effect(object),
    }
}

const LONGEST_TEXT: usize = 1_024;
/// Of a host name.
const LONGEST_NAME: usize = 253;
const LONGEST_ID: usize = 64;
