//! How things are printed: escapes, colours, width, JSON and YAML.
//!
//! Names, errors and contents come from programs and models that nobody vouches for. [`safe`] makes every character
//! visible that a terminal would act on or that a reader would not see; tables, trees and messages hold only text that
//! went through it. JSON and YAML keep the value and escape the same characters by their own rules.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};
use runspan::model::words::grouped;
use runspan::model::{NanoUsd, RunStatus, StepStatus, Tokens};
use serde::Serialize;
use serde_json::Value as Json;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Width where nothing tells a better one.
const DEFAULT_WIDTH: usize = 100;
/// Where nothing is cut to a screen, a text that has no end is cut here.
const MAX_ROOM: usize = 2_000;
/// Below this a table cannot say anything.
const MIN_WIDTH: usize = 40;

/// What the place that output goes to can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Columns, for what is wrapped.
    pub width: usize,
    /// Whether what is wider is cut: a program that reads the output wants all of it.
    pub cuts: bool,
    /// Whether colours are shown.
    pub colour: bool,
    /// Whether a person looks at it.
    pub is_terminal: bool,
}

impl Look {
    /// Asks standard output and the environment.
    pub fn detect() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|width| *width > 0);
        let terminal = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let told = columns.or_else(|| if is_terminal { terminal() } else { None });
        let width = told.unwrap_or(DEFAULT_WIDTH).max(MIN_WIDTH);
        Self { width, cuts: is_terminal || told.is_some(), colour: wants_colour(is_terminal), is_terminal }
    }

    /// Returns how many columns there are for what would be cut.
    pub fn room(self) -> usize {
        if self.cuts { self.width } else { MAX_ROOM }
    }

    /// Returns `text` in a style, where colours are shown.
    pub fn paint<'a>(self, style: Style, text: &'a str) -> Cow<'a, str> {
        if self.colour && !style.is_plain() && !text.is_empty() {
            Cow::Owned(format!("{style}{text}{style:#}"))
        } else {
            Cow::Borrowed(text)
        }
    }
}

fn wants_colour(is_terminal: bool) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_set("NO_COLOR") {
        return false;
    }
    if std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0") {
        return true;
    }
    is_terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Words that matter less.
pub const DIM: Style = Style::new().dimmed();
/// Words that matter more.
pub const BOLD: Style = Style::new().bold();
/// What went wrong.
pub const RED: Style = AnsiColor::Red.on_default();
/// What needs a look.
pub const YELLOW: Style = AnsiColor::Yellow.on_default();
/// What is fine.
pub const GREEN: Style = AnsiColor::Green.on_default();
/// Work of a model.
pub const BLUE: Style = AnsiColor::Blue.on_default();
/// Work of a tool.
pub const MAGENTA: Style = AnsiColor::Magenta.on_default();
/// What is under way.
pub const CYAN: Style = AnsiColor::Cyan.on_default();

/// Returns a status' sign and style.
pub fn run_status(status: RunStatus) -> (&'static str, Style) {
    match status {
        RunStatus::Running => ("●", CYAN),
        RunStatus::Waiting => ("◌", YELLOW),
        RunStatus::Success => ("✓", GREEN),
        RunStatus::Error => ("✗", RED),
        RunStatus::Timeout => ("◷", RED),
        RunStatus::Cancelled => ("⊘", YELLOW),
        RunStatus::Crashed => ("†", RED),
    }
}

/// Returns a status' sign and style.
pub fn step_status(status: StepStatus) -> (&'static str, Style) {
    match status {
        StepStatus::Running => run_status(RunStatus::Running),
        StepStatus::Success => run_status(RunStatus::Success),
        StepStatus::Error => run_status(RunStatus::Error),
        StepStatus::Timeout => run_status(RunStatus::Timeout),
        StepStatus::Cancelled => run_status(RunStatus::Cancelled),
        StepStatus::Crashed => run_status(RunStatus::Crashed),
    }
}

