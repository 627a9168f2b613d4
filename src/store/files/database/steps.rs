//! The second phase of the index: the steps of the runs, which only their own logs tell.
//!
//! It follows the runs by the number of their last change, so a run that is told again is read again. Logs are read
//! outside of transactions; what was read is put in if nobody was faster. Runs under way are read again when their log
//! has grown.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::digest::{Digest, Row, digest};
use super::{Database, DatabaseError, Result, id_in, number, pattern::pattern, put, read_meta, write_meta};
use crate::error::with_causes;
use crate::model::{ErrorInfo, RunId, RunStatus, RunSummary, SpanId};
use crate::store::StoreError;
use crate::store::files::sealed::sealed_file;
use crate::store::files::{FilesReader, run_dir};

/// Runs that are read before they are put in.
const BATCH: usize = 256;
/// Runs that each thread reads at a time: some are long, and somebody may want to stop.
pub(super) const WAVE: usize = 4;
/// Bytes of logs that are read before the steps are put in, those of the last wave aside.
pub(super) const MAX_LOG_BYTES: u64 = 64 << 20;
/// Steps that are held in memory before they are put in, those of the last wave aside.
const MAX_ROWS: usize = 20_000;
/// A step's number is its run's, and its place in the run in so many bits: a run has at most 100 MB.
const PLACE_BITS: u32 = 24;
/// Words whose numbers are remembered.
const MAX_WORDS: usize = 100_000;

pub(super) const TABLES: &str = "
    CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE);
    CREATE TABLE totals (
        id INTEGER PRIMARY KEY,
        status TEXT NOT NULL,
        prompt INTEGER, completion INTEGER, total INTEGER, cache_read INTEGER, cache_write INTEGER, reasoning INTEGER,
        cost INTEGER,
        unpriced INTEGER NOT NULL,
        duration INTEGER,
        errors INTEGER NOT NULL,
        llm_calls INTEGER NOT NULL,
        tool_calls INTEGER NOT NULL,
        steps INTEGER NOT NULL,
        log_bytes INTEGER NOT NULL,
        live TEXT,
        trouble TEXT
    );
    CREATE TABLE steps (
        id INTEGER PRIMARY KEY,
        -- What sums are made of stands first: a row is read from its beginning.
        counts INTEGER NOT NULL, kind INTEGER NOT NULL, status INTEGER NOT NULL,
        provider INTEGER, model INTEGER, tool INTEGER, duration INTEGER, first_token INTEGER,
        prompt INTEGER, completion INTEGER, total INTEGER, cache_read INTEGER, cache_write INTEGER, reasoning INTEGER,
        cost INTEGER, caused_tokens INTEGER, caused_cost INTEGER,
        step INTEGER NOT NULL, name INTEGER NOT NULL, agent INTEGER, source INTEGER, copy_of INTEGER,
        started INTEGER NOT NULL, span INTEGER NOT NULL, parent INTEGER
    );
    CREATE INDEX steps_first_token ON steps (first_token) WHERE first_token IS NOT NULL;
    CREATE INDEX steps_caused ON steps (caused_tokens) WHERE caused_tokens IS NOT NULL;
    CREATE TABLE errors (id INTEGER PRIMARY KEY, counts INTEGER NOT NULL, type TEXT, pattern TEXT, message TEXT);
";

/// What of a step counts, as bits of `steps.counts`.
pub(super) mod counts {
    pub const CALL: i64 = 1;
    pub const TOOL_CALL: i64 = 2;
    pub const TOKENS: i64 = 4;
    pub const COST: i64 = 8;
    pub const UNPRICED: i64 = 16;
    pub const FAILURE: i64 = 32;
}

/// How far the steps are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepsReached {
    /// Runs whose steps were read by this call.
    pub done: u64,
    /// Runs whose steps are behind.
    pub left: u64,
}

/// A run that is behind.
pub(super) struct Behind {
    pub id: i64,
    pub change: i64,
    pub known: RunSummary,
}

/// A run that was read, or why it could not be.
struct Read {
    behind: Behind,
    log_bytes: u64,
    digest: std::result::Result<Digest, String>,
}

