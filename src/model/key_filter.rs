//! Which keys a span may have, so that the many that it does not have cost no walk through those that it has.

use super::otlp::{KeyValue, Span};

/// A Bloom filter of keys, and one of how they begin: what it has not seen is not there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyFilter {
    whole: [u64; 4],
    starts: [u64; 4],
}

impl KeyFilter {
    /// Takes the keys of some attributes.
    pub fn of(attributes: &[KeyValue]) -> Self {
        let mut keys = Self::default();
        attributes.iter().for_each(|attribute| keys.note(&attribute.key));
        keys
    }

    /// Takes the keys of a span's attributes, and of those of its events.
    pub fn with_events(span: &Span) -> Self {
        let mut keys = Self::of(&span.attributes);
        span.events.iter().flat_map(|event| &event.attributes).for_each(|attribute| keys.note(&attribute.key));
        keys
    }

    /// Takes keys that are known beforehand.
    pub const fn of_names(names: &[&str]) -> Self {
        let mut keys = Self { whole: [0; 4], starts: [0; 4] };
        let mut at = 0;
        while at < names.len() {
            keys.note(names[at]);
            at += 1;
        }
        keys
    }

    /// Takes one more.
    pub const fn note(&mut self, key: &str) {
        let (word, bit) = Self::place(key);
        self.whole[word] |= bit;
        let (word, bit) = Self::place_of_start(key);
        self.starts[word] |= bit;
    }

    /// Tells whether a key may be there.
    pub fn may_have(&self, key: &str) -> bool {
        let (word, bit) = Self::place(key);
        self.whole[word] & bit != 0
    }

    /// Tells whether a key may be there that begins so, by its first two letters; `start` has at least these.
    pub fn may_begin(&self, start: &str) -> bool {
        let (word, bit) = Self::place_of_start(start);
        self.starts[word] & bit != 0
    }

    /// By its length, and letters from where names of one family differ.
    #[inline]
    const fn place(key: &str) -> (usize, u64) {
        let length = key.len();
        let ends =
            letter(key, length.wrapping_sub(1)).wrapping_mul(29) ^ letter(key, length.wrapping_sub(3)).wrapping_mul(7);
        bit(letter(key, length / 2).wrapping_mul(31) ^ ends ^ (length as u8).wrapping_mul(53))
    }

    #[inline]
    const fn place_of_start(key: &str) -> (usize, u64) {
        bit(letter(key, 0).wrapping_mul(31).wrapping_add(letter(key, 1)))
    }
}

/// The byte at a place; behind the end there are zeros.
#[inline]
const fn letter(key: &str, at: usize) -> u8 {
    if at < key.len() { key.as_bytes()[at] } else { 0 }
}

#[inline]
const fn bit(place: u8) -> (usize, u64) {
    ((place >> 6) as usize, 1 << (place & 63))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conventions::names;
    use crate::model::otlp::{SpanEvent, set};

    proptest! {
        #[test]
        fn what_is_there_is_never_missed(keys in prop::collection::vec(".{0,12}|gen_ai[.a-z]{0,9}", 0..20)) {
            let mut span = Span::default();
            let mut event = SpanEvent::default();
            for (place, key) in keys.iter().enumerate() {
                let attributes = if place % 2 == 0 { &mut span.attributes } else { &mut event.attributes };
                set(attributes, key, 1.into());
            }
            span.events.push(event);
            let filter = KeyFilter::with_events(&span);
            for key in &keys {
                prop_assert!(filter.may_have(key));
                prop_assert!(key.len() < 2 || filter.may_begin(key.get(..2).unwrap_or(key)));
            }
        }
    }

    #[test]
    fn most_of_what_is_not_there_is_known_not_to_be() {
        let keys = [
            names::OPERATION,
            names::PROVIDER,
            names::REQUEST_MODEL,
            names::RESPONSE_MODEL,
            names::RESPONSE_ID,
            names::INPUT_TOKENS,
            names::OUTPUT_TOKENS,
            names::INPUT_MESSAGES,
            names::OUTPUT_MESSAGES,
            names::CONVERSATION_ID,
            names::AGENT_NAME,
        ];
        let mut span = Span::default();
        keys.iter().for_each(|key| span.set_attr(key, 1));
        let filter = KeyFilter::of(&span.attributes);
        let others = [
            names::TOOL_NAME,
            names::TOOL_CALL_ID,
            names::TOOL_ARGUMENTS,
            names::TOOL_RESULT,
            names::WORKFLOW_NAME,
            names::CACHE_READ_TOKENS,
            names::CACHE_WRITE_TOKENS,
            names::REASONING_TOKENS,
            names::ERROR_TYPE,
            names::STEP_STATUS,
            names::STEP_KIND,
            names::COST_USD,
            names::RUN_ID,
            names::USER_ID,
            names::SYSTEM_INSTRUCTIONS,
        ];
        let seen = others.iter().filter(|key| filter.may_have(key)).count();
        assert!(seen <= 2, "{seen} of {} are taken for what is there", others.len());
    }
}
