//! How fast what a dead process left is taken over, and what the journal and the run store take beside bare writes.
//!
//! ```sh
//! cargo bench --bench recovery --features cli           # 200 MB of journal, 2 GB of temporary disk
//! cargo bench --bench recovery --features cli -- 50     # MB
//! ```
//!
//! # Method
//!
//! A process of its own records runs of 20 steps, with redaction on, to an endpoint where nobody listens, until its
//! journal has the size asked for, and ends: its journal stays for the upstream. Then
//!
//! - `runspan list` is timed with all of it in the run store, so that only the upstream lags behind;
//! - the runs are moved out of the store and its position is deleted, as if the process had died before the store took in
//!   a single record, and `runspan list` is timed again: that is recovery, scaled to a GiB. Its peak memory is the
//!   kernel's `ru_maxrss`.
//!   Store apply is the same time by records, beside as many bytes as the store then has: in one file, a `write` a MiB,
//!   with and without `fdatasync`; and in as many folders of two files each, which is what file systems are slow at;
//! - the frames of that journal are appended to a new one, 1,024 a commit, beside `write` of the same bytes by the same
//!   groups; and the same with durability `power`, beside `write` + `fdatasync`. Median of 3, in turn.
//!
//! The bench fails when runs or steps are missing after recovery, or frames in the new journal. Nothing is promised but
//! that; the figures are wall times and depend on the disk, which is that of the folder for temporary files (`TMPDIR`).

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use runspan::Durability;
use runspan::journal::{FrameKind, JournalReader, JournalWriter, Options, list_processes};
use tracing_subscriber::layer::SubscriberExt;

const MEGABYTES: u64 = 200;
const RUN_STEPS: u64 = 20;
const GROUP: usize = 1_024;
const TIMES: usize = 3;

type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    // Cargo itself passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["--record", store, megabytes] => record(Path::new(store), megabytes),
        [] => all(MEGABYTES),
        [megabytes] => megabytes.parse().map_err(Failed::from).and_then(all),
        _ => Err("usage: recovery [MB]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn all(megabytes: u64) -> Result<(), Failed> {
    let build = if cfg!(debug_assertions) { "a debug build: figures mean nothing" } else { "release build" };
    println!("{} cores, {build}, {megabytes} MB of journal", std::thread::available_parallelism()?);
    let dir = tempfile::tempdir()?;
    let store = dir.path().join("store");
    let recorded = without_settings(Command::new(std::env::current_exe()?))
        .arg("--record")
        .arg(&store)
        .arg(megabytes.to_string())
        .output()?;
    if !recorded.status.success() {
        return Err(format!("recording: {}: {}", recorded.status, String::from_utf8_lossy(&recorded.stderr)).into());
    }
    let spans: u64 = String::from_utf8(recorded.stdout)?.trim().parse()?;
    recovery(&store, spans)?;
    append(dir.path(), &read_frames(&store.join("journal"))?)
}

/// Leaves out the settings of whoever runs this.
fn without_settings(mut command: Command) -> Command {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    for name in names.filter(|name| name.starts_with("RUNSPAN_") || name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command
}

/// Records until the journal is large enough, and prints how many spans that took; for the child process.
fn record(store: &Path, megabytes: &str) -> Result<(), Failed> {
    let wanted = megabytes.parse::<u64>()? * 1_000_000;
    // Nobody listens on a port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let url = format!("http://127.0.0.1:{port}");
    let (layer, guard) = runspan::builder().store(store).forward(url).journal_bytes(16 << 30).build()?;
    let mut runs = 0;
    let work = || -> Result<(), Failed> {
        loop {
            record_run();
            runs += 1;
            // Recording is not what is measured: the ring must not overflow.
            if runs % 250 == 0 && !guard.flush(Duration::from_secs(120)) {
                return Err("the store cannot be written".into());
            }
            if runs % 250 == 0 && size_of(&store.join("journal"))? >= wanted {
                return Ok(());
            }
        }
    };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work)?;
    let report = guard.shutdown(Duration::from_secs(5));
    let spans = runs * (RUN_STEPS + 1);
    if (report.stored, report.pending, report.dropped.len()) != (spans, spans, 0) {
        return Err(format!("of {spans} spans: {report:?}").into());
    }
    println!("{spans}");
    Ok(())
}

fn record_run() {
    let agent =
        tracing::info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "bench");
    let _in_agent = agent.enter();
    for step in 0..RUN_STEPS {
        tracing::info_span!(
            "chat",
            gen_ai.operation.name = "chat",
            gen_ai.provider.name = "openai",
            gen_ai.request.model = "gpt-4o-mini",
            gen_ai.request.temperature = 0.2f64,
            gen_ai.usage.input_tokens = 170 + step as i64,
            gen_ai.usage.output_tokens = 18i64,
            gen_ai.input.messages = "What is the weather in Paris, and which train do I take?",
            server.address = "api.openai.com",
        )
        .in_scope(|| tracing::info!(chunks = 12i64, "read the answer"));
    }
}

