//! A file system in memory that fails, forgets and tears as a disk under a process may.
//!
//! Of each file it knows what is *seen* (the page cache) and what is *on disk*, and between them every change in order:
//! contents of sectors, and sizes. `sync_data` brings them to the disk. Of each directory it knows the same for names,
//! whose changes a sync of the directory brings to the disk.
//!
//! - **Loss of power** leaves of each sector any one of its contents since the last sync, of each size the same, and of
//!   the changed names of each directory those up to some moment: torn, reordered and lost writes, files without
//!   content and folders without files. Asked to, it leaves any of the changed names: what POSIX promises is no more.
//! - **A failed sync** leaves on the disk what a loss of power might, and forgets the rest of the changes: a later sync
//!   that works says nothing about them. What could not be written may from then on be seen no more, either.
//! - **A killed process** leaves what is seen. Its locks are free, and whatever it goes on to do fails and changes
//!   nothing. It dies in the middle of an operation: a write may have been done in part.
//! - **Any operation** may fail, with what the system gives for it: a full disk takes a part of a write first; reads and
//!   writes are interrupted or short; renames and links may cross devices.
//!
//! What happens depends on the seed and on the operations alone.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Access, Entry, Fs, FsFile, Stat};

/// What a disk writes at once.
const SECTOR: usize = 512;
/// What a file takes on the disk is a multiple of this.
const BLOCK: u64 = 4096;
const ROOT: u64 = 1;

impl Plan {
    /// Thinks faults up for the next `span` operations after `from`, a death among them three times of four.
    pub fn any(dice: &mut Dice, from: u64, span: u64) -> Self {
        let mut plan = Self::default();
        if !dice.one_in(4) {
            plan.crash_at = Some(from + dice.below(span));
        }
        if dice.one_in(2) {
            let rough = from + dice.below(span);
            (plan.rough, plan.one_in) = (rough..rough + dice.below(span), dice.one_of(&[4, 10, 30]));
        }
        if dice.one_in(5) {
            let full = from + dice.below(span);
            plan.full = full..full + dice.below(40);
        }
        plan
    }
}

/// Numbers that depend on the seed alone.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub fn roll(&mut self) -> u64 {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll().checked_rem(bound).unwrap_or(0)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process is killed: what is seen stays.
    Kill,
    /// The power fails: what is on the disk stays.
    PowerLoss,
    /// The same on a file system that brings names to the disk in no order.
    PowerLossInDisorder,
}

/// Groups of operations that fail in the same ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Op {
    Read,
    Write,
    SyncData,
    SyncDir,
    Rename,
    /// Making files, directories and links.
    Make,
    Open,
    /// Listing and asking about files.
    Look,
    Remove,
    SetLen,
}

/// What goes wrong, and when. Operations are counted from 1, over all lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// During these one in so many fails, each in a way that it may fail; of syncs three times as many.
    pub rough: std::ops::Range<u64>,
    pub one_in: u64,
    /// The disk is full during these.
    pub full: std::ops::Range<u64>,
    /// It has room for names all the same, as most file systems have.
    pub has_room_for_names: bool,
    /// The process dies in this one.
    pub crash_at: Option<u64>,
    /// The next operation of a group fails with an error of the system.
    pub next: Option<(Op, i32)>,
}

#[derive(Clone, Debug)]
enum Change {
    /// What a sector holds from now on; shorter than a sector at the end of the file.
    Sector(usize, Vec<u8>),
    Len(usize),
}

#[derive(Clone, Debug, Default)]
struct Contents {
    seen: Vec<u8>,
    disk: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Put(String, u64),
    Gone(String),
    Moved(String, String, u64),
}

#[derive(Clone, Debug, Default)]
struct Names {
    seen: BTreeMap<String, u64>,
    disk: BTreeMap<String, u64>,
    pending: Vec<NameChange>,
}

#[derive(Clone, Debug)]
enum Node {
    File(Contents),
    Dir(Names),
}

#[derive(Debug)]
struct Disk {
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    next_handle: u64,
    /// Locks by file: who holds it, and whether alone.
    locks: BTreeMap<u64, Vec<(u64, bool)>>,
    life: u64,
    is_dead: bool,
    count: u64,
    plan: Plan,
    /// What all files may take together, in whole blocks; names take nothing.
    capacity: Option<u64>,
    dice: Dice,
    /// What was done, for who wants to see how it came about.
    trace: Option<Vec<String>>,
}

