//! The whole path, from a record to what a reader sees, over a file system that fails and forgets.
//!
//! A seed tells a story: lives of processes that record into one store, with operations that fail, and an end by a kill or
//! a loss of power at any operation, also in the middle of taking over from the life before. At the end of it a reader
//! is held to a model that knows what was told and what of it was acknowledged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::fs::faulty::{Dice, End, FaultyFs, Op, Plan};
use crate::fs::seeds::{self, Seed};
use crate::journal::Durability;
use crate::model::Event;
use crate::model::event::EventBody;
use crate::model::otlp::{Span, SpanEvent};
use crate::store::assembly::RunState;
use crate::store::files::artifacts;
use crate::store::{Listed, Query, RunReader};

const STORE: &str = "/home/me/store";
/// Yet to come: what is told of a bridge's runs must not look like silence.
const START: u64 = 2_524_608_000_000_000_000;
/// Operations that a life may take, about: where faults are put.
const SPAN_OF_LIFE: u64 = 200;

/// What a record tells of its run: one line in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    Start(u8),
    Note(u8),
    Waits,
    End(u8),
}

/// One record of a run.
#[derive(Clone, Debug)]
struct Moment {
    says: Says,
    parent: u8,
    operation: &'static str,
    fails: bool,
}

/// A run with what was told of it.
#[derive(Clone, Debug)]
struct Story {
    trace: TraceId,
    moments: Vec<Moment>,
    /// So many were given to the journal, those first.
    told: usize,
    /// The most that ever were: who is not acknowledged tells again.
    ever_told: usize,
    /// So many of these are acknowledged.
    acknowledged: usize,
    /// Something that it was told may be lost, all the same: the power failed and nobody had promised more.
    is_excused: bool,
}

impl Story {
    fn run(&self) -> RunId {
        self.trace.as_run_id()
    }

    fn record(&self, place: usize) -> Record {
        let moment = &self.moments[place];
        let (Says::Start(span) | Says::Note(span) | Says::End(span)) = moment.says else {
            return self.record_of(place, 1);
        };
        self.record_of(place, if matches!(moment.says, Says::Note(_)) { 1 } else { span })
    }

    fn record_of(&self, place: usize, span_number: u8) -> Record {
        let moment = &self.moments[place];
        let at = START + place as u64 * 1_000_000;
        let began = self.moments.iter().position(|moment| moment.says == Says::Start(span_number)).unwrap_or(0);
        let (kind, event) = match moment.says {
            Says::Start(_) => (RecordKind::Started, None),
            Says::Note(number) => (RecordKind::Event, Some(format!("note {number}"))),
            Says::Waits => (RecordKind::Event, Some(names::EVENT_WAITING.to_owned())),
            Says::End(_) => (RecordKind::Ended, None),
        };
        let mut span = Span {
            trace_id: self.trace.0.to_vec(),
            span_id: vec![span_number; 8],
            parent_span_id: if moment.parent == 0 { Vec::new() } else { vec![moment.parent; 8] },
            name: "step".to_owned(),
            start_time_unix_nano: START + began as u64 * 1_000_000,
            end_time_unix_nano: if kind == RecordKind::Ended { at } else { 0 },
            ..Span::default()
        };
        span.set_attr(names::OPERATION, moment.operation);
        span.set_attr(names::RUN_ID, self.run().to_string());
        if moment.operation == "invoke_agent" {
            span.set_attr("gen_ai.agent.name", "a");
        }
        // Lines of a run go over several sectors.
        span.set_attr("text", "x".repeat(place * 37 % 500));
        if kind == RecordKind::Ended {
            span.set_attr(names::INPUT_TOKENS, 10);
            span.set_attr(names::OUTPUT_TOKENS, place as i64);
        }
        if moment.fails && kind == RecordKind::Ended {
            span.status = Some(Status { code: STATUS_ERROR, message: "no".to_owned() });
        }
        span.events.extend(event.map(|name| SpanEvent { time_unix_nano: at, name, ..SpanEvent::default() }));
        Record { kind, resource: Arc::default(), scope: Default::default(), span }
    }
}

