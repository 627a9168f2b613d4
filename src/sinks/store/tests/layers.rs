//! Calls that several layers tell of, and what their failures mean for the run.

use super::*;

/// A span: its number and its parent's, its operation, from when to when in ms, and attributes.
type Spoken<'a> = (u8, u8, &'a str, u64, u64, &'a [(&'a str, &'a str)]);

/// Among the attributes of a span: the name of its scope.
const SCOPE: &str = "scope";

/// Stores a run of spans that came ended, and returns it with a line a step.
fn stored(spans: &[Spoken<'_>]) -> (RunSummary, Vec<String>) {
    let mut sink = StoreSink::new(MemoryStore::default(), RunId([7; 16]));
    sink.take_from_outside(SILENCE);
    for (seq, (id, parent, operation, from, to, more)) in (1..).zip(spans) {
        let mut span = Span {
            trace_id: vec![3; 16],
            span_id: vec![*id; 8],
            parent_span_id: if *parent == 0 { Vec::new() } else { vec![*parent; 8] },
            name: format!("s{id}"),
            start_time_unix_nano: 1_767_693_600_000_000_000 + from * 1_000_000,
            end_time_unix_nano: 1_767_693_600_000_000_000 + to * 1_000_000,
            ..Span::default()
        };
        span.set_attr(names::OPERATION, *operation);
        for (key, value) in *more {
            span.set_attr(key, if *value == "true" { Value::Bool(true) } else { Value::from(*value) });
        }
        let named = more.iter().find(|(key, _)| *key == SCOPE).map(|(_, name)| (*name).to_owned());
        let scope = crate::model::otlp::Scope { name: named.unwrap_or_default(), ..Default::default() };
        let record = Record { kind: RecordKind::Ended, resource: Arc::default(), scope, span };
        sink.take(seq, record).unwrap();
    }
    sink.flush_all().unwrap();
    let store = sink.into_writer();
    let mut listed = store.list_runs(&Query::default()).unwrap();
    assert_eq!(listed.len(), 1);
    let Some(Listed::Run(run)) = listed.pop() else { panic!("damaged") };
    let steps = store.get_steps(run.summary.run_id).unwrap();
    let line = |step: &crate::model::StepView| {
        let copy = step.duplicate_of.as_ref().map(|of| format!(" copy of {of}")).unwrap_or_default();
        let agent = step.agent_id.as_ref().map(|agent| format!(" of {agent}")).unwrap_or_default();
        format!("{} {} {}{agent}{copy}", step.name, step.kind, step.status)
    };
    (run.summary, steps.iter().map(line).collect())
}

#[test]
fn a_tool_fails_with_the_step_below_it_that_bears_the_id_of_the_call() {
    let call = [(names::TOOL_NAME, "get_weather"), (names::TOOL_CALL_ID, "c-1")];
    let failed = [(names::TOOL_CALL_ID, "c-1"), (names::ERROR_TYPE, "Down")];
    let other = [(names::TOOL_CALL_ID, "c-2"), (names::ERROR_TYPE, "Down")];
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "execute_tool", 10, 20, &call),
        (3, 2, "work", 11, 19, &failed),
        (4, 1, "execute_tool", 30, 40, &[(names::TOOL_NAME, "other")]),
        (5, 4, "work", 31, 39, &other),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 tool error
    s3 task error
    s4 tool success
    s5 task error
    ");
    assert_eq!((run.status, run.errors, run.tool_calls), (RunStatus::Success, 2, 2));
}

#[test]
fn a_tool_within_one_of_its_name_is_the_same_call_unless_a_model_was_asked_in_between() {
    let tool = [(names::TOOL_NAME, "invoke")];
    let told: [Spoken<'_>; 6] = [
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "execute_tool", 10, 90, &tool),
        (3, 2, "work", 11, 89, &[]),
        (4, 3, "work", 12, 88, &[]),
        (5, 4, "execute_tool", 30, 40, &tool),
        // Of an agent that is a tool, and that no span is of.
        (6, 4, "chat", 20, 29, &[]),
    ];
    assert_eq!(stored(&told[..5]).0.tool_calls, 1);
    assert_eq!(stored(&told).0.tool_calls, 2);
}

