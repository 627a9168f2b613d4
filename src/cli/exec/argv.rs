//! How a command was called, as far as it may be stored.

use std::ffi::OsString;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use runspan::conventions::scrub_rules::HARMLESS_TOKENS;

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

/// The same for what stands before a `:` or a `=` inside an argument, as a whole or behind `-`, `_` and `.`.
const NAMES_INSIDE: &[&str] =
    &["apikey", "accesskey", "secretkey", "accesstoken", "authtoken", "pass", "sig", "signature", "jwt", "credential"];

/// What a key is of that is a secret.
const KEYS: &[&str] =
    &["api", "access", "secret", "private", "auth", "subscription", "account", "signing", "encryption"];
/// A shorter one in a query, of which nothing says of what it is, is a name.
const LEAST_KEY: usize = 16;

/// A shorter value in a longer text is a word more often than a secret, unless a password or a header is named.
const LEAST_IN_TEXT: usize = 8;

/// Programs that take `user:password` behind an option, by their names, and the options.
const CLIENTS: &[&str] = &["curl", "curlie", "xh", "http", "https"];
const OF_USER: &[&str] = &["--user", "--proxy-user"];
/// The same as letters behind one hyphen, the last of several: `-su`.
const OF_USER_SHORT: [char; 3] = ['u', 'U', 'a'];
/// Another letter is for something else to these.
const WITHOUT_A: &[&str] = &["curl", "curlie"];
/// Options that a header follows.
const OF_HEADER: &[&str] = &["-H", "--header", "--proxy-header"];

/// A name, what stands between it and its value, with the scheme of an `Authorization`, and the value.
static NAMED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?P<before>^|[^A-Za-z0-9_./-])(?P<name>[A-Za-z0-9_.-]{2,64})(?P<sign>\\?["']?[ \t]*[:=][ \t]*\\?["']?(?P<scheme>(?i-u:bearer|basic|token|apikey|digest|bot)(?:[ \t]+|%20))?)(?P<value>[^\s"'`\\,;&\#<>]{3,})"#,
    )
    .ok()
});
/// A client with a user and a password, in a line for a shell.
static OF_CLIENT: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?P<head>(?:^|[\s/;|&(])(?:(?:curl|curlie|xh)[ \t](?:[^|;&\n]*?[ \t])?(?:-[A-Za-z]{0,3}[uU]|--user|--proxy-user)|(?:xh|http)[ \t](?:-[A-Za-z]{0,3}a|--auth))[ \t=]*["']?[^\s:"'$-][^\s:"']*:)(?P<password>[^\s"']+)"#,
    )
    .ok()
});

/// What stands for a value of either.
static HIDDEN_INSIDE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"[:=][ \t]*\\?["']?(?:[A-Za-z-]+(?:[ \t]+|%20))?\*\*\*(?:$|[\s"'`\\,;&\#<>])"#).ok());

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
    let (mut client, mut is_first) = (None, true);
    let mut option = String::new();
    let show = |argument: &OsString| {
        let text = argument.to_string_lossy().into_owned();
        let before = std::mem::replace(&mut option, text.clone());
        let name = text.rsplit('/').next();
        let is_word = std::mem::replace(&mut is_first, false);
        // These are words as well.
        let is_known = |known: &&str| name == Some(*known) && (is_word || !known.starts_with("http"));
        client = client.or(CLIENTS.iter().copied().find(is_known));
        if std::mem::replace(&mut is_secret, false) && !is_option(&text) {
            return HIDDEN.to_owned();
        }
        let (name, value) = text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value)));
        // Only variables are named so, and none has a line for a shell.
        let is_variable = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        let is_value = |value: &str| {
            let is_count = value.bytes().all(|byte| byte.is_ascii_digit());
            !value.contains(char::is_whitespace) && !is_count && !stands_for_another(value)
        };
        let is_secret_one = is_variable && names_secret_inside(name, None) && value.is_some_and(is_value);
        if !names_secret(name) && !is_secret_one {
            if let Some(user) = client.and_then(|client| user_and_password(client, &text, &before)) {
                return format!("{user}:{HIDDEN}");
            }
            let is_header = OF_HEADER.contains(&before.as_str()) || is_letters(&before, 'H') || text.starts_with("-H");
            let joined = OF_HEADER.iter().find_map(|option| text.strip_prefix(option)?.strip_prefix('='));
            let header = joined.or(Some(&*text).filter(|_| is_header));
            return match header.and_then(|header| Some((header, secret_header(header)?))) {
                Some((header, shown)) => format!("{}{shown}{HIDDEN}", &text[..text.len() - header.len()]),
                None => without_secrets_inside(&text, is_header),
            };
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

/// Tells whether something of a stored argument was hidden.
pub fn has_hidden(argument: &str) -> bool {
    argument.ends_with(HIDDEN) || HIDDEN_INSIDE.as_ref().is_some_and(|hidden| hidden.is_match(argument))
}

/// Returns what stands before the password in an argument, or in the value of one, that is `user:password`.
fn user_and_password<'a>(client: &str, argument: &'a str, before: &str) -> Option<&'a str> {
    let is_short = |letter: char| OF_USER_SHORT.contains(&letter) && (letter != 'a' || !WITHOUT_A.contains(&client));
    let is_value = OF_USER.contains(&before)
        || before.chars().last().is_some_and(|last| is_short(last) && is_letters(before, last));
    let is_joined = || {
        let is_long = |option: &&str| argument.strip_prefix(*option).is_some_and(|rest| rest.starts_with('='));
        OF_USER.iter().any(is_long) || argument.strip_prefix('-').is_some_and(|rest| rest.starts_with(is_short))
    };
    let (user, password) = argument.split_once(':').filter(|_| is_value || is_joined())?;
    // The password is in a variable, or there is none.
    (!password.is_empty() && !password.starts_with('$')).then_some(user)
}

