//! The spans behind runs and steps: one place in the source for each kind, since `tracing` wants fields declared.

use std::sync::Once;

use tracing::field::Empty;
use tracing::span::Id;
use tracing::{Level, Metadata, Span};

use super::RunFacts;
use crate::conventions::names;
use crate::model::{RunKind, StepKind};
use crate::propagation::span_context;
use crate::sources::layer::records_steps;

/// The target of all spans and events made here.
pub(super) const TARGET: &str = names::STEP_TARGET;

/// What a step does, and on what.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What<'a> {
    Llm {
        provider: &'a str,
        model: &'a str,
    },
    Embedding {
        provider: &'a str,
        model: &'a str,
    },
    Tool {
        name: &'a str,
    },
    Retrieval {
        name: &'a str,
    },
    Guardrail {
        name: &'a str,
    },
    Evaluator {
        name: &'a str,
    },
    /// With its budget, as JSON.
    Agent {
        name: &'a str,
        budget: Option<&'a str>,
    },
    Workflow {
        name: &'a str,
        budget: Option<&'a str>,
    },
    Task {
        name: &'a str,
    },
}

impl What<'_> {
    pub fn kind(self) -> StepKind {
        match self {
            Self::Llm { .. } => StepKind::Llm,
            Self::Embedding { .. } => StepKind::Embedding,
            Self::Tool { .. } => StepKind::Tool,
            Self::Retrieval { .. } => StepKind::Retrieval,
            Self::Guardrail { .. } => StepKind::Guardrail,
            Self::Evaluator { .. } => StepKind::Evaluator,
            Self::Agent { .. } => StepKind::Agent,
            Self::Workflow { .. } => StepKind::Workflow,
            Self::Task { .. } => StepKind::Task,
        }
    }
}

/// Declares a span with the fields that every step may get later, besides its own.
macro_rules! step_span {
    ($parent:expr, $name:literal, $kind:literal, $shown:expr, { $($fields:tt)* }) => {
        tracing::span!(
            target: TARGET,
            parent: $parent,
            Level::INFO,
            $name,
            otel.name = $shown,
            otel.kind = $kind,
            $($fields)*
            runspan.input = Empty,
            runspan.output = Empty,
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            gen_ai.usage.cache_read.input_tokens = Empty,
            gen_ai.usage.cache_write.input_tokens = Empty,
            gen_ai.usage.reasoning.output_tokens = Empty,
            gen_ai.usage.audio.input_tokens = Empty,
            gen_ai.usage.audio.output_tokens = Empty,
            runspan.usage.cache_write_1h_tokens = Empty,
            runspan.cost.usd = Empty,
            runspan.step.status = Empty,
            "error.type" = Empty,
            otel.status_code = Empty,
            otel.status_description = Empty,
        )
    };
}

const LLM: &str = "chat";
const EMBEDDING: &str = "embeddings";
const TOOL: &str = "execute_tool";
const RETRIEVAL: &str = "retrieval";
const AGENT: &str = "invoke_agent";
const WORKFLOW: &str = "invoke_workflow";
const GUARDRAIL: &str = "guardrail";
const EVALUATOR: &str = "evaluator";

