//! The agents under test: processes of this binary that record numbered steps and say what has returned.
//!
//! What step `n` of a seed holds is decided by both alone, so whoever finds it, in the store or at an upstream, knows
//! whether it is as it was recorded. After the end of a step has returned the agent writes `ended n` to its standard
//! output, after the end of a run `over r`, and at last its report.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use runspan::model::otlp::Span;
use runspan::{Guard, Report};
use serde::{Deserialize, Serialize};
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt;

use crate::Failed;
use crate::random::Random;

/// What an agent is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub store: PathBuf,
    pub seed: u64,
    /// The number of its first step; no two agents of one trial share a number.
    pub first: u64,
    /// How many steps; without it, until told to stop by the end of standard input.
    pub steps: Option<u64>,
    /// Steps in a second; without it, as fast as it goes.
    pub rate: Option<u64>,
    /// Steps of one run.
    pub run_steps: u64,
    pub forward: Option<String>,
    /// Bytes of shared memory; the default where not said.
    pub buffer_bytes: Option<u64>,
    pub journal_bytes: Option<u64>,
    /// Waits after so many steps until all of them are in the store.
    pub flush_every: Option<u64>,
    /// Says `ended n` after each step: off where only the report counts.
    pub tells: bool,
    /// How long the shutdown may take.
    pub shutdown_ms: u64,
    /// Waits for the end of standard input before it shuts down.
    pub lingers: bool,
    pub disk: Option<Disk>,
}

/// How the disk gets full under an agent, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// A file that takes all the room there is; without it the kernel is asked to refuse every write to a file.
    pub ballast: Option<PathBuf>,
    /// After so many steps it is full.
    pub full_after: u64,
    /// After so many there is room again.
    pub room_after: u64,
}

impl Plan {
    /// An agent that goes on until it is killed.
    pub fn endless(store: PathBuf, seed: u64) -> Self {
        Self {
            store,
            seed,
            first: 0,
            steps: None,
            rate: None,
            run_steps: 1 + Random::of(seed).below(60),
            forward: None,
            buffer_bytes: None,
            journal_bytes: None,
            flush_every: None,
            tells: true,
            shutdown_ms: 60_000,
            lingers: false,
            disk: None,
        }
    }
}

/// What an agent reports at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub stored: u64,
    pub exported: u64,
    pub pending: u64,
    pub dropped: BTreeMap<String, u64>,
    /// Spans made, those of runs among them.
    pub made: u64,
    /// The longest that a step took, in microseconds.
    pub slowest_us: u64,
}

impl Told {
    /// Sums up what was dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Returns what was dropped for one reason.
    pub fn dropped_for(&self, reason: &str) -> u64 {
        self.dropped.get(reason).copied().unwrap_or(0)
    }
}

/// Records as planned; for the child process.
pub fn run(plan: &Plan) -> Result<(), Failed> {
    let mut builder = runspan::builder().store(&plan.store).service_name("faults");
    if let Some(url) = &plan.forward {
        builder = builder.forward(url);
    }
    if let Some(bytes) = plan.buffer_bytes {
        builder = builder.buffer_bytes(bytes);
    }
    if let Some(bytes) = plan.journal_bytes {
        builder = builder.journal_bytes(bytes);
    }
    let (layer, guard) = builder.build()?;
    let stopped = listen_for_the_end(plan);
    let mut done = Done::default();
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || steps(plan, &guard, &stopped, &mut done))?;
    while plan.lingers && !stopped.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let report = guard.shutdown(Duration::from_millis(plan.shutdown_ms));
    println!("report {}", serde_json::to_string(&done.told(report))?);
    Ok(())
}

/// Notes when standard input ends, for who has to know.
fn listen_for_the_end(plan: &Plan) -> std::sync::Arc<AtomicBool> {
    let stopped = std::sync::Arc::new(AtomicBool::new(false));
    if plan.lingers || plan.steps.is_none() {
        let heard = std::sync::Arc::clone(&stopped);
        std::thread::spawn(move || {
            let mut rest = Vec::new();
            // However it ends, it has ended.
            let _ = std::io::stdin().read_to_end(&mut rest);
            heard.store(true, Ordering::Relaxed);
        });
    }
    stopped
}

#[derive(Debug, Default)]
struct Done {
    made: u64,
    slowest: Duration,
}

impl Done {
    fn told(&self, report: Report) -> Told {
        Told {
            stored: report.stored,
            exported: report.exported,
            pending: report.pending,
            dropped: report.dropped.into_iter().map(|(reason, n)| (reason.to_owned(), n)).collect(),
            made: self.made,
            slowest_us: self.slowest.as_micros() as u64,
        }
    }
}

