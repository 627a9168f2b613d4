//! Artifacts: files kept with a run.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::Level;

use super::Step;
use super::spans::TARGET;
use super::tell::Tell;
use crate::conventions::names;
use crate::error::with_causes;
use crate::model::run::{ArtifactContent, ArtifactInfo};
use crate::model::{RunId, RunKind};
use crate::pipeline::Content;
use crate::sources::layer::recorder_of;
use crate::sources::recorder::{Recorder, Store};
use crate::store::StoreError;
use crate::store::files::artifacts;
use crate::store::files::layout::Layout;
use crate::telemetry::warn;

/// How long the caller waits for the run's folder. It appears within some 30 ms of the run's start, and a folder made
/// here before would show for that long as a run without metadata.
const FOLDER_WAIT: Duration = Duration::from_secs(1);

/// Where an artifact's content comes from: a path, or bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ArtifactSource<'a> {
    /// A file, copied.
    File(PathBuf),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Bytes that are given away.
    Owned(Vec<u8>),
}

/// Text is a path; bytes of a text are `text.as_bytes()`.
impl From<&str> for ArtifactSource<'_> {
    fn from(path: &str) -> Self {
        Self::File(PathBuf::from(path))
    }
}

impl From<String> for ArtifactSource<'_> {
    fn from(path: String) -> Self {
        Self::File(PathBuf::from(path))
    }
}

impl From<Vec<u8>> for ArtifactSource<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<&Path> for ArtifactSource<'_> {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<PathBuf> for ArtifactSource<'_> {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&PathBuf> for ArtifactSource<'_> {
    fn from(path: &PathBuf) -> Self {
        Self::File(path.clone())
    }
}

impl<'a> From<&'a [u8]> for ArtifactSource<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for ArtifactSource<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for ArtifactSource<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// Keeps an artifact and tells it to the run.
pub(super) fn keep(
    step: &Step,
    run: Option<RunId>,
    kind: RunKind,
    source: ArtifactSource<'_>,
    name: &str,
    media_type: &str,
) -> Option<ArtifactInfo> {
    let recorder = recorder_of(&step.span());
    let store = recorder.as_ref().and_then(|recorder| Some((recorder, recorder.store()?)));
    let Some(((recorder, store), run)) = store.zip(run) else {
        warn(format_args!("artifacts are not kept: this program is not recorded"));
        return None;
    };
    match copy(recorder, store, run, kind, source, name, media_type) {
        Ok(kept) => {
            tell(step, &kept);
            Some(kept)
        }
        Err(error) => {
            warn(format_args!("an artifact of run {run} is not kept: {}", with_causes(&error)));
            None
        }
    }
}

fn copy(
    recorder: &Recorder,
    store: &Store,
    run: RunId,
    kind: RunKind,
    source: ArtifactSource<'_>,
    name: &str,
    media_type: &str,
) -> Result<ArtifactInfo, StoreError> {
    let media_type = (!media_type.is_empty()).then_some(media_type);
    let (mut file, mut bytes, owned);
    let content: &mut dyn Read = match source {
        ArtifactSource::File(path) => {
            file = open_regular(&path).map_err(StoreError::io("read", path))?;
            &mut file
        }
        ArtifactSource::Bytes(given) => {
            bytes = given;
            &mut bytes
        }
        ArtifactSource::Owned(given) => {
            owned = given;
            bytes = owned.as_slice();
            &mut bytes
        }
    };
    if store.scrubber.content() == Content::None {
        return artifacts::describe(name, media_type, content, &store.scrubber);
    }
    let folder = folder(recorder, &store.layout, run, kind)?;
    artifacts::keep(store.layout.fs(), &folder, name, media_type, content, &store.scrubber, store.durable)
}

/// Opens a file for reading; a pipe would block for as long as nobody writes to it.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Finds the run's folder; names the one that it will have where the worker does not get to making it.
fn folder(recorder: &Recorder, layout: &Layout, run: RunId, kind: RunKind) -> Result<PathBuf, StoreError> {
    let waits_since = Instant::now();
    loop {
        if let Some(dir) = layout.find_run(run)? {
            return Ok(dir);
        }
        if waits_since.elapsed() > FOLDER_WAIT {
            return Ok(layout.run(kind, run));
        }
        recorder.wake();
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn tell(step: &Step, kept: &ArtifactInfo) {
    let bytes = i64::try_from(kept.bytes).unwrap_or(i64::MAX);
    let (name, media_type, sha256) = (kept.name.as_str(), kept.media_type.as_deref(), kept.sha256.as_str());
    let content = kept.content.map(ArtifactContent::as_str);
    tracing::event!(
        target: TARGET,
        parent: step.span_id(),
        Level::INFO,
        event.name = names::EVENT_ARTIFACT,
        name,
        media_type,
        bytes,
        sha256,
        runspan.content = content,
    );
}
