use proptest::prelude::*;

use super::layers::{TICK, is_same_model, rank};
use super::*;
use crate::model::otlp::Span;
use crate::model::{ErrorInfo, EventId, RunId, RunStatus, UnixNanos};
use crate::pipeline::facts::Marks;

/// A call: whether it was passed on, of which model, from when, for how long, with which answer's id, failed.
pub(super) type Told = (bool, u8, u64, u64, u8, bool);

pub(super) fn state(told: &[Told]) -> RunState {
    let mut state = RunState::new(RunId([1; 16]), RunId([1; 16]).as_trace_id());
    for (place, &(is_relayed, model, start, length, answer, is_failed)) in told.iter().enumerate() {
        let mut facts = StepFacts::of(&Span::default(), None, None);
        (facts.kind, facts.billed, facts.is_relayed) = (StepKind::Llm, true, is_relayed);
        facts.request_model = Some(format!("m{model}"));
        facts.response_id = (answer > 0).then(|| answer.to_string());
        let status = if is_failed { StepStatus::Error } else { StepStatus::Success };
        facts.status = status;
        facts.tokens = (answer % 2 == 0).then(Tokens::default);
        state.steps.push(Step {
            step_id: place.to_string(),
            span_id: SpanId((place as u64 + 1).to_be_bytes()),
            trace_id: None,
            parent: None,
            has_remote_parent: false,
            start_event: EventId::from_parts(0, [0; 10]),
            started_at: UnixNanos(start),
            ended_at: (length < 9).then_some(UnixNanos(start + length)),
            status,
            facts: std::sync::Arc::new(facts),
            content: None,
        });
    }
    state
}

#[test]
fn a_layer_beside_the_client_that_it_tells_of_is_a_copy() {
    let copies = |own: Told, wire: Told, change: &dyn Fn(&mut Step)| {
        let mut state = state(&[own, wire]);
        let wire = &mut state.steps[1];
        std::sync::Arc::make_mut(&mut wire.facts).is_at_wire = true;
        change(wire);
        state.duplicates()
    };
    let (layer, client) = ((false, 0, 1, 5, 0, false), (false, 0, 2, 3, 2, false));
    assert_eq!(copies(layer, client, &|_| ()), HashMap::from([(0, 1)]));
    // Another answer, another model, another time, another place.
    assert_eq!(copies((false, 0, 1, 5, 1, false), client, &|_| ()), HashMap::new());
    assert_eq!(copies((false, 1, 1, 5, 0, false), client, &|_| ()), HashMap::new());
    assert_eq!(copies((false, 0, 3, 5, 0, false), client, &|_| ()), HashMap::new());
    assert_eq!(copies(layer, client, &|step| step.parent = Some(SpanId([9; 8]))), HashMap::new());
    assert_eq!(
        copies(layer, client, &|step| std::sync::Arc::make_mut(&mut step.facts).is_at_wire = false),
        HashMap::new()
    );
    // The layer is around another call of the client.
    let mut state = state(&[layer, client, (false, 0, 2, 2, 0, false)]);
    std::sync::Arc::make_mut(&mut state.steps[1].facts).is_at_wire = true;
    state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
    state.steps[2].parent = Some(state.steps[0].span_id);
    assert_eq!(state.duplicates().get(&0), None);
    // The layer names the model that answered.
    let answered = |step: &mut Step| {
        let facts = std::sync::Arc::make_mut(&mut step.facts);
        (facts.request_model, facts.response_model) = (Some("alias".into()), Some("m0".into()));
    };
    assert_eq!(copies(layer, client, &answered), HashMap::from([(0, 1)]));
}

#[test]
fn a_layer_within_the_time_of_the_client_beside_it_is_a_copy() {
    use StepStatus::{Cancelled, Error, Success};
    /// When it began and ended, in seconds, how, and what it used.
    type Call = (u64, u64, StepStatus, Option<Tokens>);
    let used =
        |prompt: u64, completion: Option<u64>| Some(Tokens { prompt: Some(prompt), completion, ..Tokens::default() });
    // Clients first, then layers; `change` has the place of a step.
    let copies_of = |clients: &[Call], layers: &[Call], change: &dyn Fn(usize, &mut StepFacts)| {
        let calls: Vec<_> = clients.iter().chain(layers).collect();
        let mut state = state(&vec![(false, 0, 0, 0, 0, false); calls.len()]);
        for (place, (step, &&(start, end, status, tokens))) in state.steps.iter_mut().zip(&calls).enumerate() {
            let at = |seconds: u64| UnixNanos(seconds * 1_000_000_000);
            (step.started_at, step.ended_at, step.status) = (at(start), Some(at(end)), status);
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            (facts.tokens, facts.is_at_wire) = (tokens, place < clients.len());
            // Only layers say why.
            let message = (place >= clients.len()).then(|| "401".to_owned());
            facts.error = is_failure(status).then(|| ErrorInfo { message, ..ErrorInfo::default() });
            change(place, facts);
        }
        let mut copies: Vec<_> = state.duplicates().into_iter().collect();
        copies.sort_unstable();
        copies
    };
    let copies = |clients: &[Call], layers: &[Call]| copies_of(clients, layers, &|_, _| ());
    let answered = used(341, Some(102));
    let client = (100, 180, Success, answered);
    assert_eq!(copies(&[client], &[(110, 170, Success, answered)]), [(1, 0)]);
    // It used something else, ended later, took a small part of the time, or answered where the client did not.
    assert_eq!(copies(&[client], &[(110, 170, Success, used(341, Some(103)))]), []);
    assert_eq!(copies(&[(100, 160, Success, answered)], &[(110, 190, Success, answered)]), []);
    assert_eq!(copies(&[client], &[(130, 170, Success, answered)]), []);
    assert_eq!(copies(&[(100, 180, Error, None)], &[(110, 170, Success, None)]), []);
    // Chunks that are embedded at once are alike, and so may be what two providers count.
    let embeds = |_, facts: &mut StepFacts| facts.kind = StepKind::Embedding;
    assert_eq!(copies_of(&[client], &[(110, 170, Success, answered)], &embeds), []);
    let serves = |place, facts: &mut StepFacts| facts.provider = Some(format!("p{place}"));
    assert_eq!(copies_of(&[client], &[(110, 170, Success, answered)], &serves), []);
    // Of a stream that was given up the client says so, and the layer has the count that it began with.
    let begun = (110, 170, Success, used(341, Some(1)));
    assert_eq!(copies(&[(100, 180, Cancelled, used(341, None))], &[begun]), [(1, 0)]);
    assert_eq!(copies(&[(100, 180, Success, used(341, None))], &[begun]), []);
    // Of two that failed the one that says why counts; of two layers that did one is another call.
    assert_eq!(copies(&[(100, 180, Error, None)], &[(110, 170, Error, None)]), [(0, 1)]);
    assert_eq!(copies(&[(100, 180, Error, None)], &[(101, 170, Error, None), (110, 179, Error, None)]), [(0, 1)]);
    // Two at once, alike in all, are two.
    let other = (120, 200, Success, answered);
    let layers = [(110, 170, Success, answered), (130, 190, Success, answered)];
    assert_eq!(copies(&[client, other], &layers), [(2, 0), (3, 1)]);
    // The layer has a client of its own: the one before it, which was given up, is another.
    let given_up = (100, 180, Cancelled, used(341, None));
    assert_eq!(copies(&[given_up, (112, 168, Success, answered)], &[(110, 170, Success, answered)]), [(2, 1)]);
}

