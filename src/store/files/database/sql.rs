//! Questions in SQL: documented views over the tables, and nothing but reading.
//!
//! The views are those of [`VIEWS`], with the names and units of `docs/sql.md`; the tables behind them are nobody's
//! interface. A statement is stopped by an authorizer before it runs when it would do anything but select from the views,
//! and while it runs when it takes too long.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Error as SqliteError;
use rusqlite::ErrorCode;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;

use super::Database;

/// A view: its name, what a row is, the table behind it, its columns.
#[derive(Debug)]
pub struct View {
    /// Its name.
    pub name: &'static str,
    /// What a row is.
    pub about: &'static str,
    from: &'static str,
    /// Its columns.
    pub columns: &'static [ViewColumn],
}

/// A column of a view.
#[derive(Debug)]
pub struct ViewColumn {
    /// Its name.
    pub name: &'static str,
    /// What it says, with its unit.
    pub about: &'static str,
    is: &'static str,
}

const fn column(name: &'static str, is: &'static str, about: &'static str) -> ViewColumn {
    ViewColumn { name, about, is }
}

/// Written out, so that no fraction is lost on the way through a float.
macro_rules! time {
    ($nanos:literal) => {
        concat!(
            "strftime('%Y-%m-%dT%H:%M:%S', ",
            $nanos,
            " / 1000000000, 'unixepoch') || printf('.%03dZ', ",
            $nanos,
            " / 1000000 % 1000)"
        )
    };
}

macro_rules! word {
    ($column:literal) => {
        concat!("(SELECT word FROM main.words WHERE words.id = ", $column, ")")
    };
}

macro_rules! told {
    ($path:literal) => {
        concat!("json_extract(coalesce(totals.live, summaries.json), '$.", $path, "')")
    };
}

