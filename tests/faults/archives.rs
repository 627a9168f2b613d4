//! Archives that nobody in their right mind would import: real ones with headers, names, lengths and contents changed, and
//! those of which far more comes out than went in.
//!
//! Whatever an archive holds, `runspan import` ends soon and within its memory, writes nothing outside of the store, and
//! leaves a store that `runspan verify` finds whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::fuzz::{Body, recordings, spoil};
use crate::random::{Random, trial_seed};
use crate::serve::peak_kib;
use crate::store;
use crate::table::Row;
use crate::{Failed, Suite};

/// Longest that one import may take, on a machine with other work.
const IMPORT_LIMIT: Duration = Duration::from_secs(60);
/// What a command may take of memory, in KiB.
const MEMORY_KIB: i64 = 100 << 10;
/// Bytes of a block of a tar.
const BLOCK: usize = 512;
/// Where a header has its fields.
const NAME: std::ops::Range<usize> = 0..100;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: std::ops::Range<usize> = 157..257;
const PREFIX: std::ops::Range<usize> = 345..500;

/// Imports spoiled archives, and bombs.
pub fn imports(suite: &Suite) -> Vec<Row> {
    let promised = "nothing outside the store is written; it verifies; under 100 MiB; no panic";
    let row = |name: &str, injected: &str| {
        let mut row = Row::new(name, promised, suite.seed);
        row.injected = injected.to_owned();
        row
    };
    let mut odd = row("odd archives", "real ones with headers, names, links, lengths and contents changed");
    let mut bombs =
        row("archives that grow", "long names, sparse files, zeros, aliases: a thousandfold of what goes in");
    let sample = match Sample::make() {
        Ok(sample) => sample,
        Err(error) => {
            odd.count(suite.seed, Err(error));
            return vec![odd];
        }
    };
    let (mut seen, mut refused, mut peak) = (0, 0, 0);
    for trial in 0..suite.count(40, 5_000) {
        let seed = trial_seed(suite.seed, &odd.scenario, trial);
        let outcome = sample.trial(&mut Random::of(seed)).map(|said| {
            (seen, refused) = (seen + said.runs, refused + u64::from(!said.is_whole));
            peak = peak.max(said.peak_kib);
        });
        odd.count(seed, outcome);
    }
    odd.seen = format!("{refused} refused or told to be broken, {seen} runs taken, peak {} MiB", peak >> 10);
    let mut peak = 0;
    for (name, write) in BOMBS {
        let outcome = sample.bomb(write).map(|said| peak = peak.max(said.peak_kib));
        bombs.count(suite.seed, outcome.map_err(|error| format!("{name}: {error}").into()));
    }
    bombs.seen = format!("peak {} MiB", peak >> 10);
    vec![odd, bombs]
}

/// A file of an archive: what describes it, and what it holds.
#[derive(Clone)]
struct Entry {
    header: [u8; BLOCK],
    content: Vec<u8>,
}

/// What real archives hold.
struct Sample {
    entries: Vec<Entry>,
    bodies: Vec<Body>,
}

/// What an import came to.
struct Said {
    runs: u64,
    is_whole: bool,
    peak_kib: i64,
}

impl Sample {
    /// Records what real senders have sent, and gives it out again.
    fn make() -> Result<Self, Failed> {
        let (dir, bodies) = (tempfile::tempdir()?, recordings()?);
        let (store, archive) = (dir.path().join("store"), dir.path().join("runs.tar"));
        let traces = bodies.iter().filter(|body| body.signal == "traces" && !body.is_json && body.bytes.len() < 20_000);
        for (n, body) in traces.enumerate().take(12) {
            let file = dir.path().join(format!("{n}.pb"));
            fs::write(&file, &body.bytes)?;
            store::runspan(&store, &["import", &file.to_string_lossy()])?;
        }
        let said = store::runspan(&store, &["export", "--limit", "0", "--to", &archive.to_string_lossy()])?;
        let entries = entries_of(&fs::read(&archive)?);
        if entries.len() < 8 {
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            return Err(format!("an archive of {} files is too small: {why}", entries.len()).into());
        }
        Ok(Self { entries, bodies })
    }

    fn trial(&self, random: &mut Random) -> Result<Said, Failed> {
        let place = Place::make()?;
        let mut entries = self.entries.clone();
        entries.truncate(2 + random.below(entries.len() as u64) as usize);
        for _ in 0..1 + random.below(3) {
            self.change(random, &mut entries, &place);
        }
        let mut archive: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
        archive.extend([0; 2 * BLOCK]);
        if random.below(6) == 0 {
            spoil(random, &mut archive, &self.bodies);
        }
        if random.below(3) == 0 {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(&archive)?;
            archive = packed.finish()?;
            if random.below(4) == 0 {
                spoil(random, &mut archive, &self.bodies);
            }
        }
        fs::write(place.archive(), archive)?;
        place.import()
    }

