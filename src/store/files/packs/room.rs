//! Room kept for a full disk: a file of bytes that nobody needs, beside the packs.
//!
//! To let one run go out of a pack takes a block for the tombstone, and to write a pack anew takes as much as is left in it,
//! before the old one gives more back. Where a disk has no such room, this file is made shorter by it. It is written as
//! long as the disk has many times as much, and whoever finds it may delete it: then a full disk has to be given room first.

use std::io;
use std::path::Path;

use super::Packs;
use crate::fs::{Access, Fs, append_full};

/// The file, in the folder of packs.
pub const NAME: &str = ".room";
/// What file systems give at a time.
const BLOCK: u64 = 4 << 10;
/// For tombstones: a block for each pack that loses the first of its runs.
const FOR_TOMBSTONES: u64 = 64 << 10;
/// A pack is written anew when half of it has gone. Longer ones are not provided for.
const LONGEST_LEFT: u64 = 8 << 20;
/// It is made longer only where so many times as much is free: it is to be there before a disk is full, and not to fill it.
const SHARE: u64 = 16;

impl Packs {
    /// Sees to it that there is as much room as the packs that there are may need, and none without packs. It is there or not:
    /// nothing fails for that.
    pub fn keep_room(&self, fs: &dyn Fs) {
        let Ok(packs) = self.now(fs) else { return };
        match packs.iter().map(|pack| pack.bytes).max() {
            Some(longest) => keep(fs, self.dir(), longest),
            None => drop(fs.remove_file(&self.dir().join(NAME))),
        }
    }
}

/// Sees to it that there is as much room as packs need of which the longest has so many bytes.
pub fn keep(fs: &dyn Fs, dir: &Path, longest: u64) {
    let _ = grow(fs, dir, FOR_TOMBSTONES + (longest / 2).next_multiple_of(BLOCK).min(LONGEST_LEFT));
}

fn grow(fs: &dyn Fs, dir: &Path, wanted: u64) -> io::Result<()> {
    let path = dir.join(NAME);
    let len = match fs.stat(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        found => found?.len,
    };
    let missing = wanted.saturating_sub(len);
    if missing == 0 || fs.free_bytes(dir)? / SHARE < missing {
        return Ok(());
    }
    let file = fs.open(&path, Access::Append)?;
    // Of two at once one is enough.
    match file.try_lock(true)? && file.stat()?.len == len {
        true => {
            let appended = append_full(&*file, &noise(missing as usize, len));
            if appended.is_err() {
                // It was not to take the last of a disk, or of what a user may have of it.
                let _ = file.set_len(len);
            }
            appended
        }
        false => Ok(()),
    }
}

/// Returns bytes that no file system stores in fewer.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// Does what takes so many bytes in a folder of packs; anew with the room that is kept, where the disk has no other.
pub fn with_room<T>(fs: &dyn Fs, dir: &Path, need: u64, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut done = act();
    // A file system may want more than what is written: a block for a name, say, and at last it gets all there is.
    for need in [need + BLOCK, u64::MAX] {
        let is_full = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT));
        if !done.as_ref().is_err_and(is_full) || !give(fs, dir, need).unwrap_or(false) {
            break;
        }
        done = act();
    }
    done
}

/// Gives the disk so much room back, or all there is of it for a need without bound; `false` where what is kept would not be
/// enough.
fn give(fs: &dyn Fs, dir: &Path, need: u64) -> io::Result<bool> {
    let file = match fs.open(&dir.join(NAME), Access::ReadWrite) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    if !file.try_lock(true)? {
        // Another is cutting it: what that gives may do.
        return Ok(true);
    }
    let (len, free) = (file.stat()?.len, fs.free_bytes(dir)?);
    let need = if need == u64::MAX { len } else { need.next_multiple_of(BLOCK) };
    if len == 0 || free.saturating_add(len) < need {
        return Ok(false);
    }
    file.set_len(len.saturating_sub(need))?;
    // Some file systems give the blocks to others only when that is on the disk.
    let _ = file.sync_data();
    Ok(true)
}
