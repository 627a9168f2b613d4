//! The way out: from the SDK's exporter to the peer.

use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::MetricsError;
use crate::sinks::forward::{self, Sender, Sent};

/// One more than what is sent, so that a request over the limit is told from one at it.
const MAX_BODY_BYTES: u64 = forward::MAX_REQUEST_BYTES as u64 + 1;

/// The line to the peer.
#[derive(Debug)]
pub(super) struct Line {
    pub sender: Mutex<Sender>,
    pub timeout: Duration,
    pub closing: Mutex<Closing>,
    /// Why the last export failed.
    pub failure: Mutex<Option<String>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Closing {
    Open,
    /// Shutting down: nothing is sent after this moment.
    Until(Instant),
    /// Everything is sent, or given up.
    Closed,
}

impl Line {
    pub fn set_closing(&self, closing: Closing) {
        *locked(&self.closing) = closing;
    }

    pub fn flush(&self, provider: &SdkMeterProvider) -> Result<(), MetricsError> {
        provider.force_flush().map_err(|error| {
            let reason = locked(&self.failure).clone();
            MetricsError::Export { reason: reason.unwrap_or_else(|| error.to_string()) }
        })
    }

    /// Sends an encoded request and says what became of it as an HTTP status, which is what the SDK understands.
    fn send(&self, request: Vec<u8>) -> Response<Bytes> {
        let now = Instant::now();
        let own = now.checked_add(self.timeout).unwrap_or(now);
        let closing = *locked(&self.closing);
        let deadline = match closing {
            Closing::Open => own,
            Closing::Until(deadline) => own.min(deadline),
            Closing::Closed => return answer(200, None),
        };
        // The number of points is not known here, so a peer that rejects more than all is believed.
        let sent = locked(&self.sender).send(request, u64::MAX, deadline);
        *locked(&self.failure) = (sent != Sent::Accepted).then(|| sent.to_string());
        match sent {
            Sent::Accepted | Sent::Partial { .. } => answer(200, None),
            // Once the end has come the SDK must not sleep before another try.
            Sent::Later { .. } if matches!(closing, Closing::Until(end) if end <= Instant::now()) => answer(400, None),
            Sent::Later { after, .. } => answer(503, after),
            Sent::TooLarge { .. } => answer(413, None),
            Sent::Refused { .. } => answer(400, None),
        }
    }
}

/// The line as the SDK's exporter wants to have it.
#[derive(Debug)]
pub(super) struct LineClient(pub Arc<Line>);

#[async_trait]
impl HttpClient for LineClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(request.body().as_ref()).take(MAX_BODY_BYTES).read_to_end(&mut body)?;
        // Blocking is right here: the SDK drives this future on a thread that does nothing else.
        Ok(self.0.send(body))
    }
}

fn answer(status: u16, after: Option<Duration>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    if let Some(after) = after {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from(seconds));
    }
    response
}

/// Locks even after a panic elsewhere; what is guarded here is valid at any moment.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
