//! Where circuits may lead that name their destination themselves: `ip-rules`. Knows how they are written and what
//! they mean; resolves no name.

use std::net::IpAddr;

use adit_config_reader::Spanned;

use crate::document;
use crate::grants::Network;
use crate::value::{Invalid, Reader};

/// What one rule says of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpRule {
    pub network: Network,
    /// Empty for all.
    pub ports: Vec<u16>,
    pub allow: bool,
}

/// Lists of rules that all have to allow a destination. In each the first that matches decides, and where none does
/// nothing is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach(Vec<Vec<IpRule>>);

impl Reach {
    /// What these rules allow.
    pub fn of(rules: Vec<IpRule>) -> Self {
        Self(vec![rules])
    }

    /// What these rules allow as well.
    #[must_use]
    pub fn within(mut self, rules: &[IpRule]) -> Self {
        self.0.push(rules.to_vec());
        self
    }

    /// Whether nothing is allowed, whatever the destination.
    pub fn is_nowhere(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|list| !list.iter().any(|rule| rule.allow))
    }

    /// Whether a circuit may lead to this address. `is_private` says whether an address belongs to a machine or a
    /// network of its own: those are reached only where a rule is about such a network, and not by one that allows
    /// the whole internet.
    pub fn allows(&self, address: IpAddr, port: u16, is_private: fn(IpAddr) -> bool) -> bool {
        let address = address.to_canonical();
        let may = |list: &Vec<IpRule>| {
            let mut rules = list.iter().filter(|rule| rule.ports.is_empty() || rule.ports.contains(&port));
            let speaks = |rule: &&IpRule| {
                rule.network.contains(address)
                    && (!rule.allow || !is_private(address) || rule.network.is_own(is_private))
            };
            rules.find(speaks).is_some_and(|rule| rule.allow)
        };
        !self.0.is_empty() && self.0.iter().all(may)
    }

    /// The rules of the first list, in the reference's form.
    pub(crate) fn first(&self) -> &[IpRule] {
        self.0.first().map_or(&[], Vec::as_slice)
    }
}

/// The rules that are written; those that are wrong are left out, and there is a mistake that says why.
pub(super) fn lower(
    written: Option<&Spanned<Vec<Spanned<document::IpRule>>>>,
    reading: &mut Reader<'_>,
) -> Option<Vec<IpRule>> {
    let written = written?;
    if written.get_ref().len() > MOST_RULES {
        reading.refuse(written, Invalid::new(format!("more than {MOST_RULES} rules")));
    }
    let mut rules = Vec::new();
    for at in written.get_ref() {
        let rule = at.get_ref();
        let Some(prefix) = &rule.prefix else {
            reading.mistakes.add_missing(
                at.span(),
                "prefix",
                "write a network, such as prefix = \"10.1.0.0/16\"",
            );
            continue;
        };
        let network = reading.take(prefix, Network::parse(prefix.get_ref()));
        let mut ports = Vec::new();
        for port in rule.ports.iter().flat_map(Spanned::get_ref) {
            let outcome = port_of(*port.get_ref());
            ports.extend(reading.take(port, outcome));
        }
        if let Some(list) = rule.ports.as_ref().filter(|ports| ports.get_ref().len() > MOST_PORTS) {
            reading.refuse(list, Invalid::new(format!("more than {MOST_PORTS} ports")));
        }
        // A list that is written and empty says that no port is meant, and an empty one here means all.
        if let Some(list) = rule.ports.as_ref().filter(|ports| ports.get_ref().is_empty()) {
            let help = "leave `ports` out to mean every port";
            reading.refuse(list, Invalid::with_help("this rule is about no port", help));
        }
        let allow = rule.allow.as_ref().is_some_and(|allow| *allow.get_ref());
        rules.extend(network.map(|network| IpRule { network, ports, allow }));
    }
    Some(rules)
}

pub(crate) fn port_of(port: i64) -> Result<u16, Invalid> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Invalid::new("a port is a number from 1 to 65535"))
}

pub(crate) const MOST_RULES: usize = 256;
pub(crate) const MOST_PORTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(network: &str, ports: &[u16], allow: bool) -> IpRule {
        IpRule { network: Network::parse(network).unwrap(), ports: ports.to_vec(), allow }
    }

    /// A part of what is private, enough to tell.
    fn is_private(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
            IpAddr::V6(address) => {
                address.is_loopback() || address.is_unique_local() || address.is_unspecified()
            }
        }
    }

    fn allows(reach: &Reach, destination: &str) -> bool {
        let destination: std::net::SocketAddr = destination.parse().unwrap();
        reach.allows(destination.ip(), destination.port(), is_private)
    }

    #[test]
    fn the_first_rule_that_matches_decides_and_where_none_does_nothing_is_allowed() {
        let reach = Reach::of(vec![
            rule("10.0.0.5", &[], false),
            rule("10.0.0.0/8", &[22, 443], true),
            rule("192.0.2.0/24", &[], true),
        ]);
        for (destination, wanted) in [
            ("10.0.0.5:22", false),
            ("10.0.0.6:22", true),
            ("[::ffff:10.0.0.6]:443", true),
            ("10.0.0.6:80", false),
            ("192.0.2.9:1", true),
            ("198.51.100.1:22", false),
            ("[2001:db8::1]:22", false),
        ] {
            assert_eq!(allows(&reach, destination), wanted, "{destination}");
        }
        assert!(!allows(&Reach::default(), "192.0.2.9:1") && !allows(&Reach::of(Vec::new()), "192.0.2.9:1"));
        assert!(
            Reach::default().is_nowhere() && Reach::of(vec![rule("10.0.0.0/8", &[], false)]).is_nowhere()
        );
        assert!(!reach.is_nowhere());
    }

    #[test]
    fn a_rule_about_everything_allows_nothing_private() {
        let all = Reach::of(vec![rule("0.0.0.0/0", &[], true), rule("::/0", &[], true)]);
        for (destination, wanted) in [
            ("198.51.100.1:22", true),
            ("[2001:db8::1]:22", true),
            ("127.0.0.1:22", false),
            ("[::1]:22", false),
            ("[::ffff:127.0.0.1]:22", false),
            ("10.0.0.1:22", false),
            ("169.254.169.254:80", false),
        ] {
            assert_eq!(allows(&all, destination), wanted, "{destination}");
        }
        let own = Reach::of(vec![rule("0.0.0.0/0", &[], true), rule("127.0.0.1", &[22], true)]);
        assert!(
            allows(&own, "127.0.0.1:22") && !allows(&own, "127.0.0.1:23") && !allows(&own, "127.0.0.2:22")
        );
    }

    #[test]
    fn whoever_pushes_rules_reaches_no_more_than_the_host_allows() {
        let host = [rule("10.0.0.0/8", &[22], true)];
        let pushed =
            Reach::of(vec![rule("0.0.0.0/0", &[], true), rule("10.1.0.0/16", &[], true)]).within(&host);
        assert!(allows(&pushed, "10.1.0.1:22"));
        for destination in ["10.2.0.1:22", "10.1.0.1:23", "198.51.100.1:22"] {
            assert!(!allows(&pushed, destination), "{destination}");
        }
        assert!(Reach::of(vec![rule("10.0.0.0/8", &[], true)]).within(&[]).is_nowhere());
    }
}
