//! Whole recorders that forward to real peers on loopback.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::model::otlp::TracesData;
use crate::sinks::forward::tests::peers::{HttpPeer, Seen, response};
use crate::{Builder, Guard, Report};

/// Longest that anything may take before a test gives up.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Records under a recorder of its own and returns the report.
fn record(builder: Builder, limit: Duration, work: impl FnOnce(&Guard)) -> Report {
    let (layer, guard) = builder.build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || work(&guard));
    guard.shutdown(limit)
}

fn builder(store: &Path, url: &str) -> Builder {
    crate::builder().store(store).forward(url)
}

/// An agent with some tool calls.
fn agent(name: &str, tools: &[&str]) {
    let agent = info_span!("invoke_agent", otel.name = name, gen_ai.operation.name = "invoke_agent");
    let _in_agent = agent.enter();
    for tool in tools {
        tool_call(tool, "");
    }
}

fn tool_call(name: &str, arguments: &str) {
    info_span!(
        "execute_tool",
        otel.name = name,
        gen_ai.operation.name = "execute_tool",
        gen_ai.tool.call.arguments = arguments
    )
    .in_scope(|| {});
}

/// Names of the spans in a request.
fn names(seen: &Seen) -> Vec<String> {
    let traces = TracesData::decode(seen.body.as_slice()).unwrap();
    let scopes = traces.resource_spans.into_iter().flat_map(|part| part.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect()
}

fn ok() -> Option<Vec<u8>> {
    Some(response("200 OK", "", b""))
}

/// A peer that answers requests for traces as told, and takes metrics.
struct Peer(HttpPeer);

impl Peer {
    fn new(answer: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self(HttpPeer::new(move |seen| if seen.path.starts_with("/v1/traces") { answer(seen) } else { ok() }))
    }

    fn url(&self) -> String {
        self.0.url()
    }

    /// Requests for traces.
    fn seen(&self) -> Vec<Seen> {
        self.0.seen().into_iter().filter(|seen| seen.path.starts_with("/v1/traces")).collect()
    }
}

/// A peer that refuses what `refuses` says and remembers the names of what it took.
fn picky(status: &'static str, refuses: impl Fn(&[String], usize) -> bool + Send + Sync + 'static) -> Peer {
    Peer::new(move |seen| match refuses(&names(seen), seen.body.len()) {
        true => Some(response(status, "content-type: text/plain\r\n", b"no")),
        false => ok(),
    })
}

/// Names of all spans in requests that `took` accepted, sorted.
fn taken(peer: &Peer, refuses: impl Fn(&[String], usize) -> bool) -> Vec<String> {
    let accepted = peer.seen().into_iter().filter(|seen| !refuses(&names(seen), seen.body.len()));
    let mut all: Vec<String> = accepted.flat_map(|seen| names(&seen)).collect();
    all.sort();
    all
}

fn only_target(store: &Path) -> TargetStatus {
    let mut targets = targets(store).unwrap();
    assert_eq!(targets.len(), 1, "{targets:#?}");
    targets.remove(0)
}

fn numbered(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("t{n:04}")).collect()
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[test]
fn one_bad_span_is_found_and_put_aside_and_nothing_else_is_held_up() {
    let dir = tempfile::tempdir().unwrap();
    let is_bad = |names: &[String], _| names.iter().any(|name| name == "bad");
    let peer = picky("400 Bad", is_bad);
    let tools = numbered(300);
    let report = record(builder(dir.path(), &peer.url()), WATCHDOG, |guard| {
        agent("first", &[&strs(&tools)[..150], &["bad"], &strs(&tools)[150..]].concat());
        assert!(guard.flush(WATCHDOG));
        agent("second", &["after"]);
    });
    assert_eq!((report.stored, report.exported, report.pending), (304, 303, 0), "{report:?}");
    assert_eq!(report.dropped, BTreeMap::from([("refused_by_peer", 1)]));
    let mut expected = [tools, vec!["after".into(), "first".into(), "second".into()]].concat();
    expected.sort();
    assert_eq!(taken(&peer, is_bad), expected);
    let status = only_target(dir.path());
    assert_eq!((status.target, status.protocol.as_str()), (format!("{}/v1/traces", peer.url()), "http/protobuf"));
    assert_eq!(status.dead_letters.reasons, [ReasonCount { reason: "HTTP 400: no".into(), letters: 1, spans: 1 }]);
    assert_eq!((status.counts.sent, status.counts.settled(), status.waiting), (303, 304, Waiting::default()));
}

#[test]
fn a_peer_that_refuses_everything_is_not_asked_span_by_span() {
    let dir = tempfile::tempdir().unwrap();
    let peer = picky("500 Broken", |_, _| true);
    let tools = numbered(400);
    let report = record(builder(dir.path(), &peer.url()), WATCHDOG, |guard| {
        for _ in 0..3 {
            agent("all", &strs(&tools));
            assert!(guard.flush(WATCHDOG));
            std::thread::sleep(2 * POLL);
        }
    });
    assert_eq!((report.exported, report.pending), (0, 0), "{report:?}");
    assert_eq!(report.dropped, BTreeMap::from([("refused_by_peer", 1203)]));
    // One search, then whole batches.
    assert!(peer.seen().len() < 80, "{}", peer.seen().len());
    let letters = only_target(dir.path()).dead_letters;
    assert_eq!((letters.spans, letters.damaged), (1203, 0));
}

#[test]
fn what_is_too_large_is_halved_down_to_one_span() {
    let dir = tempfile::tempdir().unwrap();
    let is_large = |_: &[String], bytes: usize| bytes > 20_000;
    let peer = picky("413 Large", is_large);
    let report = record(builder(dir.path(), &peer.url()), WATCHDOG, |_| {
        agent("large", &[]);
        let _agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent").entered();
        for name in numbered(100) {
            tool_call(&name, &"x".repeat(1_000));
        }
        tool_call("huge", &"x".repeat(30_000));
    });
    assert_eq!((report.stored, report.exported, report.pending), (103, 102, 0), "{report:?}");
    assert_eq!(taken(&peer, is_large).len(), 102);
    let letters = only_target(dir.path()).dead_letters;
    assert_eq!((letters.letters, letters.spans, letters.reasons[0].reason.as_str()), (1, 1, "HTTP 413: no"));
}

#[test]
fn a_peer_that_breaks_large_requests_off_gets_smaller_ones() {
    let dir = tempfile::tempdir().unwrap();
    let is_large = |names: &[String], _| names.len() > 30;
    let peer = Peer::new(move |seen| if is_large(&names(seen), 0) { None } else { ok() });
    let tools = numbered(400);
    let report = record(builder(dir.path(), &peer.url()), WATCHDOG, |guard| {
        agent("all", &strs(&tools));
        assert!(guard.flush(WATCHDOG));
    });
    assert_eq!((report.stored, report.exported, report.pending, report.dropped.len()), (401, 401, 0, 0), "{report:?}");
    assert_eq!(taken(&peer, is_large), [vec!["all".to_owned()], tools].concat());
    let broken_off = peer.seen().iter().filter(|seen| is_large(&names(seen), 0)).count();
    assert!(broken_off < 12, "{broken_off} of {} requests", peer.seen().len());
    let status = only_target(dir.path());
    assert_eq!((status.counts.sent, status.dead_letters.letters, status.last_trouble), (401, 0, None));
}

#[test]
fn a_peer_that_is_slow_with_each_span_gets_as_many_as_it_can_take_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::new(|seen| {
        std::thread::sleep(Duration::from_millis(6) * names(seen).len() as u32);
        ok()
    });
    let tools = numbered(300);
    // All of them take much longer.
    let url = format!("{}#timeout=400", peer.url());
    let report = record(builder(dir.path(), &url), WATCHDOG, |guard| {
        agent("all", &strs(&tools));
        assert!(guard.flush(WATCHDOG));
    });
    assert_eq!((report.stored, report.exported, report.pending), (301, 301, 0), "{report:?}");
    let arrived: BTreeSet<String> = peer.seen().iter().flat_map(names).collect();
    assert_eq!(arrived.len(), 301);
}

