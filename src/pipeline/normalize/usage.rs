//! Token counts: those that stand in an object only, and what all of them mean.

use serde_json::Value as Json;

use super::kind::fits;
use super::source::{may_have, member, structured, value_of};
use super::{Dialects, Draft, MAX_COUNT, buckets, messages};
use crate::conventions::dialects::usage::{SHAPES, Shape};
use crate::conventions::dialects::{Basis, Dialect, GOOGLE, KindRow, PARTS_OF_STREAMS, Source, Test, UNKNOWN};
use crate::conventions::names;
use crate::conventions::providers::{GOOGLE_TOOLS, MAY_BE_GOOGLE, TOTAL_OF_BOTH, TOTAL_OF_MORE};
use crate::model::StepKind;
use crate::model::otlp::{STATUS_ERROR, STATUS_UNSET, Span, Value};
use crate::pipeline::facts;

/// Those of what went in, and those of what came out.
const IN: &[&str] = &[names::INPUT_TOKENS, names::CACHE_READ_TOKENS, names::CACHE_WRITE_TOKENS];
const OUT: &[&str] = &[names::OUTPUT_TOKENS, names::REASONING_TOKENS];

/// What an object that a provider made says of its counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    basis: Option<Basis>,
    reasoning_apart: bool,
}

/// Writes the counts that a call has in an object only, as its provider reported them. What encloses calls often repeats
/// their objects in its output, and is not asked.
pub(super) fn write(draft: &mut Draft<'_>, dialects: Dialects<'_>, kind: Option<StepKind>) -> Told {
    let (mut told, mut summed_up) = (Told::default(), Vec::new());
    let is_call = kind.is_some_and(facts::is_billed);
    // A summary has counts of the emitter, and no proof of what they include. That of what encloses calls is all there is where
    // the calls have none.
    let sources = dialects.iter().flat_map(|dialect| {
        let summaries = dialect.summaries.iter().map(|source| (source, false));
        summaries.chain(dialect.usage.iter().filter(|_| is_call).map(|source| (source, true)))
    });
    for (source, is_proof) in sources {
        let (key, path): (_, &[&str]) = match *source {
            Source::Key(key) => (key, &[]),
            Source::Json(key, path) => (key, path),
            _ => continue,
        };
        if !draft.keys.may_have(key) {
            continue;
        }
        let found = value_of(draft.span(), key).filter(|value| may_have(value, path));
        if let Some(object) = found.and_then(|value| member(&structured(value), path)) {
            let basis = told.basis;
            if is_proof {
                take(draft, &object, &mut told, &summed_up);
            } else {
                let is_new = |key: &&&str| count_of(draft.span(), key).is_none();
                let new: Vec<&'static str> = names::TOKEN_COUNTS.iter().filter(is_new).copied().collect();
                take(draft, &object, &mut told, &[]);
                (told.basis, summed_up) = (basis, new);
            }
        }
    }
    told
}

