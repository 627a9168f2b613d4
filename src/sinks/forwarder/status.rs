//! How things stand for the targets of a store, and dead letters once more. What the command line shows.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use super::ledger::{Counts, Ledger, State, Trouble};
use super::letters::{Found, Letter};
use super::place::Held;
use super::sampler::Glance;
use super::{
    BATCH_BYTES, each_once, is_sent, label, ledger, plain_name, protocol_word, reader_name, reader_names, signal_of,
    unnumbered,
};
use crate::Error;
use crate::config::Settings;
use crate::journal::{JournalReader, list_processes};
use crate::model::{RunId, UnixNanos};
use crate::sinks::forward::{Protocol, Sender, Sent, Signal, Target};
use crate::store::StoreError;

/// The name of a dead letter.
pub type LetterId = RunId;

/// What waits for a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Processes, alive or dead, in whose journals something waits.
    pub processes: u64,
    /// Records behind the target's places in the journals: starts and events too.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Ended spans among them that are not done with.
    pub spans: u64,
    /// When the oldest of these spans ended.
    pub oldest: Option<UnixNanos>,
}

/// The dead letters of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeadLetters {
    /// How many there are.
    pub letters: u64,
    /// Spans in them.
    pub spans: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Those that cannot be read.
    pub damaged: u64,
    /// Letters and spans by what the peer said.
    pub reasons: Vec<ReasonCount>,
    /// Their names and what they are about, oldest first.
    pub list: Vec<LetterLine>,
}

/// How often a peer gave a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReasonCount {
    /// What the peer said.
    pub reason: String,
    /// In so many letters.
    pub letters: u64,
    /// With so many spans.
    pub spans: u64,
}

/// One dead letter, without what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LetterLine {
    /// Its name.
    pub id: LetterId,
    /// When it was refused; null where it cannot be read.
    pub time: Option<UnixNanos>,
    /// How many spans it has.
    pub spans: u64,
    /// What the peer said, or why the letter cannot be read.
    pub reason: String,
}

/// How things stand for one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetStatus {
    /// The endpoint without credentials and query.
    pub target: String,
    /// `traces` or `metrics`: what it is sent. Of metrics, all that is counted in spans is counted in requests.
    pub signal: &'static str,
    /// The name of its places in the journals and of its folder in the store.
    pub reader: String,
    /// `grpc`, `http/protobuf` or `http/json`.
    pub protocol: String,
    /// What is not done with yet.
    pub waiting: Waiting,
    /// What became of the rest.
    #[serde(flatten)]
    pub counts: Counts,
    /// What it refused for good.
    pub dead_letters: DeadLetters,
    /// What went wrong last, if it took nothing since.
    pub last_trouble: Option<Trouble>,
}

impl TargetStatus {
    /// Returns what the target is called among `all`: as it is shown, and the digits of its reader's name where that
    /// alone would be several.
    pub fn label(&self, all: &[Self]) -> String {
        label(&self.target, &self.reader, all.iter().map(|other| (other.target.as_str(), other.reader.as_str())))
    }
}

/// Tells how things stand for every target that processes of this store have forwarded to. Nothing is changed.
///
/// # Errors
///
/// What the file system says.
pub fn targets(store: &Path) -> Result<Vec<TargetStatus>, Error> {
    let waiting = waiting(&store.join("journal"))?;
    let mut found = Vec::new();
    for reader in ledger::names(store).map_err(io_error(store))? {
        let folder = ledger::folder(store, &reader);
        let Some(state) = ledger::read(&folder).map_err(io_error(&folder))? else { continue };
        found.push(TargetStatus {
            waiting: waiting.get(&reader).cloned().unwrap_or_default(),
            dead_letters: dead_letters(store, &reader)?,
            target: state.target,
            protocol: state.protocol,
            counts: state.counts,
            signal: signal_of(&reader).as_str(),
            last_trouble: state.last_trouble,
            reader,
        });
    }
    found.sort_by(|a, b| (&a.target, &a.reader).cmp(&(&b.target, &b.reader)));
    Ok(found)
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Store(StoreError::io("read", path)(error))
}

/// Counts what waits in all journals, for each reader that is a target.
fn waiting(journal_dir: &Path) -> Result<HashMap<String, Waiting>, Error> {
    let mut all: HashMap<String, Waiting> = HashMap::new();
    for process in list_processes(journal_dir)? {
        let Ok(id) = process.name.parse() else { continue };
        let readers = crate::recovery::readers_of(journal_dir, id);
        for reader in readers.into_iter().filter(|reader| reader.starts_with("forward-")) {
            // It may be gone by now, since all was delivered.
            if let Ok(found) = waiting_in(journal_dir, &process.name, &reader)
                && found.records > 0
            {
                let sum = all.entry(reader).or_default();
                sum.processes += 1;
                sum.records += found.records;
                sum.bytes += found.bytes;
                sum.spans += found.spans;
                sum.oldest = [sum.oldest, found.oldest].into_iter().flatten().min();
            }
        }
    }
    Ok(all)
}

