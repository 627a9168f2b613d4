//! What became of the spans for one target, over all processes of the store.
//!
//! `<store>/forward/<reader>/state.json` is replaced whole, by whoever holds the lock beside it. Counts that could not
//! be written now, because somebody else is at it or the disk is full, are kept and written the next time.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::letters::Letters;
use crate::fs::{OsFs, create_dirs, read_bytes, replace};
use crate::model::UnixNanos;

/// The format of the file.
const FORMAT: u32 = 1;
/// More than a state ever has.
const MAX_BYTES: u64 = 1 << 20;

/// Counts of spans by reason.
pub type Reasons = BTreeMap<String, u64>;

/// What became of spans that were for a target. Counted in ended spans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// The peer has them.
    pub sent: u64,
    /// The peer does not want them: `rejected_by_peer`, some of a request that it took; `refused_by_peer`, whole
    /// requests, which are dead letters now.
    pub refused: Reasons,
    /// Were not to be sent: `sampler` by `OTEL_TRACES_SAMPLER`, `keep` by the rules for what is forwarded.
    pub not_kept: Reasons,
    /// Lost for this target: `upstream_behind` at the journals' bound.
    pub dropped: Reasons,
    /// Of those refused, in letters that had to go at the dead letters' bound, or that could not be written.
    pub letters_lost: u64,
    /// Dead letters' spans that were sent again and taken.
    pub resent: u64,
}

impl Counts {
    pub(super) fn add(&mut self, more: &Self) {
        fn merge(into: &mut Reasons, from: &Reasons) {
            for (reason, n) in from {
                *into.entry(reason.clone()).or_default() += n;
            }
        }
        self.sent += more.sent;
        self.letters_lost += more.letters_lost;
        self.resent += more.resent;
        merge(&mut self.refused, &more.refused);
        merge(&mut self.not_kept, &more.not_kept);
        merge(&mut self.dropped, &more.dropped);
    }

    /// Returns how many spans are done with, in one way or another.
    pub fn settled(&self) -> u64 {
        let sum = |reasons: &Reasons| reasons.values().sum::<u64>();
        self.sent + sum(&self.refused) + sum(&self.not_kept) + sum(&self.dropped)
    }
}

/// Counts `n` spans under a reason.
pub(super) fn count(reasons: &mut Reasons, reason: &str, n: u64) {
    if n > 0 {
        *reasons.entry(reason.to_owned()).or_default() += n;
    }
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When.
    pub time: UnixNanos,
    /// What.
    pub reason: String,
}

/// What is kept of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    format: u32,
    /// The endpoint without credentials and query.
    pub target: String,
    /// How it is spoken to: `grpc`, `http/protobuf`, `http/json`.
    pub protocol: String,
    /// It was sent headers that tell tenants apart, which are not here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_tenant: bool,
    /// What became of its spans.
    #[serde(flatten)]
    pub counts: Counts,
    /// What went wrong last, if nothing was taken since.
    pub last_trouble: Option<Trouble>,
}

/// The folder of one target.
#[derive(Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    shown: String,
    protocol: &'static str,
    has_tenant: bool,
    /// Not written yet.
    unwritten: Counts,
    trouble: Option<Option<Trouble>>,
}

impl Ledger {
    /// Opens the folder of the reader `name`; it is made when there is something to write.
    pub fn new(store: &Path, name: &str, shown: &str, protocol: &'static str) -> Self {
        Self {
            dir: folder(store, name),
            shown: shown.to_owned(),
            protocol,
            has_tenant: false,
            unwritten: Counts::default(),
            trouble: None,
        }
    }

    /// The same of a target that is sent headers which tell tenants apart.
    pub fn of_tenant(self, has_tenant: bool) -> Self {
        Self { has_tenant, ..self }
    }

    /// Returns the target as it may be shown.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Returns how it is spoken to.
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    /// Notes what became of spans.
    pub fn count(&mut self, counts: &Counts) {
        self.unwritten.add(counts);
    }

    /// Notes what goes wrong.
    pub fn note_trouble(&mut self, reason: &str) {
        self.trouble = Some(Some(Trouble { time: UnixNanos::now(), reason: reason.to_owned() }));
    }

