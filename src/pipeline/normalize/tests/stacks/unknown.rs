//! What is read of emitters that no table knows, and of names that any of them may use.

use super::*;

fn kind_and_model(list: &[(&str, Value)]) -> (StepKind, Option<String>, bool) {
    let step = told("shop", "work", list);
    (step.kind, step.model().map(str::to_owned), step.is_genai)
}

/// The last rule by which a call is known (ADR 0061).
#[test]
fn a_model_alone_makes_a_call_where_nothing_else_says_what_a_span_is() {
    let call = |model: &str| (StepKind::Llm, Some(model.to_owned()), true);
    let none = (StepKind::Task, None, false);
    assert_eq!(kind_and_model(&[("llm.model_name", "my-model".into())]), call("my-model"));
    for model in ["gpt-4o-mini", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "meta-llama/llama-3.3-70b"] {
        assert_eq!(kind_and_model(&[("model", model.into())]), call(model));
    }
    // A name that nobody knows is a model's where tokens were used.
    let used = ("gen_ai.usage.input_tokens", Value::Int(9));
    assert_eq!(kind_and_model(&[("model", "my-model".into()), used]), call("my-model"));
    // As Prisma has the table that is asked, and a shop what it sells.
    assert_eq!(kind_and_model(&[("model", "User".into()), ("method", "findMany".into())]), none);
    for key in ["http.request.method", "db.system.name"] {
        assert_eq!(kind_and_model(&[("model", "gpt-4o".into()), (key, "x".into())]), none);
        assert_eq!(kind_and_model(&[("llm.model_name", "gpt-4o".into()), (key, "x".into())]), none);
    }
}

#[test]
fn a_models_name_beside_what_a_span_is_changes_nothing() {
    for (key, value, kind) in [
        ("gen_ai.agent.name", "a", StepKind::Agent),
        ("gen_ai.tool.name", "t", StepKind::Tool),
        ("gen_ai.workflow.name", "w", StepKind::Workflow),
        ("gen_ai.operation.name", "plan", StepKind::Task),
        // Chains of a known framework repeat what their calls asked.
        ("openinference.span.kind", "CHAIN", StepKind::Task),
        ("traceloop.span.kind", "task", StepKind::Task),
    ] {
        let list = [(key, value.into()), ("model", "gpt-4o".into()), ("llm.model_name", "gpt-4o".into())];
        assert_eq!(told("shop", "work", &list).kind, kind, "{key}");
    }
}

/// By the names that OpenTelemetry's conventions for GenAI give spans.
#[test]
fn the_name_of_a_call_tells_its_model_where_nothing_else_does() {
    let model = |operation: &str, name: &str, more: &[(&str, Value)]| {
        let list = [&[("gen_ai.operation.name", operation.into())], more].concat();
        let step = told("weather", name, &list);
        (step.kind, step.request_model, step.response_model)
    };
    let asked = |kind, model: &str| (kind, Some(model.to_owned()), None);
    assert_eq!(model("chat", "chat gpt-4o-mini", &[]), asked(StepKind::Llm, "gpt-4o-mini"));
    assert_eq!(
        model("generate_content", "generate_content gemini-2.5-pro", &[]),
        asked(StepKind::Llm, "gemini-2.5-pro")
    );
    assert_eq!(model("text_completion", "text_completion o3", &[]), asked(StepKind::Llm, "o3"));
    let embedding = asked(StepKind::Embedding, "text-embedding-3-small");
    assert_eq!(model("embeddings", "embeddings text-embedding-3-small", &[]), embedding);
    // Another operation's, a class, words, a placeholder.
    for (operation, name) in [
        ("generate_content", "chat gpt-4o"),
        ("chat", "chat ChatOpenAI"),
        ("chat", "chat with gpt-4o"),
        ("chat", "chat unknown"),
        ("chat", "chat"),
    ] {
        assert_eq!(model(operation, name, &[]), (StepKind::Llm, None, None), "{name}");
    }
    let answered = ("gen_ai.response.model", Value::from("gpt-4o-2024-08-06"));
    let other = (StepKind::Llm, None, Some("gpt-4o-2024-08-06".to_owned()));
    assert_eq!(model("chat", "chat gpt-4o", &[answered]), other);
    let told = ("gen_ai.request.model", Value::from("gpt-5"));
    assert_eq!(model("chat", "chat gpt-4o", &[told]), asked(StepKind::Llm, "gpt-5"));
}

/// By OpenLLMetry's names for tasks, and those of adk-rust.
#[test]
fn what_a_task_was_given_and_sound_that_was_used_are_read() {
    let record = ended(&[
        ("gen_ai.operation.name", "execute_task".into()),
        ("gen_ai.task.input", "Paris".into()),
        ("gen_ai.task.output", "sunny".into()),
    ]);
    insta::assert_snapshot!(changes(&record), @r#"
    runspan.input: "Paris"
    runspan.output: "sunny"
    "#);
    let record = ended(&[
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.usage.audio_input_tokens", Value::Int(7)),
        ("gen_ai.usage.audio_output_tokens", Value::Int(5)),
    ]);
    insta::assert_snapshot!(changes(&record), @"
    gen_ai.usage.audio.input_tokens: 7
    gen_ai.usage.audio.output_tokens: 5
    ");
}

/// goose, by its source; no recording.
#[test]
fn a_reply_of_goose_is_the_agents() {
    let reply = |list: &[(&str, Value)]| {
        let step = told("", "reply", list);
        (step.kind, step.agent_name, step.billed)
    };
    let used = ("gen_ai.usage.input_tokens", Value::Int(9));
    let goose = (StepKind::Agent, Some("goose".to_owned()), false);
    assert_eq!(reply(&[("session.agent_type", "goose".into()), used.clone()]), goose);
    assert_eq!(reply(&[("target", "goose::agents::agent".into()), used]), goose);
    let tool = told("goose", "execute_tool shell", &[("gen_ai.operation.name", "execute_tool".into())]);
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("shell")));
}
