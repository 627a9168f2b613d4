//! Setting the recorder up, and putting it down.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Settings, resource};
use crate::error::{Error, with_causes};
use crate::fs::BearFileLimit;
use crate::journal::{Durability, JournalReader, JournalWriter, Options};
use crate::model::otlp::Resource;
use crate::model::{RunId, UnixNanos};
use crate::pipeline::worker::{Behind, Command, NoObserver, Observer, Progress, ProgressValues, STORE_READER, Worker};
use crate::pipeline::{Content, Pipeline, Scrubber};
use crate::sinks::keep::{Board, Keep};
use crate::sinks::store::{Claimed, StoreSink};
use crate::sources::layer::Layer;
use crate::sources::recorder::{Recorder, Store};
use crate::sources::ring::Ring;
use crate::store::StoreError;
use crate::store::files::FilesWriter;
use crate::store::files::layout::{Layout, StoreFile, find_store};
use crate::store::files::retainer::Retainer;

/// How long a guard that is merely dropped waits for its worker, and for upstreams to take what is left.
const DROP_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to go on with a run of a dead process.
const CLAIM_LIMIT: Duration = Duration::from_secs(10);

/// Sets up recording with all defaults and installs the `tracing` subscriber.
///
/// Never fails and never panics: where recording is not possible it warns once on standard error, naming the path,
/// and the program runs on without. A process that is forked from it records nothing: a program that forks its workers
/// calls this in each of them. Keep the guard until the end of `main`:
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let (_layer, guard) = runspan::builder().store(dir.path()).build().unwrap();
/// // let guard = runspan::init();
/// tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "greeter");
/// # drop(guard);
/// ```
pub fn init() -> Guard {
    match builder().init() {
        Ok(guard) => guard,
        Err(error) => {
            warn(format_args!("{}; this program is not recorded", with_causes(&error)));
            Guard::inert()
        }
    }
}

/// Begins a set-up with settings of one's own.
pub fn builder() -> Builder {
    let (settings, bad) = Settings::from_env();
    for bad in bad {
        warn(format_args!("{}: {}", bad.name, bad.why));
    }
    Builder { settings }
}

/// Settings of the recorder; what is not said here comes from the environment, else from the defaults.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `init`, `build` or `processor`"]
pub struct Builder {
    settings: Settings,
}

