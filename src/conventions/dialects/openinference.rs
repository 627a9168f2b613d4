//! Instrumentations in OpenInference's words that tell something else than the rest.

use super::{Detect, Dialect, OPENINFERENCE, Untold};
use crate::conventions::names;

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
