//! A body on its way, and a copy of it within bounds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use runspan::server::budget::{Budget, Share};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::recorder::Ending;

/// Bytes that are kept of one body.
const MOST: usize = 8 << 20;
/// Bytes that are kept of its end, when it has more: what a stream used is said last.
const TAIL: usize = 64 << 10;
/// Bytes of all copies together.
const MOST_OF_ALL: usize = 64 << 20;
/// Bytes that are read on of an answer whose program has gone.
const MOST_OF_REST: usize = 4 << 20;
/// How long it is read on, and how long when the command has ended: who waits for that must not wait for this.
const REST: Duration = Duration::from_secs(10);
const REST_AT_END: Duration = Duration::from_secs(1);

/// Makes the bound on what all copies take.
pub fn budget() -> Arc<Budget> {
    Budget::new(MOST_OF_ALL)
}

/// What was copied of a body. Its share of the budget goes with it.
#[derive(Debug)]
pub struct Copied {
    pub head: Vec<u8>,
    tail: VecDeque<u8>,
    /// The middle is missing, or the end.
    pub is_cut: bool,
    /// When the first byte came.
    pub began: Option<Instant>,
    /// When the program went away, and how many bytes of the head had passed by then; what is behind them was read on.
    pub left: Option<(Instant, usize)>,
    share: Share,
}

impl Copied {
    fn new(budget: &Arc<Budget>) -> Self {
        let share = budget.share();
        Self { head: Vec::new(), tail: VecDeque::new(), is_cut: false, began: None, left: None, share }
    }

    /// Begins the copy of an answer whose program went away before it.
    pub fn left(at: Instant, budget: &Arc<Budget>) -> Self {
        Self { left: Some((at, 0)), ..Self::new(budget) }
    }

    /// Copies a body that is there as a whole.
    pub fn of(body: &[u8], budget: &Arc<Budget>) -> Self {
        let mut copy = Self::new(budget);
        copy.add(body);
        copy
    }

    fn add(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.began.get_or_insert_with(Instant::now);
        let fits = !self.is_cut && self.head.len() + data.len() <= MOST && self.share.grow(data.len()).is_ok();
        if fits {
            self.head.extend_from_slice(data);
            return;
        }
        self.is_cut = true;
        let end = data.get(data.len().saturating_sub(TAIL)..).unwrap_or_default();
        self.tail.extend(end);
        let over = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..over);
    }

    /// Lets go of the bytes, and keeps their share of the budget for what was made of them.
    pub fn into_share(self) -> Share {
        self.share
    }

    /// Returns the end of a body that is cut.
    pub fn tail(&self) -> Vec<u8> {
        self.tail.iter().copied().collect()
    }
}

type Done = Box<dyn FnOnce(Copied, Ending) + Send + Sync>;

/// For how long answers are read on whose programs have gone, so that it is known what they used.
#[derive(Clone)]
pub struct Patience {
    stopping: watch::Receiver<bool>,
}

impl Patience {
    /// Makes it. `stopping`: whether the command has ended.
    pub fn new(stopping: watch::Receiver<bool>) -> Self {
        Self { stopping }
    }

    /// Waits until it has ended with an answer whose program went away at a time.
    pub async fn ends(&self, left: Instant) {
        let mut stopping = self.stopping.clone();
        let stopped = async {
            super::has_ended(&mut stopping).await;
            tokio::time::sleep(REST_AT_END).await;
        };
        tokio::select! {
            () = tokio::time::sleep_until((left + REST).into()) => {}
            () = stopped => {}
        }
    }

    /// Reads on what nobody waits for any more, within bounds, and returns all that came of it.
    pub async fn read_on(&self, mut body: Incoming, mut copy: Copied) -> Copied {
        let (left, _) = *copy.left.get_or_insert((Instant::now(), copy.head.len()));
        let mut more = MOST_OF_REST;
        let reading = async {
            while let Some(Ok(frame)) = body.frame().await {
                let Some(data) = frame.data_ref() else { continue };
                copy.add(data);
                more = more.saturating_sub(data.len());
                if more == 0 {
                    break;
                }
            }
        };
        tokio::select! {
            () = reading => {}
            () = self.ends(left) => {}
        }
        copy
    }
}

/// A body that is copied as it passes.
pub struct Tee {
    /// Until it is dropped.
    body: Option<Incoming>,
    watch: Option<(Copied, Done)>,
    /// It is read on when it is not wanted any more.
    patience: Option<Patience>,
}

impl Tee {
    /// Copies a body; `done` gets the copy when the body has passed, broken off, or is not wanted any more.
    pub fn new(
        body: Incoming,
        budget: &Arc<Budget>,
        done: impl FnOnce(Copied, Ending) + Send + Sync + 'static,
    ) -> Self {
        Self { body: Some(body), watch: Some((Copied::new(budget), Box::new(done))), patience: None }
    }

    /// Has the body read on, where that is wanted, when its program has gone.
    pub fn with_patience(mut self, patience: Option<Patience>) -> Self {
        self.patience = patience;
        self
    }

    /// Passes a body on and looks away.
    pub fn blind(body: Incoming) -> Self {
        Self { body: Some(body), watch: None, patience: None }
    }

    fn end(&mut self, ending: Ending) {
        if let Some((copy, done)) = self.watch.take() {
            done(copy, ending);
        }
    }
}

impl Body for Tee {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some((copy, _))) = (frame.data_ref(), &mut self.watch) {
                    copy.add(data);
                }
                // Nothing comes behind trailers, and nobody asks for more.
                if frame.is_trailers() {
                    self.end(Ending::Whole);
                }
            }
            Some(Err(error)) => self.end(Ending::Broken(super::with_causes(error))),
            None => self.end(Ending::Whole),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        // A body of a known length is not asked once more after its last byte.
        if body.is_end_stream() {
            return self.end(Ending::Whole);
        }
        let (Some(patience), Ok(runtime)) = (self.patience.take(), Handle::try_current()) else {
            return self.end(Ending::Cancelled);
        };
        if let Some((copy, done)) = self.watch.take() {
            runtime.spawn(async move { done(patience.read_on(body, copy).await, Ending::Cancelled) });
        }
    }
}
