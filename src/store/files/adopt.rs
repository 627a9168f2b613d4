//! Whole run folders from elsewhere.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use super::artifacts::{self, StoredArtifact};
use super::chain::Chain;
use super::layout::{self, Layout};
use super::sums::Sums;
use super::{cleanup, index, packs, run_dir};
use crate::model::event::EventBody;
use crate::model::{Event, RunId, RunKind, RunStatus, RunSummary, SpanId, StepStatus, StepView};
use crate::store::StoreError;
use crate::store::assembly::RunState;

/// Longest log that is taken in: a run is held to a tenth of it. A sealed one may be a thousandth as long.
const MAX_LOG: u64 = 1 << 30;
/// So many events are added up at most, in memory: more than ten times of what a run's log may hold in real spans.
const MAX_ADDED: u64 = 200_000;

/// Moves a run's folder, which nobody writes, into a store on the same file system; `false` when the store has the run, which
/// then stays as it is.
///
/// Its `run.yaml` is made anew where it says of a run that is over what its log does not add up to.
///
/// # Errors
///
/// [`StoreError::Damaged`] when the folder is not that of a run that can be read, and what the system refuses. Nothing was moved
/// then.
pub fn adopt_folder(layout: &Layout, folder: &Path, run: RunId) -> Result<bool, StoreError> {
    let summary = check(layout, folder, run)?;
    if layout.find_run(run)?.is_some() {
        return Ok(false);
    }
    place(layout, folder, &summary)
}

/// Puts a run's folder in the place of the one that the store has, where that is what was known of the run before it went on: it
/// has crashed as far as anybody could tell, and this one has all of its steps, and has ended otherwise, or has more of them, or more
/// that have ended. `false` where it is not so; then all stays as it is.
///
/// `folder` is in a folder of its kind, in an import's own. The old one waits beside it until it has its name: should this
/// process die in between, [`restore_replaced`] gives it back.
///
/// # Errors
///
/// As [`adopt_folder`], and [`StoreError::InUse`] while a process writes the run.
pub fn renew_folder(layout: &Layout, folder: &Path, run: RunId) -> Result<bool, StoreError> {
    let summary = check(layout, folder, run)?;
    let kind = summary.kind;
    let known = layout.find_run(run)?.map(|dir| run_dir::read_summary(layout.fs(), &dir, run)).transpose()?;
    if !known.is_some_and(|known| known.status == RunStatus::Crashed && known.kind == kind) {
        // A packed run stays where it is.
        return Ok(false);
    }
    let (fs, (dir, _)) = (layout.fs(), layout.unpack(run)?);
    // Kept until the old one has gone: what is found beside the new one without it was left by who died over it.
    let _lock = run_dir::LogLock::take(fs, &dir, run)?;
    let known = run_dir::read_summary(fs, &dir, run)?;
    let is_before = known.status == RunStatus::Crashed && known.kind == kind;
    let (before, after) = (Progress::of(layout, &dir, run)?, Progress::of(layout, folder, run)?);
    if !is_before || !before.is_part_of(&after) || (summary.status == RunStatus::Crashed && before == after) {
        return Ok(false);
    }
    if cleanup::is_marked(fs, &dir)? {
        cleanup::mark_folder(fs, folder)?;
    }
    let old = folder.with_file_name(format!("{REPLACED}{run}"));
    fs.rename(&dir, &old).map_err(StoreError::io("replace", &dir))?;
    // Who was told that the pin holds may have set it until a moment ago.
    let marked = cleanup::is_marked(fs, &old)
        .and_then(|is_marked| if is_marked { cleanup::mark_folder(fs, folder) } else { Ok(()) });
    let placed = marked.and_then(|()| place(layout, folder, &summary));
    if !matches!(placed, Ok(true)) && layout::stat(fs, &dir).is_ok_and(|found| found.is_none()) {
        fs.rename(&old, &dir).map_err(StoreError::io("restore", &dir))?;
        return placed;
    }
    if !matches!(placed, Ok(true)) && !is_within(layout, &old, run)? {
        // Something else has come under its name, and has not all of it: it waits where it is.
        return Err(StoreError::InUse { run });
    }
    // What cannot be deleted now goes with the import's folder.
    let _ = put_away(layout, &old, run);
    if cleanup::is_marked(fs, &dir)? {
        cleanup::set_pinned(layout, run, true)?;
    }
    placed
}

