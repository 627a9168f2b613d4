//! Agents built with rig, unchanged, against a model that keeps a log of what it billed.

use futures::StreamExt;
use rig::Agent;
use rig::prelude::*;
use rig::providers::openai::OpenAIConfig;
use rig::tool::ToolExecutionError;
use runspan::model::{NanoUsd, RunKind, RunStatus, RunSummary, StepKind, StepStatus, StepView, Tokens};
use runspan::store::RunReader;
use tracing::Instrument;

use super::model_server::{Call, ModelServer, Said, Script, ToolCall, Turn};
use super::support::{only_run, open, outline, record_in, runs, steps};

/// Tells the weather in a city.
#[rig::rig_tool]
fn get_weather(
    /// The city to look at
    city: String,
) -> Result<String, ToolExecutionError> {
    if city == "Nowhere" {
        return Err(ToolExecutionError::other("error: there is no such city"));
    }
    Ok(format!("{city}: 4 degrees, snow"))
}

/// Makes an agent as a user of rig does. Nothing in it knows of runspan.
pub fn weather_agent(base_url: &str, model: &str) -> Agent {
    weather_agent_builder(base_url, model).tool(GetWeather).build()
}

/// Makes one that tells what is said.
#[cfg(feature = "cli")]
pub fn talkative_agent(base_url: &str, model: &str) -> Agent {
    weather_agent_builder(base_url, model).record_content_telemetry(true).tool(GetWeather).build()
}

fn weather_agent_builder(base_url: &str, model: &str) -> AgentBuilder {
    let client = OpenAIConfig::new("no-key-needed").with_base_url(base_url).client();
    AgentBuilder::new(client.chat(model)).name("reporter").preamble("Be brief.").default_max_turns(4)
}

fn agent(server: &ModelServer, model: &str) -> Agent {
    weather_agent(&server.base_url(), model)
}

/// Runs `work` to its end on this thread.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Sums what the model billed, in the shape in which a run tells it.
fn billed(calls: &[Call]) -> Tokens {
    let sum = |count: fn(&Call) -> u64| Some(calls.iter().map(count).sum());
    Tokens {
        prompt: sum(|call| call.tokens.input),
        completion: sum(|call| call.tokens.output),
        cache_read: sum(|call| call.tokens.cached),
        reasoning: sum(|call| call.tokens.reasoning),
        ..Tokens::default()
    }
    .with_total()
}

/// Prices calls by hand, in nano-dollars a token: fresh input, cached input, output.
fn price(calls: &[Call], [input, cached, output]: [u64; 3]) -> Option<NanoUsd> {
    let nano = calls.iter().map(|call| {
        let tokens = call.tokens;
        (tokens.input - tokens.cached) * input + tokens.cached * cached + tokens.output * output
    });
    Some(NanoUsd(nano.sum::<u64>() as i64))
}

/// What OpenAI asks for a million tokens of `gpt-4o-mini`: $0.15, $0.075 cached, $0.60 out.
const GPT_4O_MINI: [u64; 3] = [150, 75, 600];
/// `gpt-5-mini`: $0.25, $0.025 cached, $2 out.
const GPT_5_MINI: [u64; 3] = [250, 25, 2000];

/// Checks that a run's totals are what the model billed, each call once.
fn assert_billed(run: &RunSummary, calls: &[Call], prices: [u64; 3]) {
    let answered: Vec<Call> = calls.iter().filter(|call| call.status == 200).cloned().collect();
    assert_eq!(run.llm_calls, calls.len() as u64);
    assert_eq!(run.tokens.map(|tokens| Tokens { cache_write: None, ..tokens }), Some(billed(&answered)));
    assert_eq!(run.cost_usd, price(&answered, prices));
}

const TOOL_ROUND_TRIP: [&str; 4] =
    ["reporter agent success", "  chat llm success", "  get_weather tool success", "  chat-2 llm success"];

