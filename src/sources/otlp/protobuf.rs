//! Export requests as protobuf. The messages around the spans are walked, not decoded.

use std::borrow::Cow;
use std::sync::Arc;

use prost::Message;

use super::shorten::{Kind, shortened};
use super::{Around, BadBody, Desk, Limits, Order, Received, Signal, around, note, surplus};
use crate::model::otlp::{LogRecord, Resource, Scope};
use crate::model::wire::{Field, Fields, put};
use crate::model::{schema, unknown};

/// Fields of a `Span`.
const PARENT: u32 = 4;
const START: u32 = 7;
const END: u32 = 8;
const ATTRIBUTES: u32 = 9;
const DROPPED_ATTRIBUTES: u32 = 10;
const EVENTS: u32 = 11;
const DROPPED_EVENTS: u32 = 12;
const LINKS: u32 = 13;
const DROPPED_LINKS: u32 = 14;
/// The attributes of an event, and how many it lacks.
const OF_EVENT: (u32, u32) = (3, 4);
/// The same of a link.
const OF_LINK: (u32, u32) = (4, 5);

/// The attributes of a record of a log.
const OF_LOG: u32 = 6;

/// What the levels of a request are called, from the outside.
const fn names(signal: Signal) -> [&'static str; 3] {
    match signal {
        Signal::Traces => ["resource_spans", "scope_spans", "spans"],
        Signal::Logs => ["resource_logs", "scope_logs", "log_records"],
    }
}

/// What a value, event or link takes in memory, about.
const BYTES_OF_VALUE: usize = 64;

/// Hands the records of a request on, one by one.
pub(super) fn each(
    body: &[u8],
    signal: Signal,
    limits: &Limits,
    order: Order,
    desk: &mut dyn Desk,
) -> Result<Received, BadBody> {
    let mut received = Received::of(signal);
    let mut parts = parts(body, signal, limits, desk)?;
    if order == Order::AsBegun {
        parts.sort_by_cached_key(|part| match signal {
            Signal::Traces => begin_of(part.bytes),
            Signal::Logs => begin_of_log(part.bytes),
        });
    }
    let found = |part: &Part<'_>| match signal {
        Signal::Traces => elements_in_span(part.bytes, limits),
        Signal::Logs => values_in_log(part.bytes),
    };
    // Each takes two bytes at least. All of it, before work is done for any.
    if body.len() / 2 > limits.all_values && parts.iter().map(found).fold(0, usize::saturating_add) > limits.all_values
    {
        return Err(BadBody::TooManyValues { max: limits.all_values });
    }
    for part in parts {
        if part.bytes.len() > ALWAYS_WITHIN {
            desk.make_room(found(&part).min(2 * limits.values) * BYTES_OF_VALUE)?;
        }
        if received.take_around(part.place, &part.around, limits) {
            match signal {
                Signal::Traces => take(&mut received, &part, limits),
                Signal::Logs => take_log(&mut received, &part, limits),
            }
        }
        received.hand_on(desk)?;
    }
    received.place_logs();
    received.hand_on(desk)?;
    received.warn_of_cuts(limits);
    Ok(received)
}

/// Tells what a request is of by the first of its records that shows it; `None` where they are metrics. Requests of the three
/// signals are alike but for their records, so that the wrong decoder finds broken ones rather than none. What shows
/// nothing is taken for spans, and told by their decoder.
pub(super) fn signal_of(body: &[u8]) -> Option<Signal> {
    let inside = |message| {
        Fields::of(message).filter_map(|(number, value)| match value {
            Field::Bytes(bytes) => Some((number, bytes)),
            _ => None,
        })
    };
    let within = |field| move |(number, bytes)| (number == field).then_some(bytes);
    let of_scopes = inside(body).filter_map(within(1)).flat_map(inside).filter_map(within(2));
    let mut told = of_scopes.flat_map(inside).filter_map(within(2)).filter_map(signal_of_record);
    told.next().unwrap_or(Some(Signal::Traces))
}

/// Times are at other places in spans and records of logs, and metrics have none.
///
/// Source: `opentelemetry/proto/{trace,logs,metrics}/v1`, where a metric has its name in field 1, its points in 5 to 11.
fn signal_of_record(record: &[u8]) -> Option<Option<Signal>> {
    let (mut has_name, mut has_points, mut has_span_id) = (false, false, false);
    for field in Fields::of(record) {
        match field {
            (START | END, Field::Fixed64(_)) => return Some(Some(Signal::Traces)),
            (1 | 11, Field::Fixed64(_)) => return Some(Some(Signal::Logs)),
            (1, Field::Bytes(name)) => has_name = std::str::from_utf8(name).is_ok_and(|name| !name.contains('\0')),
            (2, Field::Bytes(id)) => has_span_id = id.len() == 8,
            (5 | 7 | 9 | 10 | 11, Field::Bytes(_)) => has_points = true,
            _ => {}
        }
    }
    // A span without times is one still, if its ids are.
    (has_name && has_points && !has_span_id).then_some(None)
}

