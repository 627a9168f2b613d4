//! Frameworks for Go.

use super::*;

/// ADK 2.2 for Go with Gemini and with its model of OpenAI's, whose contexts were cancelled.
#[test]
fn an_error_of_a_context_of_go_says_how_the_work_ended() {
    let of = |class: Option<&str>, message: &str| {
        let mut record = ended(&[("gen_ai.operation.name", "chat".into())]);
        record.span.status = Some(Status { code: STATUS_ERROR, message: message.to_owned() });
        let class = class.map(|class| ("exception.type", Value::from(class)));
        let list: Vec<_> = class.into_iter().chain([("exception.message", message.into())]).collect();
        record.span.events = vec![event("exception", &list)];
        facts(&record).status
    };
    let wrapped = "openai: call failed: context canceled";
    assert_eq!(of(Some("*errors.errorString"), "context canceled"), StepStatus::Cancelled);
    assert_eq!(of(Some("*fmt.wrapError"), wrapped), StepStatus::Cancelled);
    assert_eq!(of(Some("*url.Error"), "Post \"http://127.0.0.1/v1\": context canceled"), StepStatus::Cancelled);
    assert_eq!(of(None, wrapped), StepStatus::Cancelled);
    assert_eq!(of(None, "read after timeout: context canceled"), StepStatus::Cancelled);
    let late = "failed to call model: context deadline exceeded";
    assert_eq!(of(Some("*fmt.wrapError"), late), StepStatus::Timeout);
    assert_eq!(of(None, late), StepStatus::Timeout);
    // Of any other class, or with more behind it, it is not said of the work itself.
    assert_eq!(of(Some("*genai.APIError"), wrapped), StepStatus::Error);
    assert_eq!(of(Some("*fmt.wrapError"), "the server said context canceled, and went on"), StepStatus::Error);
    assert_eq!(of(Some("*fmt.wrapError"), "no context canceled"), StepStatus::Error);
}