/// A run of an agent with some steps, one of which may stay open or wait. `has_events`: something happens in them; who tells
/// a bridge again tells steps alone.
fn story(dice: &mut Dice, number: u64, has_events: bool) -> Story {
    let id = RunId::from_parts(START / 1_000_000 + number, [number as u8 + 1; 10]);
    let fails = dice.one_in(4);
    let moment = |says, parent, operation| Moment { says, parent, operation, fails };
    let mut moments = vec![moment(Says::Start(1), 0, "invoke_agent")];
    let steps = dice.below(4) as u8;
    for span in 2..2 + steps {
        let operation = dice.one_of(&["chat", "execute_tool"]);
        moments.push(moment(Says::Start(span), 1, operation));
        if has_events && dice.one_in(3) {
            moments.push(moment(Says::Note(span), 0, "invoke_agent"));
        }
        if !dice.one_in(8) {
            moments.push(moment(Says::End(span), 1, operation));
        }
    }
    if has_events && dice.one_in(5) {
        moments.push(moment(Says::Waits, 0, "invoke_agent"));
    } else {
        moments.push(moment(Says::End(1), 0, "invoke_agent"));
    }
    Story { trace: id.as_trace_id(), moments, told: 0, ever_told: 0, acknowledged: 0, is_excused: false }
}

/// A store over all its lives.
struct World {
    fs: FaultyFs,
    dice: Dice,
    durability: Durability,
    /// The next life goes on with the journal of the last one, and the runs are told by others who outlive it.
    is_bridge: bool,
    stories: Vec<Story>,
    under_way: Vec<usize>,
    processes: u64,
}

/// A process at work, as the worker of a recorder is.
struct Line {
    layout: Layout,
    name: String,
    journal: JournalWriter,
    reader: JournalReader,
    sink: StoreSink<FilesWriter>,
    /// What waits for a commit: the number of its frame, its story, and how far that is told with it.
    batch: Vec<(u64, Record, usize, usize)>,
    committed: u64,
    /// The sink failed and has to be told again from the journal.
    is_behind: bool,
    began: Instant,
}

fn options(durability: Durability) -> Options {
    // Small segments: that there are several of them, and that they go.
    Options { durability, segment_bytes: 2 << 10, max_bytes: 1 << 20 }
}

impl Line {
    fn begin(layout: &Layout, process: RunId, durability: Durability, is_bridge: bool) -> Result<Self, Error> {
        let (dir, name) = (layout.journal(), process.to_string());
        let journal = JournalWriter::create_in(layout.shared_fs(), &dir, &name, options(durability))?;
        if is_bridge {
            journal::mark_resumable_in(layout.fs(), &dir, &name)?;
        }
        Self::with(layout, process, journal, durability)
    }

