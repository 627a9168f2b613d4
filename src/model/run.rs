//! Runs and steps as they are shown: the words of status and kind, totals, and the two views every reader gets.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::budget::Budget;
use super::id::{RunId, SpanId, TraceId};
use super::money::NanoUsd;
use super::time::{self, UnixNanos};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal $(| $alias:literal)*),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word $(, alias = $alias)*)] $variant,)+
        }

        impl $name {
            /// All values, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the word used in files, flags and JSON.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word $(| $alias)* => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { word: word.to_owned(), known: &[$($word),+] }),
                }
            }
        }
    };
}

/// A word that is none of the known ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// What was given.
    pub word: String,
    /// What is accepted.
    pub known: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is none of {}", self.word, self.known.join(", "))
    }
}

impl std::error::Error for UnknownWord {}

words! {
    /// What a run is an execution of.
    RunKind {
        /// One agent.
        Agent = "agent",
        /// Several steps or agents under one root.
        Workflow = "workflow",
    }
}

words! {
    /// How a run stands. The aliases are accepted on input and never written.
    RunStatus {
        /// Under way.
        Running = "running" | "pending",
        /// Waits for an answer from outside.
        Waiting = "waiting",
        /// Ended well.
        Success = "success" | "completed",
        /// Ended with an error.
        Error = "error" | "failed",
        /// Ended by a time limit.
        Timeout = "timeout",
        /// Ended on request.
        Cancelled = "cancelled",
        /// Its process died.
        Crashed = "crashed",
    }
}

impl RunStatus {
    /// Tells whether the run can still change by itself.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Running | Self::Waiting)
    }
}

words! {
    /// What a step did.
    StepKind {
        /// A model call.
        Llm = "llm",
        /// A tool call.
        Tool = "tool",
        /// An agent inside a run.
        Agent = "agent",
        /// A workflow inside a run.
        Workflow = "workflow",
        /// A look-up of documents.
        Retrieval = "retrieval",
        /// An embedding call.
        Embedding = "embedding",
        /// A reordering of documents.
        Rerank = "rerank",
        /// A check of input or output.
        Guardrail = "guardrail",
        /// A judgement of quality.
        Evaluator = "evaluator",
        /// Anything else.
        Task = "task",
    }
}

words! {
    /// How a step stands.
    StepStatus {
        /// Under way.
        Running = "running",
        /// Ended well.
        Success = "success",
        /// Ended with an error.
        Error = "error",
        /// Ended by a time limit.
        Timeout = "timeout",
        /// Ended on request.
        Cancelled = "cancelled",
        /// Its process died.
        Crashed = "crashed",
    }
}

words! {
    /// Where a cost comes from.
    CostSource {
        /// The emitter said it.
        Reported = "reported",
        /// From a price table.
        Computed = "computed",
        /// Some steps the one, some the other.
        Mixed = "mixed",
    }
}

/// Token counts; a field is `None` when nobody reported it, and 0 when 0 was reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// All input tokens, cached ones included.
    pub prompt: Option<u64>,
    /// All output tokens, reasoning included.
    pub completion: Option<u64>,
    /// Prompt and completion together; `None` unless one of them is known.
    pub total: Option<u64>,
    /// Part of the prompt that was read from a cache.
    pub cache_read: Option<u64>,
    /// Part of the prompt that was written to a cache.
    pub cache_write: Option<u64>,
    /// Part of the completion that was reasoning.
    pub reasoning: Option<u64>,
}

impl Tokens {
    /// No more comes out with the beginning of a stream, of which Anthropic's tells a count.
    #[doc(hidden)]
    pub const BEGINNING: u64 = 8;

    /// Tells whether nothing was reported.
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the same counts with the total filled in.
    pub fn with_total(mut self) -> Self {
        self.total = match (self.prompt, self.completion) {
            (None, None) => self.total,
            (prompt, completion) => Some(prompt.unwrap_or(0).saturating_add(completion.unwrap_or(0))),
        };
        self
    }

