//! Which recorded call a request is, and what became of all of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;

use super::answer::{Answer, Failure, Gap, Outcome};
use super::recording::{ModelCall, Recording, ToolCall};
use super::request::{Difference, Hash, Request};
use crate::model::{ErrorInfo, StepStatus};

/// Answers from a recording, and keeps account of how well it fits. Any number of threads may ask.
#[derive(Debug)]
pub struct Replay {
    recording: Recording,
    /// By the hash of all that was said: the calls, in order.
    by_content: HashMap<Hash, Vec<usize>>,
    /// What each call goes on from: the call whose request is the longest beginning of its own.
    goes_on_from: Vec<Option<usize>>,
    /// So many calls are answered.
    until: usize,
    are_tools_live: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_given: Vec<bool>,
    is_tool_given: Vec<bool>,
    /// Which recorded call a request was that came before, by its hash.
    asked: HashMap<Hash, usize>,
    taken: Vec<Taken>,
    tools: Vec<ToolTaken>,
}

/// How a request fits what was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It says the same.
    Exact,
    /// It stands where the recorded one stood, and says something else.
    Position,
    /// Nothing like it was recorded.
    Unmatched,
    /// The recording was to be left before.
    Beyond,
}

impl Fit {
    /// Returns the word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Position => "position",
            Self::Unmatched => "unmatched",
            Self::Beyond => "live",
        }
    }
}

/// A request, and what it was found to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Taken {
    /// What was asked; without its words where they are those that were recorded.
    pub request: Request,
    /// The recorded call, by its place.
    pub call: Option<usize>,
    /// Its step.
    pub step_id: Option<String>,
    /// How it fits.
    pub fit: Fit,
    /// In what it differs.
    pub differs: Vec<Difference>,
    /// Why there was no answer to it.
    pub gap: Option<Gap>,
    /// The same was asked more often than when it was recorded: the answer was given once more.
    pub is_again: bool,
    /// A model has answered in place of the recording.
    pub is_live: bool,
}

impl Taken {
    /// Tells whether the run is not what was recorded from here on.
    pub fn is_diverged(&self) -> bool {
        match self.fit {
            Fit::Beyond => false,
            Fit::Exact => self.gap.is_some() || self.is_again,
            Fit::Position | Fit::Unmatched => true,
        }
    }

    /// Tells whether its answer came from the recording.
    pub fn is_reused(&self) -> bool {
        self.call.is_some() && self.gap.is_none() && self.fit != Fit::Beyond && !self.is_live
    }
}

/// A tool that was asked for, and what it was found to be.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ToolTaken {
    /// The tool.
    pub name: String,
    /// What it was to be given.
    pub arguments: Json,
    /// The recorded call, by its place.
    pub call: Option<usize>,
    /// How it fits.
    pub fit: Fit,
    /// It was run.
    pub is_live: bool,
}

/// What was found for a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Found {
    /// Its number among all requests, from 0.
    pub number: usize,
    /// What to answer.
    pub outcome: Result<Outcome, Miss>,
}

/// Why there is nothing to answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Nothing like it was recorded.
    Unmatched,
    /// It was recorded without an answer: the step, and the reason.
    Gap(String, Gap),
    /// The recording was to be left before.
    Beyond,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmatched => f.write_str("the recording has no such call"),
            Self::Gap(step, gap) => write!(f, "the recording has no answer to step {step}: {gap}"),
            Self::Beyond => f.write_str("the recording was to be left before this call"),
        }
    }
}

/// Why a call was not answered.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum NotAnswered {
    /// The recording has no answer.
    Miss(Miss),
    /// It failed when it was recorded.
    Failed(Failure),
    /// The tool failed when it was recorded.
    ToolFailed(ErrorInfo),
}

impl fmt::Display for NotAnswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Miss(miss) => miss.fmt(f),
            Self::Failed(failure) => write!(f, "the recorded call failed: {failure}"),
            Self::ToolFailed(error) => {
                write!(
                    f,
                    "the recorded tool failed: {}",
                    error.message.as_deref().or(error.kind.as_deref()).unwrap_or("error")
                )
            }
        }
    }
}

impl std::error::Error for NotAnswered {}

/// A recorded call that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOver {
    /// Its place among the recorded calls.
    pub call: usize,
    /// Its step.
    pub step_id: String,
}