/// Writes the counts of a usage object, where it has one of the known shapes. `summed_up` are those that a summary wrote before it:
/// that there were none is what it has missed where the object has some.
fn take(draft: &mut Draft<'_>, object: &Json, told: &mut Told, summed_up: &[&str]) {
    let Some(shape) = SHAPES.iter().find(|shape| member(object, shape.mark).is_some()) else { return };
    if let Some(tier) = buckets::tier_of(object, shape)
        && [names::SERVICE_TIER, names::OPENAI_SERVICE_TIER].iter().all(|key| draft.span().attr(key).is_none())
    {
        draft.set(names::SERVICE_TIER, tier);
    }
    let gathered = buckets::gather(object, shape);
    let object = gathered.as_ref().unwrap_or(object);
    forget_total(draft, object, shape);
    let is_new = |draft: &Draft<'_>, key| count_of(draft.span(), key).is_none();
    let has_thought = count_in(object, shape, names::REASONING_TOKENS).is_some_and(|count| count > 0);
    // Who counts its thoughts apart may leave out that it did nothing else.
    let is_none = |to: &str| to == names::OUTPUT_TOKENS && shape.reasoning_apart && has_thought;
    let count = |to: &str| count_in(object, shape, to).or(is_none(to).then_some(0));
    let sum = count(names::INPUT_TOKENS)
        .zip(count(names::OUTPUT_TOKENS))
        .map(|(input, output): (u64, u64)| input.saturating_add(output));
    let is_whole = sum.is_some() && sum == count(names::TOTAL_TOKENS);
    let is_nested = !shape.buckets.is_empty() && is_whole;
    // What stands beside the object is its own, where it is the same or the object has none.
    let speaks_of = |key: &str| {
        let beside = count_of(draft.span(), key).and_then(|count| u64::try_from(count).ok());
        count(key).is_none_or(|own| beside.is_none_or(|beside| beside == own))
    };
    // One that tells of cached tokens alone, and of none that are not known, says nothing of what they are part of: the
    // AI SDK 6 has counted them in by then.
    let tells_more = || {
        let cached = [names::CACHE_READ_TOKENS, names::CACHE_WRITE_TOKENS];
        count(names::INPUT_TOKENS).is_some() || cached.iter().any(|key| count(key).is_some() && is_new(draft, key))
    };
    if speaks_of(names::INPUT_TOKENS) && tells_more() {
        let basis = if is_nested { Some(Basis::Inclusive) } else { shape.basis };
        told.basis = told.basis.or(basis);
    }
    if speaks_of(names::OUTPUT_TOKENS) {
        let with_reasoning = sum.zip(count(names::REASONING_TOKENS)).map(|(sum, apart)| sum.saturating_add(apart));
        let is_rest = with_reasoning.is_some() && with_reasoning == count(names::TOTAL_TOKENS) && !is_whole;
        told.reasoning_apart |= is_rest || (shape.reasoning_apart && !is_whole);
    }
    for (to, _) in shape.members {
        // That nothing of a rare kind was used need not be said with every call.
        let says_something = |count: &i64| *count > 0 || names::TOKEN_COUNTS.contains(to);
        let count = count(to)
            .and_then(|count| i64::try_from(count).ok())
            .filter(|count| *count <= MAX_COUNT && says_something(count));
        let is_missed = || summed_up.contains(to) && count_of(draft.span(), to) == Some(0);
        if let Some(count) = count.filter(|_| is_new(draft, to) || is_missed()) {
            draft.set(to, count);
        }
    }
}

/// Empties an output that is the object's total, which its own input and output make: Google's ADK (1.6 to 1.10) takes one for the other.
fn forget_total(draft: &mut Draft<'_>, object: &Json, shape: &Shape) {
    let count = |to: &str| count_in(object, shape, to);
    let (Some(input), Some(total)) = (count(names::INPUT_TOKENS), count(names::TOTAL_TOKENS)) else { return };
    // A part of a stream has no output yet.
    let with_output = input.saturating_add(count(names::OUTPUT_TOKENS).unwrap_or(0));
    let with_reasoning = with_output.saturating_add(count(names::REASONING_TOKENS).unwrap_or(0));
    let is_made = with_output == total || (shape.reasoning_apart && with_reasoning == total);
    let is_total = i64::try_from(total).is_ok_and(|total| count_of(draft.span(), names::OUTPUT_TOKENS) == Some(total));
    if input > 0 && is_made && is_total {
        draft.clear(names::OUTPUT_TOKENS);
    }
}

