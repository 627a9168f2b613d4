//! Moments in time: nanoseconds since the Unix epoch inside, RFC 3339 in UTC outside.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
        let mut text = self.digits();
        text.copy_within(29..30, 23);
        String::from_utf8_lossy(&text[..24]).into_owned()
    }

    /// Formats with nanoseconds: `2026-01-06T10:00:00.000000000Z`.
    pub fn rfc3339_nanos(self) -> String {
        String::from_utf8_lossy(&self.digits()).into_owned()
    }

    /// Appends the moment with nanoseconds as JSON text.
    pub(crate) fn write_quoted(self, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(&self.digits());
        out.push(b'"');
    }

    /// Returns the text with nanoseconds. Every event has such a time, so the general formatter is not asked.
    fn digits(self) -> [u8; 30] {
        let (seconds, nanos) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Days to a date of the Gregorian calendar, counted in eras of 400 years from 0000-03-01: the method of
        // https://howardhinnant.github.io/date_algorithms.html#civil_from_days for days that are never negative.
        let day = days + 719_468;
        let (era, of_era) = (day / 146_097, day % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        let mut put = |place: std::ops::Range<usize>, mut value: u64| {
            for digit in text[place].iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0..4, year);
        put(5..7, month);
        put(8..10, day);
        put(11..13, second / 3_600);
        put(14..16, second / 60 % 60);
        put(17..19, second % 60);
        put(20..29, nanos);
        text
    }

    /// Parses RFC 3339 with any number of fraction digits and any offset.
    pub fn parse(text: &str) -> Option<Self> {
        let timestamp: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(timestamp.as_nanosecond()).ok().map(Self)
    }
}

/// Reads a length of time as people write it: `500ms`, `30s`, `1.5m`, `2h`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
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

    proptest::proptest! {
        #[test]
        fn every_moment_is_written_as_the_calendar_library_writes_it(nanos in proptest::prelude::any::<u64>(), day in 0u64..213_503) {
            for moment in [nanos, day * 86_400_000_000_000, (day + 1) * 86_400_000_000_000 - 1] {
                let theirs = jiff::Timestamp::from_nanosecond(i128::from(moment)).unwrap();
                proptest::prop_assert_eq!(UnixNanos(moment).rfc3339_nanos(), format!("{theirs:.9}"));
                proptest::prop_assert_eq!(UnixNanos(moment).rfc3339_millis(), format!("{theirs:.3}"));
            }
        }
    }

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