/// When a span began, and whether something encloses it.
fn begin_of(span: &[u8]) -> (u64, bool) {
    let (mut begin, mut has_parent) = (0, false);
    for field in Fields::of(span) {
        match field {
            (START, Field::Fixed64(at)) => begin = u64::from_le_bytes(at),
            (PARENT, Field::Bytes(id)) => has_parent = id.iter().any(|byte| *byte != 0),
            _ => {}
        }
    }
    (begin, has_parent)
}

/// When a record was made, or else seen.
fn begin_of_log(log: &[u8]) -> (u64, bool) {
    let (mut made, mut seen) = (0, 0);
    for field in Fields::of(log) {
        match field {
            (1, Field::Fixed64(at)) => made = u64::from_le_bytes(at),
            (11, Field::Fixed64(at)) => seen = u64::from_le_bytes(at),
            _ => {}
        }
    }
    (if made == 0 { seen } else { made }, false)
}

/// A span, or a record of a log, that is not decoded yet.
struct Part<'a> {
    place: usize,
    around: Arc<Around>,
    bytes: &'a [u8],
}

/// Finds the spans of a request, or its records of logs, once all that is around them makes sense.
fn parts<'a>(body: &'a [u8], signal: Signal, limits: &Limits, desk: &mut dyn Desk) -> Result<Vec<Part<'a>>, BadBody> {
    let (mut parts, mut groups) = (Vec::new(), 0);
    let [outer, inner, innermost] = names(signal);
    for of_resource in messages(body, 1, outer, limits)? {
        let name = format!("{outer}.resource");
        let mut resource: Resource = decoded(of_resource, (1, 2), &name, limits, unknown::keep_of_resource)?;
        // Its texts are those of the body.
        desk.keep_room(resource.attributes.len() * BYTES_OF_VALUE)?;
        schema::note_of(&mut resource.attributes, of_resource);
        let resource = around::fitted_resource(resource, limits);
        let scopes = messages(of_resource, 2, inner, limits)?;
        groups += 1 + scopes.len();
        if groups > limits.spans.saturating_mul(2) {
            return Err(BadBody::TooManySpans { found: parts.len() + groups, max: limits.spans });
        }
        for of_scope in scopes {
            let name = format!("{outer}.{inner}.scope");
            let mut scope: Scope = decoded(of_scope, (3, 4), &name, limits, unknown::keep_of_scope)?;
            desk.keep_room(scope.attributes.len() * BYTES_OF_VALUE)?;
            schema::note_of(&mut scope.attributes, of_scope);
            let around = Arc::new(Around::new(&resource, scope, limits));
            for bytes in messages(of_scope, 2, innermost, limits)? {
                if parts.len() == limits.spans {
                    return Err(BadBody::TooManySpans { found: parts.len() + 1, max: limits.spans });
                }
                parts.push(Part { place: parts.len(), around: Arc::clone(&around), bytes });
            }
        }
    }
    Ok(parts)
}

/// Returns the bytes of a span or a record as they are, or with its longest texts cut where they are too many, and notes that; `None` where it
/// is rejected.
fn within<'a>(received: &mut Received, kind: Kind, place: usize, bytes: &'a [u8], max: usize) -> Option<Cow<'a, [u8]>> {
    if bytes.len() <= max {
        return Some(Cow::Borrowed(bytes));
    }
    let held = shortened(kind, bytes, max);
    if held.is_some() {
        note(&mut received.shortened, place);
    } else {
        let what = if kind == Kind::Log { "record" } else { "span" };
        let why = format!("it has {} bytes, and a {what} may have {max}", bytes.len());
        received.rejected.add(place, "too_large", &why);
    }
    held.map(Cow::Owned)
}

fn take_log(received: &mut Received, part: &Part<'_>, limits: &Limits) {
    let Part { place, ref around, bytes } = *part;
    let Some(bytes) = within(received, Kind::Log, place, bytes, limits.span_bytes) else { return };
    let bytes = &bytes[..];
    if bytes.len() > ALWAYS_WITHIN && values_in_log(bytes) > limits.values {
        let why = format!("it holds more than {} values", limits.values);
        return received.rejected.add(place, "too_many_values", &why);
    }
    match LogRecord::decode(bytes) {
        Ok(mut log) => {
            if log.hold_to(limits.attributes) {
                received.note_cut(place);
            }
            unknown::keep_of_log(&mut log, bytes);
            received.take_log(around, log, bytes.len() + values_in_log(bytes) * BYTES_OF_VALUE);
        }
        Err(error) => received.rejected.add(place, "undecodable", &first_words(&error.to_string())),
    }
}

