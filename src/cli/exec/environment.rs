//! What a command finds in its environment: where to send to, which run it is part of, and that content is wanted.
//!
//! The command's own settings stand, but for where traces go: they come here, and go on from here to where they went.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use runspan::Content;
use runspan::conventions::names::RUN_ID;
use runspan::model::RunId;
use runspan::propagation::{RemoteContext, SpanContext, inject_below, inject_span};

/// Changes to an environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    pub set: BTreeMap<String, OsString>,
    pub removed: Vec<String>,
}

/// What the environment says of the recording.
pub struct Facts<'a> {
    /// The URL of the private port.
    pub endpoint: String,
    /// The store's directory.
    pub store: PathBuf,
    /// The policy, where one was given.
    pub content: Option<Content>,
    pub name: &'a str,
    pub run: RunId,
    pub context: SpanContext,
    pub outer: Option<&'a RemoteContext>,
    /// Whether metrics go anywhere from the private port.
    pub has_targets: bool,
    /// Whether the command is Python, as far as can be seen.
    pub is_python: bool,
}

/// Milliseconds that spans and records wait for others to be sent with: a run is to be seen while it runs.
const BATCH_DELAY: &str = "500";
/// Attributes of a span: the flat dialects write one for each part of each message, and most SDKs cut at 128.
const ATTRIBUTES: &str = "1024";

/// Switches for prompts and answers, with what they are set to where content is wanted, and where it is not. `None`
/// leaves one as it is.
const CONTENT_SWITCHES: &[(&str, Option<&str>, Option<&str>)] = &[
    ("TRACELOOP_TRACE_CONTENT", Some("true"), Some("false")),
    ("OPENINFERENCE_HIDE_INPUTS", None, Some("true")),
    ("OPENINFERENCE_HIDE_OUTPUTS", None, Some("true")),
    ("ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS", Some("true"), Some("false")),
    ("AZURE_TRACING_GEN_AI_CONTENT_RECORDING_ENABLED", Some("true"), Some("false")),
    ("ENABLE_SENSITIVE_DATA", Some("true"), Some("false")),
    ("OTEL_LOG_USER_PROMPTS", Some("1"), Some("0")),
    ("OTEL_LOG_TOOL_DETAILS", Some("1"), Some("0")),
    ("GEMINI_TELEMETRY_LOG_PROMPTS", Some("true"), Some("false")),
];
const CAPTURE: &str = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT";
/// Programs that tell nothing unless they are asked to.
const TELEMETRY_SWITCHES: &[(&str, &str)] = &[
    ("CLAUDE_CODE_ENABLE_TELEMETRY", "1"),
    ("CLAUDE_CODE_ENHANCED_TELEMETRY_BETA", "1"),
    ("ENABLE_INSTRUMENTATION", "true"),
    ("GEMINI_TELEMETRY_ENABLED", "true"),
    ("GEMINI_TELEMETRY_TARGET", "local"),
    ("GEMINI_TELEMETRY_OTLP_PROTOCOL", "http"),
];

