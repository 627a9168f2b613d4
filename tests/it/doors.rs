//! One run through each door: what is stored is the same.

use std::collections::HashMap;
use std::path::Path;

use opentelemetry::trace::{Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Array, Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use runspan::store::RunReader;
use runspan::{Run, Usage};
use serde_json::{Value as Json, json};
use tracing::{field::Empty, info, info_span};
use tracing_subscriber::layer::SubscriberExt;

use super::support::{WATCHDOG, only_run, open, record_in};

const TOOL_REQUEST: &str =
    r#"[{"role":"assistant","parts":[{"type":"tool_call","id":"call-1","name":"get_weather"}]}]"#;

/// An agent asks a model, which asks for a tool, which fails; the model answers all the same.
fn agent_in_tracing() {
    let agent = info_span!(
        "invoke_agent weather",
        gen_ai.operation.name = "invoke_agent",
        gen_ai.agent.name = "weather",
        gen_ai.conversation.id = "session-1",
        user.id = "user-1",
    );
    let _in_agent = agent.enter();
    let chat = |input: i64, output: i64, messages: Option<&str>| {
        let call = info_span!(
            "chat gpt-4o-mini",
            otel.kind = "client",
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = "openai",
            gen_ai.request.model = "gpt-4o-mini",
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.cache_read.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            gen_ai.output.messages = messages,
        );
        let _in_call = call.enter();
        call.record("gen_ai.usage.input_tokens", input);
        call.record("gen_ai.usage.cache_read.input_tokens", 100);
        call.record("gen_ai.usage.output_tokens", output);
    };
    chat(120, 30, Some(TOOL_REQUEST));
    info_span!(
        "execute_tool get_weather",
        gen_ai.operation.name = "execute_tool",
        gen_ai.tool.name = "get_weather",
        gen_ai.tool.call.id = "call-1",
        error.r#type = "NoSuchCity",
        otel.status_code = "ERROR",
        otel.status_description = "no such city",
    )
    .in_scope(|| info!(city = "Atlantis", "looked in vain"));
    chat(160, 12, None);
}

/// The same by the SDK's own calls.
fn agent_in_sdk(tracer: &SdkTracer) {
    let under = |parent: &Context, name: &'static str, attributes: Vec<KeyValue>| {
        let builder = tracer.span_builder(name).with_attributes(attributes);
        parent.with_span(tracer.build_with_context(builder, parent))
    };
    let agent = under(
        &Context::new(),
        "invoke_agent weather",
        vec![
            KeyValue::new("gen_ai.operation.name", "invoke_agent"),
            KeyValue::new("gen_ai.agent.name", "weather"),
            KeyValue::new("gen_ai.conversation.id", "session-1"),
            KeyValue::new("user.id", "user-1"),
        ],
    );
    let chat = |input: i64, output: i64, messages: Option<&'static str>| {
        let attributes = vec![
            KeyValue::new("gen_ai.operation.name", "chat"),
            KeyValue::new("gen_ai.provider.name", "openai"),
            KeyValue::new("gen_ai.request.model", "gpt-4o-mini"),
        ];
        let call = under(&agent, "chat gpt-4o-mini", attributes);
        let span = call.span();
        span.set_attribute(KeyValue::new("gen_ai.usage.input_tokens", input));
        span.set_attribute(KeyValue::new("gen_ai.usage.cache_read.input_tokens", 100));
        span.set_attribute(KeyValue::new("gen_ai.usage.output_tokens", output));
        if let Some(messages) = messages {
            span.set_attribute(KeyValue::new("gen_ai.output.messages", messages));
            let reasons = Array::String(vec!["tool_calls".into()]);
            span.set_attribute(KeyValue::new("gen_ai.response.finish_reasons", Value::Array(reasons)));
        }
        span.end();
    };
    chat(120, 30, Some(TOOL_REQUEST));
    let tool = under(
        &agent,
        "execute_tool get_weather",
        vec![
            KeyValue::new("gen_ai.operation.name", "execute_tool"),
            KeyValue::new("gen_ai.tool.name", "get_weather"),
            KeyValue::new("gen_ai.tool.call.id", "call-1"),
            KeyValue::new("error.type", "NoSuchCity"),
        ],
    );
    tool.span().add_event("looked in vain", vec![KeyValue::new("level", "INFO"), KeyValue::new("city", "Atlantis")]);
    tool.span().set_status(Status::error("no such city"));
    tool.span().end();
    chat(160, 12, None);
    agent.span().end();
}

/// What the tool fails with.
#[derive(Debug)]
struct NoSuchCity;

impl std::fmt::Display for NoSuchCity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no such city")
    }
}