    /// Goes on with the journal of a bridge that died, as the next one does.
    fn go_on(layout: &Layout, durability: Durability) -> Result<Option<Self>, Error> {
        let dir = layout.journal();
        for found in journal::list_processes_in(layout.fs(), &dir)? {
            if found.alive {
                // Nobody else lives: it could not be found out. Another bridge beside it would write runs of its own.
                return Err(JournalError::Locked { path: dir.join(found.name) }.into());
            }
            if journal::is_resumable_in(layout.fs(), &dir, &found.name) {
                let process = found.name.parse().expect("a process");
                let options = options(durability);
                let (journal, _) = JournalWriter::reopen_in(layout.shared_fs(), &dir, &found.name, options)?;
                let mut line = Self::with(layout, process, journal, durability)?;
                let runs = runs_of(layout, process)?.into_iter().filter(|run| run.status.is_open());
                line.sink.take_up(&runs.map(|run| run.run_id).collect::<Vec<_>>())?;
                line.committed = line.journal.committed_seq();
                line.is_behind = true;
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    fn with(layout: &Layout, process: RunId, journal: JournalWriter, durability: Durability) -> Result<Self, Error> {
        let (dir, name) = (layout.journal(), process.to_string());
        let reader = JournalReader::open_in(layout.shared_fs(), &dir, &name, STORE_READER)?;
        let writer = FilesWriter::new(layout.clone(), process, durability == Durability::Power);
        Ok(Self {
            layout: layout.clone(),
            name,
            journal,
            reader,
            sink: StoreSink::new(writer, process),
            batch: Vec::new(),
            committed: 0,
            is_behind: false,
            began: Instant::now(),
        })
    }

    fn commit(&mut self, stories: &mut [Story]) {
        let Ok(committed) = self.journal.commit() else { return };
        self.committed = committed.seq;
        for (seq, record, story, told) in std::mem::take(&mut self.batch) {
            stories[story].acknowledged = told;
            if !self.is_behind && self.sink.take(seq, record).is_err() {
                self.is_behind = true;
            }
        }
    }

    /// Writes runs out; `due`: starts wait for no late facts any more.
    fn settle(&mut self, due: bool) {
        let now = self.began + if due { Duration::from_secs(3600) } else { Duration::ZERO };
        let settled = if self.is_behind { self.catch_up(now) } else { self.sink.flush(now).map_err(Error::from) };
        self.is_behind = settled.is_err();
        if !self.is_behind {
            let done = self.sink.oldest_held().map_or(self.committed, |held| held.saturating_sub(1));
            // What is not acknowledged is told again.
            let _ = self.reader.acknowledge_handed(done, &self.journal);
        }
    }

    fn catch_up(&mut self, now: Instant) -> Result<(), Error> {
        self.sink.reset()?;
        self.reader.rewind();
        loop {
            let batch = self.reader.next_batch(1 << 10)?;
            if batch.is_empty() {
                return Ok(());
            }
            for (seq, record) in records_of(&batch) {
                self.sink.take(seq, record)?;
            }
            self.sink.flush(now)?;
        }
    }

    fn keep_house(&self) {
        let (fs, dir) = (self.layout.fs(), self.layout.journal());
        let _ = journal::remove_passed_segments_in(fs, &dir, &self.name, &[STORE_READER]);
    }

    /// Ends as a process does that is told to.
    fn end(mut self, stories: &mut [Story]) {
        self.commit(stories);
        self.settle(true);
        if self.is_behind || self.sink.flush_all().is_err() {
            return;
        }
        let is_done = self.reader.acknowledge_handed(self.committed, &self.journal).is_ok();
        if is_done && self.batch.is_empty() && self.sink.open_runs().is_empty() {
            let Self { layout, name, journal, reader, sink, .. } = self;
            drop((journal, reader, sink));
            let _ = journal::remove_journal_in(layout.fs(), &layout.journal(), &name, &[STORE_READER]);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let durability = dice.one_of(&[Durability::Power, Durability::Power, Durability::Process]);
        let fs = FaultyFs::new(dice.roll());
        // The folder in which somebody works is there for good.
        for dir in ["/home", "/home/me"] {
            fs.shared().create_dir(Path::new(dir)).unwrap();
        }
        for dir in ["/", "/home"] {
            fs.shared().sync_dir(Path::new(dir)).unwrap();
        }
        let is_bridge = dice.one_in(3);
        Self { fs, dice, durability, is_bridge, stories: Vec::new(), under_way: Vec::new(), processes: 0 }
    }

    fn layout(&self) -> Layout {
        Layout::new_in(self.fs.shared(), STORE)
    }

    /// Lives until it dies or comes to an end.
    fn live(&mut self) {
        let plan = Plan::any(&mut self.dice, self.fs.count() + 1, SPAN_OF_LIFE);
        self.fs.plan(plan);
        let layout = self.layout();
        if layout.open_or_create().is_err() || open_at(layout.clone()).is_err() {
            return;
        }
        let left = if self.is_bridge { Line::go_on(&layout, self.durability) } else { Ok(None) };
        let begun = left.and_then(|left| match left {
            Some(line) => Ok(line),
            None => {
                self.processes += 1;
                let process = RunId::from_parts(START / 1_000_000, [0x80 | self.processes as u8; 10]);
                Line::begin(&layout, process, self.durability, self.is_bridge)
            }
        });
        let Ok(mut line) = begun else { return };
        if !self.is_bridge {
            self.under_way.clear();
        }
        for _ in 0..self.dice.below(16) {
            match self.dice.below(10) {
                0..7 => self.tell(&mut line),
                7 | 8 => {
                    let due = self.dice.one_in(3);
                    line.settle(due);
                }
                _ => line.keep_house(),
            }
            if self.fs.is_dead() {
                return;
            }
        }
        if !self.dice.one_in(3) {
            line.end(&mut self.stories);
        }
    }

    /// Tells some more of the runs under way, in one commit.
    fn tell(&mut self, line: &mut Line) {
        let under_way = &mut self.under_way;
        for _ in 0..=self.dice.below(3) {
            if under_way.len() < 2 || self.dice.one_in(4) {
                under_way.push(self.stories.len());
                let story = story(&mut self.dice, self.stories.len() as u64, !self.is_bridge);
                self.stories.push(story);
            }
            let number = self.dice.one_of(under_way);
            let story = &mut self.stories[number];
            let record = story.record(story.told);
            match Numbers::append(&mut line.journal, &record, 0) {
                Ok(seq) => {
                    story.told += 1;
                    story.ever_told = story.ever_told.max(story.told);
                    line.batch.push((seq, record, number, story.told));
                }
                // It is told again, or never.
                Err(_) => break,
            }
            if story.told == story.moments.len() {
                under_way.retain(|other| *other != number);
            }
        }
        line.commit(&mut self.stories);
        let due = self.dice.one_in(3);
        line.settle(due);
    }

    /// Tells the next record of a story, in a commit of its own.
    fn tell_next(&mut self, line: &mut Line, number: usize) {
        let story = &mut self.stories[number];
        let record = story.record(story.told);
        let seq = Numbers::append(&mut line.journal, &record, 0).unwrap();
        story.told += 1;
        story.ever_told = story.told;
        line.batch.push((seq, record, number, story.told));
        line.commit(&mut self.stories);
    }

    fn restart(&mut self) {
        let end = self.dice.one_of(&[End::Kill, End::PowerLoss]);
        self.fs = self.fs.restart(end);
        self.fs.plan(Plan::default());
        for story in self.stories.iter_mut().filter(|_| self.is_bridge) {
            story.told = story.acknowledged;
        }
        let is_under_way = |place: &usize| self.stories[*place].told < self.stories[*place].moments.len();
        self.under_way = (0..self.stories.len()).filter(is_under_way).collect();
        if end == End::PowerLoss && self.durability == Durability::Process {
            self.stories.iter_mut().for_each(|story| story.is_excused = true);
        }
    }

    fn check(&self) {
        let layout = self.layout();
        layout.open_or_create().expect("a store");
        let looked = {
            let fs = self.fs.copy();
            let (reader, looked) = look_at(Layout::new_in(fs.shared(), STORE)).expect("a store to look at");
            assert_eq!(looked.expect("all processes are found").missing, [], "nothing is kept back from who looks");
            shown(&reader)
        };
        let (reader, adopted) = open_at(layout.clone()).expect("a store");
        let adopted = adopted.expect("all processes are found");
        assert_eq!(adopted.missing, [], "nothing is kept back");
        assert_eq!(looked, shown(&reader), "who may not write sees the same");
        let left: Vec<String> = self.fs.files().into_keys().filter(|path| path.contains("/journal/")).collect();
        assert!(left.is_empty() || self.is_bridge, "journals are removed when they are taken in: {left:?}");
        let left = self.fs.files().into_keys().filter(|path| path.contains(".tmp") || path.contains("/.new-"));
        let left: Vec<String> = left.filter(|path| path.contains("/agents/")).collect();
        assert!(left.is_empty() || self.durability == Durability::Process, "{left:?} is cleared away");
        let listed = listed(&reader);
        for story in &self.stories {
            story.check(&reader, listed.get(&story.run()), self.is_bridge);
        }
        for (run, listed) in &listed {
            // What belongs to a damaged run goes to another in its place.
            let may_be_of = |story: &Story| match listed {
                Listed::Run(listed) => listed.summary.trace_id == story.trace,
                Listed::Damaged(_) => true,
            };
            let is_known = |story: &Story| story.run() == *run || (story.is_excused && may_be_of(story));
            assert!(self.stories.iter().any(is_known), "invented: {listed:?}");
        }
    }
}

fn listed(reader: &FilesReader) -> BTreeMap<RunId, Listed> {
    let listed = reader.list_runs(&Query::default()).expect("a list");
    let id = |listed: &Listed| match listed {
        Listed::Run(run) => run.summary.run_id,
        Listed::Damaged(run) => run.run_id,
    };
    listed.into_iter().map(|listed| (id(&listed), listed)).collect()
}

/// What a reader sees, but for moments of writing.
fn shown(reader: &FilesReader) -> BTreeMap<RunId, String> {
    let of = |(run, listed): (RunId, Listed)| {
        let Listed::Run(listed) = listed else { return (run, format!("{listed:?}")) };
        let summary = RunSummary { updated_at: UnixNanos::default(), ..listed.summary };
        let events = reader.get_events(run, 0).map_err(|error| error.to_string());
        (run, format!("{summary:?} {:?} {events:?}", listed.open_steps))
    };
    listed(reader).into_iter().map(of).collect()
}

/// What an event of a run tells that was recorded; `None` for what the store says by itself.
fn said(event: &Event) -> Option<Says> {
    let number = |span: &Span| span.span_id.first().copied().unwrap_or(0);
    match &event.body {
        EventBody::Log(log) => log.message.strip_prefix("note ")?.parse().ok().map(Says::Note),
        EventBody::Waiting(_) => Some(Says::Waits),
        body => {
            let (span, _, _) = body.span()?;
            Some(if body.is_step_start() { Says::Start(number(span)) } else { Says::End(number(span)) })
        }
    }
}

fn is_crash_of_step(event: &Event) -> bool {
    let crashed = Some(&Value::from(StepStatus::Crashed.as_str()));
    event.body.span().is_some_and(|(span, _, _)| span.attr(names::STEP_STATUS) == crashed)
}

impl Story {
    fn check(&self, reader: &FilesReader, listed: Option<&Listed>, is_bridge: bool) {
        let run = self.run();
        let listed = match listed {
            None if self.acknowledged == 0 || self.is_excused => return,
            Some(Listed::Damaged(_)) if self.is_excused => return,
            Some(Listed::Run(listed)) => &listed.summary,
            other => panic!("run {run}, acknowledged {}: {other:?}", self.acknowledged),
        };
        let events = match reader.get_events(run, 0) {
            Err(StoreError::Damaged { .. }) if self.is_excused => return,
            events => events.unwrap_or_else(|error| panic!("run {run}: {error}")),
        };
        self.check_events(&events, is_bridge);
        if !self.is_excused {
            check_agreement(reader, run, listed, &events);
        }
    }

    fn check_events(&self, events: &[Event], is_bridge: bool) {
        let run = self.run();
        let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (0..events.len() as u64).collect::<Vec<_>>(), "run {run}: no gap");
        let ids: std::collections::BTreeSet<_> = events.iter().map(|event| event.event_id).collect();
        let told =
            || events.iter().map(|event| (event.event_id, event.body.type_name(), said(event))).collect::<Vec<_>>();
        assert_eq!(ids.len(), events.len(), "run {run}: no event twice: {:?}", told());
        let of_crash: Vec<&Event> = events.iter().filter(|event| is_crash_of_step(event)).collect();
        let found: Vec<Says> = events.iter().filter(|event| !is_crash_of_step(event)).filter_map(said).collect();
        let told: Vec<Says> = self.moments.iter().take(self.ever_told).map(|moment| moment.says).collect();
        // What is acknowledged is there, in order. Of what was on its way each record is there whole or not at all; a
        // start may be told by the end of its step alone.
        let acknowledged = if self.is_excused { 0 } else { self.acknowledged };
        let is_right = found.starts_with(&told[..acknowledged]) && {
            let (mut rest, is_start) = (told[acknowledged..].iter(), |says: &&Says| matches!(says, Says::Start(_)));
            let (starts, others): (Vec<&Says>, Vec<&Says>) = found[acknowledged..].iter().partition(is_start);
            starts.iter().all(|says| told.contains(says)) && others.iter().all(|says| rest.any(|told| told == *says))
        };
        assert!(is_right, "run {run}: acknowledged {:?}, told {told:?}, found {found:?}", &told[..acknowledged]);
        let once: std::collections::BTreeSet<_> = found.iter().collect();
        assert_eq!(once.len(), found.len(), "run {run}: told twice: {found:?}");
        let known = ["run_started", "run_completed", "status_changed", "output", "input"];
        let others = events.iter().filter(|event| said(event).is_none()).map(|event| event.body.type_name());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        others.for_each(|name| *counts.entry(name).or_default() += 1);
        assert!(counts.iter().all(|(name, count)| known.contains(name) && *count == 1), "run {run}: {counts:?}");
        let is_over = found.contains(&Says::End(1));
        assert!(of_crash.is_empty() || !is_over || self.has_open_step(), "run {run}: a step crashed that had ended");
        for event in of_crash {
            assert!(!found.iter().any(|says| Some(*says) == said(event)), "run {run}: a step ended twice: {event:?}");
        }
        assert!(self.is_excused || events[0].body.type_name() == "run_started", "run {run}: {:?}", events[0]);
        let (is_crashed, is_waiting) = (counts.contains_key("status_changed"), found.contains(&Says::Waits));
        assert!(self.is_excused || is_crashed == (!is_over && !is_waiting && !is_bridge), "run {run}: {found:?}");
        let ended = |span: u8| events.iter().any(|event| said(event) == Some(Says::End(span)));
        let is_open = |says: &&Says| matches!(says, Says::Start(span) if !ended(*span));
        let is_closed = !found.iter().any(|says| is_open(&says));
        assert!(self.is_excused || !is_crashed || is_closed, "run {run}: a step of a crashed run is open");
        for event in events.iter().filter(|event| !is_crash_of_step(event)) {
            if let (Some(says @ Says::End(_)), Some((span, _, _))) = (said(event), event.body.span()) {
                let place = self.moments.iter().position(|moment| moment.says == says).expect("it was told");
                assert_eq!(*span, self.record(place).span, "run {run}");
            }
        }
    }

    fn has_open_step(&self) -> bool {
        let says = |says: Says| self.moments.iter().any(|moment| moment.says == says);
        (1..9).any(|span| says(Says::Start(span)) && !says(Says::End(span)))
    }
}

/// Whatever a run says of itself, in `run.yaml`, in its log and in the list of all runs, is the same.
fn check_agreement(reader: &FilesReader, run: RunId, listed: &RunSummary, events: &[Event]) {
    let stored = reader.get_run(run).unwrap_or_else(|error| panic!("run {run}: {error}"));
    let plain = |summary: &RunSummary| {
        // Of a run under way nobody hashes what is shown.
        let unsigned = RunSummary { writer: None, events_sha256: None, ..summary.clone() };
        let unsigned = RunSummary { updated_at: UnixNanos::default(), steps: None, ..unsigned };
        serde_json::to_string_pretty(&unsigned).expect("JSON")
    };
    let folded = RunState::read(run, events).summary(UnixNanos::default());
    let files = reader.stored(run).unwrap_or_else(|error| panic!("run {run}: {error}"));
    let in_file = plain(&files.0);
    let same = |what: &str, told: &RunSummary| {
        let told = plain(told);
        let differ = told.lines().zip(in_file.lines()).find(|(told, in_file)| told != in_file);
        assert!(told == in_file, "run {run}: {what} and run.yaml do not say the same: {differ:?}");
    };
    same("its log", &folded);
    same("what is shown", &stored);
    same("the list", listed);
    files.1.iter().for_each(|indexed| same("index.log", indexed));
}

fn lives(seed: Seed) {
    let mut world = World::new(seed.number);
    let _tells = seed.tells(&world.fs);
    for _ in 0..=world.dice.below(5) {
        world.live();
        world.restart();
    }
    world.check();
}

#[test]
fn what_was_acknowledged_is_there_once_after_faults_of_any_kind() {
    seeds::each("path", lives);
}

/// One run of one step, and its process at work.
fn one_story(world: &mut World) -> Line {
    (world.durability, world.is_bridge) = (Durability::Power, false);
    let layout = world.layout();
    layout.open_or_create().unwrap();
    let moment = |says| Moment { says, parent: 0, operation: "invoke_agent", fails: false };
    let trace = RunId::from_parts(START / 1_000_000, [1; 10]).as_trace_id();
    let moments = vec![moment(Says::Start(1)), moment(Says::End(1))];
    world.stories.push(Story { trace, moments, told: 0, ever_told: 0, acknowledged: 0, is_excused: false });
    let process = RunId::from_parts(START / 1_000_000, [0x81; 10]);
    Line::begin(&layout, process, world.durability, false).unwrap()
}

#[test]
fn what_a_run_says_of_itself_is_written_after_trouble_of_any_length() {
    for resets_that_fail in 0..3 {
        let mut world = World::new(1);
        let mut line = one_story(&mut world);
        world.tell_next(&mut line, 0);
        line.settle(true);
        world.tell_next(&mut line, 0);
        // The log has the end, and run.yaml does not become what follows from it.
        world.fs.fail_next(Op::Rename, libc::EIO);
        line.settle(true);
        assert!(line.is_behind);
        for _ in 0..resets_that_fail {
            world.fs.fail_next(Op::Look, libc::EIO);
            line.settle(true);
            assert!(line.is_behind);
        }
        line.settle(true);
        assert!(!line.is_behind);
        line.end(&mut world.stories);
        world.check();
    }
}

#[test]
fn after_a_failed_sync_of_the_whole_disk_runs_are_written_again() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        let mut line = one_story(&mut world);
        // As a bridge writes: nothing is synced run by run.
        let process = line.name.parse().unwrap();
        line.sink = StoreSink::new(FilesWriter::new(world.layout(), process, false), process);
        world.tell_next(&mut line, 0);
        world.tell_next(&mut line, 0);
        line.sink.flush_all().unwrap();
        let seen = world.fs.files();
        for path in seen.keys().filter(|path| path.contains("/agents/")) {
            let file = world.fs.shared().open(Path::new(path), Access::ReadWrite).unwrap();
            world.fs.fail_next(Op::SyncData, libc::EIO);
            file.sync_data().unwrap_err();
        }
        if world.fs.files() != seen {
            // What is lost cannot even be read any more: the run is damaged, and its records go to another.
            continue;
        }
        line.sink.distrust_disk();
        line.catch_up(line.began).unwrap();
        line.end(&mut world.stories);
        world.fs = world.fs.restart(End::PowerLoss);
        world.check();
    }
}

/// A store with two runs that are over, one of them with an artifact, and one of a process that died before all of it was
/// stored.
fn small_store() -> (FaultyFs, [RunId; 3]) {
    let mut world = World::new(1);
    world.durability = Durability::Power;
    let layout = world.layout();
    layout.open_or_create().unwrap();
    let moment = |says, parent, operation| Moment { says, parent, operation, fails: false };
    let (agent, tool) = ("invoke_agent", "execute_tool");
    for number in 0..3 {
        let id = RunId::from_parts(START / 1_000_000 + number, [number as u8 + 1; 10]);
        let mut moments = vec![moment(Says::Start(1), 0, agent), moment(Says::Start(2), 1, tool)];
        moments.extend([
            moment(Says::Note(2), 0, agent),
            moment(Says::End(2), 1, tool),
            moment(Says::End(1), 0, agent),
        ]);
        let story =
            Story { trace: id.as_trace_id(), moments, told: 0, ever_told: 0, acknowledged: 0, is_excused: false };
        world.stories.push(story);
    }
    let mut line =
        Line::begin(&layout, RunId::from_parts(START / 1_000_000, [0x81; 10]), Durability::Power, false).unwrap();
    for place in 0..10 {
        world.tell_next(&mut line, place % 2);
        line.settle(true);
    }
    let runs = [0, 1, 2].map(|number: usize| world.stories[number].run());
    let process = RunId::from_parts(START / 1_000_000, [0x82; 10]);
    let mut line_of_dead = Line::begin(&layout, process, Durability::Power, false).unwrap();
    for place in 0..4 {
        world.tell_next(&mut line_of_dead, 2);
        if place < 2 {
            line_of_dead.settle(true);
        }
    }
    line.end(&mut world.stories);
    let scrubber = crate::pipeline::Scrubber::new(Content::Full, [7; 32]);
    let dir = layout.find_run(runs[0]).unwrap().unwrap();
    let content = &mut b"an artifact".as_slice();
    artifacts::keep(layout.fs(), &dir, "a.bin", None, content, &scrubber, true).unwrap();
    drop(line_of_dead);
    (world.fs.restart(End::Kill), runs)
}

/// What somebody sees who looks at a store: its runs, how many records are said to be damaged, and what is missing.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    runs: BTreeMap<RunId, String>,
    /// What was recorded of each.
    told: BTreeMap<RunId, Vec<String>>,
    /// How many lines their logs have.
    lines: BTreeMap<RunId, usize>,
    damaged: u64,
    missing: usize,
}

