//! The recorder in trouble: it never harms its host, costs only what is broken, and counts what is lost.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use runspan::model::{RunStatus, RunSummary, StepStatus};
use runspan::store::assembly::RunState;
use runspan::store::{Listed, Query, RunReader};
use runspan::{Report, Run, Usage};
use tracing::{error_span, info, info_span};

use super::support::{
    WATCHDOG, child, ended, is_child, on_own_disk, only_run, open, outline, record_in, runs, said, steps, warnings,
};

/// An agent with some tool calls, each with a text of `bytes`.
fn agent(name: &str, tools: u64, bytes: usize) {
    let text = "x".repeat(bytes);
    let agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = name);
    let _in_agent = agent.enter();
    for _ in 0..tools {
        info_span!(
            "execute_tool",
            gen_ai.operation.name = "execute_tool",
            gen_ai.tool.name = "t",
            gen_ai.tool.call.arguments = text
        )
        .in_scope(|| {});
    }
}

fn accounted(report: &Report) -> u64 {
    report.stored + report.pending + report.dropped.values().sum::<u64>()
}

#[test]
fn a_store_of_a_newer_format_is_refused_and_the_program_runs() {
    const TEST: &str = "trouble::a_store_of_a_newer_format_is_refused_and_the_program_runs";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        agent("unrecorded", 3, 10);
        assert_eq!(guard.shutdown(WATCHDOG), Report::default());
        return;
    }
    let dir = crate::support::tempdir();
    fs::write(dir.path().join("store.yaml"), "format: 99\nfuture: [1]\n").unwrap();
    let said = said(child(TEST, dir.path()));
    let warned = warnings(&said);
    assert_eq!(warned.len(), 1, "{said}");
    assert!(warned[0].contains("format 99") && warned[0].contains("use a newer runspan"), "{said}");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["store.yaml"], "nothing is written");
}

#[test]
fn a_store_that_cannot_be_written_costs_the_recording_only() {
    const TEST: &str = "trouble::a_store_that_cannot_be_written_costs_the_recording_only";
    if is_child(TEST).is_some() {
        let guard = runspan::init();
        agent("unrecorded", 3, 10);
        assert_eq!(guard.shutdown(WATCHDOG), Report::default());
        return;
    }
    let dir = crate::support::tempdir();
    let file = dir.path().join("a-file");
    fs::write(&file, "in the way").unwrap();
    let store = file.join("store");
    let said = said(child(TEST, &store));
    assert_eq!(warnings(&said).len(), 1, "{said}");
    assert!(said.contains(store.to_str().unwrap()) && said.contains("not recorded"), "{said}");
}

#[test]
fn broken_settings_are_named_once_and_recording_goes_on() {
    const TEST: &str = "trouble::broken_settings_are_named_once_and_recording_goes_on";
    if is_child(TEST).is_some() {
        for _ in 0..2 {
            drop(runspan::builder());
        }
        let guard = runspan::init();
        agent("recorded", 1, 10);
        assert_eq!(guard.shutdown(WATCHDOG).stored, 2);
        return;
    }
    let dir = crate::support::tempdir();
    let mut command = child(TEST, &dir.path().join("s"));
    command.env("RUNSPAN_CONTENT", "everything").env("RUNSPAN_LOG", "shout");
    let said = said(command);
    assert_eq!(
        warnings(&said),
        [
            "runspan: RUNSPAN_LOG: \"shout\" is not one of error, warn, info, debug, trace; using info",
            "runspan: RUNSPAN_CONTENT: \"everything\" is not one of none, redacted, full; using redacted",
        ]
    );
}