fn take(received: &mut Received, part: &Part<'_>, limits: &Limits) {
    let Part { place, ref around, bytes } = *part;
    let Some(bytes) = within(received, Kind::Span, place, bytes, limits.span_bytes) else { return };
    let bytes = &bytes[..];
    if bytes.len() > ALWAYS_WITHIN && values_in_span(bytes) > limits.values {
        let why = format!("its attributes hold more than {} values", limits.values);
        return received.rejected.add(place, "too_many_values", &why);
    }
    let held = held_to(bytes, limits);
    if held.is_some() {
        received.note_cut(place);
    }
    match unknown::decode_span(held.as_deref().unwrap_or(bytes)) {
        Ok(span) => received.take(place, around, span),
        Err(error) => received.rejected.add(place, "undecodable", &first_words(&error.to_string())),
    }
}

/// Returns the messages in a field, once all of `message` is known to make sense.
fn messages<'a>(message: &'a [u8], field: u32, name: &str, limits: &Limits) -> Result<Vec<&'a [u8]>, BadBody> {
    let mut found = Vec::new();
    let mut fields = Fields::of(message);
    for (number, value) in fields.by_ref() {
        match value {
            // Even the places of so many would take more memory than the bytes themselves.
            Field::Bytes(_) if number == field && found.len() > limits.spans => {
                return Err(BadBody::TooManySpans { found: found.len(), max: limits.spans });
            }
            Field::Bytes(bytes) if number == field => found.push(bytes),
            _ if number == field => return Err(malformed(&format!("{name} is not a message"))),
            _ => {}
        }
    }
    if fields.rest().is_empty() { Ok(found) } else { Err(malformed(&format!("it is cut or damaged around {name}"))) }
}

/// Decodes the message in field 1, the sum of all where it stands several times; without one, an empty message. Of its
/// attributes, the first of the two `lists` fields, those within the bound are taken and the rest counted in the second.
fn decoded<M: Message + Default>(
    message: &[u8],
    (attributes, dropped): (u32, u32),
    name: &str,
    limits: &Limits,
    keep: impl Fn(&mut M, &[u8]),
) -> Result<M, BadBody> {
    let (mut sum, mut values, mut room) = (M::default(), 0, limits.attributes);
    for bytes in messages(message, 1, name, limits)? {
        values += values_in(bytes, attributes);
        if values > limits.values {
            return Err(malformed(&format!("{name}: its attributes hold more than {} values", limits.values)));
        }
        let mut held = Vec::new();
        cut(bytes, &[(attributes, room, dropped)], &mut held, |_, _| None);
        room = room.saturating_sub(count_of(bytes, attributes));
        sum.merge(&held[..]).map_err(|error| malformed(&format!("{name}: {}", first_words(&error.to_string()))))?;
        keep(&mut sum, bytes);
    }
    Ok(sum)
}

/// A span of so many bytes cannot hold too many values.
const ALWAYS_WITHIN: usize = 64 << 10;
/// Deeper than the decoder goes.
pub(super) const MAX_DEPTH: u32 = 128;

/// Counts the values that a span's attributes hold, those of lists and maps and of its events and links too.
fn values_in_span(span: &[u8]) -> usize {
    let inner = Fields::of(span).filter_map(|field| match field {
        (EVENTS, Field::Bytes(event)) => Some(values_in(event, OF_EVENT.0)),
        (LINKS, Field::Bytes(link)) => Some(values_in(link, OF_LINK.0)),
        _ => None,
    });
    inner.sum::<usize>() + values_in(span, ATTRIBUTES)
}

/// Counts what is made of a span: the same with its events and links, and attributes without a value, as many as it may have.
fn elements_in_span(span: &[u8], limits: &Limits) -> usize {
    let count = |field, max| count_of(span, field).min(max);
    let values = values_in_span(span).max(count(ATTRIBUTES, limits.attributes));
    values + count(EVENTS, limits.events) + count(LINKS, limits.links)
}

fn values_in_log(log: &[u8]) -> usize {
    values_in(log, OF_LOG) + values_of(log, 5, 0)
}

fn values_in(message: &[u8], attributes: u32) -> usize {
    Fields::of(message)
        .filter(|(number, _)| *number == attributes)
        .map(|(_, value)| if let Field::Bytes(attribute) = value { values_of(attribute, 2, 0) } else { 0 })
        .sum()
}

/// Counts the values below a message that has them in `field`: an attribute, a list, a map.
fn values_of(message: &[u8], field: u32, depth: u32) -> usize {
    if depth > MAX_DEPTH {
        return 0;
    }
    let mut sum = 0;
    for (number, value) in Fields::of(message) {
        let Field::Bytes(value) = value else { continue };
        if number != field {
            continue;
        }
        sum += 1;
        for list in Fields::of(value) {
            sum += match list {
                (5, Field::Bytes(list)) => values_of(list, 1, depth + 1),
                (6, Field::Bytes(map)) => Fields::of(map)
                    .map(
                        |(_, entry)| {
                            if let Field::Bytes(entry) = entry { 1 + values_of(entry, 2, depth + 1) } else { 0 }
                        },
                    )
                    .sum(),
                _ => 0,
            };
        }
    }
    sum
}

