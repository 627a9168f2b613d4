//! OTLP over gRPC.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::runtime::{Builder, Handle, Runtime};
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tracing::Dispatch;
use tracing::dispatcher::DefaultGuard;

use super::settings::{Compression, SettingsError, Target};
use super::tls::{Material, is_of_trust};
use super::{Blame, MAX_ANSWER_BYTES, NO_ANSWER, RpcStatus, Sent, USER_AGENT, clipped, quietly, retry};
use crate::error::with_causes;

/// A client for one target, with a runtime of its own.
///
/// The runtime has one thread, the caller's: tasks of the connection run inside [`Client::send`] and nowhere else, so
/// whatever hides the caller from `tracing` hides them too.
pub(super) struct Client {
    /// Taken when dropped.
    runtime: Option<Runtime>,
    connection: Connection,
}

thread_local! {
    static QUIET: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

struct Connection {
    endpoint: Endpoint,
    channel: Channel,
    path: PathAndQuery,
    metadata: MetadataMap,
    compression: Compression,
    /// The channel has carried an answer.
    is_proven: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("grpc::Client").finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(target: &Target) -> Result<Self, SettingsError> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .thread_name("runspan-resolve")
            // Names are resolved on a thread of their own, which has to be as quiet as ours while it lives.
            .on_thread_start(|| QUIET.set(Some(tracing::dispatcher::set_default(&Dispatch::none()))))
            .on_thread_stop(|| drop(QUIET.take()))
            .build()
            .map_err(|error| setup(format!("no runtime for gRPC: {error}")))?;
        let connection = {
            let _inside = runtime.enter();
            Connection::new(target)
        };
        match connection {
            Ok(connection) => Ok(Self { runtime: Some(runtime), connection }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    pub(super) fn send(&mut self, request: Vec<u8>, spans: u64, deadline: Instant) -> Sent {
        let (Some(runtime), connection) = (&self.runtime, &mut self.connection) else {
            return Sent::later("shut down");
        };
        let send = || quietly(|| runtime.block_on(connection.send(request, spans, deadline)));
        if Handle::try_current().is_err() {
            return send();
        }
        // A runtime can't be entered inside another one, so the work moves out of it.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("runspan-forward".to_owned()).spawn_scoped(scope, send);
            match thread.map(|thread| thread.join()) {
                Ok(Ok(sent)) => sent,
                Ok(Err(_)) => Sent::later("the sending thread failed"),
                Err(error) => Sent::later(format!("no thread to send on: {error}")),
            }
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Neither waits for a name that is being resolved nor minds being dropped inside another runtime.
        quietly(|| self.runtime.take().map(Runtime::shutdown_background));
    }
}

impl Connection {
    /// Prepares a connection; needs the runtime that will drive it.
    fn new(target: &Target) -> Result<Self, SettingsError> {
        let user_agent = target.headers.iter().find(|(name, _)| name == "user-agent");
        let mut endpoint = Endpoint::from_shared(target.endpoint.clone())
            .and_then(|endpoint| endpoint.user_agent(user_agent.map_or(USER_AGENT, |(_, value)| value).to_owned()))
            .map_err(|error| setup(with_causes(&error)))?
            .connect_timeout(target.timeout);
        if let Some(material) = Material::load(target)? {
            endpoint = endpoint.tls_config(material.for_grpc()).map_err(|error| setup(with_causes(&error)))?;
        }
        let mut metadata = MetadataMap::new();
        for (name, value) in target.headers.iter().filter(|(name, _)| name != "user-agent") {
            let header = |reason| SettingsError::Header { name: name.clone(), reason };
            let key = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| header("is not a header name"))?;
            let value = AsciiMetadataValue::try_from(value.as_str()).map_err(|_| header("has no plain ASCII value"))?;
            metadata.insert(key, value);
        }
        Ok(Self {
            channel: endpoint.connect_lazy(),
            endpoint,
            path: PathAndQuery::from_static(target.signal.grpc_path()),
            metadata,
            compression: target.compression,
            is_proven: false,
        })
    }

    async fn send(&mut self, request: Vec<u8>, spans: u64, deadline: Instant) -> Sent {
        let request = Bytes::from(request);
        match tokio::time::timeout_at(deadline.into(), self.call_proven(request, deadline)).await {
            Ok(Ok(answer)) => Sent::from_answer(&answer, spans),
            Ok(Err(failure)) => failure.judge(),
            Err(_) => {
                // The connection may lead nowhere any more (a sleeping laptop, a forgotten NAT entry), and TCP takes
                // a quarter of an hour to notice.
                self.reconnect();
                Sent::midway(NO_ANSWER)
            }
        }
    }

    /// Calls, and calls once more where the connection had been good and is gone.
    ///
    /// Nothing looks after the connection between requests, so that the peer closed it while it was idle is only seen
    /// by using it. That is no failure to tell anybody about.
    async fn call_proven(&mut self, request: Bytes, deadline: Instant) -> Result<Bytes, Failure> {
        let mut result = self.call(request.clone(), deadline).await;
        if self.is_proven && result.as_ref().is_err_and(Failure::is_of_connection) {
            self.reconnect();
            result = self.call(request, deadline).await;
        }
        self.is_proven = !result.as_ref().is_err_and(Failure::is_of_connection);
        result
    }

    fn reconnect(&mut self) {
        self.channel = self.endpoint.connect_lazy();
        self.is_proven = false;
    }

    async fn call(&self, body: Bytes, deadline: Instant) -> Result<Bytes, Failure> {
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        if self.compression == Compression::Gzip {
            // A peer may answer in kind, as the Collector does.
            client = client.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
        }
        client.ready().await.map_err(Failure::Connection)?;
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        // Read as a stream so that what the peer says can be told from what goes wrong while its answer is read.
        let response = client.server_streaming(request, self.path.clone(), RawCodec).await.map_err(Failure::Status)?;
        let mut stream = response.into_inner();
        let answer = stream.message().await.map_err(Failure::Answer)?;
        if answer.is_some() {
            // The status comes behind the message.
            stream.message().await.map_err(Failure::Answer)?;
        }
        Ok(answer.unwrap_or_default())
    }
}

enum Failure {
    Connection(tonic::transport::Error),
    /// Came in place of an answer.
    Status(Status),
    /// Came with or while reading the answer.
    Answer(Status),
}

impl Failure {
    /// Tells whether the connection failed, rather than the peer. A status with a cause was made on this side.
    fn is_of_connection(&self) -> bool {
        match self {
            Self::Connection(_) => true,
            Self::Status(status) | Self::Answer(status) => std::error::Error::source(status).is_some(),
        }
    }

    fn judge(self) -> Sent {
        match self {
            Self::Connection(error) if is_of_trust(&error) => Sent::misconfigured(with_causes(&error)),
            Self::Connection(error) => Sent::later(with_causes(&error)),
            Self::Answer(status) if is_about_size(&status) => {
                Sent::refused(format!("answered with more than {MAX_ANSWER_BYTES} bytes"), Blame::Peer)
            }
            Self::Status(status) | Self::Answer(status) => judge_status(&status),
        }
    }
}

fn judge_status(status: &Status) -> Sent {
    let after = asked_wait(status.details());
    let (midway, reason) = (is_midway(status), reason(status));
    if std::error::Error::source(status).is_some_and(is_of_trust) {
        return Sent::misconfigured(reason);
    }
    match status.code() {
        // Limits are told with either of these codes, depending on the server's library.
        Code::ResourceExhausted | Code::OutOfRange if after.is_none() && is_about_size(status) => {
            Sent::TooLarge { reason }
        }
        Code::ResourceExhausted if after.is_none() => Sent::refused(reason, Blame::Peer),
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss
        | Code::ResourceExhausted => Sent::Later { after, midway, reason },
        Code::Unauthenticated | Code::PermissionDenied => Sent::misconfigured(reason),
        // Made on this side, out of a broken connection.
        _ if std::error::Error::source(status).is_some() => Sent::Later { after: None, midway, reason },
        Code::NotFound | Code::Unimplemented => Sent::refused(reason, Blame::Address),
        _ => Sent::refused(reason, Blame::Content),
    }
}

/// Tells whether a status is about a request that was under way.
fn is_midway(status: &Status) -> bool {
    let was_connecting = |cause| {
        let text = with_causes(cause);
        ["connect error", "dns error"].iter().any(|words| text.contains(words))
    };
    matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled)
        || std::error::Error::source(status).is_some_and(|cause| !was_connecting(cause))
}

fn reason(status: &Status) -> String {
    let code = match status.code() {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    };
    let mut text = format!("{code}: {}", status.message());
    if let Some(cause) = std::error::Error::source(status) {
        text = format!("{text}: {}", with_causes(cause));
    }
    clipped(text.trim_end_matches([':', ' ']))
}

/// Tells whether a status is about a message over a limit.
fn is_about_size(status: &Status) -> bool {
    matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange) && super::is_about_size(status.message())
}

/// Returns the wait of a `google.rpc.RetryInfo` among the details of a status.
fn asked_wait(details: &[u8]) -> Option<Duration> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        delay: Option<Delay>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Delay {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    let status = RpcStatus::decode(details).ok()?;
    let detail = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    // An empty or negative delay still says "do try again".
    let delay = RetryInfo::decode(detail.value.as_slice()).ok()?.delay.unwrap_or_default();
    let seconds = Duration::from_secs(u64::try_from(delay.seconds).unwrap_or(0));
    let nanos = Duration::from_nanos(u64::try_from(delay.nanos).unwrap_or(0));
    Some(seconds.saturating_add(nanos).min(retry::MAX_ASKED_WAIT))
}

fn setup(reason: String) -> SettingsError {
    SettingsError::Setup { reason }
}

/// Passes encoded messages through as they are.
#[derive(Clone, Copy)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.len());
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
