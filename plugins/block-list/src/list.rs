//! A list of networks, of any length: a look-up takes as long as twenty comparisons where there are a million.

use std::net::IpAddr;

use settings::network::network;

/// Ranges of addresses, in order and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    ranges: Vec<(u128, u128)>,
    /// As they were written.
    count: usize,
}

impl List {
    /// A network or an address in each line; what follows a `#` or a `;` is a comment.
    ///
    /// # Errors
    /// A line is neither, with its number: half a list is no list.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut ranges = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let written = line.split(['#', ';']).next().unwrap_or_default().trim();
            if written.is_empty() {
                continue;
            }
            let network = network(written).map_err(|message| format!("line {}: {message}", number + 1))?;
            ranges.push((place(network.network()), place(network.broadcast())));
        }
        let count = ranges.len();
        ranges.sort_unstable();
        ranges.dedup_by(|next, before| {
            let overlaps = next.0 <= before.1;
            before.1 = if overlaps { before.1.max(next.1) } else { before.1 };
            overlaps
        });
        Ok(Self { ranges, count })
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = place(address);
        let after = self.ranges.partition_point(|(first, _)| *first <= address);
        after.checked_sub(1).is_some_and(|at| address <= self.ranges[at].1)
    }
}

/// Both families in one line: those of IPv4 lie where IPv6 has them (RFC 4291 section 2.5.5.2).
fn place(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(list: &List, address: &str) -> bool {
        list.contains(settings::network::address(address).unwrap())
    }

    #[test]
    fn a_list_holds_what_is_written_in_it_and_nothing_beside() {
        let text = "# bad\n10.0.0.0/8\n10.1.0.0/16 ; inside of the other\n192.0.2.7 # one\n\n2001:db8::/32\n198.51.100.0/25\r\n198.51.100.128/25\n";
        let list = List::read(text).unwrap();
        assert_eq!((list.len(), list.ranges.len()), (6, 5));
        for inside in
            ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::1", "198.51.100.200", "::ffff:10.2.3.4"]
        {
            assert!(holds(&list, inside), "{inside}");
        }
        for outside in
            ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "2001:db9::", "::a00:1", "0.0.0.0"]
        {
            assert!(!holds(&list, outside), "{outside}");
        }
        assert!(!holds(&List::default(), "10.0.0.1"));
        assert!(holds(&List::read("0.0.0.0/0").unwrap(), "255.255.255.255"));
        assert!(!holds(&List::read("0.0.0.0/0").unwrap(), "2001:db8::1"));
    }

    #[test]
    fn half_a_list_is_none() {
        for (text, place) in
            [("10.0.0.0/8\nexample.com\n", "line 2"), ("<html>", "line 1"), ("10.0.0.1/8", "line 1")]
        {
            let error = List::read(text).unwrap_err();
            assert!(error.starts_with(place), "{error}");
        }
        assert!(List::read("\n# nothing\n").unwrap().is_empty());
    }
}
