//! The beginning of an answer, whose end does not come.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::Sleep;

use super::recorder::Ending;

/// How much longer it is held than the program waited when it was recorded: its own clock is to end it.
const LONGER: Duration = Duration::from_secs(2);

type Done = Box<dyn FnOnce(Ending) + Send + Sync>;

/// A body that is given at once, and then held for as long as its program waited for more.
pub struct Held {
    begun: Option<Bytes>,
    until: Pin<Box<Sleep>>,
    done: Option<Done>,
}

impl Held {
    /// Makes it; `done` is told when the program has left it, or it is over.
    pub fn new(begun: Bytes, after: Duration, done: impl FnOnce(Ending) + Send + Sync + 'static) -> Self {
        let until = Box::pin(tokio::time::sleep(after.saturating_add(LONGER)));
        Self { begun: Some(begun).filter(|begun| !begun.is_empty()), until, done: Some(Box::new(done)) }
    }

    fn end(&mut self, ending: Ending) {
        if let Some(done) = self.done.take() {
            done(ending);
        }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(begun) = self.begun.take() {
            return Poll::Ready(Some(Ok(Frame::data(begun))));
        }
        ready!(self.until.as_mut().poll(cx));
        self.end(Ending::Whole);
        Poll::Ready(None)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end(Ending::Cancelled);
    }
}
