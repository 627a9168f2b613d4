//! Sends OTLP export requests to a peer: one call, one request, one answer that says what to do next.
//!
//! Requests come as bytes that are already encoded, are sent as they are, and nothing is queued or retried here: the
//! caller holds the batch until [`Sender::send`] says [`Sent::Accepted`], and waits by [`retry::Backoff`] after
//! [`Sent::Later`]. What is retryable is decided in one place a protocol, by the OTLP specification.
//!
//! [`Sender::send`] blocks and is meant for a thread of our own. It returns by its deadline, works inside and outside
//! of async runtimes, and nothing of its traffic reaches the host's `tracing` subscriber.

mod grpc;
mod http;
pub mod retry;
mod settings;
mod tls;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tracing::Dispatch;

use crate::model::id::fill_random;
use crate::model::otlp::ExportResponse;
use crate::model::schema::{self, Split};
use crate::pipeline::{Content, Scrubber};

pub use settings::{Compression, DEFAULT_TIMEOUT, Protocol, SettingsError, Signal, Target, TlsFiles, Warning};

/// The largest request that is sent, before compression: the limit that OTLP recommends to servers.
pub const MAX_REQUEST_BYTES: usize = 64 << 20;

/// The largest answer that is read; a hostile peer must not fill our memory.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;

/// The longest text of a peer that is kept, in characters.
const MAX_REASON_CHARS: usize = 300;
/// So much of it is read for secrets: of one that the cut would fall into, no half is left.
const MAX_READ_CHARS: usize = 16 * MAX_REASON_CHARS;

/// Says what to change where a peer does not answer in time.
const NO_ANSWER: &str = "no answer in time; `timeout` of the target (in milliseconds) says how long one may take";

/// Names us to the peer, with the standard's own name behind ours.
const USER_AGENT: &str =
    concat!("runspan/", env!("CARGO_PKG_VERSION"), " OTel-OTLP-Exporter-Rust/", env!("CARGO_PKG_VERSION"));

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the answer decides whether the batch is kept"]
pub enum Sent {
    /// The peer has all of it.
    Accepted,
    /// The peer has the request and keeps only part of it. It must not be sent again.
    Partial {
        /// How many spans the peer left out, at most as many as were sent; 0 makes the message a mere warning.
        rejected: u64,
        /// What the peer says, cut and without control characters.
        message: String,
    },
    /// Nothing is known to have arrived; the same request may succeed later.
    Later {
        /// How long the peer asks to wait, at most [`retry::MAX_ASKED_WAIT`].
        after: Option<Duration>,
        /// The request was under way when time was over or the connection broke: a smaller one may pass. It may have
        /// arrived all the same.
        midway: bool,
        /// What went wrong.
        reason: String,
    },
    /// The request is too large for the peer; halves of it may pass.
    TooLarge {
        /// What the peer says.
        reason: String,
    },
    /// The peer will never take this request.
    Refused {
        /// What the peer says.
        reason: String,
        /// Where the fault lies.
        blame: Blame,
    },
}

/// Where the fault for a refusal lies, which tells what to do with the rest of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Perhaps with something in the request: parts of it may pass.
    Content,
    /// With the peer: parts of the request would meet the same end.
    Peer,
    /// With the address, as it seems: there is nobody who takes such requests.
    Address,
    /// With the credentials: every request would meet the same end until somebody mends them, and then pass.
    Settings,
}

impl Sent {
    /// Tells whether the peer has the request, so that it must not be sent again.
    pub fn is_delivered(&self) -> bool {
        matches!(self, Self::Accepted | Self::Partial { .. })
    }

    /// Tells whether the same request may succeed later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Later { .. })
    }

    /// Changes what the peer says.
    fn map_text(self, change: impl FnOnce(&str) -> String) -> Self {
        match self {
            Self::Accepted => Self::Accepted,
            Self::Partial { rejected, message } => Self::Partial { rejected, message: change(&message) },
            Self::Later { after, midway, reason } => Self::Later { after, midway, reason: change(&reason) },
            Self::TooLarge { reason } => Self::TooLarge { reason: change(&reason) },
            Self::Refused { reason, blame } => Self::Refused { reason: change(&reason), blame },
        }
    }

    fn later(reason: impl AsRef<str>) -> Self {
        Self::Later { after: None, midway: false, reason: clipped(reason.as_ref()) }
    }

    fn midway(reason: impl AsRef<str>) -> Self {
        Self::Later { after: None, midway: true, reason: clipped(reason.as_ref()) }
    }

    fn refused(reason: impl AsRef<str>, blame: Blame) -> Self {
        Self::Refused { reason: clipped(reason.as_ref()), blame }
    }

    fn misconfigured(reason: impl AsRef<str>) -> Self {
        Self::refused(reason, Blame::Settings)
    }

    /// Reads the counts of an answer that reports success.
    fn from_counts(rejected: i64, message: &str, sent: u64) -> Self {
        let rejected = u64::try_from(rejected).unwrap_or(0).min(sent);
        match (rejected, message) {
            (0, "") => Self::Accepted,
            _ => Self::Partial { rejected, message: clipped(message) },
        }
    }

    /// Reads the protobuf answer of a peer that reports success.
    fn from_answer(answer: &[u8], sent: u64) -> Self {
        // The peer took the request; that its answer is unreadable is no reason to send it twice.
        let partial = ExportResponse::decode(answer).unwrap_or_default().partial_success.unwrap_or_default();
        Self::from_counts(partial.rejected, &partial.error_message, sent)
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Partial { rejected, message } => write!(f, "accepted but for {rejected}: {message}"),
            Self::Later { reason, .. } => write!(f, "not now: {reason}"),
            Self::TooLarge { reason } => write!(f, "too large: {reason}"),
            Self::Refused { reason, .. } => write!(f, "refused: {reason}"),
        }
    }
}

