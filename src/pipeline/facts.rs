//! What a normalized span says, as plain fields: the input of run assembly.
//!
//! Reads canonical attributes only, so it works on a span on its way to the journal and on one read back from disk
//! alike, whatever dialect it was written in.

mod failure;
mod marks;

pub(super) use failure::{class_of_failure, error, status};
pub use marks::{Marks, says_more};

use failure::{STATUS_OK, bounded, ends_agent, failed};

use std::net::IpAddr;

use crate::conventions::dialects::{
    ALWAYS_WELL, CLIENTS, COUNTS_TOKENS, DEAL_WITH_FAILURES, HANDSHAKES, NO_ANSWERS, NO_REASONS, ORDINARY, OWN_USE,
    RUNNING_SUMS, TEMPLATE_NAMES, VERCEL_OTEL_SCOPES,
};
use crate::conventions::names;
use crate::model::budget::Budget;
use crate::model::id::is_foreign_run_id;
use crate::model::json_text::JsonText;
use crate::model::key_filter::KeyFilter;
use crate::model::otlp::{Resource, Scope, Span, Value};
use crate::model::{CostSource, ErrorInfo, NanoUsd, RunId, SpanId, StepKind, StepStatus, Tokens, TraceId};
use crate::sources::encode::cut_to;
use serde_json::Value as Json;

/// Longest readable name of a step, in characters.
const STEP_NAME_MAX: usize = 80;
/// Longest name, id, label or class of an error, in bytes. The span itself has all of it.
const MAX_NAME: usize = 1 << 10;
/// Labels of a run, and words of any other list.
pub(crate) const MAX_WORDS: usize = 64;

/// A place in a loop over tools whose calls tell sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InLoop {
    /// A call of a model.
    Call,
    /// A step that the calls are below.
    Around,
}

/// What a call told that it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its tokens.
    pub tokens: Option<Tokens>,
    /// Its cost.
    pub cost: Option<(NanoUsd, CostSource)>,
}

