//! OTLP over gRPC: its one call, unary, over hyper's HTTP/2.
//!
//! A message is a byte that tells whether it is compressed, four bytes of length, and the message; the answer's status
//! stands in trailers. That is all that is needed here, and it leaves decompression to the same code, with the same
//! bounds, as over HTTP.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};

use super::answer::{Problem, Refusal, Taken};
use super::body::{self, Head};
use super::{Shared, http};
use crate::model::otlp::base64;
use crate::sources::otlp::{Encoding, Signal};

const EXPORT_TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const EXPORT_LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const EXPORT_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Answers on the port for OTLP over gRPC.
pub(super) async fn otlp(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let is_grpc = request.headers().get(CONTENT_TYPE).is_some_and(|value| {
        // Messages of other formats, as `+json`, have the same length and other bytes.
        let media = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        ["application/grpc", "application/grpc+proto"].iter().any(|known| media.eq_ignore_ascii_case(known))
    });
    if request.version() != Version::HTTP_2 || !is_grpc {
        let text = "this port takes OTLP over gRPC (application/grpc); OTLP over HTTP has a port of its own, 4318 by default\n";
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Ok(response);
    }
    Ok(match export(&shared, request).await {
        Ok(taken) => answered(&taken),
        Err(refusal) => {
            shared.count_refusal(refusal.problem);
            refused(&refusal)
        }
    })
}

async fn export(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Taken, Refusal> {
    let path = request.uri().path();
    let signal = match path {
        _ if request.method() != Method::POST => {
            return Err(Refusal::new(Problem::WrongMethod, "a call is a POST".to_owned()));
        }
        EXPORT_TRACES => Some(Signal::Traces),
        EXPORT_LOGS => Some(Signal::Logs),
        EXPORT_METRICS if !shared.line.takes_metrics() && request.body().size_hint().lower() > http::MAX_NOTHING => {
            return Err(http::not_kept());
        }
        EXPORT_METRICS => None,
        _ => {
            let path: String = path.chars().take(120).collect();
            return Err(Refusal::new(
                Problem::NotFound,
                format!(
                    "there is no method {path}: traces go to {EXPORT_TRACES}, logs to {EXPORT_LOGS}, metrics to {EXPORT_METRICS}"
                ),
            ));
        }
    };
    let compression = request.headers().get("grpc-encoding").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let compression = compression.to_owned();
    let bounds = &shared.line.bounds;
    let (mut head, mut body) = (Head::default(), request.into_body());
    let held = body::read(&mut body, bounds.request_bytes, bounds.body_limit, &shared.budget, Some(&mut head)).await?;
    let is_compressed = is_compressed(&head, held.bytes.len())?;
    let compression = match compression.as_str() {
        _ if !is_compressed => "",
        "" | "identity" => {
            let why = "its message is said to be compressed, and no grpc-encoding says how".to_owned();
            return Err(Refusal::new(Problem::Malformed, why));
        }
        named => named,
    };
    match signal {
        Some(signal) => shared.line.take(held, signal, compression, Encoding::Protobuf).await,
        None => shared.line.take_metrics(held, compression, Encoding::Protobuf).await,
    }
}

/// Tells whether the one message of a call is compressed, behind whose head so many bytes came.
fn is_compressed(head: &Head, bytes: usize) -> Result<bool, Refusal> {
    let malformed = |why: String| Refusal::new(Problem::Malformed, format!("the call is not one gRPC message: {why}"));
    let (flag, length) = head.whole().map_err(|filled| malformed(format!("its body has {filled} bytes")))?;
    if length != bytes {
        return Err(malformed(format!("its head says {length} bytes and {bytes} follow")));
    }
    if flag > 1 {
        return Err(malformed(format!("its flag is {flag}")));
    }
    Ok(flag == 1)
}

fn answered(taken: &Taken) -> Answer {
    let encoded = taken.encode(Encoding::Protobuf, "");
    let mut body = Vec::with_capacity(Head::BYTES + encoded.len());
    body.push(0);
    body.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend_from_slice(&encoded);
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from(body)).with_trailers(std::future::ready(Some(Ok(trailers))));
    with_head(Response::new(body.boxed()))
}

/// An answer without a message has its status in the head.
fn refused(refusal: &Refusal) -> Answer {
    let mut response = with_head(Response::new(Full::default().boxed()));
    let headers = response.headers_mut();
    headers.insert(STATUS, HeaderValue::from(refusal.grpc_code()));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&refusal.why)) {
        headers.insert(MESSAGE, message);
    }
    let details = base64::encode(&refusal.status(Encoding::Protobuf));
    if let Ok(details) = HeaderValue::from_str(details.trim_end_matches('=')) {
        headers.insert(DETAILS, details);
    }
    response
}

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

fn with_head(mut response: Answer) -> Answer {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("gzip,zstd,deflate,identity"));
    response
}

/// Writes a status message as gRPC wants it: printable ASCII as it is, all else as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
