//! How a run ended, and why: by its root, else by what failed last and was not mended.

use std::collections::HashMap;

use super::{CRASHED_STEP, RunState, Step, is_failure};
use crate::conventions::names;
use crate::model::id::IdSet;
use crate::model::{ErrorInfo, RunStatus, SpanId, StepKind, StepStatus, UnixNanos};

impl RunState {
    /// Returns how the run stands.
    pub fn status(&self) -> RunStatus {
        if let Some(status) = self.set_status {
            return status;
        }
        if self.waiting.is_some() {
            return RunStatus::Waiting;
        }
        if !self.roots_ended() {
            return RunStatus::Running;
        }
        let root = self.root().map_or(StepStatus::Success, |root| root.status);
        match root {
            StepStatus::Error => RunStatus::Error,
            StepStatus::Timeout => RunStatus::Timeout,
            // That it was left may be read out of what a failure says as well; a call that failed in the end is the reason then.
            StepStatus::Cancelled => {
                match self.last_failure().filter(|_| self.root().is_some_and(|root| root.facts.ends_in_either)) {
                    Some(StepStatus::Error) => RunStatus::Error,
                    Some(StepStatus::Timeout) => RunStatus::Timeout,
                    _ => RunStatus::Cancelled,
                }
            }
            StepStatus::Crashed => RunStatus::Crashed,
            StepStatus::Success | StepStatus::Running => {
                let last = self.last_failure().or_else(|| self.failed_agent().map(|agent| agent.status));
                let last = last.or_else(|| self.last_was_dealt_with().then_some(StepStatus::Error));
                last.map_or(RunStatus::Success, |last| match last {
                    StepStatus::Timeout => RunStatus::Timeout,
                    StepStatus::Cancelled => RunStatus::Cancelled,
                    _ => RunStatus::Error,
                })
            }
        }
    }

    /// Returns how the last model call ended where it failed and nothing succeeded after it: some emitters leave the root's
    /// status unset, or say that all is well, whatever happened below.
    pub(super) fn last_failure(&self) -> Option<StepStatus> {
        let roots: IdSet<SpanId> = self.roots().map(|root| root.span_id).collect();
        let copies = &self.sums().copies;
        let calls =
            self.steps.iter().enumerate().filter(|(place, step)| step.facts.billed && !copies.contains_key(place));
        let until = self.told_end();
        let calls = calls.filter(|(_, step)| until.is_none_or(|until| step.started_at <= until));
        let (counts, call) = last_of(calls.collect())?;
        // A layer's word for a call without an answer says less of how it ended than that of the client below it.
        let is_answered = || call.facts.tokens.is_some() || call.facts.response_id.is_some();
        let told_below = || {
            let words = copies.iter().filter(|(_, of)| **of == counts).map(|(copy, _)| &self.steps[*copy]);
            words.filter(|word| is_failure(word.status)).max_by_key(|word| (word.ended_at, word.span_id))
        };
        let call = match is_failure(call.status) {
            true => call,
            false if is_answered() => return None,
            false => told_below()?,
        };
        let enclosing = self.ancestors(call);
        // Nothing done in the program's own step for a request mends what that step says to have failed.
        let in_failed = if call.facts.is_relayed { self.in_failed_calls(call) } else { Vec::new() };
        let is_recovered = self.steps.iter().enumerate().any(|(place, step)| {
            step.status == StepStatus::Success
                && in_failed.get(place) != Some(&true)
                && place != counts
                && copies.get(&place) != Some(&counts)
                && step.started_at >= call.started_at
                && step.ended_at > call.ended_at
                && !roots.contains(&step.span_id)
                && !enclosing.contains(&step.span_id)
        });
        // That a call was given up may be read out of its silence alone. A failure that is told around it is the reason.
        let around = self.steps.iter().filter(|step| enclosing.contains(&step.span_id) && is_failure(step.status));
        let reason = around.max_by_key(|step| step.started_at).filter(|_| seems_given_up(call));
        (!is_recovered).then_some(reason.unwrap_or(call).status)
    }

    /// Tells whether the last call does not tell that it failed, and what the program did about such does.
    fn last_was_dealt_with(&self) -> bool {
        let dealt_with = self.dealt_with();
        let calls = self.steps.iter().enumerate().filter(|(_, step)| step.facts.billed);
        let last = calls.max_by_key(|(_, step)| (step.ended_at, step.span_id));
        last.is_some_and(|(place, _)| dealt_with.contains_key(&place))
    }

    /// Tells of each step whether it is below a call of the program's that failed, and in whose time this request was passed on, by place.
    fn in_failed_calls(&self, request: &Step) -> Vec<bool> {
        let is_around = |step: &Step| {
            let is_own = step.facts.billed && !step.facts.is_relayed && is_failure(step.status);
            is_own && step.started_at <= request.started_at && step.ended_at >= request.ended_at
        };
        let around: IdSet<SpanId> = self.steps.iter().filter(|step| is_around(step)).map(|step| step.span_id).collect();
        if around.is_empty() {
            return Vec::new();
        }
        let is_below = |step: &Step| step.parent.is_some_and(|parent| around.contains(&parent));
        self.downwards(|above: Option<&bool>, step| above == Some(&true) || is_below(step))
    }

