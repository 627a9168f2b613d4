//! Forwarding from real processes to a real peer: outages, kills, samplers, rules.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;
use runspan::conventions::names;
use runspan::model::TraceId;
use runspan::model::otlp::{Span, TracesData};
use runspan::sinks::forwarder::{TargetStatus, Wanted, retry, targets};
use tracing::info_span;

use super::format::{check, definition};
use super::support::{Killed, WATCHDOG, child, is_child, runs, wait_until};

/// What a child does that plays several parts.
const PART: &str = "RUNSPAN_TEST_PART";

/// An OTLP/HTTP server that takes everything.
pub struct Peer {
    spans: Arc<Mutex<Vec<Span>>>,
    metrics: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Peer {
    /// Listens at `address`, where perhaps somebody was told to send already.
    pub fn at(address: SocketAddr) -> Self {
        Self::on(TcpListener::bind(address).unwrap())
    }

    fn on(listener: TcpListener) -> Self {
        let (spans, metrics) = (Arc::default(), Arc::default());
        let peer = Self { spans: Arc::clone(&spans), metrics: Arc::clone(&metrics) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (spans, metrics) = (Arc::clone(&spans), Arc::clone(&metrics));
                std::thread::spawn(move || serve(stream, &spans, &metrics));
            }
        });
        peer
    }

    pub fn started() -> (Self, SocketAddr) {
        // A port that was free a moment ago may be another test's by now.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (Self::on(listener), address)
    }

    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The bodies of requests of metrics.
    pub fn metrics(&self) -> Vec<Vec<u8>> {
        self.metrics.lock().unwrap().clone()
    }

    /// How often each name came.
    pub fn names(&self) -> BTreeMap<String, usize> {
        let mut count = BTreeMap::new();
        for span in self.spans() {
            *count.entry(span.name).or_default() += 1;
        }
        count
    }
}

/// Nobody listens there, and no test comes to do so meanwhile: the port is below those that the kernel gives to who asks for
/// any, and no other is told of it.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let lowest = given.ok().and_then(|range| range.split_whitespace().next()?.parse::<u16>().ok());
    let below = lowest.unwrap_or(32_768).saturating_sub(10_000).max(10_000);
    // Processes of tests that run beside each other begin at different ones.
    let first = below + (std::process::id() % 900) as u16 * 10;
    let any = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed)).take(100);
    any.map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a port at which nobody listens")
}