impl Builder {
    /// Sets the store's directory. Default: `RUNSPAN_STORE`, else the nearest `.runspan` or `.parac/runs` above the
    /// current directory, else `.runspan` in it.
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.store = Some(path.into());
        self
    }

    /// Sets what a recorded step survives. Default: [`Durability::Process`], the death of the process at any moment.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.settings.durability = durability;
        self
    }

    /// Adds an OTLP endpoint that gets everything as well; needs the feature `forward`.
    pub fn forward(mut self, url: impl Into<String>) -> Self {
        self.settings.forward.push(url.into());
        self
    }

    /// Sets which runs are forwarded, decided when they are over; the run store has all. Default: what
    /// `RUNSPAN_FORWARD_KEEP` says, else all.
    pub fn forward_keep(mut self, keep: Keep) -> Self {
        self.settings.forward_keep = keep;
        self
    }

    /// Sets how much of prompts, answers and artifacts is kept. Default: [`Content::Redacted`].
    pub fn content(mut self, content: Content) -> Self {
        self.settings.content = content;
        self
    }

    /// Sets `service.name`. Default: `OTEL_SERVICE_NAME`, else `unknown_service:` and the program's name.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.settings.service_name = Some(name.into());
        self
    }

    /// Sets how many bytes of shared memory may lie between the callers and the worker. Default: 16 MiB, taken as it is
    /// needed; of more than that all is taken at the start, so that a burst finds it.
    pub fn buffer_bytes(mut self, bytes: u64) -> Self {
        self.settings.ring_bytes = bytes;
        self
    }

    /// Sets how many bytes the journal may take on disk, which is how far an upstream may be behind before it loses the
    /// oldest spans; the run store never does. Default: 1 GiB.
    pub fn journal_bytes(mut self, bytes: u64) -> Self {
        self.settings.journal_bytes = bytes;
        self
    }

    /// Sets recording up and installs a `tracing` subscriber of its own.
    ///
    /// Where one of the same settings is installed already, the guard joins it: the last of their guards ends recording.
    pub fn init(self) -> Result<Guard, Error> {
        let level = tracing::level_filters::LevelFilter::from_level(self.settings.level);
        let (layer, guard) = self.build()?;
        let recorder = Arc::clone(layer.recorder());
        let installed = tracing_subscriber::registry().with(layer.with_filter(level)).try_init();
        match installed {
            Ok(()) => Ok(guard),
            // Set up the same way before: what is installed records to what this guard keeps at work, too.
            Err(_) if is_installed(&recorder) => Ok(guard),
            Err(_) => Err(Error::SubscriberInstalled),
        }
    }

    /// Sets recording up and returns the layer for a subscriber that the program builds.
    ///
    /// The guard keeps the recorder alive; when it is dropped, everything recorded so far is in the store.
    pub fn build(self) -> Result<(Layer, Guard), Error> {
        let level = self.settings.level;
        let (recorder, guard) = self.start()?;
        Ok((Layer::new(recorder, level), guard))
    }

    /// Opens the store, starts the worker, and returns what sources record through.
    ///
    /// A second door of this process to the same store with the same settings joins the first: spans that both see
    /// are one run. The last of their guards ends recording.
    pub(crate) fn start(self) -> Result<(Arc<Recorder>, Guard), Error> {
        let settings = self.settings;
        if settings.disabled {
            return Ok((Arc::new(Recorder::new(None, String::new(), None)), Guard::inert()));
        }
        // Our threads inherit it.
        let _bears = BearFileLimit::begin();
        let here = std::env::current_dir().unwrap_or_default();
        // A relative path means the directory that the program is in now, wherever it goes later.
        let layout = Layout::new(here.join(find_store(settings.store.as_deref(), &here)));
        let store = layout.open_or_create()?;
        if let Some(at_work) = AtWork::join(&store.store_id, &settings) {
            return Ok((Arc::clone(&at_work.recorder), Guard::of(at_work)));
        }
        let (pricer, bad_prices) = {
            let _held_off = crate::sources::fork::hold_off();
            crate::pipeline::cost::Pricer::of_store(&layout)
        };
        if let Some(bad) = bad_prices {
            warn(format_args!("{bad}"));
        }
        let process = RunId::fresh(UnixNanos::now());
        let options =
            Options { durability: settings.durability, max_bytes: settings.journal_bytes, ..Options::default() };
        let journal = JournalWriter::create(&layout.journal(), &process.to_string(), options)?;
        let reader = JournalReader::open(&layout.journal(), &process.to_string(), STORE_READER)?;
        let ring = Ring::create(process, settings.ring_bytes).map_err(Error::Resources)?;
        // Where that cannot be written, the ring is looked for where rings lie by default.
        let _ = ring.set_owner(&layout.journal().join(process.to_string()));
        ring.set_policy(policy_number(settings.content));
        if !ring.is_durable() {
            warn(format_args!(
                "no room in shared memory: a step of the last moments is lost if this process is killed"
            ));
        }
        let recorder = Arc::new(Recorder::new(Some(ring), store.store_id.clone(), crate::propagation::from_env()));
        recorder.budgets().set_pricer(pricer.another());
        let instance = process.to_string();
        let resource = Arc::new(resource(settings.service_name.as_deref(), &instance, &store.store_id));
        let own_resource = Arc::clone(&resource);
        let (commands, receiver) = mpsc::channel();
        let progress = Arc::new(Progress::default());
        let scrubber = Scrubber::new(settings.content, store.redaction_key());
        let is_taken_in = Arc::new(AtomicBool::new(false));
        // What metrics say of the process leaves it, and is written down, past the pipeline.
        let scrubbed = scrubbed(&scrubber, &resource);
        let upstreams = match start_upstreams(&settings, &layout, process, &scrubbed, &is_taken_in) {
            Ok(upstreams) => upstreams,
            Err(error) => {
                drop((journal, reader));
                take_back(&recorder, &layout, process);
                return Err(error);
            }
        };
        let durable = settings.durability == Durability::Power;
        let sink = StoreSink::new(FilesWriter::new(layout.clone(), process, durable), process).recording(store.record);
        let worker = Worker {
            recorder: Arc::clone(&recorder),
            pipeline: Pipeline::new(settings.content, store.redaction_key()).with_pricer(pricer),
            journal,
            reader,
            sink: if upstreams.counts_runs { sink.with_tallies() } else { sink },
            resource,
            commands: receiver,
            progress: Arc::clone(&progress),
            store_root: layout.root().to_owned(),
            process,
            journal_bytes: settings.journal_bytes,
            observer: upstreams.observer,
            readers: upstreams.readers.clone(),
            behind: upstreams.behind,
            board: upstreams.board,
        };
        let thread =
            std::thread::Builder::new().name("runspan".to_owned()).spawn(move || worker.run()).map_err(|error| {
                take_back(&recorder, &layout, process);
                Error::Resources(error)
            })?;
        recorder.set_worker(thread.thread().clone());
        recorder.set_store(Store { layout: layout.clone(), scrubber, durable });
        recorder.set_resource(own_resource);
        let adopting = adopt_in_background(layout.clone(), store, is_taken_in);
        let retainer = Retainer::start(&layout, false);
        let at_work = AtWork {
            settings,
            recorder: Arc::clone(&recorder),
            commands: commands.clone(),
            progress: Arc::clone(&progress),
            doors: Mutex::default(),
        };
        let running = Running {
            recorder: Arc::clone(&recorder),
            commands,
            thread: Some(thread),
            progress,
            layout,
            process,
            readers: upstreams.readers,
            forwarders: upstreams.forwarders,
            adopting,
            _retainer: retainer,
        };
        Ok((recorder, Guard::of(at_work.with(running))))
    }
}

