//! What a model was asked: the part of it that is compared, whoever told it.

use std::fmt;

use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use super::ask::{self, Format};
use super::conversation::{Message, Part, conversation, parts, unfolded};
use crate::conventions::names;
use crate::model::StepKind;
use crate::model::otlp::{Span, Value};
use crate::pipeline::facts;

/// SHA-256 of all that was said until some place of a conversation.
pub(super) type Hash = [u8; 32];

/// Settings of a request that say nothing of what is to be answered.
const NO_SETTINGS: &[&str] = &[names::REQUEST_MODEL, names::REQUEST_STREAM, ask::PREVIOUS];
const SETTING: &str = "gen_ai.request.";
/// The shape of the answer, and the choice of tools.
const OWN_SETTING: &str = "runspan.request.";
/// What begins the id of an answer that was given from a recording, with a number of its own behind it: it is not the
/// provider's, so that nobody takes it for one that was billed.
pub(super) const REPLAYED: &str = names::REPLAYED_ANSWER;

/// A request to a model, in a form that does not depend on the API, the framework, or who told it.
///
/// It comes from a span in canonical names. Ids of tool calls, reasoning and whether the answer is streamed are no part of
/// it.
#[derive(Clone, Debug)]
pub struct Request {
    kind: StepKind,
    model: Option<String>,
    /// One item a thing said; `None` where the recording has nothing of it.
    items: Option<Vec<Item>>,
    /// After how many items, and after all, what was said until there.
    hashes: Vec<Hash>,
    /// By name.
    tools: Option<Vec<Json>>,
    settings: Vec<(String, Json)>,
    /// The answer that the conversation goes on from, where the service keeps it.
    previous: Option<String>,
    /// Told by who saw the request itself: what is not here was not in it.
    is_whole: bool,
}

/// One thing said.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Item {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: &'static str,
    /// What.
    pub said: Said,
}

/// What is said, without what is other each time.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Text.
    Text(String),
    /// A tool is asked for.
    Calls {
        /// The tool.
        name: String,
        /// What it is given.
        arguments: Json,
    },
    /// A tool answers.
    Answers(Json),
    /// Anything else.
    Other(Json),
}

/// In what two requests differ.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// Another model: what was recorded, what is asked for.
    Model(Option<String>, Option<String>),
    /// Something else is said.
    Messages,
    /// Other tools may be called: names that are gone, names that are new; none of both when one is described otherwise.
    Tools {
        /// Not any more.
        gone: Vec<String>,
        /// Now.
        new: Vec<String>,
    },
    /// A setting has another value: its name, what was recorded, what is asked for.
    Setting(String, Json, Json),
    /// What was asked is not in the recording, so nobody knows.
    NotRecorded,
}

impl Difference {
    /// Returns the word used in JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Model(..) => "model",
            Self::Messages => "messages",
            Self::Tools { .. } => "tools",
            Self::Setting(..) => "setting",
            Self::NotRecorded => "not_recorded",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        match self {
            Self::Model(recorded, asked) => write!(f, "model {} → {}", word(recorded), word(asked)),
            Self::Messages => f.write_str("messages"),
            Self::Tools { gone, new } if gone.is_empty() && new.is_empty() => f.write_str("a tool's description"),
            Self::Tools { gone, new } => {
                let signed = |sign: char, names: &[String]| -> Vec<String> {
                    names.iter().map(|name| format!("{sign}{name}")).collect()
                };
                write!(f, "tools {}", [signed('-', gone), signed('+', new)].concat().join(" "))
            }
            Self::Setting(name, recorded, asked) => {
                let (recorded, asked) = (recorded.to_string(), asked.to_string());
                // A schema is no word.
                match recorded.len().max(asked.len()) {
                    0..=60 => write!(f, "{name} {recorded} → {asked}"),
                    _ => f.write_str(name),
                }
            }
            Self::NotRecorded => f.write_str("what was asked is not in the recording"),
        }
    }
}

impl Request {
    /// Reads a request as it is sent to a service.
    pub fn from_body(format: Format, body: &Json) -> Self {
        let mut span = Span::default();
        span.set_attr(names::OPERATION, format.operation());
        span.set_attr(names::RELAYED, Value::Bool(true));
        ask::write(format, body, &mut span);
        Self::of_span(&span)
    }

