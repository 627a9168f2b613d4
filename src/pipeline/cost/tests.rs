use genai_prices::UsageKey;

use super::table::{Listing, TABLE, id_of, sections_of};
use super::*;
use crate::conventions::units;
use crate::model::otlp::{KeyValue, Resource, Scope};
use std::sync::Arc;

/// 2026-11-01T00:00:00Z.
const AT: UnixNanos = UnixNanos(1_793_491_200_000_000_000);

fn tokens(prompt: u64, completion: u64) -> Tokens {
    Tokens { prompt: Some(prompt), completion: Some(completion), ..Tokens::default() }
}

fn call(attributes: &[(&str, Value)]) -> Record {
    let attributes = attributes
        .iter()
        .map(|(key, value)| KeyValue { key: (*key).into(), value: Some(value.clone().into()) })
        .collect();
    let span = Span { start_time_unix_nano: AT.0, end_time_unix_nano: AT.0 + 1, attributes, ..Span::default() };
    Record { kind: RecordKind::Ended, resource: Arc::new(Resource::default()), scope: Scope::default(), span }
}

fn chat(more: &[(&str, Value)]) -> Record {
    let mut attributes: Vec<(&str, Value)> = vec![
        (names::OPERATION, "chat".into()),
        (names::PROVIDER, "openai".into()),
        (names::REQUEST_MODEL, "gpt-4o-mini".into()),
    ];
    attributes.extend(more.iter().cloned());
    call(&attributes)
}

/// What pricing wrote: dollars, source, table.
fn priced(record: &Record) -> String {
    let mut record = record.clone();
    Pricer::new().price(&mut record);
    let written = [names::COST_USD, names::COST_SOURCE, names::COST_TABLE].map(|key| match record.span.attr(key) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.as_f64().and_then(NanoUsd::from_usd).unwrap().to_string(),
        None => "-".to_owned(),
    });
    written.join(" ")
}

const USED: [(&str, Value); 2] = [(names::INPUT_TOKENS, Value::Int(211)), (names::OUTPUT_TOKENS, Value::Int(37))];
const NOTHING: &str = "- - -";

#[test]
fn a_model_by_which_the_table_knows_no_provider_has_its_makers_price() {
    let cost = |provider: Option<&str>, model: &str| {
        let usage = Tokens { prompt: Some(1_000_000), ..Tokens::default() };
        Pricer::new().quote(provider, model, &usage, AT).map(|quote| (quote.cost.to_string(), quote.provider_id))
    };
    let openai = |usd: &str| Some((usd.to_owned(), "openai".to_owned()));
    assert_eq!(cost(None, "text-embedding-3-small"), openai("0.02"));
    assert_eq!(cost(None, "text-embedding-3-large"), openai("0.13"));
    assert_eq!(cost(None, "text-embedding-ada-002"), openai("0.1"));
    assert_eq!(cost(None, "text-embedding-4"), None);
    // Whoever is named has no such model, or one at a price of its own.
    assert_eq!(cost(Some("cohere"), "text-embedding-3-small"), None);
    assert_eq!(cost(Some("azure.ai.openai"), "text-embedding-3-small").map(|(_, id)| id).as_deref(), Some("azure"));
}

#[test]
fn every_provider_of_the_standard_finds_its_prices() {
    let mut pricer = Pricer::new();
    for (provider, model, id) in [
        ("anthropic", "claude-sonnet-4-5", Some("anthropic")),
        ("openai", "gpt-4o-mini", Some("openai")),
        ("cohere", "command-r-plus", Some("cohere")),
        ("deepseek", "deepseek-chat", Some("deepseek")),
        ("groq", "llama-3.3-70b-versatile", Some("groq")),
        ("perplexity", "sonar", Some("perplexity")),
        ("aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", Some("aws")),
        ("gcp.gemini", "gemini-2.5-flash", Some("google")),
        ("gcp.vertex_ai", "gemini-2.5-flash", Some("google")),
        ("gcp.vertex_ai", "claude-sonnet-4-5", Some("google")),
        ("gcp.gen_ai", "gemini-2.5-flash", Some("google")),
        ("azure.ai.openai", "gpt-4o-mini", Some("azure")),
        ("azure.ai.inference", "gpt-4o-mini", Some("azure")),
        ("x_ai", "grok-4", Some("x-ai")),
        ("mistral_ai", "mistral-large-latest", Some("mistral")),
        ("moonshot_ai", "kimi-k2-0905-preview", Some("moonshotai")),
        ("ibm.watsonx.ai", "granite-3-8b-instruct", None),
        // What rig writes.
        ("azure.openai", "gpt-4o-mini", Some("azure")),
        ("xai", "grok-4", Some("x-ai")),
        ("mistral", "mistral-large-latest", Some("mistral")),
        ("openrouter", "openai/gpt-4o-mini", Some("openrouter")),
        ("ollama", "llama3", None),
        // A proxy that names the real provider in the model.
        ("litellm", "anthropic/claude-sonnet-4-5", Some("anthropic")),
    ] {
        let quote = pricer.quote(Some(provider), model, &tokens(1000, 100), AT);
        assert_eq!(quote.map(|quote| quote.provider_id).as_deref(), id, "{provider} {model}");
    }
    for (model, id) in [
        ("gpt-4o-mini", Some("openai")),
        ("claude-sonnet-4-5", Some("anthropic")),
        ("gemini-2.5-flash", Some("google")),
        ("llama-3.3-70b-versatile", None),
    ] {
        let quote = pricer.quote(None, model, &tokens(1000, 100), AT);
        assert_eq!(quote.map(|quote| quote.provider_id).as_deref(), id, "{model}");
    }
}

