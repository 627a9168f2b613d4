//! Frameworks of the JVM.

use super::*;

/// A call with the messages of Koog 0.5.2 (`llm.chat`): input and output.
fn messages(events: &[(&str, &[(&str, Value)])]) -> (Option<String>, Option<String>) {
    let mut record = ended(&[("gen_ai.operation.name", "chat".into())]);
    record.span.events = events.iter().map(|(name, list)| event(name, list)).collect();
    normalize(&mut record);
    let text = |key| record.span.attr_str(key).map(str::to_owned);
    (text(names::INPUT_MESSAGES), text(names::OUTPUT_MESSAGES))
}

#[test]
fn what_stands_before_the_last_word_to_the_model_was_said_before() {
    let user = ("gen_ai.user.message", &[("role", "User".into()), ("content", "hi".into())][..]);
    let calls = r#"[{"function":{"name":"get_weather","arguments":"{}"},"id":"call_1","type":"function"}]"#;
    let choice = ("gen_ai.choice", &[("role", "tool".into()), ("tool_calls", calls.into())][..]);
    let tool = ("gen_ai.tool.message", &[("content", "sunny".into()), ("id", "call_1".into())][..]);
    let answer = ("gen_ai.assistant.message", &[("content", "It is sunny.".into())][..]);
    let [said_user, said_choice, said_tool, said_answer] = [
        r#"{"role":"user","parts":[{"type":"text","content":"hi"}]}"#,
        r#"{"role":"assistant","parts":[{"type":"tool_call","id":"call_1","name":"get_weather","arguments":{}}]}"#,
        r#"{"role":"tool","parts":[{"type":"tool_call_response","id":"call_1","response":"sunny"}]}"#,
        r#"{"role":"assistant","parts":[{"type":"text","content":"It is sunny."}]}"#,
    ];
    let list = |said: &[&str]| Some(format!("[{}]", said.join(",")));
    assert_eq!(messages(&[user, choice]), (list(&[said_user]), list(&[said_choice])));
    assert_eq!(
        messages(&[user, choice, tool, answer]),
        (list(&[said_user, said_choice, said_tool]), list(&[said_answer]))
    );
    // Where nothing stands behind it, what the model said last is all there is: of an agent that was stopped, or told out of order.
    assert_eq!(messages(&[user, choice, tool]), (list(&[said_user, said_tool]), list(&[said_choice])));
    assert_eq!(messages(&[choice, choice, user]), (list(&[said_user]), list(&[said_choice, said_choice])));
    assert_eq!(
        messages(&[user, choice, tool, ("gen_ai.assistant.message", &[])]),
        (list(&[said_user, said_tool]), list(&[said_choice]))
    );
    assert_eq!(
        messages(&[user, choice, tool, choice, tool]),
        (list(&[said_user, said_choice, said_tool, said_tool]), list(&[said_choice]))
    );
    // That the model said something is no answer.
    assert_eq!(messages(&[user, ("gen_ai.assistant.message", &[])]), (list(&[said_user]), None));
    // What the program says in the model's place is no answer where there is one.
    assert_eq!(messages(&[user, answer, choice]), (list(&[said_user, said_answer]), list(&[said_choice])));
}

