//! Sending to real peers on loopback.

use std::io::Read;
use std::time::{Duration, Instant};

use prost::Message;

use self::peers::{Answer, GrpcPeer, HttpPeer};
use super::*;
use crate::model::otlp::{
    KeyValue, PartialSuccess, Resource, ResourceSpans, Scope, ScopeSpans, Span, TracesData, Value,
};

/// Peers that listen on loopback, tell what they were sent and answer as the test says.
pub(crate) mod peers {
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing::subscriber::NoSubscriber;

    /// A request as it arrived.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Seen {
        pub(crate) path: String,
        /// Names in lower case.
        pub(crate) headers: BTreeMap<String, String>,
        pub(crate) body: Vec<u8>,
    }

    impl Seen {
        pub(crate) fn header(&self, name: &str) -> &str {
            self.headers.get(name).map_or("", String::as_str)
        }
    }

    type Log = Arc<Mutex<Vec<Seen>>>;

    /// Starts a thread whose own traffic no subscriber sees, so that only the sender's could be seen.
    fn quiet_thread(work: impl FnOnce() + Send + 'static) {
        std::thread::spawn(|| tracing::subscriber::with_default(NoSubscriber::default(), work));
    }

    fn any_port() -> std::net::SocketAddr {
        (std::net::Ipv4Addr::LOCALHOST, 0).into()
    }

    /// An HTTP/1.1 server.
    pub(crate) struct HttpPeer {
        pub(crate) port: u16,
        seen: Log,
    }

    impl HttpPeer {
        /// Answers each request with the bytes that `answer` returns; `None` closes without an answer.
        pub(crate) fn new(answer: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
            Self::with_streams(any_port(), |stream| stream, answer)
        }

        /// The same at an address where perhaps somebody was told to send before.
        pub(crate) fn at(
            address: std::net::SocketAddr,
            answer: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static,
        ) -> Self {
            Self::with_streams(address, |stream| stream, answer)
        }

        pub(crate) fn tls(config: rustls::ServerConfig) -> Self {
            let config = Arc::new(config);
            let wrap = move |stream| {
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                rustls::StreamOwned::new(connection, stream)
            };
            Self::with_streams(any_port(), wrap, |_| Some(response("200 OK", "", b"")))
        }

        fn with_streams<S: Read + Write + 'static>(
            address: std::net::SocketAddr,
            wrap: impl Fn(TcpStream) -> S + Send + Sync + 'static,
            answer: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static,
        ) -> Self {
            let listener = TcpListener::bind(address).unwrap();
            let port = listener.local_addr().unwrap().port();
            let seen = Log::default();
            let (log, both) = (Arc::clone(&seen), Arc::new((wrap, answer)));
            quiet_thread(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (log, both) = (Arc::clone(&log), Arc::clone(&both));
                    quiet_thread(move || {
                        let mut stream = both.0(stream);
                        while let Some(request) = read_request(&mut stream) {
                            log.lock().unwrap().push(request.clone());
                            let Some(bytes) = both.1(&request) else { return };
                            if stream.write_all(&bytes).and_then(|()| stream.flush()).is_err() {
                                return;
                            }
                        }
                    });
                }
            });
            Self { port, seen }
        }

        pub(crate) fn url(&self) -> String {
            format!("http://127.0.0.1:{}", self.port)
        }

        pub(crate) fn seen(&self) -> Vec<Seen> {
            self.seen.lock().unwrap().clone()
        }
    }

    /// Writes an HTTP response; `headers` are whole lines.
    pub(crate) fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    pub(crate) fn read_request(stream: &mut impl Read) -> Option<Seen> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).ok()?;
        let mut lines = head.lines();
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some(Seen { path, headers, body })
    }

    /// What a gRPC server answers.
    #[derive(Clone, Debug)]
    pub(crate) struct Answer {
        pub(crate) http_status: u16,
        pub(crate) message: Option<Vec<u8>>,
        pub(crate) trailers: Vec<(&'static str, String)>,
        pub(crate) delay: Duration,
        /// Closes the connection shortly after.
        pub(crate) hang_up: bool,
        /// The message is compressed.
        pub(crate) is_gzip: bool,
    }

    impl Answer {
        pub(crate) fn ok(message: Vec<u8>) -> Self {
            Self {
                http_status: 200,
                message: Some(message),
                trailers: vec![("grpc-status", "0".to_owned())],
                delay: Duration::ZERO,
                hang_up: false,
                is_gzip: false,
            }
        }

        pub(crate) fn status(code: i32, message: &str, details: Option<String>) -> Self {
            let mut trailers = vec![("grpc-status", code.to_string()), ("grpc-message", message.to_owned())];
            trailers.extend(details.map(|details| ("grpc-status-details-bin", details)));
            Self { http_status: 200, message: None, trailers, delay: Duration::ZERO, hang_up: false, is_gzip: false }
        }
    }

    /// A gRPC server.
    pub(crate) struct GrpcPeer {
        pub(crate) port: u16,
        seen: Log,
    }

    impl GrpcPeer {
        pub(crate) fn new(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
            Self::start(None, answer)
        }

        pub(crate) fn start(
            tls: Option<rustls::ServerConfig>,
            answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
        ) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let port = listener.local_addr().unwrap().port();
            let seen = Log::default();
            let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
            let tls = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
            quiet_thread(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                    while let Ok((stream, _)) = listener.accept().await {
                        let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                        let stream = stream.into_std().unwrap();
                        let raw = Arc::new(stream.try_clone().unwrap());
                        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                        match tls.clone() {
                            None => drop(tokio::spawn(serve(stream, raw, log, answer))),
                            Some(tls) => drop(tokio::spawn(async move {
                                if let Ok(stream) = tls.accept(stream).await {
                                    serve(stream, raw, log, answer).await;
                                }
                            })),
                        }
                    }
                });
            });
            Self { port, seen }
        }

        pub(crate) fn url(&self) -> String {
            format!("grpc://127.0.0.1:{}", self.port)
        }

        pub(crate) fn seen(&self) -> Vec<Seen> {
            self.seen.lock().unwrap().clone()
        }
    }

    async fn serve<S, F>(stream: S, raw: Arc<TcpStream>, log: Log, answer: Arc<F>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        F: Fn(&Seen) -> Answer + Send + Sync + 'static,
    {
        let Ok(mut connection) = h2::server::Builder::new().initial_window_size(8 << 20).handshake(stream).await else {
            return;
        };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let (raw, log, answer) = (Arc::clone(&raw), Arc::clone(&log), Arc::clone(&answer));
            tokio::spawn(async move {
                let (head, mut stream) = request.into_parts();
                let headers = head.headers.iter().map(|(name, value)| {
                    (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                });
                let mut seen = Seen { path: head.uri.path().to_owned(), headers: headers.collect(), body: Vec::new() };
                while let Some(Ok(chunk)) = stream.data().await {
                    let _ = stream.flow_control().release_capacity(chunk.len());
                    seen.body.extend_from_slice(&chunk);
                }
                log.lock().unwrap().push(seen.clone());
                let answer = answer(&seen);
                tokio::time::sleep(answer.delay).await;
                let hang_up = answer.hang_up;
                let _ = write_answer(&mut respond, answer);
                if hang_up {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let _ = raw.shutdown(std::net::Shutdown::Both);
                }
            });
        }
    }

    fn write_answer(respond: &mut h2::server::SendResponse<bytes::Bytes>, answer: Answer) -> Result<(), h2::Error> {
        let mut trailers = http::HeaderMap::new();
        for (name, value) in answer.trailers {
            trailers.insert(name, value.parse().unwrap());
        }
        let mut head = http::Response::new(());
        *head.status_mut() = http::StatusCode::from_u16(answer.http_status).unwrap();
        if answer.http_status == 200 {
            head.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        }
        let Some(message) = answer.message else {
            head.headers_mut().extend(trailers);
            return respond.send_response(head, true).map(drop);
        };
        if answer.is_gzip {
            head.headers_mut().insert("grpc-encoding", "gzip".parse().unwrap());
        }
        let mut framed = vec![u8::from(answer.is_gzip)];
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(&message);
        let mut stream = respond.send_response(head, false)?;
        stream.send_data(framed.into(), false)?;
        stream.send_trailers(trailers)
    }
}

