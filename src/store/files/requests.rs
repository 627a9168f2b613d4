//! What people ask of a run: to go on with an answer, to pause, to end. Small files in the run's folder.
//!
//! Whoever may write to the store makes them, whole or not at all; the run's one writer takes them, and alone writes what
//! came of them into the log. A `resume` names the event that waits, so that each wait is answered once: of two that
//! make the file one does. Taken, it stays without its input, which is then in the log as content policy allows.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::layout::{Layout, is_plain_dir, make_new_dir, read_bounded, replace, stat, sync_dir};
use crate::fs::{Access, Fs, Stat, append_full, temporary_beside, write_full, write_whole};
use crate::model::{EventId, RunId, UnixNanos};
use crate::store::StoreError;

/// The folder of a run's requests, in its own. It stays in the store that it is in: neither
/// export nor import takes it along.
pub const FOLDER: &str = "requests";
/// Longest answer, in bytes of JSON: what an event holds of a text.
pub const MAX_INPUT: usize = 1 << 20;
/// Longest request that is read.
const MAX_REQUEST: u64 = (MAX_INPUT + 4096) as u64;
/// How long a file may be half made.
const MAKING: Duration = Duration::from_secs(10);
const CANCEL: &str = "cancel.json";
const PAUSE: &str = "pause.json";
const RESUME: &str = "resume-";
const ENDING: &str = ".json";
/// The file in a process's journal that grows by a byte with each request to one of its runs.
const BELL: &str = "bell";

/// A run is to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// When that was asked.
    pub at: UnixNanos,
    /// The answer; `None` also once it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// When the run took it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<UnixNanos>,
}

/// A run is to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// When that was asked.
    pub at: UnixNanos,
    /// The run above, which was to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_run_id: Option<RunId>,
}

/// A run is to wait at its next boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Names the request: the event that waits for its sake says so.
    pub id: String,
    /// When that was asked.
    pub at: UnixNanos,
}

/// The requests of one run.
#[derive(Clone, Debug)]
pub struct Requests<'a> {
    fs: &'a dyn Fs,
    dir: PathBuf,
}

impl<'a> Requests<'a> {
    /// Names those of the run in a folder, there or not.
    pub(crate) fn of(fs: &'a dyn Fs, run_dir: &Path) -> Self {
        Self { fs, dir: run_dir.join(FOLDER) }
    }

    /// Names those of a run; `None` where the store does not have it.
    ///
    /// # Errors
    ///
    /// When it cannot be found out whether it has.
    pub(crate) fn find(layout: &'a Layout, run: RunId) -> Result<Option<Self>, StoreError> {
        Ok(layout.find_run(run)?.map(|dir| Self::of(layout.fs(), &dir)))
    }

    /// Tells whether there are any. A link in the folder's place leads elsewhere, and is not followed.
    fn is_any(&self) -> Result<bool, StoreError> {
        is_plain_dir(self.fs, &self.dir).map_err(StoreError::io("read", &self.dir))
    }