    /// Changes one thing of an archive.
    fn change(&self, random: &mut Random, entries: &mut Vec<Entry>, place: &Place) {
        let at = random.below(entries.len() as u64) as usize;
        let Some(entry) = entries.get(at).cloned() else { return };
        let mut changed = entry.clone();
        match random.below(12) {
            0 | 1 => changed.set_name(&place.odd_name(random, &entry.name())),
            2 => {
                changed.header[TYPE] = random.pick(b"\x000123456789LKxgSADVMNX").unwrap_or_default();
                let link = place.odd_name(random, &entry.name());
                put(&mut changed.header[LINK], link.as_bytes());
            }
            3 => {
                let sizes = ["0", "1", "777", "77777777777", "77777777776", "-1", "", "8", "10000000", "\u{1}"];
                let odd = random.pick(&sizes).unwrap_or_default();
                put(&mut changed.header[SIZE], odd.as_bytes());
                if random.below(3) == 0 {
                    changed.header[SIZE].copy_from_slice(&[0xff; 12]);
                    changed.header[SIZE.start] = random.pick(&[0x80, 0xff]).unwrap_or_default();
                }
            }
            4 | 5 => {
                spoil(random, &mut changed.content, &self.bodies);
                changed.set_size();
            }
            // What it says is right, and what it is has another length.
            6 => spoil(random, &mut changed.content, &self.bodies),
            7 => {
                changed.content = zstd::encode_all(changed.content.as_slice(), 1).unwrap_or_default();
                if random.below(2) == 0 {
                    spoil(random, &mut changed.content, &self.bodies);
                }
                changed.set_name(&entry.name().replace("events.jsonl", "events.jsonl.zst"));
                changed.set_size();
            }
            8 => {
                let other = &entries[random.below(entries.len() as u64) as usize];
                changed.set_name(&other.name());
            }
            9 => {
                // Names of what comes next, in the two ways that there are.
                let name = place.odd_name(random, &entry.name());
                let mut before = entry.clone();
                let is_pax = random.below(2) == 0;
                before.header[TYPE] = if is_pax { b'x' } else { random.pick(b"LK").unwrap_or_default() };
                let field = random.pick(&["path", "size", "linkpath", "GNU.sparse.name", "GNU.sparse.realsize"]);
                let record = format!(" {}={name}\n", field.unwrap_or_default());
                before.content =
                    if is_pax { format!("{}{record}", record.len() + 2).into_bytes() } else { name.into_bytes() };
                before.set_size();
                entries.insert(at, before);
                return;
            }
            10 => {
                let other = entries[random.below(entries.len() as u64) as usize].clone();
                entries.insert(at, other);
                return;
            }
            _ => {
                entries.remove(at);
                return;
            }
        }
        if random.below(20) > 0 {
            changed.set_checksum();
        }
        entries[at] = changed;
    }

    /// Imports what `write` makes of a real archive.
    fn bomb(&self, write: Bomb) -> Result<Said, Failed> {
        let place = Place::make()?;
        let mut archive = GzEncoder::new(BufWriter::new(File::create(place.archive())?), Compression::fast());
        write(&self.entries, &mut archive)?;
        archive.finish()?.flush()?;
        place.import()
    }
}

impl Entry {
    fn name(&self) -> String {
        let name = self.header[NAME].split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    fn set_name(&mut self, name: &str) {
        put(&mut self.header[NAME], name.as_bytes());
        if self.header[257..265] == *b"ustar\x0000" {
            self.header[PREFIX].fill(0);
        }
        self.set_checksum();
    }

    fn set_size(&mut self) {
        let size = format!("{:011o}", self.content.len());
        put(&mut self.header[SIZE], size.as_bytes());
        self.set_checksum();
    }

    fn set_checksum(&mut self) {
        self.header[CHECKSUM].fill(b' ');
        let sum: u32 = self.header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut self.header[CHECKSUM], format!("{sum:06o}\0 ").as_bytes());
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [&self.header[..], &self.content].concat();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }
}

/// Writes a field: what is too long is cut, and what is left is zeros.
fn put(field: &mut [u8], value: &[u8]) {
    let length = field.len().min(value.len());
    field.fill(0);
    field[..length].copy_from_slice(&value[..length]);
}

/// Reads a sound archive.
fn entries_of(mut archive: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((header, rest)) = archive.split_first_chunk::<BLOCK>() {
        let size = String::from_utf8_lossy(&header[SIZE]).trim_matches(['\0', ' ']).to_owned();
        let Ok(size) = usize::from_str_radix(&size, 8) else { break };
        let Some(content) = rest.get(..size) else { break };
        entries.push(Entry { header: *header, content: content.to_vec() });
        archive = rest.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
    }
    entries
}

