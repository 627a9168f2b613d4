//! The configuration file of a server: what it says stands in the place of the defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::settings::{Bounds, Settings};
use crate::error::Error;
use crate::sinks::forward::Target;
use crate::sinks::keep::Keep;

/// The most bytes of a file that are read.
const MAX_BYTES: u64 = 1 << 20;

/// The keys there are, by what they stand in; entries of `serve.forward` that are tables have those of the last.
const KEYS: &[(&str, &[&str])] = &[
    ("", &["store", "serve"]),
    (
        "serve",
        &[
            "otlp_grpc",
            "otlp_http",
            "http",
            "insecure_bind",
            "allow_hosts",
            "durability",
            "content",
            "silence_s",
            "drain_s",
            "journal_mib",
            "forward",
            "forward_keep",
            "bounds",
        ],
    ),
    ("serve.bounds", &["request_mib", "memory_mib", "connections", "spans", "head_s", "body_s"]),
    ("serve.forward", &["url", "options", "headers"]),
];

/// A configuration file, as it is written. What is unknown is looked for before.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    store: Option<Given<PathBuf>>,
    serve: Option<Given<Serve>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Serve {
    otlp_grpc: Option<Given<Address>>,
    otlp_http: Option<Given<Address>>,
    http: Option<Given<Address>>,
    insecure_bind: Option<Given<bool>>,
    allow_hosts: Option<Given<Vec<String>>>,
    durability: Option<Given<String>>,
    content: Option<Given<String>>,
    silence_s: Option<Given<u64>>,
    drain_s: Option<Given<u64>>,
    journal_mib: Option<Given<u64>>,
    forward: Option<Given<Vec<Given<Forward>>>>,
    forward_keep: Option<Given<String>>,
    bounds: Option<Given<FileBounds>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileBounds {
    request_mib: Option<Given<u64>>,
    memory_mib: Option<Given<u64>>,
    connections: Option<Given<u64>>,
    spans: Option<Given<u64>>,
    head_s: Option<Given<u64>>,
    body_s: Option<Given<u64>>,
}

/// A value, or something else in its place.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Given<T> {
    Is(T),
    Other(serde::de::IgnoredAny),
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
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut wrong = Wrong(unknown_keys(text));
        let settings = match serde_saphyr::from_str::<File>(text) {
            Ok(file) => file.settings(&mut wrong),
            Err(error) => {
                wrong.0.push(first_line(&error.to_string()));
                Self::default()
            }
        };
        if wrong.0.is_empty() { Ok(settings) } else { Err(wrong.0.join("; ")) }
    }
}

/// Finds the keys that are not known, and says so, one sentence for all in one place.
fn unknown_keys(text: &str) -> Vec<String> {
    // What cannot be read so is told by who reads the values.
    let Ok(file) = serde_saphyr::from_str::<serde_json::Value>(text) else { return Vec::new() };
    let mut told = Vec::new();
    for (place, known) in KEYS {
        let found = place.split('.').filter(|key| !key.is_empty()).try_fold(&file, |at, key| at.get(key));
        // What reads the values would take a list for them in turn.
        if found.is_some_and(serde_json::Value::is_array) && *place != "serve.forward" {
            told.push(format!("{place}: expected a table of settings"));
            continue;
        }
        let tables = found.into_iter().flat_map(|found| match found {
            serde_json::Value::Array(entries) => entries.iter().collect(),
            other => vec![other],
        });
        let keys = tables.filter_map(serde_json::Value::as_object).flat_map(serde_json::Map::keys);
        let unknown: Vec<String> = keys
            .filter(|key| !known.contains(&key.as_str()))
            .map(|key| [place, key.as_str()].join(if place.is_empty() { "" } else { "." }))
            .map(|key| key.chars().take(80).collect::<String>().escape_debug().to_string())
            .collect();
        match unknown.as_slice() {
            [] => {}
            [one] => told.push(format!("{one} is no key: it is none of {}", known.join(", "))),
            several => told.push(format!("{} are no keys: they are none of {}", several.join(", "), known.join(", "))),
        }
    }
    told
}

/// What is wrong with a file: all of it is told at once.
struct Wrong(Vec<String>);

