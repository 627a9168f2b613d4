//! `text.sqlite`: the texts of runs, to be searched.
//!
//! It is derived as `index.sqlite` is, and follows the same numbers of changes, in a file of its own: the index of the
//! runs stays small, and whoever wants no texts in a second place deletes it and switches it off. A row of the FTS5 table is
//! a step, or what a run says besides its steps; a text that recurs in a run, as a conversation does with each call, is there
//! once, where it was first told. Rows are numbered by the start of their run, so the newest runs are the last rows, and
//! those of a run stand together.
//!
//! A query is not handed to FTS5: each word of it is looked up alone, and runs that have what is asked for are found by
//! going down from the newest from one word's next run to the other's. So AND means a run and not a row, and nothing that
//! was typed is read as syntax.

mod find;
mod gather;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Behind, Database, DatabaseError, Progress, Result, Using, number, read_meta, write_meta};
use crate::model::RunSummary;
use crate::store::StoreError;
use crate::store::files::FilesReader;
use crate::store::files::layout::Layout;
pub use find::{FoundRun, Hit, SearchError, Wanted, check, search};
pub(super) use gather::spaced;
use gather::{Field, Row, rows_of};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// Raised when the tables or what is in them change.
const VERSION: i64 = 1;
/// The fields of a query, and the columns of the table.
pub(super) const FIELDS: &[&str] = &["input", "output", "arguments", "result", "error", "log"];
/// Runs that are read before they are put in.
const BATCH: usize = 512;
/// Bytes of text that are held in memory before they are put in, those of the last wave aside.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// Rows that have room in a millisecond: the number of a row is its run's start, then its place.
const PLACE_BITS: u32 = 22;
/// From when on runs are told apart by their start: 2020.
const EPOCH_MS: u64 = 1_577_836_800_000;

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        first INTEGER NOT NULL,
        count INTEGER NOT NULL,
        stamp TEXT NOT NULL,
        log_bytes INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX runs_first ON runs (first, count) WHERE count > 0;
    CREATE VIRTUAL TABLE texts USING fts5(
        step UNINDEXED, kind UNINDEXED, input, output, arguments, result, error, log,
        columnsize = 0, tokenize = 'unicode61 remove_diacritics 2'
    );
    INSERT INTO texts (texts, rank) VALUES ('secure-delete', 1), ('hashsize', 16777216);
";

/// The texts of a store's runs.
#[derive(Debug)]
pub struct Texts {
    connection: Connection,
    /// How many threads read logs: one, unless somebody waits.
    threads: usize,
    /// Let go of behind the connection.
    _using: Using,
}

/// Where a store's texts are switched off, or by which variable.
pub const SEARCH_VARIABLE: &str = "RUNSPAN_SEARCH";

/// Returns where the texts of a store are.
pub fn path(layout: &Layout) -> PathBuf {
    layout.root().join("text.sqlite")
}

/// Tells whether the texts of a store may be kept: neither the store nor the environment says no.
///
/// # Errors
///
/// When the store cannot be read.
pub fn is_allowed(layout: &Layout) -> std::result::Result<bool, StoreError> {
    // Whoever wrote something else there did not mean yes.
    let word = std::env::var(SEARCH_VARIABLE).unwrap_or_default();
    let is_off = !word.trim().is_empty() && !word.trim().eq_ignore_ascii_case("on");
    Ok(!is_off && layout.read()?.search)
}

/// Deletes the texts of a store. They are derived: a search makes them anew.
///
/// # Errors
///
/// When the file cannot be deleted.
pub fn remove(layout: &Layout) -> Result<()> {
    super::remove_file(&path(layout), super::PATIENCE)
}