#[test]
fn of_two_layers_words_for_a_failure_those_of_the_one_that_counts_are_the_runs() {
    // The client ends last, and says nothing.
    let calls = [(false, 0, 10, 8, 0, true), (false, 0, 11, 6, 0, true), (false, 0, 9, 10, 0, true)];
    let why = || Some("401: no such key".to_owned());
    // The layer beside the client or around it, below an agent.
    for (of_client, message_of_client, counts) in [(2, None, "1"), (1, None, "1"), (2, why(), "0")] {
        let mut state = state(&calls);
        let kinds = [("authentication_error", message_of_client), ("AuthenticationError", why()), ("", None)];
        for (place, (step, (kind, message))) in state.steps.iter_mut().zip(kinds).enumerate() {
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            (facts.is_at_wire, facts.tokens) = (place == 0, None);
            facts.error =
                Some(ErrorInfo { kind: Some(kind.to_owned()).filter(|kind| !kind.is_empty()), message, step_id: None });
            if place == 2 {
                (facts.kind, facts.billed) = (StepKind::Agent, false);
            }
        }
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        let spans: Vec<SpanId> = state.steps.iter().map(|step| step.span_id).collect();
        (state.steps[0].parent, state.steps[1].parent) = (Some(spans[of_client]), Some(spans[2]));
        state.roots = std::iter::once(2).collect();
        let error = state.error(crate::model::RunStatus::Error).unwrap();
        assert_eq!(error.message, why());
        assert_eq!(error.step_id.as_deref(), Some(counts));
    }
}

#[test]
fn a_message_from_elsewhere_is_not_the_reason_of_a_failure_with_a_class_alone() {
    // An agent, a tool that it recovered from, and the call that ended it.
    let error_of = |errors: [Option<(&str, Option<&str>)>; 3]| {
        let mut state = state(&[(false, 0, 1, 8, 0, true), (false, 0, 2, 1, 0, true), (false, 0, 4, 4, 0, true)]);
        let root = state.steps[0].span_id;
        for (place, (step, error)) in state.steps.iter_mut().zip(errors).enumerate() {
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            let [kind, message] =
                [error.map(|error| error.0), error.and_then(|error| error.1)].map(|text| text.map(str::to_owned));
            (facts.error, facts.tokens) = (Some(ErrorInfo { kind, message, step_id: None }), None);
            let kinds = [StepKind::Agent, StepKind::Tool, StepKind::Llm];
            (facts.kind, facts.billed) = (kinds[place], place == 2);
            step.parent = (place > 0).then_some(root);
        }
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        state.roots = std::iter::once(0).collect();
        let ErrorInfo { kind, message, step_id } = state.error(crate::model::RunStatus::Error).unwrap();
        [kind, message, step_id].map(Option::unwrap_or_default)
    };
    let limit = ("RateLimitError", None);
    let told = error_of([None, Some(("FileNotFoundError", Some("no such file"))), Some(limit)]);
    assert_eq!(told, ["RateLimitError", "", "2"]);
    // The agent passes on what went wrong below it.
    let told = error_of([Some(("RateLimitError", Some("no answer"))), None, Some(limit)]);
    assert_eq!(told, ["RateLimitError", "no answer", "2"]);
}

#[test]
fn of_a_call_around_a_call_the_one_that_knows_more_counts() {
    let around = |change: &dyn Fn(&mut StepFacts, &mut StepFacts)| {
        let call = (false, 0, 1, 5, 0, false);
        let mut state = state(&[call, call]);
        state.steps[1].parent = Some(state.steps[0].span_id);
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        let [outer, inner] = &mut state.steps[..] else { unreachable!() };
        change(std::sync::Arc::make_mut(&mut outer.facts), std::sync::Arc::make_mut(&mut inner.facts));
        state.duplicates()
    };
    assert_eq!(around(&|_, _| ()), HashMap::from([(1, 0)]));
    // Cached tokens, reasoning, and the model.
    let read = Tokens { cache_read: Some(64), ..Tokens::default() };
    assert_eq!(around(&|_, inner| inner.tokens = Some(read)), HashMap::from([(0, 1)]));
    let all = Tokens { reasoning: Some(16), ..read };
    let more = |outer: &mut StepFacts, inner: &mut StepFacts| (outer.tokens, inner.tokens) = (Some(read), Some(all));
    assert_eq!(around(&more), HashMap::from([(0, 1)]));
    assert_eq!(around(&|outer, _| outer.request_model = None), HashMap::from([(0, 1)]));
}

#[test]
fn what_is_around_calls_of_which_it_tells_a_part_is_no_call() {
    /// From when to when, and what it used.
    type Call = (u64, u64, u64, u64);
    let copies = |outer: Call, inner: &[Call], change: &dyn Fn(&mut StepFacts)| {
        let calls: Vec<Call> = [outer].into_iter().chain(inner.iter().copied()).collect();
        let mut state = state(&vec![(false, 0, 0, 0, 0, false); calls.len()]);
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        let top = state.steps[0].span_id;
        for (place, (step, (start, end, prompt, completion))) in state.steps.iter_mut().zip(calls).enumerate() {
            let at = |seconds: u64| UnixNanos(seconds * 1_000_000_000);
            (step.started_at, step.ended_at) = (at(start), Some(at(end)));
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            facts.tokens = Some(Tokens { prompt: Some(prompt), completion: Some(completion), ..Tokens::default() });
            if place == 0 { change(facts) } else { step.parent = Some(top) }
        }
        let mut copies: Vec<_> = state.duplicates().into_iter().collect();
        copies.sort_unstable();
        copies
    };
    let rounds: [Call; 2] = [(1, 3, 100, 20), (4, 6, 150, 30)];
    let same = |_: &mut StepFacts| ();
    // It tells of the last one.
    assert_eq!(copies((0, 7, 150, 30), &rounds, &same), [(0, 2)]);
    // It tells of all of them, or of one answer that all are.
    let all = [(1, 0), (2, 0)];
    assert_eq!(copies((0, 7, 250, 50), &rounds, &same), all);
    assert_eq!(copies((0, 7, 300, 50), &rounds, &same), all);
    let told = copies((0, 7, 150, 30), &rounds, &|facts| facts.response_id = Some("a".to_owned()));
    assert_eq!(told, all);
    // All alike, and a sum of one side alone.
    assert_eq!(copies((0, 7, 150, 30), &[(1, 3, 150, 30), (4, 6, 150, 30)], &same), [(0, 2)]);
    assert_eq!(copies((0, 7, 150, 50), &rounds, &same), [(0, 2)]);
    // Two layers, of which one is there while the other is.
    assert_eq!(copies((0, 7, 150, 30), &[(1, 5, 100, 20), (4, 6, 150, 30)], &same), all);
}

#[test]
fn what_is_around_a_holder_holds_the_same_calls() {
    let told = [(0, 9, 150, 30), (1, 8, 150, 30), (2, 4, 100, 20), (5, 7, 150, 30)];
    let copies = copies_of(&[(false, 0, 0, 0, 0, false); 4], &|place, step, facts| {
        let (start, end, prompt, completion) = told[place];
        (step.started_at, step.ended_at) = (UnixNanos(start * 1_000_000_000), Some(UnixNanos(end * 1_000_000_000)));
        facts.tokens = used(prompt, completion);
        step.parent = [None, Some(1), Some(2), Some(2)][place].map(|id: u64| SpanId(id.to_be_bytes()));
    });
    assert_eq!(copies, [(0, 3), (1, 3)]);
}