impl Database {
    /// Reads the steps of runs that are behind, for about so long.
    ///
    /// # Errors
    ///
    /// When the database or the store cannot be used. A run that cannot be read is noted as such and costs itself.
    pub fn catch_up_steps(&mut self, reader: &FilesReader, limit: Duration) -> Result<StepsReached> {
        let begun = Instant::now();
        self.take_unread(reader)?;
        let mut done = 0;
        loop {
            let reached = read_meta(&self.connection, "steps")?.unwrap_or(0);
            let behind = self.behind(reached, BATCH)?;
            if behind.is_empty() {
                done += self.take_grown(reader)?;
                return Ok(StepsReached { done, left: 0 });
            }
            done += self.take_steps(reader, reached, behind)?;
            if begun.elapsed() >= limit {
                return Ok(StepsReached { done, left: self.runs_behind()? });
            }
        }
    }

    /// Returns how many runs are behind.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn runs_behind(&self) -> Result<u64> {
        self.behind_of(read_meta(&self.connection, "steps")?)
    }

    /// Returns how many runs changed after the change `reached`.
    pub(super) fn behind_of(&self, reached: Option<i64>) -> Result<u64> {
        let mut statement = self.connection.prepare_cached("SELECT count(*) FROM runs WHERE change > ?1")?;
        let left: i64 = statement.query_row([reached.unwrap_or(0)], |row| row.get(0))?;
        Ok(left.try_into().unwrap_or(0))
    }

    /// Returns the runs that were under way when they last told of themselves.
    pub(super) fn open_runs(&self) -> Result<Vec<Behind>> {
        self.read_behind(
            "SELECT id, change, json FROM runs JOIN summaries USING (id) WHERE status IN ('running', 'waiting')",
            [],
        )
    }

    /// Returns the first runs that changed after the change `reached`.
    pub(super) fn behind(&self, reached: i64, limit: usize) -> Result<Vec<Behind>> {
        self.read_behind(
            "SELECT id, change, json FROM runs JOIN summaries USING (id) WHERE change > ?1 ORDER BY change LIMIT ?2",
            params![reached, number(limit as u64)],
        )
    }

    fn read_behind(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<Behind>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        let mut behind = Vec::new();
        while let Some(row) = rows.next()? {
            let json = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            let known = serde_json::from_str(json).map_err(|_| DatabaseError::foreign())?;
            behind.push(Behind { id: row.get(0)?, change: row.get(1)?, known });
        }
        Ok(behind)
    }

    /// Reads runs and puts in what was read, unless somebody else has by then. Returns how many.
    fn take_steps(&mut self, reader: &FilesReader, reached: i64, behind: Vec<Behind>) -> Result<u64> {
        let read = read_some(reader, &mut behind.into_iter(), self.threads)?;
        let Some(last) = read.last().map(|read| read.behind.change) else { return Ok(0) };
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if read_meta(&transaction, "steps")?.unwrap_or(0) != reached {
            return Ok(0);
        }
        let put = put_all(&transaction, &mut self.words, &read).and_then(|()| write_meta(&transaction, "steps", last));
        if let Err(error) = put.and_then(|()| Ok(transaction.commit()?)) {
            // Their numbers went with the transaction.
            self.words.clear();
            return Err(error);
        }
        Ok(read.len() as u64)
    }

    /// Reads runs under way again whose logs have grown, or whose process has died and nobody could write that down.
    fn take_grown(&mut self, reader: &FilesReader) -> Result<u64> {
        let open: Vec<(i64, String, Option<i64>, Option<String>)> = {
            let mut statement = self.connection.prepare_cached(
                "SELECT id, run_id, log_bytes, totals.status FROM runs LEFT JOIN totals USING (id) \
                 WHERE runs.status IN ('running', 'waiting')",
            )?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
            rows.collect::<std::result::Result<_, _>>()?
        };
        let mut grown = Vec::new();
        for (id, run, taken, status) in open {
            let has_grown = taken != Some(number(log_bytes(reader, id_in(&run)?)?));
            let may_have_died = status.as_deref() == Some(RunStatus::Running.as_str());
            if !has_grown && !may_have_died {
                continue;
            }
            let known = self
                .read_behind("SELECT id, change, json FROM runs JOIN summaries USING (id) WHERE id = ?1", [id])?
                .into_iter()
                .filter(|run| has_grown || run.known.writer.is_some_and(|writer| reader.is_dead(writer)));
            grown.extend(known);
        }
        let (mut done, mut grown) = (0, grown.into_iter());
        loop {
            let read = read_some(reader, &mut grown, self.threads)?;
            if read.is_empty() {
                return Ok(done);
            }
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let put = put_all(&transaction, &mut self.words, &read);
            if let Err(error) = put.and_then(|()| Ok(transaction.commit()?)) {
                self.words.clear();
                return Err(error);
            }
            done += read.len() as u64;
        }
    }

    /// Takes in the runs of which no line tells, by their own metadata. Those that cannot be read stay where they are.
    pub(super) fn take_unread(&mut self, reader: &FilesReader) -> Result<()> {
        let unread = self.unread()?;
        let mut found = Vec::new();
        for run in unread {
            let Some(dir) = reader.layout().find_run(run)? else { continue };
            if let Ok(summary) = run_dir::read_summary(reader.layout().fs(), &dir, run) {
                found.push(RunSummary { steps: None, ..summary });
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        self.put_runs(&found)
    }

    /// Puts in runs of which no line of the log tells.
    pub(super) fn put_runs(&mut self, runs: &[RunSummary]) -> Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut change = read_meta(&transaction, "change")?.unwrap_or(0);
        for summary in runs {
            change += 1;
            put(&transaction, summary.run_id, summary, change)?;
        }
        write_meta(&transaction, "change", change)?;
        Ok(transaction.commit()?)
    }
}

