//! Gives back the space of runs that have gone from packs, and joins packs that are small.
//!
//! A pack never changes: another with the runs that are left takes its place, under a new name. First that one is whole
//! and on the disk, then the old one goes. In between the runs are in both, and the later pack holds.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::format::{self, EntryHead, Gone, HEADER, Indexed, TRAILER};
use super::pack::Pack;
use super::packer::put;
use super::tombstones::Locked;
use super::{Found, Packs, removal, room};
use crate::fs::{Access, Fs};
use crate::model::id::IdSet;
use crate::model::{RunId, UnixNanos};

/// A pack with fewer bytes of runs is a small one.
const SMALL: u64 = 4 << 20;
/// So many small packs are joined.
const MANY: usize = 8;
/// Packs are joined up to about so many bytes: for so long nobody else can take a run out of them.
const JOINED: u64 = 16 << 20;
/// A file in the making has content after so long, or its maker is dead.
const MAKING: Duration = Duration::from_secs(10);

/// What to tidy up by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tidying<'a> {
    /// Runs that are as good as gone.
    pub going: &'a IdSet<RunId>,
    /// Removed runs of which something else in the store tells still: their tombstones are needed.
    pub told: &'a IdSet<RunId>,
    /// What has gone may have so many bytes: beyond, packs of which less has gone are written anew, too.
    pub room: Option<u64>,
    /// Tell what would be done.
    pub is_dry: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tidied {
    /// Packs that were rewritten or joined, and packs that were written in their place.
    pub rewritten: u64,
    pub written: u64,
    /// Bytes that the file system has back.
    pub freed: u64,
    /// Bytes of what has gone that packs still have.
    pub pending: u64,
}

/// What was left, and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Packs in the making.
    pub unfinished: u64,
    /// Packs on the way out, and their bytes.
    pub hidden: u64,
    pub freed: u64,
}

/// How a pack stands.
#[derive(Clone, Debug, Default)]
struct Load {
    /// Which one, among all.
    at: usize,
    /// The runs in it that it is to be without: as good as gone, or with a copy in a later pack. Which have gone for good is
    /// asked once nobody can change it.
    without: IdSet<RunId>,
    /// Bytes of its file.
    bytes: u64,
    /// Bytes that its file would have with nothing but the runs that are left; 0 without any.
    left: u64,
    /// It may not be touched.
    is_fixed: bool,
}

impl Load {
    fn dead(&self) -> u64 {
        self.bytes.saturating_sub(self.left)
    }
}

