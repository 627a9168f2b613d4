//! The recordings in `tests/data/corpus`, taken as `runspan serve` takes them and read back as a user does, against
//! what is true of them.
//!
//! What was billed, executed and raised is in the manifest beside a recording. A number that the payload does not have
//! is unknown, never 0. Where the payload has less than the truth, [`KNOWN`] says what and why; an entry that is not
//! needed any more fails the test.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::Value as Json;

use super::body::Held;
use super::budget::Budget;
use super::identity::Identity;
use super::settings::{Bounds, Settings};
use super::traces::Line;
use super::{intake, maker};
use crate::journal::Durability;
use crate::model::otlp::{ResourceSpans, ScopeSpans, TracesData};
use crate::model::{
    CostSource, Event, NanoUsd, RunKind, RunStatus, RunSummary, StepKind, StepStatus, StepView, Tokens,
};
use crate::recovery;
use crate::sources::otlp::{self, Encoding, Signal};
use crate::store::files::layout::Layout;
use crate::store::files::verify::{Wanted, verify};
use crate::store::{Listed, Query, RunReader};

/// What we say otherwise than the manifest, and why that is right: recording, what differs, reason.
const KNOWN: &[(&str, &str, &str)] = &[
    ("claude-agent-sdk/agent", "models", ONLY_IN_LOGS),
    ("claude-agent-sdk/tool_error", "models", ONLY_IN_LOGS),
    ("langfuse-py/multi", "calls", BY_HAND),
    ("langfuse-py/multi", "models", BY_HAND),
    ("langfuse-py/multi", "input", BY_HAND),
    ("langfuse-py/multi", "output", BY_HAND),
    ("langfuse-py/multi", "cache_read", BY_HAND),
    ("litellm/agent", "tools", NO_SPAN_OF_TOOLS),
    ("litellm/stream", "tools", NO_SPAN_OF_TOOLS),
    ("litellm/anthropic", "tools", NO_SPAN_OF_TOOLS),
    ("litellm/tool_error", "tools", NO_SPAN_OF_TOOLS),
    ("litellm/tool_error", "failed tools", NO_SPAN_OF_TOOLS),
    ("litellm/tool_error", "status", "the calls went well, and nothing tells of the tool that failed after them"),
    ("openinference-langchain/rag", "embeddings", NO_SPAN_OF_EMBEDDINGS),
    ("openinference-langchain/rag", "models", NO_SPAN_OF_EMBEDDINGS),
    ("openinference-openai/noroot", "agents", NO_NAME),
    ("openinference-openai/responses", "agents", NO_NAME),
    ("openinference-openai/api_error", "agents", NO_NAME),
    ("openlit/agent", "tools", NO_SPAN_OF_TOOLS),
    ("openlit/noroot", "tools", NO_SPAN_OF_TOOLS),
    ("openlit/stream", "tools", NO_SPAN_OF_TOOLS),
    ("openlit/rag", "reasoning", "the payload has the number 25 by chance, and none for reasoning"),
    ("openlit/tool_error", "tools", NO_SPAN_OF_TOOLS),
    ("openlit/tool_error", "failed tools", NO_SPAN_OF_TOOLS),
    ("otel-openai-v2/noroot", "tools", NO_SPAN_OF_TOOLS),
    ("otel-openai-v2/retry", "failed calls", "the client's own second try is within one span"),
    ("pydantic-ai/testmodel", "calls", TEST_MODEL),
    ("pydantic-ai/testmodel", "models", TEST_MODEL),
    ("pydantic-ai/testmodel", "providers", TEST_MODEL),
    ("pydantic-ai/testmodel", "input", TEST_MODEL),
    ("pydantic-ai/testmodel", "output", TEST_MODEL),
    ("traceloop-js/multi", "embeddings", NO_SPAN_OF_EMBEDDINGS),
    ("traceloop-js/multi", "models", NO_SPAN_OF_EMBEDDINGS),
    ("traceloop-js/stream", "input", "the emitter estimates what it was not told, under the names of what it was"),
    ("traceloop-js/stream", "output", "the emitter estimates what it was not told, under the names of what it was"),
    ("traceloop-js/tool_error", "tools", NOT_EXPORTED),
    ("traceloop-js/tool_error", "failed tools", NOT_EXPORTED),
    ("traceloop-js/tool_error", "status", NOT_EXPORTED),
];

