//! The suite that every store passes: what the contract in [`super`] says, one test a sentence.
//!
//! A backend hands over a fresh store; what it cannot do is told by its capabilities and must then be refused.

use super::{Listed, Query, RunReader, RunWriter, Sort, StoreError};
use crate::model::event::{EventBody, Log, Output};
use crate::model::{Event, EventId, RunId, RunStatus, RunSummary, TraceId, UnixNanos};
use crate::store::assembly::RunState;

/// A fresh store with its two sides.
pub(crate) trait Backend {
    /// Returns a writer; several may be made of one store.
    fn writer(&self) -> Box<dyn RunWriter>;
    /// Returns a reader that sees what the writers have written.
    fn reader(&self) -> Box<dyn RunReader>;
}

/// Runs the suite; each check gets a store of its own.
pub(crate) fn run(fresh: &dyn Fn() -> Box<dyn Backend>) {
    let checks: &[fn(&dyn Backend)] = &[
        a_run_reads_back_as_it_was_written,
        appending_again_changes_nothing,
        a_summary_is_replaced_whole,
        events_are_replaced_whole,
        a_run_is_taken_up_with_its_events,
        unknown_runs_are_not_found,
        lists_are_filtered_sorted_and_cut,
        ids_resolve_by_prefix_trace_and_latest,
        deleting_costs_one_run,
        links_are_known_to_who_writes_next,
        what_cannot_be_done_is_refused,
    ];
    for check in checks {
        check(&*fresh());
    }
}

const BASE: u64 = 1_767_693_600_000;

fn summary(nth: u64) -> RunSummary {
    let started = UnixNanos::from_millis(BASE + nth * 1000);
    let run = RunId::from_parts(started.millis(), [nth as u8; 10]);
    let mut summary = RunState::new(run, run.as_trace_id()).summary(started);
    summary.started_at = started;
    summary.status = RunStatus::Success;
    summary.workflow_id = Some(format!("flow-{nth}"));
    summary
}

fn event(run: &RunSummary, seq: u64) -> Event {
    let at = UnixNanos(run.started_at.0 + seq);
    let body = if seq.is_multiple_of(2) {
        EventBody::Output(Output { data: serde_json::json!({"nested": ["ü", null, 1.5, seq]}) })
    } else {
        EventBody::Log(Log { level: None, message: "line\nbreak".to_owned(), fields: serde_json::Map::new() })
    };
    let mut id = run.run_id.0;
    id[15] = seq as u8;
    Event { seq, event_id: EventId(id), parent_event_id: None, timestamp: at, step_id: None, body }
}

fn events(run: &RunSummary, count: u64) -> Vec<Event> {
    (0..count).map(|seq| event(run, seq)).collect()
}

fn listed(store: &dyn RunReader, query: &Query) -> Vec<RunId> {
    let runs = store.list_runs(query).expect("a list");
    runs.into_iter()
        .map(|listed| match listed {
            Listed::Run(run) => run.summary.run_id,
            Listed::Damaged(run) => panic!("damaged: {run:?}"),
        })
        .collect()
}

/// All but who wrote it, which is the backend's own affair.
fn unsigned(run: RunSummary) -> RunSummary {
    RunSummary { writer: None, events_sha256: None, ..run }
}

fn a_run_reads_back_as_it_was_written(store: &dyn Backend) {
    let run = summary(1);
    store.writer().create_run(&run, &events(&run, 5)).expect("created");
    let reader = store.reader();
    assert_eq!(unsigned(reader.get_run(run.run_id).expect("the run")), run);
    assert_eq!(reader.get_events(run.run_id, 0).expect("events"), events(&run, 5));
    assert_eq!(reader.get_events(run.run_id, 3).expect("events"), events(&run, 5)[3..]);
}

fn appending_again_changes_nothing(store: &dyn Backend) {
    let run = summary(1);
    let mut writer = store.writer();
    writer.create_run(&run, &events(&run, 2)).expect("created");
    writer.release_run(run.run_id);
    // A batch told again after a crash: two known events, one new.
    store.writer().append_events(run.run_id, &events(&run, 3)).expect("appended");
    store.writer().append_events(run.run_id, &events(&run, 3)).expect("appended");
    assert_eq!(store.reader().get_events(run.run_id, 0).expect("events"), events(&run, 3));
}

fn events_are_replaced_whole(backend: &dyn Backend) {
    let (mut writer, reader) = (backend.writer(), backend.reader());
    let run = summary(1);
    writer.create_run(&run, &events(&run, 5)).unwrap();
    let mut others = events(&run, 3);
    others.swap(0, 2);
    others.iter_mut().zip(0..).for_each(|(event, seq)| event.seq = seq);
    writer.replace_events(run.run_id, &others).unwrap();
    assert_eq!(reader.get_events(run.run_id, 0).unwrap(), others);
    // What stands there now is known, and the rest is appended.
    let mut more = events(&run, 4);
    more[3].seq = 3;
    writer.append_events(run.run_id, &more).unwrap();
    others.push(more.remove(3));
    assert_eq!(reader.get_events(run.run_id, 0).unwrap(), others);
    let unknown = writer.replace_events(summary(2).run_id, &others);
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })), "{unknown:?}");
}

