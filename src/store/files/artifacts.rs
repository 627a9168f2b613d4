//! Files that runs produce, in `artifacts/` of a run's folder.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::StoreError;
use super::layout::{create_private, is_plain_dir, make_dir};
use crate::model::run::ArtifactInfo;

/// Longest file name, in bytes; common file systems take 255.
const MAX_NAME: usize = 200;
/// An extension longer than this is no extension.
const MAX_EXTENSION: usize = 16;
/// Files of one name in one run.
const MAX_COPIES: u32 = 10_000;

/// Copies `content` into a run's folder under `name`, or under the name with a number when that is taken.
///
/// A file that is there is never written to. On an error nothing is left behind.
pub(crate) fn keep(
    run_dir: &Path,
    name: &str,
    media_type: Option<&str>,
    content: &mut dyn Read,
) -> Result<ArtifactInfo, StoreError> {
    let dir = run_dir.join("artifacts");
    make_dir(&dir)?;
    if !is_plain_dir(&dir) {
        let not_ours = io::Error::new(io::ErrorKind::NotADirectory, "not a directory");
        return Err(StoreError::io("create", dir)(not_ours));
    }
    let (mut file, path, name) = create_free(&dir, name)?;
    let copied = copy(content, &mut file);
    if copied.is_err() {
        let _ = std::fs::remove_file(&path);
    }
    let (bytes, sha256) = copied.map_err(StoreError::io("write", path))?;
    Ok(ArtifactInfo { name, media_type: media_type.map(str::to_owned), bytes, sha256 })
}

fn create_free(dir: &Path, name: &str) -> Result<(File, PathBuf, String), StoreError> {
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 1..=MAX_COPIES {
        let name = file_name(name, number);
        let path = dir.join(&name);
        match create_private(&path) {
            Ok(file) => return Ok((file, path, name)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(StoreError::io("create", path)(error)),
        }
    }
    Err(StoreError::io("create", dir.join(file_name(name, 1)))(last))
}

fn copy(from: &mut dyn Read, to: &mut File) -> io::Result<(u64, String)> {
    let (mut digest, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 64 << 10]);
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..read])?;
        digest.update(&buffer[..read]);
        bytes += read as u64;
    }
    let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, sha256))
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

    #[test]
    fn a_second_file_of_a_name_gets_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let keep = |text: &str| keep(dir.path(), "a.txt", Some("text/plain"), &mut text.as_bytes()).unwrap();
        let (first, second) = (keep("one"), keep("three"));
        assert_eq!((first.name.as_str(), second.name.as_str(), second.bytes), ("a.txt", "a-2.txt", 5));
        assert_eq!(std::fs::read_to_string(dir.path().join("artifacts/a.txt")).unwrap(), "one");
        assert_eq!(first.sha256, "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed");
    }
}
