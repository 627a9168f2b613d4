//! Answers from a recording in the place of models.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runspan::conventions::names;
use runspan::model::UnixNanos;
use runspan::model::otlp::{Span, Value};
use runspan::model::record::{Record, RecordKind};
use runspan::pipeline::Pipeline;
use runspan::replay::wire::{self, Envelope};
use runspan::replay::{Answer, Failure, Format, Miss, Outcome, Replay, Request, ask};
use serde_json::Value as Json;

/// What is answered to a call that the recording has no answer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnMiss {
    /// An error that says so
    #[default]
    Fail,
    /// The model is asked
    Live,
    /// A text that says so
    Stub,
}

/// Status of an answer to what is not in the recording: one after which clients do not try again.
const NOT_RECORDED: u16 = 400;
/// Its class.
const KIND: &str = "not_recorded";

/// What answers in the place of models.
pub struct Answers {
    pub replay: Arc<Replay>,
    pub on_miss: OnMiss,
    /// The model that is asked in the place of the one that the program names.
    pub model: Option<String>,
    /// Takes secrets out of what is asked, as they were taken out of the recording.
    pipeline: Mutex<Pipeline>,
    given: AtomicU64,
    refused: Mutex<Vec<String>>,
}

/// What becomes of a request.
pub enum Reply {
    /// It is answered.
    Said { status: u16, is_stream: bool, body: String },
    /// It is answered with the beginning of a stream, which the program left so long after its request.
    Begun { body: String, after: Duration },
    /// A model is to be asked, with this. Who does says so when it has answered: [`Replay::went_live`].
    Ask { number: usize, body: Vec<u8> },
}

impl Answers {
    /// Makes it.
    pub fn new(replay: Arc<Replay>, on_miss: OnMiss, model: Option<String>, pipeline: Pipeline) -> Self {
        let pipeline = Mutex::new(pipeline);
        Self { replay, on_miss, model, pipeline, given: AtomicU64::new(0), refused: Mutex::default() }
    }

    /// Takes note of a request that is no call of a model and was refused.
    pub fn refuse(&self, what: String) {
        const MOST: usize = 100;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() < MOST && !refused.contains(&what) {
            refused.push(what);
        }
    }

    /// Returns such requests, each once.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers a call.
    pub fn reply(&self, format: Format, asked: &Json) -> Reply {
        let found = self.replay.find(self.request(format, asked));
        let miss = match found.outcome {
            Ok(Outcome::Answer(answer)) => return self.said(format, asked, &answer),
            Ok(Outcome::Failure(failure)) => return self.failed(format, asked, &failure),
            Ok(Outcome::Left { answer, after }) if is_stream(asked) => {
                let body =
                    self.in_envelope(asked, &answer, |envelope| wire::beginning(format, &answer, envelope).concat());
                return Reply::Begun { body, after };
            }
            Ok(Outcome::Left { .. }) => self.replay.has_only_begun(found.number),
            Err(miss) => miss,
        };
        if miss == Miss::Beyond || self.on_miss == OnMiss::Live {
            return Reply::Ask { number: found.number, body: self.with_model(asked) };
        }
        if self.on_miss == OnMiss::Stub && format != Format::Embeddings {
            return self.said(format, asked, &stub(&miss));
        }
        let message = format!("runspan replay: {miss}; --on-miss says what is done then");
        Reply::Said { status: NOT_RECORDED, is_stream: false, body: wire::error(format, KIND, &message).to_string() }
    }

    /// Reads what is asked: as it is where that was recorded, else without secrets.
    fn request(&self, format: Format, asked: &Json) -> Request {
        let mut span = Span { end_time_unix_nano: 1, ..Span::default() };
        span.set_attr(names::OPERATION, format.operation());
        span.set_attr(names::RELAYED, Value::Bool(true));
        ask::write(format, asked, &mut span);
        let request = Request::of_span(&span);
        if self.replay.knows(&request) {
            return request;
        }
        let record = Record { kind: RecordKind::Ended, resource: Arc::default(), scope: Default::default(), span };
        Request::of_span(&self.pipeline.lock().unwrap_or_else(PoisonError::into_inner).run(record).span)
    }

    fn said(&self, format: Format, asked: &Json, answer: &Answer) -> Reply {
        let is_stream = is_stream(asked);
        let body = self.in_envelope(asked, answer, |envelope| match is_stream {
            true => wire::events(format, answer, envelope).concat(),
            false => wire::whole(format, answer, envelope).to_string(),
        });
        Reply::Said { status: 200, is_stream, body }
    }

    /// Gives a failure as it was: as a stream, where one was answered that ended in it and one is asked for.
    fn failed(&self, format: Format, asked: &Json, failure: &Failure) -> Reply {
        let is_stream = is_stream(asked);
        let written = failure.answered.as_ref().map(|answer| {
            self.in_envelope(asked, answer, |envelope| match is_stream {
                true => Some(wire::failing(format, failure, answer, envelope).concat()),
                false => wire::failed(failure, answer, envelope).map(|answer| answer.to_string()),
            })
        });
        match written {
            Some(Some(body)) => Reply::Said { status: 200, is_stream, body },
            // It was a stream, and is none now.
            Some(None) => {
                let mut failure = failure.clone();
                failure.status = None;
                Self::refusal(format, &failure)
            }
            None => Self::refusal(format, failure),
        }
    }

    fn refusal(format: Format, failure: &Failure) -> Reply {
        let (status, body) = wire::failure(format, failure);
        Reply::Said { status, is_stream: false, body: body.to_string() }
    }

    fn in_envelope<T>(&self, asked: &Json, answer: &Answer, write: impl FnOnce(&Envelope<'_>) -> T) -> T {
        // Each has an id of its own: the same answer given twice is two answers.
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}{number}-{}", names::REPLAYED_ANSWER, answer.original_id().unwrap_or("answer"));
        let model = answer.model.as_deref().or_else(|| asked.get("model")?.as_str()).unwrap_or_default();
        let envelope = Envelope::of(asked, &id, model, UnixNanos::now().0 / 1_000_000_000);
        write(&envelope.at(answer.service_tier.as_deref()))
    }

    fn with_model(&self, asked: &Json) -> Vec<u8> {
        let mut asked = asked.clone();
        if let (Some(model), Some(asked)) = (&self.model, asked.as_object_mut()) {
            asked.insert("model".to_owned(), model.as_str().into());
        }
        asked.to_string().into_bytes()
    }
}

fn is_stream(asked: &Json) -> bool {
    asked.get("stream") == Some(&Json::Bool(true))
}

/// An answer that says that there is none.
fn stub(miss: &Miss) -> Answer {
    Answer::of_text("stub", format!("[runspan replay: {miss}]"))
}
