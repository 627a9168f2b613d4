//! What stands in the table, for people to read.

use genai_prices::Usage;

use super::table::{ListedModel, Sections, TABLE, listings_of};
use super::{Call, Priced, Pricer, nanos, usage};
use crate::conventions::units::{UNITS, Unit};
use crate::model::{NanoUsd, UnixNanos};

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
    /// Rates by size of the input, the first one from 0; none where the model is not billed by tokens.
    pub rates: Vec<Rates>,
    /// What else has a price of its own.
    pub others: Vec<UnitRate>,
    /// What every request costs besides.
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

/// What something else than plain tokens costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitRate {
    /// The table's name of the unit: `cache_write_1h_tokens`, `audio_seconds`, `web_searches`.
    pub unit: &'static str,
    /// How many of it the price is for.
    pub per: u64,
    /// The price, at the smallest size of the input.
    pub price: NanoUsd,
}

impl Pricer {
    /// Lists all providers of the table with their models.
    pub fn providers(&self) -> Vec<ProviderPrices> {
        let own = self.own.as_ref().map(|own| own.text.as_str());
        let mut providers: Vec<ProviderPrices> = Vec::new();
        for listing in own.into_iter().chain([TABLE]).flat_map(listings_of) {
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
    ///
    /// `tier` is the tier that the provider served it in, or `batch`; where the table has no prices for it, they are
    /// those of any call.
    pub fn look_up(
        &mut self,
        provider: Option<&str>,
        model: &str,
        at: UnixNanos,
        tier: Option<&str>,
    ) -> Option<ModelPrices> {
        let circumstances: Vec<(&str, &str)> =
            tier.into_iter().map(|tier| usage::circumstance(("service_tier", tier))).collect();
        let mut probe = Probe { pricer: self, provider, model, circumstances: &circumstances, at, per_request: 0.0 };
        let Priced { price: found, table, by_token, .. } = probe.calculate(&[])?;
        probe.per_request = found.total_price;
        let others = UNITS.iter().filter_map(|unit| probe.other(unit)).collect();
        let mut rates = Vec::new();
        if by_token {
            let mut thresholds = probe.pricer.thresholds(&found.provider_id, &found.model_id);
            thresholds.insert(0, 0);
            thresholds.dedup();
            rates = thresholds.into_iter().map(|above| probe.rates(above)).collect::<Option<_>>()?;
        }
        Some(ModelPrices {
            table,
            rates,
            others,
            per_request: nanos(found.total_price)?,
            provider_id: found.provider_id,
            model_id: found.model_id,
        })
    }

    /// Returns the words for the tiers of a model that have prices of their own at a moment.
    pub fn tiers(&mut self, provider_id: &str, model_id: &str, at: UnixNanos) -> Vec<String> {
        let day = at.to_string();
        let day = day.split('T').next().unwrap_or_default();
        self.listed(provider_id, model_id, |model| model.tiers(day).into_iter().collect())
    }

    /// Returns the input sizes at which a model's prices change, in order.
    fn thresholds(&mut self, provider_id: &str, model_id: &str) -> Vec<u64> {
        self.listed(provider_id, model_id, |model| model.thresholds())
    }

    /// Reads something of what the prices say of a model, the user's own first.
    fn listed<T: Default>(&mut self, provider_id: &str, model_id: &str, read: impl FnOnce(ListedModel<'_>) -> T) -> T {
        let sections = self.sections.get_or_insert_with(Sections::of_table);
        let fallbacks = sections.fallbacks(provider_id);
        let ids = std::iter::once(provider_id).chain(fallbacks.iter().map(String::as_str));
        let ours = ids.filter_map(|id| sections.text(id)).filter_map(|text| serde_json::from_str(text).ok());
        let own = self.own.iter().flat_map(|own| listings_of(&own.text)).filter(|listing| listing.id == provider_id);
        let mut models = own.chain(ours).flat_map(|listing| listing.models);
        models.find(|model| model.id == model_id).map(read).unwrap_or_default()
    }
}

/// Finds a rate by what calls would cost, so that it is right for every form that prices have.
struct Probe<'a> {
    pricer: &'a mut Pricer,
    provider: Option<&'a str>,
    model: &'a str,
    circumstances: &'a [(&'a str, &'a str)],
    at: UnixNanos,
    /// In dollars.
    per_request: f64,
}

impl Probe<'_> {
    fn calculate(&mut self, counts: &[(&str, u64)]) -> Option<Priced> {
        let usage: Usage = counts.iter().map(|(unit, count)| (*unit, *count as f64)).collect();
        self.pricer.find(&Call {
            provider: self.provider,
            address: None,
            model: self.model,
            usage: &usage,
            circumstances: self.circumstances,
            at: self.at,
        })
    }

    /// Returns what counts cost, in dollars.
    fn cost(&mut self, counts: &[(&str, u64)]) -> Option<f64> {
        Some(self.calculate(counts)?.price.total_price - self.per_request)
    }

    fn rates(&mut self, above_input_tokens: u64) -> Option<Rates> {
        let base = above_input_tokens + 1;
        // All of the input as one kind, so that no small difference of two large numbers is taken.
        let input = self.cost(&[("input_tokens", base)])?;
        let cache_read = self.cost(&[("input_tokens", base), ("cache_read_tokens", base)])?;
        let cache_write = self.cost(&[("input_tokens", base), ("cache_write_tokens", base)])?;
        let output = self.cost(&[("input_tokens", base), ("output_tokens", base)])? - input;
        let a_million = |dollars: f64| short(dollars / base as f64 * 1e6);
        Some(Rates {
            above_input_tokens,
            input: a_million(input)?,
            cache_read: a_million(cache_read)?,
            cache_write: a_million(cache_write)?,
            output: a_million(output)?,
        })
    }

    /// Returns the rate of a unit, if it has one of its own.
    fn other(&mut self, unit: &Unit) -> Option<UnitRate> {
        // One of it, so that no size of the input is reached at which prices change.
        let wider: Vec<(&str, u64)> = unit.part_of.iter().map(|wider| (*wider, 1)).collect();
        let all: Vec<(&str, u64)> = wider.iter().copied().chain([(unit.name, 1)]).collect();
        // The first two at most: a third would overlap with the second.
        let (without, with) = (self.cost(&wider[..wider.len().min(2)])?, self.cost(&all)?);
        let price = |dollars: f64| short(dollars * unit.per as f64);
        let (without, price) = (price(without)?, price(with)?);
        (price != without).then_some(UnitRate { unit: unit.name, per: unit.per, price })
    }
}

/// Prices are short decimals; a quotient of floats is a hair beside them.
fn short(dollars: f64) -> Option<NanoUsd> {
    NanoUsd::from_usd((dollars * 1e6).round() / 1e6)
}
