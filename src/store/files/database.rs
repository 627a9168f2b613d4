//! `index.sqlite`: what `index.log` says, in a form that can be asked.
//!
//! It is derived, and never right against the files: whoever reads brings it up to where the log ends, one at a time,
//! and answers what is behind that from the log itself. When it is missing, older or damaged it is made anew. Deleting
//! it loses nothing. Runs that are under way are asked of their own logs, whatever stands here.
//!
//! Two tables for the runs: small rows to filter and sort, and the summaries of those that are chosen. That is why a
//! filter without an index of its own is still a walk over some megabytes.
//!
//! Behind the runs come their steps, which only the runs' own logs tell: [`Database::catch_up_steps`]. Lists do without
//! them, so nobody who lists waits for them.

mod digest;
mod pattern;
mod sql;
mod stats;
mod steps;
pub mod text;
mod words;

pub use sql::{SqlAnswer, SqlError, SqlLimits, VIEWS, View, ViewColumn};
pub use stats::{By, Counted, ErrorExample, ErrorGroup, Group, Percentiles, Stats};
use steps::Behind;
pub use steps::StepsReached;
pub use words::QueryError;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::layout::Layout;
use super::{FilesReader, index, run_dir, run_ids};
use crate::model::{RunId, RunKind, RunSummary, UnixNanos};
use crate::store::{Query, Sort, StoreError};

/// Raised when the tables change: what an older version has made is made anew.
const VERSION: i64 = 3;
/// How much of the log is read and written at a time.
const CHUNK: usize = 4 << 20;
/// A log up to this length is read faster than a database is opened.
const SMALL_LOG: u64 = 256 << 10;
/// Of the file so much is read without copying it.
const MMAP_BYTES: i64 = 1 << 30;
/// How long a reader waits for another that writes.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long who needs it waits for another that writes.
const LONG_PATIENCE: Duration = Duration::from_secs(10);
/// How long who asks takes new lines in before they look at the files instead.
const MOMENT: Duration = Duration::from_millis(500);
/// How often progress is told.
const GLIMPSE: Duration = Duration::from_millis(100);
/// How long a database is given to take in what is new before it is checked.
const CHECK_LIMIT: Duration = Duration::from_secs(60);
/// How often the log is looked at by who keeps up with it.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Bytes before the place that is reached which have to be the same still.
const TRACE_BYTES: u64 = 256;
/// A directory that changed so lately may change again without that its time tells.
const MTIME_GRAIN: Duration = Duration::from_millis(50);

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL UNIQUE,
        started INTEGER NOT NULL,
        kind TEXT NOT NULL,
        status TEXT NOT NULL,
        agent TEXT,
        workflow TEXT,
        session TEXT,
        trace TEXT NOT NULL,
        cost INTEGER,
        duration INTEGER,
        tokens INTEGER,
        replays INTEGER NOT NULL,
        change INTEGER NOT NULL
    );
    CREATE INDEX runs_started ON runs (started, run_id);
    CREATE INDEX runs_change ON runs (change);
    CREATE INDEX runs_open ON runs (id) WHERE status IN ('running', 'waiting');
    CREATE TABLE tags (tag TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (tag, id)) WITHOUT ROWID;
    CREATE TABLE models (model TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (model, id)) WITHOUT ROWID;
    CREATE TABLE summaries (id INTEGER PRIMARY KEY, json TEXT NOT NULL);
    CREATE TABLE unread (run_id TEXT PRIMARY KEY) WITHOUT ROWID;
";

/// The database of a store.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    layout: Layout,
    words: Words,
    /// How many threads read logs: one, unless somebody waits.
    threads: usize,
}

/// The numbers of words that steps have in common: names, models, kinds.
#[derive(Debug, Default)]
struct Words(HashMap<String, i64>);

impl Words {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns a word's number, given when it has none.
    fn number(&mut self, connection: &Connection, word: &str) -> Result<i64> {
        if let Some(number) = self.0.get(word) {
            return Ok(*number);
        }
        // The words of another process may be newer than those that are remembered: never of another number.
        connection.prepare_cached("INSERT OR IGNORE INTO words (word) VALUES (?1)")?.execute([word])?;
        let number =
            connection.prepare_cached("SELECT id FROM words WHERE word = ?1")?.query_row([word], |row| row.get(0))?;
        self.0.insert(word.to_owned(), number);
        Ok(number)
    }
}

/// How far the database is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Bytes of `index.log` that are taken in.
    pub bytes: u64,
    /// All bytes of it.
    pub of: u64,
    /// Everything is taken in, and the folders were compared.
    pub is_whole: bool,
}

