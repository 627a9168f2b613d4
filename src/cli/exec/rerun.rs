//! A command that is run again: what is answered to it in the place of models, and what is as it was.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use runspan::model::RunId;
use runspan::pipeline::Pipeline;
use runspan::replay::Replay;
use runspan::server::Receiver;
use runspan::{Content, Error};

use super::again::Input;
use super::child::{Ended, Place};
use super::proxy::dotenv::Files;
use super::proxy::places::Unled;
use super::proxy::{self, Answers, Calls, OnMiss, Proxy, places};
use super::{variable, warn};
use crate::cli::Session;

/// A command that is run again, with recorded answers.
pub struct Again {
    /// The run that it repeats.
    pub run: RunId,
    pub replay: Arc<Replay>,
    pub on_miss: OnMiss,
    /// The model that is asked where the recording is left.
    pub model: Option<String>,
    /// Variables that are to be as they were.
    pub environment: BTreeMap<String, OsString>,
    /// What it reads from, where it was recorded.
    pub input: Option<Input>,
    pub place: Place,
}

/// What became of it.
pub struct Over {
    pub ended: Ended,
    /// The run that was recorded.
    pub run: RunId,
    /// Requests that were no calls of models, and were refused.
    pub refused: Vec<String>,
}

impl Again {
    /// Tells whether a model may be asked.
    pub fn may_ask(&self) -> bool {
        self.on_miss == OnMiss::Live || self.replay.is_left_early()
    }
}

/// Reads a variable as a command will find it that is run again.
pub fn variable_of(again: Option<&Again>, name: &str) -> Option<String> {
    let recorded = again.and_then(|again| again.environment.get(name)?.clone().into_string().ok());
    recorded.filter(|value| !value.is_empty()).or_else(|| variable(name))
}

/// Makes what answers in the place of models.
pub fn answers(receiver: &Receiver, again: &Again, content: Content) -> Result<Answers, Error> {
    let pipeline = Pipeline::new(content, receiver.layout().read()?.redaction_key());
    Ok(Answers::new(Arc::clone(&again.replay), again.on_miss, again.model.clone(), pipeline))
}

/// Opens the port at which recorded answers are given. Whatever lies between here and a model is passed by.
pub fn answer_calls(
    receiver: &Receiver,
    again: &Again,
    command: &[OsString],
    answers: Option<Arc<Answers>>,
    calls: Calls,
    session: &mut Session<'_>,
) -> Option<Proxy> {
    let directory = again.place.directory.clone().or_else(|| std::env::current_dir().ok()).unwrap_or_default();
    let given = |name: &str| variable_of(Some(again), name);
    let files = Files::of(&directory, command, given);
    // What is asked live is asked where the command would by itself; else all that can be led here is.
    let choice = if again.may_ask() { places::of_live_replay } else { places::of_replay };
    let (places, unled) = choice(given, &files);
    for variable in unled.iter().filter(|unled| unled.is_told()).map(Unled::variable) {
        warn(
            session,
            &format!(
                "{variable} is left as it is, as when a command is recorded: calls that it leads are not answered from the recording"
            ),
        );
    }
    let trusted = if again.may_ask() { proxy::trusted(variable) } else { proxy::nobody() };
    let started = Proxy::start(receiver, places, trusted, calls, answers);
    started.map_err(|error| warn(session, &format!("there is no port to answer at: {error}"))).ok()
}
