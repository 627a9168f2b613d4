//! The price table, decoded a provider at a time.

use std::collections::{BTreeMap, BTreeSet};

use genai_prices::{Calculator, PriceRequest, Usage};
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;

use super::fields::unknown_unit;
use crate::conventions::units::{TIERS, UNITS};
use crate::model::id::IdMap;

/// `data/prices.json` of the crate, unchanged; a test holds every model and price of it against the crate's own.
pub(super) const TABLE: &str = include_str!("../../conventions/prices/genai-prices.json");
/// Name and version of [`TABLE`].
pub(super) const TABLE_VERSION: &str = "genai-prices 0.2.1";

/// Decoded prices of one provider or several.
#[derive(Debug)]
pub(super) struct Section {
    /// Computes with them.
    pub calculator: Calculator,
    /// Models that are not billed by tokens at all but by hours of audio, say, and the names of their prices.
    not_by_token: IdMap<String, BTreeSet<String>>,
}

impl Section {
    /// Decodes JSON in the table's format, an array of providers.
    pub fn decode(json: &str) -> Result<Self, genai_prices::Error> {
        let calculator = Calculator::from_json(json)?;
        let models = listings_of(json).flat_map(|listing| listing.models);
        let apart = models.filter(|model| !model.is_by_token());
        let not_by_token = apart.map(|model| (model.id.clone(), model.price_keys())).collect();
        Ok(Self { calculator, not_by_token })
    }

    /// Tells whether a model's price hangs on tokens; that of a free one does, too.
    pub fn is_by_token(&self, model_id: &str) -> bool {
        !self.not_by_token.contains_key(model_id)
    }

    /// Tells whether usage has something that a model is billed by which is not billed by tokens.
    pub fn is_billed_by(&self, model_id: &str, usage: &Usage) -> bool {
        let prices = self.not_by_token.get(model_id);
        let told = UNITS.iter().filter(|unit| usage.contains_key(unit.name));
        prices.is_some_and(|prices| told.into_iter().any(|unit| prices.contains(unit.price)))
    }
}