fn traces() -> TracesData {
    let span =
        |name: &str| Span { trace_id: vec![1; 16], span_id: vec![2; 8], name: name.to_owned(), ..Span::default() };
    TracesData {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![KeyValue { key: "service.name".into(), value: Some(Value::from("demo").into()) }],
                ..Resource::default()
            }),
            scope_spans: vec![
                ScopeSpans {
                    scope: Some(Scope { name: "one".into(), ..Scope::default() }),
                    spans: vec![span("a"), span("b")],
                    ..ScopeSpans::default()
                },
                ScopeSpans { spans: vec![span("c")], ..ScopeSpans::default() },
            ],
            ..ResourceSpans::default()
        }],
    }
}

fn request() -> Vec<u8> {
    traces().encode_to_vec()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn sender(url: &str, change: impl FnOnce(&mut Target)) -> Sender {
    let mut target = Target::from_url(url).unwrap();
    change(&mut target);
    Sender::new(target).unwrap()
}

fn send_to(url: &str) -> Sent {
    sender(url, |_| {}).send(request(), 3, soon())
}

/// Tells an answer in a few words, for tables.
fn told(sent: &Sent) -> String {
    match sent {
        Sent::Accepted => "accepted".to_owned(),
        Sent::Partial { rejected, message } => format!("partial {rejected} {message:.20}"),
        Sent::Later { after: None, .. } => "later".to_owned(),
        Sent::Later { after: Some(after), .. } => format!("later {}", after.as_secs_f64()),
        Sent::TooLarge { .. } => "too large".to_owned(),
        Sent::Refused { blame: Blame::Content, .. } => "refused".to_owned(),
        Sent::Refused { blame: Blame::Peer, .. } => "refused whole".to_owned(),
        Sent::Refused { blame: Blame::Address, .. } => "refused whole, address".to_owned(),
        Sent::Refused { blame: Blame::Settings, .. } => "refused, pause".to_owned(),
    }
}

fn export_response(rejected: i64, message: &str) -> Vec<u8> {
    let partial = PartialSuccess { rejected, error_message: message.to_owned() };
    ExportResponse { partial_success: Some(partial) }.encode_to_vec()
}

#[test]
fn every_http_status_has_its_answer() {
    for (status, expected) in [
        ("200 OK", "accepted"),
        ("202 Accepted", "accepted"),
        ("204 No Content", "accepted"),
        ("301 Moved", "refused, pause"),
        ("307 Elsewhere", "refused, pause"),
        ("400 Bad", "refused"),
        ("401 Who", "refused, pause"),
        ("403 No", "refused, pause"),
        ("404 Where", "refused whole, address"),
        ("405 How", "refused whole, address"),
        ("408 Slow", "refused whole"),
        ("413 Big", "too large"),
        ("415 What", "refused whole"),
        ("429 Much", "later"),
        ("500 Broken", "refused"),
        ("501 Not", "refused whole, address"),
        ("502 Gateway", "later"),
        ("503 Busy", "later"),
        ("504 Gateway", "later"),
    ] {
        let elsewhere = HttpPeer::new(|_| Some(peers::response("200 OK", "", b"")));
        let location = format!("location: {}/v1/traces\r\n", elsewhere.url());
        let peer = HttpPeer::new(move |_| Some(peers::response(status, &location, b"")));
        let sent = send_to(&peer.url());
        assert_eq!(told(&sent), expected, "{status}: {sent}");
        assert_eq!((peer.seen().len(), elsewhere.seen().len()), (1, 0), "{status}: sent once, and nowhere else");
    }
}

#[test]
fn a_collector_that_says_so_with_400_is_asked_for_less() {
    for (said, expected) in [("http: request body too large", "too large"), ("proto: illegal wireType 7", "refused")] {
        let peer = HttpPeer::new(move |_| {
            Some(peers::response("400 Bad Request", "content-type: text/plain\r\n", said.as_bytes()))
        });
        assert_eq!(told(&send_to(&peer.url())), expected, "{said}");
    }
}

#[test]
fn of_all_http_statuses_four_are_tried_again() {
    let answered = std::sync::atomic::AtomicU16::new(300);
    let peer = HttpPeer::new(move |_| {
        let status = answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Some(peers::response(&format!("{status} Said"), "", b""))
    });
    let mut sender = sender(&peer.url(), |_| {});
    let retried: Vec<u16> = (300..600).filter(|_| sender.send(request(), 3, soon()).is_retryable()).collect();
    assert_eq!((retried, peer.seen().len()), (vec![429, 502, 503, 504], 300));
}

#[test]
fn a_request_that_was_under_way_may_pass_in_parts() {
    let is_midway = |url: &str| {
        let sent = sender(url, |target| target.timeout = Duration::from_millis(500)).send(request(), 3, soon());
        let Sent::Later { midway, .. } = sent else { panic!("{url}: {sent}") };
        midway
    };
    let answering = |status: &'static str| HttpPeer::new(move |_| Some(peers::response(status, "", b"")));
    let closing = HttpPeer::new(|_| None);
    let slow = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let slow_grpc = GrpcPeer::new(|_| Answer { delay: Duration::from_secs(5), ..Answer::ok(vec![]) });
    for (url, expected) in [
        (closing.url(), true),
        (format!("http://{}", slow.local_addr().unwrap()), true),
        (slow_grpc.url(), true),
        (answering("504 Gateway").url(), true),
        (answering("503 Busy").url(), false),
        ("http://127.0.0.1:1".to_owned(), false),
        ("grpc://127.0.0.1:1".to_owned(), false),
    ] {
        assert_eq!(is_midway(&url), expected, "{url}");
    }
}

#[test]
fn retry_after_is_heeded_where_it_belongs() {
    for (status, value, expected) in [
        ("503 Busy", "7", "later 7"),
        ("429 Much", "1000000000", "later 300"),
        ("429 Much", "Sun, 06 Nov 1994 08:49:37 GMT", "later 0"),
        ("503 Busy", "Sat, 06 Nov 2094 08:49:37 GMT", "later 300"),
        ("503 Busy", "-3", "later"),
        ("503 Busy", "in a moment", "later"),
        ("500 Broken", "7", "refused"),
        ("408 Slow", "7", "later 7"),
        ("408 Slow", "in a moment", "later"),
    ] {
        let header = format!("retry-after: {value}\r\n");
        let peer = HttpPeer::new(move |_| Some(peers::response(status, &header, b"")));
        assert_eq!(told(&send_to(&peer.url())), expected, "{status} {value}");
    }
}

#[test]
fn a_partial_success_is_never_sent_again_and_its_count_is_sane() {
    for (rejected, message, expected) in [
        (0, "", "accepted"),
        (2, "bad ids", "partial 2 bad ids"),
        (0, "old names", "partial 0 old names"),
        (i64::MAX, "", "partial 3 "),
        (-5, "", "accepted"),
        (-5, "odd", "partial 0 odd"),
        (1, "\u{1b}[31mred", "partial 1  [31mred"),
    ] {
        let body = export_response(rejected, message);
        let http = HttpPeer::new({
            let body = body.clone();
            move |_| Some(peers::response("200 OK", "content-type: application/x-protobuf\r\n", &body))
        });
        let grpc = GrpcPeer::new(move |_| Answer::ok(body.clone()));
        let json =
            serde_json::json!({"partialSuccess": {"rejectedSpans": rejected.to_string(), "errorMessage": message}});
        let json = HttpPeer::new(move |_| Some(peers::response("200 OK", "", &serde_json::to_vec(&json).unwrap())));
        assert_eq!(told(&send_to(&http.url())), expected, "HTTP {rejected} {message:?}");
        assert_eq!(told(&send_to(&grpc.url())), expected, "gRPC {rejected} {message:?}");
        let sent = sender(&json.url(), |target| target.protocol = Protocol::HttpJson).send(request(), 3, soon());
        assert_eq!(told(&sent), expected, "JSON {rejected} {message:?}");
    }
    let long = export_response(1, &"x".repeat(3 << 20));
    let peer = HttpPeer::new(move |_| Some(peers::response("200 OK", "", &long)));
    let Sent::Partial { rejected: 1, message } = send_to(&peer.url()) else { panic!("not partial") };
    assert_eq!(message.len(), MAX_REASON_CHARS);
}

#[test]
fn a_success_that_says_nonsense_is_a_success_but_a_web_page_is_not() {
    for (headers, body, expected) in [
        ("", &b"ok"[..], "accepted"),
        ("", b"\xff\xff\xff", "accepted"),
        ("content-type: application/json\r\n", b"{}", "accepted"),
        ("content-type: text/html; charset=utf-8\r\n", b"<html>", "refused, pause"),
    ] {
        let peer = HttpPeer::new(move |_| Some(peers::response("200 OK", headers, body)));
        assert_eq!(told(&send_to(&peer.url())), expected, "{headers}");
    }
}

#[test]
fn the_reason_holds_what_the_peer_says_and_nothing_that_harms_a_terminal() {
    let status = RpcStatus { message: "no such\u{7} tenant".into(), details: vec![] }.encode_to_vec();
    for (headers, body, expected) in [
        ("content-type: application/x-protobuf\r\n", status, "refused: HTTP 400: no such  tenant"),
        ("content-type: text/plain\r\n", b"go away\n".to_vec(), "refused: HTTP 400: go away"),
        ("content-type: application/json\r\n", br#"{"message":"why"}"#.to_vec(), "refused: HTTP 400: why"),
        ("content-type: image/png\r\n", b"\xff\xfe".to_vec(), "refused: HTTP 400"),
        // Who does not say it as OTLP has it is quoted all the same, without secrets, and a page for people is not.
        ("", b"span 7 has\x1b[1m no name\n".to_vec(), "refused: HTTP 400: span 7 has [1m no name"),
        ("content-type: application/json\r\n", br#"{"error":"why"}"#.to_vec(), r#"refused: HTTP 400: {"error":"why"}"#),
        ("content-type: text/html\r\n", b"<!DOCTYPE html><p>no".to_vec(), "refused: HTTP 400"),
    ] {
        let peer = HttpPeer::new(move |_| Some(peers::response("400 Bad", headers, &body)));
        assert_eq!(send_to(&peer.url()).to_string(), expected);
    }
}

#[test]
fn a_peer_that_quotes_a_secret_is_quoted_without_it() {
    let secret = format!("gh{}{}", "p_", "a1B2c3D4e5F6".repeat(3));
    let said = format!("attribute has {secret}");
    let peer = HttpPeer::new(move |_| Some(peers::response("400 Bad", "", said.as_bytes())));
    let told = send_to(&peer.url()).to_string();
    assert!(told.starts_with("refused: HTTP 400: attribute has [redacted:github:40:"), "{told}");
    // Nor is half of it left where it stands at the end.
    let secret = format!("gh{}{}", "p_", "a1B2c3D4e5F6".repeat(3));
    let said = format!("{} {secret}", "x".repeat(MAX_REASON_CHARS - 30));
    let peer = HttpPeer::new(move |_| Some(peers::response("400 Bad", "", said.as_bytes())));
    let told = send_to(&peer.url()).to_string();
    assert!(told.contains("[redacted:") && !told.contains("a1B2"), "{told}");
}

#[test]
fn a_peer_that_repeats_credentials_is_not_quoted_with_them() {
    for (status, headers, body) in [
        ("400 Bad", "content-type: text/plain\r\n", "bad token: Bearer tok-12345, or tok-12345; key=qqqqqq"),
        ("503 Bad", "content-type: text/plain\r\n", "bad token: Bearer tok-12345, or tok-12345; key=qqqqqq"),
    ] {
        let peer = HttpPeer::new(move |_| Some(peers::response(status, headers, body.as_bytes())));
        let mut sender = sender(&format!("{}/v1/traces?key=qqqqqq", peer.url()), |target| {
            target.set_header("authorization", "Bearer tok-12345").unwrap();
        });
        let said = sender.send(request(), 3, soon()).to_string();
        assert!(said.ends_with(": bad token: ***, or ***; ***"), "{said}");
    }
}

#[test]
fn an_http_request_is_what_was_handed_over_with_the_headers_that_were_set() {
    let peer = HttpPeer::new(|_| Some(peers::response("200 OK", "", b"")));
    let mut plain = sender(&peer.url(), |target| target.set_header("X-Tenant", "a b").unwrap());
    assert_eq!(plain.send(request(), 3, soon()), Sent::Accepted);
    assert_eq!(plain.send(request(), 3, soon()), Sent::Accepted);
    let mut zipped = sender(&peer.url(), |target| target.compression = Compression::Gzip);
    assert_eq!(zipped.send(request(), 3, soon()), Sent::Accepted);
    let mut json = sender(&peer.url(), |target| target.protocol = Protocol::HttpJson);
    assert_eq!(json.send(request(), 3, soon()), Sent::Accepted);

    let seen = peer.seen();
    assert_eq!((seen[0].path.as_str(), &seen[0].body), ("/v1/traces", &request()));
    assert_eq!(seen[0].header("content-type"), "application/x-protobuf");
    assert_eq!(seen[0].header("content-encoding"), "");
    assert_eq!(seen[0].header("accept-encoding"), "");
    assert_eq!(seen[0].header("x-tenant"), "a b");
    assert!(seen[0].header("user-agent").starts_with("runspan/0.1.0 OTel-OTLP-Exporter-Rust/0.1.0"));
    assert_eq!(seen[1].body, request());

    assert_eq!(seen[2].header("content-encoding"), "gzip");
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(seen[2].body.as_slice()).read_to_end(&mut body).unwrap();
    assert_eq!(body, request());

    assert_eq!(seen[3].header("content-type"), "application/json");
    assert_eq!(serde_json::from_slice::<TracesData>(&seen[3].body).unwrap(), traces());
}

#[test]
fn what_is_no_request_can_not_become_json() {
    let mut sender = sender("http://127.0.0.1:9", |target| target.protocol = Protocol::HttpJson);
    assert_eq!(told(&sender.send(vec![0xff; 9], 1, soon())), "refused");
}

#[test]
fn a_grpc_request_is_what_was_handed_over_with_the_headers_that_were_set() {
    let peer = GrpcPeer::new(|_| Answer::ok(vec![]));
    let mut plain = sender(&peer.url(), |target| target.set_header("X-Tenant", "a b").unwrap());
    assert_eq!(plain.send(request(), 3, soon()), Sent::Accepted);
    assert_eq!(plain.send(request(), 3, soon()), Sent::Accepted);
    let mut zipped = sender(&peer.url(), |target| target.compression = Compression::Gzip);
    assert_eq!(zipped.send(request(), 3, soon()), Sent::Accepted);

    let seen = peer.seen();
    assert_eq!(seen[0].path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    assert_eq!(seen[0].header("content-type"), "application/grpc");
    assert_eq!(seen[0].header("x-tenant"), "a b");
    assert!(seen[0].header("user-agent").starts_with("runspan/0.1.0 OTel-OTLP-Exporter-Rust/0.1.0"));
    for seen in &seen[..2] {
        assert_eq!((seen.body[0], &seen.body[5..]), (0, request().as_slice()));
    }
    assert_eq!((seen[2].header("grpc-encoding"), seen[2].body[0]), ("gzip", 1));
    // Servers answer in the encoding they were asked in; one that could not be read would look like a refusal.
    assert!(seen[2].header("grpc-accept-encoding").starts_with("gzip"));
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(&seen[2].body[5..]).read_to_end(&mut body).unwrap();
    assert_eq!(body, request());
}

fn retry_info(delay: &[u8]) -> Option<String> {
    let other = RpcDetail { type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(), value: vec![0xff] };
    let info = RpcDetail { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: delay.to_vec() };
    let status = RpcStatus { message: String::new(), details: vec![other, info] };
    Some(crate::model::otlp::base64::encode(&status.encode_to_vec()).trim_end_matches('=').to_owned())
}

#[test]
fn every_grpc_status_has_its_answer() {
    // RetryInfo{retry_delay{seconds: 7}}, the same with 500 ms, with 10^9 s, with -1 s, and empty.
    let waits: [(&[u8], &str); 5] = [
        (b"\x0a\x02\x08\x07", "later 7"),
        (b"\x0a\x06\x10\x80\xca\xb5\xee\x01", "later 0.5"),
        (b"\x0a\x06\x08\x80\x94\xeb\xdc\x03", "later 300"),
        (b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "later 0"),
        (b"", "later 0"),
    ];
    let mut cases: Vec<(Answer, &str)> = [
        (1, "", "later"),
        (2, "", "refused"),
        (3, "", "refused"),
        (4, "", "later"),
        (5, "", "refused whole, address"),
        (6, "", "refused"),
        (7, "", "refused, pause"),
        (8, "quota", "refused whole"),
        (8, "grpc: received message larger than max (5000000 vs. 4194304)", "too large"),
        (8, "gRPC message exceeds maximum size 4194304: 5000000", "too large"),
        (9, "", "refused"),
        (10, "", "later"),
        (11, "", "later"),
        (11, "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes", "too large"),
        (12, "", "refused whole, address"),
        (13, "", "refused"),
        (14, "", "later"),
        (15, "", "later"),
        (16, "", "refused, pause"),
        (99, "", "refused"),
    ]
    .map(|(code, message, expected)| (Answer::status(code, message, None), expected))
    .to_vec();
    for (delay, expected) in waits {
        cases.push((Answer::status(8, "", retry_info(delay)), expected));
        cases.push((Answer::status(14, "", retry_info(delay)), expected));
    }
    cases.push((Answer::status(8, "", Some("AAAA".into())), "refused whole"));
    cases.push((Answer::status(3, "", retry_info(b"")), "refused"));
    // Proxies answer in HTTP.
    for (http_status, expected) in [
        (400, "refused"),
        (401, "refused, pause"),
        (403, "refused, pause"),
        (404, "refused whole, address"),
        (503, "later"),
    ] {
        cases.push((Answer { http_status, trailers: vec![], ..Answer::status(0, "", None) }, expected));
    }
    // The status may also come behind a message.
    let mut late = Answer::ok(vec![]);
    late.trailers = vec![("grpc-status", "14".into())];
    cases.push((late, "later"));
    for (answer, expected) in cases {
        let peer = GrpcPeer::new({
            let answer = answer.clone();
            move |_| answer.clone()
        });
        let sent = send_to(&peer.url());
        assert_eq!(told(&sent), expected, "{answer:?}: {sent}");
        assert_eq!(peer.seen().len(), 1, "sent once");
    }
}

#[test]
fn an_endless_answer_is_cut_and_refused() {
    let http = HttpPeer::new(|_| Some(peers::response("200 OK", "", &vec![0; MAX_ANSWER_BYTES + 1])));
    assert_eq!(told(&send_to(&http.url())), "refused whole");
    let error = HttpPeer::new(|_| Some(peers::response("503 Busy", "", &vec![b'x'; MAX_ANSWER_BYTES])));
    assert_eq!(told(&send_to(&error.url())), "later");
    let heads = HttpPeer::new(|_| Some(peers::response("200 OK", &"x: y\r\n".repeat(1 << 18), b"")));
    assert_eq!(told(&send_to(&heads.url())), "later");
    let grpc = GrpcPeer::new(|_| Answer::ok(vec![0; MAX_ANSWER_BYTES + 1]));
    assert_eq!(told(&send_to(&grpc.url())), "refused whole");
}

/// The most memory that this process ever had, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    peak.unwrap().trim().parse::<u64>().unwrap() << 10
}

/// A peer that answers a request with `head`, then with `body` over and over until nobody listens; it tells how many
/// bytes it got rid of.
#[cfg(target_os = "linux")]
fn gushing(head: &'static str, body: &'static [u8]) -> (String, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let poured = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = std::sync::Arc::clone(&poured);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = peers::read_request(&mut stream);
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(body).is_ok() {
                count.fetch_add(body.len() as u64, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    (url, poured)
}

#[cfg(target_os = "linux")]
#[test]
fn a_peer_that_never_stops_talking_is_cut_off_and_memory_stays_flat() {
    // Alone in a process of its own, because the peak is that of all its threads.
    const CHILD: &str = "RUNSPAN_TEST_PEAK_MEMORY";
    if std::env::var_os(CHILD).is_none() {
        let name = "sinks::forward::tests::a_peer_that_never_stops_talking_is_cut_off_and_memory_stays_flat";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env(CHILD, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    const MIB: &[u8] = &[b'x'; 1 << 20];
    const LINE: &[u8] = &[b'x'; 1000];
    static CHUNK: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| [b"100000\r\n".as_slice(), MIB, b"\r\n"].concat());
    static HEADER: std::sync::LazyLock<Vec<u8>> =
        std::sync::LazyLock::new(|| [b"x-more: ".as_slice(), LINE, b"\r\n"].concat());
    let before = peak_memory();
    for (head, body, expected) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", MIB, "refused whole"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", CHUNK.as_slice(), "refused whole"),
        ("HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n", CHUNK.as_slice(), "later"),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", MIB, "refused whole"),
        ("HTTP/1.1 200 OK\r\n", HEADER.as_slice(), "later"),
        ("HTTP/1.1 200 OK\r\nx-long: ", MIB, "later"),
        ("", MIB, "later"),
    ] {
        let (url, poured) = gushing(head, body);
        let sent = send_to(&url);
        assert_eq!(told(&sent), expected, "{head}: {sent}");
        // What the sockets hold comes on top of what was read.
        let poured = poured.load(std::sync::atomic::Ordering::Relaxed);
        assert!(poured < 64 << 20, "{head}: {poured}");
    }
    // 64 MiB that were 64 KiB on the wire: as HTTP they are no protobuf, and over gRPC, where the answer may be
    // compressed, too long.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..64 {
        std::io::Write::write_all(&mut bomb, &[0; 1 << 20]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    let answer = bomb.clone();
    let http = HttpPeer::new(move |_| Some(peers::response("200 OK", "content-encoding: gzip\r\n", &answer)));
    assert_eq!(told(&send_to(&http.url())), "accepted");
    let grpc = GrpcPeer::new(move |_| Answer { is_gzip: true, ..Answer::ok(bomb.clone()) });
    let mut zipped = sender(&grpc.url(), |target| target.compression = Compression::Gzip);
    assert_eq!(told(&zipped.send(request(), 3, soon())), "refused whole");
    let grown = peak_memory() - before;
    assert!(grown < 64 << 20, "{grown}");
}

/// A server that answers HTTP/2 with GOAWAY for so many connections, and then properly.
fn going_away(mut connections: u32, reason: h2::Reason) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("grpc://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut connection) = h2::server::handshake(stream).await else { continue };
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if connections > 0 {
                        connections -= 1;
                        connection.abrupt_shutdown(reason);
                        continue;
                    }
                    let head = ::http::Response::builder().header("content-type", "application/grpc");
                    let head = head.header("grpc-status", "0").body(()).unwrap();
                    let _ = respond.send_response(head, true);
                }
            }
        });
    });
    url
}

