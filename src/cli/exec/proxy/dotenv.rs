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
/// Bytes of a value after which nothing more is put in.
const MOST_REFERRED: usize = 1 << 10;
/// Bytes of a file that are read.
const MOST: u64 = 1 << 20;

/// Options whose value is such a file, whatever its name is: of `node`, `bun`, `uv`, `docker` and `flask`, dotenv's own commands,
/// `env-cmd`, `dotenv-cli`, `honcho`, `just`. Of another program the value may be any file: where that
/// sets such a variable too, ours is left out and said to be.
const OPTIONS: &[&str] =
    &["--env-file", "--env-file-if-exists", "-f", "--file", "-e", "--env", "--dotenv", "--dotenv-path"];
/// Words of a command that are looked at: those behind are data (`*.txt`) and no program.
const MOST_WORDS: usize = 64;
/// A longer word is code, or data.
const LONGEST_WORD: usize = 4096;

/// A variable in such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// may name such a file itself (`node --env-file=FILE`). `given`: what the files may refer to.
    pub fn of(directory: &Path, command: &[OsString], given: impl Fn(&str) -> Option<String>) -> Self {
        let mut files = Self::default();
        let mut seen = BTreeSet::new();
        let mut starts = vec![directory.to_owned()];
        let mut is_file = false;
        for word in command.iter().take(MOST_WORDS) {
            let is_behind_option = std::mem::take(&mut is_file);
            let Some(word) = word.to_str().filter(|word| word.len() <= LONGEST_WORD) else { continue };
            is_file = OPTIONS.contains(&word);
            let (option, path) = word.rsplit_once('=').map_or((None, word), |(option, path)| (Some(option), path));
            let path = directory.join(path);
            let is_named = is_behind_option
                || option.is_some_and(|option| OPTIONS.contains(&option))
                || path
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
            } else {
                starts.extend(module(directory, word));
            }
        }
        let mut looked_at = BTreeSet::new();
        for start in &starts {
            // All above one that was looked at were, too.
            for directory in start.ancestors().take_while(|directory| looked_at.insert(directory.to_owned())) {
                NAMES.iter().for_each(|name| files.read(&directory.join(name), &mut seen));
            }
        }
        files.refer(given);
        files
    }

    /// Returns a variable that stands in one of them, in whichever case: pydantic-settings takes either.
    pub fn get(&self, name: &str) -> Option<&Found> {
        self.all(name).next()
    }

    /// Returns all that they say of a variable: which of them a program reads, and in what order, is its own.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Found> {
        self.0.iter().filter(move |found| found.name.eq_ignore_ascii_case(name))
    }

    fn read(&mut self, path: &Path, seen: &mut BTreeSet<PathBuf>) {
        // A pipe, say, would wait for who writes it, and what is read of it is gone.
        if !path.is_file() || !seen.insert(path.to_owned()) {
            return;
        }
        let mut bytes = Vec::new();
        let Ok(file) = File::open(path) else { return };
        if file.take(MOST).read_to_end(&mut bytes).is_ok() {
            let found = variables(&String::from_utf8_lossy(&bytes));
            self.0.extend(found.into_iter().map(|(name, value)| Found { name, value, file: path.to_owned() }));
        }
    }

    /// Puts in what values refer to (`${HOST}`), by the environment first and then by the files, as python-dotenv does. One
    /// that comes to nothing is not set.
    fn refer(&mut self, given: impl Fn(&str) -> Option<String>) {
        for at in 0..self.0.len() {
            // Not itself: `X=${X:-DEFAULT}` is what it says without.
            let others = || self.0.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, found)| found);
            let in_files = |name: &str| others().find(|found| found.name == name).map(|found| found.value.clone());
            let of = |name: &str| given(name).or_else(|| in_files(name));
            let value =
                self.0.get(at).filter(|found| found.value.contains('$')).map(|found| expanded(&found.value, &of));
            if let (Some(found), Some(value)) = (self.0.get_mut(at), value) {
                found.value = value;
            }
        }
        self.0.retain(|found| !found.value.is_empty());
    }
}

