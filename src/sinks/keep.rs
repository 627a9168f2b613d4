//! Which runs are forwarded. The store has every run, whatever stands here.
#![cfg_attr(not(feature = "forward"), allow(dead_code, reason = "only forwarders ask what is decided"))]

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::model::time::parse_duration;
use crate::model::{NanoUsd, RunStatus, RunSummary, TraceId};

/// Rules for what is forwarded, decided for each run when it is over.
///
/// By default everything is. With rules, a run is forwarded if any of them says so: it ended badly, it cost too much,
/// it took too long, or its trace is among a ratio of all. A trace that is no run is judged by the ratio alone.
///
/// ```
/// use std::time::Duration;
/// use runspan::Keep;
///
/// let keep = Keep::rules().errors().cost_over_usd(0.5).slower_than(Duration::from_secs(30)).ratio(0.1);
/// assert_eq!("errors,cost>0.5,slow>30s,ratio=0.1".parse(), Ok(keep));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// `None`: everything.
    rules: Option<Rules>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules {
    errors: bool,
    cost_over: Option<NanoUsd>,
    slower_than: Option<Duration>,
    rest: Ratio,
}

impl Keep {
    /// Forwards everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// Forwards nothing but what the rules added next say.
    pub fn rules() -> Self {
        Self { rules: Some(Rules { errors: false, cost_over: None, slower_than: None, rest: Ratio::NONE }) }
    }

    /// Forwards runs that end as `error`, `timeout` or `crashed`. Failures that a run recovered from do not count.
    pub fn errors(self) -> Self {
        self.with(|rules| rules.errors = true)
    }

    /// Forwards runs that cost more than this, in US dollars. An amount that is no amount changes nothing.
    pub fn cost_over_usd(self, usd: f64) -> Self {
        self.with(|rules| rules.cost_over = NanoUsd::from_usd(usd).or(rules.cost_over))
    }

    /// Forwards runs that took longer than this.
    pub fn slower_than(self, limit: Duration) -> Self {
        self.with(|rules| rules.slower_than = Some(limit))
    }

    /// Forwards this share of all traces, from 0 to 1, chosen by trace id as OpenTelemetry's SDKs choose.
    pub fn ratio(self, ratio: f64) -> Self {
        self.with(|rules| rules.rest = Ratio::new(ratio.clamp(0.0, 1.0)).unwrap_or(rules.rest))
    }

    /// Tells whether everything is forwarded.
    pub fn is_all(&self) -> bool {
        self.rules.is_none()
    }

    fn with(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        if let Some(rules) = &mut self.rules {
            change(rules);
        }
        self
    }

    /// Tells whether a trace is forwarded whatever its runs come to.
    pub(crate) fn always_keeps(&self, trace: TraceId) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.rest.holds(trace))
    }

    /// Tells whether a run that is over is forwarded for its own sake, the ratio aside.
    pub(crate) fn keeps_run(&self, run: &RunSummary) -> bool {
        let Some(rules) = &self.rules else { return true };
        let failed = matches!(run.status, RunStatus::Error | RunStatus::Timeout | RunStatus::Crashed);
        let over = |limit| run.cost_usd.is_some_and(|cost| cost > limit);
        let slower = |limit: Duration| run.duration_ms.is_some_and(|took| u128::from(took) > limit.as_millis());
        (rules.errors && failed) || rules.cost_over.is_some_and(over) || rules.slower_than.is_some_and(slower)
    }
}

/// A text that is no rule for what is forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadKeep {
    /// The part that is not understood.
    part: String,
}

impl fmt::Display for BadKeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not all, or some of errors, cost>USD, slow>TIME (as in 30s), ratio=0.1", self.part)
    }
}

impl std::error::Error for BadKeep {}

impl FromStr for Keep {
    type Err = BadKeep;

    /// Reads `all`, or rules with commas between them: `errors,cost>0.5,slow>30s,ratio=0.1`.
    fn from_str(text: &str) -> Result<Self, BadKeep> {
        if text.trim().eq_ignore_ascii_case("all") {
            return Ok(Self::all());
        }
        let read = |keep: Self, part: &str| -> Option<Self> {
            let (rule, value) = match part.split_once(['>', '=']) {
                Some((rule, value)) => (format!("{}{}", rule.trim(), &part[rule.len()..=rule.len()]), value.trim()),
                None => (part.to_owned(), ""),
            };
            match rule.to_ascii_lowercase().as_str() {
                "errors" => Some(keep.errors()),
                "cost>" => {
                    let usd = value.parse::<f64>().ok().filter(|usd| *usd >= 0.0)?;
                    NanoUsd::from_usd(usd).map(|_| keep.cost_over_usd(usd))
                }
                "slow>" => Some(keep.slower_than(parse_duration(value)?)),
                "ratio=" => Ratio::parse(value).map(|ratio| keep.with(|rules| rules.rest = ratio)),
                _ => None,
            }
        };
        text.split(',').map(str::trim).try_fold(Self::rules(), |keep, part| {
            read(keep, part).ok_or_else(|| BadKeep { part: part.chars().take(40).collect() })
        })
    }
}

