//! What people ask of a run whose command is in any language: to end, to stop for a while, to go on. Signals do it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use runspan::control::Inbox;
use runspan::conventions::names;
use runspan::model::UnixNanos;
use runspan::model::event::Waiting;
use runspan::model::otlp::{KeyValue, SpanEvent, Value};
use runspan::server::Receiver;

use super::child::Signals;
use super::root::Root;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);
/// How long a command that was asked to end may take, before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// How long a request to pause is left alone whose pause could not be told.
const RETRY: Duration = Duration::from_secs(5);

/// Looks at what is asked of the run while its command is there.
pub struct Asked {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Heard>>,
}

/// What was asked.
#[derive(Debug, Default)]
pub struct Heard {
    /// The run was asked to end.
    pub is_cancelled: bool,
    /// What the root says of waiting.
    pub events: Vec<SpanEvent>,
}

impl Asked {
    /// Begins to look. Without a thread for it nobody can ask.
    pub fn listen(receiver: &Receiver, inbox: Inbox, root: &Root, signals: Signals) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (runtime, teller, root, over) =
            (receiver.runtime().clone(), receiver.teller(), root.clone(), Arc::clone(&is_over));
        let tell = move |event: &SpanEvent| runtime.block_on(teller.tell(root.says(event))).is_ok();
        let send = move |signal| match signal {
            libc::SIGSTOP => signals.hold(),
            libc::SIGCONT => signals.release(),
            // One that is gone needs none.
            signal => {
                let _ = signals.send(signal);
            }
        };
        let mut ear = Ear::new(inbox, send, tell);
        let listen = move || {
            while !over.load(Ordering::Relaxed) {
                ear.look();
                std::thread::park_timeout(LOOK);
            }
            ear.heard
        };
        let thread = std::thread::Builder::new().name("asked".to_owned()).spawn(listen).ok();
        Self { is_over, thread }
    }

    /// Returns what was asked, once the command has ended.
    pub fn end(mut self) -> Heard {
        self.is_over.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Heard::default() };
        thread.thread().unpark();
        thread.join().unwrap_or_default()
    }
}

struct Ear<S, T> {
    inbox: Inbox,
    send: S,
    /// Tells what the root says; whether that is in the journal.
    tell: T,
    heard: Heard,
    paused: bool,
    /// When the command is killed that was asked to end.
    ask_again: Option<Instant>,
    /// When a pause is tried again that could not be told.
    pause_again: Option<Instant>,
}

impl<S: Fn(libc::c_int), T: Fn(&SpanEvent) -> bool> Ear<S, T> {
    fn new(inbox: Inbox, send: S, tell: T) -> Self {
        Self { inbox, send, tell, heard: Heard::default(), paused: false, ask_again: None, pause_again: None }
    }

    fn look(&mut self) {
        if !self.heard.is_cancelled && self.inbox.is_cancelled() {
            self.cancel();
        } else if self.ask_again.is_some_and(|at| Instant::now() >= at) {
            (self.send)(libc::SIGKILL);
        } else if self.paused {
            // Who asked at the same time as another is served by that pause.
            self.inbox.note_paused();
            self.resume();
        } else if !self.heard.is_cancelled && self.pause_again.is_none_or(|at| Instant::now() >= at) {
            self.pause();
        }
    }

    fn cancel(&mut self) {
        self.heard.is_cancelled = true;
        self.inbox.note_paused();
        self.ask_again = Some(Instant::now() + GRACE);
        (self.send)(libc::SIGTERM);
        if std::mem::take(&mut self.paused) {
            // What is stopped hears nothing else.
            (self.send)(libc::SIGCONT);
            self.say(names::EVENT_RESUMED);
        }
    }

