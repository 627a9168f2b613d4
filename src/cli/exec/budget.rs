//! What a command may take, and what is done when it takes more: its calls are refused, then it is asked to end, then it
//! is ended, with all that it started.
//!
//! What counts is its run as the store adds it up, with all runs below it, and beside that at once the calls that pass
//! through here: the next one must not be let through before the last one is counted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use runspan::conventions::names;
use runspan::model::budget::{Bound, Budget, BudgetExceeded, Spent};
use runspan::model::otlp::{STATUS_ERROR, Span, SpanEvent};
use runspan::model::record::{Record, RecordKind};
use runspan::model::time::parse_duration;
use runspan::model::{NanoUsd, RunId, SpanId, StepKind, StepStatus};
use runspan::pipeline::cost::Pricer;
use runspan::pipeline::facts::StepFacts;
use runspan::store::RunReader;
use runspan::store::family::Tree;
use runspan::store::files::FilesReader;
use runspan::store::files::layout::Layout;
use tokio::sync::watch;

use super::asked::event;
use super::child::Signals;

/// How often the run is added up, and how much of the time that may take.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOK_SHARE: u32 = 20;
/// How often it is seen whether something is due.
const TICK: Duration = Duration::from_millis(25);
/// How long a call waits for those before it to be counted. A disk that hangs must not hang the command.
const COUNT_LIMIT: Duration = Duration::from_secs(2);

/// The bounds, as flags.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Budget")]
pub struct Bounds {
    /// Dollars that the command's model calls may cost, those of runs below it among them
    #[arg(long, value_name = "USD", value_parser = dollars)]
    budget_usd: Option<f64>,
    /// Input and output tokens that it may use
    #[arg(long, value_name = "N")]
    budget_tokens: Option<u64>,
    /// Steps that it may take
    #[arg(long, value_name = "N")]
    budget_steps: Option<u64>,
    /// How long it may run: 90s, 15m, 2h
    #[arg(long, value_name = "TIME", value_parser = time)]
    budget_wall: Option<Duration>,
    /// Over its budget, how long the command has to end by itself before SIGTERM, and then before SIGKILL
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    budget_grace: Duration,
}

fn dollars(text: &str) -> Result<f64, String> {
    let usd = text.trim_start_matches('$').parse().ok().filter(|usd: &f64| usd.is_finite() && *usd >= 0.0);
    usd.ok_or_else(|| "expected dollars, such as 0.25".to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a time such as 90s, 15m, 2h".to_owned())
}

impl Bounds {
    /// Returns what is bounded, if anything is.
    pub fn budget(&self) -> Option<Budget> {
        let budget = Budget {
            cost_usd: self.budget_usd,
            tokens: self.budget_tokens,
            steps: self.budget_steps,
            wall: self.budget_wall,
        };
        (budget != Budget::default()).then_some(budget)
    }

    /// Returns how long the command has to end.
    pub fn grace(&self) -> Duration {
        self.budget_grace
    }
}

/// What a command may take and has taken.
#[derive(Debug)]
pub struct Purse {
    budget: Budget,
    /// When the run began.
    begun: OnceLock<Instant>,
    /// Answers that were given from a recording are told as well, and take nothing.
    is_replay: bool,
    /// Calls that have ended, and those of them that are counted.
    answered: AtomicU64,
    counted: watch::Sender<u64>,
    pricer: Mutex<Pricer>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the store.
    stored: Spent,
    /// By the calls that passed through.
    passed: Spent,
    /// Steps of the store that are no calls: an answer has sent those elsewhere.
    sent_on: u64,
    over: Option<Over>,
    /// The call that was counted last.
    last: Option<SpanId>,
    /// The model of the first call without a price.
    unpriced: Option<String>,
}

/// A command took more than its budget.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    pub exceeded: BudgetExceeded,
    /// The call that put it over, where that is one of the command's own run.
    pub at: Option<SpanId>,
    /// The same of a run below it, in which the step is to be looked for.
    below: Option<(String, RunId)>,
    /// Calls that were not passed on.
    pub refused: u64,
    /// The last signal that it was sent for that.
    pub signal: Option<&'static str>,
    /// When that was noticed, or the last signal sent.
    since: Instant,
}

