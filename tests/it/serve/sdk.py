"""An agent by hand with OpenTelemetry's SDK for Python: `sdk.py grpc|http/protobuf|http/json`."""
import sys

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

if sys.argv[1] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
elif sys.argv[1] == "http/protobuf":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
tracer = provider.get_tracer("by-hand")
agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "weather"}
chat = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.finish_reasons": ["tool_call"],
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 10,
}
tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look"}
with tracer.start_as_current_span("invoke_agent weather", attributes=agent):
    with tracer.start_as_current_span("chat gpt-4o-mini", attributes=chat):
        pass
    with tracer.start_as_current_span("execute_tool look", attributes=tool) as span:
        span.add_event("looked", {"times": 2})
provider.shutdown()
