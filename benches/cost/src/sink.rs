//! An OTLP/HTTP receiver that decodes and counts what it gets; `GET /count` says how much.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use prost::Message;
use runspan::model::otlp::TracesData;

use crate::Failed;

static SPANS: AtomicU64 = AtomicU64::new(0);

/// Starts one in a process of its own; returns it and its address.
pub fn start(me: &Path) -> Result<(Child, String), Failed> {
    let mut child = Command::new(me).arg("--sink").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
    Ok((child, format!("http://{}", line.trim())))
}

/// Returns how many spans have arrived at `url`.
pub fn count(url: &str) -> Result<u64, Failed> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.write_all(b"GET /count HTTP/1.1\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.rsplit("\r\n").next().unwrap_or_default().trim().parse()?)
}

/// Serves until killed.
pub fn serve() -> Result<(), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || answer(stream));
    }
    Ok(())
}

fn answer(stream: TcpStream) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).ok()? == 0 {
            return None;
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let is_question = first.starts_with("GET");
        let said = if is_question {
            SPANS.load(Ordering::SeqCst).to_string()
        } else if !first.contains("/v1/traces") {
            // What else a peer sends: logs, metrics.
            String::new()
        } else {
            let data = TracesData::decode(&body[..]).ok()?;
            let scopes = data.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
            SPANS.fetch_add(spans as u64, Ordering::SeqCst);
            String::new()
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n{said}",
            said.len()
        );
        writer.write_all(head.as_bytes()).ok()?;
        if is_question {
            return None;
        }
    }
}
