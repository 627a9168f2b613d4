"""An agent of Pydantic AI with a tool; its spans go to whatever provider is set up."""
from pydantic_ai import Agent

Agent.instrument_all()
agent = Agent("openai-chat:gpt-4o-mini", name="weather")


@agent.tool_plain
def get_weather(city: str) -> str:
    return f"{city}: snow"


print(agent.run_sync("Which weather is it in Bern?").output)
