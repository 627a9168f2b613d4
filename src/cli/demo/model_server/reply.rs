//! An answer on its way out: decided, and not written yet.

use serde_json::{Value, json};

/// An answer, ready to be written.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// One JSON document.
    Whole { status: u16, request_id: Option<String>, body: Value },
    /// Server-sent events, each with its blank line.
    Streamed { request_id: String, frames: Vec<String> },
}

impl Reply {
    /// Makes an answer that says what went wrong, in the shape of OpenAI's errors.
    pub(super) fn error(status: u16, message: &str) -> Self {
        Self::Whole { status, request_id: None, body: error_body(status, message) }
    }

    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Whole { status, .. } => *status,
            Self::Streamed { .. } => 200,
        }
    }

    pub(super) fn is_streamed(&self) -> bool {
        matches!(self, Self::Streamed { .. })
    }
}

fn error_body(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("authentication_error", Some("invalid_api_key")),
        429 => ("rate_limit_error", Some("rate_limit_exceeded")),
        500.. => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}
