//! Lets runs go out of packs.

use std::io;
use std::time::Instant;

use super::format::{Gone, Indexed};
use super::pack::Pack;
use super::tombstones::Locked;
use super::{LOOKS, PATIENCE, Packs, WAIT};
use crate::fs::Fs;
use crate::model::RunId;
use crate::model::id::{IdMap, IdSet};

/// What became of a run that was to go out of its pack.
#[derive(Debug)]
pub(crate) enum Removal {
    /// It has gone, by this call.
    Done,
    /// No pack has it, or not any more.
    NotHere,
    /// It stays.
    Failed(io::Error),
}

impl Packs {
    /// Lets a run go out of all packs that have it.
    pub(super) fn bury(&self, fs: &dyn Fs, run: RunId, why: Gone) -> io::Result<()> {
        self.ask(fs, |packs| {
            // The oldest copy first: should this stop in the middle, the latest still holds.
            for pack in packs.iter().rev() {
                if pack.find(fs, run)?.is_some() && !pack.gone(fs)?.contains_key(&run) {
                    let locked = wait_for(fs, pack)?;
                    if !pack.gone(fs)?.contains_key(&run) {
                        locked.bury(fs, &[run], why)?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Notes that no pack's copy of a run that has a folder counts any more.
    pub fn bury_copies(&self, fs: &dyn Fs, run: RunId) -> io::Result<()> {
        self.bury(fs, run, Gone::Unpacked)
    }

    /// Removes runs from their packs for good, each pack's with one write. A pack of which all runs have gone goes out of
    /// sight, which needs no room.
    ///
    /// `is_elsewhere`: the run has a folder, so that its copy in a pack does not count. `is_dry`: nothing is changed.
    pub fn remove(
        &self,
        fs: &dyn Fs,
        runs: &[RunId],
        why: Gone,
        is_elsewhere: impl Fn(RunId) -> io::Result<bool>,
        is_dry: bool,
    ) -> IdMap<RunId, Removal> {
        let (mut done, mut asked) = (IdMap::default(), runs.to_vec());
        for look in 1.. {
            let moved = self.remove_where_they_are(fs, &asked, why, &is_elsewhere, is_dry, &mut done);
            self.forget();
            asked = match moved {
                Ok(moved) => moved,
                Err(error) => {
                    done.extend(asked.iter().map(|run| (*run, Removal::Failed(again(&error)))));
                    break;
                }
            };
            if asked.is_empty() {
                break;
            }
            if look == LOOKS {
                let why = || io::Error::new(io::ErrorKind::WouldBlock, "its pack is rewritten over and over");
                done.extend(asked.iter().map(|run| (*run, Removal::Failed(why()))));
                break;
            }
        }
        for run in runs {
            done.entry(*run).or_insert(Removal::NotHere);
        }
        done
    }

    /// Removes runs from the packs that have them now. Returns those of which a pack has been rewritten meanwhile: they are
    /// in another, or have gone.
    fn remove_where_they_are(
        &self,
        fs: &dyn Fs,
        runs: &[RunId],
        why: Gone,
        is_elsewhere: impl Fn(RunId) -> io::Result<bool>,
        is_dry: bool,
        done: &mut IdMap<RunId, Removal>,
    ) -> io::Result<Vec<RunId>> {
        let (packs, here) = self.ask(fs, |packs| {
            let mut here: Vec<(usize, Vec<Indexed>)> = Vec::new();
            for (at, pack) in packs.iter().enumerate() {
                let (gone, mut found) = (pack.gone(fs)?, Vec::new());
                for run in runs {
                    found.extend(pack.find(fs, *run)?.filter(|entry| !gone.contains_key(&entry.run)));
                }
                if !found.is_empty() {
                    here.push((at, found));
                }
            }
            Ok((packs.clone(), here))
        })?;
        let mut moved = IdSet::default();
        // The oldest copy first: should this stop in the middle, the latest still holds.
        for (at, mut entries) in here.into_iter().rev() {
            entries.retain(|entry| !moved.contains(&entry.run) && !has_failed(done, entry.run));
            match remove_from(fs, &packs[at], &entries, why, &is_elsewhere, is_dry) {
                Ok(from_pack) => done.extend(from_pack),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    moved.extend(entries.iter().map(|entry| entry.run));
                    // It is the last copy whose removal counts.
                    done.retain(|run, _| !moved.contains(run));
                }
                Err(error) => done.extend(entries.iter().map(|entry| (entry.run, Removal::Failed(again(&error))))),
            }
        }
        Ok(moved.into_iter().collect())
    }
}

/// Tells whether a copy of a run stays: with it stays the latest, which holds.
fn has_failed(done: &IdMap<RunId, Removal>, run: RunId) -> bool {
    matches!(done.get(&run), Some(Removal::Failed(_)))
}

/// Removes runs from one pack.
fn remove_from(
    fs: &dyn Fs,
    pack: &Pack,
    entries: &[Indexed],
    why: Gone,
    is_elsewhere: impl Fn(RunId) -> io::Result<bool>,
    is_dry: bool,
) -> io::Result<Vec<(RunId, Removal)>> {
    let locked = if is_dry { None } else { Some(wait_for(fs, pack)?) };
    // Whoever had the lock before may have removed some, or given them a folder.
    let gone = pack.gone(fs)?;
    let (mut done, mut going) = (Vec::new(), Vec::new());
    for entry in entries.iter().filter(|entry| !gone.contains_key(&entry.run)) {
        let removal = match is_elsewhere(entry.run) {
            Ok(true) => Removal::NotHere,
            Err(error) => Removal::Failed(error),
            // What cannot be read stays, for who looks into it.
            Ok(false) => match pack.stored(fs, *entry) {
                Err(error) => Removal::Failed(error),
                Ok(_) => {
                    going.push(entry.run);
                    continue;
                }
            },
        };
        done.push((entry.run, removal));
    }
    let removed = match &locked {
        Some(locked) => let_go(fs, locked, &going, why),
        None => Ok(()),
    };
    done.extend(going.into_iter().map(|run| match &removed {
        Ok(()) => (run, Removal::Done),
        Err(error) => (run, Removal::Failed(again(error))),
    }));
    Ok(done)
}

fn let_go(fs: &dyn Fs, locked: &Locked<'_>, going: &[RunId], why: Gone) -> io::Result<()> {
    // What cannot be seen in one that is not whole may be wanted.
    let is_all = locked.pack.flaw.is_none() && going.len() == locked.pack.living(fs)?.len();
    if is_all && !going.is_empty() {
        locked.hide(fs)?;
        return locked.pack.path.parent().map_or(Ok(()), |dir| fs.sync_dir(dir));
    }
    locked.bury(fs, going, why)
}

/// Takes the lock of a pack, waiting for another that has it.
pub(super) fn wait_for<'a>(fs: &dyn Fs, pack: &'a Pack) -> io::Result<Locked<'a>> {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(locked) = pack.lock(fs)? {
            return Ok(locked);
        }
        if Instant::now() >= until {
            let why = format!("another process is changing {}", pack.name());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
        }
        std::thread::sleep(WAIT);
    }
}

/// The same error once more, for each that it concerns.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}
