//! The same calls, priced by the Python engine of genai-prices from the same table. Only with `RUNSPAN_INTEROP=1`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use runspan::conventions::providers::{
    BEDROCK_PROFILES, BEDROCK_VENDORS, FRAMEWORKS, IN_MODELS, KINDS_OF_MODELS, MAKERS, PRICE_IDS, WITH_OWN_MODELS,
};
use runspan::conventions::units::COUNTS;
use runspan::model::otlp::Value;
use runspan::model::{NanoUsd, UnixNanos};
use runspan::pipeline::cost::{Pricer, ProviderPrices};
use serde_json::{Value as Json, json};

use super::{Call, stored_costs, time};
use crate::interop::program;
use crate::support::{WATCHDOG, tempdir};

const CASES: usize = 4_000;
const SEED: u64 = 20_261_127;

/// Of one seed always the same: splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// True so many times of a hundred.
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Small and large alike, up to `most`.
    fn count(&mut self, most: u64) -> u64 {
        let size = self.below(64 - u64::from(most.leading_zeros()) + 1);
        if most == 0 { 0 } else { self.below(1 << size).min(most) }
    }
}

/// A call in the engine's own words.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    at: u64,
    provider: Option<String>,
    address: Option<String>,
    model: String,
    usage: BTreeMap<&'static str, u64>,
    context: BTreeMap<&'static str, &'static str>,
}

impl Told {
    fn random(random: &mut Random, providers: &[ProviderPrices]) -> Self {
        // Those that most calls go to as often as all others together.
        const MAIN: &[&str] =
            &["anthropic", "openai", "google", "azure", "aws", "deepseek", "mistral", "x-ai", "perplexity", "groq"];
        const STEP: u64 = 86_400_000_000_000;
        let provider = if random.percent(50) {
            let id = *random.one(MAIN);
            providers.iter().find(|provider| provider.id == id).unwrap()
        } else {
            random.one(providers)
        };
        let model = match random.below(20) {
            0 => "of-our-own".to_owned(),
            1 => random.one(&provider.models).to_uppercase(),
            2 => format!("{}-20251001", random.one(&provider.models)),
            _ => random.one(&provider.models).clone(),
        };
        // Tiers have prices of their own since the autumn of 2026 only.
        let (from, days) =
            if random.percent(60) { ("2024-01-01T00:00:00Z", 1_010) } else { ("2026-10-01T00:00:00Z", 200) };
        let from = time(from).0;
        let mut at = from + random.below(days * 86_400) * 1_000_000_000;
        if random.percent(10) {
            // Prices begin at midnight.
            at = at / STEP * STEP;
        }
        let mut told = Self {
            at,
            provider: Some(provider.id.clone()),
            address: None,
            model,
            usage: Self::random_usage(random),
            context: Self::random_context(random),
        };
        told.name_provider(random);
        told
    }

    /// Tells the provider in one of the ways that emitters have.
    fn name_provider(&mut self, random: &mut Random) {
        let id = self.provider.clone().unwrap_or_default();
        let names: Vec<&str> = PRICE_IDS.iter().filter(|(_, to)| *to == id).map(|(from, _)| *from).collect();
        match random.below(20) {
            0..=6 if !names.is_empty() => self.provider = Some((*random.one(&names)).to_owned()),
            7 | 8 => self.provider = None,
            9 => {
                self.model = format!("{id}/{}", self.model);
                self.provider = Some("litellm".into());
            }
            10 => {
                self.provider = Some((*random.one(FRAMEWORKS)).to_owned());
                // An instrumentation that tells of no prompt at all has missed it: nobody knows what that cost.
                self.usage.entry("input_tokens").and_modify(|input| *input = (*input).max(1));
            }
            11 => {
                let known = ["api.openai.com", "api.anthropic.com", "api.groq.com", "proxy.example"];
                (self.provider, self.address) = (None, Some((*random.one(&known)).to_owned()));
            }
            12 => self.provider = Some("of-our-own".into()),
            _ => {}
        }
    }

