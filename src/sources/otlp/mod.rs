//! The receiver's side of OTLP: the body of an export request, span by span.
//!
//! What a request holds is counted on its bytes before anything is made of it, and each span is decoded by itself: one
//! that is broken costs itself, and the answer says so. Numbers that are too large for one span cut that span, with a
//! count of what is missing where OTLP has one.

mod around;
mod json;
mod logs;
mod metrics;
mod protobuf;
mod shorten;
mod surplus;
mod tidy;

use std::collections::BTreeMap;
use std::fmt;

use around::Around;
pub use metrics::metrics_as_protobuf;
pub(crate) use shorten::hold;

use crate::conventions::names;
use crate::model::otlp::Span;
use crate::model::record::{Record, RecordKind};
use crate::model::{SpanId, TraceId, UnixNanos};

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`, and gRPC.
    Protobuf,
    /// `application/json`.
    Json,
}

/// What a request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Records of logs.
    Logs,
}

impl Signal {
    /// Tells what a request in protobuf that came without its address is of; `None` for metrics.
    pub fn of_protobuf(body: &[u8]) -> Option<Self> {
        protobuf::signal_of(body)
    }
}

/// What one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Spans of a request; one with more is refused whole.
    pub spans: usize,
    /// Attributes of a span, and of each of its events and links; the rest are left out and counted.
    pub attributes: usize,
    /// Events of a span; the rest are left out and counted.
    pub events: usize,
    /// Links of a span; the rest are left out and counted.
    pub links: usize,
    /// Values that a span's attributes may hold, those in lists and maps too; a span with more is rejected.
    pub values: usize,
    /// Values, events and links of a request together; one with more is refused whole.
    pub all_values: usize,
    /// Bytes of one span or record, as protobuf; of a larger one the longest texts are cut, and where that does not help, it is rejected.
    /// The same holds for a resource.
    pub span_bytes: usize,
    /// The same of a scope, which is stored with each of its spans.
    pub scope_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            spans: 65_536,
            attributes: 4_096,
            events: 4_096,
            links: 1_024,
            values: 262_144,
            all_values: 2_097_152,
            span_bytes: 12 << 20,
            scope_bytes: 1 << 20,
        }
    }
}

impl Limits {
    /// Adds what runspan itself writes on a span that holds as much as it may: what it told in other names in ours, its cost, whose
    /// it is. What was given out comes back whole by these.
    #[must_use]
    pub fn with_ours(self) -> Self {
        const ATTRIBUTES: usize = 512;
        const BYTES: usize = 64 << 10;
        let Self { attributes, values, span_bytes, .. } = self;
        Self { attributes: attributes + ATTRIBUTES, values: values * 2, span_bytes: span_bytes + BYTES, ..self }
    }
}

/// What came of a request's body.
#[derive(Debug, Default)]
pub struct Received {
    /// Its good spans, in the sender's order, unless they are handed on one by one.
    pub records: Vec<Record>,
    /// Its broken ones.
    pub rejected: Rejected,
    /// Records of logs that tell nothing of GenAI, or not of what.
    pub not_kept: u64,
    /// Records that tell the end of a call of which another record of the request may have the span.
    unplaced: Vec<logs::Unplaced>,
    /// The beginnings of such calls.
    begun: Vec<logs::Begun>,
    /// What the sender should know of although no span was lost by it.
    pub warnings: Vec<String>,
    /// How many spans or records had more in their lists than they may, and the place of the first.
    cut: Option<(u64, usize)>,
    /// Of how many texts were cut, and the place of the first.
    shortened: Option<(u64, usize)>,
    /// The same of how many in their resources or scopes.
    shortened_around: Option<(u64, usize)>,
    /// What the records of logs that wait for others take.
    waiting_bytes: usize,
}

impl Received {
    fn of(signal: Signal) -> Self {
        let rejected = Rejected { of_logs: signal == Signal::Logs, ..Rejected::default() };
        Self { rejected, ..Self::default() }
    }

    /// Hands on what is ready, and has room made for what waits.
    fn hand_on(&mut self, desk: &mut dyn Desk) -> Result<(), BadBody> {
        self.records.drain(..).try_for_each(|record| desk.take(record))?;
        if self.waiting_bytes > 0 { desk.make_room(self.waiting_bytes) } else { Ok(()) }
    }

    /// Notes that a span or record of a log had more in its lists than one may have.
    fn note_cut(&mut self, place: usize) {
        note(&mut self.cut, place);
    }

    /// Tells the sender of what was cut.
    fn warn_of_cuts(&mut self, limits: &Limits) {
        let Limits { attributes, events, links, .. } = limits;
        let (what, lists) = if self.rejected.of_logs {
            ("record", format!("{attributes} attributes"))
        } else {
            ("span", format!("{attributes} attributes, {events} events and {links} links"))
        };
        let of = |(count, first)| {
            let others = if count > 1 { format!(", and of {} others", count - 1) } else { String::new() };
            format!("of {what} {first} of the request{others}")
        };
        let cut = self
            .cut
            .map(|cut| format!("{} what is beyond {lists} was left out, and is counted in it as dropped", of(cut)));
        let shortened = self.shortened.map(|cut| {
            format!(
                "{} the longest texts were cut, with a mark: a {what} may have {} bytes",
                of(cut),
                limits.span_bytes
            )
        });
        let around = self.shortened_around.map(|cut| {
            let Limits { span_bytes, scope_bytes, .. } = limits;
            format!(
                "{} the longest texts of the resource or scope were cut, with a mark: a resource may have {span_bytes} bytes, \
                 a scope {scope_bytes}",
                of(cut)
            )
        });
        self.warnings.extend(cut.into_iter().chain(shortened).chain(around));
    }
}

/// Counts one more, at this place.
fn note(noted: &mut Option<(u64, usize)>, place: usize) {
    let (count, first) = noted.unwrap_or((0, place));
    *noted = Some((count + 1, first.min(place)));
}

/// Spans that cannot be taken, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// How many, by the reason as the contract has it.
    pub by_reason: BTreeMap<&'static str, u64>,
    /// The first one, for the sender: which span, which field, and what is wrong.
    pub first: Option<String>,
    /// Its place in the request: spans are not always looked at in their order.
    first_place: usize,
    /// They are records of logs and not spans.
    pub of_logs: bool,
}

impl Rejected {
    /// Returns how many there are.
    pub fn count(&self) -> u64 {
        self.by_reason.values().sum()
    }

    /// Adds one that was decoded, and of which the place is not known any more: `what` names it.
    pub fn add_later(&mut self, what: &str, reason: &'static str, why: &str) {
        *self.by_reason.entry(reason).or_default() += 1;
        self.first.get_or_insert_with(|| format!("{what}: {why}"));
    }

    fn add(&mut self, place: usize, reason: &'static str, why: &str) {
        *self.by_reason.entry(reason).or_default() += 1;
        if self.first.is_none() || place < self.first_place {
            let what = if self.of_logs { "record" } else { "span" };
            self.first = Some(format!("{what} {place} of the request: {why}"));
            self.first_place = place;
        }
    }
}

/// Why nothing of a body can be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadBody {
    /// It is not what it says it is.
    Malformed {
        /// What is wrong, and where.
        why: String,
    },
    /// It holds more spans than one request may.
    TooManySpans {
        /// At least so many.
        found: usize,
        /// The bound.
        max: usize,
    },
    /// It holds more attributes, events and links than one request may.
    TooManyValues {
        /// The bound.
        max: usize,
    },
    /// Whoever takes its records has no room for what is made of it.
    NoRoom,
}

impl fmt::Display for BadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { why } => f.write_str(why),
            Self::TooManySpans { found, max } => {
                write!(f, "the request holds {found} spans or more, and one may hold {max}: send smaller batches")
            }
            Self::TooManyValues { max } => {
                write!(f, "the request holds more than {max} attributes, events and links: send smaller batches")
            }
            Self::NoRoom => f.write_str("there is no room for what is made of the request"),
        }
    }
}

/// Who takes the records of a request, one by one.
pub trait Desk {
    /// Is asked before something of a request is made that takes about so many bytes, until the next is made.
    ///
    /// # Errors
    ///
    /// [`BadBody::NoRoom`], and then nothing more of the request is read.
    fn make_room(&mut self, bytes: usize) -> Result<(), BadBody>;

    /// Is asked before something is made that takes about so many bytes until the whole request is taken.
    ///
    /// # Errors
    ///
    /// As [`make_room`](Self::make_room).
    fn keep_room(&mut self, bytes: usize) -> Result<(), BadBody>;

    /// Takes a record.
    ///
    /// # Errors
    ///
    /// As [`make_room`](Self::make_room).
    fn take(&mut self, record: Record) -> Result<(), BadBody>;
}

/// One with room for all.
impl<F: FnMut(Record)> Desk for F {
    fn make_room(&mut self, _: usize) -> Result<(), BadBody> {
        Ok(())
    }

    fn keep_room(&mut self, _: usize) -> Result<(), BadBody> {
        Ok(())
    }

    fn take(&mut self, record: Record) -> Result<(), BadBody> {
        self(record);
        Ok(())
    }
}

/// In which order records are handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    AsSent,
    AsBegun,
}

/// Decodes the body of an export request and hands its good spans on, in the order in which they began: children end
/// first and come first.
///
/// They are decoded one by one, so that not all of them are in memory together.
///
/// # Errors
///
/// [`BadBody`], and then nothing of it counts as taken. An empty body is an empty request.
pub fn each(
    body: &[u8],
    signal: Signal,
    encoding: Encoding,
    limits: &Limits,
    desk: &mut dyn Desk,
) -> Result<Received, BadBody> {
    walk(body, signal, encoding, limits, Order::AsBegun, desk)
}

/// Decodes the body of a trace export request, its spans in the sender's order.
///
/// # Errors
///
/// As [`each`].
pub fn traces(body: &[u8], encoding: Encoding, limits: &Limits) -> Result<Received, BadBody> {
    received(body, Signal::Traces, encoding, limits)
}

fn received(body: &[u8], signal: Signal, encoding: Encoding, limits: &Limits) -> Result<Received, BadBody> {
    let mut records = Vec::new();
    let mut take = |record| records.push(record);
    let received = walk(body, signal, encoding, limits, Order::AsSent, &mut take)?;
    Ok(Received { records, ..received })
}

fn walk(
    body: &[u8],
    signal: Signal,
    encoding: Encoding,
    limits: &Limits,
    order: Order,
    desk: &mut dyn Desk,
) -> Result<Received, BadBody> {
    match encoding {
        Encoding::Protobuf => protobuf::each(body, signal, limits, order, desk),
        Encoding::Json => json::each(body, signal, limits, order, desk),
    }
}

impl Received {
    /// Takes a span whose ids are ids, and rejects any other.
    fn take(&mut self, place: usize, around: &Around, mut span: Span) {
        if TraceId::from_bytes(&span.trace_id).is_none() {
            let why = bad_id("trace_id", &span.trace_id, 16);
            return self.rejected.add(place, "bad_id", &why);
        }
        if SpanId::from_bytes(&span.span_id).is_none() {
            let why = bad_id("span_id", &span.span_id, 8);
            return self.rejected.add(place, "bad_id", &why);
        }
        if span.parent_span_id.iter().all(|byte| *byte == 0) {
            // Some senders write a root's missing parent as zeros.
            span.parent_span_id.clear();
        } else if span.parent_span_id.len() != 8 {
            let why = bad_id("parent_span_id", &span.parent_span_id, 8);
            return self.rejected.add(place, "bad_id", &why);
        }
        let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
        if start == 0 || end < start || start > UnixNanos::now().0.saturating_add(AHEAD) {
            span.set_attr(names::CLOCK_SKEW, true);
        }
        // A span that was exported is over, whatever its clock says; 0 would make it one that is open.
        span.end_time_unix_nano = span.end_time_unix_nano.max(span.start_time_unix_nano).max(1);
        self.records.push(around.record(RecordKind::Ended, span));
    }
}

/// A clock may be so many nanoseconds ahead of ours before it is told: a day, for those who send local time as UTC.
const AHEAD: u64 = 86_400_000_000_000;

fn bad_id(field: &str, id: &[u8], bytes: usize) -> String {
    if id.len() == bytes {
        format!("{field} is all zeros")
    } else {
        format!("{field} has {} bytes and not {bytes}", id.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::otlp::{Resource, ResourceSpans, Scope, ScopeSpans, TracesData};
    use prost::Message;

    #[test]
    fn spans_are_handed_on_as_they_began_whatever_their_order_and_the_first_broken_one_is_named() {
        let span = |id: u8, parent: u8, start: u64| Span {
            trace_id: vec![1; 16],
            span_id: vec![id; if id == 0 { 3 } else { 8 }],
            // A root's missing parent may be written as zeros.
            parent_span_id: vec![parent; 8],
            start_time_unix_nano: start,
            end_time_unix_nano: 9,
            ..Span::default()
        };
        let of_scope = |spans| ScopeSpans { scope: Some(Scope::default()), spans, ..ScopeSpans::default() };
        let scope_spans = vec![
            of_scope(vec![span(3, 1, 5), span(0, 1, 4), span(2, 1, 2)]),
            of_scope(vec![span(0, 1, 1), span(1, 0, 2), span(4, 1, 5)]),
        ];
        let resource = Some(Resource::default());
        let request =
            TracesData { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] };
        let told = |body: &[u8], encoding| {
            let mut order = Vec::new();
            let mut take = |record: Record| order.push(record.span.span_id[0]);
            let each = each(body, Signal::Traces, encoding, &Limits::default(), &mut take);
            let Received { records, rejected, .. } = each.unwrap();
            (order, records.len(), rejected.count(), rejected.first.unwrap())
        };
        let first = "span 1 of the request: span_id has 3 bytes and not 8".to_owned();
        let expected = (vec![1, 2, 3, 4], 0, 2, first);
        assert_eq!(told(&request.encode_to_vec(), Encoding::Protobuf), expected);
        assert_eq!(told(&serde_json::to_vec(&request).unwrap(), Encoding::Json), expected);
    }

    /// What becomes of the spans of a request.
    fn received_as(spans: Vec<Span>, limits: &Limits, encoding: Encoding) -> Received {
        let scope_spans = vec![ScopeSpans { scope: Some(Scope::default()), spans, ..ScopeSpans::default() }];
        let resource = Some(Resource::default());
        let request =
            TracesData { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] };
        let body = match encoding {
            Encoding::Protobuf => request.encode_to_vec(),
            Encoding::Json => serde_json::to_vec(&request).unwrap(),
        };
        received(&body, Signal::Traces, encoding, limits).unwrap()
    }

    #[test]
    fn what_is_sent_to_the_place_of_another_signal_is_refused() {
        let told = |body: &str, signal| {
            received(body.as_bytes(), signal, Encoding::Json, &Limits::default())
                .map(drop)
                .map_err(|bad| bad.to_string())
        };
        let begin = "the body is not an OTLP export request in JSON: it has ";
        assert_eq!(
            told(r#"{"resource_spans":[]}"#, Signal::Logs),
            Err(format!("{begin}\"resourceSpans\" and no \"resourceLogs\", and belongs to /v1/traces"))
        );
        assert_eq!(
            told(r#"{"resourceLogs":[]}"#, Signal::Traces),
            Err(format!("{begin}\"resourceLogs\" and no \"resourceSpans\", and belongs to /v1/logs"))
        );
        // What a later version adds is passed over, and so is an empty request.
        for body in ["{}", r#"{"resourceProfiles":[]}"#, r#"{"resourceSpans":null,"resourceMetrics":[]}"#] {
            assert_eq!(told(body, Signal::Traces), Ok(()), "{body}");
        }
    }

    pub(super) fn of_times(start: u64, end: u64) -> Span {
        Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            ..Span::default()
        }
    }

    #[test]
    fn what_is_left_out_of_a_span_is_told_to_its_sender() {
        let limits = Limits { attributes: 2, events: 1, ..Limits::default() };
        let [few, many, full] = [2, 5, 1].map(|n| {
            let mut span = of_times(1, 2);
            (0..n).for_each(|n| span.set_attr(&format!("a{n}"), n));
            span
        });
        let full = Span { events: vec![crate::model::otlp::SpanEvent::default(); 3], ..full };
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let one = received_as(vec![few.clone(), many.clone()], &limits, encoding);
            assert_eq!(
                one.warnings,
                [
                    "of span 1 of the request what is beyond 2 attributes, 1 events and 1024 links was left out, and is counted in \
                     it as dropped"
                ]
            );
            assert_eq!(one.records[1].span.dropped_attributes_count, 3);
            let two = received_as(vec![many.clone(), full.clone()], &limits, encoding);
            assert!(
                two.warnings[0].starts_with("of span 0 of the request, and of 1 others what"),
                "{:?}",
                two.warnings
            );
            assert_eq!((two.rejected.count(), two.records.len()), (0, 2));
            assert_eq!(received_as(vec![few.clone()], &limits, encoding).warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn what_a_call_used_stays_behind_a_conversation_that_is_too_long() {
        let mut span = of_times(1, 2);
        for n in 0..3_000 {
            span.set_attr(&format!("llm.input_messages.{n}.message.role"), "user");
            span.set_attr(&format!("llm.input_messages.{n}.message.content"), "Rain?");
        }
        span.set_attr("llm.output_messages.0.message.content", "Yes.");
        span.set_attr("llm.model_name", "gpt-4o");
        span.set_attr("llm.token_count.prompt", 12_000);
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let received = received_as(vec![span.clone()], &Limits::default(), encoding);
            let span = &received.records[0].span;
            assert_eq!((span.attributes.len(), span.dropped_attributes_count), (4_096, 1_907));
            let has = |key: &str| span.attr(key).is_some();
            assert!(has("llm.model_name") && has("llm.token_count.prompt"), "{encoding:?}");
            assert!(has("llm.output_messages.0.message.content"), "{encoding:?}");
            assert!(has("llm.input_messages.2045.message.role") && !has("llm.input_messages.2047.message.role"));
        }
    }

    #[test]
    fn a_span_whose_times_cannot_be_right_says_so() {
        let now = UnixNanos::now().0;
        let times = [
            (now - 2, now - 1, false),
            (now - 1, now - 1, false),
            // A clock that is some hours ahead.
            (now + AHEAD / 2, now + AHEAD / 2, false),
            (now + 2 * AHEAD, now + 2 * AHEAD, true),
            (now, now - 1, true),
            (now, 0, true),
            (0, now, true),
            (u64::MAX, u64::MAX, true),
        ];
        for (start, end, expected) in times {
            let received = received_as(vec![of_times(start, end)], &Limits::default(), Encoding::Protobuf);
            assert_eq!(received.records[0].span.attr(names::CLOCK_SKEW).is_some(), expected, "{start} {end}");
        }
    }
}
