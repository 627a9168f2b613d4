//! The run store: one contract, several backends.
//!
//! A [`RunWriter`] takes runs while they happen, a [`RunReader`] answers questions about them. Both are implemented
//! by [`memory`] and [`files`], and `conformance` is the suite that each of them passes.
//!
//! Guarantees that hold for every backend:
//!
//! - A run has one writer at a time. Nothing here asks the store for a maximum: the writer gives `seq`.
//! - [`RunWriter::append_events`] is idempotent by `event_id`: events that are there already are passed over, so a
//!   batch may be told again after a crash.
//! - A reader sees a prefix of what was appended, never a gap and never half an event.
//! - An unknown run is [`StoreError::NotFound`], an unreadable one [`StoreError::Damaged`], and neither keeps the
//!   others from being read.
//! - What a backend cannot answer is refused with [`StoreError::Unsupported`] and its reason, never with an empty
//!   page.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::model::{Event, RunId, RunKind, RunStatus, RunSummary, StepView, TraceId, UnixNanos};

pub mod assembly;
#[cfg(test)]
mod conformance;
pub mod family;
pub mod files;
pub mod memory;
pub mod retention;
pub mod seen;

/// Version of the stored format that this library writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// Takes runs while they happen.
pub trait RunWriter {
    /// Makes room for a run and keeps its first summary and events; a reader sees both or neither. For a run that is
    /// there already this appends the events and leaves the summary.
    fn create_run(&mut self, summary: &RunSummary, events: &[Event]) -> Result<(), StoreError>;

    /// Does the same for a run that has come whole, and may take its events when it succeeds: a writer that
    /// [holds back](Self::write_held) makes them ready while it is told others.
    fn create_whole(&mut self, summary: &RunSummary, events: &mut Vec<Event>) -> Result<(), StoreError> {
        self.create_run(summary, events)
    }

    /// Tells whether there is such a run, whoever writes it.
    fn has_run(&mut self, run: RunId) -> Result<bool, StoreError>;