impl Wrong {
    /// Returns a value, or notes why there is none.
    fn take<T>(&mut self, key: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|why| self.0.push(format!("serve.{key}: {why}"))).ok()
    }

    /// The same of one that is a word of its own.
    fn word<T: std::str::FromStr>(&mut self, key: &str, given: Option<Given<String>>, expected: &str) -> Option<T> {
        let text = self.plain(key, given, &format!("one of {expected}"))?;
        self.take(key, text.parse().map_err(|_| format!("{text:?} is none of {expected}")))
    }

    /// The same of a number, or a switch.
    fn plain<T>(&mut self, key: &str, given: Option<Given<T>>, expected: &str) -> Option<T> {
        match given? {
            Given::Is(value) => Some(value),
            Given::Other(_) => self.take(key, Err(format!("expected {expected}"))),
        }
    }

    fn number(&mut self, key: &str, given: Option<Given<u64>>) -> Option<u64> {
        self.plain(key, given, "a whole number")
    }

    fn seconds(&mut self, key: &str, given: Option<Given<u64>>) -> Option<Duration> {
        self.number(key, given).map(Duration::from_secs)
    }

    /// Returns bytes; none of them would be no bound but a wall.
    fn mib(&mut self, key: &str, given: Option<Given<u64>>) -> Option<u64> {
        let mib = self.number(key, given)?;
        let bytes = mib.checked_mul(1 << 20).filter(|bytes| *bytes > 0);
        self.take(key, bytes.ok_or_else(|| format!("{mib} is no number of MiB")))
    }

    /// Returns a number that is not 0.
    fn some(&mut self, key: &str, given: Option<Given<u64>>) -> Option<u64> {
        let number = self.number(key, given)?;
        self.take(key, if number > 0 { Ok(number) } else { Err("with 0 nothing would be taken".to_owned()) })
    }

    fn address(&mut self, key: &str, given: Option<Given<Address>>) -> Option<SocketAddr> {
        let address = match self.plain(key, given, "PORT or ADDRESS:PORT, as in 4318 or 127.0.0.1:4318")? {
            Address::Port(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
            Address::Text(text) => address(&text),
        };
        self.take(key, address)
    }
}

impl File {
    fn settings(self, wrong: &mut Wrong) -> Settings {
        let defaults = Settings::default();
        let serve = match self.serve {
            Some(Given::Other(_)) => {
                wrong.0.push("serve: expected a table of settings".to_owned());
                Serve::default()
            }
            Some(Given::Is(serve)) => serve,
            None => Serve::default(),
        };
        let mut forward = Vec::new();
        let entries =
            wrong.plain("forward", serve.forward, "a list of URLs, or of tables with `url`, `options`, `headers`");
        for (place, given) in (1..).zip(entries.unwrap_or_default()) {
            let target = match given {
                Given::Is(given) => given.target(),
                Given::Other(_) => {
                    Err("expected a URL, or a table with `url` and perhaps `options` and `headers` of texts".to_owned())
                }
            };
            match target {
                Ok(target) => forward.push(target),
                Err(why) => wrong.0.push(format!("serve.forward, entry {place}: {why}")),
            }
        }
        let bounds = wrong.plain("bounds", serve.bounds, "a table of bounds").unwrap_or_default();
        let forward_keep = wrong.plain("forward_keep", serve.forward_keep, "a text");
        let forward_keep = forward_keep.map(|text| text.parse::<Keep>().map_err(|bad| bad.to_string()));
        let store = match self.store {
            Some(Given::Other(_)) => {
                wrong.0.push("store: expected a path".to_owned());
                None
            }
            Some(Given::Is(store)) => Some(store),
            None => None,
        };
        Settings {
            store,
            otlp_grpc: wrong.address("otlp_grpc", serve.otlp_grpc).unwrap_or(defaults.otlp_grpc),
            otlp_http: wrong.address("otlp_http", serve.otlp_http).unwrap_or(defaults.otlp_http),
            http: wrong.address("http", serve.http).unwrap_or(defaults.http),
            insecure_bind: wrong
                .plain("insecure_bind", serve.insecure_bind, "true or false")
                .unwrap_or(defaults.insecure_bind),
            hosts: wrong.plain("allow_hosts", serve.allow_hosts, "a list of names").unwrap_or(defaults.hosts),
            durability: wrong.word("durability", serve.durability, "power, process").unwrap_or(defaults.durability),
            content: wrong.word("content", serve.content, "none, redacted, full").unwrap_or(defaults.content),
            silence: wrong.seconds("silence_s", serve.silence_s).unwrap_or(defaults.silence),
            drain: wrong.seconds("drain_s", serve.drain_s).unwrap_or(defaults.drain),
            forward,
            is_offline: false,
            forward_keep: forward_keep
                .and_then(|keep| wrong.take("forward_keep", keep))
                .unwrap_or(defaults.forward_keep),
            journal_bytes: wrong.mib("journal_mib", serve.journal_mib).unwrap_or(defaults.journal_bytes),
            bounds: bounds.over(defaults.bounds, wrong),
        }
    }
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or("not readable as YAML").to_owned()
}