#[test]
fn what_a_tool_was_given_and_gave_is_told_by_the_names_of_its_events() {
    let mut record = ended(&[("gen_ai.operation.name", "execute_tool".into()), ("gen_ai.tool.name", "any".into())]);
    let content = |text: &str| [("content", Value::from(text))];
    record.span.events = vec![
        event("gen_ai.choice", &content("sunny")),
        event("gen_ai.tool.message", &content("Paris")),
        event("gen_ai.assistant.message", &content("now")),
    ];
    let step = facts(&record);
    assert_eq!(step.content.output.as_ref().map(|text| text.as_str()), Some(r#""sunny""#));
    assert!(step.content.input.is_some_and(|text| text.as_str().contains("now")));
}

#[test]
fn an_agent_is_called_by_its_id_where_that_is_a_name() {
    let agent = |name: &str, id: &str| {
        let list = [("gen_ai.operation.name", "invoke_agent".into()), ("gen_ai.agent.id", id.into())];
        let step = told("koog", name, &list);
        (step.agent_name, step.step_name)
    };
    let named = |name: &str| (Some(name.to_owned()), name.to_owned());
    let run = "run.d78584a7-44f2-4fa8-a3d0-a4431d3787ad";
    assert_eq!(agent(run, "planner"), named("planner"));
    // 1.1.1.
    assert_eq!(agent("invoke_agent planner", "any"), named("planner"));
    for id in [
        "d78584a7-44f2-4fa8-a3d0-a4431d3787ad",
        "agent-01KE9BZH80BGEY5ABZ7D0DHDQ1",
        "4f2a9c1e77b05d38",
        "a1b2c3d4",
        "agent-3f9a2c1e",
        "agent_3F9A2C1E",
        "12345678",
        "17",
        "17-4",
        "V1StGXR8_Z5jdHi6B-myT",
        "QX7KP2M4TN",
    ] {
        assert_eq!(agent(run, id), (None, "invoke_agent".to_owned()), "{id}");
    }
    for id in [
        "oc-bad",
        "weather-agent-2",
        "researcher_v1",
        "researcher2",
        "ResearchAgent2",
        "GPT4oPlanner",
        "deadbeef",
        "Agent.7",
    ] {
        assert_eq!(agent(run, id), named(id));
    }
    // The AI SDK has the model's name there.
    let list = [("gen_ai.operation.name", "invoke_agent".into()), ("gen_ai.request.model", "gpt-4o-mini".into())];
    assert_eq!(told("gen_ai", "invoke_agent gpt-4o-mini", &list).agent_name, None);
    // A tool of an agent is none.
    let tool = [("gen_ai.operation.name", "execute_tool".into()), ("gen_ai.agent.id", "planner".into())];
    assert_eq!(told("koog", "any", &tool).tool_name, None);
}

#[test]
fn koog_s_tools_have_what_went_in_and_out_by_openinference_s_names_and_its_roles_are_written_large() {
    let tool = told(
        "koog",
        "tool.get_weather",
        &[
            ("gen_ai.tool.name", "get_weather".into()),
            ("input.value", r#"{"city":"Paris"}"#.into()),
            ("output.value", "sunny".into()),
        ],
    );
    let text =
        |json: &Option<_>| json.as_ref().map(|json: &crate::model::json_text::JsonText| json.as_str().to_owned());
    assert_eq!(text(&tool.content.input).as_deref(), Some(r#"{"city":"Paris"}"#));
    assert_eq!(text(&tool.content.output).as_deref(), Some(r#""sunny""#));
    let written = |input: &str| {
        let mut record =
            ended(&[("gen_ai.operation.name", "chat".into()), ("gen_ai.input.messages", input.to_owned().into())]);
        normalize(&mut record);
        record.span.attr_str(names::INPUT_MESSAGES).unwrap_or_default().to_owned()
    };
    // What is no role of the standard's, and what the messages are about, stays as it is.
    let about = r#"{"type":"data","role":"User","at":1796010158.6911123,"content":"\"role\":\"User\""}"#;
    let list = |role: &str| format!(r#"[{{"parts":[{about}],"role": "{role}"}},{{"role":"AIMessage"}}]"#);
    assert_eq!(written(&list("User")), list("user"));
    assert_eq!(written(&list("ASSISTANT")), list("assistant"));
    // 1.1.1 names itself as who provides a tool, and says of an agent that it used nothing.
    let agent = told(
        "koog",
        "invoke_agent planner",
        &[
            ("koog.event.id", "e".into()),
            ("gen_ai.operation.name", "invoke_agent".into()),
            ("gen_ai.provider.name", "koog".into()),
            ("gen_ai.usage.input_tokens", "0".into()),
            ("gen_ai.usage.output_tokens", "0".into()),
        ],
    );
    assert_eq!((agent.tokens, agent.provider), (None, None));
}

/// `google-adk` 1.8, run against a scripted server.
#[test]
fn adk_for_java_tells_of_failures_by_what_is_missing_and_by_what_the_model_was_told() {
    let of = |name: &str, list: &[(&str, Value)]| {
        let mut record = ended(list);
        record.span.name = name.to_owned();
        record.scope.name = "gcp.vertex.agent".to_owned();
        let resource = crate::model::otlp::Resource {
            attributes: attributes(&[("telemetry.sdk.language", "java".into())]),
            ..Default::default()
        };
        record.resource = std::sync::Arc::new(resource);
        facts(&record)
    };
    assert_eq!(of("call_llm", &[]).status, StepStatus::Error);
    let answer = [("gcp.vertex.agent.llm_response", Value::from("{}"))];
    assert_eq!(of("call_llm", &answer).status, StepStatus::Success);
    let tool = |response: &str| {
        let step = of("execute_tool get_weather", &[("gcp.vertex.agent.tool_response", response.into())]);
        (step.status, step.error.and_then(|error| error.message))
    };
    let failed = tool(r#"{"status":"error","message":"An internal error occurred."}"#);
    assert_eq!(failed, (StepStatus::Error, Some("An internal error occurred.".to_owned())));
    assert_eq!(tool(r#"{"r":"sunny"}"#), (StepStatus::Success, None));
    assert_eq!(of("invocation", &[]).kind, StepKind::Workflow);
}
