//! How often one network is answered: whoever asks more is told to come over TCP now and then, where no address can be
//! made up, and else nothing. Pure, told what time it is.

use std::hash::{BuildHasher, RandomState};
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

/// What each network has left. There are so many buckets and no more, and which of them is a network's nobody knows:
/// whoever makes up networks has to fill them all to take anything from one that it does not know.
pub(crate) struct Rations<S = RandomState> {
    buckets: Box<[Bucket]>,
    began: Instant,
    keyed: S,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f32,
    /// Milliseconds since the beginning.
    at: u32,
    refused: u32,
}

impl Rations {
    pub(crate) fn new(now: Instant) -> Self {
        Self::keyed(now, RandomState::new())
    }
}

impl<S: BuildHasher> Rations<S> {
    fn keyed(now: Instant, keyed: S) -> Self {
        let full = Bucket { left: BURST, at: 0, refused: 0 };
        Self { buckets: vec![full; BUCKETS].into(), began: now, keyed }
    }

    pub(crate) fn take(&mut self, source: IpAddr, now: Instant) -> Ration {
        // It begins anew after seven weeks, when some have a little more once.
        let now = now.duration_since(self.began).as_millis() as u32;
        let at = self.keyed.hash_one(network(source)) as usize % BUCKETS;
        self.buckets[at].take(now)
    }
}

impl Bucket {
    fn take(&mut self, now: u32) -> Ration {
        let since = Duration::from_millis(now.wrapping_sub(self.at).into()).as_secs_f32();
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
const EACH_SECOND: f32 = 200.0;
const BURST: f32 = 400.0;
/// Of those that are not answered each so many gets a word.
const SLIP: u32 = 2;
/// To empty all of them takes 13 million questions a second.
const BUCKETS: usize = 65_536;

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasherDefault, DefaultHasher};

    use super::*;

    /// With a key that everybody knows, so that each run is the same.
    fn rations(now: Instant) -> Rations<BuildHasherDefault<DefaultHasher>> {
        Rations::keyed(now, BuildHasherDefault::default())
    }

    #[test]
    fn who_asks_too_much_takes_nothing_from_other_networks() {
        let now = Instant::now();
        let mut rations = rations(now);
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
    fn networks_that_are_made_up_take_nothing_from_one_that_is_not() {
        let now = Instant::now();
        let mut rations = rations(now);
        let made_up = |number: u32| IpAddr::from((number << 8).to_be_bytes());
        // Four times as many as there are buckets, which once were all that was known.
        for number in 0..4 * BUCKETS as u32 {
            for _ in 0..10 {
                assert_eq!(rations.take(made_up(number), now), Ration::Answer, "{number}");
            }
        }
        let real = ["203.0.113.9", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
        for real in real {
            let answered = (0..200).filter(|_| rations.take(real, now) == Ration::Answer).count();
            assert_eq!(answered, 200, "{real}");
        }
    }
}
