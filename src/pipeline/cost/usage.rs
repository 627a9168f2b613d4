//! What a call used, in the units of the price table, and under which circumstances.

use genai_prices::{Usage, UsageKey};

use crate::conventions::{names, units};
use crate::model::Tokens;
use crate::model::otlp::{Span, Value};
use crate::pipeline::facts::MAX_COUNT;

/// Reads everything that a normalized span counts.
pub(super) fn of_span(span: &Span) -> Usage {
    let mut usage = Usage::new();
    for attribute in &span.attributes {
        let Some(unit) = unit_of(&attribute.key) else { continue };
        let count = attribute.value.as_ref().and_then(|value| value.value.as_ref()).and_then(Value::as_f64);
        // The first one of a key is the one that everything else reads.
        if let Some(count) = count.filter(|count| (0.0..=MAX_COUNT as f64).contains(count))
            && !usage.contains_key(unit)
        {
            usage.insert(unit, count);
        }
    }
    usage
}

/// Takes plain counts.
pub(super) fn of_tokens(tokens: &Tokens) -> Usage {
    [
        (UsageKey::INPUT_TOKENS, tokens.prompt),
        (UsageKey::OUTPUT_TOKENS, tokens.completion),
        (UsageKey::CACHE_READ_TOKENS, tokens.cache_read),
        (UsageKey::CACHE_WRITE_TOKENS, tokens.cache_write),
        (UsageKey::OUTPUT_REASONING_TOKENS, tokens.reasoning),
    ]
    .into_iter()
    .filter_map(|(key, count)| Some((key, count? as f64)))
    .collect()
}

/// Reads what else the price may hang on: the tier that the call was served in, and what the span says under
/// [`names::PRICE_PREFIX`].
pub(super) fn circumstances_of(span: &Span) -> Vec<(&str, &str)> {
    let tier = span.attr_str(names::OPENAI_SERVICE_TIER).map(|tier| ("service_tier", tier));
    let told = span.attributes.iter().filter_map(|attribute| {
        let key = attribute.key.strip_prefix(names::PRICE_PREFIX)?;
        Some((key, attribute.value.as_ref()?.value.as_ref()?.as_str()?))
    });
    // What is told later wins. Who asks OpenAI for the cheaper tier is served in it or not at all.
    let asked = asked_tier(span).filter(|asked| *asked == units::SERVED_OR_REFUSED && is_served_by_openai(span));
    asked.map(|tier| ("service_tier", tier)).into_iter().chain(tier).chain(told).map(circumstance).collect()
}

/// Returns the tier that a call asked for, of which nothing says whether it was served in that.
pub(super) fn tier_in_doubt(span: &Span) -> Option<&str> {
    let is_in_doubt = |asked: &&str| {
        *asked == units::SERVED_OR_LESS || (*asked == units::SERVED_OR_REFUSED && !is_served_by_openai(span))
    };
    asked_tier(span).filter(is_in_doubt)
}

/// Tells whether OpenAI itself answered: whoever passes a call on may leave out what was asked for beside it.
fn is_served_by_openai(span: &Span) -> bool {
    let is_own = |address: &str| address == "api.openai.com";
    span.attr_str(names::PROVIDER) == Some("openai") && span.attr_str(names::SERVER_ADDRESS).is_none_or(is_own)
}

/// Returns the tier that a call asked for, where no answer tells one.
fn asked_tier(span: &Span) -> Option<&str> {
    const TOLD: &[&str] = &[names::OPENAI_SERVICE_TIER, names::SERVICE_TIER, "runspan.price.processing"];
    let asked = [names::OPENAI_REQUEST_TIER, names::REQUEST_TIER].iter().find_map(|key| span.attr_str(key));
    asked.filter(|_| TOLD.iter().all(|key| span.attr(key).is_none()))
}

/// Translates a word for a tier that is no tier in the table.
pub(super) fn circumstance<'a>((key, word): (&'a str, &'a str)) -> (&'a str, &'a str) {
    let translated = || units::TIERS.iter().find(|(tier, _)| tier.eq_ignore_ascii_case(word)).map(|(_, to)| *to);
    if key == "service_tier" { translated().unwrap_or((key, word)) } else { (key, word) }
}

/// Tells whether a call counts something besides tokens.
pub(super) fn counts_more_than_tokens(usage: &Usage) -> bool {
    usage.keys().any(|key| !key.as_str().ends_with("_tokens"))
}

fn unit_of(key: &str) -> Option<&str> {
    let standard = units::COUNTS.iter().find(|(name, _)| *name == key).map(|(_, unit)| *unit);
    standard.or_else(|| key.strip_prefix(names::USAGE_PREFIX))
}
