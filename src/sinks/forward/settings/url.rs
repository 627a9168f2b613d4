//! A URL as given to `--forward`, taken apart.

use std::time::Duration;

use http::Uri;

use super::{Compression, DEFAULT_TIMEOUT, Protocol, SettingsError, Signal, Target, TlsFiles, milliseconds};
use crate::model::otlp::base64;

/// What stands behind the `#` of a URL.
#[derive(Default)]
pub(super) struct UrlOptions {
    pub(super) protocol: Option<Protocol>,
    compression: Option<Compression>,
    timeout: Option<Duration>,
    headers: Vec<(String, String)>,
    tls: TlsFiles,
    own_metrics: bool,
}

impl UrlOptions {
    pub(super) fn parse(text: &str) -> Result<Self, SettingsError> {
        let mut options = Self::default();
        for (i, option) in text.split('&').filter(|option| !option.is_empty()).enumerate() {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            // Without a `=` it may be a part of a value with a `&` in it.
            let named = if option.contains('=') || NAMES.contains(&name) { beginning(name) } else { String::new() };
            let name_or_place = if named.is_empty() { format!("number {}", i + 1) } else { named };
            let wrong = |reason| SettingsError::Option { name: name_or_place.clone(), reason };
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

    pub(super) fn put_in(self, mut target: Target) -> Result<Target, SettingsError> {
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

/// The names of options, those of headers aside.
const NAMES: [&str; 7] = ["protocol", "compression", "timeout", "ca", "cert", "key", "own_metrics"];

/// Returns what of a text is the name of an option or a header: what is wrong behind it may be a secret.
pub(super) fn beginning(text: &str) -> String {
    text.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(60).collect()
}

/// A URL taken apart and checked.
pub(super) struct Parts {
    scheme: &'static str,
    authority: String,
    pub(super) port: Option<u16>,
    pub(super) path_and_query: String,
    authorization: Option<String>,
}

impl Parts {
    pub(super) fn parse(url: &str) -> Result<Self, SettingsError> {
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

    pub(super) fn into_target(self, signal: Signal, protocol: Protocol, path: &str) -> Target {
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

/// Returns a URL as it may be shown where it can't be used.
pub(super) fn without_secrets(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    // A password may have any of the other marks in it.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // What is no port may be the beginning of a password that has a `#` in it.
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let authority = match port.bytes().all(|byte| byte.is_ascii_digit() || byte == b']') || host.starts_with('[') {
        true => authority.to_owned(),
        false => format!("{host}:***"),
    };
    let shown: String = format!("{authority}{path}").chars().filter(|c| !c.is_control()).take(200).collect();
    if scheme.is_empty() { shown } else { format!("{scheme}://{shown}") }
}

/// Undoes percent-encoding; `None` for a broken escape or text that is not UTF-8.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
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
