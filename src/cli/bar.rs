//! How far a long command is, on a terminal.

use std::time::{Duration, Instant};

use super::{Format, Session};

const WIDTH: u64 = 30;
/// What is done by then needs no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// A bar on a terminal for what takes longer than a moment; anywhere else nothing.
pub struct Bar {
    is_shown: bool,
    begun: Instant,
    percent: Option<u64>,
}

impl Bar {
    /// Makes a bar that is shown where somebody looks.
    pub fn new(session: &Session<'_>) -> Self {
        let is_shown = session.look.is_terminal && session.format == Format::Table;
        Self { is_shown, begun: Instant::now(), percent: None }
    }

    /// Shows how much of all there is is done.
    pub fn show(&mut self, session: &mut Session<'_>, done: u64, of: u64) {
        let part = |whole: u64| (done.saturating_mul(whole)).checked_div(of).unwrap_or(whole);
        let percent = part(100);
        if !self.is_shown || self.percent == Some(percent) || self.begun.elapsed() < PATIENCE {
            return;
        }
        self.percent = Some(percent);
        let filled = part(WIDTH);
        let bar: String = (0..WIDTH).map(|place| if place < filled { '█' } else { '░' }).collect();
        // It is no loss where it cannot be shown.
        let _ = write!(session.err, "\r{bar} {percent:>3} %");
    }

    /// Clears its line.
    pub fn end(&self, session: &mut Session<'_>) {
        if self.percent.is_some() {
            let _ = write!(session.err, "\r\x1b[K");
        }
    }
}