/// What became of all calls.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Requests, in the order in which they came.
    pub taken: Vec<Taken>,
    /// Tools that were asked for here; those of a program of its own run there and are not known.
    pub tools: Vec<ToolTaken>,
    /// Recorded calls that nobody asked for, until the recording was left.
    pub left_over: Vec<LeftOver>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_diverged() {
            return write!(f, "as recorded: {} answers reused", self.reused());
        }
        f.write_str("diverged")?;
        for taken in self.taken.iter().filter(|taken| taken.is_diverged()) {
            let step = taken.step_id.as_deref().unwrap_or("a call that was not recorded");
            write!(f, "\n{step}:")?;
            let differs = taken.differs.iter().map(ToString::to_string);
            let gap = taken.gap.map(|gap| gap.to_string());
            let again = taken.is_again.then(|| "asked more often than recorded".to_owned());
            let words: Vec<String> = differs.chain(gap).chain(again).collect();
            write!(f, " {}\n{}", words.join(", "), taken.request.text())?;
        }
        for tool in self.tools.iter().filter(|tool| tool.fit != Fit::Exact) {
            write!(f, "\nthe tool {} was not called with {} when it was recorded", tool.name, tool.arguments)?;
        }
        for left in &self.left_over {
            write!(f, "\n{} was recorded, and not asked for", left.step_id)?;
        }
        Ok(())
    }
}

impl Report {
    /// Tells whether anything went otherwise than recorded.
    pub fn is_diverged(&self) -> bool {
        !self.left_over.is_empty()
            || self.taken.iter().any(Taken::is_diverged)
            || self.tools.iter().any(|tool| tool.fit != Fit::Exact)
    }

    /// Returns how many answers came from the recording.
    pub fn reused(&self) -> usize {
        self.taken.iter().filter(|taken| taken.is_reused()).count()
    }

    /// Counts requests that fit in some way.
    pub fn count(&self, fit: Fit) -> usize {
        self.taken.iter().filter(|taken| taken.fit == fit).count()
    }
}

impl Replay {
    /// Begins to answer from a recording.
    pub fn new(recording: Recording) -> Self {
        let mut by_content: HashMap<Hash, Vec<usize>> = HashMap::new();
        for (at, call) in recording.calls().iter().enumerate() {
            if let Some(hash) = call.request.content() {
                by_content.entry(hash).or_default().push(at);
            }
        }
        let goes_on_from = recording.calls().iter().enumerate().map(|(at, call)| {
            let by_id = call.request.previous().and_then(|id| answered_by(&recording, id));
            let by_content = || {
                let same = call.request.beginnings().find_map(|hash| by_content.get(hash))?;
                same.iter().rev().find(|other| **other < at).or(same.first()).copied()
            };
            by_id.or_else(by_content)
        });
        let goes_on_from = goes_on_from.collect();
        let state = State {
            is_given: vec![false; recording.calls().len()],
            is_tool_given: vec![false; recording.tools().len()],
            ..State::default()
        };
        let until = recording.calls().len();
        Self { recording, by_content, goes_on_from, until, are_tools_live: false, state: Mutex::new(state) }
    }

    /// Answers only the first calls, so many; what comes after them is [`Miss::Beyond`].
    #[must_use]
    pub fn until(self, calls: usize) -> Self {
        Self { until: calls, ..self }
    }

    /// Lets tools that the recording does not know run for real, in [`tool_or`](Self::tool_or).
    #[must_use]
    pub fn allow_tools(self) -> Self {
        Self { are_tools_live: true, ..self }
    }

    /// Tells whether not all that was recorded is answered.
    pub fn is_left_early(&self) -> bool {
        self.until < self.recording.calls().len()
    }

    /// Returns what is answered from.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Finds what a request is in the recording, and takes note of it.
    pub fn find(&self, request: Request) -> Found {
        self.find_in(&mut self.state(), request)
    }

    fn find_in(&self, state: &mut State, request: Request) -> Found {
        let number = state.taken.len();
        let (call, fit, is_again) = self.place_of(&request, state);
        let (call, fit) = match call {
            Some(at) if at >= self.until => (None, Fit::Beyond),
            None if self.until < self.recording.calls().len() && self.is_left(state) => (None, Fit::Beyond),
            call => (call, fit),
        };
        let recorded = call.map(|at| &self.recording.calls()[at]);
        let differs = recorded.map(|recorded| recorded.request.differences(&request)).unwrap_or_default();
        // What was asked otherwise is at its place only.
        let fit = if fit == Fit::Exact && !differs.is_empty() { Fit::Position } else { fit };
        let outcome = match (fit, recorded) {
            (Fit::Beyond, _) => Err(Miss::Beyond),
            (_, None) => Err(Miss::Unmatched),
            (_, Some(recorded)) => recorded.outcome.clone().map_err(|gap| Miss::Gap(recorded.step_id.clone(), gap)),
        };
        if let Some(at) = call {
            state.is_given[at] = true;
            state.asked.extend(request.content().map(|hash| (hash, at)));
        }
        let gap = recorded.and_then(|recorded| recorded.outcome.as_ref().err().copied());
        let step_id = recorded.map(|recorded| recorded.step_id.clone());
        // Each call repeats its conversation: many of them would take much memory.
        let request = if fit == Fit::Exact { request.without_words() } else { request };
        state.taken.push(Taken { request, call, step_id, fit, differs, gap, is_again, is_live: false });
        Found { number, outcome }
    }

