//! Prices: what a model call cost, as its emitter says, else by a price table.
//!
//! The table is that of the crate `genai-prices`. The crate decodes all of it at once, which takes tens of
//! milliseconds and 18 MiB, and gives no access to the text it carries; so the same file stands in
//! `src/conventions/prices`, and only the section of a provider that was seen is decoded. The arithmetic stays the crate's.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use genai_prices::{Calculator, ErrorKind, PriceCalculation, PriceRequest, Usage, UsageKey};
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::facts;
use super::normalize::Draft;
use crate::conventions::dialects::{CostName, REPORTED_COSTS};
use crate::conventions::{names, providers};
use crate::model::otlp::{Span, Value};
use crate::model::record::{Record, RecordKind};
use crate::model::{CostSource, NanoUsd, StepKind, Tokens, UnixNanos};

/// `data/prices.json` of the crate, unchanged; a test holds every model and price of it against the crate's own.
const TABLE: &str = include_str!("../conventions/prices/genai-prices.json");
/// Name and version of [`TABLE`].
const TABLE_VERSION: &str = "genai-prices 0.2.1";

/// Prices model calls. Cheap to make: price data is decoded when a provider is first seen.
#[derive(Debug, Default)]
pub struct Pricer {
    /// The user's own prices, asked first.
    own: Option<OwnPrices>,
    /// The table's sections as text, by provider.
    sections: Option<Sections>,
    /// Decoded sections, by provider; `None` for one that could not be decoded.
    decoded: HashMap<String, Option<Calculator>>,
    /// The same together with the providers whose models a provider also serves.
    decoded_with_fallbacks: HashMap<String, Option<Calculator>>,
    /// Knows every provider and no price: finds the provider of a call by alias, model or address.
    directory: Option<Calculator>,
}

/// The price of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// What it costs, rounded half-even to the nano-dollar.
    pub cost: NanoUsd,
    /// Which prices were used: `genai-prices 0.2.1 openai/gpt-4o-mini`.
    pub table: String,
    /// Id of the provider in the table.
    pub provider_id: String,
    /// Id of the model in the table.
    pub model_id: String,
}

/// A provider in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderPrices {
    /// Its id.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Ids of its models, in the table's order.
    pub models: Vec<String>,
}

/// What a model costs at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPrices {
    /// Id of the provider in the table.
    pub provider_id: String,
    /// Id of the model in the table.
    pub model_id: String,
    /// Which prices these are.
    pub table: String,
    /// Rates by size of the input, the first one from 0.
    pub rates: Vec<Rates>,
    /// What every request costs besides its tokens.
    pub per_request: NanoUsd,
}

/// What a million tokens cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rates {
    /// These rates hold for the whole of a request with more input tokens than this.
    pub above_input_tokens: u64,
    /// Input that was not cached.
    pub input: NanoUsd,
    /// Input read from a cache.
    pub cache_read: NanoUsd,
    /// Input written to a cache.
    pub cache_write: NanoUsd,
    /// Output, reasoning included.
    pub output: NanoUsd,
}

/// A file of prices that can't be used.
#[derive(Debug)]
pub struct PricesError {
    name: String,
    cause: genai_prices::Error,
}

impl fmt::Display for PricesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prices of {} can't be used", self.name)
    }
}

impl std::error::Error for PricesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[derive(Debug)]
struct OwnPrices {
    name: String,
    text: String,
    calculator: Calculator,
}

/// What is needed to price one call.
struct Call<'a> {
    provider: Option<&'a str>,
    address: Option<&'a str>,
    model: &'a str,
    tokens: &'a Tokens,
    tier: Option<&'a str>,
    at: UnixNanos,
}

impl Pricer {
    /// Makes a pricer that has decoded nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a pricer that asks the user's own prices first: JSON in the table's format, an array of providers.
    ///
    /// `name` stands for the file in what is stored about a cost.
    pub fn with_own_prices(name: impl Into<String>, json: impl Into<String>) -> Result<Self, PricesError> {
        let (name, text) = (name.into(), json.into());
        match Calculator::from_json(&text) {
            Ok(calculator) => Ok(Self { own: Some(OwnPrices { name, text, calculator }), ..Self::default() }),
            Err(cause) => Err(PricesError { name, cause }),
        }
    }

