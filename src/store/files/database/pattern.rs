//! What two messages of one kind of error have in common.

/// Longest pattern, in characters; what differs only behind it is one.
const MAX_PATTERN: usize = 200;
/// Marks around quoted text, and what closes each.
const QUOTES: &[(char, char)] = &[('"', '"'), ('\'', '\''), ('`', '`'), ('“', '”'), ('‘', '’'), ('«', '»')];

/// Returns a message with placeholders: `<n>` for numbers, `<id>` for ids, `<text>` for what stands in quotes. Only the
/// first line that says something counts, without the error's own type in front, which some emitters put there.
pub(super) fn pattern(message: &str, kind: Option<&str>) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line = kind.and_then(|kind| without_kind(line, kind)).unwrap_or(line);
    let (mut out, mut rest, mut before) = (String::new(), line, ' ');
    while let Some(first) = rest.chars().next() {
        if let Some(end) = quoted(rest, before) {
            out.push_str("<text>");
            (rest, before) = (&rest[end..], '>');
            continue;
        }
        let end = rest.find(|c: char| !is_part_of_word(c)).unwrap_or(rest.len());
        if end == 0 {
            if !(first.is_whitespace() && out.ends_with(' ')) {
                out.push(if first.is_whitespace() { ' ' } else { first });
            }
            (rest, before) = (&rest[first.len_utf8()..], first);
            continue;
        }
        let (word, behind) = rest.split_at(end);
        before = word.chars().next_back().unwrap_or(' ');
        // 1,500 and 10.0.0.1 are one number each.
        let more = if word.bytes().all(|b| b.is_ascii_digit()) { digits_and_marks(behind) } else { 0 };
        rest = &behind[more..];
        out.push_str(&word_pattern(if more > 0 { "0" } else { word }));
    }
    match out.char_indices().nth(MAX_PATTERN) {
        Some((at, _)) => format!("{}…", &out[..at]),
        None => out,
    }
}

/// Takes `openai.RateLimitError: ` or `RateLimitError: ` from a line, where the error is of either type.
fn without_kind<'a>(line: &'a str, kind: &str) -> Option<&'a str> {
    let last = |path: &'a str| path.rsplit(['.', ':']).next().filter(|name| !name.is_empty());
    let (named, message) = line.split_once(": ")?;
    let is_path = named.chars().all(|c| is_part_of_word(c) || matches!(c, '.' | ':'));
    (is_path && last(named)? == kind.rsplit(['.', ':']).next()?).then_some(message.trim_start())
}

fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Returns how long the quoted text is that begins here, marks included. An apostrophe in a word is no mark.
fn quoted(text: &str, before: char) -> Option<usize> {
    let open = text.chars().next()?;
    let close = QUOTES.iter().find(|(mark, _)| *mark == open)?.1;
    if before.is_alphanumeric() {
        return None;
    }
    let inner = &text[open.len_utf8()..];
    let ends = inner.match_indices(close).map(|(at, mark)| at + mark.len());
    let is_end = |end: &usize| !inner[*end..].starts_with(|c: char| c.is_alphanumeric());
    ends.filter(is_end).map(|end| open.len_utf8() + end).next()
}

/// Returns how many bytes go on with a number: `.`, `,` or `:` before digits.
fn digits_and_marks(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut end = 0;
    while bytes.get(end).is_some_and(|b| b".,:".contains(b)) && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        end += 1;
        while bytes.get(end).is_some_and(u8::is_ascii_digit) {
            end += 1;
        }
    }
    end
}

fn word_pattern(word: &str) -> String {
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_mixed = |part: &str| part.contains(|c: char| c.is_ascii_digit()) && !is_digits(part);
    let parts = || word.split(['-', '_']);
    if !word.contains(|c: char| c.is_ascii_digit()) {
        return word.to_owned();
    }
    // 30s, 1500ms
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit());
    if unit.len() < word.len() && unit.len() <= 3 && unit.chars().all(char::is_alphabetic) {
        return format!("<n>{unit}");
    }
    if (word.chars().count() >= 8 || word.starts_with("0x")) && (parts().any(is_mixed) || parts().count() > 3) {
        return "<id>".to_owned();
    }
    let mut out = String::with_capacity(word.len());
    for piece in word.split_inclusive(['-', '_']) {
        let part = piece.trim_end_matches(['-', '_']);
        out.push_str(if is_digits(part) { "<n>" } else { part });
        out.push_str(&piece[part.len()..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_kind_have_one_pattern() {
        for (message, expected) in [
            ("rate limit: retry in 30s (429)", "rate limit: retry in <n>s (<n>)"),
            ("no such file: \"/tmp/a b.txt\"", "no such file: <text>"),
            ("can't open 'x's', isn't there", "can't open <text>, isn't there"),
            ("call_9fK2abc of 01KE9BZH80BGEY5ABZ7D0DHDQ1 failed", "<id> of <id> failed"),
            ("id 6f1c2a90-1f7e-4f0b-9f57-1f2e3d4c5b6a at 0x7f3a", "id <id> at <id>"),
            ("1,500 tokens over 128.5 at 10.0.0.1:443", "<n> tokens over <n> at <n>"),
            ("model gpt-4o, step-2, version_10", "model gpt-4o, step-<n>, version_<n>"),
            ("\n  first line 1\nsecond", "first line <n>"),
            ("unclosed \"quote 7", "unclosed \"quote <n>"),
            ("Zeit überschritten «x»   nach 5 Sekunden", "Zeit überschritten <text> nach <n> Sekunden"),
            ("", ""),
        ] {
            assert_eq!(pattern(message, None), expected, "{message}");
        }
        assert_eq!(pattern(&"é ".repeat(1000), None).chars().count(), 201);
    }

    #[test]
    fn an_errors_type_in_front_of_its_message_makes_no_other_pattern() {
        for (message, kind, expected) in [
            ("RuntimeError: boom 7", "RuntimeError", "boom <n>"),
            ("boom 7", "RuntimeError", "boom <n>"),
            ("openai.RateLimitError: slow down", "RateLimitError", "slow down"),
            ("RateLimitError: slow down", "openai.RateLimitError", "slow down"),
            ("std::io::Error: gone", "Error", "gone"),
            // Not its type, and nothing but it.
            ("ValueError: boom", "RuntimeError", "ValueError: boom"),
            ("RuntimeError:", "RuntimeError", "RuntimeError:"),
            ("a RuntimeError: boom", "RuntimeError", "a RuntimeError: boom"),
            (": boom", "", ": boom"),
        ] {
            assert_eq!(pattern(message, Some(kind)), expected, "{message} of {kind}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_a_pattern_of_one_line(text in "\\PC{0,300}|[\"'`0-9a-f -]{0,60}") {
            let pattern = pattern(&text, Some("E"));
            proptest::prop_assert!(pattern.chars().count() <= MAX_PATTERN + 1);
            proptest::prop_assert!(!pattern.contains('\n'));
        }
    }
}