#[test]
fn a_full_disk_costs_what_does_not_fit_and_is_counted() {
    const TEST: &str = "trouble::a_full_disk_costs_what_does_not_fit_and_is_counted";
    const TOOLS: u64 = 4000;
    if let Some(store) = is_child(TEST) {
        let (layer, guard) = runspan::builder().store(store).buffer_bytes(1 << 20).build().unwrap();
        use tracing_subscriber::layer::SubscriberExt;
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || agent("full", TOOLS, 2000));
        let report = guard.shutdown(WATCHDOG);
        assert_eq!(accounted(&report), TOOLS + 1, "{report:?}");
        assert!(report.stored < TOOLS && report.stored + report.pending > 0, "{report:?}");
        println!("the agent has finished");
        return;
    }
    let dir = crate::support::tempdir();
    let inner = child(TEST, &dir.path().join("s"));
    let command = on_own_disk(&inner, dir.path(), 2);
    let output = ended(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("the agent has finished"));
    let warned = warnings(&said);
    assert_eq!(warned.len(), 1, "{said}");
    assert!(warned.iter().all(|line| line.contains(dir.path().to_str().unwrap())), "{said}");
}

/// Removes a folder in which somebody may make a file at that very moment, so that it is not empty when it should be.
fn remove_under_way(dir: &Path) {
    let begun = std::time::Instant::now();
    while let Err(error) = fs::remove_dir_all(dir) {
        assert_eq!(error.kind(), std::io::ErrorKind::DirectoryNotEmpty, "{error}");
        assert!(begun.elapsed() < WATCHDOG, "somebody goes on making files in {}", dir.display());
    }
}

#[test]
fn a_store_removed_while_in_use_is_told_once_and_counted() {
    const TEST: &str = "trouble::a_store_removed_while_in_use_is_told_once_and_counted";
    if let Some(store) = is_child(TEST) {
        let report = record_in(&store, |guard| {
            agent("before", 5, 10);
            assert!(guard.flush(WATCHDOG));
            remove_under_way(&store);
            for n in 0..5 {
                agent(&format!("after-{n}"), 5, 10);
                guard.flush(WATCHDOG);
            }
        });
        assert_eq!(accounted(&report), 36, "{report:?}");
        assert_eq!(report.dropped.get("store_removed"), Some(&30), "{report:?}");
        assert!(!store.exists(), "what was removed on purpose stays away");
        return;
    }
    let dir = crate::support::tempdir();
    let store = dir.path().join("s");
    let said = said(child(TEST, &store));
    assert_eq!(warnings(&said).len(), 1, "{said}");
    assert!(said.contains(store.to_str().unwrap()), "{said}");
    // SAFETY: always succeeds and touches no memory.
    let rings = fs::read_dir(format!("/dev/shm/runspan-{}", unsafe { libc::geteuid() }));
    let names_store =
        |head: &[u8]| head.windows(store.as_os_str().len()).any(|part| part == store.as_os_str().as_bytes());
    let left = rings.into_iter().flatten().filter_map(|ring| {
        let mut head = vec![0; 4096];
        fs::File::open(ring.ok()?.path()).ok()?.read_exact(&mut head).ok().map(|()| head)
    });
    assert!(!left.into_iter().any(|head| names_store(&head)), "nobody would ever read its shared memory");
}

#[test]
fn what_does_not_fit_into_the_ring_is_dropped_and_counted_exactly() {
    let dir = crate::support::tempdir();
    let (layer, guard) = runspan::builder().store(dir.path()).buffer_bytes(64 << 10).build().unwrap();
    use tracing_subscriber::layer::SubscriberExt;
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || agent("flood", 3000, 3000));
    let report = guard.shutdown(WATCHDOG);
    assert_eq!(accounted(&report), 3001, "{report:?}");
    assert!(report.dropped.contains_key("queue_full"), "{report:?}");
    let run = only_run(dir.path());
    assert!(run.dropped > 0);
}

