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

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use regex::Regex;
use sha2::{Digest, Sha256};

use self::anchors::Anchors;
use crate::conventions::scrub_rules as rules;
use crate::conventions::scrub_rules::{Guard, Place, Reach};
use crate::model::id::IdMap;
use crate::model::otlp::{AnyValue, KeyValue, Resource, SpanEvent, Value, base64, set};
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
    /// The last resource, as it came and as it went: records of one process share one.
    resource: Mutex<Option<SeenResource>>,
}

struct SeenResource {
    // Held, so that its address can't belong to another resource.
    original: Arc<Resource>,
    scrubbed: Arc<Resource>,
    count: Scrubbed,
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("content", &self.content).field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Scrubber {
    /// Makes a scrubber for one store; `key` makes the hashes in its markers.
    pub fn new(content: Content, key: [u8; 32]) -> Self {
        Self { content, limits: Limits::default(), key, resource: Mutex::new(None) }
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
        let mut seen = self.resource.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.as_ref().filter(|seen| Arc::ptr_eq(&seen.original, resource)) {
            *resource = Arc::clone(&seen.scrubbed);
            return seen.count;
        }
        let mut pass = Pass { scrubber: self, count: Scrubbed::default() };
        let mut copy = Resource::clone(resource);
        pass.attributes(&mut copy.attributes);
        let count = pass.count;
        let scrubbed = if count == Scrubbed::default() { Arc::clone(resource) } else { Arc::new(copy) };
        *seen = Some(SeenResource { original: Arc::clone(resource), scrubbed: Arc::clone(&scrubbed), count });
        *resource = scrubbed;
        count
    }

    /// Returns what stands in a text in place of a secret.
    fn marker(&self, kind: &str, secret: &[u8]) -> String {
        let [a, b, c, d, ..] = hmac_sha256(&self.key, secret);
        format!("{MARKER_START}{kind}:{}:{a:02x}{b:02x}{c:02x}{d:02x}]", secret.len())
    }
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

/// What a key says of the value under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyClass {
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
    fn of(key: &str, outer: Self) -> Self {
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

    /// Classifies a key that stands under nothing, as nearly all do: the same few hundred, over and over.
    fn of_attribute(key: &str) -> Self {
        const MAX_KNOWN: usize = 1024;
        const MAX_BYTES: usize = 64;
        thread_local! {
            static KNOWN: RefCell<IdMap<String, KeyClass>> = RefCell::default();
        }
        if key.len() > MAX_BYTES {
            return Self::of(key, Self::Plain);
        }
        let known = KNOWN.try_with(|known| known.try_borrow().ok()?.get(key).copied());
        known.ok().flatten().unwrap_or_else(|| {
            let class = Self::of(key, Self::Plain);
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

    fn of_name(name: &str) -> Self {
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

/// Returns what follows the last separator of a dotted key: `x-api-key` of `http.request.header.x-api-key`.
fn last_segment(key: &str) -> &str {
    let key = key.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '[' | ']'));
    key.rsplit(['.', ':', '/', '[']).next().unwrap_or(key)
}

/// Strips a lower-case word from the end of a name, whatever case and separators the name has, and returns the rest.
fn strip_name<'a>(name: &'a str, word: &str) -> Option<&'a str> {
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
fn is_content(key: &str) -> bool {
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

/// One walk over one record.
struct Pass<'a> {
    scrubber: &'a Scrubber,
    count: Scrubbed,
}

impl Pass<'_> {
    fn attributes(&mut self, attributes: &mut Vec<KeyValue>) {
        if self.scrubber.content == Content::None {
            self.remove_content(attributes);
        }
        self.entries(attributes, KeyClass::Plain);
    }

    fn event(&mut self, event: &mut SpanEvent) {
        if self.scrubber.content == Content::None {
            // Errors keep their text: without it a failed run can't be understood.
            let is_error = ["level", "severity", "severity_text", "log.level"]
                .iter()
                .filter_map(|key| event.attr(key)?.as_str())
                .any(|level| level.eq_ignore_ascii_case("error") || level.eq_ignore_ascii_case("fatal"));
            if rules::CONTENT_EVENTS.contains(&event.name.as_str()) {
                self.remove_text(&mut event.attributes);
            }
            if !is_error {
                self.remove_log_text(&mut event.name);
                self.remove_content(&mut event.attributes);
            }
        }
        self.text(&mut event.name);
        self.entries(&mut event.attributes, KeyClass::Plain);
    }

    /// Removes content by key, in nested maps too. Numbers and booleans are never content.
    fn remove_content(&mut self, attributes: &mut Vec<KeyValue>) {
        attributes.retain_mut(|attribute| {
            if is_content(&attribute.key) && holds_text(attribute.value.as_ref()) {
                self.count.count(size(attribute.value.as_ref()));
                return false;
            }
            if let Some(value) = &mut attribute.value {
                self.remove_nested_content(value);
            }
            true
        });
    }

    fn remove_nested_content(&mut self, value: &mut AnyValue) {
        match &mut value.value {
            Some(Value::KvList(map)) => self.remove_content(&mut map.values),
            Some(Value::Array(list)) => list.values.iter_mut().for_each(|value| self.remove_nested_content(value)),
            _ => {}
        }
    }

    /// Removes all text from the attributes of an event that carries messages, known metadata aside.
    fn remove_text(&mut self, attributes: &mut Vec<KeyValue>) {
        attributes.retain(|attribute| {
            let name = last_segment(&attribute.key);
            let metadata = rules::ID_KEYS.binary_search(&attribute.key.as_str()).is_ok()
                || matches!(name, "role" | "name" | "id" | "index" | "label" | "level" | "model")
                || rules::METADATA_PARTS.iter().any(|part| attribute.key.contains(part));
            let keep = metadata || !holds_text(attribute.value.as_ref());
            if !keep {
                self.count.count(size(attribute.value.as_ref()));
            }
            keep
        });
    }

    /// Replaces an event's name that is a line of log instead of a name.
    fn remove_log_text(&mut self, name: &mut String) {
        let place = name.strip_prefix("event ").unwrap_or(name);
        let is_name_like = place.len() <= 128
            && place
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':' | b'/'));
        if !is_name_like && !is_marker(name) && !name.starts_with("[removed:") {
            self.count.count(name.len());
            *name = format!("[removed:{}]", name.len());
        }
    }

    fn entries(&mut self, entries: &mut [KeyValue], outer: KeyClass) {
        for entry in entries {
            let is_outermost = outer == KeyClass::Plain;
            let class = if is_outermost { KeyClass::of_attribute(&entry.key) } else { KeyClass::of(&entry.key, outer) };
            if let Some(value) = &mut entry.value {
                self.value(value, class);
            }
            // Keys of lower-case words hold no secret; nearly all are such.
            if !entry.key.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'_')) {
                self.text(&mut entry.key);
            }
        }
    }

    fn value(&mut self, value: &mut AnyValue, class: KeyClass) {
        match &mut value.value {
            Some(Value::String(text)) => self.text_under(text, class),
            Some(Value::Bytes(bytes)) => self.bytes_under(bytes, class),
            Some(Value::Array(list)) => list.values.iter_mut().for_each(|value| self.value(value, class)),
            Some(Value::KvList(map)) => self.entries(&mut map.values, class),
            Some(Value::Bool(_) | Value::Int(_) | Value::Double(_)) | None => {}
        }
    }

    fn text(&mut self, text: &mut String) {
        self.text_under(text, KeyClass::Plain);
    }

    fn text_under(&mut self, text: &mut String, class: KeyClass) {
        if self.scrubber.content != Content::Full
            && let Some(clean) = self.clean(text, class, 0)
        {
            *text = clean;
        }
        let limit = self.scrubber.limits.value_bytes;
        if text.len() > limit {
            // After the scan: a secret that crosses the limit is found whole.
            let cut = text.len() - text.floor_char_boundary(limit);
            text.truncate(text.len() - cut);
            text.push_str(&format!("[cut:{cut}]"));
            self.count.count(cut);
        }
    }

    fn bytes_under(&mut self, bytes: &mut Vec<u8>, class: KeyClass) {
        if self.scrubber.content != Content::Full {
            match (std::str::from_utf8(bytes), class) {
                (Ok(text), _) => {
                    if let Some(clean) = self.clean(text, class, 0) {
                        *bytes = clean.into_bytes();
                    }
                }
                (Err(_), KeyClass::Denied) => {
                    self.count.count(bytes.len());
                    *bytes = self.scrubber.marker("bytes", bytes).into_bytes();
                }
                // A secret in binary data takes the whole of it: its format is not ours to edit.
                (Err(_), _) => {
                    if self.clean(&String::from_utf8_lossy(bytes), KeyClass::Plain, 0).is_some() {
                        *bytes = self.scrubber.marker("bytes", bytes).into_bytes();
                    }
                }
            }
        }
        let limit = self.scrubber.limits.value_bytes;
        if bytes.len() > limit {
            self.count.count(bytes.len() - limit);
            bytes.truncate(limit);
        }
    }

    /// Returns the text without its secrets; `None` when it has none.
    fn clean(&mut self, text: &str, class: KeyClass, depth: u32) -> Option<String> {
        let whole = match class {
            KeyClass::Denied => !text.trim().is_empty(),
            KeyClass::Suspect => !text.contains(char::is_whitespace) && looks_random(text, 12),
            KeyClass::Id | KeyClass::Plain => false,
        };
        if whole {
            if is_marker(text) {
                return None;
            }
            self.count.count(text.len());
            return Some(self.scrubber.marker("secret", text.as_bytes()));
        }
        if text.len() < SHORTEST_SECRET {
            return None;
        }
        let mut candidates = COMPILED.candidates(text);
        if class == KeyClass::Id {
            candidates = candidates.and(&COMPILED.everywhere);
        }
        if candidates.is_empty() {
            return None;
        }
        let keyed = candidates.holds(JSON_NAMES);
        // By key and inside escapes first; then the text as a whole, for what is no JSON or nested beyond the bound.
        // A telling key is followed into JSON that stands in the middle of a text, too.
        let has_leaves =
            class != KeyClass::Id && (keyed || text.contains('\\') && text.trim_start().starts_with(['{', '[', '"']));
        let by_leaf = if has_leaves && depth < MAX_JSON_DEPTH { self.clean_json(text, depth) } else { None };
        let rest = self.clean_plain(by_leaf.as_deref().unwrap_or(text), &candidates);
        rest.or(by_leaf)
    }

    /// Replaces all matches of the rules whose anchors were seen.
    fn clean_plain(&mut self, text: &str, candidates: &Candidates) -> Option<String> {
        let mut found: Vec<(Range<usize>, &'static str)> = Vec::new();
        for (i, rule) in rules::RULES.iter().enumerate().filter(|(i, _)| candidates.holds(*i)) {
            COMPILED.find(i, text, |secret| found.push((secret, rule.kind)));
        }
        if found.is_empty() {
            return None;
        }
        // Stable: of two that begin together the earlier rule stays in front, and names it.
        found.sort_by_key(|(range, _)| range.start);
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        let mut found = found.into_iter().peekable();
        while let Some((mut range, kind)) = found.next() {
            // Overlapping matches become one, so that nothing of the longer is left over.
            while let Some((next, _)) = found.next_if(|(next, _)| next.start < range.end) {
                range.end = range.end.max(next.end);
            }
            let secret = &text[range.clone()];
            self.count.count(secret.len());
            out.push_str(&text[done..range.start]);
            out.push_str(&self.scrubber.marker(kind, secret.as_bytes()));
            done = range.end;
        }
        out.push_str(&text[done..]);
        Some(out)
    }

    /// Cleans the strings of JSON text, each by the key it stands under.
    ///
    /// Walks the text instead of parsing it: numbers of any size, doubled keys and white space stay as they are, and
    /// JSON that was cut off is still understood.
    fn clean_json(&mut self, text: &str, depth: u32) -> Option<String> {
        let mut out = String::new();
        let mut done = 0;
        let mut walk = JsonWalk::default();
        let bytes = text.as_bytes();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if *byte != b'"' {
                walk.sign(*byte);
                at += 1;
                continue;
            }
            let inside = at + 1..string_end(bytes, at + 1);
            at = inside.end + 1;
            let raw = &text[inside.clone()];
            let decoded = decode(raw);
            let class = walk.string(&decoded);
            let Some(clean) = self.clean(&decoded, class, depth + 1) else { continue };
            out.push_str(&text[done..inside.start]);
            out.push_str(&encode(&clean));
            done = inside.end;
        }
        if done == 0 {
            return None;
        }
        out.push_str(&text[done..]);
        Some(out)
    }
}

