//! Finds in one pass all places of some words in a text, in any case.
//!
//! An automaton that knows all words has tables that fit into no processor's first cache, and each of its steps waits for the one
//! before. Here a bit for the first three letters of every word tells of nearly every place that none begins there: four kilobytes,
//! and no place waits for another. Only where one may begin is it looked at.

use std::ops::Range;

/// Letters are folded to so many bits: those of one letter in both cases are the same.
const BITS: u32 = 5;
const LETTERS: usize = 1 << BITS;
/// The beginnings there are, of three letters.
const BEGINNINGS: usize = LETTERS.pow(3);

/// Words to look for; each has at least two letters.
#[derive(Debug)]
pub(super) struct Anchors {
    words: Vec<&'static [u8]>,
    /// A bit for each beginning that a word has.
    known: Box<[u64; BEGINNINGS / 64]>,
    /// Words by their beginning; those of two letters stand under all that continue them.
    by_beginning: Vec<(u16, u16)>,
    /// Where those of a beginning begin there.
    first: Box<[u16]>,
}

impl Anchors {
    pub fn new(words: impl Iterator<Item = &'static str>) -> Self {
        let words: Vec<&'static [u8]> = words.map(str::as_bytes).collect();
        let mut known = Box::new([0; BEGINNINGS / 64]);
        let mut by_beginning = Vec::new();
        for (place, word) in words.iter().enumerate() {
            let thirds = word.get(2).map_or(0..LETTERS, |third| folded(*third)..folded(*third) + 1);
            for third in thirds {
                let beginning = followed(followed(followed(0, word[0]), word[1]), third as u8);
                known[beginning / 64] |= 1 << (beginning % 64);
                by_beginning.push((beginning as u16, place as u16));
            }
        }
        by_beginning.sort_unstable();
        let mut first = vec![0; BEGINNINGS].into_boxed_slice();
        for (place, (beginning, _)) in by_beginning.iter().enumerate().rev() {
            first[usize::from(*beginning)] = place as u16;
        }
        Self { words, known, by_beginning, first }
    }

    /// Calls `found` with the number of each word that stands in the text, and with its place; words that overlap are all there.
    pub fn each(&self, text: &[u8], mut found: impl FnMut(usize, Range<usize>)) {
        let [first, second, rest @ ..] = text else { return };
        let mut beginning = followed(followed(0, *first), *second);
        // Behind the last letter nothing goes on.
        for (at, letter) in rest.iter().chain([&0]).enumerate() {
            beginning = followed(beginning, *letter);
            if self.known[beginning / 64] & (1 << (beginning % 64)) != 0 {
                self.each_at(text, at, beginning, &mut found);
            }
        }
    }

    #[cold]
    fn each_at(&self, text: &[u8], at: usize, beginning: usize, found: &mut impl FnMut(usize, Range<usize>)) {
        let from = usize::from(self.first[beginning]);
        for (_, place) in self.by_beginning[from..].iter().take_while(|(of, _)| usize::from(*of) == beginning) {
            let place = usize::from(*place);
            let range = at..at + self.words[place].len();
            if text.get(range.clone()).is_some_and(|there| there.eq_ignore_ascii_case(self.words[place])) {
                found(place, range);
            }
        }
    }
}

fn folded(letter: u8) -> usize {
    usize::from(letter) % LETTERS
}

/// The beginning that is one letter further on.
fn followed(beginning: usize, letter: u8) -> usize {
    (beginning << BITS | folded(letter)) % BEGINNINGS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: [&str; 7] = ["--", "SK", "key", "keys", "a:b", "1//0", "bearer "];

    proptest! {
        #[test]
        fn each_place_of_each_word_is_found(
            parts in prop::collection::vec(prop_oneof![
                prop::sample::select(&WORDS[..]).prop_map(str::to_owned),
                prop::sample::select(&WORDS[..]).prop_map(str::to_ascii_uppercase),
                "[-skeyab:/ 01K\u{e9}]{0,4}",
            ], 0..8),
        ) {
            let text = parts.concat();
            let mut found = Vec::new();
            Anchors::new(WORDS.into_iter()).each(text.as_bytes(), |word, range| found.push((word, range)));
            found.sort_by_key(|(word, range)| (*word, range.start));
            let lower = text.to_ascii_lowercase();
            let places = |word: &str| {
                let word = word.to_ascii_lowercase();
                (0..lower.len()).filter(|at| lower.as_bytes()[*at..].starts_with(word.as_bytes())).collect::<Vec<_>>()
            };
            let expected: Vec<_> = WORDS.iter().enumerate()
                .flat_map(|(place, word)| places(word).into_iter().map(move |at| (place, at..at + word.len())))
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
