//! A bound on the memory that requests, or copies of them, take together while they are worked on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may be taken together.
#[derive(Debug)]
pub struct Budget {
    max_bytes: usize,
    taken: AtomicUsize,
}

/// What one has taken; given back when it is done with.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

/// There is no room for more now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Why one share cannot be as large as is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    /// Others have taken what there is.
    Now,
    /// It would not fit if there were no others.
    Ever,
}

impl Budget {
    /// Makes one of so many bytes.
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { max_bytes, taken: AtomicUsize::new(0) })
    }

    /// Returns what is taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Begins a share with nothing in it.
    pub fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Share {
    /// Begins another share of the same budget.
    pub fn fresh(&self) -> Self {
        self.budget.share()
    }

    /// Takes more, or nothing where there is no room for it.
    ///
    /// # Errors
    ///
    /// When all shares together would be over the bound.
    pub fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let max = self.budget.max_bytes;
        let grown = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= max);
        self.budget.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| NoRoom)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Grows to so many bytes, unless it has as many.
    ///
    /// # Errors
    ///
    /// When that would be over the bound, by itself or together with all other shares.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), TooMuch> {
        if bytes > self.budget.max_bytes {
            return Err(TooMuch::Ever);
        }
        self.grow(bytes.saturating_sub(self.bytes)).map_err(|NoRoom| TooMuch::Now)
    }

    /// Returns what it has taken.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_together_stays_within_the_bound_and_comes_back() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert_eq!(one.grow(60), Ok(()));
        assert_eq!(other.grow(41), Err(NoRoom));
        assert_eq!(other.grow(40), Ok(()));
        assert_eq!(one.grow(usize::MAX), Err(NoRoom));
        assert_eq!(other.grow_to(40), Ok(()));
        assert_eq!(other.grow_to(41), Err(TooMuch::Now));
        assert_eq!(other.grow_to(101), Err(TooMuch::Ever));
        drop(one);
        assert_eq!(other.grow_to(90), Ok(()));
        assert_eq!((other.bytes(), budget.taken()), (90, 90));
        assert_eq!(other.grow(10), Ok(()));
    }
}
