//! What records of logs tell beside spans.

use super::*;

#[test]
fn a_log_whose_span_does_not_come_stands_for_itself() {
    let mut sink = outside_sink();
    let told = |seq: u8, name: &str, more: &[(&str, &str)]| {
        let mut record = ended(3, seq, 0, "", 0, 0);
        let mut event = SpanEvent {
            time_unix_nano: record.span.start_time_unix_nano,
            name: name.to_owned(),
            ..SpanEvent::default()
        };
        let mut facts = Span::default();
        facts.set_attr("conversation.id", "c-1");
        more.iter().for_each(|(key, value)| facts.set_attr(key, *value));
        event.attributes = facts.attributes;
        (record.kind, record.span.events) = (RecordKind::Event, vec![event]);
        record
    };
    let used = [("event.kind", "response.completed"), ("input_token_count", "211"), ("model", "gpt-4o")];
    sink.take(1, told(1, "codex.conversation_starts", &[])).unwrap();
    sink.take(2, told(2, "codex.sse_event", &used)).unwrap();
    sink.take(3, told(3, "codex.user_prompt", &[])).unwrap();
    sink.flush(Instant::now()).unwrap();
    assert!(sink.runs.is_empty());
    sink.flush(Instant::now() + 2 * LATE).unwrap();
    sink.flush_all().unwrap();
    assert_eq!(sink.counts().total(Outcome::NotKept), 1);
    let runs = listed(sink);
    assert_eq!((runs.len(), runs[0].name(), runs[0].llm_calls), (1, "codex", 1));
    assert_eq!(runs[0].tokens.and_then(|tokens| tokens.prompt), Some(211));
}

/// A step that a log alone tells, of conversation `c-1`.
fn of_log(id: i64, name: &str) -> Record {
    let mut facts = Span::default();
    facts.set_attr("conversation.id", "c-1");
    facts.set_attr("event.kind", "response.completed");
    facts.set_attr("input_token_count", id);
    let end = 1_767_693_600_000_000_000;
    let span = crate::sources::log_step::step_of(name.to_owned(), end, facts.attributes).unwrap();
    let mut record = Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Default::default(), span };
    crate::pipeline::normalize::normalize(&mut record);
    record
}

