//! The nouns: runs, steps, events, ids, money and the OTLP messages that carry them.
//!
//! Nothing here does I/O, so every other module can speak in these types without meeting the others.

pub mod budget;
pub(crate) mod digest;
pub mod event;
pub mod id;
pub(crate) mod json;
pub mod json_text;
pub(crate) mod key_filter;
pub mod money;
pub mod otlp;
pub mod outcome;
pub(crate) mod recent;
pub mod record;
pub mod run;
pub mod schema;
pub(crate) mod span_wire;
pub mod time;
pub mod unknown;
pub mod wire;
pub mod words;

pub use event::{Event, EventBody, EventType};
pub use id::{EventId, RunId, SpanId, TraceId};
pub use money::NanoUsd;
pub use run::{CostSource, ErrorInfo, RunKind, RunStatus, RunSummary, StepKind, StepStatus, StepView, Tokens};
pub use time::UnixNanos;

/// Returns bytes as text, two lowercase hex digits a byte: ids, digests.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
