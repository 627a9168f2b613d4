use std::fs;

use super::*;
use crate::model::Event;
use crate::model::event::EventBody;
use crate::model::otlp::{Scope, ScopeSpans, Span, SpanEvent};
use crate::model::outcome::LostRecords;
use crate::sources::recorder::Recorder;
use crate::store::{Listed, Query, RunReader};

const START: u64 = 1_767_693_600_000_000_000;

/// A process that died in the middle of its work, with the parts of its line at different places.
struct Dead {
    dir: tempfile::TempDir,
    /// Where its ring is; `None` without tmpfs.
    memory: Option<tempfile::TempDir>,
    process: RunId,
}

impl Dead {
    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn journal(&self) -> PathBuf {
        self.store().join("journal").join(self.process.to_string())
    }

    /// A copy of all that it left.
    fn copy(&self) -> Self {
        let copy = Self { dir: tempfile::tempdir().unwrap(), memory: memory(), process: self.process };
        copy_dir(self.dir.path(), copy.dir.path());
        if let (Some(from), Some(to)) = (&self.memory, &copy.memory) {
            copy_dir(from.path(), to.path());
            let noted = fs::read_to_string(copy.journal().join("ring")).unwrap();
            let moved = noted.replace(from.path().to_str().unwrap(), to.path().to_str().unwrap());
            fs::write(copy.journal().join("ring"), moved).unwrap();
            // The ring of the copy is the copy's, as the names in it have to say; they are of one length.
            let ring = PathBuf::from(fs::read_to_string(copy.journal().join("ring")).unwrap().trim_end());
            let mut bytes = fs::read(&ring).unwrap();
            let names = [self.dir.path(), copy.dir.path()].map(|path| path.to_str().unwrap().as_bytes().to_vec());
            let place = bytes.windows(names[0].len()).position(|part| part == names[0]).unwrap();
            bytes[place..place + names[1].len()].copy_from_slice(&names[1]);
            fs::write(&ring, bytes).unwrap();
        }
        copy
    }
}

fn memory() -> Option<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").ok()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if entry.is_dir() {
            copy_dir(&entry, &to);
        } else {
            fs::copy(&entry, &to).unwrap();
        }
    }
}

/// Everything under a directory, to see whether it was touched.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
            found.insert(path, Vec::new());
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// One moment of a span.
struct Moment {
    kind: RecordKind,
    trace: u8,
    span: u8,
    parent: u8,
    at: u64,
    attributes: &'static [(&'static str, &'static str)],
    event: Option<&'static str>,
}

const AGENT: &[(&str, &str)] = &[("gen_ai.operation.name", "invoke_agent"), ("gen_ai.agent.name", "a")];
const TOOL: &[(&str, &str)] = &[("gen_ai.operation.name", "execute_tool"), ("gen_ai.tool.name", "t")];
const CHAT: &[(&str, &str)] = &[("gen_ai.operation.name", "chat"), ("gen_ai.request.model", "gpt-4o")];

fn started(trace: u8, span: u8, parent: u8, at: u64, attributes: &'static [(&str, &str)]) -> Moment {
    Moment { kind: RecordKind::Started, trace, span, parent, at, attributes, event: None }
}

fn ended(trace: u8, span: u8, parent: u8, at: u64, attributes: &'static [(&str, &str)]) -> Moment {
    Moment { kind: RecordKind::Ended, trace, span, parent, at, attributes, event: None }
}

fn told(trace: u8, span: u8, at: u64, event: &'static str) -> Moment {
    Moment { kind: RecordKind::Event, trace, span, parent: 0, at, attributes: AGENT, event: Some(event) }
}

fn trace_id(trace: u8) -> TraceId {
    // As a run of ours has it: its id begins with the milliseconds of its start.
    TraceId(RunId::from_parts(START / 1_000_000 + u64::from(trace), [trace; 10]).0)
}

