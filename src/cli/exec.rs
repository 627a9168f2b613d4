//! `runspan exec`: runs a command as a run.
//!
//! ```text
//! command ── OTLP ──> private port ─┐
//!    └─ its root step, told here ───┴─> the intake of the server ─> journal ─> run store
//! ```
//!
//! The command gets this process's terminal, files and place in its process group; all that it notices is its
//! environment. Whatever is wrong with the recording, it runs.

mod again;
mod argv;
mod asked;
mod budget;
mod child;
mod environment;
mod proxy;
mod python;
mod report;
mod rerun;
mod root;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use runspan::control::Inbox;
use runspan::model::{RunId, SpanId, UnixNanos};
use runspan::propagation::{self, RemoteContext, SpanContext};
use runspan::server::{Receiver, Settings, Waits};
use runspan::sinks::forward::Target;
use runspan::store::files::layout::STORE_VARIABLE;
use runspan::{Content, Durability, Keep, with_causes};

use super::output::{YELLOW, safe};
use super::variables::{self, Variable};
use super::{CODE_FAILED, Done, Session, Stop, serve};
use again::Input;
pub use again::Recorded;
use asked::Asked;
pub use budget::Bounds;
use budget::{Purse, Watch};
use child::Child;
pub use child::{Ended, Place};
use environment::Environment;
pub use proxy::OnMiss;
use proxy::dotenv::Files;
use proxy::places::Unled;
use proxy::{Answers, AreTold, Calls, Proxy, places};
pub use rerun::{Again, Over};
use rerun::{answer_calls, answers, variable_of};
use root::Root;

/// What `exec` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan exec -- python agent.py
  runspan exec --name nightly -- ./agents.sh --all
  runspan exec --budget-usd 2 -- python agent.py

The command runs as it would without: the same terminal, input and output, signals and exit code. Recorded as one run \
are how it was called, how it ended, and

  spans   that it sends to OTEL_EXPORTER_OTLP_ENDPOINT, which is set for it
  calls   of models by clients that read OPENAI_BASE_URL, ANTHROPIC_BASE_URL and their kin (--proxy)
  Python  what OpenTelemetry's auto-instrumentation tells, where it is installed (--no-auto)

Tracing that is set up in code to go elsewhere is not seen.

Over a budget, model calls are refused with status 403, which clients do not try again; --budget-grace later the command \
and all that it started get SIGTERM, and as much later SIGKILL. The run ends as budget_exceeded.

Exit codes: the command's own, over a budget too; 128+N when signal N killed it; 126 it cannot be run, 127 it is not found, 2 wrong use.")]
pub struct Args {
    /// The run's name [default: the file name of the command]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Do not say at the end what was recorded
    #[arg(long, short)]
    quiet: bool,
    /// Whether model calls are passed through and recorded: auto, on, off
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = PassThrough::Auto, long_help = PROXY_HELP)]
    proxy: PassThrough,
    /// Do not start OpenTelemetry's auto-instrumentation in a Python program that has it installed
    #[arg(long)]
    no_auto: bool,
    /// How much of prompts and answers is kept: none, redacted, full [default: RUNSPAN_CONTENT, else redacted]
    #[arg(long, value_name = "POLICY")]
    content: Option<Content>,
    /// What a recorded span survives: loss of power, or the death of this process [default: RUNSPAN_DURABILITY, else process]
    #[arg(long, value_name = "WHAT", value_parser = ["power", "process"])]
    durability: Option<String>,
    #[command(flatten)]
    bounds: Bounds,
    /// Which runs are forwarded to the endpoints of RUNSPAN_FORWARD [default: RUNSPAN_FORWARD_KEEP, else all]
    #[arg(long, value_name = "RULES", hide = true)]
    forward_keep: Option<Keep>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// When model calls are passed through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PassThrough {
    /// Where no proxy of the network is in between, and no program with the runspan library tells them
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

const PROXY_HELP: &str = "\
Whether model calls are passed through and recorded.

OPENAI_BASE_URL, ANTHROPIC_BASE_URL and their kin point at a port of this process, which sends calls on to where they \
went before and records each as a step. A call that the command's own spans tell, too, counts once.";

/// How long spans are waited for that processes send which the command left behind.
const LATE: Duration = Duration::from_secs(2);
/// How long the end of the recording may take: all that was acknowledged is in the journal by then.
const DRAIN: Duration = Duration::from_secs(5);

