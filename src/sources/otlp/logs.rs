//! Records of logs that tell of GenAI.
//!
//! One that bears a span's id joins that span. One that bears none, of an emitter that writes logs alone, is a step of a
//! run by conversation and prompt. All others are not kept: the answer says so.

use std::sync::Arc;

use super::{Around, Received, surplus};
use crate::conventions::dialects::logs::{EVENTS, PAIRS, SHARED};
use crate::conventions::names;
use crate::model::otlp::{KeyValue, LogRecord, Span, SpanEvent, Value, find};
use crate::model::record::RecordKind;
use crate::model::{SpanId, TraceId};
use crate::sources::log_step::{duration, step_of};

/// How far the two records of a call may be apart on when it began, in nanoseconds: the end of a stream is logged late.
const NEAR: u64 = 100_000_000;
/// Calls of one request of which the ends are looked after.
const MAX_PAIRS: usize = 512;

/// The end of a call, whose record bears no span's id.
#[derive(Debug)]
pub(super) struct Unplaced {
    around: Arc<Around>,
    log: LogRecord,
    name: String,
}

/// The beginning of a call, whose record does.
#[derive(Debug)]
pub(super) struct Begun {
    event: &'static str,
    shared: Vec<Option<String>>,
    at: u64,
    trace_id: Vec<u8>,
    span_id: Vec<u8>,
}

/// Returns how far each end and each beginning that may be one call's are apart, the nearest first.
fn distances(ends: &[Option<Unplaced>], begun: &[Option<Begun>]) -> Vec<(u64, usize, usize)> {
    let mut found = Vec::new();
    for (place, end) in ends.iter().enumerate().take(MAX_PAIRS) {
        let Some(end) = end else { continue };
        let (of, began) = (shared(&end.log), time_of(&end.log).saturating_sub(duration(&end.log.attributes)));
        for (begin_place, begin) in begun.iter().enumerate().take(MAX_PAIRS) {
            let Some(begin) = begin else { continue };
            let is_pair = PAIRS.iter().any(|(event, answer)| *event == begin.event && *answer == end.name);
            let apart = begin.at.abs_diff(began);
            if is_pair && begin.shared == of && apart <= NEAR {
                found.push((apart, place, begin_place));
            }
        }
    }
    found.sort_unstable();
    found
}

fn shared(log: &LogRecord) -> Vec<Option<String>> {
    let text = |key: &&str| find(&log.attributes, key).and_then(Value::as_str).map(str::to_owned);
    SHARED.iter().map(text).collect()
}

impl Received {
    /// Gives the ends of calls to the spans that their beginnings name, each to the one that began nearest, in the same
    /// conversation and for the same model; each beginning once. Called when all of the request is there.
    pub(super) fn place_logs(&mut self) {
        let mut unplaced: Vec<Option<Unplaced>> = std::mem::take(&mut self.unplaced).into_iter().map(Some).collect();
        let mut begun: Vec<Option<Begun>> = std::mem::take(&mut self.begun).into_iter().map(Some).collect();
        for (_, end, begin) in distances(&unplaced, &begun) {
            if unplaced[end].is_none() || begun[begin].is_none() {
                continue;
            }
            let (Some(end), Some(begin)) = (unplaced[end].take(), begun[begin].take()) else { continue };
            let Unplaced { around, mut log, name } = end;
            (log.trace_id, log.span_id) = (begin.trace_id, begin.span_id);
            let span = event_span(log, name);
            self.records.push(around.record(RecordKind::Event, span));
        }
        // What nothing of the request belongs to may be of an emitter that writes logs alone.
        for Unplaced { around, log, name } in unplaced.into_iter().flatten() {
            match step_span(log, name) {
                Some(span) => self.records.push(around.record(RecordKind::Ended, span)),
                None => self.not_kept += 1,
            }
        }
    }

    /// Takes a record that tells of GenAI and takes about so many bytes, and counts any other as not kept.
    pub(super) fn take_log(&mut self, around: &Arc<Around>, log: LogRecord, bytes: usize) {
        let name = name_of(&log);
        let is_genai = EVENTS.iter().any(|start| name.starts_with(start));
        let ids = (TraceId::from_bytes(&log.trace_id), SpanId::from_bytes(&log.span_id));
        if let (Some((event, _)), (Some(_), Some(_))) = (PAIRS.iter().find(|(begin, _)| *begin == name), ids) {
            let (trace_id, span_id) = (log.trace_id.clone(), log.span_id.clone());
            self.begun.push(Begun { event, shared: shared(&log), at: time_of(&log), trace_id, span_id });
        }
        if ids.1.is_none() && PAIRS.iter().any(|(_, end)| *end == name) {
            self.waiting_bytes += bytes;
            return self.unplaced.push(Unplaced { around: Arc::clone(around), log, name });
        }
        let made = match ids {
            _ if !is_genai => None,
            (Some(_), Some(_)) => Some((RecordKind::Event, event_span(log, name))),
            _ => step_span(log, name).map(|span| (RecordKind::Ended, span)),
        };
        let Some((kind, span)) = made else {
            self.not_kept += 1;
            return;
        };
        self.records.push(around.record(kind, span));
    }
}

