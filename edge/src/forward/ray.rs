//! Request ids in the form of Cf-Ray: 16 hexadecimal digits and a location code. Knows how to make
//! them unlike each other; does not know requests.

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use uuid::Uuid;

/// The id of one request. It crosses to the origin, comes back to the visitor and stands in logs.
#[derive(Debug, Clone)]
pub(crate) struct Ray(HeaderValue);

impl Ray {
    /// Of a request that another node has begun, as it says.
    pub(crate) fn of(said: Option<&HeaderValue>) -> Self {
        Self(said.cloned().unwrap_or_else(|| HeaderValue::from_static("")))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// Makes rays: a counter from a random start, mixed so that neighbours look nothing alike. The mixing
/// is a bijection, so that one source repeats itself only after 2^64 rays.
pub(crate) struct Rays {
    next: AtomicU64,
    location: String,
}

impl Rays {
    /// `place` names where the edge is; its first three letters or digits become the location code.
    pub(crate) fn new(place: &str) -> Self {
        let letters = place.chars().filter(char::is_ascii_alphanumeric).take(3);
        let location = letters.collect::<String>().to_ascii_uppercase();
        let (start, _) = Uuid::new_v4().as_u64_pair();
        Self { next: AtomicU64::new(start), location }
    }

    pub(crate) fn next(&self) -> Ray {
        let number = mix(self.next.fetch_add(INCREMENT, Ordering::Relaxed));
        let text = format!("{number:016x}-{}", self.location);
        Ray(HeaderValue::try_from(text).expect("hexadecimal digits and letters are a header value"))
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_ray_is_sixteen_hexadecimal_digits_and_a_location() {
        for (place, location) in [("west-1", "WES"), ("a-b", "AB"), ("EU_1", "EU1")] {
            let ray = Rays::new(place).next();
            let (number, code) = ray.as_str().split_once('-').unwrap();
            assert_eq!(number.len(), 16);
            assert!(u64::from_str_radix(number, 16).is_ok());
            assert_eq!(code, location);
        }
    }

    #[test]
    fn no_two_requests_share_a_ray() {
        let rays = Rays::new("west");
        let seen: HashSet<_> = (0..10_000).map(|_| rays.next().as_str().to_owned()).collect();
        assert_eq!(seen.len(), 10_000);
    }
}
