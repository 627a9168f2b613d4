//! Takes over what dead processes left in a store: their journals and their shared memory.
//!
//! A process is dead when the lock of its journal is free, never by its number. Whoever gets the lock goes on where
//! it stopped: what the journal holds and the store has not taken in, then what the ring holds and the journal has
//! not, goes the same way as ever. What the process had lost and not noted yet is noted in its runs. A run that was
//! under way has crashed: its open steps are closed, with a mark, so that upstreams get whole traces. All of it may be
//! interrupted and done again.
//!
//! Who may not write, or finds somebody else at work on it, goes the same way in memory: the same records through the
//! same pipeline and sink, laid over what the files hold. Nothing is changed then, and the answers are the same.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;

use crate::conventions::names;
use crate::error::Error;
use crate::error::with_causes;
use crate::fs::Access;
use crate::journal::{self, Durability, JournalError, JournalReader, JournalWriter, Options, TakenIn};
use crate::model::otlp::{Resource, STATUS_ERROR, Status, Value};
use crate::model::record::{Record, RecordKind};
use crate::model::{Event, RunId, RunStatus, RunSummary, SpanId, StepStatus, TraceId, UnixNanos, unknown};
use crate::pipeline::cost::Pricer;
use crate::pipeline::worker::{STORE_READER, decode, decode_resource, encode, frame_kind, records_of};
use crate::pipeline::{Content, Pipeline};
use crate::sinks::store::{SILENCE, StoreSink};
use crate::sources::ring::{DropReason, Left, Ring};
use crate::store::assembly::CRASHED_STEP;
use crate::store::files::layout::{Layout, StoreFile};
use crate::store::files::requests::Requests;
use crate::store::files::{FilesReader, FilesWriter, Overlay, OverlayWriter, restore_replaced};
use crate::store::{RunReader, RunWriter, StoreError};

const BATCH_BYTES: usize = 4 << 20;
/// For so long nobody looks again whether runs of a dead bridge have fallen silent.
const TAKEN_IN_FOR: Duration = Duration::from_secs(30);
/// How long another process is waited for that takes over the same journal.
const OTHERS_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked at.
const OTHERS_POLL: Duration = Duration::from_millis(5);

/// What was taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Dead processes whose records are in the store now.
    pub processes: u64,
    /// Dead processes whose records are shown and stay where they are, since the store cannot be written.
    pub viewed: u64,
    /// Records that only their shared memory held.
    pub salvaged: u64,
    /// Records whose recording had begun and not returned when the process died.
    pub torn: u64,
    /// Records in their journals that cannot be read.
    pub damaged: u64,
    /// Records that they had lost and of which no run is known, by reason. Those of a known run are noted there.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Runs that were under way.
    pub crashed: Vec<RunId>,
    /// What is neither in the store nor shown.
    pub missing: Vec<Missing>,
}

/// Something that a dead process left and that is not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The process, by the name of its journal.
    pub process: RunId,
    /// Why not, and where it is.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}: {}", self.process, self.why)
    }
}

impl Adopted {
    /// Says what users have to know of it, a line each: what is missing, lost or damaged.
    pub fn warnings(&self) -> Vec<String> {
        let missing = self.missing.iter().map(|missing| format!("not all is there of what ended early, {missing}"));
        let mut warnings: Vec<String> = missing.collect();
        if !self.dropped.is_empty() {
            let counts: Vec<String> = self.dropped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            let counts = counts.join(", ");
            warnings.push(format!(
                "a process that ended early had lost records of runs that nothing is known of: {counts}"
            ));
        }
        if self.damaged > 0 {
            let count = self.damaged;
            warnings.push(format!("{count} records in the journal of a process that ended early cannot be read"));
        }
        warnings
    }

    fn add(&mut self, other: Self) {
        self.processes += other.processes;
        self.viewed += other.viewed;
        self.salvaged += other.salvaged;
        self.torn += other.torn;
        self.damaged += other.damaged;
        for (reason, count) in other.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        self.crashed.extend(other.crashed);
        self.missing.extend(other.missing);
    }
}

/// Opens a store as every command does: takes over what dead processes left, where this user may write, and shows it
/// all the same where not, so that nothing less is shown than was recorded.
///
/// What cannot be shown is in [`Adopted::missing`]. An error beside the reader says that it could not even be found out
/// which processes left something.
///
/// # Errors
///
/// When there is no store at `path`, or none that can be read.
pub fn open(path: impl Into<PathBuf>) -> Result<(FilesReader, Result<Adopted, Error>), Error> {
    open_at(Layout::new(path))
}