/// What the database and the log have for a query.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Runs that may be asked for: of those that are over the right ones, and all others.
    pub runs: Vec<RunSummary>,
    /// Folders of which no line tells.
    pub unread: Vec<RunId>,
}

/// Why the database could not be used.
#[derive(Debug)]
pub enum DatabaseError {
    /// It is broken, or no database.
    Damaged(rusqlite::Error),
    /// It cannot be read or written now.
    Busy(rusqlite::Error),
    /// The file system says no.
    Io(io::Error),
    /// The store cannot be read.
    Store(StoreError),
}

impl std::fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Damaged(error) => write!(f, "index.sqlite is damaged: {error}"),
            Self::Busy(error) => write!(f, "index.sqlite cannot be used now: {error}"),
            Self::Io(error) => write!(f, "index.sqlite: {error}"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DatabaseError {}

impl DatabaseError {
    /// What stands in it is not of this version's making.
    fn foreign() -> Self {
        Self::Damaged(rusqlite::Error::InvalidQuery)
    }
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::DiskFull
                | ErrorCode::PermissionDenied
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory,
            ) => Self::Busy(error),
            // A table that is not there, a value of another type: somebody else's file.
            _ => Self::Damaged(error),
        }
    }
}

impl From<io::Error> for DatabaseError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<StoreError> for DatabaseError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

type Result<T> = std::result::Result<T, DatabaseError>;

/// Returns where the database of a store is.
pub fn path(layout: &Layout) -> PathBuf {
    layout.root().join("index.sqlite")
}

/// Tells whether the store has, or is large enough to want, a database.
pub(super) fn is_wanted(layout: &Layout) -> bool {
    let is_long = |path: &Path| std::fs::metadata(path).is_ok_and(|log| log.len() > SMALL_LOG);
    layout.is_of_the_system() && (is_long(&layout.index_log()) || path(layout).exists())
}

/// Deletes the database and makes it anew from the store; `progress` is told how far it is. Returns how many runs it
/// has.
///
/// # Errors
///
/// When the store cannot be read, or the file not be written.
pub fn rebuild(layout: &Layout, mut progress: impl FnMut(Reached)) -> Result<u64> {
    layout.read()?;
    remove(layout)?;
    let mut database = Database::open(layout)?;
    loop {
        let reached = database.catch_up(Duration::from_millis(100))?;
        progress(reached);
        if reached.is_whole {
            return database.runs();
        }
    }
}

/// How far the database is, for who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The runs are taken in.
    Runs(Reached),
    /// The steps of so many runs are read.
    Steps {
        /// Runs whose steps are read.
        done: u64,
        /// All runs that were behind.
        of: u64,
    },
    /// The texts of so many runs are read.
    Texts {
        /// Runs whose texts are read.
        done: u64,
        /// All runs that were behind.
        of: u64,
    },
}

/// How much of the runs a database is to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The runs.
    Runs,
    /// The runs and their steps.
    Steps,
}

/// Opens the database of a store and takes in all there is: the runs, and their steps if asked for. Where the store's own cannot be
/// written, or does not have what dead processes left, one is made for this once.
///
/// # Errors
///
/// When the store cannot be read, or no database be made.
pub fn whole(reader: &FilesReader, depth: Depth, progress: &mut dyn FnMut(Progress)) -> Result<Database> {
    let layout = reader.layout();
    layout.read()?;
    if !layout.is_of_the_system() || !reader.overlay.is_empty() {
        return temporary(reader, depth, progress);
    }
    let mut own = || {
        let mut database = Database::open(layout)?;
        database.connection.busy_timeout(LONG_PATIENCE)?;
        database.complete_runs(progress)?;
        database.complete_to(depth, reader, progress)?;
        Ok(database)
    };
    let opened = match own() {
        Err(DatabaseError::Damaged(_)) => {
            remove(layout)?;
            own()
        }
        opened => opened,
    };
    match opened {
        Err(DatabaseError::Busy(_) | DatabaseError::Io(_)) => temporary(reader, depth, progress),
        opened => opened,
    }
}

/// Asks the database of a store, once it has taken in all there is; makes it anew where it turns out to be broken.
///
/// # Errors
///
/// As [`whole`], and those of the question.
pub fn ask_whole<T>(
    reader: &FilesReader,
    depth: Depth,
    progress: &mut dyn FnMut(Progress),
    question: impl Fn(&Database) -> Result<T>,
) -> Result<T> {
    match whole(reader, depth, progress).and_then(|database| question(&database)) {
        Err(DatabaseError::Damaged(_)) => {
            remove(reader.layout())?;
            whole(reader, depth, progress).and_then(|database| question(&database))
        }
        answer => answer,
    }
}