#[test]
fn a_connection_that_goes_away_is_no_refusal() {
    for reason in [h2::Reason::NO_ERROR, h2::Reason::ENHANCE_YOUR_CALM, h2::Reason::INTERNAL_ERROR] {
        let url = going_away(1, reason);
        let mut sender = sender(&url, |_| {});
        let first = sender.send(request(), 3, soon());
        assert_eq!(told(&first), "later", "{reason:?}: {first}");
        assert_eq!(sender.send(request(), 3, soon()), Sent::Accepted, "{reason:?}");
    }
}

#[test]
fn a_request_over_the_limit_is_not_sent() {
    let mut sender = sender("http://127.0.0.1:9", |_| {});
    assert_eq!(told(&sender.send(vec![0; MAX_REQUEST_BYTES + 1], 1, soon())), "too large");
}

#[test]
fn a_peer_that_hangs_drips_or_hangs_up_costs_no_more_than_the_deadline() {
    use std::io::Write;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let drip = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let drip_port = drip.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in drip.incoming().map_while(Result::ok) {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
            for byte in head.iter().chain(&[b'x'; 100]) {
                std::thread::sleep(Duration::from_millis(30));
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
            }
        }
    });
    let slow = GrpcPeer::new(|_| Answer { delay: Duration::from_secs(60), ..Answer::ok(vec![]) });
    let closes = HttpPeer::new(|_| None);
    let half = HttpPeer::new(|_| Some(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec()));
    for url in [
        format!("http://127.0.0.1:{silent_port}"),
        format!("grpc://127.0.0.1:{silent_port}"),
        format!("https://127.0.0.1:{silent_port}"),
        format!("http://127.0.0.1:{drip_port}"),
        format!("grpc://127.0.0.1:{drip_port}"),
        slow.url(),
        closes.url(),
        half.url(),
        // An HTTP/1 server where HTTP/2 is wanted, a port where nobody listens, a name that nobody has.
        closes.url().replace("http", "grpc"),
        "http://127.0.0.1:1".to_owned(),
        "grpc://127.0.0.1:1".to_owned(),
        "grpc://nowhere.invalid".to_owned(),
    ] {
        let mut sender = sender(&url, |target| target.tls.ca = Some(tls_file("ca.pem")));
        for _ in 0..2 {
            let begun = Instant::now();
            let sent = sender.send(request(), 3, begun + Duration::from_millis(400));
            assert_eq!(told(&sent), "later", "{url}: {sent}");
            assert!(begun.elapsed() < Duration::from_millis(900), "{url}: {:?}", begun.elapsed());
        }
        let begun = Instant::now();
        drop(sender);
        assert!(begun.elapsed() < Duration::from_millis(200), "{url}: dropped in {:?}", begun.elapsed());
    }
    let mut own_timeout = sender(&slow.url(), |target| target.timeout = Duration::from_millis(200));
    let begun = Instant::now();
    assert_eq!(told(&own_timeout.send(request(), 3, soon())), "later");
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(told(&own_timeout.send(request(), 3, begun)), "later", "the deadline has passed");
}

