//! `runspan doctor`: is everything in place for recording and reading?

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CString, OsString};
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::io::AsRawFd;
use std::path::{Path, PathBuf};

use runspan::model::{RunId, UnixNanos};
use runspan::sinks::forward::{Signal, Target};
use runspan::sinks::forwarder::sampler_warnings;
use runspan::sinks::metrics;
use runspan::sources::ring::{Left, Ring};
use runspan::store::files::layout::Layout;
use runspan::store::{FORMAT, StoreError};
use serde::Serialize;

use super::output::{GREEN, RED, YELLOW, safe, size};
use super::{CODE_NO, Done, Format, FoundBy, Session, Stop};

/// Less than this on disk needs a look.
const LOW_DISK: u64 = 1 << 30;
/// Less than this on disk and recording may stop any moment.
const NO_DISK: u64 = 64 << 20;
/// What a recording process takes in memory that outlives it.
const RING_BYTES: u64 = runspan::sources::ring::DEFAULT_CAPACITY;
/// A clock before this moment, 2024-01-01, is not set.
const EARLIEST: u64 = 1_704_067_200_000;

/// What `doctor` takes.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Verdict,
    detail: String,
    hint: Option<String>,
}

/// All of them.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Verdict::Ok, detail: detail.into(), hint: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, status: Verdict::Warning, detail: detail.into(), hint: Some(hint.into()) }
    }

    fn failed(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, status: Verdict::Failed, detail: detail.into(), hint: Some(hint.into()) }
    }
}

/// Looks at everything and says what it found.
pub fn run(_: &Args, session: &mut Session<'_>) -> Done {
    let (path, found) = session.store_path();
    let layout = Layout::new(&path);
    let mut checks =
        vec![Check::ok("version", format!("runspan {}, store format {FORMAT}", env!("CARGO_PKG_VERSION")))];
    checks.push(store(&layout, found));
    checks.push(writable(&path));
    checks.extend(private(&path));
    checks.push(disk(&path));
    checks.push(journals(&layout));
    checks.push(shared_memory());
    checks.push(clock(session.now));
    checks.extend(environment(&variables()));
    let ok = !checks.iter().any(|check| check.status == Verdict::Failed);
    match session.format {
        Format::Table => {
            for check in &checks {
                print_check(check, session)?;
            }
        }
        _ => session.print_data(&Report { ok, checks })?,
    }
    if ok { Ok(()) } else { Err(Stop::failed(CODE_NO, "not everything is in place")) }
}

fn print_check(check: &Check, session: &mut Session<'_>) -> Done {
    let look = session.look;
    let (sign, style) = match check.status {
        Verdict::Ok => ("✓", GREEN),
        Verdict::Warning => ("!", YELLOW),
        Verdict::Failed => ("✗", RED),
    };
    let mut text = format!("{} {:<14} {}\n", look.paint(style, sign), check.name, safe(&check.detail));
    if let Some(hint) = &check.hint {
        text.push_str(&format!("  {:<14} {}\n", "", look.paint(style, &safe(&session.with_store(hint)))));
    }
    session.print(&text)
}

fn store(layout: &Layout, found: FoundBy) -> Check {
    let path = layout.root().display();
    let why = match found {
        FoundBy::Flag => "named by --store",
        FoundBy::Variable => "named by RUNSPAN_STORE",
        FoundBy::Search => "the nearest one here or above",
        FoundBy::Nothing => "nobody named one",
    };
    match layout.read() {
        Ok(file) => Check::ok("store", format!("{path} ({why}), format {}, id {}", file.format, file.store_id)),
        Err(StoreError::NoStore { .. }) if found == FoundBy::Nothing => {
            Check::ok("store", format!("none yet; the first program that records makes {path}"))
        }
        Err(StoreError::NoStore { .. }) => Check::warning(
            "store",
            format!("no store at {path} ({why})"),
            "a program that records here makes it; check the path if one has",
        ),
        Err(error @ StoreError::NewerFormat { .. }) => Check::failed("store", error.to_string(), "update runspan"),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Check::failed(
                "store",
                format!("{error}{cause}"),
                "runs in it are still there: name another --store to go on",
            )
        }
    }
}

