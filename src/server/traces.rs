//! An export request, whatever it came over: down the pipeline and into the journal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;

use super::answer::{Problem, Refusal, Taken};
use super::body::{Held, busy, decompress, too_large};
use super::budget::{Share, TooMuch};
use super::intake::{Intake, Prepared, Refused};
use super::run_ids::RunIds;
use super::settings::Bounds;
use crate::conventions::names;
use crate::journal::{FrameKind, MAX_PAYLOAD_BYTES};
use crate::model::otlp::{KeyValue, Resource, Value};
use crate::model::outcome::Outcome;
use crate::model::record::{Record, RecordKind};
use crate::model::unknown;
use crate::model::wire::{Field, Fields};
use crate::model::{RunId, hex};
use crate::pipeline::Pipeline;
use crate::pipeline::worker::{encode, frame_kind};
use crate::sources::otlp::{self, BadBody, Encoding, Received, Signal};

/// Room in a frame for what stands around a span.
const AROUND_BYTES: usize = 64 << 10;
/// What is made of a request is accounted for in steps of so many bytes.
const ACCOUNT_BYTES: usize = 256 << 10;

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

    /// Takes a record of this process's own: durable when this returns. Of one that is too large the longest texts are cut.
    pub async fn tell(&self, mut record: Record) -> Result<(), &'static str> {
        otlp::hold(&mut record.span, self.bounds.limits.span_bytes);
        let mut prepared = Prepared::default();
        self.work(|at_work| at_work.take(record, frame_kind, &mut prepared, &mut Damage::default()));
        self.intake.append(prepared).await.map_err(why)
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

    /// Tells whether a request of metrics that go on to nobody is answered with a partial success of none: a command cannot be asked to send
    /// none in words that all programs know, and most exporters whose request is refused complain into its output.
    pub fn takes_metrics(&self) -> bool {
        self.has_targets() || self.run.is_some()
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
            if !self.takes_metrics() {
                return Err(super::http::not_kept());
            }
            if !self.has_targets() {
                return Ok(Taken { rejected: data_points(&bytes), message: super::http::NOT_KEPT.to_owned() });
            }
            let mut prepared = Prepared::default();
            prepared.add(FrameKind::Metrics, Arc::default(), |payload| *payload = bytes);
            self.append(prepared).await?;
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
    async fn append(&self, records: Prepared) -> Result<(), Refusal> {
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
    ) -> Result<(Prepared, Taken, Held), Refusal> {
        let Held { bytes, share } = decompress(held, compression, self.bounds.request_bytes)?;
        let (read, desk) = self.work(|at_work| {
            let mut desk = Desk {
                at_work,
                body_bytes: bytes.len(),
                share,
                parts_bytes: 0,
                kept_bytes: 0,
                prepared: Prepared::with_room(bytes.len() + bytes.len() / 2),
                own: 0,
                refusal: None,
                damage: Damage::default(),
            };
            let read = otlp::each(&bytes, signal, encoding, &self.bounds.limits, &mut desk);
            // What was received is not needed any more; its share of memory stands for what was made of it.
            drop(bytes);
            (read, desk.done())
        });
        let Done { mut prepared, share, own, refusal, damage } = desk;
        let mut read = read.map_err(|bad| {
            let problem = match bad {
                BadBody::Malformed { .. } => Problem::Malformed,
                BadBody::TooManySpans { .. } | BadBody::TooManyValues { .. } => Problem::TooLarge,
                BadBody::NoRoom => Problem::Busy,
            };
            refusal.unwrap_or_else(|| Refusal::new(problem, bad.to_string()))
        })?;
        damage.tell(&mut read);
        let Received { rejected, not_kept, warnings, .. } = read;
        prepared.is_received = true;
        prepared.aside.add(Outcome::Duplicate, "same_store", own);
        for (reason, n) in &rejected.by_reason {
            prepared.aside.add(Outcome::Rejected, reason, *n);
        }
        prepared.aside.add(Outcome::NotKept, "no_genai", not_kept);
        let taken = Taken {
            rejected: rejected.count().saturating_add(not_kept),
            message: words(&rejected, not_kept, &warnings),
        };
        Ok((prepared, taken, Held { bytes: Vec::new(), share }))
    }

    fn is_of_this_store(&self, record: &Record) -> bool {
        let told = record.span.attr(names::STORE_ID).or_else(|| record.resource.attr(names::STORE_ID));
        told.and_then(Value::as_str) == Some(&self.store_id)
    }

    /// Lends a pipeline for a work.
    fn work<R>(&self, work: impl FnOnce(&mut AtWork<'_>) -> R) -> R {
        let idle = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pipeline = idle.unwrap_or_else(|| (self.make)());
        let mut at_work = AtWork { line: self, pipeline, claimed: None, encoded: HashMap::new() };
        let done = work(&mut at_work);
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).push(at_work.pipeline);
        done
    }
}