impl LogRecord {
    /// Leaves out attributes beyond a bound, and counts them. Tells whether there were any.
    pub(super) fn hold_to(&mut self, max: usize) -> bool {
        surplus::hold_to(&mut self.attributes, max, &mut self.dropped_attributes_count)
    }
}

/// Finds an event's name: it has a field of its own, and before it had stood in an attribute, or all of it was the body.
fn name_of(log: &LogRecord) -> String {
    let attribute = find(&log.attributes, names::EVENT_NAME).and_then(Value::as_str).unwrap_or_default();
    let body = log.body.as_ref().and_then(|body| body.value.as_ref()).and_then(Value::as_str).unwrap_or_default();
    let is_known = |name: &&str| EVENTS.iter().any(|start| name.starts_with(start));
    let candidates = [log.event_name.as_str(), attribute, body];
    let named = candidates.into_iter().find(is_known).or(candidates.into_iter().find(|name| !name.is_empty()));
    named.unwrap_or_default().to_owned()
}

fn time_of(log: &LogRecord) -> u64 {
    if log.time_unix_nano == 0 { log.observed_time_unix_nano } else { log.time_unix_nano }
}

/// Returns the word for a severity, as OTLP has it.
fn word_of(severity: i32) -> Option<String> {
    const WORDS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
    let place = usize::try_from(severity.checked_sub(1)? / 4).ok()?;
    WORDS.get(place).filter(|_| severity > 0).map(|word| (*word).to_owned())
}

/// Returns the record's facts: its attributes, and the members of its body, under their own names.
fn facts(log: LogRecord) -> Vec<KeyValue> {
    let at = time_of(&log);
    let mut attributes = log.attributes;
    let mut put =
        |key: &str, value: Value| attributes.push(KeyValue { key: key.to_owned(), value: Some(value.into()) });
    if let Some(level) = Some(log.severity_text).filter(|text| !text.is_empty()).or(word_of(log.severity_number)) {
        put(names::EVENT_LEVEL, level.into());
    }
    if log.severity_number != 0 {
        put(names::LOG_SEVERITY, Value::Int(log.severity_number.into()));
    }
    if log.flags != 0 {
        put(names::LOG_FLAGS, Value::Int(log.flags.into()));
    }
    if let Ok(seen) = i64::try_from(log.observed_time_unix_nano)
        && ![0, at].contains(&log.observed_time_unix_nano)
    {
        put(names::LOG_OBSERVED, Value::Int(seen));
    }
    match log.body.and_then(|body| body.value) {
        Some(Value::KvList(members)) => attributes.extend(members.values),
        Some(body) => attributes.push(KeyValue { key: "body".to_owned(), value: Some(body.into()) }),
        None => {}
    }
    attributes
}

/// Makes an event of the span that the record names.
fn event_span(mut log: LogRecord, name: String) -> Span {
    let at = time_of(&log);
    let (trace_id, span_id) = (std::mem::take(&mut log.trace_id), std::mem::take(&mut log.span_id));
    let dropped_attributes_count = log.dropped_attributes_count;
    let event = SpanEvent { time_unix_nano: at, name, attributes: facts(log), dropped_attributes_count };
    Span { trace_id, span_id, start_time_unix_nano: at, events: vec![event], ..Span::default() }
}

/// Makes a step of a record, where it is one.
fn step_span(log: LogRecord, name: String) -> Option<Span> {
    let at = time_of(&log);
    step_of(name, at, facts(log))
}

#[cfg(test)]
mod tests {
    use super::super::{Encoding, Limits, Signal, received};
    use super::*;
    use crate::model::record::Record;
    use crate::model::{StepKind, StepStatus};
    use prost::Message;
    use serde_json::{Value as Json, json};

