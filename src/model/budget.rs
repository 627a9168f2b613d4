//! What a run may take, what it has taken, and that it was too much.

use std::fmt;
use std::time::Duration;

use super::NanoUsd;

/// The most that a run may take; what is `None` has no bound.
///
/// ```
/// let budget = runspan::Budget { cost_usd: Some(0.5), ..Default::default() };
/// assert_eq!(budget.steps, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budget {
    /// US dollars, of calls that have a price or say what they cost. What others cost nobody knows: bound `tokens` for those.
    pub cost_usd: Option<f64>,
    /// Input and output tokens together.
    pub tokens: Option<u64>,
    /// Steps below the run's own.
    pub steps: Option<u64>,
    /// Time since the run began.
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

impl Budget {
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

    /// Returns the bound of cost. What is no amount bounds most: a budget that was computed wrongly must not be none.
    fn cost(&self) -> Option<NanoUsd> {
        let usd = self.cost_usd?;
        let most = if usd > 0.0 { NanoUsd::from_usd(usd).unwrap_or(NanoUsd(i64::MAX)) } else { NanoUsd::default() };
        Some(most)
    }
}

/// How a text begins that says so.
pub(crate) const OVER_BUDGET: &str = "over the budget of ";

impl fmt::Display for BudgetExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (budget, spent) = (&self.budget, &self.spent);
        match self.bound {
            Bound::Cost => write!(f, "{OVER_BUDGET}${}", budget.cost().unwrap_or_default())?,
            Bound::Tokens => write!(f, "{OVER_BUDGET}{} tokens", budget.tokens.unwrap_or_default())?,
            Bound::Steps => write!(f, "{OVER_BUDGET}{} steps", budget.steps.unwrap_or_default())?,
            Bound::Wall => write!(f, "{OVER_BUDGET}{:?}", budget.wall.unwrap_or_default())?,
        }
        write!(f, ": spent ${}", spent.cost)?;
        if spent.unpriced > 0 {
            write!(f, " and {} without a price", counted(spent.unpriced, "call"))?;
        }
        let wall = Duration::from_millis(u64::try_from(spent.wall.as_millis()).unwrap_or(u64::MAX));
        write!(f, ", {}, {} in {wall:?}", counted(spent.tokens, "token"), counted(spent.steps, "step"))
    }
}

fn counted(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
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
    fn what_was_spent_is_said() {
        let budget = Budget { cost_usd: Some(0.25), ..Budget::default() };
        let exceeded = budget.exceeded(&SPENT).unwrap();
        insta::assert_snapshot!(exceeded, @"over the budget of $0.25: spent $0.5 and 1 call without a price, 100 tokens, 3 steps in 1.5s");
    }
}
