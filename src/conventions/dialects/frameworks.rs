//! Frameworks that trace themselves.

use super::Shape::{Count, Model, Provider, Session, Text};
use super::Source::{After, Before, Behind, Beside, Between, Json, Key, Name, Reason, Told, Unfailed, Where};
use super::{
    ALL_INCLUSIVE, AS_REPORTED, Announced, Basis, BasisRow, Detect, Dialect, Outcome, PLAIN, SPAN_NAME, Side, Test,
    Untold, content, kind, row,
};
use crate::conventions::names;
use crate::model::{StepKind, StepStatus};

/// Koog, of which a call or a tool has the standard's names alone, in a scope that is the service, and of 1 an id of its own as well.
///
/// Source: Koog (Kotlin) 0.5.2 and 1.1.1, run against a scripted server. An agent of 1 says that it used nothing.
pub const KOOG: Dialect = Dialect {
    name: "koog",
    detect: &[Detect::KeyPrefix("koog.")],
    kinds: &[
        kind("koog.node.id", Test::Present, StepKind::Task),
        kind("koog.node.name", Test::Present, StepKind::Task),
    ],
    content: &[
        content(Side::System, &[Key("system_instructions")]),
        content(Side::In, &[Json("koog.node.input", &[])]),
        content(Side::Out, &[Json("koog.node.output", &[])]),
    ],
    ..PLAIN
};

/// Effect's AI, whose calls have the standard's names and whose tools none of them. The scope is the service.
///
/// Source: `@effect/ai` with `@effect/opentelemetry`, run against a scripted server.
pub const EFFECT: Dialect = Dialect {
    name: "effect",
    detect: &[Detect::NamedBy(
        "Toolkit.handle",
        &["tool", "parameters"],
        "telemetry.sdk.name",
        "@effect/opentelemetry",
    )],
    facts: &[row(names::TOOL_NAME, &[Key("tool")], Text)],
    content: &[content(Side::In, &[Key("parameters")])],
    kinds: &[kind(SPAN_NAME, Test::Is("Toolkit.handle"), StepKind::Tool)],
    ..PLAIN
};

/// Pydantic AI and Logfire: the standard's names, and more around them.
///
/// Source: `pydantic_ai` 2.68 and `logfire` 5.2, their docs, and recordings. A run's own totals stand under
/// `gen_ai.aggregated_usage` and are not read.
pub const PYDANTIC: Dialect = Dialect {
    name: "pydantic",
    detect: &[Detect::Scope("pydantic-ai"), Detect::KeyPrefix("logfire."), Detect::ScopePrefix("logfire")],
    facts: &[
        row(names::AGENT_NAME, &[Key("agent_name")], Text),
        row(names::REQUEST_MODEL, &[Json("request_data", &["model"])], Model),
        row(names::RESPONSE_MODEL, &[Json("response_data", &["model"])], Model),
        row(names::CONVERSATION_ID, &[Key("session.id"), Key("session_id"), Key("conversation_id")], Text),
        row(names::USER_ID, &[Key("user_id")], Text),
        // What Claude Code says in the place of a model, when a request has failed.
        row(
            names::ERROR_MESSAGE,
            &[Where(
                names::RESPONSE_MODEL,
                "<synthetic>",
                &Json(names::OUTPUT_MESSAGES, &["0", "parts", "0", "content"]),
            )],
            Text,
        ),
    ],
    content: &[
        content(
            Side::In,
            &[
                Key("pydantic_ai.all_messages"),
                Key("all_messages_events"),
                Told("events"),
                Key("tool_arguments"),
                Json("request_data", &["messages"]),
                Json("request_data", &["input"]),
            ],
        ),
        content(
            Side::Out,
            &[Key("final_result"), Told("events"), Key("tool_response"), Json("response_data", &["message"])],
        ),
    ],
    usage: &[Key("gen_ai.usage.raw"), Json("response_data", &["usage"])],
    kinds: &[
        kind(SPAN_NAME, Test::Is("agent run"), StepKind::Agent),
        kind("logfire.msg_template", Test::Starts("Embedding Creation with "), StepKind::Embedding),
    ],
    basis: ALL_INCLUSIVE,
    announced: Some(Announced { key: "logfire.span_type", word: "pending_span", parent: "logfire.pending_parent_id" }),
    ..PLAIN
};

/// Logfire's of the Claude agent SDK, which opens a call when the one before it has ended, be there another one or not: the name of the
/// model comes with the first word of the answer.
///
/// Source: `logfire` 5.4 with `claude-agent-sdk` 0.2, run against a scripted server.
pub const LOGFIRE_CLAUDE: Dialect = Dialect {
    name: "logfire-claude",
    variant_of: "pydantic",
    detect: &[Detect::Named("logfire.claude_agent_sdk", "chat")],
    kinds: &[kind(
        names::OPERATION,
        Test::Without(&[
            names::REQUEST_MODEL,
            names::OUTPUT_MESSAGES,
            names::RESPONSE_ID,
            names::OUTPUT_TOKENS,
            names::ERROR_TYPE,
        ]),
        StepKind::Task,
    )],
    ..PYDANTIC
};

