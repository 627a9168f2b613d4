//! OpenInference's words, and instrumentations that tell something else in them than the rest.

use super::Shape::{Answer, Count, Model, Provider, Session, Text, Words};
use super::Source::{Behind, Fixed, Indexed, Json, Key, Method, Name, Quoted, Unlike, Where};
use super::langchain::{
    LANGCHAIN_ID, LANGCHAIN_MESSAGE_ID, LANGCHAIN_MODEL, LANGCHAIN_REPORTED, LANGCHAIN_THOUGHT, LANGCHAIN_TIER,
    LANGCHAIN_USAGE,
};
use super::{
    ALL_INCLUSIVE, AS_REPORTED, Basis, BasisRow, COUNTS_TOKENS, Detect, Dialect, Outcome, PLAIN, SPAN_NAME, Side,
    Source, Test, Untold, content, kind, row,
};
use crate::conventions::names;
use crate::model::{StepKind, StepStatus};

/// OpenInference (Arize): its own names for everything, flattened lists.
///
/// Source: `Arize-ai/openinference` spec/semantic_conventions.md and spec/llm_spans.md.
pub const OPENINFERENCE: Dialect = Dialect {
    name: "openinference",
    detect: &[Detect::Key("openinference.span.kind")],
    facts: &[
        // LangChain's own word for it is last, which is all that there is of it in JavaScript.
        row(names::PROVIDER, &[Key("llm.provider"), Key("llm.system"), Json("metadata", &["ls_provider"])], Provider),
        row(
            names::REQUEST_MODEL,
            &[
                Key("llm.request.model_name"),
                // What the program asked for: the next one is that which answered, once one has.
                Json("llm.invocation_parameters", &["model"]),
                Key("llm.model_name"),
                Key("embedding.model_name"),
                Key("reranker.model_name"),
                // A call of Gemini's client that failed has it in the request alone.
                Where("openinference.span.kind", "LLM", &Json("input.value", &["model"])),
                Where("openinference.span.kind", "LLM", &Json("input.value", &["modelId"])),
                // LangChain's own word: of `ChatGoogleGenerativeAI` in JavaScript it is all there is.
                Where("openinference.span.kind", "LLM", &Json("metadata", &["ls_model_name"])),
            ],
            Model,
        ),
        row(
            names::RESPONSE_MODEL,
            &[
                Key("llm.response.model_name"),
                Json("output.value", LANGCHAIN_MODEL),
                // The answers of OpenAI's chat, which the OpenAI Agents SDK passes on as they are, and LiteLLM's, of which a program may name the
                // model without a keyword: then it stands nowhere else.
                Json("output.value", &["object=chat.completion", "model"]),
                Unlike("llm.model_name", "llm.invocation_parameters", &["model"]),
            ],
            Model,
        ),
        row(
            names::RESPONSE_ID,
            &[
                Json("output.value", LANGCHAIN_ID),
                Json("output.value", LANGCHAIN_MESSAGE_ID),
                Json("output.value", &["object=chat.completion", "id"]),
                Json("output.value", &["object=chat.completion.chunk", "id"]),
                Json("output.value", &["object=response", "id"]),
                // Anthropic's.
                Json("output.value", &["type=message", "usage?", "id"]),
            ],
            Answer,
        ),
        // Last of each, what a program gives LiteLLM with a call.
        row(
            names::CONVERSATION_ID,
            &[
                Key("session.id"),
                Json("metadata", &["session_id"]),
                Json("metadata", &["thread_id"]),
                Json("llm.invocation_parameters", &["metadata", "session_id"]),
            ],
            Text,
        ),
        row(
            names::USER_ID,
            &[
                Json("metadata", &["user_id"]),
                Json("metadata", &["ls_user"]),
                Json("llm.invocation_parameters", &["user"]),
            ],
            Session,
        ),
        row(names::FINISH_REASONS, &[Key("llm.finish_reason")], Words),
        row(
            names::SERVICE_TIER,
            &[
                Json("output.value", LANGCHAIN_TIER),
                Json("output.value", &["object=chat.completion", "service_tier"]),
                // A stream's, put together.
                Json("output.value", &["object=chat.completion.chunk", "service_tier"]),
                Json("output.value", &["object=response", "service_tier"]),
                Json("output.value", &["type=message", "usage", "service_tier"]),
            ],
            Text,
        ),
        row(names::REQUEST_TIER, &[Json("llm.invocation_parameters", &["service_tier"])], Text),
        // Cohere counts what it wraps around a prompt, too, and bills something else.
        row(
            names::INPUT_TOKENS,
            &[Json("output.value", &["usage", "billed_units", "input_tokens"]), Key("llm.token_count.prompt")],
            Count,
        ),
        row(
            names::OUTPUT_TOKENS,
            &[Json("output.value", &["usage", "billed_units", "output_tokens"]), Key("llm.token_count.completion")],
            Count,
        ),
        row(names::TOTAL_TOKENS, &[Key("llm.token_count.total")], Count),
        row(names::CACHE_READ_TOKENS, &[Key("llm.token_count.prompt_details.cache_read"), BEEAI_READ], Count),
        row(names::CACHE_WRITE_TOKENS, &[Key("llm.token_count.prompt_details.cache_write"), BEEAI_WRITTEN], Count),
        row(
            names::REASONING_TOKENS,
            &[Key("llm.token_count.completion_details.reasoning"), Json("output.value", LANGCHAIN_THOUGHT)],
            Count,
        ),
        row(names::AUDIO_INPUT_TOKENS, &[Key("llm.token_count.prompt_details.audio")], Count),
        row(names::AUDIO_OUTPUT_TOKENS, &[Key("llm.token_count.completion_details.audio")], Count),
        row(names::TOOL_NAME, &[Key("tool.name")], Text),
        // Behind its own, where LangChain's tools have it, as it was written later and before.
        row(
            names::TOOL_CALL_ID,
            &[
                Key("tool.id"),
                Json("output.value", &["data", "type=tool", "tool_call_id"]),
                Json("output.value", &["type=tool", "tool_call_id"]),
            ],
            Text,
        ),
        // LlamaIndex has its agent in the events that go from step to step.
        row(
            names::AGENT_NAME,
            &[Key("agent.name"), Json("metadata", &["lc_agent_name"]), Quoted("input.value", "current_agent_name='")],
            Text,
        ),
        row(names::TAGS, &[Key("tag.tags")], Text),
    ],
    entity: &[Key("graph.node.name"), Key("graph.node.id"), Method(".run"), Method(".arun"), Method(".__call__"), Name],
    // smolagents' answers, with what the client returned as Python prints it; LangChain's, whose counts may say more; what
    // the provider answered; Haystack's.
    usage: &[
        Json("output.value", &["raw", "usage"]),
        Json("output.value", LANGCHAIN_USAGE),
        Json("output.value", &["usage"]),
        Json("output.value", HAYSTACK_USAGE),
        Json("output.value", &["meta", "usage"]),
        // Gemini's client.
        Json("output.value", &["usage_metadata"]),
    ],
    content: &[
        content(Side::In, &[Indexed("llm.input_messages"), Key("input.value")]),
        content(Side::Out, &[Indexed("llm.output_messages"), Key("output.value")]),
    ],
    kinds: &[
        // LlamaIndex: every method of a model is said to be a call, and this one only writes the request.
        kind(SPAN_NAME, Test::Ends("._prepare_chat_with_tools"), StepKind::Task),
        // Haystack (0.1.15 and 0.1.46): what fills a prompt's places in is said to be a call.
        kind(SPAN_NAME, Test::Is("PromptBuilder.run"), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("PromptBuilder ("), StepKind::Task),
        // Anthropic's client (3.1) asks how long a prompt is, and no model.
        kind(SPAN_NAME, Test::Ends(COUNTS_TOKENS), StepKind::Task),
        // LangChain: whatever has `agent` in its name is said to be one, a tool that hands over to one as well.
        kind("tool.name", Test::IsName, StepKind::Tool),
        kind(names::AGENT_NAME, Test::IsName, StepKind::Agent),
        // LiteLLM's callback for Arize says of an embedding that it is a call.
        kind("llm.request.type", Test::Ends("embedding"), StepKind::Embedding),
        kind("openinference.span.kind", Test::Is("LLM"), StepKind::Llm),
        kind("openinference.span.kind", Test::Is("TOOL"), StepKind::Tool),
        kind("openinference.span.kind", Test::Is("AGENT"), StepKind::Agent),
        kind("openinference.span.kind", Test::Is("RETRIEVER"), StepKind::Retrieval),
        kind("openinference.span.kind", Test::Is("RERANKER"), StepKind::Rerank),
        kind("openinference.span.kind", Test::Is("EMBEDDING"), StepKind::Embedding),
        kind("openinference.span.kind", Test::Is("GUARDRAIL"), StepKind::Guardrail),
        kind("openinference.span.kind", Test::Is("EVALUATOR"), StepKind::Evaluator),
        kind("openinference.span.kind", Test::IsRoot("CHAIN"), StepKind::Workflow),
        kind("openinference.span.kind", Test::Present, StepKind::Task),
    ],
    // A tool of LangChain whose error the framework gave to the model.
    outcomes: &[Outcome {
        from: Json("output.value", &["data", "type=tool", "status"]),
        word: "error",
        status: StepStatus::Error,
        message: &[Json("output.value", &["data", "content", "0", "text"]), Json("output.value", &["data", "content"])],
    }],
    // By its exporter for the AI SDK, `@arizeai/openinference-vercel` 3.2.1 `TraceAggregateManager`: it means the root alone, and takes every
    // span of OpenTelemetry's SDK 2 for one.
    marks_failures: true,
    // In Python, whose spans of what was read to its end are OK and have the reason.
    cancelled_without: &[
        ("GenerateContentStream", "output.value", "llm.finish_reason"),
        ("AsyncGenerateContentStream", "output.value", "llm.finish_reason"),
        ("bedrock.converse_stream", "output.value", "llm.finish_reason"),
        ("bedrock.invoke_model_with_response_stream", "output.value", "llm.finish_reason"),
    ],
    ..PLAIN
};