const BY_HAND: &str = "the program tells of a call that it never made, and we believe it";
const ONLY_IN_LOGS: &str = "only logs say it, and these bear the id of the span around the call";
const NO_NAME: &str = "nothing in the payload names the agent";
const NO_SPAN_OF_TOOLS: &str = "nothing in the payload tells of a tool that ran";
const NO_SPAN_OF_EMBEDDINGS: &str = "nothing in the payload tells of the embeddings";
const TEST_MODEL: &str = "the framework's model for tests answers without a provider, and is told like any other";
const NOT_EXPORTED: &str = "the emitter loses the spans that an error ends";

/// A recorded program.
struct Recording {
    name: String,
    /// What the manifest says of it.
    about: Json,
    /// Bodies of requests, in the order in which they were sent, and what their names say of them.
    bodies: Vec<(String, Vec<u8>)>,
}

/// A run as it is read back.
struct Stored {
    summary: RunSummary,
    steps: Vec<StepView>,
    events: Vec<Event>,
}

fn recordings() -> Vec<Recording> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus");
    let mut stacks: Vec<PathBuf> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    stacks.sort();
    stacks.iter().flat_map(|stack| recordings_of(stack)).collect()
}

fn recordings_of(stack: &Path) -> Vec<Recording> {
    let manifest = std::fs::read_to_string(stack.join("manifest.json")).unwrap();
    let manifest: Json = serde_json::from_str(&manifest).unwrap();
    let of_stack = stack.file_name().unwrap().to_str().unwrap();
    let scenarios = manifest["scenarios"].as_object().unwrap().iter();
    let recording = |(scenario, about): (&String, &Json)| {
        let bodies = list(&about["bodies"]).map(|body| text(body).to_owned());
        let bodies = bodies.map(|body| (body.clone(), std::fs::read(stack.join(scenario).join(body)).unwrap()));
        Recording { name: format!("{of_stack}/{scenario}"), about: about.clone(), bodies: bodies.collect() }
    };
    scenarios.map(recording).collect()
}

fn list(value: &Json) -> impl Iterator<Item = &Json> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap()
}

/// Sends requests to a bridge over a store of its own, and reads the store when the bridge has ended.
fn served(bodies: &[(String, Vec<u8>)]) -> Vec<Stored> {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().join("store"));
    layout.open_or_create().unwrap();
    let settings = Settings { durability: Durability::Process, ..Settings::default() };
    #[cfg(feature = "index")]
    layout.fresh().want(true);
    let identity = Identity::take(layout.clone(), settings.durability, settings.journal_bytes).unwrap();
    let (intake, threads) = intake::start(identity, settings.silence).unwrap();
    let store_id = layout.read().unwrap().store_id;
    let line = Arc::new(Line::new(intake, Bounds::default(), store_id, maker(&layout, &settings).unwrap()));
    let budget = Budget::new(settings.bounds.memory_bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (name, body) in bodies {
        let encoding = if name.contains(".json") { Encoding::Json } else { Encoding::Protobuf };
        let compression = if name.ends_with(".gz") { "gzip" } else { "" };
        let signal = match name {
            name if name.contains("-traces.") => Signal::Traces,
            name if name.contains("-logs.") => Signal::Logs,
            _ => continue,
        };
        let held = Held { bytes: body.clone(), share: budget.share() };
        let taken = runtime.block_on(line.take(held, signal, compression, encoding)).unwrap();
        assert!(taken.rejected == 0 || signal == Signal::Logs, "{name}: {}", taken.message);
    }
    drop((line, runtime));
    threads.finish(Instant::now() + Duration::from_secs(60));
    let (reader, adopted) = recovery::open(layout.root()).unwrap();
    assert_eq!(adopted.unwrap().missing, []);
    assert_eq!(verify(&layout, &Wanted::default(), |_, _| {}).unwrap().problems, []);
    let mut runs: Vec<Stored> = reader
        .list_runs(&Query::default())
        .unwrap()
        .into_iter()
        .map(|listed| match listed {
            Listed::Run(run) => Stored {
                steps: reader.get_steps(run.summary.run_id).unwrap(),
                events: reader.get_events(run.summary.run_id, 0).unwrap(),
                summary: run.summary,
            },
            Listed::Damaged(run) => panic!("damaged: {run:?}"),
        })
        .collect();
    runs.sort_by_key(|run| (run.summary.started_at, run.summary.trace_id.to_string()));
    for run in &runs {
        assert_outline_is_of_the_same_steps(&reader, run);
    }
    #[cfg(feature = "index")]
    for run in &runs {
        // What the index has of a run that was written just now is what it would have read.
        if let Some(written) = layout.fresh().take(&run.summary) {
            assert_eq!(*written, run.events);
            WRITTEN_JUST_NOW.with(|count| count.set(count.get() + 1));
        }
    }
    #[cfg(feature = "index")]
    assert_sums_of_steps_are_those_of_runs(&reader, &runs);
    runs
}