/// Pydantic AI's own spans. A stream that the provider refused leaves a call with a message that has nothing in it, and the error
/// on the agent alone (2.68); all other failures stand on the call.
///
/// Source: `pydantic_ai` 1.50 and 2.68, run against a scripted server.
pub const PYDANTIC_AI: Dialect = Dialect {
    name: "pydantic-ai",
    variant_of: "pydantic",
    detect: &[Detect::Scope("pydantic-ai")],
    failed_without_response: &["chat"],
    // One that its program gave up waiting for has no message at all, and of its model at most the one that was asked.
    failure_leaves_answer: true,
    cancelled_without_response: &["chat"],
    cancelled_without_reason: &["chat"],
    ..PYDANTIC
};

/// Logfire's report of a stream of OpenAI's or Anthropic's client, with the answer's id and, where its end was read, the reason for it.
///
/// Source: `logfire` 5.4, run against a scripted server; before (5.2) a report has no id, and not always a reason.
pub const LOGFIRE_STREAM: Dialect = Dialect {
    name: "logfire-stream",
    variant_of: "pydantic",
    detect: &[
        Detect::Begins("logfire.openai", "streaming response from "),
        Detect::Begins("logfire.anthropic", "streaming response from "),
    ],
    cancelled_without_reason: &["chat"],
    ..PYDANTIC
};

/// Pydantic's evaluations: an experiment, its cases, and who judges them, all of them named by templates.
///
/// Source: `pydantic-evals` 5.4 with `logfire` 5.4, run against a scripted server.
pub const PYDANTIC_EVALS: Dialect = Dialect {
    name: "pydantic-evals",
    variant_of: "pydantic",
    detect: &[Detect::Scope("pydantic-evals")],
    entity: &[Key("name")],
    content: &[content(Side::In, &[Key("inputs")]), content(Side::Out, &[Key("output")])],
    kinds: &[
        kind(names::OPERATION, Test::Is("experiment"), StepKind::Workflow),
        kind("evaluator_name", Test::Present, StepKind::Evaluator),
        kind("case_name", Test::Present, StepKind::Task),
    ],
    ..PYDANTIC
};

/// Logfire's instrumentation of the OpenAI Agents SDK, whose spans have a template for a name.
///
/// Source: `logfire` 5.4 `_internal/integrations/openai_agents.py`, run against a scripted server.
pub const LOGFIRE_OPENAI_AGENTS: Dialect = Dialect {
    name: "logfire-openai-agents",
    variant_of: "pydantic",
    detect: &[Detect::Scope("logfire.openai_agents")],
    facts: &[
        row(names::CONVERSATION_ID, &[Key("group_id")], Text),
        row(names::AGENT_NAME, &[Key("agent_name")], Text),
        row(names::ERROR_MESSAGE, &[Json("error", &["data", "error"]), Json("error", &["message"])], Text),
    ],
    entity: &[Key("name")],
    content: &[
        content(Side::In, &[Key("input"), Key("raw_input")]),
        content(Side::Out, &[Key("output"), Json("response", &["output"])]),
    ],
    usage: &[Key("gen_ai.usage.raw"), Key("usage"), Json("response", &["usage"])],
    kinds: &[
        kind("logfire.msg_template", Test::Starts("OpenAI Agents trace: "), StepKind::Workflow),
        kind("logfire.msg_template", Test::Starts("Agent run: "), StepKind::Agent),
        kind("logfire.msg_template", Test::Starts("Function: "), StepKind::Tool),
        kind("logfire.msg_template", Test::Starts("Chat completion with "), StepKind::Llm),
        kind("logfire.msg_template", Test::Starts("Responses API"), StepKind::Llm),
        kind("logfire.msg_template", Test::Starts("Guardrail "), StepKind::Guardrail),
        kind("logfire.msg_template", Test::Present, StepKind::Task),
    ],
    ..PYDANTIC
};

