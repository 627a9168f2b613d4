//! A receiver that is there for one command: a private port for OTLP, and a run that ends with it.
//!
//! The same intake as the bridge's, with three differences: what names no run is of the command's; the process that has
//! the receiver tells spans of its own, [`Receiver::teller`]; and nobody goes on with the journal, so that the run of a
//! process that was killed has crashed, as that of an agent has.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::traces::Line;
use super::{Inside, Purpose, Server, Settings, Shared, grpc, http, open};
use crate::error::Error;
use crate::journal::JournalError;
use crate::model::RunId;
use crate::model::record::Record;
use crate::pipeline::worker::STORE_READER;
use crate::store::files::layout::Layout;

/// What of a run that has ended waits in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Nothing: all of it is in the store, and at the targets.
    Nothing,
    /// All of it is in the store; targets have not had all.
    ToBeForwarded,
    /// Not all of it is in the store.
    ToBeStored,
}

/// How long one record may take to the journal: a disk that hangs must not hold the command's end up.
const TELL_LIMIT: Duration = Duration::from_secs(5);

/// A receiver at work. Dropped without [`finish`](Self::finish), it leaves its run to whoever opens the store next.
pub struct Receiver {
    runtime: Runtime,
    address: SocketAddr,
    shared: Arc<Shared>,
    ports: JoinSet<()>,
    end: watch::Sender<bool>,
    inside: Inside,
    store_id: String,
    has_targets: bool,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Tells spans of this process.
#[derive(Clone)]
pub struct Teller(Arc<Line>);

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teller")
    }
}

impl Teller {
    /// Takes one record down the pipeline and into the journal: it is durable when this returns. A disk that does not
    /// answer is waited for no longer than five seconds.
    ///
    /// # Errors
    ///
    /// Why it could not be taken.
    pub async fn tell(&self, record: Record) -> Result<(), &'static str> {
        match tokio::time::timeout(TELL_LIMIT, self.0.tell(record)).await {
            Ok(told) => told,
            Err(_) => Err("the journal takes too long to write"),
        }
    }
}

impl Receiver {
    /// Opens a port on 127.0.0.1 and the store, and takes OTLP over gRPC and over HTTP on it. What names no run is of
    /// `run`. Ports in the settings are not looked at.
    ///
    /// # Errors
    ///
    /// As [`Server::open`].
    pub fn start(settings: Settings, run: RunId) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(4)
            .thread_name("receive")
            .enable_all()
            .build()
            .map_err(Error::Resources)?;
        let server = Server::open_on(&[("otlp", (Ipv4Addr::LOCALHOST, 0).into())], settings, Purpose::Command)?;
        let address = server.listening().first().map(|port| port.address);
        let address = address.ok_or_else(|| Error::Resources(std::io::ErrorKind::AddrNotAvailable.into()))?;
        let (shared, listeners, inside) = server.share(|line| line.with_run(run))?;
        let (end, ending) = watch::channel(false);
        let ports = {
            let _in_runtime = runtime.enter();
            open(&shared, listeners, &ending)?
        };
        let (store_id, has_targets) = (inside.layout.read()?.store_id, shared.line.has_targets());
        Ok(Self { runtime, address, shared, ports, end, inside, store_id, has_targets })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the store's paths.
    pub fn layout(&self) -> &Layout {
        &self.inside.layout
    }

    /// Returns the id of the store.
    pub fn store_id(&self) -> &str {
        &self.store_id
    }

    /// Tells whether spans and metrics go on to others.
    pub fn has_targets(&self) -> bool {
        self.has_targets
    }

    /// Returns where the tasks of this receiver run.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// Returns what tells spans of this process. It must be gone before [`finish`](Self::finish) is called.
    pub fn teller(&self) -> Teller {
        Teller(Arc::clone(&self.shared.line))
    }

    /// Returns how many spans and records of logs have come, broken ones too.
    pub fn received(&self) -> u64 {
        self.shared.line.intake.tally.received.load(Ordering::Relaxed)
    }

    /// Returns how many clients are connected.
    pub fn connections(&self) -> usize {
        self.shared.max_connections.saturating_sub(self.shared.permits.available_permits())
    }

    /// Closes the port, and ends the run with what it has, within `limit`: all that was acknowledged is in the journal
    /// anyway. Returns what of it waits there.
    pub fn finish(self, limit: Duration) -> Waits {
        let Self { runtime, shared, mut ports, end, inside, .. } = self;
        let deadline = Instant::now() + limit;
        shared.ending.store(true, Ordering::Relaxed);
        // Nobody looks any more only if the port is closed already.
        let _ = end.send(true);
        runtime.block_on(async {
            tokio::select! {
                () = async { while ports.join_next().await.is_some() {} } => {}
                () = tokio::time::sleep_until(deadline.into()) => ports.abort_all(),
            }
        });
        drop((ports, shared));
        runtime.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
        let (journal, process, readers) = (inside.layout.journal(), inside.process.clone(), inside.readers.clone());
        inside.finish(deadline);
        let readers: Vec<&str> = readers.iter().map(String::as_str).collect();
        // What is not read to its end stays, and the next process that opens the store takes it in.
        match crate::journal::remove_journal(&journal, &process, &readers) {
            Ok(()) => Waits::Nothing,
            // The store is the first of them.
            Err(JournalError::NotPassed { reader, .. }) if reader != STORE_READER => Waits::ToBeForwarded,
            Err(_) => Waits::ToBeStored,
        }
    }
}

/// Answers on a port for OTLP over either: many a program has one of both exporters built in.
pub(super) async fn otlp(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let is_grpc =
        request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc { grpc::otlp(shared, request).await } else { Ok(http::otlp(shared, request).await?.map(BodyExt::boxed)) }
}
