//! The reader of the journals that sends what they hold to one OTLP peer.
//!
//! It has its own place in the journal, so a peer that is down costs disk and nothing else. Only ended spans are
//! sent, and of these what the sampler and the rules for whole runs let through. What the peer refuses for good is
//! put aside as dead letters; what it cannot take now is tried again, without end. It also goes on with the journals
//! of dead processes. All of it is counted a target: every ended span is sent, refused, not kept or dropped in the
//! end, and waits until then.
//!
//! [`targets`] tells how things stand for the targets of a store, [`retry`] sends dead letters again.

mod courier;
mod ledger;
mod letters;
mod place;
mod sampler;
mod size;
mod status;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender as Channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use self::courier::Courier;
use self::ledger::Ledger;
use self::place::{Choice, JOURNAL_DAMAGED, Place, Shared, UPSTREAM_BEHIND};
use super::forward::{Protocol, Sender, Signal, Target};
use super::keep::{Board, Keep};
use crate::config::Settings;
use crate::journal::{FrameKind, JournalReader, list_processes, remove_journal};
use crate::model::{RunId, RunStatus, RunSummary};
use crate::pipeline::worker::{Behind, STORE_READER};
use crate::sources::ring::Ring;
use crate::store::files::FilesReader;
use crate::store::{Listed, Query, RunReader};
use crate::telemetry::{Forwarded, Forwarding, warn};

pub use self::ledger::{Counts, Reasons, Trouble};
pub use self::letters::{About, MAX_BYTES as MAX_LETTER_BYTES, MAX_LETTERS};
pub use self::status::{
    DeadLetters, LetterId, LetterLine, ReasonCount, Resending, Resent, RetryError, TargetStatus, Waiting, Wanted,
    retry, targets,
};

/// Tells what is wrong with the standard sampler variables that `lookup` returns.
pub fn sampler_warnings(lookup: impl Fn(&str) -> Option<std::ffi::OsString>) -> Vec<super::forward::Warning> {
    sampler::Sampler::from_lookup(lookup).1
}

/// Requests stay far below what servers take by default: gRPC libraries 4 MiB.
const BATCH_BYTES: usize = 512 << 10;
const POLL: Duration = Duration::from_millis(200);
const ADOPT_EVERY: Duration = Duration::from_secs(10);
/// How long sending one batch may take while the process runs, where the target's timeout is no longer.
const SEND_LIMIT: Duration = Duration::from_secs(15);
/// How long it may take at most.
const MAX_SEND_LIMIT: Duration = Duration::from_secs(3600);
/// Spans wait for their run within so many bytes of the journal, or a sixteenth of it.
const HOLD_BYTES: u64 = 32 << 20;

/// One peer's forwarder at work.
pub(crate) struct Forwarder {
    stop: Channel<Instant>,
    thread: Option<JoinHandle<()>>,
    shown: String,
    ended: Receiver<()>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forwarder({})", self.shown)
    }
}

/// Returns the names under which the places of targets in a journal are kept, in the order of the targets.
///
/// One that has its endpoint to itself is named after that, as it always was: whatever changes in its headers, it goes on where it
/// was. Several are told apart by the headers that tell tenants apart, in whatever order they come. Where some differ in credentials alone, or in other things that are no part of the name, all but the first have a
/// number behind it: no secret is in it, and a credential that is changed leaves each where it was.
pub(crate) fn reader_names(targets: &[Target]) -> Vec<String> {
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut numbered = |name: String| {
        let so_many = known.entry(name.clone()).or_default();
        *so_many += 1;
        if *so_many == 1 { name } else { format!("{name}-{so_many}") }
    };
    let is_alone = |target: &Target| {
        let of_endpoint = |other: &&Target| other.signal == target.signal && other.endpoint == target.endpoint;
        targets.iter().filter(of_endpoint).count() < 2
    };
    let name = |target: &Target| if is_alone(target) { plain_name(target) } else { reader_name(target) };
    targets.iter().map(|target| numbered(name(target))).collect()
}