    /// Reads what a normalized span says that was asked.
    pub fn of_span(span: &Span) -> Self {
        let kind = facts::kind(span);
        let json = |key| span.attr(key).map(Value::to_json).filter(|value| !value.is_null());
        let is_cut = span.attr_str(names::CUT).is_some_and(|what| what != "answer");
        let items = if kind == StepKind::Embedding {
            let input = json(names::INPUT).or_else(|| json(names::INPUT_MESSAGES));
            input.map(|input| vec![Item { role: "user", said: embedded(input) }])
        } else {
            let system = json(names::SYSTEM_INSTRUCTIONS);
            let messages = json(names::INPUT_MESSAGES).or_else(|| json(names::INPUT));
            let mut said: Vec<Item> = system.iter().flat_map(system_items).collect();
            let messages_said: Vec<Item> = messages.iter().flat_map(items).collect();
            // Some tell instructions twice: beside the messages, and as the first of them.
            if messages_said.starts_with(&said) {
                said.clear();
            }
            said.extend(messages_said);
            (system.is_some() || messages.is_some()).then_some(said)
        };
        let settings = span.attributes.iter().filter_map(|attribute| {
            let name = [SETTING, OWN_SETTING].iter().find_map(|prefix| attribute.key.strip_prefix(prefix))?;
            let value = attribute.value.as_ref()?.value.as_ref()?.to_json();
            // Ours are JSON as text.
            let told = value.as_str().filter(|_| attribute.key.starts_with(OWN_SETTING));
            let value = told.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(value);
            (!NO_SETTINGS.contains(&attribute.key.as_str())).then(|| (name.to_owned(), comparable(&value)))
        });
        let mut settings: Vec<(String, Json)> = settings.collect();
        settings.sort_by(|a, b| a.0.cmp(&b.0));
        let previous = span.attr_str(ask::PREVIOUS).map(|id| original_id(id).to_owned());
        let text = |key| span.attr_str(key).map(str::to_owned);
        let mut request = Self {
            kind,
            model: text(names::REQUEST_MODEL),
            items: items.filter(|_| !is_cut),
            hashes: Vec::new(),
            tools: json(names::TOOL_DEFINITIONS).as_ref().and_then(tools),
            settings,
            previous,
            is_whole: span.attr(names::RELAYED) == Some(&Value::Bool(true)) && !is_cut,
        };
        request.hashes = request.made_hashes();
        request
    }

    /// Begins a request to a model, to be completed by what is said.
    pub fn chat(model: &str) -> Self {
        Self::from_body(Format::Chat, &json!({"model": model}))
    }

    /// Makes a request for vectors of a text, or of a list of them.
    pub fn embedding(model: &str, input: impl Into<Json>) -> Self {
        Self::from_body(Format::Embeddings, &json!({"model": model, "input": input.into()}))
    }

    /// Asks this model.
    #[must_use]
    pub fn model(self, model: &str) -> Self {
        Self { model: Some(model.to_owned()), ..self }
    }

    /// Adds standing instructions.
    #[must_use]
    pub fn system(self, text: &str) -> Self {
        self.with("system", Said::Text(without_mark_hashes(text)))
    }

    /// Adds what the user says.
    #[must_use]
    pub fn user(self, text: &str) -> Self {
        self.with("user", Said::Text(without_mark_hashes(text)))
    }

    /// Adds what the model said.
    #[must_use]
    pub fn assistant_said(self, text: &str) -> Self {
        self.with("assistant", Said::Text(without_mark_hashes(text)))
    }

    /// Adds that the model asked for a tool.
    #[must_use]
    pub fn assistant_called(self, tool: &str, arguments: impl Into<Json>) -> Self {
        let arguments = comparable(&arguments.into());
        self.with("assistant", Said::Calls { name: tool.to_owned(), arguments })
    }

    /// Adds what is neither text nor of a tool: a part of a message as [`items`](Self::items) has it.
    #[must_use]
    pub fn other(self, role: &'static str, part: impl Into<Json>) -> Self {
        self.with(canonical_role(role), Said::Other(comparable(&part.into())))
    }

    /// Adds what the model said, tools that it asked for among it.
    #[must_use]
    pub fn assistant(mut self, answer: &super::Answer) -> Self {
        let said = answer.choices.first().map(|choice| &choice.message.parts);
        for item in said.into_iter().flatten().filter_map(|part| item("assistant", part)) {
            self = self.with(item.role, item.said);
        }
        self
    }

