//! The root step of a command's run: how it was called, where, and how it ended.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use runspan::conventions::names;
use runspan::model::budget::Budget;
use runspan::model::otlp::{
    AnyValue, ArrayValue, KeyValue, Resource, STATUS_ERROR, Scope, Span, SpanEvent, Status, Value,
};
use runspan::model::record::{Record, RecordKind};
use runspan::model::{RunId, StepStatus, UnixNanos};
use runspan::propagation::{RemoteContext, SpanContext};
use runspan::store::assembly::DROPPED_LOG;

use super::again::Input;
use super::argv;
use super::asked::Heard;
use super::budget::Over;
use super::child::Ended;
use super::proxy::Missed;

/// The exit code, as the standard has it.
const EXIT_CODE: &str = "process.exit.code";
/// The signal that killed the command, by name.
const EXIT_SIGNAL: &str = "runspan.exit.signal";
/// `SPAN_KIND_INTERNAL`.
const INTERNAL: i32 = 1;
/// Flags of a span: sampled; a parent in another process.
const SAMPLED: u32 = 1;
const REMOTE: u32 = 0x300;

/// What a run's root step says.
pub struct Facts<'a> {
    pub name: &'a str,
    pub store_id: &'a str,
    pub run: RunId,
    pub context: SpanContext,
    pub outer: Option<&'a RemoteContext>,
    pub command: &'a [OsString],
    pub pid: u32,
    /// Where it runs.
    pub directory: Option<&'a Path>,
    /// Its environment, as far as it is kept.
    pub environment: Option<String>,
    /// What it reads from, and what that says where that can be known.
    pub input: Input,
    /// The run that it repeats.
    pub replay_of: Option<RunId>,
    /// What it may take.
    pub budget: Option<Budget>,
    pub started_at: UnixNanos,
}

/// A root step that is open.
#[derive(Clone)]
pub struct Root {
    record: Record,
    is_cancelled: bool,
}

impl Root {
    /// Makes it.
    pub fn new(facts: Facts<'_>) -> Self {
        let mut span = Span {
            trace_id: facts.context.trace_id.0.to_vec(),
            span_id: facts.context.span_id.0.to_vec(),
            flags: SAMPLED,
            name: format!("invoke_workflow {}", facts.name),
            kind: INTERNAL,
            start_time_unix_nano: facts.started_at.0,
            ..Span::default()
        };
        span.set_attr(names::OPERATION, "invoke_workflow");
        span.set_attr(names::WORKFLOW_NAME, facts.name);
        span.set_attr(names::RUN_ID, facts.run.to_string());
        span.set_attr(names::STORE_ID, facts.store_id);
        if let Some(outer) = facts.outer {
            span.parent_span_id = outer.span.span_id.0.to_vec();
            span.flags |= REMOTE;
            span.trace_state.clone_from(&outer.trace_state);
            if let Some(run) = outer.span.run_id {
                span.set_attr(names::PARENT_RUN_ID, run.to_string());
            }
        }
        let arguments = argv::without_secrets(facts.command);
        span.set_attr(names::COMMAND_ARGS, list(arguments));
        if let Some(directory) = facts.directory {
            span.set_attr(names::WORKING_DIRECTORY, directory.to_string_lossy().as_ref());
        }
        if let Some(environment) = facts.environment {
            span.set_attr(names::ENVIRONMENT, environment);
        }
        span.set_attr(names::STDIN, facts.input.kind);
        if let Some(text) = facts.input.text {
            span.set_attr(names::INPUT, text);
        }
        if let Some(run) = facts.replay_of {
            span.set_attr(names::REPLAY_OF, run.to_string());
        }
        if let Some(budget) = facts.budget {
            span.set_attr(names::BUDGET, budget.to_json());
        }
        span.set_attr("process.pid", i64::from(facts.pid));
        let resource = Arc::new(resource(facts.name));
        let scope = Scope {
            name: names::SCOPE_EXEC.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Scope::default()
        };
        Self { record: Record { kind: RecordKind::Started, resource, scope, span }, is_cancelled: false }
    }

    /// Returns the record of its start.
    pub fn started(&self) -> Record {
        self.record.clone()
    }

    /// Returns the record of something that it says while it is open.
    pub fn says(&self, event: &SpanEvent) -> Record {
        let of = &self.record.span;
        let span = Span {
            trace_id: of.trace_id.clone(),
            span_id: of.span_id.clone(),
            parent_span_id: of.parent_span_id.clone(),
            name: of.name.clone(),
            start_time_unix_nano: of.start_time_unix_nano,
            events: vec![event.clone()],
            ..Span::default()
        };
        Record { kind: RecordKind::Event, span, ..self.record.clone() }
    }

    /// Takes in what was asked of the run: what it said of that, and that it ends for it, however its command did.
    pub fn take_in(&mut self, heard: Heard) {
        self.is_cancelled = heard.is_cancelled;
        let is_held = heard.events.last().is_some_and(|event| event.name == names::EVENT_WAITING);
        self.record.span.events.extend(heard.events);
        if is_held {
            // It has ended all the same: by a signal that cannot be held, or since somebody else let it go on.
            let time_unix_nano = UnixNanos::now().0;
            let name = names::EVENT_RESUMED.to_owned();
            self.record.span.events.push(SpanEvent { time_unix_nano, name, ..SpanEvent::default() });
        }
    }