/// Haystack's own tracer, which writes whole inputs and outputs as JSON.
///
/// Source: `haystack-ai` 3.4 and recordings. What a component is stands in the name of its class.
pub const HAYSTACK: Dialect = Dialect {
    name: "haystack",
    detect: &[Detect::KeyPrefix("haystack."), Detect::Scope("haystack")],
    facts: &[
        row(
            names::RESPONSE_MODEL,
            &[
                Json("haystack.agent.step.llm.output", &["replies", "0", "meta", "model"]),
                Json("haystack.component.output", &["replies", "0", "meta", "model"]),
                // `haystack-ai` 2.9 writes the message as its class has it.
                Json("haystack.component.output", &["replies", "0", "_meta", "model"]),
                Json("haystack.component.output", &["meta", "0", "model"]),
                Json("haystack.component.output", &["meta", "model"]),
            ],
            Model,
        ),
        row(
            names::TOOL_NAME,
            &[
                Key("haystack.tool.name"),
                Json(
                    "haystack.component.output",
                    &["tool_messages", "0", "content", "0", "tool_call_result", "origin", "tool_name"],
                ),
            ],
            Text,
        ),
    ],
    entity: &[Key("haystack.component.name")],
    content: &[
        content(
            Side::In,
            &[
                Key("haystack.agent.step.llm.input"),
                Key("haystack.agent.step.tool.input"),
                Key("haystack.agent.input"),
                Key("haystack.component.input"),
                Key("haystack.pipeline.input_data"),
            ],
        ),
        content(
            Side::Out,
            &[
                Key("haystack.agent.step.llm.output"),
                Key("haystack.agent.step.tool.output"),
                Key("haystack.agent.output"),
                Key("haystack.component.output"),
                Key("haystack.pipeline.output_data"),
            ],
        ),
    ],
    usage: &[
        Json("haystack.agent.step.llm.output", &["replies", "0", "meta", "usage"]),
        Json("haystack.component.output", &["replies", "0", "meta", "usage"]),
        Json("haystack.component.output", &["replies", "0", "_meta", "usage"]),
        Json("haystack.component.output", &["meta", "0", "usage"]),
        Json("haystack.component.output", &["meta", "usage"]),
    ],
    kinds: &[
        kind(SPAN_NAME, Test::Is("haystack.agent.step.llm"), StepKind::Llm),
        kind(SPAN_NAME, Test::Is("haystack.agent.step.tool"), StepKind::Tool),
        kind(SPAN_NAME, Test::IsRoot("haystack.agent.run"), StepKind::Agent),
        kind("haystack.component.type", Test::Is("Agent"), StepKind::Agent),
        // Of Haystack 2, and with all tools of an answer in one span.
        kind("haystack.component.type", Test::Is("ToolInvoker"), StepKind::Tool),
        kind("haystack.component.type", Test::Ends("Generator"), StepKind::Llm),
        kind("haystack.component.type", Test::Ends("Embedder"), StepKind::Embedding),
        kind("haystack.component.type", Test::Ends("Retriever"), StepKind::Retrieval),
        kind("haystack.component.type", Test::Ends("Ranker"), StepKind::Rerank),
        kind("haystack.component.type", Test::Ends("Evaluator"), StepKind::Evaluator),
        // Not `haystack.tracing.auto_enable`, which runs when it is imported, in a trace of its own.
        kind(SPAN_NAME, Test::Starts("haystack.agent."), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("haystack.component."), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("haystack.pipeline."), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("haystack.async_pipeline."), StepKind::Task),
    ],
    outcomes: &[
        Outcome { from: Key("haystack.tool.error"), word: "true", status: StepStatus::Error, message: &[] },
        Outcome {
            from: Json(
                "haystack.component.output",
                &["tool_messages", "0", "content", "0", "tool_call_result", "error"],
            ),
            word: "true",
            status: StepStatus::Error,
            message: &[Json(
                "haystack.component.output",
                &["tool_messages", "0", "content", "0", "tool_call_result", "result"],
            )],
        },
    ],
    ..PLAIN
};

/// Haystack's with its integration of Anthropic of before, which has the counts of that under OpenAI's names and leaves cached tokens out.
/// What takes no text in the place of messages is of before 5.10; cached tokens are counted in since 5.16.
///
/// Source: `anthropic-haystack` 4.6 and 5.9 with `haystack-ai` 2.21 and 2.29, run against a scripted server, and the code of 5.3 to 8.0.
pub const HAYSTACK_ANTHROPIC: Dialect = Dialect {
    name: "haystack-anthropic",
    variant_of: "haystack",
    detect: &[Detect::ValueWithout(
        "haystack.component.type",
        "Anthropic",
        "haystack.component.input_spec",
        "ChatMessage] | str",
    )],
    basis: &[BasisRow { provider: "", basis: Basis::Exclusive }],
    ..HAYSTACK
};

/// Where Genkit says what an action is.
const GENKIT_SUBTYPE: &str = "genkit:metadata:subtype";

/// Genkit: keys with colons, whole inputs and outputs as JSON.
///
/// Source: `genkit` 1.42 and recordings; for Go `github.com/firebase/genkit/go` 1.4.0, run against a scripted server, where a
/// model's name alone tells its provider. `generate` spans repeat what the model spans below them say.
pub const GENKIT: Dialect = Dialect {
    name: "genkit",
    detect: &[Detect::KeyPrefix("genkit:"), Detect::Scope("genkit-tracer")],
    facts: &[
        row(
            names::PROVIDER,
            &[
                Before("genkit:key", "/model/", '/'),
                Before("genkit:key", "/embedder/", '/'),
                Where(GENKIT_SUBTYPE, "model", &Before("genkit:name", "", '/')),
                Where(GENKIT_SUBTYPE, "embedder", &Before("genkit:name", "", '/')),
            ],
            Provider,
        ),
        row(
            names::REQUEST_MODEL,
            &[
                After("genkit:key", "/model/", '/'),
                After("genkit:key", "/embedder/", '/'),
                Where(GENKIT_SUBTYPE, "model", &After("genkit:name", "", '/')),
                Where(GENKIT_SUBTYPE, "embedder", &After("genkit:name", "", '/')),
            ],
            Model,
        ),
        row(
            names::RESPONSE_MODEL,
            &[
                Json("genkit:output", &["raw", "model"]),
                Json("genkit:output", &["raw", "modelVersion"]),
                Json("genkit:output", &["custom", "model"]),
            ],
            Model,
        ),
        row(
            names::RESPONSE_ID,
            &[
                Json("genkit:output", &["raw", "id"]),
                Json("genkit:output", &["raw", "responseId"]),
                Json("genkit:output", &["custom", "id"]),
            ],
            Text,
        ),
        row(names::CONVERSATION_ID, &[Key("genkit:metadata:sessionId"), Key("genkit:sessionId")], Text),
    ],
    entity: &[Key("genkit:name")],
    content: &[content(Side::In, &[Key("genkit:input")]), content(Side::Out, &[Key("genkit:output")])],
    usage: &[
        Json("genkit:output", &["raw", "usage"]),
        Json("genkit:output", &["raw", "usageMetadata"]),
        Json("genkit:output", &["usage"]),
    ],
    kinds: &[
        kind("genkit:metadata:subtype", Test::Is("model"), StepKind::Llm),
        kind("genkit:metadata:subtype", Test::Is("background-model"), StepKind::Llm),
        kind("genkit:metadata:subtype", Test::Is("tool"), StepKind::Tool),
        kind("genkit:metadata:subtype", Test::Is("tool.v2"), StepKind::Tool),
        kind("genkit:metadata:subtype", Test::Is("embedder"), StepKind::Embedding),
        kind("genkit:metadata:subtype", Test::Is("retriever"), StepKind::Retrieval),
        kind("genkit:metadata:subtype", Test::Is("reranker"), StepKind::Rerank),
        kind("genkit:metadata:subtype", Test::Is("evaluator"), StepKind::Evaluator),
        kind("genkit:metadata:subtype", Test::Is("agent"), StepKind::Agent),
        kind("genkit:metadata:subtype", Test::Is("flow"), StepKind::Workflow),
        kind("genkit:type", Test::Is("flow"), StepKind::Workflow),
        kind("genkit:type", Test::Present, StepKind::Task),
    ],
    outcomes: &[Outcome { from: Key("genkit:state"), word: "error", status: StepStatus::Error, message: &[] }],
    ..PLAIN
};

