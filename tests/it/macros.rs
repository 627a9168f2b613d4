//! Runs and steps by attribute, on functions of all shapes.

use std::fmt::Display;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use runspan::model::RunStatus;
use runspan::{Run, Usage};
use serde::Serialize;

use crate::by_hand::{block_on, pause};
use crate::support::{only_run, outline, record_in, runs, steps, tempdir, told};

/// Neither `Serialize` nor `Debug`.
struct Opaque;

#[derive(Debug)]
struct Debugged {
    _n: u8,
}

#[derive(Serialize)]
struct Answer {
    text: &'static str,
}

#[runspan::agent(name = "weather")]
async fn answer(question: &str, secret: String) -> Result<Answer, std::num::ParseIntError> {
    let degrees = degrees("Paris", 2).await?;
    let text = phrase("openai", "gpt-4o-mini", degrees).await;
    pause().await;
    let _ = (question, secret);
    Ok(Answer { text: if text.is_empty() { "?" } else { "mild" } })
}

#[runspan::tool]
async fn degrees(city: &str, digits: usize) -> Result<i32, std::num::ParseIntError> {
    pause().await;
    "21"[..digits].parse().inspect(|_| assert!(!city.is_empty()))
}

#[runspan::llm(provider = provider, model = model, skip(provider, model))]
async fn phrase(provider: &str, model: &str, degrees: i32) -> String {
    runspan::current().usage(Usage::new(11, 3)).cost_usd(0.5).response_id("resp-1");
    format!("It is {degrees}.")
}

/// The same as [`answer`], by hand.
async fn answer_by_hand() {
    use tracing::Instrument;
    let run = Run::agent("weather").input(serde_json::json!({"question": "How warm?", "secret": "s"})).start();
    async {
        let tool = run.tool("degrees");
        tool.input(serde_json::json!({"city": "Paris", "digits": 2}));
        pause().await;
        tool.output(21);
        tool.finish();
        let call = run.llm("openai", "gpt-4o-mini");
        call.input(serde_json::json!({"degrees": 21})).usage(Usage::new(11, 3)).cost_usd(0.5).response_id("resp-1");
        call.output("It is 21.");
        call.finish();
    }
    .instrument(run.span())
    .await;
    run.output(Answer { text: "mild" });
    run.finish();
}

#[test]
fn attributes_and_the_hand_store_the_same_run() {
    let [by_attribute, by_hand] = [(); 2].map(|()| crate::support::tempdir());
    record_in(by_attribute.path(), |_| drop(block_on(answer("How warm?", "s".to_owned()))));
    record_in(by_hand.path(), |_| block_on(answer_by_hand()));
    let told = [&by_attribute, &by_hand].map(|dir| {
        let run = only_run(dir.path());
        assert_eq!((run.name(), run.status, run.trace_id), ("weather", RunStatus::Success, run.run_id.as_trace_id()));
        told(dir.path(), run.run_id)
    });
    assert_eq!(told[0], told[1]);
    assert_eq!(
        told[0],
        [
            r#"weather < - {"kind":"agent","name":"invoke_agent weather","agent_id":"weather","status":"success","input":{"question":"How warm?","secret":"s"},"output":{"text":"mild"}}"#,
            r#"degrees < weather {"kind":"tool","name":"execute_tool degrees","agent_id":"weather","status":"success","input":{"city":"Paris","digits":2},"output":21}"#,
            r#"chat < weather {"kind":"llm","name":"chat gpt-4o-mini","agent_id":"weather","status":"success","provider":"openai","model":"gpt-4o-mini","tokens":{"prompt":11,"completion":3,"total":14},"cost_usd":0.5,"cost_source":"reported","input":{"degrees":21},"output":[{"role":"assistant","parts":[{"type":"text","content":"It is 21."}]}]}"#,
        ]
    );
}