/// Where in a JSON text the walk stands.
#[derive(Default)]
struct JsonWalk {
    /// The open objects and lists, with the class of what stands in them.
    open: Vec<(bool, KeyClass)>,
    /// Class of the next value in the innermost object.
    next: Option<KeyClass>,
    is_after_colon: bool,
}

impl JsonWalk {
    fn sign(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                let class = self.value_class();
                // Beyond any sensible nesting keys lose their meaning; the rules by shape still hold.
                if self.open.len() < 512 {
                    self.open.push((byte == b'{', class));
                }
                self.next = None;
                self.is_after_colon = false;
            }
            b'}' | b']' => {
                self.open.pop();
                self.next = None;
                self.is_after_colon = false;
            }
            b',' => {
                self.next = None;
                self.is_after_colon = false;
            }
            b':' => self.is_after_colon = true,
            _ => {}
        }
    }

    /// Takes a string and returns the class under which it is to be cleaned.
    fn string(&mut self, text: &str) -> KeyClass {
        match self.open.last() {
            Some((true, outer)) if !self.is_after_colon => {
                // What an id is called in a message's JSON is no convention, so nothing is left out there.
                self.next = Some(match KeyClass::of(text, *outer) {
                    KeyClass::Id => KeyClass::Plain,
                    class => class,
                });
                KeyClass::Plain
            }
            _ => self.value_class(),
        }
    }

    fn value_class(&self) -> KeyClass {
        match (self.open.last(), self.next) {
            (Some((true, _)), Some(class)) => class,
            (Some((_, outer)), _) => *outer,
            (None, _) => KeyClass::Plain,
        }
    }
}