/// Returns the changes to an environment in which `given` looks variables up.
pub fn of_command(given: impl Fn(&str) -> Option<String>, facts: &Facts<'_>) -> Environment {
    let mut environment = Environment::default();
    let (set, removed) = (&mut environment.set, &mut environment.removed);
    let mut put = |name: &str, value: &str| drop(set.insert(name.to_owned(), value.into()));
    put("OTEL_EXPORTER_OTLP_ENDPOINT", &facts.endpoint);
    put("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    removed.extend(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"].map(str::to_owned));
    if let Some(content) = facts.content {
        put("RUNSPAN_CONTENT", content.as_str());
    }
    // Its spans go on from here.
    removed.push("RUNSPAN_FORWARD".to_owned());
    // What it says is of another trace, unless it is said anew.
    removed.push("TRACESTATE".to_owned());
    for (name, value) in context(facts) {
        removed.retain(|removed| *removed != name);
        put(&name, &value);
    }
    put("OTEL_RESOURCE_ATTRIBUTES", &resource(given("OTEL_RESOURCE_ATTRIBUTES").as_deref(), facts.run));
    if let Some(exporters) = traces_exporters(given("OTEL_TRACES_EXPORTER").as_deref()) {
        put("OTEL_TRACES_EXPORTER", &exporters);
    }
    for (name, list) in no_proxy(&given) {
        put(name, &list);
    }
    let mut default = |name: &str, value: &str| {
        if given(name).is_none() {
            put(name, value);
        }
    };
    default("OTEL_LOGS_EXPORTER", "otlp");
    default("OTEL_BSP_SCHEDULE_DELAY", BATCH_DELAY);
    default("OTEL_BLRP_SCHEDULE_DELAY", BATCH_DELAY);
    default("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", ATTRIBUTES);
    let is_named =
        given("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|list| members(&list).any(|(key, _)| key == "service.name"));
    if !is_named {
        default("OTEL_SERVICE_NAME", facts.name);
    }
    for (name, value) in TELEMETRY_SWITCHES {
        default(name, value);
    }
    default("GEMINI_TELEMETRY_OTLP_ENDPOINT", &facts.endpoint);
    if given("TRACELOOP_API_KEY").is_none() {
        default("TRACELOOP_BASE_URL", &facts.endpoint);
        if !facts.has_targets {
            default("TRACELOOP_METRICS_ENABLED", "false");
        }
    }
    let wants_content = facts.content != Some(Content::None);
    for (name, value) in capture(wants_content, facts.is_python, given(OPT_IN).as_deref()) {
        default(name, value);
    }
    for (name, wanted, unwanted) in CONTENT_SWITCHES {
        if let Some(value) = if wants_content { wanted } else { unwanted } {
            default(name, value);
        }
    }
    environment.set.insert("RUNSPAN_STORE".to_owned(), facts.store.clone().into_os_string());
    environment
}

/// Returns `NO_PROXY` with this machine in it, in both spellings, where there is a proxy to go through: what is for the
/// ports of the run must not go there.
fn no_proxy(given: &impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    const PROXIES: [&str; 4] = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    const NAMES: [&str; 2] = ["no_proxy", "NO_PROXY"];
    const SELF: &str = "127.0.0.1";
    if PROXIES.iter().all(|name| given(name).is_none()) {
        return Vec::new();
    }
    let list = NAMES.iter().find_map(|name| given(name)).unwrap_or_default();
    let has_it = list.split(',').any(|name| matches!(name.trim(), SELF | "*"));
    let list = if has_it { list } else { format!("{list}{}{SELF}", if list.is_empty() { "" } else { "," }) };
    NAMES.iter().map(|name| (*name, list.clone())).collect()
}

/// Returns `TRACEPARENT` and its kin: the command is below its root step.
fn context(facts: &Facts<'_>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut set = |name: &'static str, value: String| variables.push((name.to_ascii_uppercase(), value));
    match facts.outer {
        Some(outer) => inject_below(&facts.context, outer, &mut set),
        None => inject_span(&facts.context, &mut set),
    }
    variables
}

/// Adds the run to the attributes of the resource: many an SDK reads these and not `TRACEPARENT`.
fn resource(given: Option<&str>, run: RunId) -> String {
    let mut list: Vec<String> = members(given.unwrap_or_default())
        .filter(|(key, _)| *key != RUN_ID)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    list.push(format!("{RUN_ID}={run}"));
    list.join(",")
}

fn members(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.split(',').filter_map(|member| member.split_once('=')).map(|(key, value)| (key.trim(), value.trim()))
}

/// Returns the exporters with ours among them; `None` to leave them as they are, since none are wanted.
fn traces_exporters(given: Option<&str>) -> Option<String> {
    match given {
        None => Some("otlp".to_owned()),
        Some("none") => None,
        Some(list) if list.split(',').any(|exporter| exporter.trim().starts_with("otlp")) => None,
        Some(list) => Some(format!("{list},otlp")),
    }
}