/// Returns the name of a place without the number behind it.
fn unnumbered(reader: &str) -> &str {
    match reader.rsplit_once('-') {
        // The digits of an endpoint are more than any number has.
        Some((name, number)) if number.len() < 2 * DIGEST_BYTES && number.parse::<u32>().is_ok() => name,
        _ => reader,
    }
}

/// Returns the name under which a peer's place in a journal is kept where others have the same endpoint.
pub(crate) fn reader_name(target: &Target) -> String {
    named(target, &short_digest(target))
}

/// Returns the name under which it is kept where no other target has the same endpoint.
pub(crate) fn plain_name(target: &Target) -> String {
    named(target, &crate::model::hex(&Sha256::digest(&target.endpoint)[..DIGEST_BYTES]))
}

fn named(target: &Target, short: &str) -> String {
    match target.signal {
        Signal::Traces => format!("forward-{short}"),
        Signal::Metrics => format!("{METRICS_READER}{short}"),
    }
}

/// Returns a short name of a target's endpoint and tenant that no two of these share.
pub(crate) fn short_digest(target: &Target) -> String {
    crate::model::hex(&target.digest(&target.endpoint)[..DIGEST_BYTES])
}

/// So much of a digest is in a name.
const DIGEST_BYTES: usize = 6;

/// How names of readers begin that send metrics.
const METRICS_READER: &str = "forward-metrics-";

/// Returns what a reader of this name sends.
pub(crate) fn signal_of(reader: &str) -> Signal {
    if reader.starts_with(METRICS_READER) { Signal::Metrics } else { Signal::Traces }
}

/// Returns what a target is called among `all`, each as it is shown and with the name of its reader.
fn label<'a>(shown: &str, reader: &str, all: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let signal = signal_of(reader);
    let alike = all.filter(|(other, name)| *other == shown && signal_of(name) == signal).count();
    // A query may be a secret, so it is not shown where it would tell them apart.
    let digits = reader.strip_prefix(METRICS_READER).or_else(|| reader.strip_prefix("forward-")).unwrap_or(reader);
    if alike > 1 { format!("{shown} ({digits})") } else { shown.to_owned() }
}

/// Tells whether frames of a kind are sent to targets of a signal.
fn is_sent(kind: FrameKind, signal: Signal) -> bool {
    match signal {
        Signal::Traces => kind.is_span_for_targets(),
        Signal::Metrics => kind == FrameKind::Metrics,
    }
}

/// Returns the targets that settings and the standard variables name, and what is wrong with those of the environment.
pub(crate) fn configured(settings: &Settings) -> Result<(Vec<Target>, Vec<String>), crate::Error> {
    let (mut targets, mut bad) = (Vec::new(), Vec::new());
    for url in &settings.forward {
        let target = Target::from_url(url);
        targets.push(target.map_err(|error| crate::Error::Setting { name: "forward", why: error.to_string() })?);
    }
    for url in &settings.forward_from_env {
        match Target::from_url(url) {
            Ok(target) => targets.push(target),
            Err(error) => bad.push(format!("RUNSPAN_FORWARD: {error}; nothing is sent there")),
        }
    }
    let (from_env, warnings) = Target::from_env(Signal::Traces);
    bad.extend(warnings.iter().map(ToString::to_string));
    targets.extend(from_env);
    let (targets, twice) = each_once(targets);
    bad.extend(twice);
    Ok((targets, bad))
}

/// One peer that is named twice gets everything once; also returns what is to be said of that. Where it is named
/// without credentials and with them, they are used.
pub(crate) fn each_once(targets: Vec<Target>) -> (Vec<Target>, Vec<String>) {
    let (mut once, mut twice) = (Vec::<Target>::new(), Vec::new());
    for target in targets {
        if let Some(known) = once.iter().find(|known| known.is_same_peer(&target)) {
            twice.push(format!("{} is named twice as a target; it gets everything once", known.shown()));
        } else if let Some(known) = once.iter_mut().find(|known| known.lacks_credentials_of(&target)) {
            known.headers = target.headers;
            twice.push(named_with_credentials(known));
        } else if let Some(known) = once.iter().find(|known| target.lacks_credentials_of(known)) {
            twice.push(named_with_credentials(known));
        } else {
            once.push(target);
        }
    }
    (once, twice)
}