/// Returns a resource without the secrets in it.
fn scrubbed(scrubber: &Scrubber, resource: &Arc<Resource>) -> Arc<Resource> {
    let _held_off = crate::sources::fork::hold_off();
    let mut scrubbed = Arc::clone(resource);
    scrubber.scrub_resource(&mut scrubbed);
    scrubbed
}

/// Removes what a set-up that failed has made: nothing was recorded, and nobody is to wonder whose it is.
fn take_back(recorder: &Recorder, layout: &Layout, process: RunId) {
    if let Some(ring) = recorder.ring() {
        ring.unlink();
    }
    // Whoever opens the store next does it otherwise.
    let _ = crate::journal::remove_journal(&layout.journal(), &process.to_string(), &[]);
}

/// Tells whether the program's subscriber has a layer of this recorder.
fn is_installed(recorder: &Arc<Recorder>) -> bool {
    tracing::dispatcher::get_default(|installed| {
        installed.downcast_ref::<Layer>().is_some_and(|layer| Arc::ptr_eq(layer.recorder(), recorder))
    })
}

/// The upstreams of one process: who forwards, who counts.
struct Upstreams {
    observer: Box<dyn Observer>,
    /// The observer wants to hear of runs.
    counts_runs: bool,
    readers: Vec<String>,
    forwarders: Vec<Box<dyn Forwarding>>,
    behind: Vec<Arc<dyn Behind>>,
    board: Arc<Board>,
}

/// One upstream at work.
pub(crate) trait Forwarding: Send + fmt::Debug {
    /// Asks it to send what is left until the deadline, and waits for nothing.
    fn tell_to_stop(&self, deadline: Instant);
    /// Waits for that, hardly longer than the deadline, and tells what became of the spans of this process.
    fn finish(self: Box<Self>, deadline: Instant) -> Forwarded;
}

/// What became of the ended spans in this process's journal for one upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forwarded {
    /// The peer has them.
    pub sent: u64,
    /// All that do not wait any more: sent, refused, not kept, dropped.
    pub settled: u64,
    /// Refused or dropped, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
}

