//! The same ids as an installed `tracing-opentelemetry`.
//!
//! Its ids cannot be given to it, so ours are read from it, when a span is first entered: earlier would settle its
//! parent before the program could set one. What it does not tell, the parent in another process above all, and the
//! ids of a span that it closed before we looked, our own `SpanProcessor` has seen: where both record in one process,
//! it leaves [`Notes`] for the layer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::dispatcher::WeakDispatch;
use tracing::span::Id;

use crate::model::{RunId, SpanId, TraceId, UnixNanos};

/// Most spans noted at once: a program that never ends its spans must not grow by it.
#[cfg(feature = "otel-sdk")]
const MAX_NOTES: usize = 65_536;
/// Longest time between the two layers' looks at the clock for one new span.
const NEAR_NANOS: u64 = 50_000_000;

/// Ids that another recorder of the same spans has given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForeignIds {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// W3C trace flags.
    pub flags: u8,
    /// What the processor knows beyond the ids, when it is beside.
    pub note: Option<Note>,
}

/// What the processor knows of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// The span above, wherever that is.
    pub parent: Option<SpanId>,
    /// No span of this process is above.
    pub is_local_root: bool,
    /// The run, as far as it is known.
    pub run_id: Option<RunId>,
}

/// The last span that ended on a thread.
#[derive(Clone, Copy, Debug)]
struct JustEnded {
    ids: ForeignIds,
    name: u64,
    start: UnixNanos,
}

thread_local! {
    static JUST_ENDED: std::cell::Cell<Option<JustEnded>> = const { std::cell::Cell::new(None) };
}

/// What the processor leaves for the layer. Nothing is kept unless there is a layer.
#[cfg_attr(
    not(all(feature = "otel-sdk", feature = "tracing-opentelemetry")),
    allow(dead_code, reason = "one feature writes the notes, the other reads them")
)]
#[derive(Debug, Default)]
pub(crate) struct Notes {
    wanted: AtomicBool,
    open: Mutex<HashMap<SpanId, Note>>,
}

#[cfg_attr(
    not(all(feature = "otel-sdk", feature = "tracing-opentelemetry")),
    allow(dead_code, reason = "one feature writes the notes, the other reads them")
)]
impl Notes {
    /// Says that there is a layer.
    pub fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    fn get(&self, span: SpanId) -> Option<Note> {
        if !self.are_wanted() {
            return None;
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&span).copied()
    }

    /// Notes a span that started.
    #[cfg(feature = "otel-sdk")]
    pub fn started(&self, span: SpanId, mut note: Note) {
        if !self.are_wanted() {
            return;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if note.run_id.is_none() {
            note.run_id = note.parent.and_then(|parent| open.get(&parent)?.run_id);
        }
        if open.len() < MAX_NOTES {
            open.insert(span, note);
        }
    }

    /// Notes that a span ended: a layer that comes after `tracing-opentelemetry` closes the same span next.
    #[cfg(feature = "otel-sdk")]
    pub fn ended(&self, trace_id: TraceId, span_id: SpanId, flags: u8, name: &str, start: UnixNanos) {
        if !self.are_wanted() {
            return;
        }
        let note = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&span_id);
        let ids = ForeignIds { trace_id, span_id, flags, note };
        let _ = JUST_ENDED.try_with(|cell| cell.set(Some(JustEnded { ids, name: hash(name), start })));
    }

    /// Returns the ids of the span that ended on this thread just now, if it is the one that is meant.
    pub fn just_ended(&self, name: &str, start: UnixNanos) -> Option<ForeignIds> {
        let ended = JUST_ENDED.try_with(std::cell::Cell::get).ok()??;
        let near = ended.start.0.abs_diff(start.0) <= NEAR_NANOS;
        (near && ended.name == hash(name)).then_some(ended.ids)
    }

    /// Says that the layer has closed the span that ended last.
    pub fn forget_just_ended(&self) {
        let _ = JUST_ENDED.try_with(|cell| cell.set(None));
    }
}

fn hash(name: &str) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(name)
}

/// Returns the ids that the other layer gave to a span; `None` without one.
#[cfg(feature = "tracing-opentelemetry")]
pub(super) fn ids(dispatch: Option<&WeakDispatch>, notes: &Notes, id: &Id) -> Option<ForeignIds> {
    use opentelemetry::trace::TraceContextExt;

    let context = tracing_opentelemetry::get_otel_context(id, &dispatch?.upgrade()?)?;
    let span = context.span().span_context().clone();
    let trace_id = TraceId::from_bytes(&span.trace_id().to_bytes())?;
    let span_id = SpanId::from_bytes(&span.span_id().to_bytes())?;
    let flags = span.trace_flags().to_u8();
    Some(ForeignIds { trace_id, span_id, flags, note: notes.get(span_id) })
}

/// Without the feature nobody else is asked.
#[cfg(not(feature = "tracing-opentelemetry"))]
pub(super) fn ids(_: Option<&WeakDispatch>, notes: &Notes, _: &Id) -> Option<ForeignIds> {
    let _ = notes;
    None
}
