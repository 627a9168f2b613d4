//! Where LangChain's answers have what is asked of them, for whoever passes them on as they are.

/// Where LangChain's answers have the model that answered.
pub(super) const LANGCHAIN_MODEL: &[&str] =
    &["generations", "0", "0", "message", "kwargs", "response_metadata", "model_name"];
/// Where LangChain's answers have the provider's id of the answer.
pub(super) const LANGCHAIN_ID: &[&str] = &["generations", "0", "0", "message", "kwargs", "response_metadata", "id"];

/// Where LangChain's answers have it in JavaScript: the message's own id, which LangChain makes up where there is none.
pub(super) const LANGCHAIN_MESSAGE_ID: &[&str] = &["generations", "0", "0", "message", "kwargs", "id"];

/// Where LangChain's answers have how much Anthropic's models thought: its own usage has that only in later versions.
pub(super) const LANGCHAIN_THOUGHT: &[&str] = &[
    "generations",
    "0",
    "0",
    "message",
    "kwargs",
    "response_metadata",
    "usage",
    "output_tokens_details",
    "thinking_tokens",
];

/// Where LangChain's answers have the tier that they were served in.
pub(super) const LANGCHAIN_TIER: &[&str] =
    &["generations", "0", "0", "message", "kwargs", "response_metadata", "service_tier"];

/// Where LangChain's answers have what Anthropic reported, if that has what went in: of a stream it has cached tokens alone.
pub(super) const LANGCHAIN_REPORTED: &[&str] =
    &["generations", "0", "0", "message", "kwargs", "response_metadata", "usage", "input_tokens?"];

/// Where LangChain's answers have the usage.
pub(super) const LANGCHAIN_USAGE: &[&str] = &["generations", "0", "0", "message", "kwargs", "usage_metadata"];