    fn pause(&mut self) {
        let Some(request) = self.inbox.pause() else { return };
        // A run that waits is stopped, and one that is stopped waits: else nobody could have it go on.
        (self.send)(libc::SIGSTOP);
        let event = event(names::EVENT_WAITING, &[("reason", Waiting::PAUSED), ("request", &request)]);
        if !(self.tell)(&event) {
            (self.send)(libc::SIGCONT);
            self.pause_again = Some(Instant::now() + RETRY);
            return;
        }
        self.paused = true;
        self.heard.events.push(event);
        self.inbox.note_paused();
    }

    fn resume(&mut self) {
        let Some(wait) = self.inbox.answered() else { return };
        self.paused = false;
        self.say(names::EVENT_RESUMED);
        self.inbox.note_resumed(wait);
        (self.send)(libc::SIGCONT);
    }

    /// Says something that holds whether it can be told now or not.
    fn say(&mut self, name: &str) {
        let event = event(name, &[]);
        // What cannot be told now the end tells.
        let _ = (self.tell)(&event);
        self.heard.events.push(event);
    }
}

/// Makes what the root says.
pub fn event(name: &str, attributes: &[(&str, &str)]) -> SpanEvent {
    let attribute =
        |(key, value): &(&str, &str)| KeyValue { key: (*key).to_owned(), value: Some(Value::from(*value).into()) };
    SpanEvent {
        time_unix_nano: UnixNanos::now().0,
        name: name.to_owned(),
        attributes: attributes.iter().map(attribute).collect(),
        ..SpanEvent::default()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use runspan::model::RunId;
    use runspan::store::files::layout::Layout;

    use super::*;

    #[test]
    fn who_asks_while_a_command_is_held_is_served_by_that() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunId([7; 16]);
        let requests = dir.path().join("agents").join(run.to_string()).join("requests");
        std::fs::create_dir_all(&requests).unwrap();
        let ask = |id: &str| {
            let request = format!(r#"{{"id":"{id}","at":"2026-01-06T10:00:00Z"}}"#);
            std::fs::write(requests.join("pause.json"), request).unwrap();
        };
        let inbox = Inbox::of(&Layout::new(dir.path()), run);
        let signals = RefCell::new(Vec::new());
        let mut ear = Ear::new(inbox.clone(), |signal| signals.borrow_mut().push(signal), |_: &SpanEvent| true);
        ask("one");
        ear.look();
        ask("other");
        ear.look();
        assert_eq!((signals.take(), inbox.pause()), (vec![libc::SIGSTOP], None));
        // Nor is it held any more that is to end.
        ask("third");
        std::fs::write(requests.join("cancel.json"), r#"{"at":"2026-01-06T10:00:00Z"}"#).unwrap();
        ear.look();
        assert_eq!((signals.take(), inbox.pause()), (vec![libc::SIGTERM, libc::SIGCONT], None));
    }

    #[test]
    fn a_command_whose_pause_cannot_be_told_goes_on_and_the_request_stays() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunId([7; 16]);
        let requests = dir.path().join("agents").join(run.to_string()).join("requests");
        std::fs::create_dir_all(&requests).unwrap();
        std::fs::write(requests.join("pause.json"), r#"{"id":"p","at":"2026-01-06T10:00:00Z"}"#).unwrap();
        let (signals, is_well) = (RefCell::new(Vec::new()), Cell::new(false));
        let inbox = Inbox::of(&Layout::new(dir.path()), run);
        let mut ear =
            Ear::new(inbox.clone(), |signal| signals.borrow_mut().push(signal), |_: &SpanEvent| is_well.get());
        ear.look();
        ear.look();
        assert_eq!((signals.take(), inbox.pause().as_deref()), (vec![libc::SIGSTOP, libc::SIGCONT], Some("p")));
        assert!(!ear.paused && ear.heard.events.is_empty());
        is_well.set(true);
        ear.pause_again = None;
        ear.look();
        assert_eq!((signals.take(), inbox.pause()), (vec![libc::SIGSTOP], None));
        assert!(ear.paused && ear.heard.events.len() == 1);
    }
}