#[runspan::step]
fn opaque(_a: Opaque, b: Debugged, (c, d): (u8, &str), mut e: Vec<u8>, r#type: bool) -> Opaque {
    e.push(c);
    let _ = (b, d, e, r#type);
    Opaque
}

#[runspan::step(skip(a), skip_output)]
fn skipping(a: &str, b: u8) -> usize {
    a.len() + usize::from(b)
}

#[runspan::step(skip_all, name = "renamed")]
fn skipping_all(a: &str) -> &str {
    a
}

#[runspan::tool]
fn failing(why: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Err(why)?
}

#[runspan::tool]
fn failing_opaquely() -> Result<(), Opaque> {
    Err(Opaque)
}

#[runspan::tool]
fn failing_in_text() -> Result<u8, String> {
    Err("no".to_owned())
}

#[runspan::tool]
fn panicking() {
    std::panic::resume_unwind(Box::new("on purpose"))
}

#[runspan::llm(name = "summarize")]
fn unknown_model() {}

#[test]
fn arguments_results_and_errors_of_any_type_are_told() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let run = Run::workflow("shapes").start();
        run.in_scope(|| {
            opaque(Opaque, Debugged { _n: 1 }, (2, "d"), vec![3], true);
            assert_eq!(skipping("abc", 4), 7);
            assert_eq!(skipping_all("abc"), "abc");
            assert!(failing("because").is_err() && failing_opaquely().is_err() && failing_in_text().is_err());
            assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
            unknown_model();
        });
        run.finish();
    });
    assert_eq!(
        told(dir.path(), only_run(dir.path()).run_id),
        [
            r#"shapes < - {"kind":"workflow","name":"invoke_workflow shapes","status":"success"}"#,
            r#"opaque < shapes {"kind":"task","name":"opaque","status":"success","input":{"_a":"<it::macros::Opaque>","b":"Debugged { _n: 1 }","c":2,"d":"d","e":[3],"type":true},"output":"<it::macros::Opaque>"}"#,
            r#"skipping < shapes {"kind":"task","name":"skipping","status":"success","input":{"b":4}}"#,
            r#"renamed < shapes {"kind":"task","name":"renamed","status":"success","output":"abc"}"#,
            r#"failing < shapes {"kind":"tool","name":"execute_tool failing","status":"error","error":{"type":"_OTHER","message":"because"},"input":{"why":"because"}}"#,
            r#"failing_opaquely < shapes {"kind":"tool","name":"execute_tool failing_opaquely","status":"error","error":{"type":"Opaque","message":"<it::macros::Opaque>"}}"#,
            r#"failing_in_text < shapes {"kind":"tool","name":"execute_tool failing_in_text","status":"error","error":{"type":"_OTHER","message":"no"}}"#,
            r#"panicking < shapes {"kind":"tool","name":"execute_tool panicking","status":"error","error":{"type":"panic","message":"panicked"}}"#,
            r#"chat < shapes {"kind":"llm","name":"summarize","status":"success"}"#,
        ]
    );
}

struct Shelf<T> {
    items: Vec<T>,
}

impl<T: Clone + Display> Shelf<T> {
    #[runspan::tool(name = "first")]
    fn first_mut<'a>(&'a mut self, _note: &str) -> Option<&'a mut T> {
        self.items.first_mut()
    }

    #[runspan::tool(skip(by))]
    async fn count<U>(&self, by: impl Fn(&T) -> bool, _u: U) -> usize
    where
        U: Send,
    {
        pause().await;
        self.items.iter().filter(|item| by(item)).count()
    }

    #[runspan::tool(skip_output)]
    fn shown(&self) -> impl Iterator<Item = String> + '_ {
        self.items.iter().map(ToString::to_string)
    }

    #[runspan::tool]
    async fn fallible(&self, at: usize) -> Result<impl Display + use<T>, std::fmt::Error> {
        let item = self.items.get(at).ok_or(std::fmt::Error)?;
        Ok(item.clone())
    }

    #[runspan::tool]
    fn early(self, stop: bool) -> usize {
        if stop {
            return 0;
        }
        self.items.len()
    }
}

trait Tool {
    fn boxed<'a>(&'a self, city: &'a str) -> Pin<Box<dyn Future<Output = Result<usize, String>> + Send + 'a>>;
}

impl Tool for Opaque {
    // As `async_trait` writes it.
    #[runspan::tool]
    fn boxed<'a>(&'a self, city: &'a str) -> Pin<Box<dyn Future<Output = Result<usize, String>> + Send + 'a>> {
        Box::pin(async move {
            pause().await;
            let length = u8::try_from(city.len()).map_err(|error| error.to_string())?;
            Ok(length.into())
        })
    }
}

