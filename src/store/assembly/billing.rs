//! What a run's steps add up to: which of them tell one call, which is billed, which failure is which.

mod beside;
mod layers;
mod passed_on;
mod twice;
mod uses;

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::layers::{MAX_AT_ONCE, MAX_LAYERS, MOMENTS};
use super::tree::Tree;
use super::{RunState, Step, is_failure};
use crate::conventions::providers::{MAKES, OPEN_MODELS};
use crate::model::id::{IdMap, IdSet};
use crate::model::{CostSource, NanoUsd, SpanId, StepKind, StepStatus, Tokens};
use crate::pipeline::facts::StepFacts;

/// What was asked for: provider and model.
pub(super) type Asked<'a> = (Option<&'a str>, Option<&'a str>);

/// The places of the steps that make up a run's totals.
#[derive(Debug)]
pub(super) struct Counted {
    /// Calls, each once.
    pub(super) calls: Vec<usize>,
    /// Steps whose tokens are summed.
    pub(super) tokens: Vec<usize>,
    /// Steps whose costs are summed.
    pub(super) costs: Vec<usize>,
}

/// A run's totals over counted steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Bill {
    pub(super) tokens: Option<Tokens>,
    pub(super) cost: Option<NanoUsd>,
    pub(super) source: Option<CostSource>,
    pub(super) unpriced: u64,
    pub(super) llm_calls: u64,
    pub(super) models: Vec<(String, Option<String>, NanoUsd)>,
}

