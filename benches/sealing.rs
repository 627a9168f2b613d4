//! Bytes on disk a step of a conversation whose history grows, before and after sealing, beside raw OTLP.
//!
//! ```sh
//! cargo bench --bench sealing --features cli            # 50 turns
//! cargo bench --bench sealing --features cli -- 200     # more
//! ```
//!
//! Method: an agent is recorded by the library itself into a temporary store, with the content of its calls. In each turn the
//! user says about 400 bytes, the model is sent all that was said before, and answers about 800; words are drawn from 4,000
//! with a fixed seed, commoner ones more often. Every turn is two steps, the call and a tool. Then `cleanup` seals the log.
//! Raw OTLP is the same spans as one `TracesData` in protobuf, as a sender would send them; gzip is that of the receiver's
//! own library. Sizes are what the files say, so a debug build prints the same.

use std::io::Write;
use std::time::{Duration, Instant};

use prost::Message;
use runspan::model::otlp::{ResourceSpans, ScopeSpans, Span, TracesData};
use runspan::model::{RunId, UnixNanos};
use runspan::store::RunReader;
use runspan::store::files::FilesReader;
use runspan::store::files::cleanup::{Options, cleanup};
use runspan::store::retention::Policy;
use runspan::{Content, Run};
use serde_json::{Value as Json, json};
use tracing_subscriber::layer::SubscriberExt;

const TURNS: usize = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo itself passes `--bench`.
    let turns = std::env::args().skip(1).find(|word| word != "--bench").map_or(Ok(TURNS), |word| word.parse())?;
    let dir = tempfile::tempdir()?;
    record(dir.path(), turns)?;
    let reader = FilesReader::open(dir.path())?;
    let run = reader.resolve("latest")?;
    let steps = reader.get_run(run)?.steps_total;
    let log = reader.layout().find_run(run)?.ok_or("the run is gone")?.join("events.jsonl");
    let plain = std::fs::metadata(&log)?.len();
    let (raw, packed) = otlp(&reader, run)?;
    let before = read(&reader, run)?;
    let later = UnixNanos(UnixNanos::now().0 + 3_600_000_000_000);
    let begun = Instant::now();
    let options = Options { seal_from: Some(1), ..Options::default() };
    cleanup(reader.layout(), &Policy::default(), options, later, || true)?;
    let sealing = begun.elapsed();
    let sealed = std::fs::metadata(log.with_extension("jsonl.zst"))?.len();
    println!("{turns} turns, {steps} steps");
    for (what, bytes) in [
        ("events.jsonl", plain),
        ("sealed: events.jsonl.zst", sealed),
        ("raw OTLP, protobuf", raw),
        ("raw OTLP, protobuf, gzip", packed),
    ] {
        println!(
            "{what:<26} {bytes:>10} bytes {:>8} a step   {:>6.3} of raw",
            bytes / steps,
            bytes as f64 / raw as f64
        );
    }
    println!(
        "sealing took {} ms, reading it {} ms before and {} ms after",
        millis(sealing),
        millis(before),
        millis(read(&reader, run)?)
    );
    Ok(())
}

fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 10_000.0).round() / 10.0
}

fn read(reader: &FilesReader, run: RunId) -> Result<Duration, Box<dyn std::error::Error>> {
    let begun = Instant::now();
    reader.get_events(run, 0)?;
    Ok(begun.elapsed())
}

/// Words as a language has them: few that are common, many that are not.
struct Words {
    state: u64,
}

impl Words {
    fn roll(&mut self) -> u64 {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn text(&mut self, bytes: usize) -> String {
        let mut text = String::new();
        while text.len() < bytes {
            let share = (self.roll() % 10_000) as f64 / 10_000.0;
            let mut word = Words { state: (share * share * share * 4_000.0) as u64 };
            let length = 2 + word.roll() % 8;
            text.extend((0..length).map(|_| char::from(b'a' + (word.roll() % 26) as u8)));
            text.push(' ');
        }
        text
    }
}

fn message(role: &str, text: &str) -> Json {
    json!({"role": role, "parts": [{"type": "text", "content": text}]})
}

fn record(store: &std::path::Path, turns: usize) -> Result<(), Box<dyn std::error::Error>> {
    let (layer, guard) = runspan::builder().store(store).content(Content::Redacted).build()?;
    let mut words = Words { state: 7 };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let run = Run::agent("assistant").session("talk").start();
        let mut said = vec![message("system", &words.text(600))];
        for _ in 0..turns {
            said.push(message("user", &words.text(400)));
            let answer = message("assistant", &words.text(800));
            let call = run.llm("openai", "gpt-4o-mini");
            call.input(Json::from(said.clone()));
            call.output(json!([answer]));
            call.finish();
            said.push(answer);
            let tool = run.tool("look_up");
            tool.input(json!({"query": words.text(60)}));
            tool.output(json!({"found": words.text(200)}));
            tool.finish();
        }
        run.finish();
    });
    guard.shutdown(Duration::from_secs(60));
    Ok(())
}

/// Returns the bytes of the run's spans as they would be sent, plain and packed.
fn otlp(reader: &FilesReader, run: RunId) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    let events = reader.get_events(run, 0)?;
    let ended = events.iter().filter(|event| !event.body.is_step_start());
    let spans: Vec<Span> = ended.filter_map(|event| event.body.span()).map(|(span, _, _)| span.clone()).collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    let raw =
        TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&raw)?;
    Ok((raw.len() as u64, packed.finish()?.len() as u64))
}
