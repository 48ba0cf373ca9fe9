//! Which pools serve which part of the world: lists for data centres, countries and regions. Knows codes as they
//! were written; does not know where anybody is.

use std::collections::HashMap;

/// The lists of a balancer. `P` is whatever names a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Atlas<P> {
    /// By the code of the data centre, such as `FRA`.
    pub pops: HashMap<String, Vec<P>>,
    /// By the code of a country, such as `DE`.
    pub countries: HashMap<String, Vec<P>>,
    /// By the code of a region, such as `WEU`.
    pub regions: HashMap<String, Vec<P>>,
    pub default: Vec<P>,
}

/// Where a request came in and from. What is not known is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place<'a> {
    pub pop: Option<&'a str>,
    pub country: Option<&'a str>,
    pub region: Option<&'a str>,
}

impl<P> Atlas<P> {
    /// The list for the most exact place that has one.
    pub fn pools(&self, place: &Place<'_>) -> &[P] {
        let levels =
            [(&self.pops, place.pop), (&self.countries, place.country), (&self.regions, place.region)];
        levels.into_iter().find_map(|(lists, code)| lists.get(code?)).unwrap_or(&self.default)
    }
}
