//! Files that runs produce, in `artifacts/` of a run's folder.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::super::StoreError;
use super::layout::{is_plain_dir, make_dir, stat};
use super::run_dir;
#[cfg(feature = "seal")]
use super::sealed;
use super::sealed::{Content as Stored, sealed_file};
use crate::fs::{Fs, FsFile, write_full};
use crate::model::run::{ArtifactContent, ArtifactInfo};
use crate::pipeline::{Content, Scrubber};

/// Longest file name, in bytes; common file systems take 255.
const MAX_NAME: usize = 200;
/// An extension longer than this is no extension.
const MAX_EXTENSION: usize = 16;
/// Files of one name in one run.
const MAX_COPIES: u32 = 10_000;
/// Files longer than this are compressed, where that is built in.
pub(super) const COMPRESSED_FROM: u64 = 10_000_000;
/// How much of a file says whether it is text; also how much of one that is not is in memory.
const HEAD: usize = 64 << 10;
/// How much text is scrubbed at a time. A secret across the border of two pieces is not seen.
const PIECE: usize = 16 << 20;
/// Types of text under `application/`, with `x-` before them or without.
const TEXT_TYPES: &[&str] = &[
    "csv",
    "ecmascript",
    "graphql",
    "javascript",
    "json",
    "jsonl",
    "ndjson",
    "pem-file",
    "sh",
    "sql",
    "toml",
    "typescript",
    "xml",
    "yaml",
];

/// Copies `content` into a run's folder under `name`, or under the name with a number when that is taken.
///
/// Secrets in the name, and in the content if it is text, are replaced as the scrubber's policy wants it. A file that is
/// there is never written to. On an error nothing is left behind. `durable`: it survives loss of power when this returns.
pub(crate) fn keep(
    fs: &dyn Fs,
    run_dir: &Path,
    name: &str,
    media_type: Option<&str>,
    content: &mut dyn Read,
    scrubber: &Scrubber,
    durable: bool,
) -> Result<ArtifactInfo, StoreError> {
    let dir = run_dir.join("artifacts");
    make_dir(fs, &dir)?;
    if !is_plain_dir(fs, &dir).map_err(StoreError::io("read", &dir))? {
        let not_ours = io::Error::new(io::ErrorKind::NotADirectory, "not a directory");
        return Err(StoreError::io("create", dir)(not_ours));
    }
    let (file, path, name) = create_free(fs, &dir, &safe_name(name, scrubber))?;
    let mut out = Copy { to: Some(file), digest: Sha256::new(), bytes: 0 };
    let copied = copy(content, &mut out, media_type, scrubber).and_then(|is_redacted| {
        if durable { out.bring_to_disk(fs, &dir).map(|()| is_redacted) } else { Ok(is_redacted) }
    });
    if copied.is_err() {
        let _ = fs.remove_file(&path);
    }
    let is_redacted = copied.map_err(StoreError::io("write", &path))?;
    let info = out.into_info(name, media_type, scrubber, is_redacted.then_some(ArtifactContent::Redacted));
    // One that cannot be compressed is kept as it is.
    let _ = compress_large(fs, &path, &info, durable);
    Ok(info)
}

/// Compresses a file that is there and large. Returns the bytes that it takes then, if it does.
#[cfg(feature = "seal")]
pub(super) fn compress_large(
    fs: &dyn Fs,
    path: &Path,
    info: &ArtifactInfo,
    durable: bool,
) -> Result<Option<u64>, StoreError> {
    let Ok(hash) = info.sha256.parse() else { return Ok(None) };
    if info.bytes <= COMPRESSED_FROM || !sealed::pack(fs, path, hash, durable)? {
        return Ok(None);
    }
    let sealed = sealed_file(path);
    Ok(stat(fs, &sealed).map_err(StoreError::io("read", sealed))?.map(|found| found.len))
}

