//! Moments in time: nanoseconds since the Unix epoch inside, RFC 3339 in UTC outside.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, in nanoseconds since 1970-01-01T00:00:00Z.
///
/// Serialized as RFC 3339 with nine digits, as in `events.jsonl`; [`UnixNanos::rfc3339_millis`] is the form of
/// `run.yaml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// Returns the current wall-clock time; 0 if the clock stands before 1970.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Returns whole milliseconds since the epoch.
    pub fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Makes a moment from milliseconds since the epoch.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Returns the milliseconds from `earlier` to this moment, 0 when it lies after it.
    pub fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }

    /// Formats with milliseconds: `2026-01-06T10:00:00.000Z`.
    pub fn rfc3339_millis(self) -> String {
        format!("{:.3}", self.timestamp())
    }

    /// Formats with nanoseconds: `2026-01-06T10:00:00.000000000Z`.
    pub fn rfc3339_nanos(self) -> String {
        format!("{:.9}", self.timestamp())
    }

    /// Parses RFC 3339 with any number of fraction digits and any offset.
    pub fn parse(text: &str) -> Option<Self> {
        let timestamp: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(timestamp.as_nanosecond()).ok().map(Self)
    }

    fn timestamp(self) -> jiff::Timestamp {
        // u64 nanoseconds end in the year 2554, inside jiff's range.
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl fmt::Display for UnixNanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339_nanos())
    }
}

impl Serialize for UnixNanos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixNanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format_args!("not an RFC 3339 time: {text:?}")))
    }
}

/// Serializes a [`UnixNanos`] with milliseconds, for `run.yaml` and `index.log`.
pub mod millis {
    use super::UnixNanos;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes `2026-01-06T10:00:00.000Z`.
    pub fn serialize<S: Serializer>(time: &UnixNanos, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.rfc3339_millis())
    }

    /// Reads any RFC 3339 time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UnixNanos, D::Error> {
        UnixNanos::deserialize(deserializer)
    }

    /// The same for a time that may be missing.
    pub mod option {
        use super::super::UnixNanos;
        use serde::{Deserialize, Deserializer, Serializer};

        /// Writes the time or `null`.
        pub fn serialize<S: Serializer>(time: &Option<UnixNanos>, serializer: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => serializer.serialize_str(&time.rfc3339_millis()),
                None => serializer.serialize_none(),
            }
        }

        /// Reads any RFC 3339 time or `null`.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UnixNanos>, D::Error> {
            Option::<UnixNanos>::deserialize(deserializer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_fixed_width_and_parse_back() {
        let time = UnixNanos(1_767_693_600_000_000_001);
        assert_eq!(time.rfc3339_millis(), "2026-01-06T10:00:00.000Z");
        assert_eq!(time.rfc3339_nanos(), "2026-01-06T10:00:00.000000001Z");
        assert_eq!(UnixNanos::parse(&time.rfc3339_nanos()), Some(time));
        assert_eq!(UnixNanos::parse("2026-01-06T11:00:00+01:00").map(UnixNanos::millis), Some(1_767_693_600_000));
        assert_eq!(UnixNanos::parse("yesterday"), None);
        assert_eq!(UnixNanos(u64::MAX).rfc3339_millis(), "2554-07-21T23:34:33.709Z");
    }
}
