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
        let tell = move |event: &SpanEvent| {
            // What cannot be told now the end tells.
            let _ = runtime.block_on(teller.tell(root.says(event)));
        };
        let mut ear = Ear { inbox, signals, tell, heard: Heard::default(), paused: false, ask_again: None };
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

struct Ear<T> {
    inbox: Inbox,
    signals: Signals,
    tell: T,
    heard: Heard,
    paused: bool,
    /// When the command is killed that was asked to end.
    ask_again: Option<Instant>,
}

impl<T: Fn(&SpanEvent)> Ear<T> {
    fn look(&mut self) {
        if !self.heard.is_cancelled && self.inbox.is_cancelled() {
            self.cancel();
        } else if self.ask_again.is_some_and(|at| Instant::now() >= at) {
            self.signals.send(libc::SIGKILL);
        } else if self.paused {
            self.resume();
        } else if !self.heard.is_cancelled {
            self.pause();
        }
    }

    fn cancel(&mut self) {
        self.heard.is_cancelled = true;
        self.ask_again = Some(Instant::now() + GRACE);
        self.signals.send(libc::SIGTERM);
        if std::mem::take(&mut self.paused) {
            // What is stopped hears nothing else.
            self.signals.send(libc::SIGCONT);
            self.say(names::EVENT_RESUMED, &[]);
        }
    }

    fn pause(&mut self) {
        let Some(request) = self.inbox.pause() else { return };
        self.paused = true;
        self.signals.send(libc::SIGSTOP);
        self.say(names::EVENT_WAITING, &[("reason", Waiting::PAUSED), ("request", &request)]);
        self.inbox.note_paused();
    }

    fn resume(&mut self) {
        let Some(wait) = self.inbox.answered() else { return };
        self.paused = false;
        self.say(names::EVENT_RESUMED, &[]);
        self.inbox.note_resumed(wait);
        self.signals.send(libc::SIGCONT);
    }

    fn say(&mut self, name: &str, attributes: &[(&str, &str)]) {
        let attribute =
            |(key, value): &(&str, &str)| KeyValue { key: (*key).to_owned(), value: Some(Value::from(*value).into()) };
        let event = SpanEvent {
            time_unix_nano: UnixNanos::now().0,
            name: name.to_owned(),
            attributes: attributes.iter().map(attribute).collect(),
            ..SpanEvent::default()
        };
        (self.tell)(&event);
        self.heard.events.push(event);
    }
}
