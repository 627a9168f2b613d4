//! Prices: what a model call cost, as its emitter says, else by a price table.
//!
//! The table is that of the crate `genai-prices`. The crate decodes all of it at once, which takes tens of
//! milliseconds and 18 MiB, and gives no access to the text it carries; so the same file stands in
//! `src/conventions/prices`, and only the section of a provider that was seen is decoded. The arithmetic stays the crate's.

mod fields;
mod look_up;
mod own;
mod table;
mod usage;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use genai_prices::{Calculator, ErrorKind, PriceCalculation, PriceRequest, Usage};

use super::facts;
use super::normalize::{Draft, canonical_provider, member};
use crate::conventions::dialects::{CostName, REPORTED_COSTS, ZERO_FOR_NONE, ZERO_OF_STREAMS};
use crate::conventions::{names, providers, units};
use crate::model::id::IdMap;
use crate::model::otlp::{Span, Value};
use crate::model::record::{Record, RecordKind};
use crate::model::{CostSource, NanoUsd, StepKind, StepStatus, Tokens, UnixNanos};
use crate::store::files::layout::Layout;
use crate::telemetry::warn;

pub use look_up::{ModelPrices, ProviderPrices, Rates, UnitRate};
use own::{OwnPrices, Watch};
use table::{Section, Sections, TABLE_VERSION};

/// Prices model calls. Cheap to make: price data is decoded when a provider is first seen.
#[derive(Debug, Default)]
pub struct Pricer {
    /// The user's own prices, asked first.
    own: Option<Arc<OwnPrices>>,
    /// Where they are, of a store's: they may change while it is open.
    watch: Option<Watch>,
    /// The table's sections as text, by provider.
    sections: Option<Sections>,
    /// Decoded sections, by provider; `None` for one that could not be decoded.
    decoded: IdMap<String, Option<Section>>,
    /// The same together with the providers whose models a provider also serves.
    decoded_with_fallbacks: IdMap<String, Option<Section>>,
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

/// A file of prices that can't be used.
#[derive(Debug)]
pub struct PricesError {
    name: String,
    why: String,
}

impl fmt::Display for PricesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prices of {} can't be used: {}", self.name, self.why)
    }
}

impl std::error::Error for PricesError {}

/// What is needed to price one call.
#[derive(Clone, Copy)]
struct Call<'a> {
    provider: Option<&'a str>,
    address: Option<&'a str>,
    model: &'a str,
    usage: &'a Usage,
    /// Keys and values that the table knows besides the model.
    circumstances: &'a [(&'a str, &'a str)],
    at: UnixNanos,
}

/// A price, and by what it was found.
struct Priced {
    price: PriceCalculation,
    table: String,
    by_token: bool,
    /// The usage has what the model is billed by, where that is not tokens.
    by_what_was_told: bool,
}

impl Priced {
    fn by(table: &str, section: &Section, usage: &Usage, price: PriceCalculation) -> Self {
        let table = format!("{table} {}/{}", price.provider_id, price.model_id);
        let by_token = section.is_by_token(&price.model_id);
        Self { table, by_token, by_what_was_told: section.is_billed_by(&price.model_id, usage), price }
    }
}

impl Pricer {
    /// Makes a pricer that has decoded nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a pricer that asks the user's own prices first: JSON in the table's format, an array of providers.
    ///
    /// `name` stands for the file in what is stored about a cost. Prices of units that do not exist are an error: they
    /// would make calls look free.
    pub fn with_own_prices(name: impl Into<String>, json: impl Into<String>) -> Result<Self, PricesError> {
        let own = Some(Arc::new(OwnPrices::read(name.into(), json.into())?));
        Ok(Self { own, ..Self::default() })
    }

    /// Checks a file of prices for what its author can't mean: fields that the table's form does not have, and models
    /// without prices. Reading it takes these for nothing.
    pub fn check_own_prices(name: impl Into<String>, json: &str) -> Result<(), PricesError> {
        fields::check(json).map_err(|why| PricesError { name: name.into(), why })
    }

    /// Makes one that asks the same prices, for another thread: the user's own are not read again.
    pub(crate) fn another(&self) -> Self {
        Self { own: self.own.clone(), watch: self.watch.clone(), ..Self::default() }
    }

    /// Makes the pricer of a store: with the user's own prices where it has some, and as these change.
    ///
    /// Prices that cannot be read are told, and cost nothing but themselves.
    pub fn of_store(layout: &Layout) -> (Self, Option<String>) {
        let (watch, own) = Watch::begin(layout);
        let (own, bad) = match own {
            Ok(own) => (own, None),
            Err(why) => (None, Some(format!("{why}; using the table"))),
        };
        (Self { own, watch: Some(watch), ..Self::default() }, bad)
    }

