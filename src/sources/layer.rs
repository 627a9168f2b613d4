//! The `tracing` layer: spans become records, encoded once, on the thread that made them.
//!
//! A span's attributes are encoded as OTLP when they are given and kept beside the span until it closes. Its start
//! and its end each become one record in the ring; an event becomes a record at once and is part of the end as well.
//! A span gets its ids and its start record when it is first entered, has a child or an event, or is asked for its
//! context: by then its parent is settled, and `tracing-opentelemetry` beside us can be asked for the same ids.
//! Nothing here touches a disk, a network or a lock of ours, and the user's own `Display` and `Debug` code runs while
//! none of our state is borrowed, since it may itself make spans.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tracing::dispatcher::WeakDispatch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Dispatch, Event, Level, Metadata, Span, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{ExtensionsMut, LookupSpan, SpanRef};

use super::budgets::{Meter, Wakers};
use super::context::{RemoteContext, ResumedSpan, SpanContext};
use super::desk::Line;
use super::encode::{self, EVENT_ATTRIBUTE, SPAN_ATTRIBUTE, SpanParts};
use super::foreign;
use super::guarded::{PANICKED, guarded, said};
use super::recorder::{Recorder, put_back, spare};
use crate::conventions::names;
use crate::model::record::RecordKind;
use crate::model::{RunId, SpanId, UnixNanos};

/// Events kept with a span, as in the OpenTelemetry SDKs; more are counted. Each is still a line of the run's log.
const MAX_SPAN_EVENTS: u32 = 128;
const MAX_SPAN_EVENT_BYTES: usize = 1 << 20;
const MAX_ATTRIBUTE_BYTES: usize = 4 << 20;
/// Links kept with a span, as in the OpenTelemetry SDKs.
const MAX_LINKS: u32 = 128;
const STATUS_OK: u8 = 1;
const STATUS_ERROR: u8 = 2;
const INTERNAL: u8 = 1;

/// Records spans of `tracing`; made by [`Builder::build`](crate::Builder::build).
#[derive(Debug)]
pub struct Layer {
    /// Tells layers apart, clones of one included: several may be in one subscriber.
    id: u64,
    recorder: Arc<Recorder>,
    level: Level,
    get_context: GetContext,
    /// The subscriber that the layer became part of; a layer lives in one.
    dispatch: OnceLock<WeakDispatch>,
}

impl Clone for Layer {
    fn clone(&self) -> Self {
        Self { id: fresh_id(), recorder: Arc::clone(&self.recorder), dispatch: OnceLock::new(), ..*self }
    }
}

fn fresh_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// What the layers of a subscriber keep with a span. As a rule there is one.
#[derive(Debug)]
struct Kept {
    state: SpanState,
    /// Of other layers, whose recorders are others too.
    others: Vec<SpanState>,
}

impl Kept {
    fn find(&self, wanted: impl Fn(&SpanState) -> bool) -> Option<&SpanState> {
        std::iter::once(&self.state).chain(&self.others).find(|state| wanted(state))
    }

    fn find_mut(&mut self, wanted: impl Fn(&SpanState) -> bool) -> Option<&mut SpanState> {
        std::iter::once(&mut self.state).chain(&mut self.others).find(|state| wanted(state))
    }
}

/// What the layer keeps with a span between its start and its end.
#[derive(Debug)]
struct SpanState {
    /// The layer that keeps it, and tells the recorder of it.
    layer: u64,
    recorder: u64,
    /// Set when the start is recorded.
    context: Option<SpanContext>,
    parent: Option<SpanId>,
    remote_parent: bool,
    /// What was attached to the thread that made a root span.
    remote: Option<Box<RemoteContext>>,
    /// The context of another process that a root span is under.
    came_from: Option<Arc<RemoteContext>>,
    /// What another process has begun.
    resumed: Option<Box<ResumedSpan>>,
    is_resumed: bool,
    start: UnixNanos,
    /// When this process took it up, by both clocks.
    taken_up: UnixNanos,
    clock: Instant,
    fields: Fields,
    events: Vec<u8>,
    event_count: u32,
    dropped_events: u32,
    links: Vec<u8>,
    link_count: u32,
    /// Its end is recorded, though it is not closed: what is below it still finds its ids here.
    is_over: bool,
}