impl Moment {
    fn encoded(&self) -> Vec<u8> {
        let mut span = Span {
            trace_id: trace_id(self.trace).0.to_vec(),
            span_id: vec![self.span; 8],
            parent_span_id: if self.parent == 0 { Vec::new() } else { vec![self.parent; 8] },
            name: "step".to_owned(),
            start_time_unix_nano: START + u64::from(self.span) * 1_000_000,
            end_time_unix_nano: if self.kind == RecordKind::Ended { START + self.at * 1_000_000 } else { 0 },
            ..Span::default()
        };
        for (key, value) in self.attributes {
            span.set_attr(key, *value);
        }
        let time_unix_nano = START + self.at * 1_000_000;
        span.events.extend(self.event.map(|name| SpanEvent {
            time_unix_nano,
            name: name.to_owned(),
            ..SpanEvent::default()
        }));
        ScopeSpans { scope: Some(Scope::default()), spans: vec![span], schema_url: String::new() }.encode_to_vec()
    }
}

/// Leaves `in_store` moments in the store, those up to `in_journal` in the journal, and the rest in the ring.
fn dead(
    moments: &[Moment],
    in_store: usize,
    in_journal: usize,
    lost: impl Fn(&Ring, &mut StoreSink<FilesWriter>),
) -> Dead {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().join("store"));
    let store = layout.open_or_create().unwrap();
    let process = RunId::fresh(UnixNanos::now());
    let (name, memory) = (process.to_string(), memory());
    let mut writer = JournalWriter::create(&layout.journal(), &name, Options::default()).unwrap();
    let mut reader = JournalReader::open(&layout.journal(), &name, STORE_READER).unwrap();
    let ring = match &memory {
        Some(memory) => Ring::create_in(memory.path(), process, 64 << 10).unwrap(),
        None => Ring::create(process, 64 << 10).unwrap(),
    };
    ring.set_owner(&layout.journal().join(&name)).unwrap();
    ring.set_policy(1);
    let recorder = Recorder::new(Some(ring), store.store_id.clone(), None);
    for moment in moments {
        recorder.record_encoded(moment.kind, &trace_id(moment.trace).0, true, &moment.encoded());
    }
    let ring = recorder.ring().unwrap();
    let mut sink = StoreSink::new(FilesWriter::new(layout.clone(), process, false), process);
    let mut pipeline = Pipeline::new(Content::Redacted, store.redaction_key());
    let resource = Arc::new(crate::config::resource(Some("dead"), &name, &store.store_id));
    let (mut position, mut bytes) = (0, Vec::new());
    for nth in 0..in_journal {
        bytes.clear();
        position = ring.read(position, &mut bytes).unwrap();
        let record = pipeline.run(decode(&bytes, &resource).unwrap());
        let seq = Numbers::append(&mut writer, &record, position).unwrap();
        if nth < in_store {
            sink.take(seq, record).unwrap();
        }
    }
    Numbers::commit(&mut writer).unwrap();
    ring.consume(position);
    sink.flush_all().unwrap();
    reader.acknowledge_handed(in_store as u64, &writer).unwrap();
    lost(ring, &mut sink);
    Dead { dir, memory, process }
}

/// An agent that was over, one whose end only the ring has, one that waits, one in the middle of a tool call, and
/// one of which the files have nothing.
fn moments() -> Vec<Moment> {
    vec![
        started(1, 1, 0, 1, AGENT),
        ended(1, 1, 0, 5, AGENT),
        started(2, 1, 0, 1, AGENT),
        started(2, 2, 1, 2, CHAT),
        started(3, 1, 0, 1, AGENT),
        told(3, 1, 4, names::EVENT_WAITING),
        // In the journal.
        ended(2, 2, 1, 9, CHAT),
        started(4, 1, 0, 1, AGENT),
        started(4, 2, 1, 2, CHAT),
        // In the ring.
        ended(4, 2, 1, 7, CHAT),
        started(4, 3, 1, 8, TOOL),
        told(4, 1, 9, "looked it up"),
        ended(2, 1, 0, 12, AGENT),
        started(5, 1, 0, 13, AGENT),
        ended(5, 1, 0, 14, AGENT),
        started(6, 1, 0, 15, AGENT),
    ]
}

const IN_STORE: usize = 6;
const IN_JOURNAL: usize = 9;

