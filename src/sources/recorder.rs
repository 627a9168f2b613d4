//! The handle that all sources of one process share: puts records into the ring and wakes the worker when it must.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use super::budgets::{Budgets, Wakers};
use super::context::RemoteContext;
use super::desk::Desk;
use super::encode::{self, SpanParts};
use super::foreign::Notes;
use super::fork;
use super::ring::{DropReason, Ring};
use crate::model::otlp::Resource;
use crate::model::record::RecordKind;
use crate::pipeline::Scrubber;
use crate::store::files::layout::Layout;

/// In the place of a record's kind: what follows is a `Resource`, which the records after it are from.
pub(crate) const RESOURCE_RECORD: u8 = 0;

/// What became of an event that somebody depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It outlives the process; the position is behind it.
    Yes(u64),
    /// There is no room for it now.
    Later,
    /// It alone is too large.
    TooLarge,
    /// Recording has ended, or the event is not recorded at all.
    Never,
}

thread_local! {
    /// The recorder whose next event on this thread is depended on, and what became of that.
    static WATCHED: Cell<Option<(u64, Taken)>> = const { Cell::new(None) };
}

/// Puts records into the ring.
#[derive(Debug)]
pub struct Recorder {
    /// Tells recorders of this process apart.
    id: u64,
    ring: Option<Ring>,
    store_id: String,
    /// How often the process had forked when this was made: a child writes nothing.
    generation: u32,
    stopped: AtomicBool,
    woken: AtomicBool,
    worker: OnceLock<Thread>,
    /// The parent of root spans, as the environment gave it.
    environment: Option<RemoteContext>,
    /// Where runs are stored: artifacts go there directly, and past the pipeline.
    store: OnceLock<Store>,
    /// What this process calls itself where nobody else gave it a name.
    resource: OnceLock<Arc<Resource>>,
    /// What the processor of the OpenTelemetry SDK knows of spans that a layer beside it records too.
    notes: Notes,
    /// Ends of spans that were put into the ring.
    ends: AtomicU64,
    /// Something was recorded.
    has_begun: AtomicBool,
    /// What runs may take.
    budgets: Budgets,
    /// What runs are told from outside.
    desk: Arc<Desk>,
}

/// Where runs are stored, and what is taken from content before it is.
#[derive(Debug)]
pub(crate) struct Store {
    pub layout: Layout,
    pub scrubber: Scrubber,
    /// What is kept survives loss of power.
    pub durable: bool,
}

/// Says once that recording was over before anything was recorded: `let _ = init()` drops its guard at once, and no lint tells.
#[cold]
fn warn_of_end() {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| {
        crate::telemetry::warn(format_args!(
            "recording ended before the first run began, since its guard was dropped or shut down: keep it until the end of \
             main, by a name, as in `let _guard = runspan::init();`"
        ));
    });
}

impl Recorder {
    /// Makes the handle of a ring, or one that records nothing.
    pub(crate) fn new(ring: Option<Ring>, store_id: String, environment: Option<RemoteContext>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self {
            id: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            ring,
            store_id,
            generation: fork::generation(),
            stopped: AtomicBool::new(false),
            woken: AtomicBool::new(false),
            worker: OnceLock::new(),
            environment,
            store: OnceLock::new(),
            resource: OnceLock::new(),
            notes: Notes::default(),
            ends: AtomicU64::new(0),
            has_begun: AtomicBool::new(false),
            budgets: Budgets::default(),
            desk: Arc::default(),
        }
    }

    /// Returns what tells this recorder from others of this process.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }

    /// Returns the id of the store that the spans go to.
    pub fn store_id(&self) -> &str {
        &self.store_id
    }

    /// Tells whether records are wanted: not in a forked child, and not without a store.
    pub fn is_recording(&self) -> bool {
        self.ring.is_some() && self.generation == fork::generation()
    }

    pub(crate) fn set_store(&self, store: Store) {
        // Set once, by the one who opens the store.
        let _ = self.store.set(store);
    }

    /// Returns the store, when there is one to write to.
    pub(crate) fn store(&self) -> Option<&Store> {
        self.store.get().filter(|_| self.is_recording())
    }

    pub(crate) fn set_worker(&self, thread: Thread) {
        // Set once, by the one who starts the worker.
        let _ = self.worker.set(thread);
    }

    /// Says what this process calls itself, and says it in the ring too, before any record: who adopts what is in
    /// there has to know it even where nothing came as far as the journal.
    pub(crate) fn set_resource(&self, resource: Arc<Resource>) {
        if let Some(ring) = &self.ring {
            // One that does not fit is made up for from the journal, if that has anything.
            let _ = ring.push(&[&[RESOURCE_RECORD], &prost::Message::encode_to_vec(&*resource)]);
        }
        // Set once, by the one who starts the worker.
        let _ = self.resource.set(resource);
    }

