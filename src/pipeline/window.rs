//! What waits in the ring, looked at as a whole before it goes down the line.
//!
//! A step that began, said something and ended between two looks has three or more records in the window, and its end
//! tells all that the others do. Then only the end goes down the line; the start is made of it, at its own place, so
//! that the order of the log and the names that hang on it stay; and what is between needs no words of its own. In a
//! busy process that is most of the work.

use std::ops::Range;

use crate::conventions::names;
use crate::model::id::{IdMap, IdSet};
use crate::model::key_filter::KeyFilter;
use crate::model::otlp::{KeyValue, Span};
use crate::model::record::{Record, RecordKind};
use crate::model::wire::SpanIds;
use crate::sources::recorder::RESOURCE_RECORD;
use crate::sources::ring::Ring;

/// Inputs up to this length stand in a start that is made of an end; a longer one is told by the end alone.
const START_CONTENT: usize = 4 << 10;

/// Records of one look into the ring.
#[derive(Debug, Default)]
pub(crate) struct Window {
    bytes: Vec<u8>,
    records: Vec<Taken>,
}

/// One record of a window.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    place: Range<usize>,
    /// The position in the ring behind it.
    pub next: u64,
    /// How it is told.
    pub part: Part,
}

/// How a record is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// As it is.
    Whole,
    /// By a start made of the end with this index in the window.
    StartOf(usize),
    /// By the end with this index in the window.
    Within(usize),
}

impl Window {
    /// Takes a look: what is committed from `position` on, up to about so many records and bytes.
    pub fn fill(&mut self, ring: &Ring, position: u64, max_records: usize, max_bytes: usize) {
        self.bytes.clear();
        self.records.clear();
        let mut at = position;
        while self.records.len() < max_records && self.bytes.len() < max_bytes {
            let start = self.bytes.len();
            let Some(next) = ring.read(at, &mut self.bytes) else { break };
            self.records.push(Taken { place: start..self.bytes.len(), next, part: Part::Whole });
            at = next;
        }
        self.find_whole_steps();
    }

    /// Lets go of a buffer that one huge record made large.
    pub fn shrink_to(&mut self, bytes: usize) {
        if self.bytes.capacity() > bytes {
            self.bytes = Vec::new();
        }
    }

    /// Returns how many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Is there nothing?
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Returns a record: how it is told, and its bytes.
    pub fn get(&self, index: usize) -> (&Taken, &[u8]) {
        let taken = &self.records[index];
        (taken, &self.bytes[taken.place.clone()])
    }

    /// Tells whether between a start and its end there is nothing but what the end tells.
    pub fn has_nothing_between(&self, start: usize, end: usize) -> bool {
        self.records[start + 1..end].iter().all(|taken| taken.part == Part::Within(end))
    }

    /// Finds the steps that are whole in this window.
    fn find_whole_steps(&mut self) {
        let records = self.records.iter().map(|taken| &self.bytes[taken.place.clone()]);
        let ids: Vec<Option<(RecordKind, SpanIds)>> = records
            .map(|bytes| {
                let (kind, payload) = bytes.split_first()?;
                Some((RecordKind::from_u8(*kind)?, SpanIds::of(payload)?))
            })
            .collect();
        let key = |ids: &SpanIds| (ids.trace_id, ids.span_id);
        let mut ends = IdMap::default();
        for (index, (kind, ids)) in ids.iter().enumerate().filter_map(|(index, known)| Some((index, known.as_ref()?))) {
            // Events that the end left out are told by their own records only.
            if *kind == RecordKind::Ended && !ids.has_dropped_events {
                ends.insert(key(ids), index);
            }
        }
        if ends.is_empty() {
            return;
        }
        // A start and its end are taken for the work of one maker: what began before the last one was named is told as
        // it is.
        let is_maker = |taken: &Taken| self.bytes[taken.place.clone()].first() == Some(&RESOURCE_RECORD);
        let named = self.records.iter().rposition(is_maker).map_or(0, |place| place + 1);
        let mut begun = IdSet::default();
        for (index, known) in ids.iter().enumerate().skip(named) {
            let Some((kind, ids)) = known else { continue };
            let end = ends.get(&key(ids)).copied().filter(|end| *end > index);
            self.records[index].part = match (kind, end) {
                // What was begun in an earlier window may have events there, so its events keep their own words.
                (RecordKind::Started, Some(end)) if begun.insert(key(ids)) => Part::StartOf(end),
                (RecordKind::Started | RecordKind::Event, Some(end)) if begun.contains(&key(ids)) => Part::Within(end),
                _ => Part::Whole,
            };
        }
    }
}

/// Makes the start of a step of its end.
pub(crate) fn start_of(end: &Record) -> Record {
    let mut span = start_of_span(&end.span, |attribute| {
        names::TELL_INPUT.contains(&attribute.key.as_str()) && length(attribute) <= START_CONTENT
    });
    // They may say which run caused this one.
    span.links.clone_from(&end.span.links);
    Record { kind: RecordKind::Started, resource: end.resource.clone(), scope: end.scope.clone(), span }
}

/// The names of [`names::TELL_WHICH`]: most attributes have none of them, and need not be compared with each.
static WHICH: KeyFilter = KeyFilter::of_names(names::TELL_WHICH);

