//! What the bridge takes in, stores and costs: `runspan serve` as a process of its own, under load over loopback.
//!
//! ```sh
//! cargo bench --bench serve --features cli                       # 1,000,000 spans for the first line, 1.5 GB of disk
//! cargo bench --bench serve --features cli -- 100000             # fewer
//! cargo bench --bench serve --features cli -- grpc plain 500     # only what has all these words in its name
//! RUNSPAN_BENCH_BINARY=target/before cargo bench ...             # another build, by the same load
//! ```
//!
//! Twice the rate that is sustained, for five minutes, with the bound of memory and what was lost, is a line of the faults:
//! `RUNSPAN_FAULTS=full cargo test --release --features cli --test faults -- serve-overload`.
//!
//! # Method
//!
//! Traces of one agent, four model calls and five tool calls, 14 attributes and some 700 bytes a span, or with 4 KB of text
//! a model call. They are made by writing ids and times over those of one encoded request, and with gzip compressed as
//! they are sent, at level 1. Eight connections (32 for ten spans a request) each send a request when the one before is
//! answered. All of it, the load included, runs on the same cores.
//!
//! - **acknowledged**: all spans by the time to the last answer; answers come after `fdatasync`.
//! - **stored**: all spans by the time until the last of their runs stands in `index.log`, over; then `runspan list` has to
//!   find each trace that was sent, once, with the calls, the tokens and the session that were sent, and `runspan get` the
//!   texts of some of them, or the bench fails. When the server has ended, `runspan verify` has to find nothing wrong.
//! - **CPU**: of the server's process, all threads, from its start to that moment, for a million spans; in brackets up to its
//!   end, when `index.sqlite` and `text.sqlite` have caught up as far as they do.
//! - **bytes**: blocks on disk of the store when the server has ended, for each span, without those two databases; in
//!   brackets with them.
//! - **visible**: from the answer to the moment at which the trace's run stands in `index.log`, over, at half of the stored
//!   rate; of one trace in each request.
//! - **floors**, in the same run: the same load on a server of the same parts (hyper, its HTTP/2 and HTTP/1) that decodes
//!   each request with prost and answers; and one thread that appends requests to a file and calls `fdatasync` after each.

#[path = "support/sender.rs"]
mod sender;
#[path = "support/traces.rs"]
mod traces;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use runspan::model::otlp::TracesData;
use sender::{Answer, Protocol, Sender};
use traces::{SPANS, Template};

type Failed = Box<dyn std::error::Error + Send + Sync>;

const SPANS_OF_THE_FIRST: u64 = 1_000_000;
/// Spans of all other lines, as a part of those of the first.
const PART: u64 = 10;
/// How long anything may take that should happen soon.
const WATCHDOG: Duration = Duration::from_secs(900);
/// How long traces are sent to see when they are visible.
const VISIBLE: Duration = Duration::from_secs(10);

/// One kind of load.
#[derive(Clone, Copy, Debug)]
struct Case {
    protocol: Protocol,
    is_packed: bool,
    /// Traces in a request.
    traces: usize,
    text_bytes: usize,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for text_bytes in [250, 4 << 10] {
            for traces in [50, 1] {
                for protocol in [Protocol::Grpc, Protocol::Http] {
                    all.extend([false, true].map(|is_packed| Self { protocol, is_packed, traces, text_bytes }));
                }
            }
        }
        all
    }

    fn name(&self) -> String {
        let protocol = if self.protocol == Protocol::Grpc { "grpc" } else { "http" };
        let packing = if self.is_packed { "gzip" } else { "plain" };
        let size = if self.text_bytes > 1_000 { "4k" } else { "small" };
        format!("{protocol} {packing} {} {size}", self.traces as u64 * SPANS)
    }

    fn clients(&self) -> u64 {
        if self.traces == 1 { 32 } else { 8 }
    }
}

/// Returns what is measured.
fn binary() -> std::ffi::OsString {
    std::env::var_os("RUNSPAN_BENCH_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_runspan").into())
}