/// The facts of one span.
///
/// Names, ids, labels and what is said of an error are bounded, with a mark where they were cut: they go into files that
/// readers hold to a size, whatever an emitter says.
#[derive(Clone, Debug, PartialEq)]
pub struct StepFacts {
    /// What the step does.
    pub kind: StepKind,
    /// Whether the span tells of a GenAI operation at all; a trace without one is not a run.
    pub is_genai: bool,
    /// The span's name as emitted.
    pub name: String,
    /// Base of the readable `step_id`: the operation of a model call, the name of a tool, agent or workflow, else the
    /// span's name. No whitespace or control characters, at most 80 characters, never empty.
    pub step_name: String,
    /// The agent it is or belongs to.
    pub agent_name: Option<String>,
    /// The agent's id, else its name.
    pub agent_id: Option<String>,
    /// Whether all it does is to make an agent.
    pub makes_agent: bool,
    /// The workflow it is or belongs to.
    pub workflow_name: Option<String>,
    /// The tool that was called.
    pub tool_name: Option<String>,
    /// The id that the model gave the call of a tool.
    pub tool_call_id: Option<String>,
    /// Whether the span is the request to the server itself, and not only of a layer above it.
    pub is_at_wire: bool,
    /// Whether the span is of kind `CLIENT`, a request to somebody else or a layer that says so, or [of a client](Self::is_of_client).
    pub is_client: bool,
    /// Whether it is of an instrumentation of a provider's client ([`CLIENTS`]).
    pub is_of_client: bool,
    /// Whether the topmost step of its kind says nothing of how the run ended; see [`ALWAYS_WELL`].
    pub is_always_well: bool,
    /// It ended in words that are those of a failure and of a stream that was left alike (the AI SDK 5 to 7).
    pub ends_in_either: bool,
    /// Whether it is a tool of such an instrumentation that says that its failure ended the agent
    /// ([`ENDS_AGENT`](crate::conventions::dialects::ENDS_AGENT)).
    pub ends_agent: bool,
    /// Whether a program deals by it with a failure of the call before it ([`DEAL_WITH_FAILURES`]).
    pub deals_with_failure: bool,
    /// Whether its author declared it to have gone well, who does not say so of everything.
    pub is_declared_well: bool,
    /// Whether it is by what a client and a server of MCP find out how they speak ([`HANDSHAKES`]).
    pub is_handshake: bool,
    /// Whether it is an experiment, whose cases are conversations of their own.
    pub is_experiment: bool,
    /// Whether it is a command that was run, which is around all that it does.
    pub is_command: bool,
    /// Whether it is an agent that tells what it used itself; see [`OWN_USE`].
    pub tells_own_use: bool,
    /// By what it can be known where another instrumentation tells it, too: of calls of models and tools.
    pub marks: Option<Box<Marks>>,
    /// Its place in a loop whose calls tell sums; see [`RUNNING_SUMS`].
    pub in_loop: Option<InLoop>,
    /// What it told, where that was the sum of its loop and `tokens` and `cost` have what it used itself.
    pub told: Option<Box<Told>>,
    /// Whether it was told by who passed it on: the program that made it may tell it, too.
    pub is_relayed: bool,
    /// The port at which it asked a server on this machine, or at which it was passed on.
    pub local_port: Option<u16>,
    /// Who served the model.
    pub provider: Option<String>,
    /// The model that was asked for.
    pub request_model: Option<String>,
    /// The model that answered.
    pub response_model: Option<String>,
    /// The conversation.
    pub session_id: Option<String>,
    /// The user.
    pub user_id: Option<String>,
    /// A foreign system's own id of the run.
    pub external_id: Option<String>,
    /// Free labels.
    pub tags: Vec<String>,
    /// The run that the span, else its process, declares itself part of.
    pub run_id: Option<RunId>,
    /// Whether the span declares it itself, as the root of a run does; what its process says holds for all its spans.
    pub names_run: bool,
    /// The run that started that run.
    pub parent_run_id: Option<RunId>,
    /// The run that it repeats.
    pub replay_of: Option<RunId>,
    /// What the run may take, whose topmost step this is.
    pub budget: Option<Budget>,
    /// Token counts on this span; for kinds that are not billed they repeat what steps below say.
    pub tokens: Option<Tokens>,
    /// What the step cost.
    pub cost: Option<(NanoUsd, CostSource)>,
    /// Whether this is a model call of its own, so that its tokens and cost count in totals.
    pub billed: bool,
    /// How the step stands; running while the span has no end.
    pub status: StepStatus,
    /// Why it failed; `Some` exactly when the status is a failure.
    pub error: Option<ErrorInfo>,
    /// The step to look at for why, where the span names one.
    pub error_span: Option<SpanId>,
    /// The provider's id of the answer; two spans with one id tell one call.
    pub response_id: Option<String>,
    /// Why the model stopped, one word a choice.
    pub finish_reasons: Vec<String>,
    /// What went in and came out. Apart from the rest, which many share and keep.
    pub content: Box<StepContent>,
}

/// What a step was given and what it gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepContent {
    /// What went in.
    pub input: Option<JsonText>,
    /// What came out.
    pub output: Option<JsonText>,
    /// Standing instructions to the model.
    pub system_prompt: Option<JsonText>,
    /// What was sent to the model.
    pub messages: Option<JsonText>,
    /// What the tool was given.
    pub tool_args: Option<JsonText>,
    /// What the tool gave back.
    pub tool_result: Option<JsonText>,
}

/// The operation of making an agent.
const MAKES_AGENT: &str = "create_agent";

/// The operation of trying a program on cases, by `pydantic-evals` 5.4.
const EXPERIMENT: &str = "experiment";

/// `SpanKind.SPAN_KIND_CLIENT` of `opentelemetry/proto/trace/v1`.
const SPAN_KIND_CLIENT: i32 = 3;