fn steps(plan: &Plan, guard: &Guard, stopped: &AtomicBool, done: &mut Done) -> Result<(), Failed> {
    let begun = Instant::now();
    let all = plan.steps.unwrap_or(u64::MAX);
    let mut n = 0;
    while n < all && !stopped.load(Ordering::Relaxed) {
        let run = plan.first + n / plan.run_steps;
        let agent = info_span!(
            "invoke_agent",
            gen_ai.operation.name = "invoke_agent",
            gen_ai.agent.name = agent_name(run).as_str()
        );
        let in_agent = agent.enter();
        let end = (n / plan.run_steps + 1) * plan.run_steps;
        while n < end.min(all) && !stopped.load(Ordering::Relaxed) {
            if let Some(disk) = &plan.disk {
                disk.at(n)?;
            }
            if let Some(rate) = plan.rate {
                let due = Duration::from_micros(n * 1_000_000 / rate.max(1));
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            let content = Content::of(plan.seed, plan.first + n);
            let before = Instant::now();
            content.record();
            done.slowest = done.slowest.max(before.elapsed());
            done.made += 1;
            if plan.tells {
                println!("ended {}", plan.first + n);
            }
            n += 1;
            if plan.flush_every.is_some_and(|every| n.is_multiple_of(every)) {
                guard.flush(Duration::from_secs(120));
            }
        }
        drop(in_agent);
        drop(agent);
        done.made += 1;
        if plan.tells {
            println!("over {run}");
        }
    }
    Ok(())
}

impl Disk {
    /// Does what is to be done before step `n`.
    fn at(&self, n: u64) -> Result<(), Failed> {
        if n == self.full_after {
            // The worker is to be at rest, so that the full disk meets it between two steps.
            std::thread::sleep(Duration::from_millis(200));
            match &self.ballast {
                Some(path) => fill(path)?,
                None => limit_files(0)?,
            }
        }
        if n == self.room_after {
            // And it is to have met it, however short the flood was.
            std::thread::sleep(Duration::from_millis(200));
            match &self.ballast {
                Some(path) => std::fs::remove_file(path)?,
                None => limit_files(libc::RLIM_INFINITY)?,
            }
        }
        Ok(())
    }
}

/// Writes until nothing more fits.
fn fill(path: &std::path::Path) -> Result<(), Failed> {
    let mut file = std::fs::File::create(path)?;
    let mut chunk = vec![0; 64 << 10];
    while !chunk.is_empty() {
        if file.write_all(&chunk).is_err() {
            chunk.truncate(chunk.len() / 2);
        }
    }
    Ok(())
}

/// Lets the kernel refuse what would make a file longer than `bytes`.
fn limit_files(bytes: libc::rlim_t) -> Result<(), Failed> {
    // What the system would end the process by is the recorder's to bear.
    // SAFETY: plain system calls.
    let done = unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit);
        limit.rlim_cur = bytes.min(limit.rlim_max);
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit)
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// Returns the name of the agent of run `r`.
pub fn agent_name(run: u64) -> String {
    format!("agent-{run}")
}

/// What one step says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub n: u64,
    pub text: String,
    /// Input and output tokens of a model call; a tool call has none.
    pub tokens: Option<(u64, u64)>,
}

const WORDS: [&str; 16] = [
    "rain", "over", "the", "lake", "and", "snow", "on", "every", "hill", "wind", "from", "west", "clear", "by",
    "night", "fog",
];

impl Content {
    /// Returns what step `n` of a seed says.
    pub fn of(seed: u64, n: u64) -> Self {
        let mut random = Random::of(seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let words = if random.below(25) == 0 { random.below(1500) } else { random.below(40) };
        let mut text = format!("step {n} ");
        for _ in 0..words {
            text.push_str(random.pick(&WORDS).unwrap_or_default());
            text.push(' ');
        }
        text.push_str("end");
        let tokens = (random.below(3) > 0).then(|| (random.below(5000), random.below(500)));
        Self { n, text, tokens }
    }

    /// Reads the number of the step that a text belongs to.
    pub fn number(text: &str) -> Option<u64> {
        let (_, rest) = text.split_once("step ")?;
        rest.split(' ').next()?.parse().ok()
    }

    /// Says where this is not what was recorded; `None` where it is.
    pub fn difference(&self, recorded: &Self) -> Option<String> {
        if self.n != recorded.n || self.tokens != recorded.tokens {
            return Some(format!("step {} has tokens {:?}, not {:?}", self.n, self.tokens, recorded.tokens));
        }
        let same = self.text.bytes().zip(recorded.text.bytes()).take_while(|(a, b)| a == b).count();
        let lengths = (self.text.len(), recorded.text.len());
        let text = || format!("step {} differs at byte {same}; {} bytes, not {}", self.n, lengths.0, lengths.1);
        (self != recorded).then(text)
    }

    /// Says it on a span that is sent, as [`record`](Self::record) does on one that is recorded.
    pub fn describe(&self, span: &mut Span) {
        match self.tokens {
            Some((input, output)) => {
                span.name = "chat".to_owned();
                span.set_attr("gen_ai.operation.name", "chat");
                span.set_attr("gen_ai.provider.name", "openai");
                span.set_attr("gen_ai.request.model", "gpt-4o-mini");
                span.set_attr("gen_ai.usage.input_tokens", input as i64);
                span.set_attr("gen_ai.usage.output_tokens", output as i64);
                span.set_attr("gen_ai.input.messages", self.text.as_str());
            }
            None => {
                span.name = "execute_tool".to_owned();
                span.set_attr("gen_ai.operation.name", "execute_tool");
                span.set_attr("gen_ai.tool.name", "weather");
                span.set_attr("gen_ai.tool.call.arguments", self.text.as_str());
            }
        }
    }

    fn record(&self) {
        match self.tokens {
            Some((input, output)) => info_span!(
                "chat",
                gen_ai.operation.name = "chat",
                gen_ai.provider.name = "openai",
                gen_ai.request.model = "gpt-4o-mini",
                gen_ai.usage.input_tokens = input as i64,
                gen_ai.usage.output_tokens = output as i64,
                gen_ai.input.messages = self.text.as_str(),
            )
            .in_scope(|| {}),
            None => info_span!(
                "execute_tool",
                gen_ai.operation.name = "execute_tool",
                gen_ai.tool.name = "weather",
                gen_ai.tool.call.arguments = self.text.as_str(),
            )
            .in_scope(|| {}),
        }
    }
}