impl Over {
    /// Tells whether the command was kept from anything. One that wants no more ends as it would.
    pub fn was_stopped(&self) -> bool {
        self.refused > 0 || self.signal.is_some()
    }
}

impl Purse {
    /// Makes it for a command that is about to start. `is_replay`: of its calls only those count for which a model is asked.
    pub fn new(budget: Budget, layout: &Layout, is_replay: bool) -> Arc<Self> {
        // Prices that cannot be read are told by what stores the run.
        let (pricer, _) = Pricer::of_store(layout);
        Arc::new(Self {
            budget,
            begun: OnceLock::new(),
            is_replay,
            answered: AtomicU64::new(0),
            counted: watch::channel(0).0,
            pricer: Mutex::new(pricer),
            state: Mutex::default(),
        })
    }

    /// Returns what the command may take.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Begins to count its time: with the run, whose length it is never more than.
    pub fn start(&self) {
        self.begun.get_or_init(Instant::now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the command is over, if it is.
    pub fn over(&self) -> Option<Over> {
        self.state().over.clone()
    }

    /// A call has ended, and will be counted.
    pub fn answered(&self) {
        self.answered.fetch_add(1, Ordering::Release);
    }

    /// What was let through was no call. `is_told`: the store has its start.
    pub fn give_back(&self, is_told: bool) {
        let mut state = self.state();
        state.passed.steps = state.passed.steps.saturating_sub(1);
        state.sent_on += u64::from(is_told);
    }

    /// A call goes on with one that was given back.
    pub fn went_on(&self) {
        let mut state = self.state();
        state.sent_on = state.sent_on.saturating_sub(1);
    }

    /// Counts a call that has ended.
    pub fn count(&self, span: &Span) {
        let is_replayed = span.attr_str(names::RESPONSE_ID).is_some_and(|id| id.starts_with(names::REPLAYED_ANSWER));
        if !is_replayed {
            let (tokens, cost) = self.price(span);
            let is_unpriced = cost.is_none() && (tokens.is_some() || was_made(span));
            let mut state = self.state();
            state.passed.tokens = state.passed.tokens.saturating_add(tokens.unwrap_or_default());
            state.passed.cost = state.passed.cost + cost.unwrap_or_default();
            state.passed.unpriced += u64::from(is_unpriced);
            state.last = SpanId::from_bytes(&span.span_id);
            if is_unpriced && state.unpriced.is_none() {
                state.unpriced = Some(model_of(span));
            }
            let at = state.last;
            self.judge(&mut state, at);
        }
        self.counted.send_modify(|counted| *counted += 1);
    }

    fn price(&self, span: &Span) -> (Option<u64>, Option<NanoUsd>) {
        // Nothing that was said is needed, and it may be long.
        let short = |attribute: &&runspan::model::otlp::KeyValue| {
            attribute
                .value
                .as_ref()
                .and_then(|value| value.value.as_ref()?.as_str())
                .is_none_or(|text| text.len() < 512)
        };
        let span = Span {
            attributes: span.attributes.iter().filter(short).cloned().collect(),
            start_time_unix_nano: span.start_time_unix_nano,
            end_time_unix_nano: span.end_time_unix_nano,
            ..Span::default()
        };
        let mut record = Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Default::default(), span };
        self.pricer.lock().unwrap_or_else(PoisonError::into_inner).price(&mut record);
        let facts = StepFacts::of(&record.span, None, None);
        let tokens = facts.tokens.and_then(|tokens| tokens.with_total().total);
        (tokens, facts.cost.map(|(cost, _)| cost))
    }

    /// Asks whether one more call may pass, when all that have ended are counted.
    ///
    /// # Errors
    ///
    /// When it may not.
    pub async fn admit(&self) -> Result<(), BudgetExceeded> {
        let ended = self.answered.load(Ordering::Acquire);
        let mut counted = self.counted.subscribe();
        // Without those that are missing the answer is as good as it can be.
        let _ = tokio::time::timeout(COUNT_LIMIT, counted.wait_for(|counted| *counted >= ended)).await;
        let mut state = self.state();
        let spent = self.spent(&state);
        let exceeded = state.over.as_ref().map(|over| over.exceeded).or(self.budget.exceeded_by_a_step(&spent));
        let Some(exceeded) = exceeded else {
            state.passed.steps += 1;
            return Ok(());
        };
        let at = state.last;
        state.over.get_or_insert_with(|| Over::new(exceeded, at)).refused += 1;
        Err(exceeded)
    }

    fn spent(&self, state: &State) -> Spent {
        let State { stored, passed, sent_on, .. } = state;
        Spent {
            cost: stored.cost.max(passed.cost),
            unpriced: stored.unpriced.max(passed.unpriced),
            tokens: stored.tokens.max(passed.tokens),
            steps: stored.steps.saturating_sub(*sent_on).max(passed.steps),
            wall: self.begun.get().map(Instant::elapsed).unwrap_or_default(),
        }
    }

    /// Takes note of it when the budget is exceeded.
    fn judge(&self, state: &mut State, at: Option<SpanId>) {
        let exceeded = self.budget.exceeded(&self.spent(state)).filter(|_| state.over.is_none());
        if let Some(exceeded) = exceeded {
            // Of its time nobody is over it but the command.
            state.over = Some(Over::new(exceeded, at.filter(|_| exceeded.bound != Bound::Wall)));
        }
    }

    /// Returns what is to be said of it that a bound of dollars does not count some calls.
    pub fn unpriced(&self) -> Option<SpanEvent> {
        let model = self.state().unpriced.clone().filter(|_| self.budget.cost_usd.is_some())?;
        let budget = self.budget.to_json();
        let about = [(names::EVENT_LEVEL, "WARN"), (names::REQUEST_MODEL, &model), (names::BUDGET, &budget)];
        Some(event(names::EVENT_UNPRICED, &about))
    }

    /// Adds up what the store has of the run and of those below it.
    fn look(&self, store: &Path, run: RunId) {
        let Ok(reader) = FilesReader::open(store) else { return };
        let Ok(tree) = Tree::read(&reader, run) else { return };
        let mut stored = Spent::of_runs(run, tree.from(run));
        if self.is_replay {
            stored.tokens = 0;
        }
        let is_over = self.budget.exceeded(&Spent { wall: Duration::ZERO, ..stored }).is_some();
        // Told by the command itself: read once.
        let last = if is_over && self.over().is_none() { last_call(&reader, &tree, run) } else { None };
        let unpriced =
            if stored.unpriced > 0 && self.state().unpriced.is_none() { unpriced_in(&tree, run) } else { None };
        let mut state = self.state();
        state.stored = stored;
        if state.unpriced.is_none() {
            state.unpriced = unpriced;
        }
        let of_own = last.as_ref().filter(|last| last.run == run).map(|last| last.span);
        let below = last.filter(|last| last.run != run);
        let at = of_own.or_else(|| state.last.filter(|_| below.is_none()));
        self.judge(&mut state, at);
        if let (Some(over), Some(below)) = (&mut state.over, below) {
            over.below = Some((below.step_id, below.run));
        }
    }

    /// Asks the command to end when it is time, and then ends it.
    fn enforce(&self, command: &Signals, grace: Duration) {
        let Some((name, signal)) = self.due(grace) else { return };
        // It looks through all processes: calls that ask whether they may pass must not wait for that.
        if command.send(signal)
            && let Some(over) = &mut self.state().over
        {
            (over.signal, over.since) = (Some(name), Instant::now());
        }
    }

    /// Returns the signal that the command is to be sent now.
    fn due(&self, grace: Duration) -> Option<(&'static str, libc::c_int)> {
        let mut state = self.state();
        self.judge(&mut state, None);
        let over = state.over.as_ref().filter(|over| over.since.elapsed() >= grace)?;
        Some(match over.signal {
            None => ("SIGTERM", libc::SIGTERM),
            Some(_) => ("SIGKILL", libc::SIGKILL),
        })
    }
}

/// Tells whether a call of which nobody knows what it used may have been paid for: what failed was not, and what the program
/// gave up was.
fn was_made(span: &Span) -> bool {
    let is_failure = span.status.as_ref().is_some_and(|status| status.code == STATUS_ERROR);
    !is_failure || span.attr_str(names::STEP_STATUS) == Some(StepStatus::Cancelled.as_str())
}

fn model_of(span: &Span) -> String {
    let model = span.attr_str(names::RESPONSE_MODEL).or_else(|| span.attr_str(names::REQUEST_MODEL));
    model.unwrap_or_default().to_owned()
}

/// A model call that has ended.
struct LastCall {
    at: u64,
    run: RunId,
    span: SpanId,
    step_id: String,
}

/// Returns the model call that ended last of a run and those below it: when it is seen that the run is over its budget, the
/// one that put it over.
fn last_call(reader: &FilesReader, tree: &Tree, run: RunId) -> Option<LastCall> {
    let calls = tree.from(run).filter_map(|run| last_call_of(reader, run.run_id));
    calls.max_by_key(|call| call.at)
}

fn last_call_of(reader: &FilesReader, run: RunId) -> Option<LastCall> {
    let steps = reader.get_outline(run).ok()?.into_iter();
    let calls = steps.filter(|step| matches!(step.kind, StepKind::Llm | StepKind::Embedding));
    let ended = calls.filter_map(|call| {
        let took = Duration::from_secs_f64(call.duration_ms? / 1_000.0);
        let at = call.started_at.0.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        Some(LastCall { at, run, span: call.span_id, step_id: call.step_id })
    });
    ended.max_by_key(|call| call.at)
}

/// Returns the model of a run that has calls without a price.
fn unpriced_in(tree: &Tree, run: RunId) -> Option<String> {
    let unpriced = tree.from(run).find(|run| run.unpriced_steps > 0)?;
    Some(unpriced.model.clone().unwrap_or_default())
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exceeded.fmt(f)?;
        if let Some((step, run)) = &self.below {
            write!(f, "; the last call was {step} of run {run} below it")?;
        }
        match self.refused {
            0 => {}
            1 => write!(f, "; 1 call was refused")?,
            n => write!(f, "; {n} calls were refused")?,
        }
        self.signal.map_or(Ok(()), |signal| write!(f, "; {signal} was sent"))
    }
}

