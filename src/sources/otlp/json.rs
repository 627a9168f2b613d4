//! Export requests as OTLP JSON, as lenient as real senders need.
//!
//! The levels above the spans are split, not parsed, so that a span that is no span costs itself. Protobuf's JSON lets
//! any field be `null` and lets names be written as in the `.proto` file, with underscores, which the OTLP rules do
//! not: such names are read, and the answer tells the sender of them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use prost::Message;
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::shorten::hold;
use super::{BadBody, Limits, Received, Signal, note, surplus};
use crate::model::otlp::{LogRecord, Resource, Scope, Span};
use crate::model::schema;

/// What the levels of a request are called, from the outside.
const fn names_of(signal: Signal) -> [&'static str; 3] {
    match signal {
        Signal::Traces => ["resourceSpans", "scopeSpans", "spans"],
        Signal::Logs => ["resourceLogs", "scopeLogs", "logRecords"],
    }
}

pub(super) fn received(body: &[u8], signal: Signal, limits: &Limits) -> Result<Received, BadBody> {
    let mut received = Received::default();
    received.rejected.of_logs = signal == Signal::Logs;
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(received);
    }
    let text = std::str::from_utf8(body).map_err(|error| malformed("it", &error))?;
    let mut names = Names::default();
    let mut place = 0;
    let [outer, inner, innermost] = names_of(signal);
    let whole = members(text, "it")?;
    check_signal(&whole, outer)?;
    for of_resource in list(&whole, outer, &mut names)? {
        let members_of_resource = members(of_resource.get(), outer)?;
        let path = format!("{outer}.resource");
        let mut resource: Resource = one(&members_of_resource, "resource", &path, &mut names)?;
        schema::note(&mut resource.attributes, &url_of(&members_of_resource, &mut names)?);
        let resource = Arc::new(resource);
        for of_scope in list(&members_of_resource, inner, &mut names)? {
            let members_of_scope = members(of_scope.get(), inner)?;
            let mut scope: Scope = one(&members_of_scope, "scope", &format!("{inner}.scope"), &mut names)?;
            schema::note(&mut scope.attributes, &url_of(&members_of_scope, &mut names)?);
            for one in list(&members_of_scope, innermost, &mut names)? {
                if place == limits.spans {
                    return Err(BadBody::TooManySpans { found: place + 1, max: limits.spans });
                }
                let (text, names) = (one.get(), &mut names);
                match signal {
                    Signal::Traces => take(&mut received, place, &resource, &scope, text, limits, names),
                    Signal::Logs => take_log(&mut received, place, &resource, &scope, text, limits, names),
                }
                place += 1;
            }
        }
    }
    received.place_logs();
    received.warnings.extend(names.warning());
    received.warn_of_cuts(limits);
    Ok(received)
}

/// Refuses what was sent to the wrong place: names that are not known are passed over, and it would seem to have been taken.
fn check_signal(members: &Members<'_>, own: &str) -> Result<(), BadBody> {
    const PLACES: [(&str, &str); 3] =
        [("resourceSpans", "/v1/traces"), ("resourceLogs", "/v1/logs"), ("resourceMetrics", "/v1/metrics")];
    let has = |name: &str| members.iter().any(|(key, _)| camel(key) == name);
    match PLACES.iter().find(|(name, _)| *name != own && has(name)) {
        Some((other, place)) if !has(own) => {
            let why = format!("it has {other:?} and no {own:?}, and belongs to {place}");
            Err(malformed("it", &why))
        }
        _ => Ok(()),
    }
}

fn take(
    received: &mut Received,
    place: usize,
    resource: &Arc<Resource>,
    scope: &Scope,
    text: &str,
    limits: &Limits,
    names: &mut Names,
) {
    if text.len() > 2 * limits.span_bytes {
        let why = format!("it has {} bytes, and a span may have {}", text.len(), 2 * limits.span_bytes);
        return received.rejected.add(place, "too_large", &why);
    }
    if text.len() > limits.values && values_in(text) > 4 * limits.values {
        let why = format!("its attributes hold more than {} values", limits.values);
        return received.rejected.add(place, "too_many_values", &why);
    }
    match lenient::<Span>(text, names) {
        Ok(mut span) => {
            let is_cut = hold_to(&mut span, limits);
            // What counts is its size as it is stored.
            if span.encoded_len() > limits.span_bytes {
                hold(&mut span, limits.span_bytes);
                if span.encoded_len() > limits.span_bytes {
                    let why = format!("it has {} bytes, and a span may have {}", span.encoded_len(), limits.span_bytes);
                    return received.rejected.add(place, "too_large", &why);
                }
                note(&mut received.shortened, place);
            }
            if is_cut {
                received.note_cut(place);
            }
            received.take(place, resource, scope, span);
        }
        Err(error) => received.rejected.add(place, "undecodable", &error.to_string()),
    }
}

fn take_log(
    received: &mut Received,
    place: usize,
    resource: &Arc<Resource>,
    scope: &Scope,
    text: &str,
    limits: &Limits,
    names: &mut Names,
) {
    if text.len() > 2 * limits.span_bytes {
        let why = format!("it has {} bytes, and a record may have {}", text.len(), 2 * limits.span_bytes);
        return received.rejected.add(place, "too_large", &why);
    }
    if text.len() > limits.values && values_in(text) > 4 * limits.values {
        let why = format!("it holds more than {} values", limits.values);
        return received.rejected.add(place, "too_many_values", &why);
    }
    match lenient::<LogRecord>(text, names) {
        Ok(mut log) => {
            if log.hold_to(limits.attributes) {
                received.note_cut(place);
            }
            received.take_log(resource, scope, log);
        }
        Err(error) => received.rejected.add(place, "undecodable", &error.to_string()),
    }
}

