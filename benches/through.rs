//! What the pass-through of `runspan exec` adds to a model call, and what it takes to run a run again.
//!
//! ```sh
//! cargo bench --bench through --features cli           # 500 calls of each kind
//! cargo bench --bench through --features cli -- 2000   # more
//! ```
//!
//! Method: a model on 127.0.0.1 answers at once, whole or as a stream of 50 chunks 2 ms apart, each with the moment at which it was
//! written. `runspan exec` runs this program again as a client. That makes the same call by turns to the model itself and
//! to `OPENAI_BASE_URL`, over connections that stay open, and takes the time to the first byte of the answer's body, and for each
//! chunk the time from its writing to its reading. Printed are medians and the 99th of 100, direct and through, and what lies
//! between them. The promise: less than 1 ms is added to the median of the first byte.
//!
//! Then a run of 50 calls, which the model takes 20 ms for each, is recorded and run again by `runspan replay --exec`: wall-clock time and
//! CPU of both, everything below them included.

mod support;

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::cpu_seconds_of_children;

const CALLS: usize = 500;
const CHUNKS: usize = 50;
const GAP: Duration = Duration::from_millis(2);
const PROMISE_US: f64 = 1_000.0;
/// The run that is run again.
const REPLAYED: usize = 50;
const THINKS: Duration = Duration::from_millis(20);

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Done {
    // Cargo itself passes `--bench`.
    let args: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["measure", direct, calls] => measure(direct, calls.parse()?),
        ["ask"] => ask(),
        [] => bench(CALLS),
        [calls] => bench(calls.parse()?),
        _ => Err("expected how many calls".into()),
    }
}

fn bench(calls: usize) -> Done {
    let dir = tempfile::tempdir()?;
    let model = model()?;
    let me = std::env::current_exe()?;
    let base = format!("http://{model}/v1");
    let runspan = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_runspan"));
        command.args(args).arg("--store").arg(dir.path()).env("OPENAI_BASE_URL", &base);
        command
    };
    let exec = |words: &[&str]| {
        let mut command = runspan(&["exec", "--quiet", "--proxy", "on"]);
        command.arg("--").arg(&me).args(words);
        command
    };
    if !exec(&["measure", &base, &calls.to_string()]).status()?.success() {
        return Err("the client failed, or the promise is broken".into());
    }
    let timed = |name: &str, command: &mut Command| -> Done<bool> {
        let before = cpu_seconds_of_children();
        let begun = Instant::now();
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds_of_children() - before);
        if status.success() {
            println!("{name:<44} {:>8.0} ms {:>8.0} ms of CPU", took * 1e3, cpu * 1e3);
        }
        Ok(status.success())
    };
    timed("a run of 50 calls, 20 ms each, live", &mut exec(&["ask"]))?;
    if !timed("the same, run again from its recording", &mut runspan(&["replay", "latest", "--exec"]))? {
        println!("the run was not run again: `runspan replay latest --exec` failed");
    }
    timed("the client alone", Command::new(&me).arg("ask").env("OPENAI_BASE_URL", &base))?;
    Ok(())
}

/// Nanoseconds of the clock that all processes of this machine share.
fn now() -> u64 {
    // SAFETY: zeros are a valid value, and the call fills it.
    let time = unsafe {
        let mut time: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time);
        time
    };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Starts the model; it ends with this process.
fn model() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that goes away has had enough.
            std::thread::spawn(move || drop(answer(stream)));
        }
    });
    Ok(address)
}

fn answer(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    while let Some(head) = head(&mut reader)? {
        let mut body = vec![0; length(&head)];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body);
        if body.contains("\"stream\":true") {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes())?;
            for _ in 0..CHUNKS {
                std::thread::sleep(GAP);
                let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", now());
                stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
            }
            stream.write_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")?;
        } else {
            if body.contains("\"slow\"") {
                std::thread::sleep(THINKS);
            }
            let said = format!(
                "{{\"id\":\"c{}\",\"model\":\"gpt-4o-mini\",\"choices\":[{{\"index\":0,\"finish_reason\":\"stop\",\"message\":{{\
                 \"role\":\"assistant\",\"content\":\"Yes.\"}}}}],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":2}}}}",
                now()
            );
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
            stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{said}", said.len()).as_bytes())?;
        }
    }
    Ok(())
}

