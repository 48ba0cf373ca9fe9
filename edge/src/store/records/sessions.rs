//! What the cookies of load balancers are signed with. Made by the edge itself, and exchanged by it.

use std::fmt;
use std::time::Duration;

use adit_balance::affinity::Keys;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::store::timestamp::Timestamp;

/// The keys of all load balancers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SessionKeys {
    current: SessionKey,
    /// The one before, as long as a cookie may be signed with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other: Option<SessionKey>,
    made_at: Timestamp,
}

#[derive(Clone)]
struct SessionKey([u8; Keys::LENGTH]);

impl SessionKeys {
    /// The first ones. `None` where the system has no chance to give.
    pub(crate) fn new(now: Timestamp) -> Option<Self> {
        Some(Self { current: SessionKey::new()?, other: None, made_at: now })
    }

    /// Those that come after these, if it is time.
    pub(crate) fn next(&self, now: Timestamp) -> Option<Self> {
        if now.since(self.made_at) < EXCHANGED {
            return None;
        }
        Some(Self { current: SessionKey::new()?, other: Some(self.current.clone()), made_at: now })
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys { current: self.current.0, other: self.other.as_ref().map(|key| key.0) }
    }
}

impl SessionKey {
    fn new() -> Option<Self> {
        let mut bytes = [0; Keys::LENGTH];
        getrandom::fill(&mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

impl Serialize for SessionKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for SessionKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| de::Error::custom("not a key of sessions"))
    }
}

/// After so long there is a new key; longer than any cookie counts, so that two are enough.
const EXCHANGED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::{from_json, to_json};

    #[test]
    fn keys_are_exchanged_each_month_and_the_old_one_stays_for_its_cookies() {
        let began = Timestamp::now();
        let first = SessionKeys::new(began).unwrap();
        let read: SessionKeys = from_json(&to_json(&first)).unwrap();
        assert_eq!(read.keys().current, first.keys().current);
        let at = |after: Duration| Timestamp::from(std::time::SystemTime::from(began) + after);
        assert!(first.next(at(EXCHANGED - Duration::from_secs(1))).is_none());
        let second = first.next(at(EXCHANGED)).unwrap();
        assert_eq!(second.keys().other, Some(first.keys().current));
        assert_ne!(second.keys().current, first.keys().current);
        assert!(!format!("{second:?}").contains(&STANDARD.encode(second.keys().current)));
    }
}
