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

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use serde::Serialize;
use serde_json::Value as Json;

use super::words::{Leaf, Node, QueryError};
use super::{Behind, Database, DatabaseError, Depth, Progress, Result, filter, id_in, number, read_meta, write_meta};
use crate::model::{Event, EventBody, RunId, RunSummary};
use crate::store::files::FilesReader;
use crate::store::files::layout::Layout;
use crate::store::{Query, StoreError};

/// Raised when the tables or what is in them change.
const VERSION: i64 = 1;
/// The fields of a query, and the columns of the table.
pub(super) const FIELDS: &[&str] = &["input", "output", "arguments", "result", "error", "log"];
/// Columns before these.
const FIRST_FIELD: usize = 2;
/// Runs that are read before they are put in.
const BATCH: usize = 512;
/// Runs that are read at a time, by several threads perhaps.
const WAVE: usize = 32;
/// Bytes of text that are held in memory before they are put in, those of the last wave aside.
const MAX_BATCH_BYTES: usize = 16 << 20;
/// A longer word is no word: a picture, a key, a hash.
const MAX_WORD: usize = 256;
/// Longest text of one field of a step, in bytes.
const MAX_TEXT: usize = 4 << 20;
/// Rows that have room in a millisecond: the number of a row is its run's start, then its place.
const PLACE_BITS: u32 = 22;
/// From when on runs are told apart by their start: 2020.
const EPOCH_MS: u64 = 1_577_836_800_000;
/// Marks around what was found. No text has them.
const MARK: char = '\u{2}';
/// Where such a mark ends.
const END: char = '\u{3}';
/// Stands between two texts of a field, so that no phrase is found that nobody said. No text has it.
const BORDER: char = '\u{f8ff}';
/// Words of a snippet.
const SNIPPET_WORDS: usize = 16;

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
}

/// Where a store's texts are switched off, or by which variable.
pub const SEARCH_VARIABLE: &str = "RUNSPAN_SEARCH";

/// What a search found of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FoundRun {
    /// The run.
    pub run_id: RunId,
    /// Steps that have what was asked for, by the order in which they were told.
    pub hits: Vec<Hit>,
}

/// A place at which something was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// The step; `None` for what the run says besides its steps.
    pub step_id: Option<String>,
    /// The step's kind.
    pub kind: Option<String>,
    /// Which of its texts.
    pub field: &'static str,
    /// Some words of it.
    pub snippet: String,
    /// What was found in the snippet: from and to, in characters.
    pub marks: Vec<(usize, usize)>,
}

/// Why a search has no answer.
#[derive(Debug)]
pub enum SearchError {
    /// The query cannot be understood.
    Query(QueryError),
    /// The index failed.
    Index(DatabaseError),
}

impl std::fmt::Display for SearchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Query(error) => error.fmt(f),
            Self::Index(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SearchError {}

impl From<DatabaseError> for SearchError {
    fn from(error: DatabaseError) -> Self {
        Self::Index(error)
    }
}

impl From<rusqlite::Error> for SearchError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Index(error.into())
    }
}

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
    let off = std::env::var(SEARCH_VARIABLE).is_ok_and(|word| word.trim().eq_ignore_ascii_case("off"));
    Ok(!off && layout.read()?.search)
}

/// Tells what is wrong with a query, if anything is.
///
/// # Errors
///
/// When it cannot be understood.
pub fn check(query: &str) -> std::result::Result<(), QueryError> {
    Node::parse(query).map(drop)
}

/// Deletes the texts of a store. They are derived: a search makes them anew.
///
/// # Errors
///
/// When the file cannot be deleted.
pub fn remove(layout: &Layout) -> Result<()> {
    super::remove_file(&path(layout))
}

/// What is looked for, and how much of it.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The query: see `docs/search.md`.
    pub query: &'a str,
    /// Which runs; their order and number mean nothing here.
    pub filters: &'a Query,
    /// Runs at most; 0 for all.
    pub limit: usize,
    /// Places of each run at most.
    pub hits: usize,
}

/// Finds the newest runs of a store that a query and filters ask for, with all that is there by now. `progress` is told
/// how far the texts are.
///
/// # Errors
///
/// When the query cannot be understood, or the store not be read.
pub fn search(
    reader: &FilesReader,
    wanted: &Wanted<'_>,
    progress: &mut dyn FnMut(Progress),
) -> std::result::Result<Vec<FoundRun>, SearchError> {
    let node = Node::parse(wanted.query).map_err(SearchError::Query)?;
    let mut once = || {
        let index = super::whole(reader, Depth::Runs, progress)?;
        let texts = whole(&index, reader, progress)?;
        texts.find(&index, reader, &node, wanted)
    };
    let found = match once() {
        // What is broken shows itself only where it is read.
        Err(DatabaseError::Damaged(_)) => {
            remove(reader.layout())?;
            once()
        }
        found => found,
    };
    Ok(found?)
}

/// Opens the texts of a store and takes in all there is. `index` has to know all runs. Where the store's own cannot be
/// written, they are read for this once.
fn whole(index: &Database, reader: &FilesReader, progress: &mut dyn FnMut(Progress)) -> Result<Texts> {
    let layout = reader.layout();
    let temporary = |progress: &mut dyn FnMut(Progress)| {
        let mut texts = Texts::of(Connection::open("")?)?;
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
        Err(DatabaseError::Damaged(_)) => {
            remove(layout)?;
            own(progress)
        }
        opened => opened,
    };
    match opened {
        Err(DatabaseError::Busy(_) | DatabaseError::Io(_)) => temporary(progress),
        opened => opened,
    }
}

