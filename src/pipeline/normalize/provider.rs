//! Who serves the model of a call.

use std::borrow::Cow;

use super::Draft;
use crate::conventions::dialects::{GUESSED, ONE_PROVIDER, SERVES_ITSELF, UNKNOWN_WORDS};
use crate::conventions::{names, providers};
use crate::model::otlp::Span;

/// Empties the provider where that is the name of the scope: nobody who serves models is named so.
pub(super) fn forget_service(draft: &mut Draft<'_>, scope: &str) {
    let told = [names::PROVIDER, "gen_ai.system"].map(|key| draft.span().attr_str(key));
    let original = draft.span().attr_str(&format!("{}{}", names::ORIGINAL_PREFIX, names::PROVIDER));
    if told.into_iter().chain([original]).flatten().any(|told| told == scope) && told[0].is_some() {
        draft.clear(names::PROVIDER);
    }
}

/// Writes who serves a model whose name tells it: where nobody is named, or somebody who serves no models of others, for whose
/// client the emitter takes every model that is called in its way. An address says more than a name.
pub(super) fn write_host(draft: &mut Draft<'_>, scope: &str) {
    let span = draft.span();
    let told = span.attr_str(names::PROVIDER);
    let is_guess = |told: &str| GUESSED.contains(&(scope, told));
    let has_own = told.is_none_or(|told| providers::WITH_OWN_MODELS.contains(&told) || is_guess(told));
    if !has_own || span.attr(names::SERVER_ADDRESS).is_some() {
        return;
    }
    let [asked, answered] = [names::REQUEST_MODEL, names::RESPONSE_MODEL].map(|key| span.attr_str(key));
    // What was asked for says nothing of who answered in its place.
    let is_same = |asked: &str| {
        let own = asked.rsplit_once('/').map_or(asked, |(_, own)| own);
        answered.is_none_or(|answered| answered.starts_with(own) || asked.contains(answered))
    };
    let host =
        answered.and_then(provider_in_model).or_else(|| provider_in_model(asked.filter(|asked| is_same(asked))?));
    if let Some(host) = host.filter(|host| Some(&**host) != told).map(Cow::into_owned) {
        draft.set(names::PROVIDER, host);
    }
}

/// Writes the only provider of the client that a scope traces, where nothing names one.
pub(super) fn write_provider_of_client(draft: &mut Draft<'_>, scope: &str) {
    let span = draft.span();
    let calls = [names::REQUEST_MODEL, names::RESPONSE_MODEL].iter().any(|key| span.attr(key).is_some());
    if !calls || span.attr(names::PROVIDER).is_some() || span.attr(names::SERVER_ADDRESS).is_some() {
        return;
    }
    if let Some((_, provider)) = ONE_PROVIDER.iter().find(|(start, _)| scope.starts_with(start)) {
        draft.set(names::PROVIDER, *provider);
    }
}

/// Writes who serves the models of a program that names its maker, unless the address is that of somebody else.
pub(super) fn write_own_service(draft: &mut Draft<'_>, scope: &str) {
    let span = draft.span();
    let told = span.attr_str(names::PROVIDER);
    let own = SERVES_ITSELF.iter().find(|(of, word, _)| *of == scope && Some(*word) == told);
    let Some((.., own)) = own else { return };
    let address = span.attr_str(names::SERVER_ADDRESS).unwrap_or_default();
    let is_below = |host: &str| address.strip_suffix(host).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let other = providers::HOSTS.iter().find(|(host, _)| is_below(host)).map(|(_, provider)| *provider);
    draft.set(names::PROVIDER, other.unwrap_or(own));
}