#[test]
fn functions_of_all_shapes_keep_their_meaning() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let run = Run::workflow("shapes").start();
        run.in_scope(|| {
            let mut shelf = Shelf { items: vec![1, 2, 3] };
            *shelf.first_mut("n").unwrap() = 7;
            assert_eq!(block_on(is_send(shelf.count(|item| *item > 2, Opaque))), 2);
            assert_eq!(shelf.shown().collect::<String>(), "723");
            assert_eq!(block_on(shelf.fallible(1)).unwrap().to_string(), "2");
            assert!(block_on(shelf.fallible(9)).is_err());
            assert_eq!((shelf.early(true), block_on(is_send(Opaque.boxed("Paris")))), (0, Ok(5)));
        });
        run.finish();
    });
    assert_eq!(
        told(dir.path(), only_run(dir.path()).run_id),
        [
            r#"shapes < - {"kind":"workflow","name":"invoke_workflow shapes","status":"success"}"#,
            r#"first < shapes {"kind":"tool","name":"execute_tool first","status":"success","input":{"_note":"n"},"output":"<core::option::Option<&mut i32>>"}"#,
            r#"count < shapes {"kind":"tool","name":"execute_tool count","status":"success","input":{"_u":"<it::macros::Opaque>"},"output":2}"#,
            r#"shown < shapes {"kind":"tool","name":"execute_tool shown","status":"success"}"#,
            r#"fallible < shapes {"kind":"tool","name":"execute_tool fallible","status":"success","input":{"at":1},"output":"<i32>"}"#,
            r#"fallible-2 < shapes {"kind":"tool","name":"execute_tool fallible","status":"error","error":{"type":"fmt::Error","message":"an error occurred when formatting an argument"},"input":{"at":9}}"#,
            r#"early < shapes {"kind":"tool","name":"execute_tool early","status":"success","input":{"stop":true},"output":0}"#,
            r#"boxed < shapes {"kind":"tool","name":"execute_tool boxed","status":"success","input":{"city":"Paris"},"output":5}"#,
        ]
    );
}

#[test]
fn a_future_that_is_dropped_midway_is_cancelled() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        let mut future = Box::pin(degrees("Paris", 2));
        let polled = future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(polled.is_pending());
        drop(future);
    });
    let run = only_run(dir.path());
    assert_eq!(run.status, RunStatus::Cancelled);
    assert_eq!(outline(&steps(dir.path(), run.run_id)), ["degrees tool cancelled"]);
}

#[runspan::workflow]
fn plan() -> u8 {
    catch_unwind(worker).unwrap_or(1)
}

#[runspan::agent]
fn worker() -> u8 {
    std::panic::resume_unwind(Box::new("on purpose"))
}

#[test]
fn an_agent_is_a_run_at_the_root_and_a_step_inside_another() {
    let dir = crate::support::tempdir();
    record_in(dir.path(), |_| {
        assert_eq!(plan(), 1);
        assert!(catch_unwind(worker).is_err());
    });
    let runs = runs(dir.path());
    let mut outlines: Vec<_> = runs
        .iter()
        .map(|run| (run.kind.to_string(), run.status.to_string(), outline(&steps(dir.path(), run.run_id)).join(",")))
        .collect();
    outlines.sort();
    let line = |kind: &str, status: &str, steps: &str| (kind.to_owned(), status.to_owned(), steps.to_owned());
    assert_eq!(
        outlines,
        [
            line("agent", "error", "worker agent error"),
            line("workflow", "success", "plan workflow success,  worker agent error"),
        ]
    );
}

#[test]
fn without_a_subscriber_functions_only_run() {
    let none = tracing::subscriber::NoSubscriber::default();
    tracing::subscriber::with_default(none, || {
        assert!(block_on(answer("How warm?", String::new())).is_ok());
        assert!(failing("because").is_err());
    });
}

#[deny(warnings)]
mod strict {
    #[rustfmt::skip]
    #[runspan::step]
    pub async fn on_one_line(x: u8) -> u8 { x }
}

#[test]
fn a_body_on_one_line_compiles_where_warnings_are_errors() {
    let dir = tempdir();
    record_in(dir.path(), |_| assert_eq!(block_on(strict::on_one_line(1)), 1));
}

#[runspan::llm(provider = "openai", model = "gpt-4o-mini")]
fn asked() {
    runspan::current().usage(Usage::new(11, 3));
}

#[runspan::agent(budget = runspan::Budget { tokens: Some(most), ..Default::default() })]
async fn frugal(most: u64) -> Result<u64, runspan::BudgetExceeded> {
    let mut calls = 0;
    loop {
        runspan::current().check_budget()?;
        asked();
        calls += 1;
        if calls > 9 {
            return Ok(calls);
        }
    }
}

#[test]
fn an_attribute_bounds_what_a_call_may_take() {
    let dir = tempdir();
    record_in(dir.path(), |_| assert!(block_on(frugal(20)).is_err()));
    let run = only_run(dir.path());
    let error = run.error.as_ref().unwrap();
    assert_eq!(run.budget, Some(runspan::Budget { tokens: Some(20), ..Default::default() }));
    assert_eq!((run.status, run.llm_calls, error.kind.as_deref()), (RunStatus::Error, 2, Some("budget_exceeded")));
    assert_eq!(error.step_id.as_deref(), Some("chat-2"));
}
