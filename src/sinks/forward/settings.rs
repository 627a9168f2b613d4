//! Where to send, and how: from a URL, or from the standard `OTEL_EXPORTER_OTLP_*` variables.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::header::{HeaderName, HeaderValue};

use crate::model::otlp::base64;

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

    /// Turns the standard path of another signal, at the end of a path, into this one's.
    fn own_path(self, path: &str) -> String {
        let base = [Self::Traces, Self::Metrics].iter().find_map(|other| path.strip_suffix(other.http_path()));
        base.map_or_else(|| path.to_owned(), |base| format!("{base}{}", self.http_path()))
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
            let (path, query) =
                self.endpoint.split_once('?').map_or((&*self.endpoint, None), |(path, query)| (path, Some(query)));
            let path = signal.own_path(path);
            target.endpoint = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
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
            .map_err(|reason| SettingsError::Header { name: name.chars().take(100).collect(), reason })?;
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
        Ok(())
    }
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

/// What stands behind the `#` of a URL.
#[derive(Default)]
struct UrlOptions {
    protocol: Option<Protocol>,
    compression: Option<Compression>,
    timeout: Option<Duration>,
    headers: Vec<(String, String)>,
    tls: TlsFiles,
    own_metrics: bool,
}

impl UrlOptions {
    fn parse(text: &str) -> Result<Self, SettingsError> {
        let mut options = Self::default();
        for option in text.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let wrong = |reason| SettingsError::Option {
                name: name.chars().filter(|c| !c.is_control()).take(60).collect(),
                reason,
            };
            let value = percent_decoded(value).ok_or_else(|| wrong("has a value that can't be percent-decoded"))?;
            if value.is_empty() {
                return Err(wrong("has no value: write name=value"));
            }
            options.set(name, value).map_err(wrong)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), &'static str> {
        match (name, value.as_str()) {
            ("protocol", "grpc") => self.protocol = Some(Protocol::Grpc),
            ("protocol", "http/protobuf") => self.protocol = Some(Protocol::HttpProtobuf),
            ("protocol", "http/json") => self.protocol = Some(Protocol::HttpJson),
            ("protocol", _) => return Err("is none of grpc, http/protobuf, http/json"),
            ("compression", "gzip") => self.compression = Some(Compression::Gzip),
            ("compression", "none") => self.compression = Some(Compression::None),
            ("compression", _) => return Err("is none of gzip, none"),
            ("timeout", text) => {
                self.timeout = Some(milliseconds(text).map_err(|_| "is not a positive number of milliseconds")?);
            }
            ("own_metrics", "on") => self.own_metrics = true,
            ("own_metrics", "off") => self.own_metrics = false,
            ("own_metrics", _) => return Err("is none of on, off"),
            ("ca", _) => self.tls.ca = Some(value.into()),
            ("cert", _) => self.tls.client_certificate = Some(value.into()),
            ("key", _) => self.tls.client_key = Some(value.into()),
            _ => match name.strip_prefix("header.") {
                Some(header) => self.headers.push((header.to_owned(), value)),
                None => {
                    return Err("is none of protocol, compression, timeout, header.NAME, ca, cert, key, own_metrics");
                }
            },
        }
        Ok(())
    }

    fn put_in(self, mut target: Target) -> Result<Target, SettingsError> {
        target.compression = self.compression.unwrap_or(target.compression);
        target.timeout = self.timeout.unwrap_or(target.timeout);
        target.tls = self.tls;
        target.own_metrics = self.own_metrics;
        for (name, value) in &self.headers {
            target.set_header(name, value)?;
        }
        Ok(target)
    }
}

/// A URL taken apart and checked.
struct Parts {
    scheme: &'static str,
    authority: String,
    port: Option<u16>,
    path_and_query: String,
    authorization: Option<String>,
}