/// Opens the texts of a store and takes in all there is. `index` has to know all runs. Where the store's own cannot be
/// written, they are read for this once.
fn whole(index: &Database, reader: &FilesReader, progress: &mut dyn FnMut(Progress)) -> Result<Texts> {
    let layout = reader.layout();
    let temporary = |progress: &mut dyn FnMut(Progress)| {
        let mut texts = Texts::of((Using::ALONE, Connection::open("")?))?;
        texts.complete(index, reader, progress)?;
        Ok(texts)
    };
    if !layout.is_of_the_system() || index.is_temporary() {
        return temporary(progress);
    }
    let own = |progress: &mut dyn FnMut(Progress)| {
        let mut texts = Texts::open(layout)?;
        texts.connection.busy_timeout(super::LONG_PATIENCE)?;
        texts.complete(index, reader, progress)?;
        Ok(texts)
    };
    let opened = match own(progress) {
        Err(DatabaseError::Damaged(_)) => remove(layout).and_then(|()| own(progress)),
        opened => opened,
    };
    match opened {
        Err(DatabaseError::Busy(_) | DatabaseError::Io(_)) => temporary(progress),
        opened => opened,
    }
}

/// Makes the texts of a store anew; `index` has to know all runs. The file is deleted, unless other processes have it open: then it
/// is emptied.
///
/// # Errors
///
/// When the store cannot be read, or no database be made.
pub fn rebuild(index: &Database, reader: &FilesReader, progress: &mut dyn FnMut(Progress)) -> Result<()> {
    match remove(reader.layout()) {
        Err(error) if error.is_in_use() => Texts::open(reader.layout())?.empty()?,
        removed => removed?,
    }
    whole(index, reader, progress).map(drop)
}

/// What is known of a run whose texts are there.
struct Known {
    first: i64,
    count: i64,
    stamp: String,
    log_bytes: i64,
}

/// A run's texts.
struct Read {
    known: RunSummary,
    log_bytes: u64,
    rows: Vec<Row>,
}

/// Takes the texts of runs that the index has not any more out of the store's, if it has any.
pub(super) fn forget_in(layout: &Layout, index: &Database) -> Result<()> {
    if path(layout).exists() { Texts::open(layout)?.forget_the_gone(index) } else { Ok(()) }
}

impl Texts {
    /// Opens the texts of a store, and makes an empty file where there is none that this version can use.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or not be made.
    pub fn open(layout: &Layout) -> Result<Self> {
        let open = || Self::of(super::open_file(&path(layout))?);
        match open() {
            Err(DatabaseError::Damaged(_)) => {
                remove(layout)?;
                open()
            }
            opened => opened,
        }
    }

