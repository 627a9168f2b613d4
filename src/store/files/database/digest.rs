//! What the index keeps of a run's events: a row a step, and what the results of its tools cost the calls after them.

use std::collections::HashMap;

use serde_json::Value as Json;

use crate::conventions::names;
use crate::model::event::LlmCalled;
use crate::model::json_text::JsonText;
use crate::model::otlp::{Span, Value};
use crate::model::{Event, EventBody, NanoUsd, RunSummary, SpanId};
use crate::store::StoreError;
use crate::store::assembly::accounts::Account;
use crate::store::files::FilesReader;

/// A run, read.
#[derive(Debug)]
pub(super) struct Digest {
    /// The run as it stands.
    pub run: RunSummary,
    pub steps: Vec<Row>,
}

/// A step, and what is known of it beyond its account.
#[derive(Debug)]
pub(super) struct Row {
    pub account: Account,
    /// Microseconds until the first piece of an answer came.
    pub first_token_us: Option<u64>,
    /// What the result of a tool call used in the model calls that had it in their input.
    pub caused: Option<Caused>,
}

/// The estimate of what a tool's result used and cost afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Caused {
    pub tokens: u64,
    /// `None` unless a call with it in its input has a cost.
    pub cost: Option<NanoUsd>,
}

/// Reads a run, of which the index knows the summary.
pub(super) fn digest(reader: &FilesReader, known: &RunSummary) -> Result<Digest, StoreError> {
    let (run, state, events) = reader.read_run(known)?;
    let accounts = state.accounts();
    let first = first_tokens(&events);
    let caused = caused(&accounts, &events);
    let row = |account: Account| Row {
        first_token_us: first.get(&account.span_id).copied(),
        caused: caused.get(&account.span_id).copied(),
        account,
    };
    Ok(Digest { run, steps: accounts.into_iter().map(row).collect() })
}

fn first_tokens(events: &[Event]) -> HashMap<SpanId, u64> {
    let ended = events.iter().filter(|event| !event.body.is_step_start()).filter_map(|event| event.body.span());
    ended.filter_map(|(span, _, _)| Some((SpanId::from_bytes(&span.span_id)?, first_token_us(span)?))).collect()
}

fn first_token_us(span: &Span) -> Option<u64> {
    let seconds = span.attr("gen_ai.response.time_to_first_chunk").and_then(Value::as_f64)?;
    // A time below zero, or one of years, is none.
    (0.0..1e9).contains(&seconds).then(|| (seconds * 1e6).round() as u64)
}

/// Estimates what results of tools used and cost in the model calls that had them in their input.
///
/// A result has a part of a call's input tokens that is its part of the input's text, and the same part of the call's
/// cost as it has of all its tokens. Only calls that count and whose input is recorded are looked at; a tool call of
/// which no such call has the result caused nothing that is known.
fn caused(accounts: &[Account], events: &[Event]) -> HashMap<SpanId, Caused> {
    let results = Results::of(accounts, events);
    if results.is_empty() {
        return HashMap::new();
    }
    let calls: HashMap<SpanId, &Account> =
        accounts.iter().filter(|account| account.is_call).map(|account| (account.span_id, account)).collect();
    let mut caused: HashMap<SpanId, Caused> = HashMap::new();
    for event in events {
        let EventBody::LlmCalled(called) = &event.body else { continue };
        let Some(call) = SpanId::from_bytes(&called.span.span_id).and_then(|span| calls.get(&span)) else { continue };
        let Some(prompt) = call.tokens.and_then(|tokens| tokens.prompt) else { continue };
        let found = results.within(called);
        let all = if found.is_empty() { 0 } else { text_of_input(called) };
        for (tool, length) in found {
            let share = |of: u64| (u128::from(of) * u128::from(length) / u128::from(all.max(1))) as u64;
            let tokens = share(prompt).min(prompt);
            let entry = caused.entry(tool).or_default();
            entry.tokens = entry.tokens.saturating_add(tokens);
            if let Some((cost, _)) = call.cost {
                let total = call.tokens.and_then(|tokens| tokens.total).unwrap_or(prompt).max(1);
                let part = i128::from(cost.0) * i128::from(tokens) / i128::from(total);
                entry.cost = Some(entry.cost.unwrap_or_default() + NanoUsd(part as i64));
            }
        }
    }
    caused
}