impl Counted {
    /// Returns all of them by start, each once.
    pub(super) fn all(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.calls.iter().chain(&self.tokens).chain(&self.costs).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Which ended steps count, each part of a bill once.
#[derive(Debug)]
pub struct Billing {
    /// Calls of models.
    pub calls: Vec<SpanId>,
    /// Steps that are none, and whose tokens count.
    pub tellers: Vec<SpanId>,
    /// Steps whose costs are summed.
    pub costs: Vec<SpanId>,
}

/// What a run's steps add up to, as they are now.
#[derive(Debug)]
pub(super) struct Sums {
    /// As [`RunState::duplicates`] has them.
    pub(super) copies: HashMap<usize, usize>,
    /// Who served calls that do not say it, as another layer's word for them does: by place.
    pub(super) providers: HashMap<usize, usize>,
    pub(super) counted: Counted,
    pub(super) bill: Bill,
    pub(super) tool_calls: u64,
    /// The places of the failures, each once.
    pub(super) failures: Vec<usize>,
}

impl Sums {
    fn of(run: &RunState) -> Self {
        let copies = run.duplicates();
        let counted = run.counted(&copies);
        let (tool_calls, failures) = (run.tool_calls(&copies), run.failures(&copies));
        let providers = run.providers(&copies);
        Self { bill: run.bill(&counted, &providers), tool_calls, failures, copies, providers, counted }
    }
}

impl RunState {
    /// Returns what the steps add up to. Several ask for it when a run ends, and it takes a look at every step.
    pub(super) fn sums(&self) -> &Sums {
        self.sums.get_or_init(|| Arc::new(Sums::of(self)))
    }

    /// Finds for each tool call the step below it that tells how it ended, where it does not itself, and for each call of a model that
    /// which stopped it: by place.
    pub(super) fn executions(&self) -> HashMap<usize, usize> {
        let mut last: HashMap<usize, usize> = HashMap::new();
        let askers = self.askers();
        for (place, step) in self.steps.iter().enumerate() {
            if !matches!(step.facts.kind, StepKind::Tool | StepKind::Task) || step.ended_at.is_none() {
                continue;
            }
            let Some(tool) = self.tool_around(step, &askers) else { continue };
            let key = |place: &usize| (self.steps[*place].ended_at, self.steps[*place].span_id);
            let latest = last.entry(tool).or_insert(place);
            if key(latest) < key(&place) {
                *latest = place;
            }
        }
        // What says nothing itself may have another layer below it that tells, as a client of MCP has its server.
        let deepest = |mut place: usize| {
            for _ in 0..MAX_LAYERS {
                match last.get(&place).filter(|_| self.says_nothing_of_failure(place)) {
                    Some(&below) => place = below,
                    None => break,
                }
            }
            place
        };
        let told = last.iter().map(|(&tool, &execution)| {
            (tool, if self.says_nothing_of_failure(tool) { deepest(execution) } else { execution })
        });
        let fails = |&(tool, execution): &(usize, usize)| {
            self.steps[tool].status == StepStatus::Success && is_failure(self.steps[execution].status)
        };
        let mut found: HashMap<usize, usize> = told.filter(fails).collect();
        found.extend(self.stopped());
        found.extend(self.dealt_with());
        found
    }

    /// Finds calls of models that do not tell that they failed, each with the step by which the program dealt with that. It does nothing
    /// about the last one of all: without a count that is one of them where others have one, or nothing tells of the agent's end.
    pub(super) fn dealt_with(&self) -> HashMap<usize, usize> {
        let deals = |(place, step): (usize, &Step)| step.facts.deals_with_failure.then_some(place);
        let dealing: Vec<usize> = self.steps.iter().enumerate().filter_map(deals).collect();
        let parents: HashSet<Option<SpanId>> = dealing.iter().map(|place| self.steps[*place].parent).collect();
        if dealing.is_empty() {
            return HashMap::new();
        }
        let mut beside: HashMap<Option<SpanId>, Vec<usize>> = HashMap::new();
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| parents.contains(&step.parent)) {
            if step.facts.billed && step.ended_at.is_some() {
                beside.entry(step.parent).or_default().push(place);
            }
        }
        let order = |place: &usize| (self.steps[*place].ended_at, self.steps[*place].span_id);
        beside.values_mut().for_each(|calls| calls.sort_by_key(order));
        let is_silent = |place: usize| {
            let step = &self.steps[place];
            step.status == StepStatus::Success && step.facts.tokens.is_none()
        };
        let before = |place: usize| {
            let (step, calls) = (&self.steps[place], beside.get(&self.steps[place].parent)?);
            let is_before = |call: &usize| self.steps[*call].ended_at <= Some(step.started_at);
            let call = *calls[..calls.partition_point(is_before)].last()?;
            let apart = step.started_at.0.abs_diff(self.steps[call].ended_at?.0);
            (apart <= MOMENTS && is_silent(call)).then_some((call, place))
        };
        let mut found: HashMap<usize, usize> = dealing.iter().filter_map(|place| before(*place)).collect();
        let latest = dealing.iter().copied().max_by_key(order);
        let of_last = latest.and_then(|place| {
            let call = *beside.get(&self.steps[place].parent)?.last()?;
            let step = &self.steps[call];
            let tells = |other: &&Step| other.facts.billed && other.facts.tokens.is_some();
            let told = || self.steps.iter().filter(tells);
            let is_behind = self.steps[place].ended_at <= Some(step.started_at);
            let has_end = self.steps.iter().any(|other| other.facts.kind == StepKind::Agent);
            let is_told = told().any(|other| other.started_at >= self.steps[place].started_at);
            let is_last = is_silent(call) && is_behind && !is_told;
            (is_last && (!has_end || told().next().is_some())).then_some((call, place))
        });
        found.extend(of_last);
        found
    }

    /// Tells whether a step went well as far as is known, and its author did not declare it.
    fn says_nothing_of_failure(&self, place: usize) -> bool {
        let step = &self.steps[place];
        step.status == StepStatus::Success && !step.facts.is_declared_well
    }

    /// Finds calls of models without a reason for their end that ended as the step right above them was cancelled, with that: they had
    /// what had come by then for an answer.
    fn stopped(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.steps.iter().enumerate().filter_map(|(place, step)| {
            let has_whole = |tokens: Tokens| tokens.completion.is_some();
            let is_open = step.facts.billed
                && step.status == StepStatus::Success
                && step.facts.finish_reasons.is_empty()
                && !step.facts.tokens.is_some_and(has_whole);
            let parent = step.parent.filter(|_| is_open)?;
            let above = *self.by_span.get(&parent)?;
            let around = &self.steps[above];
            let apart = around.ended_at?.0.abs_diff(step.ended_at?.0);
            let is_plain = matches!(around.facts.kind, StepKind::Task | StepKind::Workflow);
            (is_plain && around.status == StepStatus::Cancelled && apart <= MOMENTS).then_some((place, above))
        })
    }

    /// Returns the places of the steps that count.
    pub(super) fn counted(&self, copies: &HashMap<usize, usize>) -> Counted {
        let calls: Vec<usize> = (0..self.steps.len())
            .filter(|place| self.steps[*place].facts.billed && !copies.contains_key(place))
            .collect();
        let mut tokens = self.tellers(copies, |facts| facts.tokens.is_some());
        self.leave_out_parts(&mut tokens);
        let costs = self.tellers(copies, |facts| facts.cost.is_some());
        Counted { calls, tokens, costs }
    }

    /// Returns which ended steps count.
    pub fn billing(&self) -> Billing {
        let counted = &self.sums().counted;
        let ended = |places: &[usize]| {
            let steps = places.iter().map(|place| &self.steps[*place]);
            steps.filter(|step| step.ended_at.is_some()).map(|step| step.span_id).collect()
        };
        let is_teller = |place: &usize| !self.steps[*place].facts.billed;
        let tellers: Vec<usize> = counted.tokens.iter().copied().filter(is_teller).collect();
        Billing { calls: ended(&counted.calls), tellers: ended(&tellers), costs: ended(&counted.costs) }
    }

    /// Returns the places of the steps that tell something of the bill, each part of it once: calls, and what encloses
    /// or is none, the innermost, where nothing below tells it.
    pub(super) fn tellers(&self, copies: &HashMap<usize, usize>, tells: impl Fn(&StepFacts) -> bool) -> Vec<usize> {
        let mut covered = Covered::default();
        let is_apart = |step: &&Step| step.facts.tells_own_use && tells(&step.facts);
        let apart: IdSet<SpanId> = self.steps.iter().filter(is_apart).map(|step| step.span_id).collect();
        let mut told: IdMap<_, usize> = IdMap::default();
        let mut repeated = HashSet::new();
        let (mut counted, mut others) = (Vec::new(), Vec::new());
        // Who asks for an answer again, while it is made or later, tells of it what the call does.
        let mut answers: HashSet<&str> = HashSet::new();
        for (place, step) in self.steps.iter().enumerate().filter(|(_, step)| tells(&step.facts)) {
            answers.extend(step.facts.response_id.as_deref().filter(|_| step.facts.billed));
            if !step.facts.billed {
                others.push(place);
                continue;
            }
            self.cover_beside(step, &apart, &mut covered);
            // What two layers tell of one call is reported once.
            if repeated.insert((copies.get(&place).copied().unwrap_or(place), used_at(step))) {
                *told.entry(used_at(step)).or_default() += 1;
            }
            if !copies.contains_key(&place) {
                counted.push(place);
            }
        }
        // What is around another layer's word for a call encloses it as well.
        for (copy, of) in copies.iter().filter(|(_, of)| tells(&self.steps[**of].facts)) {
            if self.steps[*of].facts.billed {
                self.cover_beside(&self.steps[*copy], &apart, &mut covered);
            }
        }
        if others.len() > 1 {
            let depths = self.depths();
            others.sort_by_key(|place| std::cmp::Reverse(depths[*place]));
        }
        // Of a sum alone nobody can say what it is the sum of.
        let tells_parts = |tokens: Tokens| tokens.prompt.is_some() && tokens.completion.is_some();
        let is_plain = |step: &Step| step.facts.kind == StepKind::Task;
        let is_report = |step: &Step| is_plain(step) && step.facts.tokens.is_some_and(tells_parts);
        if others.iter().any(|place| is_report(&self.steps[*place])) {
            self.used_below(&counted, &mut told);
        }
        let reports = others.iter().copied().filter(|place| is_report(&self.steps[*place]));
        let parts = self.parts_of_calls(reports.collect());
        let is_agent = |place: &usize| self.steps[*place].facts.kind == StepKind::Agent;
        let agents: Vec<usize> = others.iter().copied().filter(is_agent).collect();
        // Only agents ask, and most runs have none that tells.
        let calls = if agents.is_empty() { Vec::new() } else { counted.clone() };
        let beside = std::cell::LazyCell::new(|| self.calls_beside(&calls, &agents, copies));
        for place in others {
            // An agent may bear the id of its last answer.
            let of_answer = self.steps[place].facts.response_id.as_deref().filter(|_| is_plain(&self.steps[place]));
            let is_told = of_answer.is_some_and(|id| !answers.insert(id)) || parts.contains(&place);
            if is_told || covered.spans.contains(&self.steps[place].span_id) {
                continue;
            }
            // A plain step that says no more than what a call beside it used, or all those below a step beside it.
            let step = &self.steps[place];
            let same = told.get_mut(&used_at(step)).filter(|same| is_report(step) && **same > 0);
            if let Some(same) = same {
                *same -= 1;
                continue;
            }
            if step.facts.kind == StepKind::Agent && !step.facts.tells_own_use && beside.tells(step) {
                self.cover_beside(step, &apart, &mut covered);
                continue;
            }
            counted.push(place);
            self.cover_beside(step, &apart, &mut covered);
        }
        counted.sort_unstable();
        counted
    }

    /// Leaves out plain steps that are below a call which tells what it used: by whatever rules they count, that is a part of it. So are
    /// those that stand beside calls which tell, and name neither a model nor an answer: a sum of them. Beside are what an agent, a
    /// tool or a workflow does by itself, and the run where there is none.
    fn leave_out_parts(&self, tellers: &mut Vec<usize>) {
        let is_plain = |place: &usize| self.steps[*place].facts.kind == StepKind::Task;
        if !tellers.iter().any(is_plain) {
            return;
        }
        let (mut calls, mut around) = (IdSet::default(), IdSet::default());
        for step in tellers.iter().map(|place| &self.steps[*place]).filter(|step| step.facts.billed) {
            calls.insert(step.span_id);
            self.cover(step, &mut around);
        }
        // Whether what is right below a step is below a call, and whether it is beside one.
        let places = self.downwards(|above: Option<&(bool, bool)>, step| {
            let is_own = matches!(step.facts.kind, StepKind::Agent | StepKind::Tool | StepKind::Workflow);
            let (below, beside) = above.copied().filter(|_| !is_own).unwrap_or_default();
            (below || calls.contains(&step.span_id), beside || around.contains(&step.span_id))
        });
        tellers.retain(|place| {
            let step = &self.steps[*place];
            let names_call = step.facts.model().is_some() || step.facts.response_id.is_some();
            let (below, beside) = match step.parent.and_then(|parent| self.by_span.get(&parent)) {
                Some(&above) => places[above],
                // Above what this run has.
                None => (false, step.parent.is_some_and(|parent| around.contains(&parent))),
            };
            !(is_plain(place) && (below || (beside && !names_call)))
        });
    }

    /// Returns which of these plain steps tell parts of what the call that they are below used: all of them together used the same.
    fn parts_of_calls(&self, reports: Vec<usize>) -> HashSet<usize> {
        if reports.is_empty() {
            return HashSet::new();
        }
        let is_call = |span: &SpanId| self.by_span.get(span).is_some_and(|place| self.steps[*place].facts.billed);
        let calls = self.downwards(|above: Option<&Option<SpanId>>, step| {
            step.parent.filter(is_call).or_else(|| above.copied().flatten())
        });
        let mut below: HashMap<SpanId, (Tokens, Vec<usize>)> = HashMap::new();
        for place in reports {
            let (Some(call), Some(tokens)) = (calls[place], self.steps[place].facts.tokens) else { continue };
            let (sum, places) = below.entry(call).or_default();
            *sum = sum.plus(tokens);
            places.push(place);
        }
        let is_whole = |call: &SpanId, sum: &Tokens| {
            let told = self.by_span.get(call).and_then(|place| self.steps[*place].facts.tokens);
            told.is_some_and(|told| (told.prompt, told.completion) == (sum.prompt, sum.completion))
        };
        below.into_iter().filter(|(call, (sum, _))| is_whole(call, sum)).flat_map(|(_, (_, places))| places).collect()
    }

    /// Adds what the calls below each step used, all of them together.
    fn used_below(&self, calls: &[usize], told: &mut IdMap<UsedAt, usize>) {
        let mut own: Vec<Option<Tokens>> = vec![None; self.steps.len()];
        for &place in calls {
            own[place] = Some(self.steps[place].facts.tokens.unwrap_or_default());
        }
        let below = self.sums_below(&own, Tokens::plus);
        for (step, tokens) in self.steps.iter().zip(below).filter_map(|(step, below)| Some((step, below?))) {
            *told.entry((step.parent, counts(tokens))).or_default() += 1;
        }
    }

    /// Finds the words for calls that name who served these, where the calls themselves name nobody: by place.
    ///
    /// ADK knows it of one of its two spans for a call, and tells what that used on the other. Of a model that is not the provider's own
    /// the word may be for the client, or guessed.
    fn providers(&self, copies: &HashMap<usize, usize>) -> HashMap<usize, usize> {
        let order = |place: usize| (self.steps[place].started_at, self.steps[place].span_id);
        let mut found: HashMap<usize, usize> = HashMap::new();
        for (&copy, &of) in copies {
            let (word, call) = (&self.steps[copy].facts, &self.steps[of].facts);
            let serves = |provider: &String| call.model().is_some_and(|model| makes(provider, model));
            if call.billed && call.provider.is_none() && word.provider.as_ref().is_some_and(serves) {
                let first = found.entry(of).or_insert(copy);
                *first = std::cmp::min_by_key(*first, copy, |place| order(*place));
            }
        }
        found
    }

    /// Returns who served a call, by its own word or by another layer's.
    pub(super) fn provider_of<'a>(&'a self, place: usize, providers: &HashMap<usize, usize>) -> Option<&'a String> {
        self.steps[providers.get(&place).copied().unwrap_or(place)].facts.provider.as_ref()
    }

    pub(super) fn bill(&self, counted: &Counted, providers: &HashMap<usize, usize>) -> Bill {
        let mut bill = Bill { unpriced: self.unpriced(counted).len() as u64, ..Bill::default() };
        let mut sources = HashSet::new();
        bill.llm_calls =
            counted.calls.iter().filter(|place| self.steps[**place].facts.kind == StepKind::Llm).count() as u64;
        for &place in &counted.tokens {
            let tokens = self.steps[place].facts.tokens.unwrap_or_default();
            bill.tokens = Some(bill.tokens.unwrap_or_default().plus(tokens.with_total()));
        }
        let mut cost_at: HashMap<usize, NanoUsd> = HashMap::default();
        for &place in &counted.costs {
            let Some((cost, source)) = self.steps[place].facts.cost else { continue };
            sources.insert(source);
            cost_at.insert(place, cost);
            bill.cost = Some(bill.cost.unwrap_or_default() + cost);
        }
        let answered = self.answering_models();
        let mut place_of: IdMap<&str, usize> = IdMap::default();
        for place in counted.all() {
            let facts = &self.steps[place].facts;
            let Some(model) = known_model(facts, &answered) else { continue };
            let cost = cost_at.get(&place).copied().unwrap_or_default();
            let of_model = *place_of.entry(model).or_insert_with(|| {
                let provider = self.provider_of(place, providers).cloned();
                bill.models.push((model.to_owned(), provider, NanoUsd::default()));
                bill.models.len() - 1
            });
            bill.models[of_model].2 = bill.models[of_model].2 + cost;
        }
        bill.source = match (sources.len(), sources.iter().next()) {
            (0, _) => None,
            (1, Some(source)) => Some(*source),
            _ => Some(CostSource::Mixed),
        };
        bill
    }

    /// Returns the places of ended steps that used something of which nobody knows what it cost.
    pub(super) fn unpriced(&self, counted: &Counted) -> Vec<usize> {
        let told: HashSet<usize> = counted.costs.iter().copied().collect();
        let mut priced_below: IdSet<SpanId> = HashSet::default();
        let mut told_above: IdSet<SpanId> = HashSet::default();
        for &place in &counted.costs {
            if self.steps[place].facts.billed {
                self.cover(&self.steps[place], &mut priced_below);
            }
        }
        for &place in counted.tokens.iter().chain(&counted.costs) {
            let step = &self.steps[place];
            if !step.facts.billed {
                told_above.insert(step.span_id);
            }
        }
        let is_in = |span: Option<SpanId>| span.is_some_and(|span| told_above.contains(&span));
        let is_told_above = if told_above.is_empty() {
            Vec::new()
        } else {
            self.downwards(|above: Option<&bool>, step| above == Some(&true) || is_in(step.parent))
        };
        let is_unpriced = |place: &usize| {
            let step = &self.steps[*place];
            let facts = &step.facts;
            !told.contains(place)
                && step.status != StepStatus::Running
                // One that was given up on its way was made, and whoever passed it on has seen no price.
                && (facts.tokens.is_some()
                    || !is_failure(step.status)
                    || (facts.is_relayed && step.status == StepStatus::Cancelled))
                && (!priced_below.contains(&step.span_id) || (facts.billed && facts.tokens.is_some()))
                && (facts.tells_own_use || !is_told_above.get(*place).is_some_and(|is_told| *is_told))
        };
        counted.all().into_iter().filter(is_unpriced).collect()
    }

    /// Returns by provider and requested model the model that answered first.
    pub(super) fn answering_models(&self) -> IdMap<Asked<'_>, &str> {
        let mut models = IdMap::default();
        for facts in self.steps.iter().map(|step| &*step.facts) {
            if let Some(model) = facts.response_model.as_deref() {
                models.entry(asked(facts)).or_insert(model);
            }
        }
        models
    }

    /// Returns the places of the failures, each once: a step that failed because a step below it did is the same failure, and so is
    /// a plain one that encloses nothing and says, of the same time, what a call of a model or a tool says, or nothing but that it
    /// failed. A try that failed inside a call that went well is a failure, though no call of its own.
    pub(super) fn failures(&self, copies: &HashMap<usize, usize>) -> Vec<usize> {
        let executions = self.executions();
        // Where one way to speak to a server fails, another one is taken, and goes well.
        let has_met = |step: &Step| step.facts.is_handshake && step.status == StepStatus::Success;
        let in_handshake = if self.steps.iter().any(has_met) {
            self.downwards(|above: Option<&bool>, step| above == Some(&true) || step.facts.is_handshake)
        } else {
            Vec::new()
        };
        let is_failed = |place: &usize| {
            (is_failure(self.steps[*place].status) || executions.contains_key(place))
                && in_handshake.get(*place) != Some(&true)
                && !self.steps[*place].facts.deals_with_failure
        };
        // What failed without a word, as a request below a call does, leaves it to the step that it failed for.
        let says_nothing = |step: &Step| {
            let error = step.facts.error.as_ref();
            step.facts.kind == StepKind::Task
                && error.is_some_and(|error| error.kind.is_none() && error.message.is_none())
        };
        let leaves_it = |place: &usize| {
            let step = &self.steps[*place];
            let above = step.parent.filter(|_| says_nothing(step)).and_then(|parent| self.by_span.get(&parent));
            above.is_some_and(|above| is_failed(above) && !copies.contains_key(above))
        };
        let is_try = |place: &usize| {
            let step = &self.steps[*place];
            let mut around = self.calls_around(step).into_iter().map(|outer| &self.steps[outer]);
            step.facts.billed && !step.facts.is_relayed && around.any(|outer| outer.status == StepStatus::Success)
        };
        let is_own = |place: &usize| !copies.contains_key(place) || is_try(place);
        let mut failed: Vec<usize> =
            (0..self.steps.len()).filter(|place| is_failed(place) && is_own(place) && !leaves_it(place)).collect();
        // A command does much that is no work of the run's.
        let is_command = self.root().is_some_and(|root| root.facts.is_command);
        if is_command && failed.iter().any(|place| !self.steps[*place].facts.is_genai) {
            let work = self.around_work();
            failed.retain(|place| work[*place]);
        }
        let mut passed_on: IdSet<SpanId> = HashSet::default();
        for &place in &failed {
            self.cover(&self.steps[place], &mut passed_on);
        }
        // What is around the program's own word for a call that was passed on, and failed, has failed for that: the one that counts is below
        // the run alone.
        let relayed: HashSet<usize> =
            failed.iter().copied().filter(|place| self.steps[*place].facts.is_relayed).collect();
        for copy in copies.iter().filter(|(_, of)| relayed.contains(of)).map(|(copy, _)| *copy) {
            self.cover(&self.steps[copy], &mut passed_on);
        }
        // What has lost the step above it is below the one that stands for the run all the same.
        if let Some(host) = self.host_step().map(|host| host.span_id).filter(|_| !failed.is_empty()) {
            let has_lost = |above: Option<&bool>, step: &Step| {
                step.span_id != host && above.copied().unwrap_or(step.parent.is_some())
            };
            let is_lost = self.downwards(has_lost);
            if failed.iter().any(|place| is_lost[*place]) {
                passed_on.insert(host);
            }
        }
        let mut own: Vec<usize> =
            failed.into_iter().filter(|place| !passed_on.contains(&self.steps[*place].span_id)).collect();
        let is_call = |step: &Step| step.facts.billed || step.facts.kind == StepKind::Tool;
        let calls: Vec<usize> = own.iter().copied().filter(|place| is_call(&self.steps[*place])).collect();
        let mut of_kind: IdMap<&str, Vec<usize>> = IdMap::default();
        for &place in &calls {
            let kind = self.steps[place].facts.error.as_ref().and_then(|error| error.kind.as_deref());
            of_kind.entry(kind.unwrap_or_default()).or_default().push(place);
        }
        let tree: OnceCell<Tree> = OnceCell::new();
        let is_below = |call: usize, above: SpanId| {
            let tree = tree.get_or_init(|| self.tree());
            match self.by_span.get(&above) {
                Some(&above) => tree.is_below(call, above),
                // Both may be below what is not of this run.
                None => self.steps[tree.tops[call]].parent == Some(above),
            }
        };
        let of_agents = self.agents_of_untold(&own, copies);
        own.retain(|place| !of_agents.contains(place));
        own.retain(|place| {
            let step = &self.steps[*place];
            // An agent that fails fails for itself.
            let is_plain = matches!(step.facts.kind, StepKind::Task | StepKind::Workflow);
            let Some(error) = step.facts.error.as_ref().filter(|_| is_plain) else { return true };
            // What gives no reason may be of another class, as the answer of a web server is.
            let same = match error.message {
                Some(_) => of_kind.get(error.kind.as_deref().unwrap_or_default()).map_or(&[][..], Vec::as_slice),
                None => &calls,
            };
            let is_near = |call: usize| step.parent.is_none_or(|parent| is_below(call, parent));
            !same.iter().rev().take(MAX_AT_ONCE).any(|&call| is_told_again(&self.steps[call], step) && is_near(call))
        });
        own
    }

    /// Finds among failures the agents that failed as a request did that was passed on in their time, and which no step of the program
    /// tells: in its words, or without any. Each such request is of one agent, the last that began before it.
    fn agents_of_untold(&self, failures: &[usize], copies: &HashMap<usize, usize>) -> HashSet<usize> {
        let is_agent = |place: &usize| self.steps[*place].facts.kind == StepKind::Agent;
        let mut agents: Vec<usize> = failures.iter().copied().filter(is_agent).collect();
        if agents.is_empty() {
            return HashSet::new();
        }
        agents.sort_unstable_by_key(|place| (self.steps[*place].started_at, self.steps[*place].span_id));
        let told: HashSet<usize> = copies.values().copied().collect();
        let is_untold =
            |place: &usize| self.steps[*place].facts.is_relayed && !told.contains(place) && !copies.contains_key(place);
        let mut found = HashSet::new();
        for &call in failures.iter().filter(|place| is_untold(place)) {
            let request = &self.steps[call];
            let before = agents.partition_point(|agent| self.steps[*agent].started_at <= request.started_at);
            let is_its_own = |agent: &&usize| {
                let step = &self.steps[**agent];
                let is_over = step.ended_at.zip(request.ended_at).is_none_or(|(end, inner)| end < inner);
                !is_over && !found.contains(*agent) && is_told_again(request, step)
            };
            let latest = agents[..before].iter().rev().take(MAX_AT_ONCE).find(is_its_own).copied();
            found.extend(latest);
        }
        found
    }

    /// Tells of each step whether it is of GenAI work, around some, or below some, by place. A command is around all that it does.
    fn around_work(&self) -> Vec<bool> {
        let is_work = |step: &Step| step.facts.is_genai && !step.facts.is_command;
        let mut around: IdSet<SpanId> = HashSet::default();
        self.steps.iter().filter(|step| is_work(step)).for_each(|step| self.cover(step, &mut around));
        let below = self.downwards(|above: Option<&bool>, step| above == Some(&true) || is_work(step));
        let steps = self.steps.iter().zip(below);
        steps.map(|(step, is_below)| is_below || step.facts.is_command || around.contains(&step.span_id)).collect()
    }

    pub(super) fn tool_calls(&self, copies: &HashMap<usize, usize>) -> u64 {
        let tools = self.steps.iter().enumerate().filter(|(_, step)| step.facts.kind == StepKind::Tool);
        tools.filter(|(place, _)| !copies.contains_key(place)).count() as u64
    }

    /// Adds all above a step to a set, but for agents `apart` that tell what they used themselves: the nearest tells what the step does,
    /// and those above it do not.
    fn cover_beside(&self, step: &Step, apart: &IdSet<SpanId>, covered: &mut Covered) {
        if apart.is_empty() {
            return self.cover(step, &mut covered.spans);
        }
        let mut is_of_another = apart.contains(&step.span_id);
        let mut parent = step.parent;
        // Who comes to where another has been adds nothing from there on, nor does one for whom less is left.
        while let Some(span) = parent
            .filter(|span| !(is_of_another && covered.walked[0].contains(span)))
            .filter(|span| covered.walked[usize::from(is_of_another)].insert(*span))
        {
            let is_apart = apart.contains(&span);
            if !(is_apart && is_of_another) {
                covered.spans.insert(span);
            }
            is_of_another |= is_apart;
            parent = self.by_span.get(&span).and_then(|&place| self.steps[place].parent);
        }
    }

    /// Returns the session of each step, by place: its own, else that of what it is below.
    fn sessions(&self) -> Vec<Option<&str>> {
        self.downwards(|above, step| step.facts.session_id.as_deref().or_else(|| above.copied().flatten()))
    }

    /// Adds all above a step to a set that holds whatever is above each of its members.
    pub(super) fn cover(&self, step: &Step, covered: &mut IdSet<SpanId>) {
        let mut parent = step.parent;
        while let Some(span) = parent.filter(|span| covered.insert(*span)) {
            parent = self.by_span.get(&span).and_then(|&place| self.steps[place].parent);
        }
    }
}