impl std::error::Error for NoSuchCity {}

/// The same by hand.
fn agent_by_hand() {
    let run = Run::agent("weather").session("session-1").user("user-1").start();
    let chat = |input: u64, output: u64, messages: Option<&str>| {
        let call = run.llm("openai", "gpt-4o-mini");
        call.usage(Usage::new(input, output).cache_read(100));
        if let Some(messages) = messages {
            call.output(serde_json::from_str::<Json>(messages).unwrap());
        }
        call.finish();
    };
    chat(120, 30, Some(TOOL_REQUEST));
    let tool = run.tool("get_weather");
    tool.call_id("call-1").event("looked in vain", json!({ "city": "Atlantis" }));
    tool.fail(&NoSuchCity);
    chat(160, 12, None);
    run.finish();
}

#[cfg(feature = "macros")]
mod attributes {
    use super::{Json, NoSuchCity, TOOL_REQUEST, Usage, json};

    #[runspan::llm(provider = "openai", model = "gpt-4o-mini", skip_all, skip_output)]
    fn chat(input: u64, output: u64, messages: Option<&str>) {
        let call = runspan::current();
        call.usage(Usage::new(input, output).cache_read(100));
        if let Some(messages) = messages {
            call.output(serde_json::from_str::<Json>(messages).unwrap());
        }
    }

    #[runspan::tool]
    fn get_weather() -> Result<f64, NoSuchCity> {
        runspan::current().call_id("call-1").event("looked in vain", json!({ "city": "Atlantis" }));
        Err(NoSuchCity)
    }

    /// The same by attribute.
    #[runspan::agent(name = "weather")]
    pub fn agent() {
        runspan::current().session("session-1").user("user-1");
        chat(120, 30, Some(TOOL_REQUEST));
        let _ = get_weather();
        chat(160, 12, None);
    }
}

fn tracing_opentelemetry_over(provider: &SdkTracerProvider) -> impl tracing::Subscriber + Send + Sync + use<> {
    tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(provider.tracer("agent")))
}

/// Everything stored of a store's one run, without its ids and times.
fn stored(store: &Path) -> Json {
    let run = only_run(store);
    let reader = open(store);
    let mut summary = serde_json::to_value(&run).unwrap();
    let unsteady =
        ["run_id", "trace_id", "started_at", "completed_at", "duration_ms", "updated_at", "writer", "events_sha256"];
    for key in unsteady {
        summary.as_object_mut().unwrap().shift_remove(key);
    }
    let steps = reader.get_steps(run.run_id).unwrap();
    let names: HashMap<_, _> = steps.iter().map(|step| (step.span_id, step.step_id.clone())).collect();
    let steps: Vec<Json> = steps
        .iter()
        .map(|step| {
            let mut json = serde_json::to_value(step).unwrap();
            let fields = json.as_object_mut().unwrap();
            for key in ["span_id", "parent_span_id", "started_at", "duration_ms"] {
                fields.shift_remove(key);
            }
            fields.insert("parent".into(), json!(step.parent_span_id.map(|parent| names[&parent].clone())));
            json
        })
        .collect();
    let events = reader.get_events(run.run_id, 0).unwrap();
    let places: HashMap<_, _> = events.iter().map(|event| (event.event_id, event.seq)).collect();
    let events: Vec<Json> = events
        .iter()
        .map(|event| {
            let kind = serde_json::to_value(event).unwrap()["type"].clone();
            json!([kind, event.step_id, event.parent_event_id.map(|cause| places[&cause])])
        })
        .collect();
    json!({ "summary": summary, "steps": steps, "events": events })
}

fn through_layer(agent: impl FnOnce()) -> Json {
    let dir = crate::support::tempdir();
    let report = record_in(dir.path(), |_| agent());
    assert_eq!((report.stored, report.pending), (4, 0), "{report:?}");
    stored(dir.path())
}

fn through_processor(run: impl FnOnce(&SdkTracerProvider)) -> Json {
    let dir = crate::support::tempdir();
    let (processor, guard) = runspan::builder().store(dir.path()).processor().unwrap();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    run(&provider);
    provider.shutdown().unwrap();
    let report = guard.shutdown(WATCHDOG);
    assert_eq!((report.stored, report.pending), (4, 0), "{report:?}");
    stored(dir.path())
}

fn through_exporter(build: impl FnOnce(runspan::Exporter) -> SdkTracerProvider) -> Json {
    let dir = crate::support::tempdir();
    let (exporter, guard) = runspan::builder().store(dir.path()).exporter().unwrap();
    let provider = build(exporter);
    agent_in_sdk(&provider.tracer("agent"));
    provider.shutdown().unwrap();
    let report = guard.shutdown(WATCHDOG);
    assert_eq!((report.stored, report.pending), (4, 0), "{report:?}");
    stored(dir.path())
}

