//! What is in a store, asked of the `runspan` binary first, and whether it is what agents recorded.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use runspan::model::{RunId, RunStatus};
use runspan::store::RunReader;
use runspan::store::files::FilesReader;
use serde_json::Value as Json;

use crate::Failed;
use crate::agent::{Content, agent_name};
use crate::child::{Said, clean, output};

/// Longest that a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(900);

/// Makes a call of the binary under test.
pub fn command(store: &Path, args: &[&str]) -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_runspan"));
    command.args(args).arg("--store").arg(store);
    command
}

/// Calls it.
pub fn runspan(store: &Path, args: &[&str]) -> Result<Output, Failed> {
    output(&mut command(store, args), COMMAND_LIMIT)
}

/// What the binary says, besides, of losses in runs of which no record is left.
const LOST: &str = "warning: a process that ended early had lost records of runs that nothing is known of: ";

/// Lists all runs; returns how many records it says were lost beside them. Any other trouble is a failure.
fn list(store: &Path) -> Result<(Json, u64), Failed> {
    let output = runspan(store, &["list", "--limit", "0", "--json"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut lost = 0;
    for line in stderr.lines() {
        if let Some(counts) = line.strip_prefix(LOST) {
            lost += counts.split(' ').filter_map(|word| word.parse::<u64>().ok()).sum::<u64>();
        } else if !line.starts_with("hint:") {
            return Err(format!("runspan list: {}: {stderr}", output.status).into());
        }
    }
    if !output.status.success() {
        return Err(format!("runspan list: {}", output.status).into());
    }
    Ok((serde_json::from_slice(&output.stdout)?, lost))
}

/// What was found of the steps and runs of all agents of a trial.
#[derive(Debug, Default)]
pub struct Found {
    /// Steps by number that ended, with what they say.
    pub ended: BTreeMap<u64, Content>,
    /// Steps by number that began and whose end is not known.
    pub open: BTreeMap<u64, Content>,
    /// Runs by the name of their agent.
    pub runs: HashMap<String, RunStatus>,
    /// Runs whose own span ended.
    pub ended_runs: u64,
    /// Records that are counted as dropped, in the runs and beside them.
    pub dropped: u64,
}

/// Reads a whole store: `runspan list` takes in what dead processes left and names the runs, then every step is read.
pub fn read(store: &Path) -> Result<Found, Failed> {
    let (listed, lost) = list(store)?;
    let reader = FilesReader::open(store)?;
    let mut found = Found { dropped: lost, ..Found::default() };
    for run in listed.as_array().ok_or("no list")? {
        let id: RunId = serde_json::from_value(run["run_id"].clone())?;
        let status: RunStatus = serde_json::from_value(run["status"].clone())?;
        found.dropped += run["dropped"].as_u64().unwrap_or(0);
        read_run(&reader, id, status, &mut found).map_err(|error| format!("run {id}: {error}"))?;
    }
    Ok(found)
}

fn read_run(reader: &FilesReader, id: RunId, status: RunStatus, found: &mut Found) -> Result<(), Failed> {
    let mut ends: HashMap<String, u64> = HashMap::new();
    for event in reader.get_events(id, 0)? {
        let ended = ["llm_called", "tool_succeeded", "tool_failed", "step_completed", "step_failed"];
        if ended.contains(&event.body.type_name()) {
            *ends.entry(event.step_id.unwrap_or_default()).or_default() += 1;
        }
    }
    if let Some((step, n)) = ends.iter().find(|(_, n)| **n > 1) {
        return Err(format!("{step} ended {n} times").into());
    }
    let steps = serde_json::to_value(reader.get_steps(id)?)?;
    for step in steps.as_array().into_iter().flatten() {
        if step["kind"] == "agent" {
            found.ended_runs += u64::from(step["status"] == "success");
            let name = step["agent_id"].as_str().unwrap_or_default();
            if found.runs.insert(name.to_owned(), status).is_some() {
                return Err(format!("{name} is there twice").into());
            }
            continue;
        }
        let content = content_of(step)?;
        let place = match step["status"].as_str() {
            Some("success") => &mut found.ended,
            // A step whose end was dropped has none in a run that is over.
            Some("crashed" | "running") => &mut found.open,
            _ => return Err(format!("step {} is {}", content.n, step["status"]).into()),
        };
        let n = content.n;
        if place.insert(n, content).is_some() {
            return Err(format!("step {n} is there twice").into());
        }
    }
    Ok(())
}

/// Reads back what a step says, from the JSON that `runspan get` prints of it.
pub fn content_of(step: &Json) -> Result<Content, Failed> {
    let text = leaf(&step["input"]).ok_or_else(|| format!("{} says nothing of itself", step["step_id"]))?;
    let n = Content::number(text).ok_or_else(|| format!("{} says {text:?}", step["step_id"]))?;
    let tokens = step["tokens"]["prompt"].as_u64().zip(step["tokens"]["completion"].as_u64());
    Ok(Content { n, text: text.to_owned(), tokens })
}

/// Finds the text with a step's number in it.
fn leaf(value: &Json) -> Option<&str> {
    match value {
        Json::String(text) => Some(text.as_str()).filter(|text| Content::number(text).is_some()),
        Json::Array(values) => values.iter().find_map(leaf),
        Json::Object(fields) => fields.values().find_map(leaf),
        _ => None,
    }
}

/// What one agent recorded, as far as it could say so.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub seed: u64,
    pub first: u64,
    pub said: Said,
    /// It was killed, so that one step more may have ended or begun, and a run, without a word of it.
    pub killed: bool,
    /// Steps may be missing, so many: they were dropped, and counted.
    pub may_lack: u64,
}

impl Found {
    /// Returns how many spans are there that ended.
    pub fn spans(&self) -> u64 {
        self.ended.len() as u64 + self.ended_runs
    }

    /// Checks that everything recorded is there, as it was, and nothing else.
    pub fn check(&self, agents: &[Recorded]) -> Result<(), Failed> {
        let mut explained = 0;
        if self.dropped > 0 && agents.iter().all(|agent| agent.may_lack == 0) {
            return Err(format!("{} records are counted as dropped, and none were", self.dropped).into());
        }
        for agent in agents {
            let (first, ended) = (agent.first, agent.said.ended);
            let beyond = ended + u64::from(agent.killed);
            let there = self.ended.range(first..beyond).count() as u64;
            let missing = (first..ended).filter(|n| !self.ended.contains_key(n)).count() as u64;
            if missing > agent.may_lack {
                let which = (first..ended).find(|n| !self.ended.contains_key(n)).unwrap_or_default();
                return Err(format!("{missing} steps are missing whose end had returned, {which} the first").into());
            }
            explained += there;
            for content in self.ended.range(first..beyond).chain(self.open.range(first..beyond)).map(|(_, step)| step) {
                if let Some(difference) = content.difference(&Content::of(agent.seed, content.n)) {
                    return Err(difference.into());
                }
            }
            if let Some(n) = self.open.range(first..ended).map(|(n, _)| n).next()
                && agent.may_lack == 0
            {
                return Err(format!("step {n} is open, and its end had returned").into());
            }
            for run in &agent.said.runs {
                let status = self.runs.get(&agent_name(*run));
                if status != Some(&RunStatus::Success) && agent.may_lack == 0 {
                    return Err(format!("run {run} was over and is {status:?}").into());
                }
            }
        }
        if explained != self.ended.len() as u64 {
            return Err(format!("{} steps are stored that nobody recorded", self.ended.len() as u64 - explained).into());
        }
        Ok(())
    }
}
