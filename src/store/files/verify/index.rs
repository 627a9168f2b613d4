//! Holds `index.log` and `index.sqlite` against the runs.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};

use super::super::index;
use super::super::layout::{Layout, open_plain};
use super::{Cure, Problem, Report, RunCheck, Verdict, presence};
use crate::fs::{Contents, read_full};
use crate::model::id::{IdMap, IdSet};
use crate::model::{RunId, RunSummary};
use crate::store::StoreError;

/// Where the last line of each run is in `index.log`.
pub(super) struct Lines {
    places: IdMap<RunId, (u64, usize)>,
    /// Runs of which the last line says that they were removed.
    removed: IdSet<RunId>,
    /// Up to here it was read.
    end: u64,
    /// There is no `index.log`.
    pub is_missing: bool,
}

impl Lines {
    /// Finds the lines, and tells of the first that cannot be read.
    pub fn read(layout: &Layout, problems: &mut Vec<Problem>) -> Result<Self, StoreError> {
        let path = layout.index_log();
        let (mut places, mut removed) = (HashMap::default(), IdSet::default());
        let file = match open_plain(layout.fs(), &path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { places, removed, end: 0, is_missing: true });
            }
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        let mut reader = BufReader::with_capacity(1 << 16, Contents::of(&*file));
        let (mut line, mut offset, mut number) = (Vec::new(), 0, 0u64);
        let (mut first_bad, mut bad) = (None, 0u64);
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(StoreError::io("read", &path))?;
            // Behind the last line feed a line is being written, or its writer died: it is none.
            if line.pop() != Some(b'\n') {
                break;
            }
            number += 1;
            if !line.trim_ascii().is_empty() {
                match serde_json::from_slice::<RunSummary>(&line) {
                    Ok(summary) => {
                        removed.remove(&summary.run_id);
                        places.insert(summary.run_id, (offset, line.len()));
                    }
                    Err(error) => match index::removed_in(&line) {
                        Some(run) => {
                            places.remove(&run);
                            removed.insert(run);
                        }
                        // Who removes the run is at it, or died over it and the next cleanup goes on.
                        None if presence::is_going(layout, index::quick_id(&line))? => {}
                        None => {
                            bad += 1;
                            first_bad.get_or_insert((number, error.to_string()));
                        }
                    },
                }
            }
            offset += read as u64;
        }
        if let Some((line, why)) = first_bad {
            let more = if bad > 1 { format!("; and {} more lines", bad - 1) } else { String::new() };
            problems.push(Problem {
                run_id: None,
                file: "index.log".to_owned(),
                line: Some(line),
                what: format!("it cannot be read: {why}{more}"),
                todo: "a line costs itself; runspan verify --repair blanks it".to_owned(),
                cure: Some(Cure::UnreadLines),
                is_of_the_moment: false,
            });
        }
        Ok(Self { places, removed, end: offset, is_missing: false })
    }

    /// Returns the runs that have a line.
    pub fn runs(&self) -> impl Iterator<Item = RunId> + '_ {
        self.places.keys().copied()
    }

    /// Returns the runs that were removed, by what the last line of each says.
    pub fn removed(&self) -> &IdSet<RunId> {
        &self.removed
    }

    /// Returns what the last line of a run says.
    pub fn of(&self, layout: &Layout, run: RunId) -> Result<Option<RunSummary>, StoreError> {
        let Some((offset, length)) = self.places.get(&run).copied() else { return Ok(None) };
        let line = read(layout, offset, length)?;
        Ok(serde_json::from_slice(&line).ok())
    }

    /// Returns what the last line of a run says of those that were appended since.
    pub fn newer(&self, layout: &Layout, run: RunId) -> Result<Option<RunSummary>, StoreError> {
        let length = match layout.fs().stat(&layout.index_log()) {
            Ok(found) => found.len.saturating_sub(self.end),
            Err(_) => 0,
        };
        let lines = read(layout, self.end, usize::try_from(length).unwrap_or(0))?;
        Ok(index::newest(&lines).remove(&run))
    }
}

fn read(layout: &Layout, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
    let path = layout.index_log();
    let mut bytes = vec![0; length];
    if length > 0 {
        let file = open_plain(layout.fs(), &path).map_err(StoreError::io("read", &path))?;
        let read = read_full(&*file, &mut bytes, offset).map_err(StoreError::io("read", &path))?;
        bytes.truncate(read);
    }
    Ok(bytes)
}

/// Tells of an `index.log` that has gone, once for all runs that should have a line in it.
pub(super) fn check_presence(layout: &Layout, lines: &Lines, checks: &[RunCheck], report: &mut Report) {
    // Who writes a run appends its line.
    let lack = |check: &&RunCheck| check.status.is_some() && check.verdict != Verdict::BeingWritten;
    let lacking = checks.iter().filter(lack).count();
    if !lines.is_missing || lacking == 0 {
        return;
    }
    let has = if lacking == 1 { "1 run has".to_owned() } else { format!("{lacking} runs have") };
    report.problems.push(Problem::of_file(
        layout,
        &layout.index_log(),
        format!("it is missing: {has} no line in it"),
        "it is derived and loses nothing: runspan verify --repair makes it anew of the runs' own files",
        Some(Cure::Index),
    ));
}

/// Holds the database against the runs' folders and the log that it is made of. Without one there is nothing to check.
#[cfg(feature = "index")]
pub(super) fn check_database(layout: &Layout, report: &mut Report) -> Result<(), StoreError> {
    use super::super::database::{self, Checked};

    match database::check(layout) {
        Checked::Nothing | Checked::Whole => {}
        Checked::Busy(why) => report.notes.push(format!("index.sqlite was not checked: {why}")),
        Checked::Damaged(what) => report.problems.push(Problem {
            run_id: None,
            file: "index.sqlite".to_owned(),
            line: None,
            what,
            todo: "it is derived and loses nothing: runspan reindex, or runspan verify --repair, makes it anew"
                .to_owned(),
            cure: Some(Cure::Database),
            is_of_the_moment: false,
        }),
    }
    Ok(())
}

#[cfg(not(feature = "index"))]
pub(super) fn check_database(_: &Layout, _: &mut Report) -> Result<(), StoreError> {
    Ok(())
}
