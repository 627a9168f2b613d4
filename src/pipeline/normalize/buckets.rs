//! Counts told as buckets, which are added up.

use serde_json::Value as Json;

use super::usage::{count_in, whole};
use crate::conventions::dialects::usage::{Buckets, Shape, TIERS};
use crate::conventions::names;

/// Puts into one bucket for what went in, and into one for what came out, all that has no canonical name of its own.
///
/// `None` for what is told otherwise, or where these two make the total, since they hold the others then. Buckets that make
/// more than the total overlap: what is too much is taken off what went in.
pub(super) fn gather(object: &Json, shape: &Shape) -> Option<Json> {
    let count = |to| count_in(object, shape, to).unwrap_or(0);
    let total = count_in(object, shape, names::TOTAL_TOKENS);
    let plain = count(names::INPUT_TOKENS).saturating_add(count(names::OUTPUT_TOKENS));
    if shape.buckets.is_empty() || total == Some(plain) {
        return None;
    }
    let mut members = object.as_object()?.clone();
    for side in shape.buckets {
        if let Some(sum) = all_of(object, side) {
            members.insert(side.rest.to_owned(), sum.into());
        }
    }
    let mut gathered = Json::Object(members);
    let parts = [
        names::INPUT_TOKENS,
        names::OUTPUT_TOKENS,
        names::CACHE_READ_TOKENS,
        names::CACHE_WRITE_TOKENS,
        names::REASONING_TOKENS,
    ];
    let all = parts.iter().filter_map(|part| count_in(&gathered, shape, part)).fold(0, u64::saturating_add);
    // A total that is less than the two alone is none of these.
    let excess = total.filter(|total| *total > plain).map_or(0, |total| all.saturating_sub(total));
    if let (Some(side), Some(input)) = (shape.buckets.first(), count_in(&gathered, shape, names::INPUT_TOKENS)) {
        gathered.as_object_mut()?.insert(side.rest.to_owned(), input.saturating_sub(excess).into());
    }
    Some(gathered)
}

/// Returns the tier that a call was served in, where buckets that bear its name make the total.
pub(super) fn tier_of(object: &Json, shape: &Shape) -> Option<&'static str> {
    let total = count_in(object, shape, names::TOTAL_TOKENS).filter(|total| *total > 0 && !shape.buckets.is_empty())?;
    let bear_it = |sides: &[&str; 2]| sum(object, |key| sides.iter().any(|side| fits(key, side))) == Some(total);
    TIERS.iter().find(|(_, sides)| bear_it(sides)).map(|(tier, _)| *tier)
}

/// Adds up one side, without what is counted by names of its own. `None` where nothing of it is told.
fn all_of(object: &Json, side: &Buckets) -> Option<u64> {
    let rest = object.get(side.rest).and_then(whole);
    let is_other = |key: &str| fits(key, side.others);
    let is_counted = |key: &str| side.counted.iter().any(|name| fits(key, name));
    let is_repeated = |key: &str| fits(key, side.repeated);
    let others = sum(object, |key| is_other(key) && !is_counted(key) && !is_repeated(key));
    if rest.is_none() && others.is_none() {
        return None;
    }
    let own = rest.unwrap_or(0).saturating_add(others.unwrap_or(0));
    let repeated = sum(object, is_repeated).unwrap_or(0);
    Some(if repeated <= own {
        own.saturating_sub(sum(object, |key| is_repeated(key) && is_counted(key)).unwrap_or(0))
    } else {
        own.saturating_add(sum(object, |key| is_repeated(key) && !is_counted(key)).unwrap_or(0))
    })
}

/// Adds up the counts of an object under names that fit. `None` where there are none.
pub(super) fn sum(object: &Json, is_one: impl Fn(&str) -> bool) -> Option<u64> {
    let members = object.as_object()?.iter().filter(|(key, _)| is_one(key));
    members.filter_map(|(_, value)| whole(value)).reduce(u64::saturating_add)
}

/// Tells whether a name is as a pattern says, in which `*` stands for anything.
pub(super) fn fits(name: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match left.split_once(part) {
            Some((_, behind)) => left = behind,
            None => return false,
        }
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (name, pattern, expected) in [
            ("input_flex", "input_*", true),
            ("input", "input_*", false),
            ("output_input_x", "input_*", false),
            ("flex_cache_read", "*cache_read*", true),
            ("cache_read_over_200k", "*cache_read*", true),
            ("cache", "*cache_read*", false),
            ("input_flex_cache_read", "input*cache_read*", true),
            ("cache_read_input_tokens", "input*cache_read*", false),
            ("input_audio", "input_*audio", true),
            ("input_audio_tokens", "input_*audio", false),
            ("input_audio_of_audio", "input_*audio", true),
            ("input", "input*input", false),
            ("input", "input", true),
        ] {
            assert_eq!(fits(name, pattern), expected, "{name} {pattern}");
        }
    }
}
