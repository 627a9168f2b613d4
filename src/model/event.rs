//! Events: the lines of a run's append-only log, typed.
//!
//! A line is `{"seq", "event_id", "parent_event_id", "type", "timestamp", "step_id", "data"}`. The data of each type
//! is a struct here, so an event reads back as the type it was. A reader meets types and fields of later versions
//! as [`EventBody::Unknown`] and ignores unknown fields.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::id::{EventId, RunId, TraceId};
use super::json::{self, Object, WriteJson};
use super::json_text::JsonText;
use super::money::NanoUsd;
use super::otlp::{Resource, Scope, Span};
use super::run::{ArtifactInfo, CostSource, ErrorInfo, RunKind, RunStatus, StepKind, StepStatus, Tokens};
use super::time::UnixNanos;

/// One line of `events.jsonl`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Position in the run, from 0 without a gap.
    pub seq: u64,
    /// The event's own id.
    pub event_id: EventId,
    /// The event that caused this one.
    pub parent_event_id: Option<EventId>,
    /// When it happened, by the emitter's clock.
    pub timestamp: UnixNanos,
    /// The step it belongs to; `None` for events of the run itself.
    pub step_id: Option<String>,
    /// What happened.
    pub body: EventBody,
}

macro_rules! bodies {
    ($($(#[$doc:meta])* $variant:ident($data:ty) = $word:literal),+ $(,)?) => {
        /// What an event says, by type.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum EventBody {
            $($(#[$doc])* $variant($data),)+
            /// A type of a later version, kept as it was read.
            Unknown {
                /// The type's word.
                kind: String,
                /// The data as read.
                data: Json,
            },
        }

        /// The words of the event types that this version writes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventType {
            $($(#[$doc])* $variant,)+
        }

        impl EventType {
            /// All types, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the word in the file.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl EventBody {
            /// Returns the word in the file.
            pub fn type_name(&self) -> &str {
                match self {
                    $(Self::$variant(_) => $word,)+
                    Self::Unknown { kind, .. } => kind,
                }
            }

            fn serialize_data<S: SerializeStruct>(&self, line: &mut S) -> Result<(), S::Error> {
                match self {
                    $(Self::$variant(data) => line.serialize_field("data", data),)+
                    Self::Unknown { data, .. } => line.serialize_field("data", data),
                }
            }

            fn write_data(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
                match self {
                    $(Self::$variant(data) => data.write_json(out),)+
                    Self::Unknown { data, .. } => data.write_json(out),
                }
            }

            fn parse(kind: &str, data: &str) -> Result<Self, serde_json::Error> {
                fn from<T: DeserializeOwned>(data: &str) -> Result<T, serde_json::Error> {
                    serde_json::from_str(data)
                }
                Ok(match kind {
                    $($word => Self::$variant(from(data)?),)+
                    _ => Self::Unknown { kind: kind.to_owned(), data: from(data)? },
                })
            }
        }
    };
}

bodies! {
    /// The run began.
    RunStarted(Box<RunStarted>) = "run_started",
    /// The run ended.
    RunCompleted(Box<RunCompleted>) = "run_completed",
    /// The run's status changed other than by ending well or badly by itself.
    StatusChanged(StatusChanged) = "status_changed",
    /// Something came in from outside.
    Input(Input) = "input",
    /// What was put together for the model.
    ContextAssembled(ContextAssembled) = "context_assembled",
    /// A model call ended.
    LlmCalled(Box<LlmCalled>) = "llm_called",
    /// A tool call began.
    ToolRequested(Box<ToolRequested>) = "tool_requested",
    /// A tool call ended well.
    ToolSucceeded(Box<ToolSucceeded>) = "tool_succeeded",
    /// A tool call failed.
    ToolFailed(Box<ToolFailed>) = "tool_failed",
    /// A step other than a tool call began.
    StepStarted(Box<StepStarted>) = "step_started",
    /// A step other than a model or tool call ended well.
    StepCompleted(Box<StepCompleted>) = "step_completed",
    /// A step other than a model or tool call failed.
    StepFailed(Box<StepFailed>) = "step_failed",
    /// The run waits for an answer.
    Waiting(Waiting) = "waiting",
    /// The answer came.
    Resumed(Resumed) = "resumed",
    /// The run or a step put something out.
    Output(Output) = "output",
    /// A file was kept.
    Artifact(ArtifactInfo) = "artifact",
    /// A judgement of quality.
    Score(Score) = "score",
    /// A line of log.
    Log(Log) = "log",
}

/// Data of `run_started`: what was known at the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// Agent or workflow.
    pub kind: RunKind,
    /// Name of the agent or workflow.
    pub name: String,
    /// The trace it is part of.
    pub trace_id: TraceId,
    /// The run that started it.
    pub parent_run_id: Option<RunId>,
    /// The conversation it belongs to.
    pub session_id: Option<String>,
    /// The user it runs for.
    pub user_id: Option<String>,
    /// Free labels.
    pub tags: Vec<String>,
    /// What it was asked.
    pub input: Option<JsonText>,
}

/// Data of `run_completed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunCompleted {
    /// How it ended.
    pub status: RunStatus,
    /// What it took.
    pub totals: Totals,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
}

/// What a run took, each call counted once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Length of the run.
    pub duration_ms: Option<u64>,
    /// Tokens of all billed steps.
    pub tokens: Option<Tokens>,
    /// What they cost.
    pub cost_usd: Option<NanoUsd>,
    /// Where the cost comes from.
    pub cost_source: Option<CostSource>,
    /// Distinct spans.
    pub steps_total: u64,
    /// Model calls.
    pub llm_calls: u64,
    /// Tool calls.
    pub tool_calls: u64,
    /// Steps that failed.
    pub errors: u64,
}

/// Data of `status_changed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusChanged {
    /// The status before.
    pub from: RunStatus,
    /// The status now.
    pub to: RunStatus,
    /// Why.
    pub reason: Option<String>,
}

