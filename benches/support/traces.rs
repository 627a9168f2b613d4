//! Traces as agents send them: one agent, four model calls and five tool calls, 14 attributes a span.

use prost::Message;
use runspan::model::otlp::{Resource, ResourceSpans, Scope, ScopeSpans, Span, TracesData, Value};

/// Spans of a trace.
pub const SPANS: u64 = 10;
/// Model calls of a trace, and calls of tools.
pub const CALLS: u64 = 4;
pub const TOOL_CALLS: u64 = 5;
/// Tokens of a trace, in and out.
pub const TOKENS: [u64; 2] = [CALLS * 1_200 + 37 * (1 + 2 + 3 + 4), CALLS * 40 + (1 + 2 + 3 + 4)];
/// What stands in a template where a trace's own ids go: of the trace, and of its spans up to the last byte.
const TRACE_MARK: [u8; 14] = [0xa5; 14];
const SPAN_MARK: [u8; 6] = [0x5a; 6];
/// In texts, in place of the number of the trace.
const NUMBER_MARK: &[u8; 12] = b"#number----#";
/// The upper half of a time; the lower one has the microseconds since the request's begin.
const TIME_MARK: u64 = 0xc3c3_c3c3;

/// An encoded request of some traces, of which any number of others can be made by writing ids over ids.
pub struct Template {
    bytes: Vec<u8>,
    /// Where ids and numbers go, and which trace of the request they are of.
    places: Vec<(usize, usize, Place)>,
    traces: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Trace,
    Span,
    Number,
    Time,
}

impl Template {
    /// Makes the request for so many traces; each model call has so many bytes of text.
    pub fn new(traces: usize, text_bytes: usize) -> Self {
        let spans = (0..traces).flat_map(|trace| (0..SPANS).map(move |place| span(trace, place, text_bytes)));
        let mut resource = Resource::default();
        for (key, value) in [
            ("service.name", "support-agent"),
            ("service.version", "2.4.1"),
            ("telemetry.sdk.language", "python"),
            ("telemetry.sdk.name", "opentelemetry"),
            ("deployment.environment.name", "production"),
        ] {
            runspan::model::otlp::set(&mut resource.attributes, key, value.into());
        }
        let scope = Scope { name: "opentelemetry.instrumentation.agents".to_owned(), ..Scope::default() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: spans.collect(), ..ScopeSpans::default() }];
        let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
        let bytes = TracesData { resource_spans }.encode_to_vec();
        let places = places(&bytes);
        Self { bytes, places, traces }
    }

    /// Returns how many traces a request has.
    pub fn traces(&self) -> usize {
        self.traces
    }

    /// Returns the length of a request.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Makes the request of the traces from `first` on, which began at `begin`, in nanoseconds since 1970.
    pub fn request(&self, first: u64, begin: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (at, trace, place) in &self.places {
            let number = first + *trace as u64;
            match place {
                Place::Trace => bytes[*at..*at + 14].copy_from_slice(&trace_id(number)[..14]),
                Place::Span => bytes[*at..*at + 6].copy_from_slice(&mixed(number).to_be_bytes()[..6]),
                Place::Time => {
                    let micros = u32::from_le_bytes([bytes[*at], bytes[*at + 1], bytes[*at + 2], bytes[*at + 3]]);
                    bytes[*at..*at + 8].copy_from_slice(&(begin + u64::from(micros) * 1_000).to_le_bytes());
                }
                Place::Number => bytes[*at..*at + 12].copy_from_slice(format!("{number:012}").as_bytes()),
            }
        }
        bytes
    }

    /// Returns the id of a trace by its number and its place in the request, in hex.
    pub fn trace_id(&self, number: u64, place: usize) -> String {
        let mut id = trace_id(number);
        id[14..].copy_from_slice(&(place as u16).to_be_bytes());
        id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Returns the session of a trace.
pub fn session(number: u64) -> String {
    format!("conversation-{number:012}")
}

/// Returns the texts of the model calls of a trace.
pub fn texts(text_bytes: usize) -> Vec<String> {
    let (words, half) = (text_bytes.max(100), text_bytes.max(100) / 4);
    (1..=CALLS).flat_map(|place| [text(place, words - half), text(place + 10, half)]).collect()
}

fn trace_id(number: u64) -> [u8; 16] {
    u128::to_be_bytes(u128::from(mixed(!number)) << 64 | u128::from(mixed(number)))
}

/// SplitMix64's mixing.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Finds the marks. That of a trace ends with its place in the request, and what follows is of that trace.
fn places(bytes: &[u8]) -> Vec<(usize, usize, Place)> {
    let (mut places, mut at, mut trace) = (Vec::new(), 0, 0);
    while at + 16 <= bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(&TRACE_MARK) {
            trace = usize::from(u16::from_be_bytes([rest[14], rest[15]]));
            places.push((at, trace, Place::Trace));
            at += 16;
        } else if rest.starts_with(&SPAN_MARK) {
            places.push((at, trace, Place::Span));
            at += 8;
        } else if matches!(rest[0], 0x39 | 0x41) && rest[5..9] == (TIME_MARK as u32).to_le_bytes() {
            // Fields 7 and 8 of a span, eight bytes each.
            places.push((at + 1, trace, Place::Time));
            at += 9;
        } else if rest.starts_with(NUMBER_MARK) {
            places.push((at, trace, Place::Number));
            at += 12;
        } else {
            at += 1;
        }
    }
    places
}

