//! Removes runs from a store: what a [`plan`] says, and what an earlier removal left.
//!
//! A run goes in steps that may end anywhere. Under the lock of its log its folder gets a name that no reader takes for a
//! run, which needs no room on a disk that is full; that is the moment it is gone. Then its files go, then the links that
//! its children have to it, its lines in the log of all runs, and the empty folder last: as long as that is there, the next
//! to clean up goes on. A run that is open or pinned, whose metadata cannot be read, or whose log another process has open,
//! stays.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::artifacts::COMPRESSED_FROM;
use super::index::Lead;
use super::layout::{Layout, stat, sync_dir};
use super::run_dir::{self, LogLock};
#[cfg(feature = "seal")]
use super::{artifacts, sealed};
use super::{chain, index, run_ids, writer_is_alive};
use crate::fs::Fs;
use crate::model::id::{IdMap, IdSet};
use crate::model::{RunId, RunKind, RunSummary, UnixNanos};
use crate::store::StoreError;
use crate::store::retention::{Candidate, Policy, Reason, plan};

/// Folders on the way out are named so, with the run's id behind it.
pub(super) const GONE_PREFIX: &str = ".deleted-";
/// Folders in the making, with the ids of run and process behind it.
const NEW_PREFIX: &str = ".new-";
/// A run that was written less than so long ago may still get what comes late.
#[cfg(feature = "seal")]
const QUIET: std::time::Duration = std::time::Duration::from_secs(60);
/// So many runs are taken out of sight, with one sync for all, before their files go.
const BATCH: usize = 64;

/// What to do beyond removing what a policy says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Tell what would be done, and change nothing.
    pub is_dry_run: bool,
    /// Seal logs of runs that are over from so many bytes on, and files over 10 MB that they produced; `None`: none. Without the feature `seal` none is.
    pub seal_from: Option<u64>,
}

/// A run that went, or would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The run.
    pub run_id: RunId,
    /// What it was an execution of.
    pub kind: RunKind,
    /// Of which agent or workflow.
    pub name: String,
    /// When it began.
    pub started_at: UnixNanos,
    /// Bytes of its files.
    pub bytes: u64,
    /// Why it goes.
    pub reason: Reason,
}

/// A run that should have gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stayed {
    /// The run.
    pub run_id: RunId,
    /// Why it is still there.
    pub why: String,
    /// It stayed for a failure, and not because it is pinned, open or being written.
    #[serde(skip)]
    pub is_failure: bool,
}

impl Cleaned {
    /// `after`: `None` of what would be sealed.
    #[cfg(feature = "seal")]
    fn add_sealed(&mut self, before: u64, after: Option<u64>) {
        self.sealed += 1;
        self.sealed_from_bytes += before;
        if let Some(after) = after {
            self.sealed_to_bytes = Some(self.sealed_to_bytes.unwrap_or(0) + after);
        }
    }
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// What went, the oldest first.
    pub removed: Vec<Removed>,
    /// Their bytes.
    pub bytes: u64,
    /// What should have gone and did not.
    pub stayed: Vec<Stayed>,
    /// Runs that are left.
    pub runs_left: u64,
    /// Their bytes; only where a policy asks for them.
    pub bytes_left: Option<u64>,
    /// Logs and large files that were sealed, or would be.
    pub sealed: u64,
    /// Bytes that these took before.
    pub sealed_from_bytes: u64,
    /// Bytes that they take now; `None` where none was sealed.
    pub sealed_to_bytes: Option<u64>,
    /// Folders of an earlier removal, or of runs whose making was interrupted, that went as well.
    pub leftovers: u64,
}