fn named_with_credentials(target: &Target) -> String {
    let shown = target.shown();
    format!("{shown} is named as a target with credentials and without; it gets everything once, with them")
}

/// What is the same for all forwarders of a process.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub store: PathBuf,
    pub process: String,
    pub choice: Choosing,
    pub journal_bytes: u64,
}

/// What is chosen to be forwarded.
#[derive(Clone, Debug)]
pub(crate) struct Choosing {
    sampler: sampler::Sampler,
    keep: Keep,
    /// What is known of this process's runs.
    board: Arc<Board>,
}

impl Choosing {
    /// Chooses by the rules that `board` goes by, and by the standard sampler variables.
    pub fn from_env(keep: Keep, board: Arc<Board>) -> Self {
        let (sampler, warnings) = sampler::Sampler::from_env();
        for warning in warnings {
            warn(format_args!("{warning}"));
        }
        Self { sampler, keep, board }
    }

    fn with_board(&self, board: Arc<Board>, journal_bytes: u64) -> Choice {
        Choice { sampler: self.sampler, board, hold_bytes: HOLD_BYTES.min(journal_bytes / 16) }
    }
}

impl Forwarder {
    /// Starts sending the journal of this process, and of dead processes, to `target`, whose place has this name.
    pub fn start(target: Target, name: String, common: &Common) -> Result<Self, crate::Error> {
        let shown = target.shown().to_owned();
        let journal_dir = common.store.join("journal");
        let has_tenant = target.has_tenant();
        let mut ledger =
            Ledger::new(&common.store, &name, &shown, protocol_word(target.protocol)).of_tenant(has_tenant);
        let letters = ledger::letters(&common.store, &name);
        // Without it nothing is lost but a line in a list.
        let _ = ledger.create();
        let shared = Arc::new(Shared::new(&journal_dir, &common.process, &name, ledger));
        // The position is there from the start: nobody may take the journal for read before this reader has.
        let choice = common.choice.with_board(Arc::clone(&common.choice.board), common.journal_bytes);
        let own = Place::open(Arc::clone(&shared), choice)?;
        let send_limit = target.timeout.saturating_add(Duration::from_secs(5)).clamp(SEND_LIMIT, MAX_SEND_LIMIT);
        let sender =
            Sender::new(target).map_err(|error| crate::Error::Setting { name: "forward", why: error.to_string() })?;
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let mut work = Work {
            courier: Courier::new(sender, letters),
            name,
            journal_dir,
            common: common.clone(),
            own: Arc::clone(&shared),
            has_tenant,
            send_limit,
            adopted: Instant::now().checked_sub(ADOPT_EVERY).unwrap_or_else(Instant::now),
        };
        let thread = std::thread::Builder::new()
            .name("runspan-forward".to_owned())
            .spawn(move || {
                work.run(own, &stopped);
                // The one who asked may have gone on at its deadline.
                let _ = end.send(());
            })
            .map_err(crate::Error::Resources)?;
        Ok(Self { stop, thread: Some(thread), shown, ended, shared })
    }

    /// Returns who counts what this loses at the journal's bound.
    pub fn behind(&self) -> Arc<dyn Behind> {
        Arc::clone(&self.shared) as _
    }
}

/// One target, for who wants to know what became of its spans.
#[cfg(feature = "server")]
#[derive(Clone, Debug)]
pub(crate) struct Known {
    shared: Arc<Shared>,
    label: String,
}

