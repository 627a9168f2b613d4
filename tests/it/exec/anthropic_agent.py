"""A program with the Anthropic client alone: one answer in one piece, one in many."""
from anthropic import Anthropic

client = Anthropic(api_key="canary-1f2e3d")
question = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 100,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "Which weather is it in Bern?"}],
}
print(client.messages.create(**question).content[0].text)
with client.messages.stream(**question) as stream:
    print(stream.get_final_message().content[1].input)
