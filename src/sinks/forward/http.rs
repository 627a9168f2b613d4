//! OTLP over HTTP/1.1, protobuf or JSON.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant, SystemTime};

use flate2::Compression as Level;
use flate2::write::GzEncoder;
use prost::Message;
use ureq::http::header;

use super::settings::{Compression, Protocol, SettingsError, Signal, Target};
use super::tls::{Material, is_of_trust};
use super::{Blame, MAX_ANSWER_BYTES, NO_ANSWER, RpcStatus, Sent, USER_AGENT, clipped, retry};
use crate::error::with_causes;
use crate::model::otlp::TracesData;

/// Of an error's body only a sentence is kept, so no more of it is read.
const MAX_ERROR_BYTES: u64 = 64 << 10;

/// A client for one target.
pub(super) struct Client {
    agent: ureq::Agent,
    target: Target,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The agent's settings may hold the credentials of a proxy.
        f.debug_struct("http::Client").finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(target: &Target) -> Result<Self, SettingsError> {
        if (target.protocol, target.signal) == (Protocol::HttpJson, Signal::Metrics) {
            return Err(SettingsError::Setup { reason: "http/json is offered for traces only".to_owned() });
        }
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect could carry credentials to a stranger, and no OTLP server needs one.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            // Answers are small; without this a peer could send a bomb.
            .accept_encoding(ureq::config::AutoHeaderValue::None)
            .max_idle_connections(1);
        if let Some(material) = Material::load(target)? {
            config = config.tls_config(material.for_http()?);
        }
        // The proxy of the environment is for the world outside.
        if target.is_loopback() {
            config = config.proxy(None);
        }
        Ok(Self { agent: config.build().new_agent(), target: target.clone() })
    }

    pub(super) fn send(&self, request: Vec<u8>, spans: u64, deadline: Instant) -> Sent {
        let body = match self.body(request) {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        match self.post(&body, deadline) {
            Ok(answer) => answer.judge(self.is_json(), spans),
            Err(error) => judge_error(&error),
        }
    }

    fn is_json(&self) -> bool {
        self.target.protocol == Protocol::HttpJson
    }

    fn body(&self, request: Vec<u8>) -> Result<Vec<u8>, Sent> {
        let body = if self.is_json() { to_json(&request)? } else { request };
        match self.target.compression {
            Compression::None => Ok(body),
            Compression::Gzip => {
                let mut gzip = GzEncoder::new(Vec::with_capacity(body.len() / 4), Level::fast());
                gzip.write_all(&body)
                    .and_then(|()| gzip.finish())
                    .map_err(|error| Sent::refused(error.to_string(), Blame::Content))
            }
        }
    }

    fn post(&self, body: &[u8], deadline: Instant) -> Result<Answer, ureq::Error> {
        let content_type = if self.is_json() { "application/json" } else { "application/x-protobuf" };
        let mut request = self.agent.post(&self.target.endpoint).header(header::CONTENT_TYPE, content_type);
        if self.target.compression == Compression::Gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        // Zero would mean no limit.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let response = request.config().timeout_global(Some(left)).build().send(body)?;
        Answer::read(response)
    }
}

fn to_json(request: &[u8]) -> Result<Vec<u8>, Sent> {
    let traces = TracesData::decode(request)
        .map_err(|error| Sent::refused(format!("can't be decoded: {error}"), Blame::Content))?;
    serde_json::to_vec(&traces)
        .map_err(|error| Sent::refused(format!("can't be written as JSON: {error}"), Blame::Content))
}

/// What a peer answered, as far as it matters.
struct Answer {
    status: u16,
    content_type: String,
    retry_after: Option<String>,
    /// `None` when it is longer than anything that an OTLP server says.
    body: Option<Vec<u8>>,
}

impl Answer {
    fn read(mut response: ureq::http::Response<ureq::Body>) -> Result<Self, ureq::Error> {
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (content_type, retry_after) = (text(header::CONTENT_TYPE), text(header::RETRY_AFTER));
        let status = response.status();
        let limit = if status.is_success() { MAX_ANSWER_BYTES as u64 } else { MAX_ERROR_BYTES };
        let body = match response.body_mut().with_config().limit(limit).read_to_vec() {
            Ok(body) => Some(body),
            Err(ureq::Error::BodyExceedsLimit(_)) => None,
            // The status of an error says enough; a success whose answer breaks off may not be one.
            Err(_) if !status.is_success() => None,
            Err(error) => return Err(error),
        };
        Ok(Self { status: status.as_u16(), content_type: content_type.unwrap_or_default(), retry_after, body })
    }

