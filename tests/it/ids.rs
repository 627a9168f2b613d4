//! Beside an installed `tracing-opentelemetry` both sides have the same ids.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use tracing::{Dispatch, Instrument, Level, Span as TracingSpan, field::Empty, span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer as _;
use tracing_subscriber::layer::SubscriberExt;

use super::support::{WATCHDOG, runs, steps};

const REMOTE_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const REMOTE_SPAN: &str = "b7ad6b7169203331";

/// The trace, the span and its parent, as hex.
type Ids = (String, String, Option<String>);

/// Remembers what the other side gave its spans.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, Ids>>>);

impl SpanProcessor for Seen {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        let context = &span.span_context;
        let parent = (span.parent_span_id != SpanId::INVALID).then(|| span.parent_span_id.to_string());
        let ids = (context.trace_id().to_string(), context.span_id().to_string(), parent);
        self.0.lock().unwrap().insert(span.name.into_owned(), ids);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: std::time::Duration) -> OTelSdkResult {
        Ok(())
    }
}

macro_rules! step {
    ($name:literal $(, parent: $parent:expr)?) => {
        span!($(parent: $parent,)? Level::INFO, $name, gen_ai.operation.name = "invoke_agent", late = Empty)
    };
}

/// A future that has to be asked twice.
fn twice() -> impl Future<Output = ()> {
    let mut asked = false;
    std::future::poll_fn(move |cx| {
        if std::mem::replace(&mut asked, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// The nine shapes. The step of each shape has the shape's name.
fn make_spans() {
    step!("root").in_scope(|| {});
    step!("outer").in_scope(|| {
        step!("child").in_scope(|| {});
        step!("root inside", parent: None).in_scope(|| {});
    });
    let parent = step!("parent");
    drop(step!("explicit parent", parent: &parent));
    drop(parent);
    let later = step!("entered later");
    step!("meanwhile").in_scope(|| {});
    later.in_scope(|| {});
    drop(step!("never entered"));
    let recorded = step!("recorded first");
    recorded.record("late", 1);
    drop(recorded);
    let remote = SpanContext::new(
        TraceId::from_hex(REMOTE_TRACE).unwrap(),
        SpanId::from_hex(REMOTE_SPAN).unwrap(),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    let moved = step!("remote parent");
    moved.set_parent(opentelemetry::Context::new().with_remote_span_context(remote)).expect("not started yet");
    moved.in_scope(|| {});
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(
        async {
            twice().await;
            TracingSpan::current().record("late", 2);
        }
        .instrument(step!("async")),
    );
}

const SHAPES: [&str; 9] = [
    "root",
    "child",
    "explicit parent",
    "root inside",
    "entered later",
    "never entered",
    "recorded first",
    "remote parent",
    "async",
];

/// How the two layers are put into a subscriber.
#[derive(Clone, Copy)]
enum Stack {
    OursFirst,
    OursSecond,
    /// Ours first, both as layers that a program may leave out.
    Optional,
    /// Ours second in a list of layers.
    List,
}

/// Returns the shapes whose ids differ, and whether our record has the parent in the other process.
fn differing(stack: Stack, processor_beside: bool) -> (Vec<&'static str>, bool) {
    let dir = crate::support::tempdir();
    let seen = Seen::default();
    let (layer, guard) = runspan::builder().store(dir.path()).build().unwrap();
    let mut provider = SdkTracerProvider::builder();
    let mut beside = None;
    if processor_beside {
        let (processor, guard) = runspan::builder().store(dir.path()).processor().unwrap();
        provider = provider.with_span_processor(processor);
        beside = Some(guard);
    }
    let provider = provider.with_span_processor(seen.clone()).build();
    let (registry, tracer) = (tracing_subscriber::registry(), provider.tracer("agent"));
    let subscriber: Dispatch = match stack {
        Stack::OursFirst => registry.with(layer).with(tracing_opentelemetry::layer().with_tracer(tracer)).into(),
        Stack::OursSecond => registry.with(tracing_opentelemetry::layer().with_tracer(tracer)).with(layer).into(),
        Stack::Optional => {
            registry.with(Some(layer)).with(Some(tracing_opentelemetry::layer().with_tracer(tracer))).into()
        }
        Stack::List => {
            let theirs = tracing_opentelemetry::layer().with_tracer(tracer).boxed();
            registry.with(vec![theirs, layer.boxed()]).into()
        }
    };
    tracing::dispatcher::with_default(&subscriber, make_spans);
    drop(subscriber);
    provider.shutdown().unwrap();
    drop(beside);
    let report = guard.shutdown(WATCHDOG);
    assert_eq!((report.stored, report.pending), (12, 0), "{report:?}");

    let mut ours = BTreeMap::new();
    for run in runs(dir.path()) {
        for step in steps(dir.path(), run.run_id) {
            let parent = step.parent_span_id.map(|parent| parent.to_string());
            ours.insert(step.name.clone(), (run.trace_id.to_string(), step.span_id.to_string(), parent));
        }
    }
    let seen = seen.0.lock().unwrap();
    let same = |shape: &str| {
        let ((trace, span, _), (their_trace, their_span, _)) = (&ours[shape], &seen[shape]);
        trace == their_trace && span == their_span
    };
    assert_eq!(seen["remote parent"].2.as_deref(), Some(REMOTE_SPAN), "the other side kept its parent");
    let has_remote_parent = ours["remote parent"].2.as_deref() == Some(REMOTE_SPAN);
    assert_eq!(ours["child"].2.as_ref(), Some(&ours["outer"].1));
    assert_eq!(ours["explicit parent"].2.as_ref(), Some(&ours["parent"].1));
    (SHAPES.into_iter().filter(|shape| !same(shape)).collect(), has_remote_parent)
}

#[test]
fn our_layer_first_has_the_same_ids() {
    assert_eq!(differing(Stack::OursFirst, false), (vec![], false));
}

/// A span that is never entered is closed by the other layer before ours sees it.
#[test]
fn our_layer_second_has_the_same_ids_of_spans_that_were_entered() {
    assert_eq!(
        differing(Stack::OursSecond, false),
        (vec!["explicit parent", "never entered", "recorded first"], false)
    );
}

#[test]
fn with_the_processor_beside_both_orders_have_the_same_ids_and_parents() {
    assert_eq!(differing(Stack::OursFirst, true), (vec![], true));
    assert_eq!(differing(Stack::OursSecond, true), (vec![], true));
}

/// Such a stack does not tell its layers which subscriber they are part of.
#[test]
fn layers_in_an_option_or_a_list_have_the_same_ids() {
    assert_eq!(differing(Stack::Optional, false), (vec![], false));
    assert_eq!(differing(Stack::Optional, true), (vec![], true));
    assert_eq!(differing(Stack::List, true), (vec![], true));
}
