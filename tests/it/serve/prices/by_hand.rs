//! Fifty calls with their bills, worked by hand from the table and the rules of `docs/prices.md`.
//!
//! A price of `$p` a million tokens is `1000 p` nano-dollars a token: `$0.15` is 150. Tokens that are part of others, by
//! cache, hour or sound, are taken out of these and billed at their own rate.

use runspan::model::NanoUsd;
use runspan::model::otlp::Value;

use super::{Call, stored_costs, time};
use crate::support::tempdir;

const IN: &str = "gen_ai.usage.input_tokens";
const OUT: &str = "gen_ai.usage.output_tokens";
const READ: &str = "gen_ai.usage.cache_read.input_tokens";
const WRITE: &str = "gen_ai.usage.cache_write.input_tokens";
const HOUR: &str = "runspan.usage.cache_write_1h_tokens";
const REASONING: &str = "gen_ai.usage.reasoning.output_tokens";
const AUDIO_IN: &str = "gen_ai.usage.audio.input_tokens";
const AUDIO_READ: &str = "gen_ai.usage.audio.cache_read.input_tokens";
const AUDIO_OUT: &str = "gen_ai.usage.audio.output_tokens";
const IMAGE_IN: &str = "gen_ai.usage.image.input_tokens";
const IMAGE_OUT: &str = "gen_ai.usage.image.output_tokens";
const SECONDS: &str = "runspan.usage.audio_seconds";
const CHARACTERS: &str = "runspan.usage.input_characters";
const PAGES: &str = "runspan.usage.input_document_pages";
const SEARCHES: &str = "runspan.usage.web_searches";
const FILE_SEARCHES: &str = "runspan.usage.storage_searches";
const CITATIONS: &str = "runspan.usage.output_citation_tokens";
const TIER: &str = "openai.response.service_tier";
const PROCESSING: &str = "runspan.price.processing";
const SEARCH_TYPE: &str = "runspan.price.search_type";
const ROUTE: &str = "runspan.price.route";
const OPERATION: &str = "gen_ai.operation.name";

/// After everything in the table has begun.
const NOW: &str = "2026-11-01T12:00:00Z";