impl FileBounds {
    fn over(self, defaults: Bounds, wrong: &mut Wrong) -> Bounds {
        let fitting = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let mut limits = defaults.limits;
        limits.spans = wrong.some("bounds.spans", self.spans).map_or(limits.spans, fitting);
        let memory_bytes = wrong.mib("bounds.memory_mib", self.memory_mib).map_or(defaults.memory_bytes, fitting);
        let request_bytes = wrong.mib("bounds.request_mib", self.request_mib);
        let connections = wrong.some("bounds.connections", self.connections);
        let head_limit = wrong.some("bounds.head_s", self.head_s).map(Duration::from_secs);
        let body_limit = wrong.some("bounds.body_s", self.body_s).map(Duration::from_secs);
        let bounds = Bounds {
            request_bytes: request_bytes.map_or(defaults.request_bytes.min(memory_bytes), fitting),
            memory_bytes,
            connections: connections.map_or(defaults.connections, fitting),
            head_limit: head_limit.unwrap_or(defaults.head_limit),
            body_limit: body_limit.unwrap_or(defaults.body_limit),
            limits,
        };
        if bounds.request_bytes > bounds.memory_bytes {
            let [request, memory] = [bounds.request_bytes, bounds.memory_bytes].map(|bytes| bytes >> 20);
            wrong.0.push(format!(
                "serve.bounds.memory_mib: all requests have {memory} MiB, and one may have {request} (request_mib), which would be put \
                 off for ever"
            ));
        }
        bounds
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
        insta::assert_compact_debug_snapshot!(settings, @r#"Settings { store: Some("runs"), otlp_grpc: 127.0.0.1:14317, otlp_http: 127.0.0.1:14318, http: [::1]:14319, insecure_bind: false, hosts: ["bridge"], durability: Process, content: Full, silence: 60s, drain: 5s, forward: [Target { signal: Traces, endpoint: "http://a:4318/v1/traces", protocol: HttpProtobuf, headers: [], timeout: 10s, compression: None, tls: TlsFiles { ca: None, client_certificate: None, client_key: None }, own_metrics: false }, Target { signal: Traces, endpoint: "https://b/v1/traces", protocol: HttpProtobuf, headers: ["authorization"], timeout: 250ms, compression: Gzip, tls: TlsFiles { ca: Some("/etc/my ca.pem"), client_certificate: None, client_key: None }, own_metrics: true }], is_offline: false, forward_keep: Keep { rules: Some(Rules { errors: true, cost_over: Some(NanoUsd(500000000)), slower_than: None, rest: Ratio { bound: 0 } }) }, journal_bytes: 67108864, bounds: Bounds { request_bytes: 8388608, memory_bytes: 33554432, connections: 10, head_limit: 1s, body_limit: 2s, limits: Limits { spans: 1000, attributes: 4096, events: 4096, links: 1024, values: 262144, all_values: 2097152, span_bytes: 12582912, scope_bytes: 1048576 } } }"#);
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
    fn all_that_is_wrong_is_told_at_once() {
        let wrong = |text: &str| Settings::from_yaml(text).map(drop).unwrap_err();
        insta::assert_snapshot!(
            wrong(
                "stor: x\nserve:\n  otlp_grpcc: 0\n  zzz: 0\n  content: nonee\n  silence_s: soon\n  insecure_bind: 7\n  \
                 forward: ['http://a', {url: 'b', token: 1}]\n  bounds: {spanss: 3, spans: 0, head_s: -1}\n"
            ),
            @r#"stor is no key: it is none of store, serve; serve.otlp_grpcc, serve.zzz are no keys: they are none of otlp_grpc, otlp_http, http, insecure_bind, allow_hosts, durability, content, silence_s, drain_s, journal_mib, forward, forward_keep, bounds; serve.bounds.spanss is no key: it is none of request_mib, memory_mib, connections, spans, head_s, body_s; serve.forward.token is no key: it is none of url, options, headers; serve.forward, entry 2: endpoint "b" has no scheme; write http://, https://, grpc:// or grpcs:// before the host; serve.insecure_bind: expected true or false; serve.content: "nonee" is none of none, redacted, full; serve.silence_s: expected a whole number; serve.bounds.spans: with 0 nothing would be taken; serve.bounds.head_s: expected a whole number"#
        );
        let why = wrong("serve: [1]\nzzz: 0");
        assert_eq!(why, "zzz is no key: it is none of store, serve; serve: expected a table of settings");
        assert_eq!(wrong("serve: {bounds: [1]}"), "serve.bounds: expected a table of settings");
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
            ("serve:\n  otlp_http: 99999", "serve.otlp_http: expected PORT or ADDRESS:PORT"),
            ("serve:\n  otlp_grpc: -1", "serve.otlp_grpc: expected PORT or ADDRESS:PORT"),
            ("serve:\n  http: [1]", "serve.http: expected PORT or ADDRESS:PORT"),
            ("serve:\n  allow_hosts: a", "serve.allow_hosts: expected a list of names"),
            ("serve:\n  content: [full]", "serve.content: expected one of none, redacted, full"),
            ("serve:\n  forward: 'http://a'", "serve.forward: expected a list of URLs"),
            ("serve:\n  forward: ['http://a', {}]", "serve.forward, entry 2: expected a URL, or a table"),
            ("serve:\n  forward: [5]", "serve.forward, entry 1: expected a URL, or a table"),
            ("serve:\n  forward: [{url: 'http://a', headers: {a: [1]}}]", "serve.forward, entry 1: expected a URL"),
            ("serve:\n  forward_keep: 1", "serve.forward_keep: "),
            ("store: [a]", "store: expected a path"),
            ("serve: 5", "serve: expected a table of settings"),
            ("serve: {bounds: 7}", "serve.bounds: expected a table of bounds"),
            ("serve: {http: 1, http: 2}", "http"),
            ("serve: [1", "line"),
        ] {
            let why = wrong(text);
            assert!(why.contains(word), "{text:?}: {why}");
        }
    }
}