#[test]
fn a_step_belongs_to_the_agent_that_it_names_else_to_that_of_the_step_above_it() {
    let agent = |name| [(names::AGENT_NAME, name)];
    let (_, steps) = stored(&[
        (1, 0, "invoke_workflow", 0, 100, &[]),
        (2, 1, "invoke_agent", 10, 90, &agent("writer")),
        (3, 2, "work", 11, 89, &[]),
        (4, 3, "chat", 12, 20, &[]),
        (5, 3, "execute_tool", 21, 80, &[]),
        (6, 5, "invoke_agent", 22, 70, &agent("critic")),
        (7, 6, "chat", 23, 30, &[]),
        // It says itself whose it is.
        (8, 6, "chat", 31, 32, &agent("judge")),
        // An agent without a name is neither of those above it.
        (9, 6, "invoke_agent", 40, 60, &[]),
        (10, 9, "chat", 41, 50, &[]),
        // In a circle, and below nothing.
        (11, 12, "chat", 91, 92, &[]),
        (12, 11, "chat", 91, 92, &[]),
        (13, 99, "chat", 93, 94, &[]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 workflow success
    s2 agent success of writer
    s3 task success of writer
    s4 llm success of writer
    s5 tool success of writer
    s6 agent success of critic
    s7 llm success of critic
    s8 llm success of judge
    s9 agent success
    s10 llm success
    s12 llm success
    s11 llm success
    s13 llm success
    ");
}

#[test]
fn a_tool_call_that_two_layers_tell_is_one() {
    let named = [(names::TOOL_NAME, "get_weather")];
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "execute_tool", 10, 20, &named),
        (3, 2, "work", 11, 19, &[]),
        (4, 3, "execute_tool", 12, 18, &named),
        (5, 4, "execute_tool", 13, 17, &[(names::TOOL_NAME, "another")]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 tool success
    s3 task success
    s4 tool success copy of get_weather
    s5 tool success
    ");
    assert_eq!(run.tool_calls, 2);
}

#[test]
fn a_step_that_took_no_time_reports_the_call_before_it() {
    let model = [(names::REQUEST_MODEL, "gpt-4o")];
    let used = [(names::REQUEST_MODEL, "gpt-4o"), (names::INPUT_TOKENS, "211"), (names::OUTPUT_TOKENS, "37")];
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &model),
        (3, 1, "chat", 25, 25, &used),
        (4, 1, "chat", 30, 40, &model),
        (5, 1, "chat", 45, 50, &used),
        (6, 1, "chat", 60, 60, &[(names::REQUEST_MODEL, "o3"), (names::INPUT_TOKENS, "1")]),
        (7, 1, "chat", 70, 80, &[(names::REQUEST_MODEL, "o1"), (names::ERROR_TYPE, "429")]),
        (8, 1, "chat", 90, 90, &[(names::REQUEST_MODEL, "o1"), (names::INPUT_TOKENS, "1")]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm success copy of chat-2
    s3 llm success
    s4 llm success
    s5 llm success
    s6 llm success
    s7 llm error
    s8 llm success
    ");
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (6, Some(424)));
}

#[test]
fn of_two_layers_that_disagree_the_one_that_spoke_to_the_server_counts() {
    let tokens = |n| [(names::RESPONSE_ID, "r-1"), (names::INPUT_TOKENS, "211"), (names::OUTPUT_TOKENS, n)];
    let wire = [&tokens("37")[..], &[(names::HTTP_METHOD, "POST")]].concat();
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &tokens("38")),
        (3, 1, "chat", 11, 19, &wire),
    ]);
    assert_eq!(steps[1], "s2 llm success copy of chat-2");
    assert_eq!(run.tokens.and_then(|tokens| tokens.completion), Some(37));
}

#[test]
fn a_call_that_names_no_model_has_that_of_the_layer_around_it() {
    let mut sink = outside_sink();
    let mut inner = ended(3, 4, 3, "chat", 3, 4);
    inner.span.set_attr(names::INPUT_TOKENS, 211);
    inner.span.set_attr(names::OUTPUT_TOKENS, 37);
    let mut outer = ended(3, 2, 1, "chat", 2, 5);
    outer.span.set_attr(names::REQUEST_MODEL, "gpt-5-mini");
    sink.take(1, inner).unwrap();
    sink.take(2, ended(3, 3, 2, "receive", 2, 5)).unwrap();
    sink.take(3, outer).unwrap();
    sink.take(4, ended(3, 1, 0, "invoke_agent", 0, 9)).unwrap();
    sink.flush_all().unwrap();
    let runs = listed(sink);
    let [run] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (1, Some(211)));
    assert_eq!(run.cost_usd.map(|cost| cost.0), Some(211 * 250 + 37 * 2_000));
}

