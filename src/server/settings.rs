//! What a server is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::journal::Durability;
use crate::pipeline::Content;
use crate::sinks::forward::Target;
use crate::sinks::keep::Keep;
use crate::sinks::store::SILENCE;
use crate::sources::otlp::Limits;

/// Settings of the bridge, checked as a whole before anything begins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store's directory; found by the usual search where it is not given.
    pub store: Option<PathBuf>,
    /// Where OTLP over gRPC is taken.
    pub otlp_grpc: SocketAddr,
    /// Where OTLP over HTTP is taken.
    pub otlp_http: SocketAddr,
    /// Where health is told.
    pub http: SocketAddr,
    /// Whether an address that others can reach is allowed.
    pub insecure_bind: bool,
    /// Names besides `localhost` by which this server may be called over HTTP.
    pub hosts: Vec<String>,
    /// What an acknowledged request survives. Default: [`Durability::Power`].
    pub durability: Durability,
    /// How much of prompts and answers is kept.
    pub content: Content,
    /// After how long without a span a run whose root never came is taken for over. Default: ten minutes.
    pub silence: Duration,
    /// How long the end may take.
    pub drain: Duration,
    /// OTLP endpoints that get all spans as well, besides the one of the standard variables.
    pub forward: Vec<Target>,
    /// Nothing is forwarded, whatever the environment says.
    pub is_offline: bool,
    /// Which runs are forwarded, decided when they are over.
    pub forward_keep: Keep,
    /// Bound of the journal on disk, in bytes: how far a target may be behind before it loses the oldest spans.
    pub journal_bytes: u64,
    /// What requests may hold.
    pub bounds: Bounds,
}

/// What requests may hold and take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one request, on the wire and after decompression.
    pub request_bytes: usize,
    /// Bytes of all requests in memory together; beyond, senders are told to come again.
    pub memory_bytes: usize,
    /// Connections at a time, over both ports for OTLP; beyond, clients are told to come again.
    pub connections: usize,
    /// How long a client may take over the head of a request, and over nothing between two.
    pub head_limit: Duration,
    /// How long a request's whole body may take.
    pub body_limit: Duration,
    /// What is counted before anything is decoded.
    pub limits: Limits,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            request_bytes: 64 << 20,
            memory_bytes: 128 << 20,
            connections: 1_000,
            head_limit: Duration::from_secs(10),
            body_limit: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            store: None,
            otlp_grpc: local(4317),
            otlp_http: local(4318),
            http: local(4319),
            insecure_bind: false,
            hosts: Vec::new(),
            durability: Durability::Power,
            content: Content::Redacted,
            silence: SILENCE,
            drain: Duration::from_secs(10),
            forward: Vec::new(),
            is_offline: false,
            forward_keep: Keep::all(),
            journal_bytes: crate::journal::Options::default().max_bytes,
            bounds: Bounds::default(),
        }
    }
}