/// Tells whether a terminal would act on the character, or a reader would not see it.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Makes text fit for one line of a terminal: what would act or hide is shown as `\n` or `\u{1b}`.
pub fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_unsafe(c) => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Returns the columns that safe text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Cuts safe text to `columns`, with `…` where something is missing.
pub fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    // A byte takes at most one column, which spares measuring short text.
    if text.len() <= columns || text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let (mut out, mut used) = (String::new(), 0);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used + 1 > columns {
            break;
        }
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    Cow::Owned(out)
}

/// Puts commas between thousands; from a million on three digits are enough.
pub fn count(number: u64) -> String {
    match number {
        0..1_000_000 => grouped(number),
        1_000_000..1_000_000_000 => format!("{:.2}M", number as f64 / 1e6),
        _ => format!("{:.2}G", number as f64 / 1e9),
    }
}

/// Counts things by their name in the singular.
pub fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{} {what}s", count(number)) }
}

/// Formats a number of bytes.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let (mut number, mut unit) = (bytes as f64 / 1024.0, 0);
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS[unit])
}

/// Formats dollars: cents for large amounts, and for small ones what is there up to a millionth.
pub fn money(amount: NanoUsd) -> String {
    let usd = amount.as_usd();
    match usd.abs() {
        0.0 => "$0".to_owned(),
        size if size < 0.000_001 => format!("${amount}"),
        size if size < 0.01 => format!("${usd:.6}"),
        size if size < 1.0 => format!("${usd:.4}"),
        _ => format!("${usd:.2}"),
    }
}

/// Formats tokens in and out: `1,500+800`; empty when nobody reported any.
pub fn tokens(tokens: Option<Tokens>) -> String {
    let Some(tokens) = tokens else { return String::new() };
    match (tokens.prompt, tokens.completion, tokens.total) {
        (Some(prompt), Some(completion), _) => format!("{}+{}", count(prompt), count(completion)),
        (Some(prompt), None, _) => format!("{}+?", count(prompt)),
        (None, Some(completion), _) => format!("?+{}", count(completion)),
        (None, None, Some(total)) => count(total),
        (None, None, None) => String::new(),
    }
}

/// Formats an error of a run or step as `type: message`.
pub fn error_text(error: &runspan::model::ErrorInfo) -> String {
    match (error.kind.as_deref(), error.message.as_deref()) {
        (Some(kind), Some(message)) if kind != "_OTHER" && !message.starts_with(kind) => format!("{kind}: {message}"),
        (_, Some(message)) => message.to_owned(),
        (Some(kind), None) => kind.to_owned(),
        (None, None) => "no reason given".to_owned(),
    }
}

/// Tells whether an error has neither a type nor a message: of a cancelled run or step that says all.
pub fn says_nothing(error: &runspan::model::ErrorInfo) -> bool {
    error.kind.is_none() && error.message.is_none()
}

/// Breaks text between words into lines of at most `columns`; what was broken before stays so, and what is indented.
pub fn wrapped(text: &str, columns: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split('\n') {
        let words = line.trim_start_matches(' ');
        let mut used = line.len() - words.len();
        out.push_str(&line[..used]);
        for (place, word) in words.split(' ').enumerate() {
            if place > 0 {
                let fits = used + 1 + width(word) <= columns;
                out.push(if fits { ' ' } else { '\n' });
                used = if fits { used + 1 } else { 0 };
            }
            out.push_str(word);
            used += width(word);
        }
        out.push('\n');
    }
    out.pop();
    out
}

/// Breaks text that stands behind `indent` columns of a line of `columns`; what is broken off stands behind as many.
pub fn wrapped_behind(indent: usize, text: &str, columns: usize) -> String {
    wrapped(text, columns.saturating_sub(indent)).replace('\n', &format!("\n{}", " ".repeat(indent)))
}

/// Says in a few words what a content is about: a text itself, the last thing said in a conversation, else the JSON.
pub fn gist(content: &Json) -> String {
    let said = match content {
        Json::String(text) => return text.clone(),
        Json::Array(messages) => messages.iter().rev().find_map(said_in),
        other => said_in(other),
    };
    said.unwrap_or_else(|| content.to_string())
}

