//! OTLP over HTTP, and the endpoints that tell how the server is.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};

use super::answer::{Problem, Refusal, Taken};
use super::exposition::{self, Format};
use super::guard;
use super::intake::Tally;
use super::{Shared, body};
use crate::sources::otlp::{Encoding, Signal};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

type Answer = Response<Full<Bytes>>;

/// Answers on the port for OTLP.
pub(super) async fn otlp(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let encoding = encoding_of(request.headers());
    // Where its own encoding is not known, JSON is what a person can read.
    let answered_in = encoding.unwrap_or(Encoding::Json);
    let signal = request.uri().path().to_owned();
    let (head, mut body) = request.into_parts();
    let answer = match export(&shared, &head, &mut body, encoding).await {
        Ok(taken) => response(StatusCode::OK, answered_in, taken.encode(answered_in, rejected_name(&signal))),
        Err(refusal) => {
            shared.count_refusal(refusal.problem);
            // In HTTP/2 a request is given up by itself, and its connection stays. Who was too slow had time to hear it, and who asks
            // before it sends waits for the answer.
            let may_be_sending = refusal.problem != Problem::TooSlow && !head.headers.contains_key(EXPECT);
            if head.version < Version::HTTP_2 && may_be_sending {
                tokio::spawn(body::forget(body, shared.line.bounds.request_bytes));
            }
            refused(&refusal, answered_in)
        }
    };
    Ok(answer)
}

async fn export(
    shared: &Arc<Shared>,
    head: &Parts,
    body: &mut Incoming,
    encoding: Option<Encoding>,
) -> Result<Taken, Refusal> {
    guard::check(head.version, &head.headers, head.uri.authority(), &shared.hosts)?;
    let path = head.uri.path();
    if !matches!(path, "/v1/traces" | "/v1/logs" | "/v1/metrics") {
        let path: String = path.chars().take(80).collect();
        let why =
            format!("there is nothing at {path:?}: traces go to /v1/traces, logs to /v1/logs, metrics to /v1/metrics");
        return Err(Refusal::new(Problem::NotFound, why));
    }
    if head.method != Method::POST {
        let why = format!("{path} takes POST, not {}", head.method);
        return Err(Refusal::new(Problem::WrongMethod, why));
    }
    let Some(encoding) = encoding else {
        let given = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let given: String = given.chars().take(80).collect();
        let why = format!("content type {given:?} is not understood: use {PROTOBUF} or {JSON}");
        return Err(Refusal::new(Problem::UnknownType, why));
    };
    let signal = match path {
        "/v1/traces" => Some(Signal::Traces),
        "/v1/logs" => Some(Signal::Logs),
        _ if !shared.line.takes_metrics() && body.size_hint().lower() > MAX_NOTHING => return Err(not_kept()),
        _ => None,
    };
    let compression = head.headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bounds = &shared.line.bounds;
    let held = body::read(body, bounds.request_bytes, bounds.body_limit, &shared.budget, None).await?;
    match signal {
        Some(signal) => shared.line.take(held, signal, compression, encoding).await,
        None => shared.line.take_metrics(held, compression, encoding).await,
    }
}

/// A request of metrics that is larger has some in it.
pub(super) const MAX_NOTHING: u64 = 4096;

/// Says that a signal goes nowhere from here: what is not kept must not seem to be.
pub(super) fn not_kept() -> Refusal {
    Refusal::new(Problem::NotKept, NOT_KEPT.to_owned())
}

/// Why metrics are refused.
pub(super) const NOT_KEPT: &str = "metrics are not stored here and there is no target to forward them to: send traces and logs, or turn the \
    exporter of metrics off, as with OTEL_METRICS_EXPORTER=none";

fn rejected_name(path: &str) -> &'static str {
    match path {
        "/v1/metrics" => "rejectedDataPoints",
        "/v1/logs" => "rejectedLogRecords",
        _ => "rejectedSpans",
    }
}

fn encoding_of(headers: &HeaderMap) -> Option<Encoding> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media = value.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case(PROTOBUF) {
        Some(Encoding::Protobuf)
    } else if media.eq_ignore_ascii_case(JSON) {
        Some(Encoding::Json)
    } else {
        None
    }
}

fn response(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let media = match encoding {
        Encoding::Protobuf => PROTOBUF,
        Encoding::Json => JSON,
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn refused(refusal: &Refusal, encoding: Encoding) -> Answer {
    let status = StatusCode::from_u16(refusal.http_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = response(status, encoding, refusal.status(encoding));
    if let Some(wait) = refusal.problem.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    if refusal.problem == Problem::WrongMethod {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// Answers on the port for people and monitors.
pub(super) async fn health(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let checked = guard::check(request.version(), request.headers(), request.uri().authority(), &shared.hosts);
    if let Err(refusal) = checked {
        shared.count_refusal(refusal.problem);
        return Ok(refused(&refusal, Encoding::Json));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    Ok(match request.uri().path() {
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => readiness(&shared),
        "/metrics" => metrics(shared, request.headers()).await,
        _ => plain(StatusCode::NOT_FOUND, "there is /metrics, /healthz and /readyz here\n"),
    })
}

async fn metrics(shared: Arc<Shared>, headers: &HeaderMap) -> Answer {
    let accepted: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::of(&accepted.join(","));
    let collect = move || exposition::write(&shared.sources.collect(), format);
    // The journal's folder is looked into, off the threads that serve connections.
    let Ok(text) = tokio::task::spawn_blocking(collect).await else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be collected\n");
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response
}

fn readiness(shared: &Shared) -> Answer {
    let why = if shared.is_ending() { Some("ending\n") } else { why_not_ready(&shared.line.intake.tally) };
    why.map_or_else(|| plain(StatusCode::OK, "ready\n"), |why| plain(StatusCode::SERVICE_UNAVAILABLE, why))
}

fn why_not_ready(tally: &Tally) -> Option<&'static str> {
    let reasons = [
        (&tally.journal_dead, "the journal's thread has died; start the server again\n"),
        (
            &tally.store_dead,
            "the run store's thread has died; spans are taken and wait in the journal; start the server again\n",
        ),
        (&tally.journal_stuck, "the journal cannot be written\n"),
        (&tally.store_stuck, "the run store cannot be written; spans are taken and wait in the journal\n"),
    ];
    reasons.into_iter().find(|(is, _)| is.load(Ordering::Relaxed)).map(|(_, why)| why)
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_store_thread_has_died_is_not_ready() {
        let tally = Tally::default();
        assert_eq!(why_not_ready(&tally), None);
        tally.store_dead.store(true, Ordering::Relaxed);
        assert!(why_not_ready(&tally).unwrap().contains("has died"));
    }
}