#[test]
fn a_peer_that_comes_back_is_sent_to_again_by_the_same_sender() {
    for scheme in ["http", "grpc"] {
        let answered = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let busy = std::sync::Arc::clone(&answered);
        let first = move || !busy.swap(true, std::sync::atomic::Ordering::Relaxed);
        let url = match scheme {
            "http" => HttpPeer::new(move |_| (!first()).then(|| peers::response("200 OK", "", b""))).url(),
            _ => {
                let delay = move || if first() { Duration::from_secs(60) } else { Duration::ZERO };
                GrpcPeer::new(move |_| Answer { delay: delay(), ..Answer::ok(vec![]) }).url()
            }
        };
        let mut sender = sender(&url, |_| {});
        assert_eq!(told(&sender.send(request(), 3, Instant::now() + Duration::from_millis(300))), "later", "{scheme}");
        assert_eq!(told(&sender.send(request(), 3, soon())), "accepted", "{scheme}");
    }
}

#[test]
fn a_connection_that_was_closed_while_idle_costs_no_failure() {
    let http = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", http.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in http.incoming().map_while(Result::ok) {
            peers::read_request(&mut stream).unwrap();
            std::io::Write::write_all(&mut stream, &peers::response("200 OK", "", b"")).unwrap();
        }
    });
    let grpc = GrpcPeer::new(|_| Answer { hang_up: true, ..Answer::ok(vec![]) });
    for url in [url, grpc.url()] {
        let mut sender = sender(&url, |_| {});
        for _ in 0..5 {
            assert_eq!(sender.send(request(), 3, soon()), Sent::Accepted, "{url}");
            std::thread::sleep(Duration::from_millis(120));
        }
    }
}

