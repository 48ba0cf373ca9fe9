//! How often one network is answered: whoever asks more is told to come over TCP now and then, where no address can be
//! made up, and else nothing. Pure, told what time it is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What becomes of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ration {
    Answer,
    /// Only that there is an answer over TCP.
    Cut,
    Nothing,
}

/// All networks that have asked of late.
pub(crate) struct Rations {
    known: HashMap<u64, Bucket>,
    /// Of all that there is no room for.
    others: Bucket,
    swept: Instant,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
    refused: u32,
}

impl Rations {
    pub(crate) fn new(now: Instant) -> Self {
        Self { known: HashMap::new(), others: Bucket::full(now), swept: now }
    }

    pub(crate) fn take(&mut self, source: IpAddr, now: Instant) -> Ration {
        let network = network(source);
        if self.known.len() >= MOST_NETWORKS && !self.known.contains_key(&network) {
            if now.duration_since(self.swept) >= SWEEP {
                self.swept = now;
                self.known.retain(|_, bucket| now.duration_since(bucket.at) < SWEEP);
            }
            if self.known.len() >= MOST_NETWORKS {
                return self.others.take(now);
            }
        }
        self.known.entry(network).or_insert_with(|| Bucket::full(now)).take(now)
    }
}

impl Bucket {
    fn full(now: Instant) -> Self {
        Self { left: BURST, at: now, refused: 0 }
    }

    fn take(&mut self, now: Instant) -> Ration {
        let since = now.duration_since(self.at).as_secs_f64();
        (self.left, self.at) = ((self.left + since * EACH_SECOND).min(BURST), now);
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ration::Answer;
        }
        self.refused = self.refused.wrapping_add(1);
        if self.refused.is_multiple_of(SLIP) { Ration::Cut } else { Ration::Nothing }
    }
}

/// The first 24 bits of an IPv4 address, or the first 56 of an IPv6 address.
pub(crate) fn network(source: IpAddr) -> u64 {
    match source.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
        // Neither can be the other: no public address of IPv6 begins with zeroes.
        IpAddr::V6(address) => (address.to_bits() >> 72) as u64,
    }
}

/// Answers to one network.
const EACH_SECOND: f64 = 200.0;
const BURST: f64 = 400.0;
/// Of those that are not answered each so many gets a word.
const SLIP: u32 = 2;
const MOST_NETWORKS: usize = 65_536;
const SWEEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_much_takes_nothing_from_other_networks() {
        let now = Instant::now();
        let mut rations = Rations::new(now);
        let [loud, neighbour, quiet] =
            ["192.0.2.1", "192.0.2.200", "198.51.100.1"].map(|text| text.parse::<IpAddr>().unwrap());
        let answered = (0..1000).filter(|_| rations.take(loud, now) == Ration::Answer).count();
        assert_eq!(answered, BURST as usize);
        assert_ne!(rations.take(neighbour, now), Ration::Answer, "the same network");
        let cut = (0..100).filter(|_| rations.take(loud, now) == Ration::Cut).count();
        assert_eq!(cut, 50);
        assert_eq!(rations.take(quiet, now), Ration::Answer);
        let later = now + Duration::from_secs(1);
        let answered = (0..1000).filter(|_| rations.take(loud, later) == Ration::Answer).count();
        assert_eq!(answered, EACH_SECOND as usize);
    }

    #[test]
    fn made_up_networks_take_no_memory_without_end_and_share_what_is_left() {
        let now = Instant::now();
        let mut rations = Rations::new(now);
        let made_up = |number: u32| IpAddr::from((number << 8).to_be_bytes());
        for number in 0..MOST_NETWORKS as u32 {
            assert_eq!(rations.take(made_up(number), now), Ration::Answer);
        }
        let more = (0..1000).map(|more| rations.take(made_up(MOST_NETWORKS as u32 + more), now));
        assert_eq!(more.filter(|ration| *ration == Ration::Answer).count(), BURST as usize);
        assert_eq!(rations.take(made_up(1), now), Ration::Answer, "who was known before");
        assert_eq!(rations.known.len(), MOST_NETWORKS);
        rations.take(made_up(u32::MAX >> 8), now + SWEEP);
        assert!(rations.known.len() < MOST_NETWORKS);
    }
}