/// Work on the records of one request. Those that stand together are of one maker, most often.
struct AtWork<'a> {
    line: &'a Line,
    pipeline: Pipeline,
    /// The last resource as it came, and with the run of all of this server.
    claimed: Option<(Arc<Resource>, Arc<Resource>)>,
    /// The resources of the request, by their addresses, and their bytes.
    encoded: HashMap<usize, (Arc<Resource>, Arc<[u8]>)>,
}

/// What became of records behind the decoder that their sender should hear of.
#[derive(Debug, Default)]
struct Damage {
    /// How many were too large for a frame of the journal, and the first.
    too_large: Option<(u64, String)>,
    /// Of how many texts were cut since they had grown, and the first.
    cut: Option<(u64, String)>,
}

impl Damage {
    fn note(noted: &mut Option<(u64, String)>, record: &Record) {
        let name = || format!("span {}", hex(&record.span.span_id));
        noted.get_or_insert_with(|| (0, name())).0 += 1;
    }

    fn tell(self, received: &mut Received) {
        if let Some((count, first)) = self.too_large {
            let why = format!(
                "with its scope, and what is written on it, it or its resource has more than the {MAX_PAYLOAD_BYTES} bytes of a record"
            );
            (0..count).for_each(|_| received.rejected.add_later(&first, "too_large", &why));
        }
        if let Some((count, first)) = self.cut {
            let others = if count > 1 { format!(", and of {} others", count - 1) } else { String::new() };
            received.warnings.push(format!(
                "of {first}{others} the longest texts were cut, with a mark: with its scope, and what is written on it, it has \
                 more than the {MAX_PAYLOAD_BYTES} bytes of a record"
            ));
        }
    }
}

/// Takes the records of a request as they are decoded, within the memory that requests may take.
struct Desk<'a, 'b> {
    at_work: &'a mut AtWork<'b>,
    share: Share,
    body_bytes: usize,
    /// What the largest part takes while it is in hand.
    parts_bytes: usize,
    /// What stays in hand until all is taken.
    kept_bytes: usize,
    prepared: Prepared,
    /// Spans that a process of this store has written itself: it has stored them, or its journal has.
    own: u64,
    /// Why there is no room.
    refusal: Option<Refusal>,
    damage: Damage,
}

/// What is left of a desk when all is taken.
struct Done {
    prepared: Prepared,
    share: Share,
    own: u64,
    refusal: Option<Refusal>,
    damage: Damage,
}

impl Desk<'_, '_> {
    /// Takes the share that is needed: what was made of a body goes on in its place.
    fn account(&mut self) -> Result<(), BadBody> {
        let bytes = self.body_bytes.max(self.prepared.bytes_in_memory()) + self.parts_bytes + self.kept_bytes;
        if bytes <= self.share.bytes() {
            return Ok(());
        }
        // Ahead, so that not each span asks.
        let ahead = bytes.max(self.share.bytes() + ACCOUNT_BYTES);
        let grown = self.share.grow_to(ahead).or_else(|_| self.share.grow_to(bytes));
        grown.map_err(|too_much| {
            self.refusal = Some(match too_much {
                TooMuch::Now => busy(),
                TooMuch::Ever => {
                    let why = "what is made of the request takes more memory than all requests together may: send smaller batches";
                    Refusal::new(Problem::TooLarge, why.to_owned())
                }
            });
            BadBody::NoRoom
        })
    }

    fn done(self) -> Done {
        let Self { prepared, share, own, refusal, damage, .. } = self;
        Done { prepared, share, own, refusal, damage }
    }
}

impl otlp::Desk for Desk<'_, '_> {
    fn make_room(&mut self, bytes: usize) -> Result<(), BadBody> {
        self.parts_bytes = self.parts_bytes.max(bytes);
        self.account()
    }