fn waiting_in(journal_dir: &Path, process: &str, reader: &str) -> Result<Waiting, Error> {
    let held = Held::read(&Held::path(journal_dir, process, reader));
    let mut journal = JournalReader::open_read_only(journal_dir, process, reader)?;
    let mut waiting = Waiting::default();
    let signal = signal_of(reader);
    loop {
        let batch = journal.next_batch(4 * BATCH_BYTES)?;
        if batch.is_empty() {
            return Ok(waiting);
        }
        for frame in batch.frames() {
            waiting.records += 1;
            waiting.bytes += frame.payload.len() as u64;
            if !is_sent(frame.kind, signal) {
                continue;
            }
            if signal == Signal::Metrics {
                waiting.spans += 1;
                continue;
            }
            let span = Glance::of(frame.payload);
            if span.is_some_and(|span| held.is_done(frame.seq, span.trace)) {
                continue;
            }
            waiting.spans += 1;
            let ended = span.map(|span| UnixNanos(span.end)).filter(|end| end.0 > 0);
            waiting.oldest = [waiting.oldest, ended].into_iter().flatten().min();
        }
    }
}

fn dead_letters(store: &Path, reader: &str) -> Result<DeadLetters, Error> {
    let letters = ledger::letters(store, reader);
    let (mut all, mut reasons) = (DeadLetters::default(), BTreeMap::<String, (u64, u64)>::new());
    for Found { id, bytes, letter } in letters.list().map_err(io_error(letters.dir()))? {
        all.letters += 1;
        all.bytes += bytes;
        all.list.push(match letter {
            Ok(Letter { about, spans, .. }) => {
                all.spans += spans;
                let of_reason = reasons.entry(about.reason.clone()).or_default();
                *of_reason = (of_reason.0 + 1, of_reason.1 + spans);
                LetterLine { id, time: Some(about.time), spans, reason: about.reason }
            }
            Err(why) => {
                all.damaged += 1;
                LetterLine { id, time: None, spans: 0, reason: why }
            }
        });
    }
    all.reasons =
        reasons.into_iter().map(|(reason, (letters, spans))| ReasonCount { reason, letters, spans }).collect();
    Ok(all)
}

/// Which dead letters are to be sent again.
#[derive(Clone, Debug, Default)]
pub struct Wanted<'a> {
    /// Only those of this target, an URL as for [`Builder::forward`](crate::Builder::forward). Its credentials are
    /// used; without it they come from the environment, as do query and headers, since the store has none.
    pub target: Option<&'a str>,
    /// Only the letter whose name begins like this.
    pub letter: Option<&'a str>,
    /// The targets of a configuration file, with all that belongs to them: used where the environment does not name
    /// who refused a letter.
    pub configured: &'a [Target],
}

/// What became of a dead letter that was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resending {
    /// The peer has it, and the letter is gone.
    Sent,
    /// The peer has it but for some spans, and the letter is gone.
    Partly,
    /// The peer still does not want it; the letter stays.
    Refused,
    /// The peer could not be asked, or it is not known how; the letter stays, and further ones for this target were not
    /// tried.
    Failed,
}

/// A dead letter that was sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resent {
    /// The letter.
    pub id: LetterId,
    /// Where it was sent.
    pub target: String,
    /// The name of the target's places, which tells those of one address apart.
    pub reader: String,
    /// What the target is called among all of the store, as by [`TargetStatus::label`].
    #[serde(skip)]
    pub label: String,
    /// How many spans it has.
    pub spans: u64,
    /// What became of it.
    pub result: Resending,
    /// What the peer says; empty if nothing.
    pub message: String,
}

/// Why dead letters could not be sent again.
#[derive(Debug)]
#[non_exhaustive]
pub enum RetryError {
    /// The store cannot be read, or a target not be used.
    Failed(Error),
    /// The URL is no target.
    NotATarget(String),
    /// Several letters begin like this.
    Ambiguous(Vec<LetterId>),
}

impl fmt::Display for RetryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => error.fmt(f),
            Self::NotATarget(why) => f.write_str(why),
            Self::Ambiguous(ids) => write!(f, "{} letters begin like this", ids.len()),
        }
    }
}

impl std::error::Error for RetryError {}

