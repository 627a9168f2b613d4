//! Sums, rates and percentiles over runs and their steps, and the errors grouped by what they say.

mod calls;

use std::collections::HashMap;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use super::steps::{run_of, step_number};
use super::{Database, DatabaseError, Result, filter};
use crate::model::{NanoUsd, RunId, RunStatus, RunSummary, Tokens, UnixNanos};
use crate::store::Query;

/// Up to so many runs are looked at one by one; of more all steps are walked over.
const FEW_RUNS: usize = 2_000;
/// Kinds of errors that are told.
const MAX_ERRORS: usize = 50;

/// What is added up apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Runs of each agent.
    Agent,
    /// Runs of each workflow.
    Workflow,
    /// Calls of each model.
    Model,
    /// Calls served by each provider.
    Provider,
    /// Calls of each tool.
    Tool,
    /// Runs that began on each day, in UTC.
    Day,
    /// Runs that began in each hour, in UTC.
    Hour,
    /// Runs of each session.
    Session,
    /// Runs with each tag; one with several tags is in several groups.
    Tag,
}

impl By {
    /// All of them, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::Agent,
        Self::Workflow,
        Self::Model,
        Self::Provider,
        Self::Tool,
        Self::Day,
        Self::Hour,
        Self::Session,
        Self::Tag,
    ];

    /// Returns the word used in flags and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Workflow => "workflow",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Tool => "tool",
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Session => "session",
            Self::Tag => "tag",
        }
    }

    /// Tells whether its groups are told in the order of time.
    pub const fn is_of_time(self) -> bool {
        matches!(self, Self::Day | Self::Hour)
    }

    const fn counts(self) -> Counted {
        match self {
            Self::Model | Self::Provider => Counted::ModelCalls,
            Self::Tool => Counted::ToolCalls,
            _ => Counted::Runs,
        }
    }
}

/// What a group counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// Runs.
    Runs,
    /// Calls of models, each once: of language models, embeddings, rerankers.
    ModelCalls,
    /// Calls of tools, each once.
    ToolCalls,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    /// What `groups` are by; `None`: there are none.
    pub by: Option<&'static str>,
    /// What `groups` count.
    pub of: Counted,
    /// All runs that were asked for.
    pub total: Group,
    /// The dearest first, those of days and hours by time.
    pub groups: Vec<Group>,
    /// Failures by what they say, the most frequent first, at most 50 kinds.
    pub errors: Vec<ErrorGroup>,
    /// Runs that are there and cannot be read, or whose steps cannot: of the latter only what their metadata says is in
    /// the sums.
    pub damaged_runs: u64,
}

impl Stats {
    /// Returns the answer of a store that has no runs.
    pub fn empty(by: Option<By>) -> Self {
        Self {
            by: by.map(By::as_str),
            of: by.map_or(Counted::Runs, By::counts),
            total: Group::default(),
            groups: Vec::new(),
            errors: Vec::new(),
            damaged_runs: 0,
        }
    }
}

/// Sums over runs or over calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Group {
    /// Its name; `None` for what has none, and for the total.
    pub key: Option<String>,
    /// Distinct runs.
    pub runs: u64,
    /// Runs or calls: what the group counts.
    pub count: u64,
    /// Those that ended well.
    pub success: u64,
    /// Those under way.
    pub open: u64,
    /// Those that somebody ended, or let go of, before they were done: no success, and no failure.
    pub cancelled: u64,
    /// `success` by what is over and was not cancelled; `None` when nothing is.
    pub success_rate: Option<f64>,
    /// Calls of language models, each once.
    pub llm_calls: u64,
    /// Calls of tools, each once.
    pub tool_calls: u64,
    /// Failures, those that only pass on another left out.
    pub errors: u64,
    /// What was used; a field is `None` when nobody reported it.
    pub tokens: Option<Tokens>,
    /// What it cost; `None` when nothing could be priced.
    pub cost_usd: Option<NanoUsd>,
    /// Steps that `cost_usd` lacks.
    pub unpriced_steps: u64,
    /// How long runs or calls took that are over.
    pub duration_ms: Option<Percentiles>,
    /// How long calls took until the first piece of their answer came, where it was told.
    pub time_to_first_token_ms: Option<Percentiles>,
    /// An estimate: input tokens that results of tools were in the model calls after them.
    pub caused_tokens: Option<u64>,
    /// An estimate: what these cost.
    pub caused_cost_usd: Option<NanoUsd>,
}

