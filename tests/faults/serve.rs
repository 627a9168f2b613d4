//! A real `runspan serve`, and clients that know what it has acknowledged.
//!
//! Trace `r` of a seed is an agent with nine steps, numbered from `9 * r`, which say what those of the other scenarios say.
//! A client sends its next request when it has heard of the one before, comes again as it is told, and, when the server
//! dies, keeps what it has not heard of for the next one, as exporters do.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use runspan::model::otlp::{ResourceSpans, ScopeSpans, Span, TracesData};

use crate::Failed;
use crate::agent::{Content, agent_name};
use crate::child::{WATCHDOG, wait};
use crate::random::Random;
use crate::sender::{Answer, Protocol, Sender};
use crate::store::{self, Found};

/// Steps of a trace, besides its agent.
const STEPS: u64 = 9;
/// No two clients share the numbers of their traces.
const APART: u64 = 1_000_000;

/// A server of the binary under test, killed when nobody needs it any more.
pub struct Server {
    child: Child,
    ports: BTreeMap<String, SocketAddr>,
}

impl Server {
    /// Starts one and waits until it is ready.
    pub fn start(store: &Path, more: &[&str]) -> Result<Self, Failed> {
        Self::spawn(store, more, Stdio::null())
    }

    /// The same, with its standard error in a file or the like.
    pub fn spawn(store: &Path, more: &[&str], stderr: Stdio) -> Result<Self, Failed> {
        let flags = ["serve", "--otlp-grpc", "0", "--otlp-http", "0", "--http", "0"];
        let mut child =
            store::command(store, &[&flags[..], more].concat()).stdout(Stdio::piped()).stderr(stderr).spawn()?;
        let out = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut ports = BTreeMap::new();
        for line in out.lines() {
            match line?.split(' ').collect::<Vec<_>>()[..] {
                ["listening", name, address] => drop(ports.insert(name.to_owned(), address.parse()?)),
                ["ready"] => return Ok(Self { child, ports }),
                _ => break,
            }
        }
        let status = wait(&mut child, WATCHDOG)?;
        Err(format!("the server ended before it was ready, with {status}").into())
    }

    /// Starts one whose standard output nobody reads: it is on ports that were free a moment ago.
    pub fn deaf(store: &Path) -> Result<Self, Failed> {
        let free = || TcpListener::bind("127.0.0.1:0")?.local_addr();
        let ports = [("otlp-grpc", free()?), ("otlp-http", free()?), ("http", free()?)];
        let mut command = store::command(store, &["serve"]);
        for (name, address) in ports {
            command.arg(format!("--{name}")).arg(address.to_string());
        }
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let child = command.stdout(writer).stderr(Stdio::null()).spawn()?;
        let mut server = Self { child, ports: ports.map(|(name, address)| (name.to_owned(), address)).into() };
        let until = Instant::now() + WATCHDOG;
        while !status_of(ports[2].1, "/readyz").is_ok_and(|code| code == 200) {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("the server that nobody listens to ended with {status}").into());
            }
            if Instant::now() > until {
                return Err("the server that nobody listens to never listened".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Returns its process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Returns where it tells how it is.
    pub fn monitor(&self) -> Result<SocketAddr, Failed> {
        Ok(*self.ports.get("http").ok_or("no such port")?)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: a plain system call on a child that was not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Returns where it takes OTLP.
    pub fn port(&self, protocol: Protocol) -> Result<SocketAddr, Failed> {
        let name = if protocol == Protocol::Grpc { "otlp-grpc" } else { "otlp-http" };
        Ok(*self.ports.get(name).ok_or("no such port")?)
    }

    /// Kills it now.
    pub fn kill(mut self) -> Result<(), Failed> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as a supervisor does: all is well when it says so with its exit code, within `limit`.
    pub fn end(self, limit: Duration) -> Result<(), Failed> {
        self.signal(libc::SIGTERM);
        self.over(limit)
    }

    /// Waits for its end, which was asked for: all is well when it says so with its exit code, within `limit`.
    pub fn over(mut self, limit: Duration) -> Result<(), Failed> {
        let status: ExitStatus = wait(&mut self.child, limit)?;
        if status.code() == Some(0) { Ok(()) } else { Err(format!("the server ended with {status}").into()) }
    }

    /// Returns the most memory that it has had, in KiB.
    pub fn peak_kib(&self) -> Result<u64, Failed> {
        peak_kib(self.child.id())
    }
}

/// The most memory that a running process has had, in KiB.
pub fn peak_kib(pid: u32) -> Result<u64, Failed> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it is over already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks a server how it is, and returns the status of the answer.
pub fn status_of(monitor: SocketAddr, path: &str) -> Result<u16, Failed> {
    let mut line = String::new();
    asked(monitor, path)?.read_line(&mut line)?;
    let code = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    code.ok_or_else(|| format!("{path} is answered with {line:?}").into())
}

/// Asks a server how it is; what is returned has all of the answer.
fn asked(monitor: SocketAddr, path: &str) -> Result<BufReader<TcpStream>, Failed> {
    let mut stream = TcpStream::connect(monitor)?;
    stream.set_read_timeout(Some(WATCHDOG))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())?;
    Ok(BufReader::new(stream))
}

/// Returns how many spans a server says that it has stored.
pub fn stored(monitor: SocketAddr) -> Result<u64, Failed> {
    let mut sum = 0.0;
    for line in asked(monitor, "/metrics")?.lines() {
        let line = line?;
        if line.starts_with("runspan_records_total{")
            && line.contains("outcome=\"stored\"")
            && let Some((_, count)) = line.rsplit_once(' ')
        {
            sum += count.parse::<f64>()?;
        }
    }
    Ok(sum as u64)
}

/// What a client sends at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    /// The later half of a trace and the earlier half of the one before it: children come before their agent.
    Halves,
    /// So many whole traces.
    Traces(u64),
}

/// Spans of one trace: 0 is the agent, then its steps.
type Part = (u64, Range<u64>);

/// What clients know of what they have sent.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    taken: Vec<Part>,
    /// Requests of which nobody knows: they are sent again.
    unheard: Vec<Vec<Part>>,
    /// Parts of those, which may be in the store.
    perhaps: HashSet<Part>,
    /// How often they were told to come again later.
    pub put_off: u64,
    /// Where each client goes on with its traces.
    next: BTreeMap<u64, u64>,
}

