//! Texts against what a person would say who reads them all.

use super::find::some_of_each;
use super::*;
use crate::model::event::{Input, LlmCalled, Log};
use crate::model::otlp::Span;
use crate::model::{Event, EventBody, EventId, RunId, RunStatus, StepStatus, UnixNanos};
use crate::store::Query;
use crate::store::files::FilesWriter;
use crate::store::files::database;
use crate::store::files::database::Depth;
use crate::store::files::database::tests::store;
use crate::store::files::database::words::Node;
use crate::store::{RunWriter, assembly::RunState};
use proptest::prelude::*;
use serde_json::Value as Json;
use serde_json::json;

fn event(seq: u64, step: Option<&str>, body: EventBody) -> Event {
    let event_id = EventId::from_parts(1, [seq as u8; 10]);
    Event { seq, event_id, parent_event_id: None, timestamp: UnixNanos(1), step_id: step.map(str::to_owned), body }
}

fn log(message: &str) -> EventBody {
    EventBody::Log(Log { level: None, message: message.to_owned(), fields: Default::default() })
}

fn input(data: Json) -> EventBody {
    EventBody::Input(Input { tool: "message_from_user".to_owned(), data })
}

fn call(messages: Json, output: Json) -> EventBody {
    EventBody::LlmCalled(Box::new(LlmCalled {
        name: "chat".to_owned(),
        provider: None,
        model: None,
        system_prompt: Some(json!("Be brief.").into()),
        messages: Some(messages.into()),
        output: Some(output.into()),
        tokens: None,
        cost_usd: None,
        cost_source: None,
        agent_id: None,
        status: StepStatus::Success,
        duration_ms: None,
        error: None,
        span: Span::default(),
        resource: None,
        scope: None,
    }))
}

/// Some of these begin in one millisecond.
fn run(nth: u64) -> RunSummary {
    let started = UnixNanos::from_millis(1_700_000_000_000 + nth / 2 * 1000);
    let id = RunId::from_parts(started.millis(), [nth as u8; 10]);
    let state = RunState::new(id, id.as_trace_id());
    let agent = Some(format!("agent-{}", nth % 3));
    let run = RunSummary { started_at: started, agent_id: agent, workflow_id: None, ..state.summary(started) };
    RunSummary { status: RunStatus::Success, ..run }
}

fn write(writer: &mut FilesWriter, nth: u64, bodies: Vec<(Option<&str>, EventBody)>) -> RunId {
    let events: Vec<Event> = bodies.into_iter().zip(0..).map(|((step, body), seq)| event(seq, step, body)).collect();
    let summary = RunSummary { events: events.len() as u64, ..run(nth) };
    writer.create_run(&summary, &events).unwrap();
    summary.run_id
}

fn search(layout: &Layout, query: &str, filters: &Query) -> Vec<FoundRun> {
    let reader = FilesReader::of(layout.clone()).unwrap();
    super::search(&reader, &Wanted { query, filters, limit: 0, hits: 3 }, &mut |_| {}).unwrap()
}

fn found(layout: &Layout, query: &str) -> Vec<RunId> {
    search(layout, query, &Query::default()).into_iter().map(|found| found.run_id).collect()
}

/// What a person would say who reads all texts.
fn has(texts: &[Vec<String>], node: &Node) -> bool {
    match node {
        Node::Leaf(leaf) => {
            let words: Vec<&str> = leaf.text.split_whitespace().collect();
            texts.iter().any(|text| {
                text.windows(words.len()).any(|window| {
                    window.iter().zip(&words).enumerate().all(|(at, (word, wanted))| {
                        if leaf.is_prefix && at + 1 == words.len() { word.starts_with(wanted) } else { word == wanted }
                    })
                })
            })
        }
        Node::All(nodes) => nodes.iter().all(|node| has(texts, node)),
        Node::Any(nodes) => nodes.iter().any(|node| has(texts, node)),
        Node::Without(wanted, unwanted) => has(texts, wanted) && !has(texts, unwanted),
    }
}

fn queries() -> impl Strategy<Value = String> {
    let leaf = prop_oneof!["(aa|ab|b|bc|c)\\*?", "\"(aa|ab|b|bc|c) (aa|ab|b|bc|c)\"\\*?",];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a}) NOT ({b})")),
        ]
    })
}