#[cfg(feature = "server")]
impl Known {
    /// Returns what it is called: no two that are sent the same are called alike.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the name of its place in the journal.
    pub fn reader(&self) -> &str {
        &self.shared.name
    }

    /// Returns what it is sent.
    pub fn signal(&self) -> Signal {
        signal_of(self.reader())
    }

    /// Returns what became of the spans of this process's journal since the process began.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }
}

/// All targets of a process at work, and what its writer must know of them.
#[derive(Debug, Default)]
pub(crate) struct Forwarders {
    pub all: Vec<Forwarder>,
    /// The names under which their places in the journal are kept.
    pub readers: Vec<String>,
}

impl Forwarders {
    /// Starts one forwarder for each target.
    pub fn start(targets: Vec<Target>, common: &Common) -> Result<Self, crate::Error> {
        let mut started = Self { all: Vec::new(), readers: reader_names(&targets) };
        for (target, name) in targets.into_iter().zip(&started.readers) {
            started.all.push(Forwarder::start(target, name.clone(), common)?);
        }
        Ok(started)
    }

    /// Returns those who count what the targets lose at the journal's bound.
    pub fn behind(&self) -> Vec<Arc<dyn Behind>> {
        self.all.iter().map(Forwarder::behind).collect()
    }

    /// Asks for all that is left to be sent until the deadline, to all targets at the same time.
    #[cfg(feature = "server")]
    pub fn tell_to_stop(&self, deadline: Instant) {
        self.all.iter().for_each(|forwarder| forwarder.tell_to_stop(deadline));
    }

    /// Returns those who can be asked what became of spans.
    #[cfg(feature = "server")]
    pub fn known(&self) -> Vec<Known> {
        let all = || self.all.iter().map(|forwarder| (forwarder.shown.as_str(), forwarder.shared.name.as_str()));
        let known = |forwarder: &Forwarder| {
            let shared = Arc::clone(&forwarder.shared);
            Known { label: label(&forwarder.shown, &shared.name, all()), shared }
        };
        self.all.iter().map(known).collect()
    }

    /// Waits for that.
    #[cfg(feature = "server")]
    pub fn finish(self, deadline: Instant) {
        for forwarder in self.all {
            let _: Forwarded = Box::new(forwarder).finish(deadline);
        }
    }
}

impl Forwarding for Forwarder {
    fn tell_to_stop(&self, deadline: Instant) {
        // It may have ended by itself, over a panic of a library; then there is nothing to stop.
        let _ = self.stop.send(deadline);
    }

    fn finish(mut self: Box<Self>, deadline: Instant) -> Forwarded {
        // A little longer than the deadline, since a send that is under way ends exactly there.
        let limit = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(50);
        // A send that began before anybody spoke of a deadline may take longer: then the thread is left behind.
        if !matches!(self.ended.recv_timeout(limit), Err(RecvTimeoutError::Timeout))
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
        let counts = self.shared.counts();
        let mut dropped = BTreeMap::new();
        for (reason, n) in counts.refused.iter().chain(&counts.dropped) {
            let known = ["rejected_by_peer", "refused_by_peer", UPSTREAM_BEHIND, JOURNAL_DAMAGED];
            let reason = known.into_iter().find(|known| known == reason).unwrap_or("forward");
            *dropped.entry(reason).or_default() += n;
        }
        Forwarded { sent: counts.sent, settled: counts.settled(), dropped }
    }
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Grpc => "grpc",
        Protocol::HttpProtobuf => "http/protobuf",
        Protocol::HttpJson => "http/json",
    }
}

struct Work {
    courier: Courier,
    name: String,
    journal_dir: PathBuf,
    common: Common,
    own: Arc<Shared>,
    /// It is sent headers that tell tenants apart.
    has_tenant: bool,
    send_limit: Duration,
    adopted: Instant,
}

/// What became of one round with one journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Nothing was there.
    Empty,
    /// Something was sent or put aside.
    Moved,
    /// The peer cannot take anything now.
    Later,
}