/// A frame of a journal, as it is to be appended again.
struct Frame {
    kind: FrameKind,
    resource: Vec<u8>,
    payload: Vec<u8>,
}

/// Reads all journals of a folder.
fn each_frame(journals: &Path, mut tell: impl FnMut(&runspan::journal::Frame<'_>)) -> Result<(), Failed> {
    for process in list_processes(journals)? {
        let mut reader = JournalReader::open_read_only(journals, &process.name, "bench")?;
        loop {
            let batch = reader.next_batch(1 << 20)?;
            if batch.is_empty() {
                break;
            }
            batch.frames().for_each(|frame| tell(&frame));
        }
    }
    Ok(())
}

fn count_frames(journals: &Path) -> Result<u64, Failed> {
    let mut frames = 0;
    each_frame(journals, |_| frames += 1)?;
    Ok(frames)
}

fn read_frames(journals: &Path) -> Result<Vec<Frame>, Failed> {
    let mut frames = Vec::new();
    each_frame(journals, |frame| {
        frames.push(Frame {
            kind: frame.kind,
            resource: frame.resource.map(|bytes| bytes.to_vec()).unwrap_or_default(),
            payload: frame.payload.to_vec(),
        });
    })?;
    Ok(frames)
}

fn recovery(store: &Path, spans: u64) -> Result<(), Failed> {
    // Not kept: what this process holds at a `fork` counts as the child's peak.
    let records = count_frames(&store.join("journal"))?;
    let journal = size_of(&store.join("journal"))?;
    let (warm, _) = list(store, spans)?;
    let (behind, _) = list(store, spans)?;
    // Aside and not away: a file system may be slow to use again what was deleted a moment ago.
    fs::rename(store.join("agents"), store.with_file_name("aside"))?;
    fs::rename(store.join("index.log"), store.with_file_name("aside.log"))?;
    for process in list_processes(&store.join("journal"))? {
        fs::remove_file(store.join("journal").join(process.name).join("positions").join("store"))?;
    }
    let (recovered, peak_kib) = list(store, spans)?;
    let (after, after_kib) = list(store, spans)?;
    println!("\n{spans} spans, {records} records, {} in the journal", mb(journal));
    println!("{:<52}{:>10.3} s", "runspan list, all stored, the upstream behind", behind.min(warm).as_secs_f64());
    let memory = format!("at most {} of memory", mb(peak_kib << 10));
    println!("{:<52}{:>10.3} s, {memory}", "runspan list, nothing stored: recovery", recovered.as_secs_f64());
    let memory = format!("at most {} of memory", mb(after_kib << 10));
    println!("{:<52}{:>10.3} s, {memory}", "runspan list after it", after.as_secs_f64());
    // What both do besides recovery is not part of it.
    let took = recovered.saturating_sub(after);
    let per_gib = took.as_secs_f64() * (1u64 << 30) as f64 / journal as f64;
    println!("{:<52}{per_gib:>10.1} s", "recovery of 1 GiB of journal");
    let written = size_of(&store.join("agents"))?;
    let runs = spans / (RUN_STEPS + 1);
    let folders = folders(store, runs, written)?;
    let (plain, synced) = (raw(store, written, false)?, raw(store, written, true)?);
    let rate = |time: Duration| records as f64 / time.as_secs_f64();
    println!("\nstore apply, {} in the store{:>32}{:>10}", mb(written), "records/s", "ratio");
    println!("{:<48}{:>12.0}{:>10.1}", "one write a MiB of as many bytes", rate(plain), 1.0);
    println!("{:<48}{:>12.0}{:>10.1}", "one write + fdatasync a MiB", rate(synced), ratio(synced, plain));
    println!("{:<48}{:>12.0}{:>10.1}", "as many folders of two files, bare", rate(folders), ratio(folders, plain));
    println!("{:<48}{:>12.0}{:>10.1}", "from the journal to the run store", rate(took), ratio(took, plain));
    Ok(())
}

fn ratio(time: Duration, baseline: Duration) -> f64 {
    time.as_secs_f64() / baseline.as_secs_f64()
}

fn mb(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// Times `runspan list`, which takes in what is left, and checks the sum of its steps; returns its peak memory too.
fn list(store: &Path, spans: u64) -> Result<(Duration, u64), Failed> {
    use std::os::unix::process::ExitStatusExt;
    let out = store.with_file_name("listed");
    let begun = Instant::now();
    let child = without_settings(Command::new(env!("CARGO_BIN_EXE_runspan")))
        .args(["list", "--limit", "0", "--json", "--store"])
        .arg(store)
        .stdout(File::create(&out)?)
        .spawn()?;
    let mut status = 0;
    // SAFETY: rusage is plain data, and zeros are a valid value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: our own child, waited for here alone, and valid places for the answers.
    let waited = unsafe { libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage) };
    let took = begun.elapsed();
    if waited < 0 || !std::process::ExitStatus::from_raw(status).success() {
        return Err("runspan list failed".into());
    }
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&fs::read(&out)?)?;
    let steps: u64 = listed.iter().filter_map(|run| run["steps_total"].as_u64()).sum();
    if steps != spans {
        return Err(format!("{steps} spans are in the store, {spans} were recorded").into());
    }
    Ok((took, usage.ru_maxrss as u64))
}

