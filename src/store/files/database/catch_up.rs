//! Takes in what the log of all runs has, and looks which runs have come and gone without it.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::super::{FilesReader, index, run_ids};
use super::{Database, Depth, GLIMPSE, Progress, Reached, Result};
use super::{all_threads, empty, id_in, number, read_meta, steps, write_meta};
use crate::model::{RunId, RunKind, RunSummary, UnixNanos};

/// How much of the log is read and written at a time.
const CHUNK: usize = 4 << 20;
/// Bytes before the place that is reached which have to be the same still.
const TRACE_BYTES: u64 = 256;
/// A directory that changed so lately may change again without that its time tells.
const MTIME_GRAIN: Duration = Duration::from_millis(50);

impl Database {
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

    pub(super) fn complete_runs(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        loop {
            let reached = self.catch_up(GLIMPSE)?;
            if reached.is_whole {
                return Ok(());
            }
            progress(Progress::Runs(reached));
        }
    }

    pub(super) fn complete_to(
        &mut self,
        depth: Depth,
        reader: &FilesReader,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
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
            empty(&transaction)?;
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
}

/// How far the log is taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Which file it is.
    log: String,
    pub bytes: u64,
    /// What stands before that place.
    trace: Vec<u8>,
}

impl Place {
    pub(super) fn read(connection: &Connection) -> Result<Self> {
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
pub(super) fn read_at(file: &std::fs::File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
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

/// Puts in a run, or what it is now. `change`: larger than that of any before.
pub(super) fn put(connection: &Connection, run: RunId, summary: &RunSummary, change: i64) -> Result<()> {
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
