//! One walk over one record.

use std::ops::Range;

use super::find::{COMPILED, Candidates, JSON_NAMES, SHORTEST_SECRET, looks_random};
use super::json::{JsonWalk, decode, encode, string_end};
use super::keys::{KeyClass, is_content, last_segment, may_hide};
use super::{Content, Scrubbed, Scrubber, is_marker};
use crate::conventions::{names, scrub_rules as rules};
use crate::model::otlp::{AnyValue, KeyValue, SpanEvent, Value};

/// JSON in JSON in JSON: how deep it is opened. Deeper levels are scanned as plain text.
const MAX_JSON_DEPTH: u32 = 6;

/// One walk over one record.
pub(super) struct Pass<'a> {
    pub(super) scrubber: &'a Scrubber,
    pub(super) count: Scrubbed,
}

impl Pass<'_> {
    pub(super) fn attributes(&mut self, attributes: &mut Vec<KeyValue>) {
        if self.scrubber.content == Content::None {
            self.remove_content(attributes);
        }
        self.entries(attributes, KeyClass::Plain);
    }

    pub(super) fn event(&mut self, event: &mut SpanEvent) {
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

    /// Removes the reason for a failure.
    pub(super) fn remove_reason(&mut self, attributes: &mut Vec<KeyValue>) {
        attributes.retain(|attribute| {
            let is_it = attribute.key == names::ERROR_MESSAGE;
            if is_it {
                self.count.count(size(attribute.value.as_ref()));
            }
            !is_it
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
            let (class, may_hide) = if outer == KeyClass::Plain {
                KeyClass::of_attribute(&entry.key)
            } else {
                (KeyClass::of(&entry.key, outer), may_hide(&entry.key))
            };
            if let Some(value) = &mut entry.value {
                self.value(value, class);
            }
            if may_hide {
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

    pub(super) fn text(&mut self, text: &mut String) {
        self.text_under(text, KeyClass::Plain);
    }

    pub(super) fn text_under(&mut self, text: &mut String, class: KeyClass) {
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
    pub(super) fn clean(&mut self, text: &str, class: KeyClass, depth: u32) -> Option<String> {
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