/// Finds the closing quote of a JSON string, or the end of a text that was cut off.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at,
            // The escaped byte may be the first of a longer character; the others are no quotes either.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn decode(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    // A broken escape is not ours to mend: the raw text is scanned as it is.
    serde_json::from_str(&format!("\"{raw}\"")).map_or(Cow::Borrowed(raw), Cow::Owned)
}

fn encode(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&quoted).to_owned()
}

/// How what stands in place of a secret begins.
const MARKER_START: &str = "[redacted:";

/// No rule matches less.
const SHORTEST_SECRET: usize = 8;

/// No secret has less behind its prefix.
const SHORTEST_BODY: usize = 8;

/// How far behind its anchor a name may end in `key`.
const KEY_WITHIN: usize = 64;

/// JSON in JSON in JSON: how deep it is opened. Deeper levels are scanned as plain text.
const MAX_JSON_DEPTH: u32 = 6;

/// The table of the anchors is made at the first scan, and each pattern when its anchor is first seen: a process that
/// records nothing pays for nothing, and one without secrets for one table.
static COMPILED: LazyLock<Compiled> = LazyLock::new(Compiled::new);

struct Compiled {
    /// Finds all anchors, in any case.
    anchors: Anchors,
    /// The literals by their numbers there, each with the rules that it is an anchor of.
    literals: Vec<(&'static str, Vec<(usize, Place)>)>,
    /// The rules that are looked for in ids, too.
    everywhere: Candidates,
    /// `None` for a pattern that does not compile, which a test rules out.
    patterns: Vec<OnceLock<Option<Regex>>>,
}

/// In the place of a rule: a name that makes a difference as a key in JSON.
const JSON_NAMES: usize = rules::RULES.len();

/// The rules whose anchors were seen in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Candidates([u64; 3]);

const _: () = assert!(JSON_NAMES < 3 * 64, "more rules than bits");

impl Candidates {
    fn add(&mut self, rule: usize) {
        self.0[rule / 64] |= 1 << (rule % 64);
    }