impl Parts {
    fn parse(url: &str) -> Result<Self, SettingsError> {
        // Whatever stands before an @ is never repeated.
        let wrong = |reason| SettingsError::Endpoint { endpoint: without_secrets(url), reason };
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
            Some(_) => return Err(wrong("has a scheme other than http, https, grpc and grpcs")),
            None => return Err(wrong("has no scheme; write http://, https://, grpc:// or grpcs:// before the host")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path_and_query) = rest.split_at(end);
        let path_and_query = path_and_query.split('#').next().unwrap_or_default();
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        let uri: Uri = format!("{scheme}://{authority}{path_and_query}").parse().map_err(|_| wrong("is not a URL"))?;
        if uri.host().is_none_or(|host| host.is_empty() || host == "[]") {
            return Err(wrong("has no host"));
        }
        // `Uri` takes any digits for a port and then says that there is none.
        let port = uri.port_u16();
        let after_host = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
        if port.is_none_or(|port| port == 0) && after_host.contains(':') {
            return Err(wrong("has a port that is not a number from 1 to 65535"));
        }
        let authorization = match user {
            None => None,
            Some(user) => {
                let user = percent_decoded(user).ok_or_else(|| wrong("has a user name that can't be decoded"))?;
                Some(format!("Basic {}", base64::encode(user.as_bytes())))
            }
        };
        Ok(Self {
            scheme,
            authority: authority.to_owned(),
            port,
            path_and_query: path_and_query.to_owned(),
            authorization,
        })
    }

    fn into_target(self, signal: Signal, protocol: Protocol, path: &str) -> Target {
        let path = if protocol == Protocol::Grpc { "" } else { path };
        Target {
            signal,
            endpoint: format!("{}://{}{path}", self.scheme, self.authority),
            protocol,
            headers: self.authorization.into_iter().map(|value| ("authorization".to_owned(), value)).collect(),
            timeout: DEFAULT_TIMEOUT,
            compression: Compression::None,
            tls: TlsFiles::default(),
            own_metrics: false,
        }
    }
}

fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.split('?').next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let shown: String = rest.chars().filter(|c| !c.is_control()).take(200).collect();
    if scheme.is_empty() { shown } else { format!("{scheme}://{shown}") }
}

/// Undoes percent-encoding; `None` for a broken escape or text that is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The environment of one signal, and what was wrong with it.
struct Env<'a> {
    signal: Signal,
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
    warnings: Vec<Warning>,
}

