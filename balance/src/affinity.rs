//! Where a session is kept: the value of the cookie that says so ([`Keys`]), and the keys of those that are known
//! again by their address or headers and need no cookie.
//!
//! The value of a cookie names an endpoint by an id that is never used again, and perhaps the replica behind it.
//! Whoever holds it can read that much; it is signed for one balancer, so that nobody makes or moves one. No edge
//! keeps a table. Does not know heads, balancers or what an endpoint is.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::Key;

/// What a cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub endpoint: u128,
    /// The connector that served it, where the balancer keeps sessions there.
    pub replica: Option<u128>,
    /// In seconds since 1970: from this one on it counts no more.
    pub expires: u64,
}

/// What is wrong with the value of a cookie. Whoever sent it gets a new session, whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is none of ours, or of a version that is not known here.
    Unreadable,
    /// It was signed with a key that is not known here any more, for another balancer, or not by us.
    Forged,
    Expired,
}

/// What cookies are signed with. Two are known while the new one has not reached all edges, or the old one is
/// still in cookies.
#[derive(Clone)]
pub struct Keys {
    /// Signs.
    pub current: [u8; Self::LENGTH],
    /// Is believed too.
    pub other: Option<[u8; Self::LENGTH]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    pub const LENGTH: usize = 32;

    /// The value of a cookie that `balancer`, its id, believes: letters, digits, `-` and `_`.
    pub fn sign(&self, balancer: &[u8], session: &Session) -> String {
        let mut bytes = Vec::with_capacity(LONG + TAG);
        bytes.push(if session.replica.is_some() { WITH_REPLICA } else { WITHOUT_REPLICA });
        bytes.extend(session.expires.to_be_bytes());
        bytes.extend(session.endpoint.to_be_bytes());
        bytes.extend(session.replica.map(u128::to_be_bytes).into_iter().flatten());
        let tag = mac(&self.current, balancer, &bytes).finalize().into_bytes();
        bytes.extend(&tag[..TAG]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a cookie says that was sent to `balancer` at `now`, in seconds since 1970.
    pub fn read(&self, balancer: &[u8], value: &[u8], now: u64) -> Result<Session, Refusal> {
        let mut buffer = [0; LONG + TAG];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut buffer).map_err(|_| Refusal::Unreadable)?;
        let bytes = &buffer[..length];
        let (signed, tag) = bytes.split_at_checked(length.wrapping_sub(TAG)).ok_or(Refusal::Unreadable)?;
        let session = Session::read(signed).ok_or(Refusal::Unreadable)?;
        // In constant time.
        let is_of = |key: &[u8]| mac(key, balancer, signed).verify_truncated_left(tag).is_ok();
        if !is_of(&self.current) && !self.other.is_some_and(|key| is_of(&key)) {
            return Err(Refusal::Forged);
        }
        if now >= session.expires {
            return Err(Refusal::Expired);
        }
        Ok(session)
    }
}

impl Session {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let (endpoint, rest) = rest.split_first_chunk()?;
        let replica = match *version {
            WITHOUT_REPLICA if rest.is_empty() => None,
            WITH_REPLICA => Some(u128::from_be_bytes(rest.try_into().ok()?)),
            _ => return None,
        };
        Some(Self {
            endpoint: u128::from_be_bytes(*endpoint),
            replica,
            expires: u64::from_be_bytes(*expires),
        })
    }
}

/// Of what a cookie says, and for whom.
fn mac(key: &[u8], balancer: &[u8], signed: &[u8]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).expect("any length is a key");
    // With its length, so that no id ends in what follows it.
    mac.update(PURPOSE);
    mac.update(&(balancer.len() as u64).to_be_bytes());
    mac.update(balancer);
    mac.update(signed);
    mac
}

/// By what a visitor's address is known again; of IPv6 the first 64 bits, because a visitor changes the others.
pub fn of_address(address: IpAddr) -> Key {
    match address.to_canonical() {
        IpAddr::V4(address) => Key::of(&address.octets()),
        IpAddr::V6(address) => Key::of(&address.octets()[..8]),
    }
}

/// By what the values of some headers are known again, in the order in which the balancer names them. `None` where
/// none of them is there, or not all are that have to be.
pub fn of_headers<'a>(values: impl IntoIterator<Item = Option<&'a [u8]>>, all_required: bool) -> Option<Key> {
    let (mut key, mut is_any) = (Key::of(b""), false);
    for value in values {
        match value {
            Some(value) => {
                // What is missing counts too: a first header is not a second one.
                (key, is_any) = (Key(key.with(Key::of(value).0)), true);
            }
            None if all_required => return None,
            None => key = Key(key.with(0)),
        }
    }
    is_any.then_some(key)
}