    /// Takes up what the user's own prices are now, where they are a store's.
    fn look_after_own(&mut self) {
        match self.watch.as_mut().and_then(Watch::changed) {
            Some(Ok(own)) => self.own = own,
            Some(Err(why)) => warn(format_args!("{why}; the prices from before it was changed hold on")),
            None => {}
        }
    }

    /// Tells whether the user's own prices are asked first.
    pub fn has_own_prices(&self) -> bool {
        self.own.is_some()
    }

    /// Returns name and version of the table that comes with runspan.
    pub fn table_version() -> &'static str {
        TABLE_VERSION
    }

    /// Writes what an ended model call cost, and where that is known from, into its normalized span.
    ///
    /// What the emitter says wins. Of agents and workflows it is all that is written, since they may only repeat what model calls below
    /// them used, unless an agent is known to tell what no call does; of other steps nothing is. Nothing is written where the cost can't be known: a cost is never guessed and never 0 for want of a price.
    pub fn price(&mut self, record: &mut Record) {
        let span = &record.span;
        let kind = facts::kind(span);
        if record.kind != RecordKind::Ended || span.end_time_unix_nano == 0 {
            return;
        }
        if !facts::is_billed(kind) {
            // What a tool or a plain step says that something cost may be the price of a flight.
            let is_sum = matches!(kind, StepKind::Agent | StepKind::Workflow);
            if !is_sum || has_own_cost(span) {
                return;
            }
            if let Some(cost) = reported(span).filter(|cost| cost.0 > 0) {
                write_reported(&mut record.span, cost);
            } else if facts::tells_own_use(&record.scope, &span.name, kind) {
                // It stands for its calls, none of which tells what it used.
                let quote = self.quote_span(span, StepKind::Llm);
                write_computed(&mut record.span, quote);
            }
            return;
        }
        let is_replayed = span.attr_str(names::RESPONSE_ID).is_some_and(|id| id.starts_with(names::REPLAYED_ANSWER));
        if is_replayed {
            // It was given from a recording: nobody billed it, and a program that prices its calls itself cannot know.
            write(
                &mut record.span,
                [(names::COST_USD, 0.0.into()), (names::COST_SOURCE, CostSource::Reported.as_str().into())],
            );
        } else if has_own_cost(span) {
            if span.attr(names::COST_SOURCE).is_none() {
                write(&mut record.span, [(names::COST_SOURCE, CostSource::Reported.as_str().into())]);
            }
        } else if let Some(cost) = reported(span).filter(|_| !has_begun_only(span)) {
            write_reported(&mut record.span, cost);
        } else {
            let quote = self.quote_span(span, kind);
            write_computed(&mut record.span, quote);
        }
    }

    /// Prices one call; `None` when provider, model or counts are not known well enough.
    ///
    /// `provider` is a `gen_ai.provider.name`; without it the model's name has to tell. `at` chooses among prices that
    /// changed over time.
    pub fn quote(&mut self, provider: Option<&str>, model: &str, usage: &Tokens, at: UnixNanos) -> Option<Quote> {
        if usage.prompt.is_none() && usage.completion.is_none() {
            return None;
        }
        self.look_after_own();
        let usage = usage::of_tokens(usage);
        self.quote_call(&Call { provider, address: None, model, usage: &usage, circumstances: &[], at }, true)
    }

    /// Prices the call that a span tells of, unless it has a price of its own by its circumstances which the table does not
    /// know: one that is the same as without them. Of an input that only a total tells it is not known what it cost, nor of a call in
    /// which of two tiers it was served.
    fn quote_span(&mut self, span: &Span, kind: StepKind) -> Option<Quote> {
        // The word for the basis is how it was said before.
        let is_of_total = span.attr(names::USAGE_OF_TOTAL) == Some(&Value::Bool(true))
            || span.attr_str(names::USAGE_BASIS) == Some("total");
        if is_of_total {
            return None;
        }
        let circumstances = usage::circumstances_of(span);
        let quote = self.quote_under(span, kind, &circumstances)?;
        if let Some(tier) = usage::tier_in_doubt(span) {
            // Both are known to be the same, or which it is is not known.
            let asked = [&circumstances[..], &[("service_tier", tier)]].concat();
            if self.quote_under(span, kind, &asked).is_none_or(|asked| asked.cost != quote.cost) {
                return None;
            }
        }
        let is_apart = |circumstance: &(&str, &str)| units::PRICED_APART.contains(circumstance);
        if !circumstances.iter().any(is_apart) {
            return Some(quote);
        }
        let without: Vec<(&str, &str)> = circumstances.iter().copied().filter(|told| !is_apart(told)).collect();
        let plain = self.quote_under(span, kind, &without)?;
        Some(quote).filter(|quote| quote.cost != plain.cost)
    }

    /// Prices it by the model that answered, else by the one asked for, at its start.
    fn quote_under(&mut self, span: &Span, kind: StepKind, circumstances: &[(&str, &str)]) -> Option<Quote> {
        let tokens = facts::tokens(span).unwrap_or_default();
        // Half of a bill is not a bill; only a model that writes nothing has no output to count.
        let tells_tokens = tokens.prompt.is_some() && (kind != StepKind::Llm || tokens.completion.is_some());
        let usage = usage::of_span(span);
        if !tells_tokens && !usage::counts_more_than_tokens(&usage) {
            return None;
        }
        self.look_after_own();
        let provider = span.attr_str(names::PROVIDER);
        let model = |key| span.attr_str(key).filter(|model| !model.is_empty());
        let [answered, asked] = [names::RESPONSE_MODEL, names::REQUEST_MODEL].map(model);
        let call = |model, provider| Call {
            provider,
            address: span.attr_str(names::SERVER_ADDRESS),
            model,
            usage: &usage,
            circumstances,
            at: UnixNanos(span.start_time_unix_nano),
        };
        let provider = provider.filter(|name| !providers::FRAMEWORKS.contains(name));
        if let Some(quote) = answered.and_then(|model| self.quote_call(&call(model, provider), tells_tokens)) {
            return Some(quote);
        }
        // Another maker's model has answered in the place of the one that was asked: the provider is the first one's.
        let is_other = |answered: &str| !asked.is_none_or(|asked| answered.contains(asked) || asked.contains(answered));
        let has_own = provider.is_some_and(|provider| providers::WITH_OWN_MODELS.contains(&provider));
        let of_other = answered.filter(|answered| has_own && is_other(answered));
        if let Some(quote) = of_other.and_then(|model| self.quote_call(&call(model, None), tells_tokens)) {
            // Who serves it at an address that is told may have a price of its own.
            return Some(quote).filter(|_| span.attr(names::SERVER_ADDRESS).is_none());
        }
        asked.and_then(|model| self.quote_call(&call(model, provider), tells_tokens))
    }

    /// Prices a call, unless what its model is billed by was not told: tokens say nothing about hours of audio.
    fn quote_call(&mut self, call: &Call<'_>, tells_tokens: bool) -> Option<Quote> {
        let Priced { price, table, by_token, by_what_was_told } = self.find(call)?;
        if !(if by_token { tells_tokens } else { by_what_was_told }) {
            return None;
        }
        Some(Quote { cost: nanos(price.total_price)?, table, provider_id: price.provider_id, model_id: price.model_id })
    }

    /// Prices a call by its model's name; of a cloud's name of a resource by the model in it, unless the user's own prices know
    /// the whole.
    fn find(&mut self, call: &Call<'_>) -> Option<Priced> {
        let own = self.own_price(call);
        if own.is_some() {
            return own;
        }
        let names = [Some(*call), behind_its_provider(call)];
        let of_resource = names.into_iter().flatten().find_map(|call| {
            let model = providers::model_of_resource(call.model)?;
            Some(Call { model, ..call })
        });
        of_resource.and_then(|model| self.find_named(&model)).or_else(|| self.find_named(call))
    }

    fn find_named(&mut self, call: &Call<'_>) -> Option<Priced> {
        let names = || [Some(*call), behind_its_provider(call)].into_iter().flatten();
        let priced = names().find_map(|call| self.calculate(&call)).or_else(|| self.calculate_of_maker(call));
        priced.or_else(|| names().find_map(|call| self.calculate(&of_the_same_price(&call)?)))
    }

    /// Prices a call by the user's own prices: those of the provider it names, else of whoever the table says that the model is, else
    /// of whoever of the user's own has such a model.
    fn own_price(&mut self, call: &Call<'_>) -> Option<Priced> {
        let own = Arc::clone(self.own.as_ref()?);
        let wanted = call.provider.map(price_id);
        let by_name = own.price(call, wanted.as_deref());
        if by_name.is_some() || wanted.is_some() {
            return by_name;
        }
        match self.section_id(call, None) {
            Some(id) => own.price(call, Some(&id)),
            None => own.providers.iter().find_map(|id| own.price(call, Some(id))),
        }
    }

    fn calculate(&mut self, call: &Call<'_>) -> Option<Priced> {
        let own = self.own_price(call);
        if own.is_some() {
            return own;
        }
        let wanted = call.provider.map(price_id);
        let id = self.section_id(call, wanted.as_deref())?;
        // An alias or nothing at all found the section; inside it the provider is known by its id. Only LiteLLM's
        // `vendor/model` has to be taken apart by the crate once more.
        let provider = wanted.as_deref().filter(|name| name.eq_ignore_ascii_case("litellm")).unwrap_or(&id).to_owned();
        let request = price_request(call, Some(&provider));
        let section = self.section(&id)?;
        match section.calculator.calculate(&request) {
            Err(error) if error.kind() == ErrorKind::ModelNotFound => {
                let section = self.section_with_fallbacks(&id)?;
                let price = section.calculator.calculate(&request).ok()?;
                Some(Priced::by(TABLE_VERSION, section, call.usage, price))
            }
            result => Some(Priced::by(TABLE_VERSION, section, call.usage, result.ok()?)),
        }
    }

    /// Prices a model whose maker Bedrock has before its name, and who tells of it has not: `nova-lite-v1:0` is
    /// `amazon.nova-lite-v1:0` there.
    fn calculate_of_maker(&mut self, call: &Call<'_>) -> Option<Priced> {
        if call.provider.map(price_id).as_deref() != Some(providers::BEDROCK_ID) {
            return None;
        }
        providers::BEDROCK_VENDORS.iter().find_map(|maker| {
            let model = format!("{maker}.{}", call.model);
            self.calculate(&Call { model: &model, ..*call })
        })
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
        let maker = || providers::MAKERS.iter().find(|(start, _)| call.model.starts_with(start));
        let of_maker = || maker().map(|(_, id)| (*id).to_owned());
        match (wanted, call.address) {
            (Some(id), _) => find(by_model.with_provider_id(id)),
            (None, Some(address)) => {
                let url = format!("https://{address}");
                find(by_model.clone().with_provider_api_url(&url)).or_else(|| find(by_model)).or_else(of_maker)
            }
            (None, None) => find(by_model).or_else(of_maker),
        }
    }

    fn section(&mut self, id: &str) -> Option<&Section> {
        let sections = self.sections.get_or_insert_with(Sections::of_table);
        if !self.decoded.contains_key(id) {
            self.decoded.insert(id.to_owned(), sections.decode(&[id]));
        }
        self.decoded.get(id)?.as_ref()
    }

    fn section_with_fallbacks(&mut self, id: &str) -> Option<&Section> {
        let sections = self.sections.get_or_insert_with(Sections::of_table);
        if !self.decoded_with_fallbacks.contains_key(id) {
            let fallbacks = sections.fallbacks(id);
            let ids: Vec<&str> = std::iter::once(id).chain(fallbacks.iter().map(String::as_str)).collect();
            let calculator = (ids.len() > 1).then(|| sections.decode(&ids)).flatten();
            self.decoded_with_fallbacks.insert(id.to_owned(), calculator);
        }
        self.decoded_with_fallbacks.get(id)?.as_ref()
    }
}

