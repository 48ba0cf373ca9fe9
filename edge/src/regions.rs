//! The regions of the reference's load balancers, and which countries they have. Knows a table; does not know where
//! anybody is.

mod table;

use table::{COUNTRIES, DIVIDED, SUBDIVISIONS};

/// A part of the world.
pub(crate) struct Region {
    /// Such as `WEU`.
    pub(crate) code: &'static str,
    pub(crate) name: &'static str,
}

/// A country, as far as it is in a region.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Country {
    /// Two letters of ISO 3166-1.
    pub(crate) code: &'static str,
    pub(crate) name: &'static str,
    /// Code (of ISO 3166-2, without the country) and name of its states or provinces that are there; empty where the
    /// whole country is.
    pub(crate) subdivisions: Vec<(&'static str, &'static str)>,
}

impl Region {
    /// By their codes.
    pub(crate) fn countries(&self) -> Vec<Country> {
        let whole = COUNTRIES.iter().filter(|(_, _, region)| *region == self.code);
        let whole = whole.map(|(code, name, _)| Country { code, name, subdivisions: Vec::new() });
        let parts = DIVIDED.iter().map(|(country, name)| {
            let here = SUBDIVISIONS.iter().filter(|(of, _, _, region)| of == country && *region == self.code);
            let subdivisions = here.map(|(_, code, name, _)| (*code, *name)).collect();
            Country { code: country, name, subdivisions }
        });
        let mut countries: Vec<Country> =
            whole.chain(parts.filter(|country| !country.subdivisions.is_empty())).collect();
        countries.sort_unstable_by_key(|country| country.code);
        countries
    }
}

/// In which region a visitor of this country is, by codes in capitals; `None` of a divided country whose part is not
/// known, and of codes that nobody has.
pub(crate) fn of(country: &str, subdivision: Option<&str>) -> Option<&'static str> {
    if let Ok(at) = COUNTRIES.binary_search_by_key(&country, |(code, _, _)| code) {
        return Some(COUNTRIES[at].2);
    }
    let at =
        SUBDIVISIONS.binary_search_by_key(&(country, subdivision?), |(of, code, _, _)| (of, code)).ok()?;
    Some(SUBDIVISIONS[at].3)
}

pub(crate) const REGIONS: [Region; 13] = [
    Region { code: "WNAM", name: "Western North America" },
    Region { code: "ENAM", name: "Eastern North America" },
    Region { code: "WEU", name: "Western Europe" },
    Region { code: "EEU", name: "Eastern Europe" },
    Region { code: "NSAM", name: "Northern South America" },
    Region { code: "SSAM", name: "Southern South America" },
    Region { code: "OC", name: "Oceania" },
    Region { code: "ME", name: "Middle East" },
    Region { code: "NAF", name: "North Africa" },
    Region { code: "SAF", name: "South Africa" },
    Region { code: "SAS", name: "Southern Asia" },
    Region { code: "SEAS", name: "South East Asia" },
    Region { code: "NEAS", name: "North East Asia" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_country_is_in_one_region_and_a_divided_one_by_its_parts() {
        assert!(COUNTRIES.is_sorted_by_key(|(code, _, _)| code), "found by halves");
        assert!(SUBDIVISIONS.is_sorted_by_key(|(of, code, _, _)| (of, code)));
        let mut seen = 0;
        for region in &REGIONS {
            for country in region.countries() {
                seen += country.subdivisions.len().max(1);
                if country.subdivisions.is_empty() {
                    assert_eq!(of(country.code, None), Some(region.code), "{country:?}");
                }
                for (code, _) in &country.subdivisions {
                    assert_eq!(of(country.code, Some(code)), Some(region.code), "{country:?} {code}");
                }
            }
        }
        assert_eq!(seen, COUNTRIES.len() + SUBDIVISIONS.len(), "none is left over");
        for (country, part, region) in [
            ("DE", None, Some("WEU")),
            ("DE", Some("BE"), Some("WEU")),
            ("US", Some("CA"), Some("WNAM")),
            ("CA", Some("QC"), Some("ENAM")),
            ("US", None, None),
            ("US", Some("QC"), None),
            ("ZZ", None, None),
        ] {
            assert_eq!(of(country, part), region, "{country} {part:?}");
        }
    }
}
