//! Whole numbers as people write them.

use std::num::IntErrorKind;
use std::str::FromStr;

/// Reads a whole number that is not below 0.
pub fn whole<T: FromStr<Err = std::num::ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: std::num::ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => "it is too large".to_owned(),
        _ => "expected a whole number, 0 or more".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_number_is_said_to_be_none() {
        assert_eq!(whole::<u64>("0"), Ok(0));
        for text in ["", "-1", "1.5", "x", "1,000"] {
            assert_eq!(whole::<u64>(text), Err("expected a whole number, 0 or more".to_owned()), "{text}");
        }
        assert_eq!(whole::<u64>("99999999999999999999"), Err("it is too large".to_owned()));
    }
}
