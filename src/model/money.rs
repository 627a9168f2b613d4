//! Money as an integer number of nano-dollars, so that sums are exact.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in billionths of a US dollar.
///
/// Printed as decimal dollars with at most nine decimals. Sums end at [`MAX`](Self::MAX), and so do amounts that are read of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// The largest amount, 9,223,372,036 dollars: whole ones, so that it is the same when it was written as a float and read again.
    pub const MAX: Self = Self(9_223_372_036_000_000_000);

    /// Rounds dollars half-even to the nano-dollar; `None` for what is not a finite amount, or larger than [`MAX`](Self::MAX), or
    /// less than its negative.
    pub fn from_usd(usd: f64) -> Option<Self> {
        let nanos = (usd * 1e9).round_ties_even();
        (nanos.is_finite() && nanos.abs() <= Self::MAX.0 as f64).then_some(Self(nanos as i64))
    }

    /// Returns the amount in dollars as the nearest float, for metrics and attributes.
    pub fn as_usd(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.unsigned_abs() / 1_000_000_000, self.0.unsigned_abs() % 1_000_000_000);
        let digits = format!("{part:09}");
        match digits.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            decimals => write!(f, "{sign}{whole}.{decimals}"),
        }
    }
}

impl Add for NanoUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0).clamp(-Self::MAX.0, Self::MAX.0))
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

impl Serialize for NanoUsd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Integers stay integers: `0` rather than `0.0`.
        if self.0 % 1_000_000_000 == 0 {
            serializer.serialize_i64(self.0 / 1_000_000_000)
        } else {
            serializer.serialize_f64(self.as_usd())
        }
    }
}

impl<'de> Deserialize<'de> for NanoUsd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let usd = f64::deserialize(deserializer)?;
        let most = Self::MAX.as_usd();
        Self::from_usd(usd.clamp(-most, most)).ok_or_else(|| serde::de::Error::custom("not an amount of money"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_half_even_and_printing_is_exact() {
        assert_eq!(NanoUsd::from_usd(0.000_000_000_5), Some(NanoUsd(0)));
        assert_eq!(NanoUsd::from_usd(0.000_000_001_5), Some(NanoUsd(2)));
        assert_eq!(NanoUsd::from_usd(f64::NAN), None);
        assert_eq!(NanoUsd::from_usd(1e300), None);
        assert_eq!(NanoUsd::from_usd(9_223_372_037.0), None);
        let shown: Vec<String> = [NanoUsd(42_000_000), NanoUsd(1), NanoUsd(-1_500_000_000), NanoUsd(2_000_000_000)]
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, ["0.042", "0.000000001", "-1.5", "2"]);
    }

    #[test]
    fn a_sum_of_ten_dimes_is_one_dollar() {
        let dimes = std::iter::repeat_n(NanoUsd(100_000_000), 10);
        assert_eq!(dimes.sum::<NanoUsd>().to_string(), "1");
    }

    #[test]
    fn the_largest_sum_is_the_same_when_it_is_written_and_read() {
        let large = NanoUsd::from_usd(9.2e9).unwrap();
        for sum in
            [large + large, NanoUsd(-large.0) + NanoUsd(-large.0), large + NanoUsd(1), NanoUsd(NanoUsd::MAX.0 - 1)]
        {
            let written = serde_json::to_string(&sum).unwrap();
            let read: NanoUsd = serde_json::from_str(&written).unwrap();
            let again: NanoUsd = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
            assert_eq!(again, read, "{written}");
            assert!(read.0.abs() <= NanoUsd::MAX.0);
        }
        assert_eq!(large + large, NanoUsd::MAX);
        // What was written before there was that bound.
        assert_eq!(serde_json::from_str::<NanoUsd>("9223372036.854776").unwrap(), NanoUsd::MAX);
    }
}
