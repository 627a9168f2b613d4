//! What the OpenTelemetry SDK asks of a processor and of an exporter: resource, flush and shutdown, with real results.

use std::path::Path;
use std::time::{Duration, Instant};

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceFlags, Tracer, TracerProvider as _,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter, SpanProcessor};
use runspan::model::otlp;
use runspan::store::RunReader;
use runspan::{Exporter, Processor};

use super::support::{WATCHDOG, child, is_child, only_run, open, outline, record_in, runs, steps};

fn resource() -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "the-service"),
            KeyValue::new("shards", Value::Array(Array::I64(vec![1, 2]))),
        ])
        .build()
}

fn agent(provider: &SdkTracerProvider, name: &'static str) {
    let attributes =
        vec![KeyValue::new("gen_ai.operation.name", "invoke_agent"), KeyValue::new("gen_ai.agent.name", name)];
    let tracer = provider.tracer("agent");
    tracer.build(tracer.span_builder("invoke_agent").with_attributes(attributes)).end();
}

/// The resource of the last event that has one.
fn stored_resource(store: &Path) -> Vec<(String, otlp::Value)> {
    let run = runs(store)[0].run_id;
    let events = open(store).get_events(run, 0).unwrap();
    let resource = events.iter().rev().find_map(|event| event.body.span()?.1.cloned()).unwrap();
    resource
        .attributes
        .into_iter()
        .filter(|attribute| !matches!(attribute.key.as_str(), "process.pid" | "service.instance.id"))
        .map(|attribute| (attribute.key, attribute.value.unwrap().value.unwrap()))
        .map(|(key, value)| (key.clone(), if key == "runspan.store.id" { "s".into() } else { value }))
        .collect()
}

fn expected_resource() -> Vec<(String, otlp::Value)> {
    let shards = otlp::ArrayValue { values: vec![otlp::Value::Int(1).into(), otlp::Value::Int(2).into()] };
    let mut expected = vec![
        ("service.name".to_owned(), otlp::Value::from("the-service")),
        ("shards".to_owned(), otlp::Value::Array(shards)),
        ("runspan.store.id".to_owned(), otlp::Value::from("s")),
    ];
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    expected
}

fn sorted(mut attributes: Vec<(String, otlp::Value)>) -> Vec<(String, otlp::Value)> {
    attributes.sort_by(|a, b| a.0.cmp(&b.0));
    attributes
}

#[test]
fn a_link_to_a_trace_that_another_process_recorded_names_its_run() {
    let dir = crate::support::tempdir();
    let link = |to: SpanContext| {
        let (processor, guard) = runspan::builder().store(dir.path()).processor().unwrap();
        let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
        let tracer = provider.tracer("agent");
        let attributes = vec![KeyValue::new("gen_ai.operation.name", "invoke_agent")];
        let builder = tracer.span_builder("invoke_agent").with_attributes(attributes);
        let mut span = tracer.build(builder.with_links(vec![Link::new(to, Vec::new(), 0)]));
        span.end();
        guard.shutdown(WATCHDOG);
    };
    record_in(dir.path(), |_| runspan::Run::agent("first").start().finish());
    let first = only_run(dir.path());
    let to = |trace: [u8; 16]| {
        let (trace, span) = (opentelemetry::TraceId::from_bytes(trace), opentelemetry::SpanId::from_bytes([1; 8]));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, true, Default::default())
    };
    link(to(first.trace_id.0));
    link(to([9; 16]));
    let mut parents: Vec<_> = runs(dir.path()).iter().map(|run| run.parent_run_id).collect();
    parents.sort();
    assert_eq!(parents, [None, None, Some(first.run_id)]);
}

