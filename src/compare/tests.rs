use super::*;
use crate::model::{SpanId, StepKind, StepStatus, UnixNanos};

/// A step as `depth.name=content`; the last one above it with a smaller depth is its parent.
fn steps(told: &[&str]) -> Vec<StepView> {
    let mut above: Vec<SpanId> = Vec::new();
    let mut steps = Vec::new();
    for (place, told) in told.iter().enumerate() {
        let (depth, rest) = told.split_once('.').unwrap();
        let (name, content) = rest.split_once('=').unwrap_or((rest, ""));
        let id = SpanId((place as u64 + 1).to_be_bytes());
        above.truncate(depth.parse().unwrap());
        let kind = if name == "chat" { StepKind::Llm } else { StepKind::Tool };
        steps.push(step(id, above.last().copied(), kind, name, content));
        above.push(id);
    }
    steps
}

fn step(span_id: SpanId, parent_span_id: Option<SpanId>, kind: StepKind, name: &str, input: &str) -> StepView {
    StepView {
        step_id: format!("{name}-{}", u64::from_be_bytes(span_id.0)),
        span_id,
        parent_span_id,
        kind,
        name: name.to_owned(),
        agent_id: None,
        status: StepStatus::Success,
        started_at: UnixNanos(u64::from_be_bytes(span_id.0)),
        duration_ms: None,
        provider: None,
        model: None,
        tokens: None,
        cost_usd: None,
        cost_source: None,
        error: None,
        input: Some(input.into()),
        output: None,
        duplicate_of: None,
    }
}