/// Encoded attributes and the fields that steer the span itself.
#[derive(Debug, Default)]
struct Fields {
    attributes: Vec<u8>,
    name: Option<String>,
    kind: Option<u8>,
    status: Option<u8>,
    status_message: Option<String>,
    run_id: Option<RunId>,
    /// The span is not over when it is closed: another process goes on with it.
    is_left_open: bool,
    /// An ERROR event's `error` field; gives way to a status that was set.
    error: Option<String>,
}

impl Layer {
    pub(crate) fn new(recorder: Arc<Recorder>, level: Level) -> Self {
        recorder.notes().want();
        // What the layer is put onto is known only when it is.
        let get_context = GetContext { context: |_, _| None, find: |_, _, _| None, origin: |_, _| None };
        Self { id: fresh_id(), recorder, level, get_context, dispatch: OnceLock::new() }
    }

    /// Returns the handle of what the layer records to.
    pub(crate) fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Returns the subscriber that the layer is part of. An `Option` or a `Vec` of layers does not tell them which: then
    /// it is the one that is at work, if our recorder is in it.
    fn dispatch(&self) -> Option<&WeakDispatch> {
        if self.dispatch.get().is_none() {
            tracing::dispatcher::get_default(|dispatch| {
                let layer = dispatch.downcast_ref::<Self>();
                if layer.is_some_and(|layer| layer.recorder.id() == self.recorder.id()) {
                    let _ = self.dispatch.set(dispatch.downgrade());
                }
            });
        }
        self.dispatch.get()
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && self.recorder.is_recording()
    }

    /// Tells whether a state is of this layer, which alone hears of the span for its recorder.
    fn is_own(&self) -> impl Fn(&SpanState) -> bool + use<> {
        let id = self.id;
        move |state| state.layer == id
    }

    /// Tells whether a state is of this layer's recorder, whichever layer keeps it.
    fn is_recorded(&self) -> impl Fn(&SpanState) -> bool + use<> {
        let id = self.recorder.id();
        move |state| state.recorder == id
    }

    /// Returns the span's context as far as it is given: `None` for a span that is not kept.
    fn context<S>(&self, span: &SpanRef<'_, S>) -> Option<Option<SpanContext>>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        Some(span.extensions().get::<Kept>()?.find(self.is_recorded())?.context)
    }

    /// Tells whether this layer keeps something with the span.
    fn keeps<S>(&self, span: &SpanRef<'_, S>) -> bool
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        span.extensions().get::<Kept>().is_some_and(|kept| kept.find(self.is_own()).is_some())
    }

    /// Gives the span its ids and records its start, and before that its parents'.
    fn begin<S>(&self, span: &SpanRef<'_, S>) -> Option<SpanContext>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        self.begin_at(span, false)
    }