/// Data of `input`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Where it came from: `message_from_user`, `resume`, ...
    pub tool: String,
    /// What came.
    pub data: Json,
}

/// Data of `context_assembled`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContextAssembled {
    /// What was put together for the model.
    pub context: Json,
}

/// Data of `waiting`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// What it waits for.
    pub reason: Option<String>,
    /// What the one who answers needs to know.
    pub payload: Option<Json>,
}

impl Waiting {
    /// The reason of a run that was asked to pause.
    pub const PAUSED: &str = "paused";
    /// The member of its payload that names the request.
    pub(crate) const REQUEST: &str = "request";

    /// Returns the request for whose sake the run pauses; `None` when it waits for something else.
    pub fn pause_request(&self) -> Option<&str> {
        let is_pause = self.reason.as_deref() == Some(Self::PAUSED);
        self.payload.as_ref().filter(|_| is_pause)?.get(Self::REQUEST)?.as_str()
    }
}

/// Data of `resumed`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// The answer; `None` where it was `null`, where the log does not have it, and at the end of a pause.
    pub input: Option<Json>,
    /// The answer was `null`: nothing is missing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_null: bool,
}

/// Data of `output`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// What was put out.
    pub data: Json,
}

/// Data of `score`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What was judged.
    pub name: String,
    /// The number given.
    pub value: Option<f64>,
    /// The word given.
    pub label: Option<String>,
    /// Why.
    pub explanation: Option<String>,
}

/// Data of `log`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// `ERROR`, `WARN`, `INFO`, ...; `None` when the emitter gave none.
    pub level: Option<String>,
    /// The text, or the event's name.
    pub message: String,
    /// All other fields.
    pub fields: serde_json::Map<String, Json>,
}

/// Data of `step_started`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepStarted {
    /// What the step does.
    pub kind: StepKind,
    /// Its name as the emitter gave it.
    pub name: String,
    /// The agent it belongs to or is.
    pub agent_id: Option<String>,
    /// What went in, where it is known at the start.
    pub input: Option<JsonText>,
    /// The span as far as it is known: no end time.
    pub span: Span,
    /// Who made it.
    pub resource: Option<Arc<Resource>>,
    /// Which code made it.
    pub scope: Option<Scope>,
}

/// Data of `tool_requested`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolRequested {
    /// The tool.
    pub tool_name: String,
    /// What it was given.
    pub tool_args: Option<JsonText>,
    /// The agent that asked.
    pub agent_id: Option<String>,
    /// The span as far as it is known: no end time.
    pub span: Span,
    /// Who made it.
    pub resource: Option<Arc<Resource>>,
    /// Which code made it.
    pub scope: Option<Scope>,
}

macro_rules! write_fields {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl WriteJson for $name {
            fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
                let mut object = Object::begin(out);
                $(object.field(stringify!($field), &self.$field)?;)+
                object.end();
                Ok(())
            }
        }
    };
}

write_fields!(StepStarted { kind, name, agent_id, input, span, resource, scope });
write_fields!(ToolRequested { tool_name, tool_args, agent_id, span, resource, scope });