/// Google's Agent Development Kit.
///
/// Source: `google-adk` 2.13 `telemetry`, and recordings. Its hand-over from one agent to another is told like a tool
/// that the program had; several tools at once have a span of their own around theirs. Of models that it calls by LiteLLM it writes reasoning twice.
pub const GOOGLE_ADK: Dialect = Dialect {
    name: "google-adk",
    detect: &[Detect::Scope("gcp.vertex.agent"), Detect::KeyPrefix("gcp.vertex.agent.")],
    // Of 1.0, the names of agents and tools stand in brackets.
    entity: &[Behind("execute_tool "), Between("tool_call [", "]"), Between("agent_run [", "]")],
    content: &[
        content(Side::In, &[Key("gcp.vertex.agent.tool_call_args"), Key("gcp.vertex.agent.llm_request")]),
        content(Side::Out, &[Key("gcp.vertex.agent.tool_response"), Key("gcp.vertex.agent.llm_response")]),
    ],
    usage: &[
        Json("gcp.vertex.agent.llm_response", &["usage_metadata"]),
        Json("gcp.vertex.agent.llm_response", &["usageMetadata"]),
    ],
    kinds: &[
        kind(names::TOOL_NAME, Test::Is("transfer_to_agent"), StepKind::Task),
        kind(names::TOOL_NAME, Test::Is("(merged tools)"), StepKind::Task),
        kind(SPAN_NAME, Test::Is("execute_tool (merged)"), StepKind::Task),
        // One that failed bears no more than that in 1.14.
        kind(SPAN_NAME, Test::Is("execute_tool transfer_to_agent"), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("execute_tool "), StepKind::Tool),
        kind(SPAN_NAME, Test::Is("tool_call [transfer_to_agent]"), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("tool_call ["), StepKind::Tool),
        kind(SPAN_NAME, Test::Starts("tool_response ["), StepKind::Task),
        kind(SPAN_NAME, Test::Is("call_llm"), StepKind::Llm),
        kind(SPAN_NAME, Test::Starts("agent_run"), StepKind::Agent),
        kind(SPAN_NAME, Test::Is("invocation"), StepKind::Workflow),
    ],
    // A stream that was given up has its last part for an answer, and so has one that broke off, which says so itself (1.26).
    outcomes: &[Outcome {
        from: Unfailed(&Json("gcp.vertex.agent.llm_response", &["partial"])),
        word: "true",
        status: StepStatus::Cancelled,
        message: &[],
    }],
    basis: ALL_INCLUSIVE,
    adds_reasoning: true,
    cancelled_without_response: &["generate_content"],
    ..PLAIN
};

/// The same for JavaScript, which writes on a span only when all went well, and says nothing of a failure.
///
/// Source: `@google/adk` 2.0.0, run against a scripted server.
pub const GOOGLE_ADK_JS: Dialect = Dialect {
    name: "google-adk-js",
    variant_of: "google-adk",
    detect: &[Detect::ScopeBy("gcp.vertex.agent", "telemetry.sdk.language", "nodejs")],
    fails_without: &[
        ("call_llm", &["gcp.vertex.agent.llm_response", names::INPUT_TOKENS, names::FINISH_REASONS]),
        (
            "execute_tool ",
            &["gcp.vertex.agent.tool_response", "gen_ai.tool.type", "gen_ai.tool.description", names::TOOL_CALL_ID],
        ),
    ],
    ..GOOGLE_ADK
};

