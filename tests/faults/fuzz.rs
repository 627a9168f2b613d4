//! Requests that nobody in their right mind would send, over real sockets: recordings of real senders with bytes changed,
//! cut, doubled and mixed, under heads, frames and compressions that are right or not.
//!
//! A seed decides every request of a client, so one that is refused wrongly can be sent again. The bridge answers each with a
//! status that it knows, soon, and goes on: it does not panic, does not grow beyond its bound, and what it has stored of
//! all that can be listed, read and verified.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::random::{Random, trial_seed};
use crate::sender::{Answer, Protocol, Sender};
use crate::serve::{Server, status_of};
use crate::store;
use crate::table::Row;
use crate::{Failed, Suite};

const CLIENTS: u64 = 3;
/// Longest that an answer may take, on a machine with other work.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// A little more than it is given to store what waits in its journal.
const DRAIN: Duration = Duration::from_secs(160);
/// So little may wait there, so that it is over in time: senders are told to come again.
const JOURNAL_MIB: &str = "8";
/// What the server may take of memory, in KiB, whatever it is sent.
const MEMORY_KIB: u64 = 256 << 10;
/// So many stored runs are read one by one.
const READ_BACK: usize = 8;

/// All that the server may answer with.
const STATUSES: [u16; 17] = [100, 200, 400, 403, 404, 405, 408, 411, 413, 414, 415, 417, 421, 431, 501, 503, 505];

/// What a recording is.
#[derive(Clone, Debug)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub signal: &'static str,
    pub is_json: bool,
}

/// Sends odd requests for so long, or so many.
pub fn requests(suite: &Suite) -> Vec<Row> {
    let name = "odd requests";
    let promised =
        "each answered or closed, soon; no panic; under 256 MiB; what is stored can be listed, read, verified";
    let mut row = Row::new(name, promised, suite.seed);
    let (most, lasting) = suite.pick((12_000, Duration::from_secs(60)), (u64::MAX, Duration::from_secs(600)));
    row.injected =
        "recordings with bytes changed, cut, doubled and mixed; heads, frames and compressions too".to_owned();
    let seed = trial_seed(suite.seed, name, 0);
    let outcome = fuzz(seed, most, lasting);
    row.seen = outcome.as_ref().cloned().unwrap_or_default();
    row.count(seed, outcome.map(drop));
    vec![row]
}

/// What clients have seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    requests: u64,
    taken: u64,
    slowest: Duration,
}