/// Nearest-rank percentiles: the smallest value that so many of a hundred do not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of the values are not above.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
}

/// Failures that say the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorGroup {
    /// Class of the errors.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Their message, with `<n>`, `<id>` and `<text>` for what differs.
    pub pattern: Option<String>,
    /// How many.
    pub count: u64,
    /// In how many runs.
    pub runs: u64,
    /// The newest of them.
    pub newest: ErrorExample,
    /// The newest run of the same agent or workflow that ended well without any failure: to compare with.
    pub compare_with: Option<RunId>,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ErrorExample {
    /// The run.
    pub run_id: RunId,
    /// The step that failed.
    pub step_id: String,
    /// When the step began.
    pub started_at: UnixNanos,
    /// What was said.
    pub message: Option<String>,
}

/// A group being added up.
#[derive(Debug, Default)]
struct Sums {
    group: Group,
    tokens: Option<Tokens>,
    /// In microseconds.
    durations: Vec<u64>,
    first_tokens: Vec<u64>,
    last_run: Option<i64>,
}

impl Sums {
    fn add_tokens(&mut self, tokens: Tokens) {
        if !tokens.is_unknown() {
            self.tokens = Some(self.tokens.unwrap_or_default().plus(tokens));
        }
    }

    fn add_cost(&mut self, cost: Option<i64>) {
        add(&mut self.group.cost_usd, cost);
    }

    /// Counts a run or a call.
    fn count(&mut self, outcome: Outcome) {
        self.group.count += 1;
        match outcome {
            Outcome::Open => self.group.open += 1,
            Outcome::Cancelled => self.group.cancelled += 1,
            Outcome::Success => self.group.success += 1,
            Outcome::Failure => {}
        }
    }

    fn note_run(&mut self, run: i64) {
        // Steps come by run.
        if self.last_run.replace(run) != Some(run) {
            self.group.runs += 1;
        }
    }

    /// Adds what was added up of other runs.
    fn merge(&mut self, other: Self) {
        let (ours, theirs) = (&mut self.group, other.group);
        for (ours, theirs) in [
            (&mut ours.runs, theirs.runs),
            (&mut ours.count, theirs.count),
            (&mut ours.success, theirs.success),
            (&mut ours.open, theirs.open),
            (&mut ours.cancelled, theirs.cancelled),
            (&mut ours.llm_calls, theirs.llm_calls),
            (&mut ours.tool_calls, theirs.tool_calls),
            (&mut ours.errors, theirs.errors),
            (&mut ours.unpriced_steps, theirs.unpriced_steps),
        ] {
            *ours += theirs;
        }
        add(&mut ours.cost_usd, theirs.cost_usd.map(|cost| cost.0));
        add(&mut ours.caused_cost_usd, theirs.caused_cost_usd.map(|cost| cost.0));
        if let Some(tokens) = theirs.caused_tokens {
            let sum = ours.caused_tokens.get_or_insert(0);
            *sum = sum.saturating_add(tokens);
        }
        self.add_tokens(other.tokens.unwrap_or_default());
        self.durations.extend(other.durations);
        self.first_tokens.extend(other.first_tokens);
    }

    fn into_group(self, key: Option<String>) -> Group {
        let over = self.group.count - self.group.open - self.group.cancelled;
        Group {
            key,
            success_rate: (over > 0).then(|| self.group.success as f64 / over as f64),
            tokens: self.tokens,
            duration_ms: percentiles(self.durations),
            time_to_first_token_ms: percentiles(self.first_tokens),
            ..self.group
        }
    }
}

fn add(sum: &mut Option<NanoUsd>, amount: Option<i64>) {
    if let Some(amount) = amount {
        *sum = Some(sum.unwrap_or_default() + NanoUsd(amount));
    }
}

