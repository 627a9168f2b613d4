//! An export request, whatever it came over: down the pipeline and into the journal.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;

use super::answer::{Problem, Refusal, Taken};
use super::body::{Held, decompress, too_large};
use super::intake::{Intake, Prepared, Refused};
use super::run_ids::RunIds;
use super::settings::Bounds;
use crate::conventions::names;
use crate::journal::{FrameKind, MAX_PAYLOAD_BYTES};
use crate::model::RunId;
use crate::model::otlp::{KeyValue, Resource, Span, Value};
use crate::model::outcome::Outcome;
use crate::model::record::{Record, RecordKind};
use crate::model::unknown;
use crate::model::wire::{Field, Fields};
use crate::pipeline::Pipeline;
use crate::pipeline::worker::{encode, frame_kind};
use crate::sources::encode::cut_to;
use crate::sources::otlp::{self, BadBody, Encoding, Received, Signal};

/// What requests are worked on with.
pub(super) struct Line {
    pub intake: Intake,
    pub bounds: Bounds,
    /// The store that this server writes.
    store_id: String,
    /// One for each request at work; made as needed.
    pipelines: Mutex<Vec<Pipeline>>,
    make: Box<dyn Fn() -> Pipeline + Send + Sync>,
    /// Where there are targets: who tells them of runs.
    run_ids: Option<RunIds>,
    /// The run that all is of which names none.
    run: Option<RunId>,
}

impl Line {
    pub fn new(
        intake: Intake,
        bounds: Bounds,
        store_id: String,
        make: Box<dyn Fn() -> Pipeline + Send + Sync>,
    ) -> Self {
        Self { intake, bounds, store_id, pipelines: Mutex::default(), make, run_ids: None, run: None }
    }

    /// Tells targets of runs.
    pub fn with_targets(self, run_ids: RunIds) -> Self {
        Self { run_ids: Some(run_ids), ..self }
    }

    /// Takes all that names no run for parts of this one.
    pub fn with_run(self, run: RunId) -> Self {
        Self { run: Some(run), ..self }
    }

