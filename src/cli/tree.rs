//! A run's steps as a tree, each with a bar on the run's time line.
//!
//! Steps come from spans that anybody may have sent: parents may be missing, the tree may be deeper than any stack,
//! and a step may be its own ancestor. Every step is drawn once, and nothing here recurses.

use std::collections::HashMap;

use anstyle::Style;
use runspan::model::{SpanId, StepKind, StepStatus, StepView, UnixNanos};
use runspan::store::assembly::CRASHED_STEP;

use super::output::{
    BLUE, BOLD, CYAN, DIM, Look, MAGENTA, RED, cut, error_text, money, safe, says_nothing, step_status, tokens, width,
};
use super::time::duration;

/// Columns of a bar: below the first it says nothing, beyond the second nothing more.
const BAR: (usize, usize) = (8, 48);
/// A label keeps at least this much.
const MIN_LABEL: usize = 18;
/// Columns are this far apart.
const GAP: usize = 2;

/// The span of time that the bars show.
#[derive(Clone, Copy, Debug)]
pub struct TimeLine {
    /// Its left end.
    pub from: UnixNanos,
    /// Its right end.
    pub to: UnixNanos,
}

/// A step's place in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which step.
    pub step: usize,
    /// How many are above it.
    pub depth: usize,
    is_last: bool,
}

/// Draws the steps, given by start.
pub fn render(steps: &[StepView], line: TimeLine, look: Look) -> String {
    render_of("STEP", steps, line, look)
}

/// Draws what the first column calls by another name than steps.
pub fn render_of(what: &str, steps: &[StepView], line: TimeLine, look: Look) -> String {
    let places = arrange(steps);
    let columns = Columns::fit(steps, &places, look.room());
    let mut out = columns.header(what, line, look);
    let mut open: Vec<bool> = Vec::new();
    for place in &places {
        let step = &steps[place.step];
        open.truncate(place.depth);
        let (first, below) = columns.gutters(&open, place);
        open.push(!place.is_last);
        columns.row(&mut out, step, &first, line, look);
        if let Some((style, note)) = note(step) {
            let room = look.room().saturating_sub(width(&below) + 2);
            let gutter = look.paint(DIM, &below).into_owned();
            out.push_str(&format!("{gutter}  {}\n", look.paint(style, &cut(&safe(&note), room))));
        }
    }
    out
}

/// Puts steps below their parents, siblings by start. Steps whose parent is not there are roots; of a circle, the
/// first step is.
pub fn arrange(steps: &[StepView]) -> Vec<Place> {
    let mut by_span: HashMap<SpanId, usize> = HashMap::with_capacity(steps.len());
    for (place, step) in steps.iter().enumerate() {
        by_span.entry(step.span_id).or_insert(place);
    }
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    let mut roots = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        match step.parent_span_id.and_then(|parent| by_span.get(&parent)) {
            Some(&parent) if parent != place => children[parent].push(place),
            _ => roots.push(place),
        }
    }
    let mut seen = vec![false; steps.len()];
    let mut places = Vec::with_capacity(steps.len());
    let circles = 0..steps.len();
    for root in roots.into_iter().chain(circles) {
        let mut waiting = vec![Place { step: root, depth: 0, is_last: true }];
        while let Some(place) = waiting.pop() {
            if std::mem::replace(&mut seen[place.step], true) {
                continue;
            }
            let below = &children[place.step];
            let last = below.iter().rposition(|child| !seen[*child]);
            for (at, &child) in below.iter().enumerate().rev().filter(|(_, child)| !seen[**child]) {
                waiting.push(Place { step: child, depth: place.depth + 1, is_last: Some(at) == last });
            }
            places.push(place);
        }
    }
    places
}

/// How wide each part of a row is; 0 for a part that is left out.
#[derive(Clone, Copy, Debug)]
struct Columns {
    label: usize,
    bar: usize,
    tokens: usize,
    cost: usize,
    time: usize,
}

