//! What sources hand to the pipeline: a span that started, an event in it, or a span that ended.

use std::sync::Arc;

use super::otlp::{Resource, Scope, Span};

/// Which moment of a span a record tells. The number is the journal's frame kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// The span began; it has no end time and the attributes known so far.
    Started = 1,
    /// The span carries ids, name and one event.
    Event = 2,
    /// The whole span.
    Ended = 3,
}

impl RecordKind {
    /// Reads a frame kind.
    pub fn from_u8(kind: u8) -> Option<Self> {
        match kind {
            1 => Some(Self::Started),
            2 => Some(Self::Event),
            3 => Some(Self::Ended),
            _ => None,
        }
    }
}

/// One record on its way through the pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Which moment this is.
    pub kind: RecordKind,
    /// Who made the span.
    pub resource: Arc<Resource>,
    /// Which code made it.
    pub scope: Scope,
    /// The span, as far as it is known.
    pub span: Span,
}
