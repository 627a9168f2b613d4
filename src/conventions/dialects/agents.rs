//! Finished agents for the command line, which tell of themselves.

use super::Shape::{Count, Model, Provider, Text};
use super::Source::{Behind, Fixed, Json, Key, Where};
use super::{
    ALL_INCLUSIVE, Basis, BasisRow, Detect, Dialect, Outcome, PLAIN, SPAN_NAME, Side, Test, content, kind, row,
};
use crate::conventions::names;
use crate::model::{StepKind, StepStatus};

/// Claude Code's own telemetry: bare names, cached tokens apart.
///
/// Source: recordings of `claude-agent-sdk` 0.2.187; `mlflow/tracing/otel/translation/claude_code.py`.
pub const CLAUDE_CODE: Dialect = Dialect {
    name: "claude-code",
    detect: &[
        Detect::Value("span.type", "claude_code."),
        Detect::ScopePrefix("com.anthropic.claude_code"),
        Detect::Value(names::EVENT_NAME, "claude_code."),
        Detect::Value("body", "claude_code."),
    ],
    facts: &[
        row(names::PROVIDER, &[Key("gen_ai.system"), Key("anthropic.provider")], Provider),
        row(names::REQUEST_MODEL, &[Key("model")], Model),
        row(names::TOOL_NAME, &[Key("tool_name")], Text),
        row(names::TOOL_CALL_ID, &[Key("tool_use_id")], Text),
        row(names::INPUT_TOKENS, &[Key("input_tokens")], Count),
        row(names::OUTPUT_TOKENS, &[Key("output_tokens")], Count),
        row(names::CACHE_READ_TOKENS, &[Key("cache_read_tokens")], Count),
        row(names::CACHE_WRITE_TOKENS, &[Key("cache_creation_tokens")], Count),
        row(names::ERROR_TYPE, &[Key("error_type")], Text),
    ],
    content: &[
        content(
            Side::In,
            &[Key("new_context"), Key("tool_input"), Key("user_prompt"), Key("full_command"), Key("prompt")],
        ),
        content(Side::Out, &[Key("response.model_output"), Key("output"), Key("response")]),
    ],
    kinds: &[
        kind("span.type", Test::Ends("llm_request"), StepKind::Llm),
        kind("span.type", Test::Ends("interaction"), StepKind::Agent),
        kind("span.type", Test::Is("tool"), StepKind::Tool),
        kind("span.type", Test::Is("claude_code.tool"), StepKind::Tool),
        kind("span.type", Test::Present, StepKind::Task),
    ],
    outcomes: &[Outcome { from: Key("success"), word: "false", status: StepStatus::Error, message: &[Key("error")] }],
    basis: &[BasisRow { provider: "", basis: Basis::Exclusive }],
    ..PLAIN
};

/// Codex CLI: some spans of its own code tell of what it does, among hundreds that do not and bear the same names.
///
/// Source: 0.171 run against a scripted server, and `openai/codex` `otel/src/events`. A turn bears what all of it used. Of a
/// call the model stands on the span of the request, and the counts on the last one that reads of its answer.
pub const CODEX: Dialect = Dialect {
    name: "codex",
    detect: &[
        Detect::KeyPrefix("codex.turn.token_usage."),
        Detect::KeyPrefix("codex.usage."),
        Detect::Named("codex", "try_run_sampling_request"),
        Detect::Named("codex", "dispatch_tool_call_with_state"),
        Detect::Named("codex", "handle_response_stream_error"),
        Detect::Value(names::EVENT_NAME, "codex."),
    ],
    facts: &[
        row(names::REQUEST_MODEL, &[Key("model"), Key("slug")], Model),
        row(names::CONVERSATION_ID, &[Key("conversation.id")], Text),
        row(names::EXTERNAL_ID, &[Key("turn.id")], Text),
        row(names::TOOL_NAME, &[Key("tool_name")], Text),
        row(names::TOOL_CALL_ID, &[Key("call_id")], Text),
        row(names::INPUT_TOKENS, &[Key("codex.turn.token_usage.input_tokens"), Key("input_token_count")], Count),
        row(names::OUTPUT_TOKENS, &[Key("codex.turn.token_usage.output_tokens"), Key("output_token_count")], Count),
        row(names::TOTAL_TOKENS, &[Key("codex.turn.token_usage.total_tokens"), Key("codex.usage.total_tokens")], Count),
        row(
            names::CACHE_READ_TOKENS,
            &[Key("codex.turn.token_usage.cached_input_tokens"), Key("cached_token_count")],
            Count,
        ),
        row(
            names::CACHE_WRITE_TOKENS,
            &[Key("codex.turn.token_usage.cache_write_input_tokens"), Key("cache_write_token_count")],
            Count,
        ),
        row(
            names::REASONING_TOKENS,
            &[
                Key("codex.turn.token_usage.reasoning_output_tokens"),
                Key("codex.usage.reasoning_output_tokens"),
                Key("reasoning_token_count"),
            ],
            Count,
        ),
    ],
    entity: &[Fixed("codex")],
    kinds: &[
        kind("codex.turn.token_usage.input_tokens", Test::Present, StepKind::Agent),
        kind("codex.usage.total_tokens", Test::Present, StepKind::Llm),
        kind(SPAN_NAME, Test::Is("try_run_sampling_request"), StepKind::Llm),
        kind("call_id", Test::Present, StepKind::Tool),
    ],
    content: &[content(Side::In, &[Key("arguments"), Key("prompt")]), content(Side::Out, &[Key("output")])],
    outcomes: &[Outcome { from: Key("success"), word: "false", status: StepStatus::Error, message: &[Key("output")] }],
    basis: ALL_INCLUSIVE,
    // What it does about a stream that broke off is all that tells of that.
    fails_without: &[("handle_response_stream_error", &[])],
    ..PLAIN
};

