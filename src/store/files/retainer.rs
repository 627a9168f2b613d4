//! Retention by itself: a thread beside a recorder or a server that looks now and then what is to go.
//!
//! One process at a time looks, by the lock of the file `retention` in the store, and notes there when it did. Nothing of
//! it is on the way of a recorded program: the thread has the lowest priority, only a server waits for what it is at, and what
//! it has not done when the process ends the next one does.

use std::io::Read;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cleanup::{Cleaned, Options, cleanup};
use super::layout::Layout;
use crate::error::with_causes;
use crate::fs::{Access, Contents, write_full};
use crate::model::UnixNanos;
use crate::priority;
use crate::sources::fork::hold_off;
use crate::store::StoreError;
use crate::store::retention::{DEFAULT_EVERY, Reason, Settings};
use crate::telemetry::warn;

/// A process that ends before leaves it to others.
const FIRST: Duration = Duration::from_secs(10);

/// Looks after retention until it is dropped.
#[derive(Debug)]
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "a recorder lets go of it and waits for nothing"))]
pub(crate) struct Retainer {
    stop: mpsc::Sender<()>,
    /// Nothing comes over it; it is closed when the thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Retainer {
    /// Begins. Without a thread another process does it, or `runspan cleanup`.
    ///
    /// `seals`: logs of runs that are over are sealed, too, which takes memory that a recorded program did not ask for.
    pub fn start(layout: &Layout, seals: bool) -> Self {
        let layout = layout.clone();
        Self::begin(move |stopped| work(&layout, seals, stopped))
    }

    fn begin(work: impl FnOnce(&mpsc::Receiver<()>) + Send + 'static) -> Self {
        let ((stop, stopped), (ending, ended)) = (mpsc::channel(), mpsc::channel());
        let work = move || {
            let _ending: mpsc::Sender<()> = ending;
            work(&stopped);
        };
        let _ = std::thread::Builder::new().name("runspan-keep".to_owned()).spawn(work);
        Self { stop, ended }
    }

    /// Has it end with what it is at: a pack that is half written would be left over, and `verify` would say so. Returns what waits
    /// for that, until a deadline.
    #[cfg(feature = "server")]
    pub fn stop(self) -> impl FnOnce(std::time::Instant) {
        let Self { stop, ended } = self;
        drop(stop);
        move |deadline| {
            let _ = ended.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now()));
        }
    }
}

fn work(layout: &Layout, seals: bool, stopped: &mpsc::Receiver<()>) {
    priority::lower(priority::RETENTION);
    let mut told_bad = None;
    let mut wait = settings_of(layout).map_or(FIRST, |settings| settings.every.min(FIRST));
    while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        let settings = match settings_of(layout) {
            Ok(settings) => settings,
            Err(why) => {
                if told_bad.as_ref() != Some(&why) {
                    warn(format_args!("{why}; nothing is removed until that is right"));
                    told_bad = Some(why);
                }
                wait = DEFAULT_EVERY;
                continue;
            }
        };
        wait = settings.every;
        if !settings.is_automatic {
            continue;
        }
        let go_on = || matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Empty));
        let settings = Settings { seal_from: settings.seal_from.filter(|_| seals), ..settings };
        match look(layout, &settings, UnixNanos::now(), go_on) {
            Ok(Looked::Cleaned(cleaned)) if !cleaned.removed.is_empty() => {
                warn(format_args!("{}", announcement(&cleaned)))
            }
            Ok(Looked::NotDue(rest)) => wait = rest,
            Ok(_) => {}
            Err(error) => {
                let why = with_causes(&error);
                if told_bad.as_ref() != Some(&why) {
                    warn(format_args!("what is to go could not be looked after: {why}"));
                    told_bad = Some(why);
                }
            }
        }
    }
}

fn settings_of(layout: &Layout) -> Result<Settings, String> {
    let file = layout.read().map_err(|error| with_causes(&error))?;
    Settings::read(file.retention.as_ref()).map_err(|error| format!("{}: {error}", layout.store_file().display()))
}

/// What came of a look.
enum Looked {
    /// It was time.
    Cleaned(Box<Cleaned>),
    /// Somebody looked not long ago; the next time is in so long.
    NotDue(Duration),
    /// Somebody is at it.
    Busy,
}

/// What the file `retention` says.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    checked_at: UnixNanos,
}

