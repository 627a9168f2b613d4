//! Counting with the SDK, and collecting what was counted at moments of our own.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{Instrument, PeriodicReader, SdkMeterProvider, Temporality};

use super::export::locked;
use super::instruments::Instruments;
use super::{MetricsError, Settings, scope, sdk_resource, stream};
use crate::model::RunId;
use crate::model::otlp::Resource;
use crate::sinks::forward::quietly;
use crate::sinks::tally::Tally;

/// The SDK wants to export by itself, too; nobody would see it.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The instruments of one process on a provider of the SDK that is collected when asked.
pub(super) struct Meters {
    provider: SdkMeterProvider,
    pub instruments: Instruments,
    temporality: Temporality,
    collected: Arc<Mutex<ExportMetricsServiceRequest>>,
    /// Runs counted since the last look. Locked while one is counted and while all is collected, so that a run is in a
    /// collection as a whole or not at all.
    counted: Mutex<Vec<RunId>>,
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

impl Meters {
    /// Begins to count. Without a resource, what is collected names nobody.
    pub fn new(resource: Option<&Resource>, settings: &Settings, temporality: Temporality) -> Self {
        quietly(|| Self::new_quietly(resource, settings, temporality))
    }

    fn new_quietly(resource: Option<&Resource>, settings: &Settings, temporality: Temporality) -> Self {
        let collected = Arc::<Mutex<ExportMetricsServiceRequest>>::default();
        let catch = Catch { collected: Arc::clone(&collected), temporality };
        let reader = PeriodicReader::builder(catch).with_interval(NEVER).build();
        let (series, exponential) = (settings.series, settings.exponential_histograms);
        let mut provider = SdkMeterProvider::builder()
            .with_reader(reader)
            .with_view(move |instrument: &Instrument| stream(instrument, series, exponential));
        if let Some(resource) = resource {
            provider = provider.with_resource(sdk_resource(resource));
        }
        let provider = provider.build();
        let instruments = Instruments::new(&provider.meter_with_scope(scope()), settings.names);
        Self { provider, instruments, temporality, collected, counted: Mutex::default() }
    }

    /// Counts a run that is over, with all its calls.
    pub fn count(&self, tally: &Tally) {
        let mut counted = locked(&self.counted);
        quietly(|| self.instruments.run_over(tally));
        counted.push(tally.run.run_id);
    }

    /// Returns the runs counted since they were last returned, which the next collection has.
    pub fn take_counted(&self) -> Vec<RunId> {
        std::mem::take(&mut *locked(&self.counted))
    }

    /// Collects all as it stands, and returns with it the runs counted since they were last returned.
    ///
    /// Blocks whoever counts meanwhile, which is a matter of milliseconds.
    pub fn collect(&self) -> Result<(ExportMetricsServiceRequest, Vec<RunId>), MetricsError> {
        let mut counted = locked(&self.counted);
        if self.temporality != Temporality::Cumulative {
            // Places become free when they are collected.
            self.instruments.let_go();
        }
        quietly(|| self.provider.force_flush()).map_err(|error| MetricsError::Setup { reason: error.to_string() })?;
        // Taken, since the SDK says nothing where there is nothing new, and what is here would be that of before.
        Ok((std::mem::take(&mut *locked(&self.collected)), std::mem::take(&mut *counted)))
    }

    /// Ends the SDK's thread.
    pub fn end(&self) {
        // What can fail is the end of a thread that has nothing left to do.
        let _ = quietly(|| self.provider.shutdown());
    }
}

/// Keeps what the SDK exports.
struct Catch {
    collected: Arc<Mutex<ExportMetricsServiceRequest>>,
    temporality: Temporality,
}

impl fmt::Debug for Catch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Catch")
    }
}

impl PushMetricExporter for Catch {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        *locked(&self.collected) = ExportMetricsServiceRequest::from(metrics);
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        self.temporality
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use opentelemetry_proto::tonic::metrics::v1::metric::Data;

    use super::*;
    use crate::sinks::tally::Call;

    /// How many calls' durations and how many runs a collection has.
    fn counts(collected: &ExportMetricsServiceRequest) -> (u64, u64) {
        let scopes = collected.resource_metrics.iter().flat_map(|of| &of.scope_metrics);
        let (mut calls, mut runs) = (0, 0);
        for metric in scopes.flat_map(|of| &of.metrics) {
            match (metric.name.as_str(), &metric.data) {
                ("gen_ai.client.operation.duration", Some(Data::Histogram(data))) => {
                    calls += data.data_points.iter().map(|point| point.count).sum::<u64>();
                }
                ("runspan.run.duration", Some(Data::Histogram(data))) => {
                    runs += data.data_points.iter().map(|point| point.count).sum::<u64>();
                }
                _ => {}
            }
        }
        (calls, runs)
    }

    #[test]
    fn a_run_is_in_a_collection_as_a_whole_or_not_at_all() {
        const CALLS: u64 = 50;
        let run = serde_json::from_value(serde_json::json!({
            "format": 1, "run_id": "01KE9BZH80BGEY5ABZ7D0DHDQ1", "kind": "agent", "agent_id": "reviewer",
            "trace_id": "019b92bfc5005c1de2a97f3b40d8b6e1", "status": "success",
            "started_at": "2026-01-06T10:00:00.000Z", "updated_at": "2026-01-06T10:00:00.000Z",
        }))
        .unwrap();
        let calls = vec![Call::default(); CALLS as usize];
        let tally = Tally { run, is_more: false, calls, tellers: Vec::new(), costs: Vec::new() };
        let meters = Meters::new(None, &Settings::default(), Temporality::Cumulative);
        let (is_over, mut noted, mut collections) = (AtomicBool::new(false), 0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..500).for_each(|_| meters.count(&tally));
                is_over.store(true, Ordering::Release);
            });
            loop {
                let is_last = is_over.load(Ordering::Acquire);
                let (collected, runs) = meters.collect().unwrap();
                noted += runs.len() as u64;
                assert_eq!(counts(&collected), (CALLS * noted, noted));
                collections += 1;
                if is_last {
                    return;
                }
            }
        });
        assert_eq!(noted, 500);
        assert!(collections > 1);
        meters.end();
    }
}