#[cfg(not(feature = "forward"))]
fn start_upstreams(
    settings: &Settings,
    _: &Layout,
    _: RunId,
    _: &Arc<Resource>,
    _: &Arc<AtomicBool>,
) -> Result<Upstreams, Error> {
    let missing = Error::MissingFeature { feature: "forward", what: "sending to an OTLP endpoint" };
    if !settings.forward.is_empty() {
        return Err(missing);
    }
    if !settings.forward_from_env.is_empty() {
        warn(format_args!("RUNSPAN_FORWARD: {missing}; nothing is sent"));
    }
    Ok(Upstreams {
        observer: Box::new(NoObserver),
        counts_runs: false,
        readers: vec![STORE_READER.to_owned()],
        forwarders: Vec::new(),
        behind: Vec::new(),
        // Nobody asks it.
        board: Arc::new(Board::new(Keep::all())),
    })
}

/// Takes in what dead processes left, beside the program's own work; the receiver hears nothing but the end of it.
fn adopt_in_background(layout: Layout, store: StoreFile, is_taken_in: Arc<AtomicBool>) -> mpsc::Receiver<()> {
    let (at_work, adopting) = mpsc::channel();
    let adopt = move || {
        let _at_work = at_work;
        Ring::remove_orphans();
        // Whoever opens the store next tries again, and a command tells what is wrong. Only what was lost is told now:
        // nobody will find it again.
        if let Ok(adopted) = crate::recovery::adopt_dead(&layout, &store) {
            let lost = crate::recovery::Adopted { missing: Vec::new(), ..adopted };
            lost.warnings().iter().for_each(|warning| warn(format_args!("{warning}")));
        }
        is_taken_in.store(true, Ordering::Release);
    };
    // Without a thread the next process does it.
    let _ = std::thread::Builder::new().name("runspan-adopt".to_owned()).spawn(adopt);
    adopting
}

/// Returns the number by which the ring's header names a content policy.
pub(crate) fn policy_number(content: Content) -> u8 {
    match content {
        Content::None => 0,
        Content::Redacted => 1,
        Content::Full => 2,
    }
}

/// Starts what the settings and the standard `OTEL_*` variables ask for: traces to each endpoint, metrics to one.
#[cfg(feature = "forward")]
fn start_upstreams(
    settings: &Settings,
    layout: &Layout,
    process: RunId,
    resource: &Arc<Resource>,
    is_taken_in: &Arc<AtomicBool>,
) -> Result<Upstreams, Error> {
    use crate::sinks::forwarder::{Choosing, Common, Forwarders, configured};

    let (targets, bad) = configured(settings)?;
    for bad in bad {
        warn(format_args!("{bad}"));
    }
    let metrics = start_metrics(settings, layout, process, resource, is_taken_in);
    let (counts_runs, observer) = (metrics.is_some(), metrics.unwrap_or_else(|| Box::new(NoObserver)));
    let mut readers = vec![STORE_READER.to_owned()];
    if targets.is_empty() {
        let board = Arc::new(Board::new(Keep::all()));
        return Ok(Upstreams { observer, counts_runs, readers, forwarders: Vec::new(), behind: Vec::new(), board });
    }
    let board = Arc::new(Board::new(settings.forward_keep.clone()));
    let common = Common {
        store: layout.root().to_owned(),
        process: process.to_string(),
        choice: Choosing::from_env(settings.forward_keep.clone(), Arc::clone(&board)),
        journal_bytes: settings.journal_bytes,
    };
    let started = Forwarders::start(targets, &common)?;
    let behind = started.behind();
    readers.extend(started.readers);
    let forwarders = started.all.into_iter().map(|forwarder| Box::new(forwarder) as Box<dyn Forwarding>).collect();
    Ok(Upstreams { observer, counts_runs, readers, forwarders, behind, board })
}

#[cfg(all(feature = "forward", not(feature = "metrics")))]
fn start_metrics(
    _: &Settings,
    _: &Layout,
    _: RunId,
    _: &Arc<Resource>,
    _: &Arc<AtomicBool>,
) -> Option<Box<dyn Observer>> {
    None
}

