//! Tells calls, one after the other, beside the connections that they are on.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use runspan::conventions::names;
use runspan::model::UnixNanos;
use runspan::model::otlp::{Resource, Scope, Span};
use runspan::model::record::{Record, RecordKind};
use runspan::propagation::SpanContext;
use runspan::server::Teller;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::super::budget::Purse;
use super::super::report::During;
use super::call::Exchange;
use super::copy::Copied;
use super::events;

/// A call that is over sooner is told whole.
const OPEN_AFTER: Duration = Duration::from_millis(200);
/// A run of the library is in the store so long after its start, on a machine that is busy, too.
const SHOWN_AFTER: Duration = Duration::from_millis(500);
/// Calls that are told at once: each waits until the disk has it, and what waits together is brought there together.
const AT_ONCE: usize = 64;
/// Ways in which a body may be packed that are read.
pub const READ: &[&str] = &["gzip", "x-gzip", "deflate"];
/// What some servers put before their text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Bytes that a packed body may unpack to.
const UNPACKED: u64 = 16 << 20;

/// Returns the way in which a body is packed, in lower case.
pub fn packed_by(headers: &HeaderMap) -> Option<String> {
    let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    encoding.map(str::to_ascii_lowercase).filter(|encoding| encoding != "identity")
}

/// Unpacks a body as far as it is there and the bound allows, where the way in which it is packed is read.
pub fn unpack(way: &str, packed: &[u8]) -> Option<Vec<u8>> {
    let unpacked = |packed: &mut dyn Read| {
        let mut out = Vec::new();
        // What could be unpacked before it broke off is there.
        let _ = packed.take(UNPACKED).read_to_end(&mut out);
        out
    };
    match way {
        "gzip" | "x-gzip" => Some(unpacked(&mut MultiGzDecoder::new(packed))),
        "deflate" => {
            let body = unpacked(&mut ZlibDecoder::new(packed));
            // Many servers send it without the head that it should have, and clients take that.
            Some(if body.is_empty() { unpacked(&mut DeflateDecoder::new(packed)) } else { body })
        }
        _ => None,
    }
}

fn is_of_events(kind: &str) -> bool {
    const EVENTS: &str = "text/event-stream";
    kind.trim_start().get(..EVENTS.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
}

/// How a body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it passed.
    Whole,
    /// Who was to get it went away.
    Cancelled,
    /// It stopped in the middle.
    Broken(String),
    /// There was none, for the program did not send all that it asked.
    Unasked,
    /// There was none: the server could not be reached.
    Unreachable(String),
    /// There was none: the connection broke before it.
    Disconnected(String),
}

/// What came back.
#[derive(Debug)]
pub struct Answered {
    pub status: Option<u16>,
    is_stream: bool,
    encoding: Option<String>,
    pub copy: Option<Copied>,
    pub ending: Ending,
    pub at: Instant,
}

impl Answered {
    /// Nothing came back.
    pub fn none(ending: Ending) -> Self {
        Self { status: None, is_stream: false, encoding: None, copy: None, ending, at: Instant::now() }
    }

    /// Nothing came back, and the program went away at a time.
    pub fn left(at: Instant) -> Self {
        Self { at, ..Self::none(Ending::Cancelled) }
    }

