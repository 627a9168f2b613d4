//! The ways to record that are compared.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use runspan::store::files::FilesReader;
use runspan::store::{Listed, Query, RunReader};
use tracing_subscriber::layer::SubscriberExt;

use crate::work::{self, Load};
use crate::{Failed, clock, sink};

/// Where stores are made that stay until all is measured.
pub const STORES: &str = "RUNSPAN_BENCH_STORES";

/// By name, the floor first.
pub const CASES: &[&str] = &[
    "tracing alone",
    "runspan, store and forwarding",
    "runspan, store",
    "runspan, store, within budgets",
    "tracing-opentelemetry, nothing behind",
    "tracing-opentelemetry + OTLP/HTTP",
    "tracing-opentelemetry lean + OTLP/HTTP",
    "SDK + OTLP/HTTP",
    "logfire",
];

/// Spans that the peers' queues hold: all, so that nothing is lost and the same work is compared.
const QUEUE: usize = 1 << 20;

/// Runs one case in this process and prints its two numbers: ns a step on the calling threads, and in the process.
pub fn run(name: &str, load: &str, url: &str) -> Result<(), Failed> {
    let load: Load = load.parse()?;
    // Their HTTP client wants one, for plain HTTP as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (thread, process) = match name {
        "tracing alone" => {
            tracing::subscriber::set_global_default(tracing_subscriber::registry())?;
            measured(load, |load| work::on_threads(load, work::tracing), || Ok(()))?
        }
        "runspan, store and forwarding" => runspan(load, Some(url), work::tracing)?,
        "runspan, store" => runspan(load, None, work::tracing)?,
        "runspan, store, within budgets" => runspan(load, None, work::bounded)?,
        "tracing-opentelemetry, nothing behind" => {
            let provider = SdkTracerProvider::builder().build();
            through_layer(load, &provider, true)?
        }
        "tracing-opentelemetry + OTLP/HTTP" => exported(url, &load, |provider| through_layer(load, provider, true))?,
        "tracing-opentelemetry lean + OTLP/HTTP" => {
            exported(url, &load, |provider| through_layer(load, provider, false))?
        }
        "SDK + OTLP/HTTP" => exported(url, &load, |provider| {
            let tracer = provider.tracer("bench");
            let work = |load: Load| work::on_threads(load, |load, text| work::opentelemetry(load, text, &tracer));
            measured(load, work, || Ok(provider.shutdown()?))
        })?,
        "logfire" => logfire(load, url)?,
        _ => return Err(format!("no case {name:?}").into()),
    };
    let expected = match name {
        "tracing alone" | "tracing-opentelemetry, nothing behind" => 0,
        "runspan, store" | "runspan, store, within budgets" => 0,
        _ => load.spans(),
    };
    let arrived = sink::count(url)?;
    // logfire sends a span's start too.
    if arrived != expected && !(name == "logfire" && arrived >= expected) {
        return Err(format!("{arrived} spans arrived, {expected} were recorded").into());
    }
    println!("{} {}", thread as f64 / load.spans() as f64, process as f64 / load.spans() as f64);
    Ok(())
}

/// Times work and what has to be done until all of it is out; returns thread and process time.
fn measured(
    load: Load,
    work: impl FnOnce(Load) -> u64,
    finish: impl FnOnce() -> Result<(), Failed>,
) -> Result<(u64, u64), Failed> {
    let start = clock::process();
    let thread = work(load);
    finish()?;
    let process = clock::process() - start;
    if load.pause_us == 0 {
        return Ok((thread, process));
    }
    // What is done in the pauses is not the recorder's, so the rest is what the other threads took.
    let idle_start = clock::process();
    work::on_threads(load, |load, text| {
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || work::tracing(load, text))
    });
    let idle = clock::process() - idle_start;
    Ok((thread, process.saturating_sub(idle)))
}

fn runspan(load: Load, url: Option<&str>, steps: fn(&Load, &str) -> u64) -> Result<(u64, u64), Failed> {
    let mut dir = tempfile::tempdir_in(std::env::var_os(STORES).map_or_else(std::env::temp_dir, Into::into))?;
    // Who measures removes it, when all is measured.
    dir.disable_cleanup(std::env::var_os(STORES).is_some());
    // Nothing of a hot loop may be dropped, or less work would be measured.
    let mut builder = runspan::builder().store(dir.path()).buffer_bytes(1 << 30);
    if let Some(url) = url {
        builder = builder.forward(url);
    }
    let (layer, guard) = builder.build()?;
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
    let work = |load| work::on_threads(load, steps);
    let times = measured(load, work, || {
        let report = guard.shutdown(Duration::from_secs(120));
        let all = load.spans();
        let whole = report.stored == all && report.dropped.is_empty() && report.pending == 0;
        let sent = url.is_none() || report.exported == all;
        if whole && sent { Ok(()) } else { Err(format!("of {all} spans: {report:?}").into()) }
    })?;
    let runs = FilesReader::open(dir.path())?.list_runs(&Query::default())?;
    let steps: u64 = runs.iter().map(|run| if let Listed::Run(run) = run { run.summary.steps_total } else { 0 }).sum();
    if (runs.len() as u64, steps) != (load.runs * load.threads, load.spans()) {
        return Err(format!("{} runs with {steps} steps are in the store", runs.len()).into());
    }
    if std::env::var_os("BENCH_BYTES").is_some() {
        let of_logs =
            runs.iter().filter_map(|run| if let Listed::Run(run) = run { Some(run.summary.run_id) } else { None });
        let bytes: u64 = of_logs
            .map(|run| dir.path().join("agents").join(run.to_string()).join("events.jsonl"))
            .filter_map(|path| Some(std::fs::metadata(path).ok()?.len()))
            .sum();
        eprintln!("{} bytes of events.jsonl a step", bytes / load.spans());
        if let Some(Listed::Run(run)) = runs.first() {
            let path = dir.path().join("agents").join(run.summary.run_id.to_string()).join("events.jsonl");
            eprintln!("{}", std::fs::read_to_string(path)?.lines().skip(5).take(8).collect::<Vec<_>>().join("\n"));
        }
    }
    Ok(times)
}

fn through_layer(load: Load, provider: &SdkTracerProvider, is_default: bool) -> Result<(u64, u64), Failed> {
    let mut layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
    if !is_default {
        layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false).with_target(false);
    }
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
    measured(load, |load| work::on_threads(load, work::tracing), || Ok(provider.shutdown()?))
}

fn exported<T>(
    url: &str,
    load: &Load,
    with: impl FnOnce(&SdkTracerProvider) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{url}/v1/traces"))
        .build()?;
    let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE.max(load.spans() as usize)).build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    with(&SdkTracerProvider::builder().with_span_processor(processor).build())
}

fn logfire(load: Load, url: &str) -> Result<(u64, u64), Failed> {
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE.to_string()) };
    let logfire = logfire::configure()
        .send_to_logfire(true)
        .with_token("bench")
        .with_console(None)
        .with_metrics(None)
        .with_advanced_options(logfire::config::AdvancedOptions::default().with_base_url(url))
        .finish()?;
    measured(load, |load| work::on_threads(load, work::tracing), || Ok(logfire.shutdown()?))
}