#[test]
fn every_record_that_a_full_ring_costs_is_counted_in_its_run() {
    use runspan::model::EventBody;
    use runspan::model::outcome::Outcome;
    use tracing_subscriber::layer::SubscriberExt;
    const LINES: u64 = 30_000;
    let dir = crate::support::tempdir();
    let (layer, guard) = runspan::builder().store(dir.path()).buffer_bytes(64 << 10).build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "flood");
        agent.in_scope(|| {
            assert!(guard.flush(WATCHDOG));
            (0..LINES).for_each(|n| info!(n, "line"));
            assert!(guard.flush(WATCHDOG));
        });
    });
    assert!(guard.flush(WATCHDOG));
    let counts = guard.outcomes();
    let report = guard.shutdown(WATCHDOG);
    assert_eq!((report.stored, report.pending, report.dropped.len()), (1, 0, 0));
    let run = only_run(dir.path());
    let events = open(dir.path()).get_events(run.run_id, 0).unwrap();
    let is_line = |event: &&runspan::model::Event| matches!(&event.body, EventBody::Log(log) if log.message == "line");
    let stored = events.iter().filter(is_line).count() as u64;
    assert_eq!(stored + run.dropped, LINES);
    assert!(run.dropped > 0 && stored > 0, "{stored} stored");
    assert_eq!((counts.received, counts.total(Outcome::Dropped)), (LINES + 2, run.dropped));
}

#[test]
fn however_much_is_said_of_a_step_its_end_and_its_counts_are_kept() {
    let dir = crate::support::tempdir();
    let large = "x".repeat(2 << 20);
    let (layer, guard) = runspan::builder().store(dir.path()).buffer_bytes(128 << 20).build().unwrap();
    use tracing_subscriber::layer::SubscriberExt;
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let run = runspan::Run::agent(&large).start();
        let call = run.llm("openai", &large);
        let answer = "y".repeat(40_000);
        for end in (0..answer.len()).step_by(100) {
            call.output(&answer[..end]);
        }
        call.output(&answer).input(&large).system_prompt(&large).finish_reason(&large).response_id(&large);
        call.usage(runspan::Usage::new(11, 22)).cost_usd(1.5);
        call.event("large", serde_json::json!([large, large]));
        call.fail(&std::io::Error::other(large.clone()));
        info_span!(
            "chat",
            gen_ai.operation.name = "chat",
            a = large,
            b = large,
            c = large,
            d = large,
            e = large,
            f = large,
            g = large,
            h = large,
            i = large,
            gen_ai.usage.input_tokens = 1,
            gen_ai.usage.output_tokens = 1
        )
        .in_scope(|| {
            info!(a = large, b = large, c = large, d = large, e = large, f = large, g = large, h = large, "x")
        });
        run.finish();
    });
    let report = guard.shutdown(WATCHDOG);
    assert_eq!((report.stored, report.dropped.len()), (3, 0), "{report:?}");
    let runs = runs(dir.path());
    let run = runs.iter().find(|run| run.cost_usd.is_some()).unwrap();
    assert_eq!((run.tokens.unwrap().total, run.dropped), (Some(33), 0));
    let call = steps(dir.path(), run.run_id).remove(1);
    assert_eq!(call.status, runspan::model::StepStatus::Error);
    assert!(call.output.unwrap().to_string().contains(&"y".repeat(40_000)));
    assert!(runs.iter().all(|run| run.tokens.is_some()));
}

#[test]
fn a_shutdown_without_time_tells_what_it_left() {
    let dir = crate::support::tempdir();
    let (layer, guard) = runspan::builder().store(dir.path()).build().unwrap();
    use tracing_subscriber::layer::SubscriberExt;
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || agent("hurried", 3000, 1000));
    let report = guard.shutdown(std::time::Duration::ZERO);
    assert!(report.pending > 0, "{report:?}");
    assert_eq!(accounted(&report), 3001, "{report:?}");
}

#[test]
fn a_busy_process_shows_its_runs() {
    use std::sync::atomic::{AtomicBool, Ordering};
    use tracing_subscriber::layer::SubscriberExt;
    let dir = crate::support::tempdir();
    let (layer, guard) = runspan::builder().store(dir.path()).build().unwrap();
    let subscriber = tracing_subscriber::registry().with(layer);
    let seen = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            // More than the worker can keep up with.
            tracing::subscriber::with_default(subscriber, || {
                while !seen.load(Ordering::Relaxed) {
                    agent("busy", 50, 1000);
                }
            });
        });
        crate::support::wait_until("a run shows", || !crate::support::runs(dir.path()).is_empty());
        seen.store(true, Ordering::Relaxed);
    });
    drop(guard);
}

