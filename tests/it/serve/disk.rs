//! A disk that gets full under the server, and has room again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use runspan::model::{RunStatus, RunSummary};

use super::{PROTOBUF, Server, agent, ask, command, grpc, post, request};
use crate::support::{on_own_disk, runs, tempdir, wait_until};

/// The agents whose traces were acknowledged, and whether one was put off.
#[derive(Default)]
struct Sent {
    taken: Vec<u8>,
    put_off: u32,
}

impl Sent {
    /// Sends the trace of an agent; `false` when the sender is told to come again.
    fn send(&mut self, server: &Server, trace: u8) -> bool {
        let (code, head, body) = post(server.port("otlp-http"), PROTOBUF, "", &request(agent(trace)).encode_to_vec());
        match code {
            200 => self.taken.push(trace),
            503 => {
                assert!(head.to_ascii_lowercase().contains("\r\nretry-after: "), "{head}");
                let why = String::from_utf8_lossy(&body).into_owned();
                assert!(why.contains("the journal cannot be written") && why.contains("come again"), "{why}");
                self.put_off += 1;
            }
            other => panic!("{other}: {head}"),
        }
        code == 200
    }
}

fn status_of(server: &Server, path: &str) -> (u16, String) {
    let (code, _, body) = ask(server.port("http"), &format!("GET {path} HTTP/1.1\r\nHost: localhost"), b"");
    (code, String::from_utf8_lossy(&body).into_owned())
}

fn command_on(store: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_runspan")).args(args).arg("--store").arg(store).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a full disk is to a server, however it gets full: senders come again, nothing acknowledged is lost, and it goes on
/// by itself once there is room.
fn gets_full_and_has_room_again(server: &Server, store: &Path, fill: impl FnOnce(), free: impl FnOnce()) {
    let mut sent = Sent::default();
    for trace in 1..=10 {
        assert!(sent.send(server, trace));
    }
    let is_stored = |runs: &[RunSummary], n: usize| {
        runs.len() == n && runs.iter().all(|run| run.status == RunStatus::Success && run.steps_total == 3)
    };
    wait_until("they are stored", || is_stored(&runs(store), 10));

    fill();
    // A page that was begun may still take some.
    let mut trace = 10;
    wait_until("the disk is full", || {
        trace += 1;
        !sent.send(server, trace)
    });
    let put_off = trace;
    assert_eq!(
        grpc(server.port("otlp-grpc"), &request(agent(99)).encode_to_vec(), false).unwrap(),
        "14",
        "UNAVAILABLE"
    );
    assert_eq!(status_of(server, "/healthz").0, 200);
    let (code, why) = status_of(server, "/readyz");
    assert!(code == 503 && why.contains("cannot be written"), "{code} {why}");
    let (code, listed) = command_on(store, &["list", "--json"]);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
    assert!(code == Some(0) && listed.len() >= 10, "what is there is shown: {} runs", listed.len());

    free();
    // Nobody sends anything: who is not ready is not sent to.
    wait_until("it is ready again", || status_of(server, "/readyz").0 == 200);
    for trace in [put_off, 99] {
        assert!(sent.send(server, trace));
    }
    let mut expected = sent.taken.clone();
    expected.sort_unstable();
    wait_until("all that was acknowledged is stored", || is_stored(&runs(store), expected.len()));
    let mut stored: Vec<u8> = runs(store).iter().map(|run| run.trace_id.0[0]).collect();
    stored.sort_unstable();
    assert_eq!(stored, expected, "each once, and nothing else");
    let (code, said) = command_on(store, &["verify"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(sent.put_off > 0);
}

#[test]
fn on_a_disk_that_is_full_senders_are_told_to_come_again_and_nothing_acknowledged_is_lost() {
    let dir = tempdir();
    let server = Server::spawn(on_own_disk(&command(&dir.path().join("store"), &[]), dir.path(), 8));
    // The small file system is in the sight of the server alone.
    let seen = PathBuf::from(format!("/proc/{}/root{}", server.child.id(), dir.path().display()));
    let ballast = seen.join("ballast");
    let fill = || {
        let (mut file, block) = (File::create(&ballast).unwrap(), [0; 4096]);
        while file.write(&block).is_ok_and(|written| written > 0) {}
    };
    gets_full_and_has_room_again(&server, &seen.join("store"), fill, || std::fs::remove_file(&ballast).unwrap());
    assert_eq!(server.end(), Some(0));
}

#[test]
fn where_no_file_may_grow_it_is_the_same() {
    let dir = tempdir();
    let server = Server::start(dir.path(), &[]);
    let pid = server.child.id() as i32;
    let limit = |bytes: libc::rlim_t| {
        let limits = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the limits live as long as the call, which changes a child of ours.
        assert_eq!(unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &limits, std::ptr::null_mut()) }, 0);
    };
    gets_full_and_has_room_again(&server, dir.path(), || limit(0), || limit(libc::RLIM_INFINITY));
    assert_eq!(server.end(), Some(0));
}
