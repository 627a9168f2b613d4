//! Runs and steps made by hand.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use runspan::model::{EventBody, RunId, RunStatus};
use runspan::store::RunReader;
use runspan::{Run, Step, Usage, propagation};
use serde_json::json;
use tracing::Instrument;

use crate::support::{only_run, open, outline, record_in, runs, steps, told};

/// Runs a future to its end on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}

/// Is pending once, then continues.
pub async fn pause() {
    let mut asked = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut asked, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Fills a step in and ends it well.
fn done(step: Step, fill: impl FnOnce(&Step)) {
    fill(&step);
    step.finish();
}

#[test]
fn a_run_by_hand_is_stored_whole() {
    let dir = crate::support::tempdir();
    let mut id = None;
    record_in(dir.path(), |_| {
        let run = Run::agent("reviewer").session("chat-1").user("u-7").tag("a").tag("b").input("Review this.").start();
        id = run.id();
        let call = run.llm("openai", "gpt-4o");
        call.system_prompt("Be brief.").input("Review this.").output("Fine.");
        call.usage(Usage::new(1000, 20).cache_read(100).reasoning(5)).cost_usd(0.25);
        call.response_id("resp-1").response_model("gpt-4o-2024-08-06").finish_reason("stop");
        call.finish();
        done(run.tool("read_file"), |tool| {
            tool.call_id("call-1").input(json!({"path": "a.rs"})).output(["line"]);
        });
        done(run.retrieval("wiki"), |look| {
            look.input("rings").output(json!([{"id": "d1"}]));
        });
        done(run.embedding("openai", "text-embedding-3-small"), |call| {
            call.usage(Usage { input_tokens: Some(7), ..Usage::default() }).cost_usd(0.5);
        });
        done(run.guardrail("pii"), |check| {
            check.input("x").output(true);
        });
        done(run.evaluator("judge"), |judge| {
            judge.output(3);
        });
        done(run.agent("helper"), |helper| done(helper.task("plan"), |_| {}));
        run.output(json!({"verdict": "ok"}));
        run.finish();
    });
    let run = only_run(dir.path());
    assert_eq!(Some(run.run_id), id);
    assert_eq!(run.trace_id, run.run_id.as_trace_id());
    assert_eq!(
        (run.name(), run.session_id.as_deref(), run.user_id.as_deref(), run.tags.join(",")),
        ("reviewer", Some("chat-1"), Some("u-7"), "a,b".to_owned())
    );
    assert_eq!((run.status, run.steps_total, run.llm_calls, run.tool_calls), (RunStatus::Success, 9, 1, 1));
    assert_eq!(run.cost_usd.map(|cost| cost.to_string()).as_deref(), Some("0.75"));
    assert_eq!(
        told(dir.path(), run.run_id),
        [
            r#"reviewer < - {"kind":"agent","name":"invoke_agent reviewer","agent_id":"reviewer","status":"success","input":"Review this.","output":{"verdict":"ok"}}"#,
            r#"chat < reviewer {"kind":"llm","name":"chat gpt-4o","agent_id":"reviewer","status":"success","provider":"openai","model":"gpt-4o-2024-08-06","tokens":{"prompt":1000,"completion":20,"total":1020,"cache_read":100,"reasoning":5},"cost_usd":0.25,"cost_source":"reported","input":[{"role":"user","parts":[{"type":"text","content":"Review this."}]}],"output":[{"role":"assistant","parts":[{"type":"text","content":"Fine."}]}]}"#,
            r#"read_file < reviewer {"kind":"tool","name":"execute_tool read_file","agent_id":"reviewer","status":"success","input":{"path":"a.rs"},"output":["line"]}"#,
            r#"retrieval-wiki < reviewer {"kind":"retrieval","name":"retrieval wiki","agent_id":"reviewer","status":"success","input":"rings","output":[{"id":"d1"}]}"#,
            r#"embeddings < reviewer {"kind":"embedding","name":"embeddings text-embedding-3-small","agent_id":"reviewer","status":"success","provider":"openai","model":"text-embedding-3-small","tokens":{"prompt":7,"total":7},"cost_usd":0.5,"cost_source":"reported"}"#,
            r#"pii < reviewer {"kind":"guardrail","name":"pii","agent_id":"reviewer","status":"success","input":"x","output":true}"#,
            r#"judge < reviewer {"kind":"evaluator","name":"judge","agent_id":"reviewer","status":"success","output":3}"#,
            r#"helper < reviewer {"kind":"agent","name":"invoke_agent helper","agent_id":"helper","status":"success"}"#,
            r#"plan < helper {"kind":"task","name":"plan","agent_id":"helper","status":"success"}"#,
        ]
    );
}

#[test]
fn what_is_billed_apart_can_be_told_by_hand() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("reviewer").start();
        done(run.llm("anthropic", "claude-haiku-4-5"), |call| {
            call.usage(Usage::new(1_000, 10).cache_write(300)).cache_write_1h(200);
        });
        done(run.llm("gcp.gemini", "gemini-2.5-flash"), |call| {
            call.usage(Usage::new(1_000, 10)).audio(800, 0);
        });
        run.finish();
    });
    let run = only_run(dir.path());
    let costs: Vec<_> = steps(dir.path(), run.run_id).iter().filter_map(|step| Some(step.cost_usd?.0)).collect();
    let anthropic = 700 * 1_000 + 100 * 1_250 + 200 * 2_000 + 10 * 5_000;
    assert_eq!(costs, [anthropic, 200 * 300 + 800 * 1_000 + 10 * 2_500]);
}

