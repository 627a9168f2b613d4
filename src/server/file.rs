//! The configuration file of a server: what it says stands in the place of the defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::settings::{Bounds, Settings};
use crate::error::Error;
use crate::sinks::forward::Target;

/// The most bytes of a file that are read.
const MAX_BYTES: u64 = 1 << 20;

/// A configuration file, as it is written. Nothing is unknown and passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    store: Option<PathBuf>,
    serve: Option<Serve>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Serve {
    otlp_grpc: Option<Address>,
    otlp_http: Option<Address>,
    http: Option<Address>,
    insecure_bind: Option<bool>,
    allow_hosts: Option<Vec<String>>,
    durability: Option<String>,
    content: Option<String>,
    silence_s: Option<u64>,
    drain_s: Option<u64>,
    journal_mib: Option<u64>,
    forward: Option<Vec<Forward>>,
    forward_keep: Option<String>,
    bounds: FileBounds,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileBounds {
    request_mib: Option<usize>,
    memory_mib: Option<usize>,
    connections: Option<usize>,
    spans: Option<usize>,
    head_s: Option<u64>,
    body_s: Option<u64>,
}

/// A port, or an address with one.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Address {
    Port(u16),
    Text(String),
}

/// A URL, or a table of it and its options.
#[derive(Deserialize)]
#[serde(untagged)]
enum Forward {
    Url(String),
    Table(Table),
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers are secrets, and so may a URL be.
        f.write_str("Forward")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    url: String,
    #[serde(default)]
    options: std::collections::BTreeMap<String, Scalar>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
}

/// A value as YAML has it without quotes: `on` is no text there, nor is a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Switch(bool),
    Number(u64),
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Switch(true) => f.write_str("on"),
            Self::Switch(false) => f.write_str("off"),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Reads an address; a port alone is one of this machine.
///
/// # Errors
///
/// What is expected instead.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| "expected PORT or ADDRESS:PORT, as in 4318 or 127.0.0.1:4318".to_owned())
}

impl Settings {
    /// Reads settings from a configuration file in YAML; what it does not say is the default. `docs/serve.md` has its keys.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`], named by the file: it cannot be read, or has a key that is not known or a value that cannot be
    /// used, and which.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::read(path)
            .map_err(|why| Error::Setting { name: "configuration", why: format!("{}: {why}", path.display()) })
    }

    fn read(path: &Path) -> Result<Self, String> {
        use std::io::Read;

        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?;
        Self::from_yaml(&text)
    }

    fn from_yaml(text: &str) -> Result<Self, String> {
        let File { store, serve } = if text.trim().is_empty() {
            File::default()
        } else {
            serde_saphyr::from_str(text).map_err(|error| first_line(&error.to_string()))?
        };
        let (serve, defaults) = (serve.unwrap_or_default(), Self::default());
        let address = |key: &str, given: Option<Address>, default| match given {
            None => Ok(default),
            Some(Address::Port(port)) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
            Some(Address::Text(text)) => address(&text).map_err(|why| format!("serve.{key}: {why}")),
        };
        let seconds = |given: Option<u64>, default| given.map_or(default, Duration::from_secs);
        let durability = match serve.durability.as_deref() {
            None => defaults.durability,
            Some(word) => word.parse().map_err(|_| format!("serve.durability: {word:?} is none of power, process"))?,
        };
        let content = match &serve.content {
            None => defaults.content,
            Some(text) => {
                text.parse().map_err(|_| format!("serve.content: {text:?} is none of none, redacted, full"))?
            }
        };
        let forward_keep = match &serve.forward_keep {
            None => defaults.forward_keep,
            Some(text) => text.parse().map_err(|bad| format!("serve.forward_keep: {bad}"))?,
        };
        let mut forward = Vec::new();
        for (place, given) in (1..).zip(serve.forward.unwrap_or_default()) {
            forward.push(given.target().map_err(|why| format!("serve.forward, entry {place}: {why}"))?);
        }
        Ok(Self {
            store,
            otlp_grpc: address("otlp_grpc", serve.otlp_grpc, defaults.otlp_grpc)?,
            otlp_http: address("otlp_http", serve.otlp_http, defaults.otlp_http)?,
            http: address("http", serve.http, defaults.http)?,
            insecure_bind: serve.insecure_bind.unwrap_or(defaults.insecure_bind),
            hosts: serve.allow_hosts.unwrap_or(defaults.hosts),
            durability,
            content,
            silence: seconds(serve.silence_s, defaults.silence),
            drain: seconds(serve.drain_s, defaults.drain),
            forward,
            is_offline: false,
            forward_keep,
            journal_bytes: mib("journal_mib", serve.journal_mib)?.unwrap_or(defaults.journal_bytes),
            bounds: serve.bounds.over(defaults.bounds)?,
        })
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or("not readable as YAML").to_owned()
}

