//! Two runs side by side.

use super::*;

impl Store {
    /// The same agent on another model: it asks once more, is told something else, and the tool works.
    pub(super) fn record_other_agent(&mut self) -> RunId {
        let run = RunId::from_parts(START_MS + 90_000, [3; 10]);
        let chat = |model: &str, input: &str| {
            [
                (names::OPERATION, text("chat")),
                (names::PROVIDER, text("openai")),
                (names::REQUEST_MODEL, text(model)),
                (names::INPUT_TOKENS, Value::Int(1_700)),
                (names::OUTPUT_TOKENS, Value::Int(800)),
                (names::CACHE_READ_TOKENS, Value::Int(1_024)),
                (names::COST_USD, Value::Double(0.05)),
                (names::COST_SOURCE, text("computed")),
                (names::INPUT_MESSAGES, text(input)),
            ]
        };
        let tool = [(names::OPERATION, text("execute_tool")), (names::TOOL_NAME, text("read_file"))];
        let agent = [
            (names::OPERATION, text("invoke_agent")),
            (names::AGENT_NAME, text("code\u{1b}[31m-reviewer")),
            (names::INPUT_MESSAGES, text("Look at </script> lib.rs\nplease")),
        ];
        let told = |id, parent, name, at, end, attributes| Told { id, parent, name, at, end, attributes, error: None };
        self.record(
            run,
            &[
                told(1, 0, "invoke_agent code-reviewer", 0, Some(2_900), &agent),
                told(2, 1, "chat gpt-4o", 10, Some(1_200), &chat("gpt-4o", "<b>a\u{202e}b</b>")),
                told(3, 1, "execute_tool read_file", 1_250, Some(1_300), &tool),
                told(4, 1, "chat gpt-4o", 1_450, Some(2_450), &chat("gpt-4o", "second")),
                told(5, 1, "chat gpt-4o", 2_500, Some(2_800), &chat("gpt-4o", "third")),
            ],
        );
        run
    }
}

#[test]
fn two_runs_are_compared_step_by_step() {
    let mut store = Store::new();
    let (a, b) = (store.record_agent(1).to_string(), store.record_other_agent().to_string());
    let answer = runspan(store.path(), &["compare", &a, &b]);
    assert_eq!((answer.code, answer.err.as_str()), (1, ""));
    insta::assert_snapshot!(answer.out, @r"
    A  code\u{1b}[31m-reviewer  ✓ success  agent 01KE9BZH800000000000000001
    B  code\u{1b}[31m-reviewer  ✓ success  agent 01KE9C294G0C1G60R30C1G60R3

    steps                  4           5  +1 (+25%)
    model calls            2           3  +1 (+50%)
    tool calls             1           1
    failures               1           0  -1 (-100%)
    tokens in          3,000       5,100  +2,100 (+70%)
    tokens out         1,600       2,400  +800 (+50%)
    cost             $0.0840     $0.1500  +$0.0660 (+79%)
    time               2.50s       2.90s  +400ms (+16%)

    ≠ agent code-[31m-reviewer  2.50s → 2.90s
        input
          - Look at main.rs
          + Look at </script> lib.rs
            please
    ≠   llm chat  1.19s → 1.19s
          model gpt-4o-mini → gpt-4o  tokens 1,500+800 → 1,700+800  cost $0.0420 → $0.0500
          input
            + <b>a\u{202e}b</b>
    ≠   tool read_file  150ms → 50ms
          status error → success
          error
            - ToolError: no such\u{9b}2J file\u{202e}
    ≠   llm chat-2  1.00s → 1.00s
          model gpt-4o-mini → gpt-4o  tokens 1,500+800 → 1,700+800  cost $0.0420 → $0.0500
          input
            + second
    +   llm chat-3
          300ms  model gpt-4o  tokens 1,700+800  cost $0.0500

    different: 4 in structure, 4 in io, 6 in cost
    ");
}

#[test]
fn runs_are_equal_by_the_measure_that_is_asked_for() {
    let mut store = Store::new();
    let (a, same, b) =
        (store.record_agent(1).to_string(), store.record_agent(2).to_string(), store.record_other_agent().to_string());
    let code = |args: &[&str]| runspan(store.path(), &[&["compare"], args].concat()).code;
    assert_eq!(code(&[&a, &a]), 0);
    // Ids and times are others.
    assert_eq!(code(&[&a, &same]), 0);
    for measure in ["structure", "io", "cost"] {
        assert_eq!(code(&[&a, &b, "--only", measure]), 1, "{measure}");
    }
    assert_eq!(code(&[&a, "01ZZ"]), 1);
    assert_eq!(code(&[&a, &b, "--only", "time"]), 2);
    let found: serde_json::Value =
        serde_json::from_str(&runspan(store.path(), &["compare", &a, &b, "--json"]).out).unwrap();
    assert_eq!(
        (&found["equal"], &found["differences"]),
        (&false.into(), &serde_json::json!({"structure": 4, "io": 4, "cost": 6}))
    );
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../../docs/schema/cli.schema.json")).unwrap();
    let schema = serde_json::json!({"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": "#/$defs/compare"});
    assert_eq!(jsonschema::validate(&schema, &found).map_err(|error| error.to_string()), Ok(()));
    let changes: Vec<&str> =
        found["steps"].as_array().unwrap().iter().map(|step| step["change"].as_str().unwrap()).collect();
    assert_eq!(changes, ["changed", "changed", "changed", "changed", "added"]);
}

#[test]
fn a_comparison_as_a_page_holds_no_markup_of_a_run() {
    let mut store = Store::new();
    let (a, b) = (store.record_agent(1).to_string(), store.record_other_agent().to_string());
    let file = store.path().join("page.html");
    let answer = runspan(store.path(), &["compare", &a, &b, "--html", file.to_str().unwrap()]);
    assert_eq!(answer.code, 1);
    assert!(answer.out.starts_with("different: "), "{}", answer.out);
    // Prompts and answers are for whoever has the store.
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let page = std::fs::read_to_string(file).unwrap();
    assert!(page.contains("Look at <mark>&lt;/script&gt;"), "{page}");
    for hidden in ["<script", "</script>", "<b>", "\u{202e}", "\u{1b}"] {
        assert!(!page.contains(hidden), "{hidden:?}: {page}");
    }
}