/// OpenInference's instrumentation of Anthropic's client in Python: a stream that was left, the call's or its helper's, has no status and no reason.
///
/// Source: `openinference-instrumentation-anthropic` 1.0 and 3.1, run against a scripted server; before there is no span of one.
pub const OPENINFERENCE_ANTHROPIC: Dialect = Dialect {
    name: "openinference-anthropic",
    variant_of: "openinference",
    detect: &[Detect::Scope("openinference.instrumentation.anthropic")],
    cancelled_without: &[
        ("messages.create", "output.value", "llm.finish_reason"),
        ("messages.stream", "output.value", "llm.finish_reason"),
    ],
    ..OPENINFERENCE
};

/// The same of OpenAI's: of a response the last part alone is written.
///
/// Source: `openinference-instrumentation-openai` 0.1.66, run against a scripted server; before, a stream that was left has no span.
pub const OPENINFERENCE_OPENAI: Dialect = Dialect {
    name: "openinference-openai",
    variant_of: "openinference",
    detect: &[Detect::Scope("openinference.instrumentation.openai")],
    cancelled_without: &[
        ("ChatCompletion", FIRST_PART, "llm.finish_reason"),
        ("Completion", FIRST_PART, "llm.finish_reason"),
        ("Response", FIRST_PART, "output.value"),
    ],
    ..OPENINFERENCE
};

