//! Which attributes are left out where there are too many.

use std::collections::BinaryHeap;

use crate::model::otlp::KeyValue;

/// Begins the names by which a call, its tokens, its cost and its run are known: what runspan writes on what it passes on stands
/// behind all that the sender wrote.
const KNOWN: &[&[u8]] = &[b"gen_ai.", b"runspan."];

/// Returns the places of the attributes that stay, where `max` may, in order: those without a number in their key before those
/// with one, and those with a lower one first. A number is one between dots. Of those without, the names that runspan and
/// OpenTelemetry's conventions of GenAI have go last.
///
/// What makes spans have so many is a conversation laid out flat, a key for each part of each message
/// (`llm.input_messages.812.message.role`). What names the model and counts its tokens often stands behind that. However many
/// there are, no more than `max` places are held.
pub(super) fn staying<'a>(keys: impl Iterator<Item = &'a [u8]>, max: usize) -> Vec<usize> {
    let mut first: BinaryHeap<(u64, usize)> = BinaryHeap::new();
    for (place, key) in keys.enumerate() {
        let ranked = (rank(key), place);
        if first.len() < max {
            first.push(ranked);
        } else if let Some(mut last) = first.peek_mut().filter(|last| **last > ranked) {
            *last = ranked;
        }
    }
    let mut places: Vec<usize> = first.into_iter().map(|(_, place)| place).collect();
    places.sort_unstable();
    places
}

/// Returns 0 or 1 for a key without a number, else two more than the first one.
fn rank(key: &[u8]) -> u64 {
    let number = |part: &[u8]| std::str::from_utf8(part).ok()?.parse::<u32>().ok();
    let unknown = u64::from(!KNOWN.iter().any(|begin| key.starts_with(begin)));
    key.split(|byte| *byte == b'.').find_map(number).map_or(unknown, |number| 2 + u64::from(number))
}

/// Leaves out of a list of attributes what is beyond a bound, and counts it. Tells whether there was any.
pub(super) fn hold_to(attributes: &mut Vec<KeyValue>, max: usize, dropped: &mut u32) -> bool {
    let surplus = attributes.len().saturating_sub(max);
    if surplus == 0 {
        return false;
    }
    let staying = staying(attributes.iter().map(|attribute| attribute.key.as_bytes()), max);
    let mut places = staying.into_iter().peekable();
    let mut place = 0..;
    attributes.retain(|_| place.next().is_some_and(|place| places.next_if_eq(&place).is_some()));
    *dropped = dropped.saturating_add(u32::try_from(surplus).unwrap_or(u32::MAX));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept<'a>(keys: &[&'a str], max: usize) -> Vec<&'a str> {
        let staying = staying(keys.iter().map(|key| key.as_bytes()), max);
        staying.into_iter().map(|place| keys[place]).collect()
    }

    #[test]
    fn the_end_of_a_long_list_goes_first() {
        let keys = [
            "llm.input_messages.0.message.role",
            "llm.input_messages.1.message.role",
            "llm.input_messages.2.message.role",
            "llm.input_messages.10.message.role",
            "llm.output_messages.0.message.role",
            "llm.model_name",
            "gpt.4o",
            "llm.token_count.total",
        ];
        assert_eq!(kept(&keys, 8), keys);
        assert_eq!(kept(&keys, 9), keys);
        assert_eq!(kept(&keys, 6), [keys[0], keys[1], keys[4], keys[5], keys[6], keys[7]]);
        assert_eq!(kept(&keys, 2), [keys[5], keys[6]]);
        assert_eq!(kept(&keys, 1), [keys[5]]);
        assert_eq!(kept(&keys, 0), <[&str; 0]>::default());
    }

    #[test]
    fn what_says_whose_a_span_is_and_what_it_cost_stays_behind_whatever_there_is() {
        let keys = ["a", "b", "llm.input_messages.0.message.role", "gen_ai.usage.input_tokens", "runspan.cost.usd"];
        assert_eq!(kept(&keys, 4), [keys[0], keys[1], keys[3], keys[4]]);
        assert_eq!(kept(&keys, 3), [keys[0], keys[3], keys[4]]);
        assert_eq!(kept(&keys, 2), [keys[3], keys[4]]);
    }
}