/// The file system as one life of a process sees it.
#[derive(Clone, Debug)]
pub(crate) struct FaultyFs {
    disk: Arc<Mutex<Disk>>,
    life: u64,
}

#[derive(Debug)]
struct FaultyFile {
    fs: FaultyFs,
    node: u64,
    handle: u64,
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl FaultyFs {
    pub fn new(seed: u64) -> Self {
        let root = Node::Dir(Names::default());
        let disk = Disk {
            nodes: [(ROOT, root)].into(),
            next_node: ROOT + 1,
            next_handle: 1,
            locks: BTreeMap::new(),
            life: 1,
            is_dead: false,
            count: 0,
            plan: Plan::default(),
            capacity: None,
            dice: Dice::new(seed),
            trace: None,
        };
        Self { disk: Arc::new(Mutex::new(disk)), life: 1 }
    }

    pub fn shared(&self) -> Arc<dyn Fs> {
        Arc::new(self.clone())
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes from now on what is done.
    pub fn trace(&self) {
        self.disk().trace = Some(Vec::new());
    }

    pub fn traced(&self) -> Vec<String> {
        self.disk().trace.clone().unwrap_or_default()
    }

    pub fn plan(&self, plan: Plan) {
        self.disk().plan = plan;
    }

    /// Lets the disk have so many bytes free from now on; `None`: as many as anybody wants.
    pub fn set_free(&self, bytes: Option<u64>) {
        let mut disk = self.disk();
        disk.capacity = bytes.map(|bytes| disk.used(None) + bytes);
    }

    /// Lets the next operation of a group fail with an error of the system.
    pub fn fail_next(&self, op: Op, code: i32) {
        self.disk().plan.next = Some((op, code));
    }

    /// Tells how many operations there were.
    pub fn count(&self) -> u64 {
        self.disk().count
    }

    /// Has the process died, as planned?
    pub fn is_dead(&self) -> bool {
        self.disk().is_dead
    }

    /// Ends this life and begins another.
    pub fn restart(&self, end: End) -> Self {
        let mut disk = self.disk();
        disk.life += 1;
        disk.is_dead = false;
        disk.locks.clear();
        disk.plan = Plan::default();
        match end {
            End::Kill => {}
            End::PowerLoss => disk.lose_power(true),
            End::PowerLossInDisorder => disk.lose_power(false),
        }
        let (life, count) = (disk.life, disk.count);
        if let Some(trace) = &mut disk.trace {
            trace.push(format!("--- {end:?} after operation {count}, life {life}"));
        }
        Self { disk: Arc::clone(&self.disk), life }
    }

    /// Brings all that is seen to the disk, without counting as an operation.
    #[cfg(feature = "server")]
    pub fn bring_to_disk(&self) {
        for node in self.disk().nodes.values_mut() {
            match node {
                Node::File(file) => {
                    file.disk = file.synced();
                    file.pending.clear();
                }
                Node::Dir(names) => names.bring_to_disk(names.pending.len()),
            }
        }
    }

    /// Returns the same disk with the same contents, apart from this one.
    pub fn copy(&self) -> Self {
        let disk = self.disk();
        let copy = Disk {
            nodes: disk.nodes.clone(),
            locks: BTreeMap::new(),
            plan: Plan::default(),
            dice: disk.dice.clone(),
            trace: disk.trace.clone(),
            is_dead: false,
            ..*disk
        };
        Self { disk: Arc::new(Mutex::new(copy)), life: self.life }
    }

    /// Returns the content of every file by path, as it is seen, without counting as operations.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let disk = self.disk();
        let (mut found, mut dirs) = (BTreeMap::new(), vec![(String::new(), ROOT)]);
        while let Some((path, dir)) = dirs.pop() {
            let Some(Node::Dir(names)) = disk.nodes.get(&dir) else { continue };
            for (name, node) in &names.seen {
                let path = format!("{path}/{name}");
                match disk.nodes.get(node) {
                    Some(Node::File(file)) => drop(found.insert(path, file.seen.clone())),
                    Some(Node::Dir(_)) => dirs.push((path, *node)),
                    None => {}
                }
            }
        }
        found
    }

    /// Puts other bytes in the place of a file's, on the disk too, without counting as an operation.
    pub fn overwrite(&self, path: &str, bytes: Vec<u8>) {
        let mut disk = self.disk();
        let node = disk.find(Path::new(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        if let Some(Node::File(file)) = disk.nodes.get_mut(&node) {
            *file = Contents { seen: bytes.clone(), disk: bytes, pending: Vec::new() };
        }
    }

    /// Begins an operation: counts it, and fails as planned.
    fn begin(&self, op: Op, what: &dyn Fn() -> String) -> io::Result<Begun<'_>> {
        let mut disk = self.disk();
        if disk.life != self.life || disk.is_dead {
            return Err(io::Error::other("this process is dead"));
        }
        disk.count += 1;
        let count = disk.count;
        let fault = disk.fault(op);
        let is_told = op != Op::Read || fault.is_some();
        if let Some(trace) = disk.trace.as_mut().filter(|_| is_told) {
            let fault = fault.map(|fault| format!(" !{fault:?}")).unwrap_or_default();
            trace.push(format!("{count} {op:?} {}{fault}", what()));
        }
        match fault {
            Some(Fault::Death) => {
                disk.is_dead = true;
                // A write may have been done in part; the others are done or not.
                if disk.dice.one_in(2) || !matches!(op, Op::Write) {
                    return Err(io::Error::other("this process dies"));
                }
                Ok(Begun { disk, fault: Some(Fault::Death) })
            }
            Some(Fault::Errno(code)) if !matches!(op, Op::SyncData | Op::SyncDir | Op::Write) => Err(errno(code)),
            fault => Ok(Begun { disk, fault }),
        }
    }
}

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Errno(i32),
    /// It does less than was asked for.
    Short,
    /// The process dies in it.
    Death,
}

struct Begun<'a> {
    disk: MutexGuard<'a, Disk>,
    fault: Option<Fault>,
}