    fn logs(records: &Json) -> Received {
        let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]}).to_string();
        received(body.as_bytes(), Signal::Logs, Encoding::Json, &Limits::default()).unwrap()
    }

    fn record(name: &str, at_ms: u64, attributes: &[(&str, &str)]) -> Json {
        let attributes: Vec<Json> =
            attributes.iter().map(|(key, value)| json!({"key": key, "value": {"stringValue": value}})).collect();
        json!({"timeUnixNano": (at_ms * 1_000_000).to_string(), "eventName": name, "attributes": attributes})
    }

    fn placed(mut record: Json, span: &str) -> Json {
        record["traceId"] = "000000000000000000000000000000ab".into();
        record["spanId"] = span.into();
        record
    }

    #[test]
    fn a_record_with_a_span_is_an_event_of_it() {
        let mut chat = placed(record("gen_ai.choice", 5, &[]), "00000000000000cd");
        chat["body"] = json!({"kvlistValue": {"values": [{"key": "finish_reason", "value": {"stringValue": "stop"}}]}});
        chat["severityText"] = "INFO".into();
        let got = logs(&json!([chat, record("my.own", 5, &[]), placed(record("my.own", 5, &[]), "00000000000000cd")]));
        assert_eq!((got.records.len(), got.not_kept), (1, 2));
        let Record { kind, span, .. } = &got.records[0];
        assert_eq!((*kind, span.span_id[7], span.events[0].time_unix_nano), (RecordKind::Event, 0xcd, 5_000_000));
        let of = |key| span.events[0].attr(key).and_then(Value::as_str);
        assert_eq!((of("finish_reason"), of(names::EVENT_LEVEL)), (Some("stop"), Some("INFO")));
    }

    /// All of an event's attributes, a line each.
    fn told(event: &SpanEvent) -> String {
        let line = |attribute: &KeyValue| {
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            format!("{}: {}", attribute.key, value.map(Value::to_json).unwrap_or_default())
        };
        event.attributes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_stands_beside_the_facts_of_a_record_is_kept() {
        let mut chat = placed(record("gen_ai.choice", 5, &[]), "00000000000000cd");
        chat["severityNumber"] = 17.into();
        chat["flags"] = 1.into();
        chat["observedTimeUnixNano"] = "6000000".into();
        let of = |chat: &Json| told(&logs(&json!([chat])).records[0].span.events[0]);
        insta::assert_snapshot!(of(&chat), @r#"
        level: "ERROR"
        runspan.log.severity_number: 17
        runspan.log.flags: 1
        runspan.log.observed_time_unix_nano: 6000000
        "#);
        // An enum's name is no reason to lose a record, nor is one that nobody knows; a word of the sender's own stays.
        chat["severityNumber"] = "SEVERITY_NUMBER_WARN2".into();
        chat["severityText"] = "Warnung".into();
        chat["observedTimeUnixNano"] = chat["timeUnixNano"].clone();
        insta::assert_snapshot!(of(&chat), @r#"
        level: "Warnung"
        runspan.log.severity_number: 14
        runspan.log.flags: 1
        "#);
        chat["severityNumber"] = "LOUD".into();
        chat["severityText"] = Json::Null;
        insta::assert_snapshot!(of(&chat), @"runspan.log.flags: 1");
    }

    #[test]
    fn fields_of_a_later_version_of_a_record_are_kept() {
        let (trace_id, span_id) = (vec![1; 16], vec![2; 8]);
        let log = LogRecord { trace_id, span_id, event_name: "gen_ai.choice".to_owned(), ..LogRecord::default() };
        let inside = |number: u8, bytes: Vec<u8>| [vec![number << 3 | 2, bytes.len() as u8], bytes].concat();
        let later = b"\x6a\x05later".to_vec();
        let scope_logs = inside(2, [log.encode_to_vec(), later.clone()].concat());
        let body =
            inside(1, [inside(1, Vec::new()), inside(2, scope_logs), inside(3, b"https://a/1".to_vec())].concat());
        let got = received(&body, Signal::Logs, Encoding::Protobuf, &Limits::default()).unwrap();
        let event = &got.records[0].span.events[0];
        assert_eq!(event.attr(crate::model::unknown::UNKNOWN_OF_LOG), Some(&Value::Bytes(later)));
        assert_eq!(crate::model::schema::of(&got.records[0].resource.attributes), "https://a/1");
    }

    #[test]
    fn the_end_of_a_call_joins_the_span_of_its_beginning() {
        let of = |more: &[(&'static str, &'static str)]| {
            [&[("session.id", "s"), ("prompt_id", "p"), ("model", "m")][..], more].concat()
        };
        let begin = |at, span| placed(record("gemini_cli.api_request", at, &of(&[])), span);
        let end = |at| record("gemini_cli.api_response", at, &of(&[("duration_ms", "20")]));
        let mut other = end(31);
        other["attributes"][2]["value"]["stringValue"] = "another model".into();
        let got = logs(&json!([end(50), begin(10, "00000000000000aa"), end(31), begin(28, "00000000000000bb"), other]));
        let ends: Vec<(u8, u64)> = got
            .records
            .iter()
            .filter(|record| record.span.events.first().is_some_and(|event| event.name.ends_with("response")))
            .map(|record| (record.span.span_id[7], record.span.events[0].time_unix_nano / 1_000_000))
            .collect();
        assert_eq!(ends, [(0xaa, 31), (0xbb, 50)]);
        // What belongs to none may be all that tells of its call.
        let alone: Vec<&Span> =
            got.records.iter().filter(|record| record.kind == RecordKind::Ended).map(|record| &record.span).collect();
        assert_eq!((got.not_kept, alone.len(), alone[0].name.as_str()), (0, 1, "gemini_cli.api_response"));
    }

    #[test]
    fn an_emitter_of_logs_alone_gets_a_run_by_conversation() {
        let told = |name, at, more: &[(&'static str, &'static str)]| {
            record(name, at, &[&[("conversation.id", "c-1")][..], more].concat())
        };
        let got = logs(&json!([
            told("codex.conversation_starts", 1, &[("model", "gpt-5")]),
            told("codex.sse_event", 30, &[("event.kind", "response.created")]),
            told("codex.sse_event", 39, &[("event.kind", "response.completed"), ("duration_ms", "4")]),
            told(
                "codex.sse_event",
                40,
                &[("event.kind", "response.completed"), ("input_token_count", "211"), ("duration_ms", "15")]
            ),
            told("codex.tool_result", 60, &[("tool_name", "shell"), ("success", "false"), ("duration_ms", "10")]),
            record("codex.tool_result", 60, &[]),
        ]));
        assert_eq!((got.records.len(), got.not_kept), (3, 3));
        let [root, call, tool] = &got.records[..] else { panic!("{:?}", got.records) };
        assert!(got.records.iter().all(|record| record.span.trace_id == root.span.trace_id));
        assert_eq!((&call.span.parent_span_id, &tool.span.parent_span_id), (&root.span.span_id, &root.span.span_id));
        let mut facts = Vec::new();
        for record in &got.records {
            let mut record = record.clone();
            crate::pipeline::normalize::normalize(&mut record);
            let step = crate::pipeline::facts::StepFacts::of(&record.span, None, None);
            let took = (record.span.end_time_unix_nano - record.span.start_time_unix_nano) / 1_000_000;
            let name = step.tool_name.or(step.agent_name).unwrap_or_default();
            let input = step.tokens.and_then(|tokens| tokens.prompt);
            facts.push(format!("{} {} {name} {took} ms {input:?} {:?}", step.kind, step.status, step.session_id));
        }
        insta::assert_snapshot!(facts.join("\n"), @r#"
        agent success codex 0 ms None Some("c-1")
        llm success  15 ms Some(211) Some("c-1")
        tool error shell 10 ms None Some("c-1")
        "#);
        assert_eq!(logs(&json!([told("codex.tool_result", 60, &[])])).records[0].span.trace_id, root.span.trace_id);
    }

    /// Codex CLI 0.171, whose stream broke off: it tells so twice.
    #[test]
    fn a_stream_that_broke_off_is_one_failed_call_by_logs_alone() {
        let told = |at, more: &[(&'static str, &'static str)]| {
            record("codex.sse_event", at, &[&[("conversation.id", "c-1"), ("model", "gpt-5")][..], more].concat())
        };
        let got = logs(&json!([
            told(30, &[("event.kind", "response.created")]),
            told(39, &[("error.message", "Transport error: network error")]),
            told(
                40,
                &[
                    ("event.kind", "response.completed"),
                    ("error.message", "stream disconnected before completion: Transport error: network error")
                ]
            ),
        ]));
        let [call] = &got.records[..] else { panic!("{:?}", got.records) };
        let mut call = call.clone();
        crate::pipeline::normalize::normalize(&mut call);
        let step = crate::pipeline::facts::StepFacts::of(&call.span, None, None);
        assert_eq!((step.kind, step.status, step.tokens), (StepKind::Llm, StepStatus::Error, None));
        let message = step.error.and_then(|error| error.message);
        let expected = "stream disconnected before completion: Transport error: network error";
        assert_eq!(message.as_deref(), Some(expected));
    }
}