    /// Takes in what it has said besides.
    pub fn say(&mut self, events: impl IntoIterator<Item = SpanEvent>) {
        self.record.span.events.extend(events);
    }

    /// Returns the record of its end, with what is to be known of the recording.
    pub fn ended(
        mut self,
        ended: &Ended,
        at: UnixNanos,
        over: Option<&Over>,
        remark: Option<&str>,
        missed: Option<&Missed>,
    ) -> Record {
        self.record.kind = RecordKind::Ended;
        let span = &mut self.record.span;
        span.end_time_unix_nano = at.0.max(span.start_time_unix_nano);
        let failed = match *ended {
            Ended::Exited(code) => {
                span.set_attr(EXIT_CODE, i64::from(code));
                (code != 0).then(|| ("exit_code".to_owned(), format!("the command ended with exit code {code}")))
            }
            Ended::Killed(signal) => {
                let name = name_of(signal);
                span.set_attr(EXIT_SIGNAL, name.as_str());
                let message = format!("the command was killed by {name}");
                Some((name, message))
            }
            Ended::Unknown => {
                Some((names::ERROR_TYPE_OTHER.to_owned(), "the system does not say how the command ended".to_owned()))
            }
        };
        let failed = match over {
            None => failed,
            Some(over) => {
                if let Some(at) = over.at {
                    span.set_attr(names::ERROR_SPAN, at.to_string());
                }
                let how = failed.map(|(_, message)| format!("; {message}")).unwrap_or_default();
                Some((names::BUDGET_EXCEEDED.to_owned(), format!("{over}{how}")))
            }
        };
        if let Some((kind, message)) = failed {
            let status = match ended {
                _ if over.is_some() => Some(StepStatus::Error),
                _ if ended.was_asked() => Some(StepStatus::Cancelled),
                Ended::Killed(_) => Some(StepStatus::Crashed),
                Ended::Exited(_) | Ended::Unknown => None,
            };
            if let Some(status) = status {
                span.set_attr(names::STEP_STATUS, status.as_str());
            }
            span.set_attr(names::ERROR_TYPE, kind.as_str());
            span.status = Some(Status { code: STATUS_ERROR, message });
        }
        if self.is_cancelled {
            span.set_attr(names::STEP_STATUS, StepStatus::Cancelled.as_str());
        }
        let attribute = |key: &str, value: Value| KeyValue { key: key.to_owned(), value: Some(value.into()) };
        let mut warn = |name: &str, more: Vec<KeyValue>| {
            let mut attributes = vec![attribute(names::EVENT_LEVEL, Value::from("WARN"))];
            attributes.extend(more);
            let time_unix_nano = span.end_time_unix_nano;
            span.events.push(SpanEvent { time_unix_nano, name: name.to_owned(), attributes, ..SpanEvent::default() });
        };
        if let Some(remark) = remark {
            warn(remark, Vec::new());
        }
        if let Some(missed) = missed {
            // The run counts them among what it has lost.
            let count = i64::try_from(missed.calls).unwrap_or(i64::MAX);
            warn(DROPPED_LOG, vec![attribute("count", Value::Int(count)), attribute("reason", missed.why.into())]);
        }
        self.record
    }
}

fn list(words: Vec<String>) -> Value {
    let values = words.into_iter().map(|word| AnyValue { value: Some(Value::String(word)) });
    Value::Array(ArrayValue { values: values.collect() })
}

/// Says who tells what this process tells.
pub fn resource(name: &str) -> Resource {
    let attribute = |key: &str, value: &str| KeyValue { key: key.to_owned(), value: Some(Value::from(value).into()) };
    let service = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let attributes = vec![
        attribute("service.name", service.as_deref().unwrap_or(name)),
        attribute("telemetry.sdk.name", "runspan"),
        attribute("telemetry.sdk.language", "rust"),
        attribute("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    Resource { attributes, dropped_attributes_count: 0 }
}

/// Names a signal.
fn name_of(signal: i32) -> String {
    const NAMES: &[(i32, &str)] = &[
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
        (libc::SIGSYS, "SIGSYS"),
    ];
    let known = NAMES.iter().find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use runspan::model::{SpanId, TraceId};

    use super::*;

    #[test]
    fn calls_that_were_missed_are_told_as_lost() {
        let root = Root::new(Facts {
            name: "agent",
            store_id: "s",
            run: RunId([1; 16]),
            context: SpanContext { trace_id: TraceId([1; 16]), span_id: SpanId([1; 8]), flags: 1, run_id: None },
            outer: None,
            command: &["agent".into()],
            pid: 1,
            directory: None,
            environment: None,
            input: Input::default(),
            replay_of: None,
            budget: None,
            started_at: UnixNanos(1),
        });
        let missed = Missed { calls: 7, why: "no time" };
        let record = root.ended(&Ended::Exited(0), UnixNanos(2), None, None, Some(&missed));
        let told: Vec<_> = record.span.events.iter().map(|event| (event.name.as_str(), event.attr("count"))).collect();
        assert_eq!(told, [(DROPPED_LOG, Some(&Value::Int(7)))]);
    }
}
