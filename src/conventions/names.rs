//! Canonical attribute names.
//!
//! The `gen_ai.*` names are those of the main branch of `open-telemetry/semantic-conventions-genai`; older names of
//! the same facts are rows in the dialect tables. The constants are our own because the published Rust
//! crate marks all of these as deprecated ("moved") and lacks the newer ones.

use crate::model::StepKind;

/// What the span does: `chat`, `execute_tool`, `invoke_agent`, ...
pub const OPERATION: &str = "gen_ai.operation.name";
/// Who serves the model.
pub const PROVIDER: &str = "gen_ai.provider.name";
/// The model that was asked for.
pub const REQUEST_MODEL: &str = "gen_ai.request.model";
/// The model that answered.
pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
/// The provider's id of the answer.
pub const RESPONSE_ID: &str = "gen_ai.response.id";
/// Why the model stopped, one word a choice.
pub const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
/// How a response that was fetched stood.
pub const RESPONSE_STATUS: &str = "gen_ai.response.status";
/// The conversation: our session.
pub const CONVERSATION_ID: &str = "gen_ai.conversation.id";
/// Name of the agent.
pub const AGENT_NAME: &str = "gen_ai.agent.name";
/// Name of the workflow.
pub const WORKFLOW_NAME: &str = "gen_ai.workflow.name";
/// Name of the tool.
pub const TOOL_NAME: &str = "gen_ai.tool.name";
/// Id of the tool call, as the model gave it.
pub const TOOL_CALL_ID: &str = "gen_ai.tool.call.id";
/// What the tool was given.
pub const TOOL_ARGUMENTS: &str = "gen_ai.tool.call.arguments";
/// What the tool gave back.
pub const TOOL_RESULT: &str = "gen_ai.tool.call.result";
/// What was sent to the model.
pub const INPUT_MESSAGES: &str = "gen_ai.input.messages";
/// What the model sent back.
pub const OUTPUT_MESSAGES: &str = "gen_ai.output.messages";
/// Standing instructions.
pub const SYSTEM_INSTRUCTIONS: &str = "gen_ai.system_instructions";
/// The tools that a model was offered.
pub const TOOL_DEFINITIONS: &str = "gen_ai.tool.definitions";
/// What was looked up.
pub const RETRIEVAL_QUERY: &str = "gen_ai.retrieval.query.text";
/// What was found.
pub const RETRIEVAL_DOCUMENTS: &str = "gen_ai.retrieval.documents";
/// The source that was searched.
pub const DATA_SOURCE_ID: &str = "gen_ai.data_source.id";
/// All input tokens, cached ones included.
pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
/// All output tokens, reasoning included.
pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
/// Part of the input that was read from a cache.
pub const CACHE_READ_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
/// Part of the input that was written to a cache.
pub const CACHE_WRITE_TOKENS: &str = "gen_ai.usage.cache_write.input_tokens";
/// Part of the output that was reasoning.
pub const REASONING_TOKENS: &str = "gen_ai.usage.reasoning.output_tokens";
/// Counts of tokens that a call may tell.
pub const TOKEN_COUNTS: &[&str] =
    &[INPUT_TOKENS, OUTPUT_TOKENS, CACHE_READ_TOKENS, CACHE_WRITE_TOKENS, REASONING_TOKENS, TOTAL_TOKENS];