const WORDS: [&str; 48] = [
    "the",
    "customer",
    "asks",
    "where",
    "order",
    "number",
    "is",
    "and",
    "when",
    "it",
    "will",
    "arrive",
    "please",
    "look",
    "up",
    "shipping",
    "status",
    "then",
    "answer",
    "politely",
    "parcel",
    "left",
    "our",
    "warehouse",
    "on",
    "Monday",
    "with",
    "carrier",
    "tracking",
    "shows",
    "delay",
    "because",
    "of",
    "weather",
    "in",
    "region",
    "refund",
    "can",
    "be",
    "offered",
    "if",
    "not",
    "there",
    "by",
    "Friday",
    "evening",
    "thank",
    "you",
];

/// Writes so many bytes of words, other ones for each place.
fn text(place: u64, bytes: usize) -> String {
    let (mut text, mut n) = (String::with_capacity(bytes + 16), place << 32);
    while text.len() < bytes {
        n += 1;
        let random = mixed(n);
        text.push_str(WORDS[(random % WORDS.len() as u64) as usize]);
        if random >> 60 == 0 {
            text.push_str(&format!(" {}", random >> 40 & 0xffff));
        }
        text.push(' ');
    }
    text.truncate(bytes);
    text
}

fn span(trace: usize, place: u64, text_bytes: usize) -> Span {
    let number = String::from_utf8_lossy(NUMBER_MARK);
    let id = |place: u64| [&SPAN_MARK[..], &(place as u16 + 1).to_be_bytes()].concat();
    let mut span = Span {
        trace_id: [&TRACE_MARK[..], &(trace as u16).to_be_bytes()].concat(),
        span_id: id(place),
        parent_span_id: if place == 0 { Vec::new() } else { id(0) },
        kind: 1,
        start_time_unix_nano: TIME_MARK << 32 | (trace as u64 * 1_000 + place * 100),
        end_time_unix_nano: TIME_MARK << 32 | (trace as u64 * 1_000 + if place == 0 { 999 } else { place * 100 + 90 }),
        ..Span::default()
    };
    let mut set = |key: &str, value: Value| span.set_attr(key, value);
    set("gen_ai.conversation.id", format!("conversation-{number}").into());
    set("gen_ai.agent.name", "support-agent".into());
    set("session.kind", "chat".into());
    set("enduser.tier", "gold".into());
    set("app.region", "eu-central-1".into());
    match place {
        0 => {
            span.name = "invoke_agent support-agent".to_owned();
            let mut set = |key: &str, value: Value| span.set_attr(key, value);
            set("gen_ai.operation.name", "invoke_agent".into());
            set("gen_ai.agent.id", "agent_5f2d".into());
            set("gen_ai.agent.description", "Answers questions about orders".into());
            set("gen_ai.request.model", "gpt-4o-mini".into());
            set("gen_ai.provider.name", "openai".into());
            set("app.request.id", format!("request-{number}").into());
            set("app.build", "2026.11.3".into());
            set("thread.id", 140_245.into());
            set("thread.name", "MainThread".into());
        }
        1..=4 => {
            span.name = "chat gpt-4o-mini".to_owned();
            span.kind = 3;
            let mut set = |key: &str, value: Value| span.set_attr(key, value);
            set("gen_ai.operation.name", "chat".into());
            set("gen_ai.provider.name", "openai".into());
            set("gen_ai.request.model", "gpt-4o-mini".into());
            set("gen_ai.response.model", "gpt-4o-mini-2024-07-18".into());
            set("gen_ai.response.id", format!("chatcmpl-{number}-{place}").into());
            set("gen_ai.request.temperature", 0.2.into());
            set("gen_ai.usage.input_tokens", (1_200 + place as i64 * 37).into());
            set("gen_ai.usage.output_tokens", (40 + place as i64).into());
            let (words, half) = (text_bytes.max(100), text_bytes.max(100) / 4);
            let message = |role: &str, text: String| {
                format!(r#"[{{"role":"{role}","parts":[{{"type":"text","content":"{number} {text}"}}]}}]"#)
            };
            set("gen_ai.input.messages", message("user", text(place, words - half)).into());
            set("gen_ai.output.messages", message("assistant", text(place + 10, half)).into());
        }
        _ => {
            span.name = "execute_tool find_order".to_owned();
            let mut set = |key: &str, value: Value| span.set_attr(key, value);
            set("gen_ai.operation.name", "execute_tool".into());
            set("gen_ai.tool.name", "find_order".into());
            set("gen_ai.tool.type", "function".into());
            set("gen_ai.tool.call.id", format!("call_{number}_{place}").into());
            set("gen_ai.tool.call.arguments", format!(r#"{{"order":"{number}","with":"{}"}}"#, text(place, 80)).into());
            set("gen_ai.tool.call.result", format!(r#"{{"found":true,"note":"{}"}}"#, text(place + 20, 160)).into());
            set("app.cache", "miss".into());
            set("app.rows", (place as i64).into());
            set("thread.id", 140_245.into());
        }
    }
    span
}
