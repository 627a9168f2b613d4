"""Asks a model as a program without any instrumentation does: `ask.py VARIABLE PATH BODY [word...]`."""
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request

# Other clients bear more than this one does by itself.
http.client._MAXHEADERS = 1_000
variable, path, body, *words = sys.argv[1:]
if body.startswith("@"):
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x" * int(body[1:])}]})
headers = {"Content-Type": "application/json", "Authorization": "Bearer canary-1f2e3d", "X-Api-Key": "canary-4c5b6a"}
headers.update(word.split("=", 1) for word in words if "=" in word)
request = urllib.request.Request(os.environ[variable] + path, body.encode(), headers)
began = time.time_ns()
try:
    answer = urllib.request.urlopen(request, timeout=1 if "give-up" in words else None)
    if "first" in words or "leave" in words:
        print(answer.readline().decode().strip(), flush=True)
        if "leave" in words:
            sys.exit()
    text = answer.read()
    print(answer.status, len(text), text[:80], flush=True)
except TimeoutError:
    print("no answer", flush=True)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode(), flush=True)

# The same call as a program with instrumentation would tell it, with what `tell=` names of the answer.
tell = [word for word in words if word.startswith("tell")]
if tell:
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": json.loads(body)["model"]}
    if tell == ["tell-id"]:
        attributes["gen_ai.response.id"] = json.loads(text)["id"]
    span = {
        "traceId": "cd" * 16,
        "spanId": "00000000000000c1",
        "name": "own chat",
        "startTimeUnixNano": str(began),
        "endTimeUnixNano": str(time.time_ns()),
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()],
    }
    spans = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
    target = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces"
    urllib.request.urlopen(urllib.request.Request(target, spans, {"Content-Type": "application/json"}))
