//! Two processes that are told of the same runs at the same time, as a server and an import are of one trace.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const A: RunId = RunId([0xa; 16]);
const B: RunId = RunId([0xb; 16]);
/// So many runs both are told of, and so many events each has of one.
const TOLD: u8 = 4;
const EACH: u64 = 3;

/// One of the processes, which begins anew where it was overtaken.
struct Teller {
    process: RunId,
    writer: FilesWriter,
    /// The events that the store had of a run when it was looked at last; `None` within where the run was not there.
    looked: BTreeMap<u8, Option<Vec<Event>>>,
    /// The runs that it has written since, of which some may wait for their pack.
    written: BTreeMap<u8, u64>,
    done: BTreeMap<u8, u64>,
    beaten: u32,
}

impl Teller {
    fn new(fs: &FaultyFs, process: RunId) -> Self {
        let writer = FilesWriter::new(layout(fs), process, false);
        let writer = if process == A { writer.with_packs_of_any() } else { writer.with_packs() };
        let (looked, written, done) = Default::default();
        Self { process, writer, looked, written, done, beaten: 0 }
    }

    /// The event of that number which this one has to tell of a run.
    fn event(&self, run: u8, nth: u64, seq: u64) -> Event {
        let mut event = events(run, 1).remove(0);
        (event.event_id.0[13], event.event_id.0[14], event.event_id.0[15]) = (self.process.0[0], nth as u8, 1);
        Event { seq, ..event }
    }

    fn look(&mut self, run: u8) {
        match self.writer.take_up(run_id(run)) {
            Ok(found) => drop(self.looked.insert(run, found)),
            Err(error) => self.failed(&error),
        }
    }

    /// Tells one event more of a run, by what it saw of it.
    fn tell(&mut self, run: u8) {
        let nth = self.written.get(&run).or_else(|| self.done.get(&run)).copied().unwrap_or(0);
        let Some(found) = self.looked.get(&run).cloned().filter(|_| nth < EACH) else { return };
        let (is_new, mut there) = (found.is_none(), found.unwrap_or_default());
        let event = self.event(run, nth, there.len() as u64);
        there.push(event.clone());
        // The last one is under way, and has a folder at once.
        let status = if run == TOLD - 1 { RunStatus::Running } else { RunStatus::Success };
        let summary = RunSummary { events: there.len() as u64, status, ..summary(run) };
        let told = if is_new {
            self.writer.create_whole(&summary, &mut there.clone())
        } else {
            self.writer.append_events(run_id(run), &[event])
        };
        match told.and_then(|()| self.writer.update_run(&summary)) {
            Ok(()) => {
                self.written.insert(run, nth + 1);
                self.looked.insert(run, Some(there));
            }
            Err(error) => self.failed(&error),
        }
    }

    fn write(&mut self, all: bool) {
        match self.writer.write_held(all) {
            Ok(true) => self.done.append(&mut self.written),
            Ok(false) => {}
            Err(error) => self.failed(&error),
        }
    }

    fn release(&mut self, run: u8) {
        if self.looked.remove(&run).is_some() {
            self.writer.release_run(run_id(run));
        }
    }

    /// What is not known to be written is told anew, after another look.
    fn failed(&mut self, error: &StoreError) {
        assert!(error.is_overtaken(), "{}", crate::error::with_causes(error));
        self.beaten += 1;
        for run in 0..TOLD {
            self.looked.remove(&run);
        }
        self.written.clear();
        for run in 0..TOLD {
            let Ok(Some(there)) = self.writer.look_at(run_id(run)) else { continue };
            // An event that is there has been told.
            let own = there.iter().filter(|event| event.event_id.0[13] == self.process.0[0]).count() as u64;
            self.written.insert(run, own);
        }
    }
}

fn act(teller: &mut Teller, what: u8, run: u8) {
    match what {
        0..=2 => teller.look(run),
        3..=6 => teller.tell(run),
        7 => teller.write(false),
        8 => teller.write(true),
        _ => teller.release(run),
    }
}

/// Both go on by turns until all is told.
fn told_by_two(fs: &FaultyFs, acts: &[(bool, u8, u8)]) -> u32 {
    layout(fs).open_or_create().unwrap();
    let (mut a, mut b) = (Teller::new(fs, A), Teller::new(fs, B));
    for (is_a, what, run) in acts {
        act(if *is_a { &mut a } else { &mut b }, *what, *run);
    }
    let reader = FilesReader::of(layout(fs)).unwrap();
    let is_told = |run: u8| reader.get_events(run_id(run), 0).is_ok_and(|there| there.len() as u64 == 2 * EACH);
    for _ in 0..40 {
        if (0..TOLD).all(is_told) {
            break;
        }
        for teller in [&mut a, &mut b] {
            for run in 0..TOLD {
                teller.look(run);
                (0..EACH).for_each(|_| teller.tell(run));
                teller.write(true);
                teller.release(run);
            }
        }
    }
    for run in 0..TOLD {
        let there = reader.get_events(run_id(run), 0).unwrap();
        let seqs: Vec<u64> = there.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (0..2 * EACH).collect::<Vec<_>>(), "run {run}");
        for teller in [&a, &b] {
            for nth in 0..EACH {
                let of = |event: &&Event| event.event_id == teller.event(run, nth, 0).event_id;
                assert_eq!(there.iter().filter(of).count(), 1, "event {nth} of {} in run {run}", teller.process);
            }
        }
    }
    assert_eq!(problems(fs), [""; 0]);
    a.beaten + b.beaten
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever comes between the look and the write of one, no run has two names, or the lines of both at one place, and none is lost.
    #[test]
    fn runs_that_two_are_told_of_have_each_line_once(acts in prop::collection::vec((any::<bool>(), 0..10u8, 0..TOLD), 0..80)) {
        told_by_two(&FaultyFs::new(1), &acts);
    }
}

/// By hand, of two that want the same: one looks, and the other makes the run, or goes on with it, before it writes.
#[test]
fn who_was_overtaken_is_told_so_and_nothing_of_it_is_written() {
    const LOOK: u8 = 0;
    const TELL: u8 = 3;
    const WRITE: u8 = 8;
    const RELEASE: u8 = 9;
    const UNDER_WAY: u8 = TOLD - 1;
    let beaten = |acts: &[(bool, u8)], run: u8| {
        let acts: Vec<(bool, u8, u8)> = acts.iter().map(|(is_a, what)| (*is_a, *what, run)).collect();
        told_by_two(&FaultyFs::new(1), &acts)
    };
    // One writes packs, and the other folders.
    for (one, other) in [(true, false), (false, true)] {
        let made = [(one, LOOK), (other, LOOK), (one, TELL), (other, TELL), (other, WRITE), (one, WRITE)];
        assert!(beaten(&made, 0) >= 1);
        let begun = [(one, LOOK), (other, LOOK), (other, TELL), (other, RELEASE), (one, TELL)];
        assert!(beaten(&begun, UNDER_WAY) >= 1);
        let first = [(one, LOOK), (one, TELL), (one, WRITE), (one, RELEASE), (one, LOOK), (one, RELEASE)];
        for run in [0, UNDER_WAY] {
            // Both have seen the same line.
            let gone_on = [(one, LOOK), (other, LOOK), (other, TELL), (other, WRITE), (other, RELEASE), (one, TELL)];
            assert!(beaten(&[&first[..], &gone_on[..]].concat(), run) >= 1, "{run}");
        }
    }
}