#[test]
fn events_scores_and_artifacts_are_lines_of_the_log() {
    let dir = crate::support::tempdir();
    let file = dir.path().join("plan.txt");
    std::fs::write(&file, "a plan").unwrap();
    let store = dir.path().join("store");
    record_in(&store, |_| {
        let run = Run::workflow("publish").start();
        let kept = run.artifact(&file, "../plan.txt", "text/plain").unwrap();
        assert_eq!((kept.name.as_str(), kept.bytes), ("plan.txt", 6));
        assert_eq!(run.artifact(b"more", "plan.txt", "").unwrap().name, "plan-2.txt");
        assert_eq!(run.artifact(dir.path(), "a folder", ""), None);
        done(run.task("check"), |step| {
            step.event("cache_hit", json!({"key": "k", "n": 1})).score("helpful", 0.75);
            step.label("tone", "kind", Some("said please"));
        });
        run.finish();
    });
    let run = only_run(&store);
    assert_eq!(run.artifacts.iter().map(|kept| kept.name.as_str()).collect::<Vec<_>>(), ["plan.txt", "plan-2.txt"]);
    let kept = store.join("workflows").join(run.run_id.to_string()).join("artifacts/plan.txt");
    assert_eq!(std::fs::read_to_string(kept).unwrap(), "a plan");
    let said: Vec<String> = open(&store)
        .get_events(run.run_id, 0)
        .unwrap()
        .into_iter()
        .filter(|event| matches!(event.body, EventBody::Log(_) | EventBody::Score(_) | EventBody::Artifact(_)))
        .map(|event| {
            let line = serde_json::to_value(&event).unwrap();
            format!("{} {} {}", line["step_id"], line["type"], line["data"])
        })
        .collect();
    assert_eq!(
        said,
        [
            r#"null "artifact" {"name":"plan.txt","media_type":"text/plain","bytes":6,"sha256":"a27fa2bacd5796b82680016a6b8865a616a9e4f6b6a198d3776ddc07536e3158"}"#,
            r#"null "artifact" {"name":"plan-2.txt","media_type":null,"bytes":4,"sha256":"187897ce0afcf20b50ba2b37dca84a951b7046f29ed5ab94f010619f69d6e189"}"#,
            r#""check" "log" {"level":"INFO","message":"cache_hit","fields":{"key":"k","n":1}}"#,
            r#""check" "score" {"name":"helpful","value":0.75,"label":null,"explanation":null}"#,
            r#""check" "score" {"name":"tone","value":null,"label":"kind","explanation":"said please"}"#,
        ]
    );
}

