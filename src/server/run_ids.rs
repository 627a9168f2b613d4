//! Which run a span belongs to, told as it comes in: targets need not wait for the run store to say so.
//!
//! The run store has the last word, see [`StoreSink`](crate::sinks::store::StoreSink), by the same rule: the id of a run
//! from outside is made of its trace and of the start of the first span that came.

use std::sync::{Mutex, PoisonError};

use crate::conventions::names;
use crate::model::recent::Recent;
use crate::model::record::{Record, RecordKind};
use crate::model::{RunId, SpanId, TraceId};
use crate::sinks::store::foreign_run_id;
use crate::store::files::layout::Layout;

/// So many traces are remembered at least, and twice as many at most.
const TRACES: usize = 1 << 16;
/// The same for spans of this store's own processes that were passed on.
const PASSED: usize = 1 << 14;

/// Names runs to targets.
pub(super) struct RunIds {
    layout: Layout,
    store_id: String,
    traces: Mutex<Recent<TraceId, RunId>>,
    passed: Mutex<Recent<SpanId, TraceId>>,
}

impl RunIds {
    pub fn new(layout: Layout, store_id: String) -> Self {
        Self { layout, store_id, traces: Mutex::default(), passed: Mutex::default() }
    }

    /// Writes on a span which run it belongs to and which store has it, unless it says so itself.
    pub fn stamp(&self, record: &mut Record) {
        // Nothing else is sent.
        if record.kind != RecordKind::Ended {
            return;
        }
        let is_told = |key| record.span.attr(key).or_else(|| record.resource.attr(key)).is_some();
        let (has_run, has_store) = (is_told(names::RUN_ID), is_told(names::STORE_ID));
        if let Some(trace) = TraceId::from_bytes(&record.span.trace_id).filter(|_| !has_run) {
            let run = self.run_of(trace, record.span.start_time_unix_nano);
            record.span.set_attr(names::RUN_ID, run.to_string());
        }
        if !has_store {
            record.span.set_attr(names::STORE_ID, self.store_id.as_str());
        }
    }

    fn run_of(&self, trace: TraceId, start_unix_nano: u64) -> RunId {
        let mut traces = self.traces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = traces.get(&trace) {
            return run;
        }
        // A trace that a process of this store began has a run of the same bits.
        let of_store = matches!(self.layout.find_run(trace.as_run_id()), Ok(Some(_)));
        let run = if of_store { trace.as_run_id() } else { foreign_run_id(trace, start_unix_nano) };
        traces.put(trace, run, TRACES);
        run
    }

    /// Tells whether a span that a process of this store has written itself is to be passed on to targets: once, so that
    /// one that comes back through others does not go round in circles.
    pub fn may_pass(&self, record: &Record) -> bool {
        let of_process = record.kind == RecordKind::Ended && record.resource.attr(names::STORE_ID).is_some();
        let ids = (TraceId::from_bytes(&record.span.trace_id), SpanId::from_bytes(&record.span.span_id));
        let (true, (Some(trace), Some(span))) = (of_process, ids) else { return false };
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = passed.get(&span) != Some(trace);
        passed.put(span, trace, PASSED);
        is_new
    }
}
