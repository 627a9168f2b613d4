//! Which dialects a span is written in.

use crate::conventions::dialects::{DIALECTS, Detect, Dialect, UNKNOWN};
use crate::model::key_filter::KeyFilter;
use crate::model::otlp::Value;
use crate::model::record::Record;

/// Dialects that are read of one span, at most: who makes it, and who writes on it on its way.
const MAX_DIALECTS: usize = 4;

/// The dialects that a span is written in, in the order in which they are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    dialects: [&'static Dialect; MAX_DIALECTS],
    count: usize,
}

impl Found {
    /// Takes these, as many as may be read.
    pub fn of(dialects: &[&'static Dialect]) -> Self {
        let mut found = Self { dialects: [&UNKNOWN; MAX_DIALECTS], count: 0 };
        dialects.iter().for_each(|dialect| found.add(dialect));
        found
    }

    fn add(&mut self, dialect: &'static Dialect) {
        if self.count < MAX_DIALECTS && !self.as_slice().iter().any(|other| other.is_kin(dialect)) {
            self.dialects[self.count] = dialect;
            self.count += 1;
        }
    }

    pub fn as_slice(&self) -> &[&'static Dialect] {
        &self.dialects[..self.count]
    }
}

/// Finds the dialects that a record's span is written in; [`UNKNOWN`] for none.
pub(super) fn dialects_of(record: &Record, keys: &KeyFilter) -> Found {
    let mut found = Found::of(&[]);
    for dialect in DIALECTS.iter().copied() {
        if found.count < MAX_DIALECTS && is_written_in(dialect, record, keys) {
            found.add(dialect);
        }
    }
    settled(found, record, keys)
}

/// Finds the same by the marks that a form may bear, each with the place of its dialect.
pub(super) fn dialects_by(marks: &[(usize, &'static Detect)], record: &Record, keys: &KeyFilter) -> Found {
    let (mut found, mut last) = (Found::of(&[]), None);
    for (place, mark) in marks {
        // One mark is enough.
        if last != Some(*place) && found.count < MAX_DIALECTS && is_marked_by(mark, record, keys) {
            last = Some(*place);
            found.add(DIALECTS[*place]);
        }
    }
    settled(found, record, keys)
}

fn settled(mut found: Found, record: &Record, keys: &KeyFilter) -> Found {
    if found.count > 1 {
        forget_maker(&mut found.dialects, &mut found.count, record, keys);
    }
    // One that is not known.
    found.count = found.count.max(1);
    found
}

/// Leaves out what only the resource speaks for, where the scope speaks for another: who set up a process says nothing of how a
/// library in it writes its own spans.
fn forget_maker(found: &mut [&'static Dialect; MAX_DIALECTS], count: &mut usize, record: &Record, keys: &KeyFilter) {
    let is_told_by = |dialect: &Dialect, is_such: fn(&Detect) -> bool| {
        dialect.detect.iter().any(|mark| is_such(mark) && is_marked_by(mark, record, keys))
    };
    let is_of_maker = |dialect: &Dialect| {
        is_told_by(dialect, Detect::is_of_resource) && !is_told_by(dialect, |mark| !mark.is_of_resource())
    };
    let (mut kept, mut left) = ([&UNKNOWN; MAX_DIALECTS], 0);
    for dialect in found[..*count].iter().copied().filter(|dialect| !is_of_maker(dialect)) {
        kept[left] = dialect;
        left += 1;
    }
    if left < *count && kept[..left].iter().any(|dialect| is_told_by(dialect, Detect::is_of_scope)) {
        (*found, *count) = (kept, left);
    }
}

fn is_written_in(dialect: &Dialect, record: &Record, keys: &KeyFilter) -> bool {
    dialect.detect.iter().any(|mark| is_marked_by(mark, record, keys))
}

fn is_marked_by(mark: &Detect, record: &Record, keys: &KeyFilter) -> bool {
    let (span, scope) = (&record.span, &record.scope);
    let has = |is_it: &dyn Fn(&str) -> bool| span.attributes.iter().any(|attribute| is_it(&attribute.key));
    match *mark {
        Detect::Key(key) => keys.may_have(key) && has(&|own| own == key),
        Detect::KeyPrefix(start) => keys.may_begin(start) && has(&|own| begins(own, start)),
        Detect::Value(key, start) => {
            keys.may_have(key) && span.attr_str(key).is_some_and(|value| value.starts_with(start))
        }
        Detect::ValueWithout(key, start, other, part) => {
            let has_start = keys.may_have(key) && span.attr_str(key).is_some_and(|value| value.starts_with(start));
            has_start && span.attr_str(other).is_some_and(|value| !value.contains(part))
        }
        Detect::Maker(key, word) => {
            let of_resource = record.resource.attr(key).and_then(Value::as_str);
            of_resource.or_else(|| span.attr_str(key)) == Some(word)
        }
        Detect::Scope(name) => scope.name == name,
        Detect::ScopePrefix(start) => begins(&scope.name, start),
        Detect::Called(part) => span.name.contains(part),
        Detect::ScopeBy(name, key, word) => {
            scope.name == name && record.resource.attr(key).and_then(Value::as_str) == Some(word)
        }
        Detect::Release { scope: name, version, by: (key, word), with } => {
            scope.name == name
                && version.is_none_or(|version| scope.version == version)
                && record.resource.attr(key).and_then(Value::as_str) == Some(word)
                && (with.is_empty() || keys.may_begin(with) && has(&|own| begins(own, with)))
        }
        Detect::ScopeLacking(name, key, start, other) => {
            let has_start = || keys.may_have(key) && span.attr_str(key).is_some_and(|value| value.starts_with(start));
            scope.name == name && has_start() && !has(&|own| own == other)
        }
        Detect::ScopeOf(name, versions) => scope.name == name && versions.contains(&scope.version.as_str()),
        Detect::ScopeWith(name, start) => scope.name == name && keys.may_begin(start) && has(&|own| begins(own, start)),
        Detect::Named(start, name) => span.name == name && begins(&scope.name, start),
        Detect::Begins(start, name) => begins(&span.name, name) && begins(&scope.name, start),
        Detect::Within { scope: start, name, key, part } => {
            begins(&scope.name, start)
                && begins(&span.name, name)
                && span.attr_str(key).is_some_and(|value| value.contains(part))
        }
        Detect::Method(start, key) => {
            let is_own = |own: &str| {
                let rest = own.strip_prefix(span.name.as_str());
                rest.is_some_and(|rest| rest.starts_with(".argument.") || rest == ".result")
            };
            span.name.starts_with(start) && keys.may_have(key) && has(&|own| own == key) && has(&is_own)
        }
        Detect::Around(start, key, end, other) => {
            let inner = span.name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
            inner.is_some_and(|inner| span.attr_str(key) == Some(inner)) && has(&|own| own == other)
        }
        Detect::NamedBy(name, with, of, word) => {
            span.name == name
                && with.iter().all(|key| keys.may_have(key) && has(&|own| own == *key))
                && record.resource.attr(of).and_then(Value::as_str) == Some(word)
        }
    }
}

/// Tells whether a span of this scope with these keys of its own may bear a mark, whatever its name, its values and its resource are.
pub(super) fn may_be_marked_by(mark: &Detect, record: &Record, keys: &[String], filter: &KeyFilter) -> bool {
    let scope = &record.scope;
    let has = |key: &str| filter.may_have(key) && keys.iter().any(|own| own == key);
    let has_start = |start: &str| filter.may_begin(start) && keys.iter().any(|own| own.starts_with(start));
    match *mark {
        Detect::Maker(..) | Detect::Called(_) => true,
        Detect::Key(key) | Detect::Value(key, _) | Detect::Method(_, key) => has(key),
        Detect::KeyPrefix(start) => has_start(start),
        Detect::ValueWithout(key, _, other, _) | Detect::Around(_, key, _, other) => has(key) && has(other),
        Detect::Scope(name) | Detect::ScopeBy(name, ..) => scope.name == name,
        Detect::ScopePrefix(start) | Detect::Named(start, _) | Detect::Begins(start, _) => {
            scope.name.starts_with(start)
        }
        Detect::Release { scope: name, version, with, .. } => {
            scope.name == name
                && version.is_none_or(|version| scope.version == version)
                && (with.is_empty() || has_start(with))
        }
        Detect::ScopeLacking(name, key, _, other) => scope.name == name && has(key) && !has(other),
        Detect::ScopeOf(name, versions) => scope.name == name && versions.contains(&scope.version.as_str()),
        Detect::ScopeWith(name, start) => scope.name == name && has_start(start),
        Detect::Within { scope: start, key, .. } => scope.name.starts_with(start) && has(key),
        Detect::NamedBy(_, with, ..) => with.iter().all(|key| has(key)),
    }
}

/// Tells whether a text begins so. Many rows are asked of each span, and what they look for begins alike and differs behind: the last
/// letter says no to nearly all.
#[inline]
fn begins(text: &str, start: &str) -> bool {
    let last = start.len().wrapping_sub(1);
    text.as_bytes().get(last) == start.as_bytes().last() && text.starts_with(start)
}