    /// An answer, with a copy of its body.
    pub fn of(status: StatusCode, headers: &HeaderMap, copy: Copied, ending: Ending) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status: Some(status.as_u16()),
            is_stream: text(CONTENT_TYPE).is_some_and(is_of_events),
            encoding: packed_by(headers),
            at: copy.left.map_or_else(Instant::now, |(at, _)| at),
            copy: Some(copy),
            ending,
        }
    }

    /// Tells whether it says no more than that it is to be had elsewhere: a program that asks there makes another call.
    pub fn is_elsewhere(&self) -> bool {
        self.status.is_some_and(|status| (300..400).contains(&status))
    }

    /// Tells whether it is a stream, by what it says of itself or how its body begins, which no JSON does: many a server of
    /// one's own gives its streams no type, or `text/plain`, and clients do not look at it. Text may begin so as well, unless a
    /// stream `is_asked` for.
    pub fn is_stream(&self, body: Option<&[u8]>, is_asked: bool) -> bool {
        const FIELDS: &[&[u8]] = &[b"data:", b"event:", b"id:", b"retry:", b":"];
        let body = body.unwrap_or_default();
        let begins_so = || FIELDS.iter().any(|field| body.trim_ascii_start().starts_with(field));
        self.is_stream || (begins_so() && (is_asked || events::is_stream(body)))
    }

    /// Returns the body as far as it can be read; of one that is cut, its beginning and its end.
    pub fn body(&self) -> Option<Vec<u8>> {
        let copy = self.copy.as_ref()?;
        self.read(&copy.head, &if copy.is_cut { copy.tail() } else { Vec::new() })
    }

    /// Returns the part of it that had passed when the program went away, where it did and more was read on.
    pub fn passed(&self) -> Option<Vec<u8>> {
        let copy = self.copy.as_ref()?;
        let (_, bytes) = copy.left?;
        self.read(copy.head.get(..bytes)?, &[])
    }

    fn read(&self, head: &[u8], tail: &[u8]) -> Option<Vec<u8>> {
        let body = match self.encoding.as_deref() {
            None => {
                let mut body = head.to_vec();
                if !tail.is_empty() {
                    // In a stream the event that was cut stands alone, and is none.
                    body.extend_from_slice(b"\n\n");
                    body.extend_from_slice(tail);
                }
                Some(body)
            }
            Some(way) => unpack(way, head),
        };
        body.map(|mut body| {
            // A mark of UTF-8 is no part of JSON, and clients pass over it.
            if body.starts_with(BYTE_ORDER_MARK) {
                body.drain(..BYTE_ORDER_MARK.len());
            }
            body
        })
    }

    /// Tells whether not all of the body can be read here, of which `read` can.
    pub fn is_cut(&self, read: Option<&[u8]>) -> bool {
        let is_larger = self.encoding.is_some() && read.is_some_and(|read| read.len() as u64 >= UNPACKED);
        let is_packed = |copy: &Copied| self.encoding.is_some() && !copy.head.is_empty();
        let is_unread = |copy: &Copied| is_packed(copy) && read.is_none_or(<[u8]>::is_empty);
        self.copy.as_ref().is_some_and(|copy| copy.is_cut || is_larger || is_unread(copy))
    }
}

enum Said {
    SentOn(Arc<Exchange>),
    Asked(Arc<Exchange>),
    Open(Arc<Exchange>),
    Answered(Arc<Exchange>, Box<Answered>),
}

/// How many calls there were, and how many of them are done with.
#[derive(Debug, Default)]
pub struct Tally {
    seen: AtomicU64,
    /// Recorded, or left to the program that tells them itself.
    settled: AtomicU64,
    /// Why the last of those was not recorded that could not be.
    why: Mutex<Option<&'static str>>,
    /// Connections to the port.
    connections: AtomicU64,
    /// Answers after which calls are not seen any more.
    lost: Mutex<BTreeSet<Lost>>,
}

/// Servers that answer so are few: what is said of them has an end.
const MOST_LOST: usize = 8;

/// How a server answered that is not to be asked by way of this port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    /// Who answered.
    pub host: String,
    pub status: u16,
    /// Whom it names; `None` where clients do not go on.
    pub to: Option<String>,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, status, to } = self;
        match to {
            Some(to) => write!(
                f,
                "requests to {host} were answered with a redirect to {to} ({status}): calls that go on there are not seen"
            ),
            None => {
                write!(
                    f,
                    "requests to {host} were answered with {status}, a redirect that leads nowhere: they are not recorded"
                )
            }
        }
    }
}

/// Calls that were seen and are not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    pub calls: u64,
    pub why: &'static str,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = if self.calls == 1 { "model call is" } else { "model calls are" };
        write!(f, "{} {calls} not recorded: {}", self.calls, self.why)
    }
}

