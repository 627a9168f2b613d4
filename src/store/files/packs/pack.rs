//! One pack that is there, read.

#[cfg(feature = "seal")]
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::format::{
    self, Codec, ENTRY_HEAD, EntryHead, HEADER, HeaderError, INDEX_ENTRY, Indexed, MAX_EXPANDED, TRAILER, Trailer,
    aligned, crc,
};
use super::tombstones::Buried;
use crate::fs::{Access, Fs, FsFile, read_full};
use crate::model::RunId;

/// So many bytes are looked through at a time for entries of a pack without an index.
const CHUNK: usize = 1 << 20;

/// What is wrong with a pack that was whole once: it gets its name when it is.
const CUT: &str = "its end is missing or damaged, and with it runs may be gone";
const BAD_HEAD: &str = "its first bytes are damaged; all runs in it are there";

/// A pack, without its content.
#[derive(Clone, Debug)]
pub struct Pack {
    pub id: RunId,
    pub path: PathBuf,
    /// Bytes of the file.
    pub bytes: u64,
    index: Index,
    /// Why it is not whole; what can be found in it is there all the same.
    pub flaw: Option<&'static str>,
    pub(super) buried: Arc<Mutex<Buried>>,
}

#[derive(Clone, Debug)]
enum Index {
    /// It stands in the file, sorted, and has been checked.
    InFile { offset: u64, entries: u32, first: RunId, last: RunId, kept: Option<Arc<[u8]>> },
    /// The file was cut off, or its end is damaged: what was found from the front.
    Found(Vec<Indexed>),
}

