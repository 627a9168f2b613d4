//! Runs out of a store and into one: export and import.

use super::*;

#[test]
fn spans_are_given_out_as_they_came() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    let open = store.record_open_workflow();
    let mut request = json(&runspan(store.path(), &["export", &run.to_string()]));
    let spans = &mut request["resourceSpans"][0]["scopeSpans"][0]["spans"];
    // What says where each is from comes last.
    for span in spans.as_array_mut().unwrap() {
        let told = span["attributes"].as_array_mut().unwrap();
        let from = told.split_off(told.len() - 2);
        assert_eq!((&from[0]["key"], &from[1]["key"]), (&names::RUN_ID.into(), &names::STORE_ID.into()));
        assert_eq!(from[0]["value"]["stringValue"], run.to_string());
    }
    let log = std::fs::read_to_string(store.run_dir(run).join("events.jsonl")).unwrap();
    let mut told: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["data"]["span"].clone())
        .filter(|span| span.get("endTimeUnixNano").is_some())
        .collect();
    told.sort_by_key(|span| span["startTimeUnixNano"].as_str().unwrap().to_owned());
    assert_eq!(spans, &mut serde_json::Value::Array(told));
    assert_eq!(request["resourceSpans"].as_array().unwrap().len(), 1);
    // What is not over would be another run where it is taken in, and the user is told.
    let file = store.path().join("open.json");
    let answer = runspan(store.path(), &["export", &open.to_string(), "--to", file.to_str().unwrap()]);
    let told = format!("run {open} is running, and not over: it is left out\n");
    assert_eq!((answer.code, answer.out.as_str(), answer.err), (1, "", told.clone()));
    assert!(!file.exists());
    let answer = runspan(store.path(), &["export", "--limit", "0", "--as", "otlp-jsonl"]);
    assert_eq!((answer.code, answer.out.lines().count(), answer.err), (1, 1, told));
}

#[test]
fn a_page_of_a_run_holds_no_markup_of_it_and_loads_nothing() {
    let mut store = Store::new();
    store.record_agent(1);
    let run = store.record_other_agent().to_string();
    let page = runspan(store.path(), &["export", &run, "--as", "html"]).out;
    assert!(page.contains("Look at &lt;/script&gt; lib.rs"), "{page}");
    assert!(page.contains("&lt;b&gt;a<span class=\"odd\">\\u{202e}</span>b&lt;/b&gt;"), "{page}");
    for hidden in ["<script", "</script>", "<b>", "<img", "<link", "src=", "url(", "\u{202e}", "\u{1b}"] {
        assert!(!page.contains(hidden), "{hidden:?}: {page}");
    }
    assert!(page.contains("default-src 'none'"), "{page}");
    let pages = store.path().join("pages");
    let answer = runspan(store.path(), &["export", "--to", pages.to_str().unwrap(), "--as", "html"]);
    assert_eq!((answer.code, answer.out.as_str()), (2, ""));
    let folder = format!("{}/", pages.display());
    let answer = runspan(store.path(), &["export", "--to", &folder]);
    assert_eq!((answer.code, answer.out.lines().count()), (0, 2), "{}", answer.err);
    assert_eq!(std::fs::read_to_string(pages.join(format!("{run}.html"))).unwrap(), page);
    assert_eq!(std::fs::read_dir(pages).unwrap().count(), 2);
}

#[test]
fn an_export_into_a_file_says_what_it_holds() {
    let mut store = Store::new();
    store.record_agent(1);
    store.record_agent(2);
    for name in ["runs.json", "runs.jsonl", "runs.tar"] {
        let file = store.path().join(name).display().to_string();
        let answer = runspan(store.path(), &["export", "--to", &file]);
        assert_eq!((answer.code, answer.out), (0, format!("2 runs in {file}\n")), "{}", answer.err);
    }
    let file = store.path().join("run.html").display().to_string();
    assert_eq!(runspan(store.path(), &["export", "latest", "--to", &file]).out, format!("1 run in {file}\n"));
}

#[test]
fn an_export_into_a_pipe_or_through_a_link_leaves_them_as_they_are() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let mut store = Store::new();
    store.record_agent(1);
    let path = |name: &str| store.path().join(name);
    let export = |to: &Path| {
        let answer =
            runspan(store.path(), &["export", "latest", "--as", "otlp-json", "--to", &to.display().to_string()]);
        assert_eq!(answer.code, 0, "{}", answer.err);
    };
    std::fs::write(path("real"), "what was there").unwrap();
    std::fs::set_permissions(path("real"), std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink(path("real"), path("link")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    export(&path("link"));
    let read = std::thread::spawn({
        let pipe = path("pipe");
        move || std::fs::read_to_string(pipe).unwrap()
    });
    export(&path("pipe"));
    export(&path("new"));
    let told = std::fs::read_to_string(path("new")).unwrap();
    assert!(told.contains("resourceSpans"));
    assert_eq!([read.join().unwrap(), std::fs::read_to_string(path("real")).unwrap()], [told.clone(), told]);
    export(&path("real"));
    let type_of = |name: &str| std::fs::symlink_metadata(path(name)).unwrap().file_type();
    assert!(type_of("link").is_symlink() && type_of("pipe").is_fifo());
    let mode = |name: &str| std::fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("real"), mode("new")), (0o640, 0o600));
}

#[test]
fn a_damaged_run_is_told_and_the_others_are_exported() {
    let mut store = Store::new();
    let (good, bad) = (store.record_agent(1), store.record_agent(2));
    std::fs::write(store.run_dir(bad).join("events.jsonl"), "no JSON\n").unwrap();
    let answer = runspan(store.path(), &["export", &bad.to_string(), &good.to_string()]);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains(&format!("run {bad} is damaged")), "{}", answer.err);
    let request: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(request["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().len(), 4);
}

/// What `get` says of a run, but for what belongs to the store that it is in. The log of runs in these tests is shorter than that
/// of recorded ones.
fn told_of(store: &Path, run: &str) -> serde_json::Value {
    let mut told = json(&runspan(store, &["get", run, "--json"]));
    for of_store in ["writer", "updated_at", "events", "events_sha256"] {
        told.as_object_mut().unwrap().remove(of_store);
    }
    told
}

/// An empty store.
fn empty() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Layout::new(dir.path().join(".runspan")).open_or_create().unwrap();
    dir
}