#[test]
fn a_span_is_stored_with_everything_that_the_sdk_knows() {
    let dir = crate::support::tempdir();
    let (processor, guard) = runspan::builder().store(dir.path()).processor().unwrap();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).with_max_events_per_span(1).build();
    let scope = InstrumentationScope::builder("library")
        .with_version("1.2.3")
        .with_attributes([KeyValue::new("edition", "second")])
        .build();
    let tracer = provider.tracer_with_scope(scope);
    let cause = tracer.build(SpanBuilder::from_name("cause"));
    let to: SpanContext = cause.span_context().clone();
    let builder = tracer
        .span_builder("chat")
        .with_kind(SpanKind::Client)
        .with_attributes([
            KeyValue::new("gen_ai.operation.name", "chat"),
            KeyValue::new("list", Value::Array(Array::String(vec!["a".into(), "b".into()]))),
            KeyValue::new("flag", true),
            KeyValue::new("ratio", 0.5),
        ])
        .with_links(vec![Link::new(to, vec![KeyValue::new("why", "because")], 0)]);
    let mut span = tracer.build(builder);
    span.add_event("first", vec![KeyValue::new("n", 1)]);
    span.add_event("second", vec![]);
    span.set_status(Status::error("boom"));
    let ids = span.span_context().clone();
    span.end();
    drop(cause);
    provider.shutdown().unwrap();
    drop(guard);

    let run = only_run(dir.path());
    let events = open(dir.path()).get_events(run.run_id, 0).unwrap();
    let end = events.iter().rev().find(|event| event.body.span().is_some()).unwrap();
    let (span, _, scope) = end.body.span().unwrap();
    let scope = scope.unwrap();
    assert_eq!((scope.name.as_str(), scope.version.as_str()), ("library", "1.2.3"));
    assert_eq!(scope.attributes[0].key, "edition");
    assert_eq!(span.trace_id, ids.trace_id().to_bytes());
    assert_eq!(span.span_id, ids.span_id().to_bytes());
    assert_eq!((span.kind, span.flags), (3, 0x101));
    assert_eq!(span.attr("list").unwrap().to_json(), serde_json::json!(["a", "b"]));
    assert_eq!(span.attr("flag"), Some(&otlp::Value::Bool(true)));
    assert_eq!(span.attr("ratio"), Some(&otlp::Value::Double(0.5)));
    assert_eq!(span.attr_str("runspan.run.id"), Some(run.run_id.to_string().as_str()));
    assert_eq!(span.status.as_ref().map(|status| (status.code, status.message.as_str())), Some((2, "boom")));
    assert_eq!((span.events.len(), span.events[0].name.as_str(), span.dropped_events_count), (1, "first", 1));
    assert_eq!((span.links.len(), span.links[0].attributes[0].key.as_str()), (1, "why"));
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
}

#[test]
fn the_providers_resource_is_what_records_carry() {
    let dir = crate::support::tempdir();
    let (processor, guard) = runspan::builder().store(dir.path()).processor().unwrap();
    let provider = SdkTracerProvider::builder().with_resource(resource()).with_span_processor(processor).build();
    agent(&provider, "a");
    drop((provider, guard));
    assert_eq!(sorted(stored_resource(dir.path())), expected_resource());

    let dir = crate::support::tempdir();
    let (exporter, guard) = runspan::builder().store(dir.path()).exporter().unwrap();
    let provider = SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build();
    agent(&provider, "a");
    drop((provider, guard));
    assert_eq!(sorted(stored_resource(dir.path())), expected_resource());
}

/// The worker has seen nothing when the process dies: the ring alone says who it was.
#[test]
fn the_resource_survives_the_death_of_the_process() {
    if let Some(store) = is_child("otel::the_resource_survives_the_death_of_the_process") {
        let (processor, guard) = runspan::builder().store(store).processor().unwrap();
        let provider = SdkTracerProvider::builder().with_resource(resource()).with_span_processor(processor).build();
        agent(&provider, "a");
        std::mem::forget((guard, provider.clone()));
        std::process::abort();
    }
    for _ in 0..5 {
        let dir = crate::support::tempdir();
        let status = child("otel::the_resource_survives_the_death_of_the_process", dir.path()).status().unwrap();
        assert!(!status.success());
        assert_eq!(only_run(dir.path()).agent_id.as_deref(), Some("a"));
        assert_eq!(sorted(stored_resource(dir.path())), expected_resource());
    }
}

#[test]
fn a_flush_returns_when_the_run_is_in_the_store() {
    let dir = crate::support::tempdir();
    let (processor, _guard) = runspan::builder().store(dir.path()).processor().unwrap();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    for n in 1..=3 {
        agent(&provider, "a");
        provider.force_flush().unwrap();
        assert_eq!(runs(dir.path()).len(), n);
    }
}

#[test]
fn an_unsampled_span_is_not_recorded() {
    let dir = crate::support::tempdir();
    let (processor, guard) = runspan::builder().store(dir.path()).processor().unwrap();
    let provider = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).with_span_processor(processor).build();
    agent(&provider, "a");
    provider.shutdown().unwrap();
    assert_eq!(guard.shutdown(WATCHDOG), runspan::Report::default());
}

fn is_already_shut_down(result: &OTelSdkResult) -> bool {
    matches!(result, Err(OTelSdkError::AlreadyShutdown))
}

/// A span as the SDK hands it out.
fn ended_span() -> SpanData {
    let provider = SdkTracerProvider::builder().build();
    let tracer = provider.tracer("agent");
    let mut span =
        tracer.build(tracer.span_builder("chat").with_attributes([KeyValue::new("gen_ai.operation.name", "chat")]));
    let data = span.exported_data().unwrap();
    span.end();
    data
}

#[test]
fn a_processor_that_was_shut_down_records_nothing_and_counts_it() {
    let dir = crate::support::tempdir();
    let (processor, guard) = runspan::builder().store(dir.path()).processor().unwrap();
    processor.on_end(ended_span());
    processor.shutdown().unwrap();
    assert!(is_already_shut_down(&processor.shutdown()), "the second time");
    assert!(is_already_shut_down(&processor.force_flush()));
    processor.on_end(ended_span());
    processor.on_end(ended_span());
    let report = guard.shutdown(WATCHDOG);
    assert_eq!((report.stored, report.pending), (1, 0));
    assert_eq!(report.dropped.into_iter().collect::<Vec<_>>(), [("shut_down", 2)]);
}