    /// Tells whether the same was recorded.
    pub fn knows(&self, request: &Request) -> bool {
        request.content().is_some_and(|hash| self.by_content.contains_key(&hash))
    }

    /// Takes note that the beginning of a stream does not answer a request, which asks for none, and returns why.
    pub fn has_only_begun(&self, number: usize) -> Miss {
        let gap = Gap::NotAnswered(StepStatus::Cancelled);
        let mut state = self.state();
        let Some(taken) = state.taken.get_mut(number) else { return Miss::Unmatched };
        taken.gap = Some(gap);
        Miss::Gap(taken.step_id.clone().unwrap_or_default(), gap)
    }

    /// Takes note that a model has answered a request after all.
    pub fn went_live(&self, number: usize) {
        if let Some(taken) = self.state().taken.get_mut(number) {
            taken.is_live = true;
        }
    }

    /// Returns the recorded answer to a request: by its content, else by its place.
    ///
    /// # Errors
    ///
    /// When there is none, with the reason, or the recorded call failed.
    pub fn ask(&self, request: &Request) -> Result<Answer, NotAnswered> {
        answer_of(self.find(request.clone()).outcome)
    }

    /// Returns the answer to the first recorded call that was not asked for yet, whatever was asked.
    ///
    /// # Errors
    ///
    /// When there is none left, the recording has no answer to it, or it failed.
    pub fn next_answer(&self) -> Result<Answer, NotAnswered> {
        // Looked for and taken as one: of two threads that ask, each is given its own.
        let mut state = self.state();
        let next = state.is_given.iter().position(|is_given| !is_given).filter(|at| *at < self.until);
        let Some(at) = next else { return Err(NotAnswered::Miss(Miss::Unmatched)) };
        let request = self.recording.calls()[at].request.clone();
        answer_of(self.find_in(&mut state, request).outcome)
    }

    /// Returns what a tool gave back when it was recorded: of the calls with these arguments the first that was not given
    /// yet, else the last again.
    ///
    /// # Errors
    ///
    /// When the recording has no such call or no result of it, or the tool failed.
    pub fn tool(&self, name: &str, arguments: &Json) -> Result<Json, NotAnswered> {
        match self.tool_in_recording(name, arguments).1 {
            Some(call) => recorded_result(call),
            None => Err(NotAnswered::Miss(Miss::Unmatched)),
        }
    }

    /// Does the same, and runs the tool where the recording has no such call and [`allow_tools`](Self::allow_tools) was
    /// said.
    ///
    /// # Errors
    ///
    /// As [`tool`](Self::tool).
    pub fn tool_or(&self, name: &str, arguments: &Json, run: impl FnOnce() -> Json) -> Result<Json, NotAnswered> {
        let (number, call) = self.tool_in_recording(name, arguments);
        match call {
            Some(call) if call.outcome.is_ok() || !self.are_tools_live => recorded_result(call),
            None if !self.are_tools_live => Err(NotAnswered::Miss(Miss::Unmatched)),
            _ => {
                if let Some(taken) = self.state().tools.get_mut(number) {
                    taken.is_live = true;
                }
                Ok(run())
            }
        }
    }