#[test]
fn an_agent_with_a_tool_is_one_run_that_costs_what_was_billed() {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), crate::support::tempdir());
    let report = record_in(dir.path(), |_| {
        let answer = block_on(async { agent(&server, "gpt-5-mini").prompt("What is the weather in Bern?").await });
        assert_eq!(answer.unwrap().output(), "This is what I found: Bern: 4 degrees, snow");
    });
    assert_eq!((report.stored, report.pending, report.dropped.len()), (4, 0, 0));
    let run = only_run(dir.path());
    assert_eq!((run.kind, run.agent_id.as_deref(), run.status), (RunKind::Agent, Some("reporter"), RunStatus::Success));
    assert_eq!((run.provider.as_deref(), run.steps_total, run.tool_calls, run.errors), (Some("openai"), 4, 1, 0));
    assert_billed(&run, &server.calls(), GPT_5_MINI);
    let tokens = run.tokens.unwrap();
    assert!(tokens.cache_read > Some(0) && tokens.reasoning > Some(0), "{tokens:?}");
    assert_eq!(outline(&steps(dir.path(), run.run_id)), TOOL_ROUND_TRIP);
}

/// Reads a streamed answer to its end.
async fn stream(agent: Agent, prompt: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut stream = agent.prompt(prompt).stream();
    while let Some(item) = stream.next().await {
        item?;
    }
    Ok(())
}

#[test]
fn a_streamed_agent_is_recorded_like_a_plain_one() {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), crate::support::tempdir());
    record_in(dir.path(), |_| block_on(stream(agent(&server, "gpt-4o-mini"), "What is the weather?")).unwrap());
    let run = only_run(dir.path());
    assert!(server.calls().iter().all(|call| call.streamed));
    assert_eq!((run.status, run.tool_calls), (RunStatus::Success, 1));
    assert_billed(&run, &server.calls(), GPT_4O_MINI);
    assert_eq!(outline(&steps(dir.path(), run.run_id)), TOOL_ROUND_TRIP);
}

#[test]
fn agents_at_work_at_once_are_runs_of_their_own() {
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), crate::support::tempdir());
    let (one, two) = (agent(&server, "gpt-4o-mini"), agent(&server, "gpt-4o-mini"));
    record_in(dir.path(), |_| {
        block_on(async {
            let (a, b) = (one.prompt("Weather?").into_future(), stream(two, "And the weather there, tomorrow?"));
            let (a, b) = tokio::join!(a, b);
            a.unwrap();
            b.unwrap();
        });
    });
    let runs = runs(dir.path());
    let sum = |a: Tokens, b: Tokens| Tokens { cache_write: None, ..a.plus(b) };
    assert_eq!(runs.len(), 2);
    assert_ne!(runs[0].trace_id, runs[1].trace_id);
    for run in &runs {
        assert_eq!((run.status, run.llm_calls, run.tool_calls), (RunStatus::Success, 2, 1));
        assert_eq!(outline(&steps(dir.path(), run.run_id)), TOOL_ROUND_TRIP);
    }
    assert_eq!(sum(runs[0].tokens.unwrap(), runs[1].tokens.unwrap()), billed(&server.calls()));
}

/// Under a span of the application rig opens no `invoke_agent` span and writes the agent's usage nowhere.
#[test]
fn an_agent_under_a_span_of_the_application_is_a_workflow_of_that_name() {
    for streamed in [false, true] {
        let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), crate::support::tempdir());
        record_in(dir.path(), |_| {
            let request = async {
                let agent = agent(&server, "gpt-4o-mini");
                match streamed {
                    true => stream(agent, "What is the weather?").await.unwrap(),
                    false => drop(agent.prompt("What is the weather?").await.unwrap()),
                }
            };
            block_on(request.instrument(tracing::info_span!("GET /weather")));
        });
        let run = only_run(dir.path());
        assert_eq!((run.kind, run.workflow_id.as_deref()), (RunKind::Workflow, Some("GET /weather")));
        assert_eq!((run.status, run.tool_calls), (RunStatus::Success, 1));
        assert_billed(&run, &server.calls(), GPT_4O_MINI);
        let steps = steps(dir.path(), run.run_id);
        assert_eq!(
            outline(&steps),
            ["GET-/weather task success", "  chat llm success", "  get_weather tool success", "  chat-2 llm success"]
        );
        let chats: Vec<&StepView> = steps.iter().filter(|step| step.kind == StepKind::Llm).collect();
        assert!(chats.iter().all(|chat| chat.agent_id.as_deref() == Some("reporter")), "{chats:#?}");
    }
}

