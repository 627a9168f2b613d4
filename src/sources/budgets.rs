//! What runs with a budget take, counted on the thread that records: their code wants to know before its next step.
//!
//! Of a run without a budget nothing is kept. Of one with, each span that is open has an entry; when it ends, it is read as
//! the pipeline reads it, and what it says counts by the rules of totals as far as they can be told while a run is under
//! way: of calls around each other, and of spans around calls, that which says most; of calls with one id of the answer, the
//! first. A run that is begun below one with a budget counts for both.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::fork;
use crate::model::budget::{Budget, BudgetExceeded, Spent};
use crate::model::id::IdMap;
use crate::model::otlp::Resource;
use crate::model::record::RecordKind;
use crate::model::{NanoUsd, SpanId};
use crate::pipeline::cost::Pricer;
use crate::pipeline::facts::StepFacts;
use crate::pipeline::normalize::normalize;
use crate::pipeline::worker::decode_told;

/// Ids of answers that are remembered of a run.
const MAX_ANSWERS: usize = 10_000;

/// The runs with a budget that one recorder records.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    /// How many spans are open in them.
    count: AtomicUsize,
    open: Mutex<IdMap<SpanId, Open>>,
    pricer: Mutex<Pricer>,
}

/// An open span.
#[derive(Debug)]
struct Open {
    meter: Arc<Meter>,
    parent: Option<SpanId>,
    /// What spans below it said.
    below: Told,
}

/// What was said of a bill.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    tokens: Option<u64>,
    cost: Option<NanoUsd>,
}

/// What one run may take and has taken.
#[derive(Debug)]
pub(crate) struct Meter {
    budget: Budget,
    begun: Instant,
    /// How long the run had taken by then, in another process.
    before: Duration,
    /// That of the run around it.
    outer: Option<Arc<Meter>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spent: Spent,
    answers: HashSet<String>,
    /// The step that put the run over its budget.
    over_at: Option<SpanId>,
    /// The model of the first call without a price, until that is said.
    unpriced: Option<String>,
    is_unpriced_said: bool,
    /// What was found where the run went on all the same, or asked whether it may.
    hit: Option<BudgetExceeded>,
    /// The tasks that wait to hear of that, each by its number.
    wakers: HashMap<u64, Waker>,
}

/// The tasks that are to hear that a run may not go on.
///
/// To wake one runs code of the host's, which may log into the very span that is being recorded: that is done, or they are
/// dropped, where nothing is held.
#[derive(Debug, Default)]
#[must_use = "the tasks wait to be woken"]
pub(crate) struct Wakers(Vec<Waker>);

impl Wakers {
    /// Wakes them all.
    pub fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// Numbers of tasks that wait.
static LAST_WAITING: AtomicU64 = AtomicU64::new(0);

/// A task that goes on for as long as the budget lasts, and those around it.
#[derive(Debug)]
pub(crate) struct Waiting {
    meter: Arc<Meter>,
    number: u64,
}

impl Waiting {
    pub fn on(meter: &Arc<Meter>) -> Self {
        Self { meter: Arc::clone(meter), number: LAST_WAITING.fetch_add(1, Ordering::Relaxed) }
    }

