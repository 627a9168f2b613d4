//! Takes over what dead processes left in a store: their journals and their shared memory.
//!
//! A process is dead when the lock of its journal is free, never by its number. Whoever gets the lock goes on where
//! it stopped: what the journal holds and the store has not taken in, then what the ring holds and the journal has
//! not, goes the same way as ever. A run that was under way has crashed: its open steps are closed, with a mark, so
//! that upstreams get whole traces. All of it may be interrupted and done again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;

use crate::conventions::names;
use crate::error::Error;
use crate::journal::{self, JournalReader, JournalWriter, Options};
use crate::model::otlp::{Resource, STATUS_ERROR, Status, Value};
use crate::model::record::{Record, RecordKind};
use crate::model::{RunId, SpanId, StepStatus, UnixNanos};
use crate::pipeline::worker::{STORE_READER, decode, decode_resource, encode, frame_kind, tell};
use crate::pipeline::{Content, Pipeline};
use crate::sinks::store::StoreSink;
use crate::sources::ring::Ring;
use crate::store::assembly::CRASHED_STEP;
use crate::store::files::layout::{Layout, StoreFile};
use crate::store::files::{FilesReader, FilesWriter};
use crate::store::{Listed, Query, RunReader};

const BATCH_BYTES: usize = 4 << 20;
/// How long another process is waited for that takes over the same journal.
const OTHERS_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked at.
const OTHERS_POLL: Duration = Duration::from_millis(5);

/// What was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Dead processes whose records are in the store now.
    pub processes: u64,
    /// Records that only their shared memory held.
    pub salvaged: u64,
    /// Records whose recording had begun and not returned when the process died.
    pub torn: u64,
    /// Runs that were under way.
    pub crashed: Vec<RunId>,
}

/// Takes over what every dead process of this user left in the store.
///
/// What somebody else is taking over is waited for: who asks now must not see less than was recorded.
///
/// One process's trouble is told and keeps nobody else's records back: the first error is returned at the end.
pub fn adopt_dead(layout: &Layout, store: &StoreFile) -> Result<Adopted, Error> {
    let mut adopted = Adopted::default();
    let mut first_error = None;
    for found in journal::list_processes(&layout.journal())? {
        let Ok(process) = found.name.parse::<RunId>() else { continue };
        if is_of_another_user(&layout.journal().join(&found.name)) {
            continue;
        }
        if found.alive && !Ring::is_left_behind(process) {
            continue;
        }
        let until = Instant::now() + OTHERS_LIMIT;
        loop {
            match adopt(layout, store, process, &mut adopted) {
                Err(Error::Journal(error)) if error.is_locked() || error.is_gone() => {
                    if error.is_locked() && Ring::is_left_behind(process) && Instant::now() < until {
                        std::thread::sleep(OTHERS_POLL);
                        continue;
                    }
                }
                Err(error) => drop(first_error.get_or_insert(error)),
                Ok(()) => adopted.processes += 1,
            }
            break;
        }
    }
    first_error.map_or(Ok(adopted), Err)
}

/// Tells whether a journal is another user's. That user's next process takes it over: it alone may read what is in
/// shared memory, and what others write into the store it could not read.
fn is_of_another_user(journal: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: always succeeds and touches no memory.
    let user = unsafe { libc::geteuid() };
    std::fs::metadata(journal).is_ok_and(|found| found.uid() != user)
}

fn adopt(layout: &Layout, store: &StoreFile, process: RunId, adopted: &mut Adopted) -> Result<(), Error> {
    let (dir, name) = (layout.journal(), process.to_string());
    let (mut writer, recovered) = JournalWriter::reopen(&dir, &name, Options::default())?;
    let mut reader = JournalReader::open(&dir, &name, STORE_READER)?;
    let mut sink = StoreSink::new(FilesWriter::new(layout.clone(), process, false), process);
    sink.take_up(&unfinished_runs(layout, process)?)?;
    loop {
        let batch = reader.next_batch(BATCH_BYTES)?;
        if batch.is_empty() {
            break;
        }
        tell(&mut sink, &batch)?;
        sink.flush(Instant::now())?;
    }
    let ring = Ring::open_dead(process, &dir.join(&name).join("lock")).map_err(Error::Resources)?;
    if let Some(ring) = &ring {
        let (records, holes) = ring.salvage(recovered.last_source);
        adopted.torn += holes;
        adopted.salvaged += records.len() as u64;
        if !records.is_empty() {
            // The dead process's own, unless it died before its first commit.
            let resource = known_resource(&dir, &name)
                .unwrap_or_else(|| crate::config::resource(None, writer.process(), &store.store_id));
            let (pricer, _) = crate::pipeline::cost::Pricer::of_store(layout);
            let pipeline = Pipeline::new(policy_of(ring), store.redaction_key()).with_pricer(pricer);
            salvage(&mut writer, &mut sink, pipeline, records, Arc::new(resource))?;
        }
    }
    sink.flush_all()?;
    close_open_runs(layout, &mut writer, &mut sink, adopted)?;
    sink.flush_all()?;
    reader.acknowledge_handed(writer.committed_seq(), &writer)?;
    if let Some(ring) = ring {
        ring.unlink();
    }
    drop(writer);
    let readers = readers_of(layout, process);
    let readers: Vec<&str> = readers.iter().map(String::as_str).collect();
    match journal::remove_journal(&dir, &name, &readers) {
        // An upstream has not had all of it: who forwards next goes on with it.
        Err(journal::JournalError::NotPassed { .. }) => Ok(()),
        removed => removed.map_err(Error::from),
    }
}