/// Tells whether the run that is in the store has all that a folder of it has.
fn is_within(layout: &Layout, old: &Path, run: RunId) -> Result<bool, StoreError> {
    let Some(dir) = layout.find_run(run)? else { return Ok(false) };
    Ok(Progress::of(layout, old, run)?.is_part_of(&Progress::of(layout, &dir, run)?))
}

/// Deletes a folder that another has taken the place of; first out of the sight of [`restore_replaced`], which would give half
/// of it back, should the new one be removed by then.
fn put_away(layout: &Layout, old: &Path, run: RunId) -> Result<(), StoreError> {
    let (fs, gone) = (layout.fs(), old.with_file_name(format!("{GONE}{run}")));
    let away = fs.rename(old, &gone).and_then(|()| fs.remove_tree(&gone));
    match away {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("delete", old)(error)),
        _ => Ok(()),
    }
}

/// How far a run has come, by what its log tells.
#[derive(PartialEq, Eq)]
struct Progress {
    spans: HashSet<SpanId>,
    ended: HashSet<SpanId>,
}

impl Progress {
    fn of(layout: &Layout, dir: &Path, run: RunId) -> Result<Self, StoreError> {
        let state = RunState::read(run, &run_dir::read_events(layout.fs(), dir, run, 0)?);
        // Of a step whose process went on nobody could tell that either.
        let has_ended = |step: &StepView| !matches!(step.status, StepStatus::Running | StepStatus::Crashed);
        let ended = state.step_views().into_iter().filter(has_ended).map(|step| step.span_id);
        Ok(Self { spans: state.spans().collect(), ended: ended.collect() })
    }

    fn is_part_of(&self, later: &Self) -> bool {
        self.spans.is_subset(&later.spans) && self.ended.is_subset(&later.ended)
    }
}

/// How names begin of folders in which imports work, in that of the store.
const IMPORT: &str = ".import-";
/// A run's folder that another is about to take the place of, in an import's.
const REPLACED: &str = ".replaced-";
/// The same, when it has.
const GONE: &str = ".gone-";

/// Gives runs their folders back that an import had moved away, to put others in their place, and then died.
///
/// # Errors
///
/// What the file system says.
pub fn restore_replaced(layout: &Layout) -> Result<(), StoreError> {
    let mut restored = Ok(());
    for import in named(layout, layout.root(), IMPORT)? {
        for (kind, run, old) in replaced_in(layout, &import)? {
            let of_it = restore(layout, kind, run, &old);
            // One of them keeps no other.
            restored = restored.and(of_it);
        }
    }
    restored
}

/// Tells whether an import's folder has what [`restore_replaced`] gives back: as long as it does, it stays.
pub fn has_replaced(layout: &Layout, import: &Path) -> bool {
    !matches!(replaced_in(layout, import), Ok(replaced) if replaced.is_empty())
}

fn restore(layout: &Layout, kind: RunKind, run: RunId, old: &Path) -> Result<(), StoreError> {
    let fs = layout.fs();
    if layout.find_run(run)?.is_none() {
        let _lock = match run_dir::LogLock::take(fs, old, run) {
            Ok(lock) => lock,
            // Who moved it away is at it still.
            Err(StoreError::InUse { .. }) => return Ok(()),
            // Or has just put the other in its place.
            Err(_) if layout.find_run(run)?.is_some() => return Ok(()),
            Err(error) => return Err(error),
        };
        if layout.find_run(run)?.is_none() {
            let dir = layout.run(kind, run);
            fs.rename(old, &dir).map_err(StoreError::io("restore", &dir))?;
            return layout::sync_dir(fs, &layout.runs(kind));
        }
    }
    let Some(dir) = layout.find_run(run)? else { return Ok(()) };
    match is_within(layout, old, run) {
        // What came under its name is not what was to replace it.
        Ok(false) => return Ok(()),
        Ok(true) => {
            // Whoever put it there may have died before it said so.
            let summary = RunSummary { steps: None, ..run_dir::read_summary(fs, &dir, run)? };
            index::IndexLog::default().append(fs, &layout.index_log(), &summary, true)?;
            if cleanup::is_marked(fs, old)? && !cleanup::is_marked(fs, &dir)? {
                cleanup::set_pinned(layout, run, true)?;
            }
        }
        // Half of it has gone.
        Err(_) => {}
    }
    // The new one has its place: what is removed from there is not to come back.
    put_away(layout, old, run)
}

