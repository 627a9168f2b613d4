//! `runspan compare`: two runs side by side.

mod page;

use std::path::PathBuf;

use anstyle::Style;
use clap::ValueEnum;
use runspan::compare::{Aspect, Comparison, Measure, Pair, Side};
use runspan::model::{NanoUsd, RunSummary, StepView};
use runspan::recovery;
use runspan::store::RunReader;
use serde_json::{Value as Json, json};

use super::content::readable;
use super::output::{
    BOLD, CYAN, DIM, GREEN, Look, RED, YELLOW, count, cut, error_text, money, run_status, safe, tokens,
};
use super::text_diff::{self, Line};
use super::time::{duration, whole_duration};
use super::{Done, Format, Session, Stop};

/// What `compare` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan compare 01KE9BZH80BG latest
  runspan compare 01KE9BZH80BG latest --only structure && echo same steps
  runspan compare 01KE9BZH80BG latest --html difference.html

Steps are paired by kind and name, in order, below paired steps. Without --only, runs are equal when structure, io and \
cost are. Durations and ids of tool calls never make runs differ.
Exit codes: 0 equal, 1 not equal or no such run, 2 wrong use, 3 the store failed.")]
pub struct Args {
    /// A run: its id, its beginning, a trace id, or `latest`
    a: String,
    /// The other run
    b: String,
    /// Compare by this alone: steps, order, models and statuses; inputs, outputs and errors; tokens and cost
    #[arg(long, value_enum, value_name = "MEASURE")]
    only: Option<Only>,
    /// Show steps that are the same too, and differences of texts in full
    #[arg(long)]
    all: bool,
    /// Write a page for a browser to this file instead
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What `--only` takes.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Only {
    Structure,
    Io,
    Cost,
}

impl Args {
    fn measures(&self) -> &'static [Measure] {
        match self.only {
            None => &Measure::ALL,
            Some(Only::Structure) => &[Measure::Structure],
            Some(Only::Io) => &[Measure::Io],
            Some(Only::Cost) => &[Measure::Cost],
        }
    }
}

/// A run with its steps.
struct Told {
    run: RunSummary,
    steps: Vec<StepView>,
}

/// Two runs and how they compare.
struct Both<'a> {
    a: &'a Told,
    b: &'a Told,
    found: &'a Comparison,
    measures: &'a [Measure],
}

/// Prints the comparison; the answer is no when the runs are not equal.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let reader = session.open_for(&args.a)?;
    let told = |id: &str| -> Result<Told, Stop> {
        let run = recovery::resolve(&reader, id)?;
        Ok(Told { run: reader.get_run(run)?, steps: reader.get_steps(run)? })
    };
    let (a, b) = (told(&args.a)?, told(&args.b)?);
    let found = Comparison::of(Side { run: &a.run, steps: &a.steps }, Side { run: &b.run, steps: &b.steps });
    let both = Both { a: &a, b: &b, found: &found, measures: args.measures() };
    if let Some(path) = &args.html {
        super::export::write_file(path, |file| file.write_all(both.page().as_bytes()))?;
    }
    match session.format {
        Format::Table if args.html.is_some() => session.print(&both.verdict(session.look))?,
        Format::Table => session.print(&both.render(args.all, session.look))?,
        _ => session.print_data(&both.as_json())?,
    }
    session.flush()?;
    if found.is_equal(both.measures) { Ok(()) } else { Err(Stop::AnswerIsNo) }
}

/// A number of both runs.
struct Total {
    name: &'static str,
    a: Option<i128>,
    b: Option<i128>,
    show: fn(i128) -> String,
}