/// Spans above what counts.
#[derive(Debug, Default)]
struct Covered {
    spans: IdSet<SpanId>,
    /// Where walks upwards have been: those that were below no agent of its own use, and those that were below one.
    walked: [IdSet<SpanId>; 2],
}

/// Tells whether a step says of the same time that a call failed, in the words of the call or without any. It may be the work of the
/// call.
fn is_told_again(call: &Step, step: &Step) -> bool {
    let message = |step: &Step| step.facts.error.as_ref().and_then(|error| error.message.clone());
    let says_so = |told: String| message(call).is_some_and(|own| is_said(bare_message(call, &own), &told));
    let is_within = |inner: &Step, outer: &Step| {
        let ends = inner.ended_at.zip(outer.ended_at);
        outer.started_at <= inner.started_at && ends.is_some_and(|(inner, outer)| inner <= outer)
    };
    (is_within(call, step) || is_within(step, call)) && message(step).is_none_or(says_so)
}

/// Returns what a failed step says without the class of its failure before it, as OpenTelemetry writes it in a status.
fn bare_message<'a>(step: &Step, message: &'a str) -> &'a str {
    let class = step.facts.error.as_ref().and_then(|error| error.kind.as_deref()).unwrap_or_default();
    let class = class.rsplit('.').next().unwrap_or_default();
    let rest = message.strip_prefix(class).and_then(|rest| rest.strip_prefix(": "));
    rest.filter(|_| !class.is_empty()).unwrap_or(message)
}

