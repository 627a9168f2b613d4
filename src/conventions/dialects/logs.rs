//! Records of logs that tell of GenAI: which they are, and which of them are steps where there are no spans.

use crate::model::StepKind;

/// Starts of event names that tell of GenAI.
pub const EVENTS: &[&str] = &["gen_ai.", "claude_code.", "gemini_cli.", "qwen-code.", "codex."];

/// An event that is a step of a run, of an emitter that writes logs without spans.
///
/// Source: Claude Code 2.1, Codex 0.171, Qwen Code 0.15 and Gemini CLI 0.61, run without spans.
#[derive(Debug)]
pub struct LogStep {
    /// The event's name.
    pub event: &'static str,
    /// It is one only where all these attributes have these values, or any where that is empty.
    pub only: &'static [(&'static str, &'static str)],
    /// What it is.
    pub kind: StepKind,
    /// Whose run it begins, for the event that begins one.
    pub agent: Option<&'static str>,
    /// The event tells of a failure.
    pub failed: bool,
}

const fn step(event: &'static str, kind: StepKind) -> LogStep {
    LogStep { event, only: &[], kind, agent: None, failed: false }
}

/// All such events; the first that fits wins.
pub const STEPS: &[LogStep] = &[
    LogStep { agent: Some("codex"), ..step("codex.conversation_starts", StepKind::Agent) },
    // It comes twice: when the answer has been read, and when what it used is known.
    LogStep {
        only: &[("event.kind", "response.completed"), ("input_token_count", "")],
        ..step("codex.sse_event", StepKind::Llm)
    },
    // A stream that broke off has it, too, and an event before it that names no kind.
    LogStep {
        only: &[("event.kind", "response.completed"), ("error.message", "")],
        failed: true,
        ..step("codex.sse_event", StepKind::Llm)
    },
    LogStep { only: &[("error.message", "")], failed: true, ..step("codex.api_request", StepKind::Llm) },
    step("codex.tool_result", StepKind::Tool),
    LogStep { agent: Some("claude-code"), ..step("claude_code.user_prompt", StepKind::Agent) },
    step("claude_code.api_request", StepKind::Llm),
    LogStep { failed: true, ..step("claude_code.api_error", StepKind::Llm) },
    step("claude_code.tool_result", StepKind::Tool),
    LogStep { agent: Some("gemini-cli"), ..step("gemini_cli.user_prompt", StepKind::Agent) },
    step("gemini_cli.api_response", StepKind::Llm),
    LogStep { failed: true, ..step("gemini_cli.api_error", StepKind::Llm) },
    step("gemini_cli.tool_call", StepKind::Tool),
    LogStep { agent: Some("qwen-code"), ..step("qwen-code.user_prompt", StepKind::Agent) },
    step("qwen-code.api_response", StepKind::Llm),
    LogStep { failed: true, ..step("qwen-code.api_error", StepKind::Llm) },
    step("qwen-code.tool_call", StepKind::Tool),
];

/// Where it stands what sort of failure an event tells of, best first.
pub const FAILURE: &[&str] = &["error.type", "error_type", "http.response.status_code", "status_code"];

/// Where its text stands.
pub const FAILURE_TEXT: &[&str] = &["error.message", "error_message", "error"];

/// Events that speak of the whole of their span: what they say is a fact of it.
pub const OF_THE_SPAN: &[&str] =
    &["gemini_cli.api_response", "claude_code.assistant_response", "tool.output", "codex.tool_result"];

/// Events that tell all of a call of a model: one of which the span does not come is that call.
///
/// Source: the standard, and `openlit` 1.45, which sends no span for a call by LangGraph's `ainvoke`.
pub const CALLS: &[&str] = &["gen_ai.client.inference.operation.details"];

/// What [`OF_THE_SPAN`] is, of Monocle, on spans that bear its mark: others may name their events so.
pub const MONOCLES: &[&str] = &["metadata", "data.input", "data.output"];

/// Monocle's mark.
pub const MONOCLE: &str = "monocle_apptrace.version";

/// The events at the beginning and at the end of a call of which only the first bears the span's id.
pub const PAIRS: &[(&str, &str)] = &[("gemini_cli.api_request", "gemini_cli.api_response")];

/// Where the two of a pair have what they share.
pub const SHARED: &[&str] = &["session.id", "prompt_id", "model"];

/// Where the conversation stands, best first: what it belongs to is a run of its own.
pub const CONVERSATION: &[&str] = &["conversation.id", "thread.id", "session.id"];

/// Where the prompt stands that the program works on, where each one is a run.
pub const PROMPT: &[&str] = &["prompt.id", "prompt_id"];

/// Where it stands how long a step took, in milliseconds: a log is written when it is over.
pub const DURATION_MS: &str = "duration_ms";