impl Both<'_> {
    fn totals(&self) -> Vec<Total> {
        let plain: fn(i128) -> String = |n| count(u64::try_from(n).unwrap_or(u64::MAX));
        let time: fn(i128) -> String = |n| whole_duration(u64::try_from(n).unwrap_or(u64::MAX));
        let dollars: fn(i128) -> String = |n| money(NanoUsd(i64::try_from(n).unwrap_or(i64::MAX)));
        let total = |name, show, of: &dyn Fn(&RunSummary) -> Option<i128>| Total {
            name,
            a: of(&self.a.run),
            b: of(&self.b.run),
            show,
        };
        vec![
            total("steps", plain, &|run| Some(run.steps_total.into())),
            total("model calls", plain, &|run| Some(run.llm_calls.into())),
            total("tool calls", plain, &|run| Some(run.tool_calls.into())),
            total("failures", plain, &|run| Some(run.errors.into())),
            total("tokens in", plain, &|run| run.tokens?.prompt.map(Into::into)),
            total("tokens out", plain, &|run| run.tokens?.completion.map(Into::into)),
            total("cost", dollars, &|run| run.cost_usd.map(|cost| cost.0.into())),
            total("time", time, &|run| run.duration_ms.map(Into::into)),
        ]
    }

    fn pair(&self, pair: &Pair) -> (Option<&StepView>, Option<&StepView>) {
        (pair.a.map(|at| &self.a.steps[at]), pair.b.map(|at| &self.b.steps[at]))
    }

    /// What of a pair counts by the measures asked for.
    fn counted<'p>(&'p self, pair: &'p Pair) -> impl Iterator<Item = Aspect> + 'p {
        pair.differs.iter().copied().filter(|aspect| self.measures.contains(&aspect.measure()))
    }

    fn is_shown(&self, pair: &Pair) -> bool {
        let is_out_of_place = self.measures.contains(&Measure::Structure) && !pair.is_in_place();
        is_out_of_place || self.counted(pair).next().is_some()
    }

    fn verdict_words(&self) -> String {
        let parts: Vec<String> = self
            .measures
            .iter()
            .map(|measure| (measure, self.found.count(*measure)))
            .filter(|(_, count)| *count > 0)
            .map(|(measure, count)| format!("{count} in {}", measure.as_str()))
            .collect();
        let measures: Vec<&str> = self.measures.iter().map(|measure| measure.as_str()).collect();
        match parts.as_slice() {
            [] => format!("equal by {}", measures.join(", ")),
            parts => format!("different: {}", parts.join(", ")),
        }
    }

    fn verdict(&self, look: Look) -> String {
        let style = if self.found.is_equal(self.measures) { GREEN } else { YELLOW };
        format!("{}\n", look.paint(style, &self.verdict_words()))
    }

    fn render(&self, all: bool, look: Look) -> String {
        let mut out = String::new();
        for (letter, told) in [("A", self.a), ("B", self.b)] {
            let (sign, style) = run_status(told.run.status);
            let status = format!("{sign} {}", told.run.status);
            let name = safe(told.run.name()).into_owned();
            let id = format!("{} {}", told.run.kind, told.run.run_id);
            out.push_str(&format!(
                "{letter}  {}  {}  {}\n",
                look.paint(BOLD, &name),
                look.paint(style, &status),
                look.paint(DIM, &id)
            ));
        }
        out.push('\n');
        for total in self.totals().iter().filter(|total| total.a.is_some() || total.b.is_some()) {
            out.push_str(&total_line(total, look));
        }
        out.push('\n');
        let mut same = 0;
        for pair in &self.found.pairs {
            if !all && !self.is_shown(pair) {
                same += 1;
                continue;
            }
            same_steps(&mut out, std::mem::take(&mut same), look);
            self.render_pair(&mut out, pair, all, look);
        }
        same_steps(&mut out, same, look);
        out.push('\n');
        out.push_str(&self.verdict(look));
        out
    }

    fn render_pair(&self, out: &mut String, pair: &Pair, all: bool, look: Look) {
        let (a, b) = self.pair(pair);
        let Some(step) = b.or(a) else { return };
        let (sign, style) = match (a, b) {
            (Some(_), None) => ("-", RED),
            (None, Some(_)) => ("+", GREEN),
            _ if pair.is_moved => ("~", CYAN),
            _ if self.is_shown(pair) => ("≠", YELLOW),
            _ => ("=", DIM),
        };
        let indent = "  ".repeat(pair.depth.min(20));
        let mut label = format!("{} {}", step.kind, step_name(a, b));
        if pair.is_moved {
            label.push_str("  (changed its place)");
        }
        if let (Some(Some(of_a)), Some(Some(of_b))) = (a.map(|a| a.duration_ms), b.map(|b| b.duration_ms)) {
            label.push_str(&format!("  {} → {}", duration(of_a), duration(of_b)));
        }
        let room = look.room().saturating_sub(indent.len() + 2);
        out.push_str(&format!("{} {indent}{}\n", look.paint(style, sign), cut(&safe(&label), room)));
        let (words, style) = match (a, b) {
            (Some(a), Some(b)) => (self.changed_words(pair, a, b), YELLOW),
            _ => (words_of_one(step), DIM),
        };
        if !words.is_empty() {
            let shown = cut(&safe(&words.join("  ")), room.saturating_sub(2)).into_owned();
            out.push_str(&format!("  {indent}  {}\n", look.paint(style, &shown)));
        }
        if let (Some(a), Some(b)) = (a, b) {
            for aspect in self.counted(pair) {
                text_of(out, aspect, a, b, all, &indent, look);
            }
        }
    }

    /// Says what of a pair differs, where a word is enough.
    fn changed_words(&self, pair: &Pair, a: &StepView, b: &StepView) -> Vec<String> {
        let word = |text: Option<&str>| text.unwrap_or("none").to_owned();
        self.counted(pair)
            .filter_map(|aspect| {
                let (of_a, of_b) = match aspect {
                    Aspect::Status => (a.status.to_string(), b.status.to_string()),
                    Aspect::Provider => (word(a.provider.as_deref()), word(b.provider.as_deref())),
                    Aspect::Model => (word(a.model.as_deref()), word(b.model.as_deref())),
                    Aspect::Tokens => (tokens(a.tokens), tokens(b.tokens)),
                    Aspect::Cost => {
                        let cost = |step: &StepView| step.cost_usd.map_or("unknown".to_owned(), money);
                        (cost(a), cost(b))
                    }
                    _ => return None,
                };
                let label = if aspect == Aspect::Cost { "cost" } else { aspect.as_str() };
                Some(format!("{label} {of_a} → {of_b}"))
            })
            .collect()
    }

    fn as_json(&self) -> Json {
        let run = |told: &Told| {
            let run = &told.run;
            json!({
                "run_id": run.run_id, "kind": run.kind, "name": run.name(), "status": run.status,
                "started_at": run.started_at.rfc3339_millis(), "duration_ms": run.duration_ms, "steps_total": run.steps_total,
                "llm_calls": run.llm_calls, "tool_calls": run.tool_calls, "errors": run.errors, "tokens": run.tokens,
                "cost_usd": run.cost_usd,
            })
        };
        let counts: serde_json::Map<String, Json> =
            Measure::ALL.iter().map(|m| (m.as_str().to_owned(), self.found.count(*m).into())).collect();
        let measures: Vec<&str> = self.measures.iter().map(|measure| measure.as_str()).collect();
        let steps: Vec<Json> = self.found.pairs.iter().map(|pair| self.pair_as_json(pair)).collect();
        json!({
            "equal": self.found.is_equal(self.measures), "by": measures, "differences": counts,
            "differs": words_of(&self.found.differs), "a": run(self.a), "b": run(self.b), "steps": steps,
        })
    }

    fn pair_as_json(&self, pair: &Pair) -> Json {
        let (a, b) = self.pair(pair);
        let change = match (a, b) {
            (Some(_), None) => "removed",
            (None, Some(_)) => "added",
            _ if pair.is_moved => "moved",
            _ if pair.differs.is_empty() => "same",
            _ => "changed",
        };
        let step = b.or(a);
        let side = |step: Option<&StepView>| {
            step.map(|step| {
                // What is the same in both is not said twice, and of a step that stands alone all is said.
                let content = |aspect, content: &Option<Json>| {
                    if pair.differs.contains(&aspect) || a.is_none() || b.is_none() { content.clone() } else { None }
                };
                json!({
                    "step_id": step.step_id, "status": step.status, "provider": step.provider, "model": step.model,
                    "tokens": step.tokens, "cost_usd": step.cost_usd, "duration_ms": step.duration_ms, "error": step.error,
                    "input": content(Aspect::Input, &step.input), "output": content(Aspect::Output, &step.output),
                })
            })
        };
        let diff = |aspect: Aspect| {
            let (a, b) = (a?, b?);
            pair.differs.contains(&aspect).then(|| lines_of(aspect, a, b).iter().map(line_text).collect::<Vec<_>>())
        };
        json!({
            "change": change, "depth": pair.depth, "kind": step.map(|step| step.kind),
            "name": step.map(|step| &step.name), "differs": words_of(&pair.differs), "a": side(a), "b": side(b),
            "input_diff": diff(Aspect::Input), "output_diff": diff(Aspect::Output),
        })
    }
}