    /// Adds what a tool answered.
    #[must_use]
    pub fn tool_result(self, result: impl Into<Json>) -> Self {
        let part = Part::ToolResult { id: None, result: result.into() };
        match item("tool", &part) {
            Some(item) => self.with(item.role, item.said),
            None => self,
        }
    }

    fn with(mut self, role: &'static str, said: Said) -> Self {
        self.items.get_or_insert_default().push(Item { role, said });
        // Only what was built may leave tools and settings out.
        self.is_whole = false;
        self.hashes = self.made_hashes();
        self
    }

    /// Leaves out what is said.
    pub(super) fn without_words(self) -> Self {
        Self { items: None, hashes: Vec::new(), tools: None, ..self }
    }

    /// Tells whether it asks for vectors or for an answer.
    pub fn kind(&self) -> StepKind {
        self.kind
    }

    /// Returns what is said, in order; `None` where nothing is known of it.
    pub fn items(&self) -> Option<&[Item]> {
        self.items.as_deref()
    }

    /// Returns the model that is asked for.
    pub fn model_name(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Tells whether anything is known of what was said.
    pub fn is_known(&self) -> bool {
        self.items.is_some()
    }

    /// Returns what was said for people to read, and to compare line by line.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for item in self.items.iter().flatten() {
            let said = match &item.said {
                Said::Text(text) => text.clone(),
                Said::Calls { name, arguments } => format!("calls {name} {arguments}"),
                Said::Answers(Json::String(text)) => format!("answers {text}"),
                Said::Answers(result) => format!("answers {result}"),
                Said::Other(other) => other.to_string(),
            };
            out.push_str(&format!("[{}]\n{}\n", item.role, said.trim_end_matches('\n')));
        }
        out
    }

    /// Tells in what `asked` differs from what was recorded, by what is known of both.
    pub fn differences(&self, asked: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        if let (Some(recorded), Some(now)) = (&self.model, &asked.model)
            && recorded != now
        {
            found.push(Difference::Model(Some(recorded.clone()), Some(now.clone())));
        }
        if self.items.is_none() {
            found.push(Difference::NotRecorded);
        } else if self.content() != asked.content() {
            found.push(Difference::Messages);
        }
        let both_whole = self.is_whole && asked.is_whole;
        let no_tools = Vec::new();
        let tools = |request: &Self| request.tools.clone().or_else(|| both_whole.then(|| no_tools.clone()));
        if let (Some(recorded), Some(now)) = (tools(self), tools(asked))
            && recorded != now
        {
            found.extend(tools_differ(&recorded, &now));
        }
        let names = self.settings.iter().chain(&asked.settings).map(|(name, _)| name);
        let mut names: Vec<&String> = names.collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let of =
                |request: &Self| request.settings.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
            let (recorded, now) = (of(self), of(asked));
            if recorded != now && (both_whole || recorded.is_some() && now.is_some()) {
                let (recorded, now) = (recorded.unwrap_or_default(), now.unwrap_or_default());
                found.push(Difference::Setting(name.clone(), recorded, now));
            }
        }
        found
    }

    /// Returns the hash of all that was said; `None` where nothing is known of it.
    pub(super) fn content(&self) -> Option<Hash> {
        self.items.as_ref().and(self.hashes.last().copied())
    }

    /// Returns the hashes of what was said before the last thing, the longest first.
    pub(super) fn beginnings(&self) -> impl Iterator<Item = &Hash> {
        let inner = self.hashes.len().saturating_sub(1);
        self.hashes.iter().take(inner).skip(1).rev()
    }

    /// Returns the answer that it goes on from, where the service keeps the conversation.
    pub(super) fn previous(&self) -> Option<&str> {
        self.previous.as_deref()
    }

    /// Says how much two requests have in common: the same instructions, things said alike at the beginning, and of what
    /// differs first how many words in a hundred are the same, where it is at least half.
    pub(super) fn likeness(&self, other: &Self) -> (bool, usize, usize) {
        let (a, b) = (self.items.as_deref().unwrap_or_default(), other.items.as_deref().unwrap_or_default());
        let system =
            |items: &[Item]| -> Vec<Item> { items.iter().take_while(|item| item.role == "system").cloned().collect() };
        let alike = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let words = a.get(alike).zip(b.get(alike)).map_or(0, |(a, b)| shared_words(&a.said, &b.said));
        (system(a) == system(b), alike, if words >= 50 { words } else { 0 })
    }

    fn made_hashes(&self) -> Vec<Hash> {
        let start: Hash = Sha256::new()
            .chain_update(self.kind.as_str())
            .chain_update(self.previous.as_deref().unwrap_or_default())
            .finalize()
            .into();
        let mut hashes = vec![start];
        for item in self.items.iter().flatten() {
            let last = hashes.last().copied().unwrap_or(start);
            let hash = Sha256::new().chain_update(last).chain_update(item.as_json().to_string());
            hashes.push(hash.finalize().into());
        }
        hashes
    }
}