#[test]
fn what_was_exported_is_the_same_run_where_it_is_imported() {
    let mut store = Store::new();
    let run = store.record_agent(1).to_string();
    let file = store.path().join("runs.json");
    let file = file.to_str().unwrap();
    assert_eq!(runspan(store.path(), &["export", &run, "--to", file]).code, 0);
    let other = empty();
    let answer = runspan(other.path(), &["import", file]);
    assert_eq!((answer.code, answer.out.as_str(), answer.err.as_str()), (0, "4 spans stored\n", ""));
    assert_eq!(told_of(other.path(), "latest"), told_of(store.path(), &run));
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../../docs/schema/cli.schema.json")).unwrap();
    let schema = serde_json::json!({"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": "#/$defs/import"});
    let said = json(&runspan(other.path(), &["import", file, "--json"]));
    assert_eq!(jsonschema::validate(&schema, &said).map_err(|error| error.to_string()), Ok(()));
    // Once more changes nothing, and neither does it where it came from.
    let before = told_of(other.path(), &run);
    assert_eq!(runspan(other.path(), &["import", file]).out, "0 spans stored, 4 there already\n");
    assert_eq!(told_of(other.path(), &run), before);
    assert_eq!(runspan(store.path(), &["import", file]).out, "0 spans stored, 4 there already\n");
    assert_eq!(json(&runspan(store.path(), &["list", "--json"])).as_array().unwrap().len(), 1);
}

#[test]
fn a_broken_line_is_named_and_the_others_are_imported() {
    let mut store = Store::new();
    store.record_agent(1);
    let line = runspan(store.path(), &["export", "--as", "otlp-jsonl"]).out;
    let other = empty();
    let file = other.path().join("broken.jsonl");
    for text in [format!("{line}\n{{\"resourceSpans\":[\n[1]\n{{}}\n"), format!("{{\"resourceSpans\":[\n{line}")] {
        std::fs::write(&file, text).unwrap();
        let answer = runspan(other.path(), &["import", file.to_str().unwrap(), "none.json"]);
        assert_eq!(answer.code, 1);
        let said = answer.err.replace(other.path().to_str().unwrap(), "DIR");
        if answer.out.starts_with("4 spans stored") {
            insta::assert_snapshot!(said, @r"
            DIR/broken.jsonl, line 3: it is no JSON: EOF while parsing a list at line 1 column 18
            DIR/broken.jsonl, line 4: it is no JSON object
            DIR/broken.jsonl, line 5: it has neither resourceSpans nor resourceLogs, nor Jaeger's data
            none.json: No such file or directory (os error 2)
            ");
        } else {
            assert!(answer.out.contains("4 there already"), "{}", answer.out);
            assert!(said.contains("broken.jsonl, line 1: it is no JSON"), "{said}");
        }
    }
    assert_eq!(json(&runspan(other.path(), &["list", "--json"])).as_array().unwrap().len(), 1);
}

#[test]
fn an_object_over_several_lines_is_taken_before_those_of_a_line_and_its_logs_with_its_spans() {
    let other = empty();
    let spans = |id: u8| {
        serde_json::json!([{"scopeSpans": [{"spans": [{
            "traceId": format!("{id:032x}"), "spanId": format!("{id:016x}"), "name": "invoke_agent a",
            "startTimeUnixNano": "1700000000000000000", "endTimeUnixNano": "1700000001000000000",
            "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "invoke_agent"}}],
        }]}]}])
    };
    let both = serde_json::json!({
        "resourceSpans": spans(1),
        "resourceLogs": [{"scopeLogs": [{"logRecords": [{
            "traceId": format!("{:032x}", 1), "spanId": format!("{:016x}", 1), "timeUnixNano": "1700000000500000000",
            "eventName": "gen_ai.evaluation.result",
            "attributes": [{"key": "gen_ai.evaluation.name", "value": {"stringValue": "politeness"}}],
        }]}]}],
    });
    let (one, two) = (serde_json::json!({"resourceSpans": spans(2)}), serde_json::json!({"resourceSpans": spans(3)}));
    let text = format!("{both:#}\n{one}\n{{\"resourceSpans\": [\n{two:#} {one}\n");
    let file = other.path().join("mixed.json");
    std::fs::write(&file, text).unwrap();
    let answer = runspan(other.path(), &["import", file.to_str().unwrap()]);
    assert_eq!((answer.code, answer.out.as_str()), (1, "4 spans stored, 1 there already\n"));
    let broken = format!("{both:#}").lines().count() + 2;
    let said = answer.err.replace(other.path().to_str().unwrap(), "DIR");
    assert_eq!(
        said,
        format!("DIR/mixed.json, line {broken}: it is no JSON: EOF while parsing a list at line 1 column 19\n")
    );
    let log = runspan(other.path(), &["get", &format!("{:032x}", 1), "--events"]).out;
    assert!(log.contains("politeness"), "{log}");
}

#[test]
fn runs_from_outside_keep_their_ids_and_events_over_export_and_import() {
    let (first, second) = (empty(), empty());
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus");
    for emitter in ["rig", "pydantic-ai", "openinference-langchain"] {
        let recorded = corpus.join(emitter).join("agent/000-traces.pb");
        let answer = runspan(first.path(), &["import", recorded.to_str().unwrap()]);
        assert_eq!(answer.code, 0, "{}", answer.err);
    }
    let file = first.path().join("all.jsonl");
    assert_eq!(runspan(first.path(), &["export", "--to", file.to_str().unwrap()]).code, 0);
    let answer = runspan(second.path(), &["import", file.to_str().unwrap()]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
    let of = |store: &tempfile::TempDir| -> Vec<(serde_json::Value, serde_json::Value)> {
        let listed = json(&runspan(store.path(), &["list", "--json"]));
        let ids = listed.as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned());
        let told = ids.map(|id| {
            let mut events = json(&runspan(store.path(), &["get", &id, "--events", "--json"]));
            for event in events.as_array_mut().unwrap() {
                // Where each is from, which the exported spans say.
                let Some(told) = event["data"].pointer_mut("/span/attributes").and_then(|of| of.as_array_mut()) else {
                    continue;
                };
                told.retain(|attribute| attribute["key"] != names::RUN_ID && attribute["key"] != names::STORE_ID);
            }
            (told_of(store.path(), &id), events)
        });
        told.collect()
    };
    let (before, after) = (of(&first), of(&second));
    assert!(before.len() >= 3);
    assert_eq!(before, after);
}

#[test]
fn a_run_from_outside_has_the_same_times_and_errors_where_its_export_is_imported() {
    let (first, second) = (empty(), empty());
    let ms = |ms: u64| (1_767_693_600_000 + ms).to_string() + "000000";
    let span = |trace: u8, id: u8, parent: Option<u8>, from: u64, to: u64, told: &[(&str, &str)]| {
        let hex = |id: u8| format!("{id:016x}");
        let told = told.iter().map(|(key, value)| serde_json::json!({"key": key, "value": {"stringValue": value}}));
        serde_json::json!({
            "traceId": format!("{trace:032x}"), "spanId": hex(id), "parentSpanId": parent.map(hex).unwrap_or_default(),
            "name": "s", "kind": 1, "startTimeUnixNano": ms(from), "endTimeUnixNano": ms(to),
            "attributes": told.collect::<Vec<_>>(),
        })
    };
    let agent = [("gen_ai.operation.name", "invoke_agent"), ("gen_ai.agent.name", "a")];
    let chat = [("gen_ai.operation.name", "chat"), ("gen_ai.request.model", "m")];
    let failed = [("gen_ai.operation.name", "execute_tool"), ("gen_ai.tool.name", "t"), ("error.type", "timeout")];
    let spans = [
        // One that begins when the agent's is over.
        span(1, 1, None, 0, 100, &agent),
        span(1, 2, Some(1), 200, 250, &chat),
        // One whose parent never came, before the agent's.
        span(2, 3, None, 20, 120, &agent),
        span(2, 4, Some(9), 0, 5, &failed),
    ];
    let request = serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]});
    let file = first.path().join("told.json");
    std::fs::write(&file, request.to_string()).unwrap();
    assert_eq!(runspan(first.path(), &["import", file.to_str().unwrap()]).code, 0);
    let exported = first.path().join("exported.json");
    assert_eq!(runspan(first.path(), &["export", "--to", exported.to_str().unwrap()]).code, 0);
    assert_eq!(runspan(second.path(), &["import", exported.to_str().unwrap()]).code, 0);
    let numbers = |store: &tempfile::TempDir, trace: u8| {
        let told = told_of(store.path(), &format!("{trace:032x}"));
        let numbers = (told["duration_ms"].clone(), told["errors"].clone());
        (numbers, told)
    };
    for (trace, duration_ms, errors) in [(1, 250, 0), (2, 120, 1)] {
        let (before, after) = (numbers(&first, trace), numbers(&second, trace));
        assert_eq!(before.0, (duration_ms.into(), errors.into()));
        assert_eq!(before, after);
    }
}