fn serve(stream: TcpStream, spans: &Mutex<Vec<Span>>, metrics: &Mutex<Vec<Vec<u8>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(request) = line.strip_prefix("post ") {
                path = request.to_owned();
            }
            if let Some(bytes) = line.strip_prefix("content-length: ") {
                length = bytes.parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        if path.starts_with("/v1/traces") {
            let traces = TracesData::decode(body.as_slice()).unwrap();
            let scopes = traces.resource_spans.into_iter().flat_map(|part| part.scope_spans);
            spans.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        } else if path.starts_with("/v1/metrics") {
            metrics.lock().unwrap().push(body);
        }
        if stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

fn only_target(store: &Path) -> TargetStatus {
    let mut found = targets(store).unwrap();
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

/// Starts `test` as a child that forwards to `address` and does `part`.
fn forwarding(test: &str, store: &Path, address: SocketAddr, part: &str) -> Command {
    let mut command = child(test, store);
    command.env("RUNSPAN_FORWARD", format!("http://{address}")).env(PART, part);
    command
}

/// Runs a child to its end and returns what it said on standard error.
fn ended_well(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    said
}

/// An agent with two tool calls; all are named by `name`.
fn agent(name: &str) {
    let agent = info_span!("invoke_agent", otel.name = name, gen_ai.operation.name = "invoke_agent");
    let _in_agent = agent.enter();
    for n in 1..=2 {
        let tool = format!("{name}.{n}");
        info_span!("execute_tool", otel.name = tool, gen_ai.operation.name = "execute_tool").in_scope(|| {});
    }
}

#[test]
fn processes_that_end_in_every_way_during_an_outage_lose_nothing() {
    const TEST: &str = "forward::processes_that_end_in_every_way_during_an_outage_lose_nothing";
    if is_child(TEST).is_some() {
        let part = std::env::var(PART).unwrap();
        let guard = runspan::init();
        agent(&part);
        match part.as_str() {
            "exits" => {
                std::mem::forget(guard);
                std::process::exit(0);
            }
            "killed" => {
                let open = info_span!("invoke_agent", otel.name = "open", gen_ai.operation.name = "invoke_agent");
                let _in_open = open.enter();
                info_span!("execute_tool", gen_ai.operation.name = "execute_tool", otel.name = "open.1")
                    .in_scope(|| println!("\nready"));
                std::thread::sleep(WATCHDOG);
            }
            _ => drop(guard.shutdown(Duration::from_secs(20))),
        }
        return;
    }
    let (dir, address) = (crate::support::tempdir(), free_address());
    for part in ["returns", "exits", "returns-too"] {
        ended_well(forwarding(TEST, dir.path(), address, part));
    }
    let mut killed = Killed(forwarding(TEST, dir.path(), address, "killed").spawn().unwrap());
    let said = BufReader::new(killed.0.stdout.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line == "ready"));
    killed.kill();

    // Whoever opens the store takes in what the dead left; then it waits for the peer.
    assert_eq!(runs(dir.path()).len(), 5);
    let status = only_target(dir.path());
    assert_eq!((status.waiting.spans, status.waiting.processes, status.counts.settled()), (14, 4, 0), "{status:#?}");

    let peer = Peer::at(address);
    ended_well(forwarding(TEST, dir.path(), address, "last"));
    let names = ["returns", "exits", "returns-too", "killed", "last"];
    let mut expected: BTreeSet<String> =
        names.iter().flat_map(|name| [(*name).to_owned(), format!("{name}.1"), format!("{name}.2")]).collect();
    expected.extend(["open".to_owned(), "open.1".to_owned()]);
    let arrived = peer.names();
    assert_eq!(arrived.keys().cloned().collect::<BTreeSet<_>>(), expected);
    assert!(arrived.values().all(|times| *times == 1), "nothing was lost on the way, so once is enough: {arrived:?}");
    let status = only_target(dir.path());
    assert_eq!((status.counts.sent, status.counts.settled(), status.waiting.spans), (17, 17, 0), "{status:#?}");
    assert!(std::fs::read_dir(dir.path().join("journal")).unwrap().next().is_none(), "no journal is left");
}

#[test]
fn what_forward_prints_is_what_the_schema_says() {
    let (dir, refused) = (crate::support::tempdir(), TcpListener::bind("127.0.0.1:0").unwrap());
    let urls = [format!("http://{}", refused.local_addr().unwrap()), format!("grpc://{}", free_address())];
    std::thread::spawn(move || {
        for stream in refused.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).is_ok_and(|bytes| bytes > 0) {}
            let _ = stream.get_mut().write_all(b"HTTP/1.1 404 Where\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let builder = urls.iter().fold(runspan::builder().store(dir.path()), |builder, url| builder.forward(url));
    let (layer, guard) = builder.build().unwrap();
    use tracing_subscriber::layer::SubscriberExt;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || agent("a"));
    guard.shutdown(Duration::from_secs(20));
    let found = targets(dir.path()).unwrap();
    let of = |protocol: &str| found.iter().find(|target| target.protocol == protocol).unwrap();
    let told = (of("grpc").waiting.spans, of("http/protobuf").dead_letters.spans);
    assert_eq!(told, (3, 3), "{found:#?}");
    check(&definition("cli.schema.json", "forward_list"), "list", [serde_json::to_value(&found).unwrap()]);
    let mut answers = Vec::new();
    retry(dir.path(), &Wanted::default(), |resent| answers.push(resent.clone())).unwrap();
    assert!(!answers.is_empty());
    check(&definition("cli.schema.json", "forward_retry"), "retry", [serde_json::to_value(&answers).unwrap()]);
}

/// What the OpenTelemetry SDKs for Rust and Go choose.
fn is_sampled(trace: TraceId, ratio: f64) -> bool {
    let low = u64::from_be_bytes(trace.0[8..].try_into().unwrap());
    (low >> 1) < (ratio * (1u64 << 63) as f64) as u64
}

#[test]
fn the_standard_sampler_acts_on_what_is_forwarded_and_the_store_has_all() {
    const TEST: &str = "forward::the_standard_sampler_acts_on_what_is_forwarded_and_the_store_has_all";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        (0..40).for_each(|_| agent("a"));
        drop(guard.shutdown(Duration::from_secs(20)));
        return;
    }
    let sampled = |sampler: &[(&str, &str)]| {
        let ((peer, address), dir) = (Peer::started(), crate::support::tempdir());
        let mut command = forwarding(TEST, dir.path(), address, "");
        command.envs(sampler.iter().copied());
        let said = ended_well(command);
        let stored: BTreeSet<TraceId> = runs(dir.path()).iter().map(|run| run.trace_id).collect();
        let sent: Vec<TraceId> = peer.spans().iter().filter_map(|span| TraceId::from_bytes(&span.trace_id)).collect();
        let status = only_target(dir.path());
        assert_eq!(status.counts.settled(), 120, "{status:#?}");
        assert_eq!(status.counts.not_kept.get("sampler").copied().unwrap_or(0), 120 - sent.len() as u64);
        (stored, sent, said)
    };
    let ratio = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
    let (stored, sent, _) = sampled(&ratio);
    assert_eq!(stored.len(), 40);
    let chosen: BTreeSet<TraceId> = stored.iter().copied().filter(|trace| is_sampled(*trace, 0.5)).collect();
    assert_eq!((sent.iter().copied().collect(), sent.len()), (chosen.clone(), 3 * chosen.len()), "whole traces");

    assert_eq!(sampled(&[("OTEL_TRACES_SAMPLER", "always_off")]).1.len(), 0);
    let (_, sent, said) = sampled(&[("OTEL_TRACES_SAMPLER", "sometimes")]);
    assert_eq!((sent.len(), said.matches("OTEL_TRACES_SAMPLER").count()), (120, 1), "{said}");

    // One trace for all of them, whose caller decided.
    let of_caller = |flags: &str, sampler: &str| {
        let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        let (stored, sent, _) = sampled(&[("TRACEPARENT", &parent), ("OTEL_TRACES_SAMPLER", sampler)]);
        assert_eq!(stored.len(), 1);
        sent.len()
    };
    assert_eq!(of_caller("00", ""), 0);
    assert_eq!(of_caller("00", "always_on"), 120);
    assert_eq!(of_caller("01", "parentbased_always_off"), 120);
    assert_eq!(of_caller("01", "always_off"), 0);
}

#[test]
fn every_span_that_is_sent_says_which_run_it_is_of() {
    const TEST: &str = "forward::every_span_that_is_sent_says_which_run_it_is_of";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        agent("a");
        let run = runspan::Run::agent("b").start();
        run.tool("b.tool").finish();
        run.span().in_scope(|| agent("b.agent"));
        run.finish();
        drop(guard.shutdown(Duration::from_secs(20)));
        return;
    }
    for caller in [None, Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")] {
        let ((peer, address), dir) = (Peer::started(), crate::support::tempdir());
        let mut command = forwarding(TEST, dir.path(), address, "");
        command.envs(caller.map(|parent| ("TRACEPARENT", parent)));
        ended_well(command);
        let run_of = |span: &Span| span.attr_str(names::RUN_ID).unwrap_or("nobody's").to_owned();
        let mut sent: Vec<_> = peer.spans().iter().map(|span| (run_of(span), span.name.clone())).collect();
        sent.sort();
        let run_named = |name: &str| {
            let runs = runs(dir.path());
            runs.iter().find(|run| run.name() == name).map(|run| run.run_id.to_string()).expect(name)
        };
        let [a, b] = ["a", "b"].map(run_named);
        let mut wanted: Vec<_> = ["a", "a.1", "a.2"].map(|name| (a.clone(), name.to_owned())).to_vec();
        let of_b = ["invoke_agent b", "execute_tool b.tool", "b.agent", "b.agent.1", "b.agent.2"];
        wanted.extend(of_b.map(|name| (b.clone(), name.to_owned())));
        wanted.sort();
        assert_eq!(sent, wanted, "{caller:?}");
    }
}

#[test]
fn a_killed_process_leaves_what_its_rules_chose_to_the_next() {
    const TEST: &str = "forward::a_killed_process_leaves_what_its_rules_chose_to_the_next";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        let fail = |name: &str| runspan::Run::agent(name).start().fail(&std::io::Error::other("on purpose"));
        if std::env::var(PART).unwrap() == "next" {
            drop(guard.shutdown(Duration::from_secs(20)));
            return;
        }
        let open = runspan::Run::agent("open").start();
        open.tool("in-open").finish();
        fail("failed");
        runspan::Run::agent("fine").start().finish();
        assert!(guard.flush(WATCHDOG));
        println!("\nready");
        std::thread::sleep(WATCHDOG);
        drop(open);
    }
    let ((peer, address), dir) = (Peer::started(), crate::support::tempdir());
    let with_rules = |part: &str| {
        let mut command = forwarding(TEST, dir.path(), address, part);
        command.env("RUNSPAN_FORWARD_KEEP", "errors");
        command
    };
    let mut killed = Killed(with_rules("killed").spawn().unwrap());
    let said = BufReader::new(killed.0.stdout.take().unwrap()).lines();
    assert!(said.map_while(Result::ok).any(|line| line == "ready"));
    // Only what is noted beside the position is not sent again.
    wait_until("the runs that are over are settled", || {
        let status = only_target(dir.path());
        status.counts.settled() == 2 && status.waiting.spans == 1
    });
    killed.kill();
    let said = ended_well(with_rules("next"));
    let once = |name: &str| (name.to_owned(), 1);
    let expected = ["execute_tool in-open", "invoke_agent failed", "invoke_agent open"].map(once);
    let status = only_target(dir.path());
    assert_eq!(peer.names(), BTreeMap::from(expected), "the one that was sent before too: {said}{status:#?}");
    assert_eq!((status.counts.not_kept, status.waiting.spans), (BTreeMap::from([("keep".to_owned(), 1)]), 0));
}
