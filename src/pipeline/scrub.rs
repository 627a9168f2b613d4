//! Removes secrets, and content where the policy says so, before the first byte is written or leaves.
//!
//! [`Scrubber::scrub`] goes over every place of a record where text can be: names, the status message, attributes
//! of the span, its events, links, scope and resource with lists, maps, map keys and bytes, and JSON inside text. It
//! does it in three ways:
//!
//! - **by key**: what stands under `authorization`, `cookie`, `x-api-key`, `password` and the like is replaced whole,
//!   as an attribute, in a map, or in JSON inside text;
//! - **by shape**: keys and tokens of known providers, bearer and basic authorization, private keys, JWTs, passwords
//!   in URLs, and assignments of random-looking values to names like `api_key`;
//! - **by policy**: under [`Content::None`] all content goes, whatever it holds.
//!
//! In ids and enumerations only shapes are looked for that nothing else has, so that no real id is ever changed; see
//! `docs/adr/0012-secrets-in-ids.md`. Numbers, booleans and times stay as they are, and so does every byte of a text
//! beside the secret. Text without a secret costs one pass over it, which finds the anchors of all rules. The rules are
//! tables in [`crate::conventions::scrub_rules`].
//!
//! What this can't see: a secret of unknown shape in prose, and one that is split over several records.

mod anchors;
mod find;
mod json;
mod keys;
mod pass;

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use sha2::{Digest, Sha256};

pub(super) use self::keys::is_content;

use self::keys::KeyClass;
use self::pass::Pass;
use crate::conventions::names;
use crate::model::otlp::{AnyValue, Resource, Span, Value, set};
use crate::model::record::{Record, RecordKind};
use crate::model::run::UnknownWord;

/// What of prompts, answers, tool arguments, results and artifacts is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Content {
    /// Nothing: names, models, tokens, ids, times, status and errors only. What stays is scanned for secrets.
    ///
    /// Content is known by its key, in every dialect of the tables; an attribute of the user's own naming stays.
    /// Log lines that are not errors lose their text.
    None,
    /// All of it, without the secrets in it.
    #[default]
    Redacted,
    /// All of it as it was sent. Nothing is scanned, secrets included: who asks for this wants the exact bytes.
    Full,
}

impl Content {
    /// All policies, from the least kept to the most.
    pub const ALL: &'static [Self] = &[Self::None, Self::Redacted, Self::Full];

    /// Returns the word used in flags, the environment and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Redacted => "redacted",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Content {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.iter().find(|content| word.eq_ignore_ascii_case(content.as_str()));
        found.copied().ok_or_else(|| UnknownWord { word: word.to_owned(), known: &["none", "redacted", "full"] })
    }
}

/// What scrubbing took out of one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Secrets replaced, content values removed, and values cut.
    pub removed: u32,
    /// Bytes of text that are gone with them.
    pub bytes_cut: u64,
}

impl Scrubbed {
    fn count(&mut self, bytes: usize) {
        self.removed = self.removed.saturating_add(1);
        self.bytes_cut = self.bytes_cut.saturating_add(bytes as u64);
    }

    fn plus(self, other: Self) -> Self {
        Self {
            removed: self.removed.saturating_add(other.removed),
            bytes_cut: self.bytes_cut.saturating_add(other.bytes_cut),
        }
    }
}

/// How much of one value is kept, under every policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest text or bytes value; the rest is cut, with the mark `[cut:<bytes>]` at the end of a text.
    pub value_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { value_bytes: 16 << 20 }
    }
}

/// The attribute that says which policy took content away.
pub const CONTENT_MARK: &str = "runspan.content";

/// Applies a content policy to records.
///
/// A secret is replaced by `[redacted:<kind>:<bytes>:<hash>]`, where the hash is the first 8 hex digits of
/// HMAC-SHA256 under the store's key: equal secrets stay recognizable as equal within a store, and nothing can be
/// looked up in a table of hashes. Scrubbing what was scrubbed changes nothing.
pub struct Scrubber {
    content: Content,
    limits: Limits,
    key: [u8; 32],
    /// The last resources, as they came and as they went: records of one process share one, and those of several come in turns.
    resources: Mutex<VecDeque<SeenResource>>,
}

struct SeenResource {
    // Held, so that its address can't belong to another resource.
    original: Arc<Resource>,
    scrubbed: Arc<Resource>,
    count: Scrubbed,
    bytes: usize,
}

