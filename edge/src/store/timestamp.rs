//! A point in time as records and the control API write it: RFC 3339 with microseconds, UTC.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Timestamp(u64);

impl Timestamp {
    pub(crate) fn now() -> Self {
        SystemTime::now().into()
    }

    pub(crate) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long it is from `earlier` to this one; nothing if it is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Reads RFC 3339, with `Z` or an offset in hours and minutes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let at = |text: &str| humantime::parse_rfc3339_weak(text).ok().map(Self::from);
        if let Some(moment) = text.ends_with('Z').then(|| at(text)).flatten() {
            return Some(moment);
        }
        let (local, offset) =
            text.is_ascii().then(|| text.split_at_checked(text.len().checked_sub(6)?)).flatten()?;
        let (sign, offset) = offset.split_at(1);
        let (hours, minutes) = offset.split_once(':')?;
        let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        let offset = (hours * 60 + minutes) * 60_000_000;
        let Self(local) = at(&format!("{local}Z"))?;
        match sign {
            "+" => local.checked_sub(offset).map(Self),
            "-" => local.checked_add(offset).map(Self),
            _ => None,
        }
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX)).min(LATEST)
    }
}

impl From<Timestamp> for SystemTime {
    fn from(moment: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_micros(moment.min(LATEST).0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_rfc3339_micros((*self).into()).fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("not an RFC 3339 time"))
    }
}

/// The end of the year 9999: RFC 3339 has four digits for years.
const LATEST: Timestamp = Timestamp(253_402_300_799_999_999);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_its_text_and_offsets_count() {
        let now = Timestamp::now();
        assert_eq!(Timestamp::parse(&now.to_string()), Some(now));
        for (text, same) in [
            ("2026-11-22T12:00:00+02:00", Some("2026-11-22T10:00:00Z")),
            ("2026-11-22T08:30:00-01:30", Some("2026-11-22T10:00:00Z")),
            ("2026-11-22T10:00:00.5Z", Some("2026-11-22T10:00:00.500000Z")),
            ("2026-11-22", None),
            ("2026-11-22T10:00:00", None),
            ("2026-11-22T10:00:00+99:00", None),
            ("\u{e9}\u{e9}\u{e9}\u{e9}", None),
            ("", None),
        ] {
            assert_eq!(Timestamp::parse(text), same.and_then(Timestamp::parse), "{text}");
        }
        assert_eq!(LATEST.after(Duration::MAX).to_string(), LATEST.to_string());
    }
}