fn write<const N: usize>(span: &mut Span, attributes: [(&str, Value); N]) {
    let mut draft = Draft::of(span);
    for (key, value) in attributes {
        draft.set(key, value);
    }
    draft.finish();
}

/// Tells whether what a stream that was given up or broke off put out was taken back, since it is only what its beginning says: a cost
/// is of no more.
fn has_begun_only(span: &Span) -> bool {
    let told = span.attr(&format!("{}{}", names::ORIGINAL_PREFIX, names::OUTPUT_TOKENS));
    let has_ended_badly = match facts::status(span) {
        StepStatus::Cancelled => told.is_some(),
        // That nothing came out, as who failed at once may say, may have a cost of nothing.
        StepStatus::Error | StepStatus::Timeout => told.and_then(Value::as_i64).is_some_and(|output| output > 0),
        _ => false,
    };
    has_ended_badly && span.attr(names::OUTPUT_TOKENS).is_none()
}

fn write_computed(span: &mut Span, quote: Option<Quote>) {
    let Some(quote) = quote else { return };
    write(
        span,
        [
            (names::COST_USD, quote.cost.as_usd().into()),
            (names::COST_SOURCE, CostSource::Computed.as_str().into()),
            (names::COST_TABLE, quote.table.into()),
        ],
    );
}

