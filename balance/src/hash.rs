//! What two requests that belong together have in common, as a number that is the same on every edge at any time.

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
