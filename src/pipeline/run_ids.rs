//! Which run the spans of this process are of, written on each for the peers that they are sent to.
//!
//! The recorder writes it on the topmost span alone, which ends last: a peer that gets the steps of a long run before would have to
//! guess whose they are.

use std::str::FromStr;

use crate::conventions::names;
use crate::model::recent::Recent;
use crate::model::record::{Record, RecordKind};
use crate::model::{RunId, SpanId};

/// So many spans are remembered at least, and twice as many at most; those that others begin below last.
const SPANS: usize = 1 << 14;

/// The runs of the spans that began last.
#[derive(Debug, Default)]
pub(crate) struct RunIds {
    spans: Recent<SpanId, RunId>,
}

impl RunIds {
    /// Learns which run a span is of, and writes that on its end unless it says so itself or nobody knows.
    pub fn stamp(&mut self, record: &mut Record) {
        let told = record.span.attr_str(names::RUN_ID).or_else(|| record.resource.attr(names::RUN_ID)?.as_str());
        let told = told.and_then(|run| RunId::from_str(run).ok());
        let [span, parent] = [&record.span.span_id, &record.span.parent_span_id].map(|id| SpanId::from_bytes(id));
        if record.kind == RecordKind::Event {
            return;
        }
        // Of a span that was short there may be no start: its end then comes before those of the spans below it.
        let run = told.or_else(|| self.spans.get(&span?)).or_else(|| self.spans.get(&parent?));
        let Some(run) = run else { return };
        if let Some(span) = span {
            self.spans.put(span, run, SPANS);
        }
        if record.kind == RecordKind::Ended && told.is_none() {
            record.span.set_attr(names::RUN_ID, run.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::otlp::{Resource, Scope, Span};

    fn record(kind: RecordKind, span: u8, parent: Option<u8>) -> Record {
        let id = |id: u8| vec![id; 8];
        let span = Span {
            trace_id: vec![1; 16],
            span_id: id(span),
            parent_span_id: parent.map(id).unwrap_or_default(),
            ..Span::default()
        };
        Record { kind, resource: Arc::new(Resource::default()), scope: Scope::default(), span }
    }

    #[test]
    fn each_span_says_which_run_it_is_of() {
        let mut ids = RunIds::default();
        let run = RunId([7; 16]);
        let inner = RunId([9; 16]);
        let mut said = |kind, span, parent, own: Option<RunId>| {
            let mut record = record(kind, span, parent);
            if let Some(own) = own {
                record.span.set_attr(names::RUN_ID, own.to_string());
            }
            ids.stamp(&mut record);
            record.span.attr_str(names::RUN_ID).map(|run| run.parse::<RunId>().unwrap())
        };
        let (started, ended) = (RecordKind::Started, RecordKind::Ended);
        assert_eq!(said(started, 1, None, Some(run)), Some(run));
        assert_eq!(said(started, 2, Some(1), None), None, "starts are not sent");
        assert_eq!(said(started, 3, Some(2), Some(inner)), Some(inner));
        assert_eq!(said(started, 4, Some(3), None), None);
        assert_eq!(said(ended, 4, Some(3), None), Some(inner));
        // What could not be written down comes again.
        assert_eq!(said(ended, 4, Some(3), None), Some(inner));
        assert_eq!(said(RecordKind::Event, 2, None, None), None);
        assert_eq!(said(ended, 2, Some(1), None), Some(run));
        assert_eq!(said(ended, 3, Some(2), Some(inner)), Some(inner));
        assert_eq!(said(ended, 1, None, Some(run)), Some(run));
        // Its start was not seen, but that of the span above it.
        assert_eq!(said(ended, 5, Some(2), None), Some(run));
        assert_eq!(said(ended, 6, Some(8), None), None);
    }
}
