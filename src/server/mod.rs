//! The bridge: takes OTLP in from any language, over gRPC and HTTP, and acknowledges what is durable.
//!
//! ```text
//! request ─> bounds ─> decode ─> normalize ─> price ─> scrub ─> journal ─> answer
//!                                                                 └─> run store, at its own pace
//! ```
//!
//! Traces and logs are taken. The pipeline runs in the request. Requests that come together share one commit of the journal; see the module
//! `intake`. What came of spans of others' programs is told by the same rules as everywhere, see
//! [`store::assembly`](crate::store::assembly), and by those for spans that come ended, in any order, late and twice.

mod answer;
mod body;
pub mod budget;
mod command;
mod exposition;
mod file;
mod grpc;
mod guard;
mod http;
mod identity;
mod import;
mod intake;
mod metrics;
mod run_ids;
mod settings;
mod traces;
mod upstreams;
mod zstd;

#[cfg(test)]
mod corpus;

use std::fmt;
use std::future::Future;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

pub use command::{Receiver, Teller, Waits};
pub use file::address;
pub use import::{Imported, Importer};
pub use settings::{Bounds, Settings};

use crate::error::Error;
use crate::model::otlp::Value;
use crate::model::{RunId, UnixNanos};
use crate::pipeline::Pipeline;
use crate::pipeline::cost::Pricer;
use crate::sinks::forward::{Signal, Target};
use crate::sinks::forwarder::Forwarders;
use crate::sinks::metrics::report::Report;
use crate::sinks::metrics::scrape::Scrape;
use crate::sources::otlp::Encoding;
use crate::store::files::layout::{Layout, find_store};
use crate::store::files::retainer::Retainer;
use crate::telemetry::warn;
use answer::{Problem, Refusal};
use budget::Budget;
use identity::Identity;
use run_ids::RunIds;
use traces::Line;
use upstreams::Outlets;

/// No time is waited for longer, so that moments can be counted with.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Connections to the port for people and monitors, which those to the others do not crowd out.
const MONITORS: usize = 64;
/// So many clients at a time are told that there are too many; more are not even told.
const TURNED_AWAY: usize = 64;
/// How often an HTTP/2 peer is asked whether it is there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);
/// Bytes of a request's head.
const HEAD_BYTES: u32 = 32 << 10;
/// Calls at a time on one HTTP/2 connection.
const STREAMS: u32 = 128;

/// A port that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// What it is for: `otlp-grpc`, `otlp-http`, `http`.
    pub name: &'static str,
    /// Its address, with the port that was picked for 0.
    pub address: SocketAddr,
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listening {} {}", self.name, self.address)
    }
}

/// What all connections share.
struct Shared {
    line: Arc<Line>,
    budget: Arc<Budget>,
    hosts: Vec<String>,
    ending: AtomicBool,
    /// One for each connection that there may still be.
    permits: Arc<Semaphore>,
    max_connections: usize,
    sources: Arc<metrics::Sources>,
}

impl Shared {
    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    fn count_refusal(&self, problem: Problem) {
        self.line.intake.tally.refuse(problem.reason());
    }
}

/// What a server is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// For all who send to it, as long as it is let run.
    Bridge,
    /// For one command, whose run ends with it.
    Command,
}