/// Like [`open`], on whatever file system the store is.
pub(crate) fn open_at(layout: Layout) -> Result<(FilesReader, Result<Adopted, Error>), Error> {
    let store = layout.read()?;
    let reader = FilesReader::of(layout.clone())?;
    let mut overlay = Overlay::default();
    let adopted = each_dead(&layout, |process| {
        let is_ours = !is_of_another_user(&journal_of(&layout, process));
        match is_ours.then(|| take_over(&layout, &store, process)) {
            Some(Ok(adopted)) => adopted,
            // Whatever keeps it from being written keeps nobody from looking.
            Some(Err(_)) | None => view_into(&mut overlay, &layout, &store, process),
        }
    });
    Ok((reader.with(overlay), adopted))
}

/// Opens a store to look, without writing anything: it shows what [`open`] would show.
///
/// # Errors
///
/// As [`open`].
pub fn look(path: impl Into<PathBuf>) -> Result<(FilesReader, Result<Adopted, Error>), Error> {
    look_at(Layout::new(path))
}

/// Like [`look`], on whatever file system the store is.
pub(crate) fn look_at(layout: Layout) -> Result<(FilesReader, Result<Adopted, Error>), Error> {
    let store = layout.read()?;
    let reader = FilesReader::of(layout.clone())?;
    let mut overlay = Overlay::default();
    let adopted = each_dead(&layout, |process| view_into(&mut overlay, &layout, &store, process));
    Ok((reader.with(overlay), adopted))
}

/// Finds the run that a word means, as [`FilesReader::resolve`](RunReader::resolve) does. One that is not there may be in the journal of a
/// process at work, which acknowledged it a moment ago: it is waited for until that process has stored what it had, for two
/// seconds at most.
///
/// # Errors
///
/// As [`RunReader::resolve`].
pub fn resolve(reader: &FilesReader, id: &str) -> Result<RunId, StoreError> {
    const LONGEST: Duration = Duration::from_secs(2);
    const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
    let found = reader.resolve(id);
    if !matches!(found, Err(StoreError::NotFound { .. })) {
        return found;
    }
    let (journals, since) = (reader.layout().journal(), Instant::now());
    let at_work = journal::list_processes(&journals).unwrap_or_default().into_iter().filter(|process| process.alive);
    let acknowledged = at_work.filter_map(|process| {
        let end = journal::look_at_end(&journals, &process.name).ok()?;
        Some((process.name, end.last_seq))
    });
    let acknowledged: Vec<(String, u64)> = acknowledged.collect();
    let is_behind = |(process, end): &(String, u64)| {
        let stored = JournalReader::open_read_only(&journals, process, STORE_READER);
        stored.is_ok_and(|stored| stored.acknowledged() < *end)
    };
    loop {
        // Before the look: what is stored by then is found.
        let waits = acknowledged.iter().any(is_behind);
        match reader.resolve(id) {
            Err(StoreError::NotFound { .. }) if waits && since.elapsed() < LONGEST => std::thread::sleep(BETWEEN_LOOKS),
            found => return found,
        }
    }
}

/// Takes over what every dead process of this user left in the store.
///
/// What somebody else is taking over is waited for: who asks now must not see less than was recorded. One process's
/// trouble is told in [`Adopted::missing`] and keeps nobody else's records back.
///
/// # Errors
///
/// When it cannot be found out which processes left something.
pub fn adopt_dead(layout: &Layout, store: &StoreFile) -> Result<Adopted, Error> {
    // What cannot be given back now stays where it is, for the next to open the store.
    let _ = restore_replaced(layout);
    each_dead(layout, |process| {
        if is_of_another_user(&journal_of(layout, process)) {
            return Adopted::default();
        }
        take_over(layout, store, process).unwrap_or_else(|error| {
            let why = format!("what it left is not taken in: {}", with_causes(&error));
            Adopted { missing: vec![Missing { process, why }], ..Adopted::default() }
        })
    })
}

/// Tells whether a journal is another user's. That user's next process takes it over: it alone may read what is in
/// shared memory, and what others write into the store it could not read.
fn is_of_another_user(journal: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: always succeeds and touches no memory.
    let user = unsafe { libc::geteuid() };
    std::fs::metadata(journal).is_ok_and(|found| found.uid() != user)
}

