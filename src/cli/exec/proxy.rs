//! The pass-through for model calls: what a program says to a model, and what comes back, seen on the way.
//!
//! ```text
//! program ─> 127.0.0.1:PORT/openai/chat/completions ─> https://api.openai.com/v1/chat/completions
//!               │ request and answer go on piece by piece; a copy of each, within bounds
//!               └─> a step of kind llm, told through the intake as any other span
//! ```
//!
//! Nothing is changed on the way but the host, and how an answer may be packed. Keys pass by in headers, of which none is kept, and are taken out of what is. Copies have bounds; passing
//! on has none. What is no call of a known shape passes and is not recorded.

mod answer;
mod answers;
mod call;
mod copy;
pub mod dotenv;
mod events;
mod held;
mod json;
mod keys;
pub mod places;
mod recorder;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use runspan::conventions::names;
use runspan::server::Receiver;
use runspan::server::budget::Budget;
use runspan::with_causes;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use answers::Reply;
pub use answers::{Answers, OnMiss};
use call::Exchange;
use copy::{Copied, Patience, Tee};
use held::Held;
pub use places::Place;
use places::Route;
use recorder::{Answered, Call, Ending, READ, Recorder, Says, Tally};
pub use recorder::{AreTold, Calls, Lost, Missed};

/// How long the last calls may take to be told while not one of them is. A disk that answers is done long before.
const DRAIN: Duration = Duration::from_secs(5);
/// The same, whatever is told meanwhile: who waits for the command waits for this.
const MOST_OF_DRAIN: Duration = Duration::from_secs(60);
/// A request up to this size is answered from a recording: of a longer one nothing was recorded but that it was made.
const MOST_OF_REQUEST: usize = 32 << 20;
/// A request up to this size is read whole before it goes on: models do not answer before they have all of it.
const READ_FIRST: usize = 1 << 20;
/// A message with more headers passes no more: programs and peers take some hundreds at most.
const MOST_HEADERS: usize = 1_000;
/// Headers that are about one connection alone.
const OF_CONNECTION: &[HeaderName] = &[
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

type Body = BoxBody<Bytes, hyper::Error>;

/// A pass-through at work.
pub struct Proxy {
    address: SocketAddr,
    places: Vec<Place>,
    tally: Arc<Tally>,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    recording: JoinHandle<()>,
}

/// Why there is no answer.
enum Unanswered {
    /// The server could not be reached, or there was nothing to send.
    Unreachable(String),
    /// The connection broke when it was there.
    Disconnected(String),
}

impl Unanswered {
    fn of(error: &hyper_util::client::legacy::Error) -> Self {
        let why = with_causes(error);
        if error.is_connect() { Self::Unreachable(why) } else { Self::Disconnected(why) }
    }
}

/// What all connections share.
struct Shared {
    address: SocketAddr,
    places: Vec<Place>,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    budget: Arc<Budget>,
    says: Says,
    /// Where models are not asked.
    answers: Option<Arc<Answers>>,
    /// Of calls with a budget: a program that has gone pays for the answer all the same. Others end at once as they would
    /// without us, since a model that nobody hears any more may stop, and cost less.
    patience: Option<Patience>,
}

impl Proxy {
    /// Opens a port on 127.0.0.1 for calls to `places`, over TLS to whom `trusted` vouches for. With `answers`, those are
    /// given in the place of the models'.
    ///
    /// # Errors
    ///
    /// When there is no port.
    pub fn start(
        receiver: &Receiver,
        places: Vec<Place>,
        trusted: RootCertStore,
        about: Calls,
        answers: Option<Arc<Answers>>,
    ) -> std::io::Result<Self> {
        let runtime = receiver.runtime();
        let _in_runtime = runtime.enter();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let client = Client::builder(TokioExecutor::new())
            .http1_preserve_header_case(true)
            .http1_max_headers(MOST_HEADERS)
            .build(connector(trusted)?);
        let (says, recorder) = Recorder::new(receiver.teller(), about);
        let (stop, stopping) = watch::channel(false);
        let tally = recorder.tally();
        let budget = copy::budget();
        let patience = says.purse.is_some().then(|| Patience::new(stopping.clone()));
        let shared = Arc::new(Shared { address, places: places.clone(), client, budget, says, answers, patience });
        let accepting = runtime.spawn(accept(listener, shared, stopping));
        let recording = runtime.spawn(recorder.work());
        Ok(Self { address, places, tally, stop, accepting, recording })
    }

    /// Returns the variables that lead to it.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        self.places.iter().map(|place| (place.variable(), place.led_to(self.address)))
    }

    /// Returns where calls go.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Returns how many calls it has seen.
    pub fn calls(&self) -> u64 {
        self.tally.seen()
    }

    /// Tells whether anybody has asked there.
    pub fn is_used(&self) -> bool {
        self.tally.connections() > 0
    }

    /// Returns what servers answered after which calls are not seen.
    pub fn lost(&self) -> Vec<Lost> {
        self.tally.lost()
    }

    /// Closes the port, and tells what is still under way as cut off. Returns what could not be recorded. Nothing of it
    /// uses the receiver any more when this returns.
    pub async fn finish(self) -> Option<Missed> {
        // Nobody looks any more only if it has ended.
        let _ = self.stop.send(true);
        let mut recording = self.recording;
        let begun = Instant::now();
        let is_done = {
            let mut ended = std::pin::pin!(async {
                let _ = self.accepting.await;
                let _ = (&mut recording).await;
            });
            loop {
                let settled = self.tally.settled();
                match tokio::time::timeout(DRAIN, &mut ended).await {
                    Ok(()) => break true,
                    Err(_) if self.tally.settled() > settled && begun.elapsed() < MOST_OF_DRAIN => {}
                    Err(_) => break false,
                }
            }
        };
        if !is_done {
            recording.abort();
            let _ = recording.await;
        }
        self.tally.missed()
    }
}

