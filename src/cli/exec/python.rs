//! Python programs: OpenTelemetry's auto-instrumentation is started where it is installed, with a distribution that configures the SDK.
//! Without one it would only take the place of a program's own instrumentation, and send nothing.
//!
//! It is what `opentelemetry-instrument` does, and no more: its folder, with a `sitecustomize` in it, comes first on
//! `PYTHONPATH` (`run` in `opentelemetry/instrumentation/auto_instrumentation/__init__.py` of opentelemetry-python-contrib).

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long Python may take to say where the folder is.
const LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);
/// A longer first line leads nowhere.
const LINE: u64 = 4096;

/// So much of a shell's script is looked at.
const SCRIPT: u64 = 16 << 10;
/// Programs that begin Python, or may where nobody can tell what they begin, beside those that bear its name or are scripts of it.
const LAUNCHERS: &[&str] =
    &["uv", "uvx", "poetry", "pdm", "pipenv", "hatch", "rye", "pixi", "conda", "tox", "nox", "make", "just"];
/// Programs that begin another one, which their words name.
const WRAPPERS: &[&str] = &["env", "nice", "nohup", "time", "timeout", "stdbuf", "setsid"];
/// So many programs may be around one, and so many scripts call each other, that are looked at.
const MOST_AROUND: usize = 8;
/// Shells, which do so, too, and run scripts.
const SHELLS: &[&str] = &["sh", "bash", "dash", "zsh"];

/// Says where the folder is without loading anything of it, of `PYTHONPATH`, or of the current directory, which comes first on the path of
/// what is given by `-c`. Folders of one name may lie in several places, and are all looked through. Who configures the SDK is known by
/// the entry points that `opentelemetry-instrument` asks.
const FIND: &str = "\
import sys
import os
folders = [folder for folder in sys.path if folder]
given = os.environ.get('PYTHONPATH', '').split(os.pathsep)
sys.path = [folder for folder in folders if folder not in given]
from importlib.metadata import entry_points
sys.path = folders
from importlib.machinery import PathFinder
def find(*names):
    folders = None
    for name in names:
        found = PathFinder.find_spec(name, folders)
        if not found or found.submodule_search_locations is None:
            return None
        folders = list(found.submodule_search_locations)
    return folders
folders = find('opentelemetry', 'instrumentation', 'auto_instrumentation')
if folders:
    group = 'opentelemetry_configurator'
    try:
        found = entry_points(group=group)
    except TypeError:
        found = entry_points().get(group, ())
    makers = {point.value.partition('.')[0] for point in found}
    has_own = any(point.value.startswith('opentelemetry.distro') for point in found)
    if makers - {'azure'}:
        sys.stdout.write(os.path.abspath(folders[0]) + ('\\nown' if has_own and 'azure' in makers else ''))
";

/// What has OpenTelemetry's own distribution chosen, where another is installed beside it: by default the first one is, and Azure
/// Monitor's takes whatever exporter is asked for as its own, and fails without a key for it.
const OWN: [(&str, &str); 2] = [("OTEL_PYTHON_DISTRO", "distro"), ("OTEL_PYTHON_CONFIGURATOR", "configurator")];

/// What a command gets, so that auto-instrumentation starts.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// `PYTHONPATH`.
    pub path: OsString,
    /// Variables that it has unless it has them already.
    pub defaults: &'static [(&'static str, &'static str)],
}

/// Returns what starts auto-instrumentation in a command that is Python with it installed. Where there is no distribution but Azure Monitor's,
/// it is left to the program.
pub fn start_of(command: &[OsString], python_path: Option<&OsStr>) -> Option<Start> {
    let program = which(command.first()?)?;
    // It does so itself.
    if program.file_name() == Some(OsStr::new("opentelemetry-instrument")) {
        return None;
    }
    let (folder, defaults) = find_folder(&interpreter(&program)?)?;
    let given = python_path.filter(|path| !path.is_empty());
    if given.is_some_and(|given| std::env::split_paths(given).any(|path| path == folder)) {
        return None;
    }
    let given: Vec<PathBuf> = given.map(|given| std::env::split_paths(given).collect()).unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder).chain(given)).ok()?;
    Some(Start { path, defaults })
}

