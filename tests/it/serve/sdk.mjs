// An agent by hand with OpenTelemetry's SDK for Node, set up by the standard variables.
import { NodeSDK } from "@opentelemetry/sdk-node";
import { trace } from "@opentelemetry/api";

const sdk = new NodeSDK();
sdk.start();
const tracer = trace.getTracer("by-hand");
const agent = { "gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "weather" };
const chat = {
  "gen_ai.operation.name": "chat",
  "gen_ai.provider.name": "openai",
  "gen_ai.request.model": "gpt-4o-mini",
  "gen_ai.response.finish_reasons": ["tool_call"],
  "gen_ai.usage.input_tokens": 100,
  "gen_ai.usage.output_tokens": 10,
};
const tool = { "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look" };
tracer.startActiveSpan("invoke_agent weather", { attributes: agent }, (root) => {
  tracer.startActiveSpan("chat gpt-4o-mini", { attributes: chat }, (span) => span.end());
  tracer.startActiveSpan("execute_tool look", { attributes: tool }, (span) => {
    span.addEvent("looked", { times: 2 });
    span.end();
  });
  root.end();
});
await sdk.shutdown();
