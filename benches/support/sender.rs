//! A client that sends export requests over one connection, one after the other, as the exporter of an SDK does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;

/// Longest that one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What a request goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protobuf.
    Http,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All of it was taken.
    Taken,
    /// It was not, and is to be sent again after so long.
    Later(Duration),
    /// Anything else, in words.
    Other(String),
}

/// One connection.
pub struct Sender {
    way: Way,
    is_packed: bool,
}

enum Way {
    Grpc { runtime: Box<Runtime>, send: h2::client::SendRequest<Bytes>, uri: String },
    Http { stream: BufReader<TcpStream>, head: String },
}

impl Sender {
    /// Connects. `is_packed`: bodies are compressed with gzip already.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn connect(to: SocketAddr, protocol: Protocol, is_packed: bool) -> io::Result<Self> {
        let way = match protocol {
            Protocol::Http => {
                let stream = TcpStream::connect(to)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_LIMIT))?;
                let encoding = if is_packed { "Content-Encoding: gzip\r\n" } else { "" };
                let head = format!(
                    "POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n{encoding}"
                );
                Way::Http { stream: BufReader::new(stream), head }
            }
            Protocol::Grpc => {
                let runtime = Box::new(tokio::runtime::Builder::new_current_thread().enable_all().build()?);
                let send = runtime.block_on(async {
                    let stream = tokio::net::TcpStream::connect(to).await?;
                    stream.set_nodelay(true)?;
                    let (send, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
                    // How the connection ends shows in the calls on it.
                    tokio::spawn(connection);
                    Ok::<_, io::Error>(send)
                })?;
                Way::Grpc { runtime, send, uri: format!("http://{to}{EXPORT}") }
            }
        };
        Ok(Self { way, is_packed })
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    ///
    /// When the connection broke, and nobody knows what became of the request.
    pub fn send(&mut self, body: &[u8]) -> io::Result<Answer> {
        match &mut self.way {
            Way::Http { stream, head } => over_http(stream, head, body),
            Way::Grpc { runtime, send, uri } => {
                let mut message = Vec::with_capacity(body.len() + 5);
                message.push(u8::from(self.is_packed));
                message.extend_from_slice(&(body.len() as u32).to_be_bytes());
                message.extend_from_slice(body);
                let call = over_grpc(send, uri, self.is_packed, message.into());
                runtime.block_on(async {
                    match tokio::time::timeout(ANSWER_LIMIT, call).await {
                        Ok(answer) => answer.map_err(io::Error::other),
                        Err(_) => Err(io::ErrorKind::TimedOut.into()),
                    }
                })
            }
        }
    }
}

fn over_http(stream: &mut BufReader<TcpStream>, head: &str, body: &[u8]) -> io::Result<Answer> {
    let mut request = format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    stream.get_mut().write_all(&request)?;
    let (mut code, mut length, mut wait) = (0, 0, None);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(status) = line.strip_prefix("http/1.1 ") {
            code = status.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
        }
        match line.split_once(": ") {
            Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
            Some(("retry-after", value)) => wait = value.parse().ok().map(Duration::from_secs),
            _ => {}
        }
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok(match (code, wait) {
        (200, _) if text.is_empty() => Answer::Taken,
        (429 | 503, Some(wait)) => Answer::Later(wait),
        _ => Answer::Other(format!("status {code}, to wait {wait:?}: {}", String::from_utf8_lossy(&text))),
    })
}

async fn over_grpc(
    send: &mut h2::client::SendRequest<Bytes>,
    uri: &str,
    is_packed: bool,
    message: Bytes,
) -> Result<Answer, h2::Error> {
    let mut call = http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    if is_packed {
        call = call.header("grpc-encoding", "gzip");
    }
    let Ok(call) = call.body(()) else { return Ok(Answer::Other("no request".to_owned())) };
    std::future::poll_fn(|context| send.poll_ready(context)).await?;
    let (answer, mut sending) = send.send_request(call, false)?;
    sending.send_data(message, true)?;
    let answer = answer.await?;
    let (head, mut body) = answer.into_parts();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        text.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let of = |name: &str| trailers.get(name).or_else(|| head.headers.get(name)).and_then(|value| value.to_str().ok());
    let wait = of("grpc-status-details-bin").and_then(retry_delay);
    Ok(match (of("grpc-status"), wait) {
        // A message without a byte: nothing was rejected.
        (Some("0"), _) if text == [0; 5] => Answer::Taken,
        (Some("8" | "14"), Some(wait)) => Answer::Later(wait),
        (status, wait) => Answer::Other(format!("status {status:?}, to wait {wait:?}: {:?}", of("grpc-message"))),
    })
}

/// Reads the delay of the `RetryInfo` in an encoded `google.rpc.Status`.
fn retry_delay(details: &str) -> Option<Duration> {
    let bytes = unbase64(details)?;
    let name = b"google.rpc.RetryInfo";
    let at = bytes.windows(name.len()).position(|bytes| bytes == name)? + name.len();
    // Field 2 of `Any`, in it field 1 of `RetryInfo`, in it the seconds of a `Duration`.
    match bytes.get(at..at + 6)? {
        [0x12, _, 0x0a, _, 0x08, seconds] if *seconds < 128 => Some(Duration::from_secs(u64::from(*seconds))),
        _ => None,
    }
}

fn unbase64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        bits = bits << 6 | DIGITS.iter().position(|known| *known == digit)? as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}