#[test]
fn a_span_with_as_many_attributes_as_it_may_have_comes_back_whole() {
    let (first, second) = (empty(), empty());
    let attribute = |key: &str, value: serde_json::Value| serde_json::json!({"key": key, "value": value});
    let text = |key: &str, value: &str| attribute(key, serde_json::json!({"stringValue": value}));
    // Names that are not ours, so that there are more of them afterwards.
    let mut told = vec![
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.system", "openai"),
        text("gen_ai.request.model", "gpt-4o-mini"),
        attribute("gen_ai.usage.prompt_tokens", serde_json::json!({"intValue": "1000"})),
        attribute("gen_ai.usage.completion_tokens", serde_json::json!({"intValue": "10"})),
    ];
    told.extend((told.len()..4_096).map(|number| text(&format!("app.label-{number}"), "x")));
    let span = serde_json::json!({
        "traceId": format!("{:032x}", 7), "spanId": format!("{:016x}", 7), "name": "chat", "kind": 3,
        "startTimeUnixNano": "1767693600000000000", "endTimeUnixNano": "1767693600500000000", "attributes": told,
    });
    let request = serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
    let (file, exported) = (first.path().join("told.json"), first.path().join("exported.json"));
    std::fs::write(&file, request.to_string()).unwrap();
    assert_eq!(runspan(first.path(), &["import", file.to_str().unwrap()]).code, 0);
    assert_eq!(runspan(first.path(), &["export", "--to", exported.to_str().unwrap()]).code, 0);
    let answer = runspan(second.path(), &["import", exported.to_str().unwrap()]);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""));
    let export = |store: &tempfile::TempDir| {
        let mut given = json(&runspan(store.path(), &["export", "latest"]));
        let told = given["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"].as_array_mut().unwrap();
        told.retain(|told| told["key"] != names::RUN_ID && told["key"] != names::STORE_ID);
        given
    };
    assert_eq!(export(&first), export(&second));
}

/// Every file of a run's folder.
fn files_of(store: &Path, run: RunId) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let dir = Layout::new(store.join(".runspan")).find_run(run).unwrap().unwrap();
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_tar_of_runs_is_the_same_files_where_it_is_imported() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    let open = store.record_open_workflow();
    let file = store.path().join("runs.tar");
    let answer = runspan(store.path(), &["export", "--to", file.to_str().unwrap()]);
    assert_eq!(answer.code, 1);
    assert!(answer.err.contains(&format!("run {open} is not over")), "{}", answer.err);
    let (by_tar, by_copy) = (empty(), empty());
    let from = store.path().join(".runspan");
    for (other, source) in [(&by_tar, &file), (&by_copy, &from)] {
        let runs = if source.is_dir() { 2 } else { 1 };
        let answer = runspan(other.path(), &["import", source.to_str().unwrap()]);
        let stored = if runs == 1 { "1 run stored\n" } else { "2 runs stored\n" };
        assert_eq!((answer.code, answer.out.as_str()), (0, stored), "{}", answer.err);
        assert_eq!(files_of(other.path(), run), files_of(store.path(), run));
        let again = runspan(other.path(), &["import", source.to_str().unwrap()]);
        assert_eq!(again.out, format!("0 runs stored, {runs} there already\n"));
        assert_eq!(json(&runspan(other.path(), &["list", "--json"])).as_array().unwrap().len(), runs);
    }
}