impl Work {
    fn run(&mut self, mut own: Place, stopped: &Receiver<Instant>) {
        loop {
            let wait = match self.round(&mut own, Instant::now() + self.send_limit) {
                Round::Moved => Duration::ZERO,
                Round::Empty => {
                    if self.adopted.elapsed() >= ADOPT_EVERY {
                        self.send_of_the_dead(Instant::now() + self.send_limit);
                    }
                    POLL
                }
                Round::Later => self.courier.wait().min(POLL),
            };
            match stopped.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(deadline) => return self.drain(&mut own, deadline),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Sends what is left until the deadline, of dead processes too: the runs that crashed have been closed by now.
    fn drain(&mut self, own: &mut Place, deadline: Instant) {
        self.courier.be_impatient();
        while Instant::now() < deadline && self.round(own, deadline) == Round::Moved {}
        self.send_of_the_dead(deadline);
        // Counts that somebody else was in the way of.
        let _ = self.own.ledger().write();
    }

    fn send_of_the_dead(&mut self, deadline: Instant) {
        self.adopted = Instant::now();
        let Ok(dead) = self.dead() else { return };
        let Ok(runs) = RunsOfTheDead::look(&self.common.store, &dead, &self.common.choice.keep) else { return };
        let mut backlog = Vec::new();
        for process in dead {
            // Somebody else may be at it, or have removed it.
            let Ok(mut place) = self.open_dead(&process, &runs) else { continue };
            let mut last = Round::Moved;
            while last == Round::Moved && Instant::now() < deadline {
                last = self.round(&mut place, deadline);
            }
            let is_done = place.is_done().unwrap_or(false);
            drop(place);
            if is_done {
                remove_if_read(&self.journal_dir, &process);
            } else {
                backlog.push(process);
            }
            if Instant::now() >= deadline {
                return;
            }
        }
        self.bound_backlog(&backlog, &runs);
    }

    /// Names the journals of dead processes that this peer was meant to get, oldest first: a place of its name was
    /// made when the process lived.
    fn dead(&self) -> Result<Vec<String>, crate::Error> {
        let is_ours = |name: &str| self.journal_dir.join(name).join("positions").join(&self.name).exists();
        let all = list_processes(&self.journal_dir)?.into_iter();
        let dead = all.filter(|found| !found.alive && found.name != self.common.process && is_ours(&found.name));
        Ok(dead.map(|found| found.name).collect())
    }

    fn open_dead(&self, process: &str, runs: &RunsOfTheDead) -> Result<Place, crate::Error> {
        let choosing = &self.common.choice;
        let board = Arc::new(runs.board(process, choosing.keep.clone()));
        let ledger = Ledger::new(&self.common.store, &self.name, &self.own.shown(), self.own.protocol());
        let ledger = ledger.of_tenant(self.has_tenant);
        let shared = Arc::new(Shared::new(&self.journal_dir, process, &self.name, ledger));
        Ok(Place::open(shared, choosing.with_board(board, self.common.journal_bytes))?)
    }

    /// Gives the oldest journals of dead processes up where all of them together take more than one journal may.
    fn bound_backlog(&mut self, backlog: &[String], runs: &RunsOfTheDead) {
        let sizes: Vec<u64> = backlog.iter().map(|name| dir_bytes(&self.journal_dir.join(name))).collect();
        let mut total: u64 = sizes.iter().sum();
        // Names are ULIDs and sorted, so the oldest come first.
        for (name, size) in backlog.iter().zip(sizes) {
            if total <= self.common.journal_bytes {
                return;
            }
            let Ok(mut place) = self.open_dead(name, runs) else { continue };
            let Ok(lost) = place.give_up() else { continue };
            drop(place);
            total -= size;
            remove_if_read(&self.journal_dir, name);
            warn(format_args!(
                "what dead processes left for {} takes more than {} bytes: the oldest {lost} spans are no longer kept \
                 for it; runs are stored all the same",
                self.own.shown(),
                self.common.journal_bytes
            ));
        }
    }

    /// Takes one batch of a journal and sends it.
    fn round(&mut self, place: &mut Place, deadline: Instant) -> Round {
        if !self.courier.wait().is_zero() {
            return Round::Later;
        }
        let load = match place.take() {
            Ok(Some(load)) => load,
            Ok(None) => return Round::Empty,
            Err(error) => {
                // One that is gone was needed by nobody. That another can't be read is no fault of the peer's.
                if !error.is_gone() {
                    warn(format_args!("what waits for {} cannot be read: {error}", self.own.shown()));
                }
                return Round::Empty;
            }
        };
        let spans = load.to_send();
        let delivered = self.courier.deliver(&spans, &place.shared.process, deadline);
        if let Some(reason) = &delivered.trouble {
            place.shared.ledger().note_trouble(reason);
        } else if delivered.counts.sent > 0 {
            place.shared.ledger().note_success();
        }
        if let Err(error) = place.settle(&load, delivered.done, delivered.counts) {
            // What was delivered will be again, since at least once is the promise; but not all the time.
            self.courier.hold_off(&error.to_string(), None);
            return Round::Later;
        }
        if delivered.trouble.is_none() { Round::Moved } else { Round::Later }
    }
}

/// How the runs of dead processes ended, as the store has it.
struct RunsOfTheDead {
    /// How far the store is in the journal of each process that has left nothing elsewhere.
    through: HashMap<String, u64>,
    runs: Vec<RunSummary>,
}

impl RunsOfTheDead {
    /// Looks at the store, unless nobody asks how runs ended.
    fn look(store: &Path, processes: &[String], keep: &Keep) -> Result<Self, crate::Error> {
        if keep.is_all() || processes.is_empty() {
            return Ok(Self { through: HashMap::new(), runs: Vec::new() });
        }
        let mut through = HashMap::new();
        for process in processes {
            // Read before the runs are, so that the list has all that is before it.
            let journal_dir = store.join("journal");
            let store_reader = JournalReader::open_read_only(&journal_dir, process, STORE_READER);
            let journal = journal_dir.join(process);
            let is_taken_in = process.parse().is_ok_and(|id: RunId| !Ring::is_left_behind(&journal, id));
            if let (Ok(reader), true) = (store_reader, is_taken_in) {
                through.insert(process.clone(), reader.acknowledged());
            }
        }
        let runs = FilesReader::open(store)?
            .list_runs(&Query::default())?
            .into_iter()
            .filter_map(|listed| match listed {
                Listed::Run(run) => Some(run.summary),
                Listed::Damaged(_) => None,
            })
            .collect();
        Ok(Self { through, runs })
    }

    /// Returns what is known of the runs of one process.
    fn board(&self, process: &str, keep: Keep) -> Board {
        let board = Board::new(keep);
        let (Ok(id), Some(through)) = (process.parse::<RunId>(), self.through.get(process)) else { return board };
        let runs: Vec<RunSummary> = self.runs.iter().filter(|run| run.writer == Some(id)).cloned().collect();
        // Somebody is about to note that these have crashed; one that waits for an answer stays as it is.
        let open = runs.iter().filter(|run| run.status == RunStatus::Running).map(|run| run.trace_id).collect();
        board.post(&runs, Some(open), *through);
        board
    }
}

/// Removes the journal of a dead process that nobody needs any more.
fn remove_if_read(journal_dir: &Path, process: &str) {
    let Ok(id) = process.parse::<RunId>() else { return };
    let readers = crate::recovery::readers_of(journal_dir, id);
    let readers: Vec<&str> = readers.iter().map(String::as_str).collect();
    // Whoever finds it next tries again. What the run store has not taken in yet is not this one's to remove.
    if readers.contains(&STORE_READER) && !Ring::is_left_behind(&journal_dir.join(process), id) {
        let _ = remove_journal(journal_dir, process, &readers);
    }
}

fn dir_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests;
