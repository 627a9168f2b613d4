//! Whom the server forwards to: the targets of its settings and of the standard variables, but never itself.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;

use super::settings::Settings;
use crate::error::Error;
use crate::pipeline::worker::{Behind, Observer, STORE_READER};
use crate::sinks::forward::{Signal, Target};
use crate::sinks::forwarder::{Choosing, Common, Forwarders, each_once};
use crate::sinks::keep::{Board, Keep};
use crate::telemetry::warn;

/// What the threads behind the intake must know of those who read the journal beside the run store.
pub(super) struct Outlets {
    /// All readers of the journal, the run store among them.
    pub readers: Vec<String>,
    /// Those of them that lose their oldest frames when the journal is at its bound.
    pub behind: Vec<Arc<dyn Behind>>,
    /// Where those who choose what is forwarded learn of runs.
    pub board: Arc<Board>,
    /// Told of each run that is over and of each outcome.
    pub observers: Vec<Box<dyn Observer>>,
    /// Bound of the journal on disk.
    pub journal_bytes: u64,
}

impl std::fmt::Debug for Outlets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlets").field("readers", &self.readers).finish_non_exhaustive()
    }
}

impl Outlets {
    /// Nobody but the run store reads the journal.
    pub fn none(journal_bytes: u64) -> Self {
        Self {
            readers: vec![STORE_READER.to_owned()],
            behind: Vec::new(),
            board: Arc::new(Board::new(Keep::all())),
            observers: Vec::new(),
            journal_bytes,
        }
    }

    /// Starts forwarding the journal of `process` to each target.
    pub fn start(
        targets: Vec<Target>,
        settings: &Settings,
        store: &std::path::Path,
        process: &str,
    ) -> Result<(Self, Forwarders), Error> {
        let mut outlets = Self::none(settings.journal_bytes);
        if targets.is_empty() {
            return Ok((outlets, Forwarders::default()));
        }
        outlets.board = Arc::new(Board::new(settings.forward_keep.clone()));
        let metrics: Vec<Target> = targets.iter().map(|target| target.for_signal(Signal::Metrics)).collect();
        let forwarders = Forwarders::start(
            // Those of metrics go by a place of their own: a peer that wants none of them has the spans all the same.
            targets.into_iter().chain(metrics).collect(),
            &Common {
                store: store.to_owned(),
                process: process.to_owned(),
                choice: Choosing::from_env(settings.forward_keep.clone(), Arc::clone(&outlets.board)),
                journal_bytes: settings.journal_bytes,
            },
        )?;
        outlets.readers.extend(forwarders.readers.iter().cloned());
        outlets.behind = forwarders.behind();
        Ok((outlets, forwarders))
    }
}

/// Returns the targets of the settings and of the standard variables, each once.
///
/// # Errors
///
/// [`Error::Setting`] for a target that is one of `own`, the addresses that this server listens on. A standard variable
/// that names one is only warned of: it is there for the programs that send here.
pub(super) fn targets(given: &[Target], own: &[SocketAddr]) -> Result<Vec<Target>, Error> {
    for target in given {
        if let Some(address) = own_address(target, own) {
            let shown = target.shown();
            let why =
                format!("{shown} is this server itself, which listens on {address}: spans would go round in circles");
            return Err(Error::Setting { name: "forward", why });
        }
    }
    let (mut from_env, warnings) = Target::from_env(Signal::Traces);
    warnings.iter().for_each(|warning| warn(format_args!("{warning}")));
    if let Some(target) = &mut from_env {
        // The standard's default would send them where nobody has asked for any.
        let exporters = std::env::var("OTEL_METRICS_EXPORTER").unwrap_or_default();
        target.own_metrics = exporters.split(',').any(|exporter| exporter.trim() == "otlp");
    }
    let mut targets = given.to_vec();
    match from_env {
        Some(target) if own_address(&target, own).is_some() => warn(format_args!(
            "OTEL_EXPORTER_OTLP_ENDPOINT names this server itself, {}; nothing is forwarded there",
            target.shown()
        )),
        from_env => targets.extend(from_env),
    }
    let (targets, twice) = each_once(targets);
    twice.iter().for_each(|words| warn(format_args!("{words}")));
    Ok(targets)
}

/// Returns the address among `own` that sending to a target would reach.
fn own_address(target: &Target, own: &[SocketAddr]) -> Option<SocketAddr> {
    let uri = target.endpoint.parse::<http::Uri>().ok()?;
    let port = uri.port_u16().unwrap_or(if target.is_tls() { 443 } else { 80 });
    let candidates: Vec<SocketAddr> = own.iter().copied().filter(|own| own.port() == port).collect();
    if candidates.is_empty() {
        return None;
    }
    let host = uri.host()?.trim_matches(['[', ']']);
    // A name that cannot be looked up now is somebody else's, or nobody's.
    let reached: Vec<IpAddr> =
        (host, port).to_socket_addrs().ok()?.map(|address| address.ip().to_canonical()).collect();
    candidates.into_iter().find(|own| reached.iter().any(|ip| is_reached_by(own.ip(), *ip)))
}

/// Tells whether who connects to `ip` reaches what listens on `own`.
fn is_reached_by(own: IpAddr, ip: IpAddr) -> bool {
    if !own.is_unspecified() {
        return own.to_canonical() == ip || (own.is_loopback() && ip.is_unspecified());
    }
    // An address is of this machine if something can be bound to it.
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_the_server_itself_is_found_under_any_of_its_names() {
        let own: Vec<SocketAddr> = vec!["127.0.0.1:4317".parse().unwrap(), "127.0.0.1:4318".parse().unwrap()];
        let reached = |url: &str, own: &[SocketAddr]| {
            own_address(&Target::from_url(url).unwrap(), own).map(|address| address.to_string())
        };
        assert_eq!(reached("http://localhost:4317", &own).as_deref(), Some("127.0.0.1:4317"));
        assert_eq!(reached("http://127.0.0.1:4318/v1/traces", &own).as_deref(), Some("127.0.0.1:4318"));
        assert_eq!(reached("http://[::ffff:127.0.0.1]:4318", &own).as_deref(), Some("127.0.0.1:4318"));
        assert_eq!(reached("grpc://0.0.0.0:4317", &own).as_deref(), Some("127.0.0.1:4317"));
        assert_eq!(reached("http://127.0.0.1:4319", &own), None);
        assert_eq!(reached("http://127.0.0.2:4318", &own), None, "another address, where nobody of us listens");
        let everywhere: Vec<SocketAddr> = vec!["0.0.0.0:4318".parse().unwrap()];
        assert!(reached("http://127.0.0.2:4318", &everywhere).is_some());
        assert_eq!(reached("http://192.0.2.1:4318", &everywhere), None, "no address of this machine");
    }
}
