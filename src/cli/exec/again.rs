//! What is kept of a command so that it can be run again, and what is made of it then.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::FromRawFd;
use std::path::PathBuf;

use runspan::conventions::names;
use runspan::model::otlp::{Span, Value};
use serde_json::{Map, Value as Json};

use super::argv;

/// A variable longer than this is not kept.
const MOST_OF_VARIABLE: usize = 4 << 10;
/// All of them together.
const MOST_OF_ENVIRONMENT: usize = 64 << 10;
/// An input longer than this is not kept.
const MOST_OF_INPUT: usize = 1 << 20;
/// Variables of a terminal, a login, a network or this process: those of the next time hold then. One that ends in `_` stands for all
/// that begin so.
const OF_SESSION: &[&str] = &[
    "ALL_PROXY",
    "BAGGAGE",
    "COLORTERM",
    "COLUMNS",
    "DBUS_",
    "DISPLAY",
    "GPG_",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LINES",
    "LS_COLORS",
    "NO_PROXY",
    "OLDPWD",
    "OTEL_",
    "PWD",
    "RUNSPAN_",
    "SHLVL",
    "SSH_",
    "TERM",
    "TERM_",
    "TRACEPARENT",
    "TRACESTATE",
    "VSCODE_",
    "WAYLAND_",
    "WINDOWID",
    "XDG_",
    "_",
];

/// What a command reads from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// One of the words of [`names::STDIN`].
    pub kind: &'static str,
    /// All that it will read, where that can be known beforehand.
    pub text: Option<String>,
}

impl Input {
    /// Looks at the standard input of this process, and takes nothing from it: of a file its rest is read beside the
    /// place at which whoever reads it next goes on.
    pub fn here() -> Self {
        // SAFETY: plain system calls on a descriptor, into a value of this frame.
        let (is_there, stat, is_terminal) = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            (libc::fstat(0, &raw mut stat) == 0, stat, libc::isatty(0) == 1)
        };
        let kind = match stat.st_mode & libc::S_IFMT {
            _ if !is_there => "closed",
            _ if is_terminal => "terminal",
            libc::S_IFREG => "file",
            libc::S_IFCHR => "null",
            _ => "pipe",
        };
        Self { kind, text: (kind == "file").then(rest_of_file).flatten() }
    }
}

/// Reads what is left of the file on standard input; `None` when it is too long, no text, or cannot be read.
fn rest_of_file() -> Option<String> {
    // SAFETY: asks where the descriptor stands.
    let mut at = unsafe { libc::lseek(0, 0, libc::SEEK_CUR) };
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        // SAFETY: writes at most as many bytes as the buffer has.
        let read = unsafe { libc::pread(0, piece.as_mut_ptr().cast(), piece.len(), at) };
        match usize::try_from(read).ok()? {
            0 => return String::from_utf8(bytes).ok(),
            read => {
                bytes.extend_from_slice(&piece[..read]);
                at = at.checked_add(libc::off_t::try_from(read).ok()?)?;
            }
        }
        if bytes.len() > MOST_OF_INPUT {
            return None;
        }
    }
}

/// Returns variables as they are kept: none that is named like a secret, that is the session's, or that is long. Secrets
/// in values are found later, with all else that is stored.
pub fn kept(variables: impl Iterator<Item = (OsString, OsString)>) -> String {
    let is_of_session = |name: &str| {
        let name = &*name.to_ascii_uppercase();
        OF_SESSION.iter().any(|word| name == *word || word.len() > 1 && word.ends_with('_') && name.starts_with(word))
    };
    let mut all: Vec<(String, String)> = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| {
            !argv::is_secret_variable(name) && !is_of_session(name) && value.len() <= MOST_OF_VARIABLE
        })
        .collect();
    all.sort();
    let mut bytes = 0;
    let within = all.into_iter().filter(|(name, value)| {
        bytes += name.len() + value.len();
        bytes <= MOST_OF_ENVIRONMENT
    });
    Json::Object(within.map(|(name, value)| (name, value.into())).collect::<Map<_, _>>()).to_string()
}

/// A command as it was recorded.
#[derive(Debug, Default)]
pub struct Recorded {
    pub command: Vec<OsString>,
    pub directory: Option<PathBuf>,
    /// Variables that are to be as they were.
    pub environment: BTreeMap<String, OsString>,
    /// What it read from.
    pub input_kind: Option<String>,
    /// What that said.
    pub input: Option<String>,
}

