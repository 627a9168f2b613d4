//! What can be said of a step, whoever holds it: its owner, or code that runs inside it.

use serde::Serialize;
use tracing::Level;
use tracing::field::Value;
use tracing::span::Id;

use super::Usage;
use super::content::{Scalar, Text};
use super::spans::TARGET;
use crate::conventions::names;
use crate::model::{StepKind, StepStatus};

/// A step that takes attributes and events.
pub(crate) trait Tell {
    /// Tells whether anybody listens: without, nothing is formatted.
    fn is_recorded(&self) -> bool;
    /// What the step does.
    fn kind(&self) -> StepKind;
    /// Its span's id, for events.
    fn span_id(&self) -> Option<Id>;
    /// Sets an attribute that the span declares.
    fn put(&self, key: &'static str, value: &dyn Value);

    /// Sets an attribute to a value of JSON.
    fn put_text(&self, key: &'static str, text: &Text) {
        match text.scalar() {
            Scalar::Null => {}
            Scalar::Bool(flag) => self.put(key, &flag),
            Scalar::Int(number) => self.put(key, &number),
            Scalar::Float(number) => self.put(key, &number),
            Scalar::Text(text) => self.put(key, &text.as_str()),
        }
    }

    /// Sets what went in, under the name that the kind of the step has for it.
    fn put_input(&self, text: &Text) {
        match (self.kind(), text.as_messages("user")) {
            (StepKind::Llm, Some(messages)) => self.put(names::INPUT_MESSAGES, &messages.as_str()),
            (StepKind::Tool, _) => self.put_text(names::TOOL_ARGUMENTS, text),
            (StepKind::Retrieval, _) => self.put_text(names::RETRIEVAL_QUERY, text),
            _ => self.put_text(names::INPUT, text),
        }
    }

    /// Sets what came out, likewise.
    fn put_output(&self, text: &Text) {
        match (self.kind(), text.as_messages("assistant")) {
            (StepKind::Llm, Some(messages)) => self.put(names::OUTPUT_MESSAGES, &messages.as_str()),
            (StepKind::Tool, _) => self.put_text(names::TOOL_RESULT, text),
            (StepKind::Retrieval, _) => self.put_text(names::RETRIEVAL_DOCUMENTS, text),
            _ => self.put_text(names::OUTPUT, text),
        }
    }

    /// Sets a value that was given, unless nobody listens.
    fn with_text(&self, value: &(impl Serialize + ?Sized), put: impl FnOnce(&Text))
    where
        Self: Sized,
    {
        if self.is_recorded()
            && let Some(text) = Text::of(value)
        {
            put(&text);
        }
    }

    fn put_usage(&self, usage: Usage) {
        for (key, tokens) in [
            (names::INPUT_TOKENS, usage.input_tokens),
            (names::OUTPUT_TOKENS, usage.output_tokens),
            (names::CACHE_READ_TOKENS, usage.cache_read),
            (names::CACHE_WRITE_TOKENS, usage.cache_write),
            (names::REASONING_TOKENS, usage.reasoning),
        ] {
            if let Some(tokens) = tokens {
                self.put_count(key, tokens);
            }
        }
    }

    fn put_count(&self, key: &'static str, count: u64) {
        // Signed, as OTLP has it; others would write an unsigned one as text.
        self.put(key, &i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn put_cost_usd(&self, usd: f64) {
        if usd.is_finite() && usd >= 0.0 {
            self.put(names::COST_USD, &usd);
        }
    }

    fn put_event(&self, name: &str, fields: &Text) {
        let wrapped;
        let fields = match fields.json() {
            object if object.starts_with('{') => object,
            other => {
                wrapped = format!(r#"{{"data":{other}}}"#);
                &wrapped
            }
        };
        tracing::event!(target: TARGET, parent: self.span_id(), Level::INFO, event.name = name, runspan.event.fields = fields);
    }

    fn put_score(&self, name: &str, value: Option<f64>, label: Option<&str>, explanation: Option<&str>) {
        tracing::event!(
            target: TARGET,
            parent: self.span_id(),
            Level::INFO,
            event.name = names::EVENT_EVALUATION,
            gen_ai.evaluation.name = name,
            gen_ai.evaluation.score.value = value,
            gen_ai.evaluation.score.label = label,
            gen_ai.evaluation.explanation = explanation,
        );
    }

    /// Says how the step ended, which ends it: nothing that is said later is kept.
    fn put_status(&self, status: StepStatus) {
        self.put(names::STEP_STATUS, &status.as_str());
    }

    fn put_failure(&self, class: &str, message: &str) {
        self.put(names::ERROR_TYPE, &class);
        self.put("otel.status_code", &"ERROR");
        self.put("otel.status_description", &message);
        self.put_status(StepStatus::Error);
    }
}

/// Makes a word for a class of errors of the name of its type: `ParseIntError`, `io::Error`.
pub(crate) fn error_class<E: ?Sized>() -> String {
    class_of_type(std::any::type_name::<E>())
}

fn class_of_type(name: &str) -> String {
    let path = name.split('<').next().unwrap_or(name).trim_start_matches('&');
    let mut segments = path.rsplit("::");
    match segments.next() {
        // Nothing is known of an erased type, and neither a box nor a text is what went wrong.
        Some("String" | "str") => names::ERROR_TYPE_OTHER.to_owned(),
        _ if path.starts_with("dyn ") || path.starts_with("alloc::boxed") => names::ERROR_TYPE_OTHER.to_owned(),
        // Of `std::io::error::Error` the name alone says nothing.
        Some("Error") => match segments.find(|segment| !matches!(*segment, "error" | "errors")) {
            Some(module) => format!("{module}::Error"),
            None => "Error".to_owned(),
        },
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => names::ERROR_TYPE_OTHER.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_the_end_of_a_type_name_that_says_something() {
        assert_eq!(error_class::<std::num::ParseIntError>(), "ParseIntError");
        assert_eq!(error_class::<std::io::Error>(), "io::Error");
        assert_eq!(error_class::<dyn std::error::Error>(), "_OTHER");
        assert_eq!(error_class::<Box<dyn std::error::Error + Send + Sync>>(), "_OTHER");
        assert_eq!(class_of_type("my::http::Failed<alloc::string::String>"), "Failed");
        assert_eq!(class_of_type("anyhow::Error"), "anyhow::Error");
    }
}