impl StepFacts {
    /// Reads a normalized span. What the span does not say, the resource may: run, session and user.
    pub fn of(span: &Span, resource: Option<&Resource>, scope: Option<&Scope>) -> Self {
        let keys = KeyFilter::of(&span.attributes);
        let attr = |key| if keys.may_have(key) { span.attr(key) } else { None };
        let text = |key| attr(key).and_then(text_of).map(short);
        let inherited = |key| text(key).or_else(|| resource.and_then(|r| r.attr(key)).and_then(text_of).map(short));

        let kind = kind(span);
        let (agent_name, workflow_name) = (text(names::AGENT_NAME), text(names::WORKFLOW_NAME));
        let tool_name = text(names::TOOL_NAME);
        let status = status(span);
        let own_name = match kind {
            StepKind::Llm | StepKind::Embedding => Some(names::OPERATION),
            StepKind::Tool => Some(names::TOOL_NAME),
            StepKind::Agent => Some(names::AGENT_NAME),
            StepKind::Workflow => Some(names::WORKFLOW_NAME),
            _ => None,
        };
        let own_name = own_name.and_then(attr).and_then(text_of);
        // One without a name is not called by what no other run of it is.
        let operation = || attr(names::OPERATION).and_then(text_of);
        let own_name = own_name.or_else(|| operation().filter(|_| kind == StepKind::Agent && is_made_up(&span.name)));
        let is_always_well = scope.is_some_and(|scope| ALWAYS_WELL.contains(&scope.name.as_str()));
        let is_of_client = scope.is_some_and(|scope| CLIENTS.contains(&scope.name.as_str()));
        let content = Box::new(StepContent::of(attr, kind));
        let run_id = inherited(names::RUN_ID).and_then(|id| id.parse().ok());
        // A bridge writes it on all that it passes on, whoever told the span.
        let is_made_of_trace =
            run_id.zip(TraceId::from_bytes(&span.trace_id)).is_some_and(|(run, trace)| is_foreign_run_id(run, trace));
        Self {
            kind,
            is_genai: is_genai(span),
            name: cut_to(name_of(span, scope), MAX_NAME).into_owned(),
            step_name: step_name(own_name.as_deref().unwrap_or(name_of(span, scope)), kind),
            agent_id: text("gen_ai.agent.id").or_else(|| agent_name.clone()),
            makes_agent: attr(names::OPERATION).and_then(Value::as_str) == Some(MAKES_AGENT),
            agent_name,
            workflow_name,
            tool_name,
            tool_call_id: text(names::TOOL_CALL_ID),
            is_at_wire: attr(names::HTTP_METHOD).or_else(|| attr(names::HTTP_STATUS_CODE)).is_some(),
            is_client: span.kind == SPAN_KIND_CLIENT || is_of_client,
            is_of_client,
            is_always_well,
            ends_in_either: ends_in_either(attr, scope),
            ends_agent: is_always_well && kind == StepKind::Tool && ends_agent(span),
            deals_with_failure: scope.is_some_and(|scope| deals_with_failure(scope, span)),
            is_declared_well: !is_always_well && span.status.as_ref().is_some_and(|status| status.code == STATUS_OK),
            is_handshake: attr(names::MCP_METHOD).and_then(Value::as_str).is_some_and(|it| HANDSHAKES.contains(&it)),
            is_experiment: attr(names::OPERATION).and_then(Value::as_str) == Some(EXPERIMENT),
            is_command: kind == StepKind::Workflow && scope.is_some_and(|scope| scope.name == names::SCOPE_EXEC),
            tells_own_use: scope.is_some_and(|scope| tells_own_use(scope, &span.name, kind)),
            marks: Marks::of(attr, kind, scope, &content),
            in_loop: scope.and_then(|scope| in_loop(scope, kind, span)),
            told: None,
            is_relayed: attr(names::RELAYED) == Some(&Value::Bool(true)),
            local_port: local_port(attr),
            provider: text(names::PROVIDER),
            request_model: text(names::REQUEST_MODEL),
            response_model: text(names::RESPONSE_MODEL),
            session_id: inherited(names::CONVERSATION_ID).or_else(|| {
                // A process that is one conversation, by OpenTelemetry's own name for it.
                resource.and_then(|resource| resource.attr("session.id")).and_then(text_of).map(short)
            }),
            user_id: inherited(names::USER_ID),
            external_id: text(names::EXTERNAL_ID),
            tags: words(attr(names::TAGS)),
            run_id,
            names_run: attr(names::RUN_ID).is_some() && !is_made_of_trace,
            parent_run_id: inherited(names::PARENT_RUN_ID).and_then(|id| id.parse().ok()),
            replay_of: text(names::REPLAY_OF).and_then(|id| id.parse().ok()),
            budget: attr(names::BUDGET).and_then(Value::as_str).and_then(|json| serde_json::from_str(json).ok()),
            tokens: tokens_in(attr),
            cost: cost_in(attr),
            billed: is_billed(kind),
            status,
            error: failed(status).then(|| bounded(error(span))),
            error_span: attr(names::ERROR_SPAN).and_then(Value::as_str).and_then(|id| id.parse().ok()),
            response_id: text(names::RESPONSE_ID).filter(|id| !NO_ANSWERS.contains(&id.as_str())),
            finish_reasons: words(attr(names::FINISH_REASONS)),
            content,
        }
    }