    /// Begins a span that may be closing: `tracing-opentelemetry` has closed it already when it comes before us.
    fn begin_at<S>(&self, span: &SpanRef<'_, S>, is_closing: bool) -> Option<SpanContext>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if let Some(known) = self.context(span)? {
            return Some(known);
        }
        // From the topmost one that has not begun, and not by recursion: a stack ends sooner than nesting does.
        let (mut around, mut above) = (None, Vec::new());
        for parent in span.scope().skip(1) {
            match self.context(&parent) {
                None => {}
                Some(None) => above.push(parent),
                Some(Some(known)) => {
                    around = Some(known);
                    break;
                }
            }
        }
        for parent in above.iter().rev() {
            around = self.begin_below(parent, around, false).or(around);
        }
        self.begin_below(span, around, is_closing)
    }

    /// Begins a span below the one around it, which has begun.
    fn begin_below<S>(
        &self,
        span: &SpanRef<'_, S>,
        around: Option<SpanContext>,
        is_closing: bool,
    ) -> Option<SpanContext>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let foreign = foreign::ids(self.dispatch(), self.recorder.notes(), &span.id());
        let mut extensions = span.extensions_mut();
        let state = extensions.get_mut::<Kept>()?.find_mut(self.is_recorded())?;
        if let Some(known) = state.context {
            // Another thread was at it.
            return Some(known);
        }
        if let Some(resumed) = state.resumed.take() {
            return Some(self.go_on(state, *resumed));
        }
        let foreign = foreign.or_else(|| {
            let name = state.fields.name.as_deref().unwrap_or(span.metadata().name());
            is_closing.then(|| self.recorder.notes().just_ended(name, state.start))?
        });
        // The program may have moved the span out of the trace of the span around it.
        let parent = around.filter(|around| foreign.is_none_or(|foreign| foreign.trace_id == around.trace_id));
        let note = foreign.and_then(|foreign| foreign.note);
        let remote = if parent.is_none() {
            state.remote.take().map(|remote| *remote).or_else(|| self.recorder.remote_parent())
        } else {
            None
        };
        let is_local_root = note.map_or(parent.is_none(), |note| note.is_local_root);
        let (trace_id, inherited) = match (&foreign, &parent, &remote) {
            (Some(foreign), _, _) => (foreign.trace_id, parent.and_then(|parent| parent.run_id)),
            (None, Some(parent), _) => (parent.trace_id, parent.run_id),
            (None, None, Some(remote)) => (remote.span.trace_id, None),
            (None, None, None) => {
                let run_id = state.fields.run_id.unwrap_or_else(|| RunId::fresh(state.start));
                (run_id.as_trace_id(), Some(run_id))
            }
        };
        let noted = note.and_then(|note| note.run_id);
        let run_id = state.fields.run_id.or(noted).or(inherited).unwrap_or_else(|| RunId::fresh(state.start));
        if is_local_root && state.fields.run_id.is_none() {
            encode::text_attribute(&mut state.fields.attributes, SPAN_ATTRIBUTE, names::RUN_ID, &run_id.to_string());
        }
        if is_local_root {
            encode::text_attribute(
                &mut state.fields.attributes,
                SPAN_ATTRIBUTE,
                names::STORE_ID,
                self.recorder.store_id(),
            );
        }
        state.parent = match (&note, &parent, &foreign, &remote) {
            (Some(note), _, _, _) => note.parent,
            (None, Some(parent), _, _) => Some(parent.span_id),
            (None, None, None, Some(remote)) => Some(remote.span.span_id),
            (None, None, _, _) => None,
        };
        state.remote_parent = is_local_root && state.parent.is_some();
        if let Some(parent_run) = remote.as_ref().and_then(|remote| remote.span.run_id) {
            let text = parent_run.to_string();
            encode::text_attribute(&mut state.fields.attributes, SPAN_ATTRIBUTE, names::PARENT_RUN_ID, &text);
        }
        state.came_from = remote.clone().map(Arc::new);
        let flags = foreign.map(|foreign| foreign.flags).or(parent.map(|parent| parent.flags));
        let flags = flags.or(remote.as_ref().map(|remote| remote.span.flags)).unwrap_or(1);
        let span_id = foreign.map_or_else(SpanId::fresh, |foreign| foreign.span_id);
        let context = SpanContext { trace_id, span_id, flags, run_id: Some(run_id) };
        state.context = Some(context);
        let wakers = self.record(span.metadata(), state, &context, RecordKind::Started, 0);
        drop(extensions);
        wakers.wake();
        Some(context)
    }

    /// Goes on with a span that another process has begun: its ids, its parent and its start are those.
    fn go_on(&self, state: &mut SpanState, resumed: ResumedSpan) -> SpanContext {
        let context = resumed.context;
        let own = std::mem::replace(&mut state.fields.attributes, resumed.attributes);
        state.fields.attributes.extend_from_slice(&own);
        (state.parent, state.remote_parent) = (resumed.parent, resumed.has_remote_parent);
        (state.start, state.is_resumed) = (resumed.start, true);
        let store = self.recorder.store_id();
        encode::text_attribute(&mut state.fields.attributes, SPAN_ATTRIBUTE, names::STORE_ID, store);
        // Its start is in the log. Told again, it would make the span look whole in the ring, and what it says now would be
        // told with its end.
        state.context = Some(context);
        context
    }

    /// Records the end of a span, once.
    fn end(&self, meta: &Metadata<'_>, state: &mut SpanState, context: &SpanContext) -> Wakers {
        if std::mem::replace(&mut state.is_over, true) {
            return Wakers::default();
        }
        // Wall clock at the start plus the monotonic length: a clock that jumps moves a span and never stretches it.
        let length = u64::try_from(state.clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let end = state.taken_up.0.saturating_add(length.max(1)).max(state.start.0.saturating_add(1));
        let is_left_open = state.fields.is_left_open;
        let wakers =
            if is_left_open { Wakers::default() } else { self.record(meta, state, context, RecordKind::Ended, end) };
        put_back(std::mem::take(&mut state.fields.attributes));
        put_back(std::mem::take(&mut state.events));
        wakers
    }

    fn own_state<'a>(&self, extensions: &'a mut ExtensionsMut<'_>) -> Option<&'a mut SpanState> {
        extensions.get_mut::<Kept>()?.find_mut(self.is_own())
    }

    /// Takes what this layer keeps with a span and leaves what others do.
    fn take_state(&self, extensions: &mut ExtensionsMut<'_>) -> Option<SpanState> {
        let kept = extensions.get_mut::<Kept>()?;
        if let Some(place) = kept.others.iter().position(self.is_own()) {
            return Some(kept.others.swap_remove(place));
        }
        if kept.state.layer != self.id {
            return None;
        }
        match kept.others.pop() {
            Some(other) => Some(std::mem::replace(&mut kept.state, other)),
            None => extensions.remove::<Kept>().map(|kept| kept.state),
        }
    }

    fn record(&self, meta: &Metadata<'_>, state: &SpanState, at: &SpanContext, kind: RecordKind, end: u64) -> Wakers {
        let events: &[u8] = if kind == RecordKind::Started { &[] } else { &state.events };
        let status = state.fields.status(kind);
        let parts = SpanParts {
            scope: meta.target(),
            trace_id: &at.trace_id.0,
            span_id: &at.span_id.0,
            parent: state.parent.as_ref().map(|parent| &parent.0),
            flags: u32::from(at.flags) | 0x100 | if state.remote_parent { 0x200 } else { 0 },
            name: state.fields.name.as_deref().unwrap_or(meta.name()),
            kind: state.fields.kind.unwrap_or(INTERNAL),
            start: state.start.0,
            end,
            fields: &[&state.fields.attributes, events, &state.links],
            dropped_events: state.dropped_events,
            status,
        };
        self.recorder.record(kind, &parts).1
    }

    /// Records an event of an open span at once, so that a killed run has it.
    fn record_event(
        &self,
        meta: &Metadata<'_>,
        name: &str,
        state: &SpanState,
        at: &SpanContext,
        event: &[u8],
    ) -> (bool, Wakers) {
        let parts = SpanParts {
            scope: meta.target(),
            trace_id: &at.trace_id.0,
            span_id: &at.span_id.0,
            parent: state.parent.as_ref().map(|parent| &parent.0),
            flags: u32::from(at.flags),
            name,
            kind: 0,
            start: state.start.0,
            end: 0,
            fields: &[event],
            dropped_events: 0,
            status: None,
        };
        self.recorder.record(RecordKind::Event, &parts)
    }
}