/// The same for Java, which leaves the status unset where a request failed that nobody reads the error of, and has an exception of a
/// tool in the words that it gave the model for it.
///
/// Source: `google-adk` 1.8 for Java, run against a scripted server.
pub const GOOGLE_ADK_JAVA: Dialect = Dialect {
    name: "google-adk-java",
    variant_of: "google-adk",
    detect: &[Detect::ScopeBy("gcp.vertex.agent", "telemetry.sdk.language", "java")],
    outcomes: &[Outcome {
        from: Json("gcp.vertex.agent.tool_response", &["status"]),
        word: "error",
        status: StepStatus::Error,
        message: &[
            Json("gcp.vertex.agent.tool_response", &["message"]),
            Json("gcp.vertex.agent.tool_response", &["error"]),
        ],
    }],
    fails_without: &[("call_llm", &["gcp.vertex.agent.llm_response", names::INPUT_TOKENS, names::FINISH_REASONS])],
    ..GOOGLE_ADK
};

/// The same for Go. A stream whose end nobody read has an empty word for a reason, and says that nothing came out. So has an answer
/// without any reason: of models of the program's own, or to a prompt that Gemini blocked.
///
/// Source: `google.golang.org/adk` 0.3.0, 0.5.0, 0.6.0 and 1.1.0, and `google.golang.org/adk/v2` 2.2.0, run against a scripted server, and
/// the code of 0.4.0 to 1.4.0. Its model of OpenAI's is one of those that reasoning is written twice of.
pub const GOOGLE_ADK_GO: Dialect = Dialect {
    name: "google-adk-go",
    variant_of: "google-adk",
    detect: &[Detect::ScopeBy("gcp.vertex.agent", "telemetry.sdk.language", "go")],
    facts: &[
        row(names::INPUT_TOKENS, &[Key("gen_ai.response.prompt_token_count")], Count),
        row(names::OUTPUT_TOKENS, &[Key("gen_ai.response.candidates_token_count")], Count),
        row(names::CACHE_READ_TOKENS, &[Key("gen_ai.response.cached_content_token_count")], Count),
        row(names::TOTAL_TOKENS, &[Key("gen_ai.response.total_token_count")], Count),
        row(names::REASONING_TOKENS, &[Key("gen_ai.usage.experimental.reasoning_tokens")], Count),
    ],
    usage: &[Json("gcp.vertex.agent.llm_response", &["UsageMetadata"])],
    outcomes: &[ADK_GO_PARTIAL],
    untold: &[
        Untold {
            when: &[("gcp.vertex.agent.llm_response", Test::Has("\"Partial\":true"))],
            counts: &[names::OUTPUT_TOKENS, names::REASONING_TOKENS, names::TOTAL_TOKENS],
        },
        Untold {
            when: &[
                (names::OPERATION, Test::Is("generate_content")),
                (names::OPERATION, Test::Without(&[names::FINISH_REASONS])),
                (names::OUTPUT_TOKENS, Test::None),
            ],
            counts: &[names::OUTPUT_TOKENS, names::REASONING_TOKENS],
        },
    ],
    tells_no_provider: true,
    ..GOOGLE_ADK
};

/// A stream that broke off, or was given up, has its last part for an answer.
const ADK_GO_PARTIAL: Outcome = Outcome {
    from: Json("gcp.vertex.agent.llm_response", &["Partial"]),
    word: "true",
    status: StepStatus::Cancelled,
    message: &[],
};

/// The same of before 0.5, where a tool that failed tells it in what it gave the model, and nowhere else.
///
/// Source: 0.3.0, run against a scripted server, and the code of 0.4.0. Its scope has no version.
pub const GOOGLE_ADK_GO_FIRST: Dialect = Dialect {
    name: "google-adk-go-first",
    detect: &[Detect::Release {
        scope: "gcp.vertex.agent",
        version: Some(""),
        by: ("telemetry.sdk.language", "go"),
        with: "",
    }],
    outcomes: &[
        ADK_GO_PARTIAL,
        Outcome {
            from: Reason("gcp.vertex.agent.tool_response", &["error"]),
            word: "",
            status: StepStatus::Error,
            message: &[Reason("gcp.vertex.agent.tool_response", &["error"])],
        },
    ],
    ..GOOGLE_ADK_GO
};

/// The same of 0.5.0, whose scope still says 0.3.0.
pub const GOOGLE_ADK_GO_TOTAL: Dialect = Dialect {
    name: "google-adk-go-total",
    detect: &[Detect::Release {
        scope: "gcp.vertex.agent",
        version: Some("0.3.0"),
        by: ("telemetry.sdk.language", "go"),
        with: "",
    }],
    output_is_total: true,
    ..GOOGLE_ADK_GO
};

/// The same of 1.1.0, which names reasoning as an experiment, and counts it beside the output.
pub const GOOGLE_ADK_GO_APART: Dialect = Dialect {
    name: "google-adk-go-apart",
    detect: &[Detect::Release {
        scope: "gcp.vertex.agent",
        version: None,
        by: ("telemetry.sdk.language", "go"),
        with: "gen_ai.usage.experimental.",
    }],
    adds_reasoning: false,
    reasoning_apart: &[""],
    ..GOOGLE_ADK_GO
};