fn a_summary_is_replaced_whole(store: &dyn Backend) {
    let run = summary(1);
    let mut writer = store.writer();
    writer.create_run(&run, &[]).expect("created");
    let changed = RunSummary { status: RunStatus::Error, session_id: Some("no: [yes".to_owned()), ..run.clone() };
    writer.update_run(&changed).expect("updated");
    assert_eq!(unsigned(store.reader().get_run(run.run_id).expect("the run")), changed);
    assert!(matches!(writer.update_run(&summary(9)), Err(StoreError::NotFound { .. })));
}

fn a_run_is_taken_up_with_its_events(store: &dyn Backend) {
    let run = summary(1);
    assert!(store.writer().take_up(run.run_id).expect("an answer").is_none());
    store.writer().create_run(&run, &events(&run, 4)).expect("created");
    assert_eq!(store.writer().take_up(run.run_id).expect("an answer"), Some(events(&run, 4)));
}

fn unknown_runs_are_not_found(store: &dyn Backend) {
    let reader = store.reader();
    let nobody = summary(7).run_id;
    assert!(matches!(reader.get_run(nobody), Err(StoreError::NotFound { .. })));
    assert!(matches!(reader.get_events(nobody, 0), Err(StoreError::NotFound { .. })));
    assert!(matches!(store.writer().append_events(nobody, &[]), Err(StoreError::NotFound { .. })));
    assert!(matches!(reader.resolve("latest"), Err(StoreError::NotFound { .. })));
    assert_eq!(listed(&*reader, &Query::default()), []);
}

fn lists_are_filtered_sorted_and_cut(store: &dyn Backend) {
    let runs: Vec<RunSummary> = (0..5).map(summary).collect();
    let mut writer = store.writer();
    for (nth, run) in runs.iter().enumerate() {
        let cost = [None, Some(5), Some(50), Some(1), Some(7)][nth].map(crate::model::NanoUsd);
        let session_id = (nth % 2 == 0).then(|| "even".to_owned());
        writer.create_run(&RunSummary { cost_usd: cost, session_id, ..run.clone() }, &[]).expect("created");
    }
    let ids: Vec<RunId> = runs.iter().map(|run| run.run_id).collect();
    let reader = store.reader();
    let list = |query: Query| listed(&*reader, &query);
    assert_eq!(list(Query::default()), [ids[4], ids[3], ids[2], ids[1], ids[0]]);
    assert_eq!(list(Query { limit: 2, ..Query::default() }), [ids[4], ids[3]]);
    assert_eq!(list(Query { session_id: Some("even".to_owned()), ..Query::default() }), [ids[4], ids[2], ids[0]]);
    assert_eq!(list(Query { sort: Sort::Cost, limit: 3, ..Query::default() }), [ids[2], ids[4], ids[1]]);
    let since = Some(runs[1].started_at);
    assert_eq!(list(Query { since, until: Some(runs[3].started_at), ..Query::default() }), [ids[2], ids[1]]);
    assert_eq!(list(Query { min_cost: Some(crate::model::NanoUsd(6)), ..Query::default() }), [ids[4], ids[2]]);
    assert_eq!(list(Query { status: Some(RunStatus::Error), ..Query::default() }), []);
}

fn ids_resolve_by_prefix_trace_and_latest(store: &dyn Backend) {
    let (one, two) = (summary(1), summary(2));
    for run in [&one, &two] {
        store.writer().create_run(run, &[]).expect("created");
    }
    let reader = store.reader();
    assert_eq!(reader.resolve(&one.run_id.to_string()).ok(), Some(one.run_id));
    assert_eq!(reader.resolve(&two.run_id.to_string()[..12]).ok(), Some(two.run_id));
    assert_eq!(reader.resolve(&one.trace_id.to_string()).ok(), Some(one.run_id));
    assert_eq!(reader.resolve("latest").ok(), Some(two.run_id));
    assert!(matches!(reader.resolve("01"), Err(StoreError::Ambiguous { candidates, .. }) if candidates.len() == 2));
    assert!(matches!(reader.resolve("7ZZZ"), Err(StoreError::NotFound { .. })));
    for bad in ["", "../../etc/passwd", "..%2f", "/abs", "a\0b", "U", "x.y", "C:", &"0".repeat(300)] {
        assert!(matches!(reader.resolve(bad), Err(StoreError::NotAnId { .. })), "{bad:?}");
    }
}

fn deleting_costs_one_run(store: &dyn Backend) {
    let (one, two) = (summary(1), summary(2));
    let mut writer = store.writer();
    for run in [&one, &two] {
        writer.create_run(run, &events(run, 2)).expect("created");
    }
    writer.delete_run(one.run_id).expect("deleted");
    writer.delete_run(one.run_id).expect("deleted twice is no error");
    let reader = store.reader();
    assert_eq!(listed(&*reader, &Query::default()), [two.run_id]);
    assert!(matches!(reader.get_run(one.run_id), Err(StoreError::NotFound { .. })));
    assert_eq!(reader.get_events(two.run_id, 0).expect("events").len(), 2);
}