    fn holds(&self, rule: usize) -> bool {
        self.0[rule / 64] & (1 << (rule % 64)) != 0
    }

    fn is_empty(&self) -> bool {
        self.0 == [0; 3]
    }

    fn and(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }
}

impl Compiled {
    fn new() -> Self {
        let mut literals: Vec<(&'static str, Vec<(usize, Place)>)> = Vec::new();
        let mut everywhere = Candidates::default();
        let of_rules = rules::RULES.iter().enumerate().map(|(i, rule)| (i, rule.anchors, rule.place));
        for (rule, anchors, place) in of_rules.chain([(JSON_NAMES, rules::JSON_NAMES, Place::JsonName)]) {
            for anchor in anchors {
                match literals.iter_mut().find(|(literal, _)| literal == anchor) {
                    Some((_, of)) => of.push((rule, place)),
                    None => literals.push((anchor, vec![(rule, place)])),
                }
            }
        }
        for (i, _) in rules::RULES.iter().enumerate().filter(|(_, rule)| rule.reach == Reach::Everywhere) {
            everywhere.add(i);
        }
        Self {
            anchors: Anchors::new(literals.iter().map(|(literal, _)| *literal)),
            literals,
            everywhere,
            patterns: rules::RULES.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// Finds the rules that may match, in one pass over the text.
    fn candidates(&self, text: &str) -> Candidates {
        let mut found = Candidates::default();
        self.anchors.each(text.as_bytes(), |literal, at| {
            let (literal, of) = &self.literals[literal];
            for &(rule, place) in of {
                if !found.holds(rule) && fits(place, text.as_bytes(), at.clone(), literal) {
                    found.add(rule);
                }
            }
        });
        found
    }

    fn pattern(&self, rule: usize) -> Option<&Regex> {
        let compile = || {
            let rule = &rules::RULES[rule];
            let boundary = if rule.at_boundary { rules::BOUNDARY } else { "" };
            Regex::new(&format!("{boundary}{}", rule.pattern)).ok()
        };
        self.patterns[rule].get_or_init(compile).as_ref()
    }

    /// Calls `found` with the place of every secret of one rule.
    fn find(&self, rule: usize, text: &str, mut found: impl FnMut(Range<usize>)) {
        let Some(pattern) = self.pattern(rule) else { return };
        let guard = rules::RULES[rule].guard;
        let mut at = 0;
        while let Some(captures) = pattern.captures_at(text, at) {
            let (Some(all), Some(secret)) = (captures.get(0), captures.get(1)) else { return };
            at = match accept(guard, text, all.start(), secret.range()) {
                Some(range) => {
                    let end = range.end;
                    found(range);
                    end
                }
                // A refused match may hide another that begins inside it.
                None => text.ceil_char_boundary(secret.start().max(all.start() + 1)),
            };
            if at >= text.len() {
                return;
            }
        }
    }
}

/// Tells whether what was found in a text may be the anchor of a match there. `false` means that no pattern would match.
fn fits(place: Place, text: &[u8], at: Range<usize>, literal: &str) -> bool {
    let (before, after) = (&text[..at.start], &text[at.end..]);
    let is_exact = || text[at.clone()] == *literal.as_bytes();
    match place {
        Place::Start => is_exact() && is_boundary(before) && run(after, is_of_token) >= SHORTEST_BODY,
        Place::StartOf(length) => {
            is_exact() && is_boundary(before) && run(after, |byte| byte.is_ascii_alphanumeric()) >= length
        }
        Place::Inside => is_exact(),
        Place::Word => true,
        Place::BeforeKey => after.windows(3).take(KEY_WITHIN).any(|word| word.eq_ignore_ascii_case(b"key")),
        Place::Name => is_name_end(before, literal) && is_assigned_to(after),
        Place::JsonName => is_name_end(before, literal) && is_json_key(after),
        Place::Authority => is_authority(after),
        Place::Flag => is_flag(after),
    }
}

/// Returns how many bytes of a kind a text begins with.
fn run(text: &[u8], is_of: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|byte| is_of(**byte)).count()
}

fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.+/=%".contains(&byte)
}

/// The same as [`rules::BOUNDARY`], of what stands before a match.
fn is_boundary(before: &[u8]) -> bool {
    let is_hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    match before {
        [] => true,
        [.., last] if !last.is_ascii_alphanumeric() => true,
        [.., b'\\', b'n' | b'r' | b't' | b'b' | b'f'] => true,
        [.., b'%', a, b] => is_hex(&[*a, *b]),
        [.., b'\\', b'u', a, b, c, d] => is_hex(&[*a, *b, *c, *d]),
        _ => false,
    }
}

/// `key` alone names too much: a letter, `_` or `-` must stand before it.
fn is_name_end(before: &[u8], literal: &str) -> bool {
    literal != "key" || before.last().is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-'))
}

/// Tells whether a sign of assignment follows a name, over the end of a quotation, which may be escaped, and blanks.
fn is_assigned_to(after: &[u8]) -> bool {
    let after = &after[run(after, |byte| byte == b'\\')..];
    let after = after.strip_prefix(b"\"").or_else(|| after.strip_prefix(b"'")).unwrap_or(after);
    let after = &after[run(after, |byte| matches!(byte, b' ' | b'\t'))..];
    matches!(after, [b':' | b'=', ..])
}

fn is_json_key(after: &[u8]) -> bool {
    let after = &after[run(after, |byte| byte == b'\\')..];
    let Some(after) = after.strip_prefix(b"\"") else { return false };
    let after = &after[run(after, |byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))..];
    matches!(after, [b':', ..])
}

/// Tells whether `user:password@` may follow.
fn is_authority(after: &[u8]) -> bool {
    let is_inside = |byte: u8| !byte.is_ascii_whitespace() && !b"/?#@\"'\\".contains(&byte);
    let length = run(after, is_inside);
    after.get(length) == Some(&b'@') && after[..length].contains(&b':')
}

/// Tells whether a flag follows whose value is a secret.
fn is_flag(after: &[u8]) -> bool {
    let length = run(&after[..after.len().min(64)], |byte| byte.is_ascii_lowercase() || byte == b'-');
    matches!(after.get(length), Some(b' ' | b'\t'))
        && rules::FLAG_NAMES.iter().any(|name| after[..length].ends_with(name.as_bytes()))
}

/// Decides whether a match is a secret, and how far it reaches.
fn accept(guard: Guard, text: &str, start: usize, secret: Range<usize>) -> Option<Range<usize>> {
    let value = &text[secret.clone()];
    let accepted = match guard {
        Guard::None => return Some(secret),
        Guard::PrivateKey => return private_key(text, secret),
        Guard::BasicAuth => is_basic_auth(value),
        Guard::Password => !is_placeholder(value) && !is_marker_start(value),
        Guard::Random => looks_random(value, 8),
        Guard::Bearer => looks_random(value, 8) || value.len() >= 24 && !is_placeholder(value),
        Guard::Mixed => is_mixed(value),
        Guard::Assigned => is_assigned(text, start, &secret),
    };
    let is_quoted = text[..secret.start].ends_with(['"', '\'', '`']);
    accepted.then(|| secret.start..grow(text, secret.end, guard, is_quoted))
}

/// Takes in what of a secret lies beyond the bound of its pattern.
fn grow(text: &str, end: usize, guard: Guard, is_quoted: bool) -> usize {
    let belongs = |c: char| match guard {
        Guard::Assigned if is_quoted => !matches!(c, '"' | '\'' | '`' | '\\' | '\r' | '\n'),
        Guard::Assigned => !c.is_whitespace() && !matches!(c, '"' | '\'' | '`' | '\\' | ',' | ';' | '&' | '<' | '>'),
        Guard::Random | Guard::Bearer | Guard::Mixed => {
            c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '/' | '=' | '~')
        }
        _ => false,
    };
    text[end..].find(|c| !belongs(c)).map_or(text.len(), |more| end + more)
}