/// Empties the output that only the beginning of a message of Anthropic's counts, where nobody read its end, and tells whether it did.
///
/// Such a stream has no reason for its end, where its dialect writes one of whatever was read whole, or came in more parts than the one token.
pub(super) fn forget_beginning(draft: &mut Draft<'_>, dialects: Dialects<'_>) -> bool {
    let span = draft.span();
    if span.attr_str(names::PROVIDER) != Some("anthropic") || count_of(span, names::OUTPUT_TOKENS) != Some(1) {
        return false;
    }
    let operation = span.attr_str(names::OPERATION).unwrap_or_default();
    let tells_reason = || {
        let is_it = |(name, ..): &(&str, &str, &str)| span.name == *name;
        let says = |dialect: &&Dialect| {
            dialect.cancelled_without_reason.contains(&operation) || dialect.cancelled_without.iter().any(is_it)
        };
        dialects.iter().any(says)
    };
    let output = span.attr_str(names::OUTPUT_MESSAGES);
    let has_begun = span.attr(names::RESPONSE_ID).is_some() && output.is_some();
    let has_reason = || span.attr(names::FINISH_REASONS).is_some() || output.is_some_and(messages::tell_reason);
    let is_well = span.status.as_ref().is_some_and(|status| status.code != STATUS_UNSET && status.code != STATUS_ERROR);
    let is_without_end = has_begun && !is_well && tells_reason() && !has_reason();
    let has_parts = |(key, path): &(&str, &[&str])| {
        let told = span.attr(key).filter(|told| may_have(told, path));
        told.and_then(|told| whole(&member(&structured(told), path)?)).is_some_and(|parts| parts > 1)
    };
    let outgrows = || dialects.iter().any(|dialect| dialect.counts_to_the_end) && output.is_some_and(facts::says_more);
    let is_outgrown = !is_well && !has_reason() && outgrows();
    let is_begun = is_without_end || is_outgrown || PARTS_OF_STREAMS.iter().any(has_parts);
    let told = [names::OUTPUT_TOKENS, names::TOTAL_TOKENS];
    for key in told.into_iter().filter(|key| is_begun && count_of(draft.span(), key).is_some()).collect::<Vec<_>>() {
        draft.clear(key);
    }
    is_begun
}

/// Writes what a provider says in its own answer that a call used, in the canonical counts. The provider has to stand in
/// the span. Nothing has to be settled about them later.
pub fn write_answered(span: &mut Span, usage: &Json) {
    let mut draft = Draft::of(span);
    let mut told = Told::default();
    take(&mut draft, usage, &mut told, &[]);
    settle(&mut draft, &[&UNKNOWN], told);
    // Written by who writes the span, and not added to what came: the draft's notes are of no use.
}

/// Reads what an object of a shape counts under a canonical name.
pub(super) fn count_in(object: &Json, shape: &Shape, to: &str) -> Option<u64> {
    let (_, paths) = shape.members.iter().find(|(name, _)| *name == to)?;
    let mut found = paths.iter().filter_map(|path| whole(&member(object, path)?));
    let first = found.next()?;
    let told = if first == 0 { found.find(|count| *count > 0).unwrap_or(0) } else { first };
    let beside = shape.beside.iter().filter(|(name, _)| *name == to);
    let beside = beside.filter_map(|(_, path)| whole(&member(object, path)?));
    Some(beside.fold(told, u64::saturating_add))
}

/// Reads a count, as a number, which some write as `100.0` or `1e2`, or as text.
pub(super) fn whole(value: &Json) -> Option<u64> {
    let number = || value.as_f64().filter(|number| number.fract() == 0.0 && *number <= LARGEST_WHOLE);
    let written = || number().and_then(|number| format!("{number:.0}").parse().ok());
    value.as_u64().or_else(written).or_else(|| value.as_str()?.trim().parse().ok())
}