fn fuzz(seed: u64, most: u64, lasting: Duration) -> Result<String, Failed> {
    let (dir, bodies) = (tempfile::tempdir()?, recordings()?);
    let (store, said) = (dir.path().join("store"), dir.path().join("said"));
    let server = Server::spawn(&store, &["--drain", "150", "--journal", JOURNAL_MIB], File::create(&said)?.into())?;
    let ports = [server.port(Protocol::Http)?, server.port(Protocol::Grpc)?, server.monitor()?];
    let until = Instant::now() + lasting;
    let clients = std::thread::scope(|threads| {
        let client = |n| {
            let (bodies, ports) = (&bodies, ports);
            threads.spawn(move || client(Random::of(seed ^ n), bodies, ports, most / CLIENTS, until))
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let clients = clients.into_iter().map(|client| client.join().map_err(|_| "a client panicked")?);
        clients.collect::<Result<Vec<Seen>, Failed>>()
    })?;
    // A journal that they have filled is ready again when the store is done with it, although nobody sends anything.
    let (waits, mut ready) = (Instant::now(), status_of(ports[2], "/readyz")?);
    while ready != 200 && waits.elapsed() < DRAIN {
        std::thread::sleep(Duration::from_millis(100));
        ready = status_of(ports[2], "/readyz")?;
    }
    let is_taken = Sender::connect(ports[0], Protocol::Http, false)?.send(b"")?;
    if ready != 200 || is_taken != Answer::Taken {
        let said = std::fs::read_to_string(&said)?;
        return Err(format!(
            "it does not go on: /readyz answers {ready}, and an empty request is answered with {is_taken:?}; it said {said:?}"
        )
        .into());
    }
    let peak = server.peak_kib()?;
    server.end(DRAIN)?;
    let said = std::fs::read_to_string(said)?;
    if let Some(line) = said.lines().find(|line| line.contains("panicked") || line.contains("has died")) {
        return Err(format!("it said {line:?}").into());
    }
    if peak > MEMORY_KIB {
        return Err(format!("it took {} MiB", peak >> 10).into());
    }
    let runs = read_back(&store, seed)?;
    let sum = |of: fn(&Seen) -> u64| clients.iter().map(of).sum::<u64>();
    let slowest = clients.iter().map(|seen| seen.slowest).max().unwrap_or_default().as_millis();
    let (requests, taken) = (sum(|seen| seen.requests), sum(|seen| seen.taken));
    Ok(format!("{requests} requests, {taken} taken, {runs} runs, slowest answer {slowest} ms, peak {} MiB", peak >> 10))
}

/// Reads what came of all of it with the binary; returns how many runs there are.
fn read_back(store: &Path, seed: u64) -> Result<usize, Failed> {
    let works = |args: &[&str]| -> Result<Vec<u8>, Failed> {
        let output = store::runspan(store, args)?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(format!("runspan {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    };
    works(&["verify"])?;
    let runs: Vec<Json> = serde_json::from_slice(&works(&["list", "--limit", "0", "--json"])?)?;
    let mut random = Random::of(seed ^ u64::MAX);
    for _ in 0..READ_BACK.min(runs.len()) {
        let run = &runs[random.below(runs.len() as u64) as usize];
        let id = run["run_id"].as_str().ok_or("a run without an id")?;
        let _: Json = serde_json::from_slice(&works(&["get", id, "--json"])?)?;
    }
    Ok(runs.len())
}

/// Reads what real senders have sent.
pub fn recordings() -> Result<Vec<Body>, Failed> {
    fn walk(dir: &Path, found: &mut Vec<std::path::PathBuf>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() { walk(&path, found)? } else { found.push(path) }
        }
        Ok(())
    }
    let mut paths = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus"), &mut paths)?;
    // The order of a folder is anybody's, and a seed must mean the same everywhere.
    paths.sort();
    let mut bodies = Vec::new();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let signal = ["traces", "logs", "metrics"].into_iter().find(|signal| name.contains(&format!("-{signal}.")));
        let Some(signal) = signal.filter(|_| !name.contains(".headers.")) else { continue };
        bodies.push(Body { bytes: std::fs::read(&path)?, signal, is_json: name.ends_with(".json") });
    }
    if bodies.is_empty() { Err("there are no recordings".into()) } else { Ok(bodies) }
}

fn client(
    mut random: Random,
    bodies: &[Body],
    [http, grpc, monitor]: [SocketAddr; 3],
    most: u64,
    until: Instant,
) -> Result<Seen, Failed> {
    let mut seen = Seen::default();
    while seen.requests < most && Instant::now() < until {
        // What this request is hangs on its number alone.
        let mut random = Random::of(random.next());
        let begun = Instant::now();
        let answer = match random.below(10) {
            0..7 => over_http(&mut random, bodies, http),
            7..9 => over_http2(&mut random, bodies, grpc),
            _ => monitored(&mut random, monitor),
        };
        let status = answer.map_err(|error| format!("request {}: {error}", seen.requests))?;
        if status.is_some_and(|status| !STATUSES.contains(&status)) {
            return Err(format!("request {} is answered with {status:?}", seen.requests).into());
        }
        // Who does not send all of it is waited for, within the limits.
        seen.slowest = seen.slowest.max(if status.is_some() { begun.elapsed() } else { Duration::ZERO });
        seen.requests += 1;
        seen.taken += u64::from(status == Some(200));
    }
    Ok(seen)
}

fn any<'a>(random: &mut Random, bodies: &'a [Body]) -> &'a Body {
    &bodies[random.below(bodies.len() as u64) as usize]
}

/// Changes bytes in one of the ways in which bytes go wrong.
pub fn spoil(random: &mut Random, bytes: &mut Vec<u8>, bodies: &[Body]) {
    const ODD: [&[u8]; 12] = [
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x00",
        b"\xff\xfe",
        b"null",
        b"1e999",
        b"-9223372036854775809",
        b"\"\\u0000\\ud800\"",
        b"[[[[[[[[[[[[[[[[",
        b"{\"a\":",
        b"]}]}]}",
        "\u{202e}\u{1b}[2J".as_bytes(),
    ];
    let at = random.below(bytes.len() as u64 + 1) as usize;
    let to = at + random.below((bytes.len() - at).min(64) as u64 + 1) as usize;
    match random.below(8) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => bytes[at..to].iter_mut().for_each(|byte| *byte = random.next() as u8),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..to)),
        4 => {
            let doubled = bytes[at..to].repeat(1 + random.below(20) as usize);
            bytes.splice(at..at, doubled);
        }
        5 => {
            let other = &any(random, bodies).bytes;
            let from = random.below(other.len() as u64 + 1) as usize;
            let end = from + random.below((other.len() - from) as u64 + 1) as usize;
            bytes.splice(at..at, other[from..end].iter().copied());
        }
        6 => {
            let odd = random.pick(&ODD).unwrap_or_default();
            bytes.splice(at..to, odd.iter().copied());
        }
        _ => {
            let deep = random.pick(&[&b"["[..], b"{\"a\":", b"\x0a\x02", b"\x2a\x7f\x0a\x7d"]).unwrap_or_default();
            let deep = deep.repeat(1 << random.below(14));
            bytes.splice(at..at, deep);
        }
    }
}