/// The same of before 2, which begins the span of a call before it looks whether the run may make another one.
///
/// Source: `google-adk` 1.16 `InvocationContext.increment_llm_call_count`, run with a model of its own.
pub const GOOGLE_ADK_CALL: Dialect = Dialect {
    name: "google-adk-call",
    variant_of: "google-adk",
    detect: &[Detect::Named("gcp.vertex.agent", "call_llm")],
    kinds: &[
        kind(names::EXCEPTION_MESSAGE, Test::Starts("Max number of llm calls limit of "), StepKind::Task),
        kind(SPAN_NAME, Test::Is("call_llm"), StepKind::Llm),
    ],
    ..GOOGLE_ADK
};

/// TanStack AI: a span of its own around the calls of a loop, which has their sum.
///
/// Source: `@tanstack/ai` 0.58.0 `otelMiddleware`, run against a scripted server. The scope is the program's. A loop that failed
/// has no word of its own, and is known by what it says for Langfuse beside the standard's names.
pub const TANSTACK: Dialect = Dialect {
    name: "tanstack-ai",
    detect: &[
        Detect::KeyPrefix("tanstack.ai."),
        Detect::Within { scope: "", name: "chat ", key: "langfuse.trace.input", part: "" },
    ],
    kinds: &[
        kind("tanstack.ai.iterations", Test::Present, StepKind::Agent),
        kind("langfuse.trace.input", Test::Without(&["langfuse.observation.type", names::OPERATION]), StepKind::Agent),
    ],
    content: &[
        content(
            Side::In,
            &[Json(names::INPUT_MESSAGES, &["0", "role=tool", "content"]), Key("langfuse.observation.input")],
        ),
        content(
            Side::Out,
            &[Json(names::OUTPUT_MESSAGES, &["0", "role=tool", "content"]), Key("langfuse.observation.output")],
        ),
    ],
    outcomes: &[Outcome {
        from: Key("tanstack.ai.tool.outcome"),
        word: "error",
        status: StepStatus::Error,
        message: &[],
    }],
    basis: AS_REPORTED,
    ..PLAIN
};

/// Strands Agents: old and new names at once, and the sum of all calls on the agent.
///
/// Source: `strands-agents` 1.62 `telemetry/tracer.py`, 1.28, 0.1.7, `@strands-agents/sdk` 1.16, and recordings. Counts are the provider's, of
/// which the span does not tell the name: in JavaScript the scope and the provider are both named as the service is.
pub const STRANDS: Dialect = Dialect {
    name: "strands",
    detect: &[
        Detect::Scope("strands.telemetry.tracer"),
        Detect::Value("gen_ai.system", "strands-agents"),
        Detect::Value(names::PROVIDER, "strands-agents"),
        Detect::Key("gen_ai.event.start_time"),
    ],
    names_itself: true,
    facts: &[
        row(names::ERROR_TYPE, &[Key("strands.cancellation.type")], Text),
        row(names::TOOL_NAME, &[Key("tool.name")], Text),
        row(names::TOOL_CALL_ID, &[Key("tool.id")], Text),
    ],
    content: &[content(Side::In, &[Key("tool.parameters")])],
    kinds: &[
        // Of 0.1, which has no operations: the agent and its calls bear the same names.
        kind(SPAN_NAME, Test::Is("Model invoke"), StepKind::Llm),
        kind(SPAN_NAME, Test::Starts("Tool: "), StepKind::Tool),
        kind(SPAN_NAME, Test::Starts("Cycle "), StepKind::Task),
        kind("agent.name", Test::Without(&[names::OPERATION]), StepKind::Agent),
        kind(names::OPERATION, Test::Is("invoke_graph"), StepKind::Workflow),
        kind(names::OPERATION, Test::Is("invoke_swarm"), StepKind::Workflow),
        // It asks the model by itself, of which nothing else tells.
        kind(names::OPERATION, Test::Is("execute_structured_output"), StepKind::Llm),
    ],
    outcomes: &[
        Outcome { from: Key("gen_ai.tool.status"), word: "error", status: StepStatus::Error, message: &[] },
        Outcome { from: Key("tool.status"), word: "error", status: StepStatus::Error, message: &[] },
    ],
    basis: AS_REPORTED,
    // From 1.24 to 1.34 a call that was refused and is asked again says no more than a stream that was given up. All others have the time
    // of their end, or a status.
    cancelled_without: &[("chat", "gen_ai.event.start_time", "gen_ai.event.end_time")],
    ..PLAIN
};

/// Strands for Python, since it names what came from a cache as the standard does: its input has that in it then, whoever served the
/// model.
///
/// Source: `strands-agents` 1.62 `telemetry/metrics.py` (`_total_prompt_tokens`), run against a scripted server; 1.50 and before tell
/// the provider's counts, under other names.
pub const STRANDS_PYTHON: Dialect = Dialect {
    name: "strands-python",
    variant_of: "strands",
    detect: &[Detect::ScopeWith("strands.telemetry.tracer", names::CACHE_READ_TOKENS)],
    basis: ALL_INCLUSIVE,
    ..STRANDS
};

