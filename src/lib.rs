//! The flight recorder for AI agents: runs, steps, tokens and cost, on disk while they happen.
//!
//! ```text
//! sources ─> shared memory ─> pipeline ─────────────────────> journal ─┬─> run store (files)
//! layer, SDK      (ring)      normalize ─> price ─> scrub    (durable) ├─> OTLP endpoints
//! by hand, macros                                                      └─> metrics
//! ```
//!
//! A caller encodes a record once into shared memory that outlives the process and goes on; one worker thread does
//! the rest. See [`sources`], [`pipeline`], [`journal`], [`sinks`] and [`store`] for each part, and `docs/format.md` in
//! the repository for what lies on disk.
//!
//! ```
//! use runspan::{Run, Usage};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let guard = runspan::builder().store(dir.path()).init().unwrap();
//! // let guard = runspan::init();
//! let run = Run::agent("greeter").session("chat-1").start();
//! let call = run.llm("openai", "gpt-4o-mini");
//! call.usage(Usage::new(120, 30));
//! call.finish();
//! run.finish();
//! let report = guard.shutdown(std::time::Duration::from_secs(5));
//! assert_eq!(report.stored, 2);
//! ```
//!
//! Spans of `tracing` with `gen_ai.*` fields, those of `rig` among them, are recorded without any of this. What
//! `Span::record` gives to a field that its span did not declare is dropped by `tracing` itself.
//!
//! # Features
//!
//! None by default. `macros`: `#[runspan::agent]` and its kin; `otel-sdk`: `processor` and `exporter` for the OpenTelemetry
//! SDK; `tracing-opentelemetry`: the same ids as it; `forward`: OTLP traces out; `metrics`: OTLP metrics out; `server`: the
//! bridge; `cli`: the `runspan` binary; `full`: all of them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics"))]

pub mod compare;
mod config;
pub mod control;
pub mod conventions;
mod error;
pub mod fs;
pub mod journal;
pub mod model;
pub mod pipeline;
mod priority;
pub mod propagation;
pub mod recovery;
pub mod replay;
mod run;
#[cfg(feature = "server")]
pub mod server;
pub mod sinks;
pub mod sources;
pub mod store;
mod telemetry;

pub use error::{Error, with_causes};
pub use journal::Durability;
pub use model::budget::{Bound, Budget, BudgetExceeded, Spent};
pub use pipeline::Content;
pub use run::{
    ArtifactSource, Cancellation, Cancelled, Checkpoint, CurrentStep, ResumeError, Resumed, Run, RunBuilder, Step,
    Usage, Wait, WaitError, current,
};
pub use sinks::keep::{BadKeep, Keep};
pub use sources::layer::Layer;
#[cfg(feature = "otel-sdk")]
pub use sources::otel::{Exporter, Processor, exporter, processor};
pub use telemetry::{Builder, Guard, Report, builder, init};

/// Records calls of a function as runs of an agent, or as steps of one inside another run.
///
/// Arguments are recorded as the step's input and the returned value as its output, as JSON where their types are
/// `Serialize`, else as `Debug` prints them, else by the name of their type; content policy applies. An `Err` makes the step fail with the error's text;
/// a panic and a dropped future end it as `error` and as `cancelled`.
///
/// Options of all attributes: `name = ".."` in place of the function's name, `skip(a, b)` and `skip_all` for arguments,
/// `skip_output` for the result. `self` is never recorded. Of agents and workflows also `budget = ..`, a [`Budget`] or any expression
/// over the arguments that makes one: [`current`]`().check_budget()?` then says where it is exceeded.
///
/// ```
/// #[runspan::agent(name = "weather")]
/// async fn answer(question: &str) -> Result<String, std::io::Error> {
///     Ok(format!("{question} Sunny."))
/// }
/// ```
#[cfg(feature = "macros")]
pub use runspan_macros::agent;
/// Records calls of a function as model calls.
///
/// Besides the options of [`agent`](macro@agent): `provider = ".."` and `model = ".."`, each a text or any expression
/// over the arguments. What the call used is said from inside, by [`current`].
///
/// ```
/// #[runspan::llm(provider = "openai", model = model)]
/// async fn ask(model: &str, prompt: &str) -> String {
///     runspan::current().usage(runspan::Usage::new(12, 3));
///     prompt.to_uppercase()
/// }
/// ```
#[cfg(feature = "macros")]
pub use runspan_macros::llm;
/// Records calls of a function as steps without a kind of their own; options as for [`agent`](macro@agent).
///
/// ```
/// #[runspan::step(skip(document))]
/// fn chunk(document: &str, size: usize) -> Vec<&str> {
///     document.split_at_checked(size).map_or(vec![document], |(head, tail)| vec![head, tail])
/// }
/// ```
#[cfg(feature = "macros")]
pub use runspan_macros::step;
/// Records calls of a function as tool calls; options as for [`agent`](macro@agent).
///
/// ```
/// #[runspan::tool]
/// fn get_weather(city: &str) -> Result<f64, std::num::ParseFloatError> {
///     city.len().to_string().parse()
/// }
/// ```
#[cfg(feature = "macros")]
pub use runspan_macros::tool;
/// Records calls of a function as runs of a workflow, or as steps of one inside another run; options as for
/// [`agent`](macro@agent).
///
/// ```
/// #[runspan::workflow(skip_all)]
/// fn publish(draft: String) -> usize {
///     draft.len()
/// }
/// ```
#[cfg(feature = "macros")]
pub use runspan_macros::workflow;

#[cfg(feature = "macros")]
#[doc(hidden)]
pub use run::attributes as __private;