/// Metrics go where the standard variables say, else to the first endpoint given.
#[cfg(feature = "metrics")]
fn start_metrics(
    settings: &Settings,
    layout: &Layout,
    process: RunId,
    resource: &Arc<Resource>,
    is_taken_in: &Arc<AtomicBool>,
) -> Option<Box<dyn Observer>> {
    use crate::sinks::forward::{Signal, Target};
    use crate::sinks::metrics;

    let (from_env, mut warnings) = Target::from_env(Signal::Metrics);
    let switched_off = std::env::var("OTEL_METRICS_EXPORTER").is_ok_and(|exporter| exporter == "none");
    let first = settings.forward.first().or(settings.forward_from_env.first()).filter(|_| !switched_off);
    let target = from_env.or_else(|| Target::from_url_for(Signal::Metrics, first?).ok());
    let target = target?;
    let (metric_settings, more) = metrics::Settings::from_env();
    warnings.extend(more);
    for warning in warnings {
        warn(format_args!("{}: {}", warning.variable, warning.message));
    }
    let place = metrics::Place { layout: layout.clone(), process, is_taken_in: Arc::clone(is_taken_in) };
    match metrics::Metrics::start_in(place, target, resource, &metric_settings) {
        Ok(metrics) => Some(Box::new(metrics::Observing::new(metrics))),
        Err(error) => {
            warn(format_args!("no metrics: {}", with_causes(&error)));
            None
        }
    }
}

/// Keeps the recorder at work. Dropping it writes out what was recorded, waiting for at most five seconds;
/// [`Guard::shutdown`] does the same and tells what became of it.
#[must_use = "recording ends when the guard is dropped"]
#[derive(Debug)]
pub struct Guard {
    at_work: Option<Arc<AtWork>>,
    generation: u32,
}

/// A recorder at work, and the guards that keep it so.
#[derive(Debug)]
pub(crate) struct AtWork {
    settings: Settings,
    recorder: Arc<Recorder>,
    commands: Sender<Command>,
    progress: Arc<Progress>,
    doors: Mutex<Doors>,
}

#[derive(Debug, Default)]
struct Doors {
    guards: usize,
    /// Taken by the last guard.
    running: Option<Running>,
}

/// What a flush came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything recorded before is in the store.
    Written,
    /// Not within the limit.
    Late,
    /// The store or the journal cannot be written.
    Stuck,
    /// There is nobody to write any more.
    Ended,
}

/// Those of this process.
static AT_WORK: Mutex<Vec<Weak<AtWork>>> = Mutex::new(Vec::new());

impl AtWork {
    fn with(self, running: Running) -> Arc<Self> {
        *self.doors() = Doors { guards: 1, running: Some(running) };
        let at_work = Arc::new(self);
        let mut all = AT_WORK.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&at_work));
        at_work
    }

    /// Finds one of this store and these settings, and keeps it at work.
    fn join(store_id: &str, settings: &Settings) -> Option<Arc<Self>> {
        let all = AT_WORK.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |at_work: &Arc<Self>| {
            let recorder = &at_work.recorder;
            at_work.settings == *settings && recorder.store_id() == store_id && recorder.is_recording()
        };
        all.iter().filter_map(Weak::upgrade).filter(fits).find(|at_work| {
            let mut doors = at_work.doors();
            doors.guards += usize::from(doors.running.is_some());
            doors.running.is_some()
        })
    }

    fn claim(&self, run: RunId) -> Option<Result<Claimed, StoreError>> {
        let (done, answer) = mpsc::channel();
        self.commands.send(Command::Claim(run, done)).ok()?;
        self.recorder.wake();
        match answer.recv_timeout(CLAIM_LIMIT) {
            // A disk that hangs. Claimed later, the run is this process's, and may be resumed here.
            Err(RecvTimeoutError::Timeout) => {
                let path = self.recorder.store().map(|store| store.layout.root().to_owned()).unwrap_or_default();
                Some(Err(StoreError::Io { action: "write", path, source: std::io::ErrorKind::TimedOut.into() }))
            }
            answered => answered.ok(),
        }
    }

    fn unclaim(&self, run: RunId) {
        // Where no worker is left, the run is nobody's when its process ends.
        if self.commands.send(Command::Unclaim(run)).is_ok() {
            self.recorder.wake();
        }
    }

    fn doors(&self) -> std::sync::MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything recorded before this call is in the store, at most `limit`.
    pub fn flush(&self, limit: Duration) -> Flushed {
        let (done, answer) = mpsc::channel();
        if self.commands.send(Command::Flush(done)).is_err() {
            return Flushed::Ended;
        }
        self.recorder.wake();
        match answer.recv_timeout(limit) {
            Ok(()) if self.progress.get().stuck => Flushed::Stuck,
            Ok(()) => Flushed::Written,
            Err(RecvTimeoutError::Timeout) => Flushed::Late,
            Err(RecvTimeoutError::Disconnected) => Flushed::Ended,
        }
    }

    /// Lets one guard go. The last one ends recording; before it, what was recorded is written out.
    fn leave(&self, limit: Duration) -> Report {
        let deadline = Instant::now() + limit;
        let last = {
            let mut doors = self.doors();
            doors.guards = doors.guards.saturating_sub(1);
            if doors.guards == 0 { doors.running.take() } else { None }
        };
        match last {
            Some(running) => running.end(deadline),
            None => {
                self.flush(limit);
                Report::of(self.progress.get(), &self.recorder)
            }
        }
    }
}

