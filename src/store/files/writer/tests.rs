use super::*;
use crate::model::{RunStatus, UnixNanos};
use crate::store::assembly::RunState;
use crate::store::files::run_dir::LogLock;

/// A run of that number, without events.
fn summary(number: u16, status: RunStatus) -> RunSummary {
    let at = UnixNanos::from_millis(1_767_693_600_000 + u64::from(number));
    let run = RunId::from_parts(at.millis(), [7; 10]);
    RunSummary { status, ..RunState::new(run, run.as_trace_id()).summary(at) }
}

/// Who removes runs that are over knows by the lock of a log that a process has one.
#[test]
fn logs_of_runs_under_way_alone_are_put_by_and_those_that_are_written_to_last_stay_open() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    layout.open_or_create().unwrap();
    let mut writer = FilesWriter::new(layout.clone(), RunId([9; 16]), false);
    let over = summary(0, RunStatus::Success);
    writer.create_run(&over, &[]).unwrap();
    let busy = summary(1, RunStatus::Running);
    writer.create_run(&busy, &[]).unwrap();
    for number in 2..400 {
        writer.create_run(&summary(number, RunStatus::Running), &[]).unwrap();
        writer.append_events(busy.run_id, &[]).unwrap();
    }
    let is_open = |run: RunId| writer.open.get(&run).is_some_and(|open| !open.log.is_put_by());
    assert!(is_open(over.run_id) && is_open(busy.run_id));
    let lock = LogLock::take(layout.fs(), &layout.run(over.kind, over.run_id), over.run_id);
    assert!(matches!(lock, Err(StoreError::InUse { .. })));
    let open = writer.open.values().filter(|open| !open.log.is_put_by()).count();
    assert!(open <= MOST_AWAKE && writer.open.len() == 400, "{open}");
}