fn main() -> ExitCode {
    // Cargo itself passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--discard"] => discard(),
        words => run(words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<(), Failed> {
    // A number as large as no batch says how many spans.
    let is_count = |word: &&&str| word.parse::<u64>().is_ok_and(|number| number > 1_000);
    let spans = words.iter().find(is_count).map_or(Ok(SPANS_OF_THE_FIRST), |word| word.parse())?;
    let wanted: Vec<&str> = words.iter().filter(|word| !is_count(word)).copied().collect();
    let binary = std::fs::metadata(binary())?.len();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "binary of {:.1} MB, {} cores with a load of {}, answers after fdatasync, {spans} spans in the first line",
        binary as f64 / 1e6,
        std::thread::available_parallelism()?,
        load.split(' ').next().unwrap_or_default(),
    );
    starts(None)?;
    println!(
        "{:<22} {:>9} {:>9} {:>9} {:>6} {:>9} {:>15} {:>5} {:>13} {:>15}",
        "",
        "discarded",
        "appended",
        "acked",
        "ratio",
        "stored",
        "CPU s/million",
        "MiB",
        "bytes/span",
        "visible p50 p99"
    );
    for (n, case) in Case::all().into_iter().enumerate() {
        let name = case.name();
        if wanted.iter().all(|word| name.split(' ').any(|part| part == *word)) {
            measure(case, if n == 0 { spans } else { (spans / PART).max(5_000) })?;
        }
    }
    Ok(())
}

/// Measures one kind of load and prints its line.
fn measure(case: Case, spans: u64) -> Result<(), Failed> {
    let (template, dir) = (Template::new(case.traces, case.text_bytes), tempfile::tempdir()?);
    let requests = spans.div_ceil(case.traces as u64 * SPANS);
    let spans = requests * case.traces as u64 * SPANS;
    let few = requests.min(200_000 / (case.traces as u64 * SPANS)).max(8);
    let floor = {
        let server = Server::spawn(Command::new(std::env::current_exe()?).arg("--discard"))?;
        let start = Instant::now();
        send_all(case, &template, server.port(case.protocol)?, few, 0)?;
        (few * case.traces as u64 * SPANS) as f64 / start.elapsed().as_secs_f64()
    };
    let appended = append(&template, dir.path(), few)?;
    let store = dir.path().join("store");
    let server = Server::start(&store)?;
    let watch = Watch::start(&store);
    let start = Instant::now();
    send_all(case, &template, server.port(case.protocol)?, requests, 0)?;
    let acknowledged = spans as f64 / start.elapsed().as_secs_f64();
    watch.wait_for(requests * case.traces as u64)?;
    let stored = spans as f64 / start.elapsed().as_secs_f64();
    let cpu = server.cpu()?;
    found(&store, case, &template, requests)?;
    let visible = visible(case, &template, &server, &watch, stored / 2.0, requests)?;
    let peak = server.peak_mib()?;
    let all_spans = spans + visible.spans;
    let all_cpu = server.end()?;
    runspan(&store, &["verify"])?;
    let (bytes, derived) = disk(&store)?;
    let a_million = |time: Duration, spans: u64| time.as_secs_f64() * 1e6 / spans as f64;
    println!(
        "{:<22} {floor:>9.0} {appended:>9.0} {acknowledged:>9.0} {:>6.2} {stored:>9.0} {:>7.1} ({:>5.1}) {peak:>5} {:>6} ({:>4}) {:>5.0} {:>4.0} ms",
        case.name(),
        acknowledged / floor,
        a_million(cpu, spans),
        a_million(all_cpu, all_spans),
        bytes / all_spans,
        (bytes + derived) / all_spans,
        visible.median.as_secs_f64() * 1e3,
        visible.worst.as_secs_f64() * 1e3,
    );
    if spans > SPANS_OF_THE_FIRST / PART {
        starts(Some(&store))?;
    }
    Ok(())
}

/// Prints how long a server takes until it is ready, and what it holds then: on an empty store, or on this one.
fn starts(store: Option<&Path>) -> Result<(), Failed> {
    let mut times = Vec::new();
    let mut idle = 0;
    for _ in 0..5 {
        let dir = tempfile::tempdir()?;
        let start = Instant::now();
        let server = Server::start(store.unwrap_or(&dir.path().join("store")))?;
        times.push(start.elapsed());
        std::thread::sleep(Duration::from_secs(1));
        idle = server.resident_mib()?;
        server.end()?;
    }
    times.sort();
    let what = if store.is_some() { "the same store" } else { "an empty store" };
    println!("ready in {:.0} ms on {what}, {idle} MiB a second later", times[2].as_secs_f64() * 1e3);
    Ok(())
}

/// Sends requests from `first` on over all connections, each when the one before was answered.
fn send_all(case: Case, template: &Template, to: SocketAddr, requests: u64, first: u64) -> Result<(), Failed> {
    let next = AtomicU64::new(0);
    let one = || -> Result<(), Failed> {
        let mut sender = Sender::connect(to, case.protocol, case.is_packed)?;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= requests {
                return Ok(());
            }
            send(&mut sender, &body(case, template, first + n))?;
        }
    };
    std::thread::scope(|threads| {
        let running: Vec<_> = (0..case.clients()).map(|_| threads.spawn(one)).collect();
        running.into_iter().try_for_each(|client| client.join().map_err(|_| "a client panicked")?)
    })
}