/// Reads a head; `None` where the peer is done.
fn head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

fn length(head: &str) -> usize {
    let lower = head.to_ascii_lowercase();
    lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0)
}

/// A connection that stays open.
struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    host: String,
    path: String,
}

impl Client {
    fn open(base: &str) -> Done<Self> {
        let (host, path) = base.trim_start_matches("http://").split_once('/').ok_or("no address")?;
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, reader, host: host.to_owned(), path: format!("/{path}/chat/completions") })
    }

    fn send(&mut self, body: &str) -> Done<String> {
        let head = format!("POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n", self.path, self.host);
        self.stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
        Ok(head_of_answer(&mut self.reader)?)
    }

    /// Makes a call and returns the nanoseconds to the first byte of the answer.
    fn whole(&mut self, body: &str) -> Done<u64> {
        let begun = now();
        let head = self.send(body)?;
        let first = self.reader.fill_buf()?.len();
        let took = now() - begun;
        let mut answer = vec![0; length(&head)];
        self.reader.read_exact(&mut answer)?;
        if first == 0 || !head.starts_with("HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&answer).into_owned().into());
        }
        Ok(took)
    }

    /// Makes a call and returns for each chunk how long it was on its way.
    fn streamed(&mut self, body: &str) -> Done<Vec<u64>> {
        self.send(body)?;
        let mut took = Vec::with_capacity(CHUNKS);
        loop {
            let mut size = String::new();
            self.reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16)?;
            let mut chunk = vec![0; size + 2];
            self.reader.read_exact(&mut chunk)?;
            let read = now();
            if size == 0 {
                return Ok(took);
            }
            // Chunks may come together.
            for event in String::from_utf8_lossy(&chunk).split("\"content\":\"").skip(1) {
                let sent: u64 = event.split('"').next().unwrap_or_default().parse()?;
                took.push(read.saturating_sub(sent));
            }
        }
    }
}

fn head_of_answer(reader: &mut impl BufRead) -> io::Result<String> {
    head(reader)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// Makes calls by turns, direct and through, and prints what they took.
fn measure(direct: &str, calls: usize) -> Done {
    let (mut direct, mut through) = (Client::open(direct)?, Client::open(&std::env::var("OPENAI_BASE_URL")?)?);
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Is it?"}]}"#;
    let stream = body.replacen('{', r#"{"stream":true,"#, 1);
    let warm = calls / 10 + 1;
    let (mut whole, mut chunks) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for call in 0..calls + warm {
        let took = [direct.whole(body)?, through.whole(body)?];
        if call >= warm {
            whole.iter_mut().zip(took).for_each(|(all, one)| all.push(one));
        }
    }
    for _ in 0..calls / 10 + 1 {
        chunks[0].extend(direct.streamed(&stream)?);
        chunks[1].extend(through.streamed(&stream)?);
    }
    println!("{:<44} {:>10} {:>10} {:>10}", "µs", "direct", "through", "added");
    let added = show("first byte of a whole answer, median", &mut whole, 50);
    show("  the 99th of 100", &mut whole, 99);
    show("a chunk of a stream, median", &mut chunks, 50);
    show("  the 99th of 100", &mut chunks, 99);
    if added < PROMISE_US { Ok(()) } else { Err(format!("more than {PROMISE_US} µs were added").into()) }
}

/// Prints one of a hundred times, direct and through; returns what was added.
fn show(name: &str, times: &mut [Vec<u64>; 2], hundredth: usize) -> f64 {
    let [direct, through] = times.each_mut().map(|times| {
        times.sort_unstable();
        let at = (times.len() * hundredth / 100).min(times.len().saturating_sub(1));
        times.get(at).copied().unwrap_or_default() as f64 / 1e3
    });
    println!("{name:<44} {direct:>10.1} {through:>10.1} {:>10.1}", through - direct);
    through - direct
}

/// Makes the calls of a run that is run again.
fn ask() -> Done {
    let mut client = Client::open(&std::env::var("OPENAI_BASE_URL")?)?;
    for call in 0..REPLAYED {
        let body = format!(
            r#"{{"model":"gpt-4o-mini","user":"slow","messages":[{{"role":"user","content":"Question {call}?"}}]}}"#
        );
        client.whole(&body)?;
    }
    Ok(())
}
