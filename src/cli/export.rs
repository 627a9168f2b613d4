//! `runspan export`: runs out of the store, as OTLP JSON, as pages, or as an archive of their folders.

mod archive;
mod otlp;
mod page;
mod send;

use std::fs;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use runspan::model::RunId;
use runspan::recovery;
use runspan::sinks::forward::Target;
use runspan::store::files::FilesReader;
use runspan::store::{Listed, RunReader};
use serde::Serialize;

use super::output::{count, counted, json_line};
use super::{CODE_FAILED, CODE_NO, CODE_USE, Done, Session, Stop, list};

/// What `export` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan export latest --to run.html
  runspan export 01KE9BZH80BG 01KE9C1BV014 --to runs.json
  runspan export --status error --since 24h --limit 0 --as otlp-jsonl | gzip > errors.jsonl.gz
  runspan export --since 7d --limit 0 --otlp http://localhost:4318
  runspan export --session chat-42 --as html --to pages/

Runs are named by ids, or chosen by the filters of `list`, which shows and exports the newest 50 unless --limit says more. Spans are given back as they came, but for what scrub and limits \
have marked; a step that has not ended is none yet, and a run that is not over is left out of files with spans and of a tar. A page loads nothing and runs no script.")]
pub struct Args {
    /// Runs: ids, their beginnings, trace ids, or `latest`
    ids: Vec<String>,
    /// Where to: a file, a folder (for pages, a file a run), or - for standard output
    #[arg(long, value_name = "FILE|DIR|-", default_value = "-")]
    to: PathBuf,
    /// As what; else the ending of --to says it: .json, .jsonl, .html, .tar
    #[arg(long = "as", value_enum, value_name = "FORMAT")]
    form: Option<Form>,
    /// Send the spans to an OTLP endpoint instead, as `serve --forward` names it; what it has taken before is not sent twice
    #[arg(long, value_name = "URL", conflicts_with_all = ["to", "form"], value_parser = target)]
    otlp: Option<Target>,
    /// Send what was sent before, too
    #[arg(long, requires = "otlp")]
    again: bool,
    #[command(flatten)]
    filters: list::Chosen,
}

/// As what runs are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// One OTLP JSON object of all runs: an ExportTraceServiceRequest
    OtlpJson,
    /// The same, one object a line for each run, as the Collector's file exporter writes them
    OtlpJsonl,
    /// A page for a browser, one a run
    Html,
    /// The runs' folders as they lie in the store; runs that are not over are left out
    Tar,
}

impl Args {
    fn form(&self, is_dir: bool) -> Form {
        let ending = self.to.extension().and_then(|ending| ending.to_str());
        self.form.unwrap_or(match ending {
            Some("html" | "htm") => Form::Html,
            Some("tar") => Form::Tar,
            Some("jsonl" | "ndjson") => Form::OtlpJsonl,
            _ if is_dir => Form::Html,
            _ => Form::OtlpJson,
        })
    }

    /// Refuses a name that seems to ask for something else than it would get.
    fn check_name(&self, is_dir: bool) -> Done {
        const KNOWN: &[&str] = &["json", "jsonl", "ndjson", "tar", "html", "htm"];
        let ending = self.to.extension().and_then(|ending| ending.to_str());
        match ending.filter(|ending| self.form.is_none() && !is_dir && !KNOWN.contains(ending)) {
            Some(ending) => Err(wrong_use(format!("nothing is written as .{}", super::output::safe(ending)))
                .hint("name a file that ends in .json, .jsonl, .tar or .html, or say what it is to hold with --as")),
            None => Ok(()),
        }
    }

    fn is_dir(&self) -> bool {
        self.to.to_string_lossy().ends_with('/') || self.to.is_dir()
    }
}

/// Where one export goes.
enum Way<'a> {
    /// Standard output.
    Out,
    /// A file, whole or not at all.
    File(&'a Path),
}

/// Exports the runs. One that cannot be read is told, and the others are exported all the same.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let reader = session.open_for(args.ids.first().map_or("latest", String::as_str))?;
    let runs = chosen(args, &reader, session)?;
    if let Some(target) = &args.otlp {
        return send_to(target, args.again, &reader, &runs, session);
    }
    let is_dir = args.is_dir();
    args.check_name(is_dir)?;
    match (args.form(is_dir), is_dir) {
        (Form::Html, true) => pages(args, &reader, &runs, session),
        (_, true) => Err(wrong_use("a folder takes pages: --as html, or name a file")),
        (Form::Html, false) => match runs.as_slice() {
            [run] => {
                let page = page::of(&reader, *run, session.now)?;
                write(&args.way(), page.as_bytes(), session)?;
                tell(&args.way(), 1, session)
            }
            runs => {
                let what = format!("{} runs make {} pages: name a folder with --to DIR/", runs.len(), runs.len());
                Err(wrong_use(what))
            }
        },
        (Form::Tar, false) => tar(args, &reader, &runs, session),
        (Form::OtlpJson, false) => spans(args, &reader, &runs, false, session),
        (Form::OtlpJsonl, false) => spans(args, &reader, &runs, true, session),
    }
}