#[test]
fn a_call_that_was_seen_on_its_way_is_that_of_the_program_in_whose_time_it_began() {
    const MODEL: (&str, &str) = (names::REQUEST_MODEL, "m");
    const RELAYED: (&str, &str) = (names::RELAYED, "true");
    let (run, steps) = stored(&[
        (1, 0, "invoke_workflow", 0, 100, &[]),
        (2, 9, "chat", 0, 50, &[MODEL]),
        (3, 9, "chat", 10, 60, &[MODEL]),
        // Tried again by the program's SDK.
        (4, 1, "chat", 12, 20, &[MODEL, RELAYED, (names::ERROR_TYPE, "429"), (names::STEP_STATUS, "error")]),
        (5, 1, "chat", 22, 40, &[MODEL, RELAYED, (names::RESPONSE_ID, "a")]),
        (6, 1, "chat", 25, 45, &[MODEL, RELAYED, (names::RESPONSE_ID, "b")]),
        // Of no step of the program: another model, another time, another answer.
        (7, 1, "chat", 25, 45, &[(names::REQUEST_MODEL, "n"), RELAYED]),
        (8, 1, "chat", 61, 62, &[MODEL, RELAYED]),
        (10, 9, "chat", 70, 90, &[MODEL, (names::RESPONSE_ID, "c")]),
        (11, 1, "chat", 75, 80, &[MODEL, RELAYED, (names::RESPONSE_ID, "d")]),
    ]);
    assert_eq!((run.llm_calls, run.errors), (6, 0));
    insta::assert_snapshot!(steps.join("\n"), @r"
    s1 workflow success
    s2 llm success
    s3 llm success
    s4 llm error copy of chat
    s5 llm success copy of chat
    s6 llm success copy of chat-2
    s7 llm success
    s8 llm success
    s10 llm success
    s11 llm success
    ");
}

#[test]
fn a_call_that_two_layers_tell_beside_each_other_is_one_where_they_used_the_same() {
    let used = |n| [(names::REQUEST_MODEL, "gpt-4o"), (names::INPUT_TOKENS, "211"), (names::OUTPUT_TOKENS, n)];
    let answered = [&used("37")[..], &[(names::RESPONSE_ID, "r-1")]].concat();
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        // LangChain, and OpenAI's client below it.
        (2, 1, "chat", 10, 20, &used("37")),
        (3, 1, "chat", 11, 19, &answered),
        // Another use, and another time.
        (4, 1, "chat", 12, 18, &used("38")),
        (5, 1, "chat", 30, 40, &used("37")),
        // Two requests of one client.
        (6, 1, "chat", 50, 60, &[&used("37")[..], &[(names::HTTP_METHOD, "POST")]].concat()),
        (7, 1, "chat", 51, 59, &[&used("37")[..], &[(names::RESPONSE_ID, "r-2")]].concat()),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm success copy of chat-2
    s3 llm success
    s4 llm success
    s5 llm success
    s6 llm success
    s7 llm success
    ");
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (5, Some(1_055)));
}