    /// Returns the model that answered, else the one asked for.
    pub fn model(&self) -> Option<&str> {
        self.response_model.as_deref().or(self.request_model.as_deref())
    }
}

impl StepContent {
    /// Reads what a step of a kind was given and gave.
    fn of<'a>(attr: impl Fn(&'static str) -> Option<&'a Value>, kind: StepKind) -> Self {
        let json = |key| attr(key).map(JsonText::of);
        let messages = json(names::INPUT_MESSAGES);
        let (tool_args, tool_result) = (json(names::TOOL_ARGUMENTS), json(names::TOOL_RESULT));
        let by_kind_in = || match kind {
            StepKind::Tool => tool_args.clone(),
            StepKind::Retrieval => json(names::RETRIEVAL_QUERY),
            _ => messages.clone(),
        };
        let by_kind_out = || match kind {
            StepKind::Tool => tool_result.clone(),
            StepKind::Retrieval => json(names::RETRIEVAL_DOCUMENTS),
            _ => json(names::OUTPUT_MESSAGES),
        };
        Self {
            input: json(names::INPUT).or_else(by_kind_in),
            output: json(names::OUTPUT).or_else(by_kind_out),
            system_prompt: json(names::SYSTEM_INSTRUCTIONS),
            messages,
            tool_args,
            tool_result,
        }
    }

    /// Keeps what a list of steps shows.
    pub(crate) fn shown(self) -> Self {
        Self { input: self.input, output: self.output, ..Self::default() }
    }
}

/// Tells whether a step of this kind is a model call of its own: what it used was paid for once, here.
pub(crate) fn is_billed(kind: StepKind) -> bool {
    matches!(kind, StepKind::Llm | StepKind::Embedding | StepKind::Rerank)
}

/// Tells whether a text is or has an id that a program makes anew each time, which is no name: a UUID, as long a word of digits, or of
/// digits and letters, and half as long a one as nobody would think of. A name too few is better than one for each run.
pub(super) fn is_made_up(text: &str) -> bool {
    const MIN_LENGTH: usize = 16;
    const MIN_ODD_LENGTH: usize = 8;
    const UUID: [usize; 5] = [8, 4, 4, 4, 12];
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let has_digit = |word: &str| word.bytes().any(|byte| byte.is_ascii_digit());
    let is_uuid = |words: &[&str]| {
        let is_part =
            |(word, length): (&&str, usize)| word.len() == length && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        words.iter().zip(UUID).all(is_part)
    };
    // Hexadecimal, or with large letters and digits among each other.
    let is_mixed = |word: &str| {
        let numbers = word.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty()).count();
        numbers > 1 && word.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    let is_odd = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit()) || is_mixed(word);
    let is_id =
        |word: &&str| has_digit(word) && (word.len() >= MIN_LENGTH || word.len() >= MIN_ODD_LENGTH && is_odd(word));
    let is_number = has_digit(text) && !text.chars().any(char::is_alphabetic);
    is_number || words.iter().any(is_id) || words.windows(UUID.len()).any(is_uuid)
}

