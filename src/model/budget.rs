//! What a run may take, what it has taken, and that it was too much.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::words::{duration, grouped};
use super::{NanoUsd, RunId, RunSummary};

/// The most that a run may take; what is `None` has no bound.
///
/// ```
/// let budget = runspan::Budget { cost_usd: Some(0.5), ..Default::default() };
/// assert_eq!(budget.steps, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// US dollars, of calls that have a price or say what they cost. What others cost nobody knows: bound `tokens` for those.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "dollars")]
    pub cost_usd: Option<f64>,
    /// Input and output tokens together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Steps below the run's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Time since the run began.
    #[serde(default, rename = "wall_ms", skip_serializing_if = "Option::is_none", with = "millis")]
    pub wall: Option<Duration>,
}

/// What a run has taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// What priced calls cost.
    pub cost: NanoUsd,
    /// Calls that used something of which nobody knows what it cost.
    pub unpriced: u64,
    /// Input and output tokens together.
    pub tokens: u64,
    /// Steps below the run's own that have begun.
    pub steps: u64,
    /// Time since the run began.
    pub wall: Duration,
}

/// What a budget bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// [`Budget::cost_usd`].
    Cost,
    /// [`Budget::tokens`].
    Tokens,
    /// [`Budget::steps`].
    Steps,
    /// [`Budget::wall`].
    Wall,
}

/// A run has taken more than its budget.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BudgetExceeded {
    /// Which bound it is over.
    pub bound: Bound,
    /// What it might have taken.
    pub budget: Budget,
    /// What it had taken when that was noticed.
    pub spent: Spent,
}

/// Writes the bound that holds: what is no amount is none in JSON either.
fn dollars<S: Serializer>(usd: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    Budget { cost_usd: *usd, ..Budget::default() }.cost().serialize(serializer)
}

/// Times in whole milliseconds.
mod millis {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer};

    pub fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

impl Spent {
    /// Adds up what a run has taken, of its own and with the runs below it, as the store has them: its topmost step is none that
    /// it has taken. How long that took is not in it.
    ///
    /// Their numbers come from a file, and may be anything.
    pub fn of_runs<'a>(own: RunId, runs: impl IntoIterator<Item = &'a RunSummary>) -> Self {
        runs.into_iter().fold(Self::default(), |spent, run| {
            let tokens = run.tokens.and_then(|tokens| tokens.with_total().total).unwrap_or_default();
            let steps = run.steps_total.saturating_sub(u64::from(run.run_id == own));
            Self {
                cost: spent.cost + run.cost_usd.unwrap_or_default(),
                unpriced: spent.unpriced.saturating_add(run.unpriced_steps),
                tokens: spent.tokens.saturating_add(tokens),
                steps: spent.steps.saturating_add(steps),
                ..spent
            }
        })
    }
}

impl Budget {
    /// Writes it as JSON.
    pub fn to_json(&self) -> String {
        // Numbers in memory can be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the bound that is exceeded, if one is.
    pub fn exceeded(&self, spent: &Spent) -> Option<BudgetExceeded> {
        let is_over = |bound: &Bound| match bound {
            Bound::Cost => self.cost().is_some_and(|most| spent.cost > most),
            Bound::Tokens => self.tokens.is_some_and(|most| spent.tokens > most),
            Bound::Steps => self.steps.is_some_and(|most| spent.steps > most),
            Bound::Wall => self.wall.is_some_and(|most| spent.wall > most),
        };
        let bound = [Bound::Cost, Bound::Tokens, Bound::Steps, Bound::Wall].into_iter().find(is_over)?;
        Some(BudgetExceeded { bound, budget: *self, spent: *spent })
    }

    /// Returns the bound that one more step would exceed, if one would.
    pub fn exceeded_by_a_step(&self, spent: &Spent) -> Option<BudgetExceeded> {
        let next = Spent { steps: spent.steps.saturating_add(1), ..*spent };
        let exceeded = self.exceeded(&next)?;
        Some(BudgetExceeded { spent: *spent, ..exceeded })
    }

    fn bound_in_words(&self, bound: Bound) -> String {
        match bound {
            Bound::Cost => format!("${}", self.cost().unwrap_or_default()),
            Bound::Tokens => counted(self.tokens.unwrap_or_default(), "token"),
            Bound::Steps => counted(self.steps.unwrap_or_default(), "step"),
            Bound::Wall => in_words(self.wall.unwrap_or_default()),
        }
    }

    /// Returns the bound of cost. What is no amount bounds most: a budget that was computed wrongly must not be none.
    fn cost(&self) -> Option<NanoUsd> {
        let usd = self.cost_usd?;
        let most = if usd > 0.0 { NanoUsd::from_usd(usd).unwrap_or(NanoUsd::MAX) } else { NanoUsd::default() };
        Some(most)
    }
}

/// How a text begins that says so.
pub(crate) const OVER_BUDGET: &str = "over the budget of ";

impl fmt::Display for Budget {
    /// Says what is bounded: `$0.5, 1,000 tokens`; `nothing` where nothing is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds = [
            self.cost_usd.is_some().then(|| self.bound_in_words(Bound::Cost)),
            self.tokens.is_some().then(|| self.bound_in_words(Bound::Tokens)),
            self.steps.is_some().then(|| self.bound_in_words(Bound::Steps)),
            self.wall.is_some().then(|| self.bound_in_words(Bound::Wall)),
        ];
        let bounds: Vec<String> = bounds.into_iter().flatten().collect();
        f.write_str(if bounds.is_empty() { "nothing".to_owned() } else { bounds.join(", ") }.as_str())
    }
}

