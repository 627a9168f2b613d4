//! When to try again: how long a peer asks us to wait, and how long we wait by ourselves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest wait that a peer can ask for; a confused clock must not stop delivery for a day.
pub const MAX_ASKED_WAIT: Duration = Duration::from_secs(300);

/// The bounds of the waits between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The bound of the first wait.
    pub initial: Duration,
    /// The bound that no wait exceeds.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// Returns the wait before attempt `attempt` (0: the first one after a failure), given a random number.
    ///
    /// The bound doubles with each attempt up to [`Backoff::max`], and `random` picks evenly between zero and the
    /// bound ("full jitter"), so that many senders that lost one peer together come back one by one. What the peer
    /// asked for is a lower limit: the picked time is added to it.
    pub fn delay(&self, attempt: u32, random: u64, asked: Option<Duration>) -> Duration {
        let doubled = 1u32.checked_shl(attempt).and_then(|factor| self.initial.checked_mul(factor));
        let bound = doubled.unwrap_or(self.max).min(self.max);
        let picked = bound.mul_f64(random as f64 / u64::MAX as f64);
        asked.unwrap_or_default().min(MAX_ASKED_WAIT).saturating_add(picked)
    }
}

/// Reads a `Retry-After` header: seconds, or an HTTP date.
///
/// A moment that has passed means now; more than [`MAX_ASKED_WAIT`] means that; anything else that is not a wait is
/// `None`.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that overflow still ask for a very long wait.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)).min(MAX_ASKED_WAIT));
    }
    let moment = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let wait = moment.as_second().saturating_sub(i64::try_from(now).ok()?);
    Some(Duration::from_secs(u64::try_from(wait).unwrap_or(0)).min(MAX_ASKED_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_spread_over_the_whole_range() {
        let backoff = Backoff::default();
        let longest = |attempt| backoff.delay(attempt, u64::MAX, None).as_secs();
        assert_eq!([0, 1, 2, 5, 6, 31, 32, u32::MAX].map(longest), [1, 2, 4, 32, 60, 60, 60, 60]);
        assert_eq!(backoff.delay(6, 0, None), Duration::ZERO);
        let half = backoff.delay(6, u64::MAX / 2, None);
        assert!(half > Duration::from_secs(29) && half < Duration::from_secs(31), "{half:?}");
    }

    #[test]
    fn what_the_peer_asked_for_is_a_lower_limit() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(0, 0, Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(backoff.delay(0, u64::MAX, Some(Duration::from_secs(7))), Duration::from_secs(8));
        assert_eq!(backoff.delay(0, 0, Some(Duration::MAX)), MAX_ASKED_WAIT);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_never_too_long() {
        // 784111777 is Sun, 06 Nov 1994 08:49:37 GMT.
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, seconds) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("1000000000", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("-5", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("Mon, 06 Nov 2094 08:49:37 GMT", None),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(300)),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ] {
            assert_eq!(retry_after(value, now).map(|wait| wait.as_secs()), seconds, "{value:?}");
        }
    }
}
