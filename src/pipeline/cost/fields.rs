//! Whether a file of prices says what its author means: the engine passes over what it does not know.

use serde_json::{Map, Value as Json};

use super::table::is_price;

/// Source: the table of genai-prices 0.2.1, and the files that it is made of.
const PROVIDER: &[&str] = &[
    "id",
    "name",
    "api_pattern",
    "models",
    "model_match",
    "provider_match",
    "fallback_model_providers",
    "extractors",
    "pricing_urls",
    "price_comments",
    "description",
];
const MODEL: &[&str] = &[
    "id",
    "match",
    "prices",
    "price_variants",
    "name",
    "description",
    "context_window",
    "deprecated",
    "price_comments",
    "prices_checked",
    "price_discrepancies",
    "collapse",
];
const PRICES_AT_A_TIME: &[&str] = &["prices", "constraint"];
const VARIANT: &[&str] = &["when", "prices", "constraint"];
const BY_INPUT: &[&str] = &["base", "tiers"];
const FROM_AN_INPUT: &[&str] = &["start", "price"];

/// Tells of the first field that the table's form does not have, and of a model without prices, each with its place.
pub(super) fn check(text: &str) -> Result<(), String> {
    let providers: Vec<Map<String, Json>> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    for provider in &providers {
        let place = id_of(provider);
        known(provider, PROVIDER, &place)?;
        let models = objects(provider.get("models"));
        if models.is_empty() && !provider.contains_key("fallback_model_providers") {
            return Err(format!("{place} has no models"));
        }
        for model in models {
            let place = format!("{place}/{}", id_of(model));
            known(model, MODEL, &place)?;
            check_prices(model.get("prices"), &place)?;
            for variant in objects(model.get("price_variants")) {
                let place = format!("a price variant of {place}");
                known(variant, VARIANT, &place)?;
                // Without any they are those of any call, which the table says of some tiers.
                check_amounts(variant.get("prices").and_then(Json::as_object), &place)?;
            }
        }
    }
    Ok(())
}

fn check_prices(prices: Option<&Json>, place: &str) -> Result<(), String> {
    let none =
        || format!("{place} has no prices: give a free one `\"prices\": {{\"input_mtok\": 0, \"output_mtok\": 0}}`");
    let at_times = match prices {
        Some(Json::Array(_)) => objects(prices),
        // The table has none of what is free.
        Some(Json::Object(prices)) => return check_amounts(Some(prices), place),
        _ => return Err(none()),
    };
    for at_time in &at_times {
        known(at_time, PRICES_AT_A_TIME, &format!("an entry in the prices of {place}"))?;
        check_prices(at_time.get("prices").filter(|prices| prices.is_object()), place)?;
    }
    if at_times.is_empty() { Err(none()) } else { Ok(()) }
}

fn check_amounts(prices: Option<&Map<String, Json>>, place: &str) -> Result<(), String> {
    for (key, price) in prices.into_iter().flatten() {
        if !is_price(key) {
            return Err(unknown_unit(place, key));
        }
        let Json::Object(by_input) = price else { continue };
        known(by_input, BY_INPUT, &format!("{key} of {place}"))?;
        for tier in objects(by_input.get("tiers")) {
            known(tier, FROM_AN_INPUT, &format!("a tier in {key} of {place}"))?;
        }
    }
    Ok(())
}

/// Says that a price is of no use.
pub(super) fn unknown_unit(place: &str, key: &str) -> String {
    format!("{place} has a price {key:?}, which is for no unit that the table knows")
}

fn known(object: &Map<String, Json>, fields: &[&str], place: &str) -> Result<(), String> {
    match object.keys().find(|key| !fields.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!("{place} has a field {key:?}, which is none of {}", fields.join(", "))),
    }
}

fn objects(list: Option<&Json>) -> Vec<&Map<String, Json>> {
    list.and_then(Json::as_array).map_or_else(Vec::new, |list| list.iter().filter_map(Json::as_object).collect())
}

fn id_of(object: &Map<String, Json>) -> String {
    object.get("id").and_then(Json::as_str).unwrap_or("?").to_owned()
}