fn wrong_use(what: impl Into<String>) -> Stop {
    Stop::failed(CODE_USE, what)
}

impl Args {
    fn way(&self) -> Way<'_> {
        if self.to.as_os_str() == "-" { Way::Out } else { Way::File(&self.to) }
    }
}

/// Finds the runs that are meant, each once: those named, else those that the filters let through.
fn chosen(args: &Args, reader: &FilesReader, session: &mut Session<'_>) -> Result<Vec<RunId>, Stop> {
    if !args.ids.is_empty() {
        let mut runs = Vec::new();
        for id in &args.ids {
            let run = recovery::resolve(reader, id)?;
            if !runs.contains(&run) {
                runs.push(run);
            }
        }
        return Ok(runs);
    }
    let mut query = args.filters.query(session.now);
    let limit = query.limit;
    // One more, to know whether there are more.
    query.limit = if limit == 0 { 0 } else { limit.saturating_add(1) };
    let mut listed = reader.list_runs(&query)?;
    if limit > 0 && listed.len() > limit {
        listed.truncate(limit);
        session.hint(&format!(
            "{} and no more, of those that there are: --limit 0 exports all",
            counted(limit as u64, "run")
        ));
    }
    let runs: Vec<RunId> = listed
        .iter()
        .map(|run| match run {
            Listed::Run(run) => run.summary.run_id,
            Listed::Damaged(run) => run.run_id,
        })
        .collect();
    if runs.is_empty() {
        return Err(Stop::failed(CODE_NO, "no run is like that")
            .hint("`runspan list` with the same filters shows the same runs"));
    }
    Ok(runs)
}

/// Counts what could not be exported, and decides the answer.
#[derive(Default)]
struct Left {
    runs: usize,
}

impl Left {
    /// Keeps what could be read; what is damaged is told and counted.
    fn keep<T>(&mut self, read: Result<T, Stop>, session: &mut Session<'_>) -> Result<Option<T>, Stop> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(stop @ Stop::Failed { code: CODE_NO, .. }) => {
                session.report(&stop);
                self.runs += 1;
                Ok(None)
            }
            Err(stop) => Err(stop),
        }
    }

    fn answer(&self) -> Done {
        if self.runs == 0 { Ok(()) } else { Err(Stop::AnswerIsNo) }
    }
}

fn target(url: &str) -> Result<Target, String> {
    Target::from_url(url).map_err(|error| error.to_string())
}

fn send_to(target: &Target, again: bool, reader: &FilesReader, runs: &[RunId], session: &mut Session<'_>) -> Done {
    let store = reader.layout().read()?;
    let shown = target.shown().to_owned();
    let failed = |why: String| {
        let stop = Stop::failed(CODE_FAILED, format!("cannot export to {shown}: {why}"));
        stop.hint("what it took is written down: the same command goes on behind it")
    };
    let mut courier = send::Courier::new(reader.layout().root(), target.clone(), runs, again).map_err(failed)?;
    let (mut left, mut open) = (Left::default(), 0);
    for run in runs {
        let Some(events) = left.keep(reader.get_events(*run, 0).map_err(Stop::from), session)? else { continue };
        let mut spans = otlp::Spans::default();
        open += spans.take(*run, &store.store_id, events);
        let mut tell = |why: &str| session.remark(&super::output::safe(why));
        courier.send(*run, spans.into_request(), &mut tell).map_err(failed)?;
    }
    let done = &courier.done;
    let before =
        if done.sent_before > 0 { format!(", {} sent before", count(done.sent_before)) } else { String::new() };
    let too_large = match done.too_large.len() as u64 {
        0 => String::new(),
        spans => format!(", {} too large", count(spans)),
    };
    session.print(&format!("{} sent{before}{too_large}\n", counted(done.sent, "span")))?;
    if open > 0 {
        session.remark(&format!("{} steps have not ended and were not sent", count(open as u64)));
    }
    for words in &done.left_out {
        session.remark(&super::output::safe(&format!("the endpoint left out {words}")));
    }
    for words in &done.too_large {
        session.remark(&super::output::safe(&format!("too large for the endpoint, and not sent: {words}")));
    }
    for words in &done.warnings {
        session.remark(&super::output::safe(&format!("the endpoint remarks {words}")));
    }
    if done.left_out.is_empty() && done.too_large.is_empty() { left.answer() } else { Err(Stop::AnswerIsNo) }
}

