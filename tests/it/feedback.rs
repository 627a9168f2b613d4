//! A program that records everything at TRACE, its own HTTP and gRPC traffic too, and forwards it over both: the
//! recorder does not record what it sends.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runspan::Guard;
use runspan::model::outcome::Outcome;
use tracing::{Instrument, info_span};

use super::model_server::{ModelServer, Script};
use super::rig::weather_agent;
use super::support::{WATCHDOG, agent, child, is_child, runs, said, steps, wait_until};

/// Peers that take everything, in threads that no subscriber hears.
struct Peers {
    http: u16,
    grpc: u16,
    /// Requests over HTTP and over gRPC.
    seen: Arc<[AtomicU64; 2]>,
}

fn quiet_thread(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(|| tracing::dispatcher::with_default(&tracing::Dispatch::none(), work));
}

impl Peers {
    fn start() -> Self {
        let [http, grpc] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        let peers = Self { http: port(&http), grpc: port(&grpc), seen: Arc::default() };
        let seen = Arc::clone(&peers.seen);
        quiet_thread(move || {
            for stream in http.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                quiet_thread(move || while answer_http(&stream).is_some_and(|()| count(&seen[0])) {});
            }
        });
        let seen = Arc::clone(&peers.seen);
        quiet_thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                grpc.set_nonblocking(true).unwrap();
                let grpc = tokio::net::TcpListener::from_std(grpc).unwrap();
                while let Ok((stream, _)) = grpc.accept().await {
                    tokio::spawn(answer_grpc(stream, Arc::clone(&seen)));
                }
            });
        });
        peers
    }

    fn seen(&self) -> [u64; 2] {
        [0, 1].map(|which| self.seen[which].load(Ordering::SeqCst))
    }
}

fn count(seen: &AtomicU64) -> bool {
    seen.fetch_add(1, Ordering::SeqCst);
    true
}

fn answer_http(mut stream: &TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

async fn answer_grpc(stream: tokio::net::TcpStream, seen: Arc<[AtomicU64; 2]>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(part)) = body.data().await {
                let _ = body.flow_control().release_capacity(part.len());
            }
            let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut send = respond.send_response(response, false).unwrap();
            send.send_data(vec![0; 5].into(), false).unwrap();
            let trailers = [("grpc-status", "0")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            send.send_trailers(trailers.into_iter().collect()).unwrap();
            count(&seen[1]);
        });
    }
}

/// The program's own traffic: a model call by rig over reqwest and hyper, and a request over h2.
fn own_traffic(peers: &Peers) {
    let server = ModelServer::start(Script::demo()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        weather_agent(&server.base_url(), "gpt-5-mini").prompt("What is the weather in Bern?").await.unwrap();
        let request = async {
            let stream = tokio::net::TcpStream::connect(("127.0.0.1", peers.grpc)).await.unwrap();
            let (client, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection.in_current_span());
            let request = http::Request::post("http://127.0.0.1/own").body(()).unwrap();
            let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
            response.await.unwrap();
        };
        request
            .instrument(info_span!("invoke_agent", gen_ai.operation.name = "invoke_agent", gen_ai.agent.name = "h2"))
            .await;
    });
}

fn received(guard: &Guard) -> u64 {
    assert!(guard.flush(WATCHDOG));
    guard.outcomes().received
}

#[test]
fn what_is_sent_is_not_recorded_at_trace() {
    const TEST: &str = "feedback::what_is_sent_is_not_recorded_at_trace";
    if let Some(store) = is_child(TEST) {
        let peers = Peers::start();
        let builder = runspan::builder().store(&store).forward(format!("http://127.0.0.1:{}", peers.http));
        let guard = builder.forward(format!("grpc://127.0.0.1:{}", peers.grpc)).init().unwrap();
        own_traffic(&peers);
        let after_traffic = received(&guard);
        assert_eq!(guard.outcomes().total(Outcome::Dropped), 0);
        // Each of these is sent by both, and what sending makes is not told.
        for n in 1..=3 {
            let before = peers.seen();
            agent("plain", 1);
            wait_until("both were sent to", || peers.seen().iter().zip(before).all(|(now, before)| *now > before));
            assert_eq!(received(&guard), after_traffic + 4 * n);
        }
        let report = guard.shutdown(WATCHDOG);
        assert_eq!((report.pending, report.dropped.len()), (0, 0), "{report:?}");
        assert_eq!(report.exported % 2, 0, "{report:?}");
        return;
    }
    let dir = crate::support::tempdir();
    let mut command = child(TEST, dir.path());
    command.env("RUNSPAN_LOG", "trace").env("OTEL_METRIC_EXPORT_INTERVAL", "100");
    said(command);
    // The program's own traffic was heard, so ours would have been.
    let names: Vec<String> =
        runs(dir.path()).iter().flat_map(|run| steps(dir.path(), run.run_id)).map(|step| step.step_id).collect();
    assert!(names.iter().any(|name| name == "client_handshake"), "{names:?}");
}
