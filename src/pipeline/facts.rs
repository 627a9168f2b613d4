//! What a normalized span says, as plain fields: the input of run assembly.
//!
//! Reads canonical attributes only, so it works on a span on its way to the journal and on one read back from disk
//! alike, whatever dialect it was written in.

mod marks;

pub use marks::{Marks, says_more};

use std::net::IpAddr;

use crate::conventions::dialects::{
    ALWAYS_WELL, CLIENTS, COUNTS_TOKENS, DEAL_WITH_FAILURES, ENDS_AGENT, HANDSHAKES, NO_ANSWERS, NO_REASONS, ORDINARY,
    OWN_USE, RUNNING_SUMS, TEMPLATE_NAMES, VERCEL_OTEL_SCOPES,
};
use crate::conventions::names;
use crate::model::budget::Budget;
use crate::model::id::is_foreign_run_id;
use crate::model::json_text::JsonText;
use crate::model::key_filter::KeyFilter;
use crate::model::otlp::{Resource, Scope, Span, SpanEvent, Value};
use crate::model::{CostSource, ErrorInfo, NanoUsd, RunId, SpanId, StepKind, StepStatus, Tokens, TraceId};
use crate::sources::encode::cut_to;
use serde_json::Value as Json;

/// Longest readable name of a step, in characters.
const STEP_NAME_MAX: usize = 80;
/// Longest name, id, label or class of an error, in bytes. The span itself has all of it.
const MAX_NAME: usize = 1 << 10;
/// Longest message of an error, in bytes.
const MAX_MESSAGE: usize = 4 << 10;
/// Labels of a run, and words of any other list.
pub(crate) const MAX_WORDS: usize = 64;

/// Classes of errors that say nothing of what happened: Python's and JavaScript's for any. So is a number, the status of an answer.
const ANY_ERROR: &[&str] = &["Exception", "Error"];
/// What such a one says where the program stopped reading, word for word: the clients of OpenAI and Anthropic, `fetch`, and
/// OpenTelemetry's instrumentations of them.
const STOPPED: &[&str] = &["request was aborted", "request aborted", "operation was aborted", "abandoned stream"];
/// The same, whole, behind a number and a word for it.
///
/// Source: Genkit 1.42, of a signal that its caller gave.
const ABORTED: &[&str] = &["request was aborted", "request aborted", "request aborted when reading from the stream"];
/// What the errors of Go's contexts say, alone or behind what was done when one of them ended, and how the work ended then.
///
/// Source: `context.Canceled` and `context.DeadlineExceeded` of Go's library.
const ENDS_OF_CONTEXTS: &[(&str, StepStatus)] =
    &[("context canceled", StepStatus::Cancelled), ("context deadline exceeded", StepStatus::Timeout)];
/// Classes of Go's library for any error, and for one with another one in it.
const ANY_ERROR_OF_GO: &[&str] = &["*errors.errorString", "*fmt.wrapError", "*url.Error"];
/// What JavaScript prints of an error of any class before its message, in small letters.
const PRINTED: &str = "error: ";

/// [`Status::code`](crate::model::otlp::Status::code) of a span that its author declared to have gone well.
const STATUS_OK: i32 = 1;

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
    /// Whether it is a tool of such an instrumentation that says that its failure ended the agent ([`ENDS_AGENT`]).
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
            session_id: inherited(names::CONVERSATION_ID),
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

/// Tells whether a tool says that its failure ended the agent, and not that a model was told of it.
fn ends_agent(span: &Span) -> bool {
    let (ends, goes_on) = ENDS_AGENT;
    let own = error(span).message;
    let texts = [span.status.as_ref().map(|status| status.message.as_str()), own.as_deref()];
    let says = |word: &str| texts.iter().flatten().any(|text| text.contains(word));
    says(ends) && !says(goes_on)
}

fn failed(status: StepStatus) -> bool {
    !matches!(status, StepStatus::Running | StepStatus::Success)
}

