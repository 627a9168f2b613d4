//! Where a span stands: its ids, its run, and the context that came from another process.

use std::cell::RefCell;

use crate::model::{RunId, SpanId, TraceId, UnixNanos};

/// The ids of a span, and the run it belongs to as far as the source knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// W3C trace flags.
    pub flags: u8,
    /// The run; `None` for a span of a foreign process that did not say.
    pub run_id: Option<RunId>,
}

/// A parent in another process, as it came in headers or in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteContext {
    /// The span that is to be the parent.
    pub span: SpanContext,
    /// W3C `tracestate` as it came; sent on as it is.
    pub trace_state: String,
    /// Members of W3C baggage with their values decoded, our own left out; sent on as well.
    pub baggage: Vec<(String, String)>,
}

/// A span that another process has begun, and that this one goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResumedSpan {
    pub context: SpanContext,
    /// The span above.
    pub parent: Option<SpanId>,
    /// That is one of another process.
    pub has_remote_parent: bool,
    pub start: UnixNanos,
    /// What the span says, encoded as attributes; what this process says of it goes before that.
    pub attributes: Vec<u8>,
}

impl ResumedSpan {
    /// Makes the span that `begin` makes the same as this one.
    pub fn go_on<T>(self, begin: impl FnOnce() -> T) -> T {
        RESUMED.with_borrow_mut(|resumed| *resumed = Some(self));
        let begun = begin();
        RESUMED.with_borrow_mut(|resumed| *resumed = None);
        begun
    }

    /// Takes what a span of this run that is made now goes on with.
    pub fn take(run: RunId) -> Option<Self> {
        let is_it = |resumed: &mut Self| resumed.context.run_id == Some(run);
        RESUMED.try_with(|resumed| resumed.try_borrow_mut().ok()?.take_if(is_it)).ok().flatten()
    }
}

thread_local! {
    static RESUMED: RefCell<Option<ResumedSpan>> = const { RefCell::new(None) };
    static ATTACHED: RefCell<Vec<RemoteContext>> = const { RefCell::new(Vec::new()) };
}

impl RemoteContext {
    /// Makes this the parent of root spans that begin on this thread while the guard lives.
    ///
    /// In async code begin the root span under the guard and let the guard go before the first `.await`.
    #[must_use = "the context is detached when the guard is dropped"]
    pub fn attach(&self) -> Attached {
        ATTACHED.with_borrow_mut(|stack| stack.push(self.clone()));
        Attached { _not_send: std::marker::PhantomData }
    }

    /// Returns what is attached to this thread.
    pub(crate) fn attached() -> Option<Self> {
        ATTACHED.try_with(|stack| stack.try_borrow().ok()?.last().cloned()).ok().flatten()
    }
}

/// Keeps a [`RemoteContext`] attached.
#[derive(Debug)]
pub struct Attached {
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // The thread may be going away; then so is the stack.
        let _ = ATTACHED.try_with(|stack| stack.try_borrow_mut().map(|mut stack| stack.pop()));
    }
}