/// The results of tool calls, by what they are recognised by in a later input.
#[derive(Debug, Default)]
struct Results {
    by_id: HashMap<String, SpanId>,
    /// Of calls without an id; equal texts are the last one's.
    by_text: HashMap<String, SpanId>,
}

impl Results {
    fn of(accounts: &[Account], events: &[Event]) -> Self {
        let mut results = Self::default();
        let mut nameless: HashMap<SpanId, ()> = HashMap::new();
        for tool in accounts.iter().filter(|account| account.is_tool_call) {
            match &tool.tool_call_id {
                Some(id) => drop(results.by_id.insert(id.clone(), tool.span_id)),
                None => drop(nameless.insert(tool.span_id, ())),
            }
        }
        for event in events {
            let (span, result) = match &event.body {
                EventBody::ToolSucceeded(tool) => (&tool.span, &tool.result),
                EventBody::ToolFailed(tool) => (&tool.span, &tool.result),
                _ => continue,
            };
            let Some(span) = SpanId::from_bytes(&span.span_id).filter(|span| nameless.contains_key(span)) else {
                continue;
            };
            if let Some(text) =
                result.as_ref().map(|result| plain_text(&result.value())).filter(|text| !text.is_empty())
            {
                results.by_text.insert(text, span);
            }
        }
        results
    }

    fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.by_text.is_empty()
    }

    /// Returns the tool calls whose results are in the input of a call, and how long each is there.
    fn within(&self, called: &LlmCalled) -> Vec<(SpanId, u64)> {
        let mut found = Vec::new();
        // Most inputs have none, and are not looked into.
        let speaks_of_tools = |messages: &&JsonText| messages.as_str().contains("tool");
        let messages = called.messages.as_ref().filter(speaks_of_tools).map(JsonText::value);
        for message in messages.as_ref().and_then(Json::as_array).into_iter().flatten() {
            let of_tool = message.get("role").and_then(Json::as_str) == Some("tool");
            let parts = message.get("parts").or_else(|| message.get("content")).and_then(Json::as_array);
            for part in parts.into_iter().flatten() {
                let is_response = part.get("type").and_then(Json::as_str) == Some("tool_call_response");
                if !is_response && !of_tool {
                    continue;
                }
                let response = ["response", "result", "content", "text"].iter().find_map(|key| part.get(key));
                let id = part.get("id").or_else(|| message.get("tool_call_id")).and_then(Json::as_str);
                found.extend(self.find(id, response.unwrap_or(part)));
            }
            if parts.is_none()
                && of_tool
                && let Some(content) = message.get("content")
            {
                found.extend(self.find(message.get("tool_call_id").and_then(Json::as_str), content));
            }
        }
        found
    }

    fn find(&self, id: Option<&str>, response: &Json) -> Option<(SpanId, u64)> {
        let by_id = id.and_then(|id| self.by_id.get(id));
        let tool = by_id.or_else(|| self.by_text.get(&plain_text(response)));
        tool.map(|tool| (*tool, text_length(response)))
    }
}

fn text_of_input(called: &LlmCalled) -> u64 {
    let definitions = called.span.attr(names::TOOL_DEFINITIONS).map(Value::to_json);
    let told = [&called.system_prompt, &called.messages].map(|content| content.as_ref().map(JsonText::value));
    told.iter().chain([&definitions]).flatten().map(text_length).sum()
}

/// Returns how many bytes of text a value has, without what only says which part it is.
fn text_length(value: &Json) -> u64 {
    match value {
        Json::Null => 0,
        Json::String(text) => text.len() as u64,
        Json::Array(list) => list.iter().map(text_length).sum(),
        Json::Object(map) => {
            let says = |key: &&String| !matches!(key.as_str(), "type" | "role" | "id" | "tool_call_id");
            map.iter().filter(|(key, _)| says(key)).map(|(_, value)| text_length(value)).sum()
        }
        other => other.to_string().len() as u64,
    }
}

/// Returns a text as it is, and of any other value its JSON.
fn plain_text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