#[test]
fn rejected_spans_of_a_partial_success_are_counted_and_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    // ExportTraceServiceResponse{partial_success{rejected_spans: 2, error_message: "ids"}}
    let peer = Peer::new(|_| Some(response("200 OK", "", b"\x0a\x07\x08\x02\x12\x03ids")));
    let report = record(builder(dir.path(), &peer.url()), WATCHDOG, |_| agent("some", &["a", "b"]));
    let requests = peer.seen().len() as u64;
    assert_eq!(report.dropped.get("rejected_by_peer").copied().unwrap_or(0) + report.exported, 3, "{report:?}");
    assert!(report.dropped["rejected_by_peer"] >= 2 && requests <= 3, "{report:?} in {requests} requests");
    let sent: Vec<String> = peer.seen().iter().flat_map(names).collect();
    assert_eq!(sent.len(), 3, "each once: {sent:?}");
}

#[test]
fn wrong_credentials_put_nothing_aside() {
    let dir = tempfile::tempdir().unwrap();
    let peer = picky("401 Who", |_, _| true);
    let report = record(builder(dir.path(), &peer.url()), WATCHDOG, |guard| {
        agent("waits", &["a"]);
        assert!(guard.flush(WATCHDOG));
    });
    assert_eq!((report.stored, report.exported, report.pending, report.dropped.len()), (2, 0, 2, 0), "{report:?}");
    let status = only_target(dir.path());
    assert_eq!((status.dead_letters.letters, status.waiting.spans), (0, 2));
    assert_eq!(status.last_trouble.unwrap().reason, "HTTP 401: no");
    let good = picky("400 Bad", |_, _| false);
    assert_eq!(record(builder(dir.path(), &good.url()), WATCHDOG, |_| {}).pending, 0);
    assert_eq!(good.seen().len(), 0, "what was for one target goes to no other");
}

