//! `runspan demo`: a small real agent and a workflow of agents, recorded and shown.
//!
//! The model is scripted and served on loopback, so the demo needs neither network nor key; all else is real: HTTP,
//! tools, a failure and its second try, streaming, and the recording itself.

mod agent;
#[allow(dead_code, reason = "tests and examples take more of it than the demo does")]
mod http_client;
#[allow(dead_code, unused_imports, reason = "tests and examples take more of it than the demo does")]
mod model_server;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use runspan::model::{RunId, RunStatus, RunSummary, StepKind, StepStatus, StepView};
use runspan::store::{RunReader, StoreError};
use runspan::{Guard, Run};
use serde_json::Value as Json;

use super::list::MIN_PREFIX;
use super::output::{BOLD, DIM, cut, money, safe};
use super::{CODE_FAILED, Done, Format, Session, Stop, get, open_store};
use agent::{Agent, AgentError, Tool, ToolError};
use model_server::{Ask, ModelServer, Said, Script, Turn};

/// What `demo` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan demo                  two runs, recorded and shown
  runspan demo --crash          an agent that is killed midway, and what is left of it

It needs neither network nor key: the model is scripted and answers on this machine.")]
pub struct Args {
    /// Kill an agent with SIGKILL midway and show what is left
    #[arg(long)]
    crash: bool,
    /// Be the agent that is killed; the URL is that of the model
    #[arg(long, hide = true, value_name = "URL")]
    child: Option<String>,
}

/// How long the recorder may take for its last records.
const SHUTDOWN: Duration = Duration::from_secs(10);
/// The agent that is killed has come far enough by then.
const MIDWAY: Duration = Duration::from_secs(30);
/// How long the model of the agent that is killed thinks.
const MODEL_PAUSE: Duration = Duration::from_millis(500);
/// Finished steps after which it is killed.
const STEPS_BEFORE_KILL: usize = 4;

const TRIP: &str = "Plan a day in Bern: look at the weather, then find trains from Zurich.";

/// Runs the demo.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let (store, _) = session.store_path();
    match &args.child {
        Some(url) => be_killed(url, &store, session),
        None if args.crash => crash(&store, session),
        None => record_and_show(&store, session),
    }
}

fn record_and_show(store: &Path, session: &mut Session<'_>) -> Done {
    let server = start_model(Duration::from_millis(120))?;
    let guard = start_recorder(store)?;
    let url = server.base_url();
    session.tell("An agent with two tools, one of which fails at first, and a workflow of three agents:")?;
    let trip = plan_trip(&url, |_| Ok(()))?;
    let notes = write_release_notes(&url)?;
    let report = guard.shutdown(SHUTDOWN);
    drop(server);
    if report.pending > 0 {
        session.remark(&format!("{} records were not stored in time", report.pending));
    }
    show(store, &[trip, notes], session)?;
    if session.format == Format::Table {
        let try_next = try_next(trip, false, session);
        session.print(&try_next)?;
    }
    Ok(())
}

/// Runs the agent in a process of its own, kills that, and shows what is left.
fn crash(store: &Path, session: &mut Session<'_>) -> Done {
    let server = start_model(MODEL_PAUSE)?;
    session.tell("An agent in a process of its own, which is killed with SIGKILL midway:")?;
    let mut child = start_child(&server.base_url(), store)?;
    let watched = watch(&mut child, store);
    let killed = child.kill().and_then(|()| child.wait());
    let run = watched?;
    killed.map_err(|error| Stop::failed(CODE_FAILED, format!("cannot kill process {}: {error}", child.id())))?;
    drop(server);
    show(store, &[run], session)?;
    if session.format != Format::Table {
        return Ok(());
    }
    let reader = open_store(store)?;
    let (summary, steps) = (reader.get_run(run)?, reader.get_steps(run)?);
    let text = obituary(&summary, &steps, child.id());
    session.tell(&text)?;
    let try_next = try_next(run, true, session);
    session.print(&try_next)
}

/// Says what was left of a run whose process was killed.
fn obituary(summary: &RunSummary, steps: &[StepView], process: u32) -> String {
    let is_open = |step: &&StepView| matches!(step.status, StepStatus::Running | StepStatus::Crashed);
    let finished = steps.len() - steps.iter().filter(is_open).count();
    let innermost = steps.iter().rev().find(is_open).map_or("no step", |step| step.step_id.as_str());
    let cost = summary.cost_usd.map_or_else(|| "an unknown amount".to_owned(), money);
    let state = if summary.status == RunStatus::Crashed { "crashed" } else { summary.status.as_str() };
    format!(
        "Process {process} was killed while {} was under way. Its run is {state}; the {finished} steps that had finished \
         are all there, with the {cost} that they had cost.",
        safe(innermost)
    )
}