/// Returns the folders that wait in an import's, whose they are and of which kind.
fn replaced_in(layout: &Layout, import: &Path) -> Result<Vec<(RunKind, RunId, PathBuf)>, StoreError> {
    let mut found = Vec::new();
    for kind in RunKind::ALL {
        let of = |old: PathBuf| {
            let run = old.file_name()?.to_str()?.strip_prefix(REPLACED)?.parse().ok()?;
            Some((*kind, run, old))
        };
        found.extend(named(layout, &import.join(packs::folder(*kind)), REPLACED)?.into_iter().filter_map(of));
    }
    Ok(found)
}

/// Returns the folders in one whose names begin so; none where that is not there.
fn named(layout: &Layout, dir: &Path, begin: &str) -> Result<Vec<PathBuf>, StoreError> {
    match layout.fs().list(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(StoreError::io("read", dir)(error)),
        Ok(entries) => {
            let entries = entries.into_iter().filter(|entry| entry.is_dir && entry.name.starts_with(begin));
            Ok(entries.map(|entry| dir.join(entry.name)).collect())
        }
    }
}

/// Reads what a folder says of its run, if that can be read and is whole.
///
/// It may have lain in the folder of the other kind: where its call came before its agent, nobody knew of that.
fn check(layout: &Layout, folder: &Path, run: RunId) -> Result<RunSummary, StoreError> {
    let fs = layout.fs();
    let summary: RunSummary = run_dir::read_summary(fs, folder, run)?;
    let (mut chain, mut state, mut added) = (Chain::default(), RunState::new(run, run.as_trace_id()), 0);
    // By name: a file is read once, however often the log tells of it.
    let mut produced = BTreeMap::new();
    let add = |event: &Event| {
        added += 1;
        match &event.body {
            // One that is not there may have been left where it was.
            EventBody::Artifact(artifact)
                if produced.get(&artifact.name) != Some(artifact)
                    && artifacts::find(fs, folder, artifact.clone()).is_ok_and(is_kept) =>
            {
                produced.insert(artifact.name.clone(), artifact.clone());
            }
            _ => {}
        }
        if added <= MAX_ADDED {
            state.apply(event, false);
        }
    };
    let checked = run_dir::check_log(fs, folder, run, &mut chain, MAX_LOG, add);
    let is_changed = |summary: &RunSummary| {
        checked.is_err() || summary.events_sha256.is_some_and(|hash| chain.hash_of(summary.events) != Some(hash))
    };
    if summary.status.is_open() && is_changed(&summary) {
        let why = "it is under way, and was written to while it was copied; take it when it is over".to_owned();
        return Err(StoreError::Damaged { run, why });
    }
    checked?;
    if summary.events_sha256.is_some_and(|hash| chain.hash_of(summary.events) != Some(hash)) {
        let why = "its log was changed since it was written: the hash in run.yaml is another".to_owned();
        return Err(StoreError::Damaged { run, why });
    }
    for artifact in produced.values() {
        if let Some(what) = artifacts::flaw_of(fs, folder, artifact)? {
            let why = format!("artifacts/{} was changed since it was written: {what}", artifact.name);
            return Err(StoreError::Damaged { run, why });
        }
    }
    if summary.status.is_open() || added > MAX_ADDED {
        return Ok(summary);
    }
    right(layout, folder, summary, &state, &chain)
}

fn is_kept(artifact: StoredArtifact) -> bool {
    artifact.stored_bytes.is_some()
}

/// Lets `run.yaml` say what the log adds up to, where that is another thing; returns what it says then.
fn right(
    layout: &Layout,
    folder: &Path,
    summary: RunSummary,
    state: &RunState,
    chain: &Chain,
) -> Result<RunSummary, StoreError> {
    let run = summary.run_id;
    let damaged = |why: String| StoreError::Damaged { run, why };
    // Another version's sums are as good, but who wrote them here nobody knows: the steps are added up as those beside them.
    let right = match Sums::of(&summary, state, false).map_err(|why| damaged(format!("run.yaml: {why}")))? {
        Sums::AreRight | Sums::OfOtherRules => return Ok(summary),
        Sums::AreWrong(right) => *right,
    };
    if !state.has_started() {
        return Err(damaged("its log has no run_started, so nobody knows what it was".to_owned()));
    }
    if right.kind != summary.kind {
        return Err(damaged(format!(
            "run.yaml says it is of kind {}, and its log of kind {}",
            summary.kind, right.kind
        )));
    }
    if right.status.is_open() {
        return Err(damaged(format!("run.yaml says it is over ({}), and its log has no end of it", summary.status)));
    }
    let right = RunSummary { events_sha256: chain.hash_for(&right), ..right };
    run_dir::write_summary(layout.fs(), folder, &right, true)?;
    Ok(right)
}