/// All views.
pub const VIEWS: &[View] = &[
    View {
        name: "runs",
        about: "a run",
        from: "main.runs AS r JOIN main.summaries USING (id) LEFT JOIN main.totals USING (id)",
        columns: &[
            column("run_id", "r.run_id", "text"),
            column("kind", "r.kind", "`agent` or `workflow`"),
            column("agent_id", "r.agent", "the agent's name, of an agent run"),
            column("workflow_id", "r.workflow", "the workflow's name, of a workflow run"),
            column("session_id", "r.session", "text"),
            column("user_id", told!("user_id"), "text"),
            column("parent_run_id", told!("parent_run_id"), "the run that started it"),
            column("trace_id", "r.trace", "32 hex digits"),
            column("status", "coalesce(totals.status, r.status)", "a word, as in `run.yaml`"),
            column("started_at", time!("r.started"), "RFC 3339, UTC, milliseconds"),
            column("started_unix_ms", "r.started / 1000000", "the same, in milliseconds since 1970"),
            column("duration_ms", "coalesce(totals.duration, r.duration)", "milliseconds; null while it runs"),
            column("cost_usd", "coalesce(totals.cost, r.cost) / 1e9", "dollars, for the eye; null when unknown"),
            column("cost_nano_usd", "coalesce(totals.cost, r.cost)", "nano-dollars, an integer: what to sum"),
            column("unpriced_steps", "coalesce(totals.unpriced, 0)", "steps that the cost lacks"),
            column("model", told!("model"), "the model that cost most"),
            column("provider", told!("provider"), "its provider"),
            column("prompt_tokens", "totals.prompt", "all input tokens, cached ones included; null: nobody said"),
            column("completion_tokens", "totals.completion", "all output tokens"),
            column("total_tokens", "totals.total", "both"),
            column("cache_read_tokens", "totals.cache_read", "part of the input"),
            column("cache_write_tokens", "totals.cache_write", "part of the input"),
            column("reasoning_tokens", "totals.reasoning", "part of the output"),
            column("steps", "totals.steps", "how many"),
            column("llm_calls", "totals.llm_calls", "calls of language models, each once"),
            column("tool_calls", "totals.tool_calls", "calls of tools, each once"),
            column("errors", "totals.errors", "failures, each once"),
            column("error_type", told!("error.type"), "why it failed"),
            column("error_message", told!("error.message"), "what was said"),
            column("damage", "totals.trouble", "why its steps cannot be read; null when they can"),
        ],
    },
    View {
        name: "steps",
        about: "a step of a run",
        from: "main.steps AS s JOIN main.runs AS r ON r.id = s.id >> 24",
        columns: &[
            column("run_id", "r.run_id", "text"),
            column("step_id", word!("s.step"), "the readable name, unique in its run"),
            column("span_id", "printf('%016x', s.span)", "16 hex digits"),
            column("parent_span_id", "iif(s.parent IS NULL, NULL, printf('%016x', s.parent))", "null for a root"),
            column("kind", word!("s.kind"), "`llm`, `tool`, `agent`, ... as in `get`"),
            column("name", word!("s.name"), "as the emitter gave it"),
            column("agent_id", word!("s.agent"), "the agent that it is or belongs to"),
            column("provider", word!("s.provider"), "who served the model"),
            column("model", word!("s.model"), "the model, as the run names it"),
            column("tool", word!("s.tool"), "the tool, of a tool call"),
            column("status", word!("s.status"), "`running`, `success`, `error`, `timeout`, `cancelled`, `crashed`"),
            column("started_at", time!("s.started"), "RFC 3339, UTC, milliseconds"),
            column("started_unix_ms", "s.started / 1000000", "the same, in milliseconds since 1970"),
            column("duration_ms", "s.duration / 1e3", "milliseconds; null while it runs"),
            column("time_to_first_token_ms", "s.first_token / 1e3", "milliseconds; null: nobody said"),
            column("prompt_tokens", "s.prompt", "all input tokens, cached ones included; null: nobody said"),
            column("completion_tokens", "s.completion", "all output tokens"),
            column("total_tokens", "s.total", "both"),
            column("cache_read_tokens", "s.cache_read", "part of the input"),
            column("cache_write_tokens", "s.cache_write", "part of the input"),
            column("reasoning_tokens", "s.reasoning", "part of the output"),
            column("cost_usd", "s.cost / 1e9", "dollars, for the eye; null when unknown"),
            column("cost_nano_usd", "s.cost", "nano-dollars, an integer: what to sum"),
            column("cost_source", word!("s.source"), "`reported` or `computed`"),
            column(
                "duplicate_of",
                word!("s.copy_of"),
                "the step that tells the same call; this one counts for nothing",
            ),
            column("is_model_call", "(s.counts & 1) <> 0", "1: a model call that counts"),
            column("is_tool_call", "(s.counts & 2) <> 0", "1: a tool call that counts"),
            column("counts_tokens", "(s.counts & 4) <> 0", "1: its tokens are part of the run's"),
            column("counts_cost", "(s.counts & 8) <> 0", "1: its cost is part of the run's"),
            column("is_unpriced", "(s.counts & 16) <> 0", "1: one of the run's `unpriced_steps`"),
            column("is_failure", "(s.counts & 32) <> 0", "1: one of the run's `errors`"),
            column("caused_tokens", "s.caused_tokens", "an estimate, see stats.md; null: not known"),
            column("caused_cost_nano_usd", "s.caused_cost", "an estimate, in nano-dollars"),
        ],
    },
    View {
        name: "errors",
        about: "a step that did not end well",
        from: "main.errors AS e JOIN main.steps AS s USING (id) JOIN main.runs AS r ON r.id = e.id >> 24",
        columns: &[
            column("run_id", "r.run_id", "text"),
            column("step_id", word!("s.step"), "the step"),
            column("kind", word!("s.kind"), "its kind"),
            column("name", word!("s.name"), "its name"),
            column("agent_id", word!("s.agent"), "its agent"),
            column("status", word!("s.status"), "how it ended"),
            column("started_at", time!("s.started"), "when it began: RFC 3339, UTC, milliseconds"),
            column("type", "e.type", "class of the error"),
            column("pattern", "e.pattern", "the message with `<n>`, `<id>` and `<text>` for what differs"),
            column("message", "e.message", "what was said"),
            column("is_failure", "e.counts", "1: one of the run's `errors`; 0: it passes on a failure below it"),
        ],
    },
    View {
        name: "models",
        about: "a model that a run used",
        from: "main.models AS m JOIN main.runs AS r USING (id)",
        columns: &[column("run_id", "r.run_id", "text"), column("model", "m.model", "the model")],
    },
    View {
        name: "tags",
        about: "a tag of a run",
        from: "main.tags AS t JOIN main.runs AS r USING (id)",
        columns: &[column("run_id", "r.run_id", "text"), column("tag", "t.tag", "the tag")],
    },
];