/// Reads at which port of this machine a call was made: of one that was passed on, that of the pass-through.
fn local_port<'a>(attr: impl Fn(&'static str) -> Option<&'a Value>) -> Option<u16> {
    let port = |key| {
        let value = attr(key)?;
        value.as_i64().or_else(|| value.as_str()?.parse().ok()).and_then(|port| u16::try_from(port).ok())
    };
    if attr(names::RELAYED).is_some() {
        return port(names::RELAY_PORT);
    }
    let host = attr(names::SERVER_ADDRESS)?.as_str()?;
    let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    port(names::SERVER_PORT).filter(|_| is_local)
}

/// Returns the span's name, filled in where it is a template.
fn name_of<'a>(span: &'a Span, scope: Option<&Scope>) -> &'a str {
    let filled =
        |(name, key): &(&str, &str)| span.attr_str(key).filter(|_| scope.is_some_and(|scope| scope.name == *name));
    TEMPLATE_NAMES.iter().find_map(filled).unwrap_or(&span.name)
}

/// Tells whether a step of a kind, made by this scope, tells what it used itself, and nothing that a step below it tells.
pub(super) fn tells_own_use(scope: &Scope, name: &str, kind: StepKind) -> bool {
    let is_it = |(own, called): &(&str, &str)| scope.name == *own && (called.is_empty() || name == *called);
    kind == StepKind::Agent && OWN_USE.iter().any(is_it)
}

/// Reads the kind: our own word for it, else the standard operation.
pub(crate) fn kind(span: &Span) -> StepKind {
    let own = span.attr_str(names::STEP_KIND).and_then(|word| word.parse().ok());
    own.or_else(|| span.attr_str(names::OPERATION).and_then(standard_kind)).unwrap_or(StepKind::Task)
}

/// Returns the kind that a standard operation stands for.
pub(crate) fn standard_kind(operation: &str) -> Option<StepKind> {
    names::OPERATIONS.iter().find(|(word, _)| *word == operation).map(|(_, kind)| *kind)
}

/// Reads the token counts of a normalized span; `None` when nobody reported any.
pub(super) fn tokens(span: &Span) -> Option<Tokens> {
    tokens_in(|key| span.attr(key))
}

/// No count of tokens is larger: whoever says so is wrong, and sums of such counts would have no room, in metrics above all.
pub(super) const MAX_COUNT: i64 = 1 << 40;

fn tokens_in<'a>(attr: impl Fn(&'static str) -> Option<&'a Value>) -> Option<Tokens> {
    let count = |key| {
        let count = attr(key).and_then(Value::as_i64).filter(|count| *count <= MAX_COUNT);
        count.and_then(|count| u64::try_from(count).ok())
    };
    let tokens = Tokens {
        prompt: count(names::INPUT_TOKENS),
        completion: count(names::OUTPUT_TOKENS),
        total: count(names::TOTAL_TOKENS),
        cache_read: count(names::CACHE_READ_TOKENS),
        cache_write: count(names::CACHE_WRITE_TOKENS),
        reasoning: count(names::REASONING_TOKENS),
    }
    .with_total();
    (!tokens.is_unknown()).then_some(tokens)
}

/// A conversation id alone does not make a span GenAI: browsers and web servers set session ids as well.
/// Nor does making an agent: nothing runs, and frameworks do it long before, in a trace of its own.
fn is_genai(span: &Span) -> bool {
    if span.attr_str(names::OPERATION) == Some(MAKES_AGENT) || span.name.ends_with(COUNTS_TOKENS) {
        return false;
    }
    // What clients and servers of MCP say to each other beside the calls of tools is no run of an agent.
    let is_call = span.attr_str(names::MCP_METHOD).is_none_or(|method| method == "tools/call");
    // Baggage carries names of agents and workflows to what a client of another kind does for them.
    let is_label = || ORDINARY.iter().any(|key| span.attr(key).is_some());
    span.attributes.iter().any(|attribute| match attribute.key.as_str() {
        names::WORKFLOW_NAME => !is_label(),
        key if key.starts_with("gen_ai.agent.") => !is_label(),
        // The run's id says where a span belongs; our layer writes it on every root, an HTTP handler's too.
        names::CONVERSATION_ID => false,
        names::STEP_KIND | names::MCP_METHOD => is_call,
        key if ["gen_ai.prompt.", "gen_ai.tool."].iter().any(|of_mcp| key.starts_with(of_mcp)) => is_call,
        key => key.starts_with("gen_ai."),
    })
}