/// Does something for each process that is dead and has left something, and adds up what came of it.
fn each_dead(layout: &Layout, mut take: impl FnMut(RunId) -> Adopted) -> Result<Adopted, Error> {
    let mut adopted = Adopted::default();
    for found in journal::list_processes_in(layout.fs(), &layout.journal())? {
        let Ok(process) = found.name.parse::<RunId>() else { continue };
        // The lock may be held by another who is taking over just now.
        if !found.alive || Ring::is_left_behind(&journal_of(layout, process), process) {
            adopted.add(take(process));
        } else if let Some(missing) = cannot_tell(layout, process) {
            adopted.missing.push(missing);
        }
    }
    Ok(adopted)
}

/// Tells of a journal whose lock this user may not even look at: its process counts as alive.
fn cannot_tell(layout: &Layout, process: RunId) -> Option<Missing> {
    let lock = journal_of(layout, process).join("lock");
    let error = layout.fs().open(&lock, Access::Read).err()?;
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return None;
    }
    let why = format!("what it may have left is not shown, {} cannot be opened: {error}", lock.display());
    Some(Missing { process, why })
}

fn journal_of(layout: &Layout, process: RunId) -> PathBuf {
    layout.journal().join(process.to_string())
}

/// Tells whether all that a dead process left is in the store, and nobody is just taking it in.
#[cfg(feature = "metrics")]
pub(crate) fn is_taken_in(layout: &Layout, process: RunId) -> bool {
    let (dir, name) = (layout.journal(), process.to_string());
    // The ring first: one that was not free belongs to whoever holds the journal, and is in the store once that is free.
    if Ring::is_left_behind(&dir.join(&name), process)
        || journal::lock::is_held(layout.fs(), &dir.join(&name)).unwrap_or(true)
    {
        return false;
    }
    let end = match journal::look_at_end_in(layout.fs(), &dir, &name) {
        Ok(end) => end.last_seq,
        Err(error) => return error.is_gone(),
    };
    let reader = JournalReader::open_read_only_in(layout.shared_fs(), &dir, &name, STORE_READER);
    reader.is_ok_and(|reader| reader.acknowledged() >= end)
}

/// Takes over what one process left; waits for another who is at it.
fn take_over(layout: &Layout, store: &StoreFile, process: RunId) -> Result<Adopted, Error> {
    let journal = journal_of(layout, process);
    let until = Instant::now() + OTHERS_LIMIT;
    loop {
        match adopt(layout, store, process) {
            // Somebody else has taken it in.
            Err(Error::Journal(error)) if error.is_gone() => return Ok(Adopted::default()),
            Err(Error::Journal(error)) if error.is_locked() => {
                if !Ring::is_left_behind(&journal, process) {
                    // Done, or alive after all.
                    return Ok(Adopted::default());
                }
                if Instant::now() >= until {
                    return Err(error.into());
                }
                std::thread::sleep(OTHERS_POLL);
            }
            done => return done,
        }
    }
}

