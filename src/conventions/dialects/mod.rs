//! Dialects: how each emitter writes the same facts.
//!
//! A dialect is a table: how to recognise it, under which names it has the facts, how it says what a step is and how it
//! ended, and whether its input tokens include cached ones. All dialects that recognise a span are read in the order of
//! [`DIALECTS`], since one may write on the spans of another; the rows of [`OTEL`] then fill what is still missing, so a dialect
//! lists only what differs.
//!
//! - `standard`: OpenTelemetry's own words, and who writes them with little of their own.
//! - `platforms`: instrumentations and observability platforms that lie over many frameworks.
//! - `openinference`: those of OpenInference that tell something else than the rest.
//! - `frameworks`: frameworks that trace themselves.
//! - `golang`: those of them that are for Go alone.
//! - `agents`: finished agents for the command line.
//! - [`logs`]: records of logs that tell of GenAI.
//! - [`usage`]: what providers report as usage, which many of them pass on as it is.

mod agents;
mod frameworks;
mod golang;
mod javascript;
mod langchain;
pub mod logs;
mod openinference;
mod platforms;
mod standard;
pub mod usage;

use Source::{Begins, Beside, Key, Lacking};

use crate::conventions::names;
use crate::conventions::providers::MODELS;
use crate::model::{StepKind, StepStatus};

pub use agents::{CLAUDE_CODE, CODEX, CODEX_OTHER, GEMINI_CLI, GOOSE, QWEN_CODE};
pub use frameworks::{
    AG2, AGENT_FRAMEWORK, AGENTSCOPE, AUTOGEN, EFFECT, GENKIT, GOOGLE_ADK, GOOGLE_ADK_CALL, GOOGLE_ADK_GO,
    GOOGLE_ADK_GO_APART, GOOGLE_ADK_GO_FIRST, GOOGLE_ADK_GO_TOTAL, GOOGLE_ADK_JAVA, GOOGLE_ADK_JS, HAYSTACK,
    HAYSTACK_ANTHROPIC, KOOG, LOGFIRE_CLAUDE, LOGFIRE_OPENAI_AGENTS, LOGFIRE_STREAM, MCP_AGENT, MIRASCOPE,
    MIRASCOPE_STREAM, PYDANTIC, PYDANTIC_AI, PYDANTIC_EVALS, SEMANTIC_KERNEL, SEMANTIC_KERNEL_FUNCTIONS, SPRING_AI,
    STRANDS, STRANDS_PYTHON, TANSTACK,
};
pub use golang::{INGENIMAX, LANGFUSE_TRPC, TRPC, TRPC_APART};
pub use javascript::{
    LANGFUSE_JS, LANGFUSE_JS_SUMMED, MASTRA, MASTRA_BEFORE, MASTRA_METHODS, VERCEL, VERCEL_FIVE, VERCEL_OTEL,
    VERCEL_SIX, VOLTAGENT,
};
pub use openinference::{
    GUARDRAILS, OPENINFERENCE, OPENINFERENCE_ADK, OPENINFERENCE_AGENTS, OPENINFERENCE_AGNO, OPENINFERENCE_ANTHROPIC,
    OPENINFERENCE_AUTOGEN, OPENINFERENCE_BEDROCK, OPENINFERENCE_BEDROCK_BARE, OPENINFERENCE_BEEAI,
    OPENINFERENCE_CLAUDE, OPENINFERENCE_CLAUDE_JS, OPENINFERENCE_GOOGLE, OPENINFERENCE_HAYSTACK,
    OPENINFERENCE_LANGCHAIN_JS, OPENINFERENCE_LANGCHAIN_JS_SUMMED, OPENINFERENCE_MASTRA, OPENINFERENCE_OPENAI,
};
pub use platforms::{
    AGENTOPS, BEDROCK, LAMINAR, LANGFUSE, LANGSMITH, LANGWATCH, LITELLM, MLFLOW, MONOCLE, OPENLIT, OPENLIT_CALL,
    OPENLIT_CREWAI, OPENLIT_LANGCHAIN, OPENLIT_LANGCHAIN_CALL, OPENLIT_LANGGRAPH, TRACEAI, TRACELOOP,
    TRACELOOP_ANTHROPIC_JS, TRACELOOP_LLAMAINDEX, TRACELOOP_MCP, TRACELOOP_OPENAI, WEAVE, WEAVE_INTEGRATION,
};
pub use standard::{
    ANTHROPIC_CLIENT, MISTRAL_CLIENT, MISTRAL_STREAM, OTEL, OTEL_AGNO, OTEL_BEDROCK, OTEL_GOOGLE, OTEL_INSTRUMENTATION,
    OTEL_OPENAI, OTEL_OPENAI_AGENTS, RIG, SENTRY, TRACELOOP_OPENAI_AGENTS, TRACELOOP_OPENAI_GENERATION,
};

