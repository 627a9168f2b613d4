//! Times as people write and read them: `2h` ago, 1.23s, 2m 30s.

use std::time::Duration;

use runspan::model::UnixNanos;
pub use runspan::model::words::duration;

/// A moment as a flag gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// A moment of the calendar.
    At(UnixNanos),
    /// So long before now.
    Ago(Duration),
}

impl When {
    /// Returns the moment, given the current one.
    pub fn resolve(self, now: UnixNanos) -> UnixNanos {
        match self {
            Self::At(moment) => moment,
            Self::Ago(ago) => UnixNanos(now.0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))),
        }
    }
}

/// Reads RFC 3339, a date, or `90s`, `15m`, `2h`, `7d`, `2w`.
pub fn parse_when(text: &str) -> Result<When, String> {
    if let Some(moment) = UnixNanos::parse(text).or_else(|| calendar_moment(text)) {
        return Ok(When::At(moment));
    }
    let unit = match text.as_bytes().last() {
        Some(b's') => Some(1),
        Some(b'm') => Some(60),
        Some(b'h') => Some(3_600),
        Some(b'd') => Some(86_400),
        Some(b'w') => Some(604_800),
        _ => None,
    };
    let number =
        unit.and_then(|_| text.get(..text.len() - 1)).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let seconds = unit.zip(number.and_then(|digits| digits.parse::<u64>().ok())).and_then(|(u, n)| n.checked_mul(u));
    seconds.map(|seconds| When::Ago(Duration::from_secs(seconds))).ok_or_else(|| {
        "expected a time such as 2026-01-06T10:00:00Z, a date such as 2026-01-06 (the start of that day in UTC), or how long ago: \
         90s, 15m, 2h, 7d, 2w"
            .to_owned()
    })
}

/// Reads what RFC 3339 has beyond the moments that runs can have, as the nearest of these; and a date as its start in UTC, where
/// days are those of `stats`.
fn calendar_moment(text: &str) -> Option<UnixNanos> {
    // The end of the last year that is written with four digits is beyond what can be reckoned with.
    let (text, is_last) = match text.strip_prefix("9999-") {
        Some(rest) => (format!("9998-{rest}"), true),
        None => (text.to_owned(), false),
    };
    let nanos = match text.parse::<jiff::Timestamp>().or_else(|_| cut_fraction(&text).parse()) {
        Ok(moment) => moment.as_nanosecond(),
        // Digits and dashes alone: other forms of a date are no time.
        Err(_) if text.len() == 10 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()) => {
            let day = text.parse::<jiff::civil::Date>().ok()?;
            day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_nanosecond()
        }
        Err(_) => return None,
    };
    Some(UnixNanos(u64::try_from(nanos.max(0)).ok().filter(|_| !is_last).unwrap_or(u64::MAX)))
}

/// Cuts a fraction of a second to nanoseconds.
fn cut_fraction(text: &str) -> String {
    let Some((begin, rest)) = text.split_once('.') else { return text.to_owned() };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    format!("{begin}.{}{}", &rest[..digits.min(9)], &rest[digits..])
}

/// Formats a length of time that is known in whole milliseconds, rounded down.
pub fn whole_duration(ms: u64) -> String {
    match ms {
        0 => "<1ms".to_owned(),
        1..10 => format!("{ms}ms"),
        _ => duration(ms as f64),
    }
}

/// Formats how long ago something was in one unit: `5s`, `3m`, `2h`, `9d`.
pub fn age(now: UnixNanos, then: UnixNanos) -> String {
    let seconds = now.millis_since(then) / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Formats a moment for a header: `2026-01-06 10:00:00 UTC`.
pub fn calendar(moment: UnixNanos) -> String {
    let text = moment.rfc3339_millis();
    format!("{} {} UTC", text.get(..10).unwrap_or(""), text.get(11..19).unwrap_or(""))
}

/// Formats the time of day: `10:00:00`.
pub fn clock(moment: UnixNanos) -> String {
    moment.rfc3339_millis().get(11..19).unwrap_or("").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_moment_are_read() {
        let now = UnixNanos::parse("2026-01-06T10:00:00Z").unwrap();
        let resolved = |text| parse_when(text).map(|when| when.resolve(now).rfc3339_millis());
        assert_eq!(resolved("90s").unwrap(), "2026-01-06T09:58:30.000Z");
        assert_eq!(resolved("7d").unwrap(), "2025-12-30T10:00:00.000Z");
        assert_eq!(resolved("2026-01-06T11:00:00+01:00").unwrap(), "2026-01-06T10:00:00.000Z");
        let nearest = [
            ("2w", "2025-12-23T10:00:00.000Z"),
            ("2026-01-05", "2026-01-05T00:00:00.000Z"),
            ("2026-01-06T09:00:00.1234567890123+01:00", "2026-01-06T08:00:00.123Z"),
            ("1969-12-31T23:59:59Z", "1970-01-01T00:00:00.000Z"),
            ("1900-01-01", "1970-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59Z", "2554-07-21T23:34:33.709Z"),
        ];
        for (text, expected) in nearest {
            assert_eq!(resolved(text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "2026-13-01",
            "20260105",
            "2026-01-05T10:00",
            "h",
            "-5m",
            "5",
            "yesterday",
            "1.5h",
            "99999999999999999999d",
            "18446744073709551615d",
            "5é",
        ] {
            assert!(parse_when(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_are_short() {
        let shown = [0.04, 7.2, 9.97, 12.9, 999.6, 1_000.0, 1_234.0, 59_996.0, 150_000.0, 3_720_000.0, 90_000_000.0]
            .map(duration);
        assert_eq!(
            shown,
            ["0.0ms", "7.2ms", "10ms", "12ms", "999ms", "1.00s", "1.23s", "1m 00s", "2m 30s", "1h 02m", "1d 01h"]
        );
        assert_eq!([0, 7, 12, 1_234].map(whole_duration), ["<1ms", "7ms", "12ms", "1.23s"]);
    }
}