    /// Returns when the run's root ended, if its author declared it to have gone well: what begins later, and still bears its context,
    /// does not decide how the run ended.
    pub(super) fn told_end(&self) -> Option<UnixNanos> {
        let is_run = |root: &&Step| matches!(root.facts.kind, StepKind::Agent | StepKind::Workflow);
        let root = self.root().filter(is_run).filter(|root| root.facts.is_declared_well && !is_failure(root.status))?;
        root.ended_at
    }

    /// Returns the agent, or the part of one, or the tool that ended it, that failed last below a root that says nothing of failures,
    /// where that was not given to a model as the answer of a tool and nothing succeeded after it.
    pub(super) fn failed_agent(&self) -> Option<&Step> {
        self.root().filter(|root| root.facts.is_always_well && !is_failure(root.status))?;
        // Turns have many names, and a program's own span among them none that tells it apart.
        let until = self.told_end();
        let is_part = |step: &&Step| {
            step.facts.is_always_well
                && (matches!(step.facts.kind, StepKind::Agent | StepKind::Task) || step.facts.ends_agent)
                && is_failure(step.status)
                && until.is_none_or(|until| step.started_at <= until)
        };
        let failed = self.steps.iter().filter(is_part).max_by_key(|step| (step.ended_at, step.started_at))?;
        let enclosing = self.ancestors(failed);
        let below: Vec<bool> =
            self.downwards(|above: Option<&bool>, step| above == Some(&true) || step.span_id == failed.span_id);
        let well = self.steps.iter().zip(below).filter(|(step, _)| step.status == StepStatus::Success);
        let is_recovered = well.into_iter().any(|(step, is_below)| {
            let is_around = enclosing.contains(&step.span_id);
            let is_after = step.ended_at > failed.ended_at && step.facts.kind != StepKind::Task;
            match step.facts.kind {
                StepKind::Tool if is_around => true,
                _ => is_after && !is_around && !is_below,
            }
        });
        (!is_recovered).then_some(failed)
    }

    pub(super) fn error(&self, status: RunStatus) -> Option<ErrorInfo> {
        if !matches!(status, RunStatus::Error | RunStatus::Timeout | RunStatus::Cancelled | RunStatus::Crashed) {
            return None;
        }
        let root = self.root()?;
        let root = if self.set_status.is_none() && self.last_failure().is_none() {
            self.failed_agent().unwrap_or(root)
        } else {
            root
        };
        // The innermost failed step that says why and ended last says most about it; of layers' words for one call those of
        // the one that counts, unless that has a class alone: it says less than a message.
        let copies = &self.sums().copies;
        // What failed otherwise is no reason to stop.
        let is_of_kind = |step: &Step| status != RunStatus::Cancelled || step.status == StepStatus::Cancelled;
        let until = self.told_end();
        let is_in_time = |step: &Step| until.is_none_or(|until| step.started_at <= until);
        let is_culprit = |step: &Step| is_failure(step.status) && is_of_kind(step) && is_in_time(step);
        let failed = || (0..self.steps.len()).filter(|place| is_culprit(&self.steps[*place]));
        let error_of = |place: usize| self.steps[place].error();
        let has_message = |place: usize| error_of(place).is_some_and(|error| error.message.is_some());
        let says_why = |place: usize| has_message(place) || error_of(place).is_some_and(|error| error.kind.is_some());
        let depths = self
            .downwards(|above: Option<&u32>, step| above.map_or(u32::from(step.parent.is_some()), |depth| depth + 1));
        let most = |place: &usize| {
            (says_why(*place), depths[*place], !copies.contains_key(place), self.steps[*place].ended_at)
        };
        let call_of = |place: usize| copies.get(&place).copied().unwrap_or(place);
        let says_more = |culprit: usize| {
            let is_same_call = |place: &usize| call_of(*place) == call_of(culprit) && has_message(*place);
            failed().filter(is_same_call).max_by_key(most).filter(|_| !has_message(culprit))
        };
        let culprit = failed().max_by_key(most).map(|place| &self.steps[says_more(place).unwrap_or(place)]);
        if status == RunStatus::Crashed {
            // Who watched the process may know better than that its steps were left open.
            let told = root.error().and_then(|error| error.message.clone());
            let told = told.filter(|message| root.status == StepStatus::Crashed && message != CRASHED_STEP);
            return Some(ErrorInfo {
                kind: Some("crashed".to_owned()),
                message: told.or_else(|| Some("the process ended while the run was under way".to_owned())),
                step_id: culprit.map(|step| step.step_id.clone()),
            });
        }
        // The root often passes on what went wrong below it; then the step below is the one to look at.
        let passes_on = |own: &ErrorInfo, below: &ErrorInfo| {
            let same_kind = own.kind.is_some() && own.kind == below.kind;
            let told = own.message.as_deref().zip(below.message.as_deref());
            same_kind || told.is_some_and(|(own, below)| own.contains(below))
        };
        let own = root.error().cloned().filter(has_words);
        // Of one that was asked to end its code may have said nothing more.
        let asked = || ErrorInfo {
            kind: Some("cancelled".to_owned()),
            message: Some("it was asked to end".to_owned()),
            step_id: None,
        };
        let own = own.or_else(|| (self.set_status == Some(RunStatus::Cancelled)).then(asked));
        let below = culprit.and_then(|step| step.error().cloned());
        // A plain step that gives no reason, as the request to a web server, has failed for what gives one.
        let has_reason = |error: &Option<ErrorInfo>| error.as_ref().is_some_and(|error| error.message.is_some());
        let is_told_below = root.facts.kind == StepKind::Task && has_reason(&below);
        let own = own.filter(|own| own.message.is_some() || !is_told_below);
        // One of which only the class is told ended as its last call did.
        let is_of_call = culprit.is_some_and(|step| step.facts.billed) && self.last_failure().is_some();
        let said = || below.as_ref().filter(|_| is_of_call)?.message.clone();
        let own = own.map(|own| ErrorInfo { message: own.message.clone().or_else(said), ..own });
        // A class for any failure gives way to that of the call, where it is the failure of that.
        let class = || below.as_ref().filter(|_| is_of_call)?.kind.clone();
        let is_of_below =
            |own: &ErrorInfo| own.message.is_none() || below.as_ref().is_some_and(|below| passes_on(own, below));
        let is_any = |own: &ErrorInfo| own.kind.as_deref() == Some(names::ERROR_TYPE_OTHER) && is_of_below(own);
        let own = own.map(|own| if is_any(&own) { ErrorInfo { kind: class().or(own.kind), ..own } } else { own });
        let names_culprit = own.as_ref().zip(below.as_ref()).is_none_or(|(own, below)| passes_on(own, below));
        let mut error = own.or(below).unwrap_or_default();
        let named = root.facts.error_span.and_then(|span| self.by_span.get(&span)).map(|place| &self.steps[*place]);
        let step = named.or(culprit.filter(|_| names_culprit)).unwrap_or(root);
        error.step_id = Some(step.step_id.clone());
        Some(error)
    }
}