#[test]
fn of_an_archive_that_is_cut_the_runs_before_the_cut_are_taken() {
    let mut store = Store::new();
    for at in 1..=3 {
        store.record_agent(at);
    }
    let file = store.path().join("runs.tar");
    runspan(store.path(), &["export", "--to", file.to_str().unwrap()]);
    let whole = std::fs::read(&file).unwrap();
    let blocks: Vec<&[u8]> = whole.chunks(512).collect();
    let headers = blocks.iter().enumerate().filter(|(_, block)| block.get(257..262) == Some(b"ustar"));
    // Where the files of each run begin, in the archive's own order.
    let mut begins: Vec<(usize, String)> = Vec::new();
    for (at, block) in headers {
        let run = String::from_utf8_lossy(&block["agents/".len().."agents/".len() + 26]).into_owned();
        if begins.last().is_none_or(|(_, last)| *last != run) {
            begins.push((at, run));
        }
    }
    assert_eq!(begins.len(), 3);
    let packed = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, bytes).unwrap();
        let mut packed = gzip.finish().unwrap();
        packed.truncate(packed.len() - 8);
        packed
    };
    let last = &begins[2];
    let in_a_header = last.0 * 512 + 100;
    let in_a_file = (last.0 + 1) * 512 + 100;
    for (what, cut) in [
        ("in a file", whole[..in_a_file].to_vec()),
        ("in a header", whole[..in_a_header].to_vec()),
        ("packed", packed(&whole[..in_a_file])),
    ] {
        let other = empty();
        let cut_file = other.path().join("cut.tar");
        std::fs::write(&cut_file, cut).unwrap();
        let answer = runspan(other.path(), &["import", cut_file.to_str().unwrap()]);
        // Of a header that is cut nobody knows whose it is: the run before may lack a file.
        let (taken, told) = if what == "in a header" { (1, &begins[1].1) } else { (2, &last.1) };
        assert_eq!(
            (answer.code, answer.out),
            (1, format!("{taken} run{} stored\n", if taken == 1 { "" } else { "s" })),
            "{what}"
        );
        let why = format!("the archive ends in the middle of run {told}: ");
        assert!(answer.err.contains(&why), "{what}: {}", answer.err);
        assert_eq!(json(&runspan(other.path(), &["list", "--json"])).as_array().unwrap().len(), taken);
    }
}

#[test]
fn logs_in_protobuf_are_known_from_spans_and_metrics_are_told() {
    use prost::encoding::{WireType, encode_key, encode_varint};
    let message = |field: u32, inner: &[u8]| {
        let mut bytes = Vec::new();
        encode_key(field, WireType::LengthDelimited, &mut bytes);
        encode_varint(inner.len() as u64, &mut bytes);
        bytes.extend_from_slice(inner);
        bytes
    };
    let request = |record: &[u8]| message(1, &message(2, &message(2, record)));
    let at = |field: u32| {
        let mut bytes = Vec::new();
        encode_key(field, WireType::SixtyFourBit, &mut bytes);
        bytes.extend(1_767_700_000_000_000_000_u64.to_le_bytes());
        bytes
    };
    let log = [at(1), message(9, &[1; 16]), message(10, &[2; 8])].concat();
    let metric = [message(1, b"gen_ai.client.to"), message(3, b"{token}"), message(9, &message(1, &at(3)))].concat();
    let other = empty();
    let import = |name: &str, record: &[u8]| {
        let file = other.path().join(name);
        std::fs::write(&file, request(record)).unwrap();
        let answer = runspan(other.path(), &["import", file.to_str().unwrap()]);
        assert_eq!(answer.code, 1, "{}", answer.out);
        answer.err.trim_end().replace(&*other.path().to_string_lossy(), "")
    };
    insta::assert_snapshot!(import("logs.pb", &log), @"/logs.pb: 1 log records are not kept: they are no events of GenAI, or do not tell of which span or conversation");
    insta::assert_snapshot!(import("metrics.pb", &metric), @"/metrics.pb: it holds metrics, which are no part of runs: `runspan serve --forward` passes them on");
    let file = other.path().join("metrics.json");
    std::fs::write(&file, r#"{"resourceMetrics":[]}"#).unwrap();
    let answer = runspan(other.path(), &["import", file.to_str().unwrap()]);
    assert!(answer.code == 1 && answer.err.contains("it holds metrics"), "{}", answer.err);
}

#[test]
fn an_export_of_the_newest_says_that_there_are_more() {
    let mut store = Store::new();
    for at in 1..=3 {
        store.record_agent(at);
    }
    let export = |limit: &str| runspan(store.path(), &["export", "--limit", limit, "--as", "otlp-jsonl"]);
    let (two, three) = (export("2"), export("3"));
    assert_eq!((two.out.lines().count(), three.out.lines().count()), (2, 3));
    assert_eq!(two.err, "hint: 2 runs and no more, of those that there are: --limit 0 exports all\n");
    assert_eq!(three.err, "");
}

#[test]
fn a_run_whose_log_was_changed_on_the_way_is_not_taken_in() {
    let mut store = Store::new();
    let (changed, whole) = (store.record_agent(1), store.record_agent(2));
    let layout = Layout::new(store.path().join(".runspan"));
    let log = layout.find_run(changed).unwrap().unwrap().join("events.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("gpt-4o"));
    std::fs::write(&log, text.replacen("gpt-4o", "gpt-4x", 1)).unwrap();
    let other = empty();
    let answer = runspan(other.path(), &["import", layout.root().to_str().unwrap()]);
    assert_eq!((answer.code, answer.out.as_str()), (1, "1 run stored\n"));
    let why = format!("run {changed} is damaged: its log was changed since it was written");
    assert!(answer.err.contains(&why), "{}", answer.err);
    assert_eq!(json(&runspan(other.path(), &["list", "--json"]))[0]["run_id"], whole.to_string());
}

#[test]
fn an_archive_with_anything_but_runs_is_refused_whole() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    let good = runspan::store::files::layout::Layout::new(store.path().join(".runspan"));
    let place = |name: &str| format!("agents/{run}/{name}");
    let summary = std::fs::read(good.find_run(run).unwrap().unwrap().join("run.yaml")).unwrap();
    let refused = |what: &str, add: &dyn Fn(&mut tar::Builder<Vec<u8>>)| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(summary.len() as u64);
        archive.append_data(&mut header, place("run.yaml"), summary.as_slice()).unwrap();
        add(&mut archive);
        let other = empty();
        let file = other.path().join("bad.tar");
        std::fs::write(&file, archive.into_inner().unwrap()).unwrap();
        let before = std::fs::read_dir(other.path().join(".runspan")).unwrap().count();
        let answer = runspan(other.path(), &["import", file.to_str().unwrap()]);
        assert_eq!(answer.code, 1, "{what}");
        assert!(answer.err.contains("is refused: "), "{what}: {}", answer.err);
        assert_eq!(json(&runspan(other.path(), &["list", "--json"])), serde_json::json!([]), "{what}");
        // The journal of the import and the index are all there is besides.
        assert!(std::fs::read_dir(other.path().join(".runspan")).unwrap().count() <= before + 2, "{what}");
        assert!(!other.path().join("escaped").exists() && !other.path().join(".runspan/escaped").exists(), "{what}");
    };
    let raw = |name: &str, kind: tar::EntryType, link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        if let Some(link) = link {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_cksum();
        header
    };
    let add =
        |header: tar::Header| move |archive: &mut tar::Builder<Vec<u8>>| archive.append(&header, &[][..]).unwrap();
    use tar::EntryType;
    refused("above", &add(raw("../escaped", EntryType::Regular, None)));
    refused("within", &add(raw(&place("../../../escaped"), EntryType::Regular, None)));
    refused("absolute", &add(raw("/tmp/escaped", EntryType::Regular, None)));
    refused("link", &add(raw(&place("artifacts/a"), EntryType::Symlink, Some("/etc/passwd"))));
    refused("hard link", &add(raw(&place("artifacts/a"), EntryType::Link, Some("run.yaml"))));
    refused("device", &add(raw(&place("artifacts/a"), EntryType::Char, None)));
    refused("pipe", &add(raw(&place("artifacts/a"), EntryType::Fifo, None)));
    refused("other", &add(raw("escaped", EntryType::Regular, None)));
}

