//! What model calls are billed by: our counts, the units of the price table, and the circumstances that change prices.

use super::names;

/// Counts under the names of the standard, and the units of the price table that they are.
///
/// What the standard has no name for stands under [`names::USAGE_PREFIX`] and the unit's own name.
pub const COUNTS: &[(&str, &str)] = &[
    (names::INPUT_TOKENS, "input_tokens"),
    (names::OUTPUT_TOKENS, "output_tokens"),
    (names::CACHE_READ_TOKENS, "cache_read_tokens"),
    (names::CACHE_WRITE_TOKENS, "cache_write_tokens"),
    (names::REASONING_TOKENS, "output_reasoning_tokens"),
    ("gen_ai.usage.text.input_tokens", "input_text_tokens"),
    ("gen_ai.usage.text.cache_read.input_tokens", "cache_text_read_tokens"),
    ("gen_ai.usage.text.output_tokens", "output_text_tokens"),
    (names::AUDIO_INPUT_TOKENS, "input_audio_tokens"),
    (names::AUDIO_CACHE_READ_TOKENS, "cache_audio_read_tokens"),
    (names::AUDIO_OUTPUT_TOKENS, "output_audio_tokens"),
    ("gen_ai.usage.image.input_tokens", "input_image_tokens"),
    ("gen_ai.usage.image.cache_read.input_tokens", "cache_image_read_tokens"),
    ("gen_ai.usage.image.output_tokens", "output_image_tokens"),
];

/// Words for the tier that a call was served in which mean another circumstance in the price table: key and value there.
/// Every other word is a `service_tier` of the table's, or of no consequence.
///
/// Source: Anthropic's `usage.service_tier`.
pub const TIERS: &[(&str, (&str, &str))] = &[("batch", ("processing", "batch"))];

/// Words for the tier of any call, whose prices are the plain ones.
///
/// Source: OpenAI's `service_tier`, Anthropic's `usage.service_tier`, and Groq's `service_tier`.
pub const PLAIN_TIERS: &[&str] = &["auto", "default", "standard", "on_demand"];

/// A tier that OpenAI serves a call in that asks for it, or refuses the call.
///
/// Source: OpenAI's guide to flex processing.
pub const SERVED_OR_REFUSED: &str = "flex";

/// A tier that OpenAI may serve a call below, though it asks for it, and says so in the answer alone.
///
/// Source: OpenAI's guide to priority processing.
pub const SERVED_OR_LESS: &str = "priority";

/// Circumstances under which a call has a price of its own, keys and values. Where a table has none for them it is not known
/// what such a call cost.
///
/// Source: Anthropic's `usage.speed` and `usage.inference_geo`, and its prices of fast mode and of data residency.
pub const PRICED_APART: &[(&str, &str)] = &[("speed", "fast"), ("inference_geo", "us")];

/// A unit of the price table besides plain tokens, and how its price is shown.
#[derive(Debug)]
pub struct Unit {
    /// Its name in the table, which is also that of its count behind [`names::USAGE_PREFIX`].
    pub name: &'static str,
    /// The name of its price there; none where that hangs on tokens.
    pub price: &'static str,
    /// The units that it is a part of, widest first; their counts include it.
    pub part_of: &'static [&'static str],
    /// How many of it the price that is shown is for.
    pub per: u64,
}

const fn tokens(name: &'static str, part_of: &'static [&'static str]) -> Unit {
    Unit { name, price: "", part_of, per: 1_000_000 }
}

const fn apart(name: &'static str, price: &'static str, part_of: &'static [&'static str], per: u64) -> Unit {
    Unit { name, price, part_of, per }
}

/// The units that have prices of their own somewhere.
///
/// Source: the table of units in genai-prices 0.2.1.
pub const UNITS: &[Unit] = &[
    tokens("cache_write_1h_tokens", &["input_tokens", "cache_write_tokens"]),
    tokens("input_audio_tokens", &["input_tokens"]),
    tokens("cache_audio_read_tokens", &["input_tokens", "cache_read_tokens", "input_audio_tokens"]),
    tokens("output_audio_tokens", &["output_tokens"]),
    tokens("input_image_tokens", &["input_tokens"]),
    tokens("cache_image_read_tokens", &["input_tokens", "cache_read_tokens", "input_image_tokens"]),
    tokens("output_image_tokens", &["output_tokens"]),
    tokens("input_video_tokens", &["input_tokens"]),
    tokens("output_video_tokens", &["output_tokens"]),
    tokens("output_reasoning_tokens", &["output_tokens"]),
    tokens("output_citation_tokens", &["output_tokens"]),
    apart("input_characters", "input_mchars", &[], 1_000_000),
    apart("input_text_messages", "input_text_messages_kcount", &[], 1_000),
    apart("audio_seconds", "audio_hours", &[], 3_600),
    apart("input_audio_seconds", "input_audio_hours", &["audio_seconds"], 3_600),
    apart("output_audio_seconds", "output_audio_hours", &["audio_seconds"], 3_600),
    apart("input_pixels", "input_gpixels", &[], 1_000_000_000),
    apart("input_document_pages", "input_document_kpages", &[], 1_000),
    apart("input_annotated_document_pages", "input_annotated_document_kpages", &["input_document_pages"], 1_000),
    apart("rerank_searches", "rerank_searches_kcount", &[], 1_000),
    apart("web_searches", "web_searches_kcount", &[], 1_000),
    apart("social_searches", "social_searches_kcount", &[], 1_000),
    apart("storage_searches", "storage_searches_kcount", &[], 1_000),
    apart("code_executions", "code_executions_kcount", &[], 1_000),
];
