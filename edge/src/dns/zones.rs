//! What is answered about the names of the edge's zones. Pure: what leads somewhere, which edges are well and what
//! authorities look for is handed in.

use std::net::IpAddr;

use super::Terms;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    V4,
    V6,
    Srv,
    Txt,
    Ns,
    Soa,
    /// Whatever there is (RFC 8482): as little as possible.
    Any,
    Other,
}

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Address(IpAddr),
    Srv { port: u16, target: String },
    Txt(String),
    Ns(String),
    Soa,
    Minimal,
}

/// What comes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer<'z> {
    /// The name is in none of the zones.
    NotOurs,
    /// There is no such name in this zone.
    NoName(&'z str),
    /// There is; without records there is nothing of this kind.
    Records { zone: &'z str, records: Vec<Data>, ttl: u32 },
}

/// What the answers depend on.
pub(crate) struct Known<'k> {
    /// Whether a host name leads somewhere.
    pub(crate) leads: &'k dyn Fn(&str) -> bool,
    /// What an authority looks for below `_acme-challenge.`.
    pub(crate) looked_for: &'k dyn Fn(&str) -> Vec<String>,
    /// For each node whether it takes visitors and hosts.
    pub(crate) is_up: &'k [bool],
    /// Who asks, in numbers: the same asker gets the same addresses.
    pub(crate) asker: u64,
}

impl Terms {
    /// `name` is in lower case, without a final dot.
    pub(crate) fn answer(&self, name: &str, kind: Kind, known: &Known<'_>) -> Answer<'_> {
        let Some((zone, below)) = self.zone_of(name) else { return Answer::NotOurs };
        let records = |records, ttl| Answer::Records { zone, records, ttl };
        if let Some(host) = name.strip_prefix(CHALLENGE) {
            // The zone itself has one too.
            let host_is_ours = host == zone || host.ends_with(&format!(".{zone}"));
            let texts = if host_is_ours { (known.looked_for)(host) } else { Vec::new() };
            if texts.is_empty() && !(known.leads)(host) {
                return Answer::NoName(zone);
            }
            let texts = texts.into_iter().filter(|_| kind == Kind::Txt);
            return records(texts.map(Data::Txt).collect(), CHALLENGE_TTL);
        }
        if let Some(region) = discovery(below) {
            let nodes = self.nodes.iter().filter(|node| region.is_none_or(|region| node.region == region));
            let mut targets: Vec<(String, u16)> = nodes
                .flat_map(|node| {
                    let target = format!("{}.{SERVERS}.{zone}", node.region);
                    node.ports.iter().map(move |port| (target.clone(), *port))
                })
                .collect();
            targets.sort();
            targets.dedup();
            if targets.is_empty() {
                return Answer::NoName(zone);
            }
            let srv = targets.into_iter().map(|(target, port)| Data::Srv { port, target });
            return records(if kind == Kind::Srv { srv.collect() } else { Vec::new() }, SRV_TTL);
        }
        if let Some(region) = below.strip_suffix(SERVERS).and_then(|rest| rest.strip_suffix('.')) {
            if !self.nodes.iter().any(|node| node.region == region) {
                return Answer::NoName(zone);
            }
            return records(self.addresses(Some(region), kind, known), NODE_TTL);
        }
        let is_apex = below.is_empty();
        if !is_apex && !(known.leads)(name) {
            return Answer::NoName(zone);
        }
        match kind {
            Kind::V4 | Kind::V6 => records(self.addresses(None, kind, known), NODE_TTL),
            Kind::Ns if is_apex => {
                records(self.name_servers.iter().cloned().map(Data::Ns).collect(), ZONE_TTL)
            }
            Kind::Soa if is_apex => records(vec![Data::Soa], ZONE_TTL),
            Kind::Any => records(vec![Data::Minimal], ZONE_TTL),
            Kind::Ns | Kind::Soa | Kind::Srv | Kind::Txt | Kind::Other => records(Vec::new(), ZONE_TTL),
        }
    }

    /// The zone with the longest name that this one is in, and what stands before it.
    fn zone_of<'n>(&self, name: &'n str) -> Option<(&str, &'n str)> {
        let within = |zone: &String| {
            let rest = name.strip_suffix(zone.as_str())?;
            let below = if rest.is_empty() { rest } else { rest.strip_suffix('.')? };
            Some((zone.len(), below))
        };
        let found = self.zones.iter().filter_map(|zone| Some((zone, within(zone)?)));
        found.max_by_key(|(_, (length, _))| *length).map(|(zone, (_, below))| (zone.as_str(), below))
    }

