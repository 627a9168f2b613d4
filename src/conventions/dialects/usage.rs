//! What providers report as the usage of a call, which many emitters pass on as an object.
//!
//! An object is known by a member that only its shape has; the first shape that fits wins.

use super::Basis;
use crate::conventions::names;

/// One way of writing usage as an object.
#[derive(Debug)]
pub struct Shape {
    /// An object of this shape has this member.
    pub mark: &'static [&'static str],
    /// Whether input includes cached tokens, where the shape says so.
    pub basis: Option<Basis>,
    /// Output does not include reasoning.
    pub reasoning_apart: bool,
    /// Its counts are buckets that make the total: where input and output alone make it, they hold the others.
    pub buckets: &'static [Buckets],
    /// Canonical names, and the members that have their counts, best first; none gives way to some. A part `KEY=VALUE` of a
    /// path takes the item of a list whose KEY is VALUE, and one with `*` in it the sum of all members of such a name.
    pub members: &'static [(&'static str, &'static [&'static [&'static str]])],
    /// Members whose counts are added to those of a canonical name: billed like it, and no part of its own member.
    pub beside: &'static [(&'static str, &'static [&'static str])],
}

/// The buckets of what went in, or of what came out. Names may have `*` in them.
#[derive(Debug)]
pub struct Buckets {
    /// What is in no other bucket.
    pub rest: &'static str,
    /// The others.
    pub others: &'static str,
    /// Those of them that have a canonical name of their own, and are added by that.
    pub counted: &'static [&'static str],
    /// Those that may be told once more: the others hold them already, as long as they make no more than the others.
    pub repeated: &'static str,
}

/// Langfuse's. Of a call that OpenAI serves with priority, LangChain tells a second time what is priced by it.
///
/// Source: `langfuse` 5.0 `langchain/CallbackHandler.py`, `@langfuse/langchain` 5.11.
const LANGFUSE: &[Buckets] = &[
    Buckets {
        rest: "input",
        others: "input_*",
        counted: &["*cache_read*", "*cached*", "*cache_creation*", "*cache_write*", "*ephemeral_*"],
        repeated: "input_priority*",
    },
    Buckets { rest: "output", others: "output_*", counted: &["*reasoning*"], repeated: "output_priority*" },
];

/// Tiers that stand in the names of buckets, with those of what went in and of what came out.
///
/// Source: `langchain-openai` 1.7, which puts it before each of its details, by `langfuse` 5.0.
pub const TIERS: &[(&str, [&str; 2])] =
    &[("flex", ["input_flex*", "output_flex*"]), ("priority", ["input_priority*", "output_priority*"])];