fn temporary(reader: &FilesReader, depth: Depth, progress: &mut dyn FnMut(Progress)) -> Result<Database> {
    let mut database = Database::temporary(reader.layout())?;
    while !database.catch_up(GLIMPSE)?.is_whole {}
    let laid: Vec<RunSummary> = reader.overlay.summaries().cloned().collect();
    database.put_runs(&laid)?;
    database.complete_to(depth, reader, progress)?;
    Ok(database)
}

/// Asks the database of a store, once it has taken in all there is. `None` when it has not within a moment, or cannot be
/// used: then the files have to be asked.
pub(super) fn ask(layout: &Layout, ask: impl Fn(&Database) -> Result<Found>) -> Option<Found> {
    let once = || {
        let mut database = Database::open(layout)?;
        let reached = database.catch_up(MOMENT)?;
        if reached.is_whole { ask(&database).map(Some) } else { Ok(None) }
    };
    match once() {
        Err(DatabaseError::Damaged(_)) => {
            remove(layout).ok()?;
            once().ok().flatten()
        }
        answer => answer.ok().flatten(),
    }
}

/// Takes in what has changed, where there is a database, and takes the texts of runs that have gone away. Else the next
/// reader does.
pub(super) fn catch_up(layout: &Layout) {
    if layout.is_of_the_system() && path(layout).exists() {
        let _ = ask(layout, |database| text::forget_in(layout, database).map(|()| Found::default()));
    }
}

/// How a database was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// There is none.
    Nothing,
    /// It says what the store says.
    Whole,
    /// It could not be looked at now.
    Busy(String),
    /// It says something else, or cannot be read.
    Damaged(String),
}

/// Checks the database of a store: its pages, and its runs against the folders and the lines of the log.
pub(super) fn check(layout: &Layout) -> Checked {
    if !layout.is_of_the_system() || !path(layout).exists() {
        return Checked::Nothing;
    }
    match Database::open_as_it_is(layout).and_then(|mut database| database.find_fault()) {
        Ok(None) => Checked::Whole,
        Ok(Some(fault)) => Checked::Damaged(fault),
        Err(error @ DatabaseError::Damaged(_)) => Checked::Damaged(error.to_string()),
        Err(error) => Checked::Busy(error.to_string()),
    }
}

fn remove(layout: &Layout) -> Result<()> {
    remove_file(&path(layout))
}

/// Deletes a database with what SQLite may have put beside it.
fn remove_file(path: &Path) -> Result<()> {
    for end in ["", "-journal", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match std::fs::remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Opens a database, made empty if it is not there, for its owner alone.
fn open_file(path: &Path) -> Result<Connection> {
    // SQLite would let everybody read it.
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error.into());
    }
    Ok(Connection::open(path)?)
}