impl Disk {
    fn fault(&mut self, op: Op) -> Option<Fault> {
        if self.plan.crash_at == Some(self.count) {
            return Some(Fault::Death);
        }
        if let Some((_, code)) = self.plan.next.filter(|(next, _)| *next == op) {
            self.plan.next = None;
            return Some(Fault::Errno(code));
        }
        let needs_room = matches!(op, Op::Write | Op::Make) || (op == Op::Rename && !self.plan.has_room_for_names);
        if self.plan.full.contains(&self.count) && needs_room {
            return Some(Fault::Errno(libc::ENOSPC));
        }
        let one_in =
            if matches!(op, Op::SyncData | Op::SyncDir) { self.plan.one_in.div_ceil(3) } else { self.plan.one_in };
        let fails = self.plan.rough.contains(&self.count) && self.dice.one_in(one_in);
        fails.then(|| self.fault_of(op))
    }

    fn fault_of(&mut self, op: Op) -> Fault {
        let dice = &mut self.dice;
        match op {
            // A read that fails for good is damage to what it reads, and has tests of its own.
            Op::Read => dice.one_of(&[Fault::Errno(libc::EINTR), Fault::Short, Fault::Errno(libc::ENOMEM)]),
            Op::Write => dice.one_of(&[
                Fault::Errno(libc::EINTR),
                Fault::Short,
                Fault::Errno(libc::ENOSPC),
                Fault::Errno(libc::EIO),
                Fault::Errno(libc::EDQUOT),
            ]),
            Op::SyncData | Op::SyncDir => dice.one_of(&[Fault::Errno(libc::EIO), Fault::Errno(libc::ENOSPC)]),
            Op::Rename => {
                dice.one_of(&[Fault::Errno(libc::EXDEV), Fault::Errno(libc::EIO), Fault::Errno(libc::ENOSPC)])
            }
            Op::Make => dice.one_of(&[Fault::Errno(libc::EMFILE), Fault::Errno(libc::EIO), Fault::Errno(libc::ENOSPC)]),
            Op::Open => dice.one_of(&[Fault::Errno(libc::EMFILE), Fault::Errno(libc::EIO), Fault::Errno(libc::ENFILE)]),
            Op::Look => dice.one_of(&[Fault::Errno(libc::EIO), Fault::Errno(libc::ENOMEM)]),
            Op::Remove | Op::SetLen => Fault::Errno(libc::EIO),
        }
    }