/// Part of the input that was audio.
pub const AUDIO_INPUT_TOKENS: &str = "gen_ai.usage.audio.input_tokens";
/// Part of the input that was audio and was read from a cache.
pub const AUDIO_CACHE_READ_TOKENS: &str = "gen_ai.usage.audio.cache_read.input_tokens";
/// Part of the output that was audio.
pub const AUDIO_OUTPUT_TOKENS: &str = "gen_ai.usage.audio.output_tokens";
/// Part of what was written to a cache that is kept for an hour; in no standard.
pub const CACHE_WRITE_1H_TOKENS: &str = "runspan.usage.cache_write_1h_tokens";
/// Searches of the web that the provider made for the call; in no standard.
pub const WEB_SEARCHES: &str = "runspan.usage.web_searches";
/// Searches of files that the provider keeps, which it made for the call; in no standard.
pub const STORAGE_SEARCHES: &str = "runspan.usage.storage_searches";
/// Before the name of a unit of the price table: how many of it a call used, where the standard has no name for it.
pub const USAGE_PREFIX: &str = "runspan.usage.";
/// Before a circumstance that the price table knows, its value: `runspan.price.processing` = `batch`.
pub const PRICE_PREFIX: &str = "runspan.price.";
/// The tier that any provider served the call in.
pub const SERVICE_TIER: &str = "runspan.price.service_tier";
/// Input and output together; in no standard, but the only number some emitters give.
pub const TOTAL_TOKENS: &str = "gen_ai.usage.total_tokens";
/// The tier that OpenAI served the call in; it has its own prices.
pub const OPENAI_SERVICE_TIER: &str = "openai.response.service_tier";
/// The tier that OpenAI was asked for.
pub const OPENAI_REQUEST_TIER: &str = "openai.request.service_tier";
/// The tier that any provider was asked for; in no standard.
pub const REQUEST_TIER: &str = "runspan.request.service_tier";
/// Class of the error; absent on success.
pub const ERROR_TYPE: &str = "error.type";
/// What went wrong, for people, where the span's status does not say it.
pub const ERROR_MESSAGE: &str = "error.message";
/// [`ERROR_TYPE`] where nothing better is known.
pub const ERROR_TYPE_OTHER: &str = "_OTHER";
/// The user behind the run.
pub const USER_ID: &str = "user.id";
/// The method of a Model Context Protocol call.
pub const MCP_METHOD: &str = "mcp.method.name";
/// Whether the answer was asked for as a stream.
pub const REQUEST_STREAM: &str = "gen_ai.request.stream";
/// The method of an HTTP request.
pub const HTTP_METHOD: &str = "http.request.method";
/// With which status a request was answered.
pub const HTTP_STATUS_CODE: &str = "http.response.status_code";
/// Host of the server that was called.
pub const SERVER_ADDRESS: &str = "server.address";
/// At which port.
pub const SERVER_PORT: &str = "server.port";

/// Name of the span event that tells an exception.
pub const EVENT_EXCEPTION: &str = "exception";
/// Class of an exception.
pub const EXCEPTION_TYPE: &str = "exception.type";
/// Text of an exception.
pub const EXCEPTION_MESSAGE: &str = "exception.message";
/// Whether the exception left its span.
pub const EXCEPTION_ESCAPED: &str = "exception.escaped";
/// Level of a `tracing` event, as the layer and `tracing-opentelemetry` write it on the span event.
pub const EVENT_LEVEL: &str = "level";
/// Field of a `tracing` event that tells an error.
pub const EVENT_ERROR: &str = "error";

/// Target of a `tracing` event, where it differs from its span's.
pub const EVENT_TARGET: &str = "target";
/// Field of a `tracing` event that names it, as in OTLP logs.
pub const EVENT_NAME: &str = "event.name";
/// Span event: a judgement of quality.
pub const EVENT_EVALUATION: &str = "gen_ai.evaluation.result";
/// Span event of ours: the run or step put something out; `data` holds it.
pub const EVENT_OUTPUT: &str = "runspan.output";
/// Span event of ours: something came in; `tool` says from where, `data` holds it.
pub const EVENT_INPUT: &str = "runspan.input";
/// Span event of ours: the run waits; `reason`, `payload`.
pub const EVENT_WAITING: &str = "runspan.waiting";
/// Span event of ours: the answer came; `input`.
pub const EVENT_RESUMED: &str = "runspan.resumed";
/// Steers a span of ours: it is not over when it is closed, since another process goes on with it. Never an attribute.
pub const LEFT_OPEN: &str = "runspan.left_open";
/// An event's name: the run's status moved, as its own code says.
pub const EVENT_STATUS_CHANGED: &str = "runspan.status_changed";
/// Span event of ours: a file was kept; `name`, `media_type`, `bytes`, `sha256`.
pub const EVENT_ARTIFACT: &str = "runspan.artifact";

/// On an event of a span that came as a record of a log: the span's id.
pub const LOG_OF_SPAN: &str = "runspan.log.span";
/// On a step that was made of a record of a log: the span that the record names has not come.
pub const LOG_FOR_SPAN: &str = "runspan.log.for_span";
/// On such an event: the record's severity as a number, its flags, and when it was seen, in nanoseconds, where that is another
/// time than the event's.
pub const LOG_SEVERITY: &str = "runspan.log.severity_number";
/// See [`LOG_SEVERITY`].
pub const LOG_FLAGS: &str = "runspan.log.flags";
/// See [`LOG_SEVERITY`].
pub const LOG_OBSERVED: &str = "runspan.log.observed_time_unix_nano";
/// Fields of an event that has no fields of its own in `tracing`: a JSON object as text.
pub const EVENT_FIELDS: &str = "runspan.event.fields";

