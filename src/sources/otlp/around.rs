//! What stands around a span or a record of a log: its resource and its scope, cut where they are too large to be stored.

use std::sync::Arc;

use prost::Message;

use super::shorten::{Kind, shortened};
use super::{Limits, Received, note};
use crate::model::otlp::{Resource, Scope, Span};
use crate::model::record::{Record, RecordKind};
use crate::model::unknown;

/// Of which spans they are.
#[derive(Debug)]
pub(super) struct Around {
    pub resource: Arc<Resource>,
    pub scope: Scope,
    /// Texts of them were cut.
    is_cut: bool,
    /// They are too large all the same, so that nothing below them can be taken.
    pub is_too_large: bool,
}

/// How something fits into what it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Whole,
    Cut,
    TooLarge,
}

/// A resource that is within its bound, or as it is.
pub(super) struct Fitted {
    resource: Arc<Resource>,
    fit: Fit,
}

/// Cuts the longest texts of a resource that is larger than it may be.
pub(super) fn fitted_resource(mut resource: Resource, limits: &Limits) -> Fitted {
    let fit = fit(&mut resource, Kind::Resource, limits.span_bytes, unknown::encode_resource, |bytes| {
        unknown::decode_resource(bytes).ok()
    });
    Fitted { resource: Arc::new(resource), fit }
}

fn fit<M: Message>(
    message: &mut M,
    kind: Kind,
    max: usize,
    encode: impl Fn(&M) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Option<M>,
) -> Fit {
    if message.encoded_len() <= max {
        return Fit::Whole;
    }
    match shortened(kind, &encode(message), max).and_then(|bytes| decode(&bytes)) {
        Some(held) => {
            *message = held;
            Fit::Cut
        }
        None => Fit::TooLarge,
    }
}

impl Around {
    pub fn new(resource: &Fitted, mut scope: Scope, limits: &Limits) -> Self {
        // As it is in memory: what stands beside it in OTLP is among its attributes.
        let decode = |bytes: &[u8]| Scope::decode(bytes).ok();
        let fits = [resource.fit, fit(&mut scope, Kind::Scope, limits.scope_bytes, Message::encode_to_vec, decode)];
        Self {
            resource: Arc::clone(&resource.resource),
            scope,
            is_cut: fits.contains(&Fit::Cut),
            is_too_large: fits.contains(&Fit::TooLarge),
        }
    }

    /// Makes a record of what is below.
    pub fn record(&self, kind: RecordKind, span: Span) -> Record {
        Record { kind, resource: Arc::clone(&self.resource), scope: self.scope.clone(), span }
    }
}

impl Received {
    /// Notes what was cut around a span or record, and rejects it where that is too large; false then.
    pub(super) fn take_around(&mut self, place: usize, around: &Around, limits: &Limits) -> bool {
        if around.is_too_large {
            let Limits { span_bytes, scope_bytes, .. } = limits;
            let why = format!(
                "its resource or scope is too large: a resource may have {span_bytes} bytes, a scope {scope_bytes}"
            );
            self.rejected.add(place, "too_large", &why);
        } else if around.is_cut {
            note(&mut self.shortened_around, place);
        }
        !around.is_too_large
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::otlp::{KeyValue, ResourceSpans, ScopeSpans, TracesData, Value};
    use crate::sources::otlp::{Encoding, traces};

    fn words(key: &str, bytes: usize) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(Value::from("word ".repeat(bytes / 5)).into()) }
    }

    /// A request of a resource, a scope with a name, and a span.
    fn part(resource: Vec<KeyValue>, name: String, scope: Vec<KeyValue>, id: u8) -> ResourceSpans {
        let resource = Some(Resource { attributes: resource, ..Resource::default() });
        let scope = Some(Scope { name, attributes: scope, ..Scope::default() });
        let span = Span { trace_id: vec![1; 16], span_id: vec![id; 8], end_time_unix_nano: 1, ..Span::default() };
        let of_scope = ScopeSpans { scope, spans: vec![span], ..ScopeSpans::default() };
        ResourceSpans { resource, scope_spans: vec![of_scope], ..ResourceSpans::default() }
    }

    #[test]
    fn what_stands_around_a_span_is_cut_to_its_bound_or_costs_the_spans_below_it() {
        let limits = Limits { span_bytes: 300_000, scope_bytes: 200_000, ..Limits::default() };
        let name = || "scope".to_owned();
        let long_key = KeyValue { key: "k".repeat(400_000), value: None };
        let resource_spans = vec![
            part(vec![words("a", 10), words("b", 400_000)], name(), vec![], 1),
            part(vec![words("a", 250_000)], "n ".repeat(150_000), vec![words("c", 10)], 2),
            part(vec![], name(), vec![words("c", 250_000)], 3),
            part(vec![long_key.clone()], name(), vec![], 4),
            part(vec![], name(), vec![long_key], 5),
            part(vec![], name(), vec![], 6),
        ];
        let request = TracesData { resource_spans };
        let told = |body: &[u8], encoding| {
            let received = traces(body, encoding, &limits).unwrap();
            let lengths = |attributes: &[KeyValue]| {
                let of = |one: &KeyValue| format!("{} {}", one.key, one.encoded_len());
                attributes.iter().map(of).collect::<Vec<_>>().join(", ")
            };
            let lines = received.records.iter().map(|record| {
                let Record { resource, scope, span, .. } = record;
                let (around, within) = (lengths(&resource.attributes), lengths(&scope.attributes));
                format!("{}: [{around}], {} [{within}]", span.span_id[0], scope.name.len())
            });
            let rejected = format!("{:?} {:?}", received.rejected.by_reason, received.rejected.first);
            lines.chain(received.warnings.iter().cloned()).chain([rejected]).collect::<Vec<_>>().join("\n")
        };
        let protobuf = told(&request.encode_to_vec(), Encoding::Protobuf);
        insta::assert_snapshot!(protobuf, @r#"
        1: [a 17, b 65557, runspan.cut 27], 5 []
        2: [a 250011], 65547 [c 17, runspan.cut 27]
        3: [], 5 [c 65557, runspan.cut 27]
        6: [], 5 []
        of span 0 of the request, and of 2 others the longest texts of the resource or scope were cut, with a mark: a resource may have 300000 bytes, a scope 200000
        {"too_large": 2} Some("span 3 of the request: its resource or scope is too large: a resource may have 300000 bytes, a scope 200000")
        "#);
        assert_eq!(told(&serde_json::to_vec(&request).unwrap(), Encoding::Json), protobuf);
    }
}
