//! The regions that the reference checks from, and their countries, as its tools look them up. An edge checks from
//! where it is.

use serde_json::{Value, json};

use crate::api::envelope::{self, Answer, Problem};
use crate::api::query::Query;
use crate::regions::{Country, REGIONS, Region};

/// All regions, or those that have a country or a part of one.
pub(super) fn list(query: &Query) -> Result<Answer, Problem> {
    let code = |name| Ok::<_, Problem>(query.text(name)?.map(str::to_ascii_uppercase));
    let country = code("country_code_a2")?;
    let part = match code("subdivision_code_a2")? {
        None => code("subdivision_code")?,
        part => part,
    };
    let wanted = |found: &Country| {
        country.as_ref().is_none_or(|country| found.code == country)
            && part.as_ref().is_none_or(|part| found.subdivisions.iter().any(|(code, _)| code == part))
    };
    let regions = REGIONS.iter().filter_map(|region| {
        let mut countries = region.countries();
        countries.retain(wanted);
        if let Some(part) = &part {
            countries.iter_mut().for_each(|country| country.subdivisions.retain(|(code, _)| code == part));
        }
        (!countries.is_empty()).then(|| view(region, &countries))
    });
    Ok(envelope::success(json!({ "iso_standard": ISO, "regions": regions.collect::<Value>() })))
}

pub(super) fn look(code: &str) -> Result<Answer, Problem> {
    let found = REGIONS.iter().find(|region| region.code == code);
    let found = found.ok_or(Problem::NotFound("region"))?;
    Ok(envelope::success(view(found, &found.countries())))
}

fn view(region: &Region, countries: &[Country]) -> Value {
    let countries = countries.iter().map(|Country { code, name, subdivisions }| {
        let mut country = json!({ "country_code_a2": code, "country_name": name });
        if !subdivisions.is_empty() {
            let part = |(code, name): &(&str, &str)| json!({ "subdivision_code_a2": code, "subdivision_name": name });
            country["country_subdivisions"] = subdivisions.iter().map(part).collect();
        }
        country
    });
    json!({ "region_code": region.code, "name": region.name, "countries": countries.collect::<Value>() })
}

const ISO: &str = "Country and subdivision codes follow ISO 3166-1 alpha-2 and ISO 3166-2";