proptest! {
    /// What counts for a copy counts, whatever is around what.
    #[test]
    fn copies_lead_to_a_step_that_counts(
        told in proptest::collection::vec((any::<bool>(), 0_u8..2, 0_u64..20, 1_u64..16, 0_u8..3, any::<bool>()), 2..10),
        parents in proptest::collection::vec(0_usize..10, 10),
        counts in proptest::collection::vec((0_u64..16, 0_u64..16, 0_u64..3), 10),
    ) {
        let mut state = state(&told);
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        let spans: Vec<SpanId> = state.steps.iter().map(|step| step.span_id).collect();
        for (place, step) in state.steps.iter_mut().enumerate() {
            let (prompt, completion, read) = counts[place];
            (step.parent, step.ended_at) = (spans.get(parents[place]).copied(), Some(UnixNanos(step.started_at.0 + told[place].3)));
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            (facts.is_at_wire, facts.request_model) = (prompt % 3 == 0, Some("m".to_owned()));
            facts.tokens = Some(Tokens { prompt: Some(prompt), completion: Some(completion), cache_read: Some(read), ..Tokens::default() });
            facts.local_port = (prompt % 2 == 0).then_some(1);
            let scope = if facts.is_relayed { 3 } else { read as u32 };
            facts.marks = (completion % 4 > 0).then(|| Box::new(Marks { scope, ..Marks::default() }));
        }
        let copies = state.duplicates();
        for (copy, of) in &copies {
            prop_assert!(copy != of && !copies.contains_key(of), "{:?}", copies);
        }
    }
}

#[test]
fn of_tries_that_are_around_each_other_none_is_the_other() {
    let mut state = state(&[(false, 0, 1, 5, 1, true), (false, 1, 2, 3, 3, true)]);
    state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
    state.steps[1].parent = Some(state.steps[0].span_id);
    assert_eq!(state.duplicates(), HashMap::from([(0, 1)]));
    state.steps[0].parent = Some(state.steps[1].span_id);
    assert_eq!(state.duplicates(), HashMap::new());
}