    /// Returns what files with a name take, but for one.
    fn used(&self, but: Option<u64>) -> u64 {
        let dirs = self.nodes.values().filter_map(|node| match node {
            Node::Dir(names) => Some(names.seen.values()),
            Node::File(_) => None,
        });
        let named: std::collections::BTreeSet<u64> =
            dirs.flatten().copied().filter(|node| Some(*node) != but).collect();
        let bytes = named.iter().filter_map(|node| match self.nodes.get(node) {
            Some(Node::File(file)) => Some((file.seen.len() as u64).next_multiple_of(BLOCK)),
            _ => None,
        });
        bytes.sum()
    }

    /// Returns how long a file may get.
    fn longest(&self, node: u64) -> usize {
        let left = self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used(Some(node))));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Finds what stands at a path.
    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut at = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let Some(Node::Dir(names)) = self.nodes.get(&at) else { return Err(errno(libc::ENOTDIR)) };
            at = *names.seen.get(&*name.to_string_lossy()).ok_or_else(|| errno(libc::ENOENT))?;
        }
        let wants_dir = path.as_os_str().to_string_lossy().ends_with("/.");
        match self.nodes.get(&at) {
            Some(Node::File(_)) if wants_dir => Err(errno(libc::ENOTDIR)),
            _ => Ok(at),
        }
    }

    /// Finds the directory that a path's last part is in, and that part.
    fn find_parent(&self, path: &Path) -> io::Result<(u64, String)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(errno(libc::EINVAL)) };
        Ok((self.find(parent)?, name.to_string_lossy().into_owned()))
    }

    fn names(&mut self, dir: u64) -> io::Result<&mut Names> {
        match self.nodes.get_mut(&dir) {
            Some(Node::Dir(names)) => Ok(names),
            _ => Err(errno(libc::ENOTDIR)),
        }
    }

    fn file(&mut self, node: u64) -> io::Result<&mut Contents> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(errno(libc::EISDIR)),
        }
    }

    /// Makes something new under a path.
    fn make(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        let (dir, name) = self.find_parent(path)?;
        let number = self.next_node;
        let names = self.names(dir)?;
        if names.seen.contains_key(&name) {
            return Err(errno(libc::EEXIST));
        }
        names.change(NameChange::Put(name, number));
        self.nodes.insert(number, node);
        self.next_node += 1;
        Ok(number)
    }

    fn is_linked(&self, node: u64) -> bool {
        let holds = |of: &Node| matches!(of, Node::Dir(names) if names.seen.values().any(|seen| *seen == node));
        node == ROOT || self.nodes.values().any(holds)
    }

    fn stat(&self, node: u64) -> io::Result<Stat> {
        let (is_dir, len) = match self.nodes.get(&node) {
            Some(Node::File(file)) => (false, file.seen.len() as u64),
            Some(Node::Dir(_)) => (true, 0),
            None => return Err(errno(libc::ENOENT)),
        };
        // Changed a moment ago for all that anybody knows.
        let modified = crate::model::UnixNanos::now().0;
        Ok(Stat { is_dir, len, identity: (1, node), is_linked: self.is_linked(node), modified })
    }

    fn remove(&mut self, path: &Path, is_dir: bool) -> io::Result<()> {
        let (node, (dir, name)) = (self.find(path)?, self.find_parent(path)?);
        match self.nodes.get(&node) {
            Some(Node::Dir(_)) if !is_dir => return Err(errno(libc::EISDIR)),
            Some(Node::Dir(names)) if !names.seen.is_empty() => return Err(errno(libc::ENOTEMPTY)),
            Some(Node::File(_)) if is_dir => return Err(errno(libc::ENOTDIR)),
            _ => {}
        }
        self.names(dir)?.change(NameChange::Gone(name));
        Ok(())
    }

    fn lose_power(&mut self, are_names_in_order: bool) {
        let Self { nodes, dice, .. } = self;
        for node in nodes.values_mut() {
            match node {
                Node::File(file) => {
                    file.disk = file.left_on_disk(dice);
                    file.seen = file.disk.clone();
                    file.pending.clear();
                }
                Node::Dir(names) => {
                    if are_names_in_order {
                        let kept = dice.below(names.pending.len() as u64 + 1) as usize;
                        names.bring_to_disk(kept);
                    } else {
                        names.pending.retain(|_| dice.one_in(2));
                        names.bring_to_disk(names.pending.len());
                    }
                    names.seen = names.disk.clone();
                    names.pending.clear();
                }
            }
        }
    }
}