    fn random_usage(random: &mut Random) -> BTreeMap<&'static str, u64> {
        let mut usage = BTreeMap::new();
        let mut put = |unit, count| usage.insert(unit, count);
        let (input, output) = (random.count(600_000), random.count(20_000));
        if !random.percent(4) {
            put("input_tokens", input);
        }
        if !random.percent(4) {
            put("output_tokens", output);
        }
        // Some reports are broken: a part is larger than its whole.
        let part = |random: &mut Random, of: u64| {
            let broken = random.percent(4);
            random.count(of) + if broken { of + 1 } else { 0 }
        };
        let read = if random.percent(40) { part(random, input) } else { 0 };
        let written = if random.percent(25) { part(random, input.saturating_sub(read)) } else { 0 };
        if read > 0 {
            put("cache_read_tokens", read);
        }
        if written > 0 {
            put("cache_write_tokens", written);
            if random.percent(50) {
                put("cache_write_1h_tokens", part(random, written));
            }
        }
        if random.percent(20) {
            put("output_reasoning_tokens", part(random, output));
        }
        if random.percent(12) {
            let audio = part(random, input.saturating_sub(read + written));
            put("input_audio_tokens", audio);
            if random.percent(70) {
                put("cache_audio_read_tokens", part(random, read.min(audio)));
            }
        }
        if random.percent(8) {
            put("output_audio_tokens", part(random, output));
        }
        if random.percent(5) {
            put("input_image_tokens", part(random, input));
            put("cache_image_read_tokens", 0);
        }
        for (unit, percent, most) in [
            ("web_searches", 10, 20),
            ("storage_searches", 4, 20),
            ("audio_seconds", 4, 7_200),
            ("input_characters", 3, 5_000),
            ("input_document_pages", 3, 300),
            ("input_text_messages", 2, 20),
        ] {
            if random.percent(percent) {
                put(unit, random.count(most));
            }
        }
        usage
    }

    fn random_context(random: &mut Random) -> BTreeMap<&'static str, &'static str> {
        let mut context = BTreeMap::new();
        if random.percent(30) {
            let tier = *random.one(&["default", "flex", "priority", "fast", "auto", "standard", "batch"]);
            context.insert("service_tier", tier);
        }
        if random.percent(10) {
            context.insert("processing", "batch");
        }
        if random.percent(5) {
            context.insert("search_type", *random.one(&["fast", "web"]));
        }
        context
    }

    /// As an emitter tells it to us.
    fn call(&self) -> Call {
        let attribute = |unit: &str| match COUNTS.iter().find(|(_, of)| *of == unit) {
            Some((name, _)) => (*name).to_owned(),
            None => format!("runspan.usage.{unit}"),
        };
        let counts = self.usage.iter().map(|(unit, count)| (attribute(unit), Value::Int(*count as i64)));
        let context = self.context.iter().map(|(key, word)| {
            let key = if *key == "service_tier" {
                "openai.response.service_tier".into()
            } else {
                format!("runspan.price.{key}")
            };
            (key, Value::from(*word))
        });
        let address = self.address.iter().map(|address| ("server.address".to_owned(), Value::from(address.as_str())));
        Call {
            at: UnixNanos(self.at),
            provider: self.provider.clone(),
            model: self.model.clone(),
            told: counts.chain(context).chain(address).collect(),
        }
    }

    fn json(&self) -> Json {
        json!({
            "at": self.at, "provider": self.provider, "model": self.model, "usage": self.usage, "context": self.context,
            "url": self.address.as_ref().map(|address| format!("https://{address}")),
        })
    }

    fn count(&self, unit: &str) -> u64 {
        self.usage.get(unit).copied().unwrap_or(0)
    }

    /// What a model writes that writes nothing nobody counts: those are no calls, whoever says that they are.
    fn tells_tokens(&self) -> bool {
        let begins = |start: &str| self.model.split(['/', '.']).any(|part| part.starts_with(start));
        let writes = !KINDS_OF_MODELS.iter().any(|(start, _)| begins(start));
        self.usage.contains_key("input_tokens") && (self.usage.contains_key("output_tokens") || !writes)
    }
}

