//! Frameworks in Python and .NET.

use super::*;
use crate::model::json_text::JsonText;

#[test]
fn smolagents_has_the_usage_in_what_python_prints_of_the_answer() {
    let answer = r#"{"role": "assistant", "raw": "ChatCompletion(id='c-0', choices=[Choice(index=0)], usage=CompletionUsage(completion_tokens=37, prompt_tokens=211, total_tokens=248, completion_tokens_details=CompletionTokensDetails(reasoning_tokens=16), prompt_tokens_details=PromptTokensDetails(cache_write_tokens=None, cached_tokens=64)))"}"#;
    let call = told(
        "openinference.instrumentation.smolagents",
        "OpenAIModel.generate",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.token_count.prompt", Value::Int(211)),
            ("llm.token_count.completion", Value::Int(37)),
            ("output.value", answer.into()),
        ],
    );
    assert_eq!(tokens(&call), [Some(211), Some(64), None, Some(37), Some(16)]);
}

#[test]
fn what_openinference_names_after_a_method_is_called_what_the_program_calls_it() {
    let agent = told(
        "openinference.instrumentation.smolagents",
        "weather_agent.run",
        &[("openinference.span.kind", "AGENT".into())],
    );
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather_agent")));
    let tool = told(
        "openinference.instrumentation.dspy",
        "get_weather.__call__",
        &[("openinference.span.kind", "TOOL".into())],
    );
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
}

#[test]
fn openllmetry_says_of_llamaindex_what_a_call_is_beside_its_word_for_all() {
    let embedding = told(
        "opentelemetry.instrumentation.llamaindex",
        "OpenAIEmbedding.task",
        &[("traceloop.span.kind", "task".into()), ("gen_ai.operation.name", "embeddings".into())],
    );
    assert_eq!(embedding.kind, StepKind::Embedding);
    let tool = told(
        "opentelemetry.instrumentation.llamaindex",
        "FunctionTool.task",
        &[
            ("traceloop.span.kind", "task".into()),
            ("traceloop.entity.name", "FunctionTool.task".into()),
            ("traceloop.entity.output", r#"{"tool_name": "get_weather", "raw_output": "18 C"}"#.into()),
        ],
    );
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
}

#[test]
fn mlflow_names_a_tool_of_dspy_after_its_class_too() {
    let tool = told("mlflow.tracing.provider", "Tool.get_weather", &[("mlflow.spanType", "\"TOOL\"".into())]);
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
}

#[test]
fn making_an_agent_is_no_run() {
    let made = told(
        "opentelemetry.instrumentation.langchain",
        "create_agent weather",
        &[("gen_ai.operation.name", "create_agent".into()), ("gen_ai.agent.name", "weather".into())],
    );
    assert_eq!((made.kind, made.is_genai), (StepKind::Task, false));
}

#[test]
fn adk_adds_reasoning_to_an_output_that_has_it_where_the_model_is_not_of_google() {
    let call = |provider: &str| {
        told(
            "gcp.vertex.agent",
            "generate_content",
            &[
                ("gen_ai.operation.name", "generate_content".into()),
                ("gen_ai.provider.name", provider.into()),
                ("gen_ai.usage.input_tokens", Value::Int(211)),
                ("gen_ai.usage.output_tokens", Value::Int(53)),
                ("gen_ai.usage.reasoning.output_tokens", Value::Int(16)),
            ],
        )
    };
    assert_eq!(tokens(&call("openai")), [Some(211), None, None, Some(37), Some(16)]);
    assert_eq!(tokens(&call("gcp.gemini")), [Some(211), None, None, Some(53), Some(16)]);
    // The same in the older way, where the total tells.
    let response = |total: u64| {
        let usage =
            format!(r#""candidates_token_count": 37, "thoughts_token_count": 16, "total_token_count": {total}"#);
        let response = format!(r#"{{"usage_metadata": {{"prompt_token_count": 211, {usage}}}}}"#);
        told("gcp.vertex.agent", "call_llm", &[("gcp.vertex.agent.llm_response", response.into())])
    };
    assert_eq!(tokens(&response(248)), [Some(211), None, None, Some(37), Some(16)]);
    assert_eq!(tokens(&response(264)), [Some(211), None, None, Some(53), Some(16)]);
    // Before 2.5 it wrote what the object says, and its total tells that it did.
    let before = |model: &str, output: i64, response: &str| {
        told(
            "gcp.vertex.agent",
            "call_llm",
            &[
                ("gen_ai.system", "gcp.vertex.agent".into()),
                ("gen_ai.request.model", model.into()),
                ("gcp.vertex.agent.llm_response", response.into()),
                ("gen_ai.usage.input_tokens", Value::Int(2568)),
                ("gen_ai.usage.output_tokens", Value::Int(output)),
                ("gen_ai.usage.experimental.reasoning_tokens", Value::Int(7)),
            ],
        )
    };
    let of_openai = r#"{"usage_metadata":{"cached_content_token_count":128,"candidates_token_count":212,
        "prompt_token_count":2568,"thoughts_token_count":7,"total_token_count":2780}}"#;
    let call = before("openai/gpt-4o-mini", 212, of_openai);
    assert_eq!(tokens(&call), [Some(2568), Some(128), None, Some(212), Some(7)]);
    let of_google = r#"{"usage_metadata":{"candidates_token_count":205,"prompt_token_count":2568,
        "thoughts_token_count":7,"total_token_count":2780}}"#;
    let call = before("gemini-2.5-flash", 205, of_google);
    assert_eq!(tokens(&call), [Some(2568), None, None, Some(212), Some(7)]);
}

