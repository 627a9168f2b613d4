//! Checks packs and what stands beside them. The runs in them are checked like any others.

use std::io;

use super::super::layout::Layout;
use super::super::packs::Damage;
use super::{Cure, Problem, Report, within};
use crate::model::id::IdSet;
use crate::model::{RunId, RunKind};
use crate::store::StoreError;

pub(super) fn check(layout: &Layout, report: &mut Report) -> Result<(), StoreError> {
    let (packs, fs) = layout.packs();
    let read = StoreError::io("read", packs.dir());
    let found = (|| {
        let mut found = Vec::new();
        found.extend(unreadable(layout)?);
        found.extend(damaged(layout)?);
        found.extend(hidden(layout)?);
        Ok((found, packs.unfinished(fs)?))
    })();
    let (found, unfinished) = found.map_err(read)?;
    report.problems.extend(found);
    // No damage: what was in it is in the journal still, or has its folder.
    report.notes.extend(unfinished.iter().map(|path| {
        let why = "was left by a process that died while it wrote a pack: nothing needs it, and the next server or cleanup takes it away";
        format!("{} {why}", within(layout, path))
    }));
    Ok(())
}

/// Packs that cannot be read, or not whole.
fn unreadable(layout: &Layout) -> io::Result<Vec<Problem>> {
    let (packs, fs) = layout.packs();
    let told = packs.unreadable(fs)?.into_iter().map(|(path, flaw, why)| match flaw {
        None => {
            let todo = "the runs in it are not shown; put it back from a copy, or move it away";
            Problem::of_file(layout, &path, format!("the pack cannot be read: {why}"), todo, None)
        }
        Some(id) => {
            let todo =
                "put it back from a copy, or let runspan verify --repair write it anew with the runs that are there";
            Problem::of_file(layout, &path, format!("the pack is damaged: {why}"), todo, Some(Cure::Pack(id)))
        }
    });
    Ok(told.collect())
}

/// Bytes that belong to no run, and tombstones, that are not as they were written; tombstones without a pack.
fn damaged(layout: &Layout) -> io::Result<Vec<Problem>> {
    const TODO: &str = "runspan verify --repair writes the pack anew, without what was removed";
    let (packs, fs) = layout.packs();
    let mut found = Vec::new();
    for Damage { id, path, tombstones, stray } in packs.damage(fs)? {
        if tombstones > 0 {
            let are = if tombstones == 1 { "tombstone of it is" } else { "tombstones of it are" };
            let what = format!("{tombstones} {are} not as written: a run that was removed may be there again");
            found.push(Problem::of_file(layout, &path.with_extension("del"), what, TODO, Some(Cure::Pack(id))));
        }
        if let Some(at) = stray {
            let what = format!("byte {at} belongs to no run and is not as written");
            found.push(Problem::of_file(layout, &path, what, TODO, Some(Cure::Pack(id))));
        }
    }
    for path in packs.orphans(fs)? {
        let what = "it tells what was removed from a pack, and that pack is missing".to_owned();
        let todo = "put the pack back from a copy; if it was taken away on purpose, runspan verify --repair deletes this file \
                    where index.log says, too, that the runs in it were removed";
        found.push(Problem::of_file(layout, &path, what, todo, Some(Cure::Orphan)));
    }
    Ok(found)
}

/// What stands where a packed run's folder would, and is none.
fn hidden(layout: &Layout) -> io::Result<Vec<Problem>> {
    let (packs, fs) = layout.packs();
    let mut found = Vec::new();
    for kind in RunKind::ALL {
        let (dir, packed) = (layout.runs(*kind), packs.runs(fs, *kind)?);
        let packed: IdSet<RunId> = packed.into_iter().collect();
        let entries = match fs.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let Some(run) = entry.name.parse::<RunId>().ok().filter(|run| packed.contains(run)) else { continue };
            if layout.has_folder(run)? {
                continue;
            }
            let path = dir.join(&entry.name);
            let is_empty = entry.is_dir && fs.list(&path)?.is_empty();
            let (what, todo, cure) = match (entry.is_dir, is_empty) {
                (false, _) => ("it is no folder, and hides a run that a pack has", "move it away", None),
                (true, false) => ("it has no run, and is in the way of one that a pack has", "move it away", None),
                (true, true) => (
                    "it is an empty folder in the place of a run that a pack has",
                    "runspan verify --repair takes it away",
                    Some(Cure::EmptyFolder),
                ),
            };
            let problem = Problem::of_file(layout, &path, what.to_owned(), todo, cure);
            found.push(Problem { run_id: Some(run), ..problem });
        }
    }
    Ok(found)
}
