//! Settings of the recorder in an agent's process: defaults, then the environment, then what the program says.

use std::path::PathBuf;

use tracing::Level;

use crate::journal::Durability;
use crate::model::otlp::{KeyValue, Resource, Value};
use crate::pipeline::Content;
use crate::sinks::keep::Keep;
use crate::sources::ring::DEFAULT_CAPACITY;

/// All settings, before they are put to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The store's directory; found by the usual search where it is not given.
    pub store: Option<PathBuf>,
    /// What an acknowledged record survives.
    pub durability: Durability,
    /// OTLP endpoints that get everything as well.
    pub forward: Vec<String>,
    /// The same from the environment: one that is broken is named and costs only itself.
    pub forward_from_env: Vec<String>,
    /// Which runs are forwarded.
    pub forward_keep: Keep,
    /// How much of prompts and answers is kept.
    pub content: Content,
    /// `service.name` of the process.
    pub service_name: Option<String>,
    /// The least important level of spans that is recorded.
    pub level: Level,
    /// Record nothing at all.
    pub disabled: bool,
    /// Bytes of shared memory between callers and worker.
    pub ring_bytes: u64,
    /// Bound of the journal on disk.
    pub journal_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            store: None,
            durability: Durability::Process,
            forward: Vec::new(),
            forward_from_env: Vec::new(),
            forward_keep: Keep::all(),
            content: Content::Redacted,
            service_name: None,
            level: Level::INFO,
            disabled: false,
            ring_bytes: DEFAULT_CAPACITY,
            journal_bytes: crate::journal::Options::default().max_bytes,
        }
    }
}

/// A variable of the environment that does not say what it must: it is named once, and the default stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadVariable {
    /// The variable.
    pub name: String,
    /// What is wrong, and what is used instead.
    pub why: String,
}