/// Tells whether values are of one of these fields.
fn values_name(values: &Values<'_>, names: &'static [&'static str]) -> bool {
    struct Naming(&'static [&'static str], bool);
    impl Visit for Naming {
        fn record_debug(&mut self, field: &Field, _: &dyn std::fmt::Debug) {
            self.1 |= self.0.contains(&field.name());
        }
    }
    let mut naming = Naming(names, false);
    values.record(&mut naming);
    naming.1
}

/// Tells whether late values say what the step is: a model, a tool, an agent, what went in.
fn values_tell_what(values: &Values<'_>) -> bool {
    values_name(values, names::TOLD_LATE)
}

/// Tells whether values end a step of ours: its code says last how it ended.
fn values_end(meta: &Metadata<'_>, values: &Values<'_>) -> bool {
    meta.target() == names::STEP_TARGET && values_name(values, &[names::STEP_STATUS])
}

impl<S> tracing_subscriber::Layer<S> for Layer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_layer(&mut self, _: &mut S) {
        self.get_context = GetContext { context: context_of::<S>, find: find_above::<S>, origin: origin_of::<S> };
    }

    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        // Set again only by a program that makes several subscribers of one layer; the first is it.
        let _ = self.dispatch.set(dispatch.downgrade());
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if !self.wants(attributes.metadata()) {
            return;
        }
        let (start, clock) = (UnixNanos::now(), Instant::now());
        let mut fields = Fields { attributes: spare(), ..Fields::default() };
        attributes.record(&mut FieldVisitor { fields: &mut fields, into: SPAN_ATTRIBUTE });
        fields.hold(SPAN_ATTRIBUTE);
        let Some(span) = ctx.span(id) else { return };
        let state = SpanState {
            layer: self.id,
            recorder: self.recorder.id(),
            context: None,
            parent: None,
            remote_parent: false,
            came_from: None,
            remote: if span.parent().is_none() { RemoteContext::attached().map(Box::new) } else { None },
            is_resumed: false,
            resumed: fields.run_id.and_then(ResumedSpan::take).map(Box::new),
            start,
            taken_up: start,
            clock,
            fields,
            events: Vec::new(),
            event_count: 0,
            dropped_events: 0,
            links: Vec::new(),
            link_count: 0,
            is_over: false,
        };
        let mut extensions = span.extensions_mut();
        match extensions.get_mut::<Kept>() {
            None => extensions.insert(Kept { state, others: Vec::new() }),
            // Another layer of the same recorder was first and hears of all that is to come.
            Some(kept) if kept.find(self.is_recorded()).is_some() => {}
            Some(kept) => kept.others.push(state),
        }
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id) {
            self.begin(&span);
        }
    }

    fn on_record(&self, id: &Id, values: &Values<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        if !self.keeps(&span) {
            return;
        }
        // The values are formatted before the state is borrowed: a value's own code may record into this span.
        let mut fields = Fields::default();
        values.record(&mut FieldVisitor { fields: &mut fields, into: SPAN_ATTRIBUTE });
        let is_end = values_end(span.metadata(), values);
        if is_end {
            self.begin(&span);
        }
        let mut extensions = span.extensions_mut();
        let Some(state) = self.own_state(&mut extensions) else { return };
        if state.is_over {
            // As in OpenTelemetry, nothing more is said of what has ended.
            return;
        }
        state.fields.extend(fields);
        // Whoever ended it is told that it has ended: clones of the span that are still about, or entered, change nothing.
        if let Some(context) = state.context
            && is_end
        {
            let wakers = self.end(span.metadata(), state, &context);
            drop(extensions);
            return wakers.wake();
        }
        // Many emitters name the tool or the model only after the start; who watches the run wants to see it now.
        if let Some(context) = state.context
            && !state.is_resumed
            && values_tell_what(values)
        {
            let wakers = self.record(span.metadata(), state, &context, RecordKind::Started, 0);
            drop(extensions);
            wakers.wake();
        }
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, ctx: Context<'_, S>) {
        let (Some(span), Some(cause)) = (ctx.span(id), ctx.span(follows)) else { return };
        // The registry gives numbers of closed spans out again, so a stale cause may name the span itself or one
        // above it; neither can be followed from.
        if span.scope().any(|above| above.id() == cause.id()) {
            return;
        }
        if !self.keeps(&span) {
            return;
        }
        let Some(cause) = self.begin(&cause) else { return };
        if let Some(state) = self.own_state(&mut span.extensions_mut())
            && state.link_count < MAX_LINKS
            && !state.is_over
        {
            state.link_count += 1;
            encode::span_link(&mut state.links, &cause.trace_id.0, &cause.span_id.0);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let meta = event.metadata();
        if !self.wants(meta) {
            return;
        }
        let Some(span) = ctx.event_span(event) else { return };
        let Some(span) = span.scope().find(|span| self.keeps(span)) else { return };
        let Some(context) = self.begin(&span) else { return };
        let now = UnixNanos::now().0;
        let mut visitor = EventVisitor::new();
        event.record(&mut visitor);
        visitor.fields.hold(EVENT_ATTRIBUTE);
        let level = meta.level().as_str();
        encode::text_attribute(&mut visitor.fields.attributes, EVENT_ATTRIBUTE, names::EVENT_LEVEL, level);
        if meta.target() != span.metadata().target() {
            encode::text_attribute(&mut visitor.fields.attributes, EVENT_ATTRIBUTE, names::EVENT_TARGET, meta.target());
        }
        let EventVisitor { fields, message, error } = visitor;
        // tracing names an event by its place in the source; its message says what happened.
        let name = fields.name.as_deref().or(message.as_deref()).unwrap_or(meta.name());
        let mut encoded = spare();
        encode::span_event(&mut encoded, now, name, &fields.attributes);
        let mut extensions = span.extensions_mut();
        let Some(state) = self.own_state(&mut extensions).filter(|state| !state.is_over) else { return };
        if *meta.level() == Level::ERROR && error.is_some() {
            state.fields.error = error;
        }
        let (is_said, wakers) = self.record_event(meta, span.metadata().name(), state, &context, &encoded);
        if !is_said {
            // What is said once more is one event of the span.
        } else if state.event_count < MAX_SPAN_EVENTS && state.events.len() + encoded.len() <= MAX_SPAN_EVENT_BYTES {
            if state.events.capacity() == 0 {
                state.events = spare();
            }
            state.event_count += 1;
            state.events.extend_from_slice(&encoded);
        } else {
            state.dropped_events += 1;
        }
        drop(extensions);
        wakers.wake();
        put_back(encoded);
        put_back(fields.attributes);
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        if !self.keeps(&span) {
            return;
        }
        let Some(context) = self.begin_at(&span, true) else { return };
        self.recorder.notes().forget_just_ended();
        let Some(mut state) = self.take_state(&mut span.extensions_mut()) else { return };
        if std::thread::panicking() && state.fields.status.is_none() && !state.is_over {
            // Closed by unwinding: what the span enclosed did not finish, whatever its author thought of.
            state.fields.status = Some(STATUS_ERROR);
            state.fields.status_message.get_or_insert_with(|| "panicked".to_owned());
            encode::text_attribute(&mut state.fields.attributes, SPAN_ATTRIBUTE, names::ERROR_TYPE, "panic");
        }
        self.end(span.metadata(), &mut state, &context).wake();
    }

    // SAFETY: returns a pointer to a field of `self` of exactly the type asked for.
    unsafe fn downcast_raw(&self, id: std::any::TypeId) -> Option<*const ()> {
        if id == std::any::TypeId::of::<Self>() {
            Some(std::ptr::from_ref(self).cast())
        } else if id == std::any::TypeId::of::<GetContext>() {
            Some(std::ptr::from_ref(&self.get_context).cast())
        } else {
            None
        }
    }
}

