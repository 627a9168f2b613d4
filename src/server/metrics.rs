//! `/metrics`: what runs, calls and records come to, and how the server itself is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Shared;
use super::exposition::{Family, Kind};
use super::intake::Tally;
use crate::journal::{JournalReader, behind};
use crate::model::UnixNanos;
use crate::pipeline::worker::STORE_READER;
use crate::sinks::forward::Signal;
use crate::sinks::forwarder::Known;
use crate::sinks::metrics::scrape::Scrape;
use crate::store::files::layout::Layout;

type Numbers = Vec<(Vec<(String, String)>, f64)>;

/// Where all that is told comes from.
#[derive(Debug)]
pub(super) struct Sources {
    pub scrape: Scrape,
    pub layout: Layout,
    pub process: String,
    pub targets: Vec<Known>,
}

fn label(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// Collects everything; blocks for a moment.
pub(super) fn collect(shared: &Shared, sources: &Sources) -> Vec<Family> {
    let mut families = match sources.scrape.collect() {
        Ok(request) => Family::all_of(request, |key| sources.scrape.examples(key)),
        // Without them the server can still say how it is.
        Err(_) => Vec::new(),
    };
    families.extend(of_requests(shared));
    families.extend(of_journal(sources, &shared.line.intake.tally));
    families.extend(of_targets(sources));
    families
}

fn of_requests(shared: &Shared) -> [Family; 5] {
    let tally: &Arc<Tally> = &shared.line.intake.tally;
    let counter = |name, help, n: u64| Family::of(name, Kind::Counter, "", help, vec![(Vec::new(), n as f64)]);
    let refused = tally.refused().into_iter().map(|(reason, n)| (vec![label("reason", reason)], n as f64));
    let connections = shared.max_connections.saturating_sub(shared.permits.available_permits());
    let gauge = |name, unit, help, n: usize| Family::of(name, Kind::Gauge, unit, help, vec![(Vec::new(), n as f64)]);
    [
        counter(
            "runspan_bridge_received_spans",
            "Spans in requests that were read, broken ones too",
            tally.received.load(Ordering::Relaxed),
        ),
        counter(
            "runspan_bridge_acknowledged_spans",
            "Spans that are in the journal for good",
            tally.journaled.load(Ordering::Relaxed),
        ),
        Family::of(
            "runspan_bridge_refused_requests",
            Kind::Counter,
            "",
            "Requests that were refused whole",
            refused.collect(),
        ),
        gauge("runspan_bridge_connections", "", "Connections that are open", connections),
        gauge("runspan_bridge_request_memory", "bytes", "What requests take in memory", shared.budget.taken()),
    ]
}

fn of_journal(sources: &Sources, tally: &Tally) -> [Family; 2] {
    let (dir, now) = (sources.layout.journal(), UnixNanos::now());
    let (mut bytes, mut ages) = (Numbers::new(), Numbers::new());
    let store = (STORE_READER.to_owned(), vec![label("reader", "store"), label("signal", Signal::Traces.as_str())]);
    let of_target = |target: &Known| {
        let labels = vec![label("reader", &target.shown()), label("signal", target.signal().as_str())];
        (target.reader().to_owned(), labels)
    };
    for (name, labels) in std::iter::once(store).chain(sources.targets.iter().map(of_target)) {
        let Ok(reader) = JournalReader::open_read_only(&dir, &sources.process, &name) else { continue };
        let acknowledged = reader.acknowledged();
        let since = tally.committed.oldest_after(acknowledged);
        let Ok(waiting) = behind(&dir, &sources.process, acknowledged, tally.committed.last()) else { continue };
        bytes.push((labels.clone(), waiting as f64));
        ages.push((labels, since.map_or(0.0, |since| now.millis_since(since) as f64 / 1e3)));
    }
    let of = |name, unit, help, numbers| Family::of(name, Kind::Gauge, unit, help, numbers);
    [
        of("runspan_bridge_journal_behind", "bytes", "What of the journal a reader has not done yet, about", bytes),
        of("runspan_bridge_journal_age", "seconds", "How long the oldest of it has been in the journal, about", ages),
    ]
}

fn of_targets(sources: &Sources) -> [Family; 2] {
    let (mut spans, mut metrics) = (Numbers::new(), Numbers::new());
    for target in &sources.targets {
        let numbers = if target.signal() == Signal::Traces { &mut spans } else { &mut metrics };
        let (counts, shown) = (target.counts(), target.shown());
        let mut put = |outcome: &str, reason: &str, n: u64| {
            let labels = [("target", shown.as_str()), ("outcome", outcome), ("reason", reason)];
            numbers.push((labels.map(|(key, value)| label(key, value)).into(), n as f64));
        };
        put("sent", "", counts.sent);
        for (outcome, reasons) in
            [("not_kept", &counts.not_kept), ("refused", &counts.refused), ("dropped", &counts.dropped)]
        {
            reasons.iter().for_each(|(reason, n)| put(outcome, reason, *n));
        }
    }
    let of = |name, help, numbers| Family::of(name, Kind::Counter, "", help, numbers);
    [
        of("runspan_bridge_forwarded_spans", "What became of spans for each target", spans),
        of("runspan_bridge_forwarded_metrics", "What became of requests of metrics for each target", metrics),
    ]
}