/// Is the process that `--crash` kills: tells its run's id and works slowly.
fn be_killed(url: &str, store: &Path, session: &mut Session<'_>) -> Done {
    let guard = start_recorder(store)?;
    plan_trip(url, |run| {
        session.print(&format!("{run}\n"))?;
        session.flush()
    })?;
    guard.shutdown(SHUTDOWN);
    Ok(())
}

fn start_child(url: &str, store: &Path) -> Result<Child, Stop> {
    let failed = |error| Stop::failed(CODE_FAILED, format!("cannot start the agent's process: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    Command::new(program)
        .args(["demo", "--child", url, "--store"])
        .arg(store)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)
}

/// Waits until the child is in the middle of a model call with some steps behind it; returns its run.
fn watch(child: &mut Child, store: &Path) -> Result<RunId, Stop> {
    let failed = |what: &str| Stop::failed(CODE_FAILED, format!("the agent's process {what}"));
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        // A line is 27 bytes; more would be no id.
        let read = BufReader::new(stdout.take(64)).read_line(&mut line);
        read.map_err(|error| failed(&format!("cannot be read from: {error}")))?;
    }
    let run: RunId = line.trim().parse().map_err(|_| failed("did not tell its run"))?;
    let deadline = Instant::now() + MIDWAY;
    while Instant::now() < deadline {
        // At first its run is not in the store yet.
        let steps = open_store(store).and_then(|reader| reader.get_steps(run)).unwrap_or_default();
        let finished = steps.iter().filter(|step| step.status != StepStatus::Running).count();
        let is_asking = steps.iter().any(|step| step.kind == StepKind::Llm && step.status == StepStatus::Running);
        if finished >= STEPS_BEFORE_KILL && is_asking {
            // In the middle, where nothing is about to happen.
            thread::sleep(MODEL_PAUSE / 2);
            return Ok(run);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(failed(&format!("ended by itself: {status}")));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(failed("did not come far enough in time"))
}

fn start_recorder(store: &Path) -> Result<Guard, Stop> {
    runspan::builder()
        .store(store)
        .service_name("runspan-demo")
        .init()
        .map_err(|error| Stop::failed(CODE_FAILED, format!("cannot record: {error}")).hint("runspan doctor looks why"))
}

fn start_model(latency: Duration) -> Result<ModelServer, Stop> {
    let script = Script::demo().rule(words_of_the_team).latency(latency).chunk_gap(Duration::from_millis(4));
    ModelServer::start(script)
        .map_err(|error| Stop::failed(CODE_FAILED, format!("cannot serve the demo's model on 127.0.0.1: {error}")))
}

/// The agents without tools have lines of their own.
fn words_of_the_team(ask: &Ask) -> Option<Said> {
    let said = |text: &str| Some(Said::Text(text.to_owned()));
    match ask.turns.first() {
        Some(Turn::Instructions(text)) if text == WRITER => {
            said("Version 0.2 keeps recording when the disk is full, and shows crashed runs with their open step.")
        }
        Some(Turn::Instructions(text)) if text == REVIEWER => said("Approved: both claims are in the changelog."),
        _ => None,
    }
}

/// The recorder is switched off.
fn not_recorded() -> Stop {
    Stop::failed(CODE_FAILED, "nothing was recorded").hint("is RUNSPAN_DISABLED or RUNSPAN_LOG set?")
}

fn no_answer(error: &AgentError) -> Stop {
    Stop::failed(CODE_FAILED, format!("the demo's agent has no answer: {error}"))
}

const TRIP_TOOLS: &[Tool] = &[
    Tool { name: "get_weather", description: "Tells the weather", parameter: "city", call: weather },
    Tool { name: "find_trains", description: "Finds trains", parameter: "city", call: trains },
];

fn weather(city: &str, earlier_calls: usize) -> Result<String, ToolError> {
    thread::sleep(Duration::from_millis(60));
    if earlier_calls == 0 {
        return Err(ToolError("the weather station does not answer"));
    }
    Ok(format!("{city}: sunny, 21 degrees"))
}

fn trains(city: &str, _: usize) -> Result<String, ToolError> {
    thread::sleep(Duration::from_millis(90));
    Ok(format!("08:02 to {city}, back at 18:32; the weather holds"))
}

/// An agent with tools; `started` gets its run's id as soon as there is one.
fn plan_trip(url: &str, started: impl FnOnce(RunId) -> Done) -> Result<RunId, Stop> {
    let run = Run::agent("trip-planner").session("demo").tag("demo").input(TRIP).start();
    let id = run.id().ok_or_else(not_recorded)?;
    started(id)?;
    let agent = Agent {
        base_url: url,
        model: "gpt-4o-mini",
        instructions: "You plan trips. Use the tools.",
        tools: TRIP_TOOLS,
    };
    match agent.work(&run, TRIP) {
        Ok(answer) => {
            run.output(&answer);
            run.finish();
            Ok(id)
        }
        Err(error) => {
            run.fail(&error);
            Err(no_answer(&error))
        }
    }
}

const RESEARCHER: &str = "You find out what changed.";
const WRITER: &str = "You write release notes.";
const REVIEWER: &str = "You check release notes.";

const RESEARCH_TOOLS: &[Tool] =
    &[Tool { name: "read_changelog", description: "Reads the changelog", parameter: "path", call: changelog }];

fn changelog(_: &str, _: usize) -> Result<String, ToolError> {
    thread::sleep(Duration::from_millis(30));
    Ok("added: crashed runs show their open step; fixed: a full disk ends only the recording".to_owned())
}

/// A workflow: three agents, each with what the one before it said.
fn write_release_notes(url: &str) -> Result<RunId, Stop> {
    let task = "Read the changelog of version 0.2 and say what users will notice.";
    let run = Run::workflow("release-notes").session("demo").tag("demo").input(task).start();
    let id = run.id().ok_or_else(not_recorded)?;
    let team: [(&str, Agent<'_>); 3] = [
        ("researcher", Agent { base_url: url, model: "gpt-4o-mini", instructions: RESEARCHER, tools: RESEARCH_TOOLS }),
        ("writer", Agent { base_url: url, model: "gpt-4.1", instructions: WRITER, tools: &[] }),
        ("reviewer", Agent { base_url: url, model: "gpt-5-mini", instructions: REVIEWER, tools: &[] }),
    ];
    let mut said = task.to_owned();
    for (name, agent) in &team {
        let step = run.agent(name);
        step.input(&said);
        match agent.work(&step, &said) {
            Ok(answer) => {
                step.output(&answer);
                step.finish();
                said = answer;
            }
            Err(error) => {
                step.fail(&error);
                run.fail(&error);
                return Err(no_answer(&error));
            }
        }
    }
    run.output(&said);
    run.finish();
    Ok(id)
}

/// Prints runs as `get` does.
fn show(store: &Path, runs: &[RunId], session: &mut Session<'_>) -> Done {
    let reader = open_store(store).map_err(|error| match error {
        StoreError::NoStore { .. } => not_recorded(),
        error => error.into(),
    })?;
    let mut values: Vec<Json> = Vec::new();
    for run in runs {
        let summary = reader.get_run(*run).map_err(|error| match error {
            StoreError::NotFound { .. } => not_recorded(),
            error => error.into(),
        })?;
        let steps = reader.get_steps(*run)?;
        if session.format == Format::Table {
            // The clock went on while the demo ran.
            let now = runspan::model::UnixNanos::now();
            let look = session.look;
            session.print(&format!("{}\n", get::render(&summary, &steps, now, look)))?;
        } else {
            values.push(get::as_json(&summary, steps)?);
        }
    }
    if session.format == Format::Table { Ok(()) } else { session.print_data(&values) }
}

/// Says what to look at next, as commands to copy.
fn try_next(run: RunId, is_crashed: bool, session: &Session<'_>) -> String {
    let store = session.store_flag();
    // So much of an id tells runs apart that did not start in the same millisecond.
    let mut id = run.to_string();
    id.truncate(MIN_PREFIX);
    let demo = if is_crashed {
        ("demo".to_owned(), "an agent and a workflow that nobody kills")
    } else {
        ("demo --crash".to_owned(), "an agent that is killed midway, and what is left of it")
    };
    let lines: [(String, &str); 4] = [
        ("list".to_owned(), "all runs of this store"),
        (format!("get {id} --events"), "everything that happened in a run"),
        ("tail".to_owned(), "runs as they happen; start another demo beside it"),
        demo,
    ];
    let commands: Vec<String> = lines.iter().map(|(command, _)| format!("runspan {command}{store}")).collect();
    let widest = commands.iter().map(String::len).max().unwrap_or(0);
    let mut text = format!("{}\n", session.look.paint(BOLD, "Try next"));
    for (command, (_, what)) in commands.iter().zip(&lines) {
        let what = cut(what, session.look.width.saturating_sub(widest + 4));
        text.push_str(&format!("  {command:<widest$}  {}\n", session.look.paint(DIM, &what)));
    }
    text
}