    /// Makes the pricer of a store: with the user's own prices where it has some.
    ///
    /// Prices that cannot be read are told, and cost nothing but themselves.
    pub fn of_store(layout: &crate::store::files::layout::Layout) -> (Self, Option<String>) {
        let own = match layout.own_prices() {
            Ok(None) => return (Self::new(), None),
            Ok(Some(json)) => Self::with_own_prices("prices.json", json).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match own {
            Ok(pricer) => (pricer, None),
            Err(why) => (Self::new(), Some(format!("{}: {why}; using the table", layout.prices_file().display()))),
        }
    }

    /// Returns name and version of the table that comes with runspan.
    pub fn table_version() -> &'static str {
        TABLE_VERSION
    }

    /// Writes what an ended model call cost, and where that is known from, into its normalized span.
    ///
    /// What the emitter says wins. Nothing is written for steps that only repeat what model calls below them used, and
    /// nothing where the cost can't be known: a cost is never guessed and never 0 for want of a price.
    pub fn price(&mut self, record: &mut Record) {
        let span = &record.span;
        let kind = facts::kind(span);
        if record.kind != RecordKind::Ended || span.end_time_unix_nano == 0 || !facts::is_billed(kind) {
            return;
        }
        let is_replayed = span.attr_str(names::RESPONSE_ID).is_some_and(|id| id.starts_with(names::REPLAYED_ANSWER));
        if is_replayed {
            // It was given from a recording: nobody billed it, and a program that prices its calls itself cannot know.
            write(
                &mut record.span,
                &[(names::COST_USD, 0.0.into()), (names::COST_SOURCE, CostSource::Reported.as_str().into())],
            );
        } else if span.attr(names::COST_USD).is_some() {
            if span.attr(names::COST_SOURCE).is_none() {
                write(&mut record.span, &[(names::COST_SOURCE, CostSource::Reported.as_str().into())]);
            }
        } else if let Some(cost) = reported(span) {
            write(
                &mut record.span,
                &[(names::COST_USD, cost.as_usd().into()), (names::COST_SOURCE, CostSource::Reported.as_str().into())],
            );
        } else if let Some(quote) = self.quote_span(span, kind) {
            write(
                &mut record.span,
                &[
                    (names::COST_USD, quote.cost.as_usd().into()),
                    (names::COST_SOURCE, CostSource::Computed.as_str().into()),
                    (names::COST_TABLE, quote.table.into()),
                ],
            );
        }
    }

    /// Prices one call; `None` when provider, model or counts are not known well enough.
    ///
    /// `provider` is a `gen_ai.provider.name`; without it the model's name has to tell. `at` chooses among prices that
    /// changed over time.
    pub fn quote(&mut self, provider: Option<&str>, model: &str, usage: &Tokens, at: UnixNanos) -> Option<Quote> {
        self.quote_call(&Call { provider, address: None, model, tokens: usage, tier: None, at })
    }

    /// Lists all providers of the table with their models.
    pub fn providers(&self) -> Vec<ProviderPrices> {
        let own = self.own.as_ref().map(|own| own.text.as_str());
        let mut providers: Vec<ProviderPrices> = Vec::new();
        for entry in own.into_iter().chain([TABLE]).flat_map(sections_of) {
            let Ok(listing) = serde_json::from_str::<Listing>(entry.get()) else { continue };
            let models = listing.models.into_iter().map(|model| model.id);
            match providers.iter_mut().find(|provider| provider.id == listing.id) {
                Some(known) => {
                    let new: Vec<String> = models.filter(|model| !known.models.contains(model)).collect();
                    known.models.extend(new);
                }
                None => providers.push(ProviderPrices { id: listing.id, name: listing.name, models: models.collect() }),
            }
        }
        providers
    }

    /// Looks up what a model costs at a moment, by any name that a call could have.
    pub fn look_up(&mut self, provider: Option<&str>, model: &str, at: UnixNanos) -> Option<ModelPrices> {
        let nothing = Tokens { prompt: Some(0), completion: Some(0), ..Tokens::default() };
        let call = Call { provider, address: None, model, tokens: &nothing, tier: None, at };
        let (found, table) = self.calculate(&call)?;
        let per_request = found.total_price;
        let mut thresholds = self.thresholds(&found.provider_id, &found.model_id);
        thresholds.insert(0, 0);
        thresholds.dedup();
        let mut rates = Vec::new();
        for above_input_tokens in thresholds {
            // A rate is what one more token of a kind costs; so it is right for every form that prices have.
            let base = above_input_tokens + 1;
            let mut rate = |cache_read, cache_write, completion| {
                let tokens = Tokens {
                    prompt: Some(base),
                    completion: Some(completion),
                    cache_read: Some(cache_read),
                    cache_write: Some(cache_write),
                    ..Tokens::default()
                };
                let call = Call { provider, address: None, model, tokens: &tokens, tier: None, at };
                let (price, _) = self.calculate(&call)?;
                Some(price.total_price - per_request)
            };
            let plain = rate(0, 0, 0)?;
            let input = plain / base as f64;
            // All of the input as one kind, so that no small difference of two large numbers is taken.
            let cache_read = rate(base, 0, 0)? / base as f64;
            let cache_write = rate(0, base, 0)? / base as f64;
            let output = (rate(0, 0, base)? - plain) / base as f64;
            let a_million = |dollars: f64| NanoUsd::from_usd((dollars * 1e6 * 1e6).round() / 1e6);
            rates.push(Rates {
                above_input_tokens,
                input: a_million(input)?,
                cache_read: a_million(cache_read)?,
                cache_write: a_million(cache_write)?,
                output: a_million(output)?,
            });
        }
        Some(ModelPrices {
            table,
            rates,
            per_request: nanos(per_request)?,
            provider_id: found.provider_id,
            model_id: found.model_id,
        })
    }