/// Extends the head of a private key over its body and its end; refuses a head without a body.
fn private_key(text: &str, head: Range<usize>) -> Option<Range<usize>> {
    let body = &text[head.end..];
    let dashes = body.find("-----").unwrap_or(body.len());
    let is_body = |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || "+/=\\:,.-_()".contains(c);
    if body[dashes..].starts_with("-----END") && body[..dashes].chars().all(is_body) {
        let after = dashes + "-----END".len();
        let close = body[after..].find("-----").filter(|close| *close <= 60).map_or(0, |close| close + 5);
        return Some(head.start..head.end + after + close);
    }
    // Cut off: the key is as long as it looks like base64, in lines or with escaped line ends.
    let end = body.find(|c: char| !(c.is_ascii_alphanumeric() || "+/=\\\r\n".contains(c))).unwrap_or(body.len());
    (end.min(dashes) >= 32).then(|| head.start..head.end + end.min(dashes))
}

fn is_basic_auth(value: &str) -> bool {
    let plain = base64::decode(value).and_then(|bytes| String::from_utf8(bytes).ok());
    plain.is_some_and(|plain| plain.contains(':') && !plain.contains(|c: char| c.is_control()))
}

fn is_mixed(value: &str) -> bool {
    let count = |test: fn(&u8) -> bool| value.as_bytes().iter().filter(|byte| test(byte)).count();
    let digits = count(u8::is_ascii_digit);
    let has_both_cases = count(u8::is_ascii_uppercase) > 0 && count(u8::is_ascii_lowercase) > 0;
    (has_both_cases && digits > 0 && entropy(value) >= 3.5) || (digits >= 6 && looks_random(value, 20))
}