    /// Adds field by field; unknown plus known is known. Saturates.
    pub fn plus(self, other: Self) -> Self {
        fn add(a: Option<u64>, b: Option<u64>) -> Option<u64> {
            match (a, b) {
                (None, None) => None,
                (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
            }
        }
        Self {
            prompt: add(self.prompt, other.prompt),
            completion: add(self.completion, other.completion),
            total: add(self.total, other.total),
            cache_read: add(self.cache_read, other.cache_read),
            cache_write: add(self.cache_write, other.cache_write),
            reasoning: add(self.reasoning, other.reasoning),
        }
    }
}

/// Why a run or a step failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// Class of the error, low in cardinality: `rate_limit`, `TimeoutError`, `_OTHER`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What was said.
    pub message: Option<String>,
    /// The step that failed; in a run's error only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_id: Option<String>,
}

words! {
    /// What content policy did to a file.
    ArtifactContent {
        /// Nothing of it is stored.
        Nothing = "none",
        /// Secrets in it were replaced.
        Redacted = "redacted",
    }
}

/// A file that a run produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactInfo {
    /// File name under `artifacts/`.
    pub name: String,
    /// Media type, when known.
    pub media_type: Option<String>,
    /// Size of what is stored, before compression; of what was given, where nothing is stored.
    pub bytes: u64,
    /// SHA-256 of the same, in hex.
    pub sha256: String,
    /// What content policy did to it; `None` when it is stored as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ArtifactContent>,
}

/// SHA-256 of lines of a log; 64 hex digits as text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogHash(pub [u8; 32]);

impl fmt::Display for LogHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::hex(&self.0))
    }
}

impl fmt::Debug for LogHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogHash({self})")
    }
}

impl FromStr for LogHash {
    type Err = BadLogHash;

    fn from_str(text: &str) -> Result<Self, BadLogHash> {
        let mut bytes = [0; 32];
        let is_hex = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hex {
            return Err(BadLogHash);
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| BadLogHash)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| BadLogHash)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for LogHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LogHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is no SHA-256 in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLogHash;

impl fmt::Display for BadLogHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 64 hex digits")
    }
}

impl std::error::Error for BadLogHash {}

/// A direct child in a workflow's `run.yaml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChildStep {
    /// The step's readable name.
    pub step_id: String,
    /// The agent behind it, if it is one.
    pub agent_id: Option<String>,
    /// How it stands.
    pub status: StepStatus,
    /// Its duration; `None` while it runs.
    pub duration_ms: Option<u64>,
    /// What it and all below it cost.
    pub cost_usd: Option<NanoUsd>,
}

/// A run's metadata: the content of `run.yaml`, a line of `index.log`, an element of `list --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Version of the file format.
    pub format: u32,
    /// The run's id.
    pub run_id: RunId,
    /// Agent or workflow.
    pub kind: RunKind,
    /// The agent's name, of an agent run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The workflow's name, of a workflow run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<String>,
    /// The conversation it belongs to.
    #[serde(default)]
    pub session_id: Option<String>,
    /// The user it ran for.
    #[serde(default)]
    pub user_id: Option<String>,
    /// The run that started it.
    #[serde(default)]
    pub parent_run_id: Option<RunId>,
    /// The run that it repeats.
    #[serde(default)]
    pub replay_of: Option<RunId>,
    /// What it may take, where that is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// A foreign system's own id of the run.
    #[serde(default)]
    pub external_id: Option<String>,
    /// Free labels, at most 64.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The trace it is part of.
    pub trace_id: TraceId,
    /// How it stands.
    pub status: RunStatus,
    /// First moment of the run.
    #[serde(with = "time::millis")]
    pub started_at: UnixNanos,
    /// Last moment of an ended run.
    #[serde(default, with = "time::millis::option")]
    pub completed_at: Option<UnixNanos>,
    /// Length of an ended run.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// How much of its time it has waited: for answers, and while it was paused. What it waits for now is not in it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waited_ms: u64,
    /// Its length, under the name that workflows have; `None` of an agent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub total_duration_ms: Option<Option<u64>>,
    /// What the run cost; `null` when nothing could be priced.
    #[serde(default)]
    pub cost_usd: Option<NanoUsd>,
    /// The same, under the name that workflows have; `None` of an agent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub total_cost_usd: Option<Option<NanoUsd>>,
    /// Where the cost comes from.
    #[serde(default)]
    pub cost_source: Option<CostSource>,
    /// Billed steps without a price.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unpriced_steps: u64,
    /// Provider of [`RunSummary::model`].
    #[serde(default)]
    pub provider: Option<String>,
    /// The model that cost most.
    #[serde(default)]
    pub model: Option<String>,
    /// All models, when there are several; at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Tokens of all billed steps; `null` when nobody reported any.
    #[serde(default)]
    pub tokens: Option<Tokens>,
    /// Distinct spans.
    #[serde(default)]
    pub steps_total: u64,
    /// Model calls, each once.
    #[serde(default)]
    pub llm_calls: u64,
    /// Tool calls.
    #[serde(default)]
    pub tool_calls: u64,
    /// Steps that failed, recovered ones included.
    #[serde(default)]
    pub errors: u64,
    /// Lines of the event log.
    #[serde(default)]
    pub events: u64,
    /// Records of this run that were lost, whatever the reason.
    #[serde(default)]
    pub dropped: u64,
    /// Files that it produced, at most 200.
    #[serde(default)]
    pub artifacts: Vec<ArtifactInfo>,
    /// How many files it produced, when they are more than are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts_total: Option<u64>,
    /// Why it failed.
    #[serde(default, serialize_with = "error_of_run")]
    pub error: Option<ErrorInfo>,
    /// The process that writes the run, by the name of its journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<RunId>,
    /// Kept from retention.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// SHA-256 of the first [`events`](Self::events) lines of the log, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_sha256: Option<LogHash>,
    /// When this was written.
    #[serde(with = "time::millis")]
    pub updated_at: UnixNanos,
    /// A workflow's direct children, at most 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<ChildStep>>,
}

