//! Frameworks for Go that trace themselves.

use super::Shape::{Count, Model, Session, Text, User};
use super::Source::{Beside, Json, Key, Lacking, Uncounted, Unfailed, Where};
use super::{
    ALL_INCLUSIVE, Basis, BasisRow, Detect, Dialect, KindRow, LANGFUSE, Outcome, PLAIN, SPAN_NAME, Side, Source, Test,
    Untold, content, kind, row,
};
use crate::conventions::names;
use crate::model::{StepKind, StepStatus};

/// Where trpc-agent-go's exporter for Langfuse has a call's counts.
const TRPC_COUNTS: &str = "langfuse.observation.usage_details";

/// Tools that trpc-agent-go has no call of a model for: one around several, and its hand-over from one agent to another.
const TRPC_NO_TOOLS: &[KindRow] = &[
    kind(names::TOOL_NAME, Test::Is("transfer_to_agent"), StepKind::Task),
    kind(names::TOOL_NAME, Test::Is("(merged tools)"), StepKind::Task),
];

/// What says of a call of trpc-agent-go that it is a stream, where its answer has nothing in it.
const TRPC_LEFT: Source = Where(
    names::OPERATION,
    "chat",
    &Beside(
        "runspan.original.gen_ai.response.finish_reasons",
        &Unfailed(&Lacking(
            &[names::FINISH_REASONS, names::OUTPUT_MESSAGES],
            &Uncounted(&Key("gen_ai.request.is_stream")),
        )),
    ),
);

/// trpc-agent-go, which names itself in the place of the provider, and says of what it does not know that it was nothing: a count, or
/// the reason for the end of an answer, which its streams of Anthropic's never have.
///
/// Source: `trpc.group/trpc-go/trpc-agent-go` 1.10.0 with OpenAI and Anthropic, by its own exporter and by that for Langfuse, run against a
/// scripted server. What OpenAI read from a cache is a part of the input; what Anthropic did is told once more by a name of its own, and is none.
pub const TRPC: Dialect = Dialect {
    name: "trpc-agent-go",
    detect: &[Detect::Scope("trpc.agent.go")],
    facts: &[
        row(names::USER_ID, &[Key("trpc.go.agent.runner.user_id")], User),
        row(names::CONVERSATION_ID, &[Key("trpc.go.agent.runner.session_id")], Session),
        row(names::REQUEST_STREAM, &[Key("gen_ai.request.is_stream")], Text),
        row(names::INPUT_TOKENS, &[Json(TRPC_COUNTS, &["input"])], Count),
        row(names::OUTPUT_TOKENS, &[Json(TRPC_COUNTS, &["output"])], Count),
        row(
            names::CACHE_READ_TOKENS,
            &[
                Key("gen_ai.usage.input_tokens.cache_read"),
                Key("gen_ai.usage.input_tokens.cached"),
                Json(TRPC_COUNTS, &["input_cache_read"]),
                Json(TRPC_COUNTS, &["input_cached"]),
            ],
            Count,
        ),
        row(
            names::CACHE_WRITE_TOKENS,
            &[Key("gen_ai.usage.input_tokens.cache_creation"), Json(TRPC_COUNTS, &["input_cache_creation"])],
            Count,
        ),
        row(
            names::REASONING_TOKENS,
            &[Json("trpc.go.agent.llm_response", &["usage", "completion_tokens_details", "reasoning_tokens"])],
            Count,
        ),
    ],
    content: &[
        content(
            Side::In,
            &[Beside(names::INPUT_MESSAGES, &Key("gen_ai.input.messages.otel")), Key("gen_ai.workflow.request")],
        ),
        content(
            Side::Out,
            &[
                Beside(names::OUTPUT_MESSAGES, &Key("gen_ai.output.messages.otel")),
                Json(names::TOOL_RESULT, &["choices", "0", "message", "content"]),
                Key("gen_ai.workflow.response"),
            ],
        ),
    ],
    kinds: TRPC_NO_TOOLS,
    // The sum of its calls, without what these read from a cache.
    untold: &[Untold {
        when: &[(names::OPERATION, Test::Is("invoke_agent")), (names::RESPONSE_MODEL, Test::Starts("claude"))],
        counts: &[names::INPUT_TOKENS, names::OUTPUT_TOKENS, names::TOTAL_TOKENS],
    }],
    outcomes: &[
        // The last part of a stream is all there is of its answer.
        Outcome {
            from: Unfailed(&Json("trpc.go.agent.llm_response", &["is_partial"])),
            word: "true",
            status: StepStatus::Cancelled,
            message: &[],
        },
        // Without content, nothing of an answer but its id and an empty word for a reason. With words in it, it may be that of a server
        // without counts and reasons.
        Outcome { from: TRPC_LEFT, word: "true", status: StepStatus::Cancelled, message: &[] },
    ],
    basis: ALL_INCLUSIVE,
    ..PLAIN
};

