//! Gives back the space of what has gone from packs, and packs runs again that had got a folder.

use super::super::layout::Layout;
use super::super::packs::{Gone, Packer, Tidying};
use super::super::writer::whole_folder;
use super::survey::Survey;
use super::{Cleaned, Job, QUIET};
use crate::model::id::IdSet;
use crate::model::{RunId, UnixNanos};
use crate::store::StoreError;

/// Tidies up packs; `bound`: so many bytes may be in the store, and so many runs have.
pub(super) fn give_back(
    job: &Job<'_>,
    survey: &Survey,
    bound: Option<(u64, u64)>,
    go_on: &mut dyn FnMut() -> bool,
    cleaned: &mut Cleaned,
) -> Result<(), StoreError> {
    let (packs, fs) = job.layout.packs();
    let process = RunId::fresh(UnixNanos::now());
    let going: IdSet<RunId> = match job.is_dry_run {
        true => cleaned.removed.iter().map(|run| run.run_id).collect(),
        false => IdSet::default(),
    };
    let told = survey.told.iter().filter(|run| !going.contains(run)).copied().collect();
    let room = bound.map(|(most, left)| most.saturating_sub(left));
    let tidying = Tidying { going: &going, told: &told, room, is_dry: job.is_dry_run };
    let failed = || StoreError::io("tidy up", packs.dir());
    let has_folder = |run| job.layout.has_folder(run);
    if !job.is_dry_run {
        let swept = packs.sweep(fs, &told, has_folder).map_err(failed())?;
        cleaned.leftovers += swept.unfinished;
        cleaned.packs_rewritten += swept.hidden;
        cleaned.packs_freed_bytes += swept.freed;
    }
    // When a pack is written anew, what it knows of them may go with the old one.
    let unpacked = unpacked(job.layout)?;
    let tidied = packs.tidy(fs, process, tidying, go_on, has_folder).map_err(failed())?;
    cleaned.packs_rewritten += tidied.rewritten;
    cleaned.packs_written += tidied.written;
    cleaned.packs_freed_bytes += tidied.freed;
    cleaned.packs_pending_bytes = tidied.pending;
    if !job.is_dry_run {
        cleaned.packed_again = pack_again(job, process, unpacked, go_on)?;
    }
    Ok(())
}

/// Returns the runs that have got a folder for what came late.
fn unpacked(layout: &Layout) -> Result<Vec<RunId>, StoreError> {
    let (packs, fs) = layout.packs();
    let buried = packs.buried(fs).map_err(StoreError::io("read", packs.dir()))?.into_iter();
    let mut unpacked: Vec<RunId> = buried.filter(|(_, why)| *why == Gone::Unpacked).map(|(run, _)| run).collect();
    unpacked.sort_unstable();
    Ok(unpacked)
}

/// Packs them again when they have been left alone for a while.
fn pack_again(
    job: &Job<'_>,
    process: RunId,
    unpacked: Vec<RunId>,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<u64, StoreError> {
    let (layout, mut packer) = (job.layout, Packer::new(process));
    let (mut again, mut held) = (0, 0);
    for run in unpacked {
        if !go_on() {
            packer.keep_folders();
            return Ok(again);
        }
        // One that cannot be read now keeps its folder, and so does one that somebody writes.
        held += u64::from(hold(layout, run, job.now, &mut packer).unwrap_or(false));
        if packer.is_full() {
            again += std::mem::take(&mut held) * u64::from(write(layout, &mut packer)?);
        }
    }
    Ok(again + held * u64::from(write(layout, &mut packer)?))
}

fn hold(layout: &Layout, run: RunId, now: UnixNanos, packer: &mut Packer) -> Result<bool, StoreError> {
    let Some(dir) = layout.find_run(run)? else { return Ok(false) };
    let Some((summary, yaml, lines, lock)) = whole_folder(layout, &dir, run)? else { return Ok(false) };
    if now.0.saturating_sub(summary.updated_at.0) < QUIET.as_nanos() as u64 {
        return Ok(false);
    }
    packer.hold(summary, yaml.as_bytes(), lines.as_bytes(), Some((dir, lock)));
    Ok(true)
}

/// Writes what is held; `false` when there is no room for it, and what has a folder keeps that.
fn write(layout: &Layout, packer: &mut Packer) -> Result<bool, StoreError> {
    let (packs, fs) = layout.packs();
    if packer.is_empty() {
        return Ok(true);
    }
    // All of them have folders, whose logs are locked: nobody else makes them.
    match packer.write(fs, packs, true, |_| Ok(Some(()))) {
        Err(StoreError::Io { source, .. }) if crate::fs::is_out_of_space(&source) => {
            packer.keep_folders();
            Ok(false)
        }
        written => written.map(|_| true),
    }
}
