//! `runspan import`: runs from files of others into the store.

mod folders;
mod jaeger;
mod packed;
mod parac;
mod texts;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::ValueEnum;
use prost::Message;
use runspan::model::outcome::Outcome;
use runspan::pipeline::Content;
use runspan::server::{Importer, Settings};
use runspan::sources::otlp::{Encoding, Signal};
use runspan::store::files::layout::Layout;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::Value as Json;

use super::output::{count, counted, safe};
use super::{CODE_FAILED, CODE_USE, Done, Format, Session, Stop, variables};

/// A request is at most so long: a file of one, a line of one that has a request a line.
const MAX_REQUEST: u64 = 256 << 20;

/// Why metrics are not taken.
const METRICS: &str = "it holds metrics, which are no part of runs: `runspan serve --forward` passes them on";

/// What `import` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan import traces.json
  runspan import old/*.jsonl.gz
  runspan import runs.tar ../other/.runspan
  runspan import ../old/.parac/runs
  curl -s 'http://localhost:16686/api/traces?service=agent' | runspan import -

Understood are OTLP spans and logs as JSON (one object, or one a line as the Collector's file exporter writes them) and as protobuf, what \
Jaeger's API answers, and the tar of `export`; each also as gzip or zstd. Objects may stand behind each other, over several lines, or in a list. Spans go the way that those to `runspan serve` go: names, prices, secrets. What is in the store is not \
taken twice. Folders of runs are copied as they are, once they were checked; those of Paracle, which have a metadata.yaml, are \
read for what they say. An archive with anything else in it is refused whole; of one that is cut, the runs before the cut are \
taken. A broken part is told, and all others are taken.
Exit codes: 0 all was read, 1 not all, 2 wrong use, 3 the store failed.")]
pub struct Args {
    /// Files; stores, whose runs are copied; or - for standard input
    #[arg(required = true, value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    /// What the files hold
    #[arg(long = "from", value_enum, value_name = "FORMAT", default_value_t = Form::Auto)]
    form: Form,
    /// How much of prompts and answers is kept: none, redacted, full [default: RUNSPAN_CONTENT, else redacted]
    #[arg(long, value_name = "POLICY")]
    content: Option<Content>,
}

/// What a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// By how it begins
    Auto,
    /// OTLP or Jaeger's answers as JSON
    Json,
    /// One OTLP request as protobuf
    Protobuf,
    /// What `export --as tar` makes
    Tar,
}

/// What came of the files.
#[derive(Debug, Default, Serialize)]
struct Told {
    /// Files that were read to their end.
    files: u64,
    /// Whole run folders that were taken, and that the store had.
    runs: u64,
    duplicate_runs: u64,
    /// Requests in them that were taken.
    requests: u64,
    stored: u64,
    duplicate: u64,
    not_kept: u64,
    rejected: u64,
    dropped: u64,
    /// What was not read, where and why.
    problems: Vec<Problem>,
    #[serde(skip)]
    had_folders: bool,
}

#[derive(Debug, Serialize)]
struct Problem {
    file: String,
    /// Line, from 1; of a file that is one request none.
    line: Option<u64>,
    why: String,
}

/// Imports the files.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    // Before a store is made: a name that was mistyped is no broken file.
    let is_missing = |file: &PathBuf| !is_standard_input(file) && !file.exists();
    if let Some(missing) = args.files.first().filter(|_| args.files.iter().all(is_missing)) {
        let stop = Stop::failed(CODE_USE, format!("{}: no such file or folder", missing.display()));
        return Err(stop.hint("nothing was imported"));
    }
    let content = variables::CONTENT.unless_given(args.content)?;
    let (path, _) = session.store_path();
    let layout = Layout::new(session.cwd.join(path));
    let mut settings = Settings { content: content.unwrap_or_default(), ..Settings::default() };
    settings.bounds.request_bytes = usize::try_from(MAX_REQUEST).unwrap_or(usize::MAX);
    settings.bounds.limits.spans = usize::MAX;
    settings.bounds.limits.all_values = usize::MAX;
    settings.bounds.limits = settings.bounds.limits.with_ours();
    let importer = Importer::open(&layout, &settings).map_err(|error| {
        Stop::failed(CODE_FAILED, runspan::with_causes(&error)).hint("runspan doctor checks the store")
    })?;
    let mut told = Told::default();
    for file in &args.files {
        let name = if is_standard_input(file) { "standard input".to_owned() } else { file.display().to_string() };
        let before = (told.requests, told.runs + told.duplicate_runs, told.problems.len());
        let mut into = Intake { importer: &importer, settings: &settings, told: &mut told, name: name.clone() };
        let taken = if file.is_dir() {
            into.told.had_folders = true;
            into.folders(&layout, |staging| staging.copy(file))
        } else {
            if is_fifo(file) {
                session.remark(&safe(&format!("{name} is a pipe: waiting for somebody to write to it")));
            }
            open(file).and_then(|reader| into.all(reader, args.form, &layout))
        };
        match taken {
            Ok(()) if before == (told.requests, told.runs + told.duplicate_runs, told.problems.len()) => {
                told.problems.push(Problem { file: name, line: None, why: "there is nothing in it".to_owned() });
            }
            Ok(()) => told.files += 1,
            Err(error) => told.problems.push(Problem { file: name, line: None, why: error.to_string() }),
        }
    }
    let done = importer.finish();
    for (outcome, place) in [
        (Outcome::Stored, &mut told.stored),
        (Outcome::Duplicate, &mut told.duplicate),
        (Outcome::NotKept, &mut told.not_kept),
        (Outcome::Rejected, &mut told.rejected),
        (Outcome::Dropped, &mut told.dropped),
    ] {
        *place = done.counts.total(outcome);
    }
    conclude(&told, done.is_stuck, session)
}

fn conclude(told: &Told, is_stuck: bool, session: &mut Session<'_>) -> Done {
    match session.format {
        Format::Table => session.print(&in_words(told))?,
        _ => session.print_data(told)?,
    }
    for problem in &told.problems {
        let line = problem.line.map(|line| format!(", line {line}")).unwrap_or_default();
        session.remark(&safe(&format!("{}{line}: {}", problem.file, problem.why)));
    }
    if is_stuck {
        let stop = Stop::failed(
            CODE_FAILED,
            "the store could not be written to the end; what is missing waits in its journal",
        );
        return Err(stop.hint("runspan doctor checks the store"));
    }
    if told.problems.is_empty() { Ok(()) } else { Err(Stop::AnswerIsNo) }
}

fn in_words(told: &Told) -> String {
    let others = [
        (told.duplicate, "there already"),
        (told.not_kept, "not kept: no part of an agent's run"),
        (told.rejected, "rejected"),
        (told.dropped, "lost"),
    ];
    let others = others.iter().filter(|(n, _)| *n > 0).map(|(n, words)| format!(", {} {words}", count(*n)));
    let spans = format!("{} stored{}\n", counted(told.stored, "span"), others.collect::<String>());
    let runs = match (told.runs, told.duplicate_runs) {
        (0, 0) if told.had_folders && told.requests == 0 => "no runs stored\n".to_owned(),
        (0, 0) => return spans,
        (stored, 0) => format!("{} stored\n", counted(stored, "run")),
        (stored, there) => format!("{} stored, {} there already\n", counted(stored, "run"), count(there)),
    };
    if told.requests == 0 { runs } else { format!("{runs}{spans}") }
}

fn is_standard_input(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn is_fifo(file: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    file.metadata().is_ok_and(|file| file.file_type().is_fifo())
}

/// A file, and how much of it was read.
type Opened = (Box<dyn BufRead>, Rc<Cell<u64>>);

fn open(file: &Path) -> io::Result<Opened> {
    if is_standard_input(file) { unpacked(io::stdin()) } else { unpacked(File::open(file)?) }
}

/// Counts what is read.
struct Counted<R> {
    reader: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// Reads through gzip or zstd, where that is what there is: the bounds are those of what comes out.
fn unpacked(reader: impl Read + 'static) -> io::Result<Opened> {
    let bytes = Rc::new(Cell::new(0));
    let mut reader = BufReader::new(Counted { reader, bytes: Rc::clone(&bytes) });
    let beginning = reader.fill_buf()?;
    let (is_gzip, is_zstd) = (beginning.starts_with(&packed::GZIP), beginning.starts_with(&packed::ZSTD));
    let reader: Box<dyn BufRead> = if is_gzip {
        Box::new(BufReader::new(packed::Gunzip::new(reader)))
    } else if is_zstd {
        Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(reader)?))
    } else {
        Box::new(reader)
    };
    Ok((reader, bytes))
}

/// Tells a tar by the word that its first header has.
fn looks_like_tar(beginning: &[u8]) -> bool {
    beginning.get(257..262) == Some(b"ustar".as_slice())
}

/// Where requests of a file go.
struct Intake<'a> {
    importer: &'a Importer,
    settings: &'a Settings,
    told: &'a mut Told,
    name: String,
}

impl Intake<'_> {
    /// Takes all that a file holds.
    fn all(&mut self, (mut reader, went_in): Opened, form: Form, layout: &Layout) -> io::Result<()> {
        if form == Form::Tar || (form == Form::Auto && looks_like_tar(reader.fill_buf()?)) {
            return self.folders(layout, |staging| staging.unpack(reader, || went_in.get()));
        }
        if form != Form::Protobuf && texts::is_utf16(reader.fill_buf()?) {
            let why = "it is UTF-16, and JSON is UTF-8: convert it (iconv -f UTF-16 -t UTF-8)";
            self.problem(None, why.to_owned());
            return Ok(());
        }
        let is_json = match form {
            Form::Auto => looks_like_json(reader.fill_buf()?),
            Form::Json => true,
            Form::Protobuf | Form::Tar => false,
        };
        if is_json {
            return self.json(reader);
        }
        let mut body = Vec::new();
        reader.take(MAX_REQUEST + 1).read_to_end(&mut body)?;
        match Signal::of_protobuf(&body) {
            Some(signal) => self.take(body, signal, Encoding::Protobuf, None),
            None => self.problem(None, METRICS.to_owned()),
        }
        Ok(())
    }

    /// Takes run folders: all that can be read, or none where something in it has no place there.
    fn folders(
        &mut self,
        layout: &Layout,
        fill: impl FnOnce(&mut folders::Staging) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut staging = folders::Staging::new(layout)?;
        fill(&mut staging)?;
        staging.convert(self.settings).map_err(io::Error::other)?;
        let moved = staging.finish();
        self.told.runs += moved.stored;
        self.told.duplicate_runs += moved.duplicate;
        moved.broken.into_iter().for_each(|why| self.problem(None, why));
        Ok(())
    }

    /// Takes a request a line where the first line is one; else all lines are one, or several.
    fn json(&mut self, mut reader: Box<dyn BufRead>) -> io::Result<()> {
        let (mut line, mut number, mut is_first) = (Vec::new(), 0, true);
        loop {
            let read = read_line(&mut reader, &mut line);
            number += 1;
            let text = self.without_zeros(&line, number);
            match read {
                // A line may be whole although what stands behind it cannot be read.
                Err(error) if !is_object(text) => return Err(error),
                Ok(false) => return Ok(()),
                _ if text.is_empty() => continue,
                _ => {}
            }
            if std::mem::take(&mut is_first) && !is_object(text) {
                let mut whole = text.to_vec();
                whole.push(b'\n');
                let ended = reader.by_ref().take(MAX_REQUEST).read_to_end(&mut whole);
                self.whole(&whole, number);
                if ended? as u64 == MAX_REQUEST && !reader.fill_buf()?.is_empty() {
                    self.problem(None, format!("what is behind {MAX_REQUEST} bytes was not read"));
                }
                return Ok(());
            }
            self.object(text, Some(number));
            read?;
        }
    }

    /// Returns a line without what is no part of its text, and tells of zeros: after a loss of power they stand where lines did.
    fn without_zeros<'a>(&mut self, line: &'a [u8], number: u64) -> &'a [u8] {
        let (text, zeros) = texts::bare(line);
        if zeros > 0 {
            self.problem(
                Some(number),
                format!("it has {zeros} zeros beside its text: what may have stood there is lost"),
            );
        }
        text
    }

    /// Takes a file that is one object or several, or whose first line, which has this number, is broken.
    fn whole(&mut self, text: &[u8], first: u64) {
        if is_object(text) || !text.split(|byte| *byte == b'\n').any(is_object) {
            let (text, _) = texts::bare(text);
            return self.object(text, None);
        }
        let (mut rest, mut number) = (text, first);
        while !rest.is_empty() {
            let line = rest.split_inclusive(|byte| *byte == b'\n').next().unwrap_or(rest);
            let text = self.without_zeros(line, number);
            // An object may be spread over lines although others stand on one each.
            let spread = if text.is_empty() || is_object(text) { None } else { texts::first_object(rest) };
            let end = spread.unwrap_or(line.len());
            match spread {
                Some(end) => self.object(texts::bare(&rest[..end]).0, Some(number)),
                None if text.is_empty() => {}
                None => self.object(text, Some(number)),
            }
            number += rest[..end].iter().filter(|byte| **byte == b'\n').count() as u64;
            rest = &rest[end..];
        }
    }

    /// Takes an object, or several that stand behind each other or in a list.
    fn object(&mut self, text: &[u8], line: Option<u64>) {
        if !text.starts_with(b"{") && !text.starts_with(b"[") {
            return self.problem(line, "it is no JSON object".to_owned());
        }
        // A list could be read as the members of one.
        let whole = text.starts_with(b"{").then(|| serde_json::from_slice::<Shape>(text));
        let alone = match whole {
            Some(Ok(what)) => return self.known(text, what, line),
            Some(Err(error)) => Some(error),
            None => None,
        };
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => {
                return self.problem(
                    line,
                    format!("it is no JSON: {}", alone.map_or(error.to_string(), |error| error.to_string())),
                );
            }
        };
        let (taken, ended) = texts::each_object(text, |object| match serde_json::from_str(object) {
            Ok(what) => self.known(object.as_bytes(), what, line),
            Err(error) => self.problem(line, format!("it is no JSON: {error}")),
        });
        match (ended, taken) {
            (Ok(()), 1..) => {}
            (Ok(()), 0) => self.problem(line, "it is no JSON object".to_owned()),
            (Err(error), 0) if error.is_data() => self.problem(line, "it is no JSON object".to_owned()),
            (Err(error), 0) => self.problem(line, format!("it is no JSON: {}", alone.unwrap_or(error))),
            (Err(error), _) => {
                self.problem(line, format!("behind {} it is no JSON: {error}", counted(taken, "object")))
            }
        }
    }

    fn known(&mut self, text: &[u8], what: Shape, line: Option<u64>) {
        let has = |part: &Option<IgnoredAny>| part.is_some();
        if has(&what.resource_metrics) {
            self.problem(line, METRICS.to_owned());
        }
        let has_spans = has(&what.resource_spans) || has(&what.with_underscore);
        let has_logs = has(&what.resource_logs);
        if has_spans {
            self.take(text.to_vec(), Signal::Traces, Encoding::Json, line);
        }
        if has_logs {
            self.take(text.to_vec(), Signal::Logs, Encoding::Json, line);
        }
        match what.data {
            _ if has_spans || has_logs => {}
            Some(traces) => match jaeger::request(traces) {
                Ok((request, broken)) => {
                    broken.into_iter().for_each(|why| self.problem(line, why));
                    self.take(request.encode_to_vec(), Signal::Traces, Encoding::Protobuf, line);
                }
                Err(why) => self.problem(line, why),
            },
            _ if has(&what.resource_metrics) => {}
            _ => self.problem(line, "it has neither resourceSpans nor resourceLogs, nor Jaeger's data".to_owned()),
        }
    }

    fn take(&mut self, body: Vec<u8>, signal: Signal, encoding: Encoding, line: Option<u64>) {
        match self.importer.take(body, signal, encoding) {
            Ok(said) => {
                self.told.requests += 1;
                if !said.is_empty() {
                    self.problem(line, said);
                }
            }
            Err(why) => self.problem(line, why),
        }
    }

    fn problem(&mut self, line: Option<u64>, why: String) {
        self.told.problems.push(Problem { file: self.name.clone(), line, why });
    }
}

/// Which of the known objects a text is.
#[derive(serde::Deserialize)]
struct Shape {
    #[serde(rename = "resourceSpans")]
    resource_spans: Option<IgnoredAny>,
    #[serde(rename = "resource_spans")]
    with_underscore: Option<IgnoredAny>,
    #[serde(rename = "resourceLogs")]
    resource_logs: Option<IgnoredAny>,
    #[serde(rename = "resourceMetrics")]
    resource_metrics: Option<IgnoredAny>,
    data: Option<Json>,
}

/// Tells whether a text is a whole object of those that are known.
fn is_object(text: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Known {
        #[serde(
            rename = "resourceSpans",
            alias = "resource_spans",
            alias = "resourceLogs",
            alias = "resourceMetrics",
            alias = "data"
        )]
        _any: IgnoredAny,
    }
    serde_json::from_slice::<Known>(text).is_ok()
}

/// Tells JSON from protobuf. A protobuf request may begin like JSON behind a blank, but not without other control characters.
fn looks_like_json(beginning: &[u8]) -> bool {
    let is_text = beginning.iter().all(|byte| *byte >= b' ' || *byte == 0 || byte.is_ascii_whitespace());
    is_text && matches!(texts::bare(beginning).0.first(), Some(b'{' | b'[') | None)
}

/// Reads a line; `false` at the end. One that is too long ends the file.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    reader.by_ref().take(MAX_REQUEST + 1).read_until(b'\n', line)?;
    if line.len() as u64 > MAX_REQUEST {
        return Err(io::Error::other(format!("a line is longer than {MAX_REQUEST} bytes; nothing behind it was read")));
    }
    Ok(!line.is_empty())
}