    /// Prices the call that a span tells of: by the model that answered, else by the one asked for, at its start.
    fn quote_span(&mut self, span: &Span, kind: StepKind) -> Option<Quote> {
        let tokens = facts::tokens(span)?;
        // Half of a bill is not a bill; only a model that writes nothing has no output to count.
        let complete = tokens.prompt.is_some() && (kind != StepKind::Llm || tokens.completion.is_some());
        if !complete {
            return None;
        }
        let provider = span.attr_str(names::PROVIDER);
        [names::RESPONSE_MODEL, names::REQUEST_MODEL].into_iter().find_map(|key| {
            self.quote_call(&Call {
                provider: provider.filter(|name| !providers::FRAMEWORKS.contains(name)),
                address: span.attr_str(names::SERVER_ADDRESS),
                model: span.attr_str(key).filter(|model| !model.is_empty())?,
                tokens: &tokens,
                tier: span.attr_str(names::OPENAI_SERVICE_TIER),
                at: UnixNanos(span.start_time_unix_nano),
            })
        })
    }

    fn quote_call(&mut self, call: &Call<'_>) -> Option<Quote> {
        if call.tokens.prompt.is_none() && call.tokens.completion.is_none() {
            return None;
        }
        let (price, table) = self.calculate(call)?;
        Some(Quote { cost: nanos(price.total_price)?, table, provider_id: price.provider_id, model_id: price.model_id })
    }

    fn calculate(&mut self, call: &Call<'_>) -> Option<(PriceCalculation, String)> {
        let usage = usage_of(call.tokens);
        let wanted = call.provider.map(price_id);
        let own = self.own.as_ref().and_then(|own| {
            let price = own.calculator.calculate(&price_request(call, &usage, wanted.as_deref())).ok()?;
            let table = format!("{} {}/{}", own.name, price.provider_id, price.model_id);
            Some((price, table))
        });
        if own.is_some() {
            return own;
        }
        let id = self.section_id(call, wanted.as_deref())?;
        // An alias or nothing at all found the section; inside it the provider is known by its id. Only LiteLLM's
        // `vendor/model` has to be taken apart by the crate once more.
        let provider = wanted.as_deref().filter(|name| name.eq_ignore_ascii_case("litellm")).unwrap_or(&id).to_owned();
        let request = price_request(call, &usage, Some(&provider));
        let price = match self.section(&id)?.calculate(&request) {
            Err(error) if error.kind() == ErrorKind::ModelNotFound => {
                self.section_with_fallbacks(&id)?.calculate(&request).ok()?
            }
            result => result.ok()?,
        };
        let table = format!("{TABLE_VERSION} {}/{}", price.provider_id, price.model_id);
        Some((price, table))
    }

    /// Finds the section of the table that a call belongs to.
    fn section_id(&mut self, call: &Call<'_>, wanted: Option<&str>) -> Option<String> {
        let sections = self.sections.get_or_insert_with(Sections::of_table);
        if let Some(id) = wanted.filter(|id| sections.text(id).is_some()) {
            return Some(id.to_owned());
        }
        let directory = match &mut self.directory {
            Some(directory) => directory,
            empty => empty.insert(sections.directory()?),
        };
        let nothing = Usage::new();
        let find = |request: PriceRequest<'_>| Some(directory.calculate(&request).ok()?.provider_id);
        let by_model = PriceRequest::new(call.model, &nothing);
        match (wanted, call.address) {
            (Some(id), _) => find(by_model.with_provider_id(id)),
            (None, Some(address)) => {
                let url = format!("https://{address}");
                find(by_model.clone().with_provider_api_url(&url)).or_else(|| find(by_model))
            }
            (None, None) => find(by_model),
        }
    }