fn body(case: Case, template: &Template, request: u64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let plain = template.request(request * case.traces as u64, now);
    if !case.is_packed {
        return plain;
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::with_capacity(plain.len() / 4), flate2::Compression::fast());
    // A vector takes all that is written to it.
    let _ = packed.write_all(&plain);
    packed.finish().unwrap_or_default()
}

/// Sends a request until it is taken.
fn send(sender: &mut Sender, body: &[u8]) -> Result<(), Failed> {
    loop {
        match sender.send(body)? {
            Answer::Taken => return Ok(()),
            Answer::Later(wait) => std::thread::sleep(wait),
            Answer::Other(what) => return Err(what.into()),
        }
    }
}

/// Returns how many spans in a second get into a file and onto the disk, request by request.
fn append(template: &Template, dir: &Path, requests: u64) -> Result<f64, Failed> {
    let (file, start) = (std::fs::File::create(dir.join("appended"))?, Instant::now());
    for n in 0..requests {
        let bytes = template.request(n * template.traces() as u64, 0);
        file.write_all_at(&bytes, n * template.len() as u64)?;
        file.sync_data()?;
    }
    let spans = requests * template.traces() as u64 * SPANS;
    std::fs::remove_file(dir.join("appended"))?;
    Ok(spans as f64 / start.elapsed().as_secs_f64())
}

/// How long it takes until runs are visible.
struct Visible {
    spans: u64,
    median: Duration,
    worst: Duration,
}

fn visible(
    case: Case,
    template: &Template,
    server: &Server,
    watch: &Watch,
    rate: f64,
    first: u64,
) -> Result<Visible, Failed> {
    let (to, next, start) = (server.port(case.protocol)?, AtomicU64::new(0), Instant::now());
    let taken: Mutex<Vec<(String, Instant)>> = Mutex::default();
    let of_request = case.traces as u64 * SPANS;
    let one = || -> Result<(), Failed> {
        let mut sender = Sender::connect(to, case.protocol, case.is_packed)?;
        while start.elapsed() < VISIBLE {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs_f64((n * of_request) as f64 / rate);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            send(&mut sender, &body(case, template, first + n))?;
            let last = (first + n + 1) * case.traces as u64 - 1;
            let id = template.trace_id(last, case.traces - 1);
            taken.lock().unwrap_or_else(PoisonError::into_inner).push((id, Instant::now()));
        }
        Ok(())
    };
    std::thread::scope(|threads| {
        let running: Vec<_> = (0..case.clients()).map(|_| threads.spawn(one)).collect();
        running.into_iter().try_for_each(|client| client.join().map_err(|_| "a client panicked")?)
    })?;
    let taken = taken.into_inner().unwrap_or_else(PoisonError::into_inner);
    watch.wait_for((first + taken.len() as u64) * case.traces as u64)?;
    let seen = watch.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let mut times = Vec::with_capacity(taken.len());
    for (trace, at) in &taken {
        times.push(seen.get(trace).ok_or("a trace is not in the index")?.saturating_duration_since(*at));
    }
    times.sort();
    let at = |part: usize| times.get(times.len() * part / 100).or(times.last()).copied().unwrap_or_default();
    Ok(Visible { spans: taken.len() as u64 * of_request, median: at(50), worst: at(99) })
}

