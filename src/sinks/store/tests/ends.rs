//! How a run ended, where some of its steps did not end well.

use super::*;
use crate::model::StepStatus;
use crate::model::otlp::Status;

const FAILED: [(&str, &str); 2] = [(names::ERROR_TYPE, "E"), (names::ERROR_MESSAGE, "no such file")];
const CANCELLED: [(&str, &str); 1] = [(names::STEP_STATUS, "cancelled")];

fn with(mut record: Record, list: &[(&str, &str)]) -> Record {
    for (key, value) in list {
        record.span.set_attr(key, *value);
    }
    record
}

fn well(mut record: Record) -> Record {
    record.span.status = Some(Status { code: 1, message: String::new() });
    record
}

fn of_command(mut record: Record) -> Record {
    record.scope.name = names::SCOPE_EXEC.to_owned();
    record
}

/// The one run of these, and how each of its steps ended.
fn run_of(records: Vec<Record>) -> (RunSummary, Vec<StepStatus>) {
    let mut sink = outside_sink();
    for (seq, record) in (1..).zip(records) {
        sink.take(seq, record).unwrap();
    }
    sink.flush_all().unwrap();
    let store = sink.into_writer();
    let Some(Listed::Run(run)) = store.list_runs(&Query::default()).unwrap().pop() else { panic!("damaged") };
    let steps = store.get_steps(run.summary.run_id).unwrap();
    (run.summary, steps.iter().map(|step| step.status).collect())
}

fn message(run: &RunSummary) -> Option<&str> {
    run.error.as_ref()?.message.as_deref()
}

/// Agno by OpenInference, with a stream that was given up: the agents after it are below it.
#[test]
fn what_begins_after_a_root_that_ended_well_does_not_decide_how_the_run_ended() {
    let run = |root: Record| {
        run_of(vec![
            root,
            ended(3, 2, 1, "chat", 10, 20),
            ended(3, 3, 1, "invoke_agent", 60, 80),
            with(ended(3, 4, 3, "chat", 61, 70), &CANCELLED),
            with(ended(3, 5, 1, "invoke_agent", 60, 65), &FAILED),
        ])
        .0
    };
    let root = ended(3, 1, 0, "invoke_agent", 0, 50);
    let told = run(well(root.clone()));
    assert_eq!((told.status, message(&told), told.errors), (RunStatus::Success, None, 2));
    // One that says nothing of how it went.
    assert_eq!(run(root).status, RunStatus::Cancelled);
}

#[test]
fn a_failure_of_before_is_not_why_a_run_was_cancelled() {
    let (run, _) = run_of(vec![
        ended(3, 1, 0, "invoke_workflow", 0, 90),
        ended(3, 2, 1, "invoke_agent", 0, 80),
        with(ended(3, 3, 2, "execute_tool", 10, 20), &FAILED),
        with(ended(3, 4, 1, "chat", 40, 60), &[CANCELLED[0], (names::ERROR_MESSAGE, "it did not wait")]),
    ]);
    assert_eq!((run.status, message(&run), run.errors), (RunStatus::Cancelled, Some("it did not wait"), 2));
}

#[test]
fn a_plain_step_apart_from_the_work_has_not_failed_for_the_run() {
    let errors = |above: u8, root: Record| {
        let run = vec![
            root,
            ended(3, 2, 1, "invoke_agent", 10, 50),
            ended(3, 3, 2, "chat", 11, 20),
            with(ended(3, 4, 2, "execute_tool", 21, 30), &FAILED),
            // A hand of the tool's in its time, and something else.
            with(ended(3, 5, 1, "", 22, 29), &FAILED),
            with(ended(3, 6, above, "", 2, 3), &[(names::ERROR_TYPE, "F"), (names::ERROR_MESSAGE, "no settings")]),
        ];
        run_of(run).0.errors
    };
    let command = || of_command(ended(3, 1, 0, "invoke_workflow", 0, 90));
    assert_eq!((errors(1, command()), errors(1, ended(3, 1, 0, "", 0, 90))), (1, 2));
    // Below the agent, and of a workflow that is the work itself. But for a command, all is of the work.
    assert_eq!((errors(2, command()), errors(1, ended(3, 1, 0, "invoke_workflow", 0, 90))), (2, 2));
}