fn write_reported(span: &mut Span, cost: NanoUsd) {
    let source = CostSource::Reported.as_str();
    write(span, [(names::COST_USD, cost.as_usd().into()), (names::COST_SOURCE, source.into())]);
}

/// Maps a provider's name to its id in the table; what is not listed is left to the table's own aliases.
fn price_id(provider: &str) -> String {
    let name = provider.trim().to_lowercase();
    let mapped = providers::PRICE_IDS.iter().find(|(from, _)| *from == name).map(|(_, id)| (*id).to_owned());
    mapped.unwrap_or(name)
}

/// Takes the provider off a model's name that begins with it (`anthropic/claude-sonnet-4-5`), as LiteLLM and who calls by it
/// write it. Behind the name of another, a host may have a price of its own.
fn behind_its_provider<'a>(call: &Call<'a>) -> Option<Call<'a>> {
    let (start, model) = call.model.split_once('/')?;
    let is_same = price_id(&canonical_provider(start)?) == price_id(&canonical_provider(call.provider?)?);
    (is_same && !model.is_empty()).then_some(Call { model, ..*call })
}

/// Returns the model that a name adds something to which changes no price: the first version of one of Gemini's, and
/// OpenRouter's word for one of Anthropic's that OpenRouter does not moderate.
fn of_the_same_price<'a>(call: &Call<'a>) -> Option<Call<'a>> {
    let is_at = |id: &str| call.provider.is_some_and(|provider| price_id(provider) == id);
    let model = if is_at(providers::OPENROUTER_ID) {
        call.model.strip_suffix(providers::SELF_MODERATED).filter(|model| model.starts_with("anthropic/"))
    } else {
        call.model.strip_suffix(providers::FIRST_VERSION).filter(|model| model.starts_with("gemini-"))
    };
    Some(Call { model: model?, ..*call })
}