/// Removes what a policy does not keep. `go_on` is asked before each 64 runs; told `false` it stops, and what is left is left
/// for the next time.
///
/// # Errors
///
/// When the store cannot be read. A run that cannot be removed is told in [`Cleaned::stayed`].
pub fn cleanup(
    layout: &Layout,
    policy: &Policy,
    options: Options,
    now: UnixNanos,
    mut go_on: impl FnMut() -> bool,
) -> Result<Cleaned, StoreError> {
    layout.read()?;
    let mut cleaned = Cleaned::default();
    let mut survey = Survey::take(layout, policy.max_bytes.is_some())?;
    let mut emptied = Vec::new();
    if !options.is_dry_run {
        (cleaned.leftovers, emptied) = sweep(layout, &survey.children)?;
    }
    // What is sealed takes less, so that is done before runs go for the size of all.
    let seals_first = options.seal_from.is_some() && policy.max_bytes.is_some() && !options.is_dry_run;
    let first = Policy { max_bytes: policy.max_bytes.filter(|_| !seals_first), ..*policy };
    let mut removed = remove(layout, &first, &survey, options, now, &mut go_on, &mut cleaned, &mut emptied);
    if let Some(from) = options.seal_from.filter(|_| removed.is_ok()) {
        removed = seal(layout, &mut survey, from, options, now, &mut go_on, &mut cleaned);
    }
    if seals_first && removed.is_ok() {
        removed = remove(layout, policy, &survey, options, now, &mut go_on, &mut cleaned, &mut emptied);
    }
    // Also where something failed: what went before is to be gone as a whole.
    forget(layout, emptied);
    removed?;
    cleaned.bytes = cleaned.removed.iter().map(|run| run.bytes).sum();
    cleaned.runs_left = (survey.candidates.len() - cleaned.removed.len()) as u64;
    let all: u64 = survey.candidates.iter().map(|run| run.bytes).sum();
    cleaned.bytes_left = policy.max_bytes.map(|_| all.saturating_sub(cleaned.bytes));
    Ok(cleaned)
}

/// Removes what a policy does not keep of the runs that are left.
#[expect(clippy::too_many_arguments, reason = "what a cleanup works with")]
fn remove(
    layout: &Layout,
    policy: &Policy,
    survey: &Survey,
    options: Options,
    now: UnixNanos,
    go_on: &mut impl FnMut() -> bool,
    cleaned: &mut Cleaned,
    emptied: &mut Vec<Emptied>,
) -> Result<(), StoreError> {
    let done: IdSet<RunId> = cleaned.removed.iter().map(|run| run.run_id).collect();
    let left: Vec<Candidate> = survey.candidates.iter().filter(|run| !done.contains(&run.run_id)).cloned().collect();
    let of_run: IdMap<RunId, &Candidate> = left.iter().map(|run| (run.run_id, run)).collect();
    // What was tried and stayed is told once.
    cleaned.stayed.clear();
    for batch in plan(policy, &left, now).chunks(BATCH) {
        if !go_on() {
            break;
        }
        let batch = batch.iter().filter_map(|(run, reason)| Some((*of_run.get(run)?, *reason)));
        remove_batch(layout, batch, survey, options, cleaned, emptied)?;
    }
    Ok(())
}

/// A run of which nothing is left but its folder, which is empty.
type Emptied = (RunId, PathBuf);

/// Takes away what else tells of runs whose files have gone, and their folders last: until then the next cleanup knows
/// what is left to do.
fn forget(layout: &Layout, emptied: Vec<Emptied>) {
    if emptied.is_empty() {
        return;
    }
    let fs = layout.fs();
    // One of these ids may have been recorded anew.
    let is_there = |run: &RunId| !matches!(layout.find_run(*run), Ok(None));
    let gone = emptied.iter().map(|(run, _)| *run).filter(|run| !is_there(run)).collect();
    // The index knows the log by the bytes before the place that it has read up to: with a line of blanks at the end,
    // none of them change. On a full disk it may have to begin anew.
    let _ = index::pad(fs, &layout.index_log());
    #[cfg(feature = "index")]
    super::database::catch_up(layout);
    if index::blank(fs, &layout.index_log(), &gone, false).is_err() {
        return;
    }
    for (_, folder) in emptied {
        // It is no harm where it stays: the next cleanup takes it away.
        let _ = fs.remove_dir(&folder);
    }
}

