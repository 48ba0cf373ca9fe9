//! Where requests come in and where they are from, for load balancers that steer by it: what the operator says of this
//! edge and of networks, and what trusted proxies say of their visitors. Knows codes as they were written; does not
//! know what they mean.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use adit_balance::steer::{Place, Point};
use adit_net::network::Network;
use http::{HeaderMap, HeaderName, HeaderValue};
use maxminddb::{MaxMindDbError, PathElement, Reader};

/// What is known beforehand.
#[derive(Debug, Default)]
pub(crate) struct Geography {
    /// Of this edge.
    pub(crate) here: Codes,
    pub(crate) point: Option<Point>,
    /// In which trusted proxies say where a visitor is.
    pub(crate) headers: Headers,
    pub(crate) networks: Networks,
    pub(crate) database: Option<Database>,
}

/// Countries of networks, as a file in the form of MaxMind DB has them.
pub(crate) struct Database(Reader<Vec<u8>>);

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

/// What a trusted proxy says of a request.
#[derive(Debug, Default)]
pub(super) struct Said {
    country: Option<String>,
    region: Option<String>,
}

impl Database {
    /// # Errors
    /// It is no such file.
    pub(crate) fn of(bytes: Vec<u8>) -> Result<Self, MaxMindDbError> {
        Reader::from_source(bytes).map(Self)
    }

    fn country(&self, address: IpAddr) -> Option<&str> {
        let found = self.0.lookup(address.to_canonical()).ok()?;
        // Where an address is, or else where it is registered.
        ["country", "registered_country"].into_iter().find_map(|whose| {
            let path = [PathElement::Key(whose), PathElement::Key("iso_code")];
            let code: Option<&str> = found.decode_path(&path).ok().flatten();
            code.filter(|code| (1..=LONGEST_CODE).contains(&code.len()))
        })
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", self.0.metadata().database_type)
    }
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
        if !is_trusted {
            return Said::default();
        }
        let code = |name: &Option<HeaderName>| {
            let mut values = headers.get_all(name.as_ref()?).iter();
            let (Some(value), None) = (values.next(), values.next()) else { return None };
            code(value)
        };
        Said { country: code(&self.headers.country), region: code(&self.headers.region) }
    }

    /// Where a request of this visitor is from, and comes in. A proxy knows best, then the table, then the file; else
    /// it is as if the visitor were where the edge is, of which the country is not said.
    pub(super) fn place<'g>(&'g self, said: &'g Said, visitor: IpAddr) -> Place<'g> {
        let known = self.networks.find(visitor);
        let of_network = |code: fn(&Codes) -> &Option<String>| known.and_then(|known| code(known).as_deref());
        Place {
            pop: of_network(|codes| &codes.pop).or(self.here.pop.as_deref()),
            country: said
                .country
                .as_deref()
                .or(of_network(|codes| &codes.country))
                .or_else(|| self.database.as_ref()?.country(visitor)),
            region: said
                .region
                .as_deref()
                .or(of_network(|codes| &codes.region))
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
            ("10.1.9.9", false, Some("AT"), Some("NEAR")),
            ("10.1.9.9", true, Some("US"), Some("NEAR")),
            ("2001:db8::1", false, Some("FR"), Some("NEAR")),
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

    /// A file in the form of MaxMind DB (version 2.0) with the countries of IPv4 networks.
    fn file(networks: &[(&str, &str)]) -> Vec<u8> {
        const EMPTY: u32 = u32::MAX;
        let text = |text: &str| [&[0x40 | text.len() as u8][..], text.as_bytes()].concat();
        let (mut tree, mut data) = (vec![[EMPTY; 2]], Vec::new());
        let mut leaves = Vec::new();
        for (network, code) in networks {
            let (address, length) = network.split_once('/').unwrap();
            let (bits, length) =
                (u32::from(address.parse::<std::net::Ipv4Addr>().unwrap()), length.parse::<usize>().unwrap());
            let bit = |at: usize| ((bits >> (31 - at)) & 1) as usize;
            let mut node = 0;
            for at in 0..length - 1 {
                if tree[node][bit(at)] == EMPTY {
                    tree[node][bit(at)] = tree.len() as u32;
                    tree.push([EMPTY; 2]);
                }
                node = tree[node][bit(at)] as usize;
            }
            leaves.push((node, bit(length - 1), data.len() as u32));
            data.extend([&[0xe1][..], &text("country"), &[0xe1], &text("iso_code"), &text(code)].concat());
        }
        let count = tree.len() as u32;
        for (node, bit, offset) in leaves {
            tree[node][bit] = count + 16 + offset;
        }
        let records = tree.iter().flatten().map(|record| if *record == EMPTY { count } else { *record });
        let mut file: Vec<u8> = records.flat_map(|record| record.to_be_bytes()[1..].to_vec()).collect();
        file.extend([0; 16]);
        file.extend(data);
        file.extend(b"\xab\xcd\xefMaxMind.com\xe9");
        let count = [&[0xc4][..], &count.to_be_bytes()].concat();
        for (name, value) in [
            ("binary_format_major_version", &[0xa1, 2][..]),
            ("binary_format_minor_version", &[0xa0]),
            ("build_epoch", &[0x01, 0x02, 1]),
            ("database_type", &text("Test")),
            ("description", &[0xe0]),
            ("ip_version", &[0xa1, 4]),
            ("languages", &[0x00, 0x04]),
            ("node_count", &count),
            ("record_size", &[0xa1, 24]),
        ] {
            file.extend([&text(name)[..], value].concat());
        }
        file
    }

    #[test]
    fn a_file_knows_the_countries_that_neither_a_proxy_nor_the_table_does() {
        let database = Database::of(file(&[("192.0.2.0/24", "PL"), ("198.51.100.0/25", "US")])).unwrap();
        let mut networks = Networks::default();
        assert!(networks.add("192.0.2.128/25".parse().unwrap(), &codes("DE", None)));
        let headers = Headers { country: Some(HeaderName::from_static("x-country")), region: None };
        let geography = Geography { headers, networks, database: Some(database), ..Geography::default() };
        let mut asked = HeaderMap::new();
        asked.insert("x-country", HeaderValue::from_static("fr"));
        for (visitor, is_trusted, country) in [
            ("192.0.2.1", false, Some("PL")),
            ("::ffff:192.0.2.1", false, Some("PL")),
            ("192.0.2.200", false, Some("DE")),
            ("192.0.2.1", true, Some("FR")),
            ("198.51.100.1", false, Some("US")),
            ("198.51.100.129", false, None),
            ("2001:db8::1", false, None),
        ] {
            let said = geography.said(&asked, is_trusted);
            let place = geography.place(&said, visitor.parse().unwrap());
            assert_eq!(place.country, country, "{visitor} {is_trusted}");
        }
        assert!(Database::of(b"no such file".to_vec()).is_err());
        // Whatever is in it, nothing but a wrong answer comes of it.
        let whole = file(&[("192.0.2.0/24", "PL")]);
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            if let Ok(database) = Database::of(broken) {
                let _ = database.country([192, 0, 2, 1].into());
            }
        }
    }
}