/// OpenInference's instrumentation of Google's client of a few versions, which adds cached tokens to a prompt that has them.
///
/// Source: `openinference-instrumentation-google-genai` 0.1.13, run against a scripted server; the code of 0.1.10, which leaves cached tokens
/// out, 0.1.12, 0.1.14 and 0.1.15, which add them, and 0.1.16 and later, which do not.
pub const OPENINFERENCE_GOOGLE: Dialect = Dialect {
    name: "openinference-google",
    variant_of: "openinference",
    detect: &[Detect::ScopeOf(
        "openinference.instrumentation.google_genai",
        &["0.1.11", "0.1.12", "0.1.13", "0.1.14", "0.1.15"],
    )],
    basis: &[BasisRow { provider: "", basis: Basis::Twice }],
    ..OPENINFERENCE
};

/// OpenInference's instrumentation of the Claude agent SDK, whose agents bear what all their calls used: cached tokens are counted in.
///
/// Source: `openinference-instrumentation-claude-agent-sdk` 0.1.22 with `claude-agent-sdk` 0.2.189, run against a scripted server.
pub const OPENINFERENCE_CLAUDE: Dialect = Dialect {
    name: "openinference-claude",
    variant_of: "openinference",
    detect: &[Detect::ScopePrefix("openinference.instrumentation.claude_agent_sdk")],
    basis: ALL_INCLUSIVE,
    ..OPENINFERENCE
};