/// Makes the texts of a store anew; `index` has to know all runs.
///
/// # Errors
///
/// When the store cannot be read, or no database be made.
pub fn rebuild(index: &Database, reader: &FilesReader, progress: &mut dyn FnMut(Progress)) -> Result<()> {
    remove(reader.layout())?;
    whole(index, reader, progress).map(drop)
}

/// Where a run's rows are: from `first` to before `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    run: String,
    first: i64,
    end: i64,
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

    fn of(mut connection: Connection) -> Result<Self> {
        connection.busy_timeout(super::PATIENCE)?;
        connection.pragma_update(None, "cache_size", -16_384)?;
        connection.pragma_update(None, "mmap_size", 1_i64 << 30)?;
        connection.pragma_update(None, "secure_delete", true)?;
        super::make_tables(&mut connection, VERSION, &[TABLES])?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Self { connection, threads: 1 })
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
            let reached = read_meta(&self.connection, "texts")?.unwrap_or(0);
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
        if theirs[0] != ours[0] {
            // Another index counts changes anew; runs that are as they were are passed over.
            write_meta(&transaction, "texts", 0)?;
        }
        write_meta(&transaction, "identity", theirs[0])?;
        write_meta(&transaction, "removals", theirs[1])?;
        Ok(transaction.commit()?)
    }

    /// Reads runs and puts their texts in, unless somebody else has by then. Returns how many.
    fn take_texts(&mut self, reader: &FilesReader, reached: i64, behind: Vec<Behind>) -> Result<u64> {
        let (mut read, mut bytes, mut last, mut passed) = (Vec::new(), 0, reached, 0);
        let mut behind = behind.into_iter();
        while bytes <= MAX_BATCH_BYTES {
            let some: Vec<Behind> = behind.by_ref().take(WAVE).collect();
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

    fn find(&self, index: &Database, reader: &FilesReader, node: &Node, wanted: &Wanted<'_>) -> Result<Vec<FoundRun>> {
        // All from one state of the texts.
        let _transaction = self.connection.unchecked_transaction()?;
        let allowed = self.allowed(index, reader, wanted.filters)?;
        let search = Search { texts: self, node: self.prepared(node)?, allowed };
        let snippets = Snippets::new(node)?;
        let (mut found, mut bound) = (Vec::new(), i64::MAX);
        while let Some(place) = search.next(bound)? {
            bound = place.first;
            let mut of_words = Vec::new();
            search.node.rows(self, &place, wanted.hits, &mut of_words)?;
            let rows = some_of_each(&of_words, wanted.hits);
            found.push(FoundRun { run_id: id_in(&place.run)?, hits: snippets.of(self, &rows)? });
            if found.len() == wanted.limit {
                break;
            }
        }
        Ok(found)
    }

    /// Returns the places of the runs that filters leave, the newest first; `None`: all runs.
    fn allowed(&self, index: &Database, reader: &FilesReader, filters: &Query) -> Result<Option<Vec<Place>>> {
        let plain = Query { sort: filters.sort, limit: filters.limit, ..Query::default() };
        if *filters == plain {
            return Ok(None);
        }
        let mut places = Vec::new();
        for run in index.matching(filters, reader)? {
            if let Some(known) = self.known(&run)?.filter(|known| known.count > 0) {
                places.push(Place { run, first: known.first, end: known.first + known.count });
            }
        }
        places.sort_unstable_by_key(|place| std::cmp::Reverse(place.first));
        Ok(Some(places))
    }

    fn prepared(&self, node: &Node) -> Result<Asked> {
        let all = |nodes: &[Node]| nodes.iter().map(|node| self.prepared(node)).collect::<Result<Vec<_>>>();
        Ok(match node {
            Node::Leaf(leaf) if leaf.is_prefix => Asked::Rows(self.rows_of(leaf)?),
            Node::Leaf(leaf) => Asked::Leaf(leaf.expression()),
            Node::All(nodes) => Asked::All(all(nodes)?),
            Node::Any(nodes) => Asked::Any(all(nodes)?),
            Node::Without(wanted, unwanted) => {
                Asked::Without(Box::new(self.prepared(wanted)?), Box::new(self.prepared(unwanted)?))
            }
        })
    }

    /// Returns all rows of the beginning of a word, in order: FTS5 would put its many words together for each look.
    fn rows_of(&self, leaf: &Leaf) -> Result<Vec<i64>> {
        let mut statement = self.connection.prepare("SELECT rowid FROM texts WHERE texts MATCH ?1 ORDER BY rowid")?;
        let rows = statement.query_map([leaf.expression()], |row| row.get(0))?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    fn place_of(&self, row: i64) -> Result<Place> {
        let mut statement = self.connection.prepare_cached(
            "SELECT run_id, first, count FROM runs WHERE count > 0 AND first <= ?1 ORDER BY first DESC LIMIT 1",
        )?;
        let place = statement.query_row([row], |row| {
            let (first, count): (i64, i64) = (row.get(1)?, row.get(2)?);
            Ok(Place { run: row.get(0)?, first, end: first + count })
        });
        let place = place.optional()?.filter(|place| row < place.end);
        place.ok_or_else(DatabaseError::foreign)
    }
}

/// A query, as it is looked up.
enum Asked {
    Leaf(String),
    /// The rows that have it.
    Rows(Vec<i64>),
    All(Vec<Asked>),
    Any(Vec<Asked>),
    Without(Box<Asked>, Box<Asked>),
}

impl Asked {
    /// Returns the newest run before the row `bound` that has what is asked for.
    fn next(&self, texts: &Texts, mut bound: i64) -> Result<Option<Place>> {
        match self {
            Self::Leaf(expression) => {
                let mut statement = texts.connection.prepare_cached(
                    "SELECT rowid FROM texts WHERE texts MATCH ?1 AND rowid < ?2 ORDER BY rowid DESC LIMIT 1",
                )?;
                let row: Option<i64> = statement.query_row(params![expression, bound], |row| row.get(0)).optional()?;
                row.map(|row| texts.place_of(row)).transpose()
            }
            Self::Rows(rows) => {
                let before = rows.partition_point(|row| *row < bound);
                rows[..before].last().map(|row| texts.place_of(*row)).transpose()
            }
            Self::All(nodes) => loop {
                let mut newest: Option<Place> = None;
                let mut is_same = true;
                for node in nodes {
                    let Some(place) = node.next(texts, newest.as_ref().map_or(bound, |place| place.end))? else {
                        return Ok(None);
                    };
                    is_same &= newest.as_ref().is_none_or(|newest| newest.first == place.first);
                    newest = Some(place);
                }
                if is_same {
                    return Ok(newest);
                }
                // No run that is newer than the last one's has all of them.
                bound = newest.map_or(bound, |place| place.end);
            },
            Self::Any(nodes) => {
                let mut newest: Option<Place> = None;
                for node in nodes {
                    let place = node.next(texts, bound)?;
                    newest = [newest, place].into_iter().flatten().max_by_key(|place| place.first);
                }
                Ok(newest)
            }
            Self::Without(wanted, unwanted) => loop {
                let Some(place) = wanted.next(texts, bound)? else { return Ok(None) };
                let other = unwanted.next(texts, place.end)?;
                if other.is_none_or(|other| other.first != place.first) {
                    return Ok(Some(place));
                }
                bound = place.first;
            },
        }
    }

    /// Adds the first rows of a run for each word, up to so many.
    fn rows(&self, texts: &Texts, place: &Place, limit: usize, found: &mut Vec<Vec<i64>>) -> Result<()> {
        match self {
            Self::Leaf(expression) => {
                let mut statement = texts.connection.prepare_cached(
                    "SELECT rowid FROM texts WHERE texts MATCH ?1 AND rowid >= ?2 AND rowid < ?3 ORDER BY rowid LIMIT ?4",
                )?;
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let rows = statement.query_map(params![expression, place.first, place.end, limit], |row| row.get(0))?;
                found.push(rows.collect::<std::result::Result<_, _>>()?);
                Ok(())
            }
            Self::Rows(rows) => {
                let from = rows.partition_point(|row| *row < place.first);
                let of_run = rows[from..].iter().take(limit).take_while(|row| **row < place.end);
                found.push(of_run.copied().collect());
                Ok(())
            }
            Self::All(nodes) | Self::Any(nodes) => {
                nodes.iter().try_for_each(|node| node.rows(texts, place, limit, found))
            }
            Self::Without(wanted, _) => wanted.rows(texts, place, limit, found),
        }
    }
}

/// Chooses rows so that of each word there is one before there is a second one of another; in order.
fn some_of_each(of_words: &[Vec<i64>], limit: usize) -> Vec<i64> {
    let mut chosen = std::collections::BTreeSet::new();
    let longest = of_words.iter().map(Vec::len).max().unwrap_or(0);
    for row in (0..longest).flat_map(|nth| of_words.iter().filter_map(move |rows| rows.get(nth))) {
        if chosen.len() == limit {
            break;
        }
        chosen.insert(*row);
    }
    chosen.into_iter().collect()
}

struct Search<'a> {
    texts: &'a Texts,
    node: Asked,
    allowed: Option<Vec<Place>>,
}

impl Search<'_> {
    /// Returns the newest run before the row `bound` that query and filters ask for.
    fn next(&self, mut bound: i64) -> Result<Option<Place>> {
        while let Some(place) = self.node.next(self.texts, bound)? {
            let Some(allowed) = &self.allowed else { return Ok(Some(place)) };
            let at = allowed.partition_point(|allowed| allowed.first > place.first);
            match allowed.get(at) {
                Some(allowed) if allowed.first == place.first => return Ok(Some(place)),
                Some(older) => bound = older.end,
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// Cuts out what was found: by FTS5 itself, in a table of the few rows that are shown.
struct Snippets {
    connection: Connection,
    expression: String,
}

impl Snippets {
    fn new(node: &Node) -> Result<Self> {
        let connection = Connection::open_in_memory()?;
        connection.execute_batch(
            "CREATE VIRTUAL TABLE found USING fts5(step UNINDEXED, kind UNINDEXED, input, output, arguments, result, \
             error, log, tokenize = 'unicode61 remove_diacritics 2')",
        )?;
        let leaves: Vec<String> = node.wanted().iter().map(|leaf| format!("({})", leaf.expression())).collect();
        Ok(Self { connection, expression: leaves.join(" OR ") })
    }

    fn of(&self, texts: &Texts, rows: &[i64]) -> Result<Vec<Hit>> {
        self.connection.prepare_cached("DELETE FROM found")?.execute([])?;
        let columns = format!("step, kind, {}", FIELDS.join(", "));
        let mut read = texts.connection.prepare_cached(&format!("SELECT {columns} FROM texts WHERE rowid = ?1"))?;
        let mut write = self
            .connection
            .prepare_cached(&format!("INSERT INTO found ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"))?;
        for row in rows {
            let cells: Vec<Option<String>> =
                read.query_row([row], |row| (0..8).map(|place| row.get(place)).collect())?;
            write.execute(rusqlite::params_from_iter(cells))?;
        }
        let snippets: Vec<String> = FIELDS
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let column = at + FIRST_FIELD;
                format!("iif({field} IS NULL, NULL, snippet(found, {column}, char(2), char(3), '…', {SNIPPET_WORDS}))")
            })
            .collect();
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT step, kind, {} FROM found WHERE found MATCH ?1 ORDER BY rowid",
            snippets.join(", ")
        ))?;
        let mut found = statement.query([&self.expression])?;
        let mut hits = Vec::with_capacity(rows.len());
        while let Some(row) = found.next()? {
            for (at, field) in FIELDS.iter().copied().enumerate() {
                let text: Option<String> = row.get(at + FIRST_FIELD)?;
                if let Some(text) = text.filter(|text| text.contains(MARK)) {
                    let (snippet, marks) = shown(&text);
                    hits.push(Hit { step_id: row.get(0)?, kind: row.get(1)?, field, snippet, marks });
                    break;
                }
            }
        }
        Ok(hits)
    }
}