/// Writes the provider's own name of a model for LiteLLM's, which has the provider before it, where the emitter has it under a key of
/// its own alone. What the server answers by such a name has no other.
pub(super) fn write_bare_model(draft: &mut Draft<'_>) {
    if !draft.added.iter().any(|added| added == names::REQUEST_MODEL) {
        return;
    }
    let span = draft.span();
    let Some((provider, bare)) = span.attr_str(names::REQUEST_MODEL).and_then(|model| model.split_once('/')) else {
        return;
    };
    // A word that is nobody's is part of the name: `meta-llama/`.
    let start = format!("{provider}/");
    let is_told = provider_in_model(&start).is_some_and(|named| span.attr_str(names::PROVIDER) == Some(&*named));
    let answered = span.attr_str(names::RESPONSE_MODEL).and_then(|model| model.split_once('/'));
    if is_told && !bare.is_empty() && answered.is_none_or(|(by, _)| by != provider) {
        let bare = bare.to_owned();
        draft.set(names::REQUEST_MODEL, bare);
    }
}

/// Reads who serves a model out of its name: `openai/gpt-4o-mini`, as LiteLLM has it, or an id of Bedrock's.
fn provider_in_model(model: &str) -> Option<Cow<'_, str>> {
    if let Some((start, _)) = model.split_once('/') {
        return providers::IN_MODELS.contains(&start).then(|| canonical_provider(start))?;
    }
    let (first, rest) = model.split_once('.')?;
    let is_profile = providers::BEDROCK_PROFILES.contains(&first);
    let vendor = if is_profile { rest.split_once('.')?.0 } else { first };
    // Without a profile before it, others may name a vendor in this way, too; a version behind a colon is Bedrock's.
    let has_version = || model.rsplit_once(':').is_some_and(|(_, version)| version.parse::<u32>().is_ok());
    let is_bedrock = providers::BEDROCK_VENDORS.contains(&vendor) && (is_profile || has_version());
    is_bedrock.then(|| canonical_provider("bedrock"))?
}

/// Tells whether what should be a model is the word for who serves it, as OpenLIT writes where LangChain has no model's name.
pub(super) fn is_its_provider(span: &Span, model: &str) -> bool {
    // The maker alone, of a model's id that has a profile before it (OpenInference in JavaScript).
    let serves = |provider: &str| span.attr_str(names::PROVIDER) == Some(provider);
    if serves("aws.bedrock") && providers::BEDROCK_VENDORS.contains(&model) {
        return true;
    }
    let known = |name: &Cow<'_, str>| providers::HOSTS.iter().any(|(_, of)| of == name);
    let Some(named) = canonical_provider(model).filter(known) else { return false };
    span.attr_str(names::PROVIDER).and_then(canonical_provider) == Some(named)
}

/// Returns the canonical name for a word in `gen_ai.system`; `None` where the word names a framework.
pub(in crate::pipeline) fn canonical_provider(word: &str) -> Option<Cow<'_, str>> {
    let word = word.trim();
    let is_lower = !word.chars().any(char::is_uppercase);
    let word = if is_lower { Cow::Borrowed(word) } else { Cow::Owned(word.to_lowercase()) };
    let says_nothing = word.is_empty() || UNKNOWN_WORDS.contains(&&*word);
    if says_nothing || providers::FRAMEWORKS.contains(&&*word) {
        return None;
    }
    let known = |word: &str| providers::CANONICAL.iter().find(|(old, _)| *old == word).map(|(_, name)| *name);
    let is_canonical = providers::CANONICAL.iter().any(|(_, name)| *name == word);
    let bare = word.rsplit_once('.').filter(|(_, api)| providers::APIS.contains(api)).map(|(bare, _)| bare);
    // What Azure and others have besides is no model's maker: a search, an agent.
    let is_maker = |rest: &str| providers::SERVED_MAKERS.contains(&rest.split('.').next().unwrap_or_default());
    let is_below =
        |server: &&&str| word.strip_prefix(**server).and_then(|rest| rest.strip_prefix('.')).is_some_and(is_maker);
    let server = providers::SERVE_MAKERS.iter().find(is_below).filter(|_| !is_canonical);
    if let Some(name) = known(&word).or_else(|| known(bare?)).or_else(|| known(server?)) {
        return Some(Cow::Borrowed(name));
    }
    Some(match bare.map(str::to_owned) {
        Some(bare) => Cow::Owned(bare),
        None => word,
    })
}
