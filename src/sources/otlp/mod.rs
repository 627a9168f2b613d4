//! The receiver's side of OTLP: the body of an export request, span by span.
//!
//! What a request holds is counted on its bytes before anything is made of it, and each span is decoded by itself: one
//! that is broken costs itself, and the answer says so. Numbers that are too large for one span cut that span, with a
//! count of what is missing where OTLP has one.

mod json;
mod logs;
mod metrics;
mod protobuf;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use metrics::metrics_as_protobuf;

use crate::model::otlp::{Resource, Scope, Span};
use crate::model::record::{Record, RecordKind};
use crate::model::{SpanId, TraceId};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`, and gRPC.
    Protobuf,
    /// `application/json`.
    Json,
}

/// What a request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Records of logs.
    Logs,
}

/// What one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Spans of a request; one with more is refused whole.
    pub spans: usize,
    /// Attributes of a span, and of each of its events and links; the rest are left out and counted.
    pub attributes: usize,
    /// Events of a span; the rest are left out and counted.
    pub events: usize,
    /// Links of a span; the rest are left out and counted.
    pub links: usize,
    /// Values that a span's attributes may hold, those in lists and maps too; a span with more is rejected.
    pub values: usize,
    /// Bytes of one span, as protobuf; a larger one is rejected.
    pub span_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { spans: 65_536, attributes: 4_096, events: 4_096, links: 1_024, values: 262_144, span_bytes: 12 << 20 }
    }
}

/// What came of a request's body.
#[derive(Debug, Default)]
pub struct Received {
    /// Its good spans, in the sender's order.
    pub records: Vec<Record>,
    /// Its broken ones.
    pub rejected: Rejected,
    /// Records of logs that tell nothing of GenAI, or not of what.
    pub not_kept: u64,
    /// Records that tell the end of a call of which another record of the request may have the span.
    unplaced: Vec<logs::Unplaced>,
    /// The beginnings of such calls.
    begun: Vec<logs::Begun>,
    /// What the sender should know of although nothing was lost by it.
    pub warnings: Vec<String>,
}

/// Spans that cannot be taken, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// How many, by the reason as the contract has it.
    pub by_reason: BTreeMap<&'static str, u64>,
    /// The first one, for the sender: which span, which field, and what is wrong.
    pub first: Option<String>,
    /// They are records of logs and not spans.
    pub of_logs: bool,
}

impl Rejected {
    /// Returns how many there are.
    pub fn count(&self) -> u64 {
        self.by_reason.values().sum()
    }

    fn add(&mut self, place: usize, reason: &'static str, why: &str) {
        *self.by_reason.entry(reason).or_default() += 1;
        let what = if self.of_logs { "record" } else { "span" };
        self.first.get_or_insert_with(|| format!("{what} {place} of the request: {why}"));
    }
}

/// Why nothing of a body can be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadBody {
    /// It is not what it says it is.
    Malformed {
        /// What is wrong, and where.
        why: String,
    },
    /// It holds more spans than one request may.
    TooManySpans {
        /// At least so many.
        found: usize,
        /// The bound.
        max: usize,
    },
}

impl fmt::Display for BadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { why } => f.write_str(why),
            Self::TooManySpans { found, max } => {
                write!(f, "the request holds {found} spans or more, and one may hold {max}: send smaller batches")
            }
        }
    }
}

/// Decodes the body of an export request.
///
/// # Errors
///
/// [`BadBody`], and then nothing of it was taken. An empty body is an empty request.
pub fn received(body: &[u8], signal: Signal, encoding: Encoding, limits: &Limits) -> Result<Received, BadBody> {
    match encoding {
        Encoding::Protobuf => protobuf::received(body, signal, limits),
        Encoding::Json => json::received(body, signal, limits),
    }
}

/// Decodes the body of a trace export request.
///
/// # Errors
///
/// As [`received`].
pub fn traces(body: &[u8], encoding: Encoding, limits: &Limits) -> Result<Received, BadBody> {
    received(body, Signal::Traces, encoding, limits)
}

impl Received {
    /// Takes a span whose ids are ids, and rejects any other.
    fn take(&mut self, place: usize, resource: &Arc<Resource>, scope: &Scope, mut span: Span) {
        if TraceId::from_bytes(&span.trace_id).is_none() {
            let why = bad_id("trace_id", &span.trace_id, 16);
            return self.rejected.add(place, "bad_id", &why);
        }
        if SpanId::from_bytes(&span.span_id).is_none() {
            let why = bad_id("span_id", &span.span_id, 8);
            return self.rejected.add(place, "bad_id", &why);
        }
        if span.parent_span_id.iter().all(|byte| *byte == 0) {
            // Some senders write a root's missing parent as zeros.
            span.parent_span_id.clear();
        } else if span.parent_span_id.len() != 8 {
            let why = bad_id("parent_span_id", &span.parent_span_id, 8);
            return self.rejected.add(place, "bad_id", &why);
        }
        // A span that was exported is over, whatever its clock says; 0 would make it one that is open.
        span.end_time_unix_nano = span.end_time_unix_nano.max(span.start_time_unix_nano).max(1);
        let record = Record { kind: RecordKind::Ended, resource: Arc::clone(resource), scope: scope.clone(), span };
        self.records.push(record);
    }
}

fn bad_id(field: &str, id: &[u8], bytes: usize) -> String {
    if id.len() == bytes {
        format!("{field} is all zeros")
    } else {
        format!("{field} has {} bytes and not {bytes}", id.len())
    }
}