impl Names {
    fn change(&mut self, change: NameChange) {
        apply(&change, &mut self.seen);
        self.pending.push(change);
    }

    fn bring_to_disk(&mut self, count: usize) {
        for change in self.pending.drain(..count) {
            apply(&change, &mut self.disk);
        }
    }
}

fn apply(change: &NameChange, names: &mut BTreeMap<String, u64>) {
    match change {
        NameChange::Put(name, node) => drop(names.insert(name.clone(), *node)),
        NameChange::Gone(name) => drop(names.remove(name)),
        NameChange::Moved(from, to, node) => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
    }
}

impl Contents {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if end > self.seen.len() {
            self.seen.resize(end, 0);
            self.pending.push(Change::Len(end));
        }
        self.seen[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.note_sectors(offset / SECTOR..end.div_ceil(SECTOR));
        }
    }

    fn set_len(&mut self, len: usize) {
        self.seen.resize(len, 0);
        self.pending.push(Change::Len(len));
    }

    fn note_sectors(&mut self, sectors: std::ops::Range<usize>) {
        for sector in sectors {
            let end = ((sector + 1) * SECTOR).min(self.seen.len());
            self.pending.push(Change::Sector(sector, self.seen[sector * SECTOR..end].to_vec()));
        }
    }

    /// Returns what the disk has of it when all changes have reached it.
    fn synced(&self) -> Vec<u8> {
        let mut disk = self.disk.clone();
        for change in &self.pending {
            match change {
                Change::Len(len) => disk.resize(*len, 0),
                Change::Sector(sector, bytes) => put(&mut disk, *sector, bytes),
            }
        }
        disk
    }

    /// Returns what the disk may have of it when the power fails now.
    fn left_on_disk(&self, dice: &mut Dice) -> Vec<u8> {
        if self.pending.is_empty() {
            return self.disk.clone();
        }
        // Sizes are brought to the disk in order, contents in any.
        let is_len = |change: &Change| matches!(change, Change::Len(_));
        let sizes = self.pending.iter().filter(|change| is_len(change)).count() as u64;
        // Often all or nothing: that finds other faults than a patchwork does.
        let luck = dice.one_of(&[0, 1, 2, 2, 9, 10]);
        let mut kept_sizes = if luck == 10 { sizes } else { dice.below(sizes + 1) };
        let mut picks: BTreeMap<usize, (usize, &[u8])> = BTreeMap::new();
        let mut cuts = Vec::new();
        let mut len = self.disk.len();
        for (place, change) in self.pending.iter().enumerate() {
            match change {
                Change::Len(to) if kept_sizes > 0 => {
                    kept_sizes -= 1;
                    cuts.push((place, *to));
                    len = *to;
                }
                Change::Len(_) => {}
                Change::Sector(sector, bytes) => {
                    if dice.below(10) < luck {
                        picks.insert(*sector, (place, bytes));
                    }
                }
            }
        }
        let mut disk = self.disk.clone();
        for (_, to) in &cuts {
            disk.resize(*to, 0);
        }
        for (sector, (place, bytes)) in picks {
            // What a later cut took away does not come back.
            let cut = cuts.iter().filter(|(at, _)| *at > place).map(|(_, to)| *to).min().unwrap_or(usize::MAX);
            let kept = cut.saturating_sub(sector * SECTOR).min(bytes.len());
            let mut whole = bytes[..kept].to_vec();
            whole.resize(SECTOR, 0);
            put(&mut disk, sector, &whole);
        }
        disk.resize(len, 0);
        disk
    }

    fn fail_sync(&mut self, dice: &mut Dice) {
        self.disk = self.left_on_disk(dice);
        self.pending.clear();
        if dice.one_in(4) {
            // The pages go, and are read from the disk when they are wanted.
            let len = self.seen.len();
            self.seen = self.disk.clone();
            self.seen.resize(len, 0);
        }
    }
}

/// Puts a sector's content into what is on the disk, within the size that is there or grows to it.
fn put(disk: &mut Vec<u8>, sector: usize, bytes: &[u8]) {
    let start = sector * SECTOR;
    if disk.len() < start + bytes.len() {
        disk.resize(start + bytes.len(), 0);
    }
    disk[start..start + bytes.len()].copy_from_slice(bytes);
}

