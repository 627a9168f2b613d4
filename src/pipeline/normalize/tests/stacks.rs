//! What single stacks write that no recording of the tests has; each was seen of the stack, run against a scripted server.

use super::*;

mod clients;
mod frameworks;
mod golang;
mod javascript;
mod jvm;
mod langchain;
mod openai_agents;
mod platforms;
mod programs;
mod unknown;
mod versions;

/// An ended span of that name with these attributes, and the scope that made it.
fn told(scope: &str, name: &str, list: &[(&str, Value)]) -> StepFacts {
    let mut record = ended(list);
    record.span.name = name.to_owned();
    record.scope.name = scope.to_owned();
    facts(&record)
}

fn tokens(facts: &StepFacts) -> [Option<u64>; 5] {
    let tokens = facts.tokens.unwrap_or_default();
    [tokens.prompt, tokens.cache_read, tokens.cache_write, tokens.completion, tokens.reasoning]
}