    fn judge(&self, json: bool, spans: u64) -> Sent {
        match self.status {
            200..=299 => self.judge_success(json, spans),
            429 | 502 | 503 | 504 => self.judge_later(json),
            // OTLP does not name it. Who says when to come again means it, as our own server does.
            408 if self.retry_after.is_some() => self.judge_later(json),
            413 => Sent::TooLarge { reason: self.reason(json) },
            // The Collector says so with the status of what cannot be read.
            400 if super::is_about_size(&self.reason(json)) => Sent::TooLarge { reason: self.reason(json) },
            // An address that answers with another address is as wrong as wrong credentials.
            300..=399 | 401 | 403 | 407 => Sent::misconfigured(self.reason(json)),
            // What servers say to a request that they cannot read, or stumble over.
            400 | 422 | 500 => Sent::refused(self.reason(json), Blame::Content),
            404 | 405 | 410 | 501 => Sent::refused(self.reason(json), Blame::Address),
            _ => Sent::refused(self.reason(json), Blame::Peer),
        }
    }

    fn judge_later(&self, json: bool) -> Sent {
        let after = self.retry_after.as_deref().and_then(|value| retry::retry_after(value, SystemTime::now()));
        // The peer, or a gateway before it, has waited too long.
        Sent::Later { after, midway: matches!(self.status, 408 | 504), reason: self.reason(json) }
    }

    fn judge_success(&self, json: bool, spans: u64) -> Sent {
        let Some(body) = &self.body else {
            let reason = format!("HTTP {} with an answer over {MAX_ANSWER_BYTES} bytes", self.status);
            return Sent::refused(reason, Blame::Peer);
        };
        // A login page or a start page says 200 to everything and keeps nothing.
        if self.content_type.to_ascii_lowercase().starts_with("text/html") {
            return Sent::misconfigured(format!("HTTP {} with a web page: not an OTLP endpoint", self.status));
        }
        if !json {
            return Sent::from_answer(body, spans);
        }
        let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let partial = &answer["partialSuccess"];
        let rejected = &partial["rejectedSpans"];
        let rejected = rejected.as_i64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0);
        Sent::from_counts(rejected, partial["errorMessage"].as_str().unwrap_or_default(), spans)
    }

    fn reason(&self, json: bool) -> String {
        let body = self.body.as_deref().unwrap_or_default();
        let is_of = |media: &str| self.content_type.to_ascii_lowercase().starts_with(media);
        let status = if is_of("text/plain") {
            String::from_utf8_lossy(body).trim().to_owned()
        } else if json || is_of("application/json") {
            let status: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            status["message"].as_str().unwrap_or_default().to_owned()
        } else {
            RpcStatus::decode(body).unwrap_or_default().message
        };
        // Who does not answer as OTLP says may still say why, unless it is a page for people.
        let text = || std::str::from_utf8(body).ok().filter(|text| !text.contains('\0') && !is_web_page(text));
        let message = if status.is_empty() { text().unwrap_or_default().trim().to_owned() } else { status };
        match message.as_str() {
            "" => format!("HTTP {}", self.status),
            message => clipped(&format!("HTTP {}: {message}", self.status)),
        }
    }
}

fn is_web_page(text: &str) -> bool {
    let begin: String = text.trim_start().chars().take(9).collect::<String>().to_ascii_lowercase();
    begin.starts_with("<!doctype") || begin.starts_with("<html")
}

fn judge_error(error: &ureq::Error) -> Sent {
    match error {
        ureq::Error::Io(cause) if is_of_trust(cause) => Sent::misconfigured(with_causes(error)),
        ureq::Error::Rustls(cause) if is_of_trust(cause) => Sent::misconfigured(with_causes(error)),
        // These come of what we were told to send, and would come again. The URI may hold a key.
        ureq::Error::BadUri(_) => Sent::misconfigured("the endpoint can't be sent to"),
        ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl | ureq::Error::RedirectFailed => {
            Sent::misconfigured(with_causes(error))
        }
        ureq::Error::Timeout(_) => Sent::midway(NO_ANSWER),
        ureq::Error::Io(cause) if is_of_broken_connection(cause.kind()) => Sent::midway(with_causes(error)),
        _ => Sent::later(with_causes(error)),
    }
}

/// Tells whether a connection that was there is gone.
fn is_of_broken_connection(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
