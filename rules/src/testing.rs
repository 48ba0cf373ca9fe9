//! Plans for the tests of this crate.

use std::path::Path;

use crate::plan::Plan;

/// The plan of these plugins and rules.
pub(crate) fn plan(text: &str) -> Plan {
    crate::read("host.toml", text, Path::new("/etc/adit")).unwrap()
}