#[test]
fn peers_that_accept_and_never_answer_delay_no_exit_and_the_report_is_true() {
    let dir = tempfile::tempdir().unwrap();
    let silent: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let good = picky("400 Bad", |_, _| false);
    let mut builder = builder(dir.path(), &good.url());
    for (place, silent) in silent.iter().enumerate() {
        let scheme = if place == 0 { "grpc" } else { "http" };
        builder = builder.forward(format!("{scheme}://{}", silent.local_addr().unwrap()));
    }
    let begun = Instant::now();
    let report = record(builder, Duration::from_millis(500), |guard| {
        agent("hurried", &["a", "b"]);
        assert!(guard.flush(WATCHDOG));
        // Let the requests begin, so that the deadline comes in the middle of them.
        std::thread::sleep(2 * POLL);
    });
    // Each request alone may take ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!((report.stored, report.exported, report.pending, report.dropped.len()), (3, 3, 9, 0), "{report:?}");
}

#[test]
fn a_peer_that_asked_for_patience_gets_it_at_the_exit_too() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::new(|_| Some(response("503 Busy", "retry-after: 100\r\n", b"")));
    let report = record(builder(dir.path(), &peer.url()), WATCHDOG, |guard| {
        agent("waits", &[]);
        assert!(guard.flush(WATCHDOG));
        std::thread::sleep(2 * POLL);
    });
    assert_eq!((report.exported, report.pending, peer.seen().len()), (0, 1, 1), "{report:?}");
}

/// A peer that answers with this status until it is told to take all.
fn until_told(status: &'static str) -> (Peer, Arc<AtomicBool>) {
    let takes = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&takes);
    let peer = Peer::new(move |_| match now.load(Ordering::Relaxed) {
        true => ok(),
        false => Some(response(status, "", b"")),
    });
    (peer, takes)
}

#[test]
fn an_outage_over_several_processes_loses_nothing_and_the_counts_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let (peer, is_up) = until_told("503 Busy");
    for n in 0..4u64 {
        let report = record(builder(dir.path(), &peer.url()), WATCHDOG, |_| agent(&format!("p{n}"), &["a", "b"]));
        assert_eq!((report.stored, report.exported, report.pending), (3, 0, 3), "{report:?}");
        let status = only_target(dir.path());
        assert_eq!((status.waiting.processes, status.waiting.spans), (n + 1, 3 * (n + 1)));
        assert!(status.waiting.oldest.is_some() && status.waiting.bytes > 0 && status.counts.settled() == 0);
    }
    let down = peer.seen().len();
    is_up.store(true, Ordering::Relaxed);
    let report = record(builder(dir.path(), &peer.url()), WATCHDOG, |_| agent("last", &[]));
    assert_eq!((report.stored, report.exported, report.pending), (1, 1, 0), "{report:?}");
    let mut arrived: Vec<String> = peer.seen()[down..].iter().flat_map(names).collect();
    arrived.sort();
    assert_eq!(arrived, ["a", "a", "a", "a", "b", "b", "b", "b", "last", "p0", "p1", "p2", "p3"]);
    let status = only_target(dir.path());
    assert_eq!((status.counts.sent, status.counts.settled(), status.waiting), (13, 13, Waiting::default()));
    assert_eq!(status.last_trouble, None);
    let left = std::fs::read_dir(dir.path().join("journal")).unwrap().count();
    assert_eq!(left, 0, "journals that everybody has read are gone");
}

#[test]
fn a_journal_that_is_gone_or_cannot_be_read_holds_up_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    for name in ["one", "two"] {
        let report = record(builder(dir.path(), &url), WATCHDOG, |_| agent(name, &[]));
        assert_eq!((report.exported, report.pending), (0, 1), "{report:?}");
    }
    // The first is of a later format: its version is raised and its header's checksum made to fit.
    let mut journals: Vec<_> =
        std::fs::read_dir(dir.path().join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    journals.sort();
    let segment = journals[0].join("00000000000000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..76]);
    bytes[76..80].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&segment, bytes).unwrap();

    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let peer = HttpPeer::at(address, move |request| {
        if request.path.starts_with("/v1/traces") {
            log.lock().unwrap().extend(names(request));
        }
        ok()
    });
    record(builder(dir.path(), &peer.url()), WATCHDOG, |_| {
        // Its own goes before it has looked at the others.
        let own = std::fs::read_dir(dir.path().join("journal")).unwrap().map(|e| e.unwrap().path()).max().unwrap();
        assert!(!journals.contains(&own));
        // Its readers may be writing their places meanwhile.
        while std::fs::remove_dir_all(&own).is_err() && own.exists() {
            std::thread::yield_now();
        }
    });
    assert_eq!(*seen.lock().unwrap(), ["two"]);
}