    /// Takes a run up again that is there, for the events that it holds; `None` when there is no such run.
    fn take_up(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError>;

    /// Returns runs that are over and were written by others than this writer, with their traces, at most so many: those that
    /// have come since the last call, the latest last. `is_wanted` says which matter. What comes late for one of them goes on with
    /// it.
    ///
    /// A writer whose store nobody else writes to has none.
    fn over_by_others(
        &mut self,
        _most: usize,
        _is_wanted: &dyn Fn(TraceId, RunId) -> bool,
    ) -> Result<Vec<(TraceId, RunId)>, StoreError> {
        Ok(Vec::new())
    }

    /// Notes, for whoever writes to the store next, that a run waits for that of a trace which it names as its cause; or, without
    /// a run, that none waits for this trace any more.
    ///
    /// A writer that nobody comes after needs not.
    fn note_link(&mut self, _trace: TraceId, _run: Option<RunId>) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns the runs that wait so, at most so many of the last ones, the oldest first.
    fn noted_links(&mut self, _most: usize) -> Result<Vec<(TraceId, RunId)>, StoreError> {
        Ok(Vec::new())
    }

    /// Has these runs alone wait so.
    fn replace_links(&mut self, _links: &[(TraceId, RunId)]) -> Result<(), StoreError> {
        Ok(())
    }

    /// Returns the events of a run as far as they are there, whoever writes it, and leaves it as it is; `None` when there is no
    /// such run.
    fn look_at(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError>;

    /// Appends events; those whose id is there already are passed over.
    fn append_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError>;

    /// Replaces a run's events, all of them or none: of a run that is over, which had come in any order.
    fn replace_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError>;

    /// Replaces the summary, whole or not at all.
    fn update_run(&mut self, summary: &RunSummary) -> Result<(), StoreError>;

    /// Removes a run with all that belongs to it; removing one that is not there is no error.
    fn delete_run(&mut self, run: RunId) -> Result<(), StoreError>;

    /// Keeps a run from retention where another is kept from it, of which steps went into this one. Tells whether it is.
    fn hand_on_pin(&mut self, from: RunId, to: RunId) -> Result<bool, StoreError> {
        let _ = (from, to);
        Ok(false)
    }

    /// Tells whether a run is kept from retention.
    fn is_pinned(&self, run: RunId) -> Result<bool, StoreError> {
        let _ = run;
        Ok(false)
    }

    /// Keeps a run from retention no longer: what it was kept for went into others.
    fn drop_pin(&mut self, run: RunId) -> Result<(), StoreError> {
        let _ = run;
        Ok(())
    }

    /// Lets go of what is kept in memory or open for a run that is over; it may be taken up again.
    fn release_run(&mut self, run: RunId);

    /// Says of a run that is let go of that no process writes it, so that any may take it up.
    fn disown_run(&mut self, summary: &RunSummary) -> Result<(), StoreError> {
        let _ = summary;
        Ok(())
    }

    /// Writes what was held back, to be written with others, where that is due; or all of it. Tells whether nothing is
    /// held back any more: until then what was created may not be there after the death of this process, nor be seen.
    fn write_held(&mut self, all: bool) -> Result<bool, StoreError> {
        let _ = all;
        Ok(true)
    }
}

/// Answers questions about runs.
pub trait RunReader {
    /// What this backend can do beyond the rest of this trait.
    fn capabilities(&self) -> Capabilities;

    /// Returns a run's summary, with live totals while it runs.
    fn get_run(&self, run: RunId) -> Result<RunSummary, StoreError>;

    /// Returns runs by [`Query`], newest first.
    fn list_runs(&self, query: &Query) -> Result<Vec<Listed>, StoreError>;

    /// Returns a run's events from `from_seq` on, in order.
    fn get_events(&self, run: RunId, from_seq: u64) -> Result<Vec<Event>, StoreError>;

    /// Returns a run's steps by start, as `get` shows them.
    fn get_steps(&self, run: RunId) -> Result<Vec<StepView>, StoreError> {
        let events = self.get_events(run, 0)?;
        Ok(assembly::RunState::read(run, &events).step_views())
    }

    /// Returns a run's steps by start, for an overview: what went into them and came out, which is most of a long run, may be
    /// missing but for roots.
    fn get_outline(&self, run: RunId) -> Result<Vec<StepView>, StoreError> {
        self.get_steps(run)
    }

    /// Finds runs by text, the newest first, up to the query's limit; only with [`Capabilities::search`].
    fn search(&self, text: &str, query: &Query) -> Result<Vec<Listed>, StoreError>;

    /// Returns the run that `id` names: a run id, a unique prefix of one, a trace id, or `latest`.
    fn resolve(&self, id: &str) -> Result<RunId, StoreError>;
}

/// What a backend can do beyond the contract's core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Full-text search.
    pub search: bool,
    /// Survives the end of the process.
    pub durable: bool,
}

/// Which runs, and how many.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Only this kind.
    pub kind: Option<RunKind>,
    /// Only this agent.
    pub agent_id: Option<String>,
    /// Only this workflow.
    pub workflow_id: Option<String>,
    /// Only this status.
    pub status: Option<RunStatus>,
    /// Only this session.
    pub session_id: Option<String>,
    /// Only runs that this model answered in.
    pub model: Option<String>,
    /// Only runs that began at or after this moment.
    pub since: Option<UnixNanos>,
    /// Only runs that began before this moment.
    pub until: Option<UnixNanos>,
    /// Only runs that cost at least this much.
    pub min_cost: Option<crate::model::NanoUsd>,
    /// Only runs that repeat others, or only those that do not.
    pub replays: Option<bool>,
    /// The order.
    pub sort: Sort,
    /// How many at most; 0 is all.
    pub limit: usize,
}

/// Orders of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Newest start first.
    #[default]
    Started,
    /// Dearest first.
    Cost,
    /// Longest first.
    Duration,
    /// Most tokens first.
    Tokens,
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Listed {
    /// A run.
    Run(Box<ListedRun>),
    /// A run that cannot be read.
    Damaged(DamagedRun),
}

/// A run with what is only known while it runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ListedRun {
    /// The summary; totals are live while the run is.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Names of the steps under way.
    pub open_steps: Vec<String>,
}

/// A run that is there and cannot be read. In JSON it has the keys of a run, null where nothing is known.
#[derive(Clone, Debug, PartialEq)]
pub struct DamagedRun {
    /// The run's id.
    pub run_id: RunId,
    /// Always `damaged`.
    pub status: &'static str,
    /// What is wrong; in JSON the message of an error as other runs have it.
    pub error: String,
}

/// The keys that every run of a list has, in their order; of `agent_id` and `workflow_id` a run that can be read has one.
const LISTED_KEYS: &[&str] = &[
    "format",
    "run_id",
    "kind",
    "agent_id",
    "workflow_id",
    "session_id",
    "user_id",
    "parent_run_id",
    "replay_of",
    "external_id",
    "tags",
    "trace_id",
    "status",
    "started_at",
    "completed_at",
    "duration_ms",
    "cost_usd",
    "cost_source",
    "provider",
    "model",
    "tokens",
    "steps_total",
    "llm_calls",
    "tool_calls",
    "errors",
    "events",
    "dropped",
    "artifacts",
    "error",
    "updated_at",
    "open_steps",
];