impl Tally {
    /// Returns how many calls have been seen.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Returns how many calls are done with.
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Returns what is missing, when no more will be recorded.
    pub fn missed(&self) -> Option<Missed> {
        let calls = self.seen().saturating_sub(self.settled());
        let why = *self.why.lock().unwrap_or_else(PoisonError::into_inner);
        (calls > 0).then(|| Missed { calls, why: why.unwrap_or("there was no time left to write them") })
    }

    /// Returns how many connections there were.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// There is one more connection.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns what servers answered after which calls are not seen.
    pub fn lost(&self) -> Vec<Lost> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn lose(&self, lost: Lost) {
        let mut all = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MOST_LOST {
            all.insert(lost);
        }
    }

    fn settle(&self) {
        self.settled.fetch_add(1, Ordering::Relaxed);
    }

    fn fail(&self, why: &'static str) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }
}

/// Says what becomes of calls.
#[derive(Clone)]
pub struct Says {
    to: UnboundedSender<Said>,
    tally: Arc<Tally>,
    pub purse: Option<Arc<Purse>>,
}

impl Says {
    /// A call has begun.
    pub fn began(&self, exchange: Exchange) -> Call {
        self.tally.seen.fetch_add(1, Ordering::Relaxed);
        Call { says: self.clone(), exchange: Some(Arc::new(exchange)) }
    }

    /// The program has connected to the port.
    pub fn connected(&self) {
        self.tally.connected();
    }

    /// What is queued holds its share of the budget for copies, so that it has a bound.
    fn say(&self, said: Said) {
        // Without a recorder the recording is over.
        let _ = self.to.send(said);
    }
}

/// A call under way. Dropped before it is answered, it is one that nobody waits for any more: the connection that it was
/// on is gone, and all that would have passed the answer on with it.
pub struct Call {
    says: Says,
    /// Until it is answered.
    exchange: Option<Arc<Exchange>>,
}

impl Call {
    /// Returns who is to hear of its request.
    pub fn request(&self) -> Asked {
        Asked { says: self.says.clone(), exchange: self.exchange.clone() }
    }

    /// An answer has passed, or there is none.
    pub fn answered(mut self, answered: Answered) {
        self.end(answered);
    }

    /// An answer has sent the program elsewhere, which is no call: one that it makes there is. `lost`: that is not seen.
    pub fn sent_on(mut self, lost: Option<Lost>) {
        if let Some(lost) = lost {
            self.says.tally.lose(lost);
        }
        self.withdraw();
    }

    fn withdraw(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.end();
            self.says.tally.seen.fetch_sub(1, Ordering::Relaxed);
            if let Some(purse) = &self.says.purse {
                purse.give_back(exchange.is_open());
            }
            self.says.say(Said::SentOn(exchange));
        }
    }

    fn end(&mut self, mut answered: Answered) {
        if answered.is_elsewhere() {
            return self.withdraw();
        }
        if let Some(exchange) = self.exchange.take() {
            if exchange.is_broken_off() && answered.status.is_none() {
                answered.ending = Ending::Unasked;
            }
            if let Some(purse) = &self.says.purse {
                purse.answered();
            }
            self.says.say(Said::Answered(exchange, Box::new(answered)));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Answered::none(Ending::Cancelled));
    }
}

/// The request of a call, on its way.
pub struct Asked {
    says: Says,
    exchange: Option<Arc<Exchange>>,
}

impl Asked {
    /// The program stopped in the middle of it.
    pub fn broke_off(&self) {
        if let Some(exchange) = &self.exchange {
            exchange.break_off();
        }
    }

    /// It has passed.
    pub fn passed(self, request: Copied) {
        if let Some(exchange) = self.exchange {
            exchange.ask(request);
            self.says.say(Said::Asked(exchange));
        }
    }
}

/// What all calls of a command have in common.
pub struct Calls {
    pub root: SpanContext,
    pub resource: Arc<Resource>,
    pub are_told: AreTold,
    /// What they may take.
    pub purse: Option<Arc<Purse>>,
}

impl Calls {
    /// Has all calls told, whoever else tells them.
    pub fn all(root: &SpanContext, name: &str) -> Self {
        let resource = Arc::new(super::super::root::resource(name));
        Self { root: *root, resource, are_told: AreTold::none(), purse: None }
    }
}