/// Returns the folder of a module that a word names (`python -m pkg.agent`, `uvicorn pkg.agent:app`), where it is below a
/// directory.
fn module(directory: &Path, word: &str) -> Option<PathBuf> {
    let name = word.split_once(':').map_or(word, |(name, _)| name);
    let is_name =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !name.contains('.') || !name.split('.').all(is_name) {
        return None;
    }
    let path = directory.join(name.replace('.', "/"));
    let folder = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
    folder.filter(|folder| folder.is_dir()).map(Path::to_owned)
}

/// Reads the variables of a file. One without a value leaves it to the program.
fn variables(text: &str) -> Vec<(String, String)> {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace('\r', "\n");
    let mut rest = &text[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (line, below) = rest.split_once('\n').unwrap_or((rest, ""));
        rest = below;
        let Some((name, value)) = name_of(line) else { continue };
        let quote = value.chars().next().filter(|first| matches!(first, '\'' | '"' | '`'));
        let value = match quote.and_then(|quote| Some((quote, value.strip_prefix(quote)?))) {
            Some((quote, inner)) => match closing(inner, quote) {
                Some(end) => inner.get(..end).unwrap_or_default().to_owned(),
                // It may go over several lines, of which none is a variable.
                // Programs differ in what a backslash before a quote is, and in whether a backtick is one: what some read on the next lines
                // counts as well.
                None => {
                    match closing(below, quote).filter(|_| quote != '`' && !inner.contains(&format!("\\{quote}"))) {
                        Some(end) => {
                            let (more, behind) = below.split_at(end);
                            rest = behind.split_once('\n').map_or("", |(_, below)| below);
                            format!("{inner}\n{more}")
                        }
                        None => inner.trim_end().to_owned(),
                    }
                }
            },
            None => {
                let is_comment = |(at, byte): &(usize, u8)| {
                    let before = at.checked_sub(1).and_then(|before| value.as_bytes().get(before));
                    *byte == b'#' && before.is_none_or(u8::is_ascii_whitespace)
                };
                let end = value.bytes().enumerate().find(is_comment).map_or(value.len(), |(at, _)| at);
                value.get(..end).unwrap_or_default().trim_end().to_owned()
            }
        };
        if !value.is_empty() {
            found.push((name.to_owned(), value));
        }
    }
    found
}

/// Splits a line into a name and what is behind it.
fn name_of(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start();
    let exported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
    let (name, value) = exported.unwrap_or(line).split_once(['=', ':'])?;
    let name = name.trim().trim_matches(['\'', '"']);
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| (name, value.trim_start()))
}

/// Returns where a quote ends.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, char)| {
        let is_end = char == quote && !is_escaped;
        is_escaped = char == '\\' && !is_escaped;
        is_end.then_some(at)
    })
}

