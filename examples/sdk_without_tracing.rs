//! An agent that is instrumented with the OpenTelemetry SDK alone; runspan needs one line.

use opentelemetry::trace::{Span, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SdkTracerProvider;

fn main() -> OTelSdkResult {
    let provider = SdkTracerProvider::builder().with_span_processor(runspan::processor()).build();
    let tracer = provider.tracer("my-agent");

    let agent = tracer.span_builder("invoke_agent greeter").with_attributes([
        KeyValue::new("gen_ai.operation.name", "invoke_agent"),
        KeyValue::new("gen_ai.agent.name", "greeter"),
    ]);
    let agent = Context::new().with_span(tracer.build(agent));

    let call = tracer.span_builder("chat gpt-4o-mini").with_attributes([
        KeyValue::new("gen_ai.operation.name", "chat"),
        KeyValue::new("gen_ai.provider.name", "openai"),
        KeyValue::new("gen_ai.request.model", "gpt-4o-mini"),
    ]);
    let mut call = tracer.build_with_context(call, &agent);
    call.set_attribute(KeyValue::new("gen_ai.usage.input_tokens", 120));
    call.set_attribute(KeyValue::new("gen_ai.usage.output_tokens", 30));
    call.end();

    agent.span().end();
    // The provider's shutdown writes out what was recorded.
    provider.shutdown()
}