    /// Returns what counts for it.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Asks whether what is under way may go on; if so, `waker` is called when it may not any more.
    pub fn check(&self, waker: &Waker) -> Result<(), BudgetExceeded> {
        self.meter.ask(|meter| {
            // Foreign code makes the copy and lets go of the one before: neither with the lock held.
            let copy = waker.clone();
            let mut state = meter.state();
            let exceeded = meter.budget.exceeded(&meter.so_far(&state));
            let before = if exceeded.is_none() { state.wakers.insert(self.number, copy) } else { Some(copy) };
            drop(state);
            drop(before);
            exceeded
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for meter in self.meter.with_outer() {
            let waker = meter.state().wakers.remove(&self.number);
            drop(waker);
        }
    }
}

impl Budgets {
    /// Prices with the store's own prices.
    pub fn set_pricer(&self, pricer: Pricer) {
        *self.pricer.lock().unwrap_or_else(PoisonError::into_inner) = pricer;
    }

    /// Tells whether no run has a budget: as a rule.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn open(&self) -> MutexGuard<'_, IdMap<SpanId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, open: MutexGuard<'_, IdMap<SpanId, Open>>) {
        self.count.store(open.len(), Ordering::Relaxed);
    }

    /// Counts what is in the run of a span from now on, beside what it has spent before.
    pub fn begin(&self, root: SpanId, budget: Budget, spent: Spent) -> Arc<Meter> {
        let mut open = self.open();
        // It is there as a step of the run around it.
        let outer = open.get(&root).map(|around| Arc::clone(&around.meter));
        let meter = Arc::new(Meter::new(budget, spent, outer));
        let parent = open.get(&root).and_then(|around| around.parent);
        open.insert(root, Open { meter: Arc::clone(&meter), parent, below: Told::default() });
        self.release(open);
        meter
    }

    /// Keeps nothing more of a run.
    pub fn end(&self, root: SpanId) {
        let mut open = self.open();
        open.remove(&root);
        self.release(open);
    }

    /// Returns what counts for a span.
    pub fn meter(&self, span: SpanId) -> Option<Arc<Meter>> {
        self.open().get(&span).map(|open| Arc::clone(&open.meter))
    }

    /// Takes note of a record: a `ScopeSpans` with one span. Returns who is to hear of it.
    pub fn see(&self, kind: RecordKind, span: &[u8; 8], parent: Option<&[u8; 8]>, scope_spans: &[u8]) -> Wakers {
        match kind {
            RecordKind::Started => self.started(SpanId(*span), parent.map(|parent| SpanId(*parent))),
            RecordKind::Event => Wakers::default(),
            RecordKind::Ended => self.ended(SpanId(*span), scope_spans),
        }
    }

    fn started(&self, span: SpanId, parent: Option<SpanId>) -> Wakers {
        let mut open = self.open();
        // What is told late is told by another start.
        if open.contains_key(&span) {
            return Wakers::default();
        }
        let Some(around) = parent.and_then(|parent| open.get(&parent)) else { return Wakers::default() };
        let meter = Arc::clone(&around.meter);
        open.insert(span, Open { meter: Arc::clone(&meter), parent, below: Told::default() });
        self.release(open);
        meter.each(|meter| meter.begin_step(span))
    }

    fn ended(&self, span: SpanId, scope_spans: &[u8]) -> Wakers {
        if !self.open().contains_key(&span) {
            return Wakers::default();
        }
        let facts = self.read(scope_spans);
        let mut open = self.open();
        let Some(ended) = open.remove(&span) else { return Wakers::default() };
        let own = facts.as_ref().map(Told::of).unwrap_or_default();
        let is_billed = facts.as_ref().is_some_and(|facts| facts.billed);
        let says = is_billed && (own.tokens.is_some() || own.cost.is_some());
        let model = facts.as_ref().and_then(|facts| facts.model().map(str::to_owned));
        let answer = facts.and_then(|facts| facts.response_id.filter(|_| says));
        let known = answer.is_some_and(|answer| ended.meter.knows(answer));
        let own = if known { Told::default() } else { own };
        let told = own.or_more(ended.below, is_billed);
        if let Some(around) = ended.parent.and_then(|parent| open.get_mut(&parent)) {
            around.below = around.below.plus(told);
        }
        self.release(open);
        let more = told.beyond(ended.below);
        let is_unpriced = is_billed && own.tokens.is_some() && told.cost.is_none();
        let unpriced = is_unpriced.then(|| model.unwrap_or_default());
        ended.meter.each(|meter| meter.spend(span, more, unpriced.as_deref()))
    }

    /// Reads an ended span as the pipeline does.
    fn read(&self, scope_spans: &[u8]) -> Option<StepFacts> {
        let _held_off = fork::hold_off();
        let mut record = decode_told(RecordKind::Ended, scope_spans, &Arc::new(Resource::default()))?;
        normalize(&mut record);
        self.pricer.lock().unwrap_or_else(PoisonError::into_inner).price(&mut record);
        Some(StepFacts::of(&record.span, None, None))
    }
}

impl Told {
    fn of(facts: &StepFacts) -> Self {
        let tokens = facts.tokens.and_then(|tokens| tokens.with_total().total);
        Self { tokens, cost: facts.cost.map(|(cost, _)| cost) }
    }

    /// Joins what a span says with what those below it say: a call says it of the same bill; any other span only
    /// where nothing below does.
    fn or_more(self, below: Self, is_billed: bool) -> Self {
        if is_billed {
            Self { tokens: self.tokens.max(below.tokens), cost: self.cost.max(below.cost) }
        } else {
            Self { tokens: below.tokens.or(self.tokens), cost: below.cost.or(self.cost) }
        }
    }