    fn of((using, mut connection): (Using, Connection)) -> Result<Self> {
        connection.busy_timeout(super::PATIENCE)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.pragma_update(None, "mmap_size", super::MMAP_BYTES)?;
        connection.pragma_update(None, "secure_delete", true)?;
        super::make_tables(&mut connection, VERSION, &[TABLES])?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection, threads: 1, _using: using })
    }

    /// The same, with so many bytes of the file in memory at most.
    pub(super) fn with_mapped(self, bytes: i64) -> Result<Self> {
        self.connection.pragma_update(None, "mmap_size", bytes)?;
        Ok(self)
    }

    fn complete(&mut self, index: &Database, reader: &FilesReader, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        self.threads = super::all_threads();
        let (mut done, mut of) = (0, 0);
        loop {
            let reached = self.catch_up(index, reader, super::GLIMPSE)?;
            if reached.left == 0 {
                return Ok(());
            }
            done += reached.done;
            of = of.max(done + reached.left);
            progress(Progress::Texts { done, of });
        }
    }

    /// Takes in the texts of runs that are behind, for about so long; takes out those of runs that are gone.
    ///
    /// # Errors
    ///
    /// When a database or the store cannot be used. A run that cannot be read has no texts.
    pub fn catch_up(&mut self, index: &Database, reader: &FilesReader, limit: Duration) -> Result<super::StepsReached> {
        let begun = Instant::now();
        self.forget_the_gone(index)?;
        let mut done = 0;
        loop {
            let reached = self.reached()?;
            let behind = index.behind(reached, BATCH)?;
            if behind.is_empty() {
                done += self.take_grown(index, reader)?;
                return Ok(super::StepsReached { done, left: 0 });
            }
            done += self.take_texts(reader, reached, behind)?;
            if begun.elapsed() >= limit {
                return Ok(super::StepsReached { done, left: index.behind_of(read_meta(&self.connection, "texts")?)? });
            }
        }
    }

    /// Takes out the runs that the index has not any more, if it has lost any.
    fn forget_the_gone(&mut self, index: &Database) -> Result<()> {
        let noted = |connection: &Connection| -> Result<[i64; 2]> {
            let note = |key: &str| Ok::<i64, DatabaseError>(read_meta(connection, key)?.unwrap_or(0));
            Ok([note("identity")?, note("removals")?])
        };
        let (theirs, ours) = (noted(&index.connection)?, noted(&self.connection)?);
        if theirs == ours {
            return Ok(());
        }
        let there = index.run_ids()?;
        self.forget_all_but(&there, |transaction| {
            if theirs[0] != ours[0] {
                // Another index counts changes anew; runs that are as they were are passed over.
                write_meta(transaction, "texts", 0)?;
            }
            write_meta(transaction, "identity", theirs[0])?;
            write_meta(transaction, "removals", theirs[1])
        })
    }

    /// Returns up to which change of the index it has the texts.
    fn reached(&self) -> Result<i64> {
        Ok(read_meta(&self.connection, "texts")?.unwrap_or(0))
    }

    /// Takes everything out, for everybody who has it open.
    fn empty(&mut self) -> Result<()> {
        self.connection.busy_timeout(super::LONG_PATIENCE)?;
        self.forget_all_but(&HashSet::new(), |transaction| write_meta(transaction, "texts", 0))
    }

    fn forget_all_but(&mut self, there: &HashSet<String>, note: impl FnOnce(&Connection) -> Result<()>) -> Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let gone: Vec<String> = {
            let mut statement = transaction.prepare("SELECT run_id FROM runs")?;
            let all = statement.query_map([], |row| row.get::<_, String>(0))?;
            let all: std::result::Result<Vec<String>, _> = all.collect();
            all?.into_iter().filter(|run| !there.contains(run)).collect()
        };
        for run in gone {
            forget(&transaction, &run)?;
        }
        note(&transaction)?;
        Ok(transaction.commit()?)
    }

    /// Reads runs and puts their texts in, unless somebody else has by then. Returns how many.
    fn take_texts(&mut self, reader: &FilesReader, reached: i64, behind: Vec<Behind>) -> Result<u64> {
        let (mut read, mut bytes, mut log_bytes) = (Vec::new(), 0, 0);
        let (mut last, mut passed) = (reached, 0);
        let mut behind = behind.into_iter();
        while bytes <= MAX_BATCH_BYTES && log_bytes <= super::steps::MAX_LOG_BYTES {
            let some: Vec<Behind> = behind.by_ref().take(super::steps::WAVE * self.threads).collect();
            let Some(newest) = some.last() else { break };
            (last, passed) = (newest.change, passed + some.len() as u64);
            let mut changed = Vec::new();
            for run in some {
                let known = self.known(&run.known.run_id.to_string())?;
                if run.known.status.is_open() || known.is_none_or(|known| known.stamp != stamp(&run.known)) {
                    changed.push(run.known);
                }
            }
            for run in super::on_threads(self.threads, changed, |known| read_texts(reader, known)) {
                let run = run?;
                log_bytes += run.log_bytes;
                bytes += run.rows.iter().map(Row::bytes).sum::<usize>();
                read.push(run);
            }
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if read_meta(&transaction, "texts")?.unwrap_or(0) != reached {
            return Ok(0);
        }
        for run in &read {
            put(&transaction, run)?;
        }
        write_meta(&transaction, "texts", last)?;
        transaction.commit()?;
        Ok(passed)
    }

    /// Reads the texts of runs under way again whose logs have grown.
    fn take_grown(&mut self, index: &Database, reader: &FilesReader) -> Result<u64> {
        let mut done = 0;
        for behind in index.open_runs()? {
            let taken = self.known(&behind.known.run_id.to_string())?.map(|known| known.log_bytes);
            if taken == Some(number(super::steps::log_bytes(reader, behind.known.run_id)?)) {
                continue;
            }
            let read = read_texts(reader, behind.known)?;
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            put(&transaction, &read)?;
            transaction.commit()?;
            done += 1;
        }
        Ok(done)
    }

    fn known(&self, run: &str) -> Result<Option<Known>> {
        known(&self.connection, run)
    }
}