/// Which calls programs with the library tell themselves: those that begin during their runs.
pub struct AreTold {
    /// Looks into the store, which takes its time.
    ask: Option<Box<dyn Fn() -> Vec<During> + Send + Sync>>,
    last: Option<(Instant, Vec<During>)>,
}

impl AreTold {
    /// How long an answer holds: calls can come faster than a store is read.
    const HOLDS: Duration = Duration::from_millis(100);

    /// Makes it of what looks.
    pub fn new(ask: impl Fn() -> Vec<During> + Send + Sync + 'static) -> Self {
        Self { ask: Some(Box::new(ask)), last: None }
    }

    /// Makes it for calls that are to be told here, whoever tells them too.
    pub fn none() -> Self {
        Self { ask: None, last: None }
    }

    /// Returns how long after its start it can be said of a call: a run is in the store by then.
    fn after(&self) -> Duration {
        if self.ask.is_some() { SHOWN_AFTER } else { Duration::ZERO }
    }

    /// Asks of a call that began at a time, which was so long ago.
    fn get(&mut self, call: UnixNanos, since: Duration) -> bool {
        let Some(ask) = &self.ask else { return false };
        // An answer from before a run of that time was in the store says nothing.
        let holds = Self::HOLDS.min(since.saturating_sub(SHOWN_AFTER));
        if self.last.as_ref().is_none_or(|(at, _)| at.elapsed() >= holds) {
            self.last = Some((Instant::now(), ask()));
        }
        let during = |(start, end): &During| *start <= call && end.is_none_or(|end| call <= end);
        self.last.as_ref().is_some_and(|(_, runs)| runs.iter().any(during))
    }
}

/// Tells calls.
pub struct Recorder {
    said: UnboundedReceiver<Said>,
    says: tokio::sync::mpsc::WeakUnboundedSender<Said>,
    teller: Teller,
    about: Calls,
    tally: Arc<Tally>,
    begun: Instant,
    /// Calls that are over, by when it is known whether somebody else tells them.
    over: VecDeque<Over>,
    /// Calls whose start was told, that an answer has sent elsewhere: those that are made there go on with them.
    sent_on: Vec<Arc<Exchange>>,
    /// Calls that are on their way to the disk.
    telling: JoinSet<()>,
}

struct Over {
    known_at: Instant,
    exchange: Arc<Exchange>,
    answered: Box<Answered>,
    /// What tells it, where that had to be known before.
    span: Option<Span>,
}

impl Recorder {
    /// Makes it, and what it hears from. It ends when all of that is gone.
    pub fn new(teller: Teller, about: Calls) -> (Says, Self) {
        let (to, said) = unbounded_channel();
        let tally = Arc::<Tally>::default();
        let purse = about.purse.clone();
        let recorder = Self {
            said,
            says: to.downgrade(),
            teller,
            about,
            tally: Arc::clone(&tally),
            begun: Instant::now(),
            over: VecDeque::new(),
            sent_on: Vec::new(),
            telling: JoinSet::new(),
        };
        (Says { to, tally, purse }, recorder)
    }