impl Args {
    /// Makes the arguments with which a command is run again.
    pub fn again(name: String, command: Vec<OsString>, content: Option<Content>, bounds: Bounds) -> Self {
        Self {
            name: Some(name),
            quiet: true,
            proxy: PassThrough::On,
            no_auto: false,
            content,
            durability: None,
            forward_keep: None,
            bounds,
            command,
        }
    }
}

/// Runs the command, and ends as it did.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let over = run_to_its_end(args, None, session)?;
    over.map_or(Ok(()), |(ended, _)| Err(Stop::Exited { code: ended.code() }))
}

/// Runs a command again with recorded answers. Nothing runs where they cannot be given.
///
/// # Errors
///
/// When it cannot be run, or not with recorded answers.
pub fn run_again(args: &Args, again: &Again, session: &mut Session<'_>) -> Result<Over, Stop> {
    match run_to_its_end(args, Some(again), session)? {
        Some((ended, Some((run, refused)))) => Ok(Over { ended, run, refused }),
        _ => Err(Stop::failed(CODE_FAILED, "nothing was run: recorded answers cannot be given, see above")),
    }
}

/// How a command ended, and of one that was recorded which run it is, and what was refused to it.
type Outcome = (Ended, Option<(RunId, Vec<String>)>);

fn run_to_its_end(args: &Args, again: Option<&Again>, session: &mut Session<'_>) -> Result<Option<Outcome>, Stop> {
    let Some((program, _)) = args.command.split_first() else { return Ok(None) };
    let name = args.name.clone().unwrap_or_else(|| file_name(program));
    child::notice_children();
    let is_wanted = again.is_some() || !variables::is_switched_off();
    let recording = is_wanted.then(|| Recording::begin(args, again, &name, session)).flatten();
    if again.is_some() && recording.as_ref().is_none_or(|recording| recording.proxy.is_none()) {
        if let Some(recording) = recording {
            recording.cancel();
        }
        return Ok(None);
    }
    if recording.is_none() && args.bounds.budget().is_some() {
        warn(session, "nothing holds the command to its budget, for it is not recorded");
    }
    let mut environment =
        recording.as_ref().map(|recording| recording.environment(args, again, &name)).unwrap_or_default();
    if let Some(again) = again {
        let own = std::mem::replace(&mut environment.set, again.environment.clone());
        environment.set.extend(own);
    }
    let here = Place::default();
    let place = again.map_or(&here, |again| &again.place);
    let started_at = UnixNanos::now();
    let child = match Child::start(&args.command, &environment, place) {
        Ok(child) => child,
        Err(error) => {
            if let Some(recording) = recording {
                recording.cancel();
            }
            return Err(cannot_run(program, &error));
        }
    };
    let recording = recording.map(|recording| {
        let run = recording.run;
        let answers = recording.answers.clone();
        (recording.start(&name, started_at, &child, args, again, session), run, answers)
    });
    let ended = child.wait();
    let ended_at = UnixNanos::now();
    let recorded = recording.map(|(recording, run, answers)| {
        recording.end(&ended, ended_at, args, session);
        (run, answers.map(|answers| answers.refused()).unwrap_or_default())
    });
    Ok(Some((ended, recorded)))
}

fn file_name(program: &OsString) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

fn cannot_run(program: &OsString, error: &std::io::Error) -> Stop {
    let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    Stop::failed(code, format!("cannot run {:?}: {error}", program.to_string_lossy()))
}

/// A command about to be recorded: where it sends to, and what it is part of.
struct Recording {
    receiver: Receiver,
    proxy: Option<Proxy>,
    /// Variables that are left as they are, by which calls may go unseen.
    left: Vec<&'static str>,
    purse: Option<Arc<Purse>>,
    /// What answers in the place of models.
    answers: Option<Arc<Answers>>,
    run: RunId,
    context: SpanContext,
    /// What this process itself was started under.
    outer: Option<RemoteContext>,
    /// What is kept of prompts and answers, where that is given.
    content: Option<Content>,
}