/// OpenInference's instrumentation of LangChain in JavaScript. What LangChain counts of Anthropic's models has cached tokens since
/// `@langchain/anthropic` 1.2.2 for streams, and since 1.3.12 for whole answers, which have what was reported beside; before, they were left out.
///
/// Source: `@arizeai/openinference-instrumentation-langchain` 3.4 with `@langchain/anthropic` 0.3.34, run against a scripted server; the code
/// of `@langchain/anthropic` 1.0 to 1.5.
pub const OPENINFERENCE_LANGCHAIN_JS: Dialect = Dialect {
    name: "openinference-langchain-js",
    variant_of: "openinference",
    detect: &[Detect::ScopePrefix(LANGCHAIN_JS)],
    usage: &[Json("output.value", LANGCHAIN_REPORTED)],
    summaries: &[Json("output.value", LANGCHAIN_USAGE)],
    basis: &[
        BasisRow { provider: "anthropic", basis: Basis::Unknown },
        BasisRow { provider: "", basis: Basis::Inclusive },
    ],
    ..OPENINFERENCE
};

/// The same where LangChain tells its versions, as it does since `@langchain/anthropic` 1.3.21.
///
/// Source: `@arizeai/openinference-instrumentation-langchain` 4.1 with `@langchain/anthropic` 1.5.11, run against a scripted server.
pub const OPENINFERENCE_LANGCHAIN_JS_SUMMED: Dialect = Dialect {
    name: "openinference-langchain-js-summed",
    detect: &[Detect::Within { scope: LANGCHAIN_JS, name: "", key: "metadata", part: "\"@langchain/anthropic\"" }],
    basis: ALL_INCLUSIVE,
    ..OPENINFERENCE_LANGCHAIN_JS
};

/// How the scope of OpenInference's instrumentation of LangChain in JavaScript begins.
const LANGCHAIN_JS: &str = "@arizeai/openinference-instrumentation-langchain";

/// OpenInference's instrumentation of the OpenAI Agents SDK, which says of the trace that encloses the agents that it is one.
///
/// Source: `openinference-instrumentation-openai-agents` 2.6 and `@arizeai/openinference-instrumentation-openai-agents` 0.2.15,
/// run against a scripted server.
pub const OPENINFERENCE_AGENTS: Dialect = Dialect {
    name: "openinference-agents",
    variant_of: "openinference",
    detect: &[
        Detect::ScopePrefix("openinference.instrumentation.openai_agents"),
        Detect::Scope("@arizeai/openinference-instrumentation-openai-agents"),
    ],
    kinds: &[
        // One agent hands over to the next, and no tool runs.
        kind(SPAN_NAME, Test::Starts("handoff to "), StepKind::Task),
        kind(names::AGENT_NAME, Test::IsName, StepKind::Agent),
        kind("graph.node.id", Test::IsName, StepKind::Agent),
        kind("openinference.span.kind", Test::Is("AGENT"), StepKind::Workflow),
        kind("openinference.span.kind", Test::Is("LLM"), StepKind::Llm),
        kind("openinference.span.kind", Test::Is("TOOL"), StepKind::Tool),
        kind("openinference.span.kind", Test::Is("GUARDRAIL"), StepKind::Guardrail),
        kind("openinference.span.kind", Test::Present, StepKind::Task),
    ],
    // A stream that the program stopped reading; the status says that all is well, as it always does.
    cancelled_without_response: &["chat"],
    ..OPENINFERENCE
};

/// Mastra's exporter for Arize, which says of each piece of a stream, and of each step of a generation, that it is a call as well.
///
/// Source: `@mastra/arize` 1.3.8 `openInferenceExporter` with `@mastra/core` 1.71, run against a scripted server.
pub const OPENINFERENCE_MASTRA: Dialect = Dialect {
    name: "openinference-mastra",
    variant_of: "openinference",
    detect: &[Detect::ScopeWith("@mastra/otel-exporter", "openinference.")],
    // Version 1.0 has the agent's name in the span's alone.
    entity: &[Behind("invoke_agent "), Behind("invoke_workflow "), Behind("execute_tool "), Name],
    kinds: &[
        kind("mastra.span.type", Test::Is("model_chunk"), StepKind::Task),
        kind("mastra.span.type", Test::Is("model_step"), StepKind::Task),
        kind("openinference.span.kind", Test::Is("LLM"), StepKind::Llm),
        kind("openinference.span.kind", Test::Is("TOOL"), StepKind::Tool),
        kind("openinference.span.kind", Test::Is("AGENT"), StepKind::Agent),
        kind("openinference.span.kind", Test::Is("RETRIEVER"), StepKind::Retrieval),
        kind("openinference.span.kind", Test::Is("EMBEDDING"), StepKind::Embedding),
        kind("openinference.span.kind", Test::Is("GUARDRAIL"), StepKind::Guardrail),
        kind("openinference.span.kind", Test::Present, StepKind::Task),
    ],
    ..OPENINFERENCE
};

