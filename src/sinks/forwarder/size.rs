//! How many spans go into one request to a peer that fails over larger ones and does not say so: it is too slow for
//! them, or something on the way closes the connection.

/// So many requests of a size the peer takes before one twice as large is tried.
const TRIALS: u32 = 4;
/// So many of a size that was taken before fail one behind the other before smaller ones are tried: one alone may be of that moment.
const FAILURES: u32 = 2;
/// That number doubles up to here while the larger ones fail: what they bring may arrive all the same, and so twice.
const MAX_TRIALS: u32 = 256;
/// More spans than a batch ever has.
const UNBOUNDED: usize = 1 << 20;

/// The most spans of a request, by how requests fared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    most: usize,
    /// So many of that size were taken in a row.
    taken: u32,
    /// So many have failed in a row.
    failed: u32,
    /// As many spans were taken in one request.
    proven: usize,
    /// So many have to be.
    trials: u32,
    /// It was doubled, and no request of that size was taken since.
    is_tried: bool,
}

impl Size {
    pub const fn new() -> Self {
        Self { most: UNBOUNDED, taken: 0, failed: 0, proven: 0, trials: TRIALS, is_tried: false }
    }

    /// Returns how many spans a request may have.
    pub const fn most(self) -> usize {
        self.most
    }

    /// Notes that a request of `spans` failed while it was under way; tells whether the next ones are to be smaller.
    pub fn failed(&mut self, spans: usize) -> bool {
        self.taken = 0;
        self.failed += 1;
        if spans <= self.proven && self.failed < FAILURES {
            return false;
        }
        (self.failed, self.proven) = (0, self.proven.min(spans.saturating_sub(1)));
        if std::mem::take(&mut self.is_tried) {
            self.trials = (2 * self.trials).min(MAX_TRIALS);
        }
        self.most = self.most.min(spans / 2).max(1);
        true
    }

    /// Notes that the peer took a request of `spans`.
    pub fn took(&mut self, spans: usize) {
        (self.failed, self.proven) = (0, self.proven.max(spans));
        // Smaller ones say nothing of those that failed.
        if spans < self.most {
            return;
        }
        if std::mem::take(&mut self.is_tried) {
            self.trials = TRIALS;
        }
        self.taken += 1;
        if self.taken >= self.trials {
            (self.most, self.taken, self.is_tried) = (self.most.saturating_mul(2).min(UNBOUNDED), 0, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends so many requests to a peer that takes at most `limit` spans in one; returns the sizes of those that failed.
    fn send(size: &mut Size, requests: usize, limit: usize) -> Vec<usize> {
        let mut failed = Vec::new();
        for _ in 0..requests {
            let spans = size.most().min(866);
            if spans <= limit {
                size.took(spans);
            } else {
                size.failed(spans);
                failed.push(spans);
            }
        }
        failed
    }

    #[test]
    fn requests_that_fail_are_halved_and_larger_ones_are_tried_ever_more_seldom() {
        let mut size = Size::new();
        assert_eq!(send(&mut size, 4, 300), [866, 433]);
        assert_eq!(size.most(), 216);
        let larger = send(&mut size, 1_000, 300);
        assert_eq!(larger, [432; 8], "after 4, 8, 16, 32, 64, 128, 256 and 256 that were taken");
        assert_eq!(send(&mut size, 20, 0)[..10], [216, 216, 108, 108, 54, 54, 27, 27, 13, 13]);
        send(&mut size, 10, 0);
        assert_eq!(size.most(), 1);
    }

    #[test]
    fn a_peer_that_was_away_gets_large_requests_again_soon() {
        let mut size = Size::new();
        send(&mut size, 40, 0);
        assert!(send(&mut size, 40, 2_000).is_empty());
        assert!(size.most() >= 866, "{size:?}");
        size.took(1);
        assert!(size.most() >= 866, "what is small by itself changes nothing");
    }

    #[test]
    fn a_peer_that_fails_now_and_then_whatever_the_size_gets_large_requests() {
        let mut size = Size::new();
        let mut spans = 0;
        // Every sixth is lost.
        for request in 0..600 {
            let sent = size.most().min(866);
            if request % 6 == 5 {
                size.failed(sent);
            } else {
                size.took(sent);
                spans += sent;
            }
        }
        assert_eq!(spans, 500 * 866);
    }
}