#[cfg(feature = "index")]
thread_local! {
    static WRITTEN_JUST_NOW: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Whatever a stack tells twice, or only in part: sums over calls are what the runs say.
#[cfg(feature = "index")]
fn assert_sums_of_steps_are_those_of_runs(reader: &crate::store::files::FilesReader, runs: &[Stored]) {
    use crate::store::files::database::{self, By, Group};
    let index = database::whole(reader, database::Depth::Steps, &mut |_| {}).unwrap();
    let sum = |number: fn(&RunSummary) -> u64| runs.iter().map(|run| number(&run.summary)).sum::<u64>();
    let tokens = runs.iter().filter_map(|run| run.summary.tokens).reduce(Tokens::plus);
    let cost = runs.iter().filter_map(|run| run.summary.cost_usd).reduce(|a, b| a + b);
    let numbers = [sum(|run| run.llm_calls), sum(|run| run.errors), sum(|run| run.unpriced_steps)];
    for by in [By::Model, By::Provider, By::Agent, By::Day] {
        let stats = index.stats(&Query::default(), Some(by)).unwrap();
        let of = |groups: &[Group]| {
            let sum = |number: fn(&Group) -> u64| groups.iter().map(number).sum::<u64>();
            let tokens = groups.iter().filter_map(|group| group.tokens).reduce(Tokens::plus);
            let cost = groups.iter().filter_map(|group| group.cost_usd).reduce(|a, b| a + b);
            (tokens, cost, sum(|group| group.llm_calls), sum(|group| group.unpriced_steps))
        };
        assert_eq!(of(&stats.groups), (tokens, cost, numbers[0], numbers[2]), "{by:?}");
        assert_eq!(of(std::slice::from_ref(&stats.total)), of(&stats.groups), "{by:?}");
        assert_eq!(stats.total.errors, numbers[1]);
        assert_eq!(stats.errors.iter().map(|error| error.count).sum::<u64>(), numbers[1]);
    }
    let tools = index.stats(&Query::default(), Some(By::Tool)).unwrap();
    assert_eq!(tools.groups.iter().map(|group| group.count).sum::<u64>(), sum(|run| run.tool_calls));
}

/// Compares and returns what differs, a line each.
fn differences(recording: &Recording, runs: &[Stored]) -> Vec<String> {
    let truth = &recording.about["truth"];
    let found = RefCell::new(Vec::new());
    let differs = |what: &str, got: String, expected: String| {
        if got != expected {
            found.borrow_mut().push(format!("{what}: {got}, not {expected}"));
        }
    };
    let steps: Vec<&StepView> = runs.iter().flat_map(|run| &run.steps).filter(|s| s.duplicate_of.is_none()).collect();
    let of = |kind: StepKind| steps.iter().filter(move |step| step.kind == kind);

    let (chats, embeddings) = (&truth["totals"]["chat"], &truth["totals"]["embeddings"]);
    let answered = |kind| of(kind).filter(|step| step.status == StepStatus::Success).count().to_string();
    differs("calls", answered(StepKind::Llm), chats["calls_answered"].to_string());
    differs("failed calls", failed_of(of(StepKind::Llm)).len().to_string(), chats["calls_failed"].to_string());
    differs("embeddings", answered(StepKind::Embedding), embeddings["calls_answered"].to_string());
    let calls = steps.iter().filter(|step| is_answered_call(step));
    differs("models", names(calls.map(|step| word(step.model.as_deref()))), true_models(recording));
    let providers: BTreeSet<_> = steps.iter().filter_map(|step| step.provider.as_deref()).map(vendor).collect();
    let expected = list(&truth["llm_calls"]).map(|call| text(&call["provider"])).collect::<BTreeSet<_>>();
    differs("providers", format!("{:?}", providers.difference(&expected).collect::<Vec<_>>()), "[]".to_owned());

    let tokens = runs.iter().filter_map(|run| run.summary.tokens).reduce(Tokens::plus).unwrap_or_default();
    let numbers = [
        ("input", "input_total", tokens.prompt),
        ("output", "output_total", tokens.completion),
        ("cache_read", "cache_read", tokens.cache_read),
        ("cache_write", "cache_write", tokens.cache_write),
        ("reasoning", "reasoning", tokens.reasoning),
    ];
    for (number, total, got) in numbers {
        let expected = billed(recording, number, total);
        // Some say 0 of what their provider does not bill.
        let got = got.filter(|n| *n > 0 || expected.is_some() || is_told_of(recording, number));
        differs(number, word(got), word(expected));
    }

    // List prices hold where every number is there and no emitter has prices of its own.
    let is_complete = |number: &str| {
        let told = recording.about["observed"]["billed_numbers_present"]["spans"][number].as_str();
        told.and_then(|told| told.split_once(" of ")).is_none_or(|(with, all)| with == all)
    };
    let computed = runs.iter().all(|run| matches!(run.summary.cost_source, Some(CostSource::Computed)));
    if computed
        && !found.borrow().iter().any(|line: &String| line.starts_with("input:"))
        && is_complete("input")
        && is_complete("cache_read")
        && is_complete("cache_write")
    {
        let list = truth["totals"]["cost_usd_at_list_prices"].as_f64().unwrap() * 1e9;
        let cost: NanoUsd = runs.iter().filter_map(|run| run.summary.cost_usd).fold(NanoUsd::default(), |a, b| a + b);
        let is_near = (cost.0 as f64 - list).abs() <= steps.len() as f64;
        differs("cost", if is_near { String::new() } else { format!("{} nano", cost.0) }, String::new());
    }

    let tools = |steps: Vec<&&StepView>| names(steps.into_iter().map(|step| step.step_id_base()));
    differs("tools", tools(of(StepKind::Tool).collect()), true_tools(truth));
    differs("failed tools", tools(failed_of(of(StepKind::Tool))), texts(&truth["errors"]["tools_failed"]));

    let session = truth.get("session").map(|session| session.as_str().filter(|session| recording.has(session)));
    // Told, or told that there is none: both are the truth.
    if let Some(session) = session.filter(|session| session.is_some() || truth["session"].is_null()) {
        let sessions: BTreeSet<_> = runs.iter().filter_map(|run| run.summary.session_id.as_deref()).collect();
        differs("session", format!("{sessions:?}"), format!("{:?}", session.into_iter().collect::<BTreeSet<_>>()));
    }
    if let Some(user) = truth["user"].as_str().filter(|user| recording.has(user)) {
        let users: BTreeSet<_> = runs.iter().filter_map(|run| run.summary.user_id.as_deref()).collect();
        differs("user", format!("{users:?}"), format!("{:?}", BTreeSet::from([user])));
    }
    let agents: BTreeSet<_> = steps.iter().filter_map(|step| step.agent_id.clone()).collect();
    let named = list(&truth["agents"]).map(text).filter(|agent| recording.has(agent));
    let expected = names(named.map(str::to_owned));
    if !expected.is_empty() {
        differs("agents", names(agents.into_iter()), expected);
    }
    let is_top = |run: &Stored, step: &StepView| !run.steps.iter().any(|s| Some(s.span_id) == step.parent_span_id);
    let tops = runs.iter().flat_map(|run| run.steps.iter().filter(|step| is_top(run, step)));
    differs("roots", names(tops.map(|step| step.name.clone())), texts(&recording.about["observed"]["roots"]));
    let statuses: BTreeSet<_> = runs.iter().map(|run| run.summary.status.to_string()).collect();
    let statuses: Vec<_> = statuses.into_iter().collect();
    let expected = status(truth).to_string();
    // Where each call is a trace of its own, one of the runs has failed.
    let ok = statuses.contains(&expected) && (runs.len() > 1 || statuses.len() == 1);
    differs("status", if ok { expected.clone() } else { statuses.join(" ") }, expected);
    found.into_inner()
}

fn failed_of<'a>(steps: impl Iterator<Item = &'a &'a StepView>) -> Vec<&'a &'a StepView> {
    steps.filter(|step| step.status != StepStatus::Success).collect()
}

