//! Metrics that dead processes could not send: their last request, and the runs that were in none.
//!
//! The request is sent as it was made. The runs that are in none, because their process was killed before it collected
//! them or because they crashed with it, are added up from the store, as a process of its own that never was at work.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;

use super::export::{Line, Waiting, waiting};
use super::ledger::{self, Ledger};
use super::meters::Meters;
use super::parts::dated;
use super::{MetricsError, Settings};
use crate::error::with_causes;
use crate::fs::Fs;
use crate::journal::lock::is_held;
use crate::model::otlp::{Resource, Value};
use crate::model::{RunId, RunStatus, UnixNanos};
use crate::sinks::tally::Tally;
use crate::store::files::FilesReader;
use crate::store::files::layout::Layout;
use crate::store::{RunReader, StoreError};
use crate::telemetry::warn;

/// So many dead processes may have left something, over all peers, and so many bytes; beyond it the oldest is given up.
const MAX_LEFT: usize = 256;
const MAX_LEFT_BYTES: u64 = 64 << 20;

/// Where the ledgers of one store are, for one peer.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub layout: Layout,
    /// The process that counts.
    pub process: RunId,
    /// What dead processes left is in the store, as far as it can be.
    pub is_taken_in: Arc<AtomicBool>,
}

impl Place {
    fn all(&self) -> PathBuf {
        self.layout.root().join("metrics")
    }

    fn of(&self, peer: &str) -> PathBuf {
        self.all().join(peer)
    }

    /// Returns where the ledger of this process for a peer is.
    pub fn own(&self, peer: &str) -> PathBuf {
        self.of(peer).join(self.process.to_string())
    }

    /// Names the processes but this one that have a ledger for a peer; the oldest first.
    fn others(&self, peer: &str) -> io::Result<Vec<RunId>> {
        let mut others = processes_in(self.layout.fs(), &self.of(peer))?;
        others.retain(|process| *process != self.process);
        Ok(others)
    }

    /// Tells whether a process may live, for all that its journal says. One that is taken over looks alive as well.
    fn may_live(&self, process: RunId) -> bool {
        is_held(self.layout.fs(), &self.layout.journal().join(process.to_string())).unwrap_or(true)
    }
}

/// Sends what dead processes left for one peer.
#[derive(Debug)]
pub(super) struct Leftovers {
    place: Place,
    peer: String,
    settings: Settings,
}

/// Why what a process left cannot be sent.
#[derive(Debug)]
enum LeftError {
    Ledger { dir: PathBuf, source: io::Error },
    Store(StoreError),
    Metrics(MetricsError),
}

impl LeftError {
    fn of_ledger(dir: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Ledger { dir: dir.to_owned(), source }
    }
}

impl fmt::Display for LeftError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ledger { dir, source } => write!(f, "{}: {source}", dir.display()),
            Self::Store(error) => write!(f, "{}", with_causes(error)),
            Self::Metrics(error) => error.fmt(f),
        }
    }
}

impl From<StoreError> for LeftError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What became of what one process left.
enum Step {
    /// It is gone, or somebody else's.
    Done,
    /// Its runs are not all in the store yet.
    NotYet,
    /// The peer does not take it now.
    Unreachable,
}

impl Leftovers {
    /// Of the peer by that name.
    pub fn new(place: Place, peer: String, settings: Settings) -> Self {
        let left = Self { place, peer, settings };
        left.keep_bounds();
        left
    }

    /// Sends it. Tells whether something is not in the store yet and may soon be.
    pub fn send(&mut self, line: &Line) -> bool {
        // Asked before anything is looked at, so that what it says holds for all of that.
        let is_final = self.place.is_taken_in.load(Ordering::Acquire);
        let Ok(others) = self.place.others(&self.peer) else { return false };
        let (mut waits, mut is_left) = (false, false);
        for process in others {
            match self.send_of(process, line) {
                Ok(Step::Done) => {}
                Ok(Step::NotYet) => (waits, is_left) = (true, true),
                Ok(Step::Unreachable) => {
                    is_left = true;
                    break;
                }
                Err(error) => {
                    is_left = true;
                    warn(format_args!("metrics that process {process} left are not sent: {error}"));
                }
            }
        }
        if is_left {
            self.keep_bounds();
        }
        waits && !is_final
    }