impl Item {
    fn as_json(&self) -> Json {
        match &self.said {
            Said::Text(text) => json!([self.role, "text", text]),
            Said::Calls { name, arguments } => json!([self.role, "calls", name, arguments]),
            Said::Answers(result) => json!([self.role, "answers", result]),
            Said::Other(other) => json!([self.role, "other", other]),
        }
    }
}

/// Returns the id that a provider gave an answer, of one that was given again.
pub(super) fn original_id(id: &str) -> &str {
    // An answer may have been given again of one that was. The id comes from a request, and so may be as long as that.
    std::iter::successors(Some(id), |id| Some(id.strip_prefix(REPLAYED)?.split_once('-')?.1)).last().unwrap_or(id)
}

fn shared_words(a: &Said, b: &Said) -> usize {
    let (Said::Text(a), Said::Text(b)) = (a, b) else { return 0 };
    // Of long texts the beginning says enough.
    let words = |text: &'_ str| -> std::collections::HashSet<String> {
        text.split_whitespace().take(1_000).map(str::to_lowercase).collect()
    };
    let (a, b) = (words(a), words(b));
    let all = a.union(&b).count();
    (a.intersection(&b).count() * 100).checked_div(all).unwrap_or(0)
}

/// Reads instructions that stand beside the messages: a text, parts, or messages of their own.
fn system_items(system: &Json) -> Vec<Item> {
    let messages =
        conversation(system).unwrap_or_else(|| vec![Message { role: "system".to_owned(), parts: parts(system) }]);
    messages.iter().flat_map(|message| message.parts.iter().filter_map(|part| item("system", part))).collect()
}

fn items(messages: &Json) -> Vec<Item> {
    let Some(messages) = conversation(messages) else {
        return parts(messages).iter().filter_map(|part| item("user", part)).collect();
    };
    let said = |message: &Message| -> Vec<Item> {
        message.parts.iter().filter_map(|part| item(canonical_role(&message.role), part)).collect()
    };
    messages.iter().flat_map(said).collect()
}

/// Returns what a request is compared by of a part; `None` for what is no content, or empty.
fn item(role: &'static str, part: &Part) -> Option<Item> {
    Some(match part {
        // Some tell what a tool answered as the text of its message.
        Part::Text(text) if role == "tool" => {
            Item { role, said: Said::Answers(comparable(&unfolded(&Json::from(text.as_str())))) }
        }
        Part::Text(text) if text.is_empty() => return None,
        Part::Text(text) => Item { role, said: Said::Text(without_mark_hashes(text)) },
        // Some give it back, some leave it out, and services keep most of it secret.
        Part::Reasoning { .. } => return None,
        Part::Other(other) if other.get("type").is_some_and(|kind| kind == "redacted_thinking") => return None,
        Part::ToolCall { name, arguments, .. } => {
            let arguments = match arguments {
                Json::Null => json!({}),
                Json::String(text) if text.is_empty() => json!({}),
                other => comparable(other),
            };
            Item { role: "assistant", said: Said::Calls { name: name.clone(), arguments } }
        }
        Part::ToolResult { result, .. } => Item { role: "tool", said: Said::Answers(comparable(result)) },
        Part::Other(other) => Item { role, said: Said::Other(comparable(&compared(other))) },
    })
}