/// Has the worker of a recorder go on with a run that waits and whose process is dead; `None` when there is no worker any
/// more.
pub(crate) fn claim(recorder: &Arc<Recorder>, run: RunId) -> Option<Result<Claimed, StoreError>> {
    at_work(recorder)?.claim(run)
}

/// Has it let go of a run that it went on with, and that nobody here can go on with.
pub(crate) fn unclaim(recorder: &Arc<Recorder>, run: RunId) {
    if let Some(at_work) = at_work(recorder) {
        at_work.unclaim(run);
    }
}

fn at_work(recorder: &Arc<Recorder>) -> Option<Arc<AtWork>> {
    let all = AT_WORK.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter_map(Weak::upgrade).find(|at_work| Arc::ptr_eq(&at_work.recorder, recorder))
}

#[derive(Debug)]
struct Running {
    recorder: Arc<Recorder>,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
    progress: Arc<Progress>,
    layout: Layout,
    process: RunId,
    readers: Vec<String>,
    forwarders: Vec<Box<dyn Forwarding>>,
    /// Ends when what dead processes left is in the store, and their open spans are closed.
    adopting: mpsc::Receiver<()>,
    _retainer: Retainer,
}

/// What became of the steps that a process recorded. Counted in ended spans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Steps in the run store.
    pub stored: u64,
    /// Steps that upstreams have acknowledged, of all upstreams together.
    pub exported: u64,
    /// Steps that are safe in the journal or in shared memory and not yet where they go: in the store, or at an
    /// upstream. The next process that opens the store goes on with them.
    pub pending: u64,
    /// Steps that are lost, by reason. For an upstream alone: `upstream_behind` at the journal's bound, and
    /// `rejected_by_peer` and `refused_by_peer`, of which the latter are kept as dead letters. The run store has those.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl Report {
    fn of(progress: ProgressValues, recorder: &Recorder) -> Self {
        let done = progress.stored + progress.passed;
        let in_ring = recorder.ends().saturating_sub(progress.out_of_ring);
        let pending = progress.journaled.saturating_sub(done) + in_ring;
        Self { stored: progress.stored, exported: 0, pending, dropped: recorder.lost_ends() }
    }
}

impl Guard {
    /// A guard of nothing.
    pub(crate) fn inert() -> Self {
        Self { at_work: None, generation: 0 }
    }

    fn of(at_work: Arc<AtWork>) -> Self {
        Self { at_work: Some(at_work), generation: crate::sources::fork::generation() }
    }

    /// Returns the recorder that this keeps at work.
    #[cfg(feature = "otel-sdk")]
    pub(crate) fn at_work(&self) -> Option<Arc<AtWork>> {
        self.at_work.clone()
    }