#[test]
fn exit_without_the_guard_loses_nothing() {
    const TEST: &str = "trouble::exit_without_the_guard_loses_nothing";
    if is_child(TEST).is_some() {
        std::mem::forget(runspan::init());
        agent("gone", 200, 100);
        std::process::exit(0);
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
    let run = only_run(dir.path());
    assert_eq!((run.status, run.steps_total, run.dropped), (RunStatus::Success, 201, 0));
}

#[test]
fn a_panic_inside_a_run_ends_it_as_error() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let caught = std::panic::catch_unwind(|| {
            let agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "p");
            let _in_agent = agent.enter();
            panic!("on purpose");
        });
        assert!(caught.is_err());
    });
    let run = only_run(dir.path());
    assert_eq!(run.status, RunStatus::Error);
    assert_eq!(run.error.unwrap().kind.as_deref(), Some("panic"));
}

/// Its own code panics wherever it is printed.
struct Bomb;

impl std::fmt::Debug for Bomb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a bo")?;
        std::panic::resume_unwind(Box::new("on purpose"))
    }
}

impl std::fmt::Display for Bomb {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::panic::resume_unwind(Box::new("on purpose"))
    }
}

impl std::error::Error for Bomb {}

impl serde::Serialize for Bomb {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        std::panic::resume_unwind(Box::new("on purpose"))
    }
}

#[test]
fn a_value_that_panics_when_it_is_printed_costs_its_text_and_nothing_else() {
    let dir = crate::support::tempdir();
    let bomb: &(dyn std::error::Error + 'static) = &Bomb;
    record_in(dir.path(), |_| {
        let run = runspan::Run::agent("a").session(Bomb).start();
        run.in_scope(|| {
            let given = info_span!(
                "given",
                gen_ai.operation.name = "execute_tool",
                gen_ai.tool.name = "given",
                gen_ai.tool.call.arguments = ?Bomb,
                gen_ai.tool.call.result = tracing::field::Empty
            );
            given.record("gen_ai.tool.call.result", tracing::field::debug(Bomb));
            given.in_scope(|| tracing::info!(said = ?Bomb, "an event"));
            drop(given);
            tracing::error!(error = bomb, "told as an error");
        });
        let tool = run.tool("t");
        tool.input(Bomb).output(Bomb).event("e", Bomb);
        tool.fail(&Bomb);
        run.finish();
    });
    let run = only_run(dir.path());
    assert_eq!((run.status, run.steps_total), (RunStatus::Success, 3));
    let steps = steps(dir.path(), run.run_id);
    let named = |name: &str| steps.iter().find(|step| step.name.ends_with(name)).unwrap();
    let given = named("given");
    let printed = Some(serde_json::json!("a bo[panicked]"));
    assert_eq!((&given.input, &given.output), (&printed, &printed));
    assert_eq!(run.session_id.as_deref(), Some("[panicked]"));
    let tool = named(" t");
    let mark = Some(serde_json::json!("[panicked]"));
    assert_eq!((&tool.input, &tool.output), (&mark, &mark));
    assert_eq!(tool.error.as_ref().unwrap().message.as_deref(), Some("[panicked]"));
}

#[test]
fn a_forked_child_records_nothing_and_harms_nothing() {
    const TEST: &str = "trouble::a_forked_child_records_nothing_and_harms_nothing";
    if let Some(store) = is_child(TEST) {
        let report = record_in(&store, |_| {
            agent("before", 1, 10);
            // SAFETY: the child only makes spans and leaves by `_exit`.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                agent("forked", 5, 10);
                // SAFETY: ends the child without running the parent's exit handlers.
                unsafe { libc::_exit(0) };
            }
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert_eq!(status, 0);
            // Runs of one millisecond have no order.
            std::thread::sleep(std::time::Duration::from_millis(2));
            agent("after", 1, 10);
        });
        assert_eq!((report.stored, report.dropped.len()), (4, 0));
        return;
    }
    let dir = crate::support::tempdir();
    said(child(TEST, dir.path()));
    let names: Vec<_> = runs(dir.path()).into_iter().filter_map(|run| run.agent_id).collect();
    assert_eq!(names, ["after", "before"]);
}