fn malformed(why: &str) -> BadBody {
    BadBody::Malformed { why: format!("the body is not an OTLP export request in protobuf: {why}") }
}

/// Cuts the decoder's words: of a deep message it names every level.
fn first_words(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Leaves out of a span what is beyond the limits, and counts it there. `None` for a span within them.
fn held_to(span: &[u8], limits: &Limits) -> Option<Vec<u8>> {
    // Each of what is counted takes two bytes at least.
    if span.len() / 2 <= limits.attributes.min(limits.events).min(limits.links) {
        return None;
    }
    let (mut attributes, mut events, mut links, mut is_within) = (0usize, 0usize, 0usize, true);
    for (number, value) in Fields::of(span) {
        let Field::Bytes(bytes) = value else { continue };
        match number {
            ATTRIBUTES => attributes += 1,
            EVENTS => {
                events += 1;
                is_within &= count_of(bytes, OF_EVENT.0) <= limits.attributes;
            }
            LINKS => {
                links += 1;
                is_within &= count_of(bytes, OF_LINK.0) <= limits.attributes;
            }
            _ => {}
        }
    }
    is_within &= attributes <= limits.attributes && events <= limits.events && links <= limits.links;
    if is_within {
        return None;
    }
    let mut out = Vec::with_capacity(span.len().min(limits.span_bytes));
    let lists = [
        (ATTRIBUTES, limits.attributes, DROPPED_ATTRIBUTES),
        (EVENTS, limits.events, DROPPED_EVENTS),
        (LINKS, limits.links, DROPPED_LINKS),
    ];
    cut(span, &lists, &mut out, |number, bytes| {
        let (attributes, dropped) = match number {
            EVENTS => OF_EVENT,
            LINKS => OF_LINK,
            _ => return None,
        };
        let mut inner = Vec::new();
        cut(bytes, &[(attributes, limits.attributes, dropped)], &mut inner, |_, _| None);
        Some(inner)
    });
    Some(out)
}

/// Returns the key of an attribute.
fn key_of(attribute: &[u8]) -> &[u8] {
    let keys = Fields::of(attribute).filter_map(|field| match field {
        (1, Field::Bytes(key)) => Some(key),
        _ => None,
    });
    keys.last().unwrap_or_default()
}

fn count_of(message: &[u8], field: u32) -> usize {
    Fields::of(message).filter(|(number, _)| *number == field).count()
}

/// Copies a message without what is beyond the bound of each of its `lists`: field, bound, and the field that counts
/// what is missing. The first of them are attributes. `inner` may give other bytes for a member of one.
fn cut(message: &[u8], lists: &[(u32, usize, u32)], out: &mut Vec<u8>, inner: impl Fn(u32, &[u8]) -> Option<Vec<u8>>) {
    // Ranked only where some have to go, which is next to never.
    let surplus = lists.first().filter(|(field, max, _)| count_of(message, *field) > *max);
    let mut staying = surplus.map(|(field, max, _)| {
        let keys = Fields::of(message).filter(|(number, _)| number == field);
        let keys = keys.map(|(_, value)| if let Field::Bytes(attribute) = value { key_of(attribute) } else { b"" });
        surplus::staying(keys, *max).into_iter().peekable()
    });
    let mut seen = vec![0usize; lists.len()];
    let mut dropped = vec![0u64; lists.len()];
    for (number, value) in Fields::of(message) {
        if let Some(place) = lists.iter().position(|(_, _, count)| *count == number) {
            if let Field::Varint(count) = value {
                dropped[place] = dropped[place].saturating_add(count);
            }
            continue;
        }
        let Some(place) = lists.iter().position(|(field, _, _)| *field == number) else {
            put(out, number, value);
            continue;
        };
        let stays = match &mut staying {
            Some(staying) if place == 0 => staying.next_if_eq(&seen[0]).is_some(),
            _ => seen[place] < lists[place].1,
        };
        seen[place] += 1;
        if !stays {
            dropped[place] += 1;
        } else if let Field::Bytes(bytes) = value {
            match inner(number, bytes) {
                Some(bytes) => put(out, number, Field::Bytes(&bytes)),
                None => put(out, number, value),
            }
        }
    }
    for (place, (_, _, count)) in lists.iter().enumerate().filter(|(place, _)| dropped[*place] > 0) {
        put(out, *count, Field::Varint(dropped[place].min(u64::from(u32::MAX))));
    }
}
