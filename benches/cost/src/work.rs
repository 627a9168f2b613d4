//! The agent that is recorded: the same spans through `tracing` and through the OpenTelemetry API.

use std::fmt;
use std::hint::black_box;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::trace::{Span, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};

use crate::clock;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Runs of each thread.
    pub runs: u64,
    /// Spans of a run, its root included.
    pub steps: u64,
    /// Text in each step's input.
    pub text_kb: usize,
    /// Wait between two steps.
    pub pause_us: u64,
    /// Threads that record at once.
    pub threads: u64,
}

impl Load {
    /// Spans in all.
    pub fn spans(&self) -> u64 {
        self.runs * self.steps * self.threads
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, steps, text_kb, pause_us, threads } = self;
        write!(f, "threads={threads} runs={runs} steps={steps} text={text_kb}KB pause={pause_us}us")
    }
}

impl FromStr for Load {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers: Vec<u64> = text
            .split(|c: char| !c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .map(|part| part.parse().unwrap_or(0))
            .collect();
        let [threads, runs, steps, text_kb, pause_us] = numbers[..] else { return Err("not a load") };
        Ok(Self { runs, steps, text_kb: text_kb as usize, pause_us, threads })
    }
}

/// Runs `work` on each thread and returns the CPU time of those threads.
pub fn on_threads(load: Load, work: impl Fn(&Load, &str) -> u64 + Sync) -> u64 {
    let text = sentence(load.text_kb << 10);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..load.threads).map(|_| scope.spawn(|| work(&load, &text))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    })
}

