//! Spans of runs as they came, in the shape of an OTLP export request.

use std::collections::HashMap;

use runspan::conventions::names;
use runspan::model::otlp::{Resource, ResourceSpans, Scope, ScopeSpans, Span, TracesData};
use runspan::model::{Event, RunId, schema};

/// A span and who made it.
type Told = (Span, Option<Resource>, Option<Scope>);

/// Spans, gathered by who made them.
#[derive(Debug, Default)]
pub struct Spans {
    request: TracesData,
    /// Where a resource stands, and where a scope stands in it, by their text.
    places: HashMap<String, (usize, HashMap<String, usize>)>,
}

impl Spans {
    /// Takes the ended steps of a run, by start; returns how many have not ended.
    ///
    /// Each says which run it belongs to and which store has it, as those that are forwarded do: so it is the same run wherever
    /// it is taken in.
    pub fn take(&mut self, run: RunId, store_id: &str, events: Vec<Event>) -> usize {
        let mut ended: HashMap<Vec<u8>, Told> = HashMap::new();
        let mut order = Vec::new();
        let mut open = 0;
        for event in events {
            let Some((span, resource, scope)) = event.body.span() else { continue };
            if event.body.is_step_start() {
                open += 1;
                continue;
            }
            let id = span.span_id.clone();
            let told = (span.clone(), resource.cloned(), scope.cloned());
            // What is told again later says more.
            if ended.insert(id.clone(), told).is_none() {
                order.push(id);
            }
        }
        open = open.max(order.len()) - order.len();
        let mut spans: Vec<_> = order.iter().filter_map(|id| ended.remove(id)).collect();
        spans.sort_by_key(|(span, ..)| span.start_time_unix_nano);
        for (mut span, resource, scope) in spans {
            for (key, value) in [(names::RUN_ID, run.to_string().as_str()), (names::STORE_ID, store_id)] {
                let is_told = span.attr(key).is_some() || resource.as_ref().is_some_and(|r| r.attr(key).is_some());
                if !is_told {
                    span.set_attr(key, value);
                }
            }
            self.put(span, resource, scope);
        }
        open
    }

    fn put(&mut self, span: Span, resource: Option<Resource>, scope: Option<Scope>) {
        let text = |value: &dyn Fn() -> serde_json::Result<String>| value().unwrap_or_default();
        let key = text(&|| serde_json::to_string(&resource));
        let in_request = self.request.resource_spans.len();
        let (place, scopes) = self.places.entry(key).or_insert_with(|| (in_request, HashMap::new()));
        if *place == in_request {
            self.request.resource_spans.push(ResourceSpans { resource, ..ResourceSpans::default() });
        }
        let of_resource = &mut self.request.resource_spans[*place].scope_spans;
        let place = *scopes.entry(text(&|| serde_json::to_string(&scope))).or_insert(of_resource.len());
        if place == of_resource.len() {
            of_resource.push(ScopeSpans { scope, ..ScopeSpans::default() });
        }
        of_resource[place].spans.push(span);
    }

    /// Returns them all.
    pub fn into_request(mut self) -> TracesData {
        schema::lift(&mut self.request);
        self.request
    }
}