/// Microsoft's Agent Framework.
///
/// Source: `agent-framework-core` 1.23 `observability.py` with the clients of OpenAI, Anthropic and Bedrock, run against a scripted
/// server. Building a workflow (`workflow.build`) is no step of any kind: it has a trace of its own, in which nothing runs. Whoever
/// stops reading a stream leaves a call without a word of what was answered; so may an agent that did answer.
pub const AGENT_FRAMEWORK: Dialect = Dialect {
    name: "agent-framework",
    detect: &[Detect::ScopePrefix("agent_framework"), Detect::ScopePrefix("Experimental.Microsoft.Agents")],
    entity: &[Key("workflow.name"), Key("workflow.id")],
    kinds: &[
        kind(SPAN_NAME, Test::Starts("workflow.run"), StepKind::Workflow),
        kind(SPAN_NAME, Test::Starts("executor.process"), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("edge_group.process"), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("message.send"), StepKind::Task),
    ],
    basis: AS_REPORTED,
    cancelled_without_response: &["chat"],
    ..PLAIN
};

/// Semantic Kernel: the standard's names of its time.
///
/// Source: `semantic-kernel` 1.45 and 1.30 `utils/telemetry`, run against a scripted server. A call that was answered has at least a reason
/// for its end; an agent need not tell anything.
pub const SEMANTIC_KERNEL: Dialect = Dialect {
    name: "semantic-kernel",
    detect: &[Detect::ScopePrefix("semantic_kernel"), Detect::ScopePrefix("Microsoft.SemanticKernel")],
    facts: &[
        row(names::INPUT_TOKENS, &[Key("gen_ai.response.prompt_tokens")], Count),
        row(names::OUTPUT_TOKENS, &[Key("gen_ai.response.completion_tokens")], Count),
    ],
    kinds: &[
        kind(names::OPERATION, Test::Starts("chat."), StepKind::Llm),
        kind(names::OPERATION, Test::Starts("text."), StepKind::Llm),
    ],
    basis: AS_REPORTED,
    cancelled_without_response: &["chat"],
    ..PLAIN
};

/// Semantic Kernel's functions, of which a model calls those that have a name behind that of a plugin. It says `execute_tool` of all, and before
/// that nothing.
///
/// Source: `semantic-kernel` 1.30 and 1.45 `functions/kernel_function.py`, run against a scripted server. A prompt that has no plugin bears a
/// name that was made up for it (`Kernel.invoke_prompt`).
pub const SEMANTIC_KERNEL_FUNCTIONS: Dialect = Dialect {
    name: "semantic-kernel-functions",
    variant_of: "semantic-kernel",
    detect: &[Detect::Scope("semantic_kernel.functions.kernel_function")],
    entity: &[Behind("execute_tool "), Name],
    kinds: &[
        kind(names::TOOL_CALL_ID, Test::Present, StepKind::Tool),
        kind(names::TOOL_NAME, Test::Has("-"), StepKind::Tool),
        kind(SPAN_NAME, Test::Has("-"), StepKind::Tool),
        kind(names::OPERATION, Test::Is("execute_tool"), StepKind::Task),
    ],
    ..SEMANTIC_KERNEL
};