/// Opens a store; `None` when it is refused as a whole, with a reason. `looks_first`: what is seen without writing is the
/// same.
fn see(fs: &FaultyFs, looks_first: bool) -> Option<Seen> {
    let layout = Layout::new_in(fs.shared(), STORE);
    let looked = if looks_first { Some(seen(look_at(layout.clone()))?) } else { None };
    let opened = seen(open_at(layout))?;
    if let Some(looked) = looked {
        assert_eq!(looked, opened, "who may not write sees the same");
    }
    Some(opened)
}

fn seen(opened: Result<(FilesReader, Result<Adopted, Error>), Error>) -> Option<Seen> {
    let (reader, adopted) = opened.ok()?;
    let adopted = adopted.ok()?;
    let mut seen = Seen { damaged: adopted.damaged, missing: adopted.missing.len(), ..Seen::default() };
    for (run, listed) in listed(&reader) {
        let Listed::Run(listed) = listed else {
            seen.runs.insert(run, format!("{listed:?}"));
            continue;
        };
        let summary = RunSummary { updated_at: UnixNanos::default(), ..listed.summary };
        let events = reader.get_events(run, 0);
        seen.runs.insert(run, format!("{summary:?} {:?} {events:?}", listed.open_steps));
        let events = events.unwrap_or_default();
        let told = events.iter().filter(|event| said(event).is_some() && !is_crash_of_step(event));
        seen.told.insert(run, told.map(|event| format!("{:?} {:?}", event.step_id, event.body)).collect());
        seen.lines.insert(run, events.len());
    }
    Some(seen)
}

