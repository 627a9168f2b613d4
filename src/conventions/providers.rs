//! Providers: their canonical names, and the ids under which the price table has them.

use crate::model::StepKind;

/// Older and foreign words in `gen_ai.system` for a provider, lower case, and its canonical name.
///
/// Source: the deprecated registry of OpenTelemetry semantic conventions 1.44 for the first five; the others are
/// what Traceloop, Spring AI, OpenInference and Genkit write, Vercel's SDK (run live: 6.0 and 7.0), Claude Code of its own provider, Mirascope (2.4), and MLflow, which
/// takes the start of a model's name for it: with Bedrock a region.
pub const CANONICAL: &[(&str, &str)] = &[
    ("openai-chat", "openai"),
    ("vertex_ai", "gcp.vertex_ai"),
    ("gemini", "gcp.gemini"),
    ("az.ai.inference", "azure.ai.inference"),
    ("az.ai.openai", "azure.ai.openai"),
    ("xai", "x_ai"),
    ("vertexai", "gcp.vertex_ai"),
    ("google_vertexai", "gcp.vertex_ai"),
    ("google_genai", "gcp.gen_ai"),
    ("googleai", "gcp.gemini"),
    ("google", "gcp.gen_ai"),
    ("bedrock", "aws.bedrock"),
    ("bedrock_converse", "aws.bedrock"),
    ("amazon_bedrock", "aws.bedrock"),
    ("awsbedrock", "aws.bedrock"),
    ("us", "aws.bedrock"),
    ("eu", "aws.bedrock"),
    ("apac", "aws.bedrock"),
    ("global", "aws.bedrock"),
    ("aws", "aws.bedrock"),
    ("amazon", "aws.bedrock"),
    ("azure", "azure.ai.openai"),
    ("azure_openai", "azure.ai.openai"),
    ("azure_ai", "azure.ai.inference"),
    ("mistral", "mistral_ai"),
    ("mistralai", "mistral_ai"),
    ("moonshot", "moonshot_ai"),
    ("watsonx", "ibm.watsonx.ai"),
    ("ibm.watson.ai", "ibm.watsonx.ai"),
    ("azure-openai", "azure.ai.openai"),
    ("google.generative-ai", "gcp.gemini"),
    ("google.vertex", "gcp.vertex_ai"),
    ("googlevertex", "gcp.vertex_ai"),
    ("vertex", "gcp.vertex_ai"),
    ("amazon-bedrock", "aws.bedrock"),
    ("bedrock-mantle", "aws.bedrock"),
    ("azure-anthropic", "azure.ai.inference"),
    ("togetherai", "together"),
    ("moonshotai", "moonshot_ai"),
    ("firstparty", "anthropic"),
    ("anthropic_llm", "anthropic"),
    ("anthropic-beta", "anthropic"),
    ("openai:completions", "openai"),
    ("openai:responses", "openai"),
];

/// Names of APIs that Vercel's SDK, and who follows it, adds to the provider behind a dot.
pub const APIS: &[&str] = &[
    "chat",
    "responses",
    "completion",
    "embedding",
    "embeddings",
    "textembedding",
    "reranking",
    "image",
    "video",
    "messages",
    "interactions",
    "transcription",
    "speech",
];

/// Who serves models of several makers: Vercel's SDK adds the maker behind a dot.
///
/// Source: `@ai-sdk/azure` 3.0, `@ai-sdk/amazon-bedrock` 4.0 and `@ai-sdk/google-vertex` 4.0.
pub const SERVE_MAKERS: &[&str] = &["azure", "bedrock", "vertex", "google.vertex", "googlevertex"];

/// Makers of models that are served by others, as Vercel's SDK writes them behind those; `maas` is Vertex's word for any.
pub const SERVED_MAKERS: &[&str] = &["anthropic", "deepseek", "openai", "mistral", "meta", "cohere", "xai", "maas"];

