//! Instrumentations and platforms that lie over many frameworks.

use super::Shape::{Class, Count, Model, Provider, Session, Text, User, Words};
use super::Source::{self, After, Before, Behind, Indexed, Json, Key, Name, Where};
use super::langchain::{LANGCHAIN_ID, LANGCHAIN_MODEL, LANGCHAIN_TIER, LANGCHAIN_USAGE};
use super::{
    ALL_INCLUSIVE, AS_REPORTED, Asked, Basis, BasisRow, Detect, Dialect, GOOGLE, Outcome, PLAIN, SPAN_NAME, Side, Test,
    Untold, content, kind, row,
};
use crate::conventions::names;
use crate::model::{StepKind, StepStatus};

/// OpenLLMetry (Traceloop).
///
/// Source: `traceloop/openllmetry` 0.62.1 and `opentelemetry-semantic-conventions-ai` 0.5.1; recordings of 0.62 and 0.40.
pub const TRACELOOP: Dialect = Dialect {
    name: "traceloop",
    detect: &[
        Detect::Key("traceloop.span.kind"),
        Detect::Key("llm.request.type"),
        Detect::Scope("traceloop.tracer"),
        Detect::ScopePrefix("@traceloop/"),
        Detect::KeyPrefix("crewai.crew."),
    ],
    facts: &[
        row(names::INPUT_TOKENS, &[Key("llm.usage.prompt_tokens")], Count),
        row(names::OUTPUT_TOKENS, &[Key("llm.usage.completion_tokens")], Count),
        row(names::TOTAL_TOKENS, &[Key("llm.usage.total_tokens")], Count),
        // LangChain in JavaScript and in Python.
        row(
            names::TOOL_CALL_ID,
            &[
                Json("traceloop.entity.output", &["kwargs", "tool_call_id"]),
                Json("traceloop.entity.output", &["output", "kwargs", "tool_call_id"]),
                Json("traceloop.entity.input", &["kwargs", "tool_call_id"]),
            ],
            Text,
        ),
        row(
            names::AGENT_NAME,
            &[
                Json("traceloop.entity.output", &["current_agent_name"]),
                Key("traceloop.association.properties.lc_agent_name"),
                Key("crewai.agent.role"),
                Key("crewai.task.agent"),
            ],
            Text,
        ),
    ],
    // What a tool of LlamaIndex or LangChain.js gave says who gave it; the entity is its class.
    entity: &[
        Json("traceloop.entity.output", &["tool_name"]),
        Json("traceloop.entity.output", &["kwargs", "name"]),
        Key("traceloop.entity.name"),
        Key("crewai.crew.name"),
    ],
    content: &[
        // Of LangChain's tools it has all that the callback was given; a tool may have an argument of that name, too.
        content(Side::In, &[Json(names::TOOL_ARGUMENTS, &["input_str?", "inputs"]), Key("traceloop.entity.input")]),
        content(
            Side::Out,
            &[
                Json(names::TOOL_RESULT, &["output", "kwargs", "content"]),
                // What Agno prints of how a tool ended.
                Json("traceloop.entity.output", &["updated_session_state?", "result"]),
                Key("traceloop.entity.output"),
                Key("crewai.crew.result"),
            ],
        ),
    ],
    kinds: &[
        // A crew of CrewAI bears no word of theirs, and the operation of an agent.
        kind("crewai.crew.id", Test::Present, StepKind::Workflow),
        // LlamaIndex, and LangChain in JavaScript: what a call is stands beside the word that is put on every method.
        kind(names::OPERATION, Test::Is("embeddings"), StepKind::Embedding),
        kind(names::OPERATION, Test::Is("chat"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("execute_tool"), StepKind::Tool),
        kind("traceloop.entity.name", Test::Ends("Tool.task"), StepKind::Tool),
        // LlamaIndex in JavaScript.
        kind("traceloop.entity.name", Test::Ends("_retriever.retrieve"), StepKind::Retrieval),
        kind("traceloop.span.kind", Test::Is("agent"), StepKind::Agent),
        kind("traceloop.span.kind", Test::Is("tool"), StepKind::Tool),
        // What LangChain's steps say whose they are: the graph of that name is the agent.
        kind("traceloop.association.properties.lc_agent_name", Test::Same("traceloop.entity.name"), StepKind::Agent),
        kind("traceloop.span.kind", Test::Is("workflow"), StepKind::Workflow),
        kind("traceloop.span.kind", Test::Is("task"), StepKind::Task),
        kind("llm.request.type", Test::Is("embedding"), StepKind::Embedding),
        kind("llm.request.type", Test::Is("rerank"), StepKind::Rerank),
        kind("llm.request.type", Test::Is("chat"), StepKind::Llm),
        kind("llm.request.type", Test::Is("completion"), StepKind::Llm),
        // Whatever else it may be, as a hand-over, is not to be guessed from an agent's name.
        kind("traceloop.span.kind", Test::Present, StepKind::Task),
    ],
    // Tools of LangChain and of Agno whose error the framework gave to the model.
    outcomes: &[
        Outcome {
            from: Json("traceloop.entity.output", &["output", "kwargs", "type=tool", "status"]),
            word: "error",
            status: StepStatus::Error,
            message: &[
                Json("traceloop.entity.output", &["output", "kwargs", "content", "0", "text"]),
                Json("traceloop.entity.output", &["output", "kwargs", "content"]),
            ],
        },
        Outcome {
            from: Json("traceloop.entity.output", &["updated_session_state?", "status"]),
            word: "failure",
            status: StepStatus::Error,
            message: &[Json("traceloop.entity.output", &["updated_session_state?", "error"])],
        },
    ],
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// The instrumentations of AWS's client for Bedrock, OpenLLMetry's and OpenTelemetry's own: what Bedrock reports, which counts
/// cached tokens apart.
///
/// Source: `opentelemetry-instrumentation-bedrock` 0.62 and `opentelemetry-instrumentation-botocore` 0.66b2, run against a
/// scripted server. Both say of an embedding that it is a completion. The latter (0.66b2, `bedrock_utils.estimate_token_count`) takes a
/// sixth of the letters for what models of Mistral and Cohere used.
pub const BEDROCK: Dialect = Dialect {
    name: "bedrock",
    variant_of: "traceloop",
    detect: &[
        Detect::Scope("opentelemetry.instrumentation.bedrock"),
        Detect::Scope("opentelemetry.instrumentation.botocore.bedrock-runtime"),
    ],
    kinds: &[
        kind("llm.request.type", Test::Is("chat"), StepKind::Llm),
        kind("llm.request.type", Test::Is("completion"), StepKind::Llm),
        kind(names::OPERATION, Test::Is("embeddings"), StepKind::Embedding),
        // One that failed may bear no more than that.
        kind(SPAN_NAME, Test::Is("bedrock.converse"), StepKind::Llm),
        kind(SPAN_NAME, Test::Is("bedrock.completion"), StepKind::Llm),
    ],
    basis: &[BasisRow { provider: "", basis: Basis::Exclusive }],
    untold: &[
        Untold {
            when: &[("rpc.method", Test::Is("InvokeModel")), (names::REQUEST_MODEL, Test::Has("mistral"))],
            counts: &[names::INPUT_TOKENS, names::OUTPUT_TOKENS, names::TOTAL_TOKENS],
        },
        Untold {
            when: &[("rpc.method", Test::Is("InvokeModel")), (names::REQUEST_MODEL, Test::Has("cohere.command"))],
            counts: &[names::INPUT_TOKENS, names::OUTPUT_TOKENS, names::TOTAL_TOKENS],
        },
    ],
    cancelled_without_reason: &["chat", "text_completion"],
    ..TRACELOOP
};

/// OpenLLMetry's instrumentation of OpenAI's client, which says of each stream that ended without an exception that it went well.
///
/// Source: `opentelemetry-instrumentation-openai` 0.53, 0.60 and 0.62.4, run against a scripted server.
pub const TRACELOOP_OPENAI: Dialect = Dialect {
    name: "traceloop-openai",
    variant_of: "traceloop",
    detect: &[Detect::Scope("opentelemetry.instrumentation.openai.v1")],
    cancelled_without_reason: &["chat"],
    left_is_well: true,
    ..TRACELOOP
};

/// OpenLLMetry's instrumentation of MCP, whose spans besides tools are messages of the protocol: an agent's name is a label on them.
///
/// Source: `opentelemetry-instrumentation-mcp` 0.47 and 0.62, run against a scripted server.
pub const TRACELOOP_MCP: Dialect = Dialect {
    name: "traceloop-mcp",
    variant_of: "traceloop",
    detect: &[Detect::ScopePrefix("opentelemetry.instrumentation.mcp")],
    kinds: &[
        kind("traceloop.span.kind", Test::Is("tool"), StepKind::Tool),
        kind("traceloop.span.kind", Test::Is("agent"), StepKind::Agent),
        kind("traceloop.span.kind", Test::Is("workflow"), StepKind::Workflow),
        kind(names::OPERATION, Test::Is("execute_tool"), StepKind::Tool),
        kind(names::MCP_METHOD, Test::Is("tools/call"), StepKind::Tool),
        kind(names::AGENT_NAME, Test::Present, StepKind::Task),
    ],
    ..TRACELOOP
};

/// OpenLLMetry's instrumentation of LlamaIndex for Python, which of Anthropic's models passes on what the provider reported.
///
/// Source: `opentelemetry-instrumentation-llamaindex` 0.62.4 with `llama-index-llms-anthropic` 0.12.3, run against a scripted server.
pub const TRACELOOP_LLAMAINDEX: Dialect = Dialect {
    name: "traceloop-llamaindex",
    variant_of: "traceloop",
    detect: &[Detect::Scope("opentelemetry.instrumentation.llamaindex")],
    basis: &[
        BasisRow { provider: "anthropic", basis: Basis::Exclusive },
        BasisRow { provider: "", basis: Basis::Inclusive },
    ],
    ..TRACELOOP
};

/// OpenLLMetry's instrumentation of Anthropic's client in JavaScript, which passes on what the provider reported.
///
/// Source: `@traceloop/instrumentation-anthropic` 0.14, 0.19, 0.22 and 0.27, run against a scripted server.
pub const TRACELOOP_ANTHROPIC_JS: Dialect = Dialect {
    name: "traceloop-anthropic-js",
    variant_of: "traceloop",
    detect: &[Detect::Scope("@traceloop/instrumentation-anthropic")],
    basis: &[BasisRow { provider: "", basis: Basis::Exclusive }],
    counts_to_the_end: true,
    ..TRACELOOP
};

/// Langfuse's SDK.
///
/// Source: the OTLP part of the server in `langfuse/langfuse`, 2026-08-22, and recordings of `langfuse` 5. Counts are
/// written as the provider has them, or as buckets that are added up.
pub const LANGFUSE: Dialect = Dialect {
    name: "langfuse",
    detect: &[Detect::Key("langfuse.observation.type"), Detect::Scope("langfuse-sdk")],
    facts: &[
        row(names::REQUEST_MODEL, &[Key("langfuse.observation.model.name")], Model),
        row(names::PROVIDER, &[Json("langfuse.observation.metadata.ls_provider", &[])], Provider),
        // The wrapper of OpenAI's client has `default` there where the program says nothing of it; a response is in the metadata.
        row(names::REQUEST_TIER, &[Json("langfuse.observation.model.parameters", &["service_tier"])], Text),
        row(
            names::SERVICE_TIER,
            &[Where(
                "langfuse.observation.metadata.object",
                "\"response\"",
                &Json("langfuse.observation.metadata.service_tier", &[]),
            )],
            Text,
        ),
        row(names::AGENT_NAME, &[Json("langfuse.observation.metadata.lc_agent_name", &[])], Text),
        // A tool of LangChain, which Langfuse 4 for JavaScript has no word for.
        row(
            names::TOOL_NAME,
            &[Json("langfuse.observation.output", &["type=constructor", "kwargs", "tool_call_id?", "name"])],
            Text,
        ),
        row(
            names::TOOL_CALL_ID,
            &[
                Json("langfuse.observation.output", &["type=constructor", "kwargs", "tool_call_id"]),
                Json("langfuse.observation.metadata.tool_call_id", &[]),
                Json("langfuse.observation.output", &["type=tool", "tool_call_id"]),
            ],
            Text,
        ),
    ],
    entity: &[Name],
    usage: &[Key("langfuse.observation.usage_details")],
    content: &[
        content(Side::In, &[Key("langfuse.observation.input")]),
        content(Side::Out, &[Key("langfuse.observation.output")]),
    ],
    kinds: &[
        // The wrapper of OpenAI's client says `generation` of everything.
        kind(SPAN_NAME, Test::Is("OpenAI.embeddings"), StepKind::Embedding),
        kind("langfuse.observation.type", Test::Is("generation"), StepKind::Llm),
        kind("langfuse.observation.type", Test::Is("agent"), StepKind::Agent),
        kind("langfuse.observation.type", Test::Is("tool"), StepKind::Tool),
        kind("langfuse.observation.type", Test::Is("retriever"), StepKind::Retrieval),
        kind("langfuse.observation.type", Test::Is("embedding"), StepKind::Embedding),
        kind("langfuse.observation.type", Test::Is("guardrail"), StepKind::Guardrail),
        kind("langfuse.observation.type", Test::Is("evaluator"), StepKind::Evaluator),
        kind(names::TOOL_NAME, Test::IsName, StepKind::Tool),
        kind(names::AGENT_NAME, Test::IsName, StepKind::Agent),
        kind("langfuse.observation.type", Test::IsRoot("chain"), StepKind::Workflow),
        kind("langfuse.observation.type", Test::Present, StepKind::Task),
    ],
    outcomes: &[Outcome {
        from: Key("langfuse.observation.level"),
        word: "ERROR",
        status: StepStatus::Error,
        message: &[Key("langfuse.observation.status_message")],
    }],
    ..PLAIN
};

/// Where LangChain's answers have what Anthropic reported, as MLflow writes them.
const MLFLOW_LANGCHAIN_USAGE: &[&str] = &["generations", "0", "0", "message", "response_metadata", "usage"];
/// The same of OpenAI.
const MLFLOW_LANGCHAIN_TOKENS: &[&str] = &["generations", "0", "0", "message", "response_metadata", "token_usage"];
/// The model that answered.
const MLFLOW_LANGCHAIN_MODEL: &[&str] = &["generations", "0", "0", "message", "response_metadata", "model_name"];
/// The tier that OpenAI served the answer in.
const MLFLOW_LANGCHAIN_TIER: &[&str] = &["generations", "0", "0", "message", "response_metadata", "service_tier"];

/// How an answer of Pydantic AI's ended, as MLflow writes it.
const MLFLOW_PYDANTIC_STATE: Source = Where("mlflow.spanType", "\"LLM\"", &MLFLOW_PYDANTIC_ANSWER);
const MLFLOW_PYDANTIC_ANSWER: Source =
    Where("mlflow.message.format", "\"pydantic_ai\"", &Json("mlflow.spanOutputs", &["state"]));

/// MLflow, which writes every value as JSON.
///
/// Source: `mlflow-skinny` 3.17.2 `mlflow/tracing/constant.py`, and recordings.
pub const MLFLOW: Dialect = Dialect {
    name: "mlflow",
    detect: &[Detect::Key("mlflow.spanType"), Detect::Key("mlflow.traceRequestId")],
    facts: &[
        row(
            names::REQUEST_MODEL,
            &[
                Json("mlflow.spanInputs", &["model"]),
                Json("mlflow.spanOutputs", &["model"]),
                Json("mlflow.llm.model", &[]),
                // The object that Pydantic AI's agents call, before what may be its name.
                Json("model", &["_model_name"]),
                Json("model", &[]),
                // LangChain's, of before.
                Json("invocation_params", &["model"]),
                Json("invocation_params", &["model_name"]),
                Json("metadata", &["ls_model_name"]),
            ],
            Model,
        ),
        // Pydantic AI's answers have names of their own.
        row(
            names::RESPONSE_MODEL,
            &[
                Json("mlflow.spanOutputs", &["model"]),
                Json("mlflow.spanOutputs", &["model_name"]),
                Json("mlflow.spanOutputs", MLFLOW_LANGCHAIN_MODEL),
            ],
            Model,
        ),
        row(names::PROVIDER, &[Json("mlflow.llm.provider", &[]), Json("metadata", &["ls_provider"])], Provider),
        row(
            names::CONVERSATION_ID,
            &[Json("mlflow.trace.session", &[]), Json("metadata", &["session_id"]), Json("metadata", &["thread_id"])],
            Text,
        ),
        row(names::USER_ID, &[Json("mlflow.trace.user", &[]), Json("metadata", &["user_id"])], Text),
        row(names::AGENT_NAME, &[Json("metadata", &["lc_agent_name"])], Text),
        row(
            names::SERVICE_TIER,
            &[
                Json("mlflow.spanOutputs", &["service_tier"]),
                Json("mlflow.spanOutputs", &["usage", "service_tier"]),
                Json("mlflow.spanOutputs", MLFLOW_LANGCHAIN_TIER),
            ],
            Text,
        ),
        // OpenAI's client, and LangChain.
        row(
            names::REQUEST_TIER,
            &[Json("mlflow.spanInputs", &["service_tier"]), Json("invocation_params", &["service_tier"])],
            Text,
        ),
        row(
            names::RESPONSE_ID,
            &[
                Json("mlflow.spanOutputs", &["id"]),
                Json("mlflow.spanOutputs", &["provider_response_id"]),
                Json("id", &[]),
            ],
            Text,
        ),
    ],
    // What the object that was called is named, Pydantic AI's agent too; DSPy's tools are named after their class.
    entity: &[Json("name", &[]), Json("_name", &[]), Behind("Tool."), Name],
    // Those of LangChain's answers are what Anthropic and OpenAI reported, of which its summary lacks a part. The last is that of a
    // streamed answer of the OpenAI Agents SDK, whose members stand side by side.
    usage: &[
        Json("mlflow.spanOutputs", &["usage"]),
        Json("mlflow.spanOutputs", MLFLOW_LANGCHAIN_USAGE),
        Json("mlflow.spanOutputs", MLFLOW_LANGCHAIN_TOKENS),
        Key("usage"),
    ],
    summaries: &[Key("mlflow.chat.tokenUsage")],
    content: &[content(Side::In, &[Key("mlflow.spanInputs")]), content(Side::Out, &[Key("mlflow.spanOutputs")])],
    kinds: &[
        // The OpenAI Agents SDK: what is around the agents is said to be one.
        kind("mlflow.openai.agent_run_root", Test::Present, StepKind::Workflow),
        // LlamaIndex: it only writes the request.
        kind(SPAN_NAME, Test::Ends("._prepare_chat_with_tools"), StepKind::Task),
        // A module of DSPy, around the calls that it makes.
        kind(SPAN_NAME, Test::Is("Predict.forward"), StepKind::Task),
        kind("mlflow.spanType", Test::Is("LLM"), StepKind::Llm),
        kind("mlflow.spanType", Test::Is("CHAT_MODEL"), StepKind::Llm),
        kind("mlflow.spanType", Test::Is("AGENT"), StepKind::Agent),
        // A guardrail of the OpenAI Agents SDK, of before.
        kind("mlflow.spanOutputs", Test::Is("{\"triggered\": true}"), StepKind::Guardrail),
        kind("mlflow.spanOutputs", Test::Is("{\"triggered\": false}"), StepKind::Guardrail),
        kind("mlflow.spanType", Test::Is("TOOL"), StepKind::Tool),
        kind("mlflow.spanType", Test::Is("WORKFLOW"), StepKind::Workflow),
        kind("mlflow.spanType", Test::Is("RETRIEVER"), StepKind::Retrieval),
        kind("mlflow.spanType", Test::Is("RERANKER"), StepKind::Rerank),
        kind("mlflow.spanType", Test::Is("EMBEDDING"), StepKind::Embedding),
        kind("mlflow.spanType", Test::Is("GUARDRAIL"), StepKind::Guardrail),
        kind("mlflow.spanType", Test::Is("EVALUATOR"), StepKind::Evaluator),
        kind(names::AGENT_NAME, Test::IsName, StepKind::Agent),
        kind("mlflow.spanType", Test::IsRoot("CHAIN"), StepKind::Workflow),
        kind("mlflow.spanType", Test::Present, StepKind::Task),
    ],
    outcomes: &[
        // A tool of LangChain whose error the framework gave to the model.
        Outcome {
            from: Json("mlflow.spanOutputs", &["type=tool", "status"]),
            word: "error",
            status: StepStatus::Error,
            message: &[Json("mlflow.spanOutputs", &["content", "0", "text"]), Json("mlflow.spanOutputs", &["content"])],
        },
        // A stream of Pydantic AI (2.31) that nobody read to its end, and one that was stopped.
        Outcome { from: MLFLOW_PYDANTIC_STATE, word: "incomplete", status: StepStatus::Cancelled, message: &[] },
        Outcome { from: MLFLOW_PYDANTIC_STATE, word: "interrupted", status: StepStatus::Cancelled, message: &[] },
    ],
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// LangSmith's SDK in its OpenTelemetry mode.
///
/// Source: `langsmith` 0.15.0 `_internal/otel/_otel_exporter.py`, and recordings. The operation of a retriever is
/// `embeddings` there, so its own kind is asked first.
pub const LANGSMITH: Dialect = Dialect {
    name: "langsmith",
    detect: &[Detect::Key("langsmith.span.kind")],
    facts: &[
        row(names::AGENT_NAME, &[Key("langsmith.metadata.lc_agent_name")], Text),
        // Where the call itself has neither.
        row(names::PROVIDER, &[Where("langsmith.span.kind", "llm", &Key("langsmith.metadata.ls_provider"))], Provider),
        row(
            names::REQUEST_MODEL,
            &[Where("langsmith.span.kind", "llm", &Key("langsmith.metadata.ls_model_name"))],
            Model,
        ),
        row(
            names::CONVERSATION_ID,
            &[
                // What the program says before LangGraph's thread.
                Key("langsmith.metadata.session_id"),
                Key("langsmith.metadata.thread_id"),
                Key("langsmith.metadata.conversation_id"),
                // Those of the AI SDK's metadata, by its exporter.
                Key("langsmith.metadata.sessionId"),
            ],
            Text,
        ),
        row(names::USER_ID, &[Key("langsmith.metadata.user_id"), Key("langsmith.metadata.userId")], Text),
        row(names::RESPONSE_MODEL, &[Json("gen_ai.completion", LANGCHAIN_MODEL)], Model),
        row(names::RESPONSE_ID, &[Json("gen_ai.completion", LANGCHAIN_ID)], Text),
        row(names::SERVICE_TIER, &[Json("gen_ai.completion", LANGCHAIN_TIER)], Text),
        // Of every class it says `Exception`, and what Python prints of the error in the message.
        row(
            names::ERROR_TYPE,
            &[Before(names::EXCEPTION_MESSAGE, "", '('), Before(names::EXCEPTION_MESSAGE, "", ':')],
            Class,
        ),
        row(names::CACHE_READ_TOKENS, &[Json("gen_ai.usage.input_token_details", &["*cache_read*"])], Count),
        row(
            names::CACHE_WRITE_TOKENS,
            &[
                Json("gen_ai.usage.input_token_details", &["*cache_creation*"]),
                Json("gen_ai.usage.input_token_details", &["*ephemeral_*"]),
            ],
            Count,
        ),
        row(names::CACHE_WRITE_1H_TOKENS, &[Json("gen_ai.usage.input_token_details", &["*ephemeral_1h*"])], Count),
        row(names::REASONING_TOKENS, &[Json("gen_ai.usage.output_token_details", &["*reasoning*"])], Count),
    ],
    entity: &[Name],
    // The last is in the answer of LangChain, of before.
    usage: &[
        Key("langsmith.metadata.usage_metadata"),
        Key("langsmith.usage_metadata"),
        Json("gen_ai.completion", LANGCHAIN_USAGE),
    ],
    // What a chain gives may be an answer that another step has asked for: it has the answer's counts then. LangSmith itself counts none but
    // those of calls.
    untold: &[Untold {
        when: &[("langsmith.span.kind", Test::IsWithout("chain", "langsmith.metadata.usage_metadata"))],
        counts: names::TOKEN_COUNTS,
    }],
    kinds: &[
        kind("langsmith.span.kind", Test::Is("llm"), StepKind::Llm),
        kind("langsmith.span.kind", Test::Is("tool"), StepKind::Tool),
        kind("langsmith.span.kind", Test::Is("retriever"), StepKind::Retrieval),
        kind("langsmith.span.kind", Test::Is("embedding"), StepKind::Embedding),
        // An agent is a chain that bears the agent's name.
        kind("langsmith.metadata.lc_agent_name", Test::IsName, StepKind::Agent),
        kind("langsmith.span.kind", Test::IsRoot("chain"), StepKind::Workflow),
        kind("langsmith.span.kind", Test::Present, StepKind::Task),
    ],
    outcomes: &[
        // A tool of LangChain whose error the framework gave to the model.
        Outcome {
            from: Json("gen_ai.completion", &["output", "type=tool", "status"]),
            word: "error",
            status: StepStatus::Error,
            message: &[
                Json("gen_ai.completion", &["output", "content", "0", "text"]),
                Json("gen_ai.completion", &["output", "content"]),
            ],
        },
        // A conversation of the Claude Agent SDK (`langsmith` 0.15), which has what went wrong, or that it was stopped, as its answer.
        Outcome {
            from: Where(
                "langsmith.metadata.ls_integration",
                "claude-agent-sdk",
                &Json("gen_ai.completion", &["content", "0", "text"]),
            ),
            word: "[Request interrupted by user]",
            status: StepStatus::Cancelled,
            message: &[],
        },
        Outcome {
            from: Where(
                "langsmith.metadata.ls_integration",
                "claude-agent-sdk",
                &Json("gen_ai.completion", &["content", "0", "text"]),
            ),
            word: "[Request interrupted by user for tool use]",
            status: StepStatus::Cancelled,
            message: &[],
        },
        Outcome {
            from: Where("langsmith.metadata.ls_integration", "claude-agent-sdk", &Key("langsmith.metadata.is_error")),
            word: "true",
            status: StepStatus::Error,
            message: &[Json("gen_ai.completion", &["content", "0", "text"])],
        },
    ],
    // In JavaScript (`langsmith` 0.12 `experimental/otel`) every span is said to have gone well before it runs, and OpenTelemetry's
    // SDK 2 takes that word for the last.
    fails_although_well: true,
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// Weave's spans of a program's own, with what its adapters pass on of the provider.
///
/// Source: `weave` 0.54 `conversation`, run against a scripted server.
pub const WEAVE: Dialect = Dialect {
    name: "weave",
    detect: &[Detect::Scope("weave.conversation")],
    basis: &[
        BasisRow { provider: "anthropic", basis: Basis::Exclusive },
        BasisRow { provider: "", basis: Basis::Inclusive },
    ],
    ..PLAIN
};

/// Weave's integrations of OpenAI's SDKs and of the Claude Agent SDK, which have counted cached tokens in.
///
/// Source: `weave` 0.54 `integrations`: the OpenAI Agents SDK run against a scripted server, the others from the code.
pub const WEAVE_INTEGRATION: Dialect = Dialect {
    name: "weave-integration",
    variant_of: "weave",
    detect: &[Detect::ScopePrefix("weave.openai_"), Detect::Value("integration.name", "claude_agent_sdk")],
    entity: &[Key("weave.openai_agents.task.workflow_name")],
    kinds: &[kind("weave.openai_agents.task.workflow_name", Test::Present, StepKind::Workflow)],
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// OpenLIT, which writes the standard's names with the counts of the provider.
///
/// Source: `openlit` `instrumentation/anthropic/utils.py`, `__helpers.py`, and recordings of 1.45; for JavaScript 1.15, run against a
/// scripted server. Its resource is that of all that a process tells, of libraries that trace themselves as well.
pub const OPENLIT: Dialect = Dialect {
    name: "openlit",
    detect: &[
        Detect::Maker("telemetry.sdk.name", "openlit"),
        Detect::ScopePrefix("openlit"),
        Detect::ScopePrefix("@openlit/"),
    ],
    // Agno's (1.36 and 1.45).
    facts: &[
        row(names::CONVERSATION_ID, &[Key("gen_ai.session.id")], Session),
        row(names::USER_ID, &[Key("gen_ai.request.user")], User),
    ],
    // A step that fails may have a name and nothing else.
    entity: &[Behind("execute_tool "), Behind("invoke_agent "), Behind("invoke_workflow ")],
    // Of LangChain's steps it says that they went well beside what was raised (1.39).
    fails_although_well: true,
    kinds: &[
        // smolagents: what an agent does between two calls; the OpenAI Agents SDK: one agent hands over to another.
        kind("gen_ai.smolagents.step_number", Test::Present, StepKind::Task),
        kind("gen_ai.agent.source", Test::Present, StepKind::Task),
        // The Agents SDK's guardrails bear an agent's operation.
        kind("gen_ai.guardrail.triggered", Test::Present, StepKind::Guardrail),
        // A node of Pydantic AI's graph, which comes behind each answer, whether it asks for tools or not.
        kind("gen_ai.agent.lifecycle.phase", Test::IsWithout("tool_execution", names::TOOL_NAME), StepKind::Task),
        // A tool of Agno's (1.36), which bears the operation of a task.
        kind("gen_ai.agent.lifecycle.phase", Test::Is("tool_execution"), StepKind::Tool),
        // On a model call it names the tool that the model asked for.
        kind(names::OPERATION, Test::Is("vectordb"), StepKind::Retrieval),
        kind(names::OPERATION, Test::Is("image"), StepKind::Llm),
        // A turn of the OpenAI Agents SDK is no agent, and has no name.
        kind(SPAN_NAME, Test::Is("invoke_agent"), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("chat "), StepKind::Llm),
        kind(SPAN_NAME, Test::Starts("embeddings "), StepKind::Embedding),
        kind(SPAN_NAME, Test::Starts("execute_tool "), StepKind::Tool),
        kind(SPAN_NAME, Test::Starts("invoke_agent "), StepKind::Agent),
        kind(SPAN_NAME, Test::Starts("invoke_workflow "), StepKind::Workflow),
    ],
    basis: &[
        BasisRow { provider: "anthropic", basis: Basis::Exclusive },
        BasisRow { provider: "aws.bedrock", basis: Basis::Exclusive },
        BasisRow { provider: "", basis: Basis::Inclusive },
    ],
    reasoning_apart: &[GOOGLE],
    ..PLAIN
};

/// A model call of OpenLIT's: one that failed has its model in the name of the span alone.
///
/// Source: `openlit` 1.35 and 1.45 with the clients of OpenAI, Anthropic and Google, run against a scripted server.
pub const OPENLIT_CALL: Dialect = Dialect {
    name: "openlit-call",
    variant_of: "openlit",
    detect: &[Detect::Begins("openlit.", "chat ")],
    facts: &[row(names::REQUEST_MODEL, &[Behind("chat ")], Model)],
    ..OPENLIT
};

/// OpenLIT's instrumentation of CrewAI, which says of every method of a flow that it is an agent, without a name.
///
/// Source: `openlit` 1.45 with `crewai` 1.15, run against a scripted server.
pub const OPENLIT_CREWAI: Dialect = Dialect {
    name: "openlit-crewai",
    variant_of: "openlit",
    detect: &[Detect::Scope("openlit.instrumentation.crewai")],
    kinds: &[kind(names::OPERATION, Test::IsWithout("invoke_agent", names::AGENT_NAME), StepKind::Task)],
    ..OPENLIT
};

/// OpenLIT's instrumentation of LangChain, which has the counts of that: of Claude, too, cached tokens are part of the input where it
/// tells of them (streams), and told nowhere else.
///
/// Source: `openlit` 1.45 with `langchain` 1.2 and `langgraph` 1.2, run against a scripted server.
pub const OPENLIT_LANGCHAIN_CALL: Dialect = Dialect {
    name: "openlit-langchain-call",
    variant_of: "openlit",
    detect: &[Detect::Scope("openlit.instrumentation.langchain")],
    basis: ALL_INCLUSIVE,
    ..OPENLIT_CALL
};

/// OpenLIT's instrumentation of LangChain of before, which named that in the place of the provider, whose counts it had.
///
/// Source: `openlit` 1.35 with `langchain` 0.3, run against a scripted server.
pub const OPENLIT_LANGCHAIN: Dialect = Dialect {
    name: "openlit-langchain",
    variant_of: "openlit",
    detect: &[Detect::Within { scope: "openlit", name: "", key: "gen_ai.system", part: "langchain" }],
    facts: &[
        row(names::CACHE_READ_TOKENS, &[Key("gen_ai.usage.prompt_tokens_details.cache_read")], Count),
        row(names::CACHE_WRITE_TOKENS, &[Key("gen_ai.usage.prompt_tokens_details.cache_write")], Count),
    ],
    entity: &[Behind("tool ")],
    names_itself: true,
    kinds: &[
        kind(names::OPERATION, Test::Starts("tool "), StepKind::Tool),
        kind(names::OPERATION, Test::Starts("chat "), StepKind::Llm),
    ],
    ..OPENLIT
};

/// OpenLIT's instrumentation of LangGraph, which says of every node of a graph that it is an agent. Who is one, that of LangChain
/// says.
///
/// Source: `openlit` 1.45 with `langgraph` 1.2, run against a scripted server.
pub const OPENLIT_LANGGRAPH: Dialect = Dialect {
    name: "openlit-langgraph",
    variant_of: "openlit",
    detect: &[Detect::Scope("openlit.instrumentation.langgraph")],
    kinds: &[kind(names::OPERATION, Test::Is("invoke_agent"), StepKind::Task)],
    ..OPENLIT
};

/// LiteLLM, SDK and proxy: the standard's names, leftovers of older ones, and Python's words for objects.
///
/// Source: `litellm` 1.106 `integrations/opentelemetry.py` and `integrations/otel`, and recordings; 1.108 of the SDK and the
/// proxy, both also with `LITELLM_OTEL_V2`, run against a scripted server. Counts of every provider include cached tokens.
pub const LITELLM: Dialect = Dialect {
    name: "litellm",
    detect: &[Detect::KeyPrefix("litellm."), Detect::Scope("litellm")],
    facts: &[
        row(names::PROVIDER, &[Before("litellm.provider.model", "", '/')], Provider),
        // Its callbacks for Arize and Langfuse.
        row(names::RESPONSE_MODEL, &[Key("llm.response.model")], Model),
        row(names::RESPONSE_ID, &[Key("llm.response.id")], Text),
        // What a client of the proxy gave it is in what Python prints.
        row(
            names::CONVERSATION_ID,
            &[
                Key("metadata.session_id"),
                Key("litellm.session_id"),
                Json("metadata.requester_metadata", &["session_id"]),
            ],
            Text,
        ),
        row(
            names::USER_ID,
            &[
                Key("llm.user"),
                Key("litellm.end_user.id"),
                Key("litellm.metadata.user_api_key_end_user_id"),
                Key("metadata.user_api_key_end_user_id"),
                Key("metadata.user_api_key_user_id"),
                Key("litellm.metadata.user_api_key_user_id"),
            ],
            Text,
        ),
    ],
    // An alias of the proxy is the client's word for a model, in its answer as well.
    asked: Some(Asked { key: "litellm.provider.model", own: &["litellm.model_group", names::REQUEST_MODEL] }),
    summaries: &[Key("metadata.usage_object"), Json("metadata", &["usage_object"])],
    // Its callback for Langfuse (1.81), which has the prompt nowhere else.
    content: &[content(Side::In, &[Key("langfuse.observation.input")])],
    kinds: &[
        kind(names::OPERATION, Test::Starts("execute_guardrail"), StepKind::Guardrail),
        // The function that was called, with an `a` before it where that was the asynchronous one.
        kind("llm.request.type", Test::Ends("completion"), StepKind::Llm),
        kind("llm.request.type", Test::Ends("responses"), StepKind::Llm),
        kind("llm.request.type", Test::Ends("anthropic_messages"), StepKind::Llm),
        kind("llm.request.type", Test::Ends("embedding"), StepKind::Embedding),
        kind("llm.request.type", Test::Ends("rerank"), StepKind::Rerank),
        // Baggage carries the model to all spans of the proxy's process, and its calls have operations.
        kind(names::REQUEST_MODEL, Test::Without(&[names::OPERATION]), StepKind::Task),
    ],
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// Laminar.
///
/// Source: `lmnr-ai/lmnr`; `mlflow/tracing/otel/translation/laminar.py`; no recording.
pub const LAMINAR: Dialect = Dialect {
    name: "laminar",
    detect: &[Detect::KeyPrefix("lmnr.")],
    facts: &[
        row(names::CONVERSATION_ID, &[Key("lmnr.association.properties.session_id")], Text),
        row(names::USER_ID, &[Key("lmnr.association.properties.user_id")], Text),
        row(names::TOTAL_TOKENS, &[Key("llm.usage.total_tokens")], Count),
    ],
    entity: &[Name],
    content: &[content(Side::In, &[Key("lmnr.span.input")]), content(Side::Out, &[Key("lmnr.span.output")])],
    kinds: &[
        kind("lmnr.span.type", Test::Is("LLM"), StepKind::Llm),
        kind("lmnr.span.type", Test::Is("TOOL"), StepKind::Tool),
        kind("lmnr.span.type", Test::Is("EVALUATOR"), StepKind::Evaluator),
        kind("lmnr.span.type", Test::Present, StepKind::Task),
    ],
    ..PLAIN
};

/// AgentOps' decorators and callbacks.
///
/// Source: `agentops` 0.4.21 `semconv` and `sdk/decorators`; no recording.
pub const AGENTOPS: Dialect = Dialect {
    name: "agentops",
    detect: &[Detect::Key("agentops.span.kind")],
    facts: &[row(names::AGENT_NAME, &[Key("agent.name")], Text), row(names::TOOL_NAME, &[Key("tool.name")], Text)],
    entity: &[Key("operation.name"), Key("agentops.entity.name"), Name],
    content: &[
        content(
            Side::In,
            &[
                Key("agentops.entity.input"),
                Key("agentops.session.input"),
                Key("agentops.agent.input"),
                Key("agentops.tool.input"),
                Key("agentops.workflow.input"),
                Key("agentops.task.input"),
                Key("agentops.operation.input"),
                Key("tool.parameters"),
            ],
        ),
        content(
            Side::Out,
            &[
                Key("agentops.entity.output"),
                Key("agentops.session.output"),
                Key("agentops.agent.output"),
                Key("agentops.tool.output"),
                Key("agentops.workflow.output"),
                Key("agentops.task.output"),
                Key("agentops.operation.output"),
                Key("tool.result"),
            ],
        ),
    ],
    kinds: &[
        kind("agentops.span.kind", Test::Is("llm"), StepKind::Llm),
        kind("agentops.span.kind", Test::Is("llm.call"), StepKind::Llm),
        kind("agentops.span.kind", Test::Is("agent"), StepKind::Agent),
        kind("agentops.span.kind", Test::Is("tool"), StepKind::Tool),
        kind("agentops.span.kind", Test::Is("guardrail"), StepKind::Guardrail),
        kind("agentops.span.kind", Test::Is("workflow"), StepKind::Workflow),
        kind("agentops.span.kind", Test::Is("session"), StepKind::Workflow),
        kind("agentops.span.kind", Test::Present, StepKind::Task),
    ],
    basis: AS_REPORTED,
    ..PLAIN
};

/// LangWatch's SDK.
///
/// Source: `langwatch` 1.4 `attributes.py` and `telemetry`, run against a scripted server.
pub const LANGWATCH: Dialect = Dialect {
    name: "langwatch",
    detect: &[Detect::Key("langwatch.span.type")],
    facts: &[
        row(
            names::CONVERSATION_ID,
            &[
                Key("langwatch.thread.id"),
                Key("langwatch.session.id"),
                Json("metadata", &["thread_id"]),
                // Its handler for LangChain in JavaScript.
                Key("langwatch.langgraph.thread_id"),
                Key("langwatch.langchain.run.metadata.thread_id"),
            ],
            Text,
        ),
        row(
            names::USER_ID,
            &[
                Key("langwatch.user.id"),
                Json("metadata", &["user_id"]),
                Key("langwatch.langgraph.user_id"),
                Key("langwatch.langchain.run.metadata.user_id"),
            ],
            Text,
        ),
        row(
            names::AGENT_NAME,
            &[Key("langwatch.langgraph.lc_agent_name"), Key("langwatch.langchain.run.metadata.lc_agent_name")],
            Text,
        ),
    ],
    entity: &[Name],
    content: &[
        content(Side::In, &[Json("langwatch.input", &["value"]), Key("langwatch.input")]),
        content(Side::Out, &[Json("langwatch.output", &["value"]), Key("langwatch.output")]),
    ],
    usage: &[Json("langwatch.metrics", &["value"]), Key("langwatch.metrics")],
    kinds: &[
        kind("langwatch.span.type", Test::Is("llm"), StepKind::Llm),
        kind("langwatch.span.type", Test::Is("agent"), StepKind::Agent),
        kind("langwatch.span.type", Test::Is("tool"), StepKind::Tool),
        kind("langwatch.span.type", Test::Is("rag"), StepKind::Retrieval),
        kind("langwatch.span.type", Test::Is("guardrail"), StepKind::Guardrail),
        kind("langwatch.span.type", Test::Is("evaluation"), StepKind::Evaluator),
        kind("langwatch.span.type", Test::Is("workflow"), StepKind::Workflow),
        // An agent of LangChain is a chain that bears the agent's name.
        kind(names::AGENT_NAME, Test::IsName, StepKind::Agent),
        kind("langwatch.span.type", Test::IsRoot("chain"), StepKind::Workflow),
        kind("langwatch.span.type", Test::Present, StepKind::Task),
    ],
    ..PLAIN
};

/// FutureAGI's traceAI, a fork of [`OPENINFERENCE`](super::OPENINFERENCE) that took the standard's names, flattened, and kept its kinds of spans.
///
/// Source: `traceai-openai` 0.1 and `traceai-langchain` 0.2, run against a scripted server. A stream names its model among what was asked
/// with only.
pub const TRACEAI: Dialect = Dialect {
    name: "traceai",
    detect: &[Detect::ScopePrefix("traceai_")],
    facts: &[
        row(names::PROVIDER, &[Json("metadata", &["ls_provider"])], Provider),
        row(names::REQUEST_MODEL, &[Json("gen_ai.request.parameters", &["model"])], Model),
        row(names::RESPONSE_MODEL, &[Json("output.value", LANGCHAIN_MODEL)], Model),
        row(names::RESPONSE_ID, &[Json("output.value", LANGCHAIN_ID)], Text),
        row(names::CACHE_READ_TOKENS, &[Key("gen_ai.usage.input_tokens.cache_read")], Count),
        row(names::REASONING_TOKENS, &[Key("gen_ai.usage.output_tokens.reasoning")], Count),
        row(names::AGENT_NAME, &[Json("metadata", &["lc_agent_name"])], Text),
    ],
    entity: &[Key("gen_ai.agent.graph.node_name"), Name],
    usage: &[Json("output.value", LANGCHAIN_USAGE)],
    content: &[
        content(Side::In, &[Indexed("gen_ai.input.messages"), Key("input.value")]),
        content(Side::Out, &[Indexed("gen_ai.output.messages"), Key("output.value")]),
    ],
    kinds: &[
        kind(names::AGENT_NAME, Test::IsName, StepKind::Agent),
        kind("gen_ai.span.kind", Test::Is("LLM"), StepKind::Llm),
        kind("gen_ai.span.kind", Test::Is("TOOL"), StepKind::Tool),
        kind("gen_ai.span.kind", Test::Is("AGENT"), StepKind::Agent),
        kind("gen_ai.span.kind", Test::Is("RETRIEVER"), StepKind::Retrieval),
        kind("gen_ai.span.kind", Test::Is("RERANKER"), StepKind::Rerank),
        kind("gen_ai.span.kind", Test::Is("EMBEDDING"), StepKind::Embedding),
        kind("gen_ai.span.kind", Test::Is("GUARDRAIL"), StepKind::Guardrail),
        kind("gen_ai.span.kind", Test::Is("EVALUATOR"), StepKind::Evaluator),
        kind("gen_ai.span.kind", Test::IsRoot("CHAIN"), StepKind::Workflow),
        kind("gen_ai.span.kind", Test::Present, StepKind::Task),
    ],
    basis: AS_REPORTED,
    ..PLAIN
};

/// Monocle: entities by number, and what was said and used in events.
///
/// Source: `monocle_apptrace` 0.8 with the clients of OpenAI and LangChain, run against a scripted server. The client's own span below a
/// framework's call has no counts.
pub const MONOCLE: Dialect = Dialect {
    name: "monocle",
    detect: &[Detect::Scope("monocle_apptrace"), Detect::Key("monocle_apptrace.version")],
    facts: &[
        row(
            names::PROVIDER,
            &[After("entity.1.type", "inference", '.'), After("entity.1.type", "embedding", '.')],
            Provider,
        ),
        row(
            names::REQUEST_MODEL,
            &[
                After("entity.2.type", "model.llm", '.'),
                After("entity.2.type", "model.embedding", '.'),
                After("entity.3.type", "model.llm", '.'),
            ],
            Model,
        ),
        row(names::INPUT_TOKENS, &[Key("prompt_tokens")], Count),
        row(names::OUTPUT_TOKENS, &[Key("completion_tokens")], Count),
        row(names::TOTAL_TOKENS, &[Key("total_tokens")], Count),
        row(names::CACHE_READ_TOKENS, &[Key("cache_read_input_tokens")], Count),
        row(names::CACHE_WRITE_TOKENS, &[Key("cache_creation_input_tokens")], Count),
        row(names::FINISH_REASONS, &[Key("finish_reason")], Words),
        row(names::CONVERSATION_ID, &[Key("scope.agentic.session")], Text),
    ],
    entity: &[Key("entity.1.name"), Key("workflow.name")],
    content: &[content(Side::In, &[Key("input")]), content(Side::Out, &[Key("response")])],
    kinds: &[
        kind("span.type", Test::Is("workflow"), StepKind::Workflow),
        kind("span.type", Test::Is("agentic.invocation"), StepKind::Agent),
        kind("span.type", Test::Is("agentic.tool.invocation"), StepKind::Tool),
        kind("span.type", Test::Is("agentic.mcp.invocation"), StepKind::Tool),
        kind("span.type", Test::Is("inference"), StepKind::Llm),
        kind("span.type", Test::Is("inference.framework"), StepKind::Llm),
        kind("span.type", Test::Is("retrieval"), StepKind::Retrieval),
        kind("span.type", Test::Is("embedding"), StepKind::Embedding),
        kind("span.type", Test::Present, StepKind::Task),
    ],
    basis: AS_REPORTED,
    ..PLAIN
};