impl Columns {
    fn fit(steps: &[StepView], places: &[Place], room: usize) -> Self {
        let widest = |of: &dyn Fn(&StepView) -> String, title: &str| {
            let widest = steps.iter().map(|step| width(&of(step))).max().unwrap_or(0);
            if widest == 0 { 0 } else { widest.max(title.len()) }
        };
        let mut columns = Self {
            label: places
                .iter()
                .map(|place| 3 * place.depth.min(room) + 2 + width(&safe(&label(&steps[place.step]))))
                .max()
                .unwrap_or(0)
                .max(MIN_LABEL),
            bar: BAR.0,
            tokens: widest(&|step| tokens(step.tokens), "TOKENS"),
            cost: widest(&cost, "COST"),
            time: widest(&time, "TIME"),
        };
        // What does not fit goes in this order; the label keeps its minimum.
        let with = |label: usize, columns: &Self| Self { label, ..*columns }.total();
        if with(MIN_LABEL, &columns) > room {
            columns.bar = 0;
        }
        if with(MIN_LABEL, &columns) > room {
            columns.tokens = 0;
        }
        let spare = room.saturating_sub(with(0, &columns));
        // The bar takes what labels leave; the wider the terminal, the more it is sure of.
        let wanted = if columns.bar == 0 { 0 } else { (room.saturating_sub(60) / 2).min(BAR.1 - BAR.0) };
        columns.label = columns.label.min(spare.saturating_sub(wanted).max(MIN_LABEL)).min(spare);
        if columns.bar > 0 {
            columns.bar = (columns.bar + spare - columns.label).min(BAR.1);
        }
        columns
    }

    fn total(&self) -> usize {
        let parts = [self.label, self.bar, self.tokens, self.cost, self.time];
        parts.iter().sum::<usize>() + GAP * parts[1..].iter().filter(|part| **part > 0).count()
    }

    fn header(&self, what: &str, line: TimeLine, look: Look) -> String {
        let length = duration((line.to.0.saturating_sub(line.from.0)) as f64 / 1e6);
        let ruler = match self.bar.checked_sub(length.len() + 1) {
            Some(between) => format!("0{}{length}", " ".repeat(between)),
            None => " ".repeat(self.bar),
        };
        let mut text = pad(what, self.label);
        for (part, shown) in [
            (self.bar, ruler),
            (self.tokens, pad_left("TOKENS", self.tokens)),
            (self.cost, pad_left("COST", self.cost)),
            (self.time, pad_left("TIME", self.time)),
        ] {
            if part > 0 {
                text.push_str("  ");
                text.push_str(&shown);
            }
        }
        format!("{}\n", look.paint(BOLD, text.trim_end()))
    }

    /// Draws the lines from the parents, for the step itself and for what stands below it. What is too deep to be drawn
    /// is counted instead.
    fn gutters(&self, open: &[bool], place: &Place) -> (String, String) {
        let deepest = (self.label / 2 / 3).max(2);
        if place.depth == 0 {
            return (String::new(), String::new());
        }
        let branch = if place.is_last { "└─ " } else { "├─ " };
        if place.depth > deepest {
            let above = format!("⋯{} ", place.depth);
            let blank = " ".repeat(width(&above) + 3);
            return (format!("{above}{branch}"), blank);
        }
        let mut first = String::new();
        for has_more in open.get(1..).unwrap_or(&[]) {
            first.push_str(if *has_more { "│  " } else { "   " });
        }
        let below = format!("{first}{}", if place.is_last { "   " } else { "│  " });
        first.push_str(branch);
        (first, below)
    }