impl Ledger {
    fn add(&mut self, other: Self) {
        self.taken.extend(other.taken);
        self.perhaps.extend(other.unheard.iter().flatten().cloned());
        self.unheard.extend(other.unheard);
        self.put_off += other.put_off;
        self.next.extend(other.next);
    }

    /// Returns how many spans were acknowledged.
    pub fn spans(&self) -> u64 {
        self.taken.iter().map(|(_, spans)| spans.end - spans.start).sum()
    }

    /// Checks that a store has all that was acknowledged, as it was sent and once, and nothing that nobody sent.
    pub fn check(&self, found: &Found, seed: u64) -> Result<(), Failed> {
        let steps = |(trace, spans): &Part| {
            let first = trace * STEPS;
            (spans.start.max(1)..spans.end).map(move |place| first + place - 1)
        };
        let lacking: Vec<u64> = self.taken.iter().flat_map(steps).filter(|n| !found.ended.contains_key(n)).collect();
        if let Some(first) = lacking.first() {
            return Err(format!("{} acknowledged steps are missing, {first} the first", lacking.len()).into());
        }
        for (trace, _) in self.taken.iter().filter(|(_, spans)| spans.start == 0) {
            if !found.runs.contains_key(&agent_name(*trace)) {
                return Err(format!("the span of {} was acknowledged and is missing", agent_name(*trace)).into());
            }
        }
        let sent: HashSet<u64> = self.taken.iter().chain(&self.perhaps).flat_map(steps).collect();
        for (n, content) in &found.ended {
            if let Some(difference) = content.difference(&Content::of(seed, *n)) {
                return Err(difference.into());
            }
            if !sent.contains(n) {
                return Err(format!("step {n} is stored, which nobody sent").into());
            }
        }
        if !found.open.is_empty() || found.dropped > 0 {
            return Err(format!("{} steps are open, {} records dropped", found.open.len(), found.dropped).into());
        }
        Ok(())
    }
}

/// Clients at work.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub seed: u64,
    pub clients: u64,
    pub protocol: Protocol,
    pub batch: Batch,
    /// Spans in a second, of all clients together; without it, as fast as they are answered.
    pub rate: Option<f64>,
}