fn writable(store: &Path) -> Check {
    let there = existing(store);
    let refused = |why: String| {
        Check::failed("writable", why, format!("give this user the right to write in {}", there.display()))
    };
    if there != store {
        return match access(&there) {
            Ok(()) => Check::ok("writable", format!("{} can be made", store.display())),
            Err(error) => refused(format!("{} cannot be made: {error}", store.display())),
        };
    }
    // Rights are not all: a file system may be full, over quota or read-only.
    let probe = store.join(format!(".doctor-{}", RunId::fresh(UnixNanos::now())));
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe);
    let written = made.and_then(|mut file| std::io::Write::write_all(&mut file, &[0; 4096]));
    let _ = fs::remove_file(&probe);
    match written {
        Ok(()) => Check::ok("writable", "yes"),
        Err(error) => refused(format!("cannot write in {}: {error}", store.display())),
    }
}

fn private(store: &Path) -> Option<Check> {
    let mode = fs::metadata(store).ok()?.permissions().mode() & 0o777;
    Some(if mode & 0o077 == 0 {
        Check::ok("private", format!("only this user may read it (mode {mode:04o})"))
    } else {
        let hint = format!("chmod 700 {}: prompts and answers are in there", store.display());
        Check::warning("private", format!("others may read it (mode {mode:04o})"), hint)
    })
}

fn disk(store: &Path) -> Check {
    match free_bytes(&existing(store)) {
        Ok(free) if free < NO_DISK => {
            Check::failed("disk", format!("{} free", size(free)), "make room: recording stops")
        }
        Ok(free) if free < LOW_DISK => Check::warning("disk", format!("{} free", size(free)), "make room soon"),
        Ok(free) => Check::ok("disk", format!("{} free", size(free))),
        Err(error) => Check::warning("disk", format!("cannot tell the free space: {error}"), "look with df"),
    }
}

/// Counts the journals of processes that live and of those that died. Whether one lives is told by its lock.
fn journals(layout: &Layout) -> Check {
    let entries = match fs::read_dir(layout.journal()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Check::ok("journals", "none"),
        Err(error) => {
            let hint = "what processes have recorded last is in there";
            return Check::failed("journals", format!("cannot read {}: {error}", layout.journal().display()), hint);
        }
    };
    let (mut alive, mut dead, mut unreadable) = (0u32, 0u32, None);
    for entry in entries.filter_map(Result::ok) {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok()) else { continue };
        if is_locked(&entry.path().join("lock")) {
            alive += 1;
            continue;
        }
        dead += 1;
        if let Left::Unreadable { path, why } = Ring::find(&entry.path(), process) {
            unreadable = Some(format!("{}: {why}", path.display()));
        }
    }
    let detail = format!("{alive} of processes that record now, {dead} left by dead ones");
    match unreadable {
        Some(why) => Check::warning(
            "journals",
            format!("{detail}; what one had in shared memory cannot be read, {why}"),
            "runspan list takes it in when the user who recorded runs it; until then the rest is shown",
        ),
        None if dead == 0 => Check::ok("journals", detail),
        None => Check::warning("journals", detail, "runspan list takes them in where the store can be written"),
    }
}

fn is_locked(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    // SAFETY: a plain system call on an open file; closing it lets a lock that was free go again.
    let free = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } == 0;
    !free
}

/// Steps wait in memory that outlives their process until they are on disk.
fn shared_memory() -> Check {
    const NAME: &str = "shared memory";
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places: Vec<PathBuf> =
        [Some(PathBuf::from("/dev/shm")), runtime].into_iter().flatten().filter(|dir| is_tmpfs(dir)).collect();
    let with_room =
        places.iter().find_map(|dir| Some((dir, free_bytes(dir).ok().filter(|free| *free > 2 * RING_BYTES)?)));
    match (with_room, places.first()) {
        (Some((dir, free)), _) if access(dir).is_ok() => {
            Check::ok(NAME, format!("{} with {} free", dir.display(), size(free)))
        }
        (Some((dir, _)), _) => {
            let hint = "steps of the last moment are lost if the program is killed; give this user the right to write";
            Check::warning(NAME, format!("{} is not writable", dir.display()), hint)
        }
        (None, Some(dir)) => {
            let hint = format!(
                "each recording process takes {}; without it, steps of the last moment are lost if it is killed \
                 (in a container: --shm-size=256m)",
                size(RING_BYTES)
            );
            Check::warning(NAME, format!("{} has little room", dir.display()), hint)
        }
        (None, None) => {
            let hint = "steps of the last moment are lost if the program is killed; mount a tmpfs at /dev/shm";
            Check::warning(NAME, "no tmpfs", hint)
        }
    }
}