/// The two files of a packed run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub yaml: Vec<u8>,
    pub events: Vec<u8>,
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl Pack {
    /// Opens the pack of an id in the folder of packs.
    ///
    /// # Errors
    ///
    /// `InvalidData` where the file is no pack that can be read.
    pub fn open(fs: &dyn Fs, dir: &Path, id: RunId) -> io::Result<Self> {
        Self::open_at(fs, dir.join(format!("{id}.pack")), id)
    }

    /// Opens a pack under another name.
    pub fn open_at(fs: &dyn Fs, path: PathBuf, id: RunId) -> io::Result<Self> {
        let file = fs.open(&path, Access::Read)?;
        let mut head = [0; HEADER];
        let read = read_full(&*file, &mut head, 0)?;
        let bytes = file.stat()?.len;
        let index = Self::index_in(&*file, id)?;
        let (begin, flaw) = match format::read_header(&head[..read], id) {
            Ok(begin) => (begin, index.is_none().then_some(CUT)),
            // Its end says that it is this pack, and so does each of its entries.
            Err(HeaderError::Damaged) if index.is_some() => (HEADER as u64, Some(BAD_HEAD)),
            Err(error) => return Err(bad(error.to_string())),
        };
        let index = match index {
            Some(index) => index,
            None => Index::Found(find(&*file, id, begin)?),
        };
        Ok(Self { id, path, bytes, index, flaw, buried: Arc::default() })
    }

    fn index_in(file: &dyn FsFile, id: RunId) -> io::Result<Option<Index>> {
        let len = file.stat()?.len;
        let Some(at) = len.checked_sub(TRAILER as u64) else { return Ok(None) };
        let mut bytes = [0; TRAILER];
        read_full(file, &mut bytes, at)?;
        let Some(trailer) = Trailer::read(&bytes, id, len) else { return Ok(None) };
        let mut index = vec![0; trailer.entries as usize * INDEX_ENTRY];
        let read = read_full(file, &mut index, trailer.index_offset)?;
        if read < index.len() || crc(&[&id.0, &index]) != trailer.index_crc {
            return Ok(None);
        }
        let ends = Indexed::read(&index).zip(index.rchunks_exact(INDEX_ENTRY).next().and_then(Indexed::read));
        Ok(Some(match ends {
            Some((first, last)) => Index::InFile {
                offset: trailer.index_offset,
                entries: trailer.entries,
                first: first.run,
                last: last.run,
                kept: None,
            },
            None => Index::Found(Vec::new()),
        }))
    }

    fn file(&self, fs: &dyn Fs) -> io::Result<Box<dyn FsFile>> {
        fs.open(&self.path, Access::Read)
    }

    /// Finds a run, there or deleted.
    pub fn find(&self, fs: &dyn Fs, run: RunId) -> io::Result<Option<Indexed>> {
        match &self.index {
            Index::Found(found) => Ok(found.iter().rfind(|entry| entry.run == run).copied()),
            Index::InFile { first, last, .. } if run < *first || run > *last => Ok(None),
            Index::InFile { entries, kept: Some(index), .. } => search(run, u64::from(*entries), |at| {
                Ok(index.get(at as usize * INDEX_ENTRY..).and_then(Indexed::read))
            }),
            Index::InFile { offset, entries, kept: None, .. } => {
                let (file, mut bytes) = (self.file(fs)?, [0; INDEX_ENTRY]);
                search(run, u64::from(*entries), |at| {
                    read_full(&*file, &mut bytes, offset + at * INDEX_ENTRY as u64)?;
                    Ok(Indexed::read(&bytes))
                })
            }
        }
    }

    /// Keeps the index in memory where there is room, else lets go of it.
    pub fn keep_index(&mut self, fs: &dyn Fs, room: &mut usize) -> io::Result<()> {
        let file = |pack: &Self| pack.file(fs);
        let Index::InFile { offset, entries, kept, .. } = &self.index else { return Ok(()) };
        let (offset, len, is_kept) = (*offset, *entries as usize * INDEX_ENTRY, kept.is_some());
        let fits = len <= *room;
        *room = if fits { *room - len } else { 0 };
        let bytes: Option<Arc<[u8]>> = match fits && !is_kept {
            true => {
                let mut bytes = vec![0; len];
                read_full(&*file(self)?, &mut bytes, offset)?;
                Some(bytes.into())
            }
            false => None,
        };
        if let Index::InFile { kept, .. } = &mut self.index
            && (!fits || bytes.is_some())
        {
            *kept = bytes;
        }
        Ok(())
    }

    /// Returns all its entries, those of deleted runs too.
    pub fn entries(&self, fs: &dyn Fs) -> io::Result<Vec<Indexed>> {
        match &self.index {
            Index::Found(found) => Ok(found.clone()),
            Index::InFile { kept: Some(index), .. } => {
                Ok(index.chunks_exact(INDEX_ENTRY).filter_map(Indexed::read).collect())
            }
            Index::InFile { offset, entries, .. } => {
                let mut bytes = vec![0; *entries as usize * INDEX_ENTRY];
                read_full(&*self.file(fs)?, &mut bytes, *offset)?;
                Ok(bytes.chunks_exact(INDEX_ENTRY).filter_map(Indexed::read).collect())
            }
        }
    }

    /// Reads the head of an entry.
    pub fn head(&self, fs: &dyn Fs, entry: Indexed) -> io::Result<EntryHead> {
        self.head_in(&*self.file(fs)?, entry)
    }

    fn head_in(&self, file: &dyn FsFile, entry: Indexed) -> io::Result<EntryHead> {
        let mut bytes = [0; ENTRY_HEAD];
        read_full(file, &mut bytes, entry.offset)?;
        let head = EntryHead::read(&bytes, self.id).filter(|head| head.run == entry.run && head.len == entry.len);
        head.ok_or_else(|| bad(format!("its entry in {} is damaged", self.name())))
    }

    /// Reads a run.
    pub fn body(&self, fs: &dyn Fs, entry: Indexed) -> io::Result<Body> {
        let (head, stored) = self.stored(fs, entry)?;
        let expanded = u64::from(head.yaml_len) + u64::from(head.events_len);
        if expanded > MAX_EXPANDED {
            return Err(bad(format!("its entry in {} says that it has {expanded} bytes", self.name())));
        }
        let mut yaml = match head.codec {
            Codec::Stored => stored,
            Codec::Zstd => expand(&stored, expanded as usize)?,
        };
        if yaml.len() as u64 != expanded {
            return Err(bad(format!("its content in {} is not as long as it should be", self.name())));
        }
        let events = yaml.split_off(head.yaml_len as usize);
        Ok(Body { yaml, events })
    }

    /// Returns what stands in the file of an entry: its head, and its body as it is stored.
    pub fn stored(&self, fs: &dyn Fs, entry: Indexed) -> io::Result<(EntryHead, Vec<u8>)> {
        self.stored_in(&*self.file(fs)?, entry)
    }

    fn stored_in(&self, file: &dyn FsFile, entry: Indexed) -> io::Result<(EntryHead, Vec<u8>)> {
        let head = self.head_in(file, entry)?;
        let mut stored = vec![0; head.len as usize];
        let read = read_full(file, &mut stored, entry.offset + ENTRY_HEAD as u64)?;
        if read < stored.len() || crc(&[&self.id.0, &stored]) != head.body_crc {
            return Err(bad(format!("its content in {} is damaged", self.name())));
        }
        Ok((head, stored))
    }

    /// Finds a byte between entries that is not 0; all others belong to something that has a checksum.
    pub fn stray_byte(&self, fs: &dyn Fs) -> io::Result<Option<u64>> {
        let Index::InFile { offset: index, .. } = self.index else { return Ok(None) };
        let mut entries = self.entries(fs)?;
        entries.sort_unstable_by_key(|entry| entry.offset);
        let ends = entries.iter().map(|entry| entry.offset + ENTRY_HEAD as u64 + u64::from(entry.len));
        let begins = entries.iter().skip(1).map(|entry| entry.offset).chain([index]);
        let file = self.file(fs)?;
        for (from, to) in ends.zip(begins) {
            let mut gap = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0).min(CHUNK)];
            read_full(&*file, &mut gap, from)?;
            if let Some(at) = gap.iter().position(|byte| *byte != 0) {
                return Ok(Some(from + at as u64));
            }
        }
        Ok(None)
    }

    /// Returns its name within the store.
    pub fn name(&self) -> String {
        format!("packs/{}.pack", self.id)
    }
}