fn look(
    layout: &Layout,
    settings: &Settings,
    now: UnixNanos,
    mut go_on: impl FnMut() -> bool,
) -> Result<Looked, StoreError> {
    let path = layout.root().join("retention");
    let file = {
        // A child that is forked meanwhile would hold the lock, too.
        let _held_off = hold_off();
        let file = layout.fs().open(&path, Access::Create).map_err(StoreError::io("open", &path))?;
        if !file.try_lock(true).map_err(StoreError::io("lock", &path))? {
            return Ok(Looked::Busy);
        }
        file
    };
    let mut text = String::new();
    let read = Contents::of(&*file).take(1 << 10).read_to_string(&mut text);
    let note = read.ok().and_then(|_| serde_json::from_str::<Note>(&text).ok());
    // A look in the future was taken by a clock that was wrong.
    let since = note.filter(|note| note.checked_at <= now).map(|note| Duration::from_nanos(now.0 - note.checked_at.0));
    if let Some(rest) = since.and_then(|since| settings.every.checked_sub(since)).filter(|rest| !rest.is_zero()) {
        return Ok(Looked::NotDue(rest));
    }
    let options = Options { seal_from: settings.seal_from, ..Options::default() };
    let mut is_stopped = false;
    let cleaned = cleanup(layout, &settings.policy, options, now, || {
        is_stopped |= !go_on();
        !is_stopped
    });
    if is_stopped {
        // The next process goes on at once.
        return cleaned.map(|cleaned| Looked::Cleaned(Box::new(cleaned)));
    }
    // Noted where it failed as well: the next to look would find the same, after as much work.
    let text = serde_json::to_string(&Note { checked_at: now }).unwrap_or_default();
    write_full(&*file, text.as_bytes(), 0)
        .and_then(|()| file.set_len(text.len() as u64))
        .map_err(StoreError::io("write", path))?;
    cleaned.map(|cleaned| Looked::Cleaned(Box::new(cleaned)))
}

/// Says what went, and how to keep it the next time.
fn announcement(cleaned: &Cleaned) -> String {
    let count = |reason: Reason| cleaned.removed.iter().filter(|run| run.reason == reason).count();
    let reasons = [(Reason::Count, "newer ones"), (Reason::Age, "their age"), (Reason::Bytes, "the size of the store")];
    let reasons: Vec<String> = reasons
        .into_iter()
        .map(|(reason, what)| (count(reason), what))
        .filter(|(runs, _)| *runs > 0)
        .map(|(runs, what)| format!("{runs} for {what}"))
        .collect();
    let runs = cleaned.removed.len();
    let are = if runs == 1 { "run was" } else { "runs were" };
    format!(
        "{runs} {are} removed ({} bytes): {}. runspan pin keeps a run; retention in store.yaml says what is kept",
        cleaned.bytes,
        reasons.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RunId;
    use crate::model::{RunStatus, RunSummary};
    use crate::store::RunWriter;
    use crate::store::assembly::RunState;
    use crate::store::files::{FilesReader, FilesWriter};

    #[cfg(feature = "server")]
    #[test]
    fn who_stops_it_waits_for_what_it_is_at() {
        let is_done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let done = std::sync::Arc::clone(&is_done);
        let retainer = Retainer::begin(move |stopped| {
            let _ = stopped.recv();
            std::thread::sleep(Duration::from_millis(50));
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        retainer.stop()(std::time::Instant::now() + Duration::from_secs(60));
        assert!(is_done.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[test]
    fn one_looks_at_a_time_and_not_before_it_is_due() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        layout.open_or_create().unwrap();
        let mut writer = FilesWriter::new(layout.clone(), RunId([9; 16]), false);
        let at = |seconds: u64| UnixNanos(1_700_000_000_000_000_000 + seconds * 1_000_000_000);
        for number in 1..=3 {
            let run = RunId::from_parts(at(u64::from(number)).millis(), [number; 10]);
            let summary = RunSummary {
                status: RunStatus::Success,
                started_at: at(u64::from(number)),
                ..RunState::new(run, run.as_trace_id()).summary(at(9))
            };
            writer.create_run(&summary, &[]).unwrap();
            writer.release_run(run);
        }
        let store_file = layout.store_file();
        let text = std::fs::read_to_string(&store_file).unwrap();
        std::fs::write(&store_file, text + "retention: {keep: 2, every: 1m}\n").unwrap();
        let settings = settings_of(&layout).unwrap();
        let look_at = |seconds| look(&layout, &settings, at(seconds), || true).unwrap();
        let Looked::Cleaned(cleaned) = look_at(100) else { panic!("it was time") };
        assert_eq!(cleaned.removed.len(), 1);
        assert_eq!(
            announcement(&cleaned),
            format!(
                "1 run was removed ({} bytes): 1 for newer ones. runspan pin keeps a run; retention in store.yaml says \
                 what is kept",
                cleaned.bytes
            )
        );
        assert_eq!(FilesReader::of(layout.clone()).unwrap().stored_runs().unwrap().len(), 2);
        assert!(matches!(look_at(130), Looked::NotDue(rest) if rest == Duration::from_secs(30)));
        assert!(matches!(look_at(160), Looked::Cleaned(_)));
        // The clock was put back.
        assert!(matches!(look_at(50), Looked::Cleaned(_)));
        let held = layout.fs().open(&layout.root().join("retention"), Access::Create).unwrap();
        assert!(held.try_lock(true).unwrap());
        assert!(matches!(look_at(1_000), Looked::Busy));
        std::fs::write(&store_file, "format: 1\nretention: {keeps: 2}\n").unwrap();
        assert!(settings_of(&layout).unwrap_err().contains("retention.keeps is none of mode, keep"));
    }
}