/// By the contract's rule: an error that reached the caller is the run's.
fn status(truth: &Json) -> RunStatus {
    let raised: Vec<&Json> = list(&truth["errors"]["raised_to_the_caller"]).collect();
    match raised.first() {
        None => RunStatus::Success,
        Some(error) if text(&error["type"]).contains("Timeout") => RunStatus::Timeout,
        Some(_) => RunStatus::Error,
    }
}

/// Returns the billed number as far as it is in the payload; `None` where it is nowhere.
fn billed(recording: &Recording, number: &str, total: &str) -> Option<u64> {
    let truth = &recording.about["truth"];
    let present = &recording.about["observed"]["billed_numbers_present"];
    let of = |signal: &str| {
        let (with, all) = present[signal][number].as_str()?.split_once(" of ")?;
        Some((with.parse::<u64>().unwrap(), all.parse::<u64>().unwrap()))
    };
    let (with, all) = of("spans").into_iter().chain(of("logs")).max()?;
    let of_calls = |kind: &str| {
        let calls = list(&truth["llm_calls"]).filter(|call| call["operation"] == kind && call["billed"].is_object());
        let numbers: Vec<u64> = calls.filter_map(|call| call["billed"][total].as_u64()).collect();
        numbers
    };
    let (chat, embedded) = (of_calls("chat"), of_calls("embeddings"));
    match with {
        0 => None,
        with if with == all => {
            // Only input is told of embeddings.
            Some(chat.iter().sum::<u64>() + if number == "input" { embedded.iter().sum() } else { 0 })
        }
        // The embeddings are those that lack it.
        with => (with == chat.len() as u64).then(|| chat.iter().sum()),
    }
}

