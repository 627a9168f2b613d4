//! Spans of runs to an OTLP endpoint, each once: what the endpoint has taken is written down in the store.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use runspan::model::otlp::{ResourceSpans, ScopeSpans, TracesData};
use runspan::model::{RunId, hex, unknown};
use runspan::sinks::forward::retry::Backoff;
use runspan::sinks::forward::{Sender, Sent, Target};
use serde::{Deserialize, Serialize};

/// Spans of one request.
const BATCH: usize = 512;
/// How long one request is tried.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an endpoint has taken for a tenant: a file of the store for each, a line for each request.
struct Ledger {
    file: File,
    sent: HashMap<RunId, HashSet<String>>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    run_id: RunId,
    span_ids: Vec<String>,
}

impl Ledger {
    /// Opens the ledger of an endpoint; of what it says, that of `runs` is kept in memory.
    fn open(store: &Path, target: &Target, runs: &[RunId]) -> io::Result<Self> {
        let dir = store.join("exported");
        fs::create_dir_all(&dir)?;
        let name = hex(&target.digest(&target.address())[..8]);
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(dir.join(format!("{name}.jsonl")))?;
        // Two exports to one endpoint at once would send twice.
        file.lock()?;
        let wanted: HashSet<&RunId> = runs.iter().collect();
        let mut sent: HashMap<RunId, HashSet<String>> = HashMap::new();
        for line in BufReader::new(&file).split(b'\n') {
            // Half a line was written by one who died: its spans are sent again.
            let Ok(line) = serde_json::from_slice::<Line>(&line?) else { continue };
            if wanted.contains(&line.run_id) {
                sent.entry(line.run_id).or_default().extend(line.span_ids);
            }
        }
        Ok(Self { file, sent })
    }

    fn note(&mut self, run_id: RunId, span_ids: Vec<String>) -> io::Result<()> {
        // Begins a line of its own, whatever stands before it.
        let mut text = b"\n".to_vec();
        serde_json::to_writer(&mut text, &Line { run_id, span_ids })?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.file.sync_data()
    }
}

/// Names a span by its id and its name.
fn named(span: &ResourceSpans) -> String {
    let span = span.scope_spans.first().and_then(|of_scope| of_scope.spans.first());
    span.map_or_else(String::new, |span| format!("span {} ({})", hex(&span.span_id), span.name))
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Done {
    pub sent: u64,
    pub sent_before: u64,
    /// What the endpoint says of spans that it left out.
    pub left_out: Vec<String>,
    /// Spans that are too large for the endpoint each by itself, and what it says of them.
    pub too_large: Vec<String>,
    /// What it says besides.
    pub warnings: Vec<String>,
}

/// Sends spans to an endpoint.
pub struct Courier {
    sender: Sender,
    ledger: Ledger,
    again: bool,
    /// It was told why it waits.
    has_told: bool,
    pub done: Done,
}

impl Courier {
    /// `again`: what was sent before is sent once more.
    pub fn new(store: &Path, target: Target, runs: &[RunId], again: bool) -> Result<Self, String> {
        let ledger = Ledger::open(store, &target, runs)
            .map_err(|error| format!("cannot write down in {} what is sent: {error}", store.display()))?;
        let sender = Sender::new(target).map_err(|error| error.to_string())?;
        Ok(Self { sender, ledger, again, has_told: false, done: Done::default() })
    }

    /// Sends the spans of a run. After an error what was taken is written down, and the same export goes on behind it.
    /// `tell` is told once why it waits.
    pub fn send(&mut self, run: RunId, request: TracesData, tell: &mut dyn FnMut(&str)) -> Result<(), String> {
        let known = if self.again { HashSet::new() } else { self.ledger.sent.remove(&run).unwrap_or_default() };
        let mut waiting = Vec::new();
        for of_resource in request.resource_spans {
            for of_scope in of_resource.scope_spans {
                for span in of_scope.spans {
                    if known.contains(&hex(&span.span_id)) {
                        self.done.sent_before += 1;
                        continue;
                    }
                    let scope_spans =
                        vec![ScopeSpans { scope: of_scope.scope.clone(), spans: vec![span], ..Default::default() }];
                    waiting.push(ResourceSpans {
                        resource: of_resource.resource.clone(),
                        scope_spans,
                        ..Default::default()
                    });
                }
            }
        }
        let mut size = BATCH;
        while !waiting.is_empty() {
            let batch: Vec<ResourceSpans> = waiting.iter().take(size).cloned().collect();
            let n = batch.len();
            let left_out = match self.deliver(TracesData { resource_spans: batch }, n as u64, tell) {
                Sent::Accepted => 0,
                Sent::Partial { rejected: 0, message } => {
                    self.done.warnings.push(format!("on run {run}: {message}"));
                    0
                }
                Sent::Partial { rejected, message } => {
                    self.done.left_out.push(format!("{rejected} spans of run {run}: {message}"));
                    rejected
                }
                Sent::TooLarge { .. } | Sent::Later { midway: true, .. } if n > 1 => {
                    size = n / 2;
                    continue;
                }
                // The others do not wait for it. It is not written down: an endpoint that takes more may get it.
                Sent::TooLarge { reason } => {
                    let span = waiting.remove(0);
                    self.done.too_large.push(format!("{} of run {run}: {reason}", named(&span)));
                    continue;
                }
                other => return Err(other.to_string()),
            };
            let ids = waiting.drain(..n).flat_map(|spans| spans.scope_spans).flat_map(|spans| spans.spans);
            let ids = ids.map(|span| hex(&span.span_id)).collect();
            self.ledger.note(run, ids).map_err(|error| format!("cannot write down what was sent: {error}"))?;
            self.done.sent += (n as u64).saturating_sub(left_out);
        }
        Ok(())
    }

    /// Sends a request until the endpoint has it, refuses it, or patience is at its end.
    fn deliver(&mut self, request: TracesData, spans: u64, tell: &mut dyn FnMut(&str)) -> Sent {
        let (bytes, deadline) = (unknown::encode_traces(request), Instant::now() + PATIENCE);
        let (backoff, mut attempt) = (Backoff::default(), 0);
        loop {
            let sent = self.sender.send(bytes.clone(), spans, deadline);
            let Sent::Later { after, midway, reason } = &sent else { return sent };
            // A smaller one may pass.
            if *midway && spans > 1 {
                return sent;
            }
            // One sender needs no spread.
            let wait = backoff.delay(attempt, u64::MAX / 2, *after);
            if Instant::now() + wait >= deadline {
                return sent;
            }
            if !std::mem::replace(&mut self.has_told, true) {
                let target = self.sender.target().shown();
                tell(&format!(
                    "cannot export to {target} yet: {reason}; trying again for up to {} s",
                    PATIENCE.as_secs()
                ));
            }
            std::thread::sleep(wait);
            attempt += 1;
        }
    }
}