    /// Takes a record of this process's own: durable when this returns. One that is too large is cut.
    pub async fn tell(&self, mut record: Record) -> Result<(), &'static str> {
        hold(&mut record.span, self.bounds.limits.span_bytes);
        let mut records = vec![record];
        self.claim(&mut records);
        self.intake.append(self.run(records, frame_kind)).await.map_err(why)
    }

    /// Takes a request: its spans, or records of logs, are durable when this returns.
    pub async fn take(
        self: &Arc<Self>,
        held: Held,
        signal: Signal,
        compression: &str,
        encoding: Encoding,
    ) -> Result<Taken, Refusal> {
        let (line, compression) = (Arc::clone(self), compression.to_owned());
        // Off the threads that serve connections: a large request takes its time.
        let prepared = tokio::task::spawn_blocking(move || line.prepare(held, signal, &compression, encoding)).await;
        let (records, taken, _share) = prepared.map_err(|_| broken_off())??;
        self.append(records).await?;
        Ok(taken)
    }

    /// Tells whether what is not stored here goes on to others.
    pub fn has_targets(&self) -> bool {
        self.run_ids.is_some()
    }

    /// Takes a request of metrics, as it is, for the targets; JSON as the protobuf that it means.
    pub async fn take_metrics(
        self: &Arc<Self>,
        held: Held,
        compression: &str,
        encoding: Encoding,
    ) -> Result<Taken, Refusal> {
        let (line, compression) = (Arc::clone(self), compression.to_owned());
        let whole = tokio::task::spawn_blocking(move || line.whole_metrics(held, &compression, encoding)).await;
        let (Held { bytes, share: _share }, warning) = whole.map_err(|_| broken_off())??;
        if !bytes.is_empty() {
            let prepared = Prepared { kind: FrameKind::Metrics, resource: Arc::default(), payload: bytes };
            self.append(vec![prepared]).await?;
        }
        Ok(Taken { message: warning.unwrap_or_default(), ..Taken::default() })
    }

    fn whole_metrics(
        &self,
        held: Held,
        compression: &str,
        encoding: Encoding,
    ) -> Result<(Held, Option<String>), Refusal> {
        let mut held = decompress(held, compression, self.bounds.request_bytes)?;
        let mut warning = None;
        if encoding == Encoding::Json {
            let written = otlp::metrics_as_protobuf(&held.bytes);
            (held.bytes, warning) = written.map_err(|bad| Refusal::new(Problem::Malformed, bad.to_string()))?;
        }
        if held.bytes.len() > MAX_PAYLOAD_BYTES {
            return Err(too_large(MAX_PAYLOAD_BYTES));
        }
        // Several requests are sent as one, so one that is broken must not come among them.
        let mut fields = Fields::of(&held.bytes);
        let is_good = fields.by_ref().all(|(number, value)| {
            let Field::Bytes(metrics) = value else { return number != 1 };
            let mut inner = Fields::of(metrics);
            number != 1 || (inner.by_ref().count() > 0 && inner.rest().is_empty()) || metrics.is_empty()
        });
        if !is_good || !fields.rest().is_empty() {
            return Err(Refusal::new(
                Problem::Malformed,
                "the body is not an OTLP export request of metrics".to_owned(),
            ));
        }
        Ok((held, warning))
    }

    /// Has records appended, and waits until they are durable.
    async fn append(&self, records: Vec<Prepared>) -> Result<(), Refusal> {
        self.intake.append(records).await.map_err(|refused| {
            let why = why(refused);
            if refused == Refused::Unwritable && self.run.is_some() {
                // A command must not be kept from ending by an exporter that tries again and again.
                return Refusal::new(Problem::NotKept, format!("{why}; nothing of this request is kept"));
            }
            Refusal::new(Problem::Unavailable, format!("{why}; nothing of this request counts as taken: come again"))
        })
    }

    fn prepare(
        &self,
        held: Held,
        signal: Signal,
        compression: &str,
        encoding: Encoding,
    ) -> Result<(Vec<Prepared>, Taken, Held), Refusal> {
        let held = decompress(held, compression, self.bounds.request_bytes)?;
        let received = otlp::received(&held.bytes, signal, encoding, &self.bounds.limits).map_err(|bad| {
            let problem = match bad {
                BadBody::Malformed { .. } => Problem::Malformed,
                BadBody::TooManySpans { .. } => Problem::TooLarge,
            };
            Refusal::new(problem, bad.to_string())
        })?;
        let Received { mut records, rejected, not_kept, warnings, .. } = received;
        let received = records.len() as u64 + rejected.count() + not_kept;
        self.intake.tally.received.fetch_add(received, Ordering::Relaxed);
        // A process that writes to this store and forwards here as well has stored them, or its journal has.
        let own: Vec<Record> = records.extract_if(.., |record| self.is_of_this_store(record)).collect();
        self.intake.tally.count(Outcome::Duplicate, "same_store", own.len() as u64);
        // Children end first and come first; what came together is told in the order in which it began.
        records.sort_by_key(|record| (record.span.start_time_unix_nano, !record.span.parent_span_id.is_empty()));
        for (reason, n) in &rejected.by_reason {
            self.intake.tally.count(Outcome::Rejected, reason, *n);
        }
        self.intake.tally.count(Outcome::NotKept, "no_genai", not_kept);
        let taken = Taken {
            rejected: rejected.count().saturating_add(not_kept),
            message: words(&rejected, not_kept, &warnings),
        };
        // What was received is not needed any more; its share of memory stands for what was made of it.
        let held = Held { bytes: Vec::new(), share: held.share };
        self.claim(&mut records);
        let mut prepared = self.run(records, frame_kind);
        if let Some(run_ids) = &self.run_ids {
            let passing = own.into_iter().filter(|record| run_ids.may_pass(record)).collect();
            prepared.extend(self.run(passing, |_| FrameKind::Passing));
        }
        Ok((prepared, taken, held))
    }

    /// Writes on who sent records which run they are of, where nobody says so.
    fn claim(&self, records: &mut [Record]) {
        let Some(run) = self.run else { return };
        let mut last: Option<(Arc<Resource>, Arc<Resource>)> = None;
        for record in records {
            if record.span.attr(names::RUN_ID).or_else(|| record.resource.attr(names::RUN_ID)).is_some() {
                continue;
            }
            let claimed = match &last {
                Some((given, claimed)) if Arc::ptr_eq(given, &record.resource) => Arc::clone(claimed),
                _ => {
                    let mut claimed = Resource::clone(&record.resource);
                    let value = Some(Value::from(run.to_string()).into());
                    claimed.attributes.push(KeyValue { key: names::RUN_ID.to_owned(), value });
                    Arc::new(claimed)
                }
            };
            last = Some((std::mem::replace(&mut record.resource, Arc::clone(&claimed)), claimed));
        }
    }

    fn is_of_this_store(&self, record: &Record) -> bool {
        let told = record.span.attr(names::STORE_ID).or_else(|| record.resource.attr(names::STORE_ID));
        told.and_then(Value::as_str) == Some(&self.store_id)
    }

    /// Takes records down the pipeline, and makes frames of them.
    fn run(&self, records: Vec<Record>, kind: impl Fn(RecordKind) -> FrameKind) -> Vec<Prepared> {
        let idle = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut pipeline = idle.unwrap_or_else(|| (self.make)());
        let mut last: Option<(Arc<Resource>, Arc<[u8]>)> = None;
        let mut prepared = Vec::with_capacity(records.len());
        for record in records {
            let mut record = pipeline.run(record);
            if let Some(run_ids) = &self.run_ids {
                run_ids.stamp(&mut record);
            }
            let resource = match &last {
                Some((resource, bytes)) if Arc::ptr_eq(resource, &record.resource) => Arc::clone(bytes),
                _ => {
                    let bytes: Arc<[u8]> = unknown::encode_resource(&record.resource).into();
                    last = Some((Arc::clone(&record.resource), Arc::clone(&bytes)));
                    bytes
                }
            };
            prepared.push(Prepared { kind: kind(record.kind), resource, payload: encode(&record) });
        }
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).push(pipeline);
        prepared
    }
}