    /// Returns the waits that were answered, taken or not.
    pub(crate) fn answered(&self) -> Result<Vec<EventId>, StoreError> {
        if !self.is_any()? {
            return Ok(Vec::new());
        }
        let entries = match self.fs.list(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("read", &self.dir)(error)),
        };
        let wait = |name: &str| name.strip_prefix(RESUME)?.strip_suffix(ENDING)?.parse().ok();
        Ok(entries.iter().filter_map(|entry| wait(&entry.name)).collect())
    }

    /// Reads the answer to a wait.
    pub(crate) fn resume(&self, wait: EventId) -> Result<Option<Resume>, StoreError> {
        self.read(&self.resume_file(wait))
    }

    /// Reads whether the run is to end.
    pub(crate) fn cancel(&self) -> Result<Option<Cancel>, StoreError> {
        self.read(&self.dir.join(CANCEL))
    }

    /// Reads whether the run is to wait.
    pub(crate) fn pause(&self) -> Result<Option<Pause>, StoreError> {
        self.read(&self.dir.join(PAUSE))
    }

    /// Answers a wait; `false` when it has an answer already, which stays.
    pub(crate) fn put_resume(&self, wait: EventId, resume: &Resume) -> Result<bool, StoreError> {
        self.put(&self.resume_file(wait), resume)
    }

    /// Asks the run to end; `false` when it was asked already.
    pub(crate) fn put_cancel(&self, cancel: &Cancel) -> Result<bool, StoreError> {
        self.put(&self.dir.join(CANCEL), cancel)
    }

    /// Asks the run to wait; `false` when it was asked already and has not seen it.
    pub(crate) fn put_pause(&self, pause: &Pause) -> Result<bool, StoreError> {
        self.put(&self.dir.join(PAUSE), pause)
    }

    /// Takes an answer back that came when nothing waited for it any more.
    pub(crate) fn withdraw_resume(&self, wait: EventId) -> Result<(), StoreError> {
        self.remove(&self.resume_file(wait))
    }

    /// Takes the request to wait back, which was seen.
    pub(crate) fn remove_pause(&self) -> Result<(), StoreError> {
        self.remove(&self.dir.join(PAUSE))
    }

    /// Takes the request to end back, of a run that ended before it came.
    pub(crate) fn remove_cancel(&self) -> Result<(), StoreError> {
        self.remove(&self.dir.join(CANCEL))
    }

    /// Takes back what a run was asked that is over: nobody is there to do it. That it was to end stays with one that did,
    /// for those below it.
    pub(crate) fn close(&self, is_cancelled: bool, now: UnixNanos) -> Result<(), StoreError> {
        if !self.is_any()? {
            return Ok(());
        }
        if !is_cancelled {
            self.remove_cancel()?;
        }
        self.remove_pause()?;
        self.settle(None, now)
    }

    /// Leaves of an answer that was taken only that it was.
    pub(crate) fn note_taken(&self, wait: EventId, now: UnixNanos) -> Result<(), StoreError> {
        let path = self.resume_file(wait);
        match self.read::<Resume>(&path)? {
            Some(Resume { at, taken_at: None, .. }) => {
                let taken = Resume { at, input: None, taken_at: Some(now) };
                self.remove_leftovers();
                replace(self.fs, &path, &as_json(&path, &taken)?, true)
            }
            _ => Ok(()),
        }
    }

    /// Leaves of all answers but that to `open`, which waits still, only that they were taken.
    pub(crate) fn settle(&self, open: Option<EventId>, now: UnixNanos) -> Result<(), StoreError> {
        self.remove_leftovers();
        self.answered()?.into_iter().filter(|wait| Some(*wait) != open).try_for_each(|wait| self.note_taken(wait, now))
    }

    /// Removes what those left who died over a request: it may be an answer. Who is making one now gets it to its place all the
    /// same.
    fn remove_leftovers(&self) {
        let is_any = self.is_any().unwrap_or(false);
        let entries = if is_any { self.fs.list(&self.dir).unwrap_or_default() } else { Vec::new() };
        for entry in entries.iter().filter(|entry| entry.name.starts_with('.') && entry.name.ends_with(".tmp")) {
            // The next to take an answer tries again.
            let _ = self.fs.remove_file(&self.dir.join(&entry.name));
        }
    }

    fn resume_file(&self, wait: EventId) -> PathBuf {
        self.dir.join(format!("{RESUME}{wait}{ENDING}"))
    }

    fn read<T: serde::de::DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, StoreError> {
        if !self.is_any()? {
            return Ok(None);
        }
        let text = match read_bounded(self.fs, path, MAX_REQUEST) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("read", path)(error)),
        };
        let read = serde_json::from_str(&text);
        read.map(Some).map_err(|error| StoreError::BadStore { path: path.to_owned(), why: error.to_string() })
    }

    /// Makes a file whole, and on the disk, unless there is one.
    fn put(&self, path: &Path, request: &impl Serialize) -> Result<bool, StoreError> {
        if stat(self.fs, &self.dir).map_err(StoreError::io("read", &self.dir))?.is_some_and(|found| !found.is_dir) {
            let why = "it is no folder, so that the run cannot be asked anything: move it away".to_owned();
            return Err(StoreError::BadStore { path: self.dir.clone(), why });
        }
        match stat(self.fs, path).map_err(StoreError::io("read", path))? {
            Some(found) if self.is_ruin(path, &found) => self.remove(path)?,
            Some(_) => return Ok(false),
            None => {}
        }
        if make_new_dir(self.fs, &self.dir)?
            && let Some(run_dir) = self.dir.parent()
        {
            sync_dir(self.fs, run_dir)?;
        }
        let is_first = self.publish(path, &as_json(path, request)?).map_err(StoreError::io("write", path))?;
        sync_dir(self.fs, &self.dir)?;
        Ok(is_first)
    }

    fn publish(&self, path: &Path, content: &[u8]) -> io::Result<bool> {
        let temporary = temporary_beside(path);
        write_whole(self.fs, &temporary, content, true)?;
        let linked = match self.fs.hard_link(&temporary, path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            // No hard links here: then the first to make the file has it, and who reads half of it looks again.
            Err(_) => self.write_in_place(path, content),
        };
        let _ = self.fs.remove_file(&temporary);
        linked
    }

    /// Makes a file where it stays; one that cannot be made whole goes again.
    fn write_in_place(&self, path: &Path, content: &[u8]) -> io::Result<bool> {
        let file = match self.fs.create_new(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(error),
        };
        let written = write_full(&*file, content, 0).and_then(|()| file.sync_data());
        if written.is_err() {
            let _ = self.fs.remove_file(path);
        }
        written.map(|()| true)
    }

    /// Tells whether a file that was found is what is left of a request whose maker died over it, where there are no hard
    /// links.
    fn is_ruin(&self, path: &Path, found: &Stat) -> bool {
        let age = UnixNanos::now().0.saturating_sub(found.modified);
        let is_old = age >= MAKING.as_nanos().try_into().unwrap_or(u64::MAX);
        is_old && matches!(self.read::<Json>(path), Err(StoreError::BadStore { .. }))
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        if !self.is_any()? {
            return Ok(());
        }
        match self.fs.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("delete", path)(error)),
            _ => Ok(()),
        }
    }
}