/// Makes the tables of an empty database. Returns whether it did.
fn make_tables(connection: &mut Connection, version: i64, tables: &[&str]) -> Result<bool> {
    connection.pragma_update(None, "trusted_schema", false)?;
    let found =
        |connection: &Connection| connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
    if found(connection)? == version {
        return Ok(false);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another may have been faster.
    if found(&transaction)? == version {
        return Ok(false);
    }
    let there: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if there > 0 {
        // Of another version.
        return Err(DatabaseError::foreign());
    }
    for tables in tables {
        transaction.execute_batch(tables)?;
    }
    write_identity(&transaction)?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()?;
    Ok(true)
}

/// Gives a database a number of its own, by which others know that it began anew.
fn write_identity(connection: &Connection) -> Result<()> {
    let mut random = [0; 8];
    crate::model::id::fill_random(&mut random);
    write_meta(connection, "identity", i64::from_le_bytes(random))
}

impl Database {
    /// Opens the database, and makes an empty one where there is none that this version can use.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or not be made.
    pub fn open(layout: &Layout) -> Result<Self> {
        match Self::open_as_it_is(layout) {
            Err(DatabaseError::Damaged(_)) => {
                remove(layout)?;
                Self::open_as_it_is(layout)
            }
            opened => opened,
        }
    }

    fn open_as_it_is(layout: &Layout) -> Result<Self> {
        Self::of(open_file(&path(layout))?, layout)
    }

    /// Makes one that nobody else sees and that is gone with this value, where the store's own cannot be used.
    fn temporary(layout: &Layout) -> Result<Self> {
        // Without a name it is a file where it gets large.
        Self::of(Connection::open("")?, layout)
    }

    fn of(mut connection: Connection, layout: &Layout) -> Result<Self> {
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.pragma_update(None, "mmap_size", MMAP_BYTES)?;
        // What runs said in their errors goes with them.
        connection.pragma_update(None, "secure_delete", true)?;
        make_tables(&mut connection, VERSION, &[TABLES, steps::TABLES])?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection, layout: layout.clone(), words: Words::default(), threads: 1 })
    }

    /// Tells whether nobody else sees it.
    fn is_temporary(&self) -> bool {
        self.connection.path().is_none_or(str::is_empty)
    }

    /// Takes in what the log has behind the place that was reached, for about so long.
    ///
    /// # Errors
    ///
    /// When another process is at it, and when the database or the store cannot be used.
    pub fn catch_up(&mut self, limit: Duration) -> Result<Reached> {
        let begun = Instant::now();
        loop {
            let reached = self.take_chunk()?;
            if reached.bytes == reached.of {
                self.compare_folders()?;
                return Ok(Reached { is_whole: true, ..reached });
            }
            if begun.elapsed() >= limit {
                return Ok(reached);
            }
        }
    }

    fn complete_runs(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        loop {
            let reached = self.catch_up(GLIMPSE)?;
            if reached.is_whole {
                return Ok(());
            }
            progress(Progress::Runs(reached));
        }
    }

    fn complete_to(&mut self, depth: Depth, reader: &FilesReader, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        self.threads = all_threads();
        if depth == Depth::Runs {
            return self.take_unread(reader);
        }
        let (mut done, of) = (0, self.runs_behind()?);
        loop {
            let reached = self.catch_up_steps(reader, GLIMPSE)?;
            if reached.left == 0 {
                return Ok(());
            }
            done += reached.done;
            progress(Progress::Steps { done, of: of.max(done + reached.left) });
        }
    }

    /// Takes in the next lines of the log, in one transaction.
    fn take_chunk(&mut self) -> Result<Reached> {
        let log = match std::fs::File::open(self.layout.index_log()) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reached::default()),
            Err(error) => return Err(error.into()),
        };
        let stat = log.metadata()?;
        let (identity, length) = (format!("{}:{}", stat.dev(), stat.ino()), stat.len());
        let place = Place::read(&self.connection)?;
        if place.log == identity && place.bytes == length {
            return Ok(Reached { bytes: length, of: length, is_whole: false });
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut place = Place::read(&transaction)?;
        if place.log != identity || place.bytes > length || place.trace != trace_before(&log, place.bytes)? {
            // Not the log that was read: another store's, or one that was cut.
            transaction.execute_batch(
                "DELETE FROM runs; DELETE FROM models; DELETE FROM tags; DELETE FROM summaries; DELETE FROM unread; \
                 DELETE FROM steps; DELETE FROM errors; DELETE FROM totals; DELETE FROM meta WHERE key <> 'change';",
            )?;
            write_identity(&transaction)?;
            place = Place { log: identity, ..Place::default() };
        }
        let mut wanted = CHUNK;
        let (lines, end, is_all) = loop {
            let lines = read_at(&log, place.bytes, wanted)?;
            let end = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let is_all = place.bytes + lines.len() as u64 >= length;
            if end > 0 || is_all {
                break (lines, end, is_all);
            }
            // A line longer than that.
            wanted *= 2;
        };
        let mut change = read_meta(&transaction, "change")?.unwrap_or(0);
        let mut told: Vec<(RunId, RunSummary)> = index::newest(&lines[..end]).into_iter().collect();
        // By time, so that runs of a time stand together.
        told.sort_unstable_by_key(|(run, _)| *run);
        for (run, summary) in told {
            change += 1;
            put(&transaction, run, &summary, change)?;
        }
        write_meta(&transaction, "change", change)?;
        place.bytes += end as u64;
        place.trace = trace_before(&log, place.bytes)?;
        place.write(&transaction)?;
        transaction.commit()?;
        // Behind the last line feed a line is being written, or its writer died: it is no line until there is one.
        let of = if is_all { place.bytes } else { length };
        Ok(Reached { bytes: place.bytes, of, is_whole: false })
    }

    /// Finds the folders that no line tells of, and forgets the runs whose folder is gone. Looks only where a folder has
    /// changed since.
    fn compare_folders(&mut self) -> Result<()> {
        let mut changed = Vec::new();
        let now = UnixNanos::now().0;
        let folders = RunKind::ALL.iter().map(|kind| (format!("folder {kind}"), self.layout.runs(*kind)));
        let packs = ("folder of packs".to_owned(), self.layout.packs().0.dir().to_owned());
        for (key, folder) in folders.chain([packs]) {
            let stat = std::fs::metadata(folder);
            let time =
                stat.map_or(0, |stat| stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec()));
            let known: Option<i64> = self
                .connection
                .query_row("SELECT value FROM meta WHERE key = ?1", [&key], |row| row.get(0))
                .optional()?;
            if known != Some(time) {
                let is_settled = now.saturating_sub(time.max(0) as u64) > MTIME_GRAIN.as_nanos() as u64;
                changed.push((key, is_settled.then_some(time)));
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Looked at only now: rows that another has added meanwhile have folders that an earlier look would lack.
        let mut folders = HashSet::new();
        for kind in RunKind::ALL {
            folders.extend(run_ids(self.layout.fs(), &self.layout.runs(*kind))?);
        }
        let mut known = HashSet::new();
        {
            let mut statement = transaction.prepare("SELECT run_id FROM runs")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                known.insert(id_in(row.get_ref(0)?.as_str().unwrap_or_default())?);
            }
        }
        let mut is_any_gone = false;
        for gone in known.iter().filter(|run| !folders.contains(run)) {
            let id: i64 = transaction
                .prepare_cached("DELETE FROM runs WHERE run_id = ?1 RETURNING id")?
                .query_row([gone.to_string()], |row| row.get(0))?;
            transaction.prepare_cached("DELETE FROM summaries WHERE id = ?1")?.execute([id])?;
            steps::forget(&transaction, id)?;
            is_any_gone = true;
        }
        if is_any_gone {
            transaction.execute("DELETE FROM models WHERE id NOT IN (SELECT id FROM runs)", [])?;
            transaction.execute("DELETE FROM tags WHERE id NOT IN (SELECT id FROM runs)", [])?;
            let removals = read_meta(&transaction, "removals")?.unwrap_or(0);
            write_meta(&transaction, "removals", removals + 1)?;
        }
        transaction.execute("DELETE FROM unread", [])?;
        for run in folders.iter().filter(|run| !known.contains(run)) {
            transaction.execute("INSERT OR IGNORE INTO unread VALUES (?1)", [run.to_string()])?;
        }
        for (key, time) in changed {
            match time {
                Some(time) => {
                    transaction.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![key, time])?;
                }
                None => {
                    transaction.execute("DELETE FROM meta WHERE key = ?1", [key])?;
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Tells what is wrong with it, if anything is. The store may be written meanwhile.
    fn find_fault(&mut self) -> Result<Option<String>> {
        /// A removal blanks a line of the log before it is taken in here: what stays wrong is a fault.
        const LOOKS: usize = 3;
        let pages: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if pages != "ok" {
            return Ok(Some(pages));
        }
        let mut fault = None;
        for _ in 0..LOOKS {
            if !self.catch_up(CHECK_LIMIT)?.is_whole {
                return Ok(Some("it has not taken in all of index.log".to_owned()));
            }
            fault = self.find_difference()?;
            if fault.is_none() {
                break;
            }
        }
        Ok(fault)
    }

    /// Compares it with `index.log`, up to the place of the log that it has reached.
    fn find_difference(&mut self) -> Result<Option<String>> {
        let layout = self.layout.clone();
        let mut folders = HashSet::new();
        for kind in RunKind::ALL {
            folders.extend(run_ids(layout.fs(), &layout.runs(*kind))?);
        }
        // Rows and the place that they stand for are of one moment; what others take in meanwhile is not seen.
        let moment = self.connection.transaction()?;
        let place = usize::try_from(Place::read(&moment)?.bytes).unwrap_or(usize::MAX);
        let log = std::fs::read(layout.index_log()).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(error),
        })?;
        let reached = place.min(log.len());
        // What was appended meanwhile is not its fault.
        let (lines, newer) = (index::last_lines(&log[..reached]), index::last_lines(&log[reached..]));
        let mut statement = moment.prepare("SELECT run_id, json FROM runs JOIN summaries USING (id)")?;
        let mut rows = statement.query([])?;
        let mut known = 0;
        while let Some(row) = rows.next()? {
            let run = id_in(row.get_ref(0)?.as_str().unwrap_or_default())?;
            let said: Option<RunSummary> = serde_json::from_str(row.get_ref(1)?.as_str().unwrap_or_default()).ok();
            let right = lines.get(&run).and_then(|line| serde_json::from_slice::<RunSummary>(line).ok());
            // A run that goes loses its folder first, then its line.
            let is_gone = right.is_none() && layout.find_run(run).is_ok_and(|folder| folder.is_none());
            if (said.is_none() || said != right) && !is_gone {
                return Ok(Some(format!("what it says of run {run} is not what index.log says")));
            }
            known += u64::from(folders.contains(&run));
        }
        let of_folders = lines.keys().filter(|run| folders.contains(run) && !newer.contains_key(run)).count() as u64;
        Ok((known < of_folders).then(|| format!("it has {known} of {of_folders} runs")))
    }

    /// Returns how many runs it has.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn runs(&self) -> Result<u64> {
        let runs: i64 = self.connection.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?;
        Ok(runs.try_into().unwrap_or(0))
    }

    /// Returns how many steps it has.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn steps(&self) -> Result<u64> {
        let steps: i64 = self.connection.query_row("SELECT count(*) FROM steps", [], |row| row.get(0))?;
        Ok(steps.try_into().unwrap_or(0))
    }

    /// Returns what may answer a query, with what the log has behind the place that is reached. `spare`: of how many
    /// runs the caller knows better.
    pub(super) fn find(&self, query: &Query, spare: usize) -> Result<Found> {
        let newer = self.newer()?;
        let (filter, mut values) = filter(query);
        let order = match query.sort {
            Sort::Started => "",
            Sort::Cost => "cost DESC, ",
            Sort::Duration => "duration DESC, ",
            Sort::Tokens => "tokens DESC, ",
        };
        // As many more as may have to give way to newer lines.
        let limit = if query.limit == 0 { -1 } else { i64::try_from(query.limit + newer.len() + spare).unwrap_or(-1) };
        values.push(limit.into());
        let closed = format!(
            "SELECT json FROM summaries JOIN (SELECT id AS chosen, cost, duration, tokens, started, run_id FROM runs \
             WHERE status NOT IN ('running', 'waiting'){filter} ORDER BY {order}started DESC, run_id DESC LIMIT ?) \
             ON chosen = id ORDER BY {order}started DESC, run_id DESC"
        );
        let mut runs = self.summaries(&closed, values)?;
        runs.extend(self.summaries(
            "SELECT json FROM summaries JOIN runs USING (id) WHERE status IN ('running', 'waiting')",
            Vec::new(),
        )?);
        self.with_newer(runs, newer)
    }

    /// Returns the runs that an id, the beginning of one, a trace or `latest` may mean.
    pub(super) fn named(&self, id: &str) -> Result<Found> {
        let newer = self.newer()?;
        let (condition, values): (&str, Vec<Sql>) = if id == "latest" {
            ("TRUE ORDER BY started DESC, run_id DESC LIMIT ?", vec![(newer.len() as i64 + 1).into()])
        } else if id.len() == 32 {
            ("trace = ?", vec![id.to_ascii_lowercase().into()])
        } else {
            let begin = id.to_ascii_uppercase();
            ("run_id >= ? AND run_id < ?", vec![begin.clone().into(), format!("{begin}~").into()])
        };
        let runs =
            self.summaries(&format!("SELECT json FROM runs JOIN summaries USING (id) WHERE {condition}"), values)?;
        self.with_newer(runs, newer)
    }

    fn with_newer(&self, mut runs: Vec<RunSummary>, newer: HashMap<RunId, RunSummary>) -> Result<Found> {
        runs.retain(|run| !newer.contains_key(&run.run_id));
        runs.extend(newer.into_values());
        let listed: HashSet<RunId> = runs.iter().map(|run| run.run_id).collect();
        let unread = self.unread()?.into_iter().filter(|run| !listed.contains(run)).collect();
        Ok(Found { runs, unread })
    }

    /// Counts the runs of which neither a line nor their own metadata tells, though they have begun.
    fn unreadable(&self) -> Result<u64> {
        let mut count = 0;
        for run in self.unread()? {
            let dir = self.layout.find_run(run)?;
            let is_begun = |dir: PathBuf| run_dir::is_begun(self.layout.fs(), &dir).unwrap_or(true);
            count += u64::from(dir.is_some_and(is_begun));
        }
        Ok(count)
    }

    /// Returns the runs of which no line tells.
    fn unread(&self) -> Result<Vec<RunId>> {
        let mut statement = self.connection.prepare_cached("SELECT run_id FROM unread")?;
        let unread = statement.query_map([], |row| row.get::<_, String>(0))?;
        let unread: std::result::Result<Vec<String>, _> = unread.collect();
        Ok(unread?.iter().filter_map(|run| run.parse().ok()).collect())
    }

    fn summaries(&self, statement: &str, values: Vec<Sql>) -> Result<Vec<RunSummary>> {
        let mut statement = self.connection.prepare_cached(statement)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let mut runs = Vec::new();
        while let Some(row) = rows.next()? {
            let json = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            runs.push(serde_json::from_str(json).map_err(|_| DatabaseError::foreign())?);
        }
        Ok(runs)
    }

    /// Reads the last lines of the runs that are not taken in yet.
    fn newer(&self) -> Result<HashMap<RunId, RunSummary>> {
        let log = match std::fs::File::open(self.layout.index_log()) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
            Err(error) => return Err(error.into()),
        };
        let place = Place::read(&self.connection)?;
        let length = log.metadata()?.len();
        let rest = usize::try_from(length.saturating_sub(place.bytes)).unwrap_or(usize::MAX);
        Ok(index::newest(&read_at(&log, place.bytes, rest)?))
    }
}

