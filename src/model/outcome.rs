//! What became of every record: the counts always add up to what was received.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{TraceId, UnixNanos};

/// The five ends a record can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// In the run store.
    Stored,
    /// Told before; the first telling is stored.
    Duplicate,
    /// Nothing of a GenAI run, or beyond what is held for one.
    NotKept,
    /// Broken beyond use.
    Rejected,
    /// Lost, for the reason counted.
    Dropped,
}

impl Outcome {
    /// Returns the word used as a metric attribute.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::NotKept => "not_kept",
            Self::Rejected => "rejected",
            Self::Dropped => "dropped",
        }
    }
}

/// Counts of records by outcome and reason; `received` equals the sum of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records taken from the sources, those that the sources dropped included.
    pub received: u64,
    /// By outcome and reason.
    pub by: BTreeMap<(Outcome, &'static str), u64>,
}

impl Counts {
    /// Counts `n` records with one outcome.
    pub fn add(&mut self, outcome: Outcome, reason: &'static str, n: u64) {
        if n > 0 {
            self.received += n;
            *self.by.entry((outcome, reason)).or_default() += n;
        }
    }

    /// Returns how many records had `outcome`, for any reason.
    pub fn total(&self, outcome: Outcome) -> u64 {
        self.by.iter().filter(|((o, _), _)| *o == outcome).map(|(_, n)| n).sum()
    }
}

/// Records of one trace that were lost for one reason, to be noted in their run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRecords {
    /// Their trace.
    pub trace: TraceId,
    /// Why they were lost.
    pub reason: &'static str,
    /// How many they are.
    pub count: u64,
    /// When the first of them was lost.
    pub since: UnixNanos,
    /// Tells them from all others that their process lost, whoever notes them and however often.
    pub mark: u64,
}
