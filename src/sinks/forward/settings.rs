//! Where to send, and how: from a URL, or from the standard `OTEL_EXPORTER_OTLP_*` variables.

mod environment;
mod url;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::header::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use self::environment::Env;
use self::url::{Parts, UrlOptions};

/// How long one request may take unless something else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Headers that belong to the transport; set from outside they would break requests.
const RESERVED_HEADERS: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "grpc-encoding",
    "grpc-timeout",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Words in the names of headers that prove who sends. Their values change while the peer stays the same.
const CREDENTIALS: [&str; 9] =
    ["auth", "key", "token", "secret", "passw", "cookie", "credential", "signature", "x-honeycomb-team"];

/// How requests are put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// Protobuf over HTTP/1.1.
    HttpProtobuf,
    /// OTLP JSON over HTTP/1.1; for traces only.
    HttpJson,
}

/// What is sent: it decides the path and which environment variables count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// Returns the signal's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }

    /// Returns the signal's word in the names of environment variables.
    pub const fn as_env(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
        }
    }

    /// Returns the path of OTLP/HTTP, without the leading slash.
    pub const fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Metrics => "v1/metrics",
        }
    }

    /// Turns the standard path of another signal, at the end of a path, into this one's. A query stays.
    fn own_path(self, path_and_query: &str) -> String {
        let (path, query) = path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()));
        let base = [Self::Traces, Self::Metrics].iter().find_map(|other| path.strip_suffix(other.http_path()));
        base.map_or_else(|| path_and_query.to_owned(), |base| format!("{base}{}{query}", self.http_path()))
    }

    /// Returns the gRPC method.
    pub const fn grpc_path(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

/// How request bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, which every OTLP server must understand.
    Gzip,
}

/// Files for TLS, all PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates to trust in place of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate, for servers that ask for one.
    pub client_certificate: Option<PathBuf>,
    /// The private key of our own certificate.
    pub client_key: Option<PathBuf>,
}

/// One OTLP endpoint with everything needed to send to it.
///
/// `Debug` shows neither header values nor the endpoint's query, which may hold a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// What is sent there.
    pub signal: Signal,
    /// The full URL: with its path for HTTP, scheme and authority for gRPC.
    pub endpoint: String,
    /// How it is put on the wire.
    pub protocol: Protocol,
    /// Sent with every request; names in lower case, each once.
    pub headers: Vec<(String, String)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// How bodies are compressed.
    pub compression: Compression,
    /// Certificates and keys.
    pub tls: TlsFiles,
    /// A server that forwards there sends its own metrics as well.
    pub own_metrics: bool,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Target")
            .field("signal", &self.signal)
            .field("endpoint", &self.shown())
            .field("protocol", &self.protocol)
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("compression", &self.compression)
            .field("tls", &self.tls)
            .field("own_metrics", &self.own_metrics)
            .finish()
    }
}

/// Why a target can't be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum SettingsError {
    /// The endpoint is not a URL that can be sent to.
    Endpoint {
        /// What was given, without credentials.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A header can't be sent.
    Header {
        /// Its name; the value may be a secret and is never shown.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option behind the `#` of a URL can't be used.
    Option {
        /// Its name.
        name: String,
        /// What is wrong with it; values are never shown.
        reason: &'static str,
    },
    /// A certificate or key file can't be used.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS, a runtime or a client could not be set up.
    Setup {
        /// What failed.
        reason: String,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { endpoint, reason } => write!(f, "endpoint {endpoint:?} {reason}"),
            Self::Header { name, reason } => write!(f, "header {name:?} {reason}"),
            Self::Option { name, reason } => write!(f, "option {name:?} {reason}"),
            Self::File { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Setup { reason } => f.write_str(reason),
        }
    }
}

impl std::error::Error for SettingsError {}

/// An environment variable that could not be used; what is said holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The variable.
    pub variable: String,
    /// What is wrong with it and what happens instead.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.message)
    }
}