/// The table cut into providers, as text.
#[derive(Debug)]
pub(super) struct Sections(Vec<(String, &'static RawValue)>);

impl Sections {
    pub fn of_table() -> Self {
        Self(sections_of(TABLE).into_iter().map(|entry| (id_of(entry).to_owned(), entry)).collect())
    }

    pub fn text(&self, id: &str) -> Option<&'static str> {
        self.0.iter().find(|(known, _)| known == id).map(|(_, entry)| entry.get())
    }

    pub fn decode(&self, ids: &[&str]) -> Option<Section> {
        let texts: Vec<&str> = ids.iter().filter_map(|id| self.text(id)).collect();
        Section::decode(&format!("[{}]", texts.join(","))).ok()
    }

    pub fn fallbacks(&self, id: &str) -> Vec<String> {
        let head = self.text(id).and_then(|text| serde_json::from_str::<Head<'_>>(text).ok());
        head.and_then(|head| head.fallback_model_providers).unwrap_or_default()
    }

    /// Makes a table in which every provider has one free model of any name: its answer tells the provider alone.
    pub fn directory(&self) -> Option<Calculator> {
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
pub(super) struct Listing<'a> {
    pub id: String,
    #[serde(default)]
    pub name: String,
    #[serde(borrow, default)]
    pub models: Vec<ListedModel<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ListedModel<'a> {
    pub id: String,
    #[serde(borrow, default)]
    prices: Option<&'a RawValue>,
    #[serde(borrow, default)]
    price_variants: Option<&'a RawValue>,
}

impl ListedModel<'_> {
    /// Returns the input sizes at which prices change.
    pub fn thresholds(&self) -> Vec<u64> {
        let mut starts = Vec::new();
        collect_starts(&self.json(), &mut starts);
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// Returns the words for the tiers that have prices of their own on a day (`2026-10-12`), in order.
    pub fn tiers(&self, day: &str) -> BTreeSet<String> {
        #[derive(Deserialize)]
        struct Variant {
            when: BTreeMap<String, String>,
            #[serde(default)]
            constraint: Option<Json>,
        }
        let variants = self.price_variants.map(|variants| serde_json::from_str::<Vec<Variant>>(variants.get()));
        let has_begun = |variant: &Variant| {
            let start = variant.constraint.as_ref().and_then(|constraint| constraint.get("start_date"));
            start.and_then(Json::as_str).is_none_or(|start| start <= day)
        };
        let all = variants.and_then(Result::ok).unwrap_or_default().into_iter().filter(has_begun);
        all.flat_map(|variant| variant.when).filter_map(|(key, value)| word_of_tier(&key, value)).collect()
    }

    fn json(&self) -> Json {
        self.prices.and_then(|prices| serde_json::from_str(prices.get()).ok()).unwrap_or_default()
    }

    /// Returns the names of all its prices, of every day and hour.
    fn price_keys(&self) -> BTreeSet<String> {
        let json = self.json();
        let at_times: Vec<&Json> = match &json {
            Json::Array(at_times) => at_times.iter().filter_map(|entry| entry.get("prices")).collect(),
            prices => vec![prices],
        };
        at_times.into_iter().filter_map(Json::as_object).flat_map(|prices| prices.keys().cloned()).collect()
    }

    fn is_by_token(&self) -> bool {
        // Nearly all are, which the text shows without being parsed.
        if self.prices.is_none_or(|prices| prices.get().contains("_mtok\"")) {
            return true;
        }
        self.price_keys().is_empty()
    }
}

/// Returns the word that is told of a call for a circumstance of the table that is a tier.
fn word_of_tier(key: &str, value: String) -> Option<String> {
    let translated = TIERS.iter().find(|(_, to)| *to == (key, value.as_str())).map(|(word, _)| (*word).to_owned());
    translated.or_else(|| (key == "service_tier").then_some(value))
}

/// Checks what the engine would only warn of with every call: prices of units that it does not know.
pub(super) fn check(table: &str) -> Result<(), String> {
    let mut providers = 0;
    for listing in listings_of(table) {
        providers += 1;
        for model in &listing.models {
            if let Some(key) = model.price_keys().into_iter().find(|key| !is_price(key)) {
                let (provider, model) = (&listing.id, &model.id);
                return Err(unknown_unit(&format!("{provider}/{model}"), &key));
            }
        }
    }
    if providers == 0 { Err("there is no provider in it".to_owned()) } else { Ok(()) }
}

/// Tells whether a price is one that the engine knows, which it says when it meets one that it does not.
pub(super) fn is_price(key: &str) -> bool {
    let model = serde_json::json!({"id": "any", "match": {"contains": ""}, "prices": {key: 0}});
    let provider = serde_json::json!([{"id": "any", "name": "any", "api_pattern": "any", "models": [model]}]);
    // One that is refused is known: it wants the prices of what it is a part of beside it.
    let Ok(calculator) = Calculator::from_json(provider.to_string()) else { return true };
    let usage = Usage::new();
    let found = calculator.calculate(&PriceRequest::new("any", &usage).with_provider_id("any"));
    found.is_ok_and(|price| price.warnings.is_empty())
}

pub(super) fn sections_of(table: &str) -> Vec<&RawValue> {
    serde_json::from_str(table).unwrap_or_default()
}

/// Lists the providers of a table, as far as they can be read.
pub(super) fn listings_of(table: &str) -> impl Iterator<Item = Listing<'_>> {
    sections_of(table).into_iter().filter_map(|entry| serde_json::from_str(entry.get()).ok())
}

/// Reads the id of a provider's section; it stands first in the table that comes with the crate, so that finding a
/// section does not parse it.
pub(super) fn id_of(section: &RawValue) -> String {
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
