//! An agent built with rig, recorded without a line changed in it.
//!
//! ```text
//! cargo run --example rig
//! ```
//!
//! One line is ours: the first of `main`. The model is a scripted one on loopback, so this needs no network and no
//! key; with a real one, `client` is `OpenAI::from_env()?` and everything else stays.

#[allow(dead_code, unused_imports, reason = "the example needs only a part of the scripted model")]
#[path = "../src/cli/demo/model_server/mod.rs"]
mod model_server;

use std::io::Write;

use futures::StreamExt;
use model_server::{ModelServer, Script};
use rig::prelude::*;
use rig::providers::openai::OpenAIConfig;
use rig::streaming::{Item, StreamEvent};
use rig::tool::ToolExecutionError;

/// Tells the weather in a city.
#[rig::rig_tool]
fn get_weather(
    /// The city to look at
    city: String,
) -> Result<String, ToolExecutionError> {
    Ok(format!("{city}: 4 degrees, snow"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let _guard = runspan::init();

    let server = ModelServer::start(Script::demo())?;
    let client = OpenAIConfig::new("no-key-needed").with_base_url(server.base_url()).client();
    let agent = AgentBuilder::new(client.chat("gpt-4o-mini"))
        .name("weather-reporter")
        .preamble("You report the weather. Be brief.")
        .tool(GetWeather)
        .default_max_turns(4)
        .build();

    let answer = agent.prompt("What is the weather in Bern?").await?;
    println!("{}", answer.output());

    let mut stream = agent.prompt("And the weather again, slowly?").stream();
    while let Some(item) = stream.next().await {
        if let MultiTurnStreamItem::StreamAssistantItem(Item::Event(StreamEvent::Text { text, .. })) = item? {
            print!("{text}");
            std::io::stdout().flush()?;
        }
    }
    println!();
    Ok(())
}