/// Prints itself by making spans, as a value in a field may.
struct Talkative;

impl std::fmt::Debug for Talkative {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        info_span!("inside debug", deep = ?1).in_scope(|| info!(value = ?2, "in debug"));
        f.write_str("talkative")
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        info_span!("inside drop").in_scope(|| info!("in drop"));
    }
}

#[test]
fn spans_in_debug_in_drop_and_across_threads_neither_hang_nor_get_lost() {
    let dir = crate::support::tempdir();
    let report = record_in(dir.path(), |_| {
        let agent = info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "odd");
        let _in_agent = agent.enter();
        let late = info_span!("late", value = tracing::field::Empty);
        late.record("value", tracing::field::debug(Talkative));
        late.in_scope(|| info!(value = ?Talkative, "event"));
        let crossed = error_span!("crossed");
        let entered = crossed.clone();
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        std::thread::spawn(move || {
            tracing::dispatcher::with_default(&dispatch, || entered.in_scope(|| drop(entered.clone())))
        })
        .join()
        .unwrap();
        drop(crossed);
    });
    // `tracing` itself hears nothing of a span made while it hands out an event, so that one is not there.
    assert_eq!((report.stored, report.dropped.len(), report.pending), (6, 0, 0), "{report:?}");
    let run = only_run(dir.path());
    let mut lines = outline(&steps(dir.path(), run.run_id));
    lines.sort();
    assert_eq!(
        lines,
        [
            "    inside-drop-2 task success",
            "  crossed task success",
            "  inside-debug task success",
            "  inside-drop task success",
            "  late task success",
            "odd agent success",
        ]
    );
}

fn damage(store: &Path, run: &str, file: &str, content: &[u8]) {
    fs::write(store.join("agents").join(run).join(file), content).unwrap();
}

#[test]
fn a_damaged_run_is_listed_as_damaged_and_costs_no_other() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| (0..8).for_each(|n| agent(&format!("a{n}"), 1, 10)));
    let all = runs(dir.path());
    let bomb = format!("a: &a {}\nrun_id: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(20_000));
    let deep = "[".repeat(200_000);
    let hostile: [&[u8]; 6] =
        [bomb.as_bytes(), deep.as_bytes(), b"", b"\xff\xfe", b"format: 1\n", b"format: 99\nrun_id: x\n"];
    for (run, content) in all.iter().zip(hostile) {
        damage(dir.path(), &run.run_id.to_string(), "run.yaml", content);
    }
    // A link where a run's folder should be leads nowhere.
    let foreign = dir.path().join("agents").join("01KE9BZH80BGEY5ABZ7D0DHDQ1");
    std::os::unix::fs::symlink("/etc", &foreign).unwrap();
    let store = open(dir.path());
    let listed = store.list_runs(&Query::default()).unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = listed.iter().partition(|listed| matches!(listed, Listed::Run(_)));
    assert_eq!((good.len(), bad.len()), (2, 6));
    for run in &all[..6] {
        assert!(store.get_run(run.run_id).unwrap_err().is_negative_answer());
    }
    assert!(store.get_run(all[7].run_id).is_ok());
    assert!(store.get_run("01KE9BZH80BGEY5ABZ7D0DHDQ1".parse().unwrap()).is_err());
}

/// A text of what takes most room when it is written as YAML or JSON.
fn hostile(begin: &str, bytes: usize) -> String {
    format!("{begin}{}", "\u{1}\u{9b}\u{2028}\"\\\r\n".repeat(bytes / 10))
}