/// The opt-in to what content is written with, and its word.
const OPT_IN: &str = "OTEL_SEMCONV_STABILITY_OPT_IN";
const LATEST: &str = "gen_ai_latest_experimental";

/// Returns the switches for content of OpenTelemetry's own instrumentations. Those for Python take the name of a place, and write to
/// it as those who have opted in to the latest conventions; old ones take a yes or no. So do all others, as the conventions had
/// it, and a place is a no to them.
///
/// Source: `opentelemetry-util-genai` 1.3b0 `utils.py`, which takes nothing else for a place than the name of one; OpenTelemetry's
/// instrumentations for Java 2.x and GitHub Copilot CLI, which compare with `true`.
fn capture(wanted: bool, is_python: bool, opt_in: Option<&str>) -> Vec<(&'static str, &'static str)> {
    let is_latest = opt_in.is_none_or(|words| words.split(',').any(|word| word.trim() == LATEST));
    let value = match (wanted, is_python && is_latest) {
        (true, true) => "SPAN_ONLY",
        (false, true) => "NO_CONTENT",
        (true, false) => "true",
        (false, false) => "false",
    };
    vec![(CAPTURE, value), (OPT_IN, LATEST)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(given: &[(&str, &str)], content: Option<Content>, has_targets: bool) -> String {
        let facts = Facts {
            endpoint: "http://127.0.0.1:1".to_owned(),
            store: "/store".into(),
            content,
            name: "agent",
            run: "01KE9BZH80BGEY5ABZ7D0DHDQ1".parse().unwrap(),
            context: SpanContext {
                trace_id: "019b92bfc5005c1de2a97f3b40d8b6e1".parse().unwrap(),
                span_id: "0102030405060708".parse().unwrap(),
                flags: 1,
                run_id: Some("01KE9BZH80BGEY5ABZ7D0DHDQ1".parse().unwrap()),
            },
            outer: None,
            has_targets,
            is_python: true,
        };
        let lookup = |name: &str| given.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let environment = of_command(lookup, &facts);
        let set = environment.set.iter().map(|(name, value)| format!("{name}={}\n", value.to_string_lossy()));
        let removed = environment.removed.iter().map(|name| format!("-{name}\n"));
        set.chain(removed).collect()
    }

    #[test]
    fn an_empty_environment_gets_all_of_it() {
        insta::assert_snapshot!(made(&[], None, false), @r"
        ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS=true
        AZURE_TRACING_GEN_AI_CONTENT_RECORDING_ENABLED=true
        BAGGAGE=runspan.run.id=01KE9BZH80BGEY5ABZ7D0DHDQ1
        CLAUDE_CODE_ENABLE_TELEMETRY=1
        CLAUDE_CODE_ENHANCED_TELEMETRY_BETA=1
        ENABLE_INSTRUMENTATION=true
        ENABLE_SENSITIVE_DATA=true
        GEMINI_TELEMETRY_ENABLED=true
        GEMINI_TELEMETRY_LOG_PROMPTS=true
        GEMINI_TELEMETRY_OTLP_ENDPOINT=http://127.0.0.1:1
        GEMINI_TELEMETRY_OTLP_PROTOCOL=http
        GEMINI_TELEMETRY_TARGET=local
        OTEL_BLRP_SCHEDULE_DELAY=500
        OTEL_BSP_SCHEDULE_DELAY=500
        OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1
        OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
        OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=SPAN_ONLY
        OTEL_LOGS_EXPORTER=otlp
        OTEL_LOG_TOOL_DETAILS=1
        OTEL_LOG_USER_PROMPTS=1
        OTEL_RESOURCE_ATTRIBUTES=runspan.run.id=01KE9BZH80BGEY5ABZ7D0DHDQ1
        OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental
        OTEL_SERVICE_NAME=agent
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=1024
        OTEL_TRACES_EXPORTER=otlp
        RUNSPAN_STORE=/store
        TRACELOOP_BASE_URL=http://127.0.0.1:1
        TRACELOOP_METRICS_ENABLED=false
        TRACELOOP_TRACE_CONTENT=true
        TRACEPARENT=00-019b92bfc5005c1de2a97f3b40d8b6e1-0102030405060708-01
        -OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
        -OTEL_EXPORTER_OTLP_TRACES_PROTOCOL
        -RUNSPAN_FORWARD
        -TRACESTATE
        ");
    }

    #[test]
    fn what_the_user_set_stands_and_traces_come_here_too() {
        let given = [
            ("OTEL_TRACES_EXPORTER", "console"),
            ("OTEL_METRICS_EXPORTER", "prometheus"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine,runspan.run.id=01KE9BZH80BGEY5ABZ7D0DHDQ2, a = b"),
            ("OTEL_SEMCONV_STABILITY_OPT_IN", "http,gen_ai_latest_experimental"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("TRACELOOP_TRACE_CONTENT", "true"),
            ("ENABLE_INSTRUMENTATION", "false"),
        ];
        let changed: Vec<String> = made(&given, Some(Content::None), true)
            .lines()
            .filter(|line| !line.contains("GEMINI"))
            .map(str::to_owned)
            .collect();
        insta::assert_snapshot!(changed.join("\n"), @r"
        ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS=false
        AZURE_TRACING_GEN_AI_CONTENT_RECORDING_ENABLED=false
        BAGGAGE=runspan.run.id=01KE9BZH80BGEY5ABZ7D0DHDQ1
        CLAUDE_CODE_ENABLE_TELEMETRY=1
        CLAUDE_CODE_ENHANCED_TELEMETRY_BETA=1
        ENABLE_SENSITIVE_DATA=false
        OPENINFERENCE_HIDE_INPUTS=true
        OPENINFERENCE_HIDE_OUTPUTS=true
        OTEL_BLRP_SCHEDULE_DELAY=500
        OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1
        OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf
        OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=NO_CONTENT
        OTEL_LOGS_EXPORTER=otlp
        OTEL_LOG_TOOL_DETAILS=0
        OTEL_LOG_USER_PROMPTS=0
        OTEL_RESOURCE_ATTRIBUTES=service.name=mine,a=b,runspan.run.id=01KE9BZH80BGEY5ABZ7D0DHDQ1
        OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=1024
        OTEL_TRACES_EXPORTER=console,otlp
        RUNSPAN_CONTENT=none
        RUNSPAN_STORE=/store
        TRACELOOP_BASE_URL=http://127.0.0.1:1
        TRACEPARENT=00-019b92bfc5005c1de2a97f3b40d8b6e1-0102030405060708-01
        -OTEL_EXPORTER_OTLP_TRACES_ENDPOINT
        -OTEL_EXPORTER_OTLP_TRACES_PROTOCOL
        -RUNSPAN_FORWARD
        -TRACESTATE
        ");
        let proxied = made(&[("http_proxy", "http://proxy"), ("NO_PROXY", "mine")], None, false);
        assert!(proxied.contains("NO_PROXY=mine,127.0.0.1\n") && proxied.contains("no_proxy=mine,127.0.0.1\n"));
        assert_eq!(traces_exporters(Some("none")), None, "who wants no traces gets none");
    }

    #[test]
    fn content_is_asked_for_in_the_words_of_who_reads_them() {
        let value = |wanted, is_python, opt_in| capture(wanted, is_python, opt_in)[0].1;
        let of = |is_python, opt_in| (value(true, is_python, opt_in), value(false, is_python, opt_in));
        assert_eq!(of(true, None), ("SPAN_ONLY", "NO_CONTENT"));
        assert_eq!(of(true, Some("http")), ("true", "false"));
        assert_eq!((of(false, None), of(false, Some(LATEST))), (("true", "false"), ("true", "false")));
    }
}