impl Over {
    fn new(exceeded: BudgetExceeded, at: Option<SpanId>) -> Self {
        Self { exceeded, at, below: None, refused: 0, signal: None, since: Instant::now() }
    }
}

/// A thread that watches what a command takes.
pub struct Watch {
    purse: Arc<Purse>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had.
    pub fn start(
        purse: Arc<Purse>,
        store: PathBuf,
        run: RunId,
        command: Signals,
        grace: Duration,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let watched = Arc::clone(&purse);
        let thread = std::thread::Builder::new().name("budget".to_owned()).spawn(move || {
            let mut next = Instant::now();
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let begun = Instant::now();
                if begun >= next {
                    watched.look(&store, run);
                    next = Instant::now() + LOOK_EVERY.max(begun.elapsed() * LOOK_SHARE);
                }
                watched.enforce(&command, grace);
            }
        })?;
        Ok(Self { purse, stop, thread })
    }

    /// Ends it, and returns by what the command was stopped, if it was.
    pub fn end(self) -> Option<Over> {
        drop(self.stop);
        // It does not panic; if it did, what it found is there all the same.
        let _ = self.thread.join();
        self.purse.over().filter(Over::was_stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_budget_begins_with_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget { wall: Some(Duration::ZERO), ..Budget::default() };
        let purse = Purse::new(budget, &Layout::new(dir.path()), false);
        assert_eq!((purse.due(Duration::ZERO), purse.spent(&purse.state()).wall), (None, Duration::ZERO));
        purse.start();
        assert_eq!(purse.due(Duration::ZERO).map(|(name, _)| name), Some("SIGTERM"));
    }

    #[test]
    fn what_may_have_been_paid_for_and_has_no_price_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget { cost_usd: Some(1.0), ..Budget::default() };
        let ended = |status: Option<StepStatus>| {
            let mut span = Span { start_time_unix_nano: 1, end_time_unix_nano: 2, ..Span::default() };
            span.set_attr(names::OPERATION, "chat");
            if let Some(status) = status {
                span.status = Some(runspan::model::otlp::Status { code: STATUS_ERROR, message: String::new() });
                span.set_attr(names::STEP_STATUS, status.as_str());
            }
            let purse = Purse::new(budget, &Layout::new(dir.path()), false);
            purse.count(&span);
            let state = purse.state();
            (state.passed.unpriced, state.unpriced.is_some())
        };
        assert_eq!(ended(Some(StepStatus::Cancelled)), (1, true));
        assert_eq!(ended(Some(StepStatus::Error)), (0, false));
        assert_eq!(ended(None), (1, true));
    }
}