/// Variables by which programs are told of certificates to trust besides those of the system, as PEM files.
const CERTIFICATES: &[&str] = &["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];

/// Returns whom this system trusts, and the program by its environment.
pub fn trusted(given: impl Fn(&str) -> Option<String>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // One that cannot be read is missed by the server that needs it, which is named then.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for file in CERTIFICATES.iter().filter_map(|name| given(name)) {
        let found = CertificateDer::pem_file_iter(file).into_iter().flatten().filter_map(Result::ok);
        roots.add_parsable_certificates(found);
    }
    roots
}

/// Returns that nobody is trusted, where nobody is asked.
pub fn nobody() -> RootCertStore {
    RootCertStore::empty()
}

/// Makes the way to models: over TLS, or plain to a server on this machine say.
fn connector(roots: RootCertStore) -> std::io::Result<HttpsConnector<HttpConnector>> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Those that are open are dropped, and with them the calls on them: their program is gone.
            () = has_ended(&mut stopping) => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    shared.says.connected();
                    connections.spawn(serve(stream, Arc::clone(&shared)));
                }
                // Out of file descriptors, most often: those that are there are served.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn has_ended(stopping: &mut watch::Receiver<bool>) {
    // Who would tell is gone only when it has ended, too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // A small piece must not wait for the next.
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(pass(&shared, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // What is wrong with one connection is its peer's matter.
    let _ = served.await;
}

/// Passes a request on, and its answer back.
async fn pass(shared: &Arc<Shared>, mut request: Request<Incoming>) -> Response<Body> {
    if !is_for_us(request.headers(), shared.address) {
        return refused(StatusCode::MISDIRECTED_REQUEST, "this port is for one command alone");
    }
    let Some(route) = places::route(&shared.places, request.method(), request.uri()) else {
        return refused(StatusCode::NOT_FOUND, "nothing is passed on from here");
    };
    match (&shared.answers, route.format) {
        (Some(answers), Some(format)) => return answered(shared, answers, request, &route, format).await,
        (Some(answers), None) if answers.on_miss != OnMiss::Live => {
            let what = format!("{} {}", request.method(), request.uri().path());
            let message = format!("runspan replay: {what} is no call of a model, and not in the recording");
            answers.refuse(what);
            return refused(StatusCode::NOT_FOUND, &message);
        }
        _ => {}
    }
    let may_cost = request.method() == Method::POST || is_upgrade(request.headers());
    if let Some(purse) = shared.says.purse.as_ref().filter(|_| may_cost)
        && let Err(over) = purse.admit().await
    {
        return over_budget(&route, &over.to_string()).map(whole);
    }
    let upgrade = is_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let exchange = |format| Exchange::new(format, &route, request.headers()).asked_at(shared.address.port());
    let call = route.format.map(|format| shared.says.began(exchange(format)));
    let (answer, call) = match readied(shared, request, &route, call.as_ref()).await {
        Ok(request) => send(shared, request, call).await,
        Err(why) => (Err(Unanswered::Unreachable(why)), call),
    };
    match (answer, call) {
        (Ok(response), call) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            if let Some(call) = call {
                call.answered(Answered::none(Ending::Whole));
            }
            switched(response, upgrade)
        }
        (Ok(response), Some(call)) => watched(shared, &route, response, call),
        (Ok(response), None) => {
            if let Some(purse) = shared.says.purse.as_ref().filter(|_| may_cost && response.status().is_redirection()) {
                purse.give_back(false);
            }
            cleaned(shared, &route, response).map(BodyExt::boxed)
        }
        (Err(why), call) => unanswered(why, &route, call),
    }
}