/// Counts the values in a JSON text, by what stands before each of them.
fn values_in(text: &str) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' | b',' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

/// Leaves out of a span what is beyond the limits, and counts it there. Tells whether there was any.
fn hold_to(span: &mut Span, limits: &Limits) -> bool {
    fn limit<T>(list: &mut Vec<T>, max: usize, dropped: &mut u32) -> bool {
        let surplus = list.len().saturating_sub(max);
        list.truncate(max);
        *dropped = dropped.saturating_add(u32::try_from(surplus).unwrap_or(u32::MAX));
        surplus > 0
    }
    let mut is_cut = surplus::hold_to(&mut span.attributes, limits.attributes, &mut span.dropped_attributes_count);
    is_cut |= limit(&mut span.events, limits.events, &mut span.dropped_events_count);
    is_cut |= limit(&mut span.links, limits.links, &mut span.dropped_links_count);
    for event in &mut span.events {
        is_cut |= surplus::hold_to(&mut event.attributes, limits.attributes, &mut event.dropped_attributes_count);
    }
    for link in &mut span.links {
        is_cut |= surplus::hold_to(&mut link.attributes, limits.attributes, &mut link.dropped_attributes_count);
    }
    is_cut
}

pub(super) fn malformed(what: &str, why: &impl fmt::Display) -> BadBody {
    BadBody::Malformed { why: format!("the body is not an OTLP export request in JSON: {what}: {why}") }
}

/// The members of an object, unparsed.
type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

fn members<'a>(text: &'a str, what: &str) -> Result<Members<'a>, BadBody> {
    struct Object<'a>(Members<'a>);

    impl<'de> Deserialize<'de> for Object<'de> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Split;

            impl<'de> Visitor<'de> for Split {
                type Value = Object<'de>;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }

                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                    let mut members = Vec::new();
                    while let Some(Key(key)) = map.next_key()? {
                        members.push((key, map.next_value()?));
                    }
                    Ok(Object(members))
                }

                fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                    Ok(Object(Vec::new()))
                }
            }
            deserializer.deserialize_any(Split)
        }
    }
    serde_json::from_str::<Object<'a>>(text).map(|object| object.0).map_err(|error| malformed(what, &error))
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Key<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// Finds a member under its own name or the one with underscores; a later one wins, `null` is none.
fn member<'a>(members: &Members<'a>, name: &'static str, names: &mut Names) -> Option<&'a RawValue> {
    let (key, value) = members.iter().rev().find(|(key, _)| key == name || camel(key) == name)?;
    if key != name {
        names.note(key);
    }
    Some(*value).filter(|value| value.get() != "null")
}

fn url_of(members: &Members<'_>, names: &mut Names) -> Result<String, BadBody> {
    one(members, "schemaUrl", "schemaUrl", names)
}

fn list<'a>(members: &Members<'a>, name: &'static str, names: &mut Names) -> Result<Vec<&'a RawValue>, BadBody> {
    let Some(value) = member(members, name, names) else { return Ok(Vec::new()) };
    serde_json::from_str(value.get()).map_err(|error| malformed(name, &error))
}

fn one<T: DeserializeOwned + Default>(
    members: &Members<'_>,
    name: &'static str,
    path: &str,
    names: &mut Names,
) -> Result<T, BadBody> {
    let Some(value) = member(members, name, names) else { return Ok(T::default()) };
    lenient(value.get(), names).map_err(|error| malformed(path, &error))
}

/// Parses a message: nothing for `null`, names with underscores as they are meant.
pub(super) fn lenient<T: DeserializeOwned>(text: &str, names: &mut Names) -> Result<T, serde_json::Error> {
    let mut value: Json = serde_json::from_str(text)?;
    tidy(&mut value, names);
    serde_json::from_value(value)
}

/// Every object here is a message: what senders name themselves stands in values, not in names.
fn tidy(value: &mut Json, names: &mut Names) {
    match value {
        Json::Object(object) => {
            if object.iter().any(|(key, value)| value.is_null() || key.contains('_')) {
                let taken = std::mem::take(object);
                let wanted = taken.into_iter().filter(|(_, value)| !value.is_null());
                object.extend(wanted.map(|(key, value)| match camel(&key) {
                    Cow::Borrowed(_) => (key, value),
                    Cow::Owned(name) => {
                        names.note(&key);
                        (name, value)
                    }
                }));
            }
            object.values_mut().for_each(|value| tidy(value, names));
        }
        Json::Array(list) => {
            list.retain(|value| !value.is_null());
            list.iter_mut().for_each(|value| tidy(value, names));
        }
        _ => {}
    }
}

/// Writes `trace_id` as `traceId`.
pub(super) fn camel(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len());
    for part in name.split('_').filter(|part| !part.is_empty()) {
        match part.chars().next().filter(|_| !out.is_empty()) {
            Some(first) => {
                out.push(first.to_ascii_uppercase());
                out.push_str(&part[first.len_utf8()..]);
            }
            None => out.push_str(part),
        }
    }
    Cow::Owned(out)
}

/// Names with underscores that a request used.
#[derive(Debug, Default)]
pub(super) struct Names {
    first: Option<String>,
    count: u64,
}

impl Names {
    pub(super) fn note(&mut self, key: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| key.chars().take(64).collect());
    }

    pub(super) fn warning(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(format!(
            "{} names are written with underscores, {first:?} first: OTLP JSON has lowerCamelCase",
            self.count
        ))
    }
}
