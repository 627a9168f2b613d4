//! Brings spans to a peer: splits what is too large, finds what is bad, puts aside what is refused for good.

use std::time::{Duration, Instant};

use super::ledger::{Counts, count};
use super::letters::{About, Letter, Letters};
use super::place::Outgoing;
use super::size::Size;
use crate::model::UnixNanos;
use crate::sinks::forward::retry::Backoff;
use crate::sinks::forward::{Blame, Sender, Sent, Signal, request_from_parts};
use crate::telemetry::warn;

/// How often one batch is split to find what the peer refuses in it: enough for one bad span among four thousand.
const SEARCHES: u32 = 24;
/// The least wait after a refusal that somebody has to mend.
const MENDING: Duration = Duration::from_secs(30);
/// For so long requests are sent one behind the other before it is noted what became of them: who dies meanwhile sends them again.
const UNNOTED: Duration = Duration::from_secs(1);

/// Brings spans to one peer.
#[derive(Debug)]
pub(super) struct Courier {
    sender: Sender,
    letters: Letters,
    size: Size,
    /// The last request failed midway, and was tried again as it was.
    has_broken: bool,
    backoff: Backoff,
    attempt: u32,
    not_before: Instant,
    /// The peer itself asked for the wait.
    was_asked: bool,
    warned: bool,
    /// It was said that the address may be wrong.
    told_of_address: bool,
    /// Something was taken since a batch was last refused whole: a search for what is bad may pay.
    may_search: bool,
}

/// What became of some spans, those at the front.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    /// So many are done with; the others have to wait.
    pub done: usize,
    pub counts: Counts,
    /// Why the others wait.
    pub trouble: Option<String>,
}

impl Courier {
    pub fn new(sender: Sender, letters: Letters) -> Self {
        Self {
            sender,
            letters,
            size: Size::new(),
            has_broken: false,
            backoff: Backoff::default(),
            attempt: 0,
            not_before: Instant::now(),
            was_asked: false,
            warned: false,
            told_of_address: false,
            may_search: true,
        }
    }

    /// Returns how long to wait before the next try.
    pub fn wait(&self) -> Duration {
        time_until(self.not_before)
    }

    /// Allows one more try at once, unless the peer itself asked for patience.
    pub fn be_impatient(&mut self) {
        if !self.was_asked {
            self.not_before = Instant::now();
        }
    }