#[test]
fn what_repeats_what_the_call_beside_it_used_is_not_added() {
    let used = |n| [(names::REQUEST_MODEL, "gpt-4o"), (names::INPUT_TOKENS, n), (names::OUTPUT_TOKENS, "37")];
    // AG2: a report of each call, of one that has no span, and of what was used otherwise.
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &used("211")),
        (3, 1, "record_usage", 21, 22, &used("211")),
        (4, 1, "record_usage", 23, 24, &used("211")),
        (5, 1, "record_usage", 25, 26, &used("9")),
    ]);
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (1, Some(431)));
    // What another agent used altogether, of which no second one is a call that has no span.
    let all = [(names::INPUT_TOKENS, "220"), (names::OUTPUT_TOKENS, "74")];
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "execute_tool", 10, 50, &[]),
        (3, 2, "invoke_agent", 11, 49, &[]),
        (4, 3, "chat", 12, 20, &used("211")),
        (5, 3, "chat", 30, 40, &used("9")),
        (6, 1, "record_usage", 51, 52, &all),
        (7, 1, "record_usage", 53, 54, &all),
    ]);
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (2, Some(220)));
    // Two layers tell of the call, and a report repeats it once.
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &used("211")),
        (3, 1, "chat", 11, 19, &[&used("211")[..], &[(names::RESPONSE_ID, "r-1")]].concat()),
        (4, 1, "record_usage", 21, 22, &used("211")),
        (5, 1, "record_usage", 23, 24, &used("211")),
    ]);
    assert_eq!((run.llm_calls, run.tokens.and_then(|tokens| tokens.prompt)), (1, Some(422)));
    // A sum that names no model is of the calls beside it, and what lies around a call repeats that anyway.
    let sum = |n| [(names::TOTAL_TOKENS, n)];
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &sum("100")),
        (3, 1, "record_usage", 21, 22, &sum("5000")),
    ]);
    assert_eq!(run.tokens.and_then(|tokens| tokens.total), Some(100));
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "work", 9, 21, &used("211")),
        (3, 2, "chat", 10, 20, &used("211")),
        (4, 1, "record_usage", 31, 32, &used("211")),
    ]);
    assert_eq!(run.tokens.and_then(|tokens| tokens.prompt), Some(211));
}

#[test]
fn who_asks_for_an_answer_again_adds_nothing_to_what_the_call_used() {
    let used = [("gen_ai.usage.input_tokens", "1000"), ("gen_ai.usage.output_tokens", "100")];
    let first = [used[0], used[1], (names::RESPONSE_ID, "a")];
    let other = [("gen_ai.usage.input_tokens", "900"), used[1], (names::RESPONSE_ID, "b")];
    let told: [Spoken<'_>; 5] = [
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 1, 2, &first),
        (3, 1, "fetch_response", 3, 4, &first),
        (4, 1, "fetch_response", 5, 6, &first),
        // Of an answer whose call nobody tells of.
        (5, 1, "fetch_response", 7, 8, &other),
    ];
    let prompt = |run: RunSummary| run.tokens.and_then(|tokens| tokens.prompt);
    assert_eq!(prompt(stored(&told[..4]).0), Some(1_000));
    assert_eq!(prompt(stored(&told).0), Some(1_900));
}

#[test]
fn a_call_that_is_around_another_and_of_which_nobody_knows_the_price_is_unpriced() {
    let used = [("gen_ai.usage.input_tokens", "1000"), ("gen_ai.usage.output_tokens", "100")];
    let priced = [used[0], used[1], (names::COST_USD, "0.5")];
    let (run, _) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 90, &used),
        (3, 2, "execute_tool", 20, 80, &[]),
        (4, 3, "chat", 30, 40, &priced),
    ]);
    assert_eq!((run.cost_usd, run.unpriced_steps), (crate::model::NanoUsd::from_usd(0.5), 1));
}

/// `axiom` 0.52.2 with the AI SDK: one call around a whole stream, and below it a step for each request of it.
#[test]
fn plain_steps_below_a_call_that_tell_all_its_parts_add_nothing() {
    let used = |prompt, completion| [(names::INPUT_TOKENS, prompt), (names::OUTPUT_TOKENS, completion)];
    let run = |prompt: &'static str| {
        let (run, _) = stored(&[
            (1, 0, "invoke_agent", 0, 100, &[]),
            (2, 1, "chat", 10, 90, &used("532", "94")),
            (3, 2, "work", 20, 30, &used("211", "37")),
            (4, 2, "work", 40, 50, &used(prompt, "57")),
        ]);
        run.tokens.unwrap().prompt
    };
    assert_eq!(run("321"), Some(532));
    // Whoever counts otherwise, as without what was cached.
    assert_eq!(run("320"), Some(532));
}

