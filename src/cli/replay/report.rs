//! How a run went beside the one that it repeats.

use runspan::model::{NanoUsd, StepKind, Tokens};
use runspan::replay::{Difference, Fit, Gap, Outcome, Recording, Replay, Report, Taken};
use serde_json::{Value as Json, json};

use crate::cli::exec::{Ended, Over};
use crate::cli::output::{BOLD, CYAN, DIM, GREEN, Look, RED, YELLOW, count, counted, money, safe};
use crate::cli::text_diff::{self, Line, Side};
use crate::cli::{Done, Format, Session};

/// Lines of one difference, unless there are more of them in JSON.
const MOST_LINES: usize = 20;

/// What calls came to for which models were asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub tokens: Option<Tokens>,
    pub cost: Option<NanoUsd>,
    pub unpriced: u64,
}

/// What is told.
pub struct Told<'a> {
    pub recording: &'a Recording,
    pub replay: &'a Replay,
    pub over: &'a Over,
    /// What is not in the recording was answered with a text that says so.
    pub has_stubs: bool,
    pub spent: Spent,
}

impl Told<'_> {
    /// Tells whether the run went otherwise than recorded.
    pub fn is_diverged(&self) -> bool {
        self.replay.report().is_diverged()
    }

    /// Prints it: for people beside what the command said, for programs as data.
    pub fn print(&self, session: &mut Session<'_>) -> Done {
        let report = self.replay.report();
        if session.format != Format::Table {
            return session.print_data(&self.as_json(&report));
        }
        let text = self.render(&report, &session.store_flag(), session.look);
        session.remark(text.trim_end());
        Ok(())
    }

    /// Returns who answered, as a word and in words.
    fn answered_by(&self, taken: &Taken) -> (&'static str, &'static str) {
        match taken {
            taken if taken.is_live => ("model", "answered by the model"),
            taken if taken.is_reused() => ("recording", "answered as recorded"),
            taken if self.has_stubs && taken.request.kind() == StepKind::Llm => {
                ("stub", "answered with a text that says so")
            }
            _ => ("nobody", "not answered"),
        }
    }

    fn step(&self, taken: &Taken) -> Option<&str> {
        taken.call.map(|at| self.recording.calls()[at].step_id.as_str())
    }

    fn lines(&self, taken: &Taken) -> Vec<Line> {
        let recorded = taken.call.map(|at| self.recording.calls()[at].request.text()).unwrap_or_default();
        text_diff::lines(&recorded, &taken.request.text())
    }

    fn render(&self, report: &Report, store: &str, look: Look) -> String {
        let mut out = String::new();
        let mut changes: Vec<(Vec<Line>, &str)> = Vec::new();
        for taken in &report.taken {
            self.render_taken(&mut out, taken, &mut changes, look);
        }
        for left in &report.left_over {
            let line = format!("- {}  recorded, and not asked for", safe(&left.step_id));
            out.push_str(&format!("{}\n", look.paint(RED, &line)));
        }
        for refused in &self.over.refused {
            out.push_str(&format!(
                "{}\n",
                look.paint(YELLOW, &format!("! {}  refused: no call of a model", safe(refused)))
            ));
        }
        let (word, style) = if report.is_diverged() { ("diverged", YELLOW) } else { ("as recorded", GREEN) };
        let label = look.paint(DIM, "runspan:").into_owned();
        out.push_str(&format!("{label} {}: {}\n", look.paint(style, word), look.paint(BOLD, &self.counts(report))));
        if let Some(how) = self.how_it_ended() {
            out.push_str(&format!("{label} {how}\n"));
        }
        let (old, new) = (self.recording.run().run_id, self.over.run);
        let command = format!("runspan compare {old} {new}{store}");
        out.push_str(&format!("{label} the new run is {new} · {}\n", look.paint(CYAN, &command)));
        out
    }

    /// `changes`: what changed before, and at which step: what was said once stays said in all that follows.
    fn render_taken<'t>(
        &'t self,
        out: &mut String,
        taken: &Taken,
        changes: &mut Vec<(Vec<Line>, &'t str)>,
        look: Look,
    ) {
        let (sign, style) = match taken.fit {
            _ if !taken.is_diverged() => ("=", DIM),
            Fit::Unmatched => ("?", RED),
            _ => ("≠", YELLOW),
        };
        let redacted = self.redacted(taken);
        if is_unheard(taken) {
            let line = "!  after the fork, and not answered: the model could not be asked";
            out.push_str(&format!("{}\n", look.paint(RED, line)));
            return;
        }
        if !taken.is_diverged() && redacted == 0 {
            return;
        }
        let step = self.step(taken).unwrap_or("(no step)");
        let lines = if taken.differs.contains(&Difference::Messages) { self.lines(taken) } else { Vec::new() };
        let changed: Vec<Line> = lines.iter().filter(|line| matches!(line.side, Side::A | Side::B)).cloned().collect();
        let known = changes.iter().find(|(known, _)| *known == changed).map(|(_, step)| *step);
        let word = |difference: &Difference| match known {
            Some(before) if *difference == Difference::Messages => format!("messages, as at {before}"),
            _ => difference.to_string(),
        };
        let mut said: Vec<String> = taken.differs.iter().map(word).collect();
        if taken.is_again {
            said.push("asked more often than recorded".to_owned());
        }
        said.extend(taken.gap.map(|gap| gap.to_string()));
        if redacted > 0 {
            said.push(format!("its answer was given with {redacted} secrets taken out"));
        }
        if taken.fit == Fit::Unmatched {
            said.push("not in the recording".to_owned());
        }
        said.push(self.answered_by(taken).1.to_owned());
        out.push_str(&format!("{} {}  {}\n", look.paint(style, sign), safe(step), safe(&said.join(", "))));
        if !lines.is_empty() && known.is_none() {
            for line in lines.iter().take(MOST_LINES) {
                out.push_str(&format!("    {}\n", shown(line, look)));
            }
            changes.push((changed, step));
            if lines.len() > MOST_LINES {
                out.push_str(&format!("    ⋯ {} more lines: --json has them all\n", lines.len() - MOST_LINES));
            }
        } else if taken.fit == Fit::Unmatched {
            let text = taken.request.text();
            let last: Vec<&str> = text.lines().rev().take(4).collect();
            for line in last.into_iter().rev() {
                out.push_str(&format!("    {}\n", look.paint(GREEN, &safe(&format!("+{line}")))));
            }
        }
    }

    /// Counts the secrets that were taken out of an answer that was given.
    fn redacted(&self, taken: &Taken) -> usize {
        let call = taken.call.filter(|_| taken.is_reused()).map(|at| &self.recording.calls()[at]);
        match call.map(|call| &call.outcome) {
            Some(Ok(Outcome::Answer(answer) | Outcome::Left { answer, .. })) => answer.redacted,
            Some(Ok(Outcome::Failure(failure))) => failure.answered.as_ref().map_or(0, |answer| answer.redacted),
            _ => 0,
        }
    }

    fn counts(&self, report: &Report) -> String {
        let some = |n: usize, what: &str| (n > 0).then(|| format!("{} {what}", count(n as u64)));
        let parts = [
            Some(calls_in_words(report.taken.iter().map(|taken| taken.request.kind()))),
            some(report.count(Fit::Exact), "exact"),
            some(report.count(Fit::Position), "at its place and different"),
            some(report.count(Fit::Unmatched), "unmatched"),
            some(report.count(Fit::Beyond), "after the fork"),
            some(report.taken.iter().filter(|taken| is_unheard(taken)).count(), "not answered there"),
            some(report.left_over.len(), "not asked for"),
            Some(match report.reused() {
                1 => "1 answer reused".to_owned(),
                n => format!("{} answers reused", count(n as u64)),
            }),
            Some(self.spent_in_words(report)),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn spent_in_words(&self, report: &Report) -> String {
        if !report.taken.iter().any(|taken| taken.is_live) {
            return "nothing spent".to_owned();
        }
        let tokens = self.spent.tokens.and_then(|tokens| tokens.total);
        let tokens = tokens.map_or_else(|| "unknown tokens".to_owned(), |total| format!("{} tokens", count(total)));
        let cost = self.spent.cost.map_or_else(|| "unknown cost".to_owned(), money);
        let unpriced =
            if self.spent.unpriced > 0 { format!(" and {} unpriced", self.spent.unpriced) } else { String::new() };
        format!("{tokens} and {cost}{unpriced} spent")
    }

    fn how_it_ended(&self) -> Option<String> {
        match self.over.ended {
            Ended::Exited(0) => None,
            Ended::Exited(code) => Some(format!("the command ended with exit code {code}")),
            Ended::Killed(signal) => Some(format!("the command was killed by signal {signal}")),
            Ended::Unknown => Some("the system does not say how the command ended".to_owned()),
        }
    }

    fn as_json(&self, report: &Report) -> Json {
        let calls: Vec<Json> = report.taken.iter().map(|taken| self.taken_as_json(taken)).collect();
        let left: Vec<&str> = report.left_over.iter().map(|left| left.step_id.as_str()).collect();
        let is_live = report.taken.iter().any(|taken| taken.is_live);
        let spent = json!({
            "tokens": self.spent.tokens.filter(|_| is_live),
            "cost_usd": if is_live { json!(self.spent.cost) } else { json!(NanoUsd(0)) },
            "unpriced_steps": self.spent.unpriced,
        });
        let exit_code = match self.over.ended {
            Ended::Exited(code) => Some(code),
            Ended::Killed(_) | Ended::Unknown => None,
        };
        json!({
            "run_id": self.over.run,
            "replay_of": self.recording.run().run_id,
            "diverged": report.is_diverged(),
            "exit_code": exit_code,
            "exact": report.count(Fit::Exact),
            "position": report.count(Fit::Position),
            "unmatched": report.count(Fit::Unmatched),
            "live": report.taken.iter().filter(|taken| taken.is_live).count(),
            "reused": report.reused(),
            "spent": spent,
            "calls": calls,
            "not_asked": left,
            "refused": self.over.refused,
        })
    }

    fn taken_as_json(&self, taken: &Taken) -> Json {
        let differs: Vec<Json> = taken.differs.iter().map(difference_as_json).collect();
        let has_text = taken.fit == Fit::Unmatched || taken.differs.contains(&Difference::Messages);
        let diff = has_text.then(|| {
            let lines = self.lines(taken);
            lines.iter().map(|line| format!("{}{}", line.sign(), line.text())).collect::<Vec<_>>().join("\n")
        });
        json!({
            "step_id": self.step(taken),
            "fit": taken.fit.as_str(),
            "answered_by": self.answered_by(taken).0,
            "is_again": taken.is_again,
            "differs": differs,
            "diff": diff,
            "gap": taken.gap.map(Gap::as_str),
            "redacted": self.redacted(taken),
        })
    }
}

/// Tells whether a model was to be asked, and could not be.
fn is_unheard(taken: &Taken) -> bool {
    taken.fit == Fit::Beyond && !taken.is_live
}

fn difference_as_json(difference: &Difference) -> Json {
    let what = difference.as_str();
    match difference {
        Difference::Model(recorded, asked) => json!({"what": what, "recorded": recorded, "asked": asked}),
        Difference::Setting(name, recorded, asked) => {
            json!({"what": what, "name": name, "recorded": recorded, "asked": asked})
        }
        Difference::Tools { gone, new } => json!({"what": what, "gone": gone, "new": new}),
        Difference::Messages | Difference::NotRecorded => json!({"what": what}),
    }
}

fn shown(line: &Line, look: Look) -> String {
    let space = if line.side == Side::Gap { " " } else { "" };
    let text = safe(&format!("{}{space}{}", line.sign(), line.text())).into_owned();
    let style = match line.side {
        Side::A => RED,
        Side::B => GREEN,
        Side::Both | Side::Gap => DIM,
    };
    look.paint(style, &text).into_owned()
}

/// Counts calls in words. As everywhere, calls of language models are model calls.
fn calls_in_words(kinds: impl Iterator<Item = StepKind>) -> String {
    let (embeddings, calls): (Vec<_>, Vec<_>) = kinds.partition(|kind| *kind == StepKind::Embedding);
    let calls = counted(calls.len() as u64, "model call");
    match embeddings.len() as u64 {
        0 => calls,
        embeddings => format!("{calls}, {}", counted(embeddings, "embedding")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_are_counted_beside_model_calls() {
        let counts = |kinds: &[StepKind]| calls_in_words(kinds.iter().copied());
        assert_eq!(counts(&[StepKind::Llm, StepKind::Embedding, StepKind::Llm]), "2 model calls, 1 embedding");
        assert_eq!(counts(&[StepKind::Llm]), "1 model call");
    }
}