#[test]
fn a_sender_works_and_drops_inside_an_async_runtime() {
    let http = HttpPeer::new(|_| Some(peers::response("200 OK", "", b"")));
    let grpc = GrpcPeer::new(|_| Answer::ok(vec![]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for url in [http.url(), grpc.url()] {
            assert_eq!(send_to(&url), Sent::Accepted, "{url}");
        }
    });
}

#[test]
fn parts_become_the_request_that_an_encoder_would_write() {
    let whole = traces();
    let encoded: Vec<(Vec<u8>, Vec<Vec<u8>>)> = [&whole.resource_spans[0], &whole.resource_spans[0]]
        .iter()
        .map(|part| {
            let scopes = part.scope_spans.iter().map(Message::encode_to_vec).collect();
            (part.resource.as_ref().map(Message::encode_to_vec).unwrap_or_default(), scopes)
        })
        .collect();
    let scopes: Vec<Vec<&[u8]>> =
        encoded.iter().map(|(_, scopes)| scopes.iter().map(Vec::as_slice).collect()).collect();
    let parts: Vec<(&[u8], &[&[u8]])> =
        encoded.iter().zip(&scopes).map(|((resource, _), scopes)| (resource.as_slice(), scopes.as_slice())).collect();
    let both = TracesData { resource_spans: vec![whole.resource_spans[0].clone(), whole.resource_spans[0].clone()] };
    assert_eq!(request_from_parts(&parts), both.encode_to_vec());
    assert_eq!(request_from_parts(&[]), Vec::<u8>::new());
}