#[test]
fn what_names_no_call_adds_nothing_beside_or_below_one() {
    let used = |prompt, completion| [(names::INPUT_TOKENS, prompt), (names::OUTPUT_TOKENS, completion)];
    let prompt = |told: &[Spoken<'_>]| stored(told).0.tokens.unwrap().prompt;
    let call: Spoken<'_> = (2, 1, "chat", 10, 90, &used("100", "10"));
    let agent: Spoken<'_> = (1, 0, "invoke_agent", 0, 100, &[]);
    // A client's own span, which counts without what was cached, and what is below it.
    assert_eq!(prompt(&[agent, call, (3, 2, "work", 20, 30, &used("90", "9"))]), Some(100));
    assert_eq!(
        prompt(&[agent, call, (3, 2, "work", 20, 30, &[]), (4, 3, "work", 21, 29, &used("90", "9"))]),
        Some(100)
    );
    // A sum beside calls, and in a step beside them.
    assert_eq!(prompt(&[agent, call, (3, 1, "work", 91, 92, &used("90", "9"))]), Some(100));
    assert_eq!(
        prompt(&[agent, call, (3, 1, "work", 91, 94, &[]), (4, 3, "work", 92, 93, &used("90", "9"))]),
        Some(100)
    );
    // Without an agent.
    assert_eq!(prompt(&[(1, 0, "work", 0, 100, &[]), call, (3, 1, "work", 91, 92, &used("90", "9"))]), Some(100));
    // What another agent did, of whose calls nothing is told, and a tool.
    let other: Spoken<'_> = (3, 1, "invoke_agent", 91, 94, &[]);
    assert_eq!(prompt(&[agent, call, other, (4, 3, "work", 92, 93, &used("90", "9"))]), Some(190));
    assert_eq!(prompt(&[agent, call, (3, 2, "execute_tool", 20, 30, &used("7", "3"))]), Some(107));
    let flow: Spoken<'_> = (3, 1, "invoke_workflow", 91, 94, &[]);
    assert_eq!(prompt(&[agent, call, flow, (4, 3, "work", 92, 93, &used("90", "9"))]), Some(190));
    // Where no call tells, all that is told counts.
    let silent: Spoken<'_> = (2, 1, "chat", 10, 90, &[]);
    assert_eq!(prompt(&[agent, silent, (3, 1, "work", 91, 92, &used("90", "9"))]), Some(90));
}

#[test]
fn the_error_of_a_run_is_that_of_the_innermost_step_that_says_why() {
    let why = [(names::ERROR_TYPE, "Down"), (names::ERROR_MESSAGE, "no more")];
    // The request below a call has failed without a word.
    let (run, _) = stored(&[
        (1, 0, "invoke_workflow", 0, 100, &[]),
        (2, 1, "invoke_agent", 10, 90, &[(names::ERROR_TYPE, "Failed")]),
        (3, 2, "chat", 20, 80, &why),
        (4, 3, "work", 30, 70, &[(names::ERROR_TYPE, "")]),
    ]);
    let error = run.error.unwrap();
    assert_eq!((error.kind.as_deref(), error.message.as_deref()), (Some("Down"), Some("no more")));
    assert_eq!(error.step_id.as_deref(), Some("chat"));
}

#[test]
fn what_other_models_failed_at_inside_a_call_was_tried_and_what_it_used_is_billed() {
    let used =
        |model, prompt| [(names::REQUEST_MODEL, model), (names::INPUT_TOKENS, prompt), (names::OUTPUT_TOKENS, "5")];
    let answered = [used("claude-sonnet-4-5", "100").as_slice(), &[(names::RESPONSE_ID, "r")]].concat();
    let rejected = [used("gpt-4o-mini", "30").as_slice(), &[(names::ERROR_TYPE, "_OTHER")]].concat();
    let down = [(names::REQUEST_MODEL, "gpt-4o"), (names::ERROR_TYPE, "Down"), (names::ERROR_MESSAGE, "no more")];
    // Pydantic AI's `FallbackModel`.
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 90, &answered),
        (3, 2, "chat", 11, 20, &down),
        (4, 2, "chat", 21, 40, &rejected),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm success
    s3 llm error
    s4 llm error
    ");
    assert_eq!((run.status, run.llm_calls, run.errors), (RunStatus::Success, 3, 2));
    assert_eq!(run.tokens.unwrap().prompt, Some(130));

    // None has answered: what was asked of is one of those.
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 90, &[(names::REQUEST_MODEL, "fallback:gpt-4o,claude"), (names::ERROR_TYPE, "Group")]),
        (3, 2, "chat", 11, 20, &down),
        (4, 2, "chat", 21, 40, &[(names::REQUEST_MODEL, "claude"), (names::ERROR_TYPE, "Down")]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm error copy of chat-3
    s3 llm error
    s4 llm error
    ");
    assert_eq!((run.status, run.llm_calls, run.errors), (RunStatus::Error, 2, 2));
}