    /// Returns what counts the calls.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Tells calls until there are no more.
    pub async fn work(mut self) {
        loop {
            let next = self.over.front().map(|over| over.known_at);
            let known = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                said = self.said.recv() => match said {
                    Some(Said::SentOn(exchange)) => {
                        exchange.forget();
                        self.sent_on.extend(Some(exchange).filter(|exchange| exchange.is_open()));
                    }
                    Some(Said::Asked(exchange)) => {
                        self.go_on(&exchange);
                        self.open_later(exchange);
                    }
                    Some(Said::Open(exchange)) => self.open(&exchange).await,
                    Some(Said::Answered(exchange, answered)) => self.answered(exchange, answered),
                    None => break,
                },
                () = known => self.settle_next().await,
                Some(_) = self.telling.join_next() => {}
            }
        }
        // The command is gone, and what its library had to say is in the store.
        while !self.over.is_empty() {
            self.settle_next().await;
        }
        for exchange in std::mem::take(&mut self.sent_on) {
            // Its start was told, and nobody has gone on with it.
            let _ = self.teller.tell(self.record(RecordKind::Ended, exchange.left(&self.about.root))).await;
        }
        while self.telling.join_next().await.is_some() {}
    }

    /// Has a call go on with one that was sent here.
    fn go_on(&mut self, exchange: &Exchange) {
        let is_next = |before: &Arc<Exchange>| !exchange.is_over() && exchange.is_after(before);
        if let Some(at) = self.sent_on.iter().position(is_next) {
            exchange.go_on(self.sent_on.swap_remove(at));
            exchange.open();
            if let Some(purse) = &self.about.purse {
                purse.went_on();
            }
        }
    }

    async fn open(&mut self, exchange: &Exchange) {
        // Both take their time, which streams on this thread must not wait for.
        let span = tokio::task::block_in_place(|| {
            let is_wanted = !exchange.is_over()
                && !exchange.is_open()
                && !self.about.are_told.get(exchange.started_at(), exchange.since_start());
            is_wanted.then(|| exchange.begun(&self.about.root))
        });
        if let Some(span) = span {
            exchange.open();
            // Its end tells all of it again.
            let _ = self.teller.tell(self.record(RecordKind::Started, span)).await;
        }
    }

    /// Takes note of a call that is over. A short one waits: whether a run of the library had begun before it is not in
    /// the store yet.
    fn answered(&mut self, exchange: Arc<Exchange>, answered: Box<Answered>) {
        exchange.end();
        let span = self.about.purse.as_ref().map(|purse| {
            let span = tokio::task::block_in_place(|| exchange.ended(&self.about.root, &answered));
            purse.count(&span);
            span
        });
        let since = exchange.since_start();
        let wait = if exchange.is_open() { Duration::ZERO } else { self.about.are_told.after().saturating_sub(since) };
        let known_at = if wait.is_zero() { Instant::now() } else { self.next_look(Instant::now() + wait) };
        let place = self.over.iter().rposition(|over| over.known_at <= known_at).map_or(0, |before| before + 1);
        self.over.insert(place, Over { known_at, exchange, answered, span });
    }

    /// Returns the next time after one at which the store is looked into: calls that are near each other share a look.
    fn next_look(&self, after: Instant) -> Instant {
        let since = after.saturating_duration_since(self.begun).as_millis();
        let looks = since.div_ceil(AreTold::HOLDS.as_millis());
        self.begun + AreTold::HOLDS * u32::try_from(looks).unwrap_or(u32::MAX)
    }

    /// Begins to tell the next call of those that are over, unless somebody else does.
    async fn settle_next(&mut self) {
        let Some(Over { exchange, answered, span, .. }) = self.over.pop_front() else { return };
        let span = tokio::task::block_in_place(|| {
            let is_wanted =
                exchange.is_open() || !self.about.are_told.get(exchange.started_at(), exchange.since_start());
            is_wanted.then(|| span.unwrap_or_else(|| exchange.ended(&self.about.root, &answered)))
        });
        // What was copied is not needed any more.
        exchange.forget();
        drop(answered);
        let Some(span) = span else { return self.tally.settle() };
        while self.telling.len() >= AT_ONCE {
            let _ = self.telling.join_next().await;
        }
        let (teller, tally) = (self.teller.clone(), Arc::clone(&self.tally));
        let record = self.record(RecordKind::Ended, span);
        self.telling.spawn(async move {
            match teller.tell(record).await {
                Ok(()) => tally.settle(),
                Err(why) => tally.fail(why),
            }
        });
    }

    fn open_later(&self, exchange: Arc<Exchange>) {
        let says = self.says.clone();
        let after = OPEN_AFTER.max(self.about.are_told.after());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(says) = says.upgrade().filter(|_| !exchange.is_over()) {
                let _ = says.send(Said::Open(exchange));
            }
        });
    }

    fn record(&self, kind: RecordKind, span: Span) -> Record {
        let scope = Scope {
            name: names::SCOPE_EXEC.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Scope::default()
        };
        let resource = Arc::clone(&self.about.resource);
        Record { kind, resource, scope, span }
    }
}
