//! The comparison as a page.

use runspan::compare::{Aspect, Pair};
use runspan::model::StepView;

use super::super::content::readable;
use super::super::html::{page, text};
use super::super::text_diff::{Line, Side};
use super::super::time::duration;
use super::{Both, difference, lines_of, step_name, words_of_one};

/// Steps that are drawn; more would be more than a browser takes.
const MAX_STEPS: usize = 2_000;

impl Both<'_> {
    /// Draws the page.
    pub(super) fn page(&self) -> String {
        let mut body = self.head();
        let mut same = 0;
        let mut drawn = 0;
        for pair in &self.found.pairs {
            if !self.is_shown(pair) {
                same += 1;
                continue;
            }
            same_steps(&mut body, std::mem::take(&mut same));
            drawn += 1;
            if drawn > MAX_STEPS {
                body.push_str(&format!(
                    "<p class=\"warn\">Only the first {MAX_STEPS} steps that differ are shown.</p>\n"
                ));
                break;
            }
            self.step(&mut body, pair);
        }
        same_steps(&mut body, same);
        page(&format!("{} and {}", self.a.run.name(), self.b.run.name()), &body)
    }

    fn head(&self) -> String {
        let class = if self.found.is_equal(self.measures) { "good" } else { "warn" };
        let mut out =
            format!("<h1>Two runs</h1>\n<p class=\"{class}\">{}</p>\n<table>\n<tr><th></th>", self.verdict_words());
        for (letter, told) in [("A", self.a), ("B", self.b)] {
            let run = &told.run;
            out.push_str(&format!(
                "<th class=\"n\">{letter}: {} <span class=\"{}\">{}</span><br><code>{}</code></th>",
                text(run.name()),
                if run.error.is_some() { "bad" } else { "good" },
                run.status,
                run.run_id
            ));
        }
        out.push_str("<th class=\"n\">difference</th></tr>\n");
        for total in self.totals().iter().filter(|total| total.a.is_some() || total.b.is_some()) {
            let shown = |number: Option<i128>| number.map_or("-".to_owned(), total.show);
            out.push_str(&format!(
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>\n",
                total.name,
                shown(total.a),
                shown(total.b),
                difference(total)
            ));
        }
        out.push_str("</table>\n<h2>Steps</h2>\n");
        out
    }

    fn step(&self, out: &mut String, pair: &Pair) {
        let (a, b) = self.pair(pair);
        let Some(step) = b.or(a) else { return };
        let (class, word) = match (a, b) {
            (Some(_), None) => ("removed", "only in A"),
            (None, Some(_)) => ("added", "only in B"),
            _ if pair.is_moved => ("moved", "changed its place"),
            _ => ("", ""),
        };
        let indent = pair.depth.min(8);
        out.push_str(&format!(
            "<section class=\"step {class}\" style=\"margin-left:{indent}rem\"><h3><span class=\"kind {kind}\">{kind}</span> {} \
             <span class=\"soft\">{word}</span></h3>\n",
            text(&step_name(a, b)),
            kind = step.kind,
        ));
        if let (Some(a), Some(b)) = (a, b) {
            if let (Some(of_a), Some(of_b)) = (a.duration_ms, b.duration_ms) {
                out.push_str(&format!("<div class=\"soft\">{} → {}</div>\n", duration(of_a), duration(of_b)));
            }
            for words in self.changed_words(pair, a, b) {
                out.push_str(&format!("<div class=\"soft\">{}</div>\n", text(&words)));
            }
            for aspect in self.counted(pair) {
                difference_of(out, aspect, a, b);
            }
        } else {
            for words in words_of_one(step) {
                out.push_str(&format!("<div class=\"soft\">{}</div>\n", text(&words)));
            }
            for (name, content) in [("input", &step.input), ("output", &step.output)] {
                if let Some(content) = content {
                    let shown = text(&readable(content));
                    out.push_str(&format!("<details><summary>{name}</summary><pre>{shown}</pre></details>\n"));
                }
            }
        }
        out.push_str("</section>\n");
    }
}

fn difference_of(out: &mut String, aspect: Aspect, a: &StepView, b: &StepView) {
    let lines = lines_of(aspect, a, b);
    if lines.is_empty() {
        return;
    }
    out.push_str(&format!("<div class=\"role\">{}</div>\n<div class=\"diff mono\">\n", aspect.as_str()));
    lines.iter().for_each(|line| diff_line(out, line));
    out.push_str("</div>\n");
}

fn diff_line(out: &mut String, line: &Line) {
    let class = match line.side {
        Side::A => "a",
        Side::B => "b",
        Side::Both => "both",
        Side::Gap => "gap",
    };
    out.push_str(&format!("<div class=\"{class}\">{} ", line.sign()));
    for (is_changed, piece) in &line.pieces {
        let piece = text(piece);
        if *is_changed { out.push_str(&format!("<mark>{piece}</mark>")) } else { out.push_str(&piece) }
    }
    out.push_str("</div>\n");
}

fn same_steps(out: &mut String, steps: usize) {
    if steps > 0 {
        let are = if steps == 1 { "step is" } else { "steps are" };
        out.push_str(&format!("<p class=\"soft\">{steps} {are} the same</p>\n"));
    }
}