#[test]
fn a_try_inside_a_call_of_the_same_model_is_no_other_call_and_has_failed() {
    let model = |model| (names::REQUEST_MODEL, model);
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 90, &[model("gpt-4o"), (names::INPUT_TOKENS, "100")]),
        (3, 2, "chat", 11, 20, &[model("gpt-4o-2024-08-06"), (names::ERROR_TYPE, "Down")]),
        // A layer that tells no model.
        (4, 2, "chat", 21, 30, &[(names::ERROR_TYPE, "Down")]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm success
    s3 llm error copy of chat
    s4 llm error copy of chat
    ");
    assert_eq!((run.status, run.llm_calls, run.errors), (RunStatus::Success, 1, 2));
}

#[test]
fn of_two_layers_that_tell_of_a_failure_the_one_that_says_why_counts() {
    let model = (names::REQUEST_MODEL, "m");
    let (run, steps) = stored(&[
        (1, 0, "invoke_agent", 0, 100, &[]),
        (2, 1, "chat", 10, 20, &[model, (names::ERROR_TYPE, "Down"), (names::ERROR_MESSAGE, "no more")]),
        // Mistral's own client.
        (3, 2, "chat", 11, 19, &[model, (names::ERROR_TYPE, "_OTHER"), (names::HTTP_METHOD, "POST")]),
    ]);
    insta::assert_snapshot!(steps.join("\n"), @"
    s1 agent success
    s2 llm error
    s3 llm error copy of chat
    ");
    assert_eq!((run.llm_calls, run.errors), (1, 1));
}

#[test]
fn a_run_ends_like_its_last_call_where_the_root_says_that_all_is_well() {
    const FAILED: &[(&str, &str)] = &[(names::ERROR_TYPE, "UserError")];
    const GIVEN_UP: &[(&str, &str)] = &[(names::ERROR_TYPE, "asyncio.exceptions.CancelledError")];
    const LATE: &[(&str, &str)] = &[(names::ERROR_TYPE, "APITimeoutError")];
    let ended = |call, agent, more: &[Spoken<'static>]| {
        let mut told: Vec<Spoken<'_>> = vec![
            (1, 0, "invoke_workflow", 0, 100, &[]),
            (2, 1, "invoke_agent", 5, 50, agent),
            (3, 2, "chat", 10, 20, call),
        ];
        told.extend_from_slice(more);
        stored(&told).0.status
    };
    assert_eq!(ended(&[], &[], &[]), RunStatus::Success);
    assert_eq!(ended(FAILED, &[], &[]), RunStatus::Error);
    assert_eq!(ended(GIVEN_UP, &[], &[]), RunStatus::Cancelled);
    assert_eq!(ended(LATE, &[], &[]), RunStatus::Timeout);
    // An agent that failed without a failed call: its root knows what became of it.
    assert_eq!(ended(&[], FAILED, &[]), RunStatus::Success);
}

/// As Koog makes it, whose agents have one span around them that says nothing.
#[test]
fn what_makes_an_agent_and_encloses_its_work_is_that_agents_run() {
    const FAILED: &[(&str, &str)] =
        &[("gen_ai.agent.id", "planner"), (names::AGENT_NAME, "planner"), (names::ERROR_TYPE, "Down")];
    let told = |made: &'static str, above: u8, more: &[Spoken<'static>]| {
        let id: &[(&str, &str)] = &[("gen_ai.agent.id", made)];
        let mut spans: Vec<Spoken<'_>> =
            vec![(1, 0, "create_agent", 0, 100, id), (2, above, "invoke_agent", 5, 50, FAILED)];
        spans.extend_from_slice(more);
        let run = stored(&spans).0;
        (run.kind, run.name().to_owned(), run.status)
    };
    let of_agent = |status| (RunKind::Agent, "planner".to_owned(), status);
    let of_maker = (RunKind::Workflow, "s1".to_owned(), RunStatus::Success);
    assert_eq!(told("planner", 1, &[]), of_agent(RunStatus::Error));
    // Another agent's, and further below.
    assert_eq!(told("other", 1, &[]), of_maker);
    assert_eq!(told("planner", 3, &[(3, 1, "work", 1, 99, &[])]), of_maker);
    // It was at work again.
    let again = (3, 1, "invoke_agent", 60, 90, &FAILED[..2]);
    assert_eq!(told("planner", 1, &[again]), of_agent(RunStatus::Success));
}

