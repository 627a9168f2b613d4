//! The database beside the store that it is derived from.

use super::check::CHECK_LIMIT;
use super::*;
use crate::model::{NanoUsd, RunKind, RunStatus, Tokens, UnixNanos};
use crate::store::assembly::RunState;
use crate::store::files::FilesWriter;
use crate::store::{Listed, Query, RunReader, RunWriter, Sort};
use proptest::prelude::*;
use std::time::Instant;

pub(super) fn store() -> (tempfile::TempDir, Layout, FilesWriter) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path().join("store"));
    layout.open_or_create().unwrap();
    let writer = FilesWriter::new(layout.clone(), RunId([7; 16]), false);
    (dir, layout, writer)
}

/// A run that is over; every property of it repeats after a few.
fn run(nth: u64) -> RunSummary {
    let started = UnixNanos::from_millis(1_700_000_000_000 + nth / 3 * 1000);
    let run = RunId::from_parts(started.millis(), [nth as u8; 10]);
    let mut run = RunState::new(run, run.as_trace_id()).summary(started);
    run.started_at = started;
    run.kind = if nth.is_multiple_of(4) { RunKind::Workflow } else { RunKind::Agent };
    run.status = [RunStatus::Success, RunStatus::Error, RunStatus::Timeout][nth as usize % 3];
    run.agent_id = (run.kind == RunKind::Agent).then(|| format!("agent-{}", nth % 3));
    run.workflow_id = (run.kind == RunKind::Workflow).then(|| format!("flow-{}", nth % 2));
    run.session_id = (!nth.is_multiple_of(5)).then(|| format!("session-{}", nth % 4));
    run.models = (0..nth % 3).map(|model| format!("model-{model}")).collect();
    run.model = run.models.first().cloned();
    run.cost_usd = (!nth.is_multiple_of(7)).then(|| NanoUsd(nth as i64 % 5 * 1_000_000));
    run.duration_ms = Some(nth % 6 * 10);
    run.tokens = (!nth.is_multiple_of(3)).then(|| Tokens { total: Some(nth % 9), ..Tokens::default() });
    run
}

/// What the files say, whatever the database has.
fn scanned(layout: &Layout, query: &Query) -> Vec<RunSummary> {
    let runs = FilesReader::of(layout.clone()).unwrap().summaries().unwrap().0;
    query.select(runs.into_iter().map(|run| RunSummary { steps: None, ..run }).collect())
}

fn listed(layout: &Layout, query: &Query) -> Vec<RunSummary> {
    let listed = FilesReader::of(layout.clone()).unwrap().list_runs(query).unwrap();
    listed.into_iter().filter_map(|run| if let Listed::Run(run) = run { Some(run.summary) } else { None }).collect()
}

fn queries() -> impl Strategy<Value = Query> {
    let word = |stem: &'static str, of: u64| proptest::option::of((0..of).prop_map(move |n| format!("{stem}-{n}")));
    let moment = || {
        proptest::option::weighted(0.3, (0u64..20).prop_map(|n| UnixNanos::from_millis(1_700_000_000_000 + n * 500)))
    };
    let who = (word("agent", 4), word("flow", 3), word("session", 5), word("model", 3));
    let kind = proptest::option::weighted(0.3, prop_oneof![Just(RunKind::Agent), Just(RunKind::Workflow)]);
    let status = proptest::option::weighted(0.3, prop_oneof![Just(RunStatus::Success), Just(RunStatus::Error)]);
    let cost = proptest::option::weighted(0.3, (0i64..6).prop_map(|n| NanoUsd(n * 1_000_000)));
    let sort = prop_oneof![Just(Sort::Started), Just(Sort::Cost), Just(Sort::Duration), Just(Sort::Tokens)];
    // Few conditions at once, or nothing would be found.
    (who, 0u8..16, kind, status, (moment(), moment()), cost, sort, 0usize..12).prop_map(
        |((agent, flow, session, model), mask, kind, status, (since, until), min_cost, sort, limit)| {
            let keep = |bit: u8, word: Option<String>| word.filter(|_| mask == 1 << bit);
            Query {
                kind,
                agent_id: keep(0, agent),
                workflow_id: keep(1, flow),
                session_id: keep(2, session),
                model: keep(3, model),
                status,
                since,
                until,
                replays: None,
                min_cost,
                sort,
                limit,
            }
        },
    )
}

#[test]
fn the_database_finds_what_a_walk_over_the_store_finds() {
    let (_dir, layout, mut writer) = store();
    (0..60).for_each(|nth| writer.create_run(&run(nth), &[]).unwrap());
    // Told again, and changed.
    for nth in 0..20 {
        writer.update_run(&RunSummary { cost_usd: Some(NanoUsd(77_000_000)), ..run(nth) }).unwrap();
    }
    assert_eq!(rebuild(&layout, |_| {}).unwrap(), 60);
    proptest!(ProptestConfig::with_cases(256), |(query in queries())| {
        let found = ask(&layout, |database| database.find(&query, 0)).unwrap();
        prop_assert_eq!(query.select(found.runs), scanned(&layout, &query));
        prop_assert_eq!(listed(&layout, &query), scanned(&layout, &query));
    });
}

