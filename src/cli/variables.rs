//! Settings in the environment: they stand for the flags that are not given, and empty means unset, as everywhere in
//! OpenTelemetry.

use super::{CODE_USE, Stop};

/// What is said where no value is known, by variable.
pub const CONTENT: Variable = Variable("RUNSPAN_CONTENT", "one of none, redacted, full");
pub const DURABILITY: Variable = Variable("RUNSPAN_DURABILITY", "one of power, process");
pub const FORWARD_KEEP: Variable =
    Variable("RUNSPAN_FORWARD_KEEP", "all, or some of errors, cost>USD, slow>TIME, ratio=0.1");

/// A variable, and what it may say.
#[derive(Clone, Copy, Debug)]
pub struct Variable(pub &'static str, pub &'static str);

impl Variable {
    /// Reads what the variable says, if anything, or says what is wrong with it.
    pub fn read<T: std::str::FromStr>(self) -> Result<Option<T>, String> {
        let Self(name, expected) = self;
        let Some(value) = text(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| format!("{name}: {value:?} is not {expected}"))
    }

    /// Returns what a flag gives, else what the variable says; what is wrong there is wrong use of the command.
    pub fn unless_given<T: std::str::FromStr>(self, given: Option<T>) -> Result<Option<T>, Stop> {
        if given.is_some() { Ok(given) } else { self.read().map_err(|why| Stop::failed(CODE_USE, why)) }
    }
}

/// Returns what a variable says, without spaces around it; `None` where it is empty.
pub fn text(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    Some(value.to_string_lossy().trim().to_owned()).filter(|value| !value.is_empty())
}

/// Tells whether the environment says that nothing is to be recorded.
pub fn is_switched_off() -> bool {
    let is_true = |name: &str| text(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    is_true("RUNSPAN_DISABLED") || is_true("OTEL_SDK_DISABLED") || text("RUNSPAN_DISABLED").as_deref() == Some("1")
}