/// Returns what a picture, a sound or a file is compared by, whoever told it: where it is, or what it holds.
fn compared(part: &Json) -> Json {
    let mut media = match ask::media(part) {
        Some(media) => media,
        // Read already.
        None if part.get("sha256").is_some() => part.clone(),
        None => return part.clone(),
    };
    if let Some(media) = media.as_object_mut() {
        // Each API has a word of its own for the kind, and few say all of the rest.
        media.retain(|key, _| matches!(key.as_str(), "type" | "uri" | "sha256" | "file_id"));
    }
    media
}

fn embedded(input: Json) -> Said {
    match input {
        Json::String(text) => match serde_json::from_str::<Json>(&text) {
            Ok(list @ Json::Array(_)) => Said::Other(comparable(&list)),
            _ => Said::Text(without_mark_hashes(&text)),
        },
        // One text is one text, in a list or not.
        Json::Array(list) => match list.as_slice() {
            [Json::String(text)] => Said::Text(without_mark_hashes(text)),
            _ => Said::Other(comparable(&Json::Array(list))),
        },
        other => Said::Other(comparable(&other)),
    }
}

fn canonical_role(role: &str) -> &'static str {
    match role {
        "system" | "developer" => "system",
        "assistant" | "model" | "ai" => "assistant",
        "tool" | "function" => "tool",
        _ => "user",
    }
}

/// Returns a value with the members of its objects by name, its numbers as one kind, and its marks of redaction without
/// what differs from store to store.
pub(super) fn comparable(value: &Json) -> Json {
    match value {
        Json::Object(members) => {
            let mut sorted: Vec<(&String, &Json)> = members.iter().collect();
            sorted.sort_unstable_by_key(|(key, _)| *key);
            Json::Object(sorted.into_iter().map(|(key, value)| (key.clone(), comparable(value))).collect::<Map<_, _>>())
        }
        Json::Array(list) => list.iter().map(comparable).collect(),
        Json::String(text) => without_mark_hashes(text).into(),
        Json::Number(number) => match number.as_f64() {
            Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e15 => Json::from(whole as i64),
            _ => value.clone(),
        },
        Json::Null | Json::Bool(_) => value.clone(),
    }
}

/// Leaves the hash out of each `[redacted:<kind>:<bytes>:<hash>]`: it is made with a store's own key.
fn without_mark_hashes(text: &str) -> String {
    const MARK: &str = "[redacted:";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let (before, mark) = rest.split_at(at);
        out.push_str(before);
        let end = mark.find(']').unwrap_or(mark.len());
        let (inner, behind) = mark.split_at(end);
        let is_mark = inner.matches(':').count() == 3;
        out.push_str(inner.rsplit_once(':').filter(|_| is_mark).map_or(inner, |(kept, _)| kept));
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Reads definitions of tools as name, description and parameters, by name.
fn tools(definitions: &Json) -> Option<Vec<Json>> {
    let list = definitions.as_array()?;
    let mut tools: Vec<Json> = list
        .iter()
        .map(|tool| {
            let tool = tool.get("function").unwrap_or(tool);
            let parameters = ["parameters", "input_schema", "inputSchema"].iter().find_map(|key| tool.get(key));
            let name = tool.get("name").or_else(|| tool.get("type"));
            comparable(&json!({"name": name, "description": tool.get("description"), "parameters": parameters}))
        })
        .collect();
    tools.sort_by_key(name_of);
    Some(tools)
}

fn name_of(tool: &Json) -> String {
    tool.get("name").and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn tools_differ(recorded: &[Json], now: &[Json]) -> Option<Difference> {
    let without = |tools: &[Json], others: &[Json]| -> Vec<String> {
        let others: Vec<String> = others.iter().map(name_of).collect();
        tools.iter().map(name_of).filter(|name| !others.contains(name)).collect()
    };
    let (gone, new) = (without(recorded, now), without(now, recorded));
    // Of two that describe one tool, one may say less of it.
    let is_other = |a: &Json, b: &Json, key: &str| {
        let (a, b) = (a.get(key), b.get(key));
        a != b && a.is_some_and(|a| !a.is_null()) && b.is_some_and(|b| !b.is_null())
    };
    let described = recorded.iter().any(|a| {
        let b = now.iter().find(|b| name_of(a) == name_of(b));
        b.is_some_and(|b| is_other(a, b, "description") || is_other(a, b, "parameters"))
    });
    (!gone.is_empty() || !new.is_empty() || described).then_some(Difference::Tools { gone, new })
}
