//! Secrets that a program puts where ids and names belong, and into its files, never reach the disk.

use std::fs;
use std::path::Path;

use runspan::model::RunSummary;
use runspan::{Content, Run};
use tracing_subscriber::layer::SubscriberExt;

use super::support::{WATCHDOG, only_run};

/// A key of a known shape, another one for each number; made here, so that nobody's scanner finds one in the source.
fn key(number: usize) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut state = number as u64 + 1;
    let body = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(letters[(state >> 33) as usize % letters.len()])
    });
    format!("gh{}{}", "p_", body.take(36).collect::<String>())
}

/// Gives out keys and remembers them.
#[derive(Default)]
struct Keys(std::cell::RefCell<Vec<String>>);

impl Keys {
    fn next(&self) -> String {
        let mut given = self.0.borrow_mut();
        let key = key(given.len());
        given.push(key.clone());
        key
    }
}

/// Records a run with a key in every id and every name that our own API takes.
fn record(store: &Path, content: Content) -> Vec<String> {
    let keys = Keys::default();
    let next = || keys.next();
    let builder = runspan::builder().store(store).content(content).service_name(next());
    let (layer, guard) = builder.build().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let run = Run::agent(next()).session(next()).user(next()).tag(next()).tag(next()).start();
        let call = run.llm(&next(), &next());
        call.response_id(&next()).response_model(&next()).finish_reason(&next());
        call.finish();
        let tool = run.tool(&next());
        tool.call_id(&next());
        tool.event(&next(), serde_json::json!({"id": next()})).label(&next(), &next(), Some(&next()));
        tool.fail(&std::io::Error::other(next()));
        run.retrieval(&next()).finish();
        run.embedding(&next(), &next()).finish();
        run.agent(&next()).finish();
        run.workflow(&next()).finish();
        run.guardrail(&next()).finish();
        run.evaluator(&next()).finish();
        run.task(&next()).finish();
        run.in_scope(|| {
            let (session, job, thread, user) = (next(), next(), next(), next());
            tracing::info_span!(
                "step",
                session.id = session,
                runspan.external.id = job,
                thread.id = thread,
                enduser.id = user
            )
            .in_scope(|| tracing::info!(request.id = next(), "sent"));
        });
        run.artifact(format!("{}\n", next()).as_bytes(), &next(), &format!("text/{}", next()));
        let file = store.with_extension("given");
        fs::write(&file, format!("{{\"a\": \"{}\"}}", next())).unwrap();
        run.artifact(&file, "a.json", "");
        fs::remove_file(&file).unwrap();
        run.finish();
    });
    let report = guard.shutdown(WATCHDOG);
    assert_eq!((report.pending, report.dropped.len()), (0, 0));
    keys.0.into_inner()
}

/// Reads every file of a folder, with its name.
fn everything(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        all.extend(path.to_str().unwrap().as_bytes());
        all.extend(if path.is_dir() { everything(&path) } else { fs::read(&path).unwrap() });
    }
    all
}

fn found<'a>(store: &Path, keys: &'a [String]) -> Vec<&'a String> {
    let all = everything(store);
    keys.iter().filter(|key| all.windows(key.len()).any(|window| window == key.as_bytes())).collect()
}

#[test]
fn no_id_and_no_name_brings_a_secret_to_the_disk() {
    for content in [Content::None, Content::Redacted] {
        let dir = crate::support::tempdir();
        let keys = record(dir.path(), content);
        assert_eq!(found(dir.path(), &keys), Vec::<&String>::new(), "{content}");
        let RunSummary { agent_id, session_id, user_id, tags, models, .. } = only_run(dir.path());
        let marks: Vec<String> =
            [agent_id, session_id, user_id].into_iter().flatten().chain(tags).chain(models).collect();
        assert_eq!(marks.len(), 7);
        assert!(marks.iter().all(|mark| mark.starts_with("[redacted:github:40:")), "{marks:?}");
    }
}

#[test]
fn what_is_to_be_kept_in_full_is() {
    let dir = crate::support::tempdir();
    let keys = record(dir.path(), Content::Full);
    assert_eq!(found(dir.path(), &keys).len(), keys.len());
}

#[test]
fn artifacts_are_kept_as_content_policy_wants_it() {
    let (secret, text) = (key(0), |secret: &str| format!("the key is {secret}\n"));
    let binary = [b"\0\xff", secret.as_bytes()].concat();
    let kept = |content: Content| {
        let dir = crate::support::tempdir();
        let (layer, guard) = runspan::builder().store(dir.path()).content(content).build().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let run = Run::agent("writer").start();
            let told = run.artifact(text(&secret).into_bytes(), "report.md", "text/markdown").unwrap();
            run.artifact(&binary, "model.bin", "").unwrap();
            assert_eq!(run.artifact("no such file", "x", ""), None);
            run.finish();
            guard.flush(WATCHDOG);
            // What the program is told is what the store says.
            assert_eq!(only_run(dir.path()).artifacts[0], told);
        });
        guard.shutdown(WATCHDOG);
        let run = only_run(dir.path());
        let files = dir.path().join("agents").join(run.run_id.to_string()).join("artifacts");
        let stored = run.artifacts.iter().map(|file| fs::read(files.join(&file.name)).ok()).collect::<Vec<_>>();
        let told = run.artifacts.iter().map(|file| format!("{} {} {:?}", file.name, file.bytes, file.content));
        (told.collect::<Vec<_>>(), stored, files.exists())
    };
    let (told, stored, _) = kept(Content::Full);
    assert_eq!(told, ["report.md 52 None", "model.bin 42 None"]);
    assert_eq!(stored, [Some(text(&secret).into_bytes()), Some(binary.clone())]);
    let (told, stored, _) = kept(Content::Redacted);
    assert_eq!(told, ["report.md 41 Some(Redacted)", "model.bin 42 None"]);
    let report = String::from_utf8(stored[0].clone().unwrap()).unwrap();
    assert!(report.starts_with("the key is [redacted:github:40:") && report.ends_with("]\n"), "{report}");
    assert_eq!(stored[1].as_deref(), Some(binary.as_slice()));
    let (told, stored, has_folder) = kept(Content::None);
    assert_eq!(told, ["report.md 52 Some(Nothing)", "model.bin 42 Some(Nothing)"]);
    assert_eq!((stored, has_folder), (vec![None, None], false));
}