/// Tells whether the provider bills this number at all.
fn is_told_of(recording: &Recording, number: &str) -> bool {
    ["spans", "logs"]
        .iter()
        .any(|signal| recording.about["observed"]["billed_numbers_present"][*signal][number].is_string())
}

fn is_answered_call(step: &StepView) -> bool {
    matches!(step.kind, StepKind::Llm | StepKind::Embedding) && step.status == StepStatus::Success
}

/// The model that answered, where the payload says it, else the one asked for.
fn true_models(recording: &Recording) -> String {
    let answered = list(&recording.about["truth"]["llm_calls"]).filter(|call| call["response_model"].is_string());
    names(answered.map(|call| {
        let model = text(&call["response_model"]);
        (if recording.has(model) { model } else { text(&call["request_model"]) }).to_owned()
    }))
}

/// The tools that ran; of a whole program that is not known, and those that the model asked for stand for them.
fn true_tools(truth: &Json) -> String {
    if truth["note"].as_str().is_some_and(|note| note.starts_with("whole program")) {
        let asked = list(&truth["llm_calls"]).flat_map(|call| list(&call["tool_calls"]));
        return names(asked.map(|tool| text(&tool["name"]).to_owned()));
    }
    names(list(&truth["tools_executed"]).map(|tool| text(&tool["name"]).to_owned()))
}

fn vendor(provider: &str) -> &str {
    if provider.starts_with("gcp.") { "google" } else { provider }
}

impl Recording {
    /// Tells whether a text stands anywhere in what was sent.
    fn has(&self, text: &str) -> bool {
        self.bodies.iter().any(|(name, body)| {
            let mut plain = Vec::new();
            let body = if name.ends_with(".gz") {
                flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
                &plain
            } else {
                body
            };
            body.windows(text.len()).any(|window| window == text.as_bytes())
        })
    }
}