/// Tells whether an option is a few letters behind one hyphen, and the last of them this one, which has a value.
fn is_letters(option: &str, last: char) -> bool {
    let letters = option.strip_prefix('-').filter(|letters| letters.len() <= 4);
    letters.is_some_and(|letters| letters.ends_with(last) && letters.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

/// Returns what may be shown of a header that is a secret as a whole: its name, and the scheme of an `Authorization`.
fn secret_header(header: &str) -> Option<&str> {
    let (name, value) = header.split_once(':')?;
    let behind = value.trim_start();
    if behind.is_empty() || behind.starts_with('$') || !names_secret_inside(name.trim(), None) {
        return None;
    }
    let scheme = behind.split_once([' ', '\t']).map(|(scheme, rest)| (scheme, rest.trim_start()));
    let is_scheme = |(scheme, rest): &(&str, &str)| {
        let is_name = scheme.len() <= 16 && scheme.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_name && !rest.is_empty() && name.to_ascii_lowercase().ends_with("authorization")
    };
    let hidden = scheme.filter(is_scheme).map_or(behind, |(_, rest)| rest);
    (!hidden.starts_with('$')).then(|| &header[..header.len() - hidden.len()])
}

/// Hides what a name in front marks as a secret, inside a line for a shell, a header or a URL.
fn without_secrets_inside(argument: &str, is_header: bool) -> String {
    let (Some(named), Some(of_client)) = (&*NAMED, &*OF_CLIENT) else { return argument.to_owned() };
    let (mut shown, mut told, mut at) = (String::with_capacity(argument.len()), 0, 0);
    // As in `token: abc12`.
    let is_alone = argument.split_whitespace().count() <= 2;
    while let Some(found) = named.captures_at(argument, at) {
        let [name, value] = ["name", "value"].map(|part| found.name(part).map(|part| (part.as_str(), part.range())));
        let (Some((name, of_name)), Some((value, of_value))) = (name, value) else { break };
        let is_query = found["before"].ends_with(['?', '&']);
        let is_of_header = (is_header && at == 0) || follows_header_option(&argument[..of_name.start]);
        let has_scheme = found.name("scheme").is_some() && !value.bytes().all(|byte| byte.is_ascii_lowercase());
        // In other text, names and words of cryptography stand beside each other: `signature: ed25519`.
        let is_long = || {
            (is_alone && names_secret(name))
                || names_password(name)
                || (value.len() >= LEAST_IN_TEXT && names_secret_surely(name))
        };
        let is_certain = is_query || is_of_header || has_scheme;
        let is_marked = names_secret_inside(name, is_query.then_some(value)) && !stands_for_another(value);
        at = of_name.end;
        if is_marked && (is_certain || (is_no_word(value) && is_long())) {
            shown.push_str(&argument[told..of_value.start]);
            shown.push_str(HIDDEN);
            (told, at) = (of_value.end, of_value.end);
        }
    }
    shown.push_str(&argument[told..]);
    let hidden = |found: &Captures<'_>| match &found["password"] {
        password if password.starts_with('$') => found[0].to_owned(),
        _ => format!("{}{HIDDEN}", &found["head"]),
    };
    of_client.replace_all(&shown, hidden).into_owned()
}

/// Tells whether an option that a header follows ends a text, but for a quotation that begins.
fn follows_header_option(before: &str) -> bool {
    let before = before.trim_end_matches(['"', '\'']);
    let option = before.trim_end_matches([' ', '\t', '=']);
    option.len() < before.len() && OF_HEADER.iter().any(|known| option.ends_with(known))
}

fn names_password(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "passphrase", "pwd", "pass"].iter().any(|word| name.ends_with(word))
}