/// Keeps the databases of a store current from a thread of its own, so that nobody who asks has to, until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Keeper {
    /// Begins. `with_texts`: those are kept, too, if the store allows it. Without a thread whoever asks takes in what is
    /// new.
    pub fn start(layout: &Layout, with_texts: bool) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let layout = layout.clone();
        let keep = move || {
            be_modest();
            let mut seen = None;
            while stopped.recv_timeout(KEEP_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                let now = Some(traces(&layout));
                // Whatever is in the way, the next reader meets and mends it.
                if now != seen && is_wanted(&layout) && ask(&layout, |_| Ok(Found::default())).is_some() {
                    let is_stopped = || stopped.try_recv() != Err(mpsc::TryRecvError::Empty);
                    if keep_the_rest(&layout, with_texts, is_stopped).is_ok() {
                        seen = now;
                    }
                }
            }
        };
        Self {
            stop: std::thread::Builder::new().name("index".to_owned()).spawn(keep).ok().map(|thread| (stop, thread)),
        }
    }
}

/// Returns what shows that something has changed: how long the log is, and when runs came and went.
fn traces(layout: &Layout) -> [i64; 5] {
    let stat = |path: PathBuf| std::fs::metadata(path).ok();
    let time = |kind: RunKind| {
        let stat = stat(layout.runs(kind));
        stat.map_or([0, 0], |stat| [stat.mtime(), stat.mtime_nsec()])
    };
    let ([agents, agents_nanos], [flows, flows_nanos]) = (time(RunKind::Agent), time(RunKind::Workflow));
    let length = stat(layout.index_log()).map_or(0, |log| number(log.len()));
    [length, agents, agents_nanos, flows, flows_nanos]
}

