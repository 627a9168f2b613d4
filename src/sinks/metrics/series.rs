//! What is counted together, found by what tells it apart.
//!
//! A run of ten steps is some twenty measurements of a handful of series. To make their attributes for each of them, and to have the SDK
//! look for these, took a twentieth of all that `serve` does.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex};

use super::export::locked;
use crate::model::id::{IdHash, IdMap};

/// So many are known at a time; who makes up names gets the long way, and no more memory than this.
const MOST: usize = 1024;

/// Texts and a number that tell series apart.
pub(super) type Key<'a, const N: usize> = ([Option<&'a str>; N], Option<u16>);

/// Things by what tells them apart: made once, found without a copy of the texts.
pub(super) struct Known<const N: usize, T> {
    by_hash: Mutex<IdMap<u64, Entry<N, T>>>,
    hash: IdHash,
}

struct Entry<const N: usize, T> {
    texts: [Option<Box<str>>; N],
    number: Option<u16>,
    thing: Arc<T>,
}

impl<const N: usize, T> Default for Known<N, T> {
    fn default() -> Self {
        Self { by_hash: Mutex::default(), hash: IdHash::default() }
    }
}

impl<const N: usize, T> Known<N, T> {
    /// Forgets all.
    pub fn clear(&self) {
        locked(&self.by_hash).clear();
    }

    /// Returns the thing of a key; `make` makes it where it is not known.
    pub fn get(&self, (texts, number): Key<'_, N>, make: impl FnOnce() -> T) -> Arc<T> {
        let mut hasher = self.hash.build_hasher();
        for text in texts {
            hasher.write(text.unwrap_or_default().as_bytes());
            // Else the end of one text could as well be the begin of the next.
            hasher.write_u64(text.map_or(0, |text| text.len() as u64 + 1));
        }
        hasher.write_u64(number.map_or(0, |number| u64::from(number) + 1));
        let hash = hasher.finish();
        let mut by_hash = locked(&self.by_hash);
        if let Some(known) = by_hash.get(&hash)
            && known.number == number
            && known.texts.iter().zip(texts).all(|(known, text)| known.as_deref() == text)
        {
            return Arc::clone(&known.thing);
        }
        if by_hash.len() >= MOST
            && let Some(any) = by_hash.keys().next().copied()
        {
            by_hash.remove(&any);
        }
        let thing = Arc::new(make());
        let texts = texts.map(|text| text.map(Box::from));
        // Of two with one hash the latter stays: either is made anew when it is wanted.
        by_hash.insert(hash, Entry { texts, number, thing: Arc::clone(&thing) });
        thing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_made_once_for_what_tells_it_apart_and_there_is_no_end_to_names() {
        let known = Known::<2, usize>::default();
        let mut made = 0;
        let mut get = |texts: [Option<&str>; 2], number| {
            *known.get((texts, number), || {
                made += 1;
                made
            })
        };
        let keys = [
            ([Some("ab"), Some("c")], None),
            ([Some("a"), Some("bc")], None),
            ([Some("abc"), None], None),
            ([Some("abc"), Some("")], None),
            ([None, Some("abc")], None),
            ([None, Some("abc")], Some(0)),
        ];
        let first = keys.map(|(texts, number)| get(texts, number));
        assert_eq!(first, [1, 2, 3, 4, 5, 6]);
        assert_eq!(keys.map(|(texts, number)| get(texts, number)), first);
        for n in 0..3 * MOST {
            get([Some(&n.to_string()), None], None);
        }
        assert!(locked(&known.by_hash).len() <= MOST);
    }
}