#[test]
fn every_id_we_map_to_is_in_the_table() {
    let known: Vec<String> = Pricer::new().providers().into_iter().map(|provider| provider.id).collect();
    for (_, id) in providers::PRICE_IDS {
        assert!(known.iter().any(|known| known == id), "{id}");
    }
}

#[test]
fn an_open_model_is_priced_by_the_host_that_served_it() {
    let mut attributes =
        vec![(names::OPERATION, "chat".into()), (names::REQUEST_MODEL, "llama-3.3-70b-versatile".into())];
    attributes.extend(USED);
    assert_eq!(priced(&call(&attributes)), NOTHING);
    attributes.push((names::SERVER_ADDRESS, "api.groq.com".into()));
    assert!(priced(&call(&attributes)).ends_with("groq/llama-3.3-70b-versatile"));
}

#[test]
fn a_quote_counts_cached_input_at_its_own_rate() {
    let usage = Tokens { cache_read: Some(64), reasoning: Some(16), ..tokens(211, 37) };
    assert_eq!(
        Pricer::new().quote(Some("openai"), "gpt-4o-mini-2024-07-18", &usage, AT),
        Some(Quote {
            // 147 x 0.15 + 64 x 0.075 + 37 x 0.6 dollars a million.
            cost: NanoUsd(49_050),
            table: "genai-prices 0.2.1 openai/gpt-4o-mini".into(),
            provider_id: "openai".into(),
            model_id: "gpt-4o-mini".into(),
        })
    );
}

#[test]
fn what_cannot_be_known_has_no_price() {
    let mut pricer = Pricer::new();
    let mut quote = |model, usage: Tokens| pricer.quote(Some("openai"), model, &usage, AT).map(|quote| quote.cost);
    assert_eq!(quote("no-such-model", tokens(1, 1)), None);
    assert_eq!(quote("gpt-4o-mini", Tokens::default()), None);
    // More was cached than sent: a broken report, not a cheap call.
    assert_eq!(quote("gpt-4o-mini", Tokens { cache_read: Some(2), ..tokens(1, 1) }), None);
    assert_eq!(quote("gpt-4o-mini", tokens(0, 0)), Some(NanoUsd(0)));
}

#[test]
fn half_nano_dollars_go_to_the_even_neighbour() {
    for (usd, expected) in [
        (36.5e-9, 36),
        (37.5e-9, 38),
        (0.037_5e-6 * 3.0, 112),
        (0.1 + 0.2, 300_000_000),
        (1e-9 * 0.500_1, 1),
        (123_456.789, 123_456_789_000_000),
    ] {
        assert_eq!(nanos(usd), Some(NanoUsd(expected)), "{usd}");
    }
    assert_eq!(nanos(f64::NAN), None);
    assert_eq!(nanos(1e10), None);
}

