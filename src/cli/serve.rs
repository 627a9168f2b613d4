//! `runspan serve`: takes OTLP in from any language.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runspan::server::{Server, Settings, address};
use runspan::sinks::forward::Target;
use runspan::store::files::database::Keeper;
use runspan::store::files::layout::STORE_VARIABLE;
use runspan::{Content, Error, Keep};

use super::numbers::whole;
use super::{CODE_FAILED, CODE_USE, Done, Session, Stop, variables};

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
    /// A file with settings, see docs/serve.md; environment and flags go before it [default: RUNSPAN_CONFIG, else runspan.yaml, if it is here]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where OTLP over gRPC is taken [default: 127.0.0.1:4317]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    otlp_grpc: Option<SocketAddr>,
    /// Where OTLP over HTTP is taken, as protobuf and as JSON [default: 127.0.0.1:4318]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    otlp_http: Option<SocketAddr>,
    /// Where /metrics, /healthz and /readyz answer [default: 127.0.0.1:4319]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    http: Option<SocketAddr>,
    /// Allow addresses that others can reach: there is neither TLS nor a password
    #[arg(long)]
    insecure_bind: bool,
    /// A name besides localhost by which this server may be called over HTTP; repeatable
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// What an acknowledged span survives: loss of power, or the death of this process [default: RUNSPAN_DURABILITY, else power]
    #[arg(long, value_name = "WHAT", ignore_case = true, value_parser = ["power", "process"])]
    durability: Option<String>,
    /// How much of prompts and answers is kept: none, redacted, full [default: RUNSPAN_CONTENT, else redacted]
    #[arg(long, value_name = "POLICY")]
    content: Option<Content>,
    /// An OTLP endpoint that gets all spans as well, with canonical names, run and cost; repeatable
    #[arg(long, value_name = "URL", value_parser = target, long_help = FORWARD_HELP)]
    forward: Vec<Target>,
    /// Which runs are forwarded, decided when they are over: all, or some of errors, cost>USD, slow>TIME, ratio=0.1 [default: RUNSPAN_FORWARD_KEEP, else all]
    #[arg(long, value_name = "RULES")]
    forward_keep: Option<Keep>,
    /// MiB that the journal may take on disk: how far a target may be behind before it loses the oldest spans [default: 1024]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    journal: Option<u64>,
    /// Seconds without a span after which a run whose root never came is over [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>, allow_hyphen_values = true)]
    silence: Option<u64>,
    /// Whether the texts of runs are kept for `runspan search` as well, in text.sqlite; not where RUNSPAN_SEARCH
    /// is anything but `on`
    #[arg(long, value_name = "SWITCH", value_enum, ignore_case = true, default_value_t = Switch::On)]
    search: Switch,
    /// Seconds that the end may take [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = whole::<u64>, allow_hyphen_values = true)]
    drain: Option<u64>,
}

/// A thing that may be switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

/// Read where no other file is named.
const CONFIGURATION: &str = "runspan.yaml";

const FORWARD_HELP: &str = "\
An OTLP endpoint that gets all spans as well, with canonical names, run and cost; repeatable.

grpc:// and grpcs:// mean gRPC, and so does port 4317; else it is HTTP.
Behind a # stand options with & between them, their values percent-encoded:

  protocol=grpc|http/protobuf|http/json
  compression=gzip|none
  timeout=MILLISECONDS
  header.NAME=VALUE
  ca=FILE, cert=FILE, key=FILE    PEM: whom to trust, and who we are
  own_metrics=on|off              whether it gets what /metrics shows, too

As in

  --forward 'https://collector.example#compression=gzip&header.x-tenant=a'

RUNSPAN_FORWARD names them where none is given here, with commas between them.

What OTEL_EXPORTER_OTLP_TRACES_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT names gets
everything besides, unless OTEL_TRACES_EXPORTER is none.";

/// Reads a target.
pub(super) fn target(url: &str) -> Result<Target, String> {
    Target::from_url(url).map_err(|error| error.to_string())
}