/// Reads the steps and the texts of runs that are behind, until there are none or somebody wants to stop.
fn keep_the_rest(layout: &Layout, with_texts: bool, is_stopped: impl Fn() -> bool) -> Result<()> {
    let reader = FilesReader::of(layout.clone())?;
    let mut database = Database::open(layout)?;
    while database.catch_up_steps(&reader, GLIMPSE)?.left > 0 && !is_stopped() {}
    if with_texts && text::is_allowed(layout)? {
        let mut texts = text::Texts::open(layout)?;
        while texts.catch_up(&database, &reader, GLIMPSE)?.left > 0 && !is_stopped() {}
    } else {
        text::remove(layout)?;
    }
    Ok(())
}

/// Returns how many threads a machine has for somebody who waits.
fn all_threads() -> usize {
    const ENOUGH: usize = 8;
    std::thread::available_parallelism().map_or(1, |threads| threads.get().min(ENOUGH))
}

/// Does a work on so many threads, this one among them; the answers have the order of the items.
fn on_threads<T: Send, R: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let queue = Mutex::new(items.into_iter().enumerate());
    let work_off = || {
        let mut done = Vec::new();
        while let Some((place, item)) = queue.lock().ok().and_then(|mut queue| queue.next()) {
            done.push((place, work(item)));
        }
        done
    };
    let mut done = std::thread::scope(|scope| {
        // Where there is no thread to be had, the others do its part.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work_off).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let mut done = work_off();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, answer)| answer).collect()
}

/// Lets this thread go after all others that want to work.
fn be_modest() {
    // There the number means a thread, elsewhere the process.
    #[cfg(target_os = "linux")]
    // SAFETY: no memory is handed over; a system that refuses lets it run as before.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 10);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            drop(stop);
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

/// How far the log is taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Place {
    /// Which file it is.
    log: String,
    bytes: u64,
    /// What stands before that place.
    trace: Vec<u8>,
}

impl Place {
    fn read(connection: &Connection) -> Result<Self> {
        let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = 'log'")?;
        let text: Option<Vec<u8>> = statement.query_row([], |row| row.get(0)).optional()?;
        let read = || {
            let text = text?;
            let mut parts = text.splitn(3, |byte| *byte == b' ');
            let log = String::from_utf8(parts.next()?.to_vec()).ok()?;
            let bytes = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
            Some(Self { log, bytes, trace: parts.next()?.to_vec() })
        };
        Ok(read().unwrap_or_default())
    }

    fn write(&self, connection: &Connection) -> Result<()> {
        let text = [self.log.as_bytes(), b" ", self.bytes.to_string().as_bytes(), b" ", &self.trace].concat();
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('log', ?1)", [text])?;
        Ok(())
    }
}

fn trace_before(log: &std::fs::File, bytes: u64) -> io::Result<Vec<u8>> {
    let begin = bytes.saturating_sub(TRACE_BYTES);
    read_at(log, begin, (bytes - begin) as usize)
}

/// Reads up to so many bytes at an offset, fewer at the end of the file.
fn read_at(file: &std::fs::File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let there = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length.min(there)];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Writes the part of a query that tells which runs are asked for, of those that are over.
fn filter(query: &Query) -> (String, Vec<Sql>) {
    let (mut text, mut values) = (String::new(), Vec::new());
    let mut and = |condition: &str, value: Sql| {
        text.push_str(" AND ");
        text.push_str(condition);
        values.push(value);
    };
    if let Some(kind) = query.kind {
        and("kind = ?", kind.as_str().to_owned().into());
    }
    if let Some(status) = query.status {
        and("status = ?", status.as_str().to_owned().into());
    }
    for (condition, word) in [
        ("agent = ?", &query.agent_id),
        ("workflow = ?", &query.workflow_id),
        ("session = ?", &query.session_id),
        ("id IN (SELECT id FROM models WHERE model = ?)", &query.model),
    ] {
        if let Some(word) = word {
            and(condition, word.clone().into());
        }
    }
    if let Some(since) = query.since {
        and("started >= ?", number(since.0).into());
    }
    if let Some(until) = query.until {
        and("started < ?", number(until.0).into());
    }
    if let Some(cost) = query.min_cost {
        and("cost >= ?", cost.0.into());
    }
    if let Some(replays) = query.replays {
        and("replays = ?", i64::from(replays).into());
    }
    (text, values)
}

/// SQLite has no larger numbers, and time none that is.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn id_in(text: &str) -> Result<RunId> {
    text.parse().map_err(|_| DatabaseError::foreign())
}