/// A share of all traces. Who has the same share chooses the same traces, in whatever process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ratio {
    /// Of the low 63 bits that a trace id is random in, those below this.
    bound: u64,
}

impl Ratio {
    pub const NONE: Self = Self { bound: 0 };
    pub const ALL: Self = Self { bound: 1 << 63 };

    /// Makes one of a number from 0 to 1.
    pub fn new(ratio: f64) -> Option<Self> {
        // As OpenTelemetry's SDKs for Rust and Go compute it.
        let bound = (ratio * (1u64 << 63) as f64) as u64;
        (0.0..=1.0).contains(&ratio).then_some(Self { bound })
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::new(text.parse().ok()?)
    }

    /// Tells whether a trace is among them.
    pub fn holds(self, trace: TraceId) -> bool {
        let [.., a, b, c, d, e, f, g, h] = trace.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < self.bound
    }
}

/// So many traces are remembered to be kept while readers are behind; beyond them all are kept.
const MAX_KEPT: usize = 1 << 16;
/// So many are remembered for spans that come late, when all readers have passed.
const LATE_KEPT: usize = 1 << 12;

/// What the worker knows of the runs of its process, for those who decide what is forwarded.
#[derive(Debug)]
pub(crate) struct Board {
    keep: Keep,
    inner: Mutex<Posted>,
}

#[derive(Debug, Default)]
struct Posted {
    /// Every frame of the journal up to here has found its run, or has none.
    through: u64,
    /// Traces with a run that is under way.
    open: HashSet<TraceId>,
    /// Traces that are kept for the sake of a run.
    kept: HashSet<TraceId>,
    /// The same in the order in which that was decided, with `through` at that moment.
    order: VecDeque<(u64, TraceId)>,
    /// How far each reader is.
    readers: BTreeMap<String, u64>,
}

impl Board {
    pub fn new(keep: Keep) -> Self {
        Self { keep, inner: Mutex::default() }
    }

    /// Tells whether nobody needs to be told anything.
    pub fn is_idle(&self) -> bool {
        self.keep.is_all()
    }

    fn posted(&self) -> std::sync::MutexGuard<'_, Posted> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which runs ended, then which are under way and up to where that is all.
    pub fn post(&self, ended: &[RunSummary], open: Option<HashSet<TraceId>>, through: u64) {
        let mut posted = self.posted();
        for run in ended.iter().filter(|run| self.keep.keeps_run(run)) {
            posted.keep(run.trace_id);
        }
        if let Some(open) = open {
            (posted.open, posted.through) = (open, through);
        }
    }

    /// Keeps a trace, as an earlier process decided.
    pub fn keep(&self, trace: TraceId) {
        self.posted().keep(trace);
    }

    /// Keeps the trace of the span at `seq` if its run is under way; `false` while that is not known.
    pub fn keep_early(&self, trace: TraceId, seq: u64) -> bool {
        let mut posted = self.posted();
        let is_known = seq <= posted.through;
        if is_known && posted.open.contains(&trace) {
            posted.keep(trace);
        }
        is_known
    }

    /// Notes that a reader needs nothing before `seq` any more.
    pub fn passed(&self, reader: &str, seq: u64) {
        let mut posted = self.posted();
        posted.readers.insert(reader.to_owned(), seq);
        let slowest = posted.readers.values().copied().min().unwrap_or(0);
        while posted.order.len() > LATE_KEPT && posted.order.front().is_some_and(|(at, _)| *at < slowest) {
            if let Some((_, trace)) = posted.order.pop_front() {
                posted.kept.remove(&trace);
            }
        }
    }

    /// Tells whether the span at `seq` of a trace is forwarded; `None` while that is not decided.
    pub fn decide(&self, trace: TraceId, seq: u64) -> Option<bool> {
        if self.keep.always_keeps(trace) {
            return Some(true);
        }
        let posted = self.posted();
        if posted.kept.contains(&trace) || posted.kept.len() >= MAX_KEPT {
            return Some(true);
        }
        (seq <= posted.through && !posted.open.contains(&trace)).then_some(false)
    }
}

