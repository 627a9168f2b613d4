//! A run that is shown again.

use super::*;
use serde_json::json;

impl Store {
    /// An agent with two calls, of which the second repeats the first and what came of it, and one that says nothing.
    fn record_talk(&mut self) -> RunId {
        let run = RunId::from_parts(START_MS, [4; 10]);
        let question = json!({"role": "user", "parts": [{"type": "text", "content": "Rain\u{1b}[2J in Oslo?"}]});
        let asks = json!({"role": "assistant",
            "parts": [{"type": "tool_call", "id": "1", "name": "weather",
                "arguments": {"place": "Oslo"}}]});
        let answer = json!({"role": "tool", "parts": [{"type": "tool_call_response", "id": "1", "response": "12 mm"}]});
        let says = json!({"role": "assistant", "parts": [{"type": "text", "content": "Yes:\n  12 mm"}]});
        let system = json!([{"type": "text", "content": "Be brief."}]);
        let tools = json!([{"type": "function", "function": {"name": "weather", "description": "Weather of a place",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}}}]);
        let talk = |input: serde_json::Value, output: &serde_json::Value| {
            [
                (names::OPERATION, text("chat")),
                (names::REQUEST_MODEL, text("gpt-4o")),
                (names::AGENT_NAME, text("oracle")),
                (names::SYSTEM_INSTRUCTIONS, text(&system.to_string())),
                (names::TOOL_DEFINITIONS, text(&tools.to_string())),
                (names::INPUT_MESSAGES, text(&input.to_string())),
                (names::OUTPUT_MESSAGES, text(&json!([output]).to_string())),
            ]
        };
        let calls = [talk(json!([question]), &asks), talk(json!([question, asks, answer]), &says)];
        let silent = [(names::OPERATION, text("chat")), (names::CUT, text("gen_ai.input.messages"))];
        let agent = [(names::OPERATION, text("invoke_agent")), (names::AGENT_NAME, text("oracle"))];
        let told = |id, parent, name, at, end, attributes| Told { id, parent, name, at, end, attributes, error: None };
        self.record(
            run,
            &[
                told(1, 0, "invoke_agent oracle", 0, Some(3_000), &agent),
                told(2, 1, "chat gpt-4o", 500, Some(1_000), &calls[0]),
                told(3, 1, "chat gpt-4o", 1_500, Some(2_000), &calls[1]),
                told(4, 1, "chat", 2_100, Some(2_200), &silent),
            ],
        );
        run
    }
}

#[test]
fn a_run_is_shown_again_with_what_the_model_saw() {
    let mut store = Store::new();
    store.record_talk();
    let shown = runspan(store.path(), &["replay", "latest"]);
    assert_eq!((shown.code, shown.err.as_str()), (0, ""));
    insta::assert_snapshot!(shown.out, @r#"
    0     +0.000s  run_started        -                 agent told by the steps
    1     +0.000s  step_started       oracle            agent invoke_agent oracle
    2     +0.500s  step_started       chat              llm chat gpt-4o
       sees  system     Be brief.
             user       Rain\u{1b}[2J in Oslo?
             tools      weather(place)  Weather of a place
    3     +1.000s  llm_called         chat              gpt-4o  500ms
       says  assistant  calls weather {"place":"Oslo"}
    4     +1.500s  step_started       chat-2            llm chat gpt-4o
       sees  system     as before
                        2 messages as before, up to chat
             tool       answers 12 mm
             tools      as before
    5     +2.000s  llm_called         chat-2            gpt-4o  500ms
       says  assistant  Yes:
                          12 mm
    6     +2.100s  step_started       chat-3            llm chat
       sees             what was sent is not recorded
                        not all of it is recorded: it was cut
    7     +2.200s  llm_called         chat-3            100ms
       says             what was answered is not recorded
    8     +3.000s  step_completed     oracle            3.00s
    "#);
    let whole = runspan(store.path(), &["replay", "latest", "--all", "--from", "chat-2", "--to", "chat-2"]);
    insta::assert_snapshot!(whole.out, @r#"
    4     +1.500s  step_started       chat-2            llm chat gpt-4o
       sees  system     Be brief.
             user       Rain\u{1b}[2J in Oslo?
             assistant  calls weather {"place":"Oslo"}
             tool       answers 12 mm
             tools      [
                          {
                            "type": "function",
                            "function": {
                              "name": "weather",
                              "description": "Weather of a place",
                              "parameters": {
                                "type": "object",
                                "properties": {
                                  "place": {
                                    "type": "string"
                                  }
                                }
                              }
                            }
                          }
                        ]
    5     +2.000s  llm_called         chat-2            gpt-4o  500ms
       says  assistant  Yes:
                          12 mm
    "#);
}

#[test]
fn a_part_of_a_run_is_named_by_step_number_and_time() {
    let mut store = Store::new();
    let run = store.record_talk();
    let shown = |args: &[&str]| {
        let answer = runspan(store.path(), &[&["replay", "latest", "--json"], args].concat());
        let lines = answer.out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let places: Vec<String> = lines.map(|line| format!("{}@{}", line["seq"], line["at_ms"])).collect();
        (answer.code, places.join(" "))
    };
    let all = "0@0.0 1@0.0 2@500.0 3@1000.0 4@1500.0 5@2000.0 6@2100.0 7@2200.0 8@3000.0";
    assert_eq!(shown(&[]), (0, all.to_owned()));
    assert_eq!(shown(&["--from", "chat", "--to", "chat"]), (0, "2@500.0 3@1000.0".to_owned()));
    assert_eq!(shown(&["--from", "7"]), (0, "7@2200.0 8@3000.0".to_owned()));
    assert_eq!(shown(&["--from", "+2s", "--to", "2.2s"]), (0, "5@2000.0 6@2100.0 7@2200.0".to_owned()));
    assert_eq!(shown(&["--from", "4", "--to", "chat"]), (2, String::new()));
    let unknown = runspan(store.path(), &["replay", "latest", "--from", "chat-9"]);
    assert_eq!(unknown.code, 1);
    insta::assert_snapshot!(unknown.err.replace(&run.to_string(), "RUN"), @r#"
    error: --from "chat-9" is no step, number or time of run RUN
    hint: runspan get RUN --events shows all of them
    "#);
}

#[test]
fn each_event_is_an_object_with_what_the_model_saw_where_a_call_begins() {
    let mut store = Store::new();
    store.record_talk();
    let answer = runspan(store.path(), &["replay", "latest", "--json", "--from", "2", "--to", "3"]);
    let lines: Vec<serde_json::Value> = answer.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stored = json(&runspan(store.path(), &["get", "latest", "--events", "--json"]));
    for (line, stored) in lines.iter().zip(stored.as_array().unwrap().iter().skip(2)) {
        for (key, value) in stored.as_object().unwrap() {
            assert_eq!(&line[key], value, "{key}");
        }
    }
    assert_eq!(lines[1]["model_saw"], json!(null));
    insta::assert_snapshot!(lines[0]["model_saw"], @r#"{"system":[{"type":"text","content":"Be brief."}],"messages":[{"role":"user","parts":[{"type":"text","content":"Rain\u001b[2J in Oslo?"}]}],"tools":[{"type":"function","function":{"name":"weather","description":"Weather of a place","parameters":{"type":"object","properties":{"place":{"type":"string"}}}}}],"is_cut":false}"#);
}