fn price_request<'a>(call: &Call<'a>, provider: Option<&'a str>) -> PriceRequest<'a> {
    let mut request = PriceRequest::new(call.model, call.usage)
        .with_timestamp(SystemTime::UNIX_EPOCH + Duration::from_nanos(call.at.0));
    request.provider_id = provider;
    request.price_context = call.circumstances.to_vec();
    request
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
    (rounded.is_finite() && rounded.abs() <= NanoUsd::MAX.0 as f64).then_some(NanoUsd(rounded as i64))
}

/// Tells whether a span bears an amount under our own name; one that no run can hold is none.
fn has_own_cost(span: &Span) -> bool {
    let usd = span.attr(names::COST_USD).and_then(Value::as_f64).filter(|usd| *usd >= 0.0);
    usd.and_then(nanos).is_some()
}

/// Reads what the emitter says a call cost.
///
/// Emitters write 0 for models that they have no price for, and for calls of which they do not know what they used; only where
/// nothing was used, or the call failed before an answer began, is it one.
fn reported(span: &Span) -> Option<NanoUsd> {
    let is_amount = |usd: &f64| *usd >= 0.0 && nanos(*usd).is_some();
    let amount = |value: &Value| value.as_f64().filter(is_amount);
    let amount_in =
        |value: &serde_json::Value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(is_amount);
    let amount_at = |name: &CostName| match *name {
        CostName::Total(key) => amount(span.attr(key)?),
        CostName::TotalIn(key, path) => amount_in(&member(&span.attr(key)?.to_json(), path)?),
        CostName::SumOf(key) => {
            let parts = span.attr(key)?.to_json();
            parts.as_object()?.values().filter_map(amount_in).reduce(|sum, part| sum + part)
        }
        CostName::Parts(input, output) => {
            // An embedding has no output to pay for.
            Some(amount(span.attr(input)?)? + span.attr(output).and_then(amount).unwrap_or(0.0))
        }
    };
    let (key, usd) = REPORTED_COSTS.iter().find_map(|name| Some((name.key(), amount_at(name)?)))?;
    let is_bare = || {
        let parts = span.attr(key).filter(|_| ZERO_FOR_NONE.contains(&key)).map(Value::to_json);
        parts.is_some_and(|parts| parts.as_object().is_some_and(|parts| parts.len() == 1))
    };
    let is_of_stream =
        || ZERO_OF_STREAMS.iter().any(|(of, mark, word)| *of == key && span.attr_str(mark) == Some(*word));
    let used_nothing = match facts::tokens(span) {
        Some(tokens) => tokens.prompt == Some(0) && tokens.completion == Some(0),
        None => {
            let has_begun = span.attr(names::RESPONSE_ID).is_some();
            facts::status(span) == StepStatus::Error && !has_begun && !is_bare() && !is_of_stream()
        }
    };
    if usd == 0.0 && !used_nothing { None } else { nanos(usd) }
}

#[cfg(test)]
mod tests;
