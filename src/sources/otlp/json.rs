//! Export requests as OTLP JSON, as lenient as real senders need.
//!
//! The levels above the spans are split, not parsed, so that a span that is no span costs itself. Protobuf's JSON lets
//! any field be `null` and lets names be written as in the `.proto` file, with underscores, which the OTLP rules do
//! not: such names are read, and the answer tells the sender of them. Of two members of one name the last counts; two lists are one,
//! and so are two resources or scopes, as protobuf joins them.
//!
//! Nothing is made of a text before its values are counted: two bytes of it, `{}`, may take a hundred in memory.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use prost::Message;
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::shorten::hold;
use super::tidy::{Scan, tidied};
use super::{Around, BadBody, Desk, Limits, Order, Received, Signal, around, note, surplus};
use crate::model::otlp::{LogRecord, Resource, Scope, Span};
use crate::model::schema;

/// A value of an attribute has about so many signs before it or its parts by which values are counted.
const SIGNS: usize = 4;
/// What stands behind one of these signs takes about so many bytes in memory.
const BYTES_OF_SIGN: usize = 64;

/// What the levels of a request are called, from the outside.
const fn names_of(signal: Signal) -> [&'static str; 3] {
    match signal {
        Signal::Traces => ["resourceSpans", "scopeSpans", "spans"],
        Signal::Logs => ["resourceLogs", "scopeLogs", "logRecords"],
    }
}

/// A span, or a record of a log, that is not parsed yet.
struct Part<'a> {
    place: usize,
    around: Arc<Around>,
    text: &'a str,
    scan: Scan,
}

/// Hands the records of a request on, one by one.
pub(super) fn each(
    body: &[u8],
    signal: Signal,
    limits: &Limits,
    order: Order,
    desk: &mut dyn Desk,
) -> Result<Received, BadBody> {
    let mut received = Received::of(signal);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(received);
    }
    let text = std::str::from_utf8(body).map_err(|error| malformed("it", &error))?;
    let mut names = Names::default();
    let mut parts = parts(text, signal, limits, &mut names, desk)?;
    if order == Order::AsBegun && parts.len() > 1 {
        parts.sort_by_cached_key(|part| begin_of(part.text));
    }
    // All of it, before work is done for any.
    let values = parts.iter().map(|part| part.scan.values / SIGNS).fold(0, usize::saturating_add);
    if values > limits.all_values {
        return Err(BadBody::TooManyValues { max: limits.all_values });
    }
    for Part { place, around, text, scan } in parts {
        if let Some((reason, why)) = too_many(text, &scan, signal, limits) {
            received.rejected.add(place, reason, &why);
        } else if received.take_around(place, &around, limits) {
            desk.make_room(scan.values * BYTES_OF_SIGN)?;
            match signal {
                Signal::Traces => take(&mut received, place, &around, text, &scan, limits, &mut names),
                Signal::Logs => take_log(&mut received, place, &around, text, &scan, limits, &mut names),
            }
        }
        received.hand_on(desk)?;
    }
    received.place_logs();
    received.hand_on(desk)?;
    received.warnings.extend(names.warning());
    received.warn_of_cuts(limits);
    Ok(received)
}

/// Finds the spans of a request, or its records of logs.
fn parts<'a>(
    text: &'a str,
    signal: Signal,
    limits: &Limits,
    names: &mut Names,
    desk: &mut dyn Desk,
) -> Result<Vec<Part<'a>>, BadBody> {
    let (mut parts, mut groups) = (Vec::new(), 0);
    let [outer, inner, innermost] = names_of(signal);
    let whole = members(text, "it")?;
    check_signal(&whole, outer)?;
    for of_resource in list(&whole, outer, names, limits)? {
        let members_of_resource = members(of_resource.get(), outer)?;
        let path = format!("{outer}.resource");
        let mut resource: Resource = bounded(&members_of_resource, "resource", &path, names, limits, desk)?;
        surplus::hold_to(&mut resource.attributes, limits.attributes, &mut resource.dropped_attributes_count);
        schema::note(&mut resource.attributes, &url_of(&members_of_resource, names)?);
        let resource = around::fitted_resource(resource, limits);
        let scopes = list(&members_of_resource, inner, names, limits)?;
        groups += 1 + scopes.len();
        if groups > limits.spans.saturating_mul(2) {
            return Err(BadBody::TooManySpans { found: parts.len() + groups, max: limits.spans });
        }
        for of_scope in scopes {
            let members_of_scope = members(of_scope.get(), inner)?;
            let mut scope: Scope = bounded(&members_of_scope, "scope", &format!("{inner}.scope"), names, limits, desk)?;
            surplus::hold_to(&mut scope.attributes, limits.attributes, &mut scope.dropped_attributes_count);
            schema::note(&mut scope.attributes, &url_of(&members_of_scope, names)?);
            let around = Arc::new(Around::new(&resource, scope, limits));
            for one in list(&members_of_scope, innermost, names, limits)? {
                if parts.len() == limits.spans {
                    return Err(BadBody::TooManySpans { found: parts.len() + 1, max: limits.spans });
                }
                let (text, scan) = (one.get(), Scan::of(one.get()));
                parts.push(Part { place: parts.len(), around: Arc::clone(&around), text, scan });
            }
        }
    }
    Ok(parts)
}

