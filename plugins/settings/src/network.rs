//! Addresses and lists of networks.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Faults, Place};

/// A list of networks: "10.0.0.0/8", "2001:db8::/32", or one address alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    pub fn read(place: &Place<'_>, faults: &mut Faults) -> Option<Self> {
        let mut networks = Vec::new();
        let mut whole = true;
        for place in place.list(faults)? {
            match place.text(faults).map(network) {
                Some(Ok(network)) => networks.push(network),
                Some(Err(message)) => {
                    place.fault(faults, message);
                    whole = false;
                }
                None => whole = false,
            }
        }
        whole.then_some(Self(networks))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `address` must be in its plain form, as [`address`] makes it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The address that a text is; an IPv4 address in the clothes of an IPv6 one (`::ffff:192.0.2.1`) is the
/// IPv4 address.
pub fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// The network that a text is: "10.0.0.0/8", or one address alone.
pub fn network(text: &str) -> Result<IpNet, String> {
    let wrong = || "expected a network such as \"10.0.0.0/8\" or one address".to_owned();
    let Some((_, length)) = text.split_once('/') else {
        return address(text).map(IpNet::from).ok_or_else(wrong);
    };
    let network: IpNet = text.parse().map_err(|_| wrong())?;
    if network.addr() != network.network() {
        return Err(format!("bits are set behind the first {length}; the network is {}", network.trunc()));
    }
    if network.addr().to_canonical() != network.addr() {
        return Err("an IPv4 network is written as one".to_owned());
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &str) -> Result<Networks, Vec<String>> {
        crate::read(list, |place, faults| Networks::read(&place, faults))
            .map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect())
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let list = networks(r#"["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"]"#).unwrap();
        for inside in ["10.255.0.1", "192.0.2.7", "2001:db8:ffff::1", "::1", "::ffff:10.1.2.3"] {
            assert!(list.contains(address(inside).unwrap()), "{inside}");
        }
        for outside in ["11.0.0.1", "192.0.2.8", "2001:db9::1", "::2", "::ffff:11.1.2.3"] {
            assert!(!list.contains(address(outside).unwrap()), "{outside}");
        }
        for nobody in ["", "localhost", "10.0.0.1:80", " 10.0.0.1"] {
            assert_eq!(address(nobody), None);
        }
    }

    #[test]
    fn every_text_that_is_no_network_is_named() {
        let faults = networks(
            r#"["10.0.0.1/8", "10.0.0.0/33", "x", "10.0.0.0/8", 7, "::ffff:10.0.0.0/104", "10.0.0.0/"]"#,
        );
        assert_eq!(faults.unwrap_err(), ["/0", "/1", "/2", "/4", "/5", "/6"]);
    }
}