/// Ends of host names, and the provider that answers there.
///
/// Source: the providers' own documentation; where the price table knows their addresses, it agrees.
pub const HOSTS: &[(&str, &str)] = &[
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("openai.azure.com", "azure.ai.openai"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("api.cerebras.ai", "cerebras"),
    ("api.deepseek.com", "deepseek"),
    ("api.fireworks.ai", "fireworks"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.moonshot.ai", "moonshot_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.together.xyz", "together"),
    ("api.x.ai", "x_ai"),
    ("openrouter.ai", "openrouter"),
];

/// Words that a model's name may begin with, before a `/`: by them LiteLLM, and who calls models by it, tells where a model is asked.
///
/// Source: `litellm` 1.110 `constants.py`; those are left out that may mean an organisation on Hugging Face or a vendor at
/// OpenRouter, whose prices are others.
pub const IN_MODELS: &[&str] = &[
    "anthropic",
    "azure",
    "bedrock",
    "cerebras",
    "gemini",
    "groq",
    "mistral",
    "moonshot",
    "openai",
    "openrouter",
    "vertex_ai",
    "xai",
];

/// Providers that serve none but their own models, under canonical names. Their clients are used to call others, and by the last
/// OpenInference names all that Google's ADK calls, by LiteLLM as well.
pub const WITH_OWN_MODELS: &[&str] = &["anthropic", "openai", "gcp.gen_ai"];

/// Who counts what was read from a cache, and written to it, beside the input and not in it.
pub const COUNT_CACHE_APART: &[&str] = &["anthropic", "aws.bedrock"];

/// Whose totals are input and output and nothing else, cached tokens in the input: the provider, and how its models begin. By the name of
/// OpenAI go other makers' models that are called in its way, and the totals of Gemini and Grok have thoughts which no other count has.
///
/// Source: the references of OpenAI's and Bedrock's APIs. Anthropic's has no totals: emitters make them.
pub const TOTAL_OF_BOTH: &[(&str, &[&str])] = &[
    ("anthropic", &["claude"]),
    ("aws.bedrock", &[""]),
    ("openai", &["gpt-", "chatgpt-", "ft:gpt-", "o1", "o3", "o4"]),
];

/// How the names of models begin that a provider makes whose word is also taken for those of others: OpenAI's and Anthropic's, whose
/// clients call them, and Google's, for which ADK takes all of them.
pub const MAKES: &[(&str, &[&str])] = &[
    ("anthropic", &["claude-"]),
    ("gcp.gemini", &["gemini-", "gemma-", "models/gemini-", "models/gemma-"]),
    ("gcp.vertex_ai", &["gemini-", "projects/", "publishers/"]),
    ("openai", &["gpt-", "chatgpt-", "ft:gpt-", "o1", "o3", "o4", "text-embedding-"]),
];

/// How the names of models of theirs begin that anyone may serve.
pub const OPEN_MODELS: &[&str] = &["gpt-oss"];

/// What models have in their names whose totals may have something else than text all the same: sound, or thoughts of models that
/// anyone may serve.
pub const TOTAL_OF_MORE: &[&str] = &["gpt-oss", "-audio", "realtime", "transcribe", "-tts"];

/// What may stand before the vendor in a model's id of Amazon Bedrock: where a profile sends what it is asked.
///
/// Source: Amazon Bedrock's documentation of inference profiles.
pub const BEDROCK_PROFILES: &[&str] =
    &["us", "us-gov", "eu", "apac", "au", "ca", "jp", "sa", "me", "af", "il", "global"];

/// Who makes the models that Amazon Bedrock serves, as it writes them before the names of its models.
///
/// Source: Amazon Bedrock's list of foundation models, and those that the price table knows.
pub const BEDROCK_VENDORS: &[&str] = &[
    "ai21",
    "amazon",
    "anthropic",
    "cohere",
    "deepseek",
    "google",
    "luma",
    "meta",
    "minimax",
    "mistral",
    "moonshot",
    "moonshotai",
    "nvidia",
    "openai",
    "qwen",
    "stability",
    "twelvelabs",
    "writer",
    "zai",
];

/// Words in `gen_ai.system` that name a framework or a gateway, which says nothing about who serves the model.
///
/// Source: `openlit` 1.45 `semcov`, OpenLLMetry 0.62, `@ai-sdk/gateway` 3.0, trpc-agent-go 1.10, and recordings.
pub const FRAMEWORKS: &[&str] = &[
    "ag2",
    "agent_framework",
    "agno",
    "autogen",
    "browser_use",
    "claude_agent_sdk",
    "controlflow",
    "crewai",
    "dynamiq",
    "gateway",
    "gcp.vertex.agent",
    "google_adk",
    "haystack",
    "julep",
    "koog",
    "langchain",
    "langgraph",
    "letta",
    "llama_index",
    "mcp",
    "microsoft.agent_framework",
    "openai_agents",
    "pydantic_ai",
    "smolagents",
    "spring_ai",
    "strands-agents",
    "strands_agents",
    "trpc.go.agent",
    "_other",
];

/// Provider names, lower case, and the id of the provider in the price table, where the table does not find it by
/// itself or would find another.
///
/// Source: tried against genai-prices 0.2.1. `azure.ai.openai` contains "openai" and would get OpenAI's own list.
/// The second half are names that rig-core 0.44 writes.
pub const PRICE_IDS: &[(&str, &str)] = &[
    ("gcp.gen_ai", "google"),
    ("gcp.gemini", "google"),
    ("gcp.vertex_ai", "google"),
    ("azure.ai.openai", "azure"),
    ("azure.ai.inference", "azure"),
    ("x_ai", "x-ai"),
    ("mistral_ai", "mistral"),
    ("moonshot_ai", "moonshotai"),
    ("aws.bedrock", BEDROCK_ID),
    ("azure.openai", "azure"),
    ("xai", "x-ai"),
    ("moonshot", "moonshotai"),
    ("copilot", "github-copilot"),
];

/// The id of Bedrock in the price table.
pub const BEDROCK_ID: &str = "aws";
/// The id of OpenRouter in the price table.
pub const OPENROUTER_ID: &str = "openrouter";

/// What OpenRouter adds to a name of Anthropic's for one that is moderated by Anthropic alone.
///
/// Source: OpenRouter's pages of such models ("identical to the Standard variant"); the price table has each at the plain price. No
/// other of its variants has the plain price for sure: `:nitro`, `:floor` and `:exacto` choose who serves, by whose price it is billed,
/// `:online` has a fee for searching, and `:free`, `:batch`, `:extended` and `:thinking` are models with prices of their own.
pub const SELF_MODERATED: &str = ":beta";

/// What Google adds to a name of Gemini's for the first version that is stable: the one that the plain name is priced as.
pub const FIRST_VERSION: &str = "-001";

/// Resources of Amazon Bedrock that are named by a model's id. Those of a user, as application profiles, have ids of their own.
const BEDROCK_RESOURCES: &[&str] = &["foundation-model", "inference-profile"];

/// How the names of models begin that the Gemini API has.
const GEMINI_API_MODELS: &[&str] = &["gemini-", "gemma-", "embedding-", "text-embedding-"];

/// How the names of models begin, or the parts of them between `.` and `/`, that do something else than answer, and what that is:
/// some say of every request that it is a call.
///
/// Source: the lists of models of Amazon Bedrock, OpenAI, Google, Mistral and Cohere.
pub const KINDS_OF_MODELS: &[(&str, StepKind)] = &[
    ("embed-", StepKind::Embedding),
    ("titan-embed-", StepKind::Embedding),
    ("nova-2-multimodal-embeddings", StepKind::Embedding),
    ("text-embedding-", StepKind::Embedding),
    ("embedding-", StepKind::Embedding),
    ("gemini-embedding-", StepKind::Embedding),
    ("mistral-embed", StepKind::Embedding),
    ("codestral-embed", StepKind::Embedding),
    ("rerank-", StepKind::Rerank),
];

/// How the names of models begin, behind who makes or serves them. By these an attribute that is called `model` alone is one's.
///
/// Source: the ids of the price table, of the makers that have most of its models.
pub const MODELS: &[&str] = &[
    "chatgpt-",
    "claude-",
    "codestral-",
    "command-",
    "deepseek-",
    "gemini-",
    "gemma",
    "gpt-",
    "grok-",
    "kimi-",
    "llama",
    "magistral-",
    "ministral-",
    "mistral-",
    "mixtral-",
    "nova-",
    "o1",
    "o3",
    "o4-",
    "qwen",
    "sonar",
    "text-embedding-",
];

/// What stands in the names of models that Google serves: of its own, and of those that are named as resources of Vertex AI.
pub const MAY_BE_GOOGLE: &[&str] = &["gemini", "gemma", "projects/", "publishers/", "endpoints/", "tunedModels/"];

/// Tools of Google's that a request may ask for, whose answers count as input: the names of their members.
///
/// Source: `Tool` of the Gemini API and of Vertex AI, as it is written in JSON and by the clients.
pub const GOOGLE_TOOLS: &[&str] =
    &["url_context", "urlContext", "code_execution", "codeExecution", "file_search", "fileSearch"];

/// Returns the model's name in a cloud's name of a resource: `models/M` of the Gemini API, `publishers/P/models/M` of Vertex AI,
/// with `projects/P/locations/L` before it or without, and ARNs of Amazon Bedrock.
///
/// Source: Google's "resource names" and Amazon's "resource types defined by Amazon Bedrock".
pub fn model_of_resource(name: &str) -> Option<&str> {
    let mut arn = name.splitn(6, ':');
    if arn.next() == Some("arn") {
        let is_bedrock = arn.nth(1) == Some("bedrock");
        let (kind, model) = arn.nth(2)?.split_once('/')?;
        return (is_bedrock && BEDROCK_RESOURCES.contains(&kind)).then_some(model);
    }
    let parts: Vec<&str> = name.split('/').collect();
    let model = match parts.as_slice() {
        // A path on somebody's disk may begin so, too.
        ["models", model] if GEMINI_API_MODELS.iter().any(|start| model.starts_with(start)) => *model,
        ["publishers", _, "models", model] | ["projects", _, "locations", _, "publishers", _, "models", model] => {
            *model
        }
        // As Google's client makes it of `publishers/P/M`.
        ["projects", _, "locations", _, "publishers", _, model] => *model,
        _ => return None,
    };
    (!model.is_empty()).then_some(model)
}

/// Models by which the price table knows no provider, and how their names begin: id in the table. Clouds serve them at the same price.
pub const MAKERS: &[(&str, &str)] = &[("text-embedding-3-", "openai"), ("text-embedding-ada-", "openai")];
