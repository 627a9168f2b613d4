//! The readers of the journal: the run store, OTLP peers, metrics. Each goes at its own pace.

#[cfg(feature = "forward")]
pub mod forward;
#[cfg(feature = "forward")]
pub mod forwarder;
pub(crate) mod keep;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod store;
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "metrics alone look at what is in a tally"))]
pub(crate) mod tally;
