//! Recorded answers, given again: what a stored run was told by models and tools, for whoever runs it once more.
//!
//! ```text
//! a stored run ─> Recording: its model calls and tool calls, each once, in order
//!                    │
//! a request ────> Replay: which recorded call is it? ─> its answer, and what differs
//! ```
//!
//! A [`Recording`] holds what any source recorded with its content: the library, `runspan exec`, OTLP of any dialect. A
//! [`Replay`] answers from it. A request belongs
//!
//! 1. to the recorded call of the same content, whatever came before it: of several the first that was not given yet, and
//!    the last of them again when all were;
//! 2. else to the call at its place in its conversation: what followed the call whose request this one goes on from. Which
//!    of several conversations it begins is told by what they have in common, and then by their order;
//! 3. else to none.
//!
//! So calls at the same time may come in any order. Ids of tool calls, reasoning, and the hashes of redaction marks are
//! no content here: they are other each time. What a recording does not have is a [`Gap`] with its reason, never an empty
//! answer. `docs/adr/0036-replay.md` says why.
//!
//! ```
//! use runspan::replay::{Recording, Request, json};
//!
//! # let dir = tempfile::tempdir()?;
//! # let guard = runspan::builder().store(dir.path()).init()?;
//! # let run = runspan::Run::agent("weather").start();
//! # let call = run.llm("openai", "gpt-4o-mini");
//! # call.input("Weather in Bern?").output("Let me look.");
//! # call.finish();
//! # let tool = run.tool("get_weather");
//! # tool.input(json!({"city": "Bern"})).output("snow");
//! # tool.finish();
//! # run.finish();
//! # drop(guard);
//! // let recording = Recording::open("latest")?;
//! # let recording = Recording::open_in(dir.path(), "latest")?;
//! let replay = recording.replay();
//! let answer = replay.ask(&Request::chat("gpt-4o-mini").user("Weather in Bern?"))?;
//! assert_eq!(answer.text(), "Let me look.");
//! let sky = replay.tool("get_weather", &json!({"city": "Bern"}))?;
//! assert_eq!(sky, "snow");
//! assert!(!replay.report().is_diverged(), "{}", replay.report());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
pub mod ask;
pub mod conversation;
mod matching;
mod recording;
mod request;
#[cfg(test)]
mod tests;
/// For the command line.
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod wire;

pub use answer::{Answer, AskedTool, Choice, Failure, Gap, Outcome};
pub use ask::Format;
pub use matching::{Fit, Found, LeftOver, Miss, NotAnswered, Replay, Report, Taken, ToolTaken};
pub use recording::{ModelCall, Recording, ToolCall};
pub use request::{Difference, Item, Request, Said};
/// For arguments of tools and the like, in a program that has no other use for it.
pub use serde_json::{Value as Json, json};