impl Settings {
    /// Reads the environment.
    pub fn from_env() -> (Self, Vec<BadVariable>) {
        Self::from_lookup(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> (Self, Vec<BadVariable>) {
        let (mut settings, mut bad) = (Self::default(), Vec::new());
        // As everywhere in OpenTelemetry: empty means unset.
        let get = |name: &str| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut refuse = |name: &str, value: &str, expected: &str, used: &str| {
            bad.push(BadVariable { name: name.to_owned(), why: format!("{value:?} is not {expected}; using {used}") });
        };
        settings.store = get("RUNSPAN_STORE").map(PathBuf::from);
        if let Some(value) = get("RUNSPAN_LOG") {
            match value.parse() {
                Ok(level) => settings.level = level,
                Err(_) => refuse("RUNSPAN_LOG", &value, "one of error, warn, info, debug, trace", "info"),
            }
        }
        if let Some(value) = get("RUNSPAN_CONTENT") {
            match value.parse() {
                Ok(content) => settings.content = content,
                Err(_) => refuse("RUNSPAN_CONTENT", &value, "one of none, redacted, full", "redacted"),
            }
        }
        if let Some(value) = get("RUNSPAN_DURABILITY") {
            match value.parse() {
                Ok(durability) => settings.durability = durability,
                Err(_) => refuse("RUNSPAN_DURABILITY", &value, "one of process, power", "process"),
            }
        }
        if let Some(value) = get("RUNSPAN_FORWARD") {
            settings.forward_from_env =
                value.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect();
        }
        if let Some(value) = get("RUNSPAN_FORWARD_KEEP") {
            match value.parse() {
                Ok(keep) => settings.forward_keep = keep,
                Err(_) => refuse(
                    "RUNSPAN_FORWARD_KEEP",
                    &value,
                    "all, or some of errors, cost>USD, slow>TIME (as in 30s), ratio=0.1",
                    "all",
                ),
            }
        }
        for name in ["RUNSPAN_DISABLED", "OTEL_SDK_DISABLED"] {
            match get(name).as_deref() {
                Some(value) if value.eq_ignore_ascii_case("true") => settings.disabled = true,
                // OpenTelemetry knows no other word for yes:
                // https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#boolean
                Some("1") if name == "RUNSPAN_DISABLED" => settings.disabled = true,
                Some("0") if name == "RUNSPAN_DISABLED" => {}
                Some(value) if value.eq_ignore_ascii_case("false") => {}
                Some(value) => refuse(name, value, "true or false", "false"),
                None => {}
            }
        }
        (settings, bad)
    }
}

/// Describes this process as an OTLP resource, as the OpenTelemetry SDKs do.
pub(crate) fn resource(service_name: Option<&str>, instance: &str, store_id: &str) -> Resource {
    let mut attributes: Vec<(String, String)> = Vec::new();
    if let Ok(list) = std::env::var("OTEL_RESOURCE_ATTRIBUTES") {
        attributes.extend(
            list.split(',')
                .filter_map(|pair| pair.split_once('='))
                .map(|(key, value)| (percent_decoded(key.trim()), percent_decoded(value.trim())))
                // The run of who started this process: ours have ids of their own, and that one as their cause.
                .filter(|(key, _)| key != crate::conventions::names::RUN_ID),
        );
    }
    let mut put = |key: &str, value: String| {
        attributes.retain(|(known, _)| known != key);
        attributes.push((key.to_owned(), value));
    };
    let named = service_name.map(str::to_owned);
    if let Some(name) = named.or_else(|| std::env::var("OTEL_SERVICE_NAME").ok()).filter(|name| !name.is_empty()) {
        put("service.name", name);
    }
    let program = std::env::current_exe()
        .ok()
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "unknown".to_owned());
    put("service.instance.id", instance.to_owned());
    put("telemetry.sdk.name", "runspan".to_owned());
    put("telemetry.sdk.language", "rust".to_owned());
    put("telemetry.sdk.version", env!("CARGO_PKG_VERSION").to_owned());
    put("process.executable.name", program.clone());
    put(crate::conventions::names::STORE_ID, store_id.to_owned());
    if !attributes.iter().any(|(key, _)| key == "service.name") {
        attributes.insert(0, ("service.name".to_owned(), format!("unknown_service:{program}")));
    }
    let mut attributes: Vec<KeyValue> =
        attributes.into_iter().map(|(key, value)| KeyValue { key, value: Some(Value::String(value).into()) }).collect();
    let pid = Value::Int(i64::from(std::process::id()));
    attributes.push(KeyValue { key: "process.pid".to_owned(), value: Some(pid.into()) });
    Resource { attributes, dropped_attributes_count: 0 }
}

/// Adds to a resource that the program gives what only the recorder knows, and its name where it has none.
#[cfg(feature = "otel-sdk")]
pub(crate) fn merged_resource(theirs: Vec<KeyValue>, ours: &Resource) -> Resource {
    use crate::conventions::names;
    let mut merged = Resource { attributes: theirs, dropped_attributes_count: 0 };
    // As in `resource`: the SDK reads the same variable.
    merged.attributes.retain(|attribute| attribute.key != names::RUN_ID);
    let unnamed = |resource: &Resource| {
        resource.attr("service.name").and_then(Value::as_str).is_none_or(|name| name.starts_with("unknown_service"))
    };
    if unnamed(&merged) {
        merged.attributes.retain(|attribute| attribute.key != "service.name");
    }
    for attribute in &ours.attributes {
        let key = attribute.key.as_str();
        let wanted = key == names::STORE_ID || matches!(key, "service.name" | "service.instance.id" | "process.pid");
        if key == names::STORE_ID {
            merged.attributes.retain(|attribute| attribute.key != names::STORE_ID);
        }
        if wanted && merged.attr(key).is_none() {
            merged.attributes.push(attribute.clone());
        }
    }
    merged
}

/// Decodes `%20` and the like; what is not an escape stays as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Settings, Vec<String>) {
        let lookup = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let (settings, bad) = Settings::from_lookup(lookup);
        (settings, bad.into_iter().map(|bad| format!("{}: {}", bad.name, bad.why)).collect())
    }

    #[test]
    fn broken_variables_are_named_once_and_the_default_stands() {
        let (settings, bad) = read(&[
            ("RUNSPAN_LOG", "loud"),
            ("RUNSPAN_CONTENT", "all"),
            ("RUNSPAN_DURABILITY", ""),
            ("RUNSPAN_FORWARD_KEEP", "errors,dear"),
            ("RUNSPAN_DISABLED", "perhaps"),
        ]);
        assert_eq!(
            bad,
            [
                "RUNSPAN_LOG: \"loud\" is not one of error, warn, info, debug, trace; using info",
                "RUNSPAN_CONTENT: \"all\" is not one of none, redacted, full; using redacted",
                "RUNSPAN_FORWARD_KEEP: \"errors,dear\" is not all, or some of errors, cost>USD, slow>TIME (as in 30s), \
                 ratio=0.1; using all",
                "RUNSPAN_DISABLED: \"perhaps\" is not true or false; using false",
            ]
        );
        assert_eq!((settings.level, settings.content, settings.disabled), (Level::INFO, Content::Redacted, false));
    }

    #[test]
    fn the_environment_is_read() {
        let (settings, bad) = read(&[
            ("RUNSPAN_STORE", "/somewhere"),
            ("RUNSPAN_LOG", "debug"),
            ("RUNSPAN_CONTENT", "None"),
            ("RUNSPAN_DURABILITY", "POWER"),
            ("RUNSPAN_FORWARD", "http://a:4318, http://b:4318"),
            ("RUNSPAN_FORWARD_KEEP", "errors,ratio=0.5"),
            ("RUNSPAN_DISABLED", "TRUE"),
        ]);
        assert_eq!(bad, Vec::<String>::new());
        assert_eq!(settings.store, Some(PathBuf::from("/somewhere")));
        assert_eq!(settings.level, Level::DEBUG);
        assert_eq!(settings.content, Content::None);
        assert_eq!(settings.durability, Durability::Power);
        assert_eq!(settings.forward_from_env, ["http://a:4318", "http://b:4318"]);
        assert_eq!(settings.forward_keep, Keep::rules().errors().ratio(0.5));
        assert!(settings.disabled);
    }

    #[cfg(feature = "otel-sdk")]
    #[test]
    fn a_given_resource_keeps_its_word_and_gets_what_it_lacks() {
        let attributes = |pairs: &[(&str, &str)]| -> Vec<KeyValue> {
            pairs
                .iter()
                .map(|(key, value)| KeyValue { key: (*key).into(), value: Some(Value::from(*value).into()) })
                .collect()
        };
        let ours = Resource {
            attributes: attributes(&[
                ("service.name", "ours"),
                ("service.instance.id", "1"),
                ("telemetry.sdk.name", "runspan"),
                ("runspan.store.id", "s"),
            ]),
            dropped_attributes_count: 0,
        };
        let merge = |theirs: &[(&str, &str)]| merged_resource(attributes(theirs), &ours).attributes;
        assert_eq!(
            merge(&[("service.name", "theirs"), ("telemetry.sdk.name", "opentelemetry"), ("service.instance.id", "2")]),
            attributes(&[
                ("service.name", "theirs"),
                ("telemetry.sdk.name", "opentelemetry"),
                ("service.instance.id", "2"),
                ("runspan.store.id", "s"),
            ])
        );
        assert_eq!(
            merge(&[("service.name", "unknown_service"), ("runspan.store.id", "another")]),
            attributes(&[("service.name", "ours"), ("service.instance.id", "1"), ("runspan.store.id", "s")])
        );
    }

    #[test]
    fn escapes_are_decoded() {
        assert_eq!(percent_decoded("a%20b%2Cc%zz%4"), "a b,c%zz%4");
    }
}