    fn keep_room(&mut self, bytes: usize) -> Result<(), BadBody> {
        self.kept_bytes += bytes;
        self.account()
    }

    fn take(&mut self, record: Record) -> Result<(), BadBody> {
        let line = self.at_work.line;
        if !line.is_of_this_store(&record) {
            self.at_work.take(record, frame_kind, &mut self.prepared, &mut self.damage);
        } else {
            self.own += 1;
            if line.run_ids.as_ref().is_some_and(|run_ids| run_ids.may_pass(&record)) {
                self.at_work.run(record, |_| FrameKind::Passing, &mut self.prepared, &mut self.damage);
            }
        }
        self.account()
    }
}

impl AtWork<'_> {
    /// Takes a record that is to be stored here.
    fn take(
        &mut self,
        mut record: Record,
        kind: impl FnOnce(RecordKind) -> FrameKind,
        to: &mut Prepared,
        damage: &mut Damage,
    ) {
        self.claim(&mut record);
        self.run(record, kind, to, damage);
    }

    /// Takes a record down the pipeline, and makes a frame of it.
    fn run(
        &mut self,
        record: Record,
        kind: impl FnOnce(RecordKind) -> FrameKind,
        to: &mut Prepared,
        damage: &mut Damage,
    ) {
        let mut record = self.pipeline.run(record);
        if let Some(run_ids) = &self.line.run_ids {
            run_ids.stamp(&mut record);
        }
        // Each is held, so its address is that of no other.
        let place = Arc::as_ptr(&record.resource).addr();
        let resource = match self.encoded.get(&place) {
            Some((_, bytes)) => Arc::clone(bytes),
            None => {
                let bytes: Arc<[u8]> = unknown::encode_resource(&record.resource).into();
                to.resource_bytes += 2 * bytes.len();
                self.encoded.insert(place, (Arc::clone(&record.resource), Arc::clone(&bytes)));
                bytes
            }
        };
        let kind = kind(record.kind);
        let is_stored = kind != FrameKind::Passing;
        let around = AROUND_BYTES + record.scope.encoded_len();
        if record.span.about_len() + around as u64 > MAX_PAYLOAD_BYTES as u64 / 2 {
            // What is written under our names beside what came may be as long again.
            let is_cut = otlp::hold(&mut record.span, MAX_PAYLOAD_BYTES.saturating_sub(around));
            if is_cut && is_stored {
                Damage::note(&mut damage.cut, &record);
            }
        }
        if !to.add(kind, resource, |payload| encode(&record, payload)) && is_stored {
            Damage::note(&mut damage.too_large, &record);
        }
    }

    /// Writes on who sent a record which run it is of, where nobody says so.
    fn claim(&mut self, record: &mut Record) {
        let Some(run) = self.line.run else { return };
        if record.span.attr(names::RUN_ID).or_else(|| record.resource.attr(names::RUN_ID)).is_some() {
            return;
        }
        let claimed = match &self.claimed {
            Some((given, claimed)) if Arc::ptr_eq(given, &record.resource) => Arc::clone(claimed),
            _ => {
                let mut claimed = Resource::clone(&record.resource);
                let value = Some(Value::from(run.to_string()).into());
                claimed.attributes.push(KeyValue { key: names::RUN_ID.to_owned(), value });
                Arc::new(claimed)
            }
        };
        self.claimed = Some((std::mem::replace(&mut record.resource, Arc::clone(&claimed)), claimed));
    }
}

/// Counts the data points of a request of metrics: of gauges, sums, histograms of both kinds and summaries (`metrics.proto`, `Metric.data`).
fn data_points(request: &[u8]) -> u64 {
    fn below<'a>(bytes: &'a [u8], numbers: &'static [u32]) -> impl Iterator<Item = &'a [u8]> {
        Fields::of(bytes).filter_map(|(number, value)| match value {
            Field::Bytes(inner) if numbers.contains(&number) => Some(inner),
            _ => None,
        })
    }
    let scopes = below(request, &[1]).flat_map(|resource| below(resource, &[2]));
    let metrics = scopes.flat_map(|scope| below(scope, &[2]));
    let data = metrics.flat_map(|metric| below(metric, &[5, 7, 9, 10, 11]));
    data.map(|data| below(data, &[1]).count() as u64).sum()
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