fn spans(args: &Args, reader: &FilesReader, runs: &[RunId], by_line: bool, session: &mut Session<'_>) -> Done {
    let store = reader.layout().read()?;
    let (mut left, mut all, mut lines, mut open) = (Left::default(), otlp::Spans::default(), Vec::new(), 0);
    for run in runs {
        let Some(summary) = left.keep(reader.get_run(*run).map_err(Stop::from), session)? else { continue };
        // Without its root, and its wait, it would be another run wherever it is taken in, and in the way of this one.
        if summary.status.is_open() {
            left.runs += 1;
            session.remark(&format!("run {run} is {}, and not over: it is left out", summary.status.as_str()));
            continue;
        }
        let Some(events) = left.keep(reader.get_events(*run, 0).map_err(Stop::from), session)? else { continue };
        open += all.take(*run, &store.store_id, events);
        if by_line {
            lines.extend_from_slice(as_line(&std::mem::take(&mut all).into_request())?.as_bytes());
        }
    }
    if left.runs == runs.len() {
        return left.answer();
    }
    if !by_line {
        lines = as_line(&all.into_request())?.into_bytes();
    }
    if open > 0 {
        session.remark(&format!("{} steps have not ended and are not in it", count(open as u64)));
    }
    write(&args.way(), &lines, session)?;
    tell(&args.way(), runs.len() - left.runs, session)?;
    left.answer()
}

/// Makes an archive of the runs' folders.
fn tar(args: &Args, reader: &FilesReader, runs: &[RunId], session: &mut Session<'_>) -> Done {
    let mut left = Left::default();
    let mut whole = Vec::new();
    for run in runs {
        let Some(summary) = left.keep(reader.get_run(*run).map_err(Stop::from), session)? else { continue };
        if summary.status.is_open() || reader.unwritten_runs().contains(run) {
            left.runs += 1;
            session.remark(&format!("run {run} is not over, or not all of it is in its folder: it is left out"));
            continue;
        }
        // A damaged log would be refused where it is imported.
        if left.keep(reader.get_events(*run, 0).map_err(Stop::from), session)?.is_some() {
            whole.push((summary.kind, *run));
        }
    }
    if whole.is_empty() && left.runs > 0 {
        // What is there stays: an archive of nothing is no use in its place.
        return left.answer();
    }
    let mut troubled = None;
    write_with(&args.way(), session, |out| {
        let mut archive = ::tar::Builder::new(out);
        for (kind, run) in &whole {
            let appended = archive::append(&mut archive, reader.layout(), *kind, *run);
            appended.inspect_err(|_| troubled = Some(*run))?;
        }
        archive.finish()
    })
    .map_err(|stop| match troubled {
        Some(run) => stop.hint(format!("it was run {run} that could not be given out")),
        None => stop,
    })?;
    tell(&args.way(), whole.len(), session)?;
    left.answer()
}

fn as_line(value: &impl Serialize) -> Result<String, Stop> {
    Ok(json_line(value)?)
}

fn pages(args: &Args, reader: &FilesReader, runs: &[RunId], session: &mut Session<'_>) -> Done {
    fs::create_dir_all(&args.to).map_err(|error| cannot_write(&args.to, &error))?;
    let mut left = Left::default();
    for run in runs {
        let Some(page) = left.keep(page::of(reader, *run, session.now), session)? else { continue };
        let path = args.to.join(format!("{run}.html"));
        write(&Way::File(&path), page.as_bytes(), session)?;
        session.print(&format!("{}\n", super::output::safe(&path.to_string_lossy())))?;
    }
    left.answer()
}

/// Says what a file holds now; what went to standard output speaks for itself.
fn tell(way: &Way<'_>, runs: usize, session: &mut Session<'_>) -> Done {
    let Way::File(path) = way else { return Ok(()) };
    session.print(&format!("{} in {}\n", counted(runs as u64, "run"), super::output::safe(&path.to_string_lossy())))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Stop {
    Stop::failed(CODE_FAILED, format!("cannot write {}: {error}", path.display()))
}

/// Writes to where it goes; a file is there whole or as it was.
fn write(way: &Way<'_>, bytes: &[u8], session: &mut Session<'_>) -> Done {
    write_with(way, session, |out| out.write_all(bytes))
}

fn write_with(
    way: &Way<'_>,
    session: &mut Session<'_>,
    fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Done {
    match way {
        Way::Out => fill(session.out).map_err(Stop::from_output),
        Way::File(path) => write_file(path, fill),
    }
}

/// Writes a file that is there whole or as it was. A new one only its owner reads: prompts and answers are for whoever has the
/// store. One that is there keeps its mode; what is no file of its own, a pipe, a device or a link, is written into, and may be left
/// half written.
pub(super) fn write_file(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Done {
    let there = fs::symlink_metadata(path).ok();
    if there.as_ref().is_some_and(|there| !there.is_file() && !there.is_dir()) {
        let into = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let written = into.and_then(|file| {
            let mut file = BufWriter::new(file);
            fill(&mut file)?;
            file.flush()
        });
        return written.map_err(|error| cannot_write(path, &error));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let making = path.with_file_name(name);
    let written = private(&making).and_then(|file| {
        let mut file = BufWriter::new(file);
        fill(&mut file)?;
        file.flush()?;
        if let Some(there) = there.filter(fs::Metadata::is_file) {
            fs::set_permissions(&making, there.permissions())?;
        }
        fs::rename(&making, path)
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&making);
        cannot_write(path, &error)
    })
}

fn private(path: &Path) -> std::io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