/// What the engine answered.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer {
    cost: Option<NanoUsd>,
    by_token: bool,
    by_what_was_told: bool,
}

/// A rule of ours that the engine does not have: we price another call than the one told, which is why we may differ.
struct Rule {
    name: &'static str,
    /// Makes the call that we price; false where the rule says nothing.
    apply: fn(&mut Told) -> bool,
}

/// Every reason to differ. One that no case shows fails the test, as a difference without one does.
const RULES: &[Rule] = &[
    Rule {
        // The engine finds others by a part of the name, or none: `azure.ai.openai` contains `openai`.
        name: "the standard's name of a provider is one of the table's",
        apply: |told| {
            let mapped =
                |name: &String| PRICE_IDS.iter().find(|(from, _)| from == name).map(|(_, to)| (*to).to_owned());
            let id = told.provider.as_ref().and_then(mapped);
            id.is_some_and(|id| told.provider.replace(id.clone()) != Some(id))
        },
    },
    Rule {
        name: "a framework in the place of a provider says nothing",
        apply: |told| told.provider.take_if(|name| FRAMEWORKS.contains(&name.as_str())).is_some(),
    },
    Rule {
        name: "where neither provider nor address is told, the model's name may tell who serves it",
        apply: |told| {
            let is_open = told.provider.as_ref().is_none_or(|name| WITH_OWN_MODELS.contains(&name.as_str()));
            if !is_open || told.address.is_some() {
                return false;
            }
            let mut parts = told.model.split('.');
            let first = parts.next().unwrap_or_default();
            let is_profile = BEDROCK_PROFILES.contains(&first);
            let vendor = if is_profile { parts.next().unwrap_or_default() } else { first };
            let has_version = told.model.rsplit_once(':').is_some_and(|(_, version)| version.parse::<u32>().is_ok());
            let id = match told.model.split_once('/') {
                Some((start, _)) if IN_MODELS.contains(&start) => start.to_owned(),
                None if BEDROCK_VENDORS.contains(&vendor) && (is_profile || has_version) => "bedrock".to_owned(),
                _ => return false,
            };
            let of_table = [
                ("bedrock", "aws"),
                ("gemini", "google"),
                ("vertex_ai", "google"),
                ("xai", "x-ai"),
                ("moonshot", "moonshotai"),
            ];
            let id = of_table.iter().find(|(from, _)| *from == id).map_or(id, |(_, to)| (*to).to_owned());
            // The table has models of others that Perplexity serves with its word before them.
            if let Some((_, model)) = told.model.clone().split_once('/').filter(|_| id != "perplexity") {
                told.model = model.to_owned();
            }
            told.provider.replace(id.clone()) != Some(id)
        },
    },
    Rule {
        name: "where the table does not know the address, the model tells the provider",
        apply: |told| told.provider.is_none() && told.address.take_if(|address| address == "proxy.example").is_some(),
    },
    Rule {
        // The engine knows OpenAI by `gpt-`, `o1` and their kin alone.
        name: "OpenAI's embeddings are OpenAI's where nobody else is told",
        apply: |told| {
            let maker = MAKERS.iter().find(|(start, _)| told.model.starts_with(start));
            let is_open = told.provider.is_none() && told.address.is_none();
            maker.filter(|_| is_open).map(|(_, id)| told.provider = Some((*id).to_owned())).is_some()
        },
    },
    Rule {
        name: "cached tokens that are more than the input were counted apart",
        apply: |told| {
            let cached = told.count("cache_read_tokens") + told.count("cache_write_tokens");
            told.usage.get_mut("input_tokens").filter(|input| cached > **input).map(|input| *input += cached).is_some()
        },
    },
    Rule {
        name: "reasoning that is more than the output was counted apart",
        apply: |told| {
            let reasoning = told.count("output_reasoning_tokens");
            let output = told.usage.get_mut("output_tokens").filter(|output| reasoning > **output);
            output.map(|output| *output += reasoning).is_some()
        },
    },
    Rule {
        name: "batch is told as a tier",
        apply: |told| {
            let is_batch = told.context.get("service_tier") == Some(&"batch");
            if is_batch {
                told.context.remove("service_tier");
                told.context.insert("processing", "batch");
            }
            is_batch
        },
    },
];

