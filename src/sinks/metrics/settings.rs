//! How metrics are made and when they leave.

use std::ffi::OsString;
use std::time::Duration;

use crate::sinks::forward::Warning;

/// How many sets of attributes each metric keeps apart, as the OpenTelemetry SDKs do.
const SERIES: usize = 2000;

/// The most that can be asked for: the SDK makes room for all of them at the start.
const MAX_SERIES: usize = 100_000;

/// Which names the `gen_ai` metrics have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Semantic conventions 1.41, which today's dashboards ask for.
    #[default]
    V1_41,
    /// The conventions in development.
    Main,
}

/// How points of one series relate to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// Each point counts from the start.
    #[default]
    Cumulative,
    /// Each point counts from the one before.
    Delta,
    /// Whatever needs the least memory.
    LowMemory,
}

/// How metrics are made and when they leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which names the `gen_ai` metrics have.
    pub names: Names,
    /// The time between two exports.
    pub interval: Duration,
    /// How long one export may take; the target's own timeout holds as well.
    pub timeout: Duration,
    /// How points of one series relate to each other.
    pub temporality: Temporality,
    /// Exponential histograms in place of the standard's buckets.
    pub exponential_histograms: bool,
    /// How many sets of attributes each metric keeps apart; what is beyond is counted together.
    pub series: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            names: Names::default(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            temporality: Temporality::default(),
            exponential_histograms: false,
            series: SERIES,
        }
    }
}

impl Settings {
    /// Reads the standard variables: `OTEL_METRIC_EXPORT_INTERVAL` and `_TIMEOUT`, the temporality preference and
    /// histogram aggregation of OTLP, and `OTEL_SEMCONV_STABILITY_OPT_IN`. For the number of series there is none, so
    /// that is `RUNSPAN_METRIC_SERIES`.
    ///
    /// A value that can't be used gives a warning that names the variable, and counts as unset.
    pub fn from_env() -> (Self, Vec<Warning>) {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// Reads the settings from variables that `lookup` returns.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> (Self, Vec<Warning>) {
        let mut settings = Self::default();
        let mut warnings = Vec::new();
        let mut read = |variable: &str, usable: &mut dyn FnMut(&str) -> bool| {
            let Some(value) = lookup(variable).filter(|value| !value.is_empty()) else { return };
            if !usable(value.to_string_lossy().trim()) {
                warnings.push(Warning {
                    variable: variable.to_owned(),
                    message: "has no value known here; ignored".into(),
                });
            }
        };
        read("OTEL_METRIC_EXPORT_INTERVAL", &mut |text| milliseconds(text, &mut settings.interval));
        read("OTEL_METRIC_EXPORT_TIMEOUT", &mut |text| milliseconds(text, &mut settings.timeout));
        read("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", &mut |text| {
            settings.temporality = match text.to_ascii_lowercase().as_str() {
                "cumulative" => Temporality::Cumulative,
                "delta" => Temporality::Delta,
                "lowmemory" => Temporality::LowMemory,
                _ => return false,
            };
            true
        });
        read("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", &mut |text| {
            settings.exponential_histograms = match text.to_ascii_lowercase().as_str() {
                "explicit_bucket_histogram" => false,
                "base2_exponential_bucket_histogram" => true,
                _ => return false,
            };
            true
        });
        read("RUNSPAN_METRIC_SERIES", &mut |text| match text.parse() {
            Ok(number) if (1..=MAX_SERIES).contains(&number) => {
                settings.series = number;
                true
            }
            _ => false,
        });
        // A list of many areas' switches: words for others are none of our business.
        read("OTEL_SEMCONV_STABILITY_OPT_IN", &mut |text| {
            if text.split(',').any(|word| word.trim() == "gen_ai_latest_experimental") {
                settings.names = Names::Main;
            }
            true
        });
        (settings, warnings)
    }
}

fn milliseconds(text: &str, into: &mut Duration) -> bool {
    match text.parse::<u64>() {
        Ok(number) if number > 0 => {
            *into = Duration::from_millis(number);
            true
        }
        _ => false,
    }
}

impl Temporality {
    pub(super) fn to_sdk(self) -> opentelemetry_sdk::metrics::Temporality {
        match self {
            Self::Cumulative => opentelemetry_sdk::metrics::Temporality::Cumulative,
            Self::Delta => opentelemetry_sdk::metrics::Temporality::Delta,
            Self::LowMemory => opentelemetry_sdk::metrics::Temporality::LowMemory,
        }
    }
}