/// Returns the text of a message, else what a tool answered in it, else the tool calls that it asks for.
fn said_in(message: &Json) -> Option<String> {
    let parts = match message.get("parts").or_else(|| message.get("content"))? {
        Json::String(text) => return Some(text.clone()),
        Json::Array(parts) => parts,
        _ => return None,
    };
    let text = |part: &Json| {
        let text = ["content", "text"].iter().find_map(|key| part.get(key).and_then(Json::as_str));
        text.or_else(|| part.as_str()).map(str::to_owned)
    };
    let answer = |part: &Json| part.get("response").and_then(Json::as_str).map(str::to_owned);
    let call = |part: &Json| {
        let name = part.get("name").and_then(Json::as_str)?;
        Some(format!("{name} {}", part.get("arguments").unwrap_or(&Json::Null)))
    };
    let calls: Vec<String> = parts.iter().filter_map(call).collect();
    let said = parts.iter().rev().find_map(text).or_else(|| parts.iter().rev().find_map(answer));
    said.or_else(|| (!calls.is_empty()).then(|| calls.join(", ")))
}

/// Formats a value as JSON over several lines, without a character that a terminal acts on.
pub fn json_pretty(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(escape_json(text))
}

/// Formats a value as JSON on one line, without a character that a terminal acts on.
pub fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = escape_json(serde_json::to_string(value)?);
    text.push('\n');
    Ok(text)
}

/// Formats rows as CSV (RFC 4180, with line feeds), without a character that a terminal acts on.
pub fn csv(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells.map(csv_cell).collect();
        format!("{}\n", cells.join(","))
    };
    let mut out = line(&mut columns.iter().copied());
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

