// An agent of the Vercel AI SDK with a tool, and OpenTelemetry's own SDK for Node, both as their documentation has them.
import { createOpenAI } from "@ai-sdk/openai";
import { NodeSDK } from "@opentelemetry/sdk-node";
import { generateText, jsonSchema, stepCountIs, tool } from "ai";

const sdk = new NodeSDK();
sdk.start();
const openai = createOpenAI({ apiKey: "canary-1f2e3d" });
const { text } = await generateText({
  model: openai.chat("gpt-4o-mini"),
  prompt: "Which weather is it in Bern?",
  tools: {
    get_weather: tool({
      inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
      execute: async ({ city }) => `${city}: snow`,
    }),
  },
  stopWhen: stepCountIs(5),
  experimental_telemetry: { isEnabled: true, functionId: "weather" },
});
console.log(text);
await sdk.shutdown();