/// Seals what is large and has been over for a while.
#[cfg(feature = "seal")]
fn seal(
    layout: &Layout,
    survey: &mut Survey,
    from: u64,
    options: Options,
    now: UnixNanos,
    go_on: &mut impl FnMut() -> bool,
    cleaned: &mut Cleaned,
) -> Result<(), StoreError> {
    let gone: IdSet<RunId> = cleaned.removed.iter().map(|run| run.run_id).collect();
    let quiet = QUIET.as_nanos() as u64;
    let mut saved: IdMap<RunId, u64> = IdMap::default();
    for Over { run, has_large, .. } in
        survey.over.iter().filter(|over| !gone.contains(&over.run) && now.0.saturating_sub(over.written_at.0) >= quiet)
    {
        if !go_on() {
            break;
        }
        let Some(dir) = layout.find_run(*run)? else { continue };
        let log = run_dir::events_file(&dir);
        let plain = stat(layout.fs(), &log).map_err(StoreError::io("read", &log))?;
        let is_long = plain.is_some_and(|found| found.len >= from.max(1));
        if !is_long && !has_large {
            continue;
        }
        let before = (cleaned.sealed_from_bytes, cleaned.sealed_to_bytes.unwrap_or(0));
        match seal_run(layout, *run, &dir, is_long, options.is_dry_run, cleaned) {
            // The others would fare no better.
            Err(error) if error.is_out_of_space() => break,
            // What cannot be sealed stays as it is, and a later look tries again.
            Ok(()) | Err(_) => {}
        }
        let after = (cleaned.sealed_from_bytes, cleaned.sealed_to_bytes.unwrap_or(0));
        saved.insert(*run, (after.0 - before.0).saturating_sub(after.1 - before.1));
    }
    if !options.is_dry_run {
        for candidate in &mut survey.candidates {
            let saved = saved.get(&candidate.run_id).copied().unwrap_or(0);
            candidate.bytes = candidate.bytes.saturating_sub(saved);
        }
    }
    Ok(())
}

/// Seals the log of a run if `is_long`, and large files that it produced.
#[cfg(feature = "seal")]
fn seal_run(
    layout: &Layout,
    run: RunId,
    dir: &Path,
    is_long: bool,
    is_dry_run: bool,
    cleaned: &mut Cleaned,
) -> Result<(), StoreError> {
    let fs = layout.fs();
    let lock = if is_dry_run { None } else { Some(LogLock::take(fs, dir, run)?) };
    let summary = run_dir::read_summary(fs, dir, run)?;
    if summary.status.is_open() {
        return Ok(());
    }
    let Some(lock) = lock else {
        let log = run_dir::events_file(dir);
        if is_long && let Some(found) = stat(fs, &log).map_err(StoreError::io("read", log))? {
            cleaned.add_sealed(found.len, None);
        }
        plain_and_large(fs, dir, &summary)?.iter().for_each(|artifact| cleaned.add_sealed(artifact.bytes, None));
        return Ok(());
    };
    run_dir::remove_leftovers(fs, dir);
    if is_long && let Some((before, after)) = lock.seal(fs, dir, &summary)? {
        cleaned.add_sealed(before, Some(after));
    }
    for artifact in plain_and_large(fs, dir, &summary)? {
        let Some(path) = artifacts::path_of(dir, &artifact.name) else { continue };
        let sealed = sealed::sealed_file(&path);
        // Left by one who died over it, unless the run has a file of that name.
        let is_own = summary.artifacts.iter().any(|other| path.with_file_name(&other.name) == sealed);
        if !is_own && summary.artifacts_total.is_none() {
            ignore_missing(fs.remove_file(&sealed)).map_err(StoreError::io("delete", &sealed))?;
        }
        if let Some(after) = artifacts::compress_large(fs, &path, artifact, true)? {
            cleaned.add_sealed(artifact.bytes, Some(after));
        }
    }
    Ok(())
}