/// OpenInference's instrumentation of BeeAI. What happens in a step is a span, too, and of that step's kind; the path of the event
/// is what it has more.
///
/// Source: `openinference-instrumentation-beeai` 0.1.30: its tokens run against a scripted server, its events from the code.
pub const OPENINFERENCE_BEEAI: Dialect = Dialect {
    name: "openinference-beeai",
    variant_of: "openinference",
    detect: &[Detect::ScopePrefix("openinference.instrumentation.beeai")],
    kinds: &[
        kind("metadata.path", Test::Present, StepKind::Task),
        kind("tool.name", Test::IsName, StepKind::Tool),
        kind("openinference.span.kind", Test::Is("LLM"), StepKind::Llm),
        kind("openinference.span.kind", Test::Is("TOOL"), StepKind::Tool),
        kind("openinference.span.kind", Test::Is("AGENT"), StepKind::Agent),
        kind("openinference.span.kind", Test::Is("RETRIEVER"), StepKind::Retrieval),
        kind("openinference.span.kind", Test::Is("RERANKER"), StepKind::Rerank),
        kind("openinference.span.kind", Test::Is("EMBEDDING"), StepKind::Embedding),
        kind("openinference.span.kind", Test::IsRoot("CHAIN"), StepKind::Workflow),
        kind("openinference.span.kind", Test::Present, StepKind::Task),
    ],
    ..OPENINFERENCE
};

/// BeeAI's answers have cached tokens among their metadata.
const BEEAI_READ: Source = Key("metadata.usage.cached_prompt_tokens");
const BEEAI_WRITTEN: Source = Key("metadata.usage.cached_creation_tokens");

/// OpenInference's instrumentations of Bedrock's client that have what it reported, which counts cached tokens apart: that in
/// JavaScript, and of Nova's own requests that in Python, which has counted them in otherwise. Their total is made of the two.
///
/// Source: `@arizeai/openinference-instrumentation-bedrock` 0.5 and `openinference-instrumentation-bedrock` 0.1.61, the code.
pub const OPENINFERENCE_BEDROCK: Dialect = Dialect {
    name: "openinference-bedrock",
    variant_of: "openinference",
    detect: &[
        Detect::Scope("@arizeai/openinference-instrumentation-bedrock"),
        Detect::Within {
            scope: "openinference.instrumentation.bedrock",
            name: "bedrock.invoke_model",
            key: "llm.model_name",
            part: "amazon.nova",
        },
    ],
    basis: &[BasisRow { provider: "", basis: Basis::Exclusive }],
    ..OPENINFERENCE
};

/// OpenInference's instrumentation of Agno, which has what the provider reported; before, only in what Python prints of the answer, and
/// before that in the provider's own answer, of a stream a list of the texts of its parts.
///
/// Source: `openinference-instrumentation-agno` 1.0.15 with `agno` 3.1, 0.1.15 with 2.1 and 0.1.8 with 1.7, run against a scripted server.
pub const OPENINFERENCE_AGNO: Dialect = Dialect {
    name: "openinference-agno",
    variant_of: "openinference",
    detect: &[Detect::ScopePrefix("openinference.instrumentation.agno")],
    usage: &[
        Json("output.value", &["response_usage"]),
        Json("output.value", &["usage"]),
        Json("output.value", &["type=message_stop", "message", "usage"]),
        Json("output.value", &["type=response.completed", "response", "usage"]),
        Json("output.value", &["usage?", "usage"]),
    ],
    basis: AS_REPORTED,
    // A stream that the program stopped reading.
    cancelled_without_response: &["chat"],
    ..OPENINFERENCE
};