#[test]
fn how_a_step_ended_is_told() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let run = Run::agent("a").start();
        run.tool("parse").fail(&"x".parse::<i32>().unwrap_err());
        run.tool("read").fail(&std::io::Error::new(std::io::ErrorKind::TimedOut, "too slow"));
        let boxed: Box<dyn std::error::Error> = "erased".into();
        run.tool("box").fail(&*boxed);
        drop(run.tool("dropped"));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _step = run.tool("panicked");
            std::panic::resume_unwind(Box::new("on purpose"));
        }));
        assert!(panicked.is_err());
        run.tool("good").finish();
        run.fail(&std::fmt::Error);
    });
    let run = only_run(dir.path());
    assert_eq!(run.status, RunStatus::Error);
    assert_eq!(
        told(dir.path(), run.run_id),
        [
            r#"a < - {"kind":"agent","name":"invoke_agent a","agent_id":"a","status":"error","error":{"type":"fmt::Error","message":"an error occurred when formatting an argument"}}"#,
            r#"parse < a {"kind":"tool","name":"execute_tool parse","agent_id":"a","status":"error","error":{"type":"ParseIntError","message":"invalid digit found in string"}}"#,
            r#"read < a {"kind":"tool","name":"execute_tool read","agent_id":"a","status":"error","error":{"type":"io::Error","message":"too slow"}}"#,
            r#"box < a {"kind":"tool","name":"execute_tool box","agent_id":"a","status":"error","error":{"type":"_OTHER","message":"erased"}}"#,
            r#"dropped < a {"kind":"tool","name":"execute_tool dropped","agent_id":"a","status":"cancelled"}"#,
            r#"panicked < a {"kind":"tool","name":"execute_tool panicked","agent_id":"a","status":"error","error":{"type":"panic","message":"panicked"}}"#,
            r#"good < a {"kind":"tool","name":"execute_tool good","agent_id":"a","status":"success"}"#,
        ]
    );
}

#[test]
fn a_run_ends_as_it_was_left() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        drop(Run::agent("dropped").start());
        let panicked = catch_unwind(|| {
            let run = Run::agent("panicked").start();
            run.in_scope(|| std::panic::resume_unwind(Box::new("on purpose")))
        });
        assert!(panicked.is_err());
        Run::agent("finished").start().finish();
    });
    let mut ends: Vec<_> = runs(dir.path()).iter().map(|run| format!("{} {}", run.name(), run.status)).collect();
    ends.sort();
    assert_eq!(ends, ["dropped cancelled", "finished success", "panicked error"]);
}

#[test]
fn what_has_ended_is_over_though_its_span_is_still_held() {
    let dir = crate::support::tempdir();
    let mut held = Vec::new();
    let report = record_in(dir.path(), |_| {
        let run = Run::agent("entered").start();
        let span = run.span();
        held.push(span.clone());
        let _in = span.enter();
        run.llm("openai", "gpt-4o").finish();
        run.output("done");
        run.finish();

        let run = Run::agent("failed").start();
        held.push(run.span());
        let step = run.tool("read");
        held.push(step.span());
        step.fail(&std::fmt::Error);
        run.fail(&std::fmt::Error);

        let run = Run::agent("dropped").start();
        held.push(run.span());
        drop(run);

        let run = Run::agent("outlived").start();
        let mut future = Box::pin(
            async {
                pause().await;
                // What is said of a step that has ended is not heard; what is below it is heard.
                runspan::current().output("late").event("late", json!({}));
                runspan::current().usage(Usage::new(1, 1));
                tracing::info_span!("late").in_scope(|| {});
            }
            .instrument(run.span()),
        );
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let child = run.task("child");
        run.finish();
        child.finish();
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
    assert_eq!((report.stored, report.dropped.len(), report.pending), (8, 0, 0));
    let told = || -> Vec<Vec<String>> {
        let mut runs = runs(dir.path());
        runs.sort_by_key(|run| run.name().to_owned());
        let outline = |run: &runspan::model::RunSummary| {
            let steps = outline(&steps(dir.path(), run.run_id));
            [format!("{} {}", run.status, run.events)].into_iter().chain(steps).collect()
        };
        runs.iter().map(outline).collect()
    };
    let before = told();
    assert_eq!(
        before,
        [
            vec!["cancelled 4", "dropped agent cancelled"],
            vec!["success 7", "entered agent success", "  chat llm success"],
            vec!["error 6", "failed agent error", "  read tool error"],
            vec!["success 8", "outlived agent success", "  child task success", "  late task success"],
        ]
    );
    drop(held);
    assert_eq!(told(), before);
}

#[test]
fn a_run_inside_another_is_its_own_and_names_its_parent() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let outer = Run::workflow("outer").start();
        outer.in_scope(|| {
            let inner = Run::agent("inner").start();
            inner.in_scope(|| {
                // Inside the inner run, but asked of the outer one.
                outer.task("of-outer").finish();
                inner.task("of-inner").finish();
            });
            inner.finish();
        });
        outer.finish();
    });
    let runs = runs(dir.path());
    let named = |name: &str| runs.iter().find(|run| run.name() == name).unwrap();
    let (outer, inner) = (named("outer"), named("inner"));
    assert_eq!((runs.len(), inner.parent_run_id, outer.parent_run_id), (2, Some(outer.run_id), None));
    assert_eq!((inner.trace_id, outer.trace_id), (outer.run_id.as_trace_id(), outer.run_id.as_trace_id()));
    assert_eq!((inner.status, outer.status), (RunStatus::Success, RunStatus::Success), "both are over");
    assert_eq!(outline(&steps(dir.path(), outer.run_id)), ["outer workflow success", "  of-outer task success"]);
    assert_eq!(outline(&steps(dir.path(), inner.run_id)), ["inner agent success", "  of-inner task success"]);
}

