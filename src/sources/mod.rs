//! Where records come from.

pub(crate) mod budgets;
pub mod context;
pub(crate) mod desk;
pub mod encode;
pub(crate) mod foreign;
pub mod fork;
pub(crate) mod guarded;
pub mod layer;
pub(crate) mod log_step;
#[cfg(feature = "otel-sdk")]
pub mod otel;
#[cfg(feature = "server")]
pub mod otlp;
pub mod recorder;
pub mod ring;