/// So many resources are remembered, and so many bytes of them, but always the last one.
const MOST_RESOURCES: usize = 32;
const MOST_RESOURCE_BYTES: usize = 1 << 20;

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("content", &self.content).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Scrubber {
    /// Makes a scrubber for one store; `key` makes the hashes in its markers.
    pub fn new(content: Content, key: [u8; 32]) -> Self {
        Self { content, limits: Limits::default(), key, resources: Mutex::default() }
    }

    /// Sets how much of a value is kept.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the policy.
    pub fn content(&self) -> Content {
        self.content
    }

    /// Returns a text without the secrets in it, whatever its length; `None` when it has none, or the policy keeps all.
    pub fn clean(&self, text: &str) -> Option<String> {
        if self.content == Content::Full {
            return None;
        }
        Pass { scrubber: self, count: Scrubbed::default() }.clean(text, KeyClass::Plain, 0)
    }

    /// Takes from a record what the policy does not keep, and tells how much that was.
    pub fn scrub(&self, record: &mut Record) -> Scrubbed {
        let mut count = self.scrub_resource(&mut record.resource);
        let mut pass = Pass { scrubber: self, count: Scrubbed::default() };
        let span = &mut record.span;
        pass.text(&mut span.name);
        if let Some(status) = &mut span.status {
            pass.text(&mut status.message);
        }
        pass.text_under(&mut span.trace_state, KeyClass::Id);
        if self.content == Content::None && has_reason_of_content(span) {
            pass.remove_reason(&mut span.attributes);
        }
        pass.attributes(&mut span.attributes);
        span.events.iter_mut().for_each(|event| pass.event(event));
        for link in &mut span.links {
            pass.text_under(&mut link.trace_state, KeyClass::Id);
            pass.attributes(&mut link.attributes);
        }
        pass.text(&mut record.scope.name);
        pass.text(&mut record.scope.version);
        pass.attributes(&mut record.scope.attributes);
        count = count.plus(pass.count);
        // An event's record holds no attributes of the span; the mark comes with its start and end.
        if self.content == Content::None && record.kind != RecordKind::Event {
            set(&mut span.attributes, CONTENT_MARK, self.content.as_str().into());
        }
        count
    }

    /// Does so for a resource alone.
    pub(crate) fn scrub_resource(&self, resource: &mut Arc<Resource>) -> Scrubbed {
        let mut all = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = all.iter().find(|seen| Arc::ptr_eq(&seen.original, resource)) {
            *resource = Arc::clone(&seen.scrubbed);
            return seen.count;
        }
        let mut pass = Pass { scrubber: self, count: Scrubbed::default() };
        let mut copy = Resource::clone(resource);
        pass.attributes(&mut copy.attributes);
        let count = pass.count;
        let scrubbed = if count == Scrubbed::default() { Arc::clone(resource) } else { Arc::new(copy) };
        let bytes = resource.encoded_len() + scrubbed.encoded_len();
        all.push_front(SeenResource { original: Arc::clone(resource), scrubbed: Arc::clone(&scrubbed), count, bytes });
        while all.len() > 1
            && (all.len() > MOST_RESOURCES || all.iter().map(|seen| seen.bytes).sum::<usize>() > MOST_RESOURCE_BYTES)
        {
            all.pop_back();
        }
        *resource = scrubbed;
        count
    }

    /// Returns what stands in a text in place of a secret.
    fn marker(&self, kind: &str, secret: &[u8]) -> String {
        let [a, b, c, d, ..] = hmac_sha256(&self.key, secret);
        format!("{MARKER_START}{kind}:{}:{a:02x}{b:02x}{c:02x}{d:02x}]", secret.len())
    }
}

/// Tells whether the reason for a failure was read out of what a model or a tool said.
fn has_reason_of_content(span: &Span) -> bool {
    let Some(Value::Array(added)) = span.attr(names::ADDED) else { return false };
    let is_it = |key: &AnyValue| key.value.as_ref().and_then(Value::as_str) == Some(names::ADDED_REASON_OF_CONTENT);
    added.values.iter().any(is_it)
}

/// HMAC-SHA256 (RFC 2104). Written out: it is these lines, and a crate for it brings four more.
fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut inner = [0x36u8; 64];
    let mut outer = [0x5cu8; 64];
    for (i, byte) in key.iter().enumerate() {
        inner[i] ^= byte;
        outer[i] ^= byte;
    }
    let inner = Sha256::new().chain_update(inner).chain_update(message).finalize();
    Sha256::new().chain_update(outer).chain_update(inner).finalize().into()
}

/// How what stands in place of a secret begins.
const MARKER_START: &str = "[redacted:";

/// Tells whether a text is one of our own markers and nothing else.
fn is_marker(text: &str) -> bool {
    is_marker_start(text) && text.find(']') == Some(text.len() - 1)
}

fn is_marker_start(text: &str) -> bool {
    text.starts_with(MARKER_START)
}

/// Tells whether a text ends with the mark of a cut: `[cut:4711]`.
pub(crate) fn ends_in_a_cut(text: &str) -> bool {
    let mark = text.strip_suffix(']').and_then(|text| text.rsplit_once("[cut:"));
    mark.is_some_and(|(_, bytes)| !bytes.is_empty() && bytes.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
