//! Tells calls, one after the other, beside the connections that they are on.

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::{MultiGzDecoder, ZlibDecoder};
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use runspan::model::otlp::{Resource, Scope, Span};
use runspan::model::record::{Record, RecordKind};
use runspan::propagation::SpanContext;
use runspan::server::Teller;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::call::Exchange;
use super::copy::Copied;

/// A call that is over sooner is told whole.
const OPEN_AFTER: Duration = Duration::from_millis(200);
/// Bytes that a packed answer may unpack to.
const UNPACKED: u64 = 16 << 20;

/// How a body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All of it passed.
    Whole,
    /// Who was to get it went away.
    Cancelled,
    /// It stopped in the middle.
    Broken(String),
    /// There was none: the server could not be reached.
    Unreachable(String),
}

/// What came back.
#[derive(Debug)]
pub struct Answered {
    pub status: Option<u16>,
    pub is_stream: bool,
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

    /// An answer, with a copy of its body.
    pub fn of(status: StatusCode, headers: &HeaderMap, copy: Copied, ending: Ending) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            status: Some(status.as_u16()),
            is_stream: text(CONTENT_TYPE).is_some_and(|kind| kind.trim_start().starts_with("text/event-stream")),
            encoding: text(CONTENT_ENCODING).map(str::to_ascii_lowercase).filter(|encoding| encoding != "identity"),
            copy: Some(copy),
            ending,
            at: Instant::now(),
        }
    }

    /// Returns the body as far as it can be read; of one that is cut, its beginning and its end.
    pub fn body(&self) -> Option<Vec<u8>> {
        let copy = self.copy.as_ref()?;
        let unpacked = |packed: &mut dyn Read| {
            let mut out = Vec::new();
            // What could be unpacked before it broke off is there.
            let _ = packed.take(UNPACKED).read_to_end(&mut out);
            out
        };
        match self.encoding.as_deref() {
            None => {
                let mut body = copy.head.clone();
                if copy.is_cut {
                    // In a stream the event that was cut stands alone, and is none.
                    body.extend_from_slice(b"\n\n");
                    body.extend_from_slice(&copy.tail());
                }
                Some(body)
            }
            Some("gzip" | "x-gzip") => Some(unpacked(&mut MultiGzDecoder::new(&copy.head[..]))),
            Some("deflate") => Some(unpacked(&mut ZlibDecoder::new(&copy.head[..]))),
            Some(_) => None,
        }
    }

    /// Tells whether not all of the body can be read here.
    pub fn is_cut(&self) -> bool {
        let is_unknown = self.encoding.as_deref().is_some_and(|name| !matches!(name, "gzip" | "x-gzip" | "deflate"));
        self.copy.as_ref().is_some_and(|copy| copy.is_cut || is_unknown)
    }
}

enum Said {
    Asked(Arc<Exchange>),
    Open(Arc<Exchange>),
    Answered(Arc<Exchange>, Box<Answered>),
}

/// Says what becomes of calls.
#[derive(Clone)]
pub struct Says(UnboundedSender<Said>);

impl Says {
    /// A request has passed.
    pub fn asked(&self, exchange: Arc<Exchange>, request: &[u8]) {
        exchange.ask(request);
        self.say(Said::Asked(exchange));
    }

    /// An answer has passed, or there is none.
    pub fn answered(&self, exchange: Arc<Exchange>, answered: Answered) {
        self.say(Said::Answered(exchange, Box::new(answered)));
    }

    /// What is queued holds its share of the budget for copies, so that it has a bound.
    fn say(&self, said: Said) {
        // Without a recorder the recording is over.
        let _ = self.0.send(said);
    }
}

/// What all calls of a command have in common.
pub struct Calls {
    pub root: SpanContext,
    pub resource: Arc<Resource>,
    /// Whether a program with the library is at work below: it tells its calls itself.
    pub are_told: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Tells calls.
pub struct Recorder {
    said: UnboundedReceiver<Said>,
    says: tokio::sync::mpsc::WeakUnboundedSender<Said>,
    teller: Teller,
    about: Calls,
}

impl Recorder {
    /// Makes it, and what it hears from. It ends when all of that is gone.
    pub fn new(teller: Teller, about: Calls) -> (Says, Self) {
        let (says, said) = unbounded_channel();
        let recorder = Self { said, says: says.downgrade(), teller, about };
        (Says(says), recorder)
    }

    /// Tells calls until there are no more.
    pub async fn work(mut self) {
        while let Some(said) = self.said.recv().await {
            match said {
                Said::Asked(exchange) => self.open_later(exchange),
                Said::Open(exchange) => {
                    // Both take their time, which streams on this thread must not wait for.
                    let span = tokio::task::block_in_place(|| {
                        let is_wanted = !exchange.is_over() && !(self.about.are_told)();
                        is_wanted.then(|| exchange.begun(&self.about.root))
                    });
                    if let Some(span) = span {
                        exchange.open();
                        self.tell(RecordKind::Started, span).await;
                    }
                }
                Said::Answered(exchange, answered) => {
                    exchange.end();
                    let span = tokio::task::block_in_place(|| {
                        let is_wanted = exchange.is_open() || !(self.about.are_told)();
                        is_wanted.then(|| exchange.ended(&self.about.root, &answered))
                    });
                    // What was copied is not needed any more.
                    drop(answered);
                    if let Some(span) = span {
                        self.tell(RecordKind::Ended, span).await;
                    }
                }
            }
        }
    }

    fn open_later(&self, exchange: Arc<Exchange>) {
        let says = self.says.clone();
        tokio::spawn(async move {
            tokio::time::sleep(OPEN_AFTER).await;
            if let Some(says) = says.upgrade().filter(|_| !exchange.is_over()) {
                let _ = says.send(Said::Open(exchange));
            }
        });
    }

    async fn tell(&self, kind: RecordKind, span: Span) {
        let scope = Scope {
            name: "runspan.exec".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Scope::default()
        };
        let resource = Arc::clone(&self.about.resource);
        // The end of the run says so if nothing can be stored; a call must not wait for it.
        let _ = self.teller.tell(Record { kind, resource, scope, span }).await;
    }
}
