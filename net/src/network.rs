//! Networks, and what counts as one source. Knows addresses.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: u128,
    mask: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this is neither an address nor a network")]
pub struct NoNetwork;

impl Network {
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        bits(address) & self.mask == self.address
    }

    /// How many bits its addresses have in common, of 128: those of IPv4 are written as IPv6 for it.
    #[must_use]
    pub fn prefix(self) -> u32 {
        self.mask.leading_ones()
    }

    /// The network with this prefix that an address is in.
    #[must_use]
    pub fn around(address: IpAddr, prefix: u32) -> Self {
        let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
        Self { address: bits(address) & mask, mask }
    }
}

/// Whoever has one address of IPv6 has all that begin with the same 64 bits.
#[must_use]
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u32>().map_err(|_| NoNetwork)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(width);
        if length > width {
            return Err(NoNetwork);
        }
        let mask = u128::MAX.checked_shl(width - length).unwrap_or(0);
        Ok(Self { address: bits(address) & mask, mask })
    }
}

/// Both families in one space (RFC 4291, 2.5.5.2).
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_source() {
        for (one, other, is_same) in [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ] {
            assert_eq!(source(address(one)) == source(address(other)), is_same, "{one} {other}");
        }
    }

    #[test]
    fn networks_are_read() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.9.9.9/8", "::ffff:10.0.0.1", "::10.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(address(inside)) && !network.contains(address(outside)), "{network:?}");
        }
        assert!("::/0".parse::<Network>().unwrap().contains(address("1.2.3.4")));
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "a/8", "10.0.0.0/", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork), "{text}");
        }
    }
}
