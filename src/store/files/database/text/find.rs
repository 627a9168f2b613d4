//! Finding runs by their texts: from one word's next run to the other's, the newest first.

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use super::gather::{BORDER, is_word_of_its_own};
use super::{FIELDS, Texts, remove, whole};
use crate::model::RunId;
use crate::store::Query;
use crate::store::files::FilesReader;
use crate::store::files::database::words::{Leaf, Node, QueryError};
use crate::store::files::database::{self, Database, DatabaseError, Depth, Progress, Result, filter, id_in};

/// Columns before these.
const FIRST_FIELD: usize = 2;
/// Marks around what was found. No text has them.
const MARK: char = '\u{2}';
/// Where such a mark ends.
const END: char = '\u{3}';
/// Words of a snippet.
const SNIPPET_WORDS: usize = 16;

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

/// Tells what is wrong with a query, if anything is.
///
/// # Errors
///
/// When it cannot be understood.
pub fn check(query: &str) -> std::result::Result<(), QueryError> {
    Node::parse(query).map(drop)
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
        let mut tries = 0;
        loop {
            let index = database::whole(reader, Depth::Runs, progress)?;
            let identity = index.identity()?;
            let texts = whole(&index, reader, progress)?;
            let reached = texts.reached()?;
            let found = texts.find(&index, reader, &node, wanted)?;
            tries += 1;
            // Else another process has made one of them anew meanwhile.
            let is_whole = index.identity()? == identity && texts.reached()? >= reached;
            if is_whole || tries >= database::TRIES {
                return Ok(found);
            }
        }
    };
    let found = match once() {
        // What is broken shows itself only where it is read.
        Err(DatabaseError::Damaged(_)) => remove(reader.layout()).and_then(|()| once()),
        found => found,
    };
    Ok(found?)
}

/// Where a run's rows are: from `first` to before `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    run: String,
    first: i64,
    end: i64,
}

impl Texts {
    pub(super) fn find(
        &self,
        index: &Database,
        reader: &FilesReader,
        node: &Node,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<FoundRun>> {
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
pub(super) fn some_of_each(of_words: &[Vec<i64>], limit: usize) -> Vec<i64> {
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
}
