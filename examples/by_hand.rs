//! A run made by hand: an agent that asks a model, calls a tool, and asks again.

use std::error::Error;

use runspan::{Run, Step, Usage};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let _guard = runspan::init();

    let run = Run::agent("weather").session("chat-42").user("ada").tag("example").input("How warm is Paris?").start();
    if let Some(id) = run.id() {
        println!("run {id}");
    }

    let call = run.llm("openai", "gpt-4o-mini");
    call.system_prompt("Answer in one sentence.").input("How warm is Paris?");
    call.output(json!([{"role": "assistant", "parts": [
        {"type": "tool_call", "id": "call-1", "name": "get_weather", "arguments": {"city": "Paris"}},
    ]}]));
    call.usage(Usage::new(120, 18)).finish_reason("tool_calls");
    call.finish();

    let tool = run.tool("get_weather");
    tool.call_id("call-1").input(json!({"city": "Paris"}));
    let degrees = get_weather(tool, "21.5")?;

    let call = run.llm("openai", "gpt-4o-mini");
    call.input(format!("Paris: {degrees} degrees")).output("It is 21.5 degrees in Paris.");
    call.usage(Usage::new(160, 12).cache_read(128)).finish_reason("stop");
    call.finish();

    run.artifact(b"city,degrees\nParis,21.5\n", "weather.csv", "text/csv");
    run.score("answered", 1.0);
    run.output("It is 21.5 degrees in Paris.");
    run.finish();
    println!("see it with: runspan get latest");
    Ok(())
}

/// A step can be handed to the code that does the work; an error ends it as failed.
fn get_weather(step: Step, answer: &str) -> Result<f64, std::num::ParseFloatError> {
    match answer.parse() {
        Ok(degrees) => {
            step.output(json!({"degrees": degrees}));
            step.finish();
            Ok(degrees)
        }
        Err(error) => {
            step.fail(&error);
            Err(error)
        }
    }
}