#[test]
fn at_the_bound_the_oldest_spans_go_and_are_counted_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let recorder = || builder(dir.path(), &url).journal_bytes(2 << 20);
    let report = record(recorder(), Duration::from_secs(1), |guard| {
        for n in 0..40 {
            let _agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", n).entered();
            for _ in 0..50 {
                tool_call("t", &"x".repeat(1_500));
            }
            guard.flush(WATCHDOG);
        }
    });
    let lost = report.dropped["upstream_behind"];
    assert_eq!((report.stored, report.exported, report.pending + lost), (2040, 0, 2040), "{report:?}");
    let status = only_target(dir.path());
    assert_eq!(status.counts.dropped, BTreeMap::from([("upstream_behind".to_owned(), lost)]));
    assert_eq!(status.waiting.spans, report.pending);

    // Many processes together keep no more than one may.
    for _ in 0..4 {
        let report = record(recorder(), Duration::from_secs(1), |guard| {
            let _agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent").entered();
            for _ in 0..300 {
                tool_call("t", &"x".repeat(1_500));
            }
            guard.flush(WATCHDOG);
        });
        assert!(report.pending + report.dropped.values().sum::<u64>() >= 300, "{report:?}");
    }
    let status = only_target(dir.path());
    assert_eq!(status.counts.settled() + status.waiting.spans, 2040 + 4 * 301, "{status:#?}");
    assert!(status.waiting.bytes < 3 << 20, "{status:#?}");
}

#[test]
fn dead_letters_are_sent_again_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let mood = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let now = Arc::clone(&mood);
    let peer = Peer::new(move |_| match now.load(Ordering::Relaxed) {
        0 => Some(response("404 Where", "", b"")),
        1 => Some(response("503 Busy", "", b"")),
        _ => ok(),
    });
    for n in 0..2 {
        record(builder(dir.path(), &peer.url()), WATCHDOG, |_| agent(&format!("r{n}"), &["a"]));
    }
    let again = |wanted: Wanted<'_>| {
        let mut told = Vec::new();
        retry(dir.path(), &wanted, |resent| told.push((resent.spans, resent.result, resent.message.clone())))
            .map(|()| told)
    };
    let all = |result, message: &str| vec![(2, result, message.to_owned()); 2];
    assert_eq!(again(Wanted::default()).unwrap(), all(Resending::Refused, "HTTP 404"));
    mood.store(1, Ordering::Relaxed);
    assert_eq!(again(Wanted::default()).unwrap(), all(Resending::Failed, "HTTP 503")[..1]);
    let elsewhere = Wanted { target: Some("http://127.0.0.1:9"), ..Wanted::default() };
    assert_eq!(again(elsewhere).unwrap(), []);
    assert!(matches!(again(Wanted { target: Some("nowhere"), ..Wanted::default() }), Err(RetryError::NotATarget(_))));
    assert!(matches!(again(Wanted { letter: Some("0"), ..Wanted::default() }), Err(RetryError::Ambiguous(_))));
    mood.store(2, Ordering::Relaxed);
    let status = only_target(dir.path());
    let id = status.dead_letters.list[0].id.to_string();
    let one = Wanted { target: Some(&peer.url()), letter: Some(&id), ..Wanted::default() };
    assert_eq!(again(one.clone()).unwrap(), all(Resending::Sent, "")[..1]);
    assert_eq!(again(one).unwrap(), []);
    assert_eq!(again(Wanted::default()).unwrap(), all(Resending::Sent, "")[..1]);
    let status = only_target(dir.path());
    assert_eq!((status.dead_letters.letters, status.counts.resent), (0, 4));
    assert_eq!(status.counts.refused, BTreeMap::from([("refused_by_peer".to_owned(), 4)]));
    let seen = peer.seen();
    assert_eq!(names(&seen[seen.len() - 2]), names(&seen[0]), "as it was sent at first");
}