/// Tells whether a command is Python, as far as its words tell, and those of the scripts of shells that it runs.
pub fn runs(command: &[OsString]) -> bool {
    let words: Vec<&str> = command.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    runs_within(&words, MOST_AROUND)
}

/// The same of words, which so many programs may be around.
fn runs_within(words: &[&str], around: usize) -> bool {
    let (Some((program, rest)), Some(around)) = (words.split_first(), around.checked_sub(1)) else { return false };
    if begins_python(OsStr::new(program)) || Path::new(program).extension() == Some(OsStr::new("py")) {
        return true;
    }
    if is_named(program, WRAPPERS) {
        return runs_within(behind_options(rest), around);
    }
    let in_text = |text: &str| commands_in(text).any(|words| runs_within(&words, around));
    if is_named(program, SHELLS) {
        let given = rest.iter().find(|word| !word.starts_with('-'));
        let is_text = rest.iter().take_while(|word| word.starts_with('-')).any(|word| word.ends_with('c'));
        let script = given.and_then(|word| if is_text { Some((*word).to_owned()) } else { text_of(Path::new(word)) });
        return script.is_some_and(|text| in_text(&text));
    }
    let Some(found) = which(OsStr::new(program)) else { return false };
    if found.canonicalize().is_ok_and(|found| is_python(&found)) {
        return true;
    }
    let Some(text) = text_of(&found) else { return false };
    let Some(line) = text.lines().next().and_then(|line| line.strip_prefix("#!")) else { return false };
    let first: Vec<&str> = line.split_whitespace().collect();
    let is_of_shell = first.iter().any(|word| is_named(word, SHELLS));
    if is_of_shell { in_text(&text) } else { runs_within(&first, around) }
}

/// Returns the words of a wrapper from the command on that it begins: behind options and what belongs to them, and variables.
fn behind_options<'a, 'b>(words: &'a [&'b str]) -> &'a [&'b str] {
    // Of `env` this takes the name of a variable.
    let is_name =
        |at: usize| at > 0 && matches!(words[at - 1], "-u" | "--unset" | "-C" | "--chdir" | "-s" | "--signal");
    let is_count = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let is_before = |at: usize| words[at].starts_with('-') || words[at].contains('=') || is_count(words[at]);
    let from = (0..words.len()).take_while(|at| is_name(*at) || is_before(*at)).count();
    &words[from..]
}

/// Returns the commands in the text of a shell, as their words without quotes, as far as they can be told without a shell.
fn commands_in(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(|line| line.split([';', '|', '&', '(', ')'])).map(|part| {
        let words = part.split_whitespace().map(|word| word.trim_matches(['"', '\'']));
        words.skip_while(|word| word.contains('=') || ["exec", "then", "do", "else", "!"].contains(word)).collect()
    })
}

fn begins_python(program: &OsStr) -> bool {
    is_python(Path::new(program)) || is_named(program, LAUNCHERS)
}

fn is_named(program: impl AsRef<Path>, names: &[&str]) -> bool {
    program.as_ref().file_name().and_then(OsStr::to_str).is_some_and(|name| names.contains(&name))
}

/// Reads the beginning of a file, if it is text; what is a pipe is left to the command.
fn text_of(file: &Path) -> Option<String> {
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut text = Vec::new();
    std::fs::File::open(file).ok()?.take(SCRIPT).read_to_end(&mut text).ok()?;
    (!text.contains(&0)).then(|| String::from_utf8_lossy(&text).into_owned())
}