/// Returns the percentiles of microseconds, in milliseconds.
fn percentiles(mut values: Vec<u64>) -> Option<Percentiles> {
    if values.is_empty() {
        return None;
    }
    values.sort_unstable();
    let at = |percent: usize| values[(values.len() * percent).div_ceil(100) - 1] as f64 / 1e3;
    Some(Percentiles { p50: at(50), p90: at(90), p99: at(99) })
}

/// A run that was asked for.
#[derive(Clone, Debug)]
struct Chosen {
    id: i64,
    /// What it is grouped by, where that is a name of its own.
    name: Option<String>,
    started: UnixNanos,
    status: RunStatus,
    totals: Totals,
}

/// What a run took, as the index has it.
#[derive(Clone, Debug)]
struct Totals {
    tokens: Tokens,
    cost: Option<i64>,
    unpriced: i64,
    duration: Option<i64>,
    errors: i64,
    llm_calls: i64,
    tool_calls: i64,
    has_trouble: bool,
}

const TOTALS: &str = "totals.status, prompt, completion, total, cache_read, cache_write, reasoning, totals.cost, \
                      unpriced, totals.duration, errors, llm_calls, tool_calls, trouble IS NOT NULL";

fn status_and_totals(row: &Row<'_>, first: usize) -> Result<(RunStatus, Totals)> {
    let status = row.get_ref(first)?.as_str().map_err(rusqlite::Error::from)?;
    let status = status.parse().map_err(|_| DatabaseError::foreign())?;
    let totals = Totals {
        tokens: tokens(row, first + 1)?,
        cost: row.get(first + 7)?,
        unpriced: row.get(first + 8)?,
        duration: row.get(first + 9)?,
        errors: row.get(first + 10)?,
        llm_calls: row.get(first + 11)?,
        tool_calls: row.get(first + 12)?,
        has_trouble: row.get(first + 13)?,
    };
    Ok((status, totals))
}

fn tokens(row: &Row<'_>, first: usize) -> Result<Tokens> {
    let at = |place: usize| -> Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(first + place)?.map(|number| number.try_into().unwrap_or(0)))
    };
    Ok(Tokens {
        prompt: at(0)?,
        completion: at(1)?,
        total: at(2)?,
        cache_read: at(3)?,
        cache_write: at(4)?,
        reasoning: at(5)?,
    })
}

/// The runs that were asked for, to ask of a step whether it is of one.
struct Set(Vec<u64>);

impl Set {
    fn of(runs: &[Chosen]) -> Self {
        let largest = runs.iter().map(|run| run.id).max().unwrap_or(0);
        let mut bits = vec![0; usize::try_from(largest).unwrap_or(0) / 64 + 1];
        for run in runs {
            if let Some(word) = usize::try_from(run.id).ok().and_then(|id| bits.get_mut(id / 64)) {
                *word |= 1 << (run.id % 64);
            }
        }
        Self(bits)
    }

    /// Walks over rows of the steps of these runs that have numbers in a range.
    fn each_step(
        &self,
        connection: &Connection,
        sql: &str,
        range: [i64; 2],
        mut take: impl FnMut(i64, &Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(range)?;
        while let Some(row) = rows.next()? {
            let run = run_of(row.get(0)?);
            if self.has(run) {
                take(run, row)?;
            }
        }
        Ok(())
    }

    fn has(&self, run: i64) -> bool {
        let word = usize::try_from(run).ok().and_then(|id| self.0.get(id / 64));
        word.is_some_and(|word| word >> (run % 64) & 1 == 1)
    }
}

impl Database {
    /// Adds up what the runs did that a query asks for; its order and limit mean nothing here. The database has to be
    /// [current](super::whole).
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn stats(&self, query: &Query, by: Option<By>) -> Result<Stats> {
        // All from one state of the database.
        let _transaction = self.connection.unchecked_transaction()?;
        let runs = self.chosen(query, by)?;
        let of = by.map_or(Counted::Runs, By::counts);
        let first_tokens = self.first_tokens(&runs)?;
        let mut total = Sums::default();
        for run in &runs {
            add_run(&mut total, run, first_tokens.get(&run.id));
        }
        self.add_caused(&mut total, &runs)?;
        let groups = match (by, of) {
            (None, _) => Vec::new(),
            (Some(by), Counted::Runs) => self.groups_of_runs(&runs, by, &first_tokens)?,
            (Some(by), _) => self.groups_of_calls(&runs, by)?,
        };
        let mut groups = groups;
        match by {
            Some(by) if by.is_of_time() => groups.sort_by(|a, b| a.key.cmp(&b.key)),
            _ => groups.sort_by(|a, b| {
                let weight = |group: &Group| (group.cost_usd, group.caused_cost_usd, group.count);
                weight(b).cmp(&weight(a)).then_with(|| a.key.cmp(&b.key))
            }),
        }
        let without_steps = runs.iter().filter(|run| run.totals.has_trouble).count() as u64;
        let damaged_runs = without_steps + self.unreadable()?;
        Ok(Stats {
            by: by.map(By::as_str),
            of,
            total: total.into_group(None),
            groups,
            errors: self.error_groups(&runs)?,
            damaged_runs,
        })
    }