const PURPOSE: &[u8] = b"adit load balancer session 1";
/// The first byte: the version, which says too what follows.
const WITHOUT_REPLICA: u8 = 1;
const WITH_REPLICA: u8 = 2;
/// Bytes that are signed at most: the first, when it expires, two ids.
const LONG: usize = 1 + 8 + 16 + 16;
/// Bytes of a signature that are sent.
const TAG: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::selection::tests::cases;

    const KEYS: Keys = Keys { current: [1; 32], other: None };
    const SESSION: Session = Session { endpoint: 7, replica: None, expires: 2000 };

    #[test]
    fn a_cookie_counts_until_it_expires_and_for_its_balancer_alone() {
        let value = KEYS.sign(b"one", &SESSION);
        assert_eq!(KEYS.read(b"one", value.as_bytes(), 1999), Ok(SESSION));
        assert_eq!(KEYS.read(b"one", value.as_bytes(), 2000), Err(Refusal::Expired));
        assert_eq!(KEYS.read(b"two", value.as_bytes(), 1999), Err(Refusal::Forged));
        // Not even for one whose id goes on with what is signed.
        assert_eq!(KEYS.read(b"one\x01", value.as_bytes(), 1999), Err(Refusal::Forged));
    }

    #[test]
    fn a_key_is_exchanged_in_two_steps_without_losing_a_session() {
        let (old, new) = ([1; 32], [2; 32]);
        let steps = [
            Keys { current: old, other: None },
            Keys { current: old, other: Some(new) },
            Keys { current: new, other: Some(old) },
            Keys { current: new, other: None },
        ];
        // An edge that is a step behind, or ahead, believes too.
        for (one, other) in steps.iter().zip(&steps[1..]) {
            for (signs, reads) in [(one, other), (other, one)] {
                let value = signs.sign(b"one", &SESSION);
                assert_eq!(reads.read(b"one", value.as_bytes(), 0), Ok(SESSION));
            }
        }
        let value = steps[0].sign(b"one", &SESSION);
        assert_eq!(steps[3].read(b"one", value.as_bytes(), 0), Err(Refusal::Forged));
        assert_eq!(format!("{:?}", steps[0]), "Keys(..)");
    }

    #[test]
    fn every_version_reads_this_cookie() {
        let value = "AQAAAAAAAAfQAAAAAAAAAAAAAAAAAAAAB";
        assert!(KEYS.sign(b"one", &SESSION).starts_with(&value[..30]), "{}", KEYS.sign(b"one", &SESSION));
    }

    #[test]
    fn who_is_known_by_headers_is_known_by_all_of_them() {
        let key = |values: [Option<&'static str>; 2], all_required| {
            of_headers(values.map(|value| value.map(str::as_bytes)), all_required)
        };
        assert_eq!(key([Some("a"), Some("b")], true), key([Some("a"), Some("b")], false));
        assert_eq!(key([Some("a"), None], true), None);
        assert_eq!(key([None, None], false), None);
        let keys = [[Some("a"), None], [None, Some("a")], [Some("a"), Some("a")], [Some("ab"), None]];
        let keys = keys.map(|values| key(values, false).unwrap().0);
        assert!((0..4).all(|at| keys[at + 1..].iter().all(|other| *other != keys[at])), "{keys:?}");
    }

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn what_was_signed_is_read_and_what_was_changed_is_not(
            endpoint: u128, replica in prop::option::of(any::<u128>()), expires in 1..=u64::MAX,
            balancer in prop::collection::vec(any::<u8>(), 0..40), at: prop::sample::Index, bit in 0..8_u8,
        ) {
            let session = Session { endpoint, replica, expires };
            let value = KEYS.sign(&balancer, &session);
            prop_assert!(value.len() <= 76 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            prop_assert_eq!(KEYS.read(&balancer, value.as_bytes(), expires - 1), Ok(session));
            let mut changed = value.into_bytes();
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            prop_assert!(KEYS.read(&balancer, &changed, 0).is_err());
            prop_assert!(KEYS.read(&balancer, &changed[..at], 0).is_err());
        }

        #[test]
        fn no_bytes_are_a_panic(value in prop::collection::vec(any::<u8>(), 0..120)) {
            prop_assert!(KEYS.read(b"one", &value, 0).is_err());
            prop_assert!(KEYS.read(b"one", URL_SAFE_NO_PAD.encode(&value).as_bytes(), 0).is_err());
        }
    }
}