/// Above it, numbers with a point are not known to one.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// Settles what the counts mean: canonical input includes cached tokens, canonical output includes reasoning.
///
/// What the span proves says more than a table, which knows the emitter as it was once: a part that is larger than its whole
/// was reported apart, and so was a cache, and reasoning (xAI's), when only with it input and output make the total; then what
/// the provider itself reported. Else the table decides, and where it does not know, the standard's rule is assumed and the
/// span says so.
pub(super) fn settle(draft: &mut Draft<'_>, dialects: Dialects<'_>, usage: Told) {
    if draft.span().attr(names::USAGE_BASIS).is_some() {
        // It is known what they are: who wrote the span has settled it.
        return;
    }
    if !dialects.iter().any(|dialect| dialect.zero_is_told) {
        forget_empty(draft);
    }
    if dialects.iter().any(|dialect| dialect.output_is_total) {
        take_off_input(draft);
    }
    forget_untold(draft, dialects);
    let (span, keys) = (draft.span(), draft.keys);
    let count = |key| if keys.may_have(key) { count_of(span, key) } else { None };
    let (output, reasoning) = (count(names::OUTPUT_TOKENS), count(names::REASONING_TOKENS));
    let total = count(names::TOTAL_TOKENS);
    let cache =
        count(names::CACHE_READ_TOKENS).unwrap_or(0).saturating_add(count(names::CACHE_WRITE_TOKENS).unwrap_or(0));
    let provider = span.attr_str(names::PROVIDER).unwrap_or_default();
    let is_apart = dialects.iter().flat_map(|dialect| dialect.reasoning_apart).any(|start| provider.starts_with(start));
    // LlamaIndex names the model alone.
    let is_of_maker = |start: &str| {
        let mut models = [names::RESPONSE_MODEL, names::REQUEST_MODEL].iter().filter_map(|key| span.attr_str(key));
        models.any(|model| model.starts_with(start))
    };
    let is_of_google = provider.starts_with(GOOGLE) || (provider.is_empty() && is_of_maker("gemini"));
    // A resource of Vertex' may be Gemini by any name.
    let may_be_google = || {
        let models = || [names::RESPONSE_MODEL, names::REQUEST_MODEL].into_iter().filter_map(|key| span.attr_str(key));
        models().next().is_none() || models().any(|model| MAY_BE_GOOGLE.iter().any(|part| model.contains(part)))
    };
    let is_of_other = || dialects.iter().any(|dialect| dialect.tells_no_provider) && !may_be_google();
    let is_twice = dialects.iter().any(|dialect| dialect.adds_reasoning)
        && !is_of_google
        && (!provider.is_empty() || is_of_other());
    // Of an emitter that names itself, whose model it is tells whose counts these are.
    let names_itself = dialects.iter().any(|dialect| dialect.names_itself);
    let is_of_claude = names_itself && provider.is_empty() && is_of_maker("claude");
    let counts_of = if is_of_claude { "anthropic" } else { provider };
    let mut table = dialects.iter().flat_map(|dialect| dialect.basis);
    let is_routed = || {
        let model = span.attr_str(names::REQUEST_MODEL).unwrap_or_default();
        names_itself && model.contains('/') && !model.starts_with("arn:")
    };
    let told = match usage.basis {
        None if is_routed() => Some(Basis::Inclusive),
        None => table.find(|row| counts_of.starts_with(row.provider)).map(|row| row.basis),
        proven => proven,
    };

    // A prompt is not less than what of it came from a cache.
    let once = count(names::INPUT_TOKENS).map(|input| input.saturating_sub(cache)).filter(|once| *once >= cache);
    if let Some(once) = once.filter(|_| cache > 0 && told == Some(Basis::Twice)) {
        draft.set(names::USAGE_BASIS, "inclusive");
        draft.set(names::INPUT_TOKENS, once);
        if let Some(total) = total {
            draft.set(names::TOTAL_TOKENS, total.saturating_sub(cache));
        }
        return;
    }
    if let Some(missed) = missed_by_total(span, reasoning) {
        draft.set(names::USAGE_BASIS, "inclusive");
        draft.set(names::USAGE_OF_TOTAL, true);
        draft.set(names::INPUT_TOKENS, missed);
        return;
    }
    if let Some(input) = count(names::INPUT_TOKENS) {
        let with_cache = input.saturating_add(cache);
        let total_has_cache = cache > 0 && total == Some(with_cache.saturating_add(output.unwrap_or(0)));
        // The emitter tells beside it, under its own name, what was not cached.
        let own = dialects.iter().flat_map(|dialect| dialect.facts).filter(|row| row.to == names::INPUT_TOKENS);
        let is_summed = cache > 0
            && own.flat_map(|row| row.from).any(|source| match source {
                Source::Key(key) => count(key).is_some_and(|apart| apart.saturating_add(cache) == input),
                _ => false,
            });
        let exclusive = !is_summed && (told == Some(Basis::Exclusive) || cache > input || total_has_cache);
        let word = match told {
            _ if exclusive => "exclusive",
            Some(Basis::Inclusive | Basis::Exclusive | Basis::Twice) => "inclusive",
            Some(Basis::Unknown) | None => "assumed",
        };
        draft.set(names::USAGE_BASIS, word);
        if told == Some(Basis::Unknown) && cache > 0 && !exclusive {
            draft.clear(names::INPUT_TOKENS);
        }
        if exclusive && cache > 0 {
            draft.set(names::INPUT_TOKENS, with_cache);
        }
    }
    let input = count_of(draft.span(), names::INPUT_TOKENS);
    // A call that only thought may have no count of what it answered.
    let is_thought = |thought: &i64| {
        let makes_total = || total.is_some() && total == input.map(|input| input.saturating_add(*thought));
        *thought > 0 && (is_apart || makes_total())
    };
    let Some(output) = output.or_else(|| reasoning.filter(is_thought).map(|_| 0)) else { return };
    // A total that input and output make as they are has nothing twice.
    let is_twice = is_twice && (total.is_none() || total != input.map(|input| input.saturating_add(output)));
    if let Some(twice) = reasoning.filter(|twice| is_twice && *twice > 0 && twice.saturating_mul(2) <= output) {
        draft.set(names::OUTPUT_TOKENS, output - twice);
        return;
    }
    // What the total has beyond input and output.
    let rest = total.zip(input).map_or(0, |(total, input)| total.saturating_sub(input).saturating_sub(output).max(0));
    if is_of_google && reasoning.is_none() && rest > 0 && asks_for_tools(draft.span()) {
        // What these put into the prompt, or thoughts, or both.
        draft.clear(names::INPUT_TOKENS);
        draft.clear(names::OUTPUT_TOKENS);
        return;
    }
    let beside = match reasoning {
        Some(reasoning) if reasoning > output || reasoning == rest || usage.reasoning_apart || is_apart => reasoning,
        // Thoughts that only the total has are paid for like the answer.
        None if is_of_google => rest,
        _ => 0,
    };
    if beside > 0 {
        draft.set(names::REASONING_TOKENS, beside);
        draft.set(names::OUTPUT_TOKENS, output.saturating_add(beside));
    }
    // What is still left, Gemini's own tools put into the prompt.
    let of_tools = rest.saturating_sub(beside);
    if let Some(input) = input.filter(|_| is_of_google && of_tools > 0) {
        draft.set(names::INPUT_TOKENS, input.saturating_add(of_tools));
    }
}

