//! `runspan stats`, `sql` and `search` on a store of 100,000 runs with 1,000,000 steps, as whole processes.
//!
//! ```sh
//! cargo bench --bench ask --features cli            # 100,000 runs of ten steps, some 8 GB of temporary disk
//! cargo bench --bench ask --features cli -- 10000   # fewer
//! cargo bench --bench ask --features cli -- 100000 /some/where   # in a folder that stays, used again if it is there
//! ```
//!
//! Method: runs of one agent, five model calls and four tool calls, with messages of some words from a list of 4,000, are
//! recorded into a store by the library itself. `runspan reindex` makes the index, the first `search` that of the texts;
//! both are timed once. Each question then runs 15 times with a warm file cache, and the median of the wall-clock times is
//! printed, beside the same for `cat index.log` as the floor in the same run. The promises: `stats --by model` within
//! 500 ms, a rare word within 30 ms, a common one within 200 ms, and lists as they were without steps and texts.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{cpu_seconds_of_children, median, once};
use tracing_subscriber::layer::SubscriberExt;

const RUNS: usize = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo itself passes `--bench`.
    let mut args = std::env::args().skip(1).filter(|word| word != "--bench");
    let runs = args.next().map_or(Ok(RUNS), |word| word.parse())?;
    let temporary = tempfile::tempdir()?;
    let store = args.next().map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    if !store.join("index.log").exists() {
        let begun = Instant::now();
        record(&store, 0..runs)?;
        println!("recording {runs} runs of 10 steps: {:.1} s", begun.elapsed().as_secs_f64());
    }
    let runspan = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
        command.args(args).arg("--store").arg(&store).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let size = |name: &str| std::fs::metadata(store.join(name)).map_or(0, |file| file.len());
    let floor = median(|| Command::new("cat").arg(store.join("index.log")).stdout(Stdio::null()).status())?;
    let show = |name: &str, took: Duration, promise: Option<u64>| {
        let ratio = took.as_secs_f64() / floor.as_secs_f64();
        let is_kept = promise.is_none_or(|promise| took <= Duration::from_millis(promise));
        let verdict = match promise {
            Some(promise) if is_kept => format!("within {promise} ms"),
            Some(promise) => format!("BROKEN: more than {promise} ms"),
            None => String::new(),
        };
        println!("{name:<52} {:>9.1} ms {ratio:>6.1}   {verdict}", took.as_secs_f64() * 1e3);
        is_kept
    };
    println!("{runs} runs, index.log of {} bytes", size("index.log"));
    show("cat index.log", floor, None);
    let time = |args: &[&str]| once(|| runspan(args).status());
    show("runspan reindex", time(&["reindex"])?, None);
    println!("index.sqlite of {} bytes", size("index.sqlite"));
    let before = cpu_seconds_of_children();
    show("runspan search, the first", time(&["search", "nowhere"])?, None);
    let cpu = cpu_seconds_of_children() - before;
    let text: usize = (0..runs).map(|n| (0..5).chain(10..14).map(|part| words(n, part).len()).sum::<usize>()).sum();
    let megabytes = text as f64 / 1e6;
    println!(
        "text.sqlite of {} bytes for {megabytes:.0} MB of text: {:.2} bytes a byte, {:.3} s of CPU a MB",
        size("text.sqlite"),
        size("text.sqlite") as f64 / text as f64,
        cpu / megabytes
    );
    let mut is_kept = true;
    for (args, promise) in [
        (&["list"][..], Some(50)),
        (&["list", "--status", "error"], Some(100)),
        (&["list", "--agent-id", "agent-7", "--sort", "cost"], Some(100)),
        (&["get", "latest"], Some(20)),
        (&["stats"], None),
        (&["stats", "--by", "model"], Some(500)),
        (&["stats", "--by", "agent"], None),
        (&["stats", "--by", "tool", "--agent-id", "agent-7"], None),
        (&["sql", "select status, count(*) from runs group by 1"], None),
        (&["search", "rareword77"], Some(30)),
        (&["search", "common"], Some(200)),
        (&["search", "common", "--agent-id", "agent-7"], None),
        (&["search", "word12 AND word99"], None),
        (&["search", "\"word12 word99\""], None),
        (&["search", "word1*"], None),
    ] {
        let took = median(|| runspan(args).status())?;
        is_kept &= show(&format!("runspan {}", args.join(" ")), took, promise);
    }
    let more = runs..runs + runs / 10;
    record(&store, more)?;
    show(&format!("runspan list, catching up on {} runs", runs / 10), time(&["list"])?, None);
    show("runspan stats, reading their steps", time(&["stats"])?, None);
    show("runspan search, reading their texts", time(&["search", "common"])?, None);
    if is_kept { Ok(()) } else { Err("a promise is broken".into()) }
}

fn record(store: &Path, runs: std::ops::Range<usize>) -> Result<(), runspan::Error> {
    let wanted = runs.len() as u64 * 10;
    let (layer, guard) = runspan::builder().store(store).build()?;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        for n in runs {
            one_run(n);
            // Recording is not what is measured: the ring must not overflow.
            if n % 100 == 0 {
                guard.flush(Duration::from_secs(60));
            }
        }
    });
    let report = guard.shutdown(Duration::from_secs(120));
    assert_eq!(report.stored, wanted, "{report:?}");
    Ok(())
}

fn one_run(n: usize) {
    let agent = tracing::info_span!(
        "invoke_agent",
        gen_ai.operation.name = "invoke_agent",
        gen_ai.agent.name = format!("agent-{}", n % 100),
        gen_ai.conversation.id = format!("session-{}", n / 10),
    );
    let _in_agent = agent.enter();
    for call in 0..5 {
        let model = ["gpt-4o-mini", "gpt-4o", "gpt-4.1-mini"][n % 10 % 3];
        let said = format!(
            "[{{\"role\":\"assistant\",\"parts\":[{{\"type\":\"text\",\"content\":\"{}\"}}]}}]",
            words(n, call)
        );
        let span = tracing::info_span!(
            "chat",
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = "openai",
            gen_ai.request.model = model,
            gen_ai.usage.input_tokens = (n % 5_000) as i64,
            gen_ai.usage.output_tokens = 20,
            gen_ai.output.messages = said,
        );
        span.in_scope(|| {});
        if call < 4 {
            let failed = (n + call).is_multiple_of(50);
            let span = tracing::info_span!(
                "execute_tool",
                gen_ai.operation.name = "execute_tool",
                gen_ai.tool.name = ["search_web", "read_file", "send_mail"][call % 3],
                gen_ai.tool.call.result = words(n, call + 10),
                error.type = failed.then_some("ToolError"),
                otel.status_message = failed.then(|| format!("no answer after {n} s")),
            );
            span.in_scope(|| {});
        }
    }
}

/// Twenty words of 4,000, one of 50,000 texts with one that is rare.
fn words(run: usize, part: usize) -> String {
    let mut state = (run * 31 + part * 7 + 1) as u64;
    let mut words = String::from("the common text");
    for _ in 0..20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        words.push_str(&format!(" word{}", (state >> 33) % 4_000));
    }
    if run % 5_000 == 77 && part == 0 {
        words.push_str(" rareword77");
    }
    words
}