#[test]
fn a_schema_url_stands_beside_its_resource_in_a_request() {
    let mut resource = crate::model::otlp::Resource { dropped_attributes_count: 7, ..Default::default() };
    let bare = resource.clone();
    crate::model::schema::note(&mut resource.attributes, "https://opentelemetry.io/schemas/1.30.0");
    let scope_spans =
        ScopeSpans { schema_url: "https://opentelemetry.io/schemas/1.37.0".to_owned(), ..Default::default() };
    let request = request_from_parts(&[(&resource.encode_to_vec(), &[&scope_spans.encode_to_vec()])]);
    let request = TracesData::decode(request.as_slice()).unwrap();
    let [of_resource] = &request.resource_spans[..] else { panic!("{request:#?}") };
    assert_eq!(of_resource.schema_url, "https://opentelemetry.io/schemas/1.30.0");
    assert_eq!((of_resource.resource.as_ref(), &of_resource.scope_spans[..]), (Some(&bare), &[scope_spans][..]));
}

fn tls_file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

fn server_config(wants_client: bool) -> rustls::ServerConfig {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(std::sync::Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = if wants_client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(tls_file("ca.pem")).unwrap()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let certificate = CertificateDer::from_pem_file(tls_file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(tls_file("server.key")).unwrap();
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

#[test]
fn tls_trusts_the_given_certificates_and_shows_its_own() {
    let ca_alone = TlsFiles { ca: Some(tls_file("ca.pem")), ..TlsFiles::default() };
    let ours = TlsFiles {
        client_certificate: Some(tls_file("client.pem")),
        client_key: Some(tls_file("client.key")),
        ..ca_alone.clone()
    };
    for wants_client in [false, true] {
        let grpc = GrpcPeer::start(Some(server_config(wants_client)), |_| Answer::ok(vec![]));
        let mut http_config = server_config(wants_client);
        http_config.alpn_protocols.clear();
        let http = HttpPeer::tls(http_config);
        for url in [format!("https://127.0.0.1:{}", http.port), format!("grpcs://localhost:{}", grpc.port)] {
            let send = |tls: &TlsFiles| {
                let mut sender = sender(&url, |target| target.tls = tls.clone());
                told(&sender.send(request(), 3, soon()))
            };
            assert_eq!(send(&ours), "accepted", "{url} {wants_client}");
            // The connection may be gone before the peer's reason was read.
            let without = send(&ca_alone);
            assert!(if wants_client { without != "accepted" } else { without == "accepted" }, "{url} {without}");
            let other = TlsFiles { ca: Some(tls_file("client.pem")), ..ours.clone() };
            assert_eq!(send(&other), "refused, pause", "{url}: a certificate that nobody vouches for");
        }
    }
}

#[test]
fn files_that_are_no_certificates_are_named_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    let (certificate, key) = (Some(tls_file("client.pem")), Some(tls_file("client.key")));
    let missing = directory.path().join("missing.pem");
    for (ca, client_certificate, client_key, named) in [
        (Some(missing.clone()), None, None, "missing.pem"),
        (Some(empty.clone()), None, None, "empty.pem"),
        (None, certificate.clone(), None, "client.pem"),
        (None, None, key.clone(), "client.key"),
        (None, Some(empty.clone()), key, "empty.pem"),
        (None, certificate.clone(), Some(empty), "empty.pem"),
        (None, certificate, Some(tls_file("server.key")), "server.key"),
    ] {
        for url in ["https://h", "grpcs://h"] {
            let mut target = Target::from_url(url).unwrap();
            target.tls = TlsFiles {
                ca: ca.clone(),
                client_certificate: client_certificate.clone(),
                client_key: client_key.clone(),
            };
            let error = Sender::new(target).expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
    }
    // What is not encrypted needs no files.
    sender("http://h", |target| target.tls.ca = Some(missing));
}

/// Everything that `tracing` tells a subscriber, counted.
struct Counting(std::sync::atomic::AtomicU64);

static COUNTED: Counting = Counting(std::sync::atomic::AtomicU64::new(0));

impl Counting {
    fn count(&self) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

struct CountingSubscriber;

impl tracing::Subscriber for CountingSubscriber {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        COUNTED.count();
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        COUNTED.count();
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Runs alone in a process of its own, because a global subscriber is for ever.
#[test]
fn nothing_of_sending_reaches_a_global_subscriber() {
    const CHILD: &str = "RUNSPAN_TEST_GLOBAL_SUBSCRIBER";
    if std::env::var_os(CHILD).is_none() {
        let name = "sinks::forward::tests::nothing_of_sending_reaches_a_global_subscriber";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let http = HttpPeer::new(|_| Some(peers::response("200 OK", "", b"")));
    let grpc = GrpcPeer::start(Some(server_config(false)), |_| Answer::ok(vec![]));
    tracing::subscriber::set_global_default(CountingSubscriber).unwrap();
    tracing::trace!("is counted");
    let counted = || COUNTED.0.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut hosts_own = 0;
    for url in [http.url(), format!("grpcs://localhost:{}", grpc.port)] {
        let target = |target: &mut Target| target.tls.ca = Some(tls_file("ca.pem"));
        assert_eq!(sender(&url, target).send(request(), 3, soon()), Sent::Accepted);
        let mut idle = sender(&url, target);
        assert_eq!(idle.send(request(), 3, soon()), Sent::Accepted);
        let outside = counted();
        assert_eq!(outside, 1 + hosts_own, "{url}");
        runtime.block_on(async {
            // What the host's runtime tells of itself is the host's.
            let before = counted();
            assert_eq!(idle.send(request(), 3, soon()), Sent::Accepted);
            drop(idle);
            assert_eq!(counted(), before);
        });
        hosts_own += counted() - outside;
    }
    assert_eq!(told(&send_to("grpc://127.0.0.1:1")), "later");
    assert_eq!(told(&send_to("http://127.0.0.1:1")), "later");
    #[cfg(feature = "metrics")]
    for url in [http.url(), "grpc://127.0.0.1:1".to_owned()] {
        let target = Target::from_url_for(Signal::Metrics, &url).unwrap();
        let settings = crate::sinks::metrics::Settings::default();
        let metrics = crate::sinks::metrics::Metrics::start(target, &Resource::default(), &settings).unwrap();
        metrics.records(crate::model::outcome::Outcome::Stored, "ok", 1);
        assert_eq!(metrics.shutdown(Duration::from_secs(20)).is_ok(), url.starts_with("http"));
    }
    assert_eq!(counted(), 1 + hosts_own);
}

#[test]
fn a_panic_of_a_library_is_a_failure_to_send() {
    assert_eq!(told(&unharmed(|| panic!("as a test"))), "later");
}

#[test]
fn metrics_as_json_are_refused_at_the_start() {
    let mut target = Target::from_url_for(Signal::Metrics, "http://h").unwrap();
    target.protocol = Protocol::HttpJson;
    assert!(Sender::new(target).is_err());
}
