//! Where records come from.

pub mod context;
pub mod encode;
pub(crate) mod foreign;
pub mod fork;
pub mod layer;
#[cfg(feature = "otel-sdk")]
pub mod otel;
pub mod recorder;
pub mod ring;
