//! What the log says of a step: the bodies of its events.

use std::sync::Arc;

use super::is_failure;
use super::view::duration_ms;
use crate::model::event::{
    EventBody, LlmCalled, StatusChanged, StepCompleted, StepFailed, StepStarted, ToolFailed, ToolRequested,
    ToolSucceeded,
};
use crate::model::json_text::JsonText;
use crate::model::otlp::{Resource, Scope, Span};
use crate::model::{RunStatus, StepKind, Tokens, UnixNanos};
use crate::pipeline::facts::{StepContent, StepFacts};

/// Tells whether a span's parent is in another process: by its flags, else by its kind, for a server's or consumer's is.
pub(crate) fn has_remote_parent(span: &Span) -> bool {
    span.flags & 0x200 != 0 || matches!(span.kind, 2 | 5)
}

/// Makes the event body for a step's start, of which the content may be known apart.
pub fn started_body(
    span: Span,
    facts: &StepFacts,
    content: &StepContent,
    resource: Option<Arc<Resource>>,
    scope: Option<Scope>,
) -> EventBody {
    if facts.kind == StepKind::Tool {
        EventBody::ToolRequested(Box::new(ToolRequested {
            tool_name: facts.tool_name.clone().unwrap_or_else(|| facts.step_name.clone()),
            tool_args: content.tool_args.clone(),
            agent_id: facts.agent_name.clone(),
            span,
            resource,
            scope,
        }))
    } else {
        EventBody::StepStarted(Box::new(StepStarted {
            kind: facts.kind,
            name: facts.name.clone(),
            agent_id: facts.agent_name.clone(),
            input: content.input.clone(),
            span,
            resource,
            scope,
        }))
    }
}

/// Makes the event body for a step's end.
pub fn ended_body(
    span: Span,
    facts: &StepFacts,
    content: StepContent,
    resource: Option<Arc<Resource>>,
    scope: Option<Scope>,
) -> EventBody {
    let agent_id = facts.agent_name.clone();
    let status = facts.status;
    let length = duration_ms(UnixNanos(span.start_time_unix_nano), UnixNanos(span.end_time_unix_nano));
    let duration_ms = Some(length);
    let (cost_usd, cost_source) = facts.cost.unzip();
    let model = facts.model().map(str::to_owned);
    let tokens = facts.tokens.map(Tokens::with_total);
    let failed = is_failure(status);
    let error = facts.error.clone();
    match facts.kind {
        StepKind::Llm => EventBody::LlmCalled(Box::new(LlmCalled {
            name: facts.name.clone(),
            provider: facts.provider.clone(),
            model,
            system_prompt: content.system_prompt,
            messages: content.messages,
            output: content.output,
            tokens,
            cost_usd,
            cost_source,
            agent_id,
            status,
            duration_ms,
            error,
            span,
            resource,
            scope,
        })),
        StepKind::Tool => {
            let tool_name = facts.tool_name.as_ref().unwrap_or(&facts.step_name).clone();
            let (tool_args, result) = (content.tool_args, content.tool_result);
            if failed {
                EventBody::ToolFailed(Box::new(ToolFailed {
                    tool_name,
                    tool_args,
                    result,
                    agent_id,
                    status,
                    duration_ms,
                    error,
                    span,
                    resource,
                    scope,
                }))
            } else {
                EventBody::ToolSucceeded(Box::new(ToolSucceeded {
                    tool_name,
                    tool_args,
                    result,
                    agent_id,
                    status,
                    duration_ms,
                    error,
                    span,
                    resource,
                    scope,
                }))
            }
        }
        kind => {
            macro_rules! step {
                ($variant:ident) => {
                    EventBody::$variant(Box::new($variant {
                        kind,
                        name: facts.name.clone(),
                        input: content.input,
                        output: content.output,
                        tokens,
                        cost_usd,
                        cost_source,
                        agent_id,
                        status,
                        duration_ms,
                        error,
                        span,
                        resource,
                        scope,
                    }))
                };
            }
            if failed { step!(StepFailed) } else { step!(StepCompleted) }
        }
    }
}

/// Makes the event body for a change of status.
pub fn status_body(from: RunStatus, to: RunStatus, reason: &str) -> EventBody {
    EventBody::StatusChanged(StatusChanged { from, to, reason: Some(reason.to_owned()) })
}

/// Finds the ids of the tool calls in a model's answer: message parts of type `tool_call`.
pub(crate) fn requested_tool_calls(output: Option<&JsonText>) -> Vec<String> {
    // Most answers ask for none, and are not looked into.
    let output = output.filter(|output| output.as_str().contains("tool_call")).map(JsonText::value);
    output.as_ref().map(tool_calls_in).unwrap_or_default()
}

/// The same of a value.
pub(crate) fn tool_calls_in(messages: &serde_json::Value) -> Vec<String> {
    let messages = messages.as_array().into_iter().flatten();
    let parts = messages.filter_map(|message| message.get("parts")?.as_array()).flatten();
    parts
        .filter(|part| part.get("type").and_then(serde_json::Value::as_str) == Some("tool_call"))
        .filter_map(|part| Some(part.get("id")?.as_str()?.to_owned()))
        .collect()
}
