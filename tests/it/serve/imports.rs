//! Imports beside others of the same runs.

use std::process::Stdio;

use super::*;

/// What both are told of is in the store once, whichever was faster at each run.
#[test]
fn two_imports_of_one_file_at_once_are_as_one() {
    const TRACES: u16 = 300;
    let dir = tempdir();
    let (store, file) = (dir.path().join("s"), dir.path().join("spans.pb"));
    // Children first, and roots after all of them: each run is told of twice.
    let of = |trace: u16, spans: Vec<Span>| {
        spans.into_iter().map(move |mut span| {
            span.trace_id[..2].copy_from_slice(&trace.to_be_bytes());
            span
        })
    };
    let (mut children, mut roots) = (Vec::new(), Vec::new());
    for trace in 1..=TRACES {
        let mut spans = agent(1);
        let root = spans.split_off(2);
        children.extend(of(trace, spans));
        roots.extend(of(trace, root));
    }
    std::fs::write(&file, request([children, roots].concat()).encode_to_vec()).unwrap();
    let import = || {
        let mut import = Command::new(env!("CARGO_BIN_EXE_runspan"));
        import.arg("import").arg(&file).arg("--store").arg(&store).stdout(Stdio::piped()).stderr(Stdio::piped());
        import.spawn().unwrap()
    };
    let both = [import(), import()].map(|import| import.wait_with_output().unwrap());
    let stored = both.map(|output| {
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        said.split_whitespace().next().unwrap().replace(',', "").parse::<u64>().unwrap()
    });
    assert!(stored.contains(&(3 * u64::from(TRACES))), "one of them has told all of it: {stored:?}");
    let all = runs(&store);
    let tokens: u64 = all.iter().filter_map(|run| run.tokens?.total).sum();
    assert_eq!((all.len(), tokens), (usize::from(TRACES), 110 * u64::from(TRACES)));
    let verified =
        Command::new(env!("CARGO_BIN_EXE_runspan")).arg("verify").arg("--store").arg(&store).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}
