mod sources;
mod stacks;

use super::*;
use crate::conventions::dialects::Basis;
use crate::model::otlp::{ArrayValue, Resource, STATUS_ERROR, Scope, SpanEvent, Status};
use crate::model::{StepKind, StepStatus};
use crate::pipeline::facts::StepFacts;
use std::sync::Arc;

fn attributes(list: &[(&str, Value)]) -> Vec<KeyValue> {
    list.iter().map(|(key, value)| KeyValue { key: (*key).into(), value: Some(value.clone().into()) }).collect()
}

fn ended(list: &[(&str, Value)]) -> Record {
    let span = Span {
        name: "work".into(),
        parent_span_id: vec![1; 8],
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        attributes: attributes(list),
        ..Span::default()
    };
    Record { kind: RecordKind::Ended, resource: Arc::new(Resource::default()), scope: Scope::default(), span }
}

fn event(name: &str, list: &[(&str, Value)]) -> SpanEvent {
    SpanEvent { name: name.into(), attributes: attributes(list), ..SpanEvent::default() }
}

/// What normalisation added or changed, a line each, and that it can be undone.
fn changes(record: &Record) -> String {
    let mut normal = record.clone();
    normalize(&mut normal);
    let mut restored = normal.clone();
    restore_original(&mut restored.span);
    assert_eq!(&restored, record);
    let before = &record.span.attributes;
    let changed = normal.span.attributes.iter().filter(|now| now.key != names::ADDED && !before.contains(now));
    let lines = changed.map(|now| match now.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(value) => format!("{}: {}", now.key, value.to_json()),
        None => format!("{}:", now.key),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn facts(record: &Record) -> StepFacts {
    let mut record = record.clone();
    normalize(&mut record);
    StepFacts::of(&record.span, Some(&record.resource), Some(&record.scope))
}

#[test]
fn reasons_are_a_list_however_they_are_written() {
    let reasons = |list: &[(&str, Value)]| changes(&ended(list));
    for (key, value) in [
        ("llm.finish_reason", Value::from("stop")),
        ("ai.response.finishReason", "stop".into()),
        ("gen_ai.response.finish_reason", r#"["stop"]"#.into()),
    ] {
        let list = [("openinference.span.kind", "LLM".into()), ("ai.operationId", "x".into()), (key, value)];
        assert!(reasons(&list).contains(r#"gen_ai.response.finish_reasons: ["stop"]"#), "{key}");
    }
    let own = r#"gen_ai.response.finish_reasons: ["stop"]
runspan.original.gen_ai.response.finish_reasons: "stop""#;
    assert_eq!(reasons(&[("gen_ai.response.finish_reasons", "stop".into())]), own);
    let list = Value::Array(ArrayValue { values: vec![Value::from("stop").into()] });
    assert_eq!(reasons(&[("gen_ai.response.finish_reasons", list)]), "");
    // An empty word is none (Go's libraries have it where the model gave no reason).
    let of = |words: &[&str]| {
        Value::Array(ArrayValue { values: words.iter().map(|word| Value::from(*word).into()).collect() })
    };
    for nothing in [of(&[""]), r#"[""]"#.into(), "".into()] {
        let mut record = ended(&[("gen_ai.response.finish_reasons", nothing)]);
        normalize(&mut record);
        assert_eq!(record.span.attr("gen_ai.response.finish_reasons"), None);
    }
    let some = reasons(&[("gen_ai.response.finish_reasons", of(&["", "stop"]))]);
    assert!(some.starts_with(r#"gen_ai.response.finish_reasons: ["stop"]"#), "{some}");
}

#[test]
fn how_many_documents_a_search_may_find_has_the_name_of_a_search() {
    let search = |operation: &str| {
        let list = [("gen_ai.operation.name", operation.into()), ("gen_ai.request.top_k", Value::Double(5.0))];
        changes(&ended(&list)).contains("gen_ai.retrieval.top_k: 5")
    };
    assert!(search("retrieval") && !search("chat"));
}

#[test]
fn old_names_of_the_standard_get_the_new_ones() {
    let record = ended(&[
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.system", "vertex_ai".into()),
        ("gen_ai.request.model", "gemini-2.5-flash".into()),
        ("gen_ai.usage.prompt_tokens", Value::Double(100.0)),
        ("gen_ai.usage.completion_tokens", "7".into()),
        ("gen_ai.usage.cache_creation.input_tokens", Value::Int(10)),
        ("gen_ai.openai.request.service_tier", "flex".into()),
        ("gen_ai.openai.response.service_tier", "flex".into()),
        ("gen_ai.openai.request.response_format", "json_schema".into()),
        ("gen_ai.response.finish_reason", "stop".into()),
        ("enduser.id", "user-42".into()),
        ("session.id", "s-1".into()),
        ("gen_ai.prompt", "Hello".into()),
        ("gen_ai.completion", r#"[{"role":"assistant","content":"Hi"}]"#.into()),
    ]);
    insta::assert_snapshot!(changes(&record), @r#"
    gen_ai.provider.name: "gcp.vertex_ai"
    gen_ai.response.finish_reasons: ["stop"]
    gen_ai.conversation.id: "s-1"
    user.id: "user-42"
    gen_ai.usage.input_tokens: 100
    gen_ai.usage.output_tokens: 7
    gen_ai.usage.cache_write.input_tokens: 10
    openai.response.service_tier: "flex"
    openai.request.service_tier: "flex"
    gen_ai.output.type: "json"
    gen_ai.input.messages: [{"role":"user","parts":[{"type":"text","content":"Hello"}]}]
    gen_ai.output.messages: [{"role":"assistant","content":"Hi"}]
    runspan.usage.basis: "assumed"
    "#);
}

#[test]
fn what_is_canonical_already_is_left_alone() {
    let record = ended(&[
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.provider.name", "openai".into()),
        ("gen_ai.request.model", "gpt-4o".into()),
        ("gen_ai.input.messages", "[]".into()),
    ]);
    assert_eq!(changes(&record), "");
    let plain = ended(&[("http.route", "/".into())]);
    let mut normal = plain.clone();
    normalize(&mut normal);
    assert_eq!(normal, plain);
}

#[test]
fn numbers_as_text_become_integers_each_time_they_stand_there() {
    let record = ended(&[
        ("rig.completion_parent", Value::Bool(true)),
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.usage.input_tokens", "210".into()),
        ("gen_ai.usage.output_tokens", "many".into()),
        ("gen_ai.usage.input_tokens", "211".into()),
    ]);
    insta::assert_snapshot!(changes(&record), @r#"
    gen_ai.usage.input_tokens: 211
    gen_ai.usage.input_tokens: 211
    runspan.original.gen_ai.usage.input_tokens: "210"
    runspan.original.gen_ai.usage.input_tokens: "211"
    runspan.usage.basis: "inclusive"
    "#);
}

#[test]
fn cached_tokens_are_added_where_they_were_left_out() {
    let usage = |provider: &str, input: i64, read: i64, total: Option<i64>| {
        let mut list = vec![
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", provider.into()),
            ("gen_ai.usage.input_tokens", Value::Int(input)),
            ("gen_ai.usage.output_tokens", Value::Int(5)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(read)),
        ];
        list.extend(total.map(|total| ("gen_ai.usage.total_tokens", Value::Int(total))));
        ended(&list)
    };
    let settled = |record: &Record| {
        let mut record = record.clone();
        normalize(&mut record);
        (record.span.attr(names::INPUT_TOKENS).cloned(), record.span.attr_str(names::USAGE_BASIS).map(str::to_owned))
    };
    let is = |input: i64, basis: &str| (Some(Value::Int(input)), Some(basis.to_owned()));
    assert_eq!(settled(&usage("openai", 100, 64, None)), is(100, "assumed"));
    // More was read from the cache than was sent, so the cache was counted apart.
    assert_eq!(settled(&usage("anthropic", 10, 64, None)), is(74, "exclusive"));
    assert_eq!(settled(&usage("anthropic", 100, 64, Some(169))), is(164, "exclusive"));
    assert_eq!(settled(&usage("anthropic", 100, 64, Some(105))), is(100, "assumed"));
    // What the table knows of the emitter is not against what the total proves.
    let told = |total| {
        let mut told = usage("openai", 100, 64, total);
        told.scope.name = "opentelemetry.instrumentation.openai_v2".into();
        settled(&told)
    };
    assert_eq!(told(Some(105)), is(100, "inclusive"));
    assert_eq!(told(Some(169)), is(164, "exclusive"));
    assert_eq!(
        changes(&usage("anthropic", 10, 64, None)),
        "gen_ai.usage.input_tokens: 74\nrunspan.usage.basis: \"exclusive\"\nrunspan.original.gen_ai.usage.input_tokens: 10"
    );
}

#[test]
fn a_dialect_can_say_exclusive_by_provider_and_no_call_has_an_empty_prompt() {
    const RAW: Dialect = Dialect {
        name: "raw",
        basis: &[
            crate::conventions::dialects::BasisRow { provider: "anthropic", basis: Basis::Exclusive },
            crate::conventions::dialects::BasisRow { provider: "", basis: Basis::Inclusive },
        ],
        ..crate::conventions::dialects::PLAIN
    };
    let with = |provider: &str, input: i64| {
        let mut record = ended(&[
            ("gen_ai.provider.name", provider.into()),
            ("gen_ai.usage.input_tokens", Value::Int(input)),
            ("gen_ai.usage.cache_read.input_tokens", Value::Int(input.min(64))),
            ("gen_ai.usage.output_tokens", Value::Int(0)),
        ]);
        let original = record.clone();
        let keys = KeyFilter::with_events(&record.span);
        normalize_as(&mut record, &[&RAW], keys, None);
        let tokens = StepFacts::of(&record.span, None, None).tokens;
        restore_original(&mut record.span);
        assert_eq!(record, original);
        tokens.map(|tokens| (tokens.prompt, tokens.completion))
    };
    assert_eq!(with("anthropic", 100), Some((Some(164), Some(0))));
    assert_eq!(with("openai", 100), Some((Some(100), Some(0))));
    assert_eq!(with("openai", 0), None);
}

#[test]
fn a_call_all_of_whose_choices_ended_by_an_error_has_failed() {
    let status = |attributes: &[(&str, Value)], code: Option<i32>| {
        let mut record = ended(&[("gen_ai.operation.name", "chat".into())]);
        attributes.iter().for_each(|(key, value)| record.span.set_attr(key, value.clone()));
        record.span.status = code.map(|code| Status { code, message: String::new() });
        let original = record.clone();
        normalize(&mut record);
        let facts = StepFacts::of(&record.span, None, None);
        restore_original(&mut record.span);
        assert_eq!(record, original);
        (facts.status, facts.error.and_then(|error| error.kind))
    };
    let reasons = |words: &[&str]| {
        let values = words.iter().map(|word| Value::from(*word).into()).collect();
        [("gen_ai.response.finish_reasons", Value::Array(ArrayValue { values }))]
    };
    let failed = (StepStatus::Error, Some("_OTHER".to_owned()));
    let well = (StepStatus::Success, None);
    assert_eq!(status(&reasons(&["error"]), None), failed);
    assert_eq!(status(&reasons(&["error", "stop"]), None), well);
    assert_eq!(status(&reasons(&["content_filter"]), None), well);
    // Its author declared it to have gone well.
    assert_eq!(status(&reasons(&["error"]), Some(1)), well);
    let messages = r#"[{"role":"assistant","parts":[],"finish_reason":"error"}]"#;
    assert_eq!(status(&[("gen_ai.output.messages", messages.into())], None), failed);
    let said = r#"[{"role":"assistant","parts":[{"type":"text","content":"\"error\""}],"finish_reason":"stop"}]"#;
    assert_eq!(status(&[("gen_ai.output.messages", said.into())], None), well);
    assert_eq!(status(&[("gen_ai.response.status", "failed".into())], None), failed);
}

#[test]
fn the_session_of_a_process_is_that_of_its_spans_which_tell_none() {
    let session = |of_resource: &[(&str, Value)], of_span: &[(&str, Value)]| {
        let mut record = ended(&[&[("gen_ai.operation.name", "chat".into())], of_span].concat());
        normalize(&mut record);
        let resource = Resource { attributes: attributes(of_resource), ..Resource::default() };
        StepFacts::of(&record.span, Some(&resource), None).session_id
    };
    let process = [("session.id", Value::from("s-1"))];
    assert_eq!(session(&process, &[]).as_deref(), Some("s-1"));
    assert_eq!(session(&process, &[("session.id", "s-2".into())]).as_deref(), Some("s-2"));
    let named = [("session.id", Value::from("s-1")), ("gen_ai.conversation.id", "c-1".into())];
    assert_eq!(session(&named, &[]).as_deref(), Some("c-1"));
}

#[test]
fn the_class_that_an_event_has_is_more_than_the_word_for_none() {
    let mut record = ended(&[("gen_ai.operation.name", "chat".into()), ("error.type", "_OTHER".into())]);
    record.span.events = vec![event("exception", &[("exception.type", "RateLimitError".into())])];
    normalize(&mut record);
    let error = StepFacts::of(&record.span, None, None).error.unwrap();
    assert_eq!(error.kind.as_deref(), Some("RateLimitError"));
}

#[test]
fn a_failure_is_told_in_the_status_unless_the_emitter_said_otherwise() {
    let code = |status: Option<Status>| {
        let mut record = ended(&[("error.type", "rate_limit".into())]);
        record.span.status = status;
        let original = record.clone();
        normalize(&mut record);
        let code = record.span.status.clone().map(|status| (status.code, status.message));
        restore_original(&mut record.span);
        assert_eq!(record, original);
        code
    };
    let status = |code| Some(Status { code, message: "no answer".into() });
    assert_eq!(code(None), Some((STATUS_ERROR, String::new())));
    assert_eq!(code(status(STATUS_UNSET)), Some((STATUS_ERROR, "no answer".into())));
    assert_eq!(code(status(1)), Some((1, "no answer".into())));
}

#[test]
fn reasoning_larger_than_the_output_was_counted_apart() {
    let record = ended(&[
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.usage.output_tokens", Value::Int(5)),
        ("gen_ai.usage.reasoning_tokens", Value::Int(20)),
    ]);
    assert_eq!(facts(&record).tokens.and_then(|tokens| tokens.completion), Some(25));
}

#[test]
fn an_output_that_was_not_told_is_what_was_thought_where_that_makes_the_total() {
    let completion = |total: i64| {
        let record = ended(&[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.usage.input_tokens", Value::Int(100)),
            ("gen_ai.usage.reasoning_tokens", Value::Int(1000)),
            ("gen_ai.usage.total_tokens", Value::Int(total)),
        ]);
        facts(&record).tokens.and_then(|tokens| tokens.completion)
    };
    assert_eq!(completion(1100), Some(1000));
    assert_eq!(completion(1137), None);
}

#[test]
fn usage_and_messages_in_events_count() {
    let mut record = ended(&[("gen_ai.operation.name", "chat".into())]);
    record.span.events = vec![
        event("gen_ai.system.message", &[("content", "Be brief.".into()), ("gen_ai.system", "openai".into())]),
        event("gen_ai.user.message", &[("content", "Weather?".into()), ("role", "user".into())]),
        event(
            "gen_ai.choice",
            &[
                ("index", Value::Int(0)),
                ("finish_reason", "tool_calls".into()),
                (
                    "message",
                    r#"{"role":"assistant","tool_calls":[{"id":"c1","function":{"name":"w","arguments":"{}"}}]}"#
                        .into(),
                ),
            ],
        ),
        event("usage", &[("gen_ai.usage.input_tokens", "211".into()), ("gen_ai.response.model", "gpt-4o-mini".into())]),
        event("gen_ai.evaluation.result", &[("gen_ai.response.id", "of another call".into())]),
    ];
    insta::assert_snapshot!(changes(&record), @r#"
    gen_ai.provider.name: "openai"
    gen_ai.response.model: "gpt-4o-mini"
    gen_ai.usage.input_tokens: 211
    gen_ai.input.messages: [{"role":"system","parts":[{"type":"text","content":"Be brief."}]},{"role":"user","parts":[{"type":"text","content":"Weather?"}]}]
    gen_ai.output.messages: [{"role":"assistant","parts":[{"type":"tool_call","id":"c1","name":"w","arguments":{}}],"finish_reason":"tool_calls"}]
    runspan.usage.basis: "assumed"
    "#);
}

#[test]
fn kinds_are_said_in_the_standard_word_or_in_ours() {
    let kind = |list: &[(&str, Value)]| {
        let record = ended(list);
        let facts = facts(&record);
        (facts.kind, facts.is_genai)
    };
    for (list, expected) in [
        (&[("gen_ai.operation.name", "chat")][..], StepKind::Llm),
        (&[("gen_ai.operation.name", "generate_content")], StepKind::Llm),
        (&[("gen_ai.operation.name", "chat_streaming")], StepKind::Llm),
        (&[("gen_ai.operation.name", "embedding")], StepKind::Embedding),
        (&[("gen_ai.operation.name", "rerank")], StepKind::Rerank),
        (&[("gen_ai.operation.name", "invoke_workflow")], StepKind::Workflow),
        (&[("gen_ai.operation.name", "fetch_response"), ("gen_ai.request.model", "m")], StepKind::Task),
        (&[("gen_ai.operation.name", "plan"), ("gen_ai.agent.name", "a")], StepKind::Task),
        (&[("gen_ai.request.model", "m"), ("gen_ai.agent.name", "a")], StepKind::Llm),
        (&[("gen_ai.tool.name", "t"), ("gen_ai.agent.name", "a")], StepKind::Tool),
        (&[("gen_ai.agent.name", "a")], StepKind::Agent),
        (&[("mcp.method.name", "tools/call")], StepKind::Tool),
        (&[("runspan.step.kind", "guardrail"), ("gen_ai.operation.name", "chat")], StepKind::Guardrail),
        (&[("openinference.span.kind", "RERANKER")], StepKind::Rerank),
        (&[("openinference.span.kind", "CHAIN")], StepKind::Task),
        (&[("traceloop.span.kind", "workflow")], StepKind::Workflow),
        (&[("ai.operationId", "ai.generateText")], StepKind::Agent),
        (&[("ai.operationId", "ai.generateText.doGenerate")], StepKind::Llm),
    ] {
        let list: Vec<(&str, Value)> = list.iter().map(|(key, value)| (*key, Value::from(*value))).collect();
        assert_eq!(kind(&list), (expected, true), "{list:?}");
    }
    // Baggage put an agent's name on a call of the web client; that does not make the call an agent.
    let mut request = ended(&[("gen_ai.agent.name", "a".into()), ("http.request.method", "GET".into())]);
    request.span.kind = 3;
    assert_eq!(facts(&request).kind, StepKind::Task);
    let mut root = ended(&[("openinference.span.kind", "CHAIN".into())]);
    root.span.parent_span_id.clear();
    assert_eq!(facts(&root).kind, StepKind::Workflow);
}

#[test]
fn rig_tells_failures_by_outcome_and_by_silence() {
    let status = |record: &Record| {
        let facts = facts(record);
        (facts.status, facts.error.and_then(|error| error.kind))
    };
    let error = |kind: &str| (StepStatus::Error, Some(kind.to_owned()));
    let mark = ("rig.completion_parent", Value::Bool(true));
    let tool = |outcome: &str, class: Option<&str>| {
        let mut list = vec![mark.clone(), ("gen_ai.operation.name", "execute_tool".into())];
        list.push(("gen_ai.tool.call.outcome", outcome.into()));
        list.extend(class.map(|class| ("gen_ai.tool.error.type", class.into())));
        ended(&list)
    };
    assert_eq!(status(&tool("success", None)), (StepStatus::Success, None));
    assert_eq!(status(&tool("error", Some("other"))), error("other"));
    assert_eq!(status(&tool("error", None)), error("_OTHER"));
    assert_eq!(status(&tool("error", Some("timeout"))), (StepStatus::Timeout, Some("timeout".into())));
    assert_eq!(status(&tool("denied", None)), (StepStatus::Cancelled, None));

    let silent = ended(&[mark.clone(), ("gen_ai.operation.name", "chat".into())]);
    assert_eq!(status(&silent), error("_OTHER"));
    let mut begun = silent.clone();
    (begun.kind, begun.span.end_time_unix_nano) = (RecordKind::Started, 0);
    assert_eq!(status(&begun), (StepStatus::Running, None));
    let mut told = silent.clone();
    told.span.status = Some(Status { code: 2, message: "429".into() });
    assert_eq!(status(&told), (StepStatus::Error, None));
    let answered = ended(&[mark, ("gen_ai.operation.name", "chat".into()), ("gen_ai.response.id", "r".into())]);
    assert_eq!(status(&answered), (StepStatus::Success, None));
    // Whoever else is silent may simply not report responses.
    let other = ended(&[("gen_ai.operation.name", "chat".into())]);
    assert_eq!(status(&other), (StepStatus::Success, None));
}

#[test]
fn openinference_is_read_from_its_flat_names() {
    let record = ended(&[
        ("openinference.span.kind", "LLM".into()),
        ("llm.provider", "openai".into()),
        ("llm.model_name", "gpt-4o-mini".into()),
        ("llm.token_count.prompt", Value::Int(211)),
        ("llm.token_count.completion", Value::Int(37)),
        ("llm.token_count.total", Value::Int(248)),
        ("llm.token_count.prompt_details.cache_read", Value::Int(64)),
        ("llm.input_messages.1.message.role", "user".into()),
        ("llm.input_messages.0.message.role", "system".into()),
        ("llm.input_messages.0.message.content", "Be brief.".into()),
        ("llm.input_messages.1.message.contents.0.message_content.type", "text".into()),
        ("llm.input_messages.1.message.contents.0.message_content.text", "Weather?".into()),
        ("llm.output_messages.0.message.role", "assistant".into()),
        ("llm.output_messages.0.message.tool_calls.0.tool_call.function.name", "get_weather".into()),
        ("llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments", r#"{"city":"Paris"}"#.into()),
    ]);
    insta::assert_snapshot!(changes(&record), @r#"
    gen_ai.provider.name: "openai"
    gen_ai.request.model: "gpt-4o-mini"
    gen_ai.usage.input_tokens: 211
    gen_ai.usage.output_tokens: 37
    gen_ai.usage.total_tokens: 248
    gen_ai.usage.cache_read.input_tokens: 64
    gen_ai.operation.name: "chat"
    gen_ai.input.messages: [{"role":"system","parts":[{"type":"text","content":"Be brief."}]},{"role":"user","parts":[{"type":"text","content":"Weather?"}]}]
    gen_ai.output.messages: [{"role":"assistant","parts":[{"type":"tool_call","id":null,"name":"get_weather","arguments":{"city":"Paris"}}]}]
    runspan.usage.basis: "assumed"
    "#);
}

#[test]
fn an_answer_in_attributes_of_its_parts_is_one_message_of_all_of_them() {
    let answer = |operation: &str, parts: &[(&str, &str)]| {
        let mut list = vec![("ai.operationId", operation.into())];
        list.extend(parts.iter().map(|(key, text)| (*key, (*text).into())));
        changes(&ended(&list)).lines().filter(|line| line.contains("output") && !line.contains("operation")).collect()
    };
    let call = r#"[{"toolCallId":"c1","toolName":"get_weather","input":"{\"city\": \"Paris\"}"}]"#;
    let streamed = r#"[{"type":"tool-call","toolCallId":"c1","toolName":"get_weather","input":{"city":"Paris"}}]"#;
    let text = ("ai.response.text", "Let me see.");
    let thought = ("ai.response.reasoning", "It asks for the weather.");
    let said: Vec<String> = [
        answer("ai.generateText.doGenerate", &[text, ("ai.response.toolCalls", call), thought]),
        answer("ai.streamText.doStream", &[("ai.response.text", ""), ("ai.response.toolCalls", streamed)]),
        answer("ai.generateText.doGenerate", &[text]),
        answer("ai.generateObject.doGenerate", &[("ai.response.object", r#"{"degrees": 18}"#)]),
        // Of an agent, text stays text.
        answer("ai.generateText", &[text]),
        answer("ai.generateText", &[text, ("ai.response.toolCalls", call)]),
    ]
    .into_iter()
    .collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    gen_ai.output.messages: [{"role":"assistant","parts":[{"type":"reasoning","content":"It asks for the weather."},{"type":"text","content":"Let me see."},{"type":"tool_call","id":"c1","name":"get_weather","arguments":{"city":"Paris"}}]}]
    gen_ai.output.messages: [{"role":"assistant","parts":[{"type":"tool_call","id":"c1","name":"get_weather","arguments":{"city":"Paris"}}]}]
    gen_ai.output.messages: [{"role":"assistant","parts":[{"type":"text","content":"Let me see."}]}]
    gen_ai.output.messages: [{"role":"assistant","parts":[{"type":"text","content":"{\"degrees\": 18}"}]}]
    runspan.output: "Let me see."
    runspan.output: [{"role":"assistant","parts":[{"type":"text","content":"Let me see."},{"type":"tool_call","id":"c1","name":"get_weather","arguments":{"city":"Paris"}}]}]
    "#);
}

#[test]
fn old_traceloop_is_read_from_its_indexed_names() {
    let record = ended(&[
        ("llm.request.type", "chat".into()),
        ("gen_ai.system", "OpenAI".into()),
        ("gen_ai.request.model", "gpt-4o-mini".into()),
        ("gen_ai.prompt.0.role", "user".into()),
        ("gen_ai.prompt.0.content", "Weather?".into()),
        ("gen_ai.completion.0.role", "assistant".into()),
        ("gen_ai.completion.0.finish_reason", "stop".into()),
        ("gen_ai.completion.0.content", "Sunny.".into()),
    ]);
    insta::assert_snapshot!(changes(&record), @r#"
    gen_ai.provider.name: "openai"
    gen_ai.operation.name: "chat"
    gen_ai.input.messages: [{"role":"user","parts":[{"type":"text","content":"Weather?"}]}]
    gen_ai.output.messages: [{"role":"assistant","parts":[{"type":"text","content":"Sunny."}],"finish_reason":"stop"}]
    "#);
}

#[test]
fn an_event_record_is_left_alone() {
    let mut record = ended(&[("gen_ai.system", "openai".into())]);
    record.kind = RecordKind::Event;
    let before = record.clone();
    normalize(&mut record);
    assert_eq!(record, before);
}

#[test]
fn usage_as_the_provider_reported_it_is_read_by_its_shape() {
    let call = |usage: &str| {
        let record = ended(&[
            ("langfuse.observation.type", "generation".into()),
            ("langfuse.observation.usage_details", usage.into()),
        ]);
        let tokens = facts(&record).tokens.unwrap_or_default();
        (tokens.prompt, tokens.cache_read, tokens.cache_write, tokens.completion, tokens.reasoning)
    };
    let openai = r#"{"prompt_tokens": 211, "completion_tokens": 37, "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens_details": {"reasoning_tokens": 16}}"#;
    assert_eq!(call(openai), (Some(211), Some(64), None, Some(37), Some(16)));
    let anthropic = r#"{"input_tokens": 131, "cache_read_input_tokens": 64, "cache_creation_input_tokens": 16,
        "output_tokens": 37}"#;
    assert_eq!(call(anthropic), (Some(211), Some(64), Some(16), Some(37), None));
    let gemini = r#"{"promptTokenCount": 211, "cachedContentTokenCount": 64, "candidatesTokenCount": 21,
        "thoughtsTokenCount": 16}"#;
    assert_eq!(call(gemini), (Some(211), Some(64), None, Some(37), Some(16)));
    let bedrock = r#"{"inputTokens": 147, "cacheReadInputTokens": 64, "outputTokens": 37}"#;
    assert_eq!(call(bedrock), (Some(211), Some(64), None, Some(37), None));
    let buckets = r#"{"input": 147, "input_cached_tokens": 64, "output": 21, "output_reasoning_tokens": 16}"#;
    assert_eq!(call(buckets), (Some(211), Some(64), None, Some(37), Some(16)));
    // What makes the total holds what is beside it.
    let nested =
        r#"{"input": 211, "input_cached_tokens": 64, "output": 37, "output_reasoning_tokens": 16, "total": 248}"#;
    assert_eq!(call(nested), (Some(211), Some(64), None, Some(37), Some(16)));
    let vercel = r#"{"promptTokens": "211", "completionTokens": 37}"#;
    assert_eq!(call(vercel), (Some(211), None, None, Some(37), None));
    let python = "{'prompt_tokens': 211, 'completion_tokens': 37, 'prompt_tokens_details': None}";
    assert_eq!(call(python), (Some(211), None, None, Some(37), None));
    assert_eq!(call("Usage(prompt_tokens=211)"), (Some(211), None, None, None, None));
    assert_eq!(call("prompt_tokens=211 completion_tokens=37"), (Some(211), None, None, Some(37), None));
    assert_eq!(call("211 prompt_tokens"), (None, None, None, None, None));
}

#[test]
fn what_encloses_calls_is_not_asked_for_the_usage_that_it_repeats() {
    let record = ended(&[
        ("genkit:type", "util".into()),
        ("genkit:output", r#"{"usage": {"inputTokens": 211, "outputTokens": 37}}"#.into()),
    ]);
    assert_eq!(facts(&record).tokens, None);
}

#[test]
fn a_span_that_announces_another_is_the_start_of_that_one() {
    let mut record = ended(&[
        ("gen_ai.operation.name", "invoke_agent".into()),
        ("logfire.span_type", "pending_span".into()),
        ("logfire.pending_parent_id", "0000000000000000".into()),
    ]);
    record.span.span_id = vec![9; 8];
    normalize(&mut record);
    let span = &record.span;
    assert_eq!((record.kind, &span.span_id, &span.parent_span_id), (RecordKind::Started, &vec![1; 8], &Vec::new()));
    assert_eq!(StepFacts::of(span, None, None).status, StepStatus::Running);
}

#[test]
fn a_placeholder_is_no_fact() {
    let record = ended(&[
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.provider.name", "strands-agents".into()),
        ("gen_ai.request.model", "none".into()),
        ("session.id", "[Scrubbed due to 'session']".into()),
        ("user.id", "<REDACTED>".into()),
    ]);
    let told = facts(&record);
    assert_eq!((told.provider, told.request_model, told.session_id, told.user_id), (None, None, None, None));
    assert_eq!(
        changes(&record),
        "gen_ai.provider.name:\ngen_ai.request.model:\nuser.id:\nrunspan.original.gen_ai.provider.name: \"strands-agents\"\nrunspan.original.gen_ai.request.model: \"none\"\nrunspan.original.user.id: \"<REDACTED>\""
    );
    for (key, user) in [("user.id", "unknown"), ("ai.telemetry.metadata.userId", "unknown"), ("enduser.id", "None")] {
        assert_eq!(facts(&ended(&[(key, user.into())])).user_id, None, "{key}");
    }
}

#[test]
fn what_providers_bill_apart_is_found_in_their_own_reports() {
    let counts = |usage: &str| {
        let mut record = ended(&[
            ("langfuse.observation.type", "generation".into()),
            ("langfuse.observation.usage_details", usage.into()),
        ]);
        normalize(&mut record);
        let mut counts: Vec<String> = [
            names::INPUT_TOKENS,
            names::CACHE_WRITE_TOKENS,
            names::CACHE_WRITE_1H_TOKENS,
            names::WEB_SEARCHES,
            names::AUDIO_INPUT_TOKENS,
            names::AUDIO_CACHE_READ_TOKENS,
            names::AUDIO_OUTPUT_TOKENS,
        ]
        .into_iter()
        .filter_map(|key| Some(format!("{key}={}", record.span.attr(key)?.as_i64()?)))
        .collect();
        counts.sort();
        counts.join(" ")
    };
    insta::assert_snapshot!(
        counts(r#"{"input_tokens":10,"output_tokens":5,"cache_creation_input_tokens":30,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20},"server_tool_use":{"web_search_requests":2}}"#),
        @"gen_ai.usage.cache_write.input_tokens=30 gen_ai.usage.input_tokens=40 runspan.usage.cache_write_1h_tokens=20 runspan.usage.web_searches=2"
    );
    insta::assert_snapshot!(
        counts(r#"{"input_tokens":40,"output_tokens":5,"cache_creation_input_tokens":30,"cache_creation_input_tokens_above_1hr":20}"#),
        @"gen_ai.usage.cache_write.input_tokens=30 gen_ai.usage.input_tokens=70 runspan.usage.cache_write_1h_tokens=20"
    );
    insta::assert_snapshot!(
        counts(r#"{"promptTokenCount":100,"candidatesTokenCount":9,"promptTokensDetails":[{"modality":"TEXT","tokenCount":20},{"modality":"AUDIO","tokenCount":80}],"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":7}]}"#),
        @"gen_ai.usage.audio.cache_read.input_tokens=7 gen_ai.usage.audio.input_tokens=80 gen_ai.usage.input_tokens=100"
    );
    insta::assert_snapshot!(
        counts(r#"{"inputTokens":10,"outputTokens":5,"cacheWriteInputTokens":30,"cacheDetails":[{"ttl":"5m","inputTokens":10},{"ttl":"1h","inputTokens":20}]}"#),
        @"gen_ai.usage.cache_write.input_tokens=30 gen_ai.usage.input_tokens=40 runspan.usage.cache_write_1h_tokens=20"
    );
    insta::assert_snapshot!(
        counts(r#"{"input":20,"output":6,"total":109,"input_audio":80,"output_audio":3}"#),
        @"gen_ai.usage.audio.input_tokens=80 gen_ai.usage.audio.output_tokens=3 gen_ai.usage.input_tokens=100"
    );
    insta::assert_snapshot!(
        counts(r#"{"input":0,"output":0,"total":109,"input_modality_TEXT":20,"input_modality_AUDIO":73,"cached_modality_AUDIO":7,"output_modality_TEXT":9}"#),
        @"gen_ai.usage.audio.cache_read.input_tokens=7 gen_ai.usage.audio.input_tokens=80 gen_ai.usage.input_tokens=100"
    );
    insta::assert_snapshot!(
        counts(r#"{"input":10,"output":5,"cache_creation_input_tokens":30,"cache_creation_ephemeral_5m_input_tokens":10,"cache_creation_ephemeral_1h_input_tokens":20}"#),
        @"gen_ai.usage.cache_write.input_tokens=30 gen_ai.usage.input_tokens=40 runspan.usage.cache_write_1h_tokens=20"
    );
    // Zeros of what few calls use are not written.
    insta::assert_snapshot!(
        counts(r#"{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":0},"completion_tokens_details":{"audio_tokens":3}}"#),
        @"gen_ai.usage.audio.output_tokens=3 gen_ai.usage.input_tokens=10"
    );
}

#[test]
fn what_gemini_xai_and_perplexity_count_beside_is_billed() {
    let counts = |provider: &str, usage: &str| {
        let mut record = ended(&[
            ("gen_ai.provider.name", provider.into()),
            ("langfuse.observation.type", "generation".into()),
            ("langfuse.observation.usage_details", usage.into()),
        ]);
        normalize(&mut record);
        [names::INPUT_TOKENS, names::OUTPUT_TOKENS, names::REASONING_TOKENS].map(|key| record.span.attr(key)?.as_i64())
    };
    let (google, by_total) = ("gcp.gemini", [Some(190), Some(61), Some(45)]);
    // Tokens of its own tools are input, wherever they are told: in a member, or in the total only.
    for usage in [
        r#"{"promptTokenCount":120,"toolUsePromptTokenCount":70,"candidatesTokenCount":16,"thoughtsTokenCount":45,"totalTokenCount":251}"#,
        r#"{"prompt_token_count":120,"tool_use_prompt_token_count":70,"candidates_token_count":16,"thoughts_token_count":45,"total_token_count":251}"#,
        r#"{"prompt_token_count":120,"tool_use_prompt_token_count":70,"candidates_token_count":16,"total_token_count":251}"#,
        r#"{"prompt_token_count":120,"candidates_token_count":16,"thoughts_token_count":45,"total_token_count":251}"#,
    ] {
        assert_eq!(counts(google, usage), by_total, "{usage}");
    }
    // A call that only thought has no count of what it answered.
    let thought = r#"{"promptTokenCount":100,"thoughtsTokenCount":1000,"totalTokenCount":1100}"#;
    assert_eq!(counts(google, thought), [Some(100), Some(1000), Some(1000)]);
    assert_eq!(counts(google, r#"{"promptTokenCount":100,"totalTokenCount":100}"#), [Some(100), None, None]);
    let xai = r#"{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,"completion_tokens_details":{"reasoning_tokens":94}}"#;
    assert_eq!(counts("x_ai", xai), [Some(32), Some(103), Some(94)]);
    let short = r#"{"prompt_tokens":32,"completion_tokens":90,"total_tokens":131,"completion_tokens_details":{"reasoning_tokens":9}}"#;
    assert_eq!(counts("x_ai", short), [Some(32), Some(99), Some(9)]);
    let included = r#"{"prompt_tokens":32,"completion_tokens":90,"total_tokens":122,"completion_tokens_details":{"reasoning_tokens":9}}"#;
    assert_eq!(counts("openai", included), [Some(32), Some(90), Some(9)]);
    let cited = r#"{"prompt_tokens":8,"completion_tokens":20,"total_tokens":28,"citation_tokens":500}"#;
    assert_eq!(counts("perplexity", cited), [Some(8), Some(520), None]);
    // They have a price of their own.
    let mut record = ended(&[
        ("gen_ai.provider.name", "perplexity".into()),
        ("gen_ai.request.model", "sonar-deep-research".into()),
        ("langfuse.observation.type", "generation".into()),
        ("langfuse.observation.usage_details", cited.into()),
    ]);
    normalize(&mut record);
    crate::pipeline::cost::Pricer::new().price(&mut record);
    let cost = facts(&record).cost.unwrap().0;
    assert_eq!(cost.0, 8 * 2_000 + 20 * 8_000 + 500 * 2_000);
}
