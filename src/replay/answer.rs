//! What came of a call: an answer, a failure, or a gap in the recording.

use std::fmt;
use std::time::Duration;

use serde_json::Value as Json;

use super::conversation::{Message, Part, conversation, parts};
use crate::conventions::names;
use crate::model::json_text::JsonText;
use crate::model::otlp::{Span, Value};
use crate::model::{StepKind, StepStatus, Tokens};
use crate::pipeline::facts::StepFacts;
use crate::pipeline::scrub::{CONTENT_MARK, ends_in_a_cut};

const FIRST_CHUNK: &str = "gen_ai.response.time_to_first_chunk";
/// Why an answer stopped that says itself that it failed: OpenAI's responses.
pub(super) const FAILED: &str = "failed";

/// What a model answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The provider's id of it.
    pub id: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// One, most often; none for vectors.
    pub choices: Vec<Choice>,
    /// What it used, as it was billed when it was recorded.
    pub tokens: Option<Tokens>,
    /// What of it was written to a cache for an hour.
    pub cache_write_1h: Option<u64>,
    /// The class of service that it was billed as, in the provider's word.
    pub service_tier: Option<String>,
    /// The vectors, as the service sent them.
    pub embeddings: Vec<Json>,
    /// Secrets that were taken out of it; a mark stands in the place of each.
    pub redacted: usize,
}

/// One of a model's answers to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// What it said.
    pub message: Message,
    /// Why it stopped, in the provider's word.
    pub finish_reason: Option<String>,
}

/// A tool that the model asked for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AskedTool<'a> {
    /// How the provider names the call.
    pub id: Option<&'a str>,
    /// The tool.
    pub name: &'a str,
    /// What it is to be given.
    pub arguments: &'a Json,
}

impl Answer {
    /// Makes an answer that says a text and stops, for what was not recorded.
    pub fn of_text(id: impl Into<String>, text: impl Into<String>) -> Self {
        let message = Message { role: "assistant".to_owned(), parts: vec![Part::Text(text.into())] };
        Self {
            id: Some(id.into()),
            model: None,
            choices: vec![Choice { message, finish_reason: Some("stop".to_owned()) }],
            tokens: None,
            cache_write_1h: None,
            service_tier: None,
            embeddings: Vec::new(),
            redacted: 0,
        }
    }

    /// Returns what the model said, without reasoning.
    pub fn text(&self) -> String {
        let parts = self.choices.first().map(|choice| choice.message.parts.as_slice()).unwrap_or_default();
        let texts = parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    /// Returns the id that the provider gave it, also of one that was given again.
    pub fn original_id(&self) -> Option<&str> {
        self.id.as_deref().map(super::request::original_id)
    }

    /// Returns the tools that the model asked for.
    pub fn tool_calls(&self) -> impl Iterator<Item = AskedTool<'_>> {
        let parts = self.choices.first().map(|choice| choice.message.parts.as_slice()).unwrap_or_default();
        parts.iter().filter_map(|part| match part {
            Part::ToolCall { id, name, arguments } => Some(AskedTool { id: id.as_deref(), name, arguments }),
            _ => None,
        })
    }
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The HTTP status, where it is known.
    pub status: Option<u16>,
    /// Class of the error.
    pub kind: Option<String>,
    /// What was said.
    pub message: Option<String>,
    /// What the model had answered before it: of a stream that ended in an error, and of an answer that says itself that it
    /// failed.
    pub answered: Option<Box<Answer>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_deref().unwrap_or("error");
        match &self.message {
            Some(message) => write!(f, "{kind}: {message}"),
            None => f.write_str(kind),
        }
    }
}

/// How a recorded call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Answer(Box<Answer>),
    /// With the beginning of a stream, whose end the agent did not wait for.
    Left {
        /// As far as it had come.
        answer: Box<Answer>,
        /// When the agent left it, from its request on.
        after: Duration,
    },
    /// With an error that the agent was told.
    Failure(Failure),
}

