//! Commands to run next: they look into the store that was named to the one that says them.

use std::borrow::Cow;
use std::path::Path;

use clap::CommandFactory;

use super::output::safe;
use super::{Cli, FoundBy, Session};

impl Session<'_> {
    /// Returns what a command needs behind it to look into the same store: nothing where that is found without.
    pub fn store_flag(&self) -> String {
        match self.store_path() {
            (path, FoundBy::Flag) => format!(" --store {}", quoted(&path)),
            _ => String::new(),
        }
    }

    /// Has the commands in a text of ours look into the same store.
    pub fn with_store<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let flag = self.store_flag();
        if flag.is_empty() { text.into() } else { in_store(text, &flag).into() }
    }
}

/// Puts a flag behind each `runspan <command>` in a text.
fn in_store(text: &str, flag: &str) -> String {
    let known = Cli::command();
    let mut out = String::with_capacity(text.len() + flag.len());
    let mut rest = text;
    while let Some(at) = rest.find("runspan ") {
        let from = at + "runspan ".len();
        let length = rest[from..].bytes().take_while(u8::is_ascii_lowercase).count();
        let (done, behind) = rest.split_at(from + length);
        out.push_str(done);
        // Help is of no store.
        if known.find_subcommand(&rest[from..from + length]).is_some() && !behind.starts_with(" --help") {
            out.push_str(flag);
        }
        rest = behind;
    }
    out + rest
}

/// Quotes a path for a shell where it needs that.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c));
    if is_plain { text } else { safe(&format!("'{}'", text.replace('\'', r"'\''"))).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_a_text_get_the_store_behind_them_and_words_do_not() {
        assert_eq!(
            (quoted(Path::new("/a/b-c.d")), quoted(Path::new("/it's"))),
            ("/a/b-c.d".into(), r"'/it'\''s'".into())
        );
        let said = |text| in_store(text, " -S");
        let texts = [
            said("run 01 is paused; runspan resume 01 lets it go on"),
            said("`runspan list` shows them, runspan forward list the others"),
            said("runspan search --help says more; runspan is nothing; update runspan "),
        ];
        insta::assert_debug_snapshot!(texts, @r#"
        [
            "run 01 is paused; runspan resume -S 01 lets it go on",
            "`runspan list -S` shows them, runspan forward -S list the others",
            "runspan search --help says more; runspan is nothing; update runspan ",
        ]
        "#);
    }
}