/// Everything that commands show of a store, moments of writing left out.
fn shown(reader: &FilesReader) -> serde_json::Value {
    let listed = reader.list_runs(&Query::default()).unwrap();
    let runs: Vec<serde_json::Value> = listed
        .iter()
        .map(|listed| {
            let Listed::Run(run) = listed else { panic!("damaged: {listed:?}") };
            let id = run.summary.run_id;
            assert_eq!(reader.resolve(&id.to_string()).unwrap(), id);
            assert_eq!(reader.resolve(&id.to_string()[..25]).unwrap(), id);
            assert_eq!(reader.resolve(&run.summary.trace_id.to_string()).unwrap(), id);
            let events = reader.get_events(id, 0).unwrap();
            assert_eq!(reader.get_events(id, 2).unwrap()[..], events[2..]);
            let mut shown = serde_json::json!({
                "listed": run, "run": reader.get_run(id).unwrap(), "steps": reader.get_steps(id).unwrap(), "events": events,
            });
            shown["listed"]["updated_at"] = serde_json::Value::Null;
            shown["run"]["updated_at"] = serde_json::Value::Null;
            shown
        })
        .collect();
    serde_json::json!({"runs": runs, "latest": reader.resolve("latest").unwrap()})
}

fn lines(reader: &FilesReader) -> Vec<String> {
    let listed = reader.list_runs(&Query::default()).unwrap();
    let mut lines: Vec<String> = listed
        .iter()
        .map(|listed| match listed {
            Listed::Run(run) => {
                let run = &run.summary;
                let trace = run.trace_id.0[15];
                format!(
                    "{trace} {} steps={} events={} dropped={}",
                    run.status, run.steps_total, run.events, run.dropped
                )
            }
            Listed::Damaged(run) => format!("damaged {}", run.error),
        })
        .collect();
    lines.sort();
    lines
}

fn no_loss(_: &Ring, _: &mut StoreSink<FilesWriter>) {}

#[test]
fn who_may_not_write_sees_what_is_there_after_taking_over() {
    let left = dead(&moments(), IN_STORE, IN_JOURNAL, |ring, _| {
        ring.count_lost(DropReason::QueueFull, true, &trace_id(4).0);
        ring.count_lost(DropReason::QueueFull, true, &trace_id(99).0);
    });
    if left.memory.is_none() {
        return;
    }
    let taken = left.copy();
    let before = (contents(left.dir.path()), contents(left.memory.as_ref().unwrap().path()));
    let (reader, looked) = look(left.store()).unwrap();
    let looked = looked.unwrap();
    assert_eq!(
        lines(&reader),
        [
            "1 success steps=1 events=4 dropped=0",
            "2 success steps=2 events=6 dropped=0",
            "3 waiting steps=1 events=3 dropped=0",
            "4 crashed steps=3 events=11 dropped=1",
            "5 success steps=1 events=4 dropped=0",
            "6 crashed steps=1 events=5 dropped=0",
        ]
    );
    let after = (contents(left.dir.path()), contents(left.memory.as_ref().unwrap().path()));
    assert!(before == after, "nothing is changed");
    assert_eq!(reader.unwritten_runs().len(), 4);

    let (written, adopted) = open(taken.store()).unwrap();
    assert_eq!(shown(&reader), shown(&written));
    assert_eq!(written.unwritten_runs(), []);
    let adopted = adopted.unwrap();
    assert_eq!((looked.viewed, adopted.processes), (1, 1));
    assert_eq!(Adopted { viewed: 0, processes: 1, ..looked }, adopted);
    assert_eq!(adopted.dropped, BTreeMap::from([("queue_full", 1)]));
    assert_eq!((adopted.crashed.len(), adopted.salvaged, &adopted.missing), (2, 7, &Vec::new()));
    assert!(!taken.journal().exists() && contents(taken.memory.as_ref().unwrap().path()).len() == 1);
}