    fn section(&mut self, id: &str) -> Option<&Calculator> {
        let sections = self.sections.get_or_insert_with(Sections::of_table);
        if !self.decoded.contains_key(id) {
            self.decoded.insert(id.to_owned(), sections.decode(&[id]));
        }
        self.decoded.get(id)?.as_ref()
    }

    fn section_with_fallbacks(&mut self, id: &str) -> Option<&Calculator> {
        let sections = self.sections.get_or_insert_with(Sections::of_table);
        if !self.decoded_with_fallbacks.contains_key(id) {
            let fallbacks = sections.fallbacks(id);
            let ids: Vec<&str> = std::iter::once(id).chain(fallbacks.iter().map(String::as_str)).collect();
            let calculator = (ids.len() > 1).then(|| sections.decode(&ids)).flatten();
            self.decoded_with_fallbacks.insert(id.to_owned(), calculator);
        }
        self.decoded_with_fallbacks.get(id)?.as_ref()
    }

    /// Returns the input sizes at which a model's prices change, in order.
    fn thresholds(&mut self, provider_id: &str, model_id: &str) -> Vec<u64> {
        let sections = self.sections.get_or_insert_with(Sections::of_table);
        let fallbacks = sections.fallbacks(provider_id);
        let own = self.own.iter().flat_map(|own| sections_of(&own.text)).filter(|entry| id_of(entry) == provider_id);
        let ids = std::iter::once(provider_id).chain(fallbacks.iter().map(String::as_str));
        let texts = own.map(RawValue::get).chain(ids.filter_map(|id| sections.text(id)));
        let model = texts
            .filter_map(|text| serde_json::from_str::<Listing>(text).ok())
            .flat_map(|listing| listing.models)
            .find(|model| model.id == model_id);
        let mut starts = Vec::new();
        if let Some(model) = model {
            collect_starts(&model.prices, &mut starts);
        }
        starts.sort_unstable();
        starts.dedup();
        starts
    }
}

/// The table cut into providers, as text.
#[derive(Debug)]
struct Sections(Vec<(String, &'static RawValue)>);

impl Sections {
    fn of_table() -> Self {
        Self(sections_of(TABLE).into_iter().map(|entry| (id_of(entry).to_owned(), entry)).collect())
    }

    fn text(&self, id: &str) -> Option<&'static str> {
        self.0.iter().find(|(known, _)| known == id).map(|(_, entry)| entry.get())
    }

    fn decode(&self, ids: &[&str]) -> Option<Calculator> {
        let texts: Vec<&str> = ids.iter().filter_map(|id| self.text(id)).collect();
        Calculator::from_json(format!("[{}]", texts.join(","))).ok()
    }

    fn fallbacks(&self, id: &str) -> Vec<String> {
        let head = self.text(id).and_then(|text| serde_json::from_str::<Head<'_>>(text).ok());
        head.and_then(|head| head.fallback_model_providers).unwrap_or_default()
    }

    /// Makes a table in which every provider has one free model of any name: its answer tells the provider alone.
    fn directory(&self) -> Option<Calculator> {
        let heads = self.0.iter().filter_map(|(_, entry)| serde_json::from_str::<Head<'_>>(entry.get()).ok());
        let entries: Vec<String> = heads
            .map(|head| {
                let member = |name: &str, value: Option<&RawValue>| {
                    value.map_or_else(String::new, |value| format!(",\"{name}\":{value}"))
                };
                format!(
                    "{{\"id\":{},\"name\":{},\"api_pattern\":{}{}{},\"models\":[{{\"id\":\"any\",\"match\":{{\"contains\":\"\"}}}}]}}",
                    head.id,
                    head.id,
                    head.api_pattern,
                    member("model_match", head.model_match),
                    member("provider_match", head.provider_match),
                )
            })
            .collect();
        Calculator::from_json(format!("[{}]", entries.join(","))).ok()
    }
}

/// How a provider is recognised, without its prices.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    api_pattern: &'a RawValue,
    #[serde(borrow, default)]
    model_match: Option<&'a RawValue>,
    #[serde(borrow, default)]
    provider_match: Option<&'a RawValue>,
    #[serde(default)]
    fallback_model_providers: Option<Vec<String>>,
}

/// What a provider offers.
#[derive(Deserialize)]
struct Listing {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    models: Vec<ListedModel>,
}

#[derive(Deserialize)]
struct ListedModel {
    id: String,
    #[serde(default)]
    prices: Json,
}

fn sections_of(table: &str) -> Vec<&RawValue> {
    serde_json::from_str(table).unwrap_or_default()
}

/// Reads the id of a provider's section; it stands first in the table that comes with the crate, so that finding a
/// section does not parse it.
fn id_of(section: &RawValue) -> String {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let first = section.get().strip_prefix("{\"id\":\"").and_then(|rest| rest.split('"').next());
    first
        .map(str::to_owned)
        .unwrap_or_else(|| serde_json::from_str::<Id>(section.get()).map(|section| section.id).unwrap_or_default())
}

fn collect_starts(prices: &Json, starts: &mut Vec<u64>) {
    match prices {
        Json::Array(items) => items.iter().for_each(|item| collect_starts(item, starts)),
        Json::Object(members) => {
            for (key, value) in members {
                if key == "start" {
                    starts.extend(value.as_u64());
                } else {
                    collect_starts(value, starts);
                }
            }
        }
        _ => {}
    }
}

fn write(span: &mut Span, attributes: &[(&str, Value)]) {
    let mut draft = Draft::of(span);
    for (key, value) in attributes {
        draft.set(key, value.clone());
    }
    draft.finish();
}

/// Maps a provider's name to its id in the table; what is not listed is left to the table's own aliases.
fn price_id(provider: &str) -> String {
    let name = provider.trim().to_lowercase();
    let mapped = providers::PRICE_IDS.iter().find(|(from, _)| *from == name).map(|(_, id)| (*id).to_owned());
    mapped.unwrap_or(name)
}

fn price_request<'a>(call: &Call<'a>, usage: &'a Usage, provider: Option<&'a str>) -> PriceRequest<'a> {
    let mut request =
        PriceRequest::new(call.model, usage).with_timestamp(SystemTime::UNIX_EPOCH + Duration::from_nanos(call.at.0));
    request.provider_id = provider;
    match call.tier {
        Some(tier) => request.with_price_context("service_tier", tier),
        None => request,
    }
}

