use super::*;
use crate::model::otlp::SpanEvent;
use crate::model::otlp::{KeyValue, Status};
use serde_json::json;

fn span(attributes: &[(&str, Value)]) -> Span {
    let attributes = attributes
        .iter()
        .map(|(key, value)| KeyValue { key: (*key).into(), value: Some(value.clone().into()) })
        .collect();
    Span { name: "work".into(), end_time_unix_nano: 2, attributes, ..Span::default() }
}

fn event(name: &str, attributes: &[(&str, Value)]) -> SpanEvent {
    SpanEvent { name: name.into(), attributes: span(attributes).attributes, ..SpanEvent::default() }
}

fn outcome(span: &Span) -> (StepStatus, Option<ErrorInfo>) {
    let facts = StepFacts::of(span, None, None);
    (facts.status, facts.error)
}

fn told(kind: &str, message: Option<&str>) -> Option<ErrorInfo> {
    Some(ErrorInfo { kind: Some(kind.into()), message: message.map(Into::into), step_id: None })
}

#[test]
fn the_port_of_this_machine_is_known_of_who_asked_there_and_of_who_passed_on() {
    let port = |attributes: &[(&str, Value)]| {
        let mut span = Span::default();
        attributes.iter().for_each(|(key, value)| span.set_attr(key, value.clone()));
        StepFacts::of(&span, None, None).local_port
    };
    let at = |host: &str, port| [(names::SERVER_ADDRESS, host.into()), (names::SERVER_PORT, port)];
    for host in ["127.0.0.1", "localhost", "::1"] {
        assert_eq!(port(&at(host, Value::Int(36911))), Some(36911), "{host}");
    }
    assert_eq!(port(&at("127.0.0.1", "36911".into())), Some(36911));
    assert_eq!(port(&at("api.openai.com", Value::Int(443))), None);
    assert_eq!(port(&at("127.0.0.1", Value::Int(70_000))), None);
    // Whom it was passed on to may be on this machine as well.
    let relayed = [&at("127.0.0.1", Value::Int(11434))[..], &[(names::RELAYED, Value::Bool(true))]].concat();
    assert_eq!(port(&relayed), None);
    let relayed = [&relayed[..], &[(names::RELAY_PORT, Value::Int(36911))]].concat();
    assert_eq!(port(&relayed), Some(36911));
}