fn adopt(layout: &Layout, store: &StoreFile, process: RunId) -> Result<Adopted, Error> {
    let (dir, name) = (layout.journal(), process.to_string());
    let (writer, recovered) = JournalWriter::reopen_in(layout.shared_fs(), &dir, &name, Options::default())?;
    let ring = match Ring::find(&dir.join(&name), process) {
        Left::Ring(ring) => Some(ring),
        Left::Nothing => None,
        Left::Unfinished(path) => {
            // Its process died before it could put anything in. Already gone is as good.
            let _ = std::fs::remove_file(path);
            None
        }
        // Nothing is taken in without it: what comes late to a run that is closed would be lost.
        Left::Unreadable { path, why } => return Err(Error::SharedMemory { path, source: why }),
    };
    let is_resumable = journal::is_resumable_in(layout.fs(), &dir, &name);
    match noted(layout, process, writer.committed_seq()).filter(|_| ring.is_none()) {
        Some(TakenIn::Until(_)) => return Ok(Adopted::default()),
        // The upstream may have had it meanwhile.
        Some(TakenIn::Whole) => {
            drop(writer);
            return remove(layout, process, None, None).map(|()| Adopted::default());
        }
        None => {}
    }
    let mut left = Leftovers {
        layout,
        store,
        process,
        numbers: writer,
        reader: JournalReader::open_in(layout.shared_fs(), &dir, &name, STORE_READER)?,
        // What it acknowledged has to last as long in the store as in the journal, which goes.
        sink: StoreSink::new(
            FilesWriter::new(layout.clone(), process, recovered.durability == Durability::Power),
            process,
        )
        .with_pricer(Pricer::of_store(layout).0)
        .recording(store.record),
        stored: HashMap::new(),
        is_bridge: false,
        is_of_command: false,
        open: Vec::new(),
        adopted: Adopted { processes: 1, ..Adopted::default() },
    };
    left.take_in(ring.as_ref(), recovered.last_source)?;
    left.settle_requests();
    let Leftovers { numbers: writer, mut reader, adopted, sink, .. } = left;
    let done = sink.oldest_held().map_or(writer.committed_seq(), |held| held.saturating_sub(1));
    reader.acknowledge_handed(done, &writer)?;
    if is_resumable && (done < writer.committed_seq() || !sink.open_runs().is_empty()) {
        // The next bridge goes on with it. Without the note the next command does all of this again.
        let how = TakenIn::Until(UnixNanos::now());
        let _ = journal::note_taken_in(layout.fs(), &dir, &name, writer.committed_seq(), how);
        return Ok(adopted);
    }
    // Of a run that waits somebody may still ask something.
    let is_whole = done >= writer.committed_seq() && sink.open_runs().is_empty();
    let whole = is_whole.then(|| writer.committed_seq());
    // Others wait as long as there is a ring, and may then go on with the runs: those and the journal are let go of first.
    drop((sink, reader, writer));
    remove(layout, process, ring, whole).map(|()| adopted)
}

/// Removes what a process left and is in the store. `whole`: the last frame of its journal, if all of it is there and no run
/// in it is under way.
fn remove(layout: &Layout, process: RunId, ring: Option<Ring>, whole: Option<u64>) -> Result<(), Error> {
    let (dir, name) = (layout.journal(), process.to_string());
    let readers = journal::readers_in(layout.fs(), &dir, &name)?;
    let readers: Vec<&str> = readers.iter().map(String::as_str).collect();
    match journal::remove_journal_in(layout.fs(), &dir, &name, &readers) {
        Ok(()) => {}
        // An upstream has not had all of it: who forwards next goes on with it. Until then every command would look through
        // the store for its runs.
        Err(JournalError::NotPassed { .. }) => {
            if let Some(seq) = whole {
                let _ = journal::note_taken_in(layout.fs(), &dir, &name, seq, TakenIn::Whole);
            }
        }
        // Somebody who waited finds it all done, and ends this; what holds its runs meanwhile is let go of soon.
        Err(error) if error.is_locked() => {
            let until = Instant::now() + OTHERS_LIMIT;
            while Ring::is_left_behind(&dir.join(&name), process) && Instant::now() < until {
                std::thread::sleep(OTHERS_POLL);
            }
            return Ok(());
        }
        Err(error) if error.is_gone() => return Ok(()),
        Err(error) => {
            // Out of sight it is nobody's to take in again.
            if let (false, Some(ring)) = (dir.join(&name).exists(), ring) {
                ring.unlink();
            }
            return Err(error.into());
        }
    }
    if let Some(ring) = ring {
        ring.unlink();
    }
    Ok(())
}

/// Tells how somebody has taken in all that a dead process left, if that holds still. What the open runs of a bridge wait for
/// comes with the next one, or with their silence.
fn noted(layout: &Layout, process: RunId, last_seq: u64) -> Option<TakenIn> {
    let (seq, how) = journal::taken_in(layout.fs(), &layout.journal(), &process.to_string())?;
    let holds = match how {
        TakenIn::Whole => true,
        TakenIn::Until(at) => {
            let now = UnixNanos::now();
            at <= now && now.millis_since(at) < TAKEN_IN_FOR.as_millis() as u64
        }
    };
    Some(how).filter(|_| holds && seq == last_seq)
}

/// Lays what one process left over the files; what cannot be read is told as missing.
fn view_into(overlay: &mut Overlay, layout: &Layout, store: &StoreFile, process: RunId) -> Adopted {
    match view(layout, store, process) {
        Ok((laid, adopted)) => {
            overlay.extend(laid);
            adopted
        }
        // Somebody else has taken it in meanwhile.
        Err(Error::Journal(error)) if error.is_gone() => Adopted::default(),
        Err(error) => {
            let why = format!("what it left is not shown: {}", with_causes(&error));
            Adopted { missing: vec![Missing { process, why }], ..Adopted::default() }
        }
    }
}

