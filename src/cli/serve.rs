//! `runspan serve`: takes OTLP in from any language.

use std::net::SocketAddr;
use std::time::Duration;

use runspan::server::{Server, Settings};
use runspan::sinks::forward::Target;
use runspan::store::files::database::Keeper;
use runspan::{Content, Durability, Error, Keep};

use super::{CODE_FAILED, CODE_USE, Done, Session, Stop};

/// What `serve` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runspan serve
  runspan serve --otlp-http 0 --otlp-grpc 0 --http 0      any free ports; they are printed
  OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 python agent.py

A port alone means 127.0.0.1. An answer of success means that the spans survive loss of power.
Prints `listening NAME ADDRESS` a line each, then `ready`; SIGTERM and SIGINT end it.")]
pub struct Args {
    /// Where OTLP over gRPC is taken
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4317", value_parser = address)]
    otlp_grpc: SocketAddr,
    /// Where OTLP over HTTP is taken, as protobuf and as JSON
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4318", value_parser = address)]
    otlp_http: SocketAddr,
    /// Where /metrics, /healthz and /readyz answer
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4319", value_parser = address)]
    http: SocketAddr,
    /// Allow addresses that others can reach: there is neither TLS nor a password
    #[arg(long)]
    insecure_bind: bool,
    /// A name besides localhost by which this server may be called over HTTP; repeatable
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// What an acknowledged span survives: loss of power, or the death of this process
    #[arg(long, value_name = "WHAT", env = "RUNSPAN_DURABILITY", default_value = "power", value_parser = ["power", "process"])]
    durability: String,
    /// How much of prompts and answers is kept: none, redacted, full
    #[arg(long, value_name = "POLICY", env = "RUNSPAN_CONTENT", default_value = "redacted")]
    content: Content,
    /// An OTLP endpoint that gets all spans as well, with canonical names, run and cost; repeatable
    #[arg(long, value_name = "URL", value_parser = target, long_help = FORWARD_HELP)]
    forward: Vec<Target>,
    /// Which runs are forwarded, decided when they are over: all, or some of errors, cost>USD, slow>TIME, ratio=0.1
    #[arg(long, value_name = "RULES", env = "RUNSPAN_FORWARD_KEEP", default_value = "all")]
    forward_keep: Keep,
    /// MiB that the journal may take on disk: how far a target may be behind before it loses the oldest spans
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    journal: u64,
    /// Seconds without a span after which a run whose root never came is over
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    silence: u64,
    /// Seconds that the end may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    drain: u64,
}

const FORWARD_HELP: &str = "\
An OTLP endpoint that gets all spans as well, with canonical names, run and cost; repeatable.

grpc:// and grpcs:// mean gRPC, and so does port 4317; else it is HTTP. Behind a # stand options with & between them,
values percent-encoded: protocol=grpc|http/protobuf|http/json, compression=gzip|none, timeout=MILLISECONDS,
header.NAME=VALUE, and the PEM files ca=, cert=, key=. As in

  --forward 'https://collector.example#compression=gzip&header.x-tenant=a'

RUNSPAN_FORWARD names them where none is given here, with commas between them.";

/// Reads a target.
fn target(url: &str) -> Result<Target, String> {
    Target::from_url(url).map_err(|error| error.to_string())
}

/// Returns the targets given, else those of the environment.
fn targets(given: &[Target]) -> Result<Vec<Target>, Stop> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let list = std::env::var("RUNSPAN_FORWARD").unwrap_or_default();
    let urls = list.split(',').map(str::trim).filter(|url| !url.is_empty());
    urls.map(target).collect::<Result<_, _>>().map_err(|why| Stop::failed(CODE_USE, format!("RUNSPAN_FORWARD: {why}")))
}

/// Reads an address; a port alone is one of this machine.
fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let text = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| "expected PORT or ADDRESS:PORT, as in 4318 or 127.0.0.1:4318".to_owned())
}

/// Serves until a signal.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let settings = Settings {
        store: session.store.clone(),
        otlp_grpc: args.otlp_grpc,
        otlp_http: args.otlp_http,
        http: args.http,
        insecure_bind: args.insecure_bind,
        hosts: args.allow_host.clone(),
        durability: if args.durability == "process" { Durability::Process } else { Durability::Power },
        content: args.content,
        silence: Duration::from_secs(args.silence),
        drain: Duration::from_secs(args.drain),
        forward: targets(&args.forward)?,
        forward_keep: args.forward_keep.clone(),
        journal_bytes: args.journal << 20,
        ..Settings::default()
    };
    let server = Server::open(settings).map_err(failed)?;
    for port in server.listening() {
        session.print(&format!("{port}\n"))?;
    }
    session.flush()?;
    // Lists of a large store find their index current.
    let _keeper = Keeper::start(server.layout());
    let mut told = Ok(());
    server.run(|| told = session.print("ready\n").and_then(|()| session.flush())).map_err(failed)?;
    told
}

fn failed(error: Error) -> Stop {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let code = if matches!(error, Error::Setting { .. }) { CODE_USE } else { CODE_FAILED };
    let stop = Stop::failed(code, format!("{error}{cause}"));
    match error {
        Error::Listen { .. } => stop.hint("another server may have the port; port 0 takes any free one"),
        Error::Setting { .. } => stop,
        _ => stop.hint("runspan doctor checks the store"),
    }
}