/// Plain words as a message of a conversation, of about `bytes`.
fn sentence(bytes: usize) -> String {
    const WORDS: &str = "The weather in Paris was mild for the season, and the trains ran on time until noon. ";
    if bytes == 0 {
        return String::new();
    }
    let words = WORDS.repeat(bytes / WORDS.len() + 1);
    format!(r#"[{{"role":"user","parts":[{{"type":"text","content":"{}"}}]}}]"#, &words[..bytes.saturating_sub(60)])
}

/// Waits as an agent waits for its model: something else runs meanwhile and takes the caches.
fn wait(load: &Load) {
    if load.pause_us > 0 {
        std::thread::sleep(Duration::from_micros(load.pause_us));
        let mut other = vec![0u8; 1 << 20];
        other.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
        black_box(&other);
    }
}

/// Times `step` on this thread: alone where there are pauses between steps, else by the caller, all at once.
fn timed(load: &Load, spent: &mut u64, step: impl FnOnce()) {
    if load.pause_us == 0 {
        return step();
    }
    let start = clock::thread();
    step();
    *spent += clock::thread() - start;
}

/// What one reading of the clock adds to a timed step.
fn clock_cost() -> u64 {
    let start = clock::thread();
    for _ in 0..1_000 {
        black_box(clock::thread());
    }
    (clock::thread() - start) / 1_000
}

fn total(load: &Load, all: impl FnOnce(&mut u64)) -> u64 {
    let mut spent = 0;
    let start = clock::thread();
    all(&mut spent);
    let whole = clock::thread() - start;
    if load.pause_us == 0 { whole } else { spent.saturating_sub(clock_cost() * load.runs * (load.steps - 1)) }
}

/// Records through `tracing`; returns the thread's CPU time.
pub fn tracing(load: &Load, text: &str) -> u64 {
    total(load, |spent| {
        for run in 0..load.runs {
            let root = tracing::info_span!(
                "invoke_agent",
                gen_ai.operation.name = "invoke_agent",
                gen_ai.agent.name = "planner",
                gen_ai.conversation.id = "chat-42",
            );
            let _inside = root.enter();
            for step in 1..load.steps {
                timed(load, spent, || traced_step(run, step, text));
                wait(load);
            }
        }
    })
}

/// Records the same steps in runs that have a budget.
pub fn bounded(load: &Load, text: &str) -> u64 {
    let budget = runspan::Budget { cost_usd: Some(1e6), ..Default::default() };
    total(load, |spent| {
        for run in 0..load.runs {
            let root = runspan::Run::agent("planner").session("chat-42").budget(budget).start();
            root.in_scope(|| {
                for step in 1..load.steps {
                    timed(load, spent, || traced_step(run, step, text));
                    wait(load);
                }
            });
            root.finish();
        }
    })
}

fn traced_step(run: u64, step: u64, text: &str) {
    let id = step as i64;
    if step % 3 == 0 {
        let span = tracing::info_span!(
            "execute_tool",
            gen_ai.operation.name = "execute_tool",
            gen_ai.tool.name = "get_weather",
            gen_ai.tool.type = "function",
            gen_ai.tool.call.id = "call_8f3kd02jf83hd",
            gen_ai.tool.description = "Looks up the weather of a city",
            gen_ai.tool.call.arguments = text,
            city = "Paris",
            country = "FR",
            attempt = 1i64,
            cached = false,
            run = run as i64,
            step = id,
        );
        let _inside = span.enter();
        tracing::info!(bytes = 512i64, "asked the station");
        tracing::info!(status = 200i64, "the station answered");
    } else {
        let span = tracing::info_span!(
            "chat",
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = "openai",
            gen_ai.request.model = "gpt-4o-mini",
            gen_ai.response.model = "gpt-4o-mini-2024-07-18",
            gen_ai.request.temperature = 0.2f64,
            gen_ai.request.max_tokens = 1024i64,
            gen_ai.usage.input_tokens = 170i64 + id,
            gen_ai.usage.output_tokens = 18i64,
            gen_ai.input.messages = text,
            server.address = "api.openai.com",
            server.port = 443i64,
            step = id,
        );
        let _inside = span.enter();
        tracing::info!(bytes = 512i64, "sent the request");
        tracing::info!(chunks = 12i64, "read the answer");
    }
}

/// Records through the OpenTelemetry API; returns the thread's CPU time.
pub fn opentelemetry(load: &Load, text: &str, tracer: &impl Tracer<Span: Span + Send + Sync + 'static>) -> u64 {
    total(load, |spent| {
        for run in 0..load.runs {
            let root = tracer
                .span_builder("invoke_agent")
                .with_attributes([
                    KeyValue::new("gen_ai.operation.name", "invoke_agent"),
                    KeyValue::new("gen_ai.agent.name", "planner"),
                    KeyValue::new("gen_ai.conversation.id", "chat-42"),
                ])
                .start_with_context(tracer, &Context::new());
            let context = Context::new().with_span(root);
            for step in 1..load.steps {
                timed(load, spent, || told_step(tracer, &context, run, step, text));
                wait(load);
            }
        }
    })
}

fn told_step(tracer: &impl Tracer, context: &Context, run: u64, step: u64, text: &str) {
    let id = step as i64;
    let (builder, first, second) = if step % 3 == 0 {
        let builder = tracer.span_builder("execute_tool").with_attributes([
            KeyValue::new("gen_ai.operation.name", "execute_tool"),
            KeyValue::new("gen_ai.tool.name", "get_weather"),
            KeyValue::new("gen_ai.tool.type", "function"),
            KeyValue::new("gen_ai.tool.call.id", "call_8f3kd02jf83hd"),
            KeyValue::new("gen_ai.tool.description", "Looks up the weather of a city"),
            KeyValue::new("gen_ai.tool.call.arguments", text.to_owned()),
            KeyValue::new("city", "Paris"),
            KeyValue::new("country", "FR"),
            KeyValue::new("attempt", 1i64),
            KeyValue::new("cached", false),
            KeyValue::new("run", run as i64),
            KeyValue::new("step", id),
        ]);
        (builder, ("asked the station", "bytes", 512i64), ("the station answered", "status", 200i64))
    } else {
        let builder = tracer.span_builder("chat").with_kind(SpanKind::Client).with_attributes([
            KeyValue::new("gen_ai.operation.name", "chat"),
            KeyValue::new("gen_ai.provider.name", "openai"),
            KeyValue::new("gen_ai.request.model", "gpt-4o-mini"),
            KeyValue::new("gen_ai.response.model", "gpt-4o-mini-2024-07-18"),
            KeyValue::new("gen_ai.request.temperature", 0.2f64),
            KeyValue::new("gen_ai.request.max_tokens", 1024i64),
            KeyValue::new("gen_ai.usage.input_tokens", 170i64 + id),
            KeyValue::new("gen_ai.usage.output_tokens", 18i64),
            KeyValue::new("gen_ai.input.messages", text.to_owned()),
            KeyValue::new("server.address", "api.openai.com"),
            KeyValue::new("server.port", 443i64),
            KeyValue::new("step", id),
        ]);
        (builder, ("sent the request", "bytes", 512i64), ("read the answer", "chunks", 12i64))
    };
    let mut span = builder.start_with_context(tracer, context);
    for (name, key, value) in [first, second] {
        span.add_event(name, vec![KeyValue::new(key, value)]);
    }
    span.end();
}
