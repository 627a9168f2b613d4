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
        Self::parse_digits(text).or_else(|| {
            let timestamp: jiff::Timestamp = text.parse().ok()?;
            u64::try_from(timestamp.as_nanosecond()).ok().map(Self)
        })
    }

    /// Reads what [`Self::digits`] writes, which is most of what is read.
    fn parse_digits(text: &str) -> Option<Self> {
        let text: &[u8; 30] = text.as_bytes().try_into().ok()?;
        let number = |place: std::ops::Range<usize>| {
            text[place].iter().fold(0, |number, digit| number * 10 + u64::from(digit.wrapping_sub(b'0')))
        };
        let (year, month, day) = (number(0..4), number(5..7), number(8..10));
        // The way back, of the same author: days_from_civil.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
        let (era, year_of_era) = (year / 400, year % 400);
        let of_year = ((153 * month + 2) / 5 + day).checked_sub(1)?;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        let days = (era * 146_097 + of_era).checked_sub(719_468)?;
        let seconds = ((days * 24 + number(11..13)) * 60 + number(14..16)) * 60 + number(17..19);
        let time = Self(seconds.checked_mul(1_000_000_000)?.checked_add(number(20..29))?);
        // What is no day, no digit or no hour is written in another way.
        (time.digits() == *text).then_some(time)
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
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = UnixNanos;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<UnixNanos, E> {
                UnixNanos::parse(text).ok_or_else(|| E::custom(format_args!("not an RFC 3339 time: {text:?}")))
            }
        }
        deserializer.deserialize_str(Text)
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
    use proptest::prelude::*;

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
        // As written here, and of no moment.
        for wrong in
            ["2026-02-29T00:00:00.000000000Z", "2026-13-01T00:00:00.000000000Z", "2026-01-06T24:00:00.000000000Z"]
        {
            assert_eq!(UnixNanos::parse(wrong), None, "{wrong}");
        }
        assert_eq!(UnixNanos(u64::MAX).rfc3339_millis(), "2554-07-21T23:34:33.709Z");
    }

    proptest! {
        #[test]
        fn any_moment_is_read_as_the_calendar_has_it(nanos in any::<u64>()) {
            let text = UnixNanos(nanos).rfc3339_nanos();
            let calendar: jiff::Timestamp = text.parse().unwrap();
            prop_assert_eq!(UnixNanos::parse_digits(&text), Some(UnixNanos(nanos)));
            prop_assert_eq!(calendar.as_nanosecond(), i128::from(nanos));
        }

        #[test]
        fn digits_that_are_no_moment_are_left_to_the_calendar(
            nanos in any::<u64>(), at in 0..30_usize, byte in proptest::char::range(' ', '~'),
        ) {
            let mut text = UnixNanos(nanos).rfc3339_nanos();
            text.replace_range(at..=at, &byte.to_string());
            let calendar = text.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_nanosecond()).ok());
            prop_assert_eq!(UnixNanos::parse(&text), calendar.map(UnixNanos), "{}", text);
        }
    }
}