/// Returns the targets given, else those of the environment, if any.
fn targets(given: &[Target]) -> Result<Option<Vec<Target>>, Stop> {
    if !given.is_empty() {
        return Ok(Some(given.to_vec()));
    }
    let Some(list) = variables::text("RUNSPAN_FORWARD") else { return Ok(None) };
    let urls = list.split(',').map(str::trim).filter(|url| !url.is_empty());
    urls.map(|url| target(url).map_err(|why| format!("{}: {why}", Target::shown_url(url))))
        .collect::<Result<_, _>>()
        .map(Some)
        .map_err(|why| Stop::failed(CODE_USE, format!("RUNSPAN_FORWARD: {why}")))
}

/// Returns the defaults with what the file says that is named or stands in the current directory.
fn of_file(named: Option<&Path>, session: &Session<'_>) -> Result<Settings, Stop> {
    let beside = session.cwd.join(CONFIGURATION);
    let named = named.map(Path::to_owned).or_else(|| variables::text("RUNSPAN_CONFIG").map(PathBuf::from));
    let file = named.or_else(|| beside.is_file().then_some(beside));
    file.map_or_else(|| Ok(Settings::default()), |file| Settings::from_file(&file)).map_err(failed)
}

/// Returns the targets that a server has from its file.
pub fn targets_of_file(session: &Session<'_>) -> Result<Vec<Target>, Stop> {
    of_file(None, session).map(|settings| settings.forward)
}

/// Returns the settings: the defaults, what the file says, what the environment and the flags say.
fn settings(args: &Args, session: &Session<'_>) -> Result<Settings, Stop> {
    let mut settings = of_file(args.config.as_deref(), session)?;
    fn put<T: Clone>(given: &Option<T>, place: &mut T) {
        if let Some(given) = given {
            place.clone_from(given);
        }
    }
    put(&variables::CONTENT.unless_given(args.content)?, &mut settings.content);
    put(&variables::FORWARD_KEEP.unless_given(args.forward_keep.clone())?, &mut settings.forward_keep);
    let durability = args.durability.as_deref().and_then(|word| word.parse().ok());
    put(&variables::DURABILITY.unless_given(durability)?, &mut settings.durability);
    put(&args.otlp_grpc, &mut settings.otlp_grpc);
    put(&args.otlp_http, &mut settings.otlp_http);
    put(&args.http, &mut settings.http);
    put(&args.silence.map(Duration::from_secs), &mut settings.silence);
    put(&args.drain.map(Duration::from_secs), &mut settings.drain);
    put(&args.journal.map(|mib| mib << 20), &mut settings.journal_bytes);
    put(&targets(&args.forward)?, &mut settings.forward);
    settings.insecure_bind |= args.insecure_bind;
    settings.hosts.extend(args.allow_host.iter().cloned());
    // Where the variable is set, the search for a store finds it.
    if session.store.is_some() || std::env::var_os(STORE_VARIABLE).is_some_and(|path| !path.is_empty()) {
        settings.store.clone_from(&session.store);
    }
    Ok(settings)
}

/// Serves until a signal.
pub fn run(args: &Args, session: &mut Session<'_>) -> Done {
    let settings = settings(args, session)?;
    allow_descriptors();
    let server = Server::open(settings).map_err(failed)?;
    let ports: String = server.listening().iter().map(|port| format!("{port}\n")).collect();
    say(session, &ports);
    // Lists, sums and searches of a large store find their index current.
    let _keeper = Keeper::start(server.layout(), args.search == Switch::On, server.lag());
    server.run(|| say(session, "ready\n")).map_err(failed)
}

/// Has the system allow as many descriptors as this process may ask for: the usual bound of 1,024 is for programs with `select`.
fn allow_descriptors() {
    const ENOUGH: libc::rlim_t = 65_536;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: plain system calls with a place that lives through them.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_cur.max(limit.rlim_max.min(ENOUGH));
            // Where it may not, it goes on with what there is.
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Tells who listens on standard output; that nobody does is no reason not to serve.
fn say(session: &mut Session<'_>, text: &str) {
    let _ = session.print(text).and_then(|()| session.flush());
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