/// `google.rpc.Status`, the body of errors.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcDetail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcDetail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Sends requests to one target, one at a time, over a connection that is kept.
#[derive(Debug)]
pub struct Sender {
    target: Target,
    wire: Wire,
    /// A peer may quote what it was sent, or more.
    scrubber: Scrubber,
}

#[derive(Debug)]
enum Wire {
    Http(http::Client),
    Grpc(Box<grpc::Client>),
}

impl Sender {
    /// Prepares to send: reads certificates, checks the settings. Connects only when something is sent.
    pub fn new(target: Target) -> Result<Self, SettingsError> {
        let wire = quietly(|| match target.protocol {
            Protocol::Grpc => grpc::Client::new(&target).map(|client| Wire::Grpc(Box::new(client))),
            Protocol::HttpProtobuf | Protocol::HttpJson => http::Client::new(&target).map(Wire::Http),
        })?;
        let mut key = [0; 32];
        fill_random(&mut key);
        Ok(Self { target, wire, scrubber: Scrubber::new(Content::Redacted, key) })
    }

    /// Returns where requests go.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends one request: an `ExportTraceServiceRequest` or `ExportMetricsServiceRequest`, protobuf, not compressed.
    ///
    /// `spans` says how many spans (or data points) it holds, to check what the peer says against. Returns at the
    /// target's timeout or at `deadline`, whichever comes first.
    pub fn send(&mut self, request: Vec<u8>, spans: u64, deadline: Instant) -> Sent {
        if request.len() > MAX_REQUEST_BYTES {
            return Sent::TooLarge { reason: format!("{} bytes, more than {MAX_REQUEST_BYTES}", request.len()) };
        }
        let now = Instant::now();
        let deadline = now.checked_add(self.target.timeout).map_or(deadline, |own| own.min(deadline));
        if deadline <= now {
            return Sent::later("no time left");
        }
        let sent = unharmed(|| {
            quietly(|| match &mut self.wire {
                Wire::Http(client) => client.send(request, spans, deadline),
                Wire::Grpc(client) => client.send(request, spans, deadline),
            })
        });
        sent.map_text(|text| {
            let text = self.target.without_secrets(text);
            let text = self.scrubber.clean(&text).unwrap_or(text);
            text.chars().take(MAX_REASON_CHARS).collect()
        })
    }
}

/// Turns a panic of a client's library (a thread that can't be started, an answer that it chokes on) into a failure.
fn unharmed(send: impl FnOnce() -> Sent) -> Sent {
    catch_unwind(AssertUnwindSafe(send)).unwrap_or_else(|_| Sent::later("the client failed"))
}

/// Builds an export request from encoded parts without decoding them.
///
/// Each part is an encoded `Resource` and the encoded `ScopeSpans` that belong to it.
pub fn request_from_parts(parts: &[(&[u8], &[&[u8]])]) -> Vec<u8> {
    const RESOURCE_SPANS: u32 = 1;
    const RESOURCE: u32 = 1;
    const SCOPE_SPANS: u32 = 2;
    fn put(tag: u32, length: usize, request: &mut Vec<u8>) {
        encode_key(tag, WireType::LengthDelimited, request);
        encode_varint(length as u64, request);
    }
    fn framed_len(tag: u32, length: usize) -> usize {
        key_len(tag) + encoded_len_varint(length as u64) + length
    }
    // Its schema URL has no place in a resource.
    let parts: Vec<_> = parts.iter().map(|(resource, scopes)| (schema::split(resource), *scopes)).collect();
    let length_of = |((resource, behind), scopes): &(Split<'_>, &[&[u8]])| {
        let scopes: usize = scopes.iter().map(|scope| framed_len(SCOPE_SPANS, scope.len())).sum();
        framed_len(RESOURCE, resource.len()) + scopes + behind.len()
    };
    let lengths: Vec<usize> = parts.iter().map(length_of).collect();
    let mut request = Vec::with_capacity(lengths.iter().map(|length| framed_len(RESOURCE_SPANS, *length)).sum());
    for (((resource, behind), scopes), length) in parts.iter().zip(lengths) {
        put(RESOURCE_SPANS, length, &mut request);
        put(RESOURCE, resource.len(), &mut request);
        request.extend_from_slice(resource);
        for scope in *scopes {
            put(SCOPE_SPANS, scope.len(), &mut request);
            request.extend_from_slice(scope);
        }
        request.extend_from_slice(behind);
    }
    request
}

/// Runs `work` so that no span or event in it, ours or a dependency's, reaches the host's subscriber.
///
/// For as long as it takes and no longer: while any thread has a subscriber of its own, `tracing` goes a slower way in
/// all threads, on which the host's spans are lost in places (in destructors of thread locals, inside events). For the
/// same reason it is the subscriber that nobody has to register: another one would cost the host its cached interests.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> T {
    tracing::dispatcher::with_default(&Dispatch::none(), work)
}

/// Tells whether what a peer says is about a request over a limit, in the words of the Go, Java, C++ and Rust libraries.
fn is_about_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["larger than max", "exceeds maximum size", "message length too large", "too large"]
        .iter()
        .any(|words| message.contains(words))
}

/// Takes control characters out of a peer's text, so that it can go into logs and terminals, and all beyond what is ever shown.
fn clipped(text: &str) -> String {
    text.chars().take(MAX_READ_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
pub(crate) mod tests;