#[test]
fn a_failure_that_a_step_beside_the_call_tells_again_is_one() {
    let own = [(names::ERROR_TYPE, "ApiError"), (names::ERROR_MESSAGE, "500 no more")];
    let told = [(names::ERROR_TYPE, "ApiError"), (names::ERROR_MESSAGE, "ApiError: 500 no more")];
    let (run, _) = stored(&[
        (1, 0, "invoke_workflow", 0, 100, &[]),
        // OpenLIT's LangChain and LangGraph.
        (2, 1, "invoke_agent", 10, 90, &told),
        (3, 2, "chat", 20, 80, &own),
        (7, 3, "POST", 30, 70, &[(names::ERROR_TYPE, "")]),
        (4, 1, "node", 15, 85, &told),
        // At another time, and something else.
        (5, 1, "node", 91, 92, &told),
        (6, 1, "node", 15, 85, &[(names::ERROR_TYPE, "ApiError"), (names::ERROR_MESSAGE, "lost")]),
        // An agent beside it that has failed for itself.
        (8, 1, "invoke_agent", 15, 85, &told),
    ]);
    assert_eq!(run.errors, 4);
}

#[test]
fn a_plain_step_that_gives_no_reason_has_failed_for_the_call_within_its_time() {
    let down = [(names::ERROR_TYPE, "InternalServerError"), (names::ERROR_MESSAGE, "500 no more")];
    let silent = [(names::ERROR_TYPE, "ProxyException")];
    // FastAPI's own spans around LiteLLM's proxy.
    let (run, _) = stored(&[
        (1, 0, "request", 0, 100, &[(names::ERROR_TYPE, "500")]),
        (2, 1, "dependencies", 10, 19, &[]),
        (3, 2, "chat", 20, 80, &down),
        (4, 1, "endpoint", 19, 90, &silent),
        // At another time.
        (5, 1, "endpoint", 91, 92, &silent),
    ]);
    assert_eq!((run.status, run.errors), (RunStatus::Error, 2));
    let error = run.error.unwrap();
    assert_eq!((error.kind.as_deref(), error.message.as_deref()), (Some("InternalServerError"), Some("500 no more")));
}

#[test]
fn a_failure_that_is_told_around_a_call_says_more_than_that_the_call_tells_no_answer() {
    let run = |agent: &[(&str, &str)]| {
        let given_up = [(names::STEP_STATUS, "cancelled")];
        stored(&[
            (1, 0, "invoke_workflow", 0, 100, &[]),
            (2, 1, "invoke_agent", 10, 90, agent),
            (3, 2, "chat", 20, 80, &given_up),
        ])
    };
    let (broken, _) = run(&[(names::ERROR_TYPE, "ReadError"), (names::ERROR_MESSAGE, "peer closed connection")]);
    let error = broken.error.unwrap();
    assert_eq!((broken.status, error.message.as_deref()), (RunStatus::Error, Some("peer closed connection")));
    assert_eq!(run(&[]).0.status, RunStatus::Cancelled);
    assert_eq!(run(&[(names::ERROR_TYPE, "ReadTimeout")]).0.status, RunStatus::Timeout);
}