#[test]
fn a_query_finds_the_runs_whose_texts_have_it_and_no_other() {
    let words = ["aa", "ab", "b", "bc", "c", "d"];
    let mut random = 7_u64;
    let mut next = |of: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % of
    };
    let (_dir, layout, mut writer) = store();
    let mut runs: Vec<(RunSummary, Vec<Vec<String>>)> = Vec::new();
    for nth in 0..40 {
        let texts: Vec<Vec<String>> =
            (0..next(4)).map(|_| (0..1 + next(4)).map(|_| words[next(6) as usize].to_owned()).collect()).collect();
        let bodies = texts
            .iter()
            .enumerate()
            .map(|(at, text)| (if at % 2 == 0 { Some("chat") } else { None }, log(&text.join(" "))));
        write(&mut writer, nth, bodies.collect());
        runs.push((run(nth), texts));
    }
    let reader = FilesReader::of(layout.clone()).unwrap();
    let index = database::whole(&reader, Depth::Runs, &mut |_| {}).unwrap();
    let texts = whole(&index, &reader, &mut |_| {}).unwrap();
    let filters = proptest::option::of(0_u64..3);
    proptest!(ProptestConfig::with_cases(300), |(query in queries(), agent in filters, limit in 0_usize..4)| {
        let node = Node::parse(&query).unwrap();
        let filters = Query { agent_id: agent.map(|nth| format!("agent-{nth}")), ..Query::default() };
        let found = texts.find(&index, &reader, &node, &Wanted { query: &query, filters: &filters, limit, hits: 9 }).unwrap();
        let mut expected: Vec<&(RunSummary, _)> =
            runs.iter().filter(|(run, texts)| filters.matches(run) && has(texts, &node)).collect();
        expected.sort_by_key(|(run, _)| std::cmp::Reverse(run.started_at));
        let starts = |runs: &[RunId]| runs.iter().map(|run| run.time()).collect::<Vec<_>>();
        let (got, all) = (found.iter().map(|found| found.run_id).collect::<Vec<_>>(), expected.iter().map(|(run, _)| run.run_id).collect::<Vec<_>>());
        let wanted = if limit == 0 { all.len() } else { limit.min(all.len()) };
        prop_assert_eq!(got.len(), wanted, "{}", query);
        // Of runs that began in one millisecond any may come first.
        prop_assert_eq!(starts(&got), starts(&all[..wanted]), "{}", query);
        prop_assert!(got.iter().all(|run| all.contains(run)), "{}", query);
        for found in &found {
            prop_assert!(!found.hits.is_empty() && found.hits.iter().all(|hit| !hit.marks.is_empty()), "{} {:?}", query, found);
        }
    });
}

#[test]
fn a_text_is_found_where_it_was_first_told_with_its_step_field_and_place() {
    let (_dir, layout, mut writer) = store();
    let question = json!({"role": "user", "parts": [{"type": "text", "content": "Is the Zürich office open?"}]});
    let answer = json!({"role": "assistant", "parts": [
        {"type": "tool_call", "id": "call-secret", "name": "look_up", "arguments": "{\"place\": \"Zürich\\nHQ\", \"floor\": 7}"},
    ]});
    let id = write(
        &mut writer,
        1,
        vec![
            (None, input(question.clone())),
            (Some("chat"), call(json!([question]), json!([answer]))),
            (Some("chat-2"), call(json!([question, answer]), json!("It opens at nine. 東京都 is closed."))),
        ],
    );
    let hits = |query: &str| {
        let found = search(&layout, query, &Query::default());
        assert!(found.iter().all(|found| found.run_id == id));
        let hits = found.into_iter().flat_map(|found| found.hits);
        hits.map(|hit| {
            let chars: Vec<char> = hit.snippet.chars().collect();
            let marks: Vec<String> = hit.marks.iter().map(|(from, to)| chars[*from..*to].iter().collect()).collect();
            format!("{} {} {:?} {}", hit.step_id.as_deref().unwrap_or("-"), hit.field, marks, hit.snippet)
        })
        .collect::<Vec<_>>()
    };
    assert_eq!(
        hits("zurich"),
        ["- input [\"Zürich\"] Is the Zürich office open?", "chat output [\"Zürich\"] look_up · Zürich HQ · 7"]
    );
    assert_eq!(
        hits("output:zurich office"),
        ["- input [\"office\"] Is the Zürich office open?", "chat output [\"Zürich\"] look_up · Zürich HQ · 7"]
    );
    assert_eq!(hits("\"zürich hq\""), ["chat output [\"Zürich HQ\"] look_up · Zürich HQ · 7"]);
    assert_eq!(hits("brief"), ["chat input [\"brief\"] Be brief."]);
    assert_eq!(hits("京都"), ["chat-2 output [\"京都\"] It opens at nine. 東京都 is closed."]);
    // Borders, ids and words of the wire format are no text.
    for nothing in
        ["\"look_up zürich\"", "\"call-secret\"", "tool_call", "assistant", "input:nine", "京東", "open NOT office"]
    {
        assert_eq!(hits(nothing), [""; 0], "{nothing}");
    }
}

#[test]
fn what_is_removed_or_replaced_leaves_no_text_behind() {
    let (_dir, layout, mut writer) = store();
    let gone = write(&mut writer, 1, vec![(None, log("xylophonist rehearses"))]);
    let stays = write(&mut writer, 2, vec![(None, log("quarterly figures"))]);
    assert_eq!((found(&layout, "xylophonist"), found(&layout, "quarterly")), (vec![gone], vec![stays]));
    let has_bytes = |word: &str| {
        let file = std::fs::read(path(&layout)).unwrap();
        file.windows(word.len()).any(|bytes| bytes == word.as_bytes())
    };
    assert!(has_bytes("xylophonist") && has_bytes("quarterly"));
    writer.delete_run(gone).unwrap();
    let changed = [event(0, None, log("annual figures"))];
    writer.replace_events(stays, &changed).unwrap();
    writer.update_run(&RunSummary { events: 1, updated_at: UnixNanos::from_millis(9), ..run(2) }).unwrap();
    assert_eq!((found(&layout, "xylophonist"), found(&layout, "quarterly")), (vec![], vec![]));
    assert_eq!(found(&layout, "annual"), [stays]);
    assert!(!has_bytes("xylophonist") && !has_bytes("quarterly") && has_bytes("annual"));
}