    /// Gives the records from here on a resource of the program's own, completed with what only we know.
    #[cfg(feature = "otel-sdk")]
    pub(crate) fn tell_resource(&self, attributes: Vec<crate::model::otlp::KeyValue>) {
        let (Some(ring), Some(ours)) = (self.ring.as_ref().filter(|_| self.is_recording()), self.resource.get()) else {
            return;
        };
        let merged = crate::config::merged_resource(attributes, ours);
        // It goes the way of the records, so that whoever adopts them after a crash meets it first. Should there be
        // no room for it, they are from the resource that was known before.
        let _ = ring.push(&[&[RESOURCE_RECORD], &prost::Message::encode_to_vec(&merged)]);
    }

    /// Drops a record of a source that was shut down, and counts it.
    #[cfg(feature = "otel-sdk")]
    pub(crate) fn refuse(&self, kind: RecordKind, trace_id: [u8; 16]) {
        if let Some(ring) = self.ring.as_ref().filter(|_| self.is_recording()) {
            ring.count_lost(DropReason::ShutDown, kind == RecordKind::Ended, &trace_id);
        }
    }

    pub(crate) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    pub(crate) fn remote_parent(&self) -> Option<RemoteContext> {
        self.environment.clone()
    }

    /// From now on records are dropped and counted.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Tells whether records are dropped, since this recorder was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Has something said, one event, and returns whether it is in the ring. One that is not does not count as lost: the
    /// caller knows of it.
    pub(crate) fn takes(&self, say: impl FnOnce()) -> Taken {
        // A thread that is at its end can depend on nothing.
        let _ = WATCHED.try_with(|watched| watched.set(Some((self.id, Taken::Never))));
        say();
        let watched = WATCHED.try_with(Cell::take);
        watched.ok().flatten().map_or(Taken::Never, |(_, taken)| taken)
    }

    /// Notes what became of an event; `false` where nobody depends on it.
    fn note_taken(&self, pushed: Result<(), DropReason>) -> bool {
        let taken = match pushed {
            Ok(()) => Taken::Yes(self.ring.as_ref().map_or(0, Ring::head_position)),
            Err(DropReason::QueueFull) => Taken::Later,
            Err(DropReason::TooLarge) => Taken::TooLarge,
            Err(_) => Taken::Never,
        };
        let is_watched = |watched: &Cell<Option<(u64, Taken)>>| {
            let is_ours = watched.get().is_some_and(|(recorder, _)| recorder == self.id);
            if is_ours {
                watched.set(Some((self.id, taken)));
            }
            is_ours
        };
        WATCHED.try_with(is_watched).unwrap_or(false)
    }

    /// Wakes the worker now rather than at its next look.
    pub(crate) fn wake(&self) {
        if let Some(worker) = self.worker.get() {
            worker.unpark();
        }
    }

    /// Tells that the worker has looked: the next half-full ring wakes it again.
    pub(crate) fn clear_wake(&self) {
        self.woken.store(false, Ordering::Relaxed);
    }

    /// Encodes one record and puts it in. When this returns, the record outlives the process; not so where the first is `false`:
    /// it is an event that is not in, and that is said again.
    ///
    /// Returns also who is to hear of it, for where nothing is held any more.
    pub(crate) fn record(&self, kind: RecordKind, parts: &SpanParts<'_>) -> (bool, Wakers) {
        let (mut is_said, mut wakers) = (true, Wakers::default());
        with_scratch(|scratch| {
            encode::scope_spans(scratch, parts);
            let is_topmost = parts.parent.is_none() || parts.flags & REMOTE_PARENT != 0;
            is_said = self.record_encoded(kind, parts.trace_id, is_topmost, scratch);
            if !self.budgets.is_empty() {
                wakers = self.budgets.see(kind, parts.span_id, parts.parent, scratch);
            }
        });
        (is_said, wakers)
    }