impl Posted {
    fn keep(&mut self, trace: TraceId) {
        if self.kept.len() < MAX_KEPT && self.kept.insert(trace) {
            self.order.push_back((self.through, trace));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(status: RunStatus, cost: Option<i64>, took: u64) -> RunSummary {
        let mut state = crate::store::assembly::RunState::new(crate::model::RunId([1; 16]), TraceId([9; 16]))
            .summary(crate::model::UnixNanos(0));
        (state.status, state.cost_usd, state.duration_ms) = (status, cost.map(NanoUsd), Some(took));
        state
    }

    #[test]
    fn a_run_is_kept_if_any_rule_says_so() {
        let keep: Keep = "errors, cost>0.5 ,slow>1.5s".parse().unwrap();
        let kept = |status, cost, took| keep.keeps_run(&run(status, cost, took));
        assert!(!kept(RunStatus::Success, Some(500_000_000), 1_500));
        assert!(!kept(RunStatus::Cancelled, None, 0));
        assert!(kept(RunStatus::Success, Some(500_000_001), 0));
        assert!(kept(RunStatus::Success, None, 1_501));
        for status in [RunStatus::Error, RunStatus::Timeout, RunStatus::Crashed] {
            assert!(kept(status, None, 0));
        }
        assert!(!Keep::rules().keeps_run(&run(RunStatus::Error, Some(1 << 60), 1 << 60)));
        assert!(Keep::all().keeps_run(&run(RunStatus::Success, None, 0)));
    }

    #[test]
    fn rules_that_cannot_be_read_are_named() {
        for (text, part) in [
            ("", ""),
            ("some", "some"),
            ("errors,all", "all"),
            ("errors,,", ""),
            ("cost>", "cost>"),
            ("cost=1", "cost=1"),
            ("cost>-1", "cost>-1"),
            ("cost>much", "cost>much"),
            ("slow>30", "slow>30"),
            ("slow>3 days", "slow>3 days"),
            ("slow>-1s", "slow>-1s"),
            ("ratio=1.1", "ratio=1.1"),
            ("ratio=NaN", "ratio=NaN"),
            ("ratio>0.1", "ratio>0.1"),
            ("=", "="),
        ] {
            assert_eq!(text.parse::<Keep>(), Err(BadKeep { part: part.to_owned() }), "{text:?}");
        }
        assert_eq!(" ALL ".parse(), Ok(Keep::all()));
        assert_eq!("slow>500ms".parse(), Ok(Keep::rules().slower_than(Duration::from_millis(500))));
    }

    #[test]
    fn a_trace_waits_for_its_run_and_one_without_a_run_for_the_store() {
        let board = Board::new("errors,ratio=0".parse().unwrap());
        let (failed, fine, plain) = (TraceId([1; 16]), TraceId([2; 16]), TraceId([3; 16]));
        let decisions = || [failed, fine, plain].map(|trace| board.decide(trace, 10));
        board.post(&[], Some([failed, fine].into()), 9);
        assert_eq!(decisions(), [None, None, None]);
        board.post(&[], Some([failed, fine].into()), 10);
        assert_eq!(decisions(), [None, None, Some(false)]);
        let ended = |trace_id, status| RunSummary { trace_id, ..run(status, None, 0) };
        let runs = [ended(failed, RunStatus::Error), ended(fine, RunStatus::Success)];
        board.post(&runs, Some(HashSet::new()), 12);
        assert_eq!(decisions(), [Some(true), Some(false), Some(false)]);
        // Late spans of a run that was kept are kept, whoever has passed.
        board.passed("one", 100);
        assert_eq!(board.decide(failed, 101), Some(true));
    }

    #[cfg(feature = "otel-sdk")]
    #[test]
    fn the_ratio_is_that_of_the_opentelemetry_sdk() {
        use opentelemetry::trace::SpanKind;
        use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};
        for ratio in [0.0, 1e-9, 0.1, 1.0 / 3.0, 0.5, 0.999_999, 1.0] {
            let (ours, sdks) = (Ratio::new(ratio).unwrap(), Sampler::TraceIdRatioBased(ratio));
            for _ in 0..2_000 {
                let trace = TraceId::fresh();
                let id = opentelemetry::TraceId::from_bytes(trace.0);
                let sdk = sdks.should_sample(None, id, "", &SpanKind::Internal, &[], &[]).decision;
                assert_eq!(ours.holds(trace), sdk == SamplingDecision::RecordAndSample, "{ratio} {trace}");
            }
        }
    }
}