/// Longest text that a statement may make, in bytes.
const MAX_VALUE: i32 = 16 << 20;
/// Longest statement, in bytes.
const MAX_STATEMENT: i32 = 1 << 20;
/// After how many steps of SQLite's machine the clock is looked at.
const LOOK_EVERY: i32 = 10_000;
/// Functions that reach out of the database.
const FORBIDDEN_FUNCTIONS: &[&str] = &["load_extension", "fts3_tokenizer"];

/// What an answer may take.
#[derive(Clone, Copy, Debug)]
pub struct SqlLimits {
    /// Rows; 0 for all.
    pub rows: usize,
    /// How long it may take.
    pub time: Duration,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SqlAnswer {
    /// Names of the columns, each once.
    pub columns: Vec<String>,
    /// The rows; JSON values, with a blob as hex digits.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// There are more rows than were asked for.
    pub is_cut: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// What is wrong.
    pub what: String,
    /// Byte of the statement at which it is, where that is known.
    pub at: Option<usize>,
    /// Whether the statement is at fault, and not the database.
    pub is_wrong_use: bool,
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for SqlError {}

impl SqlError {
    fn wrong(what: impl Into<String>) -> Self {
        Self { what: what.into(), at: None, is_wrong_use: true }
    }
}

/// What the authorizer refused, for the one who asks why.
type Refused = Arc<Mutex<Option<String>>>;

impl Database {
    /// Answers a statement over [`VIEWS`]. The database has to be [current](super::whole), and is not needed after.
    ///
    /// # Errors
    ///
    /// When the statement is not one that selects, or is wrong, or takes too long; or the database cannot be read.
    pub fn sql(self, statement: &str, limits: SqlLimits) -> Result<SqlAnswer, SqlError> {
        let refused = Refused::default();
        let connection = self.restricted(&refused, limits).map_err(|error| SqlError {
            what: error.to_string(),
            at: None,
            is_wrong_use: false,
        })?;
        let failed = |error| explain(error, &refused, limits);
        let mut prepared = connection.prepare(statement).map_err(failed)?;
        if prepared.column_count() == 0 {
            return Err(SqlError::wrong("nothing is selected"));
        }
        if prepared.parameter_count() > 0 {
            return Err(SqlError::wrong("there is nothing that could be put in the place of a parameter"));
        }
        let columns = unique(prepared.column_names());
        let mut answer = SqlAnswer { rows: Vec::new(), is_cut: false, columns };
        let mut rows = prepared.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            if limits.rows > 0 && answer.rows.len() == limits.rows {
                answer.is_cut = true;
                break;
            }
            let cells = (0..answer.columns.len()).map(|place| row.get_ref(place).map(json_of));
            answer.rows.push(cells.collect::<Result<_, _>>().map_err(failed)?);
        }
        Ok(answer)
    }

    /// Makes the views and lets nothing but reading them pass from now on.
    fn restricted(self, refused: &Refused, limits: SqlLimits) -> rusqlite::Result<rusqlite::Connection> {
        let mut connection = self.connection;
        for view in VIEWS {
            connection.execute_batch(&view.statement())?;
        }
        connection.pragma_update(None, "query_only", true)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE)?;
        connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_STATEMENT)?;
        connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
        let until = Instant::now() + limits.time;
        connection.progress_handler(LOOK_EVERY, Some(move || Instant::now() >= until))?;
        let refused = Arc::clone(refused);
        connection.authorizer(Some(move |context: AuthContext<'_>| match refusal(&context) {
            None => Authorization::Allow,
            Some(why) => {
                if let Ok(mut refused) = refused.lock() {
                    refused.get_or_insert(why);
                }
                Authorization::Deny
            }
        }))?;
        // A transaction would be refused from here on.
        Ok(connection)
    }
}