/// Reaches the layer's data of a span through any stack of subscribers; the types of the stack are not known here.
#[derive(Clone, Copy, Debug)]
struct GetContext {
    context: fn(&Dispatch, &Id) -> Option<SpanContext>,
    find: fn(&Dispatch, &Id, &Wanted<'_>) -> Option<Above>,
    origin: fn(&Dispatch, &Id) -> Option<Arc<RemoteContext>>,
}

/// Tells whether a span is the one looked for.
type Wanted<'a> = dyn Fn(&Id, &'static Metadata<'static>) -> bool + 'a;

/// A span found among those above another.
type Above = (Id, &'static Metadata<'static>);

fn context_of<S>(dispatch: &Dispatch, id: &Id) -> Option<SpanContext>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let span = dispatch.downcast_ref::<S>()?.span(id)?;
    let layer = dispatch.downcast_ref::<Layer>()?;
    let kept = span.scope().find(|span| layer.context(span).is_some())?;
    layer.begin(&kept)
}

/// Returns the ids that runspan gave to a span, or to the nearest span above it that is recorded.
pub fn span_context(span: &Span) -> Option<SpanContext> {
    span.with_subscriber(|(id, dispatch)| {
        dispatch.downcast_ref::<GetContext>().and_then(|get| (get.context)(dispatch, id))
    })?
}

