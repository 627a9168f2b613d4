//! Under which name a bridge writes: that of one that ended and left runs under way, else a new one.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::upstreams::Outlets;
use crate::error::Error;
use crate::journal::{self, Durability, JournalReader, JournalWriter, Options};
use crate::model::{RunId, UnixNanos};
use crate::pipeline::cost::Pricer;
use crate::pipeline::worker::STORE_READER;
use crate::recovery::{self, Adopted};
use crate::sinks::store::StoreSink;
use crate::sources::ring::Ring;
use crate::store::files::FilesWriter;
use crate::store::files::layout::{Layout, StoreFile};
use crate::telemetry::warn;

/// So long a command is waited for that takes in what a dead bridge left, which may be all that its journal holds.
const OTHERS_LIMIT: Duration = Duration::from_secs(30);
/// So long one is waited for that has taken a new journal for a dead one's.
const MOMENT: Duration = Duration::from_secs(5);
/// After so long it is said who is waited for.
const SAID_AFTER: Duration = Duration::from_secs(1);
const OTHERS_POLL: Duration = Duration::from_millis(5);

/// What becomes of the runs that are under way when this process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// The next bridge goes on with them.
    LeftOpen,
    /// They are over: nobody goes on with them.
    Over,
    /// The same if a server has the store open by then, which goes on only with what is over; else the next bridge does.
    OverBesideServer,
}

/// Tells whether a server, or an import, other than `own` has the store open.
pub(super) fn is_served(layout: &Layout, own: &str) -> bool {
    let dir = layout.journal();
    let found = journal::list_processes(&dir).unwrap_or_default();
    let is_server = |name: &str| journal::is_resumable(&dir, name) && journal::is_served(&dir, name);
    found.iter().any(|found| found.alive && found.name != own && is_server(&found.name))
}

/// A journal with this process's lock on it, and the run store at the place where it stopped.
#[derive(Debug)]
pub(super) struct Identity {
    pub layout: Layout,
    pub process: RunId,
    pub journal: JournalWriter,
    pub reader: JournalReader,
    pub sink: StoreSink<FilesWriter>,
    pub durability: Durability,
    pub at_end: AtEnd,
    /// Who reads the journal beside the run store: nobody, to begin with.
    pub outlets: Outlets,
}

impl Identity {
    /// Goes on with the journal of a bridge that ended, or begins one.
    pub fn take(layout: Layout, durability: Durability, journal_bytes: u64) -> Result<Self, Error> {
        Self::taken(layout, durability, journal_bytes, AtEnd::LeftOpen)
    }

    /// The same for an import. A server that starts meanwhile waits for one that goes on with another's journal: with one of its own, the
    /// runs under way would be written by both.
    pub fn of_import(layout: Layout, durability: Durability, journal_bytes: u64) -> Result<Self, Error> {
        Self::taken(layout, durability, journal_bytes, AtEnd::OverBesideServer)
    }

    fn taken(layout: Layout, durability: Durability, journal_bytes: u64, at_end: AtEnd) -> Result<Self, Error> {
        let options = Options { durability, max_bytes: journal_bytes, ..Options::default() };
        let (dir, is_import) = (layout.journal(), at_end != AtEnd::LeftOpen);
        let left = Self::left_behind(&layout, &options, is_import)?;
        let goes_on = left.is_some();
        let (process, mut journal) = match left {
            Some(taken) => taken,
            None => {
                let process = RunId::fresh(UnixNanos::now());
                let journal = JournalWriter::create(&dir, &process.to_string(), options)?;
                journal::mark_resumable(&dir, &process.to_string())?;
                (process, journal)
            }
        };
        journal.serve(is_import && goes_on)?;
        // Many senders, many runs: those that come whole are written many to a file.
        let mut identity = Self::with(layout, process, journal, options, FilesWriter::with_packs)?;
        recovery::take_up_runs(&identity.layout, process, &mut identity.sink)?;
        // What is told again may have been written to its run's folder, and not yet to the log of all runs.
        identity.sink.write_again_up_to(identity.journal.committed_seq());
        Ok(Self { at_end, ..identity })
    }

    /// Begins a journal that nobody goes on with: its runs are over with the process.
    pub fn of_command(layout: Layout, durability: Durability, journal_bytes: u64) -> Result<Self, Error> {
        let options = Options { durability, max_bytes: journal_bytes, ..Options::default() };
        let (dir, process) = (layout.journal(), RunId::fresh(UnixNanos::now()));
        let journal = JournalWriter::create(&dir, &process.to_string(), options)?;
        journal::mark_command(&dir, &process.to_string())?;
        Ok(Self { at_end: AtEnd::Over, ..Self::with(layout, process, journal, options, |writer| writer)? })
    }