/// Reads runs, until they or the steps in memory are many.
fn read_some(reader: &FilesReader, behind: &mut impl Iterator<Item = Behind>, threads: usize) -> Result<Vec<Read>> {
    let (mut read, mut rows, mut bytes) = (Vec::new(), 0, 0);
    while rows <= MAX_ROWS && bytes <= MAX_LOG_BYTES && read.len() < BATCH {
        let some: Vec<Behind> = behind.take(WAVE * threads).collect();
        if some.is_empty() {
            break;
        }
        for run in super::on_threads(threads, some, |behind| read_one(reader, behind)) {
            let run = run?;
            bytes += run.log_bytes;
            rows += run.digest.as_ref().map_or(0, |digest| digest.steps.len());
            read.push(run);
        }
    }
    Ok(read)
}

fn read_one(reader: &FilesReader, behind: Behind) -> Result<Read> {
    // Before its events: what is appended meanwhile is taken for new.
    let log_bytes = log_bytes(reader, behind.known.run_id)?;
    let digest = match digest(reader, &behind.known) {
        Err(error) if error.is_out_of_resources() => return Err(error.into()),
        digest => digest.map_err(|error| with_causes(&error)),
    };
    Ok(Read { behind, log_bytes, digest })
}

/// Returns how long the log of a run is on the disk, sealed or not.
pub(super) fn log_bytes(reader: &FilesReader, run: RunId) -> std::result::Result<u64, StoreError> {
    let layout = reader.layout();
    let Some(dir) = layout.find_run(run)? else { return Ok(0) };
    let log = run_dir::events_file(&dir);
    let found = layout.fs().stat(&log).or_else(|_| layout.fs().stat(&sealed_file(&log)));
    Ok(found.map_or(0, |found| found.len))
}

fn put_all(transaction: &Transaction<'_>, words: &mut super::Words, read: &[Read]) -> Result<()> {
    // Numbers that another process's rebuilding has made void would be worse than none.
    if words.len() > MAX_WORDS {
        words.clear();
    }
    for read in read {
        let change: Option<i64> = transaction
            .prepare_cached("SELECT change FROM runs WHERE id = ?1 AND run_id = ?2")?
            .query_row(params![read.behind.id, read.behind.known.run_id.to_string()], |row| row.get(0))
            .optional()?;
        // Changed once more: it will come again. Or gone.
        if change != Some(read.behind.change) {
            continue;
        }
        forget(transaction, read.behind.id)?;
        put_run(transaction, words, read)?;
    }
    Ok(())
}

/// Takes out what is known of a run's steps.
pub(super) fn forget(connection: &Connection, run: i64) -> Result<()> {
    let (first, last) = (step_number(run, 0), step_number(run + 1, 0));
    connection.prepare_cached("DELETE FROM steps WHERE id >= ?1 AND id < ?2")?.execute([first, last])?;
    connection.prepare_cached("DELETE FROM errors WHERE id >= ?1 AND id < ?2")?.execute([first, last])?;
    connection.prepare_cached("DELETE FROM totals WHERE id = ?1")?.execute([run])?;
    Ok(())
}

/// Returns the number of a step.
pub(super) fn step_number(run: i64, place: usize) -> i64 {
    let place = i64::try_from(place).unwrap_or(i64::MAX).min((1 << PLACE_BITS) - 1);
    run.saturating_mul(1 << PLACE_BITS).saturating_add(place)
}

