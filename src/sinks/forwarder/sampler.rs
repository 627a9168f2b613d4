//! `OTEL_TRACES_SAMPLER`, acting on what is forwarded.
//!
//! A span is forwarded or not by its trace alone, so that no trace is torn: by its id, and where the sampler asks the
//! parent, by what the remote parent of the trace's part in this process had decided.

use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;

use crate::model::TraceId;
use crate::model::wire::{Field, Fields};
use crate::sinks::forward::Warning;
use crate::sinks::keep::Ratio;

const NAME: &str = "OTEL_TRACES_SAMPLER";
const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
/// The span's parent is in another process.
const REMOTE: u32 = 0x200;
/// Whether it is, is known. Our own layer says the other flags too, then.
const SAYS_REMOTE: u32 = 0x100;
/// The trace was sampled.
const SAMPLED: u32 = 1;
/// So many traces with a remote parent are remembered.
const MAX_REMOTE: usize = 1 << 16;

/// Which traces are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sampler {
    /// The share of traces that begin here.
    ratio: Ratio,
    /// Traces with a remote parent go by its decision.
    asks_parent: bool,
    /// Whoever sent the spans had sampled them.
    are_sampled: bool,
}

impl Default for Sampler {
    /// The standard's: everything but traces that a remote parent decided against.
    fn default() -> Self {
        Self { ratio: Ratio::ALL, asks_parent: true, are_sampled: false }
    }
}

impl Sampler {
    /// Reads the standard variables. One that can't be used is named, and the default is used.
    pub fn from_env() -> (Self, Vec<Warning>) {
        Self::from_lookup(|name| std::env::var_os(name))
    }

    /// Reads variables that `lookup` returns.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> (Self, Vec<Warning>) {
        let text = |name| lookup(name).map(|value| value.to_string_lossy().trim().to_owned()).filter(|v| !v.is_empty());
        let mut warnings = Vec::new();
        let mut warn = |variable: &str, message: &str| {
            warnings.push(Warning { variable: variable.to_owned(), message: message.to_owned() });
        };
        let Some(name) = text(NAME).map(|name| name.to_ascii_lowercase()) else { return (Self::default(), warnings) };
        let (asks_parent, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name.as_str()),
        };
        let ratio = match root {
            "always_on" => Ratio::ALL,
            "always_off" => Ratio::NONE,
            "traceidratio" => text(ARGUMENT).map_or(Ratio::ALL, |argument| {
                Ratio::parse(&argument).unwrap_or_else(|| {
                    warn(ARGUMENT, "is not a number from 0 to 1; using 1");
                    Ratio::ALL
                })
            }),
            _ => {
                warn(
                    NAME,
                    "is none of always_on, always_off, traceidratio and these with parentbased_ before them; using \
                     parentbased_always_on",
                );
                return (Self::default(), warnings);
            }
        };
        (Self { ratio, asks_parent, are_sampled: false }, warnings)
    }

    /// The same for spans that came from outside: nobody exports what is not sampled, and OpenTelemetry for Python never writes
    /// that it is (`_span_flags` of its OTLP exporters, 1.45, has the bits of the remote parent alone).
    pub fn of_received(self) -> Self {
        Self { are_sampled: true, ..self }
    }

    /// Tells whether every span passes, whatever it is.
    pub fn is_always_on(self) -> bool {
        self.ratio == Ratio::ALL && (!self.asks_parent || self.are_sampled)
    }

    /// Tells whether it matters that a trace has a remote parent.
    pub fn needs_remote(self) -> bool {
        self.asks_parent && self.ratio != Ratio::ALL
    }

    /// Tells whether a span is forwarded.
    pub fn takes(self, span: &Glance, remote: &RemoteTraces) -> bool {
        if !self.asks_parent {
            return self.ratio.holds(span.trace);
        }
        // What began here is always sampled, so a trace that is not has a parent elsewhere that decided so.
        let is_sampled = self.are_sampled || span.flags & SAMPLED != 0 || span.flags & SAYS_REMOTE == 0;
        is_sampled && (remote.holds(span) || self.ratio.holds(span.trace))
    }
}

/// What the choice needs to know of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glance {
    pub trace: TraceId,
    pub flags: u32,
    pub end: u64,
}

impl Glance {
    /// Reads it off the payload of a journal frame, an OTLP `ScopeSpans`, without decoding the rest; `None` for a span
    /// without a proper trace id.
    pub fn of(payload: &[u8]) -> Option<Self> {
        const SPANS: u32 = 2;
        const TRACE_ID: u32 = 1;
        const END_TIME: u32 = 8;
        const FLAGS: u32 = 16;
        let (mut trace, mut flags, mut end) = (None, 0, 0);
        let span = Fields::of(payload).find_map(|field| match field {
            (SPANS, Field::Bytes(span)) => Some(span),
            _ => None,
        })?;
        for field in Fields::of(span) {
            match field {
                (TRACE_ID, Field::Bytes(bytes)) => trace = TraceId::from_bytes(bytes),
                (END_TIME, Field::Fixed64(bytes)) => end = u64::from_le_bytes(bytes),
                (FLAGS, Field::Fixed32(bytes)) => flags = u32::from_le_bytes(bytes),
                _ => {}
            }
        }
        Some(Self { trace: trace?, flags, end })
    }
}