macro_rules! by_the_general_serializer {
    ($($type:ty),+ $(,)?) => {
        $(impl WriteJson for $type {
            fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
                json::general(out, self)
            }
        })+
    };
}

by_the_general_serializer! {
    RunStarted, RunCompleted, StatusChanged, Input, ContextAssembled, Waiting, Resumed, Output, ArtifactInfo, Score,
}

impl WriteJson for Log {
    fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut object = Object::begin(out);
        object.field("level", &self.level)?;
        object.field("message", &self.message)?;
        object.field("fields", &self.fields)?;
        object.end();
        Ok(())
    }
}

macro_rules! finished {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $type,)*
            /// The agent it belongs to or is.
            pub agent_id: Option<String>,
            /// How it ended.
            pub status: StepStatus,
            /// How long it took.
            pub duration_ms: Option<f64>,
            /// Why it failed.
            pub error: Option<ErrorInfo>,
            /// The whole span as OTLP JSON, as content policy and limits left it.
            pub span: Span,
            /// Who made it.
            pub resource: Option<Arc<Resource>>,
            /// Which code made it.
            pub scope: Option<Scope>,
        }

        write_fields!($name { $($field,)* agent_id, status, duration_ms, error, span, resource, scope });
    };
}

finished! {
    /// Data of `llm_called`.
    LlmCalled {
        /// Name as the emitter gave it.
        name: String,
        /// Who served the model.
        provider: Option<String>,
        /// The model that answered, else the one asked for.
        model: Option<String>,
        /// Standing instructions.
        system_prompt: Option<JsonText>,
        /// What was sent.
        messages: Option<JsonText>,
        /// What came back.
        output: Option<JsonText>,
        /// What was billed.
        tokens: Option<Tokens>,
        /// What it cost.
        cost_usd: Option<NanoUsd>,
        /// Where the cost comes from.
        cost_source: Option<CostSource>,
    }
}

finished! {
    /// Data of `tool_succeeded`.
    ToolSucceeded {
        /// The tool.
        tool_name: String,
        /// What it was given.
        tool_args: Option<JsonText>,
        /// What it answered.
        result: Option<JsonText>,
    }
}

finished! {
    /// Data of `tool_failed`.
    ToolFailed {
        /// The tool.
        tool_name: String,
        /// What it was given.
        tool_args: Option<JsonText>,
        /// What it answered all the same.
        result: Option<JsonText>,
    }
}

finished! {
    /// Data of `step_completed`.
    StepCompleted {
        /// What the step did.
        kind: StepKind,
        /// Its name as the emitter gave it.
        name: String,
        /// What went in.
        input: Option<JsonText>,
        /// What came out.
        output: Option<JsonText>,
        /// What it reported, of an embedding or an agent.
        tokens: Option<Tokens>,
        /// What it cost.
        cost_usd: Option<NanoUsd>,
        /// Where the cost comes from.
        cost_source: Option<CostSource>,
    }
}

finished! {
    /// Data of `step_failed`.
    StepFailed {
        /// What the step did.
        kind: StepKind,
        /// Its name as the emitter gave it.
        name: String,
        /// What went in.
        input: Option<JsonText>,
        /// What came out all the same.
        output: Option<JsonText>,
        /// What it reported, of an embedding or an agent.
        tokens: Option<Tokens>,
        /// What it cost.
        cost_usd: Option<NanoUsd>,
        /// Where the cost comes from.
        cost_source: Option<CostSource>,
    }
}

/// What tells of a step in an event: its span, and who made it.
pub(crate) type SpanParts = (Span, Option<Arc<Resource>>, Option<Scope>);

impl EventBody {
    /// Takes the span and its makers out of an event that tells a step; any other comes back.
    pub(crate) fn into_span(self) -> Result<SpanParts, Self> {
        macro_rules! parts {
            ($data:expr) => {
                Ok(($data.span, $data.resource, $data.scope))
            };
        }
        match self {
            Self::StepStarted(data) => parts!(data),
            Self::StepCompleted(data) => parts!(data),
            Self::StepFailed(data) => parts!(data),
            Self::LlmCalled(data) => parts!(data),
            Self::ToolRequested(data) => parts!(data),
            Self::ToolSucceeded(data) => parts!(data),
            Self::ToolFailed(data) => parts!(data),
            other => Err(other),
        }
    }

