//! The regions that the reference checks from, as its tools look them up. An edge checks from where it is, so they
//! are names alone.

use serde_json::{Value, json};

use crate::api::envelope::{self, Answer, Problem};
use crate::api::query::Query;

pub(super) fn list(query: &Query) -> Result<Answer, Problem> {
    for name in ["country_code_a2", "subdivision_code", "subdivision_code_a2"] {
        if query.text(name)?.is_some() {
            return Err(Problem::Later("regions by country"));
        }
    }
    Ok(envelope::success(json!({ "regions": REGIONS.iter().map(view).collect::<Value>() })))
}

pub(super) fn look(code: &str) -> Result<Answer, Problem> {
    let found = REGIONS.iter().find(|(known, _)| *known == code);
    found.map(|region| envelope::success(view(region))).ok_or(Problem::NotFound("region"))
}

fn view((code, name): &(&str, &str)) -> Value {
    json!({ "region_code": code, "name": name, "countries": [] })
}

const REGIONS: [(&str, &str); 13] = [
    ("WNAM", "Western North America"),
    ("ENAM", "Eastern North America"),
    ("WEU", "Western Europe"),
    ("EEU", "Eastern Europe"),
    ("NSAM", "Northern South America"),
    ("SSAM", "Southern South America"),
    ("OC", "Oceania"),
    ("ME", "Middle East"),
    ("NAF", "North Africa"),
    ("SAF", "South Africa"),
    ("SAS", "Southern Asia"),
    ("SEAS", "South East Asia"),
    ("NEAS", "North East Asia"),
];