fn word(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn texts(value: &Json) -> String {
    names(list(value).map(|item| text(item).to_owned()))
}

/// Sorts and counts names: `get_weather x2`.
fn names(all: impl Iterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    all.for_each(|name| *counts.entry(name).or_default() += 1);
    let words = counts.into_iter().map(|(name, n)| if n == 1 { name } else { format!("{name} x{n}") });
    words.collect::<Vec<_>>().join(", ")
}

impl StepView {
    /// The name of a tool: the step's without its number.
    fn step_id_base(&self) -> String {
        let numbered = self.step_id.rsplit_once('-').filter(|(_, number)| number.parse::<u32>().is_ok());
        numbered.map_or(self.step_id.as_str(), |(base, _)| base).to_owned()
    }
}

#[test]
fn every_recording_is_stored_as_what_happened() {
    let mut unknown = String::new();
    let mut needed = BTreeSet::new();
    let mut agreeing = 0;
    let recordings = recordings();
    let mut outlines: BTreeMap<&str, String> = BTreeMap::new();
    for recording in &recordings {
        let runs = served(&recording.bodies);
        let (stack, scenario) = recording.name.split_once('/').unwrap();
        write!(outlines.entry(stack).or_default(), "{scenario}\n{}", outline(&runs)).unwrap();
        let found = differences(recording, &runs);
        agreeing += u32::from(found.is_empty());
        for line in found {
            let known = KNOWN
                .iter()
                .position(|(name, what, _)| recording.name.starts_with(name) && line.starts_with(&format!("{what}:")));
            match known {
                Some(place) => drop(needed.insert(place)),
                None => writeln!(unknown, "{}: {line}", recording.name).unwrap(),
            }
        }
    }
    assert_eq!(unknown, "", "{agreeing} of {} agree", recordings.len());
    let spare: Vec<_> = (0..KNOWN.len()).filter(|place| !needed.contains(place)).map(|place| KNOWN[place]).collect();
    assert!(spare.is_empty(), "not needed any more: {spare:?}");
    // There is no thread that packs where there is one processor.
    #[cfg(feature = "index")]
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        let told = WRITTEN_JUST_NOW.with(std::cell::Cell::get);
        assert!(told >= recordings.len() / 2, "{told} of {} recordings", recordings.len());
    }
    for (stack, outline) in outlines {
        insta::assert_snapshot!(stack, outline);
    }
}

fn assert_outline_is_of_the_same_steps(reader: &impl RunReader, run: &Stored) {
    let without = |steps: &[StepView]| -> Vec<StepView> {
        steps.iter().map(|step| StepView { input: None, output: None, ..step.clone() }).collect()
    };
    let outline = reader.get_outline(run.summary.run_id).unwrap();
    assert_eq!(without(&outline), without(&run.steps));
    assert_eq!(outline[0], run.steps[0]);
}

/// One line a run, one a step.
fn outline(runs: &[Stored]) -> String {
    let mut text = String::new();
    for Stored { summary, steps, .. } in runs {
        let name = summary.agent_id.as_ref().or(summary.workflow_id.as_ref());
        let kind = if summary.kind == RunKind::Agent { "agent" } else { "workflow" };
        write!(text, "  {kind} {} {}", word(name), summary.status).unwrap();
        write!(text, " session {} user {}", word(summary.session_id.as_ref()), word(summary.user_id.as_ref())).unwrap();
        write!(text, " calls {} tools {} errors {}", summary.llm_calls, summary.tool_calls, summary.errors).unwrap();
        writeln!(text, " {}", bill(summary.tokens, summary.cost_usd, summary.cost_source)).unwrap();
        for step in steps {
            let mut depth = 2;
            let mut parent = step.parent_span_id;
            let step_above = |parent| steps.iter().find(|step| Some(step.span_id) == parent);
            let agent_above = step_above(parent).and_then(|above| above.agent_id.as_ref());
            while let Some(above) = step_above(parent) {
                (depth, parent) = (depth + 1, above.parent_span_id);
            }
            let own_agent = step.agent_id.as_ref().filter(|agent| Some(*agent) != agent_above);
            let by = own_agent.map(|agent| format!(" by {agent}")).unwrap_or_default();
            write!(text, "{}{} {} {}{by}", "  ".repeat(depth), step.step_id, step.kind, step.status).unwrap();
            if step.model.is_some() {
                write!(text, " {}/{}", word(step.provider.as_ref()), word(step.model.as_ref())).unwrap();
            }
            if step.tokens.is_some() || step.cost_usd.is_some() {
                write!(text, " {}", bill(step.tokens, step.cost_usd, step.cost_source)).unwrap();
            }
            let sides = [(" in", step.input.is_some()), (" out", step.output.is_some())];
            text.extend(sides.into_iter().filter(|(_, is_there)| *is_there).map(|(side, _)| side));
            if let Some(of) = &step.duplicate_of {
                write!(text, " copy of {of}").unwrap();
            }
            text.push('\n');
        }
    }
    text
}