/// Tells whether a call asked for tools of Google's own.
fn asks_for_tools(span: &Span) -> bool {
    let Some(told) = span.attr(names::TOOL_DEFINITIONS) else { return false };
    let is_one = |tool: &Json| GOOGLE_TOOLS.iter().any(|name| tool.get(name).is_some());
    match structured(told) {
        Json::Array(tools) => tools.iter().any(|tool| match tool {
            Json::String(text) => serde_json::from_str(text).is_ok_and(|tool: Json| is_one(&tool)),
            tool => is_one(tool),
        }),
        tool => is_one(&tool),
    }
}

/// Makes an output of a total.
fn take_off_input(draft: &mut Draft<'_>) {
    let [input, total] = [names::INPUT_TOKENS, names::OUTPUT_TOKENS].map(|key| count_of(draft.span(), key));
    let Some(total) = total else { return };
    match input.and_then(|input| total.checked_sub(input)).filter(|output| *output >= 0) {
        Some(output) => draft.set(names::OUTPUT_TOKENS, output),
        None => draft.clear(names::OUTPUT_TOKENS),
    }
}

/// Empties counts of which the dialect says that they are not what was used.
fn forget_untold(draft: &mut Draft<'_>, dialects: Dialects<'_>) {
    let is_so = |draft: &Draft<'_>, &(key, test): &(&'static str, Test)| {
        fits(draft.span(), &KindRow { key, test, kind: StepKind::Task })
    };
    for untold in dialects.iter().flat_map(|dialect| dialect.untold) {
        if untold.when.iter().all(|condition| is_so(draft, condition)) {
            for key in untold.counts.iter().filter(|key| count_of(draft.span(), key).is_some()).collect::<Vec<_>>() {
                draft.clear(key);
            }
        }
    }
}