    /// Returns the runs that a query asks for, by id.
    fn chosen(&self, query: &Query, by: Option<By>) -> Result<Vec<Chosen>> {
        let (filter, values) = filter(query);
        // A hundred thousand names that nobody needs take a while.
        let name = match by {
            Some(By::Agent) => "agent",
            Some(By::Workflow) => "workflow",
            Some(By::Session) => "session",
            _ => "NULL",
        };
        let closed = format!(
            "SELECT chosen, name, started, {TOTALS} FROM (SELECT id AS chosen, {name} AS name, started FROM runs \
             WHERE status NOT IN ('running', 'waiting'){filter}) CROSS JOIN totals ON id = chosen"
        );
        let mut statement = self.connection.prepare_cached(&closed)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let mut runs = Vec::new();
        while let Some(row) = rows.next()? {
            let (status, totals) = status_and_totals(row, 3)?;
            let (id, started) = (row.get(0)?, row.get(2)?);
            runs.push(Chosen { id, name: row.get(1)?, started: self.moment_of(id, started)?, status, totals });
        }
        let open = format!(
            "SELECT id, coalesce(live, json), {TOTALS} FROM runs JOIN totals USING (id) JOIN summaries USING (id) \
             WHERE runs.status IN ('running', 'waiting')"
        );
        let mut statement = self.connection.prepare_cached(&open)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let json = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            let run: RunSummary = serde_json::from_str(json).map_err(|_| DatabaseError::foreign())?;
            if query.matches(&run) {
                let (status, totals) = status_and_totals(row, 2)?;
                let started = run.started_at;
                let name = match by {
                    Some(By::Agent) => run.agent_id,
                    Some(By::Workflow) => run.workflow_id,
                    Some(By::Session) => run.session_id,
                    _ => None,
                };
                runs.push(Chosen { id: row.get(0)?, name, started, status, totals });
            }
        }
        runs.sort_unstable_by_key(|run| run.id);
        Ok(runs)
    }

    /// Returns when a run began by the number that stands for it: what is past the largest has it in common.
    fn moment_of(&self, run: i64, started: i64) -> Result<UnixNanos> {
        if started < i64::MAX {
            return Ok(UnixNanos(started.try_into().unwrap_or(0)));
        }
        let mut statement = self.connection.prepare_cached("SELECT json FROM summaries WHERE id = ?1")?;
        let json: String = statement.query_row([run], |row| row.get(0))?;
        let run: RunSummary = serde_json::from_str(&json).map_err(|_| DatabaseError::foreign())?;
        Ok(run.started_at)
    }

