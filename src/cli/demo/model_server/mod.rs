//! A scripted model behind an OpenAI-compatible HTTP server on loopback.
//!
//! It lets the demo, the examples and the tests run real agents with no network and no key, and it keeps a log of
//! what it billed, so that what was recorded can be compared with what really happened.
//!
//! ```text
//! bytes ─ http ─> Request ─ ask ─> Ask ─ script ─> Said ─ usage ─> Tokens ─ wire ─> Reply ─ http ─> bytes
//! ```
//!
//! It answers `POST /v1/chat/completions` and `POST /v1/responses`, whole or streamed, and `POST /v1/embeddings`.
//! The answer depends on the request alone, so any number of agents can talk to one server at once.

mod ask;
mod http;
mod reply;
mod script;
mod usage;
mod wire;

pub use ask::{Ask, Endpoint, FAIL_HEADER, Tool, Turn};
pub use script::{Said, Script, ToolCall};
pub use usage::Tokens;

use http::{ReadError, Request};
use reply::Reply;
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Connections served at once; one more is answered with 503 and closed.
const MAX_CONNECTIONS: usize = 64;
/// How long an idle or stalled connection is kept.
const IO_TIMEOUT: Duration = Duration::from_secs(30);
/// How long dropping the server waits for its threads before it leaves them behind.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// What a refused client may still send before its connection is cut.
const LINGER_BYTES: u64 = 16 * 1024 * 1024;

/// One request that reached the script, and what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The path that was asked, such as `/v1/chat/completions`.
    pub path: String,
    /// The model as the client named it.
    pub model: String,
    /// What was billed; nothing when the call failed.
    pub tokens: Tokens,
    /// Whether the answer was sent in pieces.
    pub streamed: bool,
    /// The HTTP status of the answer.
    pub status: u16,
}

/// A running server; dropping it closes its connections and ends its threads.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

impl ModelServer {
    /// Starts a server for `script` on a free port of 127.0.0.1.
    pub fn start(script: Script) -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        let shared = Arc::new(Shared::new(script));
        let accepting = Arc::clone(&shared);
        let listener = thread::Builder::new()
            .name("model-server".to_owned())
            .spawn(move || accept_until_stopped(&socket, &accepting))?;
        Ok(Self { address, shared, listener: Some(listener) })
    }

    /// Returns the base URL for an OpenAI client, such as `http://127.0.0.1:41234/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Returns every call answered so far, in the order of their answers.
    ///
    /// A call is listed before the first byte of its answer leaves, so a client that has its answer finds its call.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.state).calls.clone()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.shared.stop();
        // The listener waits in `accept`; one connection wakes it up to see that it should stop.
        let _ = TcpStream::connect_timeout(&self.address, STOP_WITHIN);
        let deadline = Instant::now() + STOP_WITHIN;
        if let Some(listener) = self.listener.take() {
            while !listener.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            if listener.is_finished() {
                let _ = listener.join();
            }
        }
        self.shared.wait_for_connections(deadline);
    }
}

/// What the listener and the connections share.
#[derive(Debug)]
struct Shared {
    script: Script,
    ids: wire::Ids,
    state: Mutex<State>,
    /// Signalled when the server stops and when a connection ends.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    calls: Vec<Call>,
    connections: HashMap<u64, TcpStream>,
    next_connection: u64,
}

impl Shared {
    fn new(script: Script) -> Self {
        Self { script, ids: wire::Ids::new(), state: Mutex::new(State::default()), changed: Condvar::new() }
    }

    fn is_stopped(&self) -> bool {
        lock(&self.state).stopped
    }

    fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        for connection in state.connections.values() {
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    /// Takes a place for a connection, unless all are taken or the server stops.
    fn admit(&self, stream: &TcpStream) -> io::Result<Option<u64>> {
        let handle = stream.try_clone()?;
        let mut state = lock(&self.state);
        if state.stopped || state.connections.len() >= MAX_CONNECTIONS {
            return Ok(None);
        }
        let id = state.next_connection;
        state.next_connection += 1;
        state.connections.insert(id, handle);
        Ok(Some(id))
    }

    fn release(&self, id: u64) {
        lock(&self.state).connections.remove(&id);
        self.changed.notify_all();
    }

    fn wait_for_connections(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let state = lock(&self.state);
        let _ = self.changed.wait_timeout_while(state, left, |state| !state.connections.is_empty());
    }

    /// Waits for `duration`, or until the server stops.
    fn pause(&self, duration: Duration) {
        let state = lock(&self.state);
        let _ = self.changed.wait_timeout_while(state, duration, |state| !state.stopped);
    }

    /// Decides the answer to a request and enters it in the log of calls.
    fn answer(&self, request: &Request) -> Reply {
        let Some(endpoint) = Endpoint::of(&request.path) else {
            return Reply::error(404, &format!("no such path: {}", request.path));
        };
        if request.method != "POST" {
            return Reply::error(405, "this path takes POST only");
        }
        let ask = match Ask::read(endpoint, request.header(FAIL_HEADER), &request.body) {
            Ok(ask) => ask,
            Err(problem) => return Reply::error(400, &problem.to_string()),
        };
        let said = self.script.say(&ask);
        let tokens = Tokens::billed(&ask, &said);
        let reply = wire::reply(&ask, &said, tokens, &self.ids);
        lock(&self.state).calls.push(Call {
            path: request.path.clone(),
            model: ask.model,
            tokens,
            streamed: reply.is_streamed(),
            status: reply.status(),
        });
        reply
    }
}

fn accept_until_stopped(socket: &TcpListener, shared: &Arc<Shared>) {
    while !shared.is_stopped() {
        match socket.accept() {
            Ok((stream, _)) => open_connection(stream, shared),
            // A client that left at once, or no free descriptors: neither ends the server.
            Err(_) => shared.pause(Duration::from_millis(10)),
        }
    }
}

fn open_connection(mut stream: TcpStream, shared: &Arc<Shared>) {
    let Ok(admitted) = shared.admit(&stream) else {
        return;
    };
    let Some(id) = admitted else {
        if !shared.is_stopped() {
            let _ = Reply::error(503, "too many connections").write_whole(&mut stream, false);
        }
        return;
    };
    let serving = Arc::clone(shared);
    let spawned = thread::Builder::new().name(format!("model-server-{id}")).spawn(move || {
        // A peer that vanishes ends its own connection; there is nobody left to tell.
        let _ = serve(stream, &serving);
        serving.release(id);
    });
    if spawned.is_err() {
        shared.release(id);
    }
}

/// Answers the requests of one connection until either side is done.
fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    while !shared.is_stopped() {
        let request = match http::read_request(&mut reader, &mut stream) {
            Ok(request) => request,
            Err(ReadError::Closed) => return Ok(()),
            Err(ReadError::Io(error)) => return Err(error),
            Err(ReadError::Refused { status, reason }) => {
                Reply::error(status, reason).write_whole(&mut stream, false)?;
                return linger(&stream);
            }
        };
        let reply = shared.answer(&request);
        shared.pause(shared.script.latency_of_answers());
        send(&reply, &mut stream, request.keeps_alive(), shared)?;
        if !request.keeps_alive() {
            return Ok(());
        }
    }
    Ok(())
}

fn send(reply: &Reply, out: &mut impl Write, keeps_alive: bool, shared: &Shared) -> io::Result<()> {
    let Reply::Streamed { frames, .. } = reply else {
        return reply.write_whole(out, keeps_alive);
    };
    reply.write_stream_head(out, keeps_alive)?;
    for frame in frames {
        http::write_chunk(out, frame)?;
        shared.pause(shared.script.gap_between_chunks());
        if shared.is_stopped() {
            // Without its last chunk the stream reads as cut off, which it is.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
    http::write_last_chunk(out)
}

/// Reads on for a moment after a refusal: closing with unread bytes would reset the connection, and the client
/// would lose the answer that tells it why.
fn linger(stream: &TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(Duration::from_millis(250)))?;
    io::copy(&mut stream.take(LINGER_BYTES), &mut io::sink())?;
    Ok(())
}

/// Locks `mutex`, also after a thread panicked with it: no update here can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
