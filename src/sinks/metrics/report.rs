//! What somebody else collects, sent to a peer at intervals and at the end. Under cumulative temporality, so that an export
//! that fails is made up for by the next one.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;

use super::export::{Closing, Line, waiting};
use super::{MetricsError, Settings};
use crate::sinks::forward::Target;
use crate::telemetry::warn;

/// Who sends it.
pub(crate) struct Report {
    line: Arc<Line>,
    stop: Sender<()>,
    ended: Receiver<Result<(), MetricsError>>,
    shown: String,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Report({})", self.shown)
    }
}

impl Report {
    /// Starts sending what `collect` returns, on a thread of its own.
    ///
    /// # Errors
    ///
    /// When the target cannot be used, or the system gives no thread.
    pub fn start(
        target: Target,
        settings: &Settings,
        collect: impl Fn() -> ExportMetricsServiceRequest + Send + 'static,
    ) -> Result<Self, MetricsError> {
        let shown = target.shown().to_owned();
        let line = Arc::new(Line::new(target, settings.timeout, settings.series)?);
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let (own, interval) = (Arc::clone(&line), settings.interval);
        std::thread::Builder::new()
            .name("runspan-report".to_owned())
            .spawn(move || {
                let last = work(&own, interval, &stopped, &collect);
                // The one who asked may have gone on at its deadline.
                let _ = end.send(last);
            })
            .map_err(|error| MetricsError::Setup { reason: error.to_string() })?;
        Ok(Self { line, stop, ended, shown })
    }

    /// Asks for the last values to be sent until the deadline, and no others.
    pub fn tell_to_stop(&self, deadline: Instant) {
        self.line.set_closing(Closing::Until(deadline));
        let _ = self.stop.send(());
    }

    /// Waits for that.
    pub fn finish(self, deadline: Instant) {
        let limit = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(50);
        match self.ended.recv_timeout(limit) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn(format_args!("the last metrics of this server: {error}")),
            Err(_) => warn(format_args!("the last metrics of this server were not sent to {} in time", self.shown)),
        }
    }
}

fn work(
    line: &Line,
    interval: Duration,
    stopped: &Receiver<()>,
    collect: &dyn Fn() -> ExportMetricsServiceRequest,
) -> Result<(), MetricsError> {
    loop {
        let is_last = !matches!(stopped.recv_timeout(interval), Err(RecvTimeoutError::Timeout));
        let collected = collect();
        line.warn_of_overflow(&collected);
        let mut waiting: VecDeque<_> = waiting(collected).into();
        // Told and counted by the line.
        let exported = line.export(&mut waiting, true);
        if is_last {
            return exported;
        }
    }
}