impl Fs for FaultyFs {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut begun = self.begin(Op::Make, &|| format!("mkdir {}", path.display()))?;
        begun.disk.make(path, Node::Dir(Names::default())).map(drop)
    }

    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        let mut begun = self.begin(Op::Make, &|| format!("create {}", path.display()))?;
        let node = begun.disk.make(path, Node::File(Contents::default()))?;
        Ok(self.opened(&mut begun.disk, node))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn FsFile>> {
        let is_there = self.disk().find(path).is_ok();
        let makes = matches!(access, Access::Create | Access::Append) && !is_there;
        let op = if makes { Op::Make } else { Op::Open };
        let mut begun = self.begin(op, &|| format!("open {access:?} {}", path.display()))?;
        let node = match begun.disk.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && makes => {
                begun.disk.make(path, Node::File(Contents::default()))?
            }
            found => found?,
        };
        if matches!(begun.disk.nodes.get(&node), Some(Node::Dir(_))) {
            return Err(match access {
                Access::Read => io::Error::new(io::ErrorKind::InvalidData, "not a regular file"),
                _ => errno(libc::EISDIR),
            });
        }
        Ok(self.opened(&mut begun.disk, node))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let begun = self.begin(Op::Look, &|| format!("list {}", dir.display()))?;
        let disk = &begun.disk;
        let Some(Node::Dir(names)) = disk.nodes.get(&disk.find(dir)?) else { return Err(errno(libc::ENOTDIR)) };
        let entry = |(name, node): (&String, &u64)| Entry {
            name: name.clone(),
            is_dir: matches!(disk.nodes.get(node), Some(Node::Dir(_))),
        };
        Ok(names.seen.iter().map(entry).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let begun = self.begin(Op::Look, &|| format!("stat {}", path.display()))?;
        begun.disk.stat(begun.disk.find(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut begun = self.begin(Op::Rename, &|| format!("rename {} {}", from.display(), to.display()))?;
        let disk = &mut begun.disk;
        let (node, (dir, old), (to_dir, new)) = (disk.find(from)?, disk.find_parent(from)?, disk.find_parent(to)?);
        match disk.find(to).ok().and_then(|there| disk.nodes.get(&there)) {
            Some(Node::Dir(names)) if !names.seen.is_empty() => return Err(errno(libc::ENOTEMPTY)),
            Some(Node::Dir(_)) if matches!(disk.nodes.get(&node), Some(Node::File(_))) => {
                return Err(errno(libc::EISDIR));
            }
            _ => {}
        }
        if dir == to_dir {
            disk.names(dir)?.change(NameChange::Moved(old, new, node));
        } else {
            // Each directory's changes come to the disk by themselves: nothing that is moved so is promised to survive loss
            // of power before both are synced.
            disk.names(dir)?.change(NameChange::Gone(old));
            disk.names(to_dir)?.change(NameChange::Put(new, node));
        }
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut begun = self.begin(Op::Rename, &|| format!("link {} {}", from.display(), to.display()))?;
        let disk = &mut begun.disk;
        let (node, (dir, name)) = (disk.find(from)?, disk.find_parent(to)?);
        if disk.find(to).is_ok() {
            return Err(errno(libc::EEXIST));
        }
        disk.names(dir)?.change(NameChange::Put(name, node));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut begun = self.begin(Op::Remove, &|| format!("unlink {}", path.display()))?;
        begun.disk.remove(path, false)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut begun = self.begin(Op::Remove, &|| format!("rmdir {}", path.display()))?;
        begun.disk.remove(path, true)
    }

    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        for entry in self.list(path)? {
            let path = path.join(&entry.name);
            if entry.is_dir { self.remove_tree(&path)? } else { self.remove_file(&path)? }
        }
        self.remove_dir(path)
    }

    fn touch(&self, path: &Path) -> io::Result<()> {
        // Whatever is asked here was changed a moment ago for all that anybody knows.
        let begun = self.begin(Op::Look, &|| format!("touch {}", path.display()))?;
        begun.disk.find(path).map(drop)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let begun = self.begin(Op::Look, &|| format!("free {}", dir.display()))?;
        let used = begun.disk.used(None);
        // Where nobody said how large it is, nobody is to count on it.
        Ok(begun.disk.capacity.map_or(0, |capacity| capacity.saturating_sub(used)))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut begun = self.begin(Op::SyncDir, &|| format!("sync {}", path.display()))?;
        let disk = &mut *begun.disk;
        let dir = disk.find(path)?;
        let Disk { nodes, dice, .. } = disk;
        let Some(Node::Dir(names)) = nodes.get_mut(&dir) else { return Err(errno(libc::ENOTDIR)) };
        let all = names.pending.len();
        match begun.fault {
            // Names are kept in order by the file system's own log: the rest waits on.
            Some(Fault::Errno(code)) => {
                names.bring_to_disk(dice.below(all as u64 + 1) as usize);
                Err(errno(code))
            }
            _ => {
                names.bring_to_disk(all);
                Ok(())
            }
        }
    }
}