#[test]
fn a_model_call_gives_all_its_facts() {
    let span = span(&[
        (names::OPERATION, "chat".into()),
        (names::PROVIDER, "openai".into()),
        (names::REQUEST_MODEL, "gpt-4o-mini".into()),
        (names::RESPONSE_MODEL, "gpt-4o-mini-2024-07-18".into()),
        (names::RESPONSE_ID, "resp-1".into()),
        (names::FINISH_REASONS, r#"["stop"]"#.into()),
        (names::AGENT_NAME, "weather".into()),
        (names::CONVERSATION_ID, Value::Int(7)),
        (names::INPUT_TOKENS, Value::Int(211)),
        (names::OUTPUT_TOKENS, Value::Int(37)),
        (names::CACHE_READ_TOKENS, Value::Int(0)),
        (names::COST_USD, Value::Double(0.000_049_05)),
        (names::COST_SOURCE, "computed".into()),
        (names::SYSTEM_INSTRUCTIONS, r#"[{"type":"text","content":"Be brief."}]"#.into()),
        (names::INPUT_MESSAGES, r#"[{"role":"user","parts":[]}]"#.into()),
        (names::OUTPUT_MESSAGES, "not JSON".into()),
        (names::TAGS, r#"["a","b"]"#.into()),
    ]);
    let resource = Resource {
        attributes: vec![
            KeyValue { key: names::RUN_ID.into(), value: Some(Value::from("01KE9BZH80BGEY5ABZ7D0DHDQ1").into()) },
            KeyValue { key: names::USER_ID.into(), value: Some(Value::from("user-42").into()) },
        ],
        ..Resource::default()
    };
    let facts = StepFacts::of(&span, Some(&resource), None);
    assert_eq!(facts.model(), Some("gpt-4o-mini-2024-07-18"));
    assert_eq!(
        facts,
        StepFacts {
            kind: StepKind::Llm,
            is_genai: true,
            name: "work".into(),
            step_name: "chat".into(),
            agent_name: Some("weather".into()),
            agent_id: Some("weather".into()),
            makes_agent: false,
            workflow_name: None,
            tool_name: None,
            tool_call_id: None,
            is_at_wire: false,
            is_client: false,
            is_of_client: false,
            is_always_well: false,
            ends_in_either: false,
            ends_agent: false,
            deals_with_failure: false,
            is_declared_well: false,
            is_handshake: false,
            is_experiment: false,
            is_command: false,
            tells_own_use: false,
            marks: Some(Box::new(Marks {
                input: Some(crc32c::crc32c(br#"[{"role":"user","parts":[]}]"#)),
                ..Marks::default()
            })),
            in_loop: None,
            told: None,
            is_relayed: false,
            local_port: None,
            provider: Some("openai".into()),
            request_model: Some("gpt-4o-mini".into()),
            response_model: Some("gpt-4o-mini-2024-07-18".into()),
            session_id: Some("7".into()),
            user_id: Some("user-42".into()),
            external_id: None,
            tags: vec!["a".into(), "b".into()],
            run_id: "01KE9BZH80BGEY5ABZ7D0DHDQ1".parse().ok(),
            names_run: false,
            parent_run_id: None,
            replay_of: None,
            budget: None,
            tokens: Some(Tokens {
                prompt: Some(211),
                completion: Some(37),
                total: Some(248),
                cache_read: Some(0),
                cache_write: None,
                reasoning: None,
            }),
            cost: Some((NanoUsd(49_050), CostSource::Computed)),
            billed: true,
            status: StepStatus::Success,
            error: None,
            error_span: None,
            response_id: Some("resp-1".into()),
            finish_reasons: vec!["stop".into()],
            content: Box::new(StepContent {
                input: Some(json!([{"role": "user", "parts": []}]).into()),
                output: Some(json!("not JSON").into()),
                system_prompt: Some(json!([{"type": "text", "content": "Be brief."}]).into()),
                messages: Some(json!([{"role": "user", "parts": []}]).into()),
                tool_args: None,
                tool_result: None,
            }),
        }
    );
}

#[test]
fn a_plain_span_is_a_task_and_says_nothing() {
    let mut open = span(&[(names::CONVERSATION_ID, "s".into()), ("http.route", "/".into())]);
    open.end_time_unix_nano = 0;
    let facts = StepFacts::of(&open, None, None);
    assert_eq!(
        (facts.kind, facts.is_genai, facts.billed, facts.tokens, facts.cost, facts.status),
        (StepKind::Task, false, false, None, None, StepStatus::Running)
    );
    assert_eq!(facts.session_id.as_deref(), Some("s"));
}

#[test]
fn status_is_read_from_status_error_type_events_and_our_own_word() {
    let plain = span(&[]);
    assert_eq!(outcome(&plain), (StepStatus::Success, None));

    let mut by_status = span(&[(names::ERROR_TYPE, "RateLimitError".into())]);
    by_status.status = Some(Status { code: 2, message: "slow down".into() });
    assert_eq!(outcome(&by_status), (StepStatus::Error, told("RateLimitError", Some("slow down"))));

    for (class, status) in [
        ("APITimeoutError", StepStatus::Timeout),
        ("DEADLINE_EXCEEDED", StepStatus::Timeout),
        ("asyncio.exceptions.CancelledError", StepStatus::Cancelled),
        ("KeyboardInterrupt", StepStatus::Cancelled),
        ("SIGINT", StepStatus::Cancelled),
        ("DesignInterfaceError", StepStatus::Error),
        ("_OTHER", StepStatus::Error),
    ] {
        assert_eq!(outcome(&span(&[(names::ERROR_TYPE, class.into())])), (status, told(class, None)));
    }

    let mut by_exception = span(&[]);
    by_exception.parent_span_id = vec![1; 8];
    by_exception.events = vec![event(
        "exception",
        &[(names::EXCEPTION_TYPE, "RuntimeError".into()), (names::EXCEPTION_MESSAGE, "service down".into())],
    )];
    assert_eq!(outcome(&by_exception), (StepStatus::Error, told("RuntimeError", Some("service down"))));
    // Whoever set OK had seen the exception and dealt with it.
    by_exception.status = Some(Status { code: 1, message: String::new() });
    assert_eq!(outcome(&by_exception), (StepStatus::Success, None));
    by_exception.set_attr(names::ERROR_TYPE, "RuntimeError");
    assert_eq!(outcome(&by_exception), (StepStatus::Success, None));

    let mut by_event = span(&[]);
    by_event.events = vec![event("failed", &[("level", "ERROR".into()), ("error", "disk full".into())])];
    let said = ErrorInfo { message: Some("disk full".into()), ..ErrorInfo::default() };
    assert_eq!(outcome(&by_event), (StepStatus::Error, Some(said)));
    by_event.events = vec![event("failed", &[("level", "ERROR".into())])];
    assert_eq!(outcome(&by_event), (StepStatus::Success, None));

    let mut own = span(&[(names::STEP_STATUS, "crashed".into())]);
    own.end_time_unix_nano = 0;
    assert_eq!(outcome(&own), (StepStatus::Crashed, Some(ErrorInfo::default())));
}

#[test]
fn a_recorded_exception_alone_is_no_failure_of_what_went_on_behind_it() {
    let status = |parent: u8, list: &[(&str, Value)], of_exception: &[(&str, Value)]| {
        let mut span = span(list);
        span.parent_span_id = vec![parent; usize::from(parent) * 8];
        span.events = vec![event("exception", of_exception)];
        outcome(&span).0
    };
    let (chat, tool) = ([(names::OPERATION, "chat".into())], [(names::OPERATION, "execute_tool".into())]);
    let with = |own: &[(&'static str, Value)], key: &'static str, value: Value| [own, &[(key, value)]].concat();
    // A root would say by its status that it failed; a step tells so by nothing else.
    assert_eq!(status(0, &[], &[]), StepStatus::Success);
    assert_eq!(status(0, &[], &[("exception.escaped", "True".into())]), StepStatus::Error);
    let wrote_nothing = with(&chat, names::OUTPUT_TOKENS, Value::Int(0));
    // A stream that broke off has written something.
    let wrote = with(&chat, names::OUTPUT_MESSAGES, r#"[{"role":"assistant"}]"#.into());
    for list in [&[][..], &chat, &tool, &wrote_nothing, &wrote] {
        assert_eq!(status(1, list, &[]), StepStatus::Error);
    }
    assert_eq!((status(0, &chat, &[]), status(0, &tool, &[])), (StepStatus::Error, StepStatus::Error));
    for list in
        [with(&chat, names::FINISH_REASONS, r#"["stop"]"#.into()), with(&tool, names::TOOL_RESULT, "sunny".into())]
    {
        assert_eq!(status(1, &list, &[]), StepStatus::Success);
    }
}

#[test]
fn step_names_are_short_single_words() {
    let long = "x".repeat(100);
    for (name, expected) in [
        ("get weather\n now", "get-weather-now"),
        ("\u{202e}evil\u{1b}[31m", "evil-[31m"),
        ("  \t", "task"),
        (long.as_str(), &long[..80]),
    ] {
        assert_eq!(step_name(name, StepKind::Task), expected);
    }
    let tool = span(&[(names::OPERATION, "execute_tool".into()), (names::TOOL_NAME, "get_weather".into())]);
    assert_eq!(StepFacts::of(&tool, None, None).step_name, "get_weather");
    let guardrail = span(&[(names::STEP_KIND, "guardrail".into())]);
    assert_eq!(StepFacts::of(&guardrail, None, None).step_name, "work");
}

#[test]
fn nobody_is_paid_for_a_call() {
    let cost = |usd: f64| StepFacts::of(&span(&[(names::COST_USD, usd.into())]), None, None).cost;
    assert_eq!((cost(-1.0), cost(f64::NAN)), (None, None));
    assert_eq!(cost(0.5), Some((NanoUsd(500_000_000), CostSource::Reported)));
}

#[test]
fn a_client_is_known_by_the_kind_of_its_span_or_by_who_made_it() {
    let is_client = |kind: i32, scope: &str| {
        let scope = Scope { name: scope.to_owned(), ..Scope::default() };
        let span = Span { kind, ..span(&[(names::OPERATION, "chat".into())]) };
        StepFacts::of(&span, None, Some(&scope)).is_client
    };
    assert!(is_client(SPAN_KIND_CLIENT, "any"));
    assert!(is_client(1, "openinference.instrumentation.openai"));
    assert!(!is_client(1, "openinference.instrumentation.openai_agents"));
    assert!(!is_client(1, "openinference.instrumentation.langchain"));
}

#[test]
fn what_is_said_too_much_is_cut_with_a_mark_and_never_again() {
    let long = "€\u{1}".repeat(1 << 18);
    let tags = serde_json::Value::from(vec![long.as_str(); 100]).to_string();
    let mut span = span(&[
        (names::OPERATION, "execute_tool".into()),
        (names::TOOL_NAME, long.as_str().into()),
        (names::CONVERSATION_ID, long.as_str().into()),
        (names::TAGS, tags.into()),
        (names::ERROR_TYPE, format!("{long}Timeout").into()),
    ]);
    span.status = Some(Status { code: 2, message: long.clone() });
    let facts = StepFacts::of(&span, None, None);
    let session = facts.session_id.unwrap();
    // With two bytes more it would end within a character.
    assert!(session == format!("{}[cut:1047580]", "€\u{1}".repeat(249)));
    assert_eq!(short(session.clone()), session);
    assert_eq!((facts.tool_name.as_ref(), facts.tags), (Some(&session), vec![session.clone(); 64]));
    assert_eq!(facts.step_name, "€-".repeat(40));
    let error = facts.error.unwrap();
    // The whole text was looked at for what sort of failure it was.
    assert_eq!((facts.status, error.kind.unwrap().len()), (StepStatus::Timeout, session.len()));
    assert!(error.message.unwrap() == format!("{}[cut:1044508]", "€\u{1}".repeat(1017)));
    span.name = "x".repeat(1024);
    assert_eq!(StepFacts::of(&span, None, None).name, span.name);
}

#[test]
fn numbers_below_zero_are_not_counts() {
    let span = span(&[(names::INPUT_TOKENS, Value::Int(-1)), (names::OUTPUT_TOKENS, "many".into())]);
    assert_eq!(StepFacts::of(&span, None, None).tokens, None);
}