impl Packs {
    /// Rewrites packs of which more than half has gone, and joins small ones.
    ///
    /// `go_on` is asked before each pack that is written; told `false` it stops, and what is left is left for the next time.
    /// `has_folder`: the run's folder is what holds, and a pack's copy of it is not needed.
    pub fn tidy(
        &self,
        fs: &dyn Fs,
        process: RunId,
        tidying: Tidying<'_>,
        go_on: &mut dyn FnMut() -> bool,
        has_folder: impl Fn(RunId) -> io::Result<bool>,
    ) -> io::Result<Tidied> {
        let (packs, loads) = self.ask(fs, |packs| Ok((packs.clone(), loads(fs, packs, tidying, &has_folder)?)))?;
        let dead = loads.iter().map(Load::dead).sum();
        let over = tidying.room.map_or(0, |room| u64::saturating_sub(dead, room));
        let mut groups = VecDeque::from(plan(&loads, over));
        let mut tidied = Tidied { pending: dead, ..Tidied::default() };
        while let Some(places) = groups.pop_front().filter(|_| go_on()) {
            let group: Vec<&Load> = places.iter().map(|at| &loads[*at]).collect();
            let sources: Vec<(&Pack, &IdSet<RunId>)> =
                group.iter().map(|load| (&packs[load.at], &load.without)).collect();
            let (before, after) = if tidying.is_dry {
                let left: Vec<u64> = group.iter().map(|load| load.left).filter(|left| *left > 0).collect();
                // One head, one trailer and one index for all of them.
                let spared = (left.len().saturating_sub(1) * (HEADER + TRAILER)) as u64;
                (group.iter().map(|load| load.bytes).sum(), left.iter().sum::<u64>() - spared)
            } else {
                let need = group.iter().map(|load| load.left).sum();
                let moved =
                    room::with_room(fs, self.dir(), need, || move_together(fs, self, process, &sources, &has_folder));
                self.forget();
                match moved {
                    Ok(moved) => moved,
                    // What cannot be written now is as it was.
                    Err(error) if crate::fs::is_out_of_space(&error) => {
                        groups.extend(each_alone(&loads, &places));
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            };
            if before > 0 {
                tidied.rewritten += group.len() as u64;
                tidied.written += u64::from(after > 0);
                tidied.freed += before.saturating_sub(after);
                tidied.pending -= group.iter().map(|load| load.dead()).sum::<u64>().min(tidied.pending);
            }
        }
        if !tidying.is_dry {
            self.keep_room(fs);
        }
        Ok(tidied)
    }

    /// Writes one pack anew with all that can be read of it, but for some runs. Returns how many are left.
    pub fn rewrite(&self, fs: &dyn Fs, process: RunId, id: RunId, without: &IdSet<RunId>) -> io::Result<u64> {
        let packs = self.now(fs)?;
        let Some(pack) = packs.iter().find(|pack| pack.id == id) else { return Err(io::ErrorKind::NotFound.into()) };
        let nothing = IdSet::default();
        let tidying = Tidying { going: without, told: &nothing, room: None, is_dry: false };
        let loads = loads(fs, &packs, tidying, |_| Ok(false))?;
        let Some(load) = loads.iter().find(|load| packs[load.at].id == id) else { return Ok(0) };
        let locked = removal::wait_for(fs, pack)?;
        let mut taken = Taken::default();
        taken.take(fs, pack, |entry| Ok(!load.without.contains(&entry.run)))?;
        let left = taken.entries.len() as u64;
        taken.replace(fs, self, process, vec![locked])?;
        self.forget();
        Ok(left)
    }

    /// Returns the runs of packs that are on the way out: whoever put them there may have died over it.
    pub fn hidden(&self, fs: &dyn Fs) -> io::Result<Vec<RunId>> {
        let mut runs = Vec::new();
        for (path, id, kind) in leftovers(fs, self)? {
            if kind == Leftover::Hidden {
                let read = Pack::open_at(fs, path, id).and_then(|pack| pack.entries(fs));
                // Another may just take it away.
                let entries = read.map(Some).or_else(not_there)?.unwrap_or_default();
                runs.extend(entries.iter().map(|entry| entry.run));
            }
        }
        Ok(runs)
    }

    /// Returns the files of packs whose making was interrupted.
    pub fn unfinished(&self, fs: &dyn Fs) -> io::Result<Vec<PathBuf>> {
        let found = leftovers(fs, self)?.into_iter();
        let found = found.filter(|(path, _, kind)| *kind == Leftover::New && is_abandoned(fs, path));
        Ok(found.map(|(path, ..)| path).collect())
    }

    /// Takes these away. What cannot be deleted stays: nothing reads it.
    #[cfg(any(feature = "server", test))]
    pub fn remove_unfinished(&self, fs: &dyn Fs) {
        let unfinished = self.unfinished(fs).unwrap_or_default();
        unfinished.iter().for_each(|path| drop(fs.remove_file(path)));
    }

    /// Takes these away, and packs on the way out. One of them stays while `told` has a run of it that is nowhere: it is the note of what is
    /// left to do.
    pub fn sweep(
        &self,
        fs: &dyn Fs,
        told: &IdSet<RunId>,
        has_folder: impl Fn(RunId) -> io::Result<bool>,
    ) -> io::Result<Swept> {
        let (mut swept, mut hidden) = (Swept::default(), Vec::new());
        for (path, id, kind) in leftovers(fs, self)? {
            if kind == Leftover::New {
                swept.unfinished += u64::from(is_abandoned(fs, &path) && fs.remove_file(&path).is_ok());
                continue;
            }
            let Some(pack) = Pack::open_at(fs, path, id).map(Some).or_else(not_there)? else { continue };
            if !self.is_note(fs, &pack, told, &has_folder)? {
                // There may be thousands, each with its index.
                hidden.push((pack.id, pack.bytes));
            }
        }
        let removed = remove_hidden(fs, self, hidden.iter().map(|(id, _)| *id))?;
        for (_, bytes) in hidden.iter().filter(|(id, _)| removed.contains(id)) {
            swept.hidden += 1;
            swept.freed += bytes;
        }
        Ok(swept)
    }

    /// Tells whether a pack on the way out has a run that is nowhere and of which something tells still.
    fn is_note(
        &self,
        fs: &dyn Fs,
        pack: &Pack,
        told: &IdSet<RunId>,
        has_folder: impl Fn(RunId) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let entries = pack.entries(fs).map(Some).or_else(not_there)?.unwrap_or_default();
        for entry in entries.iter().filter(|entry| told.contains(&entry.run)) {
            if !matches!(self.find(fs, entry.run)?, Found::At(_)) && !has_folder(entry.run)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leftover {
    New,
    Hidden,
}

fn leftovers(fs: &dyn Fs, packs: &Packs) -> io::Result<Vec<(PathBuf, RunId, Leftover)>> {
    let entries = match fs.list(packs.dir()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let found = entries.into_iter().filter_map(|entry| {
        let name = entry.name.strip_suffix(".pack")?;
        let (id, kind) = match (name.strip_prefix(".new-"), name.strip_prefix(".gone-")) {
            (Some(id), _) => (id, Leftover::New),
            (_, Some(id)) => (id, Leftover::Hidden),
            _ => return None,
        };
        Some((packs.dir().join(&entry.name), id.parse().ok()?, kind))
    });
    Ok(found.collect())
}

/// Tells whether the maker of a file is dead: who makes one has its lock from before it has content.
fn is_abandoned(fs: &dyn Fs, path: &Path) -> bool {
    let Ok(file) = fs.open(path, Access::Read) else { return false };
    let (Ok(true), Ok(found)) = (file.try_lock(true), file.stat()) else { return false };
    let age = UnixNanos::now().0.saturating_sub(found.modified);
    found.len > 0 || u128::from(age) > MAKING.as_nanos()
}

/// Deletes what is left of packs that are out of sight, and returns which have gone.
///
/// Each step is on the disk before the next begins: that they are out of sight before their tombstones go, since else what
/// was removed would be there again after a loss of power, and that these went before the packs, without which they would
/// be missed.
fn remove_hidden(fs: &dyn Fs, packs: &Packs, ids: impl Iterator<Item = RunId>) -> io::Result<IdSet<RunId>> {
    let mut left: IdSet<RunId> = ids.collect();
    for name in [|id| format!("{id}.del"), |id| format!(".gone-{id}.pack")] as [fn(RunId) -> String; 2] {
        if left.is_empty() {
            break;
        }
        fs.sync_dir(packs.dir())?;
        left.retain(|id| match fs.remove_file(&packs.dir().join(name(*id))) {
            // The next to tidy up tries again.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(()) => true,
        });
    }
    Ok(left)
}

/// Looks how packs stand, the oldest first.
fn loads(
    fs: &dyn Fs,
    packs: &[Pack],
    tidying: Tidying<'_>,
    has_folder: impl Fn(RunId) -> io::Result<bool>,
) -> io::Result<Vec<Load>> {
    let (mut seen, mut loads, mut in_packs) = (IdSet::default(), Vec::with_capacity(packs.len()), IdSet::default());
    for pack in packs {
        in_packs.extend(pack.living(fs)?.iter().map(|entry| entry.run));
    }
    for (at, pack) in packs.iter().enumerate() {
        let gone = pack.gone(fs)?;
        // The latest copy of a run holds.
        let is_left = |entry: &Indexed| seen.insert(entry.run) && !tidying.going.contains(&entry.run);
        let (living, without): (Vec<Indexed>, Vec<Indexed>) = pack.living(fs)?.into_iter().partition(is_left);
        let mut is_needed = false;
        for (run, why) in gone.iter() {
            let is_note = *why != Gone::Unpacked && tidying.told.contains(run) && !in_packs.contains(run);
            is_needed |= is_note && !has_folder(*run)?;
        }
        loads.push(Load {
            at,
            without: without.iter().map(|entry| entry.run).collect(),
            bytes: pack.bytes,
            left: size_of(&living),
            is_fixed: is_needed || pack.flaw.is_some(),
        });
    }
    loads.reverse();
    Ok(loads)
}

/// Returns the bytes of a pack with these entries.
fn size_of(entries: &[Indexed]) -> u64 {
    match entries.is_empty() {
        true => 0,
        false => (HEADER + TRAILER) as u64 + entries.iter().map(|entry| EntryHead::footprint(entry.len)).sum::<u64>(),
    }
}

/// Says which packs are written anew, and which of them into one: places among the loads, which are sorted by age.
fn plan(loads: &[Load], over: u64) -> Vec<Vec<usize>> {
    let free = || loads.iter().enumerate().filter(|(_, load)| !load.is_fixed);
    let mut chosen: BTreeSet<usize> =
        free().filter(|(_, load)| load.left == 0 || load.dead() * 2 > load.bytes).map(|(at, _)| at).collect();
    let mut given_back: u64 = chosen.iter().map(|at| loads[*at].dead()).sum();
    let mut others: Vec<(usize, &Load)> = free().filter(|(at, load)| load.dead() > 0 && !chosen.contains(at)).collect();
    // Those first from which most comes for what has to be written.
    others.sort_by_key(|(_, load)| std::cmp::Reverse(load.dead() * 1024 / load.bytes.max(1)));
    for (at, load) in others {
        if given_back >= over {
            break;
        }
        given_back += load.dead();
        chosen.insert(at);
    }
    let small: Vec<usize> = free().filter(|(_, load)| load.left > 0 && load.left < SMALL).map(|(at, _)| at).collect();
    if small.len() >= MANY {
        chosen.extend(small);
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let left_in = |group: &[usize]| group.iter().map(|at| loads[*at].left).sum::<u64>();
    for at in chosen {
        match groups.last_mut() {
            Some(group) if left_in(group) + loads[at].left <= JOINED => group.push(at),
            _ => groups.push(vec![at]),
        }
    }
    // Alone it would be what it is.
    groups.retain(|group| group.len() > 1 || group.iter().any(|at| loads[*at].dead() > 0));
    groups
}

/// Takes a group apart for which a disk has no room at a time: one pack after the other gives its room to the next, those first
/// that take least. One alone that has no room stays as it is.
fn each_alone(loads: &[Load], group: &[usize]) -> Vec<Vec<usize>> {
    let mut alone: Vec<usize> = group.iter().copied().filter(|at| group.len() > 1 && loads[*at].dead() > 0).collect();
    alone.sort_by_key(|at| loads[*at].left);
    alone.into_iter().map(|at| vec![at]).collect()
}

/// Writes what is left of packs into one, and takes them away. Returns their bytes before and after; those that others
/// are changing, or that have damaged runs, stay as they are.
fn move_together(
    fs: &dyn Fs,
    packs: &Packs,
    process: RunId,
    sources: &[(&Pack, &IdSet<RunId>)],
    has_folder: impl Fn(RunId) -> io::Result<bool>,
) -> io::Result<(u64, u64)> {
    let (mut taken, mut locks, mut before) = (Taken::default(), Vec::with_capacity(sources.len()), 0);
    for (pack, without) in sources {
        let Some(locked) = pack.lock(fs).or_else(not_there)? else { continue };
        let mark = taken.entries.len();
        match taken.take(fs, pack, |entry| Ok(!without.contains(&entry.run) && !has_folder(entry.run)?)) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => taken.entries.truncate(mark),
            Err(error) => return Err(error),
            Ok(()) => {
                before += pack.bytes;
                for (run, _) in pack.gone(fs)?.iter().filter(|(_, why)| **why == Gone::Unpacked) {
                    if has_folder(*run)? {
                        taken.unpacked.push(*run);
                    }
                }
                locks.push(locked);
            }
        }
    }
    let after = taken.replace(fs, packs, process, locks)?;
    Ok((before, after))
}

fn not_there<T>(error: io::Error) -> io::Result<Option<T>> {
    if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
}

/// Runs that are to stand in one pack, as they are stored.
#[derive(Debug, Default)]
struct Taken {
    entries: Vec<(EntryHead, Vec<u8>)>,
    /// Runs that got a folder for a while: the pack goes on to know of them.
    unpacked: Vec<RunId>,
}

impl Taken {
    /// Takes what is left of a pack.
    fn take(&mut self, fs: &dyn Fs, pack: &Pack, is_wanted: impl Fn(&Indexed) -> io::Result<bool>) -> io::Result<()> {
        for entry in pack.living(fs)? {
            if is_wanted(&entry)? {
                self.entries.push(pack.stored(fs, entry)?);
            }
        }
        Ok(())
    }

    /// Writes a pack, which is on the disk with its name before those go that it replaces. Returns its bytes.
    fn replace(self, fs: &dyn Fs, packs: &Packs, process: RunId, old: Vec<Locked<'_>>) -> io::Result<u64> {
        let mut bytes = Vec::new();
        if !self.entries.is_empty() {
            let now = UnixNanos::now();
            // Later than all of them, whatever the clock says: the latest copy of a run holds.
            let latest = old.iter().map(|locked| locked.pack.id.time().millis() + 1).max().unwrap_or(0);
            let id = RunId::fresh(UnixNanos::from_millis(latest.max(now.millis())));
            let mut index = Vec::with_capacity(self.entries.len());
            bytes.extend_from_slice(&format::header(id, process, now.0));
            for (head, stored) in &self.entries {
                let offset = head.write(id, stored, &mut bytes);
                index.push(Indexed { run: head.run, kind: head.kind, offset, len: head.len });
            }
            format::finish(id, &mut index, &mut bytes);
            put(fs, packs, id, &bytes, true, || Some(()))?;
            if !self.unpacked.is_empty() {
                let pack = Pack::open(fs, packs.dir(), id)?;
                removal::wait_for(fs, &pack)?.bury(fs, &self.unpacked, Gone::Unpacked)?;
            }
        }
        for locked in &old {
            locked.hide(fs)?;
        }
        // Out of sight they harm nobody: what stays of them, or cannot be synced now, the next to tidy up takes away.
        let _ = remove_hidden(fs, packs, old.iter().map(|locked| locked.pack.id));
        Ok(bytes.len() as u64)
    }
}