    /// Returns what became of all calls so far.
    pub fn report(&self) -> Report {
        let state = self.state();
        let left_over = state.is_given.iter().enumerate().take(self.until).filter(|(_, is_given)| !**is_given);
        let left_over =
            left_over.map(|(call, _)| LeftOver { call, step_id: self.recording.calls()[call].step_id.clone() });
        Report { taken: state.taken.clone(), tools: state.tools.clone(), left_over: left_over.collect() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether the last call that is answered was asked for.
    fn is_left(&self, state: &State) -> bool {
        self.until.checked_sub(1).is_none_or(|last| state.is_given.get(last).copied().unwrap_or(true))
    }

    /// Returns the number of the asking among all, from 0, and the call.
    fn tool_in_recording(&self, name: &str, arguments: &Json) -> (usize, Option<&ToolCall>) {
        let mut state = self.state();
        let number = state.tools.len();
        let same = self.recording.tools().iter().enumerate().filter(|(_, tool)| tool.is(name, arguments));
        let same: Vec<usize> = same.map(|(at, _)| at).collect();
        let call = same.iter().find(|at| !state.is_tool_given[**at]).or(same.last()).copied();
        if let Some(at) = call {
            state.is_tool_given[at] = true;
        }
        let fit = if call.is_some() { Fit::Exact } else { Fit::Unmatched };
        state.tools.push(ToolTaken { name: name.to_owned(), arguments: arguments.clone(), call, fit, is_live: false });
        (number, call.and_then(|at| self.recording.tools().get(at)))
    }

    /// Finds the place of a request: by content, else in its conversation. Says how it fits, and whether that answer was
    /// given before.
    fn place_of(&self, request: &Request, state: &State) -> (Option<usize>, Fit, bool) {
        let same = request.content().and_then(|hash| self.by_content.get(&hash));
        if let Some(same) = same {
            let call = |at: &usize| &self.recording.calls()[*at];
            // One prompt for several models is as many calls. What was not answered was tried again then, too.
            let fits = |at: &usize| (call(at).outcome.is_ok(), call(at).request.differences(request).is_empty());
            let best = |best: usize, next: usize| if fits(&next) > fits(&best) { next } else { best };
            let fresh = same.iter().copied().filter(|at| !state.is_given[*at]).reduce(best);
            let Some(at) = fresh else {
                let again = same.iter().rev().copied().reduce(best);
                // What had failed is tried again by clients themselves, of which those that call them tell nothing. On
                // its way each time was seen.
                let is_untold =
                    |call: &ModelCall| matches!(call.outcome, Ok(Outcome::Failure(_))) && !call.is_relayed();
                return (again, Fit::Exact, !again.is_some_and(|at| is_untold(call(&at))));
            };
            return (Some(at), Fit::Exact, false);
        }
        let call = self.by_position(request, state);
        (call, if call.is_some() { Fit::Position } else { Fit::Unmatched }, false)
    }

    fn by_position(&self, request: &Request, state: &State) -> Option<usize> {
        let calls = self.recording.calls();
        let by_id = request.previous().and_then(|id| answered_by(&self.recording, id));
        let before = by_id.or_else(|| request.beginnings().find_map(|hash| state.asked.get(hash)).copied());
        let is_open = |at: &usize| !state.is_given[*at] && calls[*at].kind == request.kind();
        let those = |wanted: &dyn Fn(Option<usize>) -> bool| -> Vec<usize> {
            (0..calls.len()).filter(is_open).filter(|at| wanted(self.goes_on_from[*at])).collect()
        };
        let candidates = match before {
            Some(before) => those(&|from| from == Some(before)),
            None => {
                let begins = those(&|from| from.is_none());
                // A conversation that was begun anew in the middle: what is open at all.
                if begins.is_empty() { those(&|_| true) } else { begins }
            }
        };
        let likeness = |at: &usize| calls[*at].request.likeness(request);
        // Of equals the first.
        candidates.into_iter().reduce(|best, next| if likeness(&next) > likeness(&best) { next } else { best })
    }
}

/// Finds the call that was answered under an id.
fn answered_by(recording: &Recording, id: &str) -> Option<usize> {
    recording.calls().iter().position(|call: &ModelCall| match &call.outcome {
        Ok(Outcome::Answer(answer)) => answer.original_id() == Some(id),
        Ok(Outcome::Left { .. } | Outcome::Failure(_)) | Err(_) => false,
    })
}

fn answer_of(outcome: Result<Outcome, Miss>) -> Result<Answer, NotAnswered> {
    match outcome {
        Ok(Outcome::Answer(answer) | Outcome::Left { answer, .. }) => Ok(*answer),
        Ok(Outcome::Failure(failure)) => Err(NotAnswered::Failed(failure)),
        Err(miss) => Err(NotAnswered::Miss(miss)),
    }
}

fn recorded_result(call: &ToolCall) -> Result<Json, NotAnswered> {
    match &call.outcome {
        Ok(Ok(result)) => Ok(result.clone()),
        Ok(Err(error)) => Err(NotAnswered::ToolFailed(error.clone())),
        Err(gap) => Err(NotAnswered::Miss(Miss::Gap(call.step_id.clone(), *gap))),
    }
}