/// Tells what [`compress_large`] would return, and changes nothing.
#[cfg(feature = "seal")]
pub(super) fn measure_compressed(fs: &dyn Fs, path: &Path, info: &ArtifactInfo) -> Result<Option<u64>, StoreError> {
    let Ok(hash) = info.sha256.parse() else { return Ok(None) };
    if info.bytes <= COMPRESSED_FROM {
        return Ok(None);
    }
    sealed::measure(fs, path, hash, sealed::For::File)
}

#[cfg(not(feature = "seal"))]
fn compress_large(_: &dyn Fs, _: &Path, _: &ArtifactInfo, _: bool) -> Result<Option<u64>, StoreError> {
    Ok(None)
}

/// A file that a run produced, as it is in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredArtifact {
    /// What the run says of it.
    #[serde(flatten)]
    pub info: ArtifactInfo,
    /// In which form it is there.
    pub stored: Form,
    /// Bytes that it takes; `None` where it is not there.
    pub stored_bytes: Option<u64>,
}

/// In which form a file is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As it is.
    Plain,
    /// Compressed with zstd.
    Compressed,
    /// Content policy kept nothing of it.
    None,
    /// It should be there and is not, or it was told of by who keeps no files here.
    Missing,
}

/// Looks in which form a file of a run is there.
pub(super) fn find(fs: &dyn Fs, run_dir: &Path, info: ArtifactInfo) -> Result<StoredArtifact, StoreError> {
    let size =
        |path: PathBuf| stat(fs, &path).map(|found| found.map(|found| found.len)).map_err(StoreError::io("read", path));
    let (stored, stored_bytes) = match path_of(run_dir, &info.name) {
        _ if info.content == Some(ArtifactContent::Nothing) => (Form::None, None),
        None => (Form::Missing, None),
        Some(path) => match (size(path.clone())?, size(sealed_file(&path))?) {
            (Some(bytes), _) => (Form::Plain, Some(bytes)),
            (None, Some(bytes)) => (Form::Compressed, Some(bytes)),
            (None, None) => (Form::Missing, None),
        },
    };
    Ok(StoredArtifact { info, stored, stored_bytes })
}

/// Returns where a file of a run is; `None` for a name that is none and would lead elsewhere.
pub(super) fn path_of(run_dir: &Path, name: &str) -> Option<PathBuf> {
    let mut parts = Path::new(name).components();
    let is_name =
        matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(part)), None) if part == name);
    is_name.then(|| run_dir.join("artifacts").join(name))
}

/// The content of a file that a run produced, as it was kept; never more of it than the run says there is.
pub struct ArtifactReader {
    content: io::Take<Stored>,
}

impl ArtifactReader {
    pub(super) fn open(fs: &dyn Fs, run_dir: &Path, info: &ArtifactInfo) -> Result<Self, StoreError> {
        let missing = || StoreError::NotFound { id: info.name.clone() };
        let path = path_of(run_dir, &info.name).ok_or_else(missing)?;
        match Stored::open(fs, &path) {
            // One byte more tells that it is not what it was.
            Ok(content) => Ok(Self { content: content.take(info.bytes.saturating_add(1)) }),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Err(missing()),
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Debug for ArtifactReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArtifactReader").finish_non_exhaustive()
    }
}

impl Read for ArtifactReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.content.read(into)
    }
}

