//! What a real Collector does not take at once: requests over its bounds are halved, and a span that is too large alone is named.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::demo::runspan;
use super::interop::{Peers, program};
use super::support::{tempdir, wait_until};

/// A trace of an agent with nine calls, each of so many bytes, and one that no request has room for.
fn recording() -> Value {
    let span = |nth: u64, bytes: usize| {
        // No byte more than it has on the wire: compression would hide it.
        let text: String =
            (0..bytes as u64).map(|at| char::from(b'a' + (at * at % 251 * (nth + 7) % 26) as u8)).collect();
        json!({
            "traceId": "5b8efff798038103d269b633813fc60c", "spanId": format!("{:016x}", nth + 1),
            "parentSpanId": if nth == 0 { String::new() } else { format!("{:016x}", 1) },
            "name": if nth == 9 { "the large one".to_owned() } else { format!("call {nth}") },
            "startTimeUnixNano": (1_767_693_600_000_000_000 + nth).to_string(),
            "endTimeUnixNano": (1_767_693_600_900_000_000_u64).to_string(),
            "attributes": [{"key": "gen_ai.tool.call.result", "value": {"stringValue": text}}]
        })
    };
    let spans: Vec<Value> = (0..10).map(|nth| span(nth, if nth == 9 { 3 << 20 } else { 300 << 10 })).collect();
    json!({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {"name": "test"}, "spans": spans}]}]})
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// How often each span came to the Collector.
fn arrived(peers: &Peers) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(peers.dir().join("collected/traces.jsonl")).unwrap_or_default();
    let mut count = BTreeMap::new();
    for id in text.split("\"spanId\":\"").skip(1).filter_map(|rest| rest.get(..16)) {
        *count.entry(id.to_owned()).or_default() += 1;
    }
    count
}

fn export(store: &Path, url: &str) -> (Option<i32>, String, String) {
    said(&runspan(store, &["export", "latest", "--otlp", url]))
}

#[test]
fn a_request_over_the_bounds_of_a_collector_is_halved_and_a_span_that_is_too_large_alone_is_named() {
    let Some(otelcol) = program("otelcol") else { return };
    for (door, scheme) in [("COLLECTOR_OTLP_GRPC", "grpc"), ("COLLECTOR_OTLP_HTTP", "http")] {
        let peers = Peers::started_by(|peers| {
            let mut bounded = Command::new(&otelcol);
            bounded.arg("--set=receivers.otlp.protocols.grpc.max_recv_msg_size_mib=1");
            bounded.arg("--set=receivers.otlp.protocols.http.max_request_body_size=1048576");
            peers.start_one(bounded, "collector", &[])
        });
        let dir = tempdir();
        let (store, file) = (dir.path().join("s"), dir.path().join("runs.json"));
        std::fs::write(&file, recording().to_string()).unwrap();
        assert!(runspan(&store, &["import", file.to_str().unwrap()]).status.success());
        let url = format!("{scheme}://{}", peers.address(door));
        let (code, out, err) = export(&store, &url);
        assert_eq!((code, out.as_str()), (Some(1), "9 spans sent, 1 too large\n"), "{scheme}: {err}");
        let named = "too large for the endpoint, and not sent: span 000000000000000a (the large one) of run ";
        assert!(err.contains(named), "{scheme}: {err}");
        let of_small =
            || arrived(&peers).into_iter().filter(|(id, _)| id != "000000000000000a").collect::<BTreeMap<_, _>>();
        wait_until("they are in the file", || of_small().len() == 9);
        // What was taken is not sent again; what was not is tried again.
        let (code, out, _) = export(&store, &url);
        assert_eq!((code, out.as_str()), (Some(1), "0 spans sent, 9 sent before, 1 too large\n"), "{scheme}");
        assert!(
            arrived(&peers).values().all(|times| *times == 1) && arrived(&peers).len() == 9,
            "{:?}",
            arrived(&peers)
        );
    }
}