impl From<Error> for RetryError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Sends dead letters once more, now, each for at most its target's timeout, and tells `told` of each.
///
/// What the peer takes is removed from the store.
///
/// # Errors
///
/// See [`RetryError`]. What peers say is no error, but told.
pub fn retry(store: &Path, wanted: &Wanted<'_>, mut told: impl FnMut(&Resent)) -> Result<(), RetryError> {
    let given = wanted.target.map(|url| {
        let why = |error| RetryError::NotATarget(format!("{}: {error}", Target::shown_url(url)));
        Target::from_url(url).map_err(why)
    });
    let given = given.transpose()?;
    let mut states = Vec::new();
    for reader in ledger::names(store).map_err(io_error(store))? {
        let folder = ledger::folder(store, &reader);
        if let Some(state) = ledger::read(&folder).map_err(io_error(&folder))? {
            let as_shown = wanted.target.and_then(|target| named_as_shown(target, &state));
            let given = as_shown.as_ref().or(given.as_ref()).map(|given| given.for_signal(signal_of(&reader)));
            states.push((reader, state, given));
        }
    }
    let shown: Vec<(String, String)> =
        states.iter().map(|(reader, state, _)| (state.target.clone(), reader.clone())).collect();
    let mut told = |resent: Resent| {
        let all = shown.iter().map(|(target, reader)| (target.as_str(), reader.as_str()));
        told(&Resent { label: label(&resent.target, &resent.reader, all), ..resent });
    };
    let is_named = |reader: &str, given: &Target| reader_name(given) == unnumbered(reader);
    let is_known = states.iter().any(|(reader, _, given)| given.as_ref().is_some_and(|given| is_named(reader, given)));
    let mut chosen = Vec::new();
    for (reader, state, given) in states {
        // Credentials in a query give the same endpoint another name. Who names a letter means it.
        let may_be_shown = !is_known || wanted.letter.is_some();
        let is_given = |given: &Target| is_named(&reader, given) || (may_be_shown && given.shown() == state.target);
        if given.as_ref().is_some_and(|given| !is_given(given)) {
            continue;
        }
        let letters = ledger::letters(store, &reader);
        let begins =
            |id: &LetterId| wanted.letter.is_none_or(|wanted| id.to_string().starts_with(&wanted.to_ascii_uppercase()));
        let found: Vec<Found> = letters.list().map_err(io_error(letters.dir()))?.filter(|f| begins(&f.id)).collect();
        if !found.is_empty() {
            chosen.push((reader, state, given, found));
        }
    }
    let ids: Vec<LetterId> = chosen.iter().flat_map(|(_, _, _, found)| found.iter().map(|found| found.id)).collect();
    if wanted.letter.is_some() && ids.len() > 1 {
        return Err(RetryError::Ambiguous(ids));
    }
    let of_signal = |signal| chosen.iter().filter(|(reader, ..)| signal_of(reader) == signal).count();
    if let Some(given) = given.filter(|_| of_signal(Signal::Traces) > 1 || of_signal(Signal::Metrics) > 1) {
        let why = format!(
            "several targets are {} and refused something; name one with its query and headers, or a dead letter by its \
             id as well",
            given.shown()
        );
        return Err(RetryError::NotATarget(why));
    }
    for (reader, state, given, found) in chosen {
        // Without the header of its tenant it would be somebody else's.
        let given = given.filter(|given| given.has_tenant() || !state.has_tenant);
        match given.or_else(|| known_target(&reader, &state, wanted.configured)) {
            Some(target) => resend(store, &reader, target, found, &mut told)?,
            None => found.into_iter().take(1).for_each(|found| told(not_known(&found, &state.target, &reader))),
        }
    }
    Ok(())
}

/// Returns a target over gRPC that is named as it is shown: by the scheme of the connection.
fn named_as_shown(target: &str, state: &State) -> Option<Target> {
    let address = target.split(['?', '#']).next().unwrap_or_default();
    let is_shown = address.trim_end_matches('/') == state.target && state.protocol == protocol_word(Protocol::Grpc);
    if !is_shown || !target.starts_with("http") {
        return None;
    }
    Target::from_url(&target.replacen("http", "grpc", 1)).ok()
}

/// Says of the first letter for a target that there is more to its address than the store has.
fn not_known(found: &Found, shown: &str, reader: &str) -> Resent {
    let message = "its query or headers are not in the store, nor does the environment or the configuration name it: \
                   give all of its URL by --target";
    Resent {
        id: found.id,
        target: shown.to_owned(),
        reader: reader.to_owned(),
        label: String::new(),
        spans: found.letter.as_ref().map_or(0, |letter| letter.spans),
        result: Resending::Failed,
        message: message.to_owned(),
    }
}