#[test]
fn a_run_under_another_process_stays_in_its_trace() {
    let dir = crate::support::tempdir();
    let parent: RunId = "01KE9BZH80BGEY5ABZ7D0DHDQ1".parse().unwrap();
    record_in(dir.path(), |_| {
        let remote = propagation::extract(|name| match name {
            "traceparent" => Some("00-019b92bfc5005c1de2a97f3b40d8b6e1-0102030405060708-01"),
            "baggage" => Some("runspan.run.id=01KE9BZH80BGEY5ABZ7D0DHDQ1"),
            _ => None,
        });
        Run::agent("worker").parent(remote.unwrap()).start().finish();
    });
    let run = only_run(dir.path());
    assert_eq!((run.parent_run_id, run.trace_id, run.run_id == parent), (Some(parent), parent.as_trace_id(), false));
    let root = steps(dir.path(), run.run_id).remove(0);
    assert_eq!(root.parent_span_id.map(|span| span.to_string()).as_deref(), Some("0102030405060708"));
}

#[test]
fn steps_are_below_the_current_span_of_their_run_only() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let request = tracing::info_span!("request");
        let _in_request = request.enter();
        let run = Run::agent("a").start();
        // Not entered: below the run all the same, not below the request.
        run.tool("direct").finish();
        let step = run.agent("helper");
        run.in_scope(|| {
            // The run is current, but the step was asked.
            step.tool("of-helper").finish();
            step.in_scope(|| tracing::info_span!("plain").in_scope(|| run.tool("of-plain").finish()));
        });
        step.finish();
        run.finish();
    });
    let run = runs(dir.path()).into_iter().find(|run| run.name() == "a").unwrap();
    assert_eq!(
        outline(&steps(dir.path(), run.run_id)),
        [
            "a agent success",
            "  direct tool success",
            "  helper agent success",
            "    of-helper tool success",
            "    plain task success",
            "      of-plain tool success",
        ]
    );
}

#[test]
fn a_run_goes_across_awaits_threads_and_tasks() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let run = Arc::new(Run::agent("a").start());
        // Two tasks take turns on one thread; each step is current only while its own task runs.
        let task = |name: &'static str| {
            let run = Arc::clone(&run);
            let step = run.agent(name);
            let span = step.span();
            async move {
                pause().await;
                run.tool("inside").finish();
                pause().await;
                step.finish();
            }
            .instrument(span)
        };
        let tasks: Vec<Pin<Box<dyn Future<Output = ()> + Send>>> = vec![Box::pin(task("one")), Box::pin(task("two"))];
        block_on(join(tasks).instrument(run.span()));
        // A pool of threads, none of which has entered the run.
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let queue = Arc::new(std::sync::Mutex::new(queue));
        let pool: Vec<_> = (0..3)
            .map(|_| {
                let (queue, dispatch) = (Arc::clone(&queue), dispatch.clone());
                std::thread::spawn(move || {
                    tracing::dispatcher::with_default(&dispatch, || {
                        loop {
                            let job = queue.lock().unwrap().recv();
                            match job {
                                Ok(job) => job(),
                                Err(_) => break,
                            }
                        }
                    });
                })
            })
            .collect();
        for _ in 0..20 {
            let run = Arc::clone(&run);
            jobs.send(Box::new(move || run.tool("pooled").finish())).unwrap();
        }
        drop(jobs);
        pool.into_iter().for_each(|thread| thread.join().unwrap());
        Arc::into_inner(run).unwrap().finish();
    });
    let run = only_run(dir.path());
    let outline = outline(&steps(dir.path(), run.run_id));
    let (pooled, rest): (Vec<String>, Vec<String>) = outline.into_iter().partition(|line| line.contains("pooled"));
    assert_eq!((pooled.len(), pooled.iter().all(|line| line.starts_with("  pooled"))), (20, true));
    assert_eq!(
        rest,
        [
            "a agent success",
            "  one agent success",
            "  two agent success",
            "    inside tool success",
            "    inside-2 tool success"
        ]
    );
    let steps = steps(dir.path(), run.run_id);
    let above = |name: &str| {
        let step = steps.iter().find(|step| step.step_id == name).unwrap();
        steps.iter().find(|above| Some(above.span_id) == step.parent_span_id).unwrap().step_id.as_str()
    };
    assert_eq!((above("inside"), above("inside-2")), ("one", "two"));
}