/// The OpenAI Agents SDK, whose trace ends well whatever happens in it.
#[test]
fn a_run_whose_root_always_says_that_all_is_well_ends_as_its_last_agent_did() {
    let by = (SCOPE, "openinference.instrumentation.openai_agents");
    let down = [by, (names::ERROR_TYPE, "UserError"), (names::ERROR_MESSAGE, "station is gone")];
    let of = |more: &[Spoken<'_>]| {
        let told: [Spoken<'_>; 3] =
            [(1, 0, "invoke_workflow", 0, 100, &[by]), (2, 1, "work", 1, 99, &[by]), (4, 3, "chat", 20, 30, &[by])];
        let run = stored(&[&told, more].concat()).0;
        (run.status, run.error.map(|error| (error.message.unwrap_or_default(), error.step_id.unwrap_or_default())))
    };
    let failed = || (RunStatus::Error, Some(("station is gone".to_owned(), "s3".to_owned())));
    let well = || (RunStatus::Success, None);
    let agent: Spoken<'_> = (3, 2, "invoke_agent", 10, 90, &down);
    // A tool that failed on its way there, and what ended below it a moment later.
    let tool: Spoken<'_> = (5, 3, "execute_tool", 31, 40, &[by, (names::ERROR_TYPE, "E"), (names::ERROR_MESSAGE, "x")]);
    assert_eq!(of(&[agent, tool, (6, 3, "execute_tool", 41, 91, &[by])]), failed());
    // A turn of an agent that knows of nothing.
    let (status, error) = of(&[(3, 2, "invoke_agent", 10, 95, &[by]), (5, 3, "turn", 15, 90, &down)]);
    assert_eq!((status, error.unwrap().1.as_str()), (RunStatus::Error, "s5"));
    // Another one that did it instead, or that goes on with what was said of the failure.
    assert_eq!(of(&[agent, (5, 2, "invoke_agent", 91, 98, &[by])]), well());
    let below: Spoken<'_> = (7, 6, "invoke_agent", 50, 60, &down);
    let around: [Spoken<'_>; 2] = [(3, 2, "invoke_agent", 10, 90, &[by]), (6, 3, "execute_tool", 45, 61, &[by])];
    assert_eq!(of(&[around[0], around[1], below]), well());
    assert_eq!(of(&[around[0], (6, 3, "work", 45, 61, &[by]), below, (8, 3, "chat", 62, 70, &[by])]), well());
    // A tool that failed is its agent's affair, and so is what another instrumentation tells of.
    assert_eq!(of(&[around[0], tool]), well());
    let other: Spoken<'_> = (5, 3, "invoke_agent", 15, 89, &[(names::ERROR_TYPE, "E")]);
    assert_eq!(of(&[around[0], other]), well());
    // One that says that it ended the agent, which knows of nothing (`openai-agents` 0.3 and 0.5), unless a model was told.
    let says = |message: &'static str| [by, (names::ERROR_TYPE, "UserError"), (names::ERROR_MESSAGE, message)];
    let told: Spoken<'_> = (6, 3, "chat", 41, 50, &[by]);
    let fatal = says("Error running tool: {'tool_name': 'get_weather', 'error': 'station is gone'}");
    let (status, error) = of(&[around[0], (5, 3, "execute_tool", 31, 40, &fatal)]);
    assert_eq!((status, error.unwrap().1.as_str()), (RunStatus::Error, "s5"));
    assert_eq!(of(&[around[0], (5, 3, "execute_tool", 31, 40, &fatal), told]), well());
    let reported = says("Error running tool (non-fatal): {'tool_name': 'get_weather', 'error': 'station is gone'}");
    assert_eq!(of(&[around[0], (5, 3, "execute_tool", 31, 40, &reported)]), well());
}

/// Two spans that each name the other as their parent: the one that began first is above, whichever comes first.
#[test]
fn of_steps_below_each_other_the_first_is_topmost_whichever_comes_first() {
    let step = |id: u8, parent: u8, from: u64| {
        let mut step = ended(3, id, parent, "chat", from, 100);
        step.span.set_attr(names::ERROR_TYPE, format!("E{id}").as_str());
        step
    };
    let mut seen = HashSet::new();
    for order in [[(2, 1, 10), (1, 2, 20)], [(1, 2, 20), (2, 1, 10)]] {
        for pause in [Duration::ZERO, 3 * LATE] {
            let mut sink = outside_sink();
            for (seq, (id, parent, from)) in (1..).zip(order) {
                sink.take(seq, step(id, parent, from)).unwrap();
                sink.flush_all().unwrap();
                sink.flush(Instant::now() + pause).unwrap();
            }
            sink.close_silent(UnixNanos(u64::MAX)).unwrap();
            sink.flush_all().unwrap();
            let run = sink.traces.values().find_map(|trace| trace.first_run).unwrap();
            let state = RunState::read(run, &sink.written_events(run).unwrap());
            let names: Vec<_> =
                state.step_views().into_iter().map(|step| format!("{} {}", step.step_id, step.span_id)).collect();
            seen.insert(names.join(", "));
        }
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen.iter().next().is_some_and(|names| names.starts_with("chat 0202")), "{seen:?}");
}