/// Answers a call from the recording, or has a model asked that the recording is left for.
async fn answered(
    shared: &Arc<Shared>,
    answers: &Arc<Answers>,
    request: Request<Incoming>,
    route: &Route<'_>,
    format: places::Format,
) -> Response<Body> {
    let exchange = Exchange::new(format, route, request.headers()).asked_at(shared.address.port());
    let call = shared.says.began(exchange);
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MOST_OF_REQUEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            let message = format!("runspan replay: the request cannot be read: {error}");
            call.answered(Answered::none(Ending::Broken(message.clone())));
            return refused(StatusCode::PAYLOAD_TOO_LARGE, &message);
        }
    };
    let reply = match json::read(&body) {
        // Of a large one it takes its time, which others must not wait for.
        Ok(asked) => tokio::task::block_in_place(|| answers.reply(format, &asked)),
        Err(error) => Reply::Said {
            status: StatusCode::BAD_REQUEST.as_u16(),
            is_stream: false,
            body: runspan::replay::wire::error(format, "bad_request", &format!("runspan replay: no JSON: {error}"))
                .to_string(),
        },
    };
    match reply {
        Reply::Said { status, is_stream, body: said } => {
            call.request().passed(Copied::of(&body, &shared.budget));
            told(shared, said_by_us(status, is_stream, said), call)
        }
        Reply::Begun { body: said, after } => {
            call.request().passed(Copied::of(&body, &shared.budget));
            let response = said_by_us(StatusCode::OK.as_u16(), true, said);
            let (status, headers) = (response.status(), response.headers().clone());
            let copy = Copied::of(response.body(), &shared.budget);
            let done = move |ending| call.answered(Answered::of(status, &headers, copy, ending));
            response.map(|begun| Held::new(begun, after, done).boxed())
        }
        Reply::Ask { number, body } => {
            call.request().passed(Copied::of(&body, &shared.budget));
            if let Some(purse) = &shared.says.purse
                && let Err(over) = purse.admit().await
            {
                return told(shared, over_budget(route, &over.to_string()), call);
            }
            let (answer, call) = match for_model(head, body, route) {
                Ok(request) => send(shared, request, Some(call)).await,
                Err(why) => (Err(Unanswered::Unreachable(why)), Some(call)),
            };
            match (answer, call) {
                (Ok(response), Some(call)) => {
                    if !response.status().is_redirection() {
                        answers.replay.went_live(number);
                    }
                    watched(shared, route, response, call)
                }
                (Ok(response), None) => cleaned(shared, route, response).map(BodyExt::boxed),
                (Err(why), call) => unanswered(why, route, call),
            }
        }
    }
}

/// Gives an answer of ours to a call, and records that.
fn told(shared: &Shared, response: Response<Bytes>, call: Call) -> Response<Body> {
    let copy = Copied::of(response.body(), &shared.budget);
    call.answered(Answered::of(response.status(), response.headers(), copy, Ending::Whole));
    response.map(whole)
}