/// Returns the content policy of the process that a ring is from.
fn policy_of(ring: &Ring) -> Content {
    match ring.policy() {
        0 => Content::None,
        2 => Content::Full,
        _ => Content::Redacted,
    }
}

/// Sends the records of a dead ring down the line.
fn salvage(
    writer: &mut JournalWriter,
    sink: &mut StoreSink<FilesWriter>,
    mut pipeline: Pipeline,
    records: Vec<(u64, Vec<u8>)>,
    mut resource: Arc<Resource>,
) -> Result<(), Error> {
    for (position, bytes) in records {
        if let Some(told) = decode_resource(&bytes) {
            resource = Arc::new(told);
            continue;
        }
        let Some(record) = decode(&bytes, &resource) else { continue };
        let record = pipeline.run(record);
        let id = writer.register_resource(&record.resource.encode_to_vec())?;
        let seq = append(writer, id, position, &record)?;
        sink.take(seq, record)?;
    }
    writer.commit()?;
    Ok(())
}

fn append(writer: &mut JournalWriter, resource: u32, position: u64, record: &Record) -> Result<u64, Error> {
    let payload = encode(record);
    match writer.append(frame_kind(record.kind), resource, position, &payload) {
        Err(error) if error.is_buffer_full() => {
            writer.commit()?;
            Ok(writer.append(frame_kind(record.kind), resource, position, &payload)?)
        }
        appended => Ok(appended?),
    }
}

/// Reads the resource of the first frame that a journal still holds.
fn known_resource(dir: &std::path::Path, process: &str) -> Option<Resource> {
    // No reader has this name, so reading begins at the oldest frame.
    let mut reader = JournalReader::open_read_only(dir, process, "first").ok()?;
    let batch = reader.next_batch(BATCH_BYTES).ok()?;
    let bytes = batch.frames().find_map(|frame| frame.resource.cloned())?;
    Resource::decode(&bytes[..]).ok()
}

/// Returns the runs of a process whose last word in the store is not an end.
fn unfinished_runs(layout: &Layout, process: RunId) -> Result<Vec<RunId>, Error> {
    let listed = FilesReader::open(layout.root())?.list_runs(&Query::default())?;
    Ok(listed
        .into_iter()
        .filter_map(|listed| match listed {
            Listed::Run(run) => Some(run.summary),
            Listed::Damaged(_) => None,
        })
        // Shown as crashed already where its writer is dead, so the moment of the end is asked for.
        .filter(|run| run.writer == Some(process) && (run.status.is_open() || run.completed_at.is_none()))
        .map(|run| run.run_id)
        .collect())
}

/// Closes the open steps of the process's runs, in the journal and in the store.
fn close_open_runs(
    layout: &Layout,
    writer: &mut JournalWriter,
    sink: &mut StoreSink<FilesWriter>,
    adopted: &mut Adopted,
) -> Result<(), Error> {
    let store = FilesReader::open(layout.root())?;
    let runs = sink.open_runs();
    let crashed = sink.note_crash(&runs)?;
    sink.flush_all()?;
    for run in crashed {
        let starts: HashMap<SpanId, Record> = store
            .get_events(run, 0)?
            .into_iter()
            .filter(|event| event.body.is_step_start())
            .filter_map(|event| {
                let (span, resource, scope) = event.body.span()?;
                let record = Record {
                    kind: RecordKind::Ended,
                    resource: Arc::new(resource.cloned().unwrap_or_default()),
                    scope: scope.cloned().unwrap_or_default(),
                    span: span.clone(),
                };
                Some((SpanId::from_bytes(&span.span_id)?, record))
            })
            .collect();
        let (open, last) = sink.open_spans(run);
        for span in open {
            let Some(record) = starts.get(&span) else { continue };
            let record = closed(record.clone(), last);
            let id = writer.register_resource(&record.resource.encode_to_vec())?;
            let seq = append(writer, id, 0, &record)?;
            sink.take(seq, record)?;
        }
        writer.commit()?;
        adopted.crashed.push(run);
    }
    Ok(())
}

/// Ends an open span at the last moment that its run is known to have lived, with a mark.
fn closed(mut record: Record, last: UnixNanos) -> Record {
    let span = &mut record.span;
    span.end_time_unix_nano = last.0.max(span.start_time_unix_nano.saturating_add(1));
    span.set_attr(names::STEP_STATUS, Value::from(StepStatus::Crashed.as_str()));
    span.status = Some(Status { code: STATUS_ERROR, message: CRASHED_STEP.to_owned() });
    record
}

/// Names the readers that a journal has positions of.
fn readers_of(layout: &Layout, process: RunId) -> Vec<String> {
    let positions = layout.journal().join(process.to_string()).join("positions");
    std::fs::read_dir(positions)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// Opens a store as every command does: takes over what dead processes left, where this user may write, so that
/// nothing less is shown than was recorded.
///
/// Trouble with that is handed back beside the reader: what is in the store can be read all the same.
pub fn open(path: impl Into<std::path::PathBuf>) -> Result<(FilesReader, Result<Adopted, Error>), Error> {
    let store = FilesReader::open(path)?;
    let file = store.layout().read()?;
    let adopted = adopt_dead(store.layout(), &file);
    Ok((store, adopted))
}