#[test]
fn what_logs_tell_beside_the_spans_of_a_conversation_is_not_told_twice() {
    let of_span = || {
        let mut record = ended(3, 2, 0, "invoke_agent", 0, 9);
        record.span.set_attr(names::CONVERSATION_ID, "c-1");
        record
    };
    let placed = || {
        let mut record = ended(4, 3, 0, "", 0, 0);
        let mut facts = Span::default();
        facts.set_attr("conversation.id", "c-1");
        let event =
            SpanEvent { name: "codex.api_request".to_owned(), attributes: facts.attributes, ..SpanEvent::default() };
        (record.kind, record.span.events) = (RecordKind::Event, vec![event]);
        record
    };
    let call = || of_log(211, "codex.sse_event");
    // After how long what is stored: calls of models, by logs and by spans, and what is not kept.
    let told = |records: Vec<Record>, after: Duration| {
        let mut sink = outside_sink();
        let now = Instant::now();
        for (seq, record) in (1..).zip(records) {
            sink.take(seq, record).unwrap();
        }
        sink.flush(now + after).unwrap();
        let stored: u64 = sink.counts().total(Outcome::Stored);
        let left_out: u64 = sink.counts().total(Outcome::NotKept);
        (stored, left_out)
    };
    let (short, long) = (Duration::from_secs(7), LATE * 2);
    assert_eq!(told(vec![call()], Duration::ZERO), (0, 0));
    assert_eq!(told(vec![call()], short), (1, 0));
    // In any order.
    assert_eq!(told(vec![call(), of_span()], short), (1, 1));
    assert_eq!(told(vec![of_span(), call()], short), (1, 1));
    // Spans are on their way, and do not come.
    assert_eq!(told(vec![placed(), call()], short), (0, 0));
    assert_eq!(told(vec![placed(), call()], long), (1, 1));
    // In a run that is there already, as that of `exec`, too.
    let in_run = |mut record: Record| {
        record.span.set_attr(names::RUN_ID, RunId::from_parts(1_767_693_600_000, [9; 10]).to_string());
        record
    };
    assert_eq!(
        told(vec![in_run(ended(5, 5, 0, "invoke_workflow", 0, 9)), in_run(call()), in_run(of_span())], short),
        (2, 1)
    );
    // Spans of another time of the conversation tell nothing of it: what was not sampled, or sent no spans, is told by logs alone.
    let of_another_time = || {
        let mut record = ended(3, 2, 0, "invoke_agent", 5_000, 9_000);
        record.span.set_attr(names::CONVERSATION_ID, "c-1");
        record
    };
    assert_eq!(told(vec![of_another_time(), call()], short), (2, 0));
    // The end of the process is as good as a wait, whatever is on its way.
    let mut sink = outside_sink();
    sink.take(1, placed()).unwrap();
    sink.take(2, call()).unwrap();
    sink.flush_all().unwrap();
    assert_eq!(listed(sink).iter().map(|run| run.llm_calls).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_log_that_is_sent_again_is_told_once_also_where_its_span_never_comes() {
    let log = || {
        let mut record = ended(1, 9, 1, "", 0, 0);
        let time_unix_nano = record.span.start_time_unix_nano;
        let event = SpanEvent { time_unix_nano, name: "asked".to_owned(), ..SpanEvent::default() };
        (record.kind, record.span.events) = (RecordKind::Event, vec![event]);
        record
    };
    let logs = |told: Vec<Record>, flushes: bool| {
        let mut sink = outside_sink();
        for (seq, record) in (1..).zip(told) {
            sink.take(seq, record).unwrap();
            if flushes {
                sink.flush_all().unwrap();
            }
        }
        sink.flush_all().unwrap();
        let run = sink.runs.keys().next().copied().unwrap();
        let store = sink.into_writer();
        let events = store.get_events(run, 0).unwrap();
        // A store that passes over what it has says nothing of what it was given.
        assert_eq!(store.get_run(run).unwrap().events, events.len() as u64);
        events.iter().filter(|event| event.body.type_name() == "log").count()
    };
    let agent = || ended(1, 1, 0, "invoke_agent", 0, 30);
    for flushes in [false, true] {
        assert_eq!(logs(vec![agent(), log(), log()], flushes), 1);
        assert_eq!(logs(vec![log(), agent(), log()], flushes), 1);
        assert_eq!(logs(vec![ended(1, 2, 1, "chat", 10, 20), log(), log(), agent()], flushes), 1);
    }
}

/// Which copy of a span counts is told by what was sent of it, and not by which of them a log had joined.
#[test]
fn a_log_that_joins_a_copy_does_not_make_it_count() {
    let copy = |to: u64| ended(3, 1, 0, "chat", 0, to);
    let mut log = copy(50);
    log.kind = RecordKind::Event;
    let mut event = SpanEvent { name: "gen_ai.client.inference.operation.details".to_owned(), ..SpanEvent::default() };
    event.time_unix_nano = log.span.start_time_unix_nano + 1;
    for (key, value) in [(names::INPUT_TOKENS, 7), (names::OUTPUT_TOKENS, 1)] {
        event.attributes.push(KeyValue { key: key.to_owned(), value: Some(Value::Int(value).into()) });
    }
    log.span.events = vec![event];
    let told = [copy(100), copy(200), log];
    let mut seen = HashSet::new();
    for order in [[0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 0, 1], [2, 1, 0], [1, 2, 0]] {
        let mut sink = outside_sink();
        for (seq, place) in (1..).zip(order) {
            sink.take(seq, told[place].clone()).unwrap();
            sink.flush_all().unwrap();
        }
        sink.flush(Instant::now() + 3 * LATE).unwrap();
        sink.flush_all().unwrap();
        let run = &listed(sink)[0];
        seen.insert((run.duration_ms, run.tokens.and_then(|tokens| tokens.prompt)));
    }
    assert_eq!(seen, HashSet::from([(Some(200), Some(7))]));
}

/// `exec` tells so of calls that it had no time for. It is counted once, whether the log is written as it comes or put in order.
#[test]
fn what_a_span_says_was_lost_is_counted_once() {
    let told = |id: u8, from: u64, lost: i64| {
        let mut record = ended(7, id, u8::from(id == 2), "invoke_agent", from, 100);
        if lost > 0 {
            let mut event = SpanEvent { name: DROPPED_LOG.to_owned(), ..SpanEvent::default() };
            event.time_unix_nano = record.span.end_time_unix_nano;
            event.attributes.push(KeyValue { key: "count".to_owned(), value: Some(Value::Int(lost).into()) });
            record.span.events.push(event);
        }
        record
    };
    for order in [[told(1, 0, 3), told(2, 1, 0)], [told(2, 1, 0), told(1, 0, 3)]] {
        let mut sink = outside_sink();
        for (seq, record) in (1..).zip(order) {
            sink.take(seq, record).unwrap();
            sink.flush_all().unwrap();
        }
        sink.flush(Instant::now() + 3 * LATE).unwrap();
        sink.flush_all().unwrap();
        assert_eq!(listed(sink)[0].dropped, 3);
    }
}

/// What OpenLIT 1.45 sends of a graph that is run by `ainvoke`: a span of the workflow, one of the request, whose parent never comes, and
/// a log that bears its id.
#[test]
fn a_call_of_which_only_a_log_came_is_one_below_the_root_until_its_span_comes() {
    let log = || {
        let mut record = ended(1, 5, 0, "", 90, 90);
        let mut event = SpanEvent { name: CALL_LOG.to_owned(), ..SpanEvent::default() };
        event.time_unix_nano = record.span.start_time_unix_nano;
        let mut facts = Span::default();
        for (key, value) in [
            (names::OPERATION, Value::from("chat")),
            (names::REQUEST_MODEL, "gpt-4o-mini".into()),
            (names::RESPONSE_ID, "chatcmpl-41".into()),
            (names::INPUT_TOKENS, Value::Int(1717)),
            (names::OUTPUT_TOKENS, Value::Int(143)),
            (names::CACHE_READ_TOKENS, Value::Int(128)),
        ] {
            facts.set_attr(key, value);
        }
        event.attributes = facts.attributes;
        (record.kind, record.span.events) = (RecordKind::Event, vec![event]);
        record
    };
    let root = || {
        let mut record = ended(1, 1, 0, "invoke_workflow", 0, 100);
        record.span.set_attr(names::INPUT_TOKENS, 9);
        record
    };
    let request = || ended(1, 6, 5, "", 20, 80);
    let call = || {
        let mut record = ended(1, 5, 1, "chat", 10, 85);
        record.span.set_attr(names::INPUT_TOKENS, 1717);
        record
    };
    let seen = |told: &[&[Record]]| {
        let mut sink = outside_sink();
        let mut seq = 0;
        for (place, batch) in told.iter().enumerate() {
            for record in *batch {
                seq += 1;
                sink.take(seq, record.clone()).unwrap();
            }
            sink.flush_all().unwrap();
            sink.flush(Instant::now() + (LATE + LOOK) * (place as u32 + 1)).unwrap();
            sink.flush_all().unwrap();
        }
        let store = sink.into_writer();
        let Some(Listed::Run(run)) = store.list_runs(&Query::default()).unwrap().pop() else { panic!("damaged") };
        let (run, summary) = (run.summary.run_id, run.summary);
        let tokens = summary.tokens.map(|tokens| (tokens.prompt, tokens.cache_read));
        let mut lines = vec![format!("{} {} calls {tokens:?}", summary.status, summary.llm_calls)];
        lines.extend(store.get_steps(run).unwrap().iter().map(|step| {
            let place = step.parent_span_id.map(|parent| parent.to_string()).unwrap_or_default();
            format!("{place}/ {} {} {:?} ms", step.kind, step.step_id, step.duration_ms.unwrap_or_default())
        }));
        lines.join("\n")
    };
    let alone = seen(&[&[log(), request(), root()]]);
    insta::assert_snapshot!(alone, @"
    success 1 calls Some((Some(1717), Some(128)))
    / workflow s1 100.0 ms
    0101010101010101/ llm chat 70.0 ms
    0505050505050505/ task s6 60.0 ms
    ");
    assert_eq!(seen(&[&[request(), root()], &[log()]]), alone);
    assert_eq!(seen(&[&[root(), request()], &[log()], &[log()]]), alone);
    // Another instrumentation tells of the call, and not of which answer it was.
    let mut other = ended(1, 7, 1, "chat", 10, 85);
    other.span.set_attr(names::INPUT_TOKENS, 1717);
    other.span.set_attr(names::OUTPUT_TOKENS, 143);
    let beside = seen(&[&[log(), request(), other.clone(), root()]]);
    insta::assert_snapshot!(beside, @"
    success 1 calls Some((Some(1717), None))
    / workflow s1 100.0 ms
    0101010101010101/ llm chat 75.0 ms
    0505050505050505/ task s6 60.0 ms
    ");
    let whole = seen(&[&[log(), request(), call(), root()]]);
    insta::assert_snapshot!(whole, @"
    success 1 calls Some((Some(1717), Some(128)))
    / workflow s1 100.0 ms
    0101010101010101/ llm chat 75.0 ms
    0505050505050505/ task s6 60.0 ms
    ");
    assert_eq!(seen(&[&[log(), request(), root()], &[call()]]), whole);
    assert_eq!(seen(&[&[request(), root()], &[log()], &[call(), log()]]), whole);
}

/// The standard's event that tells all of a call.
const CALL_LOG: &str = "gen_ai.client.inference.operation.details";

#[test]
fn what_may_be_below_a_step_that_is_under_way_is_not_over_for_the_log_of_a_call() {
    let mut log = ended(1, 5, 0, "", 90, 90);
    let mut event = SpanEvent { name: CALL_LOG.to_owned(), ..SpanEvent::default() };
    event.time_unix_nano = log.span.start_time_unix_nano;
    let mut facts = Span::default();
    facts.set_attr(names::OPERATION, "chat");
    facts.set_attr(names::OUTPUT_TOKENS, 7);
    event.attributes = facts.attributes;
    (log.kind, log.span.events) = (RecordKind::Event, vec![event]);
    let mut sink = outside_sink();
    // An agent, which lasts, and a tool of its.
    sink.take(1, log).unwrap();
    sink.take(2, ended(1, 6, 5, "execute_tool", 20, 80)).unwrap();
    for minutes in 1..3 {
        sink.flush(Instant::now() + (LATE + LOOK) * minutes).unwrap();
    }
    assert_eq!(sink.runs.len(), 1);
    sink.take(3, ended(1, 5, 4, "invoke_agent", 10, 95)).unwrap();
    sink.take(4, ended(1, 4, 0, "invoke_workflow", 0, 100)).unwrap();
    sink.flush_all().unwrap();
    assert_eq!(listed(sink).iter().map(|run| (run.llm_calls, run.tool_calls)).collect::<Vec<_>>(), [(0, 1)]);
}

#[test]
fn a_span_that_says_that_it_has_not_come_has_come() {
    let chat = || {
        let mut chat = ended(1, 5, 1, "chat", 10, 85);
        chat.span.set_attr(names::LOG_FOR_SPAN, true);
        chat
    };
    let mut sink = outside_sink();
    sink.take(1, chat()).unwrap();
    sink.take(2, ended(1, 1, 0, "invoke_agent", 0, 100)).unwrap();
    sink.flush_all().unwrap();
    // One that comes late has the log put in order once more.
    sink.take(3, ended(1, 6, 1, "execute_tool", 86, 90)).unwrap();
    sink.flush_all().unwrap();
    assert_eq!(listed(sink).iter().map(|run| (run.llm_calls, run.tool_calls)).collect::<Vec<_>>(), [(1, 1)]);
}