    /// Returns the span that a step's start or end carries.
    pub fn span(&self) -> Option<(&Span, Option<&Resource>, Option<&Scope>)> {
        macro_rules! parts {
            ($data:expr) => {
                Some((&$data.span, $data.resource.as_deref(), $data.scope.as_ref()))
            };
        }
        match self {
            Self::StepStarted(data) => parts!(data),
            Self::ToolRequested(data) => parts!(data),
            Self::LlmCalled(data) => parts!(data),
            Self::ToolSucceeded(data) => parts!(data),
            Self::ToolFailed(data) => parts!(data),
            Self::StepCompleted(data) => parts!(data),
            Self::StepFailed(data) => parts!(data),
            _ => None,
        }
    }

    /// Tells whether a step began here.
    pub fn is_step_start(&self) -> bool {
        matches!(self, Self::StepStarted(_) | Self::ToolRequested(_))
    }
}

impl Event {
    /// Reads a line of `events.jsonl`.
    ///
    /// As a line is written here its data begins at a place that is easily found, and is read once. One that is written in
    /// another way is read as any JSON is, and so is one that is wrong: what is read, and what is said of it, are the same.
    pub(crate) fn from_line(line: &[u8]) -> serde_json::Result<Self> {
        let written = std::str::from_utf8(line).ok().and_then(WrittenLine::of).and_then(WrittenLine::event);
        written.map_or_else(|| serde_json::from_slice(line), Ok)
    }

    /// Appends the event to `out` as a line of `events.jsonl`, without the line's end.
    ///
    /// # Errors
    ///
    /// Where the general serializer fails, too; `out` then holds a part.
    pub(crate) fn write_line(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut line = Object::begin(out);
        json::number(line.key("seq"), self.seq);
        self.event_id.write_quoted(line.key("event_id"));
        match self.parent_event_id {
            Some(cause) => cause.write_quoted(line.key("parent_event_id")),
            None => line.key("parent_event_id").extend_from_slice(b"null"),
        }
        json::text(line.key("type"), self.body.type_name());
        self.timestamp.write_quoted(line.key("timestamp"));
        line.field("step_id", &self.step_id)?;
        self.body.write_data(line.key("data"))?;
        line.end();
        Ok(())
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("Event", 7)?;
        line.serialize_field("seq", &self.seq)?;
        line.serialize_field("event_id", &self.event_id)?;
        line.serialize_field("parent_event_id", &self.parent_event_id)?;
        line.serialize_field("type", self.body.type_name())?;
        line.serialize_field("timestamp", &self.timestamp)?;
        line.serialize_field("step_id", &self.step_id)?;
        self.body.serialize_data(&mut line)?;
        line.end()
    }
}

/// The parts of a line as [`Event::write_line`] writes it.
struct WrittenLine<'a> {
    seq: &'a str,
    event_id: &'a str,
    parent_event_id: Option<&'a str>,
    kind: &'a str,
    timestamp: &'a str,
    step_id: Option<&'a str>,
    data: &'a str,
}

impl<'a> WrittenLine<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (seq, rest) = line.strip_prefix("{\"seq\":")?.split_once(',')?;
        let (event_id, rest) = text(rest.strip_prefix("\"event_id\":")?)?;
        let (parent_event_id, rest) = text_or_null(rest.strip_prefix("\"parent_event_id\":")?)?;
        let (kind, rest) = text(rest.strip_prefix("\"type\":")?)?;
        let (timestamp, rest) = text(rest.strip_prefix("\"timestamp\":")?)?;
        let (step_id, rest) = text_or_null(rest.strip_prefix("\"step_id\":")?)?;
        let data = rest.strip_prefix("\"data\":")?.trim_end_matches([' ', '\t', '\r', '\n']).strip_suffix('}')?;
        Some(Self { seq, event_id, parent_event_id, kind, timestamp, step_id, data })
    }

    fn event(self) -> Option<Event> {
        // What JSON knows as a number, and nothing else that may be read as one.
        let is_number =
            self.seq.bytes().all(|byte| byte.is_ascii_digit()) && (self.seq == "0" || !self.seq.starts_with('0'));
        Some(Event {
            seq: self.seq.parse().ok().filter(|_| is_number)?,
            event_id: self.event_id.parse().ok()?,
            parent_event_id: self.parent_event_id.map(str::parse).transpose().ok()?,
            timestamp: UnixNanos::parse(self.timestamp)?,
            step_id: self.step_id.map(str::to_owned),
            // Whatever stands behind the data makes this fail.
            body: EventBody::parse(self.kind, self.data).ok()?,
        })
    }
}

