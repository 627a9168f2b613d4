//! One call of a model: from when to when, and the span that tells it.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::HeaderMap;
use runspan::conventions::names;
use runspan::model::otlp::{KeyValue, STATUS_ERROR, Span, Status, Value};
use runspan::model::{SpanId, StepStatus, TraceId, UnixNanos};
use runspan::propagation::{self, SpanContext};
use runspan::replay::ask;
use runspan::server::budget::Share;
use serde_json::Value as Json;

use super::copy::Copied;
use super::keys::Keys;
use super::places::{Format, Route};
use super::recorder::{Answered, Ending, packed_by, unpack};
use super::{answer, events, json};

const CLIENT: i32 = 3;
const SAMPLED: u32 = 1;
const REMOTE: u32 = 0x300;
const STATUS_CODE: &str = "http.response.status_code";
const FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";

/// What was asked, with its share of the budget.
enum Asked {
    /// As it came: read as JSON, it takes many times as much.
    Unread(Copied),
    /// What it says, which was told with the start and is told once more with the end.
    Read(Vec<KeyValue>, Share),
}

/// A call under way.
pub struct Exchange {
    format: Format,
    provider: &'static str,
    host: String,
    port: Option<u16>,
    /// Where the program asked.
    relay_port: Option<u16>,
    /// What it was made with.
    keys: Keys,
    /// How its request is packed.
    encoding: Option<String>,
    /// The span of the program that calls, where it says so.
    caller: Option<(TraceId, SpanId)>,
    span_id: SpanId,
    started_at: UnixNanos,
    started: Instant,
    request: Mutex<Option<Asked>>,
    is_broken_off: AtomicBool,
    is_over: AtomicBool,
    is_open: AtomicBool,
    /// The one that was sent here, whose start was told.
    before: OnceLock<Arc<Exchange>>,
}

impl Exchange {
    /// Begins a call.
    pub fn new(format: Format, route: &Route<'_>, headers: &HeaderMap) -> Self {
        let context = propagation::extract(|name| headers.get(name).and_then(|value| value.to_str().ok()));
        // What is not sampled is not told by the program.
        let caller = context.filter(|context| context.span.flags & 1 == 1);
        Self {
            format,
            provider: route.provider(),
            host: route.host().to_owned(),
            port: route.port(),
            relay_port: None,
            keys: Keys::of(headers, route.query()),
            encoding: packed_by(headers),
            caller: caller.map(|caller| (caller.span.trace_id, caller.span.span_id)),
            span_id: SpanId::fresh(),
            started_at: UnixNanos::now(),
            started: Instant::now(),
            request: Mutex::default(),
            is_broken_off: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_open: AtomicBool::new(false),
            before: OnceLock::new(),
        }
    }

    /// Tells whether it may be the one that an answer has led from another to.
    pub fn is_after(&self, before: &Self) -> bool {
        let by = |exchange: &Self| (exchange.provider, exchange.caller);
        by(self) == by(before)
            && self.format == before.format
            && self.host == before.host
            && self.started >= before.started
    }

    /// Goes on with one that was sent here: the step that was told is this.
    pub fn go_on(&self, before: Arc<Self>) {
        let first = before.before.get().cloned().unwrap_or(before);
        // It is the only one that has led here.
        let _ = self.before.set(first);
    }

    /// Returns what a step began as.
    fn first(&self) -> &Self {
        self.before.get().map_or(self, |first| first)
    }

    /// Returns the span of one that was sent elsewhere, and with which nobody went on there: no call of a model.
    pub fn left(&self, root: &SpanContext) -> Span {
        let mut span = self.begun(root);
        span.attributes
            .retain(|attribute| attribute.key == names::HTTP_METHOD || attribute.key == names::SERVER_ADDRESS);
        span.name = "redirect".to_owned();
        span.end_time_unix_nano = span.start_time_unix_nano;
        span
    }

    /// Takes note of the port at which the program asked: it may say so, too.
    pub fn asked_at(mut self, port: u16) -> Self {
        self.relay_port = Some(port);
        self
    }

    /// Returns when it began.
    pub fn started_at(&self) -> UnixNanos {
        self.started_at
    }