/// What our own code wrote wins; an open span runs; then what the emitter says by status, error type and events.
pub(super) fn status(span: &Span) -> StepStatus {
    if let Some(word) = span.attr_str(names::STEP_STATUS).and_then(|word| word.parse().ok()) {
        return match word {
            StepStatus::Error => class_of_failure(span),
            StepStatus::Running if span.end_time_unix_nano != 0 => StepStatus::Success,
            word => word,
        };
    }
    if span.end_time_unix_nano == 0 {
        return StepStatus::Running;
    }
    let declared_ok = span.status.as_ref().is_some_and(|status| status.code == STATUS_OK);
    let told_by_event = || span.events.iter().any(tells_error) && !has_handled(span);
    if span.is_error() || !declared_ok && (span.attr(names::ERROR_TYPE).is_some() || told_by_event()) {
        return class_of_failure(span);
    }
    StepStatus::Success
}

/// Tells whether a span whose status is not set went on behind the exceptions that were recorded in it, which are all that speaks of a
/// failure: it has an answer, whole, or it is a root that is no call by itself, whose maker would have set a status.
///
/// OpenTelemetry's `record_exception` alone is how a program tells of an exception that it has handled. Where a step has nothing
/// more, that is how some instrumentations tell that it failed.
fn has_handled(span: &Span) -> bool {
    let is_escaped = |event: &SpanEvent| match event.attr(names::EXCEPTION_ESCAPED) {
        Some(Value::Bool(flag)) => *flag,
        flag => flag.and_then(Value::as_str).is_some_and(|flag| flag.eq_ignore_ascii_case("true")),
    };
    let was_recorded = |event: &SpanEvent| event.name == names::EVENT_EXCEPTION && !is_escaped(event);
    if !span.events.iter().filter(|event| tells_error(event)).all(was_recorded) {
        return false;
    }
    let is_root = || span.parent_span_id.is_empty() && !is_billed(kind(span)) && kind(span) != StepKind::Tool;
    let says = |key: &&str| span.attr(key).is_some_and(|value| !matches!(value.as_str(), Some("" | "null" | "[]")));
    // A stream that broke off has output, too, and no reason to end.
    let has_answer = || match kind(span) {
        StepKind::Llm => says(&names::FINISH_REASONS),
        _ => ANSWER.iter().any(says),
    };
    is_root() || has_answer()
}

/// Where a step has what it gave.
const ANSWER: &[&str] = &[names::OUTPUT_MESSAGES, names::OUTPUT, names::TOOL_RESULT, names::RETRIEVAL_DOCUMENTS];

fn tells_error(event: &SpanEvent) -> bool {
    let at_error_level =
        event.attr(names::EVENT_LEVEL).and_then(Value::as_str).is_some_and(|level| level.eq_ignore_ascii_case("error"));
    event.name == names::EVENT_EXCEPTION
        || (at_error_level
            && (event.attr(names::EVENT_ERROR).is_some() || event.attr(names::EXCEPTION_MESSAGE).is_some()))
}

/// Distinguishes timeouts and cancellations by the error's class, and by its text only where no class is given. Of a class that any
/// error may have, one that begins the message counts. Whoever stops reading a stream cancels it.
pub(super) fn class_of_failure(span: &Span) -> StepStatus {
    let error = error(span);
    if let Some(status) = end_of_context(&error) {
        return status;
    }
    let lower = |text: &str| text.to_ascii_lowercase();
    let message = lower(error.message.as_deref().unwrap_or_default());
    let message = message.strip_prefix(PRINTED).unwrap_or(&message);
    let is_number = |kind: &str| !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_digit());
    let is_numbered = error.kind.as_deref().is_some_and(is_number);
    let is_any = is_numbered || error.kind.as_deref().is_some_and(|kind| ANY_ERROR.contains(&kind));
    let class = match error.kind.as_deref().filter(|kind| *kind != names::ERROR_TYPE_OTHER) {
        Some(_) if is_any => {
            let end = message.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.')));
            let (class, behind) = message.split_at(end.unwrap_or(message.len()));
            // A single word is one, too: `Cancelled`.
            if behind.is_empty() || behind.starts_with(['(', ':']) { class.to_owned() } else { String::new() }
        }
        Some(kind) => lower(kind),
        None => message.to_owned(),
    };
    let says = |words: &[&str]| words.iter().any(|word| class.contains(word));
    let has_stopped = class == message || is_any;
    // A number may be that of a server that failed: then nothing else is said.
    let said = message.split_once(": ").map_or(message, |(_, said)| said).trim_end_matches('.');
    // By a person at the keyboard, as Python has it, or by the signal for that.
    let was_interrupted = says(&["keyboardinterrupt"]) || class == "sigint";
    let was_stopped = match is_numbered {
        true => ABORTED.contains(&said),
        false => has_stopped && STOPPED.iter().any(|words| message.contains(words)),
    };
    if says(&["timeout", "timed out", "timedout", "timed_out", "deadline"]) {
        StepStatus::Timeout
    } else if was_stopped
        || was_interrupted
        || (!is_numbered && (says(&["cancel", "generatorexit", "aborterror"]) || class == "abort"))
    {
        StepStatus::Cancelled
    } else {
        StepStatus::Error
    }
}