impl FaultyFs {
    fn opened(&self, disk: &mut Disk, node: u64) -> Box<dyn FsFile> {
        disk.next_handle += 1;
        Box::new(FaultyFile { fs: self.clone(), node, handle: disk.next_handle })
    }
}

impl FaultyFile {
    fn put(&self, begun: &mut Begun<'_>, bytes: &[u8], offset: usize) -> io::Result<usize> {
        let disk = &mut *begun.disk;
        let part = disk.dice.below(bytes.len() as u64) as usize;
        let fits = disk.longest(self.node).saturating_sub(offset).min(bytes.len());
        let (taken, answer) = match begun.fault {
            None if fits == 0 && !bytes.is_empty() => (0, Err(errno(libc::ENOSPC))),
            None => (fits, Ok(fits)),
            // A short write takes something.
            Some(Fault::Short) => (part.max(1).min(bytes.len()), Ok(part.max(1).min(bytes.len()))),
            Some(Fault::Death) => (part, Err(io::Error::other("this process dies"))),
            // A full disk takes what fits before it says so.
            Some(Fault::Errno(code @ (libc::ENOSPC | libc::EDQUOT | libc::EIO))) if part > 0 => {
                disk.plan.next = Some((Op::Write, code));
                (part, Ok(part))
            }
            Some(Fault::Errno(code)) => (0, Err(errno(code))),
        };
        disk.file(self.node)?.write(&bytes[..taken], offset);
        answer
    }
}