fn said_by_us(status: u16, is_stream: bool, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = if is_stream { "text/event-stream" } else { "application/json" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Makes the request for a model that the recording is left for.
fn for_model(mut head: http::request::Parts, body: Vec<u8>, route: &Route<'_>) -> Result<Request<Body>, String> {
    head.uri = route.uri().ok_or("the address is none")?;
    clean(&mut head.headers);
    // It may be another one.
    head.headers.remove(header::CONTENT_LENGTH);
    ask_for_what_can_be_read(&mut head.headers);
    head.version = hyper::Version::HTTP_11;
    Ok(Request::from_parts(head, whole(Bytes::from(body))))
}

fn whole(body: Bytes) -> Body {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed()
}

fn unanswered(why: Unanswered, route: &Route<'_>, call: Option<Call>) -> Response<Body> {
    let host = route.host();
    let (message, ending): (String, fn(String) -> Ending) = match why {
        Unanswered::Unreachable(why) => (format!("and cannot reach {host}: {why}"), Ending::Unreachable),
        Unanswered::Disconnected(why) => {
            (format!("and the connection to {host} broke before the answer: {why}"), Ending::Disconnected)
        }
    };
    let message = format!("runspan exec passes model calls on, {message}");
    if let Some(call) = call {
        call.answered(Answered::none(ending(message.clone())));
    }
    refused(StatusCode::BAD_GATEWAY, &message)
}

/// Makes the request that goes on.
async fn readied(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    route: &Route<'_>,
    call: Option<&Call>,
) -> Result<Request<Body>, String> {
    let (mut head, body) = request.into_parts();
    head.uri = route.uri().ok_or("the address is none")?;
    let upgrade = is_upgrade(&head.headers).then(|| head.headers.get(header::UPGRADE).cloned()).flatten();
    clean(&mut head.headers);
    if let Some(protocol) = upgrade {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        head.headers.insert(header::UPGRADE, protocol);
    }
    head.version = hyper::Version::HTTP_11;
    if call.is_some() {
        ask_for_what_can_be_read(&mut head.headers);
    }
    let body = match call {
        Some(call) => observed(shared, body, call).await?,
        None => Tee::blind(body).boxed(),
    };
    Ok(Request::from_parts(head, body))
}

type Sent = (Result<Response<Incoming>, Unanswered>, Option<Call>);

/// Sends a request, and gives the call back with the beginning of its answer. A program that goes away before that drops
/// this; what it asked for is waited for all the same, where it counts.
async fn send(shared: &Arc<Shared>, request: Request<Body>, call: Option<Call>) -> Sent {
    let client = shared.client.clone();
    let asking = async move { client.request(request).await.map_err(|error| Unanswered::of(&error)) };
    let (patience, call) = match (&shared.patience, call) {
        (Some(patience), Some(call)) => (patience.clone(), call),
        (_, call) => return (asking.await, call),
    };
    let (mut tell, told) = oneshot::channel();
    let budget = Arc::clone(&shared.budget);
    tokio::spawn(async move {
        let mut asking = pin!(asking);
        let came = tokio::select! {
            answer = &mut asking => Some(answer),
            () = tell.closed() => None,
        };
        let left = Instant::now();
        let (answer, call) = match came {
            Some(answer) => match tell.send((answer, Some(call))) {
                Ok(()) => return,
                Err((answer, call)) => (answer.ok(), call),
            },
            None => {
                let answer = tokio::select! {
                    answer = asking => answer.ok(),
                    () = patience.ends(left) => None,
                };
                (answer, Some(call))
            }
        };
        let answered = match answer {
            Some(response) => {
                let (head, body) = response.into_parts();
                let copy = patience.read_on(body, Copied::left(left, &budget)).await;
                Answered::of(head.status, &head.headers, copy, Ending::Cancelled)
            }
            None => Answered::left(left),
        };
        if let Some(call) = call {
            call.answered(answered);
        }
    });
    told.await.unwrap_or_else(|_| (Err(Unanswered::Unreachable("the recording is over".to_owned())), None))
}

/// Watches a request on its way.
async fn observed(shared: &Arc<Shared>, body: Incoming, call: &Call) -> Result<Body, String> {
    let asked = call.request();
    let is_small = hyper::body::Body::size_hint(&body).upper().is_some_and(|bytes| bytes <= READ_FIRST as u64);
    if !is_small {
        let passed = move |copy, ending| {
            if matches!(ending, Ending::Broken(_)) {
                asked.broke_off();
            }
            asked.passed(copy);
        };
        return Ok(Tee::new(body, &shared.budget, passed).boxed());
    }
    let read = match Limited::new(body, READ_FIRST).collect().await {
        Ok(read) => read.to_bytes(),
        Err(error) => {
            // It has no more than it may have: the program has gone, or sends none that is one.
            asked.broke_off();
            return Err(error.to_string());
        }
    };
    asked.passed(Copied::of(&read, &shared.budget));
    Ok(whole(read))
}

/// Watches an answer on its way back. One that sends the program elsewhere is none.
fn watched(shared: &Arc<Shared>, route: &Route<'_>, response: Response<Incoming>, call: Call) -> Response<Body> {
    if response.status().is_redirection() {
        // Before the program hears of it: what it asks then has its place in the budget.
        call.sent_on(lost(shared, route, &response));
        return cleaned(shared, route, response).map(BodyExt::boxed);
    }
    let response = cleaned(shared, route, response);
    let (status, headers) = (response.status(), response.headers().clone());
    response.map(|body| {
        let tee = Tee::new(body, &shared.budget, move |copy, ending| {
            call.answered(Answered::of(status, &headers, copy, ending));
        });
        tee.with_patience(shared.patience.clone()).boxed()
    })
}

/// Returns what is to be said of an answer that sends a program where it is not seen.
fn lost(shared: &Shared, route: &Route<'_>, response: &Response<Incoming>) -> Option<Lost> {
    let status = response.status();
    // What clients do not follow leads nowhere.
    let is_followed = !matches!(status, StatusCode::MULTIPLE_CHOICES | StatusCode::NOT_MODIFIED);
    let location = location(response.headers()).filter(|_| is_followed);
    if location.is_some_and(|location| route.leads_here(location, shared.address)) {
        return None;
    }
    let to = location.and_then(|location| route.target(location)).and_then(|there| places::name_of(&there));
    Some(Lost { host: route.name(), status: status.as_u16(), to })
}

fn location(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::LOCATION).and_then(|location| location.to_str().ok())
}

/// Lets both sides speak another protocol from here on, as for a conversation by voice; that is not recorded.
fn switched(mut response: Response<Incoming>, upgrade: Option<hyper::upgrade::OnUpgrade>) -> Response<Body> {
    let there = hyper::upgrade::on(&mut response);
    if let Some(here) = upgrade {
        tokio::spawn(async move {
            let (Ok(here), Ok(there)) = tokio::join!(here, there) else { return };
            // It ends when either side is done, and how is theirs to know.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(here), &mut TokioIo::new(there)).await;
        });
    }
    response.map(BodyExt::boxed)
}

/// Tells whether a request was sent to this port by its address: a web page would name its own host.
fn is_for_us(headers: &HeaderMap, address: SocketAddr) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    host == address.to_string() || host == format!("localhost:{}", address.port())
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
}

