//! What a model call used.

/// Tokens of one model call. `None` is "nobody said", which is not 0.
///
/// ```
/// use runspan::Usage;
///
/// let usage = Usage::new(1200, 80).cache_read(1024);
/// assert_eq!((usage.input_tokens, usage.cache_read, usage.reasoning), (Some(1200), Some(1024), None));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All input tokens, cached ones included.
    pub input_tokens: Option<u64>,
    /// All output tokens, reasoning included.
    pub output_tokens: Option<u64>,
    /// Part of the input that was read from a cache.
    pub cache_read: Option<u64>,
    /// Part of the input that was written to a cache.
    pub cache_write: Option<u64>,
    /// Part of the output that was reasoning.
    pub reasoning: Option<u64>,
}

impl Usage {
    /// Makes a usage of input and output tokens.
    pub fn new(input_tokens: u64, output_tokens: u64) -> Self {
        Self { input_tokens: Some(input_tokens), output_tokens: Some(output_tokens), ..Self::default() }
    }

    /// Sets how much of the input was read from a cache.
    pub fn cache_read(mut self, tokens: u64) -> Self {
        self.cache_read = Some(tokens);
        self
    }

    /// Sets how much of the input was written to a cache.
    pub fn cache_write(mut self, tokens: u64) -> Self {
        self.cache_write = Some(tokens);
        self
    }

    /// Sets how much of the output was reasoning.
    pub fn reasoning(mut self, tokens: u64) -> Self {
        self.reasoning = Some(tokens);
        self
    }
}