fn view(layout: &Layout, store: &StoreFile, process: RunId) -> Result<(Overlay, Adopted), Error> {
    let (dir, name) = (layout.journal(), process.to_string());
    // The ring before the journal, and the journal before the files: what somebody moves on meanwhile is met there.
    let left = Ring::find(&dir.join(&name), process);
    let recovered = journal::look_at_end_in(layout.fs(), &dir, &name)?;
    if matches!(left, Left::Nothing) && noted(layout, process, recovered.last_seq) == Some(TakenIn::Whole) {
        return Ok(Default::default());
    }
    let mut adopted = Adopted { viewed: 1, ..Adopted::default() };
    let ring = match left {
        Left::Ring(ring) => Some(ring),
        Left::Nothing | Left::Unfinished(_) => None,
        Left::Unreadable { path, why } => {
            let why = format!("what it had in shared memory is not shown, {}: {why}", path.display());
            adopted.missing.push(Missing { process, why });
            None
        }
    };
    let mut left = Leftovers {
        layout,
        store,
        process,
        numbers: Unwritten { last_seq: recovered.last_seq },
        reader: JournalReader::open_read_only_in(layout.shared_fs(), &dir, &name, STORE_READER)?,
        sink: StoreSink::new(OverlayWriter::new(layout.clone(), process), process)
            .with_pricer(Pricer::of_store(layout).0)
            .recording(store.record),
        stored: HashMap::new(),
        is_bridge: false,
        is_of_command: false,
        open: Vec::new(),
        adopted,
    };
    left.take_in(ring.as_ref(), recovered.last_source)?;
    Ok((left.sink.into_writer().into_overlay(), left.adopted))
}

/// Gives records that the journal does not hold their place in it: part of the ids of their events.
trait Numbers {
    fn append(&mut self, record: &Record, position: u64) -> Result<u64, JournalError>;
    fn commit(&mut self) -> Result<(), JournalError>;
}

impl Numbers for JournalWriter {
    fn append(&mut self, record: &Record, position: u64) -> Result<u64, JournalError> {
        let resource = self.register_resource(&unknown::encode_resource(&record.resource))?;
        let (kind, mut payload) = (frame_kind(record.kind), Vec::new());
        encode(record, &mut payload);
        match JournalWriter::append(self, kind, resource, position, &payload) {
            Err(error) if error.is_buffer_full() => {
                JournalWriter::commit(self)?;
                JournalWriter::append(self, kind, resource, position, &payload)
            }
            appended => appended,
        }
    }

    fn commit(&mut self) -> Result<(), JournalError> {
        JournalWriter::commit(self).map(drop)
    }
}

/// The numbers that a journal would give which cannot be written.
#[derive(Debug)]
struct Unwritten {
    last_seq: u64,
}

impl Numbers for Unwritten {
    fn append(&mut self, _: &Record, _: u64) -> Result<u64, JournalError> {
        self.last_seq += 1;
        Ok(self.last_seq)
    }

    fn commit(&mut self) -> Result<(), JournalError> {
        Ok(())
    }
}

/// What a dead process left, on its way into a store or over it.
struct Leftovers<'a, N, W> {
    layout: &'a Layout,
    store: &'a StoreFile,
    process: RunId,
    numbers: N,
    reader: JournalReader,
    sink: StoreSink<W>,
    /// The process's runs that are in the store and not taken up yet, by trace, the oldest first.
    stored: HashMap<TraceId, Vec<RunId>>,
    /// The process was a bridge: whoever sends to it may go on.
    is_bridge: bool,
    /// It was the recorder of a command.
    is_of_command: bool,
    /// Its runs that were open or had crashed, as the files had them.
    open: Vec<RunId>,
    adopted: Adopted,
}

