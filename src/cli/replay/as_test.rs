//! `runspan replay ID --as-test`: what a run was asked and answered, as a test of an agent in Rust.

use std::io::Write;
use std::path::{Path, PathBuf};

use runspan::model::StepKind;
use runspan::replay::{Item, ModelCall, Outcome, Recording, Request, Said, ToolCall};
use serde_json::Value as Json;

use crate::cli::output::{CYAN, safe};
use crate::cli::{CODE_FAILED, CODE_NO, CODE_USE, Done, Session, Stop};

/// Where it is written, when nobody says.
const FOLDER: &str = "tests";

/// A call of a model or of a tool.
enum Step<'a> {
    Model(&'a ModelCall),
    Tool(&'a ToolCall),
}

/// Writes the test and the recording beside it. A file that is there stays.
pub fn run(path: &Path, recording: &Recording, session: &mut Session<'_>) -> Done {
    if recording.calls().is_empty() && recording.tools().is_empty() {
        let run = recording.run().run_id;
        return Err(Stop::failed(
            CODE_NO,
            format!("run {run} has no calls of models or tools: there is nothing to test with"),
        ));
    }
    let slug = slug(recording.run().name());
    let test = if path.extension().is_some_and(|extension| extension == "rs") {
        path.to_owned()
    } else {
        path.join(format!("replay_{slug}.rs"))
    };
    let log = test.with_extension("jsonl");
    let text = source(recording, &slug, &log);
    write_new(&log, &recording.log())?;
    write_new(&test, &text)?;
    let name = test.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let hint = if is_found_by_cargo(&test) {
        session.look.paint(CYAN, &format!("cargo test --test {}", safe(&name))).into_owned()
    } else {
        // Cargo looks nowhere else.
        format!("cargo runs it from tests/ of a package, or where Cargo.toml names it: [[test]] name = {name:?}")
    };
    session.print(&format!("{}\n{}\n", safe(&test.to_string_lossy()), safe(&log.to_string_lossy())))?;
    session.hint(&hint);
    Ok(())
}

/// Tells whether a test is where Cargo looks for tests by itself.
fn is_found_by_cargo(test: &Path) -> bool {
    let folder = test.parent().filter(|folder| folder.file_name().is_some_and(|name| name == FOLDER));
    folder.and_then(Path::parent).is_some_and(|package| package.join("Cargo.toml").is_file())
}

/// Returns where to write: what is given, else the folder of tests of the package here.
pub fn place(given: &Option<PathBuf>, here: &Path) -> Result<PathBuf, Stop> {
    match given {
        Some(path) => Ok(here.join(path)),
        None if here.join("Cargo.toml").is_file() => Ok(here.join(FOLDER)),
        None => Err(Stop::failed(CODE_USE, "there is no Cargo.toml here").hint("name the file: --as-test PATH")),
    }
}

fn write_new(path: &Path, text: &str) -> Result<(), Stop> {
    let failed = |error: std::io::Error| {
        let stop = Stop::failed(CODE_FAILED, format!("cannot write {}: {error}", path.display()));
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            stop.hint("it is left as it is: name another file")
        } else {
            stop
        }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = std::fs::File::create_new(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// Makes a name that Rust takes: one that begins with a letter.
fn slug(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    let slug: String = letters.take(40).collect();
    match slug.trim_matches('_') {
        "" => "run".to_owned(),
        slug if slug.starts_with(|c: char| c.is_ascii_digit()) => format!("run_{slug}"),
        slug => slug.to_owned(),
    }
}

fn source(recording: &Recording, slug: &str, log: &Path) -> String {
    let id = recording.run().run_id;
    let log = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let body = steps(recording);
    let uses = |words: &str| body.contains(words);
    let mut imports = vec!["NotAnswered", "Recording", "Replay"];
    imports.extend(uses(".parse::<Json>()").then_some("Json"));
    imports.extend(uses("Request::").then_some("Request"));
    imports.extend(uses("json!(").then_some("json"));
    let imports = imports.join(", ");
    format!(
        "\
//! What run {id} was asked and answered. Made by `runspan replay {id} --as-test`.
//!
//! `agent` does what the recorded run did. Put your own in its place: where it would ask a model it asks `replay.ask`,
//! and `replay.tool` where it would call a tool. The test fails when it asks for something else, and names the step.

use runspan::replay::{{{imports}}};

fn agent(replay: &Replay) -> Result<(), NotAnswered> {{
{body}    Ok(())
}}

#[test]
fn {slug}_is_as_recorded() {{
    let recording = Recording::parse(include_str!({log:?})).expect(\"the recording beside this file\");
    let replay = recording.replay();
    agent(&replay).expect(\"an answer to each call\");
    let report = replay.report();
    assert!(!report.is_diverged(), \"{{report}}\");
}}
"
    )
}

fn steps(recording: &Recording) -> String {
    let models = recording.calls().iter().map(|call| (call.started_at(), Step::Model(call)));
    let tools = recording.tools().iter().map(|tool| (tool.started_at(), Step::Tool(tool)));
    let mut steps: Vec<_> = models.chain(tools).collect();
    steps.sort_by_key(|(at, _)| *at);
    let mut out = String::new();
    let mut asked: Vec<(String, &Request)> = Vec::new();
    for (_, step) in &steps {
        match step {
            Step::Tool(tool) => tool_step(&mut out, tool),
            Step::Model(call) => model_step(&mut out, call, &mut asked),
        }
    }
    out
}

fn tool_step(out: &mut String, tool: &ToolCall) {
    let (name, arguments) = (text(&tool.name), json(&tool.arguments));
    out.push_str(&format!("    // {}\n", one_line(&tool.step_id)));
    match &tool.outcome {
        Ok(Ok(result)) => {
            out.push_str(&format!("    assert_eq!(replay.tool({name}, &{arguments})?, {});\n", json(result)));
        }
        Ok(Err(_)) => out.push_str(&format!("    assert!(replay.tool({name}, &{arguments}).is_err());\n")),
        Err(gap) => out.push_str(&format!("    // Left out: {}\n", one_line(&gap.to_string()))),
    }
}

/// `asked`: requests that were written before, by the names of their variables.
fn model_step<'a>(out: &mut String, call: &'a ModelCall, asked: &mut Vec<(String, &'a Request)>) {
    if let Err(gap) = &call.outcome {
        let why = format!("{}: {gap}", call.step_id);
        return out.push_str(&format!("    // Left out: {}\n", one_line(&why)));
    }
    out.push_str(&format!("    // {}\n", one_line(&call.step_id)));
    let variable = format!("asked_{}", asked.len() + 1);
    let request = match call.request.items() {
        Some(items) => {
            out.push_str(&format!("    let {variable} = {};\n", request(&call.request, items, asked)));
            asked.push((variable.clone(), &call.request));
            format!("replay.ask(&{variable})")
        }
        None => "replay.next_answer()".to_owned(),
    };
    match &call.outcome {
        Ok(Outcome::Answer(answer)) if call.kind == StepKind::Embedding => {
            out.push_str(&format!("    assert_eq!({request}?.embeddings.len(), {});\n", answer.embeddings.len()));
        }
        Ok(Outcome::Answer(answer) | Outcome::Left { answer, .. }) => {
            out.push_str(&format!("    let answer = {request}?;\n"));
            let said = answer.text();
            if !said.is_empty() {
                out.push_str(&format!("    assert_eq!(answer.text(), {});\n", text(&said)));
            }
            let tools: Vec<String> = answer.tool_calls().map(|tool| text(tool.name)).collect();
            if !tools.is_empty() {
                let listed = tools.join(", ");
                out.push_str(&format!(
                    "    assert_eq!(answer.tool_calls().map(|tool| tool.name).collect::<Vec<_>>(), [{listed}]);\n"
                ));
            } else if said.is_empty() {
                out.push_str("    assert_eq!(answer.text(), \"\");\n");
            }
        }
        Ok(Outcome::Failure(failure)) => {
            out.push_str(&format!(
                "    // It failed: {}\n    assert!({request}.is_err());\n",
                one_line(&failure.to_string())
            ));
        }
        Err(_) => {}
    }
}

/// Writes a request as the calls that build it, on from an earlier one where it goes on from that.
fn request(request: &Request, items: &[Item], asked: &[(String, &Request)]) -> String {
    let model = request.model_name().unwrap_or_default();
    if request.kind() == StepKind::Embedding {
        let input = items.first().map_or(Json::Null, |item| match &item.said {
            Said::Text(text) => text.as_str().into(),
            Said::Other(other) | Said::Answers(other) => other.clone(),
            Said::Calls { .. } => Json::Null,
        });
        return format!("Request::embedding({}, {})", text(model), json(&input));
    }
    let goes_on_from = asked.iter().rev().filter_map(|(variable, before)| {
        let said = before.items().filter(|said| !said.is_empty() && items.starts_with(said))?;
        (before.kind() == request.kind()).then_some((variable, before, said.len()))
    });
    let longest = goes_on_from.max_by_key(|(_, _, said)| *said);
    let (mut out, from) = match longest {
        Some((variable, before, said)) => {
            let other_model = (before.model_name() != request.model_name()).then(|| format!(".model({})", text(model)));
            (format!("{variable}\n        .clone(){}", other_model.unwrap_or_default()), said)
        }
        None => (format!("Request::chat({})", text(model)), 0),
    };
    for item in &items[from..] {
        let call = match (&item.said, item.role) {
            (Said::Text(said), "system") => format!("system({})", text(said)),
            (Said::Text(said), "assistant") => format!("assistant_said({})", text(said)),
            (Said::Text(said), _) => format!("user({})", text(said)),
            (Said::Calls { name, arguments }, _) => format!("assistant_called({}, {})", text(name), json(arguments)),
            (Said::Answers(result), _) => format!("tool_result({})", json(result)),
            (Said::Other(other), role) => format!("other({role:?}, {})", json(other)),
        };
        out.push_str(&format!("\n        .{call}"));
    }
    out
}

/// Writes a text as Rust reads it.
fn text(text: &str) -> String {
    format!("{text:?}")
}

/// Values that are written as the macro that makes them: it calls itself for each, and Rust bounds how often.
const MOST_OF_MACRO: usize = 24;

/// Writes a value as the macro that makes it. What stands in JSON stands so in the macro, too; one that would be too much for
/// the macro stands there as text.
fn json(value: &Json) -> String {
    if size(value) > MOST_OF_MACRO {
        return format!("{}.parse::<Json>().expect(\"JSON\")", text(&value.to_string()));
    }
    format!("json!({})", literal(value))
}

/// Counts the values in a value, itself among them.
fn size(value: &Json) -> usize {
    let inner: usize = match value {
        Json::Array(list) => list.iter().map(size).sum(),
        Json::Object(members) => members.values().map(size).sum(),
        _ => 0,
    };
    inner + 1
}

fn literal(value: &Json) -> String {
    match value {
        Json::String(said) => text(said),
        Json::Array(list) => format!("[{}]", list.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Json::Object(members) => {
            let members = members.iter().map(|(key, value)| format!("{}: {}", text(key), literal(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
        // A number without a type is an `i32` there.
        Json::Number(number) if number.is_u64() && number.as_i64().is_none() => format!("{number}_u64"),
        Json::Number(number) if number.as_i64().is_some_and(|whole| i32::try_from(whole).is_err()) => {
            format!("{number}_i64")
        }
        other => other.to_string(),
    }
}

/// Holds what stands in a comment to its line. Rust takes no comment that changes the direction of what follows.
fn one_line(text: &str) -> String {
    let turns = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_values_are_such_that_rust_takes_them() {
        assert_eq!(
            (slug("Trip to Bern!"), slug("日本"), slug("")),
            ("trip_to_bern".into(), "run".into(), "run".into())
        );
        assert_eq!(slug("3D agent"), "run_3d_agent");
        let value = json!({"a\"b": [1, -2.5, null, true, "x\n\u{1}{}"], "ü": {}});
        assert_eq!(json(&value), r#"json!({"a\"b": [1, -2.5, null, true, "x\n\u{1}{}"], "ü": {}})"#);
        let large = json!([i32::MAX, i64::from(i32::MAX) + 1, i64::MIN, u64::MAX, 1e300]);
        assert_eq!(
            json(&large),
            "json!([2147483647, 2147483648_i64, -9223372036854775808_i64, 18446744073709551615_u64, 1e+300])"
        );
        let long: Vec<u32> = (0..24).collect();
        assert!(json(&long.into()).starts_with(r#""[0,1,2,"#));
        assert_eq!(one_line("a\nb\u{202e}c"), "a b c");
    }
}