#[test]
fn what_can_only_be_written_in_part_is_shown_whole() {
    let left = dead(&moments(), IN_STORE, IN_JOURNAL, |ring, _| {
        ring.count_lost(DropReason::QueueFull, true, &trace_id(4).0);
    });
    if left.memory.is_none() {
        return;
    }
    let (looked, _) = look(left.store()).unwrap();
    // A file where the folder of a new run is made.
    let run = looked.resolve(&trace_id(5).to_string()).unwrap();
    let in_the_way = left.store().join("agents").join(format!(".new-{run}-{}", left.process));
    fs::write(&in_the_way, b"").unwrap();
    let (reader, adopted) = open(left.store()).unwrap();
    let adopted = adopted.unwrap();
    assert_eq!((adopted.processes, adopted.viewed, adopted.missing), (0, 1, Vec::new()));
    assert!(left.journal().exists() && contents(left.memory.as_ref().unwrap().path()).len() == 2);
    assert_eq!(shown(&reader), shown(&looked));
    fs::remove_file(&in_the_way).unwrap();
    let (reader, adopted) = open(left.store()).unwrap();
    assert_eq!(adopted.unwrap().processes, 1);
    assert_eq!(shown(&reader), shown(&looked));
}

#[test]
fn a_ring_that_cannot_be_read_keeps_its_journal_and_is_told() {
    let left = dead(&moments(), IN_STORE, IN_JOURNAL, no_loss);
    let Some(memory) = &left.memory else { return };
    let note = fs::read(left.journal().join("ring")).unwrap();
    let ring = PathBuf::from(std::str::from_utf8(&note).unwrap().trim_end());
    let away = memory.path().join("away");
    fs::rename(&ring, &away).unwrap();
    // A link is not followed: as unreadable as the file of another user.
    std::os::unix::fs::symlink(&away, &ring).unwrap();
    let before = contents(left.dir.path());
    let (reader, adopted) = open(left.store()).unwrap();
    let adopted = adopted.unwrap();
    assert_eq!((adopted.processes, adopted.viewed, adopted.salvaged), (0, 1, 0));
    let said = adopted.missing[0].to_string();
    assert!(
        said.contains("what it had in shared memory is not shown") && said.contains(ring.to_str().unwrap()),
        "{said}"
    );
    assert_eq!(
        lines(&reader),
        [
            "1 success steps=1 events=4 dropped=0",
            "2 crashed steps=2 events=7 dropped=0",
            "3 waiting steps=1 events=3 dropped=0",
            "4 crashed steps=2 events=7 dropped=0",
        ]
    );
    assert!(before == contents(left.dir.path()), "it is left for who can read the ring");
    fs::rename(&away, &ring).unwrap();
    let (reader, adopted) = open(left.store()).unwrap();
    assert_eq!((adopted.unwrap().salvaged, lines(&reader).len()), (7, 6));
}

#[test]
fn a_ring_that_is_gone_left_nothing() {
    let left = dead(&moments(), IN_STORE, IN_JOURNAL, no_loss);
    let Some(memory) = &left.memory else { return };
    fs::remove_dir_all(memory.path()).unwrap();
    let (reader, adopted) = open(left.store()).unwrap();
    let adopted = adopted.unwrap();
    assert_eq!((adopted.processes, adopted.salvaged, adopted.missing.len()), (1, 0, 0));
    assert_eq!(lines(&reader).len(), 4);
    assert!(!left.journal().exists());
}