/// The hundreds of Codex' spans that tell of none of it: that one bears the model's name makes it no call.
pub const CODEX_OTHER: Dialect = Dialect {
    name: "codex-other",
    variant_of: "codex",
    detect: &[Detect::ScopePrefix("codex")],
    zero_is_told: true,
    ..PLAIN
};

/// Gemini CLI: the standard's names on spans that have no common root, and logs.
///
/// Source: recordings of 0.61; `mlflow/tracing/otel/translation/gemini_cli.py`. Output does not include thoughts, which only the log of a call's end tells of.
pub const GEMINI_CLI: Dialect = Dialect {
    name: "gemini-cli",
    detect: &[
        Detect::Scope("gemini-cli"),
        Detect::Value(names::AGENT_NAME, "gemini-cli"),
        Detect::Value(names::EVENT_NAME, "gemini_cli."),
    ],
    facts: &[
        row(names::REQUEST_MODEL, &[Key("model")], Model),
        row(names::RESPONSE_ID, &[Key("response_id")], Text),
        row(names::TOOL_NAME, &[Key("function_name")], Text),
        row(names::INPUT_TOKENS, &[Key("input_token_count")], Count),
        row(names::OUTPUT_TOKENS, &[Key("output_token_count")], Count),
        row(names::CACHE_READ_TOKENS, &[Key("cached_content_token_count")], Count),
        row(names::REASONING_TOKENS, &[Key("thoughts_token_count")], Count),
        row(names::TOTAL_TOKENS, &[Key("total_token_count")], Count),
        row(names::ERROR_TYPE, &[Key("error_type")], Text),
    ],
    content: &[content(Side::In, &[Key("function_args"), Key("prompt")]), content(Side::Out, &[Key("response_text")])],
    outcomes: &[Outcome { from: Key("success"), word: "false", status: StepStatus::Error, message: &[Key("error")] }],
    basis: ALL_INCLUSIVE,
    reasoning_apart: &[""],
    ..PLAIN
};

/// Qwen Code, which was made of Gemini CLI and tells logs alone. Its counts are those of OpenAI's API.
///
/// Source: 0.15, run against a scripted server.
pub const QWEN_CODE: Dialect = Dialect {
    name: "qwen-code",
    variant_of: "gemini-cli",
    detect: &[Detect::Scope("qwen-code"), Detect::Value(names::EVENT_NAME, "qwen-code.")],
    reasoning_apart: &[],
    ..GEMINI_CLI
};

/// goose.
///
/// Source: `block/goose` `provider_generation.rs`, `mcp_propagation.rs`; excerpts, no recording.
pub const GOOSE: Dialect = Dialect {
    name: "goose",
    detect: &[
        Detect::Value(names::AGENT_NAME, "goose"),
        Detect::Value("session.agent_type", "goose"),
        Detect::Value("target", "goose"),
        Detect::ScopePrefix("goose"),
    ],
    facts: &[
        row(names::USER_ID, &[Key("session.user")], Text),
        row(names::REQUEST_MODEL, &[Key("model"), Json("model_config", &["model_name"])], Model),
    ],
    entity: &[
        Behind("invoke_agent "),
        Where(names::OPERATION, "invoke_agent", &Key("session.agent_type")),
        Where(names::OPERATION, "invoke_agent", &Fixed("goose")),
    ],
    content: &[
        content(Side::In, &[Key("trace_input"), Key("input")]),
        content(Side::Out, &[Key("trace_output"), Key("output")]),
    ],
    usage: &[Key("usage_details_json")],
    kinds: &[
        kind("observation_type", Test::Is("GENERATION"), StepKind::Llm),
        kind(SPAN_NAME, Test::Is("provider_generation"), StepKind::Llm),
        kind(SPAN_NAME, Test::Is("reply"), StepKind::Agent),
    ],
    ..PLAIN
};