/// Where an archive is imported: a folder with a store, and with something beside it that nobody may touch.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn make() -> Result<Self, Failed> {
        let place = Self { dir: tempfile::tempdir()? };
        fs::write(place.dir.path().join("beside"), "untouched")?;
        fs::create_dir(place.dir.path().join("folder"))?;
        Ok(place)
    }

    fn archive(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Makes another name of one that a file of an archive has.
    fn odd_name(&self, random: &mut Random, name: &str) -> String {
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        let beside = self.dir.path().join("beside").display().to_string();
        let odd = random.below(20);
        match odd {
            0 => format!("{folder}/artifacts/{file}"),
            1 => format!("{folder}/../../../beside"),
            2 => format!("{folder}/artifacts/../../../../folder/x"),
            3 => beside,
            4 => format!("/{name}"),
            5 => format!("../{name}"),
            6 => format!("./{name}"),
            7 => name.to_ascii_lowercase(),
            8 => name.replace("agents", "workflows"),
            9 => format!("{folder}/artifacts/{}", "n".repeat(random.below(300) as usize)),
            10 => format!("{folder}/artifacts/a\nb\u{1b}[2J\u{202e}"),
            11 => format!("{folder}\\..\\..\\beside"),
            12 => format!("{folder}/{file}/x"),
            13 => format!("{folder}/artifacts"),
            14 => "store.yaml".to_owned(),
            15 => "journal/01KE9BZH800000000000000001/lock".to_owned(),
            16 => format!("{folder}/pinned"),
            17 => format!("{folder}/events.chain"),
            18 => format!("{folder}/artifacts/{file}\0.png"),
            _ => name.replace("/0", "/7"),
        }
    }

    /// Imports the archive and looks at what came of it.
    fn import(&self) -> Result<Said, Failed> {
        let (said, peak_kib) = self.run(&["import", &self.archive().to_string_lossy(), "--json"], &[0, 1])?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        let beside: Result<Vec<String>, io::Error> = fs::read_dir(self.dir.path())?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .filter(|name| !name.as_ref().is_ok_and(|name| name.starts_with("out") || name.starts_with("err")))
            .collect();
        let mut beside = beside?;
        beside.sort();
        if beside != ["archive", "beside", "folder", "store"]
            || fs::read(self.dir.path().join("beside"))? != b"untouched"
            || fs::read_dir(self.dir.path().join("folder"))?.next().is_some()
        {
            return Err(format!("it has written outside of the store: {beside:?}").into());
        }
        holds_files_alone(&self.store())?;
        self.run(&["verify"], &[0])?;
        let listed: Vec<serde_json::Value> =
            serde_json::from_str(&self.run(&["list", "--limit", "0", "--json"], &[0])?.0)?;
        let runs = said["runs"].as_u64().unwrap_or_default();
        if listed.len() as u64 != runs {
            return Err(format!("{runs} runs were taken, and {} are listed", listed.len()).into());
        }
        Ok(Said { runs, is_whole: said["problems"].as_array().is_some_and(Vec::is_empty), peak_kib })
    }

    /// Runs a command, within its bounds; returns what it prints and the most memory that it had, in KiB.
    fn run(&self, args: &[&str], codes: &[i32]) -> Result<(String, i64), Failed> {
        let (out, err) = (self.dir.path().join("out"), self.dir.path().join("err"));
        let mut command = store::command(&self.store(), args);
        command.stdout(File::create(&out)?).stderr(File::create(&err)?).process_group(0);
        let inherited_kib = most_memory_kib();
        let (status, peak_kib) = ended(&mut command.spawn()?, inherited_kib)?;
        let said = String::from_utf8_lossy(&fs::read(&err)?).into_owned();
        let code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        if !code.is_some_and(|code| codes.contains(&code)) || said.contains("panicked at") {
            let printed = String::from_utf8_lossy(&fs::read(&out)?).into_owned();
            return Err(format!("runspan {}: {status:#x}: {said}{printed}", args[0]).into());
        }
        if peak_kib > MEMORY_KIB {
            return Err(format!("runspan {} took {} MiB", args[0], peak_kib >> 10).into());
        }
        Ok((fs::read_to_string(out)?, peak_kib))
    }
}