    /// Walks over rows of the steps of runs. `sql`: takes the range of numbers as its two values.
    fn each_step(&self, runs: &[Chosen], sql: &str, mut take: impl FnMut(i64, &Row<'_>) -> Result<()>) -> Result<()> {
        let mut statement = self.connection.prepare_cached(sql)?;
        if runs.len() <= FEW_RUNS {
            for run in runs {
                let mut rows = statement.query([step_number(run.id, 0), step_number(run.id + 1, 0)])?;
                while let Some(row) = rows.next()? {
                    take(run.id, row)?;
                }
            }
            return Ok(());
        }
        Set::of(runs).each_step(&self.connection, sql, [0, i64::MAX], take)
    }

    fn first_tokens(&self, runs: &[Chosen]) -> Result<HashMap<i64, Vec<u64>>> {
        let mut of: HashMap<i64, Vec<u64>> = HashMap::new();
        let sql =
            "SELECT id, first_token FROM steps WHERE first_token IS NOT NULL AND counts & 1 AND id >= ?1 AND id < ?2";
        self.each_step(runs, sql, |run, row| {
            of.entry(run).or_default().push(row.get::<_, i64>(1)?.try_into().unwrap_or(0));
            Ok(())
        })?;
        Ok(of)
    }

    fn add_caused(&self, total: &mut Sums, runs: &[Chosen]) -> Result<()> {
        let sql =
            "SELECT id, caused_tokens, caused_cost FROM steps WHERE caused_tokens IS NOT NULL AND id >= ?1 AND id < ?2";
        self.each_step(runs, sql, |_, row| add_caused(total, row.get(1)?, row.get(2)?))
    }

    fn groups_of_runs(&self, runs: &[Chosen], by: By, first_tokens: &HashMap<i64, Vec<u64>>) -> Result<Vec<Group>> {
        let tags = if by == By::Tag { self.tags()? } else { HashMap::new() };
        let mut sums: HashMap<Option<String>, Sums> = HashMap::new();
        let keys = |run: &Chosen| match by {
            By::Agent | By::Workflow | By::Session => vec![run.name.clone()],
            By::Day => vec![moment(run.started, 10, "")],
            By::Hour => vec![moment(run.started, 13, ":00Z")],
            By::Tag => match tags.get(&run.id) {
                Some(tags) => tags.iter().cloned().map(Some).collect(),
                None => vec![None],
            },
            By::Model | By::Provider | By::Tool => Vec::new(),
        };
        for run in runs {
            for key in keys(run) {
                add_run(sums.entry(key).or_default(), run, first_tokens.get(&run.id));
            }
        }
        let sql =
            "SELECT id, caused_tokens, caused_cost FROM steps WHERE caused_tokens IS NOT NULL AND id >= ?1 AND id < ?2";
        let place = |run: i64| runs.binary_search_by_key(&run, |run| run.id).ok();
        self.each_step(runs, sql, |run, row| {
            for key in place(run).map(|at| keys(&runs[at])).unwrap_or_default() {
                add_caused(sums.entry(key).or_default(), row.get(1)?, row.get(2)?)?;
            }
            Ok(())
        })?;
        Ok(sums.into_iter().map(|(key, sums)| sums.into_group(key)).collect())
    }

    fn tags(&self) -> Result<HashMap<i64, Vec<String>>> {
        let mut statement = self.connection.prepare_cached("SELECT id, tag FROM tags")?;
        let mut rows = statement.query([])?;
        let mut tags: HashMap<i64, Vec<String>> = HashMap::new();
        while let Some(row) = rows.next()? {
            tags.entry(row.get(0)?).or_default().push(row.get(1)?);
        }
        Ok(tags)
    }

    fn error_groups(&self, runs: &[Chosen]) -> Result<Vec<ErrorGroup>> {
        struct Same {
            count: u64,
            runs: u64,
            last_run: i64,
            /// When it began, and its number.
            newest: (i64, i64),
        }
        let mut same: HashMap<(Option<String>, Option<String>), Same> = HashMap::new();
        let sql = "SELECT errors.id, type, pattern, started FROM errors JOIN steps USING (id) \
                   WHERE errors.counts AND errors.id >= ?1 AND errors.id < ?2";
        self.each_step(runs, sql, |run, row| {
            let newest = (row.get(3)?, row.get(0)?);
            let group =
                same.entry((row.get(1)?, row.get(2)?)).or_insert(Same { count: 0, runs: 0, last_run: -1, newest });
            group.count += 1;
            group.runs += u64::from(group.last_run != run);
            group.last_run = run;
            group.newest = group.newest.max(newest);
            Ok(())
        })?;
        let mut same: Vec<_> = same.into_iter().collect();
        same.sort_by(|(a, x), (b, y)| y.count.cmp(&x.count).then(y.newest.cmp(&x.newest)).then_with(|| a.cmp(b)));
        same.truncate(MAX_ERRORS);
        let told = same.into_iter().map(|((kind, pattern), same)| {
            let (newest, compare_with) = self.example(same.newest.1)?;
            Ok(ErrorGroup { kind, pattern, count: same.count, runs: same.runs, newest, compare_with })
        });
        told.collect()
    }

    /// Returns a failed step, and the newest run of the same agent or workflow that ended well.
    fn example(&self, step: i64) -> Result<(ErrorExample, Option<RunId>)> {
        let mut statement = self.connection.prepare_cached(
            "SELECT run_id, word, steps.started, message, kinds.kind, agent, workflow FROM errors \
             JOIN (SELECT id, step, started FROM steps) AS steps ON steps.id = errors.id JOIN words ON words.id = step \
             JOIN (SELECT id AS run, run_id, kind, agent, workflow FROM runs) AS kinds ON run = ?2 WHERE errors.id = ?1",
        )?;
        let (example, of): (ErrorExample, [Sql; 3]) = statement.query_row(params![step, run_of(step)], |row| {
            let run: String = row.get(0)?;
            let example = ErrorExample {
                run_id: run.parse().map_err(|_| rusqlite::Error::InvalidQuery)?,
                step_id: row.get(1)?,
                started_at: UnixNanos(row.get::<_, i64>(2)?.try_into().unwrap_or(0)),
                message: row.get(3)?,
            };
            Ok((example, [row.get(4)?, row.get(5)?, row.get(6)?]))
        })?;
        let mut statement = self.connection.prepare_cached(
            "SELECT run_id FROM runs CROSS JOIN totals USING (id) WHERE runs.status = 'success' AND errors = 0 \
             AND kind = ?1 AND agent IS ?2 AND workflow IS ?3 ORDER BY started DESC, run_id DESC LIMIT 1",
        )?;
        let good: Option<String> = statement.query_row(rusqlite::params_from_iter(of), |row| row.get(0)).optional()?;
        Ok((example, good.and_then(|run| run.parse().ok())))
    }

    fn word(&self, word: &str) -> Result<Option<i64>> {
        let mut statement = self.connection.prepare_cached("SELECT id FROM words WHERE word = ?1")?;
        Ok(statement.query_row([word], |row| row.get(0)).optional()?)
    }

    fn text_of(&self, word: i64) -> Result<String> {
        let mut statement = self.connection.prepare_cached("SELECT word FROM words WHERE id = ?1")?;
        Ok(statement.query_row([word], |row| row.get(0))?)
    }
}

/// How a run or a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Cancelled,
    Success,
    Failure,
}

