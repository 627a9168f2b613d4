//! What was used last.

use std::collections::HashMap;

use super::id::IdMap;

/// What was used last: a map of what is new, and one of what was before, which goes when the first is full.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    new: IdMap<K, V>,
    old: IdMap<K, V>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { new: HashMap::default(), old: HashMap::default() }
    }
}

impl<K: Copy + Eq + std::hash::Hash, V: Copy> Recent<K, V> {
    /// Returns the value of a key, which is used by that.
    pub fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.new.get(key) {
            return Some(*value);
        }
        let value = self.old.remove(key)?;
        self.new.insert(*key, value);
        Some(value)
    }

    /// Puts a value under a key. `most`: so many keys are kept at least, and twice as many at most.
    pub fn put(&mut self, key: K, value: V, most: usize) {
        if self.new.len() >= most {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let mut recent = Recent::default();
        for key in 0..100 {
            recent.put(key, key, 10);
            assert_eq!(recent.get(&0), Some(0));
        }
        assert_eq!((recent.get(&50), recent.get(&95)), (None, Some(95)));
        assert!(recent.new.len() + recent.old.len() <= 22);
    }
}