/// Takes a text in which nothing is escaped, and the comma behind it.
fn text(line: &str) -> Option<(&str, &str)> {
    let (text, rest) = line.strip_prefix('"')?.split_once('"')?;
    let is_plain = text.bytes().all(|byte| byte != b'\\' && byte >= b' ');
    Some((text, rest.strip_prefix(',')?)).filter(|_| is_plain)
}

fn text_or_null(line: &str) -> Option<(Option<&str>, &str)> {
    match line.strip_prefix("null,") {
        Some(rest) => Some((None, rest)),
        None => text(line).map(|(text, rest)| (Some(text), rest)),
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Line {
            seq: u64,
            event_id: EventId,
            parent_event_id: Option<EventId>,
            #[serde(rename = "type")]
            kind: String,
            timestamp: UnixNanos,
            step_id: Option<String>,
            data: Box<RawValue>,
        }
        let line = Line::deserialize(deserializer)?;
        Ok(Self {
            seq: line.seq,
            event_id: line.event_id,
            parent_event_id: line.parent_event_id,
            timestamp: line.timestamp,
            step_id: line.step_id,
            body: EventBody::parse(&line.kind, line.data.get()).map_err(de::Error::custom)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lines of logs with all types of events.
    fn lines() -> Vec<&'static str> {
        let logs = [
            include_str!("../../tests/data/golden/v1/agents/01M82V6NTGBV2JBX68NZ7GV6S1/events.jsonl"),
            include_str!("../../tests/data/golden/v1/agents/01M82V6NX8RY91GK0BXEAK7CGP/events.jsonl"),
            include_str!("../../tests/data/golden/v1/workflows/01M82V6NW0WTTNBJ8FJNSTJ7FV/events.jsonl"),
        ];
        logs.into_iter().flat_map(str::lines).collect()
    }

    fn is_read_as_any_json(line: &[u8]) {
        let (ours, general) = (Event::from_line(line), serde_json::from_slice::<Event>(line));
        let text = |read: serde_json::Result<Event>| read.map_err(|error| error.to_string());
        assert_eq!(text(ours), text(general), "of {}", String::from_utf8_lossy(line));
    }

    #[test]
    fn what_is_written_here_is_read_in_one_walk() {
        for line in lines() {
            assert!(WrittenLine::of(line).and_then(WrittenLine::event).is_some(), "{line}");
            is_read_as_any_json(line.as_bytes());
        }
    }

    #[test]
    fn a_line_that_is_written_in_another_way_is_read_too() {
        let id = "01M82V6NTGBV2JBX68NZ7GV6S1";
        let line = |seq: &str, step: &str, data: &str| {
            format!(
                r#"{{"seq":{seq},"event_id":"{id}","parent_event_id":null,"type":"log","timestamp":"2026-11-22T23:59:29.1Z","step_id":{step},"data":{data}}}"#
            )
        };
        let log = r#"{"level":null,"message":"m","fields":{}}"#;
        for (seq, step, data) in [
            ("7", "\"a\"", log),
            ("07", "null", log),
            ("+7", "null", log),
            ("7.0", "null", log),
            ("", "null", log),
            ("7", r#""a\"b""#, log),
            ("7", r#""a\u0020b""#, log),
            ("7", "\"a\tb\"", log),
            ("7", "null", &format!("  {log}  ")),
            ("7", "null", &format!(r#"{log},"data":{log}"#)),
            ("7", "null", &format!(r#"{log},"more":1"#)),
            ("7", "null", &format!("{log}}}")),
            ("7", "null", "5"),
        ] {
            is_read_as_any_json(line(seq, step, data).as_bytes());
            is_read_as_any_json(format!("{} \n", line(seq, step, data)).as_bytes());
            is_read_as_any_json(format!("{}\x0c\n", line(seq, step, data)).as_bytes());
        }
        is_read_as_any_json(format!(r#"{{"data":{log},"seq":1,"event_id":"{id}","type":"log"}}"#).as_bytes());
        is_read_as_any_json(b"{\"seq\":1,\xff");
    }

    proptest! {
        #[test]
        fn a_damaged_line_is_read_as_any_json_is(
            line in any::<prop::sample::Index>(),
            harm in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            end in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut line = lines()[line.index(lines().len())].as_bytes().to_vec();
            for (at, byte) in harm {
                let at = at.index(line.len());
                line[at] = byte;
            }
            if let Some(end) = end {
                line.truncate(end.index(line.len() + 1));
            }
            is_read_as_any_json(&line);
        }
    }
}