/// Puts values in the place of `$NAME`, `${NAME}` and `${NAME:-VALUE}`.
fn expanded(value: &str, of: &impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, behind)) = rest.split_once('$') {
        out.push_str(before);
        let braced = behind.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (name, behind) = match braced {
            Some((name, behind)) => (name, behind),
            None => {
                let end = behind.find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
                behind.split_at(end.unwrap_or(behind.len()))
            }
        };
        let (name, default) = name.split_once(":-").unwrap_or((name, ""));
        out.push_str(&of(name).unwrap_or_else(|| default.to_owned()));
        if out.len() > MOST_REFERRED {
            // No address is so long, and each may be twice the one before.
            return out;
        }
        rest = behind;
    }
    out + rest
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
            let files = Files::of(&here, &command.iter().map(OsString::from).collect::<Vec<_>>(), |_| None);
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

    fn read(text: &str) -> String {
        variables(text).iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" | ")
    }

    /// As python-dotenv 1.2 and dotenv 17 of JavaScript read them.
    #[test]
    fn lines_are_read_as_programs_read_them() {
        assert_eq!(read("A=\"\" # c\nB=''\nC=\"x\" # c\nD=x # c\nE=\t# c\nF=a#b\nG=a\t#b"), "C=x | D=x | F=a#b | G=a");
        assert_eq!(read("export\tA=x\nexport  B=y\nexported=z"), "A=x | B=y | exported=z");
        assert_eq!(read("A=x\rB=y\r\nC=z"), "A=x | B=y | C=z");
        assert_eq!(read("A=\"x\nB=y\nz\" # c\nC='w'"), "A=x\nB=y\nz | C=w");
        assert_eq!(read("A=\"x \\\" y\"\nB=it's\nC='open\nD=x"), "A=x \\\" y | B=it's | C=open | D=x");
        assert_eq!(read("# A=x\n=y\nno line\nB C=z\nD: w"), "D=w");
    }

    #[test]
    fn what_a_value_refers_to_is_put_in() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join(".env"),
            "X=${X:-http://x}\nY=${Y}\nA=${HOST}/v1\nF=${A}/x\nB=http://$NAME:1\nC=${NOTHING}\nD=${NOTHING:-http://d}\nNAME=file\nE=$",
        )
        .unwrap();
        let files = Files::of(dir.path(), &[], |name| (name == "HOST").then(|| "http://a".to_owned()));
        let value = |name: &str| files.get(name).map(|found| found.value.as_str());
        assert_eq!(["X", "Y"].map(value), [Some("http://x"), None]);
        let values = ["A", "B", "C", "D", "E", "F"].map(value);
        assert_eq!(
            values,
            [Some("http://a/v1"), Some("http://file:1"), None, Some("http://d"), None, Some("http://a/v1/x")]
        );
    }

    #[test]
    fn a_variable_that_some_programs_read_is_read() {
        assert_eq!(read("P='C:\\dir\\'\nA='http://x:1/v1'"), "P=C:\\dir\\' | A=http://x:1/v1");
        assert_eq!(read("NOTE=`date\nA=x\nB=`"), "NOTE=date | A=x");
    }

    #[test]
    fn values_that_refer_to_each_other_do_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let more = (1..200).map(|nth| format!("A{nth}=$A{}$A{}\n", nth - 1, nth - 1));
        std::fs::write(dir.path().join(".env"), format!("A0=xx\n{}", more.collect::<String>())).unwrap();
        let files = Files::of(dir.path(), &[], |_| None);
        assert_eq!(files.get("A5").map(|found| found.value.len()), Some(64));
        assert!(files.get("A199").is_some_and(|found| found.value.len() <= 4 * MOST_REFERRED));
    }

    #[test]
    fn files_that_a_command_names_by_an_option_or_a_module_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("pkg/sub")).unwrap();
        let put = |path: &str| std::fs::write(dir.path().join(path), "A=x").unwrap();
        put("settings");
        put("pkg/.env");
        std::fs::write(dir.path().join("pkg/mod.py"), "").unwrap();
        let is_found = |command: &[&str]| {
            let command: Vec<_> = command.iter().map(OsString::from).collect();
            Files::of(dir.path(), &command, |_| None).get("A").is_some()
        };
        for command in [
            &["node", "--env-file", "settings", "a.mjs"][..],
            &["node", "--env-file=settings"],
            &["honcho", "-e", "settings", "run", "agent"],
            &["env-cmd", "--file", "settings", "agent"],
            &["just", "--dotenv-path=settings", "agent"],
            &["dotenv", "-f", "settings", "run"],
            &["python", "-m", "pkg.mod"],
            &["python", "-m", "pkg.sub"],
            &["uvicorn", "pkg.mod:app"],
        ] {
            assert!(is_found(command), "{command:?}");
        }
        for command in [&["cat", "settings"][..], &["python", "-m", "other.mod"], &["python", "-m", "json"]] {
            assert!(!is_found(command), "{command:?}");
        }
    }

    #[test]
    fn of_many_words_some_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("settings"), "A=x").unwrap();
        let is_found = |before: usize| {
            let mut command = vec![OsString::from("a.txt"); before];
            command.push("--env-file=settings".into());
            Files::of(dir.path(), &command, |_| None).get("A").is_some()
        };
        assert!(is_found(MOST_WORDS - 1));
        assert!(!is_found(MOST_WORDS));
    }
}