fn clock(now: UnixNanos) -> Check {
    if now.millis() < EARLIEST {
        let hint = "set it: ids, order and prices go by it";
        return Check::failed("clock", format!("it says {}", now.rfc3339_millis()), hint);
    }
    Check::ok("clock", now.rfc3339_millis())
}

/// The variables of our own that take a word, and `OTEL_SDK_DISABLED`, which means the same here.
const WORDS: &[(&str, &[&str])] = &[
    ("RUNSPAN_LOG", &["error", "warn", "info", "debug", "trace"]),
    ("RUNSPAN_CONTENT", &["none", "redacted", "full"]),
    ("RUNSPAN_DURABILITY", &["process", "power"]),
    ("RUNSPAN_DISABLED", &["true", "false", "1", "0"]),
    ("OTEL_SDK_DISABLED", &["true", "false"]),
];
/// Those that take anything.
const FREE: &[&str] = &[
    "RUNSPAN_CONFIG",
    "RUNSPAN_FORWARD",
    "RUNSPAN_FORWARD_KEEP",
    "RUNSPAN_INTEROP",
    "RUNSPAN_METRIC_SERIES",
    // Read by the configurations that come with runspan.
    "RUNSPAN_OTLP_GRPC",
    "RUNSPAN_SEARCH",
    "RUNSPAN_STORE",
];

/// Looks at the variables that are set; an empty one counts as not set. Values are not repeated: they may be secrets.
fn environment(set: &BTreeMap<String, OsString>) -> Vec<Check> {
    const NAME: &str = "environment";
    let broken = |variable: &str, why: &str| {
        Check::failed(
            NAME,
            format!("{variable}: {why}"),
            "set it anew; until then programs use the default, and serve does not start",
        )
    };
    let text =
        |name: &str| set.get(name).map(|value| value.to_string_lossy().trim().to_owned()).filter(|v| !v.is_empty());
    let mut checks = Vec::new();
    for (name, words) in WORDS {
        if text(name).is_some_and(|value| !words.contains(&value.to_ascii_lowercase().as_str())) {
            checks.push(broken(name, &format!("expected one of {}", words.join(", "))));
        }
    }
    for url in text("RUNSPAN_FORWARD").iter().flat_map(|urls| urls.split(',')).filter(|url| !url.trim().is_empty()) {
        if let Err(error) = Target::from_url(url) {
            checks.push(broken("RUNSPAN_FORWARD", &error.to_string()));
        }
    }
    if let Some(Err(bad)) = text("RUNSPAN_FORWARD_KEEP").map(|keep| keep.parse::<runspan::Keep>()) {
        checks.push(broken("RUNSPAN_FORWARD_KEEP", &bad.to_string()));
    }
    let pairs = text("OTEL_RESOURCE_ATTRIBUTES");
    if pairs.is_some_and(|pairs| !pairs.split(',').all(|pair| pair.trim().is_empty() || pair.contains('='))) {
        checks.push(broken("OTEL_RESOURCE_ATTRIBUTES", "expected key=value, with commas between several"));
    }
    // The exporters read their variables themselves, so they say best what is wrong with them.
    let lookup = |name: &str| set.get(name).cloned();
    let mut warnings = Target::from_lookup(Signal::Traces, lookup).1;
    warnings.extend(Target::from_lookup(Signal::Metrics, lookup).1);
    warnings.extend(metrics::Settings::from_lookup(lookup).1);
    warnings.extend(sampler_warnings(lookup));
    let mut told = HashSet::new();
    for warning in warnings.iter().filter(|warning| told.insert(&warning.variable)) {
        checks.push(broken(&warning.variable, &warning.message));
    }
    let is_known = |name: &str| FREE.contains(&name) || WORDS.iter().any(|(known, _)| *known == name);
    for name in set.keys().filter(|name| name.starts_with("RUNSPAN_") && !is_known(name)) {
        checks.push(Check::warning(NAME, format!("{name} is not known"), "nothing reads it: check the spelling"));
    }
    if checks.is_empty() {
        let names: Vec<&str> = set.keys().map(String::as_str).collect();
        let detail = if names.is_empty() { "no RUNSPAN_* or OTEL_* variables".to_owned() } else { names.join(", ") };
        checks.push(Check::ok(NAME, detail));
    }
    checks
}