/// Reads `index.log` as it grows, and knows when which trace's run was over.
struct Watch {
    seen: Arc<Mutex<HashMap<String, Instant>>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    fn start(store: &Path) -> Self {
        let (seen, stop) = (Arc::<Mutex<HashMap<_, _>>>::default(), Arc::<AtomicBool>::default());
        let (path, noted, is_stopped) = (store.join("index.log"), Arc::clone(&seen), Arc::clone(&stop));
        std::thread::spawn(move || {
            let (mut offset, mut rest) = (0, Vec::new());
            while !is_stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
                let Ok(file) = std::fs::File::open(&path) else { continue };
                let mut chunk = vec![0; 4 << 20];
                while let Ok(read @ 1..) = file.read_at(&mut chunk, offset) {
                    offset += read as u64;
                    rest.extend_from_slice(&chunk[..read]);
                }
                let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
                let lines: Vec<u8> = rest.drain(..=end).collect();
                let (text, now) = (String::from_utf8_lossy(&lines), Instant::now());
                let over = text.lines().filter(|line| line.contains(r#""status":"success""#));
                let traces = over.filter_map(|line| line.split_once(r#""trace_id":""#)?.1.get(..32));
                let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                for trace in traces {
                    noted.entry(trace.to_owned()).or_insert(now);
                }
            }
        });
        Self { seen, stop }
    }

    fn wait_for(&self, runs: u64) -> Result<(), Failed> {
        let start = Instant::now();
        while (self.seen.lock().unwrap_or_else(PoisonError::into_inner).len() as u64) < runs {
            if start.elapsed() > WATCHDOG {
                return Err(format!("not all of {runs} runs came into the store").into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs whose texts are looked at.
const LOOKED_AT: usize = 5;

/// Fails unless `runspan list` finds each trace of these requests once, over, as it was sent, and `runspan get` the texts of
/// some.
fn found(store: &Path, case: Case, template: &Template, requests: u64) -> Result<(), Failed> {
    let listed = runspan(store, &["list", "--status", "success", "--limit", "0", "--json"])?;
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed)?;
    let mut by_trace: HashMap<&str, &serde_json::Value> =
        listed.iter().filter_map(|run| Some((run["trace_id"].as_str()?, run))).collect();
    let traces = requests * case.traces as u64;
    if listed.len() as u64 != traces {
        return Err(format!("{} runs are found of {traces}", listed.len()).into());
    }
    let every = (traces as usize / LOOKED_AT).max(1);
    for number in 0..traces {
        let place = (number % case.traces as u64) as usize;
        let trace = template.trace_id(number, place);
        let run = by_trace.remove(trace.as_str()).ok_or_else(|| format!("no run of trace {trace} is found"))?;
        let tokens = &run["tokens"];
        let seen = ["steps_total", "llm_calls", "tool_calls", "errors"].map(|key| run[key].as_u64());
        let seen = (seen, [&tokens["prompt"], &tokens["completion"]].map(serde_json::Value::as_u64));
        let sent = ([SPANS, traces::CALLS, traces::TOOL_CALLS, 0].map(Some), traces::TOKENS.map(Some));
        if seen != sent || run["session_id"].as_str() != Some(&traces::session(number)) {
            return Err(format!("trace {trace} was sent as {sent:?} and is found as {seen:?}: {run}").into());
        }
        if (number as usize).is_multiple_of(every) {
            let id = run["run_id"].as_str().ok_or("a run without an id")?;
            let shown = String::from_utf8(runspan(store, &["get", id, "--json"])?)?;
            if let Some(lost) = traces::texts(case.text_bytes).into_iter().find(|text| !shown.contains(text.as_str())) {
                return Err(format!("run {id} lacks the text {lost:?}").into());
            }
        }
    }
    Ok(())
}

/// Returns what a command of `runspan` prints about a store.
fn runspan(store: &Path, args: &[&str]) -> Result<Vec<u8>, Failed> {
    let output = Command::new(binary()).args(args).arg("--store").arg(store).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("runspan {}: {}: {}", args.join(" "), output.status, String::from_utf8_lossy(&said)).into())
}

/// Returns what a store takes on disk, and what the databases take that are made of it.
fn disk(store: &Path) -> Result<(u64, u64), Failed> {
    let (mut bytes, mut derived, mut dirs) = (0, 0, vec![store.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let found = entry.metadata()?;
            let is_derived = entry.file_name().to_string_lossy().contains(".sqlite");
            *(if is_derived { &mut derived } else { &mut bytes }) += found.blocks() * 512;
            if found.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    Ok((bytes, derived))
}

/// A server in a process of its own, killed at the end whatever happens.
struct Server {
    child: Child,
    ports: HashMap<String, SocketAddr>,
}

impl Server {
    fn start(store: &Path) -> Result<Self, Failed> {
        let mut command = Command::new(binary());
        command.args(["serve", "--otlp-grpc", "0", "--otlp-http", "0", "--http", "0", "--drain", "600", "--store"]);
        Self::spawn(command.arg(store))
    }

    fn spawn(command: &mut Command) -> Result<Self, Failed> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let mut server = Self { child, ports: HashMap::new() };
        for line in BufReader::new(out).lines() {
            match line?.split(' ').collect::<Vec<_>>()[..] {
                ["listening", name, address] => drop(server.ports.insert(name.to_owned(), address.parse()?)),
                _ => return Ok(server),
            }
        }
        Err("a server ended before it was ready".into())
    }

    fn port(&self, protocol: Protocol) -> Result<SocketAddr, Failed> {
        let name = if protocol == Protocol::Grpc { "otlp-grpc" } else { "otlp-http" };
        Ok(*self.ports.get(name).ok_or("no such port")?)
    }

    fn memory(&self, name: &str) -> Result<u64, Failed> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
    }

    fn peak_mib(&self) -> Result<u64, Failed> {
        self.memory("VmHWM:")
    }

    fn resident_mib(&self) -> Result<u64, Failed> {
        self.memory("VmRSS:")
    }

    /// Returns the CPU time of all its threads so far.
    fn cpu(&self) -> Result<Duration, Failed> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        // SAFETY: a plain system call.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        Ok(Duration::from_secs_f64(ticks as f64 / per_second))
    }

    /// Ends it, and returns its CPU time.
    fn end(mut self) -> Result<Duration, Failed> {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        let mut status = 0;
        // SAFETY: plain system calls on a child that was not waited for; the room for the answer is large enough.
        let usage = unsafe {
            libc::kill(self.child.id() as i32, libc::SIGTERM);
            libc::wait4(self.child.id() as i32, &raw mut status, 0, usage.as_mut_ptr());
            usage.assume_init()
        };
        self.ports.clear();
        let of = |time: libc::timeval| Duration::from_micros(time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64);
        if status == 0 {
            Ok(of(usage.ru_utime) + of(usage.ru_stime))
        } else {
            Err(format!("a server ended with {status}").into())
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Without ports it has ended, and its number may be another's by now.
        if !self.ports.is_empty() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The floor: takes requests over both protocols, decodes them and forgets them.
fn discard() -> Result<(), Failed> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut ports = Vec::new();
        for name in ["otlp-grpc", "otlp-http"] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            println!("listening {name} {}", listener.local_addr()?);
            ports.push(listener);
        }
        println!("ready");
        let served: Vec<_> = ports.into_iter().map(|port| tokio::spawn(serve(port))).collect();
        for port in served {
            port.await??;
        }
        Ok(())
    })
}

async fn serve(port: tokio::net::TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = port.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.http2().initial_stream_window_size(1 << 20).initial_connection_window_size(2 << 20);
            let service = hyper::service::service_fn(answer);
            // How a connection ends is the client's matter.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Answered = Response<http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>>;

async fn answer(request: Request<Incoming>) -> Result<Answered, hyper::Error> {
    let is_grpc = request.headers().contains_key("te");
    let is_packed =
        request.headers().contains_key("content-encoding") || request.headers().contains_key("grpc-encoding");
    let body = request.into_body().collect().await?.to_bytes();
    let message = if is_grpc { body.slice(5..) } else { body };
    let mut unpacked = Vec::new();
    let bytes = if is_packed {
        // What cannot be unpacked is not decoded, and noticed then.
        let _ = flate2::read::GzDecoder::new(&message[..]).read_to_end(&mut unpacked);
        &unpacked[..]
    } else {
        &message[..]
    };
    let mut response = match (TracesData::decode(bytes).is_ok_and(|data| !data.resource_spans.is_empty()), is_grpc) {
        (true, true) => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(std::future::ready(Some(Ok(trailers))));
            Response::new(body.boxed())
        }
        _ => Response::new(Full::default().boxed()),
    };
    if is_grpc {
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    }
    Ok(response)
}