fn cost_in<'a>(attr: impl Fn(&'static str) -> Option<&'a Value>) -> Option<(NanoUsd, CostSource)> {
    // Nobody is paid for a call.
    let usd = attr(names::COST_USD).and_then(Value::as_f64).filter(|usd| *usd >= 0.0).and_then(NanoUsd::from_usd)?;
    let source = attr(names::COST_SOURCE).and_then(Value::as_str).and_then(|word| word.parse().ok());
    // Our own API gives an amount alone: the program said it.
    Some((usd, source.unwrap_or(CostSource::Reported)))
}

fn deals_with_failure(scope: &Scope, span: &Span) -> bool {
    DEAL_WITH_FAILURES.iter().any(|(start, name)| span.name == *name && scope.name.starts_with(start))
}

/// Tells whether a span of the AI SDK ended for any reason that it knows no other for.
fn ends_in_either<'a>(attr: impl Fn(&'static str) -> Option<&'a Value>, scope: Option<&Scope>) -> bool {
    let is_seven = scope.is_some_and(|scope| VERCEL_OTEL_SCOPES.contains(&scope.name.as_str()));
    let of_seven = || words(attr(names::FINISH_REASONS).filter(|_| is_seven)).into_iter().next();
    let reason = attr("ai.response.finishReason").and_then(Value::as_str).map(str::to_owned).or_else(of_seven);
    reason.is_some_and(|why| NO_REASONS.contains(&why.as_str()))
}

/// Cuts a name, an id or a label to its bound.
pub(crate) fn short(text: String) -> String {
    if text.len() > MAX_NAME { cut_to(&text, MAX_NAME).into_owned() } else { text }
}

fn step_name(name: &str, kind: StepKind) -> String {
    let parts = name
        .split(|c: char| c.is_whitespace() || c.is_control())
        .map(|part| part.chars().filter(|c| is_visible(*c)).take(STEP_NAME_MAX).collect())
        .filter(|part: &String| !part.is_empty())
        .take(STEP_NAME_MAX);
    let name: String = parts.collect::<Vec<_>>().join("-").chars().take(STEP_NAME_MAX).collect();
    if name.is_empty() { kind.as_str().to_owned() } else { name }
}

/// Leaves out what would hide in or reorder a line of text: zero-width and bidirectional marks.
fn is_visible(c: char) -> bool {
    !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Returns a scalar as text; empty text says nothing.
fn text_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Array(_) | Value::KvList(_) | Value::Bytes(_) => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// Reads where in a loop over tools a step stands, of those whose calls tell sums.
fn in_loop(scope: &Scope, kind: StepKind, span: &Span) -> Option<InLoop> {
    let (.., around) =
        RUNNING_SUMS.iter().find(|(name, version, _)| scope.name == *name && scope.version.starts_with(version))?;
    match kind {
        _ if span.attr(around).is_some() => Some(InLoop::Around),
        StepKind::Llm => Some(InLoop::Call),
        _ => None,
    }
}

/// Reads a list of words: a list, a JSON array as text, or one word.
pub(super) fn words(value: Option<&Value>) -> Vec<String> {
    match value.map(Value::to_json) {
        Some(Json::Array(items)) => items
            .into_iter()
            .filter_map(|item| match item {
                Json::String(word) => Some(word),
                Json::Null | Json::Array(_) | Json::Object(_) => None,
                other => Some(other.to_string()),
            })
            .filter(|word| !word.is_empty())
            .take(MAX_WORDS)
            .map(short)
            .collect(),
        Some(Json::String(word)) if !word.is_empty() => vec![short(word)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
