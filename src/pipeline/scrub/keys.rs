//! What the key says of the value that stands under it.

use std::cell::RefCell;

use crate::conventions::scrub_rules as rules;
use crate::model::id::IdMap;

/// What a key says of the value under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyClass {
    /// An id or an enumeration: only what looks like a secret and like nothing else is one.
    Id,
    /// A secret as a whole.
    Denied,
    /// A secret if it looks random.
    Suspect,
    /// Text.
    Plain,
}

impl KeyClass {
    /// Classifies a key; `outer` is the class of what the map stands under.
    pub(super) fn of(key: &str, outer: Self) -> Self {
        let name = last_segment(key);
        if outer == Self::Denied {
            // `password: {"type": "string"}` describes a parameter.
            return if rules::SCHEMA_WORDS.contains(&name) { Self::Plain } else { Self::Denied };
        }
        if rules::ID_KEYS.binary_search(&key).is_ok() || names_id(name) && !rules::NO_ID_KEYS.contains(&key) {
            return Self::Id;
        }
        Self::of_name(name)
    }

    /// Classifies a key that stands under nothing, as nearly all do: the same few hundred, over and over. Tells as well whether it may
    /// hold a secret itself.
    pub(super) fn of_attribute(key: &str) -> (Self, bool) {
        let class_of = |key: &str| (Self::of(key, Self::Plain), may_hide(key));
        const MAX_KNOWN: usize = 1024;
        const MAX_BYTES: usize = 64;
        thread_local! {
            static KNOWN: RefCell<IdMap<String, (KeyClass, bool)>> = RefCell::default();
        }
        if key.len() > MAX_BYTES {
            return class_of(key);
        }
        let known = KNOWN.try_with(|known| known.try_borrow().ok()?.get(key).copied());
        known.ok().flatten().unwrap_or_else(|| {
            let class = class_of(key);
            let _ = KNOWN.try_with(|known| {
                let Ok(mut known) = known.try_borrow_mut() else { return };
                // Keys that somebody makes up as they go must not stay for ever.
                if known.len() >= MAX_KNOWN {
                    known.clear();
                }
                known.insert(key.to_owned(), class);
            });
            class
        })
    }

    pub(super) fn of_name(name: &str) -> Self {
        if rules::DENIED_EXACT.iter().any(|word| is_name(name, word))
            || rules::DENIED_NAMES.iter().any(|word| strip_name(name, word).is_some())
        {
            return Self::Denied;
        }
        for word in rules::SUSPECT_NAMES {
            if let Some(before) = strip_name(name, word) {
                let harmless = rules::HARMLESS_TOKENS.iter().any(|word| strip_name(before, word).is_some());
                // `auth` and `pwd` as an end of a longer word mean nothing.
                let whole =
                    before.is_empty() || before.ends_with(['_', '-', '.', ' ']) || starts_hump(name, before.len());
                return if harmless || !whole { Self::Plain } else { Self::Suspect };
            }
        }
        Self::Plain
    }
}

/// Tells whether a key may hold a secret. Those of lower-case words, as nearly all are, hold none.
pub(super) fn may_hide(key: &str) -> bool {
    !key.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_'))
}

/// Returns what follows the last separator of a dotted key: `x-api-key` of `http.request.header.x-api-key`.
pub(super) fn last_segment(key: &str) -> &str {
    let key = key.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '[' | ']'));
    key.rsplit(['.', ':', '/', '[']).next().unwrap_or(key)
}

/// Strips a lower-case word from the end of a name, whatever case and separators the name has, and returns the rest.
pub(super) fn strip_name<'a>(name: &'a str, word: &str) -> Option<&'a str> {
    let bytes = name.as_bytes();
    let mut at = bytes.len();
    for expected in word.bytes().rev() {
        while at > 0 && matches!(bytes[at - 1], b'-' | b'_' | b' ') {
            at -= 1;
        }
        if at == 0 || bytes[at - 1].to_ascii_lowercase() != expected {
            return None;
        }
        at -= 1;
    }
    name.get(..at)
}

/// Tells whether the last word of a name is `id`: `id`, `tool_call_id`, `runId`.
fn names_id(name: &str) -> bool {
    strip_name(name, "id").is_some_and(|before| {
        before.is_empty() || before.ends_with(['_', '-', ' ']) || name[before.len()..].starts_with("Id")
    })
}

fn is_name(name: &str, word: &str) -> bool {
    strip_name(name, word).is_some_and(|rest| rest.bytes().all(|byte| matches!(byte, b'-' | b'_' | b' ')))
}

/// Tells whether a word of a camel-case name starts at `at`, or the whole name is in upper case.
fn starts_hump(name: &str, at: usize) -> bool {
    name.as_bytes().get(at).is_some_and(u8::is_ascii_uppercase)
}

/// Tells whether a key holds what a model, a tool or a user said.
pub(in crate::pipeline) fn is_content(key: &str) -> bool {
    if rules::METADATA_KEYS.contains(&key) || rules::ID_KEYS.binary_search(&key).is_ok() {
        return false;
    }
    let below =
        |family: &str| key.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    if rules::METADATA_PARTS.iter().any(|part| key.contains(part)) {
        return false;
    }
    rules::CONTENT_KEYS.contains(&key)
        || rules::CONTENT_PREFIXES.iter().any(|family| below(family))
        || rules::CONTENT_SEGMENTS.iter().any(|word| is_name(last_segment(key), word))
}