impl FsFile for FaultyFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut begun = self.fs.begin(Op::Read, &|| format!("read {} {offset}+{}", self.node, into.len()))?;
        let is_short = begun.fault == Some(Fault::Short);
        let file = begun.disk.file(self.node)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.seen.len());
        let mut count = into.len().min(file.seen.len() - from);
        if is_short {
            count = count.div_ceil(2);
        }
        into[..count].copy_from_slice(&file.seen[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut begun = self.fs.begin(Op::Write, &|| format!("write {} {offset}+{}", self.node, bytes.len()))?;
        self.put(&mut begun, bytes, usize::try_from(offset).map_err(|_| errno(libc::EFBIG))?)
    }

    fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut begun = self.fs.begin(Op::Write, &|| format!("append {} {}", self.node, bytes.len()))?;
        let end = begun.disk.file(self.node)?.seen.len();
        self.put(&mut begun, bytes, end)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut begun = self.fs.begin(Op::SyncData, &|| format!("sync {}", self.node))?;
        let Disk { nodes, dice, .. } = &mut *begun.disk;
        let Some(Node::File(file)) = nodes.get_mut(&self.node) else { return Err(errno(libc::EINVAL)) };
        match begun.fault {
            Some(Fault::Errno(code)) => {
                file.fail_sync(dice);
                Err(errno(code))
            }
            _ => {
                file.disk = file.synced();
                file.pending.clear();
                Ok(())
            }
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        let begun = self.fs.begin(Op::Look, &|| format!("stat {}", self.node))?;
        begun.disk.stat(self.node)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut begun = self.fs.begin(Op::SetLen, &|| format!("cut {} {len}", self.node))?;
        let file = begun.disk.file(self.node)?;
        if file.seen.len() as u64 != len {
            file.set_len(usize::try_from(len).map_err(|_| errno(libc::EFBIG))?);
        }
        Ok(())
    }

    fn try_lock(&self, exclusive: bool) -> io::Result<bool> {
        let mut disk = self.fs.disk();
        if disk.life != self.fs.life || disk.is_dead {
            return Err(io::Error::other("this process is dead"));
        }
        let holders = disk.locks.entry(self.node).or_default();
        let is_against = |(handle, alone): &(u64, bool)| *handle != self.handle && (*alone || exclusive);
        if holders.iter().any(is_against) {
            return Ok(false);
        }
        holders.retain(|(handle, _)| *handle != self.handle);
        holders.push((self.handle, exclusive));
        Ok(true)
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        let mut disk = self.fs.disk();
        if let Some(holders) = disk.locks.get_mut(&self.node) {
            holders.retain(|(handle, _)| *handle != self.handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn content(fs: &FaultyFs) -> Option<Vec<u8>> {
        fs.files().remove("/f")
    }

    /// What a loss of power may leave of a file of which `do_it` is done, over many seeds.
    fn left(do_it: impl Fn(&FaultyFs, &dyn FsFile)) -> BTreeSet<Option<Vec<u8>>> {
        let after = |seed| {
            let fs = FaultyFs::new(seed);
            let file = fs.create_new(Path::new("/f")).unwrap();
            do_it(&fs, &*file);
            let seen = content(&fs);
            assert_eq!(content(&fs.restart(End::Kill)), seen, "a kill costs nothing");
            content(&fs.restart(End::PowerLoss))
        };
        (0..300).map(after).collect()
    }

    fn sync_name(fs: &FaultyFs) {
        fs.sync_dir(Path::new("/")).unwrap();
    }

    #[test]
    fn what_is_synced_by_content_and_name_is_all_that_survives_loss_of_power() {
        let (a, b) = ([1; SECTOR], [2; SECTOR]);
        let both = [a, b].concat();
        let whole = left(|fs, file| {
            file.write_at(&both, 0).unwrap();
            file.sync_data().unwrap();
            sync_name(fs);
        });
        assert_eq!(whole, [Some(both.clone())].into());
        let nameless = left(|_, file| {
            file.write_at(&both, 0).unwrap();
            file.sync_data().unwrap();
        });
        assert_eq!(nameless, [None, Some(both.clone())].into());
        let torn = left(|fs, file| {
            file.write_at(&both, 0).unwrap();
            sync_name(fs);
        });
        let zeros = [0; SECTOR];
        for part in [vec![], both, [a, zeros].concat(), [zeros, b].concat(), [zeros, zeros].concat()] {
            assert!(torn.contains(&Some(part)), "torn and reordered");
        }
        assert_eq!(torn.len(), 5);
    }

    #[test]
    fn a_sync_that_works_says_nothing_about_one_that_failed() {
        let lost = left(|fs, file| {
            sync_name(fs);
            file.write_at(&[1; SECTOR], 0).unwrap();
            fs.fail_next(Op::SyncData, libc::EIO);
            assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(libc::EIO));
            file.sync_data().unwrap();
        });
        assert!(lost.len() > 1);
        let written_again = left(|fs, file| {
            sync_name(fs);
            file.write_at(&[1; SECTOR], 0).unwrap();
            fs.fail_next(Op::SyncData, libc::EIO);
            file.sync_data().unwrap_err();
            file.write_at(&[1; SECTOR], 0).unwrap();
            file.sync_data().unwrap();
        });
        assert_eq!(written_again, [Some(vec![1; SECTOR])].into());
    }

    #[test]
    fn a_dead_process_changes_nothing_and_holds_no_lock() {
        let fs = FaultyFs::new(7);
        let file = fs.create_new(Path::new("/f")).unwrap();
        assert!(file.try_lock(true).unwrap());
        fs.plan(Plan { crash_at: Some(fs.count() + 1), ..Plan::default() });
        assert!(fs.create_dir(Path::new("/d")).is_err() && fs.is_dead());
        assert!(file.write_at(b"late", 0).is_err());
        let next = fs.restart(End::Kill);
        assert!(file.write_at(b"later", 0).is_err() && fs.stat(Path::new("/f")).is_err());
        assert_eq!(content(&next), Some(vec![]));
        let file = next.open(Path::new("/f"), Access::ReadWrite).unwrap();
        assert!(file.try_lock(true).unwrap());
        assert!(!next.open(Path::new("/f"), Access::Read).unwrap().try_lock(false).unwrap());
    }

    #[test]
    fn a_full_disk_takes_a_part_first() {
        let fs = FaultyFs::new(3);
        let file = fs.create_new(Path::new("/f")).unwrap();
        fs.plan(Plan { full: fs.count() + 1..fs.count() + 9, ..Plan::default() });
        let error = super::super::write_full(&*file, &[1; 4000], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert!((1..4000).contains(&content(&fs).unwrap().len()));
    }
}
