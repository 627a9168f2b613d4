//! The `runspan` program.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics"))]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
