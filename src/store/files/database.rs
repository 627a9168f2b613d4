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

mod catch_up;
mod check;
mod digest;
mod find;
mod keeper;
mod pattern;
mod sql;
mod stats;
mod steps;
pub mod text;
mod using;
mod words;

use catch_up::put;
pub(super) use check::{Checked, check};
use find::filter;
pub use keeper::Keeper;
pub use sql::{SqlAnswer, SqlError, SqlLimits, VIEWS, View, ViewColumn};
pub use stats::{By, Counted, ErrorExample, ErrorGroup, Group, Percentiles, Stats};
use steps::Behind;
pub use steps::StepsReached;
use using::Using;
pub use words::QueryError;

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};

use super::FilesReader;
use super::layout::Layout;
use crate::model::{RunId, RunSummary};
use crate::store::StoreError;

/// Raised when the tables change: what an older version has made is made anew.
const VERSION: i64 = 5;
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
/// How often a question is asked again while others make the database anew.
const TRIES: usize = 3;
/// How often progress is told.
const GLIMPSE: Duration = Duration::from_millis(100);

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
    /// Let go of behind the connection.
    _using: Using,
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
    /// Tells whether it is used by another process, and nothing else is wrong.
    fn is_in_use(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

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

/// Makes the database anew from the store; `progress` is told how far it is. Returns how many runs it has.
///
/// The file is deleted, unless other processes have it open: then it is emptied, and they read on in what comes.
///
/// # Errors
///
/// When the store cannot be read, or the file not be written.
pub fn rebuild(layout: &Layout, mut progress: impl FnMut(Reached)) -> Result<u64> {
    layout.read()?;
    let mut database = match remove(layout) {
        Err(error) if error.is_in_use() => match Database::open(layout).and_then(Database::emptied) {
            // Nobody can read on in it: whoever has it open is about to let go.
            Err(DatabaseError::Damaged(_)) => {
                remove_file(&path(layout), LONG_PATIENCE)?;
                Database::open(layout)?
            }
            emptied => emptied?,
        },
        removed => removed.and_then(|()| Database::open(layout))?,
    };
    database.connection.busy_timeout(LONG_PATIENCE)?;
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
        for _ in 0..TRIES {
            let mut database = Database::open(layout)?;
            database.connection.busy_timeout(LONG_PATIENCE)?;
            let identity = database.identity()?;
            database.complete_runs(progress)?;
            database.complete_to(depth, reader, progress)?;
            if database.identity()? == identity {
                return Ok(database);
            }
            // It was new, or another process has made it anew meanwhile.
        }
        Err(io::Error::from(io::ErrorKind::WouldBlock).into())
    };
    let opened = match own() {
        Err(DatabaseError::Damaged(_)) => remove(layout).and_then(|()| own()),
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
    let mut once = || {
        for _ in 0..TRIES {
            let database = whole(reader, depth, progress)?;
            let identity = database.identity()?;
            let answer = question(&database)?;
            if database.identity()? == identity {
                return Ok(answer);
            }
            // Another process made it anew meanwhile.
        }
        temporary(reader, depth, progress).and_then(|database| question(&database))
    };
    let answer = match once() {
        Err(DatabaseError::Damaged(_)) if remove(reader.layout()).is_ok() => once(),
        answer => answer,
    };
    match answer {
        // Others have it open, and are about to meet the same; or they keep it to themselves for long.
        Err(DatabaseError::Damaged(_) | DatabaseError::Busy(_) | DatabaseError::Io(_)) => {
            temporary(reader, depth, progress).and_then(|database| question(&database))
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
    ask_within(layout, MMAP_BYTES, ask)
}

/// The same, with so many bytes of the file in memory at most.
fn ask_within(layout: &Layout, mapped: i64, ask: impl Fn(&Database) -> Result<Found>) -> Option<Found> {
    let once = || {
        for _ in 0..TRIES {
            let mut database = Database::open(layout)?.with_mapped(mapped)?;
            let identity = database.identity()?;
            let reached = database.catch_up(MOMENT)?;
            if !reached.is_whole {
                break;
            }
            let found = ask(&database)?;
            if database.identity()? == identity {
                return Ok(Some(found));
            }
            // It was new, or another process has made it anew meanwhile.
        }
        Ok(None)
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
        let _ =
            ask_within(layout, keeper::MAPPED, |database| text::forget_in(layout, database).map(|()| Found::default()));
    }
}

fn remove(layout: &Layout) -> Result<()> {
    remove_file(&path(layout), PATIENCE)
}

/// Deletes a database with what SQLite may have put beside it, unless it stays in use.
fn remove_file(path: &Path, patience: Duration) -> Result<()> {
    let files = ["", "-journal", "-wal", "-shm"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    });
    if !files.iter().any(|file| file.exists()) {
        return Ok(());
    }
    let _using = Using::none(path, patience)?;
    for file in files {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Opens a database, made empty if it is not there, for its owner alone.
fn open_file(path: &Path) -> Result<(Using, Connection)> {
    let using = Using::of(path)?;
    // SQLite would let everybody read it.
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error.into());
    }
    let connection = Connection::open(path)?;
    Ok((using, connection))
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

/// Takes everything out of the tables, but for the words, whose numbers others remember.
fn empty(connection: &Connection) -> Result<()> {
    connection.execute_batch(
        "DELETE FROM runs; DELETE FROM models; DELETE FROM tags; DELETE FROM summaries; DELETE FROM unread; \
         DELETE FROM steps; DELETE FROM errors; DELETE FROM totals; DELETE FROM meta WHERE key <> 'change';",
    )?;
    write_identity(connection)
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
        Self::of((Using::ALONE, Connection::open("")?), layout)
    }

    fn of((using, mut connection): (Using, Connection), layout: &Layout) -> Result<Self> {
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.pragma_update(None, "mmap_size", MMAP_BYTES)?;
        // What runs said in their errors goes with them.
        connection.pragma_update(None, "secure_delete", true)?;
        make_tables(&mut connection, VERSION, &[TABLES, steps::TABLES])?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection, layout: layout.clone(), words: Words::default(), threads: 1, _using: using })
    }

    /// The same without anything in it, for everybody who has it open.
    fn emptied(mut self) -> Result<Self> {
        self.connection.busy_timeout(LONG_PATIENCE)?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        empty(&transaction)?;
        transaction.commit()?;
        Ok(self)
    }

    /// Returns the number by which others know whether it began anew.
    fn identity(&self) -> Result<Option<i64>> {
        read_meta(&self.connection, "identity")
    }

    /// The same, with so many bytes of the file in memory at most.
    fn with_mapped(self, bytes: i64) -> Result<Self> {
        self.connection.pragma_update(None, "mmap_size", bytes)?;
        Ok(self)
    }

    /// Tells whether nobody else sees it.
    fn is_temporary(&self) -> bool {
        self.connection.path().is_none_or(str::is_empty)
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

#[cfg(test)]
mod tests;