/// Returns the large files of a run that are there as they are.
#[cfg(feature = "seal")]
fn plain_and_large<'a>(
    fs: &dyn Fs,
    dir: &Path,
    summary: &'a RunSummary,
) -> Result<Vec<&'a crate::model::run::ArtifactInfo>, StoreError> {
    let mut found = Vec::new();
    for artifact in summary.artifacts.iter().filter(|artifact| artifact.bytes > COMPRESSED_FROM) {
        if artifacts::find(fs, dir, artifact.clone())?.stored == artifacts::Form::Plain {
            found.push(artifact);
        }
    }
    Ok(found)
}

#[cfg(not(feature = "seal"))]
fn seal(
    _: &Layout,
    _: &mut Survey,
    _: u64,
    _: Options,
    _: UnixNanos,
    _: &mut impl FnMut() -> bool,
    _: &mut Cleaned,
) -> Result<(), StoreError> {
    Ok(())
}

/// All runs of a store, and who started whom.
struct Survey {
    candidates: Vec<Candidate>,
    children: IdMap<RunId, Vec<RunId>>,
    /// Runs that are over.
    over: Vec<Over>,
}

/// A run that is over.
#[cfg_attr(not(feature = "seal"), expect(dead_code, reason = "only who seals asks"))]
struct Over {
    run: RunId,
    /// When it was written last.
    written_at: UnixNanos,
    /// Files that it produced and that are large.
    has_large: bool,
}

impl Survey {
    fn take(layout: &Layout, with_bytes: bool) -> Result<Self, StoreError> {
        let (packs, inner) = layout.packs();
        let packed = packs.bytes(inner).map_err(StoreError::io("read", packs.dir()))?;
        let (fs, mut indexed) = (layout.fs(), index::leads(layout.fs(), &layout.index_log())?);
        let mut survey = Self { candidates: Vec::new(), children: IdMap::default(), over: Vec::new() };
        for kind in RunKind::ALL {
            for run in run_ids(fs, &layout.runs(*kind))? {
                let lead = indexed.remove(&run);
                match survey.look(layout, *kind, run, lead, with_bytes, packed.get(&run).copied()) {
                    Err(error) if error.is_out_of_resources() => return Err(error),
                    // One run that cannot be read, perhaps another user's, does not keep all others.
                    Err(_) => survey.add_damaged(*kind, run, 0),
                    Ok(()) => {}
                }
            }
        }
        Ok(survey)
    }

    fn look(
        &mut self,
        layout: &Layout,
        kind: RunKind,
        run: RunId,
        lead: Option<Lead>,
        with_bytes: bool,
        packed: Option<u64>,
    ) -> Result<(), StoreError> {
        let (fs, dir) = (layout.fs(), layout.run(kind, run));
        let packed = packed.filter(|_| layout.is_packed(&dir).unwrap_or(false));
        let bytes = match packed {
            _ if !with_bytes => 0,
            // The folder that is shown of it is longer.
            Some(bytes) => bytes,
            None => tree_bytes(fs, &dir)?,
        };
        // A line may be an old one; a run that is over does not become open again by itself.
        let lead = match lead.filter(|lead| !lead.status.is_open()) {
            Some(lead) => lead,
            // Nothing but artifacts yet: the run's first lines are about to be written.
            None if !run_dir::is_begun(fs, &dir)? => return Ok(()),
            None => match run_dir::read_summary(fs, &dir, run) {
                Ok(summary) => Lead::from(summary),
                Err(StoreError::Damaged { .. }) => {
                    self.add_damaged(kind, run, bytes);
                    return Ok(());
                }
                Err(error) => return Err(error),
            },
        };
        self.add(lead, bytes, is_marked(fs, &dir)?);
        if packed.is_some() {
            // It is compressed where it is.
            self.over.pop_if(|over| over.run == run);
        }
        Ok(())
    }

    fn add(&mut self, run: Lead, bytes: u64, is_pinned: bool) {
        let is_over = !run.status.is_open();
        if let Some(parent) = run.parent_run_id {
            self.children.entry(parent).or_default().push(run.run_id);
        }
        if is_over {
            let has_large = run.artifacts.iter().any(|artifact| artifact.bytes > COMPRESSED_FROM);
            self.over.push(Over { run: run.run_id, written_at: run.updated_at, has_large });
        }
        self.candidates.push(Candidate {
            run_id: run.run_id,
            kind: run.kind,
            name: run.agent_id.or(run.workflow_id).unwrap_or_default(),
            started_at: run.started_at,
            ended_at: run.completed_at.unwrap_or(run.updated_at),
            bytes,
            // What its own files say is asked when it is to go.
            is_removable: is_over && !is_pinned,
        });
    }