/// Returns the input of a call whose total has more than input and output, where its provider counts nothing else in a total: cached
/// tokens are apart then, and told nowhere. Who counts cached tokens, be there none, has missed something else.
fn missed_by_total(span: &Span, reasoning: Option<i64>) -> Option<i64> {
    let [input, output, total] =
        [names::INPUT_TOKENS, names::OUTPUT_TOKENS, names::TOTAL_TOKENS].map(|key| count_of(span, key));
    let (input, with_input) = (input?, total?.saturating_sub(output?));
    let counts_cached = || {
        let mut cached = span.attributes.iter().filter(|attribute| attribute.key.contains("cache"));
        cached.any(|attribute| count_of(span, &attribute.key).is_some())
    };
    if with_input <= input || reasoning.is_some_and(|reasoning| reasoning > 0) || counts_cached() {
        return None;
    }
    let provider = span.attr_str(names::PROVIDER)?;
    let models = || [names::RESPONSE_MODEL, names::REQUEST_MODEL].into_iter().filter_map(|key| span.attr_str(key));
    let model = models().next()?;
    let model = model.rsplit('/').next().unwrap_or(model);
    if models().any(|model| TOTAL_OF_MORE.iter().any(|part| model.contains(part))) {
        return None;
    }
    let (_, starts) = TOTAL_OF_BOTH.iter().find(|(of, _)| *of == provider)?;
    let is_call = facts::kind(span) == StepKind::Llm;
    (is_call && starts.iter().any(|start| model.starts_with(start))).then_some(with_input)
}

fn count_of(span: &Span, key: &str) -> Option<i64> {
    span.attr(key).and_then(Value::as_i64).filter(|count| *count >= 0)
}

/// Empties the counts of a call that is said to have had no prompt: there is none such, and whoever writes that has missed
/// what was reported. What came out stays where it is more than nothing.
fn forget_empty(draft: &mut Draft<'_>) {
    let is_zero = |span: &Span, key: &&str| count_of(span, key).is_none_or(|count| count == 0);
    let is_without = |span: &Span, keys: &[&str]| keys.iter().all(|key| is_zero(span, key));
    let span = draft.span();
    if span.attr(names::INPUT_TOKENS).is_none() || !is_without(span, IN) {
        return;
    }
    // A total may tell what was missed.
    let output = count_of(span, names::OUTPUT_TOKENS).unwrap_or_default();
    let missed = count_of(span, names::TOTAL_TOKENS).map_or(0, |total| total.saturating_sub(output));
    if missed > 0 && output > 0 {
        draft.set(names::INPUT_TOKENS, missed);
        return;
    }
    let empty = if is_without(span, OUT) { [IN, OUT].concat() } else { IN.to_vec() };
    for key in empty.into_iter().chain([names::TOTAL_TOKENS]) {
        if draft.span().attr(key).is_some() {
            // Present but empty: unknown to every reader.
            draft.clear(key);
        }
    }
}