#[test]
fn it_follows_what_is_written_deleted_and_unread() {
    let (_dir, layout, mut writer) = store();
    let all = Query::default();
    (0..9).for_each(|nth| writer.create_run(&run(nth), &[]).unwrap());
    rebuild(&layout, |_| {}).unwrap();
    assert_eq!(listed(&layout, &all).len(), 9);
    // A run whose line was lost, one without a summary that can be read, one that is deleted, one that is new.
    let log = std::fs::read(layout.index_log()).unwrap();
    writer.create_run(&run(9), &[]).unwrap();
    writer.create_run(&run(10), &[]).unwrap();
    std::fs::write(layout.index_log(), log).unwrap();
    std::fs::write(layout.run(run(10).kind, run(10).run_id).join("run.yaml"), "no: run").unwrap();
    writer.delete_run(run(3).run_id).unwrap();
    let mut writer = FilesWriter::new(layout.clone(), RunId([8; 16]), false);
    writer.create_run(&run(11), &[]).unwrap();
    let listed = FilesReader::of(layout.clone()).unwrap().list_runs(&all).unwrap();
    let ids: Vec<(RunId, bool)> = listed
        .iter()
        .map(|listed| match listed {
            Listed::Run(run) => (run.summary.run_id, true),
            Listed::Damaged(run) => (run.run_id, false),
        })
        .collect();
    let mut expected: Vec<(RunId, bool)> =
        [11, 9, 8, 7, 6, 5, 4, 2, 1, 0].into_iter().map(|nth| (run(nth).run_id, true)).collect();
    expected.sort_by(|a, b| b.cmp(a));
    expected.push((run(10).run_id, false));
    assert_eq!(ids, expected);
    assert_eq!(Database::open(&layout).unwrap().runs().unwrap(), 9);
    let reader = FilesReader::of(layout.clone()).unwrap();
    assert_eq!(reader.resolve("latest").unwrap(), run(11).run_id);
    assert_eq!(reader.resolve(&run(9).run_id.to_string()[..22]).unwrap(), run(9).run_id);
    assert_eq!(reader.resolve(&run(5).trace_id.to_string()).unwrap(), run(5).run_id);
}

#[test]
fn a_damaged_foreign_or_older_file_is_made_anew_and_another_log_begins_anew() {
    let (_dir, layout, mut writer) = store();
    (0..9).for_each(|nth| writer.create_run(&run(nth), &[]).unwrap());
    let all = Query::default();
    let answer = || ask(&layout, |database| database.find(&all, 0)).map(|found| found.runs.len());
    let whole = |layout: &Layout| {
        rebuild(layout, |_| {}).unwrap();
        std::fs::read(path(layout)).unwrap()
    };
    let good = whole(&layout);
    for damage in 0..good.len() / 512 {
        let mut bytes = good.clone();
        bytes[damage * 512..(damage + 1) * 512].fill(0xa5);
        std::fs::write(path(&layout), bytes).unwrap();
        // Whatever a page says that is not right any more, the folders are right; what is no database is made anew.
        assert!(listed(&layout, &all).len() <= 9);
    }
    std::fs::write(path(&layout), "text, and no database at all, but long enough to be taken for one".repeat(99))
        .unwrap();
    assert_eq!(answer(), Some(9));
    Connection::open(path(&layout)).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(answer(), Some(9));
    std::fs::remove_file(path(&layout)).unwrap();
    assert_eq!(answer(), Some(9));
    // The same length, and another file.
    let log = std::fs::read(layout.index_log()).unwrap();
    std::fs::remove_file(layout.index_log()).unwrap();
    std::fs::write(layout.index_log(), &log[log.len() / 2..]).unwrap();
    assert!(listed(&layout, &all) == scanned(&layout, &all));
    assert_eq!(listed(&layout, &all).len(), 9);
}

#[test]
fn who_asks_while_others_make_it_anew_has_all_runs() {
    const RUNS: u64 = 40;
    let (_dir, layout, mut writer) = store();
    (0..RUNS).for_each(|nth| writer.create_run(&run(nth), &[]).unwrap());
    let reader = FilesReader::of(layout.clone()).unwrap();
    // One that is open all the time: the file cannot go away.
    for held in [false, true] {
        let held = held.then(|| Database::open(&layout).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..10).for_each(|_| assert_eq!(rebuild(&layout, |_| {}).unwrap(), RUNS)));
            }
            scope.spawn(|| {
                for _ in 0..20 {
                    let runs = ask_whole(&reader, Depth::Runs, &mut |_| {}, Database::runs).unwrap();
                    assert_eq!(runs, RUNS);
                }
            });
        });
        assert_eq!(held.map_or(RUNS, |held| held.runs().unwrap()), RUNS);
    }
    // Who waits for one that is never let go of says so.
    let using = Using::of(&path(&layout)).unwrap();
    assert!(remove(&layout).is_err_and(|error| error.is_in_use()));
    drop(using);
    remove(&layout).unwrap();
    assert!(!path(&layout).exists());
}