impl View {
    fn statement(&self) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|column| format!("{} AS {}", column.is, column.name)).collect();
        format!("CREATE TEMP VIEW {} AS SELECT {} FROM {}", self.name, columns.join(", "), self.from)
    }
}

/// Says why something is refused; `None`: it is not.
fn refusal(context: &AuthContext<'_>) -> Option<String> {
    match context.action {
        AuthAction::Select | AuthAction::Recursive => None,
        AuthAction::Function { function_name } if FORBIDDEN_FUNCTIONS.contains(&function_name) => {
            Some(format!("the function {function_name} is not allowed"))
        }
        AuthAction::Function { .. } => None,
        // Tables that SQLite makes of functions have no database.
        AuthAction::Read { .. } if context.database_name.is_none() => None,
        // Rows of which no column is read are counted; from which view, SQLite does not say any more.
        AuthAction::Read { column_name: "", .. } => None,
        AuthAction::Read { table_name, .. } => {
            let is_view = |name: &str| VIEWS.iter().any(|view| view.name == name);
            let is_shown = match context.database_name {
                Some("temp") => is_view(table_name),
                // Only from within a view.
                _ => context.accessor.is_some_and(is_view),
            };
            (!is_shown).then(|| format!("{table_name} is none of the views {}", names()))
        }
        AuthAction::Pragma { .. } => Some("pragmas are not allowed".to_owned()),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Some("other databases are not to be attached".to_owned())
        }
        _ => Some("only statements that select are allowed: nothing is changed".to_owned()),
    }
}

fn names() -> String {
    VIEWS.iter().map(|view| view.name).collect::<Vec<_>>().join(", ")
}

fn explain(error: SqliteError, refused: &Refused, limits: SqlLimits) -> SqlError {
    let refused = refused.lock().ok().and_then(|mut refused| refused.take());
    match error {
        SqliteError::SqlInputError { msg, offset, .. } => {
            let at = usize::try_from(offset).ok();
            SqlError { what: refused.unwrap_or_else(|| in_words(msg)), at, is_wrong_use: true }
        }
        SqliteError::MultipleStatement => SqlError::wrong("one statement at a time"),
        // Nothing but blanks and comments.
        SqliteError::Empty => SqlError::wrong("nothing is selected"),
        SqliteError::SqliteFailure(failure, message) => {
            let is_wrong_use = match failure.code {
                ErrorCode::AuthorizationForStatementDenied
                | ErrorCode::OperationInterrupted
                | ErrorCode::TooBig
                | ErrorCode::TypeMismatch
                | ErrorCode::ReadOnly
                | ErrorCode::Unknown => true,
                _ => refused.is_some(),
            };
            let what = match failure.code {
                ErrorCode::OperationInterrupted => {
                    format!("it took longer than {} s; --timeout gives it more", limits.time.as_secs())
                }
                _ => refused.or(message.map(in_words)).unwrap_or_else(|| failure.to_string()),
            };
            SqlError { what, at: None, is_wrong_use }
        }
        other => SqlError { what: other.to_string(), at: None, is_wrong_use: false },
    }
}

/// Adds to what SQLite says what there is.
fn in_words(message: String) -> String {
    let of = |what: &str| message.strip_prefix(what);
    match (of("no such table: "), of("no such column: ")) {
        (Some(table), _) => format!("there is no {table}; the views are {}", names()),
        (_, Some(column)) => format!("there is no column {column}; `runspan sql` alone lists them"),
        _ => message,
    }
}

/// Gives columns of one name a number, so that none is lost where names are keys.
fn unique<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let mut tried = name.to_owned();
        let mut number = 2;
        while unique.contains(&tried) {
            tried = format!("{name}_{number}");
            number += 1;
        }
        unique.push(tried);
    }
    unique
}

fn json_of(value: ValueRef<'_>) -> serde_json::Value {
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(number) => number.into(),
        // JSON has no infinity.
        ValueRef::Real(number) => serde_json::Number::from_f64(number).map_or(serde_json::Value::Null, Into::into),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => crate::model::hex(bytes).into(),
    }
}