#[test]
fn what_a_dead_process_lost_is_noted_in_its_runs_once() {
    let left = dead(&moments(), IN_STORE, IN_JOURNAL, |ring, sink| {
        let lose = |trace: u8, reason, times: u64| {
            (0..times).for_each(|n| ring.count_lost(reason, n % 2 == 0, &trace_id(trace).0));
        };
        let of = |trace: u8| ring.lost().into_iter().find(|lost| lost.trace == trace_id(trace)).unwrap();
        let written = |sink: &mut StoreSink<FilesWriter>, lost: &LostRecords| {
            assert!(!sink.note_lost(lost));
            sink.flush_all().unwrap();
            assert!(sink.note_lost(lost), "told again, it is not noted again");
        };
        // Noted and done with.
        lose(2, DropReason::QueueFull, 5);
        let lost = ring.close_lost(&of(2));
        written(sink, &lost);
        ring.free_lost(&lost);
        // Noted, and the process died before it could say so.
        lose(2, DropReason::QueueFull, 7);
        let lost = ring.close_lost(&of(2));
        written(sink, &lost);
        // Not noted.
        lose(2, DropReason::QueueFull, 11);
        lose(2, DropReason::TooLarge, 13);
        // Of a run that was over, of one that only the ring has, and of none.
        lose(1, DropReason::QueueFull, 17);
        lose(6, DropReason::QueueFull, 19);
        lose(77, DropReason::TooLarge, 23);
        lose(78, DropReason::QueueFull, 29);
        ring.give_up_lost(&of(78));
    });
    if left.memory.is_none() {
        return;
    }
    let again = left.copy();
    let (reader, adopted) = open(left.store()).unwrap();
    assert_eq!(adopted.unwrap().dropped, BTreeMap::from([("queue_full", 29), ("too_large", 23)]));
    let expected = [
        "1 success steps=1 events=5 dropped=17",
        "2 success steps=2 events=10 dropped=36",
        "3 waiting steps=1 events=3 dropped=0",
        "4 crashed steps=3 events=10 dropped=0",
        "5 success steps=1 events=4 dropped=0",
        "6 crashed steps=1 events=6 dropped=19",
    ];
    assert_eq!(lines(&reader), expected);
    let run = reader.resolve(&trace_id(2).to_string()).unwrap();
    let noted: Vec<(u64, String)> = reader.get_events(run, 0).unwrap().iter().filter_map(noted_loss).collect();
    let expected_notes = [(5, "queue_full"), (7, "queue_full"), (11, "queue_full"), (13, "too_large")];
    let mut noted: Vec<_> = noted.iter().map(|(count, reason)| (*count, reason.as_str())).collect();
    noted.sort_unstable();
    assert_eq!(noted, expected_notes);
    // Who died while taking over had written all of it and deleted nothing.
    let (journal, ring) = (again.journal(), again.memory.as_ref().unwrap());
    copy_dir(&left.store(), &again.store());
    assert!(journal.exists() && contents(ring.path()).len() == 2);
    let (reader, adopted) = open(again.store()).unwrap();
    assert_eq!(adopted.unwrap().processes, 1);
    assert_eq!(lines(&reader), expected);
}

fn noted_loss(event: &Event) -> Option<(u64, String)> {
    let EventBody::Log(log) = &event.body else { return None };
    let is_loss = log.message == crate::store::assembly::DROPPED_LOG;
    let count = log.fields.get("count").filter(|_| is_loss)?.as_u64()?;
    Some((count, log.fields.get("reason")?.as_str()?.to_owned()))
}

#[test]
fn a_run_whose_crash_is_noted_is_closed_to_the_end() {
    let moments = moments();
    let left = dead(&moments, moments.len(), moments.len(), |_, sink| {
        // Who took over died here.
        let runs = sink.unclosed_runs();
        assert_eq!(sink.note_crash(&runs).unwrap().len(), 2);
        sink.flush_all().unwrap();
    });
    let (reader, adopted) = open(left.store()).unwrap();
    assert_eq!(adopted.unwrap().crashed.len(), 2);
    let run = reader.resolve(&trace_id(4).to_string()).unwrap();
    let events = reader.get_events(run, 0).unwrap();
    let types: Vec<&str> = events.iter().map(|event| event.body.type_name()).collect();
    assert_eq!(types[5..], ["log", "status_changed", "tool_failed", "step_failed", "run_completed"]);
}

#[test]
fn who_looks_while_another_holds_the_lock_sees_everything() {
    let left = dead(&moments(), IN_STORE, IN_JOURNAL, no_loss);
    if left.memory.is_none() {
        return;
    }
    let taken = left.copy();
    // Somebody else has begun to take over, and has come no further yet.
    let (_writer, _) =
        JournalWriter::reopen(&left.store().join("journal"), &left.process.to_string(), Options::default()).unwrap();
    let (reader, looked) = look(left.store()).unwrap();
    assert_eq!(looked.unwrap().viewed, 1);
    assert_eq!(shown(&reader), shown(&open(taken.store()).unwrap().0));
}