#[test]
fn dead_letters_are_sent_to_the_one_who_refused_them_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (peer, takes) = until_told("404 Where");
    let url = |tenant: &str| format!("{}/v1/traces?k=1#header.x-tenant={tenant}", peer.url());
    let recorder = builder(dir.path(), &url("a")).forward(url("b")).forward(format!("{}#compression=gzip", peer.url()));
    record(recorder, WATCHDOG, |_| agent("refused", &[]));
    let mut labels = Vec::new();
    retry(dir.path(), &Wanted::default(), |resent| labels.push(resent.label.clone())).unwrap();
    let listed = targets(dir.path()).unwrap();
    let mut listed: Vec<String> = listed.iter().map(|target| target.label(&listed)).collect();
    labels.sort();
    listed.sort();
    assert_eq!(labels, listed, "each is called what it is called where all are listed");
    takes.store(true, Ordering::Relaxed);
    let again = |target: Option<&str>, configured: &[Target]| {
        let before = peer.seen().len();
        let mut told = Vec::new();
        let wanted = Wanted { target, configured, ..Wanted::default() };
        let result = retry(dir.path(), &wanted, |resent| told.push(resent.result));
        let sent =
            peer.seen()[before..].iter().map(|seen| format!("{} {}", seen.path, seen.header("x-tenant"))).collect();
        (result.map_err(|error| error.to_string()), told, sent)
    };
    let (result, mut told, sent): (_, _, Vec<String>) = again(None, &[]);
    told.sort_by_key(|result| format!("{result:?}"));
    assert_eq!((result, told), (Ok(()), vec![Resending::Failed, Resending::Failed, Resending::Sent]));
    assert_eq!(sent, ["/v1/traces "], "the one whose whole address the store has");
    let (result, _, sent) = again(Some(&format!("{}/v1/traces?k=3", peer.url())), &[]);
    assert!(result.unwrap_err().starts_with("several targets are") && sent.is_empty());
    let (result, told, sent) = again(Some(&url("b&header.authorization=new")), &[]);
    assert_eq!((result, told, sent), (Ok(()), vec![Resending::Sent], vec!["/v1/traces?k=1 b".to_owned()]));
    let configured = ["a", "b"].map(|tenant| Target::from_url(&url(tenant)).unwrap());
    let (result, told, sent) = again(None, &configured);
    assert_eq!((result, told, sent), (Ok(()), vec![Resending::Sent], vec!["/v1/traces?k=1 a".to_owned()]));
}

#[test]
fn a_dead_letter_of_the_only_tenant_is_not_sent_without_its_header() {
    let dir = tempfile::tempdir().unwrap();
    let (peer, takes) = until_told("404 Where");
    let with_header = format!("{}#header.x-tenant=a", peer.url());
    record(builder(dir.path(), &with_header), WATCHDOG, |_| agent("refused", &[]));
    takes.store(true, Ordering::Relaxed);
    let again = |target: &str| {
        let mut told = Vec::new();
        let wanted = Wanted { target: Some(target), ..Wanted::default() };
        retry(dir.path(), &wanted, |resent| told.push(resent.result)).unwrap();
        told
    };
    let before = peer.seen().len();
    assert_eq!(again(&peer.url()), [Resending::Failed]);
    assert_eq!(peer.seen().len(), before);
    assert_eq!(again(&with_header), [Resending::Sent]);
}

#[test]
fn credentials_are_nowhere_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let peer = Peer::new(|seen| {
        let said = format!("bad {} for {}", seen.header("authorization"), seen.path);
        Some(response("400 Bad", "content-type: text/plain\r\n", said.as_bytes()))
    });
    let url = format!("http://user:hunter22@127.0.0.1:{}/v1/traces?api_key=s3cret", peer.0.port);
    record(builder(dir.path(), &url), WATCHDOG, |_| agent("a", &["b"]));
    let status = only_target(dir.path());
    assert_eq!(status.dead_letters.reasons[0].reason, "HTTP 400: bad *** for /v1/traces?***");
    fn search(dir: &Path, secret: &[u8]) -> bool {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
            true => search(&path, secret),
            false => std::fs::read(&path).unwrap().windows(secret.len()).any(|part| part == secret),
        })
    }
    let encoded = crate::model::otlp::base64::encode(b"user:hunter22");
    for secret in ["hunter22", "s3cret", &encoded] {
        assert!(!search(dir.path(), secret.as_bytes()), "{secret}");
    }
}

/// What each tenant got, by the values of its headers.
fn by_header(peer: &Peer, name: &str) -> BTreeMap<String, Vec<String>> {
    let mut got = BTreeMap::<String, Vec<String>>::new();
    for seen in peer.seen() {
        got.entry(seen.header(name).to_owned()).or_default().extend(names(&seen));
    }
    got
}

#[test]
fn targets_that_differ_by_a_header_get_everything_each() {
    for header in ["x-tenant", "authorization"] {
        let dir = tempfile::tempdir().unwrap();
        let peer = picky("400 Bad", |_, _| false);
        let url = |value: &str| format!("{}#header.{header}={value}", peer.url());
        for run in ["one", "two"] {
            let recorder = builder(dir.path(), &url("tenant-a")).forward(url("tenant-b")).forward(url("tenant-b"));
            assert_eq!(record(recorder, WATCHDOG, |_| agent(run, &[])).exported, 2);
        }
        let both = ["one", "two"].map(str::to_owned).to_vec();
        let expected = ["tenant-a", "tenant-b"].map(|tenant| (tenant.to_owned(), both.clone()));
        assert_eq!(by_header(&peer, header), expected.into(), "{header}");
    }
}