/// What passes between the beginnings of calls that a program makes side by side, in nanoseconds.
const SIDE_BY_SIDE: u64 = 50_000_000;
/// What passes between the end of a function's last call and its own, as which it lets go of what it holds, in nanoseconds.
const LET_GO: u64 = 10_000_000;

/// Returns the call that ended last.
///
/// A stream that nobody reads on may be ended only as the program lets go of it, long after the calls that it made next: as the last of
/// them has come back. One that seems to have been given up and ended so was given up before. What is asked of another model in a
/// stream's time, or began at once with it, is made side by side with it, and the user may give that up at any time.
fn last_of(calls: Vec<(usize, &Step)>) -> Option<(usize, &Step)> {
    let last = calls.iter().max_by_key(|(_, step)| step.ended_at)?;
    if !seems_given_up(last.1) {
        return Some(*last);
    }
    let mut next = HashMap::<_, Vec<_>>::new();
    for (_, step) in calls.iter().filter(|(_, step)| step.parent.is_some() && !seems_given_up(step)) {
        if let Some((end, model)) = step.ended_at.zip(model_of(step)) {
            next.entry((step.parent, model)).or_default().push((end, step.started_at));
        }
    }
    next.values_mut().for_each(|calls| calls.sort_unstable());
    let went_on = |step: &Step| {
        let (end, model) = step.ended_at.filter(|_| seems_given_up(step)).zip(model_of(step))?;
        let calls = next.get(&(step.parent, model))?;
        let (back, begun) = *calls[..calls.partition_point(|(back, _)| *back <= end)].last()?;
        let is_next = begun.0.saturating_sub(step.started_at.0) > SIDE_BY_SIDE;
        (is_next && end.0.saturating_sub(back.0) <= LET_GO).then_some(step.started_at)
    };
    calls.into_iter().max_by_key(|(_, step)| went_on(step).or(step.ended_at))
}

/// Returns the language model that was asked.
fn model_of(call: &Step) -> Option<&str> {
    call.facts.request_model.as_deref().filter(|_| call.facts.kind == StepKind::Llm)
}

/// Tells whether a call was given up as far as its silence tells.
fn seems_given_up(call: &Step) -> bool {
    call.status == StepStatus::Cancelled && !call.error().is_some_and(has_words)
}

/// Tells whether an error has words. Who gives up has none to say.
pub(super) fn has_words(error: &ErrorInfo) -> bool {
    error.kind.is_some() || error.message.is_some()
}