/// Reads how work ended out of an error of Go's that says of its context that this is over: such errors have no class of their own.
fn end_of_context(error: &ErrorInfo) -> Option<StepStatus> {
    let is_any = |kind: &str| kind == names::ERROR_TYPE_OTHER || ANY_ERROR_OF_GO.contains(&kind);
    let message = error.message.as_deref().filter(|_| error.kind.as_deref().is_none_or(is_any))?;
    let says =
        |words: &str| message.strip_suffix(words).is_some_and(|before| before.is_empty() || before.ends_with(": "));
    ENDS_OF_CONTEXTS.iter().find(|(words, _)| says(words)).map(|(_, status)| *status)
}

pub(super) fn error(span: &Span) -> ErrorInfo {
    // The last event is the one that ended the span; earlier ones may have been handled.
    let event = span.events.iter().rev().find(|event| tells_error(event));
    let told = |key| event.and_then(|event| event.attr(key)).and_then(text_of);
    let status_message = span.status.as_ref().map(|status| status.message.clone()).filter(|text| !text.is_empty());
    // What Python prints of a class.
    let class = |text: String| match text.strip_prefix("<class '").and_then(|rest| rest.strip_suffix("'>")) {
        Some(name) => name.to_owned(),
        None => text,
    };
    let kind = span.attr(names::ERROR_TYPE).and_then(text_of).or_else(|| told(names::EXCEPTION_TYPE)).map(class);
    let message = status_message
        .or_else(|| told(names::EXCEPTION_MESSAGE))
        .or_else(|| told(names::EVENT_ERROR))
        .or_else(|| span.attr(names::ERROR_MESSAGE).and_then(text_of));
    match message.as_deref().and_then(before_stack) {
        Some((own, message)) => ErrorInfo {
            kind: Some(kind.filter(|kind| kind != names::ERROR_TYPE_OTHER).unwrap_or_else(|| own.to_owned())),
            message: Some(message.to_owned()).filter(|text| !text.is_empty()),
            step_id: None,
        },
        None => ErrorInfo { kind, message, step_id: None },
    }
}

/// Takes a message apart that has what JavaScript prints of its error behind it: class and message. What stands in the places of
/// the stack says nothing of the error.
///
/// Source: `@langchain/core` 1.4 `tracers/base.ts`, which joins both by an empty line; OpenInference passes it on.
fn before_stack(text: &str) -> Option<(&str, &str)> {
    let is_of_class = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.');
    /// Of a longer text nobody looks for what it repeats.
    const MAX_BYTES: usize = 4 * MAX_MESSAGE;
    let (said, _) = text.split_once("\n    at ").filter(|(said, _)| said.len() <= MAX_BYTES)?;
    let is_class = |word: &str| !word.is_empty() && word.chars().all(is_of_class);
    let behind_message = said.match_indices("\n\n").find_map(|(at, gap)| {
        let (message, printed) = (&text[..at], &text[at + gap.len()..]);
        let (class, behind) = printed.split_at(printed.find(|c| !is_of_class(c))?);
        let rest = behind.strip_prefix(": ").map_or(Some(behind), |said| said.strip_prefix(message))?;
        let is_told = is_class(class) && (behind.starts_with(": ") || message.is_empty());
        (is_told && rest.starts_with("\n    at ")).then_some((class, message))
    });
    // The print alone.
    let printed = || match said.split_once(": ") {
        Some((class, message)) if is_class(class) && class.ends_with("Error") => Some((class, message)),
        _ => is_class(said).then_some((said, "")),
    };
    behind_message.or_else(printed)
}