#[test]
fn a_crew_is_a_workflow_and_a_method_of_a_flow_no_agent() {
    let crew = told(
        "opentelemetry.instrumentation.crewai.instrumentation",
        "crewai.workflow",
        &[
            ("gen_ai.operation.name", "invoke_agent".into()),
            ("crewai.crew.id", "1".into()),
            ("crewai.crew.name", "trip".into()),
            ("crewai.crew.result", "18 C".into()),
        ],
    );
    assert_eq!((crew.kind, crew.workflow_name.as_deref()), (StepKind::Workflow, Some("trip")));
    assert_eq!(crew.content.output, Some(crate::model::json_text::JsonText::of(&"18 C".into())));
    let openlit = |more: &[(&str, Value)]| {
        let mut list = vec![("gen_ai.operation.name", "invoke_agent".into())];
        list.extend_from_slice(more);
        told("openlit.instrumentation.crewai", "invoke_agent", &list).kind
    };
    assert_eq!(openlit(&[]), StepKind::Task);
    assert_eq!(openlit(&[("gen_ai.agent.name", "weather".into())]), StepKind::Agent);
}

#[test]
fn agno_has_what_the_provider_reported() {
    let call = |provider: &str| {
        let list = [
            ("openinference.span.kind", "LLM".into()),
            ("llm.provider", provider.into()),
            ("llm.token_count.prompt", Value::Int(131)),
            ("llm.token_count.completion", Value::Int(37)),
            ("llm.token_count.prompt_details.cache_read", Value::Int(64)),
            ("llm.token_count.prompt_details.cache_write", Value::Int(16)),
        ];
        tokens(&told("openinference.instrumentation.agno", "Claude.invoke", &list))
    };
    assert_eq!(call("Anthropic"), [Some(211), Some(64), Some(16), Some(37), None]);
    assert_eq!(call("AwsBedrock"), [Some(211), Some(64), Some(16), Some(37), None]);
    assert_eq!(call("OpenAI"), [Some(131), Some(64), Some(16), Some(37), None]);
}

#[test]
fn llamaindex_names_its_agent_in_what_goes_from_step_to_step() {
    let input =
        r#"{"ev": "AgentSetup(input=[ChatMessage(role=<MessageRole.USER: 'user'>)], current_agent_name='weather')"}"#;
    let list = [("openinference.span.kind", "CHAIN".into()), ("input.value", input.into())];
    let step = told("openinference.instrumentation.llama_index", "BaseWorkflowAgent.run_agent_step", &list);
    assert_eq!((step.kind, step.agent_name.as_deref()), (StepKind::Task, Some("weather")));
    let output = r#"{"input": [], "current_agent_name": "weather"}"#;
    let list = [("traceloop.span.kind", "task".into()), ("traceloop.entity.output", output.into())];
    let step = told("opentelemetry.instrumentation.llamaindex", "BaseWorkflowAgent.task", &list);
    assert_eq!((step.kind, step.agent_name.as_deref()), (StepKind::Task, Some("weather")));
}

#[test]
fn beeai_has_cached_tokens_among_its_metadata_by_openinference() {
    let call = told(
        "openinference.instrumentation.beeai",
        "AnthropicChatModel",
        &[
            ("openinference.span.kind", "LLM".into()),
            ("llm.token_count.prompt", Value::Int(211)),
            ("llm.token_count.completion", Value::Int(37)),
            ("metadata.usage.cached_prompt_tokens", Value::Int(64)),
            ("metadata.usage.cached_creation_tokens", Value::Int(16)),
        ],
    );
    assert_eq!(tokens(&call), [Some(211), Some(64), Some(16), Some(37), None]);
}