/// Returns a target as the environment or `configured` has it, with its credentials, else as the store has it, where
/// that is all.
fn known_target(reader: &str, state: &State, configured: &[Target]) -> Option<Target> {
    let (of_env, _) = super::configured(&Settings::from_env().0).unwrap_or_default();
    // As a server has it.
    let with_file = configured.iter().cloned().chain(Target::from_env(Signal::Traces).0).collect();
    let signal = signal_of(reader);
    for targets in [of_env, each_once(with_file).0] {
        let mut targets: Vec<Target> = targets.iter().map(|target| target.for_signal(signal)).collect();
        if let Some(place) = reader_names(&targets).iter().position(|name| name == reader) {
            return Some(targets.swap_remove(place));
        }
        // One of several of this address: which, nobody knows.
        if targets.iter().any(|target| target.shown() == state.target) {
            return None;
        }
    }
    let (shown, protocol) = (&state.target, &state.protocol);
    let is_grpc = protocol == protocol_word(Protocol::Grpc);
    let url = if is_grpc { shown.replacen("http", "grpc", 1) } else { shown.clone() };
    let mut target = Target::from_url_for(signal, &url).ok()?;
    if protocol == protocol_word(Protocol::HttpJson) {
        target.protocol = Protocol::HttpJson;
    }
    // A query would have given it another name.
    (plain_name(&target) == reader && !state.has_tenant).then_some(target)
}

fn resend(
    store: &Path,
    reader: &str,
    target: Target,
    found: Vec<Found>,
    told: &mut impl FnMut(Resent),
) -> Result<(), RetryError> {
    let (shown, protocol) = (target.shown().to_owned(), protocol_word(target.protocol));
    let (letters, timeout) = (ledger::letters(store, reader), target.timeout);
    let mut ledger = Ledger::new(store, reader, &shown, protocol).of_tenant(target.has_tenant());
    let mut sender = Sender::new(target).map_err(|error| RetryError::NotATarget(error.to_string()))?;
    for Found { id, letter, .. } in found {
        let (target, reader) = (shown.clone(), reader.to_owned());
        let answer =
            |spans, result, message| Resent { id, target, reader, label: String::new(), spans, result, message };
        let letter = match letter {
            Ok(letter) => letter,
            Err(why) => {
                told(answer(0, Resending::Refused, format!("the letter cannot be read: {why}")));
                continue;
            }
        };
        let spans = letter.spans;
        let resent = match sender.send(letter.request, spans, Instant::now() + timeout) {
            Sent::Accepted => answer(spans, Resending::Sent, String::new()),
            Sent::Partial { rejected: 0, message } => answer(spans, Resending::Sent, message),
            Sent::Partial { rejected, message } => {
                ledger.count(&Counts { resent: spans - rejected.min(spans), ..Counts::default() });
                answer(spans, Resending::Partly, format!("{rejected} rejected: {message}"))
            }
            Sent::Later { reason, .. } => answer(spans, Resending::Failed, reason),
            Sent::TooLarge { reason } | Sent::Refused { reason, .. } => answer(spans, Resending::Refused, reason),
        };
        match resent.result {
            Resending::Sent => ledger.count(&Counts { resent: spans, ..Counts::default() }),
            Resending::Partly | Resending::Refused | Resending::Failed => {}
        }
        if matches!(resent.result, Resending::Sent | Resending::Partly) {
            letters.remove(id).map_err(|error| Error::Store(StoreError::io("remove", letters.dir())(error)))?;
            ledger.write().map_err(|error| Error::Store(StoreError::io("write", letters.dir())(error)))?;
        }
        let is_failed = resent.result == Resending::Failed;
        told(resent);
        if is_failed {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_over_grpc_is_found_by_the_name_that_is_shown() {
        let state = |protocol: Protocol| -> State {
            let told = serde_json::json!({"target": "https://a:4317", "protocol": protocol_word(protocol)});
            serde_json::from_value(told).unwrap()
        };
        let named = |target: &str, protocol| named_as_shown(target, &state(protocol)).map(|target| target.protocol);
        assert_eq!(named("https://a:4317", Protocol::Grpc), Some(Protocol::Grpc));
        assert_eq!(named("https://a:4317/#header.x-tenant=a", Protocol::Grpc), Some(Protocol::Grpc));
        assert_eq!(named("grpcs://a:4317", Protocol::Grpc), None, "which needs nobody");
        assert_eq!(named("https://b:4317", Protocol::Grpc), None);
        assert_eq!(named("https://a:4317", Protocol::HttpProtobuf), None);
    }
}
