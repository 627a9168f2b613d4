//! Keeps a store's databases current from a thread of its own.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::FilesReader;
use super::super::again::Fresh;
use super::super::layout::Layout;
use super::{Database, Found, GLIMPSE, Result, ask_within, is_wanted, number, text};
use crate::model::RunKind;
use crate::priority;

/// Of each database so much is read without copying it: pages that are mapped count as the server's memory, which has a bound.
pub(super) const MAPPED: i64 = 32 << 20;
/// How often the log is looked at by who keeps up with it.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// How long steps and texts wait, from one time when all were there to the next, for a store that lags: what it does is
/// waited for, and whoever asks reads what the databases lack.
const GIVES_WAY: Duration = Duration::from_secs(30);

/// Keeps the databases of a store current from a thread of its own, so that nobody who asks has to, until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Keeper {
    /// Begins. `with_texts`: those are kept, too, if the store allows it. `lags`: the store has more to do than it can; for some time
    /// this thread gives way to it. Without a thread whoever asks takes in what is new.
    pub fn start(layout: &Layout, with_texts: bool, lags: impl Fn() -> bool + Send + 'static) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let layout = layout.clone();
        let keep = move || {
            priority::lower(priority::INDEX);
            let fresh = Wanted::of(&layout);
            let mut seen = None;
            while stopped.recv_timeout(KEEP_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                fresh.0.expire();
                let now = Some(traces(&layout));
                // Whatever is in the way, the next reader meets and mends it.
                if now != seen && is_wanted(&layout) && ask_within(&layout, MAPPED, |_| Ok(Found::default())).is_some()
                {
                    let mut way = Duration::ZERO;
                    let goes_on = || {
                        while lags() && way < GIVES_WAY {
                            if stopped.recv_timeout(GLIMPSE) != Err(mpsc::RecvTimeoutError::Timeout) {
                                return false;
                            }
                            way += GLIMPSE;
                        }
                        stopped.try_recv() == Err(mpsc::TryRecvError::Empty)
                    };
                    if keep_the_rest(&layout, with_texts, goes_on).is_ok() {
                        seen = now;
                    }
                }
            }
        };
        Self {
            stop: std::thread::Builder::new().name("index".to_owned()).spawn(keep).ok().map(|thread| (stop, thread)),
        }
    }
}

/// What this process writes is kept for the index, until this is dropped.
struct Wanted(Arc<Fresh>);

impl Wanted {
    fn of(layout: &Layout) -> Self {
        let fresh = Arc::clone(layout.packs().0.fresh());
        fresh.want(true);
        Self(fresh)
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.want(false);
    }
}

/// Returns what shows that something has changed: how long the log is, and when runs came and went.
fn traces(layout: &Layout) -> [i64; 5] {
    let stat = |path: PathBuf| std::fs::metadata(path).ok();
    let time = |kind: RunKind| {
        let stat = stat(layout.runs(kind));
        stat.map_or([0, 0], |stat| [stat.mtime(), stat.mtime_nsec()])
    };
    let ([agents, agents_nanos], [flows, flows_nanos]) = (time(RunKind::Agent), time(RunKind::Workflow));
    let length = stat(layout.index_log()).map_or(0, |log| number(log.len()));
    [length, agents, agents_nanos, flows, flows_nanos]
}

/// Reads the steps and the texts of runs that are behind, until there are none or it is not to go on.
fn keep_the_rest(layout: &Layout, with_texts: bool, mut goes_on: impl FnMut() -> bool) -> Result<()> {
    if !goes_on() {
        return Ok(());
    }
    let mut database = Database::open(layout)?.with_mapped(MAPPED)?;
    if !with_texts || !text::is_allowed(layout)? {
        // Who searches in it at this moment lets the next one delete it.
        if let Err(error) = text::remove(layout)
            && !error.is_in_use()
        {
            return Err(error);
        }
        let reader = FilesReader::of(layout.clone())?;
        while database.catch_up_steps(&reader, GLIMPSE)?.left > 0 && goes_on() {}
        return Ok(());
    }
    // Some of one, some of the other: what was read for the first is at hand for the second.
    let (reader, mut texts) =
        (FilesReader::of(layout.clone())?.for_two(), text::Texts::open(layout)?.with_mapped(MAPPED)?);
    loop {
        let steps = database.catch_up_steps(&reader, Duration::ZERO)?;
        let read = texts.catch_up(&database, &reader, Duration::ZERO)?;
        if steps.left + read.left == 0 || !goes_on() {
            return Ok(());
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            drop(stop);
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}