impl Serialize for DamagedRun {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Why<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            message: &'a str,
            step_id: Option<()>,
        }
        let mut map = serializer.serialize_map(Some(LISTED_KEYS.len()))?;
        for key in LISTED_KEYS {
            match *key {
                "run_id" => map.serialize_entry(key, &self.run_id)?,
                "status" => map.serialize_entry(key, self.status)?,
                "error" => {
                    map.serialize_entry(key, &Why { kind: self.status, message: &self.error, step_id: None })?;
                }
                _ => map.serialize_entry(key, &None::<()>)?,
            }
        }
        map.end()
    }
}

impl Query {
    /// Tells whether a run is asked for, by everything but the limit.
    pub fn matches(&self, run: &RunSummary) -> bool {
        fn is<T: PartialEq>(wanted: &Option<T>, value: Option<&T>) -> bool {
            wanted.as_ref().is_none_or(|wanted| value == Some(wanted))
        }
        is(&self.kind, Some(&run.kind))
            && is(&self.agent_id, run.agent_id.as_ref())
            && is(&self.workflow_id, run.workflow_id.as_ref())
            && is(&self.status, Some(&run.status))
            && is(&self.session_id, run.session_id.as_ref())
            && self.model.as_ref().is_none_or(|model| run.model.as_ref() == Some(model) || run.models.contains(model))
            && self.since.is_none_or(|since| run.started_at >= since)
            && self.until.is_none_or(|until| run.started_at < until)
            && self.min_cost.is_none_or(|cost| run.cost_usd.is_some_and(|run| run >= cost))
            && self.replays.is_none_or(|wanted| run.replay_of.is_some() == wanted)
    }

    /// Filters, sorts and cuts a full list of runs.
    pub fn select(&self, runs: Vec<RunSummary>) -> Vec<RunSummary> {
        let mut runs: Vec<RunSummary> = runs.into_iter().filter(|run| self.matches(run)).collect();
        let total = |run: &RunSummary| run.tokens.and_then(|tokens| tokens.total);
        runs.sort_by(|a, b| {
            match self.sort {
                Sort::Started => std::cmp::Ordering::Equal,
                Sort::Cost => b.cost_usd.cmp(&a.cost_usd),
                Sort::Duration => b.duration_ms.cmp(&a.duration_ms),
                Sort::Tokens => total(b).cmp(&total(a)),
            }
            .then_with(|| newest_first(a, b))
        });
        if self.limit > 0 {
            runs.truncate(self.limit);
        }
        runs
    }
}

/// The order of lists: by start, the newest first. Files keep milliseconds, so what is within one is not looked at, wherever a
/// summary comes from: such runs stand in the order of their ids.
pub(crate) fn newest_first(a: &RunSummary, b: &RunSummary) -> std::cmp::Ordering {
    let key = |run: &RunSummary| (run.started_at.millis(), run.run_id);
    key(b).cmp(&key(a))
}

/// Finds the run that `id` names among `runs`, given newest first.
pub fn resolve_among<'a>(id: &str, runs: impl Iterator<Item = &'a RunSummary> + Clone) -> Result<RunId, StoreError> {
    if id == "latest" {
        return runs.map(|run| run.run_id).next().ok_or_else(|| StoreError::NotFound { id: id.to_owned() });
    }
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let wanted = id.to_ascii_lowercase();
        let of_trace: Vec<RunId> =
            runs.filter(|run| run.trace_id.to_string() == wanted).map(|run| run.run_id).collect();
        return one_of(id, of_trace);
    }
    let wanted = id.to_ascii_uppercase();
    let is_prefix = (1..=26).contains(&wanted.len())
        && wanted.bytes().all(|byte| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&byte));
    if !is_prefix {
        return Err(StoreError::NotAnId { id: id.to_owned() });
    }
    one_of(id, runs.map(|run| run.run_id).filter(|run| run.to_string().starts_with(&wanted)).collect())
}

fn one_of(id: &str, candidates: Vec<RunId>) -> Result<RunId, StoreError> {
    match candidates.as_slice() {
        [] => Err(StoreError::NotFound { id: id.to_owned() }),
        [one] => Ok(*one),
        _ => Err(StoreError::Ambiguous { id: id.to_owned(), candidates }),
    }
}