fn links_are_known_to_who_writes_next(store: &dyn Backend) {
    let link = |nth: u8| (TraceId([nth; 16]), RunId([nth; 16]));
    assert_eq!(store.writer().noted_links(9).expect("none"), []);
    for nth in 1..4 {
        store.writer().note_link(link(nth).0, Some(link(nth).1)).expect("noted");
    }
    store.writer().note_link(link(2).0, None).expect("noted");
    assert_eq!(store.writer().noted_links(9).expect("read"), [link(1), link(3)]);
    store.writer().replace_links(&[link(5)]).expect("replaced");
    store.writer().note_link(link(6).0, Some(link(6).1)).expect("noted");
    assert_eq!(store.writer().noted_links(9).expect("read"), [link(5), link(6)]);
    assert_eq!(store.writer().noted_links(1).expect("read"), [link(6)]);
}

fn what_cannot_be_done_is_refused(store: &dyn Backend) {
    let reader = store.reader();
    let searched = reader.search("text", &Query::default());
    assert_eq!(reader.capabilities().search, !matches!(searched, Err(StoreError::Unsupported { .. })));
}

mod backends {
    use super::{Backend, RunReader, RunWriter, StoreError};
    use crate::model::{Event, RunId, RunSummary, TraceId, UnixNanos};
    use crate::store::files::layout::Layout;
    use crate::store::files::{FilesReader, FilesWriter};
    use crate::store::memory::MemoryStore;

    impl Backend for MemoryStore {
        fn writer(&self) -> Box<dyn RunWriter> {
            Box::new(self.clone())
        }

        fn reader(&self) -> Box<dyn RunReader> {
            Box::new(self.clone())
        }
    }

    /// A store, and whether its writers write packs.
    struct Files(tempfile::TempDir, bool);

    impl Backend for Files {
        fn writer(&self) -> Box<dyn RunWriter> {
            let layout = Layout::new(self.0.path());
            layout.open_or_create().expect("a store");
            let writer = FilesWriter::new(layout, RunId::fresh(UnixNanos::now()), false);
            if self.1 { Box::new(AtOnce(writer.with_packs_of_any())) } else { Box::new(writer) }
        }

        fn reader(&self) -> Box<dyn RunReader> {
            drop(self.writer());
            Box::new(FilesReader::open(self.0.path()).expect("a store"))
        }
    }

    /// Each run is in a pack of its own as soon as it is written.
    struct AtOnce(FilesWriter);

    impl RunWriter for AtOnce {
        fn create_run(&mut self, summary: &RunSummary, events: &[Event]) -> Result<(), StoreError> {
            // As one that has come whole: behind others, on its way to a pack.
            self.0.create_whole(summary, &mut events.to_vec())?;
            self.0.write_held(true).map(drop)
        }

        fn note_link(&mut self, trace: TraceId, run: Option<RunId>) -> Result<(), StoreError> {
            self.0.note_link(trace, run)
        }

        fn replace_links(&mut self, links: &[(TraceId, RunId)]) -> Result<(), StoreError> {
            self.0.replace_links(links)
        }

        fn noted_links(&mut self, most: usize) -> Result<Vec<(TraceId, RunId)>, StoreError> {
            self.0.noted_links(most)
        }

        fn look_at(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError> {
            self.0.look_at(run)
        }

        fn has_run(&mut self, run: RunId) -> Result<bool, StoreError> {
            self.0.has_run(run)
        }

        fn take_up(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError> {
            self.0.take_up(run)
        }

        fn append_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError> {
            self.0.append_events(run, events)
        }

        fn replace_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError> {
            self.0.replace_events(run, events)
        }

        fn update_run(&mut self, summary: &RunSummary) -> Result<(), StoreError> {
            self.0.update_run(summary)
        }

        fn delete_run(&mut self, run: RunId) -> Result<(), StoreError> {
            self.0.delete_run(run)
        }

        fn release_run(&mut self, run: RunId) {
            self.0.release_run(run);
        }
    }

    #[test]
    fn memory_conforms() {
        super::run(&|| Box::new(MemoryStore::default()));
    }

    #[test]
    fn files_conform() {
        super::run(&|| Box::new(Files(tempfile::tempdir().expect("a directory"), false)));
    }

    #[test]
    fn files_with_packs_conform() {
        super::run(&|| Box::new(Files(tempfile::tempdir().expect("a directory"), true)));
    }

    #[test]
    fn a_run_told_again_after_a_failure_behind_its_log_has_each_event_once() {
        let store = Files(tempfile::tempdir().expect("a directory"), false);
        let mut writer = store.writer();
        // The last thing that making a run does fails, once everything else is there.
        let in_the_way = store.0.path().join("index.log");
        std::fs::create_dir(&in_the_way).expect("a directory");
        let run = super::summary(1);
        assert!(writer.create_run(&run, &super::events(&run, 2)).is_err());
        std::fs::remove_dir(&in_the_way).expect("removed");
        writer.create_run(&run, &super::events(&run, 3)).expect("created");
        assert_eq!(store.reader().get_events(run.run_id, 0).expect("events"), super::events(&run, 3));
    }
}