impl<N: Numbers, W: RunWriter> Leftovers<'_, N, W> {
    /// Takes in all of it. `last_source`: up to where the journal has what was in the ring.
    fn take_in(&mut self, ring: Option<&Ring>, last_source: u64) -> Result<(), Error> {
        // The spans were others' if it was a bridge or a command's receiver: they came in any order.
        let (fs, dir, name) = (self.layout.fs(), self.layout.journal(), self.process.to_string());
        self.is_bridge = journal::has_mark_in(fs, &dir, &name)?;
        self.is_of_command = journal::is_of_command_in(fs, &dir, &name)?;
        if self.is_bridge || self.is_of_command {
            self.sink.take_from_outside(SILENCE);
        }
        for run in runs_of(self.layout, self.process)? {
            self.stored.entry(run.trace_id).or_default().push(run.run_id);
            // One that has crashed may not be closed to the end: who was at it may have died too.
            // Nor one that was asked to end.
            if run.status.is_open() || matches!(run.status, RunStatus::Crashed | RunStatus::Cancelled) {
                self.sink.take_up(&[run.run_id])?;
                self.open.push(run.run_id);
            }
        }
        self.take_journal()?;
        if let Some(ring) = ring {
            self.take_ring(ring, last_source)?;
            self.note_lost(ring)?;
        }
        self.close_open_runs()?;
        // It may have died between a line of a log and what `run.yaml` and `index.log` make of it.
        self.sink.republish();
        Ok(self.sink.flush_all()?)
    }

    /// Takes a record to its run: one that is over has to be known too, when what it has is told again.
    fn take(&mut self, seq: u64, record: Record) -> Result<(), StoreError> {
        if let Some(trace) = TraceId::from_bytes(&record.span.trace_id) {
            self.recall(trace)?;
        }
        self.sink.take(seq, record)
    }

    fn recall(&mut self, trace: TraceId) -> Result<(), StoreError> {
        let runs = self.stored.remove(&trace).unwrap_or_default();
        self.sink.take_up(&runs)
    }

    fn take_journal(&mut self) -> Result<(), Error> {
        loop {
            let batch = self.reader.next_batch(BATCH_BYTES)?;
            self.adopted.damaged += batch.damaged();
            if batch.is_empty() {
                return Ok(());
            }
            for (seq, record) in records_of(&batch) {
                self.take(seq, record)?;
            }
            // It may have died between a line of a log and what `run.yaml` and `index.log` make of it, and a run that is
            // over is let go of when this is written.
            self.sink.republish();
            // All of it, whatever the time: who does this again gets the same events.
            self.sink.flush_all()?;
        }
    }

    /// Sends the records that only the ring holds down the line.
    fn take_ring(&mut self, ring: &Ring, last_source: u64) -> Result<(), Error> {
        let (records, holes) = ring.salvage(last_source);
        self.adopted.torn += holes;
        // Else the ring tells it first of all.
        let (dir, name) = (self.layout.journal(), self.process.to_string());
        let mut resource = Arc::new(
            known_resource(self.layout, &dir, &name)
                .unwrap_or_else(|| crate::config::resource(None, &name, &self.store.store_id)),
        );
        let (pricer, _) = Pricer::of_store(self.layout);
        let mut pipeline = Pipeline::new(policy_of(ring), self.store.redaction_key()).with_pricer(pricer);
        for (position, bytes) in records {
            if let Some(told) = decode_resource(&bytes) {
                resource = Arc::new(told);
                continue;
            }
            let Some(record) = decode(&bytes, &resource) else { continue };
            let record = pipeline.run(record);
            let seq = self.numbers.append(&record, position)?;
            self.take(seq, record)?;
            self.adopted.salvaged += 1;
        }
        self.numbers.commit()?;
        Ok(self.sink.flush_all()?)
    }

    /// Notes in the runs what the process had lost and could not note any more.
    fn note_lost(&mut self, ring: &Ring) -> Result<(), Error> {
        for lost in ring.lost() {
            self.recall(lost.trace)?;
            if self.sink.has_run_of(lost.trace) {
                self.sink.note_lost(&lost);
            } else {
                *self.adopted.dropped.entry(lost.reason).or_default() += lost.count;
            }
        }
        let dropped = &mut self.adopted.dropped;
        for reason in DropReason::ALL {
            *dropped.entry(reason.as_str()).or_default() += ring.lost_of_no_run(reason);
        }
        dropped.retain(|_, count| *count > 0);
        Ok(self.sink.flush_all()?)
    }

    /// Closes the open steps of the process's runs, in the journal and in the store.
    fn close_open_runs(&mut self) -> Result<(), Error> {
        if self.is_bridge {
            return Ok(self.sink.close_silent(UnixNanos::now())?);
        }
        // Behind this no journal tells of them.
        self.sink.finish_moves()?;
        let runs = self.sink.unclosed_runs();
        for run in &runs {
            if self.is_of_command {
                // Who held it is dead, and it goes on, or is gone: nobody can have it go on.
                self.sink.move_on(*run, "the process that held it ended");
            }
            // It ended as it was asked to, as far as anybody can tell.
            let is_running = self.sink.standing(*run).is_some_and(|now| now.status == RunStatus::Running);
            let requests = Requests::find(self.layout, *run)?.filter(|_| is_running);
            if let Some(cancel) = requests.and_then(|requests| requests.cancel().ok().flatten()) {
                self.sink.cancel(*run, cancel.at);
            }
        }
        let crashed = self.sink.note_crash(&runs)?;
        self.sink.flush_all()?;
        for run in crashed {
            let starts = starts_of(&self.sink.written_events(run)?);
            let (open, last) = self.sink.open_spans(run);
            for span in open {
                let Some(record) = starts.get(&span) else { continue };
                let record = closed(record.clone(), last);
                let seq = self.numbers.append(&record, 0)?;
                self.sink.take(seq, record)?;
            }
            self.numbers.commit()?;
            if self.sink.standing(run).is_some_and(|now| now.status == RunStatus::Crashed) {
                self.adopted.crashed.push(run);
            }
        }
        Ok(())
    }

    /// Takes answers that the dead process had taken out of the files that brought them.
    fn settle_requests(&self) {
        for run in &self.open {
            let Some(standing) = self.sink.standing(*run) else { continue };
            if let Ok(Some(requests)) = Requests::find(self.layout, *run) {
                // What cannot be done now the next process does that goes on with the run, or its removal.
                let _ = requests.settle(standing.wait, UnixNanos::now());
            }
        }
    }
}