/// The same where Anthropic's counts of a cache stand: input is without them.
pub const TRPC_APART: Dialect = Dialect {
    name: "trpc-agent-go-apart",
    variant_of: "trpc-agent-go",
    detect: &[
        Detect::ScopeWith("trpc.agent.go", "gen_ai.usage.input_tokens.cache_"),
        Detect::Within { scope: "trpc.agent.go", name: "", key: TRPC_COUNTS, part: "\"input_cache_" },
    ],
    basis: &[BasisRow { provider: "", basis: Basis::Exclusive }],
    ..TRPC
};

/// Langfuse's names by trpc-agent-go's exporter for it, of which what was read from a cache is no bucket of its own, but a part of the
/// input of OpenAI's calls.
pub const LANGFUSE_TRPC: Dialect = Dialect {
    name: "langfuse-trpc",
    variant_of: "langfuse",
    detect: &[Detect::ScopeWith("trpc.agent.go", "langfuse.")],
    usage: &[],
    content: &[
        content(Side::In, &[Json("langfuse.observation.input", &["messages"]), Key("langfuse.observation.input")]),
        content(
            Side::Out,
            &[
                Where(names::TOOL_NAME, "(merged tools)", &Key("langfuse.observation.output")),
                Json("langfuse.observation.output", &["choices", "0", "message", "content"]),
                Key("langfuse.observation.output"),
            ],
        ),
    ],
    kinds: TRPC_NO_TOOLS,
    ..LANGFUSE
};

/// Ingenimax' agent-sdk-go, of whose names one exporter puts its place in the code before them. A call is all that a model was asked until
/// it had no more tools to call, and tells what it used only where it is one request (`generate_detailed`).
///
/// Source: `github.com/Ingenimax/agent-sdk-go` 0.2.20 by its exporters for OpenTelemetry and Langfuse, run against a scripted server; its
/// code for the counts.
pub const INGENIMAX: Dialect = Dialect {
    name: "agent-sdk-go",
    detect: &[Detect::Scope("agent-sdk-go")],
    facts: &[
        row(names::REQUEST_MODEL, &[Key("model")], Model),
        row(names::RESPONSE_MODEL, &[Key("response.model")], Model),
        row(names::AGENT_NAME, &[Key("langfuse.observation.metadata.agent_name")], Text),
        row(names::INPUT_TOKENS, &[Key("usage.input_tokens")], Count),
        row(names::OUTPUT_TOKENS, &[Key("usage.output_tokens")], Count),
        row(names::TOTAL_TOKENS, &[Key("usage.total_tokens")], Count),
        row(names::REASONING_TOKENS, &[Key("usage.reasoning_tokens")], Count),
    ],
    kinds: &[
        kind(SPAN_NAME, Test::Ends("agent.Run"), StepKind::Agent),
        kind(SPAN_NAME, Test::Ends("agent.RunStream"), StepKind::Agent),
        kind(SPAN_NAME, Test::Starts("llm.generate"), StepKind::Llm),
        kind(SPAN_NAME, Test::Has("/llm.generate"), StepKind::Llm),
        kind(SPAN_NAME, Test::Has("memory."), StepKind::Task),
    ],
    ..PLAIN
};