#[test]
fn a_model_is_known_by_its_name_with_a_server_before_it_and_a_version_behind() {
    for (one, other) in [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("openai/gpt-4o", "gpt-4o-2024-08-06"),
        ("claude-sonnet-4", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
        ("models/gemini-2.5-flash", "gemini-2.5-flash"),
        ("claude-3-5-haiku-latest", "Claude-3-5-haiku-latest"),
        ("llama3.2", "llama3.2:latest"),
    ] {
        assert!(is_same_model(one, other) && is_same_model(other, one), "{one} {other}");
    }
    for (one, other) in [
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4", "gpt-4o"),
        ("gpt-4o", "fallback:gpt-4o,claude-sonnet-4-5"),
        ("claude-sonnet-4", "claude-sonnet-4-5"),
        ("", "gpt-4o"),
    ] {
        assert!(!is_same_model(one, other) && !is_same_model(other, one), "{one} {other}");
    }
}

/// What `relayed` does, without sorting anything away: each call that was passed on against all others.
fn by_the_rule(state: &RunState) -> Vec<(usize, usize)> {
    let mut passed: Vec<(usize, &Step)> =
        state.steps.iter().enumerate().filter(|(_, step)| step.facts.is_relayed).collect();
    passed.sort_by_key(|(_, step)| (step.started_at, step.span_id));
    let mut answered = HashSet::new();
    let mut found = Vec::new();
    for (place, wire) in passed {
        let own = state.steps.iter().enumerate().filter(|(place, own)| {
            !own.facts.is_relayed
                && own.facts.request_model == wire.facts.request_model
                && (own.facts.response_id.is_none() || wire.facts.response_id.is_none())
                && own.started_at <= wire.started_at
                && own.ended_at.is_none_or(|end| wire.started_at <= end)
                && !answered.contains(place)
        });
        let fit = |own: &Step| {
            let end = own.ended_at.zip(wire.ended_at).filter(|(end, inner)| inner.0 <= end.0 + TICK);
            (end.is_some(), std::cmp::Reverse(end.map(|(end, _)| end)), own.started_at, own.span_id)
        };
        let Some((own_place, own)) = own.max_by_key(|(_, own)| fit(own)) else { continue };
        let broke_off = wire.facts.tokens.is_some() && is_failure(own.status) && rank(own) < rank(wire);
        if is_failure(wire.status) && !broke_off {
            found.push((place, own_place));
            continue;
        }
        answered.insert(own_place);
        found.push(if rank(own) > rank(wire) { (place, own_place) } else { (own_place, place) });
    }
    found
}

/// A run of calls below one step; `change` has the place of a step.
pub(super) fn copies_of(told: &[Told], change: &dyn Fn(usize, &mut Step, &mut StepFacts)) -> Vec<(usize, usize)> {
    let mut state = state(told);
    for (place, step) in state.steps.iter_mut().enumerate() {
        let mut facts = StepFacts::clone(&step.facts);
        change(place, step, &mut facts);
        step.facts = std::sync::Arc::new(facts);
    }
    state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
    let mut copies: Vec<_> = state.duplicates().into_iter().collect();
    copies.sort_unstable();
    copies
}

/// LangGraph by OpenInference, streamed, beside Anthropic's client: what reads the stream is below the node, the client is not.
#[test]
fn a_client_further_up_whose_request_falls_into_the_layers_time_is_the_same_call() {
    // An application's step, a node below it, a layer's call below that, and the client's below the first.
    let copies_by = |first_client: usize, start: u64, length: u64, out: u64, parent: u64, is_failed: bool| {
        let layer = (false, 0, 10, 8, 0, is_failed);
        let client = (false, 0, start, length, u8::from(!is_failed), is_failed);
        copies_of(&[(false, 0, 0, 8, 0, false), (false, 0, 1, 8, 0, false), layer, client], &|place, step, facts| {
            if place < 2 {
                (facts.kind, facts.billed) = (StepKind::Task, false);
                step.ended_at = Some(UnixNanos(100));
            }
            // One that failed knows nothing of its server.
            (facts.is_at_wire, facts.is_client) = (place == 3 && !is_failed, place >= first_client);
            facts.tokens = match place {
                2 if !is_failed => used(7, 3),
                3 if !is_failed => used(7, out),
                _ => None,
            };
            let parents = [0, 1, 2, parent];
            step.parent = (parents[place] > 0).then(|| SpanId(parents[place].to_be_bytes()));
        })
    };
    let copies = |start, length, out, parent, is_failed| copies_by(3, start, length, out, parent, is_failed);
    assert_eq!(copies(12, 4, 3, 1, false), [(2, 3)]);
    assert_eq!(copies_by(2, 12, 4, 3, 1, false), [(2, 3)], "a layer whose span is a client's, too");
    assert_eq!(copies(12, 4, 3, 1, true), [(3, 2)]);
    assert_eq!(copies(12, 4, 3, 0, true), [(3, 2)], "a client without a parent");
    // It used something else, was at another time, or is below another step.
    assert_eq!(copies(12, 4, 2, 1, false), []);
    assert_eq!(copies(40 * 1_000_000, 4, 3, 1, false), []);
    assert_eq!(copies(12, 4, 3, 99, false), []);
}

/// OpenLLMetry and OpenInference of one client: whose word has the answer's id may be the outer one.
#[test]
fn a_layer_without_the_answers_id_may_be_the_inner_one() {
    let copies = |inner: (u64, u64), out: u64| {
        let told = [(false, 0, 1_000, 8, 2, false), (false, 0, 0, 8, 0, false)];
        copies_of(&told, &|place, step, facts| {
            facts.tokens = used(7, if place == 0 { 3 } else { out });
            let (from, to) = if place == 0 { (10, 90) } else { inner };
            (step.started_at, step.ended_at) = (UnixNanos(from * 1_000_000), Some(UnixNanos(to * 1_000_000)));
        })
    };
    assert_eq!(copies((15, 89), 3), [(0, 1)]);
    assert_eq!(copies((15, 89), 2), []);
    assert_eq!(copies((15, 99), 3), []);
}

#[test]
fn of_an_answer_that_broke_off_who_passed_it_on_counts_where_he_knows_what_had_come() {
    let told = [(false, 0, 1, 5, 0, true), (true, 0, 2, 1, 0, true), (true, 0, 4, 1, 0, true)];
    let copies =
        |own: Option<Tokens>| copies_of(&told, &|place, _, facts| facts.tokens = [own, None, used(856, 1)][place]);
    // The first try had no answer.
    assert_eq!(copies(None), [(0, 2), (1, 2)]);
    assert_eq!(copies(used(856, 1)), [(1, 0), (2, 0)]);
}

/// Pydantic AI around Anthropic's client, cancelled: the client's span ends as ever, and tells nothing of an answer.
#[test]
fn a_layer_that_was_cancelled_around_a_client_that_says_nothing_counts() {
    let copies = |is_cancelled: bool, answer: u8| {
        let told = [(false, 0, 0, 8, 1, false), (false, 0, 1, 6, answer, false)];
        copies_of(&told, &|place, step, facts| {
            (facts.tokens, facts.is_at_wire) = (None, place == 1);
            if place == 0 {
                facts.response_id = None;
                step.status = if is_cancelled { StepStatus::Cancelled } else { StepStatus::Success };
            } else {
                step.parent = Some(SpanId(1_u64.to_be_bytes()));
            }
        })
    };
    assert_eq!(copies(false, 0), [(0, 1)]);
    assert_eq!(copies(true, 0), [(1, 0)]);
    // It was answered.
    assert_eq!(copies(true, 1), [(0, 1)]);
}

pub(super) fn used(prompt: u64, completion: u64) -> Option<Tokens> {
    Some(Tokens { prompt: Some(prompt), completion: Some(completion), ..Tokens::default() })
}

#[test]
fn who_passed_a_call_on_knows_its_model_by_another_name() {
    let names = |own: Option<&str>, passed_on: &str| {
        let calls = [(false, 0, 1, 6, 0, false), (true, 0, 2, 4, 2, false)];
        copies_of(&calls, &|place, _, facts| {
            facts.request_model = if place == 0 { own.map(str::to_owned) } else { Some(passed_on.to_owned()) };
        })
        .len()
    };
    for own in [Some("gpt-4o-mini"), Some("gpt-4o-mini-2024-07-18"), Some("openai/gpt-4o-mini"), None] {
        assert_eq!(names(own, "gpt-4o-mini"), 1, "{own:?}");
    }
    assert_eq!(names(Some("gpt-4o"), "gpt-4o-mini"), 0);
}

#[test]
fn a_stream_is_read_after_the_step_for_it_has_ended() {
    // A layer's step, and behind it the request; another layer's request beside that.
    let copies = |tokens: [Option<Tokens>; 2], is_relayed: bool, at: u64| {
        copies_of(&[(false, 0, 10, 2, 0, false), (is_relayed, 0, at, 8, 2, false)], &|place, _, facts| {
            (facts.tokens, facts.is_at_wire) = (tokens[place], place == 1);
        })
    };
    assert_eq!(copies([used(7, 3), used(7, 3)], true, 14), [(1, 0)]);
    assert_eq!(copies([used(7, 3), used(7, 3)], false, 14), [(0, 1)]);
    assert_eq!(copies([used(7, 3), used(7, 3)], false, 11), [(0, 1)], "it took a quarter of the time at most");
    // It is another call that comes later.
    assert_eq!(copies([used(7, 3), used(7, 3)], true, 1_000_000_000), []);
    assert_eq!(copies([used(7, 3), used(7, 3)], false, 1_000_000_000), []);
    // Something else, or nothing, was used.
    assert_eq!(copies([used(7, 3), used(7, 4)], true, 14), []);
    assert_eq!(copies([None, None], true, 14), []);
    // The request came a moment before, and was passed on.
    assert_eq!(copies([used(7, 3), used(7, 3)], true, 5), [(1, 0)]);
    // Each of two that are alike has its own request within its time.
    let begun = [(false, 0, 10, 1, 0, false), (false, 0, 12, 8, 0, false), (false, 0, 13, 6, 2, false)];
    let pairs = copies_of(&begun, &|place, _, facts| (facts.tokens, facts.is_at_wire) = (used(7, 3), place == 2));
    assert_eq!(pairs, [(1, 2)], "the request has a step around it");
    let alike = [
        (false, 0, 10, 5, 0, false),
        (false, 0, 11, 2, 2, false),
        (false, 0, 20, 5, 0, false),
        (false, 0, 21, 2, 4, false),
    ];
    let pairs = copies_of(&alike, &|place, _, facts| {
        (facts.tokens, facts.is_at_wire) = (used(7, 3), place % 2 == 1);
    });
    assert_eq!(pairs, [(0, 1), (2, 3)]);
}

#[test]
fn of_calls_at_once_the_one_that_ends_first_behind_a_request_made_it() {
    // Two of a layer's, and a client's request within each: the shorter one's lies within both.
    let ms = |at: u64| at * 1_000_000;
    let calls: [Told; 4] = [
        (false, 0, ms(0), 0, 0, false),
        (false, 0, ms(5), 0, 0, false),
        (true, 0, ms(7), 0, 0, false),
        (true, 0, ms(9), 0, 0, false),
    ];
    let ends = [500, 1_000, 490, 990];
    let copies = copies_of(&calls, &|place, step, facts| {
        step.ended_at = Some(UnixNanos(ms(ends[place])));
        facts.tokens = used(100, 10);
        facts.response_id = (place > 1).then(|| place.to_string());
    });
    assert_eq!(copies, [(2, 0), (3, 1)]);
}

#[test]
fn many_streams_that_are_alike_are_each_one_call() {
    // Pairs of a layer's step and the request behind it, one after the other.
    let calls: Vec<Told> = (0..600)
        .map(|n| (n % 2 == 1, 0, 1_000_000_000 * (n / 2) + if n % 2 == 1 { 10 } else { 0 }, 5, 0, false))
        .collect();
    let copies = copies_of(&calls, &|_, _, facts| facts.tokens = used(100, 1));
    assert_eq!(copies.len(), 300);
    assert!(copies.iter().all(|(copy, of)| *copy == of + 1 && of % 2 == 0), "{copies:?}");
}

#[test]
fn which_of_three_layers_counts_does_not_depend_on_their_order() {
    let layers =
        [(true, true, None, None, 0), (false, false, Some(9), None, 5), (false, false, Some(3), Some("stop"), 4)];
    let counted = |order: [usize; 3]| {
        let calls = order.map(|layer| (false, 0, 1, 5, 1, layers[layer].1));
        let copies = copies_of(&calls, &|place, _, facts| {
            let (is_at_wire, _, completion, reason, cache_read) = layers[order[place]];
            (facts.is_at_wire, facts.error) = (is_at_wire, None);
            facts.finish_reasons = reason.map(str::to_owned).into_iter().collect();
            let cache_read = Some(cache_read).filter(|count| *count > 0);
            let reasoning = (cache_read == Some(5)).then_some(1);
            facts.tokens = Some(Tokens { prompt: Some(853), completion, cache_read, reasoning, ..Tokens::default() });
        });
        assert_eq!(copies.len(), 2, "{copies:?}");
        order[copies[0].1]
    };
    let all = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].map(counted);
    assert_eq!(all, [all[0]; 6]);
}

#[test]
fn what_is_around_a_copy_is_no_call_beside_the_one_that_counts() {
    // A framework's call around the client's, and who passed it on.
    let calls = [(false, 0, 1, 7, 0, false), (false, 0, 2, 5, 0, false), (true, 0, 3, 3, 2, false)];
    let copies = copies_of(&calls, &|place, step, facts| {
        facts.tokens = used(7, 3);
        step.parent = (place == 1).then_some(SpanId(1_u64.to_be_bytes()));
        if place == 2 {
            facts.tokens = facts.tokens.map(|tokens| Tokens { cache_read: Some(5), ..tokens });
        }
    });
    assert_eq!(copies, [(0, 2), (1, 2)]);
}

