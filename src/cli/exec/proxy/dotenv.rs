//! Variables that a program takes from a file beside it where its environment does not have them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Files that python-dotenv, pydantic-settings, dotenv of JavaScript, Next.js and Vite read, those that win first.
const NAMES: &[&str] = &[
    ".env.local",
    ".env",
    ".env.development.local",
    ".env.development",
    ".env.production.local",
    ".env.production",
    ".env.test.local",
    ".env.test",
];
/// Bytes of a file that are read.
const MOST: u64 = 1 << 20;

/// A variable in such a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    name: String,
    pub value: String,
    pub file: PathBuf,
}

/// The variables of all files that a command may read. None of those takes the place of one that is set, so that setting it
/// would lead the command elsewhere.
#[derive(Debug, Default)]
pub struct Files(Vec<Found>);

impl Files {
    /// Reads the files of a directory, of those in which the words of a command name something, and of those above. A word
    /// may name such a file itself (`node --env-file=FILE`).
    pub fn of(directory: &Path, command: &[OsString]) -> Self {
        let mut files = Self::default();
        let mut seen = BTreeSet::new();
        let mut starts = vec![directory.to_owned()];
        for word in command.iter().filter_map(|word| word.to_str()) {
            let path = directory.join(word.rsplit_once('=').map_or(word, |(_, path)| path));
            let is_named = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(".env") || name.ends_with(".env"));
            if is_named {
                files.read(&path, &mut seen);
            }
            if path.is_dir() {
                starts.push(path);
            } else if path.is_file() {
                starts.extend(path.parent().map(Path::to_owned));
            }
        }
        for directory in starts.iter().flat_map(|start| start.ancestors()) {
            NAMES.iter().for_each(|name| files.read(&directory.join(name), &mut seen));
        }
        files
    }

    /// Returns a variable that stands in one of them, in whichever case: pydantic-settings takes either.
    pub fn get(&self, name: &str) -> Option<&Found> {
        self.0.iter().find(|found| found.name.eq_ignore_ascii_case(name))
    }

    fn read(&mut self, path: &Path, seen: &mut BTreeSet<PathBuf>) {
        // A pipe, say, would wait for who writes it, and what is read of it is gone.
        if !path.is_file() || !seen.insert(path.to_owned()) {
            return;
        }
        let mut bytes = Vec::new();
        let Ok(file) = File::open(path) else { return };
        if file.take(MOST).read_to_end(&mut bytes).is_ok() {
            let text = String::from_utf8_lossy(&bytes);
            let found = text.lines().filter_map(variable);
            self.0.extend(found.map(|(name, value)| Found { name, value, file: path.to_owned() }));
        }
    }
}

/// Reads a line. One without a value leaves the variable to the program.
fn variable(line: &str) -> Option<(String, String)> {
    let line = line.trim_start_matches('\u{feff}').trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once(['=', ':'])?;
    let name = name.trim().trim_matches(['\'', '"']);
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let value = value.trim();
    let quote = value.chars().next().filter(|first| matches!(first, '\'' | '"' | '`'));
    let value = match quote {
        Some(quote) => value.trim_start_matches(quote).split(quote).next().unwrap_or_default(),
        None if value.starts_with('#') => "",
        None => value.split(" #").next().unwrap_or_default().trim_end(),
    };
    (is_name && !value.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_of_the_files_beside_a_command_and_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("a/b");
        std::fs::create_dir_all(here.join("src")).unwrap();
        let put = |path: &str, text: &str| std::fs::write(dir.path().join(path), text).unwrap();
        put("a/.env", "# OPENAI_API_KEY=x\nexport OPENAI_BASE_URL = \"http://a/v1\" # ours\nGROQ_BASE_URL=\n");
        put("a/b/.env", "\u{feff}anthropic_base_url=http://b # ours\r\nOPENAI_API_BASE='http://c'\r\n");
        put("a/b/.env.local", "OPENAI_API_BASE=http://d\n");
        put("a/b/src/agent.py", "");
        put("a/b/src/.env", "AZURE_OPENAI_ENDPOINT=http://e");
        put("a/b/mine.env", "TOGETHER_BASE_URL: http://f");
        let of = |command: &[&str]| {
            let files = Files::of(&here, &command.iter().map(OsString::from).collect::<Vec<_>>());
            let shown = |name: &&str| {
                let found = files.get(name)?;
                let file = found.file.strip_prefix(dir.path()).unwrap();
                Some(format!("{name} {} {}", found.value, file.display()))
            };
            [
                "OPENAI_BASE_URL",
                "OPENAI_API_BASE",
                "OPENAI_API_KEY",
                "ANTHROPIC_BASE_URL",
                "GROQ_BASE_URL",
                "AZURE_OPENAI_ENDPOINT",
                "TOGETHER_BASE_URL",
            ]
            .iter()
            .filter_map(shown)
            .collect::<Vec<_>>()
            .join("\n")
        };
        insta::assert_snapshot!(of(&["python", "agent.py"]), @r"
        OPENAI_BASE_URL http://a/v1 a/.env
        OPENAI_API_BASE http://d a/b/.env.local
        ANTHROPIC_BASE_URL http://b a/b/.env
        ");
        insta::assert_snapshot!(of(&["node", "--env-file=mine.env", "src/agent.py"]), @r"
        OPENAI_BASE_URL http://a/v1 a/.env
        OPENAI_API_BASE http://d a/b/.env.local
        ANTHROPIC_BASE_URL http://b a/b/.env
        AZURE_OPENAI_ENDPOINT http://e a/b/src/.env
        TOGETHER_BASE_URL http://f a/b/mine.env
        ");
    }
}
