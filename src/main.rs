//! The `runspan` program.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed test panics"))]

mod cli;

/// A quarter of what `serve` does is to ask for memory and to give it back: this takes a quarter less of the processor and of memory
/// than glibc's allocator (ADR 0041).
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by the allocator before `main`. Each arena keeps what it may need again to itself: with four for each processor, as it is
/// by default, `serve` under load took as much memory as before. What is larger than a MiB, as bodies of requests are, goes back at once.
#[cfg(target_os = "linux")]
#[unsafe(export_name = "malloc_conf")]
pub static ALLOCATOR_OPTIONS: &[u8; 37] = b"narenas:2,oversize_threshold:1048576\0";

fn main() -> std::process::ExitCode {
    cli::main()
}
