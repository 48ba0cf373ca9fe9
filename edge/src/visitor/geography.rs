//! Where requests come in and where they are from, for load balancers that steer by it: what the operator says of this
//! edge and of networks, and what trusted proxies say of their visitors. Knows codes as they were written; does not
//! know what they mean.

pub(crate) mod database;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use adit_balance::steer::{Place, Point};
use adit_net::network::Network;
use http::{HeaderMap, HeaderName, HeaderValue};

use self::database::Countries;
pub(crate) use self::database::Database;
use crate::regions;

/// What is known beforehand.
#[derive(Debug, Default)]
pub(crate) struct Geography {
    /// Of this edge.
    pub(crate) here: Codes,
    pub(crate) point: Option<Point>,
    /// In which trusted proxies say where a visitor is.
    pub(crate) headers: Headers,
    pub(crate) networks: Networks,
    pub(crate) database: Option<Arc<Database>>,
}

/// A place, as far as it is known. In capitals.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Codes {
    /// The data centre, such as `FRA`.
    pub(crate) pop: Option<String>,
    /// Such as `DE`.
    pub(crate) country: Option<String>,
    /// Such as `WEU`.
    pub(crate) region: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Headers {
    pub(crate) country: Option<HeaderName>,
    pub(crate) region: Option<HeaderName>,
}

/// Places of networks; the smallest one that has an address counts.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    places: Vec<Codes>,
    by_network: HashMap<Network, usize>,
    /// That there are, the longest first.
    lengths: Vec<u32>,
}

/// What a trusted proxy says of a request, and the file as it was when the request came.
#[derive(Debug, Default)]
pub(super) struct Said {
    country: Option<String>,
    region: Option<String>,
    countries: Option<Arc<Countries>>,
}

impl Networks {
    /// `false` if the network has a place already.
    pub(crate) fn add(&mut self, network: Network, place: &Codes) -> bool {
        if self.places.last() != Some(place) {
            self.places.push(place.clone());
        }
        let length = network.prefix();
        if let Err(at) = self.lengths.binary_search_by(|known| length.cmp(known)) {
            self.lengths.insert(at, length);
        }
        self.by_network.insert(network, self.places.len() - 1).is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_network.len()
    }

    fn find(&self, address: IpAddr) -> Option<&Codes> {
        let mut networks = self.lengths.iter().map(|length| Network::around(address, *length));
        let at = networks.find_map(|network| self.by_network.get(&network))?;
        self.places.get(*at)
    }
}

impl Geography {
    /// What a head says, if whoever has sent it is believed.
    pub(super) fn said(&self, headers: &HeaderMap, is_trusted: bool) -> Said {
        let countries = self.database.as_ref().map(|database| database.now());
        if !is_trusted {
            return Said { countries, ..Said::default() };
        }
        let code = |name: &Option<HeaderName>| {
            let mut values = headers.get_all(name.as_ref()?).iter();
            let (Some(value), None) = (values.next(), values.next()) else { return None };
            code(value)
        };
        Said { country: code(&self.headers.country), region: code(&self.headers.region), countries }
    }

    /// Where a request of this visitor is from, and comes in. A proxy knows best, then the table, then the file; the
    /// region may follow from the country. Else it is as if the visitor were where the edge is, of which the country
    /// is not said.
    pub(super) fn place<'g>(&'g self, said: &'g Said, visitor: IpAddr) -> Place<'g> {
        let known = self.networks.find(visitor);
        let of_network = |code: fn(&Codes) -> &Option<String>| known.and_then(|known| code(known).as_deref());
        let (country, part) = match said.country.as_deref().or(of_network(|codes| &codes.country)) {
            Some(country) => (Some(country), None),
            None => said.countries.as_ref().map_or((None, None), |countries| countries.of(visitor)),
        };
        Place {
            pop: of_network(|codes| &codes.pop).or(self.here.pop.as_deref()),
            country,
            region: said
                .region
                .as_deref()
                .or(of_network(|codes| &codes.region))
                .or_else(|| regions::of(country?, part))
                .or(self.here.region.as_deref()),
        }
    }
}

fn code(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?.trim();
    let is_code =
        (1..=LONGEST_CODE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_code.then(|| text.to_ascii_uppercase())
}

/// Characters of the code of a place.
pub(crate) const LONGEST_CODE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(country: &str, region: Option<&str>) -> Codes {
        Codes { pop: None, country: Some(country.to_owned()), region: region.map(str::to_owned) }
    }

    #[test]
    fn a_proxy_knows_best_then_the_smallest_network_then_the_edge_itself() {
        let mut networks = Networks::default();
        for (network, place) in [
            ("10.0.0.0/8", codes("DE", Some("WEU"))),
            ("10.1.0.0/16", codes("PL", Some("EEU"))),
            ("2001:db8::/32", codes("FR", None)),
        ] {
            assert!(networks.add(network.parse().unwrap(), &place), "{network}");
        }
        assert!(!networks.add("10.1.2.3/16".parse().unwrap(), &codes("AT", None)), "it is there already");
        let here = Codes { pop: Some("FRA".to_owned()), country: None, region: Some("NEAR".to_owned()) };
        let headers = Headers { country: Some(HeaderName::from_static("x-country")), region: None };
        let geography = Geography { here, point: None, headers, networks, database: None };
        let mut asked = HeaderMap::new();
        asked.insert("x-country", HeaderValue::from_static("us"));
        for (visitor, is_trusted, country, region) in [
            ("10.9.9.9", false, Some("DE"), Some("WEU")),
            ("::ffff:10.9.9.9", false, Some("DE"), Some("WEU")),
            ("10.1.9.9", false, Some("AT"), Some("WEU")),
            ("10.1.9.9", true, Some("US"), Some("NEAR")),
            ("2001:db8::1", false, Some("FR"), Some("WEU")),
            ("192.0.2.1", false, None, Some("NEAR")),
        ] {
            let said = geography.said(&asked, is_trusted);
            let place = geography.place(&said, visitor.parse().unwrap());
            assert_eq!((place.country, place.region), (country, region), "{visitor} {is_trusted}");
            assert_eq!(place.pop, Some("FRA"));
        }
        asked.append("x-country", HeaderValue::from_static("de"));
        assert!(geography.said(&asked, true).country.is_none(), "two words are none");
    }
}