/// OpenInference's instrumentation of Google's ADK: a call that failed, or that was given up, bears a name and no word on what it is.
///
/// Source: `openinference-instrumentation-google-adk` 0.1.7 with `google-adk` 1.20, run against a scripted server.
pub const OPENINFERENCE_ADK: Dialect = Dialect {
    name: "openinference-adk",
    variant_of: "openinference",
    detect: &[Detect::Named("openinference.instrumentation.google_adk", "call_llm")],
    kinds: &[kind(SPAN_NAME, Test::Is("call_llm"), StepKind::Llm)],
    ..OPENINFERENCE
};

/// OpenInference's instrumentation of Haystack with Anthropic, whose integration left cached tokens out before 5.16; nothing here tells
/// which one it is.
///
/// Source: `openinference-instrumentation-haystack` 0.1.29 and 0.1.46, run against a scripted server.
pub const OPENINFERENCE_HAYSTACK: Dialect = Dialect {
    name: "openinference-haystack",
    variant_of: "openinference",
    detect: &[Detect::Begins("openinference.instrumentation.haystack", "Anthropic")],
    basis: &[BasisRow { provider: "", basis: Basis::Unknown }],
    ..OPENINFERENCE
};

/// OpenInference's instrumentation of AutoGen's agents.
///
/// Source: `openinference-instrumentation-autogen-agentchat` 0.1.22 with `autogen-agentchat` 0.7.5, run against a scripted server.
pub const OPENINFERENCE_AUTOGEN: Dialect = Dialect {
    name: "openinference-autogen",
    variant_of: "openinference",
    detect: &[Detect::ScopePrefix("openinference.instrumentation.autogen")],
    // A stream that the program stopped reading.
    cancelled_without_response: &["chat"],
    ..OPENINFERENCE
};

/// OpenInference's instrumentation of the Claude agent SDK for JavaScript, whose agents bear what their calls used without cached tokens,
/// and no word of these.
///
/// Source: `@arizeai/openinference-instrumentation-claude-agent-sdk` 0.3.1, run against a scripted server.
pub const OPENINFERENCE_CLAUDE_JS: Dialect = Dialect {
    name: "openinference-claude-js",
    variant_of: "openinference",
    detect: &[Detect::Scope("@arizeai/openinference-instrumentation-claude-agent-sdk")],
    untold: &[Untold { when: &[], counts: &[names::INPUT_TOKENS, names::TOTAL_TOKENS] }],
    ..OPENINFERENCE
};

/// Guardrails, which says of all that it does that it is a guardrail, of its calls of models as well.
///
/// Source: `guardrails-ai` 0.11 with LiteLLM, run against a scripted server.
pub const GUARDRAILS: Dialect = Dialect {
    name: "guardrails",
    variant_of: "openinference",
    detect: &[Detect::Scope("guardrails-ai")],
    kinds: &[
        kind("type", Test::Is("guardrails/guard/step/call"), StepKind::Llm),
        kind("openinference.span.kind", Test::Is("GUARDRAIL"), StepKind::Guardrail),
        kind("openinference.span.kind", Test::Is("LLM"), StepKind::Llm),
        kind("openinference.span.kind", Test::Present, StepKind::Task),
    ],
    ..OPENINFERENCE
};

/// A call of OpenInference's instrumentation of Bedrock's client that failed before it had any attribute.
///
/// Source: `openinference-instrumentation-bedrock` 0.1.61, run against a scripted server: streams of `InvokeModel` that were refused.
pub const OPENINFERENCE_BEDROCK_BARE: Dialect = Dialect {
    name: "openinference-bedrock-bare",
    variant_of: "openinference",
    detect: &[
        Detect::Begins("openinference.instrumentation.bedrock", "bedrock.invoke_model"),
        Detect::Begins("openinference.instrumentation.bedrock", "bedrock.converse"),
    ],
    facts: &[row(names::PROVIDER, &[Fixed("aws.bedrock")], Provider)],
    kinds: &[kind(SPAN_NAME, Test::Starts("bedrock."), StepKind::Llm)],
    ..OPENINFERENCE
};

/// The event by which OpenAI's client in Python tells of a stream that it has begun.
const FIRST_PART: &str = "First Token Stream Event";

/// Where Haystack's answers have it, printed by Python.
const HAYSTACK_USAGE: &[&str] = &["replies", "0", "_meta", "usage"];