/// An OTLP endpoint that gives one answer to all; returns its URL and what it has got.
fn endpoint(says: &'static [u8]) -> (String, std::sync::mpsc::Receiver<Vec<u8>>) {
    use std::io::{BufRead, BufReader, Read};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some((_, bytes)) = line.to_lowercase().split_once("content-length:") {
                    length = bytes.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\nconnection: close\r\n";
            let head = format!("{head}content-length: {}\r\n\r\n", says.len());
            reader.into_inner().write_all(&[head.as_bytes(), says].concat()).unwrap();
            if tell.send(body).is_err() {
                return;
            }
        }
    });
    (url, told)
}

#[test]
fn what_an_endpoint_leaves_out_is_not_counted_as_sent_and_what_it_remarks_is_no_failure() {
    let mut store = Store::new();
    let run = store.record_agent(1).to_string();
    // partial_success: rejected_spans and error_message.
    for (says, code, out) in
        [(&b"\x0a\x06\x08\x01\x12\x02no"[..], 1, "3 spans sent\n"), (b"\x0a\x04\x12\x02so", 0, "4 spans sent\n")]
    {
        let (url, _got) = endpoint(says);
        let answer = runspan(store.path(), &["export", &run, "--otlp", &format!("{url}/v1/traces")]);
        assert_eq!((answer.code, answer.out.as_str()), (code, out), "{}", answer.err);
        assert!(answer.err.contains(": no") || answer.err.contains(": so"), "{}", answer.err);
    }
}

#[test]
fn each_tenant_of_an_endpoint_gets_each_span_once() {
    let mut store = Store::new();
    let run = store.record_agent(1).to_string();
    let (url, _got) = endpoint(b"");
    let export = |more: &str| runspan(store.path(), &["export", &run, "--otlp", &format!("{url}/v1/traces{more}")]).out;
    let (new, known) = ("4 spans sent\n", "0 spans sent, 4 sent before\n");
    for (more, expected) in [
        ("", new),
        ("#header.x-tenant=a", new),
        ("#header.x-tenant=b", new),
        ("#header.x-tenant=a&header.authorization=token", known),
        ("?k=1", new),
        ("?k=2", new),
        ("?k=1&api_key=secret", known),
        ("?api_key=other#timeout=9000", known),
    ] {
        assert_eq!(export(more), expected, "{more}");
    }
}