/// Why a recording has no answer to a call that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Content policy kept nothing of what was said.
    Policy,
    /// Who told of the call did not tell what was said.
    NotTold,
    /// It was too large to be kept whole.
    Cut,
    /// The call ended, by this status, before its answer was there.
    NotAnswered(StepStatus),
    /// The vectors of an embedding are not kept.
    NoVectors,
}

impl Gap {
    /// Returns the word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::NotTold => "not_told",
            Self::Cut => "cut",
            Self::NotAnswered(_) => "not_answered",
            Self::NoVectors => "no_vectors",
        }
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => f.write_str("its content was not kept, by policy (content none)"),
            Self::NotTold => {
                f.write_str("the program did not tell what was answered; its instrumentation has a switch for content")
            }
            Self::Cut => f.write_str("its answer was cut, for it was too large to be kept whole"),
            Self::NotAnswered(status) => write!(f, "it ended as {status}, before it was answered"),
            Self::NoVectors => f.write_str("its vectors are not in the recording"),
        }
    }
}

/// Reads how a call ended.
pub(super) fn outcome(span: &Span, facts: &StepFacts, status: StepStatus) -> Result<Outcome, Gap> {
    match status {
        StepStatus::Success => answer(span, facts, false).map(|answer| Outcome::Answer(Box::new(answer))),
        StepStatus::Cancelled if is_stream(span, facts) => {
            let took = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
            let answer = Box::new(answer(span, facts, true)?);
            Ok(Outcome::Left { answer, after: Duration::from_nanos(took) })
        }
        StepStatus::Running | StepStatus::Crashed | StepStatus::Cancelled => Err(Gap::NotAnswered(status)),
        StepStatus::Error | StepStatus::Timeout => failure(span, facts, status),
    }
}

/// Tells whether an answer was seen to begin as a stream.
fn is_stream(span: &Span, facts: &StepFacts) -> bool {
    facts.is_relayed && span.attr(FIRST_CHUNK).is_some()
}

/// Reads what was answered; of a part of it there may be nothing yet.
fn answer(span: &Span, facts: &StepFacts, is_part: bool) -> Result<Answer, Gap> {
    let cut = span.attr_str(names::CUT);
    let absent = || match cut {
        Some(_) => Gap::Cut,
        None if span.attr(CONTENT_MARK).is_some() => Gap::Policy,
        None => Gap::NotTold,
    };
    let tiers = [names::OPENAI_SERVICE_TIER, names::SERVICE_TIER];
    let mut answer = Answer {
        id: facts.response_id.clone(),
        model: facts.model().map(str::to_owned),
        choices: Vec::new(),
        tokens: facts.tokens,
        cache_write_1h: span
            .attr(names::CACHE_WRITE_1H_TOKENS)
            .and_then(Value::as_i64)
            .and_then(|n| u64::try_from(n).ok()),
        service_tier: tiers.iter().find_map(|key| span.attr_str(key)).map(str::to_owned),
        embeddings: Vec::new(),
        redacted: 0,
    };
    if facts.kind == StepKind::Embedding {
        let vectors = span.attr(names::EMBEDDINGS).map(Value::to_json);
        let Some(Json::Array(vectors)) = vectors else {
            return Err(match absent() {
                Gap::NotTold => Gap::NoVectors,
                gap => gap,
            });
        };
        answer.embeddings = vectors;
        return Ok(answer);
    }
    let reasons = facts.finish_reasons.iter().map(|reason| Some(reason.clone())).chain(std::iter::repeat(None));
    let Some(output) = facts.content.output.as_ref().map(JsonText::value) else {
        // One that says why it stopped and nothing else said nothing.
        let is_empty = facts.is_relayed && cut.is_none() && (is_part || !facts.finish_reasons.is_empty());
        let is_kept = span.attr(CONTENT_MARK).is_none();
        if !is_empty || !is_kept {
            return Err(absent());
        }
        let said = |finish_reason| Choice { message: assistant(Vec::new()), finish_reason };
        answer.choices = facts.finish_reasons.iter().cloned().map(|reason| said(Some(reason))).collect();
        return Ok(answer);
    };
    if cut.is_some_and(|what| what != "request") || ends_cut(&output) {
        return Err(Gap::Cut);
    }
    answer.redacted = marks(&output);
    let messages = conversation(&output).unwrap_or_else(|| vec![assistant(parts(&output))]);
    let own = output.as_array().map(Vec::as_slice).unwrap_or_default();
    let own = own.iter().map(|message| message.get("finish_reason").and_then(Json::as_str).map(str::to_owned));
    let own = own.chain(std::iter::repeat(None));
    let choices = messages.into_iter().zip(reasons).zip(own);
    answer.choices = choices.map(|((message, told), own)| Choice { message, finish_reason: told.or(own) }).collect();
    if is_one_answer_in_pieces(&answer) {
        answer.choices = vec![joined(std::mem::take(&mut answer.choices))];
    }
    if answer.choices.first().is_some_and(lacks_tools) {
        return Err(Gap::NotTold);
    }
    Ok(answer)
}