/// Returns the variables that concern us.
fn variables() -> BTreeMap<String, OsString> {
    let is_ours = |name: &str| name.starts_with("RUNSPAN_") || name.starts_with("OTEL_");
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| is_ours(name) && !value.is_empty())
        .collect()
}

/// Returns the directory itself, or the nearest above that is there.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|dir| dir.is_dir()).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn access(dir: &Path) -> std::io::Result<()> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: a path that ends in a zero byte and lives through the call.
    match unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let path = CString::new(dir.as_os_str().as_bytes())?;
    // SAFETY: all zeros is a valid value of this plain C struct.
    let mut stats: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a path that ends in a zero byte, and a struct to fill; both live through the call.
    match unsafe { libc::statvfs(path.as_ptr(), &mut stats) } {
        0 => Ok((stats.f_bavail as u64).saturating_mul(stats.f_frsize as u64)),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(target_os = "linux")]
fn is_tmpfs(dir: &Path) -> bool {
    let Ok(path) = CString::new(dir.as_os_str().as_bytes()) else { return false };
    // SAFETY: all zeros is a valid value of this plain C struct.
    let mut stats: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a path that ends in a zero byte, and a struct to fill; both live through the call.
    let result = unsafe { libc::statfs(path.as_ptr(), &mut stats) };
    result == 0 && stats.f_type == libc::TMPFS_MAGIC
}

#[cfg(not(target_os = "linux"))]
fn is_tmpfs(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_variables_are_named_and_their_values_kept_secret() {
        let set = [
            ("RUNSPAN_CONTENT", "everything"),
            ("RUNSPAN_STOER", "/tmp/x"),
            ("RUNSPAN_DURABILITY", "power"),
            ("RUNSPAN_LOG", "DEBUG"),
            ("RUNSPAN_SEARCH", "off"),
            ("RUNSPAN_CONFIG", "runspan.yaml"),
            ("RUNSPAN_METRIC_SERIES", "100"),
            ("RUNSPAN_FORWARD", "http://127.0.0.1:4318,ftp://x"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "sk-secret"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "often"),
            ("OTEL_TRACES_SAMPLER", "coin"),
            ("RUNSPAN_FORWARD_KEEP", "errors,some"),
        ];
        let set = set.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        let checks = environment(&set);
        let told: Vec<&str> = checks.iter().filter_map(|check| check.detail.split([':', ' ']).next()).collect();
        assert_eq!(
            told,
            [
                "RUNSPAN_CONTENT",
                "RUNSPAN_FORWARD",
                "RUNSPAN_FORWARD_KEEP",
                "OTEL_EXPORTER_OTLP_HEADERS",
                "OTEL_EXPORTER_OTLP_TIMEOUT",
                "OTEL_METRIC_EXPORT_INTERVAL",
                "OTEL_TRACES_SAMPLER",
                "RUNSPAN_STOER",
            ],
            "{checks:?}"
        );
        assert!(!format!("{checks:?}").contains("sk-secret"));
    }

    #[test]
    fn a_clock_that_is_not_set_is_told() {
        assert_eq!(clock(UnixNanos(0)).status, Verdict::Failed);
        assert_eq!(clock(UnixNanos::now()).status, Verdict::Ok);
    }
}