#[test]
fn an_endpoint_gets_each_span_once_unless_it_is_asked_for_again() {
    let mut store = Store::new();
    let run = store.record_agent(1).to_string();
    let (url, got) = endpoint(b"");
    let url = format!("{url}/v1/traces#compression=none");
    let export = |more: &[&str]| {
        let answer = runspan(store.path(), &[&["export", &run, "--otlp", &url], more].concat());
        assert_eq!((answer.code, answer.err.as_str()), (0, ""));
        answer.out
    };
    assert_eq!(export(&[]), "4 spans sent\n");
    assert_eq!(export(&[]), "0 spans sent, 4 sent before\n");
    assert_eq!(export(&["--again"]), "4 spans sent\n");
    let requests: Vec<Vec<u8>> = got.try_iter().collect();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
    let request = <runspan::model::otlp::TracesData as prost::Message>::decode(requests[0].as_slice()).unwrap();
    let exported = json(&runspan(store.path(), &["export", &run]));
    let sent = serde_json::to_value(&request).unwrap();
    let spans: Vec<&serde_json::Value> =
        sent["resourceSpans"].as_array().unwrap().iter().map(|of| &of["scopeSpans"][0]["spans"][0]).collect();
    assert_eq!(
        spans,
        exported["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().iter().collect::<Vec<_>>()
    );
    let other = runspan(store.path(), &["export", &run, "--otlp", &url, "--to", "x.json"]);
    assert_eq!(other.code, 2);
}

/// Writes a file into a folder, and the folders to it.
fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Runs as `paracle_runs` 1.0 writes them: `model_dump(mode="json")` through `yaml.safe_dump`, times of Python without an offset.
fn paracle() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let agent = "agents/01KE9BZH80BGEY5ABZ7D0DHDQ1";
    write(
        dir.path(),
        &format!("{agent}/metadata.yaml"),
        "run_id: 01KE9BZH80BGEY5ABZ7D0DHDQ1\nagent_id: coder\nagent_name: Coder Agent\nstarted_at: '2026-01-06T10:30:00'\n\
         completed_at: '2026-01-06T10:31:45.500000'\nduration_seconds: 105.5\nstatus: completed\nexit_code: 0\nprovider: openai\n\
         model: gpt-4\ntemperature: 0.7\ntokens_used: 2450\ncost_usd: 0.0245\nmemory_mb: 128\ncpu_seconds: null\n\
         artifacts_count: 1\nfiles_modified: 2\nerror_count: 0\nerror_message: null\nmetadata: {branch: main}\n",
    );
    write(
        dir.path(),
        &format!("{agent}/input.json"),
        r#"{"task": "Fix it", "key": "sk-proj-abcdefghijklmnopqrstuvwx0123456789"}"#,
    );
    write(dir.path(), &format!("{agent}/output.json"), r#"{"result": "Fixed"}"#);
    write(dir.path(), &format!("{agent}/artifacts/artifacts.json"), r#"{"fix.py": "print(1)"}"#);
    write(dir.path(), &format!("{agent}/logs.txt"), "it began\nit ended\n");
    let workflow = "workflows/01KE9BZJ7G000000000000000W";
    write(
        dir.path(),
        &format!("{workflow}/metadata.yaml"),
        "run_id: 01KE9BZJ7G000000000000000W\nworkflow_id: data_pipeline\nworkflow_name: Data Pipeline\n\
         started_at: '2026-01-06T10:30:01Z'\nduration_seconds: 3\nstatus: failed\nsteps_total: 2\nsteps_completed: 1\n\
         steps_failed: 1\nagents_used: [extractor, loader]\ntokens_total: 8500\ncost_total_usd: 0.085\nerror_message: no disk\n\
         steps:\n- {step_id: extract, agent_id: extractor, status: success, duration_ms: 1000}\n\
         - {step_id: load, agent_id: loader, status: failed, duration_ms: 2000, error: no disk}\n",
    );
    write(dir.path(), &format!("{workflow}/inputs.json"), r#"{"from": "a"}"#);
    write(dir.path(), &format!("{workflow}/steps/extract.json"), r#"{"output": {"rows": 3}}"#);
    write(dir.path(), &format!("{workflow}/steps/load/input.json"), r#"{"rows": 3}"#);
    let traced = "agents/run_7";
    write(
        dir.path(),
        &format!("{traced}/metadata.yaml"),
        "run_id: run_7\nagent_id: asker\nstarted_at: 2026-01-06T11:00:00.5+01:00\nstatus: running\n",
    );
    let span = r#"{"traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708", "name": "chat gpt-4o-mini",
        "startTimeUnixNano": "1767693600000000000", "endTimeUnixNano": "1767693601000000000", "attributes": [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.provider.name", "value": {"stringValue": "openai"}},
        {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o-mini"}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": 10}},
        {"key": "gen_ai.usage.output_tokens", "value": {"intValue": 5}}]}"#;
    write(
        dir.path(),
        &format!("{traced}/trace.json"),
        &format!(r#"{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{span}]}}]}}]}}"#),
    );
    write(
        dir.path(),
        "agents/01KE9BZH800000000000000BAD/metadata.yaml",
        "run_id: 01KE9BZH800000000000000BAD\nagent_id: x\nstarted_at: soon\n",
    );
    write(dir.path(), "agents/01KE9BZH80000000000000BAD2/metadata.yaml", "run_id: [\n");
    let metadata = std::fs::File::options().append(true).open(dir.path().join(traced).join("metadata.yaml")).unwrap();
    // One that never ended: all that is known is when it was last written to.
    metadata.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_767_693_605)).unwrap();
    dir
}

#[test]
fn runs_in_the_schema_of_paracle_are_read_for_what_they_say() {
    let (from, into) = (paracle(), empty());
    let answer = runspan(into.path(), &["import", from.path().to_str().unwrap()]);
    let root = from.path().display().to_string();
    insta::assert_snapshot!(answer.out, @"3 runs stored");
    insta::assert_snapshot!(answer.err.replace(&root, "FROM"), @r#"
    FROM: run FROM/agents/01KE9BZH800000000000000BAD: metadata.yaml has no started_at that is a time
    FROM: run FROM/agents/01KE9BZH80000000000000BAD2: metadata.yaml: error: line 1 column 9: unclosed bracket '['
    "#);
    assert_eq!(answer.code, 1, "not all was read");
    let again = runspan(into.path(), &["import", from.path().to_str().unwrap()]);
    insta::assert_snapshot!(again.out, @"0 runs stored, 3 there already");
    let listed = json(&runspan(into.path(), &["list", "--json"]));
    let runs: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            let mut run = run.clone();
            for key in ["updated_at", "writer", "events_sha256"] {
                run.as_object_mut().unwrap().remove(key);
            }
            run.to_string()
        })
        .collect();
    insta::assert_snapshot!(runs.join("\n"), @r#"
    {"format":1,"run_id":"01KE9BZJ7G000000000000000W","kind":"workflow","workflow_id":"data_pipeline","session_id":null,"user_id":null,"parent_run_id":null,"replay_of":null,"external_id":null,"tags":[],"trace_id":"019b92bfc8f00000000000000000001c","status":"error","started_at":"2026-01-06T10:30:01.000Z","completed_at":"2026-01-06T10:30:04.000Z","duration_ms":3000,"total_duration_ms":3000,"cost_usd":0.085,"total_cost_usd":0.085,"cost_source":"reported","provider":null,"model":null,"tokens":{"prompt":null,"completion":null,"total":8500,"cache_read":null,"cache_write":null,"reasoning":null},"steps_total":3,"llm_calls":0,"tool_calls":0,"errors":1,"events":9,"dropped":0,"artifacts":[],"error":{"type":"_OTHER","message":"no disk","step_id":"loader"},"open_steps":[]}
    {"format":1,"run_id":"01KE9BZH80BGEY5ABZ7D0DHDQ1","kind":"agent","agent_id":"coder","session_id":null,"user_id":null,"parent_run_id":null,"replay_of":null,"external_id":null,"tags":[],"trace_id":"019b92bfc5005c1de2a97f3b40d8b6e1","status":"success","started_at":"2026-01-06T10:30:00.000Z","completed_at":"2026-01-06T10:31:45.500Z","duration_ms":105500,"cost_usd":0.0245,"cost_source":"reported","provider":"openai","model":"gpt-4","tokens":{"prompt":null,"completion":null,"total":2450,"cache_read":null,"cache_write":null,"reasoning":null},"steps_total":1,"llm_calls":0,"tool_calls":0,"errors":0,"events":7,"dropped":0,"artifacts":[{"name":"artifacts.json","media_type":null,"bytes":22,"sha256":"ba96f1a32c5fbe2dfe7cc191c9c521d7a2f74254705f0c3b6ffa456b063cc77c"},{"name":"logs.txt","media_type":null,"bytes":18,"sha256":"3bdb02ab970511c041352039a75f4fa77117df9bf1e71e11ace92a2e1510c661"}],"error":null,"open_steps":[]}
    {"format":1,"run_id":"01KE9BZHQM3KMATE3ZZ0ZF94CH","kind":"agent","agent_id":"asker","session_id":null,"user_id":null,"parent_run_id":null,"replay_of":null,"external_id":"run_7","tags":[],"trace_id":"0102030405060708090a0b0c0d0e0f10","status":"crashed","started_at":"2026-01-06T10:00:00.000Z","completed_at":"2026-01-06T10:00:05.000Z","duration_ms":5000,"cost_usd":4.5e-6,"cost_source":"computed","provider":"openai","model":"gpt-4o-mini","tokens":{"prompt":10,"completion":5,"total":15,"cache_read":null,"cache_write":null,"reasoning":null},"steps_total":2,"llm_calls":1,"tool_calls":0,"errors":1,"events":6,"dropped":0,"artifacts":[],"error":{"type":"crashed","message":"the process ended while the run was under way","step_id":"asker"},"open_steps":[]}
    "#);
    assert_eq!(runspan(into.path(), &["verify"]).code, 0);
    let id = "01KE9BZH80BGEY5ABZ7D0DHDQ1";
    // How long ago it was changes, and so does the hash of a secret.
    let shown = |id: &str| {
        let out = runspan(into.path(), &["get", id]).out;
        let lines = out.lines().filter(|line| !line.starts_with("started"));
        lines.map(|line| line.split(":42:").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(shown(id), @r#"
    coder  ✓ success
    agent 01KE9BZH80BGEY5ABZ7D0DHDQ1
    took      1m 46s
    steps     1
    tokens    2,450 in all
    cost      $0.0245 reported
    model     gpt-4
    artifact  artifacts.json (22 bytes)
    artifact  logs.txt (18 bytes)
    input     {"task":"Fix it","key":"[redacted:openai
    output    {"result":"Fixed"}

    STEP                 0                                         1m 46s  TOKENS     COST    TIME
    ✓ agent coder gpt-4  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━   2,450  $0.0245  1m 46s
    "#);
    insta::assert_snapshot!(shown("01KE9BZJ7G000000000000000W"), @r#"
    data_pipeline  ✗ error
    workflow 01KE9BZJ7G000000000000000W
    took      3.00s
    steps     3: 1 failure
    tokens    8,500 in all
    cost      $0.0850 reported
    error     no disk (in loader)
    input     {"from":"a"}

    STEP                      0                                          3.00s  TOKENS     COST   TIME
    ✗ workflow data_pipeline  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━   8,500  $0.0850  3.00s
      no disk
    ├─ ✓ agent extractor      ━━━━━━━━━━━━━━━━                                                   1.00s
    └─ ✗ agent loader                         ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━                   2.00s
         no disk
    "#);
    insta::assert_snapshot!(runspan(into.path(), &["artifacts", id]).out, @r#"
    NAME            SIZE  STORED    SHA-256
    artifacts.json  22 B  as given  ba96f1a32c5fbe2d
    logs.txt        18 B  as given  3bdb02ab970511c0
    "#);
    let text = std::fs::read_to_string(into.path().join(".runspan/agents").join(id).join("events.jsonl")).unwrap();
    assert!(text.contains("paracle.exit_code") && text.contains("Fix it") && !text.contains("sk-proj-abc"), "{text}");
    let left = std::fs::read_dir(into.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.filter_map(|name| name.into_string().ok()).all(|name| !name.starts_with(".import")));
}

#[test]
fn a_run_whose_file_is_not_what_its_log_says_is_not_taken() {
    let (from, first, into) = (paracle(), empty(), empty());
    runspan(first.path(), &["import", from.path().to_str().unwrap()]);
    let kept = first.path().join(".runspan/agents/01KE9BZH80BGEY5ABZ7D0DHDQ1/artifacts");
    std::fs::write(kept.join("logs.txt"), "nothing happened\n\n").unwrap();
    let answer = runspan(into.path(), &["import", first.path().to_str().unwrap()]);
    assert_eq!((answer.out.as_str(), answer.code), ("2 runs stored\n", 1), "{}", answer.err);
    let why = "artifacts/logs.txt was changed since it was written: its SHA-256 is ";
    assert!(answer.err.contains(why), "{}", answer.err);
    // One that was left where it was costs nothing.
    std::fs::remove_file(kept.join("logs.txt")).unwrap();
    let answer = runspan(into.path(), &["import", first.path().to_str().unwrap()]);
    assert_eq!((answer.out.as_str(), answer.code), ("1 run stored, 2 there already\n", 0), "{}", answer.err);
}

#[test]
#[cfg(unix)]
fn a_step_that_is_a_link_is_not_followed() {
    let (from, into, elsewhere) = (paracle(), empty(), tempfile::tempdir().unwrap());
    write(elsewhere.path(), "input.json", r#"{"not": "of the run"}"#);
    let steps = from.path().join("workflows/01KE9BZJ7G000000000000000W/steps");
    std::os::unix::fs::symlink(elsewhere.path(), steps.join("linked")).unwrap();
    let answer = runspan(into.path(), &["import", from.path().to_str().unwrap()]);
    assert_eq!(answer.out, "3 runs stored\n");
    assert!(answer.err.contains("steps/linked is no plain file, and was left out"), "{}", answer.err);
}

#[test]
fn the_folder_around_a_store_may_be_named_and_one_without_runs_is_told() {
    let (from, into) = (tempfile::tempdir().unwrap(), empty());
    std::fs::rename(paracle().path(), from.path().join("runs")).unwrap();
    let import = |path: &std::path::Path| runspan(into.path(), &["import", path.to_str().unwrap()]);
    assert_eq!(import(from.path()).out, "3 runs stored\n");
    let none = import(tempfile::tempdir().unwrap().path());
    assert_eq!((none.code, none.out.as_str()), (1, "no runs stored\n"));
    assert!(none.err.contains("it holds no runs"), "{}", none.err);
}

#[test]
fn what_a_killed_import_left_goes_and_one_under_way_stays() {
    let (from, into) = (paracle(), empty());
    let store = into.path().join(".runspan");
    let (left, used) =
        (store.join(".import-01KE9BZH800000000000000001"), store.join(".import-01KE9BZH800000000000000002"));
    write(&left, "agents/x", "");
    write(&used, "agents/x", "");
    let lock = std::fs::File::open(&used).unwrap();
    lock.lock().unwrap();
    assert!(runspan(into.path(), &["import", from.path().to_str().unwrap()]).out.contains("3 runs stored"));
    assert_eq!((left.exists(), used.exists()), (false, true));
}

#[test]
fn packed_runs_go_out_and_in_like_others() {
    let (many, first, second, third) = (tempfile::tempdir().unwrap(), empty(), empty(), empty());
    for n in 0..12 {
        let metadata = format!(
            "run_id: run_{n}\nagent_id: a\nstarted_at: 2026-01-06T10:00:{n:02}Z\nduration_ms: 5\nstatus: completed\n"
        );
        write(many.path(), &format!("agents/run_{n}/metadata.yaml"), &metadata);
    }
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    // Those of another schema are packed where they are made, and moved as folders.
    let read = runspan(first.path(), &["import", &text(many.path())]);
    assert_eq!((read.out.as_str(), read.err.as_str()), ("12 runs stored\n", ""));
    let file = many.path().join("all.json");
    assert_eq!(runspan(first.path(), &["export", "--limit", "0", "--to", &text(&file)]).code, 0);
    assert_eq!(runspan(second.path(), &["import", &text(&file)]).out, "12 spans stored\n");
    let store = second.path().join(".runspan");
    assert_eq!(std::fs::read_dir(store.join("agents")).unwrap().count(), 0, "all are in a pack");
    // From there as a store, and as an archive.
    let copied = runspan(third.path(), &["import", &text(&store)]);
    assert_eq!((copied.out.as_str(), copied.err.as_str()), ("12 runs stored\n", ""));
    let archive = many.path().join("all.tar");
    assert_eq!(runspan(second.path(), &["export", "--limit", "0", "--to", &text(&archive)]).code, 0);
    assert_eq!(runspan(third.path(), &["import", &text(&archive)]).out, "0 runs stored, 12 there already\n");
    let fourth = empty();
    assert_eq!(runspan(fourth.path(), &["import", &text(&archive)]).out, "12 runs stored\n");
    let runs = json(&runspan(second.path(), &["list", "--limit", "0", "--json"]));
    assert_eq!(runs.as_array().unwrap().len(), 12);
    for run in runs.as_array().unwrap() {
        let run = run["run_id"].as_str().unwrap();
        assert_eq!(told_of(third.path(), run), told_of(second.path(), run));
        assert_eq!(told_of(fourth.path(), run), told_of(second.path(), run));
    }
}

#[test]
fn an_export_of_nothing_leaves_what_is_there_and_a_strange_ending_is_refused() {
    let mut store = Store::new();
    let bad = store.record_agent(1);
    std::fs::write(store.run_dir(bad).join("events.jsonl"), "no JSON\n").unwrap();
    for name in ["old.tar", "old.json"] {
        let file = store.path().join(name);
        std::fs::write(&file, "before").unwrap();
        assert_eq!(runspan(store.path(), &["export", &bad.to_string(), "--to", file.to_str().unwrap()]).code, 1);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "before", "{name}");
    }
    let answer = runspan(store.path(), &["export", &bad.to_string(), "--to", "runs.tar.gz"]);
    assert_eq!(answer.code, 2);
    assert!(answer.err.contains("nothing is written as .gz"), "{}", answer.err);
    // The store itself is no source of runs for it.
    let own = runspan(store.path(), &["import", store.path().join(".runspan").to_str().unwrap()]);
    assert_eq!((own.code, own.out.as_str()), (1, "no runs stored\n"));
    assert!(own.err.contains("it is the store that runs go to"), "{}", own.err);
}