/// Says in words what a step that stands alone took.
fn words_of_one(step: &StepView) -> Vec<String> {
    let words = [
        step.duration_ms.map(duration),
        step.model.clone().map(|model| format!("model {model}")),
        step.tokens.map(|spent| format!("tokens {}", tokens(Some(spent)))),
        step.cost_usd.map(|cost| format!("cost {}", money(cost))),
    ];
    words.into_iter().flatten().collect()
}

/// Returns what the step is called, in both runs where it is called otherwise.
fn step_name(a: Option<&StepView>, b: Option<&StepView>) -> String {
    match (a, b) {
        (Some(a), Some(b)) if a.step_id != b.step_id => format!("{} → {}", a.step_id, b.step_id),
        (a, b) => b.or(a).map(|step| step.step_id.clone()).unwrap_or_default(),
    }
}

fn words_of(aspects: &[Aspect]) -> Vec<&'static str> {
    aspects.iter().map(|aspect| aspect.as_str()).collect()
}

fn line_text(line: &Line) -> String {
    format!("{}{}", line.sign(), line.text())
}

fn same_steps(out: &mut String, steps: usize, look: Look) {
    let words = match steps {
        0 => return,
        1 => "= 1 step is the same".to_owned(),
        n => format!("= {} steps are the same", count(n as u64)),
    };
    out.push_str(&look.paint(DIM, &words));
    out.push('\n');
}