fn csv_cell(text: &str) -> String {
    let clean = |text: &str| -> String {
        let lines: Vec<std::borrow::Cow<'_, str>> = text.split('\n').map(safe).collect();
        lines.join("\n")
    };
    let text = clean(text);
    // A space at either end would not survive everywhere; what begins with these is a formula to a spreadsheet.
    let is_formula = text.starts_with(['=', '+', '@', '-']) && text.parse::<f64>().is_err();
    let text = if is_formula { format!("'{text}") } else { text };
    let needs_quotes = text.contains([',', '"', '\n']) || text.trim() != text;
    if needs_quotes { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// Such characters stand only inside strings: all of JSON's own are ASCII, and its encoder escapes C0.
fn escape_json(text: String) -> String {
    let acts = |c: char| c != '\n' && is_unsafe(c);
    if !text.chars().any(acts) {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Formats a value as YAML, without a character that a terminal acts on.
pub fn yaml(value: &impl Serialize) -> serde_json::Result<String> {
    let mut out = String::new();
    yaml_value(&serde_json::to_value(value)?, 0, &mut out);
    Ok(out)
}

/// Writes a value that begins on the current line and ends with a line break. Its depth is bounded by what
/// `serde_json` reads, 128.
fn yaml_value(value: &Json, indent: usize, out: &mut String) {
    match value {
        Json::Object(map) if !map.is_empty() => {
            for (place, (key, value)) in map.iter().enumerate() {
                if place > 0 {
                    out.extend(std::iter::repeat_n(' ', indent));
                }
                out.push_str(&yaml_text(key));
                out.push(':');
                yaml_below(value, indent, out);
            }
        }
        Json::Array(list) if !list.is_empty() => {
            for (place, value) in list.iter().enumerate() {
                if place > 0 {
                    out.extend(std::iter::repeat_n(' ', indent));
                }
                out.push_str("- ");
                yaml_value(value, indent + 2, out);
            }
        }
        Json::String(text) => {
            out.push_str(&yaml_text(text));
            out.push('\n');
        }
        // Numbers, `null`, `true`, `{}` and `[]` are the same in both.
        other => {
            let _ = writeln!(out, "{other}");
        }
    }
}

fn yaml_below(value: &Json, indent: usize, out: &mut String) {
    let is_block = match value {
        Json::Object(map) => !map.is_empty(),
        Json::Array(list) => !list.is_empty(),
        _ => false,
    };
    if is_block {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent + 2));
        yaml_value(value, indent + 2, out);
    } else {
        out.push(' ');
        yaml_value(value, indent, out);
    }
}

/// Plain words stay plain; all else is quoted, so that no text is taken for a number, a time or a `no`.
fn yaml_text(text: &str) -> String {
    const RESERVED: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str());
    if is_word {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_unsafe(c) => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prose_is_broken_between_words() {
        assert_eq!(wrapped("one two three\nfour", 8), "one two\nthree\nfour");
        assert_eq!(wrapped("a-word-that-is-too-long for it", 8), "a-word-that-is-too-long\nfor it");
        assert_eq!(wrapped("", 8), "");
        assert_eq!(wrapped_behind(2, "one two three", 9), "one two\n  three");
    }

    #[test]
    fn what_a_terminal_acts_on_is_shown_and_not_sent() {
        let hostile = "\x1b]52;c;x\x07a\u{9b}2J\rb\x08\u{202e}c\u{200b}d\ne\u{e0041}\u{7f}";
        let shown = r"\u{1b}]52;c;x\u{7}a\u{9b}2J\rb\u{8}\u{202e}c\u{200b}d\ne\u{e0041}\u{7f}";
        assert_eq!(safe(hostile), shown);
        assert_eq!(safe("Zürich 東京 🙂 e\u{301}"), "Zürich 東京 🙂 e\u{301}");
        for text in [json_line(&hostile).unwrap(), yaml(&hostile).unwrap(), json_pretty(&json!([hostile])).unwrap()] {
            assert!(!text.chars().any(|c| c != '\n' && is_unsafe(c)), "{text:?}");
        }
        let back: String = serde_json::from_str(&json_line(&hostile).unwrap()).unwrap();
        assert_eq!(back, hostile);
        let back: String = serde_saphyr::from_str(&yaml(&hostile).unwrap()).unwrap();
        assert_eq!(back, hostile);
    }

    #[test]
    fn yaml_reads_back_as_the_same_value() {
        let value = json!({"a": [], "b": {}, "c": [{"x": 1, "y": ["no", "2026-01-06T10:00:00Z", null]}, [1.5, [true]]],
            "no": "on", "": "  ", "deep key": {"e": {"f": "a: b #c"}}});
        let text = yaml(&value).unwrap();
        assert_eq!(serde_saphyr::from_str::<Json>(&text).unwrap(), value, "{text}");
        assert_eq!(
            yaml(&json!({"run_id": "01KE", "steps": [{"kind": "llm", "cost_usd": 0.5}], "error": null})).unwrap(),
            "run_id: \"01KE\"\nsteps:\n  - kind: llm\n    cost_usd: 0.5\nerror: null\n"
        );
    }

    #[test]
    fn text_is_cut_by_columns() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 5), "abcd…");
        assert_eq!(cut("東京都", 5), "東京…");
        assert_eq!(cut("東京都", 4), "東…");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn numbers_are_short_and_true() {
        let shown: Vec<String> =
            [0, 420, 42_000, 1_234_567, 420_000_000, 12_345_000_000].map(NanoUsd).map(money).into();
        assert_eq!(shown, ["$0", "$0.00000042", "$0.000042", "$0.001235", "$0.4200", "$12.35"]);
        assert_eq!([7, 2_300, 1_234_567].map(count), ["7", "2,300", "1.23M"]);
    }

    #[test]
    fn the_gist_of_a_conversation_is_its_last_text() {
        let messages = json!([{"role": "user", "parts": [{"type": "text", "content": "hello"}]},
            {"role": "assistant", "parts": [{"type": "text", "content": "hi"}, {"type": "tool_call", "name": "x"}]}]);
        assert_eq!(gist(&messages), "hi");
        let asks =
            json!([{"role": "assistant", "parts": [{"type": "tool_call", "name": "find", "arguments": {"x": 1}}]}]);
        assert_eq!(gist(&asks), r#"find {"x":1}"#);
        // Vercel's SDK puts all that an agent did into one message.
        let all = json!([{"role": "assistant", "parts": [{"type": "text", "content": "18 degrees"},
            {"type": "tool_call", "name": "find", "arguments": {}}, {"type": "tool_call_response", "response": "18"}]}]);
        assert_eq!(gist(&all), "18 degrees");
        assert_eq!(gist(&json!({"a": 1})), r#"{"a":1}"#);
    }
}
