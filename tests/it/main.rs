//! The one integration binary; each module is a subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics")]

mod act;
mod budget;
mod by_hand;
mod clock;
mod crash;
#[cfg(feature = "cli")]
mod demo;
#[cfg(all(feature = "otel-sdk", feature = "tracing-opentelemetry"))]
mod doors;
#[cfg(feature = "cli")]
mod exec;
#[cfg(feature = "forward")]
mod feedback;
mod format;
#[cfg(feature = "forward")]
mod forward;
mod host;
#[cfg(all(feature = "otel-sdk", feature = "tracing-opentelemetry"))]
mod ids;
#[cfg(all(feature = "forward", feature = "metrics"))]
mod interop;
mod keep;
mod layers;
mod limits;
#[cfg(feature = "cli")]
mod live;
#[cfg(feature = "macros")]
mod macros;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "otel-sdk")]
mod otel;
#[cfg(feature = "cli")]
mod pages;
#[cfg(feature = "cli")]
mod play;
mod processes;
#[cfg(feature = "cli")]
mod replay;
mod rig;
mod secrets;
#[cfg(feature = "cli")]
mod serve;
#[cfg(feature = "cli")]
mod stats;
mod support;
#[cfg(all(feature = "cli", feature = "forward", feature = "metrics"))]
mod too_large;
mod totals;
mod trouble;
mod versions;

/// The model that the agents of these tests talk to: scripted, on loopback, with a log of what it billed.
#[allow(dead_code, unused_imports, reason = "the tests need only a part of it")]
#[path = "../../src/cli/demo/model_server/mod.rs"]
mod model_server;

/// The example that asks a human: run here as its own process.
#[path = "../../examples/ask_a_human.rs"]
mod ask_a_human;

/// A test file that is not a module here would never run.
#[test]
fn every_file_is_a_module() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = std::fs::read_to_string(dir.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        assert!(module == "main" || main.contains(&format!("mod {module};")), "{name} is not declared");
    }
}