impl Target {
    /// Reads a target for traces from a URL, as given to `--forward`.
    ///
    /// `grpc://` and `grpcs://` mean gRPC without and with TLS; so does `http(s)://` with port 4317 and no path, the
    /// port that is registered for it. Everything else is OTLP/HTTP with protobuf: an empty path becomes
    /// `/v1/traces`, any other path is used as it stands. `user:password@` becomes an `authorization` header.
    ///
    /// Behind a `#` stand options with `&` between them, their values percent-encoded: `protocol` (`grpc`,
    /// `http/protobuf`, `http/json`), `compression` (`gzip`, `none`), `timeout` (milliseconds), `header.NAME`, the
    /// PEM files `ca`, `cert` and `key`, and `own_metrics` (`on`, `off`). They are never sent: `https://collector.example#compression=gzip&header.tenant=a`.
    pub fn from_url(url: &str) -> Result<Self, SettingsError> {
        Self::from_url_for(Signal::Traces, url)
    }

    /// Reads a target for one signal from a URL, as [`Target::from_url`] does. A path that ends in the standard path
    /// of another signal is turned into this one's, so that one URL serves for all.
    pub fn from_url_for(signal: Signal, url: &str) -> Result<Self, SettingsError> {
        let (url, options) = url.trim().split_once('#').unwrap_or((url.trim(), ""));
        let options = UrlOptions::parse(options)?;
        let (url, grpc) = match url.split_once("://") {
            Some(("grpc", rest)) => (format!("http://{rest}"), true),
            Some(("grpcs", rest)) => (format!("https://{rest}"), true),
            _ => (url.to_owned(), false),
        };
        let parts = Parts::parse(&url)?;
        let bare = matches!(parts.path_and_query.as_str(), "" | "/");
        let by_url = match grpc || (bare && parts.port == Some(4317)) {
            true => Protocol::Grpc,
            false => Protocol::HttpProtobuf,
        };
        let protocol = match options.protocol.unwrap_or(by_url) {
            // JSON is there for traces alone.
            Protocol::HttpJson if signal != Signal::Traces => Protocol::HttpProtobuf,
            protocol => protocol,
        };
        let path = match bare {
            true => format!("/{}", signal.http_path()),
            false => signal.own_path(&parts.path_and_query),
        };
        options.put_in(parts.into_target(signal, protocol, &path))
    }

    /// Reads a target from the standard environment variables.
    ///
    /// There is one if `OTEL_EXPORTER_OTLP_<SIGNAL>_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` is set, or if
    /// `OTEL_<SIGNAL>_EXPORTER` asks for `otlp` (then at the standard's default endpoint); `none` and exporters other
    /// than `otlp` switch it off. A signal's own variable wins over the general one, whole; empty is unset. A value
    /// that can't be used gives a warning that names the variable, and counts as unset.
    pub fn from_env(signal: Signal) -> (Option<Self>, Vec<Warning>) {
        Self::from_lookup(signal, |name| std::env::var_os(name))
    }

    /// Reads a target from variables that `lookup` returns.
    pub fn from_lookup(signal: Signal, lookup: impl Fn(&str) -> Option<OsString>) -> (Option<Self>, Vec<Warning>) {
        let mut env = Env { signal, lookup: &lookup, warnings: Vec::new() };
        let target = env.target();
        (target, env.warnings)
    }

    /// Returns the same endpoint for another signal: where the path is the standard one, it is that of the signal. Metrics
    /// are not sent as JSON.
    pub fn for_signal(&self, signal: Signal) -> Self {
        let mut target = self.clone();
        target.signal = signal;
        if self.protocol != Protocol::Grpc {
            target.endpoint = signal.own_path(&self.endpoint);
        }
        if target.protocol == Protocol::HttpJson && signal != Signal::Traces {
            target.protocol = Protocol::HttpProtobuf;
        }
        target
    }

    /// Returns the endpoint as it may be shown: without its query.
    pub fn shown(&self) -> &str {
        self.endpoint.split('?').next().unwrap_or_default()
    }

    /// Returns the URL of a target as it may be shown, whether it can be used or not: as [`Target::shown`] where it can
    /// but for its options, else without what may be a secret.
    pub fn shown_url(url: &str) -> String {
        let bare = url.trim().split('#').next().unwrap_or_default();
        Self::from_url(bare).map_or_else(|_| url::without_secrets(bare), |target| target.shown().to_owned())
    }