fn assistant(parts: Vec<Part>) -> Message {
    Message { role: "assistant".to_owned(), parts }
}

/// Several messages are several choices only when each says why it stopped.
fn is_one_answer_in_pieces(answer: &Answer) -> bool {
    answer.choices.len() > 1 && answer.choices.iter().any(|choice| choice.finish_reason.is_none())
}

/// Tells whether a model is said to have asked for tools, and not for which.
fn lacks_tools(choice: &Choice) -> bool {
    let word = choice.finish_reason.as_deref().unwrap_or_default().to_ascii_lowercase();
    let has_tools = choice.message.parts.iter().any(|part| matches!(part, Part::ToolCall { .. } | Part::Other(_)));
    word.contains("tool") && !has_tools
}

fn joined(choices: Vec<Choice>) -> Choice {
    let finish_reason = choices.iter().rev().find_map(|choice| choice.finish_reason.clone());
    let parts = choices.into_iter().flat_map(|choice| choice.message.parts).collect();
    Choice { message: assistant(parts), finish_reason }
}

fn failure(span: &Span, facts: &StepFacts, status: StepStatus) -> Result<Outcome, Gap> {
    let error = facts.error.clone().unwrap_or_default();
    // What broke off or came too late was not answered; an agent that is told so again would wait again.
    if status == StepStatus::Timeout || error.kind.as_deref() == Some("broken_off") {
        return Err(Gap::NotAnswered(status));
    }
    let code = span.attr("http.response.status_code").and_then(Value::as_i64);
    let code = code.or_else(|| error.kind.as_deref()?.parse().ok());
    let code = code.and_then(|code| u16::try_from(code).ok());
    // What the program saw is known where it was seen on its way; others tell of what they made of it.
    let is_well = code.is_some_and(|code| (200..300).contains(&code)) && facts.is_relayed;
    let has_answer = is_well && (is_stream(span, facts) || facts.finish_reasons.iter().any(|reason| reason == FAILED));
    let answered = if has_answer { Some(Box::new(answer(span, facts, true)?)) } else { None };
    let status = code.filter(|code| is_well || (400..600).contains(code));
    Ok(Outcome::Failure(Failure { status, kind: error.kind, message: error.message, answered }))
}

/// Tells whether a text in a value was cut.
fn ends_cut(value: &Json) -> bool {
    match value {
        Json::String(text) => ends_in_a_cut(text),
        Json::Array(list) => list.iter().any(ends_cut),
        Json::Object(members) => members.values().any(ends_cut),
        _ => false,
    }
}

/// Counts the marks of redaction in a value.
fn marks(value: &Json) -> usize {
    match value {
        Json::String(text) => text.matches("[redacted:").count(),
        Json::Array(list) => list.iter().map(marks).sum(),
        Json::Object(members) => members.values().map(marks).sum(),
        _ => 0,
    }
}