/// Makes a step's span and records its start.
pub(super) fn step_span(parent: Option<Id>, what: What<'_>) -> Span {
    let span = match what {
        What::Llm { provider, model } => step_span!(parent, "chat", "client", two(LLM, model), {
            gen_ai.operation.name = LLM,
            gen_ai.provider.name = known(provider),
            gen_ai.request.model = known(model),
            gen_ai.response.model = Empty,
            gen_ai.response.id = Empty,
            gen_ai.response.finish_reasons = Empty,
            gen_ai.system_instructions = Empty,
            gen_ai.input.messages = Empty,
            gen_ai.output.messages = Empty,
        }),
        What::Embedding { provider, model } => step_span!(parent, "embeddings", "client", two(EMBEDDING, model), {
            gen_ai.operation.name = EMBEDDING,
            gen_ai.provider.name = known(provider),
            gen_ai.request.model = known(model),
            gen_ai.response.model = Empty,
            gen_ai.response.id = Empty,
        }),
        What::Tool { name } => step_span!(parent, "execute_tool", "internal", two(TOOL, name), {
            gen_ai.operation.name = TOOL,
            gen_ai.tool.name = name,
            gen_ai.tool.call.id = Empty,
            gen_ai.tool.call.arguments = Empty,
            gen_ai.tool.call.result = Empty,
        }),
        What::Retrieval { name } => step_span!(parent, "retrieval", "client", two(RETRIEVAL, name), {
            gen_ai.operation.name = RETRIEVAL,
            gen_ai.data_source.id = name,
            gen_ai.retrieval.query.text = Empty,
            gen_ai.retrieval.documents = Empty,
        }),
        What::Agent { name, budget } => step_span!(parent, "invoke_agent", "internal", two(AGENT, name), {
            gen_ai.operation.name = AGENT,
            gen_ai.agent.name = name,
            gen_ai.conversation.id = Empty,
            user.id = Empty,
            runspan.budget = budget,
            runspan.error.span_id = Empty,
            runspan.left_open = Empty,
        }),
        What::Workflow { name, budget } => step_span!(parent, "invoke_workflow", "internal", two(WORKFLOW, name), {
            gen_ai.operation.name = WORKFLOW,
            gen_ai.workflow.name = name,
            gen_ai.conversation.id = Empty,
            user.id = Empty,
            runspan.budget = budget,
            runspan.error.span_id = Empty,
            runspan.left_open = Empty,
        }),
        What::Guardrail { name } => step_span!(parent, "guardrail", "internal", name, {
            runspan.step.kind = GUARDRAIL,
        }),
        What::Evaluator { name } => step_span!(parent, "evaluator", "internal", name, {
            runspan.step.kind = EVALUATOR,
        }),
        What::Task { name } => step_span!(parent, "task", "internal", name, {
            runspan.step.kind = "task",
        }),
    };
    begin(span)
}

/// Makes a run's span and records its start.
pub(super) fn run_span(parent: Option<Id>, kind: RunKind, name: &str, run: &RunFacts<'_>) -> Span {
    let (parent_run, tags, budget) = (run.parent_run.as_deref(), run.tags.as_deref(), run.budget.as_deref());
    let span = match kind {
        RunKind::Agent => step_span!(parent, "invoke_agent", "internal", two(AGENT, name), {
            gen_ai.operation.name = AGENT,
            gen_ai.agent.name = name,
            runspan.run.id = run.id,
            runspan.parent_run.id = parent_run,
            runspan.tags = tags,
            runspan.budget = budget,
            runspan.error.span_id = Empty,
            gen_ai.conversation.id = run.session,
            user.id = run.user,
            runspan.left_open = Empty,
        }),
        RunKind::Workflow => step_span!(parent, "invoke_workflow", "internal", two(WORKFLOW, name), {
            gen_ai.operation.name = WORKFLOW,
            gen_ai.workflow.name = name,
            runspan.run.id = run.id,
            runspan.parent_run.id = parent_run,
            runspan.tags = tags,
            runspan.budget = budget,
            runspan.error.span_id = Empty,
            gen_ai.conversation.id = run.session,
            user.id = run.user,
            runspan.left_open = Empty,
        }),
    };
    begin(span)
}

/// Reads the kind of a step off its span; `None` for a span that is not one of ours.
pub(super) fn kind_of(metadata: &Metadata<'_>) -> Option<StepKind> {
    if metadata.target() != TARGET {
        return None;
    }
    Some(match metadata.name() {
        LLM => StepKind::Llm,
        EMBEDDING => StepKind::Embedding,
        TOOL => StepKind::Tool,
        RETRIEVAL => StepKind::Retrieval,
        AGENT => StepKind::Agent,
        WORKFLOW => StepKind::Workflow,
        GUARDRAIL => StepKind::Guardrail,
        EVALUATOR => StepKind::Evaluator,
        "task" => StepKind::Task,
        _ => return None,
    })
}

/// A step shows from its start on, entered or not: asking for its ids records it.
fn begin(span: Span) -> Span {
    if span_context(&span).is_none() {
        warn_of_filter();
    }
    span
}

/// Says once that something keeps spans from the recorder that is there: nobody would look for it in the filter of a log.
#[cold]
fn warn_of_filter() {
    static SAID: Once = Once::new();
    if tracing::dispatcher::get_default(records_steps) {
        SAID.call_once(|| {
            crate::telemetry::warn(format_args!(
                "a filter of the tracing subscriber drops spans of the target {TARGET:?}, and with them runs and steps: let \
                 them through, as in RUST_LOG=my_crate=info,{TARGET}=info"
            ));
        });
    }
}

fn two(operation: &str, name: &str) -> String {
    format!("{operation} {name}").trim_end().to_owned()
}

/// Empty text says nothing.
fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