    /// Adds a run that cannot be read: it takes room, and stays.
    fn add_damaged(&mut self, kind: RunKind, run_id: RunId, bytes: u64) {
        let at = run_id.time();
        let name = String::new();
        self.candidates.push(Candidate {
            run_id,
            kind,
            name,
            started_at: at,
            ended_at: at,
            bytes,
            is_removable: false,
        });
    }
}

/// Returns the bytes of all files below a folder; what goes away meanwhile has none.
fn tree_bytes(fs: &dyn Fs, dir: &Path) -> Result<u64, StoreError> {
    let entries = match fs.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StoreError::io("read", dir)(error)),
    };
    let mut bytes = 0;
    for entry in entries {
        let path = dir.join(&entry.name);
        bytes += match entry.is_dir {
            true => tree_bytes(fs, &path)?,
            false => stat(fs, &path).map_err(StoreError::io("read", &path))?.map_or(0, |found| found.len),
        };
    }
    Ok(bytes)
}

/// Takes runs out of sight, then their files away.
fn remove_batch<'a>(
    layout: &Layout,
    batch: impl Iterator<Item = (&'a Candidate, Reason)>,
    survey: &Survey,
    options: Options,
    cleaned: &mut Cleaned,
    emptied: &mut Vec<Emptied>,
) -> Result<(), StoreError> {
    let (mut hidden, mut parents) = (Vec::new(), Vec::new());
    for (run, reason) in batch {
        let hid = match hide(layout, run.run_id, options.is_dry_run) {
            Ok(hid) => hid,
            Err(error) => {
                let (why, is_failure) =
                    (crate::error::with_causes(&error), !matches!(error, StoreError::Damaged { .. }));
                cleaned.stayed.push(Stayed { run_id: run.run_id, why, is_failure });
                continue;
            }
        };
        match hid {
            Hid::Gone => {}
            Hid::Not(why) => cleaned.stayed.push(Stayed { run_id: run.run_id, why, is_failure: false }),
            Hid::As { dir, bytes } => {
                let Candidate { run_id, kind, started_at, .. } = *run;
                cleaned.removed.push(Removed { run_id, kind, name: run.name.clone(), started_at, bytes, reason });
                parents.extend(dir.parent().map(Path::to_owned));
                hidden.push((run_id, dir));
            }
        }
    }
    if options.is_dry_run {
        return Ok(());
    }
    parents.sort_unstable();
    parents.dedup();
    for parent in parents {
        // Before their files go: else half of a run may be there again after a loss of power.
        sync_dir(layout.fs(), &parent)?;
    }
    for (run, dir) in hidden {
        // It is out of sight; what is left of it the next cleanup takes away.
        if let Ok(true) = empty(layout, run, &dir, &survey.children) {
            emptied.push((run, dir));
        }
    }
    Ok(())
}

/// What became of a run that is to go out of sight.
enum Hid {
    /// It stands under this name now.
    As { dir: PathBuf, bytes: u64 },
    /// Somebody else has removed it.
    Gone,
    /// It stays, and why.
    Not(String),
}

