//! An agent that is instrumented with plain `tracing` spans and `gen_ai.*` fields; runspan needs one line.

use tracing::{field::Empty, info, info_span};

fn main() {
    let _guard = runspan::init();

    let agent =
        info_span!("invoke_agent greeter", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "greeter");
    let _in_agent = agent.enter();
    {
        let call = info_span!(
            "chat gpt-4o-mini",
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = "openai",
            gen_ai.request.model = "gpt-4o-mini",
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
        );
        let _in_call = call.enter();
        call.record("gen_ai.usage.input_tokens", 120);
        call.record("gen_ai.usage.output_tokens", 30);
    }
    {
        let tool = info_span!("execute_tool", gen_ai.operation.name = "execute_tool", gen_ai.tool.name = "get_weather");
        let _in_tool = tool.enter();
        info!(city = "Paris", "looked the weather up");
    }
}