/// Mirascope, whose calls have the standard's names, and what was cached and thought in an object beside them: all of it is part of input
/// and output, but of Anthropic's streams. What goes on with an answer has its counts once more.
///
/// Source: `mirascope` 2.4 with the clients of OpenAI, Anthropic and Google, run against a scripted server.
pub const MIRASCOPE: Dialect = Dialect {
    name: "mirascope",
    detect: &[Detect::Scope("mirascope.llm"), Detect::Scope("mirascope.ops")],
    facts: &[
        row(names::CONVERSATION_ID, &[Key("mirascope.ops.session.id")], Session),
        row(
            names::CACHE_READ_TOKENS,
            &[Beside(names::OPERATION, &Json("mirascope.response.usage", &["cache_read_tokens"]))],
            Count,
        ),
        row(
            names::CACHE_WRITE_TOKENS,
            &[Beside(names::OPERATION, &Json("mirascope.response.usage", &["cache_write_tokens"]))],
            Count,
        ),
        row(
            names::REASONING_TOKENS,
            &[Beside(names::OPERATION, &Json("mirascope.response.usage", &["reasoning_tokens"]))],
            Count,
        ),
    ],
    content: &[
        content(Side::In, &[Key("mirascope.trace.arg_values")]),
        content(Side::Out, &[Key("mirascope.trace.output")]),
    ],
    kinds: &[kind("mirascope.type", Test::Without(&[names::OPERATION]), StepKind::Task)],
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// Streams of Anthropic's models, of which Mirascope passes on what Anthropic counts; the id of an answer is there of whole ones alone.
///
/// Source: `mirascope` 2.4 `llm/providers/anthropic/_utils/decode.py`.
pub const MIRASCOPE_STREAM: Dialect = Dialect {
    name: "mirascope-stream",
    variant_of: "mirascope",
    detect: &[Detect::ScopeLacking("mirascope.llm", names::REQUEST_MODEL, "anthropic", names::RESPONSE_ID)],
    basis: &[BasisRow { provider: "", basis: Basis::Exclusive }],
    ..MIRASCOPE
};

/// AutoGen: agents and tools; the calls come from the instrumentation of the client.
///
/// Source: `microsoft/autogen` `_telemetry`; no recording.
pub const AUTOGEN: Dialect = Dialect {
    name: "autogen",
    detect: &[Detect::ScopePrefix("autogen"), Detect::Value("gen_ai.system", "autogen")],
    ..PLAIN
};

/// AG2's own middleware, which tells what a call has used once more beside it, and in the same way of calls that have no span.
///
/// Source: `ag2` 1.2 `middleware/builtin/telemetry.py`, run against a scripted server; what it uses beside calls from the code.
pub const AG2: Dialect = Dialect {
    name: "ag2",
    detect: &[Detect::KeyPrefix("ag2."), Detect::Scope("opentelemetry.instrumentation.ag2")],
    facts: &[row(names::TOTAL_TOKENS, &[Key("ag2.usage.total_tokens")], Count)],
    kinds: &[
        kind("ag2.usage.kind", Test::Is("compaction"), StepKind::Llm),
        kind("ag2.usage.kind", Test::Is("aggregation"), StepKind::Llm),
        kind("ag2.usage.kind", Test::Present, StepKind::Task),
    ],
    basis: &[
        BasisRow { provider: "anthropic", basis: Basis::Exclusive },
        BasisRow { provider: "aws.bedrock", basis: Basis::Exclusive },
        BasisRow { provider: "", basis: Basis::Inclusive },
    ],
    ..PLAIN
};

/// Spring AI, by Micrometer. A call of a model bears names of its own only where it has tools; its scope is that of all that Spring
/// Boot traces, or the one that Micrometer's documentation gives.
///
/// Source: `spring-projects/spring-ai` observation conventions, `AnthropicChatModel.java`; `OpenTelemetryTracingAutoConfiguration` of
/// Spring Boot; 1.1 and 2.0, run against a scripted server.
pub const SPRING_AI: Dialect = Dialect {
    name: "spring-ai",
    detect: &[
        Detect::KeyPrefix("spring.ai."),
        Detect::ScopeWith("org.springframework.boot", "gen_ai."),
        Detect::ScopeWith("io.micrometer.micrometer-tracing", "gen_ai."),
    ],
    facts: &[row(names::TOOL_NAME, &[Key("spring.ai.tool.definition.name")], Text)],
    content: &[
        content(Side::In, &[Key("spring.ai.tool.call.arguments")]),
        content(Side::Out, &[Key("spring.ai.tool.call.result")]),
    ],
    kinds: &[
        kind("spring.ai.kind", Test::Is("tool_call"), StepKind::Tool),
        kind("spring.ai.kind", Test::Is("vector_store"), StepKind::Retrieval),
        kind("spring.ai.kind", Test::Present, StepKind::Task),
    ],
    basis: AS_REPORTED,
    // A stream that was given up says that all is well.
    cancelled_without_response: &["chat"],
    is_silent_without_model: true,
    ..PLAIN
};

/// AgentScope: what the provider reported of a call stands in what the call returned, as Python prints it.
///
/// Source: `agentscope` 1.0.21 with the clients of OpenAI and Anthropic, run against a scripted server.
pub const AGENTSCOPE: Dialect = Dialect {
    name: "agentscope",
    detect: &[Detect::Scope("agentscope"), Detect::KeyPrefix("agentscope.")],
    usage: &[Json("agentscope.function.output", &["usage", "metadata"])],
    content: &[content(Side::In, &[Json("agentscope.function.input", &["args", "0"])])],
    basis: AS_REPORTED,
    ..PLAIN
};

/// mcp-agent: methods of its classes, each with the name of the agent. One of them is the agent at work, with the sum of its calls; and of
/// the several that pass a tool's call on, the first one counts.
///
/// Source: `mcp-agent` 0.2.6, run against a scripted server. The scope is the service.
pub const MCP_AGENT: Dialect = Dialect {
    name: "mcp-agent",
    detect: &[
        Detect::Key("request_params.use_history"),
        Detect::Called("AugmentedLLM."),
        Detect::Called("MCPAggregator."),
        Detect::Called("MCPAgentClientSession."),
        Detect::Within { scope: "", name: "Agent.", key: names::AGENT_NAME, part: "" },
    ],
    content: &[
        content(Side::In, &[Key("message.content"), Key("tool_args")]),
        content(Side::Out, &[Key("result.content.0.text")]),
    ],
    kinds: &[
        kind("request_params.use_history", Test::Without(&[names::OPERATION]), StepKind::Agent),
        kind(SPAN_NAME, Test::Ends(".execute_tool_call"), StepKind::Tool),
        kind(SPAN_NAME, Test::Starts("MCPAggregator."), StepKind::Task),
        kind(SPAN_NAME, Test::Starts("MCPAgentClientSession."), StepKind::Task),
        kind(SPAN_NAME, Test::Ends(".generate_str"), StepKind::Task),
        kind(SPAN_NAME, Test::Ends(".call_tool"), StepKind::Task),
        kind(SPAN_NAME, Test::Ends(".list_tools"), StepKind::Task),
        kind(SPAN_NAME, Test::Ends(".select_model"), StepKind::Task),
        kind(SPAN_NAME, Test::Ends(".initialize"), StepKind::Task),
        kind(SPAN_NAME, Test::Ends(".attach_llm"), StepKind::Task),
        kind(SPAN_NAME, Test::Ends(".get_capabilities"), StepKind::Task),
        kind(SPAN_NAME, Test::Ends(".shutdown"), StepKind::Task),
    ],
    ..PLAIN
};