/// Traces whose part in a process has a parent in another one.
#[derive(Debug, Default)]
pub(crate) struct RemoteTraces {
    known: HashSet<TraceId>,
    order: VecDeque<TraceId>,
}

impl RemoteTraces {
    /// Notes what a span, started or ended, tells.
    pub fn note(&mut self, span: &Glance) {
        if span.flags & REMOTE == 0 || !self.known.insert(span.trace) {
            return;
        }
        self.order.push_back(span.trace);
        if self.order.len() > MAX_REMOTE
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn holds(&self, span: &Glance) -> bool {
        span.flags & REMOTE != 0 || self.known.contains(&span.trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(name: &str, argument: &str) -> (Sampler, Vec<String>) {
        let lookup = |variable: &str| Some(OsString::from(if variable == NAME { name } else { argument }));
        let (sampler, warnings) = Sampler::from_lookup(lookup);
        (sampler, warnings.into_iter().map(|warning| warning.variable).collect())
    }

    #[test]
    fn every_sampler_of_the_standard_is_known_and_another_is_named_once() {
        let ratio = |ratio| Ratio::new(ratio).unwrap();
        for (name, argument, expected, named) in [
            ("", "0.5", (Ratio::ALL, true), ""),
            ("always_on", "", (Ratio::ALL, false), ""),
            ("ALWAYS_OFF", "x", (Ratio::NONE, false), ""),
            ("traceidratio", "0.25", (ratio(0.25), false), ""),
            ("traceidratio", "", (Ratio::ALL, false), ""),
            ("traceidratio", "1.5", (Ratio::ALL, false), ARGUMENT),
            ("parentbased_traceidratio", "half", (Ratio::ALL, true), ARGUMENT),
            ("parentbased_always_on", "", (Ratio::ALL, true), ""),
            ("parentbased_always_off", "", (Ratio::NONE, true), ""),
            ("parentbased_traceidratio", "0.25", (ratio(0.25), true), ""),
            ("parentbased_jaeger_remote", "0", (Ratio::ALL, true), NAME),
            ("xray", "", (Ratio::ALL, true), NAME),
        ] {
            let (read, warnings) = sampler(name, argument);
            assert_eq!((read.ratio, read.asks_parent), expected, "{name} {argument}");
            assert_eq!(warnings.join(" "), named, "{name} {argument}");
        }
    }

    #[test]
    fn a_glance_sees_what_decoding_would() {
        use crate::model::otlp::{ScopeSpans, Span};
        use prost::Message;
        let span = Span {
            trace_id: vec![7; 16],
            span_id: vec![8; 8],
            trace_state: "a=b".to_owned(),
            name: "n".repeat(300),
            kind: 3,
            start_time_unix_nano: 5,
            end_time_unix_nano: 6,
            flags: 0x301,
            ..Span::default()
        };
        let encoded = |span: &Span| {
            let scope = Some(crate::model::otlp::Scope { name: "s".to_owned(), ..Default::default() });
            ScopeSpans { scope, spans: vec![span.clone()], schema_url: "u".to_owned() }.encode_to_vec()
        };
        assert_eq!(Glance::of(&encoded(&span)), Some(Glance { trace: TraceId([7; 16]), flags: 0x301, end: 6 }));
        assert_eq!(Glance::of(&encoded(&Span { trace_id: vec![0; 16], ..span.clone() })), None);
        let bytes = encoded(&span);
        // Whatever is cut off or changed, it is no panic.
        for end in 0..bytes.len() {
            let _ = Glance::of(&bytes[..end]);
            let mut changed = bytes.clone();
            changed[end] = !changed[end];
            let _ = Glance::of(&changed);
        }
    }

    #[test]
    fn a_remote_parent_decides_where_the_sampler_asks_it() {
        let low = |bits: u8| TraceId([[1; 8], [bits; 8]].concat().try_into().unwrap());
        let (inside, outside) = (low(0x10), low(0xf0));
        let mut remote = RemoteTraces::default();
        remote.note(&Glance { trace: TraceId([7; 16]), flags: 0x301, end: 0 });
        let takes = |name: &str, trace, flags| sampler(name, "0.5").0.takes(&Glance { trace, flags, end: 0 }, &remote);
        // Which trace, its flags, and whether always_on, always_off and half of all take it, then parent-based.
        for (trace, flags, alone, with_parent) in [
            (inside, 0x101, [true, false, true], [true, false, true]),
            (outside, 0x101, [true, false, false], [true, false, false]),
            (outside, 0x301, [true, false, false], [true, true, true]),
            (TraceId([0xf7; 16]), 0x100, [true, false, false], [false, false, false]),
            (inside, 0x300, [true, false, true], [false, false, false]),
            // A span that says nothing of flags.
            (inside, 0, [true, false, true], [true, false, true]),
            // A child in a trace whose part here is known to have a remote parent.
            (TraceId([7; 16]), 0x101, [true, false, true], [true, true, true]),
        ] {
            let roots = ["always_on", "always_off", "traceidratio"];
            assert_eq!(roots.map(|root| takes(root, trace, flags)), alone, "{trace} {flags:x}");
            let based = roots.map(|root| takes(&format!("parentbased_{root}"), trace, flags));
            assert_eq!(based, with_parent, "{trace} {flags:x}");
        }
    }
}