    /// Returns how long ago that was.
    pub fn since_start(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes note of the request.
    pub fn ask(&self, request: Copied) {
        *self.asked() = Some(Asked::Unread(request));
    }

    fn asked(&self) -> MutexGuard<'_, Option<Asked>> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was asked, which is read once: it may be long.
    fn write_request(&self, span: &mut Span) {
        let mut asked = self.asked();
        match asked.take() {
            Some(Asked::Unread(request)) => {
                let before = span.attributes.len();
                self.read(&request, span);
                let said = span.attributes.get(before..).unwrap_or_default().to_vec();
                *asked = Some(Asked::Read(said, request.into_share()));
            }
            Some(Asked::Read(said, share)) => {
                span.attributes.extend_from_slice(&said);
                *asked = Some(Asked::Read(said, share));
            }
            None => {}
        }
    }

    /// Reads the request. One that is cut is no JSON any more: the answer still says what was used.
    fn read(&self, request: &Copied, span: &mut Span) {
        let body = match &self.encoding {
            None => Some(Cow::Borrowed(&request.head[..])),
            Some(way) => unpack(way, &request.head).map(Cow::Owned),
        };
        match body.filter(|_| !request.is_cut).map(|body| json::read(&body)) {
            Some(Ok(request)) => ask::write(self.format, &request, span),
            Some(Err(_)) if self.encoding.is_none() => {}
            // What is packed is cut as well where it unpacks to more than is read, or in another way.
            _ => span.set_attr(names::CUT, "request"),
        }
    }

    /// Lets go of the request, whose share of the budget others need.
    pub fn forget(&self) {
        *self.asked() = None;
    }

    /// Tells whether the program did not send all of its request.
    pub fn is_broken_off(&self) -> bool {
        self.is_broken_off.load(Ordering::Relaxed)
    }

    /// Takes note that it did not.
    pub fn break_off(&self) {
        self.is_broken_off.store(true, Ordering::Relaxed);
    }

    /// Tells whether its end is known.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Takes note that its end is known.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Tells whether its start was told.
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// Takes note that its start is told.
    pub fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    /// Returns the span as it begins. `root`: what it is below, unless the program says more.
    pub fn begun(&self, root: &SpanContext) -> Span {
        let (trace, parent, flags) = match self.caller {
            Some((trace, parent)) => (trace, parent, REMOTE),
            None => (root.trace_id, root.span_id, 0),
        };
        let mut span = Span {
            trace_id: trace.0.to_vec(),
            span_id: self.first().span_id.0.to_vec(),
            parent_span_id: parent.0.to_vec(),
            flags: SAMPLED | flags,
            kind: CLIENT,
            start_time_unix_nano: self.first().started_at.0,
            ..Span::default()
        };
        let operation = self.format.operation();
        span.set_attr(names::OPERATION, operation);
        span.set_attr(names::PROVIDER, self.provider);
        span.set_attr(names::RELAYED, Value::Bool(true));
        span.set_attr(names::HTTP_METHOD, "POST");
        span.set_attr(names::SERVER_ADDRESS, self.host.as_str());
        if let Some(port) = self.port {
            span.set_attr(names::SERVER_PORT, i64::from(port));
        }
        if let Some(port) = self.relay_port {
            span.set_attr(names::RELAY_PORT, i64::from(port));
        }
        self.write_request(&mut span);
        span.name = match span.attr_str(names::REQUEST_MODEL) {
            Some(model) => format!("{operation} {model}"),
            None => operation.to_owned(),
        };
        self.keys.take_out(&mut span);
        span
    }

    /// Returns the whole span.
    pub fn ended(&self, root: &SpanContext, answered: &Answered) -> Span {
        let mut span = self.begun(root);
        let first = self.first();
        let took = answered.at.saturating_duration_since(first.started);
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        span.end_time_unix_nano = first.started_at.0.saturating_add(took);
        if let Some(status) = answered.status {
            span.set_attr(STATUS_CODE, i64::from(status));
        }
        let body = answered.body();
        let is_asked = span.attr(names::REQUEST_STREAM) == Some(&Value::Bool(true));
        let is_stream = answered.is_stream(body.as_deref(), is_asked);
        let (said, is_complete) = if is_stream {
            let first = answered.copy.as_ref().and_then(|copy| copy.began);
            // What came when the program had gone came to nobody.
            if let Some(first) = first.filter(|first| *first <= answered.at) {
                let seconds = first.saturating_duration_since(self.started).as_secs_f64();
                span.set_attr(FIRST_CHUNK, Value::Double(seconds));
            }
            let folded = events::fold(self.format, body.as_deref().unwrap_or_default());
            // What was read on behind the program's back does not make it one that waited.
            let passed = answered.passed().map(|passed| events::fold(self.format, &passed).is_complete);
            (folded.answer, passed.unwrap_or(folded.is_complete))
        } else {
            (body.as_deref().and_then(|body| json::read(body).ok()).unwrap_or_default(), true)
        };
        answer::write(self.format, &said, &mut span);
        if answered.ending == Ending::Unasked {
            // A model does not answer half of a request, and nobody bills one.
            span.set_attr(names::COST_USD, Value::Double(0.0));
        }
        let is_cut = answered.is_cut(body.as_deref());
        if is_cut {
            span.set_attr(names::CUT, "answer");
        }
        if let Some((kind, message, status)) = failure(answered, &said, is_stream, is_complete, is_cut) {
            span.set_attr(names::ERROR_TYPE, kind);
            span.status = Some(Status { code: STATUS_ERROR, message });
            if let Some(status) = status {
                span.set_attr(names::STEP_STATUS, status.as_str());
            }
        }
        self.keys.take_out(&mut span);
        span
    }
}

/// Returns why a call failed, if it did: class, message, and a status where it is no plain error.
fn failure(
    answered: &Answered,
    said: &Json,
    is_stream: bool,
    is_complete: bool,
    is_cut: bool,
) -> Option<(String, String, Option<StepStatus>)> {
    let is_refused = answered.status.is_some_and(|status| status >= 400);
    if let Some((kind, message)) = answer::error(said) {
        return Some((kind, message, None));
    }
    if let Some(status) = answered.status.filter(|_| is_refused) {
        return Some((status.to_string(), format!("the model's server answered {status}"), None));
    }
    match &answered.ending {
        Ending::Unreachable(why) => Some(("unreachable".to_owned(), why.clone(), None)),
        Ending::Disconnected(why) => Some(("disconnected".to_owned(), why.clone(), None)),
        Ending::Unasked => {
            let message = "the program did not send the whole request".to_owned();
            Some(("cancelled".to_owned(), message, Some(StepStatus::Cancelled)))
        }
        Ending::Broken(why) => Some(("broken_off".to_owned(), format!("the answer broke off: {why}"), None)),
        Ending::Cancelled if !is_complete || !is_stream => {
            let message = "the program did not wait for the whole answer".to_owned();
            Some(("cancelled".to_owned(), message, Some(StepStatus::Cancelled)))
        }
        Ending::Whole if !is_complete && !is_cut => {
            Some(("broken_off".to_owned(), "the answer broke off: its stream does not say its end".to_owned(), None))
        }
        Ending::Cancelled | Ending::Whole => None,
    }
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::super::copy;
    use super::super::places;
    use super::*;

    fn ended(format: Format, path: &str, status: u16, headers: &[(&'static str, &str)], body: &str) -> Span {
        ended_of("{}", format, path, status, headers, body)
    }

    fn ended_of(
        asked: &str,
        format: Format,
        path: &str,
        status: u16,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Span {
        let places = places::all(|_| None);
        let route = places::route(&places, &Method::POST, &path.parse().unwrap()).unwrap();
        let root = SpanContext { trace_id: TraceId([1; 16]), span_id: SpanId([2; 8]), flags: 1, run_id: None };
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let headers: HeaderMap = headers.into_iter().collect();
        let copy = Copied::of(body.as_bytes(), &copy::budget());
        let answered = Answered::of(hyper::StatusCode::from_u16(status).unwrap(), &headers, copy, Ending::Whole);
        let exchange = Exchange::new(format, &route, &HeaderMap::new());
        exchange.ask(Copied::of(asked.as_bytes(), &copy::budget()));
        exchange.ended(&root, &answered)
    }

    /// A stream by `StreamingResponse` of FastAPI has no type unless it is given one.
    #[test]
    fn a_stream_is_one_whatever_its_type_says() {
        let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}"#;
        let body = format!(": hello\n\n{usage}\n\ndata: [DONE]\n\n");
        for kind in
            [&[][..], &[("content-type", "text/plain")], &[("content-type", "Text/Event-Stream; charset=utf-8")]]
        {
            let span = ended(Format::Chat, "/openai/chat/completions", 200, kind, &body);
            assert_eq!(span.attr(names::INPUT_TOKENS), Some(&Value::Int(7)), "{kind:?}");
            assert!(span.status.is_none() && span.attr(FIRST_CHUNK).is_some());
        }
        let broken = ended(Format::Chat, "/openai/chat/completions", 200, &[], "data: {\"choices\":[]}\n\n");
        assert_eq!(broken.attr_str(names::ERROR_TYPE), Some("broken_off"));
    }

    /// A server may say so in plain words, of a program that did not ask for a stream.
    #[test]
    fn text_that_begins_as_a_stream_is_none() {
        let at = "/openai/chat/completions";
        let plain = [("content-type", "text/plain")];
        let span = ended(Format::Chat, at, 200, &plain, "data: none today");
        assert_eq!((span.status.is_some(), span.attr(FIRST_CHUNK)), (false, None));
        let of_events = [("content-type", "text/event-stream")];
        assert!(ended(Format::Chat, at, 200, &of_events, "data: none today").status.is_some());
        let asked = r#"{"model":"m","stream":true}"#;
        assert!(ended_of(asked, Format::Chat, at, 200, &plain, "data: none today").status.is_some());
        let done = ended(Format::Chat, at, 200, &plain, ": hm\r\nevent: a\r\ndata: [DONE]\r\n\r\n");
        assert!(done.attr(FIRST_CHUNK).is_some());
    }

    #[test]
    fn a_call_whose_start_was_told_goes_on_where_it_is_sent() {
        let places = places::all(|_| None);
        let root = SpanContext { trace_id: TraceId([1; 16]), span_id: SpanId([2; 8]), flags: 1, run_id: None };
        let exchange = |path: &str, format| {
            let route = places::route(&places, &Method::POST, &path.parse().unwrap()).unwrap();
            Arc::new(Exchange::new(format, &route, &HeaderMap::new()))
        };
        let begun = exchange("/openai/chat/completions", Format::Chat);
        let second = exchange("/openai-server/a/chat/completions", Format::Chat);
        let third = exchange("/openai-server/b/chat/completions", Format::Chat);
        assert!(second.is_after(&begun) && !begun.is_after(&second));
        assert!(!exchange("/openai/responses", Format::Responses).is_after(&begun));
        assert!(!exchange("/groq/openai/v1/chat/completions", Format::Chat).is_after(&begun));
        second.go_on(Arc::clone(&begun));
        third.go_on(second);
        let (first, last) = (begun.begun(&root), third.ended(&root, &Answered::none(Ending::Whole)));
        assert_eq!((&first.span_id, first.start_time_unix_nano), (&last.span_id, last.start_time_unix_nano));
        let left = begun.left(&root);
        assert_eq!((left.span_id, left.name.as_str()), (first.span_id, "redirect"));
        assert_eq!(left.attributes.iter().filter(|attribute| attribute.key.starts_with("gen_ai")).count(), 0);
    }

    #[test]
    fn a_request_is_kept_as_it_came_with_its_share_of_the_budget() {
        let places = places::all(|_| None);
        let route = places::route(&places, &Method::POST, &"/openai/chat/completions".parse().unwrap()).unwrap();
        let root = SpanContext { trace_id: TraceId([1; 16]), span_id: SpanId([2; 8]), flags: 1, run_id: None };
        let budget = copy::budget();
        let asked = |request: &[u8]| {
            let exchange = Exchange::new(Format::Chat, &route, &HeaderMap::new());
            exchange.ask(Copied::of(request, &budget));
            exchange
        };
        let request = br#"{"model": "gpt-4o-mini"}"#;
        let exchange = asked(request);
        let begun = exchange.begun(&root);
        assert_eq!((budget.taken(), begun.name.as_str()), (request.len(), "chat gpt-4o-mini"));
        // Where the program asked: its own spans may say so, too.
        let port = Exchange::new(Format::Chat, &route, &HeaderMap::new()).asked_at(36911).begun(&root);
        assert_eq!(port.attr(names::RELAY_PORT), Some(&Value::Int(36911)));
        // Told with its end as with its start, and read once.
        assert!(matches!(&*exchange.asked(), Some(Asked::Read(said, _)) if said.len() == 1));
        assert_eq!((exchange.begun(&root), budget.taken()), (begun, request.len()));
        exchange.forget();
        assert_eq!(budget.taken(), 0);
        // Packed, it is read as far as that may be.
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packer, request).unwrap();
        let packed = packer.finish().unwrap();
        let headers: HeaderMap = [(hyper::header::CONTENT_ENCODING, "GZip".parse().unwrap())].into_iter().collect();
        let exchange = Exchange::new(Format::Chat, &route, &headers);
        exchange.ask(Copied::of(&packed, &budget));
        assert_eq!(exchange.begun(&root).name, "chat gpt-4o-mini");
        exchange.forget();
        // Eight of 8 MiB are what all copies may take.
        let held: Vec<Exchange> = (0..8).map(|_| asked(&vec![b' '; 8 << 20])).collect();
        let span = asked(request).begun(&root);
        assert_eq!((span.name.as_str(), span.attr_str(names::CUT)), ("chat", Some("request")));
        drop(held);
        assert_eq!(budget.taken(), 0);
    }
}