    fn send_of(&self, process: RunId, line: &Line) -> Result<Step, LeftError> {
        let dir = self.place.of(&self.peer).join(process.to_string());
        let failed = LeftError::of_ledger(&dir);
        let mut ledger = match Ledger::take_over(self.place.layout.shared_fs(), dir.clone()) {
            Ok(Some(ledger)) => ledger,
            Ok(None) => return Ok(Step::Done),
            Err(error) => return self.unreadable(process, &dir, error).map_err(failed),
        };
        if !ledger.is_complete() {
            let Some(rest) = self.rest(process, &ledger)? else { return Ok(Step::NotYet) };
            ledger.complete(rest).map_err(&failed)?;
        }
        let now = UnixNanos::now().0;
        let requests = ledger.requests().iter().filter_map(|bytes| {
            let request = ExportMetricsServiceRequest::decode(bytes.as_slice()).ok()?;
            Some(waiting(dated(request, now)))
        });
        let mut requests = requests.flatten().collect();
        let sent = line.deliver(&mut requests, true);
        if !requests.is_empty() {
            // Some of them may have been taken.
            ledger.settle(requests.iter()).map_err(&failed)?;
            return Ok(Step::Unreachable);
        }
        if !sent.is_delivered() {
            warn(format_args!("metrics that process {process} left are given up: {sent}"));
        }
        ledger.remove().map_err(&failed)?;
        Ok(Step::Done)
    }

    /// Makes the request of the runs that are in none; `None` when they are not in the store yet.
    fn rest(&self, process: RunId, ledger: &Ledger) -> Result<Option<Vec<Waiting>>, LeftError> {
        let layout = &self.place.layout;
        if !crate::recovery::is_taken_in(layout, process) {
            return Ok(None);
        }
        let reader = FilesReader::of(layout.clone())?;
        let mut runs = reader.stored_runs()?;
        runs.retain(|run| run.writer == Some(process));
        if runs.iter().any(|run| run.status == RunStatus::Running) {
            return Ok(None);
        }
        // Once more, since the logs are read behind it: whoever takes the process over now is closing its runs.
        if !crate::recovery::is_taken_in(layout, process) {
            return Ok(None);
        }
        let counted = ledger.runs().map_err(LeftError::of_ledger(&self.place.of(&self.peer)))?;
        // One that waits for an answer is not over.
        runs.retain(|run| !run.status.is_open() && !counted.contains(&run.run_id));
        if runs.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let resource = renamed(ledger.resource());
        let meters = Meters::new(Some(&resource), &self.settings, self.settings.temporality.to_sdk());
        // In the order in which they came, so that the same series are told apart at the bound.
        for run in runs.iter().rev() {
            match reader.get_events(run.run_id, 0) {
                Ok(events) => meters.count(&Tally::of_log(run.run_id, &events)),
                // One that is damaged or was removed costs nobody else's numbers.
                Err(error) => warn(format_args!("run {} is in no metrics: {}", run.run_id, with_causes(&error))),
            }
        }
        let collected = meters.collect().map_err(LeftError::Metrics);
        meters.end();
        Ok(Some(waiting(collected?.0)))
    }

    /// What becomes of a ledger that says nothing. An error is told, and the ledger stays.
    fn unreadable(&self, process: RunId, dir: &Path, error: io::Error) -> io::Result<Step> {
        match error.kind() {
            // Its process is just making it, since its journal is there before,
            io::ErrorKind::NotFound if self.place.may_live(process) => Ok(Step::Done),
            // or died before it counted anything, or somebody was deleting it.
            io::ErrorKind::NotFound => self.give_up(dir),
            // Another user's.
            io::ErrorKind::PermissionDenied => Ok(Step::Done),
            io::ErrorKind::InvalidData => {
                let shown = dir.display();
                warn(format_args!("{shown} is damaged: what its process had counted and not sent is given up"));
                self.give_up(dir)
            }
            _ => Err(error),
        }
    }

