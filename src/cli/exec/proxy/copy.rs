//! A body on its way, and a copy of it within bounds.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use runspan::server::budget::{Budget, Share};

use super::recorder::Ending;

/// Bytes that are kept of one body.
const MOST: usize = 8 << 20;
/// Bytes that are kept of its end, when it has more: what a stream used is said last.
const TAIL: usize = 64 << 10;
/// Bytes of all copies together.
const MOST_OF_ALL: usize = 64 << 20;

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
    share: Share,
}

impl Copied {
    fn new(budget: &Arc<Budget>) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), is_cut: false, began: None, share: budget.share() }
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

/// A body that is copied as it passes.
pub struct Tee {
    body: Incoming,
    watch: Option<(Copied, Done)>,
}

impl Tee {
    /// Copies a body; `done` gets the copy when the body has passed, broken off, or is not wanted any more.
    pub fn new(
        body: Incoming,
        budget: &Arc<Budget>,
        done: impl FnOnce(Copied, Ending) + Send + Sync + 'static,
    ) -> Self {
        Self { body, watch: Some((Copied::new(budget), Box::new(done))) }
    }

    /// Passes a body on and looks away.
    pub fn blind(body: Incoming) -> Self {
        Self { body, watch: None }
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
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
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
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        // A body of a known length is not asked once more after its last byte.
        let ending = if self.body.is_end_stream() { Ending::Whole } else { Ending::Cancelled };
        self.end(ending);
    }
}
