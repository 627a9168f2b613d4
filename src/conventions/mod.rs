//! Names, dialects, providers and scrub rules: data that the pipeline reads, no behaviour.
//!
//! - [`names`]: the canonical attribute names, and those that are runspan's own.
//! - [`dialects`]: how each emitter writes the same facts, as tables.
//! - [`providers`]: what providers are called, and under which id the price table has them.
//! - [`scrub_rules`]: what secrets look like, and which keys hold content.
//! - [`units`]: what calls are billed by.
//!
//! A new dialect is a new table and a recorded example, with no new branch in the code.

pub mod dialects;
pub mod names;
pub mod providers;
pub mod scrub_rules;
pub mod units;
