//! Two texts as one, line by line, with the words marked that changed within a line.

use similar::{Algorithm, ChangeTag, TextDiff};

/// Lines around a change.
const CONTEXT: usize = 2;
/// Texts with more lines than this that differ are not compared line by line: it would take too long.
const MAX_LINES: usize = 4_000;
/// Words are marked in blocks of up to so many bytes.
const MAX_WORDS: usize = 8_000;

/// One line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whose line it is.
    pub side: Side,
    /// The line in pieces, each with whether it is what changed; without the line's end.
    pub pieces: Vec<(bool, String)>,
}

/// Whose line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Of both.
    Both,
    /// Of the first text.
    A,
    /// Of the second text.
    B,
    /// Of neither: something was left out.
    Gap,
}

impl Line {
    fn plain(side: Side, text: impl Into<String>) -> Self {
        Self { side, pieces: vec![(false, text.into())] }
    }

    /// Makes a line that is of neither text.
    pub fn remark(text: &str) -> Self {
        Self::plain(Side::Gap, text)
    }

    /// Returns the sign that stands before the line.
    pub fn sign(&self) -> char {
        match self.side {
            Side::Both => ' ',
            Side::A => '-',
            Side::B => '+',
            Side::Gap => '⋯',
        }
    }

    /// Returns the whole line.
    pub fn text(&self) -> String {
        self.pieces.iter().map(|(_, piece)| piece.as_str()).collect()
    }
}

/// Returns the lines that differ, with some around them.
pub fn lines(a: &str, b: &str) -> Vec<Line> {
    let (of_a, of_b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let before = of_a.iter().zip(&of_b).take_while(|(a, b)| a == b).count();
    let (rest_a, rest_b) = (&of_a[before..], &of_b[before..]);
    let behind = rest_a.iter().rev().zip(rest_b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (end_a, end_b) = (of_a.len() - behind, of_b.len() - behind);
    let (changed_a, changed_b) = (&of_a[before..end_a], &of_b[before..end_b]);
    if changed_a.len() + changed_b.len() > MAX_LINES {
        return too_many(changed_a, changed_b, before);
    }
    let mut found = Vec::new();
    // What stands around comes with it, so that a change has its context.
    let (from, shared) = (before.saturating_sub(CONTEXT), behind.min(CONTEXT));
    if from > 0 {
        found.push(left_out(from));
    }
    let (a, b) = (of_a[from..end_a + shared].join("\n"), of_b[from..end_b + shared].join("\n"));
    found.extend(groups(&a, &b));
    if behind > shared {
        found.push(left_out(behind - shared));
    }
    found
}

fn left_out(lines: usize) -> Line {
    Line::plain(Side::Gap, if lines == 1 { "1 equal line".to_owned() } else { format!("{lines} equal lines") })
}

fn too_many(a: &[&str], b: &[&str], at: usize) -> Vec<Line> {
    let mut lines = vec![Line::plain(
        Side::Gap,
        format!("from line {} on {} lines became {}: too many to compare; the first:", at + 1, a.len(), b.len()),
    )];
    lines.extend(a.first().map(|line| Line::plain(Side::A, *line)));
    lines.extend(b.first().map(|line| Line::plain(Side::B, *line)));
    lines
}

fn groups(a: &str, b: &str) -> Vec<Line> {
    let diff = TextDiff::configure().algorithm(Algorithm::Myers).diff_lines(a, b);
    let mut lines = Vec::new();
    let mut last = 0;
    for group in diff.grouped_ops(CONTEXT) {
        let (first, end) = match (group.first(), group.last()) {
            (Some(first), Some(last)) => (first.old_range().start, last.old_range().end),
            _ => continue,
        };
        if first > last {
            lines.push(left_out(first - last));
        }
        last = end;
        for op in &group {
            let bytes: usize = diff.iter_changes(op).map(|change| change.value().len()).sum();
            if bytes <= MAX_WORDS {
                for change in diff.iter_inline_changes(op) {
                    let pieces = change.iter_strings_lossy().map(|(is_changed, text)| (is_changed, text.into_owned()));
                    lines.push(line(change.tag(), pieces.collect()));
                }
            } else {
                for change in diff.iter_changes(op) {
                    lines.push(line(change.tag(), vec![(false, change.value().to_owned())]));
                }
            }
        }
    }
    lines
}

fn line(tag: ChangeTag, mut pieces: Vec<(bool, String)>) -> Line {
    if let Some((_, last)) = pieces.last_mut() {
        last.truncate(last.trim_end_matches(['\n', '\r']).len());
    }
    pieces.retain(|(_, piece)| !piece.is_empty());
    let side = match tag {
        ChangeTag::Equal => Side::Both,
        ChangeTag::Delete => Side::A,
        ChangeTag::Insert => Side::B,
    };
    Line { side, pieces }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(a: &str, b: &str) -> String {
        let mut out = String::new();
        for line in lines(a, b) {
            let marked =
                |(is_changed, text): &(bool, String)| if *is_changed { format!("{{{text}}}") } else { text.clone() };
            out.push_str(&format!("{}|{}\n", line.sign(), line.pieces.iter().map(marked).collect::<String>()));
        }
        out
    }

    #[test]
    fn a_changed_word_is_marked_in_its_line_with_what_stands_around() {
        let a = "one\ntwo\nthree\nthe quick brown fox\nfive\nsix\nseven\neight\nnine\nten\neleven\nlast";
        let b = "one\ntwo\nthree\nthe quick red fox\nfive\nsix\nseven\neight\nnine\nten\nmore\neleven\nlast";
        insta::assert_snapshot!(shown(a, b), @r"
    ⋯|1 equal line
     |two
     |three
    -|the quick {brown} fox
    +|the quick {red} fox
     |five
     |six
    ⋯|2 equal lines
     |nine
     |ten
    +|more
     |eleven
     |last
    ");
    }

    #[test]
    fn texts_without_end_are_told_apart_by_where_they_begin_to_differ() {
        let long = |word: &str| (0..50_000).map(|n| format!("{word} {n}\n")).collect::<String>();
        insta::assert_snapshot!(shown(&format!("same\n{}", long("a")), &format!("same\n{}", long("b"))), @r"
    ⋯|from line 2 on 50000 lines became 50000: too many to compare; the first:
    -|a 0
    +|b 0
    ");
        assert_eq!(lines("", ""), []);
    }
}