type Listener = (&'static str, StdListener);

/// A server with its ports open and its store at hand, which takes no request yet.
pub struct Server {
    settings: Settings,
    listeners: Vec<Listener>,
    inside: Inside,
    intake: intake::Intake,
    sources: Arc<metrics::Sources>,
}

/// What is behind the ports, and goes on after they are closed.
struct Inside {
    layout: Layout,
    process: String,
    readers: Vec<String>,
    threads: intake::Threads,
    forwarders: Forwarders,
    reports: Vec<Report>,
}

impl Inside {
    /// Waits until all that was acknowledged is in the store and at the targets, but not longer than to the deadline.
    fn finish(self, deadline: Instant) {
        self.forwarders.tell_to_stop(deadline);
        self.threads.finish(deadline);
        self.forwarders.finish(deadline);
        // Nothing is counted any more.
        self.reports.iter().for_each(|report| report.tell_to_stop(deadline));
        self.reports.into_iter().for_each(|report| report.finish(deadline));
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Server {
    /// Checks the settings, opens the ports and the store, and goes on where an earlier server of this store stopped.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an address that others can reach, [`Error::Listen`] for a port that is taken, and what
    /// keeps the store from being opened or written.
    pub fn open(settings: Settings) -> Result<Self, Error> {
        let ports = [("otlp-grpc", settings.otlp_grpc), ("otlp-http", settings.otlp_http), ("http", settings.http)];
        Self::open_on(&ports, settings, Purpose::Bridge)
    }

    fn open_on(ports: &[(&'static str, SocketAddr)], mut settings: Settings, purpose: Purpose) -> Result<Self, Error> {
        let Settings { drain, silence, bounds: Bounds { head_limit, body_limit, .. }, .. } = &mut settings;
        for time in [drain, silence, head_limit, body_limit] {
            *time = LONGEST.min(*time);
        }
        for &(name, address) in ports {
            if !address.ip().is_loopback() && !settings.insecure_bind {
                let why = format!(
                    "{address} can be reached by others, and there is neither TLS nor a password yet: give a loopback \
                     address, or --insecure-bind where the network is trusted"
                );
                return Err(Error::Setting { name, why });
            }
        }
        if let Some(host) = settings.hosts.iter().find(|host| !guard::is_name(host)) {
            let why =
                format!("{host:?} is no name of a host: give it without scheme, port and path, as in bridge.example");
            return Err(Error::Setting { name: "allow_hosts", why });
        }
        let mut listeners = Vec::with_capacity(ports.len());
        for &(name, address) in ports {
            let failed = |source| Error::Listen { name, address, source };
            let listener = StdListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            listeners.push((name, listener));
        }
        let own: Vec<SocketAddr> = listeners.iter().filter_map(|(_, listener)| listener.local_addr().ok()).collect();
        let targets = if settings.is_offline { Vec::new() } else { upstreams::targets(&settings.forward, &own)? };
        let reported =
            targets.iter().filter(|target| target.own_metrics).map(|target| target.for_signal(Signal::Metrics));
        let reported: Vec<Target> = reported.collect();
        let here = std::env::current_dir().unwrap_or_default();
        let layout = Layout::new(here.join(find_store(settings.store.as_deref(), &here)));
        let store = layout.open_or_create()?;
        let take = match purpose {
            Purpose::Bridge => Identity::take,
            Purpose::Command => Identity::of_command,
        };
        let mut identity = take(layout.clone(), settings.durability, settings.journal_bytes)?;
        let process = identity.process.to_string();
        if purpose == Purpose::Bridge && identity::is_served(&layout, &process) {
            warn(format_args!(
                "another server, or an import, has the store {} open: a trace of which both get spans becomes two runs; send all \
                 spans of a trace to one of them",
                layout.root().display()
            ));
        }
        let (outlets, forwarders) = Outlets::start(targets, &settings, layout.root(), &process)?;
        let (metric_settings, warnings) = crate::sinks::metrics::Settings::from_env();
        warnings.iter().for_each(|warning| warn(format_args!("{warning}")));
        let scrape = Scrape::start(&metric_settings);
        let targets = forwarders.known();
        identity.outlets = outlets;
        if purpose == Purpose::Bridge {
            identity.outlets.observers.push(Box::new(scrape.clone()));
        }
        let readers = identity.outlets.readers.clone();
        let (intake, threads) = intake::start(identity, settings.silence)?;
        let sources = Arc::new(metrics::Sources {
            scrape,
            layout: layout.clone(),
            process: process.clone(),
            targets,
            tally: Arc::clone(&intake.tally),
            budget: Budget::new(settings.bounds.memory_bytes),
            permits: Arc::new(Semaphore::new(settings.bounds.connections)),
            max_connections: settings.bounds.connections,
            since: UnixNanos::now(),
        });
        let reports = report(reported, &metric_settings, &store.store_id, &sources)?;
        let _ = identity::adopt_others(layout.clone(), store);
        let inside = Inside { layout, process, readers, threads, forwarders, reports };
        Ok(Self { settings, listeners, inside, intake, sources })
    }

    /// Returns the store's paths.
    pub fn layout(&self) -> &Layout {
        &self.inside.layout
    }

    /// Returns what tells, from any thread, whether the run store lags behind what is acknowledged.
    pub fn lag(&self) -> impl Fn() -> bool + Send + use<> {
        let tally = Arc::clone(&self.intake.tally);
        move || tally.store_lags.load(Ordering::Relaxed)
    }

    /// Returns the open ports.
    pub fn listening(&self) -> Vec<Listening> {
        let of = |(name, listener): &(&'static str, StdListener)| {
            Some(Listening { name, address: listener.local_addr().ok()? })
        };
        self.listeners.iter().filter_map(of).collect()
    }

    /// Serves until SIGTERM or SIGINT, then finishes what is under way within the time that the settings give. `ready` is
    /// called once requests are taken.
    ///
    /// # Errors
    ///
    /// When the system gives no threads or no signals.
    pub fn run(self, ready: impl FnOnce()) -> Result<(), Error> {
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(threads)
            .thread_name("serve")
            .enable_all()
            .build()
            .map_err(Error::Resources)?;
        let drain = self.settings.drain;
        let retainer = Retainer::start(&self.inside.layout, true);
        let (shared, listeners, inside) = self.share(|line| line)?;
        // It begins nothing more once the end has begun.
        let (deadline, wait_for_retainer) =
            runtime.block_on(serve(shared, listeners, drain, ready, || retainer.stop()))?;
        runtime.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
        // All that was acknowledged is in the journal by now.
        inside.finish(deadline);
        wait_for_retainer(deadline);
        Ok(())
    }

    /// Takes it apart into what connections share, the ports, and what is behind them.
    fn share(self, change: impl FnOnce(Line) -> Line) -> Result<(Arc<Shared>, Vec<Listener>, Inside), Error> {
        let Self { settings, listeners, inside, intake, sources } = self;
        let store_id = inside.layout.read()?.store_id;
        let mut line = Line::new(intake, settings.bounds, store_id.clone(), maker(&inside.layout, &settings)?);
        if !inside.forwarders.all.is_empty() {
            line = line.with_targets(RunIds::new(inside.layout.clone(), store_id));
        }
        let shared = Shared {
            line: Arc::new(change(line)),
            budget: Arc::clone(&sources.budget),
            hosts: settings.hosts,
            ending: AtomicBool::new(false),
            permits: Arc::clone(&sources.permits),
            max_connections: settings.bounds.connections,
            sources,
        };
        Ok((Arc::new(shared), listeners, inside))
    }
}

/// Starts telling targets how the server is, and what it has counted since its start: another instance of the service
/// than the one before it.
fn report(
    targets: Vec<Target>,
    settings: &crate::sinks::metrics::Settings,
    store_id: &str,
    sources: &Arc<metrics::Sources>,
) -> Result<Vec<Report>, Error> {
    let mut resource = crate::config::resource(None, &RunId::fresh(UnixNanos::now()).to_string(), store_id);
    let is_named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
    if !is_named
        && resource.attr("service.name").and_then(Value::as_str).is_some_and(|name| name.starts_with("unknown"))
    {
        crate::model::otlp::set(&mut resource.attributes, "service.name", "runspan".into());
    }
    let start = |target| {
        let (sources, resource) = (Arc::clone(sources), resource.clone());
        let started = Report::start(target, settings, move || sources.collect_of(&resource));
        started.map_err(|error| Error::Setting { name: "forward", why: error.to_string() })
    };
    targets.into_iter().map(start).collect()
}

/// Returns what makes a pipeline for a request.
fn maker(layout: &Layout, settings: &Settings) -> Result<Box<dyn Fn() -> Pipeline + Send + Sync>, Error> {
    let (content, key) = (settings.content, layout.read()?.redaction_key());
    let layout = layout.clone();
    let (_, bad) = Pricer::of_store(&layout);
    if let Some(bad) = bad {
        warn(format_args!("{bad}"));
    }
    Ok(Box::new(move || Pipeline::new(content, key).with_pricer(Pricer::of_store(&layout).0)))
}

/// Serves all ports until a signal, calls `ending`, and waits for what is under way; returns when the rest must be done, and what
/// `ending` gave.
async fn serve<T>(
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    drain: Duration,
    ready: impl FnOnce(),
    ending: impl FnOnce() -> T,
) -> Result<(Instant, T), Error> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut term, mut int) = (
        signal(SignalKind::terminate()).map_err(Error::Resources)?,
        signal(SignalKind::interrupt()).map_err(Error::Resources)?,
    );
    let (end, has_ended) = watch::channel(false);
    let mut ports = open(&shared, listeners, &has_ended)?;
    drop(has_ended);
    ready();
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    shared.ending.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + drain;
    let ended = ending();
    // Nobody looks any more only if all ports have ended.
    let _ = end.send(true);
    tokio::select! {
        () = async { while ports.join_next().await.is_some() {} } => {}
        () = tokio::time::sleep_until(deadline.into()) => {}
        // Whoever asks twice does not want to wait: what was acknowledged is in the journal.
        _ = term.recv() => return Ok((Instant::now(), ended)),
        _ = int.recv() => return Ok((Instant::now(), ended)),
    }
    Ok((deadline, ended))
}

/// Takes connections on all ports, until the end begins.
fn open(shared: &Arc<Shared>, listeners: Vec<Listener>, ending: &watch::Receiver<bool>) -> Result<JoinSet<()>, Error> {
    let mut ports = JoinSet::new();
    for (name, listener) in listeners {
        let port = Port {
            listener: TcpListener::from_std(listener).map_err(Error::Resources)?,
            permits: if name == "http" { Arc::new(Semaphore::new(MONITORS)) } else { Arc::clone(&shared.permits) },
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
            ending: ending.clone(),
            shared: Arc::clone(shared),
        };
        match name {
            "otlp-grpc" => ports.spawn(port.serve(grpc::otlp)),
            "otlp-http" => ports.spawn(port.serve(http::otlp)),
            "otlp" => ports.spawn(port.serve(command::otlp)),
            _ => ports.spawn(port.serve(http::health)),
        };
    }
    Ok(ports)
}

/// One open port.
struct Port {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    ending: watch::Receiver<bool>,
    shared: Arc<Shared>,
}

impl Port {
    /// Takes connections until the end, and waits for those that are under way then.
    async fn serve<F, R, B>(mut self, answer: F)
    where
        F: Fn(Arc<Shared>, Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Response<B>, std::convert::Infallible>> + Send + 'static,
        B: hyper::body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut connections, ending) = (JoinSet::new(), self.ending.clone());
        loop {
            tokio::select! {
                () = has_ended(&mut self.ending) => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                            self.shared.line.intake.tally.refuse("connections");
                            // Waiting would keep all others waiting, too.
                            if let Ok(permit) = Arc::clone(&self.turned_away).try_acquire_owned() {
                                connections.spawn(turn_away(stream, permit));
                            }
                            continue;
                        };
                        let head_limit = self.shared.line.bounds.head_limit;
                        let (shared, answer) = (Arc::clone(&self.shared), answer.clone());
                        let tally = Arc::clone(&shared.line.intake.tally);
                        let answer = move |request| answer(Arc::clone(&shared), request);
                        let ending = ending.clone();
                        connections.spawn(async move {
                            if let Some(reason) = connection(stream, head_limit, answer, ending).await {
                                tally.refuse(reason);
                            }
                            drop(permit);
                        });
                    }
                    // Out of file descriptors, most often: those that are there are served.
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }
}

/// What a client says first that speaks HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How often it is looked whether the rest of it has come.
const PREFACE_POLL: Duration = Duration::from_millis(10);

/// Waits until a client has said which HTTP it speaks, as hyper does without any limit; `false` when it has gone instead.
async fn has_begun(stream: &TcpStream) -> bool {
    let mut said = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut said).await {
            Ok(0) | Err(_) => return false,
            Ok(bytes) if bytes == PREFACE.len() || said[..bytes] != PREFACE[..bytes] => return true,
            // What is there stays readable, so nobody tells when there is more.
            Ok(_) => tokio::time::sleep(PREFACE_POLL).await,
        }
    }
}

