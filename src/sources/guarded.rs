//! The host's own code that prints its values: `Debug`, `Display` and `Serialize` may panic.
//!
//! Such a panic would pass through the subscriber, and a span that is half made or an event that is half told is left
//! behind: the registry never closes the span, so none above it, and a run that went well looks crashed. A program that
//! is not recorded prints nothing, and must not panic because it is; the panic hook has told of it.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::with_causes;

/// Stands in the place of a value, or behind what was printed of it, whose own code has panicked.
pub(crate) const PANICKED: &str = "[panicked]";

/// Runs code of the host's that prints a value; `None` where it panics.
pub(crate) fn guarded<T>(print: impl FnOnce() -> T) -> Option<T> {
    // What it panicked with may panic when it is dropped.
    catch_unwind(AssertUnwindSafe(print)).map_err(std::mem::forget).ok()
}

/// Prints a value to text; a mark where that panics.
pub(crate) fn printed(print: impl FnOnce() -> String) -> String {
    guarded(print).unwrap_or_else(|| PANICKED.to_owned())
}

/// Says an error of the host's with its causes.
pub(crate) fn said(error: &(impl Error + ?Sized)) -> String {
    printed(|| with_causes(error))
}