fn shown(a: &[StepView], b: &[StepView]) -> String {
    let mut out = String::new();
    for pair in align(a, b) {
        let sign = match (pair.a, pair.b, pair.is_moved) {
            (Some(_), None, _) => '-',
            (None, Some(_), _) => '+',
            (.., true) => '~',
            _ => '=',
        };
        let name = |steps: &[StepView], at: Option<usize>| at.map(|at| steps[at].step_id.clone()).unwrap_or_default();
        let line = format!("{}{sign} {} {}", "  ".repeat(pair.depth), name(a, pair.a), name(b, pair.b));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[test]
fn a_call_left_out_shows_as_that_call_and_new_ones_where_they_are() {
    let a = steps(&["0.agent", "1.chat=x", "1.read=1", "1.chat=y", "1.read=2", "2.deep", "1.chat=z"]);
    let b = steps(&["0.agent", "1.read=1", "1.chat=y", "1.write", "1.read=2", "2.other", "1.chat=Z"]);
    insta::assert_snapshot!(shown(&a, &b), @r"
    = agent-1 agent-1
      - chat-2
      = read-3 read-2
      = chat-4 chat-3
      +  write-4
      = read-5 read-5
        - deep-6
        +  other-6
      = chat-7 chat-7
    ");
}

#[test]
fn what_is_left_over_on_both_sides_has_changed_its_place() {
    let a = steps(&["0.one", "1.below", "0.two", "0.three"]);
    let b = steps(&["0.three", "0.one", "1.below", "0.two"]);
    insta::assert_snapshot!(shown(&a, &b), @r"
    ~ three-4 three-1
    = one-1 one-2
      = below-2 below-3
    = two-3 two-4
    ");
}

#[test]
fn a_circle_of_parents_is_shown_once() {
    let mut a = steps(&["0.one", "1.two", "2.three"]);
    a[0].parent_span_id = Some(a[2].span_id);
    insta::assert_snapshot!(shown(&a, &a), @r"
    = one-1 one-1
      = two-2 two-2
        = three-3 three-3
    ");
}

#[test]
fn a_model_by_another_name_is_the_same_step() {
    let mut a = steps(&["0.chat=x"]);
    let mut b = steps(&["0.chat=x"]);
    (a[0].name, a[0].model) = ("chat gpt-4o".to_owned(), Some("gpt-4o".to_owned()));
    (b[0].name, b[0].model) = ("chat o3".to_owned(), Some("o3".to_owned()));
    let pairs = align(&a, &b);
    assert_eq!((pairs[0].a, pairs[0].b), (Some(0), Some(0)));
    assert_eq!(steps_differ(&a[0], &b[0]), [Aspect::Model]);
}

/// Whether every step is shown once, and parents before their children.
fn is_whole(a: &[StepView], b: &[StepView], pairs: &[Pair]) -> bool {
    let once = |mut places: Vec<usize>, length: usize| {
        places.sort_unstable();
        places.into_iter().eq(0..length)
    };
    once(pairs.iter().filter_map(|pair| pair.a).collect(), a.len())
        && once(pairs.iter().filter_map(|pair| pair.b).collect(), b.len())
}

#[test]
fn fifty_thousand_siblings_are_aligned_within_the_bound() {
    let list = |content: &dyn Fn(u64) -> String| -> Vec<StepView> {
        let kinds = [(StepKind::Llm, "chat"), (StepKind::Tool, "read"), (StepKind::Tool, "write")];
        let of = |n: u64| {
            let (kind, name) = kinds[(n % 7 % 3) as usize];
            step(SpanId((n + 1).to_be_bytes()), None, kind, name, &content(n))
        };
        (0..50_000).map(of).collect()
    };
    let a = list(&|n| n.to_string());
    // One is missing in the middle: all others are found.
    let mut b = a.clone();
    b.remove(20_000);
    let pairs = align(&a, &b);
    assert!(is_whole(&a, &b, &pairs));
    assert_eq!(pairs.iter().filter(|pair| !pair.is_in_place()).count(), 1);
    // Nothing is the same, and nothing stands out: each with each would be 2.5 thousand million.
    let b = list(&|n| format!("other {n}"));
    let pairs = align(&a, &b[1..]);
    assert!(is_whole(&a, &b[1..], &pairs));
    let deep: Vec<StepView> = (0..50_000u64)
        .map(|n| step(SpanId((n + 1).to_be_bytes()), Some(SpanId(n.to_be_bytes())), StepKind::Task, "down", ""))
        .collect();
    assert_eq!(align(&deep, &deep).iter().filter(|pair| pair.is_in_place()).count(), 50_000);
}

/// The best possible by trying everything.
fn by_trying(a: &[(u32, u64)], b: &[(u32, u64)]) -> (usize, usize) {
    let (Some((first, rest_a)), Some((other, rest_b))) = (a.split_first(), b.split_first()) else { return (0, 0) };
    let mut best = by_trying(rest_a, b).max(by_trying(a, rest_b));
    if first.0 == other.0 {
        let (alike, same) = by_trying(rest_a, rest_b);
        best = best.max((alike + 1, same + usize::from(first.1 == other.1)));
    }
    best
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 200, ..Default::default() })]

    #[test]
    fn no_way_of_pairing_siblings_is_better(
        a in proptest::collection::vec((0u32..3, 0u64..3), 0..7),
        b in proptest::collection::vec((0u32..3, 0u64..3), 0..7),
    ) {
        let list = |told: &[(u32, u64)]| -> Vec<StepView> {
            let of = |(n, (key, content)): (usize, &(u32, u64))| {
                let id = SpanId((n as u64 + 1).to_be_bytes());
                step(id, None, StepKind::Tool, &key.to_string(), &content.to_string())
            };
            told.iter().enumerate().map(of).collect()
        };
        let pairs = align(&list(&a), &list(&b));
        let in_place: Vec<(usize, usize)> =
            pairs.iter().filter(|pair| pair.is_in_place()).filter_map(|pair| pair.a.zip(pair.b)).collect();
        let same = in_place.iter().filter(|(at_a, at_b)| a[*at_a] == b[*at_b]).count();
        proptest::prop_assert_eq!((in_place.len(), same), by_trying(&a, &b));
        proptest::prop_assert!(is_whole(&list(&a), &list(&b), &pairs));
    }
}