/// Holds a span to a bound: its longest texts are cut first, with a mark.
fn hold(span: &mut Span, max_bytes: usize) {
    /// What is left of a text that is cut.
    const LEFT: usize = 64 << 10;
    let text = |attribute: &mut KeyValue| match &mut attribute.value.as_mut()?.value {
        Some(Value::String(text)) if text.len() > LEFT => Some(std::mem::take(text)),
        _ => None,
    };
    while span.encoded_len() > max_bytes {
        let length = |attribute: &KeyValue| attribute.value.as_ref().map_or(0, Message::encoded_len);
        let Some(longest) = span.attributes.iter_mut().max_by_key(|attribute| length(attribute)) else { return };
        let key = longest.key.clone();
        let Some(cut) = text(longest) else { return };
        span.set_attr(&key, cut_to(&cut, LEFT).into_owned());
        span.set_attr(names::CUT, "attributes");
    }
}

fn why(refused: Refused) -> &'static str {
    match refused {
        Refused::Full => "the journal is at its bound: the run store cannot keep up, or cannot be written",
        Refused::Unwritable => "the journal cannot be written",
        Refused::Ending => "the server is about to end",
    }
}

fn broken_off() -> Refusal {
    Refusal::new(Problem::Malformed, "the request could not be worked on; the server goes on".to_owned())
}

fn words(rejected: &otlp::Rejected, not_kept: u64, warnings: &[String]) -> String {
    let not_kept = (not_kept > 0).then(|| {
        format!("{not_kept} log records are not kept: they are no events of GenAI, or do not tell of which span or conversation")
    });
    let what = if rejected.of_logs { "records" } else { "spans" };
    let first = rejected.first.as_ref().map(|first| {
        let reasons: Vec<String> = rejected.by_reason.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        format!("{what} rejected: {} ({}), first: {first}", rejected.count(), reasons.join(", "))
    });
    first.iter().chain(&not_kept).chain(warnings).map(String::as_str).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_span_that_is_too_large_the_longest_texts_are_cut() {
        let mut span = Span { name: "chat".to_owned(), ..Span::default() };
        for (key, length) in [("short", 1_000), ("long", 900_000), ("longer", 2_000_000)] {
            span.set_attr(key, "x".repeat(length));
        }
        let mut held = span.clone();
        hold(&mut held, 4 << 20);
        assert_eq!(held, span);
        hold(&mut held, 1 << 20);
        let lengths: Vec<usize> =
            ["short", "long", "longer"].iter().map(|key| held.attr_str(key).unwrap().len()).collect();
        assert_eq!((lengths[0], lengths[1]), (1_000, 900_000));
        assert!(held.attr_str("longer").unwrap().ends_with("x[cut:1934490]"), "{}", lengths[2]);
        assert_eq!(held.attr_str(names::CUT), Some("attributes"));
        // What cannot be cut stays, and is refused later.
        hold(&mut held, 10);
        assert_eq!(held.attr_str("short").unwrap().len(), 1_000);
    }
}