    /// Puts in a record that is a `ScopeSpans` with one span already; returns the same.
    ///
    /// Start and end of a span with none of this process above it have room of their own: a flood of steps that ends a
    /// moment before its run must not make that look crashed.
    pub fn record_encoded(&self, kind: RecordKind, trace_id: &[u8; 16], is_topmost: bool, scope_spans: &[u8]) -> bool {
        let Some(ring) = self.ring.as_ref().filter(|_| self.generation == fork::generation()) else { return true };
        let pushed = if self.stopped.load(Ordering::Acquire) {
            if is_topmost && kind == RecordKind::Started && !self.has_begun.load(Ordering::Relaxed) {
                warn_of_end();
            }
            Err(DropReason::ShutDown)
        } else if is_topmost && kind != RecordKind::Event {
            ring.push(&[&[kind as u8], scope_spans])
        } else {
            ring.push_modestly(&[&[kind as u8], scope_spans])
        };
        match kind {
            RecordKind::Ended if pushed.is_ok() => {
                self.ends.fetch_add(1, Ordering::Relaxed);
            }
            // Written once: others read it from their own copies.
            RecordKind::Started if pushed.is_ok() && !self.has_begun.load(Ordering::Relaxed) => {
                self.has_begun.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
        let is_known = kind == RecordKind::Event && self.note_taken(pushed);
        match pushed {
            Ok(()) if ring.is_half_full() && !self.woken.swap(true, Ordering::Relaxed) => self.wake(),
            Ok(()) => {}
            Err(_) if is_known => {}
            Err(reason) => ring.count_lost(reason, kind == RecordKind::Ended, trace_id),
        }
        pushed.is_ok() || !is_known
    }

    /// Returns how many ends of spans were put in.
    pub(crate) fn ends(&self) -> u64 {
        self.ends.load(Ordering::Relaxed)
    }

    /// Returns how many ends of spans were lost, by reason.
    pub(crate) fn lost_ends(&self) -> BTreeMap<&'static str, u64> {
        let ring = self.ring.iter();
        let counts = ring.flat_map(|ring| DropReason::ALL.map(|reason| (reason.as_str(), ring.lost_ends(reason))));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// Lends a cleared buffer of this thread.
pub(crate) fn with_scratch(use_it: impl FnOnce(&mut Vec<u8>)) {
    let mut scratch = spare();
    use_it(&mut scratch);
    put_back(scratch);
}

/// The flag of a span whose parent is in another process, as OTLP has it.
const REMOTE_PARENT: u32 = 0x200;

/// One huge prompt must not stay in memory with every thread that ever sent one.
const MAX_SPARE_BYTES: usize = 128 << 10;
const MAX_SPARES: usize = 16;

thread_local! {
    static SPARES: Cell<Vec<Vec<u8>>> = const { Cell::new(Vec::new()) };
}

/// Takes an empty buffer from this thread's spare ones: spans come by the thousand, each with three or four.
pub(crate) fn spare() -> Vec<u8> {
    let taken = SPARES.try_with(|cell| {
        // What is made while the buffers are out, in a drop say, finds none.
        let mut spares = cell.take();
        let spare = spares.pop();
        cell.set(spares);
        spare
    });
    taken.ok().flatten().unwrap_or_else(|| Vec::with_capacity(512))
}

/// Gives a buffer back, to this thread whichever it came from.
pub(crate) fn put_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > MAX_SPARE_BYTES {
        return;
    }
    buffer.clear();
    let _ = SPARES.try_with(|cell| {
        let mut spares = cell.take();
        if spares.len() < MAX_SPARES {
            spares.push(buffer);
        }
        cell.set(spares);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;

    #[test]
    fn a_flood_of_steps_leaves_room_for_the_end_of_its_run() {
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::create_in(dir.path(), RunId([1; 16]), 64 << 10).unwrap();
        let recorder = Recorder::new(Some(ring), String::new(), None);
        let lost = || recorder.ring().unwrap().lost_in_all(DropReason::QueueFull);
        fn parts(parent: Option<&[u8; 8]>, flags: u32) -> SpanParts<'_> {
            SpanParts {
                scope: "",
                trace_id: &[1; 16],
                span_id: &[2; 8],
                parent,
                flags,
                name: "step",
                kind: 1,
                start: 1,
                end: 2,
                fields: &[],
                dropped_events: 0,
                status: None,
            }
        }
        let parent = [3; 8];
        while lost() == 0 {
            recorder.record(RecordKind::Ended, &parts(Some(&parent), 0x100)).1.wake();
        }
        recorder.record(RecordKind::Ended, &parts(None, 0x100)).1.wake();
        recorder.record(RecordKind::Ended, &parts(Some(&parent), 0x300)).1.wake();
        assert_eq!(lost(), 1, "a root and one below another process");
        recorder.record(RecordKind::Event, &parts(None, 0x100)).1.wake();
        assert_eq!(lost(), 2, "its events are part of the flood");
        let said = recorder.takes(|| assert!(!recorder.record(RecordKind::Event, &parts(None, 0x100)).0));
        assert_eq!((said, lost()), (Taken::Later, 2), "who depends on one says it again");
        assert_eq!(recorder.takes(|| {}), Taken::Never);
    }
}