/// `211+37=248 read 64 written - thought 16 0.00004905 computed`
fn bill(tokens: Option<Tokens>, cost: Option<NanoUsd>, source: Option<CostSource>) -> String {
    let t = tokens.unwrap_or_default();
    let [prompt, completion, total, read, written, thought] =
        [t.prompt, t.completion, t.total, t.cache_read, t.cache_write, t.reasoning].map(word);
    let source = source.map(|source| format!(" {source}")).unwrap_or_default();
    format!("{prompt}+{completion}={total} read {read} written {written} thought {thought} ${}{source}", word(cost))
}

/// All that is stored, but for the moment in a run's id, which is that of the span that came first.
fn all_of(runs: &[Stored]) -> String {
    let mut text = String::new();
    for run in runs {
        let mut summary = serde_json::to_value(&run.summary).unwrap();
        for key in ["run_id", "parent_run_id"] {
            let id = summary[key].as_str().map(|id| id[10..].to_owned());
            summary[key] = id.into();
        }
        summary["updated_at"] = Json::Null;
        summary["writer"] = Json::Null;
        writeln!(text, "{summary}").unwrap();
        for step in &run.steps {
            writeln!(text, "{}", serde_json::to_string(step).unwrap()).unwrap();
        }
        for event in &run.events {
            let mut event = serde_json::to_value(event).unwrap();
            if event["data"]["parent_run_id"].is_string() {
                event["data"]["parent_run_id"] = event["data"]["parent_run_id"].as_str().unwrap()[10..].into();
            }
            writeln!(text, "{event}").unwrap();
        }
    }
    text
}

/// A generator that gives the same numbers each time: xorshift64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Sends the spans of a recording in another order, some twice, and in requests of other sizes; requests with logs before,
/// between and after them.
fn stirred(bodies: &[(String, Vec<u8>)], dice: &mut Dice) -> Vec<(String, Vec<u8>)> {
    let mut records = Vec::new();
    for (name, body) in bodies.iter().filter(|(name, _)| name.contains("-traces.")) {
        let encoding = if name.contains(".json") { Encoding::Json } else { Encoding::Protobuf };
        let mut plain = Vec::new();
        if name.ends_with(".gz") {
            flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
        }
        let body = if plain.is_empty() { body } else { &plain };
        records.extend(otlp::traces(body, encoding, &Bounds::default().limits).unwrap().records);
    }
    for _ in 0..records.len() / 3 {
        records.push(records[dice.roll(records.len())].clone());
    }
    for place in (1..records.len()).rev() {
        records.swap(place, dice.roll(place + 1));
    }
    let mut requests = Vec::new();
    while !records.is_empty() {
        let some = records.split_off(records.len() - (1 + dice.roll(4)).min(records.len()));
        let of = |record: crate::model::record::Record| ResourceSpans {
            resource: Some(record.resource.as_ref().clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(record.scope),
                spans: vec![record.span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        };
        let request = TracesData { resource_spans: some.into_iter().map(of).collect() };
        requests.push(("0-traces.pb".to_owned(), request.encode_to_vec()));
    }
    for logs in bodies.iter().filter(|(name, _)| name.contains("-logs.")) {
        requests.insert(dice.roll(requests.len() + 1), logs.clone());
        if dice.roll(3) == 0 {
            requests.insert(dice.roll(requests.len() + 1), logs.clone());
        }
    }
    requests
}

#[test]
fn a_run_is_the_same_whatever_the_order_the_size_of_requests_and_what_comes_twice() {
    for (nth, recording) in (1..).zip(recordings()) {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(nth));
        let sent = all_of(&served(&recording.bodies));
        for round in 0..2 {
            let stirred = all_of(&served(&stirred(&recording.bodies, &mut dice)));
            if let Some((is, was)) = stirred.lines().zip(sent.lines()).find(|(is, was)| is != was) {
                panic!("{} round {round}:\n{is}\ninstead of\n{was}", recording.name);
            }
            assert_eq!(stirred.len(), sent.len(), "{} round {round}", recording.name);
        }
    }
}