/// Tells whether a value looks drawn at random: letters and at least two digits, few repetitions, no placeholder.
fn looks_random(value: &str, shortest: usize) -> bool {
    value.len() >= shortest
        && value.bytes().filter(u8::is_ascii_digit).count() >= 2
        && value.bytes().any(|byte| byte.is_ascii_alphabetic())
        && entropy(value) >= 2.7
        && !is_placeholder(value)
        && !is_marker_start(value)
}

/// Judges an assignment by the name in front of it.
fn is_assigned(text: &str, start: usize, secret: &Range<usize>) -> bool {
    let value = &text[secret.clone()];
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let from = text[..start].rfind(|c| !is_of_name(c)).map_or(0, |at| text.ceil_char_boundary(at + 1));
    let name = &text[from..secret.start];
    let name = &name[..name.find(|c| !is_of_name(c)).unwrap_or(name.len())];
    // A marker has the kind of its secret before a colon, and kinds are called `private-key`.
    if is_placeholder(value) || is_marker_start(value) || text[..from].ends_with(MARKER_START) {
        return false;
    }
    let is_quoted = text[..secret.start].ends_with(['"', '\'', '`']);
    let is_password =
        ["password", "passwd", "passphrase", "passcode", "pwd"].iter().any(|word| strip_name(name, word).is_some());
    match KeyClass::of_name(name) {
        _ if is_password => is_password_like(value, is_quoted),
        // Code has `api_key=settings.key_1`: without quotes a value must look more like a key.
        KeyClass::Denied => looks_random(value, if is_quoted { 8 } else { 12 }) && !value.contains(['(', ' ']),
        KeyClass::Suspect => looks_random(value, 16) && entropy(value) >= 3.0 && !value.contains(['(', ' ']),
        KeyClass::Id | KeyClass::Plain => false,
    }
}

