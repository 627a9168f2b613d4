//! Where in a JSON text the walk stands.

use std::borrow::Cow;

use super::keys::KeyClass;

/// Where in a JSON text the walk stands.
#[derive(Default)]
pub(super) struct JsonWalk {
    /// The open objects and lists, with the class of what stands in them.
    open: Vec<(bool, KeyClass)>,
    /// Class of the next value in the innermost object.
    next: Option<KeyClass>,
    is_after_colon: bool,
}

impl JsonWalk {
    pub(super) fn sign(&mut self, byte: u8) {
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
    pub(super) fn string(&mut self, text: &str) -> KeyClass {
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
pub(super) fn string_end(bytes: &[u8], mut at: usize) -> usize {
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

pub(super) fn decode(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    // A broken escape is not ours to mend: the raw text is scanned as it is.
    serde_json::from_str(&format!("\"{raw}\"")).map_or(Cow::Borrowed(raw), Cow::Owned)
}

pub(super) fn encode(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&quoted).to_owned()
}
