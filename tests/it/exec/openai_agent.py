"""A program with the OpenAI client alone: every kind of call once, and one of which it does not wait for the end."""
from openai import OpenAI

client = OpenAI(api_key="canary-1f2e3d")
messages = [{"role": "user", "content": "Which weather is it in Bern?"}]
tools = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
answer = client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=tools)
call = answer.choices[0].message.tool_calls[0]
messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "snow"}]
options = {"include_usage": True}
stream = client.chat.completions.create(
    model="gpt-4o-mini", messages=messages, tools=tools, stream=True, stream_options=options
)
print("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))
print(client.responses.create(model="gpt-5-mini", input="Hello").output_text)
with client.responses.stream(model="gpt-5-mini", input="Hello") as stream:
    print(stream.get_final_response().output_text)
print(len(client.embeddings.create(model="text-embedding-3-small", input="Hello").data))
