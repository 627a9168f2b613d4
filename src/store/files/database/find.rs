//! Which runs are asked for.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;

use rusqlite::types::Value as Sql;

use super::super::{index, run_dir};
use super::catch_up::{Place, read_at};
use super::{Database, DatabaseError, Found, Result, number};
use crate::model::{RunId, RunSummary};
use crate::store::{Query, Sort};

impl Database {
    /// Returns what may answer a query, with what the log has behind the place that is reached. `spare`: of how many
    /// runs the caller knows better.
    pub(in super::super) fn find(&self, query: &Query, spare: usize) -> Result<Found> {
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
    pub(in super::super) fn named(&self, id: &str) -> Result<Found> {
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
    pub(super) fn unreadable(&self) -> Result<u64> {
        let mut count = 0;
        for run in self.unread()? {
            let dir = self.layout.find_run(run)?;
            let is_begun = |dir: PathBuf| run_dir::is_begun(self.layout.fs(), &dir).unwrap_or(true);
            count += u64::from(dir.is_some_and(is_begun));
        }
        Ok(count)
    }

    /// Returns the runs of which no line tells.
    pub(super) fn unread(&self) -> Result<Vec<RunId>> {
        let mut statement = self.connection.prepare_cached("SELECT run_id FROM unread")?;
        let unread = statement.query_map([], |row| row.get::<_, String>(0))?;
        let unread: std::result::Result<Vec<String>, _> = unread.collect();
        Ok(unread?.iter().filter_map(|run| run.parse().ok()).collect())
    }

    pub(super) fn summaries(&self, statement: &str, values: Vec<Sql>) -> Result<Vec<RunSummary>> {
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

/// Writes the part of a query that tells which runs are asked for, of those that are over.
pub(super) fn filter(query: &Query) -> (String, Vec<Sql>) {
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
    if let Some(replays) = query.replays {
        and("replays = ?", i64::from(replays).into());
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
    (text, values)
}