impl Load {
    /// Sends from before `wait` until `end` has ended the server; what was not heard of goes first.
    pub fn on(
        &self,
        server: Server,
        ledger: &mut Ledger,
        wait: impl FnOnce(),
        end: impl FnOnce(Server) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let (to, stop) = (server.port(self.protocol)?, AtomicBool::new(false));
        let mut again = std::mem::take(&mut ledger.unheard);
        let share = again.len().div_ceil(self.clients.max(1) as usize);
        let next = ledger.next.clone();
        std::thread::scope(|threads| {
            let mut running = Vec::new();
            for client in 0..self.clients {
                let again = again.split_off(again.len().saturating_sub(share));
                let next = next.get(&client).copied().unwrap_or(client * APART);
                let stop = &stop;
                running.push(threads.spawn(move || self.client(client, to, again, next, stop)));
            }
            wait();
            let ended = end(server);
            stop.store(true, Ordering::Relaxed);
            for client in running {
                ledger.add(client.join().map_err(|_| "a client panicked")??);
            }
            ended
        })
    }

    fn client(
        &self,
        client: u64,
        to: SocketAddr,
        again: Vec<Vec<Part>>,
        mut next: u64,
        stop: &AtomicBool,
    ) -> Result<Ledger, Failed> {
        let mut ledger = Ledger::default();
        let (start, mut offered, mut again) = (Instant::now(), 0, again.into_iter());
        // Where there is none to connect to, the server was faster at dying.
        if let Ok(mut sender) = Sender::connect(to, self.protocol, false) {
            while !stop.load(Ordering::Relaxed) {
                let parts = again.next().unwrap_or_else(|| self.next_parts(client, &mut next));
                if let Some(rate) = self.rate {
                    let due = Duration::from_secs_f64(offered as f64 * self.clients as f64 / rate);
                    std::thread::sleep(due.saturating_sub(start.elapsed()));
                    offered += parts.iter().map(|(_, spans)| spans.end - spans.start).sum::<u64>();
                }
                if !send(&mut sender, &request(self.seed, &parts), stop, &mut ledger.put_off)? {
                    ledger.unheard.push(parts);
                    break;
                }
                ledger.taken.extend(parts);
            }
        }
        ledger.unheard.extend(again);
        ledger.next.insert(client, next);
        Ok(ledger)
    }

    fn next_parts(&self, client: u64, next: &mut u64) -> Vec<Part> {
        let trace = *next;
        match self.batch {
            Batch::Halves => {
                *next += 1;
                let before = (trace > client * APART).then(|| (trace - 1, 0..5));
                std::iter::once((trace, 5..STEPS + 1)).chain(before).collect()
            }
            Batch::Traces(traces) => {
                *next += traces;
                (trace..trace + traces).map(|trace| (trace, 0..STEPS + 1)).collect()
            }
        }
    }
}

/// Sends a request until it is taken; `false` when nobody knows what became of it.
fn send(sender: &mut Sender, body: &[u8], stop: &AtomicBool, put_off: &mut u64) -> Result<bool, Failed> {
    loop {
        match sender.send(body) {
            Ok(Answer::Taken) => return Ok(true),
            Ok(Answer::Later(wait)) => {
                *put_off += 1;
                let until = Instant::now() + wait;
                while Instant::now() < until {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(false);
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            Ok(Answer::Other(what)) => return Err(format!("a request was answered with {what}").into()),
            Err(_) => return Ok(false),
        }
    }
}

/// Encodes spans as their senders do.
fn request(seed: u64, parts: &[Part]) -> Vec<u8> {
    let spans = parts.iter().flat_map(|(trace, spans)| spans.clone().map(|place| span(seed, *trace, place)));
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }.encode_to_vec()
}

fn span(seed: u64, trace: u64, place: u64) -> Span {
    let id = |place: u64| Random::of(seed ^ (trace << 8) ^ place).next().to_be_bytes().to_vec();
    // All clients send at the same time.
    let start = 1_767_693_600_000_000_000 + trace % APART * 1_000_000;
    let (from, to) = if place == 0 { (0, 100_000) } else { (place * 10_000, place * 10_000 + 5_000) };
    let mut span = Span {
        trace_id: [id(100), id(101)].concat(),
        span_id: id(place),
        start_time_unix_nano: start + from,
        end_time_unix_nano: start + to,
        ..Span::default()
    };
    if place == 0 {
        span.name = "invoke_agent".to_owned();
        span.set_attr("gen_ai.operation.name", "invoke_agent");
        span.set_attr("gen_ai.agent.name", agent_name(trace));
    } else {
        span.parent_span_id = id(0);
        Content::of(seed, trace * STEPS + place - 1).describe(&mut span);
    }
    span
}