/// Reads a number of `meta`.
fn read_meta(connection: &Connection, key: &str) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

fn write_meta(connection: &Connection, key: &str, value: i64) -> Result<()> {
    connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?.execute(params![key, value])?;
    Ok(())
}

/// Puts in a run, or what it is now. `change`: larger than that of any before.
fn put(connection: &Connection, run: RunId, summary: &RunSummary, change: i64) -> Result<()> {
    let id: i64 = connection
        .prepare_cached(
            "INSERT INTO runs (run_id, started, kind, status, agent, workflow, session, trace, cost, duration, tokens, \
             change, replays) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT (run_id) DO UPDATE SET started = ?2, \
             kind = ?3, status = ?4, agent = ?5, workflow = ?6, session = ?7, trace = ?8, cost = ?9, duration = ?10, \
             tokens = ?11, change = ?12, replays = ?13 RETURNING id",
        )?
        .query_row(
            params![
                run.to_string(),
                number(summary.started_at.0),
                summary.kind.as_str(),
                summary.status.as_str(),
                summary.agent_id,
                summary.workflow_id,
                summary.session_id,
                summary.trace_id.to_string(),
                summary.cost_usd.map(|cost| cost.0),
                summary.duration_ms.map(number),
                summary.tokens.and_then(|tokens| tokens.total).map(number),
                change,
                summary.replay_of.is_some(),
            ],
            |row| row.get(0),
        )?;
    let json = serde_json::to_string(summary).map_err(io::Error::other)?;
    connection.prepare_cached("INSERT OR REPLACE INTO summaries VALUES (?1, ?2)")?.execute(params![id, json])?;
    // A model that is no longer told is not taken back: what a run used, it used.
    for model in summary.models.iter().chain(&summary.model) {
        connection.prepare_cached("INSERT OR IGNORE INTO models VALUES (?1, ?2)")?.execute(params![model, id])?;
    }
    for tag in &summary.tags {
        connection.prepare_cached("INSERT OR IGNORE INTO tags VALUES (?1, ?2)")?.execute(params![tag, id])?;
    }
    connection.prepare_cached("DELETE FROM unread WHERE run_id = ?1")?.execute([run.to_string()])?;
    Ok(())
}

#[cfg(test)]
mod tests;