/// Takes out what stands in a text for the index alone; a border becomes a dot. Returns what is left, and what of it was
/// marked: from and to, in characters.
fn shown(text: &str) -> (String, Vec<(usize, usize)>) {
    let mut shown: Vec<(char, bool)> = Vec::with_capacity(text.len());
    let (mut is_marked, mut passes_blank) = (false, false);
    for c in text.chars() {
        match c {
            MARK => is_marked = true,
            END => is_marked = false,
            // It has one on either side, see `spaced`.
            ' ' if passes_blank => passes_blank = false,
            c if is_word_of_its_own(c) => {
                shown.pop_if(|(before, _)| *before == ' ');
                shown.push((c, is_marked));
                passes_blank = true;
            }
            c => {
                passes_blank = false;
                shown.push((if c == BORDER { '·' } else { c }, is_marked));
            }
        }
    }
    let mut marks: Vec<(usize, usize)> = Vec::new();
    for at in (0..shown.len()).filter(|at| shown[*at].1) {
        match marks.last_mut().filter(|mark| mark.1 == at) {
            Some(mark) => mark.1 = at + 1,
            None => marks.push((at, at + 1)),
        }
    }
    (shown.into_iter().map(|(c, _)| c).collect(), marks)
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

/// What a step says, or a run besides its steps.
#[derive(Debug, Default)]
struct Row {
    step: Option<String>,
    kind: Option<String>,
    fields: [Field; 6],
}

impl Row {
    fn bytes(&self) -> usize {
        self.fields.iter().map(|field| field.0.len()).sum()
    }
}

/// The texts of one field.
#[derive(Debug, Default)]
struct Field(String);

impl Field {
    fn text(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(self.0.as_str())
    }

    fn push(&mut self, text: &str) {
        if self.0.len() >= MAX_TEXT {
            return;
        }
        if !self.0.is_empty() {
            self.0.extend([' ', BORDER, ' ']);
        }
        let begin = self.0.len();
        for word in text.split_whitespace() {
            if word.len() > MAX_WORD && word.is_ascii() && !word.contains(['.', ',', '"']) {
                continue;
            }
            if self.0.len() + word.len() >= MAX_TEXT {
                break;
            }
            if self.0.len() > begin {
                self.0.push(' ');
            }
            self.0.push_str(&spaced(word));
        }
    }
}

/// Puts blanks around the characters that are words of their own, and in place of those that mean something here.
pub(super) fn spaced(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_word_of_its_own(c) {
            out.extend([' ', c, ' ']);
        } else if c.is_control() || c == BORDER {
            out.push(' ');
        } else {
            out.push(c);
        }
    }
    out
}