#[test]
fn a_step_that_says_nothing_of_an_answer_ended_as_the_last_request_for_it_did() {
    let copies = |requests: [bool; 2], says: Option<&str>| {
        let [first, last] = requests;
        let calls = [(false, 0, 1, 8, 0, false), (true, 0, 2, 2, 0, first), (true, 0, 5, 2, 0, last)];
        copies_of(&calls, &|place, _, facts| {
            facts.tokens = None;
            facts.finish_reasons = says.filter(|_| place == 0).map(str::to_owned).into_iter().collect();
        })
    };
    assert_eq!(copies([true, true], None), [(0, 2), (1, 2)]);
    // It was answered, or it says how the answer ended.
    assert_eq!(copies([true, false], None).iter().filter(|(copy, _)| *copy == 0).count(), 0);
    assert_eq!(copies([true, true], Some("stop")), [(1, 0), (2, 0)]);
}

#[test]
fn of_an_answer_that_broke_off_the_client_counts_which_saw_that() {
    let copies = |reason: Option<&str>, failed: bool| {
        let calls = [(false, 0, 1, 7, 1, false), (false, 0, 2, 5, 1, failed)];
        copies_of(&calls, &|place, step, facts| {
            facts.tokens = if place == 0 {
                used(853, 1)
            } else {
                used(853, 1).map(|tokens| Tokens { completion: None, ..tokens })
            };
            (facts.is_at_wire, facts.error) = (place == 1, None);
            facts.cost = (place == 0).then_some((NanoUsd(1), CostSource::Computed));
            facts.finish_reasons = reason.filter(|_| place == 0).map(str::to_owned).into_iter().collect();
            step.parent = (place == 1).then_some(SpanId(1_u64.to_be_bytes()));
        })
    };
    assert_eq!(copies(None, true), [(0, 1)]);
    assert_eq!(copies(Some("stop"), true), [(1, 0)]);
}

#[test]
fn what_encloses_another_layers_word_for_a_call_is_no_part_of_the_bill() {
    // An agent with the sum, the layer's call below it, and who passed that on, below the command.
    let calls = [(false, 0, 1, 8, 0, false), (false, 0, 2, 5, 0, false), (true, 0, 3, 3, 2, false)];
    let mut state = state(&calls);
    for (place, step) in state.steps.iter_mut().enumerate() {
        let facts = std::sync::Arc::make_mut(&mut step.facts);
        (facts.kind, facts.billed) = if place == 0 { (StepKind::Agent, false) } else { (StepKind::Llm, true) };
        facts.tokens = used(7, 3).filter(|_| place != 1);
        step.parent = (place == 1).then_some(SpanId(1_u64.to_be_bytes()));
    }
    state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
    let copies = state.duplicates();
    assert_eq!(copies, HashMap::from([(1, 2)]));
    assert_eq!(state.counted(&copies).tokens, [2]);
}

#[test]
fn agents_that_tell_what_they_used_themselves_count_beside_those_they_work_for() {
    // A workflow with the sum of all, an agent, a tool, an agent in it, and a call.
    let counted = |own: bool, call_tells: bool| {
        let mut state = state(&[1, 2, 3, 4, 5].map(|start| (false, 0, start, 8 - start, 0, false)));
        let kinds = [StepKind::Workflow, StepKind::Agent, StepKind::Tool, StepKind::Agent, StepKind::Llm];
        for ((place, step), kind) in state.steps.iter_mut().enumerate().zip(kinds) {
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            (facts.kind, facts.billed) = (kind, kind == StepKind::Llm);
            facts.tells_own_use = own && kind == StepKind::Agent;
            facts.tokens = used(7, 3).filter(|_| kind != StepKind::Tool && (kind != StepKind::Llm || call_tells));
            facts.cost = (place == 1).then_some((NanoUsd(1), CostSource::Computed));
            step.parent = (place > 0).then(|| SpanId((place as u64).to_be_bytes()));
        }
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        let counted = state.counted(&HashMap::new());
        let unpriced = state.unpriced(&counted);
        (counted.tokens, unpriced)
    };
    assert_eq!(counted(false, false).0, [3]);
    // That of the inner one alone is not priced.
    assert_eq!(counted(true, false), (vec![1, 3], vec![3]));
    assert_eq!(counted(false, true).0, [4]);
    // The call's is the inner one's.
    assert_eq!(counted(true, true).0, [1, 4]);
}

#[test]
fn two_answers_that_have_one_id_by_chance_are_two_calls() {
    // Of each: start, length, tokens.
    let copies = |calls: [(u64, u64, Option<u64>); 2]| {
        let mut state = state(&calls.map(|(start, length, _)| (false, 0, start, length, 1, false)));
        for (step, (.., prompt)) in state.steps.iter_mut().zip(calls) {
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            facts.tokens = prompt.map(|prompt| Tokens { prompt: Some(prompt), ..Tokens::default() });
        }
        state.duplicates().len()
    };
    assert_eq!(copies([(10, 5, Some(7)), (20, 5, Some(8))]), 0);
    assert_eq!(copies([(20, 5, Some(7)), (10, 5, Some(8))]), 0);
    // Two requests that were passed on are two, whatever else is alike.
    let passed_on = |is_other| {
        let calls = [(true, 0, 10, 5, 1, false), (is_other, 0, 20, 5, 1, false), (is_other, 0, 12, 5, 1, false)];
        state(&calls).duplicates().len()
    };
    assert_eq!((passed_on(true), passed_on(false)), (0, 2));
    // The program tells of each, too.
    let both = [(false, 10), (true, 11), (false, 20), (true, 21)];
    let copies_of_both = state(&both.map(|(is_relayed, start)| (is_relayed, 0, start, 5, 1, false))).duplicates();
    assert_eq!(copies_of_both.len(), 2, "{copies_of_both:?}");
    // From a cache of answers, or told by two layers, in whole or in part.
    assert_eq!(copies([(10, 5, Some(7)), (20, 5, Some(7))]), 1);
    assert_eq!(copies([(10, 8, Some(7)), (12, 5, Some(8))]), 1);
    assert_eq!(copies([(10, 5, Some(7)), (20, 5, None)]), 1);
    // A report of what came before.
    assert_eq!(copies([(10, 5, Some(7)), (15, 0, Some(8))]), 1);
    assert_eq!(copies([(15, 0, Some(7)), (10, 5, Some(8))]), 1);
}

proptest! {
    /// Whatever is above what, itself included.
    #[test]
    fn no_step_is_a_copy_of_a_copy(
        told in prop::collection::vec((any::<bool>(), 0..2_u8, 0..4_u64, 0..10_u64, 0..3_u8, any::<bool>()), 1..8),
        shape in prop::collection::vec((0..10_usize, 0..4_u8), 8),
    ) {
        let mut state = state(&told);
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        let spans: Vec<SpanId> = state.steps.iter().map(|step| step.span_id).collect();
        for (step, (above, kind)) in state.steps.iter_mut().zip(shape) {
            step.parent = spans.get(above).copied();
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            (facts.kind, facts.billed) = match kind {
                0 => (StepKind::Task, false),
                1 => (StepKind::Tool, false),
                _ => (StepKind::Llm, true),
            };
            facts.tool_name = (kind == 1).then(|| "search".to_owned());
        }
        let copies = state.duplicates();
        for (copy, of) in &copies {
            prop_assert!(copy != of && !copies.contains_key(of), "{copies:?}");
        }
    }

    #[test]
    fn calls_that_were_passed_on_are_joined_by_the_rule(
        told in prop::collection::vec((any::<bool>(), 0..2_u8, 0..12_u64, 0..10_u64, 0..3_u8, any::<bool>()), 0..14)
    ) {
        let state = state(&told);
        prop_assert_eq!(state.relayed(&HashMap::new()), by_the_rule(&state));
    }
}