    fn give_up(&self, dir: &Path) -> io::Result<Step> {
        let fs = self.place.layout.fs();
        // Its process lives when that cannot be had.
        if let Some(_held) = ledger::locked_file(fs, dir)? {
            ledger::remove(fs, dir)?;
        }
        Ok(Step::Done)
    }

    /// Gives the oldest up where dead processes have left more than they may, for this peer or another.
    fn keep_bounds(&self) {
        let fs = self.place.layout.fs();
        let peers = fs.list(&self.place.all()).unwrap_or_default();
        let mut left: Vec<(RunId, PathBuf, u64)> = Vec::new();
        for peer in peers.iter().filter(|peer| peer.is_dir) {
            for process in self.place.others(&peer.name).unwrap_or_default() {
                let dir = self.place.of(&peer.name).join(process.to_string());
                if !matches!(ledger::locked_file(fs, &dir), Ok(Some(_))) || self.place.may_live(process) {
                    continue;
                }
                let bytes = bytes_in(fs, &dir);
                left.push((process, dir, bytes));
            }
        }
        // By the moment when the process began.
        left.sort_unstable();
        let (mut count, mut total) = (left.len(), left.iter().map(|(_, _, bytes)| bytes).sum::<u64>());
        for (process, dir, bytes) in left {
            if count <= MAX_LEFT && total <= MAX_LEFT_BYTES {
                return;
            }
            if self.give_up(&dir).is_ok() {
                (count, total) = (count - 1, total - bytes);
                warn(format_args!(
                    "more than {MAX_LEFT} dead processes, or {MAX_LEFT_BYTES} bytes of theirs, wait for metrics to be sent: \
                     what process {process} had counted and not sent is given up; its runs are in the store"
                ));
            }
        }
    }
}

/// Names the processes that have a ledger in a directory, the oldest first.
fn processes_in(fs: &dyn Fs, dir: &Path) -> io::Result<Vec<RunId>> {
    let entries = match fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let named = entries.into_iter().filter(|entry| entry.is_dir).filter_map(|entry| entry.name.parse().ok());
    let mut processes: Vec<RunId> = named.collect();
    processes.sort_unstable();
    Ok(processes)
}

fn bytes_in(fs: &dyn Fs, dir: &Path) -> u64 {
    let entries = fs.list(dir).unwrap_or_default();
    entries.iter().filter_map(|entry| fs.stat(&dir.join(&entry.name)).ok()).map(|found| found.len).sum()
}