/// Why a store could not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// No run has this id.
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// Several runs begin with this prefix.
    Ambiguous {
        /// What was asked for.
        id: String,
        /// The runs that it may mean.
        candidates: Vec<RunId>,
    },
    /// The text cannot be an id.
    NotAnId {
        /// What was given.
        id: String,
    },
    /// A run is there and cannot be read.
    Damaged {
        /// The run.
        run: RunId,
        /// What is wrong.
        why: String,
    },
    /// Another process is writing this run, or died while it did and was not taken over yet.
    InUse {
        /// The run.
        run: RunId,
    },
    /// Another process has made this run, or gone on with it, since it was looked at: what is to be told of it is told anew.
    Overtaken {
        /// The run.
        run: RunId,
    },
    /// A run went while it was about to be changed.
    RemovedMeanwhile {
        /// The run.
        run: RunId,
    },
    /// No store is there.
    NoStore {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The store was written by a later version.
    NewerFormat {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The store's own files are not what they should be.
    BadStore {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The backend cannot do this.
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// Why not, and what can.
        why: &'static str,
    },
    /// The text that was to be searched for cannot be understood.
    BadQuery {
        /// What is wrong.
        what: String,
        /// The byte at which it is.
        at: usize,
    },
    /// The operating system refused.
    Io {
        /// What was done: `write`, `create`, ...
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A packed run is read where nothing was built in that expands it: nothing is the matter with the run.
#[derive(Debug)]
pub(crate) struct NotBuiltIn;

impl NotBuiltIn {
    const WHY: &'static str = "this program was built without the feature `seal` of runspan; the command line has it";
}

impl fmt::Display for NotBuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WHY)
    }
}

impl std::error::Error for NotBuiltIn {}

impl StoreError {
    /// Adds the action and the path to an error of the operating system.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.get_ref() {
            Some(why) if why.is::<NotBuiltIn>() => {
                Self::Unsupported { what: "read a packed run", why: NotBuiltIn::WHY }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Tells whether the answer is no: not there, not unique, not readable.
    pub fn is_negative_answer(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::Ambiguous { .. } | Self::Damaged { .. } | Self::RemovedMeanwhile { .. }
        )
    }

    /// Tells whether the caller asked wrongly.
    pub fn is_wrong_use(&self) -> bool {
        matches!(self, Self::NotAnId { .. } | Self::BadQuery { .. })
    }