/// Reads a member that is there: with `null` it is another than one that is not there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Writes the error of a run, which says of which step it is, or that nobody knows.
fn error_of_run<S: Serializer>(error: &Option<ErrorInfo>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct OfRun<'a> {
        #[serde(rename = "type")]
        kind: &'a Option<String>,
        message: &'a Option<String>,
        step_id: &'a Option<String>,
    }
    error.as_ref().map(|ErrorInfo { kind, message, step_id }| OfRun { kind, message, step_id }).serialize(serializer)
}

impl RunSummary {
    /// Returns the name of the agent or workflow.
    pub fn name(&self) -> &str {
        self.agent_id.as_deref().or(self.workflow_id.as_deref()).unwrap_or("")
    }
}

/// A step as `get` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Readable name, unique in the run.
    pub step_id: String,
    /// The span behind it.
    pub span_id: SpanId,
    /// The span above it; `null` for the root.
    pub parent_span_id: Option<SpanId>,
    /// What it did.
    pub kind: StepKind,
    /// Name of the span, agent, tool or model as the emitter gave it.
    pub name: String,
    /// The agent it belongs to or is.
    pub agent_id: Option<String>,
    /// How it stands.
    pub status: StepStatus,
    /// When it began.
    pub started_at: UnixNanos,
    /// How long it took; `null` while it runs.
    pub duration_ms: Option<f64>,
    /// Who served the model.
    pub provider: Option<String>,
    /// The model that answered, else the one asked for.
    pub model: Option<String>,
    /// What it reported.
    pub tokens: Option<Tokens>,
    /// What it cost.
    pub cost_usd: Option<NanoUsd>,
    /// Where the cost comes from.
    pub cost_source: Option<CostSource>,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
    /// What went in, as content policy allows.
    pub input: Option<serde_json::Value>,
    /// What came out, as content policy allows.
    pub output: Option<serde_json::Value>,
    /// The step that tells the same call; this one is not counted.
    pub duplicate_of: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_read_and_never_written() {
        for (alias, status) in
            [("completed", RunStatus::Success), ("failed", RunStatus::Error), ("pending", RunStatus::Running)]
        {
            assert_eq!(alias.parse(), Ok(status));
            assert_eq!(serde_json::from_value::<RunStatus>(alias.into()).unwrap(), status);
            assert_ne!(status.as_str(), alias);
        }
        assert_eq!(
            "done".parse::<StepStatus>().unwrap_err().to_string(),
            "\"done\" is none of running, success, error, timeout, cancelled, crashed"
        );
    }

    #[test]
    fn unknown_plus_known_is_known() {
        let a = Tokens { prompt: Some(3), ..Tokens::default() };
        let b = Tokens { completion: Some(u64::MAX), reasoning: Some(0), ..Tokens::default() };
        assert_eq!(
            a.plus(b).with_total(),
            Tokens {
                prompt: Some(3),
                completion: Some(u64::MAX),
                total: Some(u64::MAX),
                cache_read: None,
                cache_write: None,
                reasoning: Some(0),
            }
        );
    }
}
