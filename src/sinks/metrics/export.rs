//! The way out: what was collected, in parts, to the peer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;

use super::MetricsError;
use super::parts::{Part, metric_that_overflows, parts};
use crate::sinks::forward::retry::Backoff;
use crate::sinks::forward::{Blame, Sender, Sent, SettingsError, Target};
use crate::telemetry::warn;

/// Requests stay far below what servers take by default: gRPC libraries 4 MiB.
const PART_BYTES: usize = 1 << 20;

/// How exports have gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exports {
    /// Those that the peer took.
    pub done: u64,
    /// Those that it did not take, or not whole. Under cumulative temporality the next one makes up for it.
    pub failed: u64,
    /// Why the last one failed, or what of it was rejected; `None` after a good one.
    pub failure: Option<String>,
}

/// An encoded request that the peer has not taken, and how many points it holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waiting {
    pub request: Vec<u8>,
    pub points: u64,
}

/// Cuts a request into such that servers take.
pub(super) fn waiting(request: ExportMetricsServiceRequest) -> Vec<Waiting> {
    let parts = parts(request, PART_BYTES).into_iter();
    parts
        .filter(|part| part.points > 0)
        .map(|Part { request, points }| Waiting { request: request.encode_to_vec(), points })
        .collect()
}

/// The line to the peer.
#[derive(Debug)]
pub(super) struct Line {
    sender: Mutex<Sender>,
    shown: String,
    /// How long one export may take.
    timeout: Duration,
    series: usize,
    closing: Mutex<Closing>,
    /// Told when `closing` changes: nobody is to wait for another try then.
    closes: Condvar,
    exports: Mutex<Exports>,
    warned_of_overflow: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Closing {
    Open,
    /// Shutting down: nothing is sent after this moment.
    Until(Instant),
    /// Everything is sent, or given up.
    Closed,
}

impl Line {
    pub fn new(target: Target, timeout: Duration, series: usize) -> Result<Self, SettingsError> {
        Ok(Self {
            timeout: timeout.min(target.timeout),
            shown: target.shown().to_owned(),
            sender: Mutex::new(Sender::new(target)?),
            series,
            closing: Mutex::new(Closing::Open),
            closes: Condvar::new(),
            exports: Mutex::default(),
            warned_of_overflow: AtomicBool::new(false),
        })
    }

    pub fn set_closing(&self, closing: Closing) {
        *locked(&self.closing) = closing;
        self.closes.notify_all();
    }

    pub fn exports(&self) -> Exports {
        locked(&self.exports).clone()
    }

    /// Sends what waits, in order, and takes out what the peer has answered for good: what it took, and with
    /// `gives_up` what it will never take. What comes back is the first answer that is no full acceptance, else the last.
    pub fn deliver(&self, waiting: &mut VecDeque<Waiting>, gives_up: bool) -> Sent {
        let now = Instant::now();
        let deadline = now.checked_add(self.timeout).unwrap_or(now);
        let mut all = Sent::Accepted;
        while let Some(next) = waiting.front() {
            let sent = match self.send(next.request.clone(), next.points, deadline) {
                Sent::TooLarge { reason } => self.send_halves(next, deadline).unwrap_or(Sent::TooLarge { reason }),
                sent => sent,
            };
            if !(sent.is_delivered() || gives_up && is_hopeless(&sent)) {
                return sent;
            }
            waiting.pop_front();
            if all == Sent::Accepted {
                all = sent;
            }
        }
        all
    }

    /// Sends what was collected by this process and notes how that went.
    pub fn export(&self, waiting: &mut VecDeque<Waiting>, gives_up: bool) -> Result<(), MetricsError> {
        let sent = self.deliver(waiting, gives_up);
        let failure = (sent != Sent::Accepted).then(|| sent.to_string());
        self.note_export(failure.as_deref());
        match failure {
            Some(reason) if !sent.is_delivered() => Err(MetricsError::Export { reason }),
            _ => Ok(()),
        }
    }