/// Tells whether a character is of a script that has no blanks between words: Han and kana.
fn is_word_of_its_own(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{323af}')
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

/// Gathers the texts of a run, each where it is first told.
fn rows_of(events: &[Event]) -> Vec<Row> {
    let mut gathered = Gathered::default();
    for event in events {
        gathered.take(event);
    }
    gathered.rows.retain(|row| row.bytes() > 0);
    gathered.rows
}

#[derive(Default)]
struct Gathered {
    rows: Vec<Row>,
    by_step: std::collections::HashMap<Option<String>, usize>,
    told: HashSet<u64>,
}

const INPUT: usize = 0;
const OUTPUT: usize = 1;
const ARGUMENTS: usize = 2;
const RESULT: usize = 3;
const ERROR: usize = 4;
const LOG: usize = 5;

impl Gathered {
    fn take(&mut self, event: &Event) {
        let step = &event.step_id;
        let mut add = |kind: Option<&str>, texts: &[(usize, &Option<Json>)]| {
            let row = self.row(step, kind);
            for (field, value) in texts {
                if let Some(value) = value {
                    self.add(row, *field, value);
                }
            }
            row
        };
        let error = match &event.body {
            EventBody::RunStarted(run) => {
                add(None, &[(INPUT, &run.input)]);
                None
            }
            EventBody::Input(input) => {
                add(None, &[(INPUT, &Some(input.data.clone()))]);
                None
            }
            EventBody::ContextAssembled(context) => {
                add(None, &[(INPUT, &Some(context.context.clone()))]);
                None
            }
            EventBody::Waiting(waiting) => {
                add(None, &[(OUTPUT, &waiting.reason.clone().map(Json::String)), (OUTPUT, &waiting.payload)]);
                None
            }
            EventBody::Resumed(resumed) => {
                add(None, &[(INPUT, &resumed.input)]);
                None
            }
            EventBody::Output(output) => {
                add(None, &[(OUTPUT, &Some(output.data.clone()))]);
                None
            }
            EventBody::Score(score) => {
                let said = [&score.label, &score.explanation].map(|text| text.clone().map(Json::String));
                add(None, &[(LOG, &said[0]), (LOG, &said[1])]);
                None
            }
            EventBody::Log(log) => {
                let said = (Json::String(log.message.clone()), Json::Object(log.fields.clone()));
                add(None, &[(LOG, &Some(said.0)), (LOG, &Some(said.1))]);
                None
            }
            EventBody::LlmCalled(call) => {
                add(Some("llm"), &[(INPUT, &call.system_prompt), (INPUT, &call.messages), (OUTPUT, &call.output)]);
                call.error.as_ref()
            }
            EventBody::ToolRequested(tool) => {
                add(Some("tool"), &[(ARGUMENTS, &tool.tool_args)]);
                None
            }
            EventBody::ToolSucceeded(tool) => {
                add(Some("tool"), &[(ARGUMENTS, &tool.tool_args), (RESULT, &tool.result)]);
                tool.error.as_ref()
            }
            EventBody::ToolFailed(tool) => {
                add(Some("tool"), &[(ARGUMENTS, &tool.tool_args), (RESULT, &tool.result)]);
                tool.error.as_ref()
            }
            EventBody::StepStarted(step) => {
                add(Some(step.kind.as_str()), &[(INPUT, &step.input)]);
                None
            }
            EventBody::StepCompleted(step) => {
                add(Some(step.kind.as_str()), &[(INPUT, &step.input), (OUTPUT, &step.output)]);
                step.error.as_ref()
            }
            EventBody::StepFailed(step) => {
                add(Some(step.kind.as_str()), &[(INPUT, &step.input), (OUTPUT, &step.output)]);
                step.error.as_ref()
            }
            _ => None,
        };
        if let Some(error) = error {
            let row = self.row(step, None);
            // Each failure is one of its own, whoever said the same before.
            for text in [&error.kind, &error.message].into_iter().flatten() {
                self.rows[row].fields[ERROR].push(text);
            }
        }
    }

    fn row(&mut self, step: &Option<String>, kind: Option<&str>) -> usize {
        let row = match self.by_step.get(step) {
            Some(row) => *row,
            None => {
                self.rows.push(Row { step: step.clone(), ..Row::default() });
                self.by_step.insert(step.clone(), self.rows.len() - 1);
                self.rows.len() - 1
            }
        };
        if let Some(kind) = kind {
            self.rows[row].kind.get_or_insert_with(|| kind.to_owned());
        }
        row
    }

    /// Adds the texts in a value, but for those that only say which part it is.
    fn add(&mut self, row: usize, field: usize, value: &Json) {
        match value {
            Json::String(text) => {
                // Arguments of tools often come as JSON in a text.
                let is_json = text.starts_with(['{', '[']);
                match is_json.then(|| serde_json::from_str::<Json>(text).ok()).flatten() {
                    Some(inner) => self.add(row, field, &inner),
                    None => self.add_text(row, field, text),
                }
            }
            Json::Number(number) => self.add_text(row, field, &number.to_string()),
            Json::Array(list) => list.iter().for_each(|value| self.add(row, field, value)),
            Json::Object(map) => {
                let says = |key: &&String| !matches!(key.as_str(), "type" | "role" | "id" | "tool_call_id");
                for (_, value) in map.iter().filter(|(key, _)| says(key)) {
                    self.add(row, field, value);
                }
            }
            Json::Null | Json::Bool(_) => {}
        }
    }

    fn add_text(&mut self, row: usize, field: usize, text: &str) {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        if !text.trim().is_empty() && self.told.insert(hasher.finish()) {
            self.rows[row].fields[field].push(text);
        }
    }
}

impl Database {
    /// Returns the runs that filters leave; those under way as they stand.
    fn matching(&self, query: &Query, reader: &FilesReader) -> Result<Vec<String>> {
        let (filter, values) = filter(query);
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT run_id FROM runs WHERE status NOT IN ('running', 'waiting'){filter}"))?;
        let closed = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(0))?;
        let mut runs: Vec<String> = closed.collect::<std::result::Result<_, _>>()?;
        for open in self.open_runs()? {
            let is_asked = reader.read_run(&open.known).is_ok_and(|(run, _, _)| query.matches(&run));
            runs.extend(is_asked.then(|| open.known.run_id.to_string()));
        }
        Ok(runs)
    }

    fn run_ids(&self) -> Result<HashSet<String>> {
        let mut statement = self.connection.prepare("SELECT run_id FROM runs")?;
        let runs = statement.query_map([], |row| row.get(0))?;
        Ok(runs.collect::<std::result::Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{Input, LlmCalled, Log};
    use crate::model::otlp::Span;
    use crate::model::{EventId, RunStatus, StepStatus, UnixNanos};
    use crate::store::files::FilesWriter;
    use crate::store::files::database;
    use crate::store::{RunWriter, assembly::RunState};
    use proptest::prelude::*;
    use serde_json::json;

    fn store() -> (tempfile::TempDir, Layout, FilesWriter) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("store"));
        layout.open_or_create().unwrap();
        let writer = FilesWriter::new(layout.clone(), RunId([7; 16]), false);
        (dir, layout, writer)
    }

    fn event(seq: u64, step: Option<&str>, body: EventBody) -> Event {
        let event_id = EventId::from_parts(1, [seq as u8; 10]);
        Event { seq, event_id, parent_event_id: None, timestamp: UnixNanos(1), step_id: step.map(str::to_owned), body }
    }

    fn log(message: &str) -> EventBody {
        EventBody::Log(Log { level: None, message: message.to_owned(), fields: Default::default() })
    }

    fn input(data: Json) -> EventBody {
        EventBody::Input(Input { tool: "message_from_user".to_owned(), data })
    }

    fn call(messages: Json, output: Json) -> EventBody {
        EventBody::LlmCalled(Box::new(LlmCalled {
            name: "chat".to_owned(),
            provider: None,
            model: None,
            system_prompt: Some(json!("Be brief.")),
            messages: Some(messages),
            output: Some(output),
            tokens: None,
            cost_usd: None,
            cost_source: None,
            agent_id: None,
            status: StepStatus::Success,
            duration_ms: None,
            error: None,
            span: Span::default(),
            resource: None,
            scope: None,
        }))
    }

    /// Some of these begin in one millisecond.
    fn run(nth: u64) -> RunSummary {
        let started = UnixNanos::from_millis(1_700_000_000_000 + nth / 2 * 1000);
        let id = RunId::from_parts(started.millis(), [nth as u8; 10]);
        let state = RunState::new(id, id.as_trace_id());
        let agent = Some(format!("agent-{}", nth % 3));
        let run = RunSummary { started_at: started, agent_id: agent, workflow_id: None, ..state.summary(started) };
        RunSummary { status: RunStatus::Success, ..run }
    }

    fn write(writer: &mut FilesWriter, nth: u64, bodies: Vec<(Option<&str>, EventBody)>) -> RunId {
        let events: Vec<Event> =
            bodies.into_iter().zip(0..).map(|((step, body), seq)| event(seq, step, body)).collect();
        let summary = RunSummary { events: events.len() as u64, ..run(nth) };
        writer.create_run(&summary, &events).unwrap();
        summary.run_id
    }

    fn search(layout: &Layout, query: &str, filters: &Query) -> Vec<FoundRun> {
        let reader = FilesReader::of(layout.clone()).unwrap();
        super::search(&reader, &Wanted { query, filters, limit: 0, hits: 3 }, &mut |_| {}).unwrap()
    }

    fn found(layout: &Layout, query: &str) -> Vec<RunId> {
        search(layout, query, &Query::default()).into_iter().map(|found| found.run_id).collect()
    }

    /// What a person would say who reads all texts.
    fn has(texts: &[Vec<String>], node: &Node) -> bool {
        match node {
            Node::Leaf(leaf) => {
                let words: Vec<&str> = leaf.text.split_whitespace().collect();
                texts.iter().any(|text| {
                    text.windows(words.len()).any(|window| {
                        window.iter().zip(&words).enumerate().all(|(at, (word, wanted))| {
                            if leaf.is_prefix && at + 1 == words.len() {
                                word.starts_with(wanted)
                            } else {
                                word == wanted
                            }
                        })
                    })
                })
            }
            Node::All(nodes) => nodes.iter().all(|node| has(texts, node)),
            Node::Any(nodes) => nodes.iter().any(|node| has(texts, node)),
            Node::Without(wanted, unwanted) => has(texts, wanted) && !has(texts, unwanted),
        }
    }

    fn queries() -> impl Strategy<Value = String> {
        let leaf = prop_oneof!["(aa|ab|b|bc|c)\\*?", "\"(aa|ab|b|bc|c) (aa|ab|b|bc|c)\"\\*?",];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) ({b})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
                (inner.clone(), inner).prop_map(|(a, b)| format!("({a}) NOT ({b})")),
            ]
        })
    }

    #[test]
    fn a_query_finds_the_runs_whose_texts_have_it_and_no_other() {
        let words = ["aa", "ab", "b", "bc", "c", "d"];
        let mut random = 7_u64;
        let mut next = |of: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % of
        };
        let (_dir, layout, mut writer) = store();
        let mut runs: Vec<(RunSummary, Vec<Vec<String>>)> = Vec::new();
        for nth in 0..40 {
            let texts: Vec<Vec<String>> =
                (0..next(4)).map(|_| (0..1 + next(4)).map(|_| words[next(6) as usize].to_owned()).collect()).collect();
            let bodies = texts
                .iter()
                .enumerate()
                .map(|(at, text)| (if at % 2 == 0 { Some("chat") } else { None }, log(&text.join(" "))));
            write(&mut writer, nth, bodies.collect());
            runs.push((run(nth), texts));
        }
        let reader = FilesReader::of(layout.clone()).unwrap();
        let index = database::whole(&reader, Depth::Runs, &mut |_| {}).unwrap();
        let texts = whole(&index, &reader, &mut |_| {}).unwrap();
        let filters = proptest::option::of(0_u64..3);
        proptest!(ProptestConfig::with_cases(300), |(query in queries(), agent in filters, limit in 0_usize..4)| {
            let node = Node::parse(&query).unwrap();
            let filters = Query { agent_id: agent.map(|nth| format!("agent-{nth}")), ..Query::default() };
            let found = texts.find(&index, &reader, &node, &Wanted { query: &query, filters: &filters, limit, hits: 9 }).unwrap();
            let mut expected: Vec<&(RunSummary, _)> =
                runs.iter().filter(|(run, texts)| filters.matches(run) && has(texts, &node)).collect();
            expected.sort_by_key(|(run, _)| std::cmp::Reverse(run.started_at));
            let starts = |runs: &[RunId]| runs.iter().map(|run| run.time()).collect::<Vec<_>>();
            let (got, all) = (found.iter().map(|found| found.run_id).collect::<Vec<_>>(), expected.iter().map(|(run, _)| run.run_id).collect::<Vec<_>>());
            let wanted = if limit == 0 { all.len() } else { limit.min(all.len()) };
            prop_assert_eq!(got.len(), wanted, "{}", query);
            // Of runs that began in one millisecond any may come first.
            prop_assert_eq!(starts(&got), starts(&all[..wanted]), "{}", query);
            prop_assert!(got.iter().all(|run| all.contains(run)), "{}", query);
            for found in &found {
                prop_assert!(!found.hits.is_empty() && found.hits.iter().all(|hit| !hit.marks.is_empty()), "{} {:?}", query, found);
            }
        });
    }

    #[test]
    fn a_text_is_found_where_it_was_first_told_with_its_step_field_and_place() {
        let (_dir, layout, mut writer) = store();
        let question = json!({"role": "user", "parts": [{"type": "text", "content": "Is the Zürich office open?"}]});
        let answer = json!({"role": "assistant", "parts": [
            {"type": "tool_call", "id": "call-secret", "name": "look_up", "arguments": "{\"place\": \"Zürich\\nHQ\", \"floor\": 7}"},
        ]});
        let id = write(
            &mut writer,
            1,
            vec![
                (None, input(question.clone())),
                (Some("chat"), call(json!([question]), json!([answer]))),
                (Some("chat-2"), call(json!([question, answer]), json!("It opens at nine. 東京都 is closed."))),
            ],
        );
        let hits = |query: &str| {
            let found = search(&layout, query, &Query::default());
            assert!(found.iter().all(|found| found.run_id == id));
            let hits = found.into_iter().flat_map(|found| found.hits);
            hits.map(|hit| {
                let chars: Vec<char> = hit.snippet.chars().collect();
                let marks: Vec<String> =
                    hit.marks.iter().map(|(from, to)| chars[*from..*to].iter().collect()).collect();
                format!("{} {} {:?} {}", hit.step_id.as_deref().unwrap_or("-"), hit.field, marks, hit.snippet)
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(
            hits("zurich"),
            ["- input [\"Zürich\"] Is the Zürich office open?", "chat output [\"Zürich\"] look_up · Zürich HQ · 7"]
        );
        assert_eq!(
            hits("output:zurich office"),
            ["- input [\"office\"] Is the Zürich office open?", "chat output [\"Zürich\"] look_up · Zürich HQ · 7"]
        );
        assert_eq!(hits("\"zürich hq\""), ["chat output [\"Zürich HQ\"] look_up · Zürich HQ · 7"]);
        assert_eq!(hits("brief"), ["chat input [\"brief\"] Be brief."]);
        assert_eq!(hits("京都"), ["chat-2 output [\"京都\"] It opens at nine. 東京都 is closed."]);
        // Borders, ids and words of the wire format are no text.
        for nothing in
            ["\"look_up zürich\"", "\"call-secret\"", "tool_call", "assistant", "input:nine", "京東", "open NOT office"]
        {
            assert_eq!(hits(nothing), [""; 0], "{nothing}");
        }
    }

    #[test]
    fn what_is_removed_or_replaced_leaves_no_text_behind() {
        let (_dir, layout, mut writer) = store();
        let gone = write(&mut writer, 1, vec![(None, log("xylophonist rehearses"))]);
        let stays = write(&mut writer, 2, vec![(None, log("quarterly figures"))]);
        assert_eq!((found(&layout, "xylophonist"), found(&layout, "quarterly")), (vec![gone], vec![stays]));
        let has_bytes = |word: &str| {
            let file = std::fs::read(path(&layout)).unwrap();
            file.windows(word.len()).any(|bytes| bytes == word.as_bytes())
        };
        assert!(has_bytes("xylophonist") && has_bytes("quarterly"));
        writer.delete_run(gone).unwrap();
        let changed = [event(0, None, log("annual figures"))];
        writer.replace_events(stays, &changed).unwrap();
        writer.update_run(&RunSummary { events: 1, updated_at: UnixNanos::from_millis(9), ..run(2) }).unwrap();
        assert_eq!((found(&layout, "xylophonist"), found(&layout, "quarterly")), (vec![], vec![]));
        assert_eq!(found(&layout, "annual"), [stays]);
        assert!(!has_bytes("xylophonist") && !has_bytes("quarterly") && has_bytes("annual"));
    }

    #[test]
    fn texts_follow_an_index_and_a_file_that_begin_anew() {
        let (_dir, layout, mut writer) = store();
        let ids: Vec<RunId> =
            (0..9).map(|nth| write(&mut writer, nth, vec![(None, log(&format!("number{nth} same")))])).collect();
        assert_eq!(found(&layout, "same").len(), 9);
        let stamp = |path: PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
        // Nothing has changed, so nothing is written.
        let before = stamp(path(&layout));
        assert_eq!(found(&layout, "number7"), [ids[7]]);
        assert_eq!(stamp(path(&layout)), before);
        std::fs::remove_file(database::path(&layout)).unwrap();
        writer.delete_run(ids[3]).unwrap();
        assert_eq!(found(&layout, "same").len(), 8);
        let good = std::fs::read(path(&layout)).unwrap();
        for damage in 0..good.len() / 512 {
            let mut bytes = good.clone();
            bytes[damage * 512..(damage + 1) * 512].fill(0xa5);
            std::fs::write(path(&layout), bytes).unwrap();
            // Whatever a page says that is not right any more: no run is found that is not there, and nothing fails.
            assert!(found(&layout, "same").iter().all(|run| ids.contains(run)));
        }
        for content in [Vec::new(), b"rubbish ".repeat(2_000)] {
            std::fs::write(path(&layout), content).unwrap();
            assert_eq!(found(&layout, "same").len(), 8);
        }
        std::fs::remove_file(path(&layout)).unwrap();
        std::fs::create_dir(path(&layout)).unwrap();
        assert_eq!(found(&layout, "same").len(), 8);
    }

    #[test]
    fn a_keeper_takes_in_steps_and_texts_unless_they_are_switched_off() {
        let (_dir, layout, mut writer) = store();
        database::rebuild(&layout, |_| {}).unwrap();
        let texts = || Texts::open(&layout).unwrap();
        let count = |connection: &Connection| -> i64 {
            connection.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap_or(0)
        };
        let wait_for = |is_there: &dyn Fn() -> bool| {
            let until = Instant::now() + Duration::from_secs(60);
            while !is_there() {
                assert!(Instant::now() < until, "nobody took them in");
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        let keeper = database::Keeper::start(&layout, true);
        for nth in 0..5 {
            write(&mut writer, nth, vec![(None, log("kept"))]);
        }
        wait_for(&|| count(&texts().connection) == 5);
        assert_eq!(Database::open(&layout).unwrap().runs_behind().unwrap(), 0);
        drop(keeper);
        let keeper = database::Keeper::start(&layout, false);
        write(&mut writer, 9, vec![(None, log("not kept"))]);
        wait_for(&|| !path(&layout).exists());
        drop(keeper);
    }

    #[test]
    fn of_each_word_a_place_is_shown_before_a_second_one_of_another() {
        assert_eq!(some_of_each(&[vec![1, 2, 3], vec![9], vec![2, 4]], 3), [1, 2, 9]);
        assert_eq!(some_of_each(&[vec![1, 2, 3], vec![9]], 9), [1, 2, 3, 9]);
        assert!(some_of_each(&[vec![1], vec![]], 0).is_empty());
    }

    #[test]
    fn runs_of_one_moment_have_rows_of_their_own() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLES).unwrap();
        let row = || Row {
            fields: [
                Field("text".to_owned()),
                Field::default(),
                Field::default(),
                Field::default(),
                Field::default(),
                Field::default(),
            ],
            ..Row::default()
        };
        let read =
            |nth: u64, rows: usize| Read { known: run(nth), log_bytes: 0, rows: (0..rows).map(|_| row()).collect() };
        for (nth, rows) in [(0, 3), (1, 2), (2, 1), (0, 5), (1, 0)] {
            put(&connection, &read(nth, rows)).unwrap();
        }
        let mut statement = connection.prepare("SELECT first, count FROM runs WHERE count > 0 ORDER BY first").unwrap();
        let places = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let places: Vec<(i64, i64)> = places.collect::<std::result::Result<_, _>>().unwrap();
        assert_eq!(places.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [5, 1]);
        assert!(places.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
        let rows: i64 = connection.query_row("SELECT count(*) FROM texts", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 6);
    }
}
