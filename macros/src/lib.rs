//! The attribute macros of runspan; use them through the main crate's `macros` feature, where they are documented.

mod expand;
mod options;

use proc_macro::TokenStream;

use expand::Kind;

/// Records calls of a function as runs of an agent, or as steps of one inside another run.
#[proc_macro_attribute]
pub fn agent(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::attribute(Kind::Agent, options, function)
}

/// Records calls of a function as runs of a workflow, or as steps of one inside another run.
#[proc_macro_attribute]
pub fn workflow(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::attribute(Kind::Workflow, options, function)
}

/// Records calls of a function as model calls.
#[proc_macro_attribute]
pub fn llm(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::attribute(Kind::Llm, options, function)
}

/// Records calls of a function as tool calls.
#[proc_macro_attribute]
pub fn tool(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::attribute(Kind::Tool, options, function)
}

/// Records calls of a function as steps without a kind of their own.
#[proc_macro_attribute]
pub fn step(options: TokenStream, function: TokenStream) -> TokenStream {
    expand::attribute(Kind::Step, options, function)
}