fn find_above<S>(dispatch: &Dispatch, id: &Id, wanted: &Wanted<'_>) -> Option<Above>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut scope = dispatch.downcast_ref::<S>()?.span(id)?.scope();
    scope.find(|span| wanted(&span.id(), span.metadata())).map(|span| (span.id(), span.metadata()))
}

/// Returns the first of a span and those above it that is wanted.
pub(crate) fn find_in_scope(
    span: &Span,
    wanted: impl Fn(&Id, &'static Metadata<'static>) -> bool,
) -> Option<(Dispatch, Id, &'static Metadata<'static>)> {
    span.with_subscriber(|(id, dispatch)| {
        let get = dispatch.downcast_ref::<GetContext>()?;
        let (found, metadata) = (get.find)(dispatch, id, &wanted)?;
        Some((dispatch.clone(), found, metadata))
    })?
}

fn origin_of<S>(dispatch: &Dispatch, id: &Id) -> Option<Arc<RemoteContext>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut scope = dispatch.downcast_ref::<S>()?.span(id)?.scope();
    scope.find_map(|span| span.extensions().get::<Kept>()?.find(|state| state.came_from.is_some())?.came_from.clone())
}

/// Returns the context of another process that a span's trace came from.
pub(crate) fn origin(span: &Span) -> Option<Arc<RemoteContext>> {
    span.with_subscriber(|(id, dispatch)| (dispatch.downcast_ref::<GetContext>()?.origin)(dispatch, id))?
}

