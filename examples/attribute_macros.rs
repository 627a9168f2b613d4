//! Attributes on existing functions: arguments go in, results come out, an `Err` is a failure.
//!
//! Run with `cargo run --example attribute_macros --features macros`.

use std::num::ParseFloatError;

use runspan::Usage;

#[runspan::agent(name = "weather")]
fn answer(question: &str) -> Result<String, ParseFloatError> {
    let city = find_city("gpt-4o-mini", question);
    let degrees = get_weather(&city, "warm").or_else(|_| get_weather(&city, "21.5"))?;
    Ok(format!("It is {degrees} degrees in {city}."))
}

#[runspan::llm(provider = "openai", model = model, skip(model))]
fn find_city(model: &str, question: &str) -> String {
    // Only code inside the call knows what it used.
    runspan::current().usage(Usage::new(48, 2)).response_model(model);
    question.split_whitespace().last().unwrap_or_default().trim_end_matches('?').to_owned()
}

#[runspan::tool(skip(reading))]
fn get_weather(city: &str, reading: &str) -> Result<f64, ParseFloatError> {
    runspan::current().event("looked_up", city);
    reading.parse()
}

fn main() -> Result<(), ParseFloatError> {
    let _guard = runspan::init();
    println!("{}", answer("How warm is Paris?")?);
    println!("see it with: runspan get latest");
    Ok(())
}