#[test]
fn a_run_of_hostile_names_is_listed_and_its_summary_stays_small() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |guard| {
        let flush = || assert!(guard.flush(WATCHDOG));
        let mut run = Run::workflow(hostile("name", 1_000_000))
            .session(hostile("session", 1_000_000))
            .user(hostile("user", 1_000_000));
        for n in 0..100 {
            run = run.tag(hostile(&n.to_string(), 2_000)).tag(format!("tag {n}"));
        }
        let run = run.start();
        for n in 0..100 {
            let call = run.llm(&hostile("provider", 10_000), &hostile(&n.to_string(), 10_000));
            call.usage(Usage::new(1, 1));
            call.finish();
            run.agent(&hostile("agent", 10_000)).finish();
            // All of it at once is more than shared memory holds.
            if n % 20 == 0 {
                flush();
            }
        }
        for n in 0..300 {
            let name = hostile(&n.to_string(), 10_000);
            info!(parent: &run.span(), event.name = "runspan.artifact", name, media_type = name, bytes = 1, sha256 = name);
            if n % 20 == 0 {
                flush();
            }
        }
        run.in_scope(|| info_span!("job", runspan.external.id = hostile("job", 1_000_000)).in_scope(|| {}));
        flush();
        run.fail(&std::io::Error::other(hostile("message", 1_000_000)));
    });
    let run = only_run(dir.path());
    let cut = |text: &str| text.len() <= 1024 && text.contains("[cut:") && text.ends_with(']');
    let one = [run.workflow_id, run.session_id, run.user_id, run.external_id, run.provider, run.model];
    assert!(one.iter().all(|text| cut(text.as_deref().unwrap())), "{one:?}");
    assert_eq!((run.tags.len(), run.models.len(), run.artifacts.len()), (64, 64, 200));
    assert_eq!((cut(&run.tags[0]), run.tags[1].as_str()), (true, "tag 0"));
    assert!(run.models.iter().all(|model| cut(model)));
    assert!(run.artifacts.iter().all(|file| cut(&file.name) && cut(&file.sha256)));
    // The totals know all of them.
    assert_eq!((run.artifacts_total, run.llm_calls, run.tokens.unwrap().total), (Some(300), 100, Some(200)));
    assert!((4000..=4096).contains(&run.error.unwrap().message.unwrap().len()));

    let reader = open(dir.path());
    // The same whether it is read from `run.yaml` or made of the log again.
    let read = reader.get_run(run.run_id).unwrap();
    let log = reader.get_events(run.run_id, 0).unwrap();
    let again = RunState::read(run.run_id, &log).summary(read.updated_at);
    let as_written = |summary: &RunSummary| serde_json::to_value(summary).unwrap();
    assert!(as_written(&again) == as_written(&RunSummary { writer: None, events_sha256: None, ..read }));
    let folder = dir.path().join("workflows").join(run.run_id.to_string());
    let yaml = fs::metadata(folder.join("run.yaml")).unwrap().len();
    assert!(yaml < 2 << 20, "{yaml} bytes");
    let index = fs::read(dir.path().join("index.log")).unwrap();
    let longest = index.split(|byte| *byte == b'\n').map(<[u8]>::len).max().unwrap();
    assert!(longest < 2 << 20, "{longest} bytes");
}

#[test]
fn a_damaged_run_that_is_named_again_costs_no_other() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| agent("damaged", 1, 10));
    let damaged = only_run(dir.path()).run_id;
    damage(dir.path(), &damaged.to_string(), "events.jsonl", b"#\n");
    let report = record_in(dir.path(), |_| {
        agent("before", 1, 10);
        let name = damaged.to_string();
        info_span!(
            "invoke_agent",
            gen_ai.operation.name = "invoke_agent",
            gen_ai.agent.name = "again",
            runspan.run.id = name
        )
        .in_scope(|| {});
        agent("after", 1, 10);
    });
    assert_eq!((report.stored, report.pending, report.dropped.len()), (5, 0, 0), "{report:?}");
    assert_eq!(fs::read(dir.path().join("agents").join(damaged.to_string()).join("events.jsonl")).unwrap(), b"#\n");
    let again = runs(dir.path()).into_iter().find(|run| run.name() == "again").unwrap();
    assert_eq!(again.parent_run_id, Some(damaged));
}

