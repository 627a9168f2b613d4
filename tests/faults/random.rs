//! Random numbers that a seed decides, so that what failed can be done again.

/// SplitMix64: small, and good enough to pick moments and places.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins the row of numbers that belongs to a seed.
    pub fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, 0 for a bound of 0. The bias is of no matter here.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Returns one of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len() as u64) as usize).copied()
    }
}

/// Returns the seed of one trial out of the seed of all.
pub fn trial_seed(all: u64, scenario: &str, trial: u64) -> u64 {
    let name = scenario.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(131).wrapping_add(u64::from(byte)));
    Random::of(all ^ Random::of(name ^ trial).next()).next()
}