/// Tells in what a file of a run is not what its log says of it, if in anything.
pub(super) fn flaw_of(fs: &dyn Fs, run_dir: &Path, info: &ArtifactInfo) -> Result<Option<String>, StoreError> {
    if path_of(run_dir, &info.name).is_none() {
        return Ok(Some("its name leads out of the run's folder".to_owned()));
    }
    let mut content = match ArtifactReader::open(fs, run_dir, info) {
        Ok(content) => content,
        Err(StoreError::NotFound { .. }) => return Ok(Some("it is missing".to_owned())),
        Err(StoreError::Io { source, .. }) if run_dir::is_damage(&source) => return Ok(Some(source.to_string())),
        Err(error @ StoreError::Unsupported { .. }) => return Ok(Some(error.to_string())),
        Err(error) => return Err(error),
    };
    let mut read = Copy { to: None, digest: Sha256::new(), bytes: 0 };
    match copy_rest(&mut content, &mut read) {
        Err(error) if run_dir::is_damage(&error) => return Ok(Some(error.to_string())),
        Err(error) => return Err(StoreError::io("read", run_dir.join("artifacts").join(&info.name))(error)),
        Ok(()) => {}
    }
    let sha256 = crate::model::hex(&read.digest.finalize());
    Ok(match read.bytes {
        bytes if bytes > info.bytes => Some(format!("it has more bytes than the {} that the log says", info.bytes)),
        bytes if bytes < info.bytes => Some(format!("it has {bytes} bytes, and the log says {}", info.bytes)),
        _ => (sha256 != info.sha256).then(|| format!("its SHA-256 is {sha256}, and the log says {}", info.sha256)),
    })
}

/// Reads `content` and tells what [`keep`] would tell of it, without keeping it.
pub(crate) fn describe(
    name: &str,
    media_type: Option<&str>,
    content: &mut dyn Read,
    scrubber: &Scrubber,
) -> Result<ArtifactInfo, StoreError> {
    let mut out = Copy { to: None, digest: Sha256::new(), bytes: 0 };
    let name = file_name(&safe_name(name, scrubber), 1);
    copy_rest(content, &mut out).map_err(StoreError::io("read", PathBuf::from(&name)))?;
    Ok(out.into_info(name, media_type, scrubber, Some(ArtifactContent::Nothing)))
}