#[test]
fn a_damaged_run_of_a_dead_process_costs_no_other() {
    const TEST: &str = "trouble::a_damaged_run_of_a_dead_process_costs_no_other";
    if let Some(store) = is_child(TEST) {
        record_in(&store, |guard| {
            let open = |name: &str| {
                info_span!(
                    parent: None,
                    "invoke_agent",
                    gen_ai.operation.name = "invoke_agent",
                    gen_ai.agent.name = name
                )
            };
            let (bad, good) = (open("bad"), open("good"));
            bad.in_scope(|| agent("below", 1, 10));
            good.in_scope(|| agent("below", 1, 10));
            assert!(guard.flush(WATCHDOG));
            good.in_scope(|| agent("below", 1, 10));
            crate::support::signal(std::process::id(), libc::SIGKILL);
        });
        return;
    }
    let dir = crate::support::tempdir();
    ended(child(TEST, dir.path()));
    let bad = fs::read_dir(dir.path().join("agents")).unwrap().map(|entry| entry.unwrap().path());
    let bad = bad.into_iter().find(|run| fs::read_to_string(run.join("run.yaml")).unwrap().contains("bad")).unwrap();
    let bad: runspan::model::RunId = bad.file_name().unwrap().to_str().unwrap().parse().unwrap();
    damage(dir.path(), &bad.to_string(), "events.jsonl", b"#\n");
    let listed = open(dir.path()).list_runs(&Query::default()).unwrap();
    let damaged = listed.iter().any(|run| matches!(run, Listed::Damaged(run) if run.run_id == bad));
    let good = listed.iter().find_map(|run| match run {
        Listed::Run(run) if run.summary.name() == "good" => Some((run.summary.status, run.summary.steps_total)),
        _ => None,
    });
    assert_eq!((damaged, good), (true, Some((RunStatus::Crashed, 5))), "{listed:#?}");
    assert!(fs::read_dir(dir.path().join("journal")).unwrap().next().is_none());
}

#[test]
fn a_torn_last_line_is_dropped_and_a_missing_or_damaged_one_is_named() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| agent("a", 1, 10));
    let run = only_run(dir.path());
    let path = dir.path().join("agents").join(run.run_id.to_string()).join("events.jsonl");
    let whole = fs::read(&path).unwrap();
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    fs::write(&path, &whole[..whole.len() - 7]).unwrap();
    let store = open(dir.path());
    // Its metadata vouch for the line.
    let error = store.get_events(run.run_id, 0).unwrap_err().to_string();
    assert!(error.contains(&format!("events.jsonl ends after {} of {lines} lines", lines - 1)), "{error}");
    // Where nothing vouches for it, nobody knows whether it was ever whole.
    let metadata = path.with_file_name("run.yaml");
    let yaml = fs::read_to_string(&metadata).unwrap();
    fs::write(&metadata, yaml.replace(&format!("events: {lines}"), &format!("events: {}", lines - 1))).unwrap();
    assert_eq!(store.get_events(run.run_id, 0).unwrap().len(), lines - 1);
    fs::write(&metadata, yaml).unwrap();
    let mut broken = whole.clone();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    broken[second] = b'#';
    fs::write(&path, &broken).unwrap();
    let error = store.get_events(run.run_id, 0).unwrap_err().to_string();
    assert!(error.contains("events.jsonl line 2"), "{error}");
}

#[test]
fn a_secret_never_reaches_the_store() {
    let dir = crate::support::tempdir();
    let secret = format!("sk-proj-{}", "a1B2c3D4e5F6g7H8".repeat(4));
    record_in(dir.path(), |_| {
        let agent =
            info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "a", note = %secret);
        agent.in_scope(|| info!(key = %secret, "told {secret}"));
    });
    let run = only_run(dir.path());
    assert_eq!(steps(dir.path(), run.run_id)[0].status, StepStatus::Success);
    // Two files at the least are read: the run's log and its metadata.
    let mut read = 0;
    fn search(dir: &Path, secret: &[u8], read: &mut usize) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.append(&mut search(&path, secret, read));
                continue;
            }
            match fs::read(&path) {
                Ok(bytes) if bytes.windows(secret.len()).any(|part| part == secret) => found.push(path),
                Ok(_) => *read += 1,
                // The index is worked on behind its reader, and takes its own files away.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
        found
    }
    assert_eq!(search(dir.path(), secret.as_bytes(), &mut read), Vec::<std::path::PathBuf>::new());
    assert!(read >= 2, "{read} files were read");
}