/// Returns the starts of a run's steps, as the records that would end them.
pub(crate) fn starts_of(events: &[Event]) -> HashMap<SpanId, Record> {
    let starts = events.iter().filter(|event| event.body.is_step_start());
    starts
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
        .collect()
}

/// Returns the content policy of the process that a ring is from.
fn policy_of(ring: &Ring) -> Content {
    match ring.policy() {
        0 => Content::None,
        2 => Content::Full,
        _ => Content::Redacted,
    }
}

/// Reads the resource of the first frame that a journal still holds.
fn known_resource(layout: &Layout, dir: &Path, process: &str) -> Option<Resource> {
    // No reader has this name, so reading begins at the oldest frame.
    let mut reader = JournalReader::open_read_only_in(layout.shared_fs(), dir, process, "first").ok()?;
    let batch = reader.next_batch(BATCH_BYTES).ok()?;
    let bytes = batch.frames().find_map(|frame| frame.resource.cloned())?;
    Resource::decode(&bytes[..]).ok()
}

/// Returns the runs that a process wrote, as the files have them, the oldest first.
fn runs_of(layout: &Layout, process: RunId) -> Result<Vec<RunSummary>, Error> {
    let mut runs = FilesReader::of(layout.clone())?.stored_runs()?;
    runs.retain(|run| run.writer == Some(process));
    runs.reverse();
    Ok(runs)
}

/// Has the sink of a process that goes on for another know the runs of that one that are under way, and the latest of all that
/// are over, so that what comes late, or is told again, finds them.
#[cfg(feature = "server")]
pub(crate) fn take_up_runs(layout: &Layout, process: RunId, sink: &mut StoreSink<FilesWriter>) -> Result<(), Error> {
    sink.take_up(&FilesReader::of(layout.clone())?.left_by(process)?)?;
    Ok(sink.hear_of_others()?)
}

/// Ends an open span at the last moment that its run is known to have lived, with a mark.
pub(crate) fn closed(mut record: Record, last: UnixNanos) -> Record {
    let span = &mut record.span;
    span.end_time_unix_nano = last.0.max(span.start_time_unix_nano.saturating_add(1));
    span.set_attr(names::STEP_STATUS, Value::from(StepStatus::Crashed.as_str()));
    span.status = Some(Status { code: STATUS_ERROR, message: CRASHED_STEP.to_owned() });
    record
}

/// Names the readers that a journal has positions of.
#[cfg(feature = "forward")]
pub(crate) fn readers_of(journal_dir: &Path, process: RunId) -> Vec<String> {
    journal::readers_in(&crate::fs::OsFs, journal_dir, &process.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
