//! The same run on disk and at an OpenTelemetry Collector (or Jaeger, Tempo, any OTLP endpoint).
//!
//! `collector-config/` has ready configurations. Without a Collector the example still records: what was not sent
//! stays in the journal, and the next recorded process with this store and endpoint sends it.
//!
//! ```sh
//! cargo run --example forward_to_a_collector --features forward -- http://127.0.0.1:4318
//! ```

use std::time::Duration;

use runspan::{Run, Usage};

fn main() -> Result<(), runspan::Error> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:4318".to_owned());
    let guard = runspan::builder().service_name("forward-example").forward(&url).init()?;

    let run = Run::agent("greeter").session("chat-1").start();
    let call = run.llm("openai", "gpt-4o-mini");
    call.usage(Usage::new(120, 30));
    call.finish();
    run.finish();

    let report = guard.shutdown(Duration::from_secs(3));
    println!("stored {}, sent to {url} {}, waiting {}", report.stored, report.exported, report.pending);
    Ok(())
}