#[test]
fn a_place_has_the_name_of_its_endpoint_and_tenant_and_no_secret_in_it() {
    let targets = |urls: &[&str]| each_once(urls.iter().map(|url| Target::from_url(url).unwrap()).collect());
    let names = |urls: &[&str]| reader_names(&targets(urls).0);
    let plain = "forward-d78e558faa08";
    assert_eq!(names(&["http://h"]), [plain], "as it always was");
    assert_eq!(names(&["http://h#header.authorization=one"]), [plain], "also with credentials, whatever they are");
    assert_eq!(names(&["http://h#header.X-API-Key=one&header.user-agent=mine/2"]), [plain]);
    let tenants = names(&["http://h#header.b=2&header.a=1", "http://h#header.a=2", "http://h"]);
    assert_eq!(tenants[2], plain);
    assert!(tenants[0] != plain && tenants[1] != plain && tenants[0] != tenants[1], "{tenants:?}");
    let alone = names(&["http://h#header.a=1&header.b=2"]);
    assert_eq!(alone, [plain], "one that is alone goes on where it was, whatever its headers are");
    let other_order = names(&["http://h", "http://h#header.a=2", "http://h#header.a=1&header.b=2&header.token=t"]);
    assert_eq!(other_order, [tenants[2].clone(), tenants[1].clone(), tenants[0].clone()]);
    let two = ["http://h#header.authorization=one", "http://h#header.authorization=two"];
    assert_eq!(names(&two), [plain.to_owned(), format!("{plain}-2")]);

    let (once, said) = targets(&["http://h", "http://h#timeout=1", "http://h#header.authorization=one", "http://h"]);
    assert_eq!((once.len(), once[0].headers.len(), said.len()), (1, 1, 3), "{said:?}");
    let (certified, _) = targets(&["https://h#cert=/a.pem&key=/a.key", "https://h#cert=/b.pem&key=/b.key"]);
    assert_eq!(certified.len(), 2, "who shows another certificate is another sender");
    assert_eq!(said[0], "http://h/v1/traces is named twice as a target; it gets everything once");
    assert!(
        said[1..].iter().all(|said| said.ends_with("with credentials and without; it gets everything once, with them"))
    );
}

#[test]
fn targets_that_are_shown_alike_have_labels_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let peer = picky("400 Bad", |_, _| false);
    let url = |more: &str| format!("{}/v1/traces{more}", peer.url());
    let recorder = builder(dir.path(), &url("?key=s3cret1")).forward(url("?key=s3cret2")).forward(url("/own"));
    record(recorder, WATCHDOG, |_| agent("a", &[]));
    let all = targets(dir.path()).unwrap();
    let labels: BTreeSet<String> = all.iter().map(|target| target.label(&all)).collect();
    assert_eq!(labels.len(), 3, "{labels:?}");
    assert!(labels.contains(&url("/own")) && labels.iter().all(|label| !label.contains("s3cret")), "{labels:?}");
    let first = &all[0];
    assert_eq!(first.label(&all), format!("{} ({})", url(""), first.reader.trim_start_matches("forward-")));
}

/// Runs that differ in what the rules look at.
fn runs_of_all_sorts() {
    agent("fine", &["f1"]);
    let failed = crate::Run::agent("failed").start();
    failed.tool("broken").finish();
    failed.fail(&std::io::Error::other("on purpose"));
    let dear = crate::Run::agent("dear").start();
    let call = dear.llm("openai", "gpt-4o");
    call.cost_usd(0.6);
    call.finish();
    dear.finish();
    let cheap = crate::Run::agent("cheap").start();
    let call = cheap.llm("openai", "gpt-4o");
    call.cost_usd(0.4);
    call.finish();
    cheap.finish();
    let slow = crate::Run::agent("slow").start();
    std::thread::sleep(Duration::from_millis(400));
    slow.finish();
    // No run at all.
    info_span!("plain").in_scope(|| info_span!("query").in_scope(|| {}));
}

#[test]
fn rules_choose_whole_runs_and_the_store_has_all() {
    let dir = tempfile::tempdir().unwrap();
    let peer = picky("400 Bad", |_, _| false);
    let keep: Keep = "errors,cost>0.5,slow>300ms".parse().unwrap();
    let report = record(builder(dir.path(), &peer.url()).forward_keep(keep), WATCHDOG, |_| runs_of_all_sorts());
    let arrived: BTreeSet<String> = taken(&peer, |_, _| false).into_iter().collect();
    let expected =
        ["invoke_agent failed", "execute_tool broken", "invoke_agent dear", "chat gpt-4o", "invoke_agent slow"];
    assert_eq!(arrived, expected.map(str::to_owned).into());
    assert_eq!((report.stored, report.exported, report.pending, report.dropped.len()), (9, 5, 0, 0), "{report:?}");
    let status = only_target(dir.path());
    assert_eq!(status.counts.not_kept, BTreeMap::from([("keep".to_owned(), 6)]));
    assert_eq!((status.counts.settled(), status.waiting), (11, Waiting::default()));
}