/// When a span or record began, and whether something encloses it.
fn begin_of(text: &str) -> (u64, bool) {
    let Ok(members) = members(text, "") else { return (0, false) };
    let of = |names: &[&'static str]| {
        let find =
            |name: &&'static str| member(&members, name, &mut Names::default()).map(|raw| raw.get().trim_matches('"'));
        names.iter().find_map(find)
    };
    // Some languages have no whole numbers of this size.
    let number = |text: &str| text.parse().ok().or_else(|| text.parse().ok().map(|number: f64| number as u64));
    let begin = of(&["startTimeUnixNano", "timeUnixNano", "observedTimeUnixNano"]).and_then(number);
    (begin.unwrap_or_default(), of(&["parentSpanId"]).is_some_and(|id| id.bytes().any(|byte| byte != b'0')))
}

/// Refuses what was sent to the wrong place: names that are not known are passed over, and it would seem to have been taken.
fn check_signal(members: &Members<'_>, own: &str) -> Result<(), BadBody> {
    const PLACES: [(&str, &str); 3] =
        [("resourceSpans", "/v1/traces"), ("resourceLogs", "/v1/logs"), ("resourceMetrics", "/v1/metrics")];
    let has = |name: &str| members.iter().any(|(own, ..)| *own == name);
    match PLACES.iter().find(|(name, _)| *name != own && has(name)) {
        Some((other, place)) if !has(own) => {
            let why = format!("it has {other:?} and no {own:?}, and belongs to {place}");
            Err(malformed("it", &why))
        }
        _ => Ok(()),
    }
}

/// Tells of a text that is longer, or holds more, than one may.
fn too_many(text: &str, scan: &Scan, signal: Signal, limits: &Limits) -> Option<(&'static str, String)> {
    let (what, holds) = match signal {
        Signal::Traces => ("a span", "its attributes hold"),
        Signal::Logs => ("a record", "it holds"),
    };
    if text.len() > 2 * limits.span_bytes {
        return Some((
            "too_large",
            format!("it has {} bytes, and {what} may have {}", text.len(), 2 * limits.span_bytes),
        ));
    }
    let is_within = scan.values <= SIGNS * limits.values;
    (!is_within).then(|| ("too_many_values", format!("{holds} more than {} values", limits.values)))
}

fn take(
    received: &mut Received,
    place: usize,
    around: &Around,
    text: &str,
    scan: &Scan,
    limits: &Limits,
    names: &mut Names,
) {
    match parsed::<Span>(text, scan, names) {
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
            received.take(place, around, span);
        }
        Err(error) => received.rejected.add(place, "undecodable", &error.to_string()),
    }
}

fn take_log(
    received: &mut Received,
    place: usize,
    around: &Arc<Around>,
    text: &str,
    scan: &Scan,
    limits: &Limits,
    names: &mut Names,
) {
    match parsed::<LogRecord>(text, scan, names) {
        Ok(mut log) => {
            if log.hold_to(limits.attributes) {
                received.note_cut(place);
            }
            received.take_log(around, log, scan.values * BYTES_OF_SIGN / 2 + text.len() / 2);
        }
        Err(error) => received.rejected.add(place, "undecodable", &error.to_string()),
    }
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
    // Of the whole there is nothing to name.
    let place = if what == "it" { String::new() } else { format!("{what}: ") };
    BadBody::Malformed { why: format!("the body is not an OTLP export request in JSON: {place}{why}") }
}