impl Env<'_> {
    fn target(&mut self) -> Option<Target> {
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

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(number) if number > 0 => Ok(Duration::from_millis(number)),
        _ => Err("is not a positive number of milliseconds; ignored".to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn from(variables: Variables<'_>) -> (Option<Target>, Vec<Warning>) {
        signal_from(Signal::Traces, variables)
    }

    fn signal_from(signal: Signal, variables: Variables<'_>) -> (Option<Target>, Vec<Warning>) {
        Target::from_lookup(signal, |name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn a_url_decides_protocol_and_path() {
        use Protocol::{Grpc, HttpProtobuf};
        for (url, protocol, endpoint) in [
            ("http://h:4318", HttpProtobuf, "http://h:4318/v1/traces"),
            ("http://h:4318/", HttpProtobuf, "http://h:4318/v1/traces"),
            (" HTTPS://h ", HttpProtobuf, "https://h/v1/traces"),
            ("https://h/api/otel", HttpProtobuf, "https://h/api/otel"),
            ("https://h/a?key=1#timeout=9", HttpProtobuf, "https://h/a?key=1"),
            ("http://h:4317", Grpc, "http://h:4317"),
            ("https://h:4317/", Grpc, "https://h:4317"),
            ("http://h:4317/v1/traces", HttpProtobuf, "http://h:4317/v1/traces"),
            ("grpc://h:9999", Grpc, "http://h:9999"),
            ("grpcs://h", Grpc, "https://h"),
            ("http://[::1]:4317", Grpc, "http://[::1]:4317"),
            ("http://[::1]", HttpProtobuf, "http://[::1]/v1/traces"),
        ] {
            let target = Target::from_url(url).unwrap();
            assert_eq!((target.protocol, target.endpoint.as_str()), (protocol, endpoint), "{url}");
        }
        let metrics = Target::from_url_for(Signal::Metrics, "http://h:4318").unwrap();
        assert_eq!(metrics.endpoint, "http://h:4318/v1/metrics");
        let metrics = Target::from_url_for(Signal::Metrics, "http://h/base/v1/traces").unwrap();
        assert_eq!(metrics.endpoint, "http://h/base/v1/metrics");
    }

    #[test]
    fn a_target_is_one_for_another_signal_too() {
        let other = |url: &str| {
            let target = Target::from_url(url).unwrap();
            let metrics = target.for_signal(Signal::Metrics);
            assert_eq!(metrics.for_signal(Signal::Traces).endpoint, target.endpoint);
            (metrics.protocol, metrics.endpoint)
        };
        let http = |endpoint: &str| (Protocol::HttpProtobuf, endpoint.to_owned());
        assert_eq!(other("http://h"), http("http://h/v1/metrics"));
        assert_eq!(other("http://h/base/v1/traces?key=1#protocol=http/json"), http("http://h/base/v1/metrics?key=1"));
        assert_eq!(other("http://h/own"), http("http://h/own"));
        assert_eq!(other("grpc://h:1"), (Protocol::Grpc, "http://h:1".to_owned()));
    }

    #[test]
    fn options_stand_behind_the_url_and_are_not_sent() {
        let url = "https://me:secret@h/v1/traces?a=b#protocol=http/json&compression=gzip&timeout=250&header.X-Tenant=a%26b\
                   &ca=/etc/ca.pem&cert=c.pem&key=k.pem";
        let target = Target::from_url(url).unwrap();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let headers = [header("authorization", "Basic bWU6c2VjcmV0"), header("x-tenant", "a&b")];
        assert_eq!((target.endpoint.as_str(), &target.headers[..]), ("https://h/v1/traces?a=b", &headers[..]));
        insta::assert_compact_debug_snapshot!(target, @r#"Target { signal: Traces, endpoint: "https://h/v1/traces", protocol: HttpJson, headers: ["authorization", "x-tenant"], timeout: 250ms, compression: Gzip, tls: TlsFiles { ca: Some("/etc/ca.pem"), client_certificate: Some("c.pem"), client_key: Some("k.pem") }, own_metrics: false }"#);
        let grpc = Target::from_url("http://h:4318#protocol=grpc").unwrap();
        assert_eq!((grpc.protocol, grpc.endpoint.as_str()), (Protocol::Grpc, "http://h:4318"));
        let metrics = Target::from_url_for(Signal::Metrics, "http://h#protocol=http/json").unwrap();
        assert_eq!((metrics.protocol, metrics.endpoint.as_str()), (Protocol::HttpProtobuf, "http://h/v1/metrics"));
        let wrong = |url: &str| Target::from_url(url).unwrap_err().to_string();
        for (url, why) in [
            (
                "compress=gzip",
                "option \"compress\" is none of protocol, compression, timeout, header.NAME, ca, cert, key, own_metrics",
            ),
            ("compression=zip", "option \"compression\" is none of gzip, none"),
            ("own_metrics=yes", "option \"own_metrics\" is none of on, off"),
            ("timeout=0", "option \"timeout\" is not a positive number of milliseconds"),
            ("header.host=evil", "header \"host\" is set by the transport alone"),
            ("header.token=%zz", "option \"header.token\" has a value that can't be percent-decoded"),
            ("ca", "option \"ca\" has no value: write name=value"),
        ] {
            assert_eq!(wrong(&format!("http://h#{url}")), why);
        }
        let told = wrong("ftp://h#header.token=secret");
        assert_eq!(told, "endpoint \"ftp://h\" has a scheme other than http, https, grpc and grpcs");
    }

    #[test]
    fn what_is_no_url_is_refused_without_telling_its_credentials() {
        for url in [
            "",
            "h",
            "h:4318",
            "ftp://h",
            "http://",
            "http://:80",
            "http://h:99999",
            "http://h:0",
            "http://h:x",
            "http://a b",
            "http://[::1",
            "https://u:s3cret@",
            "s3cret@h:1",
            "http://u:s3cret%zz@h",
        ] {
            let error = Target::from_url(url).expect_err(url).to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn credentials_of_a_url_become_a_header_and_stay_hidden() {
        let target = Target::from_url("https://user:p%40ss@h/x?key=s3cret").unwrap();
        assert_eq!(target.endpoint, "https://h/x?key=s3cret");
        assert_eq!(target.headers, [("authorization".to_owned(), "Basic dXNlcjpwQHNz".to_owned())]);
        let shown = format!("{target:?}");
        assert!(shown.contains("authorization") && shown.contains("https://h/x"), "{shown}");
        assert!(!shown.contains("dXNl") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn endpoints_of_the_environment_follow_the_standard() {
        use Protocol::{Grpc, HttpProtobuf};
        let cases: [(Variables<'_>, Protocol, &str); 12] = [
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")], HttpProtobuf, "http://c:4318/v1/traces"),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/base/")], HttpProtobuf, "http://c:4318/base/v1/traces"),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")], HttpProtobuf, "http://c:4317/v1/traces"),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/b?k=1")], HttpProtobuf, "https://c/b/v1/traces?k=1"),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318")], HttpProtobuf, "http://c:4318/"),
            (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/x")], HttpProtobuf, "http://c/x"),
            (
                &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")],
                HttpProtobuf,
                "http://c/v1/traces",
            ),
            (&[("OTEL_TRACES_EXPORTER", "otlp")], HttpProtobuf, "http://localhost:4318/v1/traces"),
            (
                &[("OTEL_TRACES_EXPORTER", "console, otlp"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
                Grpc,
                "http://localhost:4317",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317/p"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
                Grpc,
                "http://c:4317",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")],
                Grpc,
                "https://c:4317",
            ),
            (
                &[
                    ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                    ("OTEL_EXPORTER_OTLP_INSECURE", "TRUE"),
                ],
                Grpc,
                "http://c:4317",
            ),
        ];
        for (variables, protocol, endpoint) in cases {
            let (target, warnings) = from(variables);
            let target = target.expect("a target");
            assert_eq!((target.protocol, target.endpoint.as_str()), (protocol, endpoint), "{variables:?}");
            assert_eq!((target.timeout, target.compression), (DEFAULT_TIMEOUT, Compression::None));
            assert_eq!(warnings, []);
        }
    }

    #[test]
    fn nothing_is_sent_unless_an_endpoint_or_an_exporter_is_named() {
        let cases: [Variables<'_>; 5] = [
            &[],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_TRACES_EXPORTER", "none")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_SDK_DISABLED", "True")],
            &[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://c")],
        ];
        for variables in cases {
            assert_eq!(from(variables), (None, vec![]), "{variables:?}");
        }
    }

    #[test]
    fn the_other_variables_are_read_and_the_signals_own_win() {
        let (target, warnings) = from(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "general=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "API-Key = a%20b%3D , x=1=2,x=3;p,, "),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/key.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/cert.pem"),
        ]);
        assert_eq!(warnings, []);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            target,
            Some(Target {
                signal: Signal::Traces,
                endpoint: "https://c/v1/traces".to_owned(),
                protocol: Protocol::HttpJson,
                headers: vec![header("api-key", "a b="), header("x", "3;p")],
                timeout: Duration::from_millis(2500),
                compression: Compression::Gzip,
                tls: TlsFiles {
                    ca: Some("/ca.pem".into()),
                    client_certificate: Some("/cert.pem".into()),
                    client_key: Some("/key.pem".into()),
                },
                own_metrics: false,
            })
        );
    }

    #[test]
    fn each_broken_value_is_named_and_counts_as_unset() {
        let (target, warnings) = from(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "not a url"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "good=1,s3cret,content-type=x,bad=%zz,new=a%0Ab"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ]);
        let target = target.unwrap();
        assert_eq!(target.endpoint, "http://c/v1/traces");
        assert_eq!(target.headers, [("good".to_owned(), "1".to_owned())]);
        assert_eq!((target.timeout, target.compression), (DEFAULT_TIMEOUT, Compression::None));
        let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "OTEL_EXPORTER_OTLP_PROTOCOL: none of grpc, http/protobuf, http/json; using http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: endpoint \"not a url\" has no scheme; write http://, https://, \
                 grpc:// or grpcs:// before the host; ignored",
                "OTEL_EXPORTER_OTLP_HEADERS: entry 2 is not name=value; left out",
                "OTEL_EXPORTER_OTLP_HEADERS: entry 3 is set by the transport alone; left out",
                "OTEL_EXPORTER_OTLP_HEADERS: entry 4 has a value that can't be percent-decoded; left out",
                "OTEL_EXPORTER_OTLP_HEADERS: entry 5 has a value that is not plain ASCII text; left out",
                "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: is not a positive number of milliseconds; ignored",
                "OTEL_EXPORTER_OTLP_TIMEOUT: is not a positive number of milliseconds; ignored",
                "OTEL_EXPORTER_OTLP_COMPRESSION: none of gzip, none; not compressing",
            ]
        );
        let (broken, warnings) = from(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318")]);
        assert_eq!((broken, warnings.len()), (None, 1));
        let (metrics, warnings) = signal_from(
            Signal::Metrics,
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
        );
        assert_eq!(metrics.map(|target| target.protocol), Some(Protocol::HttpProtobuf));
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn loopback_is_told_by_name_and_address() {
        for (url, expected) in [
            ("http://localhost:1", true),
            ("http://127.9.0.1", true),
            ("http://[::1]:1", true),
            ("http://example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(Target::from_url(url).unwrap().is_loopback(), expected, "{url}");
        }
    }
}