/// Gives a folder its name in the store, and its line; `false` where that is taken.
fn place(layout: &Layout, folder: &Path, summary: &RunSummary) -> Result<bool, StoreError> {
    let (fs, kind) = (layout.fs(), summary.kind);
    let place = layout.run(kind, summary.run_id);
    match fs.rename(folder, &place) {
        Ok(()) => {}
        // Another import was faster.
        Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {
            return Ok(false);
        }
        Err(error) => return Err(StoreError::io("create", place)(error)),
    }
    layout::sync_dir(fs, &layout.runs(kind))?;
    index::IndexLog::default().append(fs, &layout.index_log(), summary, true)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conventions::names;
    use crate::fs::faulty::{End, FaultyFs, Plan};
    use crate::model::otlp::Span;
    use crate::model::record::{Record, RecordKind};
    use crate::sinks::store::{SILENCE, StoreSink};
    use crate::store::files::{FilesReader, FilesWriter, folder};
    use crate::store::{RunReader, RunWriter};

    const WRITER: RunId = RunId([9; 16]);
    const AT: u64 = 1_767_693_600_000_000_000;

    /// The one run of the trace, in the store at `root`, with these steps below its own.
    fn tell(fs: &FaultyFs, root: &str, steps: &[u8], is_over: bool) -> RunId {
        let layout = Layout::new_in(fs.shared(), root);
        layout.open_or_create().unwrap();
        let mut sink = StoreSink::new(FilesWriter::new(layout.clone(), WRITER, false), WRITER);
        sink.take_from_outside(SILENCE);
        for id in [&1].into_iter().chain(steps) {
            let mut span = Span {
                trace_id: vec![1; 16],
                span_id: vec![*id; 8],
                parent_span_id: if *id == 1 { Vec::new() } else { vec![1; 8] },
                name: format!("s{id}"),
                start_time_unix_nano: AT,
                end_time_unix_nano: AT + u64::from(*id),
                ..Span::default()
            };
            span.set_attr(names::OPERATION, if *id == 1 { "invoke_agent" } else { "chat" });
            if *id == 1 && !is_over {
                span.set_attr(names::STEP_STATUS, "crashed");
                span.set_attr(names::ERROR_TYPE, "crashed");
            }
            let record =
                Record { kind: RecordKind::Ended, resource: Default::default(), scope: Default::default(), span };
            sink.take(u64::from(*id), record).unwrap();
        }
        sink.close_all(|| Ok(())).unwrap();
        FilesReader::of(layout).unwrap().stored_runs().unwrap()[0].run_id
    }

    /// A store with a run that was under way when it was imported, pinned, and what an import knows of it now.
    fn about_to_renew(now: &[u8], is_over: bool) -> (FaultyFs, RunId, PathBuf) {
        let fs = FaultyFs::new(1);
        let (run, import) = (tell(&fs, "/store", &[2, 3], false), "/store/.import-01KE9BZH800000000000000001");
        let layout = Layout::new_in(fs.shared(), "/store");
        let known = FilesReader::of(layout.clone()).unwrap().get_run(run).unwrap();
        assert_eq!(known.status, RunStatus::Crashed);
        cleanup::set_pinned(&layout, run, true).unwrap();
        assert_eq!(tell(&fs, import, now, is_over), run);
        let folder = Layout::new_in(fs.shared(), import).run(known.kind, run);
        (fs, run, folder)
    }

    #[test]
    fn a_run_that_is_renewed_is_there_as_it_was_or_as_it_is_and_pinned_whenever_a_kill_comes() {
        let renew = |crash_at: Option<u64>| {
            let (fs, run, folder) = about_to_renew(&[2, 3, 4], true);
            let (layout, from) = (Layout::new_in(fs.shared(), "/store"), fs.count());
            fs.plan(Plan { crash_at: crash_at.map(|step| from + step), ..Plan::default() });
            let renewed = renew_folder(&layout, &folder, run);
            assert!(crash_at.is_some() || renewed.unwrap());
            (fs.count() - from, fs.restart(End::Kill), run)
        };
        let (steps, ..) = renew(None);
        let mut seen = HashSet::new();
        for step in 1..=steps + 1 {
            let (_, fs, run) = renew(Some(step));
            let layout = Layout::new_in(fs.shared(), "/store");
            restore_replaced(&layout).unwrap();
            let reader = FilesReader::of(layout.clone()).unwrap();
            let found = reader.get_run(run).unwrap_or_else(|error| panic!("step {step}: {error}"));
            assert!(found.pinned, "step {step}");
            let spans = RunState::read(run, &reader.get_events(run, 0).unwrap()).spans().count();
            assert_eq!(spans, if found.status == RunStatus::Crashed { 3 } else { 4 }, "step {step}");
            seen.insert(found.status);
            // What was left of the old one does not come back.
            FilesWriter::new(layout.clone(), WRITER, false).delete_run(run).unwrap();
            restore_replaced(&layout).unwrap();
            assert!(layout.find_run(run).unwrap().is_none(), "step {step}");
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_run_that_has_gone_on_and_has_no_end_yet_is_renewed_and_one_that_has_not_stays() {
        for (now, is_over, is_renewed) in
            [(&[2, 3, 4][..], false, true), (&[2, 3], false, false), (&[2, 4], false, false), (&[2, 3], true, true)]
        {
            let (fs, run, folder) = about_to_renew(now, is_over);
            let layout = Layout::new_in(fs.shared(), "/store");
            assert_eq!(renew_folder(&layout, &folder, run).unwrap(), is_renewed, "{now:?} {is_over}");
            assert!(FilesReader::of(layout).unwrap().get_run(run).unwrap().pinned);
        }
    }

    #[test]
    fn what_an_import_that_lives_has_moved_away_is_left_to_it() {
        let (fs, run, folder) = about_to_renew(&[2, 3], true);
        let layout = Layout::new_in(fs.shared(), "/store");
        let (dir, old) = (layout.find_run(run).unwrap().unwrap(), folder.with_file_name(format!("{REPLACED}{run}")));
        let lock = run_dir::LogLock::take(layout.fs(), &dir, run).unwrap();
        layout.fs().rename(&dir, &old).unwrap();
        restore_replaced(&layout).unwrap();
        assert!(layout.find_run(run).unwrap().is_none());
        drop(lock);
        let import = Path::new("/store/.import-01KE9BZH800000000000000001");
        assert!(has_replaced(&layout, import));
        restore_replaced(&layout).unwrap();
        assert!(layout.find_run(run).unwrap().is_some() && !has_replaced(&layout, import));
    }

    #[test]
    fn what_was_moved_away_goes_only_for_a_run_that_has_all_of_it() {
        let import = Path::new("/store/.import-01KE9BZH800000000000000001");
        let moved_away = || {
            let (fs, run, folder) = about_to_renew(&[2, 3, 4], true);
            let layout = Layout::new_in(fs.shared(), "/store");
            let dir = layout.find_run(run).unwrap().unwrap();
            layout.fs().rename(&dir, &folder.with_file_name(format!("{REPLACED}{run}"))).unwrap();
            (fs, layout, run, dir, folder)
        };
        let is_pinned = |layout: &Layout, dir: &Path| cleanup::is_marked(layout.fs(), dir).unwrap();
        // A late span made a run of the name meanwhile.
        let (fs, layout, run, dir, _) = moved_away();
        assert_eq!(tell(&fs, "/store", &[2], false), run);
        restore_replaced(&layout).unwrap();
        assert!(has_replaced(&layout, import) && !is_pinned(&layout, &dir));
        // The renewed run, whose import died before it had said so.
        let (_fs, layout, run, dir, folder) = moved_away();
        layout.fs().rename(&folder, &dir).unwrap();
        restore_replaced(&layout).unwrap();
        assert!(!has_replaced(&layout, import) && is_pinned(&layout, &dir));
        let said = index::read(layout.fs(), &layout.index_log()).unwrap();
        assert_eq!(said[&run].status, RunStatus::Success);
        // What is removed from then on does not come back.
        FilesWriter::new(layout.clone(), WRITER, false).delete_run(run).unwrap();
        restore_replaced(&layout).unwrap();
        assert!(layout.find_run(run).unwrap().is_none());
    }

    #[test]
    fn metadata_that_the_log_does_not_add_up_to_is_made_anew_and_without_an_end_the_run_is_not_taken() {
        let adopted_with = |lines: usize, change: fn(RunSummary) -> RunSummary| {
            let fs = FaultyFs::new(1);
            let (run, import) = (tell(&fs, "/store/.import-x", &[2], true), "/store/.import-x");
            let (layout, from) = (Layout::new_in(fs.shared(), "/store"), Layout::new_in(fs.shared(), import));
            layout.open_or_create().unwrap();
            let folder = from.unpack(run).unwrap().0;
            let right = run_dir::read_summary(layout.fs(), &folder, run).unwrap();
            let log = folder.join("events.jsonl");
            let text = layout::read_bounded(layout.fs(), &log, 1 << 20).unwrap();
            let kept: String = text.split_inclusive('\n').take(lines).collect();
            layout::replace(layout.fs(), &log, kept.as_bytes(), false).unwrap();
            let changed = change(right.clone());
            run_dir::write_summary(layout.fs(), &folder, &changed, false).unwrap();
            let taken = adopt_folder(&layout, &folder, run).map_err(|error| error.to_string());
            taken.map(|is_new| {
                assert!(is_new);
                let said = run_dir::read_summary(layout.fs(), &layout.run(right.kind, run), run).unwrap();
                let listed = index::read(layout.fs(), &layout.index_log()).unwrap();
                assert_eq!(listed[&run], RunSummary { steps: None, ..said.clone() });
                if said == right {
                    "as the log says"
                } else if said == changed {
                    "as it was"
                } else {
                    "otherwise"
                }
            })
        };
        let adopted = |change| adopted_with(usize::MAX, change);
        assert_eq!(adopted(|run| run), Ok("as the log says"));
        // In the folder of another kind.
        let fs = FaultyFs::new(1);
        let (run, from) = (tell(&fs, "/store/.import-x", &[2], true), Layout::new_in(fs.shared(), "/store/.import-x"));
        let layout = Layout::new_in(fs.shared(), "/store");
        layout.open_or_create().unwrap();
        let folder = from.run(RunKind::Workflow, run);
        fs.shared().rename(&from.unpack(run).unwrap().0, &folder).unwrap();
        assert!(!folder::files_of(&from, RunKind::Agent, run).unwrap().is_empty());
        assert!(adopt_folder(&layout, &folder, run).unwrap());
        assert_eq!(layout.find_run(run).unwrap(), Some(layout.run(RunKind::Agent, run)));
        assert_eq!(adopted(|run| RunSummary { dropped: 7, ..run }), Ok("as the log says"));
        assert_eq!(adopted(|run| RunSummary { steps: Some(Vec::new()), ..run }), Ok("as the log says"));
        assert_eq!(adopted(|run| RunSummary { events_sha256: None, dropped: 7, ..run }), Ok("as the log says"));
        assert_eq!(adopted(|run| RunSummary { unpriced_steps: 7, ..run }), Ok("as the log says"));
        let open = adopted_with(2, |run| RunSummary { events: 2, events_sha256: None, ..run });
        let why = "run.yaml says it is over (success), and its log has no end of it";
        assert!(matches!(&open, Err(said) if said.ends_with(why)), "{open:?}");
    }

    #[test]
    fn a_log_that_is_too_long_is_read_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("s"));
        layout.open_or_create().unwrap();
        let run = RunId::from_parts(1, [1; 10]);
        let summary = RunState::new(run, run.as_trace_id()).summary(crate::model::UnixNanos(1));
        let mut writer = FilesWriter::new(layout.clone(), RunId([9; 16]), false);
        writer.create_run(&summary, &[]).unwrap();
        let folder = layout.find_run(run).unwrap().unwrap();
        let check = |bytes: usize, max_bytes| {
            std::fs::write(folder.join("events.jsonl"), vec![b'x'; bytes]).unwrap();
            run_dir::check_log(layout.fs(), &folder, run, &mut Chain::default(), max_bytes, |_| {})
        };
        assert!(check(10, 10).is_ok(), "a line that was not finished");
        let StoreError::Damaged { why, .. } = check(11, 10).unwrap_err() else { panic!() };
        assert_eq!(why, "its log is longer than 10 bytes");
    }
}
