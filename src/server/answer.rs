//! What a sender is told, in the encoding of its request.

use std::time::Duration;

use prost::Message;

use crate::model::otlp::{ExportResponse, PartialSuccess};
use crate::sources::otlp::Encoding;

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Its bytes are not what they say they are.
    Malformed,
    /// It is larger than requests may be, in bytes or spans.
    TooLarge,
    /// A content type that is none of OTLP's.
    UnknownType,
    /// A compression that is not understood.
    UnknownEncoding,
    /// No such path.
    NotFound,
    /// Not a POST.
    WrongMethod,
    /// It did not arrive in time.
    TooSlow,
    /// A web page of somebody else may have sent it.
    Foreign,
    /// The name that it was sent to is not one of this server.
    WrongHost,
    /// A signal that this server does not keep and has nobody to forward to, or spans that it will not be able to keep.
    NotKept,
    /// There is no room for it now.
    Busy,
    /// It cannot be stored now.
    Unavailable,
}

impl Problem {
    /// Returns the HTTP status code, and gRPC's.
    fn codes(self) -> (u16, u32) {
        match self {
            Self::Malformed => (400, 3),
            Self::TooLarge => (413, 8),
            Self::UnknownType | Self::UnknownEncoding => (415, 12),
            Self::NotFound => (404, 12),
            Self::WrongMethod => (405, 12),
            Self::TooSlow => (408, 4),
            Self::Foreign => (403, 7),
            Self::WrongHost => (421, 7),
            Self::NotKept => (501, 12),
            Self::Busy | Self::Unavailable => (503, 14),
        }
    }

    /// Returns the word under which it is counted.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::UnknownType => "unknown_type",
            Self::UnknownEncoding => "unknown_encoding",
            Self::NotFound => "not_found",
            Self::WrongMethod => "wrong_method",
            Self::TooSlow => "too_slow",
            Self::Foreign => "foreign_origin",
            Self::WrongHost => "wrong_host",
            Self::NotKept => "not_kept",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
        }
    }

    /// Returns how long a sender waits before it comes again; `None` when that would not help.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Busy | Self::TooSlow => Some(Duration::from_secs(1)),
            Self::Unavailable => Some(Duration::from_secs(5)),
            _ => None,
        }
    }
}

/// A request that is refused whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub problem: Problem,
    /// What is wrong and where, for the sender's log.
    pub why: String,
}

impl Refusal {
    pub fn new(problem: Problem, why: String) -> Self {
        Self { problem, why }
    }

    /// Returns the status code for HTTP.
    pub fn http_code(&self) -> u16 {
        self.problem.codes().0
    }

    /// Returns the status code for gRPC.
    pub fn grpc_code(&self) -> u32 {
        self.problem.codes().1
    }

    /// Encodes it as `google.rpc.Status`, with the time to wait where there is one.
    pub fn status(&self, encoding: Encoding) -> Vec<u8> {
        let status = Status {
            code: self.grpc_code() as i32,
            message: self.why.clone(),
            details: self.problem.retry_after().map(retry_info).into_iter().collect(),
        };
        match encoding {
            Encoding::Protobuf => status.encode_to_vec(),
            Encoding::Json => {
                let details = self
                    .problem
                    .retry_after()
                    .map(|wait| serde_json::json!({"@type": RETRY_INFO, "retryDelay": format!("{}s", wait.as_secs())}));
                let details: Vec<_> = details.into_iter().collect();
                serde_json::json!({"code": status.code, "message": status.message, "details": details})
                    .to_string()
                    .into_bytes()
            }
        }
    }
}

/// A request that was taken, but for the spans that are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub rejected: u64,
    pub message: String,
}

impl Taken {
    /// Encodes an `Export*ServiceResponse`; without anything to say its partial success is not set. `rejected_name`: how
    /// the signal calls what was rejected, in JSON.
    pub fn encode(&self, encoding: Encoding, rejected_name: &str) -> Vec<u8> {
        let has_word = self.rejected > 0 || !self.message.is_empty();
        match encoding {
            Encoding::Protobuf => {
                let partial = PartialSuccess { rejected: self.rejected as i64, error_message: self.message.clone() };
                ExportResponse { partial_success: has_word.then_some(partial) }.encode_to_vec()
            }
            Encoding::Json if has_word => {
                let mut partial = serde_json::Map::new();
                if self.rejected > 0 {
                    partial.insert(rejected_name.to_owned(), self.rejected.to_string().into());
                }
                partial.insert("errorMessage".to_owned(), self.message.clone().into());
                serde_json::json!({"partialSuccess": partial}).to_string().into_bytes()
            }
            Encoding::Json => b"{}".to_vec(),
        }
    }
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

fn retry_info(wait: Duration) -> Any {
    let delay = ProtoDuration { seconds: wait.as_secs() as i64, nanos: wait.subsec_nanos() as i32 };
    Any { type_url: RETRY_INFO.to_owned(), value: RetryInfo { retry_delay: Some(delay) }.encode_to_vec() }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, prost::Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}