fn total_line(total: &Total, look: Look) -> String {
    let shown = |number: Option<i128>| number.map_or("-".to_owned(), total.show);
    let line = format!("{:<12}  {:>10}  {:>10}  {}", total.name, shown(total.a), shown(total.b), difference(total));
    let style = if total.a == total.b { DIM } else { Style::new() };
    format!("{}\n", look.paint(style, line.trim_end()))
}

/// Says by how much the second is more or less.
fn difference(total: &Total) -> String {
    let (Some(a), Some(b)) = (total.a, total.b) else { return String::new() };
    if a == b {
        return String::new();
    }
    let sign = if b > a { '+' } else { '-' };
    let percent = (a != 0).then(|| format!(" ({sign}{:.0}%)", (b - a).abs() as f64 / a as f64 * 100.0));
    format!("{sign}{}{}", (total.show)((b - a).abs()), percent.unwrap_or_default())
}

/// Compares what of two steps is text; empty for anything else.
fn lines_of(aspect: Aspect, a: &StepView, b: &StepView) -> Vec<Line> {
    let content = |content: &Option<Json>| content.as_ref().map(readable).unwrap_or_default();
    let error = |step: &StepView| step.error.as_ref().map(error_text).unwrap_or_default();
    let (of_a, of_b) = match aspect {
        Aspect::Input => (content(&a.input), content(&b.input)),
        Aspect::Output => (content(&a.output), content(&b.output)),
        Aspect::Error => (error(a), error(b)),
        _ => return Vec::new(),
    };
    let lines = text_diff::lines(&of_a, &of_b);
    // Line ends, or the same said in another shape.
    if lines.iter().all(|line| matches!(line.side, text_diff::Side::Gap | text_diff::Side::Both)) {
        return vec![Line::remark("it reads the same and is written differently")];
    }
    lines
}

/// Lines of one text that are shown where not all are asked for.
const SHOWN_LINES: usize = 40;

fn text_of(out: &mut String, aspect: Aspect, a: &StepView, b: &StepView, all: bool, indent: &str, look: Look) {
    let lines = lines_of(aspect, a, b);
    if lines.is_empty() {
        return;
    }
    out.push_str(&format!("  {indent}  {}\n", look.paint(DIM, aspect.as_str())));
    let shown = if all { lines.len() } else { SHOWN_LINES };
    for line in lines.iter().take(shown) {
        out.push_str(&format!("  {indent}    {}\n", diff_line(line, look)));
    }
    if lines.len() > shown {
        let rest = format!("⋯ {} more lines: --all shows them", lines.len() - shown);
        out.push_str(&format!("  {indent}    {}\n", look.paint(DIM, &rest)));
    }
}

fn diff_line(line: &Line, look: Look) -> String {
    let style = match line.side {
        text_diff::Side::A => RED,
        text_diff::Side::B => GREEN,
        text_diff::Side::Both | text_diff::Side::Gap => DIM,
    };
    let mut out = look.paint(style, &format!("{} ", line.sign())).into_owned();
    for (is_changed, piece) in &line.pieces {
        let style = if *is_changed { style.bold().underline() } else { style };
        out.push_str(&look.paint(style, &safe(piece)));
    }
    out
}