/// What is looked for in an object that is split; of the rest a sender could make up any number. [`JOINED`] are the first nine.
const MEMBERS: [&str; 14] = [
    "resourceSpans",
    "resourceLogs",
    "resourceMetrics",
    "resource",
    "scopeSpans",
    "scopeLogs",
    "scope",
    "spans",
    "logRecords",
    "schemaUrl",
    "startTimeUnixNano",
    "timeUnixNano",
    "observedTimeUnixNano",
    "parentSpanId",
];

/// Those of which all count that stand there, one behind the other: lists, and what is around spans.
const JOINED: &[&str] = MEMBERS.split_at(9).0;

/// So many of one name are taken; nobody means as many.
const TIMES: usize = 64;

/// The members of an object that are looked for, unparsed, the last of each name, or all where they are [`JOINED`]: that name, how
/// it is written, and what it has.
type Members<'a> = Vec<(&'static str, Cow<'a, str>, &'a RawValue)>;

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
                    let mut members = Members::new();
                    while let Some(Key(key)) = map.next_key()? {
                        let name = camel(&key);
                        let Some(name) = MEMBERS.iter().copied().find(|known| name == *known) else {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        };
                        if !JOINED.contains(&name) {
                            members.retain(|(other, ..)| *other != name);
                        } else if members.iter().filter(|(other, ..)| *other == name).count() == TIMES {
                            return Err(de::Error::custom(format_args!("{name} stands there more than {TIMES} times")));
                        }
                        members.push((name, key, map.next_value()?));
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

/// Finds a member under its own name or the one with underscores; `null` is none.
fn member<'a>(members: &Members<'a>, name: &'static str, names: &mut Names) -> Option<&'a RawValue> {
    all_of(members, name, names).pop()
}

/// The same of those that are [`JOINED`].
fn all_of<'a>(members: &Members<'a>, name: &'static str, names: &mut Names) -> Vec<&'a RawValue> {
    let mut found = Vec::new();
    for (_, key, value) in members.iter().filter(|(own, ..)| *own == name) {
        if key != name {
            names.note(key);
        }
        if value.get() != "null" {
            found.push(*value);
        }
    }
    found
}

fn url_of(members: &Members<'_>, names: &mut Names) -> Result<String, BadBody> {
    let Some(value) = member(members, "schemaUrl", names) else { return Ok(String::new()) };
    serde_json::from_str(value.get()).map_err(|error| malformed("schemaUrl", &error))
}

/// The first items of a list, unparsed, and how many there are.
struct Items<'a> {
    items: Vec<&'a RawValue>,
    count: usize,
}

/// Reads so many items of a list.
struct AtMost(usize);

impl<'de> de::DeserializeSeed<'de> for AtMost {
    type Value = Items<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Items<'de>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AtMost {
    type Value = Items<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items<'de>, A::Error> {
        let mut found = Items { items: Vec::new(), count: 0 };
        while found.count < self.0
            && let Some(item) = list.next_element()?
        {
            found.items.push(item);
            found.count += 1;
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            found.count += 1;
        }
        Ok(found)
    }
}

fn list<'a>(
    members: &Members<'a>,
    name: &'static str,
    names: &mut Names,
    limits: &Limits,
) -> Result<Vec<&'a RawValue>, BadBody> {
    let (mut all, mut count) = (Vec::new(), 0);
    for value in all_of(members, name, names) {
        let mut text = serde_json::Deserializer::from_str(value.get());
        let left = limits.spans.saturating_sub(all.len());
        let found = de::DeserializeSeed::deserialize(AtMost(left), &mut text);
        let found = found.map_err(|error| malformed(name, &error))?;
        count += found.count;
        if count > limits.spans {
            return Err(BadBody::TooManySpans { found: count, max: limits.spans });
        }
        all.extend(found.items);
    }
    Ok(all)
}

/// Parses a resource or a scope, once it is known to hold no more than a span may.
fn bounded<T: DeserializeOwned + Message + Default>(
    members: &Members<'_>,
    name: &'static str,
    path: &str,
    names: &mut Names,
    limits: &Limits,
    desk: &mut dyn Desk,
) -> Result<T, BadBody> {
    let scanned: Vec<(&str, Scan)> =
        all_of(members, name, names).iter().map(|value| (value.get(), Scan::of(value.get()))).collect();
    let values = scanned.iter().map(|(_, scan)| scan.values).fold(0, usize::saturating_add);
    if values > SIGNS * limits.values {
        return Err(malformed(path, &format!("its attributes hold more than {} values", limits.values)));
    }
    // What stands around spans is there until the last of them is taken.
    desk.keep_room(values * BYTES_OF_SIGN)?;
    let mut whole: Option<T> = None;
    for (text, scan) in scanned {
        let read: T = parsed(text, &scan, names).map_err(|error| malformed(path, &error))?;
        match &mut whole {
            Some(whole) => whole.merge(&*read.encode_to_vec()).map_err(|error| malformed(path, &error))?,
            None => whole = Some(read),
        }
    }
    Ok(whole.unwrap_or_default())
}

