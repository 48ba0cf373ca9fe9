//! Plans for the tests of this crate.

use std::path::Path;

use crate::document::Document;
use crate::plan::{self, Plan};
use crate::value::Reading;

/// The plan of these plugins and rules.
pub(crate) fn plan(text: &str) -> Plan {
    let (document, mistakes) = adit_document::read::<Document>("host.toml", text).unwrap();
    let mut reading = Reading::new(Path::new("/etc/adit"), mistakes);
    let plan = plan::draw(&document, &mut reading);
    reading.mistakes.into_result(Some(plan)).unwrap().unwrap()
}
