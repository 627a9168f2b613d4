//! The standard `OTEL_EXPORTER_OTLP_*` variables.

use std::ffi::OsString;
use std::path::PathBuf;

use super::url::{Parts, percent_decoded};
use super::{Compression, Protocol, SettingsError, Signal, Target, TlsFiles, Warning, milliseconds};

/// The environment of one signal, and what was wrong with it.
pub(super) struct Env<'a> {
    pub(super) signal: Signal,
    pub(super) lookup: &'a dyn Fn(&str) -> Option<OsString>,
    pub(super) warnings: Vec<Warning>,
}

impl Env<'_> {
    pub(super) fn target(&mut self) -> Option<Target> {
        let wanted = self.exporter_wanted()?;
        let protocol = self.protocol();
        let insecure = self.first("INSECURE", |text| Ok(text.eq_ignore_ascii_case("true"))).unwrap_or(false);
        let mut target = match self.endpoint(protocol, insecure) {
            Some(target) => target,
            None if wanted => self.default_target(protocol)?,
            None => return None,
        };
        self.headers(&mut target);
        if let Some(timeout) = self.first("TIMEOUT", milliseconds) {
            target.timeout = timeout;
        }
        target.compression = self.compression();
        target.tls = TlsFiles {
            ca: self.path("CERTIFICATE"),
            client_certificate: self.path("CLIENT_CERTIFICATE"),
            client_key: self.path("CLIENT_KEY"),
        };
        Some(target)
    }

    /// `None`: switched off; `Some(true)`: asked for by name; `Some(false)`: wanted if there is an endpoint.
    fn exporter_wanted(&mut self) -> Option<bool> {
        if self.text("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return None;
        }
        let Some(exporters) = self.text(&format!("OTEL_{}_EXPORTER", self.signal.as_env())) else {
            return Some(false);
        };
        exporters.split(',').any(|name| name.trim().eq_ignore_ascii_case("otlp")).then_some(true)
    }

    fn protocol(&mut self) -> Protocol {
        let signal = self.signal;
        let protocol = self.first("PROTOCOL", |text| match text {
            "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::HttpProtobuf),
            "http/json" if signal == Signal::Traces => Ok(Protocol::HttpJson),
            "http/json" => Err("http/json is offered for traces only; using http/protobuf".to_owned()),
            _ => Err("none of grpc, http/protobuf, http/json; using http/protobuf".to_owned()),
        });
        protocol.unwrap_or(Protocol::HttpProtobuf)
    }

    fn compression(&mut self) -> Compression {
        let compression = self.first("COMPRESSION", |text| match text {
            "gzip" => Ok(Compression::Gzip),
            "none" => Ok(Compression::None),
            _ => Err("none of gzip, none; not compressing".to_owned()),
        });
        compression.unwrap_or_default()
    }

    fn endpoint(&mut self, protocol: Protocol, insecure: bool) -> Option<Target> {
        let signal = self.signal;
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.as_env());
        for (variable, is_base) in [(own.as_str(), false), ("OTEL_EXPORTER_OTLP_ENDPOINT", true)] {
            let Some(url) = self.text(variable) else { continue };
            match env_endpoint(signal, &url, protocol, insecure, is_base) {
                Ok(target) => return Some(target),
                Err(error) => self.warn(variable, format!("{error}; ignored")),
            }
        }
        None
    }

    fn default_target(&mut self, protocol: Protocol) -> Option<Target> {
        let url = if protocol == Protocol::Grpc { "http://localhost:4317" } else { "http://localhost:4318" };
        env_endpoint(self.signal, url, protocol, true, true).ok()
    }

    fn headers(&mut self, target: &mut Target) {
        for variable in self.names("HEADERS") {
            let Some(text) = self.text(&variable) else { continue };
            for (place, entry) in text.split(',').enumerate().filter(|(_, entry)| !entry.trim().is_empty()) {
                let place = place + 1;
                // Neither name nor value is told: a token without its `name=` looks like a name.
                let Some((name, value)) = entry.split_once('=') else {
                    self.warn(&variable, format!("entry {place} is not name=value; left out"));
                    continue;
                };
                let set = match percent_decoded(value.trim()) {
                    Some(value) => target.set_header(name, &value).map_err(|error| match error {
                        SettingsError::Header { reason, .. } => reason,
                        _ => "can't be sent",
                    }),
                    None => Err("has a value that can't be percent-decoded"),
                };
                if let Err(reason) = set {
                    self.warn(&variable, format!("entry {place} {reason}; left out"));
                }
            }
            return;
        }
    }

    fn path(&mut self, what: &str) -> Option<PathBuf> {
        // A path need not be UTF-8, so it does not pass through `text`.
        self.names(what)
            .iter()
            .find_map(|name| (self.lookup)(name).filter(|value| !value.is_empty()))
            .map(PathBuf::from)
    }

    /// Returns the signal's own value, else the general one, skipping what can't be read.
    fn first<T>(&mut self, what: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        for variable in self.names(what) {
            let Some(text) = self.text(&variable) else { continue };
            match read(&text) {
                Ok(value) => return Some(value),
                Err(message) => self.warn(&variable, message),
            }
        }
        None
    }

    fn names(&self, what: &str) -> [String; 2] {
        [format!("OTEL_EXPORTER_OTLP_{}_{what}", self.signal.as_env()), format!("OTEL_EXPORTER_OTLP_{what}")]
    }

    fn text(&mut self, variable: &str) -> Option<String> {
        match (self.lookup)(variable)?.into_string() {
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(_) => {
                self.warn(variable, "is not UTF-8; ignored".to_owned());
                None
            }
        }
    }

    fn warn(&mut self, variable: &str, message: String) {
        self.warnings.push(Warning { variable: variable.to_owned(), message });
    }
}

fn env_endpoint(
    signal: Signal,
    url: &str,
    protocol: Protocol,
    insecure: bool,
    is_base: bool,
) -> Result<Target, SettingsError> {
    // Only gRPC endpoints may come without a scheme, and only those heed INSECURE.
    let url = match (protocol, url.contains("://")) {
        (Protocol::Grpc, false) if insecure => format!("http://{url}"),
        (Protocol::Grpc, false) => format!("https://{url}"),
        _ => url.to_owned(),
    };
    let parts = Parts::parse(&url)?;
    let path = match (is_base, parts.path_and_query.split_once('?')) {
        (true, None) => format!("{}/{}", parts.path_and_query.trim_end_matches('/'), signal.http_path()),
        (true, Some((path, query))) => format!("{}/{}?{query}", path.trim_end_matches('/'), signal.http_path()),
        (false, _) if parts.path_and_query.starts_with('/') => parts.path_and_query.clone(),
        (false, _) => format!("/{}", parts.path_and_query),
    };
    Ok(parts.into_target(signal, protocol, &path))
}