    fn with(
        layout: Layout,
        process: RunId,
        journal: JournalWriter,
        options: Options,
        change: impl FnOnce(FilesWriter) -> FilesWriter,
    ) -> Result<Self, Error> {
        let reader = open_reader(&layout, process)?;
        // What is written is brought to the disk before the journal gives it up, not run by run.
        let writer = change(FilesWriter::new(layout.clone(), process, false));
        let recorded = layout.read()?.record;
        let sink = StoreSink::new(writer, process).with_pricer(Pricer::of_store(&layout).0).recording(recorded);
        let outlets = Outlets::none(options.max_bytes);
        Ok(Self {
            layout,
            process,
            journal,
            reader,
            sink,
            durability: options.durability,
            at_end: AtEnd::LeftOpen,
            outlets,
        })
    }

    fn left_behind(
        layout: &Layout,
        options: &Options,
        is_import: bool,
    ) -> Result<Option<(RunId, JournalWriter)>, Error> {
        let dir = layout.journal();
        let (since, mut is_said) = (Instant::now(), false);
        loop {
            let mut held = None;
            for found in journal::list_processes(&dir)? {
                let Ok(process) = found.name.parse::<RunId>() else { continue };
                if !journal::is_resumable(&dir, &found.name) {
                    continue;
                }
                if journal::is_served(&dir, &found.name) {
                    // Several imports go on beside each other.
                    if !is_import && journal::is_imported_into(&dir, &found.name) {
                        held = Some(found.name);
                    }
                    continue;
                }
                match JournalWriter::reopen(&dir, &found.name, *options) {
                    Ok((writer, _)) => return Ok(Some((process, writer))),
                    // Another bridge was faster, or a command is at it: with a new journal, the runs under way would be two each.
                    Err(error) if error.is_locked() => held = Some(found.name),
                    Err(error) if error.is_gone() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let Some(name) = held else { return Ok(None) };
            if since.elapsed() >= OTHERS_LIMIT {
                warn(format_args!(
                    "{}: another process still has this journal of a server before; it is not waited for any longer: what it \
                     holds is taken in when that process lets go, and a run that goes on meanwhile may show as two",
                    dir.join(name).display()
                ));
                return Ok(None);
            }
            if since.elapsed() >= SAID_AFTER && !is_said {
                is_said = true;
                warn(format_args!(
                    "{}: another process, an import perhaps, takes in what the server before had not written; waiting up to {} s \
                     for it",
                    dir.join(name).display(),
                    OTHERS_LIMIT.as_secs()
                ));
            }
            std::thread::sleep(OTHERS_POLL);
        }
    }
}

/// Opens the journal for the run store. Who looks for what dead processes left may have taken a journal for one in the moment in which it
/// was made, and lets go of it again.
fn open_reader(layout: &Layout, process: RunId) -> Result<JournalReader, Error> {
    let until = Instant::now() + MOMENT;
    loop {
        match JournalReader::open(&layout.journal(), &process.to_string(), STORE_READER) {
            Err(error) if error.is_locked() && Instant::now() < until => std::thread::sleep(OTHERS_POLL),
            opened => return Ok(opened?),
        }
    }
}

/// Takes in what dead processes of agents left, beside the server's own work.
pub(super) fn adopt_others(layout: Layout, store: StoreFile) -> mpsc::Receiver<()> {
    let (at_work, adopting) = mpsc::channel();
    let adopt = move || {
        let _at_work = at_work;
        Ring::remove_orphans();
        if let Ok(adopted) = recovery::adopt_dead(&layout, &store) {
            let lost = Adopted { missing: Vec::new(), ..adopted };
            lost.warnings().iter().for_each(|warning| warn(format_args!("{warning}")));
        }
    };
    // Without a thread the next process does it.
    let _ = std::thread::Builder::new().name("adopt".to_owned()).spawn(adopt);
    adopting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_waits_for_who_takes_in_what_one_before_it_left_and_not_for_another_server() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        layout.open_or_create().unwrap();
        let take = || Identity::take(layout.clone(), Durability::Process, 64 << 20).unwrap();
        let first = take();
        let process = first.process;
        let other = take();
        assert_ne!(other.process, process);
        assert!(is_served(&layout, &other.process.to_string()));
        drop(first);
        let (dir, name) = (layout.journal(), process.to_string());
        let (command, _) = JournalWriter::reopen(&dir, &name, Options::default()).unwrap();
        assert!(!is_served(&layout, &other.process.to_string()));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                drop(command);
            });
            assert_eq!(take().process, process);
        });
    }

    #[test]
    fn a_server_waits_for_an_import_that_goes_on_with_what_one_before_it_left_and_another_import_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        layout.open_or_create().unwrap();
        let take = || Identity::take(layout.clone(), Durability::Process, 64 << 20).unwrap();
        let import = || Identity::of_import(layout.clone(), Durability::Process, 64 << 20).unwrap();
        let first = take();
        let process = first.process;
        drop(first);
        let (goes_on, other) = (import(), import());
        assert_eq!(goes_on.process, process);
        assert_ne!(other.process, process);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(300));
                drop(goes_on);
            });
            assert_eq!(take().process, process);
        });
        // What an import has begun itself is its own.
        assert_ne!(take().process, other.process);
    }
}
