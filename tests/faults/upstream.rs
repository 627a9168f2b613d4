//! An OTLP/HTTP receiver that can be dead, refuse, break off, and come back, and knows what it has taken.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use runspan::model::otlp::{Span, TracesData};

use crate::Failed;
use crate::agent::Content;
use crate::child::wait_until;

/// How an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    /// Nobody listens.
    Dead = 0,
    /// It says 503 to everything.
    Refusing = 1,
    /// It reads a request and breaks off, and forgets what it read.
    BreakingOff = 2,
    /// It keeps what it gets, and breaks off before it has said so.
    Silent = 3,
    /// All is well.
    Well = 4,
}

impl Mood {
    /// The ways to be out of order.
    pub const BAD: [Self; 4] = [Self::Dead, Self::Refusing, Self::BreakingOff, Self::Silent];
    const ALL: [Self; 5] = [Self::Dead, Self::Refusing, Self::BreakingOff, Self::Silent, Self::Well];
}

/// What has arrived.
#[derive(Clone, Debug, Default)]
pub struct Arrived {
    /// How often each step was told, by number, and what it said.
    pub steps: HashMap<u64, (Content, u64)>,
    /// How often the span of each agent was told, by name.
    pub runs: HashMap<String, u64>,
    /// Told again with something else in it.
    pub contradictions: u64,
    /// Spans closed by whoever took them over, which say nothing of the step's own end.
    pub closed: u64,
}

#[derive(Debug)]
struct Shared {
    mood: AtomicU8,
    /// Counts changes that have taken effect.
    settled: AtomicU64,
    arrived: Mutex<Arrived>,
}

/// One upstream.
#[derive(Debug)]
pub struct Upstream {
    shared: Arc<Shared>,
    port: u16,
}

impl Upstream {
    /// Makes one; it keeps its port through all its moods.
    pub fn start(mood: Mood) -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared =
            Arc::new(Shared { mood: AtomicU8::new(mood as u8), settled: AtomicU64::new(0), arrived: Mutex::default() });
        let weak = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            let mut listener = Some(listener);
            // It goes when nobody asks it any more.
            while let Some(shared) = weak.upgrade() {
                let _ = listen(&shared, port, &mut listener);
                drop(shared);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let upstream = Self { shared, port };
        upstream.become_(mood)?;
        Ok(upstream)
    }

    /// Returns where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Changes its mood; when this returns the new one holds.
    pub fn become_(&self, mood: Mood) -> Result<(), Failed> {
        self.shared.mood.store(mood as u8, Ordering::SeqCst);
        let before = self.shared.settled.load(Ordering::SeqCst);
        wait_until("an upstream changes its mood", || self.shared.settled.load(Ordering::SeqCst) > before + 1)
    }

    /// Returns what has arrived so far.
    pub fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.shared.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn mood(&self) -> Mood {
        let mood = self.mood.load(Ordering::SeqCst);
        Mood::ALL.into_iter().find(|known| *known as u8 == mood).unwrap_or(Mood::Dead)
    }
}

/// Takes in the connections that wait, or sees to it that there can be none.
fn listen(shared: &Arc<Shared>, port: u16, listener: &mut Option<TcpListener>) -> io::Result<()> {
    if shared.mood() == Mood::Dead {
        *listener = None;
    } else if listener.is_none() {
        *listener = Some(TcpListener::bind(("127.0.0.1", port))?);
    }
    shared.settled.fetch_add(1, Ordering::SeqCst);
    let Some(listener) = listener else { return Ok(()) };
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                let shared = Arc::clone(shared);
                std::thread::spawn(move || {
                    // A connection that breaks is the business of whoever made it.
                    let _ = serve(&shared, stream);
                });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn serve(shared: &Shared, stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let body = read_body(&mut reader)?;
        let mood = shared.mood();
        let is_traces = first.contains("/v1/traces");
        if is_traces && matches!(mood, Mood::Silent | Mood::Well) {
            let data = TracesData::decode(&body[..]).map_err(io::Error::other)?;
            let mut arrived = shared.arrived.lock().unwrap_or_else(PoisonError::into_inner);
            let scopes = data.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            scopes.flat_map(|scope| &scope.spans).for_each(|span| arrived.take(span));
        }
        let status = match mood {
            Mood::Dead | Mood::BreakingOff | Mood::Silent => return Ok(()),
            Mood::Refusing => "503 Service Unavailable",
            Mood::Well => "200 OK",
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
        writer.write_all(head.as_bytes())?;
    }
}

/// Reads the rest of a request's head, and its body.
fn read_body(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(body)
}

impl Arrived {
    fn take(&mut self, span: &Span) {
        if span.attr_str("runspan.step.status") == Some("crashed") {
            self.closed += 1;
            return;
        }
        let text = span.attr_str("gen_ai.input.messages").or(span.attr_str("gen_ai.tool.call.arguments"));
        let Some((text, n)) = text.and_then(|text| Some((text, Content::number(text)?))) else {
            let name = span.attr_str("gen_ai.agent.name").unwrap_or(&span.name);
            *self.runs.entry(name.to_owned()).or_default() += 1;
            return;
        };
        let count = |key| span.attr(key).and_then(|value| value.as_i64()).and_then(|n| u64::try_from(n).ok());
        let tokens = count("gen_ai.usage.input_tokens").zip(count("gen_ai.usage.output_tokens"));
        let content = Content { n, text: text.to_owned(), tokens };
        let (known, times) = self.steps.entry(n).or_insert_with(|| (content.clone(), 0));
        self.contradictions += u64::from(*known != content);
        *times += 1;
    }

    /// Returns how many spans were told more than once.
    pub fn repeated(&self) -> u64 {
        let times = self.steps.values().map(|(_, times)| times).chain(self.runs.values());
        times.filter(|times| **times > 1).count() as u64
    }

    /// Returns how many different spans have arrived.
    pub fn spans(&self) -> u64 {
        (self.steps.len() + self.runs.len()) as u64
    }
}