/// All shapes, the more particular mark first.
///
/// Source: the extractor tables of `genai-prices`, the providers' own references, LangChain's `UsageMetadata`,
/// Langfuse's buckets, and recordings.
pub const SHAPES: &[Shape] = &[
    // Buckets that are added up, beside which the provider's own names for cached tokens may stand.
    Shape {
        mark: &["input"],
        basis: Some(Basis::Exclusive),
        reasoning_apart: true,
        buckets: LANGFUSE,
        members: &[
            (names::INPUT_TOKENS, &[&["input"]]),
            (names::OUTPUT_TOKENS, &[&["output"]]),
            (names::TOTAL_TOKENS, &[&["total"]]),
            (
                names::CACHE_READ_TOKENS,
                &[
                    &["input*cache_read*"],
                    &["input*cached*"],
                    &["cache_read_input_tokens"],
                    &["cached_modality_*"],
                    &["cached_content_token_count"],
                ],
            ),
            (
                names::CACHE_WRITE_TOKENS,
                &[
                    &["input*cache_creation*"],
                    &["input*cache_write*"],
                    &["input*ephemeral_*"],
                    &["cache_creation_input_tokens"],
                    &["cache_write_input_tokens"],
                ],
            ),
            (names::CACHE_WRITE_1H_TOKENS, &[&["input*ephemeral_1h*"], &["cache_creation_ephemeral_1h_input_tokens"]]),
            (names::REASONING_TOKENS, &[&["output*reasoning*"], &["thoughts_token_count"]]),
            // 4 is Vertex' number for it.
            (names::AUDIO_INPUT_TOKENS, &[&["input*audio*"], &["input_modality_AUDIO"], &["input_modality_4"]]),
            (names::AUDIO_CACHE_READ_TOKENS, &[&["cached_modality_AUDIO"], &["cached_modality_4"]]),
            (names::AUDIO_OUTPUT_TOKENS, &[&["output*audio*"], &["output_modality_AUDIO"], &["output_modality_4"]]),
        ],
        beside: &[
            (names::AUDIO_INPUT_TOKENS, &["cached_modality_AUDIO"]),
            (names::AUDIO_INPUT_TOKENS, &["cached_modality_4"]),
        ],
    },
    Shape {
        mark: &["promptTokenCount"],
        basis: Some(Basis::Inclusive),
        reasoning_apart: true,
        buckets: &[],
        members: &[
            (names::INPUT_TOKENS, &[&["promptTokenCount"]]),
            (names::OUTPUT_TOKENS, &[&["candidatesTokenCount"]]),
            (names::TOTAL_TOKENS, &[&["totalTokenCount"]]),
            (names::CACHE_READ_TOKENS, &[&["cachedContentTokenCount"]]),
            (names::REASONING_TOKENS, &[&["thoughtsTokenCount"]]),
            (names::AUDIO_INPUT_TOKENS, &[&["promptTokensDetails", "modality=AUDIO", "tokenCount"]]),
            (names::AUDIO_CACHE_READ_TOKENS, &[&["cacheTokensDetails", "modality=AUDIO", "tokenCount"]]),
            (names::AUDIO_OUTPUT_TOKENS, &[&["candidatesTokensDetails", "modality=AUDIO", "tokenCount"]]),
        ],
        beside: &[(names::INPUT_TOKENS, &["toolUsePromptTokenCount"])],
    },
    Shape {
        mark: &["prompt_token_count"],
        basis: Some(Basis::Inclusive),
        reasoning_apart: true,
        buckets: &[],
        members: &[
            (names::INPUT_TOKENS, &[&["prompt_token_count"]]),
            (names::OUTPUT_TOKENS, &[&["candidates_token_count"]]),
            (names::TOTAL_TOKENS, &[&["total_token_count"]]),
            (names::CACHE_READ_TOKENS, &[&["cached_content_token_count"]]),
            (names::REASONING_TOKENS, &[&["thoughts_token_count"]]),
            (names::AUDIO_INPUT_TOKENS, &[&["prompt_tokens_details", "modality=AUDIO", "token_count"]]),
            (names::AUDIO_CACHE_READ_TOKENS, &[&["cache_tokens_details", "modality=AUDIO", "token_count"]]),
            (names::AUDIO_OUTPUT_TOKENS, &[&["candidates_tokens_details", "modality=AUDIO", "token_count"]]),
        ],
        beside: &[(names::INPUT_TOKENS, &["tool_use_prompt_token_count"])],
    },
    // OpenAI's chat, and all who follow it. Who takes only its names for the counts of another provider (Haystack) may leave
    // cached tokens out.
    Shape { mark: &["prompt_tokens_details"], basis: Some(Basis::Inclusive), ..CHAT },
    // DeepSeek's, and Mistral's.
    Shape { mark: &["prompt_cache_hit_tokens"], basis: Some(Basis::Inclusive), ..CHAT },
    Shape { mark: &["num_cached_tokens"], basis: Some(Basis::Inclusive), ..CHAT },
    CHAT,
    // OpenAI's responses.
    Shape {
        mark: &["input_tokens_details"],
        basis: Some(Basis::Inclusive),
        reasoning_apart: false,
        buckets: &[],
        members: &[
            (names::INPUT_TOKENS, &[&["input_tokens"]]),
            (names::OUTPUT_TOKENS, &[&["output_tokens"]]),
            (names::TOTAL_TOKENS, &[&["total_tokens"]]),
            (names::CACHE_READ_TOKENS, &[&["input_tokens_details", "cached_tokens"]]),
            (names::CACHE_WRITE_TOKENS, &[&["input_tokens_details", "cache_write_tokens"]]),
            (names::REASONING_TOKENS, &[&["output_tokens_details", "reasoning_tokens"]]),
            (names::AUDIO_INPUT_TOKENS, &[&["input_tokens_details", "audio_tokens"]]),
            (names::AUDIO_OUTPUT_TOKENS, &[&["output_tokens_details", "audio_tokens"]]),
        ],
        beside: &[],
    },
    LANGCHAIN_IN,
    Shape { mark: &["output_token_details"], ..LANGCHAIN_IN },
    // Anthropic's messages, where cached tokens are no part of the input.
    Shape { mark: &["cache_read_input_tokens"], basis: Some(Basis::Exclusive), ..MESSAGES },
    Shape { mark: &["cache_creation_input_tokens"], basis: Some(Basis::Exclusive), ..MESSAGES },
    MESSAGES,
    // Bedrock's Converse, and what Vercel's SDK 4 says of Anthropic beside its own counts.
    Shape { mark: &["cacheReadInputTokens"], basis: Some(Basis::Exclusive), ..CAMEL },
    Shape { mark: &["cacheWriteInputTokens"], basis: Some(Basis::Exclusive), ..CAMEL },
    CAMEL,
    // What OpenRouter's provider for it says beside its own counts.
    Shape { mark: &["promptTokensDetails"], basis: Some(Basis::Inclusive), ..VERCEL },
    VERCEL,
    // What Vercel's SDK 4 says of OpenAI beside its own counts.
    Shape { mark: &["cachedPromptTokens"], basis: Some(Basis::Inclusive), ..VERCEL },
    Shape { mark: &["reasoningTokens"], basis: Some(Basis::Inclusive), ..VERCEL },
];