fn as_json(path: &Path, request: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec(request);
    json.map_err(|error| StoreError::BadStore { path: path.to_owned(), why: error.to_string() })
}

/// Tells a process that one of its runs is asked something; `false` when it has no journal any more.
pub(crate) fn ring_bell(layout: &Layout, process: RunId) -> Result<bool, StoreError> {
    let journal = layout.journal().join(process.to_string());
    let path = journal.join(BELL);
    match layout.fs().open(&path, Access::Append) {
        Ok(bell) => append_full(&*bell, b".").map(|()| true).map_err(StoreError::io("write", path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("open", path)(error)),
    }
}

/// Returns how often the bell of a process was rung.
pub(crate) fn bell_count(layout: &Layout, process: RunId) -> u64 {
    let path = layout.journal().join(process.to_string()).join(BELL);
    // What cannot be looked at now is looked at the next time.
    stat(layout.fs(), &path).ok().flatten().map_or(0, |found| found.len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFs;

    fn resume(input: &str) -> Resume {
        Resume { at: UnixNanos(1), input: Some(input.into()), taken_at: None }
    }

    #[test]
    fn the_first_answer_to_a_wait_holds_for_good_and_is_taken_out_once_it_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let requests = Requests::of(&OsFs, dir.path());
        let (one, other) = (EventId::fresh(UnixNanos(1)), EventId::fresh(UnixNanos(2)));
        assert_eq!((requests.answered().unwrap(), requests.resume(one).unwrap()), (Vec::new(), None));
        assert!(requests.put_resume(one, &resume("first")).unwrap());
        assert!(!requests.put_resume(one, &resume("second")).unwrap());
        assert!(requests.put_resume(other, &resume("third")).unwrap());
        assert_eq!(requests.resume(one).unwrap(), Some(resume("first")));
        // Of a dead process, the first was taken and the other is waited for.
        std::fs::write(dir.path().join("requests/.resume-x.json.y.tmp"), "an answer, half made").unwrap();
        requests.settle(Some(other), UnixNanos(3)).unwrap();
        let taken = Resume { at: UnixNanos(1), input: None, taken_at: Some(UnixNanos(3)) };
        assert_eq!(requests.resume(one).unwrap(), Some(taken.clone()));
        assert_eq!(requests.resume(other).unwrap(), Some(resume("third")));
        requests.note_taken(one, UnixNanos(4)).unwrap();
        assert_eq!(requests.resume(one).unwrap(), Some(taken), "it was taken once");
        assert!(!requests.put_resume(one, &resume("late")).unwrap());
        let left = std::fs::read_dir(dir.path().join("requests")).unwrap().count();
        assert_eq!((left, requests.answered().unwrap().len()), (2, 2));
    }

    #[test]
    fn a_request_that_was_left_half_made_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let requests = Requests::of(&OsFs, dir.path());
        let wait = EventId::fresh(UnixNanos(1));
        let path = requests.resume_file(wait);
        std::fs::create_dir(dir.path().join(FOLDER)).unwrap();
        std::fs::write(&path, r#"{"at":"#).unwrap();
        assert!(!requests.put_resume(wait, &resume("soon")).unwrap(), "somebody may be at it");
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - 2 * MAKING).unwrap();
        assert!(requests.put_resume(wait, &resume("later")).unwrap());
        assert_eq!(requests.resume(wait).unwrap(), Some(resume("later")));
    }

    #[test]
    fn a_link_in_the_place_of_the_folder_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (run, elsewhere) = (dir.path().join("run"), dir.path().join("elsewhere"));
        std::fs::create_dir(&run).unwrap();
        let wait = EventId::fresh(UnixNanos(1));
        let theirs = Requests::of(&OsFs, &elsewhere);
        assert!(theirs.put_resume(wait, &resume("theirs")).unwrap());
        std::os::unix::fs::symlink(elsewhere.join(FOLDER), run.join(FOLDER)).unwrap();
        let requests = Requests::of(&OsFs, &run);
        assert_eq!((requests.answered().unwrap(), requests.resume(wait).unwrap()), (Vec::new(), None));
        let error = requests.put_cancel(&Cancel { at: UnixNanos(1), parent_run_id: None }).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("requests: it is no folder, so that the run cannot be asked anything: move it away")
        );
        requests.settle(None, UnixNanos(2)).unwrap();
        requests.withdraw_resume(wait).unwrap();
        assert_eq!(theirs.resume(wait).unwrap(), Some(resume("theirs")));
        assert_eq!(std::fs::read_dir(elsewhere.join(FOLDER)).unwrap().count(), 1);
    }

    #[test]
    fn without_hard_links_a_request_is_made_once_and_not_by_half() {
        use crate::fs::faulty::{FaultyFs, Op};
        let fs = FaultyFs::new(1);
        let requests = Requests::of(&fs, Path::new("/"));
        let path = Path::new("/resume");
        fs.fail_next(Op::Write, libc::ENOSPC);
        assert!(requests.write_in_place(path, b"{}").is_err());
        assert!(stat(&fs, path).unwrap().is_none());
        assert!(requests.write_in_place(path, b"{}").unwrap() && !requests.write_in_place(path, b"{}").unwrap());
    }

    #[test]
    fn a_pause_is_asked_once_until_it_is_seen_and_what_is_no_request_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let requests = Requests::of(&OsFs, dir.path());
        let pause = |id: &str| Pause { id: id.to_owned(), at: UnixNanos(1) };
        assert!(requests.put_pause(&pause("a")).unwrap() && !requests.put_pause(&pause("b")).unwrap());
        assert_eq!(requests.pause().unwrap(), Some(pause("a")));
        requests.remove_pause().unwrap();
        requests.remove_pause().unwrap();
        assert!(requests.put_pause(&pause("b")).unwrap());
        std::fs::write(dir.path().join("requests/cancel.json"), "{").unwrap();
        assert!(matches!(requests.cancel().unwrap_err(), StoreError::BadStore { .. }));
        std::fs::write(dir.path().join("requests/cancel.json"), vec![b' '; MAX_REQUEST as usize + 1]).unwrap();
        assert!(requests.cancel().is_err(), "longer than any");
    }
}
