//! A run's events as they happened, one after the other in time, with what the model saw at each call.

mod pace;
mod screen;

use std::ops::Range;
use std::time::Duration;

use runspan::model::time::parse_duration;
use runspan::model::{Event, RunId, RunSummary, UnixNanos};
use runspan::store::RunReader;

use crate::cli::{CODE_NO, CODE_USE, Done, Session, Stop};
use pace::{Goes, Pace, Speed};
use screen::Screen;

/// How a run is shown again.
#[derive(Debug, clap::Args)]
pub struct Play {
    /// How many times as fast as it happened: 1, 10, 0.5, max [default: 1 on a terminal, else max]
    #[arg(long, value_name = "SPEED", conflicts_with = "step")]
    speed: Option<Speed>,
    /// Wait for a key before each next event; without a terminal, for a line
    #[arg(long)]
    step: bool,
    /// Begin with this: a step id, a number of the log (seq), or the time since the run began, as in 1.5s
    #[arg(long, value_name = "PLACE")]
    from: Option<String>,
    /// End with this
    #[arg(long, value_name = "PLACE")]
    to: Option<String>,
    /// Let no pause be longer than this: 500ms, 2s, 1m
    #[arg(long, value_name = "TIME", value_parser = length)]
    max_pause: Option<Duration>,
    /// Show all that the model saw at each call, and not only what is new in it
    #[arg(long)]
    all: bool,
}

fn length(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a time such as 500ms, 2s or 1m".to_owned())
}

/// Shows a run's events.
pub fn run(args: &Play, reader: &impl RunReader, run: RunId, session: &mut Session<'_>) -> Done {
    let summary = reader.get_run(run)?;
    let log = reader.get_events(run, 0)?;
    let time = RunTime::of_run(&summary, &log);
    let log = time.ordered(log);
    if log.is_empty() {
        return Err(Stop::failed(CODE_NO, format!("run {run} has no events")));
    }
    let part = Places { log: &log, time, run }.between(args.from.as_deref(), args.to.as_deref())?;
    let mut pace = Pace::new(args, session)?;
    let mut screen = Screen::new(&log, time, args.all);
    let mut before: Option<UnixNanos> = None;
    for event in &log[part] {
        let at = time.of(event);
        if let Some(before) = before.replace(at) {
            let gap = Duration::from_nanos(at.0.saturating_sub(before.0));
            if pace.wait(gap, session)? == Goes::NoFurther {
                return Ok(());
            }
        }
        screen.show(event, session)?;
    }
    Ok(())
}

/// When a run was.
#[derive(Clone, Copy, Debug)]
struct RunTime {
    start: UnixNanos,
    /// `None`: it is not over.
    end: Option<UnixNanos>,
}

impl RunTime {
    /// Returns when a run was; its summary says so in whole milliseconds.
    fn of_run(summary: &RunSummary, log: &[Event]) -> Self {
        let not_before = log.iter().map(|event| event.timestamp).filter(|at| *at >= summary.started_at);
        Self {
            start: not_before.min().unwrap_or(summary.started_at),
            end: summary.completed_at.map(|end| UnixNanos(end.0.saturating_add(999_999))),
        }
    }

    /// Returns when an event happened. By a clock that is wrong it was before the run or after it: that is its start, or end.
    fn of(self, event: &Event) -> UnixNanos {
        event.timestamp.min(self.end.unwrap_or(event.timestamp)).max(self.start)
    }

    /// Puts events in the order in which they happened: a step may be told before the one around it.
    fn ordered(self, mut log: Vec<Event>) -> Vec<Event> {
        log.sort_by_key(|event| self.of(event));
        log
    }
}

/// A run's log, in which places have names.
struct Places<'a> {
    log: &'a [Event],
    time: RunTime,
    run: RunId,
}

impl Places<'_> {
    /// Returns the part from one place to another, with both.
    fn between(&self, from: Option<&str>, to: Option<&str>) -> Result<Range<usize>, Stop> {
        let begin = from.map(|from| self.find("--from", from)).transpose()?.map_or(0, |place| place.start);
        let end = to.map(|to| self.find("--to", to)).transpose()?.map_or(self.log.len(), |place| place.end);
        if begin >= end {
            return Err(Stop::failed(CODE_USE, "nothing of the run is between --from and --to"));
        }
        Ok(begin..end)
    }

    /// Returns where a place begins and ends: a step, else an event by its number, else a moment.
    fn find(&self, flag: &str, place: &str) -> Result<Range<usize>, Stop> {
        let is_of_step = |event: &Event| event.step_id.as_deref() == Some(place);
        let of_step = self.log.iter().position(is_of_step).zip(self.log.iter().rposition(is_of_step));
        let by_number = |seq: u64| self.log.iter().position(|event| event.seq == seq).map(|at| (at, at));
        if let Some((begin, last)) = of_step.or_else(|| by_number(place.parse().ok()?)) {
            return Ok(begin..last + 1);
        }
        if let Some(offset) = parse_duration(place.strip_prefix('+').unwrap_or(place)) {
            let nanos = u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX);
            let moment = UnixNanos(self.time.start.0.saturating_add(nanos));
            let begin = self.log.partition_point(|event| self.time.of(event) < moment);
            return Ok(begin..self.log.partition_point(|event| self.time.of(event) <= moment));
        }
        let what = format!("{flag} {place:?} is no step, number or time of run {}", self.run);
        Err(Stop::failed(CODE_NO, what).hint(format!("runspan get {} --events shows all of them", self.run)))
    }
}

#[cfg(test)]
mod tests {
    use runspan::model::event::Output;
    use runspan::model::{EventBody, EventId};

    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_time_within_the_run() {
        let event = |seq: u64, at: u64| Event {
            seq,
            event_id: EventId::from_parts(at, [0; 10]),
            parent_event_id: None,
            timestamp: UnixNanos(at),
            step_id: None,
            body: EventBody::Output(Output { data: seq.into() }),
        };
        let told = [event(0, 100), event(1, 150), event(2, 110), event(3, 0), event(4, u64::MAX), event(5, 150)];
        let order = |time: RunTime| {
            let events = time.ordered(told.to_vec());
            events.iter().map(|event| (event.seq, time.of(event).0)).collect::<Vec<_>>()
        };
        let over = RunTime { start: UnixNanos(100), end: Some(UnixNanos(200)) };
        assert_eq!(order(over), [(0, 100), (3, 100), (2, 110), (1, 150), (5, 150), (4, 200)]);
        assert_eq!(order(RunTime { end: None, ..over })[5], (4, u64::MAX));
    }
}
