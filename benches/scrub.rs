//! Scrubbing of text without secrets, which is nearly all text.
//!
//! ```sh
//! cargo bench --bench scrub
//! ```
//!
//! Method: messages, tool definitions, tool results and ids as agents send them are made into JSON texts of 1 MiB and
//! into spans. Each is scrubbed until a second is over, warm; the best of the rounds is printed in MB/s, beside two
//! floors over the same bytes in the same run: checking that they are UTF-8, which every reader of text does, and counting
//! one byte, which is as fast as memory is read. The promise is 300 MB/s or more on clean text.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runspan::Content;
use runspan::model::otlp::{Scope, Span};
use runspan::model::record::{Record, RecordKind};
use runspan::pipeline::Scrubber;

const BYTES: usize = 1 << 20;
const ROUND: Duration = Duration::from_secs(1);
const PROMISE: f64 = 300.0;

fn main() {
    let scrubber = Scrubber::new(Content::Redacted, [7; 32]);
    let clean = text(|_| String::new());
    assert_eq!(scrubber.clean(&clean), None);
    let floor = rate(BYTES, || std::str::from_utf8(black_box(clean.as_bytes())).is_ok());
    show("UTF-8 checked", floor, floor);
    show(
        "one byte counted",
        rate(BYTES, || black_box(clean.as_bytes()).iter().filter(|byte| **byte == b'\n').count()),
        floor,
    );
    let scrubbed = rate(BYTES, || scrubber.clean(black_box(&clean)));
    show("clean text scrubbed", scrubbed, floor);

    let mut spans: Vec<Record> = (0..64).map(record).collect();
    let bytes = spans.iter().flat_map(|record| &record.span.attributes).map(size).sum();
    let in_spans = rate(bytes, || spans.iter_mut().map(|record| scrubber.scrub(record).removed).sum::<u32>());
    show("clean spans scrubbed", in_spans, floor);

    // Names of settings make the rules behind them look at the whole text, and JSON at each of its strings.
    let talkative = text(|n| format!(r#","note":"the password: see vault {n}","next_page_token":"p{n}""#));
    assert_eq!(scrubber.clean(&talkative), None);
    show("text that talks of secrets", rate(BYTES, || scrubber.clean(black_box(&talkative))), floor);
    println!("promise of {PROMISE} MB/s: {}", if scrubbed >= PROMISE { "kept" } else { "BROKEN" });
}

/// What one step of an agent has in it, another one for each number.
fn messages(n: u64, extra: &str) -> String {
    let id = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        r#"{{"role":"user","parts":[{{"type":"text","content":"Please look up why build {n} failed, and fix the \"flaky\" test.\n\nThe log says:\n  File \"/home/ci/src/app/worker.py\", line {n}, in run\n    self.queue.put(task, timeout={n})\nqueue.Full – the task was not taken."}}]}},{{"role":"assistant","parts":[{{"type":"text","content":"I’ll search the repository first; the patch should be small."}},{{"type":"tool_call","id":"call_{id:016x}{id:08x}","name":"search_code","arguments":{{"query":"queue.put timeout","path":"src/app","max_results":{n},"case_sensitive":false}}}}],"finish_reason":"tool_call"}},{{"role":"tool","parts":[{{"type":"tool_call_response","id":"call_{id:016x}{id:08x}","result":{{"matches":[{{"file":"src/app/worker.py","line":{n},"text":"    self.queue.put(task, timeout=self.timeout)"}},{{"file":"tests/test_worker.py","line":42,"text":"    assert worker.run(task_id='{id:032x}')"}}],"took_ms":{n}.25,"commit":"{id:040x}","url":"https://git.example.com/team/app/blob/main/src/app/worker.py?plain=1#L{n}"}}}}]}},{{"model":"gpt-4o-2024-08-06","usage":{{"input_tokens":{n},"output_tokens":37,"total_tokens":{n}}},"response_id":"chatcmpl-{id:029x}","temperature":0.2{extra}}}"#
    )
}

fn text(extra: impl Fn(u64) -> String) -> String {
    let mut text = String::from("[");
    for n in 1.. {
        let more = messages(n, &extra(n));
        if text.len() + more.len() + 1 > BYTES {
            break;
        }
        let _ = write!(text, "{more},");
    }
    text.pop();
    text.push(']');
    // Blanks behind JSON mean nothing.
    text.extend(std::iter::repeat_n(' ', BYTES - text.len()));
    text
}

fn record(n: u64) -> Record {
    let mut span = Span { name: "chat gpt-4o".into(), trace_id: vec![1; 16], span_id: vec![2; 8], ..Span::default() };
    let id = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    span.set_attr("gen_ai.operation.name", "chat");
    span.set_attr("gen_ai.provider.name", "openai");
    span.set_attr("gen_ai.request.model", "gpt-4o");
    span.set_attr("gen_ai.response.model", "gpt-4o-2024-08-06");
    span.set_attr("gen_ai.response.id", format!("chatcmpl-{id:029x}"));
    span.set_attr("gen_ai.conversation.id", format!("{id:032x}"));
    span.set_attr("gen_ai.agent.name", "build-doctor");
    span.set_attr("server.address", "api.openai.com");
    span.set_attr("user.id", format!("user-{n}@example.com"));
    span.set_attr("gen_ai.usage.input_tokens", n as i64);
    span.set_attr("gen_ai.usage.output_tokens", 37i64);
    span.set_attr("gen_ai.input.messages", format!("[{}]", messages(n, "")));
    span.set_attr("gen_ai.output.messages", format!("[{}]", messages(n + 1, "")));
    Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Scope::default(), span }
}

fn size(attribute: &runspan::model::otlp::KeyValue) -> usize {
    let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
    attribute.key.len() + value.and_then(|value| value.as_str()).map_or(8, str::len)
}

/// Returns the best rate of the rounds of a second, in MB/s.
fn rate<T>(bytes: usize, mut work: impl FnMut() -> T) -> f64 {
    black_box(work());
    let (begun, mut best) = (Instant::now(), Duration::MAX);
    while begun.elapsed() < ROUND {
        let start = Instant::now();
        black_box(work());
        best = best.min(start.elapsed());
    }
    bytes as f64 / best.as_secs_f64() / 1e6
}

fn show(what: &str, rate: f64, floor: f64) {
    println!("{what:<28} {rate:>8.0} MB/s   {:.2}", rate / floor);
}