/// Returns the run of another process that a span's trace came from.
pub(crate) fn cause(span: &Span) -> Option<RunId> {
    origin(span)?.span.run_id
}

/// Returns what counts for the run that a span is in, if that has a budget.
pub(crate) fn meter_of(dispatch: &Dispatch, id: &Id) -> Option<Arc<Meter>> {
    let budgets = dispatch.downcast_ref::<Layer>()?.recorder.budgets();
    if budgets.is_empty() {
        return None;
    }
    let get = dispatch.downcast_ref::<GetContext>()?;
    budgets.meter((get.context)(dispatch, id)?.span_id)
}

/// Returns the run that a span is part of.
pub(crate) fn run_of(dispatch: &Dispatch, id: &Id) -> Option<RunId> {
    dispatch.downcast_ref::<GetContext>().and_then(|get| (get.context)(dispatch, id))?.run_id
}

/// Returns the line to the run that a span is part of, if its code has asked for one.
pub(crate) fn known_line(dispatch: &Dispatch, id: &Id) -> Option<Arc<Line>> {
    dispatch.downcast_ref::<Layer>()?.recorder.desk().known(run_of(dispatch, id)?)
}

/// Returns the line to the run that a span is part of; `None` where nobody records it.
pub(crate) fn line_of(dispatch: &Dispatch, id: &Id) -> Option<Arc<Line>> {
    let run = run_of(dispatch, id)?;
    let recorder = &dispatch.downcast_ref::<Layer>()?.recorder;
    recorder.is_recording().then(|| recorder.desk().line(run))
}

/// Returns the recorder of the subscriber that is at work here.
pub(crate) fn installed_recorder() -> Option<Arc<Recorder>> {
    tracing::dispatcher::get_default(recorder_at)
}

/// Returns the recorder that a span goes to.
pub(crate) fn recorder_of(span: &Span) -> Option<Arc<Recorder>> {
    span.with_subscriber(|(_, dispatch)| recorder_at(dispatch))?
}

/// Returns the recorder of a subscriber.
pub(crate) fn recorder_at(dispatch: &Dispatch) -> Option<Arc<Recorder>> {
    Some(Arc::clone(&dispatch.downcast_ref::<Layer>()?.recorder))
}

/// Tells whether a subscriber has a layer that takes runs and steps, where they come to it.
pub(crate) fn records_steps(dispatch: &Dispatch) -> bool {
    dispatch.downcast_ref::<Layer>().is_some_and(|layer| layer.level >= Level::INFO && layer.recorder.is_recording())
}

impl Fields {
    fn extend(&mut self, later: Self) {
        self.attributes.extend_from_slice(&later.attributes);
        self.hold(SPAN_ATTRIBUTE);
        self.name = later.name.or(self.name.take());
        self.kind = later.kind.or(self.kind);
        self.status = later.status.or(self.status);
        self.status_message = later.status_message.or(self.status_message.take());
        self.run_id = self.run_id.or(later.run_id);
        self.is_left_open |= later.is_left_open;
    }

    /// Keeps attributes within their bound.
    fn hold(&mut self, field: u8) {
        if encode::hold_to(MAX_ATTRIBUTE_BYTES, &mut self.attributes, field) {
            encode::text_attribute(&mut self.attributes, field, names::CUT, "attributes");
        }
    }

    fn status(&self, kind: RecordKind) -> Option<(u8, &str)> {
        if kind != RecordKind::Ended {
            return None;
        }
        match (self.status, &self.error) {
            (Some(code), _) => Some((code, self.status_message.as_deref().unwrap_or(""))),
            (None, Some(error)) => Some((STATUS_ERROR, error)),
            (None, None) if self.status_message.is_some() => Some((STATUS_ERROR, self.status_message.as_deref()?)),
            (None, None) => None,
        }
    }

