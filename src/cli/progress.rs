//! How far a long command is, on a terminal.

use std::time::{Duration, Instant};

use runspan::store::files::FilesReader;
use runspan::store::files::database::{self, Database, DatabaseError, Progress};

use super::{CODE_FAILED, Format, Session, Stop};

/// How wide a bar is.
const WIDTH: u64 = 30;
/// What is done by then needs no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// A bar on a terminal for what takes longer than a moment; anywhere else nothing.
pub struct Bar {
    is_shown: bool,
    is_begun: bool,
    made: Instant,
}

impl Bar {
    /// Makes one that is shown where a person looks.
    pub fn new(session: &Session<'_>) -> Self {
        let is_shown = session.look.is_terminal && session.format == Format::Table;
        Self { is_shown, is_begun: false, made: Instant::now() }
    }

    /// Shows that so much of a work is done.
    pub fn show(&mut self, session: &mut Session<'_>, what: &str, done: u64, of: u64) {
        if !self.is_shown || self.made.elapsed() < PATIENCE {
            return;
        }
        self.is_begun = true;
        let part =
            |whole: u64| (u128::from(done) * u128::from(whole)).checked_div(u128::from(of)).unwrap_or(whole.into());
        let (filled, percent) = (part(WIDTH), part(100));
        let bar: String = (0..u128::from(WIDTH)).map(|place| if place < filled { '█' } else { '░' }).collect();
        // It is no loss where it cannot be shown.
        let _ = write!(session.err, "\r\x1b[K{bar} {percent:>3} % {what}");
    }

    /// Shows how far the index is.
    pub fn show_index(&mut self, session: &mut Session<'_>, progress: Progress) {
        match progress {
            Progress::Runs(reached) => self.show(session, "runs", reached.bytes, reached.of),
            Progress::Steps { done, of } => self.show(session, "steps", done, of),
            Progress::Texts { done, of } => self.show(session, "texts", done, of),
        }
    }

    /// Takes it away.
    pub fn end(&mut self, session: &mut Session<'_>) {
        if std::mem::take(&mut self.is_begun) {
            let _ = write!(session.err, "\r\x1b[K");
        }
    }
}

/// Opens the index of a store with all it has to know of runs and steps.
pub fn open_index(reader: &FilesReader, session: &mut Session<'_>) -> Result<Database, Stop> {
    let mut bar = Bar::new(session);
    let opened = database::whole(reader, database::Depth::Steps, &mut |progress| bar.show_index(session, progress));
    bar.end(session);
    opened.map_err(|error| index_failed(reader, &error))
}

/// Says that the index failed.
pub fn index_failed(reader: &FilesReader, error: &DatabaseError) -> Stop {
    Stop::failed(CODE_FAILED, format!("{}: {error}", reader.layout().root().display()))
        .hint("index.sqlite is derived: `runspan reindex` makes it anew")
}
