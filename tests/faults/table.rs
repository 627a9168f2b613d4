//! The table of what was injected, what is promised, and what was seen.

use std::fmt::Write;

/// One line of it.
#[derive(Clone, Debug)]
pub struct Row {
    pub scenario: String,
    pub injected: String,
    pub promised: &'static str,
    pub held: u64,
    pub of: u64,
    pub seed: u64,
    /// What was seen besides: figures without a promise.
    pub seen: String,
    /// Why it did not hold, each time.
    pub failures: Vec<String>,
    /// Why it was not done at all.
    pub skipped: Option<String>,
}

impl Row {
    /// Begins a line.
    pub fn new(scenario: impl Into<String>, promised: &'static str, seed: u64) -> Self {
        Self {
            scenario: scenario.into(),
            injected: String::new(),
            promised,
            held: 0,
            of: 0,
            seed,
            seen: String::new(),
            failures: Vec::new(),
            skipped: None,
        }
    }

    /// Counts one trial.
    pub fn count(&mut self, trial_seed: u64, outcome: Result<(), crate::Failed>) {
        self.of += 1;
        match outcome {
            Ok(()) => self.held += 1,
            Err(error) => {
                // At once, since those who watch may not want to wait for the table.
                eprintln!("faults: {}, trial seed {trial_seed}: {error}", self.scenario);
                self.failures.push(format!("trial seed {trial_seed}: {error}"));
            }
        }
    }

    /// Did every trial hold?
    pub fn is_kept(&self) -> bool {
        self.held == self.of
    }

    fn verdict(&self) -> String {
        match &self.skipped {
            Some(_) if self.of == 0 => "not run".to_owned(),
            _ if self.is_kept() => format!("{} of {}", self.held, self.of),
            _ => format!("BROKEN: {} of {}", self.held, self.of),
        }
    }
}

/// Prints the lines as a table, and below it what was seen besides.
pub fn render(rows: &[Row]) -> String {
    let head = ["scenario", "injected", "promised", "held", "seed"].map(str::to_owned);
    let mut cells = vec![head];
    cells.extend(rows.iter().map(|row| {
        let seed = if row.of == 0 { String::new() } else { row.seed.to_string() };
        [row.scenario.clone(), row.injected.clone(), row.promised.to_owned(), row.verdict(), seed]
    }));
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut out = String::new();
    for (n, row) in cells.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(out, "| {cell:<width$} ");
        }
        out.push_str("|\n");
        if n == 0 {
            widths.iter().for_each(|width| out.push_str(&format!("|{:-<1$}", "", width + 2)));
            out.push_str("|\n");
        }
    }
    out.push('\n');
    for row in rows {
        for line in row.skipped.iter().chain(Some(&row.seen).filter(|seen| !seen.is_empty())) {
            let _ = writeln!(out, "{}: {line}", row.scenario);
        }
    }
    out
}