const CHAT: Shape = Shape {
    mark: &["prompt_tokens"],
    basis: None,
    reasoning_apart: false,
    buckets: &[],
    members: &[
        (names::INPUT_TOKENS, &[&["prompt_tokens"]]),
        (names::OUTPUT_TOKENS, &[&["completion_tokens"]]),
        (names::TOTAL_TOKENS, &[&["total_tokens"]]),
        (
            names::CACHE_READ_TOKENS,
            &[
                &["prompt_tokens_details", "cached_tokens"],
                &["cache_read_input_tokens"],
                &["cached_tokens"],
                &["prompt_cache_hit_tokens"],
                &["num_cached_tokens"],
            ],
        ),
        (
            names::CACHE_WRITE_TOKENS,
            &[
                &["cache_creation_input_tokens"],
                &["prompt_tokens_details", "cache_creation_tokens"],
                &["prompt_tokens_details", "cache_write_tokens"],
                // Bedrock's, by Haystack.
                &["cache_write_input_tokens"],
            ],
        ),
        (
            names::REASONING_TOKENS,
            // The second is Anthropic's, by Haystack, the last Perplexity's.
            &[
                &["completion_tokens_details", "reasoning_tokens"],
                &["output_tokens_details", "thinking_tokens"],
                &["reasoning_tokens"],
            ],
        ),
        (names::AUDIO_INPUT_TOKENS, &[&["prompt_tokens_details", "audio_tokens"]]),
        (names::AUDIO_OUTPUT_TOKENS, &[&["completion_tokens_details", "audio_tokens"]]),
        (
            names::CACHE_WRITE_1H_TOKENS,
            &[
                &["cache_creation", "ephemeral_1h_input_tokens"],
                &["prompt_tokens_details", "cache_creation_token_details", "ephemeral_1h_input_tokens"],
            ],
        ),
        (names::WEB_SEARCHES, &[&["server_tool_use", "web_search_requests"]]),
        // Perplexity's, which have a price of their own where that is known.
        ("runspan.usage.output_citation_tokens", &[&["citation_tokens"]]),
    ],
    beside: &[(names::OUTPUT_TOKENS, &["citation_tokens"])],
};