/// Changes every file of a small store in many ways, and hands what is seen then to `check`.
fn damage(change: impl Fn(&[u8], usize) -> Vec<u8>, check: impl Fn(&str, usize, [RunId; 3], &Seen, Option<&Seen>)) {
    let (left, runs) = small_store();
    let taken = left.copy();
    let whole = see(&taken, true).unwrap();
    assert_eq!((whole.runs.len(), whole.damaged, whole.missing), (3, 0, 0));
    // The files of runs where nobody has anything to take over, which takes long, and the journal where somebody has; at
    // places that differ from file to file. In a thorough test all of them there, at every place.
    let of_journal = |path: &str| path.contains("/journal/");
    let thorough = seeds::is_thorough();
    let step = if thorough { 1 } else { 9 };
    let (files, journal): (Vec<_>, Vec<_>) = (taken.files().into_iter().collect(), left.files().into_iter().collect());
    let files = files.into_iter().map(|file| (&taken, file)).filter(|_| !thorough);
    let journal = journal.into_iter().map(|file| (&left, file)).filter(|(_, (path, _))| thorough || of_journal(path));
    for (number, (fs, (path, bytes))) in files.chain(journal).enumerate() {
        for place in (number % step..bytes.len()).step_by(step) {
            let fs = fs.copy();
            fs.overwrite(&path, change(&bytes, place));
            check(&path, place, runs, &whole, see(&fs, of_journal(&path)).as_ref());
        }
    }
}