fn create_free(fs: &dyn Fs, dir: &Path, name: &str) -> Result<(Box<dyn FsFile>, PathBuf, String), StoreError> {
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 1..=MAX_COPIES {
        let name = file_name(name, number);
        let path = dir.join(&name);
        match fs.create_new(&path) {
            // One of that name is there in compressed form.
            Ok(_) if stat(fs, &sealed_file(&path)).map_err(StoreError::io("read", &path))?.is_some() => {
                fs.remove_file(&path).map_err(StoreError::io("delete", &path))?;
            }
            Ok(file) => return Ok((file, path, name)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(StoreError::io("create", path)(error)),
        }
    }
    Err(StoreError::io("create", dir.join(file_name(name, 1)))(last))
}

/// Where content goes, and what is told of it.
struct Copy {
    /// `None` where it is only to be told of.
    to: Option<Box<dyn FsFile>>,
    digest: Sha256,
    bytes: u64,
}

impl Copy {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(file) = &self.to {
            write_full(&**file, bytes, self.bytes)?;
        }
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Brings the content to the disk, and the names that lead to it, which may all be new.
    fn bring_to_disk(&self, fs: &dyn Fs, dir: &Path) -> io::Result<()> {
        if let Some(file) = &self.to {
            file.sync_data()?;
        }
        // The folder of artifacts, that of the run, that of all runs.
        dir.ancestors().take(3).try_for_each(|dir| fs.sync_dir(dir))
    }

    fn into_info(
        self,
        name: String,
        media_type: Option<&str>,
        scrubber: &Scrubber,
        content: Option<ArtifactContent>,
    ) -> ArtifactInfo {
        let media_type = media_type.map(|text| cleaned(text, scrubber));
        let sha256 = crate::model::hex(&self.digest.finalize());
        ArtifactInfo { name, media_type, bytes: self.bytes, sha256, content }
    }
}

/// Copies content, text without the secrets in it. Tells whether there were any.
fn copy(from: &mut dyn Read, to: &mut Copy, media_type: Option<&str>, scrubber: &Scrubber) -> io::Result<bool> {
    let mut head = Vec::new();
    (&mut *from).take(HEAD as u64).read_to_end(&mut head)?;
    if scrubber.content() != Content::Full && (media_type.is_some_and(is_text_type) || is_text(&head)) {
        return copy_text(head, from, to, scrubber);
    }
    to.put(&head)?;
    copy_rest(from, to)?;
    Ok(false)
}

fn copy_rest(from: &mut dyn Read, to: &mut Copy) -> io::Result<()> {
    let mut buffer = vec![0; HEAD];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.put(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Copies text by the piece: whole, if it is short enough, so that a secret of several lines is one.
fn copy_text(mut piece: Vec<u8>, from: &mut dyn Read, to: &mut Copy, scrubber: &Scrubber) -> io::Result<bool> {
    let mut is_redacted = false;
    loop {
        (&mut *from).take((PIECE - piece.len()) as u64).read_to_end(&mut piece)?;
        let is_last = piece.len() < PIECE;
        let end = if is_last { piece.len() } else { end_of_line(&piece) };
        // What is no UTF-8 stays, and what is around it is text all the same.
        for chunk in piece[..end].utf8_chunks() {
            let clean = scrubber.clean(chunk.valid());
            is_redacted |= clean.is_some();
            to.put(clean.as_deref().unwrap_or(chunk.valid()).as_bytes())?;
            to.put(chunk.invalid())?;
        }
        if is_last {
            return Ok(is_redacted);
        }
        piece.drain(..end);
    }
}

/// Returns where the last line ends that is whole; without any, where the last character does.
fn end_of_line(text: &[u8]) -> usize {
    let line = text.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
    let is_start = |byte: &u8| byte & 0xc0 != 0x80;
    let of_char = || text.iter().rposition(is_start).filter(|at| *at > 0 && text.len() - at <= 4);
    line.or_else(of_char).unwrap_or(text.len())
}

/// Tells whether a media type is one of text.
fn is_text_type(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let name = essence.strip_prefix("application/").map(|name| name.strip_prefix("x-").unwrap_or(name));
    essence.starts_with("text/")
        || ["+json", "+xml", "+yaml"].iter().any(|suffix| essence.ends_with(suffix))
        || name.is_some_and(|name| TEXT_TYPES.contains(&name))
}

/// Tells whether content begins as UTF-8 does, and not as data that happens to be.
fn is_text(head: &[u8]) -> bool {
    // The last character may go on behind the head.
    let is_utf8 = std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    is_utf8 && !head.contains(&0)
}

fn cleaned(text: &str, scrubber: &Scrubber) -> String {
    scrubber.clean(text).unwrap_or_else(|| text.to_owned())
}

/// Replaces secrets in a name: before it is taken apart, and after what is invisible in it has gone.
fn safe_name(given: &str, scrubber: &Scrubber) -> String {
    cleaned(&file_name(&cleaned(given, scrubber), 1), scrubber)
}

/// Makes a file name of what a program gave: no path, no control characters, not empty, at most 200 bytes; from the
/// second on with a number before the extension.
fn file_name(given: &str, number: u32) -> String {
    let last = given.rsplit(['/', '\\']).find(|part| !part.trim().is_empty()).unwrap_or_default();
    let visible: String = last.chars().filter(|c| !c.is_control() && !is_reordering(*c)).collect();
    // A leading dot hides a file, and `..` is no file at all.
    let name = visible.trim().trim_start_matches('.');
    let name = if name.is_empty() { "artifact" } else { name };
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= MAX_EXTENSION => name.split_at(dot),
        _ => (name, ""),
    };
    let suffix = if number > 1 { format!("-{number}{extension}") } else { extension.to_owned() };
    let room = MAX_NAME - suffix.len();
    let end = (0..=room.min(stem.len())).rev().find(|at| stem.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{suffix}", &stem[..end])
}

/// Marks that would show a name in another order than it has.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFs;

    #[test]
    fn names_stay_inside_the_folder_and_are_short() {
        let long = format!("{}.tar.gz", "ü".repeat(300));
        for (given, number, expected) in [
            ("report.md", 1, "report.md".to_owned()),
            ("report.md", 2, "report-2.md".to_owned()),
            ("../../etc/passwd", 1, "passwd".to_owned()),
            ("C:\\temp\\a.txt", 1, "a.txt".to_owned()),
            ("..", 1, "artifact".to_owned()),
            ("dir/", 1, "dir".to_owned()),
            ("", 3, "artifact-3".to_owned()),
            (".env", 1, "env".to_owned()),
            ("a\0b\n\u{202e}c", 1, "abc".to_owned()),
            (long.as_str(), 12, format!("{}-12.gz", "ü".repeat(97))),
        ] {
            let name = file_name(given, number);
            assert_eq!(name, expected, "{given:?}");
            assert!(name.len() <= MAX_NAME);
        }
    }

    fn scrubber(content: Content) -> Scrubber {
        Scrubber::new(content, [7; 32])
    }

    /// A key of a known shape; made here, so that nobody's scanner finds one in the source.
    fn key() -> String {
        format!("gh{}{}", "p_", "a1B2c3D4e5F6".repeat(3))
    }

    /// Keeps content and returns what is told of it, and what is stored.
    fn kept(content: &[u8], media_type: &str, policy: Content) -> (ArtifactInfo, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let info = keep(&OsFs, dir.path(), "a", Some(media_type), &mut &*content, &scrubber(policy), false).unwrap();
        let mut stored = Vec::new();
        ArtifactReader::open(&OsFs, dir.path(), &info).unwrap().read_to_end(&mut stored).unwrap();
        // Whatever was done to it: what is told is told of what is stored.
        let sha256 = crate::model::hex(&Sha256::digest(&stored));
        assert_eq!((info.bytes, &info.sha256), (stored.len() as u64, &sha256));
        (info, stored)
    }

    #[test]
    fn a_second_file_of_a_name_gets_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let keep = |text: &str| {
            keep(&OsFs, dir.path(), "a.txt", Some("text/plain"), &mut text.as_bytes(), &scrubber(Content::Full), true)
                .unwrap()
        };
        let (first, second) = (keep("one"), keep("three"));
        assert_eq!((first.name.as_str(), second.name.as_str(), second.bytes), ("a.txt", "a-2.txt", 5));
        assert_eq!(std::fs::read_to_string(dir.path().join("artifacts/a.txt")).unwrap(), "one");
        assert_eq!(first.sha256, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed");
    }

    #[test]
    fn secrets_go_from_text_and_from_nothing_else() {
        let key = key();
        let text = format!("é token {key}\r\n").into_bytes();
        let clean =
            String::from_utf8(text.clone()).unwrap().replace(&key, &scrubber(Content::Redacted).clean(&key).unwrap());
        let latin = [b"\xe9t\xe9 ", text.as_slice(), b"\xe9"].concat();
        let clean_latin = [b"\xe9t\xe9 ", clean.as_bytes(), b"\xe9"].concat();
        let binary = [b"\0\x01", text.as_slice()].concat();
        let none = b"nothing to hide".as_slice();
        let redacted = Some(ArtifactContent::Redacted);
        for (given, media_type, policy, told, stored) in [
            (&text, "", Content::Redacted, redacted, clean.as_bytes()),
            (&text, "image/png", Content::Redacted, redacted, clean.as_bytes()),
            (&latin, "text/plain; charset=latin1", Content::Redacted, redacted, &clean_latin),
            (&latin, "application/x-ndjson", Content::Redacted, redacted, &clean_latin),
            (&latin, "application/problem+json", Content::Redacted, redacted, &clean_latin),
            (&latin, "application/octet-stream", Content::Redacted, None, &latin),
            (&binary, "application/octet-stream", Content::Redacted, None, &binary),
            (&text, "text/plain", Content::Full, None, &text),
            (&none.to_vec(), "text/plain", Content::Redacted, None, none),
            (&Vec::new(), "text/plain", Content::Redacted, None, b""),
        ] {
            let (info, kept) = kept(given, media_type, policy);
            assert_eq!((info.content, kept.as_slice()), (told, stored), "{media_type} {policy}");
        }
    }

    #[test]
    fn a_long_text_is_scrubbed_piece_by_piece_at_line_ends() {
        let (key, line) = (key(), "0123456789 abcdef 0123456789 abcdef 0123456789 abcdef 012345\n");
        // The second key lies across the border of the first piece.
        let before = PIECE / line.len() - 1;
        let long = format!("{key}\n{}x {key}\n{}{key}", line.repeat(before), line.repeat(20_000));
        let (second, _) = long.match_indices(&key).nth(1).unwrap();
        assert!(second < PIECE && second + key.len() > PIECE);
        let (info, stored) = kept(long.as_bytes(), "", Content::Redacted);
        assert_eq!(info.content, Some(ArtifactContent::Redacted));
        let marker = scrubber(Content::Redacted).clean(&key).unwrap();
        assert!(String::from_utf8(stored).unwrap() == long.replace(&key, &marker));
        // Without lines characters stay whole, and what is no text at all is cut anywhere.
        assert_eq!(end_of_line("ab\ncd".as_bytes()), 3);
        assert_eq!(end_of_line("abé".as_bytes()), 2);
        assert_eq!(end_of_line(&[0x80; 9]), 9);
    }

    #[test]
    fn a_name_keeps_no_secret() {
        let key = key();
        let marker = scrubber(Content::Redacted).clean(&key).unwrap();
        for given in
            [format!("{key}.txt"), format!("{key}/{key}.txt"), format!("{}\u{200b}{}.txt", &key[..9], &key[9..])]
        {
            let name = safe_name(&given, &scrubber(Content::Redacted));
            assert_eq!(file_name(&name, 2), format!("{marker}-2.txt"), "{given:?}");
        }
        let info = describe("../a.txt", Some(&format!("text/{key}")), &mut b"one".as_slice(), &scrubber(Content::None));
        let sha256 = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed".to_owned();
        let (name, media_type) = ("a.txt".to_owned(), Some(format!("text/{marker}")));
        let content = Some(ArtifactContent::Nothing);
        assert_eq!(info.unwrap(), ArtifactInfo { name, media_type, bytes: 3, sha256, content });
    }
    #[cfg(feature = "seal")]
    #[test]
    fn a_large_file_is_compressed_where_that_saves_something_and_keeps_its_name_to_itself() {
        let dir = tempfile::tempdir().unwrap();
        let keep = |name: &str, content: &[u8]| {
            keep(&OsFs, dir.path(), name, None, &mut &*content, &scrubber(Content::Full), true).unwrap()
        };
        let files = || {
            let names = std::fs::read_dir(dir.path().join("artifacts")).unwrap();
            let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let large = vec![7; 10_000_001];
        let info = keep("a.bin", &large);
        assert_eq!((info.name.as_str(), info.bytes, files()), ("a.bin", 10_000_001, vec!["a.bin.zst".to_owned()]));
        let mut read = Vec::new();
        ArtifactReader::open(&OsFs, dir.path(), &info).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == large);
        // The name is taken, in either form.
        assert_eq!(
            (keep("a.bin", b"small").name, keep("a.bin.zst", b"own").name),
            ("a-2.bin".to_owned(), "a.bin-2.zst".to_owned())
        );
        keep("b.bin.zst", b"somebody's own");
        assert_eq!(keep("b.bin", &large).name, "b-2.bin");
        assert_eq!(std::fs::read(dir.path().join("artifacts/b.bin.zst")).unwrap(), b"somebody's own");
        // What does not become smaller is kept as it is, and so is what is not large.
        let mut noise = vec![0; 10_000_001];
        crate::model::id::fill_random(&mut noise);
        keep("noise", &noise);
        keep("c", &large[1..]);
        assert_eq!(files(), ["a-2.bin", "a.bin-2.zst", "a.bin.zst", "b-2.bin.zst", "b.bin.zst", "c", "noise"]);
    }
}