/// Logfire's streams: the request says nothing of the answer, and a record of a log behind it has what there is.
#[test]
fn a_record_of_a_log_reports_the_call_before_it_that_asked_the_same() {
    // Two requests at once, whose answers were read in the other order, and a record of a third that failed.
    let calls = [(false, 0, 1, 5, 0, false), (false, 0, 2, 5, 0, false), (false, 0, 3, 5, 0, false)];
    let records = [(false, 0, 9, 0, 0, false), (false, 0, 10, 0, 0, false), (false, 0, 11, 0, 0, true)];
    let copies_by = |is_report: bool, inputs: [u32; 6]| {
        copies_of(&[calls, records].concat(), &|place, _, facts| {
            facts.tokens = None;
            let is_report = is_report && place > 2;
            facts.marks = Some(Box::new(Marks { is_report, input: Some(inputs[place]), ..Marks::default() }));
        })
    };
    assert_eq!(copies_by(true, [1, 2, 3, 2, 1, 3]), [(0, 4), (1, 3), (2, 5)]);
    // Each is of one, and of one alone.
    assert_eq!(copies_by(true, [7; 6]), [(0, 5), (1, 4), (2, 3)]);
    // Something else was asked, or it is a call that a clock of whole milliseconds has no time for.
    assert_eq!(copies_by(true, [1, 2, 3, 4, 1, 3]), [(0, 4), (2, 5)]);
    assert_eq!(copies_by(false, [1, 2, 3, 2, 1, 3]), []);
}

/// ADK's agent by OpenInference, which says of it that it is its last call that was answered: the next one failed.
#[test]
fn what_goes_on_behind_an_answer_is_no_try_of_one_call() {
    let copies_by = |second_start: u64, second_fails: bool, first_fails: bool| {
        let outer = (false, 0, 0, 8, 0, false);
        let calls = [(false, 0, 1, 2, 0, first_fails), (false, 0, second_start, 2, 0, second_fails)];
        copies_of(&[[outer].as_slice(), &calls].concat(), &|place, step, facts| {
            step.parent = (place > 0).then(|| SpanId(1u64.to_be_bytes()));
            facts.tokens = if is_failure(step.status) { None } else { used(10, 5) };
            // In seconds.
            step.started_at = UnixNanos(step.started_at.0 * 1_000_000_000);
            step.ended_at = step.ended_at.map(|end| UnixNanos(end.0 * 1_000_000_000));
        })
    };
    assert_eq!(copies_by(4, true, false), [(0, 1)]);
    // What was tried again before it was answered is one call, and of two at once nobody knows.
    assert_eq!(copies_by(4, false, true), [(1, 0), (2, 0)]);
    assert_eq!(copies_by(2, true, false), [(1, 0), (2, 0)]);
}

/// Steps of one kind with these parents, by place, each with tokens unless it is a call.
fn tree_of(parents: &[Option<usize>], is_call: impl Fn(usize) -> bool) -> RunState {
    let mut state = state(&vec![(false, 0, 1, 1, 0, false); parents.len()]);
    for (place, parent) in parents.iter().enumerate() {
        state.steps[place].parent = parent.map(|parent| SpanId((parent as u64 + 1).to_be_bytes()));
        let facts = std::sync::Arc::make_mut(&mut state.steps[place].facts);
        if !is_call(place) {
            (facts.kind, facts.billed) = (StepKind::Agent, false);
        }
        facts.tokens = Some(Tokens { prompt: Some(place as u64 + 1), completion: Some(1), ..Tokens::default() });
    }
    state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
    state
}

proptest! {
    #[test]
    fn what_is_below_what_is_found_without_walking_up_from_each(
        places in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..5), 1..30),
    ) {
        let above = |(place, (index, is_root)): (usize, &(prop::sample::Index, u8))| {
            (place > 0 && *is_root > 0).then(|| index.index(place))
        };
        let parents: Vec<Option<usize>> = places.iter().enumerate().map(above).collect();
        let state = tree_of(&parents, |_| true);
        let own: Vec<Option<u64>> = (0..parents.len()).map(|place| (place % 3 > 0).then_some(1 << place)).collect();
        let (tree, below) = (state.tree(), state.sums_below(&own, |one, other| one + other));
        for (outer, step) in state.steps.iter().enumerate() {
            let is_below = |inner: &usize| state.ancestors(&state.steps[*inner]).contains(&step.span_id);
            let inner: Vec<usize> = (0..parents.len()).filter(is_below).collect();
            prop_assert_eq!(&inner, &(0..parents.len()).filter(|inner| tree.is_below(*inner, outer)).collect::<Vec<_>>());
            prop_assert_eq!(below[outer], inner.iter().filter_map(|inner| own[*inner]).reduce(|one, other| one + other));
            let top = &state.steps[tree.tops[outer]];
            prop_assert!(top.parent.is_none() && (top.span_id == step.span_id || state.ancestors(step).contains(&top.span_id)));
        }
    }
}

/// Each of these ended after minutes, or not before the memory did, when every step's way up was walked, or kept.
#[test]
fn a_run_costs_what_its_steps_do_however_deep_they_stand() {
    let count = 16_000;
    let chain: Vec<Option<usize>> = (0..count).map(|place: usize| place.checked_sub(1)).collect();
    let deepest = Some(Tokens { prompt: Some(count as u64), completion: Some(1), ..Tokens::default() }.with_total());
    // Agents that each tell tokens: what is above the innermost tells the same.
    assert_eq!(tree_of(&chain, |_| false).sums().bill.tokens, deepest);
    let mut own = tree_of(&chain, |_| false);
    for step in &mut own.steps {
        std::sync::Arc::make_mut(&mut step.facts).tells_own_use = true;
    }
    assert_eq!(own.sums().counted.tokens.len(), count);
    // Calls in a circle.
    let circle: Vec<Option<usize>> = (0..count).map(|place| Some((place + 1) % count)).collect();
    assert_eq!(tree_of(&circle, |_| true).sums().bill.llm_calls, count as u64);
    // Steps that fail one below the other, each below a call that has failed.
    let mut failed = tree_of(&chain, |place| place % 2 == 0);
    for (place, step) in failed.steps.iter_mut().enumerate() {
        step.status = StepStatus::Error;
        let facts = std::sync::Arc::make_mut(&mut step.facts);
        facts.is_genai = true;
        facts.error = Some(ErrorInfo { message: Some(format!("no {place}")), ..ErrorInfo::default() });
        if place % 2 > 0 {
            facts.kind = StepKind::Task;
        }
    }
    assert!(!failed.sums().failures.is_empty());
}

#[test]
fn many_reports_are_each_of_the_call_before_them() {
    // Calls of two ns, and a report of each that takes no time: calls without tokens have odd answers here.
    let told: Vec<Told> =
        (0..60_000).map(|n| (false, 0, 2 + n, if n % 2 == 0 { 1 } else { 0 }, u8::from(n % 2 == 0), false)).collect();
    let mut state = state(&told);
    for (place, step) in state.steps.iter_mut().enumerate() {
        let facts = std::sync::Arc::make_mut(&mut step.facts);
        facts.response_id = None;
        let used = Tokens { prompt: Some(place as u64), completion: Some(1), ..Tokens::default() };
        facts.tokens = (place % 2 == 1).then_some(used);
    }
    state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
    assert_eq!(state.sums().bill.llm_calls, 30_000);
}