/// The runs that a file says something of.
fn concerned(path: &str, runs: [RunId; 3]) -> Vec<RunId> {
    match runs.iter().find(|run| path.contains(&format!("/{run}/"))) {
        Some(run) => vec![*run],
        // Whose journal there is.
        None if path.contains("/journal/") => vec![runs[2]],
        None => Vec::new(),
    }
}

fn check_damage(path: &str, place: usize, runs: [RunId; 3], whole: &Seen, seen: Option<&Seen>) {
    let Some(seen) = seen else {
        assert!(path.ends_with("/store.yaml"), "{path} at {place} costs the whole store");
        return;
    };
    let concerned = concerned(path, runs);
    for run in runs {
        let is_same = seen.runs.get(&run) == whole.runs.get(&run);
        assert!(is_same || concerned.contains(&run), "{path} at {place} changes run {run}: {:?}", seen.runs.get(&run));
        let told = seen.told.get(&run).map_or(&[][..], Vec::as_slice);
        // What is less is named: as a damaged run, as damaged records, or as a process of which something is missing. The
        // end of what was told last of a run under way may be a write in which its process died.
        let is_named = seen.runs.get(&run).is_some_and(|run| run.contains("amaged"));
        let is_torn_end = run == runs[2] && whole.told[&run].starts_with(told);
        // Lines have no checksum: what is added to a log whose run is closed follows from what it seems to say.
        let is_under_way = path.ends_with(&format!("/{}/events.jsonl", runs[2]));
        let is_of_journal = path.contains("/journal/");
        let is_less =
            seen.lines.get(&run) < whole.lines.get(&run) || (is_of_journal && told.len() < whole.told[&run].len());
        assert!(
            !is_less || is_named || seen.damaged > 0 || seen.missing > 0 || is_torn_end || is_under_way,
            "{path} at {place}: of run {run} there is {told:?}, and nobody is told"
        );
        // Journals and positions have checksums: what is there is what was written.
        let is_changed = told.iter().any(|told| !whole.told[&run].contains(told));
        assert!(!is_changed || !is_of_journal, "{path} at {place}: of run {run} there is {told:?}");
    }
    let others: Vec<&RunId> = seen.runs.keys().filter(|run| !runs.contains(run)).collect();
    assert!(others.is_empty() || !concerned.is_empty(), "{path} at {place} makes runs up: {others:?}");
}

#[test]
fn a_flipped_bit_costs_itself_and_is_named() {
    let flip = |bytes: &[u8], place: usize| {
        let mut flipped = bytes.to_vec();
        flipped[place] ^= 1 << (place * 5 % 8);
        flipped
    };
    damage(flip, check_damage);
}

#[test]
fn a_file_cut_at_any_length_costs_itself_and_is_named() {
    damage(|bytes, place| bytes[..place].to_vec(), check_damage);
}