#[test]
fn an_exporter_that_was_shut_down_says_so() {
    let dir = crate::support::tempdir();
    let (exporter, guard) = runspan::builder().store(dir.path()).exporter().unwrap();
    let export =
        |batch| tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(exporter.export(batch));
    export(vec![ended_span()]).unwrap();
    exporter.force_flush().unwrap();
    assert_eq!(runs(dir.path()).len(), 1);
    exporter.shutdown().unwrap();
    assert!(is_already_shut_down(&export(vec![ended_span()])));
    assert!(is_already_shut_down(&exporter.shutdown()));
    assert!(is_already_shut_down(&exporter.force_flush()));
    let report = guard.shutdown(WATCHDOG);
    assert_eq!((report.stored, report.dropped.get("shut_down")), (1, Some(&1)));
}

#[test]
fn a_shutdown_without_time_says_that_it_ran_out() {
    let dir = crate::support::tempdir();
    let (processor, guard) = runspan::builder().store(dir.path()).processor().unwrap();
    for _ in 0..200 {
        processor.on_end(ended_span());
    }
    let begin = Instant::now();
    let result = processor.shutdown_with_timeout(Duration::ZERO);
    assert!(begin.elapsed() < Duration::from_secs(1));
    assert!(matches!(result, Err(OTelSdkError::Timeout(Duration::ZERO))), "{result:?}");
    assert_eq!(guard.shutdown(WATCHDOG).stored, 200, "its guard still writes all");
}

#[test]
fn a_store_that_cannot_be_written_fails_the_flush() {
    let dir = crate::support::tempdir();
    let store = dir.path().join("store");
    let (processor, guard) = runspan::builder().store(&store).processor().unwrap();
    processor.on_end(ended_span());
    processor.force_flush().unwrap();
    std::fs::remove_dir_all(&store).unwrap();
    processor.on_end(ended_span());
    let result = processor.force_flush();
    assert!(matches!(result, Err(OTelSdkError::InternalFailure(_))), "{result:?}");
    drop(guard);
}

#[test]
fn flush_and_shutdown_return_inside_and_after_a_current_thread_runtime() {
    let dir = crate::support::tempdir();
    let (processor, guard) = runspan::builder().store(dir.path()).processor().unwrap();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        agent(&provider, "inside");
        provider.force_flush().unwrap();
    });
    drop(runtime);
    agent(&provider, "after");
    provider.force_flush().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { provider.shutdown() }).unwrap();
    assert!(is_already_shut_down(&provider.shutdown()));
    assert_eq!(guard.shutdown(WATCHDOG).stored, 2);
}

/// In a process of its own, since the defaults come from the environment.
#[test]
fn processor_and_exporter_with_defaults_write_what_they_got_when_the_provider_goes() {
    if let Some(store) =
        is_child("otel::processor_and_exporter_with_defaults_write_what_they_got_when_the_provider_goes")
    {
        let (processor, exporter): (Processor, Exporter) = (runspan::processor(), runspan::exporter());
        let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
        agent(&provider, "a");
        provider.shutdown().unwrap();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exporter).build();
        agent(&provider, "b");
        drop(provider);
        // Nowhere to write is no reason to fail.
        let file = store.join("index.log");
        let refused = runspan::builder().store(&file).processor();
        assert!(refused.is_err());
        return;
    }
    let dir = crate::support::tempdir();
    let test = "otel::processor_and_exporter_with_defaults_write_what_they_got_when_the_provider_goes";
    let out = child(test, dir.path()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut names: Vec<_> = runs(dir.path()).into_iter().filter_map(|run| run.agent_id).collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);

    let blocked = dir.path().join("index.log");
    let out = child(test, &blocked.join("below-a-file")).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(said.lines().filter(|line| line.starts_with("runspan: ")).count(), 1, "{said}");
}

#[test]
fn a_processor_shows_a_run_while_it_runs() {
    let dir = crate::support::tempdir();
    let (processor, _guard) = runspan::builder().store(dir.path()).processor().unwrap();
    let provider = SdkTracerProvider::builder().with_span_processor(processor).build();
    let tracer = provider.tracer("agent");
    let attributes =
        [KeyValue::new("gen_ai.operation.name", "invoke_agent"), KeyValue::new("gen_ai.agent.name", "slow")];
    let mut span = tracer.build(tracer.span_builder("invoke_agent").with_attributes(attributes));
    provider.force_flush().unwrap();
    let run = only_run(dir.path());
    assert_eq!(outline(&steps(dir.path(), run.run_id)), ["slow agent running"]);
    span.end();
}
