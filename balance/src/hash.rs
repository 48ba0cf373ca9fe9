//! What two requests that belong together have in common, as a number that is the same on every edge at any time.

use crate::unit;

/// A hash of what makes requests belong together, or of an endpoint's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(pub u64);

impl Key {
    /// FNV-1a, and MurmurHash3's last step, so that keys that differ little lie far apart.
    pub fn of(bytes: &[u8]) -> Self {
        let hash = bytes.iter().take(LONGEST).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mixed(hash))
    }

    /// The same for another hash beside it.
    pub fn with(self, other: u64) -> u64 {
        mixed(self.0 ^ other.rotate_left(32))
    }
}

/// What an endpoint of a weight above 0 bids for whom `hash` is of, if that is more than `highest`: weighted
/// rendezvous hashing, -w/ln(u).
pub(crate) fn bid(weight: f64, hash: u64, highest: f64) -> Option<f64> {
    let chance = unit(hash);
    // The logarithm is what costs, and -ln(u) is no less than 1-u: most are outbid without it.
    if weight <= highest * (1.0 - chance) {
        return None;
    }
    let bid = -weight / chance.max(f64::MIN_POSITIVE).ln();
    (bid > highest).then_some(bid)
}

fn mixed(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Bytes of a value that count; a longer one is as good as its beginning.
const LONGEST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_outbid_without_a_logarithm_would_be_outbid_with_it() {
        let mut hash = 1_u64;
        for turn in 0..20_000_u32 {
            hash = mixed(hash.wrapping_add(0x9e37_79b9_7f4a_7c15));
            // The largest too, of which nothing is left beside 1.
            let hash = if turn == 0 { u64::MAX } else { hash };
            let bid = bid(f64::from(turn % 100 + 1), hash, 0.0).unwrap();
            assert!(bid > 0.0 && bid.is_finite());
            for highest in [bid * 0.999_999, bid * 1.000_001] {
                let again = super::bid(f64::from(turn % 100 + 1), hash, highest);
                assert_eq!(again, (bid > highest).then_some(bid));
            }
        }
    }

    #[test]
    fn only_the_beginning_of_a_huge_value_counts() {
        let mut value = vec![b'x'; LONGEST];
        let short = Key::of(&value);
        value.push(b'y');
        assert_eq!(Key::of(&value), short);
        assert_ne!(Key::of(&value[1..LONGEST]), short);
    }

    #[test]
    fn every_edge_and_every_version_hashes_alike() {
        assert_eq!(Key::of(b"visitor").0, 0xf0ad_79c6_635d_f74a);
        assert_eq!(Key::of(b"visitor").with(7), 0x0e18_9c62_7a15_ef96);
    }
}