/// Returns the run of a step.
pub(super) fn run_of(step: i64) -> i64 {
    step >> PLACE_BITS
}

fn put_run(transaction: &Transaction<'_>, words: &mut super::Words, read: &Read) -> Result<()> {
    let id = read.behind.id;
    let run = read.digest.as_ref().map_or(&read.behind.known, |digest| &digest.run);
    let tokens = run.tokens.unwrap_or_default();
    let live = match &read.digest {
        Ok(digest) if read.behind.known.status.is_open() => {
            Some(serde_json::to_string(&digest.run).map_err(std::io::Error::other)?)
        }
        _ => None,
    };
    transaction
        .prepare_cached(
            "INSERT INTO totals VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
        )?
        .execute(params![
            id,
            run.status.as_str(),
            tokens.prompt.map(number),
            tokens.completion.map(number),
            tokens.total.map(number),
            tokens.cache_read.map(number),
            tokens.cache_write.map(number),
            tokens.reasoning.map(number),
            run.cost_usd.map(|cost| cost.0),
            number(run.unpriced_steps),
            run.duration_ms.map(number),
            number(run.errors),
            number(run.llm_calls),
            number(run.tool_calls),
            number(run.steps_total),
            number(read.log_bytes),
            live,
            read.digest.as_ref().err(),
        ])?;
    let Ok(digest) = &read.digest else { return Ok(()) };
    for (place, row) in digest.steps.iter().enumerate() {
        let step = step_number(id, place);
        put_step(transaction, words, step, row)?;
        if let Some(error) = &row.account.error {
            put_error(transaction, step, row.account.is_failure, error)?;
        }
    }
    Ok(())
}

fn put_step(transaction: &Transaction<'_>, words: &mut super::Words, id: i64, row: &Row) -> Result<()> {
    let step = &row.account;
    let tokens = step.tokens.unwrap_or_default();
    let mut word = |text: &str| words.number(transaction, text);
    let kind = word(step.kind.as_str())?;
    let status = word(step.status.as_str())?;
    let name = word(&step.name)?;
    let step_id = word(&step.step_id)?;
    let mut maybe = |text: Option<&str>| text.map(&mut word).transpose();
    let agent = maybe(step.agent.as_deref())?;
    let provider = maybe(step.provider.as_deref())?;
    let model = maybe(step.model.as_deref())?;
    let tool = maybe(step.tool.as_deref())?;
    let copy_of = maybe(step.duplicate_of.as_deref())?;
    let source = maybe(step.cost.map(|(_, source)| source.as_str()))?;
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO steps VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
             ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26)",
        )?
        .execute(params![
            id,
            counts_of(row),
            kind,
            status,
            provider,
            model,
            tool,
            step.duration_ms.map(|ms| (ms * 1e3).round() as i64),
            row.first_token_us.map(number),
            tokens.prompt.map(number),
            tokens.completion.map(number),
            tokens.total.map(number),
            tokens.cache_read.map(number),
            tokens.cache_write.map(number),
            tokens.reasoning.map(number),
            step.cost.map(|(cost, _)| cost.0),
            row.caused.map(|caused| number(caused.tokens)),
            row.caused.and_then(|caused| caused.cost).map(|cost| cost.0),
            step_id,
            name,
            agent,
            source,
            copy_of,
            number(step.started_at.0),
            span_number(step.span_id),
            step.parent.map(span_number),
        ])?;
    Ok(())
}

fn put_error(transaction: &Transaction<'_>, id: i64, counts: bool, error: &ErrorInfo) -> Result<()> {
    let pattern = error.message.as_deref().map(|message| pattern(message, error.kind.as_deref()));
    transaction.prepare_cached("INSERT OR REPLACE INTO errors VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        id,
        counts,
        error.kind,
        pattern,
        error.message
    ])?;
    Ok(())
}

fn counts_of(row: &Row) -> i64 {
    let step = &row.account;
    [
        (step.is_call, counts::CALL),
        (step.is_tool_call, counts::TOOL_CALL),
        (step.counts_tokens, counts::TOKENS),
        (step.counts_cost, counts::COST),
        (step.is_unpriced, counts::UNPRICED),
        (step.is_failure, counts::FAILURE),
    ]
    .into_iter()
    .map(|(is, bit)| if is { bit } else { 0 })
    .sum()
}

/// The eight bytes of a span's id as one number, with a sign.
fn span_number(span: SpanId) -> i64 {
    i64::from_be_bytes(span.0)
}