/// One emitter's way of writing.
#[derive(Debug)]
pub struct Dialect {
    /// Its name, for people.
    pub name: &'static str,
    /// The dialect that it is a variant of: a span is written in one of them, the first that recognises it. Empty for none.
    pub variant_of: &'static str,
    /// Any of these recognises a span of it.
    pub detect: &'static [Detect],
    /// Where it has facts that are single values.
    pub facts: &'static [Row],
    /// Where it has the name of what a step is: of the agent, tool or workflow, as the kind of the step says.
    pub entity: &'static [Source],
    /// Where it has what went in and out.
    pub content: &'static [Content],
    /// Where a call has its usage as the provider reported it, best source first; see [`usage`].
    pub usage: &'static [Source],
    /// Of a gateway: where it has the model that it asked, which its own name for it stands for.
    pub asked: Option<Asked>,
    /// Where it sums up a call's usage itself: whatever its members are named, they prove nothing of what they include.
    pub summaries: &'static [Source],
    /// How it says what a step is; the first that fits wins.
    pub kinds: &'static [KindRow],
    /// How it says that a step ended badly, where it does not use the OTLP status.
    pub outcomes: &'static [Outcome],
    /// Whether input tokens include cached ones, by provider, where the span itself proves nothing; the first that fits wins,
    /// none means it is not known.
    pub basis: &'static [BasisRow],
    /// Of these providers, output tokens do not include reasoning, which has to be added: the beginnings of their names.
    pub reasoning_apart: &'static [&'static str],
    /// Counts that are not what was used, and what it is known by.
    pub untold: &'static [Untold],
    /// Reasoning is added to output for providers other than Google, too, whose output has it already.
    pub adds_reasoning: bool,
    /// It never tells who serves a model. One of others than Google is known by its name then, for `adds_reasoning`.
    pub tells_no_provider: bool,
    /// In the place of output stands the total, of which input is to be taken off.
    pub output_is_total: bool,
    /// An input of 0 tokens is what was used, and not what the emitter has missed.
    pub zero_is_told: bool,
    /// It names itself in the place of the provider, or the service as its scope does. Whose the counts are the model's name tells: one
    /// with a provider before it is LiteLLM's, who counts as OpenAI does.
    pub names_itself: bool,
    /// A finished span of this name, or whose name starts so where it ends with a space, failed without any of these attributes and
    /// without a word on how it went: name, attributes.
    pub fails_without: &'static [(&'static str, &'static [&'static str])],
    /// A finished model call of these operations without any trace of a response failed.
    pub failed_without_response: &'static [&'static str],
    /// A finished step of these operations without any trace of a response, and without an error, was given up.
    pub cancelled_without_response: &'static [&'static str],
    /// A failure of which nothing else tells has left an answer with nothing in it: without any answer the call was given up.
    pub failure_leaves_answer: bool,
    /// The model that answered is a trace of a response, too, also where it is the one that was asked for.
    pub is_silent_without_model: bool,
    /// A stream of these operations whose answer has begun ([`BEGUN_STREAMS`]), and that has no reason for its end, nor a count of what
    /// came out, nor a word on how it went, was given up.
    pub cancelled_without_reason: &'static [&'static str],
    /// An answer of several words or with calls of tools, of which its stream has counted the one token of its beginning and no reason,
    /// was given up: it has no reason for the end of streams that were read whole either.
    pub counts_to_the_end: bool,
    /// A stream that the program left says that all is well, as one does that was read to its end.
    pub left_is_well: bool,
    /// A stream of this name whose answer has begun, as an attribute or an event shows, was given up where another attribute is missing
    /// and no word on how it went is there: name, attribute or event, other attribute.
    pub cancelled_without: &'static [(&'static str, &'static str, &'static str)],
    /// A failure of its own with a message has an exception event beside it. Without one, a dialect that `marks_failures` put it there.
    pub fails_by_exception: bool,
    /// An exception event says that a step failed, whatever its status: that says of every step that all is well.
    pub fails_although_well: bool,
    /// Its word for the end of an answer of which it knows no reason is that for a failure.
    pub unknown_is_error: bool,
    /// Writes on spans of others, and puts a failure elsewhere in the trace on them, too.
    pub marks_failures: bool,
    /// Spans that only announce another one.
    pub announced: Option<Announced>,
}

/// Where a gateway has the model that it asked, and how its own name for a model is known.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The attribute with the model, with its provider and a `/` before it.
    pub key: &'static str,
    /// Attributes with the gateway's own name: an answer under one of these names says nothing of the model.
    pub own: &'static [&'static str],
}

/// How a span that is sent at the start of the real one is told from that.
#[derive(Clone, Copy, Debug)]
pub struct Announced {
    /// The attribute that says it.
    pub key: &'static str,
    /// The word it says.
    pub word: &'static str,
    /// Where the parent of the real span stands, in hex; the real span is the parent of this one.
    pub parent: &'static str,
}