#[test]
fn prices_are_written_on_ended_model_calls_alone() {
    assert_eq!(priced(&chat(&USED)), "0.00005385 computed genai-prices 0.2.1 openai/gpt-4o-mini");
    assert_eq!(priced(&chat(&[])), NOTHING);
    assert_eq!(priced(&chat(&USED[..1])), NOTHING, "half a bill");

    let mut open = chat(&USED);
    open.kind = RecordKind::Started;
    assert_eq!(priced(&open), NOTHING);

    let agent: Vec<_> = [(names::OPERATION, "invoke_agent".into()), (names::REQUEST_MODEL, "gpt-4o-mini".into())]
        .into_iter()
        .chain(USED)
        .collect();
    assert_eq!(priced(&call(&agent)), NOTHING, "an agent repeats what its calls used");
    let said = |usd: f64| priced(&call(&[&agent[..], &[("gen_ai.usage.cost", Value::Double(usd))]].concat()));
    assert_eq!(said(0.25), "0.25 reported -", "it counts where no call below has a cost");
    assert_eq!(said(0.0), NOTHING);
    let mut own = call(&agent);
    own.scope.name = "@voltagent/core".to_owned();
    let cost = "0.00005385 computed genai-prices 0.2.1 openai/gpt-4o-mini";
    assert_eq!(priced(&own), cost, "none of its calls tells what it used");

    let embedding = call(&[
        (names::OPERATION, "embeddings".into()),
        (names::PROVIDER, "openai".into()),
        (names::REQUEST_MODEL, "text-embedding-3-small".into()),
        (names::INPUT_TOKENS, Value::Int(9)),
    ]);
    // An embedding has no output to wait for.
    assert_eq!(priced(&embedding), "0.00000018 computed genai-prices 0.2.1 openai/text-embedding-3-small");
}

#[test]
fn the_model_that_answered_is_priced_before_the_one_asked_for() {
    let with = |model: &str| priced(&chat(&[&USED[..], &[(names::RESPONSE_MODEL, model.into())]].concat()));
    assert!(with("gpt-4o-2024-08-06").ends_with("openai/gpt-4o"));
    assert!(with("fine-tuned-by-us").ends_with("openai/gpt-4o-mini"));
}

/// Mastra 1.71, whose fallback from one provider to another bears the first one's name.
#[test]
fn another_makers_model_that_answered_is_not_priced_as_the_one_asked_for() {
    let with = |model: &str, more: &[(&str, Value)]| {
        priced(&chat(&[&USED[..], &[(names::RESPONSE_MODEL, model.into())], more].concat()))
    };
    let sonnet = "0.001188 computed genai-prices 0.2.1 anthropic/claude-sonnet-4-5";
    assert_eq!(with("claude-sonnet-4-5", &[]), sonnet);
    assert_eq!(with("claude-sonnet-4-5", &[(names::SERVER_ADDRESS, "llm.example".into())]), NOTHING);
    // A name of the gateway's own.
    assert_eq!(with("main", &[]), priced(&chat(&USED)));
}

#[test]
fn a_model_named_behind_its_own_provider_is_priced_as_that_model() {
    let with = |provider: &str, model: &str| {
        let named = [(names::PROVIDER, provider.into()), (names::REQUEST_MODEL, model.into())];
        priced(&call(&[&[(names::OPERATION, "chat".into())], &named[..], &USED[..]].concat()))
    };
    let alone = with("anthropic", "claude-sonnet-4-5");
    assert_ne!(alone, NOTHING);
    assert_eq!(with("anthropic", "anthropic/claude-sonnet-4-5"), alone);
    assert_eq!(with("gcp.gemini", "gemini/gemini-2.5-flash"), with("gcp.gemini", "gemini-2.5-flash"));
    // Another host may take another price for it.
    assert_eq!(with("openai", "anthropic/claude-sonnet-4-5"), NOTHING);
}

#[test]
fn a_model_of_bedrock_is_priced_without_its_maker_too() {
    let by = |provider: &str, model: &str| {
        let mut record = chat(&USED);
        record.span.set_attr(names::PROVIDER, provider);
        record.span.set_attr(names::REQUEST_MODEL, model);
        priced(&record)
    };
    // OpenLLMetry takes region and maker off.
    for (maker, model) in [
        ("amazon", "nova-lite-v1:0"),
        ("amazon", "nova-lite-v1"),
        ("meta", "llama3-3-70b-instruct-v1:0"),
        ("mistral", "mistral-large-2402-v1:0"),
        ("openai", "gpt-oss-120b-1:0"),
    ] {
        let whole = by("aws.bedrock", &format!("us.{maker}.{model}"));
        assert!(whole.contains(" computed "), "{model}: {whole}");
        assert_eq!(by("aws.bedrock", model), whole, "{model}");
    }
    assert_eq!(by("aws.bedrock", "lite-v1:0"), NOTHING);
    assert_eq!(by("openai", "nova-lite-v1:0"), NOTHING);
}

