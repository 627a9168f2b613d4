//! Finds secrets by their shape: anchors first, then the patterns of the rules whose anchors were seen.

use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use regex::Regex;

use super::anchors::Anchors;
use super::keys::{KeyClass, strip_name};
use super::{MARKER_START, is_marker_start};
use crate::conventions::scrub_rules as rules;
use crate::conventions::scrub_rules::{Guard, Place, Reach};
use crate::model::otlp::base64;

/// No rule matches less.
pub(super) const SHORTEST_SECRET: usize = 8;

/// No secret has less behind its prefix.
const SHORTEST_BODY: usize = 8;

/// How far behind its anchor a name may end in `key`.
const KEY_WITHIN: usize = 64;

/// The table of the anchors is made at the first scan, and each pattern when its anchor is first seen: a process that
/// records nothing pays for nothing, and one without secrets for one table.
pub(super) static COMPILED: LazyLock<Compiled> = LazyLock::new(Compiled::new);

pub(super) struct Compiled {
    /// Finds all anchors, in any case.
    anchors: Anchors,
    /// The literals by their numbers there, each with the rules that it is an anchor of.
    literals: Vec<(&'static str, Vec<(usize, Place)>)>,
    /// The rules that are looked for in ids, too.
    pub(super) everywhere: Candidates,
    /// `None` for a pattern that does not compile, which a test rules out.
    patterns: Vec<OnceLock<Option<Regex>>>,
}

/// In the place of a rule: a name that makes a difference as a key in JSON.
pub(super) const JSON_NAMES: usize = rules::RULES.len();

/// The rules whose anchors were seen in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates([u64; 3]);

const _: () = assert!(JSON_NAMES < 3 * 64, "more rules than bits");

impl Candidates {
    fn add(&mut self, rule: usize) {
        self.0[rule / 64] |= 1 << (rule % 64);
    }

    pub(super) fn holds(&self, rule: usize) -> bool {
        self.0[rule / 64] & (1 << (rule % 64)) != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0 == [0; 3]
    }

    pub(super) fn and(&self, other: &Self) -> Self {
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
    pub(super) fn candidates(&self, text: &str) -> Candidates {
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

    pub(super) fn pattern(&self, rule: usize) -> Option<&Regex> {
        let compile = || {
            let rule = &rules::RULES[rule];
            let boundary = if rule.at_boundary { rules::BOUNDARY } else { "" };
            Regex::new(&format!("{boundary}{}", rule.pattern)).ok()
        };
        self.patterns[rule].get_or_init(compile).as_ref()
    }

    /// Calls `found` with the place of every secret of one rule.
    pub(super) fn find(&self, rule: usize, text: &str, mut found: impl FnMut(Range<usize>)) {
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
pub(super) fn looks_random(value: &str, shortest: usize) -> bool {
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

/// Shannon's entropy in bits a byte.
fn entropy(value: &str) -> f64 {
    let mut seen = [0u32; 256];
    value.bytes().for_each(|byte| seen[usize::from(byte)] += 1);
    let total = value.len() as f64;
    seen.iter().filter(|n| **n > 0).map(|n| f64::from(*n) / total).map(|p| -p * p.log2()).sum()
}
