//! `runspan artifacts`: the files that a run produced.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use runspan::model::{RunId, UnixNanos};
use runspan::recovery;
use runspan::store::StoreError;
use runspan::store::files::FilesReader;
use runspan::store::files::artifacts::{Form, StoredArtifact};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::output::{RED, safe, size};
use super::table::{Cell, Column, Table};
use super::{CODE_FAILED, CODE_NO, CODE_USE, Done, Format, Session, Stop};

/// So many digits of a hash are shown; JSON has all.
const DIGITS: usize = 16;

/// Why a file can't be written out.
const NOT_KEPT: &str = "content policy kept nothing of it";
const NOT_HERE: &str = "it is not in the store";

/// What `artifacts` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are written into the directory that --to names and nowhere else; one that is there already is left alone unless \
--force is given. What is written is held against the size and the SHA-256 that the run says.

Examples:
  runspan artifacts latest
  runspan artifacts latest --extract report.md
  runspan artifacts 01KE9BZH80BG --extract all --to ./out
  runspan artifacts latest --json | jq '.[] | {name, sha256}'")]
pub struct Args {
    /// A run id, its beginning, a trace id, or `latest`
    id: String,
    /// Write a file out, or all of them
    #[arg(long, value_name = "NAME|all")]
    extract: Vec<String>,
    /// Where to [default: here]
    #[arg(long, value_name = "DIR", requires = "extract")]
    to: Option<PathBuf>,
    /// Put it in the place of a file that is there
    #[arg(long, requires = "extract")]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Extracted {
    name: String,
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

/// Lists the files, or writes them out.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let reader = session.open_for(&args.id)?;
    let run = recovery::resolve(&reader, &args.id)?;
    let artifacts = reader.artifacts(run)?;
    if args.extract.is_empty() {
        return list(run, &artifacts, session);
    }
    let to = session.cwd.join(args.to.as_deref().unwrap_or(Path::new("")));
    let wanted = wanted(run, &args.extract, &artifacts)?;
    fs::create_dir_all(&to).map_err(|error| failed(&to, &error))?;
    let mut extracted = Vec::with_capacity(wanted.len());
    for artifact in wanted {
        let written = extract(&reader, run, artifact, &to, args.force)?;
        if session.format == Format::Table {
            session.print(&format!("{}  {}\n", safe(&written.path.display().to_string()), length(written.bytes)))?;
        }
        extracted.push(written);
    }
    if session.format != Format::Table {
        session.print_data(&extracted)?;
    }
    if args.extract.iter().any(|name| name == "all") { tell_of_others(run, &artifacts, session) } else { Ok(()) }
}

/// Says which of all files were not written out. What a policy kept nothing of is no failure: that was wanted.
fn tell_of_others(run: RunId, artifacts: &[StoredArtifact], session: &mut Session<'_>) -> Done {
    let of = |form| artifacts.iter().filter(move |artifact| artifact.stored == form);
    for artifact in of(Form::None) {
        session.remark(&safe(&format!("{}: {NOT_KEPT}", artifact.info.name)));
    }
    let missing: Vec<&str> = of(Form::Missing).map(|artifact| artifact.info.name.as_str()).collect();
    match missing.split_first() {
        None if artifacts.is_empty() => {
            session.remark(&format!("run {run} produced no files"));
            Ok(())
        }
        None => Ok(()),
        Some((first, others)) => Err(Stop::Failed {
            code: CODE_NO,
            what: format!("{first}: {NOT_HERE}"),
            more: others.iter().map(|name| format!("{name}: {NOT_HERE}")).collect(),
            hint: Some(format!("runspan artifacts {run} shows what there is")),
        }),
    }
}

fn list(run: RunId, artifacts: &[StoredArtifact], session: &mut Session<'_>) -> Done {
    if session.format != Format::Table {
        return session.print_data(&artifacts);
    }
    if artifacts.is_empty() {
        return session.print(&format!("run {run} produced no files\n"));
    }
    let mut table = Table::new(&[
        Column::new("NAME", 0).shrinks_to(12),
        Column::new("TYPE", 2).shrinks_to(8),
        Column::new("SIZE", 0).right(),
        Column::new("STORED", 1),
        Column::new("SHA-256", 3),
    ]);
    for artifact in artifacts {
        let style = if artifact.stored == Form::Missing { RED } else { Default::default() };
        table.row(vec![
            Cell::new(&artifact.info.name),
            Cell::new(artifact.info.media_type.as_deref().unwrap_or_default()),
            Cell::new(length(artifact.info.bytes)),
            Cell::new(stored(artifact)).style(style),
            Cell::new(artifact.info.sha256.get(..DIGITS).unwrap_or_default()),
        ]);
    }
    let table = table.render(session.look);
    session.print(&table)
}