/// Returns bytes; none of them would be no bound but a wall.
fn mib(key: &str, given: Option<u64>) -> Result<Option<u64>, String> {
    let bytes = |mib: u64| mib.checked_mul(1 << 20).filter(|bytes| *bytes > 0);
    given.map(|mib| bytes(mib).ok_or_else(|| format!("serve.{key}: {mib} is no number of MiB"))).transpose()
}

impl FileBounds {
    fn over(self, defaults: Bounds) -> Result<Bounds, String> {
        let bytes = |key: &str, given: Option<usize>, default: usize| {
            let given = mib(&format!("bounds.{key}"), given.map(|mib| mib as u64))?;
            Ok::<_, String>(given.map_or(default, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)))
        };
        let some = |key: &str, given: Option<u64>| match given {
            Some(0) => Err(format!("serve.bounds.{key}: with 0 nothing would be taken")),
            given => Ok(given),
        };
        let number = |key: &str, given: Option<usize>, default: usize| {
            let given = some(key, given.map(|number| number as u64))?;
            Ok::<_, String>(given.map_or(default, |number| usize::try_from(number).unwrap_or(usize::MAX)))
        };
        let seconds =
            |key: &str, given, default| Ok::<_, String>(some(key, given)?.map_or(default, Duration::from_secs));
        let mut limits = defaults.limits;
        limits.spans = number("spans", self.spans, limits.spans)?;
        let memory_bytes = bytes("memory_mib", self.memory_mib, defaults.memory_bytes)?;
        let bounds = Bounds {
            request_bytes: bytes("request_mib", self.request_mib, defaults.request_bytes.min(memory_bytes))?,
            memory_bytes,
            connections: number("connections", self.connections, defaults.connections)?,
            head_limit: seconds("head_s", self.head_s, defaults.head_limit)?,
            body_limit: seconds("body_s", self.body_s, defaults.body_limit)?,
            limits,
        };
        if bounds.request_bytes > bounds.memory_bytes {
            let [request, memory] = [bounds.request_bytes, bounds.memory_bytes].map(|bytes| bytes >> 20);
            return Err(format!(
                "serve.bounds.memory_mib: all requests have {memory} MiB, and one may have {request} (request_mib), which would be put \
                 off for ever"
            ));
        }
        Ok(bounds)
    }
}