fn add_run(sums: &mut Sums, run: &Chosen, first_tokens: Option<&Vec<u64>>) {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let totals = &run.totals;
    sums.count(match run.status {
        status if status.is_open() => Outcome::Open,
        RunStatus::Cancelled => Outcome::Cancelled,
        RunStatus::Success => Outcome::Success,
        _ => Outcome::Failure,
    });
    sums.group.runs += 1;
    sums.group.llm_calls += count(totals.llm_calls);
    sums.group.tool_calls += count(totals.tool_calls);
    sums.group.errors += count(totals.errors);
    sums.group.unpriced_steps += count(totals.unpriced);
    sums.add_tokens(totals.tokens);
    sums.add_cost(totals.cost);
    sums.durations.extend(totals.duration.map(|ms| count(ms).saturating_mul(1_000)));
    sums.first_tokens.extend(first_tokens.into_iter().flatten());
}

fn add_caused(sums: &mut Sums, tokens: Option<i64>, cost: Option<i64>) -> Result<()> {
    if let Some(tokens) = tokens {
        let sum = sums.group.caused_tokens.get_or_insert(0);
        *sum = sum.saturating_add(tokens.try_into().unwrap_or(0));
    }
    add(&mut sums.group.caused_cost_usd, cost);
    Ok(())
}

fn micros(value: Option<i64>) -> Option<u64> {
    value.map(|value| value.try_into().unwrap_or(0))
}

/// Returns the beginning of a moment as text: its day or its hour.
fn moment(started: UnixNanos, length: usize, end: &str) -> Option<String> {
    let text = started.rfc3339_millis();
    text.get(..length).map(|begin| format!("{begin}{end}"))
}
