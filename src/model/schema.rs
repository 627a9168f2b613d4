//! Schema URLs: which version of the conventions the names of a resource, or of a scope and its spans, are of.
//!
//! OTLP has them beside the resource and the scope, where a record has no place for them. In memory, in JSON and with a
//! resource in the journal they are text under [`SCHEMA_URL`] among the attributes of what they are about; whoever writes
//! OTLP puts them where they stood.

use std::borrow::Cow;

use super::otlp::{KeyValue, TracesData, Value};
use super::wire::{Field, Fields, put};

/// The attribute that holds the schema URL of a resource or a scope.
pub const SCHEMA_URL: &str = "runspan.otlp.schema_url";
/// The field of `ResourceSpans` and `ScopeSpans`, and of their kin in other signals, that has it.
const FIELD: u32 = 3;
/// The field of a `Resource` that has its attributes.
const ATTRIBUTES_OF_RESOURCE: u32 = 1;
/// A URL may have so many bytes, since it is beside each span; what is longer is none.
const MAX_BYTES: usize = 2048;

/// Notes a URL among the attributes of what it is about.
pub fn note(attributes: &mut Vec<KeyValue>, url: &str) {
    if !url.is_empty() && url.len() <= MAX_BYTES {
        attributes.push(KeyValue { key: SCHEMA_URL.to_owned(), value: Some(Value::from(url).into()) });
    }
}

/// Notes the URL that a message around a resource or a scope has, the last where it has several.
pub(crate) fn note_of(attributes: &mut Vec<KeyValue>, around: &[u8]) {
    let text = |(number, field)| match field {
        Field::Bytes(bytes) if number == FIELD => std::str::from_utf8(bytes).ok(),
        _ => None,
    };
    if let Some(url) = Fields::of(around).filter_map(text).last() {
        note(attributes, url);
    }
}

/// Returns the URL among attributes; empty for none.
pub fn of(attributes: &[KeyValue]) -> &str {
    super::otlp::find(attributes, SCHEMA_URL).and_then(Value::as_str).unwrap_or_default()
}

/// Takes the URL out from among attributes; empty for none.
pub fn take(attributes: &mut Vec<KeyValue>) -> String {
    let url = of(attributes).to_owned();
    attributes.retain(|attribute| attribute.key != SCHEMA_URL);
    url
}

/// Puts the URLs of a request's resources and scopes where OTLP has them.
pub fn lift(traces: &mut TracesData) {
    for of_resource in &mut traces.resource_spans {
        let attributes = of_resource.resource.as_mut().map(|resource| &mut resource.attributes);
        put_aside(attributes, &mut of_resource.schema_url);
        for of_scope in &mut of_resource.scope_spans {
            put_aside(of_scope.scope.as_mut().map(|scope| &mut scope.attributes), &mut of_scope.schema_url);
        }
    }
}

fn put_aside(attributes: Option<&mut Vec<KeyValue>>, place: &mut String) {
    if let Some(url) = attributes.map(take).filter(|url| !url.is_empty()) {
        *place = url;
    }
}

/// Appends the URL of a scope to a `ScopeSpans` that is being written.
pub(crate) fn put_of_scope(attributes: &[KeyValue], scope_spans: &mut Vec<u8>) {
    let url = of(attributes);
    if !url.is_empty() {
        put(scope_spans, FIELD, Field::Bytes(url.as_bytes()));
    }
}

/// A resource, and what stands behind it.
pub type Split<'a> = (Cow<'a, [u8]>, Vec<u8>);

/// Splits an encoded resource into the resource as OTLP has it, and what stands behind it in a `ResourceSpans`: the field
/// with its URL.
pub fn split(resource: &[u8]) -> Split<'_> {
    fn url<'a>((number, attribute): &(u32, Field<'a>)) -> Option<&'a [u8]> {
        let Field::Bytes(attribute) = *attribute else { return None };
        let mut fields = Fields::of(attribute);
        let is_url =
            *number == ATTRIBUTES_OF_RESOURCE && fields.next() == Some((1, Field::Bytes(SCHEMA_URL.as_bytes())));
        let Some((2, Field::Bytes(value))) = fields.next().filter(|_| is_url) else { return None };
        match Fields::of(value).next() {
            Some((1, Field::Bytes(text))) => Some(text),
            _ => None,
        }
    }
    let Some(found) = Fields::of(resource).filter_map(|field| url(&field)).last() else {
        return (Cow::Borrowed(resource), Vec::new());
    };
    let (mut bare, mut behind) = (Vec::with_capacity(resource.len()), Vec::new());
    for field in Fields::of(resource).filter(|field| url(field).is_none()) {
        put(&mut bare, field.0, field.1);
    }
    put(&mut behind, FIELD, Field::Bytes(found));
    (Cow::Owned(bare), behind)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::model::otlp::{Resource, ResourceSpans, Scope, ScopeSpans, Span};

    #[test]
    fn an_encoded_resource_and_its_url_are_told_apart() {
        let mut resource = Resource { dropped_attributes_count: 7, ..Resource::default() };
        resource.attributes.push(KeyValue { key: "service.name".to_owned(), value: Some(Value::from("a").into()) });
        let bare = resource.encode_to_vec();
        assert_eq!(split(&bare), (Cow::Borrowed(&bare[..]), Vec::new()));
        note(&mut resource.attributes, "https://opentelemetry.io/schemas/1.30.0");
        let encoded = resource.encode_to_vec();
        let (without, behind) = split(&encoded);
        assert_eq!(Resource::decode(&*without).unwrap().encode_to_vec(), bare);
        let around = ResourceSpans::decode(&*behind).unwrap();
        assert_eq!(around.schema_url, "https://opentelemetry.io/schemas/1.30.0");
        note_of(&mut resource.attributes, &behind);
        assert_eq!(take(&mut resource.attributes), around.schema_url);
        assert_eq!(resource.encode_to_vec(), bare);
        note(&mut resource.attributes, &"x".repeat(MAX_BYTES + 1));
        assert_eq!(resource.encode_to_vec(), bare, "what is that long would be beside each span");
    }

    #[test]
    fn urls_go_where_otlp_has_them() {
        let (mut resource, mut scope) = (Resource::default(), Scope::default());
        note(&mut resource.attributes, "a");
        note(&mut scope.attributes, "b");
        let scope_spans =
            vec![ScopeSpans { scope: Some(scope), spans: vec![Span::default()], ..ScopeSpans::default() }];
        let of_resource = ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() };
        let mut traces = TracesData { resource_spans: vec![of_resource] };
        lift(&mut traces);
        let of_resource = &traces.resource_spans[0];
        assert_eq!((of_resource.schema_url.as_str(), of_resource.scope_spans[0].schema_url.as_str()), ("a", "b"));
        assert_eq!(of_resource.resource, Some(Resource::default()));
        assert_eq!(of_resource.scope_spans[0].scope, Some(Scope::default()));
    }
}