fn known(connection: &Connection, run: &str) -> Result<Option<Known>> {
    let mut statement =
        connection.prepare_cached("SELECT first, count, stamp, log_bytes FROM runs WHERE run_id = ?1")?;
    let known = statement.query_row([run], |row| {
        Ok(Known { first: row.get(0)?, count: row.get(1)?, stamp: row.get(2)?, log_bytes: row.get(3)? })
    });
    Ok(known.optional()?)
}

/// Tells one state of a run from another.
fn stamp(run: &RunSummary) -> String {
    format!("{}:{}", run.events, run.updated_at.millis())
}

fn forget(connection: &Connection, run: &str) -> Result<()> {
    let Some(known) = known(connection, run)? else { return Ok(()) };
    connection
        .prepare_cached("DELETE FROM texts WHERE rowid >= ?1 AND rowid < ?2")?
        .execute([known.first, known.first + known.count])?;
    connection.prepare_cached("DELETE FROM runs WHERE run_id = ?1")?.execute([run])?;
    Ok(())
}

fn put(connection: &Connection, read: &Read) -> Result<()> {
    let run = read.known.run_id.to_string();
    forget(connection, &run)?;
    let count = i64::try_from(read.rows.len()).unwrap_or(0).min((1 << PLACE_BITS) - 1);
    let first = free_place(connection, &read.known, count)?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO texts (rowid, step, kind, input, output, arguments, result, error, log) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for (row, id) in read.rows.iter().zip(first..first + count) {
        let [input, output, arguments, result, error, log] = row.fields.each_ref().map(Field::text);
        statement.execute(params![id, row.step, row.kind, input, output, arguments, result, error, log])?;
    }
    connection.prepare_cached("INSERT INTO runs VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        run,
        first,
        count,
        stamp(&read.known),
        number(read.log_bytes)
    ])?;
    Ok(())
}

/// Finds free numbers for the rows of a run, by its start, behind those of others that began in the same millisecond.
fn free_place(connection: &Connection, run: &RunSummary, count: i64) -> Result<i64> {
    let last = (1_i64 << (63 - PLACE_BITS)) - 2;
    let mut millis = i64::try_from(run.started_at.millis().saturating_sub(EPOCH_MS)).unwrap_or(last).min(last);
    loop {
        let (begin, end) = (millis << PLACE_BITS, (millis + 1) << PLACE_BITS);
        let taken: Option<i64> = connection
            .prepare_cached("SELECT max(first + count) FROM runs WHERE count > 0 AND first >= ?1 AND first < ?2")?
            .query_row([begin, end], |row| row.get(0))?;
        let first = taken.unwrap_or(begin);
        if first + count <= end || millis >= last {
            return Ok(first);
        }
        millis += 1;
    }
}

fn read_texts(reader: &FilesReader, known: RunSummary) -> Result<Read> {
    // Before its events: what is appended meanwhile is taken for new.
    let log_bytes = super::steps::log_bytes(reader, known.run_id)?;
    let rows = match reader.read_events(&known) {
        Ok(events) => rows_of(&events),
        Err(error) if error.is_out_of_resources() => return Err(error.into()),
        // `list` and `stats` say so.
        Err(_) => Vec::new(),
    };
    Ok(Read { known, log_bytes, rows })
}

impl Database {
    fn run_ids(&self) -> Result<HashSet<String>> {
        let mut statement = self.connection.prepare("SELECT run_id FROM runs")?;
        let runs = statement.query_map([], |row| row.get(0))?;
        Ok(runs.collect::<std::result::Result<_, _>>()?)
    }
}