impl Recording {
    /// Opens port and store. Without them the command runs all the same, with a warning.
    fn begin(args: &Args, again: Option<&Again>, name: &str, session: &mut Session<'_>) -> Option<Self> {
        let mut settings = Settings { drain: DRAIN, durability: Durability::Process, ..Settings::default() };
        if session.store.is_some() || std::env::var_os(STORE_VARIABLE).is_some_and(|path| !path.is_empty()) {
            settings.store.clone_from(&session.store);
        }
        let content = args.content.or_else(|| from_env(variables::CONTENT, session));
        settings.content = content.unwrap_or(settings.content);
        let given = args.durability.as_deref().and_then(|word| word.parse().ok());
        let given = given.or_else(|| from_env(variables::DURABILITY, session));
        settings.durability = given.unwrap_or(settings.durability);
        let forward_keep = args.forward_keep.clone().or_else(|| from_env(variables::FORWARD_KEEP, session));
        settings.forward_keep = forward_keep.unwrap_or(settings.forward_keep);
        settings.forward = targets(session);
        settings.is_offline = again.is_some_and(|again| !again.may_ask());
        let run = RunId::fresh(UnixNanos::now());
        let receiver = match Receiver::start(settings, run) {
            Ok(receiver) => receiver,
            Err(error) => {
                warn(
                    session,
                    &format!("{name} is not recorded: {}; runspan doctor checks the store", with_causes(&error)),
                );
                return None;
            }
        };
        let outer = propagation::from_env();
        let trace_id = outer.as_ref().map_or(run.as_trace_id(), |outer| outer.span.trace_id);
        let context = SpanContext { trace_id, span_id: SpanId::fresh(), flags: 1, run_id: Some(run) };
        let purse = args.bounds.budget().map(|budget| Purse::new(budget, receiver.layout(), again.is_some()));
        let answers = match again {
            Some(again) => match answers(&receiver, again, content.unwrap_or_default()) {
                Ok(answers) => Some(Arc::new(answers)),
                Err(error) => {
                    warn(session, &format!("the store cannot be read: {}", with_causes(&error)));
                    return None;
                }
            },
            None => None,
        };
        let mut left = Vec::new();
        let proxy = match (args.proxy, again) {
            (PassThrough::Off, _) => None,
            (_, Some(again)) => {
                let calls = Calls { purse: purse.clone(), ..Calls::all(&context, name) };
                answer_calls(&receiver, again, &args.command, answers.clone(), calls, session)
            }
            (_, None) => pass_through(&receiver, args, name, &context, purse.clone(), &mut left, session),
        };
        Some(Self { receiver, proxy, left, purse, answers, run, context, outer, content })
    }

    /// Ends what has not begun.
    fn cancel(self) {
        // There is nothing in it.
        if let Some(proxy) = self.proxy {
            let _ = self.receiver.runtime().block_on(proxy.finish());
        }
        let _ = self.receiver.finish(DRAIN);
    }

    fn environment(&self, args: &Args, again: Option<&Again>, name: &str) -> Environment {
        let port = self.receiver.address();
        let mut environment = environment::of_command(
            |name| variable_of(again, name),
            &environment::Facts {
                endpoint: format!("http://{port}"),
                store: self.receiver.layout().root().to_owned(),
                content: self.content,
                name,
                run: self.run,
                context: self.context,
                outer: self.outer.as_ref(),
                has_targets: self.receiver.has_targets(),
                is_python: python::runs(&args.command),
            },
        );
        let recorded = again.and_then(|again| again.environment.get("PYTHONPATH").cloned());
        let python_path = recorded.or_else(|| std::env::var_os("PYTHONPATH"));
        let instrumented = (!args.no_auto).then(|| python::start_of(&args.command, python_path.as_deref())).flatten();
        if let Some(start) = instrumented {
            environment.set.insert("PYTHONPATH".to_owned(), start.path);
            for (name, value) in start.defaults {
                if std::env::var_os(name).is_none() {
                    environment.set.insert((*name).to_owned(), (*value).into());
                }
            }
        }
        let variables = self.proxy.iter().flat_map(Proxy::variables);
        environment.set.extend(variables.map(|(name, value)| (name.to_owned(), value.into())));
        if let (Some(again), Some(proxy)) = (again, &self.proxy)
            && !again.may_ask()
        {
            // Clients refuse to start without one, and nobody looks at it.
            let missing = places::keys_missing(proxy.places(), |name| variable_of(Some(again), name));
            environment.set.extend(missing.map(|key| (key.to_owned(), "recorded".into())));
        }
        environment
    }