#[test]
fn spans_wait_for_their_run_while_others_go_past() {
    let dir = tempfile::tempdir().unwrap();
    let peer = picky("400 Bad", |_, _| false);
    let keep = Keep::rules().errors();
    let recorder = || builder(dir.path(), &peer.url()).forward_keep(keep.clone());
    let arrived = || taken(&peer, |_, _| false);
    let failing = |name: &str| {
        let run = crate::Run::agent(name).start();
        run.fail(&std::io::Error::other("on purpose"));
    };
    let mut never_ends = None;
    let report = record(recorder(), WATCHDOG, |guard| {
        let long = crate::Run::agent("long").start();
        long.tool("early").finish();
        failing("short");
        assert!(guard.flush(WATCHDOG));
        wait_until("the short run is there", || arrived() == ["invoke_agent short"]);
        wait_until("what went past waits no more", || only_target(dir.path()).waiting.spans == 1);
        never_ends = Some(long);
    });
    assert_eq!((report.exported, report.pending), (1, 1), "{report:?}");
    // What it says now nobody records.
    drop(never_ends);
    // The next process sees that it crashed, which is an error, and sends nothing twice.
    record(recorder(), WATCHDOG, |_| failing("next"));
    let expected = ["execute_tool early", "invoke_agent long", "invoke_agent next", "invoke_agent short"];
    assert_eq!(arrived(), expected);
    let status = only_target(dir.path());
    assert_eq!((status.counts.sent, status.waiting), (4, Waiting::default()));
}

#[test]
fn a_run_that_holds_up_too_much_is_kept_early_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let peer = picky("400 Bad", |_, _| false);
    let recorder = builder(dir.path(), &peer.url()).forward_keep(Keep::rules().errors()).journal_bytes(4 << 20);
    let report = record(recorder, WATCHDOG, |guard| {
        let long = crate::Run::agent("long").start();
        long.tool("first").finish();
        for _ in 0..400 {
            let short = crate::Run::agent("short").input("x".repeat(1_000)).start();
            short.finish();
        }
        assert!(guard.flush(WATCHDOG));
        wait_until("the first is there", || taken(&peer, |_, _| false) == ["execute_tool first"]);
        long.tool("last").finish();
        long.finish();
    });
    let expected = ["execute_tool first", "execute_tool last", "invoke_agent long"];
    assert_eq!(taken(&peer, |_, _| false), expected, "{report:?}");
    assert_eq!((report.stored, report.exported, report.pending), (403, 3, 0), "{report:?}");
}

