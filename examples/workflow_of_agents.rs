//! A workflow of three agents, the last two at once on threads of their own: one run.

use std::thread;

use runspan::{Run, Step, Usage};

fn main() {
    let _guard = runspan::init();

    let run = Run::workflow("publish").input("Write about rings.").start();
    let draft = work(run.agent("writer"), "Write about rings.", 900);
    let (facts, style) = thread::scope(|scope| {
        // A run goes to other threads by reference; its steps find their way home.
        let facts = scope.spawn(|| work(run.agent("fact-checker"), &draft, 400));
        let style = scope.spawn(|| work(run.agent("stylist"), &draft, 300));
        (facts.join(), style.join())
    });
    match (facts, style) {
        (Ok(facts), Ok(style)) => {
            run.output(format!("{draft} | {facts} | {style}"));
            run.finish();
        }
        _ => run.fail(&std::io::Error::other("an agent panicked")),
    }
    println!("see its agents with: runspan get latest");
}

/// What an agent does is its own business; here it asks a model once.
fn work(agent: Step, task: &str, tokens: u64) -> String {
    let call = agent.llm("anthropic", "claude-3-5-haiku-latest");
    let answer = format!("{} words", task.len());
    call.input(task).output(&answer).usage(Usage::new(tokens, tokens / 10));
    call.finish();
    agent.output(&answer);
    agent.finish();
    answer
}