/// Tells a client that there are too many connections. One that speaks gRPC sees that it was turned away, too.
async fn turn_away(mut stream: TcpStream, permit: OwnedSemaphorePermit) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let told = async {
        stream.write_all(&too_many()).await?;
        stream.shutdown().await?;
        // What was sent is read: else the system resets the connection, and the answer may be lost with it.
        let mut unwanted = [0; 4096];
        while stream.read(&mut unwanted).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // What becomes of it is the client's matter.
    let _ = tokio::time::timeout(body::UNWANTED_LIMIT, told).await;
    drop(permit);
}

/// Nothing of the request is read, its encoding neither: it is answered in JSON, as what is in none of ours.
fn too_many() -> Vec<u8> {
    let refusal = Refusal::new(Problem::Busy, "too many connections: come again".to_owned());
    let status = refusal.status(Encoding::Json);
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        status.len()
    );
    [head.into_bytes(), status].concat()
}

/// Waits for the end to begin.
async fn has_ended(ending: &mut watch::Receiver<bool>) {
    // Who would tell is gone only when the end has come, too.
    let _ = ending.wait_for(|ending| *ending).await;
}

/// Waits for a head's time; returns where there was none in it, and never otherwise.
async fn is_silent(head_limit: Duration, has_asked: &AtomicBool) {
    tokio::time::sleep(head_limit).await;
    if has_asked.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Serves a connection to its end; returns why a request on it was refused before it came to us, which hyper does by itself.
async fn connection<F, R, B>(
    stream: TcpStream,
    head_limit: Duration,
    answer: F,
    mut ending: watch::Receiver<bool>,
) -> Option<&'static str>
where
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Result<Response<B>, std::convert::Infallible>> + Send + 'static,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // A small answer must not wait for the next packet.
    let _ = stream.set_nodelay(true);
    tokio::select! {
        begun = tokio::time::timeout(head_limit, has_begun(&stream)) => if begun != Ok(true) { return None },
        () = has_ended(&mut ending) => return None,
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head_limit).max_buf_size(HEAD_BYTES as usize * 2);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_header_list_size(HEAD_BYTES)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20);
    let has_asked = AtomicBool::new(false);
    let service = hyper::service::service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        answer(request)
    });
    let served = builder.serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        // What is wrong with one connection is its peer's matter.
        done = served.as_mut() => return done.err().and_then(|error| refused_by_hyper(&*error)),
        // In HTTP/2 a connection may live without a request, which takes a place from others.
        () = is_silent(head_limit, &has_asked) => return None,
        () = has_ended(&mut ending) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
    None
}

/// Returns the word for a request whose head hyper has refused; its answer, 431 or 400, has no body.
fn refused_by_hyper(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let error = error.downcast_ref::<hyper::Error>()?;
    let reasons = [(error.is_parse_too_large(), "head_too_large"), (error.is_parse(), "malformed")];
    reasons.into_iter().find_map(|(is, reason)| is.then_some(reason))
}