fn usage_of(tokens: &Tokens) -> Usage {
    [
        (UsageKey::INPUT_TOKENS, tokens.prompt),
        (UsageKey::OUTPUT_TOKENS, tokens.completion),
        (UsageKey::CACHE_READ_TOKENS, tokens.cache_read),
        (UsageKey::CACHE_WRITE_TOKENS, tokens.cache_write),
        (UsageKey::OUTPUT_REASONING_TOKENS, tokens.reasoning),
    ]
    .into_iter()
    .filter_map(|(key, count)| Some((key, count? as f64)))
    .collect()
}

/// Rounds half-even to the nano-dollar.
///
/// The table computes in floats, so an exact half may come out a hair beside it; prices have far fewer digits than the
/// ten-thousandth of a nano-dollar to which the float is brought first. Past 900 dollars a call the float no longer
/// tells halves.
fn nanos(usd: f64) -> Option<NanoUsd> {
    const GRAIN: f64 = 1e4;
    let scaled = usd * 1e9;
    let snapped = if scaled.abs() < 9e11 { (scaled * GRAIN).round() / GRAIN } else { scaled };
    let rounded = snapped.round_ties_even();
    // 2^63 as a float is exact; anything at or past it does not fit.
    (rounded.is_finite() && rounded.abs() < 9_223_372_036_854_775_808.0).then_some(NanoUsd(rounded as i64))
}

/// Reads what the emitter says a call cost.
///
/// Emitters write 0 for models that they have no price for; beside tokens that were used, a 0 says nothing.
fn reported(span: &Span) -> Option<NanoUsd> {
    let amount = |value: &Value| value.as_f64().filter(|usd| usd.is_finite() && *usd >= 0.0);
    let usd = REPORTED_COSTS.iter().find_map(|name| match *name {
        CostName::Total(key) => amount(span.attr(key)?),
        CostName::TotalIn(key, member) => {
            let value = span.attr(key)?.to_json();
            value.get(member)?.as_f64().filter(|usd| *usd >= 0.0)
        }
        CostName::Parts(input, output) => {
            // An embedding has no output to pay for.
            Some(amount(span.attr(input)?)? + span.attr(output).and_then(amount).unwrap_or(0.0))
        }
    })?;
    let used = facts::tokens(span).is_some_and(|tokens| tokens.prompt != Some(0) || tokens.completion != Some(0));
    if usd == 0.0 && used { None } else { nanos(usd) }
}

#[cfg(test)]
mod tests;
