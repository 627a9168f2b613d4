//! Holds the database against the store that it is made of.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use super::super::layout::Layout;
use super::super::{index, run_ids};
use super::catch_up::Place;
use super::{Database, DatabaseError, Result, id_in, path};
use crate::model::{RunKind, RunSummary};

/// How long a database is given to take in what is new before it is checked.
pub(super) const CHECK_LIMIT: Duration = Duration::from_secs(60);

/// How a database was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Checked {
    /// There is none.
    Nothing,
    /// It says what the store says.
    Whole,
    /// It could not be looked at now.
    Busy(String),
    /// It says something else, or cannot be read.
    Damaged(String),
}

/// Checks the database of a store: its pages, and its runs against the folders and the lines of the log.
pub(in super::super) fn check(layout: &Layout) -> Checked {
    if !layout.is_of_the_system() || !path(layout).exists() {
        return Checked::Nothing;
    }
    match Database::open_as_it_is(layout).and_then(|mut database| database.find_fault()) {
        Ok(None) => Checked::Whole,
        Ok(Some(fault)) => Checked::Damaged(fault),
        Err(error @ DatabaseError::Damaged(_)) => Checked::Damaged(error.to_string()),
        Err(error) => Checked::Busy(error.to_string()),
    }
}

impl Database {
    /// Tells what is wrong with it, if anything is. The store may be written meanwhile.
    fn find_fault(&mut self) -> Result<Option<String>> {
        /// A removal blanks a line of the log before it is taken in here: what stays wrong is a fault.
        const LOOKS: usize = 3;
        let pages: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if pages != "ok" {
            return Ok(Some(pages));
        }
        let mut fault = None;
        for _ in 0..LOOKS {
            if !self.catch_up(CHECK_LIMIT)?.is_whole {
                return Ok(Some("it has not taken in all of index.log".to_owned()));
            }
            fault = self.find_difference()?;
            if fault.is_none() {
                break;
            }
        }
        Ok(fault)
    }

    /// Compares it with `index.log`, up to the place of the log that it has reached.
    fn find_difference(&mut self) -> Result<Option<String>> {
        let layout = self.layout.clone();
        let mut folders = HashSet::new();
        for kind in RunKind::ALL {
            folders.extend(run_ids(layout.fs(), &layout.runs(*kind))?);
        }
        // Rows and the place that they stand for are of one moment; what others take in meanwhile is not seen.
        let moment = self.connection.transaction()?;
        let place = usize::try_from(Place::read(&moment)?.bytes).unwrap_or(usize::MAX);
        let log = std::fs::read(layout.index_log()).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(error),
        })?;
        let reached = place.min(log.len());
        // What was appended meanwhile is not its fault.
        let (lines, newer) = (index::last_lines(&log[..reached]), index::last_lines(&log[reached..]));
        let mut statement = moment.prepare("SELECT run_id, json FROM runs JOIN summaries USING (id)")?;
        let mut rows = statement.query([])?;
        let mut known = 0;
        while let Some(row) = rows.next()? {
            let run = id_in(row.get_ref(0)?.as_str().unwrap_or_default())?;
            let said: Option<RunSummary> = serde_json::from_str(row.get_ref(1)?.as_str().unwrap_or_default()).ok();
            let right = lines.get(&run).and_then(|line| serde_json::from_slice::<RunSummary>(line).ok());
            // A run that goes loses its folder first, then its line.
            let is_gone = right.is_none() && layout.find_run(run).is_ok_and(|folder| folder.is_none());
            if (said.is_none() || said != right) && !is_gone {
                return Ok(Some(format!("what it says of run {run} is not what index.log says")));
            }
            known += u64::from(folders.contains(&run));
        }
        let of_folders = lines.keys().filter(|run| folders.contains(run) && !newer.contains_key(run)).count() as u64;
        Ok((known < of_folders).then(|| format!("it has {known} of {of_folders} runs")))
    }
}