    /// Waits until everything recorded before this call is in the store, at most `limit`. Tells whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        match &self.at_work {
            Some(at_work) if self.generation == crate::sources::fork::generation() => {
                at_work.flush(limit) == Flushed::Written
            }
            _ => true,
        }
    }

    /// Returns what became of every record so far, starts and events included, by outcome and reason.
    pub fn outcomes(&self) -> crate::model::outcome::Counts {
        self.at_work.as_ref().map(|at_work| at_work.progress.get().counts).unwrap_or_default()
    }

    /// Ends recording: takes in what was recorded, sends upstreams what they lack, both within `limit`, and tells
    /// what became of it all. What is not done by then is in [`Report::pending`], never silently gone.
    pub fn shutdown(mut self, limit: Duration) -> Report {
        self.end(limit)
    }

    fn end(&mut self, limit: Duration) -> Report {
        let Some(at_work) = self.at_work.take() else { return Report::default() };
        let _bears = BearFileLimit::begin();
        if self.generation != crate::sources::fork::generation() {
            // A forked child has neither the worker nor a right to the parent's store.
            std::mem::forget(at_work);
            return Report::default();
        }
        at_work.leave(limit)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(DROP_LIMIT);
    }
}

impl Running {
    /// Asks the worker; `None` when it does not answer by the deadline.
    fn ask<T>(&self, command: impl Fn(Sender<T>) -> Command, deadline: Instant) -> Option<T> {
        let (done, answer) = mpsc::channel();
        self.commands.send(command(done)).ok()?;
        self.recorder.wake();
        answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    fn end(mut self, deadline: Instant) -> Report {
        self.recorder.stop();
        let answer = self.ask(|done| Command::Stop(done, deadline), deadline);
        let (finished, last_metrics) = (answer.is_some(), answer.flatten());
        if finished && let Some(thread) = self.thread.take() {
            // It has answered and returns now; a panic in it is its own, and nothing is left to do about it.
            let _ = thread.join();
        }
        let progress = self.progress.get();
        let (open_runs, journaled) = (progress.open_runs, progress.journaled);
        let in_ring = self.recorder.ends().saturating_sub(progress.out_of_ring);
        let mut report = Report::of(progress, &self.recorder);
        if finished && in_ring > 0 && self.recorder.ring().is_none_or(|ring| !ring.is_durable()) {
            // The journal could not be written to the end, and memory that is not shared goes with the process.
            report.pending -= in_ring;
            *report.dropped.entry("journal").or_default() += in_ring;
        }
        if !self.forwarders.is_empty() {
            // A short process must send what a dead one left, or a row of short processes never would. Half of the
            // time is for its own.
            let _ = self.adopting.recv_timeout(deadline.saturating_duration_since(Instant::now()) / 2);
        }
        // All at once: the time is the same for each.
        for forwarder in &self.forwarders {
            forwarder.tell_to_stop(deadline);
        }
        let mut waiting = 0;
        for forwarder in self.forwarders.drain(..) {
            let forwarded = forwarder.finish(deadline);
            report.exported += forwarded.sent;
            waiting += journaled.saturating_sub(forwarded.settled);
            for (reason, n) in forwarded.dropped {
                *report.dropped.entry(reason).or_default() += n;
            }
        }
        report.pending = report.pending.max(waiting);
        if let Some(wait) = last_metrics {
            wait(deadline);
        }
        if finished && !self.layout.journal().join(self.process.to_string()).exists() {
            // The store was removed: nobody will ever look for what is left.
            self.recorder.ring().into_iter().for_each(Ring::unlink);
        } else if finished && open_runs == 0 {
            // A run that is not over stays with its journal: whoever opens the store next sees that nobody goes on
            // with it.
            self.clean_up();
        }
        report
    }

    /// Removes what the process leaves only for others to find when it dies.
    fn clean_up(&self) {
        if let Some(ring) = self.recorder.ring() {
            if ring.waiting() > 0 {
                // Who opens the store next takes it in, by way of the journal.
                return;
            }
            ring.unlink();
        }
        // What is not read to its end stays, and the next process that opens the store takes it in.
        let readers: Vec<&str> = self.readers.iter().map(String::as_str).collect();
        let _ = crate::journal::remove_journal(&self.layout.journal(), &self.process.to_string(), &readers);
    }
}

/// Says something once on standard error. The recorder must not speak through `tracing`: it would hear itself.
pub(crate) fn warn(message: fmt::Arguments<'_>) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let text = message.to_string();
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() < 64 && !said.contains(&text) {
        use std::io::Write;
        // Standard error may be closed; a recorder must not fail over that.
        let _ = writeln!(std::io::stderr(), "runspan: {text}");
        said.push(text);
    }
}
