//! What the tables can say of spans of one form: those of one scope that have the same keys in the same order.
//!
//! A program makes spans of a few forms, over and over, while nearly all marks and rows of the tables are of other emitters. Which of
//! them can hold is found when a form comes for the second time, and only these are asked from then on. What they say is read
//! of each span anew: a form knows keys, and no values.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

use super::Dialects;
use super::detect::{self, Found};
use super::source::{Keys, may_say};
use crate::conventions::dialects::{DIALECTS, Detect, OTEL, Row};
use crate::model::id::{IdHash, IdMap};
use crate::model::key_filter::KeyFilter;
use crate::model::record::Record;

/// Forms that a thread knows, at most; each is a few kilobytes.
const MAX_FORMS: usize = 256;
/// Places for forms that came once.
const MAX_SEEN: usize = 1024;
/// Spans with more keys, or longer ones, have no form: theirs are their own.
const MAX_KEYS: usize = 64;
const MAX_BYTES: usize = 4096;
/// So many lists of dialects a form has rows of, at most: by names and values, spans of one form may be of several.
const MAX_ROWS: usize = 8;

/// Rows of facts that may find something.
type Rows = Rc<[&'static Row]>;

/// What can be said of the spans of one form.
#[derive(Debug)]
pub(super) struct Form {
    scope: (String, String),
    /// Those of the span, and behind them those of its events.
    keys: Vec<String>,
    /// How many are the span's.
    own: usize,
    filter: KeyFilter,
    /// Dialects by their place, and the marks of them that may be there.
    marks: Vec<(usize, &'static Detect)>,
    /// The rows that may find something, by the dialects that are read.
    rows: RefCell<Vec<(Found, Rows)>>,
}

/// The forms of a thread.
#[derive(Default)]
struct Forms {
    known: IdMap<u64, Rc<Form>>,
    /// Which came once, as far as there is room.
    seen: Vec<u64>,
    hash: IdHash,
}

impl Form {
    /// Returns the form of a record's span, if it came before.
    pub fn of(record: &Record) -> Option<Rc<Self>> {
        thread_local! {
            static FORMS: RefCell<Forms> = RefCell::default();
        }
        FORMS.try_with(|forms| forms.try_borrow_mut().ok()?.form_of(record)).ok()?
    }

    fn new(record: &Record) -> Self {
        let mut form = Self {
            scope: (record.scope.name.clone(), record.scope.version.clone()),
            keys: keys_of(record).map(str::to_owned).collect(),
            own: record.span.attributes.len(),
            filter: KeyFilter::with_events(&record.span),
            marks: Vec::new(),
            rows: RefCell::default(),
        };
        for (place, dialect) in DIALECTS.iter().enumerate() {
            let own = &form.keys[..form.own];
            let may_be = |mark: &&Detect| detect::may_be_marked_by(mark, record, own, &form.filter);
            form.marks.extend(dialect.detect.iter().filter(may_be).map(|mark| (place, mark)));
        }
        form
    }

    fn is_of(&self, record: &Record) -> bool {
        self.scope.0 == record.scope.name
            && self.scope.1 == record.scope.version
            && self.own == record.span.attributes.len()
            && self.keys.iter().map(String::as_str).eq(keys_of(record))
    }

    /// Returns the filter of its keys.
    pub fn filter(&self) -> KeyFilter {
        self.filter
    }

    /// Returns the marks that may be there, each with the place of its dialect, in order.
    pub fn marks(&self) -> &[(usize, &'static Detect)] {
        &self.marks
    }

    /// Returns the rows of these dialects and the standard that may find something; `None` where there is no list of them.
    pub fn rows(&self, dialects: Dialects<'_>) -> Option<Rows> {
        let mut known = self.rows.borrow_mut();
        let is_same = |(found, _): &&(Found, _)| {
            found.as_slice().len() == dialects.len()
                && found.as_slice().iter().zip(dialects).all(|(one, other)| std::ptr::eq(*one, *other))
        };
        if let Some((_, rows)) = known.iter().find(is_same) {
            return Some(Rc::clone(rows));
        }
        if known.len() >= MAX_ROWS {
            return None;
        }
        let rows: Rows = self.rows_of(dialects).into();
        known.push((Found::of(dialects), Rc::clone(&rows)));
        Some(rows)
    }

    /// A row may find something where one of its sources may, or something stands under its canonical name, be it that a row before
    /// it has written that.
    fn rows_of(&self, dialects: Dialects<'_>) -> Vec<&'static Row> {
        let all = self.keys.iter().map(String::as_str).collect();
        let (mut keys, mut rows) = (Exact { all, filter: self.filter }, Vec::new());
        for row in dialects.iter().flat_map(|dialect| dialect.facts).chain(OTEL.facts) {
            if keys.may_have(row.to) || row.from.iter().any(|source| may_say(&keys, source)) {
                rows.push(row);
                keys.all.push(row.to);
                keys.filter.note(row.to);
            }
        }
        rows
    }
}

impl Forms {
    fn form_of(&mut self, record: &Record) -> Option<Rc<Form>> {
        let hash = self.hash_of(record)?;
        if let Some(form) = self.known.get(&hash) {
            return form.is_of(record).then(|| Rc::clone(form));
        }
        if self.seen.is_empty() {
            self.seen = vec![0; MAX_SEEN];
        }
        let place = hash as usize % MAX_SEEN;
        if std::mem::replace(&mut self.seen[place], hash) != hash {
            return None;
        }
        // Forms that somebody makes up as they go must not stay for ever, and where there are so many each is to come twice again.
        if self.known.len() >= MAX_FORMS {
            self.known.clear();
            self.seen.fill(0);
        }
        let form = Rc::new(Form::new(record));
        self.known.insert(hash, Rc::clone(&form));
        Some(form)
    }

    /// `None` for a span of which there are too many keys to be a form.
    fn hash_of(&self, record: &Record) -> Option<u64> {
        let mut hasher = self.hash.build_hasher();
        hasher.write(record.scope.name.as_bytes());
        hasher.write(record.scope.version.as_bytes());
        hasher.write(&record.span.attributes.len().to_le_bytes());
        let (mut count, mut bytes) = (0, record.scope.name.len() + record.scope.version.len());
        for key in keys_of(record) {
            (count, bytes) = (count + 1, bytes + key.len());
            if count > MAX_KEYS || bytes > MAX_BYTES {
                return None;
            }
            hasher.write(key.as_bytes());
        }
        Some(hasher.finish())
    }
}

fn keys_of(record: &Record) -> impl Iterator<Item = &str> {
    let of_events = record.span.events.iter().flat_map(|event| &event.attributes);
    record.span.attributes.iter().chain(of_events).map(|attribute| attribute.key.as_str())
}

/// Keys, each as it is. Most of what is asked for is not there, which the filter knows.
struct Exact<'a> {
    all: Vec<&'a str>,
    filter: KeyFilter,
}

impl Keys for Exact<'_> {
    fn may_have(&self, key: &str) -> bool {
        self.filter.may_have(key) && self.all.contains(&key)
    }

    fn may_begin(&self, start: &str) -> bool {
        self.filter.may_begin(start) && self.all.iter().any(|key| key.starts_with(start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{normalize_by, restore_original};
    use super::*;
    use crate::conventions::dialects::UNKNOWN;
    use crate::conventions::names;
    use crate::model::otlp::{Scope, Span, SpanEvent, Value, set};
    use crate::model::record::RecordKind;

    /// Normalizes a record by its form, and as one that has none.
    fn both(record: &Record) -> (Record, Record) {
        let (mut with, mut without) = (record.clone(), record.clone());
        normalize_by(&mut with, Some(&Form::new(record)));
        normalize_by(&mut without, None);
        (with, without)
    }

    #[cfg(feature = "server")]
    #[test]
    fn spans_of_recordings_say_the_same_by_their_form() {
        let mut spans = 0;
        for (path, records) in crate::pipeline::recordings::recordings() {
            for record in records {
                let (with, without) = both(&record);
                assert_eq!(with, without, "{}", path.display());
                spans += 1;
            }
        }
        assert!(spans > 500, "only {spans} spans");
    }

    /// All keys that the tables read, and names of scopes that they know.
    fn words() -> (Vec<String>, Vec<String>) {
        let (mut keys, mut scopes) = (Vec::new(), vec![String::new()]);
        for dialect in DIALECTS.iter().copied().chain([&UNKNOWN]) {
            for row in dialect.facts.iter().chain(OTEL.facts) {
                keys.push(row.to.to_owned());
                row.from.iter().for_each(|source| {
                    source.reads(&mut |key| {
                        keys.push(key.to_owned());
                        false
                    });
                });
            }
            for mark in dialect.detect {
                match *mark {
                    Detect::Key(key) | Detect::Value(key, _) | Detect::Maker(key, _) => keys.push(key.to_owned()),
                    Detect::KeyPrefix(start) => keys.push(format!("{start}x")),
                    Detect::Scope(name) | Detect::ScopePrefix(name) | Detect::ScopeWith(name, _) => {
                        scopes.push(name.to_owned());
                    }
                    Detect::ScopeBy(name, ..) | Detect::ScopeLacking(name, ..) | Detect::ScopeOf(name, _) => {
                        scopes.push(name.to_owned());
                    }
                    _ => {}
                }
            }
        }
        (keys, scopes)
    }

    fn record() -> impl Strategy<Value = Record> {
        let (keys, scopes) = words();
        let value = prop_oneof![
            (0..9i64).prop_map(Value::from),
            prop::sample::select(vec!["", "openai", "gpt-4o", "chat", "agent", "{\"a\":1}", "[\"stop\"]"])
                .prop_map(Value::from),
        ];
        let attributes = prop::collection::vec((prop::sample::select(keys), value), 0..12);
        let name = prop::sample::select(vec!["chat gpt-4o", "execute_tool search", "invoke_agent a", "Agent.run"]);
        (prop::sample::select(scopes), name, attributes, 0..4usize).prop_map(|(scope, name, attributes, of_event)| {
            let mut span = Span { name: name.to_owned(), end_time_unix_nano: 1, ..Span::default() };
            let mut event = SpanEvent { name: "gen_ai.choice".to_owned(), ..SpanEvent::default() };
            for (place, (key, value)) in attributes.into_iter().enumerate() {
                set(if place < of_event { &mut event.attributes } else { &mut span.attributes }, &key, value);
            }
            span.events.push(event);
            let scope = Scope { name: scope, ..Scope::default() };
            Record { kind: RecordKind::Ended, resource: std::sync::Arc::default(), scope, span }
        })
    }

    proptest! {
        #[test]
        fn any_span_says_the_same_by_its_form(record in record()) {
            let (mut with, without) = both(&record);
            prop_assert_eq!(&with, &without);
            restore_original(&mut with.span);
            prop_assert_eq!(with.span, record.span);
        }
    }

    #[test]
    fn a_form_is_known_from_its_second_span_on_and_by_all_of_its_keys() {
        let of = |keys: &[&str], scope: &str| {
            let mut record = Record {
                kind: RecordKind::Ended,
                resource: std::sync::Arc::default(),
                scope: Scope { name: scope.to_owned(), ..Scope::default() },
                span: Span::default(),
            };
            keys.iter().for_each(|key| record.span.set_attr(key, 1));
            Form::of(&record).map(|form| form.is_of(&record))
        };
        let keys = [names::OPERATION, names::REQUEST_MODEL];
        assert_eq!((of(&keys, "a"), of(&keys, "a"), of(&keys, "a")), (None, Some(true), Some(true)));
        assert_eq!((of(&keys[..1], "a"), of(&keys, "b")), (None, None));
        let many: Vec<String> = (0..=MAX_KEYS).map(|n| format!("key.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!((of(&many, "a"), of(&many, "a")), (None, None));
    }
}