impl Recorded {
    /// Reads it from the root step of a run.
    ///
    /// # Errors
    ///
    /// Why it cannot be run again as it was.
    pub fn of(root: &Span) -> Result<Self, String> {
        let Some(Value::Array(words)) = root.attr(names::COMMAND_ARGS) else {
            return Err("its command was not kept, by policy (content none)".to_owned());
        };
        let words = words.values.iter().filter_map(|word| word.value.as_ref()?.as_str());
        let command: Vec<OsString> = words.map(OsString::from).collect();
        let is_hidden = |word: &OsString| {
            let word = word.to_string_lossy();
            word.contains("[redacted:") || argv::has_hidden(&word)
        };
        if let Some(at) = command.iter().position(is_hidden) {
            let option = command.get(at.wrapping_sub(1)).map(|word| word.to_string_lossy().into_owned());
            let near = option.map(|option| format!(", after {option:?},")).unwrap_or_default();
            return Err(format!("argument {at} of its command{near} was a secret and is not kept"));
        }
        let text = |key| root.attr_str(key).map(str::to_owned);
        let environment =
            text(names::ENVIRONMENT).and_then(|text| serde_json::from_str::<Map<String, Json>>(&text).ok());
        // Where a secret was stands what is set now.
        let environment = environment.unwrap_or_default().into_iter().filter_map(|(name, value)| {
            let value = value.as_str().filter(|value| !value.contains("[redacted:"))?;
            Some((name, OsStr::new(value).to_owned()))
        });
        Ok(Self {
            command,
            directory: text(names::WORKING_DIRECTORY).map(PathBuf::from),
            environment: environment.collect(),
            input_kind: text(names::STDIN),
            input: text(names::INPUT),
        })
    }

    /// Returns what it is to read from, as far as that is recorded.
    pub fn input(&self) -> Option<Input> {
        match (self.input_kind.as_deref(), &self.input) {
            (_, Some(text)) => Some(Input { kind: "file", text: Some(text.clone()) }),
            (Some("null"), None) => Some(Input { kind: "null", text: None }),
            _ => None,
        }
    }

    /// Opens what it is to read from; `None` for what this process reads from.
    ///
    /// # Errors
    ///
    /// When the system has no memory for it.
    pub fn open_input(&self) -> io::Result<Option<File>> {
        match (self.input_kind.as_deref(), &self.input) {
            (_, Some(text)) => in_memory(text).map(Some),
            (Some("null"), None) => File::open("/dev/null").map(Some),
            _ => Ok(None),
        }
    }
}

/// Makes a file that has no name.
fn in_memory(text: &str) -> io::Result<File> {
    // SAFETY: a plain system call with a name that ends in zero.
    let descriptor = unsafe { libc::memfd_create(c"input".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_and_nothing_of_the_session_is_kept_of_an_environment() {
        let given = [
            ("MODEL", "gpt-4o"),
            ("OPENAI_API_KEY", "canary"),
            ("AWS_ACCESS_KEY_ID", "canary"),
            ("PGPASSWORD", "canary"),
            ("DB_PASS", "canary"),
            ("GITHUB_TOKEN", "canary"),
            ("SSH_AUTH_SOCK", "canary"),
            ("TERM", "xterm"),
            ("_", "/usr/bin/x"),
            ("MONKEY", "yes"),
            ("LONG", &"x".repeat(MOST_OF_VARIABLE + 1)),
        ];
        let given = given.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        assert_eq!(kept(given), r#"{"MODEL":"gpt-4o"}"#);
    }

    #[test]
    fn a_command_with_a_hidden_argument_is_not_run_again() {
        let root = |words: &[&str]| {
            let mut root = Span::default();
            let values = words.iter().map(|word| Value::from(*word).into()).collect();
            root.set_attr(names::COMMAND_ARGS, Value::Array(runspan::model::otlp::ArrayValue { values }));
            root
        };
        assert_eq!(Recorded::of(&root(&["agent", "-v"])).unwrap().command, ["agent", "-v"]);
        let why = |words: &[&str]| Recorded::of(&root(words)).unwrap_err();
        assert_eq!(
            why(&["agent", "--api-key", "***"]),
            "argument 2 of its command, after \"--api-key\", was a secret and is not kept"
        );
        assert_eq!(Recorded::of(&Span::default()).unwrap_err(), "its command was not kept, by policy (content none)");
    }
}