/// Formats a number of bytes that may be small.
fn length(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { size(bytes) }
}

fn stored(artifact: &StoredArtifact) -> String {
    let redacted = if artifact.info.content.is_some() { ", secrets replaced" } else { "" };
    match (artifact.stored, artifact.stored_bytes) {
        (Form::Plain, _) if redacted.is_empty() => "as given".to_owned(),
        (Form::Plain, _) => "secrets replaced".to_owned(),
        (Form::Compressed, bytes) => format!("{} of zstd{redacted}", length(bytes.unwrap_or(0))),
        (Form::None, _) => "not kept by policy".to_owned(),
        (Form::Missing, _) => "not here".to_owned(),
    }
}

/// Chooses the files that are asked for; `all` are those that are here.
fn wanted<'a>(run: RunId, names: &[String], artifacts: &'a [StoredArtifact]) -> Result<Vec<&'a StoredArtifact>, Stop> {
    let is_here = |artifact: &&StoredArtifact| matches!(artifact.stored, Form::Plain | Form::Compressed);
    let mut wanted: Vec<&StoredArtifact> = Vec::new();
    for name in names {
        let named = artifacts.iter().filter(|artifact| artifact.info.name == *name || name == "all");
        let found: Vec<&StoredArtifact> = named.clone().filter(is_here).collect();
        if found.is_empty() && name != "all" {
            let why = match named.map(|artifact| artifact.stored).next() {
                Some(Form::None) => NOT_KEPT,
                Some(_) => NOT_HERE,
                None => "the run has no such file",
            };
            return Err(Stop::failed(CODE_NO, format!("{name}: {why}"))
                .hint(format!("runspan artifacts {run} shows what there is")));
        }
        wanted.extend(found);
    }
    // Told twice, it is one file.
    let mut seen = std::collections::HashSet::new();
    wanted.retain(|artifact| seen.insert(artifact.info.name.as_str()));
    Ok(wanted)
}

/// Writes one file under another name first, so that what has the right name is whole.
fn extract(
    reader: &FilesReader,
    run: RunId,
    artifact: &StoredArtifact,
    to: &Path,
    force: bool,
) -> Result<Extracted, Stop> {
    let info = &artifact.info;
    // The store opens no other names either.
    if Path::new(&info.name).file_name().is_none_or(|name| name != info.name.as_str()) {
        return Err(Stop::failed(CODE_NO, format!("{:?} is no name of a file", info.name)));
    }
    let (path, making) = (to.join(&info.name), to.join(format!(".runspan-{}", RunId::fresh(UnixNanos::now()))));
    let mut content = reader.open_artifact(run, info)?;
    let made = File::options().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&making);
    let mut file = made.map_err(|error| failed(&making, &error))?;
    let written = copy(&mut content, &mut file).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => damaged(run, &info.name, &error.to_string()),
        _ => failed(&making, &error),
    });
    let named = written.and_then(|(bytes, sha256)| {
        if (bytes, &sha256) != (info.bytes, &info.sha256) {
            return Err(damaged(run, &info.name, "it is not what the run says it was"));
        }
        let named = if force { fs::rename(&making, &path) } else { name_anew(&making, &path) };
        named.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Stop::failed(CODE_USE, format!("{} is there already", path.display())).hint("--force replaces it")
            }
            _ => failed(&path, &error),
        })?;
        Ok(Extracted { name: info.name.clone(), path: path.clone(), bytes, sha256 })
    });
    // After a rename there is none.
    let _ = fs::remove_file(&making);
    named
}

/// Gives a file a name that nothing has.
fn name_anew(making: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(making, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // No second names here: an empty file holds the place.
        Err(_) => File::create_new(path).and_then(|_| fs::rename(making, path)),
        linked => linked,
    }
}

fn copy(content: &mut dyn Read, file: &mut File) -> io::Result<(u64, String)> {
    let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                digest.update(&buffer[..read]);
                file.write_all(&buffer[..read])?;
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((bytes, runspan::model::hex(&digest.finalize())))
}

fn damaged(run: RunId, name: &str, why: &str) -> Stop {
    Stop::from(StoreError::Damaged { run, why: format!("artifacts/{name}: {why}") })
}

fn failed(path: &Path, error: &io::Error) -> Stop {
    Stop::failed(CODE_FAILED, format!("cannot write {}: {error}", path.display()))
}