/// LangChain in JavaScript, by OpenInference.
#[test]
fn a_call_whose_node_was_stopped_as_it_ended_was_stopped_too() {
    let call = |list: &[(&str, &str)], end: u64| {
        let (_, steps) = run_of(vec![
            with(ended(3, 1, 0, "invoke_agent", 0, 90), &CANCELLED),
            with(ended(3, 2, 1, "node", 10, 80), &[CANCELLED[0], (names::ERROR_MESSAGE, "This operation was aborted")]),
            with(ended(3, 3, 2, "chat", 12, end), list),
        ]);
        steps[2]
    };
    assert_eq!(call(&[], 78), StepStatus::Cancelled);
    // It was over before, or says why it ended.
    assert_eq!(call(&[], 20), StepStatus::Success);
    assert_eq!(call(&[(names::FINISH_REASONS, r#"["stop"]"#)], 78), StepStatus::Success);
}

/// Claude Code by Logfire: the agent has a class alone. Of Mastra's of before (`@mastra/core` 0.10) it is known that it failed.
#[test]
fn an_agent_that_gives_no_reason_has_that_of_its_last_call() {
    let run_by = |class: &str, list: &[(&str, &str)]| {
        let (run, _) = run_of(vec![
            with(ended(3, 1, 0, "invoke_agent", 0, 90), &[(names::ERROR_TYPE, class)]),
            with(ended(3, 2, 1, "execute_tool", 5, 9), &FAILED),
            with(ended(3, 3, 1, "chat", 10, 80), list),
        ]);
        let error = run.error.unwrap();
        (error.kind.unwrap(), error.message)
    };
    let run = |list: &[(&str, &str)]| run_by("400", list);
    let failed = [(names::ERROR_TYPE, "unknown"), (names::ERROR_MESSAGE, "API Error: 400")];
    assert_eq!(run_by("_OTHER", &failed), ("unknown".to_owned(), Some("API Error: 400".to_owned())));
    assert_eq!(run_by("_OTHER", &[]).0, "_OTHER");
    // What the agent says of itself is no failure of the call.
    let own = |message: &'static str| {
        let own = [(names::ERROR_TYPE, "_OTHER"), (names::ERROR_MESSAGE, message)];
        let (run, _) = run_of(vec![
            with(ended(3, 1, 0, "invoke_agent", 0, 90), &own),
            with(ended(3, 3, 1, "chat", 10, 80), &failed),
        ]);
        run.error.unwrap().kind.unwrap()
    };
    assert_eq!(own("validation of the plan failed"), "_OTHER");
    assert_eq!(own("the model: API Error: 400"), "unknown");
    assert_eq!(run(&failed), ("400".to_owned(), Some("API Error: 400".to_owned())));
    assert_eq!(run(&[]), ("400".to_owned(), None));
}

/// `pydantic-evals` 5.4: each case is a conversation of its own.
#[test]
fn an_experiment_is_none_of_the_conversations_of_its_cases() {
    let session = |operation: &str, own: &[(&str, &str)]| {
        let case =
            |id: u8, session: &str| with(ended(3, id, 1, "invoke_agent", 5, 9), &[(names::CONVERSATION_ID, session)]);
        run_of(vec![with(ended(3, 1, 0, operation, 0, 90), own), case(2, "a"), case(3, "b")]).0.session_id
    };
    assert_eq!(session("experiment", &[]), None);
    assert_eq!(session("experiment", &[(names::CONVERSATION_ID, "mine")]).as_deref(), Some("mine"));
    assert_eq!(session("invoke_workflow", &[]).as_deref(), Some("a"));
}

/// LangChain's call by OpenLIT, which says that it went well, around that of the client, which failed.
#[test]
fn a_call_without_an_answer_ended_as_the_client_below_it_says() {
    let run = |answer: &[(&str, &str)]| {
        let [outer, inner] = [(2, 1, 10, 40), (3, 2, 12, 38)]
            .map(|(id, parent, from, to)| with(ended(3, id, parent, "chat", from, to), &[(names::REQUEST_MODEL, "m")]));
        run_of(vec![
            ended(3, 1, 0, "invoke_agent", 0, 50),
            with(well(outer), answer),
            with(with(inner, &FAILED), &[("server.address", "h")]),
        ])
    };
    let (told, steps) = run(&[]);
    assert_eq!((told.status, message(&told), told.llm_calls), (RunStatus::Error, Some("no such file"), 1));
    assert_eq!(steps, [StepStatus::Success, StepStatus::Success, StepStatus::Error]);
    assert_eq!(run(&[(names::RESPONSE_ID, "a")]).0.status, RunStatus::Success);
}

/// Strands never sends the turn around a call that failed.
#[test]
fn a_run_whose_root_has_ended_around_its_steps_does_not_wait_long_for_parents_of_theirs() {
    let open = |root: Record| {
        let mut sink = outside_sink();
        for (seq, record) in (1..).zip([with(ended(3, 3, 2, "chat", 10, 20), &FAILED), root]) {
            sink.take(seq, record).unwrap();
        }
        sink.flush_all().unwrap();
        assert_eq!(sink.open_runs().len(), 1);
        sink.flush(Instant::now() + WITHIN).unwrap();
        sink.flush(Instant::now() + WITHIN).unwrap();
        (sink.open_runs().len(), listed(sink)[0].status)
    };
    assert_eq!(open(with(ended(3, 1, 0, "invoke_agent", 0, 50), &FAILED)), (0, RunStatus::Error));
    // What goes on behind it may be anybody's.
    assert_eq!(open(with(ended(3, 1, 0, "invoke_agent", 0, 15), &FAILED)), (1, RunStatus::Running));
}