fn wait_until(what: &str, ready: impl Fn() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < WATCHDOG, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

mod model {
    //! One forwarder's place in a journal beside a count of what must come of it.

    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::place::{Choice, Place, Shared};
    use super::super::{Counts, Ledger, sampler};
    use crate::journal::{FrameKind, JournalReader, JournalWriter, Options, remove_oldest_segments};
    use crate::model::TraceId;
    use crate::model::otlp::{ScopeSpans, Span};
    use crate::pipeline::worker::{Behind, STORE_READER};
    use crate::sinks::keep::{Board, Keep};
    use prost::Message;
    use std::sync::Arc;

    const PROCESS: &str = "01KE9BZH80BGEY5ABZ7D0DHDQ1";
    const TRACES: u8 = 4;

    #[derive(Clone, Debug)]
    enum Action {
        /// Appends a started and an ended span of a trace.
        Append(u8),
        /// Takes a load, lets others act, and settles that so many of it in 8 were delivered.
        Deliver { in_eight: usize, meanwhile: Vec<Action> },
        /// Posts that the traces whose bits are set have a run under way.
        Post(u8),
        /// Keeps a trace.
        Keep(u8),
        /// Makes room at the cost of whoever is behind.
        Remove,
        /// The process dies, and the next one goes on.
        Reopen,
    }

    fn actions() -> impl Strategy<Value = Vec<Action>> {
        let simple = || {
            prop_oneof![
                8 => (0..TRACES).prop_map(Action::Append),
                1 => any::<u8>().prop_map(Action::Post),
                1 => (0..TRACES).prop_map(Action::Keep),
                2 => Just(Action::Remove),
            ]
        };
        let deliver = (0usize..=8, prop::collection::vec(simple(), 0..12))
            .prop_map(|(in_eight, meanwhile)| Action::Deliver { in_eight, meanwhile });
        let action = prop_oneof![12 => simple(), 4 => deliver, 1 => Just(Action::Reopen)];
        prop::collection::vec(action, 1..120)
    }

    struct World {
        dir: tempfile::TempDir,
        writer: JournalWriter,
        board: Arc<Board>,
        shared: Arc<Shared>,
        /// What was settled before the last reopening.
        settled: u64,
        ended: u64,
        /// Only a living process makes room in its journal.
        is_dead: bool,
    }

    fn trace(n: u8) -> TraceId {
        TraceId([n + 1; 16])
    }

    impl World {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let options = Options { segment_bytes: 1 << 10, ..Options::default() };
            let writer = JournalWriter::create(dir.path(), PROCESS, options).unwrap();
            let shared = Self::shared(dir.path());
            let board = Arc::new(Board::new(Keep::rules()));
            Self { dir, writer, board, shared, settled: 0, ended: 0, is_dead: false }
        }

        fn shared(dir: &std::path::Path) -> Arc<Shared> {
            let ledger = Ledger::new(&dir.join("store"), "forward-1", "http://h", "grpc");
            Arc::new(Shared::new(dir, PROCESS, "forward-1", ledger))
        }

        fn place(&self) -> Place {
            let sampler = sampler::Sampler::default();
            let choice = Choice { sampler, board: Arc::clone(&self.board), hold_bytes: 1 << 12 };
            Place::open(Arc::clone(&self.shared), choice).unwrap()
        }

        fn act(&mut self, action: &Action) {
            match action {
                Action::Append(n) => {
                    let span = Span { trace_id: trace(*n).0.to_vec(), flags: 0x101, ..Span::default() };
                    let payload = ScopeSpans { spans: vec![span], ..ScopeSpans::default() }.encode_to_vec();
                    for kind in [FrameKind::Started, FrameKind::Ended] {
                        self.writer.append(kind, 0, 0, &payload).unwrap();
                    }
                    self.writer.commit().unwrap();
                    self.ended += 1;
                }
                Action::Post(bits) => {
                    let open: HashSet<TraceId> = (0..TRACES).filter(|n| bits >> n & 1 == 1).map(trace).collect();
                    self.board.post(&[], Some(open), self.writer.committed_seq());
                }
                Action::Keep(n) => self.board.keep(trace(*n)),
                Action::Remove if self.is_dead => {}
                Action::Remove => {
                    let mut store = JournalReader::open(self.dir.path(), PROCESS, STORE_READER).unwrap();
                    store.acknowledge_handed(self.writer.committed_seq(), &self.writer).unwrap();
                    let tell = |first_left| self.shared.give_up_before(first_left);
                    remove_oldest_segments(self.dir.path(), PROCESS, &[STORE_READER], 2 << 10, tell).unwrap();
                }
                Action::Deliver { .. } | Action::Reopen => {}
            }
        }
    }

    fn deliver(world: &mut World, place: &mut Place, in_eight: usize, meanwhile: &[Action]) -> bool {
        let Some(load) = place.take().unwrap() else { return false };
        let spans = load.to_send().len();
        for action in meanwhile {
            world.act(action);
        }
        let done = spans * in_eight / 8;
        place.settle(&load, done, Counts { sent: done as u64, ..Counts::default() }).unwrap();
        true
    }

    #[test]
    fn what_was_given_up_while_a_load_was_in_hand_is_not_taken_after_it() {
        let mut world = World::new();
        world.act(&Action::Append(0));
        let mut place = world.place();
        // So nothing has to wait.
        world.act(&Action::Keep(0));
        let load = place.take().unwrap().unwrap();
        (0..10).for_each(|_| world.act(&Action::Append(0)));
        // They are counted as lost, and still there: who makes room removes them after that.
        world.shared.give_up_before(world.writer.committed_seq() - 1);
        place.settle(&load, 1, Counts { sent: 1, ..Counts::default() }).unwrap();
        while deliver(&mut world, &mut place, 8, &[]) {}
        let counts = world.shared.counts();
        assert_eq!((counts.sent, counts.dropped["upstream_behind"]), (2, 9), "the first and the last were sent");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn every_span_is_settled_once_whatever_happens_meanwhile(actions in actions()) {
            let mut world = World::new();
            let mut place = world.place();
            for action in &actions {
                match action {
                    Action::Deliver { in_eight, meanwhile } => {
                        deliver(&mut world, &mut place, *in_eight, meanwhile);
                    }
                    Action::Reopen => {
                        drop(place);
                        world.is_dead = true;
                        world.settled += world.shared.counts().settled();
                        world.shared = World::shared(world.dir.path());
                        place = world.place();
                    }
                    simple => world.act(simple),
                }
                let settled = world.settled + world.shared.counts().settled();
                prop_assert!(settled <= world.ended, "{settled} of {}", world.ended);
            }
            world.act(&Action::Post(0));
            while deliver(&mut world, &mut place, 8, &[]) {}
            prop_assert!(place.is_done().unwrap());
            prop_assert_eq!(world.settled + world.shared.counts().settled(), world.ended);
        }
    }
}