fn spoiled(random: &mut Random, bodies: &[Body], least: u64) -> (Body, Vec<u8>) {
    let body = any(random, bodies).clone();
    let mut bytes = body.bytes.clone();
    for _ in 0..least + random.below(4) {
        spoil(random, &mut bytes, bodies);
    }
    (body, bytes)
}

fn compressed(random: &mut Random, bytes: Vec<u8>) -> (&'static str, Vec<u8>) {
    match random.below(8) {
        0 | 1 => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            // To memory, which takes all.
            let _ = packed.write_all(&bytes);
            ("gzip", packed.finish().unwrap_or_default())
        }
        2 => {
            let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            let _ = packed.write_all(&bytes);
            ("deflate", packed.finish().unwrap_or_default())
        }
        3 => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ("zstd", ruzstd::encoding::compress_to_vec(bytes.as_slice(), level))
        }
        // It is not what it says it is.
        4 => (random.pick(&["gzip", "zstd", "br", "identity", "gzip, gzip", "\t"]).unwrap_or_default(), bytes),
        _ => ("", bytes),
    }
}

fn over_http(random: &mut Random, bodies: &[Body], to: SocketAddr) -> Result<Option<u16>, Failed> {
    let least = random.below(2);
    let (body, bytes) = spoiled(random, bodies, least);
    let (encoding, mut bytes) = compressed(random, bytes);
    let is_after_packing = !encoding.is_empty() && random.below(4) == 0;
    if is_after_packing {
        spoil(random, &mut bytes, bodies);
    }
    let media = match random.below(10) {
        0 => random
            .pick(&["text/plain", "application/json; charset=\"", "", "application/x-protobuf, a"])
            .unwrap_or_default(),
        1 if body.is_json => "application/x-protobuf",
        1 => "application/json",
        _ if body.is_json => "application/json",
        _ => "application/x-protobuf",
    };
    let method =
        if random.below(20) == 0 { random.pick(&["GET", "PUT", "HEAD", "OPTIONS", "P\u{1}"]) } else { Some("POST") };
    let path = match random.below(20) {
        0 => "/v1/../v1/traces".to_owned(),
        1 => format!("/v1/{}%2f?a={}", body.signal, random.next()),
        2 => "/".repeat(1 + random.below(9_000) as usize),
        _ => format!("/v1/{}", body.signal),
    };
    let version = if random.below(30) == 0 { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut head = format!("{} {path} {version}\r\nHost: localhost\r\nConnection: close\r\n", method.unwrap_or("POST"));
    head.push_str(&format!("Content-Type: {media}\r\n"));
    if !encoding.is_empty() {
        head.push_str(&format!("Content-Encoding: {encoding}\r\n"));
    }
    match random.below(12) {
        0 => head.push_str("Expect: 100-continue\r\n"),
        1 => head.push_str(&format!("X-Odd: {}\r\n", "x".repeat(random.below(40_000) as usize))),
        2 => head.push_str("Host: localhost\r\n"),
        3 => head.push_str("Origin: null\r\n"),
        _ => {}
    }
    // Where it says less or more than there is, the rest never comes.
    let (is_whole, mut request) = match random.below(10) {
        0 => (false, format!("{head}Content-Length: {}\r\n\r\n", bytes.len() as u64 + random.below(100)).into_bytes()),
        1 => (false, format!("{head}Content-Length: {}\r\n\r\n", random.next()).into_bytes()),
        2 => (true, format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", bytes.len()).into_bytes()),
        _ => (true, format!("{head}Content-Length: {}\r\n\r\n", bytes.len()).into_bytes()),
    };
    let is_chunked = is_whole && request.windows(9).any(|window| window == b": chunked");
    request.extend(bytes);
    if is_chunked {
        request.extend(b"\r\n0\r\n\r\n");
    }
    let is_raw = random.below(12) == 0;
    if is_raw {
        spoil(random, &mut request, bodies);
    }
    exchange(to, &request, is_whole && !is_raw)
}

fn monitored(random: &mut Random, to: SocketAddr) -> Result<Option<u16>, Failed> {
    let path =
        random.pick(&["/metrics", "/healthz", "/readyz", "/", "/metrics/../healthz", "/%00", "*"]).unwrap_or("/");
    let accept =
        random.pick(&["*/*", "application/openmetrics-text;q=2", ";;;q=,", "text/plain;q=-1"]).unwrap_or("*/*");
    let method = random.pick(&["GET", "GET", "GET", "HEAD", "POST", "TRACE"]).unwrap_or("GET");
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: {accept}\r\n\r\n")
            .into_bytes();
    let is_raw = random.below(3) == 0;
    if is_raw {
        spoil(random, &mut request, &[Body { bytes: b"GET / HTTP/1.1".to_vec(), signal: "", is_json: false }]);
    }
    exchange(to, &request, !is_raw)
}

/// Sends bytes and returns the status of the answer; `None` where the server closes without one, which it may only where
/// the request was not `whole`.
fn exchange(to: SocketAddr, request: &[u8], is_whole: bool) -> Result<Option<u16>, Failed> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.set_write_timeout(Some(ANSWER_LIMIT))?;
    // It may refuse the head, and close, before it has read the rest.
    let is_sent = stream.write_all(request).is_ok();
    if !is_whole {
        // So that nobody waits for what does not come.
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            return Err(format!("no answer in {ANSWER_LIMIT:?} to {}", shown(request)).into());
        }
        _ => {}
    }
    let status =
        answer.strip_prefix(b"HTTP/1.").and_then(|rest| std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok());
    match status {
        None if is_whole && is_sent && answer.is_empty() => {
            Err(format!("closed without an answer: {}", shown(request)).into())
        }
        status => Ok(status),
    }
}