/// An agent's tool, the client of MCP that calls it, and the server.
#[test]
fn a_tool_that_a_server_of_mcp_tells_to_have_failed_has_failed_at_its_client_too() {
    let failed_by = |tool_is_well: bool, client_is_well: bool| {
        let steps: Vec<Told> = (0..3).map(|place| (false, 0, place, 8 - 2 * place, 0, place == 2)).collect();
        let mut state = state(&steps);
        for (place, step) in state.steps.iter_mut().enumerate() {
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            (facts.kind, facts.billed, facts.tool_name) = (StepKind::Tool, false, Some("get_weather".into()));
            facts.is_genai = true;
            facts.is_declared_well = [tool_is_well, client_is_well, false][place];
            step.parent = (place > 0).then(|| SpanId((place as u64).to_be_bytes()));
        }
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        let sums = state.sums();
        let mut executions: Vec<_> = state.executions().into_iter().collect();
        executions.sort_unstable();
        (sums.tool_calls, sums.failures.clone(), executions)
    };
    assert_eq!(failed_by(false, false), (1, vec![0], vec![(0, 2), (1, 2)]));
    // What says in between, or above, that all is well.
    assert_eq!(failed_by(false, true), (1, vec![], vec![(1, 2)]));
    assert_eq!(failed_by(true, false), (1, vec![], vec![(1, 2)]));
}

#[test]
fn a_handshake_that_fails_is_no_failure_of_the_run() {
    let failures = |handshakes: &[usize]| {
        let told: [Told; 4] = [
            (false, 0, 0, 8, 0, false),
            (false, 0, 1, 4, 0, true),
            (false, 0, 2, 2, 0, true),
            (false, 0, 5, 1, 0, false),
        ];
        let mut state = state(&told);
        for (place, step) in state.steps.iter_mut().enumerate() {
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            (facts.kind, facts.billed, facts.is_genai) = (StepKind::Task, false, true);
            facts.is_handshake = handshakes.contains(&place);
            let parent = if place == 3 { 1 } else { place as u64 };
            step.parent = (place > 0).then(|| SpanId(parent.to_be_bytes()));
        }
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        state.sums().failures.clone()
    };
    assert_eq!(failures(&[1, 3]), Vec::<usize>::new());
    assert_eq!(failures(&[]), [2]);
    assert_eq!(failures(&[1]), [2], "where none went well");
}

#[test]
fn a_failure_that_a_plain_step_tells_without_the_class_before_it_is_one() {
    // A step of the framework's beside the call, in its time.
    let failures = |kind: &str, own: &str| {
        let mut state = state(&[(false, 0, 0, 8, 0, false), (false, 0, 1, 6, 0, true), (false, 0, 2, 4, 0, true)]);
        for (place, step) in state.steps.iter_mut().enumerate() {
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            facts.is_genai = true;
            let message = ["", "Error code: 500 - no more of it", own][place];
            let error = ErrorInfo { kind: Some(kind.into()), message: Some(message.into()), step_id: None };
            facts.error = (place > 0).then_some(error);
            if place < 2 {
                (facts.kind, facts.billed) = (StepKind::Task, false);
            }
            step.parent = (place > 0).then(|| SpanId(1_u64.to_be_bytes()));
        }
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        state.sums().failures.clone()
    };
    let class = "openai.InternalServerError";
    assert_eq!(failures(class, "InternalServerError: Error code: 500 - no more of it"), [2]);
    assert_eq!(failures(class, "Error code: 500 - no more of it"), [2]);
    assert_eq!(failures(class, "APIError: Error code: 500 - no more of it"), [1, 2]);
    assert_eq!(failures(class, "InternalServerError: "), [1, 2]);
}

/// AI SDK 5 to 7, LangGraph by OpenInference, and a client by OpenInference: what the pass-through tells is below the run, and not below
/// the agent.
#[test]
fn an_agent_that_failed_as_a_request_did_that_was_passed_on_is_no_failure_beside_it() {
    // The agent from 0 to 50, a request in its time, and what the program tells of that, if it does.
    let failures = |own: bool, message: Option<&str>, at: u64| {
        let told: [Told; 3] = [(false, 0, 0, 0, 0, true), (true, 0, at, 0, 1, true), (false, 0, 9, 0, 1, own)];
        let mut state = state(&told);
        let error = |message: Option<&str>| {
            Some(ErrorInfo { kind: Some("Error".into()), message: message.map(str::to_owned), step_id: None })
        };
        for (place, step) in state.steps.iter_mut().enumerate() {
            let ms = |at: u64| UnixNanos(at * 1_000_000);
            (step.started_at, step.ended_at) = (ms(step.started_at.0), Some(ms([50, at + 10, 25][place])));
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            facts.response_id = None;
            facts.tokens = (place == 1).then(|| Tokens { prompt: Some(321), ..Tokens::default() });
            facts.error = [error(message), error(Some("Overloaded")), error(None).filter(|_| own)][place].clone();
            if place == 0 {
                (facts.kind, facts.billed) = (StepKind::Agent, false);
            } else if place == 2 {
                step.parent = Some(SpanId(1_u64.to_be_bytes()));
                (facts.kind, facts.billed) = if own { (StepKind::Llm, true) } else { (StepKind::Task, false) };
            }
        }
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        state.sums().failures.clone()
    };
    // The program tells the call, too, and says no more of it than that it failed.
    assert_eq!(failures(true, Some("of another kind"), 10), [1]);
    // It does not tell it, and its agent has the words or none.
    assert_eq!(failures(false, Some("529: Overloaded"), 10), [1]);
    assert_eq!(failures(false, None, 10), [1]);
    assert_eq!(failures(false, Some("no such tool"), 10), [0, 1]);
    assert_eq!(failures(false, None, 60), [0, 1], "behind its time");
}

/// Mastra 0.24 (`@mastra/otel-exporter` 0.3.3): a generation of two calls ends with an error, and below it are plain steps that end after
/// the second one failed.
#[test]
fn plain_steps_in_a_call_that_failed_in_the_end_mend_nothing() {
    let status = |generation_failed: bool| {
        let told: [Told; 4] = [
            (false, 0, 0, 0, 0, generation_failed),
            (true, 0, 10, 0, 2, false),
            (true, 0, 50, 0, 0, true),
            (false, 0, 61, 0, 0, false),
        ];
        let mut state = state(&told);
        for (place, step) in state.steps.iter_mut().enumerate() {
            let ms = |at: u64| UnixNanos(at * 1_000_000);
            (step.started_at, step.ended_at) = (ms(step.started_at.0), Some(ms([90, 20, 60, 80][place])));
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            facts.tokens = if place < 2 { used(211, 37) } else { None };
            facts.error = is_failure(facts.status).then(ErrorInfo::default);
            if place == 3 {
                (facts.kind, facts.billed) = (StepKind::Task, false);
                step.parent = Some(SpanId(1_u64.to_be_bytes()));
            }
        }
        // The run's own step.
        let mut root = state.steps[3].clone();
        (root.span_id, root.parent, root.started_at, root.ended_at) =
            (SpanId(9_u64.to_be_bytes()), None, UnixNanos(0), Some(UnixNanos(100_000_000)));
        state.steps.iter_mut().filter(|step| step.parent.is_none()).for_each(|step| step.parent = Some(root.span_id));
        state.steps.push(root);
        state.roots = [4].into();
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        state.status()
    };
    assert_eq!(status(true), RunStatus::Error);
    assert_eq!(status(false), RunStatus::Success);
}

/// AI SDK 5: what is around the calls of a stream ends in the same words where the program aborted it and where its last call failed.
#[test]
fn a_run_that_seems_to_be_given_up_ended_as_its_last_call_did() {
    let status = |call_failed: bool, in_either: bool| {
        let mut state = state(&[(false, 0, 0, 0, 0, false), (false, 0, 1, 5, 0, call_failed)]);
        state.steps[0].ended_at = Some(UnixNanos(10));
        state.steps[0].status = StepStatus::Cancelled;
        let facts = std::sync::Arc::make_mut(&mut state.steps[0].facts);
        (facts.kind, facts.billed, facts.tokens) = (StepKind::Agent, false, None);
        facts.ends_in_either = in_either;
        state.steps[1].parent = Some(state.steps[0].span_id);
        state.roots = [0].into();
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        state.status()
    };
    assert_eq!(status(true, true), RunStatus::Error);
    assert_eq!(status(false, true), RunStatus::Cancelled);
    assert_eq!(status(true, false), RunStatus::Cancelled, "it says so");
}