    /// Of nodes that are well; of all if none is, since one of them may be well by the time somebody gets there.
    fn addresses(&self, region: Option<&str>, kind: Kind, known: &Known<'_>) -> Vec<Data> {
        let nodes = || {
            let all = self.nodes.iter().zip(known.is_up);
            all.filter(|(node, _)| region.is_none_or(|region| node.region == region))
        };
        let fits = |address: &&IpAddr| address.is_ipv4() == (kind == Kind::V4);
        let of = |well: bool| {
            let nodes = nodes().filter(move |(_, is_up)| !well || **is_up);
            nodes.flat_map(|(node, _)| &node.addresses).filter(fits).copied().collect::<Vec<_>>()
        };
        if !matches!(kind, Kind::V4 | Kind::V6) {
            return Vec::new();
        }
        let well = of(true);
        let mut all = if well.is_empty() { of(false) } else { well };
        all.sort_by_key(|address| weight(known.asker, *address));
        all.dedup();
        all.truncate(MOST_ADDRESSES);
        all.into_iter().map(Data::Address).collect()
    }
}

/// Whether a name is where hosts look for edge servers, of one region or of all.
fn discovery(below: &str) -> Option<Option<&str>> {
    let service = below.strip_suffix("._tcp")?;
    if service == "_v2-origintunneld" {
        return Some(None);
    }
    service.strip_prefix('_')?.strip_suffix("-v2-origintunneld").map(Some)
}

/// Rendezvous: each asker has its own order of addresses, which stays the same for all that do not go.
fn weight(asker: u64, address: IpAddr) -> (u64, IpAddr) {
    let mut hash = asker ^ 0xcbf2_9ce4_8422_2325;
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 29), address)
}