/// Vercel's SDK, and who follows it.
const VERCEL: Shape = Shape {
    mark: &["promptTokens"],
    members: &[
        (names::INPUT_TOKENS, &[&["promptTokens"]]),
        (names::OUTPUT_TOKENS, &[&["completionTokens"]]),
        (names::TOTAL_TOKENS, &[&["totalTokens"]]),
        (
            names::CACHE_READ_TOKENS,
            &[&["cachedInputTokens"], &["cachedPromptTokens"], &["promptTokensDetails", "cachedTokens"]],
        ),
        (names::REASONING_TOKENS, &[&["reasoningTokens"], &["completionTokensDetails", "reasoningTokens"]]),
    ],
    ..CAMEL
};

const LANGCHAIN_IN: Shape = Shape {
    mark: &["input_token_details"],
    basis: Some(Basis::Inclusive),
    reasoning_apart: false,
    buckets: &[],
    members: &[
        (names::INPUT_TOKENS, &[&["input_tokens"]]),
        (names::OUTPUT_TOKENS, &[&["output_tokens"]]),
        (names::TOTAL_TOKENS, &[&["total_tokens"]]),
        // OpenAI's tiers stand before the names. Where it is told how long a cache is kept, the whole is said to be none.
        (names::CACHE_READ_TOKENS, &[&["input_token_details", "*cache_read*"]]),
        (
            names::CACHE_WRITE_TOKENS,
            &[&["input_token_details", "*cache_creation*"], &["input_token_details", "*ephemeral_*"]],
        ),
        (names::CACHE_WRITE_1H_TOKENS, &[&["input_token_details", "*ephemeral_1h*"]]),
        (names::REASONING_TOKENS, &[&["output_token_details", "*reasoning*"]]),
        (names::AUDIO_INPUT_TOKENS, &[&["input_token_details", "audio"]]),
        (names::AUDIO_OUTPUT_TOKENS, &[&["output_token_details", "audio"]]),
    ],
    beside: &[],
};

const MESSAGES: Shape = Shape {
    mark: &["input_tokens"],
    basis: None,
    reasoning_apart: false,
    buckets: &[],
    members: &[
        (names::INPUT_TOKENS, &[&["input_tokens"]]),
        (names::OUTPUT_TOKENS, &[&["output_tokens"]]),
        (names::TOTAL_TOKENS, &[&["total_tokens"]]),
        // The last of each are Pydantic AI's.
        (names::CACHE_READ_TOKENS, &[&["cache_read_input_tokens"], &["cache_read_tokens"]]),
        (names::CACHE_WRITE_TOKENS, &[&["cache_creation_input_tokens"], &["cache_write_tokens"]]),
        (
            names::REASONING_TOKENS,
            &[
                &["output_tokens_details", "reasoning_tokens"],
                &["output_tokens_details", "thinking_tokens"],
                &["details", "reasoning_tokens"],
                // Agno's.
                &["reasoning_tokens"],
            ],
        ),
        (
            names::CACHE_WRITE_1H_TOKENS,
            // The second is MLflow's.
            &[&["cache_creation", "ephemeral_1h_input_tokens"], &["cache_creation_input_tokens_above_1hr"]],
        ),
        (names::WEB_SEARCHES, &[&["server_tool_use", "web_search_requests"]]),
    ],
    beside: &[],
};

const CAMEL: Shape = Shape {
    mark: &["inputTokens"],
    basis: None,
    reasoning_apart: false,
    buckets: &[],
    members: &[
        (names::INPUT_TOKENS, &[&["inputTokens"]]),
        (names::OUTPUT_TOKENS, &[&["outputTokens"]]),
        (names::TOTAL_TOKENS, &[&["totalTokens"]]),
        (names::CACHE_READ_TOKENS, &[&["cacheReadInputTokens"], &["cachedInputTokens"], &["cachedContentTokens"]]),
        (names::CACHE_WRITE_TOKENS, &[&["cacheWriteInputTokens"], &["cacheCreationInputTokens"]]),
        (names::REASONING_TOKENS, &[&["reasoningTokens"], &["thoughtsTokens"]]),
        (names::CACHE_WRITE_1H_TOKENS, &[&["cacheDetails", "ttl=1h", "inputTokens"]]),
    ],
    beside: &[],
};