impl Forward {
    fn target(self) -> Result<Target, String> {
        let Table { url, options, headers } = match self {
            Self::Url(url) => return Target::from_url(&url).map_err(|error| error.to_string()),
            Self::Table(table) => table,
        };
        let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        let option = |(name, value): (&String, &Scalar)| format!("{name}={}", escaped(&value.to_string()));
        let options: Vec<String> = options.iter().map(option).collect();
        let (start, given) = url.split_once('#').unwrap_or((&url, ""));
        let all = [given, &options.join("&")].join("&");
        let mut target = Target::from_url(&format!("{start}#{all}")).map_err(|error| error.to_string())?;
        for (name, value) in &headers {
            target.set_header(name, value).map_err(|error| error.to_string())?;
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_says_all_that_flags_say_and_the_bounds() {
        let settings = Settings::from_yaml(
            r#"
store: runs
serve:
  otlp_grpc: 14317
  otlp_http: "localhost:14318"
  http: "[::1]:14319"
  allow_hosts: [bridge]
  durability: process
  content: full
  silence_s: 60
  drain_s: 5
  journal_mib: 64
  forward:
    - http://a:4318
    - url: https://b
      options: {compression: gzip, ca: /etc/my ca.pem, own_metrics: on, timeout: 250}
      headers: {authorization: Bearer secret}
  forward_keep: errors,cost>0.5
  bounds: {request_mib: 8, memory_mib: 32, connections: 10, spans: 1000, head_s: 1, body_s: 2}
"#,
        )
        .unwrap();
        insta::assert_compact_debug_snapshot!(settings, @r#"Settings { store: Some("runs"), otlp_grpc: 127.0.0.1:14317, otlp_http: 127.0.0.1:14318, http: [::1]:14319, insecure_bind: false, hosts: ["bridge"], durability: Process, content: Full, silence: 60s, drain: 5s, forward: [Target { signal: Traces, endpoint: "http://a:4318/v1/traces", protocol: HttpProtobuf, headers: [], timeout: 10s, compression: None, tls: TlsFiles { ca: None, client_certificate: None, client_key: None }, own_metrics: false }, Target { signal: Traces, endpoint: "https://b/v1/traces", protocol: HttpProtobuf, headers: ["authorization"], timeout: 250ms, compression: Gzip, tls: TlsFiles { ca: Some("/etc/my ca.pem"), client_certificate: None, client_key: None }, own_metrics: true }], is_offline: false, forward_keep: Keep { rules: Some(Rules { errors: true, cost_over: Some(NanoUsd(500000000)), slower_than: None, rest: Ratio { bound: 0 } }) }, journal_bytes: 67108864, bounds: Bounds { request_bytes: 8388608, memory_bytes: 33554432, connections: 10, head_limit: 1s, body_limit: 2s, limits: Limits { spans: 1000, attributes: 4096, events: 4096, links: 1024, values: 262144, span_bytes: 12582912 } } }"#);
    }

    #[test]
    fn bounds_that_would_let_nothing_through_are_refused() {
        for key in ["connections", "spans", "head_s", "body_s", "request_mib", "memory_mib"] {
            let why = Settings::from_yaml(&format!("serve: {{bounds: {{{key}: 0}}}}"));
            assert!(why.unwrap_err().starts_with(&format!("serve.bounds.{key}: ")), "{key}");
        }
        let small = Settings::from_yaml("serve: {bounds: {memory_mib: 32}}").unwrap().bounds;
        assert_eq!((small.memory_bytes, small.request_bytes), (32 << 20, 32 << 20));
        assert_eq!(
            Settings::from_yaml("serve: {bounds: {memory_mib: 32, request_mib: 64}}").unwrap_err(),
            "serve.bounds.memory_mib: all requests have 32 MiB, and one may have 64 (request_mib), which would be put off for ever"
        );
        assert!(Settings::from_yaml("serve: {bounds: {memory_mib: 64, connections: 1}}").is_ok());
        assert!(Settings::from_yaml("store: runs\nserve:\n  # otlp_http: 14318\n").is_ok());
    }

    proptest! {
        #[test]
        fn any_configuration_is_read_or_named_in_a_line(
            parts in proptest::collection::vec(
                prop_oneof![
                    4 => proptest::sample::select(
                        &[
                            "store: ", "serve:\n  ", "\n  ", "\n    ", "otlp_grpc: ", "http: ", "allow_hosts: ", "durability: ",
                            "content: ", "silence_s: ", "journal_mib: ", "forward:\n  - ", "url: ", "options: ", "headers: ",
                            "forward_keep: ", "bounds: ", "request_mib: ", "http://a:1", "https://[::1", "http://u:p@h/#a=b",
                            "grpc://x#timeout=", "18446744073709551615", "-1", "1e9", "65536", ":0", "[::]:1", "on", "~", "{", "}", "[",
                            "]", ", ", ": ", "&a ", "*a", "'", "\"", "|\n", "#", "%", "\0", "\r\n", "errors,", "cost>", "slow>1e300h",
                            "ratio=", "nan",
                        ][..],
                    )
                    .prop_map(str::to_owned),
                    1 => "\\PC{0,6}",
                ],
                0..24,
            )
        ) {
            if let Err(why) = Settings::from_yaml(&parts.concat()) {
                prop_assert!(!why.is_empty() && why.lines().count() == 1, "{:?}", why);
            }
        }
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let default = format!("{:?}", Settings::default());
        for text in ["", "\n# nothing\n", "serve: {}", "serve:\n  bounds: {}\n"] {
            assert_eq!(
                Settings::from_yaml(text).map(|settings| format!("{settings:?}")),
                Ok(default.clone()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let wrong = |text: &str| Settings::from_yaml(text).map(drop).unwrap_err();
        for (text, word) in [
            ("serv: {}", "serv"),
            ("serve:\n  otlp_htpp: 1", "otlp_htpp"),
            ("serve:\n  bounds: {conections: 1}", "conections"),
            ("serve:\n  otlp_http: nowhere", "serve.otlp_http: expected PORT or ADDRESS:PORT"),
            ("serve:\n  durability: none", "serve.durability: \"none\""),
            ("serve:\n  content: all", "serve.content: \"all\""),
            ("serve:\n  journal_mib: 0", "serve.journal_mib: 0 is no number of MiB"),
            ("serve:\n  forward_keep: dear", "serve.forward_keep: \"dear\""),
            ("serve:\n  forward: ['http://a', 'b']", "serve.forward, entry 2: endpoint \"b\" has no scheme"),
            ("serve:\n  forward: [{url: 'http://a', options: {zip: x}}]", "entry 1: option \"zip\" is none of"),
            ("serve: [1", "line"),
        ] {
            let why = wrong(text);
            assert!(why.contains(word), "{text:?}: {why}");
        }
    }
}