#[test]
fn mlflow_has_the_agent_of_pydantic_ai_and_its_counts_as_the_framework_writes_them() {
    let agent =
        told("", "Agent.run_sync", &[("mlflow.spanType", r#""AGENT""#.into()), ("name", r#""weather_agent""#.into())]);
    assert_eq!((agent.kind, agent.agent_name.as_deref()), (StepKind::Agent, Some("weather_agent")));
    let answer = r#"{"parts": [], "usage": {"input_tokens": 211, "cache_write_tokens": 16, "cache_read_tokens": 64, "output_tokens": 37, "details": {"reasoning_tokens": 16}}, "model_name": "gpt-4o-mini-2024-07-18", "provider_response_id": "chatcmpl-0"}"#;
    let list = [("mlflow.spanType", r#""LLM""#.into()), ("mlflow.spanOutputs", answer.into())];
    let call = told("", "OpenAIChatModel.request", &list);
    assert_eq!(tokens(&call), [Some(211), Some(64), Some(16), Some(37), Some(16)]);
    let answered = (call.response_model.as_deref(), call.response_id.as_deref());
    assert_eq!(answered, (Some("gpt-4o-mini-2024-07-18"), Some("chatcmpl-0")));
    let model =
        r#"{"_model_name": "gpt-4o-mini", "_provider": "OpenAIProvider(name=openai, base_url=http://h:1/v1/)"}"#;
    let agent = told("", "Agent.run", &[("mlflow.spanType", r#""AGENT""#.into()), ("model", model.into())]);
    assert_eq!(agent.request_model.as_deref(), Some("gpt-4o-mini"));
    let status = |format: &str, state: &str| {
        let answer = format!(r#"{{"parts": [], "finish_reason": null, "state": "{state}"}}"#);
        let list = [
            ("mlflow.spanType", Value::from(r#""LLM""#)),
            ("mlflow.message.format", format.into()),
            ("mlflow.spanOutputs", answer.as_str().into()),
        ];
        told("mlflow.tracing.provider", "OpenAIChatModel.request", &list).status
    };
    let own = r#""pydantic_ai""#;
    assert_eq!(status(own, "incomplete"), StepStatus::Cancelled);
    assert_eq!(status(own, "interrupted"), StepStatus::Cancelled);
    assert_eq!(status(own, "complete"), StepStatus::Success);
    assert_eq!(status(r#""openai""#, "incomplete"), StepStatus::Success);
}

#[test]
fn an_event_of_beeai_is_not_another_step_of_the_kind_it_happens_in() {
    let agent = [("openinference.span.kind", "AGENT".into()), ("metadata.class_name", "RequirementAgent".into())];
    assert_eq!(told("openinference.instrumentation.beeai", "weather_agent", &agent).kind, StepKind::Agent);
    let event = |kind: &str, name: &str, path: &str| {
        let list = [("openinference.span.kind", Value::from(kind)), ("metadata.path", path.into())];
        told("openinference.instrumentation.beeai", name, &list).kind
    };
    assert_eq!(event("AGENT", "final_answer", "agent.requirement.final_answer"), StepKind::Task);
    assert_eq!(event("LLM", "new_token", "backend.openai.chat.new_token"), StepKind::Task);
}

#[test]
fn ag2_reports_what_calls_used_beside_them_and_what_it_used_itself_as_calls() {
    let used = |of: (&str, &str), provider: &str| {
        let list = [
            (of.0, Value::from(of.1)),
            ("gen_ai.provider.name", provider.into()),
            ("gen_ai.usage.input_tokens", Value::Int(131)),
            ("gen_ai.usage.output_tokens", Value::Int(37)),
            ("gen_ai.usage.cache_read_input_tokens", Value::Int(64)),
            ("gen_ai.usage.cache_creation_input_tokens", Value::Int(16)),
            ("gen_ai.usage.thinking_tokens", Value::Int(8)),
        ];
        let step = told("opentelemetry.instrumentation.ag2", "record_usage", &list);
        (step.kind, tokens(&step))
    };
    let call = ("gen_ai.operation.name", "chat");
    assert_eq!(used(call, "anthropic"), (StepKind::Llm, [Some(211), Some(64), Some(16), Some(37), Some(8)]));
    assert_eq!(used(call, "openai"), (StepKind::Llm, [Some(131), Some(64), Some(16), Some(37), Some(8)]));
    let kind = |word| used(("ag2.usage.kind", word), "openai").0;
    let kinds = ["model_call", "subtask", "compaction", "aggregation"].map(kind);
    assert_eq!(kinds, [StepKind::Task, StepKind::Task, StepKind::Llm, StepKind::Llm]);
}

#[test]
fn a_tool_of_agno_has_failed_whose_print_says_so() {
    // `opentelemetry-instrumentation-agno` 0.62 with `agno` 3.1.
    let tool = |output: &str| {
        let list = [
            ("traceloop.span.kind", Value::from("tool")),
            ("gen_ai.tool.name", "get_weather".into()),
            ("traceloop.entity.output", output.into()),
        ];
        let tool = told("opentelemetry.instrumentation.agno", "get_weather.tool", &list);
        (
            tool.status,
            tool.error.and_then(|error| error.message),
            tool.content.output.map(|text| text.as_str().to_owned()),
        )
    };
    let failed = tool("status='failure' result=None error='no weather' updated_session_state=None images=None");
    assert_eq!((failed.0, failed.1.as_deref()), (StepStatus::Error, Some("no weather")));
    let done = tool("status='success' result='18 degrees' error=None updated_session_state=None images=None");
    assert_eq!((done.0, done.2.as_deref()), (StepStatus::Success, Some("\"18 degrees\"")));
    // What a tool of a program gives may have a status of its own.
    assert_eq!(tool(r#"{"status": "failure"}"#).0, StepStatus::Success);
}

#[test]
fn building_a_workflow_is_no_run_by_the_agent_framework() {
    let list = [("workflow_builder.name", "Sequential".into()), ("workflow.id", "a-1".into())];
    assert!(!told("agent_framework", "workflow.build", &list).is_genai);
    let run = told("agent_framework", "workflow.run", &[("workflow.name", "Sequential".into())]);
    assert_eq!((run.kind, run.is_genai, run.workflow_name.as_deref()), (StepKind::Workflow, true, Some("Sequential")));
}

#[test]
fn a_stream_that_was_refused_leaves_an_answer_with_nothing_in_it_by_pydantic_ai() {
    let status = |scope: &str, output: &str, model: &str| {
        let list = [
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.request.model", "gpt-4o-mini".into()),
            ("gen_ai.response.model", model.into()),
            ("gen_ai.output.messages", output.into()),
        ];
        told(scope, "chat gpt-4o-mini", &list).status
    };
    let empty = r#"[{"role":"assistant","parts":[]}]"#;
    assert_eq!(status("pydantic-ai", empty, "gpt-4o-mini"), StepStatus::Error);
    // The program stopped reading it, or hides what was said.
    assert_eq!(status("pydantic-ai", empty, "gpt-4o-mini-2024-07-18"), StepStatus::Success);
    let said = r#"[{"role":"assistant","parts":[{"type":"text","content":"It is 18 "}]}]"#;
    assert_eq!(status("pydantic-ai", said, "gpt-4o-mini"), StepStatus::Success);
    // Logfire tells of a stream's answer later.
    assert_eq!(status("logfire.openai", empty, "gpt-4o-mini"), StepStatus::Success);
}

#[test]
fn a_class_that_python_prints_is_the_class() {
    // Semantic Kernel.
    let list = [
        ("gen_ai.operation.name", Value::from("chat")),
        ("error.type", "<class 'semantic_kernel.exceptions.service_exceptions.ServiceResponseException'>".into()),
    ];
    let error = told("semantic_kernel.utils", "chat gpt-4o-mini", &list).error.and_then(|error| error.kind);
    assert_eq!(error.as_deref(), Some("semantic_kernel.exceptions.service_exceptions.ServiceResponseException"));
}

#[test]
fn a_tool_that_failed_has_its_name_in_that_of_its_span_alone_by_older_adk() {
    let list = [("exception.type", Value::from("ValueError"))];
    let tool = told("gcp.vertex.agent", "execute_tool get_weather", &list);
    assert_eq!((tool.kind, tool.tool_name.as_deref()), (StepKind::Tool, Some("get_weather")));
    assert_eq!(told("gcp.vertex.agent", "execute_tool (merged)", &[]).kind, StepKind::Task);
}

/// `mlflow` 3.17 with `dspy` 3.4 and `openai-agents` 0.24, run against a scripted server.
#[test]
fn mlflow_has_the_usage_of_a_streamed_answer_beside_it_and_the_sum_of_a_module_of_dspy_on_the_module() {
    let usage = r#"{"input_tokens":1007,"input_tokens_details":{"cached_tokens":201},"output_tokens":103,"output_tokens_details":{"reasoning_tokens":21},"total_tokens":1110}"#;
    let streamed = told(
        "mlflow",
        "Response",
        &[
            ("mlflow.spanType", r#""CHAT_MODEL""#.into()),
            ("usage", usage.into()),
            ("id", r#""resp_1""#.into()),
            ("model", r#""gpt-4o-mini-2024-07-18""#.into()),
        ],
    );
    assert_eq!(tokens(&streamed), [Some(1007), Some(201), None, Some(103), Some(21)]);
    assert_eq!((streamed.response_id.as_deref(), streamed.model()), (Some("resp_1"), Some("gpt-4o-mini-2024-07-18")));
    let sum = r#"{"input_tokens": 3042, "output_tokens": 318, "total_tokens": 3360}"#;
    let module = |name: &str, kind: &str| {
        told("mlflow", name, &[("mlflow.spanType", kind.into()), ("mlflow.chat.tokenUsage", sum.into())])
    };
    let (agent, predict) = (module("ReAct.forward", r#""AGENT""#), module("Predict.forward", r#""LLM""#));
    assert_eq!((agent.kind, tokens(&agent)[0], agent.billed), (StepKind::Agent, Some(3042), false));
    assert_eq!((predict.kind, tokens(&predict)[0], predict.billed), (StepKind::Task, Some(3042), false));
}

/// `opentelemetry-instrumentation-llamaindex` 0.62.4, run against a scripted server.
#[test]
fn llamaindex_by_openllmetry_passes_on_what_anthropic_counts() {
    let call = |provider: &str| {
        told(
            "opentelemetry.instrumentation.llamaindex",
            "Anthropic.task",
            &[
                ("traceloop.span.kind", "task".into()),
                ("gen_ai.operation.name", "chat".into()),
                ("gen_ai.provider.name", provider.into()),
                ("gen_ai.request.model", "None".into()),
                ("gen_ai.usage.input_tokens", Value::Int(601)),
                ("gen_ai.usage.output_tokens", Value::Int(103)),
                ("gen_ai.usage.cache_read.input_tokens", Value::Int(201)),
                ("gen_ai.usage.cache_creation.input_tokens", Value::Int(51)),
            ],
        )
    };
    let of_anthropic = call("anthropic_llm");
    assert_eq!((of_anthropic.provider.as_deref(), of_anthropic.model()), (Some("anthropic"), None));
    assert_eq!(tokens(&of_anthropic), [Some(853), Some(201), Some(51), Some(103), None]);
    assert_eq!(tokens(&call("openai"))[0], Some(601));
}

/// Claude Code 2.1.332, run against a scripted server: earlier ones have the counts of their own alone.
#[test]
fn claude_code_counts_cached_tokens_in_under_the_standards_name() {
    let own = [
        ("span.type", Value::from("claude_code.llm_request")),
        ("input_tokens", Value::Int(601)),
        ("output_tokens", Value::Int(103)),
        ("cache_read_tokens", Value::Int(201)),
        ("cache_creation_tokens", Value::Int(51)),
    ];
    let scope = "com.anthropic.claude_code.tracing";
    let counts = [Some(853), Some(201), Some(51), Some(103), None];
    assert_eq!(tokens(&told(scope, "claude_code.llm_request", &own)), counts);
    let summed = [&own[..], &[("gen_ai.usage.input_tokens", Value::Int(853))]].concat();
    assert_eq!(tokens(&told(scope, "claude_code.llm_request", &summed)), counts);
}

/// `openai-agents` 0.24 by Logfire 5.4.
#[test]
fn logfires_openai_agents_say_why_in_an_attribute() {
    let error = r#"{"message": "Error in agent run", "data": {"error": "Error code: 500 - no more"}}"#;
    let mut record = ended(&[("error", error.into()), ("logfire.msg_template", "Agent run: {name!r}".into())]);
    (record.span.name, record.scope.name) = ("Agent run: {name!r}".to_owned(), "logfire.openai_agents".to_owned());
    record.span.status = Some(Status { code: 2, message: String::new() });
    let error = facts(&record).error.unwrap();
    assert_eq!(error.message.as_deref(), Some("Error code: 500 - no more"));
}

/// LiteLLM 1.108, whose fallback to another provider leaves the first one's name behind.
#[test]
fn what_litellm_asked_before_is_not_what_answered() {
    let answered = |asked: &str| {
        let call = told(
            "litellm",
            "litellm_request",
            &[
                ("gen_ai.operation.name", "chat".into()),
                ("gen_ai.provider.name", "anthropic".into()),
                ("gen_ai.request.model", "claude-sonnet-4-5".into()),
                ("gen_ai.response.model", "claude-sonnet-4-5".into()),
                ("litellm.provider.model", asked.into()),
            ],
        );
        call.model().map(str::to_owned)
    };
    assert_eq!(answered("openai/gpt-4o-mini").as_deref(), Some("claude-sonnet-4-5"));
}

/// DSPy, smolagents and LangChain with LiteLLM, by OpenInference, run against a scripted server.
#[test]
fn litellms_name_of_a_model_is_the_providers_own_where_the_emitter_has_it_under_its_own_key() {
    let model = |provider: &str, list: &[(&str, Value)]| {
        let of = [("openinference.span.kind", "LLM".into()), ("llm.provider", provider.into())];
        let call = told("openinference.instrumentation.dspy", "LM.__call__", &[&of[..], list].concat());
        call.model().map(str::to_owned)
    };
    let named = |provider: &str, name: &str| model(provider, &[("llm.model_name", name.into())]);
    assert_eq!(named("openai", "openai/gpt-4o-mini").as_deref(), Some("gpt-4o-mini"));
    assert_eq!(named("anthropic", "anthropic/claude-sonnet-4-5").as_deref(), Some("claude-sonnet-4-5"));
    assert_eq!(named("openrouter", "openai/gpt-4o-mini").as_deref(), Some("openai/gpt-4o-mini"));
    assert_eq!(named("openai", "openai/").as_deref(), Some("openai/"));
    // What the program or the server calls it.
    let name = "openai/gpt-oss-20b";
    assert_eq!(model("openai", &[("gen_ai.request.model", name.into())]).as_deref(), Some(name));
    let answered = [("llm.model_name", name.into()), ("gen_ai.response.model", name.into())];
    let call = told("openinference.instrumentation.openai", "ChatCompletion", &answered);
    assert_eq!(call.model(), Some(name));
}

/// `haystack-ai` 2.9, and `openinference-instrumentation-haystack` 0.1.15 and 0.1.46, run against a scripted server.
#[test]
fn haystacks_messages_tell_their_use_in_either_form_and_a_prompt_that_is_filled_in_is_no_call() {
    for meta in ["meta", "_meta"] {
        let output = format!(
            r#"{{"replies":[{{"{meta}":{{"model":"gpt-4o-mini-2024-07-18","usage":{{"prompt_tokens":211,"completion_tokens":37}}}}}}]}}"#
        );
        let list = [
            ("haystack.component.type", Value::from("OpenAIChatGenerator")),
            ("haystack.component.output", output.into()),
        ];
        let call = told("haystack", "haystack.component.run", &list);
        let used = call.tokens.map(|used| (used.prompt, used.completion));
        assert_eq!((call.kind, used), (StepKind::Llm, Some((Some(211), Some(37)))), "{meta}");
        assert_eq!(call.response_model.as_deref(), Some("gpt-4o-mini-2024-07-18"), "{meta}");
    }
    let list =
        [("openinference.span.kind", Value::from("LLM")), ("llm.prompt_template.template", "Hi {{name}}".into())];
    let kind = |name: &str| told("openinference.instrumentation.haystack", name, &list).kind;
    let kinds = ["PromptBuilder.run", "PromptBuilder (pb)", "OpenAIGenerator.run"].map(kind);
    assert_eq!(kinds, [StepKind::Task, StepKind::Task, StepKind::Llm]);
}

/// `haystack-ai` 2.31.
#[test]
fn haystack_that_is_imported_is_no_run() {
    assert!(!told("haystack", "haystack.tracing.auto_enable", &[]).is_genai);
    assert!(told("haystack", "haystack.pipeline.run", &[]).is_genai);
}

/// `haystack-ai` 2.31, run against a scripted server; without its content it has neither the tool's name nor its failure.
#[test]
fn the_invoker_of_haystacks_tools_is_a_tool_with_its_name_and_failure() {
    let invoked = |list: &[(&str, Value)]| {
        let kind =
            [("haystack.component.name", "tool_invoker".into()), ("haystack.component.type", "ToolInvoker".into())];
        told("haystack", "haystack.component.run", &[&kind[..], list].concat())
    };
    let output = |error: bool| {
        let result = serde_json::json!({
            "result": "no station",
            "origin": {"tool_name": "get_weather", "arguments": {"city": "Boom"}, "id": "call_1_0", "extra": null},
            "error": error,
        });
        let message =
            serde_json::json!({"role": "tool", "meta": {}, "name": null, "content": [{"tool_call_result": result}]});
        ("haystack.component.output", Value::from(serde_json::json!({"tool_messages": [message]}).to_string()))
    };
    for (list, name, status) in [
        (vec![], Some("tool_invoker"), StepStatus::Success),
        (vec![output(false)], Some("get_weather"), StepStatus::Success),
        (vec![output(true)], Some("get_weather"), StepStatus::Error),
    ] {
        let step = invoked(&list);
        assert_eq!((step.kind, step.tool_name.as_deref(), step.status), (StepKind::Tool, name, status));
    }
}

/// `opentelemetry-instrumentation-genai-openai` 1.3b0, run against a scripted server; that of LangChain says so of every answer.
#[test]
fn a_stream_that_broke_off_says_so_by_its_reason_alone() {
    let status = |scope: &str, reason: &str| {
        let reasons = crate::model::otlp::ArrayValue { values: vec![Value::from(reason).into()] };
        let list =
            [("gen_ai.operation.name", "chat".into()), ("gen_ai.response.finish_reasons", Value::Array(reasons))];
        told(&format!("opentelemetry.instrumentation.genai.{scope}"), "chat gpt-4o-mini", &list).status
    };
    assert_eq!(status("openai", "error"), StepStatus::Error);
    assert_eq!(status("openai", "stop"), StepStatus::Success);
    assert_eq!(status("langchain", "error"), StepStatus::Success);
}

#[test]
fn agentscope_has_the_providers_counts_as_python_prints_them() {
    let usage = "CompletionUsage(completion_tokens=23, prompt_tokens=237, total_tokens=260, completion_tokens_details=\
                 CompletionTokensDetails(reasoning_tokens=7, text_tokens=None), prompt_tokens_details=PromptTokensDetails(\
                 cached_tokens=128))";
    let output =
        serde_json::json!({"usage": {"input_tokens": 237, "output_tokens": 23, "metadata": usage}}).to_string();
    let call = told(
        "agentscope",
        "chat gpt-4o-mini",
        &[
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.provider.name", "openai".into()),
            ("gen_ai.conversation.id", r#""JSTGNid""#.into()),
            ("gen_ai.usage.input_tokens", 237.into()),
            ("gen_ai.usage.output_tokens", 23.into()),
            ("agentscope.function.output", output.as_str().into()),
        ],
    );
    assert_eq!(
        (call.session_id.as_deref(), tokens(&call)),
        (Some("JSTGNid"), [Some(237), Some(128), None, Some(23), Some(7)])
    );
}

#[test]
fn of_mcp_agents_methods_one_is_the_agent_and_one_the_tool() {
    let named = |name: &str, more: &[(&str, Value)]| {
        told("my-service", name, &[&[("gen_ai.agent.name", Value::from("planner"))], more].concat()).kind
    };
    let used = [("gen_ai.request.model", Value::from("gpt-4o-mini")), ("request_params.use_history", true.into())];
    assert_eq!(named("OpenAIAugmentedLLM.planner.generate", &used), StepKind::Agent);
    let tool = [("gen_ai.tool.name", Value::from("get_weather"))];
    assert_eq!(told("my-service", "OpenAIAugmentedLLM.planner.execute_tool_call", &tool).kind, StepKind::Tool);
    for name in ["Agent.planner.call_tool", "MCPAggregator.call_tool", "OpenAIAugmentedLLM.planner.call_tool"] {
        assert_eq!(named(name, &tool), StepKind::Task, "{name}");
    }
    let request = [("mcp.method.name", Value::from("tools/call")), ("gen_ai.tool.name", "get_weather".into())];
    assert_eq!(named("MCPAgentClientSession.send_request", &request), StepKind::Task);
    assert_eq!(named("Agent.planner.initialize", &[]), StepKind::Task);
    // Others name their spans by classes, too.
    assert_eq!(named("Agent.chat", &[("gen_ai.operation.name", "chat".into())]), StepKind::Llm);
    assert_eq!(named("Agent.run", &[("gen_ai.operation.name", "invoke_agent".into())]), StepKind::Agent);
}

#[test]
fn blocks_of_bedrock_are_read_as_parts_and_a_tools_own_message_as_what_it_was_given() {
    let read = |operation: &str, events: Vec<SpanEvent>| {
        let mut record = ended(&[("gen_ai.operation.name", operation.into()), ("gen_ai.tool.name", "book".into())]);
        record.span.events = events;
        normalize(&mut record);
        let text = |key| record.span.attr_str(key).map(str::to_owned);
        [
            text(names::INPUT_MESSAGES).or(text(names::TOOL_ARGUMENTS)),
            text(names::OUTPUT_MESSAGES).or(text(names::TOOL_RESULT)),
        ]
        .map(Option::unwrap_or_default)
    };
    let of = |name: &str, key: &str, content: &str| event(name, &[(key, Value::from(content))]);
    let [asked, said] = read(
        "chat",
        vec![
            of("gen_ai.user.message", "content", r#"[{"text":"Rain?"}]"#),
            of("gen_ai.tool.message", "content", r#"[{"toolResult":{"toolUseId":"c1","content":[{"text":"no"}]}}]"#),
            of(
                "gen_ai.choice",
                "message",
                r#"[{"type":"toolUse","name":"book","toolUseId":"c2","input":{"to":"Rome"}}]"#,
            ),
        ],
    );
    insta::assert_snapshot!(asked, @r#"[{"role":"user","parts":[{"type":"text","content":"Rain?"}]},{"role":"tool","parts":[{"type":"tool_call_response","id":"c1","response":[{"text":"no"}]}]}]"#);
    insta::assert_snapshot!(said, @r#"[{"role":"assistant","parts":[{"type":"tool_call","id":"c2","name":"book","arguments":{"to":"Rome"}}]}]"#);
    let tool = read(
        "execute_tool",
        vec![
            of("gen_ai.tool.message", "content", r#"{"to":"Rome"}"#),
            of("gen_ai.choice", "message", r#"[{"text":"booked"}]"#),
        ],
    );
    assert_eq!(tool, [r#"{"to":"Rome"}"#, "booked"]);
    // Azure's clients have all of a message in one attribute.
    let [asked, said] = read(
        "chat",
        vec![
            of("gen_ai.user.message", "gen_ai.event.content", r#"{"role": "user", "content": "Rain?"}"#),
            of("gen_ai.choice", "gen_ai.event.content", r#"{"message": {"content": "Yes."}, "finish_reason": "stop"}"#),
        ],
    );
    insta::assert_snapshot!(asked, @r#"[{"role":"user","parts":[{"type":"text","content":"Rain?"}]}]"#);
    insta::assert_snapshot!(said, @r#"[{"role":"assistant","parts":[{"type":"text","content":"Yes."}],"finish_reason":"stop"}]"#);
}

/// `github.com/firebase/genkit/go` 1.4.0, run against a scripted server.
#[test]
fn genkit_for_go_names_the_model_alone() {
    let step = |kind: &str, name: &str, more: &[(&str, Value)]| {
        let list = [("genkit:name", name.into()), ("genkit:metadata:subtype", kind.into())];
        told("genkit-tracer", name, &[&list, more].concat())
    };
    let answer = r#"{"custom": {"id": "chatcmpl-1", "model": "gpt-4o-mini-2024-07-18"}, "usage": {"inputTokens": 237, "outputTokens": 23, "totalTokens": 260}}"#;
    let call = step("model", "openai/gpt-4o-mini", &[("genkit:output", answer.into())]);
    let said =
        [&call.provider, &call.request_model, &call.response_model, &call.response_id].map(|text| text.as_deref());
    assert_eq!(said, [Some("openai"), Some("gpt-4o-mini"), Some("gpt-4o-mini-2024-07-18"), Some("chatcmpl-1")]);
    assert_eq!((call.kind, tokens(&call)), (StepKind::Llm, [Some(237), None, None, Some(23), None]));
    // A flow may be called so, too.
    let flow = step("flow", "trips/plan", &[]);
    assert_eq!((flow.kind, flow.provider, flow.request_model), (StepKind::Workflow, None, None));
}

/// `haystack-ai` 3.4.1 with Anthropic's generator, run against a scripted server.
#[test]
fn haystack_has_anthropics_thoughts_among_openais_names() {
    let answer = r#"{"replies": [{"meta": {"usage": {"cache_creation_input_tokens": 64, "cache_read_input_tokens": 128,
        "output_tokens_details": {"thinking_tokens": 7}, "prompt_tokens": 1088, "completion_tokens": 92}}}]}"#;
    let list =
        [("haystack.component.type", "AnthropicChatGenerator".into()), ("haystack.component.output", answer.into())];
    let call = told("haystack", "haystack.component.run", &list);
    assert_eq!((call.kind, call.tokens.and_then(|tokens| tokens.reasoning)), (StepKind::Llm, Some(7)));
}

/// `pydantic-evals` 5.4, run against a scripted server.
#[test]
fn an_evaluation_has_its_names_and_who_judges_is_an_evaluator() {
    let of = |name: &str, list: &[(&str, Value)]| {
        let step = told("pydantic-evals", name, list);
        let text = |text: Option<JsonText>| text.map(|text| text.as_str().to_owned()).unwrap_or_default();
        (step.kind, step.name, step.step_name, text(step.content.input), text(step.content.output))
    };
    let experiment = of(
        "evaluate {name}",
        &[
            ("gen_ai.operation.name", "experiment".into()),
            ("name", "exp".into()),
            ("logfire.msg", "evaluate exp".into()),
        ],
    );
    let owned = |kind, words: [&str; 4]| {
        let [name, step_name, input, output] = words.map(str::to_owned);
        (kind, name, step_name, input, output)
    };
    assert_eq!(experiment, owned(StepKind::Workflow, ["evaluate exp", "exp", "", ""]));
    let case = of(
        "case: {case_name}",
        &[
            ("case_name", "c1".into()),
            ("logfire.msg", "case: c1".into()),
            ("inputs", "hi".into()),
            ("output", "x".into()),
        ],
    );
    assert_eq!(case, owned(StepKind::Task, ["case: c1", "case:-c1", r#""hi""#, r#""x""#]));
    let judge = [("evaluator_name", "Sunny".into()), ("logfire.msg", "Calling evaluator: Sunny".into())];
    let judge = of("evaluator: {evaluator_name}", &judge);
    let words = ["Calling evaluator: Sunny", "Calling-evaluator:-Sunny", "", ""];
    assert_eq!(judge, owned(StepKind::Evaluator, words));
}

/// `logfire` 5.4 of the Claude Agent SDK, run against a scripted server.
#[test]
fn what_claude_code_says_in_the_place_of_a_model_is_why_a_request_failed() {
    let said = r#"[{"role":"assistant","parts":[{"type":"text","content":"API Error: 400"}]}]"#;
    let call = |model: &str| {
        let list = [
            ("gen_ai.operation.name", "chat".into()),
            ("gen_ai.response.model", model.into()),
            ("gen_ai.output.messages", said.into()),
            ("error.type", "unknown".into()),
        ];
        told("logfire.claude_agent_sdk", "chat", &list).error.unwrap().message
    };
    assert_eq!(call("<synthetic>").as_deref(), Some("API Error: 400"));
    assert_eq!(call("claude-sonnet-4-5"), None);
}

/// `mirascope` 2.4 with the clients of OpenAI, Anthropic and Google, run against a scripted server.
#[test]
fn mirascope_has_cached_tokens_in_an_object_and_the_session_on_steps_of_its_own() {
    let usage = r#"{"input_tokens":1007,"output_tokens":103,"cache_read_tokens":501,"cache_write_tokens":201,
        "reasoning_tokens":31,"total_tokens":1110}"#;
    let call = |model: &str, input: i64, id: Option<&str>| {
        let (provider, _) = model.split_once('/').unwrap();
        let mut list = vec![
            ("gen_ai.operation.name", Value::from("chat")),
            ("gen_ai.provider.name", provider.into()),
            ("gen_ai.request.model", model.into()),
            ("gen_ai.usage.input_tokens", Value::Int(input)),
            ("gen_ai.usage.output_tokens", Value::Int(103)),
            ("mirascope.response.usage", usage.into()),
        ];
        list.extend(id.map(|id| ("gen_ai.response.id", id.into())));
        tokens(&told("mirascope.llm", &format!("chat {model}"), &list))
    };
    let billed = [Some(1007), Some(501), Some(201), Some(103), Some(31)];
    assert_eq!(call("anthropic/claude-sonnet-4-5", 1007, Some("msg_1")), billed);
    assert_eq!(call("google/gemini-2.5-flash", 1007, None), billed);
    assert_eq!(canonical_provider("anthropic-beta").as_deref(), Some("anthropic"));
    // A stream of Anthropic's, which has no id.
    assert_eq!(call("anthropic/claude-sonnet-4-5", 305, None), billed);
    let resumed = told(
        "mirascope.ops",
        "Response.resume anthropic/claude-sonnet-4-5",
        &[
            ("mirascope.type", "response_resume".into()),
            ("mirascope.ops.session.id", "s-1".into()),
            ("mirascope.response.usage", usage.into()),
        ],
    );
    assert_eq!((resumed.kind, resumed.session_id.as_deref()), (StepKind::Task, Some("s-1")));
    assert_eq!(tokens(&resumed), [None; 5]);
}