/// Attributes that many emitters give only after the start, and that say what the step is.
pub const TOLD_LATE: &[&str] = &[
    OPERATION,
    PROVIDER,
    "gen_ai.system",
    REQUEST_MODEL,
    AGENT_NAME,
    TOOL_NAME,
    TOOL_CALL_ID,
    TOOL_ARGUMENTS,
    INPUT_MESSAGES,
    CONVERSATION_ID,
    USER_ID,
    INPUT,
];

/// Attributes that tell which step of which run a span is, and under whose.
pub const TELL_WHICH: &[&str] = &[
    OPERATION,
    STEP_KIND,
    PROVIDER,
    REQUEST_MODEL,
    AGENT_NAME,
    WORKFLOW_NAME,
    TOOL_NAME,
    TOOL_CALL_ID,
    DATA_SOURCE_ID,
    MCP_METHOD,
    CONVERSATION_ID,
    USER_ID,
    TAGS,
    EXTERNAL_ID,
    RUN_ID,
    PARENT_RUN_ID,
    REPLAY_OF,
    STORE_ID,
];

/// Attributes that tell how a step ended and what it used.
pub const TELL_OUTCOME: &[&str] = &[
    RELAYED,
    RELAY_PORT,
    SERVER_ADDRESS,
    SERVER_PORT,
    RESPONSE_MODEL,
    RESPONSE_ID,
    FINISH_REASONS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    CACHE_READ_TOKENS,
    CACHE_WRITE_TOKENS,
    REASONING_TOKENS,
    AUDIO_INPUT_TOKENS,
    AUDIO_CACHE_READ_TOKENS,
    AUDIO_OUTPUT_TOKENS,
    CACHE_WRITE_1H_TOKENS,
    WEB_SEARCHES,
    STORAGE_SEARCHES,
    TOTAL_TOKENS,
    ERROR_TYPE,
    STEP_STATUS,
    COST_USD,
    COST_SOURCE,
    COST_TABLE,
    USAGE_BASIS,
];

/// Attributes that tell what went into a step.
pub const TELL_INPUT: &[&str] = &[INPUT, INPUT_MESSAGES, TOOL_ARGUMENTS, RETRIEVAL_QUERY];

/// Attributes that hold what went into a step and what came out of it.
pub const TELL_CONTENT: &[&str] = &[
    SYSTEM_INSTRUCTIONS,
    INPUT_MESSAGES,
    OUTPUT_MESSAGES,
    TOOL_ARGUMENTS,
    TOOL_RESULT,
    RETRIEVAL_QUERY,
    RETRIEVAL_DOCUMENTS,
    INPUT,
    OUTPUT,
];

/// The run that a span or a whole process belongs to.
pub const RUN_ID: &str = "runspan.run.id";
/// The run that started it.
pub const PARENT_RUN_ID: &str = "runspan.parent_run.id";
/// The run that it repeats.
pub const REPLAY_OF: &str = "runspan.replayed_run.id";
/// The store that a local process writes to.
pub const STORE_ID: &str = "runspan.store.id";
/// The kind of a step, where [`OPERATION`] has no word for it; a word of [`StepKind`].
pub const STEP_KIND: &str = "runspan.step.kind";
/// How a step ended, where the OTLP status cannot say it; a word of [`StepStatus`](crate::model::StepStatus).
pub const STEP_STATUS: &str = "runspan.step.status";
/// The target of the `tracing` spans of steps by hand and by attribute, which are over when they are told their status.
pub const STEP_TARGET: &str = "runspan";
/// Free labels: a JSON array as text.
pub const TAGS: &str = "runspan.tags";
/// A foreign system's own id of the run.
pub const EXTERNAL_ID: &str = "runspan.external.id";
/// What went into a step that is neither a model call nor a tool call.
pub const INPUT: &str = "runspan.input";
/// What came out of it.
pub const OUTPUT: &str = "runspan.output";
/// What a step cost in US dollars, a double.
pub const COST_USD: &str = "runspan.cost.usd";
/// Where the cost comes from; a word of [`CostSource`](crate::model::CostSource).
pub const COST_SOURCE: &str = "runspan.cost.source";
/// The price table behind a computed cost: `genai-prices 0.2.1 openai/gpt-4o-mini`.
pub const COST_TABLE: &str = "runspan.cost.table";
/// How the emitter counted input tokens: `inclusive` (of cached ones), `exclusive`, or `assumed` inclusive.
pub const USAGE_BASIS: &str = "runspan.usage.basis";
/// A boolean: only the total had all that went in, and how much of it was cached is not known, nor is what that cost.
pub const USAGE_OF_TOTAL: &str = "runspan.usage.of_total";
/// Before a key: the value that stood under it before normalisation.
pub const ORIGINAL_PREFIX: &str = "runspan.original.";
/// The keys that normalisation and pricing added, as a list, so that the original can be given back.
pub const ADDED: &str = "runspan.added";
/// In [`ADDED`]: the span had no status, and has one of ours.
pub const ADDED_STATUS: &str = "otel.status";
/// In [`ADDED`]: the span had a status that said neither, and it says error.
pub const ADDED_STATUS_CODE: &str = "otel.status_code";
/// In [`ADDED`]: the reason for a failure is what a model or a tool said, and goes where that does.
pub const ADDED_REASON_OF_CONTENT: &str = "error.message.of_content";