const CHALLENGE: &str = "_acme-challenge.";
/// Names of regions are below this.
const SERVERS: &str = "edge";
/// Addresses in an answer.
const MOST_ADDRESSES: usize = 8;
/// Seconds: edges come and go.
const NODE_TTL: u32 = 20;
const SRV_TTL: u32 = 300;
const ZONE_TTL: u32 = 300;
/// What is looked for is there for a minute.
const CHALLENGE_TTL: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Node;

    fn terms() -> Terms {
        let node = |region: &str, addresses: &[&str]| Node {
            region: region.to_owned(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ports: vec![7844],
            probe: None,
            node: None,
        };
        Terms {
            listen: "127.0.0.1:53".parse().unwrap(),
            zones: vec!["example.com".to_owned(), "deep.example.com".to_owned()],
            name_servers: vec!["ns1.example.net".to_owned()],
            nodes: vec![
                node("west", &["192.0.2.1", "2001:db8::1"]),
                node("west", &["192.0.2.2"]),
                node("east", &["192.0.2.3"]),
            ],
        }
    }

    fn ask<'t>(terms: &'t Terms, name: &str, kind: Kind, is_up: &[bool]) -> Answer<'t> {
        let known = Known {
            leads: &|name| name == "app.example.com",
            looked_for: &|host| if host == "app.example.com" { vec!["text".to_owned()] } else { Vec::new() },
            is_up,
            asker: 7,
        };
        terms.answer(name, kind, &known)
    }

    fn addresses(answer: Answer<'_>) -> Vec<String> {
        let Answer::Records { records, .. } = answer else { panic!("no records: {answer:?}") };
        let mut all: Vec<String> = records
            .iter()
            .map(|record| {
                let Data::Address(address) = record else { panic!("no address: {record:?}") };
                address.to_string()
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn names_that_lead_somewhere_have_the_addresses_of_edges_that_are_well() {
        let terms = terms();
        let all = [true; 3];
        let app = "app.example.com";
        assert_eq!(addresses(ask(&terms, app, Kind::V4, &all)), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        assert_eq!(addresses(ask(&terms, app, Kind::V6, &all)), ["2001:db8::1"]);
        let drained = [false, true, true];
        assert_eq!(addresses(ask(&terms, app, Kind::V4, &drained)), ["192.0.2.2", "192.0.2.3"]);
        let none = [false; 3];
        assert_eq!(addresses(ask(&terms, app, Kind::V4, &none)).len(), 3, "never an empty set");
        for (name, answer) in [
            ("other.example.com", Answer::NoName("example.com")),
            ("x.deep.example.com", Answer::NoName("deep.example.com")),
            ("example.org", Answer::NotOurs),
            ("notexample.com", Answer::NotOurs),
            ("", Answer::NotOurs),
        ] {
            assert_eq!(ask(&terms, name, Kind::V4, &all), answer, "{name}");
        }
        let empty = Answer::Records { zone: "example.com", records: vec![], ttl: ZONE_TTL };
        assert_eq!(ask(&terms, app, Kind::Other, &all), empty);
        assert_eq!(ask(&terms, app, Kind::Soa, &all), empty, "the zone has one, its names have none");
        let Answer::Records { records, .. } = ask(&terms, "example.com", Kind::Soa, &all) else { panic!() };
        assert_eq!(records, [Data::Soa]);
    }

    #[test]
    fn hosts_find_a_target_for_each_region_and_its_addresses() {
        let terms = terms();
        let up = [true, false, true];
        let srv = |name: &str| {
            let answer = ask(&terms, name, Kind::Srv, &up);
            let Answer::Records { records, .. } = answer else { panic!("{answer:?}") };
            records
        };
        let target = |region: &str| Data::Srv { port: 7844, target: format!("{region}.edge.example.com") };
        assert_eq!(srv("_v2-origintunneld._tcp.example.com"), [target("east"), target("west")]);
        assert_eq!(srv("_west-v2-origintunneld._tcp.example.com"), [target("west")]);
        let nowhere = ask(&terms, "_north-v2-origintunneld._tcp.example.com", Kind::Srv, &up);
        assert_eq!(nowhere, Answer::NoName("example.com"));
        assert_eq!(addresses(ask(&terms, "west.edge.example.com", Kind::V4, &up)), ["192.0.2.1"]);
        assert_eq!(ask(&terms, "north.edge.example.com", Kind::V4, &up), Answer::NoName("example.com"));
    }

    #[test]
    fn an_authority_finds_what_it_looks_for_and_nothing_else() {
        let terms = terms();
        let texts = |name: &str, kind| match ask(&terms, name, kind, &[true; 3]) {
            Answer::Records { records, .. } => Some(records),
            Answer::NoName(_) | Answer::NotOurs => None,
        };
        let app = "_acme-challenge.app.example.com";
        assert_eq!(texts(app, Kind::Txt), Some(vec![Data::Txt("text".to_owned())]));
        assert_eq!(texts(app, Kind::V4), Some(vec![]));
        assert_eq!(texts("_acme-challenge.other.example.com", Kind::Txt), None);
    }

    #[test]
    fn the_same_asker_gets_the_same_eight_addresses() {
        let mut terms = terms();
        terms.nodes[0].addresses = (0..40).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let up = [true; 3];
        let first = addresses(ask(&terms, "app.example.com", Kind::V4, &up));
        assert_eq!(first.len(), MOST_ADDRESSES);
        assert_eq!(addresses(ask(&terms, "app.example.com", Kind::V4, &up)), first);
        let gone: IpAddr = first[0].parse().unwrap();
        for node in &mut terms.nodes {
            node.addresses.retain(|address| *address != gone);
        }
        let next = addresses(ask(&terms, "app.example.com", Kind::V4, &up));
        assert_eq!(first.iter().filter(|address| next.contains(address)).count(), MOST_ADDRESSES - 1);
    }
}