/// Parses a message: nothing for `null`, names with underscores as they are meant.
pub(super) fn lenient<T: DeserializeOwned>(text: &str, names: &mut Names) -> Result<T, serde_json::Error> {
    let (scan, max) = (Scan::of(text), Limits::default().values);
    if scan.values > SIGNS * max {
        return Err(de::Error::custom(format_args!("it holds more than {max} values")));
    }
    parsed(text, &scan, names)
}

/// The same, where its values have been counted.
fn parsed<T: DeserializeOwned>(text: &str, scan: &Scan, names: &mut Names) -> Result<T, serde_json::Error> {
    if scan.is_plain
        && let Ok(message) = serde_json::from_str(text)
    {
        return Ok(message);
    }
    let tidy = tidied(text, names)?;
    serde_json::from_str(&tidy).or_else(|_| {
        // Read once more for where it is: that costs time.
        let told = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&tidy));
        told.map_err(|error| {
            let (path, why) = (error.path().to_string(), error.inner().to_string());
            // A place in the text would be none in what was sent.
            let why = why.split(" at line ").next().unwrap_or_default();
            let is_named = !matches!(path.as_str(), "." | "?");
            de::Error::custom(if is_named { format!("{path}: {why}") } else { why.to_owned() })
        })
    })
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
        let are = match self.count {
            1 => format!("the name {first:?} is written with underscores"),
            count => format!("{count} names are written with underscores, {first:?} first"),
        };
        Some(format!("{are}: OTLP JSON has lowerCamelCase"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::of_times;
    use super::*;
    use crate::model::record::Record;

    /// Notes how much room it is asked for at a time, and has so much.
    struct Room {
        has: usize,
        most: usize,
        taken: usize,
    }

    impl Desk for Room {
        fn make_room(&mut self, bytes: usize) -> Result<(), BadBody> {
            self.most = self.most.max(bytes);
            if bytes > self.has { Err(BadBody::NoRoom) } else { Ok(()) }
        }

        fn keep_room(&mut self, bytes: usize) -> Result<(), BadBody> {
            self.make_room(bytes)
        }

        fn take(&mut self, _: Record) -> Result<(), BadBody> {
            self.taken += 1;
            Ok(())
        }
    }

    fn told(limits: &Limits, has: usize, body: &str) -> String {
        let mut desk = Room { has, most: 0, taken: 0 };
        let signal = if body.contains("Logs") { Signal::Logs } else { Signal::Traces };
        let said = match each(body.as_bytes(), signal, limits, Order::AsBegun, &mut desk) {
            Ok(received) => format!("{:?} {:?}", received.rejected.by_reason, received.warnings),
            Err(bad) => bad.to_string(),
        };
        format!("{} taken, room {}: {said}", desk.taken, desk.most)
    }

    #[test]
    fn what_grows_when_it_is_parsed_is_counted_before() {
        let limits = Limits { spans: 10, attributes: 4, events: 4, values: 100, all_values: 150, ..Limits::default() };
        let many = |item: &str, n| vec![item; n].join(",");
        let span = |more: &str| {
            let span = serde_json::to_string(&of_times(1, 2)).unwrap();
            if more.is_empty() { span } else { format!("{},{more}}}", span.trim_end_matches('}')) }
        };
        let around =
            |inside: &str| format!(r#"{{"resourceSpans":[{{{inside},"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, span(""));
        let spans = |spans: &str| format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
        let bodies = [
            ("resources", format!(r#"{{"resourceSpans":[{}]}}"#, many("{}", 11))),
            ("no resources", format!(r#"{{"resourceSpans":[{}]}}"#, many("null", 11))),
            ("scopes", format!(r#"{{"resourceSpans":[{{"scopeSpans":[{}]}}]}}"#, many("{}", 11))),
            ("scopes of all", format!(r#"{{"resourceSpans":[{}]}}"#, many(r#"{"scopeSpans":[{},{},{}]}"#, 6))),
            ("names", format!("{{{}}}", (0..1000).map(|n| format!("\"k{n}\":1")).collect::<Vec<_>>().join(","))),
            ("attributes around", around(&format!(r#""resource":{{"attributes":[{}]}}"#, many("{}", 201)))),
            ("entities around", around(&format!(r#""resource":{{"entityRefs":[{}]}}"#, many("{}", 201)))),
            ("few around", around(&format!(r#""resource":{{"attributes":[{}]}}"#, many("{}", 100)))),
            ("events", spans(&span(&format!(r#""events":[{}]"#, many("{}", 201))))),
            ("few events", spans(&span(&format!(r#""events":[{}]"#, many("{}", 100))))),
            ("events of all", spans(&many(&span(&format!(r#""events":[{}]"#, many("{}", 100))), 4))),
            ("spans", spans(&many(&span(""), 11))),
        ];
        let lines: Vec<String> =
            bodies.iter().map(|(what, body)| format!("{what}: {}", told(&limits, 1 << 20, body))).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        resources: 0 taken, room 0: the request holds 11 spans or more, and one may hold 10: send smaller batches
        no resources: 0 taken, room 0: the request holds 11 spans or more, and one may hold 10: send smaller batches
        scopes: 0 taken, room 0: the request holds 11 spans or more, and one may hold 10: send smaller batches
        scopes of all: 0 taken, room 0: the request holds 24 spans or more, and one may hold 10: send smaller batches
        names: 0 taken, room 0: {} []
        attributes around: 0 taken, room 0: the body is not an OTLP export request in JSON: resourceSpans.resource: its attributes hold more than 100 values
        entities around: 0 taken, room 0: the body is not an OTLP export request in JSON: resourceSpans.resource: its attributes hold more than 100 values
        few around: 1 taken, room 12864: {} []
        events: 0 taken, room 0: {"too_many_values": 1} []
        few events: 1 taken, room 13184: {} ["of span 0 of the request what is beyond 4 attributes, 4 events and 1024 links was left out, and is counted in it as dropped"]
        events of all: 0 taken, room 0: the request holds more than 150 attributes, events and links: send smaller batches
        spans: 0 taken, room 0: the request holds 11 spans or more, and one may hold 10: send smaller batches
        "#);
        insta::assert_snapshot!(
            told(&limits, 3_000, &bodies[9].1),
            @"0 taken, room 13184: there is no room for what is made of the request"
        );
    }

    #[test]
    fn ends_of_calls_that_wait_for_their_beginnings_take_room_together() {
        let end = r#"{"eventName":"gemini_cli.api_response","attributes":[]}"#;
        let of = |n| format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}]}}]}}]}}"#, vec![end; n].join(","));
        insta::assert_snapshot!(
            format!("{}\n{}", told(&Limits::default(), 1_000, &of(3)), told(&Limits::default(), 1_000, &of(30))),
            @r"
        0 taken, room 369: {} []
        0 taken, room 1107: there is no room for what is made of the request
        "
        );
    }

    #[test]
    fn lists_that_a_request_names_twice_are_one_list() {
        let span = |id| serde_json::to_string(&of_times(id, 2)).unwrap();
        let of = |key: &str| format!(r#"{{"key":"{key}","value":{{"stringValue":"x"}}}}"#);
        let span_of = |id, more: &str| format!("{},{more}}}", span(id).trim_end_matches('}'));
        let twice = span_of(
            5,
            &format!(
                r#""attributes":[{}],"events":[{{"name":"e"}}],"attributes":null,"attributes":[{}],"attributes":[],"events":[{{"name":"f"}}]"#,
                of("a"),
                of("b")
            ),
        );
        let body = format!(
            r#"{{"resource_spans":[{{"scopeSpans":[{{"spans":[{}],"spans":[{}]}}],"scope_spans":[{{"spans":[{}]}}]}}],
                "resourceSpans":[{{"resource":{{"attributes":[{}]}},"scopeSpans":[{{"spans":[{twice}]}}],"resource":{{"attributes":[{}]}}}}]}}"#,
            span(1),
            span(3),
            span(4),
            of("r"),
            of("s")
        );
        let mut told = Vec::new();
        let mut take = |record: Record| {
            let keys =
                |list: &[crate::model::otlp::KeyValue]| list.iter().map(|one| one.key.clone()).collect::<Vec<_>>();
            let events: Vec<String> = record.span.events.iter().map(|event| event.name.clone()).collect();
            let at = record.span.start_time_unix_nano;
            told.push(format!(
                "{at} {:?} {events:?} {:?}",
                keys(&record.span.attributes),
                keys(&record.resource.attributes)
            ));
        };
        let limits = Limits { spans: 4, ..Limits::default() };
        let received = each(body.as_bytes(), Signal::Traces, &limits, Order::AsSent, &mut take).unwrap();
        insta::assert_snapshot!(format!("{}\n{:?}", told.join("\n"), received.warnings), @r#"
        1 [] [] []
        3 ["runspan.clock_skew"] [] []
        4 ["runspan.clock_skew"] [] []
        5 ["a", "b", "runspan.clock_skew"] ["e", "f"] ["r", "s"]
        ["2 names are written with underscores, \"resource_spans\" first: OTLP JSON has lowerCamelCase"]
        "#);
        let limits = Limits { spans: 3, ..Limits::default() };
        let refused = each(body.as_bytes(), Signal::Traces, &limits, Order::AsSent, &mut |_: Record| {}).unwrap_err();
        let many = format!("{{{}}}", vec![r#""resourceLogs":[]"#; TIMES + 1].join(","));
        let often = each(many.as_bytes(), Signal::Logs, &limits, Order::AsSent, &mut |_: Record| {}).unwrap_err();
        insta::assert_snapshot!(format!("{refused}\n{often}"), @r"
        the request holds 4 spans or more, and one may hold 3: send smaller batches
        the body is not an OTLP export request in JSON: resourceLogs stands there more than 64 times at line 1 column 1167
        ");
        let log =
            |id| format!(r#"{{"eventName":"gemini_cli.api_response","traceId":"{:032x}","spanId":"{:016x}"}}"#, 7, id);
        let body = format!(
            r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{}],"log_records":[{}]}}],"scopeLogs":[{{"logRecords":[{}]}}]}}],"resourceLogs":[{{}}]}}"#,
            log(1),
            log(2),
            log(3)
        );
        insta::assert_snapshot!(
            self::told(&Limits::default(), 1 << 20, &body),
            @r#"3 taken, room 192: {} ["the name \"log_records\" is written with underscores: OTLP JSON has lowerCamelCase"]"#
        );
    }

    #[test]
    fn what_is_wrong_with_a_span_is_told_with_its_place_and_value() {
        let first = |span: &str| {
            let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#);
            let received = super::super::traces(body.as_bytes(), super::super::Encoding::Json, &Limits::default());
            received.unwrap().rejected.first.unwrap()
        };
        let with = |more: &str| {
            format!(r#"{{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331",{more}}}"#)
        };
        let told = [
            first(r#"{"traceId":"0af7","spanId":"xyz"}"#),
            first(&with(
                r#""attributes":[{"key":"a","value":{"intValue":"1"}},{"key":"b","value":{"intValue":"many"}}]"#,
            )),
            first(&with(r#""events":[{"name":7}]"#)),
            first(&with(r#""start_time_unix_nano":true"#)),
            first("[]"),
        ];
        insta::assert_snapshot!(told.join("\n"), @r#"
        span 0 of the request: spanId: "xyz" is not an id in hex
        span 0 of the request: attributes[1].value: intValue is not a 64-bit integer
        span 0 of the request: events[0].name: invalid type: integer `7`, expected a string
        span 0 of the request: startTimeUnixNano: invalid type: boolean `true`, expected a number, or one as text
        span 0 of the request: trace_id has 0 bytes and not 16
        "#);
    }

    #[test]
    fn of_two_members_of_one_name_the_last_counts_and_null_is_none() {
        let span = serde_json::to_string(&of_times(1, 2)).unwrap();
        let events = r#""events":[null,{"name":"a","name":null}]"#;
        let span = format!(r#"{},"name":"one","name":"two",{events}}}"#, span.trim_end_matches('}'));
        let body = format!(r#"{{"resourceSpans":[],"resource_spans":[{{"scopeSpans":[{{"spans":[{span},null]}}]}}]}}"#);
        let mut names = Vec::new();
        let mut take = |record: Record| names.push((record.span.name, record.span.events.len()));
        let received = each(body.as_bytes(), Signal::Traces, &Limits::default(), Order::AsSent, &mut take).unwrap();
        insta::assert_snapshot!(
            format!("{names:?} {:?} {:?}", received.warnings, received.rejected.first.unwrap()),
            @r#"[("two", 1)] ["the name \"resource_spans\" is written with underscores: OTLP JSON has lowerCamelCase"] "span 1 of the request: invalid type: null, expected struct Span""#
        );
    }
}