/// Tells whether a name is of nothing else, in a text that may speak of tokens, keys and signatures of many kinds.
fn names_secret_surely(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_', '.'], "");
    name.ends_with("secret") || KEYS.iter().any(|key| name.ends_with(&format!("{key}key")))
}

/// `of_query` is the value of what stands in the query of a URL.
fn names_secret_inside(name: &str, of_query: Option<&str>) -> bool {
    // A header may follow its option without a blank.
    let name = name.strip_prefix("-H").unwrap_or(name).to_ascii_lowercase();
    let mut words = name.rsplit(['-', '_', '.']).peekable();
    let last = words.next().unwrap_or_default();
    let is_harmless = last == "token" && words.peek().is_some_and(|word| HARMLESS_TOKENS.contains(word));
    // `key` alone, or of a cache, names too much: a place in a list, a project.
    let is_of_kind = words.next().is_some_and(|word| KEYS.contains(&word));
    let is_long = of_query.is_some_and(|value| name == "key" && value.len() >= LEAST_KEY && is_no_word(value));
    let is_other_key = last == "key" && !is_of_kind && !is_long;
    !is_harmless && !is_other_key && (SECRETS.contains(&last) || NAMES_INSIDE.contains(&last))
}

/// Tells whether a value is one of a variable, one to be filled in, or code that gives it.
fn stands_for_another(value: &str) -> bool {
    let is_member = || {
        let mut parts = value.split('.');
        let is_lower = |part: &str| part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        parts.next().is_some_and(is_lower)
            && value.contains('.')
            && parts.all(|part| part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_'))
    };
    let is_flag = ["true", "false", "none", "null"].iter().any(|word| value.eq_ignore_ascii_case(word));
    is_flag || value.starts_with(['$', '{', '%', '*', '(', ':']) || value.contains(['(', '[', '{']) || is_member()
}

/// Tells whether a value is more than a word or a number of a text: `a1b2c3`, and neither `limits.` nor `4,096`.
fn is_no_word(value: &str) -> bool {
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let has_letter = value.bytes().any(|byte| byte.is_ascii_alphabetic());
    (has_letter && (digits >= 2 || (digits == 1 && value.len() >= 6))) || digits >= 6
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

    fn shown(command: &[&str]) -> String {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        without_secrets(&command).pop().unwrap()
    }

    #[test]
    fn what_a_name_inside_an_argument_marks_is_hidden_however_short() {
        let all = [
            &["curl", "-H", "Authorization: Bearer Secr3tBearer"][..],
            &["curl", "-H", "X-Api-Key: hunter"],
            &["curl", "-HAuthorization: Basic YTpi"],
            &["agent", "token: a1b2c3d4e5"],
            &["agent", "https://h/x?token=abcdef12345&page=2"],
            &["agent", "https://h/x?a=b&sig=abc#part"],
            &["curl", "-u", "admin:pw"],
            &["/usr/bin/curl", "-uadmin:pw"],
            &["curl", "--user=admin:pw"],
            &["curl", "-su", "admin:pw"],
            &["http", "-a", "admin:pw"],
            &["sh", "-c", "curl -sSu admin:pw http://h; http -a admin:pw h"],
            &["curl", "-H", "X-Vault-Token: hvs.CAESI"],
            &["curl", "-H", "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=ab"],
            &["curl", "-H", "Authorization: Custom abc def"],
            &["curl", "-H", "Cookie: lang=en; session=Secr3t"],
            &["curl", "-sSfH", "X-Vault-Token: hvs.CAESI"],
            &["wget", "--header=Authorization: Custom abc def"],
            &["env", "DB_PASS=abc"],
            &["sh", "-c", "DB_PASS=abc12 tool --fast"],
            &["sh", "-c", "curl -s -u admin:pw http://h | agent"],
            &["sh", "-c", "curl -H 'Authorization: Bearer Secr3t' -H \"x-api-key: a1b2c3\" http://h"],
            &["python", "-c", "run(api_key='a1b2c3d4', model='gpt-4o')"],
            &["agent", r#"{"password": "hunter22", "user": "me"}"#],
        ]
        .map(shown);
        insta::assert_snapshot!(all.join("\n"), @r#"
    Authorization: Bearer ***
    X-Api-Key: ***
    -HAuthorization: Basic ***
    token: ***
    https://h/x?token=***&page=2
    https://h/x?a=b&sig=***#part
    admin:***
    -uadmin:***
    --user=admin:***
    admin:***
    admin:***
    curl -sSu admin:*** http://h; http -a admin:*** h
    X-Vault-Token: ***
    Authorization: ***
    Authorization: Custom ***
    Cookie: ***
    X-Vault-Token: ***
    --header=Authorization: Custom ***
    DB_PASS=***
    DB_PASS=*** tool --fast
    curl -s -u admin:*** http://h | agent
    curl -H 'Authorization: Bearer ***' -H "x-api-key: ***" http://h
    run(api_key='***', model='gpt-4o')
    {"password": "***", "user": "me"}
    "#);
        assert!(all.iter().all(|argument| has_hidden(argument)), "{all:?}");
    }

    #[test]
    fn words_behind_a_name_that_are_no_secrets_stay() {
        for command in [
            &["agent", "Explain what a token: is, and the secret: never give up. The key: 12 words."][..],
            &["agent", "token: explained"],
            &["agent", "signature=ed25519"],
            &["agent", "Sign it with signature=ed25519 and auth: oauth2; the key: gpt4o-mini01."],
            &["agent", "https://h/x?page_token=abc123&monkey=12ab34"],
            &["agent", "max_tokens=4096, key=1024"],
            &["docker", "run", "-u", "1000:1000"],
            &["curl", "-u", "admin:$PASSWORD"],
            &["curl", "-u", "admin"],
            &["curl", "-H", "Accept: text/html2"],
            &["curl", "-a", "ftp://h/x"],
            &["curl", "-H", "Authorization: Bearer $TOKEN"],
            &["curl", "-H", "X-Cache-Key: a1b2c3"],
            &["make", "PASSES=3"],
            &["make", "PASS=2"],
            &["tool", "TOKEN_LIMIT=5"],
            &["tool", "http", "-addr=localhost:8080"],
            &["tool", "--scheme", "https", "-a", "0.0.0.0:8080"],
            &["agent", "serve over http with -a localhost:8080 please"],
            &["sh", "-c", "curl -H \"Authorization: Bearer $TOKEN\" -u $USER:$PW http://h:8080"],
            &["python", "-c", "run(api_key=settings.key_12, token=os.environ['T12'])"],
            &["agent", "password: ***bold12***"],
            &["docker", "run", "myorg/auth:v1.2.3"],
            &["cargo", "test", "auth::tests::oauth2_works"],
            &["agent", "Count each token: cl100k_base has one, jwt: RS256 none"],
            &["agent", "https://h/x?key=PROJ-123&sort_key=name12&cache_key=a1b2c3d4&public_key=ab12&signature=true"],
        ] {
            assert_eq!(&shown(command), command.last().unwrap());
        }
    }
}