#[test]
fn every_record_has_an_outcome_and_plain_traces_are_not_kept() {
    let dir = crate::support::tempdir();
    let mut counts = None;
    let report = record_in(dir.path(), |guard| {
        // A plain trace with nothing of an agent in it, one with an agent far below, and a lone agent.
        info_span!("handler").in_scope(|| info_span!("query").in_scope(|| info!("no agent here")));
        info_span!("handler").in_scope(|| {
            info_span!("query").in_scope(|| {});
            info_span!("job").in_scope(|| agent("deep", 2, 10));
        });
        // Lists go by the millisecond of the start.
        std::thread::sleep(std::time::Duration::from_millis(2));
        agent("lone", 1, 10);
        assert!(guard.flush(WATCHDOG));
        counts = Some(guard.outcomes());
    });
    use runspan::model::outcome::Outcome;
    let counts = counts.unwrap();
    // Two records a span, and one an event.
    assert_eq!(counts.received, 5 + 12 + 4);
    assert_eq!(counts.total(Outcome::NotKept), 5);
    assert_eq!(counts.total(Outcome::Stored), 16);
    assert_eq!(report.stored, 8);
    let mut runs = runs(dir.path());
    // Both may have begun within one millisecond, which is as fine as a list is sorted.
    runs.sort_by_key(|run| run.name().to_owned());
    let names: Vec<&str> = runs.iter().map(runspan::model::RunSummary::name).collect();
    assert_eq!(names, ["handler", "lone"]);
    assert_eq!(
        outline(&steps(dir.path(), runs[0].run_id)),
        [
            "handler task success",
            "  query task success",
            "  job task success",
            "    deep agent success",
            "      t tool success",
            "      t-2 tool success",
        ]
    );
}

#[cfg(feature = "forward")]
#[test]
fn an_upstream_that_is_down_costs_itself_its_oldest_spans_and_the_store_nothing() {
    const TEST: &str = "trouble::an_upstream_that_is_down_costs_itself_its_oldest_spans_and_the_store_nothing";
    const TOOLS: u64 = 4000;
    if let Some(store) = is_child(TEST) {
        use tracing_subscriber::layer::SubscriberExt;
        let port = crate::forward::free_address().port();
        let builder =
            runspan::builder().store(store).journal_bytes(4 << 20).forward(format!("http://127.0.0.1:{port}"));
        let (layer, guard) = builder.build().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for n in 0..8 {
                agent(&format!("a{n}"), TOOLS / 8, 2000);
                guard.flush(WATCHDOG);
            }
        });
        let report = guard.shutdown(std::time::Duration::from_secs(2));
        assert_eq!((report.stored, report.exported), (TOOLS + 8, 0), "{report:?}");
        assert!(report.pending > 0, "what is still in the journal waits for the upstream: {report:?}");
        assert_eq!(report.pending + report.dropped["upstream_behind"], TOOLS + 8, "{report:?}");
        return;
    }
    let dir = crate::support::tempdir();
    let said = said(child(TEST, dir.path()));
    assert!(said.contains("the journal in") && said.contains("runs are stored all the same"), "{said}");
    assert_eq!(runs(dir.path()).iter().map(|run| run.steps_total).sum::<u64>(), TOOLS + 8);
    let journal: u64 = fs::read_dir(dir.path().join("journal"))
        .unwrap()
        .flat_map(|process| fs::read_dir(process.unwrap().path()).unwrap())
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(journal <= 4 << 20, "{journal}");
}
