//! Arguments that nobody in their right mind would give.

use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

/// Commands that ask, end by themselves, and write nothing; with flags that they may not be given here.
const ASKING: [(&[&str], &[&str]); 11] = [
    (&["list"], &[]),
    (&["get"], &[]),
    (&["search"], &[]),
    (&["stats"], &[]),
    (&["sql"], &[]),
    (&["compare"], &[]),
    (&["artifacts"], &["extract", "to", "force"]),
    (&["export"], &["to", "otlp", "again"]),
    (&["prices", "list"], &[]),
    (&["prices", "lookup"], &[]),
    (&["verify"], &["checkpoint-to", "repair"]),
];

/// What stands where a word does; `ID` is the id of a run, `TRACE` that of its trace.
fn odd_word() -> impl Strategy<Value = String> {
    let known = proptest::sample::select(
        &[
            "",
            " ",
            "-",
            "--",
            "-1",
            "0",
            "latest",
            "ID",
            "TRACE",
            "ID/..",
            "all",
            "2h",
            "99999999999d",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:60Z",
            "1969-12-31T23:59:59Z",
            "nan",
            "inf",
            "-0",
            "1e309",
            "$0.1",
            "18446744073709551616",
            "../../etc/passwd",
            "/dev/zero",
            "..%2f",
            "a\0b",
            "\u{1b}[2J",
            "\u{202e}",
            "'; drop table runs --",
            "select 1",
            "select",
            "\"",
            "\"a",
            "a OR",
            "NEAR(",
            "*",
            "name:",
            "error",
            "agent",
            "chat",
            "read_file",
            "%",
            "{}",
            "[",
            "=",
            "a=b",
            "success",
            "=-1",
            "\u{feff}",
        ][..],
    );
    prop_oneof![
        6 => known.prop_map(str::to_owned),
        2 => "\\PC{0,20}",
        1 => proptest::collection::vec(any::<char>(), 0..8).prop_map(String::from_iter),
        1 => (0..14u32).prop_map(|bits| "x".repeat(1 << bits)),
    ]
}

/// What stands where an argument does.
#[derive(Clone, Debug)]
enum Odd {
    /// A flag of the command, with a word for it or not.
    Flag(Index, Option<String>),
    Word(String),
}

fn odd() -> impl Strategy<Value = Odd> {
    prop_oneof![
        (any::<Index>(), proptest::option::weighted(0.8, odd_word())).prop_map(|(of, word)| Odd::Flag(of, word)),
        odd_word().prop_map(Odd::Word),
    ]
}

/// Writes arguments out for a command.
fn arguments(path: &[&str], never: &[&str], odd: &[Odd], run: RunId) -> Vec<String> {
    let mut command = Cli::command();
    command.build();
    let found = path.iter().try_fold(&command, |command, name| command.find_subcommand(name)).unwrap();
    let flags: Vec<&str> =
        found.get_arguments().filter_map(|flag| flag.get_long()).filter(|flag| !never.contains(flag)).collect();
    // Whatever store they name, it is this one that they are asked of.
    let flags: Vec<&str> = flags.into_iter().filter(|flag| *flag != "store").collect();
    let named = |word: &str| word.replace("ID", &run.to_string()).replace("TRACE", &run.as_trace_id().to_string());
    let mut arguments: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
    for odd in odd {
        match odd {
            Odd::Flag(..) if flags.is_empty() => arguments.push("--odd".to_owned()),
            Odd::Flag(of, None) => arguments.push(format!("--{}", of.get(&flags))),
            Odd::Flag(of, Some(word)) => arguments.push(format!("--{}={}", of.get(&flags), named(word))),
            Odd::Word(word) => arguments.push(named(word)),
        }
    }
    arguments
}

proptest! {
    #[test]
    fn any_arguments_are_understood_or_are_wrong_use(of in any::<Index>(), odd in proptest::collection::vec(odd(), 0..6)) {
        let mut command = Cli::command();
        command.build();
        let names: Vec<&str> = command.get_subcommands().map(|command| command.get_name()).collect();
        let arguments = arguments(&[*of.get(&names)], &[], &odd, RunId([1; 16]));
        let parsed = Cli::command().try_get_matches_from(["runspan"].into_iter().map(str::to_owned).chain(arguments));
        if let Err(error) = parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let look = Look { width: 80, cuts: true, colour: false, is_terminal: false };
            let code = print_usage(&error, look, &mut out, &mut err);
            prop_assert!(matches!(code, 0 | CODE_USE), "{}", code);
        }
    }
}

#[test]
fn any_question_is_answered_or_refused_and_nothing_of_it_reaches_a_terminal() {
    let mut store = Store::new();
    let run = store.record_agent(1);
    store.record_other_agent();
    store.record_open_workflow();
    let asked = (any::<Index>(), proptest::collection::vec(odd(), 0..5));
    proptest!(|((of, odd) in asked)| {
        let (path, never) = of.get(&ASKING);
        let arguments = arguments(path, never, &odd, run);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = runspan(store.path(), &arguments);
        prop_assert!(answer.code <= CODE_FAILED, "{:?}: {}", arguments, answer.code);
        let odd = answer.err.chars().find(|c| is_unsafe(*c) && *c != '\n');
        prop_assert_eq!(odd, None, "{:?}: {:?}", arguments, answer.err);
        if answer.code != 0 {
            prop_assert!(!answer.err.is_empty() || !answer.out.is_empty(), "{:?}", arguments);
        }
    });
}