/// What it shows, when, who, which model, what is told, what it costs.
type Case = (&'static str, &'static str, &'static str, &'static str, Vec<(&'static str, Value)>, Option<i64>);

fn n(count: i64) -> Value {
    Value::Int(count)
}

fn plain() -> Vec<Case> {
    vec![
        (
            "input and output",
            NOW,
            "openai",
            "gpt-4o-mini",
            vec![(IN, n(211)), (OUT, n(37))],
            Some(211 * 150 + 37 * 600),
        ),
        ("nothing in", NOW, "openai", "gpt-4o", vec![(IN, n(0)), (OUT, n(100))], Some(100 * 10_000)),
        ("nothing at all was used", NOW, "openai", "gpt-4o", vec![(IN, n(0)), (OUT, n(0))], Some(0)),
        (
            "a dated name of a model",
            NOW,
            "openai",
            "gpt-4.1-mini-2025-04-14",
            vec![(IN, n(10)), (OUT, n(1))],
            Some(10 * 400 + 1_600),
        ),
        (
            "a half is rounded to the even: 3 x 62.5 is 187.5",
            NOW,
            "openai",
            "gpt-5",
            vec![(IN, n(3)), (OUT, n(0)), (READ, n(3)), (TIER, "flex".into())],
            Some(188),
        ),
        (
            "and down: 1 x 62.5",
            NOW,
            "openai",
            "gpt-5",
            vec![(IN, n(1)), (OUT, n(0)), (READ, n(1)), (TIER, "flex".into())],
            Some(62),
        ),
        (
            "a provider under the standard's name",
            NOW,
            "x_ai",
            "grok-4-0709",
            vec![(IN, n(7)), (OUT, n(5))],
            Some(7 * 3_000 + 5 * 15_000),
        ),
        ("and under an old one", NOW, "mistral", "command-a", vec![(IN, n(7)), (OUT, n(5))], None),
        (
            "Azure has the models of OpenAI",
            NOW,
            "azure.ai.openai",
            "gpt-4o",
            vec![(IN, n(100)), (OUT, n(10))],
            Some(100 * 2_500 + 10 * 10_000),
        ),
        (
            "Bedrock",
            NOW,
            "aws.bedrock",
            "amazon.nova-pro-v1:0",
            vec![(IN, n(100)), (OUT, n(10)), (READ, n(60))],
            Some(40 * 800 + 60 * 200 + 10 * 3_200),
        ),
        (
            "an embedding has no output",
            NOW,
            "openai",
            "text-embedding-3-small",
            vec![(OPERATION, "embeddings".into()), (IN, n(1_000))],
            Some(1_000 * 20),
        ),
        (
            "what the table has as free",
            NOW,
            "openai",
            "omni-moderation-latest",
            vec![(IN, n(50)), (OUT, n(0))],
            Some(0),
        ),
    ]
}

fn cached() -> Vec<Case> {
    vec![
        (
            "cached input at its own rate",
            NOW,
            "openai",
            "gpt-4o-mini",
            vec![(IN, n(211)), (OUT, n(37)), (READ, n(64))],
            Some(147 * 150 + 64 * 75 + 37 * 600),
        ),
        (
            "read and written",
            NOW,
            "anthropic",
            "claude-haiku-4-5",
            vec![(IN, n(1_000)), (OUT, n(10)), (READ, n(600)), (WRITE, n(300))],
            Some(100 * 1_000 + 600 * 100 + 300 * 1_250 + 10 * 5_000),
        ),
        (
            "an hour's cache is a part of what was written",
            NOW,
            "anthropic",
            "claude-haiku-4-5",
            vec![(IN, n(1_000)), (OUT, n(10)), (READ, n(600)), (WRITE, n(300)), (HOUR, n(200))],
            Some(100 * 1_000 + 600 * 100 + 100 * 1_250 + 200 * 2_000 + 10 * 5_000),
        ),
        (
            "all of it for an hour",
            NOW,
            "anthropic",
            "claude-opus-4-5",
            vec![(IN, n(500)), (OUT, n(1)), (WRITE, n(500)), (HOUR, n(500))],
            Some(500 * 10_000 + 25_000),
        ),
        (
            "cached tokens that were counted apart are added first",
            NOW,
            "anthropic",
            "claude-haiku-4-5",
            vec![(IN, n(100)), (OUT, n(10)), (READ, n(600))],
            Some(100 * 1_000 + 600 * 100 + 10 * 5_000),
        ),
        (
            "written where writing has no price of its own",
            NOW,
            "openai",
            "gpt-4o",
            vec![(IN, n(10)), (OUT, n(0)), (WRITE, n(4))],
            Some(10 * 2_500),
        ),
        (
            "more for an hour than was written: a broken report",
            NOW,
            "anthropic",
            "claude-haiku-4-5",
            vec![(IN, n(1_000)), (OUT, n(10)), (WRITE, n(5)), (HOUR, n(6))],
            None,
        ),
    ]
}

fn long() -> Vec<Case> {
    vec![
        (
            "at the step, not over it",
            NOW,
            "anthropic",
            "claude-sonnet-4-5",
            vec![(IN, n(200_000)), (OUT, n(10))],
            Some(200_000 * 3_000 + 10 * 15_000),
        ),
        (
            "over the step the whole call costs more",
            NOW,
            "anthropic",
            "claude-sonnet-4-5",
            vec![(IN, n(200_001)), (OUT, n(10))],
            Some(200_001 * 6_000 + 10 * 22_500),
        ),
        (
            "cached input counts for the step, and has steps itself",
            NOW,
            "anthropic",
            "claude-sonnet-4-5",
            vec![(IN, n(250_000)), (OUT, n(10)), (READ, n(240_000)), (WRITE, n(9_000)), (HOUR, n(4_000))],
            Some(1_000 * 6_000 + 240_000 * 600 + 5_000 * 7_500 + 4_000 * 12_000 + 10 * 22_500),
        ),
        (
            "a step of another provider",
            NOW,
            "gcp.gemini",
            "gemini-2.5-pro",
            vec![(IN, n(300_000)), (OUT, n(100)), (READ, n(100_000))],
            Some(200_000 * 2_500 + 100_000 * 250 + 100 * 15_000),
        ),
        (
            "a step that went away",
            "2026-03-12T23:59:59Z",
            "anthropic",
            "claude-sonnet-4-6",
            vec![(IN, n(200_001)), (OUT, n(1))],
            Some(200_001 * 6_000 + 22_500),
        ),
        (
            "the day after",
            "2026-03-13T00:00:00Z",
            "anthropic",
            "claude-sonnet-4-6",
            vec![(IN, n(200_001)), (OUT, n(1))],
            Some(200_001 * 3_000 + 15_000),
        ),
        (
            "a tier without the step that the usual price has",
            NOW,
            "openai",
            "gpt-5.4",
            vec![(IN, n(300_000)), (OUT, n(1)), (TIER, "priority".into())],
            Some(300_000 * 5_000 + 30_000),
        ),
    ]
}

fn by_time() -> Vec<Case> {
    vec![
        (
            "before a price fell",
            "2025-06-09T23:59:59Z",
            "openai",
            "o3",
            vec![(IN, n(100)), (OUT, n(10))],
            Some(100 * 10_000 + 10 * 40_000),
        ),
        (
            "on the day",
            "2025-06-10T00:00:00Z",
            "openai",
            "o3",
            vec![(IN, n(100)), (OUT, n(10))],
            Some(100 * 2_000 + 10 * 8_000),
        ),
        (
            "by day",
            "2025-03-01T16:29:59Z",
            "deepseek",
            "deepseek-chat",
            vec![(IN, n(100)), (OUT, n(10)), (READ, n(20))],
            Some(80 * 270 + 20 * 70 + 10 * 1_100),
        ),
        (
            "by night",
            "2025-03-01T16:30:00Z",
            "deepseek",
            "deepseek-chat",
            vec![(IN, n(100)), (OUT, n(10)), (READ, n(20))],
            Some(80 * 135 + 20 * 35 + 10 * 550),
        ),
        (
            "and till half past midnight",
            "2025-03-02T00:29:59Z",
            "deepseek",
            "deepseek-chat",
            vec![(IN, n(100)), (OUT, n(10))],
            Some(100 * 135 + 10 * 550),
        ),
    ]
}

fn tiers() -> Vec<Case> {
    vec![
        (
            "flex",
            NOW,
            "openai",
            "gpt-5-mini",
            vec![(IN, n(211)), (OUT, n(37)), (TIER, "flex".into())],
            Some(211 * 125 + 37 * 1_000),
        ),
        (
            "priority",
            NOW,
            "openai",
            "gpt-4o-mini",
            vec![(IN, n(100)), (OUT, n(10)), (READ, n(40)), (TIER, "priority".into())],
            Some(60 * 250 + 40 * 125 + 10 * 1_000),
        ),
        (
            "the usual tier, named",
            NOW,
            "openai",
            "gpt-4o",
            vec![(IN, n(100)), (OUT, n(10)), (TIER, "default".into())],
            Some(100 * 2_500 + 10 * 10_000),
        ),
        (
            "a tier before the table knew it",
            "2026-10-11T23:59:59Z",
            "openai",
            "gpt-4o-mini",
            vec![(IN, n(100)), (OUT, n(10)), (TIER, "priority".into())],
            Some(100 * 150 + 10 * 600),
        ),
        (
            "a batch, which has no cached rate: the usual one stays",
            NOW,
            "openai",
            "gpt-4o",
            vec![(IN, n(100)), (OUT, n(10)), (READ, n(40)), (PROCESSING, "batch".into())],
            Some(60 * 1_250 + 40 * 1_250 + 10 * 5_000),
        ),
        (
            "a batch as Anthropic's tier says it",
            NOW,
            "anthropic",
            "claude-haiku-4-5",
            vec![
                (IN, n(100)),
                (OUT, n(10)),
                (WRITE, n(40)),
                (HOUR, n(40)),
                ("runspan.price.service_tier", "batch".into()),
            ],
            Some(60 * 500 + 40 * 1_000 + 10 * 2_500),
        ),
        (
            "a route",
            NOW,
            "openrouter",
            "mistralai/mistral-large-4-0",
            vec![(IN, n(100)), (OUT, n(10)), (ROUTE, "mistral/eu".into())],
            Some(100 * 748 + 10 * 2_299),
        ),
    ]
}

fn other_than_text() -> Vec<Case> {
    vec![
        (
            "audio in",
            NOW,
            "gcp.gemini",
            "gemini-2.5-flash",
            vec![(IN, n(1_000)), (OUT, n(10)), (AUDIO_IN, n(800))],
            Some(200 * 300 + 800 * 1_000 + 10 * 2_500),
        ),
        (
            "audio in, from a cache",
            NOW,
            "gcp.gemini",
            "gemini-2.5-flash",
            vec![(IN, n(1_000)), (OUT, n(10)), (READ, n(300)), (AUDIO_IN, n(800)), (AUDIO_READ, n(300))],
            Some(200 * 300 + 500 * 1_000 + 300 * 100 + 10 * 2_500),
        ),
        (
            "cached and audio, but not how much of both",
            NOW,
            "gcp.gemini",
            "gemini-2.5-flash",
            vec![(IN, n(1_000)), (OUT, n(10)), (READ, n(300)), (AUDIO_IN, n(800))],
            None,
        ),
        (
            "audio both ways, images too",
            NOW,
            "openai",
            "gpt-realtime",
            vec![(IN, n(500)), (OUT, n(100)), (AUDIO_IN, n(300)), (AUDIO_OUT, n(80)), (IMAGE_IN, n(50))],
            Some(150 * 4_000 + 300 * 32_000 + 50 * 5_000 + 20 * 16_000 + 80 * 64_000),
        ),
        (
            "an image out",
            NOW,
            "gcp.gemini",
            "gemini-2.5-flash-image",
            vec![(IN, n(20)), (OUT, n(1_300)), (IMAGE_OUT, n(1_290))],
            Some(20 * 300 + 10 * 2_500 + 1_290 * 30_000),
        ),
        ("by the hour: $0.36 x 90 s / 3600 s", NOW, "openai", "whisper-1", vec![(SECONDS, n(90))], Some(9_000_000)),
        (
            "ten seconds at least, on Groq: $0.111 x 10 s / 3600 s",
            NOW,
            "groq",
            "whisper-large-v3",
            vec![(SECONDS, Value::Double(2.5))],
            Some(308_333),
        ),
        ("by the hour, but only tokens are told", NOW, "openai", "whisper-1", vec![(IN, n(100)), (OUT, n(10))], None),
        (
            "by the hour, and the hours are not told",
            NOW,
            "openai",
            "whisper-1",
            vec![(IN, n(100)), (SEARCHES, n(1))],
            None,
        ),
        ("no time at all", NOW, "openai", "whisper-1", vec![(SECONDS, n(0))], Some(0)),
        ("by the character: $15 a million", NOW, "openai", "tts-1", vec![(CHARACTERS, n(2_000))], Some(2_000 * 15_000)),
        (
            "by the page: $4 a thousand",
            NOW,
            "mistral_ai",
            "mistral-ocr-latest",
            vec![(PAGES, n(3))],
            Some(3 * 4_000_000),
        ),
    ]
}

fn fees() -> Vec<Case> {
    vec![
        (
            "a fee for each request: $12 a thousand",
            NOW,
            "perplexity",
            "sonar",
            vec![(IN, n(100)), (OUT, n(10))],
            Some(110 * 1_000 + 12_000_000),
        ),
        (
            "searches of the web: $10 a thousand",
            NOW,
            "anthropic",
            "claude-haiku-4-5",
            vec![(IN, n(100)), (OUT, n(10)), (SEARCHES, n(3))],
            Some(100 * 1_000 + 10 * 5_000 + 3 * 10_000_000),
        ),
        (
            "searches of files: $2.50 a thousand",
            NOW,
            "openai",
            "gpt-4o",
            vec![(IN, n(100)), (OUT, n(10)), (FILE_SEARCHES, n(2))],
            Some(100 * 2_500 + 10 * 10_000 + 2 * 2_500_000),
        ),
        (
            "a cheaper search",
            NOW,
            "perplexity",
            "perplexity/sonar",
            vec![(IN, n(100)), (OUT, n(10)), (SEARCHES, n(1)), (SEARCH_TYPE, "fast".into())],
            Some(100 * 250 + 10 * 2_500 + 1_000_000),
        ),
        (
            "searches without the tokens are half of a bill",
            NOW,
            "anthropic",
            "claude-haiku-4-5",
            vec![(SEARCHES, n(3))],
            None,
        ),
        (
            "reasoning is part of the output",
            NOW,
            "openai",
            "gpt-5",
            vec![(IN, n(100)), (OUT, n(50)), (REASONING, n(40))],
            Some(100 * 1_250 + 50 * 10_000),
        ),
        (
            "reasoning and citations with rates of their own",
            NOW,
            "perplexity",
            "sonar-deep-research",
            vec![(IN, n(100)), (OUT, n(100)), (REASONING, n(60)), (CITATIONS, n(30)), (SEARCHES, n(2))],
            Some(100 * 2_000 + 10 * 8_000 + 60 * 3_000 + 30 * 2_000 + 2 * 5_000_000),
        ),
    ]
}

fn unknown() -> Vec<Case> {
    vec![
        ("a model that nobody knows", NOW, "openai", "gpt-of-our-own", vec![(IN, n(100)), (OUT, n(10))], None),
        ("a provider that nobody knows", NOW, "our-own", "gpt-4o", vec![(IN, n(100)), (OUT, n(10))], None),
        ("no counts", NOW, "openai", "gpt-4o", vec![], None),
        ("half of the counts", NOW, "openai", "gpt-4o", vec![(IN, n(100))], None),
        (
            "the emitter's own word wins",
            NOW,
            "openai",
            "gpt-4o",
            vec![(IN, n(100)), (OUT, n(10)), ("gen_ai.usage.cost", Value::Double(0.25))],
            Some(250_000_000),
        ),
    ]
}

#[test]
fn calls_cost_what_the_table_says_worked_by_hand() {
    let cases: Vec<Case> =
        [plain(), cached(), long(), by_time(), tiers(), other_than_text(), fees(), unknown()].concat();
    assert!(cases.len() >= 50, "{}", cases.len());
    let calls: Vec<Call> = cases
        .iter()
        .map(|(_, at, provider, model, told, _)| Call {
            at: time(at),
            provider: Some((*provider).to_owned()),
            model: (*model).to_owned(),
            told: told.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        })
        .collect();
    let dir = tempdir();
    let costs = stored_costs(dir.path(), &calls);
    let wrong: Vec<String> = cases
        .iter()
        .zip(costs)
        .filter(|(case, cost)| case.5.map(NanoUsd) != *cost)
        .map(|(case, cost)| format!("{}: {:?} wanted, {cost:?} stored", case.0, case.5.map(NanoUsd)))
        .collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