fn is_said(words: &str, told: &str) -> bool {
    !words.is_empty() && told.contains(words)
}

/// What was used, and below which step.
type UsedAt = (Option<SpanId>, [Option<u64>; 5]);

fn used_at(step: &Step) -> UsedAt {
    (step.parent, counts(step.facts.tokens.unwrap_or_default()))
}

fn counts(tokens: Tokens) -> [Option<u64>; 5] {
    let Tokens { prompt, completion, cache_read, cache_write, reasoning, .. } = tokens;
    [prompt, completion, cache_read, cache_write, reasoning]
}

/// Tells whether a provider makes a model, as far as the names of both tell.
fn makes(provider: &str, model: &str) -> bool {
    let begins = |starts: &[&str]| starts.iter().any(|start| model.starts_with(start));
    MAKES.iter().any(|(maker, starts)| *maker == provider && begins(starts)) && !begins(OPEN_MODELS)
}

fn asked(facts: &StepFacts) -> Asked<'_> {
    (facts.provider.as_deref(), facts.request_model.as_deref())
}

/// Returns the model of a call; for one without an answer the model that answered the same request elsewhere in the
/// run, so that `gpt-4o` and `gpt-4o-2024-08-06` are not taken for two.
pub(super) fn known_model<'a>(facts: &'a StepFacts, answered: &IdMap<Asked<'a>, &'a str>) -> Option<&'a str> {
    facts.response_model.as_deref().or_else(|| answered.get(&asked(facts)).copied()).or(facts.model())
}

#[cfg(test)]
mod tests;