/// Cuts a name, an id or a label to its bound.
pub(crate) fn short(text: String) -> String {
    if text.len() > MAX_NAME { cut_to(&text, MAX_NAME).into_owned() } else { text }
}

fn bounded(error: ErrorInfo) -> ErrorInfo {
    let message = error.message.map(|text| cut_to(&text, MAX_MESSAGE).into_owned());
    ErrorInfo { kind: error.kind.map(short), message, ..error }
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

/// Reads a list of words: a list, a JSON array as text, or one word.
fn in_loop(scope: &Scope, kind: StepKind, span: &Span) -> Option<InLoop> {
    let (.., around) =
        RUNNING_SUMS.iter().find(|(name, version, _)| scope.name == *name && scope.version.starts_with(version))?;
    match kind {
        _ if span.attr(around).is_some() => Some(InLoop::Around),
        StepKind::Llm => Some(InLoop::Call),
        _ => None,
    }
}

fn words(value: Option<&Value>) -> Vec<String> {
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
mod tests {
    use super::*;
    use crate::model::otlp::{KeyValue, Status};
    use serde_json::json;

    fn span(attributes: &[(&str, Value)]) -> Span {
        let attributes = attributes
            .iter()
            .map(|(key, value)| KeyValue { key: (*key).into(), value: Some(value.clone().into()) })
            .collect();
        Span { name: "work".into(), end_time_unix_nano: 2, attributes, ..Span::default() }
    }

    fn event(name: &str, attributes: &[(&str, Value)]) -> SpanEvent {
        SpanEvent { name: name.into(), attributes: span(attributes).attributes, ..SpanEvent::default() }
    }

    fn outcome(span: &Span) -> (StepStatus, Option<ErrorInfo>) {
        let facts = StepFacts::of(span, None, None);
        (facts.status, facts.error)
    }

    fn told(kind: &str, message: Option<&str>) -> Option<ErrorInfo> {
        Some(ErrorInfo { kind: Some(kind.into()), message: message.map(Into::into), step_id: None })
    }

    #[test]
    fn the_port_of_this_machine_is_known_of_who_asked_there_and_of_who_passed_on() {
        let port = |attributes: &[(&str, Value)]| {
            let mut span = Span::default();
            attributes.iter().for_each(|(key, value)| span.set_attr(key, value.clone()));
            StepFacts::of(&span, None, None).local_port
        };
        let at = |host: &str, port| [(names::SERVER_ADDRESS, host.into()), (names::SERVER_PORT, port)];
        for host in ["127.0.0.1", "localhost", "::1"] {
            assert_eq!(port(&at(host, Value::Int(36911))), Some(36911), "{host}");
        }
        assert_eq!(port(&at("127.0.0.1", "36911".into())), Some(36911));
        assert_eq!(port(&at("api.openai.com", Value::Int(443))), None);
        assert_eq!(port(&at("127.0.0.1", Value::Int(70_000))), None);
        // Whom it was passed on to may be on this machine as well.
        let relayed = [&at("127.0.0.1", Value::Int(11434))[..], &[(names::RELAYED, Value::Bool(true))]].concat();
        assert_eq!(port(&relayed), None);
        let relayed = [&relayed[..], &[(names::RELAY_PORT, Value::Int(36911))]].concat();
        assert_eq!(port(&relayed), Some(36911));
    }

    #[test]
    fn a_model_call_gives_all_its_facts() {
        let span = span(&[
            (names::OPERATION, "chat".into()),
            (names::PROVIDER, "openai".into()),
            (names::REQUEST_MODEL, "gpt-4o-mini".into()),
            (names::RESPONSE_MODEL, "gpt-4o-mini-2024-07-18".into()),
            (names::RESPONSE_ID, "resp-1".into()),
            (names::FINISH_REASONS, r#"["stop"]"#.into()),
            (names::AGENT_NAME, "weather".into()),
            (names::CONVERSATION_ID, Value::Int(7)),
            (names::INPUT_TOKENS, Value::Int(211)),
            (names::OUTPUT_TOKENS, Value::Int(37)),
            (names::CACHE_READ_TOKENS, Value::Int(0)),
            (names::COST_USD, Value::Double(0.000_049_05)),
            (names::COST_SOURCE, "computed".into()),
            (names::SYSTEM_INSTRUCTIONS, r#"[{"type":"text","content":"Be brief."}]"#.into()),
            (names::INPUT_MESSAGES, r#"[{"role":"user","parts":[]}]"#.into()),
            (names::OUTPUT_MESSAGES, "not JSON".into()),
            (names::TAGS, r#"["a","b"]"#.into()),
        ]);
        let resource = Resource {
            attributes: vec![
                KeyValue { key: names::RUN_ID.into(), value: Some(Value::from("01KE9BZH80BGEY5ABZ7D0DHDQ1").into()) },
                KeyValue { key: names::USER_ID.into(), value: Some(Value::from("user-42").into()) },
            ],
            ..Resource::default()
        };
        let facts = StepFacts::of(&span, Some(&resource), None);
        assert_eq!(facts.model(), Some("gpt-4o-mini-2024-07-18"));
        assert_eq!(
            facts,
            StepFacts {
                kind: StepKind::Llm,
                is_genai: true,
                name: "work".into(),
                step_name: "chat".into(),
                agent_name: Some("weather".into()),
                agent_id: Some("weather".into()),
                makes_agent: false,
                workflow_name: None,
                tool_name: None,
                tool_call_id: None,
                is_at_wire: false,
                is_client: false,
                is_of_client: false,
                is_always_well: false,
                ends_in_either: false,
                ends_agent: false,
                deals_with_failure: false,
                is_declared_well: false,
                is_handshake: false,
                is_experiment: false,
                is_command: false,
                tells_own_use: false,
                marks: Some(Box::new(Marks {
                    input: Some(crc32c::crc32c(br#"[{"role":"user","parts":[]}]"#)),
                    ..Marks::default()
                })),
                in_loop: None,
                told: None,
                is_relayed: false,
                local_port: None,
                provider: Some("openai".into()),
                request_model: Some("gpt-4o-mini".into()),
                response_model: Some("gpt-4o-mini-2024-07-18".into()),
                session_id: Some("7".into()),
                user_id: Some("user-42".into()),
                external_id: None,
                tags: vec!["a".into(), "b".into()],
                run_id: "01KE9BZH80BGEY5ABZ7D0DHDQ1".parse().ok(),
                names_run: false,
                parent_run_id: None,
                replay_of: None,
                budget: None,
                tokens: Some(Tokens {
                    prompt: Some(211),
                    completion: Some(37),
                    total: Some(248),
                    cache_read: Some(0),
                    cache_write: None,
                    reasoning: None,
                }),
                cost: Some((NanoUsd(49_050), CostSource::Computed)),
                billed: true,
                status: StepStatus::Success,
                error: None,
                error_span: None,
                response_id: Some("resp-1".into()),
                finish_reasons: vec!["stop".into()],
                content: Box::new(StepContent {
                    input: Some(json!([{"role": "user", "parts": []}]).into()),
                    output: Some(json!("not JSON").into()),
                    system_prompt: Some(json!([{"type": "text", "content": "Be brief."}]).into()),
                    messages: Some(json!([{"role": "user", "parts": []}]).into()),
                    tool_args: None,
                    tool_result: None,
                }),
            }
        );
    }

    #[test]
    fn a_plain_span_is_a_task_and_says_nothing() {
        let mut open = span(&[(names::CONVERSATION_ID, "s".into()), ("http.route", "/".into())]);
        open.end_time_unix_nano = 0;
        let facts = StepFacts::of(&open, None, None);
        assert_eq!(
            (facts.kind, facts.is_genai, facts.billed, facts.tokens, facts.cost, facts.status),
            (StepKind::Task, false, false, None, None, StepStatus::Running)
        );
        assert_eq!(facts.session_id.as_deref(), Some("s"));
    }

    #[test]
    fn status_is_read_from_status_error_type_events_and_our_own_word() {
        let plain = span(&[]);
        assert_eq!(outcome(&plain), (StepStatus::Success, None));

        let mut by_status = span(&[(names::ERROR_TYPE, "RateLimitError".into())]);
        by_status.status = Some(Status { code: 2, message: "slow down".into() });
        assert_eq!(outcome(&by_status), (StepStatus::Error, told("RateLimitError", Some("slow down"))));

        for (class, status) in [
            ("APITimeoutError", StepStatus::Timeout),
            ("DEADLINE_EXCEEDED", StepStatus::Timeout),
            ("asyncio.exceptions.CancelledError", StepStatus::Cancelled),
            ("KeyboardInterrupt", StepStatus::Cancelled),
            ("SIGINT", StepStatus::Cancelled),
            ("DesignInterfaceError", StepStatus::Error),
            ("_OTHER", StepStatus::Error),
        ] {
            assert_eq!(outcome(&span(&[(names::ERROR_TYPE, class.into())])), (status, told(class, None)));
        }

        let mut by_exception = span(&[]);
        by_exception.parent_span_id = vec![1; 8];
        by_exception.events = vec![event(
            "exception",
            &[(names::EXCEPTION_TYPE, "RuntimeError".into()), (names::EXCEPTION_MESSAGE, "service down".into())],
        )];
        assert_eq!(outcome(&by_exception), (StepStatus::Error, told("RuntimeError", Some("service down"))));
        // Whoever set OK had seen the exception and dealt with it.
        by_exception.status = Some(Status { code: 1, message: String::new() });
        assert_eq!(outcome(&by_exception), (StepStatus::Success, None));
        by_exception.set_attr(names::ERROR_TYPE, "RuntimeError");
        assert_eq!(outcome(&by_exception), (StepStatus::Success, None));

        let mut by_event = span(&[]);
        by_event.events = vec![event("failed", &[("level", "ERROR".into()), ("error", "disk full".into())])];
        let said = ErrorInfo { message: Some("disk full".into()), ..ErrorInfo::default() };
        assert_eq!(outcome(&by_event), (StepStatus::Error, Some(said)));
        by_event.events = vec![event("failed", &[("level", "ERROR".into())])];
        assert_eq!(outcome(&by_event), (StepStatus::Success, None));

        let mut own = span(&[(names::STEP_STATUS, "crashed".into())]);
        own.end_time_unix_nano = 0;
        assert_eq!(outcome(&own), (StepStatus::Crashed, Some(ErrorInfo::default())));
    }

    #[test]
    fn a_recorded_exception_alone_is_no_failure_of_what_went_on_behind_it() {
        let status = |parent: u8, list: &[(&str, Value)], of_exception: &[(&str, Value)]| {
            let mut span = span(list);
            span.parent_span_id = vec![parent; usize::from(parent) * 8];
            span.events = vec![event("exception", of_exception)];
            outcome(&span).0
        };
        let (chat, tool) = ([(names::OPERATION, "chat".into())], [(names::OPERATION, "execute_tool".into())]);
        let with = |own: &[(&'static str, Value)], key: &'static str, value: Value| [own, &[(key, value)]].concat();
        // A root would say by its status that it failed; a step tells so by nothing else.
        assert_eq!(status(0, &[], &[]), StepStatus::Success);
        assert_eq!(status(0, &[], &[("exception.escaped", "True".into())]), StepStatus::Error);
        let wrote_nothing = with(&chat, names::OUTPUT_TOKENS, Value::Int(0));
        // A stream that broke off has written something.
        let wrote = with(&chat, names::OUTPUT_MESSAGES, r#"[{"role":"assistant"}]"#.into());
        for list in [&[][..], &chat, &tool, &wrote_nothing, &wrote] {
            assert_eq!(status(1, list, &[]), StepStatus::Error);
        }
        assert_eq!((status(0, &chat, &[]), status(0, &tool, &[])), (StepStatus::Error, StepStatus::Error));
        for list in
            [with(&chat, names::FINISH_REASONS, r#"["stop"]"#.into()), with(&tool, names::TOOL_RESULT, "sunny".into())]
        {
            assert_eq!(status(1, &list, &[]), StepStatus::Success);
        }
    }

    #[test]
    fn step_names_are_short_single_words() {
        let long = "x".repeat(100);
        for (name, expected) in [
            ("get weather\n now", "get-weather-now"),
            ("\u{202e}evil\u{1b}[31m", "evil-[31m"),
            ("  \t", "task"),
            (long.as_str(), &long[..80]),
        ] {
            assert_eq!(step_name(name, StepKind::Task), expected);
        }
        let tool = span(&[(names::OPERATION, "execute_tool".into()), (names::TOOL_NAME, "get_weather".into())]);
        assert_eq!(StepFacts::of(&tool, None, None).step_name, "get_weather");
        let guardrail = span(&[(names::STEP_KIND, "guardrail".into())]);
        assert_eq!(StepFacts::of(&guardrail, None, None).step_name, "work");
    }

    #[test]
    fn nobody_is_paid_for_a_call() {
        let cost = |usd: f64| StepFacts::of(&span(&[(names::COST_USD, usd.into())]), None, None).cost;
        assert_eq!((cost(-1.0), cost(f64::NAN)), (None, None));
        assert_eq!(cost(0.5), Some((NanoUsd(500_000_000), CostSource::Reported)));
    }

    #[test]
    fn a_client_is_known_by_the_kind_of_its_span_or_by_who_made_it() {
        let is_client = |kind: i32, scope: &str| {
            let scope = Scope { name: scope.to_owned(), ..Scope::default() };
            let span = Span { kind, ..span(&[(names::OPERATION, "chat".into())]) };
            StepFacts::of(&span, None, Some(&scope)).is_client
        };
        assert!(is_client(SPAN_KIND_CLIENT, "any"));
        assert!(is_client(1, "openinference.instrumentation.openai"));
        assert!(!is_client(1, "openinference.instrumentation.openai_agents"));
        assert!(!is_client(1, "openinference.instrumentation.langchain"));
    }

    #[test]
    fn what_is_said_too_much_is_cut_with_a_mark_and_never_again() {
        let long = "€\u{1}".repeat(1 << 18);
        let tags = serde_json::Value::from(vec![long.as_str(); 100]).to_string();
        let mut span = span(&[
            (names::OPERATION, "execute_tool".into()),
            (names::TOOL_NAME, long.as_str().into()),
            (names::CONVERSATION_ID, long.as_str().into()),
            (names::TAGS, tags.into()),
            (names::ERROR_TYPE, format!("{long}Timeout").into()),
        ]);
        span.status = Some(Status { code: 2, message: long.clone() });
        let facts = StepFacts::of(&span, None, None);
        let session = facts.session_id.unwrap();
        // With two bytes more it would end within a character.
        assert!(session == format!("{}[cut:1047580]", "€\u{1}".repeat(249)));
        assert_eq!(short(session.clone()), session);
        assert_eq!((facts.tool_name.as_ref(), facts.tags), (Some(&session), vec![session.clone(); 64]));
        assert_eq!(facts.step_name, "€-".repeat(40));
        let error = facts.error.unwrap();
        // The whole text was looked at for what sort of failure it was.
        assert_eq!((facts.status, error.kind.unwrap().len()), (StepStatus::Timeout, session.len()));
        assert!(error.message.unwrap() == format!("{}[cut:1044508]", "€\u{1}".repeat(1017)));
        span.name = "x".repeat(1024);
        assert_eq!(StepFacts::of(&span, None, None).name, span.name);
    }

    #[test]
    fn numbers_below_zero_are_not_counts() {
        let span = span(&[(names::INPUT_TOKENS, Value::Int(-1)), (names::OUTPUT_TOKENS, "many".into())]);
        assert_eq!(StepFacts::of(&span, None, None).tokens, None);
    }
}