    /// Returns a digest of `address` and of the headers that tell tenants of one peer apart.
    ///
    /// Credentials are none of these: they are changed now and then, and a digest may stand where secrets must not.
    /// Without such headers it is the digest of the address alone.
    pub fn digest(&self, address: &str) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(address);
        for (name, value) in self.sorted_headers().into_iter().filter(|(name, _)| tells_tenant(name)) {
            // A NUL can be in none of the three.
            digest.update(format!("\0{name}\0{value}"));
        }
        digest.finalize().into()
    }

    /// Tells whether it is sent headers that tell tenants of one peer apart.
    pub fn has_tenant(&self) -> bool {
        self.headers.iter().any(|(name, _)| tells_tenant(name.as_str()))
    }

    /// Returns the endpoint without what proves who sends: with the parts of its query that are no credentials.
    pub fn address(&self) -> String {
        let (shown, query) = (self.shown(), self.endpoint.split_once('?').map_or("", |(_, query)| query));
        let is_kept = |part: &&str| !part.is_empty() && !is_credential(part.split('=').next().unwrap_or_default());
        let parts: Vec<&str> = query.split('&').filter(is_kept).collect();
        if parts.is_empty() { shown.to_owned() } else { format!("{shown}?{}", parts.join("&")) }
    }

    /// Tells whether another target is the same peer, spoken to as the same sender.
    pub(crate) fn is_same_peer(&self, other: &Self) -> bool {
        self.is_at(other) && self.sorted_headers() == other.sorted_headers()
    }

    /// Tells whether another target has the same endpoint, and is shown the same certificate.
    fn is_at(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.tls.client_certificate == other.tls.client_certificate
    }

    /// Tells whether another target is the same but for credentials, of which this one has none.
    pub(crate) fn lacks_credentials_of(&self, other: &Self) -> bool {
        let without: Vec<_> = other.sorted_headers().into_iter().filter(|(name, _)| !is_credential(name)).collect();
        self.is_at(other) && self.sorted_headers() == without
    }

    fn sorted_headers(&self) -> Vec<(&str, &str)> {
        let mut headers: Vec<_> = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.sort_unstable();
        headers
    }

    /// Takes credentials out of a text that is to be shown or kept: a peer may repeat what it was sent.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        /// Shorter values are words that texts have anyway, and no secrets.
        const MIN_SECRET_BYTES: usize = 6;
        let query = self.endpoint.split_once('?').map(|(_, query)| query);
        let values = self.headers.iter().map(|(_, value)| value.as_str()).chain(query);
        // Whole first, then in parts: the token behind `Bearer`, the value behind `key=`.
        let parts = values.clone().flat_map(|value| value.split([' ', '=', '&', ',']));
        let mut shown = text.to_owned();
        for secret in values.chain(parts).filter(|secret| secret.len() >= MIN_SECRET_BYTES) {
            shown = shown.replace(secret, "***");
            // The text may have been cut in the middle of one.
            let begun = (MIN_SECRET_BYTES..secret.len()).rev().find_map(|n| shown.strip_suffix(secret.get(..n)?));
            if let Some(before) = begun {
                shown = format!("{before}***");
            }
        }
        shown
    }

    /// Tells whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.endpoint.starts_with("https://")
    }

    /// Tells whether the endpoint is this machine by name or address.
    pub fn is_loopback(&self) -> bool {
        let uri = self.endpoint.parse::<Uri>().unwrap_or_default();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Sets a header in place of one of the same name.
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), SettingsError> {
        let (name, value) = checked_header(name, value)
            .map_err(|reason| SettingsError::Header { name: url::beginning(name), reason })?;
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
        Ok(())
    }
}

/// Tells whether a header, or a part of a query, of this name proves who sends.
fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    CREDENTIALS.iter().any(|word| name.contains(word))
}

/// Tells whether a header of this name may say for whom of several tenants a peer is to keep what it is sent.
fn tells_tenant(name: &str) -> bool {
    // The program that sends changes with each of its versions.
    !is_credential(name) && name != "user-agent"
}

fn checked_header(name: &str, value: &str) -> Result<(String, String), &'static str> {
    let name = name.trim().to_ascii_lowercase();
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err("is not a header name");
    }
    if RESERVED_HEADERS.contains(&name.as_str()) || name.ends_with("-bin") {
        return Err("is set by the transport alone");
    }
    match HeaderValue::from_str(value) {
        // Bytes beyond ASCII are legal in HTTP and not in gRPC; one rule for both.
        Ok(header) if header.to_str().is_ok() => Ok((name, value.to_owned())),
        _ => Err("has a value that is not plain ASCII text"),
    }
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(number) if number > 0 => Ok(Duration::from_millis(number)),
        _ => Err("is not a positive number of milliseconds; ignored".to_owned()),
    }
}

#[cfg(test)]
mod tests;