/// A mark by which a dialect is recognised.
#[derive(Clone, Copy, Debug)]
pub enum Detect {
    /// The span has this attribute.
    Key(&'static str),
    /// The span has an attribute whose name starts so.
    KeyPrefix(&'static str),
    /// The span has an attribute whose value starts so.
    Value(&'static str, &'static str),
    /// The span has an attribute whose value starts so, and another one whose value has not this in it: key, start, key, part.
    ValueWithout(&'static str, &'static str, &'static str, &'static str),
    /// The resource, or the span, has this attribute with this value.
    Maker(&'static str, &'static str),
    /// The scope has this name.
    Scope(&'static str),
    /// The scope's name starts so.
    ScopePrefix(&'static str),
    /// The scope has this name, and the span an attribute whose name starts so: scope, start.
    ScopeWith(&'static str, &'static str),
    /// The scope has this name, and the resource this attribute with this value: scope, attribute, value.
    ScopeBy(&'static str, &'static str, &'static str),
    /// The scope has this name, and this version where one is given, the resource an attribute with a value, and the span one whose name
    /// starts so.
    Release {
        /// The scope's name.
        scope: &'static str,
        /// Its version; empty for a scope without one.
        version: Option<&'static str>,
        /// The attribute of the resource, and its value.
        by: (&'static str, &'static str),
        /// Start of the name of the span's attribute; empty for none.
        with: &'static str,
    },
    /// The scope has this name, and the span an attribute whose value starts so, and not another one: scope, key, start, other key.
    ScopeLacking(&'static str, &'static str, &'static str, &'static str),
    /// The scope has this name, and one of these versions.
    ScopeOf(&'static str, &'static [&'static str]),
    /// The span's name has this in it.
    Called(&'static str),
    /// The span has this name, in a scope whose name starts so: scope, name.
    Named(&'static str, &'static str),
    /// The span's name starts so, in a scope whose name starts so: scope, name.
    Begins(&'static str, &'static str),
    /// The span's name starts so, in a scope whose name starts so, and it has an attribute with this in its value.
    Within {
        /// Start of the scope's name.
        scope: &'static str,
        /// Start of the span's name.
        name: &'static str,
        /// The attribute.
        key: &'static str,
        /// What is in its value.
        part: &'static str,
    },
    /// The span's name starts so, and it has this attribute and one that has the span's name before `.argument.` or `.result`: start,
    /// attribute.
    Method(&'static str, &'static str),
    /// The span's name is the value of an attribute between these, and it has another attribute: start, attribute, end, other one.
    Around(&'static str, &'static str, &'static str, &'static str),
    /// The span has this name and all of these attributes, and the resource this attribute with this value: name, attributes,
    /// attribute, value.
    NamedBy(&'static str, &'static [&'static str], &'static str, &'static str),
}

impl Detect {
    /// Tells whether the resource may be all that bears the mark.
    pub fn is_of_resource(&self) -> bool {
        matches!(self, Self::Maker(..))
    }

    /// Tells whether the scope has to bear the mark.
    pub fn is_of_scope(&self) -> bool {
        match *self {
            Self::Scope(_) | Self::ScopePrefix(_) | Self::ScopeWith(..) | Self::ScopeBy(..) => true,
            Self::Release { .. } | Self::ScopeOf(..) | Self::ScopeLacking(..) => true,
            Self::Named(scope, _) | Self::Begins(scope, _) | Self::Within { scope, .. } => !scope.is_empty(),
            Self::Key(_) | Self::KeyPrefix(_) | Self::Value(..) | Self::Maker(..) | Self::Called(_) => false,
            Self::ValueWithout(..) | Self::Method(..) | Self::Around(..) | Self::NamedBy(..) => false,
        }
    }
}

/// A fact: the canonical name, where a dialect has it, and how it is written there.
#[derive(Debug)]
pub struct Row {
    /// Canonical name.
    pub to: &'static str,
    /// Where it stands, best source first; before all of them under the canonical name itself. A count of none gives way to
    /// one of some.
    pub from: &'static [Source],
    /// How it is written.
    pub shape: Shape,
}

/// A place where a value stands.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// An attribute of the span, or of one of its events.
    Key(&'static str),
    /// A member of an attribute that holds JSON, or what Python prints, by its path; a number takes an item of a list,
    /// and so does `KEY=VALUE`: the item whose KEY is VALUE. Of an object it goes on only where its KEY is VALUE, and where it
    /// has a member KEY by `KEY?`, which takes the last item of a list that has one. A last name with `*` in it is the sum of all counts under such names.
    Json(&'static str, &'static [&'static str]),
    /// An attribute, where a member of another is there and is not the same: key, the other's key, path.
    Unlike(&'static str, &'static str, &'static [&'static str]),
    /// What follows a start, up to a separator that must be there: key, start, separator.
    Before(&'static str, &'static str, char),
    /// What follows the first separator after a start: key, start, separator.
    After(&'static str, &'static str, char),
    /// The span's own name.
    Name,
    /// This word, of an emitter that is one agent.
    Fixed(&'static str),
    /// What stands in the span's own name before this method of an object: the object of an agent or a tool is what the
    /// program calls it. A workflow keeps its whole name.
    Method(&'static str),
    /// What follows this start of the span's own name.
    Behind(&'static str),
    /// What stands in the span's own name between a start and an end.
    Between(&'static str, &'static str),
    /// What stands between a text and the next quote in what Python prints: key, text.
    Quoted(&'static str, &'static str),
    /// Another source, where an attribute has this value: key, value, source.
    Where(&'static str, &'static str, &'static Source),
    /// Another source, where none of these attributes is there.
    Lacking(&'static [&'static str], &'static Source),
    /// Another source, where nothing but counts of none is told of tokens, and nothing of a failure.
    Uncounted(&'static Source),
    /// A member of an attribute that holds JSON, where that is a text or an object with something in it: key, path.
    Reason(&'static str, &'static [&'static str]),
    /// Another source, where the span's own status does not say that it failed.
    Unfailed(&'static Source),
    /// Another source, where who served the model is one whose canonical name begins so.
    Served(&'static [&'static str], &'static Source),
    /// An attribute, where a part of its value between `/` and `.` begins so: key, beginnings.
    Begins(&'static str, &'static [&'static str]),
    /// What follows this start of the span's own name, where that may be a model's: one word that is no class's.
    ModelBehind(&'static str),
    /// Another source, where an attribute is there.
    Beside(&'static str, &'static Source),
    /// Another source, where an attribute is there, and an event of this name: attribute, event, source.
    With(&'static str, &'static str, &'static Source),
    /// Messages spread over attributes: `PREFIX.0.role`, `PREFIX.0.content`, `PREFIX.1.role`, ...
    Indexed(&'static str),
    /// Messages in one attribute, a list of events as the standard had them until 1.36: each with its name in `event.name`.
    Told(&'static str),
    /// One answer spread over attributes, all of which are parts of it: what each of them says, and its key.
    Parts(&'static [(Said, &'static str)]),
}

impl Source {
    /// Tells whether `is_such` holds for one of the attributes that the value itself is taken from.
    pub fn reads(&self, is_such: &mut dyn FnMut(&str) -> bool) -> bool {
        match *self {
            Self::Key(key) | Self::Json(key, _) | Self::Unlike(key, ..) | Self::Told(key) => is_such(key),
            Self::Begins(key, _) => is_such(key),
            Self::Before(key, ..) | Self::After(key, ..) | Self::Quoted(key, _) | Self::Reason(key, _) => is_such(key),
            Self::Indexed(start) => is_such(&format!("{start}.0.content")),
            Self::Parts(parts) => parts.iter().any(|(_, key)| is_such(key)),
            Self::Where(_, _, source) | Self::With(_, _, source) | Self::Beside(_, source) => source.reads(is_such),
            Self::Lacking(_, source) | Self::Served(_, source) => source.reads(is_such),
            Self::Uncounted(source) | Self::Unfailed(source) => source.reads(is_such),
            // The span's own name, and words of the table.
            Self::Name | Self::Fixed(_) | Self::Method(_) | Self::Behind(_) | Self::Between(..) => false,
            Self::ModelBehind(_) => false,
        }
    }
}

/// What an attribute that is a part of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// What the model thought.
    Reasoning,
    /// What it answered, in words or as an object.
    Text,
    /// The tools that it asked for, a list.
    ToolCalls,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A count, as integer, float or text; becomes an integer.
    Count,
    /// Text or a list of texts; copied.
    Text,
    /// A list of texts, be it written as JSON, or a lone one; becomes a list, without those that are empty.
    Words,
    /// A provider's name; becomes the canonical one, and the words of [`UNKNOWN_WORDS`] are none.
    Provider,
    /// A model's name; the words of [`UNKNOWN_WORDS`] are none.
    Model,
    /// A class's name; what is not one word is none.
    Class,
    /// A conversation's id, or a user's; that of an answer ([`ANSWERS`]) is none, though the next question may go on from it.
    Session,
    /// Text that is no placeholder: who used the program.
    User,
    /// An agent's name; the words of [`UNNAMED_AGENTS`] are none.
    Agent,
    /// A provider's id of an answer; what begins like one of [`MADE_UP_ANSWERS`] is none.
    Answer,
    /// What may be a name: an id that is another one each time is none, nor is the model's name.
    Name,
}

/// Which side of a step a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What went in.
    In,
    /// What came out.
    Out,
    /// Standing instructions.
    System,
}

/// Where a dialect has one side of the content. Which canonical name it gets depends on the kind of the step.
#[derive(Debug)]
pub struct Content {
    /// The side.
    pub side: Side,
    /// Where it stands, best source first.
    pub from: &'static [Source],
}

/// How a dialect says what a step is.
#[derive(Debug)]
pub struct KindRow {
    /// The attribute that says it, or [`SPAN_NAME`].
    pub key: &'static str,
    /// What it says.
    pub test: Test,
    /// The kind that it means.
    pub kind: StepKind,
}

/// In place of an attribute: the span's own name.
pub const SPAN_NAME: &str = "";

/// A condition on a value, case ignored and quotes around it as well.
#[derive(Clone, Copy, Debug)]
pub enum Test {
    /// The value is this.
    Is(&'static str),
    /// The value is this, on a span without a parent.
    IsRoot(&'static str),
    /// The value is this, and an attribute is not there.
    IsWithout(&'static str, &'static str),
    /// The value starts so.
    Starts(&'static str),
    /// The value ends so.
    Ends(&'static str),
    /// The value has this in it.
    Has(&'static str),
    /// The value is the span's own name.
    IsName,
    /// The value is that of another attribute, too.
    Same(&'static str),
    /// The attribute is there.
    Present,
    /// The value is a count of more than none.
    Some,
    /// The value is a count of none.
    None,
    /// The attribute has this at its start and at its end.
    Between(&'static str, &'static str),
    /// The attribute is there, and one of others is.
    With(&'static [&'static str]),
    /// The attribute is there, and none of others is.
    Without(&'static [&'static str]),
    /// The attribute is there, and the span is not an [`ORDINARY`] call that merely bears the label.
    Label,
}

/// How a dialect says that a step ended badly.
#[derive(Debug)]
pub struct Outcome {
    /// What says it.
    pub from: Source,
    /// The word it says; empty for any.
    pub word: &'static str,
    /// The status that it means.
    pub status: StepStatus,
    /// What has the reason, best source first.
    pub message: &'static [Source],
}

/// Whether input tokens include cached ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// They do, as the standard says.
    Inclusive,
    /// They do not: cached ones have to be added.
    Exclusive,
    /// They have them twice: cached ones have to be taken off, of the total as well.
    Twice,
    /// They do or they do not, by versions that nothing tells apart: where there are cached ones, input is not known.
    Unknown,
}

/// The basis of a dialect for the providers whose canonical name starts so.
#[derive(Debug)]
pub struct BasisRow {
    /// Start of the provider's name; empty for all.
    pub provider: &'static str,
    /// The basis.
    pub basis: Basis,
}

/// Counts of a span that are not what was used, of which nothing is known then.
#[derive(Debug)]
pub struct Untold {
    /// All of these are so: attribute, and what it says.
    pub when: &'static [(&'static str, Test)],
    /// Canonical names of the counts.
    pub counts: &'static [&'static str],
}

impl Dialect {
    /// Tells whether both are variants of one dialect.
    pub fn is_kin(&self, other: &Self) -> bool {
        self.base() == other.base()
    }

    fn base(&self) -> &'static str {
        if self.variant_of.is_empty() { self.name } else { self.variant_of }
    }
}

const fn row(to: &'static str, from: &'static [Source], shape: Shape) -> Row {
    Row { to, from, shape }
}

const fn kind(key: &'static str, test: Test, kind: StepKind) -> KindRow {
    KindRow { key, test, kind }
}

const fn content(side: Side, from: &'static [Source]) -> Content {
    Content { side, from }
}

/// Of providers that report cached tokens apart, for who passes on what they report.
const AS_REPORTED: &[BasisRow] = &[
    BasisRow { provider: "anthropic", basis: Basis::Exclusive },
    BasisRow { provider: "aws.bedrock", basis: Basis::Exclusive },
];

const ALL_INCLUSIVE: &[BasisRow] = &[BasisRow { provider: "", basis: Basis::Inclusive }];

/// All dialects but [`OTEL`], in the order in which they are tried: the more particular mark first.
pub const DIALECTS: &[&Dialect] = &[
    &TANSTACK,
    &LANGFUSE_TRPC,
    &LANGFUSE_JS_SUMMED,
    &LANGFUSE_JS,
    &LANGFUSE,
    &GUARDRAILS,
    &OPENINFERENCE_CLAUDE,
    &OPENINFERENCE_CLAUDE_JS,
    &OPENINFERENCE_AGENTS,
    &OPENINFERENCE_LANGCHAIN_JS_SUMMED,
    &OPENINFERENCE_LANGCHAIN_JS,
    &OPENINFERENCE_AGNO,
    &OPENINFERENCE_ADK,
    &OPENINFERENCE_HAYSTACK,
    &OPENINFERENCE_AUTOGEN,
    &OPENINFERENCE_BEEAI,
    &OPENINFERENCE_MASTRA,
    &OPENINFERENCE_BEDROCK,
    &OPENINFERENCE_ANTHROPIC,
    &OPENINFERENCE_OPENAI,
    &OPENINFERENCE_GOOGLE,
    &OPENINFERENCE,
    &OPENINFERENCE_BEDROCK_BARE,
    &CLAUDE_CODE,
    &TRACEAI,
    &MONOCLE,
    &LITELLM,
    &BEDROCK,
    &TRACELOOP_ANTHROPIC_JS,
    &TRACELOOP_LLAMAINDEX,
    &TRACELOOP_MCP,
    &TRACELOOP_OPENAI,
    &TRACELOOP,
    &MLFLOW,
    &LAMINAR,
    &WEAVE_INTEGRATION,
    &WEAVE,
    &LANGSMITH,
    &MASTRA_BEFORE,
    &MASTRA_METHODS,
    &MASTRA,
    &VOLTAGENT,
    &AGENTOPS,
    &LANGWATCH,
    &KOOG,
    &EFFECT,
    &VERCEL_FIVE,
    &VERCEL_SIX,
    &VERCEL,
    &VERCEL_OTEL,
    &LOGFIRE_OPENAI_AGENTS,
    &LOGFIRE_CLAUDE,
    &LOGFIRE_STREAM,
    &PYDANTIC_AI,
    &PYDANTIC_EVALS,
    &PYDANTIC,
    &TRPC_APART,
    &TRPC,
    &INGENIMAX,
    &GOOGLE_ADK_JS,
    &GOOGLE_ADK_JAVA,
    &GOOGLE_ADK_GO_FIRST,
    &GOOGLE_ADK_GO_TOTAL,
    &GOOGLE_ADK_GO_APART,
    &GOOGLE_ADK_GO,
    &GOOGLE_ADK_CALL,
    &GOOGLE_ADK,
    &STRANDS_PYTHON,
    &STRANDS,
    &AGENT_FRAMEWORK,
    &SEMANTIC_KERNEL_FUNCTIONS,
    &SEMANTIC_KERNEL,
    &AGENTSCOPE,
    &MCP_AGENT,
    &MIRASCOPE_STREAM,
    &MIRASCOPE,
    &AUTOGEN,
    &AG2,
    &OPENLIT_CREWAI,
    &OPENLIT_LANGGRAPH,
    &OPENLIT_LANGCHAIN,
    &OPENLIT_LANGCHAIN_CALL,
    &OPENLIT_CALL,
    &OPENLIT,
    &SPRING_AI,
    &GENKIT,
    &HAYSTACK_ANTHROPIC,
    &HAYSTACK,
    &RIG,
    &CODEX,
    &CODEX_OTHER,
    &GOOSE,
    &QWEN_CODE,
    &GEMINI_CLI,
    &SENTRY,
    &ANTHROPIC_CLIENT,
    &MISTRAL_STREAM,
    &MISTRAL_CLIENT,
    &OTEL_AGNO,
    &OTEL_BEDROCK,
    &OTEL_GOOGLE,
    &OTEL_OPENAI,
    &TRACELOOP_OPENAI_GENERATION,
    &TRACELOOP_OPENAI_AGENTS,
    &OTEL_OPENAI_AGENTS,
    &OTEL_INSTRUMENTATION,
];

/// No dialect: a span that no other one recognises, and what a dialect has when it says nothing else.
pub const PLAIN: Dialect = Dialect {
    name: "plain",
    variant_of: "",
    detect: &[],
    facts: &[],
    entity: &[],
    content: &[],
    usage: &[],
    asked: None,
    summaries: &[],
    kinds: &[],
    outcomes: &[],
    basis: &[],
    reasoning_apart: &[],
    untold: &[],
    adds_reasoning: false,
    tells_no_provider: false,
    output_is_total: false,
    zero_is_told: false,
    names_itself: false,
    fails_without: &[],
    failed_without_response: &[],
    cancelled_without_response: &[],
    failure_leaves_answer: false,
    is_silent_without_model: false,
    cancelled_without_reason: &[],
    counts_to_the_end: false,
    left_is_well: false,
    cancelled_without: &[],
    fails_by_exception: false,
    fails_although_well: false,
    unknown_is_error: false,
    marks_failures: false,
    announced: None,
};

/// That of an emitter that no table knows: whoever writes the standard's names by hand means what it says.
///
/// Where nothing says what a span is, a model's name makes it a call; what merely is called `model` may be a row's of a database.
pub const UNKNOWN: Dialect = Dialect {
    zero_is_told: true,
    facts: &[row(
        names::REQUEST_MODEL,
        &[
            Lacking(SAY_WHAT_IT_IS, &Lacking(ORDINARY, &Key("llm.model_name"))),
            Lacking(SAY_WHAT_IT_IS, &Lacking(ORDINARY, &Begins("model", MODELS))),
            Beside(names::INPUT_TOKENS, &Lacking(SAY_WHAT_IT_IS, &Lacking(ORDINARY, &Key("model")))),
            Beside("gen_ai.usage.prompt_tokens", &Lacking(SAY_WHAT_IT_IS, &Lacking(ORDINARY, &Key("model")))),
        ],
        Shape::Model,
    )],
    ..PLAIN
};

/// Attributes that say what a span is, or of whom: what is called a model beside them is a label.
pub const SAY_WHAT_IT_IS: &[&str] =
    &[names::OPERATION, names::AGENT_NAME, names::WORKFLOW_NAME, names::TOOL_NAME, names::MCP_METHOD];

/// Canonical names of providers that serve Gemini start so. It counts its thoughts apart from what it answers, and its
/// total has both.
///
/// Source: `GenerateContentResponse.UsageMetadata` of the Gemini API.
pub const GOOGLE: &str = "gcp.";

/// Starts of words that stand for a text that was taken out or never filled in: such a text says nothing.
///
/// Source: Logfire's scrubbing, OpenInference's and Codex' switches, Claude Code's, Micrometer's placeholder, ADK's; the user whom the proxy of
/// LiteLLM (1.108 `constants.py`) takes all for who call it by its master key.
pub const HIDDEN: &[&str] =
    &["[Scrubbed due to", "__REDACTED__", "[REDACTED]", "<REDACTED>", "<elided>", "default_user_id"];

/// Classes of what is raised to hand control on, and no failure: LangGraph goes to another node or agent by one, and waits for
/// a person by others, and Pydantic AI and Genkit for a person or another program.
///
/// Source: `langgraph` 1.2 `errors.py`, `pydantic_ai` 2.68 `exceptions.py`, `@genkit-ai/ai` 1.42 `tool.ts`.
pub const CONTROL_FLOW: &[&str] = &[
    "ParentCommand",
    "GraphInterrupt",
    "NodeInterrupt",
    "GraphBubbleUp",
    "ApprovalRequired",
    "CallDeferred",
    "ToolInterruptError",
];

/// Why the first message of an answer ended, where each has attributes of its own (OpenLLMetry 0.53).
pub const FINISH_REASON_OF_OLD: &str = "gen_ai.completion.0.finish_reason";

/// By what a stream is known whose answer has begun: an attribute, how its value ends, and another attribute that is there as well.
///
/// Source: OpenTelemetry's semantic conventions 1.44; `pydantic_ai` 1.5, which has the answer's id since it has reasons, 1.50 and 2.62;
/// `opentelemetry-instrumentation-botocore` 0.66b2, which has the method of the client and of an answer its status alone;
/// `opentelemetry-instrumentation-openai` 0.53, 0.60 and 0.62.
pub const BEGUN_STREAMS: &[(&str, &str, &str)] = &[
    // Whoever reads the bytes of the answer by themselves leaves nothing of it to be seen, whatever they have read.
    (names::REQUEST_STREAM, "true", names::RESPONSE_ID),
    ("gen_ai.response.time_to_first_chunk", "", ""),
    ("gen_ai.client.operation.time_to_first_chunk", "", ""),
    ("rpc.method", "ConverseStream", "http.status_code"),
    // OpenLLMetry's; before it wrote reasons of their own, these stood with the messages alone.
    ("gen_ai.is_streaming", "true", names::RESPONSE_ID),
    ("llm.is_streaming", "true", "gen_ai.prompt.0.content"),
    // Pydantic AI's: the reason came with the id, or the answer had no end.
    (names::RESPONSE_ID, "", "logfire.json_schema"),
];

/// By what it is known that more parts of an answer came than its beginning counts tokens, where a report of a stream counts those: key, path.
/// Anthropic says at the beginning of a message that one token came out, and the right number at its end.
///
/// Source: `logfire` 4.33 `_internal/integrations/llm_providers/anthropic.py`, run against a scripted server.
pub const PARTS_OF_STREAMS: &[(&str, &[&str])] = &[("response_data", &["chunk_count"])];

/// Scopes that name spans by templates, and the attribute with what such a one is filled with.
///
/// Source: `pydantic-evals` 5.4 `_utils.py`.
pub const TEMPLATE_NAMES: &[(&str, &str)] = &[("pydantic-evals", "logfire.msg")];

/// Classes of what is raised where a program stops reading or is stopped itself: no failure of who was asked.
pub const ENDS_A_STREAM: &[&str] =
    &["GeneratorExit", "StopIteration", "StopAsyncIteration", "KeyboardInterrupt", "SystemExit"];

/// How the ids of OpenAI's answers begin, by which a client goes on with a conversation that has no id of its own.
///
/// Source: OpenAI's responses; Microsoft's Agent Framework (1.23) writes them for the conversation.
pub const ANSWERS: &str = "resp_";

/// Whose calls tell what they used together with those before them in one loop over tools: scope, how its version begins, and the
/// attribute of the steps that such a loop is below.
///
/// Spring AI 1 (`UsageCalculator.getCumulativeUsage` in its chat models, between an answer with calls of tools and the next
/// request), which runs on Spring Boot 3; Spring AI 2, on Spring Boot 4, tells each for itself. What a program does itself with
/// a model, outside of a `ChatClient`, is below none of its steps.
pub const RUNNING_SUMS: &[(&str, &str, &str)] = &[("org.springframework.boot", "3.", "spring.ai.kind")];

/// Scopes of frameworks whose agents tell what their own calls used, of which no call does, and nothing of agents below them: each of
/// them is as good as a call, and counts beside the one that it works for.
///
/// How their spans are called, where not all are such. VoltAgent (`@voltagent/core` 2.10), whose calls tell what the last of several used; Mastra
/// (`@mastra/core` 0.16), of whose calls the first alone has a span.
pub const OWN_USE: &[(&str, &str)] = &[("@voltagent/core", ""), ("default-tracer", "agent.generateVNext")];

/// Attributes of spans that are a record of a log, and what they say there: such a one is no call, but reports one that a span before it
/// is of, a stream that was read to its end.
///
/// Source: `logfire` 5.4 `_internal/integrations/llm_providers/llm_provider.py`, `record_streaming`.
pub const REPORTS: &[(&str, &str)] = &[("logfire.span_type", "log")];

/// Where LangGraph's execution of a node stands on what is done in it, whoever tells that: attribute, and the member of the JSON in it, if it is such.
pub const TASKS: &[(&str, &str)] = &[
    ("traceloop.association.properties.langgraph_checkpoint_ns", ""),
    ("langfuse.observation.metadata.langgraph_checkpoint_ns", ""),
    ("metadata", "langgraph_checkpoint_ns"),
];

/// Scopes of instrumentations whose topmost step says nothing of how its run ended, or that all is well whatever happened below it.
///
/// The OpenAI Agents SDK (0.8 to 0.24) ends its trace without an error: `openinference-instrumentation-openai-agents` 1.4 and 2.6,
/// `opentelemetry-instrumentation-openai-agents` 0.52 and 0.62 and `openlit` 1.45 have OK there, `logfire` 5.4 nothing.
pub const ALWAYS_WELL: &[&str] = &[
    "openinference.instrumentation.openai_agents",
    "opentelemetry.instrumentation.openai_agents",
    "openlit.instrumentation.openai_agents",
    "logfire.openai_agents",
    "@arizeai/openinference-instrumentation-openai-agents",
];

/// Steps by which a program deals with the failure of the call right before them, which does not tell it: how the scope begins, and the
/// name.
///
/// Source: Codex CLI 0.171, `core/src/responses_retry.rs`.
pub const DEAL_WITH_FAILURES: &[(&str, &str)] = &[("codex", "handle_response_stream_error")];

/// What a tool of the OpenAI Agents SDK says where its failure ends the agent, and what it says besides where a model is told of it instead.
///
/// Source: `openai-agents` 0.3.3 and 0.5.1, whose agents say nothing then, and 0.24; what the last says of arguments that are no JSON has the
/// first alone, and a model is told.
pub const ENDS_AGENT: (&str, &str) = ("Error running tool", "(non-fatal)");

/// How the scopes of programs begin that an SDK runs, of which an instrumentation tells the tools as well: in a process of its own, under
/// one session.
///
/// Source: the Claude Agent SDK (0.2.189, and 0.3.332 for JavaScript), which runs Claude Code 2.1.
pub const RUN_BY_OTHERS: &[&str] = &["com.anthropic.claude_code"];

/// Instrumentations of providers' clients, by their scopes, whose spans are of no kind: each of a call is of a request.
pub const CLIENTS: &[&str] = &[
    "openinference.instrumentation.anthropic",
    "openinference.instrumentation.bedrock",
    "openinference.instrumentation.cohere",
    "openinference.instrumentation.google_genai",
    "openinference.instrumentation.groq",
    "openinference.instrumentation.mistralai",
    "openinference.instrumentation.openai",
    "openinference.instrumentation.together",
    "openinference.instrumentation.vertexai",
    "traceai_anthropic",
    "traceai_openai",
];

/// Providers whose streams end with what they used wherever the AI SDK reads them, by how their canonical names begin: one that has no
/// such count did not come to its end. Others, and whoever is called as one of them is, may never tell it.
pub const COUNT_IN_STREAMS: &[&str] =
    &["openai", "anthropic", "gcp.", "aws.bedrock", "azure.", "x_ai", "mistral_ai", "cohere", "groq", "deepseek"];

/// Attributes whose text is a JSON document, be it that of a text alone: the key, and an attribute that has to say so, with its word.
///
/// Source: `mlflow.spanInputs` and `mlflow.spanOutputs` by `dump_span_attribute_value` of MLflow 3; `genkit:input` by
/// `JSON.stringify` of `@genkit-ai/core`; `traceloop.entity.input` by `json.dumps` and `JSON.stringify` of OpenLLMetry's decorators;
/// `ai.toolCall.args` by `JSON.stringify` of `ai`; `input.mime_type` by OpenInference's semantic conventions.
pub const DOCUMENTS: &[(&str, &str, &str)] = &[
    ("mlflow.spanInputs", "", ""),
    ("mlflow.spanOutputs", "", ""),
    ("genkit:input", "", ""),
    ("genkit:output", "", ""),
    ("traceloop.entity.input", "", ""),
    ("traceloop.entity.output", "", ""),
    ("ai.toolCall.args", "", ""),
    ("ai.toolCall.result", "", ""),
    ("ai.value", "", ""),
    ("ai.values", "", ""),
    ("input.value", "input.mime_type", "application/json"),
    ("output.value", "output.mime_type", "application/json"),
];

/// Words by which the AI SDK says that it knows no reason for the end of an answer: up to version 5, and since 6.
pub const NO_REASONS: &[&str] = &["unknown", "other"];

/// Scopes of the AI SDK since 7.
pub const VERCEL_OTEL_SCOPES: &[&str] = &["gen_ai", "@ai-sdk/otel"];

/// Words by which a framework says that it does not know a model or who serves it.
pub const UNKNOWN_WORDS: &[&str] = &["none", "unknown", "null"];

/// In the place of a model: the program's own text, for which no model was asked.
///
/// Source: Claude Code, which says by it what became of a request that failed or was stopped.
pub const NO_MODEL: &str = "<synthetic>";

/// How names of spans end in which a client of Anthropic's asks how long a prompt is, and no model: such a one begins no run.
///
/// Source: `openinference-instrumentation-anthropic` 3.1 and `anthropic` 2.14, run against a scripted server.
pub const COUNTS_TOKENS: &str = "messages.count_tokens";

/// By what clients and servers of MCP find out how they speak: one that fails is answered by another.
///
/// Source: `mcp` 2.3 for Python, which asks servers of before for what they do not know, and the other way round.
pub const HANDSHAKES: &[&str] = &["server/discover", "initialize"];

/// Who names a provider, by the scope, and the name: it serves the models by itself, under another name, unless the address is that of a
/// provider.
///
/// Source: GitHub's Copilot CLI 1.0.102, which says the same where the program calls OpenAI with a key of the user's.
pub const SERVES_ITSELF: &[(&str, &str, &str)] = &[("github.copilot", "github", "copilot")];

/// In the place of a provider's id of an answer: it says nothing, and all answers have it.
///
/// Source: `FAKE_RESPONSES_ID` of `openai-agents` 0.24, which it gives what a model answers by chat completions.
pub const NO_ANSWERS: &[&str] = &["__fake_id__"];

/// How ids of messages begin that a framework makes up where the answer has none.
///
/// Source: `langchain_core` 1.x, `@langchain/core` 1.4, whose ids of messages have that of the run of the callback behind it.
pub const MADE_UP_ANSWERS: &[&str] = &["run-", "lc_run-"];

/// Words by which an emitter names an agent that it does not know.
///
/// Source: `opentelemetry-instrumentation-openai-agents-v2` 0.1.0.
pub const UNNAMED_AGENTS: &[&str] = &["OpenAI Agent"];

/// Who takes every model for one of this provider's, by the scope: where a model's name says who serves it, that is believed.
///
/// Source: `google-adk` 1.26 and 2.4, of models that it calls by LiteLLM; with `GOOGLE_GENAI_USE_VERTEXAI` they are those of Vertex AI.
pub const GUESSED: &[(&str, &str)] = &[("gcp.vertex.agent", "gcp.gemini"), ("gcp.vertex.agent", "gcp.vertex_ai")];

/// Clients that serve one provider's models and none of others, by how the scope of who traces them begins, and that provider: where
/// nothing else names it.
///
/// Source: `openinference-instrumentation-groq` 0.1.11 and `openinference-instrumentation-mistralai` 1.3.3, run against a scripted server.
/// OpenAI's client calls whoever speaks its language, and Anthropic's has others for clouds.
pub const ONE_PROVIDER: &[(&str, &str)] =
    &[("openinference.instrumentation.groq", "groq"), ("openinference.instrumentation.mistralai", "mistral_ai")];

/// Attributes of spans that are an ordinary call of another kind. A session's or agent's name on them is a label that
/// baggage carried there, and no reason to take them for an agent.
pub const ORDINARY: &[&str] = &[
    "http.request.method",
    "http.method",
    "url.full",
    "db.system.name",
    "db.system",
    "rpc.system",
    "messaging.system",
];

/// Span events of the deprecated standard that each carry one message: event name, side, role.
///
/// Source: deprecated events of OpenTelemetry semantic conventions 1.44.
pub const MESSAGE_EVENTS: &[(&str, Side, &str)] = &[
    ("gen_ai.system.message", Side::In, "system"),
    ("gen_ai.user.message", Side::In, "user"),
    ("gen_ai.assistant.message", Side::In, "assistant"),
    ("gen_ai.tool.message", Side::In, "tool"),
    ("gen_ai.choice", Side::Out, "assistant"),
];

/// A place where an emitter tells what a call cost, in US dollars.
#[derive(Clone, Copy, Debug)]
pub enum CostName {
    /// The whole cost.
    Total(&'static str),
    /// The whole cost, a member of a JSON object: key, path.
    TotalIn(&'static str, &'static [&'static str]),
    /// The parts of the whole, all members of a JSON object.
    SumOf(&'static str),
    /// Two parts that make the whole.
    Parts(&'static str, &'static str),
}

impl CostName {
    /// Returns the attribute that has the cost, or the first part of it.
    pub fn key(&self) -> &'static str {
        match *self {
            Self::Total(key) | Self::TotalIn(key, _) | Self::SumOf(key) | Self::Parts(key, _) => key,
        }
    }
}

/// Where a cost of 0 on a call that failed says nothing without parts, unless what it used is told: with them it was refused.
///
/// Source: Langfuse's handler of LangChain's callbacks, which writes it for streams that broke off or were given up, and its wrapper of
/// OpenAI's client, which writes the parts for calls that were refused (`langfuse` 3.15 to 5.0 for Python, 4.6 and 5.11 for JavaScript).
pub const ZERO_FOR_NONE: &[&str] = &["langfuse.observation.cost_details"];

/// Where a cost of 0 on a stream that failed says nothing either: the cost, an attribute, and what that says of a stream.
///
/// Source: `litellm` 1.81 `integrations/opentelemetry.py`, run against a scripted server, of streams that broke off. What was refused has no cost.
pub const ZERO_OF_STREAMS: &[(&str, &str, &str)] = &[("gen_ai.cost.total_cost", "llm.is_streaming", "True")];

/// Where costs are told, best first. There is no standard for it.
///
/// Source: OpenLIT, Laminar and Langfuse (`gen_ai.usage.cost`), AgentOps (`.total_cost`), Pydantic AI
/// (`operation.cost`), OpenInference, LiteLLM 2, Langfuse, MLflow, and what Vercel's gateway and OpenRouter answer to the AI SDK.
pub const REPORTED_COSTS: &[CostName] = &[
    CostName::Total("gen_ai.usage.cost"),
    CostName::Total("gen_ai.usage.total_cost"),
    CostName::Total("operation.cost"),
    CostName::Total("llm.cost.total"),
    CostName::Total("litellm.cost.total"),
    CostName::Total("gen_ai.cost.total_cost"),
    CostName::TotalIn("langfuse.observation.cost_details", &["total"]),
    CostName::SumOf("langfuse.observation.cost_details"),
    CostName::TotalIn("mlflow.llm.cost", &["total_cost"]),
    CostName::TotalIn("ai.response.providerMetadata", &["gateway", "cost"]),
    CostName::TotalIn("ai.response.providerMetadata", &["openrouter", "usage", "cost"]),
    CostName::TotalIn("cost_details_json", &["total"]),
    CostName::TotalIn("langwatch.metrics", &["cost"]),
    CostName::TotalIn("langwatch.metrics", &["value", "cost"]),
    CostName::Total("cost_usd"),
    CostName::Parts("gen_ai.usage.input_cost", "gen_ai.usage.output_cost"),
    CostName::Parts("llm.cost.prompt", "llm.cost.completion"),
];
