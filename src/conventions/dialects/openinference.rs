//! Instrumentations in OpenInference's words that tell something else than the rest.

use super::Shape::Provider;
use super::Source::Fixed;
use super::{Detect, Dialect, OPENINFERENCE, SPAN_NAME, Test, Untold, kind, row};
use crate::conventions::names;
use crate::model::StepKind;

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