    /// Notes that the peer takes spans.
    pub fn note_success(&mut self) {
        self.trouble = Some(None);
    }

    /// Writes what was noted. On an error, and while somebody else writes, it is kept for the next time.
    pub fn write(&mut self) -> io::Result<()> {
        if self.unwritten == Counts::default() && self.trouble.is_none() {
            return Ok(());
        }
        self.update()
    }

    /// Makes sure that the target can be listed.
    pub fn create(&mut self) -> io::Result<()> {
        match read(&self.dir)? {
            Some(_) => Ok(()),
            None => self.update(),
        }
    }

    fn update(&mut self) -> io::Result<()> {
        create_dirs(&OsFs, &self.dir)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(self.dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(()),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        let old = match read(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(error),
            // One that is broken is begun anew: what it counted is gone, and nothing else hangs on it.
            read => read.ok().flatten(),
        };
        let (mut counts, mut last_trouble) = old.map(|old| (old.counts, old.last_trouble)).unwrap_or_default();
        counts.add(&self.unwritten);
        if let Some(trouble) = &self.trouble {
            last_trouble.clone_from(trouble);
        }
        let (target, protocol) = (self.shown.clone(), self.protocol.to_owned());
        let state = State { format: FORMAT, target, protocol, has_tenant: self.has_tenant, counts, last_trouble };
        let json = serde_json::to_vec_pretty(&state).map_err(io::Error::other)?;
        replace(&OsFs, &state_file(&self.dir), &json, false)?;
        (self.unwritten, self.trouble) = (Counts::default(), None);
        Ok(())
    }
}

/// Returns the folder of the reader `name`.
pub(super) fn folder(store: &Path, name: &str) -> PathBuf {
    store.join("forward").join(name)
}

/// Returns the dead letters of the reader `name`.
pub(super) fn letters(store: &Path, name: &str) -> Letters {
    Letters::new(folder(store, name).join("dead-letters"))
}

fn state_file(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

/// Reads what is kept of the target whose folder this is; `None` when nothing is.
pub(super) fn read(dir: &Path) -> io::Result<Option<State>> {
    let bytes = match read_bytes(&OsFs, &state_file(dir), MAX_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let state: State = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    match state.format {
        FORMAT => Ok(Some(state)),
        newer => {
            let why = format!("format {newer}; this version reads {FORMAT}");
            Err(io::Error::new(io::ErrorKind::Unsupported, why))
        }
    }
}

/// Returns the names of the readers that have a folder.
pub(super) fn names(store: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(store.join("forward")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_writers_and_a_locked_or_broken_file_loses_none() {
        let store = tempfile::tempdir().unwrap();
        let open = || Ledger::new(store.path(), "forward-1", "http://h/v1/traces", "http/protobuf");
        let sent = |sent| Counts { sent, ..Counts::default() };
        let (mut one, mut two) = (open(), open());
        one.count(&sent(3));
        one.note_trouble("no route");
        one.write().unwrap();
        let mut refused = Counts::default();
        count(&mut refused.refused, "refused_by_peer", 2);
        two.count(&refused);
        let dir = folder(store.path(), "forward-1");
        let lock = fs::File::open(dir.join("lock")).unwrap();
        lock.lock().unwrap();
        two.write().unwrap();
        let state = read(&dir).unwrap().unwrap();
        assert_eq!((state.counts.settled(), state.last_trouble.unwrap().reason.as_str()), (3, "no route"));
        drop(lock);
        two.note_success();
        two.write().unwrap();
        let state = read(&dir).unwrap().unwrap();
        assert_eq!((state.counts.settled(), state.last_trouble), (5, None));
        fs::write(dir.join("state.json"), "{").unwrap();
        assert!(read(&dir).is_err());
        one.count(&sent(1));
        one.write().unwrap();
        assert_eq!(read(&dir).unwrap().unwrap().counts, sent(1));
        assert_eq!(names(store.path()).unwrap(), ["forward-1"]);
        let newer = "{\"format\": 2}";
        fs::write(dir.join("state.json"), newer).unwrap();
        one.count(&sent(1));
        assert!(one.write().is_err());
        assert_eq!(fs::read_to_string(dir.join("state.json")).unwrap(), newer);
    }
}