/// Finds a run in a sorted index.
fn search(
    run: RunId,
    entries: u64,
    mut read: impl FnMut(u64) -> io::Result<Option<Indexed>>,
) -> io::Result<Option<Indexed>> {
    let (mut low, mut high) = (0, entries);
    while low < high {
        let middle = low.midpoint(high);
        let entry = read(middle)?.ok_or_else(|| bad("the index of a pack is damaged"))?;
        match entry.run.cmp(&run) {
            std::cmp::Ordering::Equal => return Ok(Some(entry)),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Ok(None)
}

#[cfg(feature = "seal")]
pub fn expand(stored: &[u8], len: usize) -> io::Result<Vec<u8>> {
    thread_local! {
        // Making one takes as long as it takes to expand a small run.
        static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let own = |kept: &RefCell<Option<zstd::bulk::Decompressor<'static>>>| {
        let mut kept = kept.try_borrow_mut().ok()?;
        if kept.is_none() {
            *kept = zstd::bulk::Decompressor::new().ok();
        }
        kept.as_mut().map(|decompressor| decompressor.decompress(stored, len))
    };
    let expanded = DECOMPRESSOR.try_with(own).ok().flatten();
    let expanded = expanded.unwrap_or_else(|| zstd::bulk::decompress(stored, len));
    expanded.map_err(|error| bad(format!("it cannot be expanded: {error}")))
}

#[cfg(not(feature = "seal"))]
pub fn expand(_: &[u8], _: usize) -> io::Result<Vec<u8>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, crate::store::NotBuiltIn))
}

/// Finds entries from the front: each leads to the next, and where there is none every place is tried at which one may
/// stand.
fn find(file: &dyn FsFile, id: RunId, begin: u64) -> io::Result<Vec<Indexed>> {
    let (len, mut at, mut found) = (file.stat()?.len, aligned(begin), Vec::new());
    let (mut chunk, mut chunk_at) = (Vec::new(), 0_u64);
    while at + ENTRY_HEAD as u64 <= len {
        let in_chunk = at.checked_sub(chunk_at).and_then(|from| chunk.get(from as usize..from as usize + ENTRY_HEAD));
        let Some(bytes) = in_chunk else {
            chunk.resize(CHUNK, 0);
            let read = read_full(file, &mut chunk, at)?;
            chunk.truncate(read);
            chunk_at = at;
            if read < ENTRY_HEAD {
                break;
            }
            continue;
        };
        match EntryHead::read(bytes, id) {
            Some(head) if at + ENTRY_HEAD as u64 + u64::from(head.len) <= len => {
                found.push(Indexed { run: head.run, kind: head.kind, offset: at, len: head.len });
                at = aligned(at + ENTRY_HEAD as u64 + u64::from(head.len));
            }
            _ => at += 8,
        }
    }
    Ok(found)
}