/// ADK 1.26, of which one span has what a call used, and the one below it who served the model.
#[test]
fn who_served_a_call_is_known_by_another_layers_word_too() {
    let served = |provider: &str, model: &str| {
        let mut state = state(&[(false, 0, 1, 5, 2, false), (false, 0, 2, 3, 2, false)]);
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        state.steps[1].parent = Some(state.steps[0].span_id);
        for step in &mut state.steps {
            std::sync::Arc::make_mut(&mut step.facts).request_model = Some(model.to_owned());
        }
        let copies = state.duplicates();
        assert_eq!(copies.len(), 1);
        let of: Vec<String> = copies.values().map(|of| state.steps[*of].step_id.clone()).collect();
        for copy in copies.keys() {
            std::sync::Arc::make_mut(&mut state.steps[*copy].facts).provider = Some(provider.to_owned());
        }
        let told =
            state.step_views().into_iter().find(|step| of.contains(&step.step_id)).and_then(|step| step.provider);
        #[cfg(feature = "index")]
        assert!(state.accounts().iter().any(|step| step.provider == told));
        assert_eq!(state.sums().bill.models, [(model.to_owned(), told.clone(), NanoUsd::default())]);
        told
    };
    assert_eq!(served("gcp.gemini", "gemini-2.5-flash").as_deref(), Some("gcp.gemini"));
    assert_eq!(served("openai", "gpt-4o-mini").as_deref(), Some("openai"));
    // ADK takes LiteLLM's models for Gemini's, and a client calls what stands behind a gateway.
    for (provider, model) in [
        ("gcp.gemini", "claude-sonnet-4-5"),
        ("gcp.vertex_ai", "gpt-4o"),
        ("gcp.gemini", "ollama_chat/gemma3"),
        ("openai", "my-model"),
        ("openai", "claude-sonnet-4-5"),
        ("openai", "gpt-oss-120b"),
    ] {
        assert_eq!(served(provider, model), None, "{provider} {model}");
    }
}

/// `opentelemetry-instrumentation-openai` 0.52, whose span of a stream that was left ends as Python collects what read it.
#[test]
fn a_stream_that_was_left_ended_before_the_calls_that_the_program_made_next() {
    use StepStatus::{Cancelled, Error, Success};
    // Of each call: when it began and ended, in milliseconds, and how.
    let status_of = |calls: &[(u64, u64, StepStatus)], kind: StepKind, model: &str| {
        let told: Vec<Told> = (0..=calls.len() as u8).map(|place| (false, 0, 0, 0, 2 * place, false)).collect();
        let mut state = state(&told);
        let at = |ms: u64| UnixNanos(ms * 1_000_000);
        state.steps[0].ended_at = Some(at(1000));
        let facts = std::sync::Arc::make_mut(&mut state.steps[0].facts);
        (facts.kind, facts.billed, facts.tokens) = (StepKind::Workflow, false, None);
        let root = state.steps[0].span_id;
        for (step, (start, end, status)) in state.steps.iter_mut().skip(1).zip(calls) {
            (step.started_at, step.ended_at, step.status) = (at(*start), Some(at(*end)), *status);
            step.parent = Some(root);
        }
        // Of the last, what it asked.
        let facts = std::sync::Arc::make_mut(&mut state.steps[calls.len()].facts);
        (facts.kind, facts.request_model) = (kind, Some(model.to_owned()));
        state.roots = [0].into();
        state.by_span = state.steps.iter().enumerate().map(|(place, step)| (step.span_id, place)).collect();
        state.status()
    };
    let status = |calls: &[(u64, u64, StepStatus)]| status_of(calls, StepKind::Llm, "m0");
    let left = (100, 900, Cancelled);
    let next = (700, 899, Success);
    assert_eq!(status(&[left, next]), RunStatus::Success);
    assert_eq!(status(&[left, (110, 890, Cancelled), next]), RunStatus::Success);
    assert_eq!(status(&[left, (200, 400, Success), (500, 600, Cancelled), next]), RunStatus::Success);
    assert_eq!(status(&[left, (700, 899, Success), (901, 950, Error)]), RunStatus::Error);
    // Nothing began later, or at once with it.
    assert_eq!(status(&[(50, 90, Success), left]), RunStatus::Cancelled);
    assert_eq!(status(&[left, (105, 899, Success)]), RunStatus::Cancelled);
    assert_eq!(status(&[left, (700, 899, Cancelled)]), RunStatus::Cancelled);
    // The user may give up one of two at any time.
    assert_eq!(status(&[left, (180, 400, Success)]), RunStatus::Cancelled);
    assert_eq!(status(&[left, (180, 400, Success), (120, 900, Cancelled)]), RunStatus::Cancelled);
    // What looks at a stream as it comes is another model, or none that answers.
    let beside = |kind: StepKind, model: &str| status_of(&[left, next], kind, model);
    assert_eq!(beside(StepKind::Llm, "m0"), RunStatus::Success);
    assert_eq!(beside(StepKind::Llm, "m0-mini"), RunStatus::Cancelled);
    assert_eq!(beside(StepKind::Embedding, "m0"), RunStatus::Cancelled);
    // One that says that it failed did so in the end.
    assert_eq!(status(&[(100, 900, Error), (700, 800, Success)]), RunStatus::Error);
}

/// Codex CLI 0.171, whose calls say nothing of how they ended but what they used; it sends no turn where it ends by an error.
#[test]
fn a_call_that_the_program_dealt_with_as_a_failure_failed() {
    let run = |told_in_last: bool, has_turn: bool| {
        // Two calls, each with what the program did about it right behind it, and a last one.
        let told: [Told; 6] = [
            (false, 0, 0, 0, 0, false),
            (false, 0, 10, 0, 0, true),
            (false, 0, 20, 0, 0, false),
            (false, 0, 30, 0, 0, true),
            (false, 0, 40, 0, 0, false),
            (false, 0, 0, 0, 0, false),
        ];
        let mut state = state(&told);
        for (place, step) in state.steps.iter_mut().enumerate() {
            let from = UnixNanos(step.started_at.0 * 1_000_000);
            (step.started_at, step.ended_at) = (from, Some(UnixNanos(from.0 + 10_000_000)));
            let facts = std::sync::Arc::make_mut(&mut step.facts);
            facts.tokens = if place == 4 && told_in_last { used(211, 37) } else { None };
            if place % 2 == 1 {
                (facts.kind, facts.billed) = (StepKind::Task, false);
                facts.deals_with_failure = place < 5;
                facts.error = (place < 5).then(ErrorInfo::default);
            }
            if place == 5 && has_turn {
                facts.kind = StepKind::Agent;
            }
        }
        state.steps[5].ended_at = Some(UnixNanos(60_000_000));
        let statuses: Vec<_> =
            state.step_views().iter().filter(|step| step.kind == StepKind::Llm).map(|step| step.status).collect();
        (statuses, state.sums().failures.len(), state.status())
    };
    use StepStatus::{Error, Success};
    assert_eq!(run(false, false), (vec![Error, Error, Error], 3, RunStatus::Error));
    assert_eq!(run(true, true), (vec![Error, Error, Success], 2, RunStatus::Success));
    assert_eq!(run(false, true), (vec![Error, Error, Success], 2, RunStatus::Success), "it may never tell any");
}