#[test]
fn one_run_through_each_door_is_stored_the_same() {
    let expected = through_layer(agent_in_tracing);
    let doors: Vec<(&str, Json)> = vec![
        (
            "processor under tracing-opentelemetry",
            through_processor(|provider| {
                tracing::subscriber::with_default(tracing_opentelemetry_over(provider), agent_in_tracing)
            }),
        ),
        ("processor of the SDK alone", through_processor(|provider| agent_in_sdk(&provider.tracer("agent")))),
        (
            "exporter, in batches",
            through_exporter(|exporter| SdkTracerProvider::builder().with_batch_exporter(exporter).build()),
        ),
        ("by hand", through_layer(agent_by_hand)),
        #[cfg(feature = "macros")]
        ("by attribute", through_layer(attributes::agent)),
    ];
    for (door, stored) in doors {
        assert_eq!(pretty(&stored), pretty(&expected), "{door}");
    }
    insta::assert_snapshot!(outline(&expected), @r#"
    kind: "agent"
    agent_id: "weather"
    session_id: "session-1"
    user_id: "user-1"
    status: "success"
    cost_usd: 0.0000522
    tokens: {"prompt":280,"completion":42,"total":322,"cache_read":200,"cache_write":null,"reasoning":null}
    llm_calls: 2
    errors: 1
    "weather" null "agent" "invoke_agent weather" "success" null null
    "chat" "weather" "llm" "chat gpt-4o-mini" "success" 0.0000285 null
    "get_weather" "weather" "tool" "execute_tool get_weather" "error" null {"type":"NoSuchCity","message":"no such city"}
    "chat-2" "weather" "llm" "chat gpt-4o-mini" "success" 0.0000237 null
    ["run_started",null,null]
    ["step_started","weather",0]
    ["step_started","chat",1]
    ["llm_called","chat",2]
    ["tool_requested","get_weather",3]
    ["log","get_weather",4]
    ["tool_failed","get_weather",4]
    ["step_started","chat-2",1]
    ["llm_called","chat-2",7]
    ["step_completed","weather",1]
    ["run_completed",null,0]
    "#);
}

#[test]
fn layer_and_processor_beside_each_other_store_each_span_once() {
    let expected = through_layer(agent_in_tracing);
    for layer_first in [true, false] {
        let dir = crate::support::tempdir();
        let (layer, guard) = runspan::builder().store(dir.path()).build().unwrap();
        let (processor, second) = runspan::builder().store(dir.path()).processor().unwrap();
        let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
        let tracer = provider.tracer("agent");
        if layer_first {
            let subscriber =
                tracing_subscriber::registry().with(layer).with(tracing_opentelemetry::layer().with_tracer(tracer));
            tracing::subscriber::with_default(subscriber, agent_in_tracing);
        } else {
            let subscriber =
                tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer)).with(layer);
            tracing::subscriber::with_default(subscriber, agent_in_tracing);
        }
        provider.shutdown().unwrap();
        drop(second);
        let report = guard.shutdown(WATCHDOG);
        assert_eq!((report.stored, report.pending), (4, 0), "{report:?}");
        assert_eq!(pretty(&stored(dir.path())), pretty(&expected), "layer first: {layer_first}");
    }
}

/// Spans that an exporter gets one by one, innermost first, make the same steps; only the log's order is theirs.
#[test]
fn an_exporter_that_gets_ends_one_by_one_stores_the_same_steps() {
    let one_by_one = through_exporter(|exporter| SdkTracerProvider::builder().with_simple_exporter(exporter).build());
    let expected = through_layer(agent_in_tracing);
    assert_eq!(pretty(&one_by_one["steps"]), pretty(&expected["steps"]));
}

fn pretty(json: &Json) -> String {
    serde_json::to_string_pretty(json).unwrap()
}

fn outline(stored: &Json) -> String {
    let summary = &stored["summary"];
    let keys = ["kind", "agent_id", "session_id", "user_id", "status", "cost_usd", "tokens", "llm_calls", "errors"];
    let mut lines: Vec<String> = keys.iter().map(|key| format!("{key}: {}", summary[key])).collect();
    for step in stored["steps"].as_array().unwrap() {
        let keys = ["step_id", "parent", "kind", "name", "status", "cost_usd", "error"];
        lines.push(keys.map(|key| step[key].to_string()).join(" "));
    }
    lines.extend(stored["events"].as_array().unwrap().iter().map(Json::to_string));
    lines.join("\n")
}