#[test]
fn a_question_is_answered_though_the_database_is_kept_from_it() {
    let (_dir, layout, mut writer) = store();
    (0..3).for_each(|nth| writer.create_run(&run(nth), &[]).unwrap());
    let reader = FilesReader::of(layout).unwrap();
    let busy = || rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None);
    let asked = std::cell::Cell::new(0);
    let answer = ask_whole(&reader, Depth::Runs, &mut |_| {}, |database| {
        asked.set(asked.get() + 1);
        if asked.get() == 1 { Err(busy().into()) } else { database.runs() }
    });
    assert_eq!((answer.unwrap(), asked.get()), (3, 2));
}

#[test]
fn a_keeper_takes_in_what_is_written_while_it_lives() {
    let (_dir, layout, mut writer) = store();
    rebuild(&layout, |_| {}).unwrap();
    let keeper = Keeper::start(&layout, true, || false);
    (0..5).for_each(|nth| writer.create_run(&run(nth), &[]).unwrap());
    let until = Instant::now() + Duration::from_secs(60);
    while Database::open(&layout).unwrap().runs().unwrap() < 5 {
        assert!(Instant::now() < until, "nobody took them in");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(keeper);
}

#[test]
fn steps_wait_while_the_store_lags_and_runs_do_not() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    let (_dir, layout, mut writer) = store();
    rebuild(&layout, |_| {}).unwrap();
    (0..5).for_each(|nth| writer.create_run(&run(nth), &[]).unwrap());
    let (lags, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let told = (Arc::clone(&lags), Arc::clone(&asked));
    let keeper = Keeper::start(&layout, true, move || {
        told.1.fetch_add(1, Ordering::Relaxed);
        told.0.load(Ordering::Relaxed)
    });
    let until = Instant::now() + Duration::from_secs(60);
    let wait_for = |what: &dyn Fn(&Database) -> bool| {
        while !what(&Database::open(&layout).unwrap()) {
            assert!(Instant::now() < until, "it never came");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_for(&|_| asked.load(Ordering::Relaxed) > 2);
    let database = Database::open(&layout).unwrap();
    assert_eq!((database.runs().unwrap(), database.runs_behind().unwrap()), (5, 5));
    lags.store(false, Ordering::Relaxed);
    wait_for(&|database| database.runs_behind().unwrap() == 0);
    drop(keeper);
}

#[test]
fn several_who_catch_up_at_once_lose_no_run() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (_dir, layout, mut writer) = store();
    rebuild(&layout, |_| {}).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let mut seen = 0;
                while !is_done.load(Ordering::Relaxed) {
                    // Another may be at it for longer than it is waited for.
                    let Ok(mut database) = Database::open(&layout) else { continue };
                    let _ = database.catch_up(MOMENT);
                    let now = database.runs().unwrap_or(seen);
                    assert!(now >= seen, "{seen} runs were there, and now {now} are");
                    seen = now;
                }
            });
        }
        (0..240).for_each(|nth| writer.create_run(&run(nth), &[]).unwrap());
        is_done.store(true, Ordering::Relaxed);
    });
    assert_eq!(listed(&layout, &Query::default()).len(), 240);
}

#[test]
fn half_a_line_is_taken_in_once_it_is_whole() {
    let (_dir, layout, mut writer) = store();
    writer.create_run(&run(0), &[]).unwrap();
    let mut log = std::fs::read(layout.index_log()).unwrap();
    writer.create_run(&run(1), &[]).unwrap();
    let whole = std::fs::read(layout.index_log()).unwrap();
    log.extend_from_slice(&whole[log.len()..log.len() + 100]);
    std::fs::write(layout.index_log(), &log).unwrap();
    let mut database = Database::open(&layout).unwrap();
    assert!(database.catch_up(Duration::ZERO).unwrap().is_whole);
    assert_eq!(database.runs().unwrap(), 1);
    std::fs::write(layout.index_log(), &whole).unwrap();
    assert!(database.catch_up(Duration::ZERO).unwrap().is_whole);
    assert_eq!(database.runs().unwrap(), 2);
}

#[test]
fn a_database_that_others_write_to_has_no_fault() {
    let (_dir, layout, mut writer) = store();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for nth in 0..400 {
                writer.create_run(&run(nth), &[]).unwrap();
                if nth > 10 {
                    let gone: crate::model::id::IdSet<RunId> = [run(nth - 10).run_id].into_iter().collect();
                    let folder = layout.find_run(run(nth - 10).run_id).unwrap().unwrap();
                    std::fs::remove_dir_all(folder).unwrap();
                    crate::store::files::index::blank(layout.fs(), &layout.index_log(), &gone, false).unwrap();
                }
            }
            is_over.store(true, std::sync::atomic::Ordering::Release);
        });
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Acquire) {
                // It may be busy.
                let _ = Database::open(&layout).and_then(|mut other| other.catch_up(CHECK_LIMIT));
            }
        });
        let mut looks = 0;
        while !is_over.load(std::sync::atomic::Ordering::Acquire) {
            let found = check(&layout);
            assert!(!matches!(found, Checked::Damaged(_)), "look {looks}: {found:?}");
            looks += 1;
        }
        assert!(looks > 3, "{looks} looks");
    });
}