    /// Delivers spans of the journal of `process`, from the front on as far as that works until `deadline`.
    pub fn deliver(&mut self, spans: &[Outgoing<'_>], process: &str, deadline: Instant) -> Delivered {
        let mut round = Round { process, deadline, searches: if self.may_search { SEARCHES } else { 0 }, took: false };
        let (mut delivered, begun) = (Delivered::default(), Instant::now());
        while delivered.done < spans.len() && delivered.trouble.is_none() {
            // The next request has to have its whole time; what is left comes again.
            let is_late = || begun.elapsed() > UNNOTED || time_until(deadline) < self.sender.target().timeout;
            if delivered.done > 0 && is_late() {
                break;
            }
            let left = &spans[delivered.done..];
            let done = self.send(&left[..left.len().min(self.size.most())], &mut round, &mut delivered);
            delivered.done += done;
        }
        if delivered.trouble.is_none() && !spans.is_empty() {
            self.may_search = round.took;
            self.attempt = 0;
            if round.took {
                self.warned = false;
            }
        }
        delivered
    }

    /// Sends spans in one request, or in parts; returns how many are done with, in one way or another.
    fn send(&mut self, spans: &[Outgoing<'_>], round: &mut Round<'_>, delivered: &mut Delivered) -> usize {
        if spans.is_empty() {
            return 0;
        }
        let (n, begun) = (spans.len() as u64, Instant::now());
        let sent = self.sender.send(self.request(spans), n, round.deadline);
        if sent.is_delivered() {
            self.size.took(spans.len());
            self.has_broken = false;
        }
        let is_of_address = matches!(sent, Sent::Refused { blame: Blame::Address, .. });
        match sent {
            Sent::Accepted => {
                (round.took, self.attempt) = (true, 0);
                delivered.counts.sent += n;
            }
            Sent::Partial { rejected, message } => {
                (round.took, self.attempt) = (true, 0);
                delivered.counts.sent += n - rejected.min(n);
                count(&mut delivered.counts.refused, "rejected_by_peer", rejected.min(n));
                self.warn_of_rejected(rejected, &message);
            }
            Sent::Later { midway: true, after, .. }
                if spans.len() > 1 && self.try_less(spans.len(), begun, after.is_some(), round) =>
            {
                return 0;
            }
            Sent::Later { after, reason, .. } => {
                self.trouble(&reason, after, delivered);
                return 0;
            }
            Sent::TooLarge { .. } if spans.len() > 1 => return self.send_halves(spans, round, delivered),
            Sent::Refused { blame: Blame::Content, .. } if spans.len() > 1 && round.searches > 0 => {
                round.searches -= 1;
                return self.send_halves(spans, round, delivered);
            }
            // The spans are good, so they wait for somebody to mend the settings.
            Sent::Refused { reason, blame: Blame::Settings } => {
                self.trouble(&reason, Some(MENDING), delivered);
                return 0;
            }
            Sent::TooLarge { reason } | Sent::Refused { reason, .. } => {
                if is_of_address && let Some(words) = self.word_on_address(&reason) {
                    warn(format_args!("{words}"));
                }
                self.put_aside(spans, round.process, &reason, delivered);
            }
        }
        spans.len()
    }

    /// Notes that a request of `spans` failed midway: smaller ones may pass. Tells whether to try again at once, where the peer has
    /// not asked for a wait and there is time for as long a try: once where a connection broke early, and with smaller ones.
    fn try_less(&mut self, spans: usize, begun: Instant, was_asked: bool, round: &Round<'_>) -> bool {
        let left = time_until(round.deadline);
        let took = begun.elapsed();
        // A connection that was idle may have been closed in this moment, which says nothing of the size.
        let is_soon = !was_asked && left > took;
        let is_early = took < self.sender.target().timeout;
        if is_soon && is_early && !std::mem::replace(&mut self.has_broken, true) {
            return true;
        }
        // One that our own deadline ended may be no larger than others.
        if left.is_zero() || !self.size.failed(spans) {
            return false;
        }
        self.attempt = 0;
        is_soon
    }

    fn send_halves(&mut self, spans: &[Outgoing<'_>], round: &mut Round<'_>, delivered: &mut Delivered) -> usize {
        let (front, back) = spans.split_at(spans.len() / 2);
        match self.send(front, round, delivered) {
            done if done < front.len() => done,
            done => done + self.send(back, round, delivered),
        }
    }

    /// Builds one export request.
    fn request(&self, parts: &[Outgoing<'_>]) -> Vec<u8> {
        match self.sender.target().signal {
            Signal::Traces => request_of_spans(parts),
            // Each is a request; one behind the other they are one, since it holds nothing but a list.
            Signal::Metrics => parts.iter().flat_map(|part| part.span).copied().collect(),
        }
    }

    fn put_aside(&self, spans: &[Outgoing<'_>], process: &str, reason: &str, delivered: &mut Delivered) {
        let n = spans.len() as u64;
        let target = self.sender.target().shown();
        count(&mut delivered.counts.refused, "refused_by_peer", n);
        let about = About {
            time: UnixNanos::now(),
            target: target.to_owned(),
            reason: reason.to_owned(),
            process: process.to_owned(),
        };
        match self.letters.put(&Letter { about, spans: n, request: self.request(spans) }) {
            Ok(lost) => {
                delivered.counts.letters_lost += lost;
                warn(format_args!(
                    "{target} refuses some spans for good ({reason}); they are kept: see `runspan forward list`"
                ));
                if lost > 0 {
                    warn(format_args!("there are too many dead letters for {target}: the oldest are gone"));
                }
            }
            Err(error) => {
                delivered.counts.letters_lost += n;
                warn(format_args!(
                    "{target} refuses some spans for good ({reason}), and they cannot be kept in {}: {error}",
                    self.letters.dir().display()
                ));
            }
        }
    }

    fn warn_of_rejected(&self, rejected: u64, message: &str) {
        let target = self.sender.target().shown();
        match rejected {
            0 => warn(format_args!("{target} took all spans and says: {message}")),
            _ => warn(format_args!("{target} rejects some of the spans it is sent: {message}")),
        }
    }

    /// Returns what is to be said, once, where there may be nobody at the address.
    fn word_on_address(&mut self, reason: &str) -> Option<String> {
        if std::mem::replace(&mut self.told_of_address, true) {
            return None;
        }
        let target = self.sender.target();
        let (shown, signal) = (target.shown(), target.signal.as_str());
        Some(format!(
            "{shown} answers {reason}: its address may be wrong, or it takes no {signal}; what it is sent becomes dead \
             letters until that is mended, and `runspan forward retry` sends those again"
        ))
    }

    fn trouble(&mut self, reason: &str, asked: Option<Duration>, delivered: &mut Delivered) {
        delivered.trouble = Some(reason.to_owned());
        self.hold_off(reason, asked);
    }

    /// Waits, longer with each failure, and says so once.
    pub fn hold_off(&mut self, reason: &str, asked: Option<Duration>) {
        let mut random = [0; 8];
        crate::model::id::fill_random(&mut random);
        let delay = self.backoff.delay(self.attempt, u64::from_le_bytes(random), asked);
        self.attempt = self.attempt.saturating_add(1);
        self.not_before = Instant::now() + delay;
        self.was_asked = asked.is_some();
        if !std::mem::replace(&mut self.warned, true) {
            warn(format_args!(
                "cannot forward to {}: {reason}; spans wait in the journal and are sent when that works again",
                self.sender.target().shown()
            ));
        }
    }
}

fn time_until(moment: Instant) -> Duration {
    moment.saturating_duration_since(Instant::now())
}

/// One batch under way.
struct Round<'a> {
    process: &'a str,
    deadline: Instant,
    /// So many more splits to find what is bad.
    searches: u32,
    /// The peer took something.
    took: bool,
}

/// Builds one export request of spans, grouped by resource, without decoding a span.
fn request_of_spans(spans: &[Outgoing<'_>]) -> Vec<u8> {
    let mut groups: Vec<(&[u8], Vec<&[u8]>)> = Vec::new();
    for Outgoing { resource, span } in spans {
        match groups.iter_mut().find(|(known, _)| known == resource) {
            Some((_, spans)) => spans.push(span),
            None => groups.push((resource, vec![span])),
        }
    }
    let parts: Vec<(&[u8], &[&[u8]])> = groups.iter().map(|(resource, spans)| (*resource, spans.as_slice())).collect();
    request_from_parts(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::forward::Target;

    #[test]
    fn that_an_address_may_be_wrong_is_said_once() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::from_url("http://h/v1/trace?key=s3cret").unwrap();
        let mut courier = Courier::new(Sender::new(target).unwrap(), Letters::new(dir.path()));
        let said = courier.word_on_address("HTTP 404").unwrap();
        assert!(
            said.starts_with("http://h/v1/trace answers HTTP 404: its address may be wrong, or it takes no traces")
        );
        assert_eq!(courier.word_on_address("HTTP 404"), None);
    }
}