    fn note_export(&self, failure: Option<&str>) {
        let mut exports = locked(&self.exports);
        exports.failure = failure.map(str::to_owned);
        match failure {
            None => exports.done += 1,
            Some(_) => exports.failed += 1,
        }
        let is_first = exports.failed == 1;
        drop(exports);
        if let Some(failure) = failure.filter(|_| is_first) {
            warn(format_args!(
                "metrics cannot be sent to {}: {failure}; counting goes on, and OTEL_METRICS_EXPORTER=none switches \
                 metrics off",
                self.shown
            ));
        }
    }

    /// Sends a request that was too large for the peer in smaller ones; `None` when it has but one point.
    fn send_halves(&self, whole: &Waiting, deadline: Instant) -> Option<Sent> {
        let request =
            ExportMetricsServiceRequest::decode(whole.request.as_slice()).ok().filter(|_| whole.points > 1)?;
        let mut all = Sent::Accepted;
        for Part { request, points } in parts(request, whole.request.len() / 2) {
            let half = Waiting { request: request.encode_to_vec(), points };
            let sent = match self.send(half.request.clone(), points, deadline) {
                Sent::TooLarge { reason } => self.send_halves(&half, deadline).unwrap_or(Sent::TooLarge { reason }),
                sent => sent,
            };
            if !sent.is_delivered() {
                return Some(sent);
            }
            if all == Sent::Accepted {
                all = sent;
            }
        }
        Some(all)
    }

    /// Sends one request, again after a passing failure while there is time.
    fn send(&self, request: Vec<u8>, points: u64, deadline: Instant) -> Sent {
        let mut attempt = 0;
        loop {
            let end = match *locked(&self.closing) {
                Closing::Open => deadline,
                Closing::Until(end) => deadline.min(end),
                Closing::Closed => deadline.min(Instant::now()),
            };
            let sent = locked(&self.sender).send(request.clone(), points, end);
            let Sent::Later { after, .. } = &sent else { return sent };
            let mut random = [0; 8];
            crate::model::id::fill_random(&mut random);
            let delay = Backoff::default().delay(attempt, u64::from_le_bytes(random), *after);
            attempt += 1;
            if !self.pause(delay, end) {
                return sent;
            }
        }
    }

    /// Waits before another try. Tells whether there is one: not beyond the end, and not where shutting down begins
    /// meanwhile, since the last values are sent by an export of their own that must not wait for this one.
    fn pause(&self, delay: Duration, end: Instant) -> bool {
        let now = Instant::now();
        if now.checked_add(delay).is_none_or(|until| until >= end) {
            return false;
        }
        let closing = locked(&self.closing);
        let is_open = |closing: &Closing| matches!(closing, Closing::Open);
        let was_open = is_open(&closing);
        let (closing, _) = self
            .closes
            .wait_timeout_while(closing, delay, |closing| is_open(closing) == was_open)
            .unwrap_or_else(PoisonError::into_inner);
        is_open(&closing) == was_open
    }

    pub fn warn_of_overflow(&self, request: &ExportMetricsServiceRequest) {
        if self.warned_of_overflow.load(Ordering::Relaxed) {
            return;
        }
        if let Some(name) = metric_that_overflows(request) {
            self.warned_of_overflow.store(true, Ordering::Relaxed);
            warn(format_args!(
                "the metric {name} has more than {} combinations of attributes; what comes beyond a metric's first {0} \
                 is counted together under otel.metric.overflow (RUNSPAN_METRIC_SERIES sets the bound)",
                self.series
            ));
        }
    }
}

/// Tells whether the peer will never take a request, whoever mends what.
fn is_hopeless(sent: &Sent) -> bool {
    match sent {
        Sent::TooLarge { .. } => true,
        Sent::Refused { blame, .. } => *blame != Blame::Settings,
        Sent::Accepted | Sent::Partial { .. } | Sent::Later { .. } => false,
    }
}

/// Locks even after a panic elsewhere; what is guarded here is valid at any moment.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
