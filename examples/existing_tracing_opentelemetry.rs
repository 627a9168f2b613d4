//! A program that has `tracing-opentelemetry` installed already; runspan is one line in its tracer provider.

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::info_span;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> OTelSdkResult {
    let provider = SdkTracerProvider::builder()
        // .with_batch_exporter(..) and whatever else is there stays as it is.
        .with_span_processor(runspan::processor())
        .build();
    let telemetry = tracing_opentelemetry::layer().with_tracer(provider.tracer("my-agent"));
    tracing_subscriber::registry().with(telemetry).init();

    info_span!("invoke_agent greeter", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "greeter").in_scope(
        || {
            info_span!(
                "chat gpt-4o-mini",
                gen_ai.operation.name = "chat",
                gen_ai.provider.name = "openai",
                gen_ai.request.model = "gpt-4o-mini",
                gen_ai.usage.input_tokens = 120,
                gen_ai.usage.output_tokens = 30,
            )
            .in_scope(|| {});
        },
    );
    // The provider's shutdown writes out what was recorded.
    provider.shutdown()
}