/// The call was told by who passed it on, and not by who made it; a boolean.
pub const RELAYED: &str = "runspan.relayed";
/// The port of this machine at which who passed the call on was asked; an integer.
pub const RELAY_PORT: &str = "runspan.relay.port";
/// The scope of what `exec` tells of the command that it runs.
pub const SCOPE_EXEC: &str = "runspan.exec";

/// Type of the error of a run that took more than its budget.
pub const BUDGET_EXCEEDED: &str = "budget_exceeded";
/// What the topmost step of a run says that it may take, as [`Budget`](crate::model::budget::Budget) is written: JSON as text.
pub const BUDGET: &str = "runspan.budget";
/// Event of a run that may take something else from here on: [`BUDGET`] says what.
pub const EVENT_BUDGET: &str = "runspan.budget_changed";
/// Event of a run with a budget in dollars of which a call has no price, the first time: [`REQUEST_MODEL`] says whose.
pub const EVENT_UNPRICED: &str = "runspan.budget_unpriced";
/// On the span of a run that failed: the span of the step to look at, in hex.
pub const ERROR_SPAN: &str = "runspan.error.span_id";
/// How a command was called: a list.
pub const COMMAND_ARGS: &str = "process.command_args";
/// Where it was called.
pub const WORKING_DIRECTORY: &str = "process.working_directory";
/// The environment of a command, as far as it is kept: a JSON object as text.
pub const ENVIRONMENT: &str = "runspan.environment";
/// What a command reads from: `terminal`, `file`, `pipe`, `null`, `closed`.
pub const STDIN: &str = "runspan.stdin";
/// What the id of an answer begins with that was given from a recording: nobody billed it.
pub const REPLAYED_ANSWER: &str = "replayed-";
/// The vectors of an embedding, as the service sent them: a JSON array as text.
pub const EMBEDDINGS: &str = "runspan.embeddings";

/// The shape that a request asks for in its answer: JSON as text.
pub const RESPONSE_FORMAT: &str = "runspan.request.response_format";
/// Which tools a request lets or has the model call: JSON as text.
pub const TOOL_CHOICE: &str = "runspan.request.tool_choice";

/// What the library cut because it was over a bound.
pub const CUT: &str = "runspan.cut";
/// Its value on a span of a run that has reached its bound.
pub const CUT_RUN: &str = "run";
/// That a span's times cannot be right: it ends before it starts, has no start, or starts after it came.
pub const CLOCK_SKEW: &str = "runspan.clock_skew";

/// The words of [`OPERATION`] that stand for a kind of step. Other standard operations (`plan`, `create_agent`,
/// `fetch_response`, the memory operations) are tasks. The first word of a kind is the one written for it.
pub const OPERATIONS: &[(&str, StepKind)] = &[
    ("chat", StepKind::Llm),
    ("generate_content", StepKind::Llm),
    ("text_completion", StepKind::Llm),
    ("execute_tool", StepKind::Tool),
    ("invoke_agent", StepKind::Agent),
    ("invoke_workflow", StepKind::Workflow),
    ("retrieval", StepKind::Retrieval),
    ("embeddings", StepKind::Embedding),
];