#[test]
fn who_waits_is_let_in_when_the_runs_and_the_journal_are_let_go_of() {
    let left = dead(&moments(), IN_STORE, IN_JOURNAL, no_loss);
    if left.memory.is_none() {
        return;
    }
    let taken = left.copy();
    // What somebody else is just deleting stands in the way of the last thing that is done.
    let in_the_way = left.store().join("journal").join(format!(".gone-{}", left.process));
    fs::create_dir(&in_the_way).unwrap();
    let lock = fs::File::create(in_the_way.join("lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(open(left.store()).unwrap().1.unwrap().viewed, 1);
    assert!(Ring::is_left_behind(&left.journal(), left.process));
    drop(lock);
    let (reader, adopted) = open(left.store()).unwrap();
    assert_eq!(adopted.unwrap().missing, []);
    assert!(!Ring::is_left_behind(&left.journal(), left.process));
    assert!(!left.journal().exists());
    assert_eq!(shown(&reader), shown(&open(taken.store()).unwrap().0));
}

#[test]
fn each_run_that_is_told_again_has_its_line_in_the_index_again_however_many_are_over() {
    let moments: Vec<Moment> =
        (1..=20).flat_map(|run| [started(run, 1, 0, 1, AGENT), ended(run, 1, 0, 2, AGENT)]).collect();
    let left = dead(&moments, moments.len(), moments.len(), no_loss);
    // It died before any of the lines, and before it noted how far it was.
    fs::remove_dir_all(left.journal().join("positions")).unwrap();
    fs::write(left.store().join("index.log"), "").unwrap();
    let (reader, adopted) = open(left.store()).unwrap();
    assert_eq!(adopted.unwrap().processes, 1);
    let indexed = (1..=20).filter(|run| {
        let run = reader.resolve(&trace_id(*run).to_string()).unwrap();
        reader.stored(run).unwrap().1.is_some()
    });
    assert_eq!(indexed.count(), 20);
}

#[test]
fn what_an_upstream_alone_keeps_is_taken_in_once_and_once_more_when_there_is_more() {
    let moments = [started(1, 1, 0, 1, AGENT), started(1, 2, 1, 2, TOOL), ended(2, 1, 0, 3, AGENT)];
    let left = dead(&moments, 1, 2, no_loss);
    if left.memory.is_none() {
        return;
    }
    let (journals, name) = (left.store().join("journal"), left.process.to_string());
    let mut upstream = JournalReader::open(&journals, &name, "upstream").unwrap();
    let last = upstream.next_batch(1 << 10).unwrap().frames().map(|frame| frame.seq).last().unwrap();
    upstream.acknowledge(last).unwrap();
    let taken = |opened: Result<(FilesReader, Result<Adopted, Error>), Error>| {
        let (reader, adopted) = opened.unwrap();
        let Adopted { processes, viewed, .. } = adopted.unwrap();
        (shown(&reader), processes, viewed)
    };
    let (first, processes, _) = taken(open(left.store()));
    assert_eq!((processes, left.journal().exists()), (1, true));
    assert_eq!(taken(open(left.store())), (first.clone(), 0, 0));
    assert_eq!(taken(look(left.store())), (first.clone(), 0, 0));
    // Whoever goes on with the journal has more to tell.
    let (mut writer, _) = JournalWriter::reopen(&journals, &name, Options::default()).unwrap();
    let resource = Arc::new(crate::config::resource(Some("dead"), &name, ""));
    for moment in [started(9, 1, 0, 1, AGENT), ended(9, 1, 0, 2, AGENT)] {
        let record = decode(&[&[moment.kind as u8], &moment.encoded()[..]].concat(), &resource).unwrap();
        Numbers::append(&mut writer, &record, 0).unwrap();
    }
    Numbers::commit(&mut writer).unwrap();
    drop(writer);
    let (more, processes, _) = taken(open(left.store()));
    let runs = |shown: &serde_json::Value| shown["runs"].as_array().unwrap().len();
    assert_eq!((runs(&more), processes), (runs(&first) + 1, 1));
    assert_eq!(taken(open(left.store())), (more.clone(), 0, 0));
    // The upstream has had it all: nothing is kept for anybody.
    loop {
        let batch = upstream.next_batch(1 << 20).unwrap();
        let Some(last) = batch.frames().map(|frame| frame.seq).last() else { break };
        upstream.acknowledge(last).unwrap();
    }
    drop(upstream);
    assert_eq!(taken(open(left.store())), (more, 0, 0));
    assert!(!left.journal().exists());
}
