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
//! Ids, numbers, booleans and times stay as they are, and so does every byte of a text beside the secret. Text without
//! a secret costs one pass over it. The rules are tables in [`crate::conventions::scrub_rules`].
//!
//! What this can't see: a secret of unknown shape in prose, and one that is split over several records.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use regex::{Regex, RegexSet};
use sha2::{Digest, Sha256};

use crate::conventions::scrub_rules as rules;
use crate::conventions::scrub_rules::Guard;
use crate::model::otlp::{AnyValue, KeyValue, Resource, SpanEvent, Value, base64, set};
use crate::model::record::{Record, RecordKind};
use crate::model::run::UnknownWord;

/// What of prompts, answers, tool arguments and results is kept.
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
        let found = Self::ALL.iter().find(|content| content.as_str() == word);
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

    /// Takes from a record what the policy does not keep, and tells how much that was.
    pub fn scrub(&self, record: &mut Record) -> Scrubbed {
        let mut count = self.scrub_resource(&mut record.resource);
        let mut pass = Pass { scrubber: self, count: Scrubbed::default() };
        let span = &mut record.span;
        pass.text(&mut span.name);
        if let Some(status) = &mut span.status {
            pass.text(&mut status.message);
        }
        pass.attributes(&mut span.attributes);
        span.events.iter_mut().for_each(|event| pass.event(event));
        span.links.iter_mut().for_each(|link| pass.attributes(&mut link.attributes));
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

    fn scrub_resource(&self, resource: &mut Arc<Resource>) -> Scrubbed {
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
        format!("[redacted:{kind}:{}:{a:02x}{b:02x}{c:02x}{d:02x}]", secret.len())
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
    /// An id or an enumeration: not text.
    Untouched,
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
        if rules::UNTOUCHED_KEYS.binary_search(&key).is_ok() {
            return Self::Untouched;
        }
        Self::of_name(name)
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

fn is_name(name: &str, word: &str) -> bool {
    strip_name(name, word).is_some_and(|rest| rest.bytes().all(|byte| matches!(byte, b'-' | b'_' | b' ')))
}

/// Tells whether a word of a camel-case name starts at `at`, or the whole name is in upper case.
fn starts_hump(name: &str, at: usize) -> bool {
    name.as_bytes().get(at).is_some_and(u8::is_ascii_uppercase)
}

/// Tells whether a key holds what a model, a tool or a user said.
fn is_content(key: &str) -> bool {
    if rules::METADATA_KEYS.contains(&key) || rules::UNTOUCHED_KEYS.binary_search(&key).is_ok() {
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
            let metadata = rules::UNTOUCHED_KEYS.binary_search(&attribute.key.as_str()).is_ok()
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
            let class = KeyClass::of(&entry.key, outer);
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
            KeyClass::Untouched => return None,
            KeyClass::Denied => !text.trim().is_empty(),
            KeyClass::Suspect => !text.contains(char::is_whitespace) && looks_random(text, 12),
            KeyClass::Plain => false,
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
        let compiled = &*COMPILED;
        let candidates = compiled.anchors.matches(text);
        let keyed = candidates.matched(compiled.named_json);
        if !candidates.matched_any() {
            return None;
        }
        // By key and inside escapes first; then the text as a whole, for what is no JSON or nested beyond the bound.
        // A telling key is followed into JSON that stands in the middle of a text, too.
        let has_leaves = keyed || text.contains('\\') && text.trim_start().starts_with(['{', '[', '"']);
        let by_leaf = if has_leaves && depth < MAX_JSON_DEPTH { self.clean_json(text, depth) } else { None };
        let rest = self.clean_plain(by_leaf.as_deref().unwrap_or(text), |rule| candidates.matched(rule));
        rest.or(by_leaf)
    }

    /// Replaces all matches of the rules whose anchors were seen.
    fn clean_plain(&mut self, text: &str, is_candidate: impl Fn(usize) -> bool) -> Option<String> {
        let mut found: Vec<(Range<usize>, &'static str)> = Vec::new();
        for (i, rule) in rules::RULES.iter().enumerate().filter(|(i, _)| is_candidate(*i)) {
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
                    KeyClass::Untouched => KeyClass::Plain,
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

/// No rule matches less.
const SHORTEST_SECRET: usize = 8;

/// JSON in JSON in JSON: how deep it is opened. Deeper levels are scanned as plain text.
const MAX_JSON_DEPTH: u32 = 6;

/// The anchors are compiled at the first scan, and each rule when its anchor is first seen: a process that records
/// nothing pays for nothing, and one without secrets for one automaton.
static COMPILED: LazyLock<Compiled> = LazyLock::new(Compiled::new);

struct Compiled {
    /// All anchors, in the order of the rules, and then [`Compiled::named_json`].
    anchors: RegexSet,
    /// `None` for a pattern that does not compile, which a test rules out.
    patterns: Vec<OnceLock<Option<Regex>>>,
    /// Index of the anchor for names that make a difference as keys in JSON.
    named_json: usize,
}

/// Ends of names in [`rules::DENIED_EXACT`], [`rules::DENIED_NAMES`] and [`rules::SUSPECT_NAMES`], as keys.
const NAMED_JSON: &str = r#"(?i-u:[a-z_-]key|pass[-_]?(?:word|wd|phrase|code)|pwd|secret|token|credentials?|jwt|auth|authorization|cookie2?)\\*"[ \t\r\n]*:"#;

impl Compiled {
    fn new() -> Self {
        let anchors = rules::RULES.iter().map(|rule| rule.anchor).chain([NAMED_JSON]);
        Self {
            anchors: RegexSet::new(anchors).unwrap_or_else(|_| RegexSet::empty()),
            patterns: rules::RULES.iter().map(|_| OnceLock::new()).collect(),
            named_json: rules::RULES.len(),
        }
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
    if is_placeholder(value) || is_marker_start(value) {
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
        KeyClass::Untouched | KeyClass::Plain => false,
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
    text.starts_with("[redacted:")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::otlp::{ArrayValue, KvList, Link, Scope, ScopeSpans, Span, Status};
    use prost::Message;

    const KEY: [u8; 32] = [7; 32];

    /// Text of fixed pseudo-random characters: the keys here are made while the tests run, so that nobody's scanner
    /// finds any in the repository.
    fn random(alphabet: &str, length: usize, seed: u64) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                letters[(state >> 33) as usize % letters.len()]
            })
            .collect()
    }

    const HEX: &str = "0123456789abcdef";
    const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

    fn alnum(length: usize) -> String {
        random(ALNUM, length, length as u64 + 1)
    }

    fn hex(length: usize) -> String {
        random(HEX, length, length as u64 + 2)
    }

    fn scrubber(content: Content) -> Scrubber {
        Scrubber::new(content, KEY)
    }

    fn record(span: Span) -> Record {
        Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Scope::default(), span }
    }

    fn attribute(key: &str, value: impl Into<Value>) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value.into()) }) }
    }

    /// Scrubs one text under a key that says nothing.
    fn scrub_text(text: &str) -> String {
        scrub_under("note", text)
    }

    fn scrub_under(key: &str, text: &str) -> String {
        let mut record = record(Span { attributes: vec![attribute(key, text)], ..Span::default() });
        scrubber(Content::Redacted).scrub(&mut record);
        record.span.attr_str(key).unwrap().to_owned()
    }

    fn marker(kind: &str, secret: &str) -> String {
        scrubber(Content::Redacted).marker(kind, secret.as_bytes())
    }

    /// One secret of every shape, by the kind it is told as.
    fn secrets() -> Vec<(&'static str, String)> {
        let jwt = |name: &str| format!("ey{}{}.ey{}{}.{}", "J", name, "J", alnum(40), alnum(43));
        vec![
            ("anthropic", format!("sk-{}-api03-{}-{}AA", "ant", alnum(60), alnum(32))),
            ("openrouter", format!("sk-{}-v1-{}", "or", hex(64))),
            ("langfuse", format!("sk-{}-{}-{}-{}", "lf", hex(8), hex(4), hex(12))),
            ("langfuse", format!("pk-{}-{}-{}-{}", "lf", hex(8), hex(4), hex(12))),
            ("openai", format!("sk-{}-{}_{}", "proj", alnum(40), alnum(70))),
            ("openai", format!("sk-{}-{}", "svcacct", alnum(60))),
            ("openai", format!("sk-{}T3Blbk{}", alnum(20), alnum(22))),
            ("openai", format!("sk-{}", hex(32))),
            ("openai", format!("sk-{}_{}-{}", alnum(9), alnum(8), alnum(7))),
            ("openai", format!("sk-{}-{}", "test", hex(24))),
            ("google", format!("AI{}{}", "za", alnum(35))),
            ("google-oauth", format!("ya{}.{}", 29, alnum(60))),
            ("google-oauth", format!("GOC{}-{}", "SPX", alnum(28))),
            ("huggingface", format!("hf{}{}", "_", alnum(34))),
            ("groq", format!("gsk{}{}", "_", alnum(52))),
            ("xai", format!("xai{}{}", "-", alnum(80))),
            ("replicate", format!("r8{}{}", "_", alnum(37))),
            ("perplexity", format!("pplx{}{}", "-", alnum(48))),
            ("nvidia", format!("nvapi{}{}", "-", alnum(64))),
            ("fireworks", format!("fw{}{}", "_", alnum(24))),
            ("langsmith", format!("lsv2{}pt_{}_{}", "_", hex(32), hex(10))),
            ("logfire", format!("pylf{}v1_us_{}", "_", alnum(44))),
            ("tavily", format!("tvly{}dev-{}", "-", alnum(32))),
            ("pinecone", format!("pcsk{}{}_{}", "_", alnum(6), alnum(63))),
            ("aws-key-id", format!("AK{}{}", "IA", random(UPPER, 16, 3))),
            ("aws-key-id", format!("AS{}{}", "IA", random(UPPER, 16, 4))),
            ("azure", format!("{}JQQJ{}{}ACYeBj{}", alnum(52), "99", alnum(5), alnum(20))),
            ("azure", format!("{}8{}{}", alnum(3), "Q~", alnum(34))),
            ("databricks", format!("da{}{}", "pi", hex(32))),
            ("digitalocean", format!("dop{}{}", "_v1_", hex(64))),
            ("vault", format!("hv{}{}", "s.", alnum(90))),
            ("github", format!("gh{}{}", "p_", alnum(36))),
            ("github", format!("gh{}{}", "o_", alnum(36))),
            ("github", format!("github{}11{}_{}", "_pat_", alnum(20), alnum(59))),
            ("gitlab", format!("gl{}-{}", "pat", alnum(20))),
            ("npm", format!("npm{}{}", "_", alnum(36))),
            ("pypi", format!("py{}-AgEIcHlwaS5vcmc{}", "pi", alnum(60))),
            ("docker", format!("dckr{}{}", "_pat_", alnum(27))),
            (
                "slack",
                format!("xox{}-{}-{}-{}", "b", random("0123456789", 12, 1), random("0123456789", 13, 2), alnum(24)),
            ),
            ("telegram", format!("{}:{}{}", random("123456789", 10, 5), "AA", alnum(33))),
            ("stripe", format!("sk{}{}", "_live_", alnum(24))),
            ("stripe", format!("wh{}{}", "sec_", alnum(32))),
            ("sendgrid", format!("S{}.{}.{}", "G", alnum(22), alnum(43))),
            ("twilio", format!("S{}{}", "K", hex(32))),
            ("mailgun", format!("ke{}-{}", "y", hex(32))),
            ("grafana", format!("gls{}_{}_{}", "a", alnum(32), hex(8))),
            ("sentry", format!("snt{}_{}", "rys", alnum(64))),
            ("linear", format!("lin{}{}", "_api_", alnum(40))),
            ("notion", format!("ntn{}{}", "_", alnum(46))),
            ("shopify", format!("shp{}_{}", "at", hex(32))),
            ("jwt", jwt("hbGciOiJIUzI1NiJ9")),
        ]
    }

    #[test]
    fn every_rule_compiles() {
        assert_eq!(COMPILED.anchors.len(), rules::RULES.len() + 1);
        for (i, rule) in rules::RULES.iter().enumerate() {
            let pattern = COMPILED.pattern(i).unwrap_or_else(|| panic!("{}: {}", rule.kind, rule.pattern));
            assert_eq!(pattern.captures_len(), 2, "{}", rule.pattern);
        }
        assert!(rules::UNTOUCHED_KEYS.is_sorted());
    }

    #[test]
    fn keys_of_providers_are_found_wherever_they_stand() {
        for (kind, secret) in secrets() {
            let marker = marker(kind, &secret);
            for frame in
                ["«»", "the key is «» ok", "(«»)", "a=1\n«»\nb", "x='«»';", "?k=«»&x=1", "[«»,«»]", "тест «» тест"]
            {
                assert_eq!(scrub_text(&frame.replace("«»", &secret)), frame.replace("«»", &marker), "{kind}");
            }
            let json = r#"{"a":[{"b":"line\n«»\tend"}],"n":12345678901234567890123,"c":1.50}"#;
            assert_eq!(scrub_text(&json.replace("«»", &secret)), json.replace("«»", &marker), "{kind}");
            let nested = serde_json::Value::from(json.replace("«»", &secret)).to_string();
            let clean = serde_json::Value::from(json.replace("«»", &marker)).to_string();
            assert_eq!(scrub_text(&nested), clean, "{kind}");
        }
    }

    #[test]
    fn what_stands_around_a_secret_gives_it_away() {
        let words = "correct-horse-battery-staple".to_owned();
        let (random, pass) = (alnum(32), format!("{}!{}", alnum(6), 7));
        let basic = base64::encode(format!("user:{pass}").as_bytes());
        let aws = format!("{}/{}+{}", alnum(18), alnum(10), alnum(10));
        let id = format!("AK{}{}", "IA", self::random(UPPER, 16, 9));
        for (frame, kind, secret) in [
            ("Authorization: Bearer «»", "bearer", &random),
            (r#"curl -H "authorization: bearer «»" https://x.y"#, "bearer", &random),
            ("Authorization: Bearer «»", "bearer", &words),
            ("the header Bearer «» was sent", "bearer", &words),
            ("authorization: Basic «»", "basic-auth", &basic),
            ("proxy-authorization = «»\nnext", "authorization", &random),
            ("Cookie: sid=«»; theme=dark\nHost: x", "", &random),
            ("postgres://app:«»@db.internal:5432/x", "url-password", &pass),
            (r"postgres:\/\/app:«»@db", "url-password", &pass),
            ("export OPENAI_API_KEY=«»", "secret", &random),
            ("DB_PASSWORD=«»", "secret", &pass),
            ("password: «»", "secret", &pass),
            (r#"client_secret = "«»","#, "secret", &random),
            ("{'apiKey': '«»'}", "secret", &random),
            ("https://x.y/z?access_token=«»&b=1", "secret", &random),
            ("tool --api-key «» --verbose", "secret", &random),
            ("token => '«»'", "secret", &random),
            ("AccountName=x;AccountKey=«»;", "secret", &random),
            ("the aws secret key is «» for now", "aws-secret", &aws),
            ("AZURE_OPENAI_KEY «»", "azure", &hex(32)),
        ] {
            let frame_text = frame.replace("«»", secret);
            if kind.is_empty() {
                let cookies = format!("sid={secret}; theme=dark");
                assert_eq!(scrub_text(&frame_text), frame_text.replace(&cookies, &marker("cookie", &cookies)));
                continue;
            }
            assert_eq!(scrub_text(&frame_text), frame.replace("«»", &marker(kind, secret)));
        }
        assert_eq!(
            scrub_text(&format!("{id},{aws}\n")),
            format!("{},{}\n", marker("aws-key-id", &id), marker("aws-secret", &aws))
        );
    }

    #[test]
    fn a_private_key_goes_with_its_body() {
        let (begin, end) = (format!("-----{} RSA PRIVATE KEY-----", "BEGIN"), "-----END RSA PRIVATE KEY-----");
        let pem = format!("{begin}\n{}\n{}\n{end}", alnum(64), alnum(20));
        assert_eq!(scrub_text(&format!("a {pem} b")), format!("a {} b", marker("private-key", &pem)));
        let json = serde_json::json!({"text": format!("a {pem} b")}).to_string();
        assert_eq!(scrub_text(&json), format!("{{\"text\":\"a {} b\"}}", marker("private-key", &pem)));
        let torn = format!("{begin}\n{}\n{}", alnum(64), alnum(20));
        assert_eq!(scrub_text(&torn), marker("private-key", &torn));
        let told = format!("It starts with {begin} and has lines of base64.");
        assert_eq!(scrub_text(&told), told);
    }

    #[test]
    fn a_denied_key_takes_its_whole_value() {
        let m = |text: &str| marker("secret", text);
        for key in ["authorization", "http.request.header.x-api-key", "ai.request.headers.Set-Cookie", "db.PASSWORD"] {
            assert_eq!(scrub_under(key, "my words"), m("my words"), "{key}");
        }
        for (json, secret) in [
            (r#"{"headers":{"Cookie":"«»"},"n":1.0}"#, "a b"),
            (r#"{"headers":{"cookie":["«»"]}}"#, "a b"),
            (r#"[{"user_password" : "«»"}, 17]"#, "correct horse"),
            (r#"{"x":"{\"api_key\": \"«»\"}"}"#, "open sesame"),
            (r#"{"api_key":"«»","cut off"#, "open sesame"),
            (r#"{"next":"a","token":"«»"}"#, "abcd1234efgh5678"),
        ] {
            assert_eq!(scrub_text(&json.replace("«»", secret)), json.replace("«»", &m(secret)));
        }
        for same in [
            r#"{"properties":{"password":{"type":"string","description":"The password of the user"}},"required":["password"]}"#,
            r#"{"password":null,"api_key":"","cookie":17,"token":"hello","next_page_token":"abcd1234efgh5678ijkl"}"#,
            r#"{"tokens":[{"token":"hel","logprob":-0.25,"bytes":[104,101]}],"max_tokens":100}"#,
        ] {
            assert_eq!(scrub_text(same), same);
        }
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        for text in [
            "task-force-of-the-region sk-learn-is-a-library-for-python disk-usage",
            "The bearer of good news; basic understanding of tokens: 1234567890.",
            "Authorization: required for all endpoints. Favorite cookie: chocolate chip.",
            "password: required, token: none, secret: your_secret_here, api_key=YOUR_API_KEY",
            "api_key = os.environ[\"OPENAI_API_KEY\"]; client = OpenAI(api_key=api_key)",
            "password=${DB_PASSWORD} token={{ token }} api_key=<your key> password: \"string\"",
            "https://example.com:8080/@user/path?page=2&next_page_token=a1b2c3d4e5f6a7b8c9d0",
            "max_tokens=4096 input_tokens: 1200 eos_token=\"<|endoftext|>\" tokenizer=cl100k_base",
            "redis://localhost:6379/0 git@github.com:owner/repo.git ssh://git@host/x",
            "550e8400-e29b-41d4-a716-446655440000 01ARZ3NDEKTSV4RRFFQ69G5FAV 1767693600000000001",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 v1.2.3-rc.4+build.5",
            "chatcmpl-AbCdEf0123456789 toolu_01A2B3C4D5 call_a1B2c3D4e5F6 msg_01XFDUDYJgAACzvnptvVoYEL",
            "eyJ is how base64 of JSON begins; AKIA is how key ids begin; -----BEGIN CERTIFICATE-----",
            "partition_key=a1b2c3d4e5f6a7b8 cache_key: 0123456789abcdef0123456789abcdef public_key=ab12cd34ef56",
        ] {
            assert_eq!(scrub_text(text), text);
        }
    }

    #[test]
    fn markers_join_equal_secrets_and_are_left_alone() {
        let secret = format!("gh{}{}", "p_", alnum(36));
        let once = scrub_text(&format!("{secret} {{\"password\":\"x y\"}} api_key={secret} {secret}"));
        assert_eq!(once.matches(&marker("github", &secret)).count(), 3);
        assert_eq!(scrub_text(&once), once);
        assert_eq!(scrub_under("authorization", &marker("secret", "a")), marker("secret", "a"));
        let other = Scrubber::new(Content::Redacted, [8; 32]).marker("github", secret.as_bytes());
        assert_ne!(other, marker("github", &secret));
    }

    #[test]
    fn overlapping_secrets_go_as_one() {
        let token = format!("gh{}{}", "p_", alnum(36));
        let password = format!("{token}!and#more");
        assert_eq!(
            scrub_text(&format!("password={password} x")),
            format!("password={} x", marker("github", &password))
        );
        assert_eq!(
            scrub_text(&format!("Cookie: a={token}; b=1")),
            format!("Cookie: {}", marker("cookie", &format!("a={token}; b=1")))
        );
    }

    #[test]
    fn the_hash_is_hmac_sha256() {
        // RFC 4231, test case 2, its key filled up with zeros as the algorithm does.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let hash = hmac_sha256(&key, b"what do ya want for nothing?");
        let text: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    fn all_places(text: &str) -> Record {
        let nested = Value::KvList(KvList {
            values: vec![
                attribute("k", text),
                attribute(text, 1i64),
                attribute(
                    "l",
                    Value::Array(ArrayValue { values: vec![Value::from(text).into(), Value::Int(5).into()] }),
                ),
            ],
        });
        let attributes = || {
            vec![
                attribute("note", text),
                attribute(text, "x"),
                attribute("json", format!("{{\"a\":[\"{text}\"],\"{text}\":1}}")),
                attribute("twice", serde_json::Value::from(format!("{{\"a\":\"\\n{text}\"}}")).to_string()),
                attribute("bytes", Value::Bytes(text.as_bytes().to_vec())),
                attribute("nested", nested.clone()),
                attribute("gen_ai.input.messages", nested.clone()),
                attribute("gen_ai.tool.call.arguments", format!("{{\"q\":\"{text}\"}}")),
                attribute("exception.stacktrace", format!("at main\nError: {text}\n  at x")),
            ]
        };
        Record {
            kind: RecordKind::Ended,
            resource: Arc::new(Resource { attributes: attributes(), dropped_attributes_count: 0 }),
            scope: Scope { name: text.into(), version: text.into(), attributes: attributes(), ..Scope::default() },
            span: Span {
                trace_id: vec![1; 16],
                span_id: vec![2; 8],
                name: format!("chat {text}"),
                attributes: attributes(),
                events: vec![SpanEvent { name: text.into(), attributes: attributes(), ..SpanEvent::default() }],
                links: vec![Link { trace_id: vec![3; 16], attributes: attributes(), ..Link::default() }],
                status: Some(Status { message: format!("failed: {text}"), code: 2 }),
                ..Span::default()
            },
        }
    }

    fn everything(record: &Record) -> Vec<u8> {
        let frame =
            ScopeSpans { scope: Some(record.scope.clone()), spans: vec![record.span.clone()], ..ScopeSpans::default() };
        let mut bytes = serde_json::to_vec(&frame).unwrap();
        bytes.extend(serde_json::to_vec(&*record.resource).unwrap());
        bytes.extend(frame.encode_to_vec());
        bytes.extend(record.resource.encode_to_vec());
        bytes
    }

    fn holds(bytes: &[u8], needle: &str) -> bool {
        bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
    }

    #[test]
    fn no_place_of_a_record_keeps_a_canary() {
        for (kind, secret) in secrets() {
            for content in [Content::Redacted, Content::None] {
                let mut record = all_places(&secret);
                let before = record.clone();
                let scrubbed = scrubber(content).scrub(&mut record);
                let bytes = everything(&record);
                assert!(!holds(&bytes, &secret) && !holds(&bytes, &secret[..secret.len() - 4]), "{kind} {content}");
                assert!(!holds(&bytes, &base64::encode(secret.as_bytes())), "{kind} {content}");
                assert!(scrubbed.removed > 30 && scrubbed.bytes_cut as usize > 30 * secret.len(), "{scrubbed:?}");
                assert_eq!(record.span.trace_id, before.span.trace_id);
                let again = record.clone();
                scrubber(content).scrub(&mut record);
                assert_eq!(record, again, "{kind}: a second pass changes nothing");
            }
        }
    }

    #[test]
    fn full_keeps_every_byte() {
        for (_, secret) in secrets() {
            let mut record = all_places(&secret);
            let before = record.clone();
            assert_eq!(scrubber(Content::Full).scrub(&mut record), Scrubbed::default());
            assert_eq!(record, before);
        }
    }

    #[test]
    fn none_leaves_metadata_and_no_content() {
        let said = "what the user said";
        let content = [
            "gen_ai.input.messages",
            "gen_ai.output.messages",
            "gen_ai.system_instructions",
            "gen_ai.tool.definitions",
            "gen_ai.tool.call.arguments",
            "gen_ai.tool.call.result",
            "gen_ai.retrieval.documents",
            "gen_ai.retrieval.query.text",
            "gen_ai.prompt",
            "gen_ai.prompt.0.content",
            "gen_ai.completion.0.content",
            "gen_ai.prompt.variable.city",
            "input.value",
            "output.value",
            "llm.input_messages.0.message.content",
            "traceloop.entity.input",
            "traceloop.entity.output",
            "ai.prompt",
            "ai.prompt.messages",
            "ai.response.text",
            "ai.toolCall.args",
            "ai.toolCall.result",
            "runspan.input",
            "runspan.output",
            "mlflow.spanInputs",
            "langfuse.observation.output",
            "langfuse.trace.input",
            "lmnr.span.input",
            "genkit:input",
            "gcp.vertex.agent.llm_request",
            "haystack.component.output",
            "pydantic_ai.all_messages",
            "user_prompt",
            "db.query.text",
            "logfire.msg",
            "tool.result",
            "function_args",
        ];
        let kept = vec![
            attribute("gen_ai.operation.name", "chat"),
            attribute("gen_ai.request.model", "gpt-4o"),
            attribute("gen_ai.prompt.name", "greeting"),
            attribute("gen_ai.usage.input_tokens", 211i64),
            attribute("gen_ai.usage.output_tokens", "37"),
            attribute("gen_ai.response.id", "chatcmpl-1"),
            attribute("gen_ai.completion.0.finish_reason", "stop"),
            attribute("llm.cost.prompt", "0.25"),
            attribute("gen_ai.tool.name", "search"),
            attribute("error.message", "no such city"),
            attribute("user.id", "u-1"),
        ];
        let mut attributes = kept.clone();
        attributes.extend(content.map(|key| attribute(key, said)));
        let log = |name: &str, level: &str| SpanEvent {
            name: name.into(),
            attributes: vec![attribute("level", level), attribute("message", said), attribute("attempt", 2i64)],
            ..SpanEvent::default()
        };
        let choice = SpanEvent {
            name: "gen_ai.choice".into(),
            attributes: vec![attribute("index", 0i64), attribute("anything", said), attribute("role", "assistant")],
            ..SpanEvent::default()
        };
        let mut record = record(Span {
            name: "chat gpt-4o".into(),
            attributes,
            events: vec![log(&format!("log: {said}"), "INFO"), log("retry", "INFO"), choice],
            status: Some(Status { message: "no such city".into(), code: 2 }),
            ..Span::default()
        });
        let scrubbed = scrubber(Content::None).scrub(&mut record);
        assert!(!holds(&everything(&record), said));
        let mut expected = kept;
        expected.push(attribute(CONTENT_MARK, "none"));
        assert_eq!(record.span.attributes, expected);
        let names: Vec<&str> = record.span.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["[removed:23]", "retry", "gen_ai.choice"]);
        assert_eq!(record.span.events[1].attributes, [attribute("level", "INFO"), attribute("attempt", 2i64)]);
        assert_eq!(record.span.events[2].attributes, [attribute("index", 0i64), attribute("role", "assistant")]);
        assert_eq!(scrubbed.removed as usize, content.len() + 4);
        assert_eq!(record.span.status.map(|status| status.message).as_deref(), Some("no such city"));

        let mut failed = self::record(Span { events: vec![log("it broke: no such city", "ERROR")], ..Span::default() });
        scrubber(Content::None).scrub(&mut failed);
        assert_eq!(failed.span.events, [log("it broke: no such city", "ERROR")]);
    }

    #[test]
    fn binary_data_with_a_secret_goes_whole() {
        let scrub = |bytes: &[u8]| {
            let mut record =
                record(Span { attributes: vec![attribute("b", Value::Bytes(bytes.to_vec()))], ..Span::default() });
            scrubber(Content::Redacted).scrub(&mut record);
            record.span.attr("b").cloned()
        };
        let secret = format!("\u{1}{}", secrets()[0].1);
        let dirty = [&[0xff, 0xfe], secret.as_bytes()].concat();
        let marker = scrubber(Content::Redacted).marker("bytes", &dirty);
        assert_eq!(scrub(&dirty), Some(Value::Bytes(marker.into_bytes())));
        let clean = [0xff, 0xd8, 0xff, 0xe0, 0, 16, b'J', b'F', b'I', b'F'];
        assert_eq!(scrub(&clean), Some(Value::Bytes(clean.to_vec())));
    }

    #[test]
    fn a_shared_resource_is_copied_once_and_only_if_it_changes() {
        let scrubber = scrubber(Content::Redacted);
        let clean = Arc::new(Resource { attributes: vec![attribute("service.name", "x")], ..Resource::default() });
        let dirty = Arc::new(Resource { attributes: vec![attribute("api_key", "x y")], ..Resource::default() });
        let scrub = |resource: &Arc<Resource>| {
            let mut record = record(Span::default());
            record.resource = Arc::clone(resource);
            let scrubbed = scrubber.scrub(&mut record);
            (record.resource, scrubbed.removed)
        };
        assert!(Arc::ptr_eq(&scrub(&clean).0, &clean));
        let (first, removed) = scrub(&dirty);
        assert_eq!((removed, first.attr("api_key").unwrap().as_str()), (1, Some(marker("secret", "x y").as_str())));
        let (second, removed) = scrub(&dirty);
        assert!(Arc::ptr_eq(&first, &second) && removed == 1);
        assert_eq!(dirty.attr("api_key").unwrap().as_str(), Some("x y"));
    }

    #[test]
    fn a_long_value_is_cut_after_the_scan() {
        let secret = format!("gh{}{}", "p_", alnum(36));
        let text = format!("{}{secret}é", "ä".repeat(20));
        let mut record = record(Span { attributes: vec![attribute("note", text)], ..Span::default() });
        let scrubbed = scrubber(Content::Redacted).limits(Limits { value_bytes: 51 }).scrub(&mut record);
        let whole = format!("{}{}é", "ä".repeat(20), marker("github", &secret));
        assert_eq!(record.span.attr_str("note").unwrap(), format!("{}[cut:{}]", &whole[..51], whole.len() - 51));
        assert_eq!(scrubbed, Scrubbed { removed: 2, bytes_cut: (secret.len() + whole.len() - 51) as u64 });
    }

    #[test]
    fn ids_hashes_times_and_versions_survive() {
        let base32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let scrubber = scrubber(Content::Redacted);
        for i in 0..10_000 {
            let seed = i + 11;
            let hex = |length| random(HEX, length, seed * 31 + length as u64);
            let number = 1_767_693_600_000_000_000 + seed * 982_451_653;
            let ids = [
                hex(32),
                hex(16),
                hex(64),
                hex(40),
                format!("01{}", random(base32, 24, seed)),
                format!("{}-{}-4{}-a{}-{}", hex(8), hex(4), hex(3), hex(3), hex(12)),
                number.to_string(),
                (number / 1_000_000).to_string(),
                format!("{}.{}.{}-rc.{}+{}", i % 9, i % 31, i, i % 7, hex(7)),
                format!("call_{} chatcmpl-{} toolu_01{}", alnum(24), random(ALNUM, 29, seed), random(ALNUM, 22, seed)),
            ];
            let text =
                format!("run {} took step {} of {} at {} in {{\"id\":\"{}\"}}", ids[4], ids[1], ids[0], ids[6], ids[5]);
            let mut attributes: Vec<KeyValue> = ids.iter().map(|id| attribute("value", id.as_str())).collect();
            attributes.push(attribute("json", serde_json::json!({"ids": ids, "text": text, "n": number}).to_string()));
            attributes.push(attribute("text", text));
            let mut record = record(Span { name: ids[0].clone(), attributes, ..Span::default() });
            let before = record.clone();
            assert_eq!(scrubber.scrub(&mut record), Scrubbed::default(), "{:?}", record.span.attributes);
            assert_eq!(record, before);
        }
    }

    #[test]
    fn spans_without_secrets_pass_unchanged() {
        let scrubber = scrubber(Content::Redacted);
        let words =
            ["the", "token", "limit", "password", "reset", "page", "key", "secret", "of", "success", "is", "plain:"];
        for i in 0..2_000u64 {
            let prose: Vec<&str> = (0..60).map(|j| words[((i * 7 + j * j * 13 + j) % 12) as usize]).collect();
            let prose = prose.join(" ");
            let mut span = Span {
                trace_id: vec![i as u8; 16],
                name: format!("chat model-{i}"),
                start_time_unix_nano: 1_767_693_600_000_000_000 + i,
                ..Span::default()
            };
            for (key, value) in [
                ("gen_ai.input.messages", serde_json::json!([{"role": "user", "parts": [{"type": "text", "content": prose}]}]).to_string()),
                ("gen_ai.tool.definitions", serde_json::json!([{"name": "login", "parameters": {"properties": {"password": {"type": "string"}}}}]).to_string()),
                ("gen_ai.tool.call.arguments", serde_json::json!({"url": format!("https://host:{i}/a?token_count={i}"), "max_tokens": i}).to_string()),
                ("exception.stacktrace", format!("at key={i} (file.py:{i})\n  token: {prose}")),
                ("gen_ai.response.id", format!("chatcmpl-{}", random(ALNUM, 29, i + 1))),
            ] {
                span.set_attr(key, value);
            }
            let mut record = record(span);
            let before = record.clone();
            assert_eq!(scrubber.scrub(&mut record), Scrubbed::default());
            assert_eq!(record, before);
        }
    }

    #[test]
    fn hostile_text_takes_linear_time() {
        for unit in [
            "token=",
            "sk-a1B2c3D4e5F6g7H8i9J0-",
            "-----BEGIN PRIVATE KEY-----",
            "://a:b",
            "eyJaaaaaaaaaaaa.",
            "{\"key\":[",
            "bearer a1a1a1a1a1a1a1 ",
            "\\",
            "\"api_key\":",
            "[{",
        ] {
            let started = std::time::Instant::now();
            scrub_text(&unit.repeat(300_000 / unit.len()));
            scrub_text(&format!("{{\"api_key\":{}", unit.repeat(300_000 / unit.len())));
            assert!(started.elapsed().as_secs() < 20, "{unit}: {:?}", started.elapsed());
        }
    }
}