    fn row(&self, out: &mut String, step: &StepView, gutter: &str, line: TimeLine, look: Look) {
        let is_copy = step.duplicate_of.is_some();
        let plain = if is_copy { DIM } else { Style::new() };
        let (sign, style) = step_status(step.status);
        let room = self.label.saturating_sub(width(gutter) + 2);
        let label = label(step);
        let shown = cut(&safe(&label), room).into_owned();
        let padding = " ".repeat(room.saturating_sub(width(&shown)));
        let (kind, rest) = shown.split_once(' ').unwrap_or((&shown, ""));
        let mut text = format!(
            "{}{} {} {}{padding}",
            look.paint(DIM, gutter),
            look.paint(style, sign),
            look.paint(DIM, kind),
            look.paint(plain, rest)
        );
        if self.bar > 0 {
            text.push_str("  ");
            text.push_str(&bar(step, line, self.bar, look));
        }
        let parts = [(self.tokens, tokens(step.tokens)), (self.cost, cost(step)), (self.time, time(step))];
        for (columns, shown) in parts.iter().filter(|(columns, _)| *columns > 0) {
            text.push_str("  ");
            text.push_str(&look.paint(plain, &pad_left(shown, *columns)));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
}

fn label(step: &StepView) -> String {
    let mut label = format!("{} {}", step.kind, step.step_id);
    if let Some(model) = step.model.as_deref().filter(|model| !step.step_id.contains(*model)) {
        label.push(' ');
        label.push_str(model);
    }
    label
}

fn cost(step: &StepView) -> String {
    step.cost_usd.map(money).unwrap_or_default()
}

fn time(step: &StepView) -> String {
    match step.duration_ms {
        // Nobody knows when a step of a dead process would have ended.
        _ if step.status == StepStatus::Running || was_left_open(step) => "open".to_owned(),
        Some(ms) => duration(ms),
        None => String::new(),
    }
}

/// Tells whether a step's process died in the middle of it; of a command that `exec` ran, the end itself was seen.
fn was_left_open(step: &StepView) -> bool {
    let told = step.error.as_ref().and_then(|error| error.message.as_deref());
    step.status == StepStatus::Crashed && told.is_none_or(|message| message == CRASHED_STEP)
}

/// What stands below a step: why it failed, that it is a copy, that it never ended.
fn note(step: &StepView) -> Option<(Style, String)> {
    if let Some(original) = &step.duplicate_of {
        return Some((DIM, format!("not counted: the same call as {original}")));
    }
    match (&step.error, step.status) {
        _ if was_left_open(step) => Some((RED, "open when its process ended".to_owned())),
        (Some(error), StepStatus::Cancelled) if says_nothing(error) => None,
        (Some(error), _) => Some((RED, error_text(error))),
        (None, _) => None,
    }
}

fn bar(step: &StepView, line: TimeLine, columns: usize, look: Look) -> String {
    let length = line.to.0.saturating_sub(line.from.0).max(1);
    let place = |at: u64| {
        let part = u128::from(at.clamp(line.from.0, line.to.0) - line.from.0) * columns as u128 / u128::from(length);
        part as usize
    };
    let ended =
        step.duration_ms.filter(|_| !was_left_open(step)).map(|ms| step.started_at.0.saturating_add((ms * 1e6) as u64));
    let start = place(step.started_at.0).min(columns - 1);
    let end = place(ended.unwrap_or(line.to.0)).clamp(start + 1, columns);
    let (style, mark) = match step.status {
        StepStatus::Running => (CYAN, "╍"),
        StepStatus::Crashed => (RED, "╍"),
        _ if step.duplicate_of.is_some() => (DIM, "━"),
        // What was paid for and what was done stand out; what only encloses them stands back.
        StepStatus::Success => (kind_style(step.kind), "━"),
        status => (step_status(status).1, "━"),
    };
    format!("{}{}{}", " ".repeat(start), look.paint(style, &mark.repeat(end - start)), " ".repeat(columns - end))
}

fn kind_style(kind: StepKind) -> Style {
    match kind {
        StepKind::Llm | StepKind::Embedding | StepKind::Rerank => BLUE,
        StepKind::Tool | StepKind::Retrieval => MAGENTA,
        _ => DIM,
    }
}

fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

fn pad_left(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(width(text))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use runspan::model::{ErrorInfo, NanoUsd, Tokens};

    fn step(id: u8, parent: Option<u8>, kind: StepKind, name: &str, start_ms: u64, ms: Option<f64>) -> StepView {
        StepView {
            step_id: name.to_owned(),
            span_id: SpanId([id; 8]),
            parent_span_id: parent.map(|parent| SpanId([parent; 8])),
            kind,
            name: name.to_owned(),
            agent_id: None,
            status: if ms.is_some() { StepStatus::Success } else { StepStatus::Running },
            started_at: UnixNanos::from_millis(start_ms),
            duration_ms: ms,
            provider: None,
            model: None,
            tokens: None,
            cost_usd: None,
            cost_source: None,
            error: None,
            input: None,
            output: None,
            duplicate_of: None,
        }
    }

    fn example() -> Vec<StepView> {
        let usage = Some(Tokens { prompt: Some(1_500), completion: Some(800), ..Tokens::default() });
        let mut steps = vec![
            step(1, None, StepKind::Agent, "code-reviewer", 0, None),
            step(2, Some(1), StepKind::Llm, "chat", 0, Some(400.0)),
            step(3, Some(1), StepKind::Tool, "read_file", 400, Some(100.0)),
            step(4, Some(3), StepKind::Task, "open\x1b[31m\nforged", 410, Some(20.0)),
            step(5, Some(1), StepKind::Llm, "chat-2", 500, Some(300.0)),
            step(6, Some(1), StepKind::Tool, "read_file-2", 900, None),
        ];
        steps[1].model = Some("gpt-4o-mini".to_owned());
        steps[1].tokens = usage;
        steps[1].cost_usd = Some(NanoUsd(705_000));
        steps[2].status = StepStatus::Error;
        steps[2].error =
            Some(ErrorInfo { kind: Some("NotFound".into()), message: Some("no such file".into()), step_id: None });
        steps[4].tokens = usage;
        steps[4].duplicate_of = Some("chat".to_owned());
        steps
    }

    fn drawn(steps: &[StepView], width: usize) -> String {
        let line = TimeLine { from: UnixNanos(0), to: UnixNanos::from_millis(1_000) };
        render(steps, line, Look { width, cuts: true, colour: false, is_terminal: false })
    }

    #[test]
    fn a_wide_tree_has_bars() {
        assert_eq!(
            format!("\n{}", drawn(&example(), 100)),
            r#"
STEP                                 0                            1.00s     TOKENS       COST   TIME
● agent code-reviewer                ╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍                         open
├─ ✓ llm chat gpt-4o-mini            ━━━━━━━━━━━━━                       1,500+800  $0.000705  400ms
├─ ✗ tool read_file                               ━━━━                                         100ms
│    NotFound: no such file
│  └─ ✓ task open\u{1b}[31m\nforged               ━                                             20ms
├─ ✓ llm chat-2                                       ━━━━━━━━━━         1,500+800             300ms
│    not counted: the same call as chat
└─ ● tool read_file-2                                              ╍╍╍╍                         open
"#
        );
    }

    #[test]
    fn a_narrow_tree_still_says_what_happened() {
        assert_eq!(
            format!("\n{}", drawn(&example(), 60)),
            r#"
STEP                   0  1.00s     TOKENS       COST   TIME
● agent code-reviewer  ╍╍╍╍╍╍╍╍                         open
├─ ✓ llm chat gpt-4o…  ━━━       1,500+800  $0.000705  400ms
├─ ✗ tool read_file       ━                            100ms
│    NotFound: no such file
│  └─ ✓ task open\u{…     ━                             20ms
├─ ✓ llm chat-2            ━━    1,500+800             300ms
│    not counted: the same call as chat
└─ ● tool read_file-2         ╍                         open
"#
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for columns in 40..240 {
            let text = drawn(&example(), columns);
            assert!(text.lines().all(|line| width(line) <= columns), "{columns}\n{text}");
        }
    }

    #[test]
    fn broken_trees_show_every_step_once() {
        let steps = vec![
            step(1, Some(1), StepKind::Task, "own-parent", 0, Some(1.0)),
            step(2, Some(3), StepKind::Task, "circle-a", 1, Some(1.0)),
            step(3, Some(2), StepKind::Task, "circle-b", 2, Some(1.0)),
            step(4, Some(9), StepKind::Task, "orphan", 3, Some(1.0)),
        ];
        let places: Vec<(usize, usize)> = arrange(&steps).iter().map(|place| (place.step, place.depth)).collect();
        assert_eq!(places, [(0, 0), (3, 0), (1, 0), (2, 1)]);
    }

    #[test]
    fn a_very_deep_tree_is_drawn() {
        let deep: Vec<StepView> = (0..100_000u64)
            .map(|at| StepView {
                span_id: SpanId((at + 1).to_be_bytes()),
                parent_span_id: (at > 0).then(|| SpanId(at.to_be_bytes())),
                ..step(0, None, StepKind::Task, "deep", at, Some(1.0))
            })
            .collect();
        let text = drawn(&deep, 80);
        assert_eq!(text.lines().count(), 100_001);
        assert!(text.lines().all(|line| width(line) <= 80));
        assert!(text.contains("⋯99999 └─ ✓ task deep"), "{}", text.lines().last().unwrap());
    }
}