/// Returns the resource with another instance in it: its series begin at 0 beside those of the process.
fn renamed(mut resource: Resource) -> Resource {
    let instance = RunId::fresh(UnixNanos::now()).to_string();
    for attribute in resource.attributes.iter_mut().filter(|attribute| attribute.key == "service.instance.id") {
        attribute.value = Some(Value::String(instance.clone()).into());
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::forward::tests::peers::{self, HttpPeer};
    use crate::sinks::forward::{Signal, Target};

    const PEER: &str = "0123456789ab";

    fn place(root: &Path) -> Place {
        let layout = Layout::new(root);
        layout.open_or_create().unwrap();
        let process = RunId::fresh(UnixNanos::now());
        Place { layout, process, is_taken_in: Arc::new(AtomicBool::new(true)) }
    }

    fn process(n: u64) -> RunId {
        RunId::from_parts(n, [7; 10])
    }

    /// A process that counted something, and died before the peer had it.
    fn die(place: &Place, process: RunId) -> PathBuf {
        let dir = place.of(PEER).join(process.to_string());
        let mut ledger = Ledger::create(place.layout.shared_fs(), dir.clone(), &Resource::default()).unwrap();
        let meters = Meters::new(None, &Settings::default(), opentelemetry_sdk::metrics::Temporality::Cumulative);
        meters.instruments.records(crate::model::outcome::Outcome::Stored, "", 7);
        ledger.write_ahead(waiting(meters.collect().unwrap().0).iter()).unwrap();
        meters.end();
        dir
    }

    fn line(peer: &HttpPeer) -> Line {
        let target = Target::from_url_for(Signal::Metrics, &peer.url()).unwrap();
        Line::new(target, std::time::Duration::from_secs(10), 2000).unwrap()
    }

    fn left(place: &Place) -> Leftovers {
        Leftovers::new(place.clone(), PEER.to_owned(), Settings::default())
    }

    #[test]
    fn beyond_the_bound_the_oldest_is_given_up_whoever_it_was_for() {
        let root = tempfile::tempdir().unwrap();
        let place = place(root.path());
        let others = place.all().join("ba9876543210");
        for n in 0..MAX_LEFT as u64 + 3 {
            let dir = if n % 2 == 0 { place.of(PEER) } else { others.clone() };
            Ledger::create(place.layout.shared_fs(), dir.join(process(n).to_string()), &Resource::default()).unwrap();
        }
        let lives = Ledger::create(place.layout.shared_fs(), place.own(PEER), &Resource::default()).unwrap();
        left(&place);
        let left = [processes_in(place.layout.fs(), &others), processes_in(place.layout.fs(), &place.of(PEER))];
        let mut left: Vec<RunId> = left.into_iter().flat_map(Result::unwrap).collect();
        left.sort_unstable();
        let mut expected: Vec<RunId> = (3..MAX_LEFT as u64 + 3).map(process).collect();
        expected.push(place.process);
        assert_eq!(left, expected);
        drop(lives);
    }

    #[test]
    fn what_a_dead_process_left_is_sent_once_the_peer_takes_it() {
        let root = tempfile::tempdir().unwrap();
        let place = place(root.path());
        let dir = die(&place, process(1));
        let away = Target::from_url_for(Signal::Metrics, "http://127.0.0.1:1").unwrap();
        let away = Line::new(away, std::time::Duration::from_millis(50), 2000).unwrap();
        assert!(!left(&place).send(&away));
        assert!(dir.exists());
        let taking = HttpPeer::new(|_| Some(peers::response("200 OK", "", b"")));
        left(&place).send(&line(&taking));
        left(&place).send(&line(&taking));
        assert_eq!(taking.seen().len(), 1);
        assert!(!dir.exists());
    }

    #[test]
    fn what_the_peer_refuses_is_given_up_but_not_over_credentials() {
        let root = tempfile::tempdir().unwrap();
        let place = place(root.path());
        let dir = die(&place, process(1));
        left(&place).send(&line(&HttpPeer::new(|_| Some(peers::response("401 Who", "", b"")))));
        assert!(dir.exists());
        left(&place).send(&line(&HttpPeer::new(|_| Some(peers::response("400 No", "", b"")))));
        assert!(!dir.exists());
    }

    #[test]
    fn a_damaged_ledger_costs_itself_alone() {
        let root = tempfile::tempdir().unwrap();
        let place = place(root.path());
        let (damaged, empty, whole) =
            (die(&place, process(1)), place.of(PEER).join(process(2).to_string()), die(&place, process(3)));
        std::fs::write(damaged.join("state"), "RSPNMET1 and nothing more").unwrap();
        // Its process died while it made it.
        std::fs::create_dir(&empty).unwrap();
        let peer = HttpPeer::new(|_| Some(peers::response("200 OK", "", b"")));
        left(&place).send(&line(&peer));
        assert_eq!(peer.seen().len(), 1);
        assert_eq!([damaged, empty, whole].map(|dir| dir.exists()), [false; 3]);
    }
}