#[test]
fn a_clouds_name_of_a_resource_is_priced_by_the_model_in_it() {
    let mut pricer = Pricer::new();
    let mut model_of = |provider, model: &str| {
        let quote = pricer.quote(provider, model, &tokens(1000, 100), AT)?;
        let shown = pricer.look_up(provider, model, AT, None).map(|shown| shown.model_id);
        assert_eq!(shown.as_ref(), Some(&quote.model_id), "{model} is looked up as it is priced");
        Some(format!("{}/{}", quote.provider_id, quote.model_id))
    };
    let (google, bedrock) = (Some("gcp.gemini"), Some("aws.bedrock"));
    let arn = |resource: &str| format!("arn:aws:bedrock:us-east-1:123456789012:{resource}");
    for (provider, name, plain) in [
        (google, "models/gemini-2.5-flash", "gemini-2.5-flash"),
        (None, "models/gemini-2.5-flash", "gemini-2.5-flash"),
        (Some("google"), "models/gemini-2.5-flash", "gemini-2.5-flash"),
        (google, "gemini-2.5-flash-001", "gemini-2.5-flash"),
        (google, "publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"),
        (None, "projects/p/locations/l/publishers/google/models/gemini-2.5-flash-001", "gemini-2.5-flash"),
        (google, "projects/p/locations/l/publishers/google/gemini-2.5-flash", "gemini-2.5-flash"),
        (Some("gcp.vertex_ai"), "publishers/anthropic/models/claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        (bedrock, &arn("inference-profile/global.amazon.nova-2-lite-v1:0"), "global.amazon.nova-2-lite-v1:0"),
        (bedrock, "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
        (Some("openrouter"), "anthropic/claude-sonnet-4:beta", "anthropic/claude-sonnet-4"),
        // Behind the name of the provider as well.
        (Some("openrouter"), "openrouter/anthropic/claude-sonnet-4:beta", "anthropic/claude-sonnet-4"),
        (google, "gemini/gemini-2.5-flash-001", "gemini-2.5-flash"),
        (bedrock, "bedrock/arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"),
    ] {
        let found = model_of(provider, name);
        assert!(found.is_some(), "{name}");
        assert_eq!(found, model_of(provider, plain), "{name}");
    }
    let claude = "anthropic.claude-sonnet-4-5-20250929-v1:0";
    for profile in ["us.", "global."] {
        let plain = format!("{profile}{claude}");
        assert_eq!(model_of(bedrock, &arn(&format!("inference-profile/{plain}"))), model_of(bedrock, &plain));
    }
    assert_eq!(
        model_of(Some("fireworks"), "accounts/fireworks/models/deepseek-v3p2").as_deref(),
        Some("fireworks/deepseek-v3p2")
    );
    for (provider, name) in [
        (google, "tunedModels/gemini-2.5-flash"),
        (None, "models/gpt-4o"),
        (google, "models/"),
        (google, "gemini-2.5-flash-002"),
        (google, "projects/p/locations/l/endpoints/123"),
        (bedrock, &arn("application-inference-profile/a1b2c3")),
        (bedrock, &arn("provisioned-model/abcdef")),
        // Another price than the plain one, by who serves it or by what comes with it.
        (Some("openrouter"), "openai/gpt-4o-mini:nitro"),
        (Some("openrouter"), "openai/gpt-4o-mini:online"),
        (Some("openrouter"), "openai/gpt-4o-mini:free"),
        (Some("openrouter"), "openai/gpt-4o-mini:beta"),
        (Some("github"), "openai/gpt-4o-mini"),
        (Some("azure.ai.inference"), "openai/gpt-4o-mini"),
    ] {
        assert_eq!(model_of(provider, name), None, "{name}");
    }
    // The user's own prices may be those of the resource.
    let models = r#"[{"id": "ours", "match": {"equals": "models/gemini-2.5-flash"}, "prices": {"input_mtok": 7, "output_mtok": 7}}]"#;
    let own = format!(r#"[{{"id": "google", "name": "Ours", "api_pattern": "x", "models": {models}}}]"#);
    let mut pricer = Pricer::with_own_prices("own", own).unwrap();
    for provider in [google, Some("google"), None] {
        let quote = pricer.quote(provider, "models/gemini-2.5-flash", &tokens(1_000_000, 0), AT).unwrap();
        assert_eq!((quote.model_id.as_str(), quote.cost.to_string().as_str()), ("ours", "7"), "{provider:?}");
    }
}

#[test]
fn a_service_tier_has_its_own_prices_from_the_day_it_had_them() {
    let in_tier = |tier: &str, start: u64| {
        let mut record = chat(&[&USED[..], &[(names::OPENAI_SERVICE_TIER, tier.into())]].concat());
        record.span.set_attr(names::REQUEST_MODEL, "gpt-5-mini");
        record.span.start_time_unix_nano = start;
        priced(&record)
    };
    assert_eq!(in_tier("default", AT.0), "0.00012675 computed genai-prices 0.2.1 openai/gpt-5-mini");
    // The table knows this tier from 2026-10-12 on; a year before, it was priced like any call.
    let year = 365 * 86_400 * 1_000_000_000;
    assert_eq!(in_tier("flex", AT.0 - year), in_tier("default", AT.0));
    assert_eq!(in_tier("flex", AT.0), "0.000063375 computed genai-prices 0.2.1 openai/gpt-5-mini");
}

#[test]
fn of_a_tier_that_was_only_asked_for_the_cheap_one_is_believed_and_the_dear_one_is_not_known() {
    let asked = |tier: &str, more: &[(&str, Value)]| {
        let asked = [(names::REQUEST_TIER, Value::from(tier))];
        let mut record = chat(&[&USED[..], &asked, more].concat());
        record.span.set_attr(names::REQUEST_MODEL, "gpt-5-mini");
        priced(&record)
    };
    let plain = "0.00012675 computed genai-prices 0.2.1 openai/gpt-5-mini";
    assert_eq!(asked("flex", &[]), "0.000063375 computed genai-prices 0.2.1 openai/gpt-5-mini");
    assert_eq!((asked("default", &[]).as_str(), asked("priority", &[]).as_str()), (plain, NOTHING));
    // What the answer says decides.
    let answered = [(names::OPENAI_SERVICE_TIER, "default".into())];
    assert_eq!((asked("flex", &answered).as_str(), asked("priority", &answered).as_str()), (plain, plain));
    // Whoever passes it on may leave out what was asked for.
    for address in ["litellm.internal", "foo.openai.azure.com"] {
        assert_eq!(asked("flex", &[(names::SERVER_ADDRESS, address.into())]), NOTHING, "{address}");
    }
    // A model that has one price.
    let claude = |more: &[(&str, Value)]| {
        let mut record = chat(&[&USED[..], more].concat());
        record.span.set_attr(names::PROVIDER, "anthropic");
        record.span.set_attr(names::REQUEST_MODEL, "claude-sonnet-4-5");
        priced(&record)
    };
    assert_ne!(claude(&[]), NOTHING);
    assert_eq!(claude(&[(names::OPENAI_REQUEST_TIER, "priority".into())]), claude(&[]));
}

#[test]
fn an_amount_that_no_run_can_hold_is_none() {
    for amount in [f64::NAN, f64::INFINITY, -1.0, 1e12, 1e300] {
        let mut own = chat(&[(names::COST_USD, amount.into()), (names::COST_SOURCE, "reported".into())]);
        own.span.attributes.extend(chat(&USED).span.attributes);
        assert_eq!(priced(&own), priced(&chat(&USED)), "{amount}");
    }
}

#[test]
fn what_the_emitter_says_wins() {
    let with = |key: &str, value: Value| priced(&chat(&[&USED[..], &[(key, value)]].concat()));
    let said = "0.25 reported -";
    for (key, value) in [
        ("gen_ai.usage.cost", Value::Double(0.25)),
        ("gen_ai.usage.total_cost", "0.25".into()),
        ("operation.cost", Value::Double(0.25)),
        ("llm.cost.total", Value::Double(0.25)),
        ("litellm.cost.total", Value::Double(0.25)),
        ("langfuse.observation.cost_details", r#"{"input":0.2,"total":0.25}"#.into()),
        ("langfuse.observation.cost_details", r#"{"input":0.2,"output":0.04,"input_cached_tokens":0.01}"#.into()),
        ("mlflow.llm.cost", r#"{"total_cost":0.25}"#.into()),
        ("ai.response.providerMetadata", r#"{"anthropic":{},"gateway":{"cost":"0.25","marketCost":"0.3"}}"#.into()),
        ("ai.response.providerMetadata", r#"{"openrouter":{"usage":{"cost":0.25}}}"#.into()),
        (names::COST_USD, Value::Double(0.25)),
    ] {
        assert_eq!(with(key, value), said, "{key}");
    }
    let parts = [("gen_ai.usage.input_cost", Value::Double(0.2)), ("gen_ai.usage.output_cost", Value::Double(0.05))];
    assert_eq!(priced(&chat(&parts)), said);
    // Nothing sensible was said: the table decides.
    for value in [Value::Double(-1.0), Value::Double(f64::NAN), Value::Double(0.0), "free".into()] {
        assert!(with("gen_ai.usage.cost", value).starts_with("0.00005385 computed"));
    }
    for (key, value) in [
        // The program's own key was used.
        ("ai.response.providerMetadata", r#"{"gateway":{"cost":"0"}}"#),
        ("langfuse.observation.cost_details", r#"{"input":-1.0}"#),
        ("langfuse.observation.cost_details", "{}"),
    ] {
        assert!(with(key, value.into()).starts_with("0.00005385 computed"), "{value}");
    }
    let unused = [(names::INPUT_TOKENS, Value::Int(0)), (names::OUTPUT_TOKENS, Value::Int(0))];
    let free = [&unused[..], &[("gen_ai.usage.cost", Value::Double(0.0))]].concat();
    assert_eq!(priced(&chat(&free)), "0 reported -");
    // One that was refused costs nothing; one that broke off may.
    let failed = |key: &str, value: Value| priced(&chat(&[(names::ERROR_TYPE, "500".into()), (key, value)]));
    assert_eq!(failed("gen_ai.usage.cost", Value::Double(0.0)), "0 reported -");
    assert_eq!(failed("langfuse.observation.cost_details", r#"{"total":0}"#.into()), NOTHING);
    let begun = [(names::ERROR_TYPE, "x".into()), (names::RESPONSE_ID, "c-1".into()), ("operation.cost", 0.0.into())];
    assert_eq!(priced(&chat(&begun)), NOTHING);
    let refused = r#"{"input":0,"output":0,"total":0}"#;
    assert_eq!(failed("langfuse.observation.cost_details", refused.into()), "0 reported -");
    // LiteLLM's, of which nobody knows what it used either.
    let of_stream = |word: &str| {
        let cost = ("gen_ai.cost.total_cost", Value::Double(0.0));
        priced(&chat(&[(names::ERROR_TYPE, "RemoteProtocolError".into()), cost, ("llm.is_streaming", word.into())]))
    };
    assert_eq!((of_stream("True").as_str(), of_stream("False").as_str()), (NOTHING, "0 reported -"));
    // A stream that was given up, of which nobody knows what it used.
    assert_eq!(priced(&chat(&[("operation.cost", Value::Double(0.0))])), priced(&chat(&[])));
}

#[test]
fn own_prices_are_asked_first() {
    let own = r#"[{"id":"acme","name":"Acme","api_pattern":"acme","models":[
        {"id":"small","match":{"equals":"small"},"prices":{"input_mtok":1,"output_mtok":{"base":2,"tiers":[{"start":1000,"price":4}]}}}]}]"#;
    let mut pricer = Pricer::with_own_prices("prices.json", own).unwrap();
    let quote = pricer.quote(Some("acme"), "small", &tokens(1_000, 1_000), AT).unwrap();
    assert_eq!((quote.cost, quote.table.as_str()), (NanoUsd(3_000_000), "prices.json acme/small"));
    assert!(pricer.quote(Some("openai"), "gpt-4o-mini", &tokens(1, 1), AT).is_some());
    assert_eq!(pricer.providers().first().map(|provider| provider.id.as_str()), Some("acme"));
    let rates: Vec<(u64, NanoUsd)> = pricer
        .look_up(Some("acme"), "small", AT, None)
        .unwrap()
        .rates
        .into_iter()
        .map(|rate| (rate.above_input_tokens, rate.output))
        .collect();
    assert_eq!(rates, [(0, NanoUsd(2_000_000_000)), (1_000, NanoUsd(4_000_000_000))]);
}

#[test]
fn own_prices_are_found_as_those_of_the_table_are() {
    let own = r#"[{"id":"acme","name":"Acme","api_pattern":"https://llm\\.acme\\.example","models":[
        {"id":"small","match":{"starts_with":"acme-small"},"prices":{"input_mtok":1,"output_mtok":2}},
        {"id":"gpt-4o","match":{"equals":"gpt-4o"},"prices":{"input_mtok":3,"output_mtok":4}}]},
        {"id":"openai","name":"OpenAI","api_pattern":"https://api\\.openai\\.com","models":[
        {"id":"gpt-4o-mini","match":{"equals":"gpt-4o-mini"},"prices":{"input_mtok":100,"output_mtok":200}}]}]"#;
    let mut pricer = Pricer::with_own_prices("mine.json", own).unwrap();
    let mut table_of = |provider: Option<&str>, address: Option<&str>, model: &str| {
        let mut span = Span { start_time_unix_nano: AT.0, ..Span::default() };
        provider.into_iter().for_each(|name| span.set_attr(names::PROVIDER, name));
        address.into_iter().for_each(|name| span.set_attr(names::SERVER_ADDRESS, name));
        span.set_attr(names::REQUEST_MODEL, model);
        span.set_attr(names::INPUT_TOKENS, 1_000);
        span.set_attr(names::OUTPUT_TOKENS, 1_000);
        pricer.quote_span(&span, StepKind::Llm).map(|quote| quote.table)
    };
    let mine = |of: &str| Some(format!("mine.json {of}"));
    assert_eq!(table_of(None, None, "gpt-4o-mini"), mine("openai/gpt-4o-mini"));
    assert_eq!(table_of(Some("langchain"), None, "gpt-4o-mini"), mine("openai/gpt-4o-mini"));
    assert_eq!(table_of(None, Some("api.openai.com"), "gpt-4o-mini"), mine("openai/gpt-4o-mini"));
    assert_eq!(table_of(None, Some("llm.acme.example"), "acme-small-1"), mine("acme/small"));
    assert_eq!(table_of(None, None, "acme-small-1"), mine("acme/small"));
    assert_eq!(table_of(None, Some("llm.acme.example"), "gpt-4o"), mine("acme/gpt-4o"));
    // A name that is another's is another's.
    let by_table = table_of(None, None, "gpt-4o").unwrap();
    assert!(by_table.starts_with("genai-prices"), "{by_table}");
    assert_eq!(table_of(Some("anthropic"), None, "acme-small-1"), None);
}

#[test]
fn a_file_of_prices_that_would_misprice_is_refused_with_its_reason() {
    let why = |json: &str| Pricer::with_own_prices("mine.json", json).unwrap_err().to_string();
    let prices = |prices: &str| {
        why(&format!(
            r#"[{{"id":"acme","name":"Acme","api_pattern":"acme","models":[{{"id":"small","match":{{"equals":"small"}},"prices":{prices}}}]}}]"#
        ))
    };
    let all = [
        why("not json"),
        why("[{}]"),
        why("[]"),
        prices(r#"{"inptu_mtok":1}"#),
        prices(r#"{"input_mtok":-1}"#),
        prices(r#"{"cache_read_mtok":1}"#),
        prices(r#"[{"prices":{"input_mtok":1}},{"constraint":{"start_date":"2026-01-01"},"prices":{"input_ktok":1}}]"#),
    ];
    insta::assert_snapshot!(all.join("\n"), @r#"
    prices of mine.json can't be used: invalid provider data: decode provider JSON: expected ident at line 1 column 2
    prices of mine.json can't be used: invalid provider data: provider id, name, and api_pattern are required
    prices of mine.json can't be used: there is no provider in it
    prices of mine.json can't be used: acme/small has a price "inptu_mtok", which is for no unit that the table knows
    prices of mine.json can't be used: invalid provider data: provider "acme" model "small" prices: input_mtok must be a finite non-negative number
    prices of mine.json can't be used: invalid provider data: provider "acme" model "small" prices: missing ancestor price key input_mtok for cache_read_mtok
    prices of mine.json can't be used: acme/small has a price "input_ktok", which is for no unit that the table knows
    "#);
}

#[test]
fn a_model_is_looked_up_with_its_rates_a_million_tokens() {
    let mut pricer = Pricer::new();
    assert_eq!(
        pricer.look_up(None, "gpt-4o-mini-2024-07-18", AT, None),
        Some(ModelPrices {
            provider_id: "openai".into(),
            model_id: "gpt-4o-mini".into(),
            table: "genai-prices 0.2.1 openai/gpt-4o-mini".into(),
            rates: vec![Rates {
                above_input_tokens: 0,
                input: NanoUsd(150_000_000),
                cache_read: NanoUsd(75_000_000),
                cache_write: NanoUsd(150_000_000),
                output: NanoUsd(600_000_000),
            }],
            others: vec![
                UnitRate { unit: "web_searches", per: 1_000, price: NanoUsd(10_000_000_000) },
                UnitRate { unit: "storage_searches", per: 1_000, price: NanoUsd(2_500_000_000) },
            ],
            per_request: NanoUsd(0),
        })
    );
    let sonar = pricer.look_up(Some("perplexity"), "sonar", AT, None).unwrap();
    assert_eq!((sonar.per_request, sonar.rates[0].input), (NanoUsd(12_000_000), NanoUsd(1_000_000_000)));
    assert_eq!(pricer.look_up(None, "no-such-model", AT, None), None);
}

#[test]
fn what_has_a_price_of_its_own_is_shown_beside_the_tokens() {
    let mut pricer = Pricer::new();
    let mut others = |provider, model, tier| {
        let prices = pricer.look_up(Some(provider), model, AT, tier).unwrap();
        let others = prices.others.iter().map(|other| format!(" {}/{} {}", other.unit, other.per, other.price));
        format!("{}{}", prices.rates.len(), others.collect::<String>())
    };
    assert_eq!(others("openai", "whisper-1", None), "0 audio_seconds/3600 0.36");
    assert_eq!(
        others("anthropic", "claude-sonnet-4-5", None),
        "2 cache_write_1h_tokens/1000000 6 web_searches/1000 10"
    );
    assert_eq!(
        others("google", "gemini-2.5-flash", None),
        "1 input_audio_tokens/1000000 1 cache_audio_read_tokens/1000000 0.1 web_searches/1000 35"
    );
    assert_eq!(
        others("anthropic", "claude-sonnet-4-5", Some("batch")),
        "2 cache_write_1h_tokens/1000000 3 web_searches/1000 10"
    );
    // Free, and not billed by something unknown.
    assert_eq!(others("openai", "moderation", None), "1");
}

/// A unit that no count was told in would be priced as nothing, one that is misspelled as well.
#[test]
fn every_unit_is_one_of_the_tables() {
    let mut pricer = Pricer::new();
    let known = units::COUNTS.iter().map(|(_, unit)| *unit).chain(units::UNITS.iter().map(|unit| unit.name));
    for unit in known {
        let usage: Usage = [(UsageKey::from(unit), 1.0)].into();
        let call =
            Call { provider: Some("openai"), address: None, model: "o1", usage: &usage, circumstances: &[], at: AT };
        // Counts without the whole that they are a part of are refused, and no price.
        let warnings = pricer.calculate(&call).map(|priced| priced.price.warnings).unwrap_or_default();
        assert_eq!(warnings, Vec::<String>::new(), "{unit}");
    }
}

#[test]
fn the_table_is_the_one_of_the_crate() {
    let whole = Calculator::bundled();
    let listed: Vec<(String, Vec<String>)> =
        Pricer::new().providers().into_iter().map(|provider| (provider.id, provider.models)).collect();
    let theirs: Vec<(String, Vec<String>)> = whole
        .providers()
        .map(|provider| (provider.id().into(), provider.models().map(|model| model.id().into()).collect()))
        .collect();
    assert_eq!(listed, theirs);
    // The same prices too, by the section as by the whole.
    let mut pricer = Pricer::new();
    let (usage, theirs_usage) = (tokens(1_000, 100), [("input_tokens", 1_000.0), ("output_tokens", 100.0)].into());
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(AT.0);
    for (provider, model) in theirs.iter().flat_map(|(provider, models)| models.iter().map(move |m| (provider, m))) {
        let ours = pricer.quote(Some(provider), model, &usage, AT);
        let request = PriceRequest::new(model, &theirs_usage).with_provider_id(provider).with_timestamp(at);
        let theirs = whole.calculate(&request).ok().and_then(|price| Some((nanos(price.total_price)?, price.model_id)));
        // Tokens do not tell what the others cost, for which the crate says 0.
        let theirs = theirs.filter(|(_, id)| pricer.section(provider).is_some_and(|section| section.is_by_token(id)));
        assert_eq!(ours.map(|quote| (quote.cost, quote.model_id)), theirs, "{provider} {model}");
    }
}

#[test]
fn ids_stand_first_in_every_section() {
    for section in sections_of(TABLE) {
        let head: Listing<'_> = serde_json::from_str(section.get()).unwrap();
        assert!(section.get().starts_with("{\"id\":\""), "{}", head.id);
        assert_eq!(id_of(section), head.id);
    }
}

#[test]
fn a_call_whose_input_only_a_total_tells_has_no_computed_cost() {
    let of_total = [USED.as_slice(), &[(names::USAGE_OF_TOTAL, true.into())]].concat();
    assert_eq!(priced(&chat(&of_total)), NOTHING);
    assert_ne!(priced(&chat(&[USED.as_slice(), &[(names::USAGE_BASIS, "exclusive".into())]].concat())), NOTHING);
    // As it was said before.
    assert_eq!(priced(&chat(&[USED.as_slice(), &[(names::USAGE_BASIS, "total".into())]].concat())), NOTHING);
    let reported = [of_total.as_slice(), &[("gen_ai.usage.cost", 0.5.into())]].concat();
    assert_ne!(priced(&chat(&reported)), NOTHING);
}

#[test]
fn a_stream_of_which_only_the_beginning_counts_its_output_has_no_cost() {
    let ended = |status: &'static str, output: i64| {
        let mut record = chat(&[
            (names::INPUT_TOKENS, Value::Int(6823)),
            ("runspan.original.gen_ai.usage.output_tokens", Value::Int(output)),
            (names::STEP_STATUS, status.into()),
            ("operation.cost", 0.0201864.into()),
        ]);
        record.span.attributes.push(KeyValue { key: names::OUTPUT_TOKENS.into(), value: None });
        priced(&record)
    };
    let begun = |status: &'static str| ended(status, 1);
    assert_eq!(begun("cancelled"), NOTHING);
    assert_eq!(begun("error"), NOTHING);
    assert_eq!(begun("success"), "0.0201864 reported -");
    assert_eq!(ended("error", 0), "0.0201864 reported -");
}