/// Returns the interpreter that runs a program: itself, or that of its first line.
fn interpreter(program: &Path) -> Option<PathBuf> {
    if is_python(program) {
        return Some(program.to_owned());
    }
    let mut line = Vec::new();
    let file = std::fs::File::open(program).ok()?;
    BufReader::new(file.take(LINE)).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8(line.strip_prefix(b"#!")?.to_vec()).ok()?;
    let mut words = line.split_whitespace();
    let first = Path::new(words.next()?);
    let named = if first.file_name() == Some(OsStr::new("env")) {
        which(OsStr::new(words.find(|word| !word.starts_with('-'))?))?
    } else {
        first.to_owned()
    };
    is_python(&named).then_some(named)
}

/// Tells whether a file is named `python`, `python3`, `python3.12`.
fn is_python(program: &Path) -> bool {
    let name = program.file_name().map(OsStr::as_bytes).unwrap_or_default();
    name.strip_prefix(b"python").is_some_and(|rest| rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.'))
}

/// Finds a program as it will be found when it is run.
pub fn which(program: &OsStr) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Asks an interpreter for the folder, and what it has to be told; one that does not answer has none.
fn find_folder(interpreter: &Path) -> Option<(PathBuf, &'static [(&'static str, &'static str)])> {
    let mut child = Command::new(interpreter)
        .args(["-c", FIND])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let until = Instant::now() + LIMIT;
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if Instant::now() < until => std::thread::sleep(POLL),
            _ => break false,
        }
    };
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    // A path fits into the pipe, so all of it is there.
    let mut said = Vec::new();
    child.stdout?.take(LINE).read_to_end(&mut said).ok()?;
    let (said, defaults) = match said.strip_suffix(b"\nown") {
        Some(said) => (said, &OWN[..]),
        None => (&*said, &[][..]),
    };
    let folder = PathBuf::from(OsStr::from_bytes(said));
    folder.join("sitecustomize.py").is_file().then_some((folder, defaults))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(path: &Path, text: &str, mode: u32) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn python_is_known_by_its_name_and_by_the_first_line_of_a_script() {
        let dir = tempfile::tempdir().unwrap();
        let python = dir.path().join("python3.12");
        file(&python, "#!/bin/sh\n", 0o755);
        let script = |line: &str| {
            let path = dir.path().join("script");
            file(&path, line, 0o755);
            interpreter(&path)
        };
        assert_eq!(interpreter(&python), Some(python.clone()));
        assert_eq!(script(&format!("#!{} -u\nprint()", python.display())), Some(python));
        assert_eq!(script("#!/bin/sh\npython3"), None);
        assert_eq!(script("\x7fELF"), None);
        assert_eq!(script("#!/opt/pythonista"), None);
    }

    #[test]
    fn a_command_is_python_by_its_program_or_by_what_a_wrapper_begins() {
        let is = |command: &str| runs(&command.split('|').map(OsString::from).collect::<Vec<_>>());
        for command in
            ["python3.12|agent.py", "/venv/bin/python|-m|agent", "uv|run|agent", "sh|-c|cd x && python3 a.py"]
        {
            assert!(is(command), "{command}");
        }
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = dir.path().join(name);
            file(&path, text, 0o755);
            path.to_str().unwrap().to_owned()
        };
        let own = script("pytest9", "#!/usr/bin/python3\nprint()\n");
        let node = script("copilot9", "#!/usr/bin/env node\n// not python\n");
        let long = script("long", "#!/bin/sh\n'''exec' \"/a/long/place/python\" \"$0\" \"$@\"\n' '''\nimport x\n");
        let shell = script("start.sh", &format!("#!/bin/sh\n# python\nset -e\nexec {own} -q\n"));
        for command in [
            "timeout|60|./agent.py".to_owned(),
            own.clone(),
            format!("env|-u|X|A=b|{own}|-q"),
            format!("timeout|-k|5|60s|{own}"),
            format!("sh|-c|cd x && A=b {own} -q"),
            format!("bash|-lc|({own})"),
            format!("sh|{shell}"),
            script("agent3", "#!/usr/bin/env -S uv run --script\n"),
            long,
            shell,
            "make|agent".to_owned(),
        ] {
            assert!(is(&command), "{command}");
        }
        std::os::unix::fs::symlink(dir.path().join("python3.12"), dir.path().join("agent")).unwrap();
        file(&dir.path().join("python3.12"), "", 0o755);
        assert!(is(dir.path().join("agent").to_str().unwrap()));
        for command in [
            "node|agent.js".to_owned(),
            "java|-jar|agent.jar".to_owned(),
            "copilot|-p|write a python script".to_owned(),
            "sh|-c|node a.js".to_owned(),
            format!("timeout|9|{node}|-p|write a python script"),
            format!("timeout|9|{node}|-p|fix app.py please"),
            format!("env|{node}"),
            format!("sh|-c|echo python; {node}"),
            node.clone(),
            script("loop", &format!("#!/bin/sh\nexec {}/loop\n", dir.path().display())),
            String::new(),
        ] {
            assert!(!is(&command), "{command}");
        }
    }

    #[test]
    fn the_folder_is_found_without_running_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (packages, here) = (dir.path().join("packages"), dir.path().join("here"));
        let ran = dir.path().join("ran");
        let runs = format!("open({:?}, 'w')", ran.to_str().unwrap());
        let folder = packages.join("opentelemetry/instrumentation/auto_instrumentation");
        for file_in in [&packages.join("opentelemetry/instrumentation"), &folder, &here.join("opentelemetry")] {
            file(&file_in.join("__init__.py"), &runs, 0o644);
        }
        file(&here.join("types.py"), &runs, 0o644);
        let found = |path: &Path| {
            let mut python = Command::new("python3");
            python.args(["-c", FIND]).current_dir(&here).env("PYTHONPATH", path);
            String::from_utf8(python.output().unwrap().stdout).unwrap()
        };
        let install = |package: &str, module: &str| {
            let info = packages.join(format!("{package}-1.0.dist-info"));
            file(&info.join("METADATA"), &format!("Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"), 0o644);
            let points = format!("[opentelemetry_configurator]\nconfigurator = {module}:Configurator\n");
            file(&info.join("entry_points.txt"), &points, 0o644);
        };
        let remove =
            |package: &str| std::fs::remove_dir_all(packages.join(format!("{package}-1.0.dist-info"))).unwrap();
        assert_eq!(found(&packages), "", "nobody would send anything");
        install("opentelemetry_distro", "opentelemetry.distro");
        assert_eq!(found(&packages), folder.to_str().unwrap());
        install("azure_monitor_opentelemetry", "azure.monitor.opentelemetry._autoinstrumentation.configurator");
        assert_eq!(found(&packages), format!("{}\nown", folder.display()));
        remove("opentelemetry_distro");
        assert_eq!(found(&packages), "");
        install("splunk_opentelemetry", "splunk_otel.configurator");
        assert_eq!(found(&packages), folder.to_str().unwrap());
        assert_eq!(found(&dir.path().join("nothing")), "");
        assert!(!ran.exists());
    }

    #[test]
    fn the_folder_comes_first_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("auto");
        file(&folder.join("sitecustomize.py"), "", 0o644);
        let python = dir.path().join("python3");
        file(&python, &format!("#!/bin/sh\nprintf %s {}\n", folder.display()), 0o755);
        let command = [OsString::from(&python), OsString::from("agent.py")];
        let path = |given: &str| start_of(&command, Some(OsStr::new(given))).map(|start| start.path);
        let folder = folder.to_str().unwrap();
        assert_eq!(path(""), Some(folder.into()));
        assert_eq!(path("/a:/b"), Some(format!("{folder}:/a:/b").into()));
        assert_eq!(path(&format!("/a:{folder}")), None, "somebody has done it");
        let start = |said: &str| {
            file(&python, &format!("#!/bin/sh\nprintf '%s{said}' {folder}\n"), 0o755);
            start_of(&command, None).map(|start| start.defaults)
        };
        assert_eq!((start(""), start("\\nown")), (Some(&[][..]), Some(&OWN[..])));
        file(&python, "#!/bin/sh\n", 0o755);
        assert_eq!(path(""), None, "it is not installed");
    }
}
