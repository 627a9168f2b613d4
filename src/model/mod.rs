//! The nouns: runs, steps, events, ids, money and the OTLP messages that carry them.
//!
//! Nothing here does I/O, so every other module can speak in these types without meeting the others.

pub mod event;
pub mod id;
pub(crate) mod json;
pub mod money;
pub mod otlp;
pub mod outcome;
pub mod record;
pub mod run;
pub mod time;
pub mod wire;

pub use event::{Event, EventBody, EventType};
pub use id::{EventId, RunId, SpanId, TraceId};
pub use money::NanoUsd;
pub use run::{CostSource, ErrorInfo, RunKind, RunStatus, RunSummary, StepKind, StepStatus, StepView, Tokens};
pub use time::UnixNanos;