fn is_password_like(value: &str, is_quoted: bool) -> bool {
    let has_letter = value.bytes().any(|byte| byte.is_ascii_alphabetic());
    let is_more_than_a_word = value.bytes().any(|byte| byte.is_ascii_digit() || b"!@#$%^&*+~?".contains(&byte));
    if is_quoted {
        let lower = value.to_ascii_lowercase();
        let is_word = rules::NO_PASSWORDS.contains(&lower.as_str());
        return !is_word && (is_more_than_a_word || !value.contains(' '));
    }
    has_letter && is_more_than_a_word && !value.contains(['(', '['])
}

/// Tells whether a value stands for one to be filled in.
fn is_placeholder(value: &str) -> bool {
    if value.starts_with(['$', '<', '{', '%']) || value.bytes().all(|byte| byte == b'*' || byte == b'.') {
        return true;
    }
    let lower = value.to_ascii_lowercase();
    rules::PLACEHOLDERS.iter().any(|word| lower.contains(word))
}

/// Tells whether a text is one of our own markers and nothing else.
fn is_marker(text: &str) -> bool {
    is_marker_start(text) && text.find(']') == Some(text.len() - 1)
}

fn is_marker_start(text: &str) -> bool {
    text.starts_with(MARKER_START)
}

/// Shannon's entropy in bits a byte.
fn entropy(value: &str) -> f64 {
    let mut seen = [0u32; 256];
    value.bytes().for_each(|byte| seen[usize::from(byte)] += 1);
    let total = value.len() as f64;
    seen.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / total).map(|p| -p * p.log2()).sum()
}

fn holds_text(value: Option<&AnyValue>) -> bool {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::String(_) | Value::Bytes(_) | Value::Array(_) | Value::KvList(_)) => true,
        Some(Value::Bool(_) | Value::Int(_) | Value::Double(_)) | None => false,
    }
}

fn size(value: Option<&AnyValue>) -> usize {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::String(text)) => text.len(),
        Some(Value::Bytes(bytes)) => bytes.len(),
        Some(Value::Array(list)) => list.values.iter().map(|value| size(Some(value))).sum(),
        Some(Value::KvList(map)) => map.values.iter().map(|entry| entry.key.len() + size(entry.value.as_ref())).sum(),
        Some(Value::Bool(_) | Value::Int(_) | Value::Double(_)) | None => 0,
    }
}

/// Tells whether a text ends with the mark of a cut: `[cut:4711]`.
pub(crate) fn ends_in_a_cut(text: &str) -> bool {
    let mark = text.strip_suffix(']').and_then(|text| text.rsplit_once("[cut:"));
    mark.is_some_and(|(_, bytes)| !bytes.is_empty() && bytes.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