fn hide(layout: &Layout, run: RunId, is_dry_run: bool) -> Result<Hid, StoreError> {
    let fs = layout.fs();
    let Some(dir) = layout.find_run(run)? else { return Ok(Hid::Gone) };
    let lock = match is_dry_run {
        // It changes nothing, a lock included.
        true if run_dir::is_locked(fs, &dir) => Err(StoreError::InUse { run }),
        true => Ok(None),
        false => LogLock::take(fs, &dir, run).map(Some),
    };
    let _lock = match lock {
        Ok(lock) => lock,
        Err(StoreError::InUse { .. }) => return Ok(Hid::Not("a process is writing it".to_owned())),
        Err(error) => return Err(error),
    };
    // The list of all runs may be behind.
    let summary = run_dir::read_summary(fs, &dir, run)?;
    if summary.status.is_open() {
        return Ok(Hid::Not(format!("it is {}", summary.status)));
    }
    if is_marked(fs, &dir)? {
        return Ok(Hid::Not("it is pinned".to_owned()));
    }
    let bytes = tree_bytes(fs, &dir)?;
    if is_dry_run {
        return Ok(Hid::As { dir, bytes });
    }
    let gone = dir.with_file_name(format!("{GONE_PREFIX}{run}"));
    if stat(fs, &gone).map_err(StoreError::io("read", &gone))?.is_some() {
        // Of a run of the same id that was removed before.
        fs.remove_tree(&gone).map_err(StoreError::io("delete", &gone))?;
    }
    match fs.rename(&dir, &gone).map_err(StoreError::io("delete", &dir)) {
        // A longer name may want a block of its own. What is derived gives one back.
        Err(error) if error.is_out_of_space() => {
            ignore_missing(fs.remove_file(&chain::chain_file(&dir))).map_err(StoreError::io("delete", &dir))?;
            fs.rename(&dir, &gone).map_err(StoreError::io("delete", &dir))
        }
        renamed => renamed,
    }?;
    Ok(Hid::As { dir: gone, bytes })
}

/// Takes away the files of a run that is out of sight, and links to it; tells whether all of that is done.
fn empty(layout: &Layout, run: RunId, gone: &Path, children: &IdMap<RunId, Vec<RunId>>) -> Result<bool, StoreError> {
    let fs = layout.fs();
    for entry in fs.list(gone).map_err(StoreError::io("read", gone))? {
        let path = gone.join(&entry.name);
        let removed = if entry.is_dir { fs.remove_tree(&path) } else { fs.remove_file(&path) };
        ignore_missing(removed).map_err(StoreError::io("delete", path))?;
    }
    for child in children.get(&run).into_iter().flatten() {
        if !unlink_child(layout, *child, run)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes the link to its parent from a run; `false` while a process is writing it, which would put it back.
fn unlink_child(layout: &Layout, child: RunId, parent: RunId) -> Result<bool, StoreError> {
    let fs = layout.fs();
    let Some(dir) = layout.find_run(child)? else { return Ok(true) };
    let _lock = match LogLock::take(fs, &dir, child) {
        Ok(lock) => lock,
        Err(StoreError::InUse { .. }) => return Ok(false),
        // It is damaged, and stays as it is.
        Err(StoreError::Damaged { .. }) => return Ok(true),
        Err(error) => return Err(error),
    };
    let summary = match run_dir::read_summary(fs, &dir, child) {
        Ok(summary) if summary.parent_run_id == Some(parent) => summary,
        Ok(_) | Err(StoreError::Damaged { .. }) => return Ok(true),
        Err(error) => return Err(error),
    };
    if summary.status.is_open() && summary.writer.is_some_and(|writer| writer_is_alive(layout, writer)) {
        return Ok(false);
    }
    republish(layout, &dir, &RunSummary { parent_run_id: None, ..summary })?;
    Ok(true)
}

/// Writes a run's summary and its line in the log of all runs; the caller has the lock of its log.
fn republish(layout: &Layout, dir: &Path, summary: &RunSummary) -> Result<(), StoreError> {
    run_dir::write_summary(layout.fs(), dir, summary, true)?;
    index::IndexLog::default().append(layout.fs(), &layout.index_log(), summary, true)
}

/// Goes on with what earlier removals left, and takes away folders of runs whose making was interrupted for good.
///
/// Returns how many these were, and those of which the folder alone is left.
fn sweep(layout: &Layout, children: &IdMap<RunId, Vec<RunId>>) -> Result<(u64, Vec<Emptied>), StoreError> {
    let (packs, beneath) = layout.packs();
    packs.sweep(beneath).map_err(StoreError::io("clean up", packs.dir()))?;
    let fs = layout.fs();
    let (mut swept, mut emptied) = (0, Vec::new());
    for kind in RunKind::ALL {
        let dir = layout.runs(*kind);
        let entries = match fs.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("read", dir)(error)),
        };
        if entries.iter().any(|entry| entry.name.starts_with(GONE_PREFIX)) {
            // Who gave them that name may have died before it was on the disk.
            sync_dir(fs, &dir)?;
        }
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            let path = dir.join(&entry.name);
            let is_swept = match (entry.name.strip_prefix(GONE_PREFIX), entry.name.strip_prefix(NEW_PREFIX)) {
                (Some(run), _) => match run.parse() {
                    // Another may be at it; what it leaves is there the next time.
                    Ok(run) => {
                        let is_empty = empty(layout, run, &path, children).unwrap_or(false);
                        emptied.extend(is_empty.then_some((run, path)));
                        is_empty
                    }
                    Err(_) => false,
                },
                (_, Some(making)) if is_abandoned(layout, making) => fs.remove_tree(&path).is_ok(),
                _ => false,
            };
            swept += u64::from(is_swept);
        }
    }
    Ok((swept, emptied))
}