    /// Tells that the command has started.
    fn start(
        self,
        name: &str,
        started_at: UnixNanos,
        child: &Child,
        args: &Args,
        again: Option<&Again>,
        session: &mut Session<'_>,
    ) -> Started {
        let here = std::env::current_dir().ok();
        let recorded = again.and_then(|again| again.place.directory.clone());
        let directory = recorded.or(here);
        let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        variables.extend(again.into_iter().flat_map(|again| &again.environment).map(|(n, v)| (n.into(), v.clone())));
        let environment = again::kept(variables.into_iter());
        let root = Root::new(root::Facts {
            name,
            store_id: self.receiver.store_id(),
            run: self.run,
            context: self.context,
            outer: self.outer.as_ref(),
            command: &args.command,
            pid: child.id(),
            directory: directory.as_deref(),
            environment: Some(environment),
            input: again.and_then(|again| again.input.clone()).unwrap_or_else(Input::here),
            replay_of: again.map(|again| again.run),
            budget: self.purse.as_ref().map(|purse| purse.budget()),
            started_at,
        });
        if let Some(purse) = &self.purse {
            purse.start();
        }
        let teller = self.receiver.teller();
        if let Err(why) = self.receiver.runtime().block_on(teller.tell(root.started())) {
            warn(session, &format!("the start of {name} is not recorded: {why}"));
        }
        let watch = self.purse.clone().and_then(|purse| {
            let store = self.receiver.layout().root().to_owned();
            let watch = Watch::start(purse, store, self.run, child.signals(), args.bounds.grace());
            watch.map_err(|error| warn(session, &format!("the budget is not watched: {error}"))).ok()
        });
        let inbox = Inbox::of(self.receiver.layout(), self.run);
        let asked = Asked::listen(&self.receiver, inbox, &root, child.signals());
        Started { recording: self, root, watch, asked }
    }
}

/// A command that is being recorded.
struct Started {
    recording: Recording,
    root: Root,
    watch: Option<Watch>,
    asked: Asked,
}

impl Started {
    /// Takes in what still comes, closes the run, and says what it came to.
    fn end(self, ended: &Ended, ended_at: UnixNanos, args: &Args, session: &mut Session<'_>) {
        let Self { recording, mut root, watch, asked } = self;
        let Recording { receiver, proxy, left, purse, answers, run, .. } = recording;
        let over = watch.and_then(Watch::end);
        let heard = asked.end();
        let is_cancelled = heard.is_cancelled;
        root.take_in(heard);
        let is_left = child::wait_for_the_rest(LATE, || receiver.connections() == 0);
        if is_left && over.is_none() && answers.is_none() && proxy.as_ref().is_some_and(Proxy::is_used) {
            warn(session, STRANDED);
        }
        if over.as_ref().is_some_and(|over| over.signal.is_some()) {
            // What was asked to end with the command, and did not.
            child::signal_all_below(libc::SIGKILL);
        }
        let calls = proxy.as_ref().map_or(0, Proxy::calls);
        let lost = proxy.as_ref().map(Proxy::lost).unwrap_or_default();
        let missed = proxy.and_then(|proxy| receiver.runtime().block_on(proxy.finish()));
        if let Some(missed) = &missed {
            warn(session, &missed.to_string());
        }
        for lost in lost {
            say_unseen(&lost.to_string(), args, session);
        }
        // With the calls that the program gave up on, the last of which are known now.
        root.say(purse.as_ref().and_then(|purse| purse.unpriced()));
        // A call that was refused was seen.
        let refused = over.as_ref().map_or(0, |over| over.refused);
        let is_silent =
            receiver.received() == 0 && calls + refused == 0 && !report::has_runs_below(receiver.layout().root(), run);
        let why_empty = report::why_empty(&left);
        let empty = is_silent.then_some(why_empty.as_str());
        let root = root.ended(ended, ended_at, over.as_ref(), empty, missed.as_ref());
        let told = receiver.runtime().block_on(receiver.teller().tell(root));
        if let Err(why) = told {
            warn(session, &format!("the end of the run is not recorded: {why}"));
        }
        let layout = receiver.layout().clone();
        let waits = receiver.finish(DRAIN);
        if waits != Waits::ToBeStored {
            Inbox::of(&layout, run).close(is_cancelled);
        }
        let still = match waits {
            Waits::Nothing => None,
            Waits::ToBeForwarded => Some(
                "the run is in the store, and not all of it is forwarded yet: the rest waits in the journal beside it for the next command that forwards there",
            ),
            Waits::ToBeStored => Some(
                "not all of the run is in the store yet: what is missing is in the journal beside it, from where the next command that opens the store takes it",
            ),
        };
        if let Some(still) = still {
            warn(session, still);
        }
        if let Some(over) = &over {
            warn(session, &over.to_string());
        }
        if let Some(budget) = purse.as_ref().map(|purse| purse.budget()).filter(|budget| budget.cost_usd.is_some())
            && let Some(unpriced) = report::unpriced(layout.root(), run)
        {
            warn(
                session,
                &format!("the budget of {budget} does not count {unpriced}; --budget-tokens bounds them, too"),
            );
        }
        if !args.quiet {
            report::say(layout.root(), run, refused, &why_empty, session);
        }
    }
}

