//! An agent that asks a human, and outlives its process.
//!
//! ```text
//! cargo run --example ask_a_human             asks, and waits; it prints the run's id
//! runspan resume ID --input '"yes"'           the answer, from another terminal
//! cargo run --example ask_a_human -- ID       goes on where the first one was killed, with the answer or waiting for it
//! ```

use std::error::Error;

use runspan::{Run, Usage};
use serde_json::json;

/// What it waits for. The wait is found again by this.
const APPROVAL: &str = "approval";

#[allow(dead_code, reason = "the tests call `work`")]
fn main() -> Result<(), Box<dyn Error>> {
    work(std::env::args().nth(1))
}

/// Begins a run, or goes on with the one that is named.
pub fn work(id: Option<String>) -> Result<(), Box<dyn Error>> {
    let guard = runspan::builder().init()?;
    let run = match id {
        None => begin(),
        Some(id) => {
            let resumed = Run::resume(&id)?;
            println!("resumed after {} events", resumed.events.len());
            resumed.run
        }
    };
    if let Some(id) = run.id() {
        println!("run {id}");
    }
    // Any executor will do; nothing here needs one.
    let answer = futures::executor::block_on(run.wait(APPROVAL, json!({"refund_usd": 40, "order": "A-1001"})))?;
    println!("answered {answer}");
    let refund = run.tool("refund");
    refund.input(json!({"order": "A-1001"})).output(json!({"refunded": answer == "yes"}));
    refund.finish();
    run.output(format!("The human said {answer}."));
    run.finish();
    drop(guard);
    Ok(())
}

fn begin() -> Run {
    let run = Run::agent("refunds").session("chat-42").input("My parcel never came.").start();
    let call = run.llm("openai", "gpt-4o-mini");
    call.input("My parcel never came.").output("I will ask whether I may refund it.").usage(Usage::new(120, 12));
    call.finish();
    run
}