fn remove(dir: &Path) -> Result<(), Failed> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes as many bytes, a MiB at a time, on the same disk.
fn raw(store: &Path, bytes: u64, is_synced: bool) -> Result<Duration, Failed> {
    let path = store.with_file_name("raw");
    let chunk = vec![b'x'; 1 << 20];
    let mut file = File::create(&path)?;
    let begun = Instant::now();
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&chunk)?;
        if is_synced {
            file.sync_data()?;
        }
    }
    let took = begun.elapsed();
    fs::remove_file(path)?;
    Ok(took)
}

/// Makes a folder with two files for each run, of as many bytes in all.
fn folders(store: &Path, runs: u64, bytes: u64) -> Result<Duration, Failed> {
    let dir = store.with_file_name("folders");
    fs::create_dir(&dir)?;
    let log = vec![b'x'; (bytes / runs.max(1)).saturating_sub(1 << 10) as usize];
    let begun = Instant::now();
    for run in 0..runs {
        let folder = dir.join(run.to_string());
        fs::create_dir(&folder)?;
        fs::write(folder.join("events.jsonl"), &log)?;
        fs::write(folder.join("run.yaml"), &log[..log.len().min(1 << 10)])?;
    }
    Ok(begun.elapsed())
}

/// Appends the frames to journals and as bare bytes to files.
fn append(dir: &Path, frames: &[Frame]) -> Result<(), Failed> {
    // With `power` each commit waits for the disk: a tenth is enough.
    for (durability, frames) in [
        (Durability::Process, frames),
        (Durability::Power, &frames[..(frames.len() / 10).max(GROUP.min(frames.len()))]),
    ] {
        let is_synced = durability == Durability::Power;
        let (mut journals, mut files) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            files.push(append_bare(dir, frames, is_synced)?);
            journals.push(append_journal(dir, frames, durability)?);
        }
        let (journal, file) = (middle(journals), middle(files));
        let rate = |time: Duration| frames.len() as f64 / time.as_secs_f64();
        println!(
            "\njournal append, {} records, {GROUP} a commit, {durability:?}{:>14}{:>10}",
            frames.len(),
            "records/s",
            "ratio"
        );
        let bare = if is_synced { "write + fdatasync of the same bytes" } else { "write of the same bytes" };
        println!("{bare:<48}{:>12.0}{:>10.1}", rate(file), 1.0);
        println!("{:<48}{:>12.0}{:>10.1}", "append and commit", rate(journal), ratio(journal, file));
    }
    Ok(())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn append_bare(dir: &Path, frames: &[Frame], is_synced: bool) -> Result<Duration, Failed> {
    let path = dir.join("bare");
    let groups: Vec<Vec<u8>> = frames
        .chunks(GROUP)
        .map(|group| vec![b'x'; group.iter().map(|frame| (32 + frame.payload.len()).next_multiple_of(8)).sum()])
        .collect();
    let mut file = File::create(&path)?;
    let begun = Instant::now();
    for group in &groups {
        file.write_all(group)?;
        if is_synced {
            file.sync_data()?;
        }
    }
    let took = begun.elapsed();
    fs::remove_file(path)?;
    Ok(took)
}

fn append_journal(dir: &Path, frames: &[Frame], durability: Durability) -> Result<Duration, Failed> {
    let (journals, name) = (dir.join("journals"), "bench");
    let options = Options { durability, max_bytes: 64 << 30, ..Options::default() };
    let mut writer = JournalWriter::create(&journals, name, options)?;
    let begun = Instant::now();
    for group in frames.chunks(GROUP) {
        for frame in group {
            let resource = writer.register_resource(&frame.resource)?;
            writer.append(frame.kind, resource, 0, &frame.payload)?;
        }
        writer.commit()?;
    }
    let took = begun.elapsed();
    drop(writer);
    let read = count_frames(&journals)?;
    remove(&journals)?;
    if read == frames.len() as u64 {
        Ok(took)
    } else {
        Err(format!("{read} frames of {} are in the journal", frames.len()).into())
    }
}

/// Sums up the files in a folder.
fn size_of(dir: &Path) -> Result<u64, Failed> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