impl fmt::Display for BudgetExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spent = &self.spent;
        write!(f, "{OVER_BUDGET}{}: spent ${}", self.budget.bound_in_words(self.bound), spent.cost)?;
        if spent.unpriced > 0 {
            write!(f, " and {} without a price", counted(spent.unpriced, "call"))?;
        }
        let wall = in_words(spent.wall);
        write!(f, ", {}, {} in {wall}", counted(spent.tokens, "token"), counted(spent.steps, "step"))
    }
}

fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(number), if number == 1 { "" } else { "s" })
}

fn in_words(time: Duration) -> String {
    // A budget is told as it was given: `0ms`, `100ms`, `15m 00s`.
    let ms = time.as_secs_f64() * 1_000.0;
    if ms < 10.0 { format!("{}ms", ms.floor()) } else { duration(ms) }
}

impl std::error::Error for BudgetExceeded {}

#[cfg(test)]
mod tests {
    use super::*;

    const SPENT: Spent =
        Spent { cost: NanoUsd(500_000_000), unpriced: 1, tokens: 100, steps: 3, wall: Duration::from_millis(1_500) };

    #[test]
    fn a_bound_is_exceeded_by_more_and_not_by_as_much() {
        let bounds = |budget: Budget| {
            let of = |found: Option<BudgetExceeded>| found.map(|found| found.bound);
            (of(budget.exceeded(&SPENT)), of(budget.exceeded_by_a_step(&SPENT)))
        };
        let none = Budget::default();
        assert_eq!(bounds(none), (None, None));
        assert_eq!(bounds(Budget { cost_usd: Some(0.5), ..none }), (None, None));
        assert_eq!(bounds(Budget { cost_usd: Some(0.499), ..none }), (Some(Bound::Cost), Some(Bound::Cost)));
        assert_eq!(bounds(Budget { cost_usd: Some(f64::INFINITY), ..none }), (None, None));
        assert_eq!(bounds(Budget { tokens: Some(99), ..none }).0, Some(Bound::Tokens));
        assert_eq!(bounds(Budget { steps: Some(3), ..none }), (None, Some(Bound::Steps)));
        assert_eq!(bounds(Budget { steps: Some(2), ..none }).0, Some(Bound::Steps));
        assert_eq!(bounds(Budget { wall: Some(Duration::from_secs(1)), ..none }).0, Some(Bound::Wall));
        for wrong in [f64::NAN, -1.0, f64::NEG_INFINITY] {
            assert_eq!(bounds(Budget { cost_usd: Some(wrong), ..none }).0, Some(Bound::Cost), "{wrong}");
        }
    }

    #[test]
    fn runs_add_up_without_the_topmost_step_and_to_the_most_there_is() {
        let trace = crate::model::TraceId([1; 16]);
        let state = crate::store::assembly::RunState::new(trace.as_run_id(), trace);
        let run = RunSummary {
            tokens: Some(crate::model::Tokens { prompt: Some(u64::MAX), completion: Some(1), ..Default::default() }),
            cost_usd: Some(NanoUsd::MAX),
            unpriced_steps: u64::MAX,
            steps_total: 3,
            ..state.summary(crate::model::UnixNanos(1))
        };
        let most = Spent { cost: NanoUsd::MAX, unpriced: u64::MAX, tokens: u64::MAX, steps: 5, wall: Duration::ZERO };
        let below = RunSummary { run_id: RunId([2; 16]), ..run.clone() };
        assert_eq!(Spent::of_runs(run.run_id, [&run, &below]), most);
    }

    #[test]
    fn a_budget_is_written_as_it_holds_and_read_again() {
        let budget = Budget { cost_usd: Some(0.25), wall: Some(Duration::from_millis(1_500)), ..Budget::default() };
        insta::assert_snapshot!(budget.to_json(), @r#"{"cost_usd":0.25,"wall_ms":1500}"#);
        assert_eq!(serde_json::from_str::<Budget>(&budget.to_json()).unwrap(), budget);
        let wrong = Budget { cost_usd: Some(f64::NAN), tokens: Some(3), ..Budget::default() };
        insta::assert_snapshot!(wrong.to_json(), @r#"{"cost_usd":0,"tokens":3}"#);
        insta::assert_snapshot!(budget, @"$0.25, 1.50s");
    }

    #[test]
    fn what_was_spent_is_said() {
        let budget = Budget { cost_usd: Some(0.25), ..Budget::default() };
        let exceeded = budget.exceeded(&SPENT).unwrap();
        insta::assert_snapshot!(exceeded, @"over the budget of $0.25: spent $0.5 and 1 call without a price, 100 tokens, 3 steps in 1.50s");
        let none = Budget { wall: Some(Duration::ZERO), tokens: Some(5_500), ..Budget::default() };
        let spent = Spent { tokens: 1_234_567, ..SPENT };
        insta::assert_snapshot!(none.exceeded(&spent).unwrap(), @"over the budget of 5,500 tokens: spent $0.5 and 1 call without a price, 1,234,567 tokens, 3 steps in 1.50s");
        let none = Budget { tokens: None, ..none };
        insta::assert_snapshot!(none.exceeded(&spent).unwrap(), @"over the budget of 0ms: spent $0.5 and 1 call without a price, 1,234,567 tokens, 3 steps in 1.50s");
    }
}