/// Waits for a child's end; returns its status, and the most memory that it had, in KiB. One that takes too long is killed.
///
/// What the system tells of it at the end is at least what this process has had (`inherited_kib`): until a child runs its
/// program it has our memory. What is less than that is looked at while it runs.
fn ended(child: &mut std::process::Child, inherited_kib: i64) -> Result<(i32, i64), Failed> {
    let (begun, pid, mut status, mut seen_kib) = (Instant::now(), child.id() as i32, 0, 0);
    loop {
        // SAFETY: all of it may be zero, and the call fills it.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both places are ours; nobody else waits for the child.
        match unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) } {
            0 if begun.elapsed() < IMPORT_LIMIT => {
                seen_kib = seen_kib.max(peak_kib(child.id()).unwrap_or_default() as i64);
                std::thread::sleep(Duration::from_millis(1));
            }
            0 => {
                child.kill()?;
                child.wait()?;
                return Err(format!("a command took more than {IMPORT_LIMIT:?}").into());
            }
            -1 => return Err(io::Error::last_os_error().into()),
            _ if usage.ru_maxrss > inherited_kib => return Ok((status, usage.ru_maxrss)),
            _ => return Ok((status, seen_kib)),
        }
    }
}

/// The most memory that this process has had, in KiB.
fn most_memory_kib() -> i64 {
    // SAFETY: all of it may be zero, and the call fills it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the place is ours.
    match unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } {
        0 => usage.ru_maxrss,
        _ => 0,
    }
}

/// Checks that a store has nothing but folders and plain files, each with one name.
fn holds_files_alone(dir: &Path) -> Result<(), Failed> {
    use std::os::unix::fs::MetadataExt;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        if found.is_dir() {
            holds_files_alone(&path)?;
        } else if !found.is_file() || found.nlink() != 1 {
            return Err(format!("{} is no plain file", path.display()).into());
        }
    }
    Ok(())
}

type Packed<'a> = &'a mut dyn Write;
type Bomb = fn(&[Entry], Packed<'_>) -> Result<(), Failed>;

const BOMBS: [(&str, Bomb); 8] = [
    ("a long name", |entries, to| described(entries, b'L', 160 << 20, to)),
    ("a long name of a link", |entries, to| described(entries, b'K', 160 << 20, to)),
    ("long attributes", |entries, to| described(entries, b'x', 160 << 20, to)),
    ("a folder with a content", |entries, to| described(entries, b'5', 160 << 20, to)),
    ("a sparse file", sparse),
    ("a file of zeros", |entries, to| zeros(entries, "artifacts/zeros", to)),
    ("a log of zeros", |entries, to| zeros(entries, "events.jsonl", to)),
    ("aliases in run.yaml", aliases),
];

fn copied(bytes: u64, to: Packed<'_>) -> Result<(), Failed> {
    io::copy(&mut io::repeat(0).take(bytes), to)?;
    Ok(())
}

/// Something of a kind that stands before a file, and describes it.
fn described(entries: &[Entry], kind: u8, bytes: u64, to: Packed<'_>) -> Result<(), Failed> {
    let mut before = entries[0].clone();
    before.header[TYPE] = kind;
    put(&mut before.header[SIZE], format!("{bytes:011o}").as_bytes());
    before.set_checksum();
    to.write_all(&before.header)?;
    copied(bytes, to)?;
    entries.iter().try_for_each(|entry| to.write_all(&entry.bytes()))?;
    copied(2 * BLOCK as u64, to)
}

/// A sparse file whose parts are described on and on.
fn sparse(entries: &[Entry], to: Packed<'_>) -> Result<(), Failed> {
    let mut before = entries[0].clone();
    before.header[TYPE] = b'S';
    before.header[482] = 1;
    before.set_checksum();
    to.write_all(&before.header)?;
    let mut block = [0; BLOCK];
    for part in block[..504].chunks_mut(24) {
        put(part, b"00000000000\x0000000000000");
    }
    block[504] = 1;
    (0..1 << 20).try_for_each(|_| to.write_all(&block))?;
    Ok(())
}

fn zeros(entries: &[Entry], name: &str, to: Packed<'_>) -> Result<(), Failed> {
    let folder = entries[0].name().rsplit_once('/').map(|(folder, _)| folder.to_owned()).unwrap_or_default();
    let mut file = entries[0].clone();
    file.set_name(&format!("{folder}/{name}"));
    put(&mut file.header[SIZE], format!("{:011o}", 400u64 << 20).as_bytes());
    file.set_checksum();
    to.write_all(&file.header)?;
    copied(160 << 20, to)
}

fn aliases(entries: &[Entry], to: Packed<'_>) -> Result<(), Failed> {
    for entry in entries {
        let mut entry = entry.clone();
        if entry.name().ends_with("run.yaml") {
            let text = String::from_utf8(entry.content)?;
            let bomb = format!("{text}\nbomb: &a {}\nbombs: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(20_000));
            entry.content = bomb.replacen("tags: []", &format!("tags: [{}]", "[".repeat(100_000)), 1).into_bytes();
            entry.set_size();
        }
        to.write_all(&entry.bytes())?;
    }
    copied(2 * BLOCK as u64, to)
}