    /// Takes the fields that steer the span; tells whether it was one of them.
    fn steer(&mut self, name: &str, value: &str) -> bool {
        match name {
            "otel.name" => self.name = Some(bounded(value)),
            "otel.kind" => self.kind = span_kind(value),
            "otel.status_code" => {
                self.status = match value {
                    value if value.eq_ignore_ascii_case("ok") => Some(STATUS_OK),
                    value if value.eq_ignore_ascii_case("error") => Some(STATUS_ERROR),
                    _ => self.status,
                }
            }
            "otel.status_description" | "otel.status_message" => self.status_message = Some(bounded(value)),
            names::RUN_ID => {
                self.run_id = value.parse().ok();
                return false;
            }
            _ => return false,
        }
        true
    }
}

fn span_kind(word: &str) -> Option<u8> {
    ["internal", "server", "client", "producer", "consumer"]
        .iter()
        .position(|kind| word.eq_ignore_ascii_case(kind))
        .map(|place| place as u8 + 1)
}

/// Encodes fields as attributes.
struct FieldVisitor<'a> {
    fields: &'a mut Fields,
    into: u8,
}

impl FieldVisitor<'_> {
    fn text(&mut self, name: &str, value: &str) {
        if !(self.into == SPAN_ATTRIBUTE && self.fields.steer(name, value)) {
            encode::text_attribute(&mut self.fields.attributes, self.into, name, value);
        }
    }
}

impl Visit for FieldVisitor<'_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == names::LEFT_OPEN && self.into == SPAN_ATTRIBUTE {
            self.fields.is_left_open |= value;
        } else {
            encode::bool_attribute(&mut self.fields.attributes, self.into, field.name(), value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        encode::int_attribute(&mut self.fields.attributes, self.into, field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            // OTLP has no unsigned integers; text keeps the number exact.
            Err(_) => self.text(field.name(), &value.to_string()),
        }
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.text(field.name(), &value.to_string()),
        }
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            Err(_) => self.text(field.name(), &value.to_string()),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        encode::double_attribute(&mut self.fields.attributes, self.into, field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field.name(), &said(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        with_printed(value, |text| self.text(field.name(), text));
    }
}

struct EventVisitor {
    fields: Fields,
    message: Option<String>,
    error: Option<String>,
}

impl EventVisitor {
    fn new() -> Self {
        Self { fields: Fields { attributes: spare(), ..Fields::default() }, message: None, error: None }
    }

    fn text(&mut self, name: &str, value: &str) {
        match name {
            "message" if self.message.is_none() => self.message = Some(bounded(value)),
            names::EVENT_NAME => self.fields.name = Some(bounded(value)),
            _ => {
                if name == "error" || name == names::EXCEPTION_MESSAGE {
                    self.error = Some(bounded(value));
                }
                encode::text_attribute(&mut self.fields.attributes, EVENT_ATTRIBUTE, name, value);
            }
        }
    }

    fn plain(&mut self) -> FieldVisitor<'_> {
        FieldVisitor { fields: &mut self.fields, into: EVENT_ATTRIBUTE }
    }
}

fn bounded(text: &str) -> String {
    if text.len() > encode::MAX_TEXT { encode::cut(text, encode::MAX_TEXT) } else { text.to_owned() }
}

impl Visit for EventVisitor {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain().record_bool(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain().record_i64(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain().record_u64(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.plain().record_i128(field, value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.plain().record_u128(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.plain().record_f64(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field.name(), &said(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        with_printed(value, |text| self.text(field.name(), text));
    }
}

/// Lends what `Debug` prints in a buffer of this thread; nested calls get a fresh one, since formatting may make spans.
fn with_printed(value: &dyn std::fmt::Debug, take: impl FnOnce(&str)) {
    use std::fmt::Write;
    thread_local! {
        static TEXT: Cell<String> = const { Cell::new(String::new()) };
    }
    let mut text = TEXT.try_with(Cell::take).unwrap_or_default();
    text.clear();
    // The bound stops a value that prints without end; what was printed is kept.
    if guarded(|| write!(Bounded { text: &mut text }, "{value:?}")).is_none() {
        text.push_str(PANICKED);
    }
    take(&text);
    if text.capacity() <= 64 << 10 {
        let _ = TEXT.try_with(|cell| cell.set(text));
    }
}

struct Bounded<'a> {
    text: &'a mut String,
}

impl std::fmt::Write for Bounded<'_> {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        // A little past the bound, so that the cut is marked where the attribute is written.
        if self.text.len() > encode::MAX_TEXT {
            return Err(std::fmt::Error);
        }
        self.text.push_str(part);
        Ok(())
    }
}
