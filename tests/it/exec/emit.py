"""Sends an agent with a model call and a tool as OTLP JSON, as an SDK of its own trace or of its parent's would."""
import json
import os
import sys
import time
import urllib.request

words = sys.argv[1:]
_, trace, parent, _ = os.environ["TRACEPARENT"].split("-")
if "own-trace" in words or "alone" in words:
    trace, parent = "ab" * 16, ""
attributes = os.environ["OTEL_RESOURCE_ATTRIBUTES"].split(",") if "alone" not in words else []
now = time.time_ns()
if "epoch" in words or "future" in words:
    now = 1_000_000_000 if "epoch" in words else 15_000_000_000_000_000_000


def value(of):
    return {"intValue": str(of)} if isinstance(of, int) else {"stringValue": of}


def pairs(of):
    return [{"key": key, "value": value(what)} for key, what in of.items()]


def span(number, above, name, begin, end, **attributes):
    return {
        "traceId": trace,
        "spanId": f"{number:016x}" if isinstance(number, int) else number,
        "parentSpanId": f"{above:016x}" if isinstance(above, int) else above,
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(now + begin),
        "endTimeUnixNano": str(now + end),
        "attributes": pairs({key.replace("__", "."): what for key, what in attributes.items()}),
    }


chat = {"gen_ai__operation__name": "chat", "gen_ai__provider__name": "openai", "gen_ai__request__model": "gpt-4o-mini"}
usage = {"gen_ai__usage__input_tokens": 100, "gen_ai__usage__output_tokens": 10}
spans = [
    span(2, 1, "chat gpt-4o-mini", 1, 1000, **chat, **usage),
    span(3, 1, "execute_tool look", 2, 1000, gen_ai__operation__name="execute_tool", gen_ai__tool__name="look"),
]
if "no-root" not in words:
    agent = {"gen_ai__operation__name": "invoke_agent", "gen_ai__agent__name": "weather"}
    spans.append(span(1, parent, "invoke_agent weather", 0, 2000, **agent))
if "large" in words:
    text = {"gen_ai__tool__call__arguments": "x" * 20_000, "gen_ai__operation__name": "execute_tool"}
    spans += [span(number, 1, "large", 1, 2, **text) for number in range(100, 500)]
resource = {"attributes": pairs(dict(pair.split("=", 1) for pair in attributes))}
body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}
request = urllib.request.Request(
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces",
    json.dumps(body).encode(),
    {"Content-Type": "application/json"},
)
answer = json.load(urllib.request.urlopen(request))
assert not answer.get("partialSuccess"), answer