/// Tells whether nobody goes on making a run: its process has no journal any more.
fn is_abandoned(layout: &Layout, making: &str) -> bool {
    let process = making.split_once('-').and_then(|(_, process)| process.parse::<RunId>().ok());
    let journal = process.map(|process| layout.journal().join(process.to_string()));
    journal.is_some_and(|journal| matches!(stat(layout.fs(), &journal), Ok(None)))
}

/// Keeps a run from retention, or no longer. Returns whether that changes anything.
///
/// It holds for a run that is being written as well: a file in its folder says so, and `run.yaml` the next time that it is
/// written.
///
/// # Errors
///
/// [`StoreError::NotFound`], and what the file system says.
pub fn set_pinned(layout: &Layout, run: RunId, is_pinned: bool) -> Result<bool, StoreError> {
    let fs = layout.fs();
    let dir = layout.find_run(run)?.ok_or_else(|| StoreError::NotFound { id: run.to_string() })?;
    let mark = pin_file(&dir);
    let was_marked = is_marked(fs, &dir)?;
    match is_pinned {
        true if !was_marked => match fs.create_new(&mark) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(StoreError::io("create", &mark)(error)),
            _ => Ok(()),
        }?,
        false if was_marked => ignore_missing(fs.remove_file(&mark)).map_err(StoreError::io("delete", &mark))?,
        _ => {}
    }
    sync_dir(fs, &dir)?;
    let told = tell_pinned(layout, run, &dir, is_pinned);
    match told {
        Ok(changed) => Ok(changed || was_marked != is_pinned),
        // The mark is what holds.
        Err(StoreError::InUse { .. } | StoreError::Damaged { .. }) => Ok(was_marked != is_pinned),
        Err(error) => Err(error),
    }
}

/// Lets `run.yaml` and `index.log` say whether a run is pinned, unless its writer will.
fn tell_pinned(layout: &Layout, run: RunId, dir: &Path, is_pinned: bool) -> Result<bool, StoreError> {
    let _lock = LogLock::take(layout.fs(), dir, run)?;
    let summary = run_dir::read_summary(layout.fs(), dir, run)?;
    let is_written = summary.status.is_open() && summary.writer.is_some_and(|writer| writer_is_alive(layout, writer));
    if summary.pinned == is_pinned || is_written {
        return Ok(false);
    }
    republish(layout, dir, &RunSummary { pinned: is_pinned, ..summary }).map(|()| true)
}

/// Returns the path of the file that says that a run is pinned.
fn pin_file(dir: &Path) -> PathBuf {
    dir.join("pinned")
}

/// Tells whether a file in its folder says that the run is pinned.
pub(super) fn is_marked(fs: &dyn Fs, dir: &Path) -> Result<bool, StoreError> {
    let path = pin_file(dir);
    Ok(stat(fs, &path).map_err(StoreError::io("read", path))?.is_some())
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests;