fn shown(request: &[u8]) -> String {
    String::from_utf8_lossy(&request[..request.len().min(300)]).escape_debug().to_string()
}

/// Sends a call over gRPC, or what is none.
fn over_http2(random: &mut Random, bodies: &[Body], to: SocketAddr) -> Result<Option<u16>, Failed> {
    let (body, bytes) = spoiled(random, bodies, 0);
    let (encoding, bytes) = compressed(random, bytes);
    let mut framed = vec![u8::from(!encoding.is_empty())];
    framed.extend((bytes.len() as u32).to_be_bytes());
    framed.extend(&bytes);
    if random.below(4) == 0 {
        spoil(random, &mut framed, bodies);
    }
    if random.below(6) == 0 {
        let mut raw = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
        raw.extend(&framed[..framed.len().min(2_000)]);
        for _ in 0..random.below(3) {
            spoil(random, &mut raw, bodies);
        }
        exchange(to, &raw, false)?;
        return Ok(None);
    }
    let (service, signal) = match body.signal {
        "traces" => ("trace", "Trace"),
        "logs" => ("logs", "Logs"),
        _ => ("metrics", "Metrics"),
    };
    let path = match random.below(12) {
        0 => "/nobody.of/ThatName".to_owned(),
        _ => format!("/opentelemetry.proto.collector.{service}.v1.{signal}Service/Export"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let called = runtime.block_on(async { tokio::time::timeout(ANSWER_LIMIT, call(to, path, encoding, framed)).await });
    // What the connection says of a call that is none is its own matter; that it says something is not.
    match called {
        Ok(status) => Ok(status.ok()),
        Err(_) => Err(format!("no answer over HTTP/2 in {ANSWER_LIMIT:?} to {}", shown(&bytes)).into()),
    }
}

async fn call(to: SocketAddr, path: String, encoding: &str, message: Vec<u8>) -> Result<u16, Failed> {
    let stream = tokio::net::TcpStream::connect(to).await?;
    let (mut send, connection) = h2::client::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let mut call = http::Request::post(format!("http://{to}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if !encoding.is_empty() {
        call = call.header("grpc-encoding", encoding);
    }
    let (answer, mut sending) = send.send_request(call.body(())?, false)?;
    sending.send_data(message.into(), true)?;
    let answer = answer.await?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let _ = body.trailers().await?;
    connection.abort();
    Ok(status)
}
