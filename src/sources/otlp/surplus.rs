//! Which attributes are left out where there are too many.

use crate::model::otlp::KeyValue;

/// Tells of each key in turn whether its attribute stays, where `max` may: those without a number in it before those with one,
/// and those with a lower one first.
///
/// What makes spans have so many is a conversation laid out flat, a key for each part of each message
/// (`llm.input_messages.812.message.role`). What names the model and counts its tokens often stands behind that.
pub(super) fn staying<'a>(keys: impl Iterator<Item = &'a [u8]>, max: usize) -> Vec<bool> {
    let mut ranks: Vec<(u64, usize)> = keys.enumerate().map(|(place, key)| (rank(key), place)).collect();
    let mut staying = vec![true; ranks.len()];
    if max < ranks.len() {
        let (_, _, beyond) = ranks.select_nth_unstable(max);
        beyond.iter().for_each(|(_, place)| staying[*place] = false);
        staying[ranks[max].1] = false;
    }
    staying
}

/// Returns 0 for a key without a number, else one more than the first one.
fn rank(key: &[u8]) -> u64 {
    let number = |part: &[u8]| std::str::from_utf8(part).ok()?.parse::<u32>().ok();
    key.split(|byte| *byte == b'.').find_map(number).map_or(0, |number| 1 + u64::from(number))
}

/// Leaves out of a list of attributes what is beyond a bound, and counts it. Tells whether there was any.
pub(super) fn hold_to(attributes: &mut Vec<KeyValue>, max: usize, dropped: &mut u32) -> bool {
    let surplus = attributes.len().saturating_sub(max);
    if surplus == 0 {
        return false;
    }
    let mut staying = staying(attributes.iter().map(|attribute| attribute.key.as_bytes()), max).into_iter();
    attributes.retain(|_| staying.next().unwrap_or(false));
    *dropped = dropped.saturating_add(u32::try_from(surplus).unwrap_or(u32::MAX));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept<'a>(keys: &[&'a str], max: usize) -> Vec<&'a str> {
        let staying = staying(keys.iter().map(|key| key.as_bytes()), max);
        keys.iter().zip(staying).filter(|(_, stays)| *stays).map(|(key, _)| *key).collect()
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
}