#[test]
fn an_agent_whose_model_fails_is_an_error() {
    for (model, streamed) in [("fail-500", false), ("fail-429", true)] {
        let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), crate::support::tempdir());
        record_in(dir.path(), |_| {
            let failed = if streamed {
                block_on(stream(agent(&server, model), "What is the weather?")).is_err()
            } else {
                block_on(async { agent(&server, model).prompt("What is the weather?").await.is_err() })
            };
            assert!(failed);
        });
        let run = only_run(dir.path());
        assert_eq!(
            (run.status, run.llm_calls, run.tokens, run.cost_usd),
            (RunStatus::Error, 1, None, None),
            "{run:#?}"
        );
        assert!(run.error.is_some());
        let steps = steps(dir.path(), run.run_id);
        // rig says nothing of the failure on the agent's own span; the call that it ended with says it for the run.
        assert_eq!(outline(&steps), ["reporter agent success", "  chat llm error"]);
    }
}

#[test]
fn a_tool_that_failed_and_was_mended_is_an_error_of_its_step_alone() {
    // Asks for a city that is not there, and for Bern once that has failed.
    let script = Script::demo().rule(|ask| {
        let city = match ask.turns.last()? {
            Turn::User(_) => "Nowhere",
            Turn::ToolResult { text, .. } if text.contains("no such city") => "Bern",
            _ => return None,
        };
        Some(Said::Calls(vec![ToolCall { name: "get_weather".into(), arguments: serde_json::json!({"city": city}) }]))
    });
    let (server, dir) = (ModelServer::start(script).unwrap(), crate::support::tempdir());
    record_in(dir.path(), |_| {
        let answer = block_on(async { agent(&server, "gpt-4o-mini").prompt("What is the weather?").await });
        assert_eq!(answer.unwrap().output(), "This is what I found: Bern: 4 degrees, snow");
    });
    let run = only_run(dir.path());
    assert_eq!((run.status, run.tool_calls, run.errors), (RunStatus::Success, 2, 1));
    assert_billed(&run, &server.calls(), GPT_4O_MINI);
    let steps = steps(dir.path(), run.run_id);
    assert_eq!(
        outline(&steps),
        [
            "reporter agent success",
            "  chat llm success",
            "  get_weather tool error",
            "  chat-2 llm success",
            "  get_weather-2 tool success",
            "  chat-3 llm success",
        ]
    );
    assert!(steps.iter().all(|step| step.error.is_some() == (step.status == StepStatus::Error)));
}

#[test]
fn messages_are_kept_and_a_secret_in_them_is_not() {
    const SECRET: &str = "sk-proj-4fK9vTqLm2ZrXw8YbN3cHdJ7sGpQaE5uVtRiOy6WkLzMxCnB";
    let (server, dir) = (ModelServer::start(Script::demo()).unwrap(), crate::support::tempdir());
    record_in(dir.path(), |_| {
        let builder = weather_agent_builder(&server.base_url(), "gpt-4o-mini").record_content_telemetry(true);
        let agent = builder.tool(GetWeather).build();
        let prompt = format!("The weather, please. My key is {SECRET}, keep it.");
        block_on(async { agent.prompt(prompt).await }).unwrap();
    });
    let run = only_run(dir.path());
    let steps = steps(dir.path(), run.run_id);
    let chat = steps.iter().find(|step| step.step_id == "chat-2").unwrap();
    let (input, output) = (chat.input.as_ref().unwrap().to_string(), chat.output.as_ref().unwrap().to_string());
    assert!(input.contains("The weather, please. My key is ") && input.contains("Bern: 4 degrees, snow"), "{input}");
    assert!(output.contains("This is what I found"), "{output}");
    let tool = steps.iter().find(|step| step.kind == StepKind::Tool).unwrap();
    assert!(tool.input.as_ref().unwrap().to_string().contains("Bern"), "{tool:#?}");
    assert!(tool.output.as_ref().unwrap().to_string().contains("snow"), "{tool:#?}");
    let events = serde_json::to_string(&open(dir.path()).get_events(run.run_id, 0).unwrap()).unwrap();
    assert!(!events.contains(&SECRET[8..]));
    assert!(input.contains("My key is [redacted:openai:56:"), "{input}");
}