/// Removes what is about the connection, and what the peer says is.
fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // It says nothing then, and who passes the message on takes it out: RFC 9112, section 6.3.
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in named.iter().chain(OF_CONNECTION) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// Leaves of the ways in which an answer may be packed those that are read here: what was used stands in it.
fn ask_for_what_can_be_read(headers: &mut HeaderMap) {
    let given = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let ways: Vec<&str> = given.flat_map(|value| value.split(',')).map(str::trim).collect();
    let is_read = |way: &&&str| {
        let name = way.split(';').next().unwrap_or_default().trim_end();
        name.eq_ignore_ascii_case("identity") || READ.iter().any(|read| name.eq_ignore_ascii_case(read))
    };
    let left: Vec<&str> = ways.iter().filter(is_read).copied().collect();
    if left.len() < ways.len() {
        let left = if left.is_empty() { "identity".to_owned() } else { left.join(", ") };
        if let Ok(left) = HeaderValue::try_from(left) {
            headers.insert(header::ACCEPT_ENCODING, left);
        }
    }
}

fn cleaned(shared: &Shared, route: &Route<'_>, mut response: Response<Incoming>) -> Response<Incoming> {
    let is_elsewhere = response.status().is_redirection();
    let headers = response.headers_mut();
    clean(headers);
    let location =
        location(headers).filter(|_| is_elsewhere).and_then(|location| route.sent_on(location, shared.address));
    if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    response
}

/// Answers in the shape that clients of models show to people.
fn refused(status: StatusCode, message: &str) -> Response<Body> {
    let error = serde_json::json!({"error": {"message": message, "type": "runspan_exec", "code": null}});
    said_by_us(status.as_u16(), false, error.to_string()).map(whole)
}

/// Refuses a call in the form of errors of the service, with a status that its clients do not try again.
fn over_budget(route: &Route<'_>, why: &str) -> Response<Bytes> {
    let message = format!("runspan exec passes on no more calls: {why}");
    let error = match route.is_anthropic() {
        true => serde_json::json!({"type": "error", "error": {"type": "permission_error", "message": message}}),
        false => {
            let code = names::BUDGET_EXCEEDED;
            serde_json::json!({"error": {"message": message, "type": code, "param": null, "code": code}})
        }
    };
    let mut response = said_by_us(StatusCode::FORBIDDEN.as_u16(), false, error.to_string());
    response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    response
}

/// Joins a path of ours to the address that it stands for.
fn joined(base: &Uri, rest: &str) -> Option<Uri> {
    format!("{}{rest}", base.to_string().trim_end_matches('/')).parse().ok()
}