/// Leaves of a span that has ended what tells which step it is, and what else is asked for.
pub(crate) fn start_of_span(span: &Span, is_asked_for: impl Fn(&KeyValue) -> bool) -> Span {
    let may_tell = |key: &str| WHICH.may_have(key) && names::TELL_WHICH.contains(&key);
    let tells = |attribute: &&KeyValue| may_tell(&attribute.key) || is_asked_for(attribute);
    /// As many tell which step it is, about.
    const FEW: usize = 12;
    let mut attributes = Vec::with_capacity(span.attributes.len().min(FEW));
    attributes.extend(span.attributes.iter().filter(tells).cloned());
    Span {
        trace_id: span.trace_id.clone(),
        span_id: span.span_id.clone(),
        parent_span_id: span.parent_span_id.clone(),
        trace_state: span.trace_state.clone(),
        flags: span.flags,
        name: span.name.clone(),
        kind: span.kind,
        start_time_unix_nano: span.start_time_unix_nano,
        attributes,
        ..Span::default()
    }
}

fn length(attribute: &KeyValue) -> usize {
    prost::Message::encoded_len(attribute)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;
    use crate::model::otlp::{ScopeSpans, SpanEvent};
    use prost::Message;

    fn put(ring: &Ring, kind: RecordKind, span: u8, dropped_events: u32) {
        let span = Span {
            trace_id: vec![1; 16],
            span_id: vec![span; 8],
            dropped_events_count: dropped_events,
            ..Span::default()
        };
        let bytes = ScopeSpans { spans: vec![span], ..ScopeSpans::default() }.encode_to_vec();
        ring.push(&[&[kind as u8], &bytes]).unwrap();
    }

    #[test]
    fn a_step_that_is_whole_in_the_window_is_told_by_its_end() {
        use RecordKind::{Ended, Event, Started};
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::create_in(dir.path(), RunId([1; 16]), 64 << 10).unwrap();
        let told = [
            (Event, 1, 0),   // begun before
            (Started, 2, 0), // whole, and with late facts
            (Started, 2, 0),
            (Started, 3, 0), // goes on
            (Event, 2, 0),
            (Started, 4, 0), // has events that its end does not tell
            (Event, 4, 0),
            (Ended, 4, 1),
            (Ended, 2, 0),
            (Event, 2, 0), // after its end
            (Ended, 1, 0),
        ];
        for (kind, span, dropped) in told {
            put(&ring, kind, span, dropped);
        }
        let mut window = Window::default();
        window.fill(&ring, 0, 100, 1 << 20);
        let parts: Vec<Part> = (0..window.len()).map(|index| window.get(index).0.part).collect();
        let whole = Part::Whole;
        let expected = [
            whole,
            Part::StartOf(8),
            Part::Within(8),
            whole,
            Part::Within(8),
            whole,
            whole,
            whole,
            whole,
            whole,
            whole,
        ];
        assert_eq!(parts, expected);
        // Of the step that is whole others' records stand in between.
        assert!(!window.has_nothing_between(1, 8));
    }

    #[test]
    fn between_a_start_and_its_end_there_is_nothing_where_all_that_is_there_the_end_tells() {
        use RecordKind::{Ended, Event, Started};
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::create_in(dir.path(), RunId([1; 16]), 64 << 10).unwrap();
        let told = [
            (Started, 1), // around the others
            (Started, 2),
            (Event, 2),
            (Started, 2), // late facts
            (Ended, 2),
            (Started, 3),
            (Ended, 3),
            (Ended, 1),
        ];
        for (kind, span) in told {
            put(&ring, kind, span, 0);
        }
        let mut window = Window::default();
        window.fill(&ring, 0, 100, 1 << 20);
        assert!(window.has_nothing_between(1, 4));
        assert!(window.has_nothing_between(5, 6));
        assert!(!window.has_nothing_between(0, 7));
    }

    #[test]
    fn a_step_in_which_the_maker_of_records_changes_is_told_as_it_is() {
        use RecordKind::{Ended, Started};
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::create_in(dir.path(), RunId([1; 16]), 64 << 10).unwrap();
        ring.push(&[&[RESOURCE_RECORD], b"first"]).unwrap();
        put(&ring, Started, 1, 0);
        ring.push(&[&[RESOURCE_RECORD], b"second"]).unwrap();
        put(&ring, Started, 2, 0);
        put(&ring, Ended, 1, 0);
        put(&ring, Ended, 2, 0);
        let mut window = Window::default();
        window.fill(&ring, 0, 100, 1 << 20);
        let parts: Vec<Part> = (0..window.len()).map(|index| window.get(index).0.part).collect();
        let whole = Part::Whole;
        assert_eq!(parts, [whole, whole, whole, Part::StartOf(5), whole, whole]);
    }

    #[test]
    fn a_start_made_of_an_end_tells_which_step_it_is() {
        let mut span = Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            parent_span_id: vec![3; 8],
            name: "chat gpt-4o".to_owned(),
            start_time_unix_nano: 5,
            end_time_unix_nano: 9,
            events: vec![SpanEvent::default()],
            ..Span::default()
        };
        span.set_attr(names::OPERATION, "chat");
        span.set_attr(names::INPUT_TOKENS, 5);
        span.set_attr(names::INPUT_MESSAGES, "x".repeat(START_CONTENT));
        span.set_attr(names::INPUT, "short");
        let end = Record { kind: RecordKind::Ended, resource: Default::default(), scope: Default::default(), span };
        let mut expected = Record { kind: RecordKind::Started, ..end.clone() };
        expected.span.end_time_unix_nano = 0;
        expected.span.events.clear();
        expected.span.attributes.retain(|attribute| [names::OPERATION, names::INPUT].contains(&&*attribute.key));
        assert_eq!(start_of(&end), expected);
    }
}
