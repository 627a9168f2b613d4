//! The run store in memory: for tests, and the simplest reading of the contract.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::assembly::RunState;
use super::{Capabilities, Listed, ListedRun, Query, RunReader, RunWriter, StoreError, newest_first, resolve_among};
use crate::model::{Event, RunId, RunSummary, TraceId, UnixNanos};

/// Runs in memory; clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    runs: Arc<Mutex<BTreeMap<RunId, Stored>>>,
    links: Arc<Mutex<Vec<(TraceId, RunId)>>>,
}

#[derive(Debug)]
struct Stored {
    summary: RunSummary,
    events: Vec<Event>,
    known: HashSet<crate::model::EventId>,
}

impl MemoryStore {
    fn runs(&self) -> MutexGuard<'_, BTreeMap<RunId, Stored>> {
        // A panic while the lock was held leaves whole values: every change is one assignment.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listed(stored: &Stored) -> ListedRun {
        if !stored.summary.status.is_open() || stored.events.is_empty() {
            return ListedRun { summary: stored.summary.clone(), open_steps: Vec::new() };
        }
        let state = RunState::read(stored.summary.run_id, &stored.events);
        ListedRun { summary: state.summary(UnixNanos::now()), open_steps: state.open_steps() }
    }
}

fn not_found(run: RunId) -> StoreError {
    StoreError::NotFound { id: run.to_string() }
}

impl RunWriter for MemoryStore {
    fn create_run(&mut self, summary: &RunSummary, events: &[Event]) -> Result<(), StoreError> {
        self.runs().entry(summary.run_id).or_insert_with(|| Stored {
            summary: summary.clone(),
            events: Vec::new(),
            known: HashSet::new(),
        });
        self.append_events(summary.run_id, events)
    }

    fn has_run(&mut self, run: RunId) -> Result<bool, StoreError> {
        Ok(self.runs().contains_key(&run))
    }

    fn note_link(&mut self, trace: TraceId, run: Option<RunId>) -> Result<(), StoreError> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        match run {
            Some(run) => links.push((trace, run)),
            None => links.retain(|(waited_for, _)| *waited_for != trace),
        }
        Ok(())
    }

    fn replace_links(&mut self, links: &[(TraceId, RunId)]) -> Result<(), StoreError> {
        *self.links.lock().unwrap_or_else(PoisonError::into_inner) = links.to_vec();
        Ok(())
    }

    fn noted_links(&mut self, most: usize) -> Result<Vec<(TraceId, RunId)>, StoreError> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(links[links.len().saturating_sub(most)..].to_vec())
    }

    fn take_up(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError> {
        Ok(self.runs().get(&run).map(|stored| stored.events.clone()))
    }

    fn look_at(&mut self, run: RunId) -> Result<Option<Vec<Event>>, StoreError> {
        self.take_up(run)
    }

    fn append_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError> {
        let mut runs = self.runs();
        let stored = runs.get_mut(&run).ok_or_else(|| not_found(run))?;
        for event in events {
            if stored.known.insert(event.event_id) {
                stored.events.push(event.clone());
            }
        }
        Ok(())
    }

    fn replace_events(&mut self, run: RunId, events: &[Event]) -> Result<(), StoreError> {
        let mut runs = self.runs();
        let stored = runs.get_mut(&run).ok_or_else(|| not_found(run))?;
        stored.known = events.iter().map(|event| event.event_id).collect();
        stored.events = events.to_vec();
        Ok(())
    }

    fn update_run(&mut self, summary: &RunSummary) -> Result<(), StoreError> {
        let mut runs = self.runs();
        runs.get_mut(&summary.run_id).ok_or_else(|| not_found(summary.run_id))?.summary = summary.clone();
        Ok(())
    }

    fn delete_run(&mut self, run: RunId) -> Result<(), StoreError> {
        self.runs().remove(&run);
        Ok(())
    }

    fn release_run(&mut self, _: RunId) {}
}

impl RunReader for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn get_run(&self, run: RunId) -> Result<RunSummary, StoreError> {
        self.runs().get(&run).map(|stored| Self::listed(stored).summary).ok_or_else(|| not_found(run))
    }

    fn list_runs(&self, query: &Query) -> Result<Vec<Listed>, StoreError> {
        let runs = self.runs();
        let mut live: BTreeMap<RunId, ListedRun> =
            runs.iter().map(|(run, stored)| (*run, Self::listed(stored))).collect();
        let selected = query.select(live.values().map(|run| run.summary.clone()).collect());
        Ok(selected
            .iter()
            .filter_map(|summary| live.remove(&summary.run_id))
            .map(|run| Listed::Run(Box::new(run)))
            .collect())
    }

    fn get_events(&self, run: RunId, from_seq: u64) -> Result<Vec<Event>, StoreError> {
        let runs = self.runs();
        let stored = runs.get(&run).ok_or_else(|| not_found(run))?;
        Ok(stored.events.iter().filter(|event| event.seq >= from_seq).cloned().collect())
    }

    fn search(&self, _: &str, _: &Query) -> Result<Vec<Listed>, StoreError> {
        Err(StoreError::Unsupported { what: "search", why: "the memory store has no text index" })
    }

    fn resolve(&self, id: &str) -> Result<RunId, StoreError> {
        let runs = self.runs();
        let mut summaries: Vec<&RunSummary> = runs.values().map(|stored| &stored.summary).collect();
        summaries.sort_by(|a, b| newest_first(a, b));
        resolve_among(id, summaries.into_iter())
    }
}
