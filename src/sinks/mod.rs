//! The readers of the journal: the run store, OTLP peers, metrics. Each goes at its own pace.

#[cfg(feature = "forward")]
pub mod forward;
#[cfg(feature = "forward")]
pub mod forwarder;
pub(crate) mod keep;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod store;
