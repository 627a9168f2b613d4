//! The path of a record between its source and the journal: normalize, price, scrub.
//!
//! Each word is a module. The order is fixed: prices need canonical names and counts, and scrubbing, whose policy
//! hangs on canonical names too, comes last so that nothing gets past it.

pub mod cost;
pub mod facts;
pub mod normalize;
pub(crate) mod run_ids;
pub mod scrub;
pub(crate) mod window;
pub(crate) mod worker;

#[cfg(all(test, feature = "server"))]
mod recordings;

pub use scrub::{Content, Limits, Scrubbed, Scrubber};

use crate::model::record::Record;
use crate::sources::fork;
use cost::Pricer;

/// The line that every record passes before the first byte of it is written or leaves.
#[derive(Debug)]
pub struct Pipeline {
    pricer: Pricer,
    scrubber: Scrubber,
}

impl Pipeline {
    /// Makes the line with a content policy; `key` marks what is redacted, so that equal secrets stay joinable
    /// within one store.
    pub fn new(content: Content, key: [u8; 32]) -> Self {
        Self { pricer: Pricer::new(), scrubber: Scrubber::new(content, key) }
    }

    /// Prices with another pricer, one with the user's own prices say.
    #[must_use]
    pub fn with_pricer(self, pricer: Pricer) -> Self {
        Self { pricer, ..self }
    }

    /// Takes one record down the line.
    pub fn run(&mut self, mut record: Record) -> Record {
        // Tables that the whole process shares are made on first use, a few of them in other crates.
        let _held_off = fork::hold_off();
        normalize::normalize(&mut record);
        self.pricer.price(&mut record);
        self.scrubber.scrub(&mut record);
        record
    }
}