/// Reads a variable of this process; empty means unset.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads a setting that no flag gives from the environment. One that is wrong is named, and the default stands: it must not
/// keep the command from running.
fn from_env<T: FromStr>(variable: Variable, session: &mut Session<'_>) -> Option<T> {
    variable.read().unwrap_or_else(|why| {
        warn(session, &format!("{why}; the default is used"));
        None
    })
}

/// Returns where spans go on to as well. An address that is none costs itself alone.
fn targets(session: &mut Session<'_>) -> Vec<Target> {
    let list = variable("RUNSPAN_FORWARD").unwrap_or_default();
    let urls = list.split(',').map(str::trim).filter(|url| !url.is_empty());
    let target = |url| {
        let read = serve::target(url);
        read.map_err(|why| warn(session, &format!("RUNSPAN_FORWARD: {why}; nothing is forwarded there"))).ok()
    };
    urls.filter_map(target).collect()
}

/// What is said of processes that outlive the command: their environment leads to a port that is closed.
const STRANDED: &str = "processes that the command has started go on: any model calls of theirs fail from now on, for the port that they \
    are led to is closed; with --proxy off they are not led there";

/// Opens the pass-through, if there is anything to pass through and it would work.
fn pass_through(
    receiver: &Receiver,
    args: &Args,
    name: &str,
    context: &SpanContext,
    purse: Option<Arc<Purse>>,
    left: &mut Vec<&'static str>,
    session: &mut Session<'_>,
) -> Option<Proxy> {
    let when = args.proxy;
    let here = std::env::current_dir().unwrap_or_default();
    let files = Files::of(&here, &args.command, variable);
    let (mut places, unled) = places::of_command(variable, &files);
    for unled in &unled {
        if unled.is_told() || when == PassThrough::On {
            say_unseen(&unled.said(&here), args, session);
        }
    }
    left.extend(unled.iter().filter(|unled| unled.is_told()).map(Unled::variable));
    for (variable, why) in places::left_alone(variable).filter(|_| when == PassThrough::On) {
        warn(session, &format!("model calls by the address in {variable} are not passed through: {why}"));
    }
    if when == PassThrough::Auto {
        places = places::reachable(places, variable);
    }
    let trusted = proxy::trusted(variable);
    if trusted.is_empty() && places.iter().any(places::Place::is_tls) {
        warn(session, "model calls over TLS are not passed through: this system has no certificates to trust");
        places.retain(|place| !place.is_tls());
    }
    if places.is_empty() {
        return None;
    }
    let store: PathBuf = receiver.layout().root().to_owned();
    let are_told = match context.run_id.filter(|_| when == PassThrough::Auto) {
        Some(run) => {
            let below = report::Below::new(store, run);
            AreTold::new(move || below.times())
        }
        None => AreTold::none(),
    };
    let calls = Calls { root: *context, resource: Arc::new(root::resource(name)), are_told, purse };
    let started = Proxy::start(receiver, places, trusted, calls, None);
    started.map_err(|error| warn(session, &format!("model calls are not passed through: {error}"))).ok()
}

/// Says which calls are not seen: who wants all of them has to hear of it.
fn say_unseen(text: &str, args: &Args, session: &mut Session<'_>) {
    match args.proxy {
        PassThrough::On => warn(session, text),
        _ if args.quiet => {}
        _ => session.remark(&format!("runspan: {}", safe(text))),
    }
}

fn warn(session: &mut Session<'_>, text: &str) {
    let label = session.look.paint(YELLOW, "warning:").into_owned();
    session.remark(&format!("runspan: {label} {}", safe(text)));
}