/// Why we price nothing where the engine does, by what it says of the model.
const HALF_A_BILL: &str = "half of a bill is not a bill";
const OTHER_UNITS: &str = "what the model is billed by was not told";

fn ask_engine(python: &std::path::Path, calls: &[Told]) -> Vec<Answer> {
    let root = env!("CARGO_MANIFEST_DIR");
    let dir = tempdir();
    let path = dir.path().join("calls.jsonl");
    let lines: String = calls.iter().map(|told| format!("{}\n", told.json())).collect();
    std::fs::write(&path, lines).unwrap();
    let output = Command::new("timeout")
        .arg(WATCHDOG.as_secs().to_string())
        .arg(python)
        .arg(format!("{root}/tests/it/serve/prices/peer.py"))
        .arg(format!("{root}/src/conventions/prices/genai-prices.json"))
        .env("NO_PROXY", "*")
        .stdin(std::fs::File::open(&path).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    let said = String::from_utf8(output.stdout).unwrap();
    let answer = |line: &str| {
        let answer: Json = serde_json::from_str(line).unwrap();
        let cost = answer["nanos"].as_i64().map(NanoUsd);
        assert_eq!(cost.is_none(), answer["error"].is_string(), "{line}");
        let flag = |key: &str| answer[key].as_bool().unwrap_or(true);
        Answer { cost, by_token: flag("by_token"), by_what_was_told: flag("by_what_was_told") }
    };
    said.lines().map(answer).collect()
}

#[test]
fn costs_agree_with_the_python_engine_of_the_price_table() {
    let Some(python) = program("python") else { return };
    let providers = Pricer::new().providers();
    let mut random = Random(SEED);
    let told: Vec<Told> = (0..CASES).map(|_| Told::random(&mut random, &providers)).collect();
    let amended: Vec<(Told, Vec<&str>)> = told
        .iter()
        .map(|told| {
            let mut told = told.clone();
            let rules = RULES.iter().filter(|rule| (rule.apply)(&mut told)).map(|rule| rule.name).collect();
            (told, rules)
        })
        .collect();
    let theirs = ask_engine(&python, &told);
    let theirs_amended = ask_engine(&python, &amended.iter().map(|(told, _)| told.clone()).collect::<Vec<_>>());
    assert_eq!((theirs.len(), theirs_amended.len()), (CASES, CASES));

    let dir = tempdir();
    let ours = stored_costs(dir.path(), &told.iter().map(Told::call).collect::<Vec<_>>());
    let mut differences: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut wrong, mut priced) = (Vec::new(), 0);
    for (at, cost) in ours.iter().enumerate() {
        let (call, rules) = &amended[at];
        let answer = theirs_amended[at];
        let untold = if answer.by_token {
            (!call.tells_tokens()).then_some(HALF_A_BILL)
        } else {
            (!answer.by_what_was_told).then_some(OTHER_UNITS)
        };
        let expected = answer.cost.filter(|_| untold.is_none());
        if *cost != expected {
            wrong.push(format!("{:?}\n  ours {cost:?}, wanted {expected:?}", told[at]));
        } else if *cost != theirs[at].cost {
            let reason = untold.filter(|_| answer.cost.is_some()).or(rules.first().copied());
            *differences.entry(reason.expect("a call as it was told has one price")).or_default() += 1;
        }
        priced += usize::from(cost.is_some());
    }
    assert!(wrong.is_empty(), "seed {SEED}: {} of {CASES}\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    println!("seed {SEED}: {CASES} calls, {priced} with a price; other than the engine by rule: {differences:#?}");
    let shown: BTreeSet<&str> = differences.keys().copied().collect();
    let listed: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).chain([HALF_A_BILL, OTHER_UNITS]).collect();
    assert_eq!(shown, listed, "a rule that no case shows explains nothing");
    assert!(priced >= CASES / 2, "{priced} calls with a price are too few to tell");
}
