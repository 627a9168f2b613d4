//! W3C context in headers and in the environment: how a run reaches into other processes.
//!
//! [`inject`] writes `traceparent`, `tracestate` and `baggage`, [`extract`] reads them; [`to_env`] and [`from_env`]
//! do the same for child processes, upper-cased, as the OpenTelemetry environment carrier has it. The run's own id
//! travels as the baggage member `runspan.run.id`, so a run begun elsewhere knows the run that caused it. The
//! `tracestate` and other baggage that came in go out again.

use std::process::Command;

use tracing::Span;

use crate::config::percent_decoded;
use crate::conventions::names::RUN_ID;
use crate::model::{SpanId, TraceId};
pub use crate::sources::context::{Attached, RemoteContext, SpanContext};
pub use crate::sources::layer::span_context;

/// W3C Baggage: at most this many members.
const MAX_MEMBERS: usize = 64;
/// W3C Baggage: at most this many bytes; the same bound for `tracestate` here.
const MAX_BYTES: usize = 8192;

/// Writes the current span's context as headers: calls `set` with each name and value.
///
/// Nothing is written when no recorded span is current.
pub fn inject(mut set: impl FnMut(&'static str, String)) {
    let current = Span::current();
    if let Some(context) = span_context(&current) {
        // What came in from other systems goes on, as W3C asks of whoever takes part in a trace.
        let origin = crate::sources::layer::origin(&current);
        inject_all(&context, origin.as_deref(), &mut set);
    }
}

/// Writes a given span's context as headers: `traceparent`, and the run's id as baggage.
pub fn inject_span(context: &SpanContext, set: &mut impl FnMut(&'static str, String)) {
    inject_all(context, None, set);
}

/// Does the same for a span below one of another process, whose `tracestate` and baggage go on.
pub fn inject_below(context: &SpanContext, origin: &RemoteContext, set: &mut impl FnMut(&'static str, String)) {
    inject_all(context, Some(origin), set);
}

fn inject_all(context: &SpanContext, origin: Option<&RemoteContext>, set: &mut impl FnMut(&'static str, String)) {
    set("traceparent", format!("00-{}-{}-{:02x}", context.trace_id, context.span_id, context.flags & 1));
    if let Some(state) = origin.map(|origin| &origin.trace_state).filter(|state| !state.is_empty()) {
        set("tracestate", state.clone());
    }
    let mut baggage = context.run_id.map(|run| format!("{RUN_ID}={run}")).unwrap_or_default();
    for (key, value) in origin.iter().flat_map(|origin| &origin.baggage) {
        let member = format!("{key}={}", percent_encoded(value));
        if baggage.len() + member.len() < MAX_BYTES {
            baggage.push_str(if baggage.is_empty() { "" } else { "," });
            baggage.push_str(&member);
        }
    }
    if !baggage.is_empty() {
        set("baggage", baggage);
    }
}

/// Escapes what may not stand in a value of W3C baggage.
fn percent_encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Reads a context from headers: calls `get` with each lower-case name.
///
/// `None` when there is no valid `traceparent`. What breaks a bound or the grammar is left out, never an error.
pub fn extract<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<RemoteContext> {
    let (trace_id, span_id, flags) = parse_traceparent(get("traceparent")?)?;
    let mut baggage = parse_baggage(get("baggage").unwrap_or(""));
    let run_id = baggage.iter().find(|(key, _)| key == RUN_ID).and_then(|(_, value)| value.parse().ok());
    baggage.retain(|(key, _)| key != RUN_ID);
    let trace_state = get("tracestate").filter(|state| state.len() <= MAX_BYTES).unwrap_or("").to_owned();
    Some(RemoteContext { span: SpanContext { trace_id, span_id, flags, run_id }, trace_state, baggage })
}

/// Sets `TRACEPARENT`, `TRACESTATE` and `BAGGAGE` for a child process, from the current span.
///
/// The child's own recorder, or any OpenTelemetry SDK that reads the environment, goes on in the same trace.
pub fn to_env(command: &mut Command) -> &mut Command {
    inject(|name, value| {
        command.env(name.to_ascii_uppercase(), value);
    });
    command
}

/// Reads the context that the parent process left in this process's environment.
pub fn from_env() -> Option<RemoteContext> {
    let variable = |name: &str| std::env::var(name.to_ascii_uppercase()).ok().filter(|value| !value.is_empty());
    let (parent, state, baggage) = (variable("traceparent")?, variable("tracestate"), variable("baggage"));
    extract(|name| match name {
        "traceparent" => Some(parent.as_str()),
        "tracestate" => state.as_deref(),
        "baggage" => baggage.as_deref(),
        _ => None,
    })
}

/// Parses `00-<32 hex>-<16 hex>-<2 hex>`. Later versions are read as far as this one goes; `ff` is invalid.
fn parse_traceparent(text: &str) -> Option<(TraceId, SpanId, u8)> {
    let text = text.trim();
    let mut parts = text.splitn(5, '-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_lower_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let extra_allowed = version != "00";
    if version.len() != 2
        || version == "ff"
        || flags.len() != 2
        || (parts.next().is_some() && !extra_allowed)
        || ![version, trace, span, flags].into_iter().all(is_lower_hex)
    {
        return None;
    }
    // Only the sampled bit is defined; unknown ones are not passed on.
    Some((trace.parse().ok()?, span.parse().ok()?, u8::from_str_radix(flags, 16).ok()? & 1))
}

fn parse_baggage(text: &str) -> Vec<(String, String)> {
    if text.len() > MAX_BYTES {
        return Vec::new();
    }
    text.split(',')
        .take(MAX_MEMBERS)
        .filter_map(|member| {
            // Properties behind a semicolon say nothing to us.
            let (key, value) = member.split(';').next()?.split_once('=')?;
            let key = key.trim();
            (!key.is_empty()).then(|| (key.to_owned(), percent_decoded(value.trim())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-019b92bfc5005c1de2a97f3b40d8b6e1-0102030405060708-01";

    fn read(parent: &str, baggage: &str) -> Option<RemoteContext> {
        extract(|name| match name {
            "traceparent" => Some(parent),
            "baggage" => Some(baggage),
            _ => None,
        })
    }

    #[test]
    fn what_goes_out_comes_in() {
        let context = SpanContext {
            trace_id: "019b92bfc5005c1de2a97f3b40d8b6e1".parse().unwrap(),
            span_id: "0102030405060708".parse().unwrap(),
            flags: 1,
            run_id: Some("01KE9BZH80BGEY5ABZ7D0DHDQ1".parse().unwrap()),
        };
        let mut headers = Vec::new();
        inject_span(&context, &mut |name, value| headers.push((name, value)));
        assert_eq!(
            headers,
            [("traceparent", PARENT.to_owned()), ("baggage", "runspan.run.id=01KE9BZH80BGEY5ABZ7D0DHDQ1".to_owned())]
        );
        let back = read(&headers[0].1, &headers[1].1).unwrap();
        assert_eq!(back, RemoteContext { span: context, trace_state: String::new(), baggage: Vec::new() });
    }

    #[test]
    fn what_other_systems_sent_goes_on() {
        use tracing_subscriber::layer::SubscriberExt;
        let dir = tempfile::tempdir().unwrap();
        let (layer, _guard) = crate::builder().store(dir.path()).build().unwrap();
        let incoming = extract(|name| match name {
            "traceparent" => Some(PARENT),
            "tracestate" => Some("vendor=1,other=2"),
            "baggage" => Some("tenant=a%2Cb,runspan.run.id=01KE9BZH80BGEY5ABZ7D0DHDQ1"),
            _ => None,
        });
        let mut headers = Vec::new();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _attached = incoming.unwrap().attach();
            let root = tracing::info_span!("handler");
            let _in_root = root.enter();
            tracing::info_span!("below").in_scope(|| inject(|name, value| headers.push((name, value))));
        });
        let get = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        assert_eq!(&get("traceparent").unwrap()[..35], &PARENT[..35]);
        assert_eq!(get("tracestate"), Some("vendor=1,other=2"));
        let baggage = get("baggage").unwrap();
        assert!(baggage.starts_with("runspan.run.id=") && baggage.ends_with(",tenant=a%2Cb"), "{baggage}");
        assert!(!baggage.contains("01KE9BZH80BGEY5ABZ7D0DHDQ1"), "the run is this process's own now: {baggage}");
    }

    #[test]
    fn hostile_headers_are_no_context_or_less_of_one() {
        for parent in [
            "",
            "00",
            "00-00000000000000000000000000000000-0102030405060708-01",
            "00-019b92bfc5005c1de2a97f3b40d8b6e1-0000000000000000-01",
            "ff-019b92bfc5005c1de2a97f3b40d8b6e1-0102030405060708-01",
            "00-019B92BFC5005C1DE2A97F3B40D8B6E1-0102030405060708-01",
            "00-019b92bfc5005c1de2a97f3b40d8b6e1-0102030405060708-01-more",
        ] {
            assert_eq!(read(parent, ""), None, "{parent}");
        }
        assert_eq!(read(PARENT, &"a=b,".repeat(5000)).map(|c| c.baggage.len()), Some(0));
        assert_eq!(read(PARENT, &"a=b,".repeat(100)).map(|c| c.baggage.len()), Some(64));
        let members = read(PARENT, "a=x%20y;prop=1, =b, c, runspan.run.id=nonsense").unwrap();
        assert_eq!((members.baggage, members.span.run_id), (vec![("a".into(), "x y".into())], None));
        assert_eq!(
            read("cc-019b92bfc5005c1de2a97f3b40d8b6e1-0102030405060708-ff-x", "").map(|c| c.span.flags),
            Some(1)
        );
    }
}
