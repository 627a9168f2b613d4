//! How a command was called, as far as it may be stored.

use std::ffi::OsString;

/// Ends of names of options whose values are secrets.
const SECRETS: &[&str] = &[
    "key",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "auth",
    "authorization",
    "credentials",
    "cookie",
];
/// What stands for such a value.
pub const HIDDEN: &str = "***";

/// Words that name a secret in the middle of a variable's name, too, besides [`SECRETS`].
const SECRET_WORDS: &[&str] = &[
    "pass",
    "pat",
    "apikey",
    "credential",
    "private",
    "jwt",
    "dsn",
    "sas",
    "otp",
    "pin",
    "cert",
    "signature",
    "login",
];

/// Tells whether a variable is named like a secret: `AWS_ACCESS_KEY_ID`, `PGPASSWORD`.
pub fn is_secret_variable(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_word = |word: &str| SECRETS.contains(&word) || SECRET_WORDS.contains(&word);
    name.split(['_', '-', '.']).any(is_word) || SECRETS.iter().any(|word| name.ends_with(word))
}

/// Returns the arguments, without what follows an option that is named like a secret. What looks like one by itself is
/// found later, with all else that is stored.
pub fn without_secrets(command: &[OsString]) -> Vec<String> {
    let mut is_secret = false;
    let show = |argument: &OsString| {
        let text = argument.to_string_lossy().into_owned();
        if std::mem::replace(&mut is_secret, false) && !is_option(&text) {
            return HIDDEN.to_owned();
        }
        let (name, value) = text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value)));
        if !names_secret(name) {
            return text;
        }
        match value {
            Some(_) => format!("{name}={HIDDEN}"),
            // `key` alone is a word as any other.
            None => {
                is_secret = name.starts_with('-');
                text
            }
        }
    };
    command.iter().map(show).collect()
}

/// Tells whether an argument is an option such as `--max-tokens=5`, and not the value of the one before it. Of what is no
/// such word, as a key that begins with a hyphen, it is the value.
fn is_option(argument: &str) -> bool {
    let name = argument.strip_prefix("--").map(|rest| rest.split_once('=').map_or(rest, |(name, _)| name));
    name.is_some_and(|name| {
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && name
                .split(['-', '_', '.'])
                .all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()))
    })
}

fn names_secret(name: &str) -> bool {
    let name = name.trim_start_matches('-').to_ascii_lowercase();
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    is_name && SECRETS.iter().any(|word| name.ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_options_that_are_named_like_secrets_are_hidden() {
        let shown = |line: &str| {
            let command: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            without_secrets(&command).join(" ")
        };
        assert_eq!(shown("agent --api-key abc --model gpt-4o"), "agent --api-key *** --model gpt-4o");
        assert_eq!(shown("agent --password=abc OPENAI_API_KEY=abc x=1"), "agent --password=*** OPENAI_API_KEY=*** x=1");
        assert_eq!(shown("agent --token --verbose"), "agent --token --verbose");
        assert_eq!(shown("agent --token --log-level=2 -v"), "agent --token --log-level=2 -v");
        assert_eq!(shown("agent --api-key --password abc"), "agent --api-key --password ***");
        assert_eq!(shown("agent --api-key -abcDEF123zz x"), "agent --api-key *** x");
        assert_eq!(shown("agent --api-key --abcDEF123zz x"), "agent --api-key *** x");
        assert_eq!(shown("agent --max-tokens 5 key value"), "agent --max-tokens 5 key value");
    }
}