/// Polls all futures in turn until all are ready.
async fn join(mut tasks: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    std::future::poll_fn(|context| {
        tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        if tasks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn without_a_subscriber_nothing_happens_and_nothing_is_formatted() {
    struct Bomb;
    impl serde::Serialize for Bomb {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("formatted without need");
        }
    }
    let none = tracing::subscriber::NoSubscriber::default();
    tracing::subscriber::with_default(none, || {
        let run = Run::agent("a").start();
        assert_eq!(run.id(), None);
        let step = run.llm("p", "m");
        step.input(Bomb).output(Bomb).event("e", Bomb).score("s", 1.0).usage(Usage::new(1, 1));
        step.in_scope(|| {
            runspan::current().input(Bomb).output(Bomb).event("e", Bomb).score("s", 1.0);
        });
        step.fail(&std::fmt::Error);
        run.artifact(b"x", "x", "");
        drop(run);
    });
}

#[test]
fn code_inside_a_step_reaches_it_through_current() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        runspan::current().output("nowhere");
        let run = Run::agent("a").start();
        let call = run.llm("acme", "m1");
        call.in_scope(|| {
            tracing::info_span!("plain").in_scope(|| {
                runspan::current().usage(Usage::new(3, 4)).cost_usd(0.5).output("hi").event("seen", json!({"a": 1}));
            });
        });
        call.finish();
        run.in_scope(|| {
            runspan::current().output("bye");
        });
        run.finish();
    });
    let run = only_run(dir.path());
    assert_eq!(
        told(dir.path(), run.run_id),
        [
            r#"a < - {"kind":"agent","name":"invoke_agent a","agent_id":"a","status":"success","output":"bye"}"#,
            r#"chat < a {"kind":"llm","name":"chat m1","agent_id":"a","status":"success","provider":"acme","model":"m1","tokens":{"prompt":3,"completion":4,"total":7},"cost_usd":0.5,"cost_source":"reported","output":[{"role":"assistant","parts":[{"type":"text","content":"hi"}]}]}"#,
            r#"plain < chat {"kind":"task","name":"plain","agent_id":"a","status":"success"}"#,
        ]
    );
}

#[test]
fn runs_and_steps_go_to_other_threads() {
    fn is_send_and_sync<T: Send + Sync + 'static>() {}
    is_send_and_sync::<Run>();
    is_send_and_sync::<Step>();
    is_send_and_sync::<runspan::CurrentStep>();
}

#[test]
fn a_run_that_follows_from_a_span_of_another_names_it() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let agent = |name: &str| {
            tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = name)
        };
        let first = agent("first");
        let step = first.in_scope(|| tracing::info_span!("execute_tool", gen_ai.operation.name = "execute_tool"));
        step.in_scope(|| {});
        let second = agent("second");
        second.follows_from(&step);
        second.in_scope(|| {});
    });
    let runs = runs(dir.path());
    let named = |name: &str| runs.iter().find(|run| run.name() == name).unwrap();
    let (first, second) = (named("first"), named("second"));
    assert_eq!((runs.len(), first.parent_run_id, second.parent_run_id), (2, None, Some(first.run_id)));
    assert_ne!(first.trace_id, second.trace_id);
}

#[test]
fn a_plain_span_around_a_run_is_not_its_parent_run() {
    let dir = crate::support::tempdir();
    let parent: RunId = "01KE9BZH80BGEY5ABZ7D0DHDQ1".parse().unwrap();
    record_in(dir.path(), |_| {
        tracing::info_span!("request").in_scope(|| Run::agent("alone").start().finish());
        let remote = propagation::extract(|name| match name {
            "traceparent" => Some("00-019b92bfc5005c1de2a97f3b40d8b6e1-0102030405060708-01"),
            "baggage" => Some("runspan.run.id=01KE9BZH80BGEY5ABZ7D0DHDQ1"),
            _ => None,
        });
        let _attached = remote.as_ref().map(propagation::RemoteContext::attach);
        tracing::info_span!("request").in_scope(|| Run::agent("called").start().finish());
    });
    let told = runs(dir.path());
    let mut parents: Vec<_> = told.iter().map(|run| (run.name().to_owned(), run.parent_run_id)).collect();
    parents.sort();
    assert_eq!(parents, [("alone".to_owned(), None), ("called".to_owned(), Some(parent))]);
    assert!(told.iter().all(|run| run.status == RunStatus::Success), "{told:?}");
}