    fn plus(self, other: Self) -> Self {
        fn sum<T>(a: Option<T>, b: Option<T>, add: fn(T, T) -> T) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(add(a, b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            tokens: sum(self.tokens, other.tokens, u64::saturating_add),
            cost: sum(self.cost, other.cost, |a, b| a + b),
        }
    }

    /// Returns what is not in `known`.
    fn beyond(self, known: Self) -> Self {
        let tokens = self.tokens.map(|tokens| tokens.saturating_sub(known.tokens.unwrap_or_default()));
        let cost = self.cost.map(|cost| NanoUsd(cost.0.saturating_sub(known.cost.unwrap_or_default().0)));
        Self { tokens, cost }
    }
}

impl Meter {
    /// Makes one that counts from now on, of a run that has spent so much before.
    pub fn new(budget: Budget, spent: Spent, outer: Option<Arc<Self>>) -> Self {
        let state = State { spent, ..State::default() };
        Self { budget, begun: Instant::now(), before: spent.wall, outer, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns this one and those around it.
    fn with_outer(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |meter| meter.outer.as_deref())
    }

    /// Does something with this one and those around it. Returns the tasks that wait to hear of it.
    fn each(&self, note: impl Fn(&Self) -> HashMap<u64, Waker>) -> Wakers {
        Wakers(self.with_outer().flat_map(|meter| note(meter).into_values()).collect())
    }

    /// Asks this one and those around it. The run of this one ends by whichever it was that said no.
    fn ask(&self, is_exceeded: impl Fn(&Self) -> Option<BudgetExceeded>) -> Result<(), BudgetExceeded> {
        for meter in self.with_outer() {
            let Some(exceeded) = is_exceeded(meter) else { continue };
            let first = *meter.state().hit.get_or_insert(exceeded);
            return Err(*self.state().hit.get_or_insert(first));
        }
        Ok(())
    }

    fn begin_step(&self, span: SpanId) -> HashMap<u64, Waker> {
        let mut state = self.state();
        state.spent.steps += 1;
        let Some(exceeded) = self.budget.exceeded(&self.so_far(&state)) else { return HashMap::new() };
        state.over_at.get_or_insert(span);
        state.hit.get_or_insert(exceeded);
        std::mem::take(&mut state.wakers)
    }

    /// `unpriced`: the model of a call that used something and has no price.
    fn spend(&self, span: SpanId, more: Told, unpriced: Option<&str>) -> HashMap<u64, Waker> {
        let mut state = self.state();
        state.spent.tokens = state.spent.tokens.saturating_add(more.tokens.unwrap_or_default());
        state.spent.cost = state.spent.cost + more.cost.unwrap_or_default();
        state.spent.unpriced += u64::from(unpriced.is_some());
        if let Some(model) = unpriced.filter(|_| self.budget.cost_usd.is_some()) {
            state.unpriced.get_or_insert_with(|| model.to_owned());
        }
        if self.budget.exceeded(&self.so_far(&state)).is_none() {
            return HashMap::new();
        }
        state.over_at.get_or_insert(span);
        std::mem::take(&mut state.wakers)
    }

    /// Remembers the id of an answer; tells whether it was known.
    fn knows(&self, answer: String) -> bool {
        let mut state = self.state();
        if state.answers.len() >= MAX_ANSWERS && !state.answers.contains(&answer) {
            return false;
        }
        !state.answers.insert(answer)
    }

    fn so_far(&self, state: &State) -> Spent {
        Spent { wall: self.before + self.begun.elapsed(), ..state.spent }
    }

    /// Returns what was taken so far.
    pub fn spent(&self) -> Spent {
        self.so_far(&self.state())
    }

    /// Asks whether one more step may begin, in the runs around as well.
    pub fn check(&self) -> Result<(), BudgetExceeded> {
        self.ask(|meter| meter.budget.exceeded_by_a_step(&meter.so_far(&meter.state())))
    }

    /// Returns the model of the first call that a bound of dollars does not count, once.
    pub fn unpriced_to_say(&self) -> Option<String> {
        let mut state = self.state();
        let model = state.unpriced.clone().filter(|_| !state.is_unpriced_said)?;
        state.is_unpriced_said = true;
        Some(model)
    }

    /// Returns what the run may take.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Returns by what the run was stopped, or should have been, and the step at which.
    pub fn hit(&self) -> Option<(BudgetExceeded, Option<SpanId>)> {
        let state = self.state();
        state.hit.map(|hit| (hit, state.over_at))
    }
}
