//! Money as an integer number of nano-dollars, so that sums are exact.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in billionths of a US dollar.
///
/// Printed as decimal dollars with at most nine decimals. Sums saturate instead of wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// Rounds dollars half-even to the nano-dollar; `None` for what is not a finite, representable amount.
    pub fn from_usd(usd: f64) -> Option<Self> {
        let nanos = (usd * 1e9).round_ties_even();
        // 2^63 as f64 is exact; anything at or past it does not fit.
        (nanos.is_finite() && nanos.abs() < 9_223_372_036_854_775_808.0).then_some(Self(nanos as i64))
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
        Self(self.0.saturating_add(other.0))
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
        Self::from_usd(usd).ok_or_else(|| serde::de::Error::custom("not an amount of money"))
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
}