#[test]
fn texts_follow_an_index_and_a_file_that_begin_anew() {
    let (_dir, layout, mut writer) = store();
    let ids: Vec<RunId> =
        (0..9).map(|nth| write(&mut writer, nth, vec![(None, log(&format!("number{nth} same")))])).collect();
    assert_eq!(found(&layout, "same").len(), 9);
    let stamp = |path: PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
    // Nothing has changed, so nothing is written.
    let before = stamp(path(&layout));
    assert_eq!(found(&layout, "number7"), [ids[7]]);
    assert_eq!(stamp(path(&layout)), before);
    std::fs::remove_file(database::path(&layout)).unwrap();
    writer.delete_run(ids[3]).unwrap();
    assert_eq!(found(&layout, "same").len(), 8);
    let good = std::fs::read(path(&layout)).unwrap();
    for damage in 0..good.len() / 512 {
        let mut bytes = good.clone();
        bytes[damage * 512..(damage + 1) * 512].fill(0xa5);
        std::fs::write(path(&layout), bytes).unwrap();
        // Whatever a page says that is not right any more: no run is found that is not there, and nothing fails.
        assert!(found(&layout, "same").iter().all(|run| ids.contains(run)));
    }
    for content in [Vec::new(), b"rubbish ".repeat(2_000)] {
        std::fs::write(path(&layout), content).unwrap();
        assert_eq!(found(&layout, "same").len(), 8);
    }
    std::fs::remove_file(path(&layout)).unwrap();
    std::fs::create_dir(path(&layout)).unwrap();
    assert_eq!(found(&layout, "same").len(), 8);
}

#[test]
fn a_keeper_takes_in_steps_and_texts_unless_they_are_switched_off() {
    let (_dir, layout, mut writer) = store();
    database::rebuild(&layout, |_| {}).unwrap();
    let texts = || Texts::open(&layout).unwrap();
    let count = |connection: &Connection| -> i64 {
        connection.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap_or(0)
    };
    let wait_for = |is_there: &dyn Fn() -> bool| {
        let until = Instant::now() + Duration::from_secs(60);
        while !is_there() {
            assert!(Instant::now() < until, "nobody took them in");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let keeper = database::Keeper::start(&layout, true, || false);
    let ids: Vec<RunId> = (0..5).map(|nth| write(&mut writer, nth, vec![(None, log("kept"))])).collect();
    wait_for(&|| count(&texts().connection) == 5);
    // No line tells that a run is gone.
    writer.delete_run(ids[2]).unwrap();
    wait_for(&|| count(&texts().connection) == 4);
    assert_eq!(Database::open(&layout).unwrap().runs_behind().unwrap(), 0);
    drop(keeper);
    let keeper = database::Keeper::start(&layout, false, || false);
    write(&mut writer, 9, vec![(None, log("not kept"))]);
    wait_for(&|| !path(&layout).exists());
    drop(keeper);
}

#[test]
fn of_each_word_a_place_is_shown_before_a_second_one_of_another() {
    assert_eq!(some_of_each(&[vec![1, 2, 3], vec![9], vec![2, 4]], 3), [1, 2, 9]);
    assert_eq!(some_of_each(&[vec![1, 2, 3], vec![9]], 9), [1, 2, 3, 9]);
    assert!(some_of_each(&[vec![1], vec![]], 0).is_empty());
}

#[test]
fn runs_of_one_moment_have_rows_of_their_own() {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch(TABLES).unwrap();
    let row = || Row {
        fields: [
            Field("text".to_owned()),
            Field::default(),
            Field::default(),
            Field::default(),
            Field::default(),
            Field::default(),
        ],
        ..Row::default()
    };
    let read = |nth: u64, rows: usize| Read { known: run(nth), log_bytes: 0, rows: (0..rows).map(|_| row()).collect() };
    for (nth, rows) in [(0, 3), (1, 2), (2, 1), (0, 5), (1, 0)] {
        put(&connection, &read(nth, rows)).unwrap();
    }
    let mut statement = connection.prepare("SELECT first, count FROM runs WHERE count > 0 ORDER BY first").unwrap();
    let places = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let places: Vec<(i64, i64)> = places.collect::<std::result::Result<_, _>>().unwrap();
    assert_eq!(places.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [5, 1]);
    assert!(places.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
    let rows: i64 = connection.query_row("SELECT count(*) FROM texts", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 6);
}