    /// Tells whether the run cannot be gone on with: another process is writing it, it is damaged, or sealed where nothing
    /// was built in that opens it.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::Damaged { .. } | Self::Unsupported { .. })
    }

    /// Tells whether another process was faster to write a run: who tells all of it anew finds that.
    pub fn is_overtaken(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::Overtaken { .. })
    }

    /// Tells whether the process or the machine has run out of descriptors or of memory: it says nothing about what was
    /// asked for.
    pub fn is_out_of_resources(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
            }
            _ => false,
        }
    }

    /// Tells whether there is no room left, on the device or within a quota.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if crate::fs::is_out_of_space(source))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { id } if id == "latest" => f.write_str("no runs yet"),
            Self::NotFound { id } => write!(f, "no run {id:?}"),
            Self::Ambiguous { id, candidates } => write!(f, "{id:?} may mean {} runs", candidates.len()),
            Self::NotAnId { id } => {
                write!(f, "{id:?} is not an id: expected a run id or its beginning, a trace id, or `latest`")
            }
            Self::Damaged { run, why } => write!(f, "run {run} is damaged: {why}"),
            Self::InUse { run } => write!(f, "run {run} is being written by another process"),
            Self::Overtaken { run } => write!(f, "run {run} was written by another process at the same time"),
            Self::RemovedMeanwhile { run } => {
                write!(f, "run {run} was removed at the same time, by retention or by somebody")
            }
            Self::NoStore { path } => write!(f, "no run store at {}", path.display()),
            Self::NewerFormat { path, found } => write!(
                f,
                "the store at {} has format {found}; this version reads up to {FORMAT}: use a newer runspan, nothing was \
                 changed",
                path.display()
            ),
            Self::BadStore { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Unsupported { what, why } => write!(f, "cannot {what}: {why}"),
            Self::BadQuery { what, at } => write!(f, "{what} (at byte {at})"),
            Self::Io { action, path, .. } => write!(f, "cannot {action} {}", path.display()),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_asked_for_is_a_run_that_it_begins_or_none(
            ids in proptest::collection::vec((0..3u64, any::<[u8; 2]>()), 0..6),
            of in 0..6_usize,
            length in 0..33_usize,
            odd in "\\PC{0,33}|[0-9a-zA-Z]{0,33}|latest|\\.\\./\\.\\.",
        ) {
            let run = |(millis, [a, b]): (u64, [u8; 2])| {
                let run = RunId::from_parts(1_767_693_600_000 + millis, [a, 0, 0, 0, 0, 0, 0, 0, 0, b]);
                assembly::RunState::new(run, run.as_trace_id()).summary(UnixNanos(1))
            };
            let runs: Vec<RunSummary> = ids.into_iter().map(run).collect();
            let (ulid, trace) = match runs.get(of) {
                Some(run) => (run.run_id.to_string(), run.trace_id.to_string()),
                None => (odd.clone(), odd.clone()),
            };
            let prefix = ulid.chars().take(length).collect::<String>();
            for id in [ulid.to_lowercase(), trace.to_uppercase(), prefix, odd] {
                let fits = |run: &RunId| {
                    let trace = run.as_trace_id().to_string();
                    id == "latest" || run.to_string().starts_with(&id.to_ascii_uppercase()) || trace.eq_ignore_ascii_case(&id)
                };
                match resolve_among(&id, runs.iter()) {
                    Ok(run) => prop_assert!(fits(&run) && runs.iter().any(|known| known.run_id == run), "{}", id),
                    Err(StoreError::Ambiguous { candidates, .. }) => {
                        prop_assert!(candidates.len() > 1 && candidates.iter().all(fits), "{}", id);
                    }
                    Err(StoreError::NotFound { .. }) => {
                        prop_assert!(!runs.iter().any(|run| fits(&run.run_id)), "{}", id);
                    }
                    Err(StoreError::NotAnId { .. }) => {
                        prop_assert!(id.is_empty() || !runs.iter().any(|run| fits(&run.run_id)), "{}", id);
                    }
                    Err(other) => prop_assert!(false, "{}: {}", id, other),
                }
            }
        }
    }

    #[test]
    fn a_damaged_run_has_the_keys_of_a_run() {
        let run = RunId::from_parts(5, [0; 10]);
        let damaged = Listed::Damaged(DamagedRun { run_id: run, status: "damaged", error: "no".to_owned() });
        insta::assert_snapshot!(serde_json::to_string(&damaged).unwrap(), @r#"{"format":null,"run_id":"00000000050000000000000000","kind":null,"agent_id":null,"workflow_id":null,"session_id":null,"user_id":null,"parent_run_id":null,"replay_of":null,"external_id":null,"tags":null,"trace_id":null,"status":"damaged","started_at":null,"completed_at":null,"duration_ms":null,"cost_usd":null,"cost_source":null,"provider":null,"model":null,"tokens":null,"steps_total":null,"llm_calls":null,"tool_calls":null,"errors":null,"events":null,"dropped":null,"artifacts":null,"error":{"type":"damaged","message":"no","step_id":null},"updated_at":null,"open_steps":null}"#);
        let summary = assembly::RunState::new(run, run.as_trace_id()).summary(UnixNanos(1));
        let listed = serde_json::to_string(&ListedRun { summary, open_steps: Vec::new() }).unwrap();
        let mut places: Vec<_> = LISTED_KEYS.iter().map(|key| listed.find(&format!("\"{key}\":"))).collect();
        // Of an agent's and a workflow's it has one.
        assert_eq!((places.len(), places.iter().flatten().count(), places.is_sorted()), (31, 30, false));
        places.retain(Option::is_some);
        assert!(places.is_sorted(), "{listed}");
    }

    #[test]
    fn runs_of_one_millisecond_are_listed_by_their_ids_whatever_more_is_known_of_their_starts() {
        let at = |millis: u64, nanos: u64, id: u8| {
            let run = RunId::from_parts(millis, [id; 10]);
            let started_at = UnixNanos(millis * 1_000_000 + nanos);
            RunSummary { started_at, ..assembly::RunState::new(run, run.as_trace_id()).summary(started_at) }
        };
        // One comes from a file, with milliseconds, and one from what a dead process left.
        let runs = vec![at(5, 0, 3), at(5, 700, 2), at(5, 0, 1), at(6, 0, 0), at(4, 999_999, 9)];
        let listed: Vec<u8> = Query::default().select(runs).iter().map(|run| run.run_id.0[15]).collect();
        assert_eq!(listed, [0, 3, 2, 1, 9]);
    }
}
